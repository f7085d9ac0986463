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
// In each state:
//   - no false promotion: a revision is canonical only if a run of it passed;
//   - nothing lost: each verdict that a push has delivered is in the ref's history;
//   - from each state there is a way, without further faults, to a verdict of the recipe as
//     it is now.
func TestProtocol(t *testing.T) {
	for _, size := range []protocolSize{{machines: 2, faults: 2, edits: 1, runs: 2}, {machines: 3, faults: 1, edits: 1, runs: 1}} {
		size.explore(t)
	}
}

type protocolSize struct{ machines, faults, edits, runs int }

// protocol is a state of the whole.
type protocol struct {
	remote   State
	history  []string // of the remote's ref: "TREE VERDICT" for each commit
	tree     string   // the recipe's, now
	machines []sharing
	passed   map[string]bool // trees of which a run passed
	pushed   []string        // what pushes have delivered
	faults   int             // that may still happen
	edits    int
	runs     int // that may still begin
}

// sharing is a machine.
type sharing struct {
	phase   string // idle, fetched, running, ran
	base    State  // what it fetched, and the history then
	history []string
	before  string // the recipe's tree when the run began
	passes  bool
	rereads int
}

func (p *protocol) clone() *protocol {
	q := *p
	q.machines = slices.Clone(p.machines)
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
		fmt.Fprint(&b, "|", m.phase, brief(m.base), m.history, m.before, m.passes, m.rereads)
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
			return q
		}
		if p.faults > 0 && m.phase != "idle" { // killed
			add(with(sharing{phase: "idle"}), true)
		}
		switch m.phase {
		case "idle":
			add(with(sharing{phase: "fetched", base: p.remote, history: p.history}), false)
		case "fetched":
			if m.base.decide(treeInputs(p.tree), protocolPolicy, time.Unix(2, 0)) == "" {
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
	return next, faulty
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
	first := &protocol{remote: State{Schema: Schema}, tree: "1", machines: slices.Repeat([]sharing{{phase: "idle"}}, size.machines), passed: map[string]bool{}, faults: size.faults, edits: size.edits, runs: size.runs * size.machines}
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
	t.Logf("%d machines, %d faults, %d edits, %d runs each: %d states, %d steps", size.machines, size.faults, size.edits, size.runs, len(list), steps)
}
