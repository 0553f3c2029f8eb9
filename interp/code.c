/* SPDX-License-Identifier: MIT */
/* The emulator's generated code and the island space near it: a table that handlers read without locks.
 *
 * Lookups are handler code (I6). A range is published under a sequence number: odd while it is being changed, and
 * then, for readers, not there. Only hooks change ranges. They wait for the patcher, which holds a range while it
 * writes into it, and never the other way round. */
#include "code.h"

#include <errno.h>
#include <stddef.h>

#include "alloc/window.h"
#include "shim/rank.h"
#include "shim/raw.h"
#include "stretch.h"

#pragma GCC poison malloc free calloc realloc printf fprintf snprintf memcpy memset strlen pthread_mutex_lock

enum { MAX_RANGES = 1024 }; /* box64 makes one of 2 MiB at a time */

struct tagtso_code {
	_Atomic uint32_t sequence; /* even: what follows is as it was; odd: being changed by one hook */
	_Atomic uint32_t holders;  /* 1 while the patcher works here */
	_Atomic uint64_t base;     /* of the code; base == end: not in use */
	_Atomic uint64_t end;
	_Atomic uint64_t islands; /* aligned */
	_Atomic uint64_t islands_end;
	/* The rest is the patcher's; a hook sets it when the range is nobody's yet. */
	uint64_t segment;               /* bytes of each segment but the last, which has what is left */
	uint64_t next[TAGTSO_SEGMENTS]; /* first byte of each that is not used */
	uint8_t segments;               /* how many there are */
	uint8_t current;                /* that is being filled */
	uint8_t emptied;                /* that is being emptied, or NONE */
	bool is_short;                  /* an island had no place since the last time that a segment became free */
};

static struct tagtso_code ranges[MAX_RANGES];
static _Atomic uint32_t in_use; /* ranges[in_use..] were never used; hooks, only grows */

/* Where the last lookup of each kind succeeded; any thread, advice. */
static _Atomic uint32_t recent_code, recent_island;

_Atomic uint32_t tagtso_code_removals = 1;

/* A range as it was at one moment. */
struct view {
	uint64_t base, end, islands, islands_end;
};

static bool look(struct tagtso_code *range, struct view *v)
{
	for (;;) {
		/* Sequentially consistent: against tagtso_patch_remove_code(), which changes it and then looks at
		 * holders. */
		uint32_t sequence = atomic_load(&range->sequence);

		if (sequence & 1)
			return false;
		v->base = atomic_load_explicit(&range->base, memory_order_relaxed);
		v->end = atomic_load_explicit(&range->end, memory_order_relaxed);
		v->islands = atomic_load_explicit(&range->islands, memory_order_relaxed);
		v->islands_end = atomic_load_explicit(&range->islands_end, memory_order_relaxed);
		/* Orders the loads above before the second look: a range that changed meanwhile is looked at again. */
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&range->sequence, memory_order_relaxed) == sequence)
			return v->base != v->end;
	}
}

/* Which of the two parts of a range a lookup is about. */
enum part { CODE, ISLANDS };

static bool holds(const struct view *v, enum part part, uint64_t pc)
{
	return part == CODE ? pc >= v->base && pc < v->end : pc >= v->islands && pc < v->islands_end;
}

/* Without a look at the sequence number: most ranges are passed over by this. One that is being changed may be missed,
 * as it is by look(). */
static bool may_hold(struct tagtso_code *range, enum part part, uint64_t pc)
{
	return pc >= atomic_load_explicit(part == CODE ? &range->base : &range->islands, memory_order_relaxed) &&
	       pc < atomic_load_explicit(part == CODE ? &range->end : &range->islands_end, memory_order_relaxed);
}

/* The range that holds pc, and in *v what it was then. */
static inline struct tagtso_code *find(uint64_t pc, enum part part, struct view *v)
{
	_Atomic uint32_t *recent = part == CODE ? &recent_code : &recent_island;
	uint32_t n = atomic_load_explicit(&in_use, memory_order_acquire);
	uint32_t at = atomic_load_explicit(recent, memory_order_relaxed);

	for (uint32_t i = 0; i < n; i++, at = at + 1 < n ? at + 1 : 0) {
		if (!may_hold(&ranges[at], part, pc) || !look(&ranges[at], v) || !holds(v, part, pc))
			continue;
		if (i)
			atomic_store_explicit(recent, at, memory_order_relaxed);
		return &ranges[at];
	}
	return NULL;
}

bool tagtso_patch_is_code(uint64_t pc)
{
	struct view v;

	return find(pc, CODE, &v) != NULL;
}

/* Bytes of the longest island. */
enum {
	LONGEST =
		sizeof(struct tagtso_island) + 6 * TAGTSO_STRETCH_WORDS + 4 * TAGTSO_STRETCH_WINDOW + TAGTSO_ISLAND_UNIT
};

struct tagtso_island *tagtso_code_island(uint64_t pc)
{
	struct view v;

