// Package audit makes a report of what a run really executed.
//
//	c := audit.NewCollector(manifest)
//	status, hello, err := watch.Run(…, watch.Watcher{c.Interesting, c.Known, c.See})
//	report := c.Report(run, status, took)
//	report.Suggest(ctx, manifest, audit.Packages{debian.Owners, debian.Known})
//	err = report.Write(state)
//
// [watch.Run] tells of each call to execute a file, wherever in the tree of
// processes, and of each look for a command that the toolset's bin directory
// does not have: a shell that looks and finds none executes nothing. The
// [Report] sorts that by the declaration: what of it was used, what was looked
// for and is not in it, what was executed from outside, and what of it nobody
// used. [Merge] does so for many runs. How what is missing would get into
// the toolset is its [Fix], from a database of [Packages] or a guess.
//
// What is seen, and what is not, is in docs/audit.md.
package audit

import (
	"bytes"
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cc-ci-run/internal/exec/watch"
	"cc-ci-run/internal/toolset"
)

// Schema is the version of the report's form.
const Schema = 1

// Run is what the report is of. It comes from the audited process.
type Run struct {
	ID          string    `json:"id"`     // of its run record
	Time        time.Time `json:"time"`   // UTC
	Recipe      string    `json:"recipe"` // or the script's name, if it is not a recipe's
	Invoker     string    `json:"invoker"`
	Fingerprint string    `json:"fingerprint"`
}

// Report is what a run executed.
type Report struct {
	Schema  int     `json:"schema"`
	Run     Run     `json:"run"`
	Status  int     `json:"status"`  // exit status of the script
	Seconds float64 `json:"seconds"` // how long it ran

	Used       []Use    `json:"used"`
	Missing    []Miss   `json:"missing"`
	Undeclared []Use    `json:"undeclared"`
	Unused     []Unused `json:"unused"`
	// Unreadable is how many calls could not be read: of processes of
	// another user, or others that the auditor may not look at.
	Unreadable int `json:"unreadable"`
	// Omitted is how many calls are in none of the lists, as these have [maxListed].
	Omitted int `json:"omitted,omitempty"`
}

// A report is bounded, whatever a run does: a test may try thousands of names. The
// declared commands are always in it.
const (
	maxListed   = 500 // files that were executed, and names that are missing
	maxPrograms = 50  // who executed or missed one of them; all further ones are [others]
	maxLength   = 512 // bytes of a name
	others      = "others"
)

// clip cuts a name to maxLength.
func clip(name string) string {
	if len(name) <= maxLength {
		return name
	}
	return strings.ToValidUTF8(name[:maxLength], "") + "…"
}

// count adds n calls of a program.
func count(by map[string]int, program string, n int) {
	if _, ok := by[program]; !ok && len(by) >= maxPrograms {
		program = others
	}
	by[program] += n
}

// Use is a file that was executed.
type Use struct {
	// Name is a command's, or a file outside the bin directory.
	Name  string         `json:"name"`
	Tool  string         `json:"tool"`  // that declares it: [HostTool], [ClosureTool], "" if none does
	Times int            `json:"times"` // executed
	By    map[string]int `json:"by"`    // program -> times
	First float64        `json:"first"` // seconds since the run's start
}

// Tools that are none of toolset.toml's.
const (
	HostTool    = "[host]"    // named by [host] paths
	ClosureTool = "[closure]" // not a command, but part of what brings one
	SealTool    = "[seal]"    // where [seal] execute lets tests execute what they write
	PythonTool  = "[python]"
)

// Miss is what was looked for and not found.
type Miss struct {
	// Name is a command's, or a path outside the bin directory.
	Name  string         `json:"name"`
	Times int            `json:"times"`
	By    map[string]int `json:"by"`
	First float64        `json:"first"`
	// Looks is how many of Times were only looks, as of a shell, or of a
	// program that could do without.
	Looks int `json:"looks"`
	Fix   Fix `json:"fix"`
}

// Unused is a tool none of whose commands was executed.
type Unused struct {
	Tool string `json:"tool"`
	Why  string `json:"why"`
}

// Collector gathers the calls of one run.
type Collector struct {
	m        *toolset.Manifest
	bin      string                  // with a slash at its end
	declared map[string]bool         // commands
	files    map[string][]string     // file -> commands that lead to it
	host     map[string]string       // file -> [host] path that leads to it
	open     []string                // [seal] execute
	closure  map[string]bool         // files, under Nix directories
	targets  map[string]watch.Target // of commands, once they were executed
	used     map[string]*Use         // by tool and name
	misses   map[string]*Miss
	missed   map[search]time.Duration // when last
	found    map[search]time.Duration // likewise
	strange  int
	paths    int // in used, besides commands
	omitted  int
}

