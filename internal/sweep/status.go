package sweep

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file answers an operator's questions in the morning: which recipes fail, since
// when, and which are fixed.

// Group is the group of a recipe after the last sweep.
type Group string

// The groups, in the order in which they are shown.
const (
	NewlyFailing Group = "newly failing" // it began to fail in the last sweep
	StillFailing Group = "still failing"
	Damaged      Group = "memory lost" // its memory cannot be read
	Fixed        Group = "fixed"       // it failed before the last sweep, and passes now
	NeverRun     Group = "never run"   // it has a folder, and no verdict yet
	Passing      Group = "passing"
	Removed      Group = "gone"
)

// Groups are all groups, in the order in which they are shown.
var Groups = []Group{NewlyFailing, StillFailing, Damaged, Fixed, NeverRun, Passing, Removed}

// Standing says how one recipe stands: its group, and why.
type Standing struct {
	Recipe    string    `json:"recipe"`
	Group     Group     `json:"group"`
	Verdict   Verdict   `json:"verdict,omitempty"`
	Why       string    `json:"why"`
	Since     time.Time `json:"since,omitzero"`      // start of the first run since which it fails, or passes
	Nights    int       `json:"nights"`              // runs since then
	Ran       time.Time `json:"ran,omitzero"`        // when a run last ended
	Revision  string    `json:"revision,omitempty"`  // of the last run
	Canonical string    `json:"canonical,omitempty"` // the revision that passed last
	Promoted  time.Time `json:"promoted,omitzero"`   // when the run of that revision started
	Invoker   string    `json:"invoker,omitempty"`   // who promoted it
	Run       *Past     `json:"run,omitempty"`       // the last run
}

// StatusSchema is the version of the form of Status as JSON.
const StatusSchema = 1

// Status says how all recipes stand.
type Status struct {
	Schema   int           `json:"schema"`
	Headline string        `json:"headline"`
	Sweep    *Summary      `json:"sweep"` // the last one, null if there was none
	Totals   map[Group]int `json:"totals"`
	Changes  []string      `json:"environment_changes"` // from the environment of the sweep before to that of the last one
	Recipes  []Standing    `json:"recipes"`             // by group, then by name
}

// StatusOf sums up what is remembered. last is the last sweep, nil for none; folders are
// the recipes that have a folder now, nil if that is not known; changes say how the last
// sweep's environment differs from that of the sweep before it.
func StatusOf(list []*Remembered, last *Summary, folders, changes []string) Status {
	s := Status{Schema: StatusSchema, Sweep: last, Totals: map[Group]int{}, Changes: changes, Recipes: []Standing{}}
	if s.Changes == nil {
		s.Changes = []string{}
	}
	known := map[string]bool{}
	for _, r := range list {
		known[r.Recipe()] = true
		s.Recipes = append(s.Recipes, r.standing(last))
	}
	for _, name := range folders {
		if known[name] {
			continue
		}
		st := Standing{Recipe: name, Group: NeverRun, Why: "no sweep has looked at it yet"}
		if err := checkName(name); err != nil { // each sweep says so, and remembers nothing under such a name
			st = Standing{Recipe: strconv.QuoteToASCII(name), Group: StillFailing, Verdict: Error, Why: err.Error()}
		}
		s.Recipes = append(s.Recipes, st)
	}
	slices.SortStableFunc(s.Recipes, func(a, b Standing) int {
		return cmp.Or(slices.Index(Groups, a.Group)-slices.Index(Groups, b.Group), strings.Compare(a.Recipe, b.Recipe))
	})
	for _, r := range s.Recipes {
		s.Totals[r.Group]++
	}
	s.Headline = s.headline()
	return s
}

func (r *Remembered) standing(last *Summary) Standing {
	if r.Err != nil {
		return Standing{Recipe: r.Recipe(), Group: Damaged, Why: r.Err.Error()}
	}
	k := r.State
	st := Standing{
		Recipe: r.Recipe(), Verdict: k.Last.Verdict, Why: k.Last.Why, Since: k.Streak.Since, Nights: k.Streak.Runs, Ran: k.Ran,
		Revision: k.Last.Revision, Canonical: k.Canonical.Revision, Promoted: k.Canonical.Time, Invoker: k.Canonical.Invoker, Run: k.Run,
	}
	// A change in a later sweep of single recipes is news, too.
	news := last != nil && !k.Streak.Since.Before(last.Started)
	switch {
	case k.Last.Verdict == Gone:
		st.Group = Removed
	case k.Last.Verdict == "":
		st.Group, st.Why = NeverRun, "no run has had a verdict yet"
	case k.Streak.Since.IsZero() && (k.Held || k.Last.Verdict.Bad()): // remembered by an earlier cc-ci-run
		st.Group, st.Since = StillFailing, k.Last.Started
	case k.Streak.Failing && news:
		st.Group = NewlyFailing
	case k.Streak.Failing:
		st.Group = StillFailing
	case k.Streak.Turned && news:
		st.Group = Fixed
	default:
		st.Group = Passing
	}
	return st
}

// headline is the status in one sentence.
func (s Status) headline() string {
	var parts []string
	for _, g := range Groups[:5] {
		if n := s.Totals[g]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, g))
		}
	}
	text := strings.Join(parts, ", ")
	if s.Totals[NewlyFailing]+s.Totals[StillFailing]+s.Totals[Damaged] == 0 && s.Totals[Passing]+s.Totals[Fixed] > 0 {
		text = strings.TrimSuffix(fmt.Sprintf("all %d pass, %s", s.Totals[Passing]+s.Totals[Fixed], text), ", ")
	}
	if text == "" {
		text = "no recipe was swept yet"
	}
	if len(s.Changes) > 0 {
		text += "; " + some(s.Changes)
	}
	return text
}

// News says whether the last sweep found something that people should be told.
func (s Status) News() bool {
	if s.Sweep != nil && (s.Sweep.Failure != "" || s.Sweep.Verdicts[Error] > 0) {
		return true
	}
	return s.Totals[NewlyFailing]+s.Totals[Fixed]+s.Totals[Damaged] > 0
}
