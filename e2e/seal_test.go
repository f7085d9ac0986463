//go:build environment

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec/seal"
	"cc-ci-run/internal/toolset"
)

// needSeal skips a test where the kernel cannot seal.
func needSeal(t *testing.T) {
	t.Helper()
	if err := seal.Supported(); err != nil {
		t.Skip(err)
	}
}

// programWith builds a cc-ci-run with the environment of `make
// build`, but for what change does to its manifest.
func programWith(t *testing.T, change func(*toolset.Manifest)) string {
	t.Helper()
	m, err := toolset.ReadManifest("../build/toolset/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	change(m)
	dir := t.TempDir()
	if _, err := m.Write(dir, dir); err != nil {
		t.Fatal(err)
	}
	plan, program := filepath.Join(dir, toolset.PlanName), filepath.Join(dir, "cc-ci-run")
	build := exec.Command("go", "build", "-ldflags", "-E cc-ci-run/internal/entry.start -X main.plan="+plan, "-o", program, "../cmd/cc-ci-run")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// The results in the table of docs/seal.md.
const (
	stopped    = "stopped"
	notStopped = "not stopped"
	notForRoot = "not stopped for root"
)

// sealTable reads docs/seal.md: what was tried -> its result.
func sealTable(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open("../docs/seal.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		cells := strings.Split(s.Text(), "|")
		if len(cells) != 5 {
			continue
		}
		tried, result := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])
		if !slices.Contains([]string{stopped, notStopped, notForRoot}, result) {
			continue
		}
		if table[tried] != "" {
			t.Errorf("docs/seal.md: %q appears twice", tried)
		}
		table[tried] = result
	}
	return table
}

