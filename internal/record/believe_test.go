package record

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/state"
)

const member = 65534 // somebody of the state directory's group

// claim is a record, and the file that it is in.
type claim struct {
	invoker string
	recipe  string
	age     time.Duration // negative: in the future
	name    string        // of the file; "" for the one that it should have
	old     bool          // named as an earlier cc-ci-run did
	owner   int           // of the file
	uid     int           // that the record names
	damage  string        // instead of the record
}

func (c claim) put(t *testing.T, dir state.Dir) string {
	t.Helper()
	at := time.Now().Add(-c.age).UTC()
	id := ID(at, c.invoker)
	if c.old {
		id = strings.TrimSuffix(id, "-"+c.invoker)
	}
	name := c.name
	if name == "" {
		name = id + ".json"
	}
	r := Record{Schema: 1, ID: id, Time: at, Invoker: env.Invoker{Name: c.invoker}, Args: []string{c.recipe}, Process: exec.State{UID: fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", c.uid)}}
	data := r.AppendJSON(nil)
	if c.damage != "" {
		data = []byte(c.damage)
	}
	if err := dir.Put(state.Runs, name, data); err != nil {
		t.Fatal(err)
	}
	if c.owner != 0 {
		if os.Geteuid() != 0 {
			t.Skip("needs root, to give a file to another user: run the test as root")
		}
		if err := os.Chown(dir.Path(state.Runs, name), c.owner, c.owner); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// A record is believed only as far as its file supports it.
func TestBelieved(t *testing.T) {
	us := os.Geteuid()
	real := claim{invoker: "drone", recipe: "gitea", age: time.Hour, uid: us}
	for name, row := range map[string]struct {
		claim
		invoker, recipe string // that is looked for: "drone" and any
		believed        bool
		says            string
	}{
		"newer":                        {claim: claim{invoker: "drone", uid: us}, believed: true},
		"newer, of an earlier version": {claim: claim{invoker: "drone", uid: us, old: true}, believed: true},
		"newer, of another invoker":    {claim: claim{invoker: "systemd", uid: us}},
		"older":                        {claim: claim{invoker: "drone", age: 2 * time.Hour, uid: us}},
		"older, of a recipe":           {claim: claim{invoker: "drone", recipe: "nextcloud", age: 2 * time.Hour, uid: us}, recipe: "nextcloud", believed: true},
		"an invoker whose name is in another's arguments": {claim: claim{invoker: "manual", recipe: "drone", uid: us, old: true}},

		"of the future":                        {claim: claim{invoker: "drone", age: -time.Hour, uid: us}, says: "is of a time that is yet to come"},
		"of the far future, another's":         {claim: claim{invoker: "drone", age: -9000 * time.Hour, uid: us, owner: member}, says: "belongs to user 65534"},
		"of the future, under a name of now":   {claim: claim{invoker: "drone", age: -time.Hour, uid: us, name: ID(time.Now(), "drone") + ".json"}, says: "is of a time that is yet to come"},
		"a clock that was set back by seconds": {claim: claim{invoker: "drone", age: -10 * time.Second, uid: us}, believed: true},

		"a member's, of drone":                      {claim: claim{invoker: "drone", uid: us, owner: member}, says: "belongs to user 65534, and the state directory to user"},
		"a member's, of drone, with its own user":   {claim: claim{invoker: "drone", uid: member, owner: member}, says: "belongs to user 65534"},
		"a member's, of drone, of an old version":   {claim: claim{invoker: "drone", uid: us, owner: member, old: true}, says: "belongs to user 65534"},
		"a member's, of a person":                   {claim: claim{invoker: "manual", uid: member, owner: member}, invoker: "manual", believed: true},
		"a member's, of another person":             {claim: claim{invoker: "manual", uid: us, owner: member}, invoker: "manual", says: "names another user or another ID than its file, which belongs to user 65534"},
		"a member's copy of another time":           {claim: claim{invoker: "manual", age: time.Hour, uid: member, owner: member, name: ID(time.Now(), "manual") + ".json"}, invoker: "manual", says: "names another user or another ID than its file"},
		"drone's under the name of a person's":      {claim: claim{invoker: "drone", uid: us, name: ID(time.Now(), "manual") + ".json"}, invoker: "manual"},
		"a person's under the name of drone's":      {claim: claim{invoker: "manual", uid: us, name: ID(time.Now(), "drone") + ".json"}},
		"a manifest's name that leads out of place": {claim: claim{invoker: "drone", uid: us, name: ID(time.Now(), "drone") + ".json", damage: `{"schema":1,"invoker":{"name":"drone"},"fingerprint":"../../x"}`}, believed: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := state.Dir(t.TempDir())
			known := real.put(t, dir)
			id := row.put(t, dir)
			invoker := row.invoker
			if invoker == "" {
				invoker = "drone"
			}
			r, passedOver, err := Newest(dir, invoker, row.recipe)
			said := errors.Join(passedOver...)
			switch {
			case row.believed:
				if err != nil || r.ID != id && row.damage == "" || said != nil {
					t.Errorf("%+v, %v, %v", r, said, err)
				}
			case invoker == "drone":
				if err != nil || r.ID != known {
					t.Errorf("%+v, %v, want %s", r, err, known)
				}
			case !errors.Is(err, ErrNone):
				t.Errorf("%+v, %v", r, err)
			}
			if row.says != "" && (said == nil || !strings.Contains(said.Error(), row.says)) || row.says == "" && said != nil {
				t.Errorf("says %v, want %q", said, row.says)
			}
		})
	}
}

// Among very many records the newest of an invoker is found by its name: no other
// file is opened.
func TestFoundByName(t *testing.T) {
	dir := state.Dir(t.TempDir())
	want := claim{invoker: "drone", age: time.Hour, uid: os.Geteuid()}.put(t, dir)
	for n := range 3000 {
		name := ID(time.Now().Add(-time.Duration(n)*time.Millisecond), "manual") + ".json"
		if err := os.Symlink("/dev/zero", dir.Path(state.Runs, name)); err != nil {
			t.Fatal(err)
		}
	}
	if r, passedOver, err := Newest(dir, "drone", ""); err != nil || r.ID != want || len(passedOver) > 0 {
		t.Errorf("%+v, %v, %v", r, passedOver, err)
	}
	// Of the person's no file can be used; of very many the first are told.
	_, passedOver, err := Newest(dir, "manual", "")
	if !errors.Is(err, ErrNone) || len(passedOver) != maxFaults+1 || !strings.Contains(passedOver[maxFaults].Error(), "2995 more files are not used") {
		t.Errorf("%v, %v", passedOver, err)
	}
}

// A kept manifest that is not whole, or another user's, is replaced by the next
// run.
func TestKeptAgain(t *testing.T) {
	r, m := testRecord(t)
	for name, damage := range map[string]func(path string) error{
		"empty, as after a crash": func(path string) error { return os.Truncate(path, 0) },
		"cut off":                 func(path string) error { return os.Truncate(path, 100) },
		"zeros, as after a power cut": func(path string) error {
			return errors.Join(os.Truncate(path, 0), os.Truncate(path, int64(len(m.Bytes()))))
		},
		"a directory": func(path string) error { return errors.Join(os.Remove(path), os.MkdirAll(path+"/x", 0o755)) },
		"removed":     os.Remove,
		"a link":      func(path string) error { return errors.Join(os.Remove(path), os.Symlink(r.Manifest, path)) },
		"another user's": func(path string) error {
			if os.Geteuid() != 0 {
				return os.Remove(path)
			}
			return errors.Join(os.WriteFile(path, []byte(strings.Repeat("x", len(m.Bytes()))), 0o644), os.Chown(path, member, member))
		},
	} {
		dir := state.Dir(t.TempDir())
		path := dir.Path(state.Manifests, r.Fingerprint+".json")
		if err := errors.Join(r.Keep(dir), damage(path), r.Keep(dir)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != string(m.Bytes()) {
			t.Errorf("%s: %.40q, %v", name, data, err)
		}
	}
}

// BenchmarkNewest is what a search takes among 100,000 records: of this version,
// and of an earlier one, whose files have to be looked at.
func BenchmarkNewest(b *testing.B) {
	for _, form := range []string{"-manual.json", ".json"} {
		dir := state.Dir(b.TempDir())
		r := Record{Schema: 1, Time: time.Now(), Invoker: env.Invoker{Name: "manual"}, Args: []string{strings.Repeat("x", 3000)}}
		data := r.AppendJSON(nil)
		for n := range 100_000 {
			at := time.Now().Add(-time.Duration(n) * time.Second)
			if err := dir.Put(state.Runs, strings.TrimSuffix(ID(at, "manual"), "-manual")+form, data); err != nil {
				b.Fatal(err)
			}
		}
		for _, invoker := range []string{"drone", "systemd"} {
			drone := Record{Schema: 1, Time: time.Now(), Invoker: env.Invoker{Name: invoker}}
			if err := dir.Put(state.Runs, ID(time.Now().Add(-200_000*time.Second), invoker)+".json", drone.AppendJSON(nil)); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(form, func(b *testing.B) {
			for b.Loop() {
				runs, err := Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				for _, invoker := range []string{"drone", "systemd"} {
					if _, _, err := runs.Newest(invoker, ""); err != nil {
						b.Fatal(err)
					}
				}
				runs.Close()
			}
		})
	}
}

// Of very many names without an invoker only the newest are opened; what prune
// must not remove is found all the same.
func TestNamesOfAnEarlierVersion(t *testing.T) {
	dir := state.Dir(t.TempDir())
	if err := dir.Make(state.Runs); err != nil {
		t.Fatal(err)
	}
	base := time.Now().Add(-time.Hour)
	old := func(at time.Time) string { return strings.TrimSuffix(ID(at, "x"), "-x") + ".json" }
	for n := range maxLooked {
		if err := os.Symlink("x", dir.Path(state.Runs, old(base.Add(time.Duration(n)*time.Millisecond)))); err != nil {
			t.Fatal(err)
		}
	}
	early := claim{invoker: "systemd", age: 2 * time.Hour, uid: os.Geteuid(), old: true}.put(t, dir)
	named := claim{invoker: "drone", age: 3 * time.Hour, uid: os.Geteuid()}.put(t, dir)
	if r, _, err := Newest(dir, "drone", ""); err != nil || r.ID != named {
		t.Errorf("%+v, %v", r, err)
	}
	if _, _, err := Newest(dir, "systemd", ""); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "only the newest 10000 were opened") {
		t.Errorf("%v", err)
	}
	runs, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer runs.Close()
	if got := runs.File("systemd"); got != early+".json" {
		t.Errorf("%s, want %s", got, early)
	}
}
