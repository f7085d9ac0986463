package exec

import (
	"hash/fnv"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Surroundings are what the machine looks like to this process and to the child
// that it becomes: they are not the process's own state, and yet decide what a
// test finds. Two runs on one machine can have others: one is started in a
// container, or by a unit with ProtectHome=, with its own network or in a slice
// with limits.
//
// What cannot be read is "" or missing.
type Surroundings struct {
	// Namespaces are by the kernel's names (see namespaces(7)), each "own" for
	// the machine's own, "init N" for that of process 1 in a container, or "N"
	// for another, where N is the kernel's number, which it gives again once the
	// namespace is gone. For a process that may not look at process 1, "N" can
	// also be that of process 1.
	Namespaces Pairs  `json:"namespaces"`
	Hostname   string `json:"hostname"`
	Root       string `json:"root"` // its file system's ID and its inode, which chroot(2) changes
	// The next four are only of a namespace that is not the machine's own.
	Mounts     []string `json:"mounts"`        // that differ from those of process 1, see differingMounts
	Interfaces []string `json:"interfaces"`    // of the network, without those that docker makes for its containers
	UserMap    string   `json:"user_map"`      // /proc/self/uid_map and gid_map
	Clocks     string   `json:"clock_offsets"` // /proc/self/timens_offsets

	Cgroup Pairs  `json:"cgroup_limits"` // the cgroup's effective limits: the smallest of its own and its ancestors'
	Label  string `json:"label"`         // of the security module: AppArmor's profile, SELinux's context
	// WriteExecute is "refused" if no memory can be made executable that was
	// writable (PR_SET_MDWE), or "refused, not for children".
	WriteExecute string `json:"write_execute"`
	// Files are path -> which content it has (see identity), of the files that
	// decide which names a test can look up and which servers it trusts.
	Files Pairs `json:"files"`
	// Free is what is left on the file systems that a test writes to.
	Free []Free `json:"free"`
}

// Free is what is left on a file system.
type Free struct {
	Name   string `json:"name"`   // of what is there: TMPDIR, HOME or recipe
	Bytes  int64  `json:"bytes"`  // for users other than root
	Inodes int64  `json:"inodes"` // files that can be made; 0 where Files is
	Files  int64  `json:"files"`  // all inodes, 0 for a file system that does not count them
}

// Own is the value of a namespace that is the machine's own.
const Own = "own"

// The namespaces, sorted by their names, with the number that the machine's own has
// (PROC_*_INIT_INO of the kernel): for mnt and net since Linux 6.18. Those for children
// are none else: with another, no program can start a thread, and so none in Go.
var namespaces = [...]struct{ name, own string }{
	{"cgroup", "4026531835"},
	{"ipc", "4026531839"},
	{"mnt", "4026531832"},
	{"net", "4026531833"},
	{"pid", "4026531836"},
	{"time", "4026531834"},
	{"user", "4026531837"},
	{"uts", "4026531838"},
}

// Surround reads the surroundings of this process. files are those to read for
// Surroundings.Files, and places the directories for Surroundings.Free.
func Surround(cgroup string, files []string, places []Pair) *Surroundings {
	buffer := make([]byte, 0, maxSummed) // for one after the other
	s := &Surroundings{
		Namespaces:   captureNamespaces(),
		Root:         root(),
		Mounts:       []string{},
		Interfaces:   []string{},
		Label:        strings.TrimRight(procShort("/proc/self/attr/current", buffer), "\x00"),
		WriteExecute: writeExecute(),
		Files:        make(Pairs, 0, len(files)),
		Free:         make([]Free, 0, len(places)),
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		s.Hostname = unix.ByteSliceToString(name.Nodename[:])
	}
	s.Cgroup = cgroupLimits(cgroup, s.Namespaces.Get("cgroup") == Own, buffer)
	for _, n := range s.Namespaces {
		if n.Value == Own {
			continue
		}
		switch n.Name {
		case "mnt":
			if !strings.HasPrefix(n.Value, "init ") {
				s.Mounts = differingMounts()
			}
		case "net":
			s.Interfaces = interfaces(proc("/proc/self/net/dev", buffer))
		case "user":
			s.UserMap = mapping("/proc/self/uid_map", buffer) + "; " + mapping("/proc/self/gid_map", buffer)
		case "time":
			s.Clocks = mapping("/proc/self/timens_offsets", buffer)
		}
	}
	for _, path := range files {
		s.Files = append(s.Files, Pair{path, identity(path, buffer)})
	}
	for _, p := range places {
		var fsys unix.Statfs_t
		if unix.Statfs(p.Value, &fsys) == nil {
			s.Free = append(s.Free, Free{p.Name, int64(fsys.Bavail) * fsys.Frsize, int64(fsys.Ffree), int64(fsys.Files)})
		}
	}
	return s
}

func root() string {
	var fsys unix.Statfs_t
	var s unix.Stat_t
	if unix.Statfs("/", &fsys) != nil || unix.Stat("/", &s) != nil {
		return ""
	}
	// The ID of most file systems stays the same from boot to boot. tmpfs makes one
	// up at each mount, and overlay has the device's number.
	hex := func(n int32) string { return strconv.FormatUint(uint64(uint32(n)), 16) }
	id := hex(fsys.Fsid.Val[0]) + hex(fsys.Fsid.Val[1])
	if fsys.Type == unix.TMPFS_MAGIC || fsys.Type == unix.OVERLAYFS_SUPER_MAGIC {
		id = "type " + hex(int32(fsys.Type))
	}
	return id + " inode " + strconv.FormatUint(s.Ino, 10)
}

func captureNamespaces() Pairs {
	list := make(Pairs, 0, len(namespaces))
	isOwn := func(name string) bool { return list.Get(name) == Own }
	dir, err := unix.Open("/proc/self/ns", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return list
	}
	defer unix.Close(dir)
	for _, n := range namespaces {
		id := namespace(dir, n.name)
		value := id
		if id == n.own {
			value = Own
		}
		list = append(list, Pair{n.name, value})
	}
	// What has another number may still be process 1's. If that is the machine's
	// first process, so are its namespaces the machine's, though some have no
	// fixed number before Linux 6.18.
	machine := isOwn("pid") && isOwn("user")
	for i := range list {
		n := &list[i]
		if n.Value == Own || n.Value == "" || !ofProcessOne(n.Name, n.Value) {
			continue
		}
		if machine && (n.Name == "mnt" || n.Name == "net") {
			n.Value = Own
		} else {
			n.Value = "init " + n.Value
		}
	}
	return list
}

// namespace is the number of a namespace, "" for one that cannot be read.
func namespace(dir int, name string) string {
	var buffer [64]byte
	n, err := unix.Readlinkat(dir, name, buffer[:])
	if err != nil {
		return ""
	}
	link := string(buffer[:n]) // "mnt:[4026531832]"
	return strings.TrimSuffix(link[strings.IndexByte(link, '[')+1:], "]")
}

// ofProcessOne says whether a namespace is that of process 1. The kernel tells the
// number only to who may trace process 1, such as root; others may still compare
// what a namespace has to itself: its mounts and its files of /proc.
func ofProcessOne(name, id string) bool {
	if one := namespace(unix.AT_FDCWD, "/proc/1/ns/"+name); one != "" {
		return one == id
	}
	switch name {
	case "mnt":
		mine, one := firstMount("/proc/self/mountinfo"), firstMount("/proc/1/mountinfo")
		return mine != "" && mine == one
	case "net":
		var mine, one unix.Stat_t
		return unix.Stat("/proc/self/net/dev", &mine) == nil && unix.Stat("/proc/1/net/dev", &one) == nil && mine.Ino == one.Ino
	}
	return false
}

// firstMount is the first mount's number, which no mount of another namespace has.
func firstMount(path string) string {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	line := make([]byte, 16)
	n, err := unix.Read(fd, line)
	if err != nil {
		return ""
	}
	number, _, _ := strings.Cut(string(line[:n]), " ")
	return number
}

// mapping is a file of numbers in columns, in one line.
func mapping(path string, buffer []byte) string {
	var lines []string
	for line := range strings.Lines(proc(path, buffer)) {
		lines = append(lines, fold(line))
	}
	return strings.Join(lines, ", ")
}

// interfaces are the names in /proc/net/dev, without those that docker makes.
func interfaces(dev string) []string {
	list := []string{}
	for line := range strings.Lines(dev) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			if name = strings.TrimSpace(name); !strings.HasPrefix(name, "veth") {
				list = append(list, name+down(name))
			}
		}
	}
	return list
}

