package sweep

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/internal/exec/supervise"
)

// worktree is a git work tree in which a test does something.
type worktree struct {
	t   testing.TB
	dir string
}

// newWorktree has files of each kind, committed. init are further arguments of
// git init.
func newWorktree(t testing.TB, init ...string) *worktree {
	t.Helper()
	w := &worktree{t, filepath.Join(t.TempDir(), "recipe")}
	w.mkdir("")
	w.git(append([]string{"init", "-q"}, init...)...)
	w.write("test_it.py", "def test_it(): pass\n", 0o644)
	w.write("dir/run.sh", "#!/bin/sh\n", 0o755)
	w.write("empty", "", 0o644)
	w.write(".gitignore", "*.ignored\n", 0o644)
	w.write("né\n\"w\t", "1", 0o644)
	w.link("dir/run.sh", "link")
	w.link("nowhere", "dangling")
	w.link("dir", "linkdir")
	w.commit()
	return w
}

// copy is another one with the same content: quicker than git.
func (w *worktree) copy(t testing.TB) *worktree {
	other := &worktree{t, filepath.Join(t.TempDir(), "recipe")}
	if out, err := exec.Command("cp", "-a", w.dir, other.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return other
}

func (w *worktree) path(name string) string { return filepath.Join(w.dir, name) }

func (w *worktree) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *worktree) mkdir(name string) { w.t.Helper(); w.ok(os.MkdirAll(w.path(name), 0o755)) }

func (w *worktree) write(name, content string, mode os.FileMode) {
	w.t.Helper()
	w.mkdir(filepath.Dir(name))
	w.ok(os.WriteFile(w.path(name), []byte(content), mode))
	w.ok(os.Chmod(w.path(name), mode))
}

func (w *worktree) link(target, name string) { w.t.Helper(); w.ok(os.Symlink(target, w.path(name))) }
func (w *worktree) remove(name string)       { w.t.Helper(); w.ok(os.RemoveAll(w.path(name))) }
func (w *worktree) commit()                  { w.t.Helper(); w.git("add", "."); w.git("commit", "-qm", "one") }
func (w *worktree) at(name string) *worktree { return &worktree{w.t, w.path(name)} }

func (w *worktree) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", w.dir, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"}, args...)...)
	cmd.Env = []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent", "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// differences are those of the work tree from its commit, sorted.
func (w *worktree) differences() ([]string, error) {
	w.t.Helper()
	git, err := exec.LookPath("git")
	w.ok(err)
	runs, err := supervise.New(nil)
	w.ok(err)
	commit := commitOf(w.dir)
	if commit == "" {
		w.t.Fatal("no commit")
	}
	s := &sweep{Options: Options{Git: git}, runs: runs}
	list, err := s.uncommitted(w.dir, commit)
	slices.Sort(list)
	return list, err
}

