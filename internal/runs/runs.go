// Package runs brings together what is known of a run: its record, which cc-ci-run writes
// before the run starts (package record), and how the run ended, which the runner and the
// sweep write.
//
//	l, err := runs.Open(dir, git)
//	defer l.Close()
//	list, passedOver := l.Newest(record.Which{Recipe: "gitea"}, 20)
//	run, err := l.Find("20261126T0549")     // the beginning of an ID is enough
//	tests, err := l.Tests(run)               // those that failed first
//
// A record names the file to which its run was told to write the result. For a run by
// hand or by Drone the file is STATE/results/ID.json. For a run of a sweep it is
// STATE/sweep/logs/RECIPE/TIME.json, beside the log, and TIME is the run's ID in the
// sweep's memory.
//
// The package reads only the records and results that its caller asks for, because a state
// directory may have 100,000 records.
package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

// Run is a run and how it ended.
type Run struct {
	ID          string        `json:"id"`
	Started     time.Time     `json:"started"`
	Invoker     string        `json:"invoker"`
	InvokerID   string        `json:"invoker_id,omitempty"` // the invoker's ID of the run: of Drone's build, or of systemd's invocation
	Mode        string        `json:"mode"`                 // script, exec or shell
	Of          string        `json:"of"`                   // the recipe, or the script or command
	Revision    string        `json:"revision"`
	Fingerprint string        `json:"fingerprint"`
	Outcome     Outcome       `json:"outcome"`
	Verdict     sweep.Verdict `json:"verdict,omitempty"` // of the sweep, for a run of a sweep
	Why         string        `json:"why,omitempty"`     // why it has this outcome or verdict
	Tests       *Tests        `json:"tests,omitempty"`   // nil if there is no result
	Took        time.Duration `json:"duration_ns,omitempty"`
	Log         string        `json:"log,omitempty"`    // file, if it is there
	Result      string        `json:"result,omitempty"` // likewise

	file string // to which it was told to write its result
	pid  int
	uid  int // the user as whom it writes files, -1 if that is not known
	past *sweep.Past
}

// Tests counts tests by outcome; see [record.Summary].
type Tests struct {
	Total   int `json:"total"`
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
	Other   int `json:"other"`
	Pending int `json:"pending"`
}

// String says how many tests had which outcome: "1 failed, 4 passed".
func (t *Tests) String() string {
	r := record.Result{}
	r.Results.Summary = record.Summary{Tests: t.Total, Passed: t.Passed, Failed: t.Failed, Skipped: t.Skipped, Other: t.Other, Pending: t.Pending}
	return r.Counts()
}

// Outcome is how a run ended, by its result.
type Outcome string

// The outcomes.
const (
	Passed   Outcome = "passed"
	Failed   Outcome = "failed"  // a test failed, or pytest did
	Ended    Outcome = "ended"   // before pytest did
	Running  Outcome = "running" // the process that was started is still there
	NoResult Outcome = "no result"
	Unasked  Outcome = "" // exec and shell have no tests
)

// List is the runs of a state directory.
type List struct {
	dir       state.Dir
	git       string
	records   *record.Runs
	memory    *memory.Repository
	recalled  bool
	histories map[string]sweep.History
	passed    []error // why parts of the memory cannot be used
}

// Open lists the records. git is the path of the toolset's git, with which the sweeps'
// memory is read.
func Open(dir state.Dir, git string) (*List, error) {
	records, err := record.Open(dir)
	if err != nil {
		return nil, err
	}
	return &List{dir: dir, git: git, records: records, histories: map[string]sweep.History{}}, nil
}

// Close closes what Open opened.
func (l *List) Close() {
	l.records.Close()
	if l.memory != nil {
		l.memory.Close()
	}
}

// Newest gives the newest n runs, and says what was passed over.
func (l *List) Newest(which record.Which, n int) (list []*Run, passedOver []error) {
	if n <= 0 {
		return nil, nil
	}
	passedOver = l.records.Each(which, func(r *record.Record) bool {
		list = append(list, l.begun(r))
		return len(list) < n
	})
	l.end(list)
	return list, append(passedOver, l.passed...)
}

// Short is the shortest unique beginning of an ID.
func (l *List) Short(id string) string { return l.records.Short(id) }

// IDs gives the newest IDs that begin with a text, at most n, the newest first.
func (l *List) IDs(beginning string, n int) []string {
	ids := l.records.IDs(beginning)
	ids = slices.Clone(ids[max(0, len(ids)-n):])
	slices.Reverse(ids)
	return ids
}

