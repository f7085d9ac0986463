//go:build environment

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// catcher is a SCRIPT that says it is ready, and on a signal says which and
// exits with 40 and its number.
const catcher = `
import os, signal, sys, time
def caught(number, frame):
    os.write(1, b"caught %d\n" % number)
    os._exit(40 + number)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
    signal.signal(number, caught)
os.write(1, b"ready %d\n" % os.getpid())
for _ in range(300): # a handler runs between two, also if the signal came just before
    time.sleep(0.1)
os._exit(99)
`

func script(t testing.TB, code string) string {
	path := filepath.Join(t.TempDir(), "script.py")
	write(t, path, code, 0o644)
	return path
}

// command is cc-ci-run with a plain environment and no record.
func command(t testing.TB, args ...string) *exec.Cmd {
	cmd := exec.Command(binary(t), args...)
	cmd.Env = []string{"HOME=/", "TERM=xterm"}
	return cmd
}

// await reads until a line has the word and gives what follows it there. It
// waits as long as a watchdog: a terminal's read cannot be given up.
func await(t testing.TB, r *bufio.Reader, word string) string {
	t.Helper()
	found := make(chan string, 1)
	go func() {
		var read strings.Builder
		for {
			line, err := r.ReadString('\n')
			read.WriteString(line)
			// Not the echo of a command line that has the word in it.
			if _, rest, ok := strings.Cut(line, word+" "); ok && !strings.Contains(line, "echo") {
				found <- strings.TrimSpace(rest)
				return
			}
			if err != nil {
				t.Errorf("no line with %q in %q: %v", word, read.String(), err)
				close(found)
				return
			}
		}
	}()
	select {
	case rest, ok := <-found:
		if !ok {
			t.FailNow()
		}
		return rest
	case <-time.After(watchdog):
		t.Fatalf("no line with %q for %s", word, watchdog)
		return ""
	}
}

// started starts a command, and gives what it writes to stdout.
func started(t testing.TB, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(out)
}

func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// gone waits for a process to end.
func gone(t testing.TB, pid string) {
	t.Helper()
	for end := time.Now().Add(watchdog); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !alive(pid) {
			return
		}
	}
	n, _ := strconv.Atoi(pid)
	_ = syscall.Kill(n, syscall.SIGKILL)
	t.Errorf("process %s was left behind", pid)
}

// TestSignalsReachTheScript that are sent to cc-ci-run's process.
func TestSignalsReachTheScript(t *testing.T) {
	for _, mode := range []string{"plain", "--pty", "audit"} {
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
			t.Run(mode+" "+s.String(), func(t *testing.T) {
				args := []string{"--no-record", script(t, catcher)}
				if mode != "plain" {
					args = append([]string{mode}, args...)
				}
				cmd := command(t, args...)
				r := started(t, cmd)
				pid := await(t, r, "ready")
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				rest, _ := io.ReadAll(r)
				if heard := fmt.Sprintf("caught %d", s); !strings.Contains(string(rest), heard) {
					t.Errorf("script wrote %q, want %q", rest, heard)
				}
				_ = cmd.Wait()
				if got, want := statusOf(cmd.ProcessState), 40+int(s); got != want {
					t.Errorf("exit status %d, want %d", got, want)
				}
				gone(t, pid)
			})
		}
	}
}

// TestExitStatus: every status and every deadly signal comes out as it went
// in; where cc-ci-run stays as the parent, a signal comes out as 128+N.
func TestExitStatus(t *testing.T) {
	for _, mode := range []string{"plain", "--pty"} {
		run := func(code string) *os.ProcessState {
			args := []string{"exec", "--no-record"}
			if mode == "--pty" {
				args = append(args, mode)
			}
			cmd := command(t, append(args, "sh", "-c", code)...)
			_ = cmd.Run()
			return cmd.ProcessState
		}
		t.Run(mode, func(t *testing.T) {
			for n := range 256 {
				if got := run(fmt.Sprintf("exit %d", n)); got.ExitCode() != n {
					t.Errorf("exit %d comes out as %v", n, got)
				}
			}
			for n := syscall.Signal(1); n <= 64; n++ {
				switch n {
				case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG, syscall.SIGWINCH, 32, 33:
					continue // not deadly; 32 and 33 are glibc's own
				}
				// bash ignores SIGQUIT; perl doesn't, but ignores SIGFPE.
				code := fmt.Sprintf("kill -%d $$", n)
				if n == syscall.SIGQUIT {
					code = "exec perl -e 'kill 3, $$'"
				}
				got := run(code)
				w := got.Sys().(syscall.WaitStatus)
				if mode == "plain" && (!w.Signaled() || w.Signal() != n) {
					t.Errorf("signal %d comes out as %v", n, got)
				}
				if mode == "--pty" && got.ExitCode() != 128+int(n) {
					t.Errorf("signal %d comes out as %v, want exit status %d", n, got, 128+n)
				}
			}
		})
	}
}

