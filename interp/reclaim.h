/* SPDX-License-Identifier: MIT */
/* When the places of islands may be used again: the grace period. */
#ifndef TAGTSO_INTERP_RECLAIM_H
#define TAGTSO_INTERP_RECLAIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What this machine offers for it; once, before the patcher's thread exists. */
void tagtso_reclaim_init(void);
/* True if grace periods can end at all. */
bool tagtso_reclaim_possible(void);
/* A process that shares our memory without being one of our threads was started: nobody can see where it stands. From
 * now on no place is used again. */
void tagtso_reclaim_never(void);

/* Begins a grace period for islands in [from, to), to which no word leads any more, on any core. False if it cannot be
 * begun now. One at a time; the patcher only. */
bool tagtso_reclaim_begin(uint64_t from, uint64_t to);
/* Looks at the threads that have not been seen outside yet. True when all have: the grace period is over. */
bool tagtso_reclaim_over(void);
void tagtso_reclaim_cancel(void);

/* Handlers, for a thread that was interrupted outside of all islands and of our own code, with that signal mask.
 * Async-signal-safe, as are the two below. */
__attribute__((visibility("hidden"))) extern _Atomic bool tagtso_reclaim_waiting;
void tagtso_reclaim_see_caller(uint64_t mask);
static inline void tagtso_reclaim_see(uint64_t mask)
{
	/* Acquire: pairs with the release of begin, after which this thread finds no word that leads there. */
	if (atomic_load_explicit(&tagtso_reclaim_waiting, memory_order_acquire))
		tagtso_reclaim_see_caller(mask);
}

/* Around the emulator's handler of a signal that interrupted the thread at pc. In our own text, a frame below may still
 * lead into an island, whatever the thread does meanwhile. */
bool tagtso_reclaim_enter_handler(uint64_t pc);
void tagtso_reclaim_leave_handler(bool counted);

#endif
