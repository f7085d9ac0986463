package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/audit"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/host"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// This file makes state directories for tests: what many nights of sweeps would leave,
// written in a moment (git fast-import), with the types and the writers of the program.

// midnight is when the last night of every example begins.
var midnight = time.Date(2026, 11, 26, 2, 0, 0, 0, time.UTC)

func night(ago int) time.Time { return midnight.AddDate(0, 0, -ago) }

// example is a state directory under way.
type example struct {
	t       testing.TB
	dir     state.Dir
	git     string
	folders []string
	changes []string
	stream  *os.File // of git fast-import
	summary *sweep.Summary
	current *toolset.Manifest
	report  *host.Report
}

func newExample(t testing.TB) *example {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("needs git on PATH: apt-get install git")
	}
	dir := t.TempDir()
	e := &example{t: t, dir: state.Dir(filepath.Join(dir, "state")), git: git}
	for _, p := range []state.Place{state.Sweep, state.Running, state.Runs, state.Manifests} {
		e.must(e.dir.Make(p))
	}
	m, err := memory.Create(e.dir, git, memory.Plain)
	e.must(err)
	m.Close()
	e.stream, err = os.Create(filepath.Join(dir, "stream"))
	e.must(err)
	return e
}

func (e *example) must(err error) {
	if err != nil {
		e.t.Helper()
		e.t.Fatal(err)
	}
}

// remember adds a commit of a recipe. What its runs printed is in files, by the runs' IDs.
func (e *example) remember(known sweep.State, h sweep.History, printed map[string]printed) {
	known.Schema, h.Schema = sweep.Schema, sweep.HistorySchema
	files := map[string][]byte{}
	for i := range h.Runs {
		r := &h.Runs[i]
		p := printed[r.ID]
		if p.output != "" {
			files[fmt.Sprintf("output-%d", i)] = []byte(p.output)
			r.Output = memory.HashOf([]byte(p.output))
		}
		if p.result != nil {
			data, err := json.Marshal(p.result)
			e.must(err)
			files[fmt.Sprintf("result-%d", i)] = data
			r.Result = memory.HashOf(data)
		}
	}
	if len(h.Runs) > 0 {
		known.Run = &h.Runs[0]
	}
	var err error
	files["state.json"], err = json.Marshal(known)
	e.must(err)
	files["runs.json"], err = json.Marshal(h)
	e.must(err)
	var b bytes.Buffer
	fmt.Fprintf(&b, "commit refs/cc-ci/sweep/%s\ncommitter systemd <systemd@ci> %d +0000\ndata 4\nrun\n\n", memory.Escape(known.Recipe), midnight.Unix())
	for name, data := range files {
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n", name, len(data))
		b.Write(data)
		b.WriteString("\n")
	}
	b.WriteString("\n")
	_, err = e.stream.Write(b.Bytes())
	e.must(err)
}

// printed is what a run left beside its outcomes.
type printed struct {
	output string
	result *record.Result
}

// flush imports what was added.
func (e *example) flush() {
	e.t.Helper()
	_, err := e.stream.Seek(0, io.SeekStart)
	e.must(err)
	cmd := exec.Command(e.git, "--git-dir="+e.dir.Path(state.Memory, ""), "fast-import", "--quiet", "--force")
	cmd.Stdin = e.stream
	said, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("git fast-import: %v: %s", err, said)
	}
	e.must(e.stream.Truncate(0))
	_, err = e.stream.Seek(0, io.SeekStart)
	e.must(err)
}

// run runs git in the memory.
func (e *example) run(args ...string) {
	e.t.Helper()
	cmd := exec.Command(e.git, append([]string{"--git-dir=" + e.dir.Path(state.Memory, "")}, args...)...)
	if said, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("git %s: %v: %s", args[0], err, said)
	}
}

// source is the example as a report's source.
func (e *example) source() Source {
	s := Source{
		State: e.dir, Git: e.git, Version: "1.0", Manifest: e.current, Zone: time.UTC,
		Clock:     func() time.Time { return midnight.Add(5 * time.Hour) },
		RecipeURL: "https://git.example.org/recipes/{recipe}/commit/{revision}",
		Status: func(list []*sweep.Remembered) (sweep.Status, error) {
			return sweep.StatusOf(list, e.summary, e.folders, e.changes), nil
		},
	}
	if e.report != nil {
		s.Host = func(context.Context) (host.Report, error) { return *e.report, nil }
	}
	return s
}

