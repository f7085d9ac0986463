package entry

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The runtime starts with one thread and obeys no variable of the caller's, and the
// program has the caller's variables and arguments.
func TestStart(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command, to build a program: put the bin directory of Go on PATH")
	}
	program := filepath.Join(t.TempDir(), "show")
	build := exec.Command("go", "build", "-ldflags", "-E cc-ci-run/internal/entry.start", "-o", program, "./testdata/show")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	many := strings.Split(strings.Repeat("x ", 1000)+"x", " ")
	for _, row := range []struct{ args, environ []string }{
		{nil, []string{}},
		{[]string{"a", "", "b"}, []string{"A=1", "GOMAXPROCS=7", "GOGC=off", "B="}},
		{nil, []string{"GOMAXPROCS=01"}},
		{many, many},
	} {
		cmd := exec.Command(program, row.args...)
		cmd.Env = row.environ
		out, err := cmd.CombinedOutput()
		want := "1 [" + strings.Join(row.args, " ") + "] [" + strings.Join(cmd.Environ(), " ") + "]\n"
		if err != nil || string(out) != want {
			t.Errorf("%.100s: %v, want %.100s", out, err, want)
		}
	}
}
