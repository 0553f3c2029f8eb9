/* SPDX-License-Identifier: MIT */
/* One-line messages on standard error and the formatter behind them. Handler code (I6): no libc, no lock, no allocation. */
#ifndef TAGTSO_SHIM_SAY_H
#define TAGTSO_SHIM_SAY_H

#include <stdarg.h>
#include <stddef.h>

#include "knobs.h"

/* Formats into buffer (always terminated if size > 0) and returns the length without the terminator, cut to size - 1.
 * Knows %s %c %d %u %x %lx %ld %lu %zu %p %%; a width from 1 to 99 and a leading 0 for %x and %lx (%08x); nothing else. */
size_t tagtso_format(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
size_t tagtso_vformat(char *buffer, size_t size, const char *format, va_list arguments)
	__attribute__((format(printf, 3, 0)));

/* "tagtso: <line>\n" on standard error, in one write. Longer lines are cut. Keeps errno. */
void tagtso_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same if TAGTSO_VERBOSE is at least level; the arguments are not evaluated otherwise. */
#define TAGTSO_SAY(level, ...) ((void)(tagtso_knobs.verbose >= (level) ? tagtso_say(__VA_ARGS__) : (void)0))

/* For states that cannot be: says so and ends the process by SIGABRT, whatever handler it has. */
_Noreturn void tagtso_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --enable-debug: dies where the condition does not hold. */
#ifdef TAGTSO_DEBUG
#define TAGTSO_ASSERT(condition) \
	((condition) ? (void)0 \
	             : tagtso_die("%s:%d: %s: does not hold: please report it", __FILE__, __LINE__, #condition))
#else
#define TAGTSO_ASSERT(condition) ((void)sizeof(condition))
#endif

#endif
