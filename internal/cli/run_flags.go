package cli

import (
	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/run"
)

// start has cc-ci-run, which starts every child, take this process's place.
func (p Process) start(r run.Request) error {
	return exec.Replace(p.Program, append([]string{p.Args[0]}, r.Argv()...), p.Environ)
}

// runFlag is a flag of what starts a child, for cobra.
type runFlag struct {
	run.Flag
	o *run.Options
}

func (f runFlag) String() string         { return f.Get(f.o) }
func (f runFlag) Set(value string) error { return f.Flag.Set(f.o, value) }

// Type is none but for switches, so that help texts have a flag as it is written.
func (f runFlag) Type() string {
	if f.Bare == "true" {
		return "bool"
	}
	return f.Kind
}

// addRunFlags adds the flags of what starts a child; only those that are named,
// if any are.
func addRunFlags(cmd *cobra.Command, o *run.Options, only ...string) {
	for _, f := range run.Flags {
		if len(only) > 0 && f.Name != only[0] {
			continue
		}
		flag := cmd.Flags().VarPF(runFlag{f, o}, f.Name, "", f.Usage)
		flag.NoOptDefVal = f.Bare
		flag.Hidden = f.Usage == ""
		if f.Kind == "directory" {
			_ = cmd.MarkFlagDirname(f.Name)
		}
		if f.Name == "seal" {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions([]string{string(run.SealBestEffort)}, cobra.ShellCompDirectiveNoFileComp))
		}
	}
}

// addState adds --state to a command that reads the state directory.
func addState(cmd *cobra.Command, o *run.Options) {
	cmd.Flags().StringVar(&o.State, "state", "", "state `directory` (default: $"+run.StateVariable+", else the manifest's)")
	_ = cmd.MarkFlagDirname("state")
}
