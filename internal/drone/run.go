package drone

import (
	"context"
	"fmt"
	"sync"
	"time"

	api "github.com/drone/drone-go/drone"

	"cc-ci-run/internal/sweep"
)

// This file runs one recipe, as one build, or as several if machines cannot work (failover.go).

// watch is a build that is followed. The lock of Builds protects its fields, but for status,
// looked and unread, which only follow uses.
type watch struct {
	sweep.Request
	number  int64
	own     bool // this dispatcher has started the build
	tell    func(about, text string)
	began   time.Time // when the dispatcher began to follow the recipe's first build
	machine string    // that has taken the build
	since   time.Time // when the machine took the build; zero: no machine has
	status  string    // in the server's list
	looked  time.Time // when the build's own page was last looked at
	stage   api.Stage
	warned  bool          // people were told that no machine takes the build
	unread  bool          // people were told that the server says nothing of the build
	parked  bool          // the machine that has the build could not do the work of the build before
	ended   *sweep.Ending // nil while the build is followed
	as      outcome       // once the build has ended
	quick   bool          // the build ended within a minute
	wake    chan<- struct{}
}

// Run runs a recipe as a build. See [sweep.Elsewhere]. If a machine that cannot work takes
// the build, Run leaves the build there, so that the machine takes no other one, and starts
// another build. The first build that does its work counts, and Run cancels the others.
func (b *Builds) Run(ctx context.Context, r sweep.Request, tell func(about, text string)) sweep.Ending {
	wake := make(chan struct{}, 1)
	var mine []*watch
	defer func() { b.leave(ctx, mine) }()
	start := time.After(0)
	for {
		select {
		case <-start:
			start = nil
			w, failed := b.begin(ctx, r, wake, tell)
			switch {
			case failed == nil:
				if mine = append(mine, w); len(mine) > 1 { // the recipe has waited since its first build
					b.lock.Lock()
					w.began = mine[0].began
					b.lock.Unlock()
				}
			case ctx.Err() != nil || !b.followed(mine):
				return *failed
			default: // a machine that could not work may be able to by now
				tell(r.Recipe, failed.Failed)
			}
		case <-wake:
			end, another, pause := b.judge(mine)
			if end != nil {
				return *end
			}
			if another && start == nil {
				start = time.After(pause)
			}
		case <-ctx.Done():
			end := sweep.Ending{Failed: "its build was cancelled with the sweep", Final: true}
			if len(mine) > 0 {
				last := mine[len(mine)-1]
				b.lock.Lock()
				end.Machine, end.Link = last.machine, b.link(last.number)
				b.lock.Unlock()
			}
			return end
		}
	}
}

// begin obtains a build of a recipe, and begins to follow the build.
func (b *Builds) begin(ctx context.Context, r sweep.Request, wake chan<- struct{}, tell func(about, text string)) (*watch, *sweep.Ending) {
	number, adopted, failed := b.obtain(ctx, r, tell)
	if failed != nil {
		return nil, failed
	}
	w := &watch{Request: r, number: number, own: !adopted, tell: tell, began: time.Now(), wake: wake}
	b.lock.Lock()
	defer b.lock.Unlock()
	if b.watched[number] != nil { // whoever follows it would never hear of its end
		return nil, &sweep.Ending{Link: b.link(number), Failed: fmt.Sprintf("the Drone server gave two recipes the build %d", number), Final: true}
	}
	b.watched[number], b.newest[r.Recipe] = w, number
	if !b.following {
		b.following = true
		go b.follow(context.WithoutCancel(ctx))
	}
	what := "waits for a machine"
	if adopted {
		what = "was started before, and this sweep takes it over"
	}
	tell(r.Recipe, fmt.Sprintf("build %d %s (%s): %s", number, what, b.counts(), b.link(number)))
	return w, nil
}

// followed says whether one of a recipe's builds has not ended.
func (b *Builds) followed(mine []*watch) bool {
	b.lock.Lock()
	defer b.lock.Unlock()
	for _, w := range mine {
		if w.ended == nil {
			return true
		}
	}
	return false
}

// leave ends the watch over a recipe's builds. It cancels those that this dispatcher has
// started, and, if ctx has ended, those that it took over, too.
func (b *Builds) leave(ctx context.Context, mine []*watch) {
	var cancels sync.WaitGroup
	for _, w := range mine {
		b.lock.Lock()
		followed := w.ended == nil
		delete(b.watched, w.number)
		b.lock.Unlock()
		if !followed || !w.own && ctx.Err() == nil {
			continue
		}
		cancels.Go(func() {
			if err := b.cancel(ctx, w.number); err != nil {
				w.tell(w.Recipe, fmt.Sprintf("build %d could not be cancelled: %v", w.number, err))
			}
		})
	}
	cancels.Wait()
}
