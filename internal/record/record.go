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
	"os"

	"cc-ci-run/internal/launch"
)

// Read reads one record.
func Read(path string) (*launch.Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &launch.Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: not a run record: %w", path, err)
	}
	if r.Schema > launch.Schema {
		return nil, fmt.Errorf("%s: schema %d is newer than this cc-ci-run knows (%d)", path, r.Schema, launch.Schema)
	}
	return r, nil
}
