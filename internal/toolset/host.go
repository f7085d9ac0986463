package toolset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-multierror"
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
	Out     string    // the directory to make: bin/, browsers/, lib/, manifest.json
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
	site, err := b.installPython(ctx, m)
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
		if !slices.Contains([]string{"bin", "browsers", "lib", ManifestName, PlanName, "pyvenv.cfg"}, e.Name()) {
			return fmt.Errorf("--out %s: holds %s, which no build makes, so it is not replaced; choose a new directory", b.Out, e.Name())
		}
	}
	return nil
}

// resolve finds all files and versions; it makes nothing.
func (b HostBuild) resolve(ctx context.Context) (*Manifest, error) {
	t := b.Toolset
	m := t.manifest(Manifest{
		Backend: BackendHost, State: b.State,
		Bin:         filepath.Join(b.Out, "bin"),
		Interpreter: filepath.Join(b.Out, "bin", "python3"),
		Python:      ResolvedPython{Why: t.Python.Why},
		Browsers:    ResolvedBrowsers{Path: filepath.Join(b.Out, "browsers")},
	}, t.Environment.Host)
	var errs *multierror.Error

	names := []string{}
	for _, tool := range t.Tools {
		names = append(names, tool.Name)
	}
	for _, w := range b.Without {
		if !slices.Contains(names, w) {
			errs = multierror.Append(errs, fmt.Errorf("--without %s: no such tool in the toolset%s", w, env.Suggest(w, names)))
		}
	}

	fmt.Fprintf(b.Log, "resolving %d tools in %s\n", len(t.Tools), strings.Join(HostPath, ", "))
	owner := map[string]string{} // command -> tool
	for i, tool := range t.Tools {
		key := fmt.Sprintf("tool[%d]", i)
		if slices.Contains(b.Without, tool.Name) {
			m.Absent = append(m.Absent, Absent{tool.Name, tool.Why, tool.Commands})
			continue
		}
		resolved := ResolvedTool{Name: tool.Name, Why: tool.Why}
		var missing []string
		for _, name := range tool.Commands {
			if by, ok := owner[name]; ok {
				m.Shadowed = append(m.Shadowed, Shadowed{Command: name, Tool: tool.Name, By: by})
			} else {
				owner[name] = tool.Name
			}
			c, err := find(name, tool.Files[name])
			if errors.Is(err, fs.ErrNotExist) {
				missing = append(missing, name)
			} else if err != nil {
				errs = multierror.Append(errs, t.file.Errorf(key+".commands", "%s: %v", tool.Name, err))
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
			errs = multierror.Append(errs, t.file.Errorf(key+".name", "%s: not found in %s (%s)", what, strings.Join(HostPath, ", "), fix))
		}
		m.Tools = append(m.Tools, resolved)
	}

	python, err := find("python3", "")
	if err != nil {
		errs = multierror.Append(errs, t.file.Errorf("python", "python3: not found in %s (Debian: apt-get install %s)", strings.Join(HostPath, ", "), t.Python.Debian))
	}
	for _, name := range []string{"python3", "python"} {
		if slices.Contains(t.Python.Commands, name) {
			m.Python.Commands = append(m.Python.Commands, Command{name, python.Path, python.File})
		}
	}
	browser, err := describe(t.Browsers.Host)
	if err == nil {
		err = unix.Access(t.Browsers.Host, unix.X_OK)
	}
	if err != nil {
		errs = multierror.Append(errs, t.file.Errorf("browsers.host", "browsers: %v (Debian: apt-get install %s)", err, t.Browsers.Debian))
	}
	m.Browsers.Launch = []Command{{Path: t.Browsers.Host, File: browser}}
	for i, p := range t.Host.Paths {
		if _, err := os.Stat(p); err != nil {
			errs = multierror.Append(errs, t.file.Errorf(fmt.Sprintf("host.paths[%d]", i), "host: %v (Debian: apt-get install %s)", err, t.Host.Debian))
		}
	}
	if err := errs.ErrorOrNil(); err != nil {
		return nil, err
	}

	return m, b.versions(ctx, m)
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

// versions asks dpkg which package each file belongs to, and its version. A
// machine without dpkg, or a file that no package owns, gives none.
func (b HostBuild) versions(ctx context.Context, m *Manifest) error {
	if _, err := os.Stat(dpkgQuery); err != nil {
		fmt.Fprintln(b.Log, "no dpkg on this machine: the manifest has no versions, and the seal knows no private executables")
		return nil
	}
	// dpkg knows a file by the name it was packaged under, which before the
	// merge of / and /usr may have been /bin/…: ask for both.
	aliases := func(path string) []string { return []string{path, strings.TrimPrefix(path, "/usr")} }
	var paths []string
	for _, t := range m.Tools {
		for _, c := range t.Commands {
			paths = append(paths, aliases(c.Path)...)
		}
	}
	paths = append(paths, m.Browsers.Launch[0].Path)
	run := func(args ...string) []byte {
		out, _ := dpkg(ctx, args...) // exit 1: some path has no owner, which is fine
		return out
	}
	owners := map[string]string{} // path -> package
	for line := range strings.Lines(string(run(append([]string{"--search", "--"}, paths...)...))) {
		pkgs, path, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && !strings.HasPrefix(line, "diversion by") {
			owner, _, _ := strings.Cut(pkgs, ",")
			owners[path] = owner
		}
	}
	versions := map[string]string{}
	args := append([]string{"--show", "--showformat=${binary:Package} ${Version}\n${Package} ${Version}\n", "--"}, slices.Sorted(maps.Values(owners))...)
	if len(owners) > 0 {
		for line := range strings.Lines(string(run(args...))) {
			name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
			versions[name] = version
		}
	}
	packages := func(commands []Command) []Package {
		list := []Package{}
		for _, c := range commands {
			for _, path := range aliases(c.Path) {
				if o := owners[path]; o != "" {
					list = append(list, Package{o, versions[o]})
					break
				}
			}
		}
		slices.SortFunc(list, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
		return slices.Compact(list)
	}
	for i := range m.Tools {
		m.Tools[i].Packages = packages(m.Tools[i].Commands)
	}
	m.Browsers.Packages = packages(m.Browsers.Launch)
	return nil
}

const dpkgQuery = "/usr/bin/dpkg-query"

// dpkg asks Debian's package database. A machine without dpkg says nothing.
func dpkg(ctx context.Context, args ...string) ([]byte, error) {
	if _, err := os.Stat(dpkgQuery); err != nil {
		return nil, nil
	}
	cmd := exec.CommandContext(ctx, dpkgQuery, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		err = fmt.Errorf("%s %s: %w", dpkgQuery, args[0], err)
	}
	return out, err
}

// pythonSite is what installPython made, and the mark that it is complete.
type pythonSite struct {
	Dir      string    `json:"-"`       // python/KEY
	Lib      string    `json:"lib"`     // site-packages, relative to Dir
	Version  string    `json:"version"` // of Python
	Tree     string    `json:"tree"`
	Packages []Package `json:"packages"`
	Browsers []string  `json:"browsers"` // where this playwright looks for its browsers, relative
}

// installPython installs the locked packages into python/KEY beside Out,
// unless that is done already. KEY stands for all that the result depends on.
func (b HostBuild) installPython(ctx context.Context, m *Manifest) (*pythonSite, error) {
	t := b.Toolset
	lockfile := t.Python.Requirements
	if !filepath.IsAbs(lockfile) {
		lockfile = filepath.Join(b.Dir, lockfile)
	}
	pins, err := os.ReadFile(lockfile)
	if err != nil {
		return nil, t.file.Errorf("python.requirements", "python: requirements: %v", err)
	}
	var errs *multierror.Error
	for i, p := range t.Python.Packages {
		if !strings.Contains("\n"+normal(string(pins)), "\n"+normal(p)+"==") {
			errs = multierror.Append(errs, t.file.Errorf(fmt.Sprintf("python.packages[%d]", i), "python: %s is not pinned in %s: run `make lock`", p, t.Python.Requirements))
		}
	}
	if err := errs.ErrorOrNil(); err != nil {
		return nil, err
	}

	python := m.Python.Commands[0]
	h := sha256.New()
	fmt.Fprintf(h, "form 3\n%s %s\n%q\n%s", python.Path, python.File.SHA256, t.Python.Packages, pins)
	cache, unlock, err := pythonCache(filepath.Join(filepath.Dir(b.Out), "python"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	site := &pythonSite{Dir: filepath.Join(cache, hex.EncodeToString(h.Sum(nil))[:16])}
	if data, err := os.ReadFile(filepath.Join(site.Dir, "complete.json")); err == nil && json.Unmarshal(data, site) == nil {
		if tree, err := HashTree(filepath.Join(site.Dir, "lib"), 0); err == nil && tree == site.Tree {
			return site, nil
		}
		fmt.Fprintf(b.Log, "the Python packages in %s changed since they were installed: installing them again\n", site.Dir)
	}

	fmt.Fprintf(b.Log, "installing Python packages: %s\n", strings.Join(t.Python.Packages, " "))
	// Beside its place, since runs may be using what is there now.
	// Always of one name, as pip writes it into scripts and takes their hashes.
	stage := site.Dir + ".new"
	if err := os.RemoveAll(stage); err != nil {
		return nil, err
	}
	defer os.RemoveAll(stage) // the damaged one after the exchange; half an installation if it failed
	if err := os.Mkdir(stage, 0o755); err != nil {
		return nil, err
	}
	if err := b.installInto(ctx, stage, lockfile, python.Path, site); err != nil {
		return nil, err
	}
	data, err := json.Marshal(site)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(stage, "complete.json"), data, 0o644); err != nil {
		return nil, err
	}
	return site, publish(stage, site.Dir)
}

// installInto makes stage a virtual environment with the locked packages, as
// if it was site.Dir already, and says in site what it holds.
func (b HostBuild) installInto(ctx context.Context, stage, lockfile, python string, site *pythonSite) error {
	if err := os.Mkdir(filepath.Join(stage, "bin"), 0o755); err != nil {
		return err
	}
	if err := writeVenv(stage, python); err != nil {
		return err
	}
	environ := installEnvironment(b.Environ)
	run := func(name string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = environ
		cmd.Dir = stage // -m and -c look into the working directory for modules
		// A group of its own, so that pip's own children end with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return nil, errors.New("interrupted")
		}
		if err != nil {
			return nil, fmt.Errorf("python: %s: %w\n%s", strings.Join(args[:min(4, len(args))], " "), err, bytes.TrimSpace(append(out, stderr.Bytes()...)))
		}
		return out, nil
	}
	// The host's pip installs into the new environment, which has none of its
	// own. Wheels only: a source package would run its own code here.
	venv := filepath.Join(stage, "bin", "python3")
	if _, err := run(python, "-m", "pip", "--python", venv, "install", "--quiet", "--no-input", "--no-compile", "--no-user",
		"--no-warn-script-location", "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes", "-r", lockfile); err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("%w\n(without pip: Debian: apt-get install %s)", err, b.Toolset.Python.Debian)
		}
		return err
	}
	out, err := run(venv, "-c", describePython, strings.Join(b.Toolset.Python.Packages, ","))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, site); err != nil {
		return err
	}
	scripts, err := filepath.Glob(filepath.Join(stage, "bin", "*"))
	if err != nil {
		return err
	}
	for _, path := range scripts {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := replaceIn(path, path, stage, site.Dir); err != nil {
			return err
		}
	}
	if err := normalise(stage); err != nil { // first: the byte code holds the sources' times
		return err
	}
	if _, err := run(venv, "-m", "compileall", "-q", "-j", "1", "-s", stage, "-p", site.Dir, filepath.Join(stage, site.Lib)); err != nil {
		return err
	}
	if err := normalise(stage); err != nil {
		return err
	}
	site.Tree, err = HashTree(filepath.Join(stage, "lib"), 0)
	return err
}

