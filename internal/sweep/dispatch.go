package sweep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/plaintext"
)

// This file is the dispatcher: a sweep whose recipes other machines run. Each of the other
// machines is asked for one recipe, sweeps the recipe with [Options.Asked], and pushes the
// verdict to the shared repository. The dispatcher reads the verdicts there: what the other
// machine's exit status or output says decides nothing.

// Elsewhere runs recipes on other machines.
type Elsewhere interface {
	// Run has one recipe swept on another machine, and returns when that is over, whatever
	// came of it. If ctx ends, Run ends the recipe's run, too. tell is called with what people
	// should know meanwhile; about is the recipe, or "" if the text is about no recipe.
	Run(ctx context.Context, r Request, tell func(about, text string)) Ending
}

// Request asks another machine for one recipe.
type Request struct {
	Recipe string
	Asked
	// Limit is how long the recipe's run may take, with the time between SIGTERM and SIGKILL.
	Limit time.Duration
}

// Ending is how a machine's work on one recipe ended.
type Ending struct {
	Machine string // "" if no machine took the recipe
	Link    string // where people see the machine's work
	// Failed says why the work did not come to its end; "" if it did.
	Failed string
	// Final says that another attempt is of no use.
	Final bool
	// Said gives the end of what the machine printed; nil if that is not to be had.
	Said func(ctx context.Context) string
}

// attempts is how often a dispatcher asks for a recipe, if no verdict comes before.
const attempts = 2

// dispatch has another machine run a recipe, and reads the verdict in the shared repository.
func (s *sweep) dispatch(ctx context.Context, j *job, tell func(about, text string)) {
	j.Started = s.Now().UTC()
	if ctx.Err() != nil {
		s.cutOff(ctx, j)
		return
	}
	name := j.Recipe
	for attempt := 1; ; attempt++ {
		seen := s.store.seen(name)
		end := s.Elsewhere.Run(ctx, Request{Recipe: name, Asked: Asked{s.now.Fingerprint, seen}, Limit: s.timeout(name) + s.Grace}, tell)
		j.Log = end.Link
		if ctx.Err() != nil {
			j.verdict(Cut, "%s during its build: no verdict", endOf(ctx))
			return
		}
		known, err := s.readShared(ctx, name)
		last := end.Final || attempt == attempts
		switch {
		case err != nil:
			j.verdict(Error, "its verdict cannot be read: %v; %s", err, end.Link)
			return
		// A state that is damaged, or that somebody removed, is no verdict.
		case s.store.seen(name) != seen && known.saysSomething():
			if s.read(j, known, end.Machine); j.Verdict != Cut || last {
				return
			}
		default:
			if j.verdict(Error, "%s", silent(ctx, end)); last {
				s.rememberSilence(j, end)
				return
			}
		}
		why := j.Why
		if j.Verdict == Cut && end.Failed != "" {
			why = end.Failed + "; " + why
		}
		tell(name, "the sweep tries again: "+why)
	}
}

// rememberSilence writes down that no machine has given a verdict, so that people find it in
// the morning.
func (s *sweep) rememberSilence(j *job, end Ending) {
	err := s.write(j, nil, nil)
	if errors.Is(err, memory.ErrMoved) { // a machine has pushed its verdict just now
		if known, failed := s.store.refresh(j.Recipe); failed == nil {
			s.read(j, known, end.Machine)
			return
		}
	}
	if err != nil {
		j.verdict(Error, "%s; its state was not written: %v", j.Why, err)
	}
}

// silent says what is known of a machine's work if the machine has not pushed a verdict.
func silent(ctx context.Context, end Ending) string {
	why := end.Failed
	if why == "" {
		why = "no verdict came from the machine " + end.Machine
	}
	if end.Said != nil {
		if said := lastLines(end.Said(ctx)); said != "" {
			why += ": " + said
		}
	}
	if end.Link != "" {
		why += "; " + end.Link
	}
	return why
}

// lastLines are the last two lines of a text: of a sweep of one recipe these are the verdict,
// and what became of the sweep.
func lastLines(text string) string {
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
	lines = lines[max(0, len(lines)-2):]
	for i, line := range lines {
		lines[i] = plaintext.Shorten(strings.Join(strings.Fields(line), " "), 300)
	}
	return strings.Join(lines, " | ")
}

// read takes the verdict that a machine has pushed.
func (s *sweep) read(j *job, known State, machine string) {
	last, run := known.Last, known.Run
	// A run that was cut off is only in known.Run, and a verdict without a run is only in
	// known.Last.
	isNew := run != nil && (j.known.Run == nil || run.ID != j.known.Run.ID)
	// Clocks of machines differ: the verdict of before is not newer, whatever its time is.
	same := last.Verdict == j.known.Last.Verdict && last.Started.Equal(j.known.Last.Started)
	if isNew && (same || !last.Started.After(run.Started)) {
		j.Verdict, j.Why, j.Revision, j.Tests, j.Started, j.Duration = run.Verdict, run.Why, run.Revision, run.Tests, run.Started, run.Took
		machine = run.Machine
	} else {
		j.Verdict, j.Why, j.Revision, j.Tests, j.Started, j.Duration = last.Verdict, last.Why, last.Revision, last.Tests, last.Started, last.Duration
	}
	if !slices.Contains([]Verdict{Promote, Pass, Skip, Hold, Error, Cut, Gone}, j.Verdict) {
		j.Verdict, j.Why = Error, fmt.Sprintf("its state in the shared repository has no verdict, but %q", plaintext.Shorten(string(j.Verdict), 20))
	}
	j.settled, j.known, j.Promoted = true, known, known.Canonical.Revision
	if machine != "" {
		j.Why += " on " + machine
	}
	j.Why = plaintext.Printable(j.Why + s.differs(j))
}

// differs says which inputs of the last run differ from the dispatcher's. If any does, the
// next sweep runs the recipe again, and so does each sweep after that.
func (s *sweep) differs(j *job) string {
	run := j.known.Run
	own, err := s.inputs(j.Recipe)
	if err != nil || run == nil {
		return ""
	}
	changed := past(Result{}, own, s.Invoker, run.Machine).Changed(*run)
	if c := j.known.Canonical; j.Verdict == Promote && changed != "" {
		changed = own.difference(c.Inputs) // which names the variables
	}
	if changed == "" {
		return ""
	}
	return fmt.Sprintf("; the dispatcher %s has other inputs (%s), so its next sweep runs the recipe again", s.Machine, changed)
}

// pauses are between attempts to reach the shared repository. A test makes them shorter.
var pauses = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}

// readShared reads a recipe's state in the shared repository, which may be away for a moment.
func (s *sweep) readShared(ctx context.Context, recipe string) (known State, err error) {
	began := time.Now()
	for _, pause := range append(slices.Clone(pauses), 0) {
		known, err = s.store.refresh(recipe)
		if errors.Is(err, errNotShared) {
			return known, nil
		}
		if !errors.Is(err, memory.ErrUnreachable) || pause == 0 || time.Since(began) > time.Minute { // a git that hung was waited for long enough
			break
		}
		select {
		case <-ctx.Done():
			return known, err
		case <-time.After(pause):
		}
	}
	return known, err
}
