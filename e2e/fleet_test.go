//go:build environment && e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

// fleet is two machines with different names, each with its own state directory and a
// Drone runner, at one Drone server. They share a memory. The first one also has the
// dispatcher: the sweep's unit, as the NixOS module renders it with services.cc-ci.nightly-sweep.drone.
type fleet struct {
	drone
	one, two *machine
	another  string          // what the link /etc/cc-ci-run/path leads to on a machine with another environment
	tree     string          // work tree of what builds check out
	life     context.Context // ends with the fleet's test
	shared   memory.Remote
}

// ofDispatcher is the dispatcher's state directory in its machine.
const ofDispatcher = "/var/lib/cc-ci-dispatcher"

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{drone: newDrone(t), tree: t.TempDir(), life: t.Context()}
	f.ofGitea(t, "POST", "/user/repos", map[string]any{"name": "memory", "private": true}, nil)
	host, _ := strings.CutPrefix(f.get("GITEA_URL"), "http://")
	address, _, _ := strings.Cut(host, ":")
	netrc := fmt.Sprintf("machine %s login %s password %s\n", address, f.get("GITEA_USER"), f.get("GITEA_PASSWORD"))
	home := t.TempDir()
	write(t, filepath.Join(home, ".netrc"), netrc, 0o600)
	f.shared = memory.Remote{URL: f.get("GITEA_URL") + "/" + f.get("GITEA_USER") + "/memory.git", Environ: []string{"HOME=" + home}}

	f.ofDrone(t, "POST", "/repos/"+f.repository+"/secrets", map[string]string{"name": "memory", "data": f.shared.URL}, nil)
	f.git(t, "clone", "--quiet", projectRoot(t), ".")
	f.git(t, "checkout", "--quiet", "-B", "main")
	machine := func(name string) *machine {
		m := newMachine(t, "fleet", droneRunner)
		m.name = name
		f.attach(t, m, f.instance())
		// What the site gives to tests is an input of each run, so all machines have the same.
		m.write(t, "/etc/instance.env", strings.Join(f.instance(), "\n")+"\n", 0o600)
		m.write(t, "/etc/drone-token", f.get("DRONE_TOKEN")+"\n", 0o600)
		m.write(t, "/var/lib/nightly-sweep/.netrc", netrc, 0o600)
		const unit = "/etc/systemd/system/nightly-sweep.service"
		m.write(t, unit, strings.NewReplacer("MEMORY_URL", f.shared.URL, "DRONE_URL", f.get("DRONE_SERVER")+"/"+f.repository).Replace(read(t, m.path(unit))), 0o644)
		m.boot(t, "multi-user.target")
		m.sh(t, "chown -R cc-ci:cc-ci /var/lib/nightly-sweep; systemctl start drone-runner-exec.service")
		return m
	}
	f.one, f.two = machine("ci-1"), machine("ci-2")
	return f
}

func (f *fleet) machines() []*machine { return []*machine{f.one, f.two} }

