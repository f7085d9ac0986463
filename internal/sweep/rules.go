package sweep

import (
	"fmt"
	"maps"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/record"
)

// This file is the rules of verdicts, and nothing else: decide says whether a
// recipe is run, and judge what its run came to. What is remembered then is in
// promote.go. None of them reads a file or a clock. docs/verdicts.md has them as a
// table.

// Inputs are what decides how a recipe's tests go.
type Inputs struct {
	Identity
	Fingerprint string `json:"fingerprint"` // of the environment
	Runner      string `json:"runner"`      // hash of the runner's folder
	// Site is what the site gives to the tests ([environment] site), each value
	// as a keyed hash.
	Site map[string]string `json:"site"`
}

func (in Inputs) equal(other Inputs) bool {
	return in.Identity == other.Identity && in.Fingerprint == other.Fingerprint && in.Runner == other.Runner && maps.Equal(in.Site, other.Site)
}

// difference says how inputs differ from those of the canonical run, or "".
func (in Inputs) difference(was Inputs) string {
	var parts []string
	if was.Recipe != in.Recipe { // also of schema 1, which has none
		parts = append(parts, fmt.Sprintf("recipe %q, was %q", in.Recipe, was.Recipe))
	}
	switch {
	case was.Revision != in.Revision:
		parts = append(parts, fmt.Sprintf("revision %.12s, promoted was %.12s", in.Revision, was.Revision))
	case was.Tree != in.Tree:
		parts = append(parts, "changes that are not committed")
	}
	if was.Fingerprint != in.Fingerprint {
		parts = append(parts, fmt.Sprintf("environment %.12s, was %.12s", in.Fingerprint, was.Fingerprint))
	}
	if was.Runner != in.Runner {
		parts = append(parts, "another runner")
	}
	if !maps.Equal(was.Site, in.Site) {
		var names []string
		for _, name := range sortedNames(was.Site, in.Site) {
			if was.Site[name] != in.Site[name] {
				names = append(names, name)
			}
		}
		parts = append(parts, "another "+strings.Join(names, ", "))
	}
	return strings.Join(parts, "; ")
}

// Policy is what the caller wants of the rules.
type Policy struct {
	Force     bool          // run what would be skipped
	Wanted    bool          // a dispatcher asks for the recipe, whose state is the one that the dispatcher saw
	MaxAge    time.Duration // run what last passed longer ago; 0 is for ever
	SkipsHold bool          // hold a recipe of which tests were skipped
	Invoker   string        // of the sweep: drone, systemd or manual
	Promote   bool          // promote by hand what another invoker promoted before
}

// decide says why a recipe is run, or "" if it is skipped: only if the last run
// with these inputs passed, and is not too old.
func (s State) decide(now Inputs, p Policy, clock time.Time) (why string) {
	c := s.Canonical
	switch {
	case c.Time.IsZero():
		return "never promoted"
	case !c.Inputs.equal(now):
		return now.difference(c.Inputs)
	case c.FailedSince:
		return "it did not pass again since it was promoted"
	case p.SkipsHold && c.Skipped > 0:
		return fmt.Sprintf("%d tests were skipped when it was promoted, and skips hold it now", c.Skipped)
	case p.Force:
		return "forced"
	case p.MaxAge > 0 && clock.Sub(c.Time) >= p.MaxAge:
		return "last passed " + days(clock.Sub(c.Time)) + " ago"
	case p.MaxAge > 0 && clock.Before(c.Time):
		return "last passed in the future, by this machine's clock"
	case p.Wanted:
		return "the dispatcher asks for it"
	}
	return ""
}

// days is a length of time for people.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// Outcome is how a run ended, as far as a verdict asks.
type Outcome struct {
	Why string // it was run

	// HandedOn says that a parent hands on a signal as the exit status 128+N.
	HandedOn bool

	// What ended it, the first that is not empty.
	Ended   string         // the sweep's own end, or what else is no fault of the tests
	Limit   time.Duration  // the time limit that it reached
	Failed  string         // why it could not be started
	Signal  syscall.Signal // that killed it
	Status  int            // its exit status
	Running string         // the test under way, if it did not end by itself

	Result   *record.Result // nil if there is none …
	NoResult string         // … and why

	Before, After Inputs
	Gone          string   // why After could not be read
	Uncommitted   []string // how the folder differs from its commit
	Left          []string // processes that could not be ended
}

// outside are the signals that an operator, a shutdown or a machine without
// memory sends. A program that fails kills itself by others.
var outside = []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGPWR}

// notStarted says why a run could not be started, or "".
func (o Outcome) notStarted() string {
	switch {
	case o.Failed != "":
		return "could not be started: " + o.Failed
	case o.Result == nil && o.Running == "" && o.Signal == 0 && o.Status >= 125 && o.Status <= 127:
		return fmt.Sprintf("cc-ci-run could not start it: exit status %d", o.Status)
	}
	return ""
}

