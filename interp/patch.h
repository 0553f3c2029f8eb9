/* SPDX-License-Identifier: MIT */
/* Rewrites sites: islands, the second opinion of Capstone, caches, and the one thread that does it outside the
 * handler (I5, I6). */
#ifndef TAGTSO_INTERP_PATCH_H
#define TAGTSO_INTERP_PATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "form.h"
#include "site.h"

enum tagtso_refusal {
	TAGTSO_REFUSED_NOT = 0,
	TAGTSO_REFUSED_FORM,     /* no encoding of this form for this instruction */
	TAGTSO_REFUSED_CAPSTONE, /* the two decoders do not agree */
	TAGTSO_REFUSED_REACH,    /* no island space within 128 MB */
	TAGTSO_REFUSED_WRITE,    /* the code may not be written */
	TAGTSO_REFUSED_STALE,    /* the word at the site is not ours any more: only counted, the site may ask again */
	TAGTSO_REFUSED_FULL,     /* island space is used up until some is free again: the same */
	TAGTSO_REFUSED_BUSY,     /* a handler of the emulator's is looking at the words there: the same */
};

/* Generated code of the emulator: [base, base+size), with island space [islands, islands+islands_size) near it, both
 * writable and executable. Called by the memory hooks; takes no lock that the handler needs. */
int tagtso_patch_add_code(uint64_t base, uint64_t size, uint64_t islands, uint64_t islands_size);
void tagtso_patch_remove_code(uint64_t base, uint64_t size);
/* True if pc is in registered generated code. Async-signal-safe, lock-free. */
bool tagtso_patch_is_code(uint64_t pc);
/* Asks the worker to give `site` the form in site->wanted; if it has that form (recycled code came back with the same
 * word at the same place, so the site traps outside its island), to branch to its island again. Async-signal-safe: a
 * lock-free ring and a futex wake. A full ring drops the request (site->wanted is set back to form, so that it is
 * asked for again at a later trap). */
void tagtso_patch_request(struct tagtso_site *site);

/* Where to go on if a fault at pc is of code that may not be written (the emulator's W^X), or 0. Handler code. */
uint64_t tagtso_patch_recovery(uint64_t pc);

/* Puts the emitted words back where branches of ours are, from 64 bytes before pc to 64 bytes behind it, and begins their sites' scores anew. How many
 * there were, or -1 if one could not be written. Async-signal-safe. */
int tagtso_patch_restore(uint64_t pc);
/* The same, for a handler of the emulator's that is about to look at these words: they stay as they are until tagtso_patch_cover(), which takes what this
 * returned: TAGTSO_EXPOSED_NOTHING where there is no generated code. Waits for no more than one compare-and-swap of the worker's. Async-signal-safe. */
enum { TAGTSO_EXPOSED_NOTHING = 0 };
unsigned tagtso_patch_expose(uint64_t pc);
void tagtso_patch_cover(unsigned exposed);

/* Starts the worker thread (all signals blocked, no guest code): called when the shim wakes, before a second guest
 * thread runs. 0 or -errno. */
/* `stretch`: most instructions that an island takes over, 1 = the access alone. */
int tagtso_patch_start(struct tagtso_scratch scratch, unsigned stretch);
/* Mode relax, where RELAXED is the only form. Written by start-up. */
__attribute__((visibility("hidden"))) extern bool tagtso_patch_relaxes;
/* What the worker does besides, whenever it has no requests: fn() returns for how many nanoseconds it need not be called again. Before start. */
void tagtso_patch_set_idle(uint64_t (*fn)(void));
/* Ends the worker; called when the last guest thread ends, so that the process can end as it would without us. */
void tagtso_patch_stop(void);
/* In the child of fork: the worker does not exist there. */
void tagtso_patch_after_fork(void);
/* Waits until all requests made so far are served; for tests and benchmarks. */
void tagtso_patch_drain(void);

#endif
