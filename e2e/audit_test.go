//go:build environment

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// call is a line of `audit --log`.
type call struct {
	Execute      bool
	PID          int
	Program      string
	Path         string
	File         string
	Unreadable   bool
	Outcome      string
	Interpreters []struct{ Path, File string }
}

// audited runs a script under audit, with flags before it, and gives its exit
// status, what it wrote, and its calls.
func audited(t testing.TB, script string, flags []string, args ...string) (status int, output string, calls []call) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	file := filepath.Join(dir, "script.py")
	write(t, file, script, 0o644)
	argv := slices.Concat([]string{binary(t), "audit", "--log", log, "--state", filepath.Join(dir, "state")}, flags, []string{file}, args)
	// In a group of its own, to which a script may send signals.
	status, output = start{argv: argv, env: []string{"HOME=" + dir}, dir: dir, group: true}.run(t)
	f, err := os.Open(log)
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	defer f.Close()
	lines := json.NewDecoder(bufio.NewReader(f))
	for lines.More() {
		var c call
		if err := lines.Decode(&c); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	return status, output, calls
}

// executed counts the files that were executed.
func executed(calls []call) map[string]int {
	files := map[string]int{}
	for _, c := range calls {
		if c.Execute && c.Outcome == "executed" {
			files[c.File]++
		}
	}
	return files
}

