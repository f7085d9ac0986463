package cli

import (
	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec/supervise"
)

// superviseCommand is the sweep's own: the process between it and a run.
func superviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "supervise", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error { return supervise.Main(args) },
	}
}
