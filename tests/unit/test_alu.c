/* SPDX-License-Identifier: MIT */
/* Unit tests of the integer interpreter, with values worked out by hand; tests/guests/differential compares it with a processor. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "interp/alu.h"

static unsigned long long r[TAGTSO_NREGS];

enum { N = 8, Z = 4, C = 2, V = 1 };

static void reset(void)
{
	for (unsigned i = 0; i < 31; i++)
		r[i] = 0x1000 + i;
	r[TAGTSO_SP] = 0x7000;
	r[TAGTSO_PC] = 0x400000;
	r[TAGTSO_PSTATE] = 0;
}

static unsigned nzcv(void)
{
	return r[TAGTSO_PSTATE] >> 28 & 15;
}

static void step(uint32_t word)
{
	ck_assert_msg(tagtso_alu_step(word, r), "%08x is not known", word);
}

START_TEST(add_of_words_drops_the_carry_and_the_upper_half)
{
	r[1] = 0xffffffff;
	r[2] = 0xdead00000001;
	step(0x2b020020); /* adds w0, w1, w2 */
	ck_assert_uint_eq(r[0], 0);
	ck_assert_uint_eq(nzcv(), Z | C);
	ck_assert_uint_eq(r[TAGTSO_PC], 0x400004);
}
END_TEST

START_TEST(subtraction_sets_carry_for_no_borrow_and_overflow_for_a_wrong_sign)
{
	r[1] = 1ull << 63;
	step(0xf1000420); /* subs x0, x1, #1 */
	ck_assert_uint_eq(r[0], ~0ull >> 1);
	ck_assert_uint_eq(nzcv(), C | V);
	r[1] = 0;
	step(0xf1000420);
	ck_assert_uint_eq(r[0], ~0ull);
	ck_assert_uint_eq(nzcv(), N);
}
END_TEST

START_TEST(register_31_is_sp_in_an_immediate_add_and_zero_in_a_shifted_one)
{
	step(0x910043ff); /* add sp, sp, #16 */
	ck_assert_uint_eq(r[TAGTSO_SP], 0x7010);
	step(0x8b1f03e0); /* add x0, xzr, xzr */
	ck_assert_uint_eq(r[0], 0);
	step(0x8b01003f); /* add xzr, x1, x1 */
	ck_assert_uint_eq(r[TAGTSO_SP], 0x7010);
}
END_TEST

START_TEST(logical_immediates_repeat_their_element)
{
	r[1] = 0;
	step(0xb200f020); /* orr x0, x1, #0x5555555555555555 */
	ck_assert_uint_eq(r[0], 0x5555555555555555);
	step(0xb2410020); /* orr x0, x1, #0x8000000000000000 */
	ck_assert_uint_eq(r[0], 1ull << 63);
	step(0x32001c20); /* orr w0, w1, #0xff */
	ck_assert_uint_eq(r[0], 0xff);
}
END_TEST

START_TEST(bitfield_moves_insert_extract_and_sign_extend)
{
	r[0] = ~0ull;
	r[1] = 0x1280;
	step(0xb3781c20); /* bfi x0, x1, #8, #8 */
	ck_assert_uint_eq(r[0], 0xffffffffffff80ff);
	step(0x13001c20); /* sxtb w0, w1 */
	ck_assert_uint_eq(r[0], 0xffffff80);
	step(0x93401c20); /* sxtb x0, w1 */
	ck_assert_uint_eq(r[0], 0xffffffffffffff80);
	step(0xd344fc20); /* lsr x0, x1, #4 */
	ck_assert_uint_eq(r[0], 0x128);
}
END_TEST

START_TEST(a_conditional_compare_that_does_not_hold_sets_its_own_flags)
{
	r[1] = r[2] = 5;
	step(0xeb02003f); /* cmp x1, x2 */
	step(0xfa420028); /* ccmp x1, x2, #8, eq: holds */
	ck_assert_uint_eq(nzcv(), Z | C);
	step(0xfa421028); /* ccmp x1, x2, #8, ne: does not */
	ck_assert_uint_eq(nzcv(), N);
}
END_TEST

