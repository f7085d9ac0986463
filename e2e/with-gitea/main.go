// Command with-gitea runs a command while a real Gitea of its own is up, on
// loopback.
//
//	build/with-gitea --gitea build/gitea -- COMMAND [ARG...]
//
// COMMAND finds GITEA_URL, GITEA_USER (an administrator) and GITEA_PASSWORD in
// its environment. All that Gitea has is in one temporary directory: a copy of
// the program, its SQLite database, its log. Gitea refuses to be root, so it
// runs as nobody when with-gitea is root. However COMMAND ends, Gitea is
// stopped, by its own process id, and the directory removed.
//
// Exit status: COMMAND's own, or 128+N when signal N ended COMMAND; 125 when
// Gitea could not be started, 126 when COMMAND cannot be executed, 127 when
// there is no COMMAND of that name. On SIGTERM, SIGHUP or SIGINT with-gitea ends
// COMMAND first, then Gitea, and dies by the same signal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// Exit statuses, as those of env(1) and timeout(1).
const (
	badUsage      = 2
	cannotStart   = 125
	notExecutable = 126
	notFound      = 127
	endedBySignal = 128 // and the signal's number
)

// stopLimit is how long a process may take to end after SIGTERM; then it gets
// SIGKILL.
const stopLimit = 15 * time.Second

func main() {
	flags := flag.NewFlagSet("with-gitea", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: with-gitea --gitea FILE -- COMMAND [ARG...]")
		flags.PrintDefaults()
	}
	program := flags.String("gitea", "", "the Gitea to start, a `FILE` that e2e/build-gitea builds")
	_ = flags.Parse(os.Args[1:]) // exits if they are wrong
	if *program == "" || flags.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "with-gitea: --gitea FILE or COMMAND is missing")
		flags.Usage()
		os.Exit(badUsage)
	}

	ctx := untilSignal()
	status := withGitea(ctx, *program, flags.Args(), os.Environ(), os.Stderr)
	if s, ok := context.Cause(ctx).(interrupted); ok {
		signal.Reset(s.Signal)
		_ = syscall.Kill(os.Getpid(), s.Signal)
		time.Sleep(stopLimit) // the signal may reach another thread, a moment later
	}
	os.Exit(status)
}

// interrupted is why a context is done: the signal that came.
type interrupted struct{ syscall.Signal }

func (s interrupted) Error() string { return "interrupted: " + s.String() }

// untilSignal makes a context that the first SIGTERM, SIGHUP or SIGINT ends,
// unless this process was started to ignore that signal (nohup).
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() { cancel(interrupted{(<-signals).(syscall.Signal)}) }()
	// If nobody reads stderr any more, a message must not end this process: Gitea
	// would stay. Caught, not ignored: COMMAND would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return ctx
}

// withGitea starts Gitea, runs the command until it ends or ctx does, and stops
// Gitea. It returns the exit status.
func withGitea(ctx context.Context, program string, command, environ []string, stderr io.Writer) int {
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "with-gitea: "+format+"\n", args...) }
	g, err := newGitea(program, environ)
	if err != nil {
		say("%v", err)
		return cannotStart
	}
	defer say("Gitea is stopped")
	defer g.stop()
	began := time.Now()
	say("starting Gitea at %s", g.url)
	password, err := g.start(ctx)
	if err != nil {
		say("%v", err)
		return cannotStart
	}
	say("Gitea is up after %.1f s, with user %s", time.Since(began).Seconds(), admin)
	status, err := run(ctx, command, append(environ, "GITEA_URL="+g.url, "GITEA_USER="+admin, "GITEA_PASSWORD="+password))
	if err != nil {
		say("%v", err)
	}
	return status
}

// run runs the command until it ends, and ends it when ctx is done. It returns the
// exit status as a shell gives it.
func run(ctx context.Context, argv, environ []string) (int, error) {
	own, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	context.AfterFunc(ctx, func() {
		// A terminal sends Ctrl-C to COMMAND, too; a second signal would break off
		// the clean-up that COMMAND does then.
		if context.Cause(ctx) == (interrupted{syscall.SIGINT}) {
			time.Sleep(stopLimit)
		}
		end()
	})
	cmd := endable(own, argv[0], argv[1:]...)
	cmd.Env = environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return notFound, fmt.Errorf("cannot run %s: %w", argv[0], err)
	} else if err != nil {
		return notExecutable, fmt.Errorf("cannot run %s: %w", argv[0], err)
	}
	_ = cmd.Wait() // ProcessState has the outcome
	if w := cmd.ProcessState.Sys().(syscall.WaitStatus); w.Signaled() {
		return endedBySignal + int(w.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// endable is a command that gets SIGTERM when ctx ends, and SIGKILL if it has not
// ended after stopLimit.
func endable(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	return cmd
}