// write writes the example's report, and gives its directory.
func (e *example) write() string {
	e.t.Helper()
	dir := filepath.Join(e.t.TempDir(), "report")
	e.must(Write(e.t.Context(), e.source(), dir))
	return dir
}

// manifest keeps an environment with these tools, "NAME VERSION" each, and gives its
// fingerprint.
func (e *example) manifest(tools ...string) *toolset.Manifest {
	e.t.Helper()
	m := toolset.Manifest{
		Schema: toolset.Schema, Backend: toolset.BackendNix, State: string(e.dir), Bin: "/nix/store/path/bin", Interpreter: "/nix/store/path/bin/python3",
		Python:   toolset.ResolvedPython{Version: "3.11.2", Packages: []toolset.Package{{Name: "pytest", Version: "9.0.2"}, {Name: "playwright", Version: "1.56.0"}}, Commands: []toolset.Command{{Name: "python3", Path: "/nix/store/path/bin/python3"}}},
		Browsers: toolset.ResolvedBrowsers{Path: "/nix/store/path/browsers", Packages: []toolset.Package{{Name: "chromium", Version: "142.0.7444.162"}}},
		Process:  env.Process{Umask: "0022", NoFile: 65536},
		Absent:   []toolset.Absent{},
	}
	for _, tool := range tools {
		name, version, _ := strings.Cut(tool, " ")
		m.Tools = append(m.Tools, toolset.ResolvedTool{
			Name: name, Why: "recipes' tests use " + name, Packages: []toolset.Package{{Name: name, Version: version}},
			Commands: []toolset.Command{{Name: name, Path: "/nix/store/" + strings.NewReplacer(" ", "-", ":", "").Replace(tool) + "/bin/" + name}},
		})
	}
	data, err := json.MarshalIndent(m, "", " ")
	e.must(err)
	kept, err := toolset.ParseManifest(data)
	e.must(err)
	e.must(e.dir.Put(state.Manifests, kept.Fingerprint()+".json", data))
	return kept
}

// story is how a recipe's nights went, the oldest first: a letter for each test and night.
// "." is a night on which the recipe was skipped.
type story struct {
	recipe string
	tests  []string
	nights []string // of letters as in sweep.Past, or "error", "limit"
	// revisions and environments are of each night; the last one holds for the rest.
	revision func(night int) string
	env      func(night int) string
	took     func(night int) time.Duration
	text     string // that a failing test left
}

// tell adds a story.
func (e *example) tell(s story) {
	e.t.Helper()
	if s.took == nil {
		rng := rand.New(rand.NewSource(int64(len(s.recipe)) * 7919))
		base := time.Duration(20+rng.Intn(160)) * time.Second
		s.took = func(int) time.Duration { return base + time.Duration(rng.Intn(int(base/5))) }
	}
	h := sweep.History{Tests: s.tests}
	known := sweep.State{Recipe: s.recipe, Directory: "/srv/recipes", Invoker: "systemd"}
	out := map[string]printed{}
	for n, letters := range s.nights {
		ago := len(s.nights) - 1 - n
		if letters == "." {
			continue
		}
		r := sweep.Past{
			Started: night(ago).Add(time.Duration(len(s.recipe)) * time.Minute), Took: s.took(n), Invoker: "systemd", Machine: "ci-1",
			Revision: s.revision(n), Tree: "tree" + s.revision(n)[:8], Fingerprint: s.env(n), Runner: "7d1f04c2be11",
		}
		r.ID = r.Started.Format("20060102T150405.000000000Z")
		switch letters {
		case "error":
			r.Verdict, r.Why = sweep.Error, "exit status 125: docker: the daemon does not answer"
			out[r.ID] = printed{output: "cc-ci-run: docker: unix:///run/docker.sock: the daemon does not answer\n"}
		case "limit":
			r.Verdict, r.Why, r.Took = sweep.Hold, "time limit of 1h0m0s reached; test under way: "+s.tests[0], time.Hour
			out[r.ID] = printed{output: "rootdir: /srv/recipes/" + s.recipe + "\ncollected 6 items\n\n" + s.tests[0] + " waiting for https://127.0.0.1:8448 …\n"}
		default:
			e.outcome(s, &r, letters, out)
		}
		last := sweep.Result{Recipe: s.recipe, Verdict: r.Verdict, Why: r.Why, Revision: r.Revision, Tests: r.Tests, Started: r.Started, Duration: r.Took}
		bad := r.Verdict.Bad()
		if known.Streak.Since.IsZero() || known.Streak.Failing != bad {
			known.Streak = sweep.Streak{Failing: bad, Since: r.Started, Turned: !known.Streak.Since.IsZero()}
		}
		known.Streak.Runs++
		known.Last, known.Ran, known.Held = last, r.Started.Add(r.Took), r.Verdict == sweep.Hold
		if r.Verdict == sweep.Promote {
			known.Canonical = sweep.Promotion{Inputs: sweep.Inputs{Identity: sweep.Identity{Recipe: s.recipe, Revision: r.Revision}}, Time: r.Started, Invoker: "systemd"}
		}
		h.Runs = append(h.Runs, r)
	}
	slices.Reverse(h.Runs)
	e.remember(known, h, out)
}

