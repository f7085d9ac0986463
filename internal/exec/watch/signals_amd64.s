#include "textflag.h"

// The kernel calls it as handler(signal, *siginfo, *context), on the signal
// stack of Go's runtime. It writes the siginfo to a pipe and does nothing
// else; the kernel restores all registers afterwards.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVQ $1, AX // write
	MOVQ ·handlerPipe(SB), DI
	MOVQ $128, DX // sizeof(siginfo_t)
	SYSCALL
	RET

// It returns to this.
TEXT ·restorer(SB), NOSPLIT|NOFRAME, $0
	MOVQ $15, AX // rt_sigreturn
	SYSCALL
	INT $3

// func handlerAddresses() (handler, restorer uintptr)
TEXT ·handlerAddresses(SB), NOSPLIT, $0-16
	LEAQ ·handler(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ ·restorer(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
