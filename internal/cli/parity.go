package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

// parityOptions are the flags of parity.
type parityOptions struct {
	out  output
	all  bool
	live bool
	// machines: compare machines, not invokers.
	machines bool
	recipe   string
	state    state.Dir
	// present is the environment of this cc-ci-run.
	present *toolset.Manifest
}

// comparison is of two invokers, as --output json has it.
type comparison struct {
	A        string           `json:"a"`
	B        string           `json:"b"`
	Records  [2]string        `json:"records"` // their IDs
	Findings []parity.Finding `json:"findings"`
}

func parityCommand(p Process, shared *run.Options) *cobra.Command {
	o := parityOptions{}
	cmd := &cobra.Command{
		Use:   "parity [flags] [INVOKER INVOKER...]",
		Short: "Compare the environments of two or more invokers",
		Long: `parity compares the newest run records of two or more invokers (drone and
systemd, if none are named): environment, commands, names of variables, process
state, host paths, and what each run saw of the machine: namespaces, mounts,
limits, resolver, CA file. A difference is either declared, such as a variable
that only Drone sets, or a drift. Exit status 1 if there is a drift.

With --live, parity does not read records of earlier runs but starts a new run,
a probe, through each invoker that this machine has, or through those that are
named: in copies of the sweep's and of Drone's units, and on a terminal.
Starting units needs root.

With --machines, parity compares machines that share a memory (sweep --shared):
environment, runner and the site's values of each machine's newest run, with
those of the machine that ran last. It reads this machine's copy of the memory,
which is as new as the last sweep here. A machine that has not run for 30 days
is shown and not compared. Exit status 1 if two machines differ.`,
		Example: `  cc-ci-run parity
  cc-ci-run parity --machines
  cc-ci-run parity systemd manual --recipe gitea --all
  sudo cc-ci-run parity --live`,
		Args:      invokers,
		ValidArgs: toolset.Invokers,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.machines {
				if o.live || o.all || len(args) > 0 {
					return errors.New("--machines compares the newest run of each machine: leave out --live, --all and invokers")
				}
				return p.parityMachines(o, shared)
			}
			if len(args) == 1 {
				return errors.New("parity compares two invokers; name none or both")
			}
			if o.live && o.recipe != "" {
				return errors.New("--live runs a probe, not a recipe: leave out --recipe")
			}
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			o.state, o.present = shared.StateDir(p.Environ, m.State), m
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop() // a probe is cleared away
			return p.parity(ctx, o, args)
		},
	}
	f := cmd.Flags()
	addState(cmd, shared)
	f.StringVar(&o.recipe, "recipe", "", "compare runs of this `recipe`")
	f.BoolVar(&o.all, "all", false, "also show the comparisons without a difference")
	f.BoolVar(&o.live, "live", false, "run a probe through each invoker that this machine has, instead of reading records")
	f.BoolVar(&o.machines, "machines", false, "compare the newest runs of the machines that share a memory")
	_ = cmd.RegisterFlagCompletionFunc("recipe", completeRecipes(p, shared))
	o.out.addTo(cmd)
	return cmd
}

// machinesSchema is the version of the JSON of parity --machines.
const machinesSchema = 1

// parityMachines compares the machines that share a memory.
func (p Process) parityMachines(o parityOptions, shared *run.Options) error {
	present, err := toolset.ReadManifest(p.Manifest)
	if err != nil {
		return err
	}
	m, dir, err := p.memoryOf(shared)
	if err != nil {
		return err
	}
	defer m.Close()
	var only []string
	if o.recipe != "" {
		only = append(only, o.recipe)
	}
	list, passedOver, err := sweep.Machines(m, time.Now(), func(a, b string) (changes []string) {
		first, err := parity.Kept(dir, a, present)
		second, err2 := parity.Kept(dir, b, present)
		if err == nil && err2 == nil { // the manifests of other machines are not in the memory
			changes = toolset.Strings(toolset.Difference(first, second))
		}
		return changes
	}, only...)
	for _, fault := range passedOver {
		exec.Tell(p.Stderr, "cc-ci-run: passed over: "+visible(fault.Error())+"\n")
	}
	if err != nil {
		return err
	}
	rows := make([][]string, len(list))
	counts := map[sweep.Likeness]int{}
	differs := "" // another fingerprint
	for i, m := range list {
		counts[m.Verdict]++
		if m.Verdict == sweep.Unlike && m.Fingerprint != list[0].Fingerprint {
			differs = m.Fingerprint
		}
		rows[i] = []string{string(m.Verdict), brief(m.Name), m.Started.Local().Format("2006-01-02 15:04"), brief(m.Recipe), brief(m.Invoker), fmt.Sprintf("%.12s", m.Fingerprint), m.Why}
	}
	if err := p.show(o.out, struct {
		Schema   int             `json:"schema"`
		Machines []sweep.Machine `json:"machines"`
	}{machinesSchema, append([]sweep.Machine{}, list...)}, "VERDICT|MACHINE|RAN|RECIPE|BY|ENVIRONMENT|WHY", rows); err != nil {
		return err
	}
	compared := len(list) - counts[sweep.Old]
	switch drifts := counts[sweep.Unlike]; {
	case compared < 2:
		return fmt.Errorf("nothing to compare: %[2]d of %[3]d machines in the memory of %[1]s ran in the last 30 days; machines share a memory by `sweep --shared URL`", dir, compared, len(list))
	case drifts > 0:
		text := fmt.Sprintf("%d of %d machines differ from %s, which ran last", drifts, compared, brief(list[0].Name))
		if differs != "" {
			text += fmt.Sprintf("; `cc-ci-run env diff %.12s %.12s` shows how, where both manifests are kept", list[0].Fingerprint, differs)
		}
		return exec.Status{Code: 1, Err: errors.New(visible(text))}
	}
	if o.out == "table" {
		fmt.Fprintf(p.Stdout, "%d machines, no drift: environment %.12s\n", compared, list[0].Fingerprint)
	}
	return nil
}

