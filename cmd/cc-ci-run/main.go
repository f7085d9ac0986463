// Command cc-ci-run runs a recipe's tests in the one declared environment.
//
// This is the small program that every run goes through; what is not a plain
// run, or not a plain success, it hands to cc-ci-run-full, which has all
// commands and all messages. So a run costs neither's start: see package
// launch.
package main

import (
	"errors"
	"os"
	"syscall"

	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/launch"
)

// Set at link time (-ldflags "-X main.plan=…"). The plan decides the
// environment, so nothing at run time can choose another.
var (
	plan string // the compiled manifest
	full string // cc-ci-run-full
)

func main() {
	environ := os.Environ()
	err := launch.Try(os.Args[1:], environ, plan, os.Stderr)
	code := exec.StatusFailed
	if err == nil {
		if err = syscall.Exec(full, os.Args, environ); err != nil {
			err = exec.Wrap(full, errors.New(err.Error()+": it was built beside this program; run `make build`"))
		}
	}
	var status exec.Status
	if errors.As(err, &status) {
		code = status.Code
	}
	exec.Tell(os.Stderr, "cc-ci-run: "+err.Error()+"\n")
	os.Exit(code)
}
