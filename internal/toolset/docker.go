package toolset

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/finding"
)

// dockerLimit is how long `check` waits for the daemon. Asking at the socket may make
// systemd start the daemon, which takes less time than this.
const dockerLimit = 10 * time.Second

// checkDocker reports on the daemon at the declared socket. A missing daemon is not a
// fault of the environment: the daemon belongs to the host, an environment without a
// daemon is still as it was built, and most tests need no daemon. `host` knows whether
// recipes are deployed on the machine, and reports the fault there.
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
		return result(finding.Note, what, "no daemon: "+socket+" "+d.Reason, "if recipes are to be deployed here: systemctl start docker.socket docker.service")
	case d.State == docker.Denied:
		return result(finding.Note, what, socket+" "+d.Reason, "if this user is to deploy recipes: usermod --append --groups "+docker.Group+" USER, and log in again")
	case d.State != docker.Answers:
		return result(finding.Unknown, what, socket+" "+d.Reason, "journalctl -u docker.service")
	case !d.Swarm:
		return result(finding.Note, what, fmt.Sprintf("daemon %s answers, swarm not active: %s", d.Version, d.Reason), "if recipes are to be deployed here: docker swarm init")
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
// this order; no variable changes that (cli-plugins/manager of docker/cli). In Nix's
// client, a store path replaces the last of these directories.
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
