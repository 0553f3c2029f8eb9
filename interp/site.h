/* SPDX-License-Identifier: MIT */
/* Sites: memory instructions of the emulator that have trapped, their decoded form and their score. Handler code. */
#ifndef TAGTSO_INTERP_SITE_H
#define TAGTSO_INTERP_SITE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "memop.h"

enum tagtso_form { TAGTSO_FORM_EMITTED, TAGTSO_FORM_LOCAL, TAGTSO_FORM_SHARED, TAGTSO_FORM_MIXED, TAGTSO_NFORMS };

/* Keyed by (pc, op.word); never freed, since a handler may hold it. One cache line. */
struct tagtso_site {
	_Alignas(64) _Atomic uint64_t pc; /* 0 = unused; written once, before the site can be found */
	_Atomic uint32_t ready; /* 1 when the site can be found; release-written by the inserter, acquire-read by all */
	_Atomic uint8_t form;   /* enum tagtso_form in force; written by the patcher only */
	_Atomic uint8_t
		wanted; /* enum tagtso_form asked for; != form while a request is under way; written by handlers */
	_Atomic uint8_t changes; /* times the form changed; patcher only */
	_Atomic uint8_t refused; /* patcher said no (reason code of patch.h): do not ask again */
	struct tagtso_memop op;  /* 24 bytes */
	_Atomic uint32_t local;  /* traps that were served plain since the last form change; handlers, relaxed */
	_Atomic uint32_t shared; /* traps that were served ordered since the last form change; handlers, relaxed */
	_Atomic uint64_t island; /* code of the last island for this site alone, 0 = none; patcher only */
};
_Static_assert(sizeof(struct tagtso_site) == 64, "one cache line");

/* Reserves address space for `max` sites (a power of two, at most 2^24); pages are populated as they are used. 0 or
 * -errno. */
int tagtso_site_init(uint32_t max);
/* The site of (pc, word), decoding and inserting it at first sight; NULL when the table is full. Lock-free,
 * async-signal-safe. */
struct tagtso_site *tagtso_site_get(uint64_t pc, uint32_t word);
/* Sites inserted so far. */
uint32_t tagtso_site_count(void);
/* Memory that the table and its index occupy, in bytes; looks at each page of the index: for the report. */
uint64_t tagtso_site_bytes(void);
/* True if `site` points at a site that can be found: for pointers read from memory that others may write. Lock-free. */
bool tagtso_site_valid(const struct tagtso_site *site);
/* Calls fn for each ready site; for the report and for tests, not for the handler. */
void tagtso_site_each(void (*fn)(struct tagtso_site *site, void *arg), void *arg);

#endif
