package sweep

import "time"

// This file is what is known of a recipe, above all which revision is canonical,
// and how a verdict changes that.

// Promotion is the run that made a recipe's revision canonical.
type Promotion struct {
	Inputs
	Time    time.Time `json:"time"`    // when it started; zero: never promoted
	Invoker string    `json:"invoker"` // of the sweep: drone, systemd or manual
	Skipped int       `json:"skipped"` // tests that it skipped
	// FailedSince says that a later run with the same inputs did not pass.
	FailedSince bool `json:"failed_since"`
}

// Streak is since when a recipe's verdicts are all bad, or all good.
type Streak struct {
	Failing bool      `json:"failing"`
	Since   time.Time `json:"since"` // start of its first run; zero: there was no verdict yet
	Runs    int       `json:"runs"`
	// Turned says that it was the other way before. A recipe's first verdict turns nothing.
	Turned bool `json:"turned"`
}

// after is the streak after a verdict that is good or bad.
func (s Streak) after(r Result, ran bool) Streak {
	if s.Since.IsZero() || s.Failing != r.Verdict.Bad() {
		s = Streak{Failing: r.Verdict.Bad(), Since: r.Started, Turned: !s.Since.IsZero()}
	}
	if ran {
		s.Runs++
	}
	return s
}

// State is what a sweep knows of one recipe: state.json of its commit.
type State struct {
	Schema    int    `json:"schema"`
	Recipe    string `json:"recipe"`
	Directory string `json:"directory"` // of recipes, at the last sweep
	// Invoker is who sweeps this recipe: drone, systemd or manual. What a timer
	// or Drone sweeps, a sweep by hand leaves as it is.
	Invoker   string    `json:"invoker"`
	Canonical Promotion `json:"canonical"`
	// Last is the last verdict; a run that was cut off has none.
	Last Result `json:"last"`
	// Held says that the last of PROMOTE, HOLD and SKIP was HOLD: an ERROR after
	// it takes nothing back.
	Held bool `json:"held"`
	// HeldLog is the log of the run that holds it, "" if nothing does.
	HeldLog string `json:"held_log,omitempty"`
	// Ran is when a run last came to its end. The recipe that waits longest is
	// run first.
	Ran    time.Time `json:"ran"`
	Streak Streak    `json:"streak"`
	// Run is the last run, nil if there was none.
	Run *Past `json:"run,omitempty"`
}

// foreign says whether a sweep remembers nothing of a recipe: it is by hand, and
// the recipe is a timer's or Drone's.
func (s State) foreign(p Policy) bool {
	return p.Invoker == "manual" && !p.Promote && s.Invoker != "" && s.Invoker != "manual"
}

// after is what is known of a recipe after a verdict. ran are the inputs of the
// run that it is of, nil if there was none.
func (s State) after(r Result, ran *Inputs, p Policy) State {
	if s.foreign(p) || r.Verdict == Cut || r.Verdict == Pass || r.Verdict == WouldRun {
		return s
	}
	if s.Invoker == "" || p.Invoker != "manual" {
		s.Invoker = p.Invoker
	}
	switch r.Verdict {
	case Promote:
		s.Canonical = Promotion{Inputs: *ran, Time: r.Started, Invoker: p.Invoker, Skipped: r.Tests.Skipped}
		s.Held, s.HeldLog = false, ""
	case Hold, Error:
		if ran != nil && s.Canonical.Inputs.equal(*ran) {
			s.Canonical.FailedSince = true
		}
		if r.Verdict == Hold {
			s.Held, s.HeldLog = true, r.Log
		}
	case Skip, Gone:
		s.Held, s.HeldLog = false, ""
	}
	if s.Streak = s.Streak.after(r, ran != nil); r.Verdict == Gone {
		s.Streak = Streak{}
	}
	s.Last = r
	if ran != nil {
		s.Ran = r.Started.Add(r.Duration)
	}
	return s
}
