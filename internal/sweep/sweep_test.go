package sweep

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/exec/supervise"
	"cc-ci-run/internal/state"
)

// The runs here are a shell's, of a few milliseconds: what is tried is the
// sweep. That it runs recipes through cc-ci-run itself is tried with the real
// one, in package cli's script sweep.txtar. A recipe's test.sh says by its exit
// status what becomes of its tests: 0 passed, 1 failed, 77 one passed and one was
// skipped, 78 none was executed though the status is 0; else there is no result,
// as with 79, which ends with 0.
const program = `#!/bin/bash
# called as: --state STATE --result RESULT RUNNER --recipes DIR NAME
fingerprint=$(sha256sum <"${0%/*}/manifest.json")
cd "$7/$8" || exit 125
export CC_CI_RUN_INVOKER=manual CC_CI_RUN_RESULT=$4
printf 'test_it' >"${4%.json}.current"
trap : TERM # test.sh has it, too
bash ./test.sh
status=$?
one='{"name":"test_it","status":"passed","duration":1}'
case $status in
0) tests=$one ;;
1) tests='{"name":"test_it","status":"failed","duration":1,"message":"assert 1 == 2"}' ;;
77) tests=$one',{"name":"test_other","status":"skipped","duration":0,"message":"needs an instance"}' status=0 ;;
78) tests= status=0 ;;
79) exit 0 ;;
12[5-7]) # before any test
  rm "${4%.json}.current"
  exit $status
  ;;
*) exit $status ;;
esac
rm "${4%.json}.current"
cat >"$4.new" <<END
{"reportFormat":"CTRF","results":{"tests":[$tests],"extra":{"cc_ci_run":{"schema":1,"recipe":"$8",
"complete":true,"fingerprint":"${fingerprint%% *}","exit_status":$status}}}}
END
mv "$4.new" "$4"
exit $status
`

// The test program is also the supervisor of the sweeps' runs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		if err := supervise.Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(125)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// git is the toolset's, as far as these tests go.
var git = func() string { path, _ := exec.LookPath("git"); return path }()

// bench is a place to sweep in.
type bench struct {
	t testing.TB
	Options
}

func newBench(t testing.TB) *bench { return newBenchIn(t, t.TempDir()) }

func newBenchIn(t testing.TB, dir string) *bench {
	b := &bench{t, Options{
		Recipes: filepath.Join(dir, "recipes"), State: state.Dir(filepath.Join(dir, "state")),
		Program: filepath.Join(dir, "program"), Runner: filepath.Join(dir, "runner", "run.py"),
		Manifest: filepath.Join(dir, "manifest.json"), Timeout: 10 * time.Minute, Grace: 5 * time.Minute,
		Keep: state.Bounds{Age: time.Hour, Number: 1000, MiB: 1000, Logs: 3}, Jobs: 1,
		// Else a supervisor that the race detector watches takes a second to end.
		Environ:    append(os.Environ(), "GORACE=atexit_sleep_ms=0"),
		Supervisor: []string{os.Args[0], "supervise"}, Policy: Policy{Invoker: "manual"},
	}}
	b.Git = git
	b.write(b.Program, program, 0o755)
	b.write(b.Runner, "runner", 0o644)
	b.write(b.Manifest, "f1", 0o644)
	return b
}

func (b *bench) write(path, content string, mode os.FileMode) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) recipe(name, test string) {
	b.t.Helper()
	b.write(filepath.Join(b.Recipes, name, "test.sh"), test, 0o644)
}

// sweep sweeps and gives the verdicts, "NAME VERDICT" each.
func (b *bench) sweep() []string {
	b.t.Helper()
	results, err := Run(context.Background(), b.Options, func(Event) {})
	if err != nil {
		b.t.Fatal(err)
	}
	return verdicts(results)
}

func verdicts(results []Result) (list []string) {
	for _, r := range results {
		list = append(list, r.Recipe+" "+string(r.Verdict))
	}
	return list
}

