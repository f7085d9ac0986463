//go:build environment && e2e

package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

// recipesOfUnits are those of TestSweepUnits, in the order in which the night
// runs them.
var recipesOfUnits = map[string]string{
	// A process that has no variables, is in a session of its own, has init as its
	// parent and ignores SIGTERM.
	"a-leaves": `import os, subprocess, time
LEFT = "/tmp/left"
def test_it():
    if os.path.exists(LEFT):
        os.unlink(LEFT)
    subprocess.run(["bash", "-c", "setsid env -i /bin/bash -c 'trap : TERM HUP; echo $$ >" + LEFT + "; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &"], check=True)
    while not os.path.exists(LEFT) or not open(LEFT).read():
        time.sleep(0.1)
    assert os.path.exists("/proc/" + open(LEFT).read().strip())
`,
	"b-looks": `import os
def test_it():
    assert not os.path.exists("/proc/" + open("/tmp/left").read().strip())
`,
	"c-waits": `import os, time
def test_it():
    while os.path.exists("/tmp/hold"):
        time.sleep(0.1)
`,
}

// TestSweepUnits is the units of the sweep in a machine with a real systemd: each
// run has a cgroup of its own, no process outlives its run, and
// nightly-sweep@RECIPE runs one recipe as the night does. `make host` runs it.
func TestSweepUnits(t *testing.T) {
	m := newMachine(t, "healthy", idleRunner)
	m.write(t, "/etc/systemd/system/sweep.target", "[Unit]\nRequires=sysinit.target dbus.socket\nAfter=sysinit.target dbus.socket\n", 0o644)
	m.write(t, "/etc/instance.env", "", 0o600)
	for name, test := range recipesOfUnits {
		m.write(t, filepath.Join("/srv/recipes", name, "test_it.py"), test, 0o644)
	}
	m.boot(t, "sweep.target")
	dir := state.Dir(m.path("/var/lib/cc-ci-run"))

	// ran gives the newest run of a recipe, and finds that it was in a cgroup of its
	// own below its unit's, and that the recipe was promoted.
	ran := func(t *testing.T, recipe, unit string) parity.Run {
		t.Helper()
		r, _, err := record.Newest(dir, "systemd", recipe)
		if err != nil {
			m.fatalf(t, "%v", err)
		}
		environment, err := parity.Kept(dir, r.Fingerprint, nil)
		if err != nil {
			t.Error(err)
		}
		if !regexp.MustCompile(`(?m)^0::.*/` + regexp.QuoteMeta(unit) + `/cc-ci-run-[0-9a-f]+$`).MatchString(r.Process.Cgroup) {
			t.Errorf("%s ran in the cgroups\n%s\nnone of which is its own below that of %s", recipe, r.Process.Cgroup, unit)
		}
		states, _, err := sweep.States(dir, git(t))
		for _, known := range states {
			if known.Last.Recipe == recipe && known.Last.Verdict != sweep.Promote {
				m.fatalf(t, "%s: %s: %s", recipe, known.Last.Verdict, known.Last.Why)
			}
		}
		if err != nil || len(states) != len(recipesOfUnits) {
			t.Errorf("the sweep knows %d recipes, should be %d (%v)", len(states), len(recipesOfUnits), err)
		}
		return parity.Run{Record: r, Environment: environment}
	}

	nights := map[string]parity.Run{}
	t.Run("the night", func(t *testing.T) {
		m.sh(t, "systemctl start nightly-sweep.service")
		for recipe := range recipesOfUnits {
			nights[recipe] = ran(t, recipe, "nightly-sweep.service")
		}
	})
	t.Run("what the night would run", func(t *testing.T) {
		said := m.sh(t, "systemctl start nightly-sweep.timer; "+m.program+" sweep --dry-run --like-unit; "+m.program+" sweep status; systemctl stop nightly-sweep.timer")
		for recipe := range recipesOfUnits {
			if !regexp.MustCompile(`(?m)^SKIP +` + recipe + ` `).MatchString(said) {
				t.Errorf("%s is not skipped:\n%s", recipe, said)
			}
		}
		if !regexp.MustCompile(`(?m)^next sweep: 20..-..-.. ..:.., by nightly-sweep.timer$`).MatchString(said) {
			t.Errorf("no next sweep:\n%s", said)
		}
	})
	for _, recipe := range []string{"a-leaves", "b-looks"} {
		t.Run(recipe+" by hand", func(t *testing.T) {
			m.sh(t, "systemctl start nightly-sweep@"+recipe)
			again := ran(t, recipe, "nightly-sweep@"+recipe+".service")
			if again.ID == nights[recipe].ID {
				t.Fatal("it was not run")
			}
			for _, f := range parity.Compare(nights[recipe], again) {
				if f.Verdict == parity.Drift {
					t.Errorf("by night and by hand: %+v", f)
				}
			}
		})
	}
	t.Run("the night waits for a recipe by hand", func(t *testing.T) {
		m.sh(t, "touch /tmp/hold; systemctl start --no-block nightly-sweep@c-waits.service")
		m.await(t, "c-waits to run", func() bool {
			running, _ := dir.List(state.Running, "")
			return len(running) == 1
		})
		m.sh(t, "systemctl start --no-block nightly-sweep.service")
		m.await(t, "the night to wait for the lock, or to fail", func() bool {
			status, _ := m.try(t, "sh", "-c", `pid=$(systemctl show --value -p MainPID nightly-sweep.service) && [ "$pid" != 0 ] &&
				find "/proc/$pid/fd" -lname '*/sweep' | grep -q . || systemctl is-failed --quiet nightly-sweep.service`)
			return status == 0
		})
		m.sh(t, "rm /tmp/hold")
		m.await(t, "both to end", func() bool {
			return m.sh(t, "systemctl list-units --no-legend --state=activating 'nightly-sweep*'") == ""
		})
		if result := m.sh(t, "systemctl show --value -p Result nightly-sweep.service"); result != "success\n" {
			m.fatalf(t, "the night ended with %q", result)
		}
		ran(t, "c-waits", "nightly-sweep@c-waits.service")
	})
	t.Run("no such recipe", func(t *testing.T) {
		m.sh(t, "fails systemctl start nightly-sweep@--dry-run")
		if said := m.journal("--unit=nightly-sweep@--dry-run"); !strings.Contains(said, `"--dry-run": no such recipe in /srv/recipes`) {
			t.Errorf("it says\n%s", said)
		}
	})
	if left := m.sh(t, "systemctl list-units --no-legend --all 'nightly-sweep@*'; ps --no-headers -u cc-ci || :"); left != "" {
		t.Errorf("at the end there are still:\n%s", left)
	}
}
