package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

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
	unlock func()   // nil: it is not locked
	left   []string // what a killed sweep left and could not be ended
}

// lockFile is in the sweep's directory.
const lockFile = "lock"

// openStore locks the directory for this sweep, and waits for the lock if it is
// told to. A dry run writes nothing, so it needs no lock and makes no directory.
func openStore(ctx context.Context, dir state.Dir, dry, wait bool) (*store, error) {
	s := &store{Dir: dir}
	if dry {
		return s, nil
	}
	// Root, too: see docs/state.md.
	if err := mayWrite(dir, "sweep", "whose sweep could not replace what this user leaves there"); err != nil {
		return nil, err
	}
	for _, place := range []state.Place{state.Recipes, state.Logs, state.Running} {
		if err := dir.Make(place); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	f, err := dir.Open(state.Sweep)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	defer f.Close()
	for {
		var held *state.Held
		s.unlock, err = f.Lock(lockFile)
		if err == nil {
			break
		}
		if !errors.As(err, &held) {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		if !wait || ctx.Err() != nil {
			return nil, fmt.Errorf("another sweep is under way (%s); wait for it (--wait), or end it", held.By)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	s.tidy()
	return s, nil
}

// mayWrite refuses everybody but the state directory's owner. why says what would
// be wrong with that.
func mayWrite(dir state.Dir, command, why string) error {
	owner, err := dir.Owner()
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if owner == os.Geteuid() {
		return nil
	}
	name := "#" + strconv.Itoa(owner)
	if account, err := user.LookupId(strconv.Itoa(owner)); err == nil {
		name = account.Username
	}
	return fmt.Errorf("%s: belongs to %s, %s: run `sudo -u '%s' cc-ci-run %s …`, or name another directory by --state", dir, name, why, name, command)
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
	return func() { s.forget(name) }
}

func (s *store) forget(name string) {
	if f, err := s.Open(state.Running); err == nil {
		defer f.Close()
		_ = f.Remove(name)
	}
}

// tidy removes what a sweep that was killed left of a state file under way,
// and ends what it left running. With the lock, both are nobody's.
func (s *store) tidy() {
	for _, p := range []state.Place{state.Recipes, state.Running} {
		f, err := s.Open(p)
		if err != nil {
			continue
		}
		_ = f.RemoveUnfinished()
		if p == state.Running {
			s.end(f)
		}
		f.Close()
	}
}

// end ends the runs that are noted.
func (s *store) end(f *state.Folder) {
	names, _ := f.Names("")
	for _, name := range names {
		var r running
		if data, _, err := f.Read(name); err == nil && state.Decode(f.Path(name), data, 0, &r) == nil && r.Result != "" {
			supervise.KillCgroup(r.Cgroup)
			s.left = append(s.left, supervise.Sweep(env.ResultVariable+"="+r.Result)...)
		}
		_ = f.Remove(name)
	}
}

func (s *store) close() {
	if s.unlock != nil {
		s.unlock()
	}
}

// file is the name of a recipe's state file. A recipe's name may hold what a
// file's may.
func file(name string) string { return url.PathEscape(name) + ".json" }

// read gives a recipe's state, empty if there is none. A file that cannot be used
// is set aside, and counts as none: what it says of a promotion is not trusted.
// Without a lock (a dry run) it is left where it is. One of a newer cc-ci-run is
// an error: it is whole, and this one would forget what it says.
func (s *store) read(name string) (known State, damaged string, err error) {
	f, err := s.Open(state.Recipes)
	if err == nil {
		defer f.Close()
		known, err = readState(f, file(name))
	}
	switch {
	case err == nil:
		return known, "", nil
	case errors.Is(err, fs.ErrNotExist):
		return State{Schema: Schema}, "", nil
	case f == nil || !state.Damaged(err):
		return State{}, "", err
	}
	if s.unlock == nil {
		return State{Schema: Schema}, fmt.Sprintf("its state is damaged (%v)", err), nil
	}
	aside, failed := f.SetAside(file(name))
	if failed != nil {
		return State{}, "", failed
	}
	return State{Schema: Schema}, fmt.Sprintf("its state was damaged (%v) and is set aside as %s", err, aside), nil
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
	return s.PutSynced(p, name, append(data, '\n'), 0o644)
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

// maxStates is how much the states of all recipes may have, in bytes: ten
// thousand have a third of it.
const maxStates = 20 << 20

// States reads what a sweep last wrote of each recipe, sorted by name, and says
// which files are of no use. It is for looking on; a sweep under way does not
// disturb it.
func States(dir state.Dir) (list []State, faults []error, err error) {
	err = eachState(dir, func(_ string, s State, fault error) {
		if fault == nil {
			list = append(list, s)
		} else {
			faults = append(faults, fault)
		}
	})
	return list, faults, err
}

// eachState visits the state of each recipe, by the recipe's name as files have it, or
// says why it cannot be used.
func eachState(dir state.Dir, visit func(file string, s State, fault error)) error {
	f, err := dir.Open(state.Recipes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Names(".json")
	size := 0
	for _, name := range names {
		var s State
		var fault error
		if size > maxStates {
			fault = fmt.Errorf("%s: is not read: the states of the recipes before it have more than %d MiB", f.Path(name), maxStates>>20)
		} else {
			var data []byte
			data, _, fault = f.Read(name)
			size += len(data)
			if fault == nil {
				s, fault = parseState(f.Path(name), data)
			}
		}
		visit(strings.TrimSuffix(name, ".json"), s, fault)
	}
	return err
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

// summarySchema is the version of the summary's form.
const summarySchema = 1

// Last reads the summary of the last sweep; nil if there was none.
func Last(dir state.Dir) (*Summary, error) {
	data, err := dir.Read(state.Sweep, lastFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s := &Summary{}
	if err == nil {
		err = state.Decode(dir.Path(state.Sweep, lastFile), data, summarySchema, s)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// readState reads one state file.
func readState(f *state.Folder, name string) (State, error) {
	data, _, err := f.Read(name)
	if err != nil {
		return State{}, err
	}
	return parseState(f.Path(name), data)
}

// parseState reads the bytes of a state file. path names it in messages.
func parseState(path string, data []byte) (known State, err error) {
	var form struct {
		Schema int `json:"schema"`
	}
	if err = state.Decode(path, data, Schema, &form); err != nil {
		return State{}, err
	}
	if form.Schema == 1 {
		return parseSchema1(path, data)
	}
	if err = state.Decode(path, data, Schema, &known); err == nil && (form.Schema != Schema || known.Last.Verdict == "" && known.Ran.IsZero()) {
		err = saysNothing(path)
	}
	if err != nil {
		return State{}, err
	}
	return known, nil
}

func saysNothing(path string) error {
	return &state.Fault{Path: path, Is: "says nothing of a run", Fix: "it is not used; remove it"}
}

// parseSchema1 keeps what an earlier cc-ci-run promoted. Its inputs lack the
// recipe's name, so the recipe is run once more.
func parseSchema1(path string, data []byte) (State, error) {
	var was struct {
		Canonical struct {
			Inputs
			Time time.Time `json:"time"`
		} `json:"canonical"`
		Last Result `json:"last"`
	}
	if err := state.Decode(path, data, Schema, &was); err != nil {
		return State{}, err
	}
	if was.Last.Verdict == "" {
		return State{}, saysNothing(path)
	}
	known := State{Schema: Schema, Last: was.Last, Held: was.Last.Verdict == Hold}
	known.Canonical = Promotion{Inputs: was.Canonical.Inputs, Time: was.Canonical.Time}
	return known, nil
}
