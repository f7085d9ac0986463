package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/record"
)

func parityCommand(p Process, shared *options) *cobra.Command {
	var out output
	var all bool
	var recipe string
	cmd := &cobra.Command{
		Use:   "parity [flags] [INVOKER INVOKER]",
		Short: "Are two invokers' environments identical?",
		Long: `parity compares the newest run records of two invokers (drone and systemd, if
none are named): environment, commands, variables' names, process state and
host paths. What differs may be declared, as variables that only Drone sets, or
is a drift. Exit status 1 if there is a drift.`,
		Example:   "  cc-ci-run parity\n  cc-ci-run parity systemd manual --recipe gitea --all",
		Args:      cobra.MatchAll(cobra.MaximumNArgs(2), cobra.OnlyValidArgs),
		ValidArgs: env.Invokers,
		RunE: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				args = []string{"drone", "systemd"}
			case 1:
				return errors.New("parity compares two invokers; name none or both")
			}
			m, err := env.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			state := p.state(*shared, m)
			var records [2]*record.Record
			var manifests [2]*env.Manifest
			for i, invoker := range args {
				if records[i], err = record.Newest(state, invoker, recipe); err != nil {
					return err
				}
				if manifests[i], err = records[i].Kept(state); err != nil {
					return err
				}
			}
			findings := record.Compare(records[0], records[1], manifests[0], manifests[1])
			drifts := 0
			var rows [][]string
			for _, f := range findings {
				if f.Verdict == record.Drift {
					drifts++
				}
				if all || f.Verdict != record.Identical {
					rows = append(rows, []string{string(f.Verdict), f.What, f.A, f.B, f.Why})
				}
			}
			if out == "json" || len(rows) > 0 {
				if err := p.show(out, findings, "VERDICT|WHAT|"+args[0]+"|"+args[1]+"|WHY", rows); err != nil {
					return err
				}
			}
			if drifts > 0 {
				return exec.Status{Code: 1, Err: fmt.Errorf("%s and %s drifted: %d of %d comparisons", args[0], args[1], drifts, len(findings))}
			}
			if out == "table" {
				fmt.Fprintf(p.Stdout, "%s and %s: %d comparisons, no drift: environment %.12s\n", args[0], args[1], len(findings), records[0].Fingerprint)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&shared.state, "state", "", "state `directory` (default: $"+stateVariable+", else the manifest's)")
	f.StringVar(&recipe, "recipe", "", "compare runs of this `recipe`")
	f.BoolVar(&all, "all", false, "also show what is identical")
	out.addTo(cmd)
	_ = cmd.MarkFlagDirname("state")
	return cmd
}
