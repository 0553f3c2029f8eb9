/* SPDX-License-Identifier: MIT */
/* Ranks of locks. A thread that waits for a lock holds locks of lower ranks only, and of pages only those of lower index: then no threads wait
 * for each other in a ring. --enable-debug checks that at each lock, whether or not anybody waits there, and that a handler leaves no lock behind;
 * without it nothing of this is compiled. */
#ifndef TAGTSO_SHIM_RANK_H
#define TAGTSO_SHIM_RANK_H

#include <stdbool.h>
#include <stdint.h>

enum tagtso_rank {
	TAGTSO_RANK_HEAP,   /* what jemalloc locks within a call (alloc/heap-arm64.c); its extent hooks map and unmap */
	TAGTSO_RANK_REGION, /* the window's mappings (alloc/window-arm64.c) */
	TAGTSO_RANK_PAGE,   /* a page of the window; its number is its index */
	TAGTSO_RANK_SIGNALS, /* the emulator's signal actions (shim/signals-arm64.c) */
	TAGTSO_RANK_CODE,    /* generated code: the patcher holds it, who removes it waits (interp/code.c) */
	TAGTSO_NRANKS
};

#ifdef TAGTSO_DEBUG

/* Dies if the thread holds what forbids to wait for this one. */
void tagtso_rank_wait(enum tagtso_rank rank, uint64_t number);
void tagtso_rank_took(enum tagtso_rank rank, uint64_t number);
void tagtso_rank_gave(enum tagtso_rank rank);
/* Dies if the thread holds any: it is about to wait for another thread's end or work. */
void tagtso_rank_alone(const char *file, int line);
/* How many of each rank the thread holds, 8 bits each (a count of 255 and more is 255). */
uint64_t tagtso_rank_held(void);
/* Dies if that is not what it holds now. */
void tagtso_rank_same(uint64_t held, const char *file, int line);

#define TAGTSO_RANK_WAIT(rank, number) tagtso_rank_wait(rank, number)
#define TAGTSO_RANK_TOOK(rank, number) tagtso_rank_took(rank, number)
#define TAGTSO_RANK_GAVE(rank) tagtso_rank_gave(rank)
#define TAGTSO_RANK_ALONE() tagtso_rank_alone(__FILE__, __LINE__)
#define TAGTSO_RANK_HELD() tagtso_rank_held()
#define TAGTSO_RANK_SAME(held) tagtso_rank_same(held, __FILE__, __LINE__)

#else

#define TAGTSO_RANK_WAIT(rank, number) ((void)sizeof(rank), (void)sizeof(number))
#define TAGTSO_RANK_TOOK(rank, number) ((void)sizeof(rank), (void)sizeof(number))
#define TAGTSO_RANK_GAVE(rank) ((void)sizeof(rank))
#define TAGTSO_RANK_ALONE() ((void)0)
#define TAGTSO_RANK_HELD() UINT64_C(0)
#define TAGTSO_RANK_SAME(held) ((void)(held))

#endif

#endif
