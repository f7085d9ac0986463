//go:build environment

package cli_test

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"cc-ci-run/internal/cli"
	"cc-ci-run/internal/docker/dockertest"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/exec/seal"
	"cc-ci-run/internal/mounttest"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/toolset"
)

// In scripts, the commands cc-ci-run and cc-ci-run-full are this test binary,
// with race detector. What is known at link time in the real ones is in
// variables: MANIFEST, and PLAN, by default beside it. A script that builds an
// environment of its own sets MANIFEST.
func TestMain(m *testing.M) {
	plan := func() string {
		if plan, ok := os.LookupEnv("PLAN"); ok {
			return plan
		}
		return filepath.Join(filepath.Dir(os.Getenv("MANIFEST")), toolset.PlanName)
	}
	testscript.Main(m, map[string]func(){
		"cc-ci-run": func() {
			request, ok := run.Parse(os.Args[1:])
			if !ok {
				os.Exit(run.Explain(exec.Replace(os.Getenv("FULL"), append([]string{"cc-ci-run-full"}, os.Args[1:]...), os.Environ()), os.Stderr))
			}
			err := run.Start(request, run.Process{Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Plan: plan(), DockerLimit: 5 * time.Minute})
			os.Exit(run.Explain(err, os.Stderr))
		},
		"cc-ci-run-full": func() {
			// Its name says which of the two it is; the real one is called as cc-ci-run.
			os.Exit(cli.Main(cli.Process{
				Args: append([]string{"cc-ci-run"}, os.Args[1:]...), Environ: os.Environ(),
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
				Manifest: os.Getenv("MANIFEST"), Plan: plan(), Program: os.Getenv("PROGRAM"), Self: os.Getenv("FULL"), Version: "test", Machine: cmp.Or(os.Getenv("MACHINE"), "testhost"),
			}))
		},
	})
}

// The scripts read like a terminal session. They use the environment that
// `make build` made ($MANIFEST), or build small ones of their own, which
// share its installed Python packages ($WORK/python).
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(root, "build/toolset/manifest.json")
	if _, err := os.Stat(manifest); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("ROOT", root)
			e.Setenv("MANIFEST", manifest)
			for variable, name := range map[string]string{"PROGRAM": "cc-ci-run", "FULL": "cc-ci-run-full"} {
				path, err := osexec.LookPath(name)
				if err != nil {
					return err
				}
				e.Setenv(variable, path)
			}
			e.Setenv("CC_CI_RUN_STATE", filepath.Join(e.WorkDir, "state"))
			return os.Symlink(filepath.Join(root, "build/python"), filepath.Join(e.WorkDir, "python"))
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "seal":
				return seal.Supported() == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// status N: the last command's exit status was N.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				if data := ts.ReadFile("status"); data != args[0]+"\n" {
					ts.Fatalf("exit status %s, want %s", data, args[0])
				}
			},
			// daemon SOCKET VERSION SWARM STACK...: from now on a docker daemon answers
			// there, with a swarm of that ID, or "-" for none, and a service of each stack.
			// ! daemon SOCKET: none does.
			"daemon": func(ts *testscript.TestScript, neg bool, args []string) {
				socket := ts.MkAbs(args[0])
				if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) || neg {
					ts.Check(err)
					return
				}
				stop, err := dockertest.Daemon{ID: "OWN", Version: args[1], Swarm: strings.Trim(args[2], "-"), Stacks: args[3:]}.Serve(socket)
				ts.Check(err)
				ts.Defer(stop)
			},
			// mount ARG... DIRECTORY: as mount(8), once in a script. Until the script's end no
			// other test compares the machine's mounts. At the script's end the file system is
			// unmounted, also if the script fails.
			"mount": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg {
					ts.Fatalf("! mount is not supported")
				}
				unlock, err := mounttest.Lock(root)
				ts.Check(err)
				ts.Defer(unlock)
				ts.Check(ts.Exec("mount", args...))
				ts.Defer(func() { _ = syscall.Unmount(ts.MkAbs(args[len(args)-1]), syscall.MNT_DETACH) })
			},
			// run ARG...: cc-ci-run, whatever its exit status; `status` looks at that.
			"run": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec("cc-ci-run", args...)
				code := 0
				if exit, ok := err.(interface{ ExitCode() int }); ok {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				ts.Check(os.WriteFile(ts.MkAbs("status"), fmt.Appendln(nil, code), 0o644))
			},
		},
	})
}
