// Package exec starts the child of cc-ci-run, and is the only place in it
// with raw system calls. There are two ways:
//
//	exec.Prepare(process)              // umask, limits, signals, descriptors
//	exec.Replace(path, argv, environ)  // this process becomes the child
//
// is what every run does: no parent stays, so signals, exit status and
// terminal are the child's own. [Pty] is the other: it starts a program on a
// pseudo-terminal of its own and stays as its parent, as script(1) does.
//
// Process state drifts between invokers as variables do: systemd starts
// units with SIGPIPE ignored, a shell has its own umask and limits, a runner
// leaves descriptors open. Prepare gives every child the same. What it can
// not set (user, groups, capabilities, cgroup, …) [Capture] reads for the
// run record.
package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/env"
)

// Exit statuses of cc-ci-run itself, those of env(1), timeout(1) and
// `docker run`. Any other status is the child's.
const (
	StatusFailed        = 125 // cc-ci-run itself failed
	StatusNotExecutable = 126 // found, but not executable
	StatusNotFound      = 127
	StatusSignal        = 128 // plus N: killed by signal N, where cc-ci-run stays as the parent
)

// Status is an error with the exit status that it ends cc-ci-run with.
type Status struct {
	Code int
	Err  error
}

func (s Status) Error() string { return s.Err.Error() }
func (s Status) Unwrap() error { return s.Err }

// Prepare gives this process the state that the child starts with: the
// declared umask and limits, every signal unblocked and at its default, and
// no descriptor above 2 that survives execve. It binds the goroutine to its
// thread, since the signal mask is a thread's; the same goroutine calls
// [Replace].
//
// An ignored SIGHUP stays ignored, or nohup(1) would not work.
//
// Both limits of RLIMIT_NOFILE become the declared one, so that they are the
// same from anywhere. A process that may not raise its hard limit keeps that
// and gets the soft limit as high as it goes.
func Prepare(p env.Process) error {
	runtime.LockOSThread()
	unix.Umask(p.UmaskBits())

	// Through x/sys, which also tells the runtime to forget the soft limit
	// that it had at start and would restore at execve.
	want := unix.Rlimit{Cur: p.NoFile, Max: p.NoFile}
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want)
	if errors.Is(err, unix.EPERM) {
		var have unix.Rlimit
		if err = unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err == nil {
			have.Cur = min(p.NoFile, have.Max)
			err = unix.Setrlimit(unix.RLIMIT_NOFILE, &have)
		}
	}
	if err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return fmt.Errorf("limit of core files: %w", err)
	}
	core.Cur = min(p.Core, core.Max)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return fmt.Errorf("limit of core files: %w", err)
	}

	defaultSignals()
	// Unblocking comes last: a signal that was pending all along is
	// delivered now, and ends this process as it would have ended the child.
	var none unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return fmt.Errorf("signal mask: %w", err)
	}
	return closeOnExec()
}

// sigaction is the kernel's struct sigaction, the same on every 64-bit Linux
// that Go runs on (but for MIPS).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	sigDefault = 0  // SIG_DFL
	sigIgnore  = 1  // SIG_IGN
	signals    = 64 // _NSIG
)

// defaultSignals sets each ignored signal but SIGHUP to its default. Handlers
// need no care: execve resets those. Go's runtime has put its own in place of
// most ignored signals already, but leaves SIGHUP, SIGINT, the stop signals
// and 32 to 34 as they were. It is asked of the kernel, not of /proc, so that
// it works in a container without one.
func defaultSignals() {
	for n := uintptr(1); n <= signals; n++ {
		if n == uintptr(unix.SIGKILL) || n == uintptr(unix.SIGSTOP) || n == uintptr(unix.SIGHUP) {
			continue
		}
		var old sigaction
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0); e != 0 || old.handler != sigIgnore {
			continue
		}
		dfl := sigaction{handler: sigDefault}
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
	}
}

// closeOnExec marks every descriptor above 2. They are not closed here: Go's
// runtime may be using some.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Linux before 5.11.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for fd := 3; fd < int(limit.Max); fd++ {
		unix.CloseOnExec(fd)
	}
	return nil
}

// Replace makes this process the program at path. It returns only if that
// fails, with the [Status] to exit with. argv[0] is the program's name.
func Replace(path string, argv, environ []string) error {
	err := syscall.Exec(path, argv, environ)
	code := StatusNotExecutable
	if errors.Is(err, fs.ErrNotExist) {
		code = StatusNotFound
	}
	return Status{code, fmt.Errorf("%s: %w", path, err)}
}
