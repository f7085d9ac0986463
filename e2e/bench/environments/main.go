// Command environments makes those that bench.py measures cc-ci-run in, of the
// one that `make build` made. Their interpreter is /bin/true, so that only
// cc-ci-run's own time is measured.
//
//	environments MANIFEST STATE DIR
//
// DIR/nix is as the Nix backend makes it, with no files to look at; DIR/host as
// the host backend does.
package main

import (
	"log"
	"os"
	"path/filepath"

	"cc-ci-run/internal/toolset"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: environments MANIFEST STATE DIR")
	}
	for _, backend := range []string{toolset.BackendNix, toolset.BackendHost} {
		m, err := toolset.ReadManifest(os.Args[1])
		if err != nil {
			log.Fatal(err)
		}
		m.Backend, m.State, m.Interpreter = backend, os.Args[2], "/usr/bin/true"
		m.Absent = []toolset.Absent{} // a run would say so
		dir := filepath.Join(os.Args[3], backend)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			log.Fatal(err)
		}
		if _, err := m.Write(dir, dir); err != nil {
			log.Fatal(err)
		}
	}
}
