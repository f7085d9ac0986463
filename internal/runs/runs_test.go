package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

const member = 65534 // somebody of the state directory's group

// put writes a record of a run of gitea's tests, as a script by its owner.
func put(t *testing.T, dir state.Dir, change func(r *record.Record)) *record.Record {
	t.Helper()
	at := time.Now().Add(-time.Hour).UTC()
	r := &record.Record{
		Schema: 1, Time: at, PID: 1 << 30, Invoker: env.Invoker{Name: "manual"}, Mode: "script",
		Program: "runner/run_recipe_ci.py", Args: []string{"gitea"}, Fingerprint: strings.Repeat("f", 64),
		Process: exec.State{UID: fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", os.Geteuid())},
	}
	change(r)
	if r.ID == "" {
		r.ID = r.Time.Format("20060102T150405.000000000Z") + "-1-" + r.Invoker.Name
	}
	if err := dir.Put(state.Runs, r.ID+".json", r.AppendJSON(nil)); err != nil {
		t.Fatal(err)
	}
	return r
}

// result is a result with so many tests that passed and failed.
func result(passed, failed int, about record.About) []byte {
	r := record.Unfinished(about, time.UnixMilli(1000), time.UnixMilli(3500))
	r.Results.Extra.About.Complete = about.Complete
	for range passed {
		r.Results.Tests = append(r.Results.Tests, record.Test{Name: "test_p", Status: "passed"})
	}
	for range failed {
		r.Results.Tests = append(r.Results.Tests, record.Test{Name: "test_f", Status: "failed", Message: "why"})
	}
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return data
}

func open(t *testing.T, dir state.Dir) *List {
	t.Helper()
	l, err := Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestOutcome(t *testing.T) {
	complete := record.About{Complete: true}
	for name, c := range map[string]struct {
		change func(r *record.Record)
		result []byte // in the place of the run
		link   bool   // a link leads to the result
		owner  int    // of the result, if it is not this user
		want   Outcome
		why    string
	}{
		"passed":                  {result: result(2, 0, complete), want: Passed},
		"failed":                  {result: result(2, 1, complete), want: Failed},
		"pytest failed":           {result: result(1, 0, record.About{Complete: true, ExitStatus: 5}), want: Failed, why: "pytest's exit status is 5"},
		"an error of collection":  {result: result(0, 0, record.About{Complete: true, ExitStatus: 2, Errors: []string{"no module"}}), want: Failed},
		"ended":                   {result: result(1, 0, record.About{Why: "SIGTERM"}), want: Ended, why: "SIGTERM"},
		"killed":                  {want: NoResult},
		"under way":               {change: func(r *record.Record) { r.PID, r.Time = os.Getpid(), time.Now().UTC() }, want: Running},
		"its number is another's": {change: func(r *record.Record) { r.PID = os.Getpid() }, want: NoResult},
		"exec":                    {change: func(r *record.Record) { r.Mode, r.Program = "exec", "git" }, want: Unasked},
		"shell":                   {change: func(r *record.Record) { r.Mode, r.Program = "shell", "bash" }, want: Unasked},
		"damaged":                 {result: []byte("{"), want: NoResult, why: "is damaged"},
		"not a result":            {result: []byte("{}"), want: NoResult, why: "not a result"},
		"a link":                  {result: result(1, 0, complete), link: true, want: NoResult, why: "is a symbolic link"},
		"a member's, for another": {result: result(1, 0, complete), owner: member, want: NoResult, why: "belongs to user 65534"},
		"a member's, of its own":  {change: func(r *record.Record) { r.Process.UID = fmt.Sprint(member) }, result: result(1, 0, complete), owner: member, want: Passed},
		"in a file of somebody's": {change: func(r *record.Record) { r.Result = "/home/x/result.json" }, want: NoResult, why: "the result was written to /home/x/result.json"},
		"of a sweep":              {change: func(r *record.Record) { r.Result = "/else/where/sweep/logs/gitea/20260101T000000.1Z.json" }, result: result(0, 1, complete), want: Failed},
		"of a sweep, by a member": {change: func(r *record.Record) {
			r.Result, r.Process.UID = "/s/sweep/logs/gitea/20260101T000000.1Z.json", fmt.Sprint(member)
		}, result: result(0, 1, complete), want: NoResult, why: "belongs to user 65534"},
		"of a sweep, out of place":  {change: func(r *record.Record) { r.Result = "/s/sweep/logs/../20260101T000000.1Z.json" }, result: result(0, 1, complete), want: NoResult, why: "is not the name of a file"},
		"of a sweep, and it is old": {change: func(r *record.Record) { r.Result = "/s/sweep/logs/gitea/20260101T000000.1Z.json" }, want: NoResult},
	} {
		t.Run(name, func(t *testing.T) {
			if c.owner != 0 && os.Geteuid() != 0 {
				t.Skip("needs root, to make files of another user: run the test as root")
			}
			dir := state.Dir(t.TempDir())
			if c.change == nil {
				c.change = func(*record.Record) {}
			}
			r := put(t, dir, c.change)
			place, file := state.Results, r.ID+".json"
			if folder, stem, ok := sweepFile(r.Result); ok && c.result != nil {
				place, file = state.Logs, folder+"/"+stem+".json"
			}
			if c.result != nil {
				path := dir.Path(place, file)
				if err := errors.Join(dir.Make(place), os.MkdirAll(filepath.Dir(path), 0o755)); err != nil {
					t.Fatal(err)
				}
				if c.link {
					other := filepath.Join(t.TempDir(), "other")
					if err := os.Symlink(other, path); err != nil {
						t.Fatal(err)
					}
					path = other
				}
				if err := os.WriteFile(path, c.result, 0o644); err != nil {
					t.Fatal(err)
				}
				if c.owner != 0 {
					if err := os.Chown(path, c.owner, -1); err != nil {
						t.Fatal(err)
					}
				}
			}
			list, passedOver := open(t, dir).Newest(record.Which{}, 5)
			if len(list) != 1 || len(passedOver) > 0 {
				t.Fatalf("%d runs, %v", len(list), passedOver)
			}
			if got := list[0]; got.Outcome != c.want || !strings.Contains(got.Why, c.why) || c.why == "" && c.want == NoResult && got.Why != "" {
				t.Errorf("%q (%s), want %q (%s)", got.Outcome, got.Why, c.want, c.why)
			}
		})
	}
}

// Runs are listed the newest first, by invoker and recipe; what is not believed is
// named and left out.
func TestNewest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make files of another user: run the test as root")
	}
	dir := state.Dir(t.TempDir())
	for n, c := range []struct {
		invoker, recipe string
		owner           int
	}{{"manual", "gitea", 0}, {"drone", "gitea", 0}, {"systemd", "nextcloud", 0}, {"manual", "nextcloud", member}, {"drone", "gitea", member}} {
		r := put(t, dir, func(r *record.Record) {
			r.Time = r.Time.Add(time.Duration(n) * time.Second)
			r.Invoker.Name, r.Args, r.Process.UID = c.invoker, []string{c.recipe}, fmt.Sprint(c.owner)
		})
		if err := os.Chown(dir.Path(state.Runs, r.ID+".json"), c.owner, -1); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody's terminal is acted on by the name of a file.
	put(t, dir, func(r *record.Record) { r.ID = r.Time.Format("20060102T150405") + "\x1b[31m" })
	put(t, dir, func(r *record.Record) { r.Args = []string{"\x1b[31m"}; r.Time = r.Time.Add(-time.Hour) })
	l := open(t, dir)
	if words := strings.Join(append(l.IDs("", 100), l.Recipes()...), " "); strings.Contains(words, "\x1b") {
		t.Errorf("%q", words)
	}
	if err := os.Remove(dir.Path(state.Runs, l.IDs("", 100)[5]) + ".json"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		which      record.Which
		n          int
		want       string
		passedOver int
	}{
		{record.Which{}, 10, "manual nextcloud, systemd nextcloud, drone gitea, manual gitea", 1},
		{record.Which{}, 2, "manual nextcloud, systemd nextcloud", 1},
		{record.Which{Invoker: "manual"}, 10, "manual nextcloud, manual gitea", 0},
		{record.Which{Recipe: "gitea"}, 10, "drone gitea, manual gitea", 1},
		{record.Which{Invoker: "systemd", Recipe: "gitea"}, 10, "", 0},
		{record.Which{Not: strings.Repeat("f", 64)}, 10, "", 0},
		{record.Which{Not: "other", Recipe: "nextcloud"}, 1, "manual nextcloud", 0},
		{record.Which{}, 0, "", 0},
		{record.Which{Recipe: "x\ny"}, 1, "", 0},
	} {
		list, passedOver := open(t, dir).Newest(c.which, c.n)
		var got []string
		for _, r := range list {
			got = append(got, r.Invoker+" "+r.Of)
		}
		if strings.Join(got, ", ") != c.want || len(passedOver) != c.passedOver {
			t.Errorf("%+v, %d: %s, %v", c.which, c.n, strings.Join(got, ", "), passedOver)
		}
	}
}

func TestFind(t *testing.T) {
	dir := state.Dir(t.TempDir())
	base := time.Date(2026, 1, 2, 3, 4, 5, 100_000_000, time.UTC)
	add := func(d time.Duration, result string) *record.Record {
		return put(t, dir, func(r *record.Record) { r.Time, r.Result = base.Add(d), result })
	}
	first, second := add(0, ""), add(20*time.Millisecond, "")
	last := add(time.Hour, "/s/sweep/logs/gitea/20260102T040400.900000000Z.json")
	l := open(t, dir)
	for _, c := range []struct{ id, want, says string }{
		{first.ID, first.ID, ""},
		{"20260102T030405.10", first.ID, ""},
		{"20260102T030405.12", second.ID, ""},
		{"20260102T0304", "", "can mean any of " + first.ID + ", " + second.ID + "; write more of it"},
		{"20260102T04", last.ID, ""},
		{"20260102T040400.900000000Z", last.ID, ""}, // as the sweep calls it
		{"20260102T040400", last.ID, ""},
		{"20260102T040401", "", "no run has this ID, or one that begins with it"},
		{"gitea", "", "no run has this ID, or one that begins with it"},
		{"", "", "no run has this ID, or one that begins with it"},
		{"../runs/" + first.ID, "", "no run has this ID, or one that begins with it"},
	} {
		run, entry, err := l.Find(c.id)
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q: %v, want %s", c.id, err, c.says)
		case c.says == "" && (err != nil || run.ID != c.want || entry.ID != c.want):
			t.Errorf("%q: %+v, %v, want %s", c.id, run, err, c.want)
		}
	}
	for id, want := range map[string]string{first.ID: "20260102T030405.10", second.ID: "20260102T030405.12", last.ID: "20260102T040405", "none": "none"} {
		if got := l.Short(id); got != want {
			t.Errorf("short of %s: %s, want %s", id, got, want)
		}
	}
	if got := l.IDs("20260102T03", 1); !slices.Equal(got, []string{second.ID}) {
		t.Errorf("the newest that begins so: %v", got)
	}
}

