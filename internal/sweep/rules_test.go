package sweep

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cc-ci-run/internal/record"
)

// page gives the first column of each row of a table of docs/verdicts.md: of
// the table below a heading.
func page(t *testing.T, heading string) (rows []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/verdicts.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := bytes.Cut(text, []byte("\n"+heading+"\n"))
	if !ok {
		t.Fatalf("docs/verdicts.md has no %q", heading)
	}
	section, _, _ = bytes.Cut(section, []byte("\n## "))
	for line := range strings.Lines(string(section)) {
		if first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| ") {
			rows = append(rows, first)
		}
	}
	return rows[2:] // without the head and the line below it
}

// onPage holds a table of the page against the rows that a test has, in order.
func onPage(t *testing.T, heading string, have []string) {
	t.Helper()
	if want := page(t, heading); !slices.Equal(want, have) {
		t.Errorf("docs/verdicts.md, %q:\n%s\n the test has\n%s", heading, strings.Join(want, "\n"), strings.Join(have, "\n"))
	}
}

var (
	ruleInputs = Inputs{Identity{"r", "tree-1", "1"}, "f1", "runner1", map[string]string{"S": "h1"}}
	ruleClock  = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
)

// promoted is a recipe that a timer promoted an hour ago.
func promoted() State {
	return State{
		Schema: Schema, Ran: ruleClock.Add(-time.Hour), Last: Result{Verdict: Promote},
		Canonical: Promotion{Inputs: ruleInputs, Time: ruleClock.Add(-time.Hour), Invoker: "systemd"},
	}
}

// differing are inputs that differ in one of the five.
func differing() map[string]Inputs {
	list := map[string]Inputs{}
	for name, change := range map[string]func(*Inputs){
		"revision":    func(in *Inputs) { in.Revision = "tree-2" },
		"tree":        func(in *Inputs) { in.Tree = "2" },
		"environment": func(in *Inputs) { in.Fingerprint = "f2" },
		"runner":      func(in *Inputs) { in.Runner = "runner2" },
		"site":        func(in *Inputs) { in.Site = map[string]string{"S": "h2"} },
		"site, more":  func(in *Inputs) { in.Site = map[string]string{"S": "h1", "T": ""} },
		"site, less":  func(in *Inputs) { in.Site = map[string]string{} },
		"site, name":  func(in *Inputs) { in.Site = map[string]string{"T": "h1"} },
	} {
		in := ruleInputs
		change(&in)
		list[name] = in
	}
	return list
}

