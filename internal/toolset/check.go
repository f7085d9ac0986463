package toolset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec/seal"
	"cc-ci-run/internal/finding"
)

// checkLimit bounds each program that Check starts. A browser starts in a
// second or two; a loaded two-core machine was seen to take ten.
const checkLimit = 3 * time.Minute

// Check verifies all of the environment: every command there, executable and
// unchanged (content too), Python and each of its packages, the browsers (it
// launches one), the fixed variables that hold a path, and the host paths. It
// reports what is well, too, and which docker daemon and plugins the host has.
// manifest and plan are the files that m and its compiled form are; the latter is
// not looked at if it is "". caller is the caller's environment; the programs that
// Check starts run in the toolset's own, with a HOME of their own.
func (m *Manifest) Check(ctx context.Context, caller []string, manifest, plan string) ([]finding.Finding, error) {
	list := m.checkCommands()
	if plan != "" {
		list = append(list, m.checkCompiled(manifest, plan))
	}
	list = append(list, m.notes()...)
	if m.Seal.Every {
		list = append(list, m.checkSeal()...)
	}

	home, err := os.MkdirTemp("/tmp", "cc-ci-run-check-") // not TMPDIR, which is the caller's
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(home)
	compiled := m.Compile("")
	e, err := compiled.Environment(append([]string{"HOME=" + home}, caller...), "")
	if err != nil {
		return nil, err
	}
	list = append(list, m.checkPython(ctx, home, e.Environ())...)
	list = append(list, m.checkBrowser(ctx, home, e.Environ()))
	list = append(list, checkPaths(e)...)
	list = append(list, checkDocker(compiled.Set))
	list = append(list, checkPlugins(pluginDirs)...)
	return append(list, m.checkHostPaths()...), nil
}

func (m *Manifest) checkCommands() []finding.Finding {
	var list []finding.Finding
	if m.Backend == BackendHost {
		list = m.changed()
		if tree, err := HashTree(filepath.Join(m.Bin, "../lib"), 0); err != nil || tree != m.Python.Tree {
			list = append(list, result(finding.Fault, m.Python.Site, "the installed Python packages changed", "run `make build`"))
		}
		if tree, err := HashTree(m.Browsers.Path, 0); err != nil || tree != m.Browsers.Tree {
			list = append(list, result(finding.Fault, m.Browsers.Path, "changed", "run `make build`"))
		}
		config := filepath.Join(m.Bin, "../pyvenv.cfg")
		if data, err := os.ReadFile(config); err != nil || !bytes.Equal(data, venvConfig(m.commands["python3"].Path)) {
			list = append(list, result(finding.Fault, config, "changed its content", "run `make build`"))
		}
	}
	entries, err := os.ReadDir(m.Bin)
	if err != nil {
		return append(list, result(finding.Fault, m.Bin, err.Error(), "run `make build`"))
	}
	for _, e := range entries {
		if _, ok := m.commands[e.Name()]; !ok && m.Backend == BackendHost {
			list = append(list, result(finding.Fault, e.Name(), "is in the bin directory and not in the toolset", "declare it in toolset.toml, or run `make build`"))
		}
	}
	good := 0
	for name := range m.commands {
		if info, err := os.Stat(filepath.Join(m.Bin, name)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			good++
		} else if m.Backend != BackendHost { // the host backend's faults are in the list already
			list = append(list, result(finding.Fault, name, "not an executable file in "+m.Bin, "its package in toolset.toml must bring it"))
		}
	}
	slices.SortFunc(list, func(a, b finding.Finding) int { return strings.Compare(a.What, b.What) })
	summary := result(finding.OK, "commands", fmt.Sprintf("%d of %d are there and executable", good, len(m.commands)), "")
	if good < len(m.commands) {
		summary.Verdict, summary.Fix = finding.Fault, "see below"
	}
	return append([]finding.Finding{summary}, list...)
}

// checkCompiled finds whether the compiled form, which alone runs read, says what
// the manifest says.
func (m *Manifest) checkCompiled(manifest, plan string) finding.Finding {
	const what, fix = "compiled manifest", "run `make build`"
	data, err := os.ReadFile(plan)
	switch {
	case err != nil:
		return result(finding.Fault, what, err.Error(), fix)
	case !bytes.Equal(data, m.Compile(manifest).Encode()):
		return result(finding.Fault, what, plan+" and "+manifest+" do not agree", fix)
	}
	return result(finding.OK, what, plan, "")
}

// notes are what is worth knowing of how the environment was built.
func (m *Manifest) notes() []finding.Finding {
	var list []finding.Finding
	for _, s := range m.Shadowed {
		list = append(list, result(finding.Note, s.Command, fmt.Sprintf("offered by %s and %s; %s's is used, as it comes first", s.By, s.Tool, s.By), ""))
	}
	for _, a := range m.Absent {
		list = append(list, result(finding.Note, a.Name, "absent: this environment was built --without "+a.Name, ""))
	}
	return list
}

