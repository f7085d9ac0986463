// Package sweep runs the tests of all recipes and promotes those that pass.
//
//	results, err := sweep.Run(ctx, options, func(sweep.Event) { … })
//
// For each recipe there is one verdict:
//
//	RUN      it would be run (of a dry run only)
//	SKIP     nothing changed since its last promoted run
//	PROMOTE  its tests passed: the revision that was run is now canonical
//	HOLD     they failed: the canonical revision stays what it was
//	ERROR    they could not be run
//
// "Nothing changed" means the recipe's [Identity], the environment's
// fingerprint and the runner: if all three are those of the promoted run, the
// same tests would run in the same environment.
//
// Each run goes through cc-ci-run itself, as a process of its own, so that it
// gets the environment and the record that every other run gets. What a sweep
// knows is in one small file a recipe (see [State]), replaced atomically after
// each run: killed at any moment, the next sweep goes on where it stopped.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/state"
)

// Verdict is what became of one recipe.
type Verdict string

// The verdicts.
const (
	WouldRun Verdict = "RUN"
	Skip     Verdict = "SKIP"
	Promote  Verdict = "PROMOTE"
	Hold     Verdict = "HOLD"
	Error    Verdict = "ERROR"
)

// Options say what to sweep and how.
type Options struct {
	Recipes string   // directory of recipes
	Only    []string // these recipes, in this order; all of the directory, by name, if empty
	Jobs    int      // runs at once, at least 1

	Timeout  time.Duration            // of one recipe
	Timeouts map[string]time.Duration // of these, instead
	Grace    time.Duration            // between SIGTERM and SIGKILL

	How    []string // words before the flags of each run: audit, --seal
	Force  bool     // run what would be skipped
	DryRun bool     // run nothing

	State    state.Dir // the state directory; the sweep's part is sweep/ below it
	Program  string    // cc-ci-run
	Manifest string    // the file that is Program's environment
	Runner   string    // run_recipe_ci.py
	Environ  []string  // for the runs: the caller's

	KeepLogs int           // logs kept of each recipe
	KeepFor  time.Duration // and for how long
}

// Result is one recipe's.
type Result struct {
	Recipe   string        `json:"recipe"`
	Verdict  Verdict       `json:"verdict"`
	Why      string        `json:"why"`
	Revision string        `json:"revision"`            // that was looked at or run
	Promoted string        `json:"canonical,omitempty"` // the canonical revision, after this
	Log      string        `json:"log,omitempty"`
	Started  time.Time     `json:"started"`
	Duration time.Duration `json:"duration_ns"`
}

// Event is what a sweep tells while it goes on.
type Event struct {
	Recipe string
	Result *Result // nil: it starts to run
	Done   int     // recipes with a verdict
	Total  int
}

// MaxJobs is how many runs at once a sweep takes.
const MaxJobs = 256

// Check reports every value that a sweep cannot work with.
func (o Options) Check() error {
	var errs *multierror.Error
	fail := func(format string, args ...any) { errs = multierror.Append(errs, fmt.Errorf(format, args...)) }
	if o.Jobs < 1 || o.Jobs > MaxJobs {
		fail("jobs: %d is not from 1 to %d", o.Jobs, MaxJobs)
	}
	if o.Timeout <= 0 || o.Grace < 0 {
		fail("timeout %s and grace %s: a run needs some time", o.Timeout, o.Grace)
	}
	if o.KeepLogs < 1 || o.KeepFor < 0 {
		fail("keep-logs %d, keep-for %s: the newest log is always kept", o.KeepLogs, o.KeepFor)
	}
	if info, err := os.Stat(o.Runner); err != nil {
		fail("runner: %w", err)
	} else if !info.Mode().IsRegular() {
		fail("runner: %s is not a file", o.Runner)
	}
	return errs.ErrorOrNil()
}

// Run sweeps. tell is called for each start and each verdict, by one
// goroutine at a time. Results are in the order of the recipes. The error
// says why the sweep could not do its work; failing recipes are no error of
// the sweep. If ctx ends, running tests are ended and what has not run has
// no result.
func Run(ctx context.Context, o Options, tell func(Event)) ([]Result, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	names, err := o.names()
	if err != nil {
		return nil, err
	}
	s := &sweep{Options: o}
	if s.runner, s.fingerprint, err = s.surroundings(); err != nil {
		return nil, err
	}
	store, err := openStore(o.State, o.DryRun)
	if err != nil {
		return nil, err
	}
	defer store.close()

	s.store = store
	results := make([]*Result, len(names))
	var told sync.Mutex
	done := 0
	say := func(name string, r *Result) {
		told.Lock()
		defer told.Unlock()
		if r != nil {
			done++
		}
		tell(Event{name, r, done, len(names)})
	}

	next := make(chan int)
	var workers sync.WaitGroup
	for range min(o.Jobs, len(names)) {
		workers.Go(func() {
			// A run is told of the end of the thread that started it
			// (Pdeathsig), so that has to last.
			runtime.LockOSThread()
			for i := range next {
				if r := s.recipe(ctx, names[i], func() { say(names[i], nil) }); r != nil {
					results[i] = r
					say(names[i], r)
				}
			}
		})
	}
	for i := range names {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()

	var list []Result
	for _, r := range results {
		if r != nil {
			list = append(list, *r)
		}
	}
	if ctx.Err() != nil {
		return list, errors.New("interrupted")
	}
	return list, nil
}

// recipesIn gives the names of all recipes in a directory, sorted. Hidden
// folders and those that begin with "__" are none, for the runner neither.
func recipesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("recipes: %w", err)
	}
	var all []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "__") {
			continue
		}
		// A link to a directory is a recipe, too.
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.IsDir() {
			all = append(all, e.Name())
		}
	}
	return all, nil
}

