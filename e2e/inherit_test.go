//go:build environment

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kernel gives a Python program the system calls that set and show what a process hands on to
// its children, and pipes and terminals whose flags it can change.
const kernel = `import ctypes, fcntl, json, os, resource, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    return libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
def prctl(*args):
    return libc.prctl(*[ctypes.c_ulong(a) if isinstance(a, int) else a for a in args + (0,) * (5 - len(args))])
def flags(fd, more):
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | more)
def number(option):
    value = ctypes.c_int(-1)
    return prctl(option, ctypes.byref(value)), value.value
`

// inherited is a probe of what execve keeps.
const inherited = kernel + `
mode = ctypes.c_int(-1)
print(json.dumps({
    "timers": [signal.getitimer(t) for t in (0, 1, 2)],
    "parent-death signal": number(2), "subreaper": number(37), "timer slack": prctl(30),
    "huge pages disabled": prctl(42), "machine check": prctl(34), "io flusher": prctl(58), "memory merge": prctl(68),
    "io priority": call(252, 1, 0), "personality": call(135, 0xffffffff),
    "memory policy": (call(239, ctypes.byref(mode), None, 0, 0, 0), mode.value),
    "flags": [fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_NONBLOCK | os.O_ASYNC | os.O_DIRECT) for fd in (0, 1, 2)],
    "owner of signals": [fcntl.fcntl(fd, fcntl.F_GETOWN) for fd in (0, 1, 2)],
    "address space": resource.getrlimit(resource.RLIMIT_AS), "data": resource.getrlimit(resource.RLIMIT_DATA),
    "other limits": [resource.getrlimit(r) for r in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK, resource.RLIMIT_STACK, 11, 12)],
    "version": os.uname().release,
}), file=open(sys.argv[1], "w"))
`

// TestInherited: what a caller leaves in the process by system calls does not reach a child.
// docs/process.md lists these attributes.
func TestInherited(t *testing.T) {
	rows := map[string]string{
		"a timer of real time":        "signal.setitimer(signal.ITIMER_REAL, 3000)",
		"an alarm":                    "signal.alarm(3000)",
		"a timer that repeats":        "signal.setitimer(signal.ITIMER_REAL, 3000, 3000)",
		"a timer of processor time":   "signal.setitimer(signal.ITIMER_VIRTUAL, 3000)",
		"a profiling timer":           "signal.setitimer(signal.ITIMER_PROF, 3000)",
		"a parent-death signal":       "prctl(1, signal.SIGTERM)",
		"a deadly one":                "prctl(1, signal.SIGKILL)",
		"a subreaper":                 "prctl(36, 1)",
		"a long timer slack":          "prctl(29, 10**9)",
		"a short timer slack":         "prctl(29, 1)",
		"no huge pages":               "prctl(41, 1)",
		"early death of bad memory":   "prctl(33, 1, 1)",
		"late death of bad memory":    "prctl(33, 1, 0)",
		"an io flusher":               "prctl(57, 1)",
		"merged memory":               "prctl(67, 1)",
		"idle input and output":       "call(251, 1, 0, 3 << 13)",
		"slow input and output":       "call(251, 1, 0, 2 << 13 | 7)",
		"addresses not randomized":    "call(135, 0x0040000)",
		"an old kernel's version":     "call(135, 0x0020000)",
		"executable data":             "call(135, 0x0400000)",
		"an old layout":               "call(135, 0x0200000)",
		"another personality":         "call(135, 0x0008)",
		"memory of all nodes":         "call(238, 3, ctypes.byref(ctypes.c_ulong(1)), 64)",
		"memory of one node":          "call(238, 2, ctypes.byref(ctypes.c_ulong(1)), 64)",
		"a soft limit of memory":      "resource.setrlimit(resource.RLIMIT_AS, (10**9, -1))",
		"a very small one":            "resource.setrlimit(resource.RLIMIT_AS, (10**8, -1))",
		"a soft limit of files' size": "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, -1))",
		"a soft limit of time":        "resource.setrlimit(resource.RLIMIT_CPU, (60, -1))",
		"a small stack":               "resource.setrlimit(resource.RLIMIT_STACK, (1 << 18, resource.getrlimit(resource.RLIMIT_STACK)[1]))",
		"few processes":               "resource.setrlimit(resource.RLIMIT_NPROC, (100, resource.getrlimit(resource.RLIMIT_NPROC)[1]))",
		"no locked memory":            "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]))",
		"no pending signals":          "resource.setrlimit(11, (0, resource.getrlimit(11)[1]))",
		"no message queues":           "resource.setrlimit(12, (0, resource.getrlimit(12)[1]))",
		"a soft limit of data":        "resource.setrlimit(resource.RLIMIT_DATA, (10**7, -1))",
		"a pipe that does not block":  "r, w = os.pipe(); os.dup2(w, 1); flags(1, os.O_NONBLOCK)",
		"a pipe that signals":         "r, w = os.pipe(); os.dup2(w, 1); flags(1, os.O_ASYNC)",
		"a pipe of packets":           "r, w = os.pipe2(os.O_DIRECT); os.dup2(w, 2)",
		"stdin that does not block":   "r, w = os.pipe(); os.dup2(r, 0); flags(0, os.O_NONBLOCK)",
		"stdin that nobody writes to": "r, w = os.pipe(); os.dup2(r, 0); os.close(w); flags(0, os.O_NONBLOCK)",
		"a pipe that nobody reads":    "r, w = os.pipe(); os.dup2(w, 1); os.close(r); flags(1, os.O_NONBLOCK)",
		"a socket":                    "a, b = socket.socketpair(); os.dup2(a.fileno(), 1); flags(1, os.O_NONBLOCK)",
		"a terminal":                  "a, b = os.openpty(); [os.dup2(b, fd) for fd in (0, 1, 2)]; flags(1, os.O_NONBLOCK | os.O_ASYNC)",
		"a FIFO":                      "os.mkfifo(sys.argv[1] + '.fifo'); os.dup2(os.open(sys.argv[1] + '.fifo', os.O_RDWR | os.O_NONBLOCK), 1)",
		"signals of its own terminal": "a, b = os.openpty(); os.dup2(b, 1); fcntl.fcntl(1, fcntl.F_SETOWN, os.getpid())",
		"the master of a terminal":    "a, b = os.openpty(); os.dup2(a, 1); flags(1, os.O_NONBLOCK)",
		"a file":                      "os.dup2(os.open(sys.argv[1] + '.out', os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND), 1)",
		"all of Go's variables":       "os.environ.update(GODEBUG='inittrace=1', GOGC='1', GOMAXPROCS='1', GOMEMLIMIT='1', GOTRACEBACK='crash')",
	}
	plain := inherit(t, nil, "")
	for invoker, position := range positions {
		for name, code := range rows {
			t.Run(invoker+"/"+name, func(t *testing.T) {
				got := inherit(t, position, code)
				for _, what := range slices.Sorted(maps.Keys(plain)) {
					if got[what] != plain[what] {
						t.Errorf("%s: %s, want %s", what, got[what], plain[what])
					}
				}
			})
		}
	}
	t.Logf("%d rows, each from %d positions", len(rows), len(positions))
}

