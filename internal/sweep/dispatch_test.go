package sweep

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cc-ci-run/internal/state"
)

// others are machines of a test: each really sweeps, with a state directory of its own.
type others struct {
	machines []*bench
	// happens, if not nil, is called before a machine is asked for the nth time (from 0). If
	// the ending that it gives is not nil, the machine is not asked.
	happens func(n int, m *bench) *Ending

	lock  sync.Mutex
	asked []Request
}

func (o *others) Run(ctx context.Context, r Request, tell func(about, text string)) Ending {
	o.lock.Lock()
	n := len(o.asked)
	o.asked = append(o.asked, r)
	o.lock.Unlock()
	m := o.machines[n%len(o.machines)]
	tell(r.Recipe, "runs on "+m.Machine)
	if o.happens != nil {
		if end := o.happens(n, m); end != nil {
			return *end
		}
	}
	options := m.Options
	options.Only, options.Asked, options.Wait = []string{r.Recipe}, r.Asked, true
	results, err := Run(ctx, options, func(Event) {})
	said := fmt.Sprintln(err)
	for _, result := range results {
		said = fmt.Sprintf("VERDICT RECIPE TIME WHY\n%s %s %s\n", result.Verdict, result.Recipe, result.Why)
	}
	return Ending{Machine: m.Machine, Link: fmt.Sprintf("https://drone.example.org/ci/recipes/%d", n), Said: func(context.Context) string { return said }}
}

// dispatcher is a bench whose recipes two other ones run.
func dispatcher(t *testing.T) (shared string, d *bench, o *others) {
	shared, list := machines(t, "dispatcher", "one", "two")
	o = &others{machines: list[1:]}
	d = list[0]
	d.Elsewhere, d.Invoker, d.Jobs, d.Removed = o, "systemd", 4, true
	was, wasRetries := pauses, retries
	pauses, retries.most = []time.Duration{time.Millisecond, time.Millisecond}, 0
	t.Cleanup(func() { pauses, retries = was, wasRetries })
	return shared, d, o
}

func TestDispatch(t *testing.T) {
	_, d, o := dispatcher(t)
	for _, name := range []string{"a", "b", "c"} {
		d.recipe(name, "exit 0")
	}
	d.recipe("bad", "exit 1")
	var notes []string
	results, err := Run(context.Background(), d.Options, func(e Event) {
		if e.Note != "" {
			notes = append(notes, e.Recipe+" "+e.Note)
		}
	})
	if want := []string{"a PROMOTE", "b PROMOTE", "bad HOLD", "c PROMOTE"}; err != nil || !slices.Equal(verdicts(results), want) {
		t.Fatalf("%+v, %v; want %q", results, err, want)
	}
	machine := map[string]bool{}
	for _, r := range results {
		if r.Log == "" || r.Tests.Tests != 1 || r.Started.IsZero() || r.Duration <= 0 || !strings.HasPrefix(r.Revision, "tree-") || (r.Promoted != "") != (r.Verdict == Promote) {
			t.Errorf("%+v", r)
		}
		words := strings.Fields(r.Why)
		machine[words[len(words)-1]] = true
	}
	if !machine["one"] || !machine["two"] || len(machine) != 2 || len(notes) != 4 {
		t.Errorf("run on %v, notes %q", machine, notes)
	}
	// The dispatcher has written nothing, and its copy is that of the shared repository.
	for _, name := range []string{"a", "bad"} {
		if author := repository(t, d.State, "log", "--format=%an", ref(name)); author != "drone" {
			t.Errorf("%s: commits by %q", name, author)
		}
	}
	d.want("unchanged", "a SKIP", "b SKIP", "bad HOLD", "c SKIP")
	if len(o.asked) != 5 {
		t.Errorf("asked for %+v", o.asked)
	}
	if last, err := Last(d.State); err != nil || last.Verdicts[Skip] != 3 || last.Status != 1 || last.Invoker != "systemd" {
		t.Errorf("%+v, %v", last, err)
	}
	// What only the dispatcher wants is run, too: its age, or by force.
	d.Force = true
	d.want("forced", "a PROMOTE", "b PROMOTE", "bad HOLD", "c PROMOTE")
	// A folder that is gone is told, as by every sweep.
	d.Force = false
	if err := os.RemoveAll(filepath.Join(d.Recipes, "bad")); err != nil {
		t.Fatal(err)
	}
	d.want("a folder is removed", "a SKIP", "b SKIP", "c SKIP", "bad GONE")
}

