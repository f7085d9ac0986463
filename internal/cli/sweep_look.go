package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/systemd"
	"cc-ci-run/internal/toolset"
)

// memoryOf opens the memory of a state directory's sweeps.
func (p Process) memoryOf(shared *run.Options) (*memory.Repository, state.Dir, error) {
	m, err := toolset.ReadManifest(p.Manifest)
	if err != nil {
		return nil, "", err
	}
	dir := shared.StateDir(p.Environ, m.State)
	r, err := memory.Open(dir, m.Git(), memory.Plain)
	if errors.Is(err, memory.ErrNone) {
		err = fmt.Errorf("%s: no sweep has remembered anything yet: start a sweep (cc-ci-run sweep, or systemctl start nightly-sweep)", dir)
	}
	return r, dir, err
}

// morning gives the status of the recipes after the last sweep.
func morning(dir state.Dir, r *memory.Repository) (sweep.Status, error) {
	list, err := sweep.Recall(r)
	if err != nil {
		return sweep.Status{}, err
	}
	return statusOf(dir, list)
}

// statusOf sums up what is remembered.
func statusOf(dir state.Dir, list []*sweep.Remembered) (sweep.Status, error) {
	last, err := sweep.Last(dir)
	if err != nil {
		return sweep.Status{}, err
	}
	var folders, changes []string
	if last != nil {
		// A directory that is gone, or that may not be read, names no recipe.
		folders, _ = sweep.Folders(last.Recipes)
		changes = environmentChanges(dir, last)
	}
	return sweep.StatusOf(list, last, folders, changes), nil
}

// environmentChanges says how the last sweep's environment differs from that of the
// sweep before it.
func environmentChanges(dir state.Dir, last *sweep.Summary) (list []string) {
	if last.Before == "" {
		return nil
	}
	before, err := parity.Kept(dir, last.Before, nil)
	now, err2 := parity.Kept(dir, last.Fingerprint, nil)
	if err != nil || err2 != nil { // a manifest has expired
		return []string{fmt.Sprintf("environment %.12s → %.12s", last.Before, last.Fingerprint)}
	}
	for _, c := range toolset.Difference(before, now) {
		list = append(list, c.String())
	}
	return list
}

func sweepStatusCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var all bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show which recipes fail, and since when",
		Long: `status shows how the recipes stand after the last sweep: newly failing, still
failing, fixed, never run. Passing recipes are only counted, unless --all is
given. SINCE is the day on which the recipe began to fail (or to pass), and
NIGHTS the number of its runs since then.

status changes nothing, and can be used while a sweep runs. The exit status is 0
even if recipes fail; a program finds the failing recipes in --output json.`,
		Example: `  cc-ci-run sweep status
  cc-ci-run sweep status --all
  cc-ci-run sweep status --output json | jq -r .headline`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, dir, err := p.memoryOf(shared)
			if err != nil {
				return err
			}
			defer r.Close()
			status, err := morning(dir, r)
			if err != nil {
				return err
			}
			if out == "json" {
				return p.show(out, status, "", nil)
			}
			fmt.Fprintln(p.Stdout, visible(status.Headline))
			if rows := statusRows(status, all); len(rows) > 0 {
				fmt.Fprintln(p.Stdout)
				if err := p.show(out, nil, "STATUS|RECIPE|SINCE|NIGHTS|WHY", rows); err != nil {
					return err
				}
				fmt.Fprintln(p.Stdout)
			}
			for _, line := range statusFooter(status, nextSweep(cmd.Context()), time.Now()) {
				fmt.Fprintln(p.Stdout, visible(line))
			}
			return nil
		},
	}
	addState(cmd, shared)
	cmd.Flags().BoolVar(&all, "all", false, "also show passing recipes, and recipes that are gone")
	out.addTo(cmd)
	return cmd
}

func statusRows(status sweep.Status, all bool) (rows [][]string) {
	for _, r := range status.Recipes {
		if !all && (r.Group == sweep.Passing || r.Group == sweep.Removed) {
			continue
		}
		since, nights := "", ""
		if !r.Since.IsZero() {
			since = r.Since.Local().Format(time.DateOnly)
		}
		if r.Nights > 0 {
			nights = strconv.Itoa(r.Nights)
		}
		rows = append(rows, []string{string(r.Group), r.Recipe, since, nights, r.Why})
	}
	return rows
}

// statusFooter has the totals, the last sweep and the next one.
func statusFooter(status sweep.Status, next, now time.Time) (lines []string) {
	var totals []string
	for _, g := range sweep.Groups {
		if n := status.Totals[g]; n > 0 {
			totals = append(totals, fmt.Sprintf("%d %s", n, g))
		}
	}
	recipes := "recipes"
	if len(status.Recipes) == 1 {
		recipes = "recipe"
	}
	lines = append(lines, fmt.Sprintf("%d %s: %s", len(status.Recipes), recipes, strings.Join(totals, ", ")))
	if s := status.Sweep; s != nil {
		text := fmt.Sprintf("last sweep: %s, by %s", s.Started.Local().Format("2006-01-02 15:04"), s.Invoker)
		switch {
		case s.Ended.IsZero():
			text += ", under way, or killed"
		case s.Failure != "":
			text += ": " + s.Failure
		default:
			text += fmt.Sprintf(", took %s", s.Ended.Sub(s.Started).Round(time.Second))
		}
		lines = append(lines, text)
	}
	if next.After(now) {
		lines = append(lines, fmt.Sprintf("next sweep: %s, by nightly-sweep.timer", next.Local().Format("2006-01-02 15:04")))
	}
	return lines
}

