package drone

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	api "github.com/drone/drone-go/drone"

	"cc-ci-run/internal/sweep"
)

// This file decides, from what the server says of builds, which machines have died or cannot
// work, and when another machine is to run a recipe.

// outcome is what the end of a build means for its recipe.
type outcome int

const (
	useful    outcome = iota // the step has done its work; what came of it is in git
	unable                   // the machine could not work; another one may be able to
	fruitless                // lost, cancelled, or failed otherwise
)

// outcomeOf is what the end of a build means. The exit statuses 0 and 1 are a sweep's. With 126
// and 127 no cc-ci-run could be started. A clone fails if the disk is full, or the machine does
// not reach the git server; Drone calls this step so.
func outcomeOf(build *api.Build) outcome {
	as := fruitless
	switch build.Status {
	case api.StatusPassing, api.StatusFailing:
		as = useful
	case api.StatusKilled, api.StatusSkipped, api.StatusDeclined:
		return fruitless
	}
	for _, stage := range build.Stages {
		if stage.Error != "" && stage.Machine != "" { // the runner could not begin
			return unable
		}
		for _, step := range stage.Steps {
			switch code := step.ExitCode; {
			case code == sweep.UnableStatus, code == 126, code == 127, code != 0 && step.Name == "clone":
				return unable
			case code > 1:
				as = fruitless
			}
		}
	}
	return as
}

// decide ends the watch over builds that have ended, or that no machine will end, and gives
// the numbers of those that are to be cancelled. err says why pages is not complete. The
// caller holds the lock.
func (b *Builds) decide(pages map[int64]*api.Build, err error, now time.Time) (cancel []int64) {
	for _, w := range b.watched {
		if build := pages[w.number]; build != nil {
			b.update(w, build, now)
		}
	}
	if err != nil {
		for _, w := range b.watched {
			if silence := now.Sub(b.answered); silence > w.Limit+margin {
				b.end(w, sweep.Ending{Failed: fmt.Sprintf("the Drone server %s has not answered for %s, and the build may still run: %v", b.server, silence.Round(time.Second), err), Final: true}, fruitless)
			}
		}
		return nil
	}
	for _, w := range b.watched {
		if !w.since.IsZero() && !w.parked {
			b.progress = now // a machine that works takes a waiting build after this one
		}
	}
	for _, w := range b.watched {
		limit := w.Limit + margin
		waits := b.waits(w, now)
		switch {
		// A runner that has accepted a build begins at once, or never: it drops the build if
		// Drone cannot give it the details, which Drone asks the git server for.
		case !w.since.IsZero() && w.status == api.StatusPending && now.Sub(w.since) > margin:
			cancel = append(cancel, w.number)
			b.end(w, sweep.Ending{Failed: fmt.Sprintf("its build was lost: the machine %s took it %s ago, and did not begin", w.machine, now.Sub(w.since).Round(time.Second))}, fruitless)
		case !w.since.IsZero() && now.Sub(w.since) > limit:
			cancel = append(cancel, w.number)
			b.end(w, sweep.Ending{Failed: fmt.Sprintf("its build was lost: the machine %s had it for %s, and the recipe's limit is %s", w.machine, now.Sub(w.since).Round(time.Second), w.Limit)}, fruitless)
		case !w.since.IsZero():
		case waits > b.patienceFor(w):
			cancel = append(cancel, w.number)
			b.end(w, sweep.Ending{Failed: b.notTaken(w, waits), Final: true}, fruitless)
		case waits > patience && !w.warned:
			w.warned = true
			w.tell(w.Recipe, fmt.Sprintf("no machine has taken build %d for %s (%s): %s", w.number, waits.Round(time.Second), b.counts(), b.wants(w)))
		}
	}
	return cancel
}

// waits is for how long a build has waited for a machine, without the time in which machines
// worked on other builds of the sweep. Of a parked build, only its end says whether the
// machine worked on it. The caller holds the lock.
func (b *Builds) waits(w *watch, now time.Time) time.Duration {
	for _, other := range b.watched {
		if other.parked && other.works(now) {
			return 0
		}
	}
	return min(now.Sub(b.progress), now.Sub(w.began))
}

// patienceFor is for how long a build waits for a machine: for its recipe's limit, but long
// enough for machines that could not work to show that they can again.
func (b *Builds) patienceFor(w *watch) time.Duration {
	limit := w.Limit + margin
	if len(b.unable) > 0 {
		limit = max(limit, sweep.Tries(time.Hour)+2*margin)
	}
	return limit
}

// notTaken says that no machine took a build. The caller holds the lock.
func (b *Builds) notTaken(w *watch, waits time.Duration) string {
	machine := "machine"
	if len(b.unable) > 0 {
		machine = "machine that can work"
	}
	return fmt.Sprintf("no %s took its build for %s: %s", machine, waits.Round(time.Second), b.wants(w))
}

// wants says which runner a build waits for. The caller holds the lock.
func (b *Builds) wants(w *watch) string {
	text := fmt.Sprintf("a runner for %s/%s of type %q", w.stage.OS, w.stage.Arch, w.stage.Type)
	if labels := w.stage.Labels; len(labels) > 0 {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(labels)) {
			list = append(list, name+"="+labels[name])
		}
		text += " with exactly the labels " + strings.Join(list, ", ")
	} else {
		text += " without labels"
	}
	text += " has to be connected to the Drone server, and idle"
	if len(b.unable) > 0 {
		text += "; these machines could not work (cc-ci-run host may say why): " + strings.Join(slices.Sorted(maps.Keys(b.unable)), ", ")
	}
	return text
}

// maxPause is the longest pause. A machine that can work must not be idle for long because of
// another one that fails quickly.
const maxPause = 5 * time.Minute

// judge says what follows for a recipe from what became of its builds: its end, or that
// another build is to be started after a pause. Machines that fail quickly make the pauses
// longer, so that they do not have hundreds of builds.
func (b *Builds) judge(mine []*watch) (end *sweep.Ending, another bool, pause time.Duration) {
	b.lock.Lock()
	defer b.lock.Unlock()
	now := time.Now()
	var failed, cannot *watch
	hope := false // a build waits, or a machine works on it
	for _, w := range mine {
		switch {
		case w.ended == nil:
			hope = hope || w.since.IsZero() || w.works(now)
		case w.as == useful:
			return w.ended, false, 0
		case w.as == unable:
			if cannot = w; w.quick {
				pause += detailsEvery
			}
		default:
			failed = w
		}
	}
	switch waits := b.waits(mine[0], now); {
	case hope:
		return nil, false, 0
	case failed != nil:
		end = failed.ended
	case waits > b.patienceFor(mine[0]):
		last := mine[len(mine)-1]
		end = &sweep.Ending{Machine: last.machine, Link: b.link(last.number), Failed: b.notTaken(last, waits), Final: true}
	default:
		return nil, true, min(pause, maxPause)
	}
	if end.Said == nil && cannot != nil { // what the machine said that could not work
		end.Said = cannot.ended.Said
		if end.Failed += inBrackets(cannot.ended.Failed); end.Machine == "" {
			end.Machine = cannot.machine
		}
	}
	return end, false, 0
}

// works says whether a machine works on a build. One that could not work before only tries,
// until it has the build for longer than a machine tries.
func (w *watch) works(now time.Time) bool {
	return !w.since.IsZero() && (!w.parked || now.Sub(w.since) > sweep.Tries(w.Limit)+margin)
}
