// Package host says whether a CI host is healthy: what an operator looks at
// after a deploy, in one call.
//
//	config, err := host.ReadConfig(host.ConfigFile, true, socket)
//	report := host.Look(ctx, host.Host{Config: config, Manifest: m, …})
//
// Each check has a name, a time limit and a result; all run at the same time,
// so that a check that hangs costs no other anything. What can't be looked at
// is a result, too: for want of root it is left out, otherwise unknown.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/parity"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
	"cc-ci-run/internal/systemd"
	"cc-ci-run/internal/toolset"
)

// Host is what there is to look at.
type Host struct {
	Config   *Config
	Manifest *toolset.Manifest
	State    state.Dir // the state directory
	Environ  []string  // of the caller
	// ManifestFile and Plan are the files of Manifest and its compiled form.
	ManifestFile, Plan string
	Root               bool // whether this process is root
	// Light leaves out the checks that start programs or reach over the network.
	Light bool
}

// Report is all that was found at one time.
type Report struct {
	Time        time.Time         `json:"time"`
	Healthy     bool              `json:"healthy"`
	Fingerprint string            `json:"fingerprint"`
	Results     []finding.Finding `json:"results"`
	Sweep       *Sweep            `json:"sweep,omitempty"`
	// Failed counts failed units, -1 if that is not known.
	Failed int `json:"failed_units"`
}

// Sweep is the last one, as far as it is known.
type Sweep struct {
	End      time.Time             `json:"end,omitzero"` // zero: it did not end, or none is known
	Status   int                   `json:"status"`       // its exit status, if it ended
	Held     int                   `json:"held"`         // recipes that are held
	Verdicts map[sweep.Verdict]int `json:"verdicts"`
}

// Count says how many results have a verdict.
func (r Report) Count(v finding.Verdict) int {
	n := 0
	for _, result := range r.Results {
		if result.Verdict == v {
			n++
		}
	}
	return n
}

// Wrong are the results that keep the host from being healthy.
func (r Report) Wrong() []finding.Finding {
	var list []finding.Finding
	for _, result := range r.Results {
		if result.Verdict == finding.Fault || result.Verdict == finding.Unknown {
			list = append(list, result)
		}
	}
	return list
}

// Worse are the results of r.Wrong that are not as in an earlier report: what was well
// then, or was not looked at, or had another fault. Of what could not be looked at, then
// or now, nobody knows whether it got worse: it did not, if it was wrong before.
func (r Report) Worse(earlier Report) []finding.Finding {
	type fault struct{ what, state string }
	was, unknown := map[fault]bool{}, map[string]bool{}
	wrong := map[string]bool{}
	for _, e := range earlier.Wrong() {
		wrong[e.What] = true
		if e.Verdict == finding.Unknown {
			unknown[e.What] = true
		}
		was[fault{e.What, withoutNumbers(e.State)}] = true
	}
	return slices.DeleteFunc(r.Wrong(), func(now finding.Finding) bool {
		if now.Verdict == finding.Unknown || unknown[now.What] {
			return wrong[now.What]
		}
		return was[fault{now.What, withoutNumbers(now.State)}]
	})
}

// withoutNumbers leaves out of a text what changes while a fault stays: each word with a
// digit in it (a time, a number of restarts, a size), and units.
func withoutNumbers(text string) string {
	words := slices.DeleteFunc(strings.Fields(text), func(word string) bool {
		return strings.ContainsAny(word, "0123456789") || units[strings.Trim(word, ",;:.()")]
	})
	return strings.Join(words, " ")
}

var units = map[string]bool{
	"day": true, "days": true, "hour": true, "hours": true, "minute": true, "minutes": true, "second": true, "seconds": true,
	"s": true, "ms": true, "B": true, "KiB": true, "MiB": true, "GiB": true, "bytes": true, "%": true, "once": true, "time": true, "times": true,
}

// check is one look. It may give several results, and must not outlast ctx;
// if it does, it is left behind.
type check struct {
	name  string
	limit time.Duration
	look  func(context.Context) []finding.Finding
}

// environmentLimit is longer than other checks': [toolset.Manifest.Check] starts Python and
// then a browser, and gives each of them three minutes.
const environmentLimit = 7 * time.Minute

