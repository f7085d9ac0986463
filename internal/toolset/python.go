package toolset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/env"
)

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
func (b HostBuild) installPython(ctx context.Context, python Command) (*pythonSite, error) {
	lockfile, pins, err := b.pins()
	if err != nil {
		return nil, err
	}
	cache, unlock, err := pythonCache(filepath.Join(filepath.Dir(b.Out), "python"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	key := sha256.New()
	fmt.Fprintf(key, "form 3\n%s %s\n%q\n%s", python.Path, python.File.SHA256, b.Toolset.Python.Packages, pins)
	dir := filepath.Join(cache, hex.EncodeToString(key.Sum(nil))[:16])
	if site := b.installed(dir); site != nil {
		return site, nil
	}

	fmt.Fprintf(b.Log, "installing Python packages: %s\n", strings.Join(b.Toolset.Python.Packages, " "))
	// Beside its place, since runs may be using what is there now.
	// Always of one name, as pip writes it into scripts and takes their hashes.
	stage := dir + ".new"
	if err := os.RemoveAll(stage); err != nil {
		return nil, err
	}
	defer os.RemoveAll(stage) // the damaged one after the exchange; half an installation if it failed
	if err := os.Mkdir(stage, 0o755); err != nil {
		return nil, err
	}
	site, err := b.installInto(ctx, stage, dir, lockfile, python.Path)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(site)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(stage, "complete.json"), data, 0o644); err != nil {
		return nil, err
	}
	return site, publish(stage, dir)
}

// pins reads the lock of the Python packages, which pins each declared one.
func (b HostBuild) pins() (lockfile string, pins []byte, err error) {
	declared := b.Toolset.Python
	lockfile = declared.Requirements
	if !filepath.IsAbs(lockfile) {
		lockfile = filepath.Join(b.Dir, lockfile)
	}
	if pins, err = os.ReadFile(lockfile); err != nil {
		return "", nil, b.Toolset.file.Errorf("python.requirements", "python: requirements: %v", err)
	}
	var errs *multierror.Error
	for i, p := range declared.Packages {
		if !strings.Contains("\n"+normal(string(pins)), "\n"+normal(p)+"==") {
			errs = multierror.Append(errs, b.Toolset.file.Errorf(fmt.Sprintf("python.packages[%d]", i), "python: %s is not pinned in %s: run `make lock`", p, declared.Requirements))
		}
	}
	return lockfile, pins, errs.ErrorOrNil()
}

// installed is what an earlier build installed into a directory, nil if it did not,
// or if that has changed since.
func (b HostBuild) installed(dir string) *pythonSite {
	site := &pythonSite{Dir: dir}
	data, err := os.ReadFile(filepath.Join(dir, "complete.json"))
	if err != nil || json.Unmarshal(data, site) != nil {
		return nil
	}
	if tree, err := HashTree(filepath.Join(dir, "lib"), 0); err == nil && tree == site.Tree {
		return site
	}
	fmt.Fprintf(b.Log, "the Python packages in %s changed since they were installed: installing them again\n", dir)
	return nil
}

// installInto makes stage a virtual environment with the locked packages, as
// if it was dir already, and says what it holds.
func (b HostBuild) installInto(ctx context.Context, stage, dir, lockfile, python string) (*pythonSite, error) {
	if err := os.Mkdir(filepath.Join(stage, "bin"), 0o755); err != nil {
		return nil, err
	}
	if err := writeVenv(stage, python); err != nil {
		return nil, err
	}
	install := installer{stage, installEnvironment(b.Environ)}
	// The host's pip installs into the new environment, which has none of its
	// own. Wheels only: a source package would run its own code here.
	venv := filepath.Join(stage, "bin", "python3")
	if _, err := install.run(ctx, python, "-m", "pip", "--python", venv, "install", "--quiet", "--no-input", "--no-compile", "--no-user",
		"--no-warn-script-location", "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes", "-r", lockfile); err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("%w\n(without pip: Debian: apt-get install %s)", err, b.Toolset.Python.Debian)
		}
		return nil, err
	}
	site := &pythonSite{Dir: dir}
	out, err := install.run(ctx, venv, "-c", describePython, strings.Join(b.Toolset.Python.Packages, ","))
	if err == nil {
		err = json.Unmarshal(out, site)
	}
	if err != nil {
		return nil, err
	}
	if err := moveScripts(stage, dir); err != nil {
		return nil, err
	}
	if err := normalise(stage); err != nil { // first: the byte code holds the sources' times
		return nil, err
	}
	if _, err := install.run(ctx, venv, "-m", "compileall", "-q", "-j", "1", "-s", stage, "-p", dir, filepath.Join(stage, site.Lib)); err != nil {
		return nil, err
	}
	if err := normalise(stage); err != nil {
		return nil, err
	}
	site.Tree, err = HashTree(filepath.Join(stage, "lib"), 0)
	return site, err
}

// installer runs the programs of an installation.
type installer struct {
	dir     string // where they run: Python's -m and -c look into the working directory for modules
	environ []string
}

// run gives what a program prints; an error has all that it wrote.
func (i installer) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = i.environ
	cmd.Dir = i.dir
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

// moveScripts has the scripts of an environment name dir where pip wrote stage.
func moveScripts(stage, dir string) error {
	scripts, err := filepath.Glob(filepath.Join(stage, "bin", "*"))
	if err != nil {
		return err
	}
	for _, path := range scripts {
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := replaceIn(path, path, stage, dir); err != nil {
			return err
		}
	}
	return nil
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

// normal is a package's name as PEP 503 compares them.
func normal(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}
