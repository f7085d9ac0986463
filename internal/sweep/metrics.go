package sweep

import (
	"fmt"
	"strings"

	"cc-ci-run/internal/prometheus"
)

// Metrics is the status in Prometheus's text format, as the textfile collector of
// node-exporter reads it. An alert on the age of a recipe's last success is
//
//	time() - cc_ci_run_recipe_success_timestamp_seconds > 8 * 86400
func (s Status) Metrics() string {
	var b strings.Builder
	family := func(name, help string, value func(r Standing) (text string, ok bool)) {
		b.WriteString(prometheus.Family(name, help))
		for _, r := range s.Recipes {
			if text, ok := value(r); ok && r.Group != Removed {
				fmt.Fprintf(&b, "%s{recipe=\"%s\"%s\n", name, prometheus.Label(r.Recipe), text)
			}
		}
	}
	family("cc_ci_run_recipe_failing", "Whether a recipe's last verdict was HOLD or ERROR, 1 or 0.", func(r Standing) (string, bool) {
		failing := 0
		if r.Group == NewlyFailing || r.Group == StillFailing || r.Group == Damaged {
			failing = 1
		}
		return fmt.Sprintf("} %d", failing), r.Group != NeverRun
	})
	family("cc_ci_run_recipe_verdict", "The last verdict of a recipe: always 1, the verdict is a label.", func(r Standing) (string, bool) {
		return fmt.Sprintf(",verdict=\"%s\"} 1", prometheus.Label(string(r.Verdict))), r.Verdict != ""
	})
	family("cc_ci_run_recipe_failing_runs", "How many runs of a recipe failed since it last passed.", func(r Standing) (string, bool) {
		if r.Group == NewlyFailing || r.Group == StillFailing {
			return fmt.Sprintf("} %d", r.Nights), true
		}
		return "} 0", r.Group == Passing || r.Group == Fixed
	})
	family("cc_ci_run_recipe_duration_seconds", "How long the last run of a recipe took.", func(r Standing) (string, bool) {
		if r.Run == nil {
			return "", false
		}
		return fmt.Sprintf("} %g", r.Run.Took.Seconds()), true
	})
	family("cc_ci_run_recipe_run_timestamp_seconds", "When the last run of a recipe ended.", func(r Standing) (string, bool) {
		return fmt.Sprintf("} %d", r.Ran.Unix()), !r.Ran.IsZero()
	})
	family("cc_ci_run_recipe_success_timestamp_seconds", "When the run of a recipe started that was promoted last.", func(r Standing) (string, bool) {
		return fmt.Sprintf("} %d", r.Promoted.Unix()), !r.Promoted.IsZero()
	})
	b.WriteString(prometheus.Family("cc_ci_run_recipes_standing", "Recipes by how they stand after the last sweep."))
	for _, g := range Groups {
		fmt.Fprintf(&b, "cc_ci_run_recipes_standing{group=\"%s\"} %d\n", prometheus.Label(string(g)), s.Totals[g])
	}
	if s.Sweep != nil && !s.Sweep.Ended.IsZero() {
		b.WriteString(prometheus.Family("cc_ci_run_sweep_duration_seconds", "How long the last sweep took."))
		fmt.Fprintf(&b, "cc_ci_run_sweep_duration_seconds %g\n", s.Sweep.Ended.Sub(s.Sweep.Started).Seconds())
	}
	return b.String()
}
