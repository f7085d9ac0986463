// Package parity says in what the environments of two runs differ.
//
//	for _, f := range parity.Compare(a, b) { … }      // f.Verdict: identical, declared, drift
//	r, err := parity.Prober{…}.Probe(ctx, "systemd")  // a run of now, for Compare
package parity

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/toolset"
)

// Finding is one thing that [Compare] looked at.
type Finding struct {
	Verdict Parity `json:"verdict"`
	What    string `json:"what"`
	A       string `json:"a"`
	B       string `json:"b"`
	Why     string `json:"why,omitempty"`
}

// Parity is a Finding's verdict.
type Parity string

// The verdicts of parity.
const (
	Identical Parity = "identical"
	Declared  Parity = "declared" // it differs, and may
	Drift     Parity = "drift"    // it differs, and must not
)

// Run is one of the two runs that [Compare] compares.
type Run struct {
	*record.Record
	Environment *toolset.Manifest // that it ran with
	Probe       bool              // it was only a probe, without what the site gives to real runs
	Look        *Look             // of a probe, nil for none
	Clock       time.Duration     // of a probe: how far its clock is ahead of this process's, as far as that is certain
}

// Compare says in what two runs' environments are identical and in what they
// differ.
func Compare(a, b Run) []Finding {
	ma, mb := a.Environment, b.Environment
	var list []Finding
	add := func(what, x, y string, otherwise Parity, why string) {
		list = append(list, found(otherwise, what, x, y, why))
	}
	add("fingerprint", a.Fingerprint, b.Fingerprint, Drift, "built from another toolset, or on another machine")
	add("interpreter", ma.Interpreter, mb.Interpreter, Drift, "")
	add("backend", a.Backend, b.Backend, Drift, "")
	add("absent tools", strings.Join(a.Absent, " "), strings.Join(b.Absent, " "), Drift, "")
	add("sealed", a.Sealed, b.Sealed, Drift, "what is not declared can be executed by one of them only: start both with the same --seal")
	add("audited", fmt.Sprint(a.Audited), fmt.Sprint(b.Audited), Declared, "an audit looks on, and changes nothing")
	list = append(list, compareCommands(ma, mb)...)
	list = append(list, compareVariables(a, b)...)
	list = append(list, compareProcess(a.Record, b.Record)...)
	for _, p := range names(a.HostPaths, b.HostPaths) {
		add(p, a.HostPaths.Get(p), b.HostPaths.Get(p), Drift, "another file on the host, outside the toolset")
	}
	list = append(list, compareSurroundings(a, b)...)
	list = append(list, compareClocks(a, b)...)
	list = append(list, compareLooks(a, b)...)
	list = append(list, compareSSH(a.SSHFiles, b.SSHFiles)...)
	list = append(list, compareDaemons(a.Docker, b.Docker)...)
	add("directory", a.Directory, b.Directory, Declared, "each invoker has a work tree of its own")
	add("the caller's PATH", a.CallerPath, b.CallerPath, Declared, "cc-ci-run lets none in")
	return list
}

// compareCommands names each command whose file differs; if none does, that
// is one line.
func compareCommands(a, b *toolset.Manifest) []Finding {
	var list []Finding
	file := func(m *toolset.Manifest, name string) string {
		c, ok := m.Command(name)
		if !ok {
			return "missing"
		}
		if c.File != nil {
			return fmt.Sprintf("%s (%.12s)", c.Path, c.File.SHA256)
		}
		return c.Path
	}
	names := slices.Concat(a.CommandNames(), b.CommandNames())
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if x, y := file(a, name), file(b, name); x != y {
			list = append(list, Finding{Drift, "command " + name, x, y, "a test finds another file, or none"})
		}
	}
	if len(list) == 0 {
		n := fmt.Sprintf("%d files", len(a.CommandNames()))
		list = append(list, Finding{Identical, "commands", n, n, ""})
	}
	return list
}

