package sweep

import "time"

// This file has the rules of docs/verdicts.md a second time. It was written
// from that page alone, by somebody who had not seen rules.go, and shares no
// type or constant with the code, so that a rule which the code gets wrong is
// not wrong here in the same way. TestHistories compares the two. A rule that
// changes is changed on the page, here and in rules.go.

// modelInputs has the five inputs of a run. The histories make their own names
// for revisions and trees, which are equal where the folders' content is.
type modelInputs struct{ revision, tree, environment, runner, site string }

// modelFolder says in which state a sweep finds a recipe's folder.
type modelFolder struct {
	removed    bool
	unreadable bool // a link that leads nowhere, unreadable, or with a FIFO in it
	work       bool // a git work tree of its own
	dirty      bool // a file differs from the commit's
	inputs     modelInputs
}

// modelSweep says how a sweep was asked for.
type modelSweep struct {
	force     bool
	maxAge    time.Duration // 0: none
	skipsHold bool
	hand      bool // by a person
	promote   bool
	now       time.Time
}

// modelRun says what a run did, in the words of the page.
type modelRun struct {
	sweepEnded bool // or the environment changed on disk
	cut        bool // a SIGKILL and the like that the sweep did not send, or the watching process was killed
	changed    bool // the folder cannot be read afterwards, or an input changed
	timeLimit  bool
	signal     bool // SIGSEGV and the like
	status     int
	result     bool // the runner wrote one
	foreign    bool // it is of another recipe or environment
	complete   bool
	passed     int
	failed     int
	skipped    int
}

// modelMemory is what a state directory remembers of one recipe.
type modelMemory struct {
	known     bool // anything is remembered
	damaged   bool // the file, which the next sweep sets aside
	canonical *modelInputs
	skipped   bool // tests were skipped when the canonical revision was promoted
	machine   bool // a timer or Drone sweeps it
	promoted  time.Time
	doubted   bool
	held      bool
	gone      bool // and has been said to be
}

// looksOn says whether a sweep by hand remembers nothing of a timer's recipe.
func (m modelMemory) looksOn(s modelSweep) bool {
	return m.machine && !m.damaged && s.hand && !s.promote
}

// decide returns SKIP, ERROR, GONE, "run", or "" for a recipe that the sweep
// does not mention.
func (m modelMemory) decide(f modelFolder, s modelSweep) string {
	switch {
	case f.removed && (m.known && !m.gone || m.damaged) && !m.looksOn(s):
		return "GONE"
	case f.removed:
		return ""
	case f.unreadable:
		return "ERROR"
	case m.damaged, m.canonical == nil:
		return "run"
	case f.inputs != *m.canonical:
		return "run"
	case m.doubted:
		return "run"
	case s.skipsHold && m.skipped:
		return "run"
	case s.force:
		return "run"
	case s.maxAge > 0 && (s.now.Sub(m.promoted) > s.maxAge || m.promoted.After(s.now)):
		return "run"
	}
	return "SKIP"
}

// judge returns a run's verdict.
func (m modelMemory) judge(f modelFolder, s modelSweep, r modelRun) string {
	switch {
	case r.sweepEnded, r.cut:
		return "CUT"
	case r.changed:
		return "ERROR"
	case r.timeLimit:
		return "HOLD"
	case !r.result && !r.signal && (r.status == 125 || r.status == 126 || r.status == 127):
		return "ERROR"
	case !r.result && (r.signal || r.status != 0):
		return "HOLD"
	case !r.result:
		return "ERROR"
	case r.foreign:
		return "ERROR"
	case r.failed > 0:
		return "HOLD"
	case r.signal || r.status != 0:
		return "HOLD"
	case !r.complete || r.passed == 0: // a skipped test was not executed
		return "ERROR"
	case r.skipped > 0 && s.skipsHold:
		return "HOLD"
	case f.work && f.dirty:
		return "HOLD"
	case m.looksOn(s):
		return "PASS"
	}
	return "PROMOTE"
}

// after returns what is remembered. A recipe that was not run has r == nil.
func (m modelMemory) after(verdict string, f modelFolder, s modelSweep, r *modelRun) modelMemory {
	if m.looksOn(s) || verdict == "CUT" {
		return m
	}
	if m.damaged {
		m = modelMemory{}
	}
	m.machine = m.machine || !s.hand
	if !f.removed {
		m.gone = false
	}
	switch verdict {
	case "PROMOTE":
		in := f.inputs
		m = modelMemory{canonical: &in, skipped: r.skipped > 0, machine: m.machine, promoted: s.now}
	case "HOLD":
		m.held = true
	case "SKIP":
		m.held = false
	case "GONE":
		m.held, m.gone = false, true
	}
	if r != nil && (verdict == "HOLD" || verdict == "ERROR") && m.canonical != nil && *m.canonical == f.inputs {
		m.doubted = true
	}
	m.known = true
	return m
}

// bad reports whether a sweep with this verdict exits with 1.
func modelBad(verdict string) bool {
	return verdict == "HOLD" || verdict == "ERROR" || verdict == "CUT"
}
