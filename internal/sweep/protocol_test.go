package sweep

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/record"
)

// TestProtocol explores every order of events in which a few machines share the memory of
// one recipe, at small size: fetch, run, push, a push that another machine was quicker
// than, a push whose answer is lost, a machine that is killed at any moment, a remote that
// is away, and a recipe that is edited meanwhile. Recipes do not touch each other's refs,
// so the test explores one recipe. What is decided, judged and remembered is decided by the real
// rules: decide, judge, after.
//
// With dispatchers, machines take builds, and more can happen: two dispatchers start a build
// at once, the answer to a request for a build is lost, a dispatcher is killed or ended at
// any moment, a killed machine's build stays taken, a person cancels a build, and a
// machine goes on whose build was given up.
//
// In each state:
//   - no false promotion: a revision is canonical only if a run of it passed;
//   - nothing lost: each verdict that a push has delivered is in the ref's history;
//   - from each state there is a way, without further faults, to a verdict of the recipe as
//     it is now.
func TestProtocol(t *testing.T) {
	for _, size := range []protocolSize{
		{machines: 2, faults: 2, edits: 1, runs: 2},
		{machines: 3, faults: 1, edits: 1, runs: 1},
		{machines: 2, dispatchers: 1, faults: 2, edits: 1, runs: 1},
		{machines: 2, dispatchers: 2, faults: 1, runs: 1},
	} {
		size.explore(t)
	}
}

type protocolSize struct{ machines, dispatchers, faults, edits, runs int }

// protocol is a state of the whole.
type protocol struct {
	remote   State
	history  []string // of the remote's ref: "TREE VERDICT" for each commit
	tree     string   // the recipe's, now
	machines []sharing
	// builds are Drone's, and dispatchers those who ask for builds.
	builds      []asked
	dispatchers []dispatching
	passed      map[string]bool // trees of which a run passed
	pushed      []string        // what pushes have delivered
	faults      int             // that may still happen
	edits       int
	runs        int // that may still begin
}

// sharing is a machine.
type sharing struct {
	phase   string // idle, fetched, running, ran
	base    State  // what it fetched, and the history then
	history []string
	before  string // the recipe's tree when the run began
	passes  bool
	rereads int
	build   int // that it works on, counted from 1
}

// asked is a build.
type asked struct {
	status string // waiting, taken, orphaned (taken, and the machine was killed), over
	seen   int    // how long the ref's history was when the dispatcher decided
	final  bool   // a person cancelled it
}

// dispatching is a dispatcher: see [sweep.dispatch] and package drone.
type dispatching struct {
	phase   string // idle, looking (for an unfinished build), posting, following, silent (about to remember an ERROR)
	base    State  // that it knew when it decided, and how long the ref's history was then
	seen    int
	build   int // counted from 1
	attempt int
}

func (p *protocol) clone() *protocol {
	q := *p
	q.machines = slices.Clone(p.machines)
	q.builds, q.dispatchers = slices.Clone(p.builds), slices.Clone(p.dispatchers)
	q.history, q.pushed = slices.Clone(p.history), slices.Clone(p.pushed)
	q.passed = map[string]bool{}
	for tree := range p.passed {
		q.passed[tree] = true
	}
	return &q
}

func brief(s State) string {
	return fmt.Sprintf("%s,%v,%v,%s", s.Canonical.Tree, s.Canonical.FailedSince, s.Held, s.Last.Verdict)
}

func (p *protocol) key() string {
	var b strings.Builder
	fmt.Fprint(&b, brief(p.remote), p.history, p.pushed, p.tree, p.passed, p.faults, p.edits, p.runs)
	for _, m := range p.machines {
		fmt.Fprint(&b, "|", m.phase, brief(m.base), m.history, m.before, m.passes, m.rereads, m.build)
	}
	fmt.Fprint(&b, "|", p.builds)
	for _, d := range p.dispatchers {
		fmt.Fprint(&b, "|", d.phase, brief(d.base), d.seen, d.build, d.attempt)
	}
	return b.String()
}

func treeInputs(tree string) Inputs {
	return Inputs{Identity: Identity{Recipe: "r", Revision: "tree-" + tree, Tree: tree}, Fingerprint: "f"}
}

var protocolPolicy = Policy{Invoker: "drone"}

// verdictOf is what a machine's run comes to, by the real rules.
func (p *protocol) verdictOf(m sharing) (v Verdict, next State) {
	o := Outcome{Why: "x", Before: treeInputs(m.before), After: treeInputs(p.tree), Result: &record.Result{}}
	o.Result.Results.Extra.About = record.About{Schema: 1, Recipe: "r", Fingerprint: "f", Complete: true}
	o.Result.Results.Summary = record.Summary{Tests: 1, Passed: 1}
	if !m.passes {
		o.Status = 1
		o.Result.Results.Summary = record.Summary{Tests: 1, Failed: 1}
	}
	v, why := judge(o, m.base, protocolPolicy)
	ran := treeInputs(m.before)
	return v, m.base.after(Result{Recipe: "r", Verdict: v, Why: why, Started: time.Unix(1, 0)}, &ran, protocolPolicy)
}

