package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"testing"
)

// A plain run is done by the small program alone; the full one does the same
// when it is called itself. The two must not differ in what a run is given,
// nor in its record.
func TestBothProgramsAgree(t *testing.T) {
	small := binary(t)
	home := home(t)
	env := []string{
		"HOME=" + home, "PATH=/usr/bin:.", "DRONE=true", "DRONE_REPO=a/b", "DRONE_BUILD_NUMBER=1", "LD_PRELOAD=/x.so", "PYTHONPATH=" + home, "GITEA_URL=u",
		"HOME=/second", "NO_COLOR=1", "TERM=xterm", "=x", "A=", "a b=c", "\xff=1", "\xfe\xff", "CC_CI_RUN_INVOKER=x", "LANG=tr_TR", "http_proxy=p",
	}
	before := sh("umask 077; ulimit -n 100; trap '' PIPE USR1; exec 5</etc/passwd")
	state := t.TempDir()
	script := filepath.Join(t.TempDir(), "p.py")
	report := filepath.Join(t.TempDir(), "seen.json")
	write(t, script, probe, 0o644)
	seenBy, records := map[string]seen{}, map[string]map[string]any{}
	// The first run of all keeps the manifest, which the full program does.
	for _, program := range []string{small + "-full", small} {
		argv := slices.Concat(before, []string{program, "--state", state, script, report, "a", "\xff"})
		if status, output := (start{argv: argv, env: env, dir: home}).run(t); status != 0 {
			t.Fatalf("%s: exit status %d: %s", program, status, output)
		}
		var s seen
		data, err := os.ReadFile(report)
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Nodes = nil // each has a file of its own for stdout
		seenBy[program] = s
		files, _ := filepath.Glob(filepath.Join(state, "runs", "*.json"))
		if len(files) != len(seenBy) {
			t.Fatalf("%d records after %d runs", len(files), len(seenBy))
		}
		var record map[string]any
		data, err = os.ReadFile(files[len(files)-1])
		if err == nil {
			err = json.Unmarshal(data, &record)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, own := range []string{"id", "time", "pid"} {
			delete(record, own)
		}
		records[program] = record
	}
	if a, b := seenBy[small], seenBy[small+"-full"]; !reflect.DeepEqual(a, b) {
		t.Errorf("the small one: %+v\nthe full one: %+v", a, b)
	}
	if a, b := records[small], records[small+"-full"]; !reflect.DeepEqual(a, b) {
		t.Errorf("the small one's record: %v\nthe full one's: %v", a, b)
	}
}

// What is unusual is handed on, and only that: a plain run starts no other
// program than Python.
func TestPlainRunIsDirect(t *testing.T) {
	script := filepath.Join(t.TempDir(), "p.py")
	write(t, script, "pass", 0o644)
	state := t.TempDir()
	trace := filepath.Join(t.TempDir(), "trace")
	programs := func(args ...string) []string {
		t.Helper()
		argv := append([]string{"/usr/bin/strace", "-f", "-qq", "-e", "trace=execve", "-o", trace, binary(t)}, args...)
		if status, output := (start{argv: argv, env: []string{"HOME=/"}}).run(t); status != 0 {
			t.Fatalf("exit status %d: %s", status, output)
		}
		data, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, m := range regexp.MustCompile(`execve\("([^"]*)"`).FindAllStringSubmatch(string(data), -1) {
			list = append(list, filepath.Base(m[1]))
		}
		return list
	}
	if got, want := programs("--state", state, script), []string{"cc-ci-run", "cc-ci-run-full", "python3"}; !slices.Equal(got, want) {
		t.Errorf("the first run, which keeps the manifest: %q, want %q", got, want)
	}
	for _, args := range [][]string{{"--state", state, script}, {"--no-record", script}} {
		if got, want := programs(args...), []string{"cc-ci-run", "python3"}; !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
}
