package sweep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/state"
)

// Schema is the version of the state files' form.
const Schema = 1

// State is what a sweep knows of one recipe: STATE/sweep/recipes/NAME.json.
type State struct {
	Schema    int    `json:"schema"`
	Canonical Inputs `json:"canonical"` // of the last run that passed
	Last      Result `json:"last"`      // of the last run at all
}

// store is the sweep's part of the state directory, locked.
type store struct {
	state.Dir
	lock *os.File
}

// openStore locks the directory for this sweep. A dry run writes nothing, so
// it needs no lock and makes no directory.
func openStore(dir state.Dir, dry bool) (*store, error) {
	s := &store{Dir: dir}
	if dry {
		return s, nil
	}
	for _, place := range []state.Place{state.Recipes, state.Logs, state.Running} {
		if err := dir.Make(place); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	path := dir.Path(state.Sweep, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// The kernel gives the lock back when its holder ends, however that is.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder, _ := os.ReadFile(path)
			return nil, fmt.Errorf("another sweep is under way (%s); wait for it, or end it", strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// For people: who has it. Nothing decides by it.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "process %d, since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	s.lock = f
	s.tidy()
	return s, nil
}

// tidy removes what a sweep that was killed left of a state file under way,
// and ends what it left running. With the lock, both are nobody's.
func (s *store) tidy() {
	left, _ := filepath.Glob(s.Path(state.Recipes, ".*"))
	for _, path := range left {
		_ = os.Remove(path)
	}
	groups, _ := filepath.Glob(s.Path(state.Running, "*"))
	for _, path := range groups {
		if group, err := strconv.Atoi(filepath.Base(path)); err == nil {
			endGroup(group)
		}
		_ = os.Remove(path)
	}
}

// started notes a process group until it ended; what is returned forgets it.
func (s *store) started(group int) (ended func()) {
	path := s.Path(state.Running, strconv.Itoa(group))
	_ = os.WriteFile(path, nil, 0o644) // without it, a killed sweep's run may go on
	return func() { _ = os.Remove(path) }
}

func (s *store) close() {
	if s.lock != nil {
		s.lock.Close()
	}
}

// file is the name of a recipe's state file. A recipe's name may hold what a
// file's may.
func file(name string) string { return url.PathEscape(name) + ".json" }

// read gives a recipe's state, empty if there is none. A damaged file is set
// aside, and counts as none: what it says of a promotion is not trusted.
// Without a lock (a dry run) it is left where it is.
func (s *store) read(name string) (known State, damaged string, err error) {
	path := s.Path(state.Recipes, file(name))
	known, err = parseState(path)
	var unusable *damagedError
	switch {
	case err == nil:
		return known, "", nil
	case errors.Is(err, fs.ErrNotExist):
		return State{Schema: Schema}, "", nil
	case !errors.As(err, &unusable):
		return State{}, "", err
	}
	if s.lock == nil {
		return State{Schema: Schema}, fmt.Sprintf("its state is damaged (%v)", err), nil
	}
	aside := path + time.Now().UTC().Format(".20060102T150405.damaged")
	if err := os.Rename(path, aside); err != nil {
		return State{}, "", err
	}
	return State{Schema: Schema}, fmt.Sprintf("its state was damaged (%v) and is set aside as %s", err, filepath.Base(aside)), nil
}

// write replaces a recipe's state, synced: after a crash it is the earlier
// one or this one.
func (s *store) write(name string, known State) error {
	data, err := json.MarshalIndent(known, "", " ")
	if err != nil {
		return err
	}
	return s.PutSynced(state.Recipes, file(name), append(data, '\n'))
}

// States reads what a sweep last wrote of each recipe, sorted by name, and
// counts the files that cannot be read. It is for looking on; a sweep under
// way does not disturb it.
func States(dir state.Dir) (list []State, damaged int, err error) {
	names, err := dir.List(state.Recipes, ".json")
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		s, err := parseState(dir.Path(state.Recipes, name))
		if err != nil {
			damaged++
			continue
		}
		list = append(list, s)
	}
	return list, damaged, nil
}

// damagedError is for a state file whose content is not to be trusted.
type damagedError struct{ error }

// parseState reads one state file.
func parseState(path string) (known State, err error) {
	data, err := state.Read(path)
	if err != nil {
		return State{}, err
	}
	if err = json.Unmarshal(data, &known); err == nil {
		switch {
		case known.Schema != Schema:
			err = fmt.Errorf("schema %d, this cc-ci-run knows %d", known.Schema, Schema)
		case known.Last.Verdict == "":
			err = errors.New("it says nothing of a run")
		}
	}
	if err != nil {
		return State{}, &damagedError{err}
	}
	return known, nil
}