// inherit starts the probe by cc-ci-run, after a Python program has done something to the
// process, and gives what the probe saw.
func inherit(t *testing.T, position []string, code string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	report := filepath.Join(dir, "report")
	status, said := startAfter(t, dir, position, code, report)
	data, err := os.ReadFile(report)
	if status != 0 || err != nil {
		t.Fatalf("exit status %d, %v: %s", status, err, said)
	}
	var values map[string]any
	if err := json.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for what, value := range values {
		seen[what] = fmt.Sprint(value)
	}
	return seen
}

// startAfter starts the probe, after a Python program has done something to the process. The
// run's record is in DIR/state. said is what the process wrote before the program.
func startAfter(t *testing.T, dir string, position []string, code, report string) (status int, said string) {
	t.Helper()
	probe := filepath.Join(dir, "probe.py")
	write(t, probe, inherited, 0o644)
	before := kernel + code + "\nsys.stdout.flush(); os.execv(sys.argv[2], sys.argv[2:])\n"
	return start{
		argv: []string{"/usr/bin/python3", "-c", before, report, binary(t), "--state", filepath.Join(dir, "state"), probe, report},
		env:  append([]string{"HOME=" + dir}, position...),
	}.run(t)
}

// TestHandedOn: what not every process may set is handed on, and the record shows it, so that
// parity finds it.
func TestHandedOn(t *testing.T) {
	plain := handedOn(t, "")
	for name, row := range map[string]struct{ code, field, want string }{
		"a batch":             {"os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))", "policy", "batch"},
		"idle":                {"os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))", "policy", "idle"},
		"reset on fork":       {"os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))", "policy", "batch, reset on fork"},
		"one processor":       {"os.sched_setaffinity(0, {0})", "cpus", "0"},
		"first to be killed":  {"open('/proc/self/oom_score_adj', 'w').write('700')", "oom_score_adj", "700"},
		"a login":             {"open('/proc/self/loginuid', 'w').write('12345')", "login_uid", "12345"},
		"root without powers": {"prctl(28, 1)", "secure_bits", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			if (strings.Contains(row.code, "prctl") || row.field == "login_uid") && os.Getuid() != 0 {
				t.Skip("needs root, to change the login user and the securebits: run the test as root")
			}
			got := handedOn(t, row.code)
			if got[row.field] != row.want || plain[row.field] == row.want {
				t.Errorf("%s is %q in the record, want %q (plain: %q)", row.field, got[row.field], row.want, plain[row.field])
			}
		})
	}
}

