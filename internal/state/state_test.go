package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Each place is made with the mode of its rule, as far as the state directory
// is shared, whoever comes first.
func TestMake(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	const group, sticky = os.ModeSetgid, os.ModeSticky
	for top, want := range map[os.FileMode]map[Place]os.FileMode{
		0o755:          {Runs: 0o755, Results: 0o755, Sweep: 0o755, Recipes: 0o755, Logs: 0o750, Running: 0o755},
		0o700:          {Runs: 0o700, Sweep: 0o700, Recipes: 0o700, Logs: 0o700},
		0o755 | group:  {Runs: 0o775 | group | sticky, Manifests: 0o775 | group | sticky, Audits: 0o775 | group | sticky, Sweep: 0o755, Recipes: 0o755, Logs: 0o750 | group},
		0o775 | group:  {Runs: 0o775 | group | sticky, Sweep: 0o755, Recipes: 0o755, Logs: 0o750 | group},
		0o775:          {Runs: 0o775 | sticky, Sweep: 0o755},
		0o750 | group:  {Runs: 0o770 | group | sticky, Sweep: 0o750},
		0o777 | sticky: {Runs: 0o777 | sticky, Results: 0o777 | sticky, Sweep: 0o755, Recipes: 0o755, Logs: 0o750},
	} {
		for place, mode := range want {
			dir := Dir(filepath.Join(t.TempDir(), "state"))
			if err := os.Mkdir(string(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(string(dir), top); errors.Is(err, fs.ErrPermission) {
				t.Logf("mode %v is not allowed here, as in Nix's sandbox", top)
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			for _, how := range []string{"made", "made by an earlier cc-ci-run"} {
				if err := dir.Put(place, "x", []byte("x")); err != nil {
					t.Fatalf("%s: %v", place, err)
				}
				if err := dir.Make(place); err != nil {
					t.Fatalf("%s: %v", place, err)
				}
				info, err := os.Stat(dir.Path(place, ""))
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode() &^ os.ModeDir; got != mode {
					t.Errorf("%s, %s in a state directory of mode %v: %v, want %v", place, how, top, got, mode)
				}
				if err := os.Chmod(dir.Path(place, ""), mode|0o777); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	var all sync.WaitGroup
	dir := Dir(filepath.Join(t.TempDir(), "a", "b"))
	for range 16 {
		all.Go(func() {
			for _, rule := range Rules()[1:] {
				if err := dir.Put(rule.Place, "same", []byte("whole")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// Of more names than a listing has, those of the owner's files whose time has come
// are there, whatever others put beside them.
func TestMost(t *testing.T) {
	dir := Dir(t.TempDir())
	real := map[string]bool{}
	for n := range 10 {
		name := at(float64(n), "drone") + ".json"
		if err := dir.Put(Runs, name, nil); err != nil {
			t.Fatal(err)
		}
		real[name] = true
	}
	f, err := dir.Open(Runs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flood := func(n int, name func(i int) string) (list []string) {
		for i := range n {
			list = append(list, name(i))
		}
		return list
	}
	come := func(i int) string { return at(-1e-6*float64(i), "manual") + ".json" } // nobody's file
	long := strings.Repeat("z", 200)
	for kind, names := range map[string][]string{
		"none":                 nil,
		"yet to come":          flood(200_001, func(i int) string { return fmt.Sprintf("2999%04d", i%10000) + come(i)[8:] }),
		"without a time":       flood(200_001, func(i int) string { return fmt.Sprint("zzz", i, ".json") }),
		"looks like a time":    flood(200_001, func(i int) string { return fmt.Sprintf("99999999T999999.%d-1-drone.json", i) }),
		"long":                 flood(100_000, func(i int) string { return fmt.Sprint(long, i) }),
		"long, has come":       flood(100_000, func(i int) string { return come(i) + long }),
		"has come":             flood(200_001, come),
		"all of these at once": slices.Concat(flood(100_000, come), flood(100_000, func(i int) string { return come(i) + long }), flood(100_000, func(i int) string { return "29990101" + come(i)[8:] })),
	} {
		for name := range real {
			names = append(names, name)
		}
		got, size := f.most(names)
		if len(got) > maxNames || size > maxNameBytes || !slices.IsSorted(got) {
			t.Errorf("%s: %d names, %d bytes", kind, len(got), size)
		}
		found := 0
		for _, name := range got {
			if real[name] {
				found++
			}
		}
		if found != len(real) {
			t.Errorf("%s: only %d of %d are there", kind, found, len(real))
		}
	}
}

// Hidden files are being written; what is there is whole or absent.
func TestPutAndList(t *testing.T) {
	dir := Dir(t.TempDir())
	if names, err := dir.List(Runs, ".json"); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
	for _, name := range []string{"b.json", "a.json", "c.txt", ".d.json"} {
		if err := dir.PutSynced(Runs, name, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names, err := dir.List(Runs, ".json")
	if err != nil || strings.Join(names, " ") != "a.json b.json" {
		t.Errorf("%q, %v", names, err)
	}
	if data, err := dir.Read(Runs, "a.json"); err != nil || string(data) != "a.json" {
		t.Errorf("%q, %v", data, err)
	}
	if err := os.MkdirAll(dir.Path(Runs, "taken/by"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := dir.Put(Runs, "taken", []byte("a file")); err != nil {
		t.Error(err)
	}
	if data, err := dir.Read(Runs, "taken"); err != nil || string(data) != "a file" {
		t.Errorf("in the place of a directory: %q, %v", data, err)
	}
	aside, _ := filepath.Glob(dir.Path(Runs, ".taken.*.aside/by"))
	entries, _ := os.ReadDir(dir.Path(Runs, ""))
	if len(entries) != 6 || len(aside) != 1 {
		t.Errorf("%v: want the directory set aside, and nothing else left of Put", entries)
	}
}
