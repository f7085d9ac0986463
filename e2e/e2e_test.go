//go:build environment

// Package e2e tries the built cc-ci-run, with the environment that `make
// build` made, as an invoker would: as a process, from hostile places.
package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watchdog is how long a test waits for what must come: it is for a test that
// hangs, and no test passes or fails by how long something takes.
const watchdog = 3 * time.Minute

// Whoever runs the tests may ignore SIGHUP (nohup make test), and would pass
// that on to every program here. A signal that is handled is not passed on.
func TestMain(m *testing.M) {
	if e, err := strconv.Atoi(os.Getenv(withoutLandlock)); err == nil {
		fmt.Fprintln(os.Stderr, becomeWithoutLandlock(uint32(e), os.Args[1:]))
		os.Exit(1)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}

// git gives the path of the environment's git. Tests read the memory of sweeps with it.
func git(t testing.TB) string {
	return filepath.Join(filepath.Dir(binary(t)), "toolset/bin/git")
}

// binary is the program under test.
func binary(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../build/cc-ci-run")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return path
}

// probe is a SCRIPT that prints what it sees of itself as JSON, to the file
// that its first argument names.
const probe = `
import base64, json, os, subprocess, sys
b64 = lambda b: base64.b64encode(b).decode()
read = lambda p: open(p, "rb").read()
status = dict(l.split(":\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\t" in l)
try:
    cwd = os.getcwd()
except FileNotFoundError:
    cwd = ""
fds = []
for fd in range(0, 1024):
    try:
        os.fstat(fd)
        fds.append(fd)
    except OSError:
        pass
seen = {
    "environ": b64(read("/proc/self/environ")),
    "argv": [b64(os.fsencode(a)) for a in sys.argv[2:]],
    "sigign": status["SigIgn"], "sigblk": status["SigBlk"], "umask": status["Umask"],
    "nonewprivs": status["NoNewPrivs"],
    "limits": read("/proc/self/limits").decode(),
    "fds": fds,
    "nodes": [os.fstat(0).st_mode and os.readlink("/proc/self/fd/%d" % fd) for fd in (0, 1, 2)],
    "cwd": cwd, "uid": os.getuid(),
    "executable": sys.executable, "path": sys.path, "modules": sorted(m for m in sys.modules if "custom" in m),
}
if "WITH_CHILDREN" in sys.argv:
    run = lambda *a, **k: subprocess.run(*a, capture_output=True, text=True, **k).stdout.strip()
    seen["children"] = {
        "shell": run("command -v git git-lfs python3 bash pytest; python3 -c 'import sys; print(sys.executable)'", shell=True),
        "bash": run(["bash", "-c", "git --version; git lfs version; type -t git; echo \"$IFS\" | od -c; set +o"]),
        "login": run(["bash", "-lc", "true; printf %s \"$BASH_ENV\""]),
        "git": run(["git", "rev-parse", "--git-dir"], cwd="/"),
        "exec-path": run(["git", "--exec-path"]),
        "pytest": run(["pytest", "--version"]),
        "python": run(["python3", "-c", "import sys; print(sys.path, sys.flags)"]),
        "temp": run(["mktemp", "-u"])[:5],
    }
with open(sys.argv[1], "w") as f:
    json.dump(seen, f)
`

// seen is what the probe saw.
type seen struct {
	Environ    string
	Argv       []string
	SigIgn     string
	SigBlk     string
	Umask      string
	NoNewPrivs string
	Limits     string
	FDs        []int
	Nodes      []string
	Cwd        string
	UID        int
	Executable string
	Path       []string
	Modules    []string
	Children   map[string]string
}

// vars is the child's environment, exactly as the kernel has it.
func (s seen) vars(t testing.TB) []string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(s.Environ)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}

// start is how a process is started, to the last bit: unlike os/exec it
// passes duplicate variables and closed descriptors on as they are.
type start struct {
	argv  []string
	env   []string
	dir   string
	files []*os.File
	group bool // in a process group of its own
}

