/* SPDX-License-Identifier: MIT */
/* Behaviour of the window, of owner ids and of the transitions of granules. Needs memory tagging, and a memfd with tags: Linux on a machine that has them. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "alloc/owner.h"
#include "alloc/sys.h"
#include "alloc/tags.h"
#include "alloc/window.h"
#include "shim/stats.h"

#ifndef HWCAP2_MTE
#define HWCAP2_MTE (1 << 18)
#endif

enum { PAGE = TAGTSO_PAGE_SIZE, EAGER = 16, CHUNK = 64 };
enum { RW = PROT_READ | PROT_WRITE };

/* What the shim's thread hooks keep: more than one thread exists. */
_Atomic bool tagtso_active;

static void begin(void)
{
	const char *what = "";

	ck_assert(tagtso_sys_membarrier_init());
	ck_assert_msg(tagtso_window_init(NULL, 4, &what) == 0, "%s", what);
	tagtso_owner_limits.handovers = 2;
	tagtso_owner_limits.conflicts = 4;
	tagtso_owner_limits.batch = 64;
	tagtso_owner_limits.forget = 0;
	atomic_store(&tagtso_active, true);
}

static uint64_t map(uint64_t pages)
{
	long r = tagtso_window_map(0, pages * PAGE, RW, 0, -1, 0, false);

	ck_assert_int_gt(r, 0);
	return (uint64_t)r;
}

/* The same bytes, where no tag is checked. */
static volatile uint64_t *alias(uint64_t va)
{
	return (volatile uint64_t *)tagtso_window_at(tagtso_window.alias, tagtso_window_index(va), va);
}

static bool is_reached(uint64_t va)
{
	return tagtso_window.page[tagtso_window_index(va)].flags & TAGTSO_PAGE_REACHED;
}

/* ---- other threads ---- */

struct other {
	void (*fn)(struct other *);
	uint64_t va;
	unsigned id, tag;
	pthread_t thread;
	pthread_barrier_t *barrier;
};

static void *other_main(void *arg)
{
	struct other *o = arg;

	o->fn(o);
	return NULL;
}

static void on_other(struct other *o, void (*fn)(struct other *), uint64_t va)
{
	*o = (struct other){ .fn = fn, .va = va };
	ck_assert_int_eq(pthread_create(&o->thread, NULL, other_main, o), 0);
	ck_assert_int_eq(pthread_join(o->thread, NULL), 0);
}

static void lease_and_settle(struct other *o)
{
	o->id = tagtso_owner_lease();
	o->tag = o->va ? tagtso_owner_settle(o->va, o->id) : 0;
}

/* ---- ids ---- */

START_TEST(a_thread_with_a_lease_inserts_its_own_id)
{
	unsigned id = tagtso_owner_lease();

	ck_assert_uint_ge(id, TAGTSO_TAG_FIRST);
	ck_assert_uint_le(id, TAGTSO_TAG_LAST);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_uint_eq(tagtso_tag_mine(), id);
	ck_assert_uint_eq(tagtso_owner_lease(), id);
	tagtso_owner_none();
	ck_assert_uint_eq(tagtso_tag_mine(), 0);
}
END_TEST

static void lease_and_wait(struct other *o)
{
	o->id = tagtso_owner_lease();
	pthread_barrier_wait(o->barrier);
	pthread_barrier_wait(o->barrier);
}

