/* SPDX-License-Identifier: MIT */
/* Encodes the island of an LL/SC loop, from its load-exclusive to its last store-exclusive and the branch behind it. Pure C, builds on any host (I5). */
#ifndef TAGTSO_INTERP_LOOP_H
#define TAGTSO_INTERP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "form.h"

enum {
	TAGTSO_LOOP_WORDS = 64, /* most words of a loop, as emitted */
	TAGTSO_LOOP_EXITS = 7,  /* most ways out of it */
	TAGTSO_LOOP_CODE = TAGTSO_LOOP_WORDS + 2 * TAGTSO_LOOP_EXITS + 16,
};

/* True for the instruction with which a loop begins: its site has one form for whoever owns the memory. */
static inline bool tagtso_loop_begins_with(const struct tagtso_memop *op)
{
	return op->cls == TAGTSO_LOAD_EX || op->cls == TAGTSO_LOAD_EX_PAIR;
}

struct tagtso_loop {
	unsigned ncode;
	uint32_t code[TAGTSO_LOOP_CODE];
	uint16_t map[TAGTSO_LOOP_CODE]; /* TAGTSO_MAP_ of stretch.h, by place in the loop */
};

/* words[0..n): a loop that tagtso_span_words() has accepted, at site_pc: only the exclusives access memory, by one base, which nothing writes. `relaxed`: in mode
 * relax, where shared memory is accessed as emitted. False if it has no such island: a word uses a scratch register, too many ways out, out of reach,
 * owners are CPUs. As in form.h, NZCV is written by the emitted instructions alone, and wherever a word can trap all
 * registers but the scratch ones are as before its instruction. */
bool tagtso_loop_encode(struct tagtso_loop *loop, const uint32_t *words, unsigned n, bool relaxed,
                        struct tagtso_scratch scratch, uint64_t site_pc, uint64_t island_pc);

#endif
