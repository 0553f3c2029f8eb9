/* SPDX-License-Identifier: MIT */
/* Where a thread stands that was interrupted in an island.
 *
 * An island is up to three paths, each of which ends in B (form.h). Before the access of its path a thread has changed the scratch registers
 * only, so it can begin again at the site; after it, nothing is left to do but barriers, the write-back and the branch. */
#include "island.h"

#include <stdbool.h>

#include "code.h"
#include "decode.h"

static bool is_branch(uint32_t word)
{
	return (word & UINT32_C(0xfc000000)) == UINT32_C(0x14000000);
}

/* DMB: 1101 0101 0000 0011 0011 CRm 1 01 11111 */
static bool is_barrier(uint32_t word)
{
	return (word & UINT32_C(0xfffff0ff)) == UINT32_C(0xd50330bf);
}

/* LDG is none: to the decoder it is an instruction that it leaves alone. */
static bool is_access(uint32_t word)
{
	struct tagtso_memop op;

	return tagtso_decode(word, &op);
}

static bool has_accessed(const uint32_t *code, unsigned at)
{
	while (at > 0 && !is_branch(code[at - 1])) {
		if (is_access(code[--at]))
			return true;
	}
	return false;
}

void tagtso_island_leave(const struct tagtso_site *site, unsigned long long *r)
{
	uint64_t pc = atomic_load_explicit(&site->pc, memory_order_relaxed);
	const struct tagtso_island *island =
		(const struct tagtso_island *)(uintptr_t)(r[TAGTSO_PC] & ~(uint64_t)(sizeof(*island) - 1));
	unsigned at = (unsigned)((r[TAGTSO_PC] - (uintptr_t)island->code) / 4);

	if (!has_accessed(island->code, at)) {
		r[TAGTSO_PC] = pc;
		return;
	}
	for (; at < TAGTSO_ISLAND_WORDS && !is_branch(island->code[at]); at++) {
		if (!is_barrier(island->code[at]))
			tagtso_alu_step(island->code[at], r);
	}
	r[TAGTSO_PC] = pc + 4;
}
