package host

import (
	"context"
	"errors"
	"time"

	"cc-ci-run/internal/finding"
)

// Waiting repeats the checks of a host until the host is healthy, for example after a deploy.
type Waiting struct {
	Longest time.Duration                                     // for how long the checks are repeated; 0: one round
	Every   time.Duration                                     // the pause between two rounds
	Look    func() Report                                     // makes one round, as [Look] does
	Wrong   func(Report) []finding.Finding                    // what keeps the host from being healthy
	Tell    func(wrong []finding.Finding, left time.Duration) // is called before each pause, with the faults and the time that is left
}

// Wait gives the report of the last round. Whoever waits gets a second round, however long the
// first one took. Wait fails if ctx ends.
func (w Waiting) Wait(ctx context.Context) (Report, error) {
	deadline := time.Now().Add(w.Longest)
	for round := 1; ; round++ {
		report := w.Look()
		if ctx.Err() != nil {
			return report, errors.New("host: interrupted")
		}
		wrong, left := w.Wrong(report), max(0, time.Until(deadline))
		if len(wrong) == 0 || w.Longest == 0 || left == 0 && round > 1 {
			return report, nil
		}
		w.Tell(wrong, left)
		select {
		case <-ctx.Done():
		case <-time.After(min(w.Every, left)):
		}
	}
}
