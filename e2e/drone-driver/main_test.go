package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pipelineOf makes a repository whose one step tells all that it finds.
func pipelineOf(t *testing.T, commands ...string) string {
	dir := t.TempDir()
	yml := "kind: pipeline\ntype: exec\nname: recipes\nsteps:\n- name: print\n  commands:\n"
	for _, c := range commands {
		yml += "  - " + c + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, ".drone.yml"), []byte(yml), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-qb", "main"}, {"add", "."}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"}} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	return dir
}

func drive(t *testing.T, runner, source string, environ []string) (string, error) {
	var out bytes.Buffer
	err := run(source, t.TempDir(), runner, environ, &out)
	return out.String(), err
}

var probe = []string{"env | sort", "pwd", "stat -c %a . ../../opt ../../home/drone", "ls -A", "readlink /proc/self/fd/0", "cat $0"}

func TestStep(t *testing.T) {
	source := pipelineOf(t, probe...)
	out, err := drive(t, "", source, []string{"PATH=" + os.Getenv("PATH"), "GITEA_URL=u", "SECRET=s", "LANG=C"})
	if err != nil {
		t.Fatal(err, out)
	}
	for _, want := range []string{
		"(?m)^DRONE=true$", "(?m)^GITEA_URL=u$", "(?m)^HOME=.*/drone-[A-Za-z0-9]{16}/home/drone$", "(?m)^GIT_AUTHOR_EMAIL=noreply@drone$",
		"(?m)^.*/drone/src$", "(?m)^700\n700\n700$", `(?m)^\+ env \| sort$`, `(?m)^/dev/null$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%s is not in\n%s", want, out)
		}
	}
	if n := strings.Count(out, "\nDRONE") + strings.Count(out, "\nCI"); n < 78 {
		t.Errorf("%d variables of the build, want some eighty", n)
	}
	if regexp.MustCompile("(?m)^(SECRET|LANG)=").MatchString(out) {
		t.Error("a variable of the runner's got through")
	}
	if _, err := drive(t, "", pipelineOf(t, "echo one", `"false"`, "echo two"), []string{"PATH=" + os.Getenv("PATH")}); err == nil {
		t.Error("a failing command is not a failure")
	}
}

// The driver and the real runner do the same with the same pipeline.
func TestAgainstRealRunner(t *testing.T) {
	runner := os.Getenv("DRONE_RUNNER_EXEC")
	if runner == "" {
		t.Skip("DRONE_RUNNER_EXEC names no drone-runner-exec: build one from its public source " +
			"(github.com/drone-runners/drone-runner-exec, `go build .`) and set it to that file's path")
	}
	source := pipelineOf(t, probe...)
	environ := []string{"PATH=" + os.Getenv("PATH"), "GITEA_URL=u", "SECRET=s", "USER=ci", "http_proxy=http://p"}
	ours, err := drive(t, "", source, environ)
	if err != nil {
		t.Fatal(err, ours)
	}
	real, err := drive(t, runner, source, environ)
	if err != nil {
		t.Fatal(err, real)
	}
	fold := func(s string) string {
		s = regexp.MustCompile(`(?m)^\[\w+:\d+\] `).ReplaceAllString(s, "") // its console
		s = regexp.MustCompile(`\S+/drone-\w{16}`).ReplaceAllString(s, "WORK")
		s = regexp.MustCompile(`\b1\d{9}\b`).ReplaceAllString(s, "TIME")
		_, s, _ = strings.Cut(s, "+ env | sort") // git's words on the clone
		return strings.TrimSpace(s)
	}
	if a, b := fold(ours), fold(real); a != b {
		t.Errorf("the driver:\n%s\nthe real one:\n%s", a, b)
	}
}

// A pipeline that pushes do not start is not run.
func TestTrigger(t *testing.T) {
	source := pipelineOf(t, "echo started by a push")
	yml, err := os.OpenFile(filepath.Join(source, ".drone.yml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer yml.Close()
	if _, err := yml.WriteString("---\nkind: pipeline\ntype: exec\nname: nix\ntrigger:\n  event: [cron, tag]\nsteps:\n- name: fail\n  commands: ['false']\n"); err != nil {
		t.Fatal(err)
	}
	out, err := drive(t, "", source, []string{"PATH=" + os.Getenv("PATH")})
	if err != nil || !strings.Contains(out, "started by a push") {
		t.Errorf("%v: %s", err, out)
	}
}
