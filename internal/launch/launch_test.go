package launch

import (
	"bytes"
	"encoding/json"
	"os"
	osexec "os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/internal/exec"
)

func testPlan() *Plan {
	return &Plan{
		Fingerprint: "f", Manifest: "/m.json", Backend: "host", State: "/s", Bin: "/b", Interpreter: "/b/python3",
		Set: []string{"A=1", "LANG=C.UTF-8"}, Default: []string{"TERM=dumb"}, Pass: []string{"HOME", "X_*"}, Site: []string{"GITEA_URL"},
		Only: []Only{{"drone", []string{"DRONE", "DRONE_*"}}}, Require: []string{"HOME"},
		Process:   exec.Process{Umask: "0022", NoFile: 1024, Core: 7, NoNewPrivs: true},
		Seal:      true,
		HostPaths: []string{"/bin/sh"}, Absent: []string{"abra"},
		Files: []File{{"/b/git", 1, 2, 3}}, Dirs: []string{"/b"},
	}
}

// A compiled plan is read back as it was; one that is not whole is refused.
func TestPlan(t *testing.T) {
	data := string(testPlan().Encode())
	p, err := DecodePlan(data)
	if err != nil || !reflect.DeepEqual(p, testPlan()) {
		t.Errorf("%+v, %v", p, err)
	}
	for n := range len(data) {
		if _, err := DecodePlan(data[:n]); err == nil {
			t.Fatalf("truncated at byte %d: no error", n)
		}
	}
	for _, bad := range []string{data + "x", strings.Replace(data, "plan 3", "plan 2", 1), strings.Replace(data, "A=1", "A=2", 1), "\x00"} {
		if _, err := DecodePlan(bad); err == nil {
			t.Errorf("%.40q: no error", bad)
		}
	}
	// With a checksum that is right, too.
	for _, change := range []func(*Plan){
		func(p *Plan) { p.Default = []string{"TERM"} },
		func(p *Plan) { p.Set = []string{"=x"} },
		func(p *Plan) { p.Process.Umask = "x" },
		func(p *Plan) { p.Bin = "/b\x00/c" },
	} {
		p := testPlan()
		change(p)
		if _, err := DecodePlan(string(p.Encode())); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
}

func FuzzDecodePlan(f *testing.F) {
	f.Add(string(testPlan().Encode()))
	f.Fuzz(func(t *testing.T, data string) {
		if p, err := DecodePlan(data); err == nil && string(p.Encode()) != data {
			// Only the spelling of a number may differ.
			if again, err := DecodePlan(string(p.Encode())); err != nil || !reflect.DeepEqual(p, again) {
				t.Errorf("%q is read as %+v", data, p)
			}
		}
	})
}

// Intact is what a run looks at: any change of a file or directory.
func TestIntact(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "git")
	describe := func() *Plan {
		if err := os.WriteFile(file, []byte("x"), 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return &Plan{Files: []File{{Path: file, Size: 1, MTime: info.ModTime().UnixNano()}}}
	}
	if !describe().Intact() {
		t.Error("it did not change")
	}
	for what, change := range map[string]func(*Plan){
		"size":       func(*Plan) { _ = os.WriteFile(file, []byte("xy"), 0o755) },
		"mtime":      func(p *Plan) { p.Files[0].MTime++ },
		"inode":      func(p *Plan) { p.Files[0].Inode = 1 },
		"permission": func(*Plan) { _ = os.Chmod(file, 0o644) },
		"removal":    func(*Plan) { _ = os.Remove(file) },
		"directory":  func(p *Plan) { p.Dirs = []string{dir} },
	} {
		_ = os.Remove(file)
		p := describe()
		if change(p); p.Intact() {
			t.Errorf("a change of %s went unnoticed", what)
		}
	}
}

// What is written by hand is what encoding/json would write.
func TestAppendJSON(t *testing.T) {
	caller := []string{"HOME=/h", "DRONE=true", "DRONE_REPO=a\"\\\n\x01é<>&", "\xff=x", "PATH=/usr/bin:\xfe"}
	e, _ := testPlan().Environment(caller, "drone")
	for _, args := range [][]string{{}, {"a", "\xff", "\u2028", "\t", "\x7f", ""}} {
		r := NewRecord(testPlan(), e, caller, DetectInvoker(caller, false), "script", "./x.py", args, true)
		r.Sealed = "none: a reason"
		var got, want map[string]any
		if err := json.Unmarshal(r.AppendJSON(nil), &got); err != nil {
			t.Fatalf("%v in %s", err, r.AppendJSON(nil))
		}
		data, err := json.Marshal(asMaps(r))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nwant\n%s", r.AppendJSON(nil), data)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, r.AppendJSON(nil), "", " "); err != nil || indented.String() != string(r.AppendJSON(nil)) {
			t.Errorf("%v, or it is indented otherwise:\n%s", err, r.AppendJSON(nil))
		}
	}
}

