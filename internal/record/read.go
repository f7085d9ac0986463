// Package record has the run records: one JSON file for each run, written just
// before the child takes over the process, and read by whoever compares or
// lists runs.
//
//	r := record.New(plan, environment, …)
//	err := r.Write(dir)                              // STATE/runs/ID.json
//	err = r.Keep(dir)                                // STATE/manifests/FINGERPRINT.json
//	r, err := record.Newest(dir, "drone", "gitea")
//
// A record says what a run was given, not how it ended; that is in the run's
// result ([ReadResult]). A record is small because it need not repeat what the
// fingerprint names: tools, versions and files are in the manifest, of which the
// state directory keeps one copy for each fingerprint.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/state"
)

// Read reads one record.
func Read(path string) (*Record, error) {
	data, err := state.Read(path)
	if err != nil {
		return nil, err
	}
	r, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Parse reads a record's bytes.
func Parse(data []byte) (*Record, error) {
	// What the record has as pairs is an object to encoding/json: here it is
	// that, and hides the field of the same name.
	var file struct {
		Record
		HostPaths map[string]string `json:"host_paths"`
		SSHFiles  map[string]string `json:"ssh_files"`
		Process   struct {
			exec.State
			Limits map[string]string `json:"limits"`
		} `json:"process"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("not a run record: %w", err)
	}
	r := &file.Record
	r.Process = file.Process.State
	r.HostPaths, r.Process.Limits = pairs(file.HostPaths), pairs(file.Process.Limits)
	if file.SSHFiles != nil {
		r.SSHFiles = append(exec.Pairs{}, pairs(file.SSHFiles)...)
	}
	if r.Schema > Schema {
		return nil, fmt.Errorf("schema %d is newer than this cc-ci-run knows (%d)", r.Schema, Schema)
	}
	return r, nil
}

func pairs(object map[string]string) exec.Pairs {
	var p exec.Pairs
	for _, name := range slices.Sorted(maps.Keys(object)) {
		p = append(p, exec.Pair{Name: name, Value: object[name]})
	}
	return p
}

// ErrNone is for an invoker that left no record.
var ErrNone = errors.New("no record")

// Newest finds the newest record of an invoker; of one recipe (an argument of
// the run) if recipe is not "". Files that are no whole record are passed over.
func Newest(dir state.Dir, invoker, recipe string) (*Record, error) {
	names, err := dir.List(state.Runs, ".json")
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Backward(names) { // names sort by time
		r, err := Read(dir.Path(state.Runs, name))
		if err == nil && r.Invoker.Name == invoker && (recipe == "" || slices.Contains(r.Args, recipe)) {
			return r, nil
		}
	}
	of := ""
	if recipe != "" {
		of = " of " + recipe
	}
	return nil, fmt.Errorf("%w of a run%s by %s in %s: start one", ErrNone, of, invoker, dir.Path(state.Runs, ""))
}
