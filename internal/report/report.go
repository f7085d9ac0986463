// Package report writes what sweeps remember as pages that people read with a browser:
// which recipes fail, since when, in which test, with what output, and what changed.
//
//	err := report.Write(ctx, report.Source{State: dir, Git: git, …}, "/srv/www/ci")
//	err := report.Serve(ctx, source, report.Serving{Dir: dir, Address: "127.0.0.1:8080", …})
//
// Serve writes the pages anew whenever a sweep has remembered something.
//
// A report is a directory of static HTML: index.html and, for thousands of recipes,
// index-2.html and so on; a page for each recipe (r-NAME.html) and each environment
// (env-FINGERPRINT.html); and environments.html, parity.html, audit.html, host.html.
// The pages need no server, no script and no other file; a web server only has to serve the
// directory as it is.
//
// Each page ends with a key: a hash of the data from which the page is made. [Write] reads
// the key of the page in the directory, and replaces the page, in one step, only if the key
// differs. The key also shows that report wrote a page, so that Write may remove the page
// when its recipe is gone.
//
// The output of tests, and the names of recipes and tests, come from people who may mean
// harm. Three things keep these texts harmless: html/template escapes them; [show], through
// which each byte of a page passes last, makes characters visible that would reorder or
// hide text; and the page's own policy forbids scripts and every load (see page.go).
//
// Memory does not grow with the number of runs: recipes are read, and their pages
// written, some hundred at a time, in the order of the index.
package report

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"cc-ci-run/internal/host"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// Source is what a report is made from.
type Source struct {
	State   state.Dir
	Git     string // the file of git's program
	Version string // of this program: another one writes all pages again
	// Manifest is the environment of now, by which audits are judged.
	Manifest *toolset.Manifest
	// Status sums up what is remembered, as `sweep status` does.
	Status func([]*sweep.Remembered) (sweep.Status, error)
	// Host looks at the host; nil leaves its page out.
	Host func(context.Context) (host.Report, error)
	// Links to a commit and to a build, with {recipe}, {revision}, {run} and {machine} in
	// them; "" for none. See [CheckLink].
	RecipeURL, BuildURL string
	Clock               func() time.Time
	Zone                *time.Location // of the times on the pages
}

// perPage is how many recipes an index page has, and perBatch of how many the histories
// are in memory at once.
const (
	perPage  = 500
	perBatch = 250
)

