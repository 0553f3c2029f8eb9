/* SPDX-License-Identifier: MIT */
/* Maps, unmaps and protects guest memory in the window, and keeps the index from addresses to pages of the memfd. */
#include "window.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../shim/native.h"
#include "../shim/say.h"
#include "../shim/stats.h"
#include "probe.h"
#include "resident.h"
#include "sys.h"
#include "tags.h"

#ifndef PROT_MTE
#define PROT_MTE 0x20
#endif

enum {
	LEAF_ENTRIES = 1 << TAGTSO_LEAF_BITS,
	TOP_ENTRIES = 1 << (TAGTSO_VA_BITS - TAGTSO_LEAF_BITS - TAGTSO_PAGE_SHIFT),
	EAGER_PAGES =
		16, /* mappings up to this size are tagged when they are made: a fault costs more than 16 pages of ST2G */
	CHUNK_LOG2 = 6,   /* pages opened by a first touch in a small mapping: 256 KiB */
	CHUNKS_LOG2 = 10, /* a mapping has at most this many chunks (log2), which bounds its VMAs */
	MAX_RUNS = 1 << 20,
};

struct tagtso_window tagtso_window = { .fd = -1 };

/* Protects the run list, the index's writers and the mappings. Taken with asynchronous signals blocked; never by the handler. */
static struct tagtso_lock region = { .rank = TAGTSO_RANK_REGION };
/* Free runs of pages, sorted by start, never adjacent. Protected by `region`. */
static struct run {
	uint32_t start, pages;
} * runs;
static uint32_t nruns;
/* Which leaves exist, and which part of each was ever used: walks skip the rest. Protected by `region`. */
enum { MAX_LEAVES = 1 << 16 };
static uint32_t *tops; /* address bits 47:30 of each leaf, in the order in which they were made */
static uint32_t leaves;
static struct used {
	uint32_t from, to;
} * used;                    /* by address bits 47:30: entries from <= i < to */
static _Atomic bool forking; /* written by the forking thread, read by handlers */

static tagtso_sigmask region_enter(void)
{
	tagtso_sigmask old = tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC);

	tagtso_lock(&region);
	return old;
}

static void region_leave(tagtso_sigmask old)
{
	tagtso_unlock(&region);
	tagtso_sys_sigmask(old);
}

void tagtso_page_lock(struct tagtso_page *page)
{
	TAGTSO_RANK_WAIT(TAGTSO_RANK_PAGE, (uint64_t)(page - tagtso_window.page));
	if (tagtso_page_trylock(page))
		return;
	TAGTSO_COUNT(busy_waits);
	while (!tagtso_page_trylock(page))
		tagtso_sys(__NR_sched_yield);
}

/* --- free runs of memfd pages ------------------------------------------------------------------------------------ */

static uint32_t run_take(uint64_t pages)
{
	for (uint32_t i = 0; i < nruns; i++) {
		if (runs[i].pages < pages)
			continue;
		uint32_t start = runs[i].start;

		runs[i].start += (uint32_t)pages;
		runs[i].pages -= (uint32_t)pages;
		if (!runs[i].pages) {
			for (nruns--; i < nruns; i++)
				runs[i] = runs[i + 1];
		}
		return start;
	}
	return 0;
}

static void run_give(uint32_t start, uint32_t pages)
{
	uint32_t i = 0;

	while (i < nruns && runs[i].start < start)
		i++;
	bool before = i && runs[i - 1].start + runs[i - 1].pages == start;
	bool after = i < nruns && start + pages == runs[i].start;

	if (before && after) {
		runs[i - 1].pages += pages + runs[i].pages;
		for (nruns--; i < nruns; i++)
			runs[i] = runs[i + 1];
	} else if (before) {
		runs[i - 1].pages += pages;
	} else if (after) {
		runs[i].start = start;
		runs[i].pages += pages;
	} else if (nruns < MAX_RUNS) {
		for (uint32_t k = nruns++; k > i; k--)
			runs[k] = runs[k - 1];
		runs[i] = (struct run){ start, pages };
	} /* else: the run is lost until the process ends; the window is address space, not memory */
}

/* --- the index --------------------------------------------------------------------------------------------------- */

static bool index_prepare(uint64_t va, uint64_t len)
{
	for (uint64_t top = va >> 30; top <= (va + len - 1) >> 30; top++) {
		if (top >= TOP_ENTRIES)
			return false;
		if (atomic_load_explicit(&tagtso_window.leaf[top], memory_order_relaxed))
			continue;
		_Atomic uint32_t *leaf =
			leaves < MAX_LEAVES ? tagtso_sys_reserve(LEAF_ENTRIES * sizeof(uint32_t)) : NULL;

		if (!leaf)
			return false;
		tops[leaves++] = (uint32_t)top;
		used[top] = (struct used){ LEAF_ENTRIES, 0 };
		atomic_store_explicit(&tagtso_window.leaf[top], leaf, memory_order_release);
	}
	return true;
}

