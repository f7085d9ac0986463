// Package exec starts the child of cc-ci-run, and is the only place in it
// with raw system calls:
//
//	exec.Prepare(process)              // umask, limits, signals, descriptors
//	exec.Replace(path, argv, environ)  // this process becomes the child
//
// is what every run does: no parent stays, so signals, exit status and
// terminal are the child's own. Package pty, in the place of Replace, starts
// the child on a pseudo-terminal of its own and stays as its parent, as
// script(1) does.
//
// Process state drifts between invokers as variables do: systemd starts
// units with SIGPIPE ignored, a shell has its own umask and limits, a runner
// leaves descriptors open. Prepare gives every child the same. What it can
// not set (user, groups, capabilities, cgroup, …) [Capture] reads for the
// run record.
package exec

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"

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

// Wrap is fmt.Errorf("%s: %w", what, err), without reflection in what each run
// does.
func Wrap(what string, err error) error { return wrapped{what, err} }

type wrapped struct {
	what string
	err  error
}

func (w wrapped) Error() string { return w.what + ": " + w.err.Error() }
func (w wrapped) Unwrap() error { return w.err }

// Prepare gives this process the state that the child starts with: the
// declared umask and limits, no new privileges if so declared, every signal
// unblocked and at its default, no timer, none of the other attributes that
// a caller left and every process may reset, and no descriptor above 2 that
// survives execve. It binds the goroutine to its
// thread, since the signal mask is a thread's; the same goroutine calls
// [Replace] or starts the child.
//
// An ignored SIGHUP stays ignored, or nohup(1) would not work.
//
// Of each declared limit both the soft and the hard one are set, so that they
// are the same from anywhere. A process that may not raise its hard limit
// keeps that, and gets the soft limit as high as it goes. Of other limits the soft
// one is raised, see least.
func Prepare(p env.Process) error {
	umask, err := p.UmaskBits()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	unix.Umask(umask)
	// Before the limits: a descriptor may be above the new one.
	if err := closeOnExec(); err != nil {
		return Wrap("open descriptors", err)
	}
	if err := setLimit(unix.RLIMIT_NOFILE, p.NoFile); err != nil {
		return Wrap("limit of open files", err)
	}
	if err := setLimit(unix.RLIMIT_CORE, p.Core); err != nil {
		return Wrap("limit of core files", err)
	}
	raiseLimits()
	// A thread's, too; execve keeps it.
	if p.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return Wrap("no new privileges", err)
		}
	}
	resetInherited()
	defaultSignals()
	// A signal that was pending all along is delivered now, to Go's runtime:
	// SIGTERM, SIGINT, SIGHUP and SIGQUIT end this process, as they would have
	// ended the child; of others there is no trace.
	var none unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return Wrap("signal mask", err)
	}
	return nil
}

// setLimit goes through x/sys, which also tells Go's runtime to forget the
// soft limit of open files that it found at start, and would restore.
func setLimit(resource int, value uint64) error {
	err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value})
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	var have unix.Rlimit
	if err := unix.Getrlimit(resource, &have); err != nil {
		return err
	}
	have.Cur = min(value, have.Max)
	return unix.Setrlimit(resource, &have)
}

// closeOnExec marks every descriptor above 2. They are not closed here: Go's
// runtime may be using some.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Linux before 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return err
}

// Replace makes this process the program at path. It returns only if that
// fails, with the [Status] to exit with. argv[0] is the program's name.
func Replace(path string, argv, environ []string) error {
	return Failed(path, syscall.Exec(path, argv, environ))
}

// Failed is the Status for a program that could not be started.
func Failed(path string, err error) Status {
	code := StatusNotExecutable
	if errors.Is(err, fs.ErrNotExist) {
		code = StatusNotFound
	}
	return Status{code, Wrap(path, err)}
}

// Readable says why this process may not read a file, as its effective user.
func Readable(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, unix.AT_EACCESS)
}
