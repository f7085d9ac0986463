package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reportDescriptor is where [Main] writes an [End] to.
const reportDescriptor = 3

// Main is the supervisor: it runs a command, ends all of its processes when it
// ends, and writes an [End] to descriptor 3. SIGTERM, SIGINT and SIGHUP end
// the command. args are the grace, the command's cgroup or "", and the command.
func Main(args []string) error {
	if len(args) < 3 {
		return errors.New("supervise: is the sweep's own command")
	}
	grace, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	report := os.NewFile(reportDescriptor, "report")
	syscall.CloseOnExec(reportDescriptor)
	s := supervisor{grace: grace, cgroup: args[1], signals: make(chan os.Signal, 8), children: make(chan os.Signal, 1)}
	signal.Notify(s.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Notify(s.children, syscall.SIGCHLD)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	// The command is told of the end of the thread that started it.
	runtime.LockOSThread()
	if err := s.start(args[2:]); err != nil {
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
	grace    time.Duration
	cgroup   string
	signals  chan os.Signal
	children chan os.Signal
	pid      int // of the command, until it was waited for
	end      End
}

// start starts the command. Its processes die with the supervisor, those that
// the kernel can tell: the command itself.
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
	var kill <-chan time.Time
	for s.reap(); s.pid != 0; s.reap() {
		select {
		case <-s.children:
		case <-s.signals:
			if kill == nil {
				// The command was not waited for, so its group is its own.
				_ = syscall.Kill(-s.pid, syscall.SIGTERM)
				_ = syscall.Kill(-s.pid, syscall.SIGCONT) // a stopped one would not notice
				kill = time.After(s.grace)
			}
		case <-kill:
			return
		}
	}
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
// is none.
func (s *supervisor) killRest() (left []string) {
	limit := time.After(killTime)
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for s.reap() {
		left = nil
		for _, p := range children() {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
			left = append(left, p.String())
		}
		select {
		case <-s.children:
		case <-pause.C:
		case <-limit:
			return left
		}
	}
	return nil
}
