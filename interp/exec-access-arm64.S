/* SPDX-License-Identifier: MIT */
/* The only instructions that touch guest memory for the interpreter, in one region that tagtso_exec_owns() knows. Handler code. */

/*
 * uint64_t tagtso_access_NAME(uint64_t pointer, void *first, void *second, struct tagtso_fault *fault);
 *
 * A leaf that does one access at `pointer` (its tag in bits 59:56) between memory and the register images at `first`
 * and `second`, and returns 0. A fault in it is answered by tagtso_exec_fixup(), which fills *fault (x3, which no
 * routine may change) and goes on at tagtso_access_failed: that returns 1, and no image has been written, since each
 * routine writes its images after the access. x4..x7 and v0..v3 are scratch: the caller's by the procedure call
 * standard, and the interrupted thread's are in its signal frame.
 *
 * Each has a twin, tagtso_access_cpu_NAME(pointer, first, second, fault, area, number), for accesses that must be made on one CPU (HACKING.md §6): the
 * one whose owner id the pointer's tag is. area: the thread's struct rseq; number: the field of it that counts. From the look at that field to the access
 * it is a restartable sequence: preempted, moved to another CPU or interrupted by a signal in between, as by the access's own fault, the thread finds itself at
 * tagtso_access_moved. There, as where the CPU is another one, the answer is that of a tag that does not match. Where the twin is stands in the
 * word before NAME. x8 to x10 are scratch there.
 */
	.arch	armv8.5-a+memtag
	.text

	.macro	label name
	.globl	\name
	.hidden	\name
	.type	\name, %function
