package toolset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/debian"
	"cc-ci-run/internal/env"
)

// resolve finds all files and versions; it makes nothing. What cannot be found is
// reported together.
func (b HostBuild) resolve(ctx context.Context) (*Manifest, error) {
	t := b.Toolset
	fmt.Fprintf(b.Log, "resolving %d tools in %s\n", len(t.Tools), strings.Join(HostPath, ", "))
	errs := multierror.Append(nil, b.checkWithout())
	tools, err := b.findTools()
	errs = multierror.Append(errs, err)
	python, err := b.findPython()
	errs = multierror.Append(errs, err)
	browser, err := b.findBrowser()
	errs = multierror.Append(errs, err, b.checkHostPaths())
	if err := errs.ErrorOrNil(); err != nil {
		return nil, err
	}

	commands := []Command{browser}
	for _, tool := range tools {
		commands = append(commands, tool.Commands...)
	}
	owners := b.owners(ctx, commands)
	for i := range tools {
		tools[i].Packages = packagesOf(tools[i].Commands, owners)
	}
	bin, browsers := filepath.Join(b.Out, "bin"), filepath.Join(b.Out, "browsers")
	return t.manifest(Manifest{
		Backend: BackendHost, State: b.State,
		Bin:         bin,
		Interpreter: filepath.Join(bin, "python3"),
		Tools:       tools,
		Python:      ResolvedPython{Why: t.Python.Why, Commands: python},
		Browsers:    ResolvedBrowsers{Path: browsers, Packages: packagesOf([]Command{browser}, owners), Launch: []Command{browser}},
		Absent:      b.absent(),
		Shadowed:    b.shadowed(),
	}, t.Environment.Host), nil
}

// has says whether a tool is in this environment: it is not left out.
func (b HostBuild) has(tool Tool) bool { return !slices.Contains(b.Without, tool.Name) }

// checkWithout finds names that are no tool's among those to leave out.
func (b HostBuild) checkWithout() error {
	var errs *multierror.Error
	var names []string
	for _, tool := range b.Toolset.Tools {
		names = append(names, tool.Name)
	}
	for _, w := range b.Without {
		if !slices.Contains(names, w) {
			errs = multierror.Append(errs, fmt.Errorf("--without %s: no such tool in the toolset%s", w, env.Suggest(w, names)))
		}
	}
	return errs.ErrorOrNil()
}

// absent are the tools that are left out.
func (b HostBuild) absent() []Absent {
	list := []Absent{}
	for _, tool := range b.Toolset.Tools {
		if !b.has(tool) {
			list = append(list, Absent{tool.Name, tool.Why, tool.Commands})
		}
	}
	return list
}

// shadowed are the commands that an earlier tool has, too.
func (b HostBuild) shadowed() []Shadowed {
	list := []Shadowed{}
	owner := map[string]string{} // command -> tool
	for _, tool := range b.Toolset.Tools {
		if !b.has(tool) {
			continue
		}
		for _, name := range tool.Commands {
			if by, ok := owner[name]; ok {
				list = append(list, Shadowed{Command: name, Tool: tool.Name, By: by})
			} else {
				owner[name] = tool.Name
			}
		}
	}
	return list
}

func (b HostBuild) findTools() ([]ResolvedTool, error) {
	var errs *multierror.Error
	var list []ResolvedTool
	for i, tool := range b.Toolset.Tools {
		if b.has(tool) {
			resolved, err := b.findTool(fmt.Sprintf("tool[%d]", i), tool)
			errs = multierror.Append(errs, err)
			list = append(list, resolved)
		}
	}
	return list, errs.ErrorOrNil()
}