// cut says what ended a run from outside, or "".
func (o Outcome) cut() string {
	if o.Ended != "" || o.Limit != 0 {
		return o.Ended
	}
	for _, signal := range outside {
		if o.Signal == signal || o.HandedOn && o.Signal == 0 && o.Status == 128+int(signal) {
			return "ended from outside by " + unix.SignalName(signal)
		}
	}
	if o.Result != nil && strings.HasPrefix(o.Result.About().Why, "ended by SIG") {
		return "ended from outside: " + o.Result.About().Why
	}
	return ""
}

// judge gives the verdict of a run. The order of the rules is their rank.
func judge(o Outcome, known State, p Policy) (v Verdict, why string) {
	during := ""
	if o.Running != "" {
		during = " during " + o.Running
	} else if o.Limit != 0 && o.Result != nil && o.Result.About().Complete {
		during = " after its tests were over"
	}
	ended := func(v Verdict, format string, args ...any) (Verdict, string) {
		why := fmt.Sprintf(format, args...)
		if len(o.Left) > 0 {
			why += "; could not be ended: " + strings.Join(o.Left, ", ")
			if v == Promote || v == Pass {
				v = Error
			}
		}
		return v, why
	}
	switch {
	case o.cut() != "":
		return ended(Cut, "%s%s: no verdict", o.cut(), during)
	case o.Gone != "":
		return ended(Error, "%s", o.Gone)
	case o.Before.Identity != o.After.Identity:
		return ended(Error, "it changed while its tests ran, so they say nothing of either revision")
	case !o.Before.equal(o.After):
		return ended(Error, "the runner or the environment changed while its tests ran, so they say nothing of either")
	case o.Limit != 0:
		return ended(Hold, "took longer than %s%s (%s)", o.Limit, during, o.Why)
	case o.notStarted() != "":
		return ended(Error, "%s", o.notStarted())
	}
	result := fmt.Sprintf("the runner's exit status %d", o.Status)
	if o.Signal != 0 {
		result = unix.SignalName(o.Signal)
	}
	switch {
	case o.Result == nil && (o.Status != 0 || o.Signal != 0):
		return ended(Hold, "failed with %s, before pytest's end%s (%s)", result, during, o.Why)
	case o.Result == nil:
		return ended(Error, "its tests ended before pytest did%s, with exit status 0: %s", during, o.NoResult)
	}
	tests := o.Result.Counts()
	summary := o.Result.Results.Summary
	about := o.Result.About()
	switch {
	case about.Recipe != o.Before.Recipe || about.Fingerprint != o.Before.Fingerprint:
		return ended(Error, "its result is of another run: recipe %q, environment %.12s", about.Recipe, about.Fingerprint)
	case summary.Failed > 0:
		return ended(Hold, "%s: %s (%s)", tests, some(o.Result.Failed()), o.Why)
	case o.Status != 0 || o.Signal != 0 || about.ExitStatus != 0:
		if o.Signal == 0 && about.ExitStatus != 0 {
			result = fmt.Sprintf("pytest's exit status %d", about.ExitStatus)
			if o.Status == 0 {
				result += ", which was changed to 0"
			}
		}
		because := about.Why
		if because == "" {
			because = tests
		}
		return ended(Hold, "failed with %s: %s (%s)", result, because, o.Why)
	case !about.Complete || summary.Pending > 0 || summary.Passed+summary.Other+summary.Partly == 0:
		because := about.Why
		if because == "" {
			because = "no test was executed"
		}
		return ended(Error, "its tests ended before pytest did, with exit status 0: %s", because)
	case summary.Skipped > 0 && p.SkipsHold:
		return ended(Hold, "%s, which holds it: %s (%s)", tests, some(o.Result.SkipReasons()), o.Why)
	}
	passed := tests
	if about.Deselected > 0 {
		passed += fmt.Sprintf(", %d deselected", about.Deselected)
	}
	if summary.Skipped > 0 {
		passed += ": " + some(o.Result.SkipReasons())
	}
	switch {
	case len(o.Uncommitted) > 0:
		return ended(Hold, "%s, but not of its commit: %s; commit it (%s)", passed, some(o.Uncommitted), o.Why)
	case known.foreign(p):
		return ended(Pass, "%s; by hand, and the verdict of %s stays: --promote, or systemctl start nightly-sweep@%s", passed, known.Invoker, o.Before.Recipe)
	}
	return ended(Promote, "%s (%s)", passed, o.Why)
}

// some is a list for people, of three at most.
func some(list []string) string {
	if len(list) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:3], ", "), len(list)-3)
	}
	return strings.Join(list, ", ")
}
