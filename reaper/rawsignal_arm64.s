#include "textflag.h"

// The handler: signal number in R0, siginfo in R1, called by the kernel on the signal stack. SIGPIPE and 33 from this
// process itself go on to the runtime's handler. For all others: write(rawPipe, &number, 1).
TEXT rawHandler<>(SB),NOSPLIT|NOFRAME,$0
	CMPW	$13, R0
	BEQ	ours
	CMPW	$33, R0
	BNE	send
ours:
	MOVW	16(R1), R3 // si_pid
	MOVW	·rawSelf(SB), R4
	CMPW	R3, R4
	BNE	send
	MOVD	·rawOld(SB), R3
	JMP	(R3)
send:
	SUB	$32, RSP
	MOVB	R0, 8(RSP)
	MOVW	·rawPipe(SB), R0
	ADD	$8, RSP, R1
	MOVD	$1, R2
	MOVD	$64, R8 // write
	SVC
	ADD	$32, RSP
	RET

TEXT rawRestorer<>(SB),NOSPLIT|NOFRAME,$0
	MOVD	$139, R8 // rt_sigreturn
	SVC
	BRK

// func rawHandlerPC() uintptr
TEXT ·rawHandlerPC(SB),NOSPLIT,$0-8
	MOVD	$rawHandler<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// func rawRestorerPC() uintptr
TEXT ·rawRestorerPC(SB),NOSPLIT,$0-8
	MOVD	$rawRestorer<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET
