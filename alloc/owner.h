/* SPDX-License-Identifier: MIT */
/* Who may access a granule plainly, and every change of that (I1, I2). Handler code. */
#ifndef TAGTSO_ALLOC_OWNER_H
#define TAGTSO_ALLOC_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu.h"
#include "tags.h"
#include "window.h"

/* Limits, from the knobs; written once at start-up. */
struct tagtso_owner_limits {
	bool twice;         /* a second membarrier in each transition: ordered accesses are as emitted (mode relax) */
	unsigned handovers; /* TAGTSO_HANDOVERS */
	unsigned conflicts; /* TAGTSO_CONFLICTS */
	unsigned batch;     /* TAGTSO_BATCH */
	unsigned forget;    /* TAGTSO_FORGET, milliseconds */
};
extern struct tagtso_owner_limits tagtso_owner_limits;

/* Who the calling thread is: the owner id that its plain accesses need. Under policy `cpu` that of its CPU, when this was called. 0: it owns nothing.
 * There the thread's IRG mask says whether it may have an id at all, so that one whose rseq area is another's has none. */
static inline unsigned tagtso_owner_me(void)
{
	unsigned tag = tagtso_tag_mine();

	return tagtso_cpu.owns && tag ? tagtso_cpu_id() : tag;
}

/* Turns tag checking on for the calling thread, with an owner id if one is free (its IRG include mask), or with none. Returns the id, 0 = none.
 * Under policy `cpu` nothing is leased: the id is that of the CPU. Called by each guest thread before it runs guest code, and by the thread that wakes the shim. Async-signal-safe. */
unsigned tagtso_owner_lease(void);
/* The calling thread never owns anything, but its accesses are checked. */
void tagtso_owner_none(void);
/* Turns tag checking off for the calling thread: a process with one thread, and the child of fork. Forgets all leases. */
void tagtso_owner_dormant(void);

/* The answer of tagtso_owner_settle() if nothing has to be done for it, else 0. `index`: what tagtso_window_index() said for va. */
static inline unsigned tagtso_owner_settled(uint32_t index, uint64_t va, unsigned me)
{
	unsigned tag = tagtso_tag_meant(tagtso_tag_get(tagtso_window_at(tagtso_window.tags, index, va)));

	return tag == TAGTSO_TAG_SHARED || (me && tag == me) ? tag : 0;
}

/* Makes the granule at window address `va` accessible to this thread (me = its id): returns whose it is, me (plain access, through a pointer with that
 * tag) or TAGTSO_TAG_SHARED (ordered access, tagtso_tag_in_memory()), or 0 if `va` is not in the window any more. The answer may be outdated when
 * the access is made: the hardware checks again. */
unsigned tagtso_owner_resolve(uint64_t va, unsigned me);
static inline unsigned tagtso_owner_settle(uint64_t va, unsigned me)
{
	uint32_t index = tagtso_window_index(va);
	unsigned tag = index ? tagtso_owner_settled(index, va, me) : 0;

	return tag ? tag : tagtso_owner_resolve(va, me);
}

/* The granules of [va, va+len) that belong to other threads, or to nobody yet, become this thread's (me = its id) or shared, as if it had accessed each: for native
 * code that is about to write memory which changes hands. Not the pages that nobody has reached. */
void tagtso_owner_take(uint64_t va, uint64_t len, unsigned me);

/* Makes [va, va+len) shared, for good; for native code, unknown instructions and accesses that straddle differently tagged granules. */
void tagtso_owner_share(uint64_t va, uint64_t len);

/* Makes the granule at `va` shared: what native code comes to again and again. */
void tagtso_owner_give_up(uint64_t va);

/* Makes what is shared of the page undecided again, unless it is shared for good, or takes note of what came of that. True if that changed a tag. Called by
 * one thread, no guest's (probe.h). */
bool tagtso_owner_probe(uint32_t index);

/* Takes the locks of the (at most two) window pages under [va, va+len), in ascending order; len <= a page. False, with none taken, if no page is
 * in the window or the mapping changed meanwhile. */
bool tagtso_owner_lock(uint64_t va, uint64_t len);
void tagtso_owner_unlock(uint64_t va, uint64_t len);

/* Whose it is now, by the tag in memory; 0 if not in the window. */
unsigned tagtso_owner_tag(uint64_t va);

#endif