// run starts a process, waits for it, and gives its exit status (128+N after
// signal N) and what it wrote to a file given as stdout and stderr.
func (s start) run(t testing.TB) (status int, output string) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "output")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if s.files == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		s.files = []*os.File{null, out, out}
	}
	p, err := os.StartProcess(s.argv[0], s.argv, &os.ProcAttr{Dir: s.dir, Env: s.env, Files: s.files, Sys: &syscall.SysProcAttr{Setpgid: s.group}})
	if err != nil {
		t.Fatalf("%v: %v", s.argv[0], err)
	}
	state, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return statusOf(state), string(data)
}

// home is a HOME full of what must not get in: each piece leaves the file
// "poisoned" when it is read or run.
func home(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	mark := filepath.Join(dir, "poisoned")
	site := filepath.Join(dir, ".local/lib/python3.11/site-packages")
	for _, version := range []string{"3.11", "3.12", "3.13"} {
		site = strings.Replace(site, filepath.Base(filepath.Dir(site)), "python"+version, 1)
		for _, name := range []string{"sitecustomize.py", "usercustomize.py", "pytest.py"} {
			write(t, filepath.Join(site, name), fmt.Sprintf("open(%q, 'a').write(%q)\n", mark, "user site "+name+"\n"), 0o644)
		}
	}
	for _, name := range []string{".bashrc", ".profile", ".bash_profile", ".pythonrc"} {
		write(t, filepath.Join(dir, name), "echo "+name+" >> "+mark+"\n", 0o644)
	}
	// A login shell that a test starts by itself reads its own files; what
	// must not happen is that cc-ci-run's children do so unasked.
	_ = os.Remove(filepath.Join(dir, ".bash_profile"))
	_ = os.Remove(filepath.Join(dir, ".profile"))
	for _, name := range []string{"git", "git-lfs", "python3", "bash", "sh", "pytest", "env", "docker"} {
		write(t, filepath.Join(dir, "bin", name), "#!/bin/sh\necho fake "+name+" >> "+mark+"\n", 0o755)
	}
	return dir
}

func poison(t testing.TB, home string) string {
	data, err := os.ReadFile(filepath.Join(home, "poisoned"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func write(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// probeRun runs the probe through cc-ci-run and gives what it saw. before is
// what comes before the program's name (nice, setsid, …), if anything. Under
// audit it must see the same.
func probeRun(t testing.TB, before []string, s start, args ...string) seen {
	t.Helper()
	dir := t.TempDir()
	got := probeBy(t, dir, before, s, nil, args)
	again := probeBy(t, dir, before, s, []string{"audit", "--report", os.DevNull}, args)
	a, b := reflect.ValueOf(again), reflect.ValueOf(got)
	for i := range a.NumField() {
		name := a.Type().Field(i).Name
		if name != "Nodes" && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) { // of files with names of their own
			t.Errorf("under audit: %s %+v, want %+v", name, a.Field(i), b.Field(i))
		}
	}
	return got
}

func probeBy(t testing.TB, dir string, before []string, s start, how, args []string) seen {
	t.Helper()
	script, report := filepath.Join(dir, "probe.py"), filepath.Join(dir, "seen.json")
	write(t, script, probe, 0o644)
	write(t, report, "", 0o666)
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) // another user may run it
	}
	_ = os.Chmod(report, 0o666)
	// Without --result, each run has a name of its own for its result.
	s.argv = slices.Concat(before, []string{binary(t)}, how, []string{"--state", filepath.Join(dir, "state"), "--result", "/nonexistent/result.json", script, report}, args)
	status, output := s.run(t)
	if status != 0 {
		t.Fatalf("%q: exit status %d: %s", before, status, output)
	}
	data, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var got seen
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&got); err != nil {
		t.Fatalf("%v in %q, %s", err, data, output)
	}
	return got
}
