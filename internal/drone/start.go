package drone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	api "github.com/drone/drone-go/drone"

	"cc-ci-run/internal/sweep"
)

// The parameters of a build, which its steps get as variables.
const (
	recipeParameter      = "RECIPE"
	fingerprintParameter = "FINGERPRINT"
	seenParameter        = "SEEN"
)

const event = "custom" // of builds that the API starts

// old is the age beyond which no build is looked for: the server itself has ended such a build
// (at the age DRONE_CLEANUP_DEADLINE_RUNNING or _PENDING, which is 24h unless a site sets more).
const old = 48 * time.Hour

// maxPages is how many pages of the list are read: more than builds of two days.
const maxPages = 1000

// retryEvery is the time between two attempts to start a build. refusedFor is how long the
// attempts go on if the server refuses them: it answers "not found" for a moment after a push,
// for example.
const (
	retryEvery = 10 * time.Second
	refusedFor = 5 * time.Minute
)

// obtain gives a build that runs a recipe. If another dispatcher has started one that has not
// ended, obtain adopts that build; otherwise it starts a new one. If it cannot, failed says why.
func (b *Builds) obtain(ctx context.Context, r sweep.Request, tell func(about, text string)) (number int64, adopted bool, failed *sweep.Ending) {
	select {
	case b.posts <- struct{}{}:
		defer func() { <-b.posts }()
	case <-ctx.Done():
		return 0, false, &sweep.Ending{Failed: "the sweep was ended", Final: true}
	}
	began := time.Now()
	for told := false; ; {
		number, adopted, err := b.obtainOnce(ctx, r)
		b.heard(err, tell)
		if err == nil {
			return number, adopted, nil
		}
		refused := new(Refused)
		_ = errors.As(err, &refused)
		b.lock.Lock()
		silence := time.Since(b.answered)
		b.lock.Unlock()
		switch {
		case ctx.Err() != nil:
			return 0, false, &sweep.Ending{Failed: "the sweep was ended", Final: true}
		case errors.Is(err, errNoPipeline), refused.Status == http.StatusUnauthorized, refused.Status == http.StatusForbidden,
			!away(err) && time.Since(began) > refusedFor, away(err) && silence > r.Limit+margin:
			return 0, false, &sweep.Ending{Failed: fmt.Sprintf("no build was started by the Drone server %s: %v", b.server, err), Final: true}
		case !away(err) && !told:
			told = true
			tell(r.Recipe, fmt.Sprintf("no build could be started yet, and the sweep keeps trying for %s: %v", refusedFor, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

var errNoPipeline = errors.New(".drone.yml of the branch that builds check out has no pipeline for the event custom")

// obtainOnce looks for a build of the recipe before it starts one: the answer to an earlier
// attempt may have been lost.
func (b *Builds) obtainOnce(ctx context.Context, r sweep.Request) (number int64, adopted bool, err error) {
	branch, err := b.branchOfBuilds(ctx)
	if err != nil {
		return 0, false, err
	}
	number, err = b.unfinished(ctx, r)
	if err != nil || number != 0 {
		return number, true, err
	}
	// If the sweep ends meanwhile, the answer says which build is to be cancelled.
	posting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(cancelLimit, cancel)
	})
	defer stop()
	build, err := call(posting, b, postLimit, func(c api.Client) (*api.Build, error) {
		return c.BuildCreate(b.owner, b.name, "", branch, map[string]string{recipeParameter: r.Recipe, fingerprintParameter: r.Fingerprint, seenParameter: r.Seen})
	})
	if err == nil && build.Number <= 0 {
		err = errNoPipeline
	}
	if err != nil {
		if ctx.Err() != nil { // the server may have started the build
			if number, err := b.unfinished(context.WithoutCancel(ctx), r); err == nil && number != 0 {
				_ = b.cancel(ctx, number)
			}
		}
		return 0, false, err
	}
	return build.Number, false, nil
}

// unfinished gives the newest build of a recipe that has not ended, 0 if there is none. The
// first call looks at all builds that can be unfinished, later ones at the newest.
func (b *Builds) unfinished(ctx context.Context, r sweep.Request) (int64, error) {
	b.lock.Lock()
	known := b.left != nil
	b.lock.Unlock()
	list, err := b.list(ctx, 1)
	all := list
	for n := 2; err == nil && !known && len(list) == page && n <= maxPages && time.Since(time.Unix(list[page-1].Created, 0)) < old; n++ {
		list, err = b.list(ctx, n)
		all = append(all, list...)
	}
	if err != nil {
		return 0, err
	}
	b.lock.Lock()
	now := map[string]int64{}
	for _, build := range slices.Backward(all) { // the newest are first
		if b.ofSweep(build, r.Fingerprint) {
			now[build.Params[recipeParameter]] = build.Number
		}
	}
	if b.left == nil {
		b.left = now
	}
	left := b.left[r.Recipe]
	if left <= b.newest[r.Recipe] { // a build is adopted only once
		left = 0
	}
	b.lock.Unlock()
	if now[r.Recipe] != 0 || left == 0 {
		return now[r.Recipe], nil
	}
	// The build may have ended since the first call. If its step ended by itself, its verdict
	// may be in the shared repository, so the build is adopted all the same.
	build, err := b.get(ctx, left)
	b.lock.Lock()
	defer b.lock.Unlock()
	if err == nil && build.Status != api.StatusPassing && build.Status != api.StatusFailing && !b.ofSweep(build, r.Fingerprint) {
		left = 0
	}
	return left, err
}

// ofSweep says whether a build has not ended, and is one that a dispatcher in this
// environment would start, or one that a person has started without a fingerprint. The caller
// holds the lock.
func (b *Builds) ofSweep(build *api.Build, fingerprint string) bool {
	given := build.Params[fingerprintParameter]
	return build.Event == event && !over(build.Status) && build.Number > b.newest[build.Params[recipeParameter]] && (b.branch == "" || build.Target == b.branch) && (given == fingerprint || given == "")
}
