package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec/watch"
	"cc-ci-run/internal/toolset"
)

// place is a toolset of four tools in a directory, whose files are there:
//
//	bin/git, bin/git-shell -> files/git          tool git
//	bin/jq                 -> files/jq           tool jq
//	bin/rg                 -> files/rg           tool rg
//	bin/python3            -> files/python3      [python]
//	sh                     -> files/dash         [host] paths
//	files/git-core/fetch                         [closure]
//	open/                                        [seal] execute
type place struct {
	dir string
	m   *toolset.Manifest
}

func newPlace(t *testing.T, backend string) place {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "files/git-core", "open", "elsewhere"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"files/git", "files/jq", "files/rg", "files/python3", "files/dash", "files/git-core/fetch", "open/hook", "elsewhere/x"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("#!/nonesuch\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, file := range map[string]string{"bin/git": "git", "bin/git-shell": "git", "bin/jq": "jq", "bin/rg": "rg", "bin/python3": "python3", "sh": "dash"} {
		if err := os.Symlink(filepath.Join(dir, "files", file), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	command := func(name, file string) toolset.Command {
		return toolset.Command{Name: name, Path: filepath.Join(dir, "files", file)}
	}
	data, err := json.Marshal(toolset.Manifest{
		Schema: toolset.Schema, Backend: backend, State: "/s", Bin: dir + "/bin", Interpreter: dir + "/bin/python3",
		Browsers: toolset.ResolvedBrowsers{Path: "/b"},
		Tools: []toolset.ResolvedTool{
			{Name: "git", Why: "tests clone", Commands: []toolset.Command{command("git", "git"), command("git-shell", "git")}},
			{Name: "jq", Why: "tests read JSON", Commands: []toolset.Command{command("jq", "jq")}},
			{Name: "ripgrep", Why: "tests search", Commands: []toolset.Command{command("rg", "rg")}},
		},
		Python:  toolset.ResolvedPython{Commands: []toolset.Command{command("python3", "python3")}},
		Process: env.Process{Umask: "0022"},
		Host:    toolset.Host{Paths: []string{dir + "/sh", dir + "/nonesuch"}},
		Seal:    toolset.Seal{Execute: []string{dir + "/open"}},
		Absent:  []toolset.Absent{{Name: "abra", Commands: []string{"abra"}}},
		Closure: []string{dir + "/files/git-core"},
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := toolset.ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	return place{dir, m}
}

// path expands "B/" to the bin directory and "D/" to the directory.
func (p place) path(s string) string {
	if rest, ok := strings.CutPrefix(s, "B/"); ok {
		return p.dir + "/bin/" + rest
	}
	if rest, ok := strings.CutPrefix(s, "D/"); ok {
		return p.dir + "/" + rest
	}
	return s
}

// short is the other way.
func (p place) short(s string) string { return strings.ReplaceAll(s, p.dir+"/", "D/") }

// executed is a call that executes a file, as package watch would tell of it.
func (p place) executed(path, by string, interpreters ...string) watch.Call {
	c := watch.Call{Execute: true, Path: p.path(path), Program: p.path(by)}
	c.File, _ = filepath.EvalSymlinks(c.Path)
	c.Outcome = watch.Executed
	for _, i := range interpreters {
		file, _ := filepath.EvalSymlinks(p.path(i))
		c.Interpreters = append(c.Interpreters, watch.Interpreter{Path: p.path(i), File: file})
	}
	return c
}

func (p place) notFound(path, by string, interpreters ...string) watch.Call {
	c := p.executed(path, by, interpreters...)
	c.Outcome = watch.NotFound
	return c
}

func (p place) looked(path, by string) watch.Call {
	return watch.Call{Path: p.path(path), Program: p.path(by)}
}

// report is that of some calls, one a second.
func (p place) report(calls ...watch.Call) *Report {
	c := NewCollector(p.m)
	for i, call := range calls {
		call.At = time.Duration(i+1) * time.Second
		c.See(call)
	}
	return c.Report(Run{ID: "id", Recipe: "gitea", Invoker: "manual"}, 0, time.Minute)
}

// text is a report in a line for each entry.
func (p place) text(r *Report) string {
	var b strings.Builder
	for _, u := range r.Used {
		fmt.Fprintf(&b, "used %s %s %d by %s at %g\n", u.Name, u.Tool, u.Times, Programs(u.By), u.First)
	}
	for _, m := range r.Missing {
		fmt.Fprintf(&b, "missing %s %d (%d looks) by %s at %g\n", m.Name, m.Times, m.Looks, Programs(m.By), m.First)
	}
	for _, u := range r.Undeclared {
		fmt.Fprintf(&b, "undeclared %s %d by %s\n", u.Name, u.Times, Programs(u.By))
	}
	for _, u := range r.Unused {
		fmt.Fprintf(&b, "unused %s: %s\n", u.Tool, u.Why)
	}
	return p.short(b.String())
}

// Each call is sorted by the declaration, whatever name the file was given.
func TestSort(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	for _, row := range []struct {
		name  string
		calls []watch.Call
		want  string
	}{
		{
			"a command, twice, by two",
			[]watch.Call{p.executed("B/jq", "D/files/python3"), p.executed("B/jq", "D/files/dash"), p.executed("B/jq", "D/files/dash")},
			"used jq jq 3 by D/sh 2, python3 1 at 1\n",
		},
		{
			"one file with two names: the one that was called",
			[]watch.Call{p.executed("B/git-shell", "D/files/git")},
			"used git-shell git 1 by git at 1\n",
		},
		{
			"a command by its file's own path",
			[]watch.Call{p.executed("D/files/rg", "D/files/python3")},
			"used rg ripgrep 1 by python3 at 1\n",
		},
		{
			"Python",
			[]watch.Call{p.executed("B/python3", "/x/cc-ci-run-full")},
			"used python3 [python] 1 by cc-ci-run-full at 1\n",
		},
		{
			"a host path, by the name that is declared",
			[]watch.Call{p.executed("D/sh", "D/files/git"), p.executed("D/files/dash", "D/files/git")},
			"used D/sh [host] 2 by git at 1\n",
		},
		{
			"below what the closure has",
			[]watch.Call{p.executed("D/files/git-core/fetch", "D/files/git")},
			"used D/files/git-core/fetch [closure] 1 by git at 1\n",
		},
		{
			"what a test wrote where it may",
			[]watch.Call{p.executed("D/open/hook", "D/files/git")},
			"used D/open/hook [seal] 1 by git at 1\n",
		},
		{
			"from outside",
			[]watch.Call{p.executed("D/elsewhere/x", "D/files/dash")},
			"undeclared D/elsewhere/x 1 by D/sh\n",
		},
		{
			"a script's interpreter is by the script",
			[]watch.Call{p.executed("B/jq", "D/files/dash", "D/sh")},
			"used D/sh [host] 1 by jq at 1\nused jq jq 1 by D/sh at 1\n",
		},
		{
			"a script from outside of an interpreter from outside",
			[]watch.Call{p.executed("D/open/hook", "D/files/dash", "D/elsewhere/x")},
			"used D/open/hook [seal] 1 by D/sh at 1\nundeclared D/elsewhere/x 1 by hook\n",
		},
		{
			"an interpreter relative to a directory that is not ours",
			[]watch.Call{p.executed("D/open/hook", "D/files/dash", "./run")},
			"used D/open/hook [seal] 1 by D/sh at 1\nundeclared ./run 1 by hook\n",
		},
		{
			"a caller that is gone",
			[]watch.Call{p.executed("B/jq", "")},
			"used jq jq 1 by ? at 1\n",
		},
		{
			"a command that is not there, called and looked for",
			[]watch.Call{p.notFound("B/git-lfs", "D/files/git"), p.looked("B/git-lfs", "D/files/dash")},
			"missing git-lfs 2 (1 looks) by D/sh 1, git 1 at 1\n",
		},
		{
			"a path that is not there",
			[]watch.Call{p.notFound("/opt/x/tool", "D/files/git")},
			"missing /opt/x/tool 1 (0 looks) by git at 1\n",
		},
		{
			"an interpreter that is not there",
			[]watch.Call{p.notFound("D/open/hook", "D/files/git", "B/perl")},
			"missing perl 1 (0 looks) by D/open/hook at 1\n",
		},
		{
			"the last of several is not there",
			[]watch.Call{p.notFound("D/open/hook", "D/files/git", "D/open/other", "/nonesuch/perl")},
			"missing /nonesuch/perl 1 (0 looks) by D/open/hook at 1\n",
		},
		{
			"a search through more directories is one miss",
			[]watch.Call{p.notFound("/opt/bin/hg", "D/files/python3"), p.notFound("B/hg", "D/files/python3"), p.notFound("/usr/local/bin/hg", "D/files/python3")},
			"missing hg 1 (0 looks) by python3 at 2\n",
		},
		{
			"a search that went on and found it",
			[]watch.Call{p.notFound("B/x", "D/files/python3"), p.executed("D/elsewhere/x", "D/files/python3")},
			"undeclared D/elsewhere/x 1 by python3\n",
		},
		{
			"that another program found one helps no one",
			[]watch.Call{p.looked("B/x", "D/files/dash"), p.executed("D/open/../elsewhere/x", "D/files/python3")},
			"missing x 1 (1 looks) by D/sh at 1\nundeclared D/elsewhere/x 1 by python3\n",
		},
		{
			"nor that there was one earlier",
			[]watch.Call{p.executed("D/elsewhere/x", "D/files/python3"), p.notFound("B/x", "D/files/python3")},
			"missing x 1 (0 looks) by python3 at 2\nundeclared D/elsewhere/x 1 by python3\n",
		},
		{"an empty path is not a file's", []watch.Call{p.notFound("", "D/files/python3")}, ""},
		{"what could not be executed is neither", []watch.Call{
			{Execute: true, Path: "/etc/passwd", Target: watch.Target{File: "/etc/passwd", Outcome: watch.NotExecutable}},
			{Execute: true, Path: p.dir + "/elsewhere/x", Target: watch.Target{File: p.dir + "/elsewhere/x", Outcome: watch.NoProgram}},
		}, ""},
		{
			"first what was first",
			[]watch.Call{p.executed("B/rg", "D/files/git"), p.executed("B/jq", "D/files/git"), p.executed("B/rg", "D/files/git")},
			"used rg ripgrep 2 by git at 1\nused jq jq 1 by git at 2\n",
		},
	} {
		r := p.report(row.calls...)
		got := p.text(r)
		if i := strings.Index(got, "unused "); i >= 0 {
			got = got[:i]
		}
		if got != row.want {
			t.Errorf("%s:\n%swant\n%s", row.name, got, row.want)
		}
	}
}

// A tool is used if any of its commands is; why it was declared is beside it.
func TestUnused(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	r := p.report(p.executed("B/git-shell", ""), p.executed("D/elsewhere/x", ""), p.notFound("B/jq-not", ""))
	want := []Unused{{"jq", "tests read JSON"}, {"ripgrep", "tests search"}}
	if !slices.Equal(r.Unused, want) {
		t.Errorf("%v, want %v", r.Unused, want)
	}
	if r.Faults() != 2 {
		t.Errorf("%d faults, want 2", r.Faults())
	}
}

// Whatever a run does, its report is small, and names all commands that it used; so is
// what many reports are merged to.
func TestBounded(t *testing.T) {
	const many, limit = 20_000, 1 << 20
	for name, calls := range map[string]func(p place, i int) watch.Call{
		"missing names": func(p place, i int) watch.Call {
			return watch.Call{Execute: true, Path: fmt.Sprintf("%s/bin/x%d", p.dir, i), Program: "/p"}
		},
		"long missing paths": func(p place, i int) watch.Call {
			return watch.Call{Path: fmt.Sprintf("/%d/%s", i, strings.Repeat("x", 4000)), Program: "/p"}
		},
		"programs": func(p place, i int) watch.Call {
			return watch.Call{Path: p.dir + "/bin/x", Program: fmt.Sprintf("/tmp/p%d", i)}
		},
		"files": func(p place, i int) watch.Call {
			return executes(fmt.Sprintf("/elsewhere/%d", i), fmt.Sprintf("/elsewhere/%d", i))
		},
		"files of tests": func(p place, i int) watch.Call {
			return executes(fmt.Sprintf("%s/open/%d", p.dir, i), fmt.Sprintf("%s/open/%d", p.dir, i))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, toolset.BackendHost)
			var list []watch.Call
			for i := range many {
				c := calls(p, i)
				if c.Execute && c.Outcome == "" {
					c.Outcome = watch.NotFound
				}
				list = append(list, c)
			}
			list = append(list, executes(p.dir+"/bin/git", p.dir+"/files/git"))
			r := p.report(list...)
			if len(r.Used) == 0 || !slices.ContainsFunc(r.Used, func(u Use) bool { return u.Name == "git" }) {
				t.Error("git was used, and is not in the report")
			}
			total := r.Omitted
			for _, m := range r.Missing {
				total += m.Times
			}
			for _, u := range slices.Concat(r.Used, r.Undeclared) {
				total += u.Times
			}
			if total != many+1 {
				t.Errorf("%d calls are told of, there were %d", total, many+1)
			}
			for what, value := range map[string]any{"report": r, "total": Merge(p.m, []*Report{r, r, r})} {
				data, err := json.Marshal(value)
				if err != nil || len(data) > limit {
					t.Errorf("%s: %d bytes, %v", what, len(data), err)
				}
			}
		})
	}
}

// executes is a call that executes a file.
func executes(path, file string) watch.Call {
	return watch.Call{Execute: true, Path: path, Program: "/p", Target: watch.Target{File: file, Outcome: watch.Executed}}
}

// Calls that could not be read are counted, not sorted.
func TestUnreadable(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	r := p.report(watch.Call{Execute: true, Unreadable: true}, watch.Call{Execute: true, Unreadable: true})
	if r.Unreadable != 2 || len(r.Used)+len(r.Missing)+len(r.Undeclared) != 0 {
		t.Errorf("%+v", r)
	}
}

// A look is told of only if it is for a command that the toolset lacks.
func TestInteresting(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	c := NewCollector(p.m)
	for path, want := range map[string]bool{
		"B/git-lfs": true, "B/[x": true,
		"B/git": false, "B/": false, "B/.": false, "B/..": false, "B/a b": false, "B/sub/git-lfs": false,
		"B/pyvenv.cfg": false, "/usr/bin/git-lfs": false, "git-lfs": false, "": false,
	} {
		if got := c.Interesting([]byte(p.path(path))); got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
}

// A declared command is looked at once in a run; no other file is known.
func TestKnown(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	c := NewCollector(p.m)
	for range 2 {
		got, ok := c.Known([]byte(p.path("B/jq")))
		if !ok || got.File != p.path("D/files/jq") || got.Outcome != watch.NotFound || !slices.Equal(got.Interpreters, []watch.Interpreter{{Path: "/nonesuch"}}) {
			t.Errorf("%+v, %t", got, ok)
		}
		if err := os.RemoveAll(p.path("D/files/jq")); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"B/git-lfs", "D/files/git", "D/elsewhere/x"} {
		if got, ok := c.Known([]byte(p.path(path))); ok {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestPrograms(t *testing.T) {
	for want, by := range map[string]map[string]int{
		"":                  nil,
		"git":               {"git": 7},
		"sh 9, git 2, jq 2": {"git": 2, "jq": 2, "sh": 9},
	} {
		if got := Programs(by); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
