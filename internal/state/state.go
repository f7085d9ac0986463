// Package state is the state directory: where run records, manifests, audits
// and the sweep's memory are kept. This package alone opens, lists, writes, locks
// and expires what is there.
//
//	dir := state.Dir("/var/lib/cc-ci-run")
//	err := dir.Put(state.Runs, "ID.json", data)   // whole or not at all
//	f, err := dir.Open(state.Runs)
//	names, err := f.Names(".json")                // sorted
//	data, uid, err := f.Read("ID.json")
//
// Each kind of file has a [Place], with a [Rule] that says who may write there.
// Some places are shared: any member of the group may put a file there, and any
// kind of file. So nothing is reached through a link, nothing waits (a FIFO), only
// regular files are read, no more of them than the place's limit, and whoever
// reads is told whose a file is. What is not as it should be is a [Fault], which
// says so and what to do.
//
// Every run writes here, so nothing is slow to start: files are written by plain
// system calls, as package os would first set up Go's poller.
package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Dir is the path of a state directory.
type Dir string

// Path is a file's path, or a place's if name is "".
func (d Dir) Path(p Place, name string) string { return filepath.Join(string(d), string(p), name) }

// Make makes a place, if it is not there, with the owner and the mode of its
// [Rule], whoever comes first. Where it is there and others can write who must
// not, it takes that from them, if it may.
func (d Dir) Make(p Place) error {
	top, s, err := d.top()
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(string(d), 0o755); err == nil {
			top, s, err = d.top()
		}
	}
	if err != nil {
		return err
	}
	defer func() { unix.Close(top) }()
	parts := p.parts()
	for i, part := range parts {
		rule := Place(filepath.Join(parts[:i+1]...)).rule()
		fd, err := makeIn(top, part, d.Path(rule.Place, ""), rule.modeIn(s.Mode), int(s.Uid), int(s.Gid))
		if err != nil {
			return err
		}
		unix.Close(top)
		top = fd
	}
	return nil
}

