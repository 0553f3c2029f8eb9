/* SPDX-License-Identifier: MIT */
/* Behaviour of the site table. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "interp/decode.h"
#include "interp/site.h"

enum { MAX = 1 << 14, LDR_X0_X1 = 0xf9400020, STR_X0_X1 = 0xf9000020 };
static const uint64_t code = 0x7f1200340000;

static void fresh_table(void)
{
	ck_assert_int_eq(tagtso_site_init(MAX), 0);
}

START_TEST(a_size_that_is_no_power_of_two_is_refused)
{
	ck_assert_int_eq(tagtso_site_init(1000), -EINVAL);
	ck_assert_int_eq(tagtso_site_init(1u << 25), -EINVAL);
	ck_assert_int_eq(tagtso_site_init(0), -EINVAL);
}
END_TEST

START_TEST(a_site_is_decoded_and_as_emitted_at_first_sight)
{
	struct tagtso_memop op;
	struct tagtso_site *site = tagtso_site_get(code, LDR_X0_X1);

	ck_assert_ptr_nonnull(site);
	tagtso_decode(LDR_X0_X1, &op);
	ck_assert_mem_eq(&site->op, &op, sizeof(op));
	ck_assert_uint_eq(site->pc, code);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(site->wanted, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(site->refused, 0);
	ck_assert_uint_eq(site->local + site->shared + site->changes, 0);
	ck_assert_uint_eq((uintptr_t)site % 64, 0);
}
END_TEST

START_TEST(the_same_instruction_has_one_site)
{
	struct tagtso_site *site = tagtso_site_get(code, LDR_X0_X1);

	ck_assert_ptr_eq(tagtso_site_get(code, LDR_X0_X1), site);
	ck_assert_uint_eq(tagtso_site_count(), 1);
	ck_assert_uint_eq(tagtso_site_bytes(), 2 * 4096); /* one page of sites, one of the index */
}
END_TEST

START_TEST(another_word_at_the_same_pc_is_another_site)
{
	struct tagtso_site *load = tagtso_site_get(code, LDR_X0_X1), *store = tagtso_site_get(code, STR_X0_X1);

	ck_assert_ptr_ne(load, store);
	ck_assert_uint_eq(load->op.cls, TAGTSO_LOAD);
	ck_assert_uint_eq(store->op.cls, TAGTSO_STORE);
	ck_assert_uint_eq(tagtso_site_count(), 2);
}
END_TEST

START_TEST(code_recycled_hundreds_of_times_keeps_its_sites)
{
	struct tagtso_site *sites[500];

	for (uint32_t i = 0; i < 500; i++)
		ck_assert_ptr_nonnull(sites[i] = tagtso_site_get(code, LDR_X0_X1 + (i << 10)));
	for (uint32_t i = 0; i < 500; i++)
		ck_assert_ptr_eq(sites[i], tagtso_site_get(code, LDR_X0_X1 + (i << 10)));
	ck_assert_uint_eq(tagtso_site_count(), 500);
}
END_TEST

START_TEST(a_full_table_says_so_and_still_finds_what_it_has)
{
	struct tagtso_site *first = tagtso_site_get(code, LDR_X0_X1);
	uint64_t pc = code;

	while (tagtso_site_get(pc, LDR_X0_X1))
		pc += 4;
	ck_assert_uint_ge(tagtso_site_count(), MAX - 1);
	ck_assert_uint_lt(tagtso_site_count(), MAX);
	ck_assert_ptr_eq(tagtso_site_get(code, LDR_X0_X1), first);
	ck_assert_ptr_null(tagtso_site_get(code, STR_X0_X1));
}
END_TEST

