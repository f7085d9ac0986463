//go:build environment && e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cc-ci-run/e2e/internal/wrap"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

// paths are the three ways to a test of gitea, in a machine with the unit files
// that the NixOS modules render:
//
//   - the timer fires by itself, and its unit sweeps;
//   - a push to a real Gitea starts a build of a real Drone server, and the Drone
//     runner's unit runs the steps of .drone.yml;
//   - a person runs the tests by hand, in a shell on a pseudo-terminal that is as
//     wrong as we could think of.
type paths struct {
	*machine
	recipe string    // git work tree of the recipe gitea
	state  state.Dir // of cc-ci-run in the machine
	drone  drone
	commit string // that was pushed
}

// TestTwoPaths is one environment by three ways: gitea deploys itself and its tests
// pass on each, and `cc-ci-run parity` finds no drift. `make two-paths` runs it,
// beside a Docker daemon (e2e/with-docker).
func TestTwoPaths(t *testing.T) {
	older := target(t, buildUnits(t, "threeLists", droneRunner), "manual")
	p := bootPaths(t, "twoPaths")

	p.step(t, "the timer", func(t *testing.T) {
		p.wantVerdict(t, sweep.Promote)
		ran := p.newest(t, "systemd")
		p.await(t, "the timer to fire again", func() bool {
			return regexp.MustCompile(`(?m)^SKIP `).MatchString(p.journal("--unit=nightly-sweep.service"))
		})
		if again := p.newest(t, "systemd"); again.ID != ran.ID {
			t.Errorf("an unchanged recipe was run again, see records %s and %s", ran.ID, again.ID)
		}
		p.git(t, "commit", "--quiet", "--allow-empty", "--message=a change")
		promoted := p.wantVerdict(t, sweep.Promote)
		if promoted.Canonical.Revision != promoted.Last.Revision {
			t.Errorf("canonical is %s, should be what was promoted, %s", promoted.Canonical.Revision, promoted.Last.Revision)
		}
		write(t, filepath.Join(p.recipe, "test_broken.py"), "def test_broken(): assert False\n", 0o644)
		p.git(t, "add", ".")
		p.git(t, "commit", "--quiet", "--message=a broken commit")
		if held := p.wantVerdict(t, sweep.Hold); held.Canonical.Revision != promoted.Last.Revision {
			t.Errorf("canonical is %s after a broken commit, should still be %s", held.Canonical.Revision, promoted.Last.Revision)
		}
	})
	p.step(t, "Drone", func(t *testing.T) {
		summary, _ := p.pipeline(t, "success")
		if !strings.HasPrefix(summary, "11 passed in") { // none was skipped
			t.Errorf("pytest says %q, should say that 11 passed and no more", summary)
		}
	})
	p.step(t, "by hand", func(t *testing.T) {
		status, summary := p.byHand(t)
		if status != 0 || !strings.HasPrefix(summary, "11 passed") {
			t.Errorf("exit status %d, pytest says %q, should say that 11 passed", status, summary)
		}
	})
	p.step(t, "parity", func(t *testing.T) {
		for _, other := range []string{"drone", "manual"} {
			if status, out := p.parity(t, other, "systemd"); status != 0 {
				t.Errorf("%s and systemd drifted:\n%s", other, out)
			}
		}
	})
	p.step(t, "parity --live", func(t *testing.T) {
		if status, out := p.live(t); status != 0 {
			p.fatalf(t, "exit status %d, the probes drifted:\n%s", status, out)
		}
		p.link(t, older, "/srv/older/bin/cc-ci-run")
		for _, row := range []struct {
			name, unit string
			line       string // of a drop-in
			flags      string // of parity
			status     int
			want       string
		}{
			{"a nice sweep", "nightly-sweep.service", "Nice=5", "", 1, `(?m)^drift +process nice +-?\d+ +5 .*`},
			{"a PATH in a unit", "nightly-sweep.service", "Environment=PATH=/opt/x/bin", "--all", 0, `(?m)^declared +the caller's PATH .* /opt/x/bin +cc-ci-run lets none in.*`},
			{"another build", "drone-runner-exec.service", "Environment=PATH=/srv/older/bin:/usr/bin", "", 1, `(?m)^drift +command git-lfs +missing +/nix/store/.*`},
		} {
			t.Run(row.name, func(t *testing.T) {
				dropIn := "/etc/systemd/system/" + row.unit + ".d/override.conf"
				p.write(t, dropIn, "[Service]\n"+row.line+"\n", 0o644)
				p.sh(t, "systemctl daemon-reload")
				status, out := p.live(t, append(strings.Fields(row.flags), "drone", "systemd")...)
				line := regexp.MustCompile(row.want).FindString(out)
				if status != row.status || line == "" {
					t.Errorf("exit status %d, should be %d, and a line %s in\n%s", status, row.status, row.want, out)
				}
				t.Log(line)
				p.sh(t, "rm "+dropIn+"; systemctl daemon-reload")
			})
		}
		if status, out := p.live(t, "drone", "systemd"); status != 0 {
			t.Errorf("exit status %d, and nothing is wrong any more:\n%s", status, out)
		}
		if left := p.sh(t, "find /run /tmp -name 'cc-ci-run-probe-*'"); left != "" {
			t.Errorf("the probes left %s", left)
		}
	})
	p.step(t, "nothing is left", func(t *testing.T) {
		p.sh(t, "systemctl stop nightly-sweep.timer nightly-sweep.service") // it runs the held recipe again and again
		for _, kind := range []string{"service", "container", "network", "config", "secret", "volume"} {
			args := []string{kind, "ls", "--quiet", "--filter", "label=cc-ci-run.deployment"}
			if left := output(t, exec.CommandContext(p.ctx, "docker", args...)); left != "" {
				t.Errorf("docker %s prints\n%s", strings.Join(args, " "), left)
			}
		}
	})
}