// compareVariables names each variable that only one run was passed. Those
// that the toolset says only this invoker has are one line for each of its
// patterns.
func compareVariables(a, b Run) []Finding {
	var list []Finding
	names := slices.Concat(a.Passed, b.Passed)
	slices.Sort(names)
	both := 0
	type only struct{ owner, pattern string }
	declared := map[only]int{}
	for _, name := range slices.Compact(names) {
		inA, inB := slices.Contains(a.Passed, name), slices.Contains(b.Passed, name)
		if inA && inB {
			both++
			continue
		}
		has, x, y := a, "passed", "not set"
		if inB {
			has, x, y = b, y, x
		}
		owner, m := has.Invoker.Name, has.Environment
		if p := m.Variables.OnlyBy(owner, name); p != "" {
			declared[only{owner, p}]++
			continue
		}
		f := Finding{Drift, "variable " + name, x, y, "a test can rely on it for one of them only"}
		if _, ok := m.Variables.Default[name]; ok {
			f.Verdict, f.Why = Declared, "environment.default has a value for the other"
		}
		if m.Variables.FromSite(name) != "" && (a.Probe || b.Probe) {
			f.Verdict, f.Why = Declared, "environment.site has it: a site gives it to real runs, not to probes"
		}
		list = append(list, f)
	}
	for o, n := range declared {
		f := Finding{Declared, "variables " + o.pattern, fmt.Sprint(n, " passed"), "not set", "environment.only." + o.owner + " has it"}
		if o.owner != a.Invoker.Name {
			f.A, f.B = f.B, f.A
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(f, g Finding) int { return strings.Compare(f.What, g.What) })
	n := fmt.Sprintf("%d names", both)
	return append([]Finding{{Identical, "variables passed to both", n, n, ""}}, list...)
}

const whySet = "set for one of them by its unit, runner or shell"

// compareProcess compares the process state field by field, by its names in
// the record.
func compareProcess(a, b *record.Record) []Finding {
	var list []Finding
	x, y := reflect.ValueOf(a.Process), reflect.ValueOf(b.Process)
	for i := range x.NumField() {
		name, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
		f := found(Drift, "process "+name, fmt.Sprint(x.Field(i)), fmt.Sprint(y.Field(i)), whySet)
		switch {
		case f.Verdict == Identical:
		case name == "cgroup":
			f.Verdict, f.Why = Declared, "each invoker has its own"
			// The last line is the unified hierarchy's; the others repeat it.
			f.A, f.B = f.A[strings.LastIndex(f.A, "\n")+1:], f.B[strings.LastIndex(f.B, "\n")+1:]
		case name == "terminals" && (a.Invoker.Name == "manual" || b.Invoker.Name == "manual"):
			f.Verdict, f.Why = Declared, "a person sits at a terminal"
		case name == "capabilities" && noCapability(a.Process) && noCapability(b.Process):
			f.Verdict, f.Why = Declared, "neither has a capability or can gain one, so the bounding sets have no effect"
			f.A, f.B = "none, bounded by "+a.Process.Capabilities.Bounding, "none, bounded by "+b.Process.Capabilities.Bounding
		case name == "uid" || name == "gid" || name == "groups":
			f.Why = "another user: run both as one (sudo -u USER cc-ci-run …)"
		case name == "limits":
			list = append(list, compareLimits(a.Process.Limits, b.Process.Limits)...)
			continue
		case name == "inherited":
			list = append(list, compareInherited(a.Process.Inherited, b.Process.Inherited)...)
			continue
		}
		list = append(list, f)
	}
	return list
}

// compareInherited compares what the callers left, field by field.
func compareInherited(a, b exec.Inherited) []Finding {
	if none := (exec.Inherited{}); a == none || b == none {
		return []Finding{{Declared, "process inherited", recorded(a != none), recorded(b != none), "a record of an earlier cc-ci-run lacks it"}}
	}
	var list []Finding
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		name, verdict, why := x.Type().Field(i).Tag.Get("json"), Drift, whySet
		if name == "login_uid" {
			verdict, why = Declared, "a person has logged in; tests must use `id -un`, not `logname`"
		}
		list = append(list, found(verdict, "process "+name, x.Field(i).String(), y.Field(i).String(), why))
	}
	return list
}

