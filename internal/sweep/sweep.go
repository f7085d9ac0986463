// Package sweep runs the tests of all recipes and promotes those that pass.
//
//	results, err := sweep.Run(ctx, options, func(sweep.Event) { … })
//
// Each recipe gets one verdict:
//
//	RUN      in a dry run: the recipe would be run
//	SKIP     the last run with the same inputs passed and is not too old
//	PROMOTE  the tests passed: the revision that ran is canonical now
//	PASS     the tests passed in a sweep by hand that does not promote here
//	HOLD     the tests did not pass: the canonical revision stays
//	ERROR    the tests could not be run, or the run says nothing about the recipe
//	CUT      the run was ended from outside, or had no turn: the recipe's state stays
//	GONE     the folder was removed, or sweep.toml no longer names the recipe
//
// docs/verdicts.md has the rules: which [Inputs] a verdict depends on, and which
// verdict follows from which run. A run's exit status alone never promotes: the
// runner writes a result with each test's outcome (see package record), and
// without a complete result nothing is promoted.
//
// A sweep has three phases. It looks at each recipe and gives a verdict to those
// that need no run. It runs the others, first the recipe whose last run is the
// longest ago. It reports the recipes that are gone; their canonical revision is
// kept, in case they return. Each run is a process of cc-ci-run, and all
// processes of a run are ended with it (see package supervise). The sweep
// remembers each recipe's [State] and runs in a git repository (see package
// memory), to which each run adds a commit: if a sweep is killed, at any moment,
// the next sweep runs the remaining recipes.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/exec/supervise"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/plaintext"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// Verdict is what became of one recipe.
type Verdict string

// The verdicts.
const (
	WouldRun Verdict = "RUN"
	Skip     Verdict = "SKIP"
	Promote  Verdict = "PROMOTE"
	Pass     Verdict = "PASS"
	Hold     Verdict = "HOLD"
	Error    Verdict = "ERROR"
	Cut      Verdict = "CUT"
	Gone     Verdict = "GONE"
)

// Bad says whether a verdict makes a sweep's exit status 1.
func (v Verdict) Bad() bool { return v == Hold || v == Error || v == Cut }

// Options say what to sweep and how.
type Options struct {
	Recipes string   // directory of recipes
	Only    []string // these recipes, in this order; all of the directory, by name, if empty
	Jobs    int      // runs at once, at least 1
	// Removed says whether the sweep reports recipes that are gone: not if somebody asked
	// for single recipes.
	Removed bool

	Timeout  time.Duration            // of one recipe
	Timeouts map[string]time.Duration // of these, instead
	Grace    time.Duration            // between SIGTERM and SIGKILL

	How    []string // words before the flags of each run: audit, --seal
	DryRun bool     // run nothing
	Wait   bool     // for another sweep to end …
	// … but no longer than WaitLimit; 0 is for ever.
	WaitLimit time.Duration
	Policy
	SkipsHoldOf map[string]bool // Policy.SkipsHold of these, instead

	State    state.Dir // the state directory; the sweep's part is sweep/ below it
	Program  string    // cc-ci-run
	Manifest string    // the file that is Program's environment
	Runner   string    // run_recipe_ci.py
	Machine  string    // the host's name
	Environ  []string  // for the runs: the caller's
	Site     []string  // of it, what a site gives to tests, as "NAME=VALUE"
	Git      string    // the toolset's git; "" if it has none
	// Shared is the repository whose memory the sweep shares with other machines; nil
	// for none.
	Shared *memory.Remote `json:"-"`
	// Elsewhere runs the recipes on other machines; nil: this machine runs them.
	Elsewhere Elsewhere `json:"-"`
	// Asked is what the dispatcher says that asks this machine.
	Asked Asked
	// Show also gets the output of the one recipe's run, masked; nil for nobody.
	Show io.Writer `json:"-"`
	// Supervisor are the first words of the command that is supervise.Main.
	Supervisor []string
	// Intact is called before the sweep and after each run. Its error says how the
	// environment changed since it was built. Intact is nil if the environment cannot change.
	Intact func() error `json:"-"`

	Keep state.Bounds // how much the state directory may hold

	// Now is the clock, time.Now if nil. Tests of many nights set another clock.
	Now func() time.Time `json:"-"`
}

