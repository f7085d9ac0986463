package main

import (
	"context"
	"strings"
	"testing"

	"cc-ci-run/e2e/internal/wrap"
)

// What is missing is named. `make drone` uses with-drone with the real programs.
func TestCannotStart(t *testing.T) {
	forge := []string{"GITEA_URL=http://127.0.0.1:1", "GITEA_USER=u", "GITEA_PASSWORD=p"}
	for _, row := range []struct {
		environ []string
		want    string
	}{
		{nil, "with-drone: GITEA_URL, GITEA_USER or GITEA_PASSWORD is not set: run with-drone as the COMMAND of with-gitea\n"},
		{forge, "/drone-server: e2e/build-drone makes it\n"},
	} {
		var messages strings.Builder
		status := withDrone(context.Background(), t.TempDir(), []string{"true"}, row.environ, &messages)
		if status != wrap.CannotStart || !strings.HasSuffix(messages.String(), row.want) {
			t.Errorf("exit status %d, should be %d; says %q, should end with %q", status, wrap.CannotStart, messages.String(), row.want)
		}
	}
}
