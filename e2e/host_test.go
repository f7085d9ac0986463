//go:build environment && e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// units are those of TestHost's machine beside the modules'.
var units = map[string]string{
	// systemd starts no unit more than five times in ten seconds.
	"system.conf.d/e2e.conf": "[Manager]\nDefaultStartLimitIntervalSec=0\n",
	"system/reconcile.service": `[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c '[ ! -e /srv/reconcile-fails ]'
`,
	"system/breaks.service": "[Service]\nExecStart=/bin/false\n",
	"system/loops.service": `[Service]
ExecStart=/bin/sh -c 'sleep 2; exit 1'
Restart=always
RestartSec=500ms
`,
	// Debian's dockerd, without the network that this machine may not make.
	"system/docker.service.d/e2e.conf": `[Unit]
Requires=
Wants=containerd.service
[Service]
ExecStart=
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock --ip-forward=false --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs
`,
	"system/host.target": `[Unit]
Requires=sysinit.target dbus.socket
Wants=nightly-sweep.timer cc-ci-host.timer drone-runner-exec.service docker.service reconcile.service
After=sysinit.target dbus.socket nightly-sweep.timer drone-runner-exec.service docker.service reconcile.service
`,
}

// swarm is a script that makes the machine's dockerd the manager of a swarm. Its
// network is this machine's, so it listens where nobody else does.
const swarm = "docker swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:0"

// idleRunner is a program in the place of drone-runner-exec that does nothing.
const idleRunner = "testdata/idle-runner"

// fault is a row of TestHost: something that is made wrong in a healthy machine,
// and what `cc-ci-run host` must then say.
type fault struct {
	name   string
	made   string // by a script in the machine
	mode   string // of the endpoints
	undone string // by a script, too; then host must find the machine healthy
	flags  string // of host
	later  bool   // a fault only after a while, which the test waits for
	// want are the faults that host must name, all of them, in its order; none if
	// it must find the machine healthy. Regular expressions, as are those of told,
	// lines that must be there besides.
	want, told []string
}

