package sweep

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHistories makes random histories of recipes, sweeps them, and compares
// each sweep with the model in model_test.go, which was written from
// docs/verdicts.md alone: the verdicts, the order of the runs, the exit status,
// and what is remembered afterwards.
//
// A history depends on its number alone: go test -run TestHistories
// -histories.from N -histories 1 repeats number N. A history that fails prints
// its steps.

// historyProgram stands for cc-ci-run and the runner. test.sh, and for one sweep
// control/SWEEP-NAME, say by variables how the run ends: which outcomes its tests have,
// what is done before and after the result is written, and the exit status. No
// other program is started, so that a run takes a few milliseconds. A run of a killed sweep
// may live a little longer, and must not do what the next sweep's run is to do: so each sweep
// has a number.
const historyProgram = `#!/usr/bin/env -S --default-signal=HUP,INT bash
# called as: --state STATE --result RESULT RUNNER --recipes DIR NAME
control=${0%/*}/control
cd "$7/$8" || exit 125
defaults() {
  read -r fingerprint <"$control/fingerprint"
  recipe=$1 tests=passed complete=true status=0 result=yes before= after=
}
defaults "$8"
. ./test.sh
plan=$control/$SWEEP-$8
[ ! -e "$plan" ] || . "$plan"
block() { read -r _ <>"$control/never"; }
eval "$before"
if [ "$result" ]; then
  list= comma=
  for outcome in $tests; do
    list+=$comma'{"name":"test_it","status":"'$outcome'"}' comma=,
  done
  printf '{"reportFormat":"CTRF","results":{"tests":[%s],"extra":{"cc_ci_run":{"schema":1,"recipe":"%s","complete":%s,"fingerprint":"%s","exit_status":%d}}}}' \
    "$list" "$recipe" "$complete" "$fingerprint" "$status" >"$4"
fi
eval "$after"
exit $status
`