\name:
	.endm

	.macro	routine name
	.if	twin
	label	tagtso_access_cpu_\name
	.cfi_startproc
	adrp	x8, .Lsequence_\name
	add	x8, x8, :lo12:.Lsequence_\name
	str	x8, [x4, #8]		/* rseq_cs: cleared by the kernel when it finds the thread elsewhere; the descriptor is never unmapped */
.Lstart_\name:
	ldr	w9, [x5]
	ubfx	x10, x0, #56, #4
	sub	w10, w10, #1
	cmp	w9, w10
	b.ne	tagtso_access_moved
	.else
	.word	tagtso_access_cpu_\name - . - 4
	label	tagtso_access_\name
	.cfi_startproc
	.endif
	.endm

	/* Stands behind the access, which is the last instruction of the sequence: what has been done is not done again. */
	.macro	access_done name
	.if	twin
.Ldone_\name:
	.pushsection .data.rel.ro, "aw"
	.balign	32
.Lsequence_\name:			/* struct rseq_cs */
	.word	0, 0
	.xword	.Lstart_\name, .Ldone_\name - .Lstart_\name, tagtso_access_moved
	.popsection
	.endif
	.endm

	.macro	done name
	mov	x0, #0
	ret
	.cfi_endproc
	.if	twin
	.size	tagtso_access_cpu_\name, . - tagtso_access_cpu_\name
	.else
	.size	tagtso_access_\name, . - tagtso_access_\name
	.endif
	.endm

	/* image is the whole register: a W, B, H, S or D load has zeroed the rest of it. */
	.macro	load name, instruction, register, image
	routine	\name
	\instruction \register, [x0]
	access_done \name
	str	\image, [x1]
	done	\name
	.endm

	/* LDAPURS* exist, but LDAPUR costs more on some cores (erratum 3877900), and QEMU 10 does not check its tags. */
	.macro	load_extend name, instruction, extend, register
	routine	\name
	\instruction w4, [x0]
	access_done \name
	\extend	\register, w4
	str	x4, [x1]
	done	\name
	.endm

	.macro	load_pair name, instruction, r1, r2, image1, image2
	routine	\name
	\instruction \r1, \r2, [x0]
	access_done \name
	str	\image1, [x1]
	str	\image2, [x2]
	done	\name
	.endm

	/* fetch: how to read exactly the element, which may be a lane at the end of a vector. */
	.macro	store name, fetch, instruction, register
	routine	\name
	\fetch	\register, [x1]
	\instruction \register, [x0]
	access_done \name
	done	\name
	.endm

	.macro	store_pair name, r1, r2
	routine	\name
	ldr	\r1, [x1]
	ldr	\r2, [x2]
	stp	\r1, \r2, [x0]
	access_done \name
	done	\name
	.endm

	/* One element of a vector: only its bytes of the image are written. */
	.macro	load_lane name, instruction, save, register
	routine	\name
	\instruction \register, [x0]
	access_done \name
	\save	\register, [x1]
	done	\name
	.endm

	/* first: the operand; second: the old value, zero-extended. */
	.macro	lse_size operation, suffix, register, result
	routine	\operation\()_\suffix
	ldr	x4, [x1]
	.ifc	\suffix, b
	\operation\()alb w4, w5, [x0]
	.else
	.ifc	\suffix, h
	\operation\()alh w4, w5, [x0]
	.else
	\operation\()al \register, \result, [x0]
	.endif
	.endif
	access_done \operation\()_\suffix
	str	x5, [x2]
	done	\operation\()_\suffix
	.endm

	.macro	lse operation
	lse_size \operation, b, w4, w5
	lse_size \operation, h, w4, w5
	lse_size \operation, w, w4, w5
	lse_size \operation, x, x4, x5
	.endm

	/* first: compared, and receives the old value; second: the new value. */
	.macro	cas name, instruction, compared, new
	routine	\name
	ldr	x4, [x1]
	ldr	x5, [x2]
	\instruction \compared, \new, [x0]
	access_done \name
	str	x4, [x1]
	done	\name
	.endm

	/* The same with two registers side by side in each image. */
	.macro	casp name, r1, r2, r3, r4
	routine	\name
	ldp	x4, x5, [x1]
	ldp	x6, x7, [x2]
	caspal	\r1, \r2, \r3, \r4, [x0]
	access_done \name
	stp	x4, x5, [x1]
	done	\name
	.endm

	/* first: up to four whole vectors side by side. */
	.macro	load_multi name, image:vararg
	routine	\name
	ld1	{\image}, [x0]
	access_done \name
	stp	q0, q1, [x1]
	stp	q2, q3, [x1, #32]
	done	\name
	.endm

	.macro	store_multi name, image:vararg
	routine	\name
	ldp	q0, q1, [x1]
	ldp	q2, q3, [x1, #32]
	st1	{\image}, [x0]
	access_done \name
	done	\name
	.endm

	.macro	routines
	load	ldrb, ldrb, w4, x4
	load	ldrh, ldrh, w4, x4
	load	ldrw, ldr, w4, x4
	load	ldrx, ldr, x4, x4
	load	ldrsbw, ldrsb, w4, x4
	load	ldrshw, ldrsh, w4, x4
	load	ldrsbx, ldrsb, x4, x4
	load	ldrshx, ldrsh, x4, x4
	load	ldrswx, ldrsw, x4, x4

	load	ldarb, ldarb, w4, x4
	load	ldarh, ldarh, w4, x4
	load	ldarw, ldar, w4, x4
	load	ldarx, ldar, x4, x4

	load	ldaprb, ldaprb, w4, x4
	load	ldaprh, ldaprh, w4, x4
	load	ldaprw, ldapr, w4, x4
	load	ldaprx, ldapr, x4, x4
	load_extend ldaprsbw, ldaprb, sxtb, w4
	load_extend ldaprshw, ldaprh, sxth, w4
	load_extend ldaprsbx, ldaprb, sxtb, x4
	load_extend ldaprshx, ldaprh, sxth, x4
	load_extend ldaprswx, ldapr, sxtw, x4

	load	ldr_b, ldr, b0, q0
	load	ldr_h, ldr, h0, q0
	load	ldr_s, ldr, s0, q0
	load	ldr_d, ldr, d0, q0
	/* x86's aligned 16 bytes are whole. LDR and STR of Q are two accesses of 8 bytes, LDP and STP of X within 16 aligned bytes are one where there is
	 * FEAT_LSE2 (Arm ARM B2.2.1), which all processors with MTE have: Armv8.4 demands it. */
	routine	ldr_q
	ldp	x4, x5, [x0]
	access_done ldr_q
	stp	x4, x5, [x1]
	done	ldr_q

	load_lane lane_b, ldrb, strb, w4
	load_lane lane_h, ldrh, strh, w4
	load_lane lane_s, ldr, str, w4
	load_lane lane_d, ldr, str, x4

	load_pair ldpw, ldp, w4, w5, x4, x5
	load_pair ldpx, ldp, x4, x5, x4, x5
	load_pair ldpsw, ldpsw, x4, x5, x4, x5
	load_pair ldp_s, ldp, s0, s1, q0, q1
	load_pair ldp_d, ldp, d0, d1, q0, q1
	load_pair ldp_q, ldp, q0, q1, q0, q1

	store	strb, ldrb, strb, w4
	store	strh, ldrh, strh, w4
	store	strw, ldr, str, w4
	store	strx, ldr, str, x4
	store	stlrb, ldrb, stlrb, w4
	store	stlrh, ldrh, stlrh, w4
	store	stlrw, ldr, stlr, w4
	store	stlrx, ldr, stlr, x4
	routine	str_q
	ldp	x4, x5, [x1]
	stp	x4, x5, [x0]
	access_done str_q
	done	str_q

	store_pair stpw, w4, w5
	store_pair stpx, x4, x5
	store_pair stp_q, q0, q1

	lse	ldadd
	lse	ldclr
	lse	ldeor
	lse	ldset
	lse	ldsmax
	lse	ldsmin
	lse	ldumax
	lse	ldumin
	lse	swp

	cas	casb, casalb, w4, w5
	cas	cash, casalh, w4, w5
	cas	casw, casal, w4, w5
	cas	casx, casal, x4, x5
	casp	caspw, w4, w5, w6, w7
	casp	caspx, x4, x5, x6, x7

	/* 8-byte elements: at least the atomicity of any smaller element. */
	load_multi ld1_d1, v0.1d
	load_multi ld1_d2, v0.1d, v1.1d
	load_multi ld1_d3, v0.1d, v1.1d, v2.1d
	load_multi ld1_d4, v0.1d, v1.1d, v2.1d, v3.1d
	load_multi ld1_q1, v0.2d
	load_multi ld1_q2, v0.2d, v1.2d
	load_multi ld1_q3, v0.2d, v1.2d, v2.2d
	load_multi ld1_q4, v0.2d, v1.2d, v2.2d, v3.2d
	store_multi st1_d1, v0.1d
	store_multi st1_d2, v0.1d, v1.1d
	store_multi st1_d3, v0.1d, v1.1d, v2.1d
	store_multi st1_d4, v0.1d, v1.1d, v2.1d, v3.1d
	store_multi st1_q1, v0.2d
	store_multi st1_q2, v0.2d, v1.2d
	store_multi st1_q3, v0.2d, v1.2d, v2.2d
	store_multi st1_q4, v0.2d, v1.2d, v2.2d, v3.2d

	routine	ldg
	ldg	x0, [x0]
	access_done ldg
	str	x0, [x1]
	done	ldg

	routine	zva
	dc	zva, x0
	access_done zva
	done	zva
	.endm

	.balign	64
	label	tagtso_access_begin
	.set	twin, 0
	routines
	.set	twin, 1
	routines

	.inst	0xd428bc00		/* RSEQ_SIG, which the kernel wants to see before the address that it goes to */
	label	tagtso_access_moved
	.cfi_startproc
	mov	w4, #11			/* SIGSEGV */
	mov	w5, #9			/* SEGV_MTESERR */
	stp	w4, w5, [x3]
	mov	x0, #1
	ret
	.cfi_endproc
	.size	tagtso_access_moved, . - tagtso_access_moved
	label	tagtso_access_end

	label	tagtso_access_failed
	.cfi_startproc
	mov	x0, #1
	ret
	.cfi_endproc

	.section .note.GNU-stack, "", %progbits
