//go:build environment && e2e

package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// stress spawns in many ways, N short processes from 16 threads among them.
const stress = `
import ctypes, mmap, os, subprocess, sys, threading
n, here = int(sys.argv[1]), sys.argv[2]
bin = os.environ["PATH"]
true = bin + "/true"
def reap(pid): os.waitpid(pid, 0)

for _ in range(5):
    subprocess.run(["git", "--version"], stdout=subprocess.DEVNULL)
    subprocess.run("true; bash -c 'exec env true'; echo x | cat | sed s/x/y/ >/dev/null", shell=True)
    subprocess.run(["true"], preexec_fn=lambda: None)          # fork instead of vfork
    reap(os.posix_spawn(true, ["true"], os.environ))
    reap(os.posix_spawnp("true", ["true"], os.environ))
    pid = os.fork()
    if pid == 0:
        os.execvpe("true", ["true"], os.environ)
    reap(pid)
    subprocess.Popen(["nohup", "timeout", "5", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()

# a tree, as make makes one: each level runs two of the next, at once
tree = here + "/tree"
with open(tree, "w") as f:
    f.write('#!' + bin + '/bash\nif [ $1 -gt 0 ]; then "$0" $(($1-1)) & "$0" $(($1-1)) & wait; else true; ls / >/dev/null; fi\n')
os.chmod(tree, 0o755)
subprocess.run([tree, "5"])

# many threads
def spin(k):
    for i in range(k):
        if i % 2:
            reap(os.posix_spawn(true, ["true"], {}))
        else:
            subprocess.run([bin + "/false"])
threads = [threading.Thread(target=spin, args=(n // 16,)) for _ in range(16)]
for t in threads: t.start()
for t in threads: t.join()

# a thread that is not the leader executes
pid = os.fork()
if pid == 0:
    t = threading.Thread(target=lambda: os.execv(true, ["true"]))
    t.start()
    t.join()
reap(pid)
`

// What strace sees of the same work is the same.
func TestAuditStress(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal(err)
	}
	const processes = "10000"
	work := t.TempDir()
	began := time.Now()
	status, output, calls := audited(t, stress, []string{"--looks=false"}, processes, work)
	if status != 0 {
		t.Fatalf("exit status %d: %s", status, output)
	}
	took := time.Since(began)
	seen := executed(calls)

	dir := t.TempDir()
	script, trace := filepath.Join(dir, "script.py"), filepath.Join(dir, "trace")
	write(t, script, stress, 0o644)
	began = time.Now()
	status, output = start{
		argv: []string{strace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=execve,execveat", "-e", "signal=none", "-s", "4096", "-o", trace, binary(t), "--no-record", script, processes, work},
		env:  []string{"HOME=" + dir}, dir: dir,
	}.run(t)
	if status != 0 {
		t.Fatalf("strace: exit status %d: %s", status, output)
	}
	t.Logf("audit %s, strace %s", took, time.Since(began))
	want := traced(t, trace)
	// cc-ci-run itself is under strace, and not under its own audit.
	for file := range want {
		if strings.HasPrefix(filepath.Base(file), "cc-ci-run") {
			delete(want, file)
		}
	}
	if !maps.Equal(seen, want) {
		t.Errorf("audit saw %v\nstrace saw %v", seen, want)
	}
	total := 0
	for _, n := range seen {
		total += n
	}
	if total < 10000 {
		t.Errorf("only %d processes", total)
	}
	t.Logf("%d executed, of %d files", total, len(seen))
}

var execLine = regexp.MustCompile(`execve(?:at)?\("((?:[^"\\]|\\.)*)", .*`)

var changed = regexp.MustCompile(`<pid changed to (\d+) \.\.\.>$`)

// traced counts the files that strace saw executed, in a trace with lines cut
// in two where threads overlap.
func traced(t testing.TB, trace string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	files, open := map[string]int{}, map[string]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		pid, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		path := ""
		if m := execLine.FindStringSubmatch(rest); m != nil {
			path = m[1]
			if strings.HasSuffix(rest, "<unfinished ...>") {
				open[pid] = path
				continue
			}
			// A thread executed, and goes on with the leader's id.
			if m := changed.FindStringSubmatch(rest); m != nil {
				open[m[1]] = path
				continue
			}
		} else if strings.HasPrefix(rest, "<... execve") {
			path = open[pid]
			delete(open, pid)
		} else {
			continue
		}
		if !strings.HasSuffix(rest, "= 0") {
			continue
		}
		file, err := filepath.EvalSymlinks(path)
		if err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		files[file]++
	}
	return files
}
