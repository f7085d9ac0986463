package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/toolset"
)

func sweepCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var t told
	var file, unit, notify, sharedURL string
	var statuses statusOptions
	var audited, showLog bool
	var only []string
	var d placement
	o := sweep.Options{}
	cmd := &cobra.Command{
		Use:   "sweep [flags] [RECIPE...]",
		Short: "Run all recipes' tests, and promote those that pass",
		Long: `sweep runs the tests of each recipe, each through cc-ci-run itself, and gives
each recipe one verdict:

  SKIP     the last run with the same inputs passed: revision, content,
           environment, runner and the site's values are unchanged
  PROMOTE  the tests passed: the revision is canonical now
  PASS     the tests passed by hand where a timer or Drone promotes (--promote)
  HOLD     the tests did not pass: the canonical revision stays what it was
  ERROR    the tests could not be run, or ended before pytest did
  CUT      the run was ended from outside, or had no turn: its state stays
  GONE     the recipe's folder was removed, or sweep.toml no longer names it

The recipe whose last run is the longest ago is run first. docs/verdicts.md has
all the rules. Each run is remembered: "sweep status", "sweep history" and
"sweep log" show which recipes failed, since when, and why.

With --drone, other machines run the recipes: docs/machines.md.

With --dry-run --like-unit, sweep shows what the timer's next sweep would run:
it takes the options, recipes and variables of the timer's unit.

Exit status: 0 if all recipes were promoted, passed, skipped or gone; 1 if a
recipe was held, in error or cut off; 125 if the sweep could not do its work,
for example because the environment changed since it was built; with --seen, 75
instead if another machine may be able to do the work.`,
		Example: `  cc-ci-run sweep --recipes /srv/recipes --jobs 2
  cc-ci-run sweep --recipes recipes --dry-run
  cc-ci-run sweep --dry-run --like-unit
  cc-ci-run sweep --recipes /srv/recipes --max-age 168h --skips-hold
  cc-ci-run sweep --recipes recipes --force gitea --junit sweep.xml
  cc-ci-run sweep --recipes /srv/recipes --state /var/lib/cc-ci-dispatcher \
    --shared https://git.example.org/ci/memory.git \
    --drone https://drone.example.org/ci/recipes --drone-token /run/drone-token`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			defer func() {
				if o.Asked.Seen != "" && errors.As(err, new(*sweep.Unable)) {
					err = exec.Status{Code: sweep.UnableStatus, Err: err}
				}
			}()
			if unit != "" {
				return p.sweepLikeUnit(cmd, unit, out, args)
			}
			m, err := toolset.ReadManifest(p.Manifest)
			if err != nil {
				return &sweep.Unable{Err: err}
			}
			for _, path := range []string{t.junit, t.metrics} {
				if err := checkReport(path); err != nil {
					return err
				}
			}
			args = append(args, only...)
			if audited {
				o.How = append(o.How, "audit")
			}
			o.How = append(o.How, (&run.Options{Seal: shared.Seal}).Flags()...)
			o.Only, o.Environ, o.Program, o.Manifest, o.State = args, p.Environ, p.Program, p.Manifest, shared.StateDir(p.Environ, m.State)
			for _, path := range []*string{&o.Recipes, &o.Runner, (*string)(&o.State), &o.Manifest} {
				if *path, err = filepath.Abs(*path); err != nil {
					return err
				}
			}
			o.Removed = len(args) == 0
			if d.url != "" && !cmd.Flags().Changed("jobs") {
				o.Jobs = jobsOfDrone
			}
			p.surround(&o, m)
			if t.notify, err = configure(&o, file, cmd.Flags().Changed); err != nil {
				return err
			}
			if err := t.links.check(); err != nil {
				return err
			}
			t.manifest = m
			if !o.DryRun { // which may be a unit's, whose credentials nobody else can read
				if t.forge, err = statuses.forge(); err != nil {
					return err
				}
			}
			switch {
			case cmd.Flags().Changed("shared") && sharedURL == "":
				return errors.New("--shared: names no repository; leave it out to remember on this machine alone")
			case sharedURL != "":
				if err := (memory.Remote{URL: sharedURL}).Check(); err != nil {
					return fmt.Errorf("--shared: %w", err)
				}
				if o.Shared, err = p.remote(strings.Clone(sharedURL), o.Invoker); err != nil {
					return &sweep.Unable{Err: err}
				}
				exec.HideArgument(p.Args, sharedURL, o.Shared.Secrets())
			}
			if err := d.elsewhere(cmd.Context(), p, &o, cmd.Flags().Changed); err != nil {
				return err
			}
			if showLog {
				o.Show = p.Stderr
			}
			if notify != "" {
				t.notify = []string{notify}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			if o.Invoker == "drone" {
				var end context.CancelCauseFunc
				ctx, end = context.WithCancelCause(ctx)
				defer end(nil)
				go exec.AwaitParent(ctx, func() { end(errors.New("the process that started this sweep, a step of Drone's runner, has ended")) })
			}
			return p.sweep(ctx, o, out, t)
		},
	}
	cmd.AddCommand(sweepStatusCommand(p, shared), sweepHistoryCommand(p, shared), sweepLogCommand(p, shared))
	f := cmd.Flags()
	addState(cmd, shared)
	f.StringVar(&o.Recipes, "recipes", "recipes", "`directory` of recipes, each a git work tree or a folder")
	f.StringVar(&file, "config", "", "`file` that names the recipes, their order and their limits; flags win (default: "+sweep.ConfigName+" in --recipes, if that exists)")
	f.StringVar(&o.Runner, "runner", "runner/run_recipe_ci.py", "the `script` that runs one recipe's tests")
	f.IntVarP(&o.Jobs, "jobs", "j", 1, "how many recipes run at once")
	f.DurationVar(&o.Timeout, "timeout", time.Hour, "time limit of one recipe")
	f.DurationVar(&o.Grace, "grace", 30*time.Second, "time between SIGTERM and SIGKILL for a recipe that reaches its time limit")
	f.BoolVar(&o.Force, "force", false, "also run recipes that would be skipped")
	f.DurationVar(&o.MaxAge, "max-age", 0, "also run an unchanged recipe if its last passing run began longer ago than this; 0 means never")
	f.BoolVar(&o.SkipsHold, "skips-hold", false, "hold a recipe if any of its tests was skipped")
	f.BoolVar(&o.Promote, "promote", false, "in a sweep by hand, also promote recipes that a timer or Drone promoted before")
	f.Var(waiting{&o.Wait, &o.WaitLimit}, "wait", "if another sweep is running, wait until it has ended; with a `time`, as in --wait=2h, no longer than that")
	f.Lookup("wait").NoOptDefVal = "true"
	f.BoolVar(&o.DryRun, "dry-run", false, "run nothing; show which recipes would be run, and why")
	addBounds(cmd, &o.Keep)
	f.Lookup("dry-run").Usage += "; with --like-unit: in the timer's next sweep"
	f.StringVar(&unit, "like-unit", "", "with --dry-run: take the options, recipes and variables of this systemd `unit`")
	f.Lookup("like-unit").NoOptDefVal = parity.Units["systemd"]
	f.StringArrayVar(&only, "only", nil, "sweep this `recipe`, even if it has the name of a command, such as status; may be repeated")
	f.StringVar(&t.junit, "junit", "", "write a JUnit report to `file`")
	f.StringVar(&sharedURL, "shared", "", "`URL` of a git repository in which several machines remember their runs, and skip what another one has tested")
	d.addTo(cmd)
	f.StringVar(&o.Asked.Fingerprint, "fingerprint", "", "run nothing unless this machine has the environment with this `fingerprint`; set by the builds of --drone")
	f.StringVar(&o.Asked.Seen, "seen", "", "also run the recipe if its ref in the shared repository still names this `commit`, or, with none, does not exist; set by the builds of --drone")
	f.BoolVar(&showLog, "show-log", false, "also write the output of the recipe's run to stderr; for a sweep of one recipe")
	f.StringVar(&notify, "notify", "", "`program` that tells people: started with the status as its input if a sweep of all recipes finds something new")
	f.StringVar(&t.links.out, "report", "", "at the end, write the pages of \"cc-ci-run report\" into `directory`")
	t.links.addLinks(cmd)
	f.StringVar(&t.metrics, "metrics", "", "at the end, write each recipe's verdict to `file`, for Prometheus's textfile collector")
	statuses.addTo(cmd)
	addRunFlags(cmd, shared, "seal")
	f.BoolVar(&audited, "audit", false, "audit each run; \"cc-ci-run audit report\" sums up the audits")
	out.addTo(cmd)
	_ = cmd.MarkFlagDirname("recipes")
	cmd.ValidArgsFunction = completeFolders(&o.Recipes)
	_ = cmd.RegisterFlagCompletionFunc("only", completeFolders(&o.Recipes))
	return cmd
}

