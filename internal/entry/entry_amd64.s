#include "textflag.h"

#define SYS_write 1
#define SYS_exit_group 231
#define SYS_prlimit64 302

// Below this hard limit of memory, in bytes, Go's runtime may not start.
#define NEEDED (1<<30)

// At the start of a process, the stack has argc, argv, 0, environ, 0.
TEXT ·start(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ 0(SP), AX
	LEAQ 16(SP)(AX*8), BX // environ
next:
	MOVQ 0(BX), CX
	TESTQ CX, CX
	JZ limits
	ADDQ $8, BX
	CMPW 0(CX), $0x4f47 // GO
	JNE next
	MOVB $'g', 0(CX)
	JMP next

limits:
	MOVQ $9, R12 // RLIMIT_AS
	SUBQ $16, SP
limit:
	XORL DI, DI // prlimit(0, resource, nil, SP)
	MOVQ R12, SI
	XORL DX, DX
	MOVQ SP, R10
	MOVL $SYS_prlimit64, AX
	SYSCALL
	TESTQ AX, AX
	JNZ done
	MOVQ 8(SP), CX // the hard one
	CMPQ CX, $NEEDED
	JCS refuse
	CMPQ CX, 0(SP)
	JEQ done
	MOVQ CX, 0(SP) // prlimit(0, resource, SP, nil)
	XORL DI, DI
	MOVQ R12, SI
	MOVQ SP, DX
	XORL R10, R10
	MOVL $SYS_prlimit64, AX
	SYSCALL
done:
	CMPQ R12, $2
	JEQ run
	MOVQ $2, R12 // RLIMIT_DATA
	JMP limit
run:
	ADDQ $16, SP
	// Copies all that is on the stack to below it, with one more variable.
	MOVQ 0(SP), AX
	LEAQ 16(SP)(AX*8), BX // environ
	MOVQ BX, R9
variables:
	MOVQ 0(R9), CX
	ADDQ $8, R9
	TESTQ CX, CX
	JNZ variables
auxiliary: // pairs of a type and a value
	MOVQ 0(R9), CX
	ADDQ $16, R9
	TESTQ CX, CX
	JNZ auxiliary
	MOVQ SP, SI
	MOVQ SP, DI
	ADDQ SP, DI
	SUBQ R9, DI
	SUBQ $8, DI
	ANDQ $~15, DI
	MOVQ DI, R8
	CLD
	MOVQ BX, CX
	SUBQ SI, CX
	SHRQ $3, CX
	REP; MOVSQ
	LEAQ ·oneThread(SB), AX
	MOVQ AX, 0(DI)
	ADDQ $8, DI
	MOVQ R9, CX
	SUBQ SI, CX
	SHRQ $3, CX
	REP; MOVSQ
	MOVQ R8, SP
	XORL R12, R12
	JMP _rt0_amd64_linux(SB)

refuse:
	MOVL $2, DI
	LEAQ ·message(SB), SI
	MOVQ ·messageSize(SB), DX
	MOVL $SYS_write, AX
	SYSCALL
	MOVL $125, DI
	MOVL $SYS_exit_group, AX
	SYSCALL
	INT $3
