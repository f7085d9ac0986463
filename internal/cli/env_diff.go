package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/runs"
	"cc-ci-run/internal/toolset"
)

// diffSchema is the version of the JSON of env diff.
const diffSchema = 1

func envDiffCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "diff [flags] [A] [B]",
		Short: "Show what changed between two environments",
		Long: `diff shows how environment B differs from environment A: tools and their
versions, commands, Python packages, browsers, variables, process state, host
paths, the seal. Reasons ("why") and the places of a build are not compared,
because no run depends on them.

A and B each name an environment by its fingerprint, by at least the first 4
digits of the fingerprint, by the ID of a run or its beginning, or by a recipe.
A recipe means the environment of its canonical run, or of its last run if it
was never promoted. Without B, diff compares A with the present environment.
Without A and B, A is the environment of the newest run that did not have the
present one. The manifests come from the state directory, where each run keeps
its environment's.`,
		Example: `  cc-ci-run env diff
  cc-ci-run env diff gitea
  cc-ci-run env diff 5246 8c0e
  cc-ci-run env diff 20261125T020000 20261126T020000`,
		Args:              atMost(2, "two environments, A and B"),
		ValidArgsFunction: completeEnvironments(p, shared),
		RunE: func(_ *cobra.Command, args []string) error {
			l, present, err := p.openRuns(shared)
			if err != nil {
				return err
			}
			defer l.Close()
			a, b, err := environments(l, args, present.Fingerprint())
			if err != nil {
				return err
			}
			var sides [2]*toolset.Manifest
			for i, e := range []runs.Environment{a, b} {
				if sides[i] = present; e.Fingerprint == present.Fingerprint() {
					continue
				}
				if sides[i], err = parity.Kept(shared.StateDir(p.Environ, present.State), e.Fingerprint, present); err != nil {
					return fmt.Errorf("the manifest of %s cannot be used: %w", e.Of, err)
				}
			}
			changes := toolset.Difference(sides[0], sides[1])
			rows := make([][]string, len(changes))
			for i, c := range changes {
				if rows[i] = []string{string(c.Kind), string(c.Of), c.Name, c.A, c.B}; c.Of == toolset.PartBuild {
					rows[i][4] += " (other files)"
				}
			}
			if out == "json" {
				return p.show(out, struct {
					Schema  int              `json:"schema"`
					A       runs.Environment `json:"a"`
					B       runs.Environment `json:"b"`
					Changes []toolset.Change `json:"changes"`
				}{diffSchema, a, b, append([]toolset.Change{}, changes...)}, "", nil)
			}
			fmt.Fprintf(p.Stdout, "a  %.12s  %s\nb  %.12s  %s\n", a.Fingerprint, a.Of, b.Fingerprint, b.Of)
			switch {
			case a.Fingerprint == b.Fingerprint:
				_, err = fmt.Fprintln(p.Stdout, "the same environment")
				return unread(err)
			case len(changes) == 0:
				_, err = fmt.Fprintln(p.Stdout, "no difference that a run could notice, only in reasons, places or times of files")
				return unread(err)
			}
			fmt.Fprintln(p.Stdout)
			return p.show(out, nil, "KIND|OF|NAME|A|B", rows)
		},
	}
	addState(cmd, shared)
	out.addTo(cmd)
	return cmd
}

// environments are the two environments that the arguments name.
func environments(l *runs.List, args []string, present string) (a, b runs.Environment, err error) {
	b = runs.Environment{Fingerprint: present, Of: "the present environment"}
	if len(args) == 0 {
		if a, err = l.Before(present); err == nil && a.Fingerprint == "" {
			err = errors.New("no recorded run had another environment than the present one: name two environments (`cc-ci-run env diff --help`)")
		}
		return a, b, err
	}
	if a, err = l.Environment(args[0], present); err == nil && len(args) > 1 {
		b, err = l.Environment(args[1], present)
	}
	return a, b, err
}