START_TEST(a_site_that_is_remembered_is_recalled_by_its_own_pc_and_word_only)
{
	struct tagtso_site *site = tagtso_site_get(code, LDR_X0_X1), *other;
	uint64_t same_place = code;

	ck_assert_ptr_null(tagtso_site_recall(code, LDR_X0_X1));
	tagtso_site_remember(site);
	ck_assert_ptr_eq(tagtso_site_recall(code, LDR_X0_X1), site);
	ck_assert_ptr_null(tagtso_site_recall(code, STR_X0_X1));
	do
		same_place += 4;
	while (tagtso_site_place(same_place) != tagtso_site_place(code));
	ck_assert_ptr_null(tagtso_site_recall(same_place, LDR_X0_X1));
	tagtso_site_remember(other = tagtso_site_get(same_place, LDR_X0_X1));
	ck_assert_ptr_eq(tagtso_site_recall(same_place, LDR_X0_X1), other);
	ck_assert_ptr_null(tagtso_site_recall(code, LDR_X0_X1));
}
END_TEST

START_TEST(a_page_of_code_has_a_place_for_each_of_its_sites)
{
	for (uint64_t a = 0; a < 4096; a += 4)
		for (uint64_t b = a + 4; b < 4096; b += 4)
			ck_assert_ptr_ne(tagtso_site_place(code + a), tagtso_site_place(code + b));
}
END_TEST

START_TEST(only_pointers_to_sites_are_valid)
{
	struct tagtso_site *site = tagtso_site_get(code, LDR_X0_X1);

	ck_assert(tagtso_site_valid(site));
	ck_assert(!tagtso_site_valid(NULL));
	ck_assert(!tagtso_site_valid((void *)((uintptr_t)site + 8)));
	ck_assert(!tagtso_site_valid(site + 1));
	ck_assert(!tagtso_site_valid(site - 1));
	ck_assert(!tagtso_site_valid(site + MAX));
	ck_assert(!tagtso_site_valid((void *)UINTPTR_MAX));
}
END_TEST

static void count_one(struct tagtso_site *site, void *arg)
{
	*(uint64_t *)arg += atomic_load(&site->pc) - code;
}

START_TEST(each_site_is_visited_once)
{
	uint64_t sum = 0;

	for (uint64_t i = 1; i <= 100; i++)
		tagtso_site_get(code + 4 * i, LDR_X0_X1);
	tagtso_site_each(count_one, &sum);
	ck_assert_uint_eq(sum, 4 * 5050);
}
END_TEST

enum { THREADS = 8, KEYS = 4000 };
static struct tagtso_site *found[THREADS][KEYS];
static pthread_barrier_t start;

static void *find_all(void *arg)
{
	struct tagtso_site **mine = arg;

	pthread_barrier_wait(&start);
	for (uint64_t i = 0; i < KEYS; i++)
		mine[i] = tagtso_site_get(code + i / 2 * 4, i % 2 ? LDR_X0_X1 : STR_X0_X1);
	return NULL;
}

START_TEST(threads_that_insert_the_same_keys_get_the_same_sites)
{
	pthread_t threads[THREADS];

	pthread_barrier_init(&start, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, find_all, found[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < THREADS; i++)
		ck_assert_mem_eq(found[i], found[0], sizeof(found[0]));
	ck_assert_uint_eq(tagtso_site_count(), KEYS);
	for (unsigned i = 0; i < KEYS; i++)
		ck_assert_ptr_nonnull(found[0][i]);
}
END_TEST

/* ---- the score ---- */

static const struct tagtso_hysteresis by_default = { .local = 4, .shared = 4, .decay = 10000 };

static enum tagtso_form wanted(enum tagtso_form form, uint32_t local, uint32_t shared,
                               const struct tagtso_hysteresis *h)
{
	struct tagtso_site *site = tagtso_site_get(0x1000, 0xf9400000);

	site->form = (uint8_t)form;
	site->local = local;
	site->shared = shared;
	return tagtso_site_wanted(site, h);
}

START_TEST(each_kind_of_trap_has_its_own_threshold)
{
	const struct tagtso_hysteresis h = { .local = 10, .shared = 3 };

	ck_assert_uint_eq(wanted(TAGTSO_FORM_EMITTED, 9, 2, &h), TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_EMITTED, 10, 2, &h), TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_EMITTED, 9, 3, &h), TAGTSO_FORM_SHARED);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_EMITTED, 10, 3, &h), TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_LOCAL, 50, 0, &h), TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_SHARED, 0, 50, &h), TAGTSO_FORM_SHARED);
}
END_TEST

