package toolset

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
)

// Schema is the version of the manifest's form that this program reads. It
// is raised when an older cc-ci-run would misread a newer manifest.
const Schema = 1

// The backends that resolve a toolset.
const (
	BackendNix  = "nix"  // store paths, which cannot change
	BackendHost = "host" // files of a machine without Nix
)

// Manifest is a toolset resolved on one machine. Each backend makes one, by
// [HostBuild] or [NixBuild]; [ReadManifest] reads it. All paths are absolute.
type Manifest struct {
	Schema  int    `json:"schema"`
	Backend string `json:"backend"`
	// State is the directory of run records and of the sweep.
	State string `json:"state"`
	// Bin is the one directory of PATH.
	Bin string `json:"bin"`
	// Interpreter is the Python that SCRIPT runs in.
	Interpreter string            `json:"interpreter"`
	Tools       []ResolvedTool    `json:"tools"`
	Python      ResolvedPython    `json:"python"`
	Browsers    ResolvedBrowsers  `json:"browsers"`
	Variables   ManifestVariables `json:"environment"`
	Process     env.Process       `json:"process"`
	Host        Host              `json:"host"`
	Seal        Seal              `json:"seal"`
	Absent      []Absent          `json:"absent"`   // left out by --without
	Shadowed    []Shadowed        `json:"shadowed"` // offered by two tools
	// Closure is all that the toolset may execute: store paths, or on the host
	// backend the files (see closure.go).
	Closure     []string                 `json:"closure,omitempty"`
	commands    map[string]Command       // by name, of all tools and Python
	tools       map[string]*ResolvedTool // by command
	data        []byte                   // the file
	fingerprint string                   // of data
	executables func() []string          // Executable, computed once
}

// ResolvedTool is a tool and where its commands were found.
type ResolvedTool struct {
	Name     string    `json:"name"`
	Why      string    `json:"why"`
	Packages []Package `json:"packages"` // that brought its commands
	Commands []Command `json:"commands"`
}

// Package is a name and a version as the package manager gives them.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Command is a name in the bin directory and the file that it leads to.
type Command struct {
	Name string `json:"name"`
	Path string `json:"path"`
	File *File  `json:"file,omitempty"` // host backend
}

// File is what a file was when the manifest was made (host backend).
type File struct {
	SHA256 string `json:"sha256"` // of its content, in hex
	Size   int64  `json:"size"`   // bytes
	MTime  int64  `json:"mtime"`  // nanoseconds since 1970
	Inode  uint64 `json:"inode"`
}

// ResolvedPython is the interpreter's packages and scripts.
type ResolvedPython struct {
	Version  string    `json:"version"`
	Why      string    `json:"why"`
	Packages []Package `json:"packages"` // the declared ones
	Commands []Command `json:"commands"`
	// Tree is the SHA-256 of all that is installed for it (host backend),
	// and Site the directory that it is installed in.
	Tree string `json:"tree,omitempty"`
	Site string `json:"site,omitempty"`
}

// ResolvedBrowsers is what PLAYWRIGHT_BROWSERS_PATH points at.
type ResolvedBrowsers struct {
	Path     string    `json:"path"`
	Packages []Package `json:"packages"`
	Launch   []Command `json:"launch,omitempty"` // host backend: what the links below Path lead to
	Tree     string    `json:"tree,omitempty"`   // host backend: SHA-256 of the directory
}

// ManifestVariables is [Variables] on one machine: no placeholder is left and
// the backend's own variables are merged into Set.
type ManifestVariables struct {
	Pass    []string            `json:"pass"`
	Site    []string            `json:"site"`
	Require []string            `json:"require"`
	Only    map[string][]string `json:"only"`
	Default map[string]string   `json:"default"`
	Set     map[string]string   `json:"set"`
}

// Absent is a tool that the toolset declares and this manifest lacks.
type Absent struct {
	Name     string   `json:"name"`
	Why      string   `json:"why"`
	Commands []string `json:"commands"`
}

