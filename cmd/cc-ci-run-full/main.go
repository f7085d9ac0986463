// Command cc-ci-run-full is all of cc-ci-run. People call cc-ci-run, a small
// program that starts quickly: it does plain runs itself and becomes this one
// for all else.
package main

import (
	"os"
	"runtime"

	"cc-ci-run/internal/cli"
	"cc-ci-run/internal/entry"
)

// Set at link time (-ldflags "-X main.manifest=…"). The manifest decides the
// environment, so nothing at run time can choose another.
var (
	manifest string
	plan     string // its compiled form
	program  string // cc-ci-run, through which a sweep runs recipes
	version  = "development"
)

func main() {
	runtime.SetDefaultGOMAXPROCS() // package entry left it at 1
	self, _ := os.Executable()     // from /proc; a sweep starts it for each run
	machine, _ := os.Hostname()
	os.Exit(cli.Main(cli.Process{
		Args: os.Args, Environ: entry.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Manifest: manifest, Plan: plan, Program: program, Self: self, Version: version, Machine: machine,
	}))
}
