//go:build environment

package e2e

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestNothingOfTheCallerLeaksIn starts a run from hostile environments. The
// child's environment must be byte for byte that of a run from a plain one,
// but for the variables that the toolset passes (more, in the table).
func TestNothingOfTheCallerLeaksIn(t *testing.T) {
	home := home(t)
	bin := filepath.Join(home, "bin")
	site := filepath.Join(home, ".local/lib/python3.11/site-packages")
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprintf("HOSTILE_%d=x", i)
	}
	rows := []struct {
		name string
		env  []string
		more []string // what of it passes
	}{
		{name: "PATH unset"},
		{name: "PATH empty", env: []string{"PATH="}},
		{name: "PATH relative", env: []string{"PATH=bin:../bin"}},
		{name: "PATH with . first", env: []string{"PATH=.:/usr/bin"}},
		{name: "PATH with fakes first", env: []string{"PATH=" + bin + ":/usr/bin:/bin"}},
		{name: "PATH twice", env: []string{"PATH=/usr/bin", "PATH=" + bin}},
		{name: "PYTHONPATH", env: []string{"PYTHONPATH=" + site}},
		{name: "PYTHONHOME", env: []string{"PYTHONHOME=" + home}},
		{name: "PYTHONSTARTUP", env: []string{"PYTHONSTARTUP=" + home + "/.pythonrc", "PYTHONINSPECT=1"}},
		{name: "PYTHONUSERBASE", env: []string{"PYTHONUSERBASE=" + home + "/.local"}},
		{name: "PYTHONWARNINGS and other options", env: []string{"PYTHONWARNINGS=error", "PYTHONOPTIMIZE=2", "PYTHONVERBOSE=1", "PYTHONPYCACHEPREFIX=" + home, "PYTHONEXECUTABLE=" + bin + "/python3", "PYTHONPLATLIBDIR=nowhere", "PYTHONBREAKPOINT=os.abort"}},
		{name: "VIRTUAL_ENV", env: []string{"VIRTUAL_ENV=" + home, "__PYVENV_LAUNCHER__=" + bin + "/python3"}},
		{name: "LD_PRELOAD", env: []string{"LD_PRELOAD=/nonexistent.so"}},
		{name: "LD_LIBRARY_PATH", env: []string{"LD_LIBRARY_PATH=" + home, "LD_AUDIT=/nonexistent.so", "GLIBC_TUNABLES=glibc.malloc.check=3"}},
		{name: "BASH_ENV and ENV", env: []string{"BASH_ENV=" + home + "/.bashrc", "ENV=" + home + "/.bashrc"}},
		{name: "exported functions", env: []string{"BASH_FUNC_git%%=() { echo fake; }", "BASH_FUNC_bash%%=() { echo fake; }", "BASH_FUNC_git()=() { echo fake; }"}},
		{name: "SHELLOPTS", env: []string{"SHELLOPTS=xtrace:errexit", "BASHOPTS=nullglob", "PS4=$(touch " + home + "/poisoned)", "PROMPT_COMMAND=touch " + home + "/poisoned"}},
		{name: "GIT_DIR", env: []string{"GIT_DIR=" + home, "GIT_WORK_TREE=" + home, "GIT_INDEX_FILE=" + home + "/index"}},
		{name: "GIT_CONFIG_COUNT", env: []string{"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=alias.lfs", "GIT_CONFIG_VALUE_0=!touch " + home + "/poisoned", "GIT_CONFIG_GLOBAL=" + home + "/.gitconfig", "GIT_CONFIG_PARAMETERS='alias.lfs'='!false'"}},
		{name: "GIT_EXEC_PATH", env: []string{"GIT_EXEC_PATH=" + bin, "GIT_SSH_COMMAND=false", "GIT_TEMPLATE_DIR=" + home}},
		{name: "git's author", env: []string{"GIT_AUTHOR_NAME=mallory", "GIT_COMMITTER_EMAIL=m@example.org", "GIT_TERMINAL_PROMPT=1", "EMAIL=m@example.org"}},
		{name: "IFS", env: []string{"IFS=/"}},
		{name: "CDPATH", env: []string{"CDPATH=" + home + ":/"}},
		{name: "TMPDIR that does not exist", env: []string{"TMPDIR=/nonexistent", "TEMP=/nonexistent", "TMP=/nonexistent"}},
		{name: "duplicates", env: []string{"HOME=/nonexistent", "LANG=one", "LANG=two", "LC_ALL=tr_TR.UTF-8"}},
		{name: "the fixed ones", env: []string{"CI=false", "LANG=C", "SHELL=/bin/zsh", "SSL_CERT_FILE=/nonexistent", "TZDIR=/nonexistent", "PLAYWRIGHT_BROWSERS_PATH=0"}},
		{name: "cc-ci-run's own", env: []string{"CC_CI_RUN_INVOKER=drone", "CC_CI_RUN_FINGERPRINT=0", "CC_CI_RUN_MANIFEST=/nonexistent", "CC_CI_RUN_STATE=/nonexistent"}},
		{name: "names that are not UTF-8", env: []string{"\xff\xfe=x", "HO\xffME=x", "DRONE_\xff=x", "=x", "novalue"}},
		{name: "values that are not UTF-8", env: []string{"X=\xff", "http_proxy=\xff"}, more: []string{"http_proxy=\xff"}},
		{name: "a value of 100 KiB", env: []string{"X=" + strings.Repeat("x", 100<<10)}},
		{name: "10,000 variables", env: many},
		{name: "pytest's", env: []string{"PYTEST_ADDOPTS=--collect-only", "PYTEST_PLUGINS=nonexistent"}},
		{name: "Go's", env: []string{"GODEBUG=gctrace=1,inittrace=1", "GOTRACEBACK=crash", "GOGC=1", "GOMAXPROCS=1", "GOMEMLIMIT=1"}},
		{name: "a desktop's", env: []string{"USER=mallory", "LOGNAME=mallory", "XDG_CONFIG_HOME=" + home, "SSH_AUTH_SOCK=/nonexistent", "DISPLAY=:0", "DOCKER_HOST=tcp://127.0.0.1:1", "TZ=Asia/Tokyo"}},
		{name: "a unit's", env: []string{"INVOCATION_ID=0123456789abcdef0123456789abcdef", "JOURNAL_STREAM=8:1", "SYSTEMD_EXEC_PID=1", "CREDENTIALS_DIRECTORY=/nonexistent", "NOTIFY_SOCKET=/nonexistent", "LISTEN_FDS=1"}, more: []string{"CC_CI_RUN_INVOKER=systemd"}},
		{name: "Drone's", env: []string{"DRONE=true", "DRONE_BUILD_NUMBER=7", "CI_BUILD_NUMBER=7"}, more: []string{"CC_CI_RUN_INVOKER=drone", "DRONE=true", "DRONE_BUILD_NUMBER=7", "CI_BUILD_NUMBER=7"}},
		{name: "what passes", env: []string{"https_proxy=http://127.0.0.1:1", "TERM=xterm", "GITEA_URL=http://127.0.0.1:1"}, more: []string{"https_proxy=http://127.0.0.1:1", "TERM=xterm", "GITEA_URL=http://127.0.0.1:1"}},
	}

	plain := probeRun(t, nil, start{env: []string{"HOME=" + home}}, "WITH_CHILDREN")
	if p := poison(t, home); p != "" {
		t.Fatalf("read without any variable: %s", p)
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			// HOME comes first, so that it counts where the row has it again.
			got := probeRun(t, nil, start{env: append([]string{"HOME=" + home}, row.env...)}, "WITH_CHILDREN")
			want := map[string]string{}
			for _, kv := range append(plain.vars(t), row.more...) {
				name, value, _ := strings.Cut(kv, "=")
				want[name] = value
			}
			var list []string
			for _, name := range slices.Sorted(maps.Keys(want)) {
				list = append(list, name+"="+want[name])
			}
			if env := got.vars(t); !slices.Equal(env, list) {
				t.Errorf("environment:\n%q\nwant\n%q", env, list)
			}
			if p := poison(t, home); p != "" {
				t.Errorf("got in: %s", p)
			}
			if !reflect.DeepEqual(got.Children, plain.Children) {
				t.Errorf("children saw\n%q\nwant\n%q", got.Children, plain.Children)
			}
			got.Path[0], plain.Path[0] = "", "" // the script's own directory
			if got.Executable != plain.Executable || !slices.Equal(got.Path, plain.Path) || !slices.Equal(got.Modules, plain.Modules) {
				t.Errorf("Python: %s %q %q, want %s %q %q", got.Executable, got.Path, got.Modules, plain.Executable, plain.Path, plain.Modules)
			}
		})
	}
}

