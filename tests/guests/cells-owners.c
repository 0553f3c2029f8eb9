/* SPDX-License-Identifier: MIT */
/* How ownership moves: claims, hand-over, revocation, leases; how sites change form; accesses over two granules. */
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "cells.h"

static struct worker other;

/* ---- hand-over and revocation ---- */

static void first_thread_owns(void)
{
	uint64_t *resident = cells_map(PAGE), *fresh = cells_map(PAGE);

	put(resident, 1);
	SAME(tag_of(resident), 0, "the tag while there is one thread");
	cells_worker_start(&other);
	SAME(tag_of(resident), my_tag(), "the tag of what was there when the second thread started");
	SAME(get(resident), 1, "the value");
	SAME(get(fresh), 0, "the value of memory not touched before");
	SAME(tag_of(fresh), my_tag(), "its tag");
}

static void hand_over_then_share(void)
{
	cells_worker_start(&other);
	uint64_t *p = cells_mine();

	for (unsigned times = 0; times < 1; times++) {
		cells_put_on(&other, p, 7);
		SAME(tag_of(p), cells_tag_of_worker(&other), "the tag after the first hand-over");
		SAME(tag_of(p + PAGE / 8 - 2), cells_tag_of_worker(&other),
		     "the tag of the page's end after the first hand-over");
	}
	SAME(get(p), 7, "the value after a hand-over");
	SAME(tag_of(p), my_tag(), "the tag after the second hand-over");
	cells_put_on(&other, p, 8);
	SAME(tag_of(p), SHARED, "the tag after the third");
	SAME(tag_of(p + 2), my_tag(), "the tag of the next granule");
	SAME(get(p), 8, "the value in shared memory");
	SAME(tag_of(p), SHARED, "the tag of shared memory when it is read");
}

static void conflicts_share_the_page(void)
{
	cells_worker_start(&other);
	uint64_t *p = cells_mine();

	cells_put_on(&other, p, 1);
	cells_put_on(&other, p + 4, 2);
	SAME(tag_of(p), SHARED, "the tag of the first granule in conflict");
	SAME(tag_of(p + 4), SHARED, "the tag of the second granule in conflict");
	SAME(tag_of(p + 2), my_tag(), "the tag of one between");
	cells_put_on(&other, p + 8, 3);
	for (unsigned i = 0; i < PAGE / GRANULE; i++)
		SAME(tag_of(p + 2 * i), SHARED, "a tag of the page after the third conflict");
	SAME(get(p) + get(p + 4) + get(p + 8), 6, "the sum of what was written");
}

static void buffers_move_whole(void)
{
	enum { SIZE = 1 << 20, WORDS = SIZE / 8 };
	struct code fill = cells_emit(&snippet_fill), sum = cells_emit(&snippet_sum);

	cells_worker_start(&other);
	uint64_t *p = cells_map(SIZE);

	cells_call_on(&other, fill, p, WORDS, 5);
	SAME(sum.fn(p, WORDS, 0), (uint64_t)WORDS * (WORDS - 1) / 2 + 5 * WORDS, "the sum");
	SAME(tag_of(p + WORDS / 2), my_tag(), "the tag of what was written there and read here");
}

/* ---- forms ---- */

static void threshold_zero(void)
{
	struct code c = cells_emit(&snippet_str);

	cells_worker_start(&other);
	uint64_t *p = cells_mine();

	for (unsigned i = 0; i < 1000; i++)
		SAME(c.fn(p, i, 0), i, "the result");
	cells_sleep_ms(100);
	CHECK(!is_rewritten(c), "the site was rewritten");
	SAME(peek(p), 999, "the value");
}

