/* SPDX-License-Identifier: MIT */
/* Executes one instruction that the decoder does not know, out of line between full barriers (I1). Handler code. */
#ifndef TAGTSO_INTERP_OUTOFLINE_H
#define TAGTSO_INTERP_OUTOFLINE_H

#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

/* Reserves the slots. 0 or -errno. */
int tagtso_outofline_init(void);

/* Makes the interrupted thread go on in a slot that holds: DMB ISH; word; DMB ISH; a load that traps. Tag checks are off until that trap. The caller has
 * made the memory shared. False if no slot is free. */
bool tagtso_outofline_enter(ucontext_t *uc, uint32_t word);

/* If pc is in a slot: puts the thread back, to the next instruction when the word was executed (*finished), else to the word itself at its own address,
 * with a real fault to deliver; tag checks are as before. True if it was in a slot. */
bool tagtso_outofline_leave(ucontext_t *uc, bool *finished);

#endif
