package toolset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/google/renameio/v2"

	"cc-ci-run/internal/finding"
)

// stat describes the file that path leads to, without reading it.
func stat(path string) (File, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, nil, err
	}
	s := info.Sys().(*syscall.Stat_t)
	return File{Size: s.Size, MTime: s.Mtim.Nano(), Inode: s.Ino}, info, nil
}

// hashFile is the SHA-256 of a file's content, in hex.
func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// describe is stat and hash.
func describe(path string) (*File, error) {
	f, _, err := stat(path)
	if err == nil {
		f.SHA256, err = hashFile(path)
	}
	return &f, err
}

// writeFile puts data at path in one step, synced: a crash leaves the earlier
// file or this one. The temporary file is beside it, not in TMPDIR, which is
// the caller's.
func writeFile(path string, data []byte, mode os.FileMode) error {
	return renameio.WriteFile(path, data, mode, renameio.IgnoreUmask(), renameio.WithTempDir(filepath.Dir(path)))
}

// HashTree is the SHA-256 over a directory's content, in hex: names, kinds,
// execute bits, contents and link targets, in the order of names. Times and
// owners are not part of it, nor are entries with one of the names in skip.
// If limit is not 0, a tree with more bytes than that in files is an error.
func HashTree(root string, limit int64, skip ...string) (string, error) {
	t := tree{hash: sha256.New(), limit: limit, skip: skip}
	return t.sum(root)
}

// tree is a HashTree under way.
type tree struct {
	hash  hash.Hash
	limit int64
	skip  []string
	read  int64
}

func (t *tree) sum(root string) (string, error) {
	root, err := filepath.EvalSymlinks(root)
	if err == nil {
		err = t.walk(root, root)
	}
	return hex.EncodeToString(t.hash.Sum(nil)), err
}

// walk hashes what is below a directory: root, or one that a link leads to.
func (t *tree) walk(root, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case slices.Contains(t.skip, d.Name()) && path != dir:
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
			fmt.Fprintf(t.hash, "dir %q\n", name)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(t.hash, "link %q %q\n", name, target)
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			return t.file(root, path, name, info)
		default:
			fmt.Fprintf(t.hash, "%s %q\n", d.Type(), name)
		}
		return nil
	})
}

func (t *tree) file(root, path, name string, info fs.FileInfo) error {
	if t.read += info.Size(); t.limit > 0 && t.read > t.limit {
		return fmt.Errorf("%s: holds more than %d MiB", root, t.limit>>20)
	}
	sum, err := hashFile(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.hash, "file %q %t %s\n", name, info.Mode()&0o111 != 0, sum)
	return nil
}

// changed compares each file of the host backend with the manifest: what
// every run looks at, and the content of those that look unchanged.
func (m *Manifest) changed() []finding.Finding {
	list := faults(m.Compile("").Changed())
	known := map[string]bool{}
	for _, f := range list {
		known[f.What] = true
	}
	m.files(func(c Command, path string) {
		if known[c.Name] || c.File == nil {
			return
		}
		if sum, err := hashFile(path); err != nil || sum != c.File.SHA256 {
			list = append(list, result(finding.Fault, c.Name, "changed its content ("+c.Path+")", "run `make build`"))
		}
	})
	return list
}

// files calls f with each command's file of the host backend, by the path
// that leads to it.
func (m *Manifest) files(f func(c Command, path string)) {
	for _, t := range m.Tools {
		for _, c := range t.Commands {
			if m.commands[c.Name].Path == c.Path { // not shadowed
				f(c, filepath.Join(m.Bin, c.Name))
			}
		}
	}
	for _, c := range m.Python.Commands {
		f(c, filepath.Join(m.Bin, c.Name))
	}
	for _, c := range m.Browsers.Launch {
		f(c, filepath.Join(m.Browsers.Path, c.Name))
	}
}

// dirs are those to which nothing may be added, as an entry would be found
// before, or instead of, what was declared. (Two are files.)
func (m *Manifest) dirs() []string {
	return []string{m.Bin, m.Python.Site, filepath.Join(m.Bin, "../pyvenv.cfg"), m.curlrc()}
}

// curlrc is an empty file in {dotfiles}, a directory that takes the place of a home
// for curl (CURL_HOME), on both backends. curl reads the first .curlrc that it finds,
// and would otherwise find the one in the home that the password database names,
// whatever HOME is (docs/home.md).
func (m *Manifest) curlrc() string { return filepath.Join(m.Bin, "../dotfiles/.curlrc") }
