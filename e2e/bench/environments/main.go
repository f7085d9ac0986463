// Command environments makes two environments, in which bench.py measures
// cc-ci-run, from the one that `make build` made. Their interpreter is
// /usr/bin/true, so that only cc-ci-run's own time is measured.
//
//	environments MANIFEST STATE DIR
//
// DIR/host is as the host backend makes an environment; DIR/nix as the Nix backend
// does, where a run has no files to verify.
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
		m.Absent = []toolset.Absent{} // a run would print them
		dir := filepath.Join(os.Args[3], backend)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			log.Fatal(err)
		}
		if _, err := m.Write(dir, dir); err != nil {
			log.Fatal(err)
		}
	}
}
