// Command image writes the images that tests deploy, for with-docker's --image:
//
//	build/image tiny build/tiny.tar     cc-ci-run-test/tiny:1, from e2e/tiny
//	build/image gitea build/gitea.tar   cc-ci-run-test/gitea:1 and :2, from build/gitea
//
// Run it in the project's directory.
package main

import (
	"fmt"
	"os"

	"cc-ci-run/e2e/internal/image"
)

func main() {
	writers := map[string]func(file string) error{"tiny": image.Tiny, "gitea": gitea}
	if len(os.Args) != 3 || writers[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: image tiny|gitea FILE")
		os.Exit(2)
	}
	if err := writers[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "image %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
