package toolset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// NixBuild makes the manifest of the Nix backend. Its fields are what only Nix knows
// of the toolset; nix/toolset.nix writes them as JSON.
type NixBuild struct {
	State string `json:"state"` // the manifest's state directory
	Seal  bool   `json:"seal"`  // every run is sealed, even if the toolset does not say so
	// Bin is the one directory of PATH, with a link for each command. Of two
	// packages with one command, the link leads to the one that declares the
	// command, or else to the earlier. Nix makes the directory: if this program
	// made it, each change of the program would change the path, which is part of
	// the manifest.
	Bin     string `json:"bin"`
	Closure string `json:"closure"` // a file that lists store paths: all that the toolset may execute
	// Tools are the tools' packages by attribute path.
	Tools  map[string]StorePackage `json:"tools"`
	Python struct {
		Path     string    `json:"path"`    // the interpreter's environment, with the packages
		Version  string    `json:"version"` // of the interpreter
		Packages []Package `json:"packages"`
	} `json:"python"`
	Browsers StorePackage `json:"browsers"`
	// Attributes are the store paths by which {attribute} is replaced in
	// [environment.nix].
	Attributes map[string]string `json:"attributes"`
}

// StorePackage is a package and its path in the store.
type StorePackage struct {
	Package
	Path string `json:"path"`
}

// ReadNix reads a NixBuild from a file.
func ReadNix(path string) (*NixBuild, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--nix: %w", err)
	}
	b := &NixBuild{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(b); err != nil {
		return nil, fmt.Errorf("--nix %s: %w: nix/toolset.nix writes this file; take both from one revision", path, err)
	}
	return b, nil
}

// Run writes manifest.json and its compiled form into out, where runs will find
// them. All commands that their packages lack are reported together, each with its
// line in the toolset.
func (b NixBuild) Run(t *Toolset, out string) (*Manifest, error) {
	m, err := b.resolve(t)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	return m.Write(out, out)
}

func (b NixBuild) resolve(t *Toolset) (*Manifest, error) {
	links, err := b.links()
	if err != nil {
		return nil, err
	}
	m := b.withVariables(t)
	found := nixCommands{t, links, map[string]string{}}
	for i, tool := range t.Tools {
		key := fmt.Sprintf("tool[%d]", i)
		p, ok := b.Tools[tool.Nix]
		if !ok {
			t.file.Fail(key+".nix", "%s: Nix did not resolve %s: it read another toolset", tool.Name, tool.Nix)
			continue
		}
		m.Tools = append(m.Tools, ResolvedTool{
			Name: tool.Name, Why: tool.Why, Packages: []Package{p.Package},
			Commands: found.in(p.Path, key, tool.Name, tool.Commands),
		})
	}
	m.Python.Commands = found.in(b.Python.Path, "python", "python", t.Python.Commands)
	if err := t.file.Err(); err != nil {
		return nil, err
	}
	if m.Shadowed, err = m.shadowed(links); err != nil {
		return nil, err
	}
	closure, err := os.ReadFile(b.Closure)
	if err != nil {
		return nil, fmt.Errorf("closure: %w", err)
	}
	m.Closure = slices.Sorted(strings.FieldsSeq(string(closure)))
	return m, nil
}

// withVariables is the manifest without its commands.
func (b NixBuild) withVariables(t *Toolset) *Manifest {
	var placeholders []string
	for attribute, path := range b.Attributes {
		placeholders = append(placeholders, "{"+attribute+"}", path)
	}
	m := t.manifest(Manifest{
		Backend: BackendNix, State: b.State,
		Bin:         b.Bin,
		Interpreter: filepath.Join(b.Python.Path, "bin", "python3"),
		Python:      ResolvedPython{Version: b.Python.Version, Why: t.Python.Why, Packages: b.Python.Packages},
		Browsers:    ResolvedBrowsers{Path: b.Browsers.Path, Packages: []Package{b.Browsers.Package}},
		Absent:      []Absent{},
	}, t.Environment.Nix, placeholders...)
	m.Seal.Every = m.Seal.Every || b.Seal
	for name, value := range m.Variables.Set {
		if left := braceRE.FindString(value); left != "" {
			t.file.Fail("environment.nix."+name, "environment.nix: %s: Nix did not resolve %s: it read another toolset", name, left)
		}
	}
	return m
}

// nixCommands finds the declared commands in their packages.
type nixCommands struct {
	toolset *Toolset
	links   map[string]string // what each command in the bin directory leads to
	first   map[string]string // command -> the file of the first who declares it
}

// in gives the commands that the package at path has by these names. The toolset's
// file notes those that it lacks; key and label are of who declares them.
func (n nixCommands) in(path, key, label string, names []string) []Command {
	var list []Command
	var missing []string
	for _, name := range names {
		c := Command{Name: name, Path: filepath.Join(path, "bin", name)}
		if n.first[name] == "" {
			n.first[name] = c.Path
		}
		// Nix links only what is executable. Lstat, because this build may not be
		// able to see the file that a link in the package leads to.
		if _, err := os.Lstat(c.Path); err != nil || n.links[name] != n.first[name] {
			missing = append(missing, name)
		}
		list = append(list, c)
	}
	if len(missing) > 0 {
		n.toolset.file.Fail(key+".commands", "%s: %s: not found in %s: name another package as nix, or correct commands",
			label, strings.Join(missing, ", "), filepath.Join(path, "bin"))
	}
	return list
}

// links gives what each command in the bin directory leads to.
func (b NixBuild) links() (map[string]string, error) {
	entries, err := os.ReadDir(b.Bin)
	if err != nil {
		return nil, fmt.Errorf("bin: %w", err)
	}
	links := map[string]string{}
	for _, e := range entries {
		if links[e.Name()], err = os.Readlink(filepath.Join(b.Bin, e.Name())); err != nil {
			return nil, fmt.Errorf("bin: %w", err)
		}
	}
	return links, nil
}

// shadowed lists what packages bring, declared or not, under the name of a
// command that the bin directory has from another package.
func (m *Manifest) shadowed(links map[string]string) ([]Shadowed, error) {
	tools := append(slices.Clone(m.Tools), ResolvedTool{Name: "python", Commands: m.Python.Commands})
	dir := func(t ResolvedTool) string { return filepath.Dir(t.Commands[0].Path) }
	owner := map[string]string{} // directory -> the first tool that has it
	for _, t := range slices.Backward(tools) {
		owner[dir(t)] = t.Name
	}
	list := []Shadowed{}
	for _, t := range tools {
		entries, err := os.ReadDir(dir(t))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			used := links[e.Name()]
			if used != "" && target(used) != target(filepath.Join(dir(t), e.Name())) {
				list = append(list, Shadowed{Command: e.Name(), Tool: t.Name, By: owner[filepath.Dir(used)]})
			}
		}
	}
	return list, nil
}

// target is the file that path leads to, or path if it leads nowhere.
func target(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
