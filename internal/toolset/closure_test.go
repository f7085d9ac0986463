package toolset

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Debian's fields of dependencies.
func TestPackageNames(t *testing.T) {
	got := packageNames("libc6 (>= 2.36), perl:any, default-mta | mail-transport-agent, , x")
	if want := []string{"libc6", "perl", "default-mta", "mail-transport-agent", "x"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

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
