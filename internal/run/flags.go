package run

import (
	"errors"
	"strconv"
	"strings"
)

// Options are the flags of what starts a child.
type Options struct {
	Pty      bool
	NoRecord bool
	State    string // "" for the variable's, or the environment's
	Seal     Seal
	Result   string // file for a script's result; "" for STATE/results/ID.json
	// Audited is for `audit`, which starts the run that it audits: "" not
	// audited, "true" with looks for files, "false" without.
	Audited string
}

// Flag is one of Options on the command line. This table is all that knows of
// them: it reads them, writes them for a child, and fills in --help.
type Flag struct {
	Name  string
	Kind  string // what --help calls its value; "" for none
	Usage string // "" for one that is not for people
	Bare  string // its value if it is written without one; "" if it needs one
	Set   func(o *Options, value string) error
	Get   func(o *Options) string // "" if it is not set
}

// Flags are the options' flags, in the order of --help.
var Flags = []Flag{
	{
		Name: "pty", Usage: "run the script or command on its own pseudo-terminal, and stay as its parent", Bare: "true",
		Set: func(o *Options, v string) error { return setBool(&o.Pty, v) },
		Get: func(o *Options) string { return getBool(o.Pty) },
	},
	{
		Name: "no-record", Usage: "write no run record", Bare: "true",
		Set: func(o *Options, v string) error { return setBool(&o.NoRecord, v) },
		Get: func(o *Options) string { return getBool(o.NoRecord) },
	},
	{
		Name: "state", Kind: "directory", Usage: "state `directory` for run records (default: $" + StateVariable + ", else the manifest's)",
		Set: func(o *Options, v string) error { o.State = v; return nil },
		Get: func(o *Options) string { return o.State },
	},
	{
		Name: "seal", Usage: "make the kernel refuse to execute programs that the toolset does not declare; --seal=best-effort runs unsealed where the kernel cannot seal", Bare: string(SealRequired),
		Set: func(o *Options, v string) error { return o.Seal.Set(v) },
		Get: func(o *Options) string { return string(o.Seal) },
	},
	{
		Name: "result", Kind: "file", Usage: "`file` that SCRIPT writes its tests' outcomes to, with a JUnit report beside it (default: results/ of the state directory)",
		Set: func(o *Options, v string) error { o.Result = v; return nil },
		Get: func(o *Options) string { return o.Result },
	},
	{
		Name: "audited",
		Set: func(o *Options, v string) error {
			if _, err := strconv.ParseBool(v); err != nil {
				return errors.New("is \"cc-ci-run audit\"'s own")
			}
			o.Audited = v
			return nil
		},
		Get: func(o *Options) string { return o.Audited },
	},
}

func setBool(to *bool, value string) error {
	v, err := strconv.ParseBool(value)
	if err != nil {
		return errors.New("must be true or false")
	}
	*to = v
	return nil
}

func getBool(v bool) string {
	if v {
		return "true"
	}
	return ""
}

// Flags writes the options as flags.
func (o *Options) Flags() []string {
	var list []string
	for _, f := range Flags {
		switch value := f.Get(o); value {
		case "":
		case f.Bare:
			list = append(list, "--"+f.Name)
		default:
			list = append(list, "--"+f.Name+"="+value)
		}
	}
	return list
}

// take reads the flags that args begin with. ok is false at a word that begins
// with "-" and is none of them, or has a value that it does not take.
func (o *Options) take(args []string) (rest []string, ok bool) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "--" {
		name, value, has := strings.Cut(strings.TrimPrefix(args[0], "--"), "=")
		args = args[1:]
		i := 0
		for i < len(Flags) && Flags[i].Name != name {
			i++
		}
		if i == len(Flags) {
			return args, false
		}
		switch f := Flags[i]; {
		case has:
		case f.Bare != "":
			value = f.Bare
		case len(args) > 0:
			value, args = args[0], args[1:]
		default:
			return args, false
		}
		if Flags[i].Set(o, value) != nil {
			return args, false
		}
	}
	return args, true
}

// Seal is the flag --seal: whether the kernel is to refuse what the toolset
// lacks (package seal).
type Seal string

// The values of Seal; "" is a run without.
const (
	SealRequired   Seal = "required"    // --seal: no run on a kernel that cannot
	SealBestEffort Seal = "best-effort" // run then all the same, and say so
)

// Set is the flag's value from the command line.
func (s *Seal) Set(word string) error {
	switch v := Seal(word); v {
	case SealRequired, SealBestEffort:
		*s = v
		return nil
	}
	return errors.New("write --seal or --seal=best-effort")
}

// Mode is what a run starts.
type Mode string

// The modes, as records have them.
const (
	Script Mode = "script" // the toolset's Python on a file
	Exec   Mode = "exec"   // a command of the toolset
	Shell  Mode = "shell"  // the toolset's bash
)

// Request is what the command line asks to run.
type Request struct {
	Options
	Mode    Mode
	Program string // SCRIPT or CMD; "bash"
	Args    []string
}

// Parse recognises `[flags] SCRIPT [ARG...]`, `[flags] exec [flags] CMD
// [ARG...]` and `[flags] shell [flags]`. Anything else is not a run, --help
// among it: package cli has all other commands and their messages.
func Parse(args []string) (r Request, ok bool) {
	args, ok = r.take(args)
	if !ok || len(args) == 0 {
		return r, false
	}
	r.Mode = Script
	switch {
	case args[0] == "--":
		args = args[1:]
	case args[0] == string(Exec), args[0] == string(Shell):
		r.Mode = Mode(args[0])
		if args, ok = r.take(args[1:]); !ok {
			return r, false
		}
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
	}
	if r.Mode == Shell {
		r.Program = "bash"
		return r, len(args) == 0
	}
	if len(args) == 0 {
		return r, false
	}
	r.Program, r.Args = args[0], args[1:]
	return r, r.Mode == Exec || IsScript(r.Program)
}

// Argv writes the request as arguments of cc-ci-run, without its name.
func (r *Request) Argv() []string {
	argv := r.Flags()
	switch r.Mode {
	case Shell:
		return append(argv, string(Shell))
	case Exec:
		argv = append(argv, string(Exec), "--", r.Program)
	default:
		argv = append(argv, "--", r.Program)
	}
	return append(argv, r.Args...)
}

// IsScript tells a script from a command's name.
func IsScript(word string) bool {
	return strings.Contains(word, "/") || strings.HasSuffix(word, ".py")
}
