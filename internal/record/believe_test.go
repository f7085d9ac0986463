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
	program string        // that has the recipe's tests instead of the runner
	age     time.Duration // negative: in the future
	name    string        // of the file; "" for the one that it should have
	form    form          // of the name
	owner   int           // of the file
	uid     int           // that the record names
	damage  string        // instead of the record
}

// form is how a record's name was formed.
type form int

const (
	today          form = iota // TIME-PID-RECIPE-INVOKER
	withoutRecipe              // TIME-PID-INVOKER
	withoutInvoker             // TIME-PID
)

func (f form) id(at time.Time, invoker, recipe string) string {
	return f.of(ID(at, invoker, runner, []string{recipe}), invoker)
}

func (f form) of(id, invoker string) string {
	parts := strings.SplitN(id, "-", 3)
	switch f {
	case withoutRecipe:
		return strings.Join(append(parts[:2], invoker), "-")
	case withoutInvoker:
		return strings.Join(parts[:2], "-")
	}
	return id
}

const runner = "/srv/runner/run_recipe_ci.py"

func (c claim) put(t *testing.T, dir state.Dir) string {
	t.Helper()
	at := time.Now().Add(-c.age).UTC()
	if c.program == "" {
		c.program = runner
	}
	id := c.form.of(ID(at, c.invoker, c.program, []string{c.recipe}), c.invoker)
	name := c.name
	if name == "" {
		name = id + ".json"
	}
	r := Record{Schema: 1, ID: id, Time: at, Invoker: env.Invoker{Name: c.invoker}, Program: printable(c.program), Args: printables([]string{c.recipe}), Process: exec.State{UID: fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", c.uid)}}
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
		"newer, of an earlier version": {claim: claim{invoker: "drone", uid: us, form: withoutInvoker}, believed: true},
		"newer, of the version before": {claim: claim{invoker: "drone", uid: us, form: withoutRecipe}, believed: true},
		"newer, of another invoker":    {claim: claim{invoker: "systemd", uid: us}},
		"older":                        {claim: claim{invoker: "drone", age: 2 * time.Hour, uid: us}},
		"older, of a recipe":           {claim: claim{invoker: "drone", recipe: "nextcloud", age: 2 * time.Hour, uid: us}, recipe: "nextcloud", believed: true},
		"an invoker whose name is in another's arguments": {claim: claim{invoker: "manual", recipe: "drone", uid: us, form: withoutInvoker}},
		"newer, under the name of another recipe":         {claim: claim{invoker: "drone", recipe: "gitea", uid: us, name: today.id(time.Now(), "drone", "nextcloud") + ".json"}, recipe: "gitea"},
		"of another recipe, under the name of this one":   {claim: claim{invoker: "drone", recipe: "nextcloud", uid: us, name: today.id(time.Now(), "drone", "gitea") + ".json"}, recipe: "gitea"},
		"of another recipe, without a name":               {claim: claim{invoker: "drone", recipe: "nextcloud", uid: us, form: withoutRecipe}, recipe: "gitea"},

		"of the future":                        {claim: claim{invoker: "drone", age: -time.Hour, uid: us}, says: "is of a time that is yet to come"},
		"of the far future, another's":         {claim: claim{invoker: "drone", age: -9000 * time.Hour, uid: us, owner: member}, says: "belongs to user 65534"},
		"of the future, under a name of now":   {claim: claim{invoker: "drone", age: -time.Hour, uid: us, name: today.id(time.Now(), "drone", "") + ".json"}, says: "is of a time that is yet to come"},
		"a clock that was set back by seconds": {claim: claim{invoker: "drone", age: -10 * time.Second, uid: us}, believed: true},

		"a member's, of drone":                      {claim: claim{invoker: "drone", uid: us, owner: member}, says: "belongs to user 65534, and the state directory to user"},
		"a member's, of drone, with its own user":   {claim: claim{invoker: "drone", uid: member, owner: member}, says: "belongs to user 65534"},
		"a member's, of drone, of an old version":   {claim: claim{invoker: "drone", uid: us, owner: member, form: withoutInvoker}, says: "belongs to user 65534"},
		"a member's, of a person":                   {claim: claim{invoker: "manual", uid: member, owner: member}, invoker: "manual", believed: true},
		"a member's, of another person":             {claim: claim{invoker: "manual", uid: us, owner: member}, invoker: "manual", says: "names another user or another ID than its file, which belongs to user 65534"},
		"a member's copy of another time":           {claim: claim{invoker: "manual", age: time.Hour, uid: member, owner: member, name: today.id(time.Now(), "manual", "") + ".json"}, invoker: "manual", says: "names another user or another ID than its file"},
		"drone's under the name of a person's":      {claim: claim{invoker: "drone", uid: us, name: today.id(time.Now(), "manual", "") + ".json"}, invoker: "manual"},
		"a person's under the name of drone's":      {claim: claim{invoker: "manual", uid: us, name: today.id(time.Now(), "drone", "") + ".json"}},
		"a manifest's name that leads out of place": {claim: claim{invoker: "drone", uid: us, name: today.id(time.Now(), "drone", "") + ".json", damage: `{"schema":1,"invoker":{"name":"drone"},"fingerprint":"../../x"}`}, believed: true},
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

// Among very many records the newest of an invoker, or of a recipe, is found by its
// name: no other file is opened.
func TestFoundByName(t *testing.T) {
	dir := state.Dir(t.TempDir())
	want := claim{invoker: "drone", recipe: "gitea", age: time.Hour, uid: os.Geteuid()}.put(t, dir)
	now := time.Now()
	for n := range 3000 {
		other := today.id(now.Add(-time.Duration(n)*time.Hour/4000), "drone", "nextcloud") + ".json"
		if err := os.Symlink("/dev/zero", dir.Path(state.Runs, other)); err != nil {
			t.Fatal(err)
		}
		name := today.id(now.Add(-time.Duration(n)*time.Millisecond), "manual", "") + ".json"
		if err := os.Symlink("/dev/zero", dir.Path(state.Runs, name)); err != nil {
			t.Fatal(err)
		}
	}
	if r, passedOver, err := Newest(dir, "drone", "gitea"); err != nil || r.ID != want || len(passedOver) > 0 {
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

// names are such as recipes' folders may have, and such as must not be taken for
// each other.
var names = []string{
	"gitea", "gitea-2", "gitea-drone", "-gitea", "drone", "git\nea", "..", "...", "gitea.json", "gitea.xml", "Gitea", "git%65a", "git%2Fa", "git ea", "git\tea",
	"g\u00eft\u00e9a", "\U0001f600", "\xff\xfe", "\u200b", "*", "[a]", "'", "\"", "\\", "\x7f", strings.Repeat("x", 255), strings.Repeat("x", 254) + "y", strings.Repeat("\xff", 255), "smoke.py",
}

// The newest record of each recipe is found, whatever the recipe and the form of the
// record's name, and no other recipe's.
func TestNewestOfEachRecipe(t *testing.T) {
	for _, form := range []form{today, withoutRecipe, withoutInvoker} {
		dir := state.Dir(t.TempDir())
		want := map[string]string{}
		for n, name := range names {
			if !strings.HasPrefix(name, "-") { // which the runner takes for a flag
				claim{invoker: "drone", recipe: name, age: 200*time.Minute - time.Duration(n)*time.Second, form: form, uid: os.Geteuid()}.put(t, dir)
				want[name] = claim{invoker: "drone", recipe: name, age: time.Hour - time.Duration(n)*time.Second, form: form, uid: os.Geteuid()}.put(t, dir)
			}
		}
		for _, script := range []string{"script.py", "b\xff.py"} {
			want[script] = claim{invoker: "drone", program: "./\xfe/" + script, age: time.Hour, form: form, uid: os.Geteuid()}.put(t, dir)
		}
		for _, name := range append(names, "script.py", "b\xff.py", "none") {
			r, passedOver, err := Newest(dir, "drone", name)
			switch {
			case want[name] == "" && !errors.Is(err, ErrNone):
				t.Errorf("form %d, %q: %+v, %v", form, name, r, err)
			case want[name] != "" && (err != nil || r.ID != want[name] || len(passedOver) > 0):
				t.Errorf("form %d, %q: %+v, %v, %v", form, name, r, passedOver, err)
			}
		}
	}
}

// A record's name is a file's name on each file system, also while the file is being
// written and when it is set aside, and it says what the record is of.
func TestID(t *testing.T) {
	for _, recipe := range names {
		for _, invoker := range []string{"drone", "systemd", "manual"} {
			id := ID(time.Now(), invoker, runner, []string{recipe})
			if strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.%") != "" || len(id) > 143-len("..current.4194304.1.aside") {
				t.Errorf("%q: %q", recipe, id)
			}
			want := string(state.AppendRecipe(nil, Recipe(runner, []string{recipe})))
			for _, name := range []string{id, id + ".json", id + ".xml", id + ".current"} {
				if of, by := state.RunOf(name); of != want || by != invoker || state.Stem(name) != state.Stem(id+".json") && name != id {
					t.Errorf("%q: %q is of %q by %q, want %q", recipe, name, of, by, want)
				}
			}
		}
	}
}

// BenchmarkNewest is what a search takes among 100,000 records: of this version, and
// of earlier ones, whose files have to be looked at.
func BenchmarkNewest(b *testing.B) {
	for _, form := range []form{today, withoutRecipe, withoutInvoker} {
		dir := state.Dir(b.TempDir())
		put := func(age time.Duration, invoker, recipe string) {
			at := time.Now().Add(-age)
			r := Record{Schema: 1, ID: form.id(at, invoker, recipe), Time: at, Invoker: env.Invoker{Name: invoker}, Program: runner, Args: []string{recipe, strings.Repeat("x", 3000)}}
			if err := dir.Put(state.Runs, r.ID+".json", r.AppendJSON(nil)); err != nil {
				b.Fatal(err)
			}
		}
		for n := range 100_000 {
			put(time.Duration(n)*time.Second, []string{"manual", "drone", "systemd"}[n%3], fmt.Sprint("recipe", n%60))
		}
		put(200_000*time.Second, "drone", "gitea")
		for _, recipe := range []string{"", "recipe7", "gitea", "none"} {
			b.Run(fmt.Sprintf("form %d/%s", form, recipe), func(b *testing.B) {
				for b.Loop() {
					if _, _, err := Newest(dir, "drone", recipe); err != nil && !errors.Is(err, ErrNone) {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// Whatever a member of the group puts beside the records, in whatever number: the
// newest real record is found, and the search reads little.
func TestCrowd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file to another user: run the test as root")
	}
	us, now := os.Geteuid(), time.Now().UTC()
	const many = maxLooked + 2000
	recipes := []string{"today", "without-recipe", "without-invoker"} // and forms of the real records' names
	link := func(name func(n int) string) func(dir state.Dir, file string) error {
		return func(dir state.Dir, file string) error {
			for n := range many {
				if err := os.Link(file, dir.Path(state.Runs, name(n))); err != nil {
					return err
				}
			}
			return nil
		}
	}
	past := func(n int) time.Time { return now.Add(-time.Duration(n) * time.Millisecond) }
	year := func(n int) string { return fmt.Sprintf("2999%s", past(n).Format("0102T150405.000000000Z")) }
	for name, flood := range map[string]func(dir state.Dir, file string) error{
		"of the future":                   link(func(n int) string { return year(n) + "-1-" + recipes[n%3] + "-drone.json" }),
		"of the future, without a recipe": link(func(n int) string { return year(n) + "-1-drone.json" }),
		"of the future, without all":      link(func(n int) string { return year(n) + "-1.json" }),
		"without a time":                  link(func(n int) string { return fmt.Sprint("z", n, ".json") }),
		"without a time, named for drone": link(func(n int) string { return fmt.Sprint("z", n, "-1-"+recipes[n%3]+"-drone.json") }),
		"of now":                          link(func(n int) string { return today.id(past(n), "drone", recipes[n%3]) + ".json" }),
		"of now, of a person":             link(func(n int) string { return today.id(past(n), "manual", recipes[n%3]) + ".json" }),
		"of now, without a recipe":        link(func(n int) string { return withoutRecipe.id(past(n), "drone", recipes[n%3]) + ".json" }),
		"of now, of one without a recipe": link(func(n int) string { return withoutRecipe.id(past(n), "manual", recipes[n%3]) + ".json" }),
		"of now, without recipe, invoker": link(func(n int) string { return withoutInvoker.id(past(n), "drone", recipes[n%3]) + ".json" }),
		"of now, of a person, and large": func(dir state.Dir, file string) error {
			for n := range 30 {
				path := dir.Path(state.Runs, today.id(past(n), "manual", recipes[n%3])+".json")
				if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 4<<20), os.Chown(path, member, member)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		dir := state.Dir(t.TempDir())
		file := dir.Path(state.Manifests, "x")
		if err := errors.Join(dir.Make(state.Manifests), dir.Make(state.Runs), os.WriteFile(file, []byte("{"), 0o644), os.Chown(file, member, member), flood(dir, file)); err != nil {
			t.Fatal(err)
		}
		for _, invoker := range []string{"drone", "manual"} {
			newest := ""
			for n, recipe := range recipes {
				newest = claim{invoker: invoker, recipe: recipe, age: time.Hour - time.Duration(n)*time.Minute, uid: us, form: form(n)}.put(t, dir)
				if r, passedOver, err := Newest(dir, invoker, recipe); err != nil || r.ID != newest || len(passedOver) > maxFaults+1 {
					t.Errorf("%s, form %d, %s: %+v, %v, %d passed over", name, n, invoker, r, err, len(passedOver))
				}
			}
			if r, _, err := Newest(dir, invoker, ""); err != nil || r.ID != newest {
				t.Errorf("%s, %s: %+v, %v", name, invoker, r, err)
			}
		}
	}
}

// Of very many names that lack what is looked for only the newest are opened; what
// prune must not remove is found all the same.
func TestNamesOfAnEarlierVersion(t *testing.T) {
	for _, form := range []form{withoutRecipe, withoutInvoker} {
		dir := state.Dir(t.TempDir())
		if err := dir.Make(state.Runs); err != nil {
			t.Fatal(err)
		}
		base := time.Now().Add(-time.Hour)
		for n := range maxLooked {
			name := form.id(base.Add(time.Duration(n)*time.Millisecond), "systemd", "") + ".json"
			if err := os.Symlink("x", dir.Path(state.Runs, name)); err != nil {
				t.Fatal(err)
			}
		}
		early := claim{invoker: "systemd", recipe: "gitea", age: 2 * time.Hour, uid: os.Geteuid(), form: form}.put(t, dir)
		named := claim{invoker: "drone", recipe: "gitea", age: 3 * time.Hour, uid: os.Geteuid()}.put(t, dir)
		for _, recipe := range []string{"", "gitea"} {
			if r, _, err := Newest(dir, "drone", recipe); err != nil || r.ID != named {
				t.Errorf("form %d, recipe %q: %+v, %v", form, recipe, r, err)
			}
		}
		if _, _, err := Newest(dir, "systemd", "gitea"); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "only the newest 10000 were opened") {
			t.Errorf("form %d: %v", form, err)
		}
		runs, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := runs.File("systemd"); got != early+".json" {
			t.Errorf("form %d: %s, want %s", form, got, early)
		}
		runs.Close()
	}
}
