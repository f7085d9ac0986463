package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/systemd"
)

// connect opens a connection to systemd, the detail of a result.
func (h Host) connect(ctx context.Context) []finding.Finding {
	conn, noBus, err := systemd.Connect(ctx)
	if err == nil && noBus == nil {
		return []finding.Finding{{Verdict: finding.OK, What: "D-Bus", State: "answers", Detail: conn}}
	}
	bus := finding.Finding{Verdict: finding.Fault, What: "D-Bus", State: fmt.Sprintf("does not answer: %v", noBus), Fix: "systemctl start dbus.socket dbus.service"}
	switch {
	case err == nil:
		bus.Detail = conn
		return []finding.Finding{bus}
	case h.Root:
		return append([]finding.Finding{bus}, one(finding.Unknown, "systemd", err.Error(), "is it this host's init?")...)
	}
	return append([]finding.Finding{bus}, one(finding.Unknown, "systemd", "cannot be asked without D-Bus", "again as root: root needs no D-Bus for it")...)
}

// manager is systemd, asked over one connection.
type manager struct {
	config *Config
	conn   *dbus.Conn // nil if there is none
}

// unit gives the properties of a unit, nil if they cannot be had.
func (s manager) unit(ctx context.Context, name string) systemd.Properties {
	if s.conn == nil || name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	p, _ := systemd.Unit(ctx, s.conn, name)
	return p
}

// failedUnits is how many units failed that may not.
type failedUnits int

// failed lists failed units, and counts those that may not.
func (s manager) failed(ctx context.Context) []finding.Finding {
	const name = "failed units"
	units, err := s.conn.ListUnitsByPatternsContext(ctx, []string{"failed"}, nil)
	if err != nil {
		return one(finding.Unknown, name, err.Error(), "systemctl --failed")
	}
	slices.SortFunc(units, func(a, b dbus.UnitStatus) int { return strings.Compare(a.Name, b.Name) })
	var results []finding.Finding
	count := 0
	for _, u := range units {
		r := finding.Finding{Verdict: finding.Fault, What: "unit " + u.Name, State: "failed", Fix: "journalctl -u " + u.Name + "; systemctl reset-failed " + u.Name}
		if p, err := systemd.Unit(ctx, s.conn, u.Name); err == nil {
			r.Since = p.Time("StateChangeTimestamp")
			if result := p.Text("Result"); result != "" {
				r.State = "failed: " + result
			}
		}
		if why, ok := s.config.AllowFailed[u.Name]; ok {
			r.Verdict, r.Fix = finding.Note, "allowed: "+why
		} else {
			count++
		}
		results = append(results, r)
	}
	summary := finding.Finding{Verdict: finding.OK, What: name, State: "none", Detail: failedUnits(count)}
	if count > 0 {
		summary.Verdict, summary.State, summary.Fix = finding.Fault, fmt.Sprint(count), "see below"
	}
	return append([]finding.Finding{summary}, results...)
}

// checks are those of the failed units, and of single ones; none without a connection.
func (s manager) checks() []check {
	if s.conn == nil {
		return nil
	}
	list := []check{{"failed units", s.config.Timeout, s.failed}}
	add := func(what, name string, look func(check, name string, p systemd.Properties) []finding.Finding) {
		title := what + name
		list = append(list, check{title, s.config.Timeout, func(ctx context.Context) []finding.Finding {
			p, err := systemd.Unit(ctx, s.conn, name)
			if err != nil {
				return one(finding.Unknown, title, err.Error(), "systemctl status "+name)
			}
			if state := p.Text("LoadState"); state != "loaded" {
				return one(finding.Fault, title, state, "is its module enabled? systemctl status "+name)
			}
			return look(title, name, p)
		}})
	}
	for _, name := range s.config.Running {
		add("unit ", name, running)
	}
	for _, name := range s.config.Oneshots {
		add("unit ", name, oneshot)
	}
	for _, name := range slices.Sorted(maps.Keys(s.config.Timers)) {
		add("unit ", name, func(check, name string, p systemd.Properties) []finding.Finding {
			return timer(check, name, p, s.config.Timers[name])
		})
	}
	for _, name := range slices.Sorted(maps.Keys(s.config.Units)) {
		add("environment of ", name, func(check, name string, p systemd.Properties) []finding.Finding {
			return environment(check, name, p, s.config.Units[name])
		})
	}
	return list
}