// git runs git in the work tree that builds check out.
func (f *fleet) git(t testing.TB, args ...string) string {
	t.Helper()
	args = append([]string{"-C", f.tree, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost"}, args...)
	return strings.TrimSpace(output(t, exec.CommandContext(interrupted(), "git", args...)))
}

// put makes recipes, with the file sweep.toml beside them, the recipes of the builds and of the
// dispatchers. recipes has the text of each recipe's test, by the recipe's name.
func (f *fleet) put(t *testing.T, recipes map[string]string, config string) {
	t.Helper()
	dirs := []string{filepath.Join(f.tree, "recipes"), f.one.path("/srv/recipes"), f.two.path("/srv/recipes")}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		for name, test := range recipes {
			write(t, filepath.Join(dir, name, "test_it.py"), test, 0o644)
		}
		write(t, filepath.Join(dir, sweep.ConfigName), config, 0o644)
	}
	f.git(t, "add", "--all", ".")
	f.git(t, "commit", "--quiet", "--allow-empty", "--message=recipes [CI SKIP]") // no build of the push
	commit := f.push(t, f.tree)
	f.one.await(t, "Gitea to know the pushed commit", func() bool { // until then Gitea answers with an error, and a build waits
		var branch struct{ Commit struct{ ID string } }
		err := tryAsk("GET", f.get("GITEA_URL")+"/api/v1/repos/"+f.repository+"/branches/main", f.authorization(), nil, &branch)
		return err == nil && branch.Commit.ID == commit
	})
}

// remembered is what the shared repository has of each recipe, with its history.
type remembered struct {
	sweep.State
	History sweep.History
}

func (f *fleet) remembered(t *testing.T) map[string]remembered {
	t.Helper()
	m, err := memory.Create(state.Dir(t.TempDir()), git(t), memory.Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Share(f.shared)
	all := map[string]remembered{}
	err = m.Fetch()
	var list []*sweep.Remembered
	if err == nil {
		list, err = sweep.Recall(m)
	}
	if err == nil {
		err = sweep.Histories(m, list, func(r *sweep.Remembered, h sweep.History, fault error) {
			if err := errors.Join(r.Err, fault); err != nil {
				t.Errorf("%s: %v", r.Recipe(), err)
			}
			all[r.Recipe()] = remembered{r.State, h}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sweeps starts the sweep's unit of a machine, and gives its exit status, how long it took,
// and what it said.
func (f *fleet) sweeps(t *testing.T, m *machine) (status string, took time.Duration, said string) {
	t.Helper()
	return f.begin(t, m)()
}

// begin starts the sweep's unit as sweeps does. The function end waits until the unit has ended.
func (f *fleet) begin(t *testing.T, m *machine) (end func() (status string, took time.Duration, said string)) {
	t.Helper()
	const unit = "nightly-sweep.service"
	cursor := strings.TrimPrefix(regexp.MustCompile(`-- cursor: .*`).FindString(m.journal("--show-cursor", "--lines=0")), "-- cursor: ")
	began := time.Now()
	m.sh(t, "systemctl reset-failed "+unit+" || true")
	starts := m.command("systemctl", "start", unit) // until the sweep has ended
	if err := starts.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (string, time.Duration, string) {
		t.Helper()
		_ = starts.Wait() // the unit's properties say how the sweep ended
		m.await(t, "the sweep to end", func() bool { return m.command("systemctl", "is-active", "--quiet", unit).Run() != nil })
		took := time.Since(began)
		m.sh(t, "journalctl --sync")
		args := []string{"--unit=" + unit, "--output=short-iso"} // with the times
		if cursor != "" {
			args = append(args, "--after-cursor="+cursor)
		}
		status := m.sh(t, `systemctl show --value -p Result -p ExecMainStatus `+unit+` | sort | tr '\n' ' '`)
		return strings.TrimSpace(status), took, m.journal(args...)
	}
}

// The ends of a sweep's unit, as begin gives them: the exit status, and systemd's word.
const (
	allGood  = "0 success"
	someHeld = "1 exit-code"
)

// sleeper is a test that takes some seconds. what makes it another test.
func sleeper(seconds int, what string) string {
	return fmt.Sprintf("import time\n\n\ndef test_it():\n    time.sleep(%d)  # %s\n", seconds, what)
}

const failing = "def test_it():\n    assert False\n"

// TestFleet is a sweep over two machines by the real Drone. `make drone` runs it.
func TestFleet(t *testing.T) {
	f := newFleet(t)
	t.Run("a push", f.pushed)
	t.Run("a night", f.night)
}

// pushed is a push of this project: a machine runs the witness, and its record and the
// commit's status say so.
func (f *fleet) pushed(t *testing.T) {
	commit := f.push(t, f.tree)
	b, log := f.ended(t, f.one, commit, "success")
	if got := f.commitStatus(t, f.one, commit); got != "success" {
		t.Errorf("the commit's status is %s, should be success", got)
	}
	for _, m := range f.machines() {
		r, _, err := record.Newest(state.Dir(m.path("/var/lib/cc-ci-run")), "drone", "gitea")
		switch on := b.Stages[0].Machine; {
		case m.name != on && err == nil:
			t.Errorf("Drone says that %s ran the stage, and %s has the record %s", on, m.name, r.ID)
		case m.name == on && err != nil:
			m.fatalf(t, "%v\n%s", err, log)
		case m.name == on:
			if want := fmt.Sprintf("%s/%d/recipes/gitea", f.repository, b.Number); r.Invoker.ID != want || r.Revision != commit {
				t.Errorf("record %s is of run %q, commit %s; should be of %q, commit %s", r.ID, r.Invoker.ID, r.Revision, want, commit)
			}
		}
	}
}

// night is a sweep of twelve recipes, a broken one among them, over two machines, over one,
// and again when nothing has changed.
func (f *fleet) night(t *testing.T) {
	recipes := map[string]string{}
	for i := range 12 {
		recipes[fmt.Sprintf("r%02d", i)] = sleeper(8, "of two")
	}
	recipes["r05"] = failing
	f.put(t, recipes, "timeout = \"1m\"\n")

	status, two, said := f.sweeps(t, f.one)
	t.Logf("two machines: %s\n%s", two, said)
	if status != someHeld {
		f.one.fatalf(t, "the sweep ended with %s, should end with %s:\n%s", status, someHeld, said)
	}
	ran := f.wantNight(t, recipes)
	// Both worked at the same time.
	overlap := slices.ContainsFunc(ran["ci-1"], func(a sweep.Past) bool {
		return slices.ContainsFunc(ran["ci-2"], func(b sweep.Past) bool {
			return a.Started.Before(b.Started.Add(b.Took)) && b.Started.Before(a.Started.Add(a.Took))
		})
	})
	if !overlap {
		t.Errorf("no two runs on two machines overlap: %+v", ran)
	}
	if status, out := f.one.try(t, "runuser", "-u", "cc-ci", "--", f.one.program, "parity", "--machines", "--state", ofDispatcher); status != 0 {
		t.Errorf("the machines differ:\n%s", out)
	} else {
		t.Log(out)
	}

	recipes["r05"] = sleeper(0, "fixed")
	f.put(t, recipes, "timeout = \"1m\"\n")
	if status, _, said := f.sweeps(t, f.one); status != allGood {
		f.one.fatalf(t, "after the fix, the sweep ended with %s:\n%s", status, said)
	}
	status, again, said := f.sweeps(t, f.one)
	t.Logf("nothing changed: %s\n%s", again, said)
	if status != allGood || strings.Contains(said, "build ") {
		t.Errorf("the sweep of unchanged recipes ended with %s:\n%s", status, said)
	}

	for name := range recipes {
		recipes[name] = sleeper(8, "of one")
	}
	recipes["r05"] = failing
	f.put(t, recipes, "timeout = \"1m\"\n")
	f.two.sh(t, "systemctl stop drone-runner-exec.service")
	status, one, said := f.sweeps(t, f.one)
	f.two.sh(t, "systemctl start drone-runner-exec.service")
	if status != someHeld {
		f.one.fatalf(t, "the sweep ended with %s:\n%s", status, said)
	}
	f.wantNight(t, recipes)
	t.Logf("one machine took %s, two took %s: %.2f of that", one, two, two.Seconds()/one.Seconds())
}

// wantNight checks the verdicts of recipes, of which those that fail are held, and gives the
// runs of these recipes' tests on each machine.
func (f *fleet) wantNight(t *testing.T, recipes map[string]string) (ran map[string][]sweep.Past) {
	t.Helper()
	ran = map[string][]sweep.Past{}
	known := f.remembered(t)
	for name, test := range recipes {
		k := known[name]
		if k.Run == nil {
			t.Errorf("%s: nothing is known of it", name)
			continue
		}
		ran[k.Run.Machine] = append(ran[k.Run.Machine], *k.Run)
		want := sweep.Promote
		if strings.HasPrefix(test, failing) {
			want = sweep.Hold
		}
		if k.Run.Verdict != want || k.Held != (want == sweep.Hold) {
			t.Errorf("%s: %+v, should be %s", name, k.Run, want)
		}
		if now := k.Canonical.Tree != "" && strings.HasPrefix(k.Canonical.Tree, k.Run.Tree); now != (want == sweep.Promote) {
			t.Errorf("%s: %s, and canonical is %.12s of the run %.12s", name, want, k.Canonical.Tree, k.Run.Tree)
		}
	}
	return ran
}

// TestFleetFailures is a sweep over two machines during which something fails: a program or
// a machine is killed, a server is away, a disk is full. After each failure, nothing is
// lost, nothing is promoted that did not pass, no process or build is left, and the next sweep
// gives each recipe its right verdict. docs/machines.md has a row for each failure. `make drone`
// runs this test.
func TestFleetFailures(t *testing.T) {
	t.Parallel() // beside TestDrone
	another := buildUnits(t, "another", droneRunner)
	// Some fleets at once, because a lost build takes minutes.
	for i, list := range [][]failure{
		{
			{"a test is killed", false, func(t *testing.T, f *fleet) func() {
				f.two.sh(t, "kill -9 $(pgrep -u cc-ci -f 'pytest|run_recipe_ci.py' | tail -1)")
				return nil
			}},
			{"a build is cancelled", false, func(t *testing.T, f *fleet) func() {
				f.ofDrone(t, "DELETE", fmt.Sprintf("/repos/%s/builds/%d", f.repository, f.buildOn(t, f.two)), nil, nil)
				return nil
			}},
			{"the git server is away for ten seconds", false, func(t *testing.T, f *fleet) func() {
				pid := listener(t, f.get("GITEA_URL"))
				_ = syscall.Kill(pid, syscall.SIGSTOP)
				time.Sleep(10 * time.Second)
				_ = syscall.Kill(pid, syscall.SIGCONT)
				return nil
			}},
			{"the Drone server is killed, and started after ten seconds", false, func(t *testing.T, f *fleet) func() {
				f.restart(t, listener(t, f.get("DRONE_SERVER")), 10*time.Second)
				return nil
			}},
		},
		{
			{"the dispatcher is killed, and started again", false, func(t *testing.T, f *fleet) func() {
				f.one.sh(t, "systemctl kill --signal=KILL nightly-sweep.service")
				return nil
			}},
			{"two dispatchers at once", false, func(t *testing.T, f *fleet) func() {
				other := f.begin(t, f.two)
				return func() {
					status, took, said := other()
					t.Logf("the other dispatcher ended with %s after %s:\n%s", status, took.Round(time.Second), said)
				}
			}},
			{"a machine has another environment", true, func(t *testing.T, f *fleet) func() {
				const link = "/etc/cc-ci-run/path"
				was := strings.TrimSpace(f.two.sh(t, "readlink "+link))
				f.two.sh(t, "ln -sfn "+f.another+" "+link)
				return func() { f.two.sh(t, "ln -sfn "+was+" "+link) }
			}},
		},
		{
			{"the git server is killed, and started after ten seconds", false, func(t *testing.T, f *fleet) func() {
				f.restart(t, listener(t, f.get("GITEA_URL")), 10*time.Second)
				return nil
			}},
			{"a machine's disk is full", true, func(t *testing.T, f *fleet) func() {
				f.two.sh(t, "mount -t tmpfs -o size=48k,mode=2755,uid=$(id -u cc-ci),gid=$(id -g cc-ci) none /var/lib/cc-ci-run")
				return func() { f.two.sh(t, "umount --lazy /var/lib/cc-ci-run") }
			}},
		},
		{
			{"a runner is killed", false, func(t *testing.T, f *fleet) func() {
				f.two.sh(t, "systemctl kill --signal=KILL --kill-who=main drone-runner-exec.service")
				return nil
			}},
		},
	} {
		t.Run(fmt.Sprint("fleet ", i+1), func(t *testing.T) { failures(t, another, list) })
	}
}

// failure is something that fails while both machines work. complete says that each recipe
// gets its right verdict in the same sweep. The function after, if not nil, is called when the
// sweep has ended, before the next sweep.
type failure struct {
	name     string
	complete bool
	fail     func(t *testing.T, f *fleet) (after func())
}

// failures tries each of some failures with a fleet.
func failures(t *testing.T, another string, list []failure) {
	t.Parallel()
	f := newFleet(t)
	f.another = another
	for n, row := range list {
		t.Run(row.name, func(t *testing.T) { f.fails(t, n, row) })
	}
}

// fails is a sweep during which something fails, and the next one.
func (f *fleet) fails(t *testing.T, round int, row failure) {
	recipes := map[string]string{"bad": failing + fmt.Sprintln("#", round)}
	for i := range 5 {
		recipes[fmt.Sprintf("good%d", i)] = sleeper(6, fmt.Sprint("round ", round))
	}
	f.put(t, recipes, "timeout = \"1m\"\ngrace = \"2s\"\n")
	end := f.begin(t, f.one)
	f.one.await(t, "both machines to work", func() bool {
		return !slices.ContainsFunc(f.machines(), func(m *machine) bool { return !f.works(t, m) })
	})
	began := time.Now()
	after := row.fail(t, f)
	status, _, said := end()
	t.Logf("%s after the failure, the sweep ended with %s:\n%s", time.Since(began).Round(time.Second), status, said)
	f.neverFalse(t)
	if row.complete {
		f.wantNight(t, recipes)
	}
	if after != nil {
		after()
	}
	status, took, said := f.sweeps(t, f.one)
	t.Logf("the next sweep took %s, and ended with %s:\n%s", took.Round(time.Second), status, said)
	if status != someHeld {
		t.Errorf("the next sweep ended with %s, should end with %s", status, someHeld)
	}
	f.wantNight(t, recipes)
	f.nothingRuns(t)
}

// works says whether a machine runs a recipe's tests.
func (f *fleet) works(t *testing.T, m *machine) bool {
	return strings.Contains(m.sh(t, "pgrep -u cc-ci -fa run_recipe_ci.py || true"), "--recipes")
}

// buildOn is the number of the build that a machine works on.
func (f *fleet) buildOn(t *testing.T, m *machine) int {
	t.Helper()
	var list []build
	f.ofDrone(t, "GET", "/repos/"+f.repository+"/builds", nil, &list)
	for _, b := range list {
		if b.Status != "running" {
			continue
		}
		f.ofDrone(t, "GET", fmt.Sprintf("/repos/%s/builds/%d", f.repository, b.Number), nil, &b)
		if len(b.Stages) > 0 && b.Stages[0].Machine == m.name {
			return b.Number
		}
	}
	t.Fatalf("no build runs on %s", m.name)
	return 0
}

// neverFalse checks that each promotion is that of a run that passed, and that all states and
// histories can be read.
func (f *fleet) neverFalse(t *testing.T) {
	t.Helper()
	for name, k := range f.remembered(t) {
		if name == "bad" && !k.Canonical.Time.IsZero() {
			t.Errorf("bad was promoted: %+v", k.Canonical)
		}
		if k.Canonical.Time.IsZero() {
			continue
		}
		passed := slices.ContainsFunc(k.History.Runs, func(p sweep.Past) bool {
			return p.Verdict == sweep.Promote && p.Tests.Tests > 0 && p.Tests.Passed == p.Tests.Tests && p.Tree != "" && strings.HasPrefix(k.Canonical.Tree, p.Tree)
		})
		if !passed {
			t.Errorf("%s: no run passed with what is canonical, %+v: %+v", name, k.Canonical, k.History.Runs)
		}
	}
}

// nothingRuns checks that no process of a test, and no build, is left.
func (f *fleet) nothingRuns(t *testing.T) {
	t.Helper()
	for _, m := range f.machines() {
		m.await(t, "the processes of "+m.name+" to end", func() bool {
			return m.sh(t, "ps -u cc-ci -o comm= | grep -v '^drone-runner' || true") == ""
		})
	}
	var list []build
	f.ofDrone(t, "GET", "/repos/"+f.repository+"/builds", nil, &list)
	for _, b := range list {
		if slices.Contains([]string{"pending", "running"}, b.Status) {
			t.Errorf("build %d is still %s", b.Number, b.Status)
		}
	}
}

// listener is the process that listens at a URL's address on this machine.
func listener(t testing.TB, url string) (pid int) {
	t.Helper()
	port := url[strings.LastIndexByte(url, ':')+1:]
	found := regexp.MustCompile(`:` + port + `\s.*pid=(\d+)`).FindStringSubmatch(output(t, exec.CommandContext(interrupted(), "ss", "-Hltnp")))
	if found == nil {
		t.Fatalf("nobody listens at %s", url)
	}
	pid, _ = strconv.Atoi(found[1])
	return pid
}

// restart kills a server of this machine, and starts it as it was started, after a while.
// The server ends with the fleet's test.
func (f *fleet) restart(t *testing.T, pid int, after time.Duration) {
	t.Helper()
	of := func(name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }
	program, err := os.Readlink(of("exe"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Readlink(of("cwd"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(of(""))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Split(strings.TrimSuffix(read(t, of("cmdline")), "\x00"), "\x00")
	cmd := exec.CommandContext(f.life, program, words[1:]...)
	cmd.Env = strings.Split(strings.TrimSuffix(read(t, of("environ")), "\x00"), "\x00")
	cmd.Dir = dir
	owner := info.Sys().(*syscall.Stat_t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	time.Sleep(after)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
}