func TestDispatchTrouble(t *testing.T) {
	nothing := func(int, *bench) *Ending {
		return &Ending{Machine: "one", Link: "L", Said: func(context.Context) string { return "first\nsecond \x1b[31m\nthird\n\n" }}
	}
	for name, c := range map[string]struct {
		test    string
		happens func(n int, m *bench) *Ending
		want    Verdict
		says    []string
		asked   int
	}{
		"a machine says nothing": {"exit 0", nothing, Error, []string{"no verdict came from the machine one: second  [31m | third; L"}, 2},
		"once, a machine says nothing": {"exit 0", func(n int, m *bench) *Ending {
			if n == 0 {
				return nothing(n, m)
			}
			return nil
		}, Promote, []string{"1 passed", " on two"}, 2},
		"another attempt is of no use": {"exit 0", func(int, *bench) *Ending { return &Ending{Failed: "it was cancelled", Link: "L", Final: true} }, Error, []string{"it was cancelled; L"}, 1},
		"it is lost twice":             {"exit 0", func(int, *bench) *Ending { return &Ending{Failed: "it was lost", Link: "L"} }, Error, []string{"it was lost; L"}, 2},
		"the machine was quick, and then lost": {"exit 0", func(n int, m *bench) *Ending {
			o := m.Options
			o.Only = []string{"a"}
			if _, err := Run(context.Background(), o, func(Event) {}); err != nil {
				m.t.Error(err)
			}
			return &Ending{Failed: "it was lost", Machine: m.Machine}
		}, Promote, []string{" on one"}, 1},
		"the verdict comes at the last moment": {"exit 0", func(_ int, m *bench) *Ending {
			return &Ending{Failed: "it was lost", Final: true, Said: func(context.Context) string {
				o := m.Options
				o.Only = []string{"a"}
				if _, err := Run(context.Background(), o, func(Event) {}); err != nil {
					m.t.Error(err)
				}
				return ""
			}}
		}, Promote, []string{" on one"}, 1},
		"all machines have another environment": {"exit 0", func(_ int, m *bench) *Ending {
			m.Manifest = filepath.Join(filepath.Dir(m.Manifest), "another.json")
			m.write(m.Manifest, "f2", 0o644)
			return nil
		}, Error, []string{"no verdict came from the machine two: ", "the machine two has the environment ", ", and the dispatcher asks for ", "`cc-ci-run env diff "}, 2},
		"one machine has another environment": {"exit 0", func(n int, m *bench) *Ending {
			if n == 0 {
				m.Manifest = filepath.Join(filepath.Dir(m.Manifest), "another.json")
				m.write(m.Manifest, "f2", 0o644)
			}
			return nil
		}, Promote, []string{" on two"}, 2},
		"the run is cut off once":  {"if [ $MACHINE = one ]; then kill -KILL $PPID; fi", nil, Promote, []string{" on two"}, 2},
		"the run is cut off twice": {"kill -KILL $PPID", nil, Cut, []string{"ended from outside", " on two"}, 2},
		"another runner": {"exit 0", func(_ int, m *bench) *Ending {
			m.Runner = filepath.Join(filepath.Dir(filepath.Dir(m.Runner)), "runner2", "run.py")
			m.write(m.Runner, "another runner", 0o644)
			return nil
		}, Promote, []string{" on one; the dispatcher dispatcher has other inputs (another runner), so its next sweep runs the recipe again"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, d, o := dispatcher(t)
			o.happens = c.happens
			d.recipe("a", c.test)
			results, err := Run(context.Background(), d.Options, func(Event) {})
			if err != nil || len(results) != 1 || results[0].Verdict != c.want {
				t.Fatalf("%+v, %v; want %s", results, err, c.want)
			}
			for _, words := range c.says {
				if !strings.Contains(results[0].Why, words) {
					t.Errorf("%q, should say %q", results[0].Why, words)
				}
			}
			if k := d.known("a"); c.want == Error && (k.Last.Verdict != Error || k.Last.Why != results[0].Why) {
				t.Errorf("remembered is %+v", k.Last)
			}
			if len(o.asked) != c.asked {
				t.Errorf("asked %d times, should be %d: %+v", len(o.asked), c.asked, o.asked)
			}
		})
	}
}

