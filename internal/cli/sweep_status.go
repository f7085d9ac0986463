package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