func TestDecide(t *testing.T) {
	type situation struct {
		State
		now Inputs
		Policy
	}
	run := map[bool]string{true: "it is run", false: "SKIP"}
	check := func(row string, skip bool, changes ...func(*situation)) {
		t.Helper()
		for i, change := range changes {
			s := situation{promoted(), ruleInputs, Policy{Invoker: "systemd"}}
			change(&s)
			if why := s.decide(s.now, s.Policy, ruleClock); (why == "") != skip {
				t.Errorf("%s (%d): %s (%q), want: %s", row, i, run[why != ""], why, run[!skip])
			}
		}
	}
	var rows []string
	row := func(row string, changes ...func(*situation)) {
		t.Helper()
		rows = append(rows, row)
		check(row, false, changes...)
	}
	// The first four are no matter of decide.
	rows = append(rows, "a dispatcher asks for it, and this machine has another environment than the dispatcher", "its folder is a link that leads nowhere, became a file, cannot be read, or holds what cannot be hashed", "its folder is a git work tree whose commit cannot be read", "its state is damaged")
	row("it was never promoted",
		func(s *situation) { s.State = State{Schema: Schema} },
		func(s *situation) { s.State = State{Schema: Schema, Held: true, Last: Result{Verdict: Hold}} })
	row("an input differs from the canonical run's")
	for name, in := range differing() {
		check("another "+name, false, func(s *situation) { s.now = in })
	}
	row("a later run with the canonical run's inputs ended as HOLD or ERROR",
		func(s *situation) { s.State = s.after(Result{Verdict: Hold}, &s.now, s.Policy) },
		func(s *situation) { s.State = s.after(Result{Verdict: Error}, &s.now, s.Policy) })
	row("skipped tests hold it (`skips = \"hold\"`), and tests were skipped when it was promoted",
		func(s *situation) { s.Canonical.Skipped, s.SkipsHold = 1, true })
	row("`--force`", func(s *situation) { s.Force = true })
	row("`--max-age`, and it last passed longer ago, or in the future",
		func(s *situation) { s.MaxAge = time.Hour - 1 },
		func(s *situation) { s.MaxAge = 1 },
		func(s *situation) { s.MaxAge, s.Canonical.Time = time.Hour, ruleClock.Add(1) })
	row("a dispatcher asks for it, and nobody has changed its state since the dispatcher decided", func(s *situation) { s.Wanted = true })
	rows = append(rows, "otherwise")
	check("otherwise", true,
		func(*situation) {},
		func(s *situation) { s.MaxAge = time.Hour + 1 },
		func(s *situation) { s.MaxAge, s.Canonical.Time = time.Hour, ruleClock },
		func(s *situation) { s.Canonical.Time = ruleClock.Add(time.Hour) }, // without --max-age
		func(s *situation) { s.Canonical.Skipped = 1 },
		func(s *situation) { s.SkipsHold = true },
		func(s *situation) { s.Promote = true },
		func(s *situation) { s.Policy.Invoker = "manual" },
		func(s *situation) { s.Held, s.Last.Verdict = true, Hold }, // of other inputs, taken back
		func(s *situation) { s.State = s.after(Result{Verdict: Error}, nil, s.Policy) },
		func(s *situation) { s.State = s.after(Result{Verdict: Pass}, &s.now, s.Policy) },
		func(s *situation) { s.State = s.after(Result{Verdict: Cut}, &s.now, s.Policy) },
		func(s *situation) { s.State = s.after(Result{Verdict: Gone}, nil, s.Policy) },
		func(s *situation) {
			in := differing()["site"]
			s.State = s.after(Result{Verdict: Hold}, &in, s.Policy)
		})
	onPage(t, "## When a recipe is run", rows)
}

// The rows that need a folder and a file.
func TestDecideByFiles(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	b.recipe("b", "exit 0")
	b.want("first", "a PROMOTE", "b PROMOTE")
	// Both at once: the folder decides, and the history begins anew all the same.
	setState(t, b.State, "a", "{")
	setState(t, b.State, "b", "{")
	dir := filepath.Join(b.Recipes, "a")
	if err := errorsOf(os.Rename(dir, dir+".away"), os.Rename(dir+".away", filepath.Join(filepath.Dir(b.Recipes), "away")), os.Symlink("nowhere", dir)); err != nil {
		t.Fatal(err)
	}
	b.want("a link that leads nowhere, and damaged states", "a ERROR", "b PROMOTE")
	b.want("again", "a ERROR", "b SKIP")
}

// outcome is one of a run that passed.
func passedRun() Outcome {
	o := Outcome{Why: "forced", Before: ruleInputs, After: ruleInputs, Result: &record.Result{}}
	o.Result.Results.Extra.About = record.About{Schema: 1, Recipe: "r", Fingerprint: "f1", Complete: true}
	o.Result.Results.Summary = record.Summary{Tests: 1, Passed: 1}
	o.Result.Results.Tests = []record.Test{{Name: "test_it", Status: "passed"}}
	return o
}

type judgment struct {
	Outcome
	State
	Policy
}

func (j *judgment) summary() *record.Summary { return &j.Result.Results.Summary }
func (j *judgment) about() *record.About     { return &j.Result.Results.Extra.About }

// result gives a run a result anew, which a row of before may have taken.
func (j *judgment) result() {
	j.Result = passedRun().Result
	j.NoResult = ""
}

