/* SPDX-License-Identifier: MIT */
/* The class of an A64 instruction word, for the plugins. */
#ifndef TAGTSO_TESTS_CLASSES_H
#define TAGTSO_TESTS_CLASSES_H

#include <glib.h>
#include <stdint.h>

#define CLASSES(X) \
	X(OTHER, "other")     /* no access to memory that is counted below */ \
	X(LOAD, "load")       /* plain: any size, pairs, SIMD, SVE, exclusive without acquire */ \
	X(STORE, "store")     /* plain */ \
	X(ACQUIRE, "acquire") /* LDAR LDAPR LDAPUR LDLAR LDIAPP LDAXR LDAXP */ \
	X(RELEASE, "release") /* STLR STLUR STLLR STILP STLXR STLXP */ \
	X(ATOMIC, "atomic")   /* LSE: CAS CASP SWP LDADD and the like, whatever their order */ \
	X(DMB_ISHLD, "dmb_ishld") \
	X(DMB_ISHST, "dmb_ishst") \
	X(DMB_ISH, "dmb_ish") \
	X(DMB_OTHER, "dmb_other") /* another domain: LD, ST, SY, ... */ \
	X(DSB, "dsb") \
	X(IRG, "irg") \
	X(LDG, "ldg") \
	X(STG, "stg") /* every instruction that writes tags */ \
	X(SVC, "svc")

enum {
#define X(id, name) CLASS_##id,
	CLASSES(X)
#undef X
		CLASS_COUNT
};

static const char *const class_names[] = {
#define X(id, name) name,
	CLASSES(X)
#undef X
};

/* First match wins. The order matters only where a comment says so. */
static const struct {
	uint32_t mask, value;
	int class;
} encodings[] = {
	{ 0xfffff0ff, 0xd50330bf, CLASS_DMB_OTHER }, /* refined by CRm in classify() */
	{ 0xfffff0ff, 0xd503309f, CLASS_DSB },
	{ 0xffe0001f, 0xd4000001, CLASS_SVC },
	{ 0xffe0fc00, 0x9ac01000, CLASS_IRG },
	{ 0xffe00c00, 0xd9600000, CLASS_LDG },
	{ 0xff200000, 0xd9200000, CLASS_STG }, /* after LDG, which is one of them */
	{ 0xffc00000, 0x69000000, CLASS_STG }, /* STGP: offset, pre-index, post-index */
	{ 0xffc00000, 0x69800000, CLASS_STG },
	{ 0xffc00000, 0x68800000, CLASS_STG },

	{ 0xffc00000, 0xf9800000, CLASS_OTHER }, /* PRFM, four forms */
	{ 0xffe00c00, 0xf8800000, CLASS_OTHER },
	{ 0xffe00c00, 0xf8a00800, CLASS_OTHER },
	{ 0xff000000, 0xd8000000, CLASS_OTHER },

	/* size 001000 o2 L o1 Rs o0 Rt2 Rn Rt: exclusive, ordered, compare and swap */
	{ 0x3fa07c00, 0x08a07c00, CLASS_ATOMIC },  /* CAS */
	{ 0xbfa07c00, 0x08207c00, CLASS_ATOMIC },  /* CASP */
	{ 0x3fc00000, 0x08c00000, CLASS_ACQUIRE }, /* LDAR, LDLAR */
	{ 0x3fc00000, 0x08800000, CLASS_RELEASE }, /* STLR, STLLR */
	{ 0x3fc08000, 0x08408000, CLASS_ACQUIRE }, /* LDAXR, LDAXP */
	{ 0x3fc08000, 0x08008000, CLASS_RELEASE }, /* STLXR, STLXP */
	{ 0x3fc08000, 0x08400000, CLASS_LOAD },    /* LDXR, LDXP */
	{ 0x3fc08000, 0x08000000, CLASS_STORE },   /* STXR, STXP */

	{ 0x3ffffc00, 0x38bfc000, CLASS_ACQUIRE }, /* LDAPR, which sits among the atomics */
	{ 0x3f200c00, 0x38200000, CLASS_ATOMIC },
	{ 0x3be00c00, 0x19000000, CLASS_RELEASE }, /* STLUR, integer and SIMD */
	{ 0x3b200c00, 0x19000000, CLASS_ACQUIRE }, /* LDAPUR, after STLUR */
	{ 0x3fe00c00, 0x19000800, CLASS_RELEASE }, /* STILP */
	{ 0x3fe00c00, 0x19400800, CLASS_ACQUIRE }, /* LDIAPP */
	{ 0x3fe00c00, 0x19800800, CLASS_RELEASE }, /* STLR, pre-index */
	{ 0x3fe00c00, 0x19c00800, CLASS_ACQUIRE }, /* LDAPR, post-index */
	{ 0x3b200c00, 0x19000400, CLASS_STORE },   /* CPY*, SET*: they load as well, and are counted once */

	{ 0x3b000000, 0x18000000, CLASS_LOAD }, /* literal */
	{ 0x3a400000, 0x28400000, CLASS_LOAD }, /* pairs */
	{ 0x3a400000, 0x28000000, CLASS_STORE },
	{ 0xff200400, 0xf8200400, CLASS_LOAD },  /* LDRAA, LDRAB */
	{ 0x3ec00000, 0x38000000, CLASS_STORE }, /* one integer register: only opc 00 stores */
	{ 0x3e000000, 0x38000000, CLASS_LOAD },
	{ 0x3e400000, 0x3c400000, CLASS_LOAD }, /* one SIMD register */
	{ 0x3e400000, 0x3c000000, CLASS_STORE },
	{ 0xbe400000, 0x0c400000, CLASS_LOAD }, /* SIMD structures */
	{ 0xbe400000, 0x0c000000, CLASS_STORE },
	{ 0xfe000000, 0xe4000000, CLASS_STORE }, /* SVE: 111 stores, the other three with bit 31 load */
	{ 0x9e000000, 0x84000000, CLASS_LOAD },
};

static inline int classify(uint32_t word)
{
	for (size_t i = 0; i < G_N_ELEMENTS(encodings); i++) {
		if ((word & encodings[i].mask) != encodings[i].value)
			continue;
		if (encodings[i].class != CLASS_DMB_OTHER)
			return encodings[i].class;
		switch (word >> 8 & 15) {
		case 9:
			return CLASS_DMB_ISHLD;
		case 10:
			return CLASS_DMB_ISHST;
		case 11:
			return CLASS_DMB_ISH;
		default:
			return CLASS_DMB_OTHER;
		}
	}
	return CLASS_OTHER;
}

#endif
