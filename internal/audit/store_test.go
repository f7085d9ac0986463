package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// Merged, a report says which recipe and which invoker needs what; a tool is
// unused if none of the runs used it.
func TestMerge(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	run := func(id, recipe, invoker string, r *Report) *Report {
		r.Run = Run{ID: id, Recipe: recipe, Invoker: invoker, Fingerprint: "f"}
		return r
	}
	old := p.report(p.looked("B/git-lfs", "D/files/git"), p.executed("B/git", "D/files/python3"), p.executed("D/elsewhere/x", "D/files/dash"))
	old.Missing[0].Fix = Fix{Package: "old"}
	latest := p.report(p.executed("B/git", "D/files/dash"), p.notFound("B/git-lfs", "D/files/dash"))
	latest.Missing[0].Fix = Fix{Package: "new"}
	latest.Unreadable = 2
	got := Merge(p.m, []*Report{
		run("1", "nextcloud", "systemd", old),
		run("2", "gitea", "drone", p.report(p.executed("B/git", "D/files/python3"), p.executed("B/jq", "D/files/git"))),
		run("3", "gitea", "drone", latest),
		run("4", "gitea", "manual", p.report(p.executed("D/elsewhere/x", "D/files/dash"))),
	})
	both := Where{Runs: 2, Recipes: []string{"gitea", "nextcloud"}, Invokers: []string{"drone", "systemd"}}
	want := &Total{
		Schema: Schema,
		Runs: []Count{
			{Recipe: "nextcloud", Invoker: "systemd", Fingerprint: "f", Runs: 1, Newest: "1"},
			{Recipe: "gitea", Invoker: "drone", Fingerprint: "f", Runs: 2, Newest: "3"},
			{Recipe: "gitea", Invoker: "manual", Fingerprint: "f", Runs: 1, Newest: "4"},
		},
		Used: []TotalUse{
			{Use{Name: "git", Tool: "git", Times: 3, By: map[string]int{"python3": 2, p.dir + "/sh": 1}, First: 1}, Where{3, both.Recipes, both.Invokers}},
			{Use{Name: "jq", Tool: "jq", Times: 1, By: map[string]int{"git": 1}, First: 2}, Where{1, []string{"gitea"}, []string{"drone"}}},
		},
		Missing: []TotalMiss{
			{Miss{Name: "git-lfs", Times: 2, By: map[string]int{"git": 1, p.dir + "/sh": 1}, First: 1, Looks: 1, Fix: Fix{Package: "new"}}, both},
		},
		Undeclared: []TotalUse{
			{Use{Name: p.dir + "/elsewhere/x", Times: 2, By: map[string]int{p.dir + "/sh": 2}, First: 1}, Where{2, both.Recipes, []string{"manual", "systemd"}}},
		},
		Unused:     []Unused{{"ripgrep", "tests search"}},
		Unreadable: 2,
	}
	if !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("%s\nwant %s", g, w)
	}
	// The reports are as they were.
	if old.Used[0].Times != 1 || len(old.Used[0].By) != 1 {
		t.Errorf("a report was changed: %+v", old.Used[0])
	}
}

// Of nothing, lists are empty, not null: what reads the JSON need not ask.
func TestEmptyLists(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	for _, v := range []any{p.report(), Merge(p.m, nil)} {
		if data, err := json.Marshal(v); err != nil || strings.Contains(string(data), "null") {
			t.Errorf("%s, %v", data, err)
		}
	}
}

