package parity

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// A copy that is not whole does not stop a comparison of the present environment, and
// is replaced. Of another environment, the message says what to do; nothing waits.
func TestKept(t *testing.T) {
	m, err := toolset.ParseManifest([]byte(`{
		"schema": 1, "backend": "nix", "state": "/s", "bin": "/t/bin", "interpreter": "/t/bin/python3", "tools": [],
		"python": {"version": "3", "why": "", "packages": [], "commands": []}, "browsers": {"path": "/t/browsers", "packages": []},
		"environment": {"pass": ["HOME"], "require": ["HOME"], "only": {}, "default": {}, "set": {}},
		"process": {"umask": "0022", "nofile": 1024, "core": 0}, "host": {"paths": ["/bin/sh"]}, "absent": [], "shadowed": []
	}`))
	if err != nil {
		t.Fatal(err)
	}
	content := func(data string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(data), 0o644) }
	}
	for name, row := range map[string]struct {
		put  func(path string) error
		says string // "" if it can be used
	}{
		"whole":           {content(string(m.Bytes())), ""},
		"a flipped byte":  {content(strings.Replace(string(m.Bytes()), "/bin/sh", "/bin/zh", 1)), "is another manifest than its name says"},
		"a flipped brace": {content("[" + string(m.Bytes()[1:])), "is damaged"},
		"another":         {content(strings.Replace(string(m.Bytes()), "1024", "4096", 1)), "is another manifest than its name says"},
		"a newer schema":  {content(`{"schema": 99}`), "was written by a newer cc-ci-run"},
		"empty":           {content(""), "is damaged"},
		"cut off":         {content(string(m.Bytes()[:90])), "is damaged"},
		"zeros":           {content(strings.Repeat("\x00", len(m.Bytes()))), "is damaged"},
		"huge":            {func(path string) error { return errors.Join(content("")(path), os.Truncate(path, 1<<40)) }, "is larger than"},
		"a FIFO":          {func(path string) error { return unix.Mkfifo(path, 0o644) }, "is a FIFO, not a file"},
		"a link":          {func(path string) error { return os.Symlink("/dev/zero", path) }, "is a symbolic link, not a file"},
		"a directory":     {func(path string) error { return os.MkdirAll(path+"/x", 0o755) }, "is a directory, not a file"},
		"removed":         {func(string) error { return nil }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := state.Dir(t.TempDir())
			if err := dir.Make(state.Manifests); err != nil {
				t.Fatal(err)
			}
			path := dir.Path(state.Manifests, m.Fingerprint()+".json")
			put := func() {
				if err := errors.Join(os.RemoveAll(path), row.put(path)); err != nil {
					t.Fatal(err)
				}
			}
			put()
			got, err := Kept(dir, m.Fingerprint(), nil)
			switch {
			case row.says == "" && (err != nil || got.Fingerprint() != m.Fingerprint()):
				t.Errorf("%v", err)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), row.says)):
				t.Errorf("%v, want %q", err, row.says)
			case row.says != "" && name != "a newer schema" && !strings.Contains(err.Error(), "the next run in that environment keeps it again"):
				t.Errorf("%v: does not say what to do", err)
			}
			whole := func(who string) {
				t.Helper()
				if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, m.Bytes()) {
					t.Errorf("%s leaves %.20q, %v", who, data, err)
				}
			}
			if got, err := Kept(dir, m.Fingerprint(), m); err != nil || got.Fingerprint() != m.Fingerprint() {
				t.Errorf("of the present environment: %v", err)
			}
			whole("Kept")
			put()
			want := finding.Note
			if row.says == "" {
				want = finding.OK
			}
			found := CheckKept(dir, m)
			if name == "removed" {
				if len(found) > 0 {
					t.Errorf("%+v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Verdict != want || !strings.Contains(found[0].State, row.says) {
				t.Errorf("%+v, want %s: %s", found, want, row.says)
			}
			whole("CheckKept")
		})
	}
}
