// Package run is the road of a run, from cc-ci-run's arguments to execve. There
// is no other: each child that cc-ci-run starts goes this way.
//
//	request, ok := run.Parse(args)         // SCRIPT, exec or shell, and flags
//	err := run.Start(request, process)     // this process becomes the child
//
// [Start] is the road, a step for each line: what to start, whether the
// environment is still as it was built, the child's variables and process
// state, the seal, the record, the audit, and the child. A message for each
// step that can fail is here as well.
//
// It happens ten thousand times a night, and takes the place of a bash wrapper
// of ten lines, so nothing that it links is slow to start: no cobra, no TOML,
// no regular expressions. `make bench` shows what a start costs.
package run

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/exec/pty"
	"cc-ci-run/internal/exec/seal"
	"cc-ci-run/internal/exec/watch"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// StateVariable names another state directory, as --state does.
const StateVariable = "CC_CI_RUN_STATE"

// Process is what main knows of this process; nothing below reads it anew.
type Process struct {
	Environ               []string // as os.Environ gives it
	Stdin, Stdout, Stderr *os.File
	Plan                  string        // path of the compiled manifest, from link time
	DockerLimit           time.Duration // how long a script's start waits for a docker daemon; after 0, each daemon is silent
}

// StateDir is the state directory: --state, else the variable, else the
// environment's own.
func (o *Options) StateDir(environ []string, own string) state.Dir {
	for _, dir := range []string{o.State, env.Lookup(environ, StateVariable)} {
		if dir != "" {
			return state.Dir(filepath.Clean(dir))
		}
	}
	return state.Dir(own)
}

// Start makes this process the child that is asked for. It returns only if
// that fails, or after --pty, with what to say and the exit status
// ([exec.Status], else 125); nil is status 0.
func Start(r Request, p Process) error {
	plan, err := ReadPlan(p.Plan)
	if err != nil {
		return err
	}
	path, argv, err := r.command(plan, p.Plan)
	if err != nil {
		return err
	}
	if err := joined(plan.Changed()); err != nil {
		return err
	}
	invoker := env.DetectInvoker(p.Environ, exec.IsTerminal(0))
	given, err := plan.Environment(p.Environ, invoker.Name)
	if err != nil {
		return err
	}
	tellAbsent(plan, p.Stderr)
	ssh, unknown := exec.SSHFiles()
	if r.Mode == Script {
		tellSSH(ssh, unknown, p.Stderr)
	}
	now := time.Now()
	result := r.result(now, invoker.Name, plan, p)
	if result != "" {
		given = given.With(env.ResultVariable, result)
	}
	if err := exec.Prepare(plan.Process); err != nil {
		return err
	}
	sealed, err := applySeal(r.Seal, plan, p)
	if err != nil {
		return err
	}
	// After the seal, so that the record has the state that the child gets.
	if err := r.account(now, plan, given, invoker, sealed, result, ssh, p); err != nil {
		return err
	}
	if !r.Pty {
		return exec.Replace(path, argv, given.Environ())
	}
	status, err := pty.Run(path, argv, given.Environ(), p.Stdin, p.Stdout)
	if err == nil && status == 0 {
		return nil
	}
	return exec.Status{Code: status, Err: err}
}

// ReadPlan reads the compiled manifest, without its lists.
func ReadPlan(path string) (*env.Plan, error) {
	const rebuild = "run `make build`"
	if path == "" {
		return nil, errors.New("this cc-ci-run has no environment: it was built without one (use `make build` or the Nix package)")
	}
	data, err := exec.ReadPart(path, env.MaxPlan, env.HeadSize, env.PlanSize)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("compiled manifest " + path + ": not found: the environment was never built, or was removed; " + rebuild)
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("compiled manifest " + path + ": permission denied; it must be readable for everybody who runs tests")
	case err != nil:
		return nil, exec.Wrap("compiled manifest", err)
	}
	plan, err := env.DecodePlan(string(data))
	if err != nil {
		return nil, exec.Wrap(path, err)
	}
	return plan, nil
}