// checkSeal finds what keeps runs from being sealed, where all of them are.
func (m *Manifest) checkSeal() []finding.Finding {
	list := faults(seal.Faults(m.Closure, m.Seal.Execute))
	if err := seal.Supported(); err != nil {
		return append(list, result(finding.Fault, "seal", err.Error(), "no run starts without it, as the toolset has seal = true"))
	}
	if len(list) == 0 {
		list = append(list, result(finding.OK, "seal", fmt.Sprintf("every run is sealed: %d files and directories may be executed", len(m.Executable())), ""))
	}
	return list
}

// checkPaths finds whether the fixed variables that hold a path lead anywhere.
func checkPaths(e env.Environment) []finding.Finding {
	var list []finding.Finding
	for _, v := range e {
		if v.Verdict != env.Fixed || !filepath.IsAbs(v.Value) {
			continue
		}
		if _, err := os.Stat(v.Value); err != nil {
			list = append(list, result(finding.Fault, v.Name, err.Error(), "install what brings it, or fix "+v.Why()+" in toolset.toml"))
		} else {
			list = append(list, result(finding.OK, v.Name, v.Value, ""))
		}
	}
	return list
}

func (m *Manifest) checkHostPaths() []finding.Finding {
	var list []finding.Finding
	for _, p := range m.Host.Paths {
		if real, err := filepath.EvalSymlinks(p); err != nil {
			list = append(list, result(finding.Fault, p, err.Error(), "the host must provide it ([host] paths in toolset.toml)"))
		} else {
			list = append(list, result(finding.OK, p, real, ""))
		}
	}
	return list
}

// checkPython imports each declared package, in the toolset's own Python.
func (m *Manifest) checkPython(ctx context.Context, home string, environ []string) []finding.Finding {
	const fix = "run `make build`"
	args := []string{"-c", importPackages}
	for _, p := range m.Python.Packages {
		args = append(args, p.Name)
	}
	out, err := m.output(ctx, home, environ, args...)
	var found map[string]struct{ Version, Error string }
	if err == nil {
		err = json.Unmarshal(out, &found)
	}
	if err != nil {
		return []finding.Finding{result(finding.Fault, "python", err.Error(), fix)}
	}
	list := []finding.Finding{result(finding.OK, "python", m.Python.Version, "")}
	for _, p := range m.Python.Packages {
		switch f := found[p.Name]; {
		case f.Error != "":
			list = append(list, result(finding.Fault, "python: "+p.Name, f.Error, fix))
		case f.Version != p.Version:
			list = append(list, result(finding.Fault, "python: "+p.Name, "is version "+f.Version+", declared "+p.Version, fix))
		default:
			list = append(list, result(finding.OK, "python: "+p.Name, f.Version+", imports", ""))
		}
	}
	return list
}

const importPackages = `
import importlib, importlib.metadata as md, json, re, sys
normal = lambda name: re.sub("[-_.]+", "-", name).lower()
found = {}
for name in sys.argv[1:]:
    found[name] = f = {"version": "", "error": ""}
    try:
        f["version"] = md.version(name)
        for module, dists in md.packages_distributions().items():
            if normal(name) in map(normal, dists):
                importlib.import_module(module)
    except Exception as e:
        f["error"] = "%s: %s" % (type(e).__name__, e)
print(json.dumps(found))
`

// checkBrowser launches the browser as a test does.
func (m *Manifest) checkBrowser(ctx context.Context, home string, environ []string) finding.Finding {
	out, err := m.output(ctx, home, environ, "-c", launchBrowser)
	if err != nil {
		return result(finding.Fault, "browsers", err.Error(), "run `make build`")
	}
	return result(finding.OK, "browsers", "chromium "+strings.TrimSpace(string(out))+", launches", "")
}

// A browser's own sandbox needs an unprivileged user.
const launchBrowser = `
import os
from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    browser = p.chromium.launch(chromium_sandbox=os.geteuid() != 0)
    print(browser.version)
    browser.close()
`

// output runs the interpreter within checkLimit and gives what it printed; an
// error ends with the last line it wrote to stderr.
func (m *Manifest) output(ctx context.Context, home string, environ []string, args ...string) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	cmd := exec.CommandContext(limited, m.Interpreter, args...)
	cmd.Env = environ
	cmd.Dir = home // python -c looks into the working directory for modules
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil { // the caller's time limit, or Ctrl-C
		return nil, ctx.Err()
	}
	if limited.Err() != nil {
		return nil, fmt.Errorf("took longer than %s", checkLimit)
	}
	if err != nil {
		if lines := strings.Split(strings.TrimSpace(stderr.String()), "\n"); lines[len(lines)-1] != "" {
			err = errors.New(lines[len(lines)-1])
		}
		return nil, err
	}
	return out, nil
}

func faults(list []env.Fault) []finding.Finding {
	var found []finding.Finding
	for _, f := range list {
		found = append(found, result(finding.Fault, f.What, f.State, f.Fix))
	}
	return found
}

func result(verdict finding.Verdict, what, state, fix string) finding.Finding {
	return finding.Finding{Verdict: verdict, What: what, State: state, Fix: fix}
}
