/* SPDX-License-Identifier: MIT */
/* The guest's heap: recycled blocks change hands before jemalloc writes them (I2). Needs what test_owner.c needs. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

#include "alloc/heap.h"
#include "alloc/owner.h"
#include "alloc/sys.h"
#include "alloc/tags.h"
#include "alloc/window.h"
#include "shim/stats.h"

#ifndef HWCAP2_MTE
#define HWCAP2_MTE (1 << 18)
#endif

enum { SMALL = 256, BIG = 200 * 1024, HUGE = 64 << 20, MARK = 0x5a };

_Atomic bool tagtso_active;

static unsigned me;

static void begin(void)
{
	const char *what = "";

	ck_assert(tagtso_sys_membarrier_init());
	ck_assert_msg(tagtso_window_init(NULL, 4, &what) == 0, "%s", what);
	ck_assert_msg(tagtso_heap_init(&what) == 0, "%s", what);
	tagtso_owner_limits = (struct tagtso_owner_limits){ .handovers = 2, .conflicts = 4, .batch = 64 };
	atomic_store(&tagtso_active, true);
	me = tagtso_owner_lease();
	ck_assert_uint_ne(me, 0);
}

static volatile unsigned char *alias(const void *p)
{
	return (volatile unsigned char *)tagtso_window_at(tagtso_window.alias, tagtso_window_index((uint64_t)p),
	                                                  (uint64_t)p);
}

/* What plain stores by the thread with that id would do: each page is reached, each granule settled for it, and each byte written. */
static void *touched(void *p, size_t size, unsigned id)
{
	for (size_t at = 0; at < size; at += TAGTSO_GRANULE) {
		tagtso_window_open((uint64_t)p + at, id);
		ck_assert_uint_eq(tagtso_owner_settle((uint64_t)p + at, id), id);
		for (size_t k = at; k < at + TAGTSO_GRANULE; k++)
			*alias((char *)p + k) = MARK;
	}
	return p;
}

static void want_owner(const void *p, size_t size, unsigned id)
{
	for (size_t at = 0; at < size; at += TAGTSO_GRANULE) {
		unsigned tag = tagtso_owner_tag((uint64_t)p + at);

		ck_assert_msg(tag == id, "byte %zu of the block: tag %u, not %u", at, tag, id);
	}
}

static void want_bytes(const void *p, size_t size, unsigned byte)
{
	for (size_t at = 0; at < size; at++)
		ck_assert_uint_eq(*alias((const char *)p + at), byte);
}

static void *others_block(void *size)
{
	unsigned id = tagtso_owner_lease();
	void *p = tagtso_heap_alloc(*(size_t *)size, 0, false);

	ck_assert_uint_ne(id, me);
	return p ? touched(p, *(size_t *)size, id) : NULL;
}

/* A block that another thread wrote, and this one freed: the next of its size that this thread asks for. */
static void *recycled(size_t size)
{
	pthread_t other;
	void *p = NULL;

	ck_assert_int_eq(pthread_create(&other, NULL, others_block, &size), 0);
	ck_assert_int_eq(pthread_join(other, &p), 0);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_ne(tagtso_owner_tag((uint64_t)p), me);
	tagtso_heap_free(p);
	return p;
}

START_TEST(a_recycled_block_that_is_zeroed_changes_hands_first)
{
	void *old = recycled(SMALL), *p = tagtso_heap_alloc(SMALL, 0, true);

	ck_assert_ptr_eq(p, old);
	want_owner(p, SMALL, me);
	want_bytes(p, SMALL, 0);
	ck_assert_uint_eq(TAGTSO_STAT(handovers), 1);
}
END_TEST

