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
	label	tagtso_access_\name
	.cfi_startproc
	.endm

	.macro	done name
	mov	x0, #0
	ret
	.cfi_endproc
	.size	tagtso_access_\name, . - tagtso_access_\name
	.endm

	/* image is the whole register: a W, B, H, S or D load has zeroed the rest of it. */
	.macro	load name, instruction, register, image
	routine	\name
	\instruction \register, [x0]
	str	\image, [x1]
	done	\name
	.endm

	/* LDAPURS* exist, but LDAPUR costs more on some cores (erratum 3877900), and QEMU 10 does not check its tags. */
	.macro	load_extend name, instruction, extend, register
	routine	\name
	\instruction w4, [x0]
	\extend	\register, w4
	str	x4, [x1]
	done	\name
	.endm

	.macro	load_pair name, instruction, r1, r2, image1, image2
	routine	\name
	\instruction \r1, \r2, [x0]
	str	\image1, [x1]
	str	\image2, [x2]
	done	\name
	.endm

	/* fetch: how to read exactly the element, which may be a lane at the end of a vector. */
	.macro	store name, fetch, instruction, register
	routine	\name
	\fetch	\register, [x1]
	\instruction \register, [x0]
	done	\name
	.endm

	.macro	store_pair name, r1, r2
	routine	\name
	ldr	\r1, [x1]
	ldr	\r2, [x2]
	stp	\r1, \r2, [x0]
	done	\name
	.endm

	/* One element of a vector: only its bytes of the image are written. */
	.macro	load_lane name, instruction, save, register
	routine	\name
	\instruction \register, [x0]
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
	str	x4, [x1]
	done	\name
	.endm

	/* The same with two registers side by side in each image. */
	.macro	casp name, r1, r2, r3, r4
	routine	\name
	ldp	x4, x5, [x1]
	ldp	x6, x7, [x2]
	caspal	\r1, \r2, \r3, \r4, [x0]
	stp	x4, x5, [x1]
	done	\name
	.endm

	/* first: up to four whole vectors side by side. */
	.macro	load_multi name, image:vararg
	routine	\name
	ld1	{\image}, [x0]
	stp	q0, q1, [x1]
	stp	q2, q3, [x1, #32]
	done	\name
	.endm

	.macro	store_multi name, image:vararg
	routine	\name
	ldp	q0, q1, [x1]
	ldp	q2, q3, [x1, #32]
	st1	{\image}, [x0]
	done	\name
	.endm

	.balign	64
label	tagtso_access_begin

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
	str	x0, [x1]
	done	ldg

	routine	zva
	dc	zva, x0
	done	zva

label	tagtso_access_end

label	tagtso_access_failed
	.cfi_startproc
	mov	x0, #1
	ret
	.cfi_endproc

	.section .note.GNU-stack, "", %progbits
