//go:build environment

package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"cc-ci-run/e2e/internal/image"
)

// asWithDocker is the variable that makes the test binary act as with-docker.
const asWithDocker = "TEST_AS_WITH_DOCKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWithDocker) != "" {
		main()
		return
	}
	// These tests may be started with SIGHUP ignored (nohup make test), and with-docker
	// would inherit that. It does not inherit a signal that this process handles.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}

// running is a with-docker that runs, with its input and output.
type running struct {
	*exec.Cmd
	in            io.WriteCloser
	out, messages *bufio.Reader
	said          string // what was read of the messages
}

// begin starts with-docker in a process group of its own, as a shell does.
func begin(t *testing.T, args ...string) *running {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test starts a Docker daemon: run it as root")
	}
	r := &running{Cmd: exec.Command("/proc/self/exe", args...)}
	r.Args[0] = "with-docker"
	r.Env = []string{asWithDocker + "=1", "PATH=/usr/bin:/bin", "TMPDIR=" + t.TempDir(), "HOME=" + t.TempDir()}
	r.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe := func(p io.ReadCloser, err error) *bufio.Reader {
		if err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(p)
	}
	r.out, r.messages = pipe(r.StdoutPipe()), pipe(r.StderrPipe())
	var err error
	if r.in, err = r.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Process.Kill() })
	return r
}

// line is the next line that COMMAND writes.
func (r *running) line(t *testing.T) string {
	t.Helper()
	text, err := r.out.ReadString('\n')
	if err != nil {
		_, _, messages := r.end()
		t.Fatalf("COMMAND wrote no line: %v: %s", err, messages)
	}
	return strings.TrimSpace(text)
}

// end waits until with-docker and its process "remove" have ended: the pipe of the
// messages ends when both have closed it.
func (r *running) end() (state, stdout, messages string) {
	out, _ := io.ReadAll(r.out)
	said, _ := io.ReadAll(r.messages)
	r.said += string(said)
	_ = r.Wait()
	return r.ProcessState.String(), string(out), r.said
}

var directory = regexp.MustCompile(`/\S*/with-docker-[A-Z0-9]{8}`)

// nothingLeft fails the test if a process, mount, cgroup or directory of this machine
// still has the name of the ended with-docker.
func (r *running) nothingLeft(t *testing.T) {
	t.Helper()
	dir := directory.FindString(r.said)
	if dir == "" {
		t.Fatalf("no message names the directory: %s", r.said)
	}
	name := filepath.Base(dir)
	if _, err := os.Lstat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	if left := cgroups(name); len(left) > 0 {
		t.Errorf("cgroups are left: %q", left)
	}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/cgroup", "/proc/[0-9]*/mountinfo"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			if data, _ := os.ReadFile(file); strings.Contains(string(data), name) {
				t.Errorf("%s is left: %s", file, data)
			}
		}
	}
}

// interfaces are the names of this machine's network interfaces.
func interfaces(t *testing.T) (names []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

func TestCommandsEnd(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		command                 []string
		state, stdout, messages string
	}{
		{[]string{"docker", "info", "--format", "{{.Swarm.LocalNodeState}}"}, "exit status 0", "active\n", ""},
		{[]string{"sh", "-c", "exit 3"}, "exit status 3", "", ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, "exit status 137", "", ""},
		{[]string{"nonexistent"}, "exit status 127", "", "with-docker: cannot run nonexistent: "},
		{[]string{"/etc"}, "exit status 126", "", "with-docker: cannot run /etc: "},
	} {
		r := begin(t, append([]string{"--"}, row.command...)...)
		state, stdout, messages := r.end()
		r.nothingLeft(t)
		if state != row.state || stdout != row.stdout || !strings.Contains(messages, row.messages) {
			t.Errorf("%q: %s, want %s: %q, %s", row.command, state, row.state, stdout, messages)
		}
	}
}

func TestDaemonCannotBeStarted(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.tar")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ image, want string }{
		{"/nonexistent.tar", "open /nonexistent.tar: no such file or directory"},
		{empty, "with-docker: docker [load --quiet --input " + empty + "]"},
	} {
		r := begin(t, "--image", row.image, "--", "echo", "started")
		state, stdout, messages := r.end()
		r.nothingLeft(t)
		if state != "exit status 125" || stdout != "" || !strings.Contains(messages, row.want) || !strings.Contains(messages, "\nthe end of dockerd's log:\ntime=") {
			t.Errorf("%s: %q, %s", state, stdout, messages)
		}
	}
}

