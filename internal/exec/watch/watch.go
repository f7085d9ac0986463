// Package watch lets one process see what a tree of others executes. The
// kernel stops each call to execute a file and shows it (seccomp's user
// notification, seccomp_unotify(2)); all other calls go at full speed.
//
//	// in the process that becomes the script, after exec.Prepare:
//	err := watch.Enter(watch.Descriptor, true, hello)
//	// in its parent, which started it so:
//	status, hello, err := watch.Run(path, argv, environ, rest, watcher)
//
// Nothing is decided here: each call goes on as if nobody had looked. It also
// means that what was seen is what the process said at that moment; one of its
// threads may change the path before the kernel reads it again. To forbid is
// the seal's.
package watch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/exec/seccomp"
)

// Call is one call of an audited process: to execute a file, or to look
// whether one is there.
type Call struct {
	Execute bool          `json:"execute"` // or it only looks
	At      time.Duration `json:"at"`      // since the start, in nanoseconds
	PID     int           `json:"pid"`     // the thread that called
	Program string        `json:"program"` // the file that it runs; "" if it is gone
	// Path is as the process gave it; Unreadable if this process may not look
	// at that one.
	Path       string `json:"path"`
	Unreadable bool   `json:"unreadable,omitempty"`
	Target            // of a call to execute
}

// Watcher is who is told of calls.
type Watcher struct {
	// Interesting says whether a look at this absolute path is to be told.
	Interesting func(path []byte) bool
	// Known gives the target of a path that need not be looked at each time.
	Known func(path []byte) (Target, bool)
	// See is told of one call, in the order in which they were made. The
	// process is under way again by then.
	See func(Call)
}

// Descriptor is the descriptor on which the audited process reaches who
// audits it.
const Descriptor = 3

// ErrNested says that somebody else listens to this process's calls already.
// The kernel allows one listener for a process.
var ErrNested = errors.New("audit: this run is part of an audited one already, whose report has all that it executes: leave out audit here")

// Enter puts this thread, which then becomes the script or starts it, under
// the audit of the process at the other end of socket: from here on each
// execve and execveat of it and its descendants waits until that process has
// seen it, and with lookups each look for a file too (see lookupCalls). hello
// is for that process.
func Enter(socket int, lookups bool, hello []byte) error {
	calls := execCalls
	if lookups {
		calls = slices.Clone(execCalls)
		calls[0].Calls = slices.Concat(calls[0].Calls, lookupCalls)
	}
	filter := seccomp.Compile(calls, unix.SECCOMP_RET_USER_NOTIF)
	// WAIT_KILLABLE_RECV (Linux 5.19): a signal does not interrupt a call that
	// is being looked at, which would then be made, and seen, again.
	listener, err := seccomp.Install(filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if err == unix.EINVAL {
		listener, err = seccomp.Install(filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	switch err {
	case nil:
	case unix.EBUSY:
		return ErrNested
	default:
		return fmt.Errorf("audit: seccomp: %w: it needs Linux 5.5 with CONFIG_SECCOMP_FILTER", err)
	}
	err = unix.Sendmsg(socket, hello, unix.UnixRights(listener), nil, 0)
	// Not left open: if the other process died, this one would wait for itself.
	unix.Close(listener)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// notification and response are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// watch is the parent of an audited run.
type watch struct {
	Watcher
	start    time.Time
	child    int
	socket   int // until the greeting
	listener int // after it
	signals  int
	stopped  bool // the child is, by a signal
	hello    []byte
	buffer   *[unix.PathMax]byte
	reading  atomic.Pointer[reading] // nil between two readings
	stuck    atomic.Int32            // readings that were given up, and have not ended
}

// reading is a look into the memory of a process. It may never end: the page may be
// one that nobody fills (userfaultfd(2)), or that a file system has which waits for
// this process (FUSE), and no call reads another's memory with a time limit.
type reading struct {
	call Call
	id   uint64 // of the notification
}

// maxStuck bounds the threads that wait in readings which were given up. What is
// called after that is let go on unread.
const maxStuck = 64

var (
	// errStuck says that memory is not read any more, see maxStuck.
	errStuck = errors.New("too much memory that cannot be read")
	// errGivenUp says that a reading has ended that was given up: another goroutine
	// serves now.
	errGivenUp = errors.New("given up")
)

// Run starts the program at path, which calls [Enter] on its descriptor
// [Descriptor] before it becomes the script, and stays as its parent: it
// tells w of each call, hands signals on, and gives the exit status (128+N
// after signal N) and the greeting. The greeting is nil if the program ended
// before it was under audit. It is called once in a process's life.
//
// The process group, session and terminal stay the caller's. Of descriptors
// 0, 1 and 2 this process keeps the last only. What outlives
// the script runs on, unseen: rest is called then, a program with its arguments,
// whose descriptor Descriptor is the listener, see [Rest].
func Run(path string, argv, environ, rest []string, w Watcher) (status int, hello []byte, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return exec.StatusFailed, nil, fmt.Errorf("audit: %w", err)
	}
	a := &watch{Watcher: w, start: time.Now(), socket: pair[0], listener: -1}
	var endCatching func()
	if a.signals, endCatching, err = catchSignals(); err != nil {
		return exec.StatusFailed, nil, fmt.Errorf("audit: %w", err)
	}
	defer endCatching()
	a.child, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: environ, Files: []uintptr{0, 1, 2, uintptr(pair[1])}})
	unix.Close(pair[1])
	if err != nil {
		s := exec.Failed(path, err)
		return s.Code, nil, s.Err
	}
	// Whoever waits for the end of what the script reads or writes must not wait
	// for this process.
	if null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Dup3(null, 0, 0), unix.Dup3(null, 1, 0)
		unix.Close(null)
	}
	end, err := a.serveInTime()
	if err != nil {
		return exec.StatusFailed, a.hello, fmt.Errorf("audit: %w", err)
	}
	if a.listener >= 0 {
		a.leave(rest)
	}
	return exec.EndStatus(syscall.WaitStatus(end)), a.hello, nil
}

