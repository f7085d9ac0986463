package docker

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/docker/dockertest"
)

func TestSocket(t *testing.T) {
	for host, want := range map[string]string{
		"unix:///run/docker.sock": "/run/docker.sock", "unix://run/docker.sock": "", "unix://": "", "": "",
		"tcp://127.0.0.1:2375": "", "ssh://ci@example.org": "", "/run/docker.sock": "", "npipe:////./pipe/docker_engine": "",
	} {
		if got := Socket([]string{"A=b", "DOCKER_HOST=" + host}); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	if got := Socket(nil); got != "" {
		t.Errorf("not fixed: %q", got)
	}
}

// long is a limit that a test on a busy machine does not reach.
const long = time.Minute

// serve starts a server for a test and returns the path of its socket.
func serve(t *testing.T, d dockertest.Daemon) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	stop, err := d.Serve(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return socket
}

func TestAsk(t *testing.T) {
	const own = "WRPH:7M6I:XBIW:QSIR:Q7ME:W7PC:OEMD:UFZJ:SSIC:2O26:EENC:XW6D"
	socket := serve(t, dockertest.Daemon{ID: own})
	want := Daemon{Socket: socket, State: Answers, Version: "20.10.24+dfsg1", ID: own, Reason: dockertest.NoSwarm}
	if got := Ask(socket, long); got != want {
		t.Errorf("without a swarm: %+v, want %+v", got, want)
	}
	if n, err := Stacks(socket, long); err == nil {
		t.Errorf("without a swarm: %d stacks", n)
	}
	socket = serve(t, dockertest.Daemon{Version: "28.2.2", ID: own, Swarm: "tve8tygdi2qwk4su5pqxhbg77", Stacks: []string{"a", "", "b", "a"}})
	want = Daemon{Socket: socket, State: Answers, Version: "28.2.2", Swarm: true, ID: "tve8tygdi2qwk4su5pqxhbg77"}
	if got := Ask(socket, long); got != want {
		t.Errorf("a swarm's manager: %+v, want %+v", got, want)
	}
	if n, err := Stacks(socket, long); n != 2 || err != nil {
		t.Errorf("%d stacks, %v, want 2", n, err)
	}
}

// A host without a daemon, or one whose socket is not for this user.
func TestNobody(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(dir, "closed")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: closed})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	for socket, want := range map[string]State{
		filepath.Join(dir, "none"): Absent, filepath.Join(dir, "none", "s"): Absent, filepath.Join(file, "s"): Absent,
		closed: Absent, file: Absent, filepath.Join(dir, strings.Repeat("x", 200)): Strange,
	} {
		if d := Ask(socket, long); d.State != want || d.Reason == "" {
			t.Errorf("%s: %+v, want %s", socket, d, want)
		}
	}
	socket := serve(t, dockertest.Daemon{})
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan Daemon)
	go func() {
		// If root runs the test, this thread acts as the user nobody, and ends with its
		// goroutine. For other users Setfsuid fails, and they may not use the socket
		// either.
		runtime.LockOSThread()
		_ = unix.Setfsuid(65534)
		done <- Ask(socket, long)
	}()
	if d := <-done; d.State != Denied || d.Reason == "" {
		t.Errorf("without a right to it: %+v", d)
	}
}

