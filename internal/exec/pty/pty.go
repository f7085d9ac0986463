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

// Once the program has ended, something that it left behind may hold the terminal
// open, and may write to it now and then, or all the time. What the program itself
// wrote is then in the terminal, which holds less than drainBytes (640 KiB, in the
// kernel's tty_buffer.c), and is there to read without waiting. So the output ends
// when it pauses for drainPause, or has been waited for, all in all, for drainWait, or
// was longer than drainBytes.
const (
	drainPause = 100 * time.Millisecond
	drainWait  = time.Second
	drainBytes = 1 << 20
)

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
	interactive := term.IsTerminal(int(stdin.Fd()))
	master, slave, err := open(stdin, interactive)
	if err != nil {
		return ccexec.StatusFailed, fmt.Errorf("pseudo-terminal: %w", err)
	}
	defer master.Close()
	signals := catch(interactive) // before the program starts, so that no signal falls between
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
	r := relay{callerOf(stdin, interactive), master, cmd.Process}
	r.raw()
	defer r.cooked()
	output := r.connect(stdout, interactive)
	ended := inBackground(func() { _ = cmd.Wait() }) // its status is in ProcessState
	for {
		select {
		case s := <-signals:
			r.handOn(s)
			continue
		case <-ended:
		}
		_ = master.SetReadDeadline(time.Now().Add(drainPause))
		// The reader of stdout may take its time; who does not want to wait for it
		// sends a signal.
		for waiting := true; waiting; {
			select {
			case s := <-signals:
				waiting = s == unix.SIGWINCH || s == unix.SIGTSTP || s == unix.SIGCONT
				if waiting {
					r.handOn(s)
				}
			case <-output:
				waiting = false
			}
		}
		return ccexec.EndStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
	}
}

// catch has this process told of the signals that it hands on or, at a terminal,
// that it acts on. An ignored SIGHUP is left ignored, for this process and for the
// program.
func catch(interactive bool) chan os.Signal {
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
	return signals
}

// inBackground does something in a goroutine. The channel is closed at its end.
func inBackground(do func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	return done
}

// caller is the terminal that this process was called from, on its stdin.
type caller struct {
	stdin  *os.File
	before *term.State // its settings; nil if there is no terminal
}

func callerOf(stdin *os.File, interactive bool) caller {
	if !interactive {
		return caller{stdin, nil}
	}
	before, _ := term.GetState(int(stdin.Fd())) // nil: then it stays as it is
	return caller{stdin, before}
}

// raw has the caller's terminal hand on what is typed, key by key.
func (c caller) raw() {
	if c.before != nil {
		_, _ = term.MakeRaw(int(c.stdin.Fd()))
	}
}

// cooked gives the caller's terminal its settings back.
func (c caller) cooked() {
	if c.before != nil {
		_ = term.Restore(int(c.stdin.Fd()), c.before)
	}
}

// relay is between the caller and a program on a pseudo-terminal.
type relay struct {
	caller
	master  *os.File // the pseudo-terminal's side that is this process's
	program *os.Process
}

// connect copies what is typed to the pseudo-terminal, and what is shown there to
// stdout. The channel is closed when all is shown. When the caller's terminal, or who
// read stdout, is gone, the pseudo-terminal hangs up, as when ssh closes: the kernel
// then sends SIGHUP to the new session.
func (r relay) connect(stdout io.Writer, interactive bool) (output <-chan struct{}) {
	go func() {
		typeIn(r.master, r.stdin, interactive)
		if interactive { // a raw terminal ends only by going away
			r.master.Close()
		}
	}()
	return inBackground(func() {
		if !show(stdout, r.master) {
			r.master.Close()
		}
	})
}

// handOn does what a signal to this process asks for, or has the program do it.
func (r relay) handOn(s os.Signal) {
	switch s {
	case unix.SIGWINCH:
		_ = pty.InheritSize(r.stdin, r.master)
	case unix.SIGTSTP: // sent, not typed: Ctrl-Z goes to the program
		r.cooked()
		_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
	case unix.SIGCONT:
		r.raw()
		_ = pty.InheritSize(r.stdin, r.master)
	case unix.SIGINT, unix.SIGQUIT:
		// Most likely typed at the caller's terminal, where they go
		// to the whole foreground job: so here, too.
		if unix.IoctlSetInt(int(r.master.Fd()), unix.TIOCSIG, int(s.(syscall.Signal))) != nil {
			_ = r.program.Signal(s)
		}
	default:
		_ = r.program.Signal(s)
	}
}

// open opens a pseudo-terminal with the settings and the size of the caller's, or
// those of one that nobody types at.
func open(stdin *os.File, interactive bool) (master, slave *os.File, err error) {
	if master, slave, err = openPty(); err != nil {
		return nil, nil, err
	}
	if err := dress(slave, stdin, interactive); err != nil {
		master.Close()
		slave.Close()
		return nil, nil, err
	}
	return master, slave, nil
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
// by all, or the program has ended and all that it wrote is shown. That it has ended
// show learns by the end of a deadline. It is false if stdout cannot be written.
func show(stdout io.Writer, master *os.File) bool {
	buffer := make([]byte, 32<<10)
	ending := false
	wait, bytes := drainWait, drainBytes // what is left of them
	for {
		begin := time.Now()
		n, err := master.Read(buffer)
		waited := time.Since(begin)
		if n > 0 {
			if _, err := stdout.Write(buffer[:n]); err != nil {
				return false
			}
		}
		late := errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case err != nil && !late: // EIO: nobody has the other side open any more
			return true
		case late && ending:
			return true
		case ending:
			wait, bytes = wait-waited, bytes-n
			if wait <= 0 || bytes <= 0 {
				return true
			}
		case late:
			ending = true
		default:
			continue
		}
		_ = master.SetReadDeadline(time.Now().Add(min(drainPause, wait)))
	}
}