// settle is how long a unit that systemd restarted must stay up to count as
// running: longer than the time between two restarts (RestartSec=) of most.
const settle = time.Minute

// running is for units that must be active.
func running(check, name string, p systemd.Properties) []finding.Finding {
	state := p.Text("ActiveState")
	r := finding.Finding{Verdict: finding.OK, What: check, State: state + " (" + p.Text("SubState") + ")", Since: p.Time("StateChangeTimestamp")}
	up := p.Time("ActiveEnterTimestamp")
	// One for a service that systemd starts over and over, whenever it is looked at.
	fix := "journalctl -u " + name + "; systemctl start " + name
	switch restarts := p.Number("NRestarts"); {
	case state != "active" && state != "reloading" && state != "refreshing":
		r.Verdict, r.Fix = finding.Fault, fix
	case restarts > 0 && time.Since(up) < settle:
		r.Verdict, r.Fix = finding.Fault, fix
		r.State = fmt.Sprintf("restarted %d times by systemd, up for %s only", restarts, age(up))
	}
	return []finding.Finding{r}
}

// oneshot is for services that must have run, and succeeded.
func oneshot(check, name string, p systemd.Properties) []finding.Finding {
	exit := p.Time("ExecMainExitTimestamp")
	r := finding.Finding{Verdict: finding.OK, What: check, State: "succeeded", Since: exit}
	fix := "systemctl start " + name + "; journalctl -u " + name
	switch state := p.Text("ActiveState"); {
	case state == "activating":
		r.Verdict, r.State, r.Fix = finding.Fault, "still runs", "wait for it (--wait), or journalctl -u "+name
	case p.Text("Result") != "success":
		r.Verdict, r.Fix = finding.Fault, fix
		r.State = fmt.Sprintf("failed: %s, exit status %d", p.Text("Result"), p.Number("ExecMainStatus"))
	case p.Bool("RemainAfterExit") && state != "active":
		r.Verdict, r.State, r.Fix = finding.Fault, state+", and should remain active", fix
	case exit.IsZero():
		r.Verdict, r.State, r.Fix = finding.Fault, "never ran since boot", fix
	}
	return []finding.Finding{r}
}

// timer is for timers that must be active, and have fired in time.
func timer(check, name string, p systemd.Properties, maxAge time.Duration) []finding.Finding {
	last, next := p.Time("LastTriggerUSec"), p.Time("NextElapseUSecRealtime")
	active := p.Time("ActiveEnterTimestamp")
	r := finding.Finding{Verdict: finding.OK, What: check, Since: last}
	lastText, nextText := "has not fired yet", "no next time"
	if !last.IsZero() {
		lastText = "fired " + age(last) + " ago"
	}
	if !next.IsZero() {
		nextText = "next " + next.Local().Format("Mon 15:04 MST")
	}
	if next.IsZero() && p.Number("NextElapseUSecMonotonic") > 0 {
		nextText = "next by the time since boot"
	}
	r.State = lastText + ", " + nextText
	if p.Text("ActiveState") != "active" {
		r.Verdict, r.State, r.Since = finding.Fault, p.Text("ActiveState")+", so it never fires; "+lastText, p.Time("StateChangeTimestamp")
		r.Fix = "systemctl start " + name
		return []finding.Finding{r}
	}
	if state := p.Text("SubState"); state == "elapsed" {
		r.Verdict, r.State, r.Fix = finding.Fault, "elapsed: it never fires again; "+lastText, "look at its OnCalendar="
		return []finding.Finding{r}
	}
	// A timer that was just deployed has had no time to fire; nor has one that
	// makes up for a downtime, until its random delay is over.
	since := last
	if last.IsZero() {
		since = active
		r.Since = active
	}
	delay := time.Duration(p.Number("RandomizedDelayUSec")+p.Number("AccuracyUSec"))*time.Microsecond + time.Minute
	if maxAge > 0 && time.Since(since) > maxAge && !next.IsZero() && time.Since(active) < delay {
		r.Verdict, r.State = finding.Note, "overdue, as this host was down or the timer off; "+r.State
		return []finding.Finding{r}
	}
	service := strings.TrimSuffix(name, ".timer") + ".service"
	if maxAge > 0 && time.Since(since) > maxAge {
		r.Verdict = finding.Fault
		r.State = fmt.Sprintf("active, but %s; it should every %s", lastText, maxAge)
		r.Fix = "systemctl list-timers " + name + "; systemctl start " + service
	}
	return []finding.Finding{r}
}

