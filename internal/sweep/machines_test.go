package sweep

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/state"
)

// someRun is a run in the memory of TestMachines.
type someRun struct {
	recipe, machine     string
	age                 time.Duration
	print, runner, site string
}

func TestMachines(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is missing: apt-get install git")
	}
	const day = 24 * time.Hour
	for _, c := range []struct {
		name   string
		runs   []someRun
		only   string
		want   string // MACHINE VERDICT WHY, one a line
		passed int
	}{
		{"none", nil, "", "", 0},
		{"one environment", []someRun{{"a", "one", 2 * day, "f", "r", "s"}, {"b", "two", day, "f", "r", "s"}}, "", "two identical \none identical \n", 0},
		{
			"the newest run counts, of whichever recipe",
			[]someRun{{"a", "one", 3 * day, "old", "r", "s"}, {"a", "two", 2 * day, "f", "r", "s"}, {"b", "one", day, "f", "r", "s"}},
			"", "one identical \ntwo identical \n", 0,
		},
		{
			"another environment, and no run since",
			[]someRun{{"a", "one", 3 * day, "old", "r", "s"}, {"a", "two", 2 * day, "f", "r", "s"}},
			"", "two identical \none drift another environment; it has not run since the newest environment was first used: - jq\n", 0,
		},
		{
			"another environment, at the same time",
			[]someRun{{"a", "two", 3 * day, "f", "r", "s"}, {"a", "one", 2 * day, "old", "r", "s"}, {"b", "two", day, "f", "r", "s"}},
			"", "two identical \none drift another environment: - jq\n", 0,
		},
		{
			"another runner, other values",
			[]someRun{{"a", "one", 2 * day, "f", "q", "s"}, {"a", "two", day, "f", "r", "s"}, {"b", "three", 2 * day, "f", "r", "t"}},
			"", "two identical \none drift another runner\nthree drift other values of the site's variables\n", 0,
		},
		{
			"no run for long",
			[]someRun{{"a", "gone", 31 * day, "old", "r", "s"}, {"a", "one", 29 * day, "f", "r", "s"}, {"b", "two", day, "f", "r", "s"}},
			"", "two identical \none identical \ngone old no run for 30 days: not compared\n", 0,
		},
		{
			"one recipe",
			[]someRun{{"a", "one", 3 * day, "old", "r", "s"}, {"a", "two", 2 * day, "f", "r", "s"}, {"b", "one", day, "f", "r", "s"}},
			"a", "two identical \none drift another environment; it has not run since the newest environment was first used: - jq\n", 0,
		},
		{
			"a clock that is ahead",
			[]someRun{{"a", "one", day, "f", "r", "s"}, {"a", "two", -day, "old", "r", "s"}, {"b", "two", -day, "old", "r", "s"}, {"b", "two", 2 * day, "f", "r", "s"}},
			"", "one identical \ntwo identical \n", 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now()
			m := remember(t, git, now, c.runs)
			var only []string
			if c.only != "" {
				only = append(only, c.only)
			}
			list, passed, err := Machines(m, now, func(a, b string) []string { return []string{"- jq"} }, only...)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, m := range list {
				got += fmt.Sprintf("%s %s %s\n", m.Name, m.Verdict, m.Why)
			}
			if got != c.want || len(passed) != c.passed {
				t.Errorf("got\n%swant\n%spassed over %v", got, c.want, passed)
			}
		})
	}
}

// remember makes a memory with runs.
func remember(t *testing.T, git string, now time.Time, runs []someRun) *memory.Repository {
	t.Helper()
	dir := state.Dir(t.TempDir())
	m, err := memory.Create(dir, git, memory.Plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	histories := map[string]string{}
	for _, r := range runs {
		histories[r.recipe] += fmt.Sprintf(`,{"id":"x","machine":%q,"started":%q,"fingerprint":%q,"runner":%q,"site":%q}`,
			r.machine, now.Add(-r.age).Format(time.RFC3339Nano), r.print, r.runner, r.site)
	}
	for recipe, list := range histories {
		_, err := m.Commit(memory.Entry{Recipe: recipe, Author: "a", Email: "a", Time: now, Message: "a run", Files: map[string][]byte{
			"state.json": fmt.Appendf(nil, `{"schema":%d,"recipe":%q,"last":{"verdict":"PROMOTE"}}`, Schema, recipe),
			"runs.json":  fmt.Appendf(nil, `{"schema":%d,"runs":[%s]}`, HistorySchema, strings.TrimPrefix(list, ",")),
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}