// findTool finds the commands of a tool, whose key in the toolset's file is key.
func (b HostBuild) findTool(key string, tool Tool) (ResolvedTool, error) {
	var errs *multierror.Error
	resolved := ResolvedTool{Name: tool.Name, Why: tool.Why}
	var missing []string
	for _, name := range tool.Commands {
		c, err := find(name, tool.Files[name])
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, name)
		} else if err != nil {
			errs = multierror.Append(errs, b.Toolset.file.Errorf(key+".commands", "%s: %v", tool.Name, err))
		}
		resolved.Commands = append(resolved.Commands, c)
	}
	if len(missing) > 0 {
		what := tool.Name
		if len(tool.Commands) > 1 {
			what += ": " + strings.Join(missing, ", ")
		}
		fix := "Debian: apt-get install " + tool.Debian
		if tool.Debian == "" {
			fix = "Debian has no package: build with --without " + tool.Name
		}
		errs = multierror.Append(errs, b.Toolset.file.Errorf(key+".name", "%s: not found in %s (%s)", what, strings.Join(HostPath, ", "), fix))
	}
	return resolved, errs.ErrorOrNil()
}

// findPython finds the interpreter, and gives it by those of its names that the
// toolset declares.
func (b HostBuild) findPython() ([]Command, error) {
	python, err := find("python3", "")
	if err != nil {
		return nil, b.Toolset.file.Errorf("python", "python3: not found in %s (Debian: apt-get install %s)", strings.Join(HostPath, ", "), b.Toolset.Python.Debian)
	}
	var list []Command
	for _, name := range []string{"python3", "python"} {
		if slices.Contains(b.Toolset.Python.Commands, name) {
			list = append(list, Command{name, python.Path, python.File})
		}
	}
	return list, nil
}

func (b HostBuild) findBrowser() (Command, error) {
	declared := b.Toolset.Browsers
	file, err := describe(declared.Host)
	if err == nil {
		err = unix.Access(declared.Host, unix.X_OK)
	}
	if err != nil {
		err = b.Toolset.file.Errorf("browsers.host", "browsers: %v (Debian: apt-get install %s)", err, declared.Debian)
	}
	return Command{Path: declared.Host, File: file}, err
}

func (b HostBuild) checkHostPaths() error {
	var errs *multierror.Error
	for i, p := range b.Toolset.Host.Paths {
		if _, err := os.Stat(p); err != nil {
			errs = multierror.Append(errs, b.Toolset.file.Errorf(fmt.Sprintf("host.paths[%d]", i), "host: %v (Debian: apt-get install %s)", err, b.Toolset.Host.Debian))
		}
	}
	return errs.ErrorOrNil()
}

// find resolves a command of the host: file if the toolset names one, else
// the first executable file of that name in HostPath.
func find(name, file string) (Command, error) {
	candidates := []string{file}
	if file == "" {
		candidates = nil
		for _, dir := range HostPath {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	for _, path := range candidates {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		// The file itself, so that a change of /etc/alternatives is no change here.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return Command{Name: name}, err
		}
		f, err := describe(path)
		return Command{name, path, f}, err
	}
	return Command{Name: name}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// owners gives the Debian packages that brought commands, by the commands' files. A
// machine without dpkg, or a file that no package has, gives none.
func (b HostBuild) owners(ctx context.Context, commands []Command) map[string]Package {
	if !debian.Here() {
		fmt.Fprintln(b.Log, "no dpkg on this machine: the manifest has no versions, and the seal knows no private executables")
		return nil
	}
	old := func(path string) string { return strings.TrimPrefix(path, "/usr") } // before the merge of / and /usr
	var paths []string
	for _, c := range commands {
		paths = append(paths, c.Path, old(c.Path))
	}
	names := debian.Owners(ctx, paths)
	versions := debian.Versions(ctx, slices.Sorted(maps.Values(names)))
	owners := map[string]Package{}
	for _, c := range commands {
		if name := cmp.Or(names[c.Path], names[old(c.Path)]); name != "" {
			owners[c.Path] = Package{name, versions[name]}
		}
	}
	return owners
}

// packagesOf are those that brought some commands, sorted by name.
func packagesOf(commands []Command, owners map[string]Package) []Package {
	list := []Package{}
	for _, c := range commands {
		if owner, ok := owners[c.Path]; ok {
			list = append(list, owner)
		}
	}
	slices.SortFunc(list, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return slices.Compact(list)
}
