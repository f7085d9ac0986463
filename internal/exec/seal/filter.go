package seal

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An entry is a way into the kernel: an architecture as seccomp names it, and
// there the number of memfd_create.
type entry struct{ arch, memfdCreate uint32 }

// entries are those of the machines that this is built for, each with its
// 32-bit one.
var entries = map[string][]entry{
	"amd64": {{unix.AUDIT_ARCH_X86_64, 319}, {unix.AUDIT_ARCH_I386, 356}},
	"arm64": {{unix.AUDIT_ARCH_AARCH64, 279}, {unix.AUDIT_ARCH_ARM, 385}},
}[runtime.GOARCH]

var unknownArchitecture = len(entries) == 0

// x32Bit marks the numbers of amd64's third way in, x32, which has the
// architecture of the first.
const x32Bit = 0x40000000

// memoryFilter is the seccomp filter: memfd_create without MFD_NOEXEC_SEAL
// does not exist (ENOSYS), all else is as it was. Programs know that answer,
// from Linux before 3.17, and take a file in /tmp or /dev/shm instead; EACCES,
// which a kernel with vm.memfd_noexec=2 gives, some take for an error. A file
// with MFD_NOEXEC_SEAL can not be executed, by anybody.
//
// The kernel remembers which calls such a filter always lets through, so the
// others cost nothing.
func memoryFilter() []unix.SockFilter {
	const ( // offsets in struct seccomp_data; the low half of args[1] comes first
		number, arch, flags = 0, 4, 16 + 8
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// If the test is true the next yes instructions are jumped over, else no.
	jump := func(test uint16, k uint32, yes, no int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: uint8(yes), Jf: uint8(no), K: k}
	}
	verdict := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }

	f := []unix.SockFilter{load(arch)}
	const block = 5 // instructions for one entry
	for i, e := range entries {
		left := block * (len(entries) - 1 - i) // from the end of this block to the tail
		f = append(
			f,
			jump(unix.BPF_JEQ, e.arch, 0, 4),
			load(number),
			// The other architectures have no such numbers.
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: ^uint32(x32Bit)},
			jump(unix.BPF_JEQ, e.memfdCreate, left+2, 0),
			verdict(unix.SECCOMP_RET_ALLOW),
		)
	}
	return append(
		f,
		verdict(unix.SECCOMP_RET_ALLOW), // another architecture
		load(flags),
		jump(unix.BPF_JSET, unix.MFD_NOEXEC_SEAL, 0, 1),
		verdict(unix.SECCOMP_RET_ALLOW),
		verdict(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)),
	)
}

// filterMemoryFiles puts the filter on all threads. It takes no_new_privs.
func filterMemoryFiles() error {
	f := memoryFilter()
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(f)
	if e != 0 {
		return e
	}
	return nil
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
