package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/audit"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

const stranger = 65534 // a user who owns nothing else here

// hostile is what may lie where a file is read, and what a reader says of it.
type hostile struct {
	name, says string
	put        func(path string) error
}

func hostiles(t *testing.T) []hostile {
	text := func(content string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(content), 0o644) }
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(`{"schema": 1}`), 0o644); err != nil {
		t.Fatal(err)
	}
	list := []hostile{
		{"a FIFO", "is a FIFO, not a file: remove it", func(path string) error { return unix.Mkfifo(path, 0o666) }},
		{"a socket", "is a socket, not a file: remove it", func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) }},
		{"a link to an endless file", "is a symbolic link, not a file: remove it", func(path string) error { return os.Symlink("/dev/zero", path) }},
		{"a link to a file of /proc", "is a symbolic link, not a file: remove it", func(path string) error { return os.Symlink("/proc/kmsg", path) }},
		{"a link to a file", "is a symbolic link, not a file: remove it", func(path string) error { return os.Symlink(outside, path) }},
		{"a link to nothing", "is a symbolic link, not a file: remove it", func(path string) error { return os.Symlink("/nonexistent", path) }},
		{"a directory", "is a directory, not a file: remove it", func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o755) }},
		{"a huge file", "KiB, as no file of cc-ci-run is", func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40)) }},
		{"an empty file", "is damaged (unexpected end of JSON input)", text("")},
		{"a truncated file", "is damaged (unexpected end of JSON input)", text(`{"schema": 1, "id": "2026`)},
		{"zeros", "is damaged (invalid character", text(strings.Repeat("\x00", 4096))},
		{"another form", "is damaged (json: cannot unmarshal", text(`[1, 2]`)},
		{"very many values", "has more than 150000 values", text(`{"x": [` + strings.Repeat("{},", 200_000) + `{}]}`)},
		{"a newer schema", "was written by a newer cc-ci-run (schema 99", text(`{"schema": 99, "id": {}, "last": 7}`)},
	}
	if os.Geteuid() == 0 {
		list = append(
			list,
			hostile{"a device", "is a device, not a file: remove it", func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }},
			hostile{"another user's file", "belongs to user 65534, and the state directory to user 0", func(path string) error {
				return errors.Join(os.WriteFile(path, []byte(`{"schema": 1, "invoker": {"name": "drone"}}`), 0o644), os.Chown(path, stranger, stranger))
			}},
		)
	}
	return append(list, hostile{"a file that may not be read", "permission denied", func(path string) error {
		return os.WriteFile(path, []byte(`{"schema": 1}`), 0)
	}})
}

// reader reads a place in the way that a command does.
type reader struct {
	name  string
	place state.Place
	file  string
	read  func(dir state.Dir) []error // what it says
	// except are the kinds of which it says something else, "" for nothing.
	except map[string]string
}

