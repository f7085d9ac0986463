package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec"
)

// Held is the error of [Folder.Lock] if another process has the lock.
type Held struct{ By string }

func (h *Held) Error() string { return "it is held by " + h.By }

// Lock takes a lock, which lasts until the returned function is called or this
// process ends, however that is. Only this process's user can take it: nobody
// else can open its file. A file by which another user could hold the lock, or
// does, is not the lock, and is replaced.
func (f *Folder) Lock(name string) (unlock func(), err error) {
	path, err := f.named(name)
	if err != nil {
		return nil, err
	}
	const attempts = 10 // somebody may be replacing the file just now
	for range attempts {
		unlock, s, err := f.tryLock(name, path)
		if !errors.Is(err, errNotTheLock) {
			return unlock, err
		}
		if f.same(name, s) {
			if err := f.clear(name); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("%s: is replaced again and again", path)
}

// LockToHandOn takes a lock that lasts until this process and each child that it
// gives the file to have ended. It waits until those of another process have: only
// for processes that end by themselves.
func (f *Folder) LockToHandOn(name string) (*os.File, error) {
	path, err := f.named(name)
	if err != nil {
		return nil, err
	}
	if s, err := f.stat(name); !errors.Is(err, fs.ErrNotExist) && (err != nil || int(s.Uid) != os.Geteuid()) {
		if err := f.clear(name); err != nil {
			return nil, err
		}
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(f.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	if _, err := retry(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX) }); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// clear makes room for a file: it removes what has the file's name, or moves a
// directory that holds something out of the way.
func (f *Folder) clear(name string) error {
	err := f.Remove(name)
	if errors.Is(err, unix.ENOTEMPTY) {
		if err = unix.Renameat(f.fd, name, f.fd, asideName(name)); err != nil {
			err = &fs.PathError{Op: "move aside", Path: f.Path(name), Err: err}
		}
	}
	return err
}

var errNotTheLock = errors.New("not the lock")

func (f *Folder) tryLock(name, path string) (unlock func(), s unix.Stat_t, err error) {
	ours := func() bool { return kindOf(s.Mode) == "" && int(s.Uid) == os.Geteuid() }
	fd, err := retry(func() (int, error) {
		return unix.Openat(f.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		if unix.Fstatat(f.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW) == nil && !ours() {
			return nil, s, errNotTheLock
		}
		if errors.Is(err, fs.ErrPermission) { // somebody may hold it, so it is not replaced
			return nil, s, &Fault{Path: path, Is: "cannot be opened (" + err.Error() + ")", Fix: "chmod 600 " + path}
		}
		return nil, s, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	if err = unix.Fstat(fd, &s); err == nil && !ours() {
		err = errNotTheLock
	}
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = holder(s)
		}
	}
	if err == nil {
		now := unix.NsecToTimeval(time.Now().UnixNano())
		_ = unix.Futimes(fd, []unix.Timeval{now, now}) // for who waits
		err = unix.Fchmod(fd, 0o600)                   // of earlier versions, everybody could open it
	}
	if err == nil && !f.same(name, s) { // another process replaced it meanwhile
		err = errNotTheLock
	}
	if err != nil {
		unix.Close(fd)
		return nil, s, err
	}
	return func() { unix.Close(fd) }, s, nil
}

// same says whether a file is still the one that it was.
func (f *Folder) same(name string, was unix.Stat_t) bool {
	var now unix.Stat_t
	return unix.Fstatat(f.fd, name, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && now.Ino == was.Ino && now.Dev == was.Dev
}

// holder says who holds the lock on a file, by proc_locks(5), as a [Held]. It is
// errNotTheLock if that is a user who could not open the file as it is made now.
func holder(file unix.Stat_t) error {
	held := &Held{By: "a process that cannot be seen from here"}
	locks, _ := exec.ReadRegular("/proc/locks", 16<<20)
	inode := ":" + strconv.FormatUint(file.Ino, 10)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END
		w := strings.Fields(line)
		if len(w) < 8 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], inode) {
			continue
		}
		status, err := exec.ReadRegular("/proc/"+w[4]+"/status", 64<<10)
		if err != nil {
			held.By = "a process left by process " + w[4] + ", which took the lock and has ended"
			if file.Mode&0o077 != 0 { // a file of an earlier version, which everybody can open: anybody's process
				return errNotTheLock
			}
			continue
		}
		name, user := field(status, "Name:"), field(status, "Uid:")
		since := time.Unix(file.Mtim.Unix()).UTC().Format(time.RFC3339)
		held.By = "process " + w[4] + ", since " + since + ", " + name
		if user != "0" && user != strconv.Itoa(int(file.Uid)) {
			return errNotTheLock
		}
		return held
	}
	return held
}

// field is the first word of a line of /proc/PID/status.
func field(status []byte, name string) string {
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			if words := strings.Fields(value); len(words) > 0 {
				return words[0]
			}
		}
	}
	return ""
}
