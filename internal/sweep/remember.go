package sweep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/plaintext"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// This file has how a sweep remembers: each recipe's state and history are files of the
// newest commit on the recipe's ref (see package memory).

// The files of a commit.
const (
	stateFile   = "state.json"
	historyFile = "runs.json"
	resultFile  = "result.json"
	outputFile  = "output.txt"
)

// Remembered is what is known of one recipe.
type Remembered struct {
	Name  string // of its ref
	State State
	// Err says why State cannot be used: the state is damaged, or a newer cc-ci-run wrote it.
	Err error

	head *memory.Head
}

// Recipe is the recipe's name.
func (r *Remembered) Recipe() string {
	if r.State.Recipe != "" {
		return r.State.Recipe
	}
	if name, err := url.PathUnescape(r.Name); err == nil {
		return name
	}
	return r.Name
}

// Commit is the newest commit of the recipe's ref, "" if not even that is known.
func (r *Remembered) Commit() string {
	if r.head == nil {
		return ""
	}
	return r.head.Commit
}

// Recall reads the states of all recipes, or of those with the names, sorted by the names of their refs.
func Recall(m *memory.Repository, recipes ...string) ([]*Remembered, error) {
	var names []string
	for _, recipe := range recipes {
		names = append(names, memory.Escape(recipe))
	}
	heads, err := m.Heads(names...)
	if err != nil {
		return nil, err
	}
	// The states are parsed while git reads the next ones.
	type unparsed struct {
		*Remembered
		data []byte
	}
	read := make(chan unparsed, 256)
	var parser sync.WaitGroup
	parser.Go(func() {
		for r := range read {
			r.parse(r.data)
		}
	})
	list := make([]*Remembered, 0, len(heads))
	err = m.Contents(heads, stateFile, func(h *memory.Head, data []byte, err error) {
		r := &Remembered{Name: h.Name, Err: err, head: h}
		list = append(list, r)
		if err == nil {
			read <- unparsed{r, data}
		}
	})
	close(read)
	parser.Wait()
	return list, err
}

func (r *Remembered) parse(data []byte) {
	if r.State, r.Err = parseState(r.Name+":"+stateFile, data); r.Err == nil && memory.Escape(r.State.Recipe) != r.Name {
		r.Err = fmt.Errorf("the commit %.12s on its ref is of the recipe %q", r.head.Commit, r.State.Recipe)
		r.State = State{}
	}
}

// Histories visits the history of each recipe, in order. If one cannot be read, the
// error says why.
func Histories(m *memory.Repository, list []*Remembered, visit func(r *Remembered, h History, err error)) error {
	heads := make([]*memory.Head, len(list))
	for i, r := range list {
		heads[i] = r.head
		if r.head == nil {
			heads[i] = &memory.Head{Name: r.Name}
		}
	}
	i := 0
	return m.Contents(heads, historyFile, func(_ *memory.Head, data []byte, err error) {
		var h History
		if err == nil {
			h, err = ParseHistory(list[i].Name+":"+historyFile, data)
		}
		visit(list[i], h, err)
		i++
	})
}

// LogOf is the path of a run's whole log, until the log expires.
func LogOf(dir state.Dir, recipe string, past Past) (string, error) {
	f, err := dir.Open(state.Logs, url.PathEscape(recipe))
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.Owner(past.ID + ".log")
	return f.Path(past.ID + ".log"), err
}

// ParseResult reads a result that the memory has kept.
func ParseResult(id string, data []byte) (*record.Result, error) {
	return record.ParseResult(id+":"+resultFile, data)
}

// store is the sweep's part of the state directory, locked.
type store struct {
	state.Dir
	unlock func()             // nil: it is not locked
	memory *memory.Repository // nil: there is none, in a dry run
	left   []string           // processes of a killed sweep that could not be ended
	notes  []string
	shared *memory.Remote // nil: the memory is this machine's alone
	// unreachable says why the shared memory could not be fetched.
	unreachable error

	lock  sync.Mutex
	known map[string]*Remembered // by the names of refs
}

// recall reads what is remembered, and takes over the state files of an earlier
// cc-ci-run. A dry run only reads.
func (s *store) recall(git string, start memory.Start) (err error) {
	s.known = map[string]*Remembered{}
	if s.unlock == nil {
		s.memory, err = memory.Open(s.Dir, git, start)
	} else {
		s.memory, err = memory.Create(s.Dir, git, start)
	}
	if errors.Is(err, memory.ErrNone) {
		return s.takeOver()
	}
	if err != nil {
		return err
	}
	s.notes = append(s.notes, s.memory.Notes...)
	if s.shared != nil && s.unlock != nil {
		s.memory.Share(*s.shared)
		if err := s.fetch(); errors.Is(err, memory.ErrUnreachable) {
			s.unreachable = err
		} else if err != nil {
			return err
		}
	}
	list, err := Recall(s.memory)
	if err != nil {
		return err
	}
	for _, r := range list {
		s.known[r.Name] = s.checkShared(r)
	}
	return s.takeOver()
}

