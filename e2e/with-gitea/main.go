// Command with-gitea runs a command while a real Gitea of its own is up, on
// loopback.
//
//	build/with-gitea --gitea build/gitea -- COMMAND [ARG...]
//
// COMMAND finds GITEA_URL, GITEA_USER (an administrator) and GITEA_PASSWORD in
// its environment. All that Gitea has is in one temporary directory: a copy of
// the program, its SQLite database, its log. Gitea refuses to be root, so it
// runs as nobody when with-gitea is root. However COMMAND ends, Gitea is
// stopped, by its own process id, and the directory removed. If with-gitea is killed
// by SIGKILL, Gitea is killed and COMMAND gets SIGTERM; the directory stays.
//
// Exit status: COMMAND's own, or 128+N when signal N ended COMMAND; 125 when
// Gitea could not be started, 126 when COMMAND cannot be executed, 127 when
// COMMAND does not exist. On SIGTERM, SIGHUP or SIGINT with-gitea ends
// COMMAND first, then Gitea, and dies by the same signal.
package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"cc-ci-run/e2e/internal/wrap"
)

func main() {
	wrap.Main("with-gitea", "gitea", "the Gitea to start, a `FILE` that e2e/build-gitea builds", withGitea)
}

// withGitea starts Gitea, runs the command until it ends or ctx does, and stops
// Gitea. It returns the exit status.
func withGitea(ctx context.Context, program string, command, environ []string, stderr io.Writer) int {
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "with-gitea: "+format+"\n", args...) }
	g, err := newGitea(program, environ)
	if err != nil {
		say("%v", err)
		return wrap.CannotStart
	}
	defer say("Gitea is stopped")
	defer g.stop()
	began := time.Now()
	say("starting Gitea at %s", g.url)
	password, err := g.start(ctx)
	if err != nil {
		say("%v", err)
		return wrap.CannotStart
	}
	say("Gitea is up after %.1f s, with user %s", time.Since(began).Seconds(), admin)
	status, err := wrap.Run(ctx, command, append(environ, "GITEA_URL="+g.url, "GITEA_USER="+admin, "GITEA_PASSWORD="+password))
	if err != nil {
		say("%v", err)
	}
	return status
}