// installEnvironment is what pip gets of the environment of who builds: where
// packages come from and how to reach them, and no variable that would put
// them elsewhere.
func installEnvironment(caller []string) []string {
	environ := slices.DeleteFunc(slices.Clone(caller), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		pip := env.Match([]string{"PIP_*INDEX*", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_CERT", "PIP_*TIMEOUT", "PIP_RETRIES", "PIP_CONFIG_FILE", "PIP_*CACHE*"}, name) != ""
		return strings.HasPrefix(name, "PIP_") && !pip || env.ForbiddenBy(name) != "" && name != "PATH"
	})
	return append(environ, "PYTHONHASHSEED=0", "PYTHONNOUSERSITE=1")
}

// replaceIn copies a script with every old replaced by new.
func replaceIn(from, to, old, new string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, bytes.ReplaceAll(data, []byte(old), []byte(new)), 0o755)
}

// pythonCache makes and locks the directory of installed packages. It may be
// a link, so that several builds share one; then they take turns.
func pythonCache(path string) (dir string, unlock func(), err error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", nil, err
	}
	if dir, err = filepath.EvalSymlinks(path); err != nil {
		return "", nil, err
	}
	unlock, err = lock(filepath.Join(dir, "lock"), true)
	return dir, unlock, err
}

// describePython runs in the new environment and prints a pythonSite. The
// layout of the browsers is playwright's own: revisions from its
// browsers.json, paths below them as its registry has them for Linux.
const describePython = `
import importlib.metadata as md, json, os, platform, sys, sysconfig
lib = sysconfig.get_path("purelib")
browsers = []
try:
    driver = os.path.join(lib, "playwright", "driver", "package", "browsers.json")
    with open(driver) as f:
        revision = {b["name"]: b["revision"] for b in json.load(f)["browsers"]}
    browsers = ["chromium-%s/chrome-linux64/chrome" % revision["chromium"],
                "chromium_headless_shell-%s/chrome-headless-shell-linux64/chrome-headless-shell"
                % revision["chromium-headless-shell"]]
except FileNotFoundError:
    pass
print(json.dumps({
    "lib": os.path.relpath(lib, sys.prefix), "version": platform.python_version(), "browsers": browsers,
    "packages": [{"name": p, "version": md.version(p)} for p in sys.argv[1].split(",")]}))
`

