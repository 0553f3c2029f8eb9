/* SPDX-License-Identifier: MIT */
/* The emulator's generated code and the island space near it. Lookups are handler code; the rest belongs to the
 * patcher and the memory hooks. tagtso_patch_add_code(), tagtso_patch_remove_code() and tagtso_patch_is_code() of
 * patch.h are here too. */
#ifndef TAGTSO_INTERP_CODE_H
#define TAGTSO_INTERP_CODE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "patch.h"

#define TAGTSO_ISLAND_MAGIC 0x6f73742d67617400u /* "\0tag-tso" */

/* An island, with what it says about itself. Behind the header: ncode words of code; norig words as emitted, of the
 * instructions from `pc` on, 0 for those that are not in the island; ncode numbers that say which instruction each
 * code word belongs to (TAGTSO_MAP_ of stretch.h). Written once, by the patcher, before a site can branch to it; its
 * place is used again only when no thread can stand in it any more (reclaim.h).
 *
 * Islands begin at multiples of UNIT and are found by looking for the magic number downwards from a pc. None of their
 * words can look like it: as an instruction 0x67617400 is unallocated, and no map entry has the bits of 0x7400. */
struct tagtso_island {
	uint64_t magic;
	uint64_t pc; /* of orig[0] */
	uint32_t bytes;
	uint16_t ncode, norig;
	_Atomic uint32_t retired; /* 1: there is a later one for this code; patcher to handlers */
	uint32_t reserved;
	uint32_t code[];
};
_Static_assert(sizeof(struct tagtso_island) == 32, "header");
enum { TAGTSO_ISLAND_UNIT = 64 };

static inline unsigned tagtso_island_bytes(unsigned ncode, unsigned norig)
{
	unsigned bytes = (unsigned)sizeof(struct tagtso_island) + 4 * ncode + 4 * norig + 2 * ncode;

	return (bytes + TAGTSO_ISLAND_UNIT - 1) / TAGTSO_ISLAND_UNIT * TAGTSO_ISLAND_UNIT;
}

static inline uint32_t *tagtso_island_orig(const struct tagtso_island *island)
{
	return (uint32_t *)(uintptr_t)(island->code + island->ncode);
}

static inline uint16_t *tagtso_island_map(const struct tagtso_island *island)
{
	return (uint16_t *)(tagtso_island_orig(island) + island->norig);
}

/* The island whose code holds pc, or NULL. Async-signal-safe, lock-free. */
struct tagtso_island *tagtso_code_island(uint64_t pc);

/* Ranges removed so far, and one more. While it stays as it was before a pc was found in generated code, the pc is there.
 * Written by the hooks. */
__attribute__((visibility("hidden"))) extern _Atomic uint32_t tagtso_code_removals;

/* The generated code that holds pc, kept from being removed until tagtso_code_release(); NULL if there is none. */
struct tagtso_code *tagtso_code_hold(uint64_t pc);
void tagtso_code_release(struct tagtso_code *code);

/* The held code itself: [*base, *end). */
void tagtso_code_bounds(struct tagtso_code *code, uint64_t *base, uint64_t *end);
/* Where its islands are: [*base, *end). */
void tagtso_code_islands(struct tagtso_code *code, uint64_t *base, uint64_t *end);

/* A free place for an island of so many bytes near held code, NULL when there is none left, and taking it. Patcher
 * only, as is all that follows about segments. */
struct tagtso_island *tagtso_code_place(struct tagtso_code *code, unsigned bytes);
void tagtso_code_take(struct tagtso_code *code, unsigned bytes);

/* The island space of a range is cut into segments, which are filled one after the other. A full one can be emptied
 * (patch-arm64.c) and, after a grace period (reclaim.h), filled again. Space too small for SEGMENTS pages is one
 * segment, which is never emptied. */
enum { TAGTSO_SEGMENTS = 16, TAGTSO_SEGMENT_NONE = 255 };

/* What segment `number` holds: islands from *from on, one behind the other, up to *to. False if there is no such segment. */
bool tagtso_code_segment(struct tagtso_code *code, unsigned number, uint64_t *from, uint64_t *to);
/* Bytes of island space that were never used or are free again. */
uint64_t tagtso_code_room(struct tagtso_code *code);
/* True if the space can be emptied and is nearly used up: some island had no place, or the last free segment is begun. */
bool tagtso_code_is_short(struct tagtso_code *code);
/* The segment that is being filled, and the one that is being emptied (or NONE). */
unsigned tagtso_code_current(struct tagtso_code *code);
unsigned tagtso_code_emptied(struct tagtso_code *code);
/* From now on `number` is being emptied; then it is free, or as full as before. */
void tagtso_code_begin_emptying(struct tagtso_code *code, unsigned number);
void tagtso_code_cancel_emptying(struct tagtso_code *code);
void tagtso_code_end_emptying(struct tagtso_code *code);
/* Calls fn with each range held, until it returns true. */
void tagtso_code_each(bool (*fn)(struct tagtso_code *code));

/* In the child of fork: whoever held or was changing a range does not exist here. */
void tagtso_code_after_fork(void);

#endif
