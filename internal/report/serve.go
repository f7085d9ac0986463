package report

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"cc-ci-run/internal/state"
)

// Serving is how a report is shown live.
type Serving struct {
	Dir     string // of the report
	Address string // HOST:PORT
	Remote  bool   // other addresses than those of this machine are allowed
	// Ready is told the URL; Failed, why the report could not be renewed. The earlier one
	// is shown then.
	Ready  func(url string)
	Failed func(error)
}

// Refresh is after how many seconds a browser asks for a page again. It is a header, so
// the pages are those of Write. "?still" at the end of an address leaves it out.
const Refresh = "15"

// Serve writes a report, serves it, and renews it when a sweep has remembered something,
// until ctx ends.
func Serve(ctx context.Context, s Source, o Serving) error {
	listener, err := listen(ctx, o)
	if err != nil {
		return fmt.Errorf("report: --serve %s: %w", o.Address, err)
	}
	defer listener.Close()
	seen := s.signs()
	if err := Write(ctx, s, o.Dir); err != nil {
		return err
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	server := &http.Server{
		Handler:           handler(root, o.Remote),
		ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	if o.Ready != nil {
		o.Ready("http://" + listener.Addr().String() + "/")
	}
	pause := time.Second
	for {
		select {
		case err := <-ended:
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return err
		case <-time.After(pause):
		}
		now := s.signs()
		if now == seen {
			pause = time.Second
			continue
		}
		seen = now
		begun := time.Now()
		if err := Write(ctx, s, o.Dir); err != nil && ctx.Err() == nil && o.Failed != nil {
			o.Failed(err)
		}
		pause = max(time.Second, 4*time.Since(begun)) // a processor is for the tests
	}
}

func listen(ctx context.Context, o Serving) (net.Listener, error) {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, errors.New("write HOST:PORT, as in 127.0.0.1:8080")
	}
	ip, err := netip.ParseAddr(host)
	if local := host == "localhost" || err == nil && ip.IsLoopback(); !local && !o.Remote {
		return nil, errors.New("is not an address of this machine alone: others could read what tests print; --serve-remote allows that")
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", o.Address)
}

// signs tells whether a sweep has remembered anything since: it changes with each commit,
// each run that starts or ends, and each sweep.
func (s Source) signs() string {
	var b strings.Builder
	for _, path := range []string{
		s.State.Path(state.Memory, "refs/cc-ci/sweep"), s.State.Path(state.Memory, "packed-refs"),
		s.State.Path(state.Sweep, "last.json"), s.State.Path(state.Running, ""),
	} {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(&b, info.ModTime().UnixNano(), info.Size())
		} else {
			fmt.Fprintln(&b, "none")
		}
	}
	return b.String()
}

var pageName = regexp.MustCompile(`^/(|[A-Za-z0-9_+%.-]+\.html)$`)

// handler serves the pages of a directory, and nothing else that is there.
func handler(root *os.Root, remote bool) http.Handler {
	files := http.FileServerFS(root.FS())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", Policy+"; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
		case !remote && !localName(r.Host):
			// A web site whose name leads to this machine would read the report.
			http.Error(w, "the report is served to this machine alone, by the name localhost or an address", http.StatusForbidden)
		case !pageName.MatchString(r.URL.Path):
			http.NotFound(w, r)
		default:
			if !r.URL.Query().Has("still") {
				h.Set("Refresh", Refresh)
			}
			files.ServeHTTP(w, r)
		}
	})
}

// localName says whether a request's host is this machine, by a name that no other can have.
func localName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && ip.IsLoopback()
}