// readLists reads the rest of the plan, for the runs that need it.
func readLists(path string) (env.Lists, error) {
	data, err := exec.ReadRegular(path, env.MaxPlan)
	if err != nil {
		return env.Lists{}, exec.Wrap("compiled manifest", err)
	}
	lists, err := env.DecodeLists(string(data))
	if err != nil {
		err = exec.Wrap(path, err)
	}
	return lists, err
}

// command is what to execute, and how it is called.
func (r *Request) command(plan *env.Plan, planFile string) (path string, argv []string, err error) {
	switch r.Mode {
	case Script:
		if err := readable(r.Program); err != nil {
			return "", nil, err
		}
		return plan.Interpreter, scriptArgv(plan.Interpreter, r.Program, r.Args), nil
	case Shell:
		argv = []string{r.Program, "--noprofile", "--norc"} // no start-up file of bash
	default:
		argv = append(append(make([]string, 0, 1+len(r.Args)), r.Program), r.Args...)
	}
	// The bin directory may have more: what else the declared packages bring.
	lists, err := readLists(planFile)
	if err != nil {
		return "", nil, err
	}
	if _, ok := slices.BinarySearch(lists.Commands, r.Program); !ok {
		return "", nil, Undeclared(plan, lists.Commands, r.Program)
	}
	return filepath.Join(plan.Bin, r.Program), argv, nil
}

// scriptArgv is how the interpreter is called for a script.
func scriptArgv(interpreter, file string, args []string) []string {
	if strings.HasPrefix(file, "-") {
		file = "./" + file // or Python would take it for an option
	}
	return append(append(make([]string, 0, 2+len(args)), interpreter, file), args...)
}

// Undeclared says that a command is none of the environment's commands, and why or
// which is near.
func Undeclared(plan *env.Plan, commands []string, name string) error {
	hint := env.Suggest(name, commands)
	for _, a := range plan.Absent {
		if slices.Contains(a.Commands, name) {
			hint = "; this environment was built --without " + a.Name
		}
	}
	if strings.Contains(name, "/") {
		hint = "; a command is named without its path"
	}
	return exec.Status{Code: exec.StatusNotFound, Err: errors.New(name + ": not a command of the toolset" + hint)}
}

// readable says why Python could not read a script. What is not a regular file
// (a FIFO) is left alone, as looking would already take from it.
func readable(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return exec.Status{Code: exec.StatusNotFound, Err: errors.New(file + ": no such script")}
	case err != nil:
		return unreadable(file, errors.Unwrap(err))
	case info.IsDir():
		return exec.Status{Code: exec.StatusNotExecutable, Err: errors.New(file + ": is a directory, not a script")}
	case info.Mode().IsRegular():
		if err := exec.Readable(file); err != nil {
			return unreadable(file, err)
		}
	}
	return nil
}

func unreadable(file string, err error) error {
	return exec.Status{Code: exec.StatusNotExecutable, Err: errors.New(file + ": cannot be read: " + err.Error())}
}

// applySeal seals this process, if that is asked for by flag or toolset, and
// says what came of it, for the record. Of flag and toolset the stricter
// counts: a toolset's seal holds for every invoker.
func applySeal(flag Seal, plan *env.Plan, p Process) (sealed string, err error) {
	asked := "--seal"
	if plan.Seal {
		flag, asked = SealRequired, "seal = true of the toolset"
	}
	if flag == "" {
		return "", nil
	}
	lists, err := readLists(p.Plan)
	if err != nil {
		return "", err
	}
	for _, f := range seal.Faults(lists.Closure, plan.SealExecute) {
		err = errors.Join(err, errors.New("seal: "+f.What+": "+f.State+": "+f.Fix))
	}
	if err != nil {
		return "", err
	}
	if err := seal.Supported(); err != nil {
		if flag == SealRequired {
			return "", exec.Wrap(asked, errors.New(err.Error()+" (--seal=best-effort runs without, if the toolset does not ask for the seal)"))
		}
		exec.Tell(p.Stderr, "cc-ci-run: not sealed: "+err.Error()+"\n")
		return "none: " + err.Error(), nil
	}
	return "full", seal.Apply(exec.Executable(lists.Closure, plan.HostPaths, plan.SealExecute))
}