START_TEST(division_by_zero_gives_zero_and_overflow_the_dividend)
{
	r[1] = 1ull << 63;
	r[2] = 0;
	step(0x9ac20c20); /* sdiv x0, x1, x2 */
	ck_assert_uint_eq(r[0], 0);
	r[2] = ~0ull;
	step(0x9ac20c20);
	ck_assert_uint_eq(r[0], 1ull << 63);
	r[1] = 0x80000000;
	step(0x1ac20c20); /* sdiv w0, w1, w2 */
	ck_assert_uint_eq(r[0], 0x80000000);
}
END_TEST

START_TEST(branches_go_where_their_conditions_say)
{
	r[1] = 0;
	step(0xb4000041); /* cbz x1, +8 */
	ck_assert_uint_eq(r[TAGTSO_PC], 0x400008);
	step(0xb5000041); /* cbnz x1, +8 */
	ck_assert_uint_eq(r[TAGTSO_PC], 0x40000c);
	step(0x17ffffff); /* b -4 */
	ck_assert_uint_eq(r[TAGTSO_PC], 0x400008);
	r[TAGTSO_PSTATE] = (unsigned long long)Z << 28;
	step(0x54000040); /* b.eq +8 */
	ck_assert_uint_eq(r[TAGTSO_PC], 0x400010);
	r[1] = 1ull << 33;
	step(0xb7080041); /* tbnz x1, #33, +8 */
	ck_assert_uint_eq(r[TAGTSO_PC], 0x400018);
	step(0x94000002); /* bl +8 */
	ck_assert_uint_eq(r[30], 0x40001c);
	ck_assert_uint_eq(r[TAGTSO_PC], 0x400020);
	step(0xd65f03c0); /* ret */
	ck_assert_uint_eq(r[TAGTSO_PC], 0x40001c);
}
END_TEST

START_TEST(a_call_through_x30_goes_to_its_old_value)
{
	r[30] = 0x5000;
	step(0xd63f03c0); /* blr x30 */
	ck_assert_uint_eq(r[TAGTSO_PC], 0x5000);
	ck_assert_uint_eq(r[30], 0x400004);
}
END_TEST

/* What is not an integer instruction or branch that we know. */
static const uint32_t others[] = {
	0xf9400020,            /* ldr x0, [x1] */
	0x885ffc41,            /* ldaxr w1, [x2] */
	0xd5033bbf,            /* dmb ish */
	0xd503305f,            /* clrex #0 */
	0xd4000001,            /* svc #0 */
	0xd503233f,            /* paciasp */
	0xd65f0bff,            /* retaa */
	0x1e604020,            /* fmov d0, d1 */
	0x91800020,            /* addg x0, x1, #0, #0 */
	0x9ac21020,            /* irg x0, x1, x2 */
	0x92400000 | 63 << 10, /* and x0, x0, #<all ones>: reserved */
	0x12800000 | 1 << 22,  /* movn w0, lsl #32: unallocated */
	0x0b020020 | 3 << 22,  /* add, ROR: reserved */
	0x00000000,            /* udf #0 */
};

START_TEST(everything_else_is_refused_and_changes_nothing)
{
	unsigned long long before[TAGTSO_NREGS];

	memcpy(before, r, sizeof(r));
	ck_assert_msg(!tagtso_alu_step(others[_i], r), "%08x is known", others[_i]);
	ck_assert_mem_eq(before, r, sizeof(r));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("alu");
	TCase *tests = tcase_create("alu");
	SRunner *runner;
	int failures;

	tcase_add_checked_fixture(tests, reset, NULL);
	tcase_add_test(tests, add_of_words_drops_the_carry_and_the_upper_half);
	tcase_add_test(tests, subtraction_sets_carry_for_no_borrow_and_overflow_for_a_wrong_sign);
	tcase_add_test(tests, register_31_is_sp_in_an_immediate_add_and_zero_in_a_shifted_one);
	tcase_add_test(tests, logical_immediates_repeat_their_element);
	tcase_add_test(tests, bitfield_moves_insert_extract_and_sign_extend);
	tcase_add_test(tests, a_conditional_compare_that_does_not_hold_sets_its_own_flags);
	tcase_add_test(tests, division_by_zero_gives_zero_and_overflow_the_dividend);
	tcase_add_test(tests, branches_go_where_their_conditions_say);
	tcase_add_test(tests, a_call_through_x30_goes_to_its_old_value);
	tcase_add_loop_test(tests, everything_else_is_refused_and_changes_nothing, 0,
	                    sizeof(others) / sizeof(others[0]));
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failures = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failures > 0;
}
