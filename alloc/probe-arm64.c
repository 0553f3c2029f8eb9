/* SPDX-License-Identifier: MIT */
/* Which shared pages are probed, and when (probe.h). Runs in the patcher's thread. */
#include "probe.h"

#include <errno.h>
#include <time.h>

#include "../shim/stats.h"
#include "owner.h"
#include "sys.h"

struct tagtso_probe_limits tagtso_probe_limits = { .pages = 1000, .after = 200 };

_Atomic uint64_t *tagtso_probe_pages, *tagtso_probe_groups;

enum { MS = 1000000, SECOND = 1000 * MS };

static uint64_t groups;     /* words of tagtso_probe_groups; written by init */
static uint64_t last_round; /* the prober's, as the following */
static uint64_t last_ns;
static uint64_t credit; /* pages that may be probed, times SECOND; at most what a second gives */
static uint32_t cursor; /* of groups, so that no page waits for ever where the credit is short */

int tagtso_probe_init(uint64_t pages)
{
	uint64_t words = pages / 64 + 1;

	groups = pages / TAGTSO_PROBE_GROUP / 64 + 1;
	tagtso_probe_groups = tagtso_sys_reserve(groups * sizeof(uint64_t));
	if (tagtso_probe_groups)
		tagtso_probe_pages = tagtso_sys_reserve(words * sizeof(uint64_t));
	return tagtso_probe_pages ? 0 : -ENOMEM;
}

/* ---- when --------------------------------------------------------------------------------------------------------- */

/* A round lasts TAGTSO_PATIENCE milliseconds. A page's turn comes in every 2^level-th round, told without a clock in each page: a group's pages all
 * at once, so that one thread may claim them together, each group's at another time. */
static uint64_t turn(uint32_t index, unsigned level, uint64_t round)
{
	return (round + index / TAGTSO_PAGE_GROUP) >> level;
}

/* Rounds from `round` until the page's next turn. */
static uint64_t rounds_left(uint32_t index, unsigned level, uint64_t round)
{
	uint64_t every = UINT64_C(1) << level;

	return every - ((round + index / TAGTSO_PAGE_GROUP) & (every - 1));
}

static uint64_t now_ns(void)
{
	struct timespec t = { 0 };

	tagtso_sys(__NR_clock_gettime, CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void earn(uint64_t now)
{
	uint64_t most = (uint64_t)tagtso_probe_limits.pages * SECOND, passed = now - last_ns;

	if (passed > SECOND)
		passed = SECOND;
	credit += passed * tagtso_probe_limits.pages;
	if (credit > most)
		credit = most;
	last_ns = now;
}

/* ---- one page ------------------------------------------------------------------------------------------------------ */

/* True while there is something to be found out about the page. *left: rounds until its next turn. */
static bool look(uint32_t index, uint64_t round, uint64_t *left)
{
	const struct tagtso_page *page = &tagtso_window.page[index];
	unsigned level = page->probe & TAGTSO_PROBE_LEVEL;

	/* Advice only, so no lock: it is looked at again with the lock held. */
	if ((page->flags & TAGTSO_PAGE_KEPT) ||
	    !(page->flags & TAGTSO_PAGE_SOME_SHARED || page->probe & TAGTSO_PROBE_OPEN))
		return false;
	*left = rounds_left(index, level, round);
	if (turn(index, level, round) == turn(index, level, last_round))
		return true;
	if (credit < SECOND) {
		*left = 1;
		return true;
	}
	if (tagtso_owner_probe(index))
		credit -= SECOND;
	return true;
}

/* Cleared first, and looked at afterwards: who makes the page shared meanwhile sets the bit again. */
static uint64_t look_at_word(uint32_t first, uint64_t round)
{
	_Atomic uint64_t *word = &tagtso_probe_pages[first / 64];
	uint64_t bits = atomic_exchange_explicit(word, 0, memory_order_acquire), keep = 0, soonest = UINT64_MAX;

	for (uint64_t more = bits; more; more &= more - 1) {
		uint64_t left = UINT64_MAX;
		uint32_t k = (uint32_t)__builtin_ctzll(more);

		if (look(first + k, round, &left))
			keep |= UINT64_C(1) << k;
		if (left < soonest)
			soonest = left;
	}
	atomic_fetch_or_explicit(word, keep, memory_order_relaxed);
	return soonest;
}

static uint64_t look_at_group(uint32_t group, uint64_t round)
{
	uint64_t soonest = UINT64_MAX;

	for (uint32_t k = 0; k < TAGTSO_PROBE_GROUP / 64; k++) {
		uint32_t first = group * TAGTSO_PROBE_GROUP + k * 64;

		if (!atomic_load_explicit(&tagtso_probe_pages[first / 64], memory_order_relaxed))
			continue;
		uint64_t left = look_at_word(first, round);

		if (left < soonest)
			soonest = left;
	}
	return soonest;
}

/* Rounds until the next page's turn. */
static uint64_t look_at_all(uint64_t round)
{
	uint64_t soonest = UINT64_MAX;

	for (uint64_t k = 0; k < groups; k++) {
		uint64_t at = (cursor + k) % groups;
		uint64_t bits = atomic_load_explicit(&tagtso_probe_groups[at], memory_order_acquire);

		for (; bits; bits &= bits - 1) {
			uint32_t group = (uint32_t)(at * 64) + (uint32_t)__builtin_ctzll(bits);
			uint64_t left = look_at_group(group, round);

			if (left < soonest)
				soonest = left;
		}
	}
	cursor++;
	return soonest;
}

/* ---- all ------------------------------------------------------------------------------------------------------------- */

uint64_t tagtso_probe_run(void)
{
	enum { IDLE_ROUNDS = 8 }; /* memory that has become shared meanwhile wakes nobody */

	if (!tagtso_probe_limits.pages || !tagtso_probe_pages)
		return UINT64_MAX;
	uint64_t now = now_ns(), length = (uint64_t)tagtso_probe_limits.after * MS, round = now / length, soonest = 1;

	if (round != last_round) {
		earn(now);
		soonest = last_round ? look_at_all(round) : 1;
		last_round = round;
	}
	if (soonest > IDLE_ROUNDS)
		soonest = IDLE_ROUNDS;
	return soonest * length - now % length;
}
