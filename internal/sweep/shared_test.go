package sweep

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/state"
)

// machines are benches that share their recipes and a memory: each has a state directory
// of its own.
func machines(t *testing.T, names ...string) (shared string, list []*bench) {
	t.Helper()
	dir := t.TempDir()
	shared = filepath.Join(dir, "shared.git")
	if out, err := exec.Command(git, "init", "--quiet", "--bare", shared).CombinedOutput(); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	for _, name := range names {
		b := newBenchIn(t, dir)
		b.State = state.Dir(filepath.Join(dir, name))
		b.Machine, b.Invoker = name, "drone"
		b.Shared = &memory.Remote{URL: shared}
		b.Site = []string{"TOKEN=the same on all machines"}
		b.Environ = append(slices.Clone(b.Environ), "MACHINE="+name, "AT="+dir)
		list = append(list, b)
	}
	return shared, list
}

func TestShared(t *testing.T) {
	_, m := machines(t, "one", "two")
	one, two := m[0], m[1]
	one.recipe("a", "exit 0")
	one.recipe("b", "exit 1")
	one.want("the first machine", "a PROMOTE", "b HOLD")
	two.want("another one", "a SKIP", "b HOLD")
	one.recipe("b", "exit 0")
	two.want("it is changed", "a SKIP", "b PROMOTE")
	one.want("back on the first", "a SKIP", "b SKIP")
	if k := one.known("b"); k.Run == nil || k.Run.Machine != "two" || k.Held {
		t.Errorf("%+v", k)
	}
	diary := repository(t, one.State, "log", "--format=%ae %s", ref("b"))
	if lines := strings.Split(diary, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "drone@two PROMOTE ") || !strings.HasPrefix(lines[2], "drone@one HOLD ") {
		t.Errorf("the diary:\n%s", diary)
	}
	// A machine that has lost its state knows all that the others know.
	if err := os.RemoveAll(string(two.State)); err != nil {
		t.Fatal(err)
	}
	two.want("without a state", "a SKIP", "b SKIP")
	// Another value of the site is another input, on each machine.
	two.Site = []string{"TOKEN=another"}
	two.want("another site", "a PROMOTE", "b PROMOTE")
	one.want("the site of before", "a PROMOTE", "b PROMOTE")
}

// While one machine runs a recipe, another one is quicker.
func TestSharedRace(t *testing.T) {
	for name, c := range map[string]struct {
		slow, quick string // ends of the two runs
		want        Verdict
		says        string
		held        bool // what is remembered at the end
	}{
		"both pass":             {"exit 0", "exit 0", Skip, "it passed on two meanwhile, with the same inputs", false},
		"both fail":             {"exit 1", "exit 1", Hold, "1 failed", true},
		"the slow one fails":    {"exit 1", "exit 0", Skip, "it passed on two meanwhile", false},
		"the quick one fails":   {"exit 0", "exit 1", Promote, "1 passed", false},
		"the slow one is stuck": {"exit 79", "exit 0", Skip, "it passed on two meanwhile", false},
		"the slow one is ended": {"kill -KILL $PPID", "exit 0", Cut, "ended from outside", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, m := machines(t, "one", "two")
			one, two := m[0], m[1]
			one.recipe("a", fmt.Sprintf(`if [ $MACHINE = one ]; then
  : >"$AT/started"
  until [ -e "$AT/go" ]; do sleep 0.02; done
  %s
else
  %s
fi`, c.slow, c.quick))
			results := make(chan []Result)
			go func() {
				r, err := Run(context.Background(), one.Options, func(Event) {})
				if err != nil {
					t.Error(err)
				}
				results <- r
			}()
			at := filepath.Dir(string(one.State))
			waitFor(func() bool { _, err := os.Stat(filepath.Join(at, "started")); return err == nil })
			two.sweep()
			one.write(filepath.Join(at, "go"), "", 0o644)
			r := <-results
			if len(r) != 1 || r[0].Verdict != c.want || !strings.Contains(r[0].Why, c.says) {
				t.Errorf("%+v, want %s: %s", r, c.want, c.says)
			}
			for _, b := range m { // both know the same, and lost nothing
				if _, err := Run(context.Background(), func() Options { o := b.Options; o.DryRun = true; return o }(), func(Event) {}); err != nil {
					t.Error(err)
				}
			}
			k := one.known("a")
			if k.Held != c.held || k.Canonical.Time.IsZero() != c.held {
				t.Errorf("%+v", k)
			}
		})
	}
}

