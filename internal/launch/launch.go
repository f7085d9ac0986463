// Package launch is what every run does: from a caller's variables to execve.
//
//	plan, err := launch.ReadPlan(path)
//	environment, err := plan.Environment(os.Environ(), invoker)
//	exec.Prepare(plan.Process)
//	launch.NewRecord(plan, …).Write(…)
//	exec.Replace(…)
//
// A [Plan] is a manifest without all that only people read, compiled at build
// time into a form that needs no parsing: it is read once and cut into strings.
//
// It happens ten thousand times a night, and it takes the place of a bash
// wrapper of ten lines, so here nothing is slow to start: no cobra, no JSON
// library, no regular expressions, no reflection of ours. `make bench` shows
// what each costs. [Try] is all of it in one call, for the small program that
// stands before the full one (cmd/cc-ci-run). It takes a run only if nothing
// is unusual about it; all else, every error message among it, is the full
// program's.
package launch

import (
	"os"
	"path/filepath"
	"strings"

	"cc-ci-run/internal/exec"
)

// StateVariable names another state directory, as --state does.
const StateVariable = "CC_CI_RUN_STATE"

// Options are the flags of what starts a child. They stand before SCRIPT or
// CMD.
type Options struct {
	Pty      bool
	NoRecord bool
	State    string
	Seal     Seal
}

// StateDir is the state directory: --state, else the variable, else the
// manifest's.
func (o Options) StateDir(environ []string, manifest string) string {
	for _, dir := range []string{o.State, Lookup(environ, StateVariable)} {
		if dir != "" {
			return filepath.Clean(dir)
		}
	}
	return manifest
}

// Flags are the options as flags, as [ParseScript] reads them.
func (o Options) Flags() []string {
	var flags []string
	if o.Pty {
		flags = append(flags, "--pty")
	}
	if o.NoRecord {
		flags = append(flags, "--no-record")
	}
	if o.State != "" {
		flags = append(flags, "--state="+o.State)
	}
	if o.Seal != "" {
		flags = append(flags, "--seal="+string(o.Seal))
	}
	return flags
}

// Script is a plain run.
type Script struct {
	Options
	File string
	Args []string
}

// ParseScript recognises `[flags] SCRIPT [ARG...]`. It knows the flags of
// Options only; anything else is no plain run.
func ParseScript(args []string) (s Script, ok bool) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--pty":
			s.Pty = true
		case arg == "--no-record":
			s.NoRecord = true
		case arg == "--state" && len(args) > 0:
			s.State, args = args[0], args[1:]
		case strings.HasPrefix(arg, "--state="):
			s.State = strings.TrimPrefix(arg, "--state=")
		case arg == "--seal":
			s.Seal = SealRequired
		case strings.HasPrefix(arg, "--seal="):
			if s.Seal.Set(strings.TrimPrefix(arg, "--seal=")) != nil {
				return s, false
			}
		case arg == "--" && len(args) > 0:
			s.File, s.Args = args[0], args[1:]
			return s, IsScript(s.File)
		case strings.HasPrefix(arg, "-"):
			return s, false
		default:
			s.File, s.Args = arg, args
			return s, IsScript(s.File)
		}
	}
	return s, false
}

// IsScript tells a script from a command's name.
func IsScript(word string) bool {
	return strings.Contains(word, "/") || strings.HasSuffix(word, ".py")
}

// Argv is how the interpreter is called for a script.
func (s Script) Argv(interpreter string) []string {
	file := s.File
	if strings.HasPrefix(file, "-") {
		file = "./" + file // or Python would take it for an option
	}
	argv := make([]string, 0, 2+len(s.Args))
	return append(append(argv, interpreter, file), s.Args...)
}

// Try becomes the script of args, if they ask for a plain run and nothing is
// unusual about it. It returns nil, with nothing changed, for the full program
// to do it, and to say what is wrong; an error if it is too late for that, as
// the process state is the child's already. planFile is the compiled manifest.
func Try(args, environ []string, planFile string, stderr *os.File) error {
	s, ok := ParseScript(args)
	if !ok || s.Pty || s.Seal != "" {
		return nil
	}
	plan, err := ReadPlan(planFile)
	if err != nil || plan.Seal || !plan.Intact() {
		return nil
	}
	// What is no regular file (a FIFO) is left alone, as looking would already
	// take from it; what can't be read is told by the full program.
	if info, err := os.Stat(s.File); err != nil || info.Mode().IsRegular() && !exec.Readable(s.File) || info.IsDir() {
		return nil
	}
	invoker := DetectInvoker(environ, exec.IsTerminal(0))
	e, missing := plan.Environment(environ, invoker.Name)
	if len(missing) > 0 {
		return nil
	}
	state := s.StateDir(environ, plan.State)
	if !s.NoRecord && !plan.Kept(state) {
		return nil // the first run of this environment also keeps its manifest
	}
	plan.TellAbsent(stderr)
	if err := exec.Prepare(plan.Process); err != nil {
		return err
	}
	if !s.NoRecord {
		r := NewRecord(plan, e, environ, invoker, "script", s.File, s.Args, false)
		if err := r.Write(state); err != nil {
			exec.Tell(stderr, "cc-ci-run: no run record: "+err.Error()+"\n")
		}
	}
	return exec.Replace(plan.Interpreter, s.Argv(plan.Interpreter), e.Environ())
}

// TellAbsent names the tools that this environment was built without.
func (p *Plan) TellAbsent(stderr *os.File) {
	if len(p.Absent) > 0 {
		exec.Tell(stderr, "cc-ci-run: absent from this environment: "+strings.Join(p.Absent, ", ")+"\n")
	}
}
