// Command tiny is the only file of the image cc-ci-run-test/tiny: a service that
// works, or fails in the way that a test chooses.
//
//	tiny          serve HTTP on port 8080: / says $VERSION, /data/NAME keeps what is PUT
//	tiny health   ask the service that runs beside it whether it is healthy
//
// These variables make the service fail:
//
//	FAIL=TEXT        prints TEXT and exits with 1
//	UNHEALTHY=TEXT   never becomes healthy; its health check says TEXT
//	FILL=1           writes to /data until the disk is full, prints the error, and exits with 1
package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const (
	data = "/data"
	port = "8080"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "health" {
		err = health()
	} else {
		err = serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tiny:", err)
		os.Exit(1)
	}
}

func health() error {
	answer, err := http.Get("http://127.0.0.1:" + port + "/health")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return err
}

func serve() error {
	// In a container this is process 1, which SIGTERM does not end by itself.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() { <-signals; os.Exit(0) }()
	fmt.Println("tiny: version", os.Getenv("VERSION"), "starts on port", port)
	if text := os.Getenv("FAIL"); text != "" {
		return fmt.Errorf("%s", text)
	}
	if os.Getenv("FILL") != "" {
		return fill()
	}
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "version", os.Getenv("VERSION")) })
	http.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if text := os.Getenv("UNHEALTHY"); text != "" {
			http.Error(w, text, http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("GET /data/{name}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(data, r.PathValue("name")))
	})
	http.HandleFunc("PUT /data/{name}", func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(filepath.Join(data, r.PathValue("name")), content, 0o644)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return http.ListenAndServe(":"+port, nil)
}

func fill() error {
	file, err := os.Create(filepath.Join(data, "fill"))
	if err != nil {
		return err
	}
	_, err = io.Copy(file, rand.Reader)
	return err
}
