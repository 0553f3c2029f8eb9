/* SPDX-License-Identifier: MIT */
/* Whether the shim is inert, dormant (one thread) or active, and the steps between. */
#ifndef TAGTSO_SHIM_STATE_H
#define TAGTSO_SHIM_STATE_H

#include <stdbool.h>

#include "profile.h"

/* NULL while inert: every hook then does what it does without us. Written once by the constructor, before any other thread. */
extern const struct tagtso_profile *tagtso_profile;
static inline bool tagtso_is_inert(void)
{
	return !tagtso_profile;
}

/* Called before a second thread starts (or anything else begins to share the address space). Does nothing if active already, or inert. */
void tagtso_wake(void);

/* A new guest thread, before it runs guest code; and after its last. */
void tagtso_thread_begin(void);

/* The only thread left, in the child of fork: dormant again. */
void tagtso_sleep_in_child(void);

/* Registers the fork handlers; called early, so that ours run innermost. */
void tagtso_fork_init(void);

/* Looks up real functions. */
void tagtso_memory_init(void);
void tagtso_threads_init(void);

/* Writes the report, once per process. Async-signal-safe enough for _exit from a handler. */
void tagtso_finish(void);

#endif
