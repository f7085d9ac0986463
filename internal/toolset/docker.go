package toolset

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/finding"
)

// dockerLimit is more than a daemon takes to start, which a question at its socket
// may cause.
const dockerLimit = 10 * time.Second

// checkDocker tells of the daemon at the declared socket. None of what it finds is
// a fault: the daemon is the host's and not the environment's, which is as it was
// built also on a machine that has no daemon, and most tests need none. `host`
// knows whether recipes are deployed on the machine, and there it is a fault.
func checkDocker(fixed []string) finding.Finding {
	const what = "docker"
	socket := docker.Socket(fixed)
	if socket == "" {
		return result(finding.Note, what, "DOCKER_HOST is not fixed to a Unix socket, so no daemon was asked", "")
	}
	d := docker.Ask(socket, dockerLimit)
	state := fmt.Sprintf("daemon %s answers, swarm active", d.Version)
	switch {
	case d.State == docker.Absent:
		return result(finding.Note, what, "no daemon: "+socket+" "+d.Reason, "only to deploy recipes here: systemctl start docker.socket docker.service")
	case d.State == docker.Denied:
		return result(finding.Note, what, socket+" "+d.Reason, "only to deploy recipes as this user: usermod --append --groups "+docker.Group+" USER, and log in again")
	case d.State != docker.Answers:
		return result(finding.Unknown, what, socket+" "+d.Reason, "journalctl -u docker.service")
	case !d.Swarm:
		return result(finding.Note, what, fmt.Sprintf("daemon %s answers, swarm not active: %s", d.Version, d.Reason), "only to deploy recipes here: docker swarm init")
	}
	n, err := docker.Stacks(socket, dockerLimit)
	if err != nil {
		return result(finding.Unknown, what, state+", but its stacks cannot be counted: "+err.Error(), "journalctl -u docker.service")
	}
	if n == 1 {
		return result(finding.OK, what, state+", 1 stack", "")
	}
	return result(finding.OK, what, fmt.Sprintf("%s, %d stacks", state, n), "")
}

// pluginDirs are where docker's client looks for plugins besides HOME/.docker, in
// this order; no variable changes that (cli-plugins/manager of docker/cli). Nix's
// client has a store path in the place of the last.
var pluginDirs = []string{
	"/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins",
	"/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
}

// checkPlugins names the plugins of docker's client that the host has: commands
// outside the toolset, which a test finds on this host only.
func checkPlugins(dirs []string) []finding.Finding {
	var list []finding.Finding
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "docker-*"))
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				list = append(list, result(finding.Note, file, "a docker plugin of this host, which the toolset does not declare", "no test may need it: declare a tool that brings it, or remove the file"))
			}
		}
	}
	return list
}
