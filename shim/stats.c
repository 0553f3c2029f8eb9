/* SPDX-License-Identifier: MIT */
/* Storage of the counters of stats.def. */
#include "stats.h"

_Atomic uint64_t tagtso_stats[TAGTSO_NSTATS];
