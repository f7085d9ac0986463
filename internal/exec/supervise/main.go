package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What [Main] is given as descriptors: where it writes an [End] to, and the pipe
// that the caller reads the command's output from.
const (
	reportDescriptor = 3
	readerDescriptor = 4
)

// Main is the supervisor: it runs a command, ends all of its processes when it
// ends, and writes an [End] to descriptor 3. endSignal, SIGTERM, SIGINT and SIGHUP
// end the command. args are the grace, the command's cgroup or "", whether there is a
// pipe to read, and the command.
func Main(args []string) error {
	if len(args) < 4 {
		return errors.New("supervise: is the sweep's own command")
	}
	grace, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	report := os.NewFile(reportDescriptor, "report")
	syscall.CloseOnExec(reportDescriptor)
	s := supervisor{caller: os.Getppid(), grace: grace, cgroup: args[1], signals: make(chan os.Signal, 8), children: make(chan os.Signal, 1)}
	if args[2] == "true" {
		syscall.CloseOnExec(readerDescriptor)
		s.reader = os.NewFile(readerDescriptor, "reader")
	}
	// The kernel kills the command when the thread that started it ends.
	runtime.LockOSThread()
	if err := s.listen(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := s.start(args[3:]); err != nil {
		s.end.Failed = err.Error()
	} else {
		s.attend()
		killCgroup(s.cgroup)
		s.end.Left = s.killRest()
	}
	data, err := json.Marshal(s.end)
	if err == nil {
		_, err = report.Write(data)
	}
	return err
}

type supervisor struct {
	caller   int // its process's number when this started
	reader   *os.File
	grace    time.Duration
	cgroup   string
	signals  chan os.Signal
	children chan os.Signal
	pid      int // of the command, until it was waited for
	end      End
}

// listen asks for endSignal and the other signals. An endSignal that was sent since
// [Runs.Start] is pending, and comes now. The same thread starts the command, which inherits
// its signal mask, so endSignal must be unblocked here.
func (s *supervisor) listen() error {
	signal.Notify(s.signals, endSignal, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Notify(s.children, syscall.SIGCHLD)
	return unix.PthreadSigmask(unix.SIG_UNBLOCK, endSet, nil)
}

// start starts the command. If the supervisor dies, the kernel kills the command's own
// process, until that clears its parent-death signal, as cc-ci-run does. Then the caller kills
// it, or the next [Sweep].
func (s *supervisor) start(argv []string) error {
	attr := &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if s.cgroup != "" {
		dir, err := os.Open(s.cgroup)
		if err != nil {
			return err
		}
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	p, err := os.StartProcess(argv[0], argv, attr)
	if err != nil && attr.Sys.UseCgroupFD { // a limit of the cgroup's, say
		s.cgroup, attr.Sys.UseCgroupFD = "", false
		p, err = os.StartProcess(argv[0], argv, attr)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	s.pid = p.Pid
	return p.Release()
}

// attend waits for the command's end, which a signal hastens.
func (s *supervisor) attend() {
	var kill, look <-chan time.Time
	for s.reap(); s.pid != 0; s.reap() {
		select {
		case <-s.children:
		case <-look:
			s.readOn()
		case <-s.signals:
			s.readOn()
			if kill == nil {
				// The command was not waited for, so its group is its own.
				_ = syscall.Kill(-s.pid, syscall.SIGTERM)
				_ = syscall.Kill(-s.pid, syscall.SIGCONT) // a stopped one would not notice
				kill = time.After(s.grace)
				// endSignal comes when the caller's thread ends. The caller is still the
				// parent for a moment, so look again.
				look = time.Tick(100 * time.Millisecond)
			}
		case <-kill:
			return
		}
	}
}

// readOn reads the command's output if the caller, which did, is gone.
func (s *supervisor) readOn() {
	if s.reader == nil || os.Getppid() == s.caller {
		return
	}
	go func(r *os.File) { _, _ = io.Copy(io.Discard, r) }(s.reader)
	s.reader = nil
}

// reap waits for children that ended. It says whether there are others.
func (s *supervisor) reap() (more bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return false // ECHILD
		case pid == 0:
			return true
		case pid == s.pid:
			s.pid = 0
			if status.Signaled() {
				s.end.Signal = status.Signal()
			} else {
				s.end.Exit = status.ExitStatus()
			}
		}
	}
}

// killRest kills all children, and theirs as they become children, until there
// is none. It gives those that do not die.
func (s *supervisor) killRest() []string {
	limit := time.After(killTime)
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for s.reap() {
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		select {
		case <-s.children: // what it started is a child by now
		case <-pause.C:
		case <-limit:
			return describe(allChildren())
		}
	}
	return nil
}