func TestEnvironment(t *testing.T) {
	dir := state.Dir(t.TempDir())
	print := func(begin string) string { return begin + strings.Repeat("0", 64-len(begin)) }
	older := put(t, dir, func(r *record.Record) { r.Fingerprint, r.Args = print("aaaa1"), []string{"beef"} })
	newer := put(t, dir, func(r *record.Record) {
		r.Fingerprint, r.Args, r.Time = print("aaaa2"), []string{"cafe"}, r.Time.Add(time.Second)
	})
	for _, f := range []string{print("aaaa1"), print("aaaa2"), print("beef1"), print("20260")} {
		if err := dir.Put(state.Manifests, f+".json", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, dir)
	present := print("bbbb")
	for _, c := range []struct{ word, want, of, says string }{
		{"aaaa1", print("aaaa1"), "environment", ""},
		{"AAAA1", print("aaaa1"), "environment", ""},
		{print("aaaa2"), print("aaaa2"), "environment", ""},
		{"bbbb", present, "environment", ""},
		{"2026", print("20260"), "environment", ""},
		{older.ID, print("aaaa1"), "run " + l.Short(older.ID), ""},
		{newer.ID[:len(newer.ID)-1], print("aaaa2"), "run " + l.Short(newer.ID), ""},
		{"cafe", print("aaaa2"), "cafe's last run", ""},
		{"beef", "", "", "can mean any of environment beef100000000000, beef's last run aaaa100000000000"},
		{"aaaa", "", "", "can mean any of environment aaaa100000000000, environment aaaa200000000000; write more of it"},
		{"aaa", "", "", "names no environment"},
		{"cccc", "", "", "names no environment"},
		{"", "", "", "names no environment"},
		{"19990101T", "", "", "no run has this ID, or one that begins with it"},
		{"../x", "", "", "names no environment"},
	} {
		e, err := l.Environment(c.word, present)
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q: %v, want %s", c.word, err, c.says)
		case c.says == "" && (err != nil || e != Environment{c.want, c.of}):
			t.Errorf("%q: %+v, %v, want %s", c.word, e, err, c.want)
		}
	}
	for fingerprint, want := range map[string]string{present: print("aaaa2"), print("aaaa2"): print("aaaa1"), print("aaaa1"): print("aaaa2")} {
		if e, err := l.Before(fingerprint); err != nil || e.Fingerprint != want {
			t.Errorf("before %s: %+v, %v", fingerprint, e, err)
		}
	}
}

