package sweep

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Schema is the version of the state files' form.
const Schema = 1

// State is what a sweep knows of one recipe: STATE/sweep/recipes/NAME.json.
type State struct {
	Schema    int    `json:"schema"`
	Canonical Inputs `json:"canonical"` // of the last run that passed
	Last      Result `json:"last"`      // of the last run at all
}

// Inputs are what decides how a recipe's tests go, and when that was.
type Inputs struct {
	Identity
	Fingerprint string    `json:"fingerprint"` // of the environment
	Runner      string    `json:"runner"`      // SHA-256 of the runner's folder
	Time        time.Time `json:"time"`
}

// store is the sweep's part of the state directory, locked.
type store struct {
	dir  string
	lock *os.File
}

// openStore locks the directory for this sweep. A dry run writes nothing, so
// it needs no lock and makes no directory.
func openStore(dir string, dry bool) (*store, error) {
	s := &store{dir: dir}
	if dry {
		return s, nil
	}
	for _, sub := range []string{"recipes", "logs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// The kernel gives the lock back when its holder ends, however that is.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder, _ := os.ReadFile(path)
			return nil, fmt.Errorf("another sweep is under way (%s); wait for it, or end it", strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// For people: who has it. Nothing decides by it.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "process %d, since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	s.lock = f
	return s, nil
}

func (s *store) close() {
	if s.lock != nil {
		s.lock.Close()
	}
}

// file is a recipe's state file. A name may hold what a file's may.
func (s *store) file(name string) string {
	return filepath.Join(s.dir, "recipes", url.PathEscape(name)+".json")
}

// read gives a recipe's state, empty if there is none. A damaged file is set
// aside, and counts as none: what it says of a promotion is not trusted.
func (s *store) read(name string) (state State, damaged string) {
	path := s.file(name)
	state, err := parseState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Schema: Schema}, ""
	}
	if err == nil {
		return state, ""
	}
	aside := path + ".damaged"
	if s.lock != nil {
		_ = os.Rename(path, aside)
	}
	return State{Schema: Schema}, fmt.Sprintf("its state was damaged (%v) and is set aside as %s", err, filepath.Base(aside))
}

// write replaces a recipe's state, synced: after a crash it is the earlier
// one or this one.
func (s *store) write(name string, state State) error {
	data, err := json.MarshalIndent(state, "", " ")
	if err != nil {
		return err
	}
	path := s.file(name)
	return renameio.WriteFile(path, append(data, '\n'), 0o644, renameio.WithTempDir(filepath.Dir(path)))
}

// States reads what a sweep last wrote of each recipe, sorted by name, and
// counts the files that can not be read. It is for looking on; a sweep under
// way does not disturb it.
func States(state string) (list []State, damaged int, err error) {
	dir := filepath.Join(state, "sweep", "recipes")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		s, err := parseState(filepath.Join(dir, e.Name()))
		if err != nil {
			damaged++
			continue
		}
		list = append(list, s)
	}
	return list, damaged, nil
}

// parseState reads one state file.
func parseState(path string) (state State, err error) {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err == nil && state.Schema != Schema {
		err = fmt.Errorf("schema %d, this cc-ci-run knows %d", state.Schema, Schema)
	}
	return state, err
}
