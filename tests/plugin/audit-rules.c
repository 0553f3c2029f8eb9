/* SPDX-License-Identifier: MIT */
/* The audit plugin's rules: what each access and each tag write must find (audit.c has them in words). */
#include "audit.h"
#include "../../interp/decode.h"
#include "classes.h"

#include <sched.h>
#include <stdlib.h>

_Atomic uint32_t audit_clock = 1;
uint64_t audit_phase = 1000000;

uint32_t audit_tick(void)
{
	uint32_t now = atomic_fetch_add_explicit(&audit_clock, 1, memory_order_seq_cst) + 1;

	if (now == UINT32_MAX) {
		fprintf(stderr, "tagtso: audit plugin: the clock has run out: audit a shorter run\n");
		exit(1);
	}
	return now;
}

static void lock_page(struct page *page)
{
	while (atomic_flag_test_and_set_explicit(&page->lock, memory_order_acquire))
		sched_yield();
}

static void unlock_page(struct page *page)
{
	atomic_flag_clear_explicit(&page->lock, memory_order_release);
}

/* ---- violations ----------------------------------------------------------------------------------------------------- */

static uint64_t seen_key(enum violation kind, const struct insn *insn)
{
	return (uint64_t)insn * VIOLATION_COUNT + kind;
}

static void violation(enum violation kind, struct thread *t, const struct insn *insn, uint64_t va,
                      const struct granule *g)
{
	struct process *p = t->process;
	uint64_t key = seen_key(kind, insn);
	struct thread *other = g->plain_by ? audit_thread(g->plain_by) : NULL;
	struct seen *seen;

	g_mutex_lock(&audit_lock);
	p->kinds[kind]++;
	seen = g_hash_table_lookup(p->violations, &key);
	if (!seen) {
		seen = g_new0(struct seen, 1);
		*seen = (struct seen){ .kind = kind,
			               .insn = insn,
			               .va = va,
			               .thread = t->index,
			               .id = audit_id(t),
			               .tag = g->tag,
			               .was = g->was,
			               .clock = audit_clock,
			               .began = g->began,
			               .plain_at = g->plain_at,
			               .barrier = t->barrier,
			               .other = g->plain_by };
		if (other) {
			seen->other_id = audit_id(other);
			seen->other_barrier = other->barrier;
		}
		g_hash_table_insert(p->violations, g_memdup2(&key, sizeof key), seen);
	}
	seen->count++;
	g_mutex_unlock(&audit_lock);
}

/* ---- the oracle ----------------------------------------------------------------------------------------------------- */

static void close_phase(struct granule *g, struct oracle *o)
{
	if (!g->phase_by)
		return;
	if (g->phase_by == MANY) {
		o->shared_granules++;
	} else {
		o->granules++;
		o->accesses += g->phase_all;
		o->plain += g->phase_plain;
	}
	g->phase_by = 0;
	g->phase_all = g->phase_plain = 0;
}

static void close_whole(struct granule *g, struct oracle *o)
{
	if (!g->whole_by)
		return;
	if (g->whole_by == MANY) {
		o->shared_granules++;
	} else {
		o->granules++;
		o->accesses += g->whole_all;
		o->plain += g->whole_plain;
	}
	g->whole_by = 0;
	g->whole_all = g->whole_plain = 0;
}

static void add_oracle(struct oracle *to, const struct oracle *o)
{
	g_mutex_lock(&audit_lock);
	to->accesses += o->accesses;
	to->plain += o->plain;
	to->granules += o->granules;
	to->shared_granules += o->shared_granules;
	g_mutex_unlock(&audit_lock);
}

/* `counts`: a load or store, which may be executed plainly. */
static void touch(struct thread *t, struct granule *g, bool counts)
{
	struct process *p = t->process;
	uint32_t phase = (uint32_t)(atomic_load_explicit(&p->accesses, memory_order_relaxed) / audit_phase);

	if (g->phase != phase) {
		struct oracle o = { 0 };

		close_phase(g, &o);
		add_oracle(&p->phases, &o);
		g->phase = phase;
	}
	g->phase_by = !g->phase_by || g->phase_by == t->index ? t->index : MANY;
	g->whole_by = !g->whole_by || g->whole_by == t->index ? t->index : MANY;
	if (counts) {
		g->phase_all++;
		g->whole_all++;
	}
}

static void touched_plainly(struct granule *g)
{
	g->phase_plain++;
	g->whole_plain++;
}

enum { LOOP_BYTES = 256 }; /* from the load-exclusive to the store-exclusive of one loop */

/* ---- program order of one thread ------------------------------------------------------------------------------------ */

static bool is_atomic(const struct insn *insn)
{
	return insn->class == CLASS_ATOMIC || insn->excludes;
}

