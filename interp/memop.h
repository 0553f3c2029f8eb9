/* SPDX-License-Identifier: MIT */
/* One decoded A64 memory instruction: what the decoder makes, and what execution, forms and tests read. */
#ifndef TAGTSO_INTERP_MEMOP_H
#define TAGTSO_INTERP_MEMOP_H

#include <stdint.h>

/* What the instruction does to memory. */
enum tagtso_class {
	TAGTSO_OTHER = 0, /* not a memory access at all */
	TAGTSO_UNKNOWN, /* in the loads-and-stores space, or a cache operation that accesses memory, but not in our table */
	TAGTSO_LOAD,          /* one register: LDR*, LDUR*, LDTR*, LDAR, LDLAR, LDAPR, LDAPUR, SIMD&FP LDR/LDUR */
	TAGTSO_STORE,         /* one register: STR*, STUR*, STTR*, STLR, STLLR, STLUR, SIMD&FP STR/STUR */
	TAGTSO_LOAD_PAIR,     /* LDP, LDPSW, LDNP, SIMD&FP LDP/LDNP */
	TAGTSO_STORE_PAIR,    /* STP, STNP, SIMD&FP STP/STNP */
	TAGTSO_LSE,           /* LD<op>, ST<op> (rt = 31) and SWP: op says which */
	TAGTSO_CAS,           /* CAS*: rs = compare and result, rt = new */
	TAGTSO_CASP,          /* CASP*: rs, rs+1 compare and result; rt, rt+1 new */
	TAGTSO_LOAD_EX,       /* LDXR, LDAXR */
	TAGTSO_STORE_EX,      /* STXR, STLXR: rs = status */
	TAGTSO_LOAD_EX_PAIR,  /* LDXP, LDAXP */
	TAGTSO_STORE_EX_PAIR, /* STXP, STLXP */
	TAGTSO_LOAD_LANE,     /* LD1 single lane: element `index` of vector rt */
	TAGTSO_STORE_LANE,    /* ST1 single lane */
	TAGTSO_LOAD_DUP,      /* LD1R: rt2 = 1 if the destination is 128 bits wide (Q), else 64 */
	TAGTSO_LOAD_MULTI, /* LD1 {1..4 whole vectors}, no interleaving: count vectors of (8 << q) bytes; after v31 comes v0 */
	TAGTSO_STORE_MULTI, /* ST1 {1..4 whole vectors} */
	TAGTSO_PREFETCH,    /* PRFM, PRFUM: accesses nothing that can be seen */
	TAGTSO_ZERO_BLOCK,  /* DC ZVA: rt = rn = address register, never 31 */
	TAGTSO_OUT_OF_LINE, /* executed as it is (outofline.h); tagtso_exec() has nothing for it. Fields: see tagtso_reach */
	TAGTSO_TAG, /* LDG, STG, STGP, DC GVA and relatives: their accesses are not checked, so that they never trap */
	TAGTSO_NCLASSES
};

/* TAGTSO_LSE: which operation. The first eight are the encoding's opc field. */
enum tagtso_lse {
	TAGTSO_LSE_ADD,
	TAGTSO_LSE_CLR,
	TAGTSO_LSE_EOR,
	TAGTSO_LSE_SET,
	TAGTSO_LSE_SMAX,
	TAGTSO_LSE_SMIN,
	TAGTSO_LSE_UMAX,
	TAGTSO_LSE_UMIN,
	TAGTSO_LSE_SWP,
};

/* How the address is made. rn = 31 is always SP; rm = 31 is XZR. */
enum tagtso_addressing {
	TAGTSO_ADDR_OFFSET,   /* rn + imm */
	TAGTSO_ADDR_PRE,      /* rn + imm, written back to rn */
	TAGTSO_ADDR_POST,     /* rn; then rn += imm */
	TAGTSO_ADDR_POST_REG, /* rn; then rn += x[rm] (structure loads and stores) */
	TAGTSO_ADDR_REG,      /* rn + extend(rm, extend) << shift */
	TAGTSO_ADDR_LITERAL,  /* pc + imm */
};

/* TAGTSO_OUT_OF_LINE, in memop.addressing: which memory the instruction may access. Vectors have elements of 4 << (size - 2) bytes. */
enum tagtso_reach {
	TAGTSO_REACH_NEAR = 16, /* one range of less than a page: all of it is less than a page from where it faults */
	TAGTSO_REACH_OFFSETS, /* rn (31 = SP) + extend(z[rm], extend) << shift, where predicate rs is set; extend 2, 6, 3 as above */
	TAGTSO_REACH_VECTOR,    /* z[rn] + imm + x[rm], where predicate rs is set */
	TAGTSO_REACH_QUADWORDS, /* z[rn] + x[rm], for some of its elements: LD1Q, ST1Q */
	TAGTSO_REACH_COPY,      /* MOPS CPY*: rt = destination, rs = source, rn = size; index = 1 after the prologue */
	TAGTSO_REACH_FILL,      /* MOPS SET*: rt = destination, rn = size; index = 1 after the prologue */
};

/* Bits of tagtso_memop.flags. */
enum {
	TAGTSO_F_VECTOR = 1 << 0,  /* rt, rt2 are SIMD&FP registers */
	TAGTSO_F_SIGNED = 1 << 1,  /* sign-extending load */
	TAGTSO_F_WIDE = 1 << 2,    /* sign extension is to 64 bits (else to 32, upper half zero) */
	TAGTSO_F_ACQUIRE = 1 << 3, /* the encoding asks for acquire (LDAR, LDAPR, LDAXR, LSE A) */
	TAGTSO_F_RELEASE = 1 << 4, /* the encoding asks for release */
	TAGTSO_F_RCPC = 1 << 5,    /* LDAPR, LDAPUR: acquire in the RCpc sense */
	TAGTSO_F_Q = 1 << 6,       /* structure forms: 128-bit vectors */
	TAGTSO_F_LOAD = 1 << 7,    /* reads memory */
	TAGTSO_F_STORE = 1 << 8,   /* writes memory */
	TAGTSO_F_UNPRIV = 1 << 9,  /* LDTR, STTR: at EL0 the same as the plain form */
};

/* 24 bytes: it is copied into each site. A register field that the instruction does not have is 31 (rn: LITERAL only). */
struct tagtso_memop {
	uint32_t word;               /* the instruction */
	int32_t imm;                 /* byte offset, scaled already; pc-relative for LITERAL */
	uint16_t flags;              /* TAGTSO_F_* */
	uint8_t cls;                 /* enum tagtso_class */
	uint8_t addressing;          /* enum tagtso_addressing */
	uint8_t size;                /* log2 of the bytes of one element: 0..4 (4 = 128 bits) */
	uint8_t count;               /* elements transferred: 1; 2 for pairs and CASP; vectors for MULTI */
	uint8_t lse;                 /* enum tagtso_lse, for TAGTSO_LSE */
	uint8_t rt, rt2, rn, rm, rs; /* PREFETCH: rt is the prefetch operation */
	uint8_t extend;              /* REG: the option field (2 UXTW, 3 LSL/UXTX, 6 SXTW, 7 SXTX) */
	uint8_t shift;               /* REG: left shift 0..4 */
	uint8_t index;               /* LANE: lane number */
	uint8_t regwidth;            /* general-purpose register: 32 or 64 bits; 0 for vectors and PREFETCH */
};
_Static_assert(sizeof(struct tagtso_memop) == 24, "sites hold a copy");

#endif