START_TEST(thirteen_threads_have_ids_of_their_own_and_the_rest_none)
{
	enum { THREADS = 18 };
	static struct other others[THREADS];
	pthread_barrier_t barrier;
	unsigned seen = 0, none = 0;

	pthread_barrier_init(&barrier, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++) {
		others[i] = (struct other){ .fn = lease_and_wait, .barrier = &barrier };
		ck_assert_int_eq(pthread_create(&others[i].thread, NULL, other_main, &others[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(others[i].thread, NULL);
		none += !others[i].id;
		ck_assert(!others[i].id || !(seen >> others[i].id & 1));
		seen |= 1u << others[i].id;
	}
	ck_assert_uint_eq(none, THREADS - TAGTSO_TAG_LAST);
	ck_assert_uint_eq(TAGTSO_STAT(leases_refused), none);
	ck_assert_uint_eq(TAGTSO_STAT(leases), TAGTSO_TAG_LAST);
}
END_TEST

START_TEST(ids_of_ended_threads_are_leased_again)
{
	struct other o;

	for (unsigned i = 0; i < 3 * TAGTSO_TAG_LAST; i++) {
		on_other(&o, lease_and_settle, 0);
		ck_assert_uint_ne(o.id, 0);
	}
	ck_assert_uint_eq(TAGTSO_STAT(leases_refused), 0);
}
END_TEST

/* ---- transitions ---- */

START_TEST(fresh_memory_is_undecided_and_becomes_the_first_ones)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(1);

	ck_assert_uint_eq(tagtso_owner_tag(va), TAGTSO_TAG_BUSY);
	ck_assert_uint_eq(tagtso_owner_settle(va + 100, me), me);
	for (unsigned i = 0; i < PAGE; i += TAGTSO_GRANULE)
		ck_assert_uint_eq(tagtso_owner_tag(va + i), me);
	ck_assert_uint_eq(TAGTSO_STAT(claims), 1);
}
END_TEST

START_TEST(filling_changes_the_tags_of_its_pages_and_no_others)
{
	uint64_t view = tagtso_window_at(tagtso_window.tags, tagtso_window_index(map(4)), 0);

	tagtso_tag_fill(view, 4 * PAGE, 5);
	tagtso_tag_fill(view + PAGE, 2 * PAGE, 6);
	for (uint64_t at = 0; at < 4 * PAGE; at += TAGTSO_GRANULE)
		ck_assert_uint_eq(tagtso_tag_get(view + at), at / PAGE == 0 || at / PAGE == 3 ? 5 : 6);
}
END_TEST

START_TEST(one_granule_with_another_tag_is_seen_wherever_it_is)
{
	uint64_t view = tagtso_window_at(tagtso_window.tags, tagtso_window_index(map(1)), 0);

	tagtso_tag_fill(view, PAGE, 9);
	ck_assert_int_eq(tagtso_tag_of_all(view, PAGE), 9);
	for (uint64_t at = 0; at < PAGE; at += TAGTSO_GRANULE) {
		tagtso_tag_set(view + at, 8);
		ck_assert_int_eq(tagtso_tag_of_all(view, PAGE), -1);
		tagtso_tag_set(view + at, 9);
	}
	ck_assert_int_eq(tagtso_tag_of_all(view, PAGE), 9);
}
END_TEST

START_TEST(pages_of_several_owners_are_handed_over_in_part)
{
	uint64_t va = map(1);
	uint64_t view = tagtso_window_at(tagtso_window.tags, tagtso_window_index(va), va);

	ck_assert_uint_eq(tagtso_owner_settle(va, 3), 3);
	tagtso_tag_set(view + 16 * TAGTSO_GRANULE, 7);
	ck_assert_uint_eq(tagtso_owner_settle(va, 4), 4);
	for (unsigned g = 0; g < PAGE / TAGTSO_GRANULE; g++)
		ck_assert_uint_eq(tagtso_tag_get(view + g * TAGTSO_GRANULE), g == 16 ? 7 : 4);
}
END_TEST

START_TEST(claims_that_follow_each_other_grow)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(EAGER);

	for (unsigned i = 0; i < EAGER; i++)
		ck_assert_uint_eq(tagtso_owner_settle(va + i * PAGE, me), me);
	ck_assert_uint_eq(TAGTSO_STAT(claims), 5); /* 1, 2, 4, 8 and the last page */
	ck_assert_uint_eq(TAGTSO_STAT(claimed_pages), EAGER);
	ck_assert_uint_le(TAGTSO_STAT(membarriers), 5);
}
END_TEST

/* ---- batches ---- */

/* A whole group of pages, the first 16 of which are owner 3's: 7 to 14 came together. */
static uint64_t claimed_group(void)
{
	uint64_t va = map(2 * TAGTSO_PAGE_GROUP);
	uint32_t into = tagtso_window_index(va) % TAGTSO_PAGE_GROUP;

	va += (uint64_t)(TAGTSO_PAGE_GROUP - into) % TAGTSO_PAGE_GROUP * PAGE;
	for (unsigned i = 0; i < EAGER; i++)
		ck_assert(is_reached(va + i * PAGE) || tagtso_window_open(va + i * PAGE, 1));
	tagtso_tag_fill(tagtso_window_at(tagtso_window.tags, tagtso_window_index(va), va), EAGER * PAGE,
	                TAGTSO_TAG_BUSY);
	for (unsigned i = 0; i < EAGER; i++)
		ck_assert_uint_eq(tagtso_owner_settle(va + i * PAGE, 3), 3);
	return va;
}

/* The first 16 pages, by their first granules. */
static const char *owners(uint64_t va)
{
	static char text[EAGER + 1];

	for (unsigned i = 0; i < EAGER; i++)
		text[i] = "0123456789abcd?S"[tagtso_owner_tag(va + i * PAGE)];
	return text;
}

/* As if the pages had changed hands long ago. */
static void rest(uint64_t va)
{
	enum { WHENS = 16, LONG_AGO = WHENS / 2 };

	for (unsigned i = 0; i < EAGER; i++) {
		struct tagtso_page *p = &tagtso_window.page[tagtso_window_index(va + i * PAGE)];
		unsigned now = tagtso_sys_now_ms() / tagtso_owner_limits.forget;

		p->moved = (uint8_t)((now - LONG_AGO) % WHENS * WHENS + p->moved % WHENS);
	}
}

START_TEST(pages_that_came_together_move_together)
{
	uint64_t va = claimed_group();

	ck_assert_uint_eq(tagtso_owner_settle(va + 10 * PAGE, 4),
	                  4); /* those behind, and two before for want of more */
	ck_assert_str_eq(owners(va), "3333333344444444");
	ck_assert_uint_eq(tagtso_owner_settle(va, 5), 5);
	ck_assert_str_eq(owners(va), "5333333344444444");
	ck_assert_uint_eq(TAGTSO_STAT(handovers), 2);
	ck_assert_uint_eq(TAGTSO_STAT(handed_pages), 9);
}
END_TEST

START_TEST(a_batch_leaves_out_what_is_not_the_old_owners)
{
	uint64_t va = claimed_group();

	tagtso_tag_fill(tagtso_window_at(tagtso_window.tags, tagtso_window_index(va + 12 * PAGE), 0), PAGE, 7);
	ck_assert_uint_eq(tagtso_owner_settle(va + 10 * PAGE, 4), 4);
	ck_assert_str_eq(owners(va), "3333333444447444");
}
END_TEST

START_TEST(a_batch_is_no_bigger_than_its_limit)
{
	uint64_t va = claimed_group();

	tagtso_owner_limits.batch = 3;
	ck_assert_uint_eq(tagtso_owner_settle(va + 10 * PAGE, 4), 4);
	ck_assert_str_eq(owners(va), "3333333333444333");
}
END_TEST

START_TEST(what_has_rested_moves_in_batches_of_twice_the_size)
{
	uint64_t va = claimed_group();

	tagtso_owner_limits.forget = 60000;
	rest(va);
	ck_assert_uint_eq(tagtso_owner_settle(va, 4), 4);
	ck_assert_str_eq(owners(va), "4433333333333333");
}
END_TEST

START_TEST(hand_overs_are_forgotten_after_a_rest)
{
	uint64_t va = claimed_group();

	tagtso_owner_limits.forget = 60000;
	for (unsigned i = 0; i < 10; i++) {
		ck_assert_uint_eq(tagtso_owner_settle(va, 4), 4);
		ck_assert_uint_eq(tagtso_owner_settle(va, 3), 3);
		rest(va);
	}
	for (unsigned i = 0; i < tagtso_owner_limits.handovers; i++)
		ck_assert_uint_eq(tagtso_owner_settle(va, 3 + (i + 1) % 2), 3 + (i + 1) % 2);
	ck_assert_uint_eq(tagtso_owner_settle(va, 4), TAGTSO_TAG_SHARED);
}
END_TEST

/* All eight came and went together, as often as they may; then some, and what follows them in twice the number. */
START_TEST(pages_that_go_to_and_fro_together_become_shared_together)
{
	uint64_t va = claimed_group();

	ck_assert_uint_eq(tagtso_owner_settle(va + 7 * PAGE, 4), 4);
	ck_assert_uint_eq(tagtso_owner_settle(va + 7 * PAGE, 3), 3);
	ck_assert_uint_eq(tagtso_owner_settle(va + 9 * PAGE + 64, 4), TAGTSO_TAG_SHARED);
	ck_assert_str_eq(owners(va), "333333333SS33333");
	ck_assert_uint_eq(tagtso_owner_tag(va + 11 * PAGE - 1), TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(tagtso_owner_settle(va + 11 * PAGE, 4), TAGTSO_TAG_SHARED);
	ck_assert_str_eq(owners(va), "333333333SSSSSS3");
	ck_assert_uint_eq(TAGTSO_STAT(revocations), 2);
	ck_assert_uint_eq(TAGTSO_STAT(revoked_granules), 6 * PAGE / TAGTSO_GRANULE);
}
END_TEST

START_TEST(by_granule_alone_means_never_whole_pages)
{
	uint64_t va = claimed_group();

	tagtso_owner_limits.conflicts = PAGE / TAGTSO_GRANULE;
	ck_assert_uint_eq(tagtso_owner_settle(va + 7 * PAGE, 4), 4);
	ck_assert_uint_eq(tagtso_owner_settle(va + 7 * PAGE, 3), 3);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_uint_eq(tagtso_owner_settle(va + 9 * PAGE + 2 * i * TAGTSO_GRANULE, 4), TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(TAGTSO_STAT(revoked_granules), 8);
}
END_TEST

START_TEST(undecided_granules_go_with_the_page)
{
	uint64_t va = map(1);
	uint64_t view = tagtso_window_at(tagtso_window.tags, tagtso_window_index(va), va);

	ck_assert_uint_eq(tagtso_owner_settle(va, 3), 3);
	tagtso_tag_set(view + 16 * TAGTSO_GRANULE, TAGTSO_TAG_BUSY);
	ck_assert_uint_eq(tagtso_owner_settle(va, 4), 4);
	ck_assert_int_eq(tagtso_tag_of_all(view, PAGE), 4);
}
END_TEST

START_TEST(a_page_is_handed_over_up_to_the_limit_and_then_shared_by_granule)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(1);
	struct other o;

	tagtso_owner_settle(va, me);
	on_other(&o, lease_and_settle, va + 32);
	ck_assert_uint_eq(o.tag, o.id);
	ck_assert_uint_ne(o.id, me);
	ck_assert_uint_eq(tagtso_owner_tag(va + PAGE - 1), o.id);
	ck_assert_uint_eq(tagtso_owner_settle(va, me), me);
	on_other(&o, lease_and_settle, va + 32);
	ck_assert_uint_eq(o.tag, TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(tagtso_owner_tag(va + 32), TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(tagtso_owner_tag(va + 16), me);
	ck_assert_uint_eq(tagtso_owner_tag(va + 48), me);
	ck_assert_uint_eq(tagtso_owner_settle(va + 40, me), TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(TAGTSO_STAT(handovers), 2);
	ck_assert_uint_eq(TAGTSO_STAT(revoked_granules), 1);
}
END_TEST

START_TEST(enough_conflicts_share_the_whole_page)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(2);
	struct other o;

	tagtso_owner_limits.handovers = 0;
	tagtso_owner_settle(va, me);
	for (unsigned i = 0; i < tagtso_owner_limits.conflicts; i++) {
		ck_assert_uint_eq(tagtso_owner_tag(va + 2000), me);
		on_other(&o, lease_and_settle, va + i * 64);
		ck_assert_uint_eq(o.tag, TAGTSO_TAG_SHARED);
	}
	for (unsigned i = 0; i < PAGE; i += TAGTSO_GRANULE)
		ck_assert_uint_eq(tagtso_owner_tag(va + i), TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(tagtso_owner_tag(va + PAGE), TAGTSO_TAG_BUSY);
}
END_TEST

START_TEST(a_thread_without_an_id_shares_what_it_touches)
{
	uint64_t va = map(2);
	struct other o;

	tagtso_owner_none();
	ck_assert_uint_eq(tagtso_owner_settle(va, 0), TAGTSO_TAG_SHARED);
	on_other(&o, lease_and_settle, va + PAGE);
	ck_assert_uint_eq(o.tag, o.id);
	ck_assert_uint_eq(tagtso_owner_settle(va + PAGE, 0), TAGTSO_TAG_SHARED);
}
END_TEST

START_TEST(what_was_shared_for_good_stays_so_until_it_is_emptied)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(3);

	tagtso_owner_settle(va, me);
	*alias(va + PAGE) = 5;
	tagtso_owner_share(va + 100, PAGE);
	ck_assert_uint_eq(tagtso_owner_settle(va, me), TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(tagtso_owner_settle(va + PAGE + 8, me), TAGTSO_TAG_SHARED);
	ck_assert_uint_eq(tagtso_owner_settle(va + 2 * PAGE, me), me);
	tagtso_window_zero(va, 2 * PAGE);
	ck_assert(!is_reached(va));
	ck_assert(tagtso_window_open(va + PAGE, me));
	ck_assert_uint_eq(tagtso_owner_settle(va + PAGE, me), me);
	ck_assert_uint_eq(*alias(va + PAGE), 0);
}
END_TEST

START_TEST(addresses_outside_the_window_are_nobodys)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(1), local = 0;

	ck_assert_uint_eq(tagtso_owner_settle((uint64_t)&local, me), 0);
	ck_assert_uint_eq(tagtso_owner_settle(0, me), 0);
	ck_assert_uint_eq(tagtso_owner_settle(~(uint64_t)0, me), 0);
	tagtso_window_release(va, PAGE);
	ck_assert_uint_eq(tagtso_owner_settle(va, me), 0);
	ck_assert(!tagtso_owner_lock(va, 8));
}
END_TEST

START_TEST(the_locks_of_two_pages_are_taken_together)
{
	uint64_t va = map(2), other = map(1);

	ck_assert(tagtso_owner_lock(va + PAGE - 4, 8));
	ck_assert_uint_eq(tagtso_window.page[tagtso_window_index(va)].lock, 1);
	ck_assert_uint_eq(tagtso_window.page[tagtso_window_index(va + PAGE)].lock, 1);
	ck_assert_uint_eq(tagtso_window.page[tagtso_window_index(other)].lock, 0);
	tagtso_owner_unlock(va + PAGE - 4, 8);
	ck_assert_uint_eq(tagtso_window.page[tagtso_window_index(va)].lock, 0);
	ck_assert_uint_eq(tagtso_window.page[tagtso_window_index(va + PAGE)].lock, 0);
}
END_TEST

/* Every thread's answer must have been true at one moment: a granule never has two owners, and shared stays shared. */
static void settle_often(struct other *o)
{
	unsigned me = tagtso_owner_lease();

	for (unsigned i = 0; i < 3000; i++) {
		unsigned tag = tagtso_owner_settle(o->va + i * 48 % (4 * PAGE), me);

		if (tag != TAGTSO_TAG_SHARED && tag != me)
			o->tag++;
	}
}

START_TEST(threads_that_settle_the_same_memory_agree)
{
	struct other others[4];
	uint64_t va = map(4);

	tagtso_owner_limits.handovers = 200;
	for (unsigned i = 0; i < 4; i++) {
		others[i] = (struct other){ .fn = settle_often, .va = va };
		ck_assert_int_eq(pthread_create(&others[i].thread, NULL, other_main, &others[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(others[i].thread, NULL);
		ck_assert_uint_eq(others[i].tag, 0);
	}
	for (unsigned i = 0; i < 4 * PAGE; i += TAGTSO_GRANULE) {
		unsigned tag = tagtso_owner_tag(va + i);

		ck_assert(tag == TAGTSO_TAG_SHARED || (tag >= TAGTSO_TAG_FIRST && tag <= TAGTSO_TAG_LAST));
	}
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(tagtso_window.page[tagtso_window_index(va + i * PAGE)].lock, 0);
}
END_TEST

/* ---- the window ---- */

START_TEST(big_mappings_are_out_of_reach_until_a_chunk_is_touched)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(4 * CHUNK), chunk = (va + CHUNK * PAGE - 1) & ~(uint64_t)(CHUNK * PAGE - 1);

	ck_assert(!is_reached(va));
	ck_assert(tagtso_window_open(chunk + 5 * PAGE, me));
	for (unsigned i = 0; i < CHUNK; i++) {
		ck_assert(is_reached(chunk + i * PAGE));
		ck_assert_uint_eq(tagtso_owner_tag(chunk + i * PAGE), me);
	}
	ck_assert(!is_reached(chunk + CHUNK * PAGE));
	ck_assert(tagtso_window_open(chunk + CHUNK * PAGE, 0));
	ck_assert_uint_eq(tagtso_owner_tag(chunk + CHUNK * PAGE), TAGTSO_TAG_SHARED);
}
END_TEST

START_TEST(waking_gives_what_is_resident_to_one_owner)
{
	atomic_store(&tagtso_active, false);
	uint64_t small = map(2), big = map(4 * CHUNK);
	volatile uint64_t *resident = (volatile uint64_t *)(big + 3 * CHUNK * PAGE);

	*resident = 7;
	unsigned me = tagtso_owner_lease();

	atomic_store(&tagtso_active, true);
	tagtso_window_wake(me);
	ck_assert_uint_eq(tagtso_owner_tag(small + PAGE), me);
	ck_assert_uint_eq(tagtso_owner_tag((uint64_t)resident), me);
	ck_assert(is_reached((uint64_t)resident));
	ck_assert(!is_reached(big));
	ck_assert_uint_eq(*alias((uint64_t)resident), 7);
}
END_TEST

START_TEST(what_is_released_is_mapped_again_empty)
{
	uint64_t before = TAGTSO_STAT(window_bytes), va = map(EAGER);
	uint32_t index = tagtso_window_index(va);

	*alias(va + 3 * PAGE) = 9;
	ck_assert_uint_eq(TAGTSO_STAT(window_bytes), before + EAGER * PAGE);
	tagtso_window_release(va, EAGER * PAGE);
	ck_assert_uint_eq(tagtso_window_index(va + 3 * PAGE), 0);
	ck_assert_uint_eq(TAGTSO_STAT(window_bytes), before);
	uint64_t again = map(EAGER);

	ck_assert_uint_eq(tagtso_window_index(again), index);
	ck_assert_uint_eq(*alias(again + 3 * PAGE), 0);
	ck_assert_uint_eq(tagtso_owner_tag(again), TAGTSO_TAG_BUSY);
}
END_TEST

START_TEST(releasing_the_middle_leaves_both_ends)
{
	unsigned me = tagtso_owner_lease();
	uint64_t va = map(5);

	*alias(va) = 1;
	*alias(va + 4 * PAGE) = 2;
	tagtso_owner_settle(va + 4 * PAGE, me);
	tagtso_window_release(va + PAGE, 3 * PAGE);
	ck_assert_uint_eq(*alias(va) + *alias(va + 4 * PAGE), 3);
	ck_assert_uint_eq(tagtso_owner_tag(va + 4 * PAGE), me);
	for (unsigned i = 1; i < 4; i++)
		ck_assert_uint_eq(tagtso_window_index(va + i * PAGE), 0);
	ck_assert(tagtso_window_any(va, 5 * PAGE));
	ck_assert(!tagtso_window_any(va + PAGE, 3 * PAGE));
}
END_TEST

START_TEST(growing_keeps_the_data_in_one_piece)
{
	uint64_t va = map(3);

	for (unsigned i = 0; i < 3; i++)
		*alias(va + i * PAGE + 8) = 50 + i;
	long r = tagtso_window_remap(va, 3 * PAGE, 20 * PAGE, MREMAP_MAYMOVE, 0);

	ck_assert_int_gt(r, 0);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(*alias((uint64_t)r + i * PAGE + 8), 50 + i);
	ck_assert_uint_eq(*alias((uint64_t)r + 19 * PAGE), 0);
	for (unsigned i = 1; i < 20; i++)
		ck_assert_uint_eq(tagtso_window_index((uint64_t)r + i * PAGE), tagtso_window_index((uint64_t)r) + i);
	ck_assert(!tagtso_window_any(va, PAGE) || (uint64_t)r == va);
}
END_TEST

START_TEST(the_alias_leads_back_to_the_window)
{
	uint64_t va = map(2);

	ck_assert_uint_eq(tagtso_window_of_alias((uint64_t)alias(va + PAGE + 24)), va + PAGE + 24);
	ck_assert_uint_eq(tagtso_window_of_alias(va), 0);
	ck_assert_uint_eq(tagtso_window_of_alias(tagtso_window.alias), 0);
	ck_assert_uint_eq(tagtso_window_index(va | (uint64_t)5 << TAGTSO_TAG_SHIFT), tagtso_window_index(va));
}
END_TEST

START_TEST(a_full_window_says_so)
{
	uint64_t pages = tagtso_window.pages;

	ck_assert_int_eq(tagtso_window_map(0, (pages + 1) * PAGE, RW, 0, -1, 0, false), -ENOSPC);
	uint64_t va = map(pages - 1);

	ck_assert_int_eq(tagtso_window_map(0, PAGE, RW, 0, -1, 0, false), -ENOSPC);
	tagtso_window_release(va + PAGE, PAGE);
	map(1);
}
END_TEST

START_TEST(metadata_is_small)
{
	map(1 << 18); /* 1 GiB */
	ck_assert_uint_le(tagtso_window_metadata(), (1u << 30) / 100);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("owner");
	TCase *tc = tcase_create("owner");
	SRunner *runner;
	int failed;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_MTE)) {
		puts("no memory tagging (MTE) here");
		return 77;
	}
	runner = srunner_create(suite);
	suite_add_tcase(suite, tc);
	tcase_add_checked_fixture(tc, begin, NULL);
	tcase_add_test(tc, a_thread_with_a_lease_inserts_its_own_id);
	tcase_add_test(tc, thirteen_threads_have_ids_of_their_own_and_the_rest_none);
	tcase_add_test(tc, ids_of_ended_threads_are_leased_again);
	tcase_add_test(tc, fresh_memory_is_undecided_and_becomes_the_first_ones);
	tcase_add_test(tc, filling_changes_the_tags_of_its_pages_and_no_others);
	tcase_add_test(tc, one_granule_with_another_tag_is_seen_wherever_it_is);
	tcase_add_test(tc, pages_of_several_owners_are_handed_over_in_part);
	tcase_add_test(tc, claims_that_follow_each_other_grow);
	tcase_add_test(tc, pages_that_came_together_move_together);
	tcase_add_test(tc, a_batch_leaves_out_what_is_not_the_old_owners);
	tcase_add_test(tc, a_batch_is_no_bigger_than_its_limit);
	tcase_add_test(tc, what_has_rested_moves_in_batches_of_twice_the_size);
	tcase_add_test(tc, hand_overs_are_forgotten_after_a_rest);
	tcase_add_test(tc, pages_that_go_to_and_fro_together_become_shared_together);
	tcase_add_test(tc, by_granule_alone_means_never_whole_pages);
	tcase_add_test(tc, undecided_granules_go_with_the_page);
	tcase_add_test(tc, a_page_is_handed_over_up_to_the_limit_and_then_shared_by_granule);
	tcase_add_test(tc, enough_conflicts_share_the_whole_page);
	tcase_add_test(tc, a_thread_without_an_id_shares_what_it_touches);
	tcase_add_test(tc, what_was_shared_for_good_stays_so_until_it_is_emptied);
	tcase_add_test(tc, addresses_outside_the_window_are_nobodys);
	tcase_add_test(tc, the_locks_of_two_pages_are_taken_together);
	tcase_add_test(tc, threads_that_settle_the_same_memory_agree);
	tcase_add_test(tc, big_mappings_are_out_of_reach_until_a_chunk_is_touched);
	tcase_add_test(tc, waking_gives_what_is_resident_to_one_owner);
	tcase_add_test(tc, what_is_released_is_mapped_again_empty);
	tcase_add_test(tc, releasing_the_middle_leaves_both_ends);
	tcase_add_test(tc, growing_keeps_the_data_in_one_piece);
	tcase_add_test(tc, the_alias_leads_back_to_the_window);
	tcase_add_test(tc, a_full_window_says_so);
	tcase_add_test(tc, metadata_is_small);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
