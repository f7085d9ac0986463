package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/host"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

// hostOptions are the flags of host.
type hostOptions struct {
	out     output
	wait    time.Duration
	every   time.Duration
	watch   bool
	quiet   bool
	metrics string
	before  string
	earlier host.Report // that before has
}

func hostCommand(p Process, shared *run.Options) *cobra.Command {
	o := hostOptions{}
	var file string
	cmd := &cobra.Command{
		Use:   "host [flags]",
		Short: "Check that the host is healthy, for example after a deploy",
		Long: `host checks a CI host: failed units, timers and when they fired, oneshots,
running units and their environment, endpoints and their certificates, the
toolset's environment, parity of the invokers, the last sweep, the state
directory's disk, docker. The file ` + host.ConfigFile + ` says what
must hold; the NixOS modules write that file. If the file is missing, host
expects what a host with all modules has.

host makes all checks at once, each with a time limit, and reports every fault
with its fix. Some checks need root; for other users host leaves these out and
says so. Exit status: 0 if the host is healthy, 1 if it is not, 125 if host
could not look. With --before, 0 if the host is no worse than it was.`,
		Example: `  cc-ci-run host
  sudo cc-ci-run host --wait 5m        # after a deploy
  cc-ci-run host --watch
  cc-ci-run host --output json > before.json
  cc-ci-run host --before before.json
  cc-ci-run host --metrics /var/lib/node-exporter/cc-ci-run.prom`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.watch && (o.wait > 0 || o.out == "json" || o.before != "") {
				return errors.New("--watch goes with neither --wait, --before nor --output json")
			}
			if o.every <= 0 || o.wait < 0 {
				return errors.New("--every and --wait take a length of time, like 5s")
			}
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return err
			}
			config, err := host.ReadConfig(file, !cmd.Flags().Changed("config"), docker.Socket(m.Compile("").Set))
			if err != nil {
				return err
			}
			if o.before != "" {
				if o.earlier, err = readEarlier(o.before); err != nil {
					return err
				}
			}
			h := host.Host{Config: config, Manifest: m, State: shared.StateDir(p.Environ, m.State), Environ: p.Environ, ManifestFile: p.Manifest, Plan: p.Plan, Root: os.Geteuid() == 0}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if o.watch {
				return p.watchHost(ctx, h, o)
			}
			return p.host(ctx, h, o)
		},
	}
	f := cmd.Flags()
	addState(cmd, shared)
	f.StringVar(&file, "config", host.ConfigFile, "`file` that says what must hold")
	f.DurationVar(&o.wait, "wait", 0, "repeat the checks until the host is healthy, but no longer than this")
	f.BoolVar(&o.watch, "watch", false, "repeat the checks until Ctrl-C")
	f.DurationVar(&o.every, "every", 5*time.Second, "time between two rounds of checks, for --wait and --watch")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "leave out the checks that found everything well")
	f.StringVar(&o.before, "before", "", "`file` of an earlier --output json: what was wrong then, and has not got worse, is no reason for exit status 1")
	f.StringVar(&o.metrics, "metrics", "", "also write the result to `file`, for Prometheus's textfile collector")
	o.out.addTo(cmd)
	_ = cmd.MarkFlagDirname("state")
	return cmd
}

// host makes the checks, again and again with --wait, and shows the last round's report.
func (p Process) host(ctx context.Context, h host.Host, o hostOptions) error {
	terminal := exec.IsTerminal(int(p.Stderr.Fd()))
	told := ""
	report, err := host.Waiting{
		Longest: o.wait,
		Every:   o.every,
		Look: func() host.Report {
			if terminal {
				fmt.Fprint(p.Stderr, "\r\x1b[Kcc-ci-run: looking …")
				defer fmt.Fprint(p.Stderr, "\r\x1b[K")
			}
			return host.Look(ctx, h)
		},
		Wrong: o.wrong,
		Tell: func(wrong []finding.Finding, left time.Duration) {
			switch text := "not healthy yet: " + strings.Join(whats(wrong), ", "); {
			case terminal:
				fmt.Fprintf(p.Stderr, "cc-ci-run: %s; %s left", text, left.Round(time.Second))
			case text != told: // a journal wants to hear of changes only
				fmt.Fprintf(p.Stderr, "cc-ci-run: %s\n", text)
				told = text
			}
		},
	}.Wait(ctx)
	if err != nil {
		return err
	}
	return p.showHost(report, o)
}

