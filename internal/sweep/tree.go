package sweep

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec"
)

// Limits of what is hashed of one recipe: a folder that holds more is a
// mistake (a volume, a build), and each sweep would read it all.
const (
	maxTree    = 256 << 20 // bytes
	maxEntries = 100_000
	maxSeen    = 300_000 // entries with those that are left out
)

// treeHash is the SHA-256, in hex, of all that a folder's tests can be made of:
// each file's name, permission to execute and content, each directory, each
// link and what it leads to, also outside the folder (a conftest.py that
// recipes share is part of their tests). Two trees that differ in any of it
// have different hashes. Left out is what git and Python keep for themselves:
// see [leftOut].
//
// What cannot be read to its end (a FIFO, a device, a file of /proc) is an
// error, and is not opened.
func treeHash(root string) (string, error) {
	if err := ownProcess(root); err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(root)
	if errors.Is(err, fs.ErrNotExist) {
		if target, e := os.Readlink(root); e == nil {
			return "", fmt.Errorf("%s: is a link that leads nowhere (%s): restore what it leads to, or remove it", root, target)
		}
	}
	if err != nil {
		return "", explained(root, err)
	}
	t := &tree{hash: sha256.New(), root: real, isRoot: map[string]bool{}, devices: map[uint64]bool{}}
	t.add(real)
	// Links add to the roots while they are walked: what lies outside is a tree
	// of its own, under the name by which the links say where they lead.
	for i := 0; i < len(t.roots); i++ {
		t.line("tree", t.name(t.roots[i]))
		if err := t.walk(t.roots[i]); err != nil {
			return "", explained(root, err)
		}
	}
	return hex.EncodeToString(t.hash.Sum(nil)), nil
}

// explained says of an error what it means for the tests, and what to do.
func explained(root string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("it vanished: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the tests have the same user: let user %d read it, or remove it", err, os.Geteuid())
	case errors.Is(err, unix.ENAMETOOLONG): // the path of which would be the message
		return fmt.Errorf("%s: has folders so deep in folders that no program can open them (%d bytes of path): remove them", root, unix.PathMax)
	}
	return err
}

// buffers to read files by: there are ten thousand trees in a sweep.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// tree is a treeHash under way.
type tree struct {
	hash    hash.Hash
	root    string
	roots   []string        // the folder, and what links of any of them lead to outside
	isRoot  map[string]bool // the same
	devices map[uint64]bool // whose files are real ones
	read    int64
	entries int
	seen    int
}

// line adds an entry. Each field is quoted, so no name can look like another
// field or line.
func (t *tree) line(kind string, fields ...string) {
	fmt.Fprintf(t.hash, "%s %q\n", kind, fields)
}

// name is a real path as the hash has it: relative, so that it does not change
// with where the recipes lie.
func (t *tree) name(real string) string {
	rel, err := filepath.Rel(t.root, real)
	if err != nil {
		return real
	}
	return rel
}

func (t *tree) walk(root string) error {
	var s unix.Stat_t
	if err := unix.Stat(root, &s); err != nil {
		return &fs.PathError{Op: "stat", Path: root, Err: err}
	}
	if s.Mode&unix.S_IFMT != unix.S_IFDIR {
		return t.entry(root, ".", 0)
	}
	if err := t.realFiles(root, s.Dev); err != nil {
		return err
	}
	return t.entry(root, ".", fs.ModeDir)
}

// entry adds what is at a path, and what is in it.
func (t *tree) entry(path, rel string, kind fs.FileMode) error {
	special := kind&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice|fs.ModeCharDevice) != 0 // git would wait for it
	if !leftOut(rel, kind.IsDir()) || special || !kind.IsDir() && !t.isData(path, rel) {
		if t.entries++; t.entries > maxEntries {
			return fmt.Errorf("%s: holds more than %d files", t.root, maxEntries)
		}
		switch {
		case kind.IsDir():
			t.line("dir", rel)
		case kind == fs.ModeSymlink:
			return t.link(path, rel)
		default:
			return t.file(path, rel)
		}
	}
	if !kind.IsDir() {
		return nil
	}
	inside, err := t.list(path)
	for _, d := range inside {
		if err := t.entry(filepath.Join(path, d.Name()), filepath.Join(rel, d.Name()), d.Type()); err != nil {
			return err
		}
	}
	return err
}

