package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/launch"
	"cc-ci-run/internal/pty"
)

// options are the flags of what starts a child.
type options struct {
	launch.Options
	audited string // by the parent of this process: "true" with looks, "false" without, "" not
}

func (o *options) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.Pty, "pty", false, "run it on a pseudo-terminal of its own, and stay as its parent")
	f.BoolVar(&o.NoRecord, "no-record", false, "write no run record")
	f.StringVar(&o.State, "state", "", "state `directory` for run records (default: $"+launch.StateVariable+", else the manifest's)")
	_ = cmd.MarkFlagDirname("state")
	addSeal(cmd, &o.Seal)
}

func (p Process) runScript(s launch.Script, audited string) error {
	return p.launch(options{s.Options, audited}, "script", s.File, s.Args, func(m *env.Manifest) (string, []string, error) {
		if err := readable(s.File); err != nil {
			return "", nil, err
		}
		return m.Interpreter, s.Argv(m.Interpreter), nil
	})
}

// readable says why Python could not read a script. What is no regular file
// (a FIFO) is left alone, as looking would already take from it.
func readable(file string) error {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return exec.Status{Code: exec.StatusNotFound, Err: fmt.Errorf("%s: no such script", file)}
	}
	if err != nil {
		return cannotRead(file, err)
	}
	if info.IsDir() {
		return exec.Status{Code: exec.StatusNotExecutable, Err: fmt.Errorf("%s: is a directory, not a script", file)}
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return cannotRead(file, err)
	}
	return f.Close()
}

func cannotRead(file string, err error) error {
	return exec.Status{Code: exec.StatusNotExecutable, Err: fmt.Errorf("%s: can not be read: %w", file, errors.Unwrap(err))}
}

// launch makes this process the child: what command gives for the manifest,
// in the environment. mode, program and args are for the record. It returns
// only if that fails, or after --pty.
func (p Process) launch(o options, mode, program string, args []string, command func(*env.Manifest) (path string, argv []string, err error)) error {
	m, err := env.ReadManifest(p.Manifest)
	if err != nil {
		return err
	}
	path, argv, err := command(m)
	if err != nil {
		return err
	}
	if err := m.Verify(); err != nil {
		return err
	}
	plan := m.Compile(p.Manifest)
	e, invoker, err := p.environment(plan)
	if err != nil {
		return err
	}
	plan.TellAbsent(p.Stderr)
	if err := exec.Prepare(plan.Process); err != nil {
		return err
	}
	sealed, err := p.seal(o.Seal, m)
	if err != nil {
		return err
	}
	if !o.NoRecord || o.audited != "" {
		r := launch.NewRecord(plan, e, p.Environ, invoker, mode, program, args, o.Pty)
		r.Sealed, r.Audited = sealed, o.audited != ""
		state := ""
		if !o.NoRecord {
			state = o.StateDir(p.Environ, m.State)
			if err := errors.Join(r.Write(state), r.Keep(state, m.Bytes())); err != nil {
				exec.Tell(p.Stderr, "cc-ci-run: no run record: "+err.Error()+"\n")
			}
		}
		if r.Audited {
			if err := p.audited(o.audited == "true", r, state); err != nil {
				return err
			}
		}
	}
	if !o.Pty {
		return exec.Replace(path, argv, e.Environ())
	}
	status, err := pty.Run(path, argv, e.Environ(), p.Stdin, p.Stdout)
	if err == nil && status == 0 {
		return nil
	}
	return exec.Status{Code: status, Err: err}
}

// environment is what a run started from here is given, and by whom.
func (p Process) environment(plan *launch.Plan) (launch.Environment, launch.Invoker, error) {
	invoker := launch.DetectInvoker(p.Environ, exec.IsTerminal(0))
	e, err := env.Environment(plan, p.Environ, invoker.Name)
	return e, invoker, err
}

// state is the state directory.
func (p Process) state(o options, m *env.Manifest) string { return o.StateDir(p.Environ, m.State) }

// program is cc-ci-run, for runs that this process starts.
func (p Process) program() (string, error) {
	if p.Program != "" {
		return p.Program, nil
	}
	return os.Executable()
}