// One with-docker starts another, whose directory has no room.
func TestDaemonEndsAtOnce(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := begin(t, "--", "sh", "-c", `mkdir "$TMPDIR/small" && mount -t tmpfs -o size=64k small "$TMPDIR/small" && TMPDIR=$TMPDIR/small exec "$0" -- echo started`, self)
	state, stdout, messages := r.end()
	r.nothingLeft(t)
	if state != "exit status 125" || stdout != "" || !regexp.MustCompile(`with-docker: dockerd ended: exit status 1\nthe end of dockerd's log:\n(.*\n)*.*no space left on device`).MatchString(messages) {
		t.Errorf("%s: %q, %s", state, stdout, messages)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	r := begin(t, "--image", "x")
	if state, _, messages := r.end(); state != "exit status 2" || !strings.Contains(messages, "usage: with-docker") {
		t.Errorf("%s: %s", state, messages)
	}
}

func TestStdin(t *testing.T) {
	t.Parallel()
	r := begin(t, "--", "cat")
	if _, err := io.WriteString(r.in, "for COMMAND\n"); err != nil {
		t.Fatal(err)
	}
	r.in.Close()
	if state, stdout, messages := r.end(); stdout != "for COMMAND\n" {
		t.Errorf("%s: %q, %s", state, stdout, messages)
	}
	r.nothingLeft(t)
}

func TestSignalEndsCommandFirst(t *testing.T) {
	t.Parallel()
	r := begin(t, "--", "sh", "-c", "trap 'docker info --format {{.Swarm.LocalNodeState}}; kill $!; exit' TERM; sleep 60 & echo ready; wait; echo nobody ended me")
	if got := r.line(t); got != "ready" {
		t.Fatal(got)
	}
	_ = r.Process.Signal(syscall.SIGTERM)
	state, stdout, messages := r.end()
	r.nothingLeft(t)
	if state != "signal: terminated" || stdout != "active\n" {
		t.Errorf("%s: %q, %s", state, stdout, messages)
	}
}

// At a terminal Ctrl-C goes to each process of the group.
func TestControlCReachesCommandOnce(t *testing.T) {
	t.Parallel()
	r := begin(t, "--", "sh", "-c", `trap 'echo INT; end=1' INT; trap 'echo TERM' TERM; echo ready; until [ "$end" ]; do sleep 0.1; done; sleep 0.5; docker info --format {{.Swarm.LocalNodeState}}`)
	if got := r.line(t); got != "ready" {
		t.Fatal(got)
	}
	_ = syscall.Kill(-r.Process.Pid, syscall.SIGINT)
	state, stdout, messages := r.end()
	r.nothingLeft(t)
	if state != "signal: interrupt" || stdout != "INT\nactive\n" {
		t.Errorf("%s: %q, %s", state, stdout, messages)
	}
}

// deploy makes a stack with a volume, an overlay network and a published port, and
// waits until its service answers.
const deploy = `set -e
cat >"$HOME/compose.yml" <<'END'
version: "3.8"
services:
  app:
    image: cc-ci-run-test/tiny:1
    environment: [VERSION=mine]
    networks: [inner]
    volumes: ["data:/data"]
    ports: [{target: 8080, published: 8080, mode: host}]
networks: {inner: {}}
volumes: {data: {}}
END
docker stack deploy --resolve-image never --compose-file "$HOME/compose.yml" mine >/dev/null
until curl --silent --fail 127.0.0.1:8080; do sleep 0.1; done
`

func tiny(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tiny.tar")
	if err := image.Tiny(file); err != nil {
		t.Fatal(err)
	}
	return file
}

// Two with-docker at once use the same ports and names. Killing one of them takes
// nothing from the other one.
func TestKilledBesideAnother(t *testing.T) {
	t.Parallel()
	before := interfaces(t)
	file := tiny(t)
	var both [2]*running
	for i := range both {
		both[i] = begin(t, "--image", file, "--", "sh", "-c", deploy+"read go; curl --silent 127.0.0.1:8080; docker stack ls --format '{{.Name}} {{.Services}}'")
	}
	for _, r := range both {
		if got := r.line(t); got != "version mine" {
			t.Fatal(got)
		}
	}
	_ = both[0].Process.Kill()
	state, _, messages := both[0].end()
	both[0].nothingLeft(t)
	if state != "signal: killed" {
		t.Errorf("%s: %s", state, messages)
	}
	if _, err := io.WriteString(both[1].in, "go\n"); err != nil {
		t.Fatal(err)
	}
	state, stdout, messages := both[1].end()
	both[1].nothingLeft(t)
	if state != "exit status 0" || stdout != "version mine\nmine 1\n" {
		t.Errorf("the other one: %s: %q, %s", state, stdout, messages)
	}
	if after := interfaces(t); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("this machine's interfaces are %q, were %q", after, before)
	}
}
