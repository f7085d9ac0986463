//go:build environment && e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/e2e/internal/wrap"
)

// machine is a second machine made of this one: systemd boots in
// systemd-nspawn, over this machine's own root, on an overlay in memory. Its
// network is this machine's, so a server on loopback here answers there.
//
//	m := newMachine(t, "healthy", runner)   // its files are there, nothing runs
//	m.write(t, "/etc/x.conf", "…", 0o644)
//	m.boot(t, "multi-user.target")
//	m.sh(t, "systemctl start x")            // as root, in the machine
//	m.await(t, "x to end", func() bool { … })
//
// Many may run at once: each has a name and a cgroup of its own. None outlives
// the process of its test, whatever ends that: see teardown.
type machine struct {
	name    string          // its hostname
	root    string          // its root directory
	units   string          // what scripts/nix-tests built: unit files, directories, programs
	program string          // the cc-ci-run of a person
	ctx     context.Context // ends when the test is to end
	dir     string          // all that the test keeps of it; its last part is the machine's name
	cgroup  string          // of all its processes
	binds   []string        // nspawn's options for files of this machine that it shares
	leader  int             // the process ID of its systemd, as this machine counts
	ended   chan struct{}   // closed when nspawn has ended
}

// newMachine makes a machine of an attribute of nix/tests, with a program in the
// place of drone-runner-exec.
func newMachine(t *testing.T, attribute, runner string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts file systems and boots a machine: run it as root")
	}
	m := &machine{name: "e2e", ended: make(chan struct{})}
	m.ctx = interrupted()
	if limit, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		m.ctx, cancel = context.WithDeadlineCause(m.ctx, limit.Add(-time.Minute), errors.New("the limit of go test -timeout is near"))
		t.Cleanup(cancel)
	}
	m.units = buildUnits(t, attribute, runner)
	m.program = target(t, m.units, "manual")

	m.reserve(t)
	mount(t, "tmpfs", m.dir, "")
	m.root = filepath.Join(m.dir, "root")
	upper, work := filepath.Join(m.dir, "upper"), filepath.Join(m.dir, "work")
	for _, dir := range []string{m.root, upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, "overlay", m.root, "lowerdir=/,upperdir="+upper+",workdir="+work)
	m.furnish(t)
	return m
}

// interrupted ends, for this test and those after it, when somebody interrupts
// the tests.
var interrupted = sync.OnceValue(func() context.Context {
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	return ctx
})

// buildUnits builds an attribute of nix/tests, and gives its directory.
func buildUnits(t *testing.T, attribute, runner string) string {
	t.Helper()
	t.Logf("building %s of nix/tests", attribute)
	path, err := filepath.Abs(runner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: `make two-paths` builds it", err)
	}
	cmd := exec.CommandContext(interrupted(), "../scripts/nix-tests", attribute, "--arg", "runner", path)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // Nix then ends its builders
	built, err := cmd.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		t.Fatalf("scripts/nix-tests %s: %v:\n%s", attribute, err, wrap.LastLines(string(failed.Stderr), 30))
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(built))
}

