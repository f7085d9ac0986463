package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Folder is a directory of a state directory, opened: what is in it is reached
// from there, and never through a link.
type Folder struct {
	path  string
	fd    int
	owner int // of the state directory
	rule  Rule
}

// Open opens a place, or a directory below it.
func (d Dir) Open(p Place, below ...string) (*Folder, error) {
	fd, top, err := d.top()
	if err != nil {
		return nil, err
	}
	f := &Folder{path: string(d), fd: fd, owner: int(top.Uid), rule: p.rule()}
	for _, name := range append(p.parts(), below...) {
		next, err := f.Folder(name)
		f.Close()
		if err != nil {
			return nil, err
		}
		f = next
	}
	return f, nil
}

// Close closes the directory.
func (f *Folder) Close() { unix.Close(f.fd) }

// Path is a file's path, for messages and for other programs.
func (f *Folder) Path(name string) string { return filepath.Join(f.path, name) }

// Folder opens a directory in this one.
func (f *Folder) Folder(name string) (*Folder, error) {
	path, err := f.named(name)
	if err != nil {
		return nil, err
	}
	fd, err := openDirectory(f.fd, name, path)
	if err != nil {
		return nil, err
	}
	next := &Folder{path: path, fd: fd, owner: f.owner, rule: f.rule}
	var s unix.Stat_t
	if err = unix.Fstat(fd, &s); err == nil {
		err = next.believe(path, int(s.Uid))
	}
	if err != nil {
		next.Close()
		return nil, err
	}
	return next, nil
}

// named is a file's path, if its name does not lead out of the directory.
func (f *Folder) named(name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("%s: %q is not the name of a file", f.path, name)
	}
	return f.Path(name), nil
}

// Official says whether a file's owner is the one of the state directory, or
// root: one of those for whom services run.
func (f *Folder) Official(uid int) bool { return uid == f.owner || uid == 0 }

// believe is the fault of what another user put into a place that is not
// shared.
func (f *Folder) believe(path string, uid int) error {
	if f.rule.shared() || f.ours(uid) {
		return nil
	}
	return f.Foreign(filepath.Base(path), uid)
}

// Foreign is the fault of a file that is another user's.
func (f *Folder) Foreign(name string, uid int) error {
	return &Fault{Path: f.Path(name), Is: fmt.Sprintf("belongs to user %d, and the state directory to user %d", uid, f.owner), Fix: removeNot}
}

