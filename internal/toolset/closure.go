package toolset

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// privateExecutables asks dpkg for the executables, outside the directories of
// PATH, of the packages that the toolset needs and of those that they depend
// on. A machine without dpkg has none.
func (b HostBuild) privateExecutables(ctx context.Context, m *Manifest) ([]string, error) {
	out, err := dpkg(ctx, "--show", "--showformat=${db:Status-Abbrev}\t${Package}\t${binary:Package}\t${Pre-Depends}, ${Depends}\t${Provides}\n")
	if len(out) == 0 || err != nil {
		return nil, err
	}
	depends := map[string][]string{}  // package -> those that it depends on, or could
	instance := map[string][]string{} // package -> its names with the architecture
	provider := map[string][]string{} // virtual package -> those that stand for it
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 5 || !strings.HasPrefix(f[0], "ii") {
			continue
		}
		name := f[1]
		depends[name] = append(depends[name], packageNames(f[3])...)
		instance[name] = append(instance[name], f[2])
		for _, virtual := range packageNames(f[4]) {
			provider[virtual] = append(provider[virtual], name)
		}
	}

	wanted := b.wanted(m)
	seen := map[string]bool{}
	var args []string
	for len(wanted) > 0 {
		name := wanted[len(wanted)-1]
		wanted = wanted[:len(wanted)-1]
		if seen[name] {
			continue
		}
		seen[name] = true
		args = append(args, instance[name]...)
		wanted = append(append(wanted, depends[name]...), provider[name]...)
	}
	if len(args) == 0 {
		return nil, nil
	}
	slices.Sort(args)
	if out, err = dpkg(ctx, append([]string{"--listfiles", "--"}, args...)...); err != nil {
		return nil, err
	}
	var list []string
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSpace(path)
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
	return list, nil
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
	t.Tools = slices.DeleteFunc(slices.Clone(t.Tools), func(tool Tool) bool { return slices.Contains(b.Without, tool.Name) })
	list := t.Packages()
	add := func(packages []Package) {
		for _, p := range packages {
			name, _, _ := strings.Cut(p.Name, ":")
			list = append(list, name)
		}
	}
	for _, tool := range m.Tools {
		add(tool.Packages)
	}
	add(m.Browsers.Packages)
	return list
}

// packageNames are those in a field like "a (>= 1), b:any | c".
func packageNames(field string) []string {
	var names []string
	for _, one := range strings.FieldsFunc(field, func(r rune) bool { return r == ',' || r == '|' }) {
		if one = strings.TrimSpace(one); one != "" {
			names = append(names, one[:strings.IndexAny(one+" ", " (:")])
		}
	}
	return names
}
