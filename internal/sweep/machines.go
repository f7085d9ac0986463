package sweep

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/plaintext"
)

// This file compares the machines that share a memory, for `cc-ci-run parity --machines`.

// Likeness is the verdict on a machine: does it test as the machine that ran last?
type Likeness string

// The verdicts on machines.
const (
	Alike  Likeness = "identical"
	Unlike Likeness = "drift"
	// Old says that the machine's newest run began longer than [MachineAge] ago: the
	// machine is shown, and not compared.
	Old Likeness = "old"
)

// MachineAge is how long a machine counts after its newest run.
const MachineAge = 30 * 24 * time.Hour

// Machine is one of the machines that share a memory, with its newest run.
type Machine struct {
	Name    string   `json:"machine"`
	Verdict Likeness `json:"verdict"`
	Recipe  string   `json:"recipe"` // that the newest run is of
	// Of the newest run. Runner and Site are the first digits of hashes.
	Run         string    `json:"run"`
	Started     time.Time `json:"started"`
	Invoker     string    `json:"invoker"`
	Fingerprint string    `json:"fingerprint"`
	Runner      string    `json:"runner"`
	Site        string    `json:"site,omitempty"`
	Why         string    `json:"why"`
	// Changes is how the environment differs from that of the machine that ran last, as far as
	// this machine knows.
	Changes []string `json:"changes,omitempty"`
}

// Machines finds the newest run of each machine in a memory: of all recipes, or of those that
// only names. The first of the list is the machine that ran last. Each other machine is
// compared with that one. changes says how two environments differ, by their fingerprints.
// passedOver says which histories and runs could not be used.
func Machines(m *memory.Repository, now time.Time, changes func(a, b string) []string, only ...string) (list []Machine, passedOver []error, err error) {
	known, err := Recall(m, only...)
	if err != nil {
		return nil, nil, err
	}
	newest := map[string]*Machine{}
	first := map[string]time.Time{} // when an environment was first used, by its fingerprint
	future := map[string]bool{}
	err = Histories(m, known, func(r *Remembered, h History, err error) {
		if err = cmp.Or(r.Err, err); err != nil {
			passedOver = append(passedOver, fmt.Errorf("%s: %w", r.Recipe(), err))
			return
		}
		for _, p := range h.Runs {
			if p.Started.After(now.Add(time.Hour)) { // clocks differ a little
				if !future[p.Machine] {
					passedOver = append(passedOver, fmt.Errorf("%s: run %s began in the future: check the clock of the machine %s", r.Recipe(), plaintext.Printable(plaintext.Shorten(p.ID, 64)), plaintext.Printable(plaintext.Shorten(p.Machine, 64))))
				}
				future[p.Machine] = true
				continue
			}
			if at, ok := first[p.Fingerprint]; !ok || p.Started.Before(at) {
				first[p.Fingerprint] = p.Started
			}
			if was := newest[p.Machine]; was == nil || p.Started.After(was.Started) {
				newest[p.Machine] = &Machine{
					Name: p.Machine, Recipe: r.Recipe(), Run: p.ID, Started: p.Started, Invoker: p.Invoker,
					Fingerprint: p.Fingerprint, Runner: p.Runner, Site: p.Site,
				}
			}
		}
	})
	if err != nil {
		return nil, nil, err
	}
	for _, machine := range newest {
		list = append(list, *machine)
	}
	slices.SortFunc(list, func(a, b Machine) int {
		return cmp.Or(b.Started.Compare(a.Started), strings.Compare(a.Name, b.Name))
	})
	for i := range list {
		list[i].compare(list[0], now)
		if list[i].Verdict != Unlike || list[i].Fingerprint == list[0].Fingerprint {
			continue
		}
		if list[i].Started.Before(first[list[0].Fingerprint]) {
			list[i].Why += "; it has not run since the newest environment was first used"
		}
		if list[i].Changes = changes(list[0].Fingerprint, list[i].Fingerprint); len(list[i].Changes) > 0 {
			list[i].Why += ": " + some(list[i].Changes)
		}
	}
	return list, passedOver, nil
}

// compare gives the verdict on a machine: it compares the machine's newest run with the
// newest run of the machine that ran last.
func (m *Machine) compare(last Machine, now time.Time) {
	var differs []string
	for _, row := range []struct{ a, b, why string }{
		{m.Fingerprint, last.Fingerprint, "another environment"},
		{m.Runner, last.Runner, "another runner"},
		{m.Site, last.Site, "other values of the site's variables"},
	} {
		if row.a != row.b {
			differs = append(differs, row.why)
		}
	}
	switch m.Verdict = Alike; {
	case now.Sub(m.Started) > MachineAge:
		m.Verdict, m.Why = Old, fmt.Sprintf("no run for %d days: not compared", MachineAge/(24*time.Hour))
	case len(differs) > 0:
		m.Verdict, m.Why = Unlike, strings.Join(differs, ", ")
	}
}
