package watch

import (
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec/seccomp"
)

var execCalls = []seccomp.ABI{
	{Arch: unix.AUDIT_ARCH_AARCH64, Calls: []seccomp.Pick{{Nr: unix.SYS_EXECVE}, {Nr: unix.SYS_EXECVEAT}}},
	{Arch: unix.AUDIT_ARCH_ARM, Calls: []seccomp.Pick{{Nr: 11}, {Nr: 387}}},
}

// See calls_amd64.go.
var lookupCalls = []seccomp.Pick{
	{Nr: unix.SYS_FSTATAT, When: seccomp.NoBit, Arg: 3, Mask: unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH},
	{Nr: unix.SYS_STATX, When: seccomp.NoBit, Arg: 2, Mask: unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH},
	{Nr: unix.SYS_FACCESSAT, When: seccomp.AnyBit, Arg: 2, Mask: unix.X_OK},
	{Nr: unix.SYS_FACCESSAT2, When: seccomp.AnyBit, Arg: 2, Mask: unix.X_OK},
}

func shape(arch uint32, nr int32) (execute, at bool) {
	if arch == unix.AUDIT_ARCH_ARM {
		return true, nr == 387
	}
	return nr == unix.SYS_EXECVE || nr == unix.SYS_EXECVEAT, nr != unix.SYS_EXECVE
}
