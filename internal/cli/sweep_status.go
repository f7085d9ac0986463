package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/run"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/systemd"
)

func sweepStatusCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var all bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Show which recipes fail, and since when",
		Long: `status lists the recipes by what the last sweep found: newly failing, still
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
