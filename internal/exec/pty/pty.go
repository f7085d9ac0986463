// Package pty runs a program on a pseudo-terminal of its own, as script(1) and
// `ssh -t` do.
package pty

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	ccexec "cc-ci-run/internal/exec"
)

// forwarded are the signals that end or interrupt a program and so reach it
// through a parent that stays.
var forwarded = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

// drainLimit is how long the terminal's output may pause, once the program
// has ended, while something it left behind holds the terminal open.
const drainLimit = 100 * time.Millisecond

// Run runs the program at path on a pseudo-terminal of its own, as the leader
// of a new session, and gives its exit status (128+N after signal N). stdin
// and stdout are this process's; stderr of the program is the terminal too.
// The child inherits what [exec.Prepare] set up, which is why it comes first here
// as well.
//
// It behaves as `ssh -t` does: with a terminal on stdin, that one is put into
// raw mode and its settings and size are the new one's, also when it is
// resized; Ctrl-C and Ctrl-Z are typed into the new terminal, where its line
// discipline makes signals of them; when the caller's terminal goes away, the
// new one hangs up, so that nothing stays behind. Without a terminal it
// behaves as `script -qec` does: no echo, and an end-of-file on stdin is
// typed as Ctrl-D. Signals sent to this process reach the program.
func Run(path string, argv, environ []string, stdin, stdout *os.File) (status int, err error) {
	master, slave, err := openPty()
	if err != nil {
		return ccexec.StatusFailed, fmt.Errorf("pseudo-terminal: %w", err)
	}
	defer master.Close()
	outer := int(stdin.Fd())
	interactive := term.IsTerminal(outer)
	if err := dress(slave, stdin, interactive); err != nil {
		slave.Close()
		return ccexec.StatusFailed, fmt.Errorf("pseudo-terminal: %w", err)
	}

	// Before the program starts, so that no signal falls between. An ignored
	// SIGHUP is left ignored, for this process and for the program.
	signals := make(chan os.Signal, 16)
	for _, s := range forwarded {
		if s != unix.SIGHUP || !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	if interactive {
		signal.Notify(signals, unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT)
	}
	// A reader of stdout that goes away must not kill this process before it
	// has restored the terminal; the write fails instead.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	defer signal.Stop(signals)

	cmd := &exec.Cmd{
		Path: path, Args: argv, Env: environ, Stdin: slave, Stdout: slave, Stderr: slave,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		s := ccexec.Failed(path, errors.Unwrap(err))
		return s.Code, s.Err
	}

	cooked := func() {}
	raw := cooked
	if interactive {
		before, err := term.GetState(outer)
		if err == nil {
			cooked = func() { _ = term.Restore(outer, before) }
			raw = func() { _, _ = term.MakeRaw(outer) }
		}
	}
	raw()
	defer cooked()

	// The caller's terminal, or who read stdout, is gone: hang up, as a
	// closing ssh does. The kernel then sends SIGHUP to the new session.
	hangUp := func() { master.Close() }
	go func() {
		typeIn(master, stdin, interactive)
		if interactive { // a raw terminal ends only by going away
			hangUp()
		}
	}()
	output := make(chan struct{})
	go func() {
		defer close(output)
		if !show(stdout, master) {
			hangUp()
		}
	}()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its status is in ProcessState
		close(ended)
	}()

	for {
		select {
		case s := <-signals:
			switch s {
			case unix.SIGWINCH:
				_ = pty.InheritSize(stdin, master)
			case unix.SIGTSTP: // sent, not typed: Ctrl-Z goes to the program
				cooked()
				_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
			case unix.SIGCONT:
				raw()
				_ = pty.InheritSize(stdin, master)
			case unix.SIGINT, unix.SIGQUIT:
				// Most likely typed at the caller's terminal, where they go
				// to the whole foreground job: so here, too.
				if unix.IoctlSetInt(int(master.Fd()), unix.TIOCSIG, int(s.(syscall.Signal))) != nil {
					_ = cmd.Process.Signal(s)
				}
			default:
				_ = cmd.Process.Signal(s)
			}
		case <-ended:
			_ = master.SetReadDeadline(time.Now().Add(drainLimit))
			<-output
			return exitStatus(cmd.ProcessState), nil
		}
	}
}

// openPty opens a pseudo-terminal whose master has read deadlines. pty.Open's
// has none: its ioctls put the descriptor into blocking mode. A duplicate
// that is not, handed to os.NewFile, stays with the runtime's poller.
func openPty() (master, slave *os.File, err error) {
	blocking, slave, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer blocking.Close()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		slave.Close()
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), slave, nil
}

// dress gives a new terminal the settings and the size of the caller's, or
// those of one that nobody types at.
func dress(slave, stdin *os.File, interactive bool) error {
	fd := int(slave.Fd())
	if interactive {
		settings, err := unix.IoctlGetTermios(int(stdin.Fd()), unix.TCGETS)
		if err != nil {
			return err
		}
		_ = pty.InheritSize(stdin, slave)
		return unix.IoctlSetTermios(fd, unix.TCSETS, settings)
	}
	settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	settings.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, unix.TCSETS, settings)
}

// typeIn copies stdin to the terminal. At its end, where nobody sits at it,
// it types the end-of-file character: once more than needed to end a last
// line without a newline.
func typeIn(master, stdin *os.File, interactive bool) {
	buffer := make([]byte, 32<<10)
	last := byte('\n')
	for {
		n, err := stdin.Read(buffer)
		if n > 0 {
			last = buffer[n-1]
			if _, err := master.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	if interactive {
		return
	}
	const endOfFile = 0x04 // VEOF of a new terminal, Ctrl-D
	if last != '\n' {
		_, _ = master.Write([]byte{endOfFile})
	}
	_, _ = master.Write([]byte{endOfFile})
}

// show copies the terminal's output to stdout until its other side is closed
// by all, or the deadline set after the program's end passes without a byte.
// It is false if stdout cannot be written.
func show(stdout io.Writer, master *os.File) bool {
	buffer := make([]byte, 32<<10)
	ending := false
	for {
		n, err := master.Read(buffer)
		if n > 0 {
			if _, err := stdout.Write(buffer[:n]); err != nil {
				return false
			}
			if ending {
				_ = master.SetReadDeadline(time.Now().Add(drainLimit))
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if !ending {
				ending = true
				_ = master.SetReadDeadline(time.Now().Add(drainLimit))
				continue
			}
			return true
		}
		if err != nil { // EIO: nobody has the other side open any more
			return true
		}
	}
}

// exitStatus is a program's status as a shell gives it.
func exitStatus(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return ccexec.StatusSignal + int(w.Signal())
	}
	return s.ExitCode()
}