START_TEST(a_recycled_block_that_is_copied_to_changes_hands_first)
{
	void *from = touched(tagtso_heap_alloc(SMALL / 2, 0, false), SMALL / 2, me);
	void *old = recycled(SMALL), *p = tagtso_heap_realloc(from, SMALL);

	ck_assert_ptr_eq(p, old);
	want_owner(p, SMALL / 2, me);
	want_bytes(p, SMALL / 2, MARK);
	ck_assert_uint_eq(TAGTSO_STAT(handovers), 1);
}
END_TEST

START_TEST(a_recycled_block_that_nobody_writes_waits_for_its_first_access)
{
	void *old = recycled(SMALL), *p = tagtso_heap_alloc(SMALL, 0, false);

	ck_assert_ptr_eq(p, old);
	ck_assert_uint_ne(tagtso_owner_tag((uint64_t)p), me);
	ck_assert_uint_eq(TAGTSO_STAT(handovers), 0);
}
END_TEST

START_TEST(a_block_whose_page_was_handed_over_too_often_becomes_shared)
{
	tagtso_owner_limits.handovers = 0;
	void *p = recycled(SMALL);

	ck_assert_ptr_eq(tagtso_heap_alloc(SMALL, 0, true), p);
	want_owner(p, SMALL, TAGTSO_TAG_SHARED);
	want_bytes(p, SMALL, 0);
}
END_TEST

/* A big block goes back to its own arena; this thread has it from another's hands. */
static void *take_and_free(void *p)
{
	tagtso_heap_free(touched(p, BIG, tagtso_owner_lease()));
	return NULL;
}

START_TEST(a_big_block_that_is_zeroed_changes_hands_first)
{
	void *old = touched(tagtso_heap_alloc(BIG, 0, false), BIG, me);
	pthread_t other;

	ck_assert_int_eq(pthread_create(&other, NULL, take_and_free, old), 0);
	ck_assert_int_eq(pthread_join(other, NULL), 0);
	ck_assert_uint_ne(tagtso_owner_tag((uint64_t)old), me);
	void *p = tagtso_heap_alloc(BIG, 0, true);

	ck_assert_ptr_eq(p, old);
	want_owner(p, BIG, me);
	want_bytes(p, BIG, 0);
}
END_TEST

START_TEST(fresh_memory_is_not_written_to_be_zero)
{
	uint64_t p = (uint64_t)tagtso_heap_alloc(HUGE, 0, true), reached = 0;

	for (uint64_t at = 0; at < HUGE; at += TAGTSO_PAGE_SIZE)
		reached += !!(tagtso_window.page[tagtso_window_index(p + at)].flags & TAGTSO_PAGE_REACHED);
	ck_assert_uint_le(reached, 64);
}
END_TEST

START_TEST(while_one_thread_runs_nothing_changes_hands)
{
	void *old = recycled(SMALL);

	atomic_store(&tagtso_active, false);
	ck_assert_ptr_eq(tagtso_heap_alloc(SMALL, 0, true), old);
	want_bytes(old, SMALL, 0);
	ck_assert_uint_eq(TAGTSO_STAT(handovers), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("heap");
	TCase *tc = tcase_create("heap");
	SRunner *runner;
	int failed;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_MTE)) {
		puts("no memory tagging (MTE) here");
		return 77;
	}
	runner = srunner_create(suite);
	suite_add_tcase(suite, tc);
	tcase_add_checked_fixture(tc, begin, NULL);
	tcase_add_test(tc, a_recycled_block_that_is_zeroed_changes_hands_first);
	tcase_add_test(tc, a_recycled_block_that_is_copied_to_changes_hands_first);
	tcase_add_test(tc, a_recycled_block_that_nobody_writes_waits_for_its_first_access);
	tcase_add_test(tc, a_block_whose_page_was_handed_over_too_often_becomes_shared);
	tcase_add_test(tc, a_big_block_that_is_zeroed_changes_hands_first);
	tcase_add_test(tc, fresh_memory_is_not_written_to_be_zero);
	tcase_add_test(tc, while_one_thread_runs_nothing_changes_hands);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
