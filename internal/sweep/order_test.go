package sweep

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/internal/state"
)

// night makes a sweep of which the given number of runs come to their end; the
// next ones stay, and the sweep is ended, as by a unit's time limit. It says in
// which order runs were started.
func (b *bench) night(ends int) (order []string, results []Result) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stay := func(name string) string { return filepath.Join(filepath.Dir(b.Program), "stay-"+name) }
	results, err := Run(ctx, b.Options, func(e Event) {
		if e.Result != nil {
			return
		}
		order = append(order, e.Recipe)
		_ = os.Remove(stay(e.Recipe))
		if len(order) > ends {
			b.write(stay(e.Recipe), "", 0o644)
		}
		if len(order) == ends+b.Jobs {
			cancel()
		}
	})
	if over := len(order) == ends+b.Jobs; over != (err != nil) {
		b.t.Fatalf("order %q: %v", order, err)
	}
	return order, results
}

// staying is a test that does not come to its end if it is told so.
const staying = "while [ -e ../../stay-${PWD##*/} ]; do sleep 1000; done; exit 0"

// What waits longest is run first, and among what waits as long the first by
// name. A skipped recipe waits for nothing.
func TestLongestWaitingFirst(t *testing.T) {
	b := newBench(t)
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		b.recipe(name, "exit 0")
	}
	order := func(what string, want ...string) {
		t.Helper()
		if got, _ := b.night(100); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	order("all are new", "a", "b", "c", "d")
	b.Force = true
	b.Only = []string{"c"}
	order("one by itself", "c")
	b.Only = nil
	order("all", "a", "b", "d", "c")
	b.Only = []string{"c", "b"}
	order("some: how long they wait, not how they are named", "b", "c")
	b.Only = nil
	b.recipe("new", "exit 0")
	b.recipe("a", "exit 1")
	order("one is new", "new", "a", "d", "b", "c")
	b.Force = false
	order("one is held", "a")
	setState(t, b.State, "c", "{")
	order("a damaged state: nothing is known of its runs", "c", "a")
	b.recipe("b", "exit 79")
	b.recipe("d", "exit 0 # edited")
	order("an ERROR comes to its end", "d", "b", "a")
	b.recipe("d", "exit 1")
	order("and a HOLD", "d", "b", "a")

	// What says nothing does not change the order: a dry run, a killed run, a
	// folder that cannot be read.
	b.DryRun = true
	order("a dry run")
	b.DryRun = false
	b.recipe("d", "kill -KILL $PPID")
	order("killed", "d", "b", "a")
	b.recipe("b", "exit 0 # edited")
	b.recipe("d", "exit 0 # edited again")
	order("it still waits longest", "d", "b", "a")
}

// Nights that end too early run everybody: each night goes on where the last one
// was cut off, and a recipe that takes all of a night goes to the back.
func TestShortNights(t *testing.T) {
	for _, jobs := range []int{1, 2, 3} {
		for _, perNight := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%d jobs, %d runs a night", jobs, perNight), func(t *testing.T) {
				b := newBenchIn(t, fastDir(t))
				b.Jobs = jobs
				const recipes = 8
				for n := range recipes {
					b.recipe(fmt.Sprintf("r%d", n), staying)
				}
				b.Force = true
				// A turn is a run that came to its end, or that had the whole night.
				turns := map[string]int{}
				nights := 0
				for ; len(turns) < recipes; nights++ {
					if nights == recipes {
						t.Fatalf("after %d nights only these had a turn: %v", nights, turns)
					}
					order, results := b.night(perNight)
					for _, r := range results {
						at := slices.Index(order, r.Recipe)
						if ended := r.Verdict == Promote; ended || at >= 0 && at < jobs {
							turns[r.Recipe]++
						} else if r.Verdict != Cut {
							t.Errorf("night %d: %+v", nights, r)
						}
					}
				}
				if atOnce := max(jobs, perNight); nights > (recipes+atOnce-1)/atOnce {
					t.Errorf("%d nights for %d recipes, of which %d have a turn in each", nights, recipes, atOnce)
				}
				if all := slices.Sorted(maps.Values(turns)); all[len(all)-1] > 1 && perNight == 0 && jobs != 3 {
					t.Errorf("turns: %v", turns)
				}
			})
		}
	}
}