// brief cuts a name to 64 characters, the longest name of a Linux machine: whoever may write
// to the memory decides how long it is.
func brief(name string) string { return fmt.Sprintf("%.64s", name) }

func (p Process) parity(ctx context.Context, o parityOptions, names []string) error {
	runs := map[string]parity.Run{}
	var err error
	if o.live {
		names, err = p.probe(ctx, names, runs)
	} else {
		if len(names) == 0 {
			names = []string{"drone", "systemd"}
		}
		err = p.newest(o, names, runs)
	}
	if err != nil {
		return err
	}

	var list []comparison
	var drifted *multierror.Error
	first := names[0]
	a := runs[first]
	for _, name := range names[1:] {
		b := runs[name]
		findings := parity.Compare(a, b)
		list = append(list, comparison{first, name, [2]string{a.ID, b.ID}, findings})
		drifts := 0
		var rows [][]string
		for _, f := range findings {
			if f.Verdict == parity.Drift {
				drifts++
			}
			if o.all || f.Verdict != parity.Identical {
				rows = append(rows, []string{string(f.Verdict), f.What, f.A, f.B, f.Why})
			}
		}
		if o.out == "table" && len(rows) > 0 {
			if err := p.show(o.out, nil, "VERDICT|WHAT|"+first+"|"+name+"|WHY", rows); err != nil {
				return err
			}
		}
		if drifts > 0 {
			drifted = multierror.Append(drifted, fmt.Errorf("%s and %s drifted: %d of %d comparisons", first, name, drifts, len(findings)))
		} else if o.out == "table" {
			fmt.Fprintf(p.Stdout, "%s and %s: %d comparisons, no drift: environment %.12s\n", first, name, len(findings), a.Fingerprint)
		}
	}
	if o.out == "json" {
		if err := p.show(o.out, list, "", nil); err != nil {
			return err
		}
	}
	if drifted != nil {
		return exec.Status{Code: 1, Err: drifted}
	}
	return nil
}

// newest reads each invoker's newest record.
func (p Process) newest(o parityOptions, names []string, runs map[string]parity.Run) error {
	records, err := record.Open(o.state)
	if err != nil {
		return err
	}
	defer records.Close()
	var errs *multierror.Error
	for _, name := range names {
		r, passedOver, err := records.Newest(name, o.recipe)
		for _, fault := range passedOver {
			exec.Tell(p.Stderr, "cc-ci-run: passed over: "+visible(fault.Error())+"\n")
		}
		var m *toolset.Manifest
		if err == nil {
			m, err = parity.Kept(o.state, r.Fingerprint, o.present)
		}
		if err != nil {
			errs = multierror.Append(errs, err)
		}
		runs[name] = parity.Run{Record: r, Environment: m}
	}
	return errs.ErrorOrNil()
}

// probe runs a probe through each invoker; if none are named, through those
// that are at hand, whose names it gives.
func (p Process) probe(ctx context.Context, names []string, runs map[string]parity.Run) ([]string, error) {
	prober := parity.Prober{Program: p.Program, Environ: p.Environ}
	any := len(names) == 0
	if any {
		names = toolset.Invokers
	}
	var have []string
	var errs *multierror.Error
	for _, name := range names {
		probed, err := prober.Probe(ctx, name)
		switch {
		case err == nil:
			runs[name] = probed
			have = append(have, name)
		case any && errors.Is(err, parity.ErrNotHere):
			fmt.Fprintf(p.Stderr, "cc-ci-run: %v\n", err)
		default:
			errs = multierror.Append(errs, err)
		}
	}
	if errs == nil && len(have) < 2 {
		errs = multierror.Append(errs, fmt.Errorf("nothing to compare: at hand is %s only", strings.Join(have, ", ")))
	}
	return have, errs.ErrorOrNil()
}