// Nothing is promoted that was not pushed; what needs no run needs no remote.
func TestSharedUnreachable(t *testing.T) {
	refuse := func(t *testing.T, shared string) (undo func()) {
		hook := filepath.Join(shared, "hooks/pre-receive")
		if err := errorsOf(os.MkdirAll(filepath.Dir(hook), 0o755), os.WriteFile(hook, []byte("#!/bin/sh\nexit 1\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
		return func() { _ = os.Remove(hook) }
	}
	away := func(t *testing.T, shared string) (undo func()) {
		if err := os.Rename(shared, shared+".away"); err != nil {
			t.Fatal(err)
		}
		return func() { _ = os.Rename(shared+".away", shared) }
	}
	for name, c := range map[string]struct {
		fault func(t *testing.T, shared string) (undo func())
		why   string
	}{
		"it is away":         {away, "the shared repository cannot be reached: git ls-remote: "},
		"it takes no pushes": {refuse, "its state was not written: the shared repository cannot be reached: git push: "},
	} {
		t.Run(name, func(t *testing.T) {
			shared, m := machines(t, "one", "two")
			one := m[0]
			one.recipe("a", "exit 0")
			one.recipe("b", "exit 0")
			one.want("first", "a PROMOTE", "b PROMOTE")
			good := one.known("b").Canonical
			one.recipe("b", "exit 0; true")
			undo := c.fault(t, shared)
			results, err := Run(context.Background(), one.Options, func(Event) {})
			if err != nil || !slices.Equal(verdicts(results), []string{"a SKIP", "b ERROR"}) || !strings.Contains(results[1].Why, c.why) {
				t.Errorf("%+v, %v", results, err)
			}
			if k := one.known("b"); !k.Canonical.Inputs.equal(good.Inputs) || k.Canonical.FailedSince {
				t.Errorf("%+v", k)
			}
			undo()
			m[1].want("it is back", "a SKIP", "b PROMOTE")
			one.want("it is back, here", "a SKIP", "b SKIP")
		})
	}
}

// What one machine alone remembers is not the truth.
func TestNotShared(t *testing.T) {
	_, m := machines(t, "one", "two")
	one := m[0]
	one.recipe("a", "exit 0")
	remote := one.Shared
	one.Shared = nil
	one.want("alone", "a PROMOTE")
	one.Shared = remote
	results, err := Run(context.Background(), one.Options, func(Event) {})
	if err != nil || results[0].Verdict != Promote || !strings.Contains(results[0].Why, "the shared repository does not have this recipe") {
		t.Errorf("%+v, %v", results, err)
	}
	m[1].want("another machine", "a SKIP")
	if k := one.known("a"); time.Since(k.Canonical.Time) > time.Hour {
		t.Errorf("%+v", k)
	}
	// Nor are files of an earlier cc-ci-run, however new they are.
	k := one.known("a")
	k.Schema, k.Last.Started, k.Canonical.Revision = 2, k.Last.Started.Add(time.Hour), "of this machine alone"
	one.write(one.State.Path(state.Recipes, "a.json"), text(k), 0o644)
	one.want("beside a file of an earlier version", "a SKIP")
}

// What is damaged on one machine is fetched again, and costs nobody the history.
func TestSharedDamage(t *testing.T) {
	for _, which := range []string{"commit", "tree", "state"} {
		for name, change := range map[string]func([]byte) []byte{
			"missing":      nil,
			"another byte": func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		} {
			t.Run(which+" "+name, func(t *testing.T) {
				_, m := machines(t, "one", "two")
				one, two := m[0], m[1]
				one.recipe("a", "exit 1")
				one.want("first", "a HOLD")
				one.recipe("a", "exit 0")
				one.want("second", "a PROMOTE")
				two.want("another machine", "a SKIP")
				objectBecomes(which, change)(t, two.State, "a")
				two.want("damaged", "a SKIP")
				one.want("the first machine", "a SKIP")
				if n := repository(t, one.State, "rev-list", "--count", ref("a")); n != "2" {
					t.Errorf("the history has %s commits", n)
				}
			})
		}
	}
}

// The machines' key is the one of its ref, and is whole.
func TestSharedKey(t *testing.T) {
	shared, m := machines(t, "one", "two")
	one, two := m[0], m[1]
	one.recipe("a", "exit 0")
	one.want("first", "a PROMOTE")
	remote := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(git, append([]string{"--git-dir=" + shared}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %s, %v", args, out, err)
		}
	}
	// Refs with names that end like those of the memory.
	remote("update-ref", "refs/aaa/refs/cc-ci/key", ref("a"))
	remote("update-ref", "refs/cc-ci/sweep/b/c", ref("a"))
	one.want("beside refs of others", "a SKIP")
	two.want("beside refs of others, too", "a SKIP")
	remote("update-ref", "refs/cc-ci/key", ref("a"))
	if results, err := Run(context.Background(), two.Options, func(Event) {}); err == nil || !strings.Contains(err.Error(), "refs/cc-ci/key in the shared repository has no key of 32 bytes") {
		t.Errorf("without a key: %+v, %v", results, err)
	}
}
