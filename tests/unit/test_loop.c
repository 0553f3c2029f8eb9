/* SPDX-License-Identifier: MIT */
/* Islands of LL/SC loops: every word against Capstone, where branches lead, and what a thread is told that leaves at any word. */
#include <check.h>
#include <stdlib.h>

#include "interp/branch.h"
#include "interp/decode.h"
#include "interp/loop.h"
#include "interp/opinion.h"
#include "interp/stretch.h"

enum {
	LDAXR_X1_X2 = 0xc85ffc41,
	LDAXR_X1_SP = 0xc85fffe1,
	LDXP_X1_X3_X2 = 0xc87f0c41,
	STXP_W4_X5_X6_X2 = 0xc8241845,
	CMP_X0_X1 = 0xeb01001f,
	ADD_X1_X1_X8 = 0x8b080021,
	ADD_X1_X1_288 = 0x91048021, /* immediate 0x120: 8 and 9 are in its fields */
	MOVZ_X1_0X128 = 0xd2802501,
	ADD_X8_X1_1 = 0x91000428,
	STLXR_W4_X5_X2 = 0xc804fc45,
	STLXR_W4_X5_SP = 0xc804ffe5,
	B_NE = 0x54000001,
	CBNZ_W4 = 0x35000004,
	TBZ_X1_3 = 0x36180001,
	B = 0x14000000,
	DMB_ISH = 0xd5033bbf,
	NOP = 0xd503201f,
};

static const struct tagtso_scratch scratch = { .a = 8, .b = 9, .c = 29 };
static const uint64_t site = 0x100000, place = 0x180000;
static struct tagtso_loop loop;

static uint32_t branch(uint32_t word, int distance)
{
	return tagtso_branch_with_distance(word, distance);
}

static bool encode(const uint32_t *words, unsigned n)
{
	return tagtso_loop_encode(&loop, words, n, false, scratch, site, place);
}

/* The code word at which instruction i of the loop begins: the last one that says so and is not part of a way out. */
static unsigned place_of(unsigned i, const uint32_t *words)
{
	for (unsigned at = 0; at < loop.ncode; at++)
		if (loop.map[at] == i && (i ? 1 : (loop.code[at] & 0x3fffffff) >> 22 == (words[0] & 0x3fffffff) >> 22))
			return at;
	ck_abort_msg("instruction %u is not in the island", i);
	return 0;
}

static void want_exit(unsigned at, uint64_t to)
{
	ck_assert_uint_lt(at + 1, loop.ncode);
	ck_assert_uint_eq(loop.code[at], DMB_ISH);
	ck_assert_uint_eq(tagtso_form_target(place + 4 * (uint64_t)(at + 1), loop.code[at + 1]), to);
	ck_assert_uint_eq(loop.map[at + 1], TAGTSO_MAP_EXIT | TAGTSO_MAP_NONE);
}

/* LDG and IRG, which Capstone 4 does not know. */
static bool is_for_tags(uint32_t word)
{
	return (word & 0xffe00c00) == 0xd9600000 || (word & 0xffe0fc00) == 0x9ac01000;
}

/* Each word is one that Capstone knows, and each branch stays inside or leads to emitted code. */
static void want_sound(unsigned n)
{
	struct tagtso_opinion opinion;
	char text[TAGTSO_TEXT];

	ck_assert_int_eq(tagtso_opinion_open(&opinion), 0);
	for (unsigned i = 0; i < loop.ncode; i++) {
		uint32_t word = loop.code[i];
		unsigned index = loop.map[i] & TAGTSO_MAP_INDEX;

		ck_assert_msg(is_for_tags(word) || tagtso_opinion_text(&opinion, place, word, text), "%08x", word);
		ck_assert(index < n || loop.map[i] == (TAGTSO_MAP_EXIT | TAGTSO_MAP_NONE));
		if (tagtso_branch_is_conditional(word) || (tagtso_branch_is_jump(word) && index < n))
			ck_assert_int_lt(i + tagtso_branch_distance(word), loop.ncode);
		if (loop.map[i] & TAGTSO_MAP_EXIT)
			ck_assert(tagtso_branch_is_jump(word));
	}
	tagtso_opinion_close(&opinion);
}

