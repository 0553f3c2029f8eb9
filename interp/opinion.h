/* SPDX-License-Identifier: MIT */
/* The second opinion: what Capstone says about a word, compared with what our decoder says (I5). Not handler code. */
#ifndef TAGTSO_INTERP_OPINION_H
#define TAGTSO_INTERP_OPINION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memop.h"

enum { TAGTSO_TEXT = 96 }; /* bytes that the longest instruction's text needs */

enum { TAGTSO_AGREED_LOG2 = 9 };

/* One Capstone handle; not for two threads at a time. */
struct tagtso_opinion {
	size_t handle;
	void *insn;                               /* cs_insn * */
	uint32_t agreed[1 << TAGTSO_AGREED_LOG2]; /* words that both understood the same way, by hash; 0 = none */
};

int tagtso_opinion_open(struct tagtso_opinion *opinion); /* 0 or -errno */
void tagtso_opinion_close(struct tagtso_opinion *opinion);

/* Capstone's text of the word at pc: "ldr x0, [x1, #0x10]". False if it knows no such instruction (text is then the
 * word in hexadecimal). */
bool tagtso_opinion_text(struct tagtso_opinion *opinion, uint64_t pc, uint32_t word, char text[TAGTSO_TEXT]);

/* Our text of op at pc, made from the decoder's fields alone as far as they go; the same as Capstone's where both
 * understand the word. False for classes that have none (OTHER, UNKNOWN, PREFETCH). */
bool tagtso_memop_text(const struct tagtso_memop *op, uint64_t pc, char text[TAGTSO_TEXT]);

/* True if Capstone takes the word for one of the DMBs that emulators order accesses by: DMB ISH, ISHLD, ISHST. */
bool tagtso_opinion_is_barrier(struct tagtso_opinion *opinion, uint32_t word, uint64_t pc);

/* Compares texts by the values of their numbers: Capstone prints some in decimal, and some negative ones as large. */
bool tagtso_text_equal(const char *a, const char *b);

/* True if Capstone and the decoder say the same about op.word: mnemonic, registers and their widths, immediates,
 * addressing. Any doubt is a no. Capstone is asked once about simple loads and stores that differ in the numbers of
 * their registers alone. */
bool tagtso_opinion_agrees(struct tagtso_opinion *opinion, const struct tagtso_memop *op, uint64_t pc);

#endif