func recorded(is bool) string {
	if is {
		return "recorded"
	}
	return "not recorded"
}

// noCapability says that a process has no capability, and can gain none by
// execve: not from a file, as it has no_new_privs, nor as root.
func noCapability(s exec.State) bool {
	none := func(set string) bool { return set != "" && strings.Trim(set, "0") == "" }
	c := s.Capabilities
	return s.NoNewPrivs && none(c.Inheritable) && none(c.Permitted) && none(c.Effective) && none(c.Ambient)
}

func compareLimits(a, b exec.Pairs) []Finding {
	var list []Finding
	for _, name := range names(a, b) {
		if x, y := a.Get(name), b.Get(name); x != y {
			list = append(list, Finding{Drift, "limit " + name, x, y, "set for one of them by its unit, runner or shell"})
		}
	}
	return list
}

// compareSSH names each file of ssh that the two runs do not see alike, in the home
// that the password database names; if there is none, that is one line.
func compareSSH(a, b exec.Pairs) []Finding {
	const what = "files of ssh"
	if a == nil || b == nil {
		return []Finding{{Declared, what, "", "", "not known for one of them: an older cc-ci-run did not record them"}}
	}
	if x, y := a.Get(exec.Passwd), b.Get(exec.Passwd); x != "" || y != "" {
		return []Finding{{Declared, what, cmp.Or(x, "known"), cmp.Or(y, "known"), "not known for one of them: the password database could not be read"}}
	}
	var list []Finding
	see := func(files exec.Pairs, name string) string { return cmp.Or(files.Get(name), "none") }
	for _, name := range names(a, b) {
		if x, y := see(a, name), see(b, name); x != y {
			list = append(list, Finding{Drift, name, x, y, "ssh reads it whatever HOME is, so a test that uses ssh can pass for one of them only"})
		}
	}
	if len(list) == 0 {
		n := fmt.Sprintf("%d files", len(a))
		list = append(list, Finding{Identical, what, n, n, ""})
	}
	return list
}

// compareDaemons compares the docker daemons that tests of the two runs reach. What
// is not known of one run is not a drift: nobody asked, as for exec and before
// records had this, or the daemon did not answer in time, as while it starts.
func compareDaemons(a, b *docker.Daemon) []Finding {
	const what = "docker daemon"
	x, y := daemon(a), daemon(b)
	switch {
	case a == nil || b == nil:
		return []Finding{found(Declared, what, x, y, "not known for one of them: only runs of a script ask, and those of an older cc-ci-run did not")}
	case a.State == docker.Silent || b.State == docker.Silent:
		return []Finding{found(Declared, what, x, y, "not known for one of them: a daemon that starts, or is busy, does not answer in time")}
	case a.State != docker.Answers || b.State != docker.Answers:
		return []Finding{found(Drift, what, x, y, "a test reaches a daemon for one of them only")}
	}
	why := "they deploy to two daemons: is the socket of DOCKER_HOST the same file for both?"
	if a.Swarm != b.Swarm {
		why = "a test can deploy for one of them only"
	}
	return []Finding{
		found(Drift, what, x, y, why),
		found(Drift, "docker version", a.Version, b.Version, "another daemon, or it was upgraded between the two runs"),
	}
}

// daemon is one side of compareDaemons.
func daemon(d *docker.Daemon) string {
	switch {
	case d == nil:
		return "not recorded"
	case d.State == docker.Absent: // whatever is missing, the socket or who listens
		return "none at " + d.Socket
	case d.State != docker.Answers:
		return d.Reason
	case d.Swarm:
		return "swarm " + d.ID
	}
	return "no swarm, daemon " + d.ID
}

// names are those of either, sorted.
func names(a, b exec.Pairs) []string {
	var list []string
	for _, p := range slices.Concat(a, b) {
		list = append(list, p.Name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
