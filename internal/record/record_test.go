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
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// Revision agrees with git, in every kind of repository that it may meet.
func TestRevision(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git on PATH: apt-get install git")
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
	if got := Revision(repo); got != "" {
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
			if got := Revision(d); got != want {
				t.Errorf("%s, %s: %q, want %q", how, d, got, want)
			}
		}
	}
	check("loose ref")
	git(repo, "pack-refs", "--all")
	check("packed ref")
	git(repo, "checkout", "-q", "--detach")
	check("detached")
	if got := Revision(dir); got != "" {
		t.Errorf("outside: %q", got)
	}
	// A file that never ends, or never begins, is not a repository's.
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
		if got := Revision(odd); got != "" {
			t.Errorf("HEAD is a %s: %q", how, got)
		}
	}
	// Nothing but a commit's name ever comes out of these files.
	if err := os.WriteFile(filepath.Join(repo, ".git", "HEAD"), []byte("ref: ../../../../../../etc/passwd\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := Revision(repo); got != "" {
		t.Errorf("a HEAD that points outside: %q", got)
	}
}

func testRecord(t *testing.T) (*Record, *toolset.Manifest) {
	t.Helper()
	m, err := toolset.ParseManifest([]byte(`{
		"schema": 1, "backend": "nix", "state": "/s", "bin": "/t/bin", "interpreter": "/t/bin/python3", "tools": [],
		"python": {"version": "3", "why": "", "packages": [], "commands": []}, "browsers": {"path": "/t/browsers", "packages": []},
		"environment": {"pass": ["HOME", "GITEA_*"], "require": ["HOME"], "only": {}, "default": {}, "set": {}},
		"process": {"umask": "0022", "nofile": 1024, "core": 0}, "host": {"paths": ["/bin/sh"]}, "absent": [], "shadowed": []
	}`))
	if err != nil {
		t.Fatal(err)
	}
	caller := []string{"HOME=/secret-home", "GITEA_PASSWORD=secret-value", "DROPPED=secret-dropped", "\xff=secret-bytes"}
	e, err := m.Compile("").Environment(caller, "manual")
	if err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(t.TempDir(), "m.json")
	if err := os.WriteFile(manifest, m.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return New(time.Now(), m.Compile(manifest), e, caller, env.Invoker{Name: "manual"}, "script", "s.py", []string{"a", "\xff"}, false), m
}

// A record has names of variables and never a value that was passed.
func TestRecordHasNoValues(t *testing.T) {
	r, m := testRecord(t)
	dir := state.Dir(t.TempDir())
	if err := errors.Join(r.Write(dir), r.Keep(dir)); err != nil {
		t.Fatal(err)
	}
	path := dir.Path(state.Runs, r.ID+".json")
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
	again, err := Parse(path, data)
	if err != nil || again.ID != r.ID || again.Process.Umask != r.Process.Umask {
		t.Errorf("read back: %+v, %v", again, err)
	}
	kept, err := os.ReadFile(dir.Path(state.Manifests, m.Fingerprint()+".json"))
	if err != nil || string(kept) != string(m.Bytes()) {
		t.Errorf("the manifest is not kept: %v", err)
	}
}

// Many writers and a reader at once: whatever is in the directory under its
// name is whole.
func TestRecordIsAtomic(t *testing.T) {
	r, _ := testRecord(t)
	dir := state.Dir(t.TempDir())
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for n := range 50 {
				mine := *r
				mine.ID = strings.Join([]string{r.ID, string(rune('a' + w)), string(rune('A' + n))}, "-")
				if err := mine.Write(dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for last := false; ; {
		files, _ := filepath.Glob(dir.Path(state.Runs, "*.json"))
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err == nil {
				_, err = Parse(f, data)
			}
			if err != nil {
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

func TestParseMistakes(t *testing.T) {
	for content, want := range map[string]string{
		"": "is damaged", "{": "is damaged", "[]": "is damaged", "{}": "is not a run record",
		`{"schema":99,"id":7}`: "was written by a newer cc-ci-run (schema 99, this one knows 1)",
	} {
		if _, err := Parse("r.json", []byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", content, err, want)
		}
	}
}

func TestRecipe(t *testing.T) {
	for _, row := range []struct{ want, words string }{
		{"gitea", "runner/run_recipe_ci.py gitea"},
		{"gitea", "runner/run_recipe_ci.py gitea --verbose"},
		{"smoke.py", "./smoke.py"},
		{"smoke.py", "./smoke.py --verbose gitea"},
		{"smoke.py", "./smoke.py ../data"},
		{"smoke.py", "./smoke.py token"},
		{"gitea", "other.py --recipes dir gitea"},
	} {
		words := strings.Fields(row.words)
		if got := Recipe(words[0], words[1:]); got != row.want {
			t.Errorf("%s: %s, want %s", row.words, got, row.want)
		}
	}
	if got := Recipe("a/b.py", []string{""}); got != "b.py" {
		t.Errorf("an empty argument: %s", got)
	}
}
