// Command drone-driver does with the exec pipelines of a .drone.yml what
// drone-runner-exec does with them, where there is no Drone server to tell the
// real one. It stands in for the runner and is named for what it is.
//
//	SOURCE_OF_PIPELINE=REPO drone-driver daemon [ENVFILE]
//
// ENVFILE has more variables, one a line; those that are set already stay. REPO is a
// git work tree. It is cloned into a fresh workspace, and each step
// is run there by /bin/sh -e. Steps get the runner's PATH, USER and proxies,
// ninety variables about the build, and nothing else of its environment; what the
// server would add as secrets are the driver's own GITEA_* variables.
//
// With DRONE_RUNNER_EXEC=PROGRAM it only finds out what the server would have
// told, and hands that to the real drone-runner-exec (its command exec).
// main_test.go compares the two.
package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

type pipeline struct {
	Kind    string  `yaml:"kind"`
	Type    string  `yaml:"type"`
	Name    string  `yaml:"name"`
	Trigger trigger `yaml:"trigger,omitempty"`
	Steps   []step  `yaml:"steps"`
}

// trigger says which events start a pipeline; without any, each does.
type trigger struct {
	Event []string `yaml:"event,omitempty"`
}

type step struct {
	Name        string            `yaml:"name"`
	Commands    []string          `yaml:"commands"`
	Environment map[string]string `yaml:"environment,omitempty"`
}

// build is what a server tells of a build.
type build struct {
	slug, remote, commit, branch, host string
}

func main() {
	if len(os.Args) > 2 {
		load(os.Args[2])
	}
	if err := run(os.Getenv("SOURCE_OF_PIPELINE"), os.Getenv("DRONE_RUNNER_ROOT"), os.Getenv("DRONE_RUNNER_EXEC"), os.Environ(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "drone-driver:", err)
		os.Exit(1)
	}
}

// load sets the variables that an ENVFILE has. Like the real runner, it goes on without them
// if the file cannot be read.
func load(file string) {
	data, _ := os.ReadFile(file)
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if _, set := os.LookupEnv(name); ok && !set {
			_ = os.Setenv(name, value)
		}
	}
}

// run runs each exec pipeline of source's .drone.yml that a push starts; the
// first failure is returned. With runner, that program does it.
func run(source, root, runner string, environ []string, out io.Writer) error {
	pipelines, err := read(filepath.Join(source, ".drone.yml"))
	if err != nil {
		return err
	}
	git := func(args ...string) (string, error) {
		line, err := exec.Command("git", append([]string{"-C", source}, args...)...).Output()
		return strings.TrimSpace(string(line)), err
	}
	b := build{slug: "e2e/cc-ci-run", remote: "file://" + source, host: "drone.localhost"}
	if b.commit, err = git("rev-parse", "HEAD"); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if b.branch, err = git("symbolic-ref", "--short", "HEAD"); err != nil {
		return fmt.Errorf("%s: no branch is checked out: %w", source, err)
	}
	secrets, handed := map[string]string{}, map[string]string{}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		switch lower := strings.ToLower(name); {
		case value == "":
		case strings.HasPrefix(name, "GITEA_"):
			secrets[name] = value
		case name == "PATH" || name == "USER":
			handed[name] = value
		case lower == "http_proxy" || lower == "https_proxy" || lower == "no_proxy":
			handed[lower], handed[strings.ToUpper(name)] = value, value
		}
	}
	for _, p := range pipelines {
		for i := range p.Steps {
			if p.Steps[i].Environment == nil {
				p.Steps[i].Environment = map[string]string{}
			}
			maps.Copy(p.Steps[i].Environment, secrets)
		}
		if runner != "" {
			err = hand(runner, root, p, b, environ, out)
		} else {
			err = p.run(root, handed, b, out)
		}
		if err != nil {
			return fmt.Errorf("pipeline %s: %w", p.Name, err)
		}
	}
	return nil
}

func read(file string) ([]pipeline, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []pipeline
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var p pipeline
		if err := d.Decode(&p); err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if started := len(p.Trigger.Event) == 0 || slices.Contains(p.Trigger.Event, "push"); p.Kind == "pipeline" && p.Type == "exec" && started {
			list = append(list, p)
		}
	}
}

// hand gives one pipeline to the real runner.
func hand(runner, root string, p pipeline, b build, environ []string, out io.Writer) error {
	data, err := yaml.Marshal(p)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(root, "pipeline-") // mode 0600: it has the secrets
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	cmd := exec.Command(runner, "exec", root, f.Name(), "--stage-name="+p.Name, "--stage-kind="+p.Kind, "--stage-type="+p.Type,
		"--repo-slug="+b.slug, "--repo-http="+b.remote, "--commit-after="+b.commit, "--commit-ref=refs/heads/"+b.branch, "--commit-target="+b.branch,
		"--system-host="+b.host, "--system-proto=https")
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, out, out
	return cmd.Run()
}

