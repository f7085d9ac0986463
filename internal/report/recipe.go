package report

import (
	"fmt"
	"html/template"
	"regexp"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/sweep"
)

// recipePage is the page of one recipe.
type recipePage struct {
	head
	Recipe, Group, Verdict, Why string
	Bad                         bool
	Since, Canonical, Promoted  string
	CanonicalURL                string
	Fault                       string // why there is no history
	Commands                    []string
	Failures                    []failureView
	Strip                       template.HTML
	Tests                       []testRow
	Runs                        []runRow
}

type failureView struct {
	failure
	When, Verdict, Why, Summary string
	Same                        bool // as in the last run
}

func sameText(a, b failedTest) bool { return a.Name == b.Name && a.Text == b.Text }

// testRow is a test's row of the matrix, over the runs.
type testRow struct {
	Name           string
	Strip, Line    template.HTML
	Last, Slower   string
	Failing, Flaky bool
}

// runRow is one run.
type runRow struct {
	Verdict, Why, When, Took, Counts, By, Machine string
	Bad                                           bool
	Revision, RevisionURL, BuildURL               string
	Env, EnvFile                                  string
	SameRevision, SameEnv                         bool // as the run after it, which is above it: not linked again
	Changed                                       []string
}

// recipeKey is of all that a recipe's page shows. Its history is the commit's.
func (w *writing) recipeKey(s *subject) string {
	commit, fault := "", ""
	if s.known != nil {
		commit = s.known.Commit()
		if s.known.Err != nil {
			fault = s.known.Err.Error()
		}
	}
	s.Run = nil // it is the commit's, too
	directory := ""
	if w.status.Sweep != nil {
		directory = w.status.Sweep.Recipes
	}
	return w.keyFor(commit, fault, s.Standing, directory, len(w.status.Recipes) > 0 && w.head("", "").Bad)
}

// recipe writes the page of a recipe.
func (w *writing) recipe(s *subject) error {
	d := recipePage{
		head: w.head(name(s.Recipe), ""), Recipe: name(s.Recipe), Group: string(s.Group), Verdict: string(s.Verdict), Why: name(s.Why),
		Bad: bad(s.Group), Since: w.since(s.Standing), Commands: w.commands(s),
	}
	if s.Canonical != "" {
		d.Canonical, d.Promoted = short(s.Canonical), w.at(s.Promoted)
		if s.Standing.Invoker != "" {
			d.Promoted += " by " + s.Standing.Invoker
		}
		d.CanonicalURL = w.commitURL(s.Recipe, s.Canonical)
	}
	if s.err != nil {
		d.Fault = s.err.Error()
	}
	for _, f := range s.failure {
		v := failureView{failure: f, When: w.at(f.Run.Started), Verdict: string(f.Run.Verdict), Why: name(f.Run.Why), Summary: counts(f.Run)}
		for i := range v.Tests {
			v.Tests[i].Name = name(v.Tests[i].Name)
		}
		v.Same = v.First && len(v.Tests) > 0 && slices.EqualFunc(v.Tests, s.failure[0].Tests, sameText)
		d.Failures = append(d.Failures, v)
	}
	d.Strip = runStrip(s.history.Runs)
	d.Tests = testRows(s.tests)
	for i, r := range s.history.Runs {
		var before, after *sweep.Past
		if i+1 < len(s.history.Runs) {
			before = &s.history.Runs[i+1]
		}
		if i > 0 {
			after = &s.history.Runs[i-1]
		}
		d.Runs = append(d.Runs, w.runRow(s.Recipe, r, before, after))
	}
	data, err := render("recipe", d)
	if err != nil {
		return err
	}
	return w.out.put(recipeFile(s.Recipe), s.key, data)
}

