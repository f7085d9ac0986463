package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// environments are those that the remembered runs had.
type environments struct {
	state   state.Dir
	present *toolset.Manifest
	seen    map[string]*environment

	lock    sync.Mutex
	kept    map[string]*toolset.Manifest // nil for one that has expired
	differs map[[2]string][]string
}

// environment is one of them, and what ran in it.
type environment struct {
	print       string
	first, last time.Time
	runs        int
	recipes     int
	recipe      string // that was counted last
}

func newEnvironments(dir state.Dir, present *toolset.Manifest) *environments {
	return &environments{state: dir, present: present, seen: map[string]*environment{}, kept: map[string]*toolset.Manifest{}, differs: map[[2]string][]string{}}
}

// saw counts a recipe's runs.
func (e *environments) saw(recipe string, h sweep.History) {
	for _, r := range h.Runs {
		is := e.seen[r.Fingerprint]
		if is == nil {
			if envFile(r.Fingerprint) == "" {
				continue
			}
			is = &environment{print: r.Fingerprint, first: r.Started}
			e.seen[r.Fingerprint] = is
		}
		if is.recipe != recipe {
			is.recipe = recipe
			is.recipes++
		}
		is.runs++
		if r.Started.Before(is.first) {
			is.first = r.Started
		}
		if r.Started.After(is.last) {
			is.last = r.Started
		}
	}
}

// manifest is what an environment consists of, nil if that has expired. The lock is held.
func (e *environments) manifest(print string) *toolset.Manifest {
	m, ok := e.kept[print]
	if !ok {
		m, _ = parity.Kept(e.state, print, e.present)
		e.kept[print] = m
	}
	return m
}

// difference names the tools in which two environments differ.
func (e *environments) difference(a, b string) []string {
	e.lock.Lock()
	defer e.lock.Unlock()
	pair := [2]string{a, b}
	list, ok := e.differs[pair]
	if ok {
		return list
	}
	x, y := e.manifest(a), e.manifest(b)
	if x == nil || y == nil {
		list = []string{fmt.Sprintf("%s → %s", short(a), short(b))}
	} else {
		for _, c := range toolset.Difference(x, y) {
			list = append(list, name(c.String()))
		}
		if len(list) == 0 {
			list = []string{"no tool changed"}
		}
	}
	e.differs[pair] = list
	return list
}

// envRow is an environment in the list of them.
type envRow struct {
	Short, File, First, Last string
	Runs, Recipes            int
	Changes                  string
	Now                      bool
}

// envPage is the page of an environment.
type envPage struct {
	head
	envRow
	Print    string
	Before   *envRow
	Changes  []string
	Known    bool
	Tools    []toolRow
	Absent   []toolRow
	Python   string
	Packages []toolRow
	Browsers string
	Backend  string
}

type toolRow struct{ Name, Version, Commands, Why string }

// environments writes the list of environments, and a page for each.
func (w *writing) environments(context.Context) error {
	var order []*environment // by the first use
	for _, e := range w.envs.seen {
		order = append(order, e)
	}
	now := ""
	if w.Manifest != nil {
		now = w.Manifest.Fingerprint()
		w.envs.kept[now] = w.Manifest
		if w.envs.seen[now] == nil {
			order = append(order, &environment{print: now, first: w.now})
		}
	}
	slices.SortFunc(order, func(a, b *environment) int {
		if c := a.first.Compare(b.first); c != 0 {
			return c
		}
		return strings.Compare(a.print, b.print)
	})
	var rows []envRow
	for i, e := range order {
		r := envRow{Short: short(e.print), File: envFile(e.print), Runs: e.runs, Recipes: e.recipes, Last: w.at(e.last), Now: e.print == now}
		if e.runs > 0 {
			r.First = w.at(e.first)
		}
		page := envPage{head: w.head("Environment "+short(e.print), "environments.html"), Print: e.print}
		if i > 0 {
			page.Before = &rows[i-1]
			page.Changes = w.envs.difference(order[i-1].print, e.print)
			r.Changes = some(page.Changes)
		}
		page.envRow = r
		w.envs.lock.Lock()
		m := w.envs.manifest(e.print)
		w.envs.lock.Unlock()
		page.fill(m)
		data, err := render("environment", page)
		if err == nil {
			err = w.out.putContent(r.File, data)
		}
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	slices.Reverse(rows)
	data, err := render("environments", struct {
		head
		Rows []envRow
	}{w.head("Environments", "environments.html"), rows})
	if err != nil {
		return err
	}
	return w.out.putContent("environments.html", data)
}

// fill has what a manifest says.
func (p *envPage) fill(m *toolset.Manifest) {
	if m == nil {
		return
	}
	p.Known, p.Backend = true, m.Backend
	for _, t := range m.Tools {
		p.Tools = append(p.Tools, toolRow{t.Name, versionOf(t), commandNames(t.Commands), t.Why})
	}
	for _, a := range m.Absent {
		p.Absent = append(p.Absent, toolRow{Name: a.Name, Commands: strings.Join(a.Commands, " "), Why: a.Why})
	}
	p.Python = m.Python.Version
	for _, k := range m.Python.Packages {
		p.Packages = append(p.Packages, toolRow{Name: k.Name, Version: k.Version})
	}
	p.Browsers = versions(m.Browsers.Packages)
}

// versionOf leaves out a package's name that is the tool's, too.
func versionOf(t toolset.ResolvedTool) string {
	if len(t.Packages) == 1 && t.Packages[0].Name == t.Name {
		return t.Packages[0].Version
	}
	return versions(t.Packages)
}

func versions(packages []toolset.Package) string {
	var list []string
	for _, k := range packages {
		list = append(list, strings.TrimSpace(k.Name+" "+k.Version))
	}
	return strings.Join(list, ", ")
}

// maxCommands is how many commands of a tool are named; coreutils has a hundred.
const maxCommands = 12

func commandNames(commands []toolset.Command) string {
	var list []string
	for _, c := range commands {
		list = append(list, c.Name)
	}
	if more := len(list) - maxCommands; more > 0 {
		list = append(list[:maxCommands], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, " ")
}