/* What was waiting for its barrier is followed by one, or by another access. */
static void settle(struct thread *t, bool ordered)
{
	struct pending *pending = &t->pending;
	bool atomic = pending->parts && is_atomic(pending->insn);

	for (unsigned i = 0; i < pending->parts; i++) {
		struct part *part = &pending->part[i];
		int stat;

		if (atomic)
			stat = part->own ? (ordered ? STAT_atomic_own_fenced : STAT_atomic_own_bare)
			                 : (ordered ? STAT_atomic_other_fenced : STAT_atomic_other_bare);
		else
			stat = part->own ? (ordered ? STAT_load_own_ordered : STAT_load_own_plain)
			                 : (ordered ? STAT_load_other_ordered : STAT_load_other_plain);
		t->stats[stat]++;
		if (ordered)
			continue;
		lock_page(part->page);
		if (!atomic)
			touched_plainly(part->granule);
		unlock_page(part->page);
		if (part->due)
			violation(atomic ? VIOLATION_UNFENCED_ATOMIC : VIOLATION_UNORDERED_LOAD, t, pending->insn,
			          part->va, part->granule);
	}
	pending->parts = 0;
}

void audit_barrier(struct thread *t, bool loads, bool stores)
{
	if (t->pending.parts && loads && (stores || !t->pending.full))
		settle(t, true);
	if (loads)
		t->loaded = false;
	if (stores)
		t->stored = false;
	if (loads && stores)
		t->accessed = false;
}

/* The load of a loop of exclusives, and the shim's load before its own CAS, are part of the operation that follows on the same granule. */
static bool continues(const struct thread *t, const struct insn *insn, const struct granule *g)
{
	const struct pending *pending = &t->pending;

	return is_atomic(insn) && pending->parts && !pending->full && pending->part[0].granule == g;
}

/* A loop of exclusives goes round: its store failed, and its load, not far before it, comes again. That it did fail cannot be seen from here. */
static bool goes_round(const struct thread *t, const struct insn *insn, const struct granule *g)
{
	const struct pending *pending = &t->pending;
	bool load = insn->op.cls == TAGTSO_LOAD_EX || insn->op.cls == TAGTSO_LOAD_EX_PAIR;

	return load && pending->parts && pending->insn->excludes && pending->part[0].granule == g &&
	       insn->pc < pending->insn->pc && pending->insn->pc - insn->pc < LOOP_BYTES;
}

static void begin(struct thread *t, const struct insn *insn, const struct granule *g)
{
	t->stored_before = t->stored;
	t->loaded_before = t->loaded;
	if (continues(t, insn, g) || goes_round(t, insn, g)) {
		t->pending.parts = 0; /* judged with what follows, which began with it */
		return;
	}
	settle(t, false);
	t->accessed_before = t->accessed;
}

static void wait_for_barrier(struct thread *t, const struct insn *insn, const struct part *part)
{
	struct pending *pending = &t->pending;

	pending->insn = insn;
	pending->full = is_atomic(insn);
	g_assert(pending->parts < PARTS);
	pending->part[pending->parts++] = *part;
}

/* ---- owners --------------------------------------------------------------------------------------------------------- */

