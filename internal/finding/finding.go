// Package finding has the one form of what a check finds: `cc-ci-run check` and
// `cc-ci-run host` show it to people and as JSON.
package finding

import "time"

// Verdict says how much a [Finding] matters.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Note    Verdict = "note"     // worth knowing; nothing to fix
	Fault   Verdict = "fault"    // must be fixed
	Unknown Verdict = "unknown"  // could not be looked at
	LeftOut Verdict = "left out" // only root may look
)

// Finding is what one check found.
type Finding struct {
	Verdict Verdict   `json:"verdict"`
	What    string    `json:"what"`
	State   string    `json:"state"`
	Since   time.Time `json:"since,omitzero"` // when it came to be so, if that is known
	Fix     string    `json:"fix,omitempty"`  // what to do

	// Detail is for whoever puts findings together; it is not shown. It travels
	// with the finding, since a check that is late must not touch what others
	// read.
	Detail any `json:"-"`
}
