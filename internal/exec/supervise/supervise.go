// Package supervise runs a command and ends all processes of the command with
// it, whatever process groups or sessions these processes make.
//
//	runs, err := supervise.New([]string{"cc-ci-run-full", "supervise"})
//	run, err := runs.Start(command)
//	<-run.Done()          // or run.Terminate() first
//	end := run.End()      // its status; its processes are gone, but for end.Left
//
// Between the caller and the command there is one more process, the supervisor
// ([Main]). If a process of the command loses its parent, the kernel makes it a
// child of the supervisor (PR_SET_CHILD_SUBREAPER, prctl(2)). The supervisor
// kills its children until it has none. The number of a child is not used again
// before its parent has waited for it, so no kill can hit another process.
//
// If systemd delegated the caller's cgroup to the caller (Delegate=), the
// command also gets its own cgroup, whose processes the kernel kills all at
// once (cgroup.kill).
//
// If the supervisor is killed, the kernel makes its children the caller's
// children: the caller is a subreaper too, and kills every child that it did not
// start itself. If the caller is killed, the supervisor ends the command. If
// both are killed, a later call of [Sweep] finds the remaining processes by the
// variable that marks each run; it does not find a process that was started
// without that variable (with env -i).
//
// Every wait has a limit. A process that SIGKILL does not end (because it waits
// for a disk, or is frozen) is named in [End.Left].
package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killTime is how long a killed process may take to be gone. The kernel needs
// microseconds; a machine that swaps may need a second.
const killTime = 10 * time.Second

// reportTime is how long a supervisor's report is read after the supervisor has ended: on a
// busy machine the reader may not run for seconds.
const reportTime = 10 * time.Second

// Command is what to run.
type Command struct {
	Argv    []string // the program's path first
	Environ []string // its environment
	Output  *os.File // its stdout and stderr; stdin is /dev/null
	// Reader is the other end of Output if that is a pipe that the caller reads.
	// The supervisor reads on if the caller is killed: a test that cleans up and
	// says so must not die of SIGPIPE.
	Reader *os.File
	Grace  time.Duration // between SIGTERM and SIGKILL
}

// End is how a command ended.
type End struct {
	Exit   int            // exit status, if it exited
	Signal syscall.Signal // that killed it, if one did
	// Failed says why it could not be started, "" if it was.
	Failed string
	// Lost says that the supervisor was killed, so that neither is known.
	Lost bool
	// Left names the processes that SIGKILL did not end, for people.
	Left []string
}

// Runs starts commands, and ends what their supervisors could not.
type Runs struct {
	supervisor []string
	base       string // the delegated cgroup that this process is in, or ""
	// mine are the children that this package, or [Runs.Other], started. Who
	// starts one, or looks for others, holds the lock.
	lock sync.Mutex
	mine map[int]bool
}

// New makes this process a subreaper. supervisor are the first words of a
// command that calls [Main] with the rest.
func New(supervisor []string) (*Runs, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("PR_SET_CHILD_SUBREAPER: %w", err)
	}
	return &Runs{supervisor: supervisor, base: delegated(), mine: map[int]bool{}}, nil
}

// Run is a command that was started.
type Run struct {
	Cgroup string // its own, or ""

	runs *Runs
	cmd  *exec.Cmd
	done chan struct{}
	end  End
}

// Start starts a command. The thread that calls must not end before the
// command: the kernel ends the supervisor with it.
func (r *Runs) Start(c Command) (*Run, error) {
	cgroup := newCgroup(r.base)
	report, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(r.supervisor[0], slices.Concat(r.supervisor[1:], []string{c.Grace.String(), cgroup, strconv.FormatBool(c.Reader != nil)}, c.Argv)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.Environ, c.Output, c.Output
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	if c.Reader != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.Reader) // 4
	}
	// A group of its own: Ctrl-C at a terminal is for the caller alone, which
	// then ends its runs.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: endSignal}
	if err := r.startDeaf(cmd); err != nil {
		report.Close()
		removeCgroup(cgroup)
		return nil, err
	}
	run := &Run{Cgroup: cgroup, runs: r, cmd: cmd, done: make(chan struct{})}
	go run.wait(report)
	return run, nil
}

// start starts a child of this process and notes that it is one.
func (r *Runs) start(cmd *exec.Cmd) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.mine[cmd.Process.Pid] = true
	return nil
}