func readers() []reader {
	anyInvoker := func(dir state.Dir, invoker string) []error {
		r, passedOver, err := record.Newest(dir, invoker, "")
		if r != nil {
			err = errors.Join(err, fmt.Errorf("believed %+v", r))
		}
		return append(passedOver, err)
	}
	const id = "20260102T030405.000000000Z-1-"
	fine := map[string]string{"an empty file": "", "a truncated file": "", "zeros": "", "another form": "", "very many values": "", "a newer schema": ""}
	return []reader{
		{"record of drone", state.Runs, id + "drone.json", func(dir state.Dir) []error { return anyInvoker(dir, "drone") }, nil},
		{"record of an earlier version", state.Runs, "20260102T030405.000000000Z-1.json", func(dir state.Dir) []error { return anyInvoker(dir, "drone") }, nil},
		{"record of a person", state.Runs, id + "manual.json", func(dir state.Dir) []error { return anyInvoker(dir, "manual") }, map[string]string{"another user's file": ""}},
		{"record of another name", state.Runs, "x.json", func(dir state.Dir) []error { return anyInvoker(dir, "systemd") }, map[string]string{"another user's file": ""}},
		{"manifest", state.Manifests, "f.json", func(dir state.Dir) []error { _, err := parity.Kept(dir, "f", nil); return []error{err} }, map[string]string{"another user's file": "f.json: "}},
		{"audit", state.Audits, id + "drone.json", func(dir state.Dir) []error {
			_, skipped, err := audit.Newest(dir, "", 0)
			return append(skipped, err)
		}, nil},
		{"recipe", state.Recipes, "r.json", func(dir state.Dir) []error { _, faults, err := States(dir, git); return append(faults, err) }, nil},
		{"summary", state.Sweep, lastFile, func(dir state.Dir) []error { _, err := Last(dir); return []error{err} }, nil},
		{"result", state.Logs, "t.json", func(dir state.Dir) []error {
			f, err := dir.Open(state.Logs)
			if err != nil {
				return []error{err}
			}
			defer f.Close()
			_, err = record.ReadResult(f, "t.json")
			return []error{err}
		}, nil},
		{"result to mask", state.Logs, "t.json", func(dir state.Dir) []error {
			f, err := dir.Open(state.Logs)
			if err != nil {
				return []error{err}
			}
			defer f.Close()
			return []error{newMasker([]string{"A=secret"}).json(f, "t.json")}
		}, nil},
		// What is of no use is made anew.
		{"key", state.Sweep, keyFile, func(dir state.Dir) []error { _, _, err := siteKey(dir, true); return []error{err} }, map[string]string{
			"a FIFO": "", "a socket": "", "a device": "", "a directory": "", "a huge file": "", "a link to an endless file": "", "a link to a file of /proc": "", "a link to a file": "", "a link to nothing": "", "another user's file": "",
			"an empty file": "", "a truncated file": "", "zeros": "", "another form": "", "very many values": "", "a newer schema": "",
		}},
		{"note of a run", state.Running, "n", func(dir state.Dir) []error {
			s, err := openStore(context.Background(), Options{State: dir, Git: git}, memory.Plain)
			if err != nil {
				return []error{err}
			}
			s.close()
			if _, err := os.Lstat(dir.Path(state.Running, "n")); err == nil && !isFull(dir) {
				return []error{errors.New("it is still there")}
			}
			return nil
		}, with(fine, map[string]string{"a FIFO": "", "a socket": "", "a device": "", "a directory": "", "a huge file": "", "a link to an endless file": "", "a link to a file of /proc": "", "a link to a file": "", "a link to nothing": "", "another user's file": ""})},
	}
}

func isFull(dir state.Dir) bool {
	info, err := os.Lstat(dir.Path(state.Running, "n"))
	return err == nil && info.IsDir()
}

func with(a, b map[string]string) map[string]string {
	for k, v := range a {
		b[k] = v
	}
	return b
}

