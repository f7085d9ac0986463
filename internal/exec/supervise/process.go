package supervise

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one of those in /proc.
type process struct {
	pid   int
	name  string // at most 15 bytes of it
	state byte   // proc(5): R, S, D, T, Z …
}

// states are proc(5)'s, in words.
var states = map[byte]string{
	'D': "in uninterruptible sleep: it waits for a disk or a file server",
	'T': "stopped", 't': "stopped by a debugger", 'Z': "ended, but its parent does not wait for it",
}

func (p process) String() string {
	if words, ok := states[p.state]; ok {
		return fmt.Sprintf("process %d (%s, %s)", p.pid, p.name, words)
	}
	return fmt.Sprintf("process %d (%s)", p.pid, p.name)
}

// children are the numbers of this process's children, also of those that ended
// and were not waited for. It is quick, so that a process that starts the next
// and ends, again and again, is hit all the same; but a child that ends
// meanwhile can hide others (proc(5), /proc/PID/task/TID/children).
func children() (pids []int) {
	threads, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range threads {
		data, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	if threads == nil { // a kernel without CONFIG_PROC_CHILDREN
		return allChildren()
	}
	return pids
}

// allChildren are all of them, slowly.
func allChildren() (pids []int) {
	me := os.Getpid()
	for _, pid := range processes() {
		if _, parent, ok := stat(pid); ok && parent == me {
			pids = append(pids, pid)
		}
	}
	return pids
}

// describe says for people which processes those are that are there.
func describe(pids []int) (list []string) {
	for _, pid := range pids {
		if p, _, ok := stat(pid); ok {
			list = append(list, p.String())
		}
	}
	return list
}

func processes() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stat reads /proc/PID/stat: "PID (NAME) STATE PARENT …", where NAME may hold
// anything.
func stat(pid int) (p process, parent int, ok bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return p, 0, false
	}
	before, after, found := cutLast(string(data), ") ")
	_, name, _ := strings.Cut(before, "(")
	fields := strings.Fields(after)
	if !found || len(fields) < 2 {
		return p, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return process{pid, strings.ToValidUTF8(name, "?"), fields[0][0]}, parent, err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Sweep kills the processes whose environment has a variable ("NAME=VALUE"),
// and gives those that do not die. The value must be one that no other
// program can have, such as a path with the time in it. A number read from
// /proc may be another process's a moment later, so each is held by a
// descriptor (pidfd_open(2)) before the environment is read once more.
func Sweep(variable string) (left []string) {
	limit := time.Now().Add(killTime)
	for {
		left = nil
		for _, pid := range processes() {
			if pid == os.Getpid() || !has(pid, variable) {
				continue
			}
			killMarked(pid, variable)
			if p, _, ok := stat(pid); ok && has(pid, variable) {
				left = append(left, p.String())
			}
		}
		if left == nil || time.Now().After(limit) {
			return left
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func killMarked(pid int, variable string) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if has(pid, variable) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

func has(pid int, variable string) bool {
	environ, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+variable+"\x00"))
}
