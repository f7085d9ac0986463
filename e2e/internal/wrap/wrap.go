// Package wrap is what with-docker, with-gitea and with-drone share. Each of them
// starts a service, runs another command, COMMAND, and then stops the service.
//
//	ctx := wrap.UntilSignal()
//	status, err := wrap.Run(ctx, argv, environ)   // ends COMMAND if a signal comes
//	wrap.Exit(ctx, status)                        // dies by that signal, if one came
package wrap

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	ccexec "cc-ci-run/internal/exec"
)

// Exit statuses besides COMMAND's own.
const (
	BadUsage    = 2
	CannotStart = ccexec.StatusFailed
)

// StopLimit is how long a process may take to end after SIGTERM; then it gets
// SIGKILL.
const StopLimit = 15 * time.Second

// interrupted is why a context is done: the signal that came.
type interrupted struct{ syscall.Signal }

func (s interrupted) Error() string { return "interrupted: " + s.String() }

// UntilSignal makes a context that the first SIGTERM, SIGHUP or SIGINT ends,
// unless this process was started to ignore that signal (nohup). Call it in main,
// which then stays on its thread: the kernel signals a child whose parent is killed
// when the thread that started the child ends.
func UntilSignal() context.Context {
	runtime.LockOSThread()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() { cancel(interrupted{(<-signals).(syscall.Signal)}) }()
	// If nobody reads stderr any more, a message must not end this process, because
	// the service would then stay. SIGPIPE is caught and not ignored, because COMMAND
	// would inherit an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return ctx
}

// Signal is the signal that ended ctx, or 0.
func Signal(ctx context.Context) syscall.Signal {
	s, _ := context.Cause(ctx).(interrupted)
	return s.Signal
}

// Exit ends this process: by the signal that ended ctx, otherwise with a status.
func Exit(ctx context.Context, status int) {
	if s := Signal(ctx); s != 0 {
		signal.Reset(s)
		_ = syscall.Kill(os.Getpid(), s)
		time.Sleep(StopLimit) // the signal may reach another thread, a moment later
	}
	os.Exit(status)
}

// Main is the main function of a command with one option, NAME --OPTION VALUE -- COMMAND
// [ARG...]. with starts the service, runs COMMAND and stops the service; it returns the exit
// status. In usage, the word for VALUE is in back quotes, as package flag wants it.
func Main(name, option, usage string, with func(ctx context.Context, value string, command, environ []string, stderr io.Writer) int) {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	value := flags.String(option, "", usage)
	word, _ := flag.UnquoteUsage(flags.Lookup(option))
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: %s --%s %s -- COMMAND [ARG...]\n", name, option, word)
		flags.PrintDefaults()
	}
	_ = flags.Parse(os.Args[1:]) // exits if they are wrong
	if *value == "" || flags.NArg() == 0 {
		fmt.Fprintf(os.Stderr, "%s: --%s %s or COMMAND is missing\n", name, option, word)
		flags.Usage()
		os.Exit(BadUsage)
	}
	ctx := UntilSignal()
	Exit(ctx, with(ctx, *value, flags.Args(), os.Environ(), os.Stderr))
}

// Run runs a command until it ends, and ends it when ctx is done. It returns the
// exit status as a shell gives it.
func Run(ctx context.Context, argv, environ []string) (int, error) {
	own, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	context.AfterFunc(ctx, func() {
		// The terminal has sent Ctrl-C to COMMAND, too. A second signal at once would
		// break off COMMAND's clean-up.
		if Signal(ctx) == syscall.SIGINT {
			time.Sleep(StopLimit)
		}
		end()
	})
	cmd := Endable(own, argv[0], argv[1:]...)
	cmd.Env = environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // if this process is killed
	if err := cmd.Start(); errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return ccexec.StatusNotFound, fmt.Errorf("cannot run %s: %w", argv[0], err)
	} else if err != nil {
		return ccexec.StatusNotExecutable, fmt.Errorf("cannot run %s: %w", argv[0], err)
	}
	_ = cmd.Wait() // ProcessState has the outcome
	return ccexec.EndStatus(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// Endable is a command that gets SIGTERM when ctx ends, and SIGKILL if it has not
// ended after StopLimit.
func Endable(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = StopLimit
	return cmd
}

// Server is a server on loopback, to be started.
type Server struct {
	Name    string // of messages
	Command func(ctx context.Context) *exec.Cmd
	Log     string        // the file that gets its output
	Healthy string        // URL that answers 200 when the server is up
	Limit   time.Duration // how long the server may take until then
}

// Start starts the server, and returns when it answers. end, which must be called
// also after an error, stops the server and waits for its end.
func (s Server) Start(ctx context.Context) (end func(), err error) {
	end = func() {}
	log, err := os.Create(s.Log)
	if err != nil {
		return end, err
	}
	defer log.Close()
	// Not ctx: COMMAND ends first.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cmd := s.Command(own)
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true               // Ctrl-C at the terminal is for COMMAND
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // if this process is killed
	if err := cmd.Start(); err != nil {
		cancel()
		return end, fmt.Errorf("cannot run %s: %w", s.Name, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	end = func() {
		cancel()
		<-ended
	}
	limit := time.After(s.Limit)
	for !s.answers() {
		select {
		case <-ended:
			return end, s.failed("ended: " + cmd.ProcessState.String())
		case <-limit:
			return end, s.failed(fmt.Sprintf("did not answer within %s", s.Limit))
		case <-ctx.Done():
			return end, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return end, nil
}

func (s Server) answers() bool {
	// No proxy: this is loopback, whatever http_proxy says.
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(s.Healthy)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// failed is an error with the end of the server's log.
func (s Server) failed(how string) error {
	log, _ := os.ReadFile(s.Log)
	return fmt.Errorf("%s %s; the end of its log:\n%s", s.Name, how, LastLines(string(log), 20))
}

// FreePort is a port of loopback that nobody listens on.
func FreePort() (int, error) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer probe.Close()
	return probe.Addr().(*net.TCPAddr).Port, nil
}

// LastLines are the last n lines of a log.
func LastLines(log string, n int) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
