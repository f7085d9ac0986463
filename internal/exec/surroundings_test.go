package exec

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Which mounts differ: not what comes and goes with containers, and not a mount that
// shows what is there anyway.
func TestDiffer(t *testing.T) {
	const root = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
	const home = "40 22 254:2 / /home rw,relatime shared:9 - ext4 /dev/vdb rw\n"
	for name, row := range map[string]struct{ mine, one, want string }{
		"the same, by other numbers": {strings.ReplaceAll(root+home, "shared", "master"), root + home, ""},
		"an empty home":              {root + "50 22 0:40 / /home rw - tmpfs none rw,size=4k\n", root, "/home: tmpfs none / rw (rw,size=4k)"},
		"over another":               {root + home + "50 40 0:40 / /home rw - tmpfs none rw\n", root + home, "/home: tmpfs none / rw (rw)"},
		"not mounted":                {root, root + home, "/home: not mounted"},
		"hidden":                     {root + "50 22 0:25 /systemd/inaccessible/dir /home ro,nosuid master:2 - tmpfs tmpfs rw,mode=755\n", root, "/home: inaccessible"},
		"read-only":                  {root + "50 22 254:1 /usr /usr ro,relatime - ext4 /dev/vda1 rw\n", root, "/usr: read-only"},
		"a bind of the same":         {root + "50 22 254:1 /usr /usr rw,relatime - ext4 /dev/vda1 rw\n", root, ""},
		"a bind of another":          {root + "50 22 254:1 /srv/ca /etc/ssl rw,relatime - ext4 /dev/vda1 rw\n", root, "/etc/ssl: ext4 /dev/vda1 /srv/ca rw,relatime"},
		"no devices":                 {strings.ReplaceAll(root, "rw,relatime", "rw,nodev,relatime"), root, "/: ext4 /dev/vda1 / rw,nodev,relatime"},
		"a read-only file system":    {strings.ReplaceAll(root, " rw\n", " ro,x\n"), root, "/: ext4 /dev/vda1 / rw,relatime (ro)"},
		"PrivateTmp=":                {root + "50 22 254:1 /tmp/systemd-private-0a-nightly-sweep.service-Xy/tmp /tmp rw,relatime - ext4 /dev/vda1 rw\n", root, "/tmp: ext4 /dev/vda1 /tmp/systemd-private/tmp rw,relatime"},
		"a unit of systemd in a container": {
			root + "50 22 0:25 /host/inaccessible/dir /root ro,nosuid,nodev,noexec master:2 - tmpfs tmpfs rw,mode=755\n" +
				"51 22 0:25 /host/inaccessible/dir /run/credentials ro,nosuid,nodev,noexec master:2 - tmpfs tmpfs rw,mode=755\n" +
				"52 22 0:26 /.#proc-kmsg//deleted /proc/kmsg rw,nosuid,nodev - tmpfs tmpfs rw\n" +
				"53 22 254:1 /usr /usr ro,nosuid,relatime - ext4 /dev/vda1 rw\n" +
				"54 22 254:1 /var/lib/x /var/lib/x rw,nosuid,relatime - ext4 /dev/vda1 rw\n",
			root + "33 22 0:26 /.#proc-kmsg//deleted /proc/kmsg rw,nosuid,nodev - tmpfs tmpfs rw\n",
			"/root: inaccessible, /usr: read-only",
		},
		"hidden processes":        {root + "50 22 0:5 / /proc rw - proc proc rw,hidepid=invisible\n", root + "30 22 0:5 / /proc rw - proc proc rw\n", "/proc: proc proc / rw (rw,hidepid=invisible)"},
		"containers and sessions": {root, root + "60 22 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n61 22 0:51 / /run/user/1000 rw - tmpfs tmpfs rw\n", ""},
		"process 1 is hidden":     {root, "", "/: ext4 /dev/vda1 / rw,relatime"},
		"not mountinfo":           {"x\n1 2 3 - 4\n\n", root, "/: not mounted"},
	} {
		if got := strings.Join(differ(parseMounts(row.mine), parseMounts(row.one)), ", "); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
	many := root
	for i := range 100 {
		many += "50 22 0:40 / /m" + string(rune('A'+i)) + " rw - tmpfs none rw\n"
	}
	list := differ(parseMounts(many), parseMounts(root))
	others := differ(parseMounts(many+"50 22 0:40 / /zzz rw - tmpfs none rw\n"), parseMounts(root))
	if len(list) != maxMounts+1 || !strings.HasPrefix(list[maxMounts], "36 more, sum ") || others[maxMounts] == list[maxMounts] {
		t.Errorf("%d mounts: %q, %q", len(list), list, others[maxMounts:])
	}
}

// A limit is the smallest of a cgroup's and its ancestors', in either version.
func TestSmallest(t *testing.T) {
	dir := t.TempDir()
	for path, content := range map[string]string{
		"memory.max": "100\n", "a/memory.max": "max\n", "a/b/memory.max": "3000\n", "a/b/c/memory.max": "4000\n",
		"a/cpu.max": "max 100000\n", "a/b/cpu.max": "150000 100000\n",
		"a/cpu.cfs_quota_us": "50000\n", "a/cpu.cfs_period_us": "100000\n", "a/b/cpu.cfs_quota_us": "-1\n", "a/b/cpu.cfs_period_us": "100000\n",
		"a/b/memory.limit_in_bytes": "9223372036854771712\n",
	} {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		path, file string
		wholeTree  bool
		want       float64
	}{
		{"/a/b/c", "memory.max", true, 3000},
		{"/a", "memory.max", true, math.Inf(1)},
		{"/", "memory.max", true, math.Inf(1)},
		{"/", "memory.max", false, 100},       // of a cgroup namespace
		{"/outside", "memory.max", true, 100}, // of a container without one
		{"/a/b/c", "cpu.max", true, 1.5},
		{"/a/b", "cpu.cfs_quota_us", true, 0.5},
		{"/a/b", "memory.limit_in_bytes", true, math.Inf(1)},
		{"/a/b", "pids.max", true, math.Inf(1)},
	} {
		least := math.Inf(1)
		smallest(dir, row.path, row.wholeTree, func(dir int) {
			least = min(least, cgroupLimit(dir, row.file, make([]byte, 64)))
		})
		if least != row.want {
			t.Errorf("%s of %s: %v, want %v", row.file, row.path, least, row.want)
		}
	}
}

// The namespaces are those that ls shows.
func TestNamespaces(t *testing.T) {
	for _, n := range captureNamespaces() {
		link, err := os.Readlink("/proc/self/ns/" + n.Name)
		if err != nil {
			continue
		}
		number := strings.TrimSuffix(strings.TrimPrefix(link, n.Name+":["), "]")
		i := slices.IndexFunc(namespaces[:], func(k struct{ name, own string }) bool { return k.name == n.Name })
		if n.Value == Own && number != namespaces[i].own && n.Name != "mnt" && n.Name != "net" || n.Value != Own && strings.TrimPrefix(n.Value, "init ") != number {
			t.Errorf("%s: %q, and the kernel says %s", n.Name, n.Value, link)
		}
	}
}

// Each domain that the process enters is counted.
func TestLandlockDomains(t *testing.T) {
	before, err := LandlockDomains()
	if err != nil {
		t.Skipf("needs Landlock: %v", err)
	}
	if again, err := LandlockDomains(); err != nil || again != before {
		t.Errorf("%d domains and then %d, %v: looking has changed the process", before, again, err)
	}
	full := make(chan int)
	go func() {
		runtime.LockOSThread()
		_, _ = fillDomains() // this thread enters as many as it may
		n, _ := fillDomains()
		full <- n
	}()
	if n := <-full; n != maxDomains {
		t.Errorf("%d domains, want %d", n, maxDomains)
	}
}

// A FIFO or device in the place of a file does not hold a run up.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	fifo, small, large := filepath.Join(dir, "fifo"), filepath.Join(dir, "small"), filepath.Join(dir, "large")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, make([]byte, maxSummed+1), 0o644); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 0, maxSummed)
	of := func(content string) string {
		if err := os.WriteFile(small, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return identity(small, buffer)
	}
	if a := of("nameserver 192.0.2.1\n"); a != of("nameserver 192.0.2.1\n") || a == of("nameserver 192.0.2.2\n") {
		t.Errorf("the same content, or another of the same length: %s", a)
	}
	for path, want := range map[string]string{fifo: "", "/dev/zero": "", dir: "", filepath.Join(dir, "none"): "", large: "4097 bytes, written "} {
		if got := identity(path, buffer); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