// Look makes all checks at once. Results are in the order of the checks,
// faults of one check in a stable order.
func Look(ctx context.Context, h Host) Report {
	report := Report{Time: time.Now().UTC(), Fingerprint: h.Manifest.Fingerprint(), Failed: -1}
	// All that is asked of systemd goes over one connection.
	report.Results = limited(ctx, check{"D-Bus", h.Config.Timeout, h.connect})
	s := manager{config: h.Config}
	for _, r := range report.Results {
		if conn, ok := r.Detail.(*dbus.Conn); ok {
			s.conn = conn
			defer conn.Close()
		}
	}
	report.Results = append(report.Results, atOnce(ctx, h.checks(ctx, s))...)
	for _, r := range report.Results {
		switch detail := r.Detail.(type) {
		case *Sweep:
			report.Sweep = detail
		case failedUnits:
			report.Failed = int(detail)
		}
	}
	report.Healthy = report.Count(finding.Fault) == 0 && report.Count(finding.Unknown) == 0
	return report
}

// checks are all that can be made.
func (h Host) checks(ctx context.Context, s manager) []check {
	c := h.Config
	checks := s.checks()
	for _, e := range c.Endpoints {
		if h.Light {
			break
		}
		limit := c.Timeout
		if e.Timeout > 0 {
			limit = e.Timeout
		}
		checks = append(checks, check{e.name(), limit, e.look})
	}
	// Two checks ask for the sweep's unit.
	sweepUnit := sync.OnceValue(func() systemd.Properties { return s.unit(ctx, c.Sweep) })
	if !h.Light {
		checks = append(checks, check{"environment", environmentLimit, h.environment})
	}
	checks = append(
		checks,
		check{"parity", c.Timeout, h.parity},
		check{"last sweep", c.Timeout, func(context.Context) []finding.Finding { return h.sweep(sweepUnit) }},
		check{"state directory", c.Timeout, func(context.Context) []finding.Finding { return h.disk(sweepUnit) }},
	)
	if c.Docker != "" {
		checks = append(checks, check{"docker", c.Timeout, h.docker})
	}
	return checks
}

// atOnce makes checks at the same time, and gives what they find in their order.
func atOnce(ctx context.Context, checks []check) []finding.Finding {
	found := make([][]finding.Finding, len(checks))
	var all sync.WaitGroup
	for i, check := range checks {
		all.Go(func() { found[i] = limited(ctx, check) })
	}
	all.Wait()
	return slices.Concat(found...)
}

// limited makes a check, for as long as it may take. One that hangs in the
// kernel, on a dead network file system, is left to itself.
func limited(ctx context.Context, c check) []finding.Finding {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	done := make(chan []finding.Finding, 1)
	go func() { done <- c.look(ctx) }()
	select {
	case results := <-done:
		return results
	case <-ctx.Done():
	}
	// It may have noticed by itself, and knows more.
	select {
	case results := <-done:
		return results
	case <-time.After(50 * time.Millisecond):
		return []finding.Finding{{Verdict: finding.Unknown, What: c.name, State: fmt.Sprintf("no answer within %s", c.limit), Fix: "look at it by hand: it hangs"}}
	}
}

func one(v finding.Verdict, check, state, fix string) []finding.Finding {
	return []finding.Finding{{Verdict: v, What: check, State: state, Fix: fix}}
}

// environment is `cc-ci-run check`, in one line.
func (h Host) environment(ctx context.Context) []finding.Finding {
	const name = "environment"
	results, err := h.Manifest.Check(ctx, h.Environ, h.ManifestFile, h.Plan)
	if err != nil {
		return one(finding.Unknown, name, err.Error(), "cc-ci-run check")
	}
	var faults []string
	for _, r := range results {
		if r.Verdict == finding.Fault {
			faults = append(faults, r.What+": "+r.State)
		}
	}
	if len(faults) > 0 {
		return one(finding.Fault, name, fmt.Sprintf("%d of %d checks found a fault: %s", len(faults), len(results), strings.Join(faults, "; ")), "cc-ci-run check says how")
	}
	return one(finding.OK, name, fmt.Sprintf("%.12s, %d checks", h.Manifest.Fingerprint(), len(results)), "")
}

