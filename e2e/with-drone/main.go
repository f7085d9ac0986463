// Command with-drone runs a command while a real Drone server of its own is up,
// on loopback, beside a Gitea that with-gitea started.
//
//	build/with-gitea --gitea build/gitea -- build/with-drone --drone build/drone -- COMMAND [ARG...]
//
// Gitea's user has logged in to Drone, as Drone's administrator, so COMMAND can
// activate a repository, and a push to that starts a build. COMMAND finds in its
// environment, besides what with-gitea sets,
//
//   - DRONE_SERVER and DRONE_TOKEN, for calls of Drone's API;
//   - DRONE_RPC_PROTO, DRONE_RPC_HOST and DRONE_RPC_SECRET, for runners. with-drone
//     starts none: a build waits until COMMAND has started one.
//
// All that Drone has is in one temporary directory: its SQLite database and its log.
// However COMMAND ends, Drone is stopped, by its own process id, and the directory
// removed. Exit statuses and signals are with-gitea's, and so is the end by SIGKILL.
package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"cc-ci-run/e2e/internal/wrap"
	"cc-ci-run/internal/env"
)

func main() {
	wrap.Main("with-drone", "drone", "the `DIR` with the programs that e2e/build-drone builds", withDrone)
}

// withDrone starts Drone, runs the command until it ends or ctx does, and stops
// Drone. It returns the exit status.
func withDrone(ctx context.Context, programs string, command, environ []string, stderr io.Writer) int {
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "with-drone: "+format+"\n", args...) }
	d, err := newDrone(programs, forge{
		url:      env.Lookup(environ, "GITEA_URL"),
		user:     env.Lookup(environ, "GITEA_USER"),
		password: env.Lookup(environ, "GITEA_PASSWORD"),
	})
	if err != nil {
		say("%v", err)
		return wrap.CannotStart
	}
	defer say("Drone is stopped")
	defer d.stop()
	began := time.Now()
	say("starting Drone at %s", d.url())
	if err := d.start(ctx); err != nil {
		say("%v", err)
		return wrap.CannotStart
	}
	say("Drone is up after %.1f s, and %s has logged in", time.Since(began).Seconds(), d.forge.user)
	status, err := wrap.Run(ctx, command, append(environ, d.variables()...))
	if err != nil {
		say("%v", err)
	}
	return status
}
