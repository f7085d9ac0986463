package report

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cc-ci-run/internal/audit"
	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/host"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/toolset"
)

// This file has the pages of what other commands show: parity, audit, host.

// parityPage compares the newest runs of the invokers.
type parityPage struct {
	head
	Notes []string
	Pairs []parityPair
}

// invokers are their names in a sentence.
var invokers = map[string]string{"drone": "Drone", "systemd": "systemd", "manual": "hand"}

type parityPair struct {
	A, B               string
	RunA, RunB         string
	WhenA, WhenB       string
	Drifts, Declared   []parity.Finding
	Identical, Compare int
}

func (w *writing) parity(context.Context) error {
	d := parityPage{head: w.head("Parity of the invokers", "parity.html")}
	records, err := record.Open(w.State)
	if err != nil {
		d.Notes = append(d.Notes, err.Error())
	} else {
		defer records.Close()
		var have []string
		runs := map[string]parity.Run{}
		for _, invoker := range toolset.Invokers {
			r, _, err := records.Newest(invoker, "")
			var m *toolset.Manifest
			if err == nil {
				m, err = parity.Kept(w.State, r.Fingerprint, w.Manifest)
			}
			switch {
			case errors.Is(err, record.ErrNone):
				d.Notes = append(d.Notes, "No run by "+invokers[invoker]+" is recorded.")
			case err != nil:
				d.Notes = append(d.Notes, invoker+": "+err.Error())
			default:
				runs[invoker] = parity.Run{Record: r, Environment: m}
				have = append(have, invoker)
			}
		}
		for _, other := range have[min(1, len(have)):] {
			d.Pairs = append(d.Pairs, w.pair(have[0], other, runs[have[0]], runs[other]))
		}
	}
	data, err := render("parity", d)
	if err != nil {
		return err
	}
	return w.out.putContent("parity.html", data)
}

func (w *writing) pair(nameA, nameB string, a, b parity.Run) parityPair {
	p := parityPair{A: nameA, B: nameB, RunA: a.ID, RunB: b.ID, WhenA: w.at(a.Time), WhenB: w.at(b.Time)}
	for _, f := range parity.Compare(a, b) {
		p.Compare++
		switch f.Verdict {
		case parity.Drift:
			p.Drifts = append(p.Drifts, f)
		case parity.Declared:
			p.Declared = append(p.Declared, f)
		default:
			p.Identical++
		}
	}
	return p
}

// auditPage says what the audited runs executed.
type auditPage struct {
	head
	Runs       []audit.Count
	Audits     int
	Notes      []string
	Used       []useRow
	Missing    []useRow
	Undeclared []useRow
	Unused     []audit.Unused
}

type useRow struct {
	Tool, Name, Fix string
	Times           int
	Recipes         []nav
	More            int // recipes
}

// maxAudits is how many reports of audits are summed up.
const maxAudits = 100

func (w *writing) audit(context.Context) error {
	d := auditPage{head: w.head("Audit", "audit.html")}
	reports, skipped, err := audit.Newest(w.State, "", maxAudits)
	if err != nil {
		d.Notes = append(d.Notes, err.Error())
	}
	if len(skipped) > 0 {
		d.Notes = append(d.Notes, fmt.Sprintf("%d files are passed over, the first: %v", len(skipped), skipped[0]))
	}
	if d.Audits = len(reports); d.Audits > 0 && w.Manifest != nil {
		total := audit.Merge(w.Manifest, reports)
		d.Runs, d.Unused = total.Runs, total.Unused
		for _, u := range total.Used {
			d.Used = append(d.Used, w.by(u.Where, useRow{Tool: u.Tool, Name: u.Name, Times: u.Times}))
		}
		slices.SortStableFunc(d.Used, func(a, b useRow) int { return compareTools(a.Tool, b.Tool) })
		for _, m := range total.Missing {
			d.Missing = append(d.Missing, w.by(m.Where, useRow{Name: m.Name, Fix: m.Fix.String(), Times: m.Times}))
		}
		for _, u := range total.Undeclared {
			d.Undeclared = append(d.Undeclared, w.by(u.Where, useRow{Name: u.Name, Times: u.Times}))
		}
	}
	data, err := render("audit", d)
	if err != nil {
		return err
	}
	return w.out.putContent("audit.html", data)
}

// compareTools puts toolset.toml's tools before "[host]" and the like.
func compareTools(a, b string) int {
	own := func(s string) string {
		if s == "" || s[0] == '[' {
			return "\xff" + s
		}
		return s
	}
	switch a, b = own(a), own(b); {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// maxRecipes is how many recipes are named that executed a tool.
const maxRecipes = 12

// by says which recipes executed something, with links to their pages.
func (w *writing) by(where audit.Where, row useRow) useRow {
	for i, recipe := range where.Recipes {
		if i == maxRecipes {
			row.More = len(where.Recipes) - i
			break
		}
		row.Recipes = append(row.Recipes, w.link(recipe))
	}
	return row
}

// hostPage is what `cc-ci-run host` finds.
type hostPage struct {
	head
	Summary string
	Healthy bool
	When    string
	Rows    []hostRow
}

type hostRow struct {
	finding.Finding
	Bad  bool
	When string
}

func (w *writing) host(ctx context.Context) error {
	if w.Host == nil {
		return nil
	}
	report, err := w.Host(ctx)
	if err != nil {
		report = host.Report{Time: w.now, Results: []finding.Finding{{Verdict: finding.Unknown, What: "the host", State: err.Error(), Fix: "cc-ci-run host"}}}
	}
	d := hostPage{head: w.head("Health of the host", "host.html"), Healthy: report.Healthy, When: w.at(report.Time)}
	wrong := len(report.Wrong())
	switch {
	case wrong == 0:
		d.Summary = fmt.Sprintf("The host is healthy: %s", plural(len(report.Results), "check"))
	default:
		d.Summary = fmt.Sprintf("%d of %d checks found a fault, %d could not be made.", report.Count(finding.Fault), len(report.Results), report.Count(finding.Unknown))
	}
	for _, r := range report.Results {
		d.Rows = append(d.Rows, hostRow{r, r.Verdict == finding.Fault || r.Verdict == finding.Unknown, w.at(r.Since)})
	}
	slices.SortStableFunc(d.Rows, func(a, b hostRow) int {
		switch {
		case a.Bad == b.Bad:
			return 0
		case a.Bad:
			return -1
		}
		return 1
	})
	data, err := render("host", d)
	if err != nil {
		return err
	}
	return w.out.putContent("host.html", data)
}
