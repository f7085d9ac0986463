//go:build environment && e2e

package e2e

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"
)

// withGitea is a command line before a COMMAND that needs a real Gitea.
var withGitea = []string{"../build/with-gitea", "--gitea", "../build/gitea", "--"}

// giteaVariables name the instance.
var giteaVariables = []string{"GITEA_URL", "GITEA_USER", "GITEA_PASSWORD"}

// gitea starts a real Gitea for a test and returns the variables that name it.
func gitea(t testing.TB) []string {
	t.Helper()
	return serve(t, withGitea, giteaVariables)
}

// serve starts servers for a test by command lines of with-gitea and the like, and
// returns variables that their COMMAND finds, each as NAME=VALUE.
//
// COMMAND ends when the test does, however that happens. A test that times out or is
// killed runs no cleanup, but the pipe closes, so the servers are stopped and their
// directories removed then, too.
func serve(t testing.TB, with, names []string) (variables []string) {
	t.Helper()
	pattern := "^(" + strings.Join(names, "|") + ")="
	cmd := exec.Command(with[0], append(with[1:len(with):len(with)], "sh", "-c", `env | grep -E "$0"; exec cat`, pattern)...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: `make gitea` or `make drone` builds it", err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); len(variables) < len(names) && lines.Scan(); {
		variables = append(variables, lines.Text())
	}
	if len(variables) < len(names) {
		t.Fatalf("%s was not started: its message says why", with[0])
	}
	return variables
}
