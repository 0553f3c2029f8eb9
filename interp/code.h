/* SPDX-License-Identifier: MIT */
/* The emulator's generated code and the island space near it. Lookups are handler code; the rest belongs to the
 * patcher and the memory hooks. tagtso_patch_add_code(), tagtso_patch_remove_code(), tagtso_patch_is_code() and
 * tagtso_patch_island_site() of patch.h are here too. */
#ifndef TAGTSO_INTERP_CODE_H
#define TAGTSO_INTERP_CODE_H

#include <stdint.h>

#include "form.h"
#include "patch.h"
#include "site.h"

#define TAGTSO_ISLAND_MAGIC 0x6f73742d67617400u /* "\0tag-tso" */

/* A slot of island space. Written once, by the patcher, before the site can branch to it; never used again for
 * another site while its code is registered, because a thread may stand in it for any time. */
struct tagtso_island {
	uint64_t magic;
	struct tagtso_site *site;
	uint32_t code[TAGTSO_ISLAND_WORDS];
};
_Static_assert(sizeof(struct tagtso_island) == 128, "slots are found by masking the pc");

/* The generated code that holds pc, kept from being removed until tagtso_code_release(); NULL if there is none. */
struct tagtso_code *tagtso_code_hold(uint64_t pc);
void tagtso_code_release(struct tagtso_code *code);

/* The next free slot of held code, NULL when there is none left, and taking it. Patcher only. */
struct tagtso_island *tagtso_code_slot(struct tagtso_code *code);
void tagtso_code_take(struct tagtso_code *code);

/* In the child of fork: whoever held or was changing a range does not exist here. */
void tagtso_code_after_fork(void);

#endif
