/* SPDX-License-Identifier: MIT */
/* The exclusive monitor of a thread whose LL/SC loop can neither be interpreted as one unit nor run elsewhere. Handler code (I4, I6). */
#ifndef TAGTSO_INTERP_MONITOR_H
#define TAGTSO_INTERP_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

#include "exec.h"

/* The granule's 16 bytes as the load-exclusive found them. The store-exclusive is a compare-and-swap of the granule: it succeeds if they are the same
 * (a value that went away and came back does not count, as in tagtso_span_exec), for any size and place within the granule. For another granule it fails,
 * as the architecture lets it (Arm ARM, "Load-Exclusive and Store-Exclusive instruction usage restrictions"). */
struct tagtso_monitor {
	bool held;
	unsigned left;    /* instructions that may be carried out before it is given up */
	uint64_t granule; /* address without a tag */
	uint64_t value[2];
};

/* Carries out load-exclusive `op`, and the monitor is held: DONE, TAG, FAULT, or UNKNOWN if it is not aligned. tag = of the granule. */
enum tagtso_exec tagtso_monitor_load(struct tagtso_monitor *monitor, const struct tagtso_memop *op,
                                     struct tagtso_frame *frame, unsigned tag, struct tagtso_fault *fault);

/* Carries out store-exclusive `op`, and the monitor is open: DONE, with its status, or FAULT; or TAG, and it is held as before. If it is
 * not held the store fails with status 1 and accesses nothing. */
enum tagtso_exec tagtso_monitor_store(struct tagtso_monitor *monitor, const struct tagtso_memop *op,
                                      struct tagtso_frame *frame, unsigned tag, struct tagtso_fault *fault);

/* Carries out ordinary store `op` of the same thread, at `pointer` in the held granule; answers as tagtso_exec. As processors do, the granule goes on being
 * held, now with the stored value, unless another thread has written to these bytes meanwhile. (Where the bytes are not aligned, or of more than
 * one register, it is held as it was: then the store-exclusive fails if they have changed, which processors may do too.) */
enum tagtso_exec tagtso_monitor_write(struct tagtso_monitor *monitor, const struct tagtso_memop *op,
                                      struct tagtso_frame *frame, uint64_t pointer, enum tagtso_order order,
                                      struct tagtso_fault *fault);

#endif
