package cli

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	osexec "os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"cc-ci-run/internal/forge"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/report"
	"cc-ci-run/internal/sweep"
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