// TestPathIsOneDirectory is the contract that the rest hangs on.
func TestPathIsOneDirectory(t *testing.T) {
	got := probeRun(t, nil, start{env: []string{"HOME=/", "PATH=/usr/bin"}}, "WITH_CHILDREN")
	bin := filepath.Dir(got.Executable)
	if i := slices.Index(got.vars(t), "PATH="+bin); i < 0 {
		t.Errorf("PATH is not %s: %q", bin, got.vars(t))
	}
	for _, line := range strings.Fields(got.Children["shell"]) {
		if filepath.Dir(line) != bin {
			t.Errorf("found outside PATH: %s", line)
		}
	}
}

// A bash with a socket for its stdin takes itself for one that rshd started,
// and reads ~/.bashrc, unless SHLVL tells it better. Node gives its children
// sockets.
func TestSocketForStdin(t *testing.T) {
	home := home(t)
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "mine"), os.NewFile(uintptr(fds[1]), "theirs")
	defer mine.Close()
	cmd := command(t, "exec", "--no-record", "bash", "-c", "true")
	cmd.Env = []string{"HOME=" + home}
	cmd.Stdin = theirs
	err = cmd.Run()
	theirs.Close()
	if err != nil || poison(t, home) != "" {
		t.Errorf("%v, got in: %s", err, poison(t, home))
	}
}

