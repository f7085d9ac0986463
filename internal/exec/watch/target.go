package watch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Outcome is what came of a call to execute a file.
type Outcome string

// The outcomes. They are found out before the kernel does it, by the same
// rules; what depends on more than the file (a list of arguments that is too
// long, a seal) is not in them.
const (
	Executed      Outcome = "executed"
	NotFound      Outcome = "not found"
	NotExecutable Outcome = "not executable"
	NoProgram     Outcome = "no program" // neither a binary nor a script with a `#!` line; a shell then reads it itself
)

// Target is a file that is about to be executed.
type Target struct {
	File    string  `json:"file"` // resolved; "" if it was not found
	Outcome Outcome `json:"outcome"`
	// Interpreters are what its `#!` line names, that one's, and so on, as
	// written. If one is not found, so is the script.
	Interpreters []string `json:"interpreters,omitempty"`
}

// maxInterpreters is how deep the kernel follows `#!` lines (fs/exec.c).
const maxInterpreters = 5

// TargetOf looks at the file that an absolute path leads this process to.
func TargetOf(path string) Target { return target(unix.Getpid(), path, "") }

// target looks at the file that a path of a process leads to. Paths are
// followed in that process's root and working directory.
func target(tid int, path, dir string) Target {
	t := Target{Outcome: Executed}
	for depth := 0; ; depth++ {
		file, interpreter, outcome := look(tid, path, dir)
		if depth == 0 {
			t.File = file
		}
		if outcome != Executed {
			t.Outcome = outcome
			return t
		}
		if interpreter == "" {
			return t
		}
		if depth == maxInterpreters {
			t.Outcome = NotExecutable // ELOOP
			return t
		}
		t.Interpreters = append(t.Interpreters, interpreter)
		path, dir = interpreter, ""
	}
}

// look gives the resolved file, what its `#!` line names, and whether it can
// be executed.
func look(tid int, path, dir string) (file, interpreter string, outcome Outcome) {
	fd, err := openIn(tid, path, dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", "", NotFound
	}
	if err != nil {
		return "", "", NotExecutable
	}
	defer unix.Close(fd)
	link := "/proc/self/fd/" + strconv.Itoa(fd)
	file, _ = os.Readlink(link)

	var s unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFREG || s.Mode&0o111 == 0 {
		return file, "", NotExecutable
	}
	if unix.Fstatfs(fd, &fs) == nil && fs.Flags&unix.ST_NOEXEC != 0 {
		return file, "", NotExecutable
	}
	head, err := unix.Open(link, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return file, "", Executed // executable, but not readable for us
	}
	defer unix.Close(head)
	var buffer [256]byte // the kernel looks at as much (BINPRM_BUF_SIZE)
	n, _ := unix.Pread(head, buffer[:], 0)
	line := buffer[:max(n, 0)]
	switch {
	case bytes.HasPrefix(line, []byte("#!")):
		line, _, _ = bytes.Cut(line[2:], []byte("\n"))
		words := strings.FieldsFunc(string(line), func(r rune) bool { return r == ' ' || r == '\t' || r == 0 })
		if len(words) == 0 {
			return file, "", NoProgram
		}
		return file, words[0], Executed
	case bytes.HasPrefix(line, []byte("\x7fELF")) || foreign():
		return file, "", Executed
	}
	return file, "", NoProgram
}

// foreign says whether the kernel was told of other kinds of programs
// (binfmt_misc).
func foreign() bool {
	entries, err := os.ReadDir("/proc/sys/fs/binfmt_misc")
	return err == nil && len(entries) > 2 // register and status
}

// openIn opens a path as a process would, for looking only. dir is what a
// relative path is relative to.
func openIn(tid int, path, dir string) (int, error) {
	const flags = unix.O_PATH | unix.O_CLOEXEC
	proc := "/proc/" + strconv.Itoa(tid)
	// What these mean depends on who asks.
	for _, self := range []string{"/proc/self/", "/proc/thread-self/"} {
		if rest, ok := strings.CutPrefix(path, self); ok {
			path = proc + "/" + rest
			return unix.Open(path, flags, 0)
		}
	}
	if rest, ok := strings.CutPrefix(path, "/dev/fd/"); ok {
		return unix.Open(proc+"/fd/"+rest, flags, 0)
	}
	if path == "" {
		if dir == "" {
			return -1, unix.ENOENT
		}
		return unix.Open(dir, flags, 0) // AT_EMPTY_PATH
	}
	if !filepath.IsAbs(path) {
		if dir == "" {
			dir = proc + "/cwd"
		}
		return unix.Open(dir+"/"+path, flags, 0)
	}
	root, err := os.Readlink(proc + "/root")
	if err == nil && root != "/" { // chroot: a link below it stays below it
		at, err := unix.Open(proc+"/root", flags|unix.O_DIRECTORY, 0)
		if err != nil {
			return -1, err
		}
		defer unix.Close(at)
		return unix.Openat2(at, path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT})
	}
	return unix.Open(proc+"/root"+path, flags, 0) // in its mount namespace
}
