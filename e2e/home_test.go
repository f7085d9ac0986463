//go:build environment

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// nobody runs the tests of this file; the password database names another home.
const nobody = "65534"

// dotfiles are configuration files that tools look for in their user's home. Each is hostile:
// a tool that obeys the file fails, or does something else than without the file.
var dotfiles = map[string]string{
	".curlrc": "proxy = http://127.0.0.1:9\nuser-agent = evil\n", ".config/curlrc": "proxy = http://127.0.0.1:9\n",
	".netrc": "machine 127.0.0.1 login evil password evil\n", ".ldaprc": "URI ldap://127.0.0.1:9\n", "ldaprc": "URI ldap://127.0.0.1:9\n",
	".ssh/config": "Host *\n  ProxyCommand false\n", ".ssh/known_hosts": "127.0.0.1 ssh-ed25519 AAAA\n", ".ssh/id_ed25519": "evil\n",
	".gitconfig": "[alias]\n  lfs = !false\n[core]\n  hooksPath = /evil\n", ".config/git/config": "[user]\n  name = evil\n",
	".config/git/attributes": "* -text\n", ".config/git/ignore": "*\n", ".git-credentials": "http://evil:evil@127.0.0.1\n",
	".docker/config.json": `{"currentContext": "evil"}`, ".dockercfg": "{}", ".kube/config": "evil",
	".bashrc": "exit 9\n", ".profile": "exit 9\n", ".bash_profile": "exit 9\n", ".bash_login": "exit 9\n", ".bash_logout": "exit 9\n",
	".bash_history": "evil\n", ".inputrc": "set editing-mode vi\n", ".hushlogin": "",
	".less": "evil", ".lesskey": "evil", ".lesshst": "evil", ".config/lesskey": "evil", ".jq": "def map(f): error;\n",
	".pdbrc": "q\n", ".pythonrc.py": "evil", ".python_history": "evil", ".pydistutils.cfg": "evil", ".config/pip/pip.conf": "evil", ".pip/pip.conf": "evil",
	".perldb": "exit 9;\n", ".proverc": "--exec false\n", ".cpan/CPAN/MyConfig.pm": "die;\n", ".termcap": "evil",
	".popt": "rsync alias -a --dry-run\n", ".toprc": "evil", ".config/procps/toprc": "evil", ".pmaprc": "evil",
	".terminfo/d/dumb": "evil", ".config/terminal-colors.d/disable": "", ".rnd": "evil",
	".config/user-dirs.dirs": "evil", ".config/systemd/user/x.service": "evil",
	".node_modules/playwright/index.js": "process.exit(9)", ".node_libraries/x.js": "process.exit(9)",
	".fonts.conf": "evil", ".config/fontconfig/fonts.conf": "evil", ".config/chromium-flags.conf": "--evil", ".chromium-browser.init": "exit 9\n",
	".pki/nssdb/pkcs11.txt": "evil", ".config/dconf/user": "evil", ".pytest.ini": "[pytest]\naddopts = --evil\n", "pytest.ini": "[pytest]\naddopts = --evil\n", "conftest.py": "evil!",
	".wgetrc": "evil", ".npmrc": "evil", ".sqliterc": "evil", ".psqlrc": "evil", ".vimrc": "evil", ".screenrc": "evil", ".gnupg/gpg.conf": "evil",
}

