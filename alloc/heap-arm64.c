/* SPDX-License-Identifier: MIT */
/* jemalloc arenas over the window. jemalloc itself (alloc/jemalloc-private.o) keeps its metadata outside: only extents are guest memory. */
#include "heap.h"

#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <stdatomic.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "../shim/native.h"
#include "../shim/rank.h"
#include "owner.h"
#include "sys.h"
#include "tags.h"
#include "window.h"

/* The renamed interface (alloc/jemalloc.am). */
extern const char *tagtso_je_malloc_conf;
void *tagtso_je_mallocx(size_t size, int flags);
void *tagtso_je_rallocx(void *pointer, size_t size, int flags);
void tagtso_je_dallocx(void *pointer, int flags);
size_t tagtso_je_sallocx(const void *pointer, int flags);
int tagtso_je_mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len);

/* Arena 0 is our own; the guest's are made below. Dirty memory is kept a while, then given back by purge. */
const char *tagtso_je_malloc_conf = "narenas:1,background_thread:false,metadata_thp:disabled,thp:never,retain:true";

enum { ARENAS = 16 };

static unsigned arenas[ARENAS]; /* jemalloc's indices; written at start-up */
static _Atomic unsigned next_arena;
static __thread bool bound; /* this thread allocates from one of arenas[]; used outside the handler only */

/* --- extents ------------------------------------------------------------------------------------------------------- */

static void *extent_alloc(extent_hooks_t *hooks, void *addr, size_t size, size_t align, bool *zero, bool *commit,
                          unsigned arena)
{
	(void)hooks;
	(void)arena;
	if (addr)
		return NULL;
	/* Extents are cut from mappings of our own choice: over-allocate for the alignment, then give the ends back. */
	size_t slack = align > TAGTSO_PAGE_SIZE ? align : 0;
	long r = tagtso_window_map(0, size + slack, PROT_READ | PROT_WRITE, 0, -1, 0, true);

	if (tagtso_sys_failed(r))
		return NULL;
	uint64_t start = (uint64_t)r, at = slack ? (start + align - 1) & ~(uint64_t)(align - 1) : start;

	if (at > start) {
		tagtso_window_release(start, at - start);
		tagtso_sys(__NR_munmap, start, at - start);
	}
	if (at + size < start + size + slack) {
		tagtso_window_release(at + size, start + slack - at);
		tagtso_sys(__NR_munmap, at + size, start + slack - at);
	}
	*zero = true;
	*commit = true;
	return (void *)at;
}

static bool extent_dalloc(extent_hooks_t *hooks, void *addr, size_t size, bool committed, unsigned arena)
{
	(void)hooks;
	(void)committed;
	(void)arena;
	tagtso_window_release((uint64_t)addr, size);
	tagtso_sys(__NR_munmap, addr, size);
	return false;
}

/* Empty again, and nobody's: the next toucher claims it. */
static bool extent_purge(extent_hooks_t *hooks, void *addr, size_t size, size_t offset, size_t length, unsigned arena)
{
	(void)hooks;
	(void)size;
	(void)arena;
	tagtso_window_zero((uint64_t)addr + offset, length);
	return false;
}

static bool extent_split(extent_hooks_t *hooks, void *addr, size_t size, size_t a, size_t b, bool committed,
                         unsigned arena)
{
	(void)hooks, (void)addr, (void)size, (void)a, (void)b, (void)committed, (void)arena;
	return false;
}

/* Only what is one piece in the alias too: a guest buffer must not fall apart there. */
static bool extent_merge(extent_hooks_t *hooks, void *a, size_t size_a, void *b, size_t size_b, bool committed,
                         unsigned arena)
{
	(void)hooks, (void)size_b, (void)committed, (void)arena;
	return tagtso_window_index((uint64_t)a) + (size_a >> TAGTSO_PAGE_SHIFT) != tagtso_window_index((uint64_t)b);
}

static extent_hooks_t hooks = {
	.alloc = extent_alloc,
	.dalloc = extent_dalloc,
	.purge_forced = extent_purge,
	.split = extent_split,
	.merge = extent_merge,
};

/* jemalloc's experimental.arenas_create_ext takes this structure (include/jemalloc/internal/arena_types.h of 5.3). */
struct arena_config {
	extent_hooks_t *extent_hooks;
	bool metadata_use_hooks;
};

int tagtso_heap_init(const char **what)
{
	struct arena_config config = { .extent_hooks = &hooks, .metadata_use_hooks = false };

	for (int i = 0; i < ARENAS; i++) {
		size_t len = sizeof(arenas[i]);
		int e = tagtso_je_mallctl("experimental.arenas_create_ext", &arenas[i], &len, &config, sizeof(config));

		if (e) {
			*what = "creating a jemalloc arena (jemalloc 5.3 or later)";
			return -e;
		}
	}
	return 0;
}

