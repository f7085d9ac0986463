package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

// minHex is how many digits of a fingerprint a word must have.
const minHex = 4

// Environment is an environment and how it was found.
type Environment struct {
	Fingerprint string `json:"fingerprint"`
	Of          string `json:"of"` // for people: "the present environment", "run ID", …
}

// Kept gives the fingerprints of the environments whose manifests are kept, sorted.
func (l *List) Kept() ([]string, error) {
	const digits = 64
	names, err := l.dir.List(state.Manifests, ".json")
	var kept []string
	for _, name := range names {
		if f := strings.TrimSuffix(name, ".json"); len(f) == digits && isHex(f) { // nobody else's file
			kept = append(kept, f)
		}
	}
	return kept, err
}

// Environment finds the environment that a word names: a fingerprint or at least its
// first four digits, the ID of a run or its beginning, or a recipe. present is the
// fingerprint of this cc-ci-run's environment.
func (l *List) Environment(word, present string) (Environment, error) {
	var found []Environment
	if isHex(word) && len(word) >= minHex {
		kept, err := l.Kept()
		if err != nil {
			return Environment{}, err
		}
		all := append(kept, present)
		slices.Sort(all)
		for _, f := range slices.Compact(all) {
			if strings.HasPrefix(f, strings.ToLower(word)) {
				found = append(found, Environment{f, "environment"})
			}
		}
	}
	if isID(word) {
		r, _, err := l.Find(word)
		if err != nil {
			return Environment{}, err
		}
		found = append(found, Environment{r.Fingerprint, "run " + l.Short(r.ID)})
	} else if e, err := l.ofRecipe(word); err != nil {
		return Environment{}, err
	} else if e.Fingerprint != "" {
		found = append(found, e)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		hint := "a fingerprint or its first digits (at least 4), the ID of a run (`cc-ci-run runs`), or a recipe that was run"
		return Environment{}, fmt.Errorf("%s: names no environment: give %s", word, hint)
	}
	a := &Ambiguous{Word: word}
	for _, e := range found {
		a.Candidates = append(a.Candidates, fmt.Sprintf("%s %.16s", e.Of, e.Fingerprint))
	}
	return Environment{}, a
}

func isHex(word string) bool { return strings.Trim(word, "0123456789abcdefABCDEF") == "" }

// isID says whether a word looks like the beginning of a run's ID, a time.
func isID(word string) bool {
	ok, err := path.Match("[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T*", word)
	return ok && err == nil
}

// ofRecipe is the environment of a recipe's canonical run, or else of its last run.
func (l *List) ofRecipe(recipe string) (e Environment, err error) {
	if recipe == "" {
		return e, nil
	}
	m, err := l.repository()
	if err == nil {
		var known []*sweep.Remembered
		if known, err = sweep.Recall(m, recipe); err != nil {
			return e, err
		}
		for _, r := range known {
			switch s := r.State; {
			case r.Err != nil:
				return e, fmt.Errorf("%s: %w", recipe, r.Err)
			case !s.Canonical.Time.IsZero():
				return Environment{s.Canonical.Fingerprint, recipe + "'s canonical run"}, nil
			}
		}
	} else if !errors.Is(err, memory.ErrNone) && !errors.Is(err, fs.ErrPermission) {
		return e, err
	}
	l.records.Each(record.Which{Recipe: recipe}, func(r *record.Record) bool {
		e = Environment{r.Fingerprint, recipe + "'s last run"}
		return false
	})
	return e, nil
}

// Before gives the environment of the newest run that had another environment than the one
// with this fingerprint. If there is none, the fingerprint that it gives is "".
func (l *List) Before(fingerprint string) (e Environment, err error) {
	kept, err := l.Kept()
	if err != nil {
		return e, err
	}
	if !slices.ContainsFunc(kept, func(f string) bool { return f != fingerprint }) {
		return e, nil // no other environment is kept, so no record has to be read
	}
	l.records.Each(record.Which{Not: fingerprint}, func(r *record.Record) bool {
		e = Environment{r.Fingerprint, "run " + l.Short(r.ID)}
		return false
	})
	return e, nil
}
