//go:build environment && e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/e2e/internal/wrap"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// droneRunner is the real drone-runner-exec.
const droneRunner = "../build/drone/drone-runner-exec"

// drone is a real Drone server beside a real Gitea. A repository of Gitea's user is
// activated, so each push to it starts a build, which waits for a runner.
type drone struct {
	variables  []string // with-gitea's and with-drone's
	repository string   // OWNER/NAME, of both
}

func newDrone(t *testing.T) drone {
	t.Helper()
	d := drone{variables: serve(t, slices.Concat(withGitea, []string{"../build/with-drone", "--drone", filepath.Dir(droneRunner), "--"}),
		slices.Concat(giteaVariables, []string{"DRONE_SERVER", "DRONE_TOKEN", "DRONE_RPC_HOST", "DRONE_RPC_SECRET"}))}
	const name = "recipes"
	d.repository = d.get("GITEA_USER") + "/" + name
	// Private, as the clone step of a public one needs no password.
	d.ofGitea(t, "POST", "/user/repos", map[string]any{"name": name, "private": true}, nil)
	d.ofDrone(t, "POST", "/user/repos", nil, nil) // reads Gitea's list
	d.ofDrone(t, "POST", "/repos/"+d.repository, nil, nil)
	return d
}

func (d drone) get(name string) string { return env.Lookup(d.variables, name) }

// instance are the variables that name Gitea as the instance to test.
func (d drone) instance() (variables []string) {
	for _, name := range giteaVariables {
		variables = append(variables, name+"="+d.get(name))
	}
	return variables
}

// ofGitea and ofDrone call an API, which must do what it is asked.
func (d drone) ofGitea(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	ask(t, method, d.get("GITEA_URL")+"/api/v1"+path, d.authorization(), body, answer)
}

func (d drone) ofDrone(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	ask(t, method, d.get("DRONE_SERVER")+"/api"+path, "Bearer "+d.get("DRONE_TOKEN"), body, answer)
}

// authorization is the value of the HTTP header Authorization with Gitea's user and password.
func (d drone) authorization() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(d.get("GITEA_USER")+":"+d.get("GITEA_PASSWORD")))
}

func ask(t testing.TB, method, url, authorization string, body, answer any) {
	t.Helper()
	if err := tryAsk(method, url, authorization, body, answer); err != nil {
		t.Fatal(err)
	}
}

