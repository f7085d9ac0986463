package record

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"cc-ci-run/internal/env"
	ccexec "cc-ci-run/internal/exec"
	"cc-ci-run/internal/launch"
)

func TestDetectInvoker(t *testing.T) {
	unit := []string{"INVOCATION_ID=i"}
	for _, row := range []struct {
		name     string
		caller   []string
		terminal bool
		want     launch.Invoker
	}{
		{"a shell", []string{"TERM=xterm"}, true, launch.Invoker{Name: "manual"}},
		{"nothing at all", nil, false, launch.Invoker{Name: "manual"}},
		{"a unit, logging to the journal", append(unit, "JOURNAL_STREAM=8:1"), false, launch.Invoker{Name: "systemd", ID: "i"}},
		{"a unit, logging to a file", append(unit, "SYSTEMD_EXEC_PID=7"), false, launch.Invoker{Name: "systemd", ID: "i"}},
		{"a terminal of a desktop session", append(unit, "JOURNAL_STREAM=8:1", "SYSTEMD_EXEC_PID=7"), true, launch.Invoker{Name: "manual"}},
		{"an old systemd's INVOCATION_ID alone", unit, false, launch.Invoker{Name: "manual"}},
		{"Drone, whose runner is a unit", append(unit, "JOURNAL_STREAM=8:1", "DRONE=true", "DRONE_REPO=o/r", "DRONE_BUILD_NUMBER=7", "DRONE_STAGE_NAME=ci", "DRONE_STEP_NAME=gitea"), false, launch.Invoker{Name: "drone", ID: "o/r/7/ci/gitea"}},
		{"DRONE that is not true", []string{"DRONE=false"}, false, launch.Invoker{Name: "manual"}},
	} {
		if got := launch.DetectInvoker(row.caller, row.terminal); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}

// Revision agrees with git, in every kind of repository that it may meet.
func TestRevision(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	dir := t.TempDir()
	git := func(dir string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "protocol.file.allow=always"}, args...)...)
		cmd.Dir = dir
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	repo := filepath.Join(dir, "repo")
	git(dir, "init", "-q", "-b", "main", repo)
	if got := launch.Revision(repo); got != "" {
		t.Errorf("before the first commit: %q", got)
	}
	git(repo, "commit", "-q", "--allow-empty", "-m", "one")
	want := git(repo, "rev-parse", "HEAD")
	below := filepath.Join(repo, "a", "b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	git(repo, "worktree", "add", "-q", tree)
	super := filepath.Join(dir, "super")
	git(dir, "init", "-q", super)
	git(super, "submodule", "add", "-q", repo, "sub")
	check := func(how string) {
		t.Helper()
		for _, d := range []string{repo, below, tree, filepath.Join(super, "sub")} {
			if got := launch.Revision(d); got != want {
				t.Errorf("%s, %s: %q, want %q", how, d, got, want)
			}
		}
	}
	check("loose ref")
	git(repo, "pack-refs", "--all")
	check("packed ref")
	git(repo, "checkout", "-q", "--detach")
	check("detached")
	if got := launch.Revision(dir); got != "" {
		t.Errorf("outside: %q", got)
	}
	// A file that never ends, or never begins, is no repository's.
	for _, how := range []string{"fifo", "device"} {
		odd := filepath.Join(dir, how)
		if err := os.MkdirAll(filepath.Join(odd, ".git"), 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(odd, ".git", "HEAD")
		err := os.Symlink("/dev/zero", path)
		if how == "fifo" {
			err = errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := launch.Revision(odd); got != "" {
			t.Errorf("HEAD is a %s: %q", how, got)
		}
	}
	// Nothing but a commit's name ever comes out of these files.
	if err := os.WriteFile(filepath.Join(repo, ".git", "HEAD"), []byte("ref: ../../../../../../etc/passwd\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := launch.Revision(repo); got != "" {
		t.Errorf("a HEAD that points outside: %q", got)
	}
}

func testRecord(t *testing.T) (*launch.Record, *env.Manifest) {
	t.Helper()
	m, err := env.ParseManifest([]byte(`{
		"schema": 1, "backend": "nix", "state": "/s", "bin": "/t/bin", "interpreter": "/t/bin/python3", "tools": [],
		"python": {"version": "3", "why": "", "packages": [], "commands": []}, "browsers": {"path": "/t/browsers", "packages": []},
		"environment": {"pass": ["HOME", "GITEA_*"], "require": ["HOME"], "only": {}, "default": {}, "set": {}},
		"process": {"umask": "0022", "nofile": 1024, "core": 0}, "host": {"paths": ["/bin/sh"]}, "absent": [], "shadowed": []
	}`))
	if err != nil {
		t.Fatal(err)
	}
	caller := []string{"HOME=/secret-home", "GITEA_PASSWORD=secret-value", "DROPPED=secret-dropped", "\xff=secret-bytes"}
	e, err := m.Environment(caller, "manual")
	if err != nil {
		t.Fatal(err)
	}
	return launch.NewRecord(m.Compile("m.json"), e, caller, launch.Invoker{Name: "manual"}, "script", "s.py", []string{"a", "\xff"}, false), m
}

// A record has names of variables and never a value that was passed.
func TestRecordHasNoValues(t *testing.T) {
	r, m := testRecord(t)
	state := t.TempDir()
	if err := errors.Join(r.Write(state), r.Keep(state, m.Bytes())); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(state, "runs", r.ID+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "secret-") {
		t.Errorf("a value got into the record:\n%s", data)
	}
	for _, want := range []string{`"GITEA_PASSWORD"`, `"DROPPED"`, `"\"\\xff\""`, m.Fingerprint()} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in the record:\n%s", want, data)
		}
	}
	again, err := Read(path)
	if err != nil || again.ID != r.ID || again.Process.Umask != r.Process.Umask {
		t.Errorf("read back: %+v, %v", again, err)
	}
	kept, err := os.ReadFile(filepath.Join(state, "manifests", m.Fingerprint()+".json"))
	if err != nil || string(kept) != string(m.Bytes()) {
		t.Errorf("the manifest is not kept: %v", err)
	}
}

// Many writers and a reader at once: whatever is in the directory under its
// name is whole.
func TestRecordIsAtomic(t *testing.T) {
	r, _ := testRecord(t)
	state := t.TempDir()
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for n := range 50 {
				mine := *r
				mine.ID = strings.Join([]string{r.ID, string(rune('a' + w)), string(rune('A' + n))}, "-")
				if err := mine.Write(state); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for last := false; ; {
		files, _ := filepath.Glob(filepath.Join(state, "runs", "*.json"))
		for _, f := range files {
			if _, err := Read(f); err != nil {
				t.Error(err)
			}
		}
		if last {
			if len(files) != 400 {
				t.Errorf("%d records, want 400", len(files))
			}
			return
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
}

func TestReadMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	for content, want := range map[string]string{"": "not a run record", "{": "not a run record", `{"schema":99}`: "schema 99 is newer"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", content, err, want)
		}
	}
}

// Compare tells what may differ from what must not.
func TestCompare(t *testing.T) {
	a, m := testRecord(t)
	b := *a
	a.Invoker, b.Invoker = launch.Invoker{Name: "drone"}, launch.Invoker{Name: "systemd"}
	a.Process.Cgroup, b.Process.Cgroup = "8:pids:/\n0::/a", "8:pids:/\n0::/b"
	b.Process.Umask = "0077"
	b.Process.Limits = ccexec.Pairs{{Name: "Max open files", Value: "1 1 files"}}
	b.HostPaths = ccexec.Pairs{{Name: "/bin/sh", Value: "/evil"}}
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
	a.Process.Capabilities = ccexec.Capabilities{Inheritable: "00", Permitted: "00", Effective: "00", Bounding: "ff", Ambient: "00"}
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