// Shadowed is a command that two tools offer; the tool that comes earlier in
// the toolset has it.
type Shadowed struct {
	Command string `json:"command"`
	Tool    string `json:"tool"` // whose command is hidden
	By      string `json:"by"`   // whose command is used
}

// ReadManifest reads and checks the manifest at path. An error says what is
// wrong with it and how to fix that.
func ReadManifest(path string) (*Manifest, error) {
	if path == "" {
		return nil, errors.New("this cc-ci-run has no manifest: it was built without an environment (use `make build` or the Nix package)")
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("manifest %s: not found: the environment was never built, or was removed; run `make build`", path)
	case err != nil:
		return nil, fmt.Errorf("manifest %w; it must be readable for everybody who runs tests", err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", path, err)
	}
	return m, nil
}

// ParseManifest reads a manifest's bytes. Its fingerprint is theirs.
func ParseManifest(data []byte) (*Manifest, error) {
	m := &Manifest{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(m)
	if err == nil && len(bytes.TrimSpace(data[dec.InputOffset():])) > 0 {
		err = errors.New("more after its end")
	}
	if err != nil {
		// A newer form may well have fields that this one does not know.
		var head struct {
			Schema int `json:"schema"`
		}
		if json.Unmarshal(data, &head) == nil {
			m.Schema = head.Schema
		}
	}
	if m.Schema > Schema {
		return nil, fmt.Errorf("schema %d is newer than this cc-ci-run knows (%d): build cc-ci-run and the manifest from one revision", m.Schema, Schema)
	}
	if err != nil {
		return nil, fmt.Errorf("damaged (%w): run `make build`", err)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	sum := sha256.Sum256(data)
	m.data, m.fingerprint = data, hex.EncodeToString(sum[:])
	m.index()
	return m, nil
}

// manifest adds to m all parts that are the same on both backends, because they come
// from the toolset alone. own are the fixed variables of m's backend. placeholders
// are pairs, a placeholder and its value; ownPlaceholders need not be among them.
func (t *Toolset) manifest(m Manifest, own map[string]string, placeholders ...string) *Manifest {
	m.Schema, m.Process, m.Host = Schema, t.Process, t.Host
	m.Seal = Seal{t.Seal.Every, append([]string{}, t.Seal.Execute...)}
	v := t.Environment
	fill := strings.NewReplacer(append(placeholders, "{bin}", m.Bin, "{browsers}", m.Browsers.Path, "{dotfiles}", filepath.Dir(m.curlrc()))...)
	m.Variables = ManifestVariables{Pass: v.Pass, Site: v.Site, Require: v.Require, Only: v.Only, Default: map[string]string{}, Set: map[string]string{}}
	for name, value := range v.Default {
		m.Variables.Default[name] = fill.Replace(value)
	}
	for _, set := range []map[string]string{v.Set, own} {
		for name, value := range set {
			m.Variables.Set[name] = fill.Replace(value)
		}
	}
	return &m
}

// Write writes manifest.json and the plan, its compiled form, into dir, and gives the
// manifest as runs will read it. place is the directory in which runs will find both
// files: dir itself, or where the caller moves dir afterwards.
func (m *Manifest) Write(dir, place string) (*Manifest, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	written, err := ParseManifest(append(data, '\n'))
	if err != nil {
		return nil, fmt.Errorf("this manifest could not be read back: %w", err)
	}
	file := filepath.Join(dir, ManifestName)
	if err := writeFile(file, written.data, 0o644); err != nil {
		return nil, fmt.Errorf("manifest not written: %w", err)
	}
	if err := os.Chtimes(file, time.Time{}, time.Unix(env.BuildTime, 0)); err != nil {
		return nil, err
	}
	plan := written.Compile(filepath.Join(place, ManifestName)).Encode()
	if err := writeFile(filepath.Join(dir, PlanName), plan, 0o644); err != nil {
		return nil, fmt.Errorf("manifest not written: %w", err)
	}
	return written, nil
}

// Fingerprint is the SHA-256 of the manifest file, in hex. Same fingerprint,
// same environment.
func (m *Manifest) Fingerprint() string { return m.fingerprint }

// Bytes are those of the manifest file.
func (m *Manifest) Bytes() []byte { return m.data }

// Command finds a command of the toolset by name.
func (m *Manifest) Command(name string) (Command, bool) {
	c, ok := m.commands[name]
	return c, ok
}

// Git is the path of the toolset's git, "" if it has none.
func (m *Manifest) Git() string {
	if _, ok := m.Command("git"); !ok {
		return ""
	}
	return filepath.Join(m.Bin, "git")
}

// ToolOf finds the tool that a command is of: of two that offer it, the first. nil
// for a command of Python's, or none of the toolset's.
func (m *Manifest) ToolOf(command string) *ResolvedTool { return m.tools[command] }

// CommandNames lists all commands, sorted.
func (m *Manifest) CommandNames() []string {
	names := make([]string, 0, len(m.commands))
	for name := range m.commands {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (m *Manifest) index() {
	m.executables = sync.OnceValue(func() []string {
		return exec.Executable(m.Closure, m.Host.Paths, m.Seal.Execute)
	})
	m.commands, m.tools = map[string]Command{}, map[string]*ResolvedTool{}
	add := func(list []Command, of *ResolvedTool) {
		for _, c := range list {
			if _, ok := m.commands[c.Name]; !ok {
				m.commands[c.Name], m.tools[c.Name] = c, of
			}
		}
	}
	for i := range m.Tools {
		add(m.Tools[i].Commands, &m.Tools[i])
	}
	add(m.Python.Commands, nil)
}

// validate says what a manifest that parses as JSON still has wrong.
func (m *Manifest) validate() error {
	var errs *multierror.Error
	fail := func(format string, args ...any) { errs = multierror.Append(errs, fmt.Errorf(format, args...)) }
	if m.Schema != Schema {
		fail("schema %d: this cc-ci-run reads %d", m.Schema, Schema)
	}
	if m.Backend != BackendNix && m.Backend != BackendHost {
		fail("backend %q is neither %s nor %s", m.Backend, BackendNix, BackendHost)
	}
	m.validatePaths(fail)
	for _, t := range m.Tools {
		if len(t.Commands) == 0 {
			fail("tool %q has no commands", t.Name)
		}
	}
	for _, a := range m.Absent {
		if strings.ContainsRune(a.Name, 0) {
			fail("absent: %q is not a tool's name", a.Name)
		}
	}
	m.Variables.validate(fail)
	if _, err := m.Process.UmaskBits(); err != nil {
		fail("%w", err)
	}
	return errs.ErrorOrNil()
}

func (m *Manifest) validatePaths(fail func(format string, args ...any)) {
	for _, p := range []struct{ what, path string }{
		{"bin", m.Bin}, {"interpreter", m.Interpreter}, {"state", m.State}, {"browsers.path", m.Browsers.Path},
	} {
		// A ":" would make PATH two directories, and a NUL cannot be in a path.
		if !filepath.IsAbs(p.path) || strings.ContainsAny(p.path, ":\x00\n") {
			fail("%s: %q is not an absolute path without \":\"", p.what, p.path)
		}
	}
	for _, l := range []struct {
		what string
		list []string
	}{{"host.paths", m.Host.Paths}, {"closure", m.Closure}, {"seal.execute", m.Seal.Execute}} {
		for _, p := range l.list {
			if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) {
				fail("%s: %q is not an absolute path", l.what, p)
			}
		}
	}
}

func (v ManifestVariables) validate(fail func(format string, args ...any)) {
	for _, list := range slices.AppendSeq([][]string{v.Pass, v.Site}, maps.Values(v.Only)) {
		for _, p := range list {
			if err := checkPattern(p); err != nil {
				fail("environment: %w", err)
			}
		}
	}
	for _, set := range []map[string]string{v.Set, v.Default} {
		for name, value := range set {
			if !env.IsVariable(name) || env.Reserved(name) || strings.ContainsRune(value, 0) {
				fail("environment: %q cannot be set", name)
			}
		}
	}
	for _, name := range v.Require {
		if !env.IsVariable(name) {
			fail("environment: require: %q is not a variable's name", name)
		}
	}
}