/* Adds ones until the site's word has changed and stays: it changes too when the patcher joins its island, in the form of before, with others. How many. */
static uint64_t add_until_changed(struct code c, uint64_t *p, const char *before)
{
	uint32_t first = *c.site, word = first;
	unsigned sum = 0, same = 0;

	for (; sum < 3000 && (word == first || same < 300); sum++) {
		c.fn(p, 1, 0);
		cells_sleep_ms(1);
		same = *c.site == word ? same + 1 : 0;
		word = *c.site;
	}
	CHECK(word != first, "the site stays %s", before);
	return sum;
}

/* Three traps of four, a pause, and so on: each time the score is halved. Then four in a row. */
static void seldom(void)
{
	struct code c = cells_emit(&snippet_str);

	cells_worker_start(&other);
	uint64_t *p = cells_mine();

	for (unsigned i = 0; i < 6; i++) {
		c.fn(p, i, 0);
		cells_sleep_ms(400);
		CHECK(!is_rewritten(c), "rewritten after %u traps in as many pauses", i + 1);
	}
	CHECK(cells_train(c, LOCAL), "no LOCAL form, though it traps often now");
}

/* Shared memory and the thread's own by turns, each until the form follows: two flips, then MIXED, which serves both. */
static void phases(void)
{
	struct code c = cells_emit(&snippet_ldadd);
	uint32_t word = c.word;

	cells_worker_start(&other);
	uint64_t *pages[] = { cells_mine(), cells_shared(&other) };

	for (unsigned phase = 0; phase < 4; phase++) {
		for (unsigned i = 0; i < 4000 && *c.site == word; i++) {
			c.fn(pages[phase % 2], 1, 0);
			cells_sleep_ms(i % 4 ? 0 : 1);
		}
		CHECK(*c.site != word, "the word stays in phase %u", phase);
		word = *c.site;
	}
	for (unsigned i = 0; i < 2000; i++) {
		c.fn(pages[i % 2], 1, 0);
		CHECK(*c.site == word, "another form after the limit");
	}
}

/* The same page, over and over: its owner traps 49 times without a rewrite. */
static void local_late(void)
{
	struct code own = cells_emit(&snippet_str), shared = cells_emit(&snippet_str);

	cells_worker_start(&other);
	uint64_t *p = cells_mine(), *q = cells_shared(&other);

	for (unsigned i = 0; i < 49; i++)
		own.fn(p, i, 0);
	cells_sleep_ms(200);
	CHECK(!is_rewritten(own), "LOCAL before its threshold");
	for (unsigned i = 0; i < 2; i++)
		shared.fn(q, i, 0);
	CHECK(cells_train(own, LOCAL), "never LOCAL");
	for (unsigned i = 0; i < 2000 && !is_rewritten(shared); i++)
		cells_sleep_ms(2);
	CHECK(is_rewritten(shared), "never SHARED, with two traps");
}

static void local_becomes_mixed(void)
{
	struct code c = cells_emit(&snippet_ldadd);

	cells_worker_start(&other);
	CHECK(cells_train(c, LOCAL), "no LOCAL form");
	uint64_t *p = cells_shared(&other);
	uint64_t sum = add_until_changed(c, p, "LOCAL");

	SAME(peek(p), sum, "the sum");
}

/* A loop whose only site has its own island again, while the thread is still inside the stretch that had it as LOCAL. */
static void loop_leaves_old_form(void)
{
	enum { ROUNDS = 20000 };
	struct code c = cells_emit(&snippet_add_ldadd);

	cells_worker_start(&other);
	CHECK(cells_train(c, LOCAL), "never LOCAL");
	cells_sleep_ms(100); /* requests pause: islands become stretches */
	uint64_t *p = cells_shared(&other);
	uint64_t before = peek(p);

	c.fn(p, ROUNDS, 0);
	SAME(peek(p) - before, ROUNDS, "the sum");
}

static void shared_becomes_mixed(void)
{
	struct code c = cells_emit(&snippet_ldadd);

	cells_worker_start(&other);
	CHECK(cells_train(c, SHARED_FORM), "no SHARED form");
	uint64_t *p = cells_mine();
	uint64_t sum = add_until_changed(c, p, "SHARED");

	SAME(peek(p), sum, "the sum");
}

