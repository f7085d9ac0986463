//go:build environment && e2e

package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
)

// gitea starts a real Gitea for a test and returns the variables that name it:
// GITEA_URL, GITEA_USER and GITEA_PASSWORD.
//
// Its parent is build/with-gitea, whose COMMAND ends when the test does, however
// that happens. A test that times out or is killed runs no cleanup, but the pipe
// closes, so Gitea is stopped and its directory removed then, too.
func gitea(t testing.TB) (variables []string) {
	t.Helper()
	const program = "../build/gitea"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: `make witness` builds it, or `make audited`", err)
	}
	cmd := exec.Command("../build/with-gitea", "--gitea", program, "--",
		"sh", "-c", "env | grep -E '^GITEA_(URL|USER|PASSWORD)='; exec cat")
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
		t.Fatalf("%v: `make witness` builds it, or `make audited`", err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); len(variables) < 3 && lines.Scan(); {
		variables = append(variables, lines.Text())
	}
	if len(variables) < 3 {
		t.Fatal("no Gitea could be started: with-gitea's message says why")
	}
	return variables
}