/* --- the guest's malloc --------------------------------------------------------------------------------------------- */

/* jemalloc writes guest memory where it zeroes a block (calloc) and where it copies one (realloc), by native code that nothing checks. A recycled block may still
 * belong to the thread that had it before, and a plain load of it be on its way there, which nothing but a transition waits for (I2): a lock, or a message
 * to the thread that freed it, orders that thread's stores with halfst, not its loads. So what is written is taken first. Reading needs no more
 * than what free() has: old blocks are the caller's, and another thread gets one through jemalloc's locks. All else that jemalloc writes is its own. */
static void take(void *to, size_t size)
{
	if (!size || !tagtso_is_active() || !tagtso_window_index((uint64_t)to))
		return;
	tagtso_sigmask old = tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC); /* page locks */

	tagtso_owner_take((uint64_t)to, size, tagtso_owner_me());
	tagtso_sys_sigmask(old);
}

/* In place of libc's in jemalloc (alloc/jemalloc.am). */
void *tagtso_heap_memset(void *to, int byte, size_t size);
void *tagtso_heap_memcpy(void *to, const void *from, size_t size);
void *tagtso_heap_memmove(void *to, const void *from, size_t size);

void *tagtso_heap_memset(void *to, int byte, size_t size)
{
	take(to, size);
	return memset(to, byte, size);
}

void *tagtso_heap_memcpy(void *to, const void *from, size_t size)
{
	take(to, size);
	return memcpy(to, from, size);
}

void *tagtso_heap_memmove(void *to, const void *from, size_t size)
{
	take(to, size);
	return memmove(to, from, size);
}

/* From then on the thread's automatic cache and arena are the guest heap's; jemalloc flushes the cache when the thread ends. */
static void bind_thread(void)
{
	if (bound)
		return;
	bound = true;
	unsigned i = atomic_fetch_add_explicit(&next_arena, 1, memory_order_relaxed) % ARENAS;

	tagtso_je_mallctl("thread.arena", NULL, NULL, &arenas[i], sizeof(arenas[i]));
}

static uint64_t enter(void)
{
	TAGTSO_RANK_WAIT(TAGTSO_RANK_HEAP, 0);
	TAGTSO_RANK_TOOK(TAGTSO_RANK_HEAP, 0);
	bind_thread();
	return tagtso_unchecked_enter();
}

static void leave(uint64_t checks)
{
	tagtso_unchecked_leave(checks);
	TAGTSO_RANK_GAVE(TAGTSO_RANK_HEAP);
}

/* No two allocations in one granule. */
static size_t whole_granules(size_t size)
{
	return size < TAGTSO_GRANULE ? TAGTSO_GRANULE : size;
}

void *tagtso_heap_alloc(size_t size, size_t align, bool zero)
{
	if (size > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	int flags = (zero ? MALLOCX_ZERO : 0) | (align > TAGTSO_GRANULE ? MALLOCX_ALIGN(align) : 0);
	uint64_t checks = enter();
	void *p = tagtso_je_mallocx(whole_granules(size), flags);

	leave(checks);
	if (!p)
		errno = ENOMEM;
	return p;
}

void *tagtso_heap_realloc(void *pointer, size_t size)
{
	if (size > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	uint64_t checks = enter();
	void *p = tagtso_je_rallocx(pointer, whole_granules(size), 0);

	leave(checks);
	if (!p)
		errno = ENOMEM;
	return p;
}

void tagtso_heap_free(void *pointer)
{
	int keep = errno;

	uint64_t checks = enter();

	tagtso_je_dallocx(pointer, 0);
	leave(checks);
	errno = keep;
}

size_t tagtso_heap_usable(const void *pointer)
{
	return tagtso_je_sallocx(pointer, 0);
}

bool tagtso_heap_owns(const void *pointer)
{
	uint32_t index = tagtso_window_index((uint64_t)pointer);

	return index && (tagtso_window.page[index].flags & TAGTSO_PAGE_HEAP);
}

void *tagtso_heap_private_alloc(size_t size)
{
	TAGTSO_RANK_WAIT(TAGTSO_RANK_HEAP, 0);
	TAGTSO_RANK_TOOK(TAGTSO_RANK_HEAP, 0);
	void *p = tagtso_je_mallocx(size, MALLOCX_ARENA(0) | MALLOCX_TCACHE_NONE);

	TAGTSO_RANK_GAVE(TAGTSO_RANK_HEAP);
	return p;
}

void tagtso_heap_private_free(void *pointer)
{
	TAGTSO_RANK_WAIT(TAGTSO_RANK_HEAP, 0);
	TAGTSO_RANK_TOOK(TAGTSO_RANK_HEAP, 0);
	tagtso_je_dallocx(pointer, MALLOCX_TCACHE_NONE);
	TAGTSO_RANK_GAVE(TAGTSO_RANK_HEAP);
}
