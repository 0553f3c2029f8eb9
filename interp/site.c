/* SPDX-License-Identifier: MIT */
/* The site table: an array of sites that only grows, and an index of 32-bit words that finds them. Handler code:
 * lock-free (I6).
 *
 * A site is filled before its number is published in the index, so a reader never waits for a writer, not even for
 * one that it has interrupted. Entries are never removed: for one key all threads probe the same entries in the same
 * order and take the first free one, so a key is found at most once. */
#include "site.h"

#include <errno.h>
#include <stddef.h>

#include "alloc/resident.h"
#include "alloc/window.h"
#include "decode.h"
#include "loop.h"

#ifdef __aarch64__
#include "alloc/sys.h"
/* In the emulator's process mmap may be the emulator's own function. */
static void *reserve(uint64_t bytes)
{
	return tagtso_sys_reserve(bytes);
}
#else
#include <sys/mman.h>
static void *reserve(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}
#endif

#pragma GCC poison malloc free calloc realloc printf fprintf snprintf memcpy memset strlen pthread_mutex_lock

/* An index entry: number of the site, counted from 1, and 8 bits of its key's hash, so that most other sites need not
 * be looked at.
 *
 *    31       24 23                                0
 *   +-----------+-----------------------------------+
 *   |   hash    |  site number (0 = free entry)     |
 *   +-----------+-----------------------------------+
 */
enum { NUMBER_BITS = 24, GROUP = 16, PROBES = 64 };
#define NUMBER_MASK ((1u << NUMBER_BITS) - 1)

static struct {
	struct tagtso_site *sites; /* sites[0] is not used; written by init */
	_Atomic uint32_t *index;   /* 2 * max entries; entries go from 0 to their value once, by compare-and-swap */
	uint32_t max;              /* written by init */
	_Atomic uint32_t taken;    /* numbers given out, also to inserters that lost a race; any thread */
	_Atomic uint32_t count;    /* sites that can be found; any thread */
} table;

_Atomic(struct tagtso_site *) tagtso_recent_sites[TAGTSO_RECENT_SITES];

int tagtso_site_init(uint32_t max)
{
	if (max < GROUP || (max & (max - 1)) || max > 1u << NUMBER_BITS)
		return -EINVAL;
	table.sites = reserve((uint64_t)max * sizeof(*table.sites));
	table.index = reserve((uint64_t)max * 2 * sizeof(*table.index));
	if (!table.sites || !table.index)
		return -ENOMEM;
	table.max = max;
	atomic_store_explicit(&table.taken, 0, memory_order_relaxed);
	atomic_store_explicit(&table.count, 0, memory_order_relaxed);
	return 0;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
	return x ^ (x >> 32);
}

/* The n-th group of entries (one cache line) in which a key is looked for. 256 bytes of code share their first group
 * and neighbours in code are neighbours in the index, so that the index populates pages in proportion to the code
 * that traps; crowded code (recycled again and again: same pc, other words) spills to places all over the index. */
static uint32_t probe_group(uint64_t pc, unsigned n)
{
	uint64_t group = n ? mix((pc >> 8) * 64 + n) : (pc >> 8) + mix(pc >> 21);

	return (uint32_t)group & (table.max * 2 / GROUP - 1);
}

static struct tagtso_site *match(uint32_t entry, uint32_t tag, uint64_t pc, uint32_t word)
{
	struct tagtso_site *site = table.sites + (entry & NUMBER_MASK);

	if (entry >> NUMBER_BITS != tag)
		return NULL;
	return atomic_load_explicit(&site->pc, memory_order_relaxed) == pc && site->op.word == word ? site : NULL;
}

/* The number of a fresh site, not yet in the index, or 0 when the array is full. */
static uint32_t fill(uint64_t pc, uint32_t word)
{
	uint32_t n = atomic_load_explicit(&table.taken, memory_order_relaxed);
	struct tagtso_site *site;

	do {
		if (n + 1 >= table.max)
			return 0;
	} while (!atomic_compare_exchange_weak_explicit(&table.taken, &n, n + 1, memory_order_relaxed,
	                                                memory_order_relaxed));
	site = table.sites + n + 1;
	tagtso_decode(word, &site->op);
	atomic_store_explicit(&site->pc, pc, memory_order_relaxed);
	return n + 1;
}

static struct tagtso_site *publish(uint32_t number)
{
	struct tagtso_site *site = table.sites + number;

	atomic_fetch_add_explicit(&table.count, 1, memory_order_relaxed);
	atomic_store_explicit(&site->ready, 1, memory_order_release);
	return site;
}

