/* SPDX-License-Identifier: MIT */
/* Emulator profiles: how to recognise one, which of its memory is the guest's, and what its generated code leaves free. */
#ifndef TAGTSO_SHIM_PROFILE_H
#define TAGTSO_SHIM_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../interp/form.h"

/* Whose memory an mmap call asks for. */
enum tagtso_memory {
	TAGTSO_MEMORY_HOST,  /* the emulator's own, or a library's: left alone */
	TAGTSO_MEMORY_GUEST, /* the guest's: goes into the window if it is private and writable */
	TAGTSO_MEMORY_STACK, /* a guest thread's stack: by TAGTSO_STACKS */
	TAGTSO_MEMORY_CODE,  /* generated code */
};

struct tagtso_mmap {
	uint64_t addr, len;
	int prot, flags, fd;
	int64_t off;
	uint64_t caller; /* where the call returns to */
};

struct tagtso_profile {
	const char *name;
	bool (*recognise)(void); /* NULL: only when asked for by TAGTSO_EMULATOR */
	enum tagtso_memory (*classify)(const struct tagtso_mmap *m);
	bool emits_ordered; /* what `auto` makes of it: relax if true, else enforce */
	bool may_relax;     /* TAGTSO_MODE=relax is taken at its word: it emits ordered accesses, or may do so */
	struct tagtso_scratch scratch; /* dead at every guest memory instruction */
	/* Most instructions of a stretch (interp/stretch.h). More than 1 is a promise: the words of a block do not change in place as long as
	 * threads may run it, no branch but an indirect one leads from one block to another, and a block is written as a whole. */
	unsigned stretch;
	const char *const (*environment)[2]; /* name, value; ends with NULL: set before the emulator reads it */
};

/* By TAGTSO_EMULATOR's index; for `auto` the first that recognises the process, or NULL. */
const struct tagtso_profile *tagtso_profile_find(unsigned emulator);

/* Whether an address is in the text of the main program: the emulator's own. */
bool tagtso_profile_is_text(uint64_t pc);

#endif
