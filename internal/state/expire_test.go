package state

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var clock = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

// at is a run's name, so many days before the clock.
func at(days float64, invoker string) string {
	return clock.Add(-time.Duration(days*24*float64(time.Hour))).Format("20060102T150405.000000000Z") + "-7-" + invoker
}

// place makes a file of so many bytes.
func place(t *testing.T, path string, size int64) string {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, nil, 0o644)
	}
	if err == nil {
		err = errors.Join(os.Truncate(path, size), os.Chtimes(path, clock, clock))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What is beyond a bound is removed, the oldest first, and nothing else.
func TestExpire(t *testing.T) {
	const mib = 1 << 20
	wide := Bounds{Age: 1e5 * time.Hour, Number: 1e6, MiB: 1e6, Logs: 1e6}
	type file struct {
		name  string // below the state directory
		size  int64
		age   float64 // days since it was written
		goes  bool
		owner int
	}
	for name, row := range map[string]struct {
		change func(b *Bounds)
		keep   string
		files  []file
	}{
		"age": {func(b *Bounds) { b.Age = 30 * 24 * time.Hour }, "", []file{
			{name: "runs/" + at(1, "drone") + ".json"},
			{name: "runs/" + at(29.9, "drone") + ".json"},
			{name: "runs/" + at(30.1, "drone") + ".json", goes: true},
			{name: "results/" + at(31, "drone") + ".json", goes: true},
			{name: "results/" + at(31, "drone") + ".xml", goes: true},
			{name: "results/" + at(1, "drone") + ".json"},
			{name: "audits/" + at(31, "drone") + ".json", goes: true},
			{name: "audits/" + at(1, "drone") + ".json"},
			{name: "sweep/logs/a/20260301T000000.000000000Z.log", goes: true},
			{name: "sweep/logs/a/20260301T000000.000000000Z.json", goes: true},
			{name: "sweep/logs/a/20260430T000000.000000000Z.log"},
			{name: "sweep/recipes/a.json"},
			{name: "sweep/recipes/a.json.20260301T000000.damaged"},
			{name: "manifests/x.json"},
			{name: "sweep/last.json"},
			{name: "sweep/key"},
		}},
		"the last of each invoker, and of each recipe": {func(b *Bounds) { b.Age = 0; b.Number = 1; b.MiB = 0; b.Logs = 1 }, "", []file{
			{name: "runs/" + at(300, "drone") + ".json"},
			{name: "runs/" + at(301, "drone") + ".json", goes: true},
			{name: "runs/" + at(500, "systemd") + ".json", size: 2 * mib},
			{name: "runs/" + at(1, "manual") + ".json"},
			{name: "runs/20200101T000000.000000000Z-1.json"}, // of an earlier version: whose is not known
			{name: "audits/" + at(300, "drone") + ".json"},
			{name: "results/" + at(300, "systemd") + ".json"},
			{name: "results/" + at(300, "systemd") + ".xml"},
			{name: "sweep/logs/a/20200101T000000.000000000Z.log"},
			{name: "sweep/logs/b/20200101T000000.000000000Z.log"},
			{name: "sweep/logs/b/20190101T000000.000000000Z.log", goes: true},
		}},
		"what somebody refers to": {func(b *Bounds) { b.Age = 0 }, "20190101T000000.000000000Z", []file{
			{name: "sweep/logs/b/20200101T000000.000000000Z.log"}, {name: "sweep/logs/b/20190101T000000.000000000Z.log"}, {name: "sweep/logs/b/20190101T000000.000000000Z.json"}, {name: "sweep/logs/b/20180101T000000.000000000Z.log", goes: true},
		}},
		"number": {func(b *Bounds) { b.Number = 2 }, "", []file{
			{name: "runs/" + at(1, "drone") + ".json"},
			{name: "runs/" + at(2, "drone") + ".json"},
			{name: "runs/" + at(3, "drone") + ".json", goes: true},
			{name: "results/" + at(3, "drone") + ".json"},
			{name: "results/" + at(3, "drone") + ".xml"},
			{name: "results/" + at(2, "drone") + ".json"},
		}},
		"logs of a recipe": {func(b *Bounds) { b.Logs = 1 }, "", []file{
			{name: "sweep/logs/a/20260430T000000.000000000Z.log"}, {name: "sweep/logs/a/20260430T000000.000000000Z.json"}, {name: "sweep/logs/a/20260429T000000.000000000Z.log", goes: true}, {name: "sweep/logs/b/20250101T000000.000000000Z.log"},
		}},
		"size": {func(b *Bounds) { b.MiB = 10 }, "", []file{
			{name: "runs/" + at(1, "drone") + ".json", size: 4 * mib}, {name: "audits/" + at(2, "drone") + ".json", size: 4 * mib}, {name: "runs/" + at(3, "drone") + ".json", size: 4 * mib, goes: true}, {name: "runs/" + at(4, "drone") + ".json", size: mib},
		}},
		"one huge file": {func(b *Bounds) { b.MiB = 10 }, "", []file{
			{name: "runs/" + at(1, "drone") + ".json", size: mib}, {name: "runs/" + at(2, "drone") + ".json", size: 1 << 40, goes: true}, {name: "runs/" + at(3, "drone") + ".json", size: mib},
		}},
		"of the future, and no name of ours": {func(b *Bounds) { b.Number = 2 }, "", []file{
			{name: "runs/" + at(-900, "drone") + ".json", goes: true},
			{name: "runs/x.json", goes: true},
			{name: "runs/" + at(1, "drone") + ".json"},
			{name: "runs/" + at(2, "drone") + ".json"},
			{name: "sweep/logs/a/20990101T000000.000000000Z.log"},
			{name: "sweep/logs/a/20260429T000000.000000000Z.log"},
		}},
		"of the future, long ago": {func(b *Bounds) { b.Age = 24 * time.Hour }, "", []file{
			{name: "runs/" + at(-900, "drone") + ".json", age: 2, goes: true},
			{name: "runs/" + at(-901, "drone") + ".json"},
			{name: "runs/x.json", age: 2, goes: true},
			{name: "runs/" + at(0.5, "drone") + ".json", age: 2},
		}},
		"of another user": {func(b *Bounds) { b.Number = 2 }, "", []file{
			{name: "runs/" + at(1, "manual") + ".json", owner: 65534, goes: true}, {name: "runs/" + at(2, "manual") + ".json"}, {name: "runs/" + at(3, "manual") + ".json"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := Dir(t.TempDir())
			bounds := wide
			row.change(&bounds)
			var want []string
			for _, f := range row.files {
				path := place(t, filepath.Join(string(dir), f.name), f.size)
				if f.goes {
					want = append(want, path)
				}
				if f.age != 0 {
					written := clock.Add(-time.Duration(f.age * 24 * float64(time.Hour)))
					if err := os.Chtimes(path, written, written); err != nil {
						t.Fatal(err)
					}
				}
				if f.owner != 0 {
					if os.Geteuid() != 0 {
						t.Skip("needs root, to give a file to another user: run the test as root")
					}
					if err := os.Chown(path, f.owner, f.owner); err != nil {
						t.Fatal(err)
					}
				}
			}
			keep := func(_ Place, _, stem string) bool { return row.keep != "" && stem == row.keep }
			for _, dry := range []bool{true, false} {
				gone, left, err := dir.Expire(bounds, clock, keep, dry)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, e := range gone {
					got = append(got, e.Path)
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("dry %t: %+v, want %q", dry, gone, want)
				}
				if left.Entries == 0 {
					t.Errorf("dry %t: %+v", dry, left)
				}
			}
			for _, f := range row.files {
				if _, err := os.Lstat(filepath.Join(string(dir), f.name)); (err == nil) == f.goes {
					t.Errorf("%s: %v", f.name, err)
				}
			}
			if gone, _, err := dir.Expire(bounds, clock, keep, false); len(gone) > 0 || err != nil {
				t.Errorf("once more: %v, %v", gone, err)
			}
		})
	}
}

// Whatever else is in a place is removed as itself: what a link leads to stays.
func TestExpireOdd(t *testing.T) {
	dir := Dir(t.TempDir())
	outside := t.TempDir()
	precious := place(t, filepath.Join(outside, "20200101T000000.000000000Z.log"), 3)
	const old = "20200101T000000.000000000Z-1-drone.json"
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o666) }
	link := func(to string) func(string) error { return func(path string) error { return os.Symlink(to, path) } }
	odd := map[string]func(string) error{
		"runs/" + old:                         fifo,
		"results/" + old:                      link(precious),
		"audits/" + old:                       func(path string) error { return os.Mkdir(path, 0o755) },
		"sweep/logs/a":                        link(outside),
		"sweep/logs/b":                        fifo,
		"sweep/logs/[c]*/20200101T000000.log": link(outside),
		"runs/." + old + ".1.1":               func(path string) error { place(t, path, 1); return os.Chtimes(path, clock, clock.Add(-48*time.Hour)) },
		"runs/." + old + ".1.2":               func(path string) error { place(t, path, 1); return nil },
		"audits/20200101T000001.json":         func(path string) error { return os.MkdirAll(path+"/full", 0o755) },
		"sweep/recipes/.a.json.1.1":           func(path string) error { place(t, path, 1); return os.Chtimes(path, clock, clock.Add(-48*time.Hour)) },
		"sweep/logs/[c]*/20260430T000000.log": func(path string) error { place(t, path, 1); return nil },
		"runs/" + at(1, "drone") + ".json":    func(path string) error { place(t, path, 1); return nil },
	}
	for name, put := range odd {
		path := filepath.Join(string(dir), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), put(path)); err != nil {
			t.Fatal(err)
		}
	}
	for _, place := range []Place{Results, Audits} { // or the odd one would be the last
		placeLast := dir.Path(place, at(1, "drone")+".json")
		if err := os.WriteFile(placeLast, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gone, _, err := dir.Expire(Bounds{Age: 24 * time.Hour, Number: 100, MiB: 100, Logs: 100}, clock, func(Place, string, string) bool { return false }, false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range gone {
		names = append(names, strings.TrimPrefix(e.Path, string(dir)+"/"))
	}
	slices.Sort(names)
	want := []string{"audits/" + old, "results/" + old, "runs/." + old + ".1.1", "runs/" + old, "sweep/logs/[c]*/20200101T000000.log", "sweep/recipes/.a.json.1.1"}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

// What was set aside, in whatever place, expires, with all that is in it; what a
// link there leads to stays. So does what killed processes left, and what else is
// there stays.
func TestExpireAside(t *testing.T) {
	outside := place(t, filepath.Join(t.TempDir(), "precious"), 3)
	directory := func(path string) error {
		return errors.Join(os.MkdirAll(path+"/a/b/c", 0o755), os.WriteFile(path+"/a/b/f", nil, 0), os.Symlink(filepath.Dir(outside), path+"/a/l"), syscall.Mkfifo(path+"/a/b/c/p", 0))
	}
	deep := func(path string) error {
		err := os.Mkdir(path, 0o755)
		for range 2500 { // a longer path than the kernel takes
			up := filepath.Join(filepath.Dir(path), "up")
			err = errors.Join(err, os.Mkdir(up, 0o755), os.Rename(path, up+"/d"), os.Rename(up, path))
		}
		return err
	}
	closed := func(path string) error {
		return errors.Join(directory(path), os.Chmod(path+"/a", 0), os.Chmod(path, 0))
	}
	for name, row := range map[string]struct {
		suffix string
		put    func(path string) error
	}{
		"a directory that a file took the place of": {".4711.1.aside", directory},
		"an empty one":                       {".4711.1.aside", func(path string) error { return os.Mkdir(path, 0o755) }},
		"a very deep one":                    {".4711.1.aside", deep},
		"one without any right":              {".4711.1.aside", closed},
		"a directory that could not be used": {".20260101T000000.damaged", directory},
		"a file that could not be used":      {".20260101T000000.damaged", func(path string) error { return os.WriteFile(path, []byte("{"), 0o644) }},
		"a link that could not be used":      {".20260101T000000.damaged", func(path string) error { return os.Symlink(outside, path) }},
		"what a killed process wrote":        {".4711.1", func(path string) error { return os.WriteFile(path, []byte("{"), 0o644) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := Dir(t.TempDir())
			var want []string
			for _, rule := range Rules()[1:] {
				if name == "a very deep one" && rule.Place != Running { // one is enough
					continue
				}
				if err := dir.Make(rule.Place); err != nil {
					t.Fatal(err)
				}
				left := "x.json" + row.suffix
				if !strings.HasSuffix(left, damagedSuffix) {
					left = "." + left
				}
				if err := row.put(dir.Path(rule.Place, left)); err != nil {
					t.Fatal(err)
				}
				want = append(want, dir.Path(rule.Place, left))
			}
			stays := []string{
				place(t, dir.Path(Logs, "x.damaged/"+at(1, "drone")+".log"), 1), // a recipe's
				place(t, dir.Path(Recipes, "x.damaged.json"), 1),
				place(t, dir.Path(Manifests, "x.json"), 1),
				place(t, dir.Path(Sweep, "key"), 1),
				place(t, dir.Path(Runs, at(1, "drone")+".json"), 1),
			}
			none := func(Place, string, string) bool { return false }
			bounds := Bounds{Age: 30 * 24 * time.Hour, Number: 1000, MiB: 1000, Logs: 1000}
			now := time.Now()
			if gone, _, err := dir.Expire(bounds, now, none, false); len(gone) > 0 || err != nil {
				t.Errorf("at once: %v, %v", gone, err)
			}
			gone, _, err := dir.Expire(bounds, now.Add(31*24*time.Hour), func(_ Place, _, stem string) bool { return !isLeft(stem) }, false)
			var got []string
			for _, e := range gone {
				got = append(got, e.Path)
			}
			slices.Sort(got)
			slices.Sort(want)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			for _, path := range want {
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %v", path, err)
				}
			}
			for _, path := range append(stays, outside) {
				if _, err := os.Stat(path); err != nil {
					t.Error(err)
				}
			}
			_ = filepath.WalkDir(string(dir), func(path string, _ os.DirEntry, _ error) error {
				if isLeft(filepath.Base(path)) {
					t.Errorf("left: %s", path)
				}
				return nil
			})
		})
	}
}

// Of more files than a listing has, too, the newest stay and the others go.
func TestExpireVeryMany(t *testing.T) {
	if testing.Short() {
		t.Skip("makes very many files; run it without -short")
	}
	dir := Dir(t.TempDir())
	if err := dir.Make(Runs); err != nil {
		t.Fatal(err)
	}
	const many = maxNames + 1000
	first := place(t, dir.Path(Runs, at(0, "drone")+".json"), 1)
	for n := range many {
		if err := os.Link(first, dir.Path(Runs, at(float64(n+1)/1e4, "manual")+".json")); err != nil { // one inode has at most 65,000 names on ext4
			first = place(t, dir.Path(Runs, at(float64(n+1)/1e4, "manual")+".json"), 1)
		}
	}
	gone, left, err := dir.Expire(Bounds{Age: 1e4 * time.Hour, Number: 100, MiB: 1000, Logs: 1}, clock, func(Place, string, string) bool { return false }, false)
	if err != nil || left.Entries != 100 || len(gone) < many-100 {
		t.Errorf("%d removed, %+v, %v", len(gone), left, err)
	}
	if names, err := dir.List(Runs, ".json"); len(names) != 100 || err != nil || !strings.HasPrefix(names[99], "20260501") {
		t.Errorf("%d left, %v", len(names), err)
	}
}