// TestEscapes tries each line of the table in docs/seal.md, sealed, and not
// sealed: so that what is stopped is stopped by the seal.
func TestEscapes(t *testing.T) {
	needSeal(t)
	table := sealTable(t)
	// On one file system, and not in /dev/shm.
	dir, err := os.MkdirTemp("/var/tmp", "cc-ci-run-seal-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("file"), "", 0o755)
	write(t, in("other"), "", 0o755)
	for _, d := range []string{"allowed", "scratch"} {
		if err := os.Mkdir(in(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const foreign = "/usr/bin/dpkg"
	program := programWith(t, func(m *toolset.Manifest) {
		m.Seal.Execute = []string{in("allowed"), in("file"), in("other")}
		if slices.Contains(m.Closure, foreign) {
			t.Fatalf("%s is part of the toolset by now: take another", foreign)
		}
	})
	scripts, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}

	outside := exec.Command(program, "--no-record", filepath.Join(scripts, "outside.py"), in("socket"), foreign)
	outside.Env = []string{"HOME=/"}
	if err := outside.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outside.Process.Kill(); _ = outside.Wait() })
	for limit := time.Now().Add(watchdog); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(in("socket")); err == nil {
			break
		} else if time.Now().After(limit) {
			t.Fatal(err)
		}
	}

	libraries, _ := filepath.Glob("../build/toolset/lib/*/site-packages/greenlet/_greenlet*.so")
	if len(libraries) == 0 {
		t.Fatal("no library to load")
	}
	library, _ := filepath.Abs(libraries[0])
	config, err := json.Marshal(map[string]any{
		"foreign": foreign, "marker": "Debian", "allowed": in("allowed"), "scratch": in("scratch"), "file": in("file"), "other": in("other"),
		"library": library, "outside": in("socket"), "pid": outside.Process.Pid, "program": program,
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, in("config"), string(config), 0o644)
	try := func(flags ...string) map[string]outcome {
		t.Helper()
		cmd := exec.Command(program, append(flags, "--no-record", filepath.Join(scripts, "escapes.py"), in("config"), in("report"))...)
		cmd.Env = []string{"HOME=/"}
		if cmd.Stdin, err = os.Open(foreign); err != nil {
			t.Fatal(err)
		}
		defer cmd.Stdin.(*os.File).Close()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", flags, err, out)
		}
		var report map[string]outcome
		data, err := os.ReadFile(in("report"))
		if err == nil {
			err = json.Unmarshal(data, &report)
		}
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	sealed, open := try("--seal"), try()

	// What the kernel has registered for a kind of file, in a user namespace of
	// its own: nothing of the machine is changed.
	write(t, in("allowed/binfmt"), "ESCAPE", 0o755)
	for name, flag := range map[string]string{"an interpreter that binfmt_misc has": "", "an interpreter that binfmt_misc holds open (flag F)": "F"} {
		for flags, into := range map[string]map[string]outcome{"": open, "--seal": sealed} {
			const register = `mount -t binfmt_misc x "$0" && echo ":escape:M::ESCAPE::$1:$2" >"$0/register" && shift 2 && exec "$@"`
			argv := []string{"/usr/bin/unshare", "-Urm", "sh", "-c", register, in("scratch"), foreign, flag, program, "--no-record"}
			argv = append(argv, strings.Fields(flags)...)
			_, output := start{argv: append(argv, "exec", "sh", "-c", in("allowed/binfmt")), env: []string{"HOME=/", "PATH=/usr/bin:/bin"}}.run(t)
			into[name] = outcome{strings.Contains(output, "dpkg: error"), output}
		}
		if !open[name].Ran {
			t.Logf("%s: not tried: %s", name, open[name].Why)
			delete(sealed, name)
			delete(table, name)
		}
	}

	// What the run is started with: a file of memory as its stdin, and a terminal.
	for flags, into := range map[string]map[string]outcome{"": open, "--seal": sealed} {
		argv := append(append([]string{program, "--no-record"}, strings.Fields(flags)...), "exec", "python3", "-c")
		into["a file of memory that is the run's stdin"] = byStdin(t, argv, foreign)
		into["a shell outside, by typing at its terminal (TIOCSTI)"] = byTyping(t, argv, foreign)
	}

	// What a kernel may refuse without a seal, too.
	ever := map[string]bool{
		"a file of memory with MFD_NOEXEC_SEAL, made executable": true,
		"a file of memory, by the x32 entry":                     true,
		"by the 32-bit entry (int 0x80)":                         true,
		"a file of memory, by the 32-bit entry":                  true,
		"the same in a user namespace":                           true,
	}
	root := os.Geteuid() == 0
	for _, name := range slices.Sorted(maps.Keys(sealed)) {
		got, want := sealed[name], table[name]
		t.Logf("%-80s %-22s %s", name, want, got.Why)
		if want == "" {
			t.Errorf("docs/seal.md has no line %q", name)
			continue
		}
		runs := want == notStopped || want == notForRoot && root
		if got.Ran != runs {
			t.Errorf("%s: it ran: %t (%s), docs/seal.md says: %s", name, got.Ran, got.Why, want)
		}
		if !open[name].Ran && !ever[name] && root {
			t.Errorf("%s: not stopped by the seal, as it does not run without one either: %s", name, open[name].Why)
		}
	}
	for name := range table {
		if _, ok := sealed[name]; !ok && (runtime.GOARCH == "amd64" || !strings.Contains(name, "entry")) {
			t.Errorf("docs/seal.md: %q is not tried by testdata/escapes.py", name)
		}
	}
}

// outcome is what became of a way to execute a program.
type outcome struct {
	Ran bool
	Why string
}

// byStdin starts a run whose stdin is a file of memory with the program, which the run
// then executes.
func byStdin(t *testing.T, argv []string, foreign string) outcome {
	t.Helper()
	fd, err := unix.MemfdCreate("program", 0)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "program")
	defer memory.Close()
	data, err := os.ReadFile(foreign)
	if err == nil {
		_, err = memory.Write(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Nobody may have it open for writing.
	stdin, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	memory.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	cmd := exec.Command(argv[0], append(argv[1:], `import os; os.execve(0, ["x", "--version"], {})`)...)
	cmd.Stdin, cmd.Env = stdin, []string{"HOME=/"}
	out, _ := cmd.CombinedOutput()
	return outcome{strings.Contains(string(out), "Debian"), string(out)}
}

// byTyping starts a run from a shell at a terminal. The run types a line there, which
// the shell reads when the run has ended.
func byTyping(t *testing.T, argv []string, foreign string) outcome {
	t.Helper()
	const types = `import fcntl, termios
for c in b"echo got $0 $(FOREIGN --version)\n": fcntl.ioctl(0, termios.TIOCSTI, bytes([c]))`
	line := append(argv, strings.ReplaceAll(types, "FOREIGN", foreign))
	for i, word := range line {
		line[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	cmd := exec.Command("/bin/sh", "-c", strings.Join(line, " ")+`; echo typed; read line; eval "$line"`)
	cmd.Env = []string{"HOME=/", "PATH=/usr/bin:/bin"}
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	r := bufio.NewReader(terminal)
	var said strings.Builder
	for {
		text, err := r.ReadString('\n')
		said.WriteString(text)
		if strings.TrimSpace(text) == "typed" { // or what follows is all that is read
			_, _ = terminal.WriteString("\n")
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	return outcome{strings.Contains(said.String(), "Debian"), said.String()}
}

// Who has no privilege at all can seal, too.
func TestSealUnprivileged(t *testing.T) {
	needSeal(t)
	needOthers(t) // or as who runs the other tests it was tried by them
	cmd := exec.Command(binary(t), "--seal", "--no-record", "exec", "sh", "-c", "id -u; /usr/bin/dpkg --version")
	cmd.Env = []string{"HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 126 || !strings.Contains(string(out), "65534\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// A browser launches sealed, as `check` and the recipes launch it.
func TestSealedBrowser(t *testing.T) {
	needSeal(t)
	script := filepath.Join(t.TempDir(), "browser.py")
	write(t, script, `
import os
from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    browser = p.chromium.launch(chromium_sandbox=os.geteuid() != 0)
    page = browser.new_page()
    page.set_content("<p id=x></p><script>document.getElementById('x').textContent = 6 * 7</script>")
    print(page.inner_text("#x"))
    browser.close()
`, 0o644)
	program := programWith(t, func(m *toolset.Manifest) { m.Seal = toolset.Seal{Every: true, Execute: []string{}} })
	s := start{argv: []string{program, "--no-record", script}, env: []string{"HOME=" + t.TempDir()}}
	if status, output := s.run(t); status != 0 || !strings.HasSuffix(output, "42\n") {
		t.Errorf("exit status %d: %s", status, output)
	}
}

// Files are still written, moved and linked as without a seal.
func TestSealedFiles(t *testing.T) {
	needSeal(t)
	const work = `set -e
cd "$1"; mkdir a b; echo x >a/f; mv a/f b/g; ln b/g a/h; mv a c; ln -s b d; cp -a b e
git init -q r; cd r; echo y >f; git add f; git commit -qm m; git gc -q
git clone -q . ../s; cd ../s; git checkout -qb t; git commit -q --allow-empty -m n; git push -q origin t
cat ../c/h ../d/g ../e/g; git --no-pager -C ../r log --format=%s t`
	for _, flags := range [][]string{nil, {"--seal"}, {"--seal", "--pty"}} {
		argv := append([]string{binary(t)}, flags...)
		argv = append(argv, "--no-record", "exec", "bash", "-c", work, "bash", t.TempDir())
		status, output := start{argv: argv, env: []string{"HOME=" + t.TempDir()}}.run(t)
		if _, lines, _ := strings.Cut(strings.ReplaceAll(output, "\r", ""), "abra\n"); status != 0 || lines != "x\nx\nx\nn\nm\n" {
			t.Errorf("%q: exit status %d: %s", flags, status, output)
		}
	}
}

// withoutLandlock is set in a child of this test that is to be a cc-ci-run on
// a kernel without Landlock.
const withoutLandlock = "CC_CI_RUN_TEST_ERRNO"

// becomeWithoutLandlock makes landlock_create_ruleset fail with an errno, by
// a seccomp filter, and becomes a program.
func becomeWithoutLandlock(e uint32, argv []string) error {
	runtime.LockOSThread() // the filter is this thread's
	f := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | e},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return err
	}
	return unix.Exec(argv[0], argv, []string{"HOME=/"})
}

// On a kernel without Landlock --seal is an error that says how to fix it,
// seal = true as well; the best effort says what it could not do, and leaves
// it in the record.
func TestKernelWithoutLandlock(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	always := programWith(t, func(m *toolset.Manifest) { m.Seal.Every = true })
	for _, row := range []struct {
		errno  unix.Errno
		argv   []string
		status int
		says   string
		record string
	}{
		{unix.ENOSYS, []string{binary(t), "--seal"}, 125, "cc-ci-run: --seal: this kernel has no Landlock: it takes Linux 5.19", ""},
		{unix.EOPNOTSUPP, []string{binary(t), "--seal"}, 125, "cc-ci-run: --seal: this kernel has Landlock disabled: add landlock to its boot parameter lsm=", ""},
		{unix.EPERM, []string{binary(t), "--seal"}, 125, "cc-ci-run: --seal: this kernel's Landlock cannot be used here (operation not permitted)", ""},
		{unix.ENOSYS, []string{binary(t), "--seal=best-effort"}, 0, "cc-ci-run: not sealed: this kernel has no Landlock", "none: this kernel has no Landlock: "},
		{unix.EOPNOTSUPP, []string{binary(t), "--seal=best-effort"}, 0, "cc-ci-run: not sealed: this kernel has Landlock disabled", "none: this kernel has Landlock disabled"},
		{unix.ENOSYS, []string{always}, 125, "cc-ci-run: seal = true of the toolset: this kernel has no Landlock", ""},
		{unix.ENOSYS, []string{always, "--seal=best-effort"}, 125, "cc-ci-run: seal = true of the toolset: this kernel has no Landlock", ""},
	} {
		state := t.TempDir()
		argv := slices.Concat([]string{self}, row.argv, []string{"--state", state, "exec", "true"})
		status, output := start{argv: argv, env: []string{fmt.Sprintf("%s=%d", withoutLandlock, uint32(row.errno))}}.run(t)
		if status != row.status || !strings.Contains(output, row.says) {
			t.Errorf("%q, %v: exit status %d: %s", row.argv, row.errno, status, output)
		}
		files, _ := filepath.Glob(filepath.Join(state, "runs", "*.json"))
		if len(files) != min(len(row.record), 1) {
			t.Errorf("%q: %d records", row.argv, len(files))
		}
		for _, file := range files {
			if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), `"sealed": "`+row.record) {
				t.Errorf("%q: %v, %s", row.argv, err, data)
			}
		}
	}
}
