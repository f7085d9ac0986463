package sweep

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"cc-ci-run/internal/record"
)

// uncommitted says how a work tree differs from its commit, a file each: the
// content of each file is held against what the commit has. git's own index is
// not asked, as it can be told to overlook files, and neither are .gitignore
// and filters: what is not in the commit does not run where it is deployed from.
func (s *sweep) uncommitted(dir, commit string) ([]string, error) {
	if s.Git == "" {
		return nil, errors.New("the toolset has no git, which says whether the folder is that of its commit")
	}
	// No configuration but the command's: a repository can name programs in its own.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Git, "--no-replace-objects", "-c", "safe.directory=*", "-C", dir, "ls-tree", "-r", "-z", "--full-tree", commit)
	cmd.Env = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_NO_LAZY_FETCH=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}
	list, err := s.runs.Other(cmd)
	if ctx.Err() != nil {
		err = errors.New("did not end within a minute")
	}
	if err != nil {
		return nil, fmt.Errorf("git ls-tree %.12s: %w", commit, err)
	}
	committed := map[string]entry{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		// MODE TYPE OBJECT\tPATH
		about, path, ok := strings.Cut(line, "\t")
		if fields := strings.Fields(about); ok && len(fields) == 3 && !leftOut(path, false) {
			committed[path] = entry{fields[0], fields[2]}
		}
	}
	var differences []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		want, known := committed[rel]
		switch {
		case rel == ".git":
			return skipDir(d)
		case d.IsDir() && want.mode == modeSubmodule:
			delete(committed, rel)
			more, err := s.submodule(path, rel, want)
			differences = append(differences, more...)
			return cmp.Or(err, fs.SkipDir)
		case d.IsDir() && known:
			delete(committed, rel)
			differences = append(differences, rel+" is changed")
			return nil
		case d.IsDir(), leftOut(rel, false):
			return nil
		case !known:
			differences = append(differences, rel+" is not in it")
			return nil
		}
		delete(committed, rel)
		have, err := describe(path, d, len(want.object))
		if err == nil && have != want {
			differences = append(differences, rel+" is changed")
		}
		return err
	})
	for path, e := range committed {
		if e.mode != modeSubmodule { // one that was not checked out is an empty folder
			differences = append(differences, path+" is removed")
		}
	}
	return differences, err
}

// entry is a file as a tree of git has it.
type entry struct{ mode, object string }

// The modes of git's trees (git-fast-import(1), "filemodify").
const (
	modeFile       = "100644"
	modeExecutable = "100755"
	modeLink       = "120000"
	modeSubmodule  = "160000"
)

func skipDir(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// describe is what git would make of a file, without filters.
func describe(path string, d fs.DirEntry, length int) (entry, error) {
	var data io.Reader
	var size int64
	mode := modeFile
	if d.Type() == fs.ModeSymlink {
		target, err := os.Readlink(path)
		if err != nil {
			return entry{}, err
		}
		mode, data, size = modeLink, strings.NewReader(target), int64(len(target))
	} else {
		info, err := d.Info()
		if err != nil {
			return entry{}, err
		}
		if !info.Mode().IsRegular() {
			return entry{mode: "special"}, nil
		}
		if info.Mode()&0o100 != 0 {
			mode = modeExecutable
		}
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			return entry{}, err
		}
		defer f.Close()
		data, size = io.LimitReader(f, info.Size()), info.Size()
	}
	var h hash.Hash = sha1.New()
	if length == hex.EncodedLen(sha256.Size) {
		h = sha256.New()
	}
	fmt.Fprintf(h, "blob %d\x00", size)
	_, err := io.Copy(h, data)
	return entry{mode, hex.EncodeToString(h.Sum(nil))}, err
}

// submodule says how a submodule's folder differs from the commit that its
// work tree names.
func (s *sweep) submodule(dir, rel string, want entry) ([]string, error) {
	switch commit := commitOf(dir); {
	case commit == "":
		if list, _ := os.ReadDir(dir); len(list) == 0 {
			return nil, nil // not checked out
		}
		return []string{rel + " is not the submodule that it should be"}, nil
	case commit != want.object:
		return []string{fmt.Sprintf("%s is at %.12s, should be at %.12s", rel, record.Revision(dir), want.object)}, nil
	}
	list, err := s.uncommitted(dir, want.object)
	for i := range list {
		list[i] = rel + "/" + list[i]
	}
	return list, err
}