// tools are what tests do with the toolset's tools, at least once with each tool of
// which docs/home.md says that it reads a file of its user's, and each command with
// --version. reads is what the kernel shows that it looks for in the user's home,
// although the recipe's tests run with another HOME.
var tools = []struct {
	name  string
	argv  []string
	reads []string // in the home that the password database names, below a directory of this list
}{
	{"every command", []string{"bash", "-c", `printf '%s\0' "$PATH"/* | xargs -0 -n 1 -P 4 sh -c 'timeout 5 "$0" --version'`}, nil},
	{"curl", []string{"curl", "-sS", "http://127.0.0.1:1/"}, nil},
	{"curl with .netrc", []string{"curl", "-n", "-sS", "http://127.0.0.1:1/"}, nil},
	{"curl by ldap", []string{"curl", "-sS", "ldap://127.0.0.1:1/"}, nil},
	{"curl without HOME", []string{"env", "-u", "HOME", "curl", "-sS", "http://127.0.0.1:1/"}, nil},
	{"curl by sftp", []string{"curl", "-sS", "sftp://127.0.0.1:1/"}, []string{".ssh"}},
	{"ssh", []string{"ssh", "-o", "BatchMode=yes", "-p", "1", "127.0.0.1"}, []string{".ssh"}},
	{"scp", []string{"scp", "-o", "BatchMode=yes", "-P", "1", "/etc/hostname", "127.0.0.1:x"}, []string{".ssh"}},
	{"sftp", []string{"sftp", "-o", "BatchMode=yes", "-P", "1", "127.0.0.1"}, []string{".ssh"}},
	{"ssh-keygen", []string{"ssh-keygen", "-F", "127.0.0.1"}, []string{".ssh"}},
	{"ssh-add", []string{"ssh-agent", "ssh-add"}, []string{".ssh"}},
	{"ssh-copy-id", []string{"ssh-copy-id", "-p", "1", "127.0.0.1"}, nil},
	{"rsync by ssh", []string{"rsync", "-e", "ssh -p 1", "-a", "/etc/hostname", "127.0.0.1:x"}, []string{".ssh"}},
	{"git by ssh", []string{"git", "ls-remote", "ssh://127.0.0.1:1/x.git"}, []string{".ssh"}},
	{"git by http", []string{"git", "ls-remote", "http://127.0.0.1:1/x.git"}, nil},
	{"git", []string{"bash", "-ec", "git init -q r; cd r; git commit --allow-empty -qm x; git status; git credential-store get </dev/null; git lfs env"}, nil},
	{"docker", []string{"docker", "ps"}, nil},
	{"docker's plugins", []string{"docker", "compose", "version"}, nil},
	{"docker by ssh", []string{"docker", "-H", "ssh://127.0.0.1:1", "ps"}, []string{".ssh"}},
	{"interactive bash", []string{"bash", "-ic", "true"}, nil},
	{"login shell", []string{"bash", "-lc", "true"}, nil},
	{"sh", []string{"sh", "-ilc", "true"}, nil},
	{"script's shell", []string{"bash", "-c", "script -q /dev/null <<< exit"}, nil},
	{"python", []string{"python3", "-c", "import site, netrc, readline, os.path\ntry: netrc.netrc()\nexcept FileNotFoundError: pass"}, nil},
	{"pdb", []string{"timeout", "5", "python3", "-m", "pdb", "/dev/null"}, nil},
	{"python at a terminal", []string{"script", "-qec", "timeout 5 python3 -i -c 1 </dev/tty", "/dev/null"}, nil},
	{"pytest", []string{"pytest", "--collect-only", "/tmp/none"}, nil},
	{"perl's debugger", []string{"perl", "-de", "0"}, nil},
	{"cpan", []string{"perl", "-MCPAN", "-e", "1"}, nil},
	{"prove", []string{"prove", "/dev/null"}, nil},
	{"jq", []string{"jq", "-n", "1"}, nil},
	{"less", []string{"script", "-qec", "TERM=xterm less -F /etc/hostname", "/dev/null"}, nil},
	{"top", []string{"top", "-bn1"}, nil},
	{"tput", []string{"env", "TERM=xterm", "tput", "cols"}, nil},
	{"pmap", []string{"pmap", "-c", "1"}, nil},
	{"colours", []string{"script", "-qec", "TERM=xterm dmesg; TERM=xterm cal", "/dev/null"}, nil},
	{"openssl", []string{"openssl", "rand", "-hex", "3"}, nil},
	{"a user's systemd", []string{"systemctl", "--user", "status"}, nil},
	{"a personality's shell", []string{"linux64"}, nil},
	{"chromium", []string{"python3", "-c", "from playwright.sync_api import sync_playwright\nwith sync_playwright() as p: p.chromium.launch(args=['--no-sandbox']).close()"}, nil},
}

// traces is the recipe: each test runs one row of tools under strace.
const traces = `
import json, os, pathlib, subprocess, pytest
HERE = pathlib.Path(__file__).parent
@pytest.mark.parametrize("row", range(len(json.loads((HERE / "rows.json").read_text()))))
def test(row, tmp_path):
    argv = json.loads((HERE / "rows.json").read_text())[row]
    strace = ["strace", "-f", "-qq", "-o", str(HERE / "traces" / str(row)), "-e", "trace=%file"]
    subprocess.run([*strace, "timeout", "120", *argv], cwd=tmp_path, stdin=subprocess.DEVNULL)
`

