package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

func pruneCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var keep state.Bounds
	var dry bool
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove old records, results, audits and logs",
		Long: `prune removes from the state directory the records, results, audits and logs
that are too old, too many or too large, the oldest first. Each sweep does the
same at its end. prune never removes the newest record, result and audit of each
invoker, the newest log of each recipe, the log of the run that made a recipe's
revision canonical or that holds it, and the manifest of each environment that a
remaining record or a canonical revision names.`,
		Example: `  cc-ci-run prune --dry-run
  sudo cc-ci-run prune --keep-for 168h --keep-size 200`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			dir := shared.StateDir(p.Environ, m.State)
			gone, left, err := sweep.Prune(dir, m.Git(), keep, p.Manifest, dry)
			if err != nil && len(gone) == 0 {
				return err
			}
			rows := make([][]string, 0, len(gone))
			var size int64
			for _, e := range gone {
				size += e.Size
				rows = append(rows, []string{strings.TrimPrefix(e.Path, string(dir)+"/"), e.Why})
			}
			if out == "json" || len(rows) > 0 {
				if err := p.show(out, struct {
					Removed []state.Expired `json:"removed"`
					Left    state.Left      `json:"left"`
				}{append([]state.Expired{}, gone...), left}, "FILE|WHY", rows); err != nil {
					return err
				}
			}
			did := "removed"
			if dry {
				did = "would remove"
			}
			exec.Tell(p.Stderr, fmt.Sprintf("cc-ci-run: %s: %s %d files, %d KiB; %d entries are left, %d KiB\n", dir, did, len(gone), size>>10, left.Entries, left.Size>>10))
			return err
		},
	}
	addState(cmd, shared)
	addBounds(cmd, &keep)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "remove nothing; show what would be removed, and why")
	out.addTo(cmd)
	return cmd
}

// addBounds adds the flags that say how much the state directory may hold.
func addBounds(cmd *cobra.Command, b *state.Bounds) {
	*b = state.DefaultBounds
	f := cmd.Flags()
	f.DurationVar(&b.Age, "keep-for", b.Age, "keep records, results, audits and logs for so long")
	f.IntVar(&b.Number, "keep-runs", b.Number, "keep records, results, audits and logs of at most this many runs each")
	f.IntVar(&b.Logs, "keep-logs", b.Logs, "keep the logs and results of this many runs of a recipe")
	f.IntVar(&b.MiB, "keep-size", b.MiB, "keep at most this many `MiB` of records, results, audits and logs together")
}