// judgeRows are the rows of the page, and for each the ways in which a run comes
// to it.
var judgeRows = []struct {
	row  string
	want Verdict
	ways []func(*judgment)
}{
	{"the sweep was ended, or the environment changed on disk", Cut, []func(*judgment){
		func(j *judgment) { j.Ended = "the sweep was ended" },
	}},
	{"it was ended by SIGHUP, SIGINT, SIGKILL, SIGPWR or SIGTERM that the sweep did not send (under `--audit` also by exit status 128+N, which the audit hands on), or the process that watches over it was killed", Cut, []func(*judgment){
		func(j *judgment) { j.Signal, j.Limit = syscall.SIGHUP, 0 },
		func(j *judgment) { j.Signal, j.Limit = syscall.SIGINT, 0 },
		func(j *judgment) { j.Signal, j.Limit = syscall.SIGKILL, 0 },
		func(j *judgment) { j.Signal, j.Limit = syscall.SIGPWR, 0 },
		func(j *judgment) { j.Signal, j.Limit = syscall.SIGTERM, 0 },
		func(j *judgment) { j.HandedOn, j.Status, j.Signal, j.Limit = true, 137, 0, 0 },
		func(j *judgment) { j.Ended = "ended from outside: the process that watches over it was killed" },
	}},
	{"the folder cannot be read afterwards, or its inputs changed during the run", Error, []func(*judgment){
		func(j *judgment) { j.Gone = "it vanished" },
		func(j *judgment) { j.After.Revision = "another" },
		func(j *judgment) { j.After.Tree = "another" },
		func(j *judgment) { j.After.Fingerprint = "another" },
		func(j *judgment) { j.After.Runner = "another" },
		func(j *judgment) { j.After.Site = nil },
	}},
	{"it reached its time limit", Hold, []func(*judgment){
		func(j *judgment) { j.Limit = time.Hour },
		func(j *judgment) { j.Limit, j.Signal = time.Hour, syscall.SIGTERM },
		func(j *judgment) { j.Limit, j.Signal = time.Hour, syscall.SIGKILL },
		func(j *judgment) { j.Limit, j.Status = time.Hour, 143 },
	}},
	{"it could not be started: exit status 125, 126 or 127, without a result or a test under way", Error, []func(*judgment){
		func(j *judgment) { j.Failed, j.Result, j.Signal = "no such file", nil, 0 },
		func(j *judgment) { j.Status, j.Result, j.Signal = 125, nil, 0 },
		func(j *judgment) { j.Status, j.Result, j.Signal = 126, nil, 0 },
		func(j *judgment) { j.Status, j.Result, j.Signal = 127, nil, 0 },
	}},
	{"no result, and it failed: another exit status than 0, or a signal such as SIGSEGV", Hold, []func(*judgment){
		func(j *judgment) { j.Status, j.Result = 1, nil },
		func(j *judgment) { j.Status, j.Result = 124, nil },
		func(j *judgment) { j.Status, j.Result = 137, nil },
		func(j *judgment) { j.Status, j.Result = 128, nil },
		func(j *judgment) { j.Signal, j.Result = syscall.SIGSEGV, nil },
		func(j *judgment) { j.Signal, j.Result = syscall.SIGABRT, nil },
		func(j *judgment) { j.Signal, j.Result = syscall.SIGPIPE, nil },
		func(j *judgment) { j.Signal, j.Result = syscall.SIGXCPU, nil },
	}},
	{"no result, and exit status 0: its tests ended before pytest did", Error, []func(*judgment){
		func(j *judgment) { j.Status, j.Signal, j.Result, j.NoResult = 0, 0, nil, "there is no result" },
	}},
	{"the result is of another recipe or environment", Error, []func(*judgment){
		func(j *judgment) { j.result(); j.about().Recipe = "other" },
		func(j *judgment) { j.result(); j.about().Fingerprint = "other" },
		func(j *judgment) { j.result(); j.about().Fingerprint = "" },
	}},
	{"a test failed, whatever the exit status", Hold, []func(*judgment){
		func(j *judgment) { j.summary().Failed = 1 },
		func(j *judgment) { j.summary().Failed, j.Status = 1, 1 },
		func(j *judgment) { j.summary().Failed, j.Status = 1, 126 },
	}},
	{"an exit status other than 0, of the process or in the result", Hold, []func(*judgment){
		func(j *judgment) { j.Status = 1 },
		func(j *judgment) { j.Status = 5 },
		func(j *judgment) { j.Status = 125 },
		func(j *judgment) { j.Signal = syscall.SIGSEGV },
		func(j *judgment) { j.about().ExitStatus = 1 },
		func(j *judgment) { j.Status = 143 },
	}},
	{"the result is not complete, or no test was executed", Error, []func(*judgment){
		func(j *judgment) { j.about().Complete = false },
		func(j *judgment) { j.summary().Pending = 1 },
		func(j *judgment) { *j.summary() = record.Summary{} },
		func(j *judgment) { *j.summary() = record.Summary{Tests: 3, Skipped: 3} },
	}},
	{"tests were skipped, and skips hold the recipe", Hold, []func(*judgment){
		func(j *judgment) { j.summary().Skipped, j.SkipsHold = 1, true },
	}},
	{"the folder differs from its commit", Hold, []func(*judgment){
		func(j *judgment) { j.Uncommitted = []string{"x is changed"} },
	}},
	{"a sweep by hand, without `--promote`, of a recipe that a timer or Drone sweeps", Pass, []func(*judgment){
		func(j *judgment) { j.State.Invoker, j.Policy.Invoker, j.Promote = "systemd", "manual", false },
		func(j *judgment) { j.State.Invoker, j.Policy.Invoker, j.Promote = "drone", "manual", false },
	}},
	{"otherwise", Promote, []func(*judgment){
		func(*judgment) {},
		func(j *judgment) { j.summary().Skipped = 1 },
		func(j *judgment) { j.summary().Passed, j.summary().Other = 0, 1 }, // an expected failure
		func(j *judgment) { j.Policy.Invoker, j.Promote = "manual", true },
		func(j *judgment) { j.Policy.Invoker, j.State.Invoker = "manual", "manual" },
		func(j *judgment) { j.Policy.Invoker, j.State = "manual", State{} },
		func(j *judgment) { j.Policy.Invoker = "drone" },
	}},
}