// Result is the result of one recipe.
type Result struct {
	Recipe   string         `json:"recipe"`
	Verdict  Verdict        `json:"verdict"`
	Why      string         `json:"why"`
	Revision string         `json:"revision"`            // the revision that was looked at or run
	Promoted string         `json:"canonical,omitempty"` // the canonical revision, after this verdict
	Log      string         `json:"log,omitempty"`
	Report   string         `json:"result,omitempty"` // file with each test's outcome; see record.Result
	Tests    record.Summary `json:"tests"`
	Started  time.Time      `json:"started"`
	Duration time.Duration  `json:"duration_ns"`
}

// Event is what a sweep tells while it runs.
type Event struct {
	Recipe string
	Result *Result // nil: the recipe's run starts, or there is a Note
	Done   int     // recipes with a verdict
	Total  int
	// Note is a message: about the recipe, which another machine runs, or about no recipe.
	Note string
}

// MaxJobs is how many runs at once a sweep allows.
const MaxJobs = 256

// longest is the longest time limit.
const longest = 365 * 24 * time.Hour

// Check reports every value that a sweep cannot work with.
func (o Options) Check() error {
	var errs *multierror.Error
	fail := func(format string, args ...any) { errs = multierror.Append(errs, fmt.Errorf(format, args...)) }
	if o.Jobs < 1 || o.Jobs > MaxJobs {
		fail("jobs: %d is not from 1 to %d", o.Jobs, MaxJobs)
	}
	if o.Timeout <= 0 || o.Grace < 0 {
		fail("timeout %s and grace %s: the timeout must be above 0, and the grace not below 0", o.Timeout, o.Grace)
	}
	for _, limit := range append(slices.Collect(maps.Values(o.Timeouts)), o.Timeout, o.Grace) {
		if limit > longest { // sums of limits would be below 0
			fail("timeout or grace %s: must not be above %s", limit, longest)
		}
	}
	if o.MaxAge < 0 {
		fail("max-age %s: must not be below 0", o.MaxAge)
	}
	if err := o.Keep.Check(); err != nil {
		fail("%w", err)
	}
	if err := o.Asked.check(); err != nil {
		fail("%w", err)
	}
	if (o.Asked != Asked{} || o.Elsewhere != nil) && o.Shared == nil {
		fail("a sweep by several machines needs the repository that they share: --shared URL")
	}
	if info, err := os.Stat(o.Runner); err != nil {
		fail("runner: %w", o.unable(err))
	} else if !info.Mode().IsRegular() {
		fail("runner: %w", o.unable(fmt.Errorf("%s is not a file", o.Runner)))
	}
	return errs.ErrorOrNil()
}

// Run sweeps. tell is called for each start and each verdict, by one
// goroutine at a time. Results are in the order of the recipes. The error
// says why the sweep could not do its work; failing recipes are no error of
// the sweep. If ctx ends, running tests are ended, and what has no verdict
// is CUT. A machine that a dispatcher asks, and that cannot work, tries again for a while
// (see [Unable]).
func Run(ctx context.Context, o Options, tell func(Event)) ([]Result, error) {
	if o.Asked.Seen != "" {
		return o.runAsked(ctx, tell)
	}
	return o.run(ctx, tell)
}

