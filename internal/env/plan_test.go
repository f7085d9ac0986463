package env

import (
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func testPlan() *Plan {
	return &Plan{
		Fingerprint: "f", Manifest: "/m.json", Backend: "host", State: "/s", Bin: "/b", Interpreter: "/b/python3",
		Set: []string{"A=1", "LANG=C.UTF-8"}, Default: []string{"TERM=dumb"}, Pass: []string{"HOME", "X_*"}, Site: []string{"GITEA_URL"},
		Only: []Only{{"drone", []string{"DRONE", "DRONE_*"}}}, Require: []string{"HOME"},
		Process: Process{Umask: "0022", NoFile: 1024, Core: 7, NoNewPrivs: true},
		Seal:    true, SealExecute: []string{"/tmp"},
		HostPaths: []string{"/bin/sh"}, Absent: []Absent{{"abra", []string{"abra"}}},
		Files: []File{{"/b/git", 1, 2, 3}}, Dirs: []string{"/b"},
		Lists: Lists{Commands: []string{"git", "git-lfs"}, Closure: []string{"/s/git"}},
	}
}

// A compiled plan is read back as it was; one that is not whole is refused.
func TestPlan(t *testing.T) {
	whole := string(testPlan().Encode())
	data := whole[:PlanSize([]byte(whole))]
	p, err := DecodePlan(data)
	if err == nil {
		p.Lists, err = DecodeLists(whole)
	}
	if err != nil || !reflect.DeepEqual(p, testPlan()) {
		t.Errorf("%+v, %v", p, err)
	}
	for n := range len(whole) {
		if _, err := DecodeLists(whole[:n]); err == nil {
			t.Fatalf("truncated at byte %d: no error", n)
		}
	}
	for _, bad := range []string{strings.Replace(whole, "git-lfs", "git-lfx", 1), strings.Replace(whole, "A=1", "A=2", 1), whole + "x"} {
		if _, err := DecodeLists(bad); err == nil {
			t.Errorf("%.40q: no error", bad)
		}
	}
	for n := range len(data) {
		if _, err := DecodePlan(data[:n]); err == nil {
			t.Fatalf("truncated at byte %d: no error", n)
		}
	}
	for _, bad := range []string{data + "x", strings.Replace(data, "plan 5", "plan 4", 1), strings.Replace(data, "A=1", "A=2", 1), "\x00"} {
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
		whole := p.Encode()
		if _, err := DecodePlan(string(whole[:PlanSize(whole)])); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
}

func FuzzDecodePlan(f *testing.F) {
	f.Add(string(testPlan().Encode()))
	f.Fuzz(func(t *testing.T, data string) {
		_, _ = DecodeLists(data)
		size := PlanSize([]byte(data))
		if size > len(data) {
			return
		}
		p, err := DecodePlan(data[:size])
		if err != nil {
			return
		}
		// Only the spelling of a number may differ.
		whole := p.Encode()
		if again, err := DecodePlan(string(whole[:PlanSize(whole)])); err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%q is read as %+v", data, p)
		}
	})
}

// Changed is what a run looks at: any change of a file or directory.
func TestChanged(t *testing.T) {
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
	if faults := describe().Changed(); faults != nil {
		t.Error("it did not change: ", faults)
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
		if change(p); p.Changed() == nil {
			t.Errorf("a change of %s went unnoticed", what)
		}
	}
}

func TestMatch(t *testing.T) {
	for name, want := range map[string]string{"HOME": "HOME", "X_1": "X_*", "Y": "[Y]", "Z": "?", "": "", "ab": `\ab`, "other": ""} {
		if got := Match([]string{"HOME", "X_*", "[Y]", "?", `\ab`}, name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
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

func TestDetectInvoker(t *testing.T) {
	unit := []string{"INVOCATION_ID=i"}
	for _, row := range []struct {
		name     string
		caller   []string
		terminal bool
		want     Invoker
	}{
		{"a shell", []string{"TERM=xterm"}, true, Invoker{Name: "manual"}},
		{"nothing at all", nil, false, Invoker{Name: "manual"}},
		{"a unit, logging to the journal", append(unit, "JOURNAL_STREAM=8:1"), false, Invoker{Name: "systemd", ID: "i"}},
		{"a unit, logging to a file", append(unit, "SYSTEMD_EXEC_PID=7"), false, Invoker{Name: "systemd", ID: "i"}},
		{"a terminal of a desktop session", append(unit, "JOURNAL_STREAM=8:1", "SYSTEMD_EXEC_PID=7"), true, Invoker{Name: "manual"}},
		{"an old systemd's INVOCATION_ID alone", unit, false, Invoker{Name: "manual"}},
		{"Drone, whose runner is a unit", append(unit, "JOURNAL_STREAM=8:1", "DRONE=true", "DRONE_REPO=o/r", "DRONE_BUILD_NUMBER=7", "DRONE_STAGE_NAME=ci", "DRONE_STEP_NAME=gitea"), false, Invoker{Name: "drone", ID: "o/r/7/ci/gitea"}},
		{"DRONE that is not true", []string{"DRONE=false"}, false, Invoker{Name: "manual"}},
	} {
		if got := DetectInvoker(row.caller, row.terminal); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}
