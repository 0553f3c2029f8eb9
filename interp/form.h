/* SPDX-License-Identifier: MIT */
/* Encodes the island of a site: LOCAL, SHARED or MIXED. Pure C, builds on any host (I5). */
#ifndef TAGTSO_INTERP_FORM_H
#define TAGTSO_INTERP_FORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memop.h"
#include "site.h"

enum { TAGTSO_ISLAND_WORDS = 28 }; /* code words of one island; with its 16-byte header it fills a 128-byte slot */

/* General-purpose registers that the emulator profile says are dead at every site: two, distinct, not 31. */
struct tagtso_scratch {
	uint8_t a, b;
};

/* Writes the island's words to out[] (room for TAGTSO_ISLAND_WORDS) for the instruction at site_pc, with the island
 * at island_pc; returns their number, or 0 if this instruction has no such form (class, registers that collide with
 * the scratch ones, distance over 128 MB). NZCV is never written. A word that can trap leaves all registers but the
 * two scratch ones as they were before the instruction, so the site can be interpreted from its start. */
unsigned tagtso_form_encode(const struct tagtso_memop *op, enum tagtso_form form, struct tagtso_scratch scratch,
                            uint64_t site_pc, uint64_t island_pc, uint32_t out[TAGTSO_ISLAND_WORDS]);

/* The word for the site: B island. 0 if out of reach. */
uint32_t tagtso_form_branch(uint64_t from, uint64_t to);

#endif