// The shared repository may be away when a verdict is to be read.
func TestDispatchUnreachable(t *testing.T) {
	for name, back := range map[string]bool{"it returns": true, "it stays away": false} {
		t.Run(name, func(t *testing.T) {
			shared, d, o := dispatcher(t)
			d.recipe("a", "exit 0")
			o.happens = func(n int, m *bench) *Ending {
				options := m.Options
				options.Only = []string{"a"}
				if _, err := Run(context.Background(), options, func(Event) {}); err != nil {
					t.Error(err)
				}
				if err := os.Rename(shared, shared+".away"); err != nil {
					t.Error(err)
				}
				if back {
					pauses = slices.Repeat([]time.Duration{10 * time.Millisecond}, 6000)
					time.AfterFunc(100*time.Millisecond, func() { _ = os.Rename(shared+".away", shared) })
				}
				return &Ending{Machine: m.Machine, Link: "L"}
			}
			results, err := Run(context.Background(), d.Options, func(Event) {})
			want, says := Promote, " on one"
			if !back {
				want, says = Error, "its verdict cannot be read: the shared repository cannot be reached"
			}
			if err != nil || len(results) != 1 || results[0].Verdict != want || !strings.Contains(results[0].Why, says) {
				t.Errorf("%+v, %v", results, err)
			}
		})
	}
}

