// Command with-docker starts a Docker daemon that is a swarm of one node, and runs a
// command that can use only this daemon. with-docker needs root.
//
//	build/with-docker [--image FILE]... -- COMMAND [ARG...]
//
// For COMMAND, the daemon is at the default socket and has the images of each FILE
// (which `docker save` or e2e/image wrote). The daemon's log is /run/dockerd.log.
// Ports that a service publishes with `mode: host` are on 127.0.0.1. COMMAND and the
// daemon have no other network.
//
// No process of the daemon can outlive COMMAND, because with-docker starts all of
// them in new namespaces:
//
//	with-docker           the caller's child
//	├─ with-docker remove   outside the namespaces: waits for the end of init, then removes what is left
//	└─ with-docker init     process 1 of new PID, mount and network namespaces
//	   └─ with-docker inside  starts the daemon, makes the swarm, loads the images
//	      ├─ dockerd            with containerd, shims, containers
//	      └─ COMMAND            with the caller's directory, terminal and stdin
//
// When init ends, the kernel kills every process of the namespaces, and with the
// last one go the mounts, bridges and firewall rules. Init ends after COMMAND, and
// the kernel kills init when with-docker is killed. What is left for remove is a
// temporary directory, the daemon's data root, and the cgroups of the containers.
//
// Exit status: COMMAND's own, or 128+N when signal N ended COMMAND; 125 when the
// daemon could not be started, with the end of its log; 126 when COMMAND cannot be
// executed, 127 when COMMAND does not exist. On SIGTERM, SIGHUP or SIGINT
// with-docker ends COMMAND first, then the rest, and dies by the same signal.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"cc-ci-run/e2e/internal/wrap"
	ccexec "cc-ci-run/internal/exec"
)

// The names of this program's other processes, each the argv[0] of its process.
const (
	initName   = "with-docker init"
	insideName = "with-docker inside"
	removeName = "with-docker remove"
)

// The descriptors that init and remove get besides 0, 1 and 2.
const (
	firstExtra  = 3
	secondExtra = 4
)

// options are those of the command line.
type options struct {
	images  []string
	command []string
}

func parse(args []string) (o options) {
	flags := flag.NewFlagSet("with-docker", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: with-docker [--image FILE]... -- COMMAND [ARG...]")
		flags.PrintDefaults()
	}
	flags.Func("image", "load the images of this `FILE`, which docker save or e2e/image made", func(file string) error {
		o.images = append(o.images, file)
		return nil
	})
	_ = flags.Parse(args) // exits if they are wrong
	if o.command = flags.Args(); len(o.command) == 0 {
		fmt.Fprintln(os.Stderr, "with-docker: COMMAND is missing")
		flags.Usage()
		os.Exit(wrap.BadUsage)
	}
	return o
}

func main() {
	ctx := wrap.UntilSignal()
	var status int
	var err error
	switch os.Args[0] {
	case initName: // DIR ARG...
		status, err = asInit(ctx, os.Args[1], os.Args[2:])
	case insideName:
		status, err = inside(ctx, os.Args[1], parse(os.Args[2:]))
	case removeName: // DIR
		remove(os.Args[1])
		return
	default:
		parse(os.Args[1:])
		status, err = withDocker(ctx, os.Args[1:])
	}
	if err != nil {
		say("%v", err)
	}
	wrap.Exit(ctx, status)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "with-docker: "+format+"\n", args...) }

// again is the command that starts this program as the process with a name, which
// main then looks at.
func again(name, dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{name, dir}, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// withDocker is the caller's child: it starts init and remove, and waits for both.
func withDocker(ctx context.Context, args []string) (status int, err error) {
	if os.Geteuid() != 0 {
		return wrap.CannotStart, errors.New("a Docker daemon mounts file systems and sets up networks: run with-docker as root")
	}
	ready, made, err := os.Pipe() // init begins when the other end is closed
	if err != nil {
		return wrap.CannotStart, err
	}
	dir := filepath.Join(os.TempDir(), "with-docker-"+rand.Text()[:8])

	var pidfd int
	first := again(initName, dir, args...)
	first.ExtraFiles = []*os.File{ready}
	first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		PidFD:      &pidfd,
	}
	if err := first.Start(); err != nil {
		return wrap.CannotStart, fmt.Errorf("cannot make namespaces: %w", err)
	}
	ready.Close()

	last := again(removeName, dir)
	last.Stdin, last.Stdout = nil, nil
	last.ExtraFiles = []*os.File{os.NewFile(uintptr(pidfd), "init"), made}
	last.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for COMMAND
	if err := last.Start(); err != nil {
		return wrap.CannotStart, err // init ends with this process
	}
	made.Close()

	stop := context.AfterFunc(ctx, func() { _ = first.Process.Signal(wrap.Signal(ctx)) })
	_ = first.Wait() // ProcessState has the outcome
	stop()
	if err := last.Wait(); err != nil {
		say("%s is not removed: %v", dir, err)
	}
	return ccexec.EndStatus(first.ProcessState.Sys().(syscall.WaitStatus)), nil
}
