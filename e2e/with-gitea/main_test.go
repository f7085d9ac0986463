package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asWithGitea is a variable with which the test binary is with-gitea.
const asWithGitea = "TEST_AS_WITH_GITEA"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asWithGitea) != "":
		main()
	case filepath.Base(os.Args[0]) == "gitea":
		fmt.Fprintln(os.Stderr, standIn(os.Args))
		os.Exit(1)
	}
	// Who runs the tests may ignore SIGHUP (nohup make test). A signal that is
	// handled is not ignored by with-gitea either.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}

// behaviour is how the stand-in for Gitea behaves: a file among its static ones.
type behaviour struct {
	Health int // the HTTP status that it answers with, but for the first time; 200 is healthy
	Admin  int // exit status of creating a user
}

// standIn does what Gitea does, as far as with-gitea sees it, and refuses what
// Gitea would refuse. A stand-in is enough for how with-gitea fails and is
// interrupted; `make witness` uses it with a real Gitea.
func standIn(args []string) error {
	dir := os.Getenv("GITEA_WORK_DIR")
	data, err := os.ReadFile(filepath.Join(dir, "static/behaviour"))
	if err != nil {
		return err
	}
	var how behaviour
	if err := json.Unmarshal(data, &how); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		return fmt.Errorf("Gitea is not supposed to be run as root")
	}
	if n := len(os.Environ()); n != 3 {
		return fmt.Errorf("%d variables, want PATH, HOME and GITEA_WORK_DIR: %q", n, os.Environ())
	}
	healthy := filepath.Join(dir, "healthy")
	if args[1] == "admin" {
		if _, err := os.Stat(healthy); err != nil {
			return fmt.Errorf("asked for a user before Gitea was healthy: %w", err)
		}
		fmt.Println(`generated random password is 'it's a \ secret'`)
		os.Exit(how.Admin)
	}
	if session, err := unix.Getsid(0); err != nil || session != os.Getpid() {
		return fmt.Errorf("not in a session of its own: Ctrl-C would end it")
	}
	config, err := os.ReadFile(args[len(args)-1])
	if err != nil {
		return err
	}
	address := regexp.MustCompile(`HTTP_ADDR = (.*)\nHTTP_PORT = (.*)\n`).FindSubmatch(config)
	var asked atomic.Bool
	return http.ListenAndServe(net.JoinHostPort(string(address[1]), string(address[2])), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !asked.Swap(true) {
			w.WriteHeader(http.StatusServiceUnavailable) // at first
			return
		}
		_ = os.WriteFile(healthy, nil, 0o600)
		w.WriteHeader(how.Health)
	}))
}

// place has the program that is given as Gitea, and a TMPDIR.
type place struct{ program, tmp string }

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	p := place{filepath.Join(dir, "gitea"), filepath.Join(dir, "tmp")}
	// Nobody, who is Gitea when this is root, must get to TMPDIR.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// withStandIn is a place with the stand-in.
func withStandIn(t *testing.T, how behaviour) place {
	t.Helper()
	p := newPlace(t)
	data, err := json.Marshal(how)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.program+".static", 0o755); err != nil {
		t.Fatal(err)
	}
	p.write(t, p.program+".static/behaviour", string(data), 0o644)
	if err := os.Symlink(self(t), p.program); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p place) write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (p place) command(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(self(t), append([]string{"--gitea", p.program, "--"}, command...)...)
	cmd.Env = []string{asWithGitea + "=1", "PATH=/usr/bin:/bin", "TMPDIR=" + p.tmp}
	return cmd
}

// run runs with-gitea to its end, after which nothing of Gitea is left.
func (p place) run(t *testing.T, command ...string) (state, stdout, stderr string) {
	t.Helper()
	cmd := p.command(t, command...)
	var out, messages strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &messages
	_ = cmd.Run()
	p.nothingLeft(t, messages.String())
	return cmd.ProcessState.String(), out.String(), messages.String()
}

// nothingLeft tells that the directory is gone and nobody answers where the
// messages say that Gitea was.
func (p place) nothingLeft(t *testing.T, messages string) {
	t.Helper()
	if left, err := os.ReadDir(p.tmp); err != nil || len(left) > 0 {
		t.Errorf("left in TMPDIR: %v, %v", left, err)
	}
	if address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(messages); address != "" {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Error("Gitea was left running")
		}
	}
}

func TestCommandFindsGitea(t *testing.T) {
	state, stdout, stderr := withStandIn(t, behaviour{Health: 200}).run(t, "sh", "-c", `echo "$GITEA_USER $GITEA_PASSWORD $GITEA_URL"`)
	if !strings.HasPrefix(stdout, `witness it's a \ secret http://127.0.0.1:`) || state != "exit status 0" {
		t.Errorf("%s: %q, %s", state, stdout, stderr)
	}
	if strings.Contains(stderr, "secret") {
		t.Errorf("the password is in the messages: %s", stderr)
	}
}

func TestCommandsEnd(t *testing.T) {
	for _, row := range []struct {
		command       []string
		state, stderr string
	}{
		{[]string{"sh", "-c", "exit 3"}, "exit status 3", ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, "exit status 137", ""},
		{[]string{"/nonexistent"}, "exit status 127", "with-gitea: cannot run /nonexistent: "},
		{[]string{"nonexistent"}, "exit status 127", "with-gitea: cannot run nonexistent: "},
		{[]string{"/etc"}, "exit status 126", "with-gitea: cannot run /etc: "},
	} {
		state, _, stderr := withStandIn(t, behaviour{Health: 200}).run(t, row.command...)
		if state != row.state || !strings.Contains(stderr, row.stderr) {
			t.Errorf("%q: %s, want %s: %s", row.command, state, row.state, stderr)
		}
	}
}