// Each row of the page, and each two rows that apply to one run: the first
// decides.
func TestJudge(t *testing.T) {
	var rows []string
	compared := 0
	for i, first := range judgeRows {
		rows = append(rows, first.row)
		for _, way := range first.ways {
			check := func(also string, changes ...func(*judgment)) {
				t.Helper()
				j := &judgment{passedRun(), promoted(), Policy{Invoker: "systemd"}}
				for _, change := range changes {
					change(j)
				}
				compared++
				if v, why := judge(j.Outcome, j.State, j.Policy); v != first.want || why == "" {
					t.Errorf("%q%s: %s (%s), want %s", first.row, also, v, why, first.want)
				}
				// What cannot be ended lets nothing pass.
				j.Left = []string{"process 7 (cat)"}
				want := first.want
				if want == Promote || want == Pass {
					want = Error
				}
				if v, why := judge(j.Outcome, j.State, j.Policy); v != want || !strings.HasSuffix(why, "; could not be ended: process 7 (cat)") {
					t.Errorf("%q%s, with a process left: %s (%s), want %s", first.row, also, v, why, want)
				}
			}
			check("", way)
			if first.row == "otherwise" {
				continue
			}
			for _, second := range judgeRows[i+1:] {
				for _, other := range second.ways {
					check(" and "+second.row, other, func(j *judgment) {
						if j.Result == nil && i >= 7 { // rows from here on are of runs with a result
							j.result()
							j.Status, j.Signal, j.Failed = 0, 0, ""
						}
					}, way)
				}
			}
		}
	}
	onPage(t, "## What a run comes to", rows)
	// A test was under way, so the run was started.
	o := passedRun()
	o.Status, o.Result, o.Running = 127, nil, "test_it"
	if v, why := judge(o, promoted(), Policy{}); v != Hold || !strings.Contains(why, "during test_it") {
		t.Errorf("exit status 127 of a test: %s (%s)", v, why)
	}
	t.Logf("%d judgments", compared)
}