/* A LOCAL site inserts the tag of the thread that runs it, not of the thread that trained it. */
static void local_for_all(void)
{
	struct code c = cells_emit(&snippet_str);

	cells_worker_start(&other);
	CHECK(cells_train(c, LOCAL), "no LOCAL form");
	uint64_t *theirs = cells_others(&other), *mine = cells_mine();

	cells_call_on(&other, c, theirs, 5, 0);
	c.fn(mine, 6, 0);
	SAME(tag_of(theirs), cells_tag_of_worker(&other), "the tag of the other thread's memory");
	SAME(tag_of(mine), my_tag(), "the tag of this thread's memory");
	SAME(peek(theirs), 5, "the other thread's value");
	SAME(peek(mine), 6, "this thread's value");
}

static void recycled_code(void)
{
	struct code store = cells_emit(&snippet_str), load;

	cells_worker_start(&other);
	for (unsigned round = 0; round < 5; round++) {
		CHECK(cells_train(store, LOCAL), "round %u: no LOCAL form", round);
		uint64_t *p = cells_mine();

		store.fn(p, 40 + round, 0);
		load = cells_emit_over(store, &snippet_ldr);
		SAME(load.fn(p, 0, 0), 40 + round, "what the code reads that took the place of a rewritten site");
		CHECK(cells_train(load, LOCAL), "round %u: no LOCAL form of the new site", round);
		SAME(load.fn(p, 0, 0), 40 + round, "what the new site reads once rewritten");
		store = cells_emit_over(load, &snippet_str);
	}
}