// Find finds the run with an ID, or with the beginning of an ID. A run of a sweep is also
// found by its ID in the sweep's memory, which is the time at which the sweep started it.
func (l *List) Find(id string) (*Run, *record.Record, error) {
	ids := l.records.IDs(id)
	if id == "" {
		ids = nil
	}
	if !slices.Contains(ids, id) {
		switch {
		case len(ids) > 1:
			return nil, nil, &Ambiguous{Word: id, Candidates: ids}
		case len(ids) == 1:
			id = ids[0]
		default:
			if run, r := l.ofSweep(id); run != nil {
				return run, r, nil
			}
			return nil, nil, fmt.Errorf("%s: no run has this ID, or one that begins with it; `cc-ci-run runs` lists the runs", id)
		}
	}
	r, err := l.records.Get(id)
	if err != nil {
		return nil, nil, err
	}
	run := l.begun(r)
	l.end([]*Run{run})
	return run, r, nil
}

// ofSweep finds a run by its ID in the sweep's memory. The run's record is a little newer
// than that ID.
func (l *List) ofSweep(stem string) (*Run, *record.Record) {
	if state.Stamp(stem).IsZero() {
		return nil, nil
	}
	const near = 100
	for _, id := range l.records.After(stem, near) {
		if r, err := l.records.Get(id); err == nil {
			if _, of, ok := sweepFile(r.Result); ok && strings.HasPrefix(of, stem) {
				run := l.begun(r)
				l.end([]*Run{run})
				return run, r
			}
		}
	}
	return nil, nil
}

// Ambiguous is the error of a word that can mean several things.
type Ambiguous struct {
	Word       string
	Candidates []string
}

func (a *Ambiguous) Error() string {
	const most = 5
	list := strings.Join(a.Candidates[:min(len(a.Candidates), most)], ", ")
	if more := len(a.Candidates) - most; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s: can mean any of %s; write more of it", a.Word, list)
}

// begun makes a Run of what the record says.
func (l *List) begun(r *record.Record) *Run {
	run := &Run{
		ID: r.ID, Started: r.Time, Invoker: r.Invoker.Name, InvokerID: r.Invoker.ID, Mode: r.Mode, Of: record.Recipe(r.Program, r.Args),
		Revision: r.Revision, Fingerprint: r.Fingerprint, file: r.Result, pid: r.PID, uid: user(r),
	}
	switch r.Mode {
	case "exec":
		run.Of = "exec " + run.Of
	case "shell":
		run.Of = "shell"
	}
	return run
}

// end adds to runs how they ended.
func (l *List) end(list []*Run) {
	l.recall(list)
	for _, r := range list {
		if r.Mode != "script" {
			continue
		}
		result, err := l.result(r)
		switch {
		case err == nil:
			r.judge(result)
		case r.past != nil: // the file has expired
			t := r.past.Tests
			r.Tests, r.Took = counts(t), r.past.Took
			if r.Outcome = Failed; r.past.Verdict == sweep.Promote || r.past.Verdict == sweep.Pass {
				r.Outcome = Passed
			} else if t.Failed == 0 && r.past.Verdict != sweep.Hold {
				r.Outcome = Ended
			}
		case alive(r.pid, r.Started):
			r.Outcome = Running
		default:
			r.Outcome = NoResult
			if !errors.Is(err, fs.ErrNotExist) {
				r.Why = err.Error()
			}
		}
		if r.past != nil {
			r.Verdict, r.Why = r.past.Verdict, r.past.Why
		}
	}
}

func (r *Run) judge(result *record.Result) {
	about, s := result.About(), result.Results.Summary
	r.Tests = counts(s)
	r.Took = time.Duration(max(0, s.Stop-s.Start)) * time.Millisecond
	switch {
	case !about.Complete:
		r.Outcome, r.Why = Ended, about.Why
	case s.Failed > 0 || about.ExitStatus != 0:
		r.Outcome = Failed
		if s.Failed == 0 {
			r.Why = fmt.Sprintf("pytest's exit status is %d", about.ExitStatus)
		}
		if len(about.Errors) > 0 {
			r.Why = about.Errors[0]
		}
	default:
		r.Outcome = Passed
	}
}

func counts(s record.Summary) *Tests {
	return &Tests{s.Tests, s.Passed, s.Failed, s.Skipped, s.Other, s.Pending}
}

// sweepFile is the place in STATE/sweep/logs of the result of a run of a sweep.
func sweepFile(result string) (folder, stem string, ok bool) {
	parts := strings.Split(result, "/")
	if len(parts) < 4 || !strings.HasSuffix(result, ".json") || strings.Join(parts[len(parts)-4:len(parts)-2], "/") != string(state.Logs) {
		return "", "", false
	}
	return parts[len(parts)-2], state.Stem(parts[len(parts)-1]), true
}