// terminal is cc-ci-run --pty run by somebody at a terminal.
type terminal struct {
	*exec.Cmd
	screen *os.File
	r      *bufio.Reader
}

func onTerminal(t testing.TB, args ...string) terminal {
	t.Helper()
	cmd := command(t, args...)
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return terminal{cmd, screen, bufio.NewReader(screen)}
}

func (c terminal) press(t testing.TB, keys string) {
	t.Helper()
	if _, err := c.screen.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// Ctrl-C and Ctrl-Z are typed into the script's own terminal, as with ssh -t: a script
// that handles their signals gets them; cc-ci-run itself goes on.
func TestTerminalControlKeys(t *testing.T) {
	for key, s := range map[string]syscall.Signal{"\x03": syscall.SIGINT, "\x1a": syscall.SIGTSTP} {
		c := onTerminal(t, "--pty", "--no-record", script(t, catcher))
		pid := await(t, c.r, "ready")
		c.press(t, key)
		if got := await(t, c.r, "caught"); got != strconv.Itoa(int(s)) {
			t.Errorf("caught %s, want %s", got, s)
		}
		_ = c.Wait()
		if got, want := statusOf(c.ProcessState), 40+int(s); got != want {
			t.Errorf("%s: exit status %d, want %d", s, got, want)
		}
		gone(t, pid)
	}
}

// Within a shell on that terminal job control works.
func TestTerminalJobControl(t *testing.T) {
	c := onTerminal(t, "exec", "--pty", "--no-record", "bash", "--norc", "-i")
	// await passes over the line that bash echoes, because "echo" is in that line. The line
	// with "began" comes from the command.
	c.press(t, `sh -c 'printf "began 1\n"; exec sleep 3000'; echo status $?`+"\n")
	await(t, c.r, "began")
	c.press(t, "\x1a")
	if got := await(t, c.r, "status"); got != "148" { // 128 + SIGTSTP
		t.Errorf("status %s, want 148", got)
	}
	c.press(t, "kill -9 %1; disown -a; exit 3\n")
	go func() { _, _ = io.Copy(io.Discard, c.r) }()
	_ = c.Wait()
	if got := statusOf(c.ProcessState); got != 3 {
		t.Errorf("exit status %d, want 3", got)
	}
}

// When the caller's terminal closes, the script is hung up on and nothing
// stays behind: neither what handles SIGHUP nor what doesn't.
func TestTerminalCloses(t *testing.T) {
	for name, code := range map[string]string{
		"handles SIGHUP": catcher,
		"does not":       "import os, time\nos.write(1, b'ready %d\\n' % os.getpid())\ntime.sleep(30)\n",
		"writes on":      "import os, time\nos.write(1, b'ready %d\\n' % os.getpid())\nwhile True: os.write(1, b'x' * 100); time.sleep(0.01)\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := onTerminal(t, "--pty", "--no-record", script(t, code))
			pid := await(t, c.r, "ready")
			c.screen.Close()
			gone(t, pid)
			gone(t, strconv.Itoa(c.Process.Pid))
		})
	}
}

// Nothing stays behind either when cc-ci-run is killed outright.
func TestParentKilled(t *testing.T) {
	c := onTerminal(t, "--pty", "--no-record", script(t, "import os, time\nos.write(1, b'ready %d\\n' % os.getpid())\ntime.sleep(30)\n"))
	pid := await(t, c.r, "ready")
	_ = c.Process.Kill()
	gone(t, pid)
}

