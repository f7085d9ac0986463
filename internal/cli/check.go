package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

func checkCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var all bool
	cmd := &cobra.Command{
		Use:   "check [flags]",
		Short: "Verify the whole environment",
		Long: `check verifies that the environment still is what its manifest says: that each
command exists, is executable and unchanged, that Python and its packages are
installed, that a browser launches, and that the host's paths exist. check
lists every fault with its fix, and also duplicate commands, absent tools, and
docker plugins that only this host has. A docker daemon that does not answer is
shown, but is not a fault. A directory of the state directory with another owner
or mode is a fault; the copy of the manifest there is replaced if it is damaged.
Exit status 1 if there is a fault.`,
		Example: "  cc-ci-run check\n  cc-ci-run check --output json | jq '.[] | select(.verdict == \"fault\")'",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			if exec.IsTerminal(int(p.Stderr.Fd())) {
				fmt.Fprint(p.Stderr, "cc-ci-run: checking, with a browser's start …\r")
			}
			results, err := m.Check(cmd.Context(), p.Environ, p.Manifest, p.Plan)
			if err != nil {
				return err
			}
			dir := shared.StateDir(p.Environ, m.State)
			results = append(append(results, dir.Check()...), parity.CheckKept(dir, m)...)
			faults := 0
			var rows [][]string
			for _, r := range results {
				if r.Verdict == finding.Fault {
					faults++
				}
				if all || r.Verdict != finding.OK {
					rows = append(rows, []string{string(r.Verdict), r.What, r.State, r.Fix})
				}
			}
			if out == "json" || len(rows) > 0 {
				if err := p.show(out, results, "VERDICT|WHAT|STATE|FIX", rows); err != nil {
					return err
				}
			}
			if faults > 0 {
				return exec.Status{Code: 1, Err: fmt.Errorf("%d of %d checks found a fault in environment %.12s", faults, len(results), m.Fingerprint())}
			}
			if out == "table" {
				fmt.Fprintf(p.Stdout, "%d checks, no fault: environment %.12s is as declared\n", len(results), m.Fingerprint())
			}
			return nil
		},
	}
	addState(cmd, shared)
	cmd.Flags().BoolVar(&all, "all", false, "also show the checks that found no fault")
	out.addTo(cmd)
	return cmd
}