	if (pc % 4 || !find(pc, ISLANDS, &v))
		return NULL;
	/* Data between blocks may look like a branch to space that no island has: no further than one can be long. */
	uint64_t first = pc - v.islands > LONGEST ? pc - LONGEST : v.islands;

	for (uint64_t at = pc & ~(uint64_t)(TAGTSO_ISLAND_UNIT - 1); at >= first; at -= TAGTSO_ISLAND_UNIT) {
		struct tagtso_island *island = (struct tagtso_island *)(uintptr_t)at;

		if (island->magic == TAGTSO_ISLAND_MAGIC)
			return pc >= (uintptr_t)island->code && pc < (uintptr_t)(island->code + island->ncode) ? island
			                                                                                       : NULL;
	}
	return NULL;
}

/* Makes a range ours to change, if it is not being changed. */
static bool own(struct tagtso_code *range)
{
	uint32_t sequence = atomic_load(&range->sequence);

	return !(sequence & 1) && atomic_compare_exchange_strong(&range->sequence, &sequence, sequence + 1);
}

static void publish(struct tagtso_code *range)
{
	atomic_fetch_add_explicit(&range->sequence, 1, memory_order_release);
}

static void set(struct tagtso_code *range, const struct view *v)
{
	atomic_store_explicit(&range->base, v->base, memory_order_relaxed);
	atomic_store_explicit(&range->end, v->end, memory_order_relaxed);
	atomic_store_explicit(&range->islands, v->islands, memory_order_relaxed);
	atomic_store_explicit(&range->islands_end, v->islands_end, memory_order_relaxed);
}

static uint64_t segment_start(const struct tagtso_code *range, unsigned number)
{
	return atomic_load_explicit(&range->islands, memory_order_relaxed) + number * range->segment;
}

static uint64_t segment_end(const struct tagtso_code *range, unsigned number)
{
	return number + 1u < range->segments ? segment_start(range, number + 1)
	                                     : atomic_load_explicit(&range->islands_end, memory_order_relaxed);
}

/* Segments are pages, so that the memory of an empty one can be given back. */
static void set_segments(struct tagtso_code *range, const struct view *v)
{
	uint64_t bytes = v->islands_end - v->islands;
	bool one = v->islands % TAGTSO_PAGE_SIZE || bytes < (uint64_t)TAGTSO_SEGMENTS * TAGTSO_PAGE_SIZE;

	range->segments = one ? 1 : TAGTSO_SEGMENTS;
	range->segment = one ? bytes : bytes / TAGTSO_SEGMENTS & ~(uint64_t)(TAGTSO_PAGE_SIZE - 1);
	range->current = 0;
	range->emptied = TAGTSO_SEGMENT_NONE;
	range->is_short = false;
	for (unsigned i = 0; i < range->segments; i++)
		range->next[i] = segment_start(range, i);
}

static bool is_free(struct tagtso_code *range)
{
	return atomic_load_explicit(&range->base, memory_order_relaxed) ==
	       atomic_load_explicit(&range->end, memory_order_relaxed);
}

static void grow(uint32_t n)
{
	uint32_t old = atomic_load(&in_use);

	while (old < n && !atomic_compare_exchange_weak(&in_use, &old, n))
		;
}

int tagtso_patch_add_code(uint64_t base, uint64_t size, uint64_t islands, uint64_t islands_size)
{
	const uint64_t unit = TAGTSO_ISLAND_UNIT;
	struct view v = { .base = base, .end = base + size };

	if (!size || v.end < base || islands + islands_size < islands)
		return -EINVAL;
	v.islands = (islands + unit - 1) & ~(unit - 1);
	v.islands_end = (islands + islands_size) & ~(unit - 1);
	for (uint32_t i = 0; i < MAX_RANGES; i++) {
		if (!is_free(&ranges[i]) || !own(&ranges[i]))
			continue;
		if (!is_free(&ranges[i])) {
			publish(&ranges[i]);
			continue;
		}
		set(&ranges[i], &v);
		set_segments(&ranges[i], &v);
		publish(&ranges[i]);
		grow(i + 1);
		return 0;
	}
	return -ENOSPC;
}

static void yield(void)
{
	tagtso_raw(__NR_sched_yield, 0, 0, 0, 0, 0, 0);
}

static void remove_range(struct tagtso_code *range)
{
	static const struct view none;

	TAGTSO_RANK_WAIT(TAGTSO_RANK_CODE, 0);
	while (!own(range))
		yield();
	/* Sequentially consistent, like own() and tagtso_code_hold(): either the patcher sees the change or we see
	 * the patcher. */
	while (atomic_load(&range->holders))
		yield();
	set(range, &none);
	publish(range);
	/* Release: who sees the new number sees that the range is gone. */
	atomic_fetch_add_explicit(&tagtso_code_removals, 1, memory_order_release);
}

void tagtso_patch_remove_code(uint64_t base, uint64_t size)
{
	uint32_t n = atomic_load(&in_use);
	struct view v;

	for (uint32_t i = 0; i < n; i++)
		if (look(&ranges[i], &v) &&
		    ((v.base < base + size && base < v.end) || (v.islands < base + size && base < v.islands_end)))
			remove_range(&ranges[i]);
}

