// Package state is the state directory: where run records, manifests, audits
// and the sweep's memory are kept, and how files get there and are read.
//
//	dir := state.Dir("/var/lib/cc-ci-run")
//	err := dir.Put(state.Runs, "ID.json", data)   // whole or not at all
//	names, err := dir.List(state.Runs, ".json")   // sorted
//	data, err := state.Read(dir.Path(state.Runs, "ID.json"))
//
// Each kind of file has a [Place], and this package alone knows where that is,
// what mode its directory has, and how large a file there may be. The NixOS
// module makes the same directories beforehand; a test holds its list against
// [Places].
//
// Every run writes here, so nothing is slow to start: package os is used only
// where it does not set up Go's poller.
package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"cc-ci-run/internal/exec"
)

// Dir is the path of a state directory.
type Dir string

// Place is a kind of files, and the directory of a state directory that they
// are in.
type Place string

// The places. What is in each is documented where it is written.
const (
	Runs      Place = "runs"      // ID.json: run records
	Manifests Place = "manifests" // FINGERPRINT.json: of the environments that the records name
	Results   Place = "results"   // ID.json, ID.xml: the outcome of each test of a run
	Audits    Place = "audits"    // ID.json: what audited runs executed
	Sweep     Place = "sweep"     // the sweep's lock, and the following
	Recipes   Place = "sweep/recipes"
	Logs      Place = "sweep/logs"
	Running   Place = "sweep/running"
)

// Places are all of them, each after the one that it is in.
var Places = []Place{Runs, Manifests, Results, Audits, Sweep, Recipes, Logs, Running}

// maxFile is more than any file here has, in bytes.
const maxFile = 64 << 20

// Path is a file's path, or a place's if name is "".
func (d Dir) Path(p Place, name string) string { return filepath.Join(string(d), string(p), name) }

// Make makes a place, if it is not there. It gets the mode of the state
// directory: where that is writable for a group, so is all below it, and who
// comes first locks nobody out.
func (d Dir) Make(p Place) error {
	path := d.Path(p, "")
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	info, err := os.Stat(string(d))
	if err != nil {
		return err
	}
	if parent := filepath.Dir(string(p)); parent != "." {
		if err := d.Make(Place(parent)); err != nil {
			return err
		}
	}
	switch err := os.Mkdir(path, 0o755); {
	case errors.Is(err, fs.ErrExist): // by another process, just now
		return nil
	case err != nil:
		return err
	}
	if mode := info.Mode() & (fs.ModePerm | fs.ModeSetgid | fs.ModeSticky); mode != 0o755 {
		return os.Chmod(path, mode)
	}
	return nil
}

var puts atomic.Uint64 // in this process

// Put writes a file in one step: a reader sees the earlier one, all of this one,
// or none. It is not synced, as that costs a disk's latency: after a power cut
// the last seconds' files may be missing or empty. See [Dir.PutSynced].
func (d Dir) Put(p Place, name string, data []byte) error {
	// Nobody else's: a process has its number, and a thread its turn.
	hidden := "." + name + "." + strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(puts.Add(1), 10)
	temporary := d.Path(p, hidden)
	err := exec.WriteNew(temporary, data)
	if errors.Is(err, fs.ErrNotExist) { // the first file of all
		if err = d.Make(p); err == nil {
			err = exec.WriteNew(temporary, data)
		}
	}
	if err == nil {
		err = exec.Rename(temporary, d.Path(p, name))
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

// Has says whether there is a file of that name.
func (d Dir) Has(p Place, name string) bool { return exec.Exists(d.Path(p, name)) }

// Read reads a file of a state directory by its path: a regular file, and no more
// of it than any of ours has. It does not wait for the writer of a FIFO.
func Read(path string) ([]byte, error) { return exec.ReadRegular(path, maxFile) }

// List gives the names in a place that end in suffix, sorted; none if the
// place is not there. Hidden files are being written.
func (d Dir) List(p Place, suffix string) ([]string, error) {
	entries, err := os.ReadDir(d.Path(p, ""))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
