package parity

import (
	"testing"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/toolset"
)

// Compare tells what may differ from what must not.
func TestCompare(t *testing.T) {
	m := &toolset.Manifest{Interpreter: "/t/bin/python3"}
	a := &record.Record{
		Fingerprint: "f", Passed: []string{"HOME"},
		HostPaths: exec.Pairs{{Name: "/bin/sh", Value: "/usr/bin/dash"}}, Process: exec.Capture(),
	}
	b := *a
	a.Invoker, b.Invoker = env.Invoker{Name: "drone"}, env.Invoker{Name: "systemd"}
	a.Process.Cgroup, b.Process.Cgroup = "8:pids:/\n0::/a", "8:pids:/\n0::/b"
	b.Process.Umask = "0077"
	b.Process.Limits = exec.Pairs{{Name: "Max open files", Value: "1 1 files"}}
	b.HostPaths = exec.Pairs{{Name: "/bin/sh", Value: "/evil"}}
	b.Passed = append([]string{"GITEA_URL"}, a.Passed...)
	b.CallerPath = "/opt"
	b.Sealed = "full"
	b.Audited = true
	got := map[string]Finding{}
	for _, f := range Compare(Run{Record: a, Environment: m}, Run{Record: &b, Environment: m}) {
		got[f.What] = f
	}
	for what, want := range map[string]Parity{
		"fingerprint": Identical, "commands": Identical, "process uid": Identical,
		"process cgroup": Declared, "the caller's PATH": Declared, "audited": Declared,
		"process umask": Drift, "limit Max open files": Drift, "/bin/sh": Drift, "sealed": Drift, "variable GITEA_URL": Drift,
	} {
		if got[what].Verdict != want {
			t.Errorf("%s: %+v, want %s", what, got[what], want)
		}
	}
	// The interpreter is the environment's; records of other builds may lack
	// what this one writes.
	other := *m
	other.Interpreter = "/elsewhere/python3"
	c := *a
	c.HostPaths, c.Process.Limits = nil, nil
	for _, f := range Compare(Run{Record: &c, Environment: m}, Run{Record: &b, Environment: &other}) {
		if f.What == "interpreter" && f.Verdict != Drift {
			t.Errorf("%+v", f)
		}
	}
	// A bounding set has no effect on who has nothing and can gain nothing.
	a.Process.Capabilities = exec.Capabilities{Inheritable: "00", Permitted: "00", Effective: "00", Bounding: "ff", Ambient: "00"}
	b.Process.Capabilities = a.Process.Capabilities
	b.Process.Capabilities.Bounding = "00"
	for _, noNewPrivs := range []bool{false, true} {
		a.Process.NoNewPrivs, b.Process.NoNewPrivs = noNewPrivs, noNewPrivs
		for _, f := range Compare(Run{Record: a, Environment: m}, Run{Record: &b, Environment: m}) {
			if f.What == "process capabilities" && (f.Verdict == Declared) != noNewPrivs {
				t.Errorf("no_new_privs %t: %+v", noNewPrivs, f)
			}
		}
	}
	if got["process cgroup"].A != "0::/a" {
		t.Errorf("cgroup: %+v", got["process cgroup"])
	}
}

// ssh's files are the same if name, size and time are; a record without them is of an
// older cc-ci-run.
func TestCompareSSH(t *testing.T) {
	file := func(value string) exec.Pairs { return exec.Pairs{{Name: "/h/.ssh/config", Value: value}} }
	for _, row := range []struct {
		a, b exec.Pairs
		want Parity
	}{
		{exec.Pairs{}, exec.Pairs{}, Identical},
		{file("7 bytes"), file("7 bytes"), Identical},
		{file("7 bytes"), file("8 bytes"), Drift},
		{file("7 bytes"), exec.Pairs{}, Drift},
		{exec.Pairs{}, file("7 bytes"), Drift},
		{nil, file("7 bytes"), Declared},
		{exec.Pairs{}, nil, Declared},
		{exec.Pairs{{Name: exec.Passwd, Value: "not known: read /etc/passwd: x"}}, file("7 bytes"), Declared},
		{exec.Pairs{}, exec.Pairs{{Name: exec.Passwd, Value: "not known: read /etc/passwd: x"}}, Declared},
	} {
		if list := compareSSH(row.a, row.b); len(list) != 1 || list[0].Verdict != row.want {
			t.Errorf("%v and %v: %+v, want %s", row.a, row.b, list, row.want)
		}
	}
}

// Two daemons are a drift, and what nobody knows is none.
func TestCompareDaemons(t *testing.T) {
	manager := docker.Daemon{Socket: "/s", State: docker.Answers, Version: "20.10.24", Swarm: true, ID: "one"}
	with := func(change func(*docker.Daemon)) *docker.Daemon {
		d := manager
		change(&d)
		return &d
	}
	for name, row := range map[string]struct {
		daemon *docker.Daemon
		want   Parity
		what   string
		b      string
	}{
		"the same":       {&manager, Identical, "docker daemon", "swarm one"},
		"another swarm":  {with(func(d *docker.Daemon) { d.ID = "two" }), Drift, "docker daemon", "swarm two"},
		"no swarm":       {with(func(d *docker.Daemon) { d.Swarm = false; d.ID = "X:Y" }), Drift, "docker daemon", "no swarm, daemon X:Y"},
		"upgraded":       {with(func(d *docker.Daemon) { d.Version = "28.2.2" }), Drift, "docker version", "28.2.2"},
		"none":           {&docker.Daemon{Socket: "/s", State: docker.Absent, Reason: "is not there"}, Drift, "docker daemon", "none at /s"},
		"not allowed":    {&docker.Daemon{Socket: "/s", State: docker.Denied, Reason: "permission denied"}, Drift, "docker daemon", "permission denied"},
		"another server": {&docker.Daemon{Socket: "/s", State: docker.Strange, Reason: "404"}, Drift, "docker daemon", "404"},
		"as it starts":   {&docker.Daemon{Socket: "/s", State: docker.Silent, Reason: "does not answer"}, Declared, "docker daemon", "does not answer"},
		"an old record":  {nil, Declared, "docker daemon", "not recorded"},
	} {
		// Against the manager, and against itself.
		for _, other := range []*docker.Daemon{&manager, row.daemon} {
			want := row.want
			if other == row.daemon {
				want = Identical
			}
			var found Finding
			for _, f := range compareDaemons(other, row.daemon) {
				if f.What == row.what {
					found = f
				} else if f.Verdict != Identical {
					t.Errorf("%s: also %+v", name, f)
				}
			}
			if found.Verdict != want || found.B != row.b || (found.Why == "") != (want == Identical) {
				t.Errorf("%s: %+v, want %s", name, found, want)
			}
		}
	}
	// Whether the socket is missing or nobody listens there: neither has a daemon.
	gone, closed := docker.Daemon{Socket: "/s", State: docker.Absent, Reason: "is not there"}, docker.Daemon{Socket: "/s", State: docker.Absent, Reason: "connection refused"}
	if f := compareDaemons(&gone, &closed); f[0].Verdict != Identical {
		t.Errorf("%+v", f)
	}
}