// A machine that cannot do what a dispatcher asks for tries again, but tests that ran do not
// run again. An unknown or unreadable recipe, or a failing test, is not tried again.
func TestUnable(t *testing.T) {
	const gone = `mv "$AT/shared.git" "$AT/shared.git.away"`
	away := func(o *Options) { _ = os.Rename(o.Shared.URL, o.Shared.URL+".away") }
	for name, c := range map[string]struct {
		test    string         // of recipe a; "": it passes
		options func(*Options) // nil: nothing fails
		heals   bool           // while the machine tries, the shared repository returns
		tries   bool           // the machine tries again
		says    string
		want    []string
	}{
		"the shared repository is away":             {"", away, false, true, "the machine one could not run a, or could not remember the verdict: the shared repository cannot be reached", []string{"a ERROR"}},
		"the shared repository is away for a while": {"", away, true, true, "", []string{"a PROMOTE"}},
		"the same, and the recipe has passed": {"", func(o *Options) {
			first := *o
			first.Asked = Asked{}
			if _, err := Run(context.Background(), first, func(Event) {}); err != nil {
				t.Error(err)
			}
			away(o)
		}, false, true, "the shared repository cannot be reached", []string{"a ERROR"}},
		"it goes away during the run":                {gone, nil, false, true, "or could not remember the verdict: its state was not written", []string{"a ERROR"}},
		"it is away at the end of the run":           {gone, nil, true, true, "", []string{"a PROMOTE"}},
		"it is away at the end of a run that failed": {gone + "; exit 1", nil, true, true, "", []string{"a HOLD"}},
		"nobody asks":         {"", func(o *Options) { o.Asked = Asked{}; away(o) }, false, false, "", []string{"a ERROR"}},
		"another environment": {"", func(o *Options) { o.Asked.Fingerprint = strings.Repeat("f", 64) }, false, true, "has the environment", []string{"a ERROR"}},
		"there is a file in place of the state directory": {"", func(o *Options) { o.State = state.Dir(o.Runner) }, false, true, "not a directory", nil},
		"the environment changed since it was built":      {"", func(o *Options) { o.Intact = func() error { return errors.New("it changed") } }, false, true, "it changed", nil},
		"the supervisor cannot be started":                {"", func(o *Options) { o.Supervisor = []string{"/nowhere"} }, false, true, "could not be started", []string{"a ERROR"}},
		"no run can be started":                           {"", func(o *Options) { o.Program = "/nowhere" }, false, true, "could not be started", []string{"a ERROR"}},
		"the runner script is missing":                    {"", func(o *Options) { o.Runner = "/nowhere" }, false, true, "/nowhere", nil},
		"no such recipe":                                  {"", func(o *Options) { o.Only = []string{"b"} }, false, false, `"b": no such recipe`, nil},
		"a recipe that cannot be read":                    {"", func(o *Options) { o.Only = []string{"broken"} }, false, false, "", []string{"broken ERROR"}},
		"a recipe fails":                                  {"", func(o *Options) { o.Only = []string{"bad"} }, false, false, "", []string{"bad HOLD"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, m := machines(t, "one")
			one := m[0]
			one.recipe("a", `echo >> "$AT/ran"; `+cmp.Or(c.test, "exit 0"))
			one.recipe("bad", "exit 1")
			if err := os.Symlink("nowhere", filepath.Join(one.Recipes, "broken")); err != nil {
				t.Fatal(err)
			}
			one.Only, one.Asked.Seen = []string{"a"}, NoCommit
			if c.options != nil {
				c.options(&one.Options)
			}
			was := retries
			retries.every = 10 * time.Millisecond
			one.Timeout = time.Hour
			defer func() { retries = was }()
			tries := false
			results, err := Run(t.Context(), one.Options, func(e Event) {
				if strings.Contains(e.Note, "; the machine tries again for 10m") {
					if tries = true; c.heals {
						_ = os.Rename(one.Shared.URL+".away", one.Shared.URL)
					} else {
						retries.most = 0 // it has tried for long enough
					}
				}
			})
			if !slices.Equal(verdicts(results), c.want) || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v; want %q, %q", results, err, c.want, c.says)
			}
			if tries != c.tries {
				t.Errorf("it tried again: %t, should be %t", tries, c.tries)
			}
			if ran, _ := os.ReadFile(filepath.Join(filepath.Dir(one.Shared.URL), "ran")); len(ran) > 1 {
				t.Errorf("the tests ran %d times", len(ran))
			}
			if unable := errors.As(err, new(*Unable)); unable != (c.tries && !c.heals) {
				t.Errorf("%v: the machine could not work: %t", err, unable)
			}
		})
	}
}

// A push reaches the shared repository, and its answer is lost: the run counts once.
func TestLostAnswer(t *testing.T) {
	for test, want := range map[string]string{"exit 0": "a PROMOTE", "exit 1": "a HOLD"} {
		shared, m := machines(t, "one")
		one := m[0]
		one.recipe("a", test)
		one.write(filepath.Join(shared, "hooks", "post-receive"), `#!/bin/sh
grep -q refs/cc-ci/sweep || exit 0
[ -e once ] && exit 0
touch once
kill -9 $PPID
`, 0o755)
		was := retries
		retries.every = 10 * time.Millisecond
		one.Only, one.Timeout, one.Asked.Seen = []string{"a"}, time.Hour, NoCommit
		one.want(test, want)
		retries = was
		if _, err := os.Stat(filepath.Join(shared, "once")); err != nil {
			t.Error("the answer was not lost")
		}
		if commits := repository(t, one.State, "rev-list", "--count", ref("a")); commits != "1" {
			t.Errorf("%s: %s commits", test, commits)
		}
		if k := one.known("a"); k.Streak.Runs != 1 || string(k.Last.Verdict) != strings.Fields(want)[1] {
			t.Errorf("%s: %+v, last %+v", test, k.Streak, k.Last)
		}
	}
}

