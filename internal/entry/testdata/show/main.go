// Command show tells what Go's runtime and package entry make of the environment.
package main

import (
	"fmt"
	"os"
	"runtime"

	"cc-ci-run/internal/entry"
)

func main() { fmt.Println(runtime.GOMAXPROCS(0), os.Args[1:], entry.Environ()) }
