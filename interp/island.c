/* SPDX-License-Identifier: MIT */
/* Where a thread stands that was interrupted in an island.
 *
 * Before the access of an instruction a thread has changed scratch registers only, so it can begin again at the
 * emitted instruction; after it, nothing is left to do but barriers, the write-back and a branch (form.h, stretch.h). */
#include "island.h"

#include "stretch.h"

/* DMB: 1101 0101 0000 0011 0011 CRm 1 01 11111 */
static bool is_barrier(uint32_t word)
{
	return (word & UINT32_C(0xfffff0ff)) == UINT32_C(0xd50330bf);
}

/* Behind the signature of a restartable sequence stands where it begins again, which is before the access, and then data. */
void tagtso_island_write(struct tagtso_island *island, uint32_t orig, const uint32_t *words,
                         struct tagtso_scratch scratch)
{
	uint16_t *map = tagtso_island_map(island), done = 0;
	bool restart = false;

	*tagtso_island_orig(island) = orig;
	for (unsigned i = 0; i < island->ncode; i++) {
		bool branch = !restart && tagtso_form_is_branch(words[i]);

		island->code[i] = words[i];
		map[i] = branch ? TAGTSO_MAP_EXIT | TAGTSO_MAP_NONE : done;
		restart |= words[i] == TAGTSO_FORM_SIGNATURE;
		if (branch)
			done = 0;
		else if (!restart && tagtso_form_is_access(words[i], scratch))
			done = TAGTSO_MAP_DONE;
	}
}

void tagtso_island_write_pair(struct tagtso_island *island, uint32_t barrier, uint32_t orig, const uint32_t *words,
                              struct tagtso_scratch scratch)
{
	uint16_t *map;

	tagtso_island_write(island, barrier, words, scratch);
	map = tagtso_island_map(island);
	tagtso_island_orig(island)[1] = orig;
	/* Its first word, where the thread comes from the barrier's place, and the barrier; all else is the access. */
	for (unsigned i = 1; i < island->ncode; i++)
		if (!(map[i] & TAGTSO_MAP_EXIT) && words[i] != barrier)
			map[i] |= 1;
}

static unsigned word_at(const struct tagtso_island *island, uint64_t pc)
{
	return (unsigned)((pc - (uintptr_t)island->code) / 4);
}

struct tagtso_instruction tagtso_island_instruction(const struct tagtso_island *island, uint64_t pc)
{
	unsigned index = tagtso_island_map(island)[word_at(island, pc)] & TAGTSO_MAP_INDEX;

	if (index >= island->norig)
		return (struct tagtso_instruction){ 0 };
	return (struct tagtso_instruction){ island->pc + 4 * (uint64_t)index, tagtso_island_orig(island)[index] };
}

void tagtso_island_leave(const struct tagtso_island *island, unsigned long long *r)
{
	const uint16_t *map = tagtso_island_map(island);
	unsigned at = word_at(island, r[TAGTSO_PC]), here = map[at];

	if (here & TAGTSO_MAP_EXIT) {
		tagtso_alu_step(island->code[at], r);
		return;
	}
	for (; at < island->ncode && (here & TAGTSO_MAP_DONE) && map[at] == here &&
	       !tagtso_form_is_branch(island->code[at]);
	     at++) {
		if (!is_barrier(island->code[at]))
			tagtso_alu_step(island->code[at], r);
	}
	r[TAGTSO_PC] = island->pc + 4 * (uint64_t)(here & TAGTSO_MAP_INDEX) + (here & TAGTSO_MAP_DONE ? 4 : 0);
}

uint64_t tagtso_island_resume(const struct tagtso_island *island, uint64_t pc)
{
	const uint16_t *map = tagtso_island_map(island);
	unsigned at = word_at(island, pc), index = map[at] & TAGTSO_MAP_INDEX;

	/* Acquire: whoever sees that the island is retired finds its successor at the code's own words. */
	if (atomic_load_explicit(&island->retired, memory_order_acquire))
		return 0;
	while (at < island->ncode && (map[at] & TAGTSO_MAP_INDEX) == index)
		at++;
	return at < island->ncode ? (uintptr_t)(island->code + at) : 0;
}