// parity is `cc-ci-run parity`, in one line.
func (h Host) parity(context.Context) []finding.Finding {
	name := "parity of " + strings.Join(h.Config.Parity[:], " and ")
	var runs [2]parity.Run
	records, err := record.Open(h.State)
	if err != nil {
		return one(finding.Unknown, name, err.Error(), "cc-ci-run parity")
	}
	defer records.Close()
	unused := ""
	for i, invoker := range h.Config.Parity {
		r, passedOver, err := records.Newest(invoker, "")
		for _, fault := range passedOver {
			unused += "; passed over: " + fault.Error()
		}
		if err == nil {
			runs[i].Record = r
			runs[i].Environment, err = parity.Kept(h.State, r.Fingerprint, h.Manifest)
		}
		switch {
		case errors.Is(err, record.ErrNone):
			return one(finding.Note, name, "no run by "+invoker+" yet"+unused, record.HowToStart(invoker, "")+", or: sudo cc-ci-run parity --live")
		case err != nil:
			return one(finding.Unknown, name, err.Error(), "cc-ci-run parity")
		}
	}
	older := runs[0].Time
	if runs[1].Time.Before(older) {
		older = runs[1].Time
	}
	var drifts []string
	findings := parity.Compare(runs[0], runs[1])
	for _, f := range findings {
		if f.Verdict == parity.Drift {
			drifts = append(drifts, f.What)
		}
	}
	ages := fmt.Sprintf("%s's record is %s old, %s's %s%s", h.Config.Parity[0], age(runs[0].Time), h.Config.Parity[1], age(runs[1].Time), unused)
	result := finding.Finding{Verdict: finding.OK, What: name, State: fmt.Sprintf("%d comparisons, no drift; %s", len(findings), ages), Since: older}
	if len(drifts) > 0 {
		result.Verdict, result.Fix = finding.Fault, "cc-ci-run parity names both sides; after a deploy: sudo cc-ci-run parity --live"
		result.State = fmt.Sprintf("%d drifts (%s); %s", len(drifts), strings.Join(drifts, ", "), ages)
		// What ran before this environment was deployed says nothing of it.
		if slices.ContainsFunc(runs[:], func(r parity.Run) bool { return r.Fingerprint != h.Manifest.Fingerprint() }) {
			result.Verdict = finding.Note
			result.State = "not both have run in this environment yet; " + ages
		}
	}
	return []finding.Finding{result}
}

// sweep tells of the last sweep: how it ended, by its own word and its unit's,
// and which recipes are held. That recipes are held is not a fault of the host.
func (h Host) sweep(unit func() systemd.Properties) []finding.Finding {
	const name = "last sweep"
	states, faults, err := sweep.States(h.State, h.Manifest.Git())
	if state.Damaged(err) { // the state directory's own line says what to do
		return one(finding.Note, name, err.Error(), "")
	}
	if errors.Is(err, fs.ErrPermission) && !h.Root { // what tests print is in it
		return one(finding.LeftOut, name, "only root and the state directory's group may look", "again as root")
	}
	if err != nil {
		return one(finding.Unknown, name, err.Error(), "")
	}
	summary, err := sweep.Last(h.State)
	if err != nil {
		return one(finding.Unknown, name, err.Error(), "the next sweep writes it anew")
	}
	last := &Sweep{Verdicts: map[sweep.Verdict]int{}}
	var held, failed []string
	for _, state := range states {
		last.Verdicts[state.Last.Verdict]++
		switch {
		case state.Held:
			held = append(held, state.Last.Recipe)
		case state.Last.Verdict == sweep.Error:
			failed = append(failed, state.Last.Recipe)
		}
	}
	last.Held = len(held)
	result := finding.Finding{Verdict: finding.OK, What: name, Detail: last}
	if summary != nil {
		last.End, last.Status, result.Since = summary.Ended, summary.Status, summary.Ended
		if summary.Failure != "" {
			result.Verdict, result.State, result.Fix = finding.Fault, "the sweep failed: "+summary.Failure+"; ", "journalctl -u "+h.Config.Sweep
		}
	}
	h.sweepUnit(unit(), last, &result)
	switch {
	case len(states) == 0 && result.State == "":
		result.Verdict, result.State = finding.Note, "no recipe was swept yet"
	case len(held)+len(failed) > 0:
		if result.Verdict == finding.OK {
			result.Verdict, result.Fix = finding.Note, "their tests, not the host: the logs are in "+h.State.Path(state.Logs, "")
		}
		result.State += fmt.Sprintf("%d of %d recipes held: %s", len(held)+len(failed), len(states), strings.Join(append(held, failed...), ", "))
	default:
		result.State += fmt.Sprintf("%d recipes, none held", len(states))
	}
	results := []finding.Finding{result}
	if len(faults) > 0 {
		text := fmt.Sprintf("%d files cannot be used, the first: %s", len(faults), faults[0])
		results = append(results, finding.Finding{Verdict: finding.Fault, What: "sweep's state", State: text, Fix: "the next sweep sets aside what is damaged; what a newer cc-ci-run wrote stays"})
	}
	return results
}

