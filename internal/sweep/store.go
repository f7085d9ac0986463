package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec/supervise"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/state"
)

// Schema is the version of the state files' form. Schema 1 had only the inputs
// of the last promoted run; what it promoted stays canonical.
// Schema 2 was the form of single files, without the recipe's name.
const Schema = 3

// lockFile is in the sweep's directory.
const lockFile = "lock"

// openStore locks the state directory for this sweep, and waits for the lock if it is
// told to. A dry run writes nothing, so it needs no lock and makes no directory.
func openStore(ctx context.Context, o Options, start memory.Start) (*store, error) {
	dir := o.State
	s := &store{Dir: dir, shared: o.Shared}
	if o.DryRun {
		return s, s.recall(o.Git, start)
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
	waiting := ctx
	if o.WaitLimit > 0 {
		limited, cancel := context.WithTimeout(ctx, o.WaitLimit)
		defer cancel()
		waiting = limited
	}
	for {
		var held *state.Held
		s.unlock, err = f.Lock(lockFile)
		if err == nil {
			break
		}
		if !errors.As(err, &held) {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		switch {
		case !o.Wait || ctx.Err() != nil:
			return nil, fmt.Errorf("another sweep is under way (%s); wait for it (--wait), or end it", held.By)
		case waiting.Err() != nil:
			return nil, &Unable{fmt.Errorf("another sweep was under way for the %s that this one waited (%s); end it, or wait longer (--wait=TIME)", o.WaitLimit, held.By), true}
		}
		select {
		case <-waiting.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	s.tidy()
	if err := s.recall(o.Git, start); err != nil {
		s.close()
		return nil, fmt.Errorf("the sweep's memory: %w", err)
	}
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
	if s.memory != nil {
		s.memory.Close()
	}
	if s.unlock != nil {
		s.unlock()
	}
}

// putJSON writes a file of the sweep's place.
func putJSON(dir state.Dir, name string, v any, mode uint32) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return dir.PutSynced(state.Sweep, name, append(data, '\n'), mode)
}

// names are those of the recipes of which there is a state.
func (s *store) names() (list []string) {
	for _, r := range s.known {
		list = append(list, r.Recipe())
	}
	slices.Sort(list)
	return list
}

// States reads what sweeps last remembered of each recipe, sorted by name. faults name the
// recipes whose state cannot be used. States only reads, and can be called while a sweep
// runs.
func States(dir state.Dir, git string) (list []State, faults []error, err error) {
	s := &store{Dir: dir}
	if err := s.recall(git, memory.Plain); err != nil {
		return nil, nil, err
	}
	defer s.close()
	s.each(func(r *Remembered) {
		if r.Err == nil {
			list = append(list, r.State)
		} else {
			faults = append(faults, fmt.Errorf("%s: %w", r.Recipe(), r.Err))
		}
	})
	return list, faults, nil
}

// each visits what is remembered of each recipe, by name.
func (s *store) each(visit func(*Remembered)) {
	for _, name := range slices.Sorted(maps.Keys(s.known)) {
		visit(s.known[name])
	}
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
	// Recipes is the directory that was swept, and Fingerprint the environment. Before is
	// the environment of the sweep before, if that was another one.
	Recipes     string `json:"recipes,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Before      string `json:"before,omitempty"`
}

const lastFile = "last.json"

// statusFile is the status after the last sweep, for programs.
const statusFile = "status.json"

// WriteStatus writes a status where programs find it, and gives its path. Whoever may
// read logs may read it: a reason can quote what a test printed.
func WriteStatus(dir state.Dir, s Status) (path string, err error) {
	return dir.Path(state.Sweep, statusFile), putJSON(dir, statusFile, s, logMode)
}

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
	// Of ten thousand, each is whole and of this form: one look is enough.
	if err := json.Unmarshal(data, &known); err == nil && known.Schema == Schema && known.saysSomething() {
		return known, nil
	}
	known = State{}
	var form struct {
		Schema int `json:"schema"`
	}
	if err = state.Decode(path, data, Schema, &form); err != nil {
		return State{}, err
	}
	if form.Schema == 1 {
		return parseSchema1(path, data)
	}
	if err = state.Decode(path, data, Schema, &known); err == nil && (form.Schema < 2 || form.Schema > Schema || !known.saysSomething()) {
		err = saysNothing(path)
	}
	if err != nil {
		return State{}, err
	}
	return known, nil
}

// saysSomething says whether a state is of a recipe that was looked at or run. Of a first
// run that was cut off there is nothing but the run.
func (s State) saysSomething() bool {
	return s.Last.Verdict != "" || !s.Ran.IsZero() || s.Run != nil
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