// outcome is a run that came to its end.
func (e *example) outcome(s story, r *sweep.Past, letters string, out map[string]printed) {
	result := &record.Result{Format: "CTRF", Version: "1.0.0"}
	result.Results.Extra.About = record.About{Schema: record.ResultSchema, Recipe: s.recipe, Complete: true}
	var failed []string
	share := r.Took.Milliseconds() * 8 / 10 / int64(len(letters))
	for i, letter := range letters {
		if letter == sweep.Absent {
			r.Millis = append(r.Millis, 0)
			continue
		}
		t := record.Test{Name: s.tests[i], Duration: share * int64(i+1) * 2 / int64(len(letters)+1)}
		r.Tests.Tests++
		switch letter {
		case sweep.Passed:
			t.Status = "passed"
			r.Tests.Passed++
		case sweep.Failed:
			t.Status, t.Message, t.Trace = "failed", "AssertionError", s.text
			r.Tests.Failed++
			failed = append(failed, t.Name)
		case sweep.Skipped:
			t.Status, t.Message = "skipped", "needs a swarm"
			r.Tests.Skipped++
		}
		r.Millis = append(r.Millis, t.Duration)
		result.Results.Tests = append(result.Results.Tests, t)
	}
	r.Outcomes = letters
	if len(failed) == 0 {
		r.Verdict, r.Why = sweep.Promote, "all tests passed"
		return
	}
	r.Verdict, r.Why = sweep.Hold, fmt.Sprintf("%d of %d tests failed: %s", len(failed), r.Tests.Tests, strings.Join(failed, ", "))
	out[r.ID] = printed{result: result, output: fmt.Sprintf("============================= test session starts ==============================\nplatform linux -- Python 3.11.2, pytest-9.0.2\nrootdir: /srv/recipes/%s\ncollected %d items\n\n%s\n=========================== short test summary info ============================\nFAILED %s\n", s.recipe, r.Tests.Tests, s.text, strings.Join(failed, "\nFAILED "))}
}

// nights repeats what a night was: a word and a number, and so on.
func nights(parts ...any) (list []string) {
	for i := 0; i < len(parts); i += 2 {
		list = append(list, slices.Repeat([]string{parts[i].(string)}, parts[i+1].(int))...)
	}
	return list
}

// hash is a hash like git's, for a name.
func hash(name string) string { return memory.HashOf([]byte(name)) }