static void code_unmapped(void)
{
	enum { AREA = 256 * 1024 };

	cells_worker_start(&other);
	uint64_t *p = cells_mine();

	for (unsigned round = 0; round < 20; round++) {
		uint32_t *area =
			mmap(NULL, AREA, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		volatile uint32_t *word = area;
		uint64_t (*fn)(volatile void *, uint64_t);

		CHECK(area != MAP_FAILED, "no memory for code");
		word[0] = *snippet_str.site;
		word[1] = 0xd65f03c0; /* RET */
		__builtin___clear_cache((char *)area, (char *)(area + 2));
		memcpy(&fn, &area, sizeof(fn));
		for (unsigned i = 0; i < 6 + round % 4; i++)
			fn(p, i);
		SAME(peek(p), 5 + round % 4, "the value");
		SAME(munmap(area, AREA), 0, "munmap of code");
	}
}

/* The same word at the same address, first as generated code, then as a call bridge (memory-arm64.c: too small to be code). cells_mine() traps too. */
static void code_turned_native(void)
{
	enum { AREA = 256 * 1024 };
	void *at = NULL;

	cells_worker_start(&other);
	uint64_t *p = cells_mine();

	for (unsigned size = AREA; size >= PAGE; size = size == AREA ? PAGE : 0) {
		uint32_t *area = mmap(at, size, PROT_READ | PROT_WRITE | PROT_EXEC,
		                      MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
		uint64_t (*fn)(volatile void *, uint64_t);

		CHECK(area != MAP_FAILED, "no memory for code");
		*(volatile uint32_t *)area = *snippet_str.site;
		area[1] = 0xd65f03c0; /* RET */
		__builtin___clear_cache((char *)area, (char *)(area + 2));
		memcpy(&fn, &area, sizeof(fn));
		for (unsigned i = 0; i < 3; i++)
			fn(p, size + i);
		SAME(peek(p), size + 2, "the value");
		SAME(munmap(area, size), 0, "munmap of code");
		at = area;
	}
}

/* ---- leases ---- */

enum { MANY = 20 };
static struct many {
	uint64_t *own, *common;
	struct code add, store, load;
	unsigned n, tag;
	uint64_t read;
} many[MANY];
static pthread_barrier_t barrier;

static void *one_of_many(void *arg)
{
	struct many *m = arg;

	m->tag = my_tag();
	m->own = cells_map(PAGE);
	for (unsigned i = 0; i < 50; i++) {
		m->store.fn(m->own, 1000 * m->n + i, 0);
		m->add.fn(m->common, 100, 0);
	}
	pthread_barrier_wait(&barrier);
	m->read = m->load.fn(many[(m->n + 7) % MANY].own, 0, 0);
	pthread_barrier_wait(&barrier);
	return NULL;
}

static void more_threads_than_ids(void)
{
	uint64_t *common = cells_map(PAGE);
	unsigned without = 0, seen = 0;
	struct code add = cells_emit(&snippet_add_ldadd), store = cells_emit(&snippet_str),
		    load = cells_emit(&snippet_ldr);

	pthread_barrier_init(&barrier, NULL, MANY);
	for (unsigned n = 0; n < MANY; n++)
		many[n] = (struct many){ .common = common, .add = add, .store = store, .load = load, .n = n };
	cells_together(MANY, one_of_many, many, sizeof(many[0]));
	for (unsigned n = 0; n < MANY; n++) {
		SAME(many[n].read, 1000 * ((n + 7) % MANY) + 49, "what a thread read of another's memory");
		without += !many[n].tag;
		CHECK(!many[n].tag || !(seen >> many[n].tag & 1), "two threads with tag %u at the same time",
		      many[n].tag);
		seen |= 1u << many[n].tag;
	}
	SAME(get(common), 100 * 50 * MANY, "the sum that all threads added to");
	SAME(without, MANY - (IDS - 1), "threads without an id");
}

static void *touch_own(void *arg)
{
	struct many *m = arg;

	m->tag = my_tag();
	m->own = cells_map(PAGE);
	m->store.fn(m->own, m->n, 0);
	SAME(tag_of(m->own), m->tag, "the tag of a thread's own memory");
	if (m->n)
		SAME(m->load.fn(many[m->n - 1].own, 0, 0), m->n - 1, "what an ended thread left");
	return NULL;
}

static void leases_come_back(void)
{
	struct code store = cells_emit(&snippet_str), load = cells_emit(&snippet_ldr);

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned n = 0; n < MANY; n++) {
			many[n] = (struct many){ .store = store, .load = load, .n = n };
			cells_together(1, touch_own, &many[n], 0);
			CHECK(many[n].tag, "thread %u has no id", n);
		}
	}
}

/* ---- two granules ---- */

static uint64_t *pair_of(unsigned first, unsigned second, uint64_t **second_granule)
{
	/* the end of a page and the beginning of the next, each in its own state: 0 mine, 1 another's, 2 shared, 3 undecided */
	uint64_t *p = cells_map(2 * PAGE), *at[2] = { p + PAGE / 8 - 2, p + PAGE / 8 };
	unsigned state[2] = { first, second };

	for (unsigned i = 0; i < 2; i++) {
		if (state[i] == 1 || state[i] == 2)
			cells_put_on(&other, at[i], 0);
		if (state[i] == 0 || state[i] == 2)
			put(at[i], 0);
	}
	*second_granule = at[1];
	return at[0];
}

