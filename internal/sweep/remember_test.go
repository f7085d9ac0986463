package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// stateOf is what is remembered of a recipe.
func stateOf(dir state.Dir, name string) (State, error) { return statesOf(dir, name)(name) }

// statesOf reads once what is remembered of all recipes, or of those with the names, and gives
// each recipe's.
func statesOf(dir state.Dir, names ...string) func(name string) (State, error) {
	known := map[string]*Remembered{}
	m, err := memory.Open(dir, git, memory.Plain)
	if err == nil {
		defer m.Close()
		var list []*Remembered
		list, err = Recall(m, names...)
		for _, r := range list {
			known[r.Name] = r
		}
	}
	return func(name string) (State, error) {
		r := known[memory.Escape(name)]
		switch {
		case err != nil && !errors.Is(err, memory.ErrNone):
			return State{}, err
		case r == nil:
			return State{}, fs.ErrNotExist
		}
		return r.State, r.Err
	}
}

// rawState is the text of a recipe's state, "" if there is none.
func rawState(t testing.TB, dir state.Dir, name string) (text string) {
	t.Helper()
	m, err := memory.Open(dir, git, memory.Plain)
	if errors.Is(err, memory.ErrNone) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	heads, err := m.Heads(memory.Escape(name))
	if err == nil {
		err = m.Contents(heads, stateFile, func(_ *memory.Head, data []byte, _ error) { text = string(data) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// setState makes a text the state of a recipe.
func setState(t testing.TB, dir state.Dir, name, text string) {
	t.Helper()
	m, err := memory.Create(dir, git, memory.Plain)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	e := memory.Entry{Recipe: name, Author: "a test", Email: "test", Time: time.Now(), Message: "set", Files: map[string][]byte{stateFile: []byte(text)}}
	heads, err := m.Heads(memory.Escape(name))
	if err == nil && len(heads) == 1 {
		e.Old = heads[0].Commit
	}
	if err == nil {
		_, err = m.Commit(e)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func text(v any) string { data, _ := json.Marshal(v); return string(data) }

// damages are ways in which the memory of one recipe is lost.
var damages = []struct {
	name string
	do   func(t testing.TB, dir state.Dir, name string)
}{
	{"the ref is empty", refBecomes("")},
	{"the ref is zeros", refBecomes(strings.Repeat("\x00", 41))},
	{"the ref is cut", refBecomes("0123456789abcdef")},
	{"the ref names another ref", refBecomes("ref: refs/heads/main\n")},
	{"the ref names what is not there", refBecomes(strings.Repeat("1", 40) + "\n")},
	{"the ref is a link", func(t testing.TB, dir state.Dir, name string) {
		path := refPath(dir, name)
		if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink("/dev/zero", path)); err != nil {
			t.Fatal(err)
		}
	}},
	{"the ref is a FIFO", func(t testing.TB, dir state.Dir, name string) {
		path := refPath(dir, name)
		if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o700), syscall.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
	}},
	{"the ref is a directory", func(t testing.TB, dir state.Dir, name string) {
		path := refPath(dir, name)
		if err := errors.Join(os.RemoveAll(path), os.MkdirAll(path+"/x", 0o700)); err != nil {
			t.Fatal(err)
		}
	}},
	{"the commit is missing", objectBecomes("commit", nil)},
	{"the commit is empty", objectBecomes("commit", func([]byte) []byte { return nil })},
	{"the commit is cut", objectBecomes("commit", func(data []byte) []byte { return data[:len(data)/2] })},
	{"the tree is missing", objectBecomes("tree", nil)},
	{"the tree has another byte", objectBecomes("tree", func(data []byte) []byte { data[len(data)/2] ^= 1; return data })},
	{"the state is missing", objectBecomes("state", nil)},
	{"the state has another byte", objectBecomes("state", func(data []byte) []byte { data[len(data)/2] ^= 1; return data })},
	{"the state is zeros", objectBecomes("state", func(data []byte) []byte { return make([]byte, len(data)) })},
	{"the commit is the one before", func(t testing.TB, dir state.Dir, name string) {
		// The files of two objects are exchanged: each is whole, and not what its name says.
		now := repository(t, dir, "rev-parse", ref(name))
		before, err := exec.Command(git, "--git-dir="+dir.Path(state.Memory, ""), "rev-parse", "--verify", "--quiet", ref(name)+"^").Output()
		if err != nil {
			objectBecomes("commit", nil)(t, dir, name)
			return
		}
		loose(t, dir)
		old, err := os.ReadFile(objectPath(dir, strings.TrimSpace(string(before))))
		if err != nil {
			t.Fatal(err)
		}
		replace(t, objectPath(dir, now), old)
	}},
}

func ref(name string) string { return "refs/cc-ci/sweep/" + memory.Escape(name) }

func refPath(dir state.Dir, name string) string { return dir.Path(state.Memory, ref(name)) }

func refBecomes(content string) func(t testing.TB, dir state.Dir, name string) {
	return func(t testing.TB, dir state.Dir, name string) { replace(t, refPath(dir, name), []byte(content)) }
}

// objectBecomes changes one object of a recipe's newest commit; with nil it is removed.
func objectBecomes(which string, change func([]byte) []byte) func(t testing.TB, dir state.Dir, name string) {
	return func(t testing.TB, dir state.Dir, name string) {
		t.Helper()
		hash := repository(t, dir, "rev-parse", ref(name)+map[string]string{"commit": "", "tree": "^{tree}", "state": ":" + stateFile}[which])
		loose(t, dir)
		path := objectPath(dir, hash)
		if change == nil {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			return
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		replace(t, path, change(data))
	}
}

func objectPath(dir state.Dir, hash string) string {
	return dir.Path(state.Memory, "objects/"+hash[:2]+"/"+hash[2:])
}

// loose has each object in a file of its own.
func loose(t testing.TB, dir state.Dir) {
	t.Helper()
	packs, _ := filepath.Glob(dir.Path(state.Memory, "objects/pack/*.pack"))
	for _, pack := range packs {
		data, err := os.ReadFile(pack)
		if err == nil {
			err = errors.Join(os.Remove(pack), os.Remove(strings.TrimSuffix(pack, ".pack")+".idx"))
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(git, "--git-dir="+dir.Path(state.Memory, ""), "unpack-objects", "-q")
		cmd.Stdin = bytes.NewReader(data)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
	}
}

// replace writes a file that may be read-only.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func repository(t testing.TB, dir state.Dir, args ...string) string {
	t.Helper()
	out, err := exec.Command(git, append([]string{"--git-dir=" + dir.Path(state.Memory, "")}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %s, %v", args, out, err)
	}
	return strings.TrimSpace(string(out))
}

// A first run that the sweep's end cut off is remembered as what it is, and not as damage.
func TestFirstRunCutOff(t *testing.T) {
	b := newBench(t)
	b.recipe("a", "exit 0")
	b.recipe("b", "echo running; sleep 1000")
	b.Grace = 0
	ctx, end := context.WithCancel(context.Background())
	defer end()
	results, err := Run(ctx, b.Options, func(e Event) {
		if e.Recipe == "b" {
			end()
		}
	})
	if err == nil || results[1].Verdict != Cut {
		t.Fatalf("%+v, %v", results, err)
	}
	known, err := stateOf(b.State, "b")
	if err != nil || known.Run == nil || known.Run.Verdict != Cut {
		t.Fatalf("%+v, %v", known, err)
	}
	r := &Remembered{Name: "b", State: known}
	if st := r.standing(nil); st.Group != NeverRun {
		t.Errorf("%+v", st)
	}
	b.recipe("b", "exit 0")
	b.want("next", "a SKIP", "b PROMOTE")
	if n := repository(t, b.State, "rev-list", "--count", ref("b")); n != "2" {
		t.Errorf("its history has %s commits", n)
	}
}

// Of a result that is too large to be remembered whole, the tests that failed are.
func TestLargeResult(t *testing.T) {
	r := &record.Result{Format: "CTRF"}
	r.Results.Extra.About.Schema = record.ResultSchema
	for i := range maxKeptTests + 100 {
		r.Results.Tests = append(r.Results.Tests, record.Test{Name: fmt.Sprint("test_", i), Status: "passed", Message: "long"})
	}
	r.Results.Tests[maxKeptTests+50].Status = "failed"
	brief, err := ParseResult("id", kept(make([]byte, maxKeptResult+1), r))
	if err != nil {
		t.Fatal(err)
	}
	tests := brief.Results.Tests
	if len(tests) != maxKeptTests || tests[0].Name != fmt.Sprint("test_", maxKeptTests+50) || tests[1].Name != "test_0" || tests[1].Message != "" {
		t.Errorf("%d tests: %+v", len(tests), tests[:2])
	}
	if r.Results.Tests[1].Message != "long" {
		t.Error("the run's own result was changed")
	}
}

// However the memory of one recipe is damaged, the recipe is run, with a message, and
// remembered anew; the others' memory is whole.
func TestDamagedMemory(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, d := range damages {
			t.Run(fmt.Sprintf("%s, packed %v", d.name, packed), func(t *testing.T) {
				b := newBench(t)
				b.recipe("a", "exit 0")
				b.recipe("b", "exit 0")
				b.want("first", "a PROMOTE", "b PROMOTE")
				b.recipe("a", "exit 0; true")
				b.want("changed", "a PROMOTE", "b SKIP")
				if packed {
					repository(t, b.State, "gc", "--quiet", "--prune=now")
				}
				d.do(t, b.State, "a")
				b.DryRun = true
				b.want("a dry run", "a RUN", "b SKIP")
				b.DryRun = false
				results, err := Run(context.Background(), b.Options, func(Event) {})
				if err != nil || results[0].Verdict != Promote || results[1].Verdict != Skip || !strings.Contains(results[0].Why, "its state was damaged (") {
					t.Fatalf("%+v, %v", results, err)
				}
				b.want("again", "a SKIP", "b SKIP")
				repository(t, b.State, "rev-list", "--objects", "--all")
			})
		}
	}
}

// What is damaged of the repository as a whole costs as little as can be.
func TestDamagedRepository(t *testing.T) {
	for _, d := range []struct {
		name string
		do   func(t *testing.T, path string)
		want []string
	}{
		{"no HEAD", func(t *testing.T, path string) { _ = os.Remove(path + "/HEAD") }, []string{"a SKIP", "b SKIP"}},
		{"HEAD is empty", func(t *testing.T, path string) { replace(t, path+"/HEAD", nil) }, []string{"a SKIP", "b SKIP"}},
		{"HEAD is a FIFO", func(t *testing.T, path string) {
			_ = os.Remove(path + "/HEAD")
			_ = syscall.Mkfifo(path+"/HEAD", 0o600)
		}, []string{"a SKIP", "b SKIP"}},
		{"no config", func(t *testing.T, path string) { _ = os.Remove(path + "/config") }, []string{"a SKIP", "b SKIP"}},
		{"config is damaged", func(t *testing.T, path string) { replace(t, path+"/config", []byte("[core\x00")) }, []string{"a SKIP", "b SKIP"}},
		{"config is a link", func(t *testing.T, path string) {
			_ = os.Remove(path + "/config")
			_ = os.Symlink("/dev/zero", path+"/config")
		}, []string{"a SKIP", "b SKIP"}},
		{"no objects", func(t *testing.T, path string) { _ = os.RemoveAll(path + "/objects") }, []string{"a PROMOTE", "b PROMOTE"}},
		{"no refs", func(t *testing.T, path string) { _ = os.RemoveAll(path + "/refs") }, []string{"a SKIP", "b SKIP"}}, // they are packed
		{"a line of packed-refs", func(t *testing.T, path string) {
			data, _ := os.ReadFile(path + "/packed-refs")
			replace(t, path+"/packed-refs", bytes.Replace(data, []byte(" refs/cc-ci/sweep/a"), []byte("zrefs/cc-ci/sweep/a"), 1))
		}, []string{"a PROMOTE", "b SKIP"}},
		{"a name in packed-refs", func(t *testing.T, path string) {
			data, _ := os.ReadFile(path + "/packed-refs")
			replace(t, path+"/packed-refs", bytes.Replace(data, []byte(" refs/cc-ci/sweep/a"), []byte(" refs/cc-ci/sweep/z"), 1))
		}, []string{"a PROMOTE", "b SKIP"}},
		{"packed-refs is not sorted", func(t *testing.T, path string) {
			data, _ := os.ReadFile(path + "/packed-refs")
			lines := bytes.SplitAfter(data, []byte("\n"))
			replace(t, path+"/packed-refs", slices.Concat(lines[0], lines[2], lines[1]))
		}, []string{"a SKIP", "b SKIP"}},
		{"packed-refs is cut", func(t *testing.T, path string) {
			data, _ := os.ReadFile(path + "/packed-refs")
			replace(t, path+"/packed-refs", data[:len(data)-3])
		}, []string{"a SKIP", "b PROMOTE"}},
		{"packed-refs is zeros", func(t *testing.T, path string) { replace(t, path+"/packed-refs", make([]byte, 200)) }, []string{"a PROMOTE", "b PROMOTE"}},
		{"packed-refs is a directory", func(t *testing.T, path string) {
			_ = os.Remove(path + "/packed-refs")
			_ = os.MkdirAll(path+"/packed-refs/x", 0o700)
		}, []string{"a PROMOTE", "b PROMOTE"}},
		{"locks of a killed git", func(t *testing.T, path string) {
			for _, name := range []string{"/HEAD.lock", "/config.lock", "/packed-refs.lock", "/packed-refs.new", "/refs/cc-ci/key.lock", "/refs/cc-ci/sweep/a.lock", "/gc.pid"} {
				replace(t, path+name, nil)
			}
		}, []string{"a SKIP", "b SKIP"}},
	} {
		t.Run(d.name, func(t *testing.T) {
			b := newBench(t)
			b.recipe("a", "exit 0")
			b.recipe("b", "exit 0")
			b.want("first", "a PROMOTE", "b PROMOTE")
			d.do(t, b.State.Path(state.Memory, ""))
			b.want("damaged", d.want...)
			b.want("again", "a SKIP", "b SKIP")
			b.recipe("a", "exit 0; true")
			b.want("changed", "a PROMOTE", "b SKIP")
			repository(t, b.State, "pack-refs", "--all")
		})
	}
}
