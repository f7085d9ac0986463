package sweep

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// This file has what is remembered of each recipe's last runs: a file that is small enough
// to be read for all recipes at once.

// maxHistory is how many runs a history has, and maxHistoryTests how many tests.
const (
	maxHistory      = 30
	maxHistoryTests = 500
)

// HistorySchema is the version of a history's JSON.
const HistorySchema = 1

// History is the last runs of one recipe: runs.json of its commit. Older runs are in
// the commits before.
type History struct {
	Schema int `json:"schema"`
	// Tests are the names of the runs' tests. [Past.Outcomes] and [Past.Millis] have the
	// same order.
	Tests []string `json:"tests"`
	Runs  []Past   `json:"runs"` // the newest first
}

// Past is one run.
type Past struct {
	ID      string        `json:"id"` // the name of its log and its result, without the suffix
	Verdict Verdict       `json:"verdict"`
	Why     string        `json:"why"`
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"duration_ns"`
	Invoker string        `json:"invoker"`
	Machine string        `json:"machine"`
	// The inputs of the run. Tree, Runner and Site are the first digits of hashes.
	Revision    string         `json:"revision"`
	Tree        string         `json:"tree"`
	Fingerprint string         `json:"fingerprint"`
	Runner      string         `json:"runner"`
	Site        string         `json:"site,omitempty"`
	Tests       record.Summary `json:"tests"`
	// Outcomes has a letter for each of [History.Tests]: p passed, f failed, s
	// skipped, o other, n not run, "." the run did not have the test. Letters at the end
	// may be missing; they are ".".
	Outcomes string  `json:"outcomes,omitempty"`
	Millis   []int64 `json:"millis,omitempty"` // that each test took
	// Hashes of the files in the repository: all tests' outcomes (CTRF), and the end
	// of the run's output.
	Result string `json:"result,omitempty"`
	Output string `json:"output,omitempty"`
}

// SameInputs says whether two runs had the same inputs.
func (p Past) SameInputs(q Past) bool {
	return p.Revision == q.Revision && p.Tree == q.Tree && p.Fingerprint == q.Fingerprint && p.Runner == q.Runner && p.Site == q.Site
}

// The letters of [Past.Outcomes].
const (
	Passed, Failed, Skipped, Other, NotRun, Absent = 'p', 'f', 's', 'o', 'n', '.'
)

var letters = map[string]byte{"passed": Passed, "failed": Failed, "skipped": Skipped, "other": Other}

// Outcome is the letter of a test, by its place in [History.Tests], and how many
// milliseconds it took.
func (p Past) Outcome(test int) (letter byte, millis int64) {
	if test < len(p.Millis) {
		millis = p.Millis[test]
	}
	if test < len(p.Outcomes) {
		return p.Outcomes[test], millis
	}
	return Absent, millis
}

// past is a run as it is remembered, with its verdict.
func past(r Result, ran Inputs, invoker, machine string) Past {
	p := Past{
		ID: stemOf(r.Started), Verdict: r.Verdict, Why: r.Why, Started: r.Started, Took: r.Duration, Invoker: invoker, Machine: machine,
		Revision: ran.Revision, Tree: start(ran.Tree), Fingerprint: ran.Fingerprint, Runner: start(ran.Runner), Tests: r.Tests,
	}
	if len(ran.Site) > 0 {
		h := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(ran.Site)) {
			h.Write([]byte(name + "\x00" + ran.Site[name] + "\x00"))
		}
		p.Site = start(hex.EncodeToString(h.Sum(nil)))
	}
	return p
}

func start(hash string) string { return hash[:min(len(hash), 12)] }

// with is the history after one more run, whose tests had these outcomes.
func (h History) with(p Past, tests []record.Test) History {
	next := History{Schema: HistorySchema}
	// Only tests of runs that stay in the history keep a place.
	runs := h.Runs[:min(len(h.Runs), maxHistory-1)]
	used := make([]bool, len(h.Tests))
	for _, old := range runs {
		for i := range h.Tests {
			if letter, _ := old.Outcome(i); letter != Absent {
				used[i] = true
			}
		}
	}
	place := map[string]int{}
	add := func(name string) int {
		i, ok := place[name]
		if !ok && len(next.Tests) < maxHistoryTests {
			i, ok = len(next.Tests), true
			place[name] = i
			next.Tests = append(next.Tests, name)
		}
		if !ok {
			return -1
		}
		return i
	}
	for _, t := range tests { // first, so that tests that failed have a place in any case
		if t.Status == "failed" {
			add(t.Name)
		}
	}
	for i, name := range h.Tests {
		if used[i] {
			add(name)
		}
	}
	for _, t := range tests {
		if i := add(t.Name); i >= 0 {
			letter, ok := letters[t.Status]
			if !ok {
				letter = NotRun
			}
			p.set(i, letter, t.Duration)
		}
	}
	next.Runs = append(next.Runs, p)
	for _, old := range runs {
		was := old
		old.Outcomes, old.Millis = "", nil
		for i, name := range h.Tests {
			if letter, millis := was.Outcome(i); letter != Absent {
				if to, ok := place[name]; ok {
					old.set(to, letter, millis)
				}
			}
		}
		next.Runs = append(next.Runs, old)
	}
	return next
}

func (p *Past) set(i int, letter byte, millis int64) {
	if n := i + 1 - len(p.Outcomes); n > 0 {
		p.Outcomes += strings.Repeat(string(Absent), n)
		p.Millis = append(p.Millis, make([]int64, n)...)
	}
	p.Outcomes = p.Outcomes[:i] + string(letter) + p.Outcomes[i+1:]
	p.Millis[i] = millis
}

// Flaky says whether a test both passed and failed in runs with the same inputs.
func (h History) Flaky(test int) bool {
	for i, a := range h.Runs {
		for _, b := range h.Runs[i+1:] {
			x, _ := a.Outcome(test)
			y, _ := b.Outcome(test)
			if (x == Passed && y == Failed || x == Failed && y == Passed) && a.SameInputs(b) {
				return true
			}
		}
	}
	return false
}

// ParseHistory reads a runs.json. where names it in messages.
func ParseHistory(where string, data []byte) (h History, err error) {
	if len(data) == 0 {
		return History{Schema: HistorySchema}, nil
	}
	err = state.Decode(where, data, HistorySchema, &h)
	return h, err
}

// maxKeptResult is the size up to which a result is remembered whole, in bytes.
const maxKeptResult = 1 << 20

// kept is a result as it is remembered. A large one is remembered without messages and
// traces: the log, and the result beside the log, have them until they expire. The tests
// that failed come first: of very many, the last ones are left out.
func kept(data []byte, r *record.Result) []byte {
	if r == nil || len(data) <= maxKeptResult {
		return data
	}
	brief := *r
	brief.Results.Tests = nil
	for _, failed := range []bool{true, false} {
		for _, t := range r.Results.Tests {
			if (t.Status == "failed") == failed && len(brief.Results.Tests) < maxKeptTests {
				brief.Results.Tests = append(brief.Results.Tests, t)
			}
		}
	}
	for i := range brief.Results.Tests {
		brief.Results.Tests[i].Message, brief.Results.Tests[i].Trace = "", ""
	}
	data, _ = json.Marshal(brief)
	return data
}

const maxKeptTests = 5000

// maxKeptOutput is how much of a run's output is remembered, in bytes: its end.
const maxKeptOutput = 64 << 10

// lastOf is the end of an output. It begins with a line, or at least with a character.
func lastOf(data []byte) []byte {
	if len(data) <= maxKeptOutput {
		return data
	}
	data = data[len(data)-maxKeptOutput:]
	if _, after, ok := strings.Cut(string(data), "\n"); ok && after != "" {
		return []byte(after)
	}
	for len(data) > 0 && !utf8.RuneStart(data[0]) {
		data = data[1:]
	}
	return data
}

// IDs are the runs' IDs, the newest first.
func (h History) IDs() []string {
	ids := make([]string, len(h.Runs))
	for i, r := range h.Runs {
		ids[i] = r.ID
	}
	return ids
}

// Changed says which inputs of a run differ from those of an earlier one, "" for none.
func (p Past) Changed(was Past) string {
	var parts []string
	switch {
	case p.Revision != was.Revision:
		parts = append(parts, "revision")
	case p.Tree != was.Tree:
		parts = append(parts, "folder")
	}
	if p.Fingerprint != was.Fingerprint {
		parts = append(parts, "environment")
	}
	if p.Runner != was.Runner {
		parts = append(parts, "runner")
	}
	if p.Site != was.Site {
		parts = append(parts, "site's variables")
	}
	if p.Machine != was.Machine {
		parts = append(parts, "machine")
	}
	return strings.Join(parts, ", ")
}

// TestHistory says how one test went in the runs of a history.
type TestHistory struct {
	Name string `json:"name"`
	// Outcomes has for each run, the newest first, one of passed, failed, skipped, other,
	// not run, or "" if the run did not have the test. Millis has the test's durations.
	Outcomes []string `json:"outcomes"`
	Millis   []int64  `json:"millis"`
	Failures int      `json:"failures"`
	Flaky    bool     `json:"flaky"` // passed and failed with the same inputs
	// First and Last are the test's usual durations in milliseconds: the medians of the
	// older and of the newer half of the runs in which it passed. Slower is Last divided by
	// First, if the test has become clearly slower.
	First  int64   `json:"first_ms"`
	Last   int64   `json:"last_ms"`
	Slower float64 `json:"slower,omitempty"`
}

var outcomes = map[byte]string{Passed: "passed", Failed: "failed", Skipped: "skipped", Other: "other", NotRun: "not run"}

// TestHistories has all tests: first those that failed in the newest run, then flaky tests,
// then slower ones, then the others, each of these by name.
func (h History) TestHistories() []TestHistory {
	list := make([]TestHistory, 0, len(h.Tests))
	for i, name := range h.Tests {
		t := TestHistory{Name: name, Flaky: h.Flaky(i)}
		var passed []int64 // the newest first
		for _, r := range h.Runs {
			letter, millis := r.Outcome(i)
			t.Outcomes, t.Millis = append(t.Outcomes, outcomes[letter]), append(t.Millis, millis)
			switch letter {
			case Passed:
				passed = append(passed, millis)
			case Failed:
				t.Failures++
			}
		}
		t.Last, t.First = Median(passed[:(len(passed)+1)/2]), Median(passed[len(passed)/2:])
		// With fewer runs, or shorter times, the ratio would be chance.
		if len(passed) >= 6 && t.Last-t.First >= 200 && float64(t.Last) >= 1.5*float64(t.First) {
			t.Slower = float64(t.Last) / float64(max(t.First, 1))
		}
		list = append(list, t)
	}
	rank := func(t TestHistory) int {
		switch {
		case len(t.Outcomes) > 0 && t.Outcomes[0] == "failed":
			return 0
		case t.Flaky:
			return 1
		case t.Slower > 0:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(list, func(a, b TestHistory) int {
		return cmp.Or(rank(a)-rank(b), strings.Compare(a.Name, b.Name))
	})
	return list
}

// Median is the middle one of some values, 0 if there is none.
func Median[T int64 | time.Duration](list []T) T {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