// Whatever lies where a file is read: the reader says what it is, and neither
// waits nor reads it all.
func TestHostileFiles(t *testing.T) {
	for _, kind := range hostiles(t) {
		for _, r := range readers() {
			t.Run(r.name+"/"+kind.name, func(t *testing.T) {
				dir := state.Dir(t.TempDir())
				if err := dir.Make(r.place); err != nil {
					t.Fatal(err)
				}
				path := dir.Path(r.place, r.file)
				if err := kind.put(path); err != nil {
					t.Fatal(err)
				}
				want := kind.says
				if says, ok := r.except[kind.name]; ok {
					want = says
				}
				if kind.name == "a file that may not be read" {
					if r.place == state.Running {
						return // no row: only the owner, who may read them, reads the notes of running tests
					}
					asStranger(t, string(dir))
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				said := errors.Join(r.read(dir)...)
				runtime.ReadMemStats(&after)
				switch {
				case want == "" && said != nil && !errors.Is(said, record.ErrNone):
					t.Errorf("says %v", said)
				case want != "" && (said == nil || !strings.Contains(said.Error(), want) || !strings.Contains(said.Error(), path)):
					t.Errorf("says %v, want %s", said, want)
				}
				if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 100 {
					t.Errorf("%d MiB of memory", used)
				}
			})
		}
	}
}

// asStranger lets this thread open what a user without any right may: root's
// right to all files goes with the user by whom the kernel judges.
func asStranger(t *testing.T, dir string) {
	if os.Geteuid() != 0 {
		return
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o055 != 0o055 {
			if err := os.Chmod(dir, info.Mode()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	}
	runtime.LockOSThread()
	_ = unix.Setfsuid(stranger)
	t.Cleanup(func() {
		_ = unix.Setfsuid(0)
		runtime.UnlockOSThread()
	})
}

// Whatever lies where a place is: all readers say so, and the sweep does not
// start.
func TestHostilePlaces(t *testing.T) {
	for _, kind := range hostiles(t) {
		switch kind.name {
		case "a directory", "a newer schema", "a file that may not be read", "another user's file":
			continue
		}
		for _, r := range readers() {
			if r.name == "key" { // a new one is of use all the same
				continue
			}
			dir := state.Dir(t.TempDir())
			if err := os.MkdirAll(filepath.Dir(dir.Path(r.place, "")), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := kind.put(dir.Path(r.place, "")); err != nil {
				t.Fatal(err)
			}
			said := errors.Join(r.read(dir)...)
			if said == nil || !strings.Contains(said.Error(), dir.Path(r.place, "")+": is ") || !strings.Contains(said.Error(), ", not a directory: remove it") {
				t.Errorf("%s is %s: %v", r.place, kind.name, said)
			}
		}
	}
}

// The sweep itself: what cannot be used is set aside, and the recipe is run.
func TestHostileSweep(t *testing.T) {
	for _, kind := range hostiles(t) {
		if kind.name == "a file that may not be read" { // see TestUnreadableFilesOfSweep
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			b := newBench(t)
			b.recipe("a", "exit 0")
			b.Site, b.Removed = []string{"TOKEN=secret"}, true
			for _, place := range []state.Place{state.Recipes, state.Logs} {
				if err := b.State.Make(place); err != nil {
					t.Fatal(err)
				}
			}
			want := "a PROMOTE"
			if kind.name == "a newer schema" {
				want = "a ERROR"
			}
			for _, path := range []string{b.State.Path(state.Recipes, "a.json"), b.State.Path(state.Logs, "a"), b.State.Path(state.Sweep, lockFile), b.State.Path(state.Sweep, lastFile), b.State.Path(state.Sweep, keyFile)} {
				if err := kind.put(path); err != nil {
					t.Fatal(err)
				}
			}
			var notes []string
			results, err := Run(context.Background(), b.Options, func(e Event) { notes = append(notes, e.Note) })
			if got := verdicts(results); err != nil || len(got) != 1 || got[0] != want {
				t.Fatalf("a state directory with %s: %q, %v, want %s", kind.name, got, err, want)
			}
			if said := strings.Join(notes, "\n"); !strings.Contains(said, b.State.Path(state.Sweep, keyFile)+": ") || !strings.Contains(said, "There is a new key, so recipes that the site gives values to are run again") {
				t.Errorf("says nothing of the key: %q", said)
			}
			// What was in the way is replaced, and of use from now on.
			if _, replaced, err := siteKey(b.State, true); replaced != nil || err != nil {
				t.Errorf("key: %v, %v", replaced, err)
			}
			if last, err := Last(b.State); err != nil || last == nil || last.Ended.IsZero() {
				t.Errorf("last: %+v, %v", last, err)
			}
			if info, err := os.Lstat(b.State.Path(state.Sweep, lockFile)); err != nil || info.Mode() != 0o600 {
				t.Errorf("lock: %v, %v", info, err)
			}
			if outside, err := os.ReadFile(b.Runner); err != nil || string(outside) != "runner" {
				t.Error("a file outside was changed")
			}
		})
	}
}

// Only the owner of the lock's directory can hold it, and only a process that is
// alive is named.
func TestLock(t *testing.T) {
	dir := state.Dir(t.TempDir())
	if err := dir.Make(state.Sweep); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	for name, put := range map[string]func(path string) error{
		"none": func(string) error { return nil },
		"a link": func(path string) error {
			return errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, path))
		},
		"of an earlier version": func(path string) error { return os.WriteFile(path, []byte("process 1, since 2020\n"), 0o644) },
		"of an earlier version, locked by who has ended": func(path string) error {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			// flock(1) locks the file that its parent has open, and ends.
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			t.Cleanup(func() { f.Close() })
			cmd := exec.Command("flock", "3")
			cmd.ExtraFiles = []*os.File{f}
			return cmd.Run()
		},
		"another user's": func(path string) error {
			if os.Geteuid() != 0 {
				return nil
			}
			return errors.Join(os.WriteFile(path, nil, 0o666), os.Chown(path, stranger, stranger))
		},
	} {
		path := dir.Path(state.Sweep, lockFile)
		_ = os.Remove(path)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		s, err := openStore(context.Background(), Options{State: dir, Git: git}, memory.Plain)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v: others can open it", name, info, err)
		}
		if _, err := openStore(context.Background(), Options{State: dir, Git: git}, memory.Plain); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another sweep is under way (process %d, since 20", os.Getpid())) {
			t.Errorf("%s: %v", name, err)
		}
		s.close()
	}
	if data, _ := os.ReadFile(victim); string(data) != "precious" {
		t.Errorf("what a link led to became %q", data)
	}
}