// nextSweep is when the timer starts the next sweep; zero where there is none.
func nextSweep(ctx context.Context) time.Time {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, _, err := systemd.Connect(ctx)
	if err != nil {
		return time.Time{}
	}
	defer conn.Close()
	timer, err := systemd.Unit(ctx, conn, "nightly-sweep.timer")
	if err != nil {
		return time.Time{}
	}
	return timer.Time("NextElapseUSecRealtime")
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

func sweepLogCommand(p Process, shared *run.Options) *cobra.Command {
	var failed bool
	cmd := &cobra.Command{
		Use:   "log [flags] RECIPE [RUN]",
		Short: "Show what a recipe's tests printed, or why they failed",
		Long: `log shows the end of the output of a recipe's last run, or of the run RUN: an ID
from "sweep history --output json", or the beginning of an ID. With --failed,
log shows the tests that failed, each with its message.

The sweep's memory keeps the last 64 KiB of a run's output. As long as the file
with the whole output exists, log prints its path to stderr.`,
		Example: `  cc-ci-run sweep log gitea
  cc-ci-run sweep log gitea --failed
  cc-ci-run sweep log gitea 20261126T020000`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return fmt.Errorf("%s takes a recipe's name and at most one run's ID", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: p.completeRemembered(shared),
		RunE: func(_ *cobra.Command, args []string) error {
			r, dir, err := p.memoryOf(shared)
			if err != nil {
				return err
			}
			defer r.Close()
			h, err := historyOf(r, args[0])
			if err != nil {
				return err
			}
			past, err := pick(h, args)
			if err != nil {
				return err
			}
			exec.Tell(p.Stderr, visible(fmt.Sprintf("cc-ci-run: %s %s: %s: %s", args[0], past.ID, past.Verdict, past.Why))+"\n")
			if failed {
				return p.showFailed(r, past)
			}
			return p.showOutput(r, dir, args[0], past)
		},
	}
	addState(cmd, shared)
	cmd.Flags().BoolVar(&failed, "failed", false, "show the tests that failed, with their messages, instead of the output")
	return cmd
}

// pick finds the run that the arguments name: the last one, or the one whose ID begins
// with the second argument.
func pick(h sweep.History, args []string) (sweep.Past, error) {
	if len(h.Runs) == 0 {
		return sweep.Past{}, exec.Status{Code: 1, Err: fmt.Errorf("no run of %q is remembered, only the last verdict", args[0])}
	}
	if len(args) == 1 {
		return h.Runs[0], nil
	}
	var found []sweep.Past
	for _, past := range h.Runs {
		if strings.HasPrefix(past.ID, args[1]) {
			found = append(found, past)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return sweep.Past{}, fmt.Errorf("%d runs of %s have an ID that begins with %s, such as %s and %s: write more of the ID", len(found), args[0], args[1], found[0].ID, found[1].ID)
	}
	return sweep.Past{}, exec.Status{Code: 1, Err: fmt.Errorf("none of the last %d runs of %s has an ID that begins with %s; `cc-ci-run sweep history %[2]s --output json` has the IDs", len(h.Runs), args[0], args[1])}
}

// showOutput writes the end of a run's output, and names the log while it exists.
func (p Process) showOutput(r *memory.Repository, dir state.Dir, recipe string, past sweep.Past) error {
	if path, err := sweep.LogOf(dir, recipe, past); err == nil {
		exec.Tell(p.Stderr, "cc-ci-run: the whole output: "+visible(path)+"\n")
	}
	if past.Output == "" {
		return exec.Status{Code: 1, Err: errors.New("the output of this run was not kept")}
	}
	data, err := r.Blob(past.Output)
	if err != nil {
		return err
	}
	return p.write(string(data))
}

func (p Process) showFailed(r *memory.Repository, past sweep.Past) error {
	if past.Result == "" {
		return exec.Status{Code: 1, Err: errors.New("the run left no result: read the run's output (leave out --failed)")}
	}
	data, err := r.Blob(past.Result)
	if err != nil {
		return err
	}
	result, err := sweep.ParseResult(past.ID, data)
	if err != nil {
		return err
	}
	n := 0
	for _, t := range result.Results.Tests {
		if t.Status != "failed" {
			continue
		}
		n++
		text := t.Text()
		if text == "" {
			text = "no message of it is remembered: the run's output says more (leave out --failed)"
		}
		if err := p.write(fmt.Sprintf("=== %s, after %s\n%s\n\n", t.Name, time.Duration(t.Duration)*time.Millisecond, strings.TrimRight(text, "\n"))); err != nil {
			return err
		}
	}
	for _, text := range result.About().Errors {
		n++
		if err := p.write("=== while pytest collected the tests\n" + text + "\n\n"); err != nil {
			return err
		}
	}
	if n == 0 {
		exec.Tell(p.Stderr, "cc-ci-run: no test failed in this run\n")
	}
	return nil
}

// write writes the output of tests, to a terminal without control characters.
func (p Process) write(text string) error {
	if exec.IsTerminal(int(p.Stdout.Fd())) {
		text = strings.Map(func(r rune) rune {
			if r != '\n' && r != '\t' && controls(r) {
				return '·'
			}
			return r
		}, strings.ReplaceAll(text, "\r\n", "\n"))
	}
	_, err := p.Stdout.WriteString(text)
	return unread(err)
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

// completeRemembered offers the remembered recipes, and after a recipe the IDs of its
// runs.
func (p Process) completeRemembered(shared *run.Options) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) (list []string, _ cobra.ShellCompDirective) {
		r, _, err := p.memoryOf(shared)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer r.Close()
		if len(args) == 0 {
			known, _ := sweep.Recall(r)
			for _, k := range known {
				list = append(list, k.Recipe())
			}
		} else if h, err := historyOf(r, args[0]); err == nil && len(args) == 1 {
			list = h.IDs()
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}
