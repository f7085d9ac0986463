package supervise

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program is also the supervisor, and a caller that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "supervise":
			if err := Main(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(125)
			}
			os.Exit(0)
		case "caller":
			runtime.LockOSThread()
			runs, err := New([]string{os.Args[0], "supervise"})
			if err != nil {
				panic(err)
			}
			run, err := runs.Start(Command{Argv: os.Args[2:], Environ: os.Environ(), Output: os.Stderr, Grace: time.Hour})
			if err != nil {
				panic(err)
			}
			run.End()
			os.Exit(0)
		}
	}
	runtime.LockOSThread()
	os.Exit(m.Run())
}

// bench runs shell scripts. Whatever of them lives on can be found by the
// variable MARK, or by touching files in dir.
type bench struct {
	*testing.T
	dir  string
	runs *Runs
}

func newBench(t *testing.T) *bench {
	runs, err := New([]string{os.Args[0], "supervise"})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t, t.TempDir(), runs}
}

// start starts a bash script, in which $dir is the bench's.
func (b *bench) start(script string, grace time.Duration) *Run {
	b.Helper()
	out, err := os.Create(filepath.Join(b.dir, "output"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { out.Close() })
	run, err := b.runs.Start(Command{
		Argv: []string{"/bin/bash", "-c", script}, Output: out, Grace: grace,
		// Else a supervisor that the race detector watches takes a second to end.
		Environ: []string{"PATH=" + os.Getenv("PATH"), "dir=" + b.dir, b.mark(), "GORACE=atexit_sleep_ms=0"},
	})
	if err != nil {
		b.Fatal(err)
	}
	return run
}

func (b *bench) mark() string { return "MARK=" + b.dir }

func (b *bench) output() string {
	data, _ := os.ReadFile(filepath.Join(b.dir, "output"))
	return string(data)
}

// await waits for a file that the script makes.
func (b *bench) await(name string) {
	b.Helper()
	for { // the test's own time limit ends it
		if _, err := os.Stat(filepath.Join(b.dir, name)); err == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// alive lists the processes that work in the bench's directory: each script
// goes there, and a working directory is what a process cannot easily lose.
func (b *bench) alive() (list []string) {
	for _, pid := range processes() {
		if cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd")); err == nil && cwd == b.dir {
			p, _, _ := stat(pid)
			list = append(list, p.String())
		}
	}
	return list
}

func (b *bench) gone(when string) {
	b.Helper()
	if left := b.alive(); left != nil {
		b.Errorf("%s: %q are left", when, left)
		Sweep(b.mark())
	}
}

// escapes are ways of a process to leave what started it. Each makes the file
// $dir/out when it is out, and goes on for ever.
var escapes = map[string]string{
	"a child":                `bash -c 'touch out; exec sleep 1000' &`,
	"nohup":                  `nohup bash -c 'touch out; exec sleep 1000' >/dev/null 2>&1 &`,
	"a session of its own":   `setsid bash -c 'touch out; exec sleep 1000' &`,
	"a group of its own":     `perl -e 'setpgrp; open F, ">out"; sleep 1000' &`,
	"a daemon":               `setsid bash -c '(setsid bash -c "touch out; exec sleep 1000" &)' </dev/null >/dev/null 2>&1 &`,
	"deaf":                   `setsid bash -c 'trap "" TERM HUP INT; touch out; while :; do sleep 1000; done' &`,
	"stopped":                `setsid bash -c 'touch out; kill -STOP $$; sleep 1000' &`,
	"without an environment": `setsid env -i /bin/bash -c 'touch out; exec sleep 1000' &`,
	"a reaper of its own":    `setsid perl -e 'syscall(157, 36, 1, 0, 0, 0); if (fork == 0) { if (fork == 0) { open F, ">out"; sleep 1000 } exit } sleep 1000' &`,
	"deep":                   `deep() { if [ $1 = 0 ]; then touch out; exec sleep 1000; else deep $(($1 - 1)) & wait; fi; }; deep 40 &`,
	"many":                   `for i in $(seq 100); do setsid sleep 1000 & done; touch out`,
	// It has an end of its own, or a failing test would leave it for ever.
	"one that hops":          `setsid perl -e 'open F, ">out"; for (1 .. 20000) { exit if fork; setpgrp; select undef, undef, undef, 0.0005 }' &`,
	"a namespace of its own": `setsid unshare --pid --fork --mount-proc bash -c 'touch out; exec sleep 1000' &`,
	"holding the output":     `setsid bash -c 'touch out; while echo; do sleep 0.1; done' &`,
}

// Nothing of a run outlives it, however it ends.
func TestNothingOutlivesARun(t *testing.T) {
	ends := map[string]struct {
		script string // after the escape
		do     func(*Run)
		check  func(End) bool
	}{
		"by itself":     {"exit 7", func(*Run) {}, func(e End) bool { return e.Exit == 7 && e.Signal == 0 }},
		"by a signal":   {"kill -SEGV $$", func(*Run) {}, func(e End) bool { return e.Signal == syscall.SIGSEGV }},
		"by SIGTERM":    {"touch ready; exec sleep 1000", (*Run).Terminate, func(e End) bool { return e.Signal == syscall.SIGTERM }},
		"by SIGKILL":    {"trap '' TERM; touch ready; while :; do sleep 1000; done", (*Run).Terminate, func(e End) bool { return e.Signal == syscall.SIGKILL }},
		"when stopped":  {"touch ready; kill -STOP $$; sleep 1000", (*Run).Terminate, func(e End) bool { return e.Signal == syscall.SIGTERM }},
		"its parent is": {"touch ready; exec sleep 1000", (*Run).Kill, func(e End) bool { return e.Lost }},
	}
	for escape, script := range escapes {
		for how, end := range ends {
			t.Run(escape+"/ended "+how, func(t *testing.T) {
				if strings.Contains(script, "unshare") && os.Getuid() != 0 {
					t.Skip("a pid namespace needs root")
				}
				b := newBench(t)
				grace := time.Hour
				if how == "by SIGKILL" {
					grace = 0
				}
				run := b.start("cd $dir; "+script+"\nuntil [ -e out ]; do sleep 0.01; done; "+end.script, grace)
				b.await("out")
				if strings.Contains(end.script, "ready") {
					b.await("ready")
				}
				end.do(run)
				if e := run.End(); !end.check(e) || e.Left != nil {
					t.Errorf("%+v; %s", e, b.output())
				}
				b.gone("at its end")
			})
		}
	}
}

// A supervisor that a signal reaches before it listens ends its command all the same. (If
// it died of the signal after it started the command, processes that left the command's
// group and environment would live on when the caller dies at that moment too.)
func TestEarlySignal(t *testing.T) {
	b := newBench(t)
	for i := range 300 {
		run := b.start("cd $dir; setsid env -i /bin/sleep 1000 & exec sleep 1000", time.Hour)
		time.Sleep(time.Duration(i*25) * time.Microsecond)
		run.Terminate()
		if e := run.End(); e.Lost || e.Signal != syscall.SIGTERM || e.Left != nil {
			t.Fatalf("SIGTERM after %d µs: %+v; %s", i*25, e, b.output())
		}
	}
	b.gone("at its end")
}

// Also if the caller is killed, with the supervisor or without; then Sweep ends
// what is left, of which it knows the variable.
func TestKilledCaller(t *testing.T) {
	for escape, script := range escapes {
		t.Run(escape, func(t *testing.T) {
			b := newBench(t)
			for _, both := range []bool{false, true} {
				if both && (escape == "without an environment" || escape == "a namespace of its own" && os.Getuid() != 0) {
					continue // documented: nothing tells whose it is
				}
				_ = os.Remove(filepath.Join(b.dir, "out"))
				cmd := exec.Command(os.Args[0], "caller", "/bin/bash", "-c", "cd $dir; "+script+"\nexec sleep 1000")
				cmd.Env = append(os.Environ(), "dir="+b.dir, b.mark())
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				b.await("out")
				var supervisors []int
				for _, pid := range processes() {
					if _, parent, _ := stat(pid); parent == cmd.Process.Pid {
						supervisors = append(supervisors, pid)
					}
				}
				_ = cmd.Process.Kill()
				if both {
					for _, pid := range supervisors {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				_ = cmd.Wait()
				if both {
					// The test is the reaper of the caller's orphans, too.
					if left := Sweep(b.mark()); left != nil {
						t.Errorf("%q", left)
					}
					killAll(func(int) bool { return true })
				} else {
					// A process that hops is not always in a list of processes. So the end
					// of the supervisor says that the supervisor has done its work.
					for _, pid := range supervisors {
						for p, _, ok := stat(pid); ok && p.state != 'Z'; p, _, ok = stat(pid) {
							time.Sleep(10 * time.Millisecond)
						}
					}
					killAll(func(pid int) bool { p, _, _ := stat(pid); return p.state == 'Z' })
				}
				b.gone(fmt.Sprint("both killed: ", both))
			}
		})
	}
}

// The kernel ends a delegated cgroup's processes.
func TestCgroup(t *testing.T) {
	mount := cgroupMount()
	if mount == "" || os.Getuid() != 0 || unix.Access(mount, unix.W_OK) != nil {
		t.Skip("making a cgroup needs root and cgroup v2")
	}
	base := filepath.Join(mount, "test-"+hex.EncodeToString([]byte(t.Name()))+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	defer removeCgroup(base)
	b := newBench(t)
	b.runs.base = base
	run := b.start("cd $dir; cat /proc/self/cgroup; mkdir /proc/self/root"+"$(sed -n 's,^0::,"+mount+",p' /proc/self/cgroup)/below; "+escapes["one that hops"]+" touch ready; sleep 1000", time.Hour)
	b.await("ready")
	b.await("out")
	if run.Cgroup == "" || !strings.Contains(b.output(), "/"+filepath.Base(run.Cgroup)+"\n") {
		t.Errorf("it is in %s, want %s", b.output(), run.Cgroup)
	}
	run.Terminate()
	if e := run.End(); e.Signal != syscall.SIGTERM || e.Left != nil {
		t.Errorf("%+v", e)
	}
	b.gone("at its end")
	if _, err := os.Stat(run.Cgroup); err == nil {
		t.Errorf("%s is left", run.Cgroup)
	}
	// What a killed sweep left.
	if err := os.Remove(filepath.Join(b.dir, "out")); err != nil {
		t.Fatal(err)
	}
	run = b.start("cd $dir; "+escapes["without an environment"]+" exec sleep 1000", time.Hour)
	b.await("out")
	KillCgroup(run.Cgroup)
	run.End()
	b.gone("after KillCgroup")
	KillCgroup(filepath.Dir(base)) // not one of ours: left alone
}

// A cgroup counts as delegated if systemd marked it so.
func TestDelegated(t *testing.T) {
	if dir := delegated(); dir != "" && unix.Access(dir, unix.W_OK) != nil {
		t.Errorf("%s", dir)
	}
}

// What SIGKILL does not end is named, and the wait for it ends.
func TestUnkillable(t *testing.T) {
	freezer := "/sys/fs/cgroup/freezer"
	if _, err := os.Stat(filepath.Join(freezer, "tasks")); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and the freezer of cgroup v1, which keeps a killed process")
	}
	frozen := filepath.Join(freezer, "test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(frozen, 0o755); err != nil {
		t.Skipf("the freezer: %v", err)
	}
	state := func(s string) {
		if err := os.WriteFile(filepath.Join(frozen, "freezer.state"), []byte(s), 0); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = unix.Rmdir(frozen) }()
	b := newBench(t)
	run := b.start("cd $dir; setsid bash -c 'echo $$ >"+frozen+"/tasks; touch out; exec sleep 1000' & until [ -e out ]; do sleep 0.01; done; until [ -e go ]; do sleep 0.01; done", time.Hour)
	b.await("out")
	state("FROZEN")
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e := run.End()
	if len(e.Left) != 1 || !strings.Contains(e.Left[0], "process ") {
		t.Errorf("%+v", e)
	}
	state("THAWED")
	killAll(func(int) bool { return true })
	b.gone("once it is thawed")
}

// What is wrong with the start is said.
func TestCannotStart(t *testing.T) {
	b := newBench(t)
	run, err := b.runs.Start(Command{Argv: []string{"/nonexistent"}, Output: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	if e := run.End(); !strings.Contains(e.Failed, "/nonexistent: no such file") {
		t.Errorf("%+v", e)
	}
	b.runs.supervisor = []string{"/nonexistent"}
	if _, err := b.runs.Start(Command{Argv: []string{"/bin/true"}}); err == nil {
		t.Error("no error")
	}
}

// Commands of the caller's own are not taken for orphans.
func TestOther(t *testing.T) {
	b := newBench(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		out, err := b.runs.Other(exec.Command("/bin/bash", "-c", "cd "+b.dir+"; touch other; until [ -e go ]; do sleep 0.01; done; echo lives"))
		if err == nil && string(out) != "lives\n" {
			err = fmt.Errorf("output %q", out)
		}
		done <- err
	}()
	b.await("other")
	run := b.start("cd $dir; "+escapes["a daemon"]+" exec sleep 1000", time.Hour)
	b.await("out")
	run.Kill()
	if e := run.End(); !e.Lost {
		t.Errorf("%+v", e)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
