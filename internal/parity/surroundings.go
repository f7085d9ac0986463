package parity

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cc-ci-run/internal/exec"
)

// compareSurroundings compares what the machine looks like to two runs. Records of an
// older cc-ci-run do not have this, which is not a drift.
func compareSurroundings(a, b Run) []Finding {
	x, y := a.Surroundings, b.Surroundings
	if x == nil || y == nil {
		return []Finding{found(Declared, "surroundings", recorded(x != nil), recorded(y != nil), "not known for one of them: an older cc-ci-run did not record namespaces, limits, resolver and CA files")}
	}
	var list []Finding
	drift := func(what, one, other, why string) { list = append(list, found(Drift, what, one, other, why)) }
	for _, name := range names(x.Namespaces, y.Namespaces) {
		if name == "mnt" {
			list = append(list, compareMounts(a, b))
		} else {
			list = append(list, compareNamespace(name, x, y))
		}
	}
	drift("root directory", x.Root, y.Root, "one of them runs in another root: by RootDirectory= of its unit, a container or chroot")
	drift("hostname", x.Hostname, y.Hostname, "set for one of them in a namespace of its own, or changed between the two runs")
	list = append(list, compareCgroups(a, b)...)
	drift("security label", x.Label, y.Label, "AppArmor or SELinux allows a test something else: another profile or context, set by the unit or container")
	drift("write and execute", allowed(x.WriteExecute), allowed(y.WriteExecute), "set for one of them by MemoryDenyWriteExecute= of its unit: a browser does not start there")
	if a.Look == nil || b.Look == nil { // else compareLooks has their contents
		for _, path := range names(x.Files, y.Files) {
			drift(path+", content", x.Files.Get(path), y.Files.Get(path), "another file, or written anew between the two runs: `parity --live` compares what two runs of now find")
		}
	}
	return append(list, compareFree(x.Free, y.Free)...)
}

// found is a Finding that is identical if both sides are the same.
func found(otherwise Parity, what, a, b, why string) Finding {
	if a == b {
		return Finding{Identical, what, a, b, ""}
	}
	return Finding{otherwise, what, a, b, why}
}

// A namespace of a record, see exec.Surroundings, and what is in it, as far as the record
// has that.
type namespace struct{ value, inside string }

func (n namespace) own() bool      { return n.value == exec.Own }
func (n namespace) ofInit() bool   { return strings.HasPrefix(n.value, "init ") }
func (n namespace) number() string { return strings.TrimPrefix(n.value, "init ") }

// compare gives Identical for the same namespace, Declared for two with the same in
// them, as two starts of a unit have, and Drift. The same number alone is not the same
// namespace: the kernel gives a number again.
func (n namespace) compare(other namespace) Parity {
	switch {
	case n.own() || other.own() || n.value == "" || other.value == "":
		if n.value == other.value {
			return Identical
		}
	case n.inside == other.inside && n.number() == other.number():
		return Identical
	case n.inside == other.inside && n.ofInit() == other.ofInit():
		return Declared
	}
	return Drift
}

func (n namespace) String() string {
	text := "another, " + n.number()
	switch {
	case n.own():
		return "the machine's own"
	case n.value == "":
		return "cannot be read"
	case n.ofInit():
		text = "the container's, " + n.number()
	}
	if n.inside != "" {
		text += ": " + n.inside
	}
	return text
}

// compareNamespace compares two namespaces but for mnt.
func compareNamespace(name string, a, b *exec.Surroundings) Finding {
	with := func(s *exec.Surroundings) namespace {
		n := namespace{s.Namespaces.Get(name), ""}
		switch name {
		case "net":
			n.inside = strings.Join(s.Interfaces, " ")
		case "time":
			n.inside = s.Clocks
		case "user":
			n.inside = s.UserMap
		case "uts":
			n.inside = s.Hostname
		}
		return n
	}
	x, y := with(a), with(b)
	f := Finding{x.compare(y), "namespace " + name, x.String(), y.String(), whyNamespace[name]}
	switch {
	case f.Verdict == Identical:
		f.Why = ""
	case f.Verdict == Declared && name == "net" && strings.TrimSuffix(x.inside, " (down)") != "lo":
		f.Verdict = Drift // with an interface besides lo, two networks have two addresses
	case f.Verdict == Declared:
		f.Why = "each has one of its own, with the same in it"
	}
	return f
}

// whyNamespace says what another namespace means to a test.
var whyNamespace = map[string]string{
	"cgroup": "a container: a test sees other cgroups",
	"ipc":    "PrivateIPC= of a unit, or a container: shared memory and message queues of one are not there for the other",
	"net":    "PrivateNetwork= or NetworkNamespacePath= of a unit, or a container: a test reaches other hosts and ports",
	"pid":    "PrivatePIDs= of a unit, or a container: a test sees other processes",
	"time":   "a container: another clock since boot",
	"user":   "PrivateUsers= of a unit, or a container: a user's number means another user, and root is not root",
	"uts":    "ProtectHostname= of a unit, or a container: another hostname can be set",
}

// compareMounts compares the mount namespaces by the mounts that differ from those of
// process 1. The harness's units have a namespace, with the mounts of ProtectHome= and
// ProtectSystem=, and a person has none: that much is declared.
func compareMounts(a, b Run) Finding {
	with := func(r Run) namespace {
		return namespace{r.Surroundings.Namespaces.Get("mnt"), strings.Join(r.Surroundings.Mounts, ", ")}
	}
	x, y := with(a), with(b)
	f := Finding{x.compare(y), "namespace mnt", x.String(), y.String(), ""}
	switch {
	case f.Verdict == Declared:
		f.Why = "each has one of its own, with the same mounts"
	case f.Verdict == Drift && (ofPerson(a, x) && protected(b) || ofPerson(b, y) && protected(a)):
		f.Verdict, f.Why = Declared, "ProtectHome= and ProtectSystem= of the units: tests find no homes there, and cannot write to the system"
	case f.Verdict == Drift:
		f.Why = "PrivateTmp=, ProtectHome=, … of a unit, or a container: a test finds other files at these paths"
	}
	return f
}

