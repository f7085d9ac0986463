package report

import (
	"fmt"
	"html/template"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

// parts is how the recipes are spread over the pages of the index.
type parts struct {
	pages  [][]sweep.Standing
	groups []group
}

// group is where a group begins.
type group struct {
	Name, Anchor, File string
	Count              int
	Bad                bool
}

func indexFile(page int) string {
	if page == 0 {
		return "index.html"
	}
	return fmt.Sprintf("index-%d.html", page+1)
}

func anchor(g sweep.Group) string { return strings.ReplaceAll(string(g), " ", "-") }

func (w *writing) parts() parts {
	var p parts
	list := w.status.Recipes
	for i, st := range list {
		if i%perPage == 0 {
			p.pages = append(p.pages, list[i:min(i+perPage, len(list))])
		}
		if i == 0 || list[i-1].Group != st.Group {
			p.groups = append(p.groups, group{string(st.Group), anchor(st.Group), indexFile(i / perPage), w.status.Totals[st.Group], bad(st.Group)})
		}
	}
	if len(p.pages) == 0 {
		p.pages = append(p.pages, nil)
	}
	return p
}

// bad says whether somebody has to look at the recipes of a group.
func bad(g sweep.Group) bool {
	return g == sweep.NewlyFailing || g == sweep.StillFailing || g == sweep.Damaged
}

// row is a recipe's line of the index.
type row struct {
	group                      sweep.Group
	Name, File, Why            string
	Bad                        bool
	Strip, Line                template.HTML
	Since, Took, Slower, Tests string
	Flaky                      int
}

func (w *writing) row(s *subject) row {
	r := row{group: s.Group, Name: name(s.Recipe), File: recipeFile(s.Recipe), Bad: bad(s.Group), Since: w.since(s.Standing)}
	if s.Group != sweep.Passing && s.Group != sweep.Fixed {
		r.Why = name(s.Why)
	}
	h := s.history
	r.Strip = runStrip(h.Runs)
	if len(h.Runs) > 0 {
		r.Line, r.Took, r.Slower, r.Tests = line(durations(h.Runs)), length(h.Runs[0].Took), slower(h.Runs), counts(h.Runs[0])
	}
	for _, t := range s.tests {
		if t.Flaky {
			r.Flaky++
		}
	}
	return r
}

func durations(runs []sweep.Past) []time.Duration {
	took := make([]time.Duration, len(runs))
	for i, r := range runs {
		took[i] = r.Took
	}
	return took
}

// since says since when a recipe stands as it does.
func (w *writing) since(st sweep.Standing) string {
	switch {
	case st.Since.IsZero():
		return ""
	case !bad(st.Group) && st.Group != sweep.Fixed && st.Nights == 0:
		return "since " + w.day(st.Since)
	}
	return "since " + w.day(st.Since) + ", " + plural(st.Nights, "run")
}

// counts are a run's tests by outcome, the bad ones first.
func counts(p sweep.Past) string {
	t := p.Tests
	if t.Tests == 0 {
		return "no tests"
	}
	var list []string
	for _, c := range []struct {
		n    int
		what string
	}{{t.Failed, "failed"}, {t.Pending, "not run"}, {t.Skipped, "skipped"}, {t.Other, "other"}, {t.Passed, "passed"}} {
		if c.n > 0 {
			list = append(list, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(list, ", ")
}

// index is a page of the index.
type index struct {
	head
	Headline       string
	Sweep, Failure string
	Running        []nav
	Groups         []group
	Sections       []section
	Pages          []nav
	Page           string
	Written        string
}

// section is a group's rows on one page.
type section struct {
	group
	Goes bool // on, from the page before
	Rows []row
}

func (w *writing) index(p parts, page int, rows []row) error {
	file := indexFile(page)
	d := index{head: w.head("Recipes", "index.html"), Headline: w.status.Headline, Groups: p.groups, Page: file, Written: w.at(w.now) + " " + w.now.In(w.Zone).Format("MST")}
	d.Title = w.status.Headline
	w.lastSweep(&d)
	for i, r := range rows {
		if i == 0 || rows[i-1].group != r.group {
			s := section{group: group{Name: string(r.group), Anchor: anchor(r.group), Bad: r.Bad, Count: w.status.Totals[r.group]}}
			for _, g := range p.groups {
				s.Goes = s.Goes || g.Name == s.Name && g.File != file
			}
			d.Sections = append(d.Sections, s)
		}
		s := &d.Sections[len(d.Sections)-1]
		s.Rows = append(s.Rows, r)
	}
	if len(p.pages) > 1 {
		for i := range p.pages {
			d.Pages = append(d.Pages, nav{indexFile(i), fmt.Sprint(i + 1)})
		}
	}
	data, err := render("index", d)
	if err != nil {
		return err
	}
	return w.out.putContent(file, data)
}

// lastSweep tells of the last sweep as a whole, and of the one under way.
func (w *writing) lastSweep(d *index) {
	last := w.status.Sweep
	if last == nil {
		return
	}
	d.Failure = last.Failure
	if !last.Ended.IsZero() {
		d.Sweep = fmt.Sprintf("Last sweep %s, by %s, took %s.", w.at(last.Started), last.Invoker, length(last.Ended.Sub(last.Started)))
		return
	}
	d.Sweep = fmt.Sprintf("A sweep by %s began at %s and has not ended.", last.Invoker, w.at(last.Started))
	d.Running = w.running()
}

// running are the recipes whose tests run now, as far as that is known: a run has a note
// that names its result, STATE/sweep/logs/RECIPE/ID.json.
func (w *writing) running() (list []nav) {
	notes, _ := w.State.List(state.Running, "")
	for _, note := range notes {
		var run struct {
			Result string `json:"result"`
		}
		data, err := w.State.Read(state.Running, note)
		if err == nil {
			err = state.Decode(note, data, 0, &run)
		}
		recipe, err2 := url.PathUnescape(filepath.Base(filepath.Dir(run.Result)))
		if err != nil || err2 != nil { // it has ended, or is about to be replaced
			continue
		}
		list = append(list, w.link(recipe))
	}
	return list
}

// link leads to a recipe's page, if it has one.
func (w *writing) link(recipe string) nav {
	n := nav{Text: name(recipe)}
	if w.has[recipe] {
		n.File = recipeFile(recipe)
	}
	return n
}
