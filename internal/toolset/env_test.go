package toolset

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec/seal"
)

func testManifest() *Manifest {
	return &Manifest{
		Schema: Schema, Backend: BackendNix, Bin: "/t/bin", Interpreter: "/t/bin/python3", State: "/s",
		Browsers: ResolvedBrowsers{Path: "/t/browsers"},
		Process:  env.Process{Umask: "0022", NoFile: 1024},
		Variables: ManifestVariables{
			Pass: []string{"*"}, Require: []string{"HOME", "TEAM"},
			Only:    map[string][]string{"drone": {"DRONE_*"}},
			Default: map[string]string{"TERM": "dumb"},
			Set:     map[string]string{"LANG": "C.UTF-8", "GIT_AUTHOR_NAME": "drone"},
		},
	}
}

// Even `pass = ["*"]` lets nothing in that changes a run from outside.
func TestForbiddenNeverPass(t *testing.T) {
	caller := []string{"HOME=/h", "TEAM=t", "GOOD=1"}
	for _, name := range []string{
		"PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "BASH_FUNC_git%%",
		"GIT_DIR", "GIT_CONFIG_COUNT", "GIT_CONFIG_GLOBAL", "GIT_EXEC_PATH", "GIT_AUTHOR_NAME", "IFS", "CDPATH", "SHELLOPTS", "PYTEST_ADDOPTS",
		"PERL5OPT", "NODE_OPTIONS", "TAR_OPTIONS", "GLIBC_TUNABLES", "OPENSSL_CONF", "a b", "\xff", "",
	} {
		caller = append(caller, name+"=hostile")
	}
	e, err := testManifest().Compile("").Environment(caller, "manual")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"CC_CI_RUN_FINGERPRINT=", "CC_CI_RUN_INVOKER=manual", "GIT_AUTHOR_NAME=drone", "GOOD=1", "HOME=/h", "LANG=C.UTF-8", "PATH=/t/bin", "TEAM=t", "TERM=dumb"}
	if got := e.Environ(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Each variable has a verdict and a rule, and a dropped one no value.
func TestVerdicts(t *testing.T) {
	m := testManifest()
	m.Variables.Pass = []string{"HOME", "TEAM"}
	e, err := m.Compile("").Environment([]string{"HOME=/h", "TEAM=t", "HOME=/second", "SECRET=s", "DRONE_X=1", "LANG=x", "TERM=xterm", "nonsense"}, "")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]env.Variable{}
	for _, v := range e {
		got[v.Name] = v
	}
	for _, want := range []env.Variable{
		{Name: "HOME", Value: "/h", Verdict: env.Passed, Rule: "environment.pass", Pattern: "HOME"},
		{Name: "SECRET", Value: "", Verdict: env.Dropped, Rule: "not named by the toolset"},
		{Name: "DRONE_X", Value: "1", Verdict: env.Passed, Rule: "environment.only.drone", Pattern: "DRONE_*"},
		{Name: "LANG", Value: "C.UTF-8", Verdict: env.Fixed, Rule: "environment.set"},
		{Name: "TERM", Value: "xterm", Verdict: env.Passed, Rule: "environment.default"},
	} {
		if got[want.Name] != want {
			t.Errorf("%+v, want %+v", got[want.Name], want)
		}
	}
	if len(e) != 10 { // PATH, the two of cc-ci-run, GIT_AUTHOR_NAME, TEAM and those above
		t.Errorf("%d variables: %+v", len(e), e)
	}
}

// All required variables that are missing are reported together; an empty
// one is as good as none.
func TestRequired(t *testing.T) {
	_, err := testManifest().Compile("").Environment([]string{"HOME="}, "")
	if err == nil || !strings.Contains(err.Error(), "HOME is not set") || !strings.Contains(err.Error(), "TEAM is not set") {
		t.Error(err)
	}
}

