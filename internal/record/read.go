// Package record has the run records: one JSON file for each run, written just
// before the child takes over the process, and read by whoever compares or
// lists runs.
//
//	r := record.New(plan, environment, …)
//	err := r.Write(dir)                              // STATE/runs/ID.json
//	err = r.Keep(dir)                                // STATE/manifests/FINGERPRINT.json
//	r, passedOver, err := record.Newest(dir, "drone", "gitea")
//
// A record says what a run was given, not how it ended; that is in the run's
// result ([ReadResult]). A record is small because it need not repeat what the
// fingerprint names: tools, versions and files are in the manifest, of which the
// state directory keeps one copy for each fingerprint.
//
// Members of the group may put any file beside the records, so a reader believes
// a record only as far as its file supports it: see [Runs.Newest].
package record

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/state"
)

// Parse reads a record's bytes. path names their file in messages.
func Parse(path string, data []byte) (*Record, error) {
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
		Surroundings *struct {
			exec.Surroundings
			Namespaces map[string]string `json:"namespaces"`
			Cgroup     map[string]string `json:"cgroup_limits"`
			Files      map[string]string `json:"files"`
		} `json:"surroundings"`
	}
	if err := state.Decode(path, data, Schema, &file); err != nil {
		return nil, err
	}
	r := &file.Record
	if r.Schema < 1 {
		return nil, &state.Fault{Path: path, Is: "is not a run record (it has no schema)", Fix: "it is not used; remove it"}
	}
	r.Process = file.Process.State
	r.HostPaths, r.Process.Limits = pairs(file.HostPaths), pairs(file.Process.Limits)
	if s := file.Surroundings; s != nil {
		r.Surroundings = &s.Surroundings
		r.Surroundings.Namespaces, r.Surroundings.Cgroup, r.Surroundings.Files = pairs(s.Namespaces), pairs(s.Cgroup), pairs(s.Files)
	}
	if file.SSHFiles != nil {
		r.SSHFiles = append(exec.Pairs{}, pairs(file.SSHFiles)...)
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

// Runs are the records of a state directory, listed.
type Runs struct {
	folder *state.Folder // nil: there are none
	path   string
	names  []string
	left   int // files that are not in names, see [state.Folder.RunNames]
	now    time.Time
	// invokers are those of names, as far as they are known.
	invokers []string
}

// Open lists the records.
func Open(dir state.Dir) (*Runs, error) {
	runs := &Runs{path: dir.Path(state.Runs, ""), now: time.Now()}
	f, err := dir.Open(state.Runs)
	if errors.Is(err, fs.ErrNotExist) {
		return runs, nil
	}
	if err == nil {
		runs.folder = f
		runs.names, runs.left, err = f.RunNames(".json", runs.now)
		runs.invokers = make([]string, len(runs.names))
		for i, name := range runs.names {
			_, runs.invokers[i] = state.RunOf(name)
		}
	}
	return runs, err
}

// Close closes the directory.
func (runs *Runs) Close() {
	if runs.folder != nil {
		runs.folder.Close()
	}
}

// Without leaves records out.
func (runs *Runs) Without(files []state.Expired) {
	out := map[string]bool{}
	for _, f := range files {
		out[f.Path] = true
	}
	runs.invokers = nil // only the environments of the others are asked for
	runs.names = slices.DeleteFunc(runs.names, func(name string) bool { return out[runs.path+"/"+name] })
}

// Fingerprints are the environments that records of the state directory name.
func (runs *Runs) Fingerprints() map[string]bool {
	all := map[string]bool{}
	buffer := make([]byte, headSize)
	budget := maxRead
	for _, name := range runs.names {
		data, err := runs.folder.Peek(name, buffer)
		_, after, found := bytes.Cut(data, []byte(`"fingerprint":`))
		if err == nil && !found && len(data) == len(buffer) && budget > 0 {
			data, _, _ = runs.folder.Read(name)
			budget -= len(data)
			_, after, _ = bytes.Cut(data, []byte(`"fingerprint":`))
		}
		if parts := bytes.SplitN(after, []byte{'"'}, 3); len(parts) == 3 {
			all[string(parts[1])] = true
		}
	}
	return all
}
