/* SPDX-License-Identifier: MIT */
/* Direct branches without a link: B, B.cond, BC.cond, CBZ, CBNZ, TBZ, TBNZ. Pure C. */
#ifndef TAGTSO_INTERP_BRANCH_H
#define TAGTSO_INTERP_BRANCH_H

#include <stdbool.h>
#include <stdint.h>

static inline bool tagtso_branch_is_jump(uint32_t word) /* B */
{
	return (word & UINT32_C(0xfc000000)) == UINT32_C(0x14000000);
}

static inline bool tagtso_branch_is_test(uint32_t word) /* TBZ, TBNZ */
{
	return (word & UINT32_C(0x7e000000)) == UINT32_C(0x36000000);
}

static inline bool tagtso_branch_has_register(uint32_t word) /* CBZ, CBNZ, TBZ, TBNZ: in bits 4:0 */
{
	return (word & UINT32_C(0x7c000000)) == UINT32_C(0x34000000);
}

static inline bool tagtso_branch_is_conditional(uint32_t word)
{
	return (word & UINT32_C(0xff000000)) == UINT32_C(0x54000000) || tagtso_branch_has_register(word);
}

/* Where the word has its distance: the lowest bit, and how many. */
static inline unsigned tagtso_branch_low(uint32_t word)
{
	return tagtso_branch_is_jump(word) ? 0 : 5;
}

static inline unsigned tagtso_branch_width(uint32_t word)
{
	return tagtso_branch_is_jump(word) ? 26 : tagtso_branch_is_test(word) ? 14 : 19;
}

/* In instructions, from the branch. */
static inline int64_t tagtso_branch_distance(uint32_t word)
{
	unsigned low = tagtso_branch_low(word), width = tagtso_branch_width(word);

	return (int64_t)((uint64_t)word << (64 - low - width)) >> (64 - width);
}

/* The same branch with another distance, which must fit. */
static inline uint32_t tagtso_branch_with_distance(uint32_t word, int64_t distance)
{
	unsigned low = tagtso_branch_low(word), width = tagtso_branch_width(word);
	uint32_t mask = ((UINT32_C(1) << width) - 1) << low;

	return (word & ~mask) | ((uint32_t)distance << low & mask);
}

#endif
