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
	type row struct {
		name    string
		env     []string
		more    []string // what of it passes
		invoker bool     // whether it says who started the run: only for a person's run
	}
	rows := []row{
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
		{name: "a unit's", invoker: true, env: []string{"INVOCATION_ID=0123456789abcdef0123456789abcdef", "JOURNAL_STREAM=8:1", "SYSTEMD_EXEC_PID=1", "CREDENTIALS_DIRECTORY=/nonexistent", "NOTIFY_SOCKET=/nonexistent", "LISTEN_FDS=1"}, more: []string{"CC_CI_RUN_INVOKER=systemd"}},
		{name: "Drone's", invoker: true, env: []string{"DRONE=true", "DRONE_BUILD_NUMBER=7", "CI_BUILD_NUMBER=7"}, more: []string{"CC_CI_RUN_INVOKER=drone", "DRONE=true", "DRONE_BUILD_NUMBER=7", "CI_BUILD_NUMBER=7"}},
		{name: "what passes", env: []string{"https_proxy=http://127.0.0.1:1", "TERM=xterm", "GITEA_URL=http://127.0.0.1:1"}, more: []string{"https_proxy=http://127.0.0.1:1", "TERM=xterm", "GITEA_URL=http://127.0.0.1:1"}},
	}

	whole := len(rows)
	// Variables that change what a tool does, or where it finds its files. None has an effect
	// on cc-ci-run itself, so a row each is enough, and the probe starts no children.
	for _, variables := range []string{
		"DOCKER_CONTEXT=other DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=@ DOCKER_API_VERSION=1.1", "DOCKER_CONFIG=@", "DOCKER_CLI_PLUGIN_EXTRA_DIRS=@ DOCKER_DEFAULT_PLATFORM=linux/arm64", "DOCKER_BUILDKIT=0 BUILDKIT_HOST=tcp://127.0.0.1:1 BUILDX_CONFIG=@",
		"COMPOSE_FILE=@/compose.yml COMPOSE_PROJECT_NAME=p COMPOSE_PROFILES=x", "STACK_NAME=other DOMAIN=example.org", "ABRA_DIR=@", "KUBECONFIG=@", "CONTAINER_HOST=tcp://127.0.0.1:1",
		"CURL_HOME=@", "CURL_SSL_BACKEND=none SSLKEYLOGFILE=@/keys", "SSL_CERT_DIR=@", "OPENSSL_CONF=@/openssl.cnf OPENSSL_MODULES=@ OPENSSL_ENGINES=@", "NETRC=@/netrc", "WGETRC=@/wgetrc SYSTEM_WGETRC=@/wgetrc",
		"GNUTLS_SYSTEM_PRIORITY_FILE=@ P11_KIT_STRICT=1", "HOSTALIASES=@/hosts RES_OPTIONS=ndots:9 LOCALDOMAIN=example.org", "NIX_PATH=nixpkgs=@ NIX_CONFIG=x NIX_REMOTE=daemon", "NIX_LD=@ NIX_LD_LIBRARY_PATH=@",
		"NODE_OPTIONS=--require=@/x.js", "NODE_EXTRA_CA_CERTS=@/ca NODE_TLS_REJECT_UNAUTHORIZED=0 NODE_PATH=@", "NPM_CONFIG_PREFIX=@ npm_config_registry=http://127.0.0.1:1", "PLAYWRIGHT_DOWNLOAD_HOST=http://127.0.0.1:1 PWDEBUG=1 DEBUG=pw:*", "CHROME_DEVEL_SANDBOX=@ CHROMIUM_FLAGS=--proxy-server=x", "MOZ_LOG=all:5 FONTCONFIG_FILE=@ FONTCONFIG_PATH=@",
		"PERL5LIB=@ PERL5OPT=-Mnothing PERL5DB=x", "RUBYOPT=-rnothing RUBYLIB=@", "JAVA_TOOL_OPTIONS=-Dx=y CLASSPATH=@", "LUA_INIT=@/x.lua LUA_PATH=@", "AWKPATH=@ AWKLIBPATH=@ GAWK_READ_TIMEOUT=1",
		"PIP_INDEX_URL=http://127.0.0.1:1 PIP_TARGET=@ PIP_REQUIRE_VIRTUALENV=1", "UV_INDEX=http://127.0.0.1:1 UV_PYTHON=@", "REQUESTS_CA_BUNDLE=@/ca", "PYTEST_DEBUG=1 PY_COLORS=1 FORCE_COLOR=1", "COVERAGE_PROCESS_START=@ COV_CORE_SOURCE=@",
		"GREP_OPTIONS=-v GREP_COLORS=mt=1", "LESS=-X LESSOPEN=|touch,@/poisoned LESSCLOSE=x", "PAGER=touch,@/poisoned MANPAGER=x GIT_PAGER=x", "EDITOR=touch VISUAL=touch GIT_EDITOR=touch GIT_SEQUENCE_EDITOR=touch FCEDIT=touch", "LS_COLORS=x QUOTING_STYLE=c TIME_STYLE=iso",
		"POSIXLY_CORRECT=1 _POSIX2_VERSION=199209", "BLOCK_SIZE=1 BLOCKSIZE=1 DF_BLOCK_SIZE=1 DU_BLOCK_SIZE=1", "TAR_OPTIONS=--exclude=*", "GZIP=-9 XZ_OPT=-9 XZ_DEFAULTS=-9 ZSTD_CLEVEL=19 BZIP2=-9", "RSYNC_RSH=false RSYNC_PASSWORD=x", "JQ_COLORS=0 JQ_LIBRARY_PATH=@",
		"MALLOC_ARENA_MAX=1 MALLOC_PERTURB_=255 MALLOC_CHECK_=3", "GCONV_PATH=@ LOCPATH=@ NLSPATH=@ CHARSET=x", "LANGUAGE=tr LC_CTYPE=C LC_COLLATE=x OUTPUT_CHARSET=x", "TZ=:@/zone", "TERMINFO=@ TERMCAP=x TERMINFO_DIRS=@", "COLUMNS=7 LINES=7",
		"INPUTRC=@/inputrc", "HISTFILE=@/history HISTSIZE=0 HISTCONTROL=x", "BASH_COMPAT=31 BASH_XTRACEFD=1 BASH_LOADABLES_PATH=@", "GLOBIGNORE=* EXECIGNORE=* FIGNORE=x", "TMOUT=1 FUNCNEST=1 OPTERR=0 POSIX_PEDANTIC=1", "PS1=x PS2=x PS0=x PROMPT_DIRTRIM=1", "MAIL=@ MAILPATH=@ MAILCHECK=0", "OLDPWD=@ PWD=@ DIRSTACK=@", "_=@/bin/bash SHLVL=99 BASHPID=1 PPID=1 RANDOM=1",
		"GIT_ASKPASS=touch SSH_ASKPASS=touch SSH_ASKPASS_REQUIRE=force", "GIT_SSH=touch GIT_SSH_VARIANT=plink GIT_PROXY_COMMAND=touch", "GIT_EXTERNAL_DIFF=touch GIT_TRACE=2 GIT_TRACE_CURL=2", "GIT_ALTERNATE_OBJECT_DIRECTORIES=@ GIT_OBJECT_DIRECTORY=@ GIT_COMMON_DIR=@ GIT_NAMESPACE=x", "GIT_CEILING_DIRECTORIES=/ GIT_DISCOVERY_ACROSS_FILESYSTEM=1 GIT_DEFAULT_HASH=sha256", "GIT_SSL_NO_VERIFY=1 GIT_SSL_VERSION=x GIT_HTTP_USER_AGENT=x", "GIT_ALLOW_PROTOCOL=ext GIT_PROTOCOL=x GIT_ADVICE=0", "GIT_LFS_SKIP_SMUDGE=1 GIT_LFS_FORCE_PROGRESS=1 GIT_LFS_SET_LOCKABLE_READONLY=0", "GIT_AUTHOR_DATE=@0 GIT_COMMITTER_DATE=@0",
		"SSH_AGENT_PID=1 SSH_CONNECTION=x SSH_TTY=x", "GNUPGHOME=@ GPG_AGENT_INFO=x GPG_TTY=x", "KRB5CCNAME=@ KRB5_CONFIG=@ KRB5_KTNAME=@", "SUDO_USER=x SUDO_UID=0 SUDO_COMMAND=x DOAS_USER=x", "XAUTHORITY=@ WAYLAND_DISPLAY=x DBUS_SESSION_BUS_ADDRESS=unix:path=@ DESKTOP_SESSION=x",
		"XDG_DATA_HOME=@ XDG_STATE_HOME=@ XDG_CACHE_HOME=@ XDG_RUNTIME_DIR=@ XDG_CONFIG_DIRS=@ XDG_DATA_DIRS=@", "SYSTEMD_LOG_LEVEL=debug SYSTEMD_PAGER=x SYSTEMD_COLORS=1 MANAGERPID=1", "WATCHDOG_USEC=1 WATCHDOG_PID=1 FDSTORE=1 LISTEN_PID=1 LISTEN_FDNAMES=x", "STATE_DIRECTORY=@ RUNTIME_DIRECTORY=@ CACHE_DIRECTORY=@ LOGS_DIRECTORY=@ CONFIGURATION_DIRECTORY=@", "AWS_PROFILE=x AWS_CA_BUNDLE=@ GOOGLE_APPLICATION_CREDENTIALS=@", "PGHOST=x PGPASSWORD=x PGSERVICEFILE=@ PGSYSCONFDIR=@ PSQLRC=@", "MYSQL_PWD=x MYSQL_HOME=@ SQLITE_HISTORY=@ SQLITE_TMPDIR=@",
		"ANSIBLE_CONFIG=@ VAULT_TOKEN=x", "TF_LOG=1 CARGO_HOME=@ RUSTUP_HOME=@ RUSTFLAGS=x", "GOFLAGS=-x GOPATH=@ GOROOT=@ GOCOVERDIR=@ GOTOOLCHAIN=x", "CC=x CFLAGS=x MAKEFLAGS=-n MAKELEVEL=9 MFLAGS=-n", "BROWSER=x NO_AT_BRIDGE=1 GTK_PATH=@ QT_PLUGIN_PATH=@", "GITHUB_ACTIONS=true GITLAB_CI=true JENKINS_URL=x BUILDKITE=true TRAVIS=true", "gO=x gODEBUG=x Path=@ path=@ home=@ Home=@", "A_NAME_LIKE_PATH=@ PATH_=@ xPATH=@", "RECIPE=x HOST=x HOSTNAME=x HOSTTYPE=x MACHTYPE=x OSTYPE=x", "UID=0 EUID=0 GROUPS=0",
	} {
		name, _, _ := strings.Cut(variables, "=")
		var list []string
		for _, variable := range strings.Fields(variables) {
			list = append(list, strings.NewReplacer("@", home, ",", " ").Replace(variable))
		}
		rows = append(rows, row{name: name, env: list})
	}

	for invoker, position := range positions {
		position := append([]string{"HOME=" + home}, position...)
		children := []string{"WITH_CHILDREN"}
		if invoker != "manual" { // whose children are enough
			children = nil
		}
		plain := probeRun(t, nil, start{env: position}, children...)
		if p := poison(t, home); p != "" {
			t.Fatalf("%s: read without any variable: %s", invoker, p)
		}
		for i, row := range rows {
			if invoker != "manual" && row.invoker {
				continue
			}
			t.Run(invoker+"/"+row.name, func(t *testing.T) {
				// The position's variables come first, so that they count where the row has them again.
				s := start{env: append(slices.Clip(position), row.env...)}
				var got seen
				if children != nil && i < whole {
					got = probeRun(t, nil, s, children...)
				} else {
					got = probeBy(t, t.TempDir(), nil, s, nil, nil)
				}
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
				if got.Children != nil && !reflect.DeepEqual(got.Children, plain.Children) {
					t.Errorf("children saw\n%q\nwant\n%q", got.Children, plain.Children)
				}
				got.Path[0], plain.Path[0] = "", "" // the script's own directory
				if got.Executable != plain.Executable || !slices.Equal(got.Path, plain.Path) || !slices.Equal(got.Modules, plain.Modules) {
					t.Errorf("Python: %s %q %q, want %s %q %q", got.Executable, got.Path, got.Modules, plain.Executable, plain.Path, plain.Modules)
				}
			})
		}
	}
	t.Logf("%d rows, each from %d positions", len(rows), len(positions))
}

// positions has, for each invoker, the variables that make cc-ci-run take it for the one that
// started the run.
var positions = map[string][]string{
	"manual":  nil,
	"drone":   {"DRONE=true", "DRONE_BUILD_NUMBER=3", "CI_BUILD_NUMBER=3", "DRONE_STAGE_MACHINE=m"},
	"systemd": {"INVOCATION_ID=fedcba9876543210fedcba9876543210", "JOURNAL_STREAM=8:1", "SYSTEMD_EXEC_PID=1"},
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
