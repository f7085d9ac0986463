package parity

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/env"
	ccexec "cc-ci-run/internal/exec"
	"cc-ci-run/internal/mounttest"
	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// With these variables the test binary is not the tests: it writes the record of a run,
// after it has refused itself memory that is writable and executable.
const (
	recordTo     = "CC_CI_RUN_TEST_RECORD"
	writeExecute = "CC_CI_RUN_TEST_MDWE"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(recordTo)
	if dir == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(writeExecute) != "" {
		os.Unsetenv(writeExecute)
		err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
		if err == nil {
			err = unix.Exec("/proc/self/exe", os.Args, os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	p := &env.Plan{Set: []string{"SSL_CERT_FILE=" + bundle}, HostPaths: []string{bundle}}
	invoker := env.Invoker{Name: os.Args[1]}
	given, _ := p.Environment([]string{"HOME=/"}, invoker.Name)
	r := record.New(time.Now(), p, given, nil, invoker, "script", "/dev/null", nil, false)
	if err := r.Write(state.Dir(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const bundle = "/etc/ssl/certs/ca-certificates.crt"

// ran is a real run: of the test binary, by a shell script that starts it as "$@".
func ran(t *testing.T, invoker, script string) Run {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "parity") // whatever the script does to /tmp
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, _ := os.Executable()
	copied := filepath.Join(dir, "self")
	data, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(copied, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", script, "sh", copied, invoker)
	cmd.Env = append(os.Environ(), recordTo+"="+dir, "D="+dir, "CA="+bundle)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("not possible here: %v: %s", err, out)
	}
	r, _, err := record.Newest(state.Dir(dir), invoker, "")
	if err != nil {
		t.Fatal(err)
	}
	return Run{Record: r, Environment: &toolset.Manifest{}}
}

// inMounts is a script in a mount namespace of its own, after some commands.
func inMounts(commands string) string {
	return `exec unshare -m sh -ec '` + commands + `; exec "$@"' sh "$@"`
}

// inCgroup is a script in a new cgroup of a version-1 controller with a limit, or of
// version 2.
func inCgroup(controller, v1, file, value string) string {
	return `new=/sys/fs/cgroup/` + controller + `/parity$$ file=` + v1 + `
[ -d /sys/fs/cgroup/` + controller + ` ] || { new=/sys/fs/cgroup/parity$$ file=` + file + `; echo +` + controller + ` >/sys/fs/cgroup/cgroup.subtree_control; }
mkdir $new && mkdir $new/below
echo ` + value + ` >$new/$file
(echo 0 >$new/below/cgroup.procs; exec "$@") && status=0 || status=1
rmdir $new/below $new
exit $status`
}

// A run in other surroundings is a drift, by name, and a second run in the same ones is
// none. Each run is a real one.
func TestSurroundings(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to make namespaces: run the test as root")
	}
	unlock, err := mounttest.Lock("../..")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	const plain = `exec "$@"`
	own := ran(t, "systemd", plain)
	for _, row := range []struct {
		name, script string
		what         string // the finding
		want         string // a regular expression of its B
		also         string // other findings that are drifts as well
	}{
		{"the same", plain, "namespace mnt", "^the machine's own|^the container's", ""},
		{"mounts", inMounts(":"), "namespace mnt", `^another, \d+$`, ""},
		{"an empty home", `exec unshare -nm sh -ec 'mount -t tmpfs none /home; exec "$@"' sh "$@"`, "namespace mnt", `^another, \d+: /home: tmpfs none / rw`, "namespace net"},
		{"nothing mounted", inMounts(`mount --bind /usr /srv; mount -t tmpfs none /srv`), "namespace mnt", `: /srv: tmpfs`, ""},
		{"read-only", inMounts(`mount --bind /usr /usr; mount -o remount,bind,ro /usr`), "namespace mnt", `: /usr: read-only$`, ""},
		{"a bind of the same", inMounts(`mount --bind /usr /usr`), "namespace mnt", `^another, \d+$`, ""},
		{"network", `exec unshare -n "$@"`, "namespace net", `^another, \d+: lo \(down\)$`, ""},
		{"network with lo", `exec unshare -n sh -c 'ip link set lo up; exec "$@"' sh "$@"`, "namespace net", `^another, \d+: lo$`, ""},
		{"an overlay", inMounts(`mount -t overlay -o lowerdir=/usr:/etc ov /mnt`), "namespace mnt", `: /mnt: overlay ov / rw,relatime \(.*lowerdir=/usr:/etc.*\)$`, ""},
		{"hostname", `exec unshare -u sh -c 'hostname other; exec "$@"' sh "$@"`, "hostname", "^other$", "namespace uts"},
		{"hostname space", `exec unshare -u "$@"`, "namespace uts", `^another, \d+: .`, ""},
		{"ipc", `exec unshare -i "$@"`, "namespace ipc", `^another, \d+$`, ""},
		{"processes", `exec unshare -p -f "$@"`, "namespace pid", `^another, \d+$`, ""},
		{"a container", `exec unshare -p -f --mount-proc -m -n -u -i "$@"`, "namespace pid", `^the container's, \d+$`, "namespace ipc|namespace mnt|namespace net|namespace uts"},
		{"cgroups", `exec unshare -C "$@"`, "namespace cgroup", `^another, \d+$`, ""},
		{"clock since boot", `exec unshare -T --boottime 86400 "$@"`, "namespace time", `^another, \d+: .*boottime 86400`, ""},
		{"users", `exec unshare -r "$@"`, "namespace user", `^another, \d+: 0 0 1; 0 0 1$`, "process groups|process capabilities"},
		{"CA bundle", inMounts(`head -c 20000 $CA >$D/ca; mount --bind $D/ca $CA`), bundle + ", content", `^20000 bytes`, "namespace mnt"},
		{"resolver", inMounts(`echo nameserver 192.0.2.1 >$D/r; mount --bind $D/r /etc/resolv.conf`), "/etc/resolv.conf, content", `^21 bytes, sum`, "namespace mnt"},
		{"hosts", inMounts(`echo 192.0.2.1 example.org >$D/r; mount --bind $D/r /etc/hosts`), "/etc/hosts, content", `^22 bytes, sum`, "namespace mnt"},
		{"little room", inMounts(`mount -t tmpfs -o size=1m none /tmp`), "free space of TMPDIR", `^1 MiB$`, "namespace mnt"},
		{"few files", inMounts(`mount -t tmpfs -o nr_inodes=100,size=2g none /tmp`), "free space of TMPDIR", `^\d\d files$`, "namespace mnt"},
		{"no executable memory", writeExecute + `=1 exec "$@"`, "write and execute", "^refused$", ""},
		{"memory", inCgroup("memory", "memory.limit_in_bytes", "memory.max", "1073741824"), "cgroup limit memory.max", "^1073741824$", ""},
		{"tasks", inCgroup("pids", "pids.max", "pids.max", "500"), "cgroup limit pids.max", "^500$", ""},
		{"processors", inCgroup("cpu", "cpu.cfs_quota_us", "cpu.max", "50000"), "cgroup limit cpu.max", "^0.5$", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := ran(t, "systemd", row.script)
			want := Drift
			if row.script == plain {
				want = Identical
			}
			drifts(t, Compare(own, b), row.what, row.want, want, row.also)
			if strings.Contains(row.script, "$D") {
				return // each run makes the file anew
			}
			for _, f := range Compare(b, ran(t, "systemd", row.script)) {
				if f.Verdict == Drift {
					t.Errorf("again: %+v", f)
				}
			}
		})
	}
}

// drifts finds a finding with its verdict, and no drift but that and others.
func drifts(t *testing.T, list []Finding, what, b string, verdict Parity, others string) {
	t.Helper()
	known := strings.Split(others, "|")
	there := false
	for _, f := range list {
		if f.What == what {
			there = true
			if f.Verdict != verdict || !regexp.MustCompile(b).MatchString(f.B) || (f.Why == "") != (verdict == Identical) {
				t.Errorf("%+v, want %s, %s", f, verdict, b)
			}
		} else if f.Verdict == Drift && !slices.Contains(known, f.What) {
			t.Errorf("also %+v", f)
		}
	}
	if !there && verdict != Identical { // a limit that neither has is no finding
		t.Errorf("no %s", what)
	}
}

// What is declared, and what old records lack.
func TestCompareSurroundings(t *testing.T) {
	hidden := []string{"/boot/efi: read-only", "/etc: read-only", "/home: inaccessible", "/root: inaccessible", "/run/user: inaccessible", "/usr: read-only"}
	type pairs = ccexec.Pairs
	in := func(invoker, mnt string, mounts []string, tasks string) Run {
		s := &ccexec.Surroundings{Namespaces: pairs{{Name: "mnt", Value: mnt}}, Mounts: mounts}
		if tasks != "" {
			s.Cgroup = pairs{{Name: "pids.max", Value: tasks}}
		}
		return Run{Record: &record.Record{Invoker: env.Invoker{Name: invoker}, Surroundings: s}, Environment: &toolset.Manifest{}}
	}
	old := Run{Record: &record.Record{}, Environment: &toolset.Manifest{}}
	for _, row := range []struct {
		name string
		a, b Run
		what string
		want Parity
	}{
		{"a person and a unit of the harness", in("manual", "own", nil, ""), in("systemd", "7", hidden, ""), "namespace mnt", Declared},
		{"the same in a container", in("manual", "init 5", nil, ""), in("systemd", "7", hidden, ""), "namespace mnt", Declared},
		{"a unit and a unit without", in("drone", "own", nil, ""), in("systemd", "7", hidden, ""), "namespace mnt", Drift},
		{"a person in a sandbox", in("manual", "7", hidden, ""), in("systemd", "own", nil, ""), "namespace mnt", Drift},
		{"two units of the harness", in("drone", "6", hidden, ""), in("systemd", "7", hidden, ""), "namespace mnt", Declared},
		{"one with PrivateTmp=", in("drone", "6", hidden, ""), in("systemd", "7", append([]string{"/tmp: ext4 /dev/vda1 /tmp/systemd-private/tmp rw"}, hidden...), ""), "namespace mnt", Drift},
		{"a person, and one with PrivateTmp=", in("manual", "own", nil, ""), in("systemd", "7", append([]string{"/tmp: ext4 /dev/vda1 /tmp/systemd-private/tmp rw"}, hidden...), ""), "namespace mnt", Drift},
		{"one namespace", in("drone", "7", hidden, ""), in("systemd", "init 7", hidden, ""), "namespace mnt", Identical},
		{"a number that the kernel gave again", in("drone", "7", hidden, ""), in("systemd", "7", []string{"/home: inaccessible"}, ""), "namespace mnt", Drift},
		{"limits of sessions and units", in("manual", "own", nil, "10813"), in("systemd", "own", nil, "4915"), "cgroup limit pids.max", Declared},
		{"limits of two units", in("drone", "own", nil, "10813"), in("systemd", "own", nil, "4915"), "cgroup limit pids.max", Drift},
		{"a limit that is reached", in("manual", "own", nil, ""), in("systemd", "own", nil, "100"), "cgroup limit pids.max", Drift},
		{"an old record", in("manual", "own", nil, ""), old, "surroundings", Declared},
		{"two old records", old, old, "surroundings", Identical},
	} {
		t.Run(row.name, func(t *testing.T) {
			drifts(t, compareSurroundings(row.a, row.b), row.what, ".", row.want, "")
		})
	}
	for _, f := range compareSurroundings(old, in("manual", "7", hidden, "1")) {
		if f.Verdict == Drift || f.A != "not recorded" {
			t.Errorf("an old record: %+v", f)
		}
	}
}

// A clock that the probe cannot have read is told.
func TestAhead(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	for now, want := range map[int64]time.Duration{100: 0, 105: 0, 110: 0, 40: -time.Minute, 170: time.Minute} {
		if got := ahead(at(now), at(100), at(110)); got != want {
			t.Errorf("%d: %v, want %v", now, got, want)
		}
	}
	one, other := Run{Probe: true}, Run{Probe: true, Clock: time.Minute}
	drifts(t, compareClocks(one, one), "clock", "right", Identical, "")
	drifts(t, compareClocks(one, other), "clock", "fast by 1m0s", Drift, "")
}

// Two looks at one place are the same, and one of a place with another file is not.
func TestLooks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	look := func(content string) Run {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		l := LookAround([]string{file, "/dev/null", "/nonexistent"})
		return Run{Probe: true, Look: &l}
	}
	a := look("a")
	drifts(t, compareLooks(a, look("a")), "contents of the host's files", "files", Identical, "")
	drifts(t, compareLooks(a, look("b")), file+", content", "^[0-9a-f]{16}$", Drift, "")
	drifts(t, compareLooks(a, Run{Probe: true}), "closer look", "none", Declared, "")
	if a.Look.Files["/nonexistent"] != "missing" || a.Look.Files["/dev/null"] != "" {
		t.Errorf("%v", a.Look.Files)
	}
}
