package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cc-ci-run/internal/cli"
	"cc-ci-run/internal/exec/seal"
)

// In scripts, the command cc-ci-run is this test binary, with race detector,
// and its manifest, a fact of link time in the real one, is $MANIFEST.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"cc-ci-run": func() {
			os.Exit(cli.Main(cli.Process{
				Args: os.Args, Environ: os.Environ(),
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
				Manifest: os.Getenv("MANIFEST"), Version: "test",
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
			e.Setenv("CC_CI_RUN_STATE", filepath.Join(e.WorkDir, "state"))
			// What a script mounted there goes with it, also if it fails.
			e.Defer(func() { _ = syscall.Unmount(filepath.Join(e.WorkDir, "full"), 0) })
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
