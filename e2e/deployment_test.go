//go:build environment && e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kills is how many runs TestDeploymentKilled kills.
var kills = flag.Int("kills", 3, "TestDeploymentKilled kills `N` runs at random moments")

// recipe has the files of a recipe that deploys the image of e2e/tiny, by name.
type recipe map[string]string

// compose is the compose file of a recipe with one service, and one of each kind of
// object that a stack can have.
const compose = `version: "3.8"
services:
  app:
    image: ${IMAGE:-cc-ci-run-test/tiny:1}
    environment: [VERSION, FAIL, UNHEALTHY, FILL]
    networks: [inner]
    volumes: ["data:/data"]
    configs: [{source: settings, target: /settings}]
    secrets: [key]
    ports: [{target: 9090, published: "${OTHER_PORT}", mode: host}]
    healthcheck: {test: ["CMD", "/tiny", "health"], interval: 1s, retries: 3}
    deploy:
      labels: ["traefik.http.services.${STACK_NAME}.loadbalancer.server.port=8080"]
      restart_policy: {delay: 100ms}
      update_config: {monitor: 1s}
networks: {inner: {}}
volumes: {data: {}}
configs: {settings: {file: settings.txt, name: "${STACK_NAME}_settings_v1"}}
secrets: {key: {external: true, name: "${STACK_NAME}_key_${SECRET_KEY_VERSION}"}}
`

// newRecipe is a recipe with settings and tests. A deployment of it may take a minute.
func newRecipe(test string, settings ...string) recipe {
	return recipe{
		"compose.yml":  compose,
		"settings.txt": "a setting\n",
		".env.sample":  strings.Join(append([]string{"TIMEOUT=60", "SECRET_KEY_VERSION=v1"}, settings...), "\n") + "\n",
		"test_it.py":   test,
	}
}

// answers is a test that passes once the recipe is deployed.
const answers = `import urllib.request
def test_it(deployment):
    assert b"version" in urllib.request.urlopen(deployment.url).read()
`

// operated has tests that deploy, upgrade, back up and restore.
const operated = answers + `
    urllib.request.urlopen(urllib.request.Request(deployment.url + "/data/kept", b"kept", method="PUT"))
    deployment.upgrade(VERSION="2")
    assert urllib.request.urlopen(deployment.url).read() == b"version 2\n"
    assert urllib.request.urlopen(deployment.url + "/data/kept").read() == b"kept"

def test_restore(deployment, deployments, tmp_path):
    deployment.backup(tmp_path / "backup.tar")
    other = deployments.new()
    other.restore(tmp_path / "backup.tar")
    assert urllib.request.urlopen(other.url + "/data/kept").read() == b"kept"
`

// recipes is a directory of recipes, and the home of their runs, which has their state.
type recipes struct{ dir, home string }

func newRecipes(t *testing.T, all map[string]recipe) recipes {
	t.Helper()
	dir := t.TempDir()
	for name, files := range all {
		for file, content := range files {
			write(t, filepath.Join(dir, "recipes", name, file), content, 0o644)
		}
	}
	return recipes{filepath.Join(dir, "recipes"), dir}
}

// command is cc-ci-run with arguments, in a process group of its own.
func (r recipes) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary(t), slices.Concat([]string{"--state", r.home + "/state"}, args)...)
	cmd.Env = []string{"HOME=" + r.home}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run is a run of one recipe's tests.
func (r recipes) run(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	return r.command(t, "--result", r.result(name), "../runner/run_recipe_ci.py", "--recipes", r.dir, name)
}

// result is the file with the result of the last run of a recipe.
func (r recipes) result(name string) string { return filepath.Join(r.home, name+".json") }

