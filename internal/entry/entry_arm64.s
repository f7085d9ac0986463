#include "textflag.h"

// See entry_amd64.s, whose steps these are.

#define SYS_write 64
#define SYS_exit_group 94
#define SYS_prlimit64 261

TEXT ·start(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVD 0(RSP), R0
	ADD $16, RSP, R1
	ADD R0<<3, R1, R1 // environ
next:
	MOVD.P 8(R1), R2
	CBZ R2, limits
	MOVHU (R2), R3
	MOVD $0x4f47, R4 // GO
	CMP R4, R3
	BNE next
	MOVD $'g', R3
	MOVB R3, (R2)
	B next

limits:
	MOVD $9, R20 // RLIMIT_AS
	SUB $16, RSP
limit:
	MOVD $0, R0 // prlimit(0, resource, nil, RSP)
	MOVD R20, R1
	MOVD $0, R2
	MOVD RSP, R3
	MOVD $SYS_prlimit64, R8
	SVC
	CBNZ R0, done
	MOVD 8(RSP), R5 // the hard one
	MOVD $(1<<30), R6
	CMP R6, R5
	BLO refuse
	MOVD 0(RSP), R6
	CMP R6, R5
	BEQ done
	MOVD R5, 0(RSP) // prlimit(0, resource, RSP, nil)
	MOVD $0, R0
	MOVD R20, R1
	MOVD RSP, R2
	MOVD $0, R3
	MOVD $SYS_prlimit64, R8
	SVC
done:
	CMP $2, R20
	BEQ run
	MOVD $2, R20 // RLIMIT_DATA
	B limit
run:
	ADD $16, RSP
	MOVD 0(RSP), R0
	ADD $16, RSP, R1
	ADD R0<<3, R1, R1 // environ
	MOVD R1, R9
variables:
	MOVD.P 8(R9), R2
	CBNZ R2, variables
auxiliary:
	MOVD.P 16(R9), R2
	CBNZ R2, auxiliary
	MOVD RSP, R3
	SUB R3, R9, R4
	SUB R4, R3, R5
	SUB $8, R5
	AND $~15, R5
	MOVD R5, R6
before:
	MOVD.P 8(R3), R2
	MOVD.P R2, 8(R5)
	CMP R1, R3
	BNE before
	MOVD $·oneThread(SB), R2
	MOVD.P R2, 8(R5)
after:
	MOVD.P 8(R3), R2
	MOVD.P R2, 8(R5)
	CMP R9, R3
	BNE after
	MOVD R6, RSP
	B _rt0_arm64_linux(SB)

refuse:
	MOVD $2, R0
	MOVD $·message(SB), R1
	MOVD ·messageSize(SB), R2
	MOVD $SYS_write, R8
	SVC
	MOVD $125, R0
	MOVD $SYS_exit_group, R8
	SVC
	BRK