// handedOn is what the record of a run has of its caller.
func handedOn(t *testing.T, code string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if status, said := startAfter(t, dir, nil, code, filepath.Join(dir, "report")); status != 0 {
		t.Fatalf("exit status %d: %s", status, said)
	}
	files, _ := filepath.Glob(dir + "/state/runs/*.json")
	if len(files) != 1 {
		t.Fatalf("records: %q", files)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Process struct{ Inherited map[string]string }
	}
	if err := json.Unmarshal(data, &record); err != nil {
		t.Fatal(err)
	}
	return record.Process.Inherited
}

// TestSharedFlags: a caller's own pipe keeps its flags.
func TestSharedFlags(t *testing.T) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(ends[0]), "r"), os.NewFile(uintptr(ends[1]), "w")
	defer r.Close()
	defer w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	status, _ := start{argv: []string{binary(t), "exec", "--no-record", "true"}, env: []string{"HOME=/"}, files: []*os.File{null, w, null}}.run(t)
	if flags, err := unix.FcntlInt(uintptr(ends[1]), unix.F_GETFL, 0); status != 0 || err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("exit status %d; the caller's flags are %#x, %v: O_NONBLOCK is gone", status, flags, err)
	}
}

// TestTooLittleMemory: where a hard limit leaves Go's runtime too little memory, cc-ci-run
// says so, and neither program shows a traceback.
func TestTooLittleMemory(t *testing.T) {
	for _, limit := range []string{"-v 1000000", "-v 300000", "-v 100000", "-v 20000", "-d 1000000", "-d 30000", "-d 1000"} {
		for _, args := range [][]string{{"exec", "true"}, {"--help"}, {"which", "git"}} {
			s := start{env: []string{"HOME=/"}}
			s.argv = slices.Concat(sh("ulimit "+limit), []string{binary(t), "--state", t.TempDir()}, args)
			status, said := s.run(t)
			if status != 125 || !strings.HasPrefix(said, "cc-ci-run: the hard limit of memory") || strings.Count(said, "\n") != 1 {
				t.Errorf("ulimit %s, %q: exit status %d: %s", limit, args, status, said)
			}
		}
	}
}

// TestLimitsOfSweep: a caller's limit neither holds a recipe nor makes an error of one. The
// sweep raises the limit, or does not start, and says which limit that is.
func TestLimitsOfSweep(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "recipes/a/test_it.py"), `
def deep(n):
    return n and 1 + deep(n - 1)
def test_it(tmp_path):
    (tmp_path / "large").write_bytes(bytes(5 << 20))
    assert deep(900) == 900
`, 0o644)
	runner, err := filepath.Abs("../runner/run_recipe_ci.py")
	if err != nil {
		t.Fatal(err)
	}
	for limit, says := range map[string]string{
		"-f 1": "file size (ulimit -f, LimitFSIZE=) is 1024 bytes; tests may need unlimited", "-f 100000": "file size",
		"-n 20": "open files (ulimit -n, LimitNOFILE=) is 20; tests may need 1040", "-n 500": "open files",
		"-s 256": "stack (ulimit -s, LimitSTACK=) is 262144 bytes; tests may need 8388608 bytes", "-t 100": "processor time (ulimit -t, LimitCPU=) is 100 seconds",
		"-v 3000000": "address space (ulimit -v, LimitAS=)", "-d 3000000": "data (ulimit -d, LimitDATA=)", "-u 900": "processes (ulimit -u, LimitNPROC=) is 900; tests may need 1024",
		"-i 0": "pending signals (ulimit -i, LimitSIGPENDING=)", "-q 0": "message queues (ulimit -q, LimitMSGQUEUE=)", "-l 0": "locked memory (ulimit -l, LimitMEMLOCK=)",
		"-f 1; ulimit -n 20": "open files (ulimit -n, LimitNOFILE=) is 20",
		// Soft limits are raised, and these have no effect on tests.
		"-S -f 1": "", "-S -n 20": "", "-S -s 256": "", "-S -t 100": "", "-S -v 3000000": "", "-S -u 900": "", "-S -i 0": "", "-S -q 0": "", "-S -l 0": "",
		"-c 0": "", "-x 0": "", "-e 0": "", "-r 0": "", "-m 0": "",
	} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			s := start{env: []string{"HOME=/", "PATH=/usr/bin:/bin"}}
			if os.Getuid() == 0 { // who could raise each limit
				s.argv = []string{"/usr/bin/setpriv", "--bounding-set=-sys_resource"}
			}
			s.argv = slices.Concat(s.argv, sh("ulimit "+limit), []string{binary(t), "sweep", "--state", t.TempDir(), "--recipes", filepath.Join(dir, "recipes"), "--runner", runner})
			status, said := s.run(t)
			want := 0
			if says != "" {
				want = 125
			}
			if status != want || !strings.Contains(said, says) || says != "" && !strings.Contains(said, "cc-ci-run: sweep: the hard limit of ") {
				t.Errorf("exit status %d, want %d and %q: %s", status, want, says, said)
			}
		})
	}
}