// The script's terminal has the size of the caller's, also after a resize.
func TestTerminalSize(t *testing.T) {
	c := onTerminal(t, "--pty", "--no-record", script(t, `
import os, signal
def size(*_):
    print("size", *os.get_terminal_size(), flush=True)
signal.signal(signal.SIGWINCH, size)
size()
signal.pause()
signal.pause()
`))
	if got := await(t, c.r, "size"); got != "77 33" {
		t.Errorf("size %s at the start, want 77 33", got)
	}
	time.Sleep(100 * time.Millisecond)
	if err := pty.Setsize(c.screen, &pty.Winsize{Rows: 11, Cols: 44}); err != nil {
		t.Fatal(err)
	}
	if got := await(t, c.r, "size"); got != "44 11" {
		t.Errorf("size %s after the resize, want 44 11", got)
	}
}

// The caller's terminal is as it was afterwards, however the script ended.
func TestTerminalIsRestored(t *testing.T) {
	for _, end := range []string{"exit 0", "stty -echo raw; exit 1", "kill -9 $$"} {
		c := onTerminal(t, "exec", "--pty", "bash", "-c", "read; "+end) // and so waits until its terminal is open here
		state := exec.Command("/usr/bin/stty", "-g")
		slave, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/0", c.Process.Pid), os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.press(t, "\n")
		go func() { _, _ = io.Copy(io.Discard, c.r) }()
		_ = c.Wait()
		state.Stdin = slave
		out, err := state.Output()
		slave.Close()
		if err != nil {
			t.Fatal(err)
		}
		fresh, tty, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		state = exec.Command("/usr/bin/stty", "-g")
		state.Stdin = tty
		want, _ := state.Output()
		fresh.Close()
		tty.Close()
		if !bytes.Equal(out, want) {
			t.Errorf("after %q: settings %s, want %s", end, out, want)
		}
	}
}

// Without a terminal, --pty does what `script -qec` does: the program has
// one, its status comes out, input is not echoed, and its end is an
// end-of-file; what it wrote last is not lost.
func TestPtyWithoutTerminal(t *testing.T) {
	for _, row := range []struct{ name, input, code, want string }{
		{"stdin is /dev/null", "", `test -t 0 -a -t 1 -a -t 2 && echo yes; read x || echo eof`, "yes\r\neof\r\n"},
		{"lines", "a\nb\n", `cat; echo end`, "a\r\nb\r\nend\r\n"},
		{"a last line without newline", "a\nb", `cat; echo end`, "a\r\nb" + "end\r\n"},
		{"much output at the end", "", `seq 100000 | tail -c 65536; echo end`, ""},
		// It ignores the hangup; that it still is there shows that nobody waited for it.
		{"a daemon holds the terminal", "", `trap "" HUP; sh -c 'echo $$ >"$0"; exec sleep 1000' "$0" >/dev/null 2>&1 </dev/tty & until [ -s "$0" ]; do :; done; echo end`, "end\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			daemon := filepath.Join(t.TempDir(), "pid")
			cmd := command(t, "exec", "--pty", "--no-record", "bash", "-c", row.code, daemon)
			cmd.Stdin = strings.NewReader(row.input)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			text := string(out) // messages of cc-ci-run are not in it
			if row.want == "" {
				if len(text) < 65536 || !strings.HasSuffix(text, "end\r\n") {
					t.Errorf("lost output: %d bytes, ending %q", len(text), text[max(0, len(text)-20):])
				}
			} else if text != row.want {
				t.Errorf("%q, want %q", text, row.want)
			}
			if pid, err := os.ReadFile(daemon); err == nil {
				pid := strings.TrimSpace(string(pid))
				if !alive(pid) {
					t.Error("waited for the daemon")
				}
				_ = exec.Command("kill", "-9", pid).Run()
			}
		})
	}
}