func TestAfter(t *testing.T) {
	other := differing()["environment"]
	started := ruleClock
	ended := started.Add(time.Minute)
	cases := []struct {
		row  string
		v    Verdict
		ran  *Inputs
		from func(*State)
		want func(*State) // what is changed; nothing else is
	}{
		{"PROMOTE", Promote, &other, func(s *State) { s.Held, s.Canonical.FailedSince = true, true }, func(s *State) {
			s.Canonical = Promotion{Inputs: other, Time: started, Invoker: "drone", Skipped: 2}
			s.Held, s.Ran = false, ended
		}},
		{"PROMOTE", Promote, &ruleInputs, func(s *State) { s.Canonical.FailedSince = true }, func(s *State) {
			s.Canonical = Promotion{Inputs: ruleInputs, Time: started, Invoker: "drone", Skipped: 2}
			s.Held, s.Ran = false, ended
		}},
		{"HOLD", Hold, &other, nil, func(s *State) { s.Held, s.Ran = true, ended }},
		{"HOLD", Hold, &ruleInputs, nil, func(s *State) { s.Held, s.Ran, s.Canonical.FailedSince = true, ended, true }},
		{"HOLD", Hold, &ruleInputs, func(s *State) { *s = State{} }, func(s *State) { s.Held, s.Ran = true, ended }},
		{"ERROR after a run", Error, &other, nil, func(s *State) { s.Ran = ended }},
		{"ERROR after a run", Error, &other, func(s *State) { s.Held = true }, func(s *State) { s.Ran = ended }},
		{"ERROR after a run", Error, &ruleInputs, nil, func(s *State) { s.Ran, s.Canonical.FailedSince = ended, true }},
		{"ERROR without a run", Error, nil, nil, nil},
		{"ERROR without a run", Error, nil, func(s *State) { s.Held = true }, nil},
		{"SKIP", Skip, nil, func(s *State) { s.Held = true }, func(s *State) { s.Held = false }},
		{"SKIP", Skip, nil, nil, nil},
		{"GONE", Gone, nil, func(s *State) { s.Held, s.Canonical.FailedSince = true, true }, func(s *State) { s.Held = false }},
		{"PASS, CUT", Pass, &ruleInputs, func(s *State) { s.Held, s.Canonical.FailedSince = true, true }, nil},
		{"PASS, CUT", Pass, &other, nil, nil},
		{"PASS, CUT", Cut, &ruleInputs, func(s *State) { s.Held = true }, nil},
		{"PASS, CUT", Cut, &other, nil, nil},
	}
	var rows []string
	for _, c := range cases {
		if !slices.Contains(rows, c.row) {
			rows = append(rows, c.row)
		}
		was := promoted()
		if c.from != nil {
			c.from(&was)
		}
		want := was
		if c.want != nil {
			c.want(&want)
		}
		r := Result{Verdict: c.v, Started: started, Duration: time.Minute, Tests: record.Summary{Skipped: 2}}
		if c.row != "PASS, CUT" {
			want.Last = r
		}
		got := was.after(r, c.ran, Policy{Invoker: "drone"})
		if !got.Canonical.Inputs.equal(want.Canonical.Inputs) {
			t.Errorf("%s: canonical %+v, want %+v", c.row, got.Canonical, want.Canonical)
		}
		if got.Held != want.Held || got.Ran != want.Ran || got.Last != want.Last ||
			got.Canonical.FailedSince != want.Canonical.FailedSince || got.Canonical.Time != want.Canonical.Time ||
			got.Canonical.Invoker != want.Canonical.Invoker || got.Canonical.Skipped != want.Canonical.Skipped {
			t.Errorf("%s: %+v\nwant %+v", c.row, got, want)
		}
	}
	onPage(t, "## What is remembered", rows)
}

// The exit status is the table's at the top of the page.
func TestBad(t *testing.T) {
	text, err := os.ReadFile("../../docs/verdicts.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []Verdict{Skip, Promote, Pass, Gone, Hold, Error, Cut, WouldRun} {
		_, row, ok := bytes.Cut(text, []byte("\n| "+string(v)+" | "))
		row, _, _ = bytes.Cut(row, []byte(" |\n"))
		if status := map[bool]string{true: "1", false: "0"}[v.Bad()]; !ok || !bytes.HasSuffix(row, []byte("| "+status)) {
			t.Errorf("%s: exit status %s, the page says %q", v, status, row)
		}
		if v.Bad() != modelBad(string(v)) {
			t.Errorf("%s: bad %t, not so the model", v, v.Bad())
		}
	}
}

// choices counts through all combinations: each call of of(n) chooses one of n.
// Each combination makes the same calls.
type choices struct{ number, left int }

func (c *choices) of(n int) (chosen int) {
	chosen, c.left = c.left%n, c.left/n
	return chosen
}

func (c *choices) yes() bool { return c.of(2) == 1 }

// next begins the next combination; it says false when all were had.
func (c *choices) next() bool {
	over := c.left > 0
	c.number++
	c.left = c.number
	return !over
}