// objects are the names of all objects of the daemon, by kind and ID, except the
// networks that docker itself makes when they are needed first.
func objects(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for kind, columns := range map[string]string{
		"service": "{{.ID}} {{.Name}}", "container": "{{.ID}} {{.Names}}", "network": "{{.ID}} {{.Name}}",
		"volume": "{{.Name}} {{.Name}}", "secret": "{{.ID}} {{.Name}}", "config": "{{.ID}} {{.Name}}",
	} {
		args := []string{kind, "ls", "--format", columns}
		switch kind {
		case "container":
			args = append(args, "--all")
		case "network":
			args = append(args, "--filter", "type=custom") // without those of each start of the daemon
		}
		for line := range strings.Lines(output(t, exec.Command("docker", args...))) {
			id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			if kind != "network" || name != "ingress" && name != "docker_gwbridge" {
				all[kind+" "+id] = name
			}
		}
	}
	return all
}

// unchanged fails the test if the daemon's objects are not those that it had before.
func unchanged(t *testing.T, before map[string]string) {
	t.Helper()
	after := objects(t)
	for _, thing := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[thing]; !ok {
			t.Errorf("%s %s is left", thing, after[thing])
		}
	}
	for _, thing := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[thing]; !ok {
			t.Errorf("%s %s is gone, and no killed run made it", thing, before[thing])
		}
	}
}

// noneNamed fails the test for each object whose name begins with a prefix.
func noneNamed(t *testing.T, prefix string) {
	t.Helper()
	for thing, name := range objects(t) {
		if strings.HasPrefix(name, prefix) {
			t.Errorf("%s %s is left", thing, name)
		}
	}
}

// lives is a test that makes the file "deployed" when the recipe is deployed, and
// ends when the file "end" exists. Both files are beside the recipes.
const lives = `import pathlib, time
def test_it(deployment):
    here = pathlib.Path(__file__).parent.parent.parent
    (here / "deployed").touch()
    while not (here / "end").exists():
        time.sleep(0.1)
`

// others deploys a stack that no run made, and starts a run that lives until
// the test ends. others returns when the stack and the run's deployment are healthy.
func others(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/compose.yml", compose, 0o644)
	write(t, dir+"/settings.txt", "theirs\n", 0o644)
	output(t, exec.Command("sh", "-c", "echo theirs | docker secret create theirs_key_v1 -; docker volume create theirs; docker network create theirs"))
	deploy := exec.Command("docker", "stack", "deploy", "--resolve-image", "never", "--compose-file", dir+"/compose.yml", "theirs")
	deploy.Env = append(os.Environ(), "STACK_NAME=theirs", "SECRET_KEY_VERSION=v1", "OTHER_PORT=9090")
	output(t, deploy)
	for !strings.Contains(output(t, exec.Command("docker", "service", "ls", "--format", "{{.Name}} {{.Replicas}}")), "theirs_app 1/1") {
		time.Sleep(200 * time.Millisecond)
	}

	r := newRecipes(t, map[string]recipe{"lives": newRecipe(lives)})
	run, said := r.start(t, "lives")
	t.Cleanup(func() {
		write(t, r.home+"/end", "", 0o644)
		if err := run.Wait(); err != nil {
			t.Errorf("the run that lived: %v: %s", err, said)
		}
	})
	until(t, run, said, r.deployed)
}

// start starts a run of one recipe's tests. The buffer may be read once the run was waited for.
func (r recipes) start(t *testing.T, name string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	run, said := r.run(t, name), &bytes.Buffer{}
	run.Stdout, run.Stderr = said, said
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	return run, said
}

// deployed is whether the recipe of the test `lives` is deployed.
func (r recipes) deployed() bool {
	_, err := os.Stat(r.home + "/deployed")
	return err == nil
}

