/* SPDX-License-Identifier: MIT */
/* Where a thread stands that was interrupted in an island. Handler code. */
#ifndef TAGTSO_INTERP_ISLAND_H
#define TAGTSO_INTERP_ISLAND_H

#include <stdint.h>

#include "alu.h"
#include "code.h"
#include "form.h"

/* Fills an island for one access: the words of its form (tagtso_form_encode), and what is to be known of them. The header is set already. */
void tagtso_island_write(struct tagtso_island *island, uint32_t orig, const uint32_t *words,
                         struct tagtso_scratch scratch);

/* The same for two instructions, a DMB and the access behind it. Left before the access, the thread is at the access, past the DMB, which whoever made it
 * leave has to execute in its place. */
void tagtso_island_write_pair(struct tagtso_island *island, uint32_t barrier, uint32_t orig, const uint32_t *words,
                              struct tagtso_scratch scratch);

/* An instruction of the emulator's. */
struct tagtso_instruction {
	uint64_t pc;
	uint32_t word; /* as emitted */
};

/* The instruction that the island's code word at pc belongs to; pc = 0 for a branch out of the island. */
struct tagtso_instruction tagtso_island_instruction(const struct tagtso_island *island, uint64_t pc);

/* r (tagtso_alu_step's, pc in the island) becomes what it is at a point of the emitted code: at the instruction if its
 * access is still to come, behind it if it is done, its write-back included. */
void tagtso_island_leave(const struct tagtso_island *island, unsigned long long *r);

/* Where the code goes on in the island when the instruction of the code word at pc has been interpreted; 0 if it shall
 * go on in the emitted code. */
uint64_t tagtso_island_resume(const struct tagtso_island *island, uint64_t pc);

#endif