// steps are all states that can come next; a fault is marked.
func (p *protocol) steps() (next []*protocol, faulty []bool) {
	add := func(q *protocol, fault bool) {
		if fault {
			q.faults--
		}
		next, faulty = append(next, q), append(faulty, fault)
	}
	if p.edits > 0 {
		q := p.clone()
		q.edits--
		q.tree += "+"
		add(q, false)
	}
	for i, m := range p.machines {
		with := func(m sharing) *protocol {
			q := p.clone()
			q.machines[i] = m
			if was := p.machines[i].build; was != m.build && was > 0 && q.builds[was-1].status == "taken" {
				q.builds[was-1].status = "over"
			}
			return q
		}
		if p.faults > 0 && m.phase != "idle" { // killed
			q := with(sharing{phase: "idle"})
			if m.build > 0 && p.builds[m.build-1].status == "taken" {
				q.builds[m.build-1].status = "orphaned"
			}
			add(q, true)
		}
		switch m.phase {
		case "idle":
			if len(p.dispatchers) > 0 {
				for n, b := range p.builds {
					if b.status == "waiting" {
						q := with(sharing{phase: "fetched", base: p.remote, history: p.history, build: n + 1})
						q.builds[n].status = "taken"
						add(q, false)
					}
				}
				continue
			}
			add(with(sharing{phase: "fetched", base: p.remote, history: p.history}), false)
		case "fetched":
			asked := m.build > 0 && p.builds[m.build-1].seen == len(m.history)
			if !asked && m.base.decide(treeInputs(p.tree), protocolPolicy, time.Unix(2, 0)) == "" {
				add(with(sharing{phase: "idle"}), false) // SKIP
			} else if p.runs > 0 {
				m.phase, m.before = "running", p.tree
				q := with(m)
				q.runs--
				add(q, false)
			}
		case "running":
			for _, passes := range []bool{true, false} {
				m.phase, m.passes = "ran", passes
				q := with(m)
				if passes {
					q.passed[m.before] = true
				}
				add(q, false)
			}
		case "ran":
			p.push(m, with, add)
		}
	}
	for i := range p.dispatchers {
		p.dispatch(i, add)
	}
	for n, b := range p.builds {
		if p.faults > 0 && (b.status == "waiting" || b.status == "taken") { // a person cancels it: its tests are ended
			q := p.clone()
			q.over(n+1, true)
			q.builds[n].final = true
			add(q, true)
		}
	}
	return next, faulty
}

// over ends a build, and its tests if the machine hears of that.
func (p *protocol) over(build int, heard bool) {
	for i, m := range p.machines {
		if m.build == build {
			p.machines[i].build = 0
			if heard {
				p.machines[i] = sharing{phase: "idle"}
			}
		}
	}
	p.builds[build-1].status = "over"
}

// dispatch is what a dispatcher does next.
func (p *protocol) dispatch(i int, add func(*protocol, bool)) {
	d := p.dispatchers[i]
	with := func(d dispatching) *protocol {
		q := p.clone()
		q.dispatchers[i] = d
		return q
	}
	idle := dispatching{phase: "idle"}
	if p.faults > 0 && d.phase != "idle" {
		add(with(idle), true) // killed
	}
	switch d.phase {
	case "idle": // decides
		if p.runs > 0 && p.remote.decide(treeInputs(p.tree), protocolPolicy, time.Unix(2, 0)) != "" {
			add(with(dispatching{phase: "looking", base: p.remote, seen: len(p.history), attempt: 1}), false)
		}
	case "looking":
		d.phase = "posting"
		for n, b := range p.builds { // the newest one counts
			if b.status != "over" {
				d.phase, d.build = "following", n+1
			}
		}
		add(with(d), false)
	case "posting":
		d.phase, d.build = "following", len(p.builds)+1
		q := with(d)
		q.builds = append(q.builds, asked{status: "waiting", seen: d.seen})
		add(q, false)
		if p.faults > 0 { // the answer is lost
			d.phase, d.build = "looking", 0
			q := q.clone()
			q.dispatchers[i] = d
			add(q, true)
		}
	case "following":
		b := p.builds[d.build-1]
		if p.faults > 0 && b.status != "over" { // the dispatcher is ended, and cancels
			q := with(idle)
			q.over(d.build, true)
			add(q, true)
		}
		switch {
		case b.status == "orphaned" || b.status == "taken" && p.faults > 0: // lost, or taken for lost while its machine goes on
			q := p.clone()
			q.over(d.build, false)
			add(q, b.status == "taken")
		case b.status != "over":
		case len(p.history) != d.seen: // the verdict is there
			add(with(idle), false)
		case b.final || d.attempt == attempts:
			d.phase = "silent"
			add(with(d), false)
		default:
			add(with(dispatching{phase: "looking", base: d.base, seen: d.seen, attempt: d.attempt + 1}), false)
		}
	case "silent":
		q := with(idle)
		if len(p.history) == d.seen { // the lease holds
			q.remote = d.base.after(Result{Recipe: "r", Verdict: Error, Started: time.Unix(1, 0)}, nil, protocolPolicy)
			q.history, q.pushed = append(q.history[:d.seen], p.tree+" ERROR"), append(q.pushed, p.tree+" ERROR")
		}
		add(q, false)
	}
}

