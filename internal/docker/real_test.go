//go:build environment

package docker

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/docker/dockertest"
)

// The real dockerd gives the same answers as package dockertest. It runs in namespaces
// of its own, so nothing of it is left when they end.
func TestRealDaemon(t *testing.T) {
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		t.Skip("needs dockerd on PATH: apt-get install docker.io")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start a dockerd in namespaces of its own: run the test as root")
	}
	dir, err := os.MkdirTemp("/tmp", "d") // a short path, because the paths of sockets, which begin with it, must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	const script = `mount -t tmpfs tmpfs /run && mkdir "$1/data" && mount -t tmpfs tmpfs "$1/data" && ip link set lo up &&
		exec "$0" --data-root "$1/data" --exec-root /run/docker --pidfile /run/docker.pid --host "unix://$2"`
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, dockerd, dir, socket)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended
	}()
	d := Ask(socket, long)
	for ; d.State != Answers; d = Ask(socket, long) {
		select {
		case err := <-ended:
			ended <- err
			if !strings.Contains(said.String(), "level=") {
				t.Skipf("no dockerd can run here: %s", &said)
			}
			t.Fatalf("dockerd: %v: %s", err, &said)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if d.Swarm || d.Reason != dockertest.NoSwarm || d.ID == "" || d.Version == "" {
		t.Errorf("without a swarm: %+v", d)
	}
	if _, err := Stacks(socket, long); err == nil {
		t.Error("without a swarm: it has stacks")
	}
	own := d.ID
	docker := func(args ...string) {
		t.Helper()
		cmd := exec.Command("docker", args...)
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker %s: %v: %s", args, err, out)
		}
	}
	docker("swarm", "init", "--advertise-addr", "127.0.0.1")
	d = Ask(socket, long)
	if d.State != Answers || !d.Swarm || d.ID == "" || d.ID == own || d.Reason != "" {
		t.Errorf("a swarm's manager: %+v", d)
	}
	for _, name := range []string{"a", "b"} {
		docker("service", "create", "--quiet", "--detach", "--replicas=0", "--label=com.docker.stack.namespace=one", "--name="+name, "nothing")
	}
	docker("service", "create", "--quiet", "--detach", "--replicas=0", "--name=c", "nothing")
	if n, err := Stacks(socket, long); n != 1 || err != nil {
		t.Errorf("%d stacks, %v, want 1", n, err)
	}
	docker("swarm", "leave", "--force")
	if d := Ask(socket, long); d.Swarm || d.ID != own {
		t.Errorf("after its swarm: %+v, want %s", d, own)
	}
}