// checkName says why a folder's name cannot be given to the runner.
func checkName(name string) error {
	switch {
	case strings.HasPrefix(name, "-"):
		return errors.New("the runner would take its name for an option")
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(name):
		return errors.New("its name cannot be printed")
	}
	return nil
}

// timeout is the time limit of a recipe.
func (o Options) timeout(name string) time.Duration {
	if t, ok := o.Timeouts[name]; ok {
		return t
	}
	return o.Timeout
}

// names gives the recipes to sweep, in order.
func (o Options) names() ([]string, error) {
	all, err := recipesIn(o.Recipes)
	if err != nil {
		return nil, err
	}
	if len(o.Only) == 0 {
		if len(all) == 0 {
			return nil, fmt.Errorf("no recipe in %s: a sweep over nothing would pass without a test", o.Recipes)
		}
		return all, nil
	}
	var errs *multierror.Error
	for i, name := range o.Only {
		switch {
		case !slices.Contains(all, name):
			errs = multierror.Append(errs, fmt.Errorf("%q: no such recipe in %s%s", name, o.Recipes, env.Suggest(name, all)))
		case slices.Contains(o.Only[:i], name):
			errs = multierror.Append(errs, fmt.Errorf("%q is named twice", name))
		}
	}
	return o.Only, errs.ErrorOrNil()
}

type sweep struct {
	Options
	runner, fingerprint string // at the sweep's start
	store               *store
}

// recipe settles one recipe. It is nil if the sweep was interrupted first.
func (s *sweep) recipe(ctx context.Context, name string, starts func()) *Result {
	if ctx.Err() != nil {
		return nil
	}
	r := &Result{Recipe: name, Started: time.Now().UTC()}
	settle := func(v Verdict, why string, args ...any) *Result {
		r.Verdict, r.Why = v, fmt.Sprintf(why, args...)
		r.Duration = time.Since(r.Started)
		return r
	}
	if err := checkName(name); err != nil {
		r.Recipe = strconv.QuoteToASCII(name)
		return settle(Error, "%v", err)
	}
	known, damaged, err := s.store.read(name)
	if err != nil {
		return settle(Error, "its state cannot be read: %v", err)
	}
	r.Promoted = known.Canonical.Revision
	dir := filepath.Join(s.Recipes, name)
	identity, err := identify(dir)
	if err != nil {
		return settle(Error, "%v", err)
	}
	r.Revision = identity.Revision
	why := known.changed(Inputs{identity, s.fingerprint, s.runner, r.Started})
	switch {
	case damaged != "":
		why = damaged
	case s.Force && why == "":
		why = "forced"
	}
	if why == "" {
		settle(Skip, "unchanged since it was promoted on %s", known.Canonical.Time.Format(time.DateOnly))
		// Whoever looks at the state sees that what was held is gone.
		if last := known.Last.Verdict; (last == Hold || last == Error) && !s.DryRun {
			known.Last = *r
			if err := s.store.write(name, known); err != nil {
				return settle(Error, "its state was not written: %v", err)
			}
		}
		return r
	}
	if s.DryRun {
		return settle(WouldRun, "%s", why)
	}

	starts()
	// All of it anew: a sweep takes hours, and what is promoted is what ran.
	now, err := s.inputs(dir)
	if err != nil {
		return settle(Error, "%v", err)
	}
	r.Revision = now.Revision
	log, status, err := s.run(ctx, name, r.Started)
	r.Log = log
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		settle(Hold, "took longer than %s (%s)", s.timeout(name), why)
	case err != nil:
		settle(Error, "%v", err)
	case status == 0:
		// What was read at the start must be what ran.
		after, err := s.inputs(dir)
		switch {
		case err != nil || after.Identity != now.Identity:
			settle(Error, "it changed while its tests ran, so they say nothing of either revision")
		case after.Runner != now.Runner || after.Fingerprint != now.Fingerprint:
			settle(Error, "the runner or the environment changed while its tests ran, so they say nothing of either")
		default:
			settle(Promote, "passed (%s)", why)
			known.Canonical = now
			r.Promoted = now.Revision
		}
	case status >= 125 && status <= 127:
		settle(Error, "cc-ci-run could not start it: exit status %d", status)
	default:
		settle(Hold, "failed with exit status %d (%s)", status, why)
	}
	known.Last = *r
	if err := s.store.write(name, known); err != nil {
		// Nothing was promoted that is not written down.
		r.Promoted = known.Canonical.Revision
		return settle(Error, "its state was not written: %v", err)
	}
	return r
}
