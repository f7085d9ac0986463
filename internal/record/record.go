// Package record reads run records and compares them: parity.
//
// A record is written by package launch, one JSON file for each run, just
// before the child takes over the process: so it says what the run was given,
// not how it ended. It is small because it need not repeat what the
// fingerprint names: tools, versions and files are in the manifest, of which
// the state directory keeps one copy for each fingerprint.
//
//	STATE/runs/ID.json             one for each run
//	STATE/manifests/PRINT.json     the manifest with that fingerprint
package record

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/launch"
)

// Read reads one record.
func Read(path string) (*launch.Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// What the record has as pairs is an object to encoding/json: here it is
	// that, and hides the field of the same name.
	var file struct {
		launch.Record
		HostPaths map[string]string `json:"host_paths"`
		Process   struct {
			exec.State
			Limits map[string]string `json:"limits"`
		} `json:"process"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%s: not a run record: %w", path, err)
	}
	r := &file.Record
	r.Process = file.Process.State
	r.HostPaths, r.Process.Limits = pairs(file.HostPaths), pairs(file.Process.Limits)
	if r.Schema > launch.Schema {
		return nil, fmt.Errorf("%s: schema %d is newer than this cc-ci-run knows (%d)", path, r.Schema, launch.Schema)
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
