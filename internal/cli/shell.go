package cli

import (
	"github.com/spf13/cobra"

	"cc-ci-run/internal/run"
)

func shellCommand(p Process, o *run.Options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shell [flags]",
		Short: "Start a shell in the environment, to look around",
		Long: `shell runs the toolset's bash in the environment that SCRIPT would have. bash
takes the place of the cc-ci-run process. It reads no start-up file; its history
file is the one in HOME.`,
		Example: "  cc-ci-run shell\n  echo 'command -v git' | cc-ci-run shell",
		Args:    noArguments,
		RunE:    func(*cobra.Command, []string) error { return p.start(run.Request{Options: *o, Mode: run.Shell}) },
	}
	addRunFlags(cmd, o)
	return cmd
}