// TestThreeLists is the way it was before, a list of tools for each way: the
// witness fails under the timer and passes under Drone, and parity says why.
// DEFECT-3. The tests use the Gitea that Drone belongs to. The machine has no Docker
// daemon, so tests that deploy are skipped.
func TestThreeLists(t *testing.T) {
	p := bootPaths(t, "threeLists")
	const witness = "test_lfs_roundtrip"
	p.step(t, "the timer", func(t *testing.T) {
		held := p.wantVerdict(t, sweep.Hold)
		log := read(t, p.path(held.Last.Log))
		failed := regexp.MustCompile(`(?m)^(FAILED|ERROR) .*`).FindAllString(log, -1)
		if len(failed) != 1 || !strings.HasPrefix(failed[0], "FAILED ") || !strings.Contains(failed[0], witness) {
			t.Errorf("failed: %q, should be %s alone:\n%s", failed, witness, log)
		}
	})
	p.step(t, "Drone", func(t *testing.T) {
		summary, log := p.pipeline(t, "failure")
		if !strings.HasPrefix(summary, "3 failed, 5 passed, 3 skipped in") {
			t.Errorf("pytest says %q, should say that 5 passed, 3 failed for want of jq, and 3 were skipped for want of docker", summary)
		}
		if line := regexp.MustCompile(`.*FAILED .*` + witness + `.*`).FindString(log); line != "" {
			t.Errorf("the witness failed: %s", line)
		}
	})
	p.step(t, "by hand", func(t *testing.T) {
		if _, summary := p.byHand(t); !strings.HasPrefix(summary, "4 failed") {
			t.Errorf("pytest says %q, should say that 4 failed, the witness and three for want of jq", summary)
		}
	})
	p.step(t, "parity", func(t *testing.T) {
		for _, row := range []struct{ one, other, want string }{
			{"drone", "systemd", `(?m)^drift +command git-lfs +/nix/store/\S+/git-lfs +missing .*`},
			{"manual", "drone", `(?m)^drift +command git-lfs +missing +/nix/store/.*`},
		} {
			status, out := p.parity(t, row.one, row.other)
			line := regexp.MustCompile(row.want).FindString(out)
			if status != 1 || line == "" {
				t.Errorf("exit status %d, should be 1, and a line %s in\n%s", status, row.want, out)
			}
			t.Log(line)
		}
	})
}

