//go:build environment

package cli_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/cli"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// nightProgram takes the place of cc-ci-run and the runner in this test. The file control/NAME
// says which tests of the recipe NAME pass or fail.
const nightProgram = `#!/bin/bash
# called as: --state STATE --result RESULT RUNNER --recipes DIR NAME
control=${0%/*}/control
read -r fingerprint <"$control/fingerprint"
tests= status=0 hang=
. "$control/$8"
echo "output of $8, $(<"$control/night")"
while [ "$hang" ]; do read -rt 100 _ <>"$control/never"; done
printf '{"reportFormat":"CTRF","results":{"tests":[%s],"extra":{"cc_ci_run":{"schema":1,"recipe":"%s","complete":true,"fingerprint":"%s","exit_status":%d}}}}' \
  "$tests" "$8" "$fingerprint" "$status" >"$4"
exit $status
`

const nights = 30

// hangs is the night from which on the recipe of this name hangs.
const hangs = 25

// world is 60 recipes in the nights of a month.
type world struct {
	t        *testing.T
	dir      string
	o        sweep.Options
	first    time.Time // two o'clock of night 1
	manifest [2][]byte // with perl u2, and u4 in the last night
	runs     map[string]int
	plan     string // of the built environment, which says whether a file changed since
}

func newWorld(t *testing.T) *world {
	dir, err := os.MkdirTemp("/dev/shm", "nights")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, runs: map[string]int{}, plan: "../../build/toolset/manifest.plan"}
	now := time.Now().UTC()
	w.first = time.Date(now.Year(), now.Month(), now.Day(), 2, 0, 0, 0, time.UTC).AddDate(0, 0, -nights)
	built, err := os.ReadFile("../../build/toolset/manifest.json")
	if err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	for i, version := range []string{"u2", "u4"} {
		w.manifest[i] = withPerl(t, built, version)
		sum := sha256.Sum256(w.manifest[i])
		w.write("state/manifests/"+hex.EncodeToString(sum[:])+".json", string(w.manifest[i]), 0o644)
	}
	self := w.path("cc-ci-run-full")
	if err := errors.Join(os.Symlink(os.Args[0], self), os.Mkdir(w.path("recipes"), 0o755)); err != nil {
		t.Fatal(err)
	}
	w.write("program", nightProgram, 0o755)
	w.write("runner/run.py", "", 0o644)
	m, err := toolset.ParseManifest(built)
	if err != nil {
		t.Fatal(err)
	}
	w.o = sweep.Options{
		Recipes: w.path("recipes"), State: state.Dir(w.path("state")), Program: w.path("program"), Runner: w.path("runner/run.py"),
		Manifest: w.path("manifest.json"), Timeout: time.Hour, Jobs: 4, Removed: true,
		Keep:    state.Bounds{Age: 1000 * time.Hour, Number: 10000, MiB: 1000, Logs: 100},
		Environ: append(os.Environ(), "GORACE=atexit_sleep_ms=0"),
		Machine: "ci-1",
		Git:     m.Git(),
		Policy:  sweep.Policy{Invoker: "systemd", MaxAge: 156 * time.Hour},
	}
	w.o.Supervisor = []string{self, "supervise"}
	return w
}

func withPerl(t *testing.T, manifest []byte, version string) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	for _, tool := range m["tools"].([]any) {
		if tool := tool.(map[string]any); tool["name"] == "perl" {
			for _, p := range tool["packages"].([]any) {
				p.(map[string]any)["version"] = version
			}
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string, mode os.FileMode) {
	w.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(w.path(name)), 0o755), os.WriteFile(w.path(name), []byte(content), mode)); err != nil {
		w.t.Fatal(err)
	}
}

