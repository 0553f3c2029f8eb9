/* SPDX-License-Identifier: MIT */
/* Leases of owner ids, and the transitions of granules: claim, hand over, revoke, probe. Handler code: raw system calls and page locks only (I6).
 *
 * Every change of who may access a granule plainly is made with its page's lock held, by protocol P2 (HACKING.md §6):
 *   tag := busy;  membarrier;  tag := the new owner, or shared;  then the access that caused it.
 * The busy tag keeps a third thread from using the new tag before the membarrier has ended; the membarrier orders the old owner's plain
 * accesses before everything that follows. Ordered accesses are LDR; DMB ISHLD and DMB ISHST; STR, for which one membarrier is enough; in mode
 * relax they are as the emulator emitted them, LDAPR for one, for which there must be two (P3).
 *
 * Under policy `cpu` memory gets a CPU as its owner by P3 too: other threads may be on that CPU (arrive()). */
#include "owner.h"

#include <errno.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdatomic.h>

#include "../shim/say.h"
#include "../shim/stats.h"
#include "probe.h"
#include "sys.h"
#include "tags.h"
#include "window.h"

struct tagtso_owner_limits tagtso_owner_limits = { .handovers = 2, .conflicts = 4, .batch = 64 };
unsigned tagtso_shared_tag = TAGTSO_TAG_SHARED;

/* --- leases ------------------------------------------------------------------------------------------------------ */

/* The holder of each owner id, 0 = free: its kernel thread id, which has at most 22 bits, and above it how often the id was taken. With the
 * number, a word that was read never comes back while it matters: not even if the kernel gives the thread id of an ended thread to a new one, which
 * takes the id again while somebody else, who saw the old thread gone, is about to take it. Taken by compare-and-swap. A lease ends when its thread is gone from the
 * kernel, which is noticed when an id is wanted: that works however the thread ended, and its end ordered all its accesses. */
static _Atomic uint32_t holder[TAGTSO_TAG_LAST + 1];
enum { TID_BITS = 22 };

static int32_t tid_of(uint32_t word)
{
	return (int32_t)(word & ((1u << TID_BITS) - 1));
}

static bool take(unsigned id, uint32_t old, int32_t self)
{
	uint32_t word = ((old >> TID_BITS) + 1) << TID_BITS | (uint32_t)self;

	return atomic_compare_exchange_strong_explicit(&holder[id], &old, word, memory_order_acq_rel,
	                                               memory_order_relaxed);
}

static void set_checking(unsigned long tcf, unsigned long include)
{
	long r = tagtso_sys(__NR_prctl, PR_SET_TAGGED_ADDR_CTRL,
	                    PR_TAGGED_ADDR_ENABLE | tcf | include << PR_MTE_TAG_SHIFT, 0, 0, 0);

	if (r != 0)
		tagtso_die(
			"prctl(PR_SET_TAGGED_ADDR_CTRL): error %d after it worked at start-up: run this program with "
			"TAGTSO_MODE=off",
			(int)-r);
}

/* tkill, not tgkill: a process that shares this memory without being a thread of ours (CLONE_VM alone) lives too, and two living owners of one id
 * would be unsound. An id whose number the kernel gave to a stranger stays taken: that only costs an id. */
static bool gone(int32_t tid)
{
	return tagtso_sys(__NR_tkill, tid, 0) == -ESRCH;
}

static unsigned take_id(int32_t self)
{
	for (unsigned id = TAGTSO_TAG_FIRST; id <= TAGTSO_TAG_LAST; id++) {
		uint32_t old = atomic_load_explicit(&holder[id], memory_order_relaxed);

		/* a thread id that came back: its last bearer is gone, and what it owned may be ours */
		if (tid_of(old) == self && take(id, old, self))
			return id;
	}
	for (unsigned id = TAGTSO_TAG_FIRST; id <= TAGTSO_TAG_LAST; id++) {
		uint32_t old = atomic_load_explicit(&holder[id], memory_order_relaxed);

		if ((!tid_of(old) || gone(tid_of(old))) && take(id, old, self))
			return id;
	}
	return 0;
}

/* The mask says no more than that the thread has an rseq area of its own: its CPU says who it is. */
static unsigned join_cpu(void)
{
	if (!tagtso_cpu_registered()) {
		tagtso_owner_none();
		TAGTSO_COUNT(leases_refused);
		return 0;
	}
	set_checking(PR_MTE_TCF_SYNC, 1ul << TAGTSO_TAG_FIRST);
	return tagtso_cpu_id();
}

