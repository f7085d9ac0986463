package sweep

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// plant makes a tree from lines: "PATH=CONTENT", "PATH->TARGET", "PATH/",
// "PATH+x=CONTENT" (executable). $O is a directory outside.
func plant(t testing.TB, lines ...string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "recipes", "r")
	return plantIn(t, root, filepath.Join(filepath.Dir(filepath.Dir(root)), "outside"), lines...)
}

func plantIn(t testing.TB, root, outside string, lines ...string) string {
	t.Helper()
	for _, dir := range []string{root, outside} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range lines {
		at := func(path string) string {
			if rest, ok := strings.CutPrefix(path, "$O/"); ok {
				path = filepath.Join(outside, rest)
			} else if !filepath.IsAbs(path) {
				path = filepath.Join(root, path)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			return path
		}
		var err error
		if path, target, ok := strings.Cut(line, "->"); ok {
			if rest, ok := strings.CutPrefix(target, "$O"); ok {
				target = "../../outside" + rest
			}
			err = os.Symlink(target, at(path))
		} else if path, ok := strings.CutSuffix(line, "/"); ok {
			err = os.MkdirAll(at(path), 0o755)
		} else {
			path, content, _ := strings.Cut(line, "=")
			path, executable := strings.CutSuffix(path, "+x")
			err = os.WriteFile(at(path), []byte(content), 0o644)
			if executable && err == nil {
				err = os.Chmod(at(path), 0o755)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func hashOf(t testing.TB, root string) string {
	t.Helper()
	sum, err := treeHash(root)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// All of these are different trees.
func TestDifferentTrees(t *testing.T) {
	seen := map[string]string{}
	for _, lines := range [][]string{
		{},
		{"a=1"},
		{"a=2"},
		{"b=1"},
		{"a+x=1"},
		{"a=1", "b=1"},
		{"a=1", "b="},
		{"a=1b"},
		{"d/"},
		{"a=1", "d/"},
		{"d/a=1"},
		{"d/a=1", "a=1"},
		{"d/e/"},
		{"e/", "d/"},
		{"d/a=1", "e/b=2"},
		{"d/b=2", "e/a=1"},
		{"d/a=1", "d/b=2", "e/"},
		{"d/", "e/a=1", "e/b=2"}, // moved
		{"a->b"},
		{"a->c"},
		{"b->a"},
		{"a=1", "b->a"},
		{"a=1", "b->./a"},
		{"a=b"},
		{"a\n\"=1"},
		{"a \"b\"=1"},
		// what links lead to, outside
		{"$O/s=1", "l->$O/s"},
		{"$O/s=2", "l->$O/s"},
		{"$O/s+x=1", "l->$O/s"},
		{"$O/s2=1", "l->$O/s2"},
		{"$O/s=1", "$O/m->s", "l->$O/m"},
		{"$O/s=1", "$O/s2=1", "l->$O/s2", "k->$O/s"},
		{"$O/s=1", "$O/s2=1", "l->$O/s", "k->$O/s2"},
		{"$O/d/x=1", "l->$O/d"},
		{"$O/d/x=1", "$O/d/y/", "l->$O/d"},
		{"$O/d/y=1", "l->$O/d"},
		{"$O/d/x=1", "l->$O/d", "k->$O/d/x"},
		{"$O/d/x=1", "$O/e/x=2", "l->$O/d", "k->$O/e"},
		{"$O/d/x=2", "$O/e/x=1", "l->$O/d", "k->$O/e"}, // moved outside
		{"$O/d/x->../e", "$O/e=1", "l->$O/d"},
		{"$O/d/x->../e", "$O/e=2", "l->$O/d"},
		{"$O/d/x->../f", "$O/f=1", "l->$O/d"},
		// what may be executed of git's and Python's directories
		{".git/hooks/pre-commit=1"},
		{".git/hooks/pre-commit=2"},
		{".git/config=1"},
		{".git/m.py=1"},
		{".git/objects/m.py=1"},
		{"__pycache__/m.py=1"},
		{"__pycache__/m.pyc=1"},
		{"__pycache__/x/m.cpython-311.pyc=1"},
		{".pytest_cache/conftest.py=1"},
		{".pytest_cache/v/cache/m.py=1"},
		{"sub/.git/hooks/x=1"},
		{"sub/.git/hooks/x.sample=1"},
		{".git/logs/test_x.py=def test_x(): pass\n"},
		{".git/refs/heads/x.py=import os\n"},
		{".git/rebase-merge/helper.py=1"},
		{".git/objects/info/lib.zip=1"},
		{".git/description=echo"},
		{".git/HEAD=exit 1"},
		{".git=exit 1"},
		{".git/packed-refs=# pack-refs with: x\nexit\n"},
		{".git/logs/x=0123456789012345678901234567890123456789 a\n", "more->.git/logs"},
		{".git/logs/x=0123456789012345678901234567890123456789 b\n", "more->.git/logs"},
		{"__pycache__/m.cpython-311.pyc=1", "m.pyc->__pycache__/m.cpython-311.pyc"},
		{"__pycache__/m.cpython-311.pyc=2", "m.pyc->__pycache__/m.cpython-311.pyc"},
	} {
		sum := hashOf(t, plant(t, lines...))
		if other, ok := seen[sum]; ok {
			t.Errorf("%q and %s have one hash", lines, other)
		}
		seen[sum] = fmt.Sprintf("%q", lines)
		if again := hashOf(t, plant(t, lines...)); again != sum {
			t.Errorf("%q: another hash in another place", lines)
		}
	}
}

// What a person's pytest or git leaves does not make another tree.
func TestSameTrees(t *testing.T) {
	want := hashOf(t, plant(t, "a=1", "d/b=2"))
	for _, lines := range [][]string{
		{"__pycache__/a.cpython-311.pyc=x", "d/__pycache__/b.cpython-311-pytest-9.2.0.pyc=x", "__pycache__/a.cpython-311.pyc.140=x"},
		{".pytest_cache/README.md=x", ".pytest_cache/v/cache/lastfailed=x", ".pytest_cache/.gitignore=*", ".pytest_cache/CACHEDIR.TAG=x"},
		{".git/HEAD=ref: refs/heads/main\n", ".git/index=x", ".git/refs/heads/main=0123456789012345678901234567890123456789\n", ".git/logs/HEAD=0123456789012345678901234567890123456789 0123456789012345678901234567890123456789 A <a@b> 1 +0000\tcommit: x\n0123456789012345678901234567890123456789 0123456789012345678901234567890123456789 A <a@b> 1 +0000\tcommit: y\n", ".git/FETCH_HEAD=0123456789012345678901234567890123456789\t\tbranch\n", ".git/ORIG_HEAD=0123456789012345678901234567890123456789\n", ".git/packed-refs=# pack-refs with: peeled fully-peeled sorted \n0123456789012345678901234567890123456789 refs/tags/x\n^0123456789012345678901234567890123456789\n", ".git/refs/remotes/origin/HEAD=ref: x\n", ".git/objects/ab/0123456789abcdef0123456789abcdef012345=x", ".git/objects/pack/pack-1.pack=x", ".git/index.lock="},
		{".git=gitdir: ../x"},
	} {
		if got := hashOf(t, plant(t, append([]string{"a=1", "d/b=2"}, lines...)...)); got != want {
			t.Errorf("%q make another tree", lines)
		}
	}
}

// What cannot be hashed is an error at once.
func TestNotATree(t *testing.T) {
	fifo := func(path string) func(string) error {
		return func(root string) error { return syscall.Mkfifo(filepath.Join(root, path), 0o644) }
	}
	socket := func(root string) error {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		t.Chdir(root) // a socket's path is short
		return syscall.Bind(fd, &syscall.SockaddrUnix{Name: "s"})
	}
	for want, do := range map[string]func(root string) error{
		"x: is a FIFO":                                         fifo("x"),
		"s: is a socket":                                       socket,
		"/dev/zero: is a device":                               func(root string) error { return os.Symlink("/dev/zero", filepath.Join(root, "x")) },
		"/proc/kmsg: is made up by":                            func(root string) error { return os.Symlink("/proc/kmsg", filepath.Join(root, "x")) },
		"/proc: is made up by the kernel":                      func(root string) error { return os.Symlink("/proc", filepath.Join(root, "x")) },
		"w: leads to an open file or a directory of a process": func(root string) error { return os.Symlink("/proc/self/cwd/..", filepath.Join(root, "w")) },
		"e: leads to an open file or a directory of a process": func(root string) error { return os.Symlink("/proc/thread-self/exe", filepath.Join(root, "e")) },
		"t: leads to an open file or a directory of a process": func(root string) error { return os.Symlink("/proc/self/root", filepath.Join(root, "t")) },
		"1: leads to an open file or a directory of a process": func(root string) error { return os.Symlink("/dev/fd/1", filepath.Join(root, "1")) },
		"d: leads to an open file or a directory of a process": func(root string) error {
			return errorsOf(os.Symlink("l", filepath.Join(root, "d")), os.Symlink("/proc/self/cwd", filepath.Join(root, "l")))
		},
		"/sys/kernel: is made up by":         func(root string) error { return os.Symlink("/sys/kernel", filepath.Join(root, "x")) },
		"is a link that leads nowhere (no/w": func(root string) error { return os.Symlink("no/where", filepath.Join(filepath.Dir(root), "dangling")) },
		"holds more than 256 MiB": func(root string) error {
			return errorsOf(os.WriteFile(filepath.Join(root, "x"), nil, 0o644), os.Truncate(filepath.Join(root, "x"), maxTree+1))
		},
		"it vanished: ": func(root string) error { return os.RemoveAll(root) },
	} {
		root := plant(t)
		if err := do(root); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(want, "nowhere") {
			root = filepath.Join(filepath.Dir(root), "dangling")
		}
		if _, err := treeHash(root); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	// A FIFO that a link leads to, outside.
	root := plant(t, "l->$O/x", "$O/")
	if err := fifo("../../outside/x")(root); err != nil {
		t.Fatal(err)
	}
	if _, err := treeHash(root); err == nil || !strings.Contains(err.Error(), "outside/x: is a FIFO") {
		t.Errorf("%v", err)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A recipe that is a link to what a process has open is none.
func TestRecipeOfAProcess(t *testing.T) {
	link := filepath.Join(t.TempDir(), "r")
	if err := os.Symlink("/proc/self/cwd", link); err != nil {
		t.Fatal(err)
	}
	if _, err := treeHash(link); err == nil || !strings.Contains(err.Error(), link+": leads to an open file or a directory of a process") {
		t.Errorf("%v", err)
	}
}

// A link of many is looked at without a look at each other one.
func BenchmarkManyLinks(b *testing.B) {
	root, outside := b.TempDir(), b.TempDir()
	for i := range 20_000 {
		name := strconv.Itoa(i)
		if err := errorsOf(os.WriteFile(filepath.Join(outside, name), nil, 0o644), os.Symlink(filepath.Join(outside, name), filepath.Join(root, name))); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := treeHash(root); err != nil {
			b.Fatal(err)
		}
	}
}

// Links that lead in circles end.
func TestCircles(t *testing.T) {
	hashOf(t, plant(t, "a->b", "b->a", "c->.", "d->..", "$O/x->../recipes/r", "e->$O"))
}
