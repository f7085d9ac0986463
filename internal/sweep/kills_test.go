package sweep

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// These tests kill sweeps, runs and supervisors at random moments. After each
// kill every state file is whole, nothing is canonical that has no complete
// passing result, and no process of a run is left. The moment is random; no test
// decides by time, and what hangs is ended by the time limit of go test.

// sweeping is a sweep in a process of its own, to be killed. It says what it does
// in lines: see TestHelperSweep.
type sweeping struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	line  string
}

func startSweep(t testing.TB, o Options) *sweeping {
	t.Helper()
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperSweep$")
	cmd.Env = append(os.Environ(), "SWEEP_OPTIONS="+string(options), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err == nil {
		_, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &sweeping{cmd: cmd, lines: bufio.NewScanner(out)}
}

// scan reads the next line; it says false at the end.
func (s *sweeping) scan() bool {
	ok := s.lines.Scan()
	s.line = s.lines.Text()
	return ok
}

func (s *sweeping) kill() { _ = s.cmd.Process.Kill() }

// wait says whether a signal ended it.
func (s *sweeping) wait() (killed bool) {
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
}

// TestHelperSweep is the sweep that startSweep starts.
func TestHelperSweep(t *testing.T) {
	text := os.Getenv("SWEEP_OPTIONS")
	if text == "" {
		t.Skip("started by startSweep")
	}
	var o Options
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	_, _ = Run(context.Background(), o, func(e Event) {
		if e.Result == nil {
			fmt.Println("runs", e.Recipe)
		} else {
			fmt.Println(e.Result.Verdict, e.Recipe)
		}
	})
	fmt.Println("over")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed, or who started it ends
}

// left names the processes that have the bench's directory in their arguments,
// as each process of a run here has.
func (b *bench) left() []string {
	return slices.DeleteFunc(b.processes(), func(p string) bool { return strings.Contains(p, " --git-dir=") })
}

// processes are those that were started for the sweep: runs, and git's that remember them.
func (b *bench) processes() (list []string) {
	b.t.Helper()
	dir := []byte(filepath.Dir(b.Program) + "/")
	entries, err := os.ReadDir("/proc")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if bytes.Contains(args, dir) {
			list = append(list, e.Name()+" "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return list
}

// waitFor waits for an event.
func waitFor(event func() bool) {
	for !event() {
		time.Sleep(2 * time.Millisecond)
	}
}

// waitForNone waits until no process of a run is left. If a process is still there
// after five minutes, its supervisor has not ended it: the test then fails, and logs
// the process's status.
func (b *bench) waitForNone() {
	b.t.Helper()
	limit := time.Now().Add(5 * time.Minute)
	for left := b.processes(); len(left) > 0; left = b.processes() {
		if time.Now().After(limit) {
			for _, process := range left {
				pid, _, _ := strings.Cut(process, " ")
				status, _ := os.ReadFile("/proc/" + pid + "/status")
				b.t.Logf("%s\n%s", process, status)
			}
			b.t.Fatalf("this process is %d; processes of a killed sweep's runs are left", os.Getpid())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// killBench is a place for kills, with a recipe for each way in which a run
// ends. Each test starts a process that leaves its session, group and
// environment, and notes who runs it.
type killBench struct {
	*bench
	version   int
	want      map[string]Verdict
	passing   map[string]bool // trees whose tests pass
	canonical map[string]string
	kills     int
}

// The ways in which the tests of a killBench end, for historyProgram.
var killEnds = map[Verdict][]string{
	Promote: {"", "tests='passed skipped'"},
	Hold:    {"tests=failed status=1", "result= status=3", "before='kill -SEGV $$'"},
	Error:   {"tests=", "result=", "result= status=126"},
}

func newKillBench(t *testing.T) *killBench {
	b := &killBench{newBenchIn(t, fastDir(t)), 0, map[string]Verdict{}, map[string]bool{}, map[string]string{}, 0}
	b.Grace = time.Minute
	useHistoryProgram(b.bench)
	for _, name := range []string{"a", "b", "c"} {
		b.edit(name, Promote)
	}
	b.edit("d", Hold)
	b.edit("e", Error)
	return b
}

// edit gives a recipe another test, which comes to a verdict.
func (b *killBench) edit(name string, v Verdict) {
	b.t.Helper()
	b.version++
	ends := killEnds[v]
	b.recipe(name, fmt.Sprintf(`echo $$ >"$control/$8.pid"
(exec -c setsid "$BASH" -c 'read -r _ <>"$1"' "$PWD/escaped" "$control/never") &
read -rt 0.00%d _ <>"$control/never" # takes so long
%s
# %d`, 1+rand.Intn(4), ends[rand.Intn(len(ends))], b.version))
	b.want[name] = v
	if v == Promote {
		b.passing[hashOf(b.t, filepath.Join(b.Recipes, name))] = true
	}
}

// editSome gives the next sweep something to do.
func (b *killBench) editSome() {
	for _, name := range []string{"a", "b", "c"} {
		if rand.Intn(2) == 0 {
			b.edit(name, []Verdict{Promote, Promote, Promote, Hold, Error}[rand.Intn(5)])
		}
	}
}

// check holds the state after a kill against what may be there.
func (b *killBench) check() {
	b.t.Helper()
	if _, err := Last(b.State); err != nil {
		b.t.Fatalf("kill %d: last.json: %v", b.kills, err)
	}
	remembered := statesOf(b.State)
	for name := range b.want {
		known, err := remembered(name)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				b.t.Fatalf("kill %d: %s: %v", b.kills, name, err)
			}
			continue
		}
		tree := known.Canonical.Tree
		if tree == b.canonical[name] {
			continue
		}
		b.canonical[name] = tree
		if !b.passing[tree] {
			b.t.Fatalf("kill %d: %s: canonical is a tree whose tests do not pass: %+v", b.kills, name, known)
		}
		var r *record.Result
		f, err := b.State.Open(state.Logs, name)
		if err == nil {
			r, err = record.ReadResult(f, filepath.Base(known.Last.Report))
			f.Close()
		}
		if err != nil || known.Last.Verdict != Promote || !r.About().Complete || r.Results.Summary.Failed > 0 || r.Results.Summary.Passed == 0 {
			b.t.Fatalf("kill %d: %s: canonical without a complete passing result: %+v, %+v, %v", b.kills, name, known, r, err)
		}
	}
}

// end makes a sweep that nobody kills: each recipe gets its verdict.
func (b *killBench) end() {
	b.t.Helper()
	results, err := Run(context.Background(), b.Options, func(Event) {})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range results {
		if v := b.want[r.Recipe]; r.Verdict != v && (v != Promote || r.Verdict != Skip) {
			b.t.Errorf("after kill %d: %s %s (%s), want %s", b.kills, r.Recipe, r.Verdict, r.Why, v)
		}
		known := b.known(r.Recipe)
		if tree := hashOf(b.t, filepath.Join(b.Recipes, r.Recipe)); (known.Canonical.Tree == tree) != (b.want[r.Recipe] == Promote) {
			b.t.Errorf("after kill %d: %s: canonical %+v, tree %s", b.kills, r.Recipe, known.Canonical, tree)
		}
	}
	b.none("after kill " + strconv.Itoa(b.kills))
	if notes, _ := filepath.Glob(b.State.Path(state.Running, "*")); len(notes) > 0 {
		b.t.Errorf("after kill %d: left %q", b.kills, notes)
	}
	b.check()
}

// none is an error for each process of a run that is there.
func (b *killBench) none(when string) {
	b.t.Helper()
	if left := b.processes(); len(left) > 0 {
		b.t.Fatalf("%s, processes are left: %q", when, left)
	}
}

// Sweeps are killed. The runs that a killed sweep leaves end by themselves.
func TestKilledSweeps(t *testing.T) {
	const kills = 500
	b := newKillBench(t)
	b.Jobs = 2
	at := map[string]int{}
	for b.kills < kills {
		b.editSome()
		s := startSweep(t, b.Options)
		for n := rand.Intn(10); n > 0 && s.line != "over" && s.scan(); n-- {
		}
		time.Sleep(time.Duration(rand.Intn(8000)) * time.Microsecond)
		s.kill()
		last := s.line
		for s.scan() { // what it said before it died
			last = s.line
		}
		if !s.wait() {
			t.Fatal("a sweep was not killed")
		}
		if last == "over" { // too late
			b.check()
			continue
		}
		b.kills++
		first, _, _ := strings.Cut(last, " ")
		at[first]++
		b.check()
		b.waitForNone()
		if b.kills%20 == 0 {
			b.end()
		}
	}
	t.Logf("%d sweeps killed; the last thing that they said: %v", b.kills, at)
}

// Runs are killed: the main process of each, which is the recipe's pytest.
func TestKilledRuns(t *testing.T) {
	killRuns(t, 200, func(run int) int { return run })
}

// Supervisors are killed, the processes between the sweep and the runs.
func TestKilledSupervisors(t *testing.T) {
	killRuns(t, 100, func(run int) int {
		return parentOf(run)
	})
}

// killRuns makes sweeps in this process and kills a process of each run, until
// so many were hit. victim chooses it, by the number of the run's main process.
func killRuns(t *testing.T, kills int, victim func(run int) int) {
	b := newKillBench(t)
	b.Force = true
	all := 0
	for b.kills < kills {
		b.editSome()
		var killer sync.WaitGroup
		var over context.CancelFunc
		results, err := Run(context.Background(), b.Options, func(e Event) {
			if e.Result != nil {
				if left := b.left(); len(left) > 0 {
					t.Errorf("after kill %d, %s has its verdict, and left are %q", b.kills, e.Recipe, left)
				}
				over()
				killer.Wait()
				return
			}
			note := filepath.Join(filepath.Dir(b.Program), "control", e.Recipe+".pid")
			_ = os.Remove(note)
			ctx, cancel := context.WithCancel(context.Background())
			over = cancel
			delay := time.Duration(rand.Intn(5000)) * time.Microsecond
			killer.Go(func() { b.kill(ctx, note, victim, delay) })
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			all++
			switch {
			case r.Verdict == Cut:
				b.kills++
			case r.Verdict != b.want[r.Recipe]:
				t.Fatalf("kill %d: %s %s (%s), want CUT or %s", b.kills, r.Recipe, r.Verdict, r.Why, b.want[r.Recipe])
			}
		}
		b.check()
		if all%20 == 0 {
			b.Force = false
			b.end()
			b.Force = true
		}
	}
	b.Force = false
	b.end()
	t.Logf("%d of %d runs were hit; each had the verdict CUT, the others their own", b.kills, all)
}

// kill waits until a run notes its number, and a little longer, and kills.
func (b *killBench) kill(ctx context.Context, note string, victim func(run int) int, delay time.Duration) {
	pid := 0
	waitFor(func() bool {
		data, _ := os.ReadFile(note)
		line, whole := strings.CutSuffix(string(data), "\n")
		pid, _ = strconv.Atoi(line)
		return whole || ctx.Err() != nil
	})
	// A number may be another process's a moment later: first hold it, then look.
	if pid = victim(pid); pid <= 1 || pid == os.Getpid() {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); !bytes.Contains(args, []byte(filepath.Dir(b.Program))) {
		return
	}
	time.Sleep(delay)
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// parentOf reads proc(5), /proc/PID/stat: "PID (NAME) STATE PARENT …".
func parentOf(pid int) (parent int) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(data), ") ")
	if fields := strings.Fields(after); len(fields) > 1 {
		parent, _ = strconv.Atoi(fields[1])
	}
	return parent
}

// A sweep and the supervisors of its runs are killed at once, so nothing is left
// that would end the runs: the next sweep does.
func TestKilledBoth(t *testing.T) {
	const kills = 50
	b := newBenchIn(t, fastDir(t))
	dir := filepath.Dir(b.Program)
	for n := range kills {
		note := filepath.Join(dir, "a.pid")
		_ = os.Remove(note)
		b.recipe("a", `for n in 1 2 3; do setsid bash -c 'trap "" TERM HUP; exec -a '"$PWD"'/left sleep 1000' & done
until [ "$(grep -al "^$PWD/left" /proc/[0-9]*/cmdline | wc -l)" = 3 ]; do :; done 2>/dev/null
echo $PPID >`+note+`; exec sleep 1000`)
		s := startSweep(t, b.Options)
		run := 0
		waitFor(func() bool {
			data, _ := os.ReadFile(note)
			run, _ = strconv.Atoi(strings.TrimSpace(string(data)))
			return bytes.HasSuffix(data, []byte("\n"))
		})
		// The run waits, so neither number is another's. Both are stopped, so that the kill
		// of the first does not bring the second to act.
		both := []int{s.cmd.Process.Pid, parentOf(run)}
		for _, pid := range both {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
		_ = syscall.Kill(both[n%2], syscall.SIGKILL)
		_ = syscall.Kill(both[1-n%2], syscall.SIGKILL)
		s.wait()
		waitFor(func() bool { return len(b.left()) == 3 })
		b.recipe("a", "exit 0 # "+strconv.Itoa(n))
		b.want("the next sweep", "a PROMOTE")
		if left := b.left(); len(left) > 0 {
			t.Fatalf("kill %d: left after the next sweep: %q", n, left)
		}
	}
	t.Logf("%d sweeps killed with their supervisors; the next sweep ended what they left", kills)
}

// A sweep that was killed leaves nothing running: its run is told to end, and
// if that ignores it, the next sweep ends it.
func TestKilledSweepsRuns(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	b.recipe("told", "trap 'touch "+dir+"/told; exit' TERM; touch "+dir+"/started-told; while :; do sleep 0.05; done")
	b.recipe("deaf", "trap '' TERM; touch "+dir+"/started-deaf; while :; do sleep 0.05; done")
	b.Jobs = 2
	s := startSweep(t, b.Options)
	there := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	waitFor(func() bool { return there("started-told") && there("started-deaf") })
	s.kill()
	s.wait()
	waitFor(func() bool { return there("told") })

	for _, name := range []string{"told", "deaf"} {
		b.recipe(name, "exit 0")
	}
	b.want("the next sweep", "deaf PROMOTE", "told PROMOTE")
	b.waitForNone() // the killed sweep's supervisors end what is left
	if left, _ := filepath.Glob(filepath.Join(string(b.State), "sweep/running/*")); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
