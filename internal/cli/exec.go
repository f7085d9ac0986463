package cli

import (
	"github.com/spf13/cobra"

	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

func execCommand(p Process, o *run.Options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [flags] CMD [ARG...]",
		Short: "Run a command of the toolset in the environment",
		Long: `exec runs a command of the toolset in the environment that SCRIPT would have.
The command takes the place of the cc-ci-run process. CMD is the name of a
command that the toolset declares, not a path.`,
		Example: `  cc-ci-run exec git lfs version
  cc-ci-run exec --pty bash -c 'tty'
  cc-ci-run exec --seal git lfs version`,
		Args:              someArguments("CMD", "`cc-ci-run env` lists the commands of the toolset"),
		ValidArgsFunction: completeCommands(p, false),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.start(run.Request{Options: *o, Mode: run.Exec, Program: args[0], Args: args[1:]})
		},
	}
	cmd.Flags().SetInterspersed(false)
	addRunFlags(cmd, o)
	return cmd
}

// completeCommands offers the toolset's commands, for the first argument or
// for all.
func completeCommands(p Process, all bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !all {
			return nil, cobra.ShellCompDirectiveDefault
		}
		m, err := toolset.ReadManifest(p.Manifest)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return m.CommandNames(), cobra.ShellCompDirectiveNoFileComp
	}
}