// Programs read this form: a field is added, but none is renamed or removed without
// another schema.
func TestForm(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	data, err := json.Marshal(Run{"i", at, "drone", "o/r/7//", "script", "gitea", "r", "f", Passed, sweep.Promote, "w", &Tests{1, 2, 3, 4, 5, 6}, time.Second, "l", "j", "", 0, 0, nil})
	const want = `{"id":"i","started":"2026-01-02T03:04:05Z","invoker":"drone","invoker_id":"o/r/7//","mode":"script","of":"gitea","revision":"r","fingerprint":"f",` +
		`"outcome":"passed","verdict":"PROMOTE","why":"w","tests":{"total":1,"passed":2,"failed":3,"skipped":4,"other":5,"pending":6},"duration_ns":1000000000,"log":"l","result":"j"}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v\nwant %s", data, err, want)
	}
}

// Among very many records only those that are shown are opened: the others here
// cannot be.
func TestManyRecords(t *testing.T) {
	dir := state.Dir(t.TempDir())
	shown := put(t, dir, func(*record.Record) {})
	for n := range 3000 {
		name := shown.Time.Add(-time.Duration(n+1)*time.Second).Format("20060102T150405.000000000Z") + "-1-manual.json"
		if err := os.Symlink("/dev/zero", dir.Path(state.Runs, name)); err != nil {
			t.Fatal(err)
		}
	}
	if list, passedOver := open(t, dir).Newest(record.Which{}, 1); len(list) != 1 || list[0].ID != shown.ID || len(passedOver) > 0 {
		t.Errorf("%v, %v", list, passedOver)
	}
}

// BenchmarkNewest lists 20 of 100,000 runs.
func BenchmarkNewest(b *testing.B) {
	dir := state.Dir(b.TempDir())
	r := record.Record{Schema: 1, Mode: "script", Invoker: env.Invoker{Name: "manual"}, Program: "runner/run_recipe_ci.py", CallerPath: strings.Repeat("x", 3000)}
	for n := range 100_000 {
		r.Time = time.Now().Add(-time.Duration(n) * time.Second).UTC()
		r.Args = []string{fmt.Sprint("recipe", n%60)}
		r.ID = record.ID(r.Time, "manual", r.Program, r.Args)
		if err := dir.Put(state.Runs, r.ID+".json", r.AppendJSON(nil)); err != nil {
			b.Fatal(err)
		}
	}
	for name, which := range map[string]record.Which{"any": {}, "recipe": {Recipe: "recipe7"}, "none": {Recipe: "none"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				l, err := Open(dir, "")
				if err != nil {
					b.Fatal(err)
				}
				l.Newest(which, 20)
				l.Close()
			}
		})
	}
}
