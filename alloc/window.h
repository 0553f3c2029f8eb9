/* SPDX-License-Identifier: MIT */
/* The window: guest memory on one memfd, seen three times. Guest pointers point into the checked mappings (the window proper); the alias is the same bytes
 * unchecked, for native code and the kernel; the tag view is the same pages, always writable, for STG and LDG. */
#ifndef TAGTSO_ALLOC_WINDOW_H
#define TAGTSO_ALLOC_WINDOW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../shim/rank.h"

enum { TAGTSO_PAGE_SHIFT = 12, TAGTSO_PAGE_SIZE = 1 << TAGTSO_PAGE_SHIFT };

/* Pages that may change hands together, and are probed together: so many, by index, from a multiple of it on. */
enum { TAGTSO_PAGE_GROUP = 64 };

static inline uint64_t tagtso_page_up(uint64_t len)
{
	return (len + TAGTSO_PAGE_SIZE - 1) & ~(uint64_t)(TAGTSO_PAGE_SIZE - 1);
}

/* Bits of tagtso_page.flags. */
enum {
	TAGTSO_PAGE_REACHED =
		1, /* the window mapping has the guest's protection and every granule a tag; else PROT_NONE (while active) */
	TAGTSO_PAGE_HEAP = 2,         /* extent of the guest heap */
	TAGTSO_PAGE_SHARED = 4,       /* every granule is shared */
	TAGTSO_PAGE_KEPT = 8,         /* and stays it, for good: somebody accesses it unchecked */
	TAGTSO_PAGE_SOME_SHARED = 16, /* granules became shared since it was probed */
};

/* One page of the memfd. Fields other than lock are written with the lock held, and advice (I3) except prot, REACHED and va. */
struct tagtso_page {
	_Atomic uint8_t lock;  /* every transition of a granule, and every change of the mapping, holds it */
	uint8_t prot;          /* PROT_* that the guest asked for */
	_Atomic uint8_t flags; /* TAGTSO_PAGE_* */
	uint8_t handovers;     /* times that its owner changed, one soon after the other */
	uint8_t conflicts;     /* granules revoked one by one */
	_Atomic uint8_t moved; /* with how many others it last changed hands, and when (owner-arm64.c) */
	uint8_t chunk;         /* log2 of the pages made reachable by one first touch */
	uint8_t probe;         /* back-off, and what became of the last probe (probe.h) */
	_Atomic uint64_t va;   /* the window address, 0 = free */
};
_Static_assert(sizeof(struct tagtso_page) == 16, "0.4 % of guest memory");

/* Written once by tagtso_window_init, and by the child of fork while it is alone. */
struct tagtso_window {
	int fd;
	uint64_t alias;                    /* base of the alias */
	uint64_t tags;                     /* base of the tag view */
	uint64_t pages;                    /* pages of the memfd; index 0 is never used */
	struct tagtso_page *page;          /* by index */
	_Atomic(_Atomic uint32_t *) *leaf; /* by address bits 47:30: leaf of 2^18 page indices, by address bits 29:12 */
};
__attribute__((visibility("hidden"))) extern struct tagtso_window tagtso_window;

enum { TAGTSO_LEAF_BITS = 18, TAGTSO_VA_BITS = 48 };

/* The page index of a window address (any top byte), 0 = not in the window. Lock-free, async-signal-safe. */
static inline uint32_t tagtso_window_index(uint64_t va)
{
	va &= (UINT64_C(1) << 56) - 1;
	if (va >> TAGTSO_VA_BITS || !tagtso_window.leaf)
		return 0;
	/* Relaxed: what is read through the pointer and the index depends on them by address, which orders it after (like rcu_dereference; the
	 * writers release). */
	_Atomic uint32_t *leaf = atomic_load_explicit(&tagtso_window.leaf[va >> (TAGTSO_LEAF_BITS + TAGTSO_PAGE_SHIFT)],
	                                              memory_order_relaxed);

	if (!leaf)
		return 0;
	return atomic_load_explicit(&leaf[va >> TAGTSO_PAGE_SHIFT & ((1u << TAGTSO_LEAF_BITS) - 1)],
	                            memory_order_relaxed);
}