// startDeaf is start for a supervisor. A child has the signal mask of the thread that
// starts it, so the kernel keeps endSignal for the supervisor until it listens.
func (r *Runs) startDeaf(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, endSet, &before); err != nil {
		return err
	}
	err := r.start(cmd)
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil))
}

// endSignal asks a supervisor to end its command. SIGTERM would not do: Go's runtime unblocks
// SIGTERM at the program's start, and until the program calls signal.Notify, SIGTERM ends the
// program. While one thread is ended so, another can start the command, whose processes then
// have no supervisor.
const endSignal = syscall.SIGUSR1

// endSet has one bit, endSignal's: signals are counted from 1 (sigsetops(3)).
var endSet = &unix.Sigset_t{Val: [16]uint64{1 << (endSignal - 1)}}

// forget is called while the child is a zombie, or its number may be another's.
func (r *Runs) forget(pid int) {
	r.lock.Lock()
	delete(r.mine, pid)
	r.lock.Unlock()
}

// maxOutput is how much a command of [Runs.Other] may write, in bytes: some hundred
// thousand lines. Who writes more is ended.
const maxOutput = 24 << 20

// Other runs another short command of the caller, and gives its output. Every
// child of the process must be started through r: what is not is taken for
// what a killed supervisor left.
func (r *Runs) Other(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	wait, err := r.Begin(cmd)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(out, maxOutput+1))
	if err == nil && len(data) > maxOutput {
		err = fmt.Errorf("it wrote more than %d MiB", maxOutput>>20)
		_ = cmd.Process.Kill()
	}
	return data, errors.Join(err, wait())
}

// Begin starts another command of the caller; wait waits for its end. See [Runs.Other].
func (r *Runs) Begin(cmd *exec.Cmd) (wait func() error, err error) {
	if err := r.start(cmd); err != nil {
		return nil, err
	}
	return func() error {
		waitable(cmd.Process.Pid)
		r.forget(cmd.Process.Pid)
		return cmd.Wait()
	}, nil
}

// Terminate asks the supervisor to end the command: the supervisor sends SIGTERM to the
// command's group, and after the grace SIGKILL to all that is left.
func (r *Run) Terminate() { _ = r.cmd.Process.Signal(endSignal) }

// Kill ends a command whose supervisor does not answer.
func (r *Run) Kill() { _ = r.cmd.Process.Kill() }

// Done is closed when the command and all of its processes are gone, or those
// that are left are known.
func (r *Run) Done() <-chan struct{} { return r.done }

// End is how it ended, once it is done.
func (r *Run) End() End {
	<-r.done
	return r.end
}

// wait waits for the supervisor and, if that did not do its work, does it.
func (r *Run) wait(report *os.File) {
	defer close(r.done)
	pid := r.cmd.Process.Pid
	waitable(pid)
	r.runs.forget(pid)
	_ = r.cmd.Wait()
	// A supervisor that ended has written its report, or never will.
	_ = report.SetReadDeadline(time.Now().Add(reportTime))
	data, _ := io.ReadAll(report)
	report.Close()
	if err := json.Unmarshal(data, &r.end); err != nil {
		r.end = End{Lost: true}
		killCgroup(r.Cgroup)
		r.end.Left = r.runs.killOrphans()
	}
	removeCgroup(r.Cgroup)
}

// killOrphans kills the children that this process did not start.
func (r *Runs) killOrphans() []string {
	r.lock.Lock()
	defer r.lock.Unlock()
	return killAll(func(pid int) bool { return !r.mine[pid] })
}

// killAll kills the children of this process that are wanted, and what becomes
// its child thereby, and gives those that do not die.
func killAll(wanted func(pid int) bool) []string {
	limit := time.Now().Add(killTime)
	for pause := time.Duration(0); ; pause = min(pause+50*time.Microsecond, 10*time.Millisecond) {
		pids := slices.DeleteFunc(children(), func(pid int) bool { return !wanted(pid) })
		if len(pids) == 0 {
			pids = slices.DeleteFunc(allChildren(), func(pid int) bool { return !wanted(pid) })
		}
		if len(pids) == 0 || time.Now().After(limit) {
			return describe(pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			if reaped, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); reaped == pid {
				pause = 0 // its children are ours by now
			}
		}
		time.Sleep(pause)
	}
}

// waitable waits until a child has ended, and leaves it a zombie.
func waitable(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
