/* SPDX-License-Identifier: MIT */
/* Encodes the island of a site: LOCAL, SHARED, MIXED or RELAXED. Pure C, builds on any host (I5). */
#ifndef TAGTSO_INTERP_FORM_H
#define TAGTSO_INTERP_FORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memop.h"
#include "site.h"

enum { TAGTSO_ISLAND_WORDS = 48 }; /* most code words for one access */

/* General-purpose registers that the emulator profile says are dead at every site: distinct, not 31. */
struct tagtso_scratch {
	uint8_t a, b;
	uint8_t c; /* a third, 0 = none: stretches keep tagged bases in them (stretch.h) */
	/* Policy `cpu`: where the thread's struct rseq is, from its thread pointer, and the place in it of the number that counts (alloc/cpu.h); number 0:
	 * the owner is a thread. LOCAL and MIXED are restartable sequences then, and there are no stretches. */
	uint8_t number;
	int32_t area;
};

/* What the kernel wants to see in front of the place where it sends a thread from a restartable sequence. No other word of an island is like it, and
 * behind it there is that place's one instruction, and data. */
#define TAGTSO_FORM_SIGNATURE UINT32_C(0xd428bc00)

/* Writes the island's words to out[] (room for TAGTSO_ISLAND_WORDS) for the instruction at site_pc, with the island
 * at island_pc; returns their number, or 0 if this instruction has no such form (class, registers that collide with
 * the scratch ones, distance over 128 MB). NZCV is never written. A word that can trap leaves all registers but the
 * two scratch ones as they were before the instruction, so the site can be interpreted from its start. */
unsigned tagtso_form_encode(const struct tagtso_memop *op, enum tagtso_form form, struct tagtso_scratch scratch,
                            uint64_t site_pc, uint64_t island_pc, uint32_t out[TAGTSO_ISLAND_WORDS]);

/* RELAXED for the instruction and the DMB before it (0: none), whose place the island takes too. */
unsigned tagtso_form_encode_pair(const struct tagtso_memop *op, uint32_t barrier, enum tagtso_form form,
                                 struct tagtso_scratch scratch, uint64_t site_pc, uint64_t island_pc,
                                 uint32_t out[TAGTSO_ISLAND_WORDS]);
/* True if `word` is a DMB that, right before the instruction, is what orders it: it is not ordered by itself. */
bool tagtso_form_is_barrier_for(uint32_t word, const struct tagtso_memop *op);

/* The parts of a form, for accesses in the middle of other code (stretch.h). */

/* True if the instruction has forms with these scratch registers. */
bool tagtso_form_possible(const struct tagtso_memop *op, struct tagtso_scratch scratch);
/* SHARED or MIXED, with the instruction that follows in the place of B site+4. Changes a and b. */
unsigned tagtso_form_inside(const struct tagtso_memop *op, enum tagtso_form form, struct tagtso_scratch scratch,
                            uint32_t out[TAGTSO_ISLAND_WORDS]);
/* The emitted access, without write-back, by register `base`: rn with another tag; where addressing is by register
 * offset, what tagtso_form_sum() makes. */
uint32_t tagtso_form_access(const struct tagtso_memop *op, unsigned base);
/* The same access with its address in rn + `tag`, without write-back; 0 if it has no such encoding, or an offset in its own. */
uint32_t tagtso_form_access_plus(const struct tagtso_memop *op, unsigned tag);
/* True if the access needs DMB ISH on both sides, whoever owns the memory. */
bool tagtso_form_fences(const struct tagtso_memop *op);
/* base = rn + offset, for addressing by register offset. */
uint32_t tagtso_form_sum(const struct tagtso_memop *op, unsigned base);
/* What write-back does to the base, to out[]; returns the number of words: 0, 1 or 2. */
unsigned tagtso_form_writeback(const struct tagtso_memop *op, uint32_t out[2]);
/* True for a word that is the access itself, of whatever form; the others of an island only prepare or follow it: those that access memory too do it
 * by way of scratch.b, which no access has as its base. */
bool tagtso_form_is_access(uint32_t word, struct tagtso_scratch scratch);
/* IRG rd, rn: rn with this thread's own tag. Register 31 as rn is SP. */
uint32_t tagtso_form_irg(unsigned rd, unsigned rn);

/* The word for the site: B island. 0 if out of reach. */
uint32_t tagtso_form_branch(uint64_t from, uint64_t to);
/* True for any B: what tagtso_form_branch() makes, and the emulator's own. */
static inline bool tagtso_form_is_branch(uint32_t word)
{
	return (word & UINT32_C(0xfc000000)) == UINT32_C(0x14000000);
}

/* Where a B at pc leads; 0 for any other word. */
static inline uint64_t tagtso_form_target(uint64_t pc, uint32_t word)
{
	int64_t offset = (int64_t)((uint64_t)word << 38) >> 36;

	return tagtso_form_is_branch(word) ? pc + (uint64_t)offset : 0;
}

#endif
