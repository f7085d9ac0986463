package env

import "strings"

// Invoker is who started a run.
type Invoker struct {
	Name string `json:"name"` // drone, systemd or manual
	// ID is the invoker's own name for this run: REPO/BUILD/STAGE/STEP of
	// Drone, INVOCATION_ID of systemd, "" of a person.
	ID string `json:"id,omitempty"`
}

// DetectInvoker tells the invoker from the variables that the real ones set.
// Drone sets DRONE=true (and comes first: its runner is itself a systemd
// unit). A systemd unit has INVOCATION_ID, and JOURNAL_STREAM or
// SYSTEMD_EXEC_PID (systemd.exec(5)). A desktop session hands those on to its
// shells, where a person sits: so not with a terminal on stdin.
func DetectInvoker(caller []string, stdinIsTerminal bool) Invoker {
	get := func(name string) string { return Lookup(caller, name) }
	if get("DRONE") == "true" {
		return Invoker{"drone", strings.Join([]string{get("DRONE_REPO"), get("DRONE_BUILD_NUMBER"), get("DRONE_STAGE_NAME"), get("DRONE_STEP_NAME")}, "/")}
	}
	unit := get("JOURNAL_STREAM") != "" || get("SYSTEMD_EXEC_PID") != ""
	if id := get("INVOCATION_ID"); id != "" && unit && !stdinIsTerminal {
		return Invoker{"systemd", id}
	}
	return Invoker{Name: "manual"}
}
