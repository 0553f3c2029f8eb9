/* SPDX-License-Identifier: MIT */
/* Probes: which shared pages become undecided again, and when, to find out whether they still are shared. tagtso_owner_probe() is the transition.
 *
 * Nothing traps on shared memory once its sites have their forms, so that a thread of ours has to begin: the patcher, whenever it has nothing else
 * to do. A page that became shared is probed after TAGTSO_PATIENCE milliseconds; if a second thread comes to it again, after twice that, and so on:
 * the time until memory that has become private is found is about as long as it was shared before, and memory that threads share all the time costs less
 * and less. */
#ifndef TAGTSO_ALLOC_PROBE_H
#define TAGTSO_ALLOC_PROBE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "window.h"

/* Limits, from the knobs; written once at start-up. */
struct tagtso_probe_limits {
	unsigned pages; /* TAGTSO_PROBES, a second; 0 = never */
	unsigned after; /* TAGTSO_PATIENCE, milliseconds */
};
extern struct tagtso_probe_limits tagtso_probe_limits;

/* tagtso_page.probe, written with the page's lock held.
 *
 *     7      6      5  4  3      0
 *   +------+-------+-----+--------+
 *   | OPEN |CLAIMED|  0  | level  |   probed every 2^level rounds
 *   +------+-------+-----+--------+
 */
enum {
	TAGTSO_PROBE_OPEN = 0x80,    /* probed, and nobody but its claimer has come since */
	TAGTSO_PROBE_CLAIMED = 0x40, /* its claimer has come */
	TAGTSO_PROBE_LEVEL = 0x0f,
	TAGTSO_PROBE_LAST = 10, /* 2^10 times TAGTSO_PATIENCE: three and a half minutes by default */
};

/* Pages to look at, in two steps: a bit for each page, and one for each 4096 of them. Set by whoever makes memory shared, cleared by the prober, which
 * looks at the page afterwards. */
__attribute__((visibility("hidden"))) extern _Atomic uint64_t *tagtso_probe_pages, *tagtso_probe_groups;

enum { TAGTSO_PROBE_GROUP = 4096 };

/* Reserves the bits for a window of so many pages. 0 or -errno. */
int tagtso_probe_init(uint64_t pages);

/* The page has shared granules that may be probed. Handler code; page lock held. */
static inline void tagtso_probe_note(uint32_t index)
{
	if (!tagtso_probe_pages)
		return;
	atomic_fetch_or_explicit(&tagtso_probe_pages[index / 64], UINT64_C(1) << index % 64, memory_order_relaxed);
	atomic_fetch_or_explicit(&tagtso_probe_groups[index / TAGTSO_PROBE_GROUP / 64],
	                         UINT64_C(1) << index / TAGTSO_PROBE_GROUP % 64, memory_order_release);
}

/* Granules of the page were claimed. Handler code; page lock held. */
static inline void tagtso_probe_claimed(struct tagtso_page *page)
{
	if (page->probe & TAGTSO_PROBE_OPEN)
		page->probe |= TAGTSO_PROBE_CLAIMED;
}

/* Granules of the page become shared: a probe of it has failed, and the next one comes later. Handler code; page lock held. */
static inline void tagtso_probe_failed(struct tagtso_page *page)
{
	unsigned level = page->probe & TAGTSO_PROBE_LEVEL;

	if (page->probe & TAGTSO_PROBE_OPEN)
		page->probe = (uint8_t)(level < TAGTSO_PROBE_LAST ? level + 1 : level);
}

/* Probes what is due. Returns for how many nanoseconds there is nothing more to do. One thread, no guest's, with asynchronous signals blocked. */
uint64_t tagtso_probe_run(void);

#endif