func (b *bench) want(what string, want ...string) {
	b.t.Helper()
	if got := b.sweep(); !slices.Equal(got, want) {
		b.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func (b *bench) known(name string) (s State) {
	b.t.Helper()
	s, err := stateOf(b.State, name)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func TestVerdicts(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	b.recipe("b b", "exit 1")
	b.recipe("c", "exit 125")
	b.want("the first sweep", "a PROMOTE", "b b HOLD", "c ERROR")
	good := b.known("a").Canonical.Inputs
	b.want("nothing changed", "a SKIP", "b b HOLD", "c ERROR")

	b.recipe("a", "exit 1 # broken")
	b.want("a breaks", "a HOLD", "b b HOLD", "c ERROR")
	if s := b.known("a"); !s.Canonical.equal(good) || s.Last.Verdict != Hold || s.Last.Revision == good.Revision {
		t.Errorf("canonical %+v, last %+v: the good revision must stay", s.Canonical, s.Last)
	}
	b.recipe("a", "exit 0")
	b.want("taken back", "a SKIP", "b b HOLD", "c ERROR")
	if s := b.known("a"); !s.Canonical.equal(good) || s.Last.Verdict != Skip {
		t.Errorf("canonical %+v, last %+v: nothing is held any more", s.Canonical, s.Last)
	}
	b.recipe("a", "exit 0 # fixed")
	b.recipe("b b", "exit 0")
	b.want("both fixed", "a PROMOTE", "b b PROMOTE", "c ERROR")

	b.Only = []string{"b b", "a"}
	b.want("an order", "b b SKIP", "a SKIP")
	b.write(b.Manifest, "f2", 0o644)
	b.want("another environment", "b b PROMOTE", "a PROMOTE")
	b.write(b.Runner, "another runner", 0o644)
	b.want("another runner", "b b PROMOTE", "a PROMOTE")
	b.Force = true
	b.want("forced", "b b PROMOTE", "a PROMOTE")
	b.Force, b.DryRun = false, true
	b.write(b.Manifest, "f3", 0o644)
	results, err := Run(context.Background(), b.Options, func(Event) {})
	if err != nil || results[0].Verdict != WouldRun || !strings.HasPrefix(results[0].Why, "environment ") {
		t.Errorf("dry run: %+v, %v", results, err)
	}
	b.DryRun = false
	b.want("after a dry run", "b b PROMOTE", "a PROMOTE")
}

// A git work tree's revision is its commit; what is not committed counts, too.
func TestGitWorkTree(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	dir := filepath.Join(b.Recipes, "a")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-qm", "one")
	b.want("first", "a PROMOTE")
	if got, want := b.known("a").Canonical.Revision, git("rev-parse", "HEAD"); got != want {
		t.Errorf("canonical %s, want %s", got, want)
	}
	b.want("again", "a SKIP")
	git("commit", "-qm", "two", "--allow-empty")
	b.want("after a commit", "a PROMOTE")
	b.recipe("a", "exit 0 # not committed")
	b.want("after an edit", "a HOLD")
	b.recipe("a", "exit 1")
	git("commit", "-qam", "broken")
	good := b.known("a").Canonical.Inputs
	b.want("after a broken commit", "a HOLD")
	if !b.known("a").Canonical.equal(good) {
		t.Error("a broken commit became canonical")
	}
}

// What tests do to a sweep.
func TestUnrulyRecipes(t *testing.T) {
	b := newBench(t)
	// The one that would go on for ever; what the others do takes what it takes.
	b.Timeouts = map[string]time.Duration{"ignores-term": 500 * time.Millisecond}
	b.Grace = 200 * time.Millisecond
	b.recipe("daemon", "(setsid env -i bash -c 'exec -a '$PWD/escaped' sleep 1000') & exit 0")
	b.recipe("ignores-term", "trap '' TERM; while :; do sleep 0.1; done")
	b.recipe("changes", "echo '# x' >> test.sh; exit 0")
	b.recipe("vanishes", "cd ..; rm -r vanishes; exit 0")
	b.recipe("dies", "kill -SEGV $$")
	b.write(filepath.Join(b.Recipes, "empty", "x"), "", 0o644)
	b.want("all", "changes ERROR", "daemon PROMOTE", "dies HOLD", "empty ERROR", "ignores-term HOLD", "vanishes ERROR")
	if left := b.left(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if why := b.known("ignores-term").Last.Why; !strings.Contains(why, "took longer than 500ms") {
		t.Error(why)
	}
}

// A gigabyte of output costs time, not disk.
func TestMuchOutput(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "head -c 1073741824 /dev/zero; echo end >&2")
	b.want("a gigabyte", "a PROMOTE")
	info, err := os.Stat(b.known("a").Last.Log)
	if err != nil || info.Size() > maxLog+1000 || info.Size() < maxLog {
		t.Errorf("log: %v, %v", info, err)
	}
}

func TestLogsExpire(t *testing.T) {
	b := newBench(t)
	b.Force = true
	b.recipe("a", "exit 0")
	for range 5 {
		b.sweep()
	}
	logs, _ := filepath.Glob(filepath.Join(string(b.State), "sweep/logs/a/*.log"))
	if len(logs) != 3 {
		t.Errorf("%d logs, want 3", len(logs))
	}
	b.Keep.Age = 0
	b.sweep()
	logs, _ = filepath.Glob(filepath.Join(string(b.State), "sweep/logs/a/*.log"))
	if len(logs) != 1 {
		t.Errorf("%d logs, want the newest", len(logs))
	}
}

// The logs of a recipe's promotion, hold and last verdict stay, whatever the bounds.
func TestLogsThatStay(t *testing.T) {
	b := newBench(t)
	b.Force, b.Keep.Logs, b.Keep.Age = true, 1, 0
	var want []string
	for _, row := range []struct {
		script string
		stays  bool
	}{
		{"exit 0", false}, {"exit 0", true}, {"exit 1", false}, {"exit 1", true}, {"exit 79", false}, {"exit 79", true},
	} {
		b.recipe("a", row.script)
		b.sweep()
		if row.stays {
			want = append(want, b.known("a").Last.Log)
		}
	}
	if known := b.known("a"); !known.Held || known.Last.Verdict != Error {
		t.Fatalf("%+v: want held, and an error after that", known)
	}
	logs, _ := filepath.Glob(filepath.Join(string(b.State), "sweep/logs/a/*.log"))
	if !slices.Equal(logs, want) {
		t.Errorf("logs %q, want %q", logs, want)
	}
}

// What the state of a newer cc-ci-run refers to stays: the logs of the recipe, and all
// manifests, since the state may name any of them.
func TestPruneAfterARollback(t *testing.T) {
	b := newBench(t)
	b.Keep.Logs = 100
	b.recipe("a", "exit 0")
	b.Force = true
	b.sweep()
	b.sweep()
	setState(t, b.State, "a", strings.Replace(rawState(t, b.State, "a"), `"schema": 3`, `"schema": 99`, 1))
	manifest := b.State.Path(state.Manifests, strings.Repeat("ab", 32)+".json")
	b.write(manifest, "{}", 0o644)
	old := time.Now().Add(-100 * 24 * time.Hour)
	if err := os.Chtimes(manifest, old, old); err != nil {
		t.Fatal(err)
	}
	before, _ := filepath.Glob(filepath.Join(string(b.State), "sweep/logs/a/*"))
	_, _, err := Prune(b.State, git, state.Bounds{Age: time.Nanosecond, Number: 1, MiB: 0, Logs: 1}, b.Manifest, false)
	after, _ := filepath.Glob(filepath.Join(string(b.State), "sweep/logs/a/*"))
	if err != nil || len(before) < 4 || !slices.Equal(after, before) {
		t.Errorf("%v: left %q of %q", err, after, before)
	}
	if _, err := os.Stat(manifest); err != nil {
		t.Error(err)
	}
}

// A damaged state file of an earlier cc-ci-run is set aside with a message and not
// trusted.
func TestDamagedFile(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	path := b.State.Path(state.Recipes, "a.json")
	for _, damage := range []string{"", "{", `{"schema":2,"canonical":{`, `{"schema":1}`, "[]"} {
		_ = os.RemoveAll(b.State.Path(state.Memory, ""))
		b.write(path, damage, 0o644)
		results, err := Run(context.Background(), b.Options, func(Event) {})
		if err != nil || results[0].Verdict != Promote || !strings.Contains(results[0].Why, "its state was damaged") {
			t.Errorf("%q: %+v, %v", damage, results, err)
		}
		list, _ := filepath.Glob(path + ".*.damaged")
		if len(list) != 1 {
			t.Fatalf("set aside: %q", list)
		}
		aside, err := os.ReadFile(list[0])
		if err != nil || string(aside) != damage {
			t.Errorf("set aside: %q, %v", aside, err)
		}
		_ = os.Remove(list[0])
	}
}

func TestMistakes(t *testing.T) {
	b := newBench(t)
	run := func() error {
		_, err := Run(context.Background(), b.Options, func(Event) {})
		return err
	}
	if err := run(); err == nil || !strings.Contains(err.Error(), "recipes: ") {
		t.Errorf("no directory: %v", err)
	}
	b.write(filepath.Join(b.Recipes, "file"), "", 0o644)
	if err := run(); err == nil || !strings.Contains(err.Error(), "no recipe in") {
		t.Errorf("no recipe: %v", err)
	}
	b.recipe("gitea", "exit 0")
	b.Only = []string{"gitae", "..", "gitea", "gitea", "/"}
	err := run()
	for _, want := range []string{`"gitae": no such recipe`, `did you mean "gitea"`, `"..": no such recipe`, `"gitea" is named twice`, `"/": no such recipe`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	b.Only = nil
	b.State = state.Dir(filepath.Join(b.Recipes, "file")) // no directory can be made there
	if err := run(); err == nil || !strings.Contains(err.Error(), "state directory") {
		t.Errorf("state: %v", err)
	}
}

// Nothing counts as promoted that could not be written down.
func TestStateCanNotBeWritten(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "chmod 0 $OLDPWD 2>/dev/null; rm -r "+b.State.Path(state.Memory, "")+"; : > "+b.State.Path(state.Memory, "")+"; exit 0")
	b.want("no place for the state", "a ERROR")
}

// What is promoted is what ran: the runner or the environment of another
// moment says nothing.
func TestSurroundingsChange(t *testing.T) {
	for _, what := range []string{"runner", "manifest"} {
		b := newBench(t)
		file := map[string]string{"runner": b.Runner, "manifest": b.Manifest}[what]
		b.recipe("a", "echo changed > "+file+"; exit 0")
		b.recipe("b", "exit 0")
		b.want(what+" changes under a", "a ERROR", "b PROMOTE")
		b.recipe("a", "exit 0")
		b.want("b ran with the new one", "a PROMOTE", "b SKIP")
		b.write(file, "another", 0o644)
		b.want("and again", "a PROMOTE", "b PROMOTE")
	}
}

// What a recipe's links lead to is part of it; the runner may be a link.
func TestLinks(t *testing.T) {
	b := newBench(t)
	shared := filepath.Join(t.TempDir(), "shared")
	b.write(filepath.Join(shared, "inner.sh"), "exit 0", 0o644)
	b.write(filepath.Join(b.Recipes, "a", "test.sh"), ". ./dir/inner.sh", 0o644)
	link := filepath.Join(filepath.Dir(b.Runner), "..", "link", "run.py")
	for from, to := range map[string]string{filepath.Join(b.Recipes, "a", "dir"): shared, filepath.Join(b.Recipes, "a", "loop"): ".", filepath.Join(b.Recipes, "a", "up"): "../..", link: b.Runner} {
		_ = os.MkdirAll(filepath.Dir(from), 0o755)
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	b.Runner = link
	_ = os.Remove(filepath.Join(b.Recipes, "a", "up")) // to the state itself, which changes
	b.want("first", "a PROMOTE")
	b.want("unchanged", "a SKIP")
	b.write(filepath.Join(shared, "inner.sh"), "exit 1", 0o644)
	b.want("what it shares fails", "a HOLD")
	b.write(filepath.Join(shared, "inner.sh"), "exit 0", 0o644)
	b.write(filepath.Join(filepath.Dir(filepath.Dir(b.Program)), "x"), "", 0o644)
	b.want("and is fixed", "a SKIP")
	real, _ := filepath.EvalSymlinks(link)
	b.write(real, "another runner", 0o644)
	b.want("the runner that the link leads to", "a PROMOTE")
}

// Names that the runner cannot be given are an error, not passed over.
func TestNames(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a b", "é", "-x", "a\nb", "\u009b1m", "\xff", ".hidden", "__pycache__"} {
		b.recipe(name, "exit 0")
	}
	b.want("all", `"-x" ERROR`, `"a\nb" ERROR`, "a b PROMOTE", `"\u009b1m" ERROR`, "é PROMOTE", `"\xff" ERROR`)
}

func TestOptions(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	good := b.Options
	for want, change := range map[string]func(*Options){
		"jobs: 0 is not":     func(o *Options) { o.Jobs = 0 },
		"jobs: 20000 is not": func(o *Options) { o.Jobs = 20000 },
		"timeout 0s":         func(o *Options) { o.Timeout = 0 },
		"timeout or grace 2562047h47m16.854775807s: must not be above": func(o *Options) { o.Timeout = math.MaxInt64 },
		"timeout or grace 8760h0m1s":                                   func(o *Options) { o.Grace = 365*24*time.Hour + time.Second },
		"timeout or grace 8761h0m0s":                                   func(o *Options) { o.Timeouts = map[string]time.Duration{"a": 8761 * time.Hour} },
		"keep-logs 0":                                                  func(o *Options) { o.Keep.Logs = 0 },
		"runner: stat ":                                                func(o *Options) { o.Runner += "x" },
		"is not a file":                                                func(o *Options) { o.Runner = filepath.Dir(o.Runner) },
	} {
		o := good
		change(&o)
		if _, err := Run(context.Background(), o, func(Event) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Two sweeps at once: the second says who has the lock.
func TestTwoSweeps(t *testing.T) {
	b := newBench(t)
	started := filepath.Join(t.TempDir(), "started")
	end := started + "-end"
	b.recipe("a", "touch "+started+"; until [ -e "+end+" ]; do sleep 0.05; done")
	first := make(chan error)
	go func() {
		_, err := Run(context.Background(), b.Options, func(Event) {})
		first <- err
	}()
	for _, err := os.Stat(started); err != nil; _, err = os.Stat(started) {
		time.Sleep(20 * time.Millisecond)
	}
	_, err := Run(context.Background(), b.Options, func(Event) {})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another sweep is under way (process %d, since 20", os.Getpid())) {
		t.Errorf("the second: %v", err)
	}
	b.write(end, "", 0o644)
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
}

// An interrupted sweep ends its runs, and writes of none that it was over.
func TestInterrupted(t *testing.T) {
	b := newBench(t)
	started := t.TempDir()
	b.Jobs = 2
	for _, name := range []string{"a", "b", "c"} {
		b.recipe(name, "touch "+filepath.Join(started, name)+"; exec sleep 1000")
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // once two run
		for names, _ := os.ReadDir(started); len(names) < 2; names, _ = os.ReadDir(started) {
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
	}()
	results, err := Run(ctx, b.Options, func(Event) {})
	if err == nil || !strings.Contains(err.Error(), "interrupted; 3 of 3 recipes have no verdict: a, b, c") || !slices.Equal(verdicts(results), []string{"a CUT", "b CUT", "c CUT"}) {
		t.Errorf("%+v, %v", results, err)
	}
	if s := b.known("a"); s.Last.Verdict != "" || s.Held || !s.Canonical.Time.IsZero() {
		t.Errorf("a verdict was remembered: %+v", s)
	}
	if _, err := stateOf(b.State, "c"); err == nil {
		t.Error("a state was written of what never ran")
	}
	if logs, _ := filepath.Glob(filepath.Join(string(b.State), "sweep/logs/*/*.log")); len(logs) != 2 {
		t.Errorf("%d runs were started, want 2: none after the interruption", len(logs))
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}