// until returns when ready does. If the run ends before that, the test ends. until
// does not wait for the run: the ended process stays a zombie.
func until(t *testing.T, run *exec.Cmd, said *bytes.Buffer, ready func() bool) {
	t.Helper()
	for !ready() {
		var ended unix.Siginfo
		if err := unix.Waitid(unix.P_PID, run.Process.Pid, &ended, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		if ended.Signo != 0 {
			t.Fatalf("the run ended too early: %v: %s", run.Wait(), said)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestDeploymentKilled kills runs at random moments of a deployment's life. The
// next run removes all that a killed run left, and touches nothing else.
func TestDeploymentKilled(t *testing.T) {
	if !inSwarm(t, "tiny") {
		return
	}
	r := newRecipes(t, map[string]recipe{"killed": newRecipe(operated), "next": newRecipe(answers)})
	others(t)
	began := time.Now()
	if out, err := r.run(t, "killed").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(began)
	before := objects(t)
	left := 0
	for n := range *kills {
		moment := rand.N(whole)
		run, said := r.start(t, "killed")
		time.Sleep(moment)
		killed := -run.Process.Pid // its group
		if n%2 == 0 {
			killed = run.Process.Pid // only the runner: the docker command that it has started goes on
		}
		_ = syscall.Kill(killed, syscall.SIGKILL)
		_ = run.Wait()
		found := len(objects(t)) - len(before)
		left += max(0, found)
		out, err := r.run(t, "next").CombinedOutput()
		if err != nil {
			t.Errorf("the next run: %v: %s", err, out)
		}
		unchanged(t, before)
		t.Logf("kill %d after %.2f s of %.2f s: %d objects were left", n+1, moment.Seconds(), whole.Seconds(), found)
		if t.Failed() {
			t.Fatalf("the killed run said\n%s\nthe next one\n%s", said, out)
		}
	}
	if left == 0 {
		t.Error("no killed run left anything, so this test tried nothing")
	}
}

// TestDeploymentByAbra: with DEPLOY_WITH=abra, all that a deployment can do works by
// abra, whose place testdata/abra takes. Each setting reaches the service with every
// character unchanged.
func TestDeploymentByAbra(t *testing.T) {
	if !inSwarm(t, "tiny") {
		return
	}
	const hard = `"a" 'b' \\ $HOME ` + "`id`"
	deploys := newRecipe(operated + `
def test_settings(deployment):
    assert deployment.upgrade(VERSION=HARD) is None
    assert urllib.request.urlopen(deployment.url).read().decode() == f"version {HARD}\n"
HARD = ` + strconv.Quote(hard) + "\n")
	deploys["compose.yml"] = strings.Replace(compose, "VERSION,", `"VERSION=${VERSION:-1}",`, 1)
	r := newRecipes(t, map[string]recipe{"deploys": deploys})
	output(t, exec.Command("install", "-D", "-t", r.home+"/tools", "testdata/abra"))
	before := objects(t)
	run := func(with, path string) (string, error) {
		cmd := r.command(t, "exec", "bash", "-c", `PATH=$0:$PATH exec "$@"`, path, "python3", "../runner/run_recipe_ci.py", "--recipes", r.dir, "deploys")
		cmd.Env = append(cmd.Env, "DEPLOY_WITH="+with)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("abra", r.home+"/tools"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if apps, err := os.ReadFile(r.home + "/tools/deployed"); len(strings.Fields(string(apps))) != 4 {
		t.Errorf("abra deployed %q (%v), want two deployments and two upgrades", apps, err)
	}
	for _, row := range []struct{ with, path, says string }{
		{"abra", "/nonexistent", "DEPLOY_WITH is 'abra', and this environment has no abra"},
		{"podman", "/nonexistent", "DEPLOY_WITH is 'podman': set it to docker or abra, or unset it"},
	} {
		if out, err := run(row.with, row.path); err == nil || !strings.Contains(out, row.says) {
			t.Errorf("DEPLOY_WITH=%s: %v: %s, want %q", row.with, err, out, row.says)
		}
	}
	unchanged(t, before)
}

// TestDeploymentFails: in whatever way a deployment fails, the test fails with the
// words of the service or of docker, and the run leaves nothing.
func TestDeploymentFails(t *testing.T) {
	if !inSwarm(t, "tiny") {
		return
	}
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	settings := func(lines ...string) recipe { return newRecipe(answers, lines...) }
	file := func(name, content string) recipe {
		r := newRecipe(answers)
		r[name] = content
		return r
	}
	rows := map[string]struct {
		recipe recipe
		says   string // a regular expression for the message of the failed test
	}{
		"image-missing":  {settings("IMAGE=cc-ci-run-test/nowhere:1"), `No such image: cc-ci-run-test/nowhere:1`},
		"never-healthy":  {settings("TIMEOUT=8", "UNHEALTHY='the database sleeps'"), `not healthy after 8 s(.|\n)*the database sleeps`},
		"restarts":       {settings("FAIL='listen unix /run/db: address already in use'"), `failed 10 times(.|\n)*tiny: listen unix /run/db: address already in use`},
		"port-taken":     {file("conftest.py", fmt.Sprintf("import pytest\n@pytest.fixture(scope='session')\ndef deployment_settings():\n    return {'OTHER_PORT': '%d'}\n", port)), `(port|address) (is )?already (in use|allocated)`},
		"wrong-schema":   {file("compose.yml", strings.Replace(compose, "image:", "imagee:", 1)), `wrong-schema/compose.yml: .*imagee`},
		"wrong-labels":   {file("compose.yml", strings.Replace(compose, "image:", "labels: 7\n    image:", 1)), `wrong-labels/compose.yml: .*services.app.labels must be`},
		"wrong-deploy":   {file("compose.yml", strings.NewReplacer("deploy:", "deploy: false\n    x-deploy:", `"${OTHER_PORT}"`, "9090").Replace(compose)), `wrong-deploy/compose.yml: .*services.app.deploy must be`},
		"indirect":       {newRecipe(indirect), `the test itself fails(.|\n)*== docker stack ps(.|\n)*tiny: version`},
		"wrong-yaml":     {file("compose.yml", "services:\n  app: [\n"), `wrong-yaml/compose.yml:\d+: `},
		"no-file":        {settings("COMPOSE_FILE=compose.none.yml"), `no-file/compose.none.yml: No such file or directory`},
		"config-missing": {file("compose.yml", strings.Replace(compose, "settings.txt", "none.txt", 1)), `config-missing/none.txt: no such file or directory`},
	}
	all := map[string]recipe{}
	for name, row := range rows {
		all[name] = row.recipe
	}
	r := newRecipes(t, all)
	before := objects(t)
	t.Run("recipe", func(t *testing.T) { // returns when all have run
		for name, row := range rows {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				out := r.fails(t, name, row.says)
				tries := map[string]bool{}
				for _, stack := range regexp.MustCompile(`cc-ci-`+name+`-[0-9a-f]{8}`).FindAllString(out, -1) {
					tries[stack] = true
				}
				if len(tries) > 1 && name != "port-taken" { // a free port can help no other recipe
					t.Errorf("deployed %d times:\n%s", len(tries), out)
				}
			})
		}
	})
	unchanged(t, before)
}

// fails runs a recipe whose only test must fail. The message of the failure must
// match in two places: the result, for programs, and the output, for people.
// fails returns the output.
func (r recipes) fails(t *testing.T, name, pattern string) string {
	t.Helper()
	out, err := r.run(t, name).CombinedOutput()
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != 1 {
		t.Errorf("%v, want exit status 1: %s", err, out)
	}
	var ctrf struct {
		Results struct {
			Tests []struct{ Status, Message, Trace string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, r.result(name))), &ctrf); err != nil {
		t.Fatal(err)
	}
	says := regexp.MustCompile(pattern)
	tests := ctrf.Results.Tests
	if len(tests) != 1 || tests[0].Status != "failed" || !says.MatchString(tests[0].Message+"\n"+tests[0].Trace) {
		t.Errorf("the result does not say %q: %+v", pattern, tests)
	}
	if !says.Match(out) {
		t.Errorf("the output does not say %q:\n%s", pattern, out)
	}
	return string(out)
}

// indirect is a failing test whose own arguments do not show that it uses a deployment.
const indirect = `import pytest
@pytest.fixture
def instance(request):
    return request.getfixturevalue("deployment")
def test_it(instance):
    assert instance is None, "the test itself fails"
`

// asks begins a test that asks docker about the deployment.
const asks = `import json, os, pathlib, subprocess, pytest, urllib.request

def docker(*words):
    return subprocess.run(["docker", *map(str, words)], check=True, capture_output=True, text=True).stdout

def inspect(kind, name):
    return json.loads(docker(kind, "inspect", name))[0]

def kept(deployment, content=None):
    method = "GET" if content is None else "PUT"
    return urllib.request.urlopen(urllib.request.Request(deployment.url + "/data/kept", content, method=method)).read()

fails = lambda words: pytest.raises(pytest.fail.Exception, match=words)
`

// written is a recipe whose compose files are written in ways that the fixture has to
// understand, and its test compares what docker made of them.
func written() recipe {
	r := newRecipe(asks+`
def test_services(deployment):
    app = inspect("service", deployment.name + "_app")["Spec"]
    more = inspect("service", deployment.name + "_more")["Spec"]  # COMPOSE_FILE adds to COMPOSE_FILE
    assert app["Mode"]["Replicated"]["Replicas"] == 1  # only one task can have the port
    ports = app["EndpointSpec"]["Ports"] + more["EndpointSpec"]["Ports"]
    assert {port["PublishMode"] for port in ports} == {"host"}
    assert {port["TargetPort"] for port in app["EndpointSpec"]["Ports"]} == {3000, 3001, 3002, 8080}
    assert len({port["PublishedPort"] for port in ports}) == len(ports)
    assert type(deployment.port("app", 3001)) is int
    with fails(r"(?s)3001.*8080"):
        deployment.port("app", 1)
    container = app["TaskTemplate"]["ContainerSpec"]
    assert container["Configs"][0]["ConfigName"].startswith(deployment.name)
    assert container["Secrets"][0]["SecretName"].startswith(deployment.name)

def test_environment(deployment, tmp_path):
    """As docker itself reads it from the recipe's compose file."""
    (line,) = [x for x in pathlib.Path(__file__).with_name("compose.yml").read_text().splitlines() if "environment:" in x]
    service = "services:\n  app:\n    image: cc-ci-run-test/tiny:1\n    deploy: {replicas: 0}\n"
    (tmp_path / "compose.yml").write_text("version: '3.8'\n" + service + line)
    docker("stack", "deploy", "--resolve-image", "never", "--compose-file", tmp_path / "compose.yml", "plain")
    names = "plain_app", deployment.name + "_app"
    plain, ours = [inspect("service", name)["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] for name in names]
    docker("stack", "rm", "plain")
    assert ours == plain
    assert ours[:7] == ["A=1e3", "B=08", "C=0o17", "D=12345e67", "E=true", "F=yes", "G=22:22"]
`, `COMPOSE_FILE="compose.yml"`, `COMPOSE_FILE="$COMPOSE_FILE:compose.more.yml"`)
	// No version. A range of ports, and a port with two replicas. Names that a stranger may use.
	r["compose.yml"] = `services:
  app:
    image: cc-ci-run-test/tiny:1
    environment: {A: "1e3", B: "08", C: "0o17", D: "12345e67", E: 'true', F: "yes", G: "22:22", H: 1e3, I: 08, J: 0o17, K: 017, L: 22:22, M: 1.50, O: 0x1F, P: 1_000, Q: 2026-11-26, R: 12345e67, S: +1, T: plain text}
    networks: [inner]
    ports: ["3000-3002:3000-3002"]
    configs: [{source: shared, target: /shared}]
    secrets: [shared]
    healthcheck: {test: ["CMD", "/tiny", "health"], interval: 1s}
    deploy:
      replicas: 2
      labels: ["traefik.http.services.${STACK_NAME}.loadbalancer.server.port=8080"]
networks: {inner: {}}
configs: {shared: {name: shared_v1, file: settings.txt}}
secrets: {shared: {name: shared_v1, file: settings.txt}}
`
	// A service with no networks.
	r["compose.more.yml"] = `services:
  more: {image: "cc-ci-run-test/tiny:1", ports: ["4000:4000"]}
`
	return r
}

// backedUp is a recipe with a volume that has a name of its own, and one that has options.
func backedUp() recipe {
	r := newRecipe(asks + `
def test_it(deployment, tmp_path):
    kept(deployment, b"kept")
    with pytest.raises((pytest.fail.Exception, OSError), match="none"):
        deployment.backup(tmp_path / "none" / "backup.tar")
    assert kept(deployment) == b"kept"
    with pytest.raises((pytest.fail.Exception, OSError), match="none.tar"):
        deployment.restore(tmp_path / "none.tar")
    assert kept(deployment) == b"kept"
    memory = deployment.name + "_memory"
    options = inspect("volume", memory)["Options"]
    assert options["type"] == "tmpfs"
    deployment.backup(tmp_path / "backup.tar")
    kept(deployment, b"lost")
    deployment.restore(tmp_path / "backup.tar")
    assert kept(deployment) == b"kept"
    assert inspect("volume", memory)["Options"] == options
`)
	r["compose.yml"] = strings.NewReplacer(
		`["data:/data"]`, `["data:/data", "memory:/memory"]`,
		"volumes: {data: {}}", `volumes: {data: {name: "${STACK_NAME}-data"}, memory: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=1m"}}}`,
	).Replace(compose)
	return r
}

// global is a recipe with a service of mode global, and another recipe's compose file.
func global() recipe {
	r := newRecipe(asks + `
def test_it(deployment, deployments, tmp_path):
    kept(deployment, b"kept")
    deployment.backup(tmp_path / "backup.tar")
    kept(deployment, b"lost")
    deployment.restore(tmp_path / "backup.tar")
    assert kept(deployment) == b"kept"

    other = deployments.new(settings={"COMPOSE_FILE": "compose.other.yml"})
    kept(other, b"theirs")
    with fails("(?s)data.*files|files.*data"):
        other.restore(tmp_path / "backup.tar")
    assert kept(other) == b"theirs"
`)
	r["compose.yml"] = strings.Replace(compose, "deploy:", "deploy:\n      mode: global", 1)
	r["compose.other.yml"] = strings.NewReplacer("data:/data", "files:/data", "{data: {}}", "{files: {}}").Replace(compose)
	return r
}

// upgraded is a recipe with an upgrade, beside a service that has no tasks.
func upgraded() recipe {
	r := newRecipe(asks + `
def test_upgrade(deployment):
    value = deployment.secrets["key"]
    deployment.upgrade(SECRET_KEY_VERSION="v2")
    app = inspect("service", deployment.name + "_app")["Spec"]["TaskTemplate"]["ContainerSpec"]
    assert app["Secrets"][0]["SecretName"] == deployment.name + "_key_v2"
    assert len(deployment.secrets["key"]) == 32 and deployment.secrets["key"] != value

def test_fork(deployment):
    child = os.fork()
    assert child, "the child goes on with pytest's session, and ends the session before its parent does"
    os.waitpid(child, 0)
    assert b"version" in urllib.request.urlopen(deployment.url).read()
`)
	r["compose.yml"] = strings.Replace(compose, "services:", "services:\n  idle: {image: 'cc-ci-run-test/tiny:1', environment: [SECRET_KEY_VERSION], deploy: {replicas: 0}}", 1)
	return r
}

// undone is a recipe whose failed upgrades swarm rolls back.
func undone() recipe {
	r := newRecipe(asks + `
def test_it(deployment):
    with fails("rollback"):
        deployment.upgrade(FAIL="broken")
    with fails("rollback"):
        deployment.upgrade(FAIL="", IMAGE="cc-ci-run-test/nowhere:1")
`)
	r["compose.yml"] = strings.Replace(compose, "{monitor: 1s}", "{monitor: 1s, failure_action: rollback}", 1)
	return r
}

// TestDeploymentHolds: recipes of many kinds deploy, and their tests find what must be
// true. A signal during the removal leaves nothing. What a stranger has stays the same.
// TestDeploymentLeftover, which mostly waits, runs at the same time.
func TestDeploymentHolds(t *testing.T) {
	t.Parallel()
	if !inSwarm(t, "tiny") {
		return
	}
	rows := map[string]recipe{
		"written": written(), "backed-up": backedUp(), "global": global(), "upgraded": upgraded(), "undone": undone(),
	}
	signals := map[string]syscall.Signal{"sigterm": syscall.SIGTERM, "sighup": syscall.SIGHUP, "sigint": syscall.SIGINT}
	all := maps.Clone(rows)
	for name := range signals {
		all[name] = newRecipe(answers)
	}
	r := newRecipes(t, all)
	output(t, exec.Command("sh", "-c", "for kind in config secret; do echo theirs | docker $kind create --label whose=theirs shared_v1 -; done"))
	theirs := func() string {
		return output(t, exec.Command("sh", "-c", "for kind in config secret; do docker $kind inspect shared_v1; done"))
	}
	before, shared := objects(t), theirs()
	t.Run("recipe", func(t *testing.T) { // returns when all have run
		for name := range rows {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if out, err := r.run(t, name).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		for name, signal := range signals {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r.endsWhileRemoved(t, name, signal)
			})
		}
	})
	unchanged(t, before)
	if now := theirs(); now != shared {
		t.Errorf("a stranger's config or secret changed from\n%s\nto\n%s", shared, now)
	}
}

// endsWhileRemoved sends a signal to the run of a recipe when the run has removed the
// deployment's service, but not yet its network and its volume.
func (r recipes) endsWhileRemoved(t *testing.T, name string, signal syscall.Signal) {
	t.Helper()
	run, said := r.start(t, name)
	for _, want := range []bool{true, false} {
		until(t, run, said, func() bool {
			return want == (output(t, exec.Command("docker", "service", "ls", "--quiet", "--filter", "name=cc-ci-"+name+"-")) != "")
		})
	}
	if err := run.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	err := run.Wait()
	noneNamed(t, "cc-ci-"+name+"-")
	if t.Failed() {
		t.Logf("%v: %s", err, said)
	}
}

// TestDeploymentLeftover: the volume of a killed run is used by a stranger's container,
// so the next run cannot remove the volume. The next run says so, and passes. Nobody has
// waited for the killed run's process, as in a container without an init.
func TestDeploymentLeftover(t *testing.T) {
	t.Parallel()
	if !inSwarm(t, "tiny") {
		return
	}
	r := newRecipes(t, map[string]recipe{"lives": newRecipe(lives), "next": newRecipe(answers)})
	before := objects(t)
	killed, said := r.start(t, "lives")
	until(t, killed, said, r.deployed)
	_ = killed.Process.Kill()
	var volume string
	for thing, name := range objects(t) {
		if strings.HasPrefix(thing, "volume ") {
			volume = name
		}
	}
	output(t, exec.Command("docker", "run", "--detach", "--name", "stranger", "--volume", volume+":/data", "cc-ci-run-test/tiny:1"))

	next := func() string {
		out, err := r.run(t, "next").CombinedOutput()
		if err != nil {
			t.Errorf("the next run: %v: %s", err, out)
		}
		return string(out)
	}
	stack := strings.TrimSuffix(volume, "_data")
	if out := next(); !regexp.MustCompile(stack + `.* (could not|cannot) be removed`).MatchString(out) {
		t.Errorf("the next run does not say that %s cannot be removed: %s", stack, out)
	}
	for thing, name := range objects(t) {
		if strings.HasPrefix(name, stack) && thing != "volume "+volume {
			t.Errorf("%s %s is left", thing, name)
		}
	}
	output(t, exec.Command("docker", "rm", "--force", "stranger"))
	next()
	unchanged(t, before)
	_ = killed.Wait()
}

// TestDeploymentDiskFull: the data root is on a small disk that a service fills.
// Docker allocates half of that disk for the swarm's own log.
func TestDeploymentDiskFull(t *testing.T) {
	dir := t.TempDir()
	if os.Getenv(insideSwarm) == "" {
		mount(t, "tmpfs", dir, "size=256m")
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	if !inSwarm(t, "tiny", "TMPDIR="+dir) {
		return
	}
	t.Setenv("TMPDIR", "/tmp") // the runner's files are on another disk
	r := newRecipes(t, map[string]recipe{"full": newRecipe(answers, "FILL=1", "TIMEOUT=30")})
	r.fails(t, "full", "no space left on device")
}

// TestDeploymentDaemonEnds: the daemon ends while a recipe is deployed. The run
// fails with docker's words, and the next run, once a daemon answers again,
// removes what the first run left.
func TestDeploymentDaemonEnds(t *testing.T) {
	if !inSwarm(t, "tiny") {
		return
	}
	const ends = `import os, pathlib, signal, time
def test_it(deployment):
    os.kill(int(pathlib.Path("/run/docker.pid").read_text()), signal.SIGKILL)
    deployment.upgrade(VERSION="2")
`
	r := newRecipes(t, map[string]recipe{"ends": newRecipe(ends), "next": newRecipe(answers)})
	before := objects(t)
	pid := strings.TrimSpace(read(t, "/run/docker.pid"))
	argv := strings.Split(strings.TrimSuffix(read(t, "/proc/"+pid+"/cmdline"), "\x00"), "\x00")
	r.fails(t, "ends", "Cannot connect to the Docker daemon at unix:///run/docker.sock")

	daemon := exec.Command(argv[0], argv[1:]...)
	daemon.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := daemon.Start(); err != nil { // it ends with the namespaces of this test
		t.Fatal(err)
	}
	for exec.Command("docker", "service", "ls").Run() != nil {
		time.Sleep(200 * time.Millisecond)
	}
	if out, err := r.run(t, "next").CombinedOutput(); err != nil {
		t.Errorf("the next run: %v: %s", err, out)
	}
	unchanged(t, before)
}

// TestDeploymentSweep: a sweep deploys two recipes at once, and the test of each
// waits for the other's deployment. A recipe with a wrong compose file is held, and
// its log has docker's message.
func TestDeploymentSweep(t *testing.T) {
	if !inSwarm(t, "tiny") {
		return
	}
	const meets = answers + `
    import pathlib, time
    here = pathlib.Path(__file__).parent
    mine, other = here.name, {"one": "two", "two": "one"}[here.name]
    (here.parent.parent / mine).touch()
    while not (here.parent.parent / other).exists():
        time.sleep(0.1)
    assert b"version" in urllib.request.urlopen(deployment.url).read()
`
	wrong := newRecipe(answers)
	wrong["compose.yml"] = strings.Replace(compose, "image:", "imagee:", 1)
	r := newRecipes(t, map[string]recipe{"one": newRecipe(meets), "two": newRecipe(meets), "wrong": wrong})
	sweep := r.command(t, "sweep", "--recipes", r.dir, "--runner", "../runner/run_recipe_ci.py", "--jobs", "2", "--output", "json")
	var said bytes.Buffer
	sweep.Stderr = &said
	out, err := sweep.Output()
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != 1 {
		t.Fatalf("%v, want exit status 1: %s%s", err, out, &said)
	}
	var verdicts []struct{ Recipe, Verdict, Log string }
	if err := json.Unmarshal(out, &verdicts); err != nil || len(verdicts) != 3 {
		t.Fatalf("%v: %s%s", err, out, &said)
	}
	for _, v := range verdicts {
		want, words := "PROMOTE", "1 passed"
		if v.Recipe == "wrong" {
			want, words = "HOLD", r.dir+"/wrong/compose.yml: "
		}
		if log := read(t, v.Log); v.Verdict != want || !strings.Contains(log, words) {
			t.Errorf("%s: %s, want %s, and %q in the log:\n%s", v.Recipe, v.Verdict, want, words, log)
		}
	}
	noneNamed(t, "cc-ci-")
}