// The rules and the model, for each combination of what they ask for.
func TestRulesAndModel(t *testing.T) {
	others := []Inputs{ruleInputs}
	for _, in := range differing() {
		others = append(others, in)
	}
	invokers := []string{"manual", "systemd", "drone"}
	combinations := 0
	for c := (&choices{}); ; {
		m := modelMemory{known: true, doubted: c.yes(), skipped: c.yes(), held: c.yes()}
		s := State{Schema: Schema, Held: m.held, Last: Result{Verdict: []Verdict{Promote, Hold, Error, Skip, Gone, ""}[c.of(6)]}}
		now := others[c.of(len(others))]
		f := modelFolder{inputs: modelInputs{revision: "same"}}
		if !now.equal(ruleInputs) {
			f.inputs.revision = "other"
		}
		p := Policy{Force: c.yes(), SkipsHold: c.yes(), Promote: c.yes(), Invoker: invokers[c.of(2)]}
		ms := modelSweep{force: p.Force, skipsHold: p.SkipsHold, promote: p.Promote, hand: p.Invoker == "manual", now: ruleClock}
		if c.yes() {
			p.MaxAge, ms.maxAge = 24*time.Hour, 24*time.Hour
		}
		by, age := invokers[c.of(3)], []time.Duration{-time.Hour, -24*time.Hour - 1, 1}[c.of(3)]
		if c.yes() {
			m.canonical, m.machine = &modelInputs{revision: "same"}, by != "manual"
			m.promoted = ruleClock.Add(age)
			s.Canonical = Promotion{Inputs: ruleInputs, Time: m.promoted, Invoker: by, FailedSince: m.doubted}
			s.Invoker = by
			if m.skipped {
				s.Canonical.Skipped = 1
			}
		}
		want := map[string]bool{"run": true, "SKIP": false}[m.decide(f, ms)]
		if why := s.decide(now, p, ruleClock); (why != "") != want {
			t.Fatalf("%+v, %+v, %+v: %q, the model: %t", s, now, p, why, want)
		}
		combinations++
		if !c.next() {
			break
		}
	}
	judged := 0
	for c := (&choices{}); ; {
		o := passedRun()
		run := modelRun{}
		o.Before = others[c.of(2)]
		o.After = o.Before
		m := modelMemory{known: true, doubted: c.yes(), held: c.yes(), canonical: &modelInputs{revision: "same"}, machine: c.yes(), promoted: ruleClock}
		s := State{Schema: Schema, Held: m.held, Canonical: Promotion{Inputs: ruleInputs, Time: m.promoted, FailedSince: m.doubted}, Invoker: map[bool]string{true: "drone", false: "manual"}[m.machine]}
		f := modelFolder{inputs: modelInputs{revision: "same"}, work: true}
		if !o.Before.equal(ruleInputs) {
			f.inputs.revision = "other"
		}
		p := Policy{SkipsHold: c.yes(), Promote: c.yes(), Invoker: invokers[c.of(2)]}
		ms := modelSweep{skipsHold: p.SkipsHold, promote: p.Promote, hand: p.Invoker == "manual", now: ruleClock}
		if run.sweepEnded = c.yes(); run.sweepEnded {
			o.Ended = "the sweep was ended"
		}
		if run.timeLimit = c.yes(); run.timeLimit {
			o.Limit = time.Hour
		}
		end := []struct {
			syscall.Signal
			status int
		}{{}, {status: 1}, {status: 127}, {status: 137}, {Signal: syscall.SIGTERM}, {Signal: syscall.SIGSEGV}}[c.of(6)]
		o.Signal, o.Status = end.Signal, end.status
		run.status = o.Status
		run.signal = o.Signal != 0
		run.cut = o.Signal == syscall.SIGTERM && !run.timeLimit
		switch c.of(3) {
		case 1:
			o.Gone, run.changed = "it vanished", true
		case 2:
			o.After.Tree, run.changed = "another", true
		}
		if f.dirty = c.yes(); f.dirty {
			o.Uncommitted = []string{"x is changed"}
		}
		sum, about := &o.Result.Results.Summary, &o.Result.Results.Extra.About
		sum.Passed, sum.Failed, sum.Skipped = c.of(2), c.of(2), c.of(2)
		about.Complete, about.Recipe = c.yes(), []string{"r", "other"}[c.of(2)]
		about.Fingerprint = o.Before.Fingerprint
		if run.result = c.yes(); run.result {
			run.passed, run.failed, run.skipped = sum.Passed, sum.Failed, sum.Skipped
			run.complete, run.foreign = about.Complete, about.Recipe != "r"
		} else {
			o.Result = nil
		}
		v, why := judge(o, s, p)
		want := m.judge(f, ms, run)
		if string(v) != want {
			t.Fatalf("%+v, %+v, %+v, %+v: %s (%s), the model: %s", o, o.Result, s, p, v, why, want)
		}
		after := s.after(Result{Verdict: v, Started: ruleClock}, &o.Before, p)
		wanted := m.after(want, f, ms, &run)
		if after.Held != wanted.held || after.Canonical.FailedSince != wanted.doubted || after.Canonical.Inputs.equal(ruleInputs) != (wanted.canonical.revision == "same") {
			t.Fatalf("%s after %+v: %+v, the model %+v", v, s, after, wanted)
		}
		judged++
		if !c.next() {
			break
		}
	}
	t.Logf("decide: %d combinations; judge and after: %d", combinations, judged)
}

