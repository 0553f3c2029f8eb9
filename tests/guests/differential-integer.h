/* SPDX-License-Identifier: MIT */
/* Words that tagtso_alu_step() carries out: registers, flags and pc. Part of differential.c. */
#ifndef TAGTSO_TESTS_DIFFERENTIAL_INTEGER_H
#define TAGTSO_TESTS_DIFFERENTIAL_INTEGER_H

#include "differential.h"

/* ---- integer instructions and branches ---------------------------------------------------------------------------------- */

static enum tagtso_exec interpret_integer(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	(void)box;
	return tagtso_alu_step(word, frame->x) ? TAGTSO_EXEC_DONE : TAGTSO_EXEC_UNKNOWN;
}

/* Shortens a branch, so that it stays on the page, where every other word is BRK_EXIT. */
static uint32_t shorten(struct random *random, uint32_t word)
{
	uint32_t near = below(random, CODE_WORDS - 2) + 1 - MIDDLE;

	if (near + 1 < 2) /* to itself or to START: a loop without end */
		near = 1;
	if ((word & 0x7c000000) == 0x14000000)
		return (word & ~0x3ffffffu) | (near & 0x3ffffff);
	if ((word & 0x7e000000) == 0x36000000)
		return (word & ~(0x3fffu << 5)) | (near & 0x3fff) << 5;
	if ((word & 0x7e000000) == 0x34000000 || (word & 0xfe000000) == 0x54000000)
		return (word & ~(0x7ffffu << 5)) | (near & 0x7ffff) << 5;
	return word;
}

static bool have_flagm(void)
{
	return getauxval(AT_HWCAP) & HWCAP_FLAGM;
}

/* RMIF, SETF8, SETF16, CFINV */
static bool needs_flagm(uint32_t word)
{
	return (word & 0xffe07c10) == 0xba000400 || (word & 0xffffbc1f) == 0x3a00080d ||
	       (word & 0xfffff0ff) == 0xd500401f;
}

/* Words of the integer and branch groups that the interpreter says it knows. Unallocated ones among them show as native faults. */
static uint32_t integer_word(struct random *random, bool branches)
{
	static const uint32_t systems[] = { 0xd503201f, 0xd53b4200, 0xd51b4200, 0xd500401f,
		                            0xd61f0000, 0xd63f0000, 0xd65f0000 };
	static const uint32_t groups[] = { 0x10000000, 0x0a000000, 0x14000000 };
	uint32_t word;

	for (;;) {
		unsigned long long r[TAGTSO_NREGS] = { 0 };
		unsigned group = below(random, branches ? 3 : 2);

		if (group == 2 && chance(random, 20)) {
			word = systems[below(random, 7)];
			word |= (word & 0xff000000) == 0xd6000000 ? below(random, 31) << 5
			        : word & 0x200000                 ? below(random, 32)
			                                          : 0;
			if (word == 0xd503201f + 31)
				word = 0xd503201f;
		} else {
			word = groups[group] | ((uint32_t)next(random) & ~(group == 1 ? 0x0e000000u : 0x1c000000u));
			if (group == 1 && chance(random, 50)) /* the crowded corner */
				word = (word & 0xe11fffff) | 0x1a000000 | (below(random, 4) * 2) << 21;
			if (group == 1 && (word & 0x5fe00000) == 0x5ac00000 && chance(random, 80))
				word &= ~0x1fe000u;
			if (group == 1 && (word & 0x1fe00000) == 0x1a000000 && chance(random, 50))
				word &= ~0xfc00u;
			word = shorten(random, word);
		}
		if (tagtso_alu_step(word, r) && (have_flagm() || !needs_flagm(word)))
			return word;
	}
}

static void integers(void)
{
	unsigned before = failures, count = options.count * 10;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	box.interpret = interpret_integer;
	for (unsigned i = 0; i < count; i++) {
		struct random random = random_of("integer", i);
		struct registers native;
		const char *what;
		uint32_t word;

		if (options.only >= 0 && options.only != i)
			continue;
		word = integer_word(&random, true);
		fill_registers(&random, &box.in);
		if ((word & 0xfe000000) == 0xd6000000) /* BR, BLR, RET stay on the page */
			box.in.r[word >> 5 & 31] = (uint64_t)&box.code[below(&random, START)];
		if (chance(&random, 20) && (word & 0x1e000000) == 0x0a000000)
			box.in.r[word >> 16 & 31] = box.in.r[word >> 5 & 31]; /* equal operands */
		put_word(&box, MIDDLE, word);
		run(&box);
		if (box.faulted) {
			failed("integer", i, word, "natively", "faulted, but the interpreter says that it knows it");
			continue;
		}
		native = box.out;
		put_word(&box, MIDDLE, BRK_TRAP);
		box.trapped = word;
		run(&box);
		what = difference_of_registers(&native, &box.out);
		if (what)
			failed("integer", i, word, "in place of a breakpoint", what);
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence),
	         "%u integer instructions and branches: registers, flags and pc are those of the processor", count);
	result(failures == before, sentence);
}

#endif