// TestHost is `cc-ci-run host` in a machine with a real systemd: healthy, then
// with one fault after the other, made for real. `make host` runs it.
func TestHost(t *testing.T) {
	m := newMachine(t, "healthy", idleRunner)
	servers := newEndpoints(t)
	config := read(t, m.path("/etc/cc-ci-run/host.toml"))
	config = strings.NewReplacer("http://127.0.0.1:PORT/", servers.http, "https://localhost:TLS/", servers.https).Replace(config)
	m.write(t, "/etc/cc-ci-run/host.toml", config, 0o644)
	const authorities = "/etc/ssl/certs/ca-certificates.crt"
	m.write(t, authorities, read(t, authorities)+servers.ca, 0o644)
	for name, text := range units {
		m.write(t, filepath.Join("/etc/systemd", name), text, 0o644)
	}
	m.write(t, "/etc/instance.env", "", 0o600)
	m.write(t, "/etc/drone-runner.env", "", 0o600)
	m.write(t, "/srv/recipes/good/test_it.py", "def test_it(): pass\n", 0o644)
	m.boot(t, "host.target")
	m.sh(t, swarm)

	healthy := t.Run("healthy", func(t *testing.T) {
		status, out := m.host(t, "--quiet", "--wait", "5m", "--every", "1s", "--metrics", "/srv/metrics.prom")
		t.Log(out)
		if status != 0 {
			m.fatalf(t, "exit status %d, should be 0", status)
		}
		if regexp.MustCompile(`(?m)^ok `).MatchString(out) {
			t.Error("--quiet shows what is well")
		}
		if metrics := read(t, m.path("/srv/metrics.prom")); !strings.Contains("\n"+metrics, "\ncc_ci_run_host_healthy 1\n") {
			t.Errorf("the metrics do not say so:\n%s", metrics)
		}
		_, out = m.host(t, "--output", "json")
		var report struct {
			Healthy bool
			Results []any
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil || !report.Healthy || len(report.Results) <= 10 {
			t.Errorf("nor does the JSON, %v:\n%s", err, out)
		}
	})
	if !healthy {
		t.Fatal("no fault was tried")
	}
	t.Run("as nobody, what needs root is left out and named", func(t *testing.T) {
		status, out := m.try(t, "runuser", "-u", "nobody", "--", m.program, "host")
		if status != 0 {
			t.Errorf("exit status %d, should be 0", status)
		}
		for _, want := range []string{
			`(?m)^left out +docker `,
			`(?m)^left out +environment of drone-runner-exec.service, of its process`,
			`(?m)^left out +last sweep `,
			`(?m)^healthy: .* 3 left out, as only root may look`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("no line is %s in\n%s", want, out)
			}
		}
	})

	live := func(t *testing.T, want string, status int) {
		t.Helper()
		got, out := m.try(t, "systemd-run", "--quiet", "--pipe", "--wait", "--collect", m.program, "parity", "--live", "--all")
		line := regexp.MustCompile(want).FindString(out)
		if got != status || line == "" {
			t.Errorf("exit status %d, should be %d, and a line %s in\n%s", got, status, want, out)
		}
		t.Log(strings.Join(strings.Fields(line), " "))
	}
	t.Run("parity --live: Drone's runner, the timer and a person reach this machine's daemon", func(t *testing.T) {
		live(t, `(?m)^identical +docker daemon +swarm [0-9a-z]{25} +swarm [0-9a-z]{25} `, 0)
		live(t, `(?m)^declared +namespace mnt .* ProtectHome= and ProtectSystem= of the units`, 0)
		live(t, `(?m)^identical +contents of the host's files +\d\d files`, 0)
	})
	for _, row := range []struct{ setting, want string }{
		{"PrivateTmp=yes", `(?m)^drift +namespace mnt .*/tmp: .*/systemd-private/tmp .*`},
		{"PrivateNetwork=yes", `(?m)^drift +namespace net .* another, \d+: lo .*`},
		{"ProtectHome=no", `(?m)^drift +namespace mnt .*/home: inaccessible.*`},
		{"BindReadOnlyPaths=/etc/passwd:/etc/hosts", `(?m)^drift +/etc/hosts, content .*`},
	} {
		t.Run("parity --live: "+row.setting, func(t *testing.T) {
			m.write(t, "/etc/systemd/system/nightly-sweep.service.d/override.conf", "[Service]\n"+row.setting+"\n", 0o644)
			m.sh(t, "systemctl daemon-reload")
			live(t, row.want, 1)
			m.sh(t, "rm /etc/systemd/system/nightly-sweep.service.d/override.conf; systemctl daemon-reload")
		})
	}

	for _, row := range faults(servers.http, servers.https) {
		well := true
		t.Run(row.name, func(t *testing.T) {
			well = false
			servers.mode.Store(row.mode)
			m.sh(t, row.made)
			row.try(t, m)
			servers.mode.Store("")
			m.sh(t, row.undone)
			status, out := m.host(t)
			if well = status == 0; !well {
				m.fatalf(t, "undone, but exit status %d:\n%s", status, out)
			}
		})
		if !well {
			t.Fatal("the machine is not healthy again, so no other fault was tried")
		}
	}

	t.Run("the units that look: by a timer, and after an activation", func(t *testing.T) {
		m.sh(t, `systemctl start cc-ci-host.service
			systemctl stop drone-runner-exec.service
			fails systemctl start cc-ci-host.service
			systemctl start --no-block cc-ci-deployed.service`)
		m.await(t, "cc-ci-deployed.service to find a fault", func() bool {
			return strings.Contains(m.journal("--unit=cc-ci-deployed.service"), "not healthy yet: unit drone-runner-exec.service")
		})
		m.sh(t, "systemctl start drone-runner-exec.service")
		m.await(t, "cc-ci-deployed.service to end", func() bool {
			return m.sh(t, "systemctl show --value --property=ActiveState cc-ci-deployed.service") != "activating\n"
		})
		m.sh(t, `[ "$(systemctl show --value --property=ActiveState --property=Result cc-ci-deployed.service | sort)" = "$(printf 'inactive\nsuccess')" ]`)
	})
	t.Run("what a deploy waits for", func(t *testing.T) {
		m.sh(t, "systemctl stop drone-runner-exec.service")
		stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		defer stderr.Close()
		cmd := m.command(m.program, "host", "--wait", "1h", "--every", "1s")
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		m.await(t, "host --wait to say what it waits for", func() bool {
			return strings.Contains(read(t, stderr.Name()), "not healthy yet: unit drone-runner-exec.service")
		})
		m.sh(t, "systemctl start drone-runner-exec.service")
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, read(t, stderr.Name()))
		}
	})
}

