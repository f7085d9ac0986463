// Package env answers one question: in which environment does a recipe test
// run? It does so in three steps, each a value that the next is made from.
//
//	toolset.toml --ParseToolset--> Toolset    what is declared, once, for everybody
//	Toolset --HostBuild.Run--> Manifest       the same, resolved on one machine: absolute
//	       or NixBuild.Run                    paths, versions, fixed variables; JSON, made
//	                                          at build time
//	Manifest --Compile--> env.Plan         what a run needs of it, in a form that needs no
//	                                          parsing
//
// [env.Plan.Environment] is the only place that decides what becomes of a
// variable; `cc-ci-run env --explain` prints what it decided, so the two can
// not disagree. Nothing here reads the process's own environment: the
// caller's variables come in as a list, as os.Environ gives them.
//
// A manifest is known by its [Fingerprint], the SHA-256 of the file: same
// fingerprint, same environment. On the host backend files can change under
// it, so [Manifest.Verify] looks at each one before a run, and
// [Manifest.Check] at everything, as closely as it can.
package toolset

import (
	"maps"
	"slices"

	"cc-ci-run/internal/env"
)

// Compile gives what a run needs of the manifest. path is the manifest's file.
func (m *Manifest) Compile(path string) *env.Plan {
	p := &env.Plan{
		Fingerprint: m.fingerprint, Manifest: path, Backend: m.Backend, State: m.State, Bin: m.Bin, Interpreter: m.Interpreter,
		Set: assignments(m.Variables.Set), Default: assignments(m.Variables.Default),
		Pass: m.Variables.Pass, Site: m.Variables.Site, Require: m.Variables.Require,
		Process: m.Process, HostPaths: m.Host.Paths,
		Seal: m.Seal.Every, SealExecute: m.Seal.Execute,
		Lists: env.Lists{Commands: m.CommandNames(), Closure: m.Closure},
	}
	for _, invoker := range Invokers {
		if patterns := m.Variables.Only[invoker]; len(patterns) > 0 {
			p.Only = append(p.Only, env.Only{Invoker: invoker, Patterns: patterns})
		}
	}
	for _, a := range m.Absent {
		p.Absent = append(p.Absent, env.Absent{Name: a.Name, Commands: a.Commands})
	}
	if m.Backend == BackendHost {
		m.files(func(c Command, path string) {
			f := env.File{Path: path}
			if c.File != nil { // without it, it has changed
				f.Size, f.MTime, f.Inode = c.File.Size, c.File.MTime, c.File.Inode
			}
			p.Files = append(p.Files, f)
		})
		p.Dirs = m.dirs()
		if path != "" { // the manifest: a plan of another says nothing
			p.Dirs = append(p.Dirs, path)
		}
	}
	return p
}

func assignments(vars map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		list = append(list, name+"="+vars[name])
	}
	return list
}

// The files that a build writes, in one directory: the manifest, and its compiled form.
const (
	ManifestName = "manifest.json"
	PlanName     = "manifest.plan"
)

// OnlyBy gives the pattern by which only this invoker has the variable, or "".
func (v ManifestVariables) OnlyBy(invoker, name string) string {
	return env.Match(v.Only[invoker], name)
}

// FromSite gives the pattern by which a variable is the site's to give, or "".
func (v ManifestVariables) FromSite(name string) string { return env.Match(v.Site, name) }