// One recipe takes all the time that it is given: the others have their turn all
// the same, every second night.
func TestOneTakesAll(t *testing.T) {
	b := newBenchIn(t, fastDir(t))
	for _, name := range []string{"a", "hog", "z"} {
		b.recipe(name, "exit 0")
	}
	b.Force = true
	b.want("first", "a PROMOTE", "hog PROMOTE", "z PROMOTE")
	b.recipe("hog", "exec sleep 1000")
	got := map[string]int{}
	for range 6 {
		ctx, cancel := context.WithCancel(context.Background())
		_, _ = Run(ctx, b.Options, func(e Event) {
			switch {
			case e.Result == nil && e.Recipe == "hog":
				cancel()
			case e.Result != nil && e.Result.Verdict == Promote:
				got[e.Recipe]++
			}
		})
		cancel()
	}
	if got["a"] < 3 || got["z"] < 2 { // z comes after the hog in the first night
		t.Errorf("verdicts in 6 nights: %v", got)
	}
}

// A state file of schema 1, as version 0.1 wrote them, is taken over: what it promoted
// stays canonical, and what it held stays held. It promoted by the exit status alone,
// so the recipe is run once more, also where nothing else changed.
func TestSchema1(t *testing.T) {
	for _, site := range [][]string{nil, {"A=b"}} {
		b := newBench(t)
		b.Site = site
		b.recipe("a", "exit 0")
		b.recipe("b", "exit 1")
		b.want("to know the inputs", "a PROMOTE", "b HOLD")
		path := filepath.Join(string(b.State), "sweep/recipes")
		is := b.known("a").Canonical
		old := func(name, verdict string) string {
			return fmt.Sprintf(`{"schema":1,"canonical":{"revision":%q,"tree":%q,"fingerprint":%q,"runner":%q,"time":"2026-01-02T03:04:05Z"},
"last":{"recipe":%q,"verdict":%q,"why":"","revision":%[1]q,"started":"2026-01-02T03:04:05Z","duration_ns":1}}`, is.Revision, is.Tree, is.Fingerprint, is.Runner, name, verdict)
		}
		if err := os.RemoveAll(b.State.Path(state.Memory, "")); err != nil {
			t.Fatal(err)
		}
		b.write(filepath.Join(path, "a.json"), old("a", "PROMOTE"), 0o644)
		b.write(filepath.Join(path, "b.json"), old("b", "HOLD"), 0o644)
		list, damaged, err := States(b.State, git)
		if len(list) != 2 || len(damaged) != 0 || err != nil {
			t.Errorf("%+v, %d, %v", list, damaged, err)
		}
		for _, known := range list {
			if known.Canonical.Revision != is.Revision || known.Canonical.Time.IsZero() || known.Held != (known.Recipe == "b") {
				t.Errorf("%+v", known)
			}
		}
		b.want(fmt.Sprintf("site %q", site), "a PROMOTE", "b HOLD")
		if s := b.known("b"); s.Schema != Schema || s.Canonical.Revision != is.Revision || !s.Held {
			t.Errorf("%+v", s)
		}
		if left, _ := os.ReadDir(path); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		b.want("and no more", "a SKIP", "b HOLD")
	}
}

// A file of a newer cc-ci-run is whole: it is an error, and stays as it is.
func TestNewerSchema(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	b.recipe("b", "exit 0")
	b.sweep()
	newer := `{"schema":4,"what":"is not known here"}`
	setState(t, b.State, "a", newer)
	for _, change := range []func(){func() {}, func() { b.DryRun = true }, func() { b.DryRun, b.Removed = false, true; _ = os.RemoveAll(filepath.Join(b.Recipes, "a")) }} {
		change()
		results, err := Run(context.Background(), b.Options, func(Event) {})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Recipe == "a" && (r.Verdict != Error || !strings.Contains(r.Why, "was written by a newer cc-ci-run (schema 4, this one knows 3)")) {
				t.Errorf("%+v", r)
			}
		}
		if now := rawState(t, b.State, "a"); now != newer {
			t.Errorf("the state became %s", now)
		}
	}
}