/* Of consecutive pages that are in one leaf: index, index+step, ... */
static void index_set_in_leaf(uint64_t va, uint32_t pages, uint32_t index, uint32_t step)
{
	_Atomic uint32_t *leaf = atomic_load_explicit(&tagtso_window.leaf[va >> 30], memory_order_relaxed);
	uint32_t from = va >> TAGTSO_PAGE_SHIFT & (LEAF_ENTRIES - 1), to = from + pages;
	struct used *u = &used[va >> 30];

	if (from < u->from)
		u->from = from;
	if (to > u->to)
		u->to = to;
	for (uint32_t at = from; at < to; at++, index += step)
		atomic_store_explicit(&leaf[at], index, memory_order_release);
}

static void index_set(uint64_t va, uint64_t pages, uint32_t index, uint32_t step)
{
	while (pages) {
		uint64_t room = LEAF_ENTRIES - (va >> TAGTSO_PAGE_SHIFT & (LEAF_ENTRIES - 1));
		uint32_t n = (uint32_t)(pages < room ? pages : room);

		index_set_in_leaf(va, n, index, step);
		va += (uint64_t)n << TAGTSO_PAGE_SHIFT;
		pages -= n;
		index += n * step;
	}
}

/* A stretch of window pages: consecutive addresses and indices, one protection, all reached or none. */
struct stretch {
	uint64_t va, end;
	uint32_t index;
	uint8_t prot, flags;
};

/* The next address after `va`, which is not in the window, that may be. */
static uint64_t skip_unused(uint64_t va)
{
	uint64_t top = va >> 30, at = va >> TAGTSO_PAGE_SHIFT & (LEAF_ENTRIES - 1);
	if (top >= TOP_ENTRIES)
		return UINT64_MAX;
	bool leaf = atomic_load_explicit(&tagtso_window.leaf[top], memory_order_relaxed);

	if (!leaf || at >= used[top].to)
		return (top + 1) << 30;
	if (at < used[top].from)
		return top << 30 | (uint64_t)used[top].from << TAGTSO_PAGE_SHIFT;
	return va + TAGTSO_PAGE_SIZE;
}

/* The first stretch at or after `va`, below `end`. Called with `region` held, so that the index stands still. */
static bool stretch_next(uint64_t va, uint64_t end, struct stretch *s)
{
	uint32_t i = 0;

	while (va < end && !(i = tagtso_window_index(va)))
		va = skip_unused(va);
	if (va >= end)
		return false;
	struct tagtso_page *p = &tagtso_window.page[i];

	*s = (struct stretch){ va, va, i, p->prot, p->flags & (TAGTSO_PAGE_REACHED | TAGTSO_PAGE_HEAP) };
	do {
		s->end += TAGTSO_PAGE_SIZE;
		p++;
		i++;
	} while (s->end < end && tagtso_window_index(s->end) == i && p->prot == s->prot &&
	         (p->flags & (TAGTSO_PAGE_REACHED | TAGTSO_PAGE_HEAP)) == s->flags);
	return true;
}

static void stretch_lock(const struct stretch *s)
{
	uint32_t n = (uint32_t)((s->end - s->va) >> TAGTSO_PAGE_SHIFT);

	for (uint32_t k = 0; k < n; k++)
		tagtso_page_lock(&tagtso_window.page[s->index + k]);
}

static void stretch_unlock(const struct stretch *s)
{
	uint32_t n = (uint32_t)((s->end - s->va) >> TAGTSO_PAGE_SHIFT);

	for (uint32_t k = 0; k < n; k++)
		tagtso_page_unlock(&tagtso_window.page[s->index + k]);
}

static uint64_t stretch_view(const struct stretch *s, uint64_t base)
{
	return base + ((uint64_t)s->index << TAGTSO_PAGE_SHIFT);
}

static void protect_alias(uint64_t alias, uint64_t len, int prot)
{
	tagtso_sys(__NR_mprotect, alias, len, prot & (PROT_READ | PROT_WRITE));
}

/* --- start-up ---------------------------------------------------------------------------------------------------- */

