package exec

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Files are read here by plain system calls: package os would
// first set up Go's poller (epoll), which costs a run's start more than the
// reading.

// ReadRegular reads a regular file, up to limit bytes. It does not wait for a
// writer: the file may be anybody's, and must not be able to hold a run up.
func ReadRegular(path string, limit int) ([]byte, error) {
	return ReadPart(path, limit, 0, nil)
}

// ReadPart is ReadRegular for a file whose beginning says how much of it is
// wanted: size is asked with the first head bytes.
func ReadPart(path string, limit, head int, size func(head []byte) int) ([]byte, error) {
	fd, length, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var data []byte
	if size != nil {
		if data, err = read(fd, make([]byte, 0, head), head); err == nil {
			limit = min(limit, max(size(data), len(data)))
		}
	}
	if err == nil {
		data, err = read(fd, append(make([]byte, 0, min(int(length)+1, limit)), data...), limit)
	}
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return data, nil
}

// openRegular opens a regular file to read, and gives its size.
func openRegular(path string) (fd int, size int64, err error) {
	fd, err = open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, 0, err
	}
	var s unix.Stat_t
	if err = unix.Fstat(fd, &s); err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	} else if s.Mode&unix.S_IFMT != unix.S_IFREG {
		err = &os.PathError{Op: "read", Path: path, Err: errors.New("is not a regular file")}
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, s.Size, nil
}

// read appends the rest of a file to data, up to limit bytes in all.
func read(fd int, data []byte, limit int) ([]byte, error) {
	for len(data) < limit {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := unix.Read(fd, data[len(data):min(cap(data), limit)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		data = data[:len(data)+n]
	}
	return data, nil
}

// Exists says whether there is anything at path, a dangling link included.
func Exists(path string) bool {
	var s unix.Stat_t
	return unix.Lstat(path, &s) == nil
}

func open(path string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return fd, nil
	}
}

// Resolve gives the file that a path leads to, "" for none: what
// filepath.EvalSymlinks gives, asked of the kernel at once.
func Resolve(path string) string {
	// Most paths lead to themselves. To be told so takes less than half the
	// time of a link below /proc, which the kernel first has to make.
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	if fd, err := unix.Openat2(unix.AT_FDCWD, path, &how); err == nil {
		unix.Close(fd)
		return filepath.Clean(path) // which has no link in it
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buffer)
	if err != nil { // without /proc
		real, _ := filepath.EvalSymlinks(path)
		return real
	}
	return string(buffer[:n])
}

// Tell writes a message. That nobody reads it must not stop a run: package os
// would end this process when stderr is a broken pipe.
func Tell(stderr *os.File, message string) {
	_, _ = unix.Write(int(stderr.Fd()), []byte(message))
}
