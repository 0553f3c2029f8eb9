/* SPDX-License-Identifier: MIT */
/* Encodes the island of an LL/SC loop. Pure C, builds on any host (I5).
 *
 * The loop as it is, with another base register for its exclusives. With a, b the scratch registers:
 *
 *        dmb ish
 *        a = base
 *        ldg a, [a]            the granule's tag
 *        irg b, a              my own tag
 *        eor b, b, a
 *        cbz b, 1f
 *        orr b, a, #15<<56     not in mode relax: there shared memory is accessed as emitted
 *        eor b, b, a
 *        cbz b, 1f
 *        a = base              neither mine nor shared: the access traps
 *     1: ldxr x, [a]           checked again by the hardware (I2), as the store is
 *        ...
 *        stxr w, x, [a]
 *        cbnz w, 1b
 *        dmb ish
 *        b site + n            and for each other way out, behind that: dmb ish; b there
 *
 * There is one form for all owners, since x86's LOCK'd operations are full fences on owned memory too (HACKING.md §6). The tag is looked at once, in front of
 * the loop: between the exclusives there is nothing that was not there, so progress is as the processor promises it. When the memory changes hands while a thread
 * goes round, the next exclusive traps: the loop is interpreted, or the store-exclusive fails. */
#include "loop.h"

#include <string.h>

#include "branch.h"
#include "decode.h"
#include "stretch.h"

#define DMB_ISH UINT32_C(0xd5033bbf)
#define RN(r) ((uint32_t)(r) << 5)
#define RM(r) ((uint32_t)(r) << 16)

static void put(struct tagtso_loop *loop, uint32_t word, unsigned map)
{
	loop->map[loop->ncode] = (uint16_t)map;
	loop->code[loop->ncode++] = word;
}

static bool field_is(uint32_t word, unsigned low, unsigned r)
{
	return (word >> low & 31) == r;
}

/* True if the word may read or write general register r: by the fields that its group has (Arm ARM C4.1). What is an immediate or a vector there may be
 * taken for it; then there is no island. */
static bool mentions(uint32_t word, unsigned r)
{
	unsigned group = word >> 25 & 15;

	if (tagtso_branch_is_conditional(word) || tagtso_branch_is_jump(word))
		return tagtso_branch_has_register(word) && field_is(word, 0, r);
	if (field_is(word, 0, r))
		return true;
	if (group == 10 || group == 11) /* hints, barriers, MRS and MSR */
		return false;
	if ((group == 8 || group == 9) && (word & 0x1f800000) == 0x12800000) /* MOVN, MOVZ, MOVK */
		return false;
	if (field_is(word, 5, r))
		return true;
	if ((group == 8 || group == 9) && (word & 0x1f800000) != 0x13800000) /* all but EXTR have no other register */
		return false;
	return field_is(word, 10, r) || field_is(word, 16, r);
}

static bool keeps_scratch(const uint32_t *words, unsigned n, struct tagtso_scratch scratch)
{
	for (unsigned i = 0; i < n; i++)
		if (mentions(words[i], scratch.a) || mentions(words[i], scratch.b))
			return false;
	return true;
}

/* rd = rn, which may be SP. */
static uint32_t move(unsigned rd, unsigned rn)
{
	return rn == 31 ? 0x91000000 | RN(rn) | rd : 0xaa0003e0 | RM(rn) | rd;
}

/* CBZ, to a place that enter() fills in. */
static unsigned put_cbz(struct tagtso_loop *loop, unsigned r)
{
	put(loop, 0xb4000000 | r, 0);
	return loop->ncode - 1;
}

static void enter(struct tagtso_loop *loop, unsigned base, bool relaxed, struct tagtso_scratch scratch)
{
	const uint32_t look = 0xca000000 | RM(scratch.a) | RN(scratch.b) | scratch.b; /* EOR b, b, a */
	unsigned skip[2], n = 0;

	put(loop, DMB_ISH, 0);
	put(loop, move(scratch.a, base), 0);
	put(loop, 0xd9600000 | RN(scratch.a) | scratch.a, 0); /* LDG a, [a] */
	put(loop, tagtso_form_irg(scratch.b, scratch.a), 0);
	put(loop, look, 0);
	skip[n++] = put_cbz(loop, scratch.b);
	if (!relaxed) {
		put(loop, 0xb2480c00 | RN(scratch.a) | scratch.b, 0); /* ORR b, a, #15<<56 */
		put(loop, look, 0);
		skip[n++] = put_cbz(loop, scratch.b);
	}
	put(loop, move(scratch.a, base), 0);
	while (n--)
		loop->code[skip[n]] |= (loop->ncode - skip[n]) << 5;
}

static bool is_exclusive(uint32_t word)
{
	struct tagtso_memop op;

	return tagtso_decode(word, &op) && op.cls >= TAGTSO_LOAD_EX && op.cls <= TAGTSO_STORE_EX_PAIR;
}

/* A way out, for the branch of instruction i, which a thread that leaves before it is out makes again. */
static bool put_exit(struct tagtso_loop *loop, unsigned map, uint64_t to, uint64_t island_pc)
{
	uint32_t branch;

	put(loop, DMB_ISH, map);
	branch = tagtso_form_branch(island_pc + 4 * (uint64_t)loop->ncode, to);
	put(loop, branch, TAGTSO_MAP_EXIT | TAGTSO_MAP_NONE);
	return branch;
}

/* Where branch i of the loop leads, in instructions from the loop's begin. */
static int64_t target_of(const uint32_t *words, unsigned i)
{
	return i + tagtso_branch_distance(words[i]);
}

static bool leaves(const uint32_t *words, unsigned n, unsigned i)
{
	if (!tagtso_branch_is_conditional(words[i]) && !tagtso_branch_is_jump(words[i]))
		return false;
	return target_of(words, i) < 0 || target_of(words, i) > n;
}

bool tagtso_loop_encode(struct tagtso_loop *loop, const uint32_t *words, unsigned n, bool relaxed,
                        struct tagtso_scratch scratch, uint64_t site_pc, uint64_t island_pc)
{
	unsigned base = words[0] >> 5 & 31, body, exits = 0;
	bool reach = tagtso_form_branch(site_pc, island_pc);

	loop->ncode = 0;
	if (!n || n > TAGTSO_LOOP_WORDS || scratch.number || scratch.a > 30 || scratch.b > 30 ||
	    !keeps_scratch(words, n, scratch))
		return false;
	enter(loop, base, relaxed, scratch);
	body = loop->ncode;
	for (unsigned i = 0; i < n; i++)
		put(loop, is_exclusive(words[i]) ? (words[i] & ~RN(31)) | RN(scratch.a) : words[i], i);
	/* What follows the loop, and what branches to there, come to this one: the last instruction is done. */
	reach &= put_exit(loop, TAGTSO_MAP_DONE | (n - 1), site_pc + 4 * (uint64_t)n, island_pc);
	for (unsigned i = 0; i < n; i++) {
		if (!leaves(words, n, i))
			continue;
		if (++exits > TAGTSO_LOOP_EXITS)
			return false;
		loop->code[body + i] = tagtso_branch_with_distance(words[i], (int64_t)loop->ncode - (body + i));
		reach &= put_exit(loop, i, site_pc + (uint64_t)(4 * target_of(words, i)), island_pc);
	}
	return reach;
}
