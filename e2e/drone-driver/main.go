// Command drone-driver does with the steps of a .drone.yml what
// drone-runner-exec was seen to do with them (measured by a step that prints
// its environment under the real one). It stands in for the runner where there is no Drone server, and is
// named for what it is.
//
//	SOURCE_OF_PIPELINE=REPO drone-driver daemon
//
// It clones REPO into a fresh workspace, runs each step of each exec pipeline
// by /bin/sh -e, and ends with the first status that is not 0. Like the
// runner's, steps get its PATH and nothing else of its environment; what the
// server would add as secrets are its own GITEA_* variables.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

type pipeline struct {
	Kind  string `yaml:"kind"`
	Type  string `yaml:"type"`
	Name  string `yaml:"name"`
	Steps []step `yaml:"steps"`
}

type step struct {
	Name        string            `yaml:"name"`
	Commands    []string          `yaml:"commands"`
	Environment map[string]string `yaml:"environment"`
}

func main() {
	status, err := run(os.Getenv("SOURCE_OF_PIPELINE"), os.Getenv("DRONE_RUNNER_ROOT"), os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, "drone-driver:", err)
		status = 1
	}
	os.Exit(status)
}

func run(source, root string, environ []string) (status int, err error) {
	data, err := os.ReadFile(filepath.Join(source, ".drone.yml"))
	if err != nil {
		return 1, err
	}
	work, err := os.MkdirTemp(root, "drone-") // mode 0700, as the runner's
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(work)
	home, src := filepath.Join(work, "home", "drone"), filepath.Join(work, "drone", "src")
	for _, dir := range []string{home, filepath.Dir(src)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return 1, err
		}
	}
	clone := exec.Command("git", "clone", "--quiet", source, src)
	if out, err := clone.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("clone: %w: %s", err, out)
	}
	if err := os.Chmod(src, 0o700); err != nil {
		return 1, err
	}

	documents := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var p pipeline
		if err := documents.Decode(&p); err == io.EOF {
			return 0, nil
		} else if err != nil {
			return 1, fmt.Errorf(".drone.yml: %w", err)
		}
		if p.Kind != "pipeline" || p.Type != "exec" {
			continue
		}
		for _, s := range p.Steps {
			if status, err := runStep(p, s, home, src, environ); err != nil || status != 0 {
				return status, err
			}
		}
	}
}

func runStep(p pipeline, s step, home, src string, environ []string) (int, error) {
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, c := range s.Commands {
		fmt.Fprintf(&script, "\necho + %q\n%s\n", c, c)
	}
	file := filepath.Join(filepath.Dir(filepath.Dir(home)), s.Name)
	if err := os.WriteFile(file, []byte(script.String()), 0o700); err != nil {
		return 1, err
	}
	cmd := exec.Command("/bin/sh", "-e", file)
	cmd.Dir = src
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = []string{
		"HOME=" + home, "HOMEPATH=" + home, "USERPROFILE=" + home, "DRONE_WORKSPACE=" + src,
		"CI=true", "DRONE=true", "CI_BUILD_NUMBER=1", "DRONE_BUILD_NUMBER=1", "DRONE_BUILD_EVENT=push",
		"DRONE_REPO=e2e/cc-ci-run", "DRONE_BRANCH=main", "DRONE_STAGE_NAME=" + p.Name, "DRONE_STAGE_TYPE=exec",
		"DRONE_STEP_NAME=" + s.Name, "DRONE_SYSTEM_HOST=localhost",
		"GIT_TERMINAL_PROMPT=0", "GIT_AUTHOR_NAME=drone", "GIT_AUTHOR_EMAIL=noreply@drone",
		"GIT_COMMITTER_NAME=drone", "GIT_COMMITTER_EMAIL=noreply@drone",
	}
	for _, kv := range environ {
		if strings.HasPrefix(kv, "PATH=") || strings.HasPrefix(kv, "GITEA_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	for name, value := range s.Environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return 1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}
