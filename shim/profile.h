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
	/* Takes hold of what no interposed function sees; NULL = nothing. At start-up, before anything is installed. 0, or -errno with *what. */
	int (*attach)(const char **what);
	/* Whether a thread that is created by a call from there is the emulator's own, and never runs guest code; NULL = none is. */
	bool (*own_thread)(uint64_t caller);
};

/* A part of the emulator's text. */
struct tagtso_range {
	uint64_t from, to;
};
static inline bool tagtso_in_range(const struct tagtso_range *range, uint64_t pc)
{
	return pc >= range->from && pc < range->to;
}
/* The function or object that the main program exports by this name; false if there is none. */
bool tagtso_symbol_range(const char *name, struct tagtso_range *range);

/* QEMU's user-mode emulation (qemu-arm64.c). */
bool tagtso_qemu_recognise(void);
enum tagtso_memory tagtso_qemu_classify(const struct tagtso_mmap *m);
int tagtso_qemu_attach(const char **what);
bool tagtso_qemu_own_thread(uint64_t caller);

/* By TAGTSO_EMULATOR's index; for `auto` the first that recognises the process, or NULL. */
const struct tagtso_profile *tagtso_profile_find(unsigned emulator);

/* The text of the main program, with what else is in its executable segment; and whether an address is in it. */
struct tagtso_range tagtso_profile_text(void);
bool tagtso_profile_is_text(uint64_t pc);

#endif
