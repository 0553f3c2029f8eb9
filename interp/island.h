/* SPDX-License-Identifier: MIT */
/* Where a thread stands that was interrupted in an island. Pure C, no libc, no state: safe in a signal handler. */
#ifndef TAGTSO_INTERP_ISLAND_H
#define TAGTSO_INTERP_ISLAND_H

#include "alu.h"
#include "site.h"

/* r: TAGTSO_NREGS registers as in alu.h. r[TAGTSO_PC] is in an island of `site`: makes r what it would be in the code as emitted, before its access or after it (I4). Orderings that the
 * island still had to make are left to the caller. */
void tagtso_island_leave(const struct tagtso_site *site, unsigned long long *r);

#endif
