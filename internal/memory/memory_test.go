package memory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/state"
)

var git = func() string { path, _ := exec.LookPath("git"); return path }()

// TestMain is also the process that writes until the power is cut (TestPowerCut).
func TestMain(m *testing.M) {
	if dir := os.Getenv("WRITE_TO"); dir != "" {
		fmt.Fprintln(os.Stderr, write(state.Dir(dir)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func create(t testing.TB, dir state.Dir) *Repository {
	t.Helper()
	r, err := Create(dir, git, Plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func entry(recipe, old, content string) Entry {
	return Entry{
		Recipe: recipe, Parent: old, Old: old, Files: map[string][]byte{"state.json": []byte(content), "b c": []byte("x")},
		Author: "systemd <\n>", Email: "systemd@m", Time: time.Unix(1700000000, 0), Message: content + "\n\nmore",
	}
}

// Every name of a folder becomes a name that git takes, and no two the same.
func TestEscape(t *testing.T) {
	names := map[string]string{
		"gitea": "gitea", "a-b_c+d": "a-b_c+d", "v1.2": "v1.2", "-a": "%2Da", ".a": "%2Ea", "a.": "a%2E", "a..b": "a.%2Eb",
		"a.lock": "a%2Elock", "a.locker": "a%2Elocker", "@": "%40", "a@{b": "a%40%7Bb", "a b": "a%20b", "a/b": "a%2Fb", "%41": "%2541", "ä": "%C3%A4", "\xff\n": "%FF%0A",
		"a~^:?*[\\": "a%7E%5E%3A%3F%2A%5B%5C", "": "",
		strings.Repeat("x", 200): strings.Repeat("x", 200),
	}
	for _, long := range []string{strings.Repeat("x", 201), strings.Repeat("ä", 127), strings.Repeat(".", 255), strings.Repeat("x", 254) + "y"} {
		names[long] = ""
	}
	seen := map[string]string{}
	for name, want := range names {
		got := Escape(name)
		if want != "" && got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q are both %s", name, other, got)
		}
		seen[got] = name
		if name == "" {
			continue
		}
		if out, err := exec.Command(git, "check-ref-format", refs+got).CombinedOutput(); err != nil || len(got) > maxName {
			t.Errorf("%q: git does not take %s (%d bytes): %s", name, got, len(got), out)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a.lock", "a%2Elock")
	f.Fuzz(func(t *testing.T, a, b string) {
		if a != b && Escape(a) == Escape(b) {
			t.Errorf("%q and %q are both %s", a, b, Escape(a))
		}
		if e := Escape(a); len(e) > maxName || strings.ContainsAny(e, " ~^:?*[\\/@\x7f") || strings.Contains(e, "..") || strings.HasSuffix(e, ".lock") || strings.HasPrefix(e, ".") || strings.HasSuffix(e, ".") {
			t.Errorf("%q: %s", a, e)
		}
	})
}

// What is written is read, whatever the recipe's name; a commit that was made for
// another one than the ref names is refused.
func TestCommit(t *testing.T) {
	dir := state.Dir(t.TempDir())
	if _, err := Open(dir, git, Plain); !errors.Is(err, ErrNone) {
		t.Errorf("nothing is there: %v", err)
	}
	r := create(t, dir)
	names := []string{"gitea", "a.lock", "ä ö", strings.Repeat("long", 60)}
	commits := map[string]string{}
	for _, name := range names {
		first, err := r.Commit(entry(name, "", "one "+name))
		if err != nil {
			t.Fatal(err)
		}
		for _, old := range []string{"", strings.Repeat("1", 40)} {
			if _, err := r.Commit(entry(name, old, "late")); !errors.Is(err, ErrMoved) {
				t.Errorf("%s: a commit for %q: %v", name, old, err)
			}
		}
		if commits[name], err = r.Commit(entry(name, first, "two "+name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, packed := range []bool{false, true} {
		reader, err := Open(dir, git, Plain)
		if err != nil {
			t.Fatal(err)
		}
		heads, err := reader.Heads()
		if err != nil || len(heads) != len(names) {
			t.Fatalf("%d heads, %v", len(heads), err)
		}
		for _, name := range names {
			heads, err := reader.Heads(Escape(name))
			if err != nil || len(heads) != 1 || heads[0].Commit != commits[name] || heads[0].Err != nil {
				t.Fatalf("packed %v: %s: %+v, %v", packed, name, heads, err)
			}
			var got string
			if err := reader.Contents(heads, "state.json", func(_ *Head, data []byte, err error) { got = fmt.Sprint(string(data), err) }); err != nil || got != "two "+name+"<nil>" {
				t.Errorf("%s: %s, %v", name, got, err)
			}
			data, err := reader.Blob(heads[0].Hash("b c"))
			if string(data) != "x" || err != nil {
				t.Errorf("%s: %q, %v", name, data, err)
			}
		}
		if err := r.Maintain(); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(git, "--git-dir="+dir.Path(state.Memory, ""), "log", "--format=%an|%ae|%at|%s", refs+"gitea").CombinedOutput()
	if want := "systemd ___|systemd@m|1700000000|two gitea\nsystemd ___|systemd@m|1700000000|one gitea\n"; err != nil || string(out) != want {
		t.Errorf("log: %s, %v", out, err)
	}
}

// The state directory may be named from where the process is, as people do.
func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := create(t, "state").Commit(entry("a", "", "one")); err != nil {
		t.Fatal(err)
	}
	r, err := Open("state", git, Plain)
	if err != nil {
		t.Fatal(err)
	}
	if heads, err := r.Heads(); err != nil || len(heads) != 1 || heads[0].Err != nil {
		t.Errorf("%+v, %v", heads, err)
	}
}

// git itself finds nothing wrong with the objects, of any size. An object that is written
// again takes the place of a damaged file.
func TestObjects(t *testing.T) {
	r := create(t, state.Dir(t.TempDir()))
	old := ""
	for _, content := range []string{"", "\x00", strings.Repeat("line\n", 1<<20), "damaged", "damaged"} {
		e := entry("a", old, content)
		e.Message = "a\x7f\xff"
		hash := HashOf([]byte(content))
		path := filepath.Join(r.path, "objects", hash[:2], hash[2:])
		for _, junk := range []string{"", "junk"} {
			if _, err := os.Stat(path); err == nil {
				if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte(junk), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			if old, err = r.Commit(e); err != nil {
				t.Fatal(err)
			}
			e.Old, e.Parent = old, old
			if data, err := r.Blob(hash); err != nil || string(data) != content {
				t.Errorf("%.9q: %.9q, %v", content, data, err)
			}
		}
	}
	for _, packed := range []bool{false, true} {
		if out, err := exec.Command(git, "--git-dir="+r.path, "fsck", "--strict", "--full", "--no-dangling", "--no-progress").CombinedOutput(); err != nil || string(out) != "notice: HEAD points to an unborn branch (main)\n" {
			t.Errorf("packed %v: git fsck: %s, %v", packed, out, err)
		}
		if err := r.run("gc", "--quiet"); err != nil {
			t.Error(err)
		}
	}
}

// No message has what of the shared repository's URL may be secret.
func TestSecretsOfURL(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, u := range []string{"http://hidden@" + host + "/x", "http://hid%64en@" + host + "/x", "http://u:hidden@" + host + "/x", "http://u:hidden@127.0.0.1:1/x", "http://127.0.0.1:1/x?token=hidden", "http://u:hidden@127.0.0.1:1/x?a=hidden&b"} {
		r := create(t, state.Dir(t.TempDir()))
		r.Share(Remote{URL: u})
		err := r.Fetch()
		if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// A server gets the password of the URL; a user of the machine who lists processes does not,
// and neither does a server to which the first one redirects.
func TestPasswordOfURL(t *testing.T) {
	const password = "p:a%s w" // with what is escaped in a URL
	var lock sync.Mutex
	var asked, other []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		other = append(other, r.URL.String())
	}))
	defer elsewhere.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, given, _ := r.BasicAuth()
		lock.Lock()
		defer lock.Unlock()
		asked = append(asked, user+" "+given)
		processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		seen := false
		for _, process := range processes {
			arguments, _ := os.ReadFile(process)
			if !bytes.Contains(arguments, []byte(r.Host)) || !bytes.Contains(arguments, []byte("git")) {
				continue
			}
			seen = true
			if bytes.Contains(arguments, []byte("p%3Aa")) || bytes.Contains(arguments, []byte(password)) {
				t.Errorf("the arguments of a process have the password: %q", arguments)
			}
		}
		if !seen {
			t.Error("git is not among the processes")
		}
		if strings.HasPrefix(r.URL.Path, "/moved") {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusMovedPermanently)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	for _, path := range []string{"/x.git", "/moved.git"} {
		lock.Lock()
		asked = nil
		lock.Unlock()
		r := create(t, state.Dir(t.TempDir()))
		r.Share(Remote{URL: (&url.URL{Scheme: "http", User: url.UserPassword("u", password), Host: strings.TrimPrefix(server.URL, "http://"), Path: path}).String()})
		if err := r.Fetch(); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", path, err)
		}
		lock.Lock()
		if len(asked) == 0 || asked[0] != "u "+password {
			t.Errorf("%s: the server was told %q", path, asked)
		}
		lock.Unlock()
	}
	if len(other) > 0 {
		t.Errorf("another server was asked: %q", other)
	}
}

// Each part of a URL that may be secret is known in all of its spellings.
func TestSecrets(t *testing.T) {
	for u, want := range map[string][]string{
		"https://git.example.org/x.git":    nil,
		"/srv/x.git":                       nil,
		"git@git.example.org:x.git":        nil,
		"https://u:secret@h/x":             {"secret", "secret"},
		"https://u:pa!s%2fs%61@h/x":        {"pa!s%2fs%61", "pa!s/sa"},
		"https://u:a@b@h/x@y":              {"a@b", "a@b"},
		"https://u:se:cret@[::1]:80/x?t=k": {"t=k", "se:cret", "se:cret"},
		"ssh://u:secret@h/x":               {"secret", "secret"},
		"https://to%6ben@h/x":              {"to%6ben@", "token@"},
		"https://token:@h/x":               {"token@", "token@", "token:", "token:"},
		"https://token:x-oauth-basic@h":    {"x-oauth-basic", "x-oauth-basic", "token@", "token@", "token:", "token:"},
		"https://h/x?u:p@y":                {"u:p@y"},
		"https://u:pa%ss@h/x":              {"pa%ss"},
	} {
		if got := (Remote{URL: u}).Secrets(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", u, got, want)
		}
	}
	for u, ok := range map[string]bool{"https://u:pa%ss@h/x": false, "https://u:pa^s@h/x": false, "https://u:p%25@h/x": true, "/a%b": true, "git@h:a": true} {
		if err := (Remote{URL: u}).Check(); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "pa") && strings.Contains(err.Error(), u) {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// Whatever the umask, the owner alone can write, and the group can read.
func TestUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077} {
		dir := state.Dir(t.TempDir())
		was := unix.Umask(umask)
		r := create(t, dir)
		_, err := r.Commit(entry("a", "", "one"))
		if err == nil {
			err = r.Maintain()
		}
		unix.Umask(was)
		if info, err := os.Stat(r.path); err != nil || info.Mode() != fs.ModeDir|0o750 {
			t.Errorf("umask %03o: the directory has mode %s, %v", umask, info.Mode(), err)
		}
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(r.path, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Name() == lockFile {
				return err
			}
			info, err := e.Info()
			if err == nil && (info.Mode().Perm()&0o027 != 0 || info.Mode().Perm()&0o040 == 0) {
				t.Errorf("umask %03o: %s has mode %s", umask, path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// A FIFO in the place of an object holds nobody for ever.
func TestSilence(t *testing.T) {
	dir := state.Dir(t.TempDir())
	r := create(t, dir)
	if _, err := r.Commit(entry("a", "", "1")); err != nil {
		t.Fatal(err)
	}
	heads, err := r.Heads("a")
	if err != nil {
		t.Fatal(err)
	}
	hash := heads[0].Hash("state.json")
	path := dir.Path(state.Memory, "objects/"+hash[:2]+"/"+hash[2:])
	if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	defer func(was time.Duration) { silence = was }(silence)
	silence = 100 * time.Millisecond // of the FIFO alone: however slow git is, it does not answer
	if _, err := r.Blob(hash); err == nil || !strings.Contains(err.Error(), "look for a FIFO where the object's file should be") {
		t.Errorf("%v", err)
	}
}

// A FIFO that git itself opens holds no commit for ever, either.
func TestSilentCommit(t *testing.T) {
	r := create(t, state.Dir(t.TempDir()))
	path := filepath.Join(r.path, "objects", "info", "alternates")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	defer func(was time.Duration) { silence = was }(silence)
	silence = 100 * time.Millisecond
	if _, err := r.Commit(entry("a", "", "1")); err == nil || !strings.Contains(err.Error(), "did not answer for 100ms") {
		t.Errorf("%v", err)
	}
}

// If somebody kills the git that reads, another one goes on: nothing counts as damaged. If
// no git can be started, the error says so.
func TestKilledReader(t *testing.T) {
	r := create(t, state.Dir(t.TempDir()))
	if _, err := r.Commit(entry("a", "", "1")); err != nil {
		t.Fatal(err)
	}
	hash := HashOf([]byte("1"))
	kill := func() {
		if err := r.reader.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Blob(hash); err != nil {
		t.Fatal(err)
	}
	kill() // while it waits for a request
	if data, err := r.Blob(hash); string(data) != "1" || err != nil {
		t.Errorf("killed between two requests: %q, %v", data, err)
	}
	start, starts := r.start, 0
	r.start = func(cmd *exec.Cmd) (func() error, error) {
		wait, err := start(cmd)
		if starts++; starts == 1 && err == nil {
			_ = cmd.Process.Kill()
		}
		return wait, err
	}
	kill()
	r.endReader()
	if data, err := r.Blob(hash); string(data) != "1" || err != nil || starts != 2 {
		t.Errorf("killed at its start: %q, %v, %d starts", data, err, starts)
	}
	r.endReader()
	r.start = func(*exec.Cmd) (func() error, error) { return nil, syscall.EMFILE }
	if _, err := r.Blob(hash); !errors.As(err, new(Unread)) || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("no git: %v", err)
	}
	r.start = start
}

// Two writers never both win, and a sweep waits for a git that a killed one left.
func TestWriters(t *testing.T) {
	dir := state.Dir(t.TempDir())
	r := create(t, dir)
	first, err := r.Commit(entry("a", "", "0"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var lock sync.Mutex
	won := 0
	for n := range 8 {
		all.Go(func() {
			if _, err := r.Commit(entry("a", first, fmt.Sprint(n))); err == nil {
				lock.Lock()
				won++
				lock.Unlock()
			} else if !errors.Is(err, ErrMoved) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("%d of 8 won", won)
	}
	// A process of git holds the lock after its parent has let go.
	next := make(chan error)
	held := r.writer.held
	left := exec.Command("sleep", "1000")
	left.ExtraFiles = []*os.File{held}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	go func() {
		r, err := Create(dir, git, Plain)
		if err == nil {
			r.Close()
		}
		next <- err
	}()
	select {
	case err := <-next:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond): // of a wait that is too short for the fault, this notices nothing
	}
	_ = left.Process.Kill()
	_ = left.Wait()
	if err := <-next; err != nil {
		t.Error(err)
	}
}

// write commits for ever, and says which commits are on the disk.
func write(dir state.Dir) error {
	r, err := Create(dir, git, Plain)
	if err != nil {
		return err
	}
	heads, err := r.Heads()
	if err != nil {
		return err
	}
	old := map[string]string{}
	for _, h := range heads {
		old[h.Name] = h.Commit
	}
	for n := 0; ; n++ {
		name := fmt.Sprintf("r%d", n%3)
		fmt.Printf("writes %s %d\n", name, n)
		if old[name], err = r.Commit(entry(name, old[name], fmt.Sprint(n))); err != nil {
			return err
		}
		fmt.Printf("wrote %s %s\n", name, old[name])
		if n%20 == 19 {
			if err := r.Maintain(); err != nil {
				return err
			}
		}
	}
}

// The power is cut at random moments: a file system of its own stops in the middle of
// what it does (EXT4_IOC_SHUTDOWN, without writing its journal), and is mounted again.
// What Commit has returned is there, whole; so is the one before of what was under way.
func TestPowerCut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system: run the test as root")
	}
	const inside = "MOUNTS_OF_ITS_OWN"
	if os.Getenv(inside) == "" {
		// In a mount namespace of its own: other tests, and people, do not see the mounts.
		cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=yes")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	command := func(args ...string) error {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%q: %s, %w", args, out, err)
		}
		return nil
	}
	err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20), os.Mkdir(mount, 0o700))
	if err == nil {
		err = command("mkfs.ext4", "-q", image)
	}
	if err != nil {
		t.Skipf("needs mkfs.ext4, to make a file system: apt-get install e2fsprogs (%v)", err)
	}
	last := map[string]string{}
	commits := 0
	const cuts = 30
	for cut := range cuts {
		err := command("mount", "-o", "loop", image, mount)
		t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
		if err != nil {
			if cut == 0 {
				t.Skipf("needs loop devices, which a container may not have: run the test on a machine, or give the container /dev/loop-control (%v)", err)
			}
			t.Fatal(err)
		}
		check(t, state.Dir(mount), last)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WRITE_TO="+mount)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		count := rand.Intn(30)
		for n := 0; n < count && lines.Scan(); {
			if name, commit, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "wrote "), " "); ok && strings.HasPrefix(lines.Text(), "wrote ") {
				last[name], n = commit, n+1
				commits++
			}
		}
		time.Sleep(time.Duration(rand.Intn(10_000)) * time.Microsecond)
		shutdown(t, mount)
		for lines.Scan() { // what was told until then
			if name, commit, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "wrote "), " "); ok && strings.HasPrefix(lines.Text(), "wrote ") {
				last[name] = commit
				commits++
			}
		}
		if err := cmd.Wait(); err == nil || said.Len() == 0 {
			t.Fatalf("cut %d: the writer ended with %v: %s", cut, err, said.String())
		}
		// The writer's gits end a moment after it.
		for err = unix.EBUSY; errors.Is(err, unix.EBUSY); {
			err = unix.Unmount(mount, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cuts, %d commits", cuts, commits)
}

// shutdown stops a file system at once.
func shutdown(t *testing.T, mount string) {
	t.Helper()
	f, err := os.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const (
		ext4Shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN, fs/ext4/ext4.h
		noLogFlush   = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH
	)
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		t.Fatal(err)
	}
}

// check reads the memory after a cut: last are the commits that were told, of which each
// is the newest, or the parent of the newest.
func check(t *testing.T, dir state.Dir, last map[string]string) {
	t.Helper()
	if len(last) == 0 {
		return
	}
	r, err := Create(dir, git, Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, commit := range last {
		heads, err := r.Heads(name)
		if err != nil || len(heads) != 1 || heads[0].Err != nil {
			t.Fatalf("%s: %+v, %v; %q", name, heads[0], err, r.Notes)
		}
		err = r.Contents(heads, "state.json", func(_ *Head, data []byte, err error) {
			if err != nil || len(data) == 0 {
				t.Errorf("%s: %q, %v", name, data, err)
			}
		})
		if err != nil {
			t.Error(err)
		}
		if heads[0].Commit == commit {
			continue
		}
		out, err := exec.Command(git, "--git-dir="+dir.Path(state.Memory, ""), "rev-parse", refs+name+"^").Output()
		if err != nil || strings.TrimSpace(string(out)) != commit {
			t.Errorf("%s is %s, after %s was told: %v", name, heads[0].Commit, commit, err)
		}
		last[name] = heads[0].Commit
	}
	if len(r.Notes) > 0 {
		t.Errorf("%q", r.Notes)
	}
}