static inline uint64_t tagtso_window_at(uint64_t base, uint32_t index, uint64_t va)
{
	return base + ((uint64_t)index << TAGTSO_PAGE_SHIFT) + (va & (TAGTSO_PAGE_SIZE - 1));
}

/* The window address behind an alias address, 0 if it is none. */
static inline uint64_t tagtso_window_of_alias(uint64_t p)
{
	uint64_t off = p - tagtso_window.alias;

	if (!tagtso_window.leaf || off >> TAGTSO_PAGE_SHIFT >= tagtso_window.pages)
		return 0;
	uint64_t va = atomic_load_explicit(&tagtso_window.page[off >> TAGTSO_PAGE_SHIFT].va, memory_order_relaxed);

	return va ? va + (off & (TAGTSO_PAGE_SIZE - 1)) : 0;
}

/* backing: NULL or "memfd", or "tmpfs:PATH". Returns 0, or -errno with *what = the step that failed. */
int tagtso_window_init(const char *backing, uint32_t gib, const char **what);

/* Maps `len` bytes of fresh zeroed guest memory; flags may hold MAP_FIXED or MAP_FIXED_NOREPLACE. fd >= 0: filled from that regular file at `off`.
 * Returns the address or -errno; -ENOSPC = the window is full (the caller maps ordinary memory then). */
long tagtso_window_map(uint64_t addr, uint64_t len, int prot, int flags, int fd, int64_t off, bool heap);

/* True if any page of the range is in the window. */
bool tagtso_window_any(uint64_t va, uint64_t len);
/* Takes the range's pages out of the window; their addresses stay mapped, without access, until the caller unmaps or overmaps them. */
void tagtso_window_release(uint64_t va, uint64_t len);
/* mprotect over a range of which any part may be in the window. 0 or -errno. */
long tagtso_window_protect(uint64_t va, uint64_t len, int prot);
/* The window's pages of the range read as zero from now on and belong to nobody (MADV_DONTNEED and the like). */
void tagtso_window_zero(uint64_t va, uint64_t len);
/* mremap of window memory that moves or grows it. Returns the new address or -errno. */
long tagtso_window_remap(uint64_t old, uint64_t old_len, uint64_t len, int flags, uint64_t addr);

/* Before the second thread starts: all that is resident becomes `owner`'s; what is not becomes unreachable until its first touch (I3). */
void tagtso_window_wake(unsigned owner);
/* First touch of a page that is not reachable: opens its chunk for owner `me` (0: as shared memory). False = this is a fault of the guest's own. Handler. */
bool tagtso_window_open(uint64_t va, unsigned me);

/* fork: `protect` makes the window read-only in the parent while the child copies, `unprotect` ends that; `child` gives the calling process, alone
 * in its address space, a copy of its own. */
void tagtso_window_fork_protect(bool on);
int tagtso_window_fork_child(void);
/* True while fork_protect(true) is in force: writes that fault must wait. */
bool tagtso_window_forking(void);

/* Bytes of page metadata and index in use, for the report. */
uint64_t tagtso_window_metadata(void);

static inline void tagtso_page_unlock(struct tagtso_page *page)
{
	TAGTSO_RANK_GAVE(TAGTSO_RANK_PAGE);
	atomic_store_explicit(&page->lock, 0, memory_order_release);
}
static inline bool tagtso_page_trylock(struct tagtso_page *page)
{
	if (atomic_exchange_explicit(&page->lock, 1, memory_order_acquire))
		return false;
	TAGTSO_RANK_TOOK(TAGTSO_RANK_PAGE, (uint64_t)(page - tagtso_window.page));
	return true;
}
/* Yields until it has the lock. The holder is another thread, inside our own code with asynchronous signals blocked. */
void tagtso_page_lock(struct tagtso_page *page);

#endif