// surround adds to a sweep's options what surrounds it: its invoker, the site's values,
// and the environment's git, programs and state.
func (p Process) surround(o *sweep.Options, m *toolset.Manifest) {
	o.Invoker = env.DetectInvoker(p.Environ, exec.IsTerminal(0)).Name
	o.Supervisor = []string{p.Self, "supervise"}
	o.Git = m.Git()
	o.Machine = p.Machine
	for _, kv := range p.Environ {
		if name, value, ok := strings.Cut(kv, "="); ok && m.Variables.FromSite(name) != "" && value == env.Lookup(p.Environ, name) {
			o.Site = append(o.Site, kv)
		}
	}
	o.Intact = func() error {
		plan, err := run.ReadPlan(p.Plan)
		if err != nil {
			return err
		}
		faults := plan.Changed()
		if len(faults) == 0 {
			return nil
		}
		// The environment may have been built anew since this sweep started.
		now, err := toolset.ReadManifest(p.Manifest)
		if err != nil {
			return err
		}
		return now.Stale(context.Background(), faults)
	}
}

// remote is the repository that machines share. git reaches it with the variables that
// tests have.
func (p Process) remote(url, invoker string) (*memory.Remote, error) {
	plan, err := run.ReadPlan(p.Plan)
	if err != nil {
		return nil, err
	}
	given, err := plan.Environment(p.Environ, invoker)
	if err != nil {
		return nil, err
	}
	return &memory.Remote{URL: url, Environ: given.Environ()}, nil
}

