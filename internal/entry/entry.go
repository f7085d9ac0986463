// Package entry is what the kernel starts in both programs, before Go's runtime:
//
//	go build -ldflags "-E cc-ci-run/internal/entry.start"
//
// The runtime reads variables of its own (GODEBUG, GOGC, GOTRACEBACK, …) before main, so a
// caller's value of one would change how cc-ci-run works, or what it prints. And where a
// caller has limited the memory, the runtime dies in its first steps, with a traceback and
// status 2, before Go code could say why. So start
//
//   - renames each variable whose name begins with GO (GOGC becomes gOGC), so that the runtime
//     does not find it; [Environ] gives the names back;
//   - raises the soft limits of address space and data (setrlimit(2), RLIMIT_AS and
//     RLIMIT_DATA) to the hard ones, and if a hard one is below 1 GiB, says so and exits with
//     status 125;
//   - adds the variable GOMAXPROCS=01, so that the runtime starts no thread for each processor:
//     these would take a twentieth of a run's start. [Environ] leaves the variable out. A program
//     that stays calls runtime.SetDefaultGOMAXPROCS;
//   - goes on in the runtime's own entry.
//
// A program that is linked without -E, such as a test, starts in the runtime's entry.
package entry

import "os"

// Environ is os.Environ as the caller gave it. (A caller's gOX becomes GOX.)
func Environ() []string {
	environ := os.Environ()
	if len(environ) > 0 && environ[0] == "GOMAXPROCS=01" { // start's; a caller's is gOMAXPROCS
		environ = environ[1:]
	}
	for i, variable := range environ {
		if len(variable) > 1 && variable[:2] == "gO" {
			environ[i] = "GO" + variable[2:]
		}
	}
	return environ
}

// start is named by the linker's -E, and nothing calls it.
//
//lint:ignore U1000 see above
func start()