// environment compares what a service's tests would start from with what the
// package gave it. A drop-in that adds a PATH is how lists begin to drift.
func environment(check, name string, p systemd.Properties, want Unit) []finding.Finding {
	var faults []string
	have := map[string]string{}
	for _, kv := range p.List("Environment") {
		k, v, _ := strings.Cut(kv, "=")
		have[k] = v
	}
	for _, k := range slices.Sorted(maps.Keys(have)) {
		if w, ok := want.Environment[k]; !ok {
			faults = append(faults, told(k, have[k])+" is added")
		} else if !expands(w, have[k]) {
			faults = append(faults, told(k, have[k])+", should be "+w)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want.Environment)) {
		if _, ok := have[k]; !ok {
			faults = append(faults, k+" is not set")
		}
	}
	for _, property := range []string{"PassEnvironment", "UnsetEnvironment"} {
		if names := p.List(property); len(names) > 0 {
			faults = append(faults, property+"="+strings.Join(names, " ")+" is added")
		}
	}
	if programs := p.Programs("ExecStart"); want.Program != "" && (len(programs) != 1 || programs[0] != want.Program) {
		faults = append(faults, fmt.Sprintf("it starts %s, should be %s", strings.Join(programs, " and "), want.Program))
	}
	for _, property := range []string{"ExecCondition", "ExecStartPre", "ExecStartPost"} {
		if programs := p.Programs(property); want.Program != "" && len(programs) > 0 {
			faults = append(faults, property+"="+strings.Join(programs, " and ")+" is added")
		}
	}
	if p.Bool("NeedDaemonReload") {
		faults = append(faults, "its files changed since systemd read them (systemctl daemon-reload)")
	}
	results := process(check, p, want)
	fix := "systemctl revert " + name + ", or deploy again; a tool goes into toolset.toml"
	if dropIns := p.List("DropInPaths"); len(dropIns) > 0 {
		fix = "look at " + strings.Join(dropIns, ", ") + "; " + fix
	}
	if len(faults) > 0 {
		return append(one(finding.Fault, check, strings.Join(faults, "; "), fix), results...)
	}
	return append(one(finding.OK, check, fmt.Sprintf("%d variables, as the package has them", len(have)), ""), results...)
}

// told is a variable for a message. Only of PATH and HOME, which hold no secret, it has
// the value: what somebody adds to a unit may be a password.
func told(name, value string) string {
	if name == "PATH" || name == "HOME" {
		return name + "=" + value
	}
	return name + "=…"
}

// process looks at the PATH of a running service's own process: an
// EnvironmentFile= may have set it, or it runs since before a change.
func process(check string, p systemd.Properties, want Unit) []finding.Finding {
	pid, path := p.Number("MainPID"), want.Environment["PATH"]
	if pid == 0 || path == "" {
		return nil
	}
	// A process that systemd has just forked has systemd's environment until
	// it executes the program.
	var have string
	for range 5 {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if errors.Is(err, fs.ErrPermission) {
			return one(finding.LeftOut, check+", of its process", "only root may look", "again as root")
		}
		have = env.Lookup(strings.Split(string(data), "\x00"), "PATH")
		if err != nil || have == path {
			return nil // or it has ended
		}
		time.Sleep(200 * time.Millisecond)
	}
	return one(finding.Fault, check+", of its process", fmt.Sprintf("PATH=%s, should be %s", have, path), "look at its EnvironmentFile=, then systemctl restart "+p.Text("Id"))
}

// expands says whether systemd may have made have of want, in which "%" and a
// letter stand for something.
func expands(want, have string) bool {
	if !strings.Contains(want, "%") {
		return want == have
	}
	pattern := regexp.MustCompile("%[A-Za-z]").ReplaceAllString(regexp.QuoteMeta(want), ".+")
	ok, err := regexp.MatchString("^"+pattern+"$", have)
	return ok && err == nil
}
