/* SPDX-License-Identifier: MIT */
/* Puts a function of ours in front of one in the emulator's own text (I5). At start-up, while there is one thread. */
#ifndef TAGTSO_SHIM_DETOUR_H
#define TAGTSO_SHIM_DETOUR_H

#include <stdint.h>

/* One function that is to be preceded. */
struct tagtso_detour {
	uint64_t function; /* its first instruction is exchanged for a branch */
	void *wrapper;     /* gets the arguments of every call of it */
	void *original;    /* what the wrapper calls; set by tagtso_detour_install() */
};

/* Takes hold of the function. 0, or -errno with *what = what failed; then the text is as it was. */
int tagtso_detour_install(struct tagtso_detour *detour, const char **what);

#endif