// list gives what is in a directory, sorted.
func (t *tree) list(path string) ([]fs.DirEntry, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	inside, err := f.ReadDir(maxSeen - t.seen + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if t.seen += len(inside); t.seen > maxSeen {
		return nil, fmt.Errorf("%s: holds more than %d files, with those of git and Python", t.root, maxSeen)
	}
	slices.SortFunc(inside, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return inside, nil
}

// link adds a link and where it leads, which becomes a root if it is in none.
func (t *tree) link(path, rel string) error {
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if err := ownProcess(path); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.line("dangling", rel, target)
		return nil
	}
	t.line("link", rel, target, t.name(real))
	if !t.covered(real) {
		t.add(real)
	}
	return nil
}

// add makes a path a root.
func (t *tree) add(real string) {
	t.roots = append(t.roots, real)
	t.isRoot[real] = true
}

// covered says whether a path is hashed with one of the roots: it is one, or is
// in one and not left out there. A link to what is left out makes it part of the
// tests all the same.
func (t *tree) covered(real string) bool {
	if t.isRoot[real] {
		return true
	}
	covered := false
	for dir := real; dir != "/"; {
		dir = filepath.Dir(dir)
		if t.isRoot[dir] {
			rel := strings.TrimPrefix(real[len(dir):], "/")
			if leftOut(rel, false) || leftOut(rel, true) {
				return false
			}
			covered = true
		}
	}
	return covered
}

// ownProcess is an error for a path that leads to what a process has open, or to
// its directory (/proc/self/cwd): for the sweep and for the tests these differ.
func ownProcess(path string) error {
	open := func(resolve uint64) error {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	if errors.Is(open(unix.RESOLVE_NO_MAGICLINKS), unix.ELOOP) && !errors.Is(open(0), unix.ELOOP) {
		return fmt.Errorf("%s: leads to an open file or a directory of a process, as /proc/self/cwd does, which is another one for each process: link to a fixed path", path)
	}
	return nil
}

// file adds a file: what executes of it, and its content.
func (t *tree) file(path, rel string) error {
	var s unix.Stat_t
	if err := unix.Lstat(path, &s); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	if s.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s: is %s, not a file or a folder: tests cannot be made of it", path, kindOf(s.Mode))
	}
	if err := t.realFiles(path, s.Dev); err != nil {
		return err
	}
	if s.Size > maxTree-t.read { // not after reading it
		return t.tooLarge()
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	content := sha256.New()
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	n, err := io.CopyBuffer(content, io.LimitReader(f, maxTree-t.read+1), *buffer)
	if err != nil {
		return err
	}
	if t.read += n; t.read > maxTree {
		return t.tooLarge()
	}
	t.line("file", rel, fmt.Sprintf("%o", s.Mode&0o7111), hex.EncodeToString(content.Sum(nil)))
	return nil
}

func (t *tree) tooLarge() error {
	return fmt.Errorf("%s: holds more than %d MiB", t.root, maxTree>>20)
}

// realFiles is an error for a file system whose files the kernel makes up as
// they are read: some have no end. The magic numbers are of statfs(2).
func (t *tree) realFiles(path string, device uint64) error {
	if t.devices[device] {
		return nil
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(path, &fsys); err != nil {
		return &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	switch fsys.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.BINFMTFS_MAGIC:
		return fmt.Errorf("%s: is made up by the kernel (as /proc is): tests cannot be made of it", path)
	}
	t.devices[device] = true
	return nil
}

func kindOf(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	}
	return "something else"
}

// Files that git and Python make beside a recipe's own. They change without a
// change of the tests, and nothing executes them: the runner reads no compiled
// file of __pycache__, and git's files here are data. What else may lie in these
// directories (a hook, a module) is hashed.
var (
	dataOf = []*regexp.Regexp{
		// NAME.TAG.pyc; NAME.pyc could be imported.
		regexp.MustCompile(`(^|/)__pycache__/[^/.][^/]*\.[^/.]+\.pyc(\.[0-9]+)?$`),
		regexp.MustCompile(`(^|/)\.pytest_cache/(README\.md|\.gitignore|CACHEDIR\.TAG|v/cache/[a-z]+)$`),
		// gitrepository-layout(5)
		regexp.MustCompile(`(^|/)\.git(/modules/[^/]+)*/index(\.lock)?$`),
		regexp.MustCompile(`(^|/)\.git(/modules/[^/]+)*/objects/([0-9a-f]{2}/([0-9a-f]{38}|[0-9a-f]{62}|tmp_obj_\w+)|pack/[^/]+\.(pack|idx|rev|bitmap|keep|promisor|mtimes)|pack/tmp_\w+|pack/multi-pack-index|info/(packs|commit-graph|commit-graphs/.*))$`),
	}
	// Of these, which may have any name, the content says whether it is git's.
	textOf   = regexp.MustCompile(`(^|/)\.git(/modules/[^/]+)*(/(HEAD|[A-Z]+_HEAD|shallow|packed-refs|info/refs|(refs|logs)/.*))?$`)
	gitsText = regexp.MustCompile(`\A(([0-9a-f]{40}|[0-9a-f]{64})\b[^\n]*\n?|\^[0-9a-f]+\n|ref: [^\n]*\n?|gitdir: [^\n]*\n?|# pack-refs with:[^\n]*\n)*\z`)
)

var dirsOf = regexp.MustCompile(`(^|/)(__pycache__|\.pytest_cache(/v(/cache)?)?|\.git(/.*)?)$`)

// leftOut says whether an entry is not hashed, by its name; of a file, isData
// must say so, too. A directory is left out alone, not with what is in it.
func leftOut(rel string, dir bool) bool {
	// Few paths are looked at twice: most have none of these in them.
	if !strings.Contains(rel, ".git") && !strings.Contains(rel, "__pycache__") && !strings.Contains(rel, ".pytest_cache") {
		return false
	}
	if dir {
		return dirsOf.MatchString(rel)
	}
	return textOf.MatchString(rel) || slices.ContainsFunc(dataOf, func(r *regexp.Regexp) bool { return r.MatchString(rel) })
}

// isData says whether a file that leftOut names is git's by its content, too: a
// script may lie among the logs.
func (t *tree) isData(path, rel string) bool {
	if !textOf.MatchString(rel) {
		return true
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > min(maxText, maxTree-t.read) {
		return false
	}
	data, err := exec.ReadRegular(path, maxText)
	t.read += int64(len(data))
	return err == nil && gitsText.Match(data)
}

// maxText is more than a log of git's has, in bytes; a larger one is hashed.
const maxText = 16 << 20