START_TEST(a_loop_with_a_way_out_keeps_its_branches)
{
	/* as box64 emits LOCK CMPXCHG */
	const uint32_t words[] = { LDAXR_X1_X2, CMP_X0_X1, branch(B_NE, 20), STLXR_W4_X5_X2, branch(CBNZ_W4, -4) };
	unsigned first, out;

	ck_assert(encode(words, 5));
	want_sound(5);
	ck_assert_uint_eq(loop.code[0], DMB_ISH);
	first = place_of(0, words);
	ck_assert_uint_eq(loop.code[first], (LDAXR_X1_X2 & ~(31u << 5)) | 8u << 5);
	ck_assert_uint_eq(loop.code[first + 1], CMP_X0_X1);
	ck_assert_uint_eq(loop.code[first + 3], (STLXR_W4_X5_X2 & ~(31u << 5)) | 8u << 5);
	ck_assert_uint_eq(loop.code[first + 4], words[4]);
	want_exit(first + 5, site + 5 * 4);
	ck_assert_uint_eq(loop.map[first + 5], TAGTSO_MAP_DONE | 4);
	out = first + 2 + (unsigned)tagtso_branch_distance(loop.code[first + 2]);
	want_exit(out, site + (2 + 20) * 4);
	ck_assert_uint_eq(loop.map[out], 2);
}
END_TEST

START_TEST(all_kinds_of_branches_lead_out)
{
	const uint32_t words[] = { LDXP_X1_X3_X2,    branch(TBZ_X1_3, -30), branch(CBNZ_W4, 3),   branch(B, 1000),
		                   STXP_W4_X5_X6_X2, branch(CBNZ_W4, -5),   branch(CBNZ_W4, 100), STXP_W4_X5_X6_X2 };
	static const int to[] = { 1 - 30, 3 + 1000, 6 + 100 };
	static const unsigned from[] = { 1, 3, 6 };
	unsigned first;

	ck_assert(encode(words, 8));
	want_sound(8);
	first = place_of(0, words);
	for (unsigned k = 0; k < 3; k++) {
		unsigned at = first + from[k];

		want_exit(at + (unsigned)tagtso_branch_distance(loop.code[at]), site + (uint64_t)(4 * to[k]));
	}
	ck_assert_uint_eq(loop.code[first + 2], words[2]);
	ck_assert_uint_eq(loop.code[first + 5], words[5]);
	want_exit(first + 8, site + 8 * 4);
}
END_TEST

START_TEST(a_branch_to_right_behind_the_loop_needs_no_way_of_its_own)
{
	const uint32_t words[] = { LDAXR_X1_X2, branch(B_NE, 3), STLXR_W4_X5_X2, branch(CBNZ_W4, -3) };

	ck_assert(encode(words, 4));
	want_sound(4);
	ck_assert_uint_eq(loop.code[place_of(0, words) + 1], words[1]);
	ck_assert_uint_eq(loop.ncode, place_of(0, words) + 6);
}
END_TEST

START_TEST(in_mode_relax_shared_memory_is_accessed_as_emitted)
{
	const uint32_t words[] = { LDAXR_X1_X2, STLXR_W4_X5_X2, branch(CBNZ_W4, -2) };
	unsigned enforced;

	ck_assert(encode(words, 3));
	enforced = loop.ncode;
	ck_assert(tagtso_loop_encode(&loop, words, 3, true, scratch, site, place));
	want_sound(3);
	ck_assert_uint_lt(loop.ncode, enforced);
	for (unsigned i = 0; i < loop.ncode; i++)
		ck_assert_uint_ne(loop.code[i] & 0xfffffc00, 0xb2480c00); /* the shared tag */
}
END_TEST

