package toolset

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Change is one thing in which an environment b differs from an environment a.
type Change struct {
	Kind Kind   `json:"kind"`
	Of   Part   `json:"of"`
	Name string `json:"name"`
	A    string `json:"a"` // "" if it was added
	B    string `json:"b"` // "" if it was removed
}

// Kind is what became of the thing.
type Kind string

// The kinds of a Change.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// Part is the part of a manifest that a Change is in.
type Part string

// The parts, in the order in which [Difference] has them.
const (
	PartBackend  Part = "backend"
	PartTool     Part = "tool"           // by package and version
	PartCommand  Part = "command"        // of a tool that is in both
	PartPython   Part = "python package" // also the interpreter
	PartBrowser  Part = "browser"
	PartBuild    Part = "build"    // the same version, and other files
	PartVariable Part = "variable" // environment.set
	PartDefault  Part = "default"  // environment.default
	PartPass     Part = "pass"     // a pattern of environment.pass; the next three likewise
	PartSite     Part = "site"
	PartOnly     Part = "only"
	PartRequire  Part = "require"
	PartProcess  Part = "process"
	PartHostPath Part = "host path"
	PartSeal     Part = "seal"
	PartPath     Part = "PATH" // only if nothing else differs
)

// String says a change as a person would: "perl u2 → u4", "+ git-lfs 3.3", "- jq".
func (c Change) String() string {
	what := c.Name
	switch c.Of {
	case PartTool, PartPython, PartBrowser:
	case PartBuild:
		return strings.TrimSpace(c.Name+" "+c.A) + ": other files of the same version"
	default:
		if string(c.Of) != c.Name {
			what = string(c.Of) + " " + c.Name
		}
	}
	switch c.Kind {
	case Added:
		return strings.TrimSpace("+ " + what + " " + c.B)
	case Removed:
		return "- " + what
	}
	a, b := brief(c.A, c.B)
	return what + " " + a + " → " + b
}

// brief leaves out what two versions of a Debian package have in common, if they
// differ in the number of the security update alone: 5.36.0-7+deb12u2 and u4.
func brief(a, b string) (string, string) {
	stem := func(version string) string {
		i := strings.LastIndexByte(version, 'u')
		if i < 0 || !strings.Contains(version[:i], "deb") {
			return ""
		}
		if _, err := strconv.Atoi(version[i+1:]); err != nil {
			return ""
		}
		return version[:i]
	}
	if s := stem(a); s != "" && s == stem(b) {
		return a[len(s):], b[len(s):]
	}
	quote := func(s string) string {
		if s == "" {
			return `""`
		}
		return s
	}
	return quote(a), quote(b)
}

// Difference says in what environment b differs from environment a, as far as a run
// can notice. So reasons ("why"), the state directory, and the times of files are
// left out: two manifests with different fingerprints may have no difference.
func Difference(a, b *Manifest) []Change {
	d := differ{}
	d.pairs(PartBackend, map[string]string{"backend": a.Backend}, map[string]string{"backend": b.Backend})
	d.tools(a, b)
	d.pairs(PartPython, a.python(), b.python())
	d.pairs(PartBrowser, byName(a.Browsers.Packages), byName(b.Browsers.Packages))
	d.builds(a, b)
	d.pairs(PartVariable, a.portable(a.Variables.Set), b.portable(b.Variables.Set))
	d.pairs(PartDefault, a.portable(a.Variables.Default), b.portable(b.Variables.Default))
	d.list(PartPass, a.Variables.Pass, b.Variables.Pass)
	d.list(PartSite, a.Variables.Site, b.Variables.Site)
	d.list(PartOnly, only(a), only(b))
	d.list(PartRequire, a.Variables.Require, b.Variables.Require)
	d.pairs(PartProcess, process(a), process(b))
	d.list(PartHostPath, a.Host.Paths, b.Host.Paths)
	d.list(PartSeal, sealed(a), sealed(b))
	if len(d) == 0 && (a.Bin != b.Bin || a.Interpreter != b.Interpreter) {
		d.pairs(PartPath, map[string]string{"PATH": a.Bin}, map[string]string{"PATH": b.Bin})
	}
	return d
}

// differ collects changes.
type differ []Change

// pairs compares values by their names.
func (d *differ) pairs(of Part, a, b map[string]string) {
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x, inA := a[name]
		y, inB := b[name]
		switch {
		case !inA:
			*d = append(*d, Change{Added, of, name, "", y})
		case !inB:
			*d = append(*d, Change{Removed, of, name, x, ""})
		case x != y:
			*d = append(*d, Change{Changed, of, name, x, y})
		}
	}
}

func (d *differ) list(of Part, a, b []string) {
	set := func(list []string) map[string]string {
		m := map[string]string{}
		for _, name := range list {
			m[name] = ""
		}
		return m
	}
	d.pairs(of, set(a), set(b))
}

