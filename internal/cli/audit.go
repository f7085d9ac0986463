package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/audit"
	"cc-ci-run/internal/debian"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/exec/watch"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

type auditOptions struct {
	strict bool
	looks  bool
	file   string
	log    string
	rest   bool
}

func auditCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "audit [flags] SCRIPT [ARG...]",
		Short: "Run SCRIPT, and report which programs it really executes",
		Long: `audit runs SCRIPT in the declared environment, as cc-ci-run SCRIPT does. Then
audit reports on stderr which programs SCRIPT and its descendants executed:

  used        programs of the toolset that were executed
  missing     programs that were looked for and do not exist, with the lines
              to add to toolset.toml
  undeclared  programs that were executed by path and are not in the toolset
  unused      tools of the toolset of which no command was executed

audit stores the report beside the run record (with --no-record, cc-ci-run
writes neither). "cc-ci-run audit report" sums up many reports, and
"cc-ci-run sweep --audit" audits each run of a sweep.

An audited run has the output, exit status, process group and terminal of a
plain run. But SCRIPT is a child of cc-ci-run, and no program gains privileges
(no_new_privs), except under root if the toolset allows that. The audit forbids
nothing; --seal does.

Exit status: SCRIPT's own, or 128+N after signal N; with --strict, 125 if
SCRIPT succeeded and something is missing or undeclared.`,
		Example: `  cc-ci-run audit runner/run_recipe_ci.py gitea
  cc-ci-run audit --strict --report gitea.json runner/run_recipe_ci.py gitea
  cc-ci-run audit report --recipe gitea`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.rest {
				return watch.Rest(watch.Descriptor)
			}
			if len(args) == 0 {
				return errors.New("no SCRIPT: see `cc-ci-run audit --help`")
			}
			if !run.IsScript(args[0]) {
				if hint := p.meant(shared, args[0], "cc-ci-run audit"); hint != "" {
					return errors.New(hint)
				}
				return fmt.Errorf("%q is not a SCRIPT (a script has a \"/\" in it or ends in \".py\")%s", args[0], env.Suggest(args[0], []string{"report"}))
			}
			return p.audit(cmd.Context(), *shared, o, out, args)
		},
	}
	cmd.Flags().SetInterspersed(false)
	addRunFlags(cmd, shared)
	f := cmd.Flags()
	f.BoolVar(&o.strict, "strict", false, "fail if something is missing or undeclared")
	f.BoolVar(&o.looks, "looks", true, "also report commands that a program, such as a shell, looked for and did not try to execute because they do not exist; --looks=false is faster")
	f.StringVar(&o.file, "report", "", "write the report to `file` as JSON, and nothing to stderr")
	f.StringVar(&o.log, "log", "", "write each call to `file` when a program makes it, one line of JSON per call")
	f.BoolVar(&o.rest, "rest", false, "")
	_ = f.MarkHidden("rest")
	out.addTo(cmd)
	cmd.AddCommand(auditReportCommand(p, shared))
	return cmd
}

// suggestLimit is how long packages are looked up after a run.
const suggestLimit = 10 * time.Second

// audit runs a script under the audit of this process.
func (p Process) audit(ctx context.Context, shared run.Options, o auditOptions, out output, args []string) error {
	m, err := toolset.ReadManifest(p.Manifest)
	if err != nil {
		return err
	}
	var report *os.File // what cannot be written is said before the run
	if o.file != "" {
		if report, err = os.Create(o.file); err != nil {
			return err
		}
		defer report.Close()
	}
	collector := audit.NewCollector(m)
	see := collector.See
	if o.log != "" {
		log, err := os.Create(o.log)
		if err != nil {
			return err
		}
		defer log.Close()
		see = logged(log, see)
	}
	shared.Audited = strconv.FormatBool(o.looks)
	request := run.Request{Options: shared, Mode: run.Script, Program: args[0], Args: args[1:]}
	begin := time.Now()
	status, who, err := p.watched(request, watch.Watcher{Interesting: collector.Interesting, Known: collector.Known, See: see})
	if err != nil || who == nil {
		return exec.Status{Code: status, Err: err}
	}
	r := collector.Report(audit.Run{ID: who.ID, Time: who.Time, Recipe: who.Recipe, Invoker: who.Invoker, Fingerprint: who.Fingerprint}, status, time.Since(begin))
	p.keepReport(ctx, m, r, who.State)
	if err := p.showReport(m, r, report, out); err != nil { // the script's status counts
		exec.Tell(p.Stderr, "cc-ci-run: the audit's report: "+err.Error()+"\n")
	}
	if o.strict && status == 0 && r.Faults() > 0 {
		return faults(len(r.Missing), len(r.Undeclared))
	}
	if status != 0 {
		return exec.Status{Code: status}
	}
	return nil
}

