package sweep

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// Identity says which recipe it is that would run.
type Identity struct {
	Recipe string `json:"recipe"` // its name
	// Revision is the commit of a recipe that is a git work tree of its own;
	// of a plain folder, "tree-" and the start of Tree.
	Revision string `json:"revision"`
	// Tree is the hash of the folder's content (see treeHash): also what is not
	// committed decides what runs.
	Tree string `json:"tree"`
}

func identify(dir, name string) (Identity, error) {
	tree, err := treeHash(dir)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{name, "tree-" + tree[:12], tree}
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
		if id.Revision = commitOf(dir); id.Revision == "" {
			return id, fmt.Errorf("%s: is a git work tree whose commit cannot be read: commit it, or remove its .git", dir)
		}
	}
	return id, nil
}

// commitOf is the commit of a folder that is a git work tree of its own, or "".
func commitOf(dir string) string {
	git := filepath.Join(dir, ".git")
	info, err := os.Stat(git)
	if err != nil {
		return ""
	}
	// A file says where the repository is (gitrepository-layout(5)). If it does
	// not, record.Revision goes on to a work tree around the folder.
	if !info.IsDir() {
		if data, err := exec.ReadRegular(git, 4<<10); err != nil || !bytes.HasPrefix(data, []byte("gitdir: ")) {
			return ""
		}
	}
	return record.Revision(dir)
}

// surroundings are what besides the recipe decides how its tests go.
func (o Options) surroundings() (in Inputs, err error) {
	file, err := filepath.EvalSymlinks(o.Runner)
	if err == nil {
		in.Runner, err = treeHash(filepath.Dir(file))
	}
	if err != nil {
		return in, fmt.Errorf("runner: %w", err)
	}
	data, err := os.ReadFile(o.Manifest)
	if err != nil {
		return in, fmt.Errorf("environment: %w", err)
	}
	sum := sha256.Sum256(data)
	in.Fingerprint = hex.EncodeToString(sum[:])
	return in, nil
}

// inputs are all that decides how a recipe's tests go, as of now.
func (s *sweep) inputs(name string) (in Inputs, err error) {
	if in, err = s.surroundings(); err != nil {
		return in, err
	}
	in.Site = s.now.Site
	in.Identity, err = identify(filepath.Join(s.Recipes, name), name)
	return in, err
}

// siteHashes are the site's values ("NAME=VALUE") as keyed hashes: the state
// says that one changed, and nobody can read or guess it there without the key.
func siteHashes(key []byte, site []string) map[string]string {
	hashes := map[string]string{}
	for _, kv := range site {
		name, _, _ := strings.Cut(kv, "=")
		h := hmac.New(sha256.New, key)
		h.Write([]byte(kv))
		hashes[name] = hex.EncodeToString(h.Sum(nil))
	}
	return hashes
}

// keyFile is in the sweep's directory. Who may read it runs tests as well.
const keyFile = "key"

// siteKey is the key of the machine, or that of all machines. Without the shared one
// nothing is skipped, as no hash is the same, and what would be run is an ERROR.
func (s *sweep) siteKey() ([]byte, error) {
	if s.Shared == nil || s.DryRun {
		return siteKey(s.State, s.DryRun)
	}
	if s.store.unreachable != nil {
		// The last that was known.
		return siteKey(s.State, true)
	}
	key, err := s.store.memory.Key(sha256.Size)
	if errors.Is(err, memory.ErrUnreachable) {
		s.store.unreachable = err
		return siteKey(s.State, true)
	}
	if err != nil {
		return nil, err
	}
	return key, s.State.PutSynced(state.Sweep, keyFile, key, 0o640)
}

// siteKey reads the key of siteHashes, or makes one. A dry run, which writes
// nothing, has one of its own if there is none.
func siteKey(dir state.Dir, dry bool) ([]byte, error) {
	key, err := dir.Read(state.Sweep, keyFile)
	if err == nil && len(key) == sha256.Size {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !state.Damaged(err) {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	key = make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	if dry {
		return key, nil
	}
	if err := dir.PutSynced(state.Sweep, keyFile, key, 0o640); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return key, nil
}

func sortedNames(maps_ ...map[string]string) []string {
	all := map[string]bool{}
	for _, m := range maps_ {
		for name := range m {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