// Make opens a directory in this one, which it makes if it is not there. What
// is there and cannot be used is set aside.
func (f *Folder) Make(name string) (*Folder, error) {
	var s unix.Stat_t
	if err := unix.Fstat(f.fd, &s); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	mode := s.Mode & 0o2770
	for again := false; ; again = true {
		fd, err := makeIn(f.fd, name, f.Path(name), mode, f.owner, int(s.Gid))
		if err == nil {
			err = unix.Faccessat(fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
			unix.Close(fd)
		}
		if err == nil {
			return f.Folder(name)
		}
		if again || !Damaged(err) && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if _, err := f.SetAside(name); err != nil {
			return nil, err
		}
	}
}

// Owner is whose a file is. It is an error if it is not a regular file.
func (f *Folder) Owner(name string) (uid int, err error) {
	s, err := f.stat(name)
	return int(s.Uid), err
}

// Written says how large a file is, and when it was written.
func (f *Folder) Written(name string) (size int64, at time.Time, err error) {
	s, err := f.stat(name)
	return s.Size, time.Unix(s.Mtim.Unix()), err
}

func (f *Folder) stat(name string) (s unix.Stat_t, err error) {
	path, err := f.named(name)
	if err != nil {
		return s, err
	}
	if err := unix.Fstatat(f.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return s, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if is := kindOf(s.Mode); is != "" {
		return s, &Fault{Path: path, Is: "is " + is + ", not a file", Fix: remove}
	}
	return s, f.believe(path, int(s.Uid))
}

// Read reads a file, and says whose it is. In a place that is not shared, a
// file of anybody but the state directory's owner, root and this process's user
// is a [Fault].
func (f *Folder) Read(name string) (data []byte, uid int, err error) {
	s, err := f.stat(name)
	if err != nil {
		return nil, int(s.Uid), err
	}
	limit := f.rule.MaxKiB << 10
	large := &Fault{Path: f.Path(name), Is: fmt.Sprintf("is larger than %d KiB, as no file of cc-ci-run is", f.rule.MaxKiB), Fix: removeNot}
	if s.Size > int64(limit) {
		return nil, int(s.Uid), large
	}
	fd, err := f.open(name)
	if err != nil {
		return nil, int(s.Uid), &fs.PathError{Op: "open", Path: f.Path(name), Err: err}
	}
	defer unix.Close(fd)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil || kindOf(now.Mode) != "" || now.Uid != s.Uid {
		return nil, int(s.Uid), fmt.Errorf("%s: was replaced just now: try again", f.Path(name))
	}
	data = make([]byte, 0, now.Size+1)
	for {
		if len(data) == cap(data) {
			data = slices.Grow(data, 4<<10)
		}
		n, err := unix.Read(fd, data[len(data):cap(data)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, int(s.Uid), &fs.PathError{Op: "read", Path: f.Path(name), Err: err}
		case n == 0:
			return data, int(s.Uid), nil
		}
		if data = data[:len(data)+n]; len(data) > limit {
			return nil, int(s.Uid), large
		}
	}
}

// Peek reads the beginning of a file, without a question of whose it is, or what:
// for looking through very many.
func (f *Folder) Peek(name string, buffer []byte) ([]byte, error) {
	fd, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	n, err := unix.Pread(fd, buffer, 0)
	return buffer[:max(n, 0)], err
}

// Tail reads the end of a file.
func (f *Folder) Tail(name string, n int) ([]byte, error) {
	if _, err := f.stat(name); err != nil {
		return nil, err
	}
	fd, err := f.open(name)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), f.Path(name))
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-int64(n)), int64(n)))
}

// FirstByte is the first byte of a file in a place, 0 if it cannot be read.
func (d Dir) FirstByte(p Place, name string) byte {
	f, err := d.Open(p)
	if err != nil {
		return 0
	}
	defer f.Close()
	first, err := f.Peek(name, make([]byte, 1))
	if err != nil || len(first) == 0 {
		return 0
	}
	return first[0]
}

// open waits for nobody: neither for a writer of a FIFO nor for a lease.
func (f *Folder) open(name string) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(f.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
}

// maxNames is how many names a listing has, and maxNameBytes how many bytes of them.
// [Folder.most] says which, of more.
const (
	maxNames     = 120_000
	maxNameBytes = 12 << 20
)

// Names gives the names that end in suffix, sorted. Hidden files are being
// written.
func (f *Folder) Names(suffix string) ([]string, error) {
	names, _, err := f.names(func(name string) bool { return strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, ".") })
	return names, err
}