// kinds of recipes: how many there are, and what a run of night n comes to.
var kinds = []struct {
	name  string
	count int
	// run says what the tests come to in a night, for the n-th run of the recipe.
	run func(night, n int) string
}{
	{"passes", 30, func(int, int) string { return passing }},
	{"breaks", 9, func(night, _ int) string { return failsFrom(12, night) }},
	{"flaky", 4, func(night, n int) string {
		if n%2 == 1 {
			return failing(night)
		}
		return passing
	}},
	{"slower", 2, func(night, _ int) string {
		return fmt.Sprintf(`tests='{"name":"test_a","status":"passed","duration":%d}'`, 1000+300*night)
	}},
	{"skips", 3, func(int, int) string {
		return `tests='{"name":"test_a","status":"passed","duration":10},{"name":"test_b","status":"skipped","duration":0,"message":"needs an instance"}'`
	}},
	{"news", 2, func(night, _ int) string { return failsFrom(nights, night) }},
	{"recovers", 2, func(night, _ int) string {
		if night < nights {
			return failsFrom(20, night)
		}
		return passing
	}},
	{"removed", 2, func(int, int) string { return passing }},
	{"renamed", 1, func(int, int) string { return passing }},
	{"hangs", 1, func(night, _ int) string {
		if night >= hangs {
			return "hang=yes"
		}
		return passing
	}},
	{"errs", 1, func(night, _ int) string {
		if night >= 28 {
			return "tests="
		}
		return passing
	}},
}

const passing = `tests='{"name":"test_a","status":"passed","duration":10},{"name":"test_b","status":"passed","duration":20}'`

func failing(night int) string {
	return fmt.Sprintf(`status=1 tests='{"name":"test_a","status":"passed","duration":10},{"name":"test_b","status":"failed","duration":20,"message":"boom in night %d"}'`, night)
}

func failsFrom(first, night int) string {
	if night >= first {
		return failing(night)
	}
	return passing
}

func (w *world) names() (names []string) {
	for _, k := range kinds {
		for i := range k.count {
			name := k.name
			if k.count > 1 {
				name = fmt.Sprintf("%s-%02d", k.name, i)
			}
			names = append(names, name)
		}
	}
	return names
}

// night makes one sweep.
func (w *world) night(n int) {
	w.t.Helper()
	for _, name := range w.names() {
		dir := "recipes/" + name
		kind, _, _ := strings.Cut(name, "-")
		switch {
		case n == 1, kind == "slower", kind == "breaks" && n == 12, kind == "news" && n == nights, kind == "recovers" && n == 20, kind == "hangs" && n == hangs, kind == "errs" && n == 28:
			w.write(dir+"/test_it.py", fmt.Sprintf("# as of night %d\n", n), 0o644)
		case kind == "removed" && n == 15:
			_ = os.RemoveAll(w.path(dir))
		case kind == "renamed" && n == 18:
			if err := os.Rename(w.path(dir), w.path("recipes/new-name")); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, k := range kinds {
			if k.name == kind {
				w.write("control/"+name, k.run(n, w.runs[name]), 0o644)
			}
		}
	}
	w.write("control/new-name", passing, 0o644)
	w.write("control/night", fmt.Sprintf("night %d\n", n), 0o644)
	environment := w.manifest[0]
	if n == nights {
		environment = w.manifest[1]
	}
	w.write("manifest.json", string(environment), 0o644)
	w.write("control/fingerprint", fmt.Sprintf("%x\n", sha256.Sum256(environment)), 0o644)
	if n == hangs { // before, the run must end within its limit, however busy this machine is
		w.o.Timeouts = map[string]time.Duration{"hangs": time.Second}
	}
	began, start := time.Now(), w.date(n)
	w.o.Now = func() time.Time { return start.Add(time.Since(began)) }
	results, err := sweep.Run(context.Background(), w.o, func(e sweep.Event) {
		if e.Result == nil && e.Note == "" {
			w.runs[e.Recipe]++
		}
		if e.Note != "" {
			w.t.Error(e.Note)
		}
	})
	if err != nil || len(results) < 50 {
		w.t.Fatalf("night %d: %v, %v", n, results, err)
	}
}

func (w *world) date(n int) time.Time { return w.first.AddDate(0, 0, n) }

// ask asks cc-ci-run.
func (w *world) ask(args ...string) string {
	w.t.Helper()
	var out, said [2]*os.File
	var err error
	for _, p := range []*[2]*os.File{&out, &said} {
		if p[0], p[1], err = os.Pipe(); err != nil {
			w.t.Fatal(err)
		}
	}
	answers := make(chan string, 2)
	for _, r := range []*os.File{out[0], said[0]} {
		go func() {
			data, _ := io.ReadAll(r)
			answers <- string(data)
		}()
	}
	status := cli.Main(cli.Process{
		Args: append([]string{"cc-ci-run"}, args...), Environ: []string{"CC_CI_RUN_STATE=" + w.path("state")},
		Stdin: os.Stdin, Stdout: out[1], Stderr: said[1], Manifest: w.path("manifest.json"), Program: w.path("program"), Plan: w.plan, Self: w.path("cc-ci-run-full"),
	})
	_ = out[1].Close()
	_ = said[1].Close()
	answer := <-answers + <-answers
	if status != 0 {
		w.t.Fatalf("%q: exit status %d: %s", args, status, answer)
	}
	return answer
}

func (w *world) says(answer string, patterns ...string) {
	w.t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(answer) {
			w.t.Errorf("there is no %q in\n%s", p, answer)
		}
	}
}