// logged has each call written to a log, too.
func logged(log io.Writer, see func(watch.Call)) func(watch.Call) {
	lines := json.NewEncoder(log)
	return func(c watch.Call) {
		_ = lines.Encode(c) // a full disk does not stop a run
		see(c)
	}
}

// watched runs what is requested under the audit of w, and gives its exit status. who
// says which run it is; nil if it did not become the script, and has said why.
func (p Process) watched(request run.Request, w watch.Watcher) (status int, who *run.Audited, err error) {
	self, err := os.Executable()
	if err != nil {
		return exec.StatusFailed, nil, err
	}
	argv := append([]string{p.Args[0]}, request.Argv()...)
	status, hello, err := watch.Run(p.Program, argv, p.Environ, []string{self, "audit", "--rest"}, w)
	if err != nil || hello == nil {
		return status, nil, err
	}
	is, err := run.ParseAudited(hello)
	if err != nil {
		return exec.StatusFailed, nil, fmt.Errorf("audit: %w", err)
	}
	return status, &is, nil
}

// keepReport completes a report and puts it into the state directory of the run, if
// that keeps a record.
func (p Process) keepReport(ctx context.Context, m *toolset.Manifest, r *audit.Report, dir state.Dir) {
	ctx, cancel := context.WithTimeout(ctx, suggestLimit)
	defer cancel()
	r.Suggest(ctx, m, audit.Packages{Owners: debian.Owners, Known: debian.Known})
	if dir == "" {
		return
	}
	if err := r.Write(dir); err != nil {
		exec.Tell(p.Stderr, "cc-ci-run: the audit's report is not kept: "+err.Error()+"\n")
	}
}

// showReport writes the report of one run to a file, or shows it on stderr:
// stdout is the script's.
func (p Process) showReport(m *toolset.Manifest, r *audit.Report, file *os.File, out output) error {
	if file != nil || out == "json" {
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		data = append(data, '\n')
		if file != nil {
			_, err = file.Write(data)
			return err
		}
		exec.Tell(p.Stderr, string(data))
		return nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "cc-ci-run: audit of %s: %d used, %d missing, %d undeclared, %d tools unused\n", visible(r.Run.Recipe), len(r.Used), len(r.Missing), len(r.Undeclared), len(r.Unused))
	err := p.auditTable(&text, audit.Merge(m, []*audit.Report{r}), false)
	exec.Tell(p.Stderr, text.String())
	return err
}

// auditTable writes a report as a table, and what to add to toolset.toml. Of
// many runs it says which recipes, of one run when it was.
func (p Process) auditTable(w io.Writer, t *audit.Total, many bool) error {
	var rows [][]string
	head := "WHAT|NAME|TOOL|TIMES|BY|FIRST"
	if many {
		head = "WHAT|NAME|TOOL|TIMES|BY|RECIPES|INVOKERS"
	}
	add := func(what, name, tool string, times int, by map[string]int, first float64, where audit.Where) {
		row := []string{what, name, tool, strconv.Itoa(times), audit.Programs(by)}
		if many {
			row = append(row, strings.Join(where.Recipes, " "), strings.Join(where.Invokers, " "))
		} else {
			row = append(row, strconv.FormatFloat(first, 'f', 2, 64)+" s")
		}
		rows = append(rows, row)
	}
	var fixes []string
	for _, u := range t.Used {
		add("used", u.Name, u.Tool, u.Times, u.By, u.First, u.Where)
	}
	for _, miss := range t.Missing {
		add("missing", miss.Name, miss.Fix.String(), miss.Times, miss.By, miss.First, miss.Where)
		if miss.Fix.TOML != "" {
			fixes = append(fixes, miss.Fix.TOML)
		}
	}
	for _, u := range t.Undeclared {
		add("undeclared", u.Name, "", u.Times, u.By, u.First, u.Where)
	}
	if err := p.table(w, head, rows); err != nil {
		return err
	}
	if len(t.Unused) > 0 {
		rows = nil
		for _, u := range t.Unused {
			rows = append(rows, []string{u.Tool, u.Why})
		}
		fmt.Fprintln(w)
		if err := p.table(w, "UNUSED|WHY IT IS DECLARED", rows); err != nil {
			return err
		}
	}
	if t.Unreadable > 0 {
		fmt.Fprintf(w, "calls that could not be read, of processes that cc-ci-run may not look at: %d\n", t.Unreadable)
	}
	if t.Omitted > 0 {
		fmt.Fprintf(w, "calls for further names, of which there were too many to list: %d\n", t.Omitted)
	}
	if len(fixes) > 0 {
		fmt.Fprintf(w, "\nto add to toolset.toml:\n\n%s", strings.Join(fixes, "\n"))
	}
	return nil
}