// Which files count as damaged.
func TestDamage(t *testing.T) {
	whole := string(must(json.Marshal(promoted())))
	if _, err := parseState("a.json", []byte(whole)); err != nil {
		t.Fatalf("%s: %v", whole, err)
	}
	damaged := []string{
		"", " ", "null", "[]", "{}", "1", `"x"`, "\x00", strings.Repeat("\x00", len(whole)), "{", whole + "x", whole + whole,
		`{"schema":0}`, `{"schema":-1}`, `{"schema":"2"}`, `{"schema":3}`, `{"schema":3,"last":{}}`, `{"schema":3,"canonical":7}`, `{"schema":2}`, `{"schema":2,"last":{}}`, `{"schema":1}`, `{"schema":1,"last":7}`,
		strings.Replace(whole, `"schema":3`, `"schema":0`, 1), strings.Replace(whole, `"held":false`, `"held":7`, 1),
	}
	for n := range len(whole) {
		damaged = append(damaged, whole[:n])
	}
	for _, content := range damaged {
		known, err := parseState("a.json", []byte(content))
		if !state.Damaged(err) || !known.Canonical.Time.IsZero() {
			t.Errorf("%q: %+v, %v", content, known, err)
		}
	}
}

// A recipe that was removed is told once, also if a sweep that would have told
// it was killed; and by hand only where the same directory had it.
func TestGone(t *testing.T) {
	b := newBench(t)
	b.Removed = true
	for _, name := range []string{"a", "b", "c"} {
		b.recipe(name, "exit 0")
	}
	b.recipe("c", "exit 1")
	b.want("first", "a PROMOTE", "b PROMOTE", "c HOLD")
	for _, name := range []string{"b", "c"} {
		if err := os.RemoveAll(filepath.Join(b.Recipes, name)); err != nil {
			t.Fatal(err)
		}
	}
	b.Removed = false
	b.want("not asked", "a SKIP")
	b.Removed = true
	elsewhere := b.Recipes + "2"
	if err := os.Symlink(b.Recipes, elsewhere); err != nil {
		t.Fatal(err)
	}
	b.DryRun = true
	b.want("a dry run", "a SKIP", "b GONE", "c GONE")
	b.DryRun = false
	// A sweep that is killed has told nobody.
	b.recipe("a", "exec sleep 1000")
	for s := startSweep(t, b.Options); s.scan(); {
		if s.line == "runs a" {
			s.kill()
			defer s.wait()
		}
	}
	b.recipe("a", "exit 0")
	good := b.Recipes
	b.Recipes = elsewhere
	b.Wait = true // a child that the killed sweep was starting has the lock until it executes
	b.want("by hand, of another directory", "a SKIP")
	b.Recipes = good
	results, err := Run(context.Background(), b.Options, func(Event) {})
	if err != nil || !slices.Equal(verdicts(results), []string{"a SKIP", "b GONE", "c GONE"}) {
		t.Fatalf("%q, %v", verdicts(results), err)
	}
	for _, r := range results[1:] {
		if want := map[string]bool{"b": true, "c": false}[r.Recipe]; strings.HasPrefix(r.Promoted, "tree-") != want || r.Why != "its folder was removed from "+good {
			t.Errorf("%s: %s, canonical %q", r.Recipe, r.Why, r.Promoted)
		}
	}
	b.want("again", "a SKIP")
	if s := b.known("c"); s.Held || s.Last.Verdict != Gone {
		t.Errorf("%+v", s)
	}
	b.recipe("b", "exit 0")
	b.recipe("c", "exit 1")
	b.want("back", "a SKIP", "b SKIP", "c HOLD")
	if s := b.known("b"); s.Last.Verdict != Skip {
		t.Errorf("%+v", s)
	}
	// Once more, and a damaged state says so.
	if err := os.RemoveAll(filepath.Join(b.Recipes, "c")); err != nil {
		t.Fatal(err)
	}
	setState(t, b.State, "c", "{")
	results, err = Run(context.Background(), b.Options, func(Event) {})
	if err != nil || !slices.Equal(verdicts(results), []string{"a SKIP", "b SKIP", "c GONE"}) || !strings.Contains(results[2].Why, "its state was damaged") {
		t.Errorf("%+v, %v", results, err)
	}
}
