/* SPDX-License-Identifier: MIT */
/* Sites: memory instructions of the emulator that have trapped, their decoded form and their score. Handler code. */
#ifndef TAGTSO_INTERP_SITE_H
#define TAGTSO_INTERP_SITE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memop.h"

enum tagtso_form {
	TAGTSO_FORM_EMITTED,
	TAGTSO_FORM_LOCAL,
	TAGTSO_FORM_SHARED,
	TAGTSO_FORM_MIXED,
	TAGTSO_FORM_RELAXED, /* the MIXED of mode relax */
	TAGTSO_NFORMS
};

/* Keyed by (pc, op.word); never freed, since a handler may hold it. One cache line. */
struct tagtso_site {
	_Alignas(64) _Atomic uint64_t pc; /* 0 = unused; written once, before the site can be found */
	/* 0: cannot be found yet; release-written by the inserter, acquire-read by all. Of a load-exclusive: where it trapped last, if that was in the island that
	 * it has first (tagtso_site_armed()), else 1; handlers and the patcher. */
	_Atomic uint32_t ready;
	_Atomic uint8_t form; /* enum tagtso_form in force; written by the patcher only */
	_Atomic uint8_t
		wanted; /* enum tagtso_form asked for; != form while a request is under way; written by handlers */
	_Atomic uint8_t changes; /* times one form replaced another, EMITTED not counted; patcher only */
	_Atomic uint8_t refused; /* patcher said no (reason code of patch.h): do not ask again */
	struct tagtso_memop op;  /* 24 bytes */
	_Atomic uint32_t local;  /* traps that were served plain since the last form change; handlers, relaxed */
	_Atomic uint32_t shared; /* traps that were served ordered since the last form change; handlers, relaxed */
	_Atomic uint64_t island; /* code of the last island for this site alone, 0 = none; patcher only */
	_Atomic uint32_t seen;   /* tagtso_code_removals when pc was found in generated code, 0 = not yet; handlers */
	_Atomic uint32_t
		since; /* when the score was begun or last halved, in ms; 0 = not yet; handlers and the patcher */
};
_Static_assert(sizeof(struct tagtso_site) == 64, "one cache line");

/* What `ready` is for an island with that code: never 0 or 1, since code of islands is aligned to 32 bytes. */
static inline uint32_t tagtso_site_armed(uint64_t code)
{
	return (uint32_t)(code >> 4) | 2;
}

/* When a site's score asks for another form. */
struct tagtso_hysteresis {
	uint32_t local, shared; /* traps of either kind */
	uint32_t flips;         /* times that a form may be replaced by the opposite one, before MIXED */
	uint32_t decay;         /* ms in which the traps must come, 0 = any time */
};

/* The form that the score asks for; the one that it has, if for none. MIXED is final: it serves both. */
enum tagtso_form tagtso_site_wanted(const struct tagtso_site *site, const struct tagtso_hysteresis *h);
/* True if the score took too long to come together: then it is halved, and goes on from `now`. */
bool tagtso_site_fades(struct tagtso_site *site, const struct tagtso_hysteresis *h, uint32_t now);

/* Reserves address space for `max` sites (a power of two, at most 2^24); pages are populated as they are used. 0 or
 * -errno. */
int tagtso_site_init(uint32_t max);
/* The site of (pc, word), decoding and inserting it at first sight; NULL when the table is full. Lock-free,
 * async-signal-safe. */
struct tagtso_site *tagtso_site_get(uint64_t pc, uint32_t word);

/* The sites that trapped last, by their pc: where handlers look first. Advice: any handler writes any of them. */
enum { TAGTSO_RECENT_SITES = 1024 };
__attribute__((visibility("hidden"))) extern _Atomic(struct tagtso_site *) tagtso_recent_sites[TAGTSO_RECENT_SITES];

static inline _Atomic(struct tagtso_site *) *tagtso_site_place(uint64_t pc)
{
	return &tagtso_recent_sites[(pc / 4 ^ pc / 4096) % TAGTSO_RECENT_SITES];
}

static inline struct tagtso_site *tagtso_site_recall(uint64_t pc, uint32_t word)
{
	/* Relaxed: what is read through the pointer depends on it by address, which orders it after (the writer releases). */
	struct tagtso_site *site = atomic_load_explicit(tagtso_site_place(pc), memory_order_relaxed);

	return site && atomic_load_explicit(&site->pc, memory_order_relaxed) == pc && site->op.word == word ? site
	                                                                                                    : NULL;
}

static inline void tagtso_site_remember(struct tagtso_site *site)
{
	uint64_t pc = atomic_load_explicit(&site->pc, memory_order_relaxed);

	atomic_store_explicit(tagtso_site_place(pc), site, memory_order_release);
}

/* The site that was inserted as the n-th, counted from 1; NULL if there is none, or not yet. */
struct tagtso_site *tagtso_site_number(uint32_t n);
/* Sites inserted so far. */
uint32_t tagtso_site_count(void);
/* Memory that the table and its index occupy, in bytes; looks at each page of the index: for the report. */
uint64_t tagtso_site_bytes(void);
/* True if `site` points at a site that can be found: for pointers read from memory that others may write. Lock-free. */
bool tagtso_site_valid(const struct tagtso_site *site);
/* Calls fn for each ready site; for the report and for tests, not for the handler. */
void tagtso_site_each(void (*fn)(struct tagtso_site *site, void *arg), void *arg);

#endif