// auditReportOptions are the flags of audit report.
type auditReportOptions struct {
	out    output
	recipe string
	last   int
	strict bool
}

func auditReportCommand(p Process, shared *run.Options) *cobra.Command {
	var o auditReportOptions
	cmd := &cobra.Command{
		Use:   "report [flags]",
		Short: "Sum up the audits of many runs",
		Long: `report merges the audit reports in the state directory, and shows which programs
each recipe executes, for which invokers, which programs are missing or
undeclared in any run, and which tools of the toolset no run used.`,
		Example: `  cc-ci-run audit report
  cc-ci-run audit report --recipe gitea --last 10 --output json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notOfReport(cmd); err != nil {
				return err
			}
			if o.last < 0 {
				return fmt.Errorf("--last %d: not a number of runs", o.last)
			}
			return p.auditReport(*shared, o)
		},
	}
	f := cmd.Flags()
	addState(cmd, shared)
	f.StringVar(&o.recipe, "recipe", "", "only runs of this `recipe`")
	_ = cmd.RegisterFlagCompletionFunc("recipe", completeRecipes(p, shared))
	f.IntVar(&o.last, "last", 100, "only the newest `N` runs; 0 for all")
	f.BoolVar(&o.strict, "strict", false, "fail if something is missing or undeclared")
	o.out.addTo(cmd)
	return cmd
}

// notOfReport refuses flags of the audit of a SCRIPT before "report".
func notOfReport(cmd *cobra.Command) error {
	var before []string
	for _, name := range []string{"strict", "output", "report", "log", "looks", "pty", "no-record", "seal"} {
		if cmd.Parent().Flags().Changed(name) {
			before = append(before, "--"+name)
		}
	}
	if len(before) == 0 {
		return nil
	}
	return fmt.Errorf("%s before \"report\": that is of the audit of a SCRIPT; flags of report come after it", strings.Join(before, ", "))
}

func (p Process) auditReport(shared run.Options, o auditReportOptions) error {
	m, err := toolset.ReadManifest(p.Manifest)
	if err != nil {
		return err
	}
	dir := shared.StateDir(p.Environ, m.State)
	reports, skipped, err := audit.Newest(dir, o.recipe, o.last)
	if err != nil {
		return err
	}
	for _, err := range skipped {
		exec.Tell(p.Stderr, "cc-ci-run: passed over: "+err.Error()+"\n")
	}
	if len(reports) == 0 {
		of := ""
		if o.recipe != "" {
			of = " of " + o.recipe
		}
		return fmt.Errorf("no audits%s in %s: make one by `cc-ci-run audit SCRIPT`", of, dir.Path(state.Audits, ""))
	}
	total := audit.Merge(m, reports)
	if o.out == "json" {
		err = p.show(o.out, total, "", nil)
	} else {
		err = p.auditTable(p.Stdout, total, true)
	}
	if err == nil && o.strict && len(total.Missing)+len(total.Undeclared) > 0 {
		err = faults(len(total.Missing), len(total.Undeclared))
	}
	return err
}

func faults(missing, undeclared int) error {
	return fmt.Errorf("audit: %d missing, %d undeclared: declare them in toolset.toml, or fix what executes them", missing, undeclared)
}