// serveInTime is serve, but no reading holds it up for longer than lookLimit: then
// the call goes on unread, and another goroutine serves. The one that reads is left to
// itself.
func (a *watch) serveInTime() (end unix.WaitStatus, err error) {
	done := make(chan struct{})
	serve := func() {
		a.buffer = new([unix.PathMax]byte) // the old one may be written to at any time
		go func() {
			e, why := a.serve()
			if why == errGivenUp {
				a.stuck.Add(-1)
				return
			}
			end, err = e, why
			close(done)
		}()
	}
	serve()
	ticks := time.NewTicker(lookLimit / 4)
	defer ticks.Stop()
	for {
		select {
		case <-done:
			return end, err
		case <-ticks.C:
		}
		r := a.reading.Load()
		if r == nil || a.since()-r.call.At < lookLimit {
			continue
		}
		a.stuck.Add(1)
		if !a.reading.CompareAndSwap(r, nil) { // it has just ended
			a.stuck.Add(-1)
			continue
		}
		if err := release(a.listener, r.id); err != nil {
			return 0, err
		}
		if r.call.Execute {
			r.call.Unreadable = true
			r.call.Program, _ = os.Readlink("/proc/" + strconv.Itoa(r.call.PID) + "/exe")
			a.See(r.call)
		}
		serve()
	}
}

// serve handles what happens until the child has ended.
func (a *watch) serve() (unix.WaitStatus, error) {
	// SIGCHLD would do, if none were ever lost.
	child, err := unix.PidfdOpen(a.child, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(child)
	fds := make([]unix.PollFd, 4)
	for {
		for i, fd := range []int{a.listener, a.socket, a.signals, child} { // -1 is passed over
			fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		}
		if err := poll(fds); err == unix.EINTR {
			continue
		} else if err != nil {
			return 0, err
		}
		if fds[1].Revents != 0 {
			if err := a.hear(); err != nil {
				return 0, err
			}
		}
		if fds[0].Revents&unix.POLLIN != 0 {
			if err := a.answer(); err != nil {
				return 0, err
			}
		} else if fds[0].Revents != 0 { // nobody is left
			unix.Close(a.listener)
			a.listener = -1
		}
		if fds[2].Revents != 0 {
			a.handOn()
		}
		if fds[2].Revents != 0 || fds[3].Revents != 0 {
			if end, ended := a.wait(); ended {
				return end, a.hear() // what was told before it ended
			}
		}
	}
}

// poll waits for one of fds. First for a moment, raw: Go's scheduler, told
// that this thread waits, would give its turn to another each time, and wake a
// third to watch them, which is a third of what a call's way through here
// costs. No other goroutine is needed meanwhile.
func poll(fds []unix.PollFd) error {
	moment := unix.Timespec{Nsec: 2e6}
	n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&moment)), 0, 0, 0)
	if e != 0 {
		return e
	}
	if n > 0 {
		return nil
	}
	_, err := unix.Poll(fds, -1)
	return err
}