// result is where a script writes its result: beside its record, and under the
// same name, unless --result names another file. "" is nowhere.
func (r *Request) result(now time.Time, invoker string, plan *env.Plan, p Process) string {
	path := r.Result
	switch {
	case r.Mode != Script:
		return ""
	case path != "":
	case r.NoRecord:
		return ""
	default:
		dir := r.StateDir(p.Environ, plan.State)
		if err := dir.Make(state.Results); err != nil {
			exec.Tell(p.Stderr, "cc-ci-run: no result: "+err.Error()+"\n")
			return ""
		}
		path = dir.Path(state.Results, record.ID(now, invoker, r.Program, r.Args)+".json")
	}
	// The script may go to another directory.
	if !filepath.IsAbs(path) {
		dir, _ := syscall.Getwd()
		path = filepath.Join(dir, path)
	}
	return path
}

// account writes the record, and puts the process under the audit of its
// parent. A record that cannot be written never stops a run.
func (r *Request) account(now time.Time, plan *env.Plan, given env.Environment, invoker env.Invoker, sealed, result string, ssh exec.Pairs, p Process) error {
	if r.NoRecord && r.Audited == "" {
		return nil
	}
	entry := record.New(now, plan, given, p.Environ, invoker, string(r.Mode), r.Program, r.Args, r.Pty)
	entry.Sealed, entry.Audited, entry.Result, entry.SSHFiles = sealed, r.Audited != "", result, ssh
	var dir state.Dir
	if !r.NoRecord {
		// Tests are scripts; exec and shell, which people wait for, ask nobody.
		if socket := docker.Socket(plan.Set); socket != "" && r.Mode == Script {
			daemon := docker.Ask(socket, p.DockerLimit)
			entry.Docker = &daemon
		}
		dir = r.StateDir(p.Environ, plan.State)
		if err := errors.Join(entry.Write(dir), entry.Keep(dir)); err != nil {
			exec.Tell(p.Stderr, "cc-ci-run: no run record: "+strings.ReplaceAll(err.Error(), "\n", "; ")+"\n")
		}
	}
	if r.Audited == "" {
		return nil
	}
	// The parent learns where its report goes, and which run this is.
	hello := Audited{dir, entry.ID, entry.Time, record.Recipe(r.Program, r.Args), invoker.Name, plan.Fingerprint}
	return watch.Enter(watch.Descriptor, r.Audited == "true", hello.encode())
}

// Audited is what a run tells the process that audits it.
type Audited struct {
	State       state.Dir // where the report goes, "" for nowhere
	ID          string    // of the record
	Time        time.Time
	Recipe      string
	Invoker     string
	Fingerprint string
}

func (a Audited) encode() []byte {
	return []byte(strings.Join([]string{string(a.State), a.ID, a.Time.Format(time.RFC3339Nano), a.Recipe, a.Invoker, a.Fingerprint}, "\x00"))
}

// ParseAudited reads what [Audited] was written as.
func ParseAudited(hello []byte) (a Audited, err error) {
	f := strings.Split(string(hello), "\x00")
	if len(f) != 6 {
		return a, errors.New("the audited run did not say which it is")
	}
	a = Audited{State: state.Dir(f[0]), ID: f[1], Recipe: f[3], Invoker: f[4], Fingerprint: f[5]}
	a.Time, err = time.Parse(time.RFC3339Nano, f[2])
	return a, err
}