// host runs `cc-ci-run host` in the machine.
func (m *machine) host(t *testing.T, flags ...string) (status int, out string) {
	t.Helper()
	return m.try(t, append([]string{m.program, "host"}, flags...)...)
}

// try holds what host says against what the row wants.
func (row fault) try(t *testing.T, m *machine) {
	want := 0
	if len(row.want) > 0 {
		want = 1
	}
	status, out := m.host(t, strings.Fields(row.flags)...)
	if row.later {
		m.await(t, "host to find it", func() bool {
			status, out = m.host(t, strings.Fields(row.flags)...)
			return status != 0
		})
	}
	if status != want {
		t.Errorf("exit status %d, should be %d", status, want)
	}
	faults := regexp.MustCompile(`(?m)^(?:fault|unknown) .*`).FindAllString(out, -1)
	matches := len(faults) == len(row.want)
	for i, pattern := range row.want {
		matches = matches && regexp.MustCompile(`^\w+ +`+pattern).MatchString(faults[i])
	}
	if !matches {
		t.Errorf("%d faults named, should be these %d:\n%s", len(faults), len(row.want), strings.Join(row.want, "\n"))
	}
	for _, pattern := range row.told {
		line := regexp.MustCompile(`(?m)^` + pattern + `.*`).FindString(out)
		if line == "" {
			t.Errorf("no line begins with %s", pattern)
		}
		faults = append(faults, line)
	}
	if t.Failed() {
		t.Logf("host says:\n%s", out)
	} else {
		t.Log(strings.Join(faults, "\n"))
	}
}

