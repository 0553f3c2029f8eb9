/* SPDX-License-Identifier: MIT */
/* The words by which the guest's mark program speaks to the count plugin.
 *
 * Writes of a constant to the zero register: without effect on any machine, and no compiler emits them.
 *
 *   31      23 22 21 20                5 4    0
 *   110100101  hw    imm16               Rd         MOVZ Xd, #imm16: hw = 0, Rd = 31 */
#ifndef TAGTSO_TESTS_MARK_H
#define TAGTSO_TESTS_MARK_H

#define MARK_START 0x7a01 /* start a run named by the letters before; ends the run before it */
#define MARK_STOP 0x7a02
#define MARK_LETTER 0x7b00 /* + the letter */

#define MARK_WORD(imm) (0xd280001fu | (unsigned)(imm) << 5)
#define MARK_OF(word) ((word) >> 5 & 0xffff)
#define IS_MARK(word) \
	(((word)&0xffe0001f) == 0xd280001f && \
	 (MARK_OF(word) == MARK_START || MARK_OF(word) == MARK_STOP || MARK_OF(word) >> 8 == MARK_LETTER >> 8))

#endif
