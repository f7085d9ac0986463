package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
)

func shellCommand(p Process, o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shell [flags]",
		Short: "A shell in the environment, to look around",
		Long: `shell replaces cc-ci-run by the toolset's bash in the environment that SCRIPT
would have. No start-up file of bash is read; its history is the person's.`,
		Example: "  cc-ci-run shell\n  echo 'command -v git' | cc-ci-run shell",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return p.launch(*o, "shell", "bash", nil, func(m *env.Manifest) (string, []string, error) {
				_, err := find(m, "bash")
				return filepath.Join(m.Bin, "bash"), []string{"bash", "--noprofile", "--norc"}, err
			})
		},
	}
	o.addTo(cmd)
	return cmd
}