// Every way to name a file.
func TestAuditPaths(t *testing.T) {
	const script = `
import ctypes, mmap, os, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
bin = os.environ["PATH"]
here = os.getcwd()
null = ctypes.POINTER(ctypes.c_char_p)()
def child(f):
    pid = os.fork()
    if pid == 0:
        try: f()
        finally: os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def argv(*words): return (ctypes.c_char_p * (len(words) + 1))(*[w.encode() for w in words], None)
SYS_execveat = 322 if os.uname().machine == "x86_64" else 281

os.symlink(bin + "/true", "link")
os.symlink("link", "link2")
os.mkdir("dir"); os.symlink(bin + "/false", "dir/no")
fd = os.open(bin + "/true", os.O_RDONLY)
dfd = os.open("dir", os.O_RDONLY)
codes = []
def ok(name, code, want):
    if code != want: print("WRONG", name, code); codes.append(name)
ok("relative", child(lambda: os.execv("./link2", ["x"])), 0)
os.chdir("dir")
ok("relative up", child(lambda: os.execv("../link", ["x"])), 0)
os.chdir("..")
ok("proc fd", child(lambda: os.execv("/proc/self/fd/%d" % fd, ["x"])), 0)
ok("dev fd", child(lambda: os.execv("/dev/fd/%d" % fd, ["x"])), 0)
ok("fexecve", child(lambda: os.execve(fd, ["x"], {})), 0)
ok("execveat empty", child(lambda: libc.syscall(SYS_execveat, fd, b"", argv("x"), argv(), 0x1000)), 0)
ok("execveat relative", child(lambda: libc.syscall(SYS_execveat, dfd, b"no", argv("x"), argv(), 0)), 1)

def script(name, line, body="true\n", mode=0o755):
    with open(name, "w") as f: f.write(line + "\n" + body)
    os.chmod(name, mode)
script("one", "#!" + bin + "/bash -e")
script("two", "#! " + here + "/one")
ok("script", child(lambda: os.execv("./one", ["x"])), 0)
ok("script of a script", child(lambda: os.execv("./two", ["x"])), 0)
script("env", "#!/usr/bin/env bash")
ok("env", child(lambda: os.execv("./env", ["x"])), 0)
def fails(name, path, errno):
    try: os.execv(path, ["x"])
    except OSError as e: ok(name, e.errno, errno)
script("nowhere", "#!/nonesuch/interpreter")
fails("no interpreter", "./nowhere", 2)
script("plain", "true")
fails("no #!", "./plain", 8)
script("closed", "#!" + bin + "/bash", mode=0o644)
fails("no x", "./closed", 13)
fails("directory", "./dir", 13)
fails("none", "/nonesuch/program", 2)
fails("through a file", "./one/x", 20)
ok("shell reads it", subprocess.run(["bash", "-c", "./plain"]).returncode, 0)

# at a page's end, with nothing behind it
page = mmap.PAGESIZE
m = mmap.mmap(-1, 2 * page)
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
path = (bin + "/true").encode() + b"\0"
ctypes.memmove(at + page - len(path), path, len(path))
libc.mprotect(ctypes.c_void_p(at + page), page, 0)
ok("page's end", child(lambda: libc.execve(ctypes.c_void_p(at + page - len(path)), argv("x"), argv())), 0)
# across two pages
m2 = mmap.mmap(-1, 2 * page)
at2 = ctypes.addressof(ctypes.c_char.from_buffer(m2))
ctypes.memmove(at2 + page - 5, path, len(path))
ok("two pages", child(lambda: libc.execve(ctypes.c_void_p(at2 + page - 5), argv("x"), argv())), 0)
# a bad pointer, an empty path, a path that is too long
libc.execve(ctypes.c_void_p(8), argv("x"), argv()); ok("EFAULT", ctypes.get_errno(), 14)
libc.execve(b"", argv("x"), argv()); ok("empty", ctypes.get_errno(), 2)
libc.execve(b"/" * 5000, argv("x"), argv()); ok("long", ctypes.get_errno(), 36)

# 32-bit: int 0x80 with execve's number there
if os.uname().machine == "x86_64":
    m32 = mmap.mmap(-1, page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    base = ctypes.addressof(ctypes.c_char.from_buffer(m32))
    assert base < 1 << 32
    code = b"\x53" + b"\xb8\x0b\x00\x00\x00" + b"\xbb" + struct.pack("<I", base + 256) + b"\xb9" + struct.pack("<I", base + 1024) + b"\xba" + struct.pack("<I", base + 1032) + b"\xcd\x80\x5b\xc3"
    m32[0:len(code)] = code
    m32[256:256 + len(path)] = path
    m32[1024:1036] = struct.pack("<III", base + 256, 0, 0)
    status = child(lambda: ctypes.CFUNCTYPE(ctypes.c_int)(base)())
    print("i386", status)

# links to what means another thing for who looks
os.symlink("/proc/self/exe", "self"); os.symlink("/proc/self/fd/%d" % fd, "by-fd")
ok("link to /proc/self/exe", child(lambda: os.execv("./self", ["x", "-c", "pass"])), 0)
ok("link to /proc/self/fd", child(lambda: os.execv("./by-fd", ["x"])), 0)

# another root
pid = os.fork()
if pid == 0:
    os.makedirs("root/bin")
    os.symlink("/bin/real", "root/bin/link")
    import shutil
    shutil.copy(bin + "/true", "root/bin/real")
    try:
        os.chroot("root")
    except PermissionError:
        os._exit(0)
    os.chdir("/")
    try: os.execv("/bin/link", ["x"])
    except OSError as e: pass # it has no libraries there
    os._exit(0)
os.waitpid(pid, 0)
sys.exit(len(codes))
`
	status, output, calls := audited(t, script, nil)
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, output)
	}
	bin := filepath.Join(filepath.Dir(binary(t)), "toolset/bin")
	file := func(path string) string {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			t.Fatal(err)
		}
		return real
	}
	got := map[string]string{} // path as given -> file, outcome, interpreters
	for _, c := range calls {
		if !c.Execute {
			continue
		}
		path := c.Path
		if n := len(path); n > 200 {
			path = path[:20]
		}
		got[path] += fmt.Sprintln(filepath.Base(c.File), c.Outcome, len(c.Interpreters))
	}
	for path, want := range map[string]string{
		"./link2":           "true executed 0\n",
		"../link":           "true executed 0\n",
		"no":                "false executed 0\n",
		"./one":             "one executed 1\n",
		"./two":             "two executed 2\n",
		"./env":             "env executed 1\n",
		"./nowhere":         "nowhere not found 1\n",
		"./closed":          "closed not executable 0\n",
		"./dir":             "dir not executable 0\n",
		"/nonesuch/program": ". not found 0\n",
		"./one/x":           ". not found 0\n",
		"./by-fd":           "true executed 0\n",
		"/bin/link":         "real executed 0\n",
	} {
		if os.Getuid() != 0 && path == "/bin/link" {
			continue
		}
		if got[path] != want {
			t.Errorf("%s: %q, want %q", path, got[path], want)
		}
	}
	if n := strings.Count(got["./plain"], "plain no program 0\n"); n != 2 { // ours, and bash's, which then reads it itself
		t.Errorf("./plain: %q", got["./plain"])
	}
	count := 0
	for path, outcomes := range got {
		if strings.HasPrefix(path, "/proc/self/fd/") || strings.HasPrefix(path, "/dev/fd/") || path == "" {
			count += strings.Count(outcomes, "true executed 0\n")
		}
	}
	if count != 4 {
		t.Errorf("%d of 4 calls by descriptor: %v", count, got)
	}
	i386 := strings.Contains(output, "i386 0\n")
	want := 2
	if i386 {
		want++
	}
	if n := strings.Count(got[bin+"/true"], file(bin + "/true")[strings.LastIndex(file(bin+"/true"), "/")+1:]+" executed 0\n"); n != want {
		t.Errorf("%d of %d calls of %s/true: %q", n, want, bin, got[bin+"/true"])
	}
	if !i386 {
		t.Logf("this kernel takes no 32-bit calls: %s", output)
	}
}