// search is what a program searches for: a name, without its directory.
type search struct{ by, name string }

// NewCollector makes a collector for a run in an environment.
func NewCollector(m *toolset.Manifest) *Collector {
	c := &Collector{
		m: m, bin: m.Bin + "/", closure: map[string]bool{}, declared: map[string]bool{}, files: map[string][]string{}, host: map[string]string{},
		targets: map[string]watch.Target{}, used: map[string]*Use{}, misses: map[string]*Miss{}, missed: map[search]time.Duration{}, found: map[search]time.Duration{},
	}
	for _, name := range m.CommandNames() {
		c.declared[name] = true
		if file, err := filepath.EvalSymlinks(c.bin + name); err == nil {
			c.files[file] = append(c.files[file], name)
		}
	}
	for _, path := range m.Closure {
		c.closure[path] = true
	}
	for _, path := range m.Seal.Execute {
		if dir, err := filepath.EvalSymlinks(path); err == nil {
			c.open = append(c.open, dir)
		}
	}
	for _, path := range m.Host.Paths {
		if file, err := filepath.EvalSymlinks(path); err == nil {
			c.host[file] = path
		}
	}
	return c
}

// command cuts a path in the bin directory to the command's name.
func (c *Collector) command(path []byte) (name []byte, ok bool) {
	if len(path) <= len(c.bin) || string(path[:len(c.bin)]) != c.bin || bytes.IndexByte(path[len(c.bin):], '/') >= 0 {
		return nil, false
	}
	return path[len(c.bin):], true
}

// besidePython are files that Python looks for beside itself (its getpath.py).
var besidePython = []string{"pyvenv.cfg", "pybuilddir.txt"}

// Interesting is [watch.Watcher.Interesting]: a look for a command that is not
// declared.
func (c *Collector) Interesting(path []byte) bool {
	name, ok := c.command(path)
	if !ok || c.declared[string(name)] {
		return false
	}
	return toolset.IsCommand(string(name)) && !slices.Contains(besidePython, string(name))
}

// Known is [watch.Watcher.Known]: declared commands do not change in a run.
func (c *Collector) Known(path []byte) (watch.Target, bool) {
	name, ok := c.command(path)
	if !ok || !c.declared[string(name)] {
		return watch.Target{}, false
	}
	t, ok := c.targets[string(name)]
	if !ok {
		t = watch.TargetOf(string(path))
		c.targets[string(name)] = t
	}
	return t, true
}

// See is [watch.Watcher.See].
func (c *Collector) See(call watch.Call) {
	by := c.program(call.Program)
	switch {
	case call.Unreadable:
		c.strange++
	case !call.Execute:
		c.miss(call.Path, by, call.At, true)
	case call.Outcome == watch.Executed:
		c.use(call.Path, call.File, by, call.At)
		for _, interpreter := range call.Interpreters {
			c.use(interpreter.Path, cmp.Or(interpreter.File, interpreter.Path), filepath.Base(cmp.Or(call.Path, call.File)), call.At)
		}
	case call.Outcome == watch.Unknown: // in doubt it was executed
		c.use(call.Path, call.Path, by, call.At)
	case call.Outcome == watch.NotFound && len(call.Interpreters) > 0:
		c.miss(call.Interpreters[len(call.Interpreters)-1].Path, call.Path, call.At, false)
	case call.Outcome == watch.NotFound && call.Path != "":
		c.miss(call.Path, by, call.At, false)
	}
}

// program is how a file is called in a report.
func (c *Collector) program(file string) string {
	if file == "" {
		return "?" // it is gone, or is another user's
	}
	if names := c.files[file]; len(names) == 1 {
		return names[0]
	} else if slices.Contains(names, filepath.Base(file)) {
		return filepath.Base(file)
	}
	return cmp.Or(c.host[file], filepath.Base(file))
}

func (c *Collector) use(path, file, by string, at time.Duration) {
	name, tool := c.sort(path, file)
	c.remember(c.found, search{by, filepath.Base(path)}, at)
	name = clip(name)
	key := tool + "\x00" + name
	u := c.used[key]
	if u == nil {
		if strings.Contains(name, "/") {
			if c.paths++; c.paths > maxListed {
				c.omitted++
				return
			}
		}
		u = &Use{Name: name, Tool: tool, By: map[string]int{}, First: at.Seconds()}
		c.used[key] = u
	}
	u.Times++
	count(u.By, by, 1)
}

