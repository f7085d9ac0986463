package toolset

import (
	"os"
	"path/filepath"
	"testing"
)

// A sealed run may execute what is listed, and what is below a directory that
// is.
func TestMayExecute(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Closure: []string{store}, Seal: Seal{Execute: []string{dir + "/store/../store"}}}
	m.index()
	for path, want := range map[string]bool{
		filepath.Join(store, "bin/x"): true, store: true,
		dir: false, filepath.Join(dir, "storey"): false, "/": false, "/nonexistent": false,
	} {
		if m.MayExecute(path) != want {
			t.Errorf("%s: %t, want %t", path, !want, want)
		}
	}
}
