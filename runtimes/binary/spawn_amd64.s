#include "textflag.h"

// func cloneSteps(s *spawning) int
//
// The child has the parent's stack pointer and memory while the parent goes on: it must not touch the stack.
TEXT ·cloneSteps(SB), NOSPLIT, $0-16
	MOVQ	s+0(FP), R12
	MOVQ	$2, DI		// rt_sigprocmask(SIG_SETMASK, &allSignals, &usualSignals, 8)
	LEAQ	0(R12), SI
	LEAQ	8(R12), DX
	MOVQ	$8, R10
	MOVQ	$14, AX
	SYSCALL
	MOVQ	24(R12), DI	// clone(flags, 0, &pidfd, 0, 0)
	MOVQ	$0, SI
	LEAQ	16(R12), DX
	MOVQ	$0, R10
	MOVQ	$0, R8
	MOVQ	$56, AX
	SYSCALL
	CMPQ	AX, $0
	JEQ	child
	MOVQ	AX, R13
	MOVQ	$2, DI		// rt_sigprocmask(SIG_SETMASK, &usualSignals, NULL, 8)
	LEAQ	8(R12), SI
	MOVQ	$0, DX
	MOVQ	$8, R10
	MOVQ	$14, AX
	SYSCALL
	MOVQ	R13, ret+8(FP)
	RET
child:
	LEAQ	40(R12), R13
next:
	MOVQ	0(R13), AX
	MOVQ	8(R13), DI
	MOVQ	16(R13), SI
	MOVQ	24(R13), DX
	MOVQ	32(R13), R10
	SYSCALL
	ADDQ	$40, R13
	CMPQ	AX, $0
	JGE	next
	MOVQ	AX, 32(R12)
	MOVQ	$127, DI	// exit_group(127)
	MOVQ	$231, AX
	SYSCALL
	INT	$3
