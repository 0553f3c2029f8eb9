/* SPDX-License-Identifier: MIT */
/* Encodes a stretch: an island that takes over the code around an access, so that the branch to it and back is paid
 * once for many accesses, or once for a loop, and one IRG serves all accesses by the same base. Pure C (I5). */
#ifndef TAGTSO_INTERP_STRETCH_H
#define TAGTSO_INTERP_STRETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "form.h"

enum {
	TAGTSO_STRETCH_WINDOW = 512, /* instructions that are looked at */
	TAGTSO_STRETCH_MOST = 256,   /* instructions that are taken over */
	TAGTSO_STRETCH_WORDS = 1536, /* code words */
	TAGTSO_STRETCH_MEMO = 2048,  /* words whose meaning is kept */
};

/* Where a code word of an island belongs to: the number of an instruction, and: */
enum {
	TAGTSO_MAP_INDEX = 0x03ff,
	TAGTSO_MAP_DONE = 0x8000, /* behind the instruction's access: what is left are barriers, write-back, a branch */
	TAGTSO_MAP_EXIT = 0x4000, /* B to emitted code; no instruction */
	TAGTSO_MAP_NONE = TAGTSO_MAP_INDEX,
};

/* stretch.c's own. All zero: the word 0 is no access. */
struct tagtso_stretch_memo {
	struct tagtso_memop op; /* op.word: the word */
	uint8_t kind;
};

/* Set by the caller: the first five, and `memo` to zero before the first use. */
struct tagtso_stretch {
	uint64_t pc;                           /* of words[0] */
	unsigned n;                            /* words that can be read, at most TAGTSO_STRETCH_WINDOW */
	uint32_t words[TAGTSO_STRETCH_WINDOW]; /* the code as emitted */
	uint8_t form[TAGTSO_STRETCH_WINDOW];   /* enum tagtso_form of the access; EMITTED: it stays as it is */
	bool entrance[TAGTSO_STRETCH_WINDOW];  /* the code's own word will branch to this instruction */

	bool taken[TAGTSO_STRETCH_WINDOW];             /* what tagtso_stretch_plan() has chosen */
	bool head[TAGTSO_STRETCH_WINDOW];              /* a branch in the stretch leads back to here */
	uint8_t kind[TAGTSO_STRETCH_WINDOW];           /* stretch.c's own, of those taken */
	struct tagtso_memop op[TAGTSO_STRETCH_WINDOW]; /* of the accesses taken */
	struct tagtso_stretch_memo memo[TAGTSO_STRETCH_MEMO];
	unsigned first, end; /* taken[first..end) has all that are taken */

	unsigned ncode; /* what tagtso_stretch_encode() has made */
	uint32_t code[TAGTSO_STRETCH_WORDS];
	uint16_t map[TAGTSO_STRETCH_WORDS];    /* counted from `first` */
	uint16_t at[TAGTSO_STRETCH_WINDOW];    /* code word of an instruction taken */
	uint16_t enter[TAGTSO_STRETCH_WINDOW]; /* code word of an entrance */
};

/* Where the code goes after a word; *distance: of a branch or jump, in instructions. */
enum tagtso_flow { TAGTSO_FLOW_ON, TAGTSO_FLOW_BRANCH, TAGTSO_FLOW_JUMP, TAGTSO_FLOW_AWAY };
enum tagtso_flow tagtso_stretch_flow(uint32_t word, int64_t *distance);

/* Chooses what is reached from the entrances, at most `most` instructions, nearest first. True if a stretch is worth
 * having: more than one access has a form, or the code goes round in it. */
bool tagtso_stretch_plan(struct tagtso_stretch *s, unsigned most, struct tagtso_scratch scratch);

/* Writes the code for the island at island_pc. False if it does not fit or is out of reach. As in form.h: NZCV is not
 * written but by the emitted instructions, and wherever a word can trap all registers but the scratch ones are as
 * before its instruction. */
bool tagtso_stretch_encode(struct tagtso_stretch *s, struct tagtso_scratch scratch, uint64_t island_pc);

#endif
