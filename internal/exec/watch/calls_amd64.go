package watch

import (
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec/seccomp"
)

var execCalls = []seccomp.ABI{
	{Arch: unix.AUDIT_ARCH_X86_64, Calls: []seccomp.Pick{{Nr: unix.SYS_EXECVE}, {Nr: unix.SYS_EXECVEAT}, {Nr: seccomp.X32 | 520}, {Nr: seccomp.X32 | 545}}},
	{Arch: unix.AUDIT_ARCH_I386, Calls: []seccomp.Pick{{Nr: 11}, {Nr: 358}}},
}

// The calls by which programs look whether a file is there, or may be
// executed. An lstat, which a shell's search never is, is left out: `git
// status` alone makes thousands. So are 32-bit programs.
var lookupCalls = []seccomp.Pick{
	{Nr: unix.SYS_STAT},
	{Nr: unix.SYS_NEWFSTATAT, When: seccomp.NoBit, Arg: 3, Mask: unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH},
	{Nr: unix.SYS_STATX, When: seccomp.NoBit, Arg: 2, Mask: unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH},
	{Nr: unix.SYS_ACCESS, When: seccomp.AnyBit, Arg: 1, Mask: unix.X_OK},
	{Nr: unix.SYS_FACCESSAT, When: seccomp.AnyBit, Arg: 2, Mask: unix.X_OK},
	{Nr: unix.SYS_FACCESSAT2, When: seccomp.AnyBit, Arg: 2, Mask: unix.X_OK},
}

// shape says of a call's numbers what kind of call it is: whether it executes,
// and whether its first argument is a directory (the *at calls).
func shape(arch uint32, nr int32) (execute, at bool) {
	if arch == unix.AUDIT_ARCH_I386 {
		return true, nr == 358
	}
	switch nr {
	case unix.SYS_EXECVE, seccomp.X32 | 520:
		return true, false
	case unix.SYS_EXECVEAT, seccomp.X32 | 545:
		return true, true
	case unix.SYS_STAT, unix.SYS_ACCESS:
		return false, false
	}
	return false, true
}