// bootPaths boots the machine of an attribute of nix/tests. The timer and the
// Drone runner, for which a build waits, start at once.
func bootPaths(t *testing.T, attribute string) paths {
	t.Helper()
	d := newDrone(t)
	m := newMachine(t, attribute, droneRunner)
	p := paths{machine: m, recipe: m.path("/srv/recipes/gitea"), state: state.Dir(m.path("/var/lib/cc-ci-run")), drone: d}
	m.write(t, "/etc/systemd/system/two-paths.target", `[Unit]
Requires=sysinit.target dbus.socket nightly-sweep.timer
Wants=drone-runner-exec.service
After=sysinit.target dbus.socket nightly-sweep.timer
`, 0o644)

	variables := giteaImages
	if attribute == "twoPaths" {
		m.bind(t, "/run/docker.sock")
	} else {
		variables = d.instance()
	}
	m.write(t, "/etc/instance.env", strings.Join(variables, "\n")+"\n", 0o600)
	d.attach(t, m, variables)
	m.link(t, m.program, "/srv/by-hand")

	project := m.path("/srv/project")
	output(t, exec.CommandContext(m.ctx, "git", "clone", "--quiet", "..", project))
	output(t, exec.CommandContext(m.ctx, "git", "-C", project, "checkout", "--quiet", "-B", "main"))
	p.commit = d.push(t, project)
	output(t, exec.CommandContext(m.ctx, "chroot", m.root, "/usr/bin/chown", "-R", "cc-ci", "/srv/project")) // git clones from no stranger's
	if err := os.CopyFS(p.recipe, os.DirFS("../recipes/gitea")); err != nil {
		t.Fatal(err)
	}
	p.git(t, "init", "--quiet")
	p.git(t, "add", ".")
	p.git(t, "commit", "--quiet", "--message=the recipe")

	m.boot(t, "two-paths.target")
	return p
}

// step is a subtest that the next ones need.
func (p paths) step(t *testing.T, name string, test func(*testing.T)) {
	t.Helper()
	if !t.Run(name, test) {
		t.Fatalf("nothing was tried after %q", name)
	}
}

// git runs git in the recipe.
func (p paths) git(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"-C", p.recipe, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost"}, args...)
	return strings.TrimSpace(output(t, exec.CommandContext(p.ctx, "git", args...)))
}

// wantVerdict waits until the timer's sweep has a verdict on the recipe's commit
// of now. An error is none: the sweep tries again.
func (p paths) wantVerdict(t *testing.T, want sweep.Verdict) (known sweep.State) {
	t.Helper()
	commit := p.git(t, "rev-parse", "HEAD")
	p.await(t, fmt.Sprintf("the verdict %s on gitea's commit %s", want, commit), func() bool {
		states, _, _ := sweep.States(p.state, git(t))
		for _, known = range states {
			if known.Last.Revision == commit && known.Last.Verdict != sweep.Error {
				return true
			}
		}
		return false
	})
	t.Logf("%s of %.12s; canonical is %.12s", known.Last.Verdict, commit, known.Canonical.Revision)
	if known.Last.Verdict != want {
		p.fatalf(t, "the verdict on gitea's commit %s is %s, should be %s: %s; its log:\n%s", commit, known.Last.Verdict, want, known.Last.Why, wrap.LastLines(read(t, p.path(known.Last.Log)), 60))
	}
	return known
}

// newest is an invoker's newest record of gitea's tests.
func (p paths) newest(t *testing.T, invoker string) *record.Record {
	t.Helper()
	r, _, err := record.Newest(p.state, invoker, "gitea")
	if err != nil {
		p.fatalf(t, "%v", err)
	}
	return r
}

// summaryRE is the line of pytest's with the number of tests, without its colours.
var summaryRE = regexp.MustCompile(`(?m)=+ ([0-9]+ (?:passed|failed).*) =+\s*$`)