unsigned tagtso_owner_lease(void)
{
	if (tagtso_cpu.owns)
		return join_cpu();
	unsigned id = take_id((int32_t)tagtso_sys(__NR_gettid));

	if (!id) {
		tagtso_owner_none();
		TAGTSO_COUNT(leases_refused);
		return 0;
	}
	set_checking(PR_MTE_TCF_SYNC, 1ul << id);
	/* The last holder's accesses are over (its exit passed full barriers in the kernel); ours begin after this. */
	__asm__ volatile("dmb ish" ::: "memory");
	TAGTSO_COUNT(leases);
	return id;
}

void tagtso_owner_none(void)
{
	/* An empty include mask makes IRG insert 0, which no granule carries that is shared by 15; and none has 15 where 0 is that. */
	set_checking(PR_MTE_TCF_SYNC, tagtso_shared_tag ? 0 : 1ul << TAGTSO_TAG_SHARED);
}

void tagtso_owner_dormant(void)
{
	for (unsigned id = 0; id <= TAGTSO_TAG_LAST; id++)
		atomic_store_explicit(&holder[id], 0, memory_order_relaxed);
	set_checking(PR_MTE_TCF_NONE, 0);
}

/* --- tags of a page ---------------------------------------------------------------------------------------------- */

static uint64_t tag_view(uint32_t index)
{
	return tagtso_window.tags + ((uint64_t)index << TAGTSO_PAGE_SHIFT);
}

enum { GRANULES = TAGTSO_PAGE_SIZE / TAGTSO_GRANULE }; /* of a page */

static unsigned get(uint64_t view)
{
	return tagtso_tag_meant(tagtso_tag_get(view));
}

static void set(uint64_t view, unsigned tag)
{
	tagtso_tag_set(view, tagtso_tag_in_memory(tag));
}

static void fill(uint64_t view, uint64_t bytes, unsigned tag)
{
	tagtso_tag_fill(view, bytes, tagtso_tag_in_memory(tag));
}

/* Gives the granules of one page whose tag is in the set `from` (bit per tag) a new tag. Returns how many. Page lock held. */
static unsigned retag(uint32_t index, unsigned from, unsigned to)
{
	uint64_t p = tag_view(index), end = p + TAGTSO_PAGE_SIZE;
	int all = tagtso_tag_of_all(p, TAGTSO_PAGE_SIZE);
	unsigned n = 0;

	if (all >= 0) { /* most pages have one owner */
		if (!(from >> tagtso_tag_meant((unsigned)all) & 1))
			return 0;
		fill(p, TAGTSO_PAGE_SIZE, to);
		return GRANULES;
	}
	for (; p != end; p += TAGTSO_GRANULE) {
		if (from >> get(p) & 1) {
			set(p, to);
			n++;
		}
	}
	return n;
}

#define TAGS(tag) (1u << (tag))
#define TAGS_UNDECIDED (TAGS(TAGTSO_TAG_BUSY) | TAGS(TAGTSO_TAG_NONE))

/* --- batches: neighbouring pages that follow in one transition ------------------------------------------------------ */

/* The pages first .. first+n-1, from address va, all locked. */
struct batch {
	uint64_t va;
	uint32_t first, n;
};

/* Where each owner's last batch ended and how long it was: the next adjacent one is twice as long. Advice only; races cost a shorter batch. */
static _Atomic uint64_t last_end[TAGTSO_TAG_LAST + 1];
static _Atomic uint32_t last_len[TAGTSO_TAG_LAST + 1];

static uint32_t batch_want(uint64_t page_va, unsigned me)
{
	uint32_t len = 1;

	if (atomic_load_explicit(&last_end[me], memory_order_relaxed) == page_va)
		len = 2 * atomic_load_explicit(&last_len[me], memory_order_relaxed);
	return len > tagtso_owner_limits.batch ? tagtso_owner_limits.batch : len;
}

static void batch_note(const struct batch *b, unsigned me)
{
	atomic_store_explicit(&last_end[me], b->va + ((uint64_t)b->n << TAGTSO_PAGE_SHIFT), memory_order_relaxed);
	atomic_store_explicit(&last_len[me], b->n, memory_order_relaxed);
}

/* A page that follows is like the first: its first granule has one of the tags `from`, and it may still be handed over. */
static void batch_grow(struct batch *b, uint32_t want, unsigned from, unsigned handovers)
{
	while (b->n < want) {
		uint32_t index = b->first + b->n;
		uint64_t va = b->va + ((uint64_t)b->n << TAGTSO_PAGE_SHIFT);

		if (tagtso_window_index(va) != index)
			return;
		struct tagtso_page *p = &tagtso_window.page[index];

		if (!tagtso_page_trylock(p))
			return;
		if (tagtso_window_index(va) != index || !(p->flags & TAGTSO_PAGE_REACHED) ||
		    p->handovers >= handovers || !(from >> get(tag_view(index)) & 1)) {
			tagtso_page_unlock(p);
			return;
		}
		b->n++;
	}
}

