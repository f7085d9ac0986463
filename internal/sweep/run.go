package sweep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/state"
)

// run runs one recipe's tests through cc-ci-run, in a process group of their
// own, with their output in a log. It gives the exit status (128+N after
// signal N), or an error if they could not be run, took too long
// (context.DeadlineExceeded) or the sweep ends.
func (s *sweep) run(ctx context.Context, name string, started time.Time) (log string, status int, err error) {
	dir := s.store.Path(state.Logs, url.PathEscape(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", 0, err
	}
	log = filepath.Join(dir, started.Format("20060102T150405.000000000Z")+".log")
	out, err := os.Create(log)
	if err != nil {
		return "", 0, err
	}
	defer out.Close()
	defer expire(dir, s.KeepLogs, s.KeepFor)

	cmd := exec.Command(s.Program, slices.Concat(s.How, []string{"--state", string(s.State), s.Runner, "--recipes", s.Recipes, name})...)
	cmd.Env = s.Environ
	r, w, err := os.Pipe()
	if err != nil {
		return log, 0, err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	// If the sweep is killed, its runs are told to end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return log, 0, err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		copyLimited(out, r, maxLog)
	}()
	group := -cmd.Process.Pid
	defer s.store.started(cmd.Process.Pid)()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its status is in ProcessState
		close(ended)
	}()

	limit := time.NewTimer(s.timeout(name))
	defer limit.Stop()
	var cause error
	select {
	case <-ended:
	case <-limit.C:
		cause = context.DeadlineExceeded
	case <-ctx.Done():
		cause = ctx.Err()
	}
	if cause != nil {
		_ = syscall.Kill(group, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(s.Grace):
		}
	}
	// What it left running in its group goes, too. While the group has members
	// its id is not given to another.
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-ended
	// A daemon that left the group may hold the pipe; what the tests wrote is
	// in it by now.
	_ = r.SetReadDeadline(time.Now().Add(time.Second))
	<-written
	if cause != nil {
		fmt.Fprintf(out, "\nsweep: ended: %v\n", cause)
		return log, 0, cause
	}
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return log, 128 + int(w.Signal()), nil
	}
	return log, cmd.ProcessState.ExitCode(), nil
}

// endGroup kills the processes of a group that an earlier sweep's run had. The
// number may have been given to others since (after a reboot, say), so each
// process is asked for what cc-ci-run gives to all that it runs.
func endGroup(group int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if of, err := syscall.Getpgid(pid); err != nil || of != group {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+env.InvokerVariable+"=")) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// maxLog is how much of one run's output is kept, in bytes.
const maxLog = 64 << 20

// copyLimited copies up to limit bytes, and reads on, so that the writer
// neither waits nor notices: not if it writes more, nor if the disk is full.
func copyLimited(w io.Writer, r io.Reader, limit int64) {
	lost, err := int64(0), error(nil)
	buffer := make([]byte, 64<<10)
	for {
		n, end := r.Read(buffer)
		keep := int(min(int64(n), limit))
		if err == nil && keep > 0 {
			_, err = w.Write(buffer[:keep])
			limit -= int64(keep)
		}
		if err != nil {
			keep = 0
		}
		lost += int64(n - keep)
		if end != nil {
			break
		}
	}
	if lost > 0 {
		fmt.Fprintf(w, "\nsweep: %d more bytes are not kept\n", lost)
	}
}

// expire removes logs beyond the newest keep, and older than age. It never
// removes the newest: a recipe's last log is worth more than its space.
func expire(dir string, keep int, age time.Duration) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var logs []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".log") {
			logs = append(logs, e.Name())
		}
	}
	slices.Sort(logs) // by time, as they are named
	slices.Reverse(logs)
	for i, name := range logs {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if i == 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if i >= keep || err == nil && time.Since(info.ModTime()) > age {
			_ = os.Remove(path)
		}
	}
}
