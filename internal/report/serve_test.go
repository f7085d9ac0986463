package report

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// get asks a server, with another Host if that is not "".
func get(t *testing.T, method, url, host string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

func TestServe(t *testing.T) {
	e := newExample(t)
	s := story{recipe: "a/b", tests: []string{"test_a"}, nights: []string{"p"}, revision: hash2, env: hash2, text: "it fails"}
	e.tell(s)
	e.flush()
	dir := filepath.Join(t.TempDir(), "report")
	ctx, stop := context.WithCancel(t.Context())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- Serve(ctx, e.source(), Serving{Dir: dir, Address: "127.0.0.1:0", Ready: func(url string) { ready <- url }, Failed: func(err error) { t.Error(err) }})
	}()
	url := ""
	select {
	case url = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	e.must(os.WriteFile(filepath.Join(dir, "secret.txt"), []byte("mine"), 0o644))
	e.must(os.Symlink("/etc/passwd", filepath.Join(dir, "passwd.html")))

	answer, body := get(t, "GET", url, "")
	if answer.StatusCode != 200 || !strings.Contains(body, "all 1 pass") {
		t.Errorf("%s: %s", answer.Status, body)
	}
	for name, want := range map[string]string{"Content-Security-Policy": Policy + "; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff", "Refresh": Refresh, "Content-Type": "text/html; charset=utf-8"} {
		if got := answer.Header.Get(name); got != want {
			t.Errorf("%s: %q, not %q", name, got, want)
		}
	}
	if answer, _ := get(t, "GET", url+"?still", ""); answer.Header.Get("Refresh") != "" {
		t.Error("?still refreshes")
	}
	for _, c := range []struct {
		method, path, host string
		status             int
	}{
		{"GET", "r-a%252Fb.html", "", 200},
		{"HEAD", "parity.html", "localhost", 200},
		{"GET", "parity.html", "[::1]:80", 200},
		{"GET", "parity.html", "evil.example", 403},
		{"GET", "parity.html", "127.0.0.1.evil.example:80", 403},
		{"POST", "", "", 405},
		{"GET", "secret.txt", "", 404},
		{"GET", "passwd.html", "", 500}, // it leads out of the directory
		{"GET", "..%2f..%2fetc%2fpasswd", "", 404},
		{"GET", "r-nothing.html", "", 404},
	} {
		if answer, body := get(t, c.method, url+c.path, c.host); answer.StatusCode != c.status || strings.Contains(body, "root:") {
			t.Errorf("%s %s of %s: %s", c.method, c.path, c.host, answer.Status)
		}
	}

	s.nights = []string{"p", "f"}
	e.tell(s)
	e.flush()
	for {
		if _, body := get(t, "GET", url, ""); strings.Contains(body, "1 failed") {
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if _, body := get(t, "GET", url+"r-a%252Fb.html", ""); !strings.Contains(body, "it fails") {
		t.Error("the recipe's page is an earlier one")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestServeAddress: by default nobody else can read what tests print.
func TestServeAddress(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80", "example.org:80", "localhost.example.org:80"} {
		err := Serve(t.Context(), Source{}, Serving{Dir: t.TempDir(), Address: address})
		if err == nil || !strings.Contains(err.Error(), "--serve-remote") {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := Serve(t.Context(), Source{}, Serving{Dir: t.TempDir(), Address: "127.0.0.1"}); err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
		t.Error(err)
	}
}