// A unit's run is a unit's with --pty, too: the new terminal is not a person's.
func TestInvokerWithPty(t *testing.T) {
	for _, args := range [][]string{{"exec"}, {"exec", "--pty"}} {
		cmd := command(t, append(args, "--no-record", "printenv", "CC_CI_RUN_INVOKER")...)
		cmd.Env = []string{"HOME=/", "INVOCATION_ID=i", "JOURNAL_STREAM=8:1"}
		out, err := cmd.Output()
		if strings.TrimSpace(string(out)) != "systemd" {
			t.Errorf("%q: invoker %q, %v, want systemd", args, out, err)
		}
	}
}

// TestArgumentsReachTheScript unchanged, whatever they look like.
func TestArgumentsReachTheScript(t *testing.T) {
	args := []string{"", " ", "a b", "new\nline", "--", "-h", "--help", "--pty", "--state", "-x", "ü", "\xff\xfe", "'", "\"", "$(true)", "*", "\\"}
	for len(args) < 64 {
		args = append(args, fmt.Sprint("argument ", len(args)))
	}
	got := probeRun(t, nil, start{env: []string{"HOME=/"}}, args...)
	for i, arg := range got.Argv {
		raw, _ := base64.StdEncoding.DecodeString(arg)
		if string(raw) != args[i] {
			t.Errorf("argument %d: %q, want %q", i, raw, args[i])
		}
	}
	if len(got.Argv) != len(args) {
		t.Errorf("%d arguments, want %d", len(got.Argv), len(args))
	}
}
