package record

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"cc-ci-run/internal/state"
)

// This file is for who looks at runs by any invoker, the newest first.

// Which says which runs are looked for. What is empty is any.
type Which struct {
	Invoker string
	Recipe  string
	Not     string // a fingerprint that the run's is not
}

// Each visits the newest runs, as far as their records are believed (see
// [Runs.Newest]), until visit says that it has enough. It reads little more than what
// is visited: what a name does not tell is read from the beginning of a file.
func (runs *Runs) Each(which Which, visit func(*Record) (more bool)) (passedOver []error) {
	s := runs.search(which.Invoker, which.Recipe)
	defer func() {
		if s.more > 0 {
			s.faults = append(s.faults, fmt.Errorf("%s: %d more files are not used", runs.path, s.more))
		}
		passedOver = s.faults
	}()
	for to := len(runs.names); to > 0; to -= batch {
		from := max(0, to-batch)
		s.invoker = which.Invoker
		may := s.peek(from, to)
		for i, name := range slices.Backward(runs.names[from:to]) {
			if !may[i] || !plain(name) || which.Not != "" && s.isOf(name, which.Not) {
				continue
			}
			if s.invoker = which.Invoker; s.invoker == "" {
				s.invoker = runs.invokers[from+i]
			}
			r, err := s.read(name)
			if err != nil {
				s.fault(err)
				continue
			}
			if r == nil || r.Fingerprint == which.Not && r.Fingerprint != "" {
				continue
			}
			s.readOf = nil // what was visited is not held
			if !visit(r) {
				return
			}
		}
	}
	return
}

// isOf says whether the beginning of a record tells that it has this fingerprint.
func (s *search) isOf(name, fingerprint string) bool {
	head, err := s.folder.Peek(name, make([]byte, headSize))
	return err == nil && bytes.Contains(head, []byte(`"fingerprint": `+strconv.Quote(fingerprint)))
}

// IDs are the IDs of the records that begin with a text, sorted. That one is listed
// does not say that its record is believed.
func (runs *Runs) IDs(beginning string) (ids []string) {
	from, _ := slices.BinarySearch(runs.names, beginning)
	for _, name := range runs.names[from:] {
		if !strings.HasPrefix(name, beginning) {
			break
		}
		if plain(name) {
			ids = append(ids, strings.TrimSuffix(name, ".json"))
		}
	}
	return ids
}

// plain says whether cc-ci-run could have given a file this name. Others could act on
// the terminal of who lists them.
func plain(name string) bool {
	return strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.%") == ""
}

// After are the IDs of the n oldest records of those that are not older than what a
// text says, sorted: an ID, or a time as IDs begin with.
func (runs *Runs) After(text string, n int) (ids []string) {
	from, _ := slices.BinarySearch(runs.names, text)
	for _, name := range runs.names[from:min(from+n, len(runs.names))] {
		if plain(name) {
			ids = append(ids, strings.TrimSuffix(name, ".json"))
		}
	}
	return ids
}

// Get reads one record, if it is believed.
func (runs *Runs) Get(id string) (*Record, error) {
	i, found := slices.BinarySearch(runs.names, id+".json")
	if !found {
		return nil, &fs.PathError{Op: "read", Path: runs.path + "/" + id + ".json", Err: fs.ErrNotExist}
	}
	s := search{Runs: runs, invoker: runs.invokerOf(i, make([]byte, headSize))}
	r, err := s.read(id + ".json")
	if err == nil && r == nil {
		err = &state.Fault{Path: runs.folder.Path(id + ".json"), Is: "is of another invoker than its name says", Fix: "it is not used; remove it"}
	}
	return r, err
}

// Short is the shortest beginning of an ID that no other record's has, and at least
// the second of its time.
func (runs *Runs) Short(id string) string {
	const second = len("20060102T150405")
	i, found := slices.BinarySearch(runs.names, id+".json")
	if !found || len(id) <= second {
		return id
	}
	n := second
	for _, other := range []int{i - 1, i + 1} {
		if other >= 0 && other < len(runs.names) {
			for n < len(id) && strings.HasPrefix(runs.names[other], id[:n]) {
				n++
			}
		}
	}
	return id[:n]
}
