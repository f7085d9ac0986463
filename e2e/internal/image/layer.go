package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Layer is the root directory of an image while it is filled. Its methods do
// nothing after the first error, which Save returns. Names are relative to the root.
type Layer struct {
	archive *tar.Writer
	has     map[string]bool
	linked  map[uint64]string // by inode: the first name of a file, for hard links
	err     error
}

func newLayer(w io.Writer) *Layer {
	return &Layer{archive: tar.NewWriter(w), has: map[string]bool{".": true}, linked: map[uint64]string{}}
}

func (l *Layer) close() error {
	if l.err != nil {
		return l.err
	}
	return l.archive.Close()
}

// add adds an entry with its directories, unless the layer has the name already.
func (l *Layer) add(h tar.Header, content io.Reader) {
	if l.err != nil || l.has[h.Name] {
		return
	}
	l.Dir(filepath.Dir(h.Name), 0o755, 0)
	l.has[h.Name] = true
	if l.err == nil {
		l.err = l.archive.WriteHeader(&h)
	}
	if l.err == nil && content != nil {
		_, l.err = io.Copy(l.archive, content)
	}
}

// Dir adds a directory whose owner and group have the number user.
func (l *Layer) Dir(name string, mode fs.FileMode, user int) {
	l.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: unixMode(mode), Uid: user, Gid: user}, nil)
}

// File adds a file.
func (l *Layer) File(name string, mode fs.FileMode, content string) {
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: unixMode(mode), Size: int64(len(content))}, strings.NewReader(content))
}

// Link adds a symbolic link.
func (l *Layer) Link(name, to string) {
	l.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil)
}

// Copy adds a file of this machine, or a directory with all that is in it.
func (l *Layer) Copy(name, from string) {
	if l.err != nil {
		return
	}
	l.err = filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		l.copy(filepath.Join(name, below), path)
		return l.err
	})
}

func (l *Layer) copy(name, from string) {
	info, err := os.Lstat(from)
	if err != nil {
		l.err = err
		return
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		l.Dir(name, mode, 0)
	case mode&fs.ModeSymlink != 0:
		to, err := os.Readlink(from)
		l.err = err
		l.Link(name, to)
	case mode.IsRegular():
		stat := info.Sys().(*syscall.Stat_t)
		if first := l.linked[stat.Ino]; first != "" && stat.Nlink > 1 {
			l.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first}, nil)
			return
		}
		l.linked[stat.Ino] = name
		file, err := os.Open(from)
		if err != nil {
			l.err = err
			return
		}
		defer file.Close()
		l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: unixMode(mode), Size: info.Size()}, file)
	default:
		l.err = fmt.Errorf("%s is a %s: an image gets files, directories and links", from, mode)
	}
}

// unixMode is a mode as in a tar file, where the sticky bit is another bit than in
// package fs.
func unixMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}
