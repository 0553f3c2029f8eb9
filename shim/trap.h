/* SPDX-License-Identifier: MIT */
/* The SIGSEGV and SIGBUS handler (HACKING.md §5). */
#ifndef TAGTSO_SHIM_TRAP_H
#define TAGTSO_SHIM_TRAP_H

#include <signal.h>
#include <stdint.h>

#include "../interp/site.h"

/* Instructions that the decoder did not know, for the report. A slot is taken by compare-and-swap on `word`. */
enum { TAGTSO_UNKNOWN_WORDS = 64 };
struct tagtso_unknown {
	_Atomic uint32_t word;
	_Atomic uint32_t count;
};
extern struct tagtso_unknown tagtso_unknown[TAGTSO_UNKNOWN_WORDS];

/* Written by start-up. */
__attribute__((visibility("hidden"))) extern struct tagtso_hysteresis tagtso_hysteresis;

void tagtso_trap(int signo, siginfo_t *info, void *context);

#endif