static uint32_t later(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* Its accesses, the last of them at `plain_at`, are before whatever comes after `at`: it has had a barrier since, or does not run, which takes it through one.
 * The kernel is on its way to another thread, and sends it no interrupt any more, a while before it is seen to be: a barrier there since the access is
 * enough as long as the thread has not come back. */
static bool passed(const struct thread *a, uint32_t plain_at, uint32_t at)
{
	/* The barrier last: a thread that comes back has its barrier's time written before its processor. */
	bool away = atomic_load(&a->exited) || atomic_load(&a->cpu) < 0, in_kernel = atomic_load(&a->in_kernel);
	uint32_t barrier = atomic_load(&a->barrier);

	return away || barrier > later(plain_at, at) || (in_kernel && barrier > plain_at);
}

/* The transition has not arrived on the processor of a thread that could access the granule as it was before: its access may have been made before it,
 * and be told after. */
static bool is_late(const struct thread *t, const struct granule *g)
{
	unsigned id = audit_id(t);
	bool could = g->was == TAG_SHARED || (id && g->was == id);

	return could && g->tag != id && atomic_load(&t->barrier) < g->began;
}

bool audit_is_active(const struct process *p)
{
	return atomic_load_explicit(&p->leased, memory_order_relaxed) > 1;
}

static void note_plain(struct thread *t, struct granule *g, unsigned tag)
{
	g->plain_by = (uint16_t)t->index;
	g->plain_at = atomic_load(&audit_clock);
	g->plain_tag = (uint8_t)tag;
}

static void judge_others(struct thread *t, const struct insn *insn, uint64_t va, const struct granule *g)
{
	const struct thread *a = audit_thread(g->plain_by);

	/* One CPU's threads have one tag, and the switch between them is a barrier. */
	if (g->plain_tag == g->tag && !atomic_load(&a->exited) && !t->process->cpus)
		violation(VIOLATION_NO_TAG_CHANGE, t, insn, va, g);
	else if (!passed(a, g->plain_at, g->began))
		violation(VIOLATION_NO_BARRIER, t, insn, va, g);
}

/* True if the thread owns the granule. Page lock held. */
static bool judge_owner(struct thread *t, const struct insn *insn, uint64_t va, struct granule *g)
{
	unsigned id = audit_id(t);
	bool late = is_late(t, g), own;
	unsigned tag = late ? g->was : g->tag;

	own = id && tag == id;
	if (tag == TAG_BUSY)
		violation(VIOLATION_BUSY, t, insn, va, g);
	if (tag == TAG_NONE) {
		violation(VIOLATION_UNTAGGED, t, insn, va, g);
		own = !g->plain_by || g->plain_by == t->index;
	}
	if (g->plain_by && g->plain_by != t->index && !late)
		judge_others(t, insn, va, g);
	if (own && !late && atomic_load(&t->barrier) < g->began)
		violation(VIOLATION_OWN_BARRIER, t, insn, va, g);
	if (own)
		note_plain(t, g, tag);
	return own;
}

/* ---- accesses ------------------------------------------------------------------------------------------------------- */

/* The hardware has compared the pointer's tag with the granule's, unless the check was off: our own idea of the tags must agree. */
static void compare_tags(struct thread *t, uint64_t va, const struct granule *g)
{
	unsigned tag = audit_tag_meant(t->process, va >> 56 & 15);

	if (tag == g->tag || is_late(t, g))
		return;
	t->stats[(va >> 56 & 15) == TAG_NONE ? STAT_unchecked : STAT_tag_unexpected]++;
}

static void store_one(struct thread *t, const struct insn *insn, uint64_t va, struct granule *g, bool own)
{
	bool ordered = !t->stored_before || insn->class == CLASS_RELEASE;

	if (!ordered)
		touched_plainly(g);
	t->stats[own ? (ordered ? STAT_store_own_ordered : STAT_store_own_plain)
	             : (ordered ? STAT_store_other_ordered : STAT_store_other_plain)]++;
	if (!own && !ordered)
		violation(VIOLATION_UNORDERED_STORE, t, insn, va, g);
}

/* In relax, as the emulator emitted it: an acquire, or a DMB before it that orders it after the loads before. */
static bool load_is_ordered(const struct thread *t, const struct insn *insn)
{
	return t->process->relaxed && (insn->op.flags & TAGTSO_F_ACQUIRE || !t->loaded_before);
}

/* The same: an AL operation is what it has for a LOCK'd one, and loops of exclusives are its own affair. */
static bool atomic_is_ordered(const struct thread *t, const struct insn *insn)
{
	const unsigned both = TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE;

	return t->process->relaxed && (insn->excludes || (insn->op.flags & both) == both);
}

static void access_one(struct thread *t, const struct insn *insn, uint64_t va, struct page *page, struct granule *g)
{
	bool own = judge_owner(t, insn, va, g), atomic = is_atomic(insn);
	struct part part = { page, g, va, !own || (atomic && insn->compares), own };

	if (!own && (atomic ? atomic_is_ordered(t, insn) : load_is_ordered(t, insn)))
		part.due = false;

	touch(t, g, !atomic);
	if (atomic && part.due && t->accessed_before) {
		part.due = false; /* told now */
		violation(VIOLATION_UNFENCED_ATOMIC, t, insn, va, g);
	}
	if (!atomic && insn->op.flags & TAGTSO_F_STORE)
		store_one(t, insn, va, g, own);
	else if (!atomic && !own && !part.due)
		t->stats[STAT_load_other_ordered]++;
	else
		wait_for_barrier(t, insn, &part);
}

static struct granule *granule_at(struct process *p, uint64_t offset, struct page **page)
{
	*page = audit_page(p, offset);
	return &(*page)->granule[offset / GRANULE % GRANULES];
}

void audit_access(struct thread *t, const struct insn *insn, uint64_t va, enum view view, uint64_t offset)
{
	struct page *page;
	uint64_t at = offset & ~(uint64_t)(GRANULE - 1), end = offset + tagtso_memop_bytes(&insn->op);

	begin(t, insn, granule_at(t->process, at, &page));
	if (view == ALIAS)
		t->stats[STAT_alias]++;
	for (; at < end; at += GRANULE) {
		struct granule *g = granule_at(t->process, at, &page);

		lock_page(page);
		if (view == WINDOW)
			compare_tags(t, va, g);
		access_one(t, insn, va, page, g);
		unlock_page(page);
	}
	t->accessed = true;
	t->loaded |= insn->op.flags & TAGTSO_F_LOAD;
	t->stored |= insn->op.flags & TAGTSO_F_STORE;
	atomic_fetch_add_explicit(&t->process->accesses, 1, memory_order_relaxed);
}

uint64_t audit_slice(void)
{
	return audit_phase / 8 ? audit_phase / 8 : 1;
}

void audit_trapped(struct process *p)
{
	uint64_t slice = atomic_load_explicit(&p->accesses, memory_order_relaxed) / audit_slice();

	atomic_fetch_add_explicit(&p->traps[MIN(slice, SLICES - 1)], 1, memory_order_relaxed);
}

void audit_native(struct thread *t, const struct insn *insn, uint64_t offset)
{
	struct page *page;
	const struct granule *g = granule_at(t->process, offset, &page);

	(void)insn;
	if (g->tag == TAG_SHARED)
		t->stats[STAT_native_shared]++;
	else if (g->tag == TAG_BUSY || g->tag == TAG_NONE)
		t->stats[STAT_native_undecided]++;
	else
		t->stats[g->tag == audit_id(t) ? STAT_native_own : STAT_native_foreign]++;
}

void audit_physical(struct thread *t, uint64_t offset, enum view view, uint64_t physical)
{
	struct page *page = audit_page(t->process, offset);
	uint64_t base = physical & ~(uint64_t)0xfff;

	if (page->seen & 1u << view)
		return;
	lock_page(page);
	if (!page->seen)
		page->physical = base;
	page->seen |= (uint8_t)(1u << view);
	t->stats[STAT_physical_checked]++;
	t->stats[STAT_physical_wrong] += page->physical != base;
	unlock_page(page);
}

/* ---- tags ----------------------------------------------------------------------------------------------------------- */

static void change_tag(struct thread *t, const struct insn *insn, uint64_t va, struct granule *g, unsigned tag)
{
	struct thread *a = g->plain_by ? audit_thread(g->plain_by) : NULL;
	bool continues = g->tag == TAG_BUSY && g->busy_by == t->index;
	/* Since before this transition nobody could access it plainly: that tag was judged when it was written. */
	bool unowned = g->tag == TAG_SHARED || (g->tag == TAG_BUSY && !continues && g->was == TAG_SHARED);

	if (!continues)
		g->began = UNDER_WAY; /* it is written after this, and its writer may be delayed */
	if (tag != TAG_BUSY && a && !passed(a, g->plain_at, unowned ? g->plain_at : g->began))
		violation(VIOLATION_EARLY_TAG, t, insn, va, g);
	if (tag == TAG_BUSY)
		g->busy_by = (uint16_t)t->index;
	if (g->tag != TAG_BUSY)
		g->was = g->tag;
}

void audit_tag(struct thread *t, const struct insn *insn, uint64_t va, uint64_t offset, uint64_t bytes, unsigned tag)
{
	for (uint64_t at = offset & ~(uint64_t)(GRANULE - 1); at < offset + bytes; at += GRANULE) {
		struct page *page = audit_page(t->process, at);
		struct granule *g = &page->granule[at / GRANULE % GRANULES];

		tag = audit_tag_meant(t->process, tag);
		t->stats[STAT_tag_writes]++;
		lock_page(page);
		if (g->tag != tag && audit_is_active(t->process))
			change_tag(t, insn, va, g, tag);
		g->tag = (uint8_t)tag;
		unlock_page(page);
	}
}

void audit_tagged(struct thread *t, uint64_t offset, uint64_t bytes)
{
	uint32_t now = 0;

	for (uint64_t at = offset & ~(uint64_t)(GRANULE - 1); at < offset + bytes; at += GRANULE) {
		struct page *page;
		struct granule *g = granule_at(t->process, at, &page);

		lock_page(page);
		if (g->began == UNDER_WAY)
			g->began = now = now ? now : audit_tick();
		unlock_page(page);
	}
}

static void empty(struct process *p, struct page *page)
{
	struct oracle whole = { 0 }, phases = { 0 };

	lock_page(page);
	for (unsigned i = 0; i < GRANULES; i++) {
		close_phase(&page->granule[i], &phases);
		close_whole(&page->granule[i], &whole);
		page->granule[i] = (struct granule){ .tag = audit_tag_meant(p, TAG_NONE) };
	}
	page->seen = 0;
	unlock_page(page);
	add_oracle(&p->whole, &whole);
	add_oracle(&p->phases, &phases);
}

void audit_punch(struct process *p, uint64_t offset, uint64_t bytes)
{
	for (uint64_t at = offset; at < offset + bytes && at < p->bytes; at += 4096)
		if (p->page[at / 4096])
			empty(p, p->page[at / 4096]);
}

void audit_finish(struct process *p)
{
	audit_punch(p, 0, p->bytes);
}
