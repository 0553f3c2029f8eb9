/* SPDX-License-Identifier: MIT */
/* Behaviour of the second opinion: words that differ in registers alone are asked about once, and nothing else is taken for granted. */
#include <check.h>
#include <string.h>

#include "interp/decode.h"
#include "interp/opinion.h"

static struct tagtso_opinion opinion;

static void fresh_opinion(void)
{
	ck_assert_int_eq(tagtso_opinion_open(&opinion), 0);
}

static void close_opinion(void)
{
	tagtso_opinion_close(&opinion);
}

static struct tagtso_memop decoded(uint32_t word)
{
	struct tagtso_memop op;

	ck_assert(tagtso_decode(word, &op));
	return op;
}

static bool texts_equal(uint32_t word)
{
	struct tagtso_memop op = decoded(word);
	char ours[TAGTSO_TEXT], theirs[TAGTSO_TEXT];

	return tagtso_memop_text(&op, 0, ours) && tagtso_opinion_text(&opinion, 0, word, theirs) &&
	       tagtso_text_equal(ours, theirs);
}

static bool agrees(uint32_t word)
{
	struct tagtso_memop op = decoded(word);

	return tagtso_opinion_agrees(&opinion, &op, 0);
}

/* LDR X, [X, #imm]; LDRB W, [X, X]; STUR Q, [X, #-1]; STRH W, [SP or X] */
static const uint32_t shapes[] = { 0xf9400000, 0xf9400400, 0x38606800, 0x3c9ff000, 0x79000000 };

START_TEST(the_answer_for_all_registers_is_that_of_the_texts)
{
	for (uint32_t registers = 0; registers < 1024; registers += 3)
		ck_assert_uint_eq(agrees(shapes[_i] | registers), texts_equal(shapes[_i] | registers));
}
END_TEST

START_TEST(registers_are_asked_about_once)
{
	uint32_t known[sizeof(opinion.agreed) / 4];

	ck_assert(agrees(shapes[_i] | 1 << 5 | 2));
	memcpy(known, opinion.agreed, sizeof(known));
	ck_assert(agrees(shapes[_i] | 30 << 5 | 7));
	ck_assert_mem_eq(known, opinion.agreed, sizeof(known));
}
END_TEST

START_TEST(the_stack_pointer_and_the_zero_register_are_asked_about)
{
	uint32_t known[sizeof(opinion.agreed) / 4];

	ck_assert(agrees(0xf9400022));
	memcpy(known, opinion.agreed, sizeof(known));
	ck_assert(agrees(0xf94003e2));
	ck_assert_mem_ne(known, opinion.agreed, sizeof(known));
	memcpy(known, opinion.agreed, sizeof(known));
	ck_assert(agrees(0xf940005f));
	ck_assert_mem_ne(known, opinion.agreed, sizeof(known));
}
END_TEST

START_TEST(a_wrong_field_is_refused_though_the_word_is_known)
{
	const struct tagtso_memop right = decoded(0xf8626822); /* LDR X2, [X1, X2] */
	struct tagtso_memop op = right;

	ck_assert(tagtso_opinion_agrees(&opinion, &op, 0));
	op.rt ^= 1;
	ck_assert(!tagtso_opinion_agrees(&opinion, &op, 0));
	op = right;
	op.rn ^= 1;
	ck_assert(!tagtso_opinion_agrees(&opinion, &op, 0));
	op = right;
	op.rm ^= 1;
	ck_assert(!tagtso_opinion_agrees(&opinion, &op, 0));
	op = right;
	op.size = 2;
	ck_assert(!tagtso_opinion_agrees(&opinion, &op, 0));
	op = right;
	op.extend = 2;
	ck_assert(!tagtso_opinion_agrees(&opinion, &op, 0));
	op = right;
	op.flags ^= TAGTSO_F_ACQUIRE;
	ck_assert(!tagtso_opinion_agrees(&opinion, &op, 0));
}
END_TEST

START_TEST(a_wrong_field_is_refused_where_a_word_speaks_for_itself)
{
	struct tagtso_memop op = decoded(0xa9410c22); /* LDP X2, X3, [X1, #16] */

	ck_assert(tagtso_opinion_agrees(&opinion, &op, 0));
	op.rt2 = 4;
	ck_assert(!tagtso_opinion_agrees(&opinion, &op, 0));
}
END_TEST

START_TEST(an_address_relative_to_the_pc_is_asked_about_each_time)
{
	struct tagtso_memop op = decoded(0x58000042); /* LDR X2, pc + 8 */
	uint32_t none[sizeof(opinion.agreed) / 4] = { 0 };

	ck_assert(tagtso_opinion_agrees(&opinion, &op, 0x1000));
	ck_assert(tagtso_opinion_agrees(&opinion, &op, 0x2000));
	ck_assert_mem_eq(opinion.agreed, none, sizeof(none));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("opinion");
	TCase *tc = tcase_create("agreement");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, fresh_opinion, close_opinion);
	tcase_add_loop_test(tc, the_answer_for_all_registers_is_that_of_the_texts, 0, sizeof(shapes) / sizeof(*shapes));
	tcase_add_loop_test(tc, registers_are_asked_about_once, 0, sizeof(shapes) / sizeof(*shapes));
	tcase_add_test(tc, the_stack_pointer_and_the_zero_register_are_asked_about);
	tcase_add_test(tc, a_wrong_field_is_refused_though_the_word_is_known);
	tcase_add_test(tc, a_wrong_field_is_refused_where_a_word_speaks_for_itself);
	tcase_add_test(tc, an_address_relative_to_the_pc_is_asked_about_each_time);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