// believable is an example of twelve recipes, as a site has them.
func believable(t testing.TB) *example {
	e := newExample(t)
	base := []string{"abra 0.11.0-beta", "bash 5.2.37", "coreutils 9.7", "curl 8.16.0", "docker 28.5.1", "git 2.51.2", "git-lfs 3.7.1", "jq 1.8.1", "openssh 10.2p1", "rsync 3.4.1", "xmlstarlet 1.6.1"}
	old := e.manifest(append(slices.Clone(base), "perl 5.36.0-7+deb12u2")...)
	mid := e.manifest(append(slices.Clone(base), "perl 5.36.0-7+deb12u3", "restic 0.18.1")...)
	e.current = e.manifest(append(slices.Delete(slices.Clone(base), 6, 7), "git-lfs 3.4.0", "perl 5.36.0-7+deb12u4", "restic 0.18.1")...)
	env := func(n int) string {
		switch {
		case n < 11:
			return old.Fingerprint()
		case n < 29:
			return mid.Fingerprint()
		}
		return e.current.Fingerprint()
	}
	revision := func(recipe string, changes ...int) func(int) string {
		return func(n int) string {
			version := 0
			for _, c := range changes {
				if n >= c {
					version++
				}
			}
			return hash(fmt.Sprint(recipe, version))
		}
	}
	web := []string{"test_api.py::test_login", "test_api.py::test_version", "test_deployment.py::test_healthy", "test_deployment.py::test_upgrade", "test_page.py::test_front_page"}
	for _, s := range []story{
		{
			recipe: "gitea", tests: []string{"test_api.py::test_repository", "test_deployment.py::test_backup", "test_lfs_roundtrip.py::test_lfs_roundtrip", "test_page.py::test_login", "test_terminal.py::test_prompt"},
			nights: nights("ppppp", 29, "ppfpp", 1), revision: revision("gitea", 8, 21),
			text: "run = <function run at 0x7f3d1c0b7e20>, repository = Repository(name='lfs')\n\n    def test_lfs_roundtrip(run, repository, tmp_path):\n        run(\"git\", \"lfs\", \"track\", \"*.bin\", cwd=tmp_path)\n>       run(\"git\", \"lfs\", \"migrate\", \"info\", \"--fixup\", cwd=tmp_path)\nE       AssertionError: git lfs migrate info --fixup ended with 127\nE       Error: unknown flag: --fixup\nE       \nE       Usage:\nE         git-lfs migrate info [flags]\n\ntest_lfs_roundtrip.py:31: AssertionError",
		},
		{
			recipe: "nextcloud", tests: append(slices.Clone(web), "test_files.py::test_upload", "test_files.py::test_share"),
			nights: nights("ppppppp", 18, "pppppfp", 12), revision: revision("nextcloud", 18),
			text: "    def test_upload(page, instance):\n        page.set_input_files(\"#upload\", \"fixture.txt\")\n>       expect(page.get_by_text(\"fixture.txt\")).to_be_visible()\nE       AssertionError: Locator expected to be visible\nE       Error: element(s) not found\nE       Call log:\nE         - Expect \"to_be_visible\" with timeout 5000ms\nE         - waiting for get_by_text(\"fixture.txt\")\n\ntest_files.py:22: AssertionError",
		},
		{recipe: "matrix-synapse", tests: append([]string{"test_federation.py::test_join"}, web...), nights: nights("pppppp", 25, "pppspp", 3, "limit", 2), revision: revision("synapse", 3, 28)},
		{
			recipe: "discourse", tests: web, nights: nights("ppppp", 12, ".", 3, "ppppp", 11, "error", 1, "ppfpp", 3), revision: revision("discourse", 27),
			text: "    def test_healthy(deployment):\n>       assert get(deployment.url).status == 200\nE       assert 502 == 200\n\ntest_deployment.py:9: AssertionError",
		},
		{recipe: "hedgedoc", tests: web, nights: nights("ppppp", 20, "ppppf", 9, "ppppp", 1), revision: revision("hedgedoc", 20, 29), text: "E   assert 'HedgeDoc' in title\nE   AssertionError"},
		{recipe: "mattermost", tests: web, nights: strings.Fields("ppppp ppppp ppppp ppppf ppppp ppppp ppppp ppppp ppppp ppppf ppppp ppppp ppppp ppppp ppppp ppppp ppppp ppppf ppppp ppppp ppppp ppppp ppppp ppppp ppppf ppppp ppppp ppppp ppppp ppppp"), revision: revision("mattermost"), text: "E   TimeoutError"},
		{recipe: "peertube", tests: web, nights: nights("ppppp", 30), revision: revision("peertube"), took: func(n int) time.Duration { return time.Duration(60+6*n+n%3) * time.Second }},
		{recipe: "vaultwarden", tests: web[:3], nights: nights("ppp", 1, ".", 6, "ppp", 1, ".", 6, "ppp", 1, ".", 6, "ppp", 1, ".", 6, "ppp", 1, "ppp", 1), revision: revision("vaultwarden", 29)},
		{recipe: "wordpress", tests: web, nights: nights("ppppp", 30), revision: revision("wordpress", 15)},
		{recipe: "keycloak", tests: web, nights: nights("pppsp", 14, "ppppp", 16), revision: revision("keycloak", 14)},
		{recipe: "cryptpad", tests: web[:4], nights: nights("pppp", 5), revision: revision("cryptpad")},
	} {
		if s.env == nil {
			s.env = env
		}
		if len(s.nights) < 30 { // it is younger
			young := 30 - len(s.nights)
			s.env = func(n int) string { return env(n + young) }
		}
		e.tell(s)
	}
	e.flush()
	e.folders = []string{"collabora", "gitea", "nextcloud"}
	for _, c := range toolset.Difference(mid, e.current) {
		e.changes = append(e.changes, c.String())
	}
	e.summary = &sweep.Summary{Schema: 1, Invoker: "systemd", Started: midnight, Ended: midnight.Add(83 * time.Minute), Status: 1, Recipes: "/srv/recipes", Fingerprint: e.current.Fingerprint(), Before: mid.Fingerprint(), Verdicts: map[sweep.Verdict]int{}}
	e.records(mid)
	e.audits()
	e.report = &host.Report{Time: midnight.Add(5 * time.Hour), Healthy: true, Results: []finding.Finding{
		{Verdict: finding.OK, What: "failed units", State: "none"},
		{Verdict: finding.OK, What: "nightly-sweep.timer", State: "active, fires in 19 h", Since: midnight},
		{Verdict: finding.Note, What: "last sweep", State: "4 of 11 recipes held: discourse, gitea, matrix-synapse, nextcloud", Since: midnight, Fix: "their tests, not the host"},
		{Verdict: finding.OK, What: "docker", State: "28.5.1, a manager of an active swarm"},
		{Verdict: finding.OK, What: "state directory", State: "18432 MiB and 1203040 files free"},
	}}
	return e
}

