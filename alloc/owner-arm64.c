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
enum { ANY = 255 };                                    /* number of hand-overs */

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

/* Pages of one group, which is TAGTSO_PAGE_GROUP pages that begin at a multiple of that: a bit for each, all locked. */
struct batch {
	uint64_t
		va; /* of the group's first page, wherever that page is: others of the group may be, and those at such addresses are */
	uint32_t first; /* page of the group */
	uint64_t pages;
};

static struct batch batch_of(uint64_t va, uint32_t index)
{
	unsigned k = index % TAGTSO_PAGE_GROUP;

	return (struct batch){ .va = (va & ~(uint64_t)(TAGTSO_PAGE_SIZE - 1)) - ((uint64_t)k << TAGTSO_PAGE_SHIFT),
		               .first = index - k,
		               .pages = UINT64_C(1) << k };
}

static uint32_t batch_size(const struct batch *b)
{
	return (uint32_t)__builtin_popcountll(b->pages);
}

/* for (uint64_t left = b->pages; left; left &= left - 1): the page that it is about. */
static uint32_t batch_page(const struct batch *b, uint64_t left)
{
	return b->first + (uint32_t)__builtin_ctzll(left);
}

/* tagtso_page.moved: how the page last changed hands. Advice, written with the page's lock held and read without.
 *
 *     7    4 3        0
 *   +-------+----------+
 *   | when  | together |   when: in units of TAGTSO_FORGET, modulo 16; together: log2 of the pages that changed hands with it
 *   +-------+----------+
 */
enum { WHENS = 16 };

static unsigned together(uint32_t index)
{
	return atomic_load_explicit(&tagtso_window.page[index].moved, memory_order_relaxed) % WHENS;
}

static unsigned now(void)
{
	return tagtso_owner_limits.forget ? tagtso_sys_now_ms() / tagtso_owner_limits.forget % WHENS : 0;
}

/* It last changed hands so long ago that this says nothing about the next time. (The clock comes round: one page in eight that rested for long is taken
 * for restless.) */
static bool is_settled_down(const struct tagtso_page *p)
{
	unsigned when = atomic_load_explicit(&p->moved, memory_order_relaxed) / WHENS;

	return (now() - when) % WHENS > 1;
}

/* Hand-overs that came one soon after the other. Page lock held. */
static unsigned recent_handovers(struct tagtso_page *p)
{
	if (is_settled_down(p))
		p->handovers = 0;
	return p->handovers;
}