// A server that is not Docker's, or means harm, gets no more than the limits of time
// and bytes, and nothing that it says is taken for a daemon's answer.
func TestHostile(t *testing.T) {
	const ok = "HTTP/1.0 200 OK\r\nServer: Docker/20.10.24 (linux)\r\n\r\n"
	endless := func(conn net.Conn, text string) {
		for {
			if _, err := conn.Write([]byte(text)); err != nil {
				return
			}
		}
	}
	say := func(text string) func(net.Conn) {
		return func(conn net.Conn) { _, _ = conn.Write([]byte(text)) }
	}
	for name, row := range map[string]struct {
		answer func(net.Conn) // after the question
		state  State
		reason string
	}{
		"hangs up":          {say(""), Strange, "is not HTTP"},
		"an endless body":   {func(c net.Conn) { say(ok)(c); endless(c, strings.Repeat(" ", 4096)) }, Strange, "more than anybody asked for"},
		"an endless line":   {func(c net.Conn) { endless(c, "HTTP") }, Strange, "more than anybody asked for"},
		"huge headers":      {func(c net.Conn) { say("HTTP/1.0 200 OK\r\n")(c); endless(c, "X: y\r\n") }, Strange, "more than anybody asked for"},
		"garbage":           {say("\x00\xff\r\n\r\nSSH-2.0"), Strange, "is not HTTP"},
		"only a head":       {say(ok), Strange, "no ID"},
		"no end of a head":  {say("HTTP/1.0 200 OK\r\nServer: Docker/20.10.24 (linux)\r\n"), Strange, "is not HTTP"},
		"half a body":       {say(ok + `{"ID":"abc","JoinTokens":{"Worker":"secret`), Strange, "no ID"},
		"a body cut short":  {say("HTTP/1.0 200 OK\r\nServer: Docker/1 (linux)\r\nContent-Length: 100\r\n\r\n{\"ID\":\"a\"}"), Strange, "too early"},
		"JSON, but a list":  {say(ok + `[{"ID":"a"}]`), Strange, "no ID"},
		"no ID":             {say(ok + `{"id":""}`), Strange, "no ID"},
		"an ID of lines":    {say(ok + `{"ID":"a\nb\u001b[31m"}`), Strange, "no ID"},
		"a long ID":         {say(ok + `{"ID":"` + strings.Repeat("a", 201) + `"}`), Strange, "no ID"},
		"another server":    {say("HTTP/1.0 404 Not Found\r\nServer: Libpod/4.3.1 (linux)\r\n\r\n{}"), Strange, `"Libpod/4.3.1 (linux)"`},
		"a server's escape": {say("HTTP/1.0 200 OK\r\nServer: Docker/1\x1b[31m (linux)\r\n\r\n{}"), Strange, `\x1b[31m`},
		"no server":         {say("HTTP/1.0 200 OK\r\n\r\n{\"ID\":\"a\"}"), Strange, `""`},
		"500":               {say("HTTP/1.0 500 Internal Server Error\r\nServer: Docker/1 (linux)\r\n\r\n{\"message\":\"secret\"}"), Strange, "status 500"},
		"a status of words": {say("HTTP/1.0 fine\r\nServer: Docker/1 (linux)\r\n\r\n{}"), Strange, "is not HTTP"},
		"503 for all":       {say("HTTP/1.0 503 X\r\nServer: Docker/1 (linux)\r\n\r\n{\"message\":\"locked\"}"), Strange, "GET /info: status 503"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Ask(stranger(t, row.answer), long)
			if d.State != row.state || !strings.Contains(d.Reason, row.reason) || d.ID != "" || d.Swarm || strings.Contains(fmt.Sprint(d), "secret") {
				t.Errorf("%+v, want %s, %s", d, row.state, row.reason)
			}
		})
	}
}

// Stacks are counted only in an answer that is whole.
func TestStacksHostile(t *testing.T) {
	const ok = "HTTP/1.0 200 OK\r\nServer: Docker/20.10.24 (linux)\r\n\r\n"
	for _, text := range []string{"", ok, ok + `[{"Spec":{"Labels":{"com.docker.stack.namespace":"a"}}},{"Sp`, ok + `{"message":"x"}`, "HTTP/1.0 503 X\r\n\r\n[]"} {
		socket := stranger(t, func(conn net.Conn) { _, _ = conn.Write([]byte(text)) })
		if n, err := Stacks(socket, long); n != 0 || err == nil {
			t.Errorf("%q: %d stacks, %v", text, n, err)
		}
	}
}

// stranger is a server that answers each question with anything.
func stranger(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096))
				answer(conn)
			}()
		}
	}()
	return socket
}

// A daemon that does not answer in time: stopped, not started yet by its socket's
// unit, overloaded, or one that says a little now and then.
func TestSilent(t *testing.T) {
	hang := stranger(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }) // until we hang up
	trickle := stranger(t, func(c net.Conn) {
		for {
			if _, err := c.Write([]byte("H")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	full := filepath.Join(t.TempDir(), "s")
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: full}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", full) // a queue of one
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	for name, socket := range map[string]string{"hangs": hang, "trickles": trickle, "accepts nobody": full} {
		d := Ask(socket, 50*time.Millisecond)
		if d != (Daemon{Socket: socket, State: Silent, Reason: "does not answer in time"}) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