// writeVenv makes dir a Python virtual environment, PEP 405's minimum: a file
// that names the base and a link to its interpreter.
func writeVenv(dir, python string) error {
	if err := os.WriteFile(filepath.Join(dir, "pyvenv.cfg"), venvConfig(python), 0o644); err != nil {
		return err
	}
	return os.Symlink(python, filepath.Join(dir, "bin", "python3"))
}

func venvConfig(python string) []byte {
	return fmt.Appendf(nil, "home = %s\ninclude-system-site-packages = false\n", filepath.Dir(python))
}

// fill makes the whole of Out in stage. Paths written into it are those that
// it has once it is published.
func (b HostBuild) fill(m *Manifest, stage string, site *pythonSite) error {
	bin := filepath.Join(stage, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, t := range m.Tools {
		for _, c := range t.Commands {
			// Of two tools with one command the earlier has it.
			if err := os.Symlink(c.Path, filepath.Join(bin, c.Name)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}

	// The directory is itself the virtual environment: Python looks for
	// pyvenv.cfg beside the bin directory that it was started from, so that
	// "python3" is the toolset's in every child as well.
	if err := writeVenv(stage, m.Python.Commands[0].Path); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(site.Dir, "lib"), filepath.Join(stage, "lib")); err != nil {
		return err
	}
	for _, name := range b.Toolset.Python.Commands {
		dest := filepath.Join(bin, name)
		switch name {
		case "python3":
			continue
		case "python":
			if err := os.Symlink(m.Python.Commands[0].Path, dest); err != nil {
				return err
			}
			continue
		}
		err := replaceIn(filepath.Join(site.Dir, "bin", name), dest, site.Dir, b.Out)
		if errors.Is(err, fs.ErrNotExist) {
			return b.Toolset.file.Errorf("python.commands", "python: no package brings the command %s", name)
		}
		if err != nil {
			return err
		}
		if err := os.Chtimes(dest, time.Time{}, time.Unix(env.BuildTime, 0)); err != nil {
			return err
		}
		f, err := describe(dest)
		if err != nil {
			return err
		}
		f.Inode = 0 // ours, and another at each build
		m.Python.Commands = append(m.Python.Commands, Command{name, filepath.Join(m.Bin, name), f})
	}
	m.Python.Version, m.Python.Packages, m.Python.Tree = site.Version, site.Packages, site.Tree
	m.Python.Site = filepath.Join(b.Out, site.Lib)

	browser := m.Browsers.Launch[0]
	m.Browsers.Launch = nil
	for _, path := range site.Browsers {
		link := filepath.Join(stage, "browsers", path)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(browser.Path, link); err != nil {
			return err
		}
		revision, _, _ := strings.Cut(path, "/")
		if err := os.WriteFile(filepath.Join(stage, "browsers", revision, "INSTALLATION_COMPLETE"), nil, 0o644); err != nil {
			return err
		}
		m.Browsers.Launch = append(m.Browsers.Launch, Command{path, browser.Path, browser.File})
	}
	var err error
	if m.Browsers.Tree, err = HashTree(filepath.Join(stage, "browsers"), 0); err != nil {
		return err
	}
	return normalise(stage)
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

// normal is a package's name as PEP 503 compares them.
func normal(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}