struct tagtso_code *tagtso_code_hold(uint64_t pc)
{
	struct view v;
	struct tagtso_code *range = find(pc, CODE, &v);

	if (!range)
		return NULL;
	atomic_fetch_add(&range->holders, 1);
	TAGTSO_RANK_TOOK(TAGTSO_RANK_CODE, 0);
	if (look(range, &v) && holds(&v, CODE, pc))
		return range;
	tagtso_code_release(range);
	return NULL;
}

void tagtso_code_release(struct tagtso_code *code)
{
	TAGTSO_RANK_GAVE(TAGTSO_RANK_CODE);
	atomic_fetch_sub_explicit(&code->holders, 1, memory_order_release);
}

void tagtso_code_bounds(struct tagtso_code *code, uint64_t *base, uint64_t *end)
{
	*base = atomic_load_explicit(&code->base, memory_order_relaxed);
	*end = atomic_load_explicit(&code->end, memory_order_relaxed);
}

void tagtso_code_islands(struct tagtso_code *code, uint64_t *base, uint64_t *end)
{
	*base = atomic_load_explicit(&code->islands, memory_order_relaxed);
	*end = atomic_load_explicit(&code->islands_end, memory_order_relaxed);
}

/* ---- segments ---- */

static bool is_empty(const struct tagtso_code *code, unsigned number)
{
	return code->next[number] == segment_start(code, number);
}

static unsigned next_empty(const struct tagtso_code *code)
{
	for (unsigned i = 1; i < code->segments; i++) {
		unsigned number = (code->current + i) % code->segments;

		if (is_empty(code, number) && number != code->emptied)
			return number;
	}
	return TAGTSO_SEGMENT_NONE;
}

struct tagtso_island *tagtso_code_place(struct tagtso_code *code, unsigned bytes)
{
	unsigned current = code->current;

	if (segment_end(code, current) - code->next[current] < bytes) {
		unsigned empty = next_empty(code);

		/* What fits into no segment is no reason to empty one. */
		code->is_short |= empty == TAGTSO_SEGMENT_NONE && bytes <= code->segment;
		if (empty == TAGTSO_SEGMENT_NONE || segment_end(code, empty) - code->next[empty] < bytes)
			return NULL;
		code->current = (uint8_t)(current = empty);
	}
	return (struct tagtso_island *)(uintptr_t)code->next[current];
}

void tagtso_code_take(struct tagtso_code *code, unsigned bytes)
{
	code->next[code->current] += bytes;
}

bool tagtso_code_segment(struct tagtso_code *code, unsigned number, uint64_t *from, uint64_t *to)
{
	if (number >= code->segments)
		return false;
	*from = segment_start(code, number);
	*to = code->next[number];
	return true;
}

uint64_t tagtso_code_room(struct tagtso_code *code)
{
	uint64_t room = 0;

	for (unsigned i = 0; i < code->segments; i++)
		if (i == code->current || (is_empty(code, i) && i != code->emptied))
			room += segment_end(code, i) - code->next[i];
	return room;
}

bool tagtso_code_is_short(struct tagtso_code *code)
{
	return code->segments > 1 && (code->is_short || next_empty(code) == TAGTSO_SEGMENT_NONE);
}

unsigned tagtso_code_current(struct tagtso_code *code)
{
	return code->current;
}

unsigned tagtso_code_emptied(struct tagtso_code *code)
{
	return code->emptied;
}

void tagtso_code_begin_emptying(struct tagtso_code *code, unsigned number)
{
	code->emptied = (uint8_t)number;
	code->is_short = false;
}

void tagtso_code_cancel_emptying(struct tagtso_code *code)
{
	code->emptied = TAGTSO_SEGMENT_NONE;
}

void tagtso_code_end_emptying(struct tagtso_code *code)
{
	code->next[code->emptied] = segment_start(code, code->emptied);
	code->emptied = TAGTSO_SEGMENT_NONE;
	code->is_short = false;
}

void tagtso_code_each(bool (*fn)(struct tagtso_code *code))
{
	uint32_t n = atomic_load(&in_use);
	bool over = false;

	for (uint32_t i = 0; i < n && !over; i++) {
		struct tagtso_code *code =
			tagtso_code_hold(atomic_load_explicit(&ranges[i].base, memory_order_relaxed));

		if (!code)
			continue;
		over = fn(code);
		tagtso_code_release(code);
	}
}

void tagtso_code_after_fork(void)
{
	static const struct view none;

	for (uint32_t i = 0; i < MAX_RANGES; i++) {
		if (atomic_load(&ranges[i].holders))
			atomic_store(&ranges[i].holders, 0);
		/* Half emptied, perhaps: it stays full, until it is chosen again. */
		ranges[i].emptied = TAGTSO_SEGMENT_NONE;
		if (atomic_load(&ranges[i].sequence) & 1) {
			set(&ranges[i], &none);
			publish(&ranges[i]);
		}
	}
	atomic_fetch_add_explicit(&tagtso_code_removals, 1, memory_order_release);
}