// asMaps is a record for encoding/json, to which a slice of pairs is no object.
func asMaps(r *Record) any {
	object := func(pairs exec.Pairs) map[string]string {
		m := map[string]string{}
		for _, p := range pairs {
			m[p.Name] = p.Value
		}
		return m
	}
	type process struct {
		exec.State
		Limits map[string]string `json:"limits"`
	}
	return struct {
		*Record
		HostPaths map[string]string `json:"host_paths"`
		Process   process           `json:"process"`
	}{r, object(r.HostPaths), process{r.Process, object(r.Process.Limits)}}
}

func TestParseScript(t *testing.T) {
	for line, want := range map[string]*Script{
		"x.py":                     {File: "x.py", Args: []string{}},
		"./x -v --pty":             {File: "./x", Args: []string{"-v", "--pty"}},
		"--pty --state s x.py a":   {Options{Pty: true, State: "s"}, "x.py", []string{"a"}},
		"--no-record --state=s /x": {Options{NoRecord: true, State: "s"}, "/x", []string{}},
		"--seal x.py":              {Options{Seal: SealRequired}, "x.py", []string{}},
		"--seal=best-effort x.py":  {Options{Seal: SealBestEffort}, "x.py", []string{}},
		"--seal=loosely x.py":      nil, "--seal= x.py": nil,
		"-- -x.py a": {File: "-x.py", Args: []string{"a"}},
		"exec true":  nil, "--help x.py": nil, "-v": nil, "": nil, "--state": nil, "-- check": nil,
	} {
		got, ok := ParseScript(strings.Fields(line))
		if ok != (want != nil) || ok && !reflect.DeepEqual(got, *want) {
			t.Errorf("%q: %+v, %t, want %+v", line, got, ok, want)
		}
	}
	if argv := (Script{File: "-x.py", Args: []string{"a"}}).Argv("/p"); !slices.Equal(argv, []string{"/p", "./-x.py", "a"}) {
		t.Errorf("%q", argv)
	}
}

func TestMatch(t *testing.T) {
	for name, want := range map[string]string{"HOME": "HOME", "X_1": "X_*", "Y": "[Y]", "Z": "?", "": "", "ab": `\ab`, "other": ""} {
		if got := Match([]string{"HOME", "X_*", "[Y]", "?", `\ab`}, name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// What the small program links, each run's start pays for: of packages that
// are large to have none.
func TestLinksLittle(t *testing.T) {
	out, err := osexec.Command("go", "list", "-deps", "cc-ci-run/cmd/cc-ci-run").Output()
	if err != nil {
		t.Skip("no go command: ", err)
	}
	for _, name := range []string{"fmt", "encoding/json", "regexp", "net", "github.com/spf13/cobra"} {
		if slices.Contains(strings.Fields(string(out)), name) {
			t.Errorf("it links %s", name)
		}
	}
}

// What is quick about matches must not change what it says.
func FuzzMatches(f *testing.F) {
	f.Add("PYTHON*", "PYTHONPATH")
	f.Add("A*", "A/B")
	f.Add("[A", "A")
	f.Add(`\*`, "*")
	f.Add("é*", "éa")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		want, err := path.Match(pattern, name)
		if got := matches(pattern, name); err == nil && got != want {
			t.Errorf("%q, %q: %t, want %t", pattern, name, got, want)
		}
	})
}

// A sealed run is the full program's, by flag or by the toolset.
func TestTryHandsSealedRunsOn(t *testing.T) {
	dir := t.TempDir()
	script, file := filepath.Join(dir, "x.py"), filepath.Join(dir, "plan")
	if err := os.WriteFile(script, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--no-record", script}, {"--seal", "--no-record", script}} {
		p := testPlan()
		p.Files, p.Dirs, p.Absent, p.Seal = nil, nil, nil, args[0] != "--seal"
		if err := os.WriteFile(file, p.Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
		// Else it would try to become /b/python3, which is an error.
		if err := Try(args, []string{"HOME=/"}, file, os.Stderr); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}
