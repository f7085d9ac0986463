package sweep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/toolset"
)

// Identity says which recipe it is that would run.
type Identity struct {
	// Revision is the commit of a recipe that is a git work tree of its own;
	// of a plain folder, "tree-" and the start of Tree.
	Revision string `json:"revision"`
	// Tree is the SHA-256 of the folder's content, in hex: also what is not
	// committed decides what runs.
	Tree string `json:"tree"`
}

func identify(dir string) (Identity, error) {
	tree, err := treeHash(dir)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{"tree-" + tree[:12], tree}
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
		if commit := record.Revision(dir); commit != "" {
			id.Revision = commit
		}
	}
	return id, nil
}

// maxTree bounds what is read of one recipe, in bytes: a folder larger than
// this is a mistake (a volume, a build), and each sweep would read it all.
const maxTree = 256 << 20

// treeHash is that of a folder but for git's own and what Python leaves
// behind, with what its links lead to: a shared conftest.py is part of a test.
func treeHash(root string) (string, error) {
	tree, err := toolset.HashTreeFollowing(root, maxTree, ".git", "__pycache__", ".pytest_cache")
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("it vanished: %w", err)
	}
	return tree, err
}