// pipeline waits for the end of the build of the push, which must have a status,
// and gives what pytest said at the end, and the step's log.
func (p paths) pipeline(t *testing.T, status string) (summary, log string) {
	t.Helper()
	b, log := p.drone.ended(t, p.machine, p.commit, status)
	found := summaryRE.FindStringSubmatch(log)
	if found == nil {
		p.fatalf(t, "pytest said nothing at the end:\n%s", log)
	}
	r := p.newest(t, "drone")
	t.Logf("%s; run by %s, which %d variables reached", found[1], r.Invoker.ID, len(r.Passed))
	if want := fmt.Sprintf("%s/%d/recipes/gitea", p.drone.repository, b.Number); r.Invoker.ID != want {
		t.Errorf("the newest record of Drone is of %s, should be of %s", r.Invoker.ID, want)
	}
	return found[1], log
}

// byHand is a login on a terminal, as `machinectl shell` makes one, and in it a
// shell that is as wrong as a person's can be. It gives the exit status and what
// pytest said at the end.
func (p paths) byHand(t *testing.T) (status int, summary string) {
	t.Helper()
	const poisoned = "/srv/evil/poisoned"
	for _, fake := range []string{"git", "git-lfs", "python3", "bash", "sh", "pytest"} {
		p.write(t, "/srv/evil/"+fake, "#!/bin/sh\necho fake >>"+poisoned+"\nexit 42\n", 0o755)
	}
	p.write(t, "/srv/evil/env", "echo fake >>"+poisoned+"\n", 0o644)
	p.write(t, poisoned, "", 0o666)
	if err := os.Chmod(p.path(poisoned), 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
	p.write(t, "/srv/evil/rc", `
export PATH=/srv/evil:.:/usr/bin LANG=tr_TR.UTF-8 TZ=Asia/Kathmandu TMPDIR=/nowhere BASH_ENV=/srv/evil/env ENV=/srv/evil/env
export PYTHONPATH=/srv/evil PYTHONHOME=/nowhere PYTEST_ADDOPTS=--collect-only LD_LIBRARY_PATH=/srv/evil GIT_DIR=/nowhere GIT_AUTHOR_NAME=evil
umask 077
ulimit -S -n 256
trap '' PIPE INT USR1
exec 7</etc/passwd
`, 0o644)
	status, out := p.try(t, "systemd-run", "--quiet", "--pty", "--wait", "--collect", "--uid=cc-ci", "-p", "PAMName=login", "-p", "EnvironmentFile=/etc/instance.env",
		"-p", "WorkingDirectory=/srv", "/bin/bash", "--rcfile", "/srv/evil/rc", "-ic", "exec /srv/by-hand project/runner/run_recipe_ci.py gitea")
	found := summaryRE.FindStringSubmatch(regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(out, ""))
	if found == nil {
		p.fatalf(t, "exit status %d, and pytest said nothing at the end:\n%s", status, out)
	}
	t.Logf("exit status %d; %s", status, found[1])
	if got := read(t, p.path(poisoned)); got != "" {
		t.Errorf("something of the shell got in:\n%s", out)
	}
	if r := p.newest(t, "manual"); !r.Process.Terminals[0] {
		t.Errorf("record %s is not of a person at a terminal", r.ID)
	}
	return status, found[1]
}

// parity compares the newest records of gitea's tests by two invokers.
func (p paths) parity(t *testing.T, one, other string) (status int, out string) {
	t.Helper()
	status, out = p.try(t, "/etc/cc-ci-run/path/bin/cc-ci-run", "parity", "--recipe", "gitea", one, other)
	t.Log(wrap.LastLines(out, 1))
	return status, out
}

// live starts a probe through each way, and compares them.
func (p paths) live(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	status, out = p.try(t, append([]string{"systemd-run", "--quiet", "--pipe", "--wait", "--collect", p.program, "parity", "--live"}, args...)...)
	t.Log(wrap.LastLines(out, 1))
	return status, out
}
