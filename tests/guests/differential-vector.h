/* SPDX-License-Identifier: MIT */
/* SIMD&FP accesses while Z registers are live. Part of differential.c. */
#ifndef TAGTSO_TESTS_DIFFERENTIAL_VECTOR_H
#define TAGTSO_TESTS_DIFFERENTIAL_VECTOR_H

#include "differential-span.h"

/* ---- SVE ------------------------------------------------------------------------------------------------------------------ */

/* Z registers are live and full when the word between them traps; then z3 to z6 are stored. */
__asm__(".arch_extension sve");
SHAPE(vectors, "dup z3.b, #0x55; dup z4.b, #0x55; dup z5.b, #0x55; dup z6.b, #0x55; nop;"
               "str z3, [x5]; str z4, [x5, #1, mul vl]; str z5, [x5, #2, mul vl]; str z6, [x5, #3, mul vl]");
enum { VECTORS_HOLE = 4 };

static const struct vector_word {
	uint32_t word;
	const char *text;
} vector_words[] = {
	{ 0x3d400043, "ldr b3, [x2]" },
	{ 0xfd400043, "ldr d3, [x2]" },
	{ 0x3dc00043, "ldr q3, [x2]" },
	{ 0xad401043, "ldp q3, q4, [x2]" },
	{ 0x2d401043, "ldp s3, s4, [x2]" },
	{ 0x4d40c843, "ld1r {v3.4s}, [x2]" },
	{ 0x0d40c443, "ld1r {v3.4h}, [x2]" },
	{ 0x4d408043, "ld1 {v3.s}[2], [x2]" },
	{ 0x4c402c43, "ld1 {v3.2d-v6.2d}, [x2]" },
	{ 0x0c40a043, "ld1 {v3.8b,v4.8b}, [x2]" },
};

static bool same_vectors(struct sandbox *box, const struct vector_word *vector, unsigned bytes)
{
	static unsigned char native[4 * 256];
	uint64_t store = (uint64_t)box->base + DATA2;
	struct instance it = { .class = "sve-live", .word = vector->word };
	bool same = true;

	under_test = &it;
	tagtso_decode(vector->word, &it.op);
	it.address = (uint64_t)box->base + DATA + 64;
	for (unsigned how = 0; how < (have_mte ? 3 : 2); how++) {
		memset(&box->in, 0, sizeof(box->in));
		box->in.r[2] = it.address;
		box->in.r[5] = (uint64_t)data_pointer(store);
		box->interpret = interpret_span; /* its path for ordinary accesses */
		box->trapped = vector->word;
		box->mte = how == 2;
		put_word(box, MIDDLE + VECTORS_HOLE, how == 1 ? (uint32_t)BRK_TRAP : vector->word);
		memset(data_pointer(store), 0, 4 * bytes);
		run(box);
		same &= !box->faulted && box->result == TAGTSO_EXEC_DONE && box->traps == (how > 0);
		if (how > 0) {
			same &= !memcmp(native, data_pointer(store), 4 * bytes);
			continue;
		}
		memcpy(native, data_pointer(store), 4 * bytes);
		/* A write of V zeroes the rest of Z (Arm ARM, V[] assignment), but QEMU 10's of one lane does not. */
		if (it.op.cls == TAGTSO_LOAD_LANE)
			memset(native + 16, 0, bytes - 16);
	}
	box->mte = false;
	return same;
}

static void vectors_of(unsigned wanted_bytes)
{
	unsigned before = failures, bytes = (unsigned)prctl(PR_SVE_SET_VL, wanted_bytes) & PR_SVE_VL_LEN_MASK;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	put_words(&box, shape_vectors, (unsigned)(shape_end_vectors - shape_vectors), false);
	for (unsigned i = 0; i < 64; i++)
		((char *)data_pointer((uint64_t)box.base + DATA + 64))[i] = (char)(i + 1);
	for (unsigned i = 0; i < sizeof(vector_words) / sizeof(vector_words[0]); i++) {
		if (!same_vectors(&box, &vector_words[i], bytes))
			failed("sve-live", i, vector_words[i].word, vector_words[i].text, "Z registers differ");
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence), "SIMD loads zero the rest of live %u-bit Z registers and keep the others",
	         bytes * 8);
	result(failures == before, sentence);
}

static void vectors(void)
{
	if (!(getauxval(AT_HWCAP) & HWCAP_SVE)) {
		printf("# sve: not here: this processor has none\n");
		return;
	}
	vectors_of(64);
	vectors_of(256); /* too long for the frame: extra_context */
	vectors_of(16);
}

#endif