// showHost writes the metrics and the table, and gives the exit status.
func (p Process) showHost(report host.Report, o hostOptions) error {
	var failed error
	if o.metrics != "" {
		if err := writeReport(o.metrics, []byte(report.Metrics()), renameio.IgnoreUmask()); err != nil {
			failed = fmt.Errorf("metrics: %w", err)
		}
	}
	if err := p.hostTable(report, o); err != nil {
		return err
	}
	if o.out == "table" {
		fmt.Fprintln(p.Stdout, hostSummary(report))
	}
	list := o.wrong(report)
	wrong, told := strings.Join(whats(list), ", "), "the host is not healthy"
	if o.before != "" {
		told = "the host got worse"
	}
	switch {
	case len(list) == 0:
		if !report.Healthy {
			exec.Tell(p.Stderr, "cc-ci-run: no worse than before: "+strings.Join(whats(report.Wrong()), ", ")+"\n")
		}
	case slices.ContainsFunc(list, func(f finding.Finding) bool { return f.Verdict == finding.Fault }):
		if failed != nil {
			p.complain(failed)
		}
		return exec.Status{Code: 1, Err: fmt.Errorf("%s: %s", told, wrong)}
	default:
		return multierror.Append(failed, fmt.Errorf("not all could be looked at: %s", wrong))
	}
	return failed
}

func (p Process) hostTable(report host.Report, o hostOptions) error {
	var rows [][]string
	for _, r := range report.Results {
		if o.quiet && r.Verdict == finding.OK {
			continue
		}
		since := ""
		if !r.Since.IsZero() {
			since = r.Since.Local().Format("Jan 02 15:04")
		}
		rows = append(rows, []string{string(r.Verdict), r.What, r.State, since, r.Fix})
	}
	if o.out == "table" && len(rows) == 0 {
		return nil
	}
	return p.show(o.out, report, "VERDICT|WHAT|STATE|SINCE|FIX", rows)
}

// watchHost shows the table again and again.
func (p Process) watchHost(ctx context.Context, h host.Host, o hostOptions) error {
	terminal := exec.IsTerminal(int(p.Stdout.Fd()))
	for {
		report := host.Look(ctx, h)
		if ctx.Err() != nil {
			return nil
		}
		if terminal {
			fmt.Fprint(p.Stdout, "\x1b[H\x1b[2J")
		}
		if _, err := fmt.Fprintf(p.Stdout, "%s  every %s; Ctrl-C ends it\n", report.Time.Local().Format(time.TimeOnly), o.every); err != nil {
			return unread(err) // for nobody there is nothing to show
		}
		if o.metrics != "" {
			if err := writeReport(o.metrics, []byte(report.Metrics()), renameio.IgnoreUmask()); err != nil {
				return fmt.Errorf("metrics: %w", err)
			}
		}
		if err := p.hostTable(report, o); err != nil {
			return err
		}
		fmt.Fprintln(p.Stdout, hostSummary(report))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.every):
		}
	}
}

func hostSummary(report host.Report) string {
	left := ""
	if n := report.Count(finding.LeftOut); n > 0 {
		left = fmt.Sprintf("; %d left out, as only root may look", n)
	}
	if report.Healthy {
		return fmt.Sprintf("healthy: %d checks%s", len(report.Results), left)
	}
	return fmt.Sprintf("not healthy: %d faults, %d unknown, of %d checks%s", report.Count(finding.Fault), report.Count(finding.Unknown), len(report.Results), left)
}

// wrong is what keeps a report from being well enough.
func (o *hostOptions) wrong(r host.Report) []finding.Finding {
	if o.before != "" {
		return r.Worse(o.earlier)
	}
	return r.Wrong()
}

func whats(list []finding.Finding) []string {
	var names []string
	for _, f := range list {
		names = append(names, f.What)
	}
	return names
}

// readEarlier reads what --output json wrote, from a file or a pipe.
func readEarlier(path string) (r host.Report, err error) {
	f, err := os.Open(path)
	if err != nil {
		return r, fmt.Errorf("--before: %w", err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(&r); err != nil {
		return r, fmt.Errorf("--before: %s: not a report of `cc-ci-run host --output json`: %w", path, err)
	}
	return r, nil
}