// RunNames is [Folder.Names] of a place where names begin with the time of a run. Of
// those that do not, or with a time that is yet to come, it gives only the last ones,
// and how many it leaves out: whoever opens files until the right one is found must not
// be kept busy with others.
func (f *Folder) RunNames(suffix string, now time.Time) (names []string, left int, err error) {
	const maxOdd = 1000
	names, err = f.Names(suffix)
	odd := 0
	for i, name := range slices.Backward(names) {
		if dated(name, now) {
			continue
		}
		if odd++; odd > maxOdd {
			names[i], left = "", left+1
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" }), left, err
}

// names gives the names that are wanted, sorted, and whether there are more.
func (f *Folder) names(want func(string) bool) (names []string, more bool, err error) {
	if _, err = unix.Seek(f.fd, 0, unix.SEEK_SET); err != nil {
		return nil, false, &fs.PathError{Op: "read", Path: f.path, Err: err}
	}
	buffer := make([]byte, 64<<10)
	var some []string
	size := 0
	for {
		n, err := unix.ReadDirent(f.fd, buffer)
		if err != nil {
			return nil, false, &fs.PathError{Op: "read", Path: f.path, Err: err}
		}
		if n <= 0 {
			break
		}
		_, _, some = unix.ParseDirent(buffer[:n], -1, some[:0])
		for _, name := range some {
			if want(name) {
				names = append(names, name)
				size += len(name)
			}
		}
		if len(names) >= 2*maxNames || size >= 2*maxNameBytes {
			names, size = f.most(names)
			more = true
		}
	}
	all := len(names)
	names, _ = f.most(names)
	return names, more || len(names) < all, nil
}

// most sorts names, and gives those that a listing has and how many bytes they are. Of
// too many it prefers those that begin with a time that has come, and of too many of
// these, those of the state directory's owner, of root and of this process's user; then
// the last ones, which are the newest. So nobody's names crowd out the owner's.
func (f *Folder) most(names []string) (list []string, size int) {
	if size, fits := sum(names); fits {
		slices.Sort(names)
		return names, size
	}
	now := time.Now()
	come, odd := split(names, func(name string) bool { return dated(name, now) })
	groups := [][]string{come, odd}
	if _, fits := sum(come); !fits {
		ours, others := split(come, f.isOurs)
		groups = [][]string{ours, others, odd}
	}
	for _, group := range groups {
		slices.Sort(group)
		for _, name := range slices.Backward(group) {
			if len(list) == maxNames || size+len(name) > maxNameBytes {
				break
			}
			list, size = append(list, name), size+len(name)
		}
	}
	slices.Sort(list)
	return list, size
}

// sum is how many bytes names are, and whether a listing has room for them.
func sum(names []string) (size int, fits bool) {
	for _, name := range names {
		size += len(name)
	}
	return size, len(names) <= maxNames && size <= maxNameBytes
}

// split puts those of which is says so before the others.
func split(names []string, is func(string) bool) (those, others []string) {
	n := 0
	for i, name := range names {
		if is(name) {
			names[i], names[n] = names[n], name
			n++
		}
	}
	return names[:n], names[n:]
}

// isOurs is ours of a file, of whatever kind.
func (f *Folder) isOurs(name string) bool {
	var s unix.Stat_t
	return unix.Fstatat(f.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW) == nil && f.ours(int(s.Uid))
}

// ours says whether a file's owner is [Folder.Official], or this process's user.
func (f *Folder) ours(uid int) bool { return f.Official(uid) || uid == os.Geteuid() }

// List gives the names in a place that end in suffix, sorted; none if the place
// is not there.
func (d Dir) List(p Place, suffix string) ([]string, error) {
	f, err := d.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Names(suffix)
}

// Create makes a file that was not there, to write to.
func (f *Folder) Create(name string, mode uint32) (*os.File, error) {
	path, err := f.named(name)
	if err != nil {
		return nil, err
	}
	fd, err := createIn(f.fd, name, mode)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Put replaces a file in one step, synced.
func (f *Folder) Put(name string, data []byte, mode uint32) error {
	if _, err := f.named(name); err != nil {
		return err
	}
	return putIn(f.fd, f.path, name, data, mode, true)
}

// Remove removes a file, or a directory that is empty. It is not an error if
// there is none.
func (f *Folder) Remove(name string) error {
	path, err := f.named(name)
	if err != nil {
		return err
	}
	err = unix.Unlinkat(f.fd, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		if e := unix.Unlinkat(f.fd, name, unix.AT_REMOVEDIR); !errors.Is(e, unix.ENOTDIR) {
			err = e
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// RemoveUnfinished removes the files whose writing was never ended.
func (f *Folder) RemoveUnfinished() error {
	names, _, err := f.names(func(name string) bool { return strings.HasPrefix(name, ".") })
	for _, name := range names {
		err = errors.Join(err, f.Remove(name))
	}
	return err
}

// SetAside renames what cannot be used, and says how it is called now.
func (f *Folder) SetAside(name string) (aside string, err error) {
	path, err := f.named(name)
	if err != nil {
		return "", err
	}
	aside = name + time.Now().UTC().Format(".20060102T150405") + damagedSuffix
	if err := unix.Renameat(f.fd, name, f.fd, aside); err != nil {
		return "", &fs.PathError{Op: "set aside", Path: path, Err: err}
	}
	return aside, nil
}

// MoveAside is [Folder.SetAside] for a folder in which nothing else may lie: what
// cannot be used is moved to another place, from which it expires.
func (f *Folder) MoveAside(name string, d Dir, p Place) (aside string, err error) {
	path, err := f.named(name)
	if err != nil {
		return "", err
	}
	if err := d.Make(p); err != nil {
		return "", err
	}
	to, err := d.Open(p)
	if err != nil {
		return "", err
	}
	defer to.Close()
	aside = name + time.Now().UTC().Format(".20060102T150405") + damagedSuffix
	if err := unix.Renameat(f.fd, name, to.fd, aside); err != nil {
		return "", &fs.PathError{Op: "set aside", Path: path, Err: err}
	}
	return to.Path(aside), nil
}

// Sync has the disk hold what was created, renamed and removed in the folder.
func (f *Folder) Sync() error {
	if err := syncDirectory(f.fd); err != nil {
		return &fs.PathError{Op: "sync", Path: f.path, Err: err}
	}
	return nil
}

// SyncAll has the disk hold all of the folder's file system: for files that another
// program wrote without syncing them.
func (f *Folder) SyncAll() error {
	if err := unix.Syncfs(f.fd); err != nil {
		return &fs.PathError{Op: "sync", Path: f.path, Err: err}
	}
	return nil
}

// damagedSuffix is of what [Folder.SetAside] sets aside, and asideSuffix of the
// directories that a file took the place of; these are hidden.
const (
	damagedSuffix = ".damaged"
	asideSuffix   = ".aside"
)

// asideName is a name for a directory that is in the way of a file.
func asideName(name string) string { return hiddenName(name) + asideSuffix }

// removeAll removes a directory with all that is in it, however deep that is: a
// directory in it that is not empty is first moved up, beside it.
func (f *Folder) removeAll(name string) error {
	for waiting := []string{name}; len(waiting) > 0; {
		name, waiting = waiting[0], waiting[1:]
		more, err := f.emptyOut(name, func(in int, below string) error {
			up := asideName("")
			waiting = append(waiting, up)
			return unix.Renameat(in, below, f.fd, up)
		})
		if err == nil && more {
			waiting = append(waiting, name)
		} else if err == nil {
			err = f.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emptyOut removes what is in a directory; a directory there that is not empty is
// moved. more says that it is not all that is in it.
func (f *Folder) emptyOut(name string, move func(in int, below string) error) (more bool, err error) {
	openUp(f.fd, name)
	fd, err := openDirectory(f.fd, name, f.Path(name))
	if err != nil {
		return false, err
	}
	dir := &Folder{path: f.Path(name), fd: fd, owner: f.owner, rule: f.rule}
	defer dir.Close()
	names, more, err := dir.names(func(string) bool { return true })
	for _, name := range names {
		e := dir.Remove(name)
		if errors.Is(e, unix.ENOTEMPTY) {
			openUp(fd, name)
			if e = move(fd, name); e != nil {
				e = &fs.PathError{Op: "remove", Path: dir.Path(name), Err: e}
			}
		}
		if e != nil {
			return false, e
		}
	}
	return more, err
}

// openUp gives this process's user all rights to a directory of its own: without
// them, only root can empty or move the directory.
func openUp(parent int, name string) {
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if os.Geteuid() != 0 {
		_ = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o700)
	}
}