static void batch_unlock(const struct batch *b)
{
	for (uint32_t k = 0; k < b->n; k++)
		tagtso_page_unlock(&tagtso_window.page[b->first + k]);
}

/* True if that changed every granule. */
static bool batch_retag(const struct batch *b, unsigned from, unsigned to)
{
	uint32_t n = 0;

	for (uint32_t k = 0; k < b->n; k++)
		n += retag(b->first + k, from, to);
	return n == b->n * GRANULES;
}

/* --- transitions; the lock of the page is held, and released -------------------------------------------------------- */

/* Between busy and the new tag. The second one is for loads whose data may be older than the check that let them pass (litmus: the second
 * membarrier that LDAPR and STLR need). */
static void end_of_old_owner(void)
{
	tagtso_sys_membarrier();
	if (tagtso_owner_limits.twice)
		tagtso_sys_membarrier();
}

/* The barriers between busy and a new owner's tag. A thread that is the owner has had one of its own when membarrier returns. A CPU may be running
 * another thread by then, whose load may be older than the check that lets it pass, though not than that CPU's last barrier: which was before
 * another CPU's, the old owner's. The second membarrier gives each CPU a barrier after all of the first (test: `a CPU as the owner`). */
static void arrive(void)
{
	tagtso_sys_membarrier();
	if (tagtso_owner_limits.twice || tagtso_cpu.owns)
		tagtso_sys_membarrier();
}

/* Undecided to mine. One membarrier after the tag: shown sound for memory that others reached by ordered accesses only, if the owner is this thread
 * and nobody else. */
static void claim(struct batch *b, unsigned me)
{
	batch_grow(b, batch_want(b->va, me), TAGS_UNDECIDED, 256);
	if (tagtso_cpu.owns) {
		batch_retag(b, TAGS(TAGTSO_TAG_NONE), TAGTSO_TAG_BUSY);
		arrive();
		batch_retag(b, TAGS(TAGTSO_TAG_BUSY), me);
	} else {
		batch_retag(b, TAGS_UNDECIDED, me);
		tagtso_sys_membarrier();
	}
	batch_note(b, me);
	TAGTSO_COUNT(claims);
	TAGTSO_ADD(claimed_pages, b->n);
	for (uint32_t k = 0; k < b->n; k++)
		tagtso_probe_claimed(&tagtso_window.page[b->first + k]);
	batch_unlock(b);
}

static void hand_over(struct batch *b, unsigned from, unsigned me)
{
	batch_grow(b, batch_want(b->va, me), TAGS(from), tagtso_owner_limits.handovers);
	bool all = batch_retag(b, TAGS(from), TAGTSO_TAG_BUSY);

	arrive();
	if (all) /* busy now, and with the locks held they stay it */
		fill(tag_view(b->first), (uint64_t)b->n << TAGTSO_PAGE_SHIFT, me);
	else
		batch_retag(b, TAGS(TAGTSO_TAG_BUSY), me);
	for (uint32_t k = 0; k < b->n; k++)
		tagtso_window.page[b->first + k].handovers++;
	batch_note(b, me);
	TAGTSO_COUNT(handovers);
	TAGTSO_ADD(handed_pages, b->n);
	batch_unlock(b);
}

/* The whole page becomes shared, whoever owned its granules. */
static void revoke_page(uint32_t index)
{
	struct tagtso_page *p = &tagtso_window.page[index];
	unsigned n = retag(index, 0xffff & ~TAGS(TAGTSO_TAG_SHARED) & ~TAGS(TAGTSO_TAG_BUSY), TAGTSO_TAG_BUSY);

	end_of_old_owner();
	retag(index, TAGS(TAGTSO_TAG_BUSY), TAGTSO_TAG_SHARED);
	p->flags |= TAGTSO_PAGE_SHARED | TAGTSO_PAGE_SOME_SHARED;
	TAGTSO_COUNT(revocations);
	TAGTSO_ADD(revoked_granules, n);
}

static void revoke_granule(uint64_t view)
{
	set(view, TAGTSO_TAG_BUSY);
	end_of_old_owner();
	set(view, TAGTSO_TAG_SHARED);
	TAGTSO_COUNT(revocations);
	TAGTSO_COUNT(revoked_granules);
}