// TestMorning makes 60 recipes and 30 nights, and asks in the morning after them.
func TestMorning(t *testing.T) {
	w := newWorld(t)
	for n := 1; n <= nights; n++ {
		w.night(n)
	}
	w.write("recipes/unswept/test_it.py", "", 0o644)

	var status sweep.Status
	answer := w.ask("sweep", "status", "--output", "json")
	if err := json.Unmarshal([]byte(answer[:strings.LastIndex(answer, "}")+1]), &status); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	groups := map[sweep.Group][]string{}
	of := map[string]sweep.Standing{}
	for _, r := range status.Recipes {
		groups[r.Group] = append(groups[r.Group], r.Recipe)
		of[r.Recipe] = r
	}
	// Which of the flaky ones failed last, the number of their runs says.
	want := map[sweep.Group][]string{
		sweep.NewlyFailing: {"news-00", "news-01"}, sweep.StillFailing: {"errs", "hangs"}, sweep.Fixed: {"recovers-00", "recovers-01"},
		sweep.NeverRun: {"unswept"}, sweep.Removed: {"removed-00", "removed-01", "renamed"}, sweep.Passing: {"new-name"},
	}
	for _, name := range w.names() {
		switch kind, _, _ := strings.Cut(name, "-"); kind {
		case "breaks":
			want[sweep.StillFailing] = append(want[sweep.StillFailing], name)
		case "passes", "slower", "skips":
			want[sweep.Passing] = append(want[sweep.Passing], name)
		case "flaky":
			group := sweep.Passing
			if r := of[name]; r.Verdict.Bad() { // it ran in the last night, in the new environment
				group = sweep.NewlyFailing
			} else if r.Group == sweep.Fixed {
				group = sweep.Fixed
			}
			want[group] = append(want[group], name)
		}
	}
	for _, g := range sweep.Groups {
		slices.Sort(want[g])
		if !slices.Equal(groups[g], want[g]) {
			t.Errorf("%s: %q, want %q", g, groups[g], want[g])
		}
	}
	for name, since := range map[string]int{"breaks-00": 12, "hangs": hangs, "errs": 28, "news-00": nights, "recovers-00": nights} {
		if r := of[name]; !r.Since.Truncate(24*time.Hour).Equal(w.date(since).Truncate(24*time.Hour)) || r.Nights != nights-since+1 {
			t.Errorf("%s: since %s, %d nights; want since night %d, %s", name, r.Since, r.Nights, since, w.date(since))
		}
	}
	if r := of["hangs"]; !strings.HasPrefix(r.Why, "took longer than 1s") {
		t.Errorf("hangs: %s", r.Why)
	}
	w.says(status.Headline, `^\d newly failing, 11 still failing, \d fixed, 1 never run; perl .*u2 → .*u4$`)

	table := w.ask("sweep", "status")
	w.says(table, `^\d newly failing, 11 still failing`, `^newly failing +news-00 +`+w.date(nights).Local().Format(time.DateOnly)+` +1 +1 failed, 1 passed: test_b`,
		`^still failing  breaks-03 +`+w.date(12).Local().Format(time.DateOnly)+` +19 `, `^59 recipes: .* 3 gone$`, `^last sweep: .*, by systemd, took `)
	if strings.Contains(table, w.dir) {
		t.Errorf("a path of this machine is in\n%s", table)
	}

	w.says(w.ask("sweep", "log", "breaks-00", "--failed"), `^=== test_b, after 20ms\nboom in night 30$`)
	w.says(w.ask("sweep", "log", "breaks-00"), `^output of breaks-00, night 30$`)
	night20 := w.date(20).Format("20060102T")
	w.says(w.ask("sweep", "log", "breaks-00", night20, "--failed"), `boom in night 20`)

	// The 30 nights of one that is changed each night, and of one that fails since night 12.
	history := strings.Split(strings.TrimSpace(w.ask("sweep", "history", "slower-00")), "\n")
	if len(history) != 1+nights {
		t.Errorf("%d lines of history", len(history))
	}
	w.says(history[1], `^PROMOTE +\S+ \S+ +tree-\w+ +[0-9a-f]{8} +\S+ +1/1 +systemd +revision, environment$`)
	w.says(w.ask("sweep", "history", "breaks-00"), `^HOLD .* 1/2 +systemd +environment$`, `^HOLD .* 1/2 +systemd +revision$`, `^PROMOTE .* 2/2 +systemd`)
	w.says(w.ask("sweep", "history", "--tests", "slower-01"), `^test_a +\|\.{30}\| +\S+s +\S+s +\d\.\d times slower$`)
	w.says(w.ask("sweep", "history", "--tests", "flaky-01"), `^test_b +\|[.F]+\| .*flaky$`)
	if answer := w.ask("sweep", "history", "--tests", "passes-00"); strings.Contains(answer, "flaky") || strings.Contains(answer, "slower") {
		t.Error(answer)
	}
	w.says(w.ask("env", "diff", w.fingerprint(0), w.fingerprint(1)), `perl.*u2.*u4`)

	// Tonight: what failed and what never ran.
	tonight := w.ask("sweep", "--dry-run", "--recipes", w.path("recipes"), "--runner", w.path("runner/run.py"))
	w.says(tonight, `^RUN +breaks-00 .*did not pass|^RUN +breaks-00`, `^RUN +unswept .*never promoted`, `^SKIP +passes-00 `, `^RUN +hangs `)

	w.sameForm("status.txt", "sweep", "status")
	w.sameForm("history.txt", "sweep", "history", "breaks-00")
	w.sameForm("tests.txt", "sweep", "history", "--tests", "slower-00")
	w.sameForm("diff.txt", "env", "diff", w.fingerprint(0), w.fingerprint(1))

	diary := w.ask("sweep", "history", "news-00", "--output", "json")
	w.says(diary, `"machine": "ci-1"`, `"invoker": "systemd"`)
	w.says(git(t, w, "log", "--date=format:%F", "--format=%ad %an %s", "refs/cc-ci/sweep/hangs"), `^`+w.date(nights).Format(time.DateOnly)+` systemd HOLD tree-\w+: took longer than 1s`)
}