// ofPerson says that a run is a person's, in no namespace of its own.
func ofPerson(r Run, n namespace) bool {
	return r.Invoker.Name == "manual" && (n.own() || n.ofInit())
}

// protected says that a run's differing mounts are nothing but those of ProtectHome=yes
// and ProtectSystem=full, which nix/modules/harness.nix sets.
func protected(r Run) bool {
	for _, m := range r.Surroundings.Mounts {
		point, how, _ := strings.Cut(m, ": ")
		below := func(dir string) bool { return point == dir || strings.HasPrefix(point, dir+"/") }
		var dirs []string
		switch how {
		case "inaccessible":
			dirs = []string{"/home", "/root", "/run/user"}
		case "read-only":
			dirs = []string{"/boot", "/efi", "/etc", "/usr"}
		}
		if !slices.ContainsFunc(dirs, below) {
			return false
		}
	}
	return len(r.Surroundings.Mounts) > 0
}

// enoughTasks is a limit of processes and threads that no test reaches.
const enoughTasks = 1024

// compareCgroups compares the cgroups' effective limits.
func compareCgroups(a, b Run) []Finding {
	var list []Finding
	x, y := a.Surroundings.Cgroup, b.Surroundings.Cgroup
	none := func(limit string) string {
		if limit == "" {
			return "none"
		}
		return limit
	}
	for _, name := range names(x, y) {
		f := found(Drift, "cgroup limit "+name, none(x.Get(name)), none(y.Get(name)), "set for one of them by its unit, slice or container")
		if f.Verdict == Drift && name == "pids.max" && (a.Invoker.Name == "manual" || b.Invoker.Name == "manual") && enough(f.A) && enough(f.B) {
			f.Verdict, f.Why = Declared, "systemd gives sessions and units other limits of tasks; both are enough"
		}
		list = append(list, f)
	}
	if len(list) == 0 {
		list = append(list, Finding{Identical, "cgroup limits", "none", "none", ""})
	}
	return list
}

func enough(tasks string) bool {
	var n float64
	_, err := fmt.Sscan(tasks, &n)
	return tasks == "none" || err == nil && n >= enoughTasks
}

func allowed(refused string) string {
	if refused == "" {
		return "allowed"
	}
	return refused
}

// What is to be free on a file system, so that a test can write.
const (
	wantedBytes  = 1 << 30
	wantedInodes = 10_000
)

// compareFree compares what is left on the file systems, which always differs a
// little: only too little for one of the two is a drift.
func compareFree(a, b []exec.Free) []Finding {
	var list []Finding
	for _, x := range a {
		i := slices.IndexFunc(b, func(f exec.Free) bool { return f.Name == x.Name })
		if i < 0 {
			continue
		}
		y := b[i]
		f := found(Drift, "free space of "+x.Name, room(x), room(y), "too little for one of them: make room, or give both the same file system")
		if f.Verdict == Drift && room(x) != roomy && room(y) != roomy {
			f.Verdict, f.Why = Declared, "too little for both: make room"
		}
		list = append(list, f)
	}
	return list
}

const roomy = "enough"

func room(f exec.Free) string {
	switch {
	case f.Bytes < wantedBytes:
		return fmt.Sprintf("%d MiB", f.Bytes>>20)
	case f.Files > 0 && f.Inodes < wantedInodes:
		return fmt.Sprintf("%d files", f.Inodes)
	}
	return roomy
}

// compareClocks compares how far the clocks of two probes are from the clock of the
// process that started both.
func compareClocks(a, b Run) []Finding {
	if !a.Probe || !b.Probe {
		return nil
	}
	text := func(d time.Duration) string {
		switch {
		case d < 0:
			return "slow by " + (-d).String()
		case d > 0:
			return "fast by " + d.String()
		}
		return "right"
	}
	return []Finding{found(Drift, "clock", text(a.Clock), text(b.Clock), "it runs on another machine, or with another clock: set both by NTP")}
}

// compareLooks compares the closer looks of two probes.
func compareLooks(a, b Run) []Finding {
	if !a.Probe || !b.Probe {
		return nil
	}
	if a.Look == nil || b.Look == nil {
		known := map[bool]string{true: "none", false: "done"}
		return []Finding{found(Declared, "closer look", known[a.Look == nil], known[b.Look == nil], "the cc-ci-run of one of them is older, and has none")}
	}
	list := []Finding{found(Drift, "Landlock domains", a.Look.Landlock, b.Look.Landlock, "a sandbox around one of them forbids a test some files or ports")}
	same := 0
	for _, path := range sortedKeys(a.Look.Files, b.Look.Files) {
		x, y := a.Look.Files[path], b.Look.Files[path]
		if x == y {
			same++
			continue
		}
		list = append(list, Finding{Drift, path + ", content", short(x), short(y), "another file on the host under the same name"})
	}
	n := fmt.Sprintf("%d files", same)
	return append(list, Finding{Identical, "contents of the host's files", n, n, ""})
}

func short(digest string) string {
	if digest == "" {
		return "not looked at"
	}
	return fmt.Sprintf("%.16s", digest)
}