// What was written is read back, in any recipe's reports, by number, oldest
// first.
func TestNewest(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	where := state.Dir(t.TempDir())
	if reports, skipped, err := Newest(where, "", 0); len(reports)+len(skipped) > 0 || err != nil {
		t.Errorf("of nothing: %v, %v, %v", reports, skipped, err)
	}
	for i, recipe := range []string{"gitea", "nextcloud", "gitea", "gitea"} {
		r := p.report(p.executed("B/git", ""), p.notFound("B/hg", "\xff"))
		r.Run.ID, r.Run.Recipe = strconv.Itoa(i), recipe
		if err := r.Write(where); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		recipe string
		last   int
		want   string
	}{{"", 0, "0 1 2 3"}, {"", 2, "2 3"}, {"gitea", 0, "0 2 3"}, {"gitea", 2, "2 3"}, {"nextcloud", 9, "1"}, {"none", 0, ""}} {
		reports, skipped, err := Newest(where, row.recipe, row.last)
		var ids []string
		for _, r := range reports {
			ids = append(ids, r.Run.ID)
		}
		if got := strings.Join(ids, " "); got != row.want || len(skipped) > 0 || err != nil {
			t.Errorf("%+v: %s, %v, %v", row, got, skipped, err)
		}
	}
	// What is of another recipe by its name is not opened.
	if err := os.Symlink("/dev/zero", where.Path(state.Audits, "20260102T030405.000000000Z-1-nextcloud-drone.json")); err != nil {
		t.Fatal(err)
	}
	if reports, skipped, err := Newest(where, "gitea", 0); len(reports) != 3 || len(skipped) > 0 || err != nil {
		t.Errorf("%d reports, %v, %v", len(reports), skipped, err)
	}
	if err := os.WriteFile(filepath.Join(string(where), "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Newest(state.Dir(filepath.Join(string(where), "file")), "", 0); err == nil {
		t.Error("a state directory that is a file has no reports, and nobody says so")
	}
}

// Whatever a member of the group puts beside the reports, in whatever number: the
// owner's are read.
func TestCrowd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file to another user: run the test as root")
	}
	p := newPlace(t, toolset.BackendHost)
	where := state.Dir(t.TempDir())
	r := p.report()
	r.Run = Run{ID: "20260102T030405.000000000Z-1-gitea-drone", Recipe: "gitea", Invoker: "drone"}
	file := where.Path(state.Manifests, "x")
	if err := errors.Join(r.Write(where), where.Make(state.Manifests), os.WriteFile(file, []byte(`{"schema": 1, "run": {"recipe": "gitea", "invoker": "drone"}}`), 0o644), os.Chown(file, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	for n := range maxOpened / 3 {
		for _, name := range []string{"29990102T030405.%09dZ-1-gitea-drone", "29990102T030405.%09dZ-1", "z%d", "20260102T030406.%09dZ-1-gitea-drone", "20260102T030406.%09dZ-1-drone", "20260102T030406.%09dZ-1"} {
			if err := os.Link(file, where.Path(state.Audits, fmt.Sprintf(name, n)+".json")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, recipe := range []string{"", "gitea"} {
		reports, skipped, err := Newest(where, recipe, 0)
		if err != nil || len(reports) != 1 || reports[0].Run != r.Run || len(skipped) != maxFaults+1 {
			t.Errorf("recipe %q: %d reports, %d skipped, %v", recipe, len(reports), len(skipped), err)
		}
	}
}

// A file that is not a report is named, and does not hide the others.
func TestDamaged(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	where := state.Dir(t.TempDir())
	r := p.report()
	r.Run.ID = "5"
	if err := r.Write(where); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(string(where), "audits")
	whole, err := os.ReadFile(filepath.Join(dir, "5.json"))
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][2]string{
		"0.json": {"", "is damaged (unexpected end"},
		"1.json": {string(whole[:len(whole)/2]), "is damaged (unexpected end"},
		"2.json": {`{"schema": 2}`, "was written by a newer cc-ci-run (schema 2, this one knows 1)"},
		"3.json": {`{}`, "is not an audit's report (it has no schema)"},
		"4.json": {`null`, "is not an audit's report (it has no schema)"},
		"6.json": {`[]`, "is damaged"},
		"7.json": {"\x00\xff", "is damaged"},
	}
	for name, b := range bad {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b[0]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "8.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	bad["8.json"] = [2]string{"", "is a directory, not a file: remove it"}
	for _, name := range []string{".9.json123", "notes", ".9.json"} { // none of ours, or not yet whole
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reports, skipped, err := Newest(where, "", 1)
	if err != nil || len(reports) != 1 || reports[0].Run.ID != "5" || len(skipped) != 3 { // what is newer than the one
		t.Errorf("%v, %v, %v", reports, skipped, err)
	}
	reports, skipped, err = Newest(where, "", 0)
	if err != nil || len(reports) != 1 || len(skipped) != len(bad) {
		t.Fatalf("%v, %v, %v", reports, skipped, err)
	}
	for _, e := range skipped {
		found := false
		for name, b := range bad {
			found = found || strings.Contains(e.Error(), filepath.Join(dir, name)) && strings.Contains(e.Error(), b[1])
		}
		if !found {
			t.Errorf("%v", e)
		}
	}
}

// Many write and one reads: whatever has a report's name is whole.
func TestReportIsAtomic(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	where := state.Dir(t.TempDir())
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for n := range 25 {
				r := p.report(p.executed("B/git", ""))
				r.Run.ID = strconv.Itoa(w*100 + n/5) // each is written over some times
				if err := r.Write(where); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for last := false; ; {
		reports, skipped, err := Newest(where, "", 0)
		if len(skipped) > 0 || err != nil {
			t.Errorf("%v, %v", skipped, err)
		}
		if last {
			if len(reports) != 40 {
				t.Errorf("%d reports, want 40", len(reports))
			}
			if left, _ := filepath.Glob(filepath.Join(string(where), "audits", ".*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
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

// A directory that cannot be written to is an error that names it.
func TestWriteFails(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.report().Write(state.Dir(file)); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
}
