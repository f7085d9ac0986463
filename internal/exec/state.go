package exec

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// State is the state of this process that a child inherits, for the run
// record. After [Prepare] it is what the child gets. Numbers in strings are
// as /proc/self/status has them.
type State struct {
	UID    string `json:"uid"` // real, effective, saved, file system
	GID    string `json:"gid"`
	Groups string `json:"groups"`
	// Capabilities are sets in hex, see capabilities(7).
	Capabilities   Capabilities `json:"capabilities"`
	NoNewPrivs     bool         `json:"no_new_privs"`
	Seccomp        string       `json:"seccomp"`         // 0 none, 1 strict, 2 filter
	SeccompFilters string       `json:"seccomp_filters"` // how many, "" before Linux 5.9
	Umask          string       `json:"umask"`
	SignalsIgnored string       `json:"signals_ignored"` // a set in hex, bit 0 is signal 1
	Nice           int          `json:"nice"`
	Inherited      Inherited    `json:"inherited"`
	Cgroup         string       `json:"cgroup"`
	// Limits are soft and hard limit by the kernel's names, with units
	// ("Max open files": "65536 65536 files").
	Limits Pairs `json:"limits"`
	// Terminals says whether descriptors 0, 1 and 2 are terminals.
	Terminals [3]bool `json:"terminals"`
}

// Pairs are names and values, sorted by name: a JSON object in a record. They
// are no map, as one has to be made and then sorted: in a start's time that
// shows.
type Pairs []Pair

// Pair is one of Pairs.
type Pair struct{ Name, Value string }

// Get is the value of a name, "" without it.
func (p Pairs) Get(name string) string {
	for _, pair := range p {
		if pair.Name == name {
			return pair.Value
		}
	}
	return ""
}

// String is how fmt writes a map with them.
func (p Pairs) String() string {
	list := make([]string, len(p))
	for i, pair := range p {
		list[i] = pair.Name + ":" + pair.Value
	}
	return "map[" + strings.Join(list, " ") + "]"
}

// Sorted puts them in order, each name once.
func (p Pairs) Sorted() Pairs {
	slices.SortFunc(p, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(p, func(a, b Pair) bool { return a.Name == b.Name })
}

// Capabilities are a process's capability sets, in hex.
type Capabilities struct {
	Inheritable string `json:"inheritable"`
	Permitted   string `json:"permitted"`
	Effective   string `json:"effective"`
	Bounding    string `json:"bounding"`
	Ambient     string `json:"ambient"`
}

// Capture reads the state of this process. What cannot be read, as without
// /proc, stays empty: a record is no reason to stop a run.
func Capture() State {
	var s State
	buffer := make([]byte, 0, 4<<10) // for one after the other
	var noNewPrivs string
	status := "/proc/thread-self/status" // some of it is a thread's
	if unix.Gettid() == unix.Getpid() {
		status = "/proc/self/status" // the same, which the kernel has sooner
	}
	for line := range strings.Lines(procShort(status, buffer)) {
		name, value, _ := strings.Cut(line, ":")
		var field *string
		switch name {
		case "Uid":
			field = &s.UID
		case "Gid":
			field = &s.GID
		case "Groups":
			field = &s.Groups
		case "CapInh":
			field = &s.Capabilities.Inheritable
		case "CapPrm":
			field = &s.Capabilities.Permitted
		case "CapEff":
			field = &s.Capabilities.Effective
		case "CapBnd":
			field = &s.Capabilities.Bounding
		case "CapAmb":
			field = &s.Capabilities.Ambient
		case "NoNewPrivs":
			field = &noNewPrivs
		case "Seccomp":
			field = &s.Seccomp
		case "Seccomp_filters":
			field = &s.SeccompFilters
		case "Umask":
			field = &s.Umask
		case "SigIgn":
			field = &s.SignalsIgnored
		case "Cpus_allowed_list":
			field = &s.Inherited.CPUs
		case "Mems_allowed_list":
			field = &s.Inherited.MemoryNodes
		default:
			continue
		}
		*field = fold(value)
	}
	s.NoNewPrivs = noNewPrivs == "1"
	s.Limits = captureLimits()
	captureInherited(&s.Inherited, buffer)
	if s.Cgroup = procShort("/proc/self/cgroup", buffer); len(s.Cgroup) > cap(buffer)/2 {
		s.Cgroup = strings.TrimSpace(proc("/proc/self/cgroup", buffer)) // longer than one read gives
	}
	// The system call gives 20-nice, to keep clear of -1.
	if n, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		s.Nice = 20 - n
	}
	for fd := range s.Terminals {
		s.Terminals[fd] = IsTerminal(fd)
	}
	return s
}

// limits are all of them by the kernel's names, in order, with units, as
// /proc/self/limits has them: to ask for each takes less time than that file.
var limits = []struct {
	resource   int
	name, unit string
}{
	{unix.RLIMIT_AS, "Max address space", "bytes"},
	{unix.RLIMIT_CORE, "Max core file size", "bytes"},
	{unix.RLIMIT_CPU, "Max cpu time", "seconds"},
	{unix.RLIMIT_DATA, "Max data size", "bytes"},
	{unix.RLIMIT_LOCKS, "Max file locks", "locks"},
	{unix.RLIMIT_FSIZE, "Max file size", "bytes"},
	{unix.RLIMIT_MEMLOCK, "Max locked memory", "bytes"},
	{unix.RLIMIT_MSGQUEUE, "Max msgqueue size", "bytes"},
	{unix.RLIMIT_NICE, "Max nice priority", ""},
	{unix.RLIMIT_NOFILE, "Max open files", "files"},
	{unix.RLIMIT_SIGPENDING, "Max pending signals", "signals"},
	{unix.RLIMIT_NPROC, "Max processes", "processes"},
	{unix.RLIMIT_RTPRIO, "Max realtime priority", ""},
	{unix.RLIMIT_RTTIME, "Max realtime timeout", "us"},
	{unix.RLIMIT_RSS, "Max resident set", "bytes"},
	{unix.RLIMIT_STACK, "Max stack size", "bytes"},
}

func captureLimits() Pairs {
	pairs := make(Pairs, 0, len(limits))
	for _, l := range limits {
		var have unix.Rlimit
		if unix.Getrlimit(l.resource, &have) == nil {
			value := limit(have.Cur) + " " + limit(have.Max) + " " + l.unit
			pairs = append(pairs, Pair{l.name, strings.TrimSuffix(value, " ")})
		}
	}
	return pairs
}

func limit(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// proc reads a file of /proc, by way of a buffer; "" if it cannot be read.
func proc(path string, buffer []byte) string { return procPart(path, buffer, 64<<10) }

// procPart is proc for a file that may be longer, up to limit bytes.
func procPart(path string, buffer []byte, limit int) string {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	data, err := read(fd, buffer, limit)
	if err != nil {
		return ""
	}
	return string(data)
}

// procShort reads a file of /proc or /sys that is shorter than the buffer: in one call,
// where proc also asks whether there is more.
func procShort(path string, buffer []byte) string {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	n, _ := unix.Read(fd, buffer[:cap(buffer)])
	return strings.TrimSuffix(string(buffer[:max(n, 0)]), "\n")
}

// fold makes white space one blank, and none at the ends.
func fold(s string) string {
	s = strings.TrimSpace(s)
	if strings.IndexByte(s, ' ') < 0 && strings.IndexByte(s, '\t') < 0 {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// IsTerminal says whether a descriptor is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// Columns is the width of a terminal, 0 if a descriptor is not a terminal or does
// not know its width.
func Columns(fd int) int {
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
