package watch

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
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

// sigaction is the kernel's struct sigaction, the same on every 64-bit Linux
// that Go runs on (but for MIPS).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	sigIgnore  = 1  // SIG_IGN
	lastSignal = 64 // _NSIG

	saSiginfo  = 0x4
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
	saRestorer = 0x04000000 // amd64 only
)

// caught says whether a signal is caught: all but those that can not be, the
// faults of a thread's own, those that Go's runtime and the C library keep for
// themselves, and those by which the terminal stops who may not use it.
func caught(s unix.Signal) bool {
	switch s {
	case unix.SIGKILL, unix.SIGSTOP, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS, unix.SIGSTKFLT,
		unix.SIGURG, unix.SIGPROF, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU, 32, 33:
		return false
	}
	return s <= lastSignal
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
	act := sigaction{flags: saSiginfo | saOnStack | saRestart}
	if act.handler, act.restorer = handlerAddresses(); act.restorer != 0 {
		act.flags |= saRestorer
	}
	var before [lastSignal + 1]sigaction
	var changed []unix.Signal
	for s := unix.Signal(1); s <= lastSignal; s++ {
		if !caught(s) || setAction(s, nil, &before[s]) != nil || s == unix.SIGHUP && before[s].handler == sigIgnore {
			continue
		}
		if err := setAction(s, &act, nil); err != nil {
			return -1, nil, fmt.Errorf("signal %d: %w", s, err)
		}
		changed = append(changed, s)
	}
	// The caller may have had some blocked. It is enough that this thread has not.
	var none unix.Sigset_t
	return pipe[0], func() {
		for _, s := range changed {
			_ = setAction(s, &before[s], nil)
		}
	}, unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
}

func setAction(s unix.Signal, to, from *sigaction) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(from)), 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
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

// signal handles what has come: it hands signals on, and looks after the
// child. ended says that it is no more.
func (a *watch) signal() (end unix.WaitStatus, ended bool) {
	var info siginfo
	buffer := (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))[:]
	for {
		n, err := unix.Read(a.signals, buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n != len(buffer) {
			return end, false
		}
		switch s := unix.Signal(info.signo); {
		case s == unix.SIGCHLD:
			if end, ended = a.wait(); ended {
				return end, true
			}
		case s == unix.SIGCONT: // it has done its work on us by now
		case info.code <= 0 && !a.ours(int(info.pid)):
			// SI_USER; less are sigqueue, tkill and timers. What the kernel sent
			// (a terminal's Ctrl-C, its size, its end) the child has got, too; so
			// has it what one of its own sent to their group.
			_ = unix.Kill(a.child, s)
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
		pid, err := unix.Wait4(a.child, &end, unix.WNOHANG|unix.WUNTRACED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			return end, false
		}
		if !end.Stopped() {
			return end, true
		}
		if terminal, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(terminal)
			_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
			// Whoever continued us has most likely continued our group.
			_ = unix.Kill(a.child, unix.SIGCONT)
		}
	}
}
