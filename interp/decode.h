/* SPDX-License-Identifier: MIT */
/* A64 word -> struct tagtso_memop. Pure C, no libc, no state: safe in a signal handler and built on any host. */
#ifndef TAGTSO_INTERP_DECODE_H
#define TAGTSO_INTERP_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memop.h"

/* Fills *op for any word. Returns true when op->cls is a class that can be executed,
 * false for TAGTSO_OTHER and TAGTSO_UNKNOWN (op->word and op->cls are still set). */
bool tagtso_decode(uint32_t word, struct tagtso_memop *op);

/* Bytes of memory from the lowest to one past the highest address accessed; 0 for PREFETCH.
 * ZERO_BLOCK: 64, the only block size that A64 cores with MTE have shipped with; the executor checks DCZID_EL0. */
unsigned tagtso_memop_bytes(const struct tagtso_memop *op);

/* Short lower-case name of a class, for reports: "load", "store-pair", ... */
const char *tagtso_class_name(unsigned cls);

/* The encoding table, for tests and for the generated documentation. */
struct tagtso_encoding {
	uint32_t mask, value;
	uint8_t cls;
	const char *name; /* architecture's mnemonic(s) */
};
extern const struct tagtso_encoding tagtso_encodings[];
extern const size_t tagtso_nencodings;

#endif
