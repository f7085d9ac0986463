package host

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/prometheus"
)

// Metrics is the report in Prometheus's text format, as the textfile
// collector of node-exporter reads it: see "Exposition formats" in
// Prometheus's documentation.
func (r Report) Metrics() string {
	var b strings.Builder
	family := func(name, help string) { b.WriteString(prometheus.Family(name, help)) }
	flag := func(ok bool) int {
		if ok {
			return 1
		}
		return 0
	}
	family("cc_ci_run_host_healthy", "Whether the host is healthy, 1 or 0.")
	fmt.Fprintf(&b, "cc_ci_run_host_healthy %d\n", flag(r.Healthy))
	family("cc_ci_run_host_looked_timestamp_seconds", "When the host was looked at.")
	fmt.Fprintf(&b, "cc_ci_run_host_looked_timestamp_seconds %d\n", r.Time.Unix())
	family("cc_ci_run_environment_info", "The environment that tests run in, by its fingerprint.")
	fmt.Fprintf(&b, "cc_ci_run_environment_info{fingerprint=\"%s\"} 1\n", prometheus.Label(r.Fingerprint))
	if r.Failed >= 0 {
		family("cc_ci_run_host_failed_units", "Failed units that may not fail.")
		fmt.Fprintf(&b, "cc_ci_run_host_failed_units %d\n", r.Failed)
	}
	family("cc_ci_run_host_checks", "Checks by verdict.")
	for _, v := range []finding.Verdict{finding.OK, finding.Note, finding.Fault, finding.Unknown, finding.LeftOut} {
		fmt.Fprintf(&b, "cc_ci_run_host_checks{verdict=\"%s\"} %d\n", prometheus.Label(string(v)), r.Count(v))
	}
	family("cc_ci_run_host_check_healthy", "Whether one check found no fault, 1 or 0.")
	checks := map[string]bool{}
	for _, result := range r.Results {
		ok, known := checks[result.What]
		checks[result.What] = (ok || !known) && result.Verdict != finding.Fault && result.Verdict != finding.Unknown
	}
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		fmt.Fprintf(&b, "cc_ci_run_host_check_healthy{check=\"%s\"} %d\n", prometheus.Label(name), flag(checks[name]))
	}
	if r.Sweep != nil {
		if !r.Sweep.End.IsZero() {
			family("cc_ci_run_sweep_end_timestamp_seconds", "When the last sweep ended.")
			fmt.Fprintf(&b, "cc_ci_run_sweep_end_timestamp_seconds %d\n", r.Sweep.End.Unix())
			family("cc_ci_run_sweep_status", "Exit status of the last sweep: 0 all promoted or skipped, 1 something held, in error or cut off, 125 the sweep failed.")
			fmt.Fprintf(&b, "cc_ci_run_sweep_status %d\n", r.Sweep.Status)
		}
		family("cc_ci_run_recipes_held", "Recipes whose last finished run did not pass.")
		fmt.Fprintf(&b, "cc_ci_run_recipes_held %d\n", r.Sweep.Held)
		family("cc_ci_run_recipes", "Recipes by the verdict of their last run.")
		for _, v := range slices.Sorted(maps.Keys(r.Sweep.Verdicts)) {
			fmt.Fprintf(&b, "cc_ci_run_recipes{verdict=\"%s\"} %d\n", prometheus.Label(string(v)), r.Sweep.Verdicts[v])
		}
	}
	return b.String()
}