// records adds a run by Drone in an environment and one by the timer in the current one.
func (e *example) records(drone *toolset.Manifest) {
	for invoker, m := range map[string]*toolset.Manifest{"drone": drone, "systemd": e.current} {
		started := night(0).Add(time.Hour)
		r := &record.Record{
			Schema: record.Schema, ID: record.ID(started, invoker, "runner/run_recipe_ci.py", []string{"gitea"}), Time: started, Invoker: env.Invoker{Name: invoker},
			Mode: "script", Program: "runner/run_recipe_ci.py", Args: []string{"gitea"}, Directory: "/srv/" + invoker,
			Fingerprint: m.Fingerprint(), Backend: m.Backend, Absent: []string{}, Passed: []string{"HOME"}, Dropped: []string{},
		}
		e.must(r.Write(e.dir))
	}
}

// audits adds the report of an audited run.
func (e *example) audits() {
	e.must(e.dir.Make(state.Audits))
	r := &audit.Report{
		Schema: audit.Schema, Run: audit.Run{ID: record.ID(night(1), "systemd", "runner/run_recipe_ci.py", []string{"gitea"}), Time: night(1), Recipe: "gitea", Invoker: "systemd", Fingerprint: e.current.Fingerprint()},
		Used:       []audit.Use{{Name: "git", Tool: "git", Times: 41, By: map[string]int{"python3": 41}}, {Name: "curl", Tool: "curl", Times: 12, By: map[string]int{"python3": 12}}, {Name: "docker", Tool: "docker", Times: 9, By: map[string]int{"python3": 9}}},
		Missing:    []audit.Miss{{Name: "zstd", Times: 2, By: map[string]int{"tar": 2}}},
		Undeclared: []audit.Use{{Name: "/usr/bin/dpkg", Times: 1, By: map[string]int{"/bin/sh": 1}}},
	}
	e.must(r.Write(e.dir))
}