// What a script sees of itself under audit is compared by [probeRun]; what it
// does to itself comes out as without.
func TestAuditExitStatus(t *testing.T) {
	for _, code := range []int{0, 1, 2, 7, 77, 125, 126, 127, 128, 137, 255} {
		if status, output, _ := audited(t, fmt.Sprintf("import os\nos._exit(%d)", code), nil); status != code {
			t.Errorf("exit %d comes out as %d: %s", code, status, output)
		}
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1, 34, 64} {
		code := fmt.Sprintf("import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nif %d == 13: signal.signal(13, signal.SIG_DFL)\nos.kill(os.getpid(), %d)", s, s)
		if status, output, _ := audited(t, code, nil); status != 128+int(s) {
			t.Errorf("signal %d comes out as %d: %s", s, status, output)
		}
	}
	for script, want := range map[string]int{"/nonesuch.py": 127, "/": 126, "git": 125} {
		cmd := command(t, "audit", "--no-record", script)
		out, _ := cmd.CombinedOutput()
		if got := statusOf(cmd.ProcessState); got != want || strings.Contains(string(out), "audit of") {
			t.Errorf("%s: exit status %d, want %d: %s", script, got, want, out)
		}
	}
}

// counter counts the SIGINTs that it gets, until SIGTERM.
const counter = `
import os, signal, time
n = 0
def count(*_):
    global n
    n += 1
    os.write(1, b"counted %d\n" % n)
signal.signal(signal.SIGINT, count)
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"total %d\n" % n), os._exit(0)))
os.write(1, b"ready %d\n" % (os.getpgrp() == os.getpgid(os.getppid()) and os.tcgetpgrp(0) == os.getpgrp()))
while True: time.sleep(1)
`

// A Ctrl-C at the terminal comes once, as does a signal that is sent.
func TestAuditControlC(t *testing.T) {
	c := onTerminal(t, "audit", "--no-record", script(t, counter))
	if same := await(t, c.r, "ready"); same != "1" {
		t.Error("the script is not in the foreground process group of cc-ci-run")
	}
	c.press(t, "\x03")
	await(t, c.r, "counted")
	noSignalWaits(t, c.Process.Pid) // two that wait for cc-ci-run would be one
	_ = c.Process.Signal(syscall.SIGINT)
	await(t, c.r, "counted")
	noSignalWaits(t, c.Process.Pid)
	time.Sleep(200 * time.Millisecond) // for one too many
	_ = c.Process.Signal(syscall.SIGTERM)
	if total := await(t, c.r, "total"); total != "2" {
		t.Errorf("two interrupts came as %s", total)
	}
	_ = c.Wait()
}

// noSignalWaits waits until a process has taken all signals that were sent to it.
func noSignalWaits(t testing.TB, pid int) {
	t.Helper()
	none := regexp.MustCompile(`(?m)^SigPnd:\t0+\nShdPnd:\t0+$`)
	var status []byte
	for end := time.Now().Add(watchdog); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var err error
		if status, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
			t.Fatal(err)
		}
		if none.Match(status) {
			return
		}
	}
	t.Fatalf("signals wait for process %d:\n%s", pid, status)
}

