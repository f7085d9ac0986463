// Package prometheus writes Prometheus's text format, as the textfile collector of
// node-exporter reads it ("Exposition formats" in Prometheus's documentation).
//
//	text := prometheus.Family("cc_ci_run_sweep_status", "Exit status of the last sweep.")
//	text += fmt.Sprintf("cc_ci_run_sweep_status{invoker=\"%s\"} %d\n", prometheus.Label(invoker), status)
package prometheus

import (
	"fmt"
	"strings"
)

// Family is the head of a metric, a gauge. Its values follow, a line each.
func Family(name, help string) string {
	return fmt.Sprintf("# HELP %s %s\n# TYPE %[1]s gauge\n", name, help)
}

// Label escapes the value of a label.
func Label(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(value, "?"))
}
