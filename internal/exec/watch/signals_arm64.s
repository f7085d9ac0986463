#include "textflag.h"

// See signals_amd64.s. The kernel's own vDSO calls rt_sigreturn here.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVD ·handlerPipe(SB), R0
	MOVD $128, R2 // sizeof(siginfo_t)
	MOVD $64, R8  // write
	SVC
	RET

// func handlerAddresses() (handler, restorer uintptr)
TEXT ·handlerAddresses(SB), NOSPLIT, $0-16
	MOVD $·handler(SB), R0
	MOVD R0, handler+0(FP)
	MOVD ZR, restorer+8(FP)
	RET