// The end of a dispatcher leaves no verdict, and the next one goes on.
func TestDispatchEnded(t *testing.T) {
	_, d, o := dispatcher(t)
	d.recipe("a", "exit 0")
	d.recipe("b", "exit 0")
	d.Jobs = 1
	ctx, cancel := context.WithCancel(context.Background())
	o.happens = func(int, *bench) *Ending { cancel(); return &Ending{Failed: "cancelled"} }
	results, err := Run(ctx, d.Options, func(Event) {})
	if err == nil || !slices.Equal(verdicts(results), []string{"a CUT", "b CUT"}) {
		t.Errorf("%+v, %v", results, err)
	}
	o.happens = nil
	d.want("the next sweep", "a PROMOTE", "b PROMOTE")
}

// A machine runs what it is asked for only as long as the recipe's state is the one that the
// dispatcher has seen: of two builds, the second finds nothing to do.
func TestAsked(t *testing.T) {
	_, m := machines(t, "one")
	one := m[0]
	one.recipe("a", "exit 0")
	one.Asked.Seen = NoCommit
	one.want("no ref", "a PROMOTE")
	first := repository(t, one.State, "rev-parse", ref("a"))
	one.want("there is a ref", "a SKIP")
	one.Asked.Seen = first
	one.want("the ref is as it was seen", "a PROMOTE")
	if why := one.known("a").Last.Why; !strings.Contains(why, "(the dispatcher asks for it)") {
		t.Errorf("%s", why)
	}
	one.want("the ref has another commit", "a SKIP")
	one.recipe("a", "exit 1")
	one.want("the recipe has changed", "a HOLD")
	for _, asked := range []Asked{
		{Seen: "x"},
		{Seen: strings.Repeat("g", 40)},
		{Seen: first + "\n"},
		{Seen: strings.ToUpper(first)},
		{Seen: "--force"},
		{Seen: "refs/heads/main"},
		{Seen: first[:12]},
		{Fingerprint: "x"},
		{Fingerprint: "$(touch x)"},
		{Fingerprint: first},
		{Fingerprint: strings.Repeat("a", 1<<20)},
	} {
		one.Asked = asked
		if results, err := Run(context.Background(), one.Options, func(Event) {}); err == nil || len(results) != 0 || len(err.Error()) > 500 {
			t.Errorf("%.100q: %+v, %.600v", asked, results, err)
		}
	}
	one.Asked, one.Shared = Asked{Seen: NoCommit}, nil
	if _, err := Run(context.Background(), one.Options, func(Event) {}); err == nil || !strings.Contains(err.Error(), "--shared URL") {
		t.Error(err)
	}
}

// Names that come from whoever may start builds run nothing.
func TestNamesOfBuilds(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	trap := filepath.Join(filepath.Dir(b.Recipes), "trap")
	for _, name := range []string{"", ".", "..", "../recipes/a", "/", "a/", "./a", "a/../a", "a\n", "a\x00", "-a", "--all", "*", "A", "$(touch " + trap + ")", "`touch " + trap + "`", "a; touch " + trap, "a' 'b", `a"b`, ".git", "__a__", strings.Repeat("a", 1<<16)} {
		b.Only = []string{name}
		if results, err := Run(context.Background(), b.Options, func(Event) {}); err == nil || len(results) != 0 || !strings.Contains(err.Error(), "no such recipe") {
			t.Errorf("%.100q: %+v, %.200v", name, results, err)
		}
	}
	if logs, _ := os.ReadDir(b.State.Path(state.Logs, "")); len(logs) != 0 {
		t.Errorf("logs: %v", logs)
	}
	if _, err := os.Lstat(trap); err == nil {
		t.Error("a name was executed")
	}
}