static bool neighbour_shared(uint64_t va)
{
	uint32_t before = tagtso_window_index(va - TAGTSO_PAGE_SIZE),
		 after = tagtso_window_index(va + TAGTSO_PAGE_SIZE);

	return (before && (tagtso_window.page[before].flags & TAGTSO_PAGE_SHARED)) ||
	       (after && (tagtso_window.page[after].flags & TAGTSO_PAGE_SHARED));
}

static void revoke_at(uint64_t va, uint32_t index)
{
	struct tagtso_page *p = &tagtso_window.page[index];

	if (++p->conflicts >= tagtso_owner_limits.conflicts || (p->conflicts > 1 && neighbour_shared(va)))
		revoke_page(index);
	else
		revoke_granule(tagtso_window_at(tagtso_window.tags, index, va) & ~(uint64_t)(TAGTSO_GRANULE - 1));
	p->flags |= TAGTSO_PAGE_SOME_SHARED;
	tagtso_probe_failed(p);
	tagtso_probe_note(index);
	tagtso_page_unlock(p);
}

/* A probe is over if nobody has made the page shared again by its next turn: what is known of it from before is out of date then, and sharing it is learnt
 * anew, with hand-overs first. */
static void end_probe(struct tagtso_page *p)
{
	unsigned level = p->probe & TAGTSO_PROBE_LEVEL;

	if (!(p->probe & TAGTSO_PROBE_CLAIMED))
		return; /* nobody has come: it stays undecided */
	p->probe = (uint8_t)(level ? level - 1 : 0);
	p->handovers = 0;
	p->conflicts = 0;
	TAGTSO_COUNT(probes_private);
}

/* Shared to undecided, without a membarrier: all that access it before somebody claims it do so by ordered accesses, which the claimer's own membarrier
 * separates from its plain ones, as on memory that was shared a moment before (litmus: "probe, then claim"). */
static void begin_probe(struct tagtso_page *p, uint32_t index)
{
	retag(index, TAGS(TAGTSO_TAG_SHARED), TAGTSO_TAG_BUSY);
	p->flags &= (uint8_t) ~(TAGTSO_PAGE_SHARED | TAGTSO_PAGE_SOME_SHARED);
	p->probe |= TAGTSO_PROBE_OPEN;
	TAGTSO_COUNT(probes);
}

bool tagtso_owner_probe(uint32_t index)
{
	struct tagtso_page *p = &tagtso_window.page[index];
	bool probed = false;

	if (!tagtso_page_trylock(p))
		return false;
	/* Acquire: pairs with the release of the index entry, before which a new mapping's flags were written. */
	uint64_t va = atomic_load_explicit(&p->va, memory_order_acquire);

	if (p->probe & TAGTSO_PROBE_OPEN) {
		end_probe(p);
	} else if (va && tagtso_window_index(va) == index && (p->flags & TAGTSO_PAGE_REACHED) &&
	           (p->flags & TAGTSO_PAGE_SOME_SHARED) && !(p->flags & TAGTSO_PAGE_KEPT)) {
		begin_probe(p, index);
		probed = true;
	}
	tagtso_page_unlock(p);
	return probed;
}

/* --- the decision ------------------------------------------------------------------------------------------------ */

unsigned tagtso_owner_tag(uint64_t va)
{
	uint32_t index = tagtso_window_index(va);

	return index ? get(tagtso_window_at(tagtso_window.tags, index, va)) : 0;
}

/* One step for a granule that is neither mine nor shared. */
static void take_step(uint64_t va, uint32_t index, unsigned me)
{
	struct tagtso_page *p = &tagtso_window.page[index];
	struct batch b = { .va = va & ~(uint64_t)(TAGTSO_PAGE_SIZE - 1), .first = index, .n = 1 };

	tagtso_page_lock(p);
	unsigned tag = tagtso_window_index(va) == index ? get(tagtso_window_at(tagtso_window.tags, index, va))
	                                                : TAGTSO_TAG_SHARED;

	if (tag == TAGTSO_TAG_SHARED || (me && tag == me))
		tagtso_page_unlock(p); /* settled, or unmapped, by another thread meanwhile */
	else if (me && (TAGS(tag) & TAGS_UNDECIDED))
		claim(&b, me);
	else if (me && p->handovers < tagtso_owner_limits.handovers)
		hand_over(&b, tag, me);
	else
		revoke_at(va, index);
}