// A recipe's tests run as a user whose home, HOME and the password database's, is full
// of hostile files. No tool looks at one of them, but ssh, and the run tells of ssh's.
func TestHostileHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change the password database: sudo make test")
	}
	t.Parallel()
	dir := t.TempDir()
	evil, recipe, states := filepath.Join(dir, "evil"), filepath.Join(dir, "recipes/tools"), filepath.Join(dir, "state")
	for name, content := range dotfiles {
		write(t, filepath.Join(evil, name), content, 0o600)
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?m)^(.*:.*:` + nobody + `:.*:.*:).*(:.*)$`)
	if !entry.Match(passwd) {
		t.Fatalf("/etc/passwd has no user %s", nobody)
	}
	write(t, filepath.Join(dir, "passwd"), entry.ReplaceAllString(string(passwd), "${1}"+evil+"${2}"), 0o644)
	var rows [][]string
	for _, tool := range tools {
		rows = append(rows, tool.argv)
	}
	list, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(recipe, "rows.json"), string(list), 0o644)
	write(t, filepath.Join(recipe, "test_tools.py"), traces, 0o644)
	write(t, filepath.Join(recipe, "traces/.keep"), "", 0o644)
	write(t, filepath.Join(states, ".keep"), "", 0o644)
	open(t, dir)
	runner, err := filepath.Abs("../runner/run_recipe_ci.py")
	if err != nil {
		t.Fatal(err)
	}

	status, output := start{
		argv: []string{
			"/usr/bin/unshare", "-m", "sh", "-c", `mount --bind "$0" /etc/passwd && exec setpriv --reuid=` + nobody + ` --regid=` + nobody + ` --clear-groups "$@"`,
			filepath.Join(dir, "passwd"), binary(t), "--state", states, runner, "--recipes", filepath.Dir(recipe), "tools",
		},
		env: []string{"HOME=" + evil, "PATH=/usr/bin:/usr/sbin:/bin:/sbin"}, dir: evil,
	}.run(t)
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, output)
	}
	told := "cc-ci-run: whatever HOME is, ssh reads config, id_ed25519, known_hosts in " + evil + "/.ssh: "
	if !strings.Contains(output, told) {
		t.Errorf("not told %q:\n%s", told, output)
	}
	newest, _, err := record.Newest(state.Dir(states), "manual", "")
	if err != nil || len(newest.SSHFiles) != 3 {
		t.Errorf("record: %v, %v", newest, err)
	}
	for i, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			trace, err := os.ReadFile(filepath.Join(recipe, "traces", strconv.Itoa(i)))
			if err != nil || !strings.Contains(string(trace), "execve(") {
				t.Fatalf("strace saw nothing: %v, %q", err, trace)
			}
			for _, found := range regexp.MustCompile(`"`+regexp.QuoteMeta(evil)+`/([^/"]*)[^"]*"`).FindAllStringSubmatch(string(trace), -1) {
				if !slices.Contains(tool.reads, found[1]) {
					t.Errorf("looks for %s", found[0])
				}
			}
			for _, name := range tool.reads {
				if !strings.Contains(string(trace), `"`+evil+"/"+name) {
					t.Errorf("does not look into %s, as docs/home.md says", name)
				}
			}
		})
	}
}

// In every run, also with a HOME of hostile files, no tool looks for the files of which
// toolset.toml keeps it by a variable of its own.
func TestVariablesAgainstHome(t *testing.T) {
	t.Parallel()
	evil, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	for name, content := range dotfiles {
		write(t, filepath.Join(evil, name), content, 0o600)
	}
	for _, row := range []struct {
		not  []string
		argv []string
	}{
		{[]string{".curlrc", ".config/curlrc"}, []string{"curl", "-sS", "http://127.0.0.1:1/"}},
		{[]string{".less", ".lesskey", ".config/lesskey", ".lesshst"}, []string{"script", "-qec", "TERM=xterm less -F /etc/hostname", os.DevNull}},
		{[]string{".inputrc"}, []string{"python3", "-c", "import readline"}},
		{[]string{".inputrc"}, []string{"script", "-qec", "echo exit | bash --norc -i", os.DevNull}},
		{[]string{".local"}, []string{"python3", "-c", "import site"}},
	} {
		argv := append([]string{"exec", "--no-record", "strace", "-f", "-qq", "-o", trace, "-e", "trace=%file"}, row.argv...)
		cmd := command(t, argv...)
		cmd.Env = []string{"HOME=" + evil}
		out, _ := cmd.CombinedOutput() // curl fails: nobody listens
		seen, err := os.ReadFile(trace)
		if err != nil || !strings.Contains(string(seen), "execve(") {
			t.Fatalf("%q: strace saw nothing: %v, %s", row.argv, err, out)
		}
		for _, name := range row.not {
			if strings.Contains(string(seen), filepath.Join(evil, name)) {
				t.Errorf("%q looks for %s", row.argv, name)
			}
		}
	}
}

// open makes everything below dir a file of nobody's.
func open(t testing.TB, dir string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, 65534, 65534)
	}); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
}