// What a process of the run sends to its group comes once, too.
func TestAuditGroupSignal(t *testing.T) {
	// The sender must be there while cc-ci-run asks whose child it is. So it waits until no
	// signal waits for cc-ci-run, and then until cc-ci-run has looked at two more executions,
	// which it does after it has looked at the signals.
	status, output, _ := audited(t, `
import os, signal, subprocess, time
n = 0
def count(*_):
    global n
    n += 1
signal.signal(signal.SIGUSR1, count)
send = f"trap '' USR1; kill -USR1 0; n=0; while [ $((n+=1)) -lt 10000 ] && grep -Eq '^(Sig|Shd)Pnd:\\s*0*[1-9a-f]' /proc/{os.getppid()}/status; do :; done; /bin/true; /bin/true"
for i in range(20):
    os.kill(0, signal.SIGUSR1)
    subprocess.run(["sh", "-c", send])
time.sleep(0.1)
print("counted", n)
`, []string{"--report", os.DevNull})
	if status != 0 || !strings.Contains(output, "counted 40\n") {
		t.Errorf("exit status %d, 40 signals: %s", status, output)
	}
}

// Any number of signals, of any kind, end neither cc-ci-run nor its waiting.
func TestAuditManySignals(t *testing.T) {
	status, output, _ := audited(t, `
import mmap, os, signal, struct, time
seen = mmap.mmap(-1, 8) # shared with the child
def count(): return struct.unpack("q", seen[:8])[0]
def caught(*_): seen[:8] = struct.pack("q", count() + 1)
auditor = os.getppid()
for s in range(34, 65): signal.signal(s, caught)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    parent = os.getpid()
    if os.fork(): os._exit(0)
    while os.getppid() == parent: time.sleep(0.01) # until it is nobody's
    for n in range(620): # of two that Python has not looked at yet, it sees one
        os.kill(auditor, 34 + n % 31)
        while count() <= n: time.sleep(0.001)
    os._exit(0)
while count() < 620: time.sleep(0.01)
print("caught", count(), flush=True)
for _ in range(2000): os.kill(os.getppid(), 40) # and its own end is not lost among them
os._exit(3)
`[1:], nil)
	if status != 3 || !strings.Contains(output, "caught 620\n") {
		t.Errorf("exit status %d: %s", status, output)
	}
}