// form is the form of JSON: the path and the type of each value, of all elements of a list
// together.
func form(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	paths := map[string]bool{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, value := range v {
				walk(path+"."+name, value)
			}
		case []any:
			for _, value := range v {
				walk(path+"[]", value)
			}
		default:
			paths[fmt.Sprintf("%s %T", path, v)] = true
		}
	}
	walk("", v)
	return strings.Join(slices.Sorted(maps.Keys(paths)), "\n") + "\n"
}

// sameForm compares JSON with the form that programs rely on. If the form changes by
// more than new fields, raise the schema, and write the file anew.
func (w *world) sameForm(file string, args ...string) {
	w.t.Helper()
	answer := w.ask(append(args, "--output", "json")...)
	got := form(w.t, answer)
	want, err := os.ReadFile(filepath.Join("testdata/json", file))
	if err != nil || string(want) != got {
		w.t.Errorf("%q: the form of its JSON is not that of testdata/json/%s (%v):\n%s", args, file, err, got)
	}
}

func (w *world) fingerprint(i int) string {
	sum := sha256.Sum256(w.manifest[i])
	return hex.EncodeToString(sum[:])
}

func git(t *testing.T, w *world, args ...string) string {
	t.Helper()
	cmd := osexec.Command(w.o.Git, append([]string{"--git-dir=" + w.path("state/sweep.git")}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %q: %v: %s", args, err, said.String())
	}
	return string(out)
}