// target is what a link among the units leads to, in the Nix store.
func target(t *testing.T, units, name string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(filepath.Join(units, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// teardown is a shell script that ends the machine with a directory, a cgroup,
// and the same cgroup in systemd's hierarchy of version 1, which nspawn makes.
// It waits for the end of its stdin, which the test's process holds open: so it
// does its work after a test that passed, failed or was interrupted, and after
// one that was killed.
const teardown = `
read -r _
echo 1 >"$2/cgroup.kill"
for cgroup in "$2" "$3"; do
	while [ -d "$cgroup" ]; do # until its last process has ended
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
	done
done
umount --lazy "$1"
rmdir "$1"
`

// reserve makes the machine's directory and cgroup, and starts their teardown.
// Without a cgroup of its own a machine shares that of another one's systemd.
func (m *machine) reserve(t *testing.T) {
	t.Helper()
	hierarchy := "/sys/fs/cgroup"
	if _, err := os.Stat(hierarchy + "/cgroup.procs"); err != nil {
		hierarchy += "/unified" // beside those of version 1
	}
	mine := regexp.MustCompile(`(?m)^0::(.*)$`).FindStringSubmatch(read(t, "/proc/self/cgroup"))
	if mine == nil {
		t.Fatal("/proc/self/cgroup names no cgroup of version 2, which this test needs")
	}
	var err error
	if m.dir, err = os.MkdirTemp("", "cc-ci-e2e-"); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(mine[1], filepath.Base(m.dir))
	m.cgroup = filepath.Join(hierarchy, below)
	cmd := exec.Command("sh", "-c", teardown, "teardown", m.dir, m.cgroup, filepath.Join("/sys/fs/cgroup/systemd", below))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the test
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil || said.Len() > 0 {
			t.Errorf("the machine's teardown: %v: %s", err, &said)
		}
	})
	if err := os.Mkdir(m.cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T, kind, dir, options string) {
	t.Helper()
	if err := unix.Mount(kind, dir, kind, 0, options); err != nil {
		t.Fatalf("mount -t %s -o %q %s: %v", kind, options, dir, err)
	}
}

// furnish puts into the root what NixOS would: units, the user, directories.
func (m *machine) furnish(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/var/lib/cc-ci-run", "/var/log/journal"} { // what this machine has there
		if err := os.RemoveAll(m.path(dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/var/log/journal", "/srv/recipes"} {
		if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	places := map[string]string{"cc-ci.conf": "/etc/tmpfiles.d", "host.toml": "/etc/cc-ci-run"}
	for _, pattern := range []string{"*.service", "*.timer"} {
		files, _ := filepath.Glob(filepath.Join(m.units, pattern))
		for _, file := range files {
			places[filepath.Base(file)] = "/etc/systemd/system"
		}
	}
	for name, dir := range places {
		m.write(t, filepath.Join(dir, name), read(t, filepath.Join(m.units, name)), 0o644)
	}
	m.link(t, target(t, m.units, "path"), "/etc/cc-ci-run/path")
	output(t, exec.CommandContext(m.ctx, "systemd-sysusers", "--root="+m.root, "--inline",
		"g docker -", `u cc-ci - "Co-op Cloud CI" /var/lib/cc-ci-run`, "m cc-ci docker"))
}

// path is where this machine has a file of the machine. What is mounted in there
// (/run, /tmp) is not in it.
func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	write(t, m.path(name), content, mode)
}

func (m *machine) link(t testing.TB, to, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, m.path(name)); err != nil {
		t.Fatal(err)
	}
}

// bind shares a file of this machine: a socket, say.
func (m *machine) bind(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: the test needs a Docker daemon; `make two-paths` starts one", err)
	}
	m.binds = append(m.binds, "--bind="+path)
}

// boot starts the machine with a target of its units, and returns when that is
// reached.
func (m *machine) boot(t *testing.T, target string) {
	t.Helper()
	m.write(t, "/etc/hostname", m.name+"\n", 0o644)
	cgroup, err := os.Open(m.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer cgroup.Close()
	console, err := os.Create(m.console())
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.Command("systemd-nspawn", slices.Concat([]string{"--quiet", "--directory=" + m.root, "--machine=" + filepath.Base(m.dir)}, m.binds,
		[]string{"--boot", "--register=no", "--keep-unit", "--link-journal=no", "systemd.unit=" + target})...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	t.Log("booting", cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(m.ended)
	}()
	m.await(t, target, func() bool {
		// While nspawn sets up, its child is another one of its processes.
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid))
		_, err := fmt.Sscan(string(children), &m.leader)
		return err == nil && m.command("systemctl", "is-active", "--quiet", target).Run() == nil
	})
}

// console is a file with what nspawn and the booting systemd print.
func (m *machine) console() string { return filepath.Join(m.dir, "console") }

// command is a command in the machine, as root.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(m.ctx, "nsenter", slices.Concat([]string{"--target", fmt.Sprint(m.leader), "--all"}, args)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=xterm"}
	cmd.WaitDelay = 10 * time.Second // what outlives nsenter holds its output
	return cmd
}

// try runs a command in the machine, and gives its exit status and all that it
// printed.
func (m *machine) try(t testing.TB, args ...string) (status int, output string) {
	t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if failed := (*exec.ExitError)(nil); err != nil && (m.ctx.Err() != nil || !errors.As(err, &failed)) {
		m.fatalf(t, "%q: %v: %v\n%s", args, err, context.Cause(m.ctx), out)
	} else if err != nil {
		return statusOf(failed.ProcessState), string(out)
	}
	return 0, string(out)
}

// sh runs a shell script in the machine, each command of which must succeed; a
// command that must not is written after the word "fails".
func (m *machine) sh(t testing.TB, script string) string {
	t.Helper()
	const fails = `fails() { if "$@"; then echo "succeeded, and should have failed: $*"; exit 1; fi; }`
	status, out := m.try(t, "sh", "-euc", fails+"\n"+script)
	if status != 0 {
		m.fatalf(t, "in the machine: exit status %d of\n%s\nprinted:\n%s", status, script, out)
	}
	return out
}

// await returns when something has happened. It looks again and again; the only
// limit is that of `go test`.
func (m *machine) await(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for !happened() {
		select {
		case <-m.ctx.Done():
			m.fatalf(t, "waited in vain for %s: %v", what, context.Cause(m.ctx))
		case <-m.ended:
			m.fatalf(t, "the machine ended before %s", what)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// journal is the machine's, with arguments for journalctl.
func (m *machine) journal(args ...string) string {
	args = append([]string{"--directory=" + m.path("/var/log/journal"), "--no-pager", "--output=cat"}, args...)
	out, _ := exec.Command("journalctl", args...).Output() // no journal yet is an empty one
	return string(out)
}

// fatalf ends the test, with the end of the machine's console and journal.
func (m *machine) fatalf(t testing.TB, format string, args ...any) {
	t.Helper()
	console, _ := os.ReadFile(m.console())
	t.Logf("the end of the machine's console:\n%s\nand of its journal:\n%s", wrap.LastLines(string(console), 20), m.journal("--lines=60"))
	t.Fatalf(format, args...)
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// output is what a command of this machine prints; it must succeed.
func output(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	return string(out)
}
