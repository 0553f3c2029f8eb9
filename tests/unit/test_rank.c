/* SPDX-License-Identifier: MIT */
/* Behaviour of lock ranks, which only --enable-debug compiles into the library. */
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "shim/rank.h"

static void take(enum tagtso_rank rank, uint64_t number)
{
	tagtso_rank_wait(rank, number);
	tagtso_rank_took(rank, number);
}

START_TEST(locks_in_the_order_of_their_ranks_are_taken_and_given_back)
{
	for (int round = 0; round < 2; round++) {
		for (int rank = 0; rank < TAGTSO_NRANKS; rank++)
			take(rank, 7);
		ck_assert_uint_eq(tagtso_rank_held(), 0x0101010101);
		for (int rank = 0; rank < TAGTSO_NRANKS; rank++)
			tagtso_rank_gave(rank);
		ck_assert_uint_eq(tagtso_rank_held(), 0);
		tagtso_rank_alone(__FILE__, __LINE__);
	}
}
END_TEST

START_TEST(pages_are_taken_by_index_and_from_the_first_again_once_all_are_back)
{
	take(TAGTSO_RANK_PAGE, 3);
	take(TAGTSO_RANK_PAGE, 900);
	ck_assert_uint_eq(tagtso_rank_held(), 2 << 8 * TAGTSO_RANK_PAGE);
	tagtso_rank_gave(TAGTSO_RANK_PAGE);
	tagtso_rank_gave(TAGTSO_RANK_PAGE);
	take(TAGTSO_RANK_PAGE, 2);
}
END_TEST

START_TEST(what_is_taken_without_waiting_may_be_of_any_order)
{
	tagtso_rank_took(TAGTSO_RANK_PAGE, 9);
	tagtso_rank_took(TAGTSO_RANK_PAGE, 8);
	take(TAGTSO_RANK_PAGE, 10);
}
END_TEST

static void *have_one(void *arg)
{
	(void)arg;
	take(TAGTSO_RANK_HEAP, 0);
	return NULL;
}

START_TEST(each_thread_has_its_own)
{
	pthread_t other;

	take(TAGTSO_RANK_CODE, 0);
	ck_assert_int_eq(pthread_create(&other, NULL, have_one, NULL), 0);
	pthread_join(other, NULL);
	ck_assert_uint_eq(tagtso_rank_held(), UINT64_C(1) << 8 * TAGTSO_RANK_CODE);
}
END_TEST

START_TEST(a_lower_rank_after_a_higher_is_the_end)
{
	take(TAGTSO_RANK_PAGE, 1);
	tagtso_rank_wait(TAGTSO_RANK_REGION, 0);
}
END_TEST

START_TEST(a_page_below_one_that_is_held_is_the_end)
{
	take(TAGTSO_RANK_PAGE, 9);
	tagtso_rank_wait(TAGTSO_RANK_PAGE, 8);
}
END_TEST

START_TEST(the_same_lock_twice_is_the_end)
{
	take(TAGTSO_RANK_REGION, 0);
	tagtso_rank_wait(TAGTSO_RANK_REGION, 0);
}
END_TEST

START_TEST(giving_back_what_is_not_held_is_the_end)
{
	tagtso_rank_gave(TAGTSO_RANK_SIGNALS);
}
END_TEST

START_TEST(waiting_for_a_thread_with_a_lock_is_the_end)
{
	take(TAGTSO_RANK_HEAP, 0);
	tagtso_rank_alone(__FILE__, __LINE__);
}
END_TEST

START_TEST(a_handler_that_leaves_a_lock_behind_is_the_end)
{
	uint64_t before = tagtso_rank_held();

	take(TAGTSO_RANK_PAGE, 4);
	tagtso_rank_same(before, __FILE__, __LINE__);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rank");
	TCase *tcase = tcase_create("rank");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, locks_in_the_order_of_their_ranks_are_taken_and_given_back);
	tcase_add_test(tcase, pages_are_taken_by_index_and_from_the_first_again_once_all_are_back);
	tcase_add_test(tcase, what_is_taken_without_waiting_may_be_of_any_order);
	tcase_add_test(tcase, each_thread_has_its_own);
	tcase_add_test_raise_signal(tcase, a_lower_rank_after_a_higher_is_the_end, SIGABRT);
	tcase_add_test_raise_signal(tcase, a_page_below_one_that_is_held_is_the_end, SIGABRT);
	tcase_add_test_raise_signal(tcase, the_same_lock_twice_is_the_end, SIGABRT);
	tcase_add_test_raise_signal(tcase, giving_back_what_is_not_held_is_the_end, SIGABRT);
	tcase_add_test_raise_signal(tcase, waiting_for_a_thread_with_a_lock_is_the_end, SIGABRT);
	tcase_add_test_raise_signal(tcase, a_handler_that_leaves_a_lock_behind_is_the_end, SIGABRT);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