// remember notes when something was searched for, of as many searches as can matter.
func (c *Collector) remember(searches map[search]time.Duration, s search, at time.Duration) {
	if _, ok := searches[s]; ok || len(searches) < maxListed*maxPrograms {
		searches[s] = at
	}
}

// sort says which command a file is, and of which tool.
func (c *Collector) sort(path, file string) (name, tool string) {
	name = filepath.Base(path)
	names := c.files[file]
	if len(names) > 0 && !slices.Contains(names, name) {
		name = names[0]
	}
	switch {
	case len(names) > 0:
		if tool := c.m.ToolOf(name); tool != nil {
			return name, tool.Name
		}
		return name, PythonTool
	case c.host[file] != "":
		return c.host[file], HostTool
	case c.inClosure(file): // also if all of the toolset is below /tmp
		return file, ClosureTool
	case slices.ContainsFunc(c.open, func(dir string) bool { return file == dir || strings.HasPrefix(file, dir+"/") }):
		return file, SealTool
	case c.m.MayExecute(file):
		return file, ClosureTool
	}
	return file, ""
}

func (c *Collector) inClosure(file string) bool {
	for ; file != "/" && file != "."; file = filepath.Dir(file) {
		if c.closure[file] {
			return true
		}
	}
	return false
}

func (c *Collector) miss(path, by string, at time.Duration, look bool) {
	name := path
	if command, ok := strings.CutPrefix(path, c.bin); ok {
		name = command
	}
	name = clip(name)
	m := c.misses[name]
	if m == nil {
		if len(c.misses) >= maxListed {
			c.omitted++
			return
		}
		m = &Miss{Name: name, By: map[string]int{}, First: at.Seconds()}
		c.misses[name] = m
	}
	m.Times++
	count(m.By, by, 1)
	c.remember(c.missed, search{by, filepath.Base(name)}, at)
	if look {
		m.Looks++
	}
}

// Report gives what was gathered.
func (c *Collector) Report(run Run, status int, took time.Duration) *Report {
	r := &Report{Schema: Schema, Run: run, Status: status, Seconds: took.Seconds(), Unreadable: c.strange, Omitted: c.omitted}
	for _, u := range c.used {
		if u.Tool == "" {
			r.Undeclared = append(r.Undeclared, *u)
		} else {
			r.Used = append(r.Used, *u)
		}
	}
	for _, m := range c.misses {
		base := filepath.Base(m.Name)
		// The same search came to the bin directory, too.
		if base != m.Name && c.misses[base] != nil {
			continue
		}
		if c.foundLater(m) {
			continue
		}
		r.Missing = append(r.Missing, *m)
	}
	r.Unused = unused(c.m, r.Used)
	r.tidy()
	return r
}

// foundLater says that all who missed it searched on, and found it elsewhere:
// what they then executed is in the report as that. If another program did,
// that helps no one.
func (c *Collector) foundLater(m *Miss) bool {
	for by := range m.By {
		s := search{by, filepath.Base(m.Name)}
		if at, ok := c.found[s]; !ok || at < c.missed[s] {
			return false
		}
	}
	return true
}

// tidy puts lists in order, what happened first first, and makes empty ones of
// none.
func (r *Report) tidy() {
	uses := func(a, b Use) int { return cmp.Or(cmp.Compare(a.First, b.First), strings.Compare(a.Name, b.Name)) }
	slices.SortFunc(r.Used, uses)
	slices.SortFunc(r.Undeclared, uses)
	slices.SortFunc(r.Missing, func(a, b Miss) int { return cmp.Or(cmp.Compare(a.First, b.First), strings.Compare(a.Name, b.Name)) })
	r.Used, r.Undeclared = append([]Use{}, r.Used...), append([]Use{}, r.Undeclared...)
	r.Missing, r.Unused = append([]Miss{}, r.Missing...), append([]Unused{}, r.Unused...)
}

// unused lists the tools that none of the uses is of, in the toolset's order.
func unused(m *toolset.Manifest, uses []Use) []Unused {
	used := map[string]bool{}
	for _, u := range uses {
		used[u.Tool] = true
	}
	var list []Unused
	for _, t := range m.Tools {
		if !used[t.Name] {
			list = append(list, Unused{t.Name, t.Why})
		}
	}
	return list
}

// Faults is how many things are missing or undeclared.
func (r *Report) Faults() int { return len(r.Missing) + len(r.Undeclared) }

// Programs lists who did something, the most frequent first, and how often if
// there are several.
func Programs(by map[string]int) string {
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int { return cmp.Or(by[b]-by[a], strings.Compare(a, b)) })
	if len(names) > 1 {
		for i, name := range names {
			names[i] = name + " " + strconv.Itoa(by[name])
		}
	}
	return strings.Join(names, ", ")
}