// down is " (down)" for an interface that is not up, as lo of a new network is not.
func down(name string) string {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return ""
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	if unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request) != nil || request.Uint16()&unix.IFF_UP != 0 {
		return ""
	}
	return " (down)"
}

func writeExecute() string {
	flags, err := unix.PrctlRetInt(unix.PR_GET_MDWE, 0, 0, 0, 0)
	switch {
	case err != nil || flags&unix.PR_MDWE_REFUSE_EXEC_GAIN == 0: // before Linux 6.3 nobody is refused
		return ""
	case flags&unix.PR_MDWE_NO_INHERIT != 0:
		return "refused, not for children"
	}
	return "refused"
}

// maxSummed is how large a file may be to be read at each start.
const maxSummed = 4 << 10

// identity says which content a file has: for a small one by a checksum; for a
// large one, such as a CA bundle, whose reading would slow the start, by when it was
// written, and which inode it is. The closer look of `parity --live` reads it all.
func identity(path string, buffer []byte) string {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFREG {
		return ""
	}
	size := strconv.FormatInt(s.Size, 10) + " bytes"
	if s.Size > maxSummed {
		return size + ", written " + strconv.FormatInt(s.Mtim.Nano(), 10) + ", inode " + strconv.FormatUint(s.Ino, 10)
	}
	fd, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return size + ", cannot be read"
	}
	defer unix.Close(fd)
	n, _ := unix.Read(fd, buffer[:cap(buffer)])
	sum := fnv.New64a()
	_, _ = sum.Write(buffer[:max(n, 0)])
	return size + ", sum " + strconv.FormatUint(sum.Sum64(), 16)
}