// top opens the state directory itself. That may be a link: whoever names it
// knows where it leads.
func (d Dir) top() (fd int, s unix.Stat_t, err error) {
	fd, err = retry(func() (int, error) { return unix.Open(string(d), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err == nil {
		err = unix.Fstat(fd, &s)
	}
	if err != nil {
		return -1, s, &fs.PathError{Op: "open", Path: string(d), Err: err}
	}
	return fd, s, nil
}

// makeIn makes and opens a directory in another one.
func makeIn(parent int, name, path string, mode uint32, uid, gid int) (int, error) {
	made := unix.Mkdirat(parent, name, 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return -1, &fs.PathError{Op: "mkdir", Path: path, Err: made}
	}
	fd, err := openDirectory(parent, name, path)
	if err != nil {
		return -1, err
	}
	var s unix.Stat_t
	if err = unix.Fstat(fd, &s); err == nil && made == nil && os.Geteuid() == 0 {
		err = unix.Fchown(fd, uid, gid)
	}
	// An earlier cc-ci-run made all places writable for the group.
	loose := s.Mode & othersWrite &^ mode
	loose |= mode & unix.S_ISVTX &^ s.Mode
	mine := int(s.Uid) == os.Geteuid() || os.Geteuid() == 0
	if err == nil && (made == nil || loose != 0 && mine) {
		err = unix.Fchmod(fd, mode)
	}
	if err != nil {
		unix.Close(fd)
		return -1, &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return fd, nil
}

// Owner is the user who owns the state directory, or would own it: whoever
// makes it.
func (d Dir) Owner() (uid int, err error) {
	fd, s, err := d.top()
	if errors.Is(err, fs.ErrNotExist) {
		return os.Geteuid(), nil
	}
	if err != nil {
		return -1, err
	}
	unix.Close(fd)
	return int(s.Uid), nil
}

var puts atomic.Uint64 // in this process

// Put writes a file in one step: a reader sees the earlier one, all of this one,
// or none. It is not synced, as that costs a disk's latency: after a power cut
// the last seconds' files may be missing or empty. See [Dir.PutSynced].
func (d Dir) Put(p Place, name string, data []byte) error { return d.put(p, name, data, 0o644, false) }

// PutSynced is [Dir.Put], synced: after a crash the file is the earlier one or
// this one. It has the mode, whatever the umask.
func (d Dir) PutSynced(p Place, name string, data []byte, mode uint32) error {
	return d.put(p, name, data, mode, true)
}

func (d Dir) put(p Place, name string, data []byte, mode uint32, sync bool) error {
	fd, err := d.openToWrite(p)
	if errors.Is(err, fs.ErrNotExist) { // the first file of all
		if err = d.Make(p); err == nil {
			fd, err = d.openToWrite(p)
		}
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return putIn(fd, d.Path(p, ""), name, data, mode, sync)
}

// openToWrite opens a place by few system calls, as each run does.
func (d Dir) openToWrite(p Place) (int, error) {
	path := d.Path(p, "")
	fd, err := openDirectory(unix.AT_FDCWD, path, path)
	return fd, err
}

// openDirectory opens a directory that is not a link.
func openDirectory(parent int, name, path string) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err == nil {
		return fd, nil
	}
	var s unix.Stat_t
	if (errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)) && unix.Fstatat(parent, name, &s, unix.AT_SYMLINK_NOFOLLOW) == nil {
		is := kindOf(s.Mode)
		if is == "" {
			is = "a file"
		}
		return -1, &Fault{Path: path, Is: "is " + is + ", not a directory", Fix: remove}
	}
	return -1, &fs.PathError{Op: "open", Path: path, Err: err}
}

// hiddenName is a name that nobody else uses: a process has its number, and a thread
// its turn.
func hiddenName(name string) string {
	return "." + name + "." + strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(puts.Add(1), 10)
}

// putIn writes a file in an open directory, in one step.
func putIn(dir int, path, name string, data []byte, mode uint32, sync bool) error {
	hidden := hiddenName(name)
	fd, err := createIn(dir, hidden, mode)
	if err != nil {
		return &fs.PathError{Op: "create", Path: filepath.Join(path, name), Err: err}
	}
	for len(data) > 0 && err == nil {
		var n int
		if n, err = unix.Write(fd, data); errors.Is(err, unix.EINTR) {
			n, err = 0, nil
		}
		data = data[max(n, 0):]
	}
	if sync && err == nil {
		err = errors.Join(unix.Fchmod(fd, mode), unix.Fsync(fd))
	}
	if end := unix.Close(fd); err == nil {
		err = end
	}
	if err == nil {
		err = unix.Renameat(dir, hidden, dir, name)
	}
	if errors.Is(err, unix.EISDIR) { // a directory that another user made, say: it is moved out of the way
		if err = unix.Renameat(dir, name, dir, hidden+asideSuffix); err == nil {
			err = unix.Renameat(dir, hidden, dir, name)
		}
	}
	if errors.Is(err, unix.EFBIG) {
		err = errors.New("the limit of file size (ulimit -f, LimitFSIZE=) is too low")
	}
	if err != nil {
		_ = unix.Unlinkat(dir, hidden, 0)
		return &fs.PathError{Op: "write", Path: filepath.Join(path, name), Err: err}
	}
	if sync {
		if err := syncDirectory(dir); err != nil {
			return &fs.PathError{Op: "sync", Path: filepath.Join(path, name), Err: err}
		}
	}
	return nil
}

// syncDirectory has the disk hold the names in a directory. Some file systems cannot.
func syncDirectory(fd int) error {
	err := unix.Fsync(fd)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// createIn makes a file that was not there before.
func createIn(dir int, name string, mode uint32) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	})
}

func retry(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// Size is the size of a file, and whether it is one that a run can rely on:
// regular, and the state directory's owner's, root's or this process's own.
func (d Dir) Size(p Place, name string) (size int64, ours bool) {
	var s unix.Stat_t
	if unix.Lstat(d.Path(p, name), &s) != nil || kindOf(s.Mode) != "" {
		return 0, false
	}
	if int(s.Uid) == os.Geteuid() || s.Uid == 0 {
		return s.Size, true
	}
	owner, err := d.Owner()
	return s.Size, err == nil && owner == int(s.Uid)
}

// Read reads one file of a place. See [Folder.Read].
func (d Dir) Read(p Place, name string) ([]byte, error) {
	f, err := d.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, _, err := f.Read(name)
	return data, err
}