// Write makes or renews the report in a directory, which it makes if need be. Pages of
// recipes that are gone are removed. Others' files stay.
func Write(ctx context.Context, s Source, dir string) error {
	out, err := openFolder(ctx, dir)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer out.close()
	if err := s.write(ctx, out); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// writing is one call of Write.
type writing struct {
	Source
	out    *folder
	memory *memory.Repository // nil: nothing is remembered
	status sweep.Status
	has    map[string]bool // recipes with a page
	now    time.Time
	envs   *environments
}

func (s Source) write(ctx context.Context, out *folder) error {
	w := &writing{Source: s, out: out, has: map[string]bool{}, now: s.Clock(), envs: newEnvironments(s.State, s.Manifest)}
	var list []*sweep.Remembered
	var err error
	w.memory, err = memory.Open(s.State, s.Git, memory.Plain)
	defer w.memory.Close()
	if err == nil {
		list, err = sweep.Recall(w.memory)
	}
	if err != nil && !errors.Is(err, memory.ErrNone) {
		return err
	}
	if w.status, err = s.Status(list); err != nil {
		return err
	}
	for _, st := range w.status.Recipes {
		w.has[st.Recipe] = true
	}
	if err := w.recipes(ctx, list); err != nil {
		return err
	}
	for _, write := range []func(context.Context) error{w.environments, w.parity, w.audit, w.host} {
		if err := write(ctx); err != nil {
			return err
		}
	}
	return out.removeOthers()
}

// recipes writes the index and the page of each recipe.
func (w *writing) recipes(ctx context.Context, list []*sweep.Remembered) error {
	known := make(map[string]*sweep.Remembered, len(list))
	for _, r := range list {
		known[r.Recipe()] = r
	}
	parts := w.parts()
	for page, all := range parts.pages {
		var rows []row
		for batch := range slices.Chunk(all, perBatch) {
			if err := ctx.Err(); err != nil {
				return err
			}
			more, err := w.batch(batch, known)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		if err := w.index(parts, page, rows); err != nil {
			return err
		}
	}
	return nil
}

// subject is a recipe under way: how it stands, and its history.
type subject struct {
	sweep.Standing
	known   *sweep.Remembered // nil: only its folder is there
	history sweep.History
	tests   []sweep.TestHistory
	err     error // why there is no history
	key     string
	stale   bool // its page is to be written
	failure []failure
}

// batch writes the pages of some recipes, and gives their rows of the index.
func (w *writing) batch(standings []sweep.Standing, known map[string]*sweep.Remembered) ([]row, error) {
	subjects := make([]*subject, len(standings))
	var list []*sweep.Remembered
	var of []*subject
	for i, st := range standings {
		s := &subject{Standing: st, known: known[st.Recipe]}
		subjects[i] = s
		s.key = w.recipeKey(s)
		s.stale = w.out.stale(recipeFile(st.Recipe), s.key)
		if s.known != nil && s.known.Err == nil {
			list, of = append(list, s.known), append(of, s)
		}
	}
	if len(list) > 0 {
		i := 0
		err := sweep.Histories(w.memory, list, func(_ *sweep.Remembered, h sweep.History, err error) {
			of[i].history, of[i].err = h, err
			i++
		})
		if err != nil {
			return nil, err
		}
	}
	for _, s := range of {
		w.envs.saw(s.Recipe, s.history)
	}
	if err := w.failures(subjects); err != nil {
		return nil, err
	}
	rows := make([]row, len(subjects))
	return rows, each(len(subjects), func(i int) error {
		subjects[i].tests = subjects[i].history.TestHistories()
		rows[i] = w.row(subjects[i])
		if !subjects[i].stale {
			return nil
		}
		return w.recipe(subjects[i])
	})
}

// each calls work for 0 to n-1, as many at once as there are processors.
func each(n int, work func(int) error) error {
	var all sync.WaitGroup
	errs := make([]error, min(n, runtime.GOMAXPROCS(0)))
	for worker := range errs {
		all.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += len(errs) {
				errs[worker] = work(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// failure is what a run that did not pass printed.
type failure struct {
	Run    sweep.Past
	First  bool // of those that failed one after another
	Tests  []failedTest
	More   int // tests that are not shown
	Errors []string
	Output string
	Cut    bool // of Output, the beginning is missing
}

type failedTest struct {
	Name, Took, Text string
}

// Limits of what a page shows of a failure.
const (
	maxOutput = 32 << 10 // bytes of a run's output: its end
	maxText   = 16 << 10 // bytes of a test's message
	maxFailed = 20       // tests
)

// failures reads what the runs printed that a page shows: the last one, if it did not
// pass, and the first one of those that failed one after another.
func (w *writing) failures(subjects []*subject) error {
	type wish struct {
		s      *subject
		i      int // in s.failure
		output bool
	}
	var hashes []string
	var wishes []wish
	for _, s := range subjects {
		if !s.stale {
			continue
		}
		for _, n := range failedRuns(s.history) {
			f := failure{Run: s.history.Runs[n], First: n > 0}
			s.failure = append(s.failure, f)
			for _, blob := range []struct {
				hash   string
				output bool
			}{{f.Run.Result, false}, {f.Run.Output, true}} {
				if blob.hash != "" {
					hashes = append(hashes, blob.hash)
					wishes = append(wishes, wish{s, len(s.failure) - 1, blob.output})
				}
			}
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	return w.memory.Blobs(hashes, func(i int, data []byte, err error) {
		f := &wishes[i].s.failure[wishes[i].i]
		if wishes[i].output {
			if err != nil {
				data = []byte("(" + err.Error() + ")")
			}
			f.Output, f.Cut = lastLines(data, maxOutput)
			return
		}
		if err == nil {
			err = f.read(data)
		}
		if err != nil {
			f.Errors = append(f.Errors, "its result cannot be read: "+err.Error())
		}
	})
}

// failedRuns are the places of the runs whose output is shown.
func failedRuns(h sweep.History) (list []int) {
	n := 0
	for n < len(h.Runs) && h.Runs[n].Verdict.Bad() {
		n++
	}
	if n > 0 {
		list = append(list, 0)
	}
	if n > 1 {
		list = append(list, n-1)
	}
	return list
}

// read takes the failed tests from a result.
func (f *failure) read(data []byte) error {
	r, err := sweep.ParseResult(f.Run.ID, data)
	if err != nil {
		return err
	}
	for _, text := range r.About().Errors {
		if len(f.Errors) < maxFailed {
			text, _ = firstLines([]byte(text), maxText)
			f.Errors = append(f.Errors, text)
		}
	}
	for _, t := range r.Results.Tests {
		if t.Status != "failed" {
			continue
		}
		if len(f.Tests) == maxFailed {
			f.More++
			continue
		}
		text, cut := lastLines([]byte(t.Text()), maxText)
		if cut {
			text = "…\n" + text
		}
		f.Tests = append(f.Tests, failedTest{t.Name, length(time.Duration(t.Duration) * time.Millisecond), text})
	}
	return nil
}

// notDirectory explains an error of the report's directory.
func notDirectory(dir string, err error) error {
	if info, failed := os.Stat(dir); failed == nil && !info.IsDir() {
		return fmt.Errorf("%s: is a file; name a directory", dir)
	}
	return err
}
