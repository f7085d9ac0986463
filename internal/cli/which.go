package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

func whichCommand(p Process) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "which [flags] CMD...",
		Short: "Find commands of the toolset",
		Long: `which prints the file of each command, one line per command. With --output, a
line also has the command's tool, the version of its package, and the reason
why the toolset declares the tool. Exit status 127 if a command is not in the
toolset.`,
		Example:           "  cc-ci-run which git-lfs\n  cc-ci-run which --output table git tar",
		Args:              someArguments("CMD", "`cc-ci-run env` lists the commands of the toolset"),
		ValidArgsFunction: completeCommands(p, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			status := error(nil)
			list := []located{}
			var rows [][]string
			for _, name := range args {
				c, ok := m.Command(name)
				if !ok {
					plan := m.Compile("")
					p.complain(run.Undeclared(plan, plan.Lists.Commands, name))
					status = exec.Status{Code: exec.StatusNotFound}
					continue
				}
				l := locate(m, c)
				list = append(list, l)
				rows = append(rows, []string{l.Command, l.File, l.Tool, l.Version, l.Why})
			}
			if cmd.Flags().Changed("output") {
				err = p.show(out, list, "COMMAND|FILE|TOOL|VERSION|WHY", rows)
			} else {
				for _, l := range list {
					fmt.Fprintln(p.Stdout, l.File)
				}
			}
			if err != nil {
				return err
			}
			return status
		},
	}
	out.addTo(cmd)
	cmd.Flag("output").DefValue = ""
	return cmd
}

type located struct {
	Command string `json:"command"`
	File    string `json:"file"`
	Tool    string `json:"tool"`
	Version string `json:"version"`
	Why     string `json:"why"`
}

// locate says which tool a command is of.
func locate(m *toolset.Manifest, c toolset.Command) located {
	if t := m.ToolOf(c.Name); t != nil {
		return located{c.Name, c.Path, t.Name, versions(t.Packages), t.Why}
	}
	return located{c.Name, c.Path, "python", m.Python.Version, m.Python.Why}
}
