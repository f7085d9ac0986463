//go:build environment && e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// giteaImages are the variables that name the images of gitea's recipe in the
// daemon of besideDocker(t, "gitea").
var giteaImages = []string{"GITEA_IMAGE=cc-ci-run-test/gitea:1", "GITEA_NEXT_IMAGE=cc-ci-run-test/gitea:2"}

// besideDocker is what comes before a command that runs beside a Docker daemon of
// its own, a swarm that has an image of e2e/image.
func besideDocker(t testing.TB, image string) []string {
	t.Helper()
	build, err := filepath.Abs("../build")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(build, image+".tar")
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v: `make images` writes it", err)
	}
	return []string{filepath.Join(build, "with-docker"), "--image", file, "--"}
}