// testRows is the matrix of tests and runs.
func testRows(tests []sweep.TestHistory) []testRow {
	rows := make([]testRow, len(tests))
	for i, t := range tests {
		took := make([]time.Duration, len(t.Millis))
		for n, millis := range t.Millis {
			took[n] = time.Duration(millis) * time.Millisecond
		}
		r := testRow{Name: name(t.Name), Strip: testStrip(t.Outcomes), Line: line(took), Flaky: t.Flaky}
		r.Failing = len(t.Outcomes) > 0 && t.Outcomes[0] == "failed"
		if n := slices.IndexFunc(t.Outcomes, func(o string) bool { return o != "" }); n >= 0 {
			r.Last = length(took[n])
		}
		if t.Slower > 0 {
			r.Slower = times(t.Slower)
		}
		rows[i] = r
	}
	return rows
}

func (w *writing) runRow(recipe string, r sweep.Past, before, after *sweep.Past) runRow {
	row := runRow{
		Verdict: string(r.Verdict), Why: name(r.Why), When: w.at(r.Started), Took: length(r.Took), Counts: counts(r),
		By: name(r.Invoker), Machine: name(r.Machine), Bad: r.Verdict.Bad(),
		Revision: short(r.Revision), SameRevision: after != nil && after.Revision == r.Revision,
		Env: short(r.Fingerprint), SameEnv: after != nil && after.Fingerprint == r.Fingerprint,
	}
	if w.BuildURL != "" {
		row.BuildURL = Fill(w.BuildURL, recipe, r.Revision, r.ID, r.Machine)
	}
	if after != nil && after.Why == r.Why {
		row.Why = ""
	}
	if !row.SameRevision {
		row.RevisionURL = w.commitURL(recipe, r.Revision)
	}
	if !row.SameEnv {
		row.EnvFile = envFile(r.Fingerprint)
	}
	if before != nil {
		row.Changed = w.changed(*before, r)
	}
	return row
}

func (w *writing) commitURL(recipe, revision string) string {
	if w.RecipeURL == "" || revision == "" {
		return ""
	}
	return Fill(w.RecipeURL, recipe, revision, "", "")
}

// changed says which inputs of a run differ from those of the run before.
func (w *writing) changed(was, is sweep.Past) (list []string) {
	switch {
	case was.Revision != is.Revision:
		list = append(list, fmt.Sprintf("revision %s → %s", short(was.Revision), short(is.Revision)))
	case was.Tree != is.Tree:
		list = append(list, "changes that are not committed")
	}
	if was.Fingerprint != is.Fingerprint {
		list = append(list, "environment: "+some(w.envs.difference(was.Fingerprint, is.Fingerprint)))
	}
	if was.Runner != is.Runner {
		list = append(list, "another runner")
	}
	if was.Site != is.Site {
		list = append(list, "what the site gives")
	}
	if was.Machine != is.Machine {
		list = append(list, fmt.Sprintf("machine %s → %s", name(was.Machine), name(is.Machine)))
	}
	return list
}

// maxChanges is how many changes of an environment are named beside a run.
const maxChanges = 4

// some is the beginning of a list.
func some(list []string) string {
	if more := len(list) - maxChanges; more > 0 {
		return fmt.Sprintf("%s, and %d more", strings.Join(list[:maxChanges], ", "), more)
	}
	return strings.Join(list, ", ")
}

// instance is a name that a unit's instance can have as it is (systemd.unit(5)).
var instance = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9:_.-]*$`)

// commands run the recipe's tests again.
func (w *writing) commands(s *subject) (list []string) {
	if s.Group == sweep.Removed {
		return nil
	}
	add := func(words ...string) {
		if line := command(words...); line != "" {
			list = append(list, line)
		}
	}
	invoker, directory := "", ""
	if s.known != nil {
		invoker, directory = s.known.State.Invoker, s.known.State.Directory
	}
	if directory == "" && w.status.Sweep != nil {
		directory = w.status.Sweep.Recipes
	}
	if invoker == "systemd" && instance.MatchString(s.Recipe) {
		add("sudo", "systemctl", "start", "nightly-sweep@"+s.Recipe)
	}
	if directory != "" {
		words := []string{"cc-ci-run", "sweep", "--recipes", directory, "--force"}
		if strings.HasPrefix(s.Recipe, "-") {
			words = append(words, "--")
		}
		add(append(words, s.Recipe)...)
	}
	return list
}
