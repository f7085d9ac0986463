package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

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

// showFailed writes the tests that failed, each with its message.
func (p Process) showFailed(r *memory.Repository, past sweep.Past) error {
	failures, err := past.Failures(r)
	if errors.Is(err, sweep.ErrNoResult) {
		return exec.Status{Code: 1, Err: fmt.Errorf("%w: read the run's output (leave out --failed)", err)}
	}
	if err != nil {
		return err
	}
	for _, f := range failures {
		if f.Message == "" {
			f.Message = "no message of the test is remembered: the run's output says more (leave out --failed)"
		}
		if err := p.write(fmt.Sprintf("=== %s\n%s\n\n", f.Where, f.Message)); err != nil {
			return err
		}
	}
	if len(failures) == 0 {
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
