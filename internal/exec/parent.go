package exec

import (
	"context"
	"os"
	"time"
)

// AwaitParent calls a function if the process that started this one ends before ctx does. A
// Drone runner that is killed leaves its steps running, and nobody would want their results.
//
// A signal at the parent's death (PR_SET_PDEATHSIG) would also come if only the parent's
// thread ends that started this process.
func AwaitParent(ctx context.Context, ended func()) {
	parent := os.Getppid()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if os.Getppid() != parent {
				ended()
				return
			}
		}
	}
}