// result reads the result of a run. It does not read a result of a sweep, or of another
// user, for a run that somebody else recorded.
func (l *List) result(r *Run) (*record.Result, error) {
	if folder, stem, ok := sweepFile(r.file); ok {
		f, err := l.dir.Open(state.Logs, folder)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if !f.Official(r.uid) {
			return nil, f.Foreign(stem+".json", r.uid)
		}
		if _, err := f.Owner(stem + ".log"); err == nil {
			r.Log = f.Path(stem + ".log")
		}
		result, err := record.ReadResult(f, stem+".json")
		if err == nil {
			r.Result = f.Path(stem + ".json")
		}
		return result, err
	}
	name := r.ID + ".json"
	if of := r.file; of != "" && filepath.Base(of) != name {
		r.Why = "the result was written to " + of
		return nil, fs.ErrNotExist
	}
	f, err := l.dir.Open(state.Results)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	uid, err := f.Owner(name)
	if err != nil {
		return nil, err
	}
	if uid != r.uid && !f.Official(uid) {
		return nil, f.Foreign(name, uid)
	}
	result, err := record.ReadResult(f, name)
	if err == nil {
		r.Result = f.Path(name)
	}
	return result, err
}

// user is the user as whom a run writes its files.
func user(r *record.Record) int {
	users := strings.Fields(r.Process.UID)
	if len(users) == 0 {
		return -1
	}
	uid, err := strconv.Atoi(users[len(users)-1])
	if err != nil {
		return -1
	}
	return uid
}

// recall looks the runs up in the sweeps' memory.
func (l *List) recall(list []*Run) {
	var recipes []string
	for _, r := range list {
		if folder, _, ok := sweepFile(r.file); ok {
			recipe, err := url.PathUnescape(folder)
			if _, known := l.histories[recipe]; err == nil && !known && !slices.Contains(recipes, recipe) {
				recipes = append(recipes, recipe)
			}
		}
	}
	if len(recipes) > 0 {
		if err := l.read(recipes); err != nil && !errors.Is(err, memory.ErrNone) {
			l.passed = append(l.passed, fmt.Errorf("the verdicts of sweeps are not shown, because their memory cannot be read: %w", err))
		}
	}
	for _, r := range list {
		folder, stem, ok := sweepFile(r.file)
		if !ok {
			continue
		}
		recipe, _ := url.PathUnescape(folder)
		for i, p := range l.histories[recipe].Runs {
			if p.ID == stem && p.Fingerprint == r.Fingerprint {
				r.past = &l.histories[recipe].Runs[i]
			}
		}
	}
}

func (l *List) read(recipes []string) error {
	for _, recipe := range recipes {
		l.histories[recipe] = sweep.History{}
	}
	m, err := l.repository()
	if err != nil {
		return err
	}
	known, err := sweep.Recall(m, recipes...)
	if err != nil {
		return err
	}
	return sweep.Histories(m, known, func(r *sweep.Remembered, h sweep.History, err error) {
		if err != nil {
			l.passed = append(l.passed, fmt.Errorf("%s: %w", r.Recipe(), err))
			return
		}
		l.histories[r.Recipe()] = h
	})
}

func (l *List) repository() (*memory.Repository, error) {
	if l.memory != nil || l.recalled {
		if l.memory == nil {
			return nil, memory.ErrNone
		}
		return l.memory, nil
	}
	l.recalled = true
	m, err := memory.Open(l.dir, l.git, memory.Plain)
	if err == nil {
		l.memory = m
	}
	return m, err
}

// Tests gives the tests of a run with their outcomes, those that failed first. If the
// result's file has expired, Tests reads the sweep's memory. Without a result, it gives nil.
func (l *List) Tests(r *Run) ([]record.Test, error) {
	result, err := l.result(r)
	if err != nil && r.past != nil && r.past.Result != "" {
		m, failed := l.repository()
		if failed != nil {
			return nil, failed
		}
		data, failed := m.Blob(r.past.Result)
		if failed != nil {
			return nil, failed
		}
		result, err = record.ParseResult("the result in the sweep's memory", data)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	tests := result.Results.Tests
	order := []string{"failed", "other", "pending", "skipped", "passed"}
	slices.SortStableFunc(tests, func(a, b record.Test) int {
		return slices.Index(order, a.Status) - slices.Index(order, b.Status)
	})
	return tests, nil
}

// Recipes gives the recipes that have a sweep's log, or one of the newest records, sorted.
func (l *List) Recipes() []string {
	var all []string
	if f, err := l.dir.Open(state.Logs); err == nil {
		folders, _ := f.Names("")
		f.Close()
		for _, folder := range folders {
			if recipe, err := url.PathUnescape(folder); err == nil {
				all = append(all, recipe)
			}
		}
	}
	looked := 0
	l.records.Each(record.Which{}, func(r *record.Record) bool {
		if of := record.Recipe(r.Program, r.Args); r.Mode == "script" && of != filepath.Base(r.Program) {
			all = append(all, of)
		}
		looked++
		return looked < 200
	})
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(name string) bool {
		return strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
	})
}