// configure takes from a sweep.toml the options that no flag has set. notify is the
// command that tells people the news.
func configure(o *sweep.Options, file string, set func(flag string) bool) (notify []string, err error) {
	if file != "" {
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			return nil, fmt.Errorf("--config: %s is not a file", file)
		}
	} else {
		file = filepath.Join(o.Recipes, sweep.ConfigName)
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil, nil
		}
	}
	c, err := sweep.ReadConfig(file, o.Recipes)
	if err != nil {
		return nil, err
	}
	if len(o.Only) == 0 {
		o.Only = c.Recipes
	}
	if !set("jobs") && c.Jobs > 0 {
		o.Jobs = c.Jobs
	}
	if !set("timeout") {
		o.Timeouts = c.Timeouts
		if c.Timeout > 0 {
			o.Timeout = c.Timeout
		}
	}
	if !set("grace") && c.Grace > 0 {
		o.Grace = c.Grace
	}
	if !set("max-age") && c.MaxAge > 0 {
		o.MaxAge = c.MaxAge
	}
	if !set("skips-hold") {
		o.SkipsHold, o.SkipsHoldOf = c.SkipsHold, c.SkipsHoldOf
	}
	return c.Notify, nil
}

func (p Process) sweep(ctx context.Context, o sweep.Options, out output, t told) error {
	begin := time.Now()
	var left remaining
	left.elsewhere = o.Elsewhere != nil
	defer context.AfterFunc(ctx, func() { exec.Tell(p.Stderr, "\ncc-ci-run: "+left.text(o.Grace)+"\n") })()
	progress := p.progress(o.Jobs == 1 && !o.DryRun && o.Show == nil)
	results, failure := sweep.Run(ctx, o, func(e sweep.Event) {
		left.note(e)
		progress(e)
	})
	var rows [][]string
	counts := map[sweep.Verdict]int{}
	bad := 0
	for _, r := range results {
		counts[r.Verdict]++
		if r.Verdict.Bad() {
			bad++
		}
		rows = append(rows, []string{string(r.Verdict), r.Recipe, r.Duration.Round(time.Millisecond).String(), r.Why})
	}
	var unwritten error
	if t.junit != "" {
		unwritten = writeReport(t.junit, sweep.JUnit(results, failure, time.Since(begin)))
	}
	if !o.DryRun && len(results) > 0 {
		unwritten = errors.Join(unwritten, p.tellAll(context.WithoutCancel(ctx), o, t))
		p.showStatuses(context.WithoutCancel(ctx), o, t, results, func(note string) { progress(sweep.Event{Note: note}) })
	}
	if failure == nil || len(results) > 0 {
		unwritten = errors.Join(unwritten, p.show(out, results, "VERDICT|RECIPE|TIME|WHY", rows))
	}
	if failure = errors.Join(failure, unwritten); failure != nil {
		return fmt.Errorf("sweep: %w", failure)
	}
	if bad > 0 {
		return exec.Status{Code: 1, Err: fmt.Errorf("%d of %d recipes not promoted: %d held, %d in error, %d cut off", bad, len(results), counts[sweep.Hold], counts[sweep.Error], counts[sweep.Cut])}
	}
	return nil
}

