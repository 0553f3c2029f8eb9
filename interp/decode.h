/* SPDX-License-Identifier: MIT */
/* A64 word -> struct tagtso_memop. Pure C, no libc, no state: safe in a signal handler and built on any host. */
#ifndef TAGTSO_INTERP_DECODE_H
#define TAGTSO_INTERP_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memop.h"

/* Fills *op for any word. Returns true when op->cls is a class that tagtso_exec() or tagtso_span_exec() carries out, false for TAGTSO_OTHER,
 * UNKNOWN, TAG (op->word and op->cls are still set) and OUT_OF_LINE (and memop.addressing with its fields). */
bool tagtso_decode(uint32_t word, struct tagtso_memop *op);

/* Bytes of memory from the lowest to one past the highest address accessed; 0 for PREFETCH and what is not executed here.
 * ZERO_BLOCK: 64, the only block size that A64 cores with MTE have shipped with; the executor checks DCZID_EL0. */
unsigned tagtso_memop_rare_bytes(const struct tagtso_memop *op);
static inline unsigned tagtso_memop_bytes(const struct tagtso_memop *op)
{
	if (op->cls >= TAGTSO_LOAD && op->cls <= TAGTSO_LOAD_DUP)
		return (unsigned)op->count << op->size;
	return tagtso_memop_rare_bytes(op);
}

/* Short lower-case name of a class, for reports: "load", "store-pair", ... */
const char *tagtso_class_name(unsigned cls);

/* The encoding table (encodings.def), for tests and for the generated documentation. A word that matches a row still comes out
 * UNKNOWN if its registers make it CONSTRAINED UNPREDICTABLE. */
struct tagtso_encoding {
	uint32_t mask, value;
	uint16_t flags;       /* TAGTSO_F_* that all words of the row have */
	uint8_t cls;          /* enum tagtso_class */
	uint8_t format, size; /* decode.c's own: which fields, and where the element size stands */
	const char *name;     /* architecture's mnemonic(s) */
};
extern const struct tagtso_encoding tagtso_encodings[];
extern const size_t tagtso_nencodings;

#endif
