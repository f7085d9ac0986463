//go:build environment && e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
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

// insideSwarm is a variable with which the test binary is in a swarm of its own.
const insideSwarm = "TEST_INSIDE_SWARM"

// inSwarm starts this test once more, beside a Docker daemon of its own that has
// an image of e2e/image. It is true in there, and false out here, when that has
// ended. variables are set for with-docker, such as the place of the data root.
func inSwarm(t *testing.T, image string, variables ...string) bool {
	t.Helper()
	if os.Getenv(insideSwarm) != "" {
		return true
	}
	// The flags of this test binary, and after them those that win.
	again := slices.Concat(besideDocker(t, image), os.Args, []string{"-test.run=^" + t.Name() + "$", "-test.v"})
	cmd := exec.CommandContext(interrupted(), again[0], again[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = slices.Concat(os.Environ(), variables, []string{insideSwarm + "=1"})
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("inside a swarm: %v", err)
	}
	return false
}