func TestManifestMistakes(t *testing.T) {
	good, err := json.Marshal(testManifest())
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseManifest(good)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := ParseManifest(good); again.Fingerprint() != m.Fingerprint() || len(m.Fingerprint()) != 64 {
		t.Errorf("fingerprints %s, %s", m.Fingerprint(), again.Fingerprint())
	}
	for _, row := range []struct{ old, new, want string }{
		{`"schema":1`, `"schema":2`, "schema 2 is newer than this cc-ci-run knows (1)"},
		{`"schema":1`, `"schema":0`, "schema 0: this cc-ci-run reads 1"},
		{`"schema":1`, `"schema":1,"more":1`, "unknown field"},
		{`"backend":"nix"`, `"backend":"guix"`, `backend "guix" is neither`},
		{`"/t/bin"`, `"bin"`, `bin: "bin" is not an absolute path`},
		{`"/t/bin"`, `"/t/bin:/usr/bin"`, `bin: "/t/bin:/usr/bin" is not an absolute path without ":"`},
		{`"/t/bin"`, `""`, `bin: "" is not`},
		{`"0022"`, `"8"`, "umask"},
		{`"LANG":"C.UTF-8"`, `"PATH":"/bin"`, `"PATH" cannot be set`},
		{`["*"]`, `["["]`, "bad glob"},
		{`"seal":{"seal":false,"execute":null}`, `"seal":{"seal":false,"execute":["tmp"]}`, `"tmp" is not an absolute path`},
		{`}`, ``, "damaged"},
	} {
		_, err := ParseManifest([]byte(strings.Replace(string(good), row.old, row.new, 1)))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.new, err, row.want)
		}
	}
	for n := range len(good) {
		if _, err := ParseManifest(good[:n]); err == nil {
			t.Errorf("truncated at byte %d: no error", n)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	good, _ := json.Marshal(testManifest())
	f.Add(good)
	f.Add([]byte(`{"schema":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		// What was accepted can be used.
		e, _ := m.Compile("").Environment([]string{"HOME=/h"}, "")
		if i := slices.Index(e.Environ(), "PATH="+m.Bin); i < 0 {
			t.Errorf("no PATH in %q", e.Environ())
		}
		if _, err := m.Process.UmaskBits(); err != nil {
			t.Error(err)
		}
		// Compiled and read back it is the same.
		plan := m.Compile("/m.json")
		whole := plan.Encode()
		again, err := env.DecodePlan(string(whole[:env.PlanSize(whole)]))
		if err == nil {
			var e2 env.Environment
			e2, _ = again.Environment([]string{"HOME=/h"}, "")
			if !slices.Equal(e2.Environ(), e.Environ()) {
				t.Errorf("compiled: %q, want %q", e2.Environ(), e.Environ())
			}
		} else if !bytes.Contains(data, []byte("\\u0000")) {
			t.Error(err)
		}
	})
}

func TestSuggest(t *testing.T) {
	known := []string{"git", "git-lfs", "grep"}
	for word, want := range map[string]string{"gti": `; did you mean "git"?`, "git-lsf": `; did you mean "git-lfs"?`, "playwright": "", "x": ""} {
		if got := env.Suggest(word, known); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

// TestManifestOfBackend reads a manifest that a backend wrote, and holds it
// against the toolset. `make prove` and the Nix package name theirs.
func TestManifestOfBackend(t *testing.T) {
	m, declaration := ofBackend(t)
	var commands []string
	for _, tool := range declaration.Tools {
		if !slices.ContainsFunc(m.Absent, func(a Absent) bool { return a.Name == tool.Name }) {
			commands = append(commands, tool.Commands...)
		}
	}
	commands = append(commands, declaration.Python.Commands...)
	for _, name := range commands {
		if c, ok := m.Command(name); !ok || !filepath.IsAbs(c.Path) {
			t.Errorf("command %s: %+v", name, c)
		}
	}
	if len(m.Python.Packages) != len(declaration.Python.Packages) || !slices.Equal(m.Variables.Pass, declaration.Environment.Pass) || m.Process != declaration.Process {
		t.Errorf("Python %+v, pass %q, process %+v", m.Python.Packages, m.Variables.Pass, m.Process)
	}
	for _, set := range []map[string]string{m.Variables.Set, m.Variables.Default} {
		for name, value := range set {
			if strings.ContainsAny(value, "{}") {
				t.Errorf("%s=%s: a placeholder is left", name, value)
			}
		}
	}
	if faults := seal.Faults(m.Closure, m.Seal.Execute); faults != nil || !slices.Equal(m.Seal.Execute, declaration.Seal.Execute) {
		t.Errorf("seal %+v, %v", m.Seal, faults)
	}
	mayBeExecuted(t, m, commands)
	t.Logf("backend %s, fingerprint %s", m.Backend, m.Fingerprint())
}

// ofBackend reads a manifest that a backend wrote, and the toolset.
func ofBackend(t *testing.T) (*Manifest, *Toolset) {
	t.Helper()
	path := os.Getenv("CC_CI_RUN_MANIFEST")
	if path == "" {
		path = "../../build/toolset/manifest.json"
		if _, err := os.Stat(path); err != nil {
			t.Skip("no manifest to read: `make build` makes one, CC_CI_RUN_MANIFEST names another")
		}
	}
	m, err := ReadManifest(path)
	if err != nil {
		t.Fatal(err)
	}
	const declared = "../../toolset.toml"
	data, err := os.ReadFile(declared)
	if err != nil {
		t.Fatal(err)
	}
	declaration, err := ParseToolset(declared, data)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s and %s", path, declared)
	return m, declaration
}

// mayBeExecuted finds whether a sealed run may execute the commands and what runs
// start by paths of their own, and nothing that must not come along.
func mayBeExecuted(t *testing.T, m *Manifest, commands []string) {
	t.Helper()
	for _, name := range commands {
		real, err := filepath.EvalSymlinks(filepath.Join(m.Bin, name))
		if m.Backend == BackendNix { // the packages of nix/stand-in lead out of the store
			c, _ := m.Command(name)
			real, err = c.Path, nil
		}
		if err != nil || !m.MayExecute(real) {
			t.Errorf("%s (%s, %v) cannot be executed under the seal", name, real, err)
		}
	}
	for path, want := range map[string]bool{"/bin/sh": true, "/usr/bin/env": true, "/usr/bin/dpkg": false, "/etc/passwd": false, "/": false, "/usr/bin": false} {
		real, err := filepath.EvalSymlinks(path)
		if err == nil && !slices.Contains(m.Seal.Execute, path) && m.MayExecute(real) != want {
			t.Errorf("%s may be executed under the seal: %t, want %t", path, !want, want)
		}
	}
}

// The manifest's form is a contract between backends: these are its keys.
func TestManifestKeys(t *testing.T) {
	data, _ := json.Marshal(testManifest())
	var keys map[string]any
	if err := json.Unmarshal(data, &keys); err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for k := range keys {
		got = append(got, k)
	}
	slices.Sort(got)
	want := []string{"absent", "backend", "bin", "browsers", "environment", "host", "interpreter", "process", "python", "schema", "seal", "shadowed", "state", "tools"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("keys %q, want %q: raise Schema?", got, want)
	}
}
