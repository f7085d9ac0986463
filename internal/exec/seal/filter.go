package seal

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/exec/seccomp"
)

// memory are the calls that make a file of memory which could be executed:
// memfd_create without MFD_NOEXEC_SEAL, of the machines that this is built
// for, each with its 32-bit entry.
var memory = map[string][]seccomp.ABI{
	"amd64": {
		{Arch: unix.AUDIT_ARCH_X86_64, Calls: []seccomp.Pick{executable(319), executable(seccomp.X32 | 319)}},
		{Arch: unix.AUDIT_ARCH_I386, Calls: []seccomp.Pick{executable(356)}},
	},
	"arm64": {
		{Arch: unix.AUDIT_ARCH_AARCH64, Calls: []seccomp.Pick{executable(279)}},
		{Arch: unix.AUDIT_ARCH_ARM, Calls: []seccomp.Pick{executable(385)}},
	},
}[runtime.GOARCH]

func executable(memfdCreate uint32) seccomp.Pick {
	return seccomp.Pick{Nr: memfdCreate, When: seccomp.NoBit, Arg: 1, Mask: unix.MFD_NOEXEC_SEAL}
}

// typing are the calls that type at a terminal for whoever reads there:
// ioctl(TIOCSTI). A shell that started the run would execute what was typed.
var typing = map[string][]seccomp.ABI{
	"amd64": {
		{Arch: unix.AUDIT_ARCH_X86_64, Calls: []seccomp.Pick{types(16), types(seccomp.X32 | 16), types(seccomp.X32 | 514)}},
		{Arch: unix.AUDIT_ARCH_I386, Calls: []seccomp.Pick{types(54)}},
	},
	"arm64": {
		{Arch: unix.AUDIT_ARCH_AARCH64, Calls: []seccomp.Pick{types(29)}},
		{Arch: unix.AUDIT_ARCH_ARM, Calls: []seccomp.Pick{types(54)}},
	},
}[runtime.GOARCH]

func types(ioctl uint32) seccomp.Pick {
	return seccomp.Pick{Nr: ioctl, When: seccomp.Equal, Arg: 1, Mask: unix.TIOCSTI}
}

// filterCalls puts two filters on all threads.
//
// For the first, memfd_create without MFD_NOEXEC_SEAL does not exist (ENOSYS).
// Programs know that answer, from Linux before 3.17, and take a file in /tmp or
// /dev/shm instead; EACCES, which a kernel with vm.memfd_noexec=2 gives, some take
// for an error. A file with MFD_NOEXEC_SEAL cannot be executed, by anybody.
//
// The second answers TIOCSTI with EIO. Linux 6.2 gives that answer to processes
// without CAP_SYS_ADMIN, if dev.tty.legacy_tiocsti is 0.
func filterCalls() error {
	return errors.Join(refuse(memory, unix.ENOSYS), refuse(typing, unix.EIO))
}

func refuse(calls []seccomp.ABI, answer unix.Errno) error {
	_, err := seccomp.Install(seccomp.Compile(calls, unix.SECCOMP_RET_ERRNO|uint32(answer)), unix.SECCOMP_FILTER_FLAG_TSYNC)
	return err
}

// filterSupported says why this kernel has no seccomp filter that can answer
// with an error.
func filterSupported() error {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); e != 0 {
		return e
	}
	return nil
}