// A sweep in another user's state directory is refused, root's too, with the
// command to use; nothing is left there.
func TestForeignStateDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a directory to another user needs root")
	}
	b := newBench(t)
	b.recipe("a", "exit 0")
	if err := errorsOf(os.MkdirAll(string(b.State), 0o777), os.Chown(string(b.State), stranger, stranger)); err != nil {
		t.Fatal(err)
	}
	_, err := Run(context.Background(), b.Options, func(Event) {})
	if err == nil || !strings.Contains(err.Error(), "run `sudo -u 'nobody' cc-ci-run sweep …`") {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(string(b.State)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// Root's runs by hand are recorded there, and leave places of the owner's.
	if err := b.State.Put(state.Results, "x", nil); err != nil {
		t.Fatal(err)
	}
	var s unix.Stat_t
	if err := unix.Stat(b.State.Path(state.Results, ""), &s); err != nil || s.Uid != stranger || s.Gid != stranger {
		t.Errorf("results belongs to %d:%d, %v", s.Uid, s.Gid, err)
	}
}

// hostileRecipes are folders of recipes, each with what a sweep says of it.
func hostileRecipes(t *testing.T) (list []hostile) {
	elsewhere := t.TempDir()
	add := func(name, says string, put func(dir string) error) { list = append(list, hostile{name, says, put}) }
	in := func(path string, put func(path string) error) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, path)
			return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), put(path))
		}
	}
	link := func(target string) func(string) error {
		return func(path string) error { return os.Symlink(target, path) }
	}
	sparse := func(size int64) func(string) error {
		return func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, size)) }
	}
	fifo := func(path string) error { return unix.Mkfifo(path, 0o644) }
	socket := func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o644, 0) }
	file := func(path string) error { return os.WriteFile(path, []byte("x"), 0o644) }

	for name, target := range map[string]string{
		"a link to procfs": "/proc", "a link to a process": "/proc/1", "a link to a file of procfs": "/proc/kmsg", "a link to mountinfo": "/proc/thread-self/mountinfo",
		"a link to sysfs": "/sys/kernel", "a link to cgroups": "/sys/fs/cgroup",
	} {
		says := "is made up by the kernel (as /proc is): tests cannot be made of it"
		if _, err := os.Stat(target); err != nil {
			continue
		}
		add(name, says, in("x", link(target)))
	}
	add("a link to its own process", "leads to an open file or a directory of a process", in("x", link("/proc/self/cwd")))
	add("a link to a terminal", "/dev/tty: is a device, not a file", in("x", link("/dev/tty")))
	add("a link to an endless file", "/dev/zero: is a device, not a file", in("deep/er/x", link("/dev/zero")))
	add("a link to random bytes", "/dev/urandom: is a device, not a file", in("x", link("/dev/urandom")))
	add("a link to all devices", "tests cannot be made of it", in("x", link("/dev")))
	add("a FIFO", "x: is a FIFO, not a file or a folder: tests cannot be made of it", in("x", fifo))
	add("a FIFO with a name of two lines", "x <3>other: PROMOTE: is a FIFO", in("x\n<3>other: PROMOTE", fifo))
	add("a FIFO elsewhere", "elsewhere-fifo: is a FIFO, not a file", func(dir string) error {
		path := filepath.Join(elsewhere, "elsewhere-fifo")
		return errors.Join(unix.Mkfifo(path, 0o644), os.Symlink(path, filepath.Join(dir, "x")))
	})
	add("a FIFO as git's", "HEAD: is a FIFO, not a file", in(".git/HEAD", fifo))
	add("a FIFO as git's folder", ".git: is a FIFO, not a file", in(".git", fifo))
	add("a FIFO as git's pack", "pack-x.pack: is a FIFO, not a file", in(".git/objects/pack/pack-x.pack", fifo))
	add("a FIFO as Python's", "m.cpython-311.pyc: is a FIFO, not a file", in("__pycache__/m.cpython-311.pyc", fifo))
	add("a socket", "x: is a socket, not a file or a folder: tests cannot be made of it", in("x", socket))
	add("a link to an endless file as git's", "/dev/zero: is a device", in(".git/HEAD", link("/dev/zero")))
	add("a sparse file of 10 GB", "holds more than 256 MiB", in("x", sparse(10<<30)))
	add("a sparse file of 8 TB", "holds more than 256 MiB", in("x", sparse(8<<40)))
	add("a sparse file as git's log", "holds more than 256 MiB", in(".git/logs/HEAD", sparse(10<<30)))
	add("many sparse files", "holds more than 256 MiB", func(dir string) (err error) {
		for n := range 300 {
			err = errors.Join(err, sparse(1<<20)(filepath.Join(dir, strconv.Itoa(n))))
		}
		return err
	})
	add("very deep folders", "has folders so deep in folders that no program can open them", func(dir string) (err error) {
		deep := filepath.Join(dir, "d")
		err = os.Mkdir(deep, 0o755)
		for range 2500 {
			up := filepath.Join(dir, "up")
			err = errors.Join(err, os.Mkdir(up, 0o755), os.Rename(deep, filepath.Join(up, "d")), os.Rename(up, deep))
		}
		return err
	})
	add("deep folders", "", func(dir string) error { return os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", 1000)), 0o755) })
	add("a git folder without a commit", "is a git work tree whose commit cannot be read", in(".git/x", file))
	add("a git file that leads nowhere", "is a git work tree whose commit cannot be read", in(".git", func(path string) error { return os.WriteFile(path, []byte("gitdir: /nowhere\n"), 0o644) }))

	add("a link to nothing", "", in("x", link("/nonexistent")))
	add("links in a circle", "", func(dir string) error {
		return errors.Join(os.Symlink("b", filepath.Join(dir, "a")), os.Symlink("a", filepath.Join(dir, "b")), os.Symlink(".", filepath.Join(dir, "d")))
	})
	add("a link of many links", "", func(dir string) (err error) {
		for n := range 60 { // more than the kernel follows
			err = errors.Join(err, os.Symlink(strconv.Itoa(n+1), filepath.Join(dir, strconv.Itoa(n))))
		}
		return err
	})
	for name, odd := range map[string]string{
		"a newline": "a\nb", "a leading dash": "-x", "like an option": "--help", "percent": "%41%2F..%00", "an emoji": "\U0001f600", "no UTF-8": "\xff\xfe", "nearly ..": "...", "blanks": " x ", "a tab": "\t", "quotes": `'"`, "a pattern": "*[a]?",
		"255 bytes": strings.Repeat("x", 255), "255 bytes of no UTF-8": strings.Repeat("\xff", 255), "an escape sequence": "\x1b[2J", "a backslash": `\`, "another direction": "\u202etxt", "variables": "$(touch x)`touch x`;",
	} {
		add("a file named with "+name, "", in(odd, file))
		add("a folder named with "+name, "", in(odd+"/"+odd, file))
		add("a link to a name with "+name, "", in("x", link(odd)))
	}
	return list
}

// Whatever is in a recipe's folder: the recipe has a verdict, which says what is
// wrong, and the others are run.
func TestHostileRecipes(t *testing.T) {
	b := newBench(t)
	b.recipe("fine", "exit 0")
	says := map[string]string{"fine": ""}
	for _, kind := range hostileRecipes(t) {
		b.recipe(kind.name, "exit 0")
		if err := kind.put(filepath.Join(b.Recipes, kind.name)); err != nil {
			t.Fatalf("%s: %v", kind.name, err)
		}
		says[kind.name] = kind.says
	}
	b.Jobs = 2
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	results, err := Run(context.Background(), b.Options, func(Event) {})
	runtime.ReadMemStats(&after)
	if err != nil || len(results) != len(says) {
		t.Fatalf("%d results of %d, %v", len(results), len(says), err)
	}
	for _, r := range results {
		switch want := says[r.Recipe]; {
		case want == "" && r.Verdict != Promote:
			t.Errorf("%s: %s: %.300s", r.Recipe, r.Verdict, r.Why)
		case want != "" && (r.Verdict != Error || !strings.Contains(r.Why, want)):
			t.Errorf("%s: %s: %.300s, want %s", r.Recipe, r.Verdict, r.Why, want)
		}
		if strings.Contains(r.Why, "\n") || len(r.Why) > 5000 {
			t.Errorf("%s: says too much: %.300q", r.Recipe, r.Why)
		}
	}
	if used := (after.Sys - before.Sys) >> 20; used > 100 {
		t.Errorf("%d MiB of memory", used)
	}
}

// The name of a recipe's folder is a file's name, a word for the runner and a word of
// the report: what cannot be all three is an ERROR, and hidden folders are none.
func TestHostileNames(t *testing.T) {
	const cannot, option, long = "its name cannot be printed", "the runner would take its name for an option", "its name is too long"
	b := newBench(t)
	says := map[string]string{
		"a\nb": cannot, "\t": cannot, "\x1b[2J": cannot, "\xff\xfe": cannot, "\u202etxt": cannot, "\u200b": cannot, strings.Repeat("\xff", 255): cannot,
		"-x": option, "--": option, "--help": option,
		strings.Repeat("x", 255): long, strings.Repeat("\U0001f600", 60): long, strings.Repeat("%", 100): long,
		strings.Repeat("x", 230): "", strings.Repeat("\U0001f600", 19): "",
		"%41%2F..%00": "", "\U0001f600": "", "a b": "", "'": "", "*[a]?": "", "$(touch x)": "", "a.json": "", "a.lock": "", "x.20260101T000000.damaged": "", "gite\u0301a": "", "lock": "", "~": "", "@{-1}": "",
	}
	for name := range says {
		b.recipe(name, "exit 0")
	}
	for _, hidden := range []string{"...", "..x", ".x", "__x"} {
		b.recipe(hidden, "exit 1")
	}
	results, err := Run(context.Background(), b.Options, func(Event) {})
	if err != nil || len(results) != len(says) {
		t.Fatalf("%d results of %d, %v", len(results), len(says), err)
	}
	for _, r := range results {
		name := r.Recipe
		if unquoted, err := strconv.Unquote(name); err == nil && says[name] == "" && says[unquoted] != "" {
			name = unquoted
		}
		want, known := says[name]
		switch {
		case !known:
			t.Errorf("%q: %s: %s", r.Recipe, r.Verdict, r.Why)
		case want == "" && r.Verdict != Promote:
			t.Errorf("%q: %s: %.300s", r.Recipe, r.Verdict, r.Why)
		case want != "" && (r.Verdict != Error || !strings.Contains(r.Why, want)):
			t.Errorf("%q: %s: %.300s, want %s", r.Recipe, r.Verdict, r.Why, want)
		}
	}
	// In the morning, too, they are errors and not what waits for its first run.
	m, err := memory.Open(b.State, git, memory.Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	list, err := Recall(m)
	folders, err2 := Folders(b.Recipes)
	status := StatusOf(list, nil, folders, nil)
	if err := errors.Join(err, err2); err != nil || status.Totals[NeverRun] != 0 || status.Totals[StillFailing] == 0 {
		t.Errorf("%s, %v", status.Headline, err)
	}
}

// What the sweep's user may not read is an error that says so.
func TestUnreadableRecipe(t *testing.T) {
	for name, row := range map[string]struct {
		path string
		mode os.FileMode
	}{
		"a file": {"f", 0}, "a folder": {"d", 0}, "a folder whose names alone can be read": {"d", 0o644}, "a folder that can only be entered": {"d", 0o311}, "the recipe": {".", 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := plant(t, "f=1", "d/g=1")
			path := filepath.Join(root, row.path)
			if err := os.Chmod(path, row.mode); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(path, 0o755) })
			asStranger(t, filepath.Dir(root))
			if _, err := treeHash(root); err == nil || !strings.Contains(err.Error(), "permission denied: the tests have the same user: let user ") {
				t.Errorf("%v", err)
			}
		})
	}
}

// Whatever lies where a sweep.toml is: an error at once, without a wait.
func TestHostileConfig(t *testing.T) {
	for _, kind := range hostiles(t) {
		want := ": is not a file: remove it"
		switch kind.name {
		case "a huge file":
			want = ": is larger than 1024 KiB, as no sweep.toml is"
		case "a link to a file of /proc": // there is nothing to read just now, or it may not be
			want = ": "
		case "an empty file", "a truncated file", "zeros", "another form", "very many values", "a newer schema", "another user's file", "a file that may not be read", "a link to a file", "a link to nothing":
			continue // TOML's reader says what is wrong, or the kernel
		}
		path := filepath.Join(t.TempDir(), ConfigName)
		if err := kind.put(path); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadConfig(path, filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), path+want) {
			t.Errorf("%s: %v, want %s", kind.name, err, want)
		}
	}
}

// What only its owner can put right is told with the command that does: of a file that
// is the sweep's and may not be read or written.
func TestUnreadableFilesOfSweep(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read and write all: run the test as another user")
	}
	for name, says := range map[string]string{
		lockFile: ": cannot be opened (permission denied): chmod 600 ",
		keyFile:  ": permission denied: chmod 640 ",
		lastFile: "", // it is replaced
	} {
		dir := state.Dir(t.TempDir())
		if err := dir.Make(state.Sweep); err != nil {
			t.Fatal(err)
		}
		path := dir.Path(state.Sweep, name)
		if err := os.WriteFile(path, make([]byte, 32), 0); err != nil {
			t.Fatal(err)
		}
		f, err := dir.Open(state.Sweep)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		switch name {
		case lockFile:
			_, err = f.Lock(name)
		case keyFile:
			_, _, err = siteKey(dir, false)
		default:
			err = dir.PutSynced(state.Sweep, name, []byte("{}"), 0o644)
		}
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says+path)) {
			t.Errorf("%s: %v, want %s", name, err, says+path)
		}
	}
}