func tryAsk(method, url, authorization string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(interrupted(), method, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", authorization)
	request.Header.Set("Content-Type", "application/json")
	response, err := (&http.Client{Timeout: watchdog, Transport: &http.Transport{}}).Do(request) // no proxy
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("answered %s: %s", response.Status, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	return nil
}

// push pushes the checked-out commit of a work tree as the branch main.
func (d drone) push(t *testing.T, tree string) (commit string) {
	t.Helper()
	cmd := exec.CommandContext(interrupted(), "git", "-C", tree, "push", "--quiet", d.get("GITEA_URL")+"/"+d.repository+".git", "HEAD:refs/heads/main")
	// Not an argument, which every user of this machine could read.
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: "+d.authorization())
	output(t, cmd)
	return strings.TrimSpace(output(t, exec.CommandContext(interrupted(), "git", "-C", tree, "rev-parse", "HEAD")))
}

// attach makes a machine's Drone runner one of this server's, before the machine
// boots. The runner has the machine's name, and gives variables to each step.
func (d drone) attach(t *testing.T, m *machine, variables []string) {
	t.Helper()
	dashboard, err := wrap.FreePort() // the machine's network is this machine's, and its port 3000 may be taken
	if err != nil {
		t.Fatal(err)
	}
	const unit, secrets, ofSteps = "/etc/systemd/system/drone-runner-exec.service", "/etc/drone-runner.env", "/etc/drone-steps.env"
	text := strings.NewReplacer("DRONE_HOST", d.get("DRONE_RPC_HOST"), "DRONE_RUNNER_NAME=e2e", "DRONE_RUNNER_NAME="+m.name, "127.0.0.1:3000", fmt.Sprintf("127.0.0.1:%d", dashboard)).Replace(read(t, m.path(unit)))
	m.write(t, unit, text, 0o644)
	m.write(t, secrets, "DRONE_RPC_SECRET="+d.get("DRONE_RPC_SECRET")+"\nDRONE_RUNNER_ENVFILE="+ofSteps+"\n", 0o600)
	m.write(t, ofSteps, strings.Join(variables, "\n")+"\n", 0o644)
}

// build is what Drone knows of a build.
type build struct {
	Number int
	Status string
	After  string // the commit
	Stages []struct {
		Name, Machine, Error string
		Steps                []struct {
			Name, Status string
			Number       int
			ExitCode     int `json:"exit_code"`
		}
	}
}

// build waits until the build of a commit is as happened says, or has ended.
func (d drone) build(t *testing.T, m *machine, commit string, happened func(build) bool) (b build) {
	t.Helper()
	m.await(t, "the build of commit "+commit, func() bool {
		var list []build
		d.ofDrone(t, "GET", "/repos/"+d.repository+"/builds", nil, &list)
		i := slices.IndexFunc(list, func(b build) bool { return b.After == commit })
		if i < 0 {
			return false
		}
		d.ofDrone(t, "GET", fmt.Sprintf("/repos/%s/builds/%d", d.repository, list[i].Number), nil, &b)
		return happened(b) || !slices.Contains([]string{"pending", "running"}, b.Status)
	})
	return b
}

// ended waits for the end of the build of a commit, which must have a status, and
// gives it and the log of its last step.
func (d drone) ended(t *testing.T, m *machine, commit, status string) (b build, log string) {
	t.Helper()
	b = d.build(t, m, commit, func(build) bool { return false })
	if len(b.Stages) == 0 || len(b.Stages[0].Steps) == 0 {
		m.fatalf(t, "build %d has no step: %+v", b.Number, b)
	}
	steps := b.Stages[0].Steps
	var lines []struct{ Out string }
	d.ofDrone(t, "GET", fmt.Sprintf("/repos/%s/builds/%d/logs/1/%d", d.repository, b.Number, steps[len(steps)-1].Number), nil, &lines)
	for _, line := range lines {
		log += line.Out
	}
	if b.Status != status {
		m.fatalf(t, "build %d is %s, should be %s: %+v, the log of its last step:\n%s", b.Number, b.Status, status, b.Stages, log)
	}
	return b, log
}

// commitStatus waits until Drone has told Gitea how the build of a commit ended, and
// gives Gitea's word for that.
func (d drone) commitStatus(t *testing.T, m *machine, commit string) (state string) {
	t.Helper()
	m.await(t, "the status of commit "+commit, func() bool {
		var all struct {
			Statuses []struct{ Context, Status string }
		}
		d.ofGitea(t, "GET", "/repos/"+d.repository+"/commits/"+commit+"/status", nil, &all)
		for _, status := range all.Statuses {
			if status.Context == "continuous-integration/drone/push" {
				state = status.Status
			}
		}
		return state != "" && state != "pending"
	})
	return state
}

// TestDrone is a push to Gitea, which a real Drone server hears of, and a real
// drone-runner-exec, started by the unit that the NixOS module renders, runs the
// steps of .drone.yml. `make drone` runs it.
func TestDrone(t *testing.T) {
	t.Parallel()
	d := newDrone(t)
	m := newMachine(t, "twoPaths", droneRunner)
	d.attach(t, m, d.instance())
	m.boot(t, "multi-user.target")
	m.sh(t, "systemctl start drone-runner-exec.service")
	records := state.Dir(m.path("/var/lib/cc-ci-run"))

	tree := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		output(t, exec.CommandContext(m.ctx, "git", append([]string{"-C", tree, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost"}, args...)...))
	}
	git("clone", "--quiet", projectRoot(t), ".")
	// pushed commits files with new content, and pushes.
	pushed := func(t *testing.T, files map[string]string) (commit string) {
		t.Helper()
		for name, content := range files {
			write(t, filepath.Join(tree, name), content, 0o644)
		}
		git("add", ".")
		git("commit", "--quiet", "--allow-empty", "--message=a change")
		return d.push(t, tree)
	}

	t.Run("the witness passes", func(t *testing.T) {
		commit := pushed(t, nil)
		b, log := d.ended(t, m, commit, "success")
		if got := d.commitStatus(t, m, commit); got != "success" {
			t.Errorf("the commit's status is %s, should be success", got)
		}
		r, _, err := record.Newest(records, "drone", "gitea")
		if err != nil {
			m.fatalf(t, "%v\n%s", err, log)
		}
		if want := fmt.Sprintf("%s/%d/recipes/gitea", d.repository, b.Number); r.Invoker.ID != want || r.Revision != commit {
			t.Errorf("record %s is of run %q, commit %s; should be of %q, commit %s", r.ID, r.Invoker.ID, r.Revision, want, commit)
		}
		if b.Stages[0].Machine != "e2e" {
			t.Errorf("Drone says that the stage ran on machine %q, should say e2e", b.Stages[0].Machine)
		}
		if summary := summaryRE.FindStringSubmatch(log); summary == nil || !strings.HasPrefix(summary[1], "8 passed, 3 skipped in") {
			t.Errorf("pytest says %q, should say that 8 passed, and 3 were skipped because they deploy", summary)
		}
		t.Log(m.sh(t, "/etc/cc-ci-run/path/bin/cc-ci-run runs show "+r.ID))
	})

	t.Run("what a step finds", func(t *testing.T) { d.step(t, m, pushed) })

	t.Run("the witness fails", func(t *testing.T) {
		const file, begin = "recipes/gitea/test_lfs_roundtrip.py", "def roundtrip(run, remote, tmp_path):\n"
		witness := read(t, filepath.Join(tree, file))
		broken := strings.Replace(witness, begin, begin+"    run(\"git\", \"lfs\", \"nonesuch\")\n", 1)
		commit := pushed(t, map[string]string{file: broken, ".drone.yml": read(t, "../.drone.yml")})
		_, log := d.ended(t, m, commit, "failure")
		if got := d.commitStatus(t, m, commit); got != "failure" {
			t.Errorf("the commit's status is %s, should be failure", got)
		}
		if !regexp.MustCompile(`FAILED .*test_lfs_roundtrip`).MatchString(log) {
			t.Errorf("the log does not name the witness as failed:\n%s", log)
		}
	})

	t.Run("a build is cancelled", func(t *testing.T) { d.cancelled(t, m, pushed) })
}

// projectRoot is this project's work tree.
func projectRoot(t testing.TB) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// pipelineOf is a .drone.yml whose step has some commands.
func pipelineOf(commands ...string) string {
	yml := "kind: pipeline\ntype: exec\nname: recipes\nsteps:\n- name: a step\n  environment:\n    FROM_SERVER:\n      from_secret: site\n  commands:\n"
	for _, command := range commands {
		yml += "  - " + command + "\n"
	}
	return yml
}

// step looks at what a step finds, and at what cc-ci-run makes of it: the docs, the
// toolset and `parity --live` assume it.
func (d drone) step(t *testing.T, m *machine, pushed func(*testing.T, map[string]string) string) {
	d.ofDrone(t, "POST", "/repos/"+d.repository+"/secrets", map[string]string{"name": "site", "data": "a secret of the server"}, nil)
	commit := pushed(t, map[string]string{".drone.yml": pipelineOf(
		"env | sort", "pwd", "id -un", "stat -c '%a %n' . $HOME ../../opt $HOME/.netrc", "ls -A $HOME", "readlink /proc/self/fd/0", "cat $0",
		"cc-ci-run env --explain",
	)})
	b, log := d.ended(t, m, commit, "success")
	const work = `/var/lib/drone-runner-exec/drone-[A-Za-z0-9]{16}`
	for _, want := range []string{
		// The invoker and its name for the run: internal/env/invoker.go.
		`DRONE=true`, `CI=true`, `DRONE_REPO=` + d.repository, fmt.Sprintf(`DRONE_BUILD_NUMBER=%d`, b.Number), `DRONE_STAGE_NAME=recipes`, `DRONE_STEP_NAME=a step`,
		`DRONE_STAGE_MACHINE=e2e`, `DRONE_BUILD_EVENT=push`, `DRONE_COMMIT=` + commit, `DRONE_BRANCH=main`,
		// Drone takes the author of the pushed commit; toolset.toml fixes another one for all invokers.
		`GIT_TERMINAL_PROMPT=0`, `GIT_AUTHOR_NAME=e2e`, `GIT_AUTHOR_EMAIL=e2e@localhost`, `GIT_COMMITTER_NAME=e2e`, `GIT_COMMITTER_EMAIL=e2e@localhost`,
		`PATH=/etc/cc-ci-run/path/bin`, `USER=cc-ci`, `HOME=` + work + `/home/drone`, `HOMEPATH=` + work + `/home/drone`, `DRONE_WORKSPACE=` + work + `/drone/src`,
		`GITEA_URL=` + d.get("GITEA_URL"),      // the runner's file of variables
		`FROM_SERVER=\[secret:site\]`,          // a secret of the server, as the log shows one
		work + `/drone/src`, `cc-ci`, `700 \.`, // pwd, id, stat
		`700 ` + work + `/home/drone`, `700 \.\./\.\./opt`, `600 ` + work + `/home/drone/\.netrc`,
		`\+ ls -A \$HOME` + "\n" + `\.netrc` + "\n" + `\+ readlink .*`, // nothing else is in HOME
		`/dev/null`,  // stdin
		`echo \+ .*`, // the script echoes each command
		`dropped +USER .*`, `passed +HOME .*`, `passed +DRONE_BUILD_NUMBER +environment\.only\.drone DRONE_\* .*`, `dropped +FROM_SERVER .*`,
		`given +CC_CI_RUN_INVOKER .* drone`, `fixed +GIT_AUTHOR_NAME .* drone`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(log) {
			t.Errorf("no line is %s", want)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^(DRONE|CI)_\w+=`).FindAllString(log, -1)); n < 75 {
		t.Errorf("%d variables tell about the build, should be some eighty", n)
	}
	// Nothing of the runner's unit is the step's.
	if found := regexp.MustCompile(`(?m)^(INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID|CREDENTIALS_DIRECTORY|STATE_DIRECTORY|DRONE_RPC_\w+|DRONE_RUNNER_\w+|LANG|SHELL|LOGNAME)=.*`).FindString(log); found != "" {
		t.Errorf("a step finds %s", found)
	}
	if t.Failed() {
		t.Logf("the log:\n%s", log)
	}
}

// cancelled cancels builds while a test waits for a child. Drone kills the process
// that it started and no other one. Without exec that is the step's shell, and the
// test goes on. With exec it is the test, whose child goes on. It is a sweep whose
// supervisor then ends all.
func (d drone) cancelled(t *testing.T, m *machine, pushed func(*testing.T, map[string]string) string) {
	const began = "/var/lib/drone-runner-exec/began"
	slow := "import pathlib, subprocess\n\n\ndef test_slow():\n    with subprocess.Popen([\"sleep\", \"infinity\"]) as child:\n" +
		"        pathlib.Path(\"" + began + "\").touch()\n        child.wait()\n"
	// processes are those of the user, but for the runner.
	processes := func() []string {
		names := strings.Fields(m.sh(t, "ps -u cc-ci -o comm= | grep -v '^drone-runner' || true"))
		slices.Sort(names)
		return names
	}
	for _, row := range []struct {
		name, command string
		left          []string
	}{
		{"the shell ends", "cc-ci-run runner/run_recipe_ci.py slow", []string{"python3", "sleep"}},
		{"the test ends", "exec cc-ci-run runner/run_recipe_ci.py slow", []string{"sleep"}},
		{"all ends", "exec cc-ci-run sweep --recipes recipes --only slow", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			commit := pushed(t, map[string]string{".drone.yml": pipelineOf(row.command), "recipes/slow/test_slow.py": slow})
			b := d.build(t, m, commit, func(build) bool { return m.command("test", "-e", began).Run() == nil })
			t.Logf("while it runs: %s", processes())
			d.ofDrone(t, "DELETE", fmt.Sprintf("/repos/%s/builds/%d", d.repository, b.Number), nil, nil)
			d.ended(t, m, commit, "killed")
			if got := d.commitStatus(t, m, commit); got != "error" {
				t.Errorf("the commit's status is %s, should be error", got)
			}
			m.await(t, fmt.Sprintf("nothing to be left but %q", row.left), func() bool { return slices.Equal(processes(), row.left) })
			m.sh(t, "rm "+began+"; kill -9 $(ps -u cc-ci -o pid=,comm= | awk '!/drone-runner/ { print $1 }') 2>/dev/null || true")
		})
	}
}
