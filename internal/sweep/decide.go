package sweep

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Inputs are what decides how a recipe's tests go, and when that was.
type Inputs struct {
	Identity
	Fingerprint string    `json:"fingerprint"` // of the environment
	Runner      string    `json:"runner"`      // SHA-256 of the runner's folder
	Time        time.Time `json:"time"`
}

// surroundings are what besides the recipe decides how its tests go.
func (o Options) surroundings() (runner, fingerprint string, err error) {
	file, err := filepath.EvalSymlinks(o.Runner)
	if err == nil {
		runner, err = treeHash(filepath.Dir(file))
	}
	if err != nil {
		return "", "", fmt.Errorf("runner: %w", err)
	}
	data, err := os.ReadFile(o.Manifest)
	if err != nil {
		return "", "", fmt.Errorf("environment: %w", err)
	}
	sum := sha256.Sum256(data)
	return runner, hex.EncodeToString(sum[:]), nil
}

// inputs are all that decides how a recipe's tests go, as of now.
func (s *sweep) inputs(dir string) (Inputs, error) {
	in := Inputs{Time: time.Now().UTC()}
	var err error
	if in.Identity, err = identify(dir); err == nil {
		in.Runner, in.Fingerprint, err = s.surroundings()
	}
	return in, err
}

// changed says why a recipe needs a run, or "".
func (s State) changed(now Inputs) string {
	var parts []string
	was := s.Canonical
	switch {
	case was.Time.IsZero():
		return "never promoted"
	case was.Identity.Revision != now.Identity.Revision:
		parts = append(parts, fmt.Sprintf("revision %.12s, promoted was %.12s", now.Identity.Revision, was.Identity.Revision))
	case was.Identity != now.Identity:
		parts = append(parts, "uncommitted changes")
	}
	if was.Fingerprint != now.Fingerprint {
		parts = append(parts, fmt.Sprintf("environment %.12s, was %.12s", now.Fingerprint, was.Fingerprint))
	}
	if was.Runner != now.Runner {
		parts = append(parts, "another runner")
	}
	return strings.Join(parts, "; ")
}
