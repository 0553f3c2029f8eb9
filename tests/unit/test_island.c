/* SPDX-License-Identifier: MIT */
/* A thread that is interrupted anywhere in an island is found where it would be in the code as emitted. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "interp/code.h"
#include "interp/decode.h"
#include "interp/island.h"

static const uint64_t site_distance = 4096;
static struct tagtso_island *island;
static struct tagtso_site site;

static uint64_t random_bits(void)
{
	static uint64_t s = 0x9e3779b97f4a7c15;

	s ^= s << 13;
	s ^= s >> 7;
	return s ^= s << 17;
}

static void begin(void)
{
	island = aligned_alloc(TAGTSO_ISLAND_UNIT, tagtso_island_bytes(TAGTSO_ISLAND_WORDS, 1));
	ck_assert_ptr_nonnull(island);
}

static void end(void)
{
	free(island);
}

/* Owners are threads, or CPUs. */
static const struct tagtso_scratch owners[] = { { .a = 8, .b = 9 }, { .a = 8, .b = 9, .number = 24, .area = -0x2a0 } };

/* The number of words of the island for `word`, 0 if it has none of this form. */
static unsigned make(uint32_t word, enum tagtso_form form, struct tagtso_scratch scratch)
{
	uint64_t pc = (uintptr_t)island + site_distance;
	uint32_t words[TAGTSO_ISLAND_WORDS];
	unsigned n;

	memset(&site, 0, sizeof(site));
	atomic_store(&site.pc, pc);
	if (!tagtso_decode(word, &site.op))
		return 0;
	n = tagtso_form_encode(&site.op, form, scratch, pc, (uintptr_t)island->code, words);
	*island = (struct tagtso_island){ .pc = pc, .ncode = (uint16_t)n, .norig = 1 };
	if (n)
		tagtso_island_write(island, word, words, scratch);
	return n;
}

static bool is_own_access(uint32_t word)
{
	struct tagtso_memop op;

	return tagtso_decode(word, &op) && op.cls == site.op.cls && op.rn != 9; /* a scratch register: the rseq area */
}

/* What the write-back adds. */
static uint64_t advance(const unsigned long long *r)
{
	switch (site.op.addressing) {
	case TAGTSO_ADDR_PRE:
	case TAGTSO_ADDR_POST:
		return (uint64_t)(int64_t)site.op.imm;
	case TAGTSO_ADDR_POST_REG:
		return site.op.rm == 31 ? 0 : r[site.op.rm];
	default:
		return 0;
	}
}

static void leave_from(unsigned at, const unsigned long long *before, unsigned long long *after)
{
	memcpy(after, before, TAGTSO_NREGS * sizeof(*after));
	after[TAGTSO_PC] = (uintptr_t)&island->code[at];
	tagtso_island_leave(island, after);
}

static void check_everywhere(unsigned words)
{
	unsigned long long before[TAGTSO_NREGS], after[TAGTSO_NREGS];
	bool accessed = false, restart = false; /* behind the signature: where a sequence begins again */

	for (unsigned at = 0; at < words; at++) {
		for (unsigned i = 0; i < TAGTSO_NREGS; i++)
			before[i] = random_bits();
		leave_from(at, before, after);
		ck_assert_uint_eq(after[TAGTSO_PC], site.pc + (accessed ? 4 : 0));
		/* the emitted instruction itself, on the last path, has its write-back in it */
		bool just =
			at && !restart && is_own_access(island->code[at - 1]) && island->code[at - 1] != site.op.word;
		uint64_t moved = before[site.op.rn] + advance(before);

		if (just)
			ck_assert_uint_eq(after[site.op.rn], moved);
		else if (!accessed || island->code[at] >> 26 == 5)
			ck_assert_uint_eq(after[site.op.rn], before[site.op.rn]);
		for (unsigned i = 0; i < TAGTSO_NREGS; i++)
			ck_assert(i == TAGTSO_PC || i == site.op.rn || after[i] == before[i]);
		restart |= island->code[at] == TAGTSO_FORM_SIGNATURE;
		accessed |= !restart && is_own_access(island->code[at]);
		accessed &= island->code[at] >> 26 != 5;
	}
}

START_TEST(before_the_access_at_the_site_and_after_it_behind_it)
{
	unsigned made = 0;

	for (size_t i = 0; i < tagtso_nencodings; i++) {
		for (unsigned n = 0; n < 30; n++) {
			uint32_t word =
				((uint32_t)random_bits() & ~tagtso_encodings[i].mask) | tagtso_encodings[i].value;

			for (unsigned form = TAGTSO_FORM_LOCAL; form < 2 * TAGTSO_NFORMS; form++) {
				unsigned words = make(word, form % TAGTSO_NFORMS, owners[form / TAGTSO_NFORMS]);

				if (words)
					check_everywhere(words);
				made += words != 0;
			}
		}
	}
	ck_assert_uint_gt(made, 1000);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("island");
	TCase *tc = tcase_create("island");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tc);
	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, begin, end);
	tcase_add_test(tc, before_the_access_at_the_site_and_after_it_behind_it);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
