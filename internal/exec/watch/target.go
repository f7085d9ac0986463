package watch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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
	Unknown       Outcome = "unknown"    // it could not be looked at in time, or at all
	NoProgram     Outcome = "no program" // neither a binary nor a script with a `#!` line; a shell then reads it itself
)

// Target is a file that is about to be executed.
type Target struct {
	File    string  `json:"file"` // resolved; "" if it was not found
	Outcome Outcome `json:"outcome"`
	// Interpreters are what its `#!` line names, that one's, and so on. If one
	// is not found, so is the script.
	Interpreters []Interpreter `json:"interpreters,omitempty"`
}

// Interpreter is what a script names.
type Interpreter struct {
	Path string `json:"path"` // as written
	File string `json:"file"` // resolved
}

// maxInterpreters is how deep the kernel follows `#!` lines (fs/exec.c).
const maxInterpreters = 5

// TargetOf looks at the file that an absolute path leads this process to.
func TargetOf(path string) Target { return target(unix.Getpid(), path, "") }

// lookLimit is how long a file is waited for. A file system may be served by a
// process (FUSE), and that one may wait for this: for a call of its own.
const lookLimit = time.Second

func targetInTime(tid int, path, dir string) Target {
	done := make(chan Target, 1)
	go func() { done <- target(tid, path, dir) }()
	limit := time.NewTimer(lookLimit)
	defer limit.Stop()
	select {
	case t := <-done:
		return t
	case <-limit.C:
		return Target{Outcome: Unknown}
	}
}

// target looks at the file that a path of a process leads to. Paths are
// followed in that process's root and working directory.
func target(tid int, path, dir string) Target {
	t := Target{Outcome: Executed}
	for depth := 0; ; depth++ {
		file, interpreter, outcome := look(tid, path, dir)
		if depth == 0 {
			t.File = file
		} else {
			t.Interpreters[depth-1].File = file
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
		t.Interpreters = append(t.Interpreters, Interpreter{Path: interpreter})
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
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENAMETOOLONG) {
		return "", "", NotExecutable
	}
	if err != nil {
		return "", "", Unknown
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
	if path == "" {
		if dir == "" {
			return -1, unix.ENOENT
		}
		return unix.Open(dir, flags, 0) // AT_EMPTY_PATH
	}
	root, err := unix.Open(proc+"/root", flags|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	if !filepath.IsAbs(path) {
		if dir == "" {
			dir = proc + "/cwd"
		}
		if path, err = inRoot(proc, dir, path); err != nil {
			return -1, err
		}
	}
	const maxLinks = 40 // the kernel's
	for range maxLinks {
		// What these mean depends on who asks.
		for _, self := range []struct{ name, meant string }{{"/proc/self", proc}, {"/proc/thread-self", proc}, {"/dev/fd", proc + "/fd"}} {
			if rest, ok := strings.CutPrefix(filepath.Clean(path), self.name); ok && (rest == "" || rest[0] == '/') {
				path = self.meant + rest
			}
		}
		if strings.HasPrefix(path, "/proc/") {
			return unix.Open(path, flags, 0) // with its links that are none
		}
		// An absolute link stays in the process's root and mount namespace.
		fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT})
		if err != unix.ELOOP && err != unix.EXDEV {
			return fd, err
		}
		// A link to one of those of /proc: follow it by hand.
		fd, err = unix.Openat2(root, path, &unix.OpenHow{Flags: flags | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_IN_ROOT})
		if err != nil {
			return -1, err
		}
		var buffer [unix.PathMax]byte
		n, err := unix.Readlinkat(fd, "", buffer[:])
		unix.Close(fd)
		if err != nil {
			return -1, unix.ELOOP
		}
		to := string(buffer[:n])
		if !filepath.IsAbs(to) {
			to = filepath.Dir(path) + "/" + to
		}
		path = to
	}
	return -1, unix.ELOOP
}

// inRoot gives a relative path as an absolute one in the root of a process.
func inRoot(proc, dir, path string) (string, error) {
	at, err := os.Readlink(dir)
	if err != nil {
		return "", err
	}
	if root, err := os.Readlink(proc + "/root"); err == nil && root != "/" {
		at = strings.TrimPrefix(at, root)
	}
	return at + "/" + path, nil
}