func (o Options) run(ctx context.Context, tell func(Event)) ([]Result, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	names, err := o.names()
	if err != nil {
		return nil, err
	}
	if o.Show != nil && len(names) != 1 {
		return nil, fmt.Errorf("--show-log shows the output of one recipe, and this sweep is of %d: name one", len(names))
	}
	if !o.DryRun {
		if err := exec.LimitsOfTests(uint64(1024 + 16*o.Jobs)); err != nil {
			return nil, o.unable(err)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &sweep{Options: o, mask: newMasker(o.Site)}
	if err := s.prepare(ctx); err != nil {
		return nil, o.unable(err)
	}
	defer s.store.close()
	return s.sweep(ctx, names, tell)
}

// prepare reads what a sweep works with, and takes the lock of the state directory.
func (s *sweep) prepare(ctx context.Context) (err error) {
	if err := s.intact(); err != nil {
		return err
	}
	if s.now, err = s.surroundings(); err != nil {
		return err
	}
	if s.runs, err = supervise.New(s.Supervisor); err != nil {
		return err
	}
	if s.store, err = openStore(ctx, s.Options, s.runs.Begin); err != nil {
		return err
	}
	key, err := s.siteKey()
	if err != nil {
		s.store.close()
		return err
	}
	s.now.Site = siteHashes(key, s.Site)
	return nil
}

// sweep is Run once all is prepared.
func (s *sweep) sweep(ctx context.Context, names []string, tell func(Event)) ([]Result, error) {
	ctx, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	summary := Summary{Schema: 1, Invoker: s.Invoker, Started: s.Now().UTC(), Verdicts: map[Verdict]int{}}
	summary.Recipes, summary.Fingerprint = s.Recipes, s.now.Fingerprint
	if last, _ := Last(s.State); last != nil && last.Fingerprint != s.now.Fingerprint {
		summary.Before = last.Fingerprint
	}
	if err := s.writeSummary(summary); err != nil {
		return nil, s.unable(fmt.Errorf("state directory: %w", err))
	}
	gone := s.gone(names)
	t := teller{tell: tell, total: len(names) + len(gone)}
	for _, note := range s.store.notes {
		tell(Event{Note: note})
	}
	for _, left := range s.store.left {
		tell(Event{Note: "processes of a killed sweep cannot be ended: " + left})
	}

	jobs := make([]*job, len(names))
	atOnce := s.Jobs
	if s.Elsewhere != nil { // Jobs is how many other machines work at once; this one only reads folders
		atOnce = min(atOnce, runtime.NumCPU())
	}
	each(atOnce, len(names), func(i int) {
		jobs[i] = s.look(ctx, names[i])
		if jobs[i].settled {
			t.settled(jobs[i].Result)
		}
	})
	pending := waiting(jobs)
	each(s.Jobs, len(pending), func(i int) {
		if s.Elsewhere != nil {
			s.dispatch(ctx, pending[i], t.note)
		} else {
			s.settle(ctx, pending[i], i < s.Jobs, func(note string) { t.note(pending[i].Recipe, note) })
		}
		t.settled(pending[i].Result)
	})
	var results []Result
	for _, j := range jobs {
		results = append(results, j.Result)
	}
	for _, j := range gone { // each is remembered just before it is told, so that after a kill the next sweep tells the rest
		s.remember(j)
		t.settled(j.Result)
		results = append(results, j.Result)
	}
	slices.SortStableFunc(results[len(names):], func(a, b Result) int { return strings.Compare(a.Recipe, b.Recipe) })

	failure := s.failure(ctx, results)
	for _, j := range jobs {
		if failure == nil && s.Asked.Seen != "" && j.unable {
			failure = &Unable{fmt.Errorf("the machine %s could not run %s, or could not remember the verdict: %s", s.Machine, j.Recipe, j.Why), j.tried}
		}
	}
	for _, r := range results {
		summary.Verdicts[r.Verdict]++
		if r.Verdict.Bad() {
			summary.Status = 1
		}
	}
	summary.Ended = s.Now().UTC()
	if failure != nil {
		summary.Status, summary.Failure = 125, failure.Error()
	}
	if err := s.writeSummary(summary); err != nil && failure == nil {
		failure = fmt.Errorf("state directory: %w", err)
	}
	if !s.DryRun {
		if err := s.store.memory.Maintain(); err != nil {
			tell(Event{Note: "git could not pack the sweep's memory: " + err.Error()})
		}
		if _, _, err := s.store.expire(s.Keep, s.Manifest, false); err != nil {
			tell(Event{Note: "some expired files could not be removed: " + err.Error()})
		}
	}
	return results, failure
}

// each calls f for 0 to n-1, some at once.
func each(atOnce, n int, f func(int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(atOnce, n) {
		workers.Go(func() {
			// The kernel tells a supervisor when the thread that started it ends
			// (Pdeathsig), so the thread has to last.
			runtime.LockOSThread()
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	workers.Wait()
}

// waiting are the jobs to run: first the recipe whose last run is the longest ago, so that
// a recipe that a time limit cuts off tonight is first tomorrow.
func waiting(jobs []*job) (list []*job) {
	for _, j := range jobs {
		if !j.settled {
			list = append(list, j)
		}
	}
	slices.SortStableFunc(list, func(a, b *job) int { return a.known.Ran.Compare(b.known.Ran) })
	return list
}

// failure says why the sweep as a whole did not do its work; nil if it did.
func (s *sweep) failure(ctx context.Context, results []Result) error {
	cause := context.Cause(ctx)
	if cause == nil {
		return nil
	}
	var cut []string
	for _, r := range results {
		if r.Verdict == Cut {
			cut = append(cut, r.Recipe)
		}
	}
	if errors.Is(cause, context.Canceled) {
		cause = errors.New("interrupted")
	}
	return fmt.Errorf("%w; %d of %d recipes have no verdict: %s", cause, len(cut), len(results), some(cut))
}

func (s *sweep) intact() error {
	if s.Intact == nil {
		return nil
	}
	return s.Intact()
}

func (s *sweep) writeSummary(summary Summary) error {
	// A sweep of single recipes, or by hand where a timer sweeps, is not the one for which
	// people ask by "the last sweep".
	last, _ := Last(s.State)
	if s.DryRun || !s.Removed || s.Invoker == "manual" && !s.Promote && last != nil && last.Invoker != "manual" {
		return nil
	}
	return putJSON(s.State, lastFile, summary, 0o644)
}

// teller counts verdicts and tells them one at a time.
type teller struct {
	lock        sync.Mutex
	tell        func(Event)
	done, total int
}

func (t *teller) note(recipe, text string) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.tell(Event{Recipe: recipe, Note: text, Done: t.done, Total: t.total})
}

func (t *teller) settled(r Result) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.done++
	t.tell(Event{Recipe: r.Recipe, Result: &r, Done: t.done, Total: t.total})
}

// Folders gives the names of all recipes in a directory, sorted. Hidden folders and
// those that begin with "__" are not recipes; the runner also ignores them.
func Folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("recipes: %s: there is no such directory; name another one with --recipes", dir)
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("recipes: %s is a file; --recipes names the directory in which each recipe is a folder", dir)
	case err != nil:
		return nil, fmt.Errorf("recipes: %w", err)
	}
	var all []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "__") {
			continue
		}
		// A link to a directory is a recipe, too. So is a link that leads nowhere: it was a
		// recipe, and whoever broke the link must hear of it.
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err == nil && info.IsDir() || err != nil && e.Type() == os.ModeSymlink {
			all = append(all, e.Name())
		}
	}
	return all, nil
}

