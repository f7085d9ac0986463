package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/record"
)

// stateVariable names another state directory, as --state does.
const stateVariable = "CC_CI_RUN_STATE"

// options are the flags of what starts a child. They stand before SCRIPT or
// CMD.
type options struct {
	pty      bool
	noRecord bool
	state    string
}

func (o *options) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.pty, "pty", false, "run it on a pseudo-terminal of its own, and stay as its parent")
	f.BoolVar(&o.noRecord, "no-record", false, "write no run record")
	f.StringVar(&o.state, "state", "", "state `directory` for run records (default: $"+stateVariable+", else the manifest's)")
	_ = cmd.MarkFlagDirname("state")
}

// script is a plain run.
type script struct {
	options
	file string
	args []string
}

// parseRun recognises `[flags] SCRIPT [ARG...]` without building the command
// tree. It knows the flags of options only; anything else is no plain run,
// and left to cobra with its messages.
func parseRun(args []string) (s script, ok bool) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--pty":
			s.pty = true
		case arg == "--no-record":
			s.noRecord = true
		case arg == "--state" && len(args) > 0:
			s.state, args = args[0], args[1:]
		case strings.HasPrefix(arg, "--state="):
			s.state = strings.TrimPrefix(arg, "--state=")
		case arg == "--" && len(args) > 0:
			s.file, s.args = args[0], args[1:]
			return s, isScript(s.file)
		case strings.HasPrefix(arg, "-"):
			return s, false
		default:
			s.file, s.args = arg, args
			return s, isScript(s.file)
		}
	}
	return s, false
}

// isScript tells a script from a command's name.
func isScript(word string) bool {
	return strings.Contains(word, "/") || strings.HasSuffix(word, ".py")
}

func (p Process) runScript(s script) error {
	file := s.file
	if strings.HasPrefix(file, "-") {
		file = "./" + file // or Python would take it for an option
	}
	return p.launch(s.options, "script", s.file, s.args, func(m *env.Manifest) (string, []string, error) {
		if err := readable(s.file); err != nil {
			return "", nil, err
		}
		return m.Interpreter, append([]string{m.Interpreter, file}, s.args...), nil
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
	exec.IgnoreBrokenPipe()
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
	e, invoker, err := p.environment(m)
	if err != nil {
		return err
	}
	if len(m.Absent) > 0 {
		fmt.Fprintf(p.Stderr, "cc-ci-run: absent from this environment: %s\n", strings.Join(absent(m), ", "))
	}
	if err := exec.Prepare(m.Process); err != nil {
		return err
	}
	if !o.noRecord {
		r := record.New(m, p.Manifest, e, p.Environ, invoker, mode, program, args, o.pty)
		if err := r.Write(p.state(o, m), m); err != nil {
			fmt.Fprintf(p.Stderr, "cc-ci-run: no run record: %v\n", err)
		}
	}
	if !o.pty {
		return exec.Replace(path, argv, e.Environ())
	}
	status, err := exec.Pty(path, argv, e.Environ(), p.Stdin, p.Stdout)
	if err == nil && status == 0 {
		return nil
	}
	return exec.Status{Code: status, Err: err}
}

// environment is what a run started from here is given, and by whom.
func (p Process) environment(m *env.Manifest) (env.Environment, record.Invoker, error) {
	invoker := record.DetectInvoker(p.Environ, exec.IsTerminal(0))
	e, err := m.Environment(p.Environ, map[string]string{
		env.InvokerVariable:     invoker.Name,
		env.FingerprintVariable: m.Fingerprint(),
	})
	return e, invoker, err
}

// state is the state directory: --state, else the variable, else the
// manifest's.
func (p Process) state(o options, m *env.Manifest) string {
	for _, dir := range []string{o.state, env.Lookup(p.Environ, stateVariable)} {
		if dir != "" {
			return filepath.Clean(dir)
		}
	}
	return m.State
}

func absent(m *env.Manifest) []string {
	var names []string
	for _, a := range m.Absent {
		names = append(names, a.Name)
	}
	return names
}
