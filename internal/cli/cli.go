// Package cli is the command line: what each command and flag is called and
// how results are shown. A file holds one command, or what several commands
// share; the work is done in the packages below.
//
// Runs (SCRIPT, exec, shell) are started by the small program (package run), not
// here. Here they have their help, and what the small program does not take for
// a run is handed back to it in a spelling that it knows, or gets its message.
package cli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/run"
)

// Process is what main knows of this process; nothing below reads it anew.
type Process struct {
	Args    []string // with the program's name
	Environ []string // as os.Environ gives it

	Stdin, Stdout, Stderr *os.File

	Manifest string // path, from link time
	Plan     string // path of its compiled form, from link time; "" for none
	Program  string // path of cc-ci-run, which starts every child, from link time
	Self     string // path of this program, cc-ci-run-full
	Version  string
	Machine  string // the host's name
}

// Main runs the command line and gives the exit status.
//
// If the reader of stdout or stderr goes away (`| head -1`), the command still goes on
// and writes its files: it catches SIGPIPE, which would end it halfway. The failed
// writes do not change the exit status either (see unread), which still says what the
// command found. What a command starts has SIGPIPE at its default.
func Main(p Process) int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	root := Root(p)
	root.SetArgs(p.Args[1:])
	return run.Explain(root.Execute(), p.Stderr)
}

// Root is the tree of commands, also for man pages and completions.
func Root(p Process) *cobra.Command {
	var o run.Options
	var version bool
	root := &cobra.Command{
		Use:   "cc-ci-run [flags] SCRIPT [ARG...]",
		Short: "Run a recipe's tests in the one declared environment",
		Long: `cc-ci-run runs SCRIPT with the toolset's Python, which takes the place of the
cc-ci-run process. The file toolset.toml declares the script's environment
(PATH, variables, process state), and the build of cc-ci-run resolves that
declaration, so a Drone step, a systemd timer and a person start the script in
the same environment. Of the caller's variables, only those that the toolset
names reach the script.

A word that has a "/" in it or ends in ".py" is a SCRIPT. Flags of cc-ci-run
come before SCRIPT; all words after SCRIPT are the script's arguments.

Exit status: SCRIPT's own; 125 if cc-ci-run itself failed; 126 if SCRIPT or a
command cannot be executed; 127 if SCRIPT or a command does not exist; with
--pty, 128+N after signal N.`,
		Example: `  cc-ci-run runner/run_recipe_ci.py gitea
  cc-ci-run --pty ./smoke.py -- --verbose
  cc-ci-run --seal runner/run_recipe_ci.py gitea
  cc-ci-run exec git lfs version`,
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		TraverseChildren:  true,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault // SCRIPT is a file
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			has := func(flag string) bool { return cmd.Flags().Lookup(flag) != nil }
			if (o.Pty || o.NoRecord) && !has("pty") || o.State != "" && !has("state") || o.Seal != "" && !has("seal") {
				return fmt.Errorf("--pty, --no-record, --state and --seal before %q: they go with what starts a run", cmd.Name())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if version {
				return p.version("table")
			}
			return p.other(cmd, o, args)
		},
	}
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.Flags().SetInterspersed(false)
	root.Flags().BoolVar(&version, "version", false, "show the version, as the command version does")
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(strings.NewReplacer(".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth), "for more information about a command", "for more about a command").Replace(root.UsageTemplate()))
	addRunFlags(root, &o)
	root.AddCommand(execCommand(p, &o), shellCommand(p, &o), auditCommand(p, &o), superviseCommand(), sweepCommand(p, &o), parityCommand(p, &o), reportCommand(p, &o), lookCommand(p), hostCommand(p, &o), pruneCommand(p, &o), runsCommand(p, &o), envCommand(p, &o), whichCommand(p), checkCommand(p, &o), manifestCommand(p, &o), versionCommand(p))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Example = "  source <(cc-ci-run completion bash)"
			c.RunE = func(c *cobra.Command, args []string) error { return noArguments(c, append(args, "")) }
		}
		if c.Name() == "help" {
			c.Example = "  cc-ci-run help exec"
			c.RunE = func(_ *cobra.Command, args []string) error { return helpFor(root, args) }
		}
	}
	return root
}

// other is for what run.Parse did not take for a run, and cobra for no command: no
// word, or a flag in a spelling that run.Parse does not know.
func (p Process) other(root *cobra.Command, o run.Options, args []string) error {
	if len(args) == 0 {
		return errors.New("no SCRIPT and no command: see `cc-ci-run --help`")
	}
	if run.IsScript(args[0]) {
		return p.start(run.Request{Options: o, Mode: run.Script, Program: args[0], Args: args[1:]})
	}
	var names []string
	for _, c := range root.Commands() {
		if c.Name() == args[0] {
			return fmt.Errorf("%q after --: only a SCRIPT comes there", args[0])
		}
		if c.Name() != "prune" { // it removes files: nobody is led to it by a slip
			names = append(names, c.Name())
		}
	}
	if hint := p.meant(&o, args[0], "cc-ci-run"); hint != "" {
		return errors.New(hint)
	}
	return fmt.Errorf("unknown command %q%s (a script has a \"/\" in it or ends in \".py\"; `cc-ci-run --help` lists the commands)", args[0], env.Suggest(args[0], names))
}

// complain writes an error to stderr, a line each where it is of several.
func (p Process) complain(err error) { run.Explain(err, p.Stderr) }