/* Until it is mine or shared. */
unsigned tagtso_owner_resolve(uint64_t va, unsigned me)
{
	for (;;) {
		uint32_t index = tagtso_window_index(va);
		unsigned tag = index ? tagtso_owner_settled(index, va, me) : 0;

		if (tag || !index)
			return tag;
		take_step(va, index, me);
	}
}

/* Most pages have one owner, who asks. */
static bool all_mine(uint32_t index, unsigned me)
{
	return me && tagtso_tag_of_all(tag_view(index), TAGTSO_PAGE_SIZE) == (int)me;
}

void tagtso_owner_take(uint64_t va, uint64_t len, unsigned me)
{
	uint64_t end = va + len;

	while (va < end) {
		uint32_t index = tagtso_window_index(va);
		uint64_t next = (va | (TAGTSO_PAGE_SIZE - 1)) + 1;
		bool whole = !(va & (TAGTSO_PAGE_SIZE - 1)) && next <= end;

		if (!index || !(tagtso_window.page[index].flags & TAGTSO_PAGE_REACHED) ||
		    (whole && all_mine(index, me))) {
			va = next;
			continue;
		}
		for (; va < next && va < end; va = (va | (TAGTSO_GRANULE - 1)) + 1)
			tagtso_owner_settle(va, me);
	}
}

void tagtso_owner_give_up(uint64_t va)
{
	uint32_t index = tagtso_window_index(va);

	if (!index)
		return;
	struct tagtso_page *p = &tagtso_window.page[index];

	tagtso_page_lock(p);
	/* The granule alone: LOCK'd operations of an emulator's helpers say nothing about what is beside them. */
	if (tagtso_window_index(va) == index && tagtso_owner_tag(va) != TAGTSO_TAG_SHARED)
		revoke_granule(tagtso_window_at(tagtso_window.tags, index, va) & ~(uint64_t)(TAGTSO_GRANULE - 1));
	tagtso_page_unlock(p);
}

/* Makes one page shared for good. False: it changed meanwhile, look again. */
static bool keep_shared(uint64_t va, uint32_t index)
{
	struct tagtso_page *p = &tagtso_window.page[index];

	if (!(p->flags & TAGTSO_PAGE_REACHED)) {
		bool again = tagtso_window_open(va, 0); /* false: nobody can access it */

		if (tagtso_window_forking())
			tagtso_sys(__NR_sched_yield);
		return !again;
	}
	tagtso_page_lock(p);
	bool here = tagtso_window_index(va) == index && (p->flags & TAGTSO_PAGE_REACHED);

	if (here && !(p->flags & TAGTSO_PAGE_SHARED))
		revoke_page(index);
	if (here)
		p->flags |= TAGTSO_PAGE_KEPT;
	tagtso_page_unlock(p);
	return here;
}

void tagtso_owner_share(uint64_t va, uint64_t len)
{
	uint64_t end = va + len;

	for (va &= ~(uint64_t)(TAGTSO_PAGE_SIZE - 1); va < end; va += TAGTSO_PAGE_SIZE) {
		uint32_t index;

		do
			index = tagtso_window_index(va);
		while (index && !(tagtso_window.page[index].flags & TAGTSO_PAGE_KEPT) && !keep_shared(va, index));
	}
}

/* The window pages under the first and last byte, ascending by index everywhere, so that two accesses cannot wait for each other. */
static unsigned pages_under(uint64_t va, uint64_t len, uint32_t out[2])
{
	uint32_t a = tagtso_window_index(va), b = tagtso_window_index(va + len - 1);
	unsigned n = 0;

	if (a && b && b < a) {
		uint32_t t = a;

		a = b;
		b = t;
	}
	if (a)
		out[n++] = a;
	if (b && b != a)
		out[n++] = b;
	return n;
}

bool tagtso_owner_lock(uint64_t va, uint64_t len)
{
	uint32_t want[2] = { 0 }, now[2] = { 0 };
	unsigned n = pages_under(va, len, want);

	for (unsigned k = 0; k < n; k++)
		tagtso_page_lock(&tagtso_window.page[want[k]]);
	if (n && pages_under(va, len, now) == n && now[0] == want[0] && now[1] == want[1])
		return true;
	for (unsigned k = 0; k < n; k++)
		tagtso_page_unlock(&tagtso_window.page[want[k]]);
	return false;
}

void tagtso_owner_unlock(uint64_t va, uint64_t len)
{
	uint32_t held[2] = { 0 };
	unsigned n = pages_under(va, len, held);

	for (unsigned k = 0; k < n; k++)
		tagtso_page_unlock(&tagtso_window.page[held[k]]);
}