// tools compares tools by name: those that only one has, versions, and then the
// commands of the tools that are in both.
func (d *differ) tools(a, b *Manifest) {
	x, y := map[string]string{}, map[string]string{}
	var commandsA, commandsB []string
	for _, t := range a.Tools {
		u := tool(b, t.Name)
		if u == nil {
			x[t.Name] = versions(t.Packages)
			continue
		}
		if one, other := version(t.Packages), version(u.Packages); one != "" && other != "" {
			x[t.Name], y[t.Name] = one, other
		} else {
			maps.Copy(x, byName(t.Packages))
			maps.Copy(y, byName(u.Packages))
		}
		commandsA, commandsB = append(commandsA, commandNames(t)...), append(commandsB, commandNames(*u)...)
	}
	for _, u := range b.Tools {
		if tool(a, u.Name) == nil {
			y[u.Name] = versions(u.Packages)
		}
	}
	d.pairs(PartTool, x, y)
	d.list(PartCommand, commandsA, commandsB)
}

func tool(m *Manifest, name string) *ResolvedTool {
	if i := slices.IndexFunc(m.Tools, func(t ResolvedTool) bool { return t.Name == name }); i >= 0 {
		return &m.Tools[i]
	}
	return nil
}

func commandNames(t ResolvedTool) (list []string) {
	for _, c := range t.Commands {
		list = append(list, c.Name)
	}
	return list
}

// version is the one version that all of a tool's packages have, as those of perl;
// "" if there is no such version.
func version(list []Package) string {
	if len(list) == 0 || slices.ContainsFunc(list, func(p Package) bool { return p.Version != list[0].Version }) {
		return ""
	}
	return list[0].Version
}

func versions(list []Package) string {
	if one := version(list); one != "" {
		return one
	}
	var all []string
	for _, p := range list {
		all = append(all, strings.TrimSpace(p.Name+" "+p.Version))
	}
	return strings.Join(all, ", ")
}

func byName(list []Package) map[string]string {
	m := map[string]string{}
	for _, p := range list {
		m[p.Name] = p.Version
	}
	return m
}

func (m *Manifest) python() map[string]string {
	all := byName(m.Python.Packages)
	all["python"] = m.Python.Version
	return all
}

// builds names what has the same version, and other files.
func (d *differ) builds(a, b *Manifest) {
	told := func(name string) bool {
		return slices.ContainsFunc(*d, func(c Change) bool { return c.Name == name && c.Of != PartCommand })
	}
	add := func(name, version string) { *d = append(*d, Change{Changed, PartBuild, name, version, version}) }
	for _, t := range a.Tools {
		u := tool(b, t.Name)
		if u == nil || told(t.Name) || slices.ContainsFunc(t.Packages, func(p Package) bool { return told(p.Name) }) {
			continue
		}
		if otherFiles(a, b, t.Commands, u.Commands) {
			add(t.Name, version(t.Packages))
		}
	}
	p, q := a.Python, b.Python
	if !told("python") && (p.Tree != q.Tree || otherFiles(a, b, p.Commands, q.Commands)) && maps.Equal(a.python(), b.python()) {
		add("python", p.Version)
	}
	s, t := a.Browsers, b.Browsers
	tree := s.Tree != t.Tree || s.Tree == "" && s.Path != t.Path
	if slices.Equal(s.Packages, t.Packages) && (tree || otherFiles(a, b, s.Launch, t.Launch)) {
		add("browsers", version(s.Packages))
	}
}

// otherFiles says whether a command that is in both leads to another file.
func otherFiles(a, b *Manifest, x, y []Command) bool {
	return slices.ContainsFunc(x, func(c Command) bool {
		i := slices.IndexFunc(y, func(d Command) bool { return d.Name == c.Name })
		if i < 0 {
			return false
		}
		d := y[i]
		if c.File != nil && d.File != nil && strings.HasPrefix(c.Path, a.Bin+"/") && strings.HasPrefix(d.Path, b.Bin+"/") {
			return false // the build's own scripts name its directories
		}
		if c.File != nil && d.File != nil {
			return c.File.SHA256 != d.File.SHA256
		}
		return c.Path != d.Path
	})
}

// portable are values of variables without the places where the build put its files.
func (m *Manifest) portable(vars map[string]string) map[string]string {
	places := strings.NewReplacer(filepath.Dir(m.curlrc()), "{dotfiles}", m.Bin, "{bin}", m.Browsers.Path, "{browsers}")
	all := map[string]string{}
	for name, value := range vars {
		all[name] = places.Replace(value)
	}
	return all
}

func only(m *Manifest) (list []string) {
	for invoker, patterns := range m.Variables.Only {
		for _, p := range patterns {
			list = append(list, invoker+": "+p)
		}
	}
	return list
}

func process(m *Manifest) map[string]string {
	p := m.Process
	return map[string]string{
		"umask": p.Umask, "nofile": fmt.Sprint(p.NoFile), "core": fmt.Sprint(p.Core), "no_new_privs": fmt.Sprint(p.NoNewPrivs),
	}
}

func sealed(m *Manifest) []string {
	list := slices.Clone(m.Seal.Execute)
	if m.Seal.Every {
		list = append(list, "of every run")
	}
	return list
}

// Strings are the changes in words.
func Strings(changes []Change) []string {
	list := make([]string, len(changes))
	for i, c := range changes {
		list[i] = c.String()
	}
	return list
}