static long open_backing(const char *backing)
{
	static const char prefix[] = "tmpfs:";

	if (!backing || strncmp(backing, prefix, sizeof(prefix) - 1) != 0)
		return tagtso_sys(__NR_memfd_create, "tagtso", MFD_CLOEXEC);
	return tagtso_sys(__NR_openat, AT_FDCWD, backing + sizeof(prefix) - 1, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static long map_views(int fd, uint64_t bytes, int fixed)
{
	long a = tagtso_sys(__NR_mmap, tagtso_window.alias, bytes, PROT_READ | PROT_WRITE,
	                    MAP_SHARED | MAP_NORESERVE | fixed, fd, 0);

	if (tagtso_sys_failed(a))
		return a;
	long t = tagtso_sys(__NR_mmap, tagtso_window.tags, bytes, PROT_READ | PROT_WRITE | PROT_MTE,
	                    MAP_SHARED | MAP_NORESERVE | fixed, fd, 0);

	if (tagtso_sys_failed(t))
		return t;
	tagtso_window.alias = (uint64_t)a;
	tagtso_window.tags = (uint64_t)t;
	return 0;
}

static char backing_path[256]; /* kept for the children of fork */

int tagtso_window_init(const char *backing, uint32_t gib, const char **what)
{
	uint64_t bytes = (uint64_t)gib << 30;
	struct tagtso_window *w = &tagtso_window;

	*what = "TAGTSO_BACKING: too long a path";
	if (backing && strlen(backing) >= sizeof(backing_path))
		return -ENAMETOOLONG;
	if (backing)
		memcpy(backing_path, backing, strlen(backing) + 1);
	*what = "opening the backing file";
	long fd = open_backing(backing);

	if (tagtso_sys_failed(fd))
		return (int)fd;
	*what = "setting the backing file's size";
	long r = tagtso_sys(__NR_ftruncate, fd, bytes);

	if (!tagtso_sys_failed(r)) {
		*what = "mapping the backing file with PROT_MTE";
		r = map_views((int)fd, bytes, 0);
	}
	if (!tagtso_sys_failed(r)) {
		*what = "reserving address space";
		w->pages = bytes >> TAGTSO_PAGE_SHIFT;
		w->page = tagtso_sys_reserve(w->pages * sizeof(*w->page));
		runs = tagtso_sys_reserve(MAX_RUNS * sizeof(*runs));
		used = tagtso_sys_reserve(TOP_ENTRIES * sizeof(*used));
		tops = tagtso_sys_reserve(MAX_LEAVES * sizeof(*tops));
		w->leaf = tagtso_sys_reserve(TOP_ENTRIES * sizeof(*w->leaf));
		r = w->page && runs && used && tops && w->leaf ? 0 : -ENOMEM;
	}
	if (tagtso_sys_failed(r)) {
		tagtso_sys(__NR_close, fd);
		w->leaf = NULL;
		return (int)r;
	}
	w->fd = (int)fd;
	runs[0] = (struct run){ 1, (uint32_t)w->pages - 1 };
	nruns = 1;
	return 0;
}

/* --- mapping ----------------------------------------------------------------------------------------------------- */

static void add_bytes(int64_t bytes, bool heap)
{
	uint64_t now = atomic_fetch_add_explicit(&tagtso_stats[TAGTSO_STAT_window_bytes], (uint64_t)bytes,
	                                         memory_order_relaxed) +
	               (uint64_t)bytes;

	if (now > TAGTSO_STAT(window_peak)) /* `region` is held: no other writer */
		atomic_store_explicit(&tagtso_stats[TAGTSO_STAT_window_peak], now, memory_order_relaxed);
	if (heap)
		TAGTSO_ADD(heap_bytes, bytes);
}

/* Reads up to `len` bytes of a file into the alias; what lies beyond its end stays zero. */
static void fill_from_file(uint64_t alias, uint64_t len, int fd, int64_t off)
{
	while (len) {
		long r = tagtso_sys(__NR_pread64, fd, alias, len, off);

		if (r == -EINTR)
			continue;
		if (r <= 0)
			return;
		alias += (uint64_t)r;
		len -= (uint64_t)r;
		off += r;
	}
}

static unsigned chunk_log2(uint64_t pages)
{
	unsigned log2 = CHUNK_LOG2;

	while (pages >> log2 > 1u << CHUNKS_LOG2)
		log2++;
	return log2;
}

/* The page's contents are new, or nobody else can look: who used it before says nothing. */
static void forget_history(struct tagtso_page *page)
{
	page->handovers = 0;
	page->conflicts = 0;
	page->probe = 0;
	atomic_store_explicit(&page->moved, 0, memory_order_relaxed);
}

/* Gives the pages of a fresh run their metadata and index entries. */
static void publish(uint64_t va, uint64_t pages, uint32_t index, int prot, unsigned flags)
{
	unsigned chunk = chunk_log2(pages);

	for (uint64_t k = 0; k < pages; k++) {
		struct tagtso_page *p = &tagtso_window.page[index + k];

		p->prot = (uint8_t)prot;
		atomic_store_explicit(&p->flags, (uint8_t)flags, memory_order_relaxed);
		forget_history(p);
		p->chunk = (uint8_t)chunk;
		atomic_store_explicit(&p->va, va + (k << TAGTSO_PAGE_SHIFT), memory_order_relaxed);
	}
	index_set(va, pages, index, 1); /* releases what was written above */
}

static void forget(uint64_t va, uint64_t end);

/* MAP_FIXED over memory that is all one piece of the window already: the same pages again, so that a reservation that is
 * committed bit by bit stays in one piece in the alias too. */
static bool reuse_in_place(uint64_t va, uint64_t len)
{
	uint32_t first = tagtso_window_index(va);

	for (uint64_t k = 0; k < len >> TAGTSO_PAGE_SHIFT; k++) {
		if (!first || tagtso_window_index(va + (k << TAGTSO_PAGE_SHIFT)) != first + k)
			return false;
		if (tagtso_window.page[first + k].flags & TAGTSO_PAGE_HEAP)
			return false;
	}
	return true;
}

static void zero_range(uint64_t va, uint64_t end);
static long protect_range(uint64_t va, uint64_t end, int prot);

static long map_run(uint64_t addr, uint64_t len, int prot, int flags, int fd, int64_t off, bool heap)
{
	uint64_t pages = len >> TAGTSO_PAGE_SHIFT;
	uint32_t index = pages < tagtso_window.pages ? run_take(pages) : 0;

	if (!index)
		return -ENOSPC;
	uint64_t at = (uint64_t)index << TAGTSO_PAGE_SHIFT;
	bool active = tagtso_is_active(), eager = pages <= EAGER_PAGES;
	/* Without access until the index knows it: a thread that touches it earlier must not meet a tag that nobody can explain. */
	long r = tagtso_sys(__NR_mmap, addr, len, PROT_NONE | PROT_MTE,
	                    MAP_SHARED | MAP_NORESERVE | (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)), tagtso_window.fd,
	                    at);

	if (tagtso_sys_failed(r) || !index_prepare((uint64_t)r, len)) {
		run_give(index, (uint32_t)pages);
		if (!tagtso_sys_failed(r))
			tagtso_sys(__NR_munmap, r, len);
		return tagtso_sys_failed(r) ? r : -ENOSPC;
	}
	if (fd >= 0)
		fill_from_file(tagtso_window.alias + at, len, fd, off);
	if (active && eager)
		tagtso_tag_fill(tagtso_window.tags + at, len, TAGTSO_TAG_BUSY);
	bool reached = active && eager;

	if (prot != (PROT_READ | PROT_WRITE))
		protect_alias(tagtso_window.alias + at, len, prot);
	publish((uint64_t)r, pages, index, prot, (reached ? TAGTSO_PAGE_REACHED : 0) | (heap ? TAGTSO_PAGE_HEAP : 0));
	/* The tags above are in memory before the mapping can be used: mprotect's page table writes are ordered by DSB. */
	if (prot != PROT_NONE && (!active || reached)) {
		long e = tagtso_sys(__NR_mprotect, r, len, prot | PROT_MTE);

		if (tagtso_sys_failed(e)) {
			forget((uint64_t)r, (uint64_t)r + len);
			tagtso_sys(__NR_munmap, r, len);
			return e;
		}
	}
	add_bytes((int64_t)len, heap);
	return r;
}

long tagtso_window_map(uint64_t addr, uint64_t len, int prot, int flags, int fd, int64_t off, bool heap)
{
	len = tagtso_page_up(len);
	if (!len)
		return -EINVAL;
	tagtso_sigmask old = region_enter();
	long r;

	if ((flags & MAP_FIXED) && fd < 0 && !(addr & (TAGTSO_PAGE_SIZE - 1)) && reuse_in_place(addr, len)) {
		zero_range(addr, addr + len);
		r = protect_range(addr, addr + len, prot);
		r = r ? r : (long)addr;
	} else {
		if (flags & MAP_FIXED)
			forget(addr, addr + len);
		r = map_run(addr, len, prot, flags, fd, off, heap);
	}
	region_leave(old);
	return r;
}

bool tagtso_window_any(uint64_t va, uint64_t len)
{
	uint64_t end = va + len;

	if (!tagtso_window.leaf || va >> TAGTSO_VA_BITS)
		return false;
	for (va &= ~(uint64_t)(TAGTSO_PAGE_SIZE - 1); va < end; va = skip_unused(va)) {
		if (tagtso_window_index(va))
			return true;
	}
	return false;
}

/* Overmaps each stretch with inaccessible memory, so that no access by its addresses can be under way (the kernel's TLB invalidation ends them),
 * then takes it out of the index and gives its pages back, zeroed. */
static void forget(uint64_t va, uint64_t end)
{
	struct stretch s;

	while (stretch_next(va, end, &s)) {
		uint64_t len = s.end - s.va;

		stretch_lock(&s);
		index_set(s.va, len >> TAGTSO_PAGE_SHIFT, 0, 0);
		tagtso_sys(__NR_mmap, s.va, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		           0);
		for (uint64_t k = 0; k < len >> TAGTSO_PAGE_SHIFT; k++)
			atomic_store_explicit(&tagtso_window.page[s.index + k].va, 0, memory_order_relaxed);
		tagtso_sys(__NR_fallocate, tagtso_window.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		           (uint64_t)s.index << TAGTSO_PAGE_SHIFT, len);
		if (s.prot != (PROT_READ | PROT_WRITE))
			protect_alias(stretch_view(&s, tagtso_window.alias), len, PROT_READ | PROT_WRITE);
		stretch_unlock(&s);
		run_give(s.index, (uint32_t)(len >> TAGTSO_PAGE_SHIFT));
		add_bytes(-(int64_t)len, s.flags & TAGTSO_PAGE_HEAP);
		va = s.end;
	}
}

void tagtso_window_release(uint64_t va, uint64_t len)
{
	if (!tagtso_window_any(va, len))
		return;
	tagtso_sigmask old = region_enter();

	forget(va, va + tagtso_page_up(len));
	region_leave(old);
}

/* Pages that no thread has reached stay without access; their first touch will give them the new protection. */
static long protect_range(uint64_t va, uint64_t end, int prot)
{
	struct stretch s;
	long r = 0;

	while (!r && va < end) {
		bool found = stretch_next(va, end, &s);
		uint64_t gap = (found ? s.va : end) - va;

		if (gap)
			r = tagtso_sys(__NR_mprotect, va, gap, prot);
		if (!found || r)
			break;
		uint64_t len = s.end - s.va;

		stretch_lock(&s);
		if ((s.flags & TAGTSO_PAGE_REACHED) || !tagtso_is_active())
			r = tagtso_sys(__NR_mprotect, s.va, len, prot | PROT_MTE);
		if (!r && prot != s.prot) {
			protect_alias(stretch_view(&s, tagtso_window.alias), len, prot);
			for (uint64_t k = 0; k < len >> TAGTSO_PAGE_SHIFT; k++)
				tagtso_window.page[s.index + k].prot = (uint8_t)prot;
		}
		stretch_unlock(&s);
		va = s.end;
	}
	return r;
}

long tagtso_window_protect(uint64_t va, uint64_t len, int prot)
{
	tagtso_sigmask old = region_enter();
	long r = protect_range(va, va + tagtso_page_up(len), prot);

	region_leave(old);
	return r;
}

/* Unreachable first, then empty: a page whose tags are gone is never reachable while two threads run (I3). */
static void zero_range(uint64_t va, uint64_t end)
{
	struct stretch s;

	while (stretch_next(va, end, &s)) {
		uint64_t len = s.end - s.va;

		stretch_lock(&s);
		if (tagtso_is_active() && (s.flags & TAGTSO_PAGE_REACHED))
			tagtso_sys(__NR_mprotect, s.va, len, PROT_NONE | PROT_MTE);
		for (uint64_t k = 0; k < len >> TAGTSO_PAGE_SHIFT; k++) {
			struct tagtso_page *p = &tagtso_window.page[s.index + k];

			p->flags &= TAGTSO_PAGE_HEAP;
			forget_history(p);
		}
		tagtso_sys(__NR_fallocate, tagtso_window.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		           (uint64_t)s.index << TAGTSO_PAGE_SHIFT, len);
		stretch_unlock(&s);
		va = s.end;
	}
}

void tagtso_window_zero(uint64_t va, uint64_t len)
{
	tagtso_sigmask old = region_enter();

	zero_range(va, va + tagtso_page_up(len));
	region_leave(old);
}

/* The contents move through the two aliases while the old addresses are inaccessible; tags begin undecided again. */
static long remap_moving(const struct stretch *s, uint64_t len, int flags, uint64_t addr)
{
	uint64_t old_len = s->end - s->va, keep = old_len < len ? old_len : len;

	if (flags & MREMAP_FIXED) {
		forget(addr, addr + len);
	} else if (!(flags & MREMAP_MAYMOVE)) {
		return -ENOMEM;
	}
	long r = map_run(flags & MREMAP_FIXED ? addr : 0, len, PROT_READ | PROT_WRITE,
	                 flags & MREMAP_FIXED ? MAP_FIXED : 0, -1, 0, false);

	if (tagtso_sys_failed(r))
		return r == -ENOSPC ? -ENOMEM : r;
	tagtso_sys(__NR_mmap, s->va, old_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
	           0);
	if (!(s->prot & PROT_READ))
		protect_alias(stretch_view(s, tagtso_window.alias), old_len, PROT_READ | PROT_WRITE);
	uint64_t to = (uint64_t)tagtso_window_index((uint64_t)r) << TAGTSO_PAGE_SHIFT;

	/* pwrite from the one to the other through the kernel: only resident data would need copying, and no tag is checked */
	for (uint64_t done = 0; done < keep;) {
		long n = tagtso_sys(__NR_pwrite64, tagtso_window.fd, stretch_view(s, tagtso_window.alias) + done,
		                    keep - done, to + done);

		if (n <= 0)
			break;
		done += (uint64_t)n;
	}
	forget(s->va, s->end);
	tagtso_sys(__NR_munmap, s->va, old_len);
	if (s->prot != (PROT_READ | PROT_WRITE))
		protect_range((uint64_t)r, (uint64_t)r + len, s->prot);
	return r;
}

long tagtso_window_remap(uint64_t old_va, uint64_t old_len, uint64_t len, int flags, uint64_t addr)
{
	struct stretch s;
	tagtso_sigmask mask = region_enter();
	long r;

	old_len = tagtso_page_up(old_len);
	len = tagtso_page_up(len);
	if (!old_len || !len || !stretch_next(old_va, old_va + old_len, &s) || s.va != old_va) {
		r = -EFAULT;
	} else if (len <= old_len && !(flags & MREMAP_FIXED)) {
		if (len < old_len) {
			forget(old_va + len, old_va + old_len);
			tagtso_sys(__NR_munmap, old_va + len, old_len - len);
		}
		r = (long)old_va;
	} else {
		s.end = old_va + old_len; /* a mapping of several protections keeps its first one */
		bool whole = true;

		for (uint64_t k = 0; k < old_len >> TAGTSO_PAGE_SHIFT; k++)
			whole = whole && tagtso_window_index(old_va + (k << TAGTSO_PAGE_SHIFT)) == s.index + k;
		r = whole ? remap_moving(&s, len, flags, addr) : -EFAULT;
	}
	region_leave(mask);
	return r;
}

/* --- waking and first touch -------------------------------------------------------------------------------------- */

/* Calls fn for every stretch of the window. `region` is held. */
static void each_stretch(void (*fn)(struct stretch *s, void *arg), void *arg)
{
	struct stretch s = { 0 };

	for (uint32_t i = 0; i < leaves; i++) {
		uint64_t begin = (uint64_t)tops[i] << 30, end = begin + (UINT64_C(1) << 30);

		for (uint64_t va = begin; stretch_next(va, end, &s); va = s.end)
			fn(&s, arg);
	}
}

static void set_reached(uint32_t index, uint64_t pages, bool reached)
{
	for (uint64_t k = 0; k < pages; k++) {
		if (reached)
			tagtso_window.page[index + k].flags |= TAGTSO_PAGE_REACHED;
		else
			tagtso_window.page[index + k].flags &= (uint8_t)~TAGTSO_PAGE_REACHED;
	}
}

/* Part of a stretch while it is woken: resident pages, or a hole. */
static void wake_part(struct stretch *s, uint64_t at, uint64_t end, bool resident, unsigned owner)
{
	uint64_t pages = (end - at) >> TAGTSO_PAGE_SHIFT;
	uint64_t va = s->va + (at - ((uint64_t)s->index << TAGTSO_PAGE_SHIFT));
	bool tag = resident || pages <= EAGER_PAGES;

	if (tag)
		tagtso_tag_fill(tagtso_window.tags + at, end - at, owner);
	else if (s->prot != PROT_NONE)
		tagtso_sys(__NR_mprotect, va, end - at, PROT_NONE | PROT_MTE);
	set_reached((uint32_t)(at >> TAGTSO_PAGE_SHIFT), pages, tag);
}

static void wake_stretch(struct stretch *s, void *arg)
{
	unsigned owner = *(unsigned *)arg;
	uint64_t at = (uint64_t)s->index << TAGTSO_PAGE_SHIFT, end = at + (s->end - s->va);

	while (at < end) {
		long data = tagtso_sys(__NR_lseek, tagtso_window.fd, at, SEEK_DATA);
		uint64_t from = tagtso_sys_failed(data) || (uint64_t)data > end ? end : (uint64_t)data;

		if (from > at)
			wake_part(s, at, from, false, owner);
		if (from == end)
			break;
		long hole = tagtso_sys(__NR_lseek, tagtso_window.fd, from, SEEK_HOLE);
		uint64_t to = tagtso_sys_failed(hole) || (uint64_t)hole > end ? end : (uint64_t)hole;

		wake_part(s, from, to, true, owner);
		at = to;
	}
}

void tagtso_window_wake(unsigned owner)
{
	tagtso_sigmask old = region_enter();

	each_stretch(wake_stretch, &owner);
	region_leave(old);
}

/* Whether the page at `va` is a neighbour of the same kind that can be opened together with the first; takes its lock. */
static bool open_neighbour(uint64_t va, uint32_t index, uint8_t prot)
{
	struct tagtso_page *p = &tagtso_window.page[index];

	if (tagtso_window_index(va) != index || !tagtso_page_trylock(p))
		return false;
	if (tagtso_window_index(va) == index && p->prot == prot && !(p->flags & TAGTSO_PAGE_REACHED))
		return true;
	tagtso_page_unlock(p);
	return false;
}

static void open_locked(uint64_t va, uint32_t index, unsigned me)
{
	struct tagtso_page *p = &tagtso_window.page[index];
	uint64_t mask = (1u << p->chunk) - 1, page = va >> TAGTSO_PAGE_SHIFT;
	uint64_t lo = page, hi = page + 1;
	uint32_t first = index;
	unsigned tag = me ? me : TAGTSO_TAG_SHARED;

	while (lo > (page & ~mask) && open_neighbour((lo - 1) << TAGTSO_PAGE_SHIFT, first - 1, p->prot))
		lo--, first--;
	while (hi <= (page | mask) && open_neighbour(hi << TAGTSO_PAGE_SHIFT, first + (uint32_t)(hi - lo), p->prot))
		hi++;
	tagtso_tag_fill(tagtso_window.tags + ((uint64_t)first << TAGTSO_PAGE_SHIFT), (hi - lo) << TAGTSO_PAGE_SHIFT,
	                tagtso_tag_in_memory(tag));
	/* The claimer's own barrier: these pages were inaccessible since they were empty, so no other thread has an access to them under way
	 * (the kernel's TLB invalidation waited for it) and only this thread's order matters (I2). Before the mprotect, so
	 * that tags are in memory before any thread can look. */
	__asm__ volatile("dmb ish" ::: "memory");
	tagtso_sys(__NR_mprotect, lo << TAGTSO_PAGE_SHIFT, (hi - lo) << TAGTSO_PAGE_SHIFT, p->prot | PROT_MTE);
	for (uint64_t k = 0; k < hi - lo; k++) {
		if (tag == TAGTSO_TAG_SHARED) {
			tagtso_window.page[first + k].flags |= TAGTSO_PAGE_SHARED | TAGTSO_PAGE_SOME_SHARED;
			tagtso_probe_note(first + (uint32_t)k);
		}
		tagtso_window.page[first + k].flags |= TAGTSO_PAGE_REACHED;
		tagtso_page_unlock(&tagtso_window.page[first + k]);
	}
}

bool tagtso_window_open(uint64_t va, unsigned me)
{
	uint32_t index = tagtso_window_index(va);

	if (!index)
		return false;
	struct tagtso_page *p = &tagtso_window.page[index];

	tagtso_page_lock(p);
	if (tagtso_window_forking()) { /* the copy must not race with new memory: the caller waits and comes again */
		tagtso_page_unlock(p);
		return true;
	}
	if (tagtso_window_index(va) != index || (p->flags & TAGTSO_PAGE_REACHED) || p->prot == PROT_NONE) {
		/* Another thread opened or unmapped it meanwhile: look again. But reached and still faulting, or without access by the
		 * guest's own wish, is the guest's fault; a caller that sees REACHED from the start never comes here. */
		bool again = tagtso_window_index(va) == index && p->prot != PROT_NONE;

		tagtso_page_unlock(p);
		return again;
	}
	open_locked(va, index, me);
	return true;
}

/* --- fork -------------------------------------------------------------------------------------------------------- */

static void protect_stretch(struct stretch *s, void *arg)
{
	bool on = *(bool *)arg;
	int prot = on ? s->prot & ~PROT_WRITE : s->prot;

	if ((s->prot & PROT_WRITE) && (s->flags & TAGTSO_PAGE_REACHED))
		tagtso_sys(__NR_mprotect, s->va, s->end - s->va, prot | PROT_MTE);
}

/* Waits for handlers that opened pages of the stretch when `forking` was set. */
static void settle_stretch(struct stretch *s, void *arg)
{
	(void)arg;
	stretch_lock(s);
	stretch_unlock(s);
}

static tagtso_sigmask fork_mask; /* of the forking thread, which holds `region` from protect(true) to protect(false) */

void tagtso_window_fork_protect(bool on)
{
	if (on) {
		fork_mask = region_enter();
		atomic_store(&forking, true);
	}
	if (tagtso_is_active()) {
		if (on)
			each_stretch(settle_stretch, NULL);
		each_stretch(protect_stretch, &on);
	}
	if (!on) {
		atomic_store(&forking, false);
		region_leave(fork_mask);
	}
}

bool tagtso_window_forking(void)
{
	return atomic_load(&forking);
}

static void copy_stretch(struct stretch *s, void *arg)
{
	int to = *(int *)arg;
	uint64_t at = (uint64_t)s->index << TAGTSO_PAGE_SHIFT, end = at + (s->end - s->va);

	if (!(s->prot & PROT_READ))
		protect_alias(stretch_view(s, tagtso_window.alias), s->end - s->va, PROT_READ);
	while (at < end) {
		long data = tagtso_sys(__NR_lseek, tagtso_window.fd, at, SEEK_DATA);

		if (tagtso_sys_failed(data) || (uint64_t)data >= end)
			return;
		long hole = tagtso_sys(__NR_lseek, tagtso_window.fd, data, SEEK_HOLE);
		uint64_t stop = tagtso_sys_failed(hole) || (uint64_t)hole > end ? end : (uint64_t)hole;

		for (at = (uint64_t)data; at < stop;) {
			long n = tagtso_sys(__NR_pwrite64, to, tagtso_window.alias + at, stop - at, at);

			if (n <= 0)
				tagtso_die("fork: copying guest memory: error %d: free some memory", (int)-n);
			at += (uint64_t)n;
		}
	}
}

/* A child is alone: it starts dormant, with the guest's own protections and no tags. */
static void remap_stretch(struct stretch *s, void *arg)
{
	uint64_t at = (uint64_t)s->index << TAGTSO_PAGE_SHIFT, len = s->end - s->va;
	long r = tagtso_sys(__NR_mmap, s->va, len, s->prot | PROT_MTE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
	                    tagtso_window.fd, at);

	(void)arg;
	if (tagtso_sys_failed(r))
		tagtso_die("fork: mapping guest memory again: error %d: the window needs more address space", (int)-r);
	if (s->prot != (PROT_READ | PROT_WRITE))
		protect_alias(tagtso_window.alias + at, len, s->prot);
	for (uint64_t k = 0; k < len >> TAGTSO_PAGE_SHIFT; k++) {
		struct tagtso_page *p = &tagtso_window.page[s->index + k];

		atomic_store_explicit(&p->lock, 0, memory_order_relaxed);
		p->flags &= TAGTSO_PAGE_HEAP;
		forget_history(p);
	}
}

int tagtso_window_fork_child(void)
{
	uint64_t bytes = tagtso_window.pages << TAGTSO_PAGE_SHIFT;
	long fd = open_backing(backing_path[0] ? backing_path : NULL);

	if (tagtso_sys_failed(fd))
		return (int)fd;
	long r = tagtso_sys(__NR_ftruncate, fd, bytes);

	if (tagtso_sys_failed(r))
		return (int)r;
	int to = (int)fd, from = tagtso_window.fd;

	each_stretch(copy_stretch, &to);
	r = map_views(to, bytes, MAP_FIXED);
	if (tagtso_sys_failed(r))
		return (int)r;
	tagtso_window.fd = to;
	each_stretch(remap_stretch, NULL);
	tagtso_sys(__NR_close, from);
	atomic_store(&forking, false);
	region_leave(fork_mask);
	return 0;
}

uint64_t tagtso_window_metadata(void)
{
	uint64_t bytes =
		TAGTSO_STAT(window_peak) / TAGTSO_PAGE_SIZE * sizeof(struct tagtso_page) + nruns * sizeof(struct run);

	for (unsigned i = 0; i < leaves; i++)
		bytes += tagtso_resident(atomic_load(&tagtso_window.leaf[tops[i]]), LEAF_ENTRIES * sizeof(uint32_t));
	return bytes;
}
