package toolset

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cc-ci-run/internal/docker/dockertest"
	"cc-ci-run/internal/finding"
)

// Whatever the daemon is: check says so, and finds no fault.
func TestCheckDocker(t *testing.T) {
	dir := t.TempDir()
	serve := func(name string, d dockertest.Daemon) string {
		socket := filepath.Join(dir, name)
		stop, err := d.Serve(socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		return "unix://" + socket
	}
	for host, want := range map[string]struct {
		verdict    finding.Verdict
		state, fix string
	}{
		"unix://" + dir + "/none":                     {finding.Note, "no daemon: " + dir + "/none is not there", "systemctl start docker.socket"},
		"tcp://127.0.0.1:1":                           {finding.Note, "not fixed to a Unix socket", ""},
		serve("alone", dockertest.Daemon{ID: "a"}):    {finding.Note, "daemon 20.10.24+dfsg1 answers, swarm not active: " + dockertest.NoSwarm, "docker swarm init"},
		serve("empty", dockertest.Daemon{Swarm: "s"}): {finding.OK, "swarm active, 0 stacks", ""},
		serve("one", dockertest.Daemon{Swarm: "s", Stacks: []string{"gitea", "gitea"}}):                    {finding.OK, "swarm active, 1 stack", ""},
		serve("many", dockertest.Daemon{Swarm: "s", Version: "20.10.24", Stacks: []string{"a", "b", "c"}}): {finding.OK, "daemon 20.10.24 answers, swarm active, 3 stacks", ""},
		serve("strange", dockertest.Daemon{Version: "1 \x1b"}):                                             {finding.Unknown, "does not answer as Docker does", "journalctl"},
	} {
		f := checkDocker([]string{"DOCKER_HOST=" + host})
		if f.Verdict != want.verdict || f.What != "docker" || !strings.Contains(f.State, want.state) || !strings.Contains(f.Fix, want.fix) || (f.Fix == "") != (want.fix == "") {
			t.Errorf("%s: %+v, want %+v", host, f, want)
		}
	}
}

// Plugins are executable files with a plugin's name, as docker's client has it.
func TestCheckPlugins(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"docker-compose": 0o755, "docker-notes": 0o644, "README": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "docker-dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	list := checkPlugins([]string{filepath.Join(dir, "none"), dir})
	if len(list) != 1 || list[0].Verdict != finding.Note || list[0].What != filepath.Join(dir, "docker-compose") || list[0].Fix == "" {
		t.Errorf("%+v", list)
	}
}
