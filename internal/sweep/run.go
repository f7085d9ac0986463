package sweep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cc-ci-run/internal/exec/supervise"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// patience is how long a supervisor may take beyond what it was given: it kills for ten
// seconds at most, and its report is read for ten seconds at most.
const patience = 30 * time.Second

// run runs one recipe's tests through cc-ci-run, with their output in a log and
// their result beside it. It says how the run ended.
func (s *sweep) run(ctx context.Context, name string, started time.Time) (o Outcome, log, result string) {
	stem := stemOf(started)
	dir, err := s.logs(name)
	if err != nil {
		return Outcome{Failed: err.Error()}, "", ""
	}
	defer dir.Close()
	out, err := dir.Create(stem+".log", logMode)
	if err != nil {
		return Outcome{Failed: err.Error()}, "", ""
	}
	defer out.Close()
	log, result = dir.Path(stem+".log"), dir.Path(stem+".json")

	run, written, err := s.start(name, result, out)
	if err != nil {
		return Outcome{Failed: err.Error()}, log, ""
	}
	o.Ended, o.Limit = s.attend(ctx, run, s.timeout(name))
	select {
	case <-run.Done():
		<-written
		end := run.End()
		o.Status, o.Signal, o.Left = end.Exit, end.Signal, end.Left
		o.Failed = end.Failed
		if end.Lost && o.Ended == "" && o.Limit == 0 {
			o.Ended = "ended from outside: the process that watches over it was killed"
		}
	default:
		o.Left = []string{"the process that watches over it"}
	}
	s.readResult(&o, name, started, dir)
	if o.Ended != "" || o.Limit != 0 {
		fmt.Fprintf(out, "\nsweep: %s\n", s.ending(o))
	}
	return o, log, result
}

// logMode lets people of the state directory's group read a log or a result, and
// nobody else: what a test prints may be secret.
const logMode = 0o640

// stemOf is what a run's files are called.
func stemOf(started time.Time) string { return started.Format("20060102T150405.000000000Z") }

// logs opens the directory of a recipe's logs, which it makes if need be.
func (s *sweep) logs(name string) (*state.Folder, error) {
	all, err := s.store.Open(state.Logs)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	return all.Make(url.PathEscape(name))
}

// drainTime is how long a run's output is read after the run's end, if something that could
// not be killed holds the pipe. On a busy machine the reader may not run for seconds.
const drainTime = 10 * time.Second

// start starts a run. written is closed when all of its output is in the log.
func (s *sweep) start(name, result string, out *os.File) (run *supervise.Run, written chan struct{}, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	argv := slices.Concat([]string{s.Program}, s.How, []string{"--state", string(s.State), "--result", result, s.Runner, "--recipes", s.Recipes, name})
	run, err = s.runs.Start(supervise.Command{Argv: argv, Environ: s.Environ, Output: w, Reader: r, Grace: s.Grace})
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	forget := s.store.started(filepath.Base(result), running{Result: result, Cgroup: run.Cgroup})
	written = make(chan struct{})
	go func() {
		defer close(written)
		defer r.Close()
		forgotten := make(chan struct{})
		go func() {
			defer close(forgotten)
			<-run.Done()
			forget()
			// What could not be killed may hold the pipe; what the tests wrote is
			// in it by now.
			_ = r.SetReadDeadline(time.Now().Add(drainTime))
		}()
		limited := &limitedWriter{w: out, left: maxLog}
		masking := s.mask.writer(limited)
		if s.Show != nil {
			masking = s.mask.writer(io.MultiWriter(limited, &limitedWriter{w: s.Show, left: math.MaxInt64}))
		}
		_, _ = io.Copy(masking, r)
		_ = masking.Close()
		limited.close()
		<-forgotten // before the lock is given back: the next sweep takes a note for a killed one's
	}()
	return run, written, nil
}