static unsigned log2_up(uint32_t n)
{
	return n < 2 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

static void batch_note(const struct batch *b)
{
	unsigned moved = now() * WHENS + log2_up(batch_size(b));

	for (uint64_t left = b->pages; left; left &= left - 1)
		atomic_store_explicit(&tagtso_window.page[batch_page(b, left)].moved, (uint8_t)moved,
		                      memory_order_relaxed);
}

/* How many pages, by how the page at va last came: as many, and twice as many if nobody wanted it back soon. Shared memory costs each access, so fewer (the
 * square root) become that at once. After a page that has just gone the same way, twice as many as came with that one. */
static uint32_t batch_want(uint64_t va, uint32_t index, unsigned to)
{
	uint32_t before = tagtso_window_index(va - TAGTSO_PAGE_SIZE);
	unsigned log2 = together(index);

	if (to == TAGTSO_TAG_SHARED)
		log2 /= 2;
	else if (is_settled_down(&tagtso_window.page[index]))
		log2++;
	if (before && together(before) >= log2 && get(tag_view(before) + TAGTSO_PAGE_SIZE - TAGTSO_GRANULE) == to)
		log2 = together(before) + 1;
	return UINT32_C(1) << log2 > tagtso_owner_limits.batch ? tagtso_owner_limits.batch : UINT32_C(1) << log2;
}

/* What the other pages of a batch are like: their first granule has one of the tags `from`, and this many recent hand-overs are behind them. */
struct likeness {
	unsigned from, least, most;
};

static void batch_take(struct batch *b, unsigned k, const struct likeness *like)
{
	uint64_t va = b->va + ((uint64_t)k << TAGTSO_PAGE_SHIFT);
	uint32_t index = b->first + k;
	struct tagtso_page *p = &tagtso_window.page[index];

	if (tagtso_window_index(va) != index || !tagtso_page_trylock(p))
		return;
	if (tagtso_window_index(va) == index && (p->flags & TAGTSO_PAGE_REACHED) &&
	    recent_handovers(p) >= like->least && p->handovers <= like->most && like->from >> get(tag_view(index)) & 1)
		b->pages |= UINT64_C(1) << k;
	else
		tagtso_page_unlock(p);
}

/* The pages behind the first, and if these are not enough, those before. */
static void batch_grow(struct batch *b, unsigned to, unsigned from, unsigned least, unsigned most)
{
	struct likeness like = { from, least, most };
	unsigned k = (unsigned)__builtin_ctzll(b->pages), n = k;
	uint32_t want = batch_want(b->va + ((uint64_t)k << TAGTSO_PAGE_SHIFT), b->first + k, to);

	while (batch_size(b) < want && ++n < TAGTSO_PAGE_GROUP)
		batch_take(b, n, &like);
	while (batch_size(b) < want && k--)
		batch_take(b, k, &like);
}

static void batch_unlock(const struct batch *b)
{
	for (uint64_t left = b->pages; left; left &= left - 1)
		tagtso_page_unlock(&tagtso_window.page[batch_page(b, left)]);
}

/* How many granules that changed. */
static uint32_t batch_retag(const struct batch *b, unsigned from, unsigned to)
{
	uint32_t n = 0;

	for (uint64_t left = b->pages; left; left &= left - 1)
		n += retag(batch_page(b, left), from, to);
	return n;
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

/* What nobody owns of the page becomes its new owner's before the barriers that end the old ownership of others; but a CPU's after them. */
static void claim_undecided(uint32_t index, unsigned me)
{
	if (tagtso_cpu.owns)
		retag(index, TAGS(TAGTSO_TAG_NONE), TAGTSO_TAG_BUSY);
	else
		retag(index, TAGS_UNDECIDED, me);
	tagtso_probe_claimed(&tagtso_window.page[index]);
}

/* Undecided to mine. One membarrier after the tag: shown sound for memory that others reached by ordered accesses only, if the owner is this thread
 * and nobody else. */
static void claim(struct batch *b, unsigned me)
{
	batch_grow(b, me, TAGS_UNDECIDED, 0, ANY);
	for (uint64_t left = b->pages; left; left &= left - 1)
		claim_undecided(batch_page(b, left), me);
	if (tagtso_cpu.owns) {
		arrive();
		batch_retag(b, TAGS(TAGTSO_TAG_BUSY), me);
	} else {
		tagtso_sys_membarrier();
	}
	batch_note(b);
	TAGTSO_COUNT(claims);
	TAGTSO_ADD(claimed_pages, batch_size(b));
	batch_unlock(b);
}

/* The old owner's granules of a page. The undecided ones are claimed with them, before any of these is busy too. True if the whole page was the old owner's. */
static bool make_busy(uint32_t index, unsigned from, unsigned me)
{
	uint64_t view = tag_view(index);

	if (tagtso_tag_of_all(view, TAGTSO_PAGE_SIZE) == (int)tagtso_tag_in_memory(from)) {
		fill(view, TAGTSO_PAGE_SIZE, TAGTSO_TAG_BUSY);
		return true;
	}
	claim_undecided(index, me);
	retag(index, TAGS(from), TAGTSO_TAG_BUSY);
	return false;
}

static void hand_over(struct batch *b, unsigned from, unsigned me)
{
	batch_grow(b, me, TAGS(from), 0, tagtso_owner_limits.handovers - 1);
	bool all = true;

	for (uint64_t left = b->pages; left; left &= left - 1)
		all &= make_busy(batch_page(b, left), from, me);
	arrive();
	for (uint64_t left = b->pages; left; left &= left - 1) {
		uint32_t index = batch_page(b, left);

		if (all) /* busy now, and with the locks held they stay it */
			fill(tag_view(index), TAGTSO_PAGE_SIZE, me);
		else
			retag(index, TAGS(TAGTSO_TAG_BUSY), me);
		tagtso_window.page[index].handovers++;
	}
	batch_note(b);
	TAGTSO_COUNT(handovers);
	TAGTSO_ADD(handed_pages, batch_size(b));
	batch_unlock(b);
}

/* Whole pages become shared, whoever owned their granules. */
static void revoke_pages(const struct batch *b)
{
	uint32_t n = batch_retag(b, 0xffff & ~TAGS(TAGTSO_TAG_SHARED) & ~TAGS(TAGTSO_TAG_BUSY), TAGTSO_TAG_BUSY);

	end_of_old_owner();
	batch_retag(b, TAGS(TAGTSO_TAG_BUSY), TAGTSO_TAG_SHARED);
	for (uint64_t left = b->pages; left; left &= left - 1)
		tagtso_window.page[batch_page(b, left)].flags |= TAGTSO_PAGE_SHARED | TAGTSO_PAGE_SOME_SHARED;
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

static bool is_contested(const struct tagtso_page *p, uint64_t va)
{
	return p->conflicts >= tagtso_owner_limits.conflicts || (p->conflicts > 1 && neighbour_shared(va));
}

/* What has gone to and fro with this page is wanted by both, as this is, and is not tried granule by granule. */
static void revoke_at(uint64_t va, uint32_t index, struct batch *b, unsigned from)
{
	struct tagtso_page *p = &tagtso_window.page[index];
	unsigned least = tagtso_owner_limits.handovers;

	if (p->conflicts < UINT8_MAX)
		p->conflicts++;
	if (tagtso_owner_limits.conflicts <= UINT8_MAX)
		batch_grow(b, TAGTSO_TAG_SHARED, TAGS(from), least ? least : 1, ANY);
	if (batch_size(b) > 1 || is_contested(p, va)) {
		revoke_pages(b);
		batch_note(b);
	} else {
		revoke_granule(tagtso_window_at(tagtso_window.tags, index, va) & ~(uint64_t)(TAGTSO_GRANULE - 1));
	}
	for (uint64_t left = b->pages; left; left &= left - 1) {
		index = batch_page(b, left);
		p = &tagtso_window.page[index];
		p->flags |= TAGTSO_PAGE_SOME_SHARED;
		tagtso_probe_failed(p);
		tagtso_probe_note(index);
	}
	batch_unlock(b);
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
	struct batch b = batch_of(va, index);

	tagtso_page_lock(p);
	unsigned tag = tagtso_window_index(va) == index ? get(tagtso_window_at(tagtso_window.tags, index, va))
	                                                : TAGTSO_TAG_SHARED;

	if (tag == TAGTSO_TAG_SHARED || (me && tag == me))
		tagtso_page_unlock(p); /* settled, or unmapped, by another thread meanwhile */
	else if (me && (TAGS(tag) & TAGS_UNDECIDED))
		claim(&b, me);
	else if (me && recent_handovers(p) < tagtso_owner_limits.handovers)
		hand_over(&b, tag, me);
	else
		revoke_at(va, index, &b, tag);
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

	if (here && !(p->flags & TAGTSO_PAGE_SHARED)) {
		struct batch b = batch_of(va, index);

		revoke_pages(&b);
	}
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
