// Command raw is the floor of a wrapper in Go: it replaces itself, and does
// nothing else. With no argument it is the floor of any program in Go.
package main

import "syscall"

func main() {
	// Not package os: that is part of what is measured elsewhere.
	if variable, ok := syscall.Getenv("RAW_EXEC"); ok {
		_ = syscall.Exec(variable, []string{"true"}, syscall.Environ())
	}
}
