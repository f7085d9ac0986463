package parity

import (
	"errors"
	"fmt"
	"io/fs"

	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// Kept is the manifest with a fingerprint, from beside the records. If that is the
// present one (nil for none), a copy that is damaged is replaced. A run does not notice
// each damage, because it looks at the copy's size and first byte only.
func Kept(dir state.Dir, fingerprint string, present *toolset.Manifest) (*toolset.Manifest, error) {
	m, err := readKept(dir, fingerprint)
	switch {
	case err == nil:
		return m, nil
	case present != nil && present.Fingerprint() == fingerprint:
		_ = keep(dir, present) // not everybody may; the comparison does not depend on the copy
		return present, nil
	case state.Newer(err):
		return nil, err
	}
	return nil, fmt.Errorf("%w; the next run in that environment keeps it again; if the environment is gone, compare newer runs", err)
}

// CheckKept finds whether the copy of the present manifest is whole, and replaces it
// if it is not.
func CheckKept(dir state.Dir, present *toolset.Manifest) []finding.Finding {
	const what = "kept manifest"
	_, err := readKept(dir, present.Fingerprint())
	switch {
	case errors.Is(err, fs.ErrNotExist): // the next run keeps it
		return nil
	case err == nil:
		return []finding.Finding{{Verdict: finding.OK, What: what, State: fmt.Sprintf("%.12s is whole", present.Fingerprint())}}
	}
	if failed := keep(dir, present); failed != nil {
		return []finding.Finding{{Verdict: finding.Fault, What: what, State: fmt.Sprintf("%v (%v)", err, failed), Fix: "run cc-ci-run check as the owner of the state directory, or as root"}}
	}
	return []finding.Finding{{Verdict: finding.Note, What: what, State: fmt.Sprintf("was replaced: %v", err)}}
}

func keep(dir state.Dir, m *toolset.Manifest) error {
	return dir.PutSynced(state.Manifests, m.Fingerprint()+".json", m.Bytes(), 0o644)
}

func readKept(dir state.Dir, fingerprint string) (*toolset.Manifest, error) {
	path := dir.Path(state.Manifests, fingerprint+".json")
	data, err := dir.Read(state.Manifests, fingerprint+".json")
	if err != nil {
		return nil, err
	}
	if err := state.Decode(path, data, toolset.Schema, &struct{}{}); err != nil {
		return nil, err
	}
	m, err := toolset.ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if m.Fingerprint() != fingerprint {
		return nil, &state.Fault{Path: path, Is: "is another manifest than its name says", Fix: "remove it"}
	}
	return m, nil
}
