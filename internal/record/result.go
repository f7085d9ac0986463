package record

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/state"
)

// ResultSchema is the version of what a result has below extra.cc_ci_run.
const ResultSchema = 1

// Result is the outcome of a run's tests, as the runner writes it: a file in
// the Common Test Report Format (https://ctrf.io), with fields of our own in
// "extra". The type has only those fields that cc-ci-run uses.
type Result struct {
	Format  string `json:"reportFormat"` // CTRF
	Version string `json:"specVersion"`
	Results struct {
		Tool struct {
			Name string `json:"name"`
		} `json:"tool"`
		Summary Summary `json:"summary"`
		Tests   []Test  `json:"tests"`
		Extra   struct {
			About About `json:"cc_ci_run"`
		} `json:"extra"`
	} `json:"results"`
}

// Summary counts tests by outcome. Other counts expected failures (xfail) and
// the test under way when the run was ended; Pending counts tests that were not
// run.
type Summary struct {
	Tests   int   `json:"tests"`
	Passed  int   `json:"passed"`
	Failed  int   `json:"failed"`
	Skipped int   `json:"skipped"`
	Pending int   `json:"pending"`
	Other   int   `json:"other"`
	Partly  int   `json:"-"`     // of Skipped: those that ran and skipped a part of themselves
	Start   int64 `json:"start"` // milliseconds since 1970
	Stop    int64 `json:"stop"`
}

// Test is one test's outcome.
type Test struct {
	Name     string `json:"name"`   // pytest's node ID
	Status   string `json:"status"` // passed, failed, skipped, pending or other
	Raw      string `json:"rawStatus,omitempty"`
	Duration int64  `json:"duration"` // milliseconds
	Message  string `json:"message,omitempty"`
	Trace    string `json:"trace,omitempty"`
}

// Text is what a failed test left: its trace, or its message if it has no trace.
func (t Test) Text() string {
	if t.Trace != "" {
		return t.Trace
	}
	return t.Message
}

// About has the fields that CTRF lacks. runner/recipe_result.py documents them.
type About struct {
	Schema      int      `json:"schema"`
	Recipe      string   `json:"recipe"`
	Revision    string   `json:"revision"`
	Invoker     string   `json:"invoker"`
	Fingerprint string   `json:"fingerprint"`
	Complete    bool     `json:"complete"` // pytest ended by itself, and each test has an outcome
	Why         string   `json:"why"`      // what ended it, if it is not complete
	Running     string   `json:"running"`  // the test under way then
	ExitStatus  int      `json:"exit_status"`
	Deselected  int      `json:"deselected"`
	Errors      []string `json:"errors"` // of the collection
}

// About is the part of a result that is not CTRF's.
func (r *Result) About() About { return r.Results.Extra.About }

// ReadResult reads a result. An error that is fs.ErrNotExist means that the run
// ended before pytest's session was over. The summary is counted again from the
// tests, because the summary in the file may be wrong.
func ReadResult(f *state.Folder, name string) (*Result, error) {
	data, _, err := f.Read(name)
	if err != nil {
		return nil, err
	}
	return ParseResult(f.Path(name), data)
}

// ParseResult reads a result's bytes. path names their file in messages.
func ParseResult(path string, data []byte) (*Result, error) {
	var r Result
	if err := state.Decode(path, data, ResultSchema, &r); err != nil {
		return nil, err
	}
	about := r.About()
	switch {
	case r.Format != "CTRF" || about.Schema == 0:
		return nil, fmt.Errorf("%s: not a result of run_recipe_ci.py", path)
	case about.Schema > ResultSchema:
		return nil, state.NewerSchema(path, about.Schema, ResultSchema)
	}
	s := Summary{Tests: len(r.Results.Tests), Start: r.Results.Summary.Start, Stop: r.Results.Summary.Stop}
	for _, t := range r.Results.Tests {
		switch t.Status {
		case "passed":
			s.Passed++
		case "failed":
			s.Failed++
		case "skipped":
			s.Skipped++
			if t.Raw == rawPartly {
				s.Partly++
			}
		case "other":
			s.Other++
		default:
			s.Pending++
		}
	}
	r.Results.Summary = s
	return &r, nil
}

// Unfinished makes a result for a run that left none. It says what ended the
// run, and which test was under way.
func Unfinished(about About, start, stop time.Time) *Result {
	r := &Result{Format: "CTRF", Version: "1.0.0"}
	about.Schema, about.Complete, about.Errors = ResultSchema, false, []string{}
	r.Results.Extra.About = about
	r.Results.Tool.Name = "pytest"
	r.Results.Summary = Summary{Start: start.UnixMilli(), Stop: stop.UnixMilli()}
	r.Results.Tests = []Test{}
	if about.Running != "" {
		r.Results.Summary.Tests, r.Results.Summary.Other = 1, 1
		r.Results.Tests = []Test{{Name: about.Running, Status: "other", Message: about.Why}}
	}
	return r
}

// Counts says how many tests had which outcome: "1 failed, 4 passed, 2 skipped".
func (r *Result) Counts() string {
	s := r.Results.Summary
	var parts []string
	for _, c := range []struct {
		n    int
		what string
	}{{s.Failed, "failed"}, {s.Passed, "passed"}, {s.Skipped, "skipped"}, {s.Other, "expected to fail or ended"}, {s.Pending, "not run"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

// rawPartly is the raw status of a test that ran and skipped a part of itself.
const rawPartly = "a subtest was skipped"

// Failed names the tests that failed, in order.
func (r *Result) Failed() (names []string) {
	for _, t := range r.Results.Tests {
		if t.Status == "failed" {
			names = append(names, t.Name)
		}
	}
	return names
}

// SkipReasons are the reasons for which tests were skipped, sorted, each once.
func (r *Result) SkipReasons() []string {
	reasons := map[string]bool{}
	for _, t := range r.Results.Tests {
		if t.Status == "skipped" && t.Message != "" {
			reasons[t.Message] = true
		}
	}
	return slices.Sorted(maps.Keys(reasons))
}
