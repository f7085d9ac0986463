// Package seccomp makes and installs seccomp filters: programs of classic BPF
// over one system call's architecture, number and arguments (not what they
// point to), see seccomp(2).
//
//	filter := seccomp.Compile([]seccomp.ABI{{unix.AUDIT_ARCH_X86_64, []seccomp.Pick{{Nr: unix.SYS_EXECVE}}}}, unix.SECCOMP_RET_USER_NOTIF)
//	listener, err := seccomp.Install(filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
//
// The kernel remembers which calls a filter Always lets through, so those cost
// nothing.
package seccomp

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ABI are system calls under one calling convention: a 64-bit kernel also
// takes those of 32-bit programs, whose numbers differ.
type ABI struct {
	Arch  uint32 // AUDIT_ARCH_*
	Calls []Pick
}

// X32 is the bit in the numbers of the calls that x32 programs make, on amd64.
const X32 = 0x40000000

// Pick picks a system call, or those of its calls whose argument Arg, counted
// from 0, has any of the bits of Mask, or none of them, or is Mask.
type Pick struct {
	Nr   uint32
	When When
	Arg  uint32
	Mask uint32 // of the low 32 bits
}

// When is a condition of a Pick.
type When int

// The conditions.
const (
	Always When = iota
	AnyBit
	NoBit
	Equal
)

// offsets in struct seccomp_data
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16 // 8 bytes each, of which a flag is in the low four
)

// Compile gives the filter that takes action for what is picked and allows
// all else.
func Compile(abis []ABI, action uint32) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	jump := func(test uint16, k uint32, yes, no int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: uint8(yes), Jf: uint8(no)}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	var filter []unix.SockFilter
	for _, a := range abis {
		block := []unix.SockFilter{load(dataNr)}
		for _, c := range a.Calls {
			body := []unix.SockFilter{end(action)}
			switch c.When {
			case AnyBit:
				body = []unix.SockFilter{load(dataArgs + 8*c.Arg), jump(unix.BPF_JSET, c.Mask, 0, 1), end(action), end(unix.SECCOMP_RET_ALLOW)}
			case NoBit:
				body = []unix.SockFilter{load(dataArgs + 8*c.Arg), jump(unix.BPF_JSET, c.Mask, 1, 0), end(action), end(unix.SECCOMP_RET_ALLOW)}
			case Equal:
				body = []unix.SockFilter{load(dataArgs + 8*c.Arg), jump(unix.BPF_JEQ, c.Mask, 0, 1), end(action), end(unix.SECCOMP_RET_ALLOW)}
			}
			block = append(append(block, jump(unix.BPF_JEQ, c.Nr, 0, len(body))), body...)
		}
		block = append(block, end(unix.SECCOMP_RET_ALLOW))
		filter = append(append(filter, load(dataArch), jump(unix.BPF_JEQ, a.Arch, 0, len(block))), block...)
	}
	return append(filter, end(unix.SECCOMP_RET_ALLOW))
}

// Install puts a filter on this thread and what it starts, and gives what the
// kernel answers: with SECCOMP_FILTER_FLAG_NEW_LISTENER a descriptor. Without
// the right to do so otherwise (CAP_SYS_ADMIN), the thread first gives up new
// privileges, as the kernel demands.
func Install(filter []unix.SockFilter, flags uintptr) (int, error) {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	try := func() (int, error) {
		fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
		runtime.KeepAlive(filter)
		if e == 0 && flags&unix.SECCOMP_FILTER_FLAG_TSYNC != 0 && fd != 0 {
			e = unix.ESRCH // it is the thread that could not take the filter
		}
		if e != 0 {
			return -1, e
		}
		return int(fd), nil
	}
	fd, err := try()
	if err == unix.EACCES {
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil {
			fd, err = try()
		}
	}
	return fd, err
}