START_TEST(the_stack_pointer_may_be_the_base)
{
	const uint32_t words[] = { LDAXR_X1_SP, STLXR_W4_X5_SP, branch(CBNZ_W4, -2) };

	ck_assert(encode(words, 3));
	want_sound(3);
	ck_assert_uint_eq(loop.code[1], 0x910003e8); /* mov x8, sp */
}
END_TEST

static bool fits(uint32_t word)
{
	const uint32_t words[] = { LDAXR_X1_X2, word, STLXR_W4_X5_X2, branch(CBNZ_W4, -3) };

	return encode(words, 4);
}

START_TEST(a_loop_that_uses_a_scratch_register_is_refused)
{
	ck_assert(!fits(ADD_X1_X1_X8));
	ck_assert(!fits(ADD_X8_X1_1));
	ck_assert(!fits(branch(0x35000008, 2))); /* CBNZ W8 */
	ck_assert(!fits(0x9a894041));            /* CSEL X1, X2, X9, MI */
	ck_assert(fits(ADD_X1_X1_288));
	ck_assert(fits(MOVZ_X1_0X128));
	ck_assert(fits(branch(B_NE, 8)));
	ck_assert(fits(NOP));
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
	uint32_t words[TAGTSO_LOOP_WORDS + 1] = { LDAXR_X1_X2 };
	struct tagtso_scratch other = scratch;

	for (unsigned i = 1; i <= TAGTSO_LOOP_WORDS; i++)
		words[i] = NOP;
	words[TAGTSO_LOOP_WORDS - 1] = STLXR_W4_X5_X2;
	ck_assert(encode(words, TAGTSO_LOOP_WORDS));
	ck_assert(!encode(words, TAGTSO_LOOP_WORDS + 1));
	ck_assert(!encode(words, 0));
	for (unsigned i = 1; i <= TAGTSO_LOOP_EXITS; i++)
		words[i] = branch(B_NE, 1000);
	ck_assert(encode(words, TAGTSO_LOOP_WORDS));
	want_sound(TAGTSO_LOOP_WORDS);
	words[TAGTSO_LOOP_EXITS + 1] = branch(B_NE, 1000);
	ck_assert(!encode(words, TAGTSO_LOOP_WORDS));
	words[TAGTSO_LOOP_EXITS + 1] = NOP;
	ck_assert(!tagtso_loop_encode(&loop, words, TAGTSO_LOOP_WORDS, false, scratch, site, site + (1 << 28)));
	other.number = 4;
	ck_assert(!tagtso_loop_encode(&loop, words, TAGTSO_LOOP_WORDS, false, other, site, place));
}
END_TEST

START_TEST(distances_of_branches_are_read_as_they_are_written)
{
	static const uint32_t kinds[] = { B, B_NE, CBNZ_W4, TBZ_X1_3, 0x37f80001, 0xb4000003 };
	static const int distances[] = { 0, 1, -1, 8191, -8192 };

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		for (unsigned k = 0; k < sizeof(distances) / sizeof(distances[0]); k++) {
			uint32_t word = branch(kinds[i], distances[k]);

			ck_assert_int_eq(tagtso_branch_distance(word), distances[k]);
			ck_assert_uint_eq(branch(word, 0), kinds[i]);
		}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("loop");
	TCase *tc = tcase_create("loop");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tc);
	tcase_add_test(tc, a_loop_with_a_way_out_keeps_its_branches);
	tcase_add_test(tc, all_kinds_of_branches_lead_out);
	tcase_add_test(tc, a_branch_to_right_behind_the_loop_needs_no_way_of_its_own);
	tcase_add_test(tc, in_mode_relax_shared_memory_is_accessed_as_emitted);
	tcase_add_test(tc, the_stack_pointer_may_be_the_base);
	tcase_add_test(tc, a_loop_that_uses_a_scratch_register_is_refused);
	tcase_add_test(tc, what_cannot_be_is_refused);
	tcase_add_test(tc, distances_of_branches_are_read_as_they_are_written);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
