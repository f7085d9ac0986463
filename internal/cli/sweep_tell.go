package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	osexec "os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/forge"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/report"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/systemd"
	"cc-ci-run/internal/toolset"
)

// This file has what a sweep tells beside its table: how far it has come when it is
// interrupted, a status for programs, metrics, and the command that tells people.

// told says whom a sweep tells.
type told struct {
	junit, metrics string   // files; "" for none
	notify         []string // command
	// links has the directory of the report, "" for none, and the links of its pages.
	links    reportOptions
	manifest *toolset.Manifest
	forge    *forge.Forge // that shows verdicts at commits; nil for none
}

// tellAll writes the files that programs and browsers read, and tells people the news:
// only after a sweep of all recipes, as whoever sweeps single ones sees the verdicts.
func (p Process) tellAll(ctx context.Context, o sweep.Options, t told) error {
	r, err := memory.Open(o.State, o.Git, memory.Plain)
	if err != nil {
		return err
	}
	defer r.Close()
	status, err := morning(o.State, r)
	if err != nil {
		return err
	}
	path, err := sweep.WriteStatus(o.State, status)
	if err != nil { // a full disk: the verdicts have said so, and people are still told below
		p.complain(fmt.Errorf("the status for programs was not written: %w", err))
		path = ""
	}
	if t.metrics != "" {
		if err := writeReport(t.metrics, []byte(status.Metrics()), renameio.IgnoreUmask()); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	if t.links.out != "" {
		if err := report.Write(ctx, p.reportSource(o.State, t.manifest, t.links), t.links.out); err != nil {
			return err
		}
	}
	if len(t.notify) == 0 || !o.Removed || !status.News() {
		return nil
	}
	return p.notify(t.notify, status, path)
}

// notifyLimit is how long the command that tells people may take.
const notifyLimit = 2 * time.Minute

// StatusVariable is the variable in which notify's command finds the name of the file
// with the status as JSON.
const StatusVariable = "CC_CI_RUN_STATUS"

// notify starts the command that tells people. Its input is the headline and the table.
func (p Process) notify(command []string, status sweep.Status, path string) error {
	var text bytes.Buffer
	fmt.Fprintln(&text, visible(status.Headline))
	for _, row := range statusRows(status, false) {
		fmt.Fprintln(&text, visible(strings.Join(slices.DeleteFunc(row, func(cell string) bool { return cell == "" }), "  ")))
	}
	for _, line := range statusFooter(status, time.Time{}, time.Now()) {
		fmt.Fprintln(&text, visible(line))
	}
	ctx, cancel := context.WithTimeout(context.Background(), notifyLimit)
	defer cancel()
	cmd := osexec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(slices.Clone(p.Environ), StatusVariable+"="+path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &text, p.Stderr, p.Stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("took longer than %s", notifyLimit)
		}
		return fmt.Errorf("notify: %s: %w", command[0], err)
	}
	return nil
}

// remaining is what a sweep has still to do.
type remaining struct {
	lock        sync.Mutex
	running     map[string]bool
	done, total int
	elsewhere   bool // other machines run the recipes
}

func (r *remaining) note(e sweep.Event) {
	if e.Recipe == "" {
		return
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if r.running == nil {
		r.running = map[string]bool{}
	}
	r.running[e.Recipe] = e.Result == nil
	r.done, r.total = e.Done, e.Total
}

// text says which runs an interrupted sweep is ending, and how many recipes have a verdict.
func (r *remaining) text(grace time.Duration) string {
	r.lock.Lock()
	defer r.lock.Unlock()
	var running []string
	for _, name := range slices.Sorted(maps.Keys(r.running)) {
		if r.running[name] {
			running = append(running, name)
		}
	}
	if len(running) == 0 {
		return fmt.Sprintf("interrupted: %d of %d recipes have a verdict; the next sweep takes the others", r.done, r.total)
	}
	if r.elsewhere {
		return fmt.Sprintf("interrupted: cancelling the builds of %s; %d of %d recipes have a verdict; the next sweep takes the others", visible(strings.Join(running, ", ")), r.done, r.total)
	}
	return fmt.Sprintf("interrupted: ending the run of %s, which may take %s; %d of %d recipes have a verdict; the next sweep takes the others",
		visible(strings.Join(running, ", ")), grace, r.done, r.total)
}

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
		like.Environ = append(like.Environ, environmentFile(string(data))...)
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

// environmentFile reads the plain form of EnvironmentFile= (systemd.exec(5)): a
// NAME=VALUE in each line, with quotes around the value or without.
func environmentFile(text string) (list []string) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		list = append(list, name+"="+value)
	}
	return list
}
