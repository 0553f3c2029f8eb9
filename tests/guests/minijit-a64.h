/* SPDX-License-Identifier: MIT */
/* Encoders of the A64 instructions that minijit emits. A table of opcodes with all fields 0, and the fields (Arm ARM C4.1). */
#ifndef TAGTSO_TESTS_MINIJIT_A64_H
#define TAGTSO_TESTS_MINIJIT_A64_H

#include <stdint.h>

enum { XZR = 31, SP = 31 };

#define DMB_SY UINT32_C(0xd5033fbf)
#define DMB_ST UINT32_C(0xd5033ebf)
#define DMB_LD UINT32_C(0xd5033dbf)
#define DMB_ISH UINT32_C(0xd5033bbf)
#define DMB_ISHLD UINT32_C(0xd50339bf)
#define NOP UINT32_C(0xd503201f)
#define RET UINT32_C(0xd65f03c0)

/* Loads and stores: size at 31:30 as log2 of bytes. */
#define LOG2(size) ((uint32_t)__builtin_ctz(size) << 30)
#define STR_UIMM UINT32_C(0x39000000) /* imm12 / size at 21:10 */
#define LDR_UIMM UINT32_C(0x39400000)
#define LDRS_UIMM UINT32_C(0x39800000) /* to 64 bits */
#define STUR UINT32_C(0x38000000)      /* imm9 at 20:12 */
#define LDUR UINT32_C(0x38400000)
#define LDURS UINT32_C(0x38800000)
#define STR_REG UINT32_C(0x38206800) /* Rm at 20:16, LSL #0 */
#define LDR_REG UINT32_C(0x38606800)
#define LDRS_REG UINT32_C(0x38a06800)
#define STR_PRE UINT32_C(0x38000c00) /* imm9 */
#define LDR_POST UINT32_C(0x38400400)
#define LDAPR_ UINT32_C(0x38bfc000)
#define LDAR_ UINT32_C(0x08dffc00)
#define STLR_ UINT32_C(0x089ffc00)
#define LDAPUR_ UINT32_C(0x19400000) /* imm9 */
#define STLUR_ UINT32_C(0x19000000)
#define LDADDAL UINT32_C(0x38e00000) /* Rs at 20:16 */
#define LDADDL UINT32_C(0x38600000)
#define SWPAL UINT32_C(0x38e08000)
#define CASAL UINT32_C(0x08e0fc00) /* Rs is what is compared, and the old value */
#define LDAXR UINT32_C(0x085ffc00)
#define STLXR UINT32_C(0x0800fc00) /* Rs the status */
/* of 16 bytes, SIMD&FP */
#define STR_Q UINT32_C(0x3d800000) /* imm12 / 16 */
#define LDR_Q UINT32_C(0x3dc00000)
#define STUR_Q UINT32_C(0x3c800000)
#define LDUR_Q UINT32_C(0x3cc00000)
/* of pairs of doublewords: imm7 / 8 at 21:15, Rt2 at 14:10 */
#define STP UINT32_C(0xa9000000)
#define LDP UINT32_C(0xa9400000)
#define STP_PRE UINT32_C(0xa9800000)
#define LDP_POST UINT32_C(0xa8c00000)

static inline uint32_t a64_rt_rn(uint32_t op, unsigned rt, unsigned rn)
{
	return op | rn << 5 | rt;
}
static inline uint32_t a64_imm9(uint32_t op, unsigned rt, unsigned rn, int off)
{
	return op | ((uint32_t)off & 511) << 12 | rn << 5 | rt;
}
static inline uint32_t a64_pair(uint32_t op, unsigned rt, unsigned rt2, unsigned rn, int off)
{
	return op | ((uint32_t)(off / 8) & 127) << 15 | rt2 << 10 | rn << 5 | rt;
}
static inline uint32_t a64_rs(uint32_t op, unsigned rs, unsigned rt, unsigned rn)
{
	return op | rs << 16 | rn << 5 | rt;
}

/* Arithmetic: Rm at 20:16, Rn at 9:5, Rd at 4:0. */
#define ADD_REG UINT32_C(0x8b000000)
#define SUB_REG UINT32_C(0xcb000000)
#define SUBS_REG UINT32_C(0xeb000000)
#define EOR_REG UINT32_C(0xca000000)
#define AND_REG UINT32_C(0x8a000000)
#define ORR_REG UINT32_C(0xaa000000)
#define MADD UINT32_C(0x9b000000)    /* Ra at 14:10 */
#define ADD_IMM UINT32_C(0x91000000) /* imm12 at 21:10 */
#define SUB_IMM UINT32_C(0xd1000000)
#define EXTR UINT32_C(0x93c00000) /* lsb at 15:10 */
#define UBFM UINT32_C(0xd3400000) /* immr at 21:16, imms at 15:10 */
#define CLZ UINT32_C(0xdac01000)
#define MOVZ UINT32_C(0xd2800000) /* hw at 22:21, imm16 at 20:5 */
#define MOVK UINT32_C(0xf2800000)
#define ADR UINT32_C(0x10000000)
#define BR UINT32_C(0xd61f0000)
#define BLR UINT32_C(0xd63f0000)
#define MRS_NZCV UINT32_C(0xd53b4200)
#define MSR_NZCV UINT32_C(0xd51b4200)
#define ADD_2D UINT32_C(0x4ee08400)
#define DUP_2D UINT32_C(0x4e080c00)
#define UMOV_D UINT32_C(0x4e083c00)

static inline uint32_t a64_3(uint32_t op, unsigned rd, unsigned rn, unsigned rm)
{
	return op | rm << 16 | rn << 5 | rd;
}
static inline uint32_t a64_imm12(uint32_t op, unsigned rd, unsigned rn, unsigned imm)
{
	return op | imm << 10 | rn << 5 | rd;
}

/* Branches by words. */
static inline uint32_t a64_b(int words)
{
	return UINT32_C(0x14000000) | ((uint32_t)words & 0x3ffffff);
}
static inline uint32_t a64_cbnz(unsigned rt, int words)
{
	return UINT32_C(0xb5000000) | ((uint32_t)words & 0x7ffff) << 5 | rt;
}
static inline uint32_t a64_cbz(unsigned rt, int words)
{
	return UINT32_C(0xb4000000) | ((uint32_t)words & 0x7ffff) << 5 | rt;
}
static inline uint32_t a64_bcond(unsigned condition, int words)
{
	return UINT32_C(0x54000000) | ((uint32_t)words & 0x7ffff) << 5 | condition;
}

#endif
