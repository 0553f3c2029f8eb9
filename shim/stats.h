/* SPDX-License-Identifier: MIT */
/* Counters: relaxed atomics, safe in the handler. The names come from stats.def. */
#ifndef TAGTSO_SHIM_STATS_H
#define TAGTSO_SHIM_STATS_H

#include <stdatomic.h>
#include <stdint.h>

enum tagtso_stat {
#define STAT(name, unit, text) TAGTSO_STAT_##name,
#include "stats.def"
#undef STAT
	TAGTSO_NSTATS
};

/* Written by every thread, handlers included; read by the report. Values are advice, never decisions. */
__attribute__((visibility("hidden"))) extern _Atomic uint64_t tagtso_stats[TAGTSO_NSTATS];

#define TAGTSO_COUNT(name) TAGTSO_ADD(name, 1)
#define TAGTSO_ADD(name, n) \
	((void)atomic_fetch_add_explicit(&tagtso_stats[TAGTSO_STAT_##name], (uint64_t)(n), memory_order_relaxed))
#define TAGTSO_STAT(name) atomic_load_explicit(&tagtso_stats[TAGTSO_STAT_##name], memory_order_relaxed)

#endif