// hear takes what has come by the socket: the greeting, with the listener.
func (a *watch) hear() error {
	if a.socket < 0 {
		return nil
	}
	message, rights := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, oob, err := 0, 0, error(unix.EINTR)
	for err == unix.EINTR {
		n, oob, _, _, err = unix.Recvmsg(a.socket, message, rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	}
	if err == unix.EAGAIN {
		return nil
	}
	unix.Close(a.socket)
	a.socket = -1
	if err != nil || n == 0 { // the child ended before it was under audit
		return nil
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oob])
	if err == nil && len(messages) == 0 {
		err = errors.New("the greeting came without a listener")
	}
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	a.hello, a.listener = slices.Clone(message[:n]), fds[0]
	// Linux 6.6: wakes us on the caller's processor, as it waits for us anyway.
	_ = unix.IoctlSetInt(a.listener, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	return nil
}

func (a *watch) since() time.Duration { return time.Since(a.start) }

// answer takes one call, looks at it, and lets it go on.
func (a *watch) answer() error {
	var n notification
	call, interesting, err := a.receive(&n)
	if err != nil || n.id == 0 {
		return err
	}
	if err := release(a.listener, n.id); err != nil {
		return err
	}
	if interesting {
		a.See(call)
	}
	return nil
}

// receive takes one call and reads what it says. It is not interesting if the
// process was killed meanwhile: what was read may be another's.
func (a *watch) receive(n *notification) (call Call, interesting bool, err error) {
	e := ioctl(a.listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
	if e == unix.ENOENT { // killed before we came
		n.id = 0
		return call, false, nil
	}
	if e != 0 {
		return call, false, e
	}
	tid := int(n.pid)
	execute, at := shape(n.arch, n.nr)
	call = Call{Execute: execute, At: a.since(), PID: tid}
	pointer, dir := n.args[0], ""
	if at {
		pointer = n.args[1]
		if fd := int32(n.args[0]); fd != unix.AT_FDCWD {
			dir = "/proc/" + strconv.Itoa(tid) + "/fd/" + strconv.Itoa(int(fd))
		}
	}
	path, err := a.readInTime(&reading{call: call, id: n.id}, uintptr(pointer))
	if err == errGivenUp {
		return call, false, err
	}
	if err == errNoPath || !execute && (err != nil || !a.Interesting(path)) {
		return call, false, nil
	}
	readable := err == nil
	call.Path, call.Unreadable = string(path), !readable
	call.Program, _ = os.Readlink("/proc/" + strconv.Itoa(tid) + "/exe")
	if execute && readable {
		known := false
		if call.Target, known = a.Known(path); !known {
			call.Target = targetInTime(tid, call.Path, dir)
		}
	}
	e = ioctl(a.listener, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&n.id))
	return call, e == 0, nil
}

// release lets a call go on, as if nobody had looked.
func release(listener int, id uint64) error {
	return respond(listener, response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

func respond(listener int, r response) error {
	e := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	if e != 0 && e != unix.ENOENT { // killed meanwhile
		return e
	}
	return nil
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) unix.Errno {
	for {
		_, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument))
		if e != unix.EINTR {
			return e
		}
	}
}

// errNoPath is for what the kernel takes for no path either.
var errNoPath = errors.New("a bad pointer, or no path's length")

// readInTime is read, unless serveInTime has given it up.
func (a *watch) readInTime(r *reading, address uintptr) (path []byte, err error) {
	if a.stuck.Load() >= maxStuck {
		return nil, errStuck
	}
	buffer := a.buffer
	a.reading.Store(r)
	path, err = read(r.call.PID, address, buffer)
	if !a.reading.CompareAndSwap(r, nil) {
		return nil, errGivenUp
	}
	return path, err
}

// read reads a path of a process into buffer. The remote side is cut at a page's end,
// behind which there may be nothing.
func read(tid int, address uintptr, buffer *[unix.PathMax]byte) ([]byte, error) {
	page := uintptr(os.Getpagesize())
	first := min(int(page-address%page), len(buffer))
	remote := []unix.RemoteIovec{{Base: address, Len: first}, {Base: address + uintptr(first), Len: len(buffer) - first}}
	local := []unix.Iovec{{Base: &buffer[0]}}
	local[0].SetLen(len(buffer))
	n, err := unix.ProcessVMReadv(tid, local, remote, 0)
	if err != nil && err != unix.EFAULT {
		return nil, err
	}
	end := bytes.IndexByte(buffer[:max(n, 0)], 0)
	if end < 0 {
		return nil, errNoPath
	}
	return buffer[:end], nil
}

// leave hands the listener to a process of its own, if anything that is under
// the audit is still there: without one, it could execute nothing more.
func (a *watch) leave(rest []string) {
	defer unix.Close(a.listener)
	fds := []unix.PollFd{{Fd: int32(a.listener), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err == nil && fds[0].Revents&unix.POLLHUP != 0 {
		return
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(null)
	_, _ = syscall.ForkExec(rest[0], rest, &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(a.listener)}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

// Rest lets everything go on unseen that is still under an audit, until
// nothing is.
func Rest(listener int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			return nil
		}
		var n notification
		e := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
		if e == unix.ENOENT {
			continue
		}
		if e != 0 {
			return e
		}
		if err := release(listener, n.id); err != nil {
			return err
		}
	}
}