func useHistoryProgram(b *bench) {
	b.write(b.Program, historyProgram, 0o755)
	setManifest(b, "f1")
	if err := syscall.Mkfifo(filepath.Join(filepath.Dir(b.Program), "control", "never"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func setManifest(b *bench, content string) {
	b.write(b.Manifest, content, 0o644)
	fingerprint := fmt.Sprintf("%x\n", sha256.Sum256([]byte(content)))
	b.write(filepath.Join(filepath.Dir(b.Program), "control", "fingerprint"), fingerprint, 0o644)
}

// ending is one way in which a run ends: for the program, and for the model.
type ending struct {
	name, script string
	run          modelRun
	hangs        bool // until it is ended: not with another change of the world
}

var endings = []ending{
	{name: "pass", run: modelRun{result: true, complete: true, passed: 1}},
	{name: "pass", run: modelRun{result: true, complete: true, passed: 1}},
	{name: "pass", run: modelRun{result: true, complete: true, passed: 1}},
	{name: "pass", run: modelRun{result: true, complete: true, passed: 1}},
	{name: "pass", run: modelRun{result: true, complete: true, passed: 1}},
	{name: "pass", run: modelRun{result: true, complete: true, passed: 1}},
	{name: "skip one", script: `tests="passed skipped"`, run: modelRun{result: true, complete: true, passed: 1, skipped: 1}},
	{name: "skip one", script: `tests="passed skipped"`, run: modelRun{result: true, complete: true, passed: 1, skipped: 1}},
	{name: "skip all", script: `tests="skipped skipped"`, run: modelRun{result: true, complete: true, skipped: 2}},
	{name: "fail", script: `tests="passed failed" status=1`, run: modelRun{result: true, complete: true, passed: 1, failed: 1, status: 1}},
	{name: "fail", script: `tests="passed failed" status=1`, run: modelRun{result: true, complete: true, passed: 1, failed: 1, status: 1}},
	{name: "fail with status 0", script: `tests="failed passed"`, run: modelRun{result: true, complete: true, passed: 1, failed: 1}},
	{name: "fail with status 127", script: `tests="failed passed" status=127`, run: modelRun{result: true, complete: true, passed: 1, failed: 1, status: 127}},
	{name: "fail, not complete", script: `tests=failed complete=false`, run: modelRun{result: true, failed: 1}},
	{name: "no test", script: `tests=`, run: modelRun{result: true, complete: true}},
	{name: "status 5", script: `tests= status=5`, run: modelRun{result: true, complete: true, status: 5}},
	{name: "pass with status 3", script: `status=3`, run: modelRun{result: true, complete: true, passed: 1, status: 3}},
	{name: "pass with status 126", script: `status=126`, run: modelRun{result: true, complete: true, passed: 1, status: 126}},
	{name: "not complete", script: `complete=false`, run: modelRun{result: true, passed: 1}},
	{name: "a test without an outcome", script: `tests="passed pending"`, run: modelRun{result: true, passed: 1}},
	{name: "a result of another recipe", script: `recipe=other`, run: modelRun{result: true, foreign: true, complete: true, passed: 1}},
	{name: "a result of another environment", script: `fingerprint=0`, run: modelRun{result: true, foreign: true, complete: true, passed: 1}},
	{name: "end early with 0", script: `result=`, run: modelRun{}},
	{name: "end early with 4", script: `result= status=4`, run: modelRun{status: 4}},
	{name: "cannot start: 125", script: `result= status=125`, run: modelRun{status: 125}},
	{name: "cannot start: 127", script: `result= status=127`, run: modelRun{status: 127}},
	{name: "SIGSEGV", script: `result= after='kill -SEGV $$'`, run: modelRun{signal: true}},
	{name: "SIGABRT after the result", script: `after='kill -ABRT $$'`, run: modelRun{signal: true, result: true, complete: true, passed: 1}},
	{name: "SIGKILL", script: `before='kill -KILL $$'`, run: modelRun{cut: true}},
	{name: "SIGTERM after the result", script: `after='kill -TERM $$'`, run: modelRun{cut: true, result: true, complete: true, passed: 1}},
	{name: "SIGHUP after a failure", script: `tests=failed after='kill -HUP $$'`, run: modelRun{cut: true, result: true, complete: true, failed: 1}},
	{name: "SIGINT", script: `before='kill -INT $$; block'`, run: modelRun{cut: true}},
	{name: "SIGPWR", script: `before='kill -PWR $$'`, run: modelRun{cut: true}},
	{name: "supervisor killed", script: `before='kill -KILL $PPID; block'`, run: modelRun{cut: true}},
	{name: "supervisor killed after the result", script: `after='kill -KILL $PPID; block'`, run: modelRun{cut: true}},
	{name: "supervisor told to end", script: `before='kill -TERM $PPID; block'`, run: modelRun{cut: true}},
	// Without an audit, which hands a signal on so, 128+N is a status like others.
	{name: "status 137", script: `result= status=137`, run: modelRun{status: 137}},
	{name: "pass with status 143", script: `status=143`, run: modelRun{result: true, complete: true, passed: 1, status: 143}},
	{name: "status 139", script: `result= status=139`, run: modelRun{status: 139}}, // SIGSEGV
	// An expected failure (xfail) is a test that was executed.
	{name: "fail as expected", script: `tests=other`, run: modelRun{result: true, complete: true, passed: 1}},
	{name: "time limit", script: `before=block`, run: modelRun{timeLimit: true}, hangs: true},
	{name: "time limit after the result", script: `after=block`, run: modelRun{timeLimit: true, result: true, complete: true, passed: 1}, hangs: true},
	{name: "time limit, deaf to SIGTERM", script: `trap '' TERM; before=block`, run: modelRun{timeLimit: true}, hangs: true},
}

// byName are the endings by name.
var byName = func() map[string]ending {
	all := map[string]ending{}
	for _, e := range endings {
		all[e.name] = e
	}
	return all
}()

// subject is one recipe of a history, as the model has it.
type subject struct {
	name string
	// Its files: path → mode, a space and content.
	work, committed map[string]string
	head            string // commit; "" for a plain folder
	broken          string // "", "removed", "dangling", "FIFO"
	ending          string // that its test.sh has
	saved           []map[string]string
	commits         map[string]map[string]string // of each commit
	model           modelMemory
	ran             int // the turn in which a run last came to its end
	hook            string
}

// history is one under way.
type history struct {
	*bench
	rng      *rand.Rand
	control  string
	subjects []*subject
	steps    []string

	environment, runner string
	site                string
	skipsHold           bool

	revisions map[string]string // the model's → the sweep's, and back
	turn      int
	seen      map[string]int // verdicts
	sweeps    int
	version   int
	summary   string // who wrote last.json
}

// newHistory makes one of one to three recipes. In one history of eight, some are
// git work trees: git takes longer than all else.
func newHistory(t testing.TB, dir string, number int64) *history {
	git := number%8 == 0
	h := &history{
		bench: newBenchIn(t, dir), rng: rand.New(rand.NewSource(number)),
		control: filepath.Join(dir, "control"), revisions: map[string]string{}, seen: map[string]int{},
	}
	useHistoryProgram(h.bench)
	h.Removed, h.Grace = true, 10*time.Millisecond
	h.Wait = true // a child that a killed sweep was starting has the lock until it executes
	h.setEnvironment("1")
	h.setRunner("1")
	h.setSite("first-value")
	for n := range 1 + h.rng.Intn(3) {
		s := &subject{name: string(rune('a' + n)), work: map[string]string{}, commits: map[string]map[string]string{}}
		h.subjects = append(h.subjects, s)
		h.test(s, "pass")
		h.put(s, "other.txt", "644 1")
		h.put(s, "run.sh", "755 1")
		if git && h.rng.Intn(3) > 0 {
			h.put(s, ".gitignore", "644 ignored*\n")
			h.becomeWorkTree(s)
		}
	}
	return h
}

func (h *history) step(format string, args ...any) {
	h.steps = append(h.steps, fmt.Sprintf(format, args...))
}

// disagreement ends a history.
type disagreement string

func (h *history) fatalf(format string, args ...any) {
	panic(disagreement(fmt.Sprintf("%s\n  steps:\n    %s", fmt.Sprintf(format, args...), strings.Join(h.steps, "\n    "))))
}

// What changes the world, in the model and in truth.

func (h *history) setEnvironment(version string) {
	h.environment = version
	setManifest(h.bench, "manifest "+version)
}

func (h *history) setRunner(version string) {
	h.runner = version
	h.write(h.bench.Runner, "runner "+version, 0o644)
}

func (h *history) setSite(value string) {
	h.site, h.Site = value, []string{"OTHER=always-the-same"}
	if value != "" {
		h.Site = append(h.Site, "SECRET="+value)
	}
}

func (h *history) dir(s *subject) string { return filepath.Join(h.Recipes, s.name) }

// put writes a file of a recipe: "MODE CONTENT"; "" removes it, "dir" is an
// empty folder.
func (h *history) put(s *subject, path, entry string) {
	h.t.Helper()
	file := filepath.Join(h.dir(s), path)
	delete(s.work, path)
	if err := os.RemoveAll(file); err != nil {
		h.t.Fatal(err)
	}
	switch entry {
	case "":
		return
	case "dir":
		if err := os.Mkdir(file, 0o755); err != nil {
			h.t.Fatal(err)
		}
	default:
		mode, content, _ := strings.Cut(entry, " ")
		bits, err := strconv.ParseUint(mode, 8, 32)
		if err != nil {
			h.t.Fatal(err)
		}
		h.write(file, content, os.FileMode(bits))
	}
	s.work[path] = entry
}

// test writes a new version of a recipe's test, which ends as it says.
func (h *history) test(s *subject, name string) {
	h.version++
	h.put(s, "test.sh", fmt.Sprintf("644 %s\n# %s, version %d\n", byName[name].script, name, h.version))
	s.ending = name
}

// restore gives a recipe the content that it had.
func (h *history) restore(s *subject, files map[string]string) {
	for path := range s.work {
		if _, ok := files[path]; !ok {
			h.put(s, path, "")
		}
	}
	for path, entry := range files {
		if s.work[path] != entry {
			h.put(s, path, entry)
		}
	}
	h.readEnding(s)
}

func (h *history) readEnding(s *subject) {
	_, comment, _ := strings.Cut(s.work["test.sh"], "\n# ")
	s.ending, _, _ = strings.Cut(comment, ", version")
}

// reread notes what git made of a work tree.
func (h *history) reread(s *subject) {
	s.work = map[string]string{}
	entries, err := os.ReadDir(h.dir(s))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		switch path := filepath.Join(h.dir(s), e.Name()); {
		case err != nil:
			h.t.Fatal(err)
		case e.Name() == ".git":
		case e.IsDir():
			s.work[e.Name()] = "dir"
		default:
			data, err := os.ReadFile(path)
			if err != nil {
				h.t.Fatal(err)
			}
			s.work[e.Name()] = fmt.Sprintf("%o %s", info.Mode().Perm(), data)
		}
	}
	h.readEnding(s)
}

func (h *history) git(s *subject, args ...string) string {
	h.t.Helper()
	cmd := exec.Command(h.Git, append([]string{"-C", h.dir(s), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0"}, args...)...)
	cmd.Env = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (h *history) becomeWorkTree(s *subject) {
	h.git(s, "init", "-q", "--template=")
	s.hook = ""
	s.commits = map[string]map[string]string{}
	h.commit(s)
}

func (h *history) commit(s *subject) {
	if s.head != "" {
		h.git(s, "update-index", "--no-assume-unchanged", "test.sh")
	}
	h.git(s, "add", "-f", ".")
	h.version++
	h.git(s, "commit", "-q", "--allow-empty", "-m", strconv.Itoa(h.version))
	_ = os.Remove(filepath.Join(h.dir(s), ".git", "COMMIT_EDITMSG")) // a part of the tree, as any text there is
	s.head = h.git(s, "rev-parse", "HEAD")
	s.committed = filesOf(s.work)
	s.commits[s.head] = s.committed
}

// filesOf are those that git knows of.
func filesOf(work map[string]string) map[string]string {
	files := maps.Clone(work)
	maps.DeleteFunc(files, func(_, entry string) bool { return entry == "dir" })
	return files
}

// folder is a recipe's folder as the model sees it.
func (h *history) folder(s *subject) modelFolder {
	f := modelFolder{removed: s.broken == "removed", unreadable: s.broken != "" && s.broken != "removed"}
	tree := fmt.Sprint(s.work) // in the order of the names
	if s.head != "" {
		tree += " git, hook " + s.hook
		f.work, f.dirty = true, !maps.Equal(filesOf(s.work), s.committed)
	}
	f.inputs = modelInputs{"tree " + tree, tree, h.environment, h.runner, h.site}
	if s.head != "" {
		f.inputs.revision = s.head
	}
	return f
}

func (h *history) damage(s *subject) {
	whole := rawState(h.t, h.State, s.name)
	if whole == "" {
		return // there is none
	}
	kind := h.rng.Intn(len(damages) + 4)
	if kind < len(damages) {
		h.step("%s: damage its memory: %s", s.name, damages[kind].name)
		damages[kind].do(h.t, h.State, s.name)
	} else {
		damaged := []string{"", "{", whole[:h.rng.Intn(max(1, len(whole)-2))], `{"schema":3}`}[kind-len(damages)]
		setState(h.t, h.State, s.name, damaged)
		h.step("%s: damage its state (%d bytes left)", s.name, len(damaged))
	}
	s.model = modelMemory{known: true, damaged: true}
}

// age makes the canonical run one of another time.
func (h *history) age(s *subject, by time.Duration) {
	if s.model.canonical == nil || s.model.damaged {
		return
	}
	var known map[string]any
	if err := json.Unmarshal([]byte(rawState(h.t, h.State, s.name)), &known); err != nil {
		h.fatalf("%s: %v", s.name, err)
	}
	s.model.promoted = time.Now().Add(-by)
	known["canonical"].(map[string]any)["time"] = s.model.promoted.UTC().Format(time.RFC3339Nano)
	setState(h.t, h.State, s.name, text(known))
	h.step("%s: was promoted %s ago", s.name, by)
}

// change does one change of the world that is not a sweep.
func (h *history) change() {
	s := h.subjects[h.rng.Intn(len(h.subjects))]
	if s.broken != "" && h.rng.Intn(3) > 0 {
		h.mend(s)
		return
	}
	switch n := h.rng.Intn(28); {
	case n < 2:
		h.version++
		h.setEnvironment(fmt.Sprint(h.rng.Intn(3)))
		h.step("environment %s", h.environment)
	case n < 3:
		h.setRunner(fmt.Sprint(h.rng.Intn(3)))
		h.step("runner %s", h.runner)
	case n < 5:
		h.setSite([]string{"", "first-value", "second-value"}[h.rng.Intn(3)])
		h.step("site %q", h.site)
	case n < 7:
		h.skipsHold = !h.skipsHold
		h.step("skips hold: %t", h.skipsHold)
	case n < 8:
		h.damage(s)
	case n < 11:
		h.age(s, []time.Duration{48 * time.Hour, time.Hour, -time.Hour}[h.rng.Intn(3)])
	case s.broken != "":
		h.mend(s)
	case n < 13:
		h.breakFolder(s)
	case n < 17:
		s.saved = append(s.saved, maps.Clone(s.work))
		h.test(s, endings[h.rng.Intn(len(endings))].name)
		h.step("%s: edit the test: %s", s.name, s.ending)
	case n < 20 && len(s.saved) > 0:
		h.restore(s, s.saved[h.rng.Intn(len(s.saved))])
		h.step("%s: as it was: %s", s.name, s.work["test.sh"])
	case s.head != "":
		h.changeWorkTree(s)
	default:
		h.edit(s)
	}
}

// edit changes a file that is not the test.
func (h *history) edit(s *subject) {
	s.saved = append(s.saved, maps.Clone(s.work))
	path := []string{"other.txt", "run.sh", "new.txt", "ignored.txt"}[h.rng.Intn(4)]
	entry := s.work[path]
	mode, _, _ := strings.Cut(entry, " ")
	switch n := h.rng.Intn(6); {
	case n == 0 && entry != "":
		h.put(s, path, "")
		h.step("%s: remove %s", s.name, path)
	case n == 1 && entry != "":
		h.put(s, path, map[string]string{"644": "755", "755": "644"}[mode]+entry[3:])
		h.step("%s: another mode of %s", s.name, path)
	case n == 2:
		entry := map[bool]string{true: "", false: "dir"}[s.work["empty"] != ""]
		h.put(s, "empty", entry)
		h.step("%s: empty folder: %q", s.name, entry)
	default:
		h.version++
		if mode == "" {
			mode = "644"
		}
		h.put(s, path, mode+" "+strconv.Itoa(h.version))
		h.step("%s: edit %s", s.name, path)
	}
}

func (h *history) changeWorkTree(s *subject) {
	switch n := h.rng.Intn(12); {
	case n < 4:
		h.commit(s)
		h.step("%s: commit %.12s", s.name, s.head)
	case n < 5:
		h.version++
		s.hook = strconv.Itoa(h.version)
		h.write(filepath.Join(h.dir(s), ".git/hooks/post-index-change"), s.hook, 0o644)
		h.step("%s: another hook", s.name)
	case n < 7:
		commits := slices.Sorted(maps.Keys(s.commits))
		s.head = commits[h.rng.Intn(len(commits))]
		h.git(s, "update-index", "--no-assume-unchanged", "test.sh")
		h.git(s, "checkout", "-q", "-f", "--detach", s.head)
		s.committed = s.commits[s.head]
		h.reread(s)
		h.step("%s: check out %.12s", s.name, s.head)
	case n < 8:
		h.git(s, "update-index", "--assume-unchanged", "test.sh")
		h.test(s, "pass")
		h.step("%s: edit the test, and tell git that it is unchanged", s.name)
	case n < 9:
		if err := os.RemoveAll(filepath.Join(h.dir(s), ".git")); err != nil {
			h.t.Fatal(err)
		}
		s.head, s.hook = "", ""
		h.step("%s: is no work tree any more", s.name)
	default:
		h.edit(s)
	}
}

func (h *history) stash(s *subject) string { return filepath.Join(h.control, "stash-"+s.name) }

func (h *history) breakFolder(s *subject) {
	s.broken = []string{"removed", "removed", "dangling", "FIFO"}[h.rng.Intn(4)]
	var err error
	switch s.broken {
	case "FIFO":
		err = syscall.Mkfifo(filepath.Join(h.dir(s), "fifo"), 0o600)
	default:
		err = os.Rename(h.dir(s), h.stash(s))
		if err == nil && s.broken == "dangling" {
			err = os.Symlink("nowhere", h.dir(s))
		}
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.step("%s: %s", s.name, s.broken)
}

func (h *history) mend(s *subject) {
	var err error
	switch s.broken {
	case "FIFO":
		err = os.Remove(filepath.Join(h.dir(s), "fifo"))
	default:
		_ = os.Remove(h.dir(s))
		err = os.Rename(h.stash(s), h.dir(s))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.step("%s: not %s any more", s.name, s.broken)
	s.broken = ""
}

// Sweeps.

// during is a change that a run makes while its tests run.
type during struct {
	name, script string
	do           func(*history, *subject)
}

var durings = []during{
	{"its folder changes", `echo >changed.txt`, func(_ *history, s *subject) { s.work["changed.txt"] = "644 \n" }},
	{"its folder is removed", `mv ../"$8" "$control/stash-$8"`, func(_ *history, s *subject) { s.broken = "removed" }},
	{"the environment changes", `printf 'manifest 9' >"${0%/*}/manifest.json"; echo ` + fmt.Sprintf("%x", sha256.Sum256([]byte("manifest 9"))) + ` >"$control/fingerprint"`, func(h *history, _ *subject) { h.environment = "9" }},
	{"the runner changes", `printf 'runner 9' >"${0%/*}/runner/run.py"`, func(h *history, _ *subject) { h.runner = "9" }},
}

// plan is what one sweep does, and what happens to it.
type plan struct {
	modelSweep
	invoker string
	dry     bool
	event   string   // "", "interrupt", "kill" or "environment": it happens when at starts to run
	at      *subject // or never, if that is not run
	ends    map[*subject]ending
	during  map[*subject]during
}

func (h *history) plan() plan {
	p := plan{invoker: []string{"manual", "manual", "systemd", "drone"}[h.rng.Intn(4)], ends: map[*subject]ending{}, during: map[*subject]during{}}
	p.hand, p.skipsHold = p.invoker == "manual", h.skipsHold
	p.promote, p.force, p.dry = h.rng.Intn(4) == 0, h.rng.Intn(5) == 0, h.rng.Intn(12) == 0
	if h.rng.Intn(3) == 0 {
		p.maxAge = 24 * time.Hour
	}
	if h.rng.Intn(6) == 0 && !p.dry {
		p.event = []string{"interrupt", "interrupt", "kill", "environment"}[h.rng.Intn(4)]
		p.at = h.subjects[h.rng.Intn(len(h.subjects))]
	}
	for _, s := range h.subjects {
		p.ends[s] = byName[s.ending]
		switch {
		case p.at == s && p.event != "environment": // a run that only the event ends
			p.ends[s] = ending{name: "hang", script: "before=block"}
		case h.rng.Intn(6) == 0: // this time something else than its test says
			p.ends[s] = endings[h.rng.Intn(len(endings))]
		}
		if !p.ends[s].hangs && p.ends[s].name != "hang" && h.rng.Intn(15) == 0 && s.work["changed.txt"] == "" {
			p.during[s] = durings[h.rng.Intn(len(durings))]
		}
	}
	return p
}

func (p plan) String() string {
	text := "sweep by " + p.invoker
	for word, is := range map[string]bool{" --promote": p.promote, " --force": p.force, " --max-age": p.maxAge > 0, " --dry-run": p.dry} {
		if is {
			text += word
		}
	}
	if p.event != "" {
		text += ", " + p.event + " when " + p.at.name + " runs"
	}
	for s, e := range p.ends {
		text += ", " + s.name + ": " + e.name
		if d, ok := p.during[s]; ok {
			text += " while " + d.name
		}
	}
	return text
}

// forecast is what the model says of one sweep.
type forecast struct {
	verdicts map[string]string
	order    []string
	exit     int // 0, 1 or 125; -1: killed
}

// foresee asks the model, and changes its world.
func (h *history) foresee(p plan) forecast {
	f := forecast{verdicts: map[string]string{}}
	var pending []*subject
	for _, s := range h.subjects {
		if s.model.damaged && s.broken != "removed" && !p.dry {
			s.model, s.ran = modelMemory{}, 0 // set aside
		}
		folder := h.folder(s)
		switch v := s.model.decide(folder, p.modelSweep); {
		case v == "":
		case v != "run":
			f.verdicts[s.name] = v
			if !p.dry {
				s.model = s.model.after(v, folder, p.modelSweep, nil)
			}
		case p.dry:
			f.verdicts[s.name] = "RUN"
		default:
			pending = append(pending, s)
		}
	}
	slices.SortStableFunc(pending, func(a, b *subject) int { return a.ran - b.ran })
	ended := false
	for i, s := range pending {
		if ended {
			f.verdicts[s.name] = "CUT"
			continue
		}
		f.order = append(f.order, s.name)
		run, folder := p.ends[s].run, h.folder(s)
		looksOn := s.model.looksOn(p.modelSweep)
		if s == p.at {
			if p.event == "kill" {
				f.exit = -1
				return f
			}
			run.sweepEnded, ended = true, true
			h.turn++
			if i == 0 && p.event == "interrupt" && !looksOn { // it was among the first to start
				s.ran = h.turn
				s.model.known = true
			}
		}
		if d, ok := p.during[s]; ok {
			d.do(h, s)
			run.changed = s.broken != "" || h.folder(s).inputs != folder.inputs
		}
		v := s.model.judge(folder, p.modelSweep, run)
		s.model = s.model.after(v, folder, p.modelSweep, &run)
		f.verdicts[s.name] = v
		if !run.sweepEnded && !looksOn { // also if it was ended from outside
			h.turn++
			s.ran, s.model.known = h.turn, true
		}
	}
	for _, v := range f.verdicts {
		if modelBad(v) {
			f.exit = 1
		}
	}
	if ended {
		f.exit = 125
	}
	return f
}

func (h *history) sweepOnce() {
	p := h.plan()
	h.step("%s", p)
	if !slices.ContainsFunc(h.subjects, func(s *subject) bool { return s.broken != "removed" }) {
		if _, err := Run(context.Background(), h.Options, func(Event) {}); err == nil || !strings.Contains(err.Error(), "no recipe in") {
			h.fatalf("no recipe: %v", err)
		}
		return
	}
	o := h.Options
	o.DryRun = p.dry
	o.Policy = Policy{Force: p.force, MaxAge: p.maxAge, Invoker: p.invoker, Promote: p.promote}
	// The same by both ways in which it can be said.
	if o.SkipsHold = p.skipsHold; h.rng.Intn(2) == 0 {
		o.SkipsHold, o.SkipsHoldOf = !p.skipsHold, map[string]bool{"a": p.skipsHold, "b": p.skipsHold, "c": p.skipsHold}
	}
	o.Timeouts = map[string]time.Duration{}
	h.sweeps++
	o.Environ = append(slices.Clone(o.Environ), fmt.Sprint("SWEEP=", h.sweeps))
	for _, s := range h.subjects {
		e, script := p.ends[s], ""
		if e.name != s.ending {
			script = "trap - TERM; defaults \"$8\"\n" + e.script + "\n"
		}
		if d, ok := p.during[s]; ok {
			script += "before=" + quote(d.script+"\n") + "$before\n"
		}
		file := filepath.Join(h.control, fmt.Sprintf("%d-%s", h.sweeps, s.name))
		if script != "" {
			h.write(file, script, 0o644)
		}
		if e.hangs {
			o.Timeouts[s.name] = time.Millisecond
		}
	}
	p.now = time.Now()
	want := h.foresee(p)
	for _, v := range want.verdicts {
		if want.exit >= 0 {
			h.seen[v]++
		}
	}
	if p.event == "kill" {
		h.killedSweep(o, p, want)
	} else {
		h.wholeSweep(o, p, want)
	}
	h.compare()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// wholeSweep makes a sweep in this process.
func (h *history) wholeSweep(o Options, p plan, want forecast) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	changed := false
	o.Intact = func() error {
		if changed {
			return fmt.Errorf("environment: changed on disk")
		}
		return nil
	}
	var order []string
	results, err := Run(ctx, o, func(e Event) {
		if e.Result != nil || e.Recipe == "" {
			return
		}
		order = append(order, e.Recipe)
		if p.at != nil && e.Recipe == p.at.name {
			changed = p.event == "environment"
			if p.event == "interrupt" {
				cancel()
			}
		}
	})
	got := forecast{verdicts: map[string]string{}, order: order}
	var why []string
	for _, r := range results {
		got.verdicts[r.Recipe] = string(r.Verdict)
		why = append(why, fmt.Sprintf("%s: %s", r.Recipe, r.Why))
		if r.Verdict.Bad() {
			got.exit = 1
		}
	}
	if err != nil {
		got.exit = 125
		why = append(why, err.Error())
	}
	if !maps.Equal(got.verdicts, want.verdicts) || !slices.Equal(got.order, want.order) || got.exit != want.exit {
		h.fatalf("sweep %+v\n model %+v\n  %s", got, want, strings.Join(why, "\n  "))
	}
	if !p.dry && h.summarises(o) {
		if last, err := Last(h.State); err != nil || last.Status != want.exit || last.Ended.IsZero() {
			h.fatalf("last.json: %+v, %v; want status %d", last, err, want.exit)
		}
	}
}

// summarises says whether a sweep writes its summary: by hand, that of a timer's
// stays.
func (h *history) summarises(o Options) bool {
	if o.Invoker == "manual" && !o.Promote && h.summary != "" && h.summary != "manual" {
		return false
	}
	h.summary = o.Invoker
	return true
}

// killedSweep makes a sweep in another process, which is killed when the run of
// p.at starts, if it does.
func (h *history) killedSweep(o Options, p plan, want forecast) {
	s := startSweep(h.t, o)
	h.summarises(o)
	killed := false
	for s.scan() {
		killed = killed || s.line == "runs "+p.at.name
		if killed || s.line == "over" {
			s.kill()
		}
	}
	s.wait()
	if killed != (want.exit < 0) {
		h.fatalf("the sweep was killed: %t, model %+v", killed, want)
	}
}

// compare holds what is remembered against the model.
func (h *history) compare() {
	remembered := statesOf(h.State)
	for _, s := range h.subjects {
		if s.model.damaged {
			continue
		}
		known, err := remembered(s.name)
		if err != nil && s.model.known {
			h.fatalf("%s: %v", s.name, err)
		}
		if known.Held != s.model.held {
			h.fatalf("%s: held %t, model %t", s.name, known.Held, s.model.held)
		}
		if promoted := !known.Canonical.Time.IsZero(); promoted != (s.model.canonical != nil) {
			h.fatalf("%s: promoted %t, model %t", s.name, promoted, s.model.canonical != nil)
		} else if !promoted {
			continue
		}
		if known.Canonical.FailedSince != s.model.doubted {
			h.fatalf("%s: doubted %t, model %t", s.name, known.Canonical.FailedSince, s.model.doubted)
		}
		if h.same(s, s.model.canonical.revision, known.Canonical.Revision); strings.HasPrefix(s.model.canonical.revision, "tree ") != strings.HasPrefix(known.Canonical.Revision, "tree-") {
			h.fatalf("%s: canonical is %s, model %s", s.name, known.Canonical.Revision, s.model.canonical.revision)
		}
		h.same(s, s.model.canonical.tree, known.Canonical.Tree)
	}
}

// same notes that a name of the model's is one of the sweep's: always the same
// one, and not another's.
func (h *history) same(s *subject, model, sweep string) {
	for _, pair := range [][2]string{{"model " + model, sweep}, {"sweep " + sweep, model}} {
		if was, ok := h.revisions[pair[0]]; ok && was != pair[1] {
			h.fatalf("%s: %s is %s, and was %s", s.name, pair[0], pair[1], was)
		}
		h.revisions[pair[0]] = pair[1]
	}
}

var (
	histories = flag.Int("histories", 600, "how many histories TestHistories makes")
	fromStory = flag.Int64("histories.from", 1, "the number of the first one")
)

func TestHistories(t *testing.T) {
	seen, sweeps, steps, failed := map[string]int{}, 0, 0, 0
	started := time.Now()
	for n := range int64(*histories) {
		h := newHistory(t, fastDir(t), *fromStory+n)
		if d := h.play(); d != "" {
			t.Errorf("history %d: %s", *fromStory+n, d)
			if failed++; failed == 5 {
				t.Fatal("this may not be all")
			}
		}
		for v, n := range h.seen {
			seen[v] += n
		}
		sweeps += h.sweeps
		steps += len(h.steps)
		_ = os.RemoveAll(filepath.Dir(h.Program))
	}
	t.Logf("%d histories from number %d, %d steps, %d of them sweeps, in %s; verdicts: %v", *histories, *fromStory, steps, sweeps, time.Since(started).Round(time.Second), seen)
	for _, v := range []Verdict{Skip, Promote, Pass, Gone, Hold, Error, Cut, WouldRun} {
		if seen[string(v)] == 0 && *histories >= 100 {
			t.Errorf("no %s in any history", v)
		}
	}
}

// play makes the steps, and says how the sweep and the model disagree.
func (h *history) play() (d disagreement) {
	defer func() {
		if err := recover(); err != nil {
			d = err.(disagreement)
		}
	}()
	for range 6 + h.rng.Intn(7) {
		if h.rng.Intn(9) < 5 {
			h.change()
		} else {
			h.sweepOnce()
		}
	}
	h.sweepOnce()
	return ""
}

// fastDir is a directory in memory, if the machine has one: each state file is
// synced to its disk.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "sweep")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
