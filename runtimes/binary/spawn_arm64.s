#include "textflag.h"

// func cloneSteps(s *spawning) int
//
// The child has the parent's stack pointer and memory while the parent goes on: it must not touch the stack.
TEXT ·cloneSteps(SB), NOSPLIT, $0-16
	MOVD	s+0(FP), R9
	MOVD	$2, R0		// rt_sigprocmask(SIG_SETMASK, &allSignals, &usualSignals, 8)
	MOVD	R9, R1
	ADD	$8, R9, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
	MOVD	24(R9), R0	// clone(flags, 0, &pidfd, 0, 0)
	MOVD	$0, R1
	ADD	$16, R9, R2
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$220, R8
	SVC
	CBZ	R0, child
	MOVD	R0, R10
	MOVD	$2, R0		// rt_sigprocmask(SIG_SETMASK, &usualSignals, NULL, 8)
	ADD	$8, R9, R1
	MOVD	$0, R2
	MOVD	$8, R3
	MOVD	$135, R8
	SVC
	MOVD	R10, ret+8(FP)
	RET
child:
	ADD	$40, R9, R10
next:
	MOVD	0(R10), R8
	MOVD	8(R10), R0
	MOVD	16(R10), R1
	MOVD	24(R10), R2
	MOVD	32(R10), R3
	SVC
	ADD	$40, R10
	TBZ	$63, R0, next
	MOVD	R0, 32(R9)
	MOVD	$127, R0	// exit_group(127)
	MOVD	$94, R8
	SVC
	BRK