static void straddle(void)
{
	static const struct snippet *const stores[] = { &snippet_str, &snippet_str_q, &snippet_stp };
	uint64_t *low, *high;

	cells_worker_start(&other);
	for (unsigned states = 0; states < 16; states++) {
		for (unsigned i = 0; i < 3; i++) {
			struct code store = cells_emit(stores[i]), load = cells_emit(&snippet_ldr);

			low = pair_of(states % 4, states / 4, &high);
			volatile uint8_t *p = (volatile uint8_t *)high - 4;

			plant(low + 1, 0);
			plant(high, 0);
			plant(high + 1, 0);
			store.fn(p, 0x0123456789abcdef, 0);
			SAME(peek(low + 1) >> 32, 0x89abcdef, "the lower half of a store over two pages");
			SAME((uint32_t)peek(high), 0x01234567, "its upper half");
			SAME(load.fn(p, 0, 0), 0x0123456789abcdef, "a load over two pages");
			CHECK(tag_of(low) == SHARED || tag_of(low) == my_tag(), "tag %u below", tag_of(low));
			CHECK(tag_of(high) == SHARED || tag_of(high) == my_tag(), "tag %u above", tag_of(high));
			CHECK(states % 4 != 2 || tag_of(low) == SHARED, "shared memory became owned: tag %u",
			      tag_of(low));
		}
	}
}

static void straddle_rewritten(void)
{
	static const enum form forms[] = { LOCAL, SHARED_FORM, MIXED };
	uint64_t *low, *high;

	cells_worker_start(&other);
	for (unsigned states = 0; states < 16; states++) {
		for (unsigned i = 0; i < 3; i++) {
			struct code store = cells_emit(&snippet_str), load = cells_emit(&snippet_ldr);

			CHECK(cells_train(store, forms[i]) && cells_train(load, forms[i]), "no form %u", forms[i]);
			low = pair_of(states % 4, states / 4, &high);
			volatile uint8_t *p = (volatile uint8_t *)high - 3;

			store.fn(p, 0x0123456789abcdef, 0);
			SAME(load.fn(p, 0, 0), 0x0123456789abcdef, "a store and a load over two pages");
			SAME(peek(low + 1) >> 40, 0xabcdef, "the lower part");
			SAME(peek(high) & 0xffffffffff, 0x0123456789, "the upper part");
		}
	}
}

/* ---- instructions that the decoder leaves alone ---- */

static void unknown(void)
{
	struct code ld2 = cells_emit(&snippet_ld2), st2 = cells_emit(&snippet_st2), sve = cells_emit(&snippet_sve_load);

	cells_worker_start(&other);
	for (unsigned owner = 0; owner < 2; owner++) {
		uint64_t *p = owner ? cells_others(&other) : cells_mine();

		for (unsigned i = 0; i < 4; i++)
			plant(p + i, 3 + i);
		SAME(ld2.fn(p, 0, 0), 4 + (5 << 8), "LD2");
		SAME(tag_of(p), SHARED, "the tag after LD2");
		SAME(st2.fn(p + 16, 9, 0), 9, "ST2's result");
		SAME(peek(p + 16), 9, "ST2's first word");
		SAME(peek(p + 17), 10, "ST2's second word");
		SAME(sve.fn(p, 0, 0), 7, "SVE LD1D");
		SAME(get(p), 3, "the memory afterwards");
	}
}

static void zero_block(void)
{
	struct code zva = cells_emit(&snippet_zva);

	cells_worker_start(&other);
	for (unsigned owner = 0; owner < 3; owner++) {
		uint64_t *p = owner == 2 ? cells_shared(&other) : owner ? cells_others(&other) : cells_mine();

		for (unsigned i = 0; i < 24; i++)
			plant(p + i, ~(uint64_t)0);
		zva.fn(p + 9, 0, 0);
		for (unsigned i = 0; i < 24; i++)
			SAME(peek(p + i), i / 8 == 1 ? 0 : ~(uint64_t)0, "a word around the block");
	}
}

#define GRANULES "TAGTSO_HANDOVERS=0"

