#include "textflag.h"

// The handler: signal number in DI, siginfo in SI, called by the kernel on the signal stack. SIGPIPE and 33 from this
// process itself go on to the runtime's handler. For all others: write(rawPipe, &number, 1).
TEXT rawHandler<>(SB),NOSPLIT|NOFRAME,$0
	CMPL	DI, $13
	JEQ	ours
	CMPL	DI, $33
	JNE	send
ours:
	MOVL	16(SI), AX // si_pid
	CMPL	AX, ·rawSelf(SB)
	JNE	send
	MOVQ	·rawOld(SB), AX
	JMP	AX
send:
	SUBQ	$24, SP
	MOVB	DI, 8(SP)
	MOVL	·rawPipe(SB), DI
	LEAQ	8(SP), SI
	MOVL	$1, DX
	MOVL	$1, AX // write
	SYSCALL
	ADDQ	$24, SP
	RET

TEXT rawRestorer<>(SB),NOSPLIT|NOFRAME,$0
	MOVL	$15, AX // rt_sigreturn
	SYSCALL
	INT	$3

// func rawHandlerPC() uintptr
TEXT ·rawHandlerPC(SB),NOSPLIT,$0-8
	LEAQ	rawHandler<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func rawRestorerPC() uintptr
TEXT ·rawRestorerPC(SB),NOSPLIT,$0-8
	LEAQ	rawRestorer<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
