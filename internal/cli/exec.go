package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
)

func execCommand(p Process, o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [flags] CMD [ARG...]",
		Short: "Run a command of the toolset in the environment",
		Long: `exec replaces cc-ci-run by a command of the toolset, in the environment that
SCRIPT would have. CMD is a name that the toolset declares, not a path.`,
		Example: `  cc-ci-run exec git lfs version
  cc-ci-run exec --pty bash -c 'tty'
  cc-ci-run exec --seal git lfs version`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeCommands(p, false),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			return p.launch(*o, "exec", name, args[1:], func(m *env.Manifest) (string, []string, error) {
				if _, err := find(m, name); err != nil {
					return "", nil, err
				}
				return filepath.Join(m.Bin, name), args, nil
			})
		},
	}
	cmd.Flags().SetInterspersed(false)
	o.addTo(cmd)
	return cmd
}

// find looks a command up in the toolset; the error has the nearest name.
func find(m *env.Manifest, name string) (env.Command, error) {
	c, ok := m.Command(name)
	if ok {
		return c, nil
	}
	hint := env.Suggest(name, m.CommandNames())
	for _, a := range m.Absent {
		if slices.Contains(a.Commands, name) {
			hint = "; this environment was built --without " + a.Name
		}
	}
	if strings.Contains(name, "/") {
		hint = "; a command is named without its path"
	}
	return c, exec.Status{Code: exec.StatusNotFound, Err: fmt.Errorf("%s: not a command of the toolset%s", name, hint)}
}

// completeCommands offers the toolset's commands, for the first argument or
// for all.
func completeCommands(p Process, all bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !all {
			return nil, cobra.ShellCompDirectiveDefault
		}
		m, err := env.ReadManifest(p.Manifest)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return m.CommandNames(), cobra.ShellCompDirectiveNoFileComp
	}
}