// fetch takes over what the machines share. A recipe whose memory is damaged here is fetched
// again. Otherwise the recipe's history would begin anew for all machines.
func (s *store) fetch() error {
	list, err := Recall(s.memory)
	if err != nil {
		return err
	}
	var damaged []*memory.Head
	for _, r := range list {
		if r.Err != nil && !state.Newer(r.Err) {
			damaged = append(damaged, r.head)
		}
	}
	if len(damaged) > 0 {
		return s.memory.FetchAnew(damaged)
	}
	return s.memory.Fetch()
}

// checkShared discards what only this machine remembers, because the shared memory counts.
// While the shared memory cannot be reached, this machine's copy is used.
func (s *store) checkShared(r *Remembered) *Remembered {
	if s.shared != nil && s.unlock != nil && s.unreachable == nil && !s.memory.Shared(r.Name) {
		r.Err = errNotShared
	}
	return r
}

var errNotShared = errors.New("the shared repository does not have this recipe")

// refresh fetches and reads a recipe's state in the shared memory.
func (s *store) refresh(recipe string) (State, error) {
	name := memory.Escape(recipe)
	if err := s.memory.Fetch(name); err != nil {
		return State{}, err
	}
	list, err := Recall(s.memory, recipe)
	if err != nil || len(list) == 0 {
		return State{}, errors.Join(err, errNotShared)
	}
	s.lock.Lock()
	s.known[name] = s.checkShared(list[0])
	s.lock.Unlock()
	known, _, err := s.read(recipe)
	return known, err
}

// seen is the newest commit that is known of a recipe's ref in the shared repository.
func (s *store) seen(recipe string) string {
	s.lock.Lock()
	defer s.lock.Unlock()
	r := s.known[memory.Escape(recipe)]
	if r == nil || r.Commit() == "" || errors.Is(r.Err, errNotShared) {
		return NoCommit
	}
	return r.Commit()
}