// push is what a machine does with a run that has ended.
func (p *protocol) push(m sharing, with func(sharing) *protocol, add func(*protocol, bool)) {
	idle := sharing{phase: "idle"}
	if p.faults > 0 { // away: an ERROR, and nothing is remembered
		add(with(idle), true)
	}
	if slices.Equal(m.history, p.history) { // the lease holds
		v, state := p.verdictOf(m)
		deliver := func(fault bool) {
			q := with(idle)
			q.remote = state
			entry := fmt.Sprintf("%s %s", m.before, v)
			q.history, q.pushed = append(slices.Clone(m.history), entry), append(q.pushed, entry)
			add(q, fault)
		}
		deliver(false)
		if p.faults > 0 { // delivered, but the machine hears of an error
			deliver(true)
		}
		return
	}
	// Another one was quicker.
	m.rereads++
	m.base, m.history = p.remote, p.history
	if m.rereads > rereads || m.base.decide(treeInputs(m.before), protocolPolicy, time.Unix(2, 0)) == "" {
		add(with(idle), false) // ERROR, or it passed there: SKIP
		return
	}
	add(with(m), false)
}

// check holds a state against what must always be true.
func (p *protocol) check(t *testing.T) {
	t.Helper()
	if tree := p.remote.Canonical.Tree; tree != "" && !p.passed[tree] {
		t.Fatalf("a false promotion: %s", p.key())
	}
	if !slices.Equal(p.history, p.pushed) {
		t.Fatalf("a verdict was lost: %s", p.key())
	}
	if n := len(p.history); n > 0 && strings.HasSuffix(p.history[n-1], string(Hold)) != p.remote.Held && !strings.HasSuffix(p.history[n-1], string(Error)) {
		t.Fatalf("a hold was lost: %s", p.key())
	}
}

// settled says whether the recipe as it is now has a verdict.
func (p *protocol) settled() bool {
	return slices.ContainsFunc(p.history, func(entry string) bool {
		tree, verdict, _ := strings.Cut(entry, " ")
		return tree == p.tree && Verdict(verdict) != Error
	})
}

func (size protocolSize) explore(t *testing.T) {
	first := &protocol{remote: State{Schema: Schema}, tree: "1", machines: slices.Repeat([]sharing{{phase: "idle"}}, size.machines), passed: map[string]bool{}, faults: size.faults, edits: size.edits, runs: size.runs * size.machines, dispatchers: slices.Repeat([]dispatching{{phase: "idle"}}, size.dispatchers)}
	seen := map[string]int{first.key(): 0}
	list := []*protocol{first}
	var back [][]int // without faults: from which states each can be reached
	steps := 0
	for i := 0; i < len(list); i++ {
		list[i].check(t)
		next, faulty := list[i].steps()
		for n, q := range next {
			key := q.key()
			j, ok := seen[key]
			if !ok {
				j = len(list)
				seen[key] = j
				list = append(list, q)
			}
			for len(back) <= j {
				back = append(back, nil)
			}
			if !faulty[n] {
				back[j] = append(back[j], i)
			}
			steps++
		}
	}
	// A verdict can be reached from each state in which there is a run left to begin, or
	// one under way of the recipe as it is now.
	reaches := make([]bool, len(list))
	var queue []int
	for i, p := range list {
		if p.settled() {
			reaches[i] = true
			queue = append(queue, i)
		}
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, j := range back[i] {
			if !reaches[j] {
				reaches[j] = true
				queue = append(queue, j)
			}
		}
	}
	for i, p := range list {
		if !reaches[i] && p.runs > 0 {
			t.Fatalf("no way to a verdict: %s", p.key())
		}
	}
	t.Logf("%d machines, %d dispatchers, %d faults, %d edits, %d runs each: %d states, %d steps", size.machines, size.dispatchers, size.faults, size.edits, size.runs, len(list), steps)
}
