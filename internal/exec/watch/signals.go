package watch

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec"
)

// A parent that stays in the child's process group must hand on a signal that
// was sent to it alone, and must not hand on one that the terminal sent to
// both. Only the signal's origin tells which it is. Package os/signal does not
// give it, and a signalfd needs signals to be blocked, which Go's runtime does
// not let be. So there is a handler of a few instructions (signals_*.s): it
// writes the kernel's siginfo to a pipe.

// handlerPipe is the end that the handler writes to.
//
//lint:ignore U1000 signals_*.s reads it
var handlerPipe uintptr

func handlerAddresses() (handler, restorer uintptr)

const (
	saSiginfo  = 0x4
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
	saRestorer = 0x04000000 // amd64 only
)

// caught says whether a signal is caught: all but those that cannot be, the
// faults of a thread's own, those that Go's runtime and the C library keep for
// themselves, and those by which the terminal stops who may not use it.
func caught(s unix.Signal) bool {
	switch s {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS, unix.SIGSTKFLT,
		unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU, 32, 33:
		return false
	}
	return s <= exec.LastSignal
}

// catchSignals gives a descriptor from which the siginfo of each signal can be
// read that is caught, and a function that ends this. Nothing else in this
// process gets them meanwhile. An ignored SIGHUP stays ignored, as it does for
// the child.
func catchSignals() (signals int, end func(), err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, nil, err
	}
	handlerPipe = uintptr(pipe[1])
	_, _ = unix.FcntlInt(uintptr(pipe[1]), unix.F_SETPIPE_SZ, 1<<20) // of 8,192 signals
	// All are blocked in the handler: its frames would fill the signal stack.
	act := exec.SigAction{Flags: saSiginfo | saOnStack | saRestart, Mask: ^uint64(0)}
	if act.Handler, act.Restorer = handlerAddresses(); act.Restorer != 0 {
		act.Flags |= saRestorer
	}
	var before [exec.LastSignal + 1]exec.SigAction
	var changed []unix.Signal
	for s := unix.Signal(1); s <= exec.LastSignal; s++ {
		if !caught(s) || exec.SetSigAction(s, nil, &before[s]) != nil || s == unix.SIGHUP && before[s].Handler == exec.SigIgnore {
			continue
		}
		if err := exec.SetSigAction(s, &act, nil); err != nil {
			return -1, nil, fmt.Errorf("signal %d: %w", s, err)
		}
		changed = append(changed, s)
	}
	// The caller may have had some blocked. It is enough that this thread has not.
	var none unix.Sigset_t
	return pipe[0], func() {
		for _, s := range changed {
			_ = exec.SetSigAction(s, &before[s], nil)
		}
	}, unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
}

// siginfo is what is read of the kernel's siginfo_t, 128 bytes.
type siginfo struct {
	signo int32
	_     int32 // errno
	code  int32
	_     int32
	pid   int32 // who sent it, if code says that somebody did
	_     [128 - 20]byte
}

// handOn hands on the signals that have come.
func (a *watch) handOn() {
	var info siginfo
	buffer := (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))[:]
	for {
		n, err := unix.Read(a.signals, buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != len(buffer) {
			return
		}
		switch s := unix.Signal(info.signo); s {
		case unix.SIGCHLD: // see wait
		case unix.SIGCONT:
			if a.stopped { // only we were continued
				a.stopped = false
				_ = unix.Kill(a.child, unix.SIGCONT)
			}
		case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGHUP, unix.SIGWINCH:
			// What the kernel sent, as the terminal does, the child has got, too;
			// so has it what one of its own sent to their group. SI_USER is 0;
			// less are sigqueue, tkill and timers.
			if info.code <= 0 && !a.ours(int(info.pid)) {
				_ = unix.Kill(a.child, s)
			}
		default: // an alarm of the caller's, among others
			if info.code > 0 || !a.ours(int(info.pid)) {
				_ = unix.Kill(a.child, s)
			}
		}
	}
}

// ours says whether a process is the child or descends from it.
func (a *watch) ours(pid int) bool {
	for pid > 1 && pid != a.child {
		_, pid = family(pid)
	}
	return pid == a.child
}

// wait looks whether the child has ended. If it was stopped and there is a
// terminal, then so is this process, for the shell that waits for it.
func (a *watch) wait() (end unix.WaitStatus, ended bool) {
	for {
		pid, err := unix.Wait4(a.child, &end, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid == 0:
			return end, false
		case end.Continued():
			a.stopped = false
		case !end.Stopped():
			return end, true
		default:
			a.stopped = true
			if terminal, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
				unix.Close(terminal)
				_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
			}
		}
	}
}

// family gives a thread's process, and that one's parent; 0 if it is gone.
func family(tid int) (process, parent int) {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "Tgid":
			process, _ = strconv.Atoi(strings.TrimSpace(value))
		case "PPid":
			parent, _ = strconv.Atoi(strings.TrimSpace(value))
			return process, parent
		}
	}
	return 0, 0
}
