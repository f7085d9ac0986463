// Command cc-ci-run runs a recipe's tests in the one declared environment.
//
// This is the small program, which starts every child: SCRIPT, exec and shell
// (package run is how). All other commands, and --help, are cc-ci-run-full's,
// which this one becomes for them. So a run does not pay for what it does not
// use; docs/decisions/0001-two-programs.md has the figures.
package main

import (
	"errors"
	"os"
	"runtime"
	"syscall"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/entry"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/run"
)

// Set at link time (-ldflags "-X main.plan=…"). The plan decides the
// environment, so nothing at run time can choose another.
var (
	plan string // the compiled manifest
	full string // cc-ci-run-full
)

// The main goroutine stays on the process's first thread: the kernel is quicker to show
// that thread's state, and to replace a process that calls execve there.
func init() { runtime.LockOSThread() }

func main() {
	environ := entry.Environ()
	request, ok := run.Parse(os.Args[1:])
	if !ok {
		err := syscall.Exec(full, os.Args, environ)
		os.Exit(run.Explain(exec.Wrap(full, errors.New(err.Error()+": it was built beside this program; run `make build`")), os.Stderr))
	}
	if request.Pty { // this process stays; package entry left it with one thread
		runtime.SetDefaultGOMAXPROCS()
	}
	err := run.Start(request, run.Process{Environ: environ, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Plan: plan, DockerLimit: docker.StartLimit})
	os.Exit(run.Explain(err, os.Stderr))
}
