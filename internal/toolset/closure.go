package toolset

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cc-ci-run/internal/debian"
	ccexec "cc-ci-run/internal/exec"
)

// Executable lists what a sealed run may execute (see exec.Executable).
func (m *Manifest) Executable() []string { return m.executables() }

// MayExecute says whether a sealed run may execute a file, by its path without
// links. The kernel goes by the file itself: another hard link to one that is
// listed may be executed as well.
func (m *Manifest) MayExecute(file string) bool {
	list := m.executables()
	for {
		if _, ok := slices.BinarySearch(list, file); ok {
			return true
		}
		parent := filepath.Dir(file)
		if parent == file {
			return false
		}
		file = parent
	}
}

// follow adds a file to the set, and those that the kernel executes with it,
// as long as they are wanted.
func follow(set map[string]bool, file string, wanted func(interpreter string) bool) {
	for i, file := range ccexec.WithInterpreters(file) {
		if i > 0 && !wanted(file) {
			return
		}
		set[file] = true
	}
}

// closure lists the files that runs may execute on the host backend:
//
//   - what the commands are, with their interpreters, whatever these are;
//   - the executables among the installed Python packages (playwright's node);
//   - the private executables of the toolset's Debian packages and of the
//     packages that they depend on: those outside the directories of PATH,
//     which programs start by a path of their own (git-core, chromium's). Of
//     /usr/bin and the like nothing comes along that is not declared, not as
//     an interpreter either.
//
// All are files: a program that somebody puts beside them is not one. stage is
// where the build is made, site what was installed for Python.
func (b HostBuild) closure(ctx context.Context, m *Manifest, stage string, site *pythonSite) ([]string, error) {
	set := map[string]bool{}
	always := func(string) bool { return true }
	for _, t := range m.Tools {
		for _, c := range t.Commands {
			follow(set, c.Path, always)
		}
	}
	// Ours are in the stage as yet, and their interpreter is Python. Landlock
	// does not mind links in the path of the directory; MayExecute does.
	parent, err := filepath.EvalSymlinks(filepath.Dir(b.Out))
	if err != nil {
		return nil, err
	}
	for _, c := range m.Python.Commands {
		if name, ours := strings.CutPrefix(c.Path, m.Bin+"/"); ours {
			set[filepath.Join(parent, filepath.Base(b.Out), "bin", name)] = true
		} else {
			follow(set, c.Path, always)
		}
	}
	for _, c := range m.Browsers.Launch {
		follow(set, ccexec.Resolve(c.Path), always)
	}

	private, err := b.privateExecutables(ctx, m)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(filepath.Join(site.Dir, "lib"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && ccexec.IsExecutable(path) {
			private = append(private, path)
		}
		return err
	})
	for _, path := range private {
		follow(set, path, func(interpreter string) bool { return !onPath(interpreter) })
	}
	return slices.Sorted(maps.Keys(set)), err
}

// onPath says whether a file is in a directory that a PATH may name.
func onPath(file string) bool {
	return slices.Contains(HostPath, filepath.Dir(file)) || strings.HasPrefix(file, "/usr/local/")
}

// privateExecutables lists the executables, outside the directories of PATH, of the
// Debian packages that the toolset needs and of those that they depend on. A machine
// without dpkg has none.
func (b HostBuild) privateExecutables(ctx context.Context, m *Manifest) ([]string, error) {
	files, err := debian.Files(ctx, b.wanted(m))
	var list []string
	for _, path := range files {
		if path = "/" + strings.TrimPrefix(strings.TrimPrefix(path, "/usr"), "/"); !isPrivate(path) {
			continue
		}
		for _, path := range []string{"/usr" + path, path} { // before and after the merge of / and /usr
			if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				list = append(list, ccexec.Resolve(path))
				break
			}
		}
	}
	return list, err
}

// isPrivate says whether a file of a package, below / or /usr, is where
// programs keep what only they start.
func isPrivate(path string) bool {
	if strings.HasPrefix(path, "/share/doc/") || strings.HasPrefix(path, "/share/bug/") {
		return false // what people read, and reportbug runs
	}
	for _, dir := range []string{"/lib/", "/lib32/", "/lib64/", "/libx32/", "/libexec/", "/share/"} {
		if strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}

// wanted are the packages of the tools that this environment has.
func (b HostBuild) wanted(m *Manifest) []string {
	t := *b.Toolset
	t.Tools = slices.DeleteFunc(slices.Clone(t.Tools), func(tool Tool) bool { return !b.has(tool) })
	list := t.Packages()
	brought := slices.Clone(m.Browsers.Packages)
	for _, tool := range m.Tools {
		brought = append(brought, tool.Packages...)
	}
	for _, p := range brought {
		list = append(list, p.Name)
	}
	return list
}
