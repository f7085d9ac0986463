// Command cc-ci-run runs a recipe's tests in the one declared environment.
package main

import (
	"os"

	"cc-ci-run/internal/cli"
)

// Set at link time (-ldflags "-X main.manifest=…"). The manifest decides the
// environment, so nothing at run time can choose another.
var (
	manifest string
	version  = "development"
)

func main() {
	os.Exit(cli.Main(cli.Process{
		Args: os.Args, Environ: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Manifest: manifest, Version: version,
	}))
}
