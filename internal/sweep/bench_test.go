package sweep

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/record"
)

const manyRecipes = 10_000

// remembered fills a bench's memory: many recipes with some runs each, all promoted.
func remembered(b *testing.B, runs int) (*bench, []string) {
	b.Helper()
	bench := newBenchIn(b, fastDir(b))
	bench.Jobs = 2
	m, err := memory.Create(bench.State, git, memory.Plain)
	if err != nil {
		b.Fatal(err)
	}
	m.Close()
	now, err := bench.surroundings()
	if err != nil {
		b.Fatal(err)
	}
	now.Site = map[string]string{}
	cmd := exec.Command(git, "--git-dir="+bench.State.Path("sweep.git", ""), "fast-import", "--quiet")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(in, 1<<20)
	var names []string
	start := time.Now().UTC().Add(-time.Duration(runs) * 24 * time.Hour)
	tests := []record.Test{{Name: "test_it.py::test_a", Status: "passed", Duration: 1200}, {Name: "test_it.py::test_b", Status: "passed", Duration: 300}}
	for n := range manyRecipes {
		name := fmt.Sprintf("r%05d", n)
		names = append(names, name)
		bench.recipe(name, "exit 0")
		if now.Identity, err = identify(filepath.Join(bench.Recipes, name), name); err != nil {
			b.Fatal(err)
		}
		var history History
		known := State{Schema: Schema, Recipe: name}
		for i := range runs {
			r := Result{Recipe: name, Verdict: Promote, Why: "2 passed (never promoted)", Revision: now.Revision, Started: start.Add(time.Duration(i)*24*time.Hour + time.Duration(n)*time.Second), Duration: 90 * time.Second}
			p := past(r, now, "systemd", "ci-1")
			history = history.with(p, tests)
			known = known.after(r, &now, Policy{Invoker: "systemd"})
			known.Run = &p
			fmt.Fprintf(w, "commit refs/cc-ci/sweep/%s\ncommitter systemd <systemd@ci-1> %d +0000\ndata 7\nPROMOTE\n", name, r.Started.Unix())
			files := map[string]string{stateFile: text(known), outputFile: "output of " + name + "\n"}
			if i == runs-1 { // nobody reads that of an older commit
				files[historyFile] = text(history)
			}
			for file, content := range files {
				fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", file, len(content), content)
			}
		}
	}
	// As after a sweep's "gc": the newest objects are whole, and older ones deltas.
	repo := "--git-dir=" + bench.State.Path("sweep.git", "")
	if err := errorsOf(w.Flush(), in.Close(), cmd.Wait(), exec.Command(git, repo, "pack-refs", "--all").Run(), exec.Command(git, repo, "repack", "-q", "-a", "-d", "-f").Run()); err != nil {
		b.Fatal(err)
	}
	return bench, names
}

// BenchmarkSkip is what unchanged recipes cost: 10,000 in each iteration.
func BenchmarkSkip(b *testing.B) {
	bench, _ := remembered(b, 1)
	for b.Loop() {
		results, err := Run(context.Background(), bench.Options, func(Event) {})
		if err != nil || len(results) != manyRecipes || results[manyRecipes-1].Verdict != Skip {
			b.Fatal(err)
		}
	}
}

// BenchmarkHash is the part of BenchmarkSkip that reads the recipes' folders.
func BenchmarkHash(b *testing.B) {
	bench, names := remembered(b, 1)
	s := &sweep{Options: bench.Options}
	for b.Loop() {
		each(s.Jobs, len(names), func(i int) {
			if _, err := identify(filepath.Join(bench.Recipes, names[i]), names[i]); err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkStatus is what "sweep status" reads of 10,000 recipes with 30 runs each.
func BenchmarkStatus(b *testing.B) {
	bench, _ := remembered(b, maxHistory)
	for b.Loop() {
		m, err := memory.Open(bench.State, git, memory.Plain)
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close()
		list, err := Recall(m)
		if err != nil {
			b.Fatal(err)
		}
		if s := StatusOf(list, nil, nil, nil); s.Totals[Passing] != manyRecipes {
			b.Fatalf("%v", s.Totals)
		}
	}
}

// BenchmarkVerdict is what it costs to remember one run, on the disk of the temporary
// directory: 30 runs are there before, with a result of 100 tests and 64 KiB of output.
func BenchmarkVerdict(b *testing.B) {
	bench := newBench(b)
	s, err := openStore(context.Background(), Options{State: bench.State, Git: git}, memory.Plain)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	var tests []record.Test
	for n := range 100 {
		tests = append(tests, record.Test{Name: fmt.Sprintf("test_it.py::test_%d", n), Status: "passed", Duration: int64(n)})
	}
	output := []byte(strings.Repeat("a line of output, as tests write it, with a number\n", maxKeptOutput/51))
	n := 0
	one := func() {
		n++
		r := Result{Recipe: "a", Verdict: Promote, Started: time.Now().UTC(), Revision: "x"}
		now := Inputs{Identity: Identity{Recipe: "a", Revision: fmt.Sprint(n)}}
		known, _, _ := s.read("a")
		p := past(r, now, "systemd", "ci-1")
		c := commit{next: known.after(r, &now, Policy{Invoker: "systemd"}), past: &p, tests: tests, output: append(output, fmt.Sprint(n)...), result: []byte(text(tests) + fmt.Sprint(n)), message: "PROMOTE", time: time.Now()}
		if err := s.write("a", c); err != nil {
			b.Fatal(err)
		}
	}
	for range maxHistory {
		one()
	}
	for b.Loop() {
		one()
	}
}

// BenchmarkSync is what the disk needs for BenchmarkVerdict at least: its objects, the ref
// and the ref's directory, each synced.
func BenchmarkSync(b *testing.B) {
	dir := b.TempDir()
	d, err := os.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	content := make([]byte, 4096)
	for b.Loop() {
		for n := range 7 {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(n, ".new")))
			if err == nil {
				_, err = f.Write(content)
			}
			if err := errorsOf(err, f.Sync(), f.Close(), os.Rename(f.Name(), filepath.Join(dir, fmt.Sprint(n)))); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}
