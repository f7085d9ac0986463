package cli

import (
	"errors"
	"fmt"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// This file opens what sweeps remember, for the commands that show it.

// memoryOf opens the memory of a state directory's sweeps.
func (p Process) memoryOf(shared *run.Options) (*memory.Repository, state.Dir, error) {
	m, err := toolset.ReadManifest(p.Manifest)
	if err != nil {
		return nil, "", err
	}
	dir := shared.StateDir(p.Environ, m.State)
	r, err := memory.Open(dir, m.Git(), memory.Plain)
	if errors.Is(err, memory.ErrNone) {
		err = fmt.Errorf("%s: no sweep has remembered anything yet: start a sweep (cc-ci-run sweep, or systemctl start nightly-sweep)", dir)
	}
	return r, dir, err
}

// morning gives the status of the recipes after the last sweep.
func morning(dir state.Dir, r *memory.Repository) (sweep.Status, error) {
	list, err := sweep.Recall(r)
	if err != nil {
		return sweep.Status{}, err
	}
	return statusOf(dir, list)
}

// statusOf sums up what is remembered.
func statusOf(dir state.Dir, list []*sweep.Remembered) (sweep.Status, error) {
	last, err := sweep.Last(dir)
	if err != nil {
		return sweep.Status{}, err
	}
	var folders, changes []string
	if last != nil {
		// A directory that is gone, or that may not be read, names no recipe.
		folders, _ = sweep.Folders(last.Recipes)
		changes = environmentChanges(dir, last)
	}
	return sweep.StatusOf(list, last, folders, changes), nil
}

// environmentChanges says how the last sweep's environment differs from that of the
// sweep before it.
func environmentChanges(dir state.Dir, last *sweep.Summary) (list []string) {
	if last.Before == "" {
		return nil
	}
	before, err := parity.Kept(dir, last.Before, nil)
	now, err2 := parity.Kept(dir, last.Fingerprint, nil)
	if err != nil || err2 != nil { // a manifest has expired
		return []string{fmt.Sprintf("environment %.12s → %.12s", last.Before, last.Fingerprint)}
	}
	for _, c := range toolset.Difference(before, now) {
		list = append(list, c.String())
	}
	return list
}