const struct test cells_owners[] = {
	TEST("loop-leaves", "a loop does not stay where its access has the form of before", loop_leaves_old_form,
	     GRANULES, { "interpreted_ordered", '>', 1 }, { "interpreted_ordered", '<', 4000 }),
	TEST("wake", "what is there when the second thread starts belongs to the first", first_thread_owns, NULL,
	     { "wakeups", '=', 1 }),
	TEST("hand-over", "a page is handed over TAGTSO_HANDOVERS times before a conflict makes memory shared",
	     hand_over_then_share, "TAGTSO_HANDOVERS=2", { "handovers", '=', 2 }, { "revoked_granules", '=', 1 }),
	TEST("conflicts", "after the limit of conflicts the whole page is shared", conflicts_share_the_page,
	     GRANULES " TAGTSO_CONFLICTS=3", { "revocations", '=', 3 }, { "revoked_granules", '=', PAGE / GRANULE }),
	TEST("buffers", "a buffer that one thread fills and another reads is handed over in batches",
	     buffers_move_whole, NULL, { "traps", '<', 1200 }, { "handovers", '<', 64 }, { "handed_pages", '>', 250 }),
	TEST("threshold-0", "with TAGTSO_THRESHOLD=0 no site is rewritten", threshold_zero, "TAGTSO_THRESHOLD=0",
	     { "sites_rewritten", '=', 0 }, { "interpreted_plain", '>', 1000 }),
	TEST("seldom", "traps that are far apart in time do not add up", seldom, "TAGTSO_DECAY=200",
	     { "forms_local", '=', 1 }),
	TEST("phases", "a site follows the program's phases, and gets MIXED when it has flipped often enough", phases,
	     "TAGTSO_FLIPS=2 TAGTSO_STRETCH=1 TAGTSO_HANDOVERS=0", { "forms_mixed", '=', 1 },
	     { "sites_rewritten", '<', 12 }),
	TEST("local-threshold", "TAGTSO_LOCAL is the threshold for memory of the thread's own", local_late,
	     "TAGTSO_LOCAL=50 TAGTSO_SHARED=2", { "forms_shared", '>', 1 }),
	TEST("observe", "with TAGTSO_MODE=observe no site is rewritten", threshold_zero, "TAGTSO_MODE=observe",
	     { "sites_rewritten", '=', 0 }),
	TEST("local-to-mixed", "a LOCAL site that meets shared memory becomes MIXED", local_becomes_mixed, GRANULES,
	     { "forms_mixed", '=', 1 }),
	TEST("shared-to-mixed", "a SHARED site that meets the thread's own memory becomes MIXED", shared_becomes_mixed,
	     GRANULES, { "forms_mixed", '=', 1 }),
	TEST("local-for-all", "a LOCAL site serves each thread with that thread's own tag", local_for_all, GRANULES),
	TEST("recycled", "code written over a rewritten site runs as written", recycled_code, GRANULES),
	TEST("code-unmapped", "code that is unmapped after its sites were rewritten can be mapped anew", code_unmapped,
	     NULL),
	TEST("code-native", "a site whose code is no longer the emulator's is not taken for generated code",
	     code_turned_native, "TAGTSO_THRESHOLD=0", { "traps", '=', 1 + 6 }, { "traps_native", '=', 1 + 3 }),
	TEST("many-threads", "threads beyond the thirteenth have no id and right values", more_threads_than_ids, NULL,
	     { "leases_refused", '=', MANY - (IDS - 1) }, { "leases", '=', IDS }),
	TEST("lease-reuse", "an ended thread's id serves the next thread", leases_come_back, NULL,
	     { "leases_refused", '=', 0 }, { "leases", '>', 3 * MANY }),
	TEST("straddle", "accesses over two pages of any two owners are right", straddle,
	     GRANULES " TAGTSO_THRESHOLD=1000000"),
	TEST("straddle-rewritten", "rewritten sites serve accesses over two pages of any two owners",
	     straddle_rewritten, GRANULES),
	TEST("unknown", "instructions that are not decoded run right, on memory that becomes shared, and are counted",
	     unknown, GRANULES, { "unknown", '>', 6 }),
	TEST("zero-block", "DC ZVA zeroes its block and nothing else", zero_block, GRANULES),
	TEST(NULL, NULL, NULL, NULL),
};