// faults are the rows, with the URLs of the endpoints. Each begins with a healthy
// machine, so their order does not matter; but the grace of nightly-sweep.timer,
// a minute from its start, is over sooner if no row before has started it anew.
func faults(http, https string) []fault {
	const (
		sweep   = "/etc/systemd/system/nightly-sweep.service.d/override.conf"
		runner  = "/etc/systemd/system/drone-runner-exec.service.d/override.conf"
		timer   = "/etc/systemd/system/nightly-sweep.timer.d/override.conf"
		ofSweep = "environment of nightly-sweep.service "
		state   = "/var/lib/cc-ci-run"
	)
	// dropIn writes one, and noDropIn removes it again.
	dropIn := func(path, text string) string {
		return fmt.Sprintf("mkdir -p %s\nprintf '%s' >%s\n", filepath.Dir(path), strings.ReplaceAll(text, "\n", `\n`), path)
	}
	noDropIn := func(path string) string {
		return "rm -r " + filepath.Dir(path) + "\nsystemctl daemon-reload"
	}
	var tenHang, tenAnswer []string
	for n := range 10 {
		tenHang = append(tenHang, fmt.Sprintf(`%s%d +no answer in time`, http, n))
		tenAnswer = append(tenAnswer, fmt.Sprintf(`ok +%s%d +200 OK`, http, n))
	}
	return []fault{
		{
			name:   "a unit that failed",
			made:   "fails systemctl start --wait breaks.service",
			undone: "systemctl reset-failed breaks.service",
			want:   []string{`failed units +1 `, `unit breaks.service +failed: exit-code .* journalctl -u breaks.service`},
		},
		{
			name: "a unit that is restarted again and again",
			made: `sed 's/^"running" = \[/&"loops.service", /' /etc/cc-ci-run/host.toml >/srv/other.toml
				systemctl start loops.service
				until [ "$(systemctl show --value --property=NRestarts loops.service)" -ge 2 ] && systemctl is-active --quiet loops.service; do sleep 0.1; done`,
			undone: "systemctl stop loops.service; systemctl reset-failed loops.service || true",
			flags:  "--config /srv/other.toml --wait 4s --every 1s",
			want:   []string{`unit loops.service `},
		},
		{
			name:   "a oneshot that failed",
			made:   "touch /srv/reconcile-fails; fails systemctl restart reconcile.service",
			undone: "rm /srv/reconcile-fails; systemctl reset-failed reconcile.service; systemctl start reconcile.service",
			want: []string{
				`failed units +1 `,
				`unit reconcile.service +failed: exit-code .* journalctl`,
				`unit reconcile.service +failed: exit-code, exit status 1 .* systemctl start reconcile.service`,
			},
		},
		{
			name:   "a oneshot that does not remain",
			made:   "systemctl stop reconcile.service",
			undone: "systemctl start reconcile.service",
			want:   []string{`unit reconcile.service +inactive, and should remain active`},
		},
		{
			name:   "a drop-in that sets PATH",
			made:   dropIn(sweep, "[Service]\nEnvironment=PATH=/opt/old/bin\n") + "systemctl daemon-reload",
			undone: noDropIn(sweep),
			want:   []string{ofSweep + `+PATH=/opt/old/bin is added .*` + sweep},
		},
		{
			name:   "a drop-in that changed since systemd read it",
			made:   dropIn(sweep, "[Service]\nNice=5\n") + "systemctl daemon-reload\n" + dropIn(sweep, "[Service]\nNice=6\n"),
			undone: noDropIn(sweep),
			want:   []string{ofSweep + `.*its files changed since systemd read them`},
		},
		{
			name:   "a drop-in that sets all but PATH",
			made:   dropIn(sweep, "[Service]\nExecStartPre=/bin/true\nPassEnvironment=LD_PRELOAD\nEnvironment=HOME=/tmp/evil\n") + "systemctl daemon-reload",
			undone: noDropIn(sweep),
			want:   []string{ofSweep + `+HOME=/tmp/evil, should be %S/nightly-sweep; PassEnvironment=LD_PRELOAD is added; ExecStartPre=/bin/true is added`},
		},
		{
			name:   "an EnvironmentFile= that sets the runner's PATH",
			made:   "echo PATH=/opt/old/bin >/etc/old.env; " + dropIn(runner, "[Service]\nEnvironmentFile=/etc/old.env\n") + "systemctl daemon-reload; systemctl restart drone-runner-exec.service",
			undone: noDropIn(runner) + "; systemctl restart drone-runner-exec.service",
			want:   []string{`environment of drone-runner-exec.service, of its process +PATH=/opt/old/bin, should be /etc/cc-ci-run/path/bin`},
		},
		{
			name:   "a unit that should run",
			made:   "systemctl stop drone-runner-exec.service",
			undone: "systemctl start drone-runner-exec.service",
			want:   []string{`unit drone-runner-exec.service +inactive `},
		},
		{
			name: "endpoints: 500", mode: "500",
			want: []string{http + ` +500 Internal Server Error, should be 200`, https + ` +500`},
		},
		{
			name: "endpoints: no answer", mode: "hang",
			want: []string{http + ` +no answer in time`, https + ` +no answer in time`},
		},
		{
			name: "endpoints: an expired certificate", mode: "expired",
			want: []string{https + ` .*expired .*renew its certificate`},
		},
		{
			name: "endpoints: a certificate that ends soon", mode: "soon",
			want: []string{https + ` +200 OK .* certificate for 2 days, should be 14 at least +renew`},
		},
		{
			name: "endpoints: an unknown authority", mode: "stranger",
			want: []string{https + ` .*unknown authority`},
		},
		{
			name: "endpoints: ten of them, each named", mode: "hang",
			made:  tenEndpoints(http, "3s"),
			flags: "--config /srv/other.toml",
			want:  tenHang,
		},
		{
			name: "endpoints: ten of them are asked at once", mode: "ten",
			made:  tenEndpoints(http, "30s"),
			flags: "--config /srv/other.toml",
			told:  tenAnswer,
		},
		{
			name:   "docker is not there",
			made:   "systemctl stop docker.socket docker.service",
			undone: "systemctl start docker.socket docker.service",
			want:   []string{`unit docker.service +inactive `, `docker +(/run/docker.sock is not there|.*refused)`},
		},
		{
			name:   "docker does not answer",
			made:   "systemctl kill --kill-who=main --signal=STOP docker.service",
			undone: "systemctl kill --kill-who=main --signal=CONT docker.service",
			want:   []string{`docker +/run/docker.sock does not answer in time +systemctl restart docker.service`},
		},
		{
			name:   "docker's swarm is not active",
			made:   "docker swarm leave --force",
			undone: swarm,
			want:   []string{`docker +daemon \S+ answers at /run/docker.sock, swarm not active, so no recipe can be deployed: This node is not a swarm manager.* docker swarm init`},
		},
		{
			name:   "docker's swarm is not active, and no recipe is deployed there",
			made:   `docker swarm leave --force; { echo '"swarm" = false'; sed '/^"swarm" = /d' /etc/cc-ci-run/host.toml; } >/srv/other.toml`,
			undone: swarm,
			flags:  "--config /srv/other.toml",
			told:   []string{`ok +docker +daemon \S+ answers at /run/docker.sock, swarm not active`},
		},
		{
			name:   "docker's socket, which the tests cannot use",
			made:   "chmod 600 /run/docker.sock",
			undone: "chmod 660 /run/docker.sock",
			want:   []string{`docker +/run/docker.sock gives the group docker no access`},
		},
		{
			name:   "a recipe that is held: none of the host's",
			made:   "echo 'def test_it(): assert False' >/srv/recipes/good/test_it.py; fails systemctl start nightly-sweep.service",
			undone: "echo 'def test_it(): pass' >/srv/recipes/good/test_it.py; systemctl start nightly-sweep.service",
			flags:  "--metrics /dev/stdout",
			told:   []string{`note +last sweep +1 of 1 recipes held: good`, `cc_ci_run_recipes\{verdict="HOLD"\} 1$`},
		},
		{
			name: "a recipe that was fixed: held no more",
			made: `echo 'def test_it(): assert False' >/srv/recipes/good/test_it.py; fails systemctl start nightly-sweep.service
				echo 'def test_it(): pass' >/srv/recipes/good/test_it.py; systemctl start nightly-sweep.service`,
			told: []string{`ok +last sweep +1 recipes, none held`},
		},
		{
			name:   "a recipe by hand that is held: no failed unit",
			made:   "echo 'def test_it(): assert False' >/srv/recipes/good/test_it.py; fails systemctl start nightly-sweep@good.service",
			undone: "echo 'def test_it(): pass' >/srv/recipes/good/test_it.py; systemctl start nightly-sweep@good.service",
			told:   []string{`ok +failed units +none`, `note +last sweep +1 of 1 recipes held: good`},
		},
		{
			name:   "a sweep over nothing",
			made:   "mv /srv/recipes/good /srv/good; fails systemctl start nightly-sweep.service",
			undone: "mv /srv/good /srv/recipes/good; systemctl start nightly-sweep.service",
			want:   []string{`last sweep +nightly-sweep.service ended with exit-code, exit status 125`},
		},
		{
			name:   "a sweep that cannot start",
			made:   "rm /etc/instance.env; fails systemctl start nightly-sweep.service",
			undone: "install -m 600 /dev/null /etc/instance.env; systemctl start nightly-sweep.service",
			want:   []string{`last sweep +nightly-sweep.service ended with resources`},
		},
		{
			name:   "a sweep that did not fire in time, while the timer's delay is under way",
			made:   dropIn(timer, "[Timer]\nRandomizedDelaySec=1d\n") + "systemctl daemon-reload; sed 's/\"26h\"/\"1ms\"/' /etc/cc-ci-run/host.toml >/srv/other.toml",
			undone: noDropIn(timer),
			flags:  "--config /srv/other.toml",
			told:   []string{`note +unit nightly-sweep.timer +overdue, `},
		},
		{
			name:  "a sweep that did not fire in time",
			made:  `grep RandomizedDelaySec=0 /etc/systemd/system/nightly-sweep.timer; sed 's/"26h"/"1ms"/' /etc/cc-ci-run/host.toml >/srv/other.toml`,
			flags: "--config /srv/other.toml",
			later: true, // a minute after the timer's start
			want:  []string{`unit nightly-sweep.timer +active, but .* it should every 1ms`},
		},
		{
			name:   "a timer that is stopped",
			made:   "systemctl stop nightly-sweep.timer",
			undone: "systemctl start nightly-sweep.timer",
			want:   []string{`unit nightly-sweep.timer +inactive, so it never fires; .* systemctl start nightly-sweep.timer`},
		},
		{
			name:   "a full disk",
			made:   "mount -t tmpfs -o size=32m tmpfs " + state + "; head -c 30M /dev/zero >" + state + "/filler",
			undone: "umount " + state,
			want:   []string{`state directory +` + state + `: [0-9]+ MiB and [0-9]+ files free; 16 MiB are wanted +make room`},
		},
		{
			name:   "a read-only disk",
			made:   "mount -t tmpfs -o ro tmpfs " + state,
			undone: "umount " + state,
			want:   []string{`state directory +` + state + ` is read-only`},
		},
		{
			name:   "a disk that takes no more files",
			made:   "mount -t tmpfs -o nr_inodes=50 tmpfs " + state,
			undone: "umount " + state,
			want:   []string{`state directory .* [0-9]+ files free; 100 files are wanted`},
		},
		{
			name:   "a state directory of another user",
			made:   "chown root:root " + state,
			undone: "chown cc-ci:cc-ci " + state,
			want:   []string{`state directory +` + state + `: cc-ci may not write there`},
		},
		{
			name:   "no D-Bus: root still sees the rest",
			made:   "systemctl stop dbus.socket dbus.service || true",
			undone: "systemctl start dbus.socket",
			want:   []string{`D-Bus +does not answer: .* systemctl start dbus.socket`},
		},
		{
			name: "several at once: none hides another", mode: "500",
			made:   "fails systemctl start --wait breaks.service; systemctl stop nightly-sweep.timer",
			undone: "systemctl reset-failed breaks.service; systemctl start nightly-sweep.timer",
			want:   []string{`failed units +1 `, `unit breaks.service `, `unit nightly-sweep.timer +inactive`, http + ` `, https + ` `},
		},
	}
}

// tenEndpoints is a script that writes a host.toml with them, and with a time
// limit for each check.
func tenEndpoints(url, limit string) string {
	return fmt.Sprintf(`{
		sed '/^"endpoint"/d; s/^"timeout" = .*/"timeout" = "%s"/' /etc/cc-ci-run/host.toml
		for n in 0 1 2 3 4 5 6 7 8 9; do printf '[[endpoint]]\nurl = "%s%%s"\n' $n; done
	} >/srv/other.toml`, limit, url)
}
