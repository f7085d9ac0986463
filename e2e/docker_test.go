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

// besideDocker is what comes before a command in argv, so that with-docker runs the
// command with a swarm that has an image of e2e/image.
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

// insideSwarm is the variable that tells the test binary that with-docker started it.
const insideSwarm = "TEST_INSIDE_SWARM"

// inSwarm starts the test that calls it once more, by with-docker, with a swarm that
// has an image of e2e/image. In the test that with-docker started, inSwarm returns
// true. In the first test it returns false when that second one has ended. variables
// are set for with-docker: TMPDIR, for example, is the place of the data root.
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