// What a program leaves behind, and that writes to the terminal, does not hold --pty
// up, nor take the program's own last output from its reader.
func TestPtyLeftBehind(t *testing.T) {
	for name, code := range map[string]string{
		"writes now and then":                `(while echo x; do sleep 0.03; done) & echo end`,
		"writes all the time":                `yes & echo end`,
		"writes by several":                  `for i in 1 2 3 4; do (while echo x; do sleep 0.0$i; done) & done; echo end`,
		"writes in a session of its own":     `setsid sh -c 'while echo x; do sleep 0.03; done' & echo end`,
		"writes without newlines":            `(while printf x; do sleep 0.03; done) & echo end`,
		"writes after much of the program's": `(while echo x; do sleep 0.03; done) & seq 10000 | tail -c 32768; echo end`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := command(t, "exec", "--pty", "--no-record", "bash", "-c", `trap "" HUP; `+code+"; exit 7")
			var out bytes.Buffer
			cmd.Stdout = &out
			end := time.AfterFunc(watchdog, func() { _ = cmd.Process.Kill() })
			defer end.Stop()
			if err := cmd.Run(); statusOf(cmd.ProcessState) != 7 {
				t.Errorf("%v, exit status %d, want 7", err, statusOf(cmd.ProcessState))
			}
			if !strings.Contains(out.String(), "end\r\n") {
				t.Errorf("lost output: %d bytes", out.Len())
			}
		})
	}
}

// A program has ended, and nobody reads its output: a signal ends --pty, with the
// program's status.
func TestPtyUnread(t *testing.T) {
	// The output is more than the pipe holds, and less than the terminal holds, which is 8 KiB
	// at least: so the program ends, and cc-ci-run cannot write what is left.
	cmd := command(t, "exec", "--pty", "--no-record", "bash", "-c", `trap "" TERM; echo ready; head -c 8000 /dev/zero; exit 7`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if size, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil || size >= 8000 {
		t.Skipf("a pipe of %d bytes, %v: this kernel has no pipe that is small enough", size, err)
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("ready\r\n"))); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	giveUp := time.After(watchdog)
	for {
		_ = cmd.Process.Signal(syscall.SIGTERM) // while the program runs, it ignores the signal
		select {
		case <-over:
			if got := statusOf(cmd.ProcessState); got != 7 {
				t.Errorf("exit status %d, want 7", got)
			}
			return
		case <-giveUp:
			_ = cmd.Process.Kill()
			t.Fatalf("still there after %s", watchdog)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Ctrl-C at a terminal that is not the program's stdin ends its whole job, as
// it would without --pty.
func TestPtyInterruptedFromOutside(t *testing.T) {
	cmd := command(t, "exec", "--pty", "--no-record", "bash", "-c", "echo ready; sleep 30; echo after")
	r := started(t, cmd)
	if line, err := r.ReadString('\n'); line != "ready\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	time.Sleep(200 * time.Millisecond) // bash starts sleep
	_ = cmd.Process.Signal(syscall.SIGINT)
	rest, _ := io.ReadAll(r)
	_ = cmd.Wait()
	if strings.Contains(string(rest), "after") || statusOf(cmd.ProcessState) != 130 {
		t.Errorf("wrote %q, exit status %d, want 130", rest, statusOf(cmd.ProcessState))
	}
}

// A message that nobody reads does not stop a run.
func TestBrokenStderr(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	script := filepath.Join(t.TempDir(), "x.py")
	write(t, script, "raise SystemExit(7)", 0o644)
	// By the full program, and by the small one alone; with a record and where
	// none can be written.
	for _, args := range [][]string{{"exec", "sh", "-c", "exit 7"}, {script}, {script}, {"--state", "/dev/null/x", script}, {"--no-record", script}} {
		cmd := command(t, args...)
		cmd.Stderr = w
		_ = cmd.Run()
		if got := statusOf(cmd.ProcessState); got != 7 {
			t.Errorf("%q: exit status %d, want 7", args, got)
		}
	}
	// Its own exit statuses stay, too.
	for want, args := range map[int][]string{127: {"no.py"}, 126: {"/"}, 125: {"--nope", script}} {
		cmd := command(t, args...)
		cmd.Stderr = w
		_ = cmd.Run()
		if got := statusOf(cmd.ProcessState); got != want {
			t.Errorf("%q: exit status %d, want %d", args, got, want)
		}
	}
}

// A reader that goes away ends it, without an orphan.
func TestPtyBrokenPipe(t *testing.T) {
	cmd := command(t, "--pty", "--no-record", script(t, "import os, time\nos.write(1, b'ready %d\\n' % os.getpid())\nwhile True: os.write(1, b'x' * 100); time.sleep(0.01)\n"))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	pid := await(t, bufio.NewReader(r), "ready")
	r.Close()
	_ = cmd.Wait()
	gone(t, pid)
}
