package watch

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel allows one listener for a process, so a watched process that
// starts another watched one can not have a second. It asks the outer watcher
// instead, by a call that this one sees anyway: to execute joinPath with the
// number of its socket. The outer watcher takes a copy of the socket, answers
// EISCONN, and from then on tells it of each call of that process and its
// descendants, before the call goes on. A process is a descendant by its
// parents: one that lost them before its first call is the outer run's alone.

const joinPath = "//cc-ci-run/watch/" // there is no such file

// join asks the outer watcher to tell what is at the other end of socket.
func join(socket int) error {
	path, err := unix.BytePtrFromString(joinPath + strconv.Itoa(socket))
	if err != nil {
		return err
	}
	_, _, e := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), 0, 0)
	if e != unix.EISCONN {
		return ErrNested // whoever listens is no watcher of ours
	}
	return nil
}

// inner is a watched run within this one.
type inner struct {
	root   int // its first process
	socket int
	// Those of its processes that have called. One whose parents have ended
	// is known by that.
	members map[int]bool
}

// admit takes a new inner run, if path asks for that.
func (a *watch) admit(tid int, path []byte) bool {
	number, ok := bytes.CutPrefix(path, []byte(joinPath))
	if !ok {
		return false
	}
	fd, err := strconv.Atoi(string(number))
	if err != nil || !a.ourProgram(tid) {
		return false
	}
	root, _ := family(tid)
	process, err := unix.PidfdOpen(root, 0)
	if err != nil {
		return false
	}
	defer unix.Close(process)
	socket, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return false
	}
	a.inner = append(a.inner, &inner{root: root, socket: socket, members: map[int]bool{}})
	return true
}

// ourProgram says whether a process is of the program that this one is of:
// others have nothing to ask, and could hold the run up.
func (a *watch) ourProgram(tid int) bool {
	self, err := os.Readlink("/proc/self/exe")
	its, _ := os.Readlink("/proc/" + strconv.Itoa(tid) + "/exe")
	return err == nil && self == its
}

// pass tells the inner runs that a call is of.
func (a *watch) pass(call Call) {
	var message []byte
	a.inner = slices.DeleteFunc(a.inner, func(in *inner) bool {
		if !in.has(call.PID) {
			return false
		}
		if message == nil {
			message, _ = json.Marshal(call)
		}
		// Not for ever: it may have been stopped.
		fds := []unix.PollFd{{Fd: int32(in.socket), Events: unix.POLLOUT}}
		_, _ = unix.Poll(fds, 200)
		err := unix.Send(in.socket, message, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != nil {
			unix.Close(in.socket)
		}
		return err != nil
	})
}

// has says whether a thread is of this run.
func (in *inner) has(tid int) bool {
	process, parent := family(tid)
	first := process
	for process > 1 && !in.members[process] && process != in.root {
		process, parent = family(parent)
	}
	if process <= 1 {
		return false
	}
	in.members[first] = true
	return true
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

// told takes what an outer watcher tells.
func (a *watch) told(message []byte) {
	var call Call
	if json.Unmarshal(message, &call) == nil {
		call.At = a.since()
		a.See(call)
	}
}
