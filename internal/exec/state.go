package exec

import (
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
	Cgroup         string       `json:"cgroup"`
	// Limits are soft and hard limit by the kernel's names, with units
	// ("Max open files": "65536 65536 files").
	Limits map[string]string `json:"limits"`
	// Terminals says whether descriptors 0, 1 and 2 are terminals.
	Terminals [3]bool `json:"terminals"`
}

// Capabilities are a process's capability sets, in hex.
type Capabilities struct {
	Inheritable string `json:"inheritable"`
	Permitted   string `json:"permitted"`
	Effective   string `json:"effective"`
	Bounding    string `json:"bounding"`
	Ambient     string `json:"ambient"`
}

// Capture reads the state of this process. What can not be read, as without
// /proc, stays empty: a record is no reason to stop a run.
func Capture() State {
	status := procFields("/proc/thread-self/status", ":") // some of it is a thread's
	s := State{
		UID: status["Uid"], GID: status["Gid"], Groups: status["Groups"],
		Capabilities: Capabilities{status["CapInh"], status["CapPrm"], status["CapEff"], status["CapBnd"], status["CapAmb"]},
		NoNewPrivs:   status["NoNewPrivs"] == "1",
		Seccomp:      status["Seccomp"], SeccompFilters: status["Seccomp_filters"],
		Umask: status["Umask"],

		SignalsIgnored: status["SigIgn"],
		Limits:         procFields("/proc/self/limits", "  "),
	}
	delete(s.Limits, "Limit") // the table's head
	if cgroup, err := ReadRegular("/proc/self/cgroup", 64<<10); err == nil {
		s.Cgroup = strings.TrimSpace(string(cgroup))
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

// procFields reads a file of lines "name SEP value", folding the white space
// in values.
func procFields(path, sep string) map[string]string {
	fields := map[string]string{}
	data, err := ReadRegular(path, 64<<10)
	if err != nil {
		return fields
	}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(line, sep)
		if ok {
			fields[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), " ")
		}
	}
	return fields
}

// IsTerminal says whether a descriptor is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
