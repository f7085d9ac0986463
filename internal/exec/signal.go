package exec

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SigAction is the kernel's struct sigaction, the same on every 64-bit Linux that
// Go runs on (but for MIPS).
type SigAction struct {
	Handler  uintptr
	Flags    uint64
	Restorer uintptr
	Mask     uint64
}

// Values of SigAction.Handler, and the last signal's number.
const (
	SigDefault = 0  // SIG_DFL
	SigIgnore  = 1  // SIG_IGN
	LastSignal = 64 // _NSIG
)

// SetSigAction is rt_sigaction(2): to is what is done from now on (nil: as
// before), from becomes what was done (nil: not asked).
func SetSigAction(s unix.Signal, to, from *SigAction) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(from)), 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// defaultSignals sets each ignored signal but SIGHUP to its default. Handlers
// need no care: execve resets those. Go's runtime has put its own in place of
// most ignored signals already, but leaves SIGHUP, SIGINT, the stop signals
// and 32 to 34 as they were. The kernel is asked, not /proc, so that this works
// in a container without one.
func defaultSignals() {
	for s := unix.Signal(1); s <= LastSignal; s++ {
		if s == unix.SIGKILL || s == unix.SIGSTOP || s == unix.SIGHUP {
			continue
		}
		var old SigAction
		if SetSigAction(s, nil, &old) == nil && old.Handler == SigIgnore {
			_ = SetSigAction(s, &SigAction{Handler: SigDefault}, nil)
		}
	}
}

// EndStatus is the exit status that a shell gives a process that ended: 128+N after
// signal N.
func EndStatus(w syscall.WaitStatus) int {
	if w.Signaled() {
		return StatusSignal + int(w.Signal())
	}
	return w.ExitStatus()
}