func TestWaitLimit(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	s, err := openStore(context.Background(), b.Options, func(cmd *exec.Cmd) (func() error, error) { return cmd.Wait, cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	b.Wait, b.WaitLimit = true, time.Millisecond
	if _, err := Run(context.Background(), b.Options, func(Event) {}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("for the 1ms that this one waited (process %d, ", os.Getpid())) {
		t.Error(err)
	}
	s.close()
	b.want("the other sweep has ended", "a PROMOTE")
}

// What a run prints is shown as it is kept: without the site's secrets.
func TestShow(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "echo the password is $SECRET")
	b.recipe("b", "exit 0")
	b.Site = []string{"SECRET=hunter22"}
	b.Environ = append(b.Environ, b.Site...)
	var shown bytes.Buffer
	b.Show, b.Only = &shown, []string{"a"}
	b.want("one recipe", "a PROMOTE")
	log, err := os.ReadFile(b.known("a").Last.Log)
	if err != nil || !strings.Contains(shown.String(), "the password is ******\n") || shown.String() != string(log) {
		t.Errorf("shown %q, the log %q, %v", shown.String(), log, err)
	}
	b.Only = nil
	if _, err := Run(context.Background(), b.Options, func(Event) {}); err == nil || !strings.Contains(err.Error(), "--show-log shows the output of one recipe, and this sweep is of 2") {
		t.Error(err)
	}
}

// What comes to a recipe's ref while a machine is asked for the recipe is no verdict unless
// it is one.
func TestDispatchNoVerdict(t *testing.T) {
	// becomes gives the recipe's ref another state, as somebody who may push can.
	becomes := func(t *testing.T, shared string, change func(string) string) {
		t.Helper()
		run := func(input string, args ...string) string {
			cmd := exec.Command(git, append([]string{"--git-dir=" + shared, "-c", "user.name=x", "-c", "user.email=x"}, args...)...)
			cmd.Stdin = strings.NewReader(input)
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("git %q: %v", args, err)
			}
			return strings.TrimSpace(string(out))
		}
		blob := run(change(run("", "show", ref("a")+":"+stateFile)), "hash-object", "-w", "--stdin")
		tree := run("100644 blob "+blob+"\t"+stateFile+"\n", "mktree")
		run("", "update-ref", ref("a"), run("", "commit-tree", "-p", ref("a"), "-m", fmt.Sprint(time.Now().UnixNano()), tree))
	}
	for name, c := range map[string]struct {
		happens func(t *testing.T, shared string)
		says    string
		asked   int
	}{
		"the ref is removed": {func(t *testing.T, shared string) {
			if out, err := exec.Command(git, "--git-dir="+shared, "update-ref", "-d", ref("a")).CombinedOutput(); err != nil {
				t.Errorf("%s, %v", out, err)
			}
		}, "no verdict came from the machine one", 2},
		"the state is damaged": {func(t *testing.T, shared string) {
			becomes(t, shared, func(string) string { return "junk" })
		}, "no verdict came from the machine one", 2},
		"the verdict is none": {func(t *testing.T, shared string) {
			becomes(t, shared, func(text string) string {
				text = strings.ReplaceAll(text, `"verdict": "HOLD"`, `"verdict": "GREAT\u001b[31m"`)
				return strings.ReplaceAll(text, `"id": "`, `"id": "1`)
			})
		}, `its state in the shared repository has no verdict, but "GREAT\x1b[31m" on one`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			shared, d, o := dispatcher(t)
			d.recipe("a", "exit 1")
			d.want("at first", "a HOLD")
			o.happens = func(int, *bench) *Ending {
				c.happens(t, shared)
				return &Ending{Machine: "one"}
			}
			o.asked = nil
			results, err := Run(context.Background(), d.Options, func(Event) {})
			if err != nil || len(results) != 1 || results[0].Verdict != Error || !strings.Contains(results[0].Why, c.says) || len(o.asked) != c.asked {
				t.Errorf("%+v, %v, asked %d times", results, err, len(o.asked))
			}
			o.happens = nil
			d.recipe("a", "exit 0")
			d.want("the next sweep", "a PROMOTE")
		})
	}
}

// A machine whose clock is ahead does not make its last verdict that of a later run.
func TestDispatchClocks(t *testing.T) {
	_, d, o := dispatcher(t)
	d.recipe("a", "exit 0")
	o.machines[0].Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	d.want("the clock is ahead", "a PROMOTE")
	o.machines[0].Now = nil
	d.recipe("a", "kill -KILL $PPID")
	d.want("the next run has no verdict", "a CUT")
}