func TestGiteaCannotBeStarted(t *testing.T) {
	for _, row := range []struct {
		name    string
		place   place
		program string // a script in the place of the stand-in
		mode    os.FileMode
		stderr  string
	}{
		{name: "no program", place: newPlace(t), stderr: "gitea: e2e/build-gitea makes it\n"},
		{name: "a program that cannot be run", place: newPlace(t), program: "#!/bin/sh\n", mode: 0o644, stderr: "permission denied\n"},
		{
			name: "a program that ends at once", place: newPlace(t), program: "#!/bin/sh\nseq 100\necho no database >&2\nexit 4\n", mode: 0o755,
			stderr: "with-gitea: Gitea ended: exit status 4; the end of its log:\n82\n83\n",
		},
		{name: "no user", place: withStandIn(t, behaviour{Health: 200, Admin: 1}), stderr: "with-gitea: no user could be created: exit status 1\ngenerated random password is '...'\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.program != "" {
				row.place.write(t, row.place.program, row.program, row.mode)
			}
			state, stdout, stderr := row.place.run(t, "echo", "started")
			if state != "exit status 125" || !strings.Contains(stderr, row.stderr) || stdout != "" {
				t.Errorf("%s: %q, %s", state, stdout, stderr)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	if state, _, stderr := withStandIn(t, behaviour{}).run(t); state != "exit status 2" || !strings.Contains(stderr, "usage: with-gitea") {
		t.Errorf("%s: %s", state, stderr)
	}
}

// started is a with-gitea that runs, with what it writes.
type started struct {
	*exec.Cmd
	out, messages *bufio.Reader
}

func (p place) start(t *testing.T, command ...string) started {
	t.Helper()
	cmd := p.command(t, command...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	messages, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return started{cmd, bufio.NewReader(out), bufio.NewReader(messages)}
}

// wait reads what is still written, until with-gitea has ended.
func (s started) wait(t *testing.T) (state, stdout, stderr string) {
	t.Helper()
	out, _ := io.ReadAll(s.out)
	messages, _ := io.ReadAll(s.messages)
	_ = s.Wait()
	return s.ProcessState.String(), string(out), string(messages)
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	text, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

func TestSignalEndsCommandAndGitea(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		p := withStandIn(t, behaviour{Health: 200})
		cmd := p.start(t, "sh", "-c", "trap 'kill $!; exit' TERM; sleep 60 & echo $$; wait; echo nobody ended me")
		pid, err := strconv.Atoi(line(t, cmd.out))
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Process.Signal(s)
		state, stdout, stderr := cmd.wait(t)
		p.nothingLeft(t, stderr)
		if want := "signal: " + s.String(); state != want || stdout != "" {
			t.Errorf("%s, want %s: %q, %s", state, want, stdout, stderr)
		}
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("%s: COMMAND was left running: %v", s, err)
		}
	}
}

// At a terminal Ctrl-C goes to each process of the group.
func TestControlCReachesCommandOnce(t *testing.T) {
	p := withStandIn(t, behaviour{Health: 200})
	cmd := p.start(t, "sh", "-c", `trap 'echo INT; end=1' INT; trap 'echo TERM' TERM; echo ready; until [ "$end" ]; do sleep 0.1; done; sleep 0.5`)
	if got := line(t, cmd.out); got != "ready" {
		t.Fatal(got)
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	state, stdout, stderr := cmd.wait(t)
	p.nothingLeft(t, stderr)
	if stdout != "INT\n" || state != "signal: interrupt" {
		t.Errorf("%s: %q, %s", state, stdout, stderr)
	}
}

// A with-gitea that is killed takes Gitea and COMMAND with it.
func TestKilled(t *testing.T) {
	p := withStandIn(t, behaviour{Health: 200})
	cmd := p.start(t, "sh", "-c", `echo "$GITEA_URL"; exec sleep infinity`)
	address := strings.TrimPrefix(line(t, cmd.out), "http://")
	_ = cmd.Process.Kill()
	cmd.wait(t) // until COMMAND, too, has closed its output
	for {       // the limit is that of go test
		c, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		c.Close()
	}
}

func TestSignalBeforeGiteaIsUp(t *testing.T) {
	p := withStandIn(t, behaviour{Health: http.StatusServiceUnavailable})
	cmd := p.start(t, "true")
	starting := line(t, cmd.messages)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	state, _, stderr := cmd.wait(t)
	p.nothingLeft(t, starting)
	if !strings.Contains(stderr, "with-gitea: interrupted: terminated\n") || state != "signal: terminated" {
		t.Errorf("%s: %s", state, stderr)
	}
}

// Gitea is stopped also if the messages go to a pipe that nobody reads any more.
func TestNobodyReadsTheMessages(t *testing.T) {
	p := withStandIn(t, behaviour{Health: 200})
	cmd := p.command(t, "sh", "-c", `read go; echo "$GITEA_URL"; exit 3`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	messages, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout strings.Builder
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	messages.Close()
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	p.nothingLeft(t, stdout.String())
	if state := cmd.ProcessState.String(); state != "exit status 3" {
		t.Error(state)
	}
}
