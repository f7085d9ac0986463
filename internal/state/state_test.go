package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Each place is made with the state directory's mode, whoever comes first.
func TestMake(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	for _, mode := range []os.FileMode{0o755, 0o775 | os.ModeSetgid, 0o700, 0o777 | os.ModeSticky} {
		for _, place := range Places {
			dir := Dir(filepath.Join(t.TempDir(), "state"))
			if err := os.Mkdir(string(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(string(dir), mode); errors.Is(err, fs.ErrPermission) {
				t.Logf("mode %v is not allowed here, as in Nix's sandbox", mode)
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			if err := dir.Put(place, "x", []byte("x")); err != nil {
				t.Fatalf("%s: %v", place, err)
			}
			for path := place; path != "."; path = Place(filepath.Dir(string(path))) {
				info, err := os.Stat(dir.Path(path, ""))
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode() &^ os.ModeDir; got != mode {
					t.Errorf("%s in a state directory of mode %v: %v", path, mode, got)
				}
			}
		}
	}
	var all sync.WaitGroup
	dir := Dir(filepath.Join(t.TempDir(), "a", "b"))
	for range 16 {
		all.Go(func() {
			for _, place := range Places {
				if err := dir.Put(place, "same", []byte("whole")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// The NixOS module makes each place beforehand.
func TestPlacesOfTheModule(t *testing.T) {
	module, err := os.ReadFile("../../nix/modules/harness.nix")
	if err != nil {
		t.Skip("needs nix/modules, which the source of the Nix package lacks; run it in a checkout: ", err)
	}
	for _, place := range Places {
		rule := "\"d ${stateDir}/" + string(place) + " 2775 ${cfg.user} ${cfg.group} -\""
		if !bytes.Contains(module, []byte(rule)) {
			t.Errorf("nix/modules/harness.nix lacks %s", rule)
		}
	}
	if got := strings.Count(string(module), "\"d ${stateDir}/"); got != len(Places) {
		t.Errorf("nix/modules/harness.nix makes %d directories, there are %d places", got, len(Places))
	}
}

// Hidden files are being written; what is there is whole or absent.
func TestPutAndList(t *testing.T) {
	dir := Dir(t.TempDir())
	if names, err := dir.List(Runs, ".json"); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
	for _, name := range []string{"b.json", "a.json", "c.txt", ".d.json"} {
		if err := dir.PutSynced(Runs, name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := dir.List(Runs, ".json")
	if err != nil || strings.Join(names, " ") != "a.json b.json" {
		t.Errorf("%q, %v", names, err)
	}
	if data, err := Read(dir.Path(Runs, "a.json")); err != nil || string(data) != "a.json" {
		t.Errorf("%q, %v", data, err)
	}
	if !dir.Has(Runs, "a.json") || dir.Has(Runs, "e.json") {
		t.Error("Has is wrong")
	}
	// What is not a regular file is an error at once, not a wait.
	if err := syscall.Mkfifo(dir.Path(Runs, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir.Path(Runs, "fifo")); err == nil {
		t.Error("a FIFO was read")
	}
	if err := os.Mkdir(dir.Path(Runs, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := dir.Put(Runs, "taken", nil); err == nil {
		t.Error("a directory was replaced")
	}
	entries, _ := os.ReadDir(dir.Path(Runs, ""))
	if len(entries) != 6 {
		t.Errorf("%d entries: something is left of a failed Put", len(entries))
	}
}
