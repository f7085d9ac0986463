package run

import (
	osexec "os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What is a run, and what is not; and a request that is written as arguments
// is read back as it was.
func TestParse(t *testing.T) {
	script := func(o Options, file string, args ...string) *Request {
		return &Request{o, Script, file, append([]string{}, args...)}
	}
	for line, want := range map[string]*Request{
		"x.py":                     script(Options{}, "x.py"),
		"./x -v --pty":             script(Options{}, "./x", "-v", "--pty"),
		"--pty --state s x.py a":   script(Options{Pty: true, State: "s"}, "x.py", "a"),
		"--pty=false x.py":         script(Options{}, "x.py"),
		"--no-record --state=s /x": script(Options{NoRecord: true, State: "s"}, "/x"),
		"--seal x.py":              script(Options{Seal: SealRequired}, "x.py"),
		"--seal=best-effort x.py":  script(Options{Seal: SealBestEffort}, "x.py"),
		"--audited=false -- x.py":  script(Options{Audited: "false"}, "x.py"),
		"-- -x.py a":               script(Options{}, "-x.py", "a"),
		"exec git -v":              {Options{}, Exec, "git", []string{"-v"}},
		"--pty exec --seal git":    {Options{Pty: true, Seal: SealRequired}, Exec, "git", []string{}},
		"exec -- -x":               {Options{}, Exec, "-x", []string{}},
		"shell":                    {Options{}, Shell, "bash", nil},
		"--state=s shell --pty":    {Options{Pty: true, State: "s"}, Shell, "bash", nil},

		"--seal=loosely x.py": nil, "--seal= x.py": nil, "--pty=perhaps x.py": nil, "--audited=x x.py": nil,
		"--help x.py": nil, "-v": nil, "": nil, "--state": nil, "-- check": nil, "check": nil, "exec": nil, "exec --help": nil,
		"exec --": nil, "shell x": nil, "shell --help": nil, "--nonesuch exec git": nil, "--": nil,
	} {
		got, ok := Parse(strings.Fields(line))
		if ok != (want != nil) || ok && !reflect.DeepEqual(got, *want) {
			t.Errorf("%q: %+v, %t, want %+v", line, got, ok, want)
		}
		if !ok {
			continue
		}
		again, ok := Parse(got.Argv())
		if !ok || !reflect.DeepEqual(again, got) {
			t.Errorf("%q is written as %q, which is read as %+v, %t", line, got.Argv(), again, ok)
		}
	}
}

func TestScriptArgv(t *testing.T) {
	if argv := scriptArgv("/p", "-x.py", []string{"a"}); !slices.Equal(argv, []string{"/p", "./-x.py", "a"}) {
		t.Errorf("%q", argv)
	}
}

// What the small program links, each run's start may pay for: it has none of
// the large packages.
func TestLinksLittle(t *testing.T) {
	out, err := osexec.Command("go", "list", "-deps", "cc-ci-run/cmd/cc-ci-run").Output()
	if err != nil {
		t.Skip("needs the go command on PATH, to list what is linked: ", err)
	}
	for _, name := range []string{"regexp", "net", "debug/elf", "encoding/xml", "github.com/BurntSushi/toml", "github.com/spf13/cobra", "github.com/godbus/dbus/v5"} {
		if slices.Contains(strings.Fields(string(out)), name) {
			t.Errorf("it links %s", name)
		}
	}
}