// attend waits for a run's end, and ends it at its time limit or when the sweep
// is ended. Neither of its results is set if it ended by itself. It may not be
// done even then, if not even SIGKILL ends its supervisor.
func (s *sweep) attend(ctx context.Context, run *supervise.Run, limit time.Duration) (ended string, reached time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-run.Done():
		return "", 0
	case <-timer.C:
		reached = limit
	case <-ctx.Done():
		ended = endOf(ctx)
	}
	run.Terminate()
	select {
	case <-run.Done():
	case <-time.After(s.Grace + patience):
		run.Kill() // its supervisor does not answer
		select {
		case <-run.Done():
		case <-time.After(patience): // nor does it die; the sweep goes on
		}
	}
	return ended, reached
}

// readResult reads what the runner wrote, once all processes of the run are
// gone, and masks the files. Of many runs it reads one result at a time: each may
// be large.
func (s *sweep) readResult(o *Outcome, name string, started time.Time, dir *state.Folder) {
	s.reading.Lock()
	defer s.reading.Unlock()
	stem := stemOf(started)
	if running, _, err := dir.Read(stem + ".current"); err == nil {
		o.Running = s.mask.text(string(running[:min(len(running), maxRunning)]))
	}
	_ = dir.Remove(stem + ".current")
	// Judged is what the runner wrote, kept is what can be shown.
	result, err := record.ReadResult(dir, stem+".json")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		o.NoResult = "there is no result"
		s.writeUnfinished(o, name, started, dir)
	case err != nil:
		o.NoResult = err.Error()
	default:
		o.Result = s.mask.result(result)
		if o.Running == "" {
			o.Running = o.Result.About().Running
		}
	}
	if err := errors.Join(s.mask.json(dir, stem+".json"), s.mask.xml(dir, stem+".xml")); err != nil && o.NoResult == "" {
		o.NoResult = err.Error()
	}
}

// keep reads what is remembered of a run: its result, and the end of its output.
func (s *sweep) keep(o *Outcome, name string, started time.Time) *commit {
	c := &commit{}
	dir, err := s.logs(name)
	if err != nil {
		return c
	}
	defer dir.Close()
	if data, _, err := dir.Read(stemOf(started) + ".json"); err == nil {
		c.result = kept(data, o.Result)
	}
	if data, err := dir.Tail(stemOf(started)+".log", 2*maxKeptOutput); err == nil {
		c.output = lastOf(data)
	}
	if o.Result != nil {
		c.tests = o.Result.Results.Tests
	}
	return c
}

// maxRunning is more than the name of a test has, in bytes.
const maxRunning = 4 << 10

// writeUnfinished leaves a result of a run that left none, for who looks for it.
func (s *sweep) writeUnfinished(o *Outcome, name string, started time.Time, dir *state.Folder) {
	about := record.About{Recipe: name, Invoker: s.Invoker, Fingerprint: s.now.Fingerprint, Running: o.Running, ExitStatus: o.Status, Why: s.ending(*o)}
	if about.Why == "" {
		about.Why = "its tests ended before pytest did"
	}
	data, err := json.MarshalIndent(record.Unfinished(about, started, s.Now()), "", " ")
	if err == nil {
		_ = dir.Put(stemOf(started)+".json", append(data, '\n'), logMode) // a full disk; the log and the verdict say the same
	}
}

// ending says at a log's end what ended the run.
func (s *sweep) ending(o Outcome) string {
	text := o.Ended
	if o.Limit != 0 {
		text = fmt.Sprintf("the run reached its time limit of %s", o.Limit)
	}
	if text != "" && o.Running != "" {
		text += ", during " + o.Running
	}
	return text
}

// maxLog is how much of one run's output is kept, in bytes.
const maxLog = 64 << 20

// limitedWriter keeps the first bytes and takes the rest without an error, so
// that a run neither waits nor notices: not if it writes more, nor if the disk is full.
type limitedWriter struct {
	w          io.Writer
	left, lost int64
	err        error
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := 0
	if l.err == nil {
		n, l.err = l.w.Write(p[:min(int64(len(p)), l.left)])
		l.left -= int64(n)
	}
	l.lost += int64(len(p) - n)
	return len(p), nil
}

func (l *limitedWriter) close() {
	if l.lost > 0 {
		fmt.Fprintf(l.w, "\nsweep: %d more bytes are not kept\n", l.lost)
	}
}