func TestUncommitted(t *testing.T) {
	template := newWorktree(t)
	submodule := func(w *worktree) *worktree {
		w.git("submodule", "--quiet", "add", template.dir, "sub")
		w.commit()
		return w.at("sub")
	}
	for name, c := range map[string]struct {
		do   func(w *worktree)
		want string // separated by ", "
	}{
		"clean":                    {func(*worktree) {}, ""},
		"edited":                   {func(w *worktree) { w.write("test_it.py", "x", 0o644) }, "test_it.py is changed"},
		"edited, same size":        {func(w *worktree) { w.write("test_it.py", "def test_it(): fail\n", 0o644) }, "test_it.py is changed"},
		"edited and staged":        {func(w *worktree) { w.write("test_it.py", "x", 0o644); w.git("add", ".") }, "test_it.py is changed"},
		"only staged":              {func(w *worktree) { w.write("empty", "x", 0o644); w.git("add", "."); w.write("empty", "", 0o644) }, ""},
		"untracked":                {func(w *worktree) { w.write("dir/new", "", 0o644) }, "dir/new is not in it"},
		"untracked, in a folder":   {func(w *worktree) { w.write("a/b/c", "", 0o644); w.link("c", "a/b/d") }, "a/b/c is not in it, a/b/d is not in it"},
		"ignored":                  {func(w *worktree) { w.write("x.ignored", "", 0o644) }, "x.ignored is not in it"},
		"ignored by .git":          {func(w *worktree) { w.write(".git/info/exclude", "secret\n", 0o644); w.write("secret", "", 0o644) }, "secret is not in it"},
		"staged, not committed":    {func(w *worktree) { w.write("new", "", 0o644); w.git("add", ".") }, "new is not in it"},
		"deleted":                  {func(w *worktree) { w.remove("test_it.py"); w.remove("link") }, "link is removed, test_it.py is removed"},
		"deleted with its folder":  {func(w *worktree) { w.remove("dir") }, "dir/run.sh is removed"},
		"executable":               {func(w *worktree) { w.ok(os.Chmod(w.path("test_it.py"), 0o755)) }, "test_it.py is changed"},
		"not executable":           {func(w *worktree) { w.ok(os.Chmod(w.path("dir/run.sh"), 0o644)) }, "dir/run.sh is changed"},
		"a mode git does not know": {func(w *worktree) { w.ok(os.Chmod(w.path("test_it.py"), 0o600)) }, ""},
		"core.fileMode false": {func(w *worktree) {
			w.git("config", "core.fileMode", "false")
			w.ok(os.Chmod(w.path("test_it.py"), 0o755))
		}, "test_it.py is changed"},
		"another link":             {func(w *worktree) { w.remove("link"); w.link("empty", "link") }, "link is changed"},
		"a link became a file":     {func(w *worktree) { w.remove("link"); w.write("link", "dir/run.sh", 0o644) }, "link is changed"},
		"a file became a link":     {func(w *worktree) { w.remove("empty"); w.link("dir/run.sh", "empty") }, "empty is changed"},
		"a file became a folder":   {func(w *worktree) { w.remove("empty"); w.write("empty/x", "", 0o644) }, "empty is changed, empty/x is not in it"},
		"… an empty folder":        {func(w *worktree) { w.remove("empty"); w.mkdir("empty") }, "empty is changed"},
		"a link became a folder":   {func(w *worktree) { w.remove("linkdir"); w.mkdir("linkdir") }, "linkdir is changed"},
		"a folder became a file":   {func(w *worktree) { w.remove("dir"); w.write("dir", "", 0o644) }, "dir is not in it, dir/run.sh is removed"},
		"a folder became a link":   {func(w *worktree) { w.remove("dir"); w.link("/tmp", "dir") }, "dir is not in it, dir/run.sh is removed"},
		"an empty folder":          {func(w *worktree) { w.mkdir("new") }, ""},
		"a file became a FIFO":     {func(w *worktree) { w.remove("empty"); w.ok(exec.Command("mkfifo", w.path("empty")).Run()) }, "empty is changed"},
		"compiled by Python":       {func(w *worktree) { w.write("__pycache__/test_it.cpython-311.pyc", "x", 0o644) }, ""},
		"something of __pycache__": {func(w *worktree) { w.write("__pycache__/test_it.py", "x", 0o644) }, "__pycache__/test_it.py is not in it"},
		"assume unchanged": {func(w *worktree) {
			w.git("update-index", "--assume-unchanged", "test_it.py")
			w.write("test_it.py", "x", 0o644)
		}, "test_it.py is changed"},
		"skip worktree": {func(w *worktree) {
			w.git("update-index", "--skip-worktree", "test_it.py", "empty")
			w.write("test_it.py", "x", 0o644)
			w.remove("empty")
		}, "empty is removed, test_it.py is changed"},
		"sparse checkout":    {func(w *worktree) { w.git("status"); w.git("sparse-checkout", "set", "--no-cone", "/test_it.py") }, ".gitignore is removed, dangling is removed, dir/run.sh is removed, empty is removed, link is removed, linkdir is removed, né\n\"w\t is removed"},
		"no index":           {func(w *worktree) { w.remove(".git/index") }, ""},
		"packed":             {func(w *worktree) { w.git("gc", "-q"); w.git("pack-refs", "--all") }, ""},
		"a detached HEAD":    {func(w *worktree) { w.git("checkout", "-q", "--detach") }, ""},
		"an empty commit":    {func(w *worktree) { w.git("rm", "-rqf", "."); w.git("commit", "-qm", "two") }, ""},
		"core.bare":          {func(w *worktree) { w.git("config", "core.bare", "true") }, ""},
		"core.worktree":      {func(w *worktree) { w.git("config", "core.worktree", t.TempDir()); w.write("new", "", 0o644) }, "new is not in it"},
		"an untracked clone": {func(w *worktree) { w.git("clone", "-q", ".", "nested") }, "?nested/"},
		"CRLF by configuration": {func(w *worktree) {
			w.git("config", "core.autocrlf", "true")
			w.remove("test_it.py")
			w.git("checkout", "-q", "test_it.py")
		}, "test_it.py is changed"},
		"CRLF by attribute": {func(w *worktree) {
			w.write(".gitattributes", "*.py text eol=crlf\n", 0o644)
			w.commit()
			w.remove("test_it.py")
			w.git("checkout", "-q", "test_it.py")
		}, "test_it.py is changed"},
		"a filter": {func(w *worktree) {
			w.write(".gitattributes", "*.py filter=up\n", 0o644)
			w.git("config", "filter.up.clean", "tr a-z A-Z")
			w.git("config", "filter.up.smudge", "tr A-Z a-z")
			w.write("test_it.py", "def\n", 0o644)
			w.commit() // DEF
		}, "test_it.py is changed"},
		"another file's object": {func(w *worktree) {
			good := w.git("rev-parse", "HEAD:test_it.py")
			w.write("test_it.py", "x", 0o644)
			w.git("replace", good, w.git("hash-object", "-w", "test_it.py"))
		}, "test_it.py is changed"},
		"another commit's object": {func(w *worktree) {
			good := w.git("rev-parse", "HEAD")
			w.write("test_it.py", "x", 0o644)
			w.git("commit", "-qam", "bad")
			w.git("replace", good, "HEAD")
			w.git("update-ref", "--no-deref", "HEAD", good)
		}, "test_it.py is changed"},
		"another user's": {func(w *worktree) {
			if os.Getuid() != 0 {
				return
			}
			w.ok(filepath.WalkDir(w.dir, func(path string, _ os.DirEntry, err error) error {
				return errorsOf(err, os.Lchown(path, 12345, 12345))
			}))
		}, ""},

		"a submodule":                   {func(w *worktree) { submodule(w) }, ""},
		"a submodule at another commit": {func(w *worktree) { s := submodule(w); s.git("commit", "-q", "--allow-empty", "-m", "x") }, "?sub is at "},
		"a dirty submodule":             {func(w *worktree) { s := submodule(w); s.write("empty", "x", 0o644); s.write("new", "", 0o644) }, "sub/empty is changed, sub/new is not in it"},
		"a submodule and more":          {func(w *worktree) { submodule(w); w.write("zzz", "", 0o644) }, "zzz is not in it"},
		"a submodule not checked out":   {func(w *worktree) { submodule(w); w.git("submodule", "--quiet", "deinit", "-f", "sub") }, ""},
		"a submodule that is files":     {func(w *worktree) { s := submodule(w); s.remove(".git") }, "?sub is not the submodule"},
		"a submodule that is a file":    {func(w *worktree) { submodule(w); w.remove("sub"); w.write("sub", "", 0o644) }, "sub is changed"},
		"a submodule that is a link": {func(w *worktree) {
			submodule(w)
			w.ok(os.Rename(w.path("sub"), w.dir+"-away"))
			w.link(w.dir+"-away", "sub")
		}, "sub is changed"},
		"a submodule in a dirty one": {func(w *worktree) {
			s := submodule(w)
			inner := submodule(s)
			w.git("add", "sub")
			w.git("commit", "-qm", "three")
			inner.write("new", "", 0o644)
		}, "sub/sub/new is not in it"},
	} {
		t.Run(name, func(t *testing.T) {
			w := template.copy(t)
			c.do(w)
			list, err := w.differences()
			got := strings.Join(list, ", ")
			if start, ok := strings.CutPrefix(c.want, "?"); ok && err == nil && strings.HasPrefix(got, start) {
				return
			}
			if err != nil || got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// Work trees whose repository is another kind, or elsewhere.
func TestUncommittedKinds(t *testing.T) {
	check := func(what string, w *worktree) {
		t.Helper()
		if list, err := w.differences(); err != nil || len(list) > 0 {
			t.Errorf("%s: %q, %v", what, list, err)
		}
		w.write("test_it.py", "x", 0o644)
		w.write("new", "", 0o644)
		if list, err := w.differences(); err != nil || !slices.Equal(list, []string{"new is not in it", "test_it.py is changed"}) {
			t.Errorf("%s, changed: %q, %v", what, list, err)
		}
	}
	check("SHA-256", newWorktree(t, "--object-format=sha256"))
	check("a repository elsewhere", newWorktree(t, "--separate-git-dir="+filepath.Join(t.TempDir(), "elsewhere")))
	w := newWorktree(t)
	linked := filepath.Join(t.TempDir(), "linked")
	w.git("worktree", "add", "-q", linked)
	check("a linked work tree", &worktree{t, linked})
	bare := t.TempDir()
	w.git("clone", "-q", "--bare", ".", bare)
	(&worktree{t, bare}).git("worktree", "add", "-q", linked+"2")
	check("a work tree of a bare repository", &worktree{t, linked + "2"})
	w.git("clone", "-q", "--shared", ".", linked+"3")
	check("borrowed objects", &worktree{t, linked + "3"})
	w.git("commit", "-q", "--allow-empty", "-m", "x")
	w.git("clone", "-q", "--depth=1", "file://"+w.dir, linked+"4")
	check("a shallow clone", &worktree{t, linked + "4"})
	check("within another work tree", func() *worktree {
		outer := newWorktree(t)
		w.git("clone", "-q", ".", outer.path("inner"))
		return outer.at("inner")
	}())
}

// A work tree whose objects are missing cannot be compared.
func TestUncommittedNoObjects(t *testing.T) {
	w := newWorktree(t)
	w.remove(".git/objects")
	w.mkdir(".git/objects")
	if list, err := w.differences(); err == nil || !strings.Contains(err.Error(), "git ls-tree ") {
		t.Errorf("%q, %v", list, err)
	}
	b := newBench(t)
	b.recipe("a", "exit 0")
	w = &worktree{t, filepath.Join(b.Recipes, "a")}
	w.git("init", "-q")
	w.commit()
	w.remove(".git/objects")
	w.mkdir(".git/objects")
	b.want("no objects", "a ERROR")
	b.Git = ""
	if _, err := Run(context.Background(), b.Options, func(Event) {}); err == nil || !strings.Contains(err.Error(), "the toolset has no git") {
		t.Errorf("no git: %v", err)
	}
}

// A repository's configuration can name programs. None is executed.
func TestUncommittedExecutesNothing(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "executed")
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$0 $@\" >>"+mark+"\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	keys := []string{
		"core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.gitProxy", "core.askPass", "core.alternateRefsCommand",
		"pager.ls-tree", "diff.external", "diff.x.textconv", "diff.x.command", "merge.x.driver", "filter.x.clean", "filter.x.smudge", "filter.x.process",
		"credential.helper", "gpg.program", "gpg.ssh.program", "remote.origin.uploadpack", "remote.origin.vcs", "uploadpack.packObjectsHook", "sequence.editor",
	}
	for name, do := range map[string]func(w *worktree){
		"every program": func(w *worktree) {
			for _, key := range keys {
				w.git("config", key, program)
			}
			w.git("config", "alias.ls-tree", "!"+program)
			w.write(".git/info/attributes", "* filter=x diff=x merge=x\n", 0o644)
			w.git("config", "core.hooksPath", filepath.Dir(program))
			for _, hook := range []string{"post-index-change", "post-checkout", "reference-transaction", "fsmonitor-watchman"} {
				w.write(".git/hooks/"+hook, "#!/bin/sh\nexec "+program+"\n", 0o755)
			}
		},
		// An object that is missing would be fetched from a remote.
		"a promised object": func(w *worktree) {
			origin := filepath.Join(t.TempDir(), "origin")
			w.git("clone", "-q", "--bare", ".", origin)
			tree := w.git("rev-parse", "HEAD:dir")
			w.remove(".git/objects/" + tree[:2] + "/" + tree[2:])
			for key, value := range map[string]string{
				"core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true",
				"remote.origin.url": origin, "remote.origin.uploadpack": program, "protocol.file.allow": "always",
			} {
				w.git("config", key, value)
			}
		},
		"a promised object, by ssh": func(w *worktree) {
			tree := w.git("rev-parse", "HEAD:dir")
			w.remove(".git/objects/" + tree[:2] + "/" + tree[2:])
			for key, value := range map[string]string{
				"core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true",
				"remote.origin.url": "ssh://nowhere.invalid/x", "core.sshCommand": program, "ssh.variant": "simple", "protocol.ssh.allow": "always",
			} {
				w.git("config", key, value)
			}
		},
	} {
		w := newWorktree(t)
		do(w)
		_ = os.Remove(mark)
		list, err := w.differences()
		if data, e := os.ReadFile(mark); e == nil {
			t.Errorf("%s: executed: %s", name, data)
		}
		if strings.Contains(name, "promised") != (err != nil) {
			t.Errorf("%s: %q, %v", name, list, err)
		}
	}
}

// A commit that names a file more often than any disk has files is an error, soon and
// without its list.
func TestEndlessCommit(t *testing.T) {
	w := newWorktree(t)
	tree := w.git("rev-parse", "HEAD^{tree}")
	for range 10 { // each with ten times the files
		var list strings.Builder
		for n := range 10 {
			fmt.Fprintf(&list, "040000 tree %s\t%d\n", tree, n)
		}
		w.write("../list", list.String(), 0o644)
		tree = w.git("-c", "alias.mk=!git mktree <../list", "mk")
	}
	w.git("update-ref", "HEAD", w.git("commit-tree", "-m", "many", tree))
	if _, err := w.differences(); err == nil || !strings.Contains(err.Error(), "it wrote more than 24 MiB") {
		t.Errorf("%v", err)
	}
}

// Which folders have a commit of their own. The revision of a plain folder is its
// tree; of a work tree whose commit cannot be read nothing can be promoted.
func TestRevisionOfFolder(t *testing.T) {
	outer := newWorktree(t)
	id := func(w *worktree) string {
		t.Helper()
		in, err := identify(w.dir, "r")
		if err != nil {
			t.Fatal(err)
		}
		return in.Revision
	}
	if got, want := id(outer), outer.git("rev-parse", "HEAD"); got != want {
		t.Errorf("a work tree: %s, want %s", got, want)
	}
	for name, do := range map[string]func(w *worktree){
		"a plain folder in a work tree": func(*worktree) {},
		"no commit yet":                 func(w *worktree) { w.git("init", "-q") },
		"an empty .git":                 func(w *worktree) { w.mkdir(".git") },
		"a .git that is no repository":  func(w *worktree) { w.write(".git", "x", 0o644) },
		"a .git that leads nowhere":     func(w *worktree) { w.link("nowhere", ".git") },
		"a repository that is gone":     func(w *worktree) { w.write(".git", "gitdir: ../gone\n", 0o644) },
	} {
		w := outer.at(name)
		w.write("test_it.py", "x", 0o644)
		do(w)
		in, err := identify(w.dir, "r")
		if plain := strings.Contains(name, "plain"); plain && (err != nil || !strings.HasPrefix(in.Revision, "tree-")) || !plain && (err == nil || !strings.Contains(err.Error(), "whose commit cannot be read")) {
			t.Errorf("%s: revision %s, %v", name, in.Revision, err)
		}
	}
}

// What a test leaves in its folder during the run, and what it commits.
func TestWorkTreeChangesDuringRun(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	w := &worktree{t, filepath.Join(b.Recipes, "a")}
	w.git("init", "-q")
	w.commit()
	b.want("first", "a PROMOTE")
	git := "git -c user.name=a -c user.email=a@b"
	for _, test := range []string{
		"echo >new; exit 0",
		git + " commit -q --allow-empty -m x; exit 0",
		"mkdir -p .git/hooks; echo >.git/hooks/pre-commit; exit 0",
		git + " checkout -q --orphan x; exit 0",
	} {
		b.recipe("a", test)
		w.git("commit", "-qam", "x")
		b.want(test, "a ERROR")
		w.git("checkout", "-qf", "master")
		w.git("clean", "-qfd")
		w.remove(".git/hooks/pre-commit")
	}
	// What changes nothing of the work tree is no change.
	b.recipe("a", git+" status >/dev/null; "+git+" gc -q; "+git+" fetch -q . HEAD; exit 0")
	w.git("commit", "-qam", "x")
	b.want("harmless", "a PROMOTE")
	_, err := Run(context.Background(), b.Options, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
}