// longestName leaves room in the name of a file (255 bytes) for what is added to a
// recipe's name.
const longestName = 230

// checkName says why a folder's name cannot be given to the runner.
func checkName(name string) error {
	switch {
	case strings.HasPrefix(name, "-"):
		return errors.New("the runner would take its name for an option")
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(name):
		return errors.New("its name cannot be printed")
	case len(url.PathEscape(name)) > longestName:
		return fmt.Errorf("its name is too long: the folder of its logs has the same name, with %%XX for some bytes, and may have at most %d bytes", longestName)
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
	all, err := Folders(o.Recipes)
	if err != nil {
		return nil, err
	}
	if len(o.Only) == 0 {
		if len(all) == 0 {
			return nil, fmt.Errorf("no recipe in %s: a sweep of no recipe would pass without a test", o.Recipes)
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
	reading sync.Mutex // held while a result is read
	now     Inputs     // those that are the same for all recipes, at the sweep's start
	store   *store
	runs    *supervise.Runs
	mask    *masker
	end     context.CancelCauseFunc // ends the sweep, with the reason
}

// job is one recipe on its way to a verdict.
type job struct {
	Result
	settled bool
	known   State
	now     func() time.Time
	why     string // why the recipe is run
	unable  bool   // this machine could not run the recipe, or not remember the verdict
	tried   bool   // … although it tried several times
}

// failed is the verdict ERROR of a recipe that this machine could not run, or whose
// verdict it could not remember.
func (j *job) failed(why string, args ...any) *job {
	j.unable = true
	return j.verdict(Error, why, args...)
}

func (j *job) verdict(v Verdict, why string, args ...any) *job {
	j.Verdict, j.Why, j.settled = v, plaintext.Printable(fmt.Sprintf(why, args...)), true // names of files may contain line breaks
	j.Duration = j.now().Sub(j.Started)
	return j
}

// policy is the policy for a recipe.
func (s *sweep) policy(name string) Policy {
	p := s.Policy
	if hold, ok := s.SkipsHoldOf[name]; ok {
		p.SkipsHold = hold
	}
	return p
}

// look settles a recipe that needs no run.
func (s *sweep) look(ctx context.Context, name string) *job {
	j := &job{Result: Result{Recipe: name, Started: s.Now().UTC()}, now: s.Now}
	if ctx.Err() != nil {
		return s.cutOff(ctx, j)
	}
	if err := checkName(name); err != nil {
		j.Recipe = strconv.QuoteToASCII(name)
		return j.verdict(Error, "%v", err)
	}
	if why := s.foreignEnvironment(); why != "" {
		return j.failed("%s", why)
	}
	if s.Asked.Seen != "" && s.store.unreachable != nil { // this machine cannot know whether to skip the recipe
		return j.failed("%v", s.store.unreachable)
	}
	known, damaged, err := s.store.read(name)
	if err != nil {
		return j.failed("its state cannot be read: %v", err)
	}
	known.Directory = s.Recipes
	j.known, j.Promoted = known, known.Canonical.Revision
	now := s.now
	if now.Identity, err = identify(filepath.Join(s.Recipes, name), name); err != nil {
		return s.remember(j.verdict(Error, "%v", err))
	}
	j.Revision = now.Revision
	p := s.policy(name)
	p.Wanted = s.wanted(name)
	switch j.why = known.decide(now, p, j.Started); {
	case damaged != "":
		j.why = damaged
	case j.why == "":
		j.verdict(Skip, "unchanged since it was promoted on %s", known.Canonical.Time.Format(time.DateOnly))
		// So that the state says that the recipe is no longer held, and who sweeps it.
		claimed := s.Invoker != "manual" && (known.Invoker == "" || known.Invoker == "manual")
		if known.Held || claimed || known.Last.Verdict != Promote && known.Last.Verdict != Skip {
			s.remember(j)
		}
		return j
	}
	switch {
	case s.DryRun:
		return j.verdict(WouldRun, "%s", j.why)
	case s.store.unreachable != nil:
		return j.failed("%v, and the recipe would have to be run: %s", s.store.unreachable, j.why)
	}
	return j
}

// endOf says why a sweep ends.
func endOf(ctx context.Context) string {
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		return "the sweep could not go on"
	}
	return "the sweep was ended"
}

// cutOff settles a job that had no turn before the sweep's end.
func (s *sweep) cutOff(ctx context.Context, j *job) *job {
	return j.verdict(Cut, "%s before its turn: no verdict", endOf(ctx))
}

// settle runs a recipe. tell is called with "" when the run starts. first says that the
// recipe was among the first to start, so that it had the sweep's whole time.
func (s *sweep) settle(ctx context.Context, j *job, first bool, tell func(note string)) {
	name := j.Recipe
	j.Started = s.Now().UTC()
	if ctx.Err() != nil {
		s.cutOff(ctx, j)
		return
	}
	tell("")
	// All inputs are read again, because a sweep takes hours, and only inputs that ran are
	// promoted.
	before, err := s.inputs(name)
	if err != nil {
		s.remember(j.verdict(Error, "%v", err))
		return
	}
	j.Revision = before.Revision
	o, log, report := s.run(ctx, name, j.Started)
	j.Log = log
	if why := o.notStarted(); why != "" && s.Asked.Seen != "" && o.cut() == "" && o.Limit == 0 { // another machine may be able to
		j.failed("%s", why)
		return
	}
	o.Why, o.Before = j.why, before
	o.HandedOn = slices.Contains(s.How, "audit")
	j.Report = report
	if o.Result != nil {
		j.Tests = o.Result.Results.Summary
	}
	// In an environment that is no longer as it was built, no run says anything about its
	// recipe.
	stale := s.intact()
	if stale != nil {
		s.end(stale)
		o.Ended = stale.Error()
	}
	s.compare(&o, name)
	kept := s.keep(&o, name, j.Started)
	for try := 1; ; try++ {
		v, why := judge(o, j.known, s.policy(name))
		j.verdict(v, "%s", why)
		if j.Verdict == Cut && stale == nil && (first || ctx.Err() == nil) && !j.known.foreign(s.Policy) {
			// The recipe had a turn, or all of the sweep's time: next time others come first.
			j.known.Ran = s.Now().UTC()
		}
		err := s.writeAsked(ctx, j, &before, kept, tell)
		if err == nil {
			return
		}
		if !s.reread(j, err, before, try) {
			return
		}
	}
}

// rereads is how often a sweep judges a run again because another machine was quicker.
const rereads = 3

// reread reads the state that another machine has written of the recipe meanwhile, and
// says whether the run is to be judged again, by that state.
func (s *sweep) reread(j *job, lost error, before Inputs, try int) (again bool) {
	j.tried = true // what failed here would fail after another run of the tests, too
	if s.Shared == nil || !errors.Is(lost, memory.ErrMoved) || try > rereads {
		j.failed("its state was not written: %v", lost)
		return false
	}
	known, err := s.store.refresh(j.Recipe)
	if err != nil {
		j.failed("its state was not written: another machine has changed the state, and the change cannot be fetched: %v", err)
		return false
	}
	if own := past(j.Result, before, s.Invoker, s.Machine); known.Run != nil && known.Run.ID == own.ID && known.Run.Machine == own.Machine {
		// The push had reached the shared repository, and its answer was lost.
		j.known, j.Promoted = known, known.Canonical.Revision
		return false
	}
	p := s.policy(j.Recipe)
	p.Force = false // the recipe was run just now
	if known.Directory = s.Recipes; j.Verdict != Cut && known.decide(before, p, s.Now()) == "" {
		j.known, j.Promoted = known, known.Canonical.Revision
		machine := ""
		if known.Run != nil {
			machine = " on " + known.Run.Machine
		}
		j.verdict(Skip, "it passed%s meanwhile, with the same inputs", machine)
		return false
	}
	j.known = known
	return true
}

// compare reads the inputs again, and compares the folder with its commit: the run must
// have had the inputs that were read at its start.
func (s *sweep) compare(o *Outcome, name string) {
	var err error
	if o.After, err = s.inputs(name); err != nil {
		o.Gone = err.Error()
		return
	}
	passed := o.Status == 0 && o.Signal == 0 && o.Result != nil
	if !passed || strings.HasPrefix(o.After.Revision, "tree-") {
		return
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(s.Recipes, name))
	if err == nil {
		o.Uncommitted, err = s.uncommitted(dir, o.After.Revision)
	}
	if err != nil {
		o.Gone = err.Error()
	}
}

// gone settles the recipes that are remembered and no longer swept: their folder was
// removed, or sweep.toml no longer names them. Each is told once.
func (s *sweep) gone(names []string) (list []*job) {
	if !s.Removed {
		return nil
	}
	swept := map[string]bool{}
	for _, name := range names {
		swept[name] = true
	}
	for _, name := range s.store.names() {
		if swept[name] {
			continue
		}
		known, damaged, err := s.store.read(name)
		// A sweep by hand tells only recipes that were in the same directory: a person may
		// have several directories of recipes.
		if err != nil || known.foreign(s.Policy) || s.Invoker == "manual" && known.Directory != "" && known.Directory != s.Recipes {
			continue
		}
		j := &job{Result: Result{Recipe: name, Started: s.Now().UTC(), Revision: known.Canonical.Revision}, known: known, now: s.Now}
		path := filepath.Join(s.Recipes, name)
		info, err := os.Stat(path)
		switch {
		case err == nil && !info.IsDir():
			j.verdict(Error, "%s: is a file, not a folder: restore it, or remove it", path)
		case known.Last.Verdict == Gone:
			continue
		case err == nil:
			j.verdict(Gone, "it is no longer swept: %s does not name it", ConfigName)
		default:
			j.verdict(Gone, "its folder was removed from %s", s.Recipes)
		}
		if damaged != "" {
			j.Why += "; " + damaged
		}
		list = append(list, j)
	}
	return list
}