// sweepUnit adds what systemd says of the sweep's unit: that it could not be
// started, or was killed, no sweep could write down itself.
func (h Host) sweepUnit(p systemd.Properties, last *Sweep, result *finding.Finding) {
	if p == nil {
		return
	}
	if end := p.Time("ExecMainExitTimestamp"); end.After(last.End) {
		last.End, last.Status, result.Since = end, int(p.Number("ExecMainStatus")), end
	}
	// 1 is the sweep's word for held recipes; all else is its own failure, also
	// that it could not be started at all.
	held := p.Text("Result") == "exit-code" && p.Number("ExecMainStatus") == 1
	if p.Text("Result") != "success" && !held {
		result.Verdict, result.Since = finding.Fault, p.Time("StateChangeTimestamp")
		result.State = fmt.Sprintf("%s ended with %s, exit status %d; ", h.Config.Sweep, p.Text("Result"), p.Number("ExecMainStatus"))
		result.Fix = "journalctl -u " + h.Config.Sweep
	}
}

// disk looks at the file system of the state directory.
func (h Host) disk(unit func() systemd.Properties) []finding.Finding {
	const name = "state directory"
	var fsys unix.Statfs_t
	if err := unix.Statfs(string(h.State), &fsys); errors.Is(err, fs.ErrNotExist) {
		return one(finding.Fault, name, string(h.State)+" is not there", "systemd-tmpfiles --create, or make it for the tests' user")
	} else if err != nil {
		return one(finding.Unknown, name, fmt.Sprintf("%s: %v", h.State, err), "")
	}
	free, inodes := fsys.Bavail*uint64(fsys.Frsize), fsys.Ffree
	state := fmt.Sprintf("%s: %d MiB and %d files free", h.State, free>>20, inodes)
	if fsys.Files == 0 { // btrfs counts none
		state = fmt.Sprintf("%s: %d MiB free", h.State, free>>20)
	}
	const fix = "make room: docker system prune, cc-ci-run prune"
	switch {
	case fsys.Flags&unix.ST_RDONLY != 0:
		return one(finding.Fault, name, string(h.State)+" is read-only", "look at the disk (dmesg), then mount it again")
	case free < h.Config.MinFree:
		return one(finding.Fault, name, fmt.Sprintf("%s; %d MiB are wanted", state, h.Config.MinFree>>20), fix)
	case fsys.Files > 0 && inodes < h.Config.MinInodes:
		return one(finding.Fault, name, fmt.Sprintf("%s; %d files are wanted", state, h.Config.MinInodes), fix)
	}
	// Who runs tests must be able to write there.
	if user := unit().Text("User"); user != "" {
		if why := writableFor(string(h.State), user); why != "" {
			return one(finding.Fault, name, string(h.State)+": "+why, "chown it to the tests' user; systemd-tmpfiles --create")
		}
	}
	for _, f := range h.State.Check() {
		if f.Verdict == finding.Fault {
			return one(finding.Fault, name, f.State, f.Fix)
		}
	}
	return one(finding.OK, name, state, "")
}

// writableFor says why a user cannot write to a directory, by its mode.
func writableFor(dir, name string) string {
	account, err := user.Lookup(name)
	if err != nil {
		return err.Error()
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err.Error()
	}
	if !info.IsDir() {
		return "is not a directory"
	}
	owner := info.Sys().(*syscall.Stat_t)
	groups, _ := account.GroupIds()
	var bit os.FileMode = 0o002
	switch {
	case strconv.Itoa(int(owner.Uid)) == account.Uid:
		bit = 0o200
	case slices.Contains(groups, strconv.Itoa(int(owner.Gid))):
		bit = 0o020
	}
	if info.Mode()&bit == 0 {
		return name + " may not write there"
	}
	return ""
}

// age is a time's, in the two units that matter.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
