package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/exec/seal"
	"cc-ci-run/internal/launch"
)

// addSeal adds the flag --seal.
func addSeal(cmd *cobra.Command, s *launch.Seal) {
	const name = "seal"
	cmd.Flags().Var(s, name, "let the kernel refuse to execute what the toolset lacks; --seal=best-effort also runs where the kernel can not")
	cmd.Flag(name).NoOptDefVal = string(launch.SealRequired)
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions([]string{string(launch.SealBestEffort)}, cobra.ShellCompDirectiveNoFileComp))
}

// seal seals this process, if that is asked for by flag or toolset, and says
// what came of it, for the record. It comes before the record, which is to
// have the state that the child gets. Of flag and toolset the stricter counts:
// a toolset's seal holds for every invoker.
func (p Process) seal(flag launch.Seal, m *env.Manifest) (sealed string, err error) {
	asked := flag.Flag()
	if m.Seal.Every {
		flag, asked = launch.SealRequired, "seal = true of the toolset"
	}
	if flag == "" {
		return "", nil
	}
	if err := m.CheckSeal(); err != nil {
		return "", err
	}
	if err := seal.Supported(); err != nil {
		if flag == launch.SealRequired {
			return "", fmt.Errorf("%s: %w (--seal=best-effort runs without, if the toolset does not ask for the seal)", asked, err)
		}
		exec.Tell(p.Stderr, "cc-ci-run: not sealed: "+err.Error()+"\n")
		return "none: " + err.Error(), nil
	}
	return "full", seal.Apply(m.Executable())
}
