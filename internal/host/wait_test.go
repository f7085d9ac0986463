package host

import (
	"context"
	"testing"
	"time"

	"cc-ci-run/internal/finding"
)

// Somebody who deploys relies on --wait: host ends as soon as the host is healthy, and gives up
// after the time that was asked for. Unless the first look finds the host healthy, there is a
// second one.
func TestWait(t *testing.T) {
	const never = 1000
	for _, c := range []struct {
		about         string
		longest       time.Duration
		healthy       int           // the first round that finds nothing wrong
		slow          time.Duration // how long the first round takes
		ended         int           // the round in which ctx ends
		rounds, tells int
		failed        bool
	}{
		{about: "healthy at once", longest: time.Hour, healthy: 1, rounds: 1},
		{about: "healthy at the third look", longest: time.Hour, healthy: 3, rounds: 3, tells: 2},
		{about: "no waiting", healthy: never, rounds: 1},
		{about: "healthy, no waiting", healthy: 1, rounds: 1},
		{about: "the first look takes longer than the waiting", longest: time.Nanosecond, slow: time.Millisecond, healthy: never, rounds: 2, tells: 1},
		{about: "the second look finds all well", longest: time.Nanosecond, slow: time.Millisecond, healthy: 2, rounds: 2, tells: 1},
		{about: "interrupted", longest: time.Hour, healthy: never, ended: 2, rounds: 2, tells: 1, failed: true},
		{about: "interrupted, but healthy", longest: time.Hour, healthy: 2, ended: 2, rounds: 2, tells: 1, failed: true},
	} {
		t.Run(c.about, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			defer end()
			rounds, tells := 0, 0
			_, err := Waiting{
				Longest: c.longest,
				Every:   time.Nanosecond,
				Look: func() Report {
					if rounds++; rounds == 1 {
						time.Sleep(c.slow)
					}
					if rounds == c.ended {
						end()
					}
					return Report{}
				},
				Wrong: func(Report) []finding.Finding {
					if rounds >= c.healthy {
						return nil
					}
					return []finding.Finding{{What: "timers"}}
				},
				Tell: func([]finding.Finding, time.Duration) { tells++ },
			}.Wait(ctx)
			if rounds != c.rounds || tells != c.tells || (err != nil) != c.failed {
				t.Errorf("%d rounds, %d times told, error %v; want %d, %d, an error: %v", rounds, tells, err, c.rounds, c.tells, c.failed)
			}
		})
	}
}
