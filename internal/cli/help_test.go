package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Each command has examples, takes only words that it has a use for, and has a help
// that fits a terminal of 80 columns.
func TestHelp(t *testing.T) {
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			look(c)
		}
		if cmd.Hidden || cmd.HasParent() && cmd.Parent().Name() == "completion" {
			return
		}
		if cmd.Example == "" {
			t.Errorf("%s: no example", cmd.CommandPath())
		}
		if cmd.Args == nil && cmd.ValidArgsFunction == nil && cmd.Name() != "help" {
			t.Errorf("%s: nothing says which arguments it takes", cmd.CommandPath())
		}
		var text bytes.Buffer
		cmd.SetOut(&text)
		if err := cmd.Help(); err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(text.String()) {
			if line = strings.TrimRight(line, " \n"); utf8.RuneCountInString(line) > helpWidth {
				t.Errorf("%s: longer than %d columns: %s", cmd.CommandPath(), helpWidth, line)
			}
		}
	}
	root := Root(Process{})
	root.InitDefaultHelpCmd()
	look(root)
}
