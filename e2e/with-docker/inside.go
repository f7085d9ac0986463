package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/e2e/internal/wrap"
	ccexec "cc-ci-run/internal/exec"
)

// asInit is process 1 of the namespaces: it sets them up, starts the process that
// does the work, reaps orphans, and ends with that process.
func asInit(ctx context.Context, dir string, args []string) (status int, err error) {
	_, _ = io.Copy(io.Discard, os.NewFile(firstExtra, "ready"))
	if _, err := os.Stat(dir); err != nil {
		return wrap.CannotStart, err // remove has said why
	}
	if err := furnish(); err != nil {
		return wrap.CannotStart, err
	}
	// No exec.Cmd: the loop below may reap the child before the Wait of a Cmd does.
	work, err := os.StartProcess("/proc/self/exe", append([]string{insideName, dir}, args...),
		&os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ()})
	if err != nil {
		return wrap.CannotStart, err
	}
	context.AfterFunc(ctx, func() { _ = syscall.Kill(work.Pid, wrap.Signal(ctx)) })
	for {
		var ended syscall.WaitStatus
		if pid, _ := syscall.Wait4(-1, &ended, 0, nil); pid == work.Pid {
			return ccexec.EndStatus(ended), nil
		}
	}
}

// furnish gives the namespaces what a daemon needs: mounts that nobody outside
// sees, the /proc of the PID namespace, an empty /run, and loopback.
func furnish() error {
	for _, m := range []struct {
		kind, dir string
		flags     uintptr
		options   string
	}{
		{"", "/", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"}, // /var/run leads there
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount of %s: %w", m.dir, err)
		}
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

const (
	// The log is in /run, which has room even if the disk of the data root is full.
	logFile = "/run/dockerd.log"
	socket  = "unix:///run/docker.sock" // dockerd's default
	// The daemon's commands are in sbin, which a person's PATH may lack.
	sbin = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// startLimit is how long the daemon may take to answer and to become a swarm.
	startLimit = 5 * time.Minute
)

// inside starts the daemon, makes a swarm, loads the images, and runs COMMAND.
// Nothing has to stop the daemon, which ends with the namespaces.
func inside(ctx context.Context, dir string, o options) (status int, err error) {
	began := time.Now()
	say("starting dockerd in %s", dir)
	if err := start(ctx, dir, o.images); err != nil {
		log, _ := os.ReadFile(logFile)
		return wrap.CannotStart, fmt.Errorf("%w\nthe end of dockerd's log:\n%s", err, wrap.LastLines(string(log), 20))
	}
	say("dockerd has a swarm and the images of %d files after %.1f s", len(o.images), time.Since(began).Seconds())
	return wrap.Run(ctx, o.command, append(os.Environ(), "DOCKER_HOST="+socket))
}

func start(ctx context.Context, dir string, images []string) error {
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	daemon := exec.Command("/usr/sbin/dockerd",
		"--data-root", dir, "--log-level", "warn",
		// The containers' cgroup is at the top, under a name that remove knows: below
		// the caller's own cgroup, cgroup version 2 gives a container no controllers.
		"--cgroup-parent", "/"+filepath.Base(dir), "--exec-opt", "native.cgroupdriver=cgroupfs")
	daemon.Env = []string{sbin}
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for COMMAND
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("cannot run dockerd: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = daemon.Wait()
		close(ended)
	}()

	starting, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("dockerd did not answer within %s", startLimit))
	defer cancel()
	for docker(starting, "version") != nil {
		select {
		case <-ended:
			return fmt.Errorf("dockerd ended: %s", daemon.ProcessState)
		case <-starting.Done():
			return context.Cause(starting)
		case <-time.After(100 * time.Millisecond):
		}
	}
	// Swarm listens on loopback, the only network of these namespaces.
	if err := docker(starting, "swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1"); err != nil {
		return err
	}
	for _, file := range images {
		if err := docker(ctx, "load", "--quiet", "--input", file); err != nil {
			return err
		}
	}
	return nil
}

// docker runs docker's client with arguments.
func docker(ctx context.Context, args ...string) error {
	cmd := wrap.Endable(ctx, "/usr/bin/docker", args...)
	cmd.Env = []string{sbin, "DOCKER_HOST=" + socket}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("docker %s: %w: %s", args, err, out)
	}
	return nil
}
