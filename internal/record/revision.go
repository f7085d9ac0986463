package record

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

var hashRE = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// Revision is the commit that HEAD names in the git work tree around dir, or
// "" without one. It reads git's own files (gitrepository-layout(5)), as
// starting git would cost more than the rest of a run's start.
func Revision(dir string) string {
	if dir == "" {
		return ""
	}
	for {
		if git := gitDir(filepath.Join(dir, ".git")); git != "" {
			return head(git)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// gitDir is the repository behind ".git": itself, or where the file points
// that a linked work tree or a submodule has there.
func gitDir(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if info.IsDir() {
		return path
	}
	target, ok := strings.CutPrefix(line(path), "gitdir: ")
	if !ok {
		return ""
	}
	return join(filepath.Dir(path), target)
}

func head(git string) string {
	ref, symbolic := strings.CutPrefix(line(filepath.Join(git, "HEAD")), "ref: ")
	if !symbolic {
		return commit(ref)
	}
	common := git
	if c := line(filepath.Join(git, "commondir")); c != "" {
		common = join(git, c)
	}
	if c := commit(line(filepath.Join(common, ref))); c != "" {
		return c
	}
	f := open(filepath.Join(common, "packed-refs"))
	if f == nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if sum, name, _ := strings.Cut(s.Text(), " "); name == ref {
			return commit(sum)
		}
	}
	return ""
}

func commit(s string) string {
	if hashRE.MatchString(s) {
		return s
	}
	return ""
}

func join(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// line is the first line of a file, "" if it can not be read. Git's own are
// shorter than 4 KiB.
func line(path string) string {
	f := open(path)
	if f == nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(first)
}

// open opens a regular file, or gives nil. It does not wait for a writer: the
// work tree may be anybody's, and must not be able to hold a run up.
func open(path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil
	}
	return f
}
