package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/sweep"
)

func sweepHistoryCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var tests bool
	cmd := &cobra.Command{
		Use:   "history [flags] RECIPE",
		Short: "Show a recipe's last 30 runs, or how each of its tests went",
		Long: `history shows the last 30 runs of a recipe, the newest first: verdict, revision,
environment, duration, how many tests passed, and the invoker. CHANGED names the
inputs that differ from those of the run before.

With --tests, history shows each test: its outcomes from the oldest run to the
newest (. passed, F failed, s skipped, o other, - not run, blank: the run did
not have the test), its usual duration in the older (FIRST) and in the newer
runs (LAST), and whether the test is flaky: it passed and failed with the same
inputs.

Older runs are in the git repository (in RECIPE, unusual characters become %XX):
  git -C STATE/sweep.git log refs/cc-ci/sweep/RECIPE`,
		Example: `  cc-ci-run sweep history gitea
  cc-ci-run sweep history --tests gitea`,
		Args:              exactRecipe,
		ValidArgsFunction: p.completeRemembered(shared),
		RunE: func(_ *cobra.Command, args []string) error {
			r, _, err := p.memoryOf(shared)
			if err != nil {
				return err
			}
			defer r.Close()
			h, err := historyOf(r, args[0])
			if err != nil {
				return err
			}
			if tests {
				list := h.TestHistories()
				var rows [][]string
				for _, t := range list {
					rows = append(rows, testRow(t))
				}
				return p.show(out, struct {
					Schema int                 `json:"schema"`
					Recipe string              `json:"recipe"`
					Runs   []string            `json:"runs"`
					Tests  []sweep.TestHistory `json:"tests"`
				}{sweep.HistorySchema, args[0], h.IDs(), list}, "TEST|RUNS|FIRST|LAST|NOTE", rows)
			}
			var rows [][]string
			for i, past := range h.Runs {
				changed := ""
				if i+1 < len(h.Runs) {
					changed = past.Changed(h.Runs[i+1])
				}
				rows = append(rows, []string{
					string(past.Verdict), past.Started.Local().Format("01-02 15:04"), fmt.Sprintf("%.12s", past.Revision), fmt.Sprintf("%.8s", past.Fingerprint),
					past.Took.Round(100 * time.Millisecond).String(), countsOf(past), past.Invoker, changed,
				})
			}
			return p.show(out, struct {
				Recipe string `json:"recipe"`
				sweep.History
			}{args[0], h}, "VERDICT|STARTED|REVISION|ENV|TOOK|TESTS|BY|CHANGED", rows)
		},
	}
	addState(cmd, shared)
	cmd.Flags().BoolVar(&tests, "tests", false, "show the outcomes and durations of each test instead")
	out.addTo(cmd)
	return cmd
}

// exactRecipe is cobra.ExactArgs(1), in words.
func exactRecipe(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes one recipe's name, not %d", cmd.CommandPath(), len(args))
	}
	return nil
}

// countsOf is "4/5": 4 of 5 tests passed.
func countsOf(past sweep.Past) string {
	if past.Tests.Tests == 0 {
		return "none"
	}
	return fmt.Sprintf("%d/%d", past.Tests.Passed, past.Tests.Tests)
}

// testRow is a test's row: from the oldest run to the newest.
func testRow(t sweep.TestHistory) []string {
	var strip strings.Builder
	for _, o := range slices.Backward(t.Outcomes) {
		strip.WriteRune(map[string]rune{"passed": '.', "failed": 'F', "skipped": 's', "other": 'o', "not run": '-', "": ' '}[o])
	}
	var notes []string
	if t.Flaky {
		notes = append(notes, "flaky")
	}
	if t.Slower > 0 {
		notes = append(notes, fmt.Sprintf("%.1f times slower", t.Slower))
	}
	millis := func(n int64) string { return (time.Duration(n) * time.Millisecond).String() }
	return []string{t.Name, "|" + strip.String() + "|", millis(t.First), millis(t.Last), strings.Join(notes, ", ")}
}

// historyOf reads what is remembered of one recipe's runs.
func historyOf(r *memory.Repository, recipe string) (h sweep.History, err error) {
	list, err := sweep.Recall(r, recipe)
	if err != nil {
		return h, err
	}
	if len(list) == 0 {
		return h, exec.Status{Code: 1, Err: fmt.Errorf("no run of %q is remembered%s", recipe, suggestRecipe(r, recipe))}
	}
	if err = list[0].Err; err == nil {
		failed := sweep.Histories(r, list, func(_ *sweep.Remembered, runs sweep.History, fault error) { h, err = runs, fault })
		err = errors.Join(failed, err)
	}
	if err != nil {
		return h, fmt.Errorf("%s: %w", recipe, err)
	}
	return h, nil
}

// suggestRecipe is a hint at a recipe of nearly that name.
func suggestRecipe(r *memory.Repository, recipe string) string {
	list, _ := sweep.Recall(r)
	var names []string
	for _, known := range list {
		names = append(names, known.Recipe())
	}
	return env.Suggest(recipe, names)
}