START_TEST(without_flips_a_form_that_does_not_fit_becomes_mixed_for_good)
{
	ck_assert_uint_eq(wanted(TAGTSO_FORM_LOCAL, 0, 3, &by_default), TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_LOCAL, 0, 4, &by_default), TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_SHARED, 4, 0, &by_default), TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_MIXED, 1000, 0, &by_default), TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(wanted(TAGTSO_FORM_MIXED, 0, 1000, &by_default), TAGTSO_FORM_MIXED);
}
END_TEST

START_TEST(no_site_flips_more_often_than_the_limit)
{
	for (uint32_t limit = 0; limit < 255; limit += 1 + limit / 2) {
		const struct tagtso_hysteresis h = { .local = 4, .shared = 4, .flips = limit };
		struct tagtso_site *site = tagtso_site_get(0x1000, 0xf9400000);
		enum tagtso_form form = TAGTSO_FORM_LOCAL, want;
		unsigned flips = 0;

		site->changes = 0;
		/* phase after phase; the patcher counts */
		while ((want = wanted(form, form == TAGTSO_FORM_LOCAL ? 0 : 4, form == TAGTSO_FORM_LOCAL ? 4 : 0,
		                      &h)) != TAGTSO_FORM_MIXED) {
			ck_assert_uint_ne(want, form);
			form = want;
			flips++;
			site->changes++;
			ck_assert_uint_le(flips, limit);
		}
		ck_assert_uint_eq(flips, limit);
	}
}
END_TEST

START_TEST(a_score_that_took_too_long_is_halved)
{
	struct tagtso_site *site = tagtso_site_get(0x1000, 0xf9400000);
	const struct tagtso_hysteresis for_ever = { .local = 4, .shared = 4 };

	site->local = 9;
	site->shared = 4;
	site->since = UINT32_MAX - 100; /* the clock may pass 0 */
	ck_assert(!tagtso_site_fades(site, &by_default, 9899));
	ck_assert(!tagtso_site_fades(site, &for_ever, 2000000));
	ck_assert_uint_eq(site->local, 9);
	ck_assert(tagtso_site_fades(site, &by_default, 9901));
	ck_assert_uint_eq(site->local, 4);
	ck_assert_uint_eq(site->shared, 2);
	ck_assert_uint_eq(site->since, 9901);
	ck_assert(!tagtso_site_fades(site, &by_default, 19901));
	ck_assert(tagtso_site_fades(site, &by_default, 19902));
	ck_assert_uint_eq(site->local, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("site");
	TCase *tc = tcase_create("site");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tc);
	tcase_add_checked_fixture(tc, fresh_table, NULL);
	tcase_add_test(tc, a_size_that_is_no_power_of_two_is_refused);
	tcase_add_test(tc, a_site_is_decoded_and_as_emitted_at_first_sight);
	tcase_add_test(tc, the_same_instruction_has_one_site);
	tcase_add_test(tc, another_word_at_the_same_pc_is_another_site);
	tcase_add_test(tc, code_recycled_hundreds_of_times_keeps_its_sites);
	tcase_add_test(tc, a_full_table_says_so_and_still_finds_what_it_has);
	tcase_add_test(tc, a_site_that_is_remembered_is_recalled_by_its_own_pc_and_word_only);
	tcase_add_test(tc, a_page_of_code_has_a_place_for_each_of_its_sites);
	tcase_add_test(tc, only_pointers_to_sites_are_valid);
	tcase_add_test(tc, each_site_is_visited_once);
	tcase_add_test(tc, threads_that_insert_the_same_keys_get_the_same_sites);
	tcase_add_test(tc, each_kind_of_trap_has_its_own_threshold);
	tcase_add_test(tc, without_flips_a_form_that_does_not_fit_becomes_mixed_for_good);
	tcase_add_test(tc, no_site_flips_more_often_than_the_limit);
	tcase_add_test(tc, a_score_that_took_too_long_is_halved);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
