package exec

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Values that x/sys lacks.
const (
	defaultTimerSlack = 50_000     // nanoseconds: init's, prctl(2)
	machineCheckClear = 0          // PR_MCE_KILL_CLEAR
	personalityQuery  = 0xffffffff // personality(2): asks, and sets nothing
	ioPriorityProcess = 1          // IOPRIO_WHO_PROCESS, ioprio_set(2)
	ioPriorityShift   = 13         // IOPRIO_CLASS_SHIFT
)

// resetInherited resets attributes that execve(2) keeps, that a toolset does not declare, and
// that most processes may set. docs/process.md lists them, and the others with the reason. If
// a sandbox forbids a call, the attribute stays.
func resetInherited() {
	for _, option := range [][2]uintptr{
		{unix.PR_SET_PDEATHSIG, 0}, // or the end of the caller's thread would signal the tests
		// Orphans would stay zombies, because no test waits for them.
		{unix.PR_SET_CHILD_SUBREAPER, 0},
		{unix.PR_SET_TIMERSLACK, defaultTimerSlack},
		{unix.PR_SET_THP_DISABLE, 0},
		{unix.PR_MCE_KILL, machineCheckClear},
		{unix.PR_SET_IO_FLUSHER, 0},
		{unix.PR_SET_MEMORY_MERGE, 0},
	} {
		_ = unix.Prctl(int(option[0]), option[1], 0, 0, 0)
	}
	for _, timer := range []unix.ItimerWhich{unix.ITIMER_REAL, unix.ITIMER_VIRTUAL, unix.ITIMER_PROF} {
		_, _ = unix.Setitimer(timer, unix.Itimerval{})
	}
	// No class of its own: the kernel makes the priority of input and output from nice.
	_, _, _ = unix.RawSyscall(unix.SYS_IOPRIO_SET, ioPriorityProcess, 0, 0)
	// setarch(8) sets it: no randomized addresses, an old kernel's version, executable data.
	_, _, _ = unix.RawSyscall(unix.SYS_PERSONALITY, 0, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SET_MEMPOLICY, 0, 0, 0) // numactl(8) sets it
	for fd := range 3 {
		resetFlags(fd)
	}
}

// callersFlags are flags of an open file that a caller, which has the same file open, may need
// and a test does not expect: after O_NONBLOCK a write to a full pipe fails.
const callersFlags = unix.O_NONBLOCK | unix.O_ASYNC | unix.O_DIRECT

// resetFlags clears callersFlags on a descriptor. A pipe or terminal that has such a flag is
// opened once more, since the flags belong to the open file, which the caller shares: so the
// caller keeps its flags. The flags of all else, and of what cannot be opened, are cleared for
// the caller, too.
//
// If this process is the one that gets the signals of the open file (F_SETOWN), for which a
// lease or a watched directory is enough, nobody gets them any more: SIGIO would kill the child.
func resetFlags(fd int) {
	if owner, err := unix.FcntlInt(uintptr(fd), unix.F_GETOWN, 0); err == nil && owner == unix.Getpid() {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETOWN, 0)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&callersFlags == 0 {
		return
	}
	if ours := reopen(fd, flags); ours >= 0 {
		defer unix.Close(ours)
		if unix.Dup3(ours, fd, 0) == nil {
			flags, _ = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		}
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^callersFlags)
}

// reopen opens a pipe or terminal once more; -1 if that fails.
func reopen(fd, flags int) int {
	var info unix.Stat_t
	if unix.Fstat(fd, &info) != nil || info.Mode&unix.S_IFMT != unix.S_IFIFO && !IsTerminal(fd) {
		return -1
	}
	// Opening the master of a pseudo-terminal makes another pseudo-terminal.
	if _, err := unix.IoctlGetInt(fd, unix.TIOCGPTN); err == nil {
		return -1
	}
	// O_NONBLOCK: or open(2) of a pipe for reading would wait for a writer, and there may be none.
	mode := flags&(unix.O_ACCMODE|unix.O_APPEND) | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	ours, err := open("/proc/self/fd/"+strconv.Itoa(fd), mode, 0)
	if err != nil {
		return -1
	}
	return ours
}

// Inherited has what the caller decides, because not every process may set it, and what
// resetInherited reset, unless a sandbox forbade that (I/O priority, personality).
type Inherited struct {
	Policy      string `json:"policy"`        // other, batch, idle, fifo PRIORITY, …, and "reset on fork"
	IOPriority  string `json:"io_priority"`   // CLASS LEVEL, "none" once reset
	CPUs        string `json:"cpus"`          // those that it may run on: 0-3
	MemoryNodes string `json:"memory_nodes"`  // those that it may have memory of
	OOM         string `json:"oom_score_adj"` // proc(5)
	LoginUID    string `json:"login_uid"`     // whom logname(1) names; 4294967295 without a login
	Personality string `json:"personality"`   // flags in hex, "0" once reset
	SecureBits  string `json:"secure_bits"`   // flags in hex, capabilities(7)
}

// policies are the names of the scheduling policies, sched(7).
var policies = [...]string{"other", "fifo", "round-robin", "batch", "4", "idle", "deadline", "ext"}

// captureInherited reads what is not in /proc/self/status.
func captureInherited(s *Inherited, buffer []byte) {
	if attr, err := unix.SchedGetAttr(0, 0); err == nil {
		s.Policy = strconv.FormatUint(uint64(attr.Policy), 10)
		if int(attr.Policy) < len(policies) {
			s.Policy = policies[attr.Policy]
		}
		if attr.Priority != 0 {
			s.Policy += " " + strconv.FormatUint(uint64(attr.Priority), 10)
		}
		if attr.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0 {
			s.Policy += ", reset on fork"
		}
	}
	if n, _, e := unix.RawSyscall(unix.SYS_IOPRIO_GET, ioPriorityProcess, 0, 0); e == 0 {
		s.IOPriority = "none"
		if class := n >> ioPriorityShift; class != 0 {
			s.IOPriority = strconv.Itoa(int(class)) + " " + strconv.Itoa(int(n&(1<<ioPriorityShift-1)))
		}
	}
	if n, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, personalityQuery, 0, 0); e == 0 {
		s.Personality = strconv.FormatUint(uint64(n), 16)
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0); err == nil {
		s.SecureBits = strconv.FormatInt(int64(n), 16)
	}
	s.LoginUID = procShort("/proc/self/loginuid", buffer)
	s.OOM = procShort("/proc/self/oom_score_adj", buffer)
}