// progress tells people on a terminal which run it is, and a journal a line
// for each start and verdict, with the priority that systemd reads
// (sd-daemon(3)). Skips are told by the summary.
func (p Process) progress(alone bool) func(sweep.Event) {
	terminal := exec.IsTerminal(int(p.Stderr.Fd()))
	journal := env.DetectInvoker(p.Environ, exec.IsTerminal(0)).Name == "systemd"
	return func(e sweep.Event) {
		priority, text := "", ""
		switch {
		case e.Note != "" && e.Recipe != "":
			priority, text = "<6>", fmt.Sprintf("%s: %s, %d of %d done", e.Recipe, visible(e.Note), e.Done, e.Total)
		case e.Note != "":
			priority, text = "<4>", visible(e.Note)
		case e.Result == nil:
			priority, text = "<6>", fmt.Sprintf("%s: running, %d of %d done", e.Recipe, e.Done, e.Total)
		case e.Result.Verdict == sweep.Skip, e.Result.Verdict == sweep.WouldRun:
			return
		case !e.Result.Verdict.Bad():
			priority, text = "<5>", fmt.Sprintf("%s: %s after %s: %s", e.Recipe, e.Result.Verdict, e.Result.Duration.Round(time.Second), e.Result.Why)
		default:
			priority, text = "<3>", fmt.Sprintf("%s: %s: %s", e.Recipe, e.Result.Verdict, e.Result.Why)
			if !strings.Contains(text, e.Result.Log) { // with the page of a build, some reasons end
				text += "; " + e.Result.Log
			}
		}
		switch {
		case journal:
			fmt.Fprintf(p.Stderr, "%s%s\n", priority, text)
		case terminal && alone && e.Result == nil:
			fmt.Fprintf(p.Stderr, "\r\x1b[Kcc-ci-run: %s", text) // until the next line
		case terminal && alone:
			fmt.Fprintf(p.Stderr, "\r\x1b[Kcc-ci-run: %s\n", text)
		default:
			fmt.Fprintf(p.Stderr, "cc-ci-run: %s\n", text)
		}
	}
}

// checkReport says beforehand, not after hours, that a report has no place.
func checkReport(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, err)
	}
	return nil
}

// writeReport replaces a file in one step. What is not a file, such as
// /dev/stdout, is written to.
func writeReport(path string, data []byte, options ...renameio.Option) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(path, data, 0o644)
	}
	return renameio.WriteFile(path, data, 0o644, append(options, renameio.WithTempDir(filepath.Dir(path)))...)
}
