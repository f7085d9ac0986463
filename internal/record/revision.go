package record

import (
	"os"
	"path/filepath"
	"strings"

	"cc-ci-run/internal/exec"
)

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
	packed, err := exec.ReadRegular(filepath.Join(common, "packed-refs"), 16<<20)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(packed)) {
		if sum, name, _ := strings.Cut(strings.TrimSpace(line), " "); name == ref {
			return commit(sum)
		}
	}
	return ""
}

// commit is s if that is a commit's name, SHA-1 or SHA-256.
func commit(s string) string {
	if len(s) != 40 && len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return ""
	}
	return s
}

func join(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// line is the first line of a file, "" if it cannot be read. Git's own are
// shorter than 4 KiB.
func line(path string) string {
	data, err := exec.ReadRegular(path, 4<<10)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(first)
}
