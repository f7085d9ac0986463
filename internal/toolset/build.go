package toolset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/env"
)

// HostPath is where the host backend looks for commands, in this order. It
// does not look at the caller's PATH: the result would depend on who builds.
var HostPath = []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"}

// HostBuild resolves a toolset from the files of this machine.
type HostBuild struct {
	Toolset *Toolset
	Dir     string    // where toolset.toml is; its requirements file is relative to it
	Out     string    // the directory to make: bin/, browsers/, dotfiles/, lib/, manifest.json
	State   string    // the manifest's state directory
	Without []string  // tools to leave out
	Environ []string  // for pip, which needs this machine's index and proxy settings
	Log     io.Writer // one line per step
}

// Run makes b.Out and gives its manifest. b.Out is replaced as a whole, by
// one rename, after everything in it is ready: a failed build leaves the
// earlier one as it was, and who runs tests meanwhile sees one or the other.
// Building twice on one machine gives the same bytes. All tools that cannot
// be resolved are reported together, each with its line in the toolset.
//
// The installed Python packages are kept beside b.Out, in python/KEY, so
// that only a change of the lock or of the interpreter installs them again.
func (b HostBuild) Run(ctx context.Context) (*Manifest, error) {
	if err := b.paths(); err != nil {
		return nil, err
	}
	unlock, err := lock(b.Out+".lock", false)
	if err != nil {
		return nil, err
	}
	defer unlock()

	m, err := b.resolve(ctx)
	if err != nil {
		return nil, err
	}
	site, err := b.installPython(ctx, m.Python.Commands[0])
	if err != nil {
		return nil, err
	}

	stage := b.Out + ".new"
	if err := os.RemoveAll(stage); err != nil {
		return nil, err
	}
	defer os.RemoveAll(stage) // the earlier b.Out after the exchange; half a build if it failed
	if err := b.fill(m, stage, site); err != nil {
		return nil, err
	}
	if m.Closure, err = b.closure(ctx, m, stage, site); err != nil {
		return nil, err
	}
	if m, err = m.Write(stage, b.Out); err != nil {
		return nil, err
	}
	return m, publish(stage, b.Out)
}

// paths makes all paths absolute and keeps a build from replacing a
// directory that is not one of its own.
func (b *HostBuild) paths() error {
	for _, p := range []*string{&b.Dir, &b.Out, &b.State} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		if *p = abs; p != &b.Dir && strings.ContainsAny(abs, ":\n") {
			return fmt.Errorf("%q: a \":\" would split PATH in two; choose another directory", abs)
		}
	}
	entries, err := os.ReadDir(b.Out)
	if errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(filepath.Dir(b.Out), 0o755)
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"bin", "browsers", "dotfiles", "lib", ManifestName, PlanName, "pyvenv.cfg"}, e.Name()) {
			return fmt.Errorf("--out %s: holds %s, which no build makes, so it is not replaced; choose a new directory", b.Out, e.Name())
		}
	}
	return nil
}

// fill makes the whole of Out in stage, but for the manifest, which it completes.
// Paths written into it are those that it has once it is published.
func (b HostBuild) fill(m *Manifest, stage string, site *pythonSite) (err error) {
	if err := linkTools(m.Tools, filepath.Join(stage, "bin")); err != nil {
		return err
	}
	if m.Python, err = b.fillPython(m.Python, stage, site); err != nil {
		return err
	}
	if m.Browsers, err = fillBrowsers(m.Browsers, filepath.Join(stage, "browsers"), site.Browsers); err != nil {
		return err
	}
	curlrc := filepath.Join(stage, "dotfiles/.curlrc")
	if err := os.Mkdir(filepath.Dir(curlrc), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(curlrc, nil, 0o644); err != nil {
		return err
	}
	return normalise(stage)
}

// linkTools makes the bin directory, with a link for each command.
func linkTools(tools []ResolvedTool, bin string) error {
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, t := range tools {
		for _, c := range t.Commands {
			// Of two tools with one command the earlier has it.
			if err := os.Symlink(c.Path, filepath.Join(bin, c.Name)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// fillPython makes stage the environment of the installed packages, with their
// scripts as commands.
func (b HostBuild) fillPython(resolved ResolvedPython, stage string, site *pythonSite) (ResolvedPython, error) {
	python := resolved.Commands[0].Path
	// The directory is itself the virtual environment: Python looks for
	// pyvenv.cfg beside the bin directory that it was started from, so that
	// "python3" is the toolset's in every child as well.
	if err := writeVenv(stage, python); err != nil {
		return resolved, err
	}
	if err := os.Symlink(filepath.Join(site.Dir, "lib"), filepath.Join(stage, "lib")); err != nil {
		return resolved, err
	}
	for _, name := range b.Toolset.Python.Commands {
		switch name {
		case "python3": // writeVenv's
		case "python":
			if err := os.Symlink(python, filepath.Join(stage, "bin", name)); err != nil {
				return resolved, err
			}
		default:
			script, err := b.fillScript(name, stage, site)
			if err != nil {
				return resolved, err
			}
			resolved.Commands = append(resolved.Commands, script)
		}
	}
	resolved.Version, resolved.Packages, resolved.Tree = site.Version, site.Packages, site.Tree
	resolved.Site = filepath.Join(b.Out, site.Lib)
	return resolved, nil
}

// fillScript copies a command that a Python package brings.
func (b HostBuild) fillScript(name, stage string, site *pythonSite) (Command, error) {
	dest := filepath.Join(stage, "bin", name)
	err := replaceIn(filepath.Join(site.Dir, "bin", name), dest, site.Dir, b.Out)
	if errors.Is(err, fs.ErrNotExist) {
		return Command{}, b.Toolset.file.Errorf("python.commands", "python: no package brings the command %s", name)
	}
	if err != nil {
		return Command{}, err
	}
	if err := os.Chtimes(dest, time.Time{}, time.Unix(env.BuildTime, 0)); err != nil {
		return Command{}, err
	}
	f, err := describe(dest)
	f.Inode = 0 // ours, and another at each build
	return Command{name, filepath.Join(b.Out, "bin", name), f}, err
}

// fillBrowsers lays out the browser's file as playwright looks for it, at paths in
// dir.
func fillBrowsers(resolved ResolvedBrowsers, dir string, paths []string) (ResolvedBrowsers, error) {
	browser := resolved.Launch[0]
	resolved.Launch = nil
	for _, path := range paths {
		link := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return resolved, err
		}
		if err := os.Symlink(browser.Path, link); err != nil {
			return resolved, err
		}
		revision, _, _ := strings.Cut(path, "/")
		if err := os.WriteFile(filepath.Join(dir, revision, "INSTALLATION_COMPLETE"), nil, 0o644); err != nil {
			return resolved, err
		}
		resolved.Launch = append(resolved.Launch, Command{path, browser.Path, browser.File})
	}
	tree, err := HashTree(dir, 0)
	resolved.Tree = tree
	return resolved, err
}

// normalise sets the times of everything below root to BuildTime.
func normalise(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ts := []unix.Timespec{{Sec: env.BuildTime}, {Sec: env.BuildTime}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// publish puts stage in the place of out in one step. What was in out is in
// stage afterwards.
func publish(stage, out string) error {
	err := unix.Renameat2(unix.AT_FDCWD, stage, unix.AT_FDCWD, out, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(stage, out)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", out, err)
	}
	return nil
}

// lock takes the lock at path. If another build has it, it waits or says so.
func lock(path string, wait bool) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: another build is under way; wait for it to end", path)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
