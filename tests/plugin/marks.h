/* SPDX-License-Identifier: MIT */
/* Marks a program's own phases for the count plugin (count.c): where it is not loaded, they do nothing. */
#ifndef TAGTSO_TESTS_MARKS_H
#define TAGTSO_TESTS_MARKS_H

#include <stdint.h>

#include "mark.h"

/* One MOVZ and one RET for each letter. */
__asm__(".pushsection .text\n"
        "mark_letters:\n"
        "	.set mark_letter, 0\n"
        "	.rept 256\n"
        "	movz xzr, #0x7b00 + mark_letter\n"
        "	ret\n"
        "	.set mark_letter, mark_letter + 1\n"
        "	.endr\n"
        "	.popsection\n");

extern const uint32_t mark_letters[256][2] __attribute__((visibility("hidden")));

/* A run begins, and the one before it ends. */
static inline void mark_start(const char *label)
{
	for (const char *c = label; *c; c++)
		((void (*)(void))(uintptr_t)mark_letters[(unsigned char)*c])();
	__asm__ volatile(".inst %0" ::"i"(MARK_WORD(MARK_START)) : "memory");
}

static inline void mark_stop(void)
{
	__asm__ volatile(".inst %0" ::"i"(MARK_WORD(MARK_STOP)) : "memory");
}

#endif