struct tagtso_site *tagtso_site_get(uint64_t pc, uint32_t word)
{
	uint32_t tag = (uint32_t)(mix(pc ^ (uint64_t)word << 32 ^ word) >> 56), number = 0;

	for (unsigned i = 0; i < PROBES * GROUP; i++) {
		uint32_t slot = ((uint32_t)(pc >> 2) + i) % GROUP;
		_Atomic uint32_t *at = table.index + probe_group(pc, i / GROUP) * GROUP + slot;
		/* Acquire: pairs with the publishing compare-and-swap, after which the site's key and op are there to
		 * be read. */
		uint32_t entry = atomic_load_explicit(at, memory_order_acquire);
		struct tagtso_site *site;

		if (!entry) {
			if (!number && !(number = fill(pc, word)))
				return NULL;
			if (atomic_compare_exchange_strong_explicit(at, &entry, tag << NUMBER_BITS | number,
			                                            memory_order_acq_rel, memory_order_acquire))
				return publish(number);
		}
		/* If another thread has put the same key here meanwhile, the site that was filled for nothing stays
		 * unused. */
		site = match(entry, tag, pc, word);
		if (site)
			return site;
	}
	return NULL;
}

/* A LOCAL site that is to serve shared memory, or the other way round, may be in another phase of the program, or serve both from
 * now on: which of them shows when it has flipped some times. */
static bool may_flip(const struct tagtso_site *site, const struct tagtso_hysteresis *h)
{
	return atomic_load_explicit(&site->changes, memory_order_relaxed) < h->flips;
}

enum tagtso_form tagtso_site_wanted(const struct tagtso_site *site, const struct tagtso_hysteresis *h)
{
	bool local = atomic_load_explicit(&site->local, memory_order_relaxed) >= h->local;
	bool shared = atomic_load_explicit(&site->shared, memory_order_relaxed) >= h->shared;
	enum tagtso_form form = atomic_load_explicit(&site->form, memory_order_relaxed);
	enum tagtso_form want = local ? TAGTSO_FORM_LOCAL : TAGTSO_FORM_SHARED;

	if (form == TAGTSO_FORM_MIXED || (!local && !shared))
		return form;
	if ((local && shared) || tagtso_loop_begins_with(&site->op))
		return TAGTSO_FORM_MIXED;
	return want == form || form == TAGTSO_FORM_EMITTED || may_flip(site, h) ? want : TAGTSO_FORM_MIXED;
}

static void halve(_Atomic uint32_t *score)
{
	/* What other threads add meanwhile may be lost: it is advice. */
	atomic_store_explicit(score, atomic_load_explicit(score, memory_order_relaxed) / 2, memory_order_relaxed);
}

bool tagtso_site_fades(struct tagtso_site *site, const struct tagtso_hysteresis *h, uint32_t now)
{
	if (!h->decay || now - atomic_load_explicit(&site->since, memory_order_relaxed) <= h->decay)
		return false;
	atomic_store_explicit(&site->since, now, memory_order_relaxed);
	halve(&site->local);
	halve(&site->shared);
	return true;
}

struct tagtso_site *tagtso_site_number(uint32_t n)
{
	if (!n || n > atomic_load_explicit(&table.taken, memory_order_relaxed) ||
	    !atomic_load_explicit(&table.sites[n].ready, memory_order_acquire))
		return NULL;
	return table.sites + n;
}

uint32_t tagtso_site_count(void)
{
	return atomic_load_explicit(&table.count, memory_order_relaxed);
}

uint64_t tagtso_site_bytes(void)
{
	uint64_t sites = (atomic_load_explicit(&table.taken, memory_order_relaxed) + 1) * sizeof(struct tagtso_site);

	if (!table.index)
		return 0;
	return tagtso_page_up(sites) + tagtso_resident(table.index, (uint64_t)table.max * 2 * sizeof(*table.index));
}

bool tagtso_site_valid(const struct tagtso_site *site)
{
	uintptr_t offset = (uintptr_t)site - (uintptr_t)table.sites;

	if (!table.sites || offset % sizeof(*site) || offset / sizeof(*site) >= table.max)
		return false;
	return atomic_load_explicit(&site->pc, memory_order_relaxed) != 0;
}

void tagtso_site_each(void (*fn)(struct tagtso_site *site, void *arg), void *arg)
{
	uint32_t taken = atomic_load_explicit(&table.taken, memory_order_relaxed);

	for (uint32_t n = 1; n <= taken; n++)
		if (atomic_load_explicit(&table.sites[n].ready, memory_order_acquire))
			fn(table.sites + n, arg);
}
