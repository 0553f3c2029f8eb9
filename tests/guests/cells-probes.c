/* SPDX-License-Identifier: MIT */
/* Probes: shared memory that has become private is found, memory that stays shared is probed less and less, and what is shared for good never. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "cells.h"

static struct worker other;

/* Accesses by this thread alone, until the page is its own; false after some seconds. */
static bool becomes_mine(struct code c, uint64_t *p)
{
	for (unsigned i = 0; i < 20000 && tag_of(p) != my_tag(); i++) {
		c.fn(p, i, 0);
		cells_sleep_ms(1);
	}
	return tag_of(p) == my_tag();
}

static void phase_change(void)
{
	struct code c = cells_emit(&snippet_str);
	uint32_t trapped = 1;

	cells_worker_start(&other);
	uint64_t *p = cells_shared(&other);

	for (unsigned i = 0; i < 100; i++) /* the first phase */
		cells_call_on(i % 2 ? &other : NULL, c, p, i, 0);
	SAME(tag_of(p), SHARED, "the tag in the first phase");
	CHECK(becomes_mine(c, p), "never owned in the second phase");
	for (unsigned i = 0; i < 3000 && trapped; i++) { /* until the site has the form for both */
		cells_sleep_ms(1);
		cells_observe(c.fn, p, i, 0, &trapped);
	}
	CHECK(!trapped, "accesses to memory that is owned again go on trapping");
	cells_sleep_ms(
		8000); /* until its next turn, which comes after at most twice the time of the first phase: nobody else has come */
}

/* The first phase is of the thread that owns nothing in the second. */
static void phases_of_two(void)
{
	struct code c = cells_emit(&snippet_str);

	cells_worker_start(&other);
	uint64_t *p = cells_shared(&other);
	unsigned theirs = cells_tag_of_worker(&other);

	for (unsigned i = 0; i < 20000 && tag_of(p) != theirs; i++) {
		cells_call_on(&other, c, p, i, 0);
		cells_sleep_ms(1);
	}
	SAME(tag_of(p), theirs, "the tag when the other thread alone uses it");
	c.fn(p, 77, 0);
	SAME(tag_of(p), SHARED, "the tag when this thread comes too");
	SAME(peek(p), 77, "the value");
}

static void ping_pong(void)
{
	struct code c = cells_emit(&snippet_ldadd);

	cells_worker_start(&other);
	uint64_t *p = cells_shared(&other);
	uint64_t before = peek(p);

	for (unsigned i = 0; i < 3000; i++) {
		cells_call_on(i % 2 ? &other : NULL, c, p, 1, 0);
		if (i % 2)
			cells_sleep_ms(1);
	}
	SAME(peek(p) - before, 3000, "the sum");
}

static void shared_for_good(void)
{
	struct code ld2 = cells_emit(&snippet_ld2), ldr = cells_emit(&snippet_ldr);

	cells_worker_start(&other);
	uint64_t *p = cells_mine();

	ld2.fn(p, 0, 0);
	for (unsigned i = 0; i < 300; i++) {
		ldr.fn(p, 0, 0);
		cells_sleep_ms(1);
	}
	SAME(tag_of(p), SHARED, "the tag of memory that an instruction accessed out of line");
}

static void shared_by_both_for_good(void)
{
	struct code ld2 = cells_emit(&snippet_ld2);

	cells_worker_start(&other);
	uint64_t *p = cells_shared(&other);

	ld2.fn(p, 0, 0);
	cells_sleep_ms(300);
	SAME(tag_of(p), SHARED, "the tag of shared memory that an instruction accessed out of line");
}

static void many_pages(void)
{
	enum { PAGES = 128 };

	cells_worker_start(&other);
	for (unsigned i = 0; i < PAGES; i++)
		cells_shared(&other);
	cells_sleep_ms(1500);
}

/* ---- all at once ---- */

enum { THREADS = 4, ROUNDS = 40000 };
static struct hammer {
	struct code add, store, load;
	uint64_t *common;
	unsigned n, wrong;
} hammers[THREADS];

/* Each thread alone on its own word of a common page, then all on one: the phases are short, and the probes are everywhere in them. */
static void *hammer(void *arg)
{
	struct hammer *h = arg;
	uint64_t *mine = h->common + 8 * (h->n + 1);

	for (unsigned i = 0; i < ROUNDS; i++) {
		h->store.fn(mine, i, 0);
		if (i / 100 % 2)
			h->add.fn(h->common, 1, 0);
		h->wrong += h->load.fn(mine, 0, 0) != i;
	}
	return NULL;
}

static void probed_while_used(void)
{
	struct code add = cells_emit(&snippet_ldadd), store = cells_emit(&snippet_str), load = cells_emit(&snippet_ldr);
	uint64_t *common = cells_map(PAGE);

	for (unsigned n = 0; n < THREADS; n++)
		hammers[n] = (struct hammer){ add, store, load, common, n, 0 };
	cells_together(THREADS, hammer, hammers, sizeof(hammers[0]));
	for (unsigned n = 0; n < THREADS; n++)
		SAME(hammers[n].wrong, 0, "values that a thread did not read back");
	SAME(get(common), THREADS * ROUNDS / 2, "the sum");
}

#define PROBED "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=1 TAGTSO_PROBES=1000 "

const struct test cells_probes[] = {
	TEST("probe-phases", "memory that was shared and is one thread's now becomes its own, and its accesses plain",
	     phase_change, PROBED "TAGTSO_PATIENCE=20", { "probes", '>', 1 }, { "probes_private", '>', 1 }),
	TEST("probe-two", "memory that was found private is shared again as soon as a second thread comes",
	     phases_of_two, PROBED "TAGTSO_PATIENCE=20", { "probes", '>', 1 }, { "revocations", '>', 2 }),
	TEST("probe-ping-pong", "memory that two threads go on sharing is probed less and less", ping_pong,
	     PROBED "TAGTSO_PATIENCE=50", { "probes", '>', 3 }, { "probes", '<', 14 }, { "revocations", '<', 15 }),
	TEST("probe-kept", "memory that is accessed out of line is never probed", shared_for_good,
	     PROBED "TAGTSO_PATIENCE=10", { "probes", '=', 0 }),
	TEST("probe-kept-later", "shared memory that is accessed out of line is not probed any more",
	     shared_by_both_for_good, PROBED "TAGTSO_PATIENCE=250", { "probes", '<', 1 }),
	TEST("probe-never", "with TAGTSO_PROBES=0 no memory is probed", many_pages,
	     "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=1 TAGTSO_PROBES=0 TAGTSO_PATIENCE=10", { "probes", '=', 0 }),
	TEST("probe-rate", "no more pages are probed in a second than TAGTSO_PROBES says", many_pages,
	     "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=1 TAGTSO_PROBES=5 TAGTSO_PATIENCE=10", { "probes", '>', 2 },
	     { "probes", '<', 100 }),
	TEST("probe-busy", "memory that is probed all the time while four threads use it keeps its values",
	     probed_while_used, "TAGTSO_HANDOVERS=1 TAGTSO_PROBES=100000 TAGTSO_PATIENCE=1", { "probes", '>', 2 }),
	TEST(NULL, NULL, NULL, NULL),
};
