package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec/supervise"
	"cc-ci-run/internal/state"
)

// Schema is the version of the state files' form. Schema 1 had only the inputs
// of the last promoted run; what it promoted stays canonical.
const Schema = 2

// store is the sweep's part of the state directory, locked.
type store struct {
	state.Dir
	lock *os.File
	left []string // what a killed sweep left and could not be ended
}

// openStore locks the directory for this sweep, and waits for the lock if it is
// told to. A dry run writes nothing, so it needs no lock and makes no directory.
func openStore(ctx context.Context, dir state.Dir, dry, wait bool) (*store, error) {
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
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if !wait || ctx.Err() != nil {
			defer f.Close()
			holder, _ := os.ReadFile(path)
			return nil, fmt.Errorf("another sweep is under way (%s); wait for it (--wait), or end it", strings.TrimSpace(string(holder)))
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	// Informational: the flock decides.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "process %d, since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	s.lock = f
	s.tidy()
	return s, nil
}

// running is a run under way: STATE/sweep/running/NAME.
type running struct {
	Result string `json:"result"` // the file that only this run was told to write
	Cgroup string `json:"cgroup,omitempty"`
}

// started notes a run until it ended; what is returned forgets it.
func (s *store) started(name string, r running) (ended func()) {
	data, err := json.Marshal(r)
	if err == nil {
		err = s.Put(state.Running, name, data)
	}
	if err != nil { // a full disk: without the note, only its supervisor ends it
		return func() {}
	}
	return func() { _ = os.Remove(s.Path(state.Running, name)) }
}

// tidy removes what a sweep that was killed left of a state file under way,
// and ends what it left running. With the lock, both are nobody's.
func (s *store) tidy() {
	left, _ := filepath.Glob(s.Path(state.Recipes, ".*"))
	for _, path := range left {
		_ = os.Remove(path)
	}
	notes, _ := os.ReadDir(s.Path(state.Running, ""))
	for _, e := range notes {
		path := s.Path(state.Running, e.Name())
		var r running
		if data, err := state.Read(path); err == nil && json.Unmarshal(data, &r) == nil && r.Result != "" {
			supervise.KillCgroup(r.Cgroup)
			s.left = append(s.left, supervise.Sweep(env.ResultVariable+"="+r.Result)...)
		}
		_ = os.Remove(path)
	}
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
// Without a lock (a dry run) it is left where it is. One of a newer cc-ci-run is
// an error: it is whole, and this one would forget what it says.
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
	return s.putJSON(state.Recipes, file(name), known)
}

func (s *store) putJSON(p state.Place, name string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return s.PutSynced(p, name, append(data, '\n'))
}

// names are those of the recipes of which there is a state.
func (s *store) names() (list []string) {
	files, _ := s.List(state.Recipes, ".json")
	for _, f := range files {
		if name, err := url.PathUnescape(strings.TrimSuffix(f, ".json")); err == nil {
			list = append(list, name)
		}
	}
	return list
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

// Summary is a sweep as a whole: STATE/sweep/last.json.
type Summary struct {
	Schema   int             `json:"schema"`
	Invoker  string          `json:"invoker"`
	Started  time.Time       `json:"started"`
	Ended    time.Time       `json:"ended"`  // zero: it is under way, or was killed
	Status   int             `json:"status"` // exit status, once it ended
	Failure  string          `json:"failure,omitempty"`
	Verdicts map[Verdict]int `json:"verdicts"`
}

const lastFile = "last.json"

// Last reads the summary of the last sweep; nil if there was none.
func Last(dir state.Dir) (*Summary, error) {
	data, err := state.Read(dir.Path(state.Sweep, lastFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s := &Summary{}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	return s, err
}

// damagedError is for a state file whose content is not to be trusted.
type damagedError struct{ error }

// parseState reads one state file.
func parseState(path string) (known State, err error) {
	data, err := state.Read(path)
	if err != nil {
		return State{}, err
	}
	var form struct {
		Schema int `json:"schema"`
	}
	if err = json.Unmarshal(data, &form); err == nil {
		switch {
		case form.Schema == 1:
			return parseSchema1(data)
		case form.Schema > Schema:
			return State{}, fmt.Errorf("%s: schema %d is of a newer cc-ci-run (this one knows %d): use that one, or remove the file", path, form.Schema, Schema)
		}
		if err = json.Unmarshal(data, &known); err == nil && (form.Schema != Schema || known.Last.Verdict == "" && known.Ran.IsZero()) {
			err = errors.New("it says nothing of a run")
		}
	}
	if err != nil {
		return State{}, &damagedError{err}
	}
	return known, nil
}

// parseSchema1 keeps what an earlier cc-ci-run promoted. Its inputs lack the
// recipe's name, so the recipe is run once more.
func parseSchema1(data []byte) (State, error) {
	var was struct {
		Canonical struct {
			Inputs
			Time time.Time `json:"time"`
		} `json:"canonical"`
		Last Result `json:"last"`
	}
	err := json.Unmarshal(data, &was)
	if err == nil && was.Last.Verdict == "" {
		err = errors.New("it says nothing of a run")
	}
	if err != nil {
		return State{}, &damagedError{err}
	}
	known := State{Schema: Schema, Last: was.Last, Held: was.Last.Verdict == Hold}
	known.Canonical = Promotion{Inputs: was.Canonical.Inputs, Time: was.Canonical.Time}
	return known, nil
}