// takeOver takes over the state files of an earlier cc-ci-run, STATE/sweep/recipes/NAME.json,
// if they are newer than what is remembered, as after a return to an earlier cc-ci-run. What
// this machine remembered alone does not count beside a shared memory.
func (s *store) takeOver() error {
	if s.shared != nil {
		return nil
	}
	f, err := s.Open(state.Recipes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	files, err := f.Names(".json")
	if err != nil {
		return err
	}
	for _, file := range files {
		recipe, err := url.PathUnescape(strings.TrimSuffix(file, ".json"))
		if err != nil {
			continue
		}
		if err := s.takeOverFile(f, file, recipe); err != nil {
			return fmt.Errorf("%s: the state that an earlier cc-ci-run wrote there cannot be taken over: %w", f.Path(file), err)
		}
	}
	return nil
}

func (s *store) takeOverFile(f *state.Folder, file, recipe string) error {
	name := memory.Escape(recipe)
	was := s.known[name]
	old, err := readState(f, file)
	switch {
	case err != nil && was != nil && was.Err == nil: // what is remembered is whole
	case err != nil && (s.unlock == nil || !state.Damaged(err)):
		s.known[name] = &Remembered{Name: name, Err: err}
		return nil
	case err != nil:
		aside, failed := f.SetAside(file)
		s.known[name] = &Remembered{Name: name, Err: fmt.Errorf("%w; the file was moved to %s", err, aside)}
		return failed
	case was != nil && was.Err == nil && !old.Last.Started.After(was.State.Last.Started):
	case was != nil && state.Newer(was.Err): // it stays as it is, and so does the file
		return nil
	default:
		old.Recipe = recipe
		r := &Remembered{Name: name, State: old}
		if was != nil {
			r.head = was.head
		}
		s.known[name] = r
		if s.unlock == nil {
			return nil
		}
		if s.known[name], err = s.commit(recipe, r, commit{next: old, time: time.Now(), message: fmt.Sprintf("%s, as an earlier cc-ci-run remembered it\n\nTaken over from %s", recipe, f.Path(file))}); err != nil {
			return err
		}
	}
	if s.unlock == nil {
		return nil
	}
	return f.Remove(file)
}

// read gives a recipe's state, empty if there is none. A damaged state counts as none,
// because its promotion cannot be trusted. A state of a newer cc-ci-run is an error: it is
// whole, and this cc-ci-run would forget what it says.
func (s *store) read(recipe string) (known State, damaged string, err error) {
	s.lock.Lock()
	r := s.known[memory.Escape(recipe)]
	s.lock.Unlock()
	switch {
	case r == nil:
		return State{Schema: Schema, Recipe: recipe}, "", nil
	case r.Err == nil:
		return r.State, "", nil
	case state.Newer(r.Err), errors.Is(r.Err, fs.ErrPermission):
		return State{}, "", r.Err
	case s.unlock == nil:
		return State{Schema: Schema, Recipe: recipe}, fmt.Sprintf("its state is damaged (%v)", r.Err), nil
	}
	return State{Schema: Schema, Recipe: recipe}, fmt.Sprintf("its state was damaged (%v), so its history begins anew", r.Err), nil
}

// commit is what is to be remembered of one recipe.
type commit struct {
	next    State
	past    *Past // the run, if there was one
	tests   []record.Test
	result  []byte
	output  []byte
	message string
	time    time.Time
	invoker string
	machine string
}

// write remembers a recipe's state, synced: after a crash, either the earlier state or
// this one is there.
func (s *store) write(recipe string, c commit) error {
	s.lock.Lock()
	r := s.known[memory.Escape(recipe)]
	s.lock.Unlock()
	if r == nil {
		r = &Remembered{Name: memory.Escape(recipe)}
	}
	next, err := s.commit(recipe, r, c)
	if err != nil {
		return err
	}
	s.lock.Lock()
	s.known[next.Name] = next
	s.lock.Unlock()
	return nil
}

func (s *store) commit(recipe string, was *Remembered, c commit) (*Remembered, error) {
	e := memory.Entry{Recipe: recipe, Author: c.invoker, Email: c.invoker + "@" + c.machine, Time: c.time, Message: c.message, Files: map[string][]byte{}}
	if c.invoker == "" {
		e.Author, e.Email = "cc-ci-run", "cc-ci-run"
	}
	history := History{Schema: HistorySchema}
	if h := was.head; h != nil {
		e.Old = h.Commit
		switch {
		case h.Commit == "":
			e.Broken = true
		case h.Err == nil && was.Err == nil:
			e.Parent = h.Commit
			var err error
			if hash := h.Hash(historyFile); hash != "" {
				var data []byte
				if data, err = s.memory.Blob(hash); err == nil {
					history, err = ParseHistory(h.Name+":"+historyFile, data)
				}
				if errors.As(err, new(memory.Unread)) {
					return nil, err
				}
				if err != nil { // only the history is damaged: the state decides, and is whole
					history = History{Schema: HistorySchema}
				}
			}
		}
	}
	c.next.Schema, c.next.Recipe = Schema, recipe
	if c.past != nil {
		p := *c.past
		if c.result != nil {
			e.Files[resultFile], p.Result = c.result, memory.HashOf(c.result)
		}
		if c.output != nil {
			e.Files[outputFile], p.Output = c.output, memory.HashOf(c.output)
		}
		history = history.with(p, c.tests)
		c.next.Run = &p
	}
	for name, v := range map[string]any{stateFile: c.next, historyFile: history} {
		data, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		if name == stateFile { // people read it; the history would be too long
			data, _ = json.MarshalIndent(v, "", " ")
		}
		e.Files[name] = append(data, '\n')
	}
	hash, err := s.memory.Commit(e)
	if err != nil {
		return nil, err
	}
	return &Remembered{Name: was.Name, State: c.next, head: memory.NewHead(was.Name, hash, e.Files)}, nil
}

// remember writes down what follows from a verdict without a run. If that cannot be
// written, the verdict is ERROR.
func (s *sweep) remember(j *job) *job {
	if err := s.write(j, nil, nil); err != nil {
		return j.failed("its state was not written: %v", err)
	}
	return j
}

// write writes down what follows from a verdict, and the run. A run that was cut off, or
// that is by hand of a recipe that a timer or Drone sweeps, changes only the history.
func (s *sweep) write(j *job, ran *Inputs, kept *commit) error {
	if s.DryRun {
		return nil
	}
	p := s.policy(j.Recipe)
	next := j.known.after(j.Result, ran, p)
	if j.Verdict != Cut && !j.known.foreign(p) {
		next.Last.Promoted = next.Canonical.Revision
		j.Promoted = next.Canonical.Revision
	} else if ran == nil {
		return nil
	}
	c := commit{}
	if kept != nil {
		c = *kept
	}
	c.next, c.invoker, c.machine, c.time = next, s.Invoker, s.Machine, s.Now()
	if ran != nil {
		run := past(j.Result, *ran, s.Invoker, s.Machine)
		c.past = &run
	}
	c.message = diary(j, c.past)
	if err := s.store.write(j.Recipe, c); err != nil {
		j.Promoted = j.known.Canonical.Revision
		return err
	}
	j.known = next
	return nil
}

// diary is the message of a commit: a line for people who read the log, then details of
// the run.
func diary(j *job, run *Past) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %.12s: %s\n", j.Verdict, j.Revision, plaintext.Printable(j.Why))
	if run == nil {
		return b.String()
	}
	fmt.Fprintf(&b, "\nRun: %s\nRevision: %s\nEnvironment: %s\nTook: %s\n", run.ID, run.Revision, run.Fingerprint, run.Took.Round(time.Millisecond))
	if t := run.Tests; t.Tests > 0 {
		fmt.Fprintf(&b, "Tests: %d passed, %d failed, %d skipped of %d\n", t.Passed, t.Failed, t.Skipped, t.Tests)
	}
	if j.Promoted != "" {
		fmt.Fprintf(&b, "Canonical: %s\n", j.Promoted)
	}
	return b.String()
}