// An environment that is not what was built says nothing of any recipe: before
// a sweep nothing is touched, during one the run has no verdict, and no other
// is started.
func TestIntact(t *testing.T) {
	b := newBench(t)
	b.Removed = true // a sweep of all recipes, which leaves a summary
	b.recipe("a", "exit 0")
	b.recipe("b", "exit 1")
	b.want("first", "a PROMOTE", "b HOLD")
	files := func() map[string]string {
		content := map[string]string{}
		err := filepath.WalkDir(string(b.State), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				data, err := os.ReadFile(path)
				content[path] = string(data)
				return err
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	before := files()
	b.recipe("a", "exit 1")
	b.Intact = func() error { return os.ErrInvalid }
	if results, err := Run(context.Background(), b.Options, func(Event) { t.Error("something was told") }); err != os.ErrInvalid || results != nil {
		t.Errorf("before the sweep: %+v, %v", results, err)
	}
	if now := files(); len(now) != len(before) {
		t.Errorf("%d files, were %d", len(now), len(before))
	} else {
		for path, content := range before {
			if now[path] != content {
				t.Errorf("%s was written", path)
			}
		}
	}

	// During the sweep: at the end of the first run, whatever came of that.
	b.recipe("c", "exit 0")
	for _, test := range []string{"exit 0 # edited", "exit 1", "exit 79", "kill -SEGV $PPID"} {
		b.recipe("a", test)
		b.recipe("b", test)
		wasA, wasB := b.known("a"), b.known("b")
		calls := 0
		b.Intact = func() error {
			if calls++; calls > 1 {
				return os.ErrInvalid
			}
			return nil
		}
		started := 0
		results, err := Run(context.Background(), b.Options, func(e Event) {
			if e.Result == nil {
				started++
			}
		})
		if got := verdicts(results); err == nil || !strings.HasPrefix(err.Error(), os.ErrInvalid.Error()+"; 3 of 3 recipes have no verdict: ") || !slices.Equal(got, []string{"a CUT", "b CUT", "c CUT"}) {
			t.Errorf("%s: %q, %v", test, got, err)
		}
		if started != 1 {
			t.Errorf("%s: %d runs were started", test, started)
		}
		for name, was := range map[string]State{"a": wasA, "b": wasB} {
			is := b.known(name)
			if is.Held != was.Held || is.Last.Verdict != was.Last.Verdict || !is.Canonical.equal(was.Canonical.Inputs) || is.Canonical.FailedSince != was.Canonical.FailedSince {
				t.Errorf("%s: %s: was %+v, is %+v", test, name, was, is)
			}
		}
		if last, err := Last(b.State); err != nil || last.Status != 125 || last.Failure == "" {
			t.Errorf("last.json: %+v, %v", last, err)
		}
	}
	b.Intact = nil
	b.recipe("a", "exit 0 # good")
	b.recipe("b", "exit 1 # bad")
	b.want("intact again", "a PROMOTE", "b HOLD", "c PROMOTE")
}