// Who reads what the script writes sees its end when the script closes it.
func TestAuditHoldsNothingOpen(t *testing.T) {
	cmd := command(t, "audit", "--no-record", script(t, "import os, time\nos.close(0); os.close(1)\ntime.sleep(1000)\n"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(started(t, cmd)); err != nil { // or it waits for the script's end
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("x")); err == nil {
		t.Error("stdin was held open")
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if got := statusOf(cmd.ProcessState); got != 128+int(syscall.SIGTERM) {
		t.Errorf("exit status %d", got)
	}
}

// A path in memory that nobody fills holds nobody else up: the call goes on unread.
func TestAuditUnfilledMemory(t *testing.T) {
	status, output, calls := audited(t, `
import ctypes, fcntl, os, platform, struct, subprocess, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
page, pages = 4096, 8
uffd = libc.syscall(323 if platform.machine() == "x86_64" else 282, 0o2000000)
if uffd < 0:
    print("no userfaultfd:", os.strerror(ctypes.get_errno())); os._exit(77)
memory = libc.mmap(None, page * pages, 3, 0x22, -1, 0)
fcntl.ioctl(uffd, 0xc018aa3f, struct.pack("<QQQ", 0xaa, 0, 0)) # UFFDIO_API
fcntl.ioctl(uffd, 0xc020aa00, bytearray(struct.pack("<QQQQ", memory, page * pages, 1, 0))) # UFFDIO_REGISTER
def call(number, address):
    f = libc.access if number % 2 else libc.execv
    threading.Thread(target=f, args=(ctypes.c_void_p(address), None), daemon=True).start()
for number in range(4):
    call(number, memory + number * page)
call(4, memory + 4 * page - 1) # a path that begins in a page and ends in another
time.sleep(0.1) # the threads call; if not, there is less to see
for _ in range(3):
    subprocess.run(["git", "--version"])
os._exit(3)
`, nil)
	if status == 77 {
		t.Skip(output)
	}
	unread, git := 0, 0
	for _, c := range calls {
		if c.Execute && c.Unreadable {
			unread++
		}
		if c.Execute && strings.HasSuffix(c.Path, "/git") {
			git++
		}
	}
	if status != 3 || git != 3 || unread == 0 {
		t.Errorf("exit status %d, %d calls to git, %d unread: %s", status, git, unread, output)
	}
}

// A file system whose server is of the audited run, and executes something to
// serve a call to execute, is not waited for: neither for a file to execute, nor
// for memory that has its path.
func TestAuditFileSystemOfItsOwn(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Getuid() != 0 {
		t.Skip("it takes root and /dev/fuse")
	}
	status, output, _ := audited(t, `
import ctypes, os, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
m = os.getcwd() + "/mnt"
os.mkdir(m)
libc.unshare(0x20000) # CLONE_NEWNS
libc.mount(b"none", b"/", None, 0x4000 | (1 << 18), None)
fd = os.open("/dev/fuse", os.O_RDWR)
if libc.mount(b"f", m.encode(), b"fuse", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fd):
    print("no mount:", ctypes.get_errno()); sys.exit(77)
data = b"#!/bin/sh\nexit 5\n" + b"\0/bin/true\0"
def attr(ino):
    mode = 0o40755 if ino == 1 else 0o100755
    return struct.pack("<QQQQQQIIIIIIIIII", ino, len(data), 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
def serve():
    while True:
        try: request = os.read(fd, 1 << 20)
        except OSError: return
        _, op, unique, node, *_ = struct.unpack("<IIQQIIII", request[:40])
        body, error = b"", 0
        if op == 26: body = struct.pack("<IIIIHHIIHHIIII", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0, 0, 0, 0) + bytes(16) # INIT
        elif op == 1: body = struct.pack("<QQQQII", 2, 0, 1, 1, 0, 0) + attr(2) # LOOKUP
        elif op == 3: body = struct.pack("<QII", 1, 0, 0) + attr(node)          # GETATTR
        elif op == 14: # OPEN
            subprocess.run(["true"])
            body = struct.pack("<QII", 1, 0, 0)
        elif op == 15: # READ
            subprocess.run(["true"])
            body = data
        elif op in (2, 42): continue # FORGET
        elif op not in (25, 18): error = -38 # FLUSH, RELEASE
        os.write(fd, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
if os.fork() == 0:
    serve(); os._exit(0)
if os.fork() == 0:
    libc.mmap.restype = ctypes.c_void_p
    memory = libc.mmap(None, 4096, 1, 2, os.open(m + "/program", os.O_RDONLY), 0)
    libc.execv(ctypes.c_void_p(memory + data.index(b"/bin/true")), (ctypes.c_char_p * 2)(b"true", None))
    os._exit(6)
if os.waitstatus_to_exitcode(os.wait()[1]): os._exit(6)
code = subprocess.run([m + "/program"]).returncode
libc.umount2(m.encode(), 2)
os._exit(code)
`, nil)
	if status == 77 {
		t.Skip("no FUSE here: ", output)
	}
	if status != 5 {
		t.Errorf("exit status %d: %s", status, output)
	}
}

// Ctrl-Z stops the job, for the shell that waits for it; fg goes on with it.
// (The script starts nothing meanwhile: who is stopped between vfork and exec
// keeps its parent from being stopped, audited or not.)
func TestAuditJobControl(t *testing.T) {
	c := onTerminal(t, "exec", "--pty", "--no-record", "bash", "--norc", "-i")
	goOn := filepath.Join(t.TempDir(), "go-on")
	file := script(t, "import os, time, subprocess\nprint('started', 1, flush=True)\nwhile not os.path.exists('"+goOn+"'):\n    time.sleep(0.1)\nsubprocess.run(['true'])\nprint('ended', 29)\n")
	c.press(t, "HOME=/ "+binary(t)+" audit --no-record --report /dev/null "+file+"; echo status $?\n")
	await(t, c.r, "started")
	c.press(t, "\x1a")
	if got := await(t, c.r, "status"); got != "148" && got != "147" { // 128 + SIGTSTP or SIGSTOP
		t.Errorf("status %s, want 148", got)
	}
	write(t, goOn, "", 0o644)
	c.press(t, "fg; echo status $?\n")
	if got := await(t, c.r, "ended"); got != "29" {
		t.Errorf("ended %s", got)
	}
	if got := await(t, c.r, "status"); got != "0" {
		t.Errorf("status %s, want 0", got)
	}
	c.press(t, "exit\n")
	go func() { _, _ = io.Copy(io.Discard, c.r) }()
	_ = c.Wait()
}

// If who audits it is killed, a run fails loudly; it does not hang.
func TestAuditorKilled(t *testing.T) {
	cmd := command(t, "audit", "--no-record", script(t, `
import os, subprocess, time
subprocess.run(["true"], check=True)
os.write(1, b"ready %d\n" % os.getpid())
while True:
    try:
        subprocess.run(["true"], check=True)
    except OSError as e:
        os.write(1, b"failed %d\n" % e.errno)
        break
`))
	r := started(t, cmd)
	pid := await(t, r, "ready")
	_ = cmd.Process.Kill()
	if got := await(t, r, "failed"); got != strconv.Itoa(int(syscall.ENOSYS)) {
		t.Errorf("error %s, want ENOSYS", got)
	}
	_ = cmd.Wait()
	gone(t, pid)
}

// What outlives the script can execute on.
func TestAuditLeavesOthersRunning(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	status, output, calls := audited(t, `
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    for fd in (0, 1, 2): os.close(fd); os.open("/dev/null", os.O_RDWR)
    time.sleep(1)
    for i in range(20): subprocess.run(["true"], check=True)
    open(sys.argv[1], "w").write("done")
    os._exit(0)
`, nil, mark)
	if status != 0 || len(calls) == 0 {
		t.Fatalf("exit status %d: %s", status, output)
	}
	for end := time.Now().Add(watchdog); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if data, _ := os.ReadFile(mark); string(data) == "done" {
			break
		}
	}
	if data, _ := os.ReadFile(mark); string(data) != "done" {
		t.Error("what outlived the script could execute nothing")
	}
	for end := time.Now().Add(watchdog); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if out, _ := exec.Command("pgrep", "-f", "audit --rest").Output(); len(out) == 0 {
			return
		}
	}
	t.Error("who answers for what outlived the script stayed when that had ended")
}

// A debugger works in an audited run.
func TestAuditPtrace(t *testing.T) {
	status, output, calls := audited(t, `
import subprocess
out = subprocess.run(["strace", "-f", "-e", "trace=execve", "sh", "-c", "git --version; true; env true"], capture_output=True, text=True)
assert out.returncode == 0, out
assert out.stdout.startswith("git version"), out
assert out.stderr.count(" = 0\n") == 4, out.stderr   # sh, git, env, true
`, nil)
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, output)
	}
	if n := executed(calls); len(n) != 6 { // python, strace, bash, git, env, true
		t.Errorf("saw %v", n)
	}
}

// The kernel allows one listener for a process: an audit within an audited run is
// refused, with the reason, and the outer one has all that was executed.
func TestAuditNested(t *testing.T) {
	status, output, calls := audited(t, `
import os, subprocess, sys
with open("inner.py", "w") as f: f.write("print('not reached')")
inner = subprocess.run([sys.argv[1], "audit", "--no-record", "inner.py"], env={"HOME": os.getcwd()}, capture_output=True, text=True)
assert inner.returncode == 125, inner
assert "part of an audited one already" in inner.stderr and not inner.stdout, inner
subprocess.run(["jq", "--version"], stdout=subprocess.DEVNULL)
`, nil, binary(t))
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, output)
	}
	seen := map[string]bool{}
	for file := range executed(calls) {
		seen[filepath.Base(file)] = true
	}
	for _, name := range []string{"cc-ci-run", "jq"} {
		if !seen[name] {
			t.Errorf("the outer audit did not see %s: %v", name, seen)
		}
	}
}