// run does the real runner's work: fresh directories, a clone, the steps.
func (p pipeline) run(root string, handed map[string]string, b build, out io.Writer) error {
	if root == "" {
		root = os.TempDir()
	}
	work := filepath.Join(root, "drone-"+rand.Text()[:16])
	home, src, opt := filepath.Join(work, "home", "drone"), filepath.Join(work, "drone", "src"), filepath.Join(work, "opt")
	defer os.RemoveAll(work)
	if err := os.MkdirAll(work, 0o777); err != nil {
		return err
	}
	for _, dir := range []string{home, src, opt} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	clone := step{Name: "clone", Commands: []string{
		"git init",
		"git remote add origin " + b.remote,
		"git fetch  origin +refs/heads/" + b.branch + ":",
		"git checkout " + b.commit + " -b " + b.branch,
	}}
	for i, s := range append([]step{clone}, p.Steps...) {
		script := filepath.Join(opt, s.Name)
		if err := os.WriteFile(script, []byte(s.script()), 0o700); err != nil {
			return err
		}
		cmd := exec.Command("/bin/sh", "-e", script)
		cmd.Dir = src
		// Not a file of the runner's, but a pipe to it.
		log := struct{ io.Writer }{out}
		cmd.Stdout, cmd.Stderr = log, log
		vars := p.variables(b, home, src, s.Name, i+1)
		maps.Copy(vars, handed)
		maps.Copy(vars, s.Environment)
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			cmd.Env = append(cmd.Env, name+"="+vars[name])
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("step %s: %w", s.Name, err)
		}
	}
	return nil
}

// script is what the shell is given: each command, echoed before it.
func (s step) script() string {
	var b strings.Builder
	b.WriteString("\nset -e\n")
	for _, c := range s.Commands {
		fmt.Fprintf(&b, "\necho + %s\n%s\n", strings.ReplaceAll(fmt.Sprintf("%q", c), "$", `\$`), c)
	}
	return b.String()
}

// variables are those that a step finds, but for its own environment: each
// that the real runner sets, empty where this build has nothing to say.
func (p pipeline) variables(b build, home, src, name string, number int) map[string]string {
	now := fmt.Sprint(time.Now().Unix())
	vars := map[string]string{
		"HOME": home, "HOMEPATH": home, "USERPROFILE": home,
		"DRONE_HOME": src, "DRONE_WORKSPACE": src,
		"CI": "true", "DRONE": "true",
		"GIT_TERMINAL_PROMPT": "0",
		"GIT_AUTHOR_NAME":     "drone", "GIT_AUTHOR_EMAIL": "noreply@drone",
		"GIT_COMMITTER_NAME": "drone", "GIT_COMMITTER_EMAIL": "noreply@drone",

		"DRONE_SYSTEM_HOST": b.host, "DRONE_SYSTEM_HOSTNAME": b.host, "DRONE_SYSTEM_PROTO": "https",
		"DRONE_REPO": b.slug, "DRONE_REPO_PRIVATE": "false", "CI_REPO": b.slug, "CI_REPO_NAME": b.slug, "CI_REPO_PRIVATE": "false",
		"DRONE_STAGE_NAME": p.Name, "DRONE_STAGE_KIND": p.Kind, "DRONE_STAGE_TYPE": p.Type, "DRONE_STAGE_NUMBER": "1", "DRONE_STAGE_STATUS": "success",
		"DRONE_STEP_NAME": name, "DRONE_STEP_NUMBER": fmt.Sprint(number),
		"DRONE_BUILD_NUMBER": "1", "CI_BUILD_NUMBER": "1", "DRONE_BUILD_PARENT": "0", "CI_PARENT_BUILD_NUMBER": "0",
		"DRONE_BUILD_EVENT": "push", "CI_BUILD_EVENT": "push", "DRONE_BUILD_STATUS": "success",
		"DRONE_BUILD_LINK": "https://" + b.host + "/" + b.slug + "/1",
		"CI_BUILD_STARTED": "0", "CI_BUILD_FINISHED": "0",
	}
	for value, names := range map[string]string{
		now:                      "DRONE_STAGE_STARTED DRONE_STAGE_FINISHED DRONE_BUILD_CREATED DRONE_BUILD_STARTED DRONE_BUILD_FINISHED CI_BUILD_CREATED",
		b.remote:                 "DRONE_REMOTE_URL DRONE_GIT_HTTP_URL CI_REPO_REMOTE CI_REMOTE_URL",
		b.branch:                 "DRONE_BRANCH DRONE_TARGET_BRANCH DRONE_COMMIT_BRANCH CI_COMMIT_BRANCH",
		b.commit:                 "DRONE_COMMIT DRONE_COMMIT_SHA DRONE_COMMIT_AFTER CI_COMMIT_SHA",
		"refs/heads/" + b.branch: "DRONE_COMMIT_REF CI_COMMIT_REF",
		"": "DRONE_SYSTEM_VERSION DRONE_REPO_SCM DRONE_REPO_OWNER DRONE_REPO_NAMESPACE DRONE_REPO_NAME DRONE_REPO_LINK DRONE_REPO_BRANCH " +
			"DRONE_REPO_VISIBILITY DRONE_GIT_SSH_URL CI_REPO_LINK DRONE_STAGE_MACHINE DRONE_STAGE_OS DRONE_STAGE_ARCH DRONE_STAGE_VARIANT DRONE_STAGE_DEPENDS_ON " +
			"DRONE_SOURCE_BRANCH DRONE_COMMIT_BEFORE DRONE_COMMIT_LINK DRONE_COMMIT_MESSAGE DRONE_COMMIT_AUTHOR DRONE_COMMIT_AUTHOR_EMAIL " +
			"DRONE_COMMIT_AUTHOR_AVATAR DRONE_COMMIT_AUTHOR_NAME DRONE_BUILD_ACTION DRONE_DEPLOY_TO CI_BUILD_STATUS CI_BUILD_LINK CI_BUILD_TARGET " +
			"CI_COMMIT_MESSAGE CI_COMMIT_AUTHOR CI_COMMIT_AUTHOR_NAME CI_COMMIT_AUTHOR_EMAIL CI_COMMIT_AUTHOR_AVATAR",
	} {
		for _, name := range strings.Fields(names) {
			vars[name] = value
		}
	}
	return vars
}
