package drone

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	api "github.com/drone/drone-go/drone"

	"cc-ci-run/internal/sweep"
)

// This file follows builds. One goroutine asks the server about all of them.

const (
	// every is the time between two looks at the builds.
	every = 2 * time.Second
	// detailsEvery is the time between two looks at a build that waits for a machine: only
	// the build's own page says that a machine has taken it.
	detailsEvery = 20 * time.Second
	// margin is how much longer than its recipe's limit a build may take: for the clone, and
	// to push.
	margin = 2 * time.Minute
	// patience is how long builds wait, without a machine that takes one of them, before
	// people are told.
	patience = 10 * time.Minute
)

// counts says how many builds of this sweep run and wait. The caller holds the lock.
func (b *Builds) counts() string {
	running, waiting := 0, 0
	for _, w := range b.watched {
		switch {
		case w.since.IsZero():
			waiting++
		case w.works(time.Now()):
			running++
		}
	}
	return fmt.Sprintf("%d run, %d wait", running, waiting)
}

// follow looks at the builds until none is left.
func (b *Builds) follow(ctx context.Context) {
	for {
		time.Sleep(every)
		b.lock.Lock()
		watched := slices.Collect(maps.Values(b.watched))
		if b.following = len(watched) > 0; !b.following {
			b.lock.Unlock()
			return
		}
		b.lock.Unlock()
		b.look(ctx, watched)
	}
}

// look asks the server about builds, and does what follows from the answer.
func (b *Builds) look(ctx context.Context, watched []*watch) {
	list, err := b.list(ctx, 1)
	pages := map[int64]*api.Build{}
	for _, w := range watched {
		if err != nil {
			break
		}
		i := slices.IndexFunc(list, func(build *api.Build) bool { return build.Number == w.number })
		recently := time.Since(w.looked) < detailsEvery
		if i < 0 && recently || i >= 0 && list[i].Status == w.status && (recently || !w.since.IsZero()) {
			continue // nothing is new
		}
		var build *api.Build
		build, err = b.get(ctx, w.number)
		refused := new(Refused)
		switch {
		case errors.As(err, &refused) && refused.Status != http.StatusNotFound, errors.Is(err, errAnother):
			// The server answers, but not about this build. Other builds are followed as before.
			if !w.unread {
				w.unread = true
				w.tell(w.Recipe, fmt.Sprintf("the Drone server says nothing of build %d, and the sweep asks again: %v", w.number, err))
			}
			err = nil
			continue
		case refused.Status == http.StatusNotFound:
			build, err = &api.Build{Number: w.number, Status: api.StatusKilled, Error: err.Error()}, nil // somebody removed the build
		}
		if err == nil {
			pages[w.number] = build
		}
	}
	b.heard(err, func(about, text string) { watched[0].tell(about, text) })
	b.lock.Lock()
	lost := b.decide(pages, err, time.Now())
	b.lock.Unlock()
	for _, number := range lost {
		_ = b.cancel(ctx, number) // if this fails, the server itself ends the build after a day
	}
}

// away says whether an error means that nobody can learn from the server how builds go on.
// A proxy may answer for a server that is down, and the token may be taken back.
func away(err error) bool {
	refused := new(Refused)
	if errors.As(err, &refused) {
		return refused.Method == http.MethodGet
	}
	return err != nil && !errors.Is(err, errNoPipeline) && !errors.Is(err, context.Canceled)
}

// heard notes whether the server has answered, and tells people when that changes.
func (b *Builds) heard(err error, tell func(about, text string)) {
	b.lock.Lock()
	defer b.lock.Unlock()
	switch {
	case away(err) && !b.silent:
		tell("", fmt.Sprintf("the Drone server %s does not answer as it should: %v; builds go on meanwhile, and the sweep asks the server again until the recipes' time limits are over", b.server, err))
	case !away(err) && b.silent:
		tell("", "the Drone server "+b.server+" answers again")
	}
	if b.silent = away(err); !b.silent {
		b.answered = time.Now()
	}
}

// update notes what a build's page says.
func (b *Builds) update(w *watch, build *api.Build, now time.Time) {
	w.status, w.looked = build.Status, now
	if len(build.Stages) > 0 {
		w.stage = *build.Stages[0]
	}
	if w.since.IsZero() && w.stage.Machine != "" {
		w.machine, w.since, w.warned = w.stage.Machine, now, false
		if w.parked = b.unable[w.machine] && (!over(build.Status) || outcomeOf(build) != useful); w.parked {
			w.notify()
			w.tell(w.Recipe, fmt.Sprintf("build %d is on %s, which could not work before: %s", w.number, w.machine, b.link(w.number)))
		} else {
			b.progress = now
			w.tell(w.Recipe, fmt.Sprintf("runs on %s (%s): %s", w.machine, b.counts(), b.link(w.number)))
		}
	}
	if !over(build.Status) {
		return
	}
	end := sweep.Ending{Said: func(ctx context.Context) string { return b.lastWords(ctx, build) }}
	switch {
	case build.Status == api.StatusKilled, build.Status == api.StatusSkipped, build.Status == api.StatusDeclined:
		// Drone also ends a build at the time limit that its repository has in Drone.
		end.Failed, end.Final = "its build was cancelled: by a person, or by the time limit that the repository has in Drone"+b.timeout, true
		end.Said = nil
	case len(build.Stages) == 0:
		end.Failed, end.Final, end.Said = "Drone could not start its build: "+build.Error, true, nil
	case w.stage.Error != "":
		end.Failed = "its build failed: " + w.stage.Error
	}
	as := outcomeOf(build)
	switch {
	case as == unable:
		b.unable[w.machine], w.quick = true, now.Sub(w.since) < time.Minute
		w.tell(w.Recipe, fmt.Sprintf("build %d has ended, because %s cannot work%s: %s", w.number, w.machine, inBrackets(end.Failed), b.link(w.number)))
	case as == useful:
		delete(b.unable, w.machine)
		fallthrough
	default:
		b.progress = now
	}
	// Builds on one machine wait for each other, so another build's time begins only now.
	for _, other := range b.watched {
		if other != w && other.machine == w.machine && !other.since.IsZero() {
			other.since = now
		}
	}
	b.end(w, end, as)
}

func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// end ends the watch over a build.
func (b *Builds) end(w *watch, end sweep.Ending, as outcome) {
	delete(b.watched, w.number)
	end.Machine, end.Link = w.machine, b.link(w.number)
	w.ended, w.as = &end, as
	w.notify()
}

// notify wakes Run, which looks at all of its builds.
func (w *watch) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
