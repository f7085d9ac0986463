package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/plaintext"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/runs"
	"cc-ci-run/internal/toolset"
)

// runsSchema is the version of the JSON of runs and of runs show.
const runsSchema = 1

func runsCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	var which record.Which
	last := 20
	cmd := &cobra.Command{
		Use:   "runs [flags]",
		Short: "List runs by any invoker, the newest first",
		Long: `runs lists the runs that are recorded in the state directory, whoever started
them. For each run it shows how the run ended, how many of its tests failed, how
long ago it started, its invoker, the recipe or script, the beginning of the
environment's fingerprint, and the shortest unique beginning of the run's ID.

The outcome of a sweep's run is the sweep's verdict, in capital letters. The
outcome of another run is passed, failed, ended (before pytest did), running, or
"no result", for example of a script that is not a recipe's tests; exec and
shell have none ("-").`,
		Example: `  cc-ci-run runs
  cc-ci-run runs --recipe gitea --invoker drone -n 5
  cc-ci-run runs show 20261126T054950
  cc-ci-run runs -o json | jq -r '.runs[] | select(.outcome == "failed").id'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if which.Invoker != "" && !slices.Contains(toolset.Invokers, which.Invoker) {
				return notAnInvoker(which.Invoker)
			}
			if last < 1 {
				return fmt.Errorf("--last %d: must be at least 1", last)
			}
			l, m, err := p.openRuns(shared)
			if err != nil {
				return err
			}
			defer l.Close()
			list, passedOver := l.Newest(which, last)
			for _, err := range passedOver {
				p.complain(err)
			}
			if out == "table" && len(list) == 0 {
				p.complain(fmt.Errorf("no matching run is recorded in %s", shared.StateDir(p.Environ, m.State)))
				return nil
			}
			return p.showRuns(out, l, list)
		},
	}
	f := cmd.Flags()
	addState(cmd, shared)
	f.StringVar(&which.Recipe, "recipe", "", "only runs of this `recipe`")
	f.StringVar(&which.Invoker, "invoker", "", "only runs by this `invoker`: drone, systemd or manual")
	f.IntVarP(&last, "last", "n", last, "list this many runs")
	_ = cmd.RegisterFlagCompletionFunc("recipe", completeRecipes(p, shared))
	_ = cmd.RegisterFlagCompletionFunc("invoker", cobra.FixedCompletions(toolset.Invokers, cobra.ShellCompDirectiveNoFileComp))
	out.addTo(cmd)
	cmd.AddCommand(runsShowCommand(p, shared))
	return cmd
}

// openRuns opens the state directory's runs, and reads the present manifest.
func (p Process) openRuns(shared *run.Options) (*runs.List, *toolset.Manifest, error) {
	m, err := toolset.ReadManifest(p.Manifest)
	if err != nil {
		return nil, nil, err
	}
	l, err := runs.Open(shared.StateDir(p.Environ, m.State), m.Git())
	return l, m, err
}

func (p Process) showRuns(out output, l *runs.List, list []*runs.Run) error {
	now := time.Now()
	rows := make([][]string, len(list))
	for i, r := range list {
		failed := ""
		if t := r.Tests; t != nil {
			failed = fmt.Sprintf("%d of %d", t.Failed, t.Total)
		}
		rows[i] = []string{outcome(r), failed, age(now.Sub(r.Started)), r.Invoker, r.Of, fmt.Sprintf("%.8s", r.Fingerprint), l.Short(r.ID)}
	}
	return p.show(out, struct {
		Schema int         `json:"schema"`
		Runs   []*runs.Run `json:"runs"`
	}{runsSchema, append([]*runs.Run{}, list...)}, "OUTCOME|FAILED|AGE|INVOKER|RUN|ENV|ID", rows)
}

// outcome is how a run ended, in a word: for a run of a sweep, the verdict.
func outcome(r *runs.Run) string {
	switch {
	case r.Verdict != "":
		return string(r.Verdict)
	case r.Outcome == runs.Unasked:
		return "-"
	}
	return string(r.Outcome)
}

// age writes how long ago a run started, in its largest unit.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

func runsShowCommand(p Process, shared *run.Options) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "show [flags] ID",
		Short: "Show one run: who started it, its environment, and how it ended",
		Long: `show shows the record of a run, which was written when the run started, and how
the run ended: invoker, command, environment, process state, the log, and each
test (failed tests come first). ID is the ID of a run, or a beginning that no
other ID has. For a run of a sweep, ID can also be the ID that "sweep history
--output json" shows.

With --output json, show also prints the whole record, and the whole message and
trace of each test.`,
		Example: `  cc-ci-run runs show 20261126T054950
  cc-ci-run runs show --output json 20261126T054950 | jq -r '.tests[0].trace'`,
		Args:              oneArgument("ID", "`cc-ci-run runs` lists the IDs"),
		ValidArgsFunction: completeRuns(p, shared),
		RunE: func(_ *cobra.Command, args []string) error {
			l, m, err := p.openRuns(shared)
			if err != nil {
				return err
			}
			defer l.Close()
			r, entry, err := l.Find(args[0])
			if err != nil {
				return err
			}
			tests, err := l.Tests(r)
			if err != nil {
				p.complain(err)
			}
			if out == "json" {
				return p.show(out, struct {
					Schema int             `json:"schema"`
					Run    *runs.Run       `json:"run"`
					Record json.RawMessage `json:"record"`
					Tests  []record.Test   `json:"tests"`
				}{runsSchema, r, entry.AppendJSON(nil), append([]record.Test{}, tests...)}, "", nil)
			}
			return p.showRun(shared, m, r, entry, tests)
		},
	}
	addState(cmd, shared)
	out.addTo(cmd)
	return cmd
}

func (p Process) showRun(shared *run.Options, m *toolset.Manifest, r *runs.Run, entry *record.Record, tests []record.Test) error {
	var rows [][]string
	row := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	var why []string
	if r.Tests != nil && r.Verdict == "" { // the reason of a verdict has it
		why = append(why, r.Tests.String())
	}
	if r.Why != "" {
		why = append(why, r.Why)
	}
	row("outcome", strings.TrimSuffix(outcome(r)+": "+strings.Join(why, "; "), ": "))
	if r.Mode == "script" && r.Of != filepath.Base(entry.Program) {
		row("recipe", r.Of)
	}
	row("revision", r.Revision)
	row("invoker", strings.TrimSpace(r.Invoker+" "+r.InvokerID))
	row("started", r.Started.UTC().Format(time.RFC3339))
	if r.Took > 0 {
		row("took", r.Took.Round(time.Millisecond).String())
	}
	row("command", strings.Join(append([]string{entry.Program}, entry.Args...), " "))
	row("directory", entry.Directory)
	row("environment", p.environmentOf(shared, m, entry))
	row("process", processOf(entry))
	if d := entry.Docker; d != nil {
		row("docker", strings.TrimSpace(string(d.State)+" "+d.Version+" "+d.Reason))
	}
	row("log", r.Log)
	row("result", r.Result)
	if err := p.table(p.Stdout, "RUN|"+r.ID, rows); err != nil || len(tests) == 0 {
		return err
	}
	rows = nil
	for _, t := range tests {
		rows = append(rows, []string{t.Status, (time.Duration(t.Duration) * time.Millisecond).String(), t.Name})
	}
	fmt.Fprintln(p.Stdout)
	if err := p.table(p.Stdout, "OUTCOME|TIME|TEST", rows); err != nil {
		return err
	}
	if rows = messagesOf(tests); len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(p.Stdout)
	return p.table(p.Stdout, "TEST|MESSAGE", rows)
}

// messagesOf are the messages of tests, each once: seven tests may be skipped for one
// reason.
func messagesOf(tests []record.Test) (rows [][]string) {
	of := map[[2]string]int{}
	for _, t := range tests {
		of[[2]string{t.Status, t.Message}]++
	}
	for _, t := range tests {
		key := [2]string{t.Status, t.Message}
		n := of[key]
		delete(of, key)
		switch {
		case t.Message == "" || n == 0:
		case n == 1:
			rows = append(rows, []string{t.Name[strings.LastIndexByte(t.Name, ':')+1:], shorten(t.Message)})
		default:
			rows = append(rows, []string{fmt.Sprintf("%d %s", n, t.Status), shorten(t.Message)})
		}
	}
	return rows
}

// shorten cuts a message for a table.
func shorten(message string) string { return plaintext.Shorten(strings.TrimSpace(message), 300) }

// environmentOf says which environment a run had, compared with the present one.
func (p Process) environmentOf(shared *run.Options, m *toolset.Manifest, entry *record.Record) string {
	text := fmt.Sprintf("%.12s", entry.Fingerprint)
	if entry.Fingerprint == m.Fingerprint() {
		return text + ", the present environment"
	}
	then, err := parity.Kept(shared.StateDir(p.Environ, m.State), entry.Fingerprint, m)
	if err != nil {
		return text + ", whose manifest is not kept"
	}
	changes := toolset.Strings(toolset.Difference(then, m))
	if len(changes) == 0 {
		return text + ", which differs from the present one only in reasons and places"
	}
	const most = 3
	text += "; changed since then: " + strings.Join(changes[:min(len(changes), most)], ", ")
	if len(changes) > most {
		text += fmt.Sprintf(" and %d more changes (cc-ci-run env diff %.12s)", len(changes)-most, entry.Fingerprint)
	}
	return text
}

// processOf is the process state of a run in brief.
func processOf(entry *record.Record) string {
	s := entry.Process
	first := func(ids string) string {
		id, _, _ := strings.Cut(ids, " ")
		return id
	}
	parts := []string{"user " + first(s.UID), "group " + first(s.GID), "umask " + s.Umask, fmt.Sprintf("nice %d", s.Nice)}
	if entry.Surroundings != nil {
		parts = append(parts, "on "+entry.Surroundings.Hostname)
	}
	for _, f := range []struct {
		is   bool
		what string
	}{{s.NoNewPrivs, "no_new_privs"}, {entry.Pty, "pty"}, {entry.Audited, "audited"}, {entry.Sealed == "full", "sealed"}} {
		if f.is {
			parts = append(parts, f.what)
		}
	}
	return strings.Join(parts, ", ")
}
