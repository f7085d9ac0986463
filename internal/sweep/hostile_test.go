package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
		{"key", state.Sweep, keyFile, func(dir state.Dir) []error { _, err := siteKey(dir, true); return []error{err} }, map[string]string{
			"a FIFO": "", "a socket": "", "a device": "", "a directory": "", "a huge file": "", "a link to an endless file": "", "a link to a file of /proc": "", "a link to a file": "", "a link to nothing": "", "another user's file": "",
			"an empty file": "", "a truncated file": "", "zeros": "", "another form": "", "very many values": "", "a newer schema": "",
		}},
		{"note of a run", state.Running, "n", func(dir state.Dir) []error {
			s, err := openStore(context.Background(), dir, false, false, git, memory.Plain)
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
		t.Run(kind.name, func(t *testing.T) {
			b := newBench(t)
			b.recipe("a", "exit 0")
			b.Site = []string{"TOKEN=secret"}
			for _, place := range []state.Place{state.Recipes, state.Logs} {
				if err := b.State.Make(place); err != nil {
					t.Fatal(err)
				}
			}
			want := "a PROMOTE"
			if kind.name == "a newer schema" {
				want = "a ERROR"
			}
			for _, path := range []string{b.State.Path(state.Recipes, "a.json"), b.State.Path(state.Logs, "a"), b.State.Path(state.Sweep, lockFile), b.State.Path(state.Sweep, lastFile)} {
				if kind.name == "a directory" && (strings.HasSuffix(path, lockFile) || strings.HasSuffix(path, lastFile)) {
					continue // somebody has to look what that is
				}
				if err := kind.put(path); err != nil {
					t.Fatal(err)
				}
			}
			b.want("a state directory with "+kind.name, want)
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
		s, err := openStore(context.Background(), dir, false, false, git, memory.Plain)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v: others can open it", name, info, err)
		}
		if _, err := openStore(context.Background(), dir, false, false, git, memory.Plain); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another sweep is under way (process %d, since 20", os.Getpid())) {
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
