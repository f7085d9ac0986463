package run

import (
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"

	"cc-ci-run/internal/exec"
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

// Of several errors each has a line, with what is said of all of them.
func TestExplain(t *testing.T) {
	several := multierror.Append(errors.New("one"), errors.New("two\nlines"))
	for name, row := range map[string]struct {
		err    error
		want   string
		status int
	}{
		"none":                  {nil, "", 0},
		"one":                   {errors.New("x"), "cc-ci-run: x\n", 125},
		"joined":                {errors.Join(errors.New("x"), errors.New("y")), "cc-ci-run: x\ncc-ci-run: y\n", 125},
		"several":               {several, "cc-ci-run: one\ncc-ci-run: two\n  lines\n", 125},
		"several, of a file":    {fmt.Errorf("f: %w", several), "cc-ci-run: f: one\ncc-ci-run: f: two\n  lines\n", 125},
		"several, with a fix":   {fmt.Errorf("f: %w: build again", fmt.Errorf("damaged: %w", several)), "cc-ci-run: f: damaged: one\ncc-ci-run: f: damaged: two\n  lines: build again\n", 125},
		"joined, one of a file": {errors.Join(errors.New("x"), fmt.Errorf("f: %w", several)), "cc-ci-run: x\ncc-ci-run: f: one\ncc-ci-run: f: two\n  lines\n", 125},
		"with a status":         {exec.Status{Code: 1, Err: several}, "cc-ci-run: one\ncc-ci-run: two\n  lines\n", 1},
		"a status alone":        {exec.Status{Code: 7}, "", 7},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.Create(t.TempDir() + "/stderr")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			status := Explain(row.err, file)
			said, _ := os.ReadFile(file.Name())
			if string(said) != row.want || status != row.status {
				t.Errorf("%d, %q\nwant %d, %q", status, said, row.status, row.want)
			}
		})
	}
}
