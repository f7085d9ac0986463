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

// siteKey is the key of the machine, or that of all machines. While the shared repository
// cannot be reached, it is the one that the machine knew last.
func (s *sweep) siteKey() ([]byte, error) {
	if s.Shared == nil || s.DryRun {
		return s.ownKey(s.DryRun)
	}
	if s.store.unreachable != nil { // the last that was known
		return s.ownKey(true)
	}
	key, err := s.store.memory.Key(sha256.Size)
	if errors.Is(err, memory.ErrUnreachable) {
		s.store.unreachable = err
		return s.ownKey(true)
	}
	if err != nil {
		return nil, err
	}
	return key, s.State.PutSynced(state.Sweep, keyFile, key, 0o640)
}

// ownKey is the key of the machine.
func (s *sweep) ownKey(dry bool) ([]byte, error) {
	key, replaced, err := siteKey(s.State, dry)
	if replaced != nil {
		s.store.notes = append(s.store.notes, fmt.Sprintf("%v. There is a new key, so recipes that the site gives values to are run again", replaced))
	}
	return key, err
}

// siteKey reads the key of siteHashes, or makes one. A dry run, which writes
// nothing, has one of its own if there is none. replaced says what was there that is no
// key.
func siteKey(dir state.Dir, dry bool) (key []byte, replaced, err error) {
	path := dir.Path(state.Sweep, keyFile)
	key, err = dir.Read(state.Sweep, keyFile)
	switch {
	case err == nil && len(key) == sha256.Size:
		return key, nil, nil
	case err == nil:
		replaced = &state.Fault{Path: path, Is: fmt.Sprintf("has %d bytes, and a key has %d", len(key), sha256.Size), Fix: "it is not used"}
	case state.Damaged(err):
		replaced = err
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fmt.Errorf("state directory: %w: chmod 640 %s", err, path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("state directory: %w", err)
	}
	key = make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	if dry {
		return key, replaced, nil
	}
	if err := dir.PutSynced(state.Sweep, keyFile, key, 0o640); err != nil {
		return nil, nil, fmt.Errorf("state directory: %w", err)
	}
	return key, replaced, nil
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
