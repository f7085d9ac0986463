package cli

import (
	"github.com/spf13/cobra"

	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/toolset"
)

// lookCommand is the second half of a probe of parity --live.
func lookCommand(p Process) *cobra.Command {
	return &cobra.Command{
		Use:    "look",
		Short:  "Print what a probe of parity --live finds at its place",
		Hidden: true,
		Args:   noArguments,
		RunE: func(*cobra.Command, []string) error {
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			return p.show("json", parity.LookAround(m.Host.Paths), "", nil)
		},
	}
}
