package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/systemd"
)

// This file is `sweep --dry-run --like-unit`: a dry run as a systemd unit would do it.

// sweepLikeUnit is a dry run with the options, recipes and variables of a unit.
func (p Process) sweepLikeUnit(cmd *cobra.Command, unit string, out output, args []string) error {
	switch dry, _ := cmd.Flags().GetBool("dry-run"); {
	case !dry:
		return errors.New("--like-unit needs --dry-run; to run the sweep, start the unit (systemctl start " + unit + ")")
	case len(args) > 0:
		return fmt.Errorf("%q: --like-unit takes no recipes, because the unit names them; to name the unit, write --like-unit=UNIT", args)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
	defer cancel()
	conn, _, err := systemd.Connect(ctx)
	if err != nil {
		return fmt.Errorf("--like-unit: systemd does not answer: %w", err)
	}
	defer conn.Close()
	properties, err := systemd.Unit(ctx, conn, unit)
	if err == nil && properties.Text("LoadState") != "loaded" {
		err = errors.New("systemd does not know this unit")
	}
	if err != nil {
		return fmt.Errorf("--like-unit %s: %w", unit, err)
	}
	words, err := unitSweep(properties.Command("ExecStart"))
	if err != nil {
		return fmt.Errorf("--like-unit %s: %w", unit, err)
	}
	like := p
	like.Environ = slices.Clone(properties.List("Environment"))
	for _, file := range properties.Files("EnvironmentFiles") {
		data, err := os.ReadFile(file)
		if err != nil {
			exec.Tell(p.Stderr, fmt.Sprintf("cc-ci-run: %v: the variables of this file are left out, so recipes that depend on them appear as RUN; run this command as root\n", err))
			continue
		}
		like.Environ = append(like.Environ, systemd.Variables(string(data))...)
	}
	root := Root(like)
	root.SetArgs(dryLike(words, out))
	return root.ExecuteContext(cmd.Context())
}

// dryLike are the words of a dry run that is like a sweep. Of a flag that is there twice the
// last one counts, so that a dry run does not replace the report of the unit's last sweep.
func dryLike(words []string, out output) []string {
	flags := slices.Index(words, "--")
	if flags < 0 {
		flags = len(words)
	}
	return slices.Concat([]string{"sweep"}, words[:flags], []string{"--dry-run", "--junit=", "--output=" + out.String()}, words[flags:])
}

// unitSweep takes from a unit's command what comes after "sweep".
func unitSweep(argv []string) ([]string, error) {
	if i := slices.Index(argv, "sweep"); i > 0 {
		return slices.DeleteFunc(slices.Clone(argv[i+1:]), func(word string) bool { return word == "--wait" || strings.HasPrefix(word, "--wait=") }), nil
	}
	return nil, fmt.Errorf("the unit starts %q, which is not a sweep of cc-ci-run", strings.Join(argv, " "))
}
