package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

// This file words what is wrong with a command line.

// notAnInvoker says which the invokers are.
func notAnInvoker(word string) error {
	return fmt.Errorf("%q is not an invoker: the invokers are %s%s", word, strings.Join(toolset.Invokers, ", "), env.Suggest(word, toolset.Invokers))
}

// invokers checks that arguments are invokers, each named once.
func invokers(_ *cobra.Command, args []string) error {
	for i, name := range args {
		if !slices.Contains(toolset.Invokers, name) {
			return notAnInvoker(name)
		}
		if slices.Contains(args[:i], name) {
			return fmt.Errorf("%s is named twice", name)
		}
	}
	return nil
}

// oneArgument wants one argument, and says where to find it.
func oneArgument(name, hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return fmt.Errorf("no %s: %s", name, hint)
		case len(args) > 1:
			return fmt.Errorf("%d arguments (%s): `%s` takes one %s", len(args), strings.Join(args, " "), cmd.CommandPath(), name)
		}
		return nil
	}
}

// noArguments is for a command that takes none, or only the name of another command.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var below []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			below = append(below, c.Name())
		}
	}
	switch {
	case len(below) == 0:
		return fmt.Errorf("%q: `%s` takes no argument", args[0], cmd.CommandPath())
	case args[0] == "":
		return fmt.Errorf("`%s` needs one of %s", cmd.CommandPath(), strings.Join(below, ", "))
	}
	return fmt.Errorf("%q: after `%s` can come %s%s", args[0], cmd.CommandPath(), strings.Join(below, " or "), env.Suggest(args[0], below))
}

// someArguments wants one argument or more.
func someArguments(name, hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("no %s: %s; see `%s --help`", name, hint, cmd.CommandPath())
		}
		return nil
	}
}

// atMost wants no more arguments than so many.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("%d arguments (%s): `%s` takes at most %s", len(args), strings.Join(args, " "), cmd.CommandPath(), what)
		}
		return nil
	}
}

// helpFor shows the help of a command.
func helpFor(root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil || len(args) > 0 && (cmd == root || len(rest) > 0) {
		return fmt.Errorf("%q: no such command; `cc-ci-run --help` lists the commands", strings.Join(args, " "))
	}
	cmd.InitDefaultHelpFlag()
	return cmd.Help()
}

// meant says what somebody meant who wrote a recipe or a command of the toolset where
// a command of cc-ci-run is; "" if the word is neither.
func (p Process) meant(shared *run.Options, word, as string) string {
	if word == "" || strings.HasPrefix(word, ".") {
		return ""
	}
	if p.isRecipe(shared, word) {
		const runner = "runner/run_recipe_ci.py"
		hint := fmt.Sprintf("%s is a recipe: its tests are run by `%s %s %s`", word, as, runner, word)
		if as == "cc-ci-run" {
			hint += fmt.Sprintf(", or as every night by `cc-ci-run sweep %s`", word)
		}
		return hint
	}
	m, err := toolset.ReadManifest(p.Manifest)
	if err != nil {
		return ""
	}
	if _, ok := m.Command(word); ok && as == "cc-ci-run" {
		return fmt.Sprintf("%s is a command of the toolset: it is run by `cc-ci-run exec %s`", word, word)
	}
	return ""
}

// isRecipe says whether a word is the name of a recipe here, or of one that was run.
func (p Process) isRecipe(shared *run.Options, word string) bool {
	if info, err := os.Stat(filepath.Join("recipes", word)); err == nil && info.IsDir() {
		return true
	}
	l, _, err := p.openRuns(shared)
	if err != nil {
		return false
	}
	defer l.Close()
	return slices.Contains(l.Recipes(), word)
}

// flagError says what a flag's value should be, in words of the command line and not
// of Go's library.
func flagError(cmd *cobra.Command, err error) error {
	var value interface {
		error
		GetValue() string
		Unwrap() error
	}
	if !errors.As(err, &value) || value.Unwrap() == nil {
		return fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())
	}
	cause := value.Unwrap()
	text := cause.Error()
	var number *strconv.NumError
	switch {
	case errors.As(cause, &number) && errors.Is(number.Err, strconv.ErrRange):
		text = "is too large or too small"
	case errors.As(cause, &number) && number.Func == "ParseBool":
		text = "must be true or false"
	case errors.As(cause, &number), strings.Contains(text, "parsing"):
		text = "must be a whole number"
	case strings.Contains(text, "duration"):
		text = `must be a length of time, such as "90s" or "1h30m"`
	}
	return errors.New(strings.TrimSuffix(err.Error(), cause.Error()) + text)
}
