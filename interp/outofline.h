/* SPDX-License-Identifier: MIT */
/* Executes one instruction as it is, out of line between full barriers: what tagtso_exec() does not carry out (I1). Handler code. */
#ifndef TAGTSO_INTERP_OUTOFLINE_H
#define TAGTSO_INTERP_OUTOFLINE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "exec.h"
#include "loop.h"
#include "monitor.h"

/* Reserves the slots. 0 or -errno. */
int tagtso_outofline_init(void);

/* Calls `range` for memory (addresses without a tag) that holds everything op, which faulted at `fault`, may access; more than that where it is not known
 * exactly, and for classes that are not OUT_OF_LINE as for REACH_NEAR. */
void tagtso_outofline_reach(const struct tagtso_memop *op, const struct tagtso_frame *frame, uint64_t fault,
                            void (*range)(uint64_t va, uint64_t len, void *argument), void *argument);

/* Makes the window's pages among these shared for good, so that op may access them without checks (I1). */
void tagtso_outofline_share(const struct tagtso_memop *op, const struct tagtso_frame *frame, uint64_t fault);

/* Makes the interrupted thread go on in a slot that holds: word; DMB ISH; a load that traps. Tag checks are off until that trap, unless `checked`: then the caller
 * has made the memory shared. The slot keeps *monitor. False if no slot is free. */
bool tagtso_outofline_enter(ucontext_t *uc, uint32_t word, bool checked, const struct tagtso_monitor *monitor);

/* Whether a word does the same anywhere and comes back: no branch, no exception, nothing relative to pc, no access of memory by its own address. */
bool tagtso_outofline_may_move(uint32_t word);

/* The same with a whole LL/SC loop, the `count` words from the interrupted pc on, of which only the exclusives access memory (tagtso_span_words). It runs until the
 * code leaves it. False if no slot is free, or the loop has too many ways out. */
bool tagtso_outofline_enter_loop(ucontext_t *uc, const uint32_t *words, unsigned count);

/* Where the slots are; written by init. */
__attribute__((visibility("hidden"))) extern struct tagtso_slots {
	uint64_t from, bytes;
} tagtso_slots;
static inline bool tagtso_outofline_holds(uint64_t pc)
{
	return pc - tagtso_slots.from < tagtso_slots.bytes;
}

/* If pc is in a slot: puts the thread back, to the next instruction when the word was executed (*finished), else to the word itself at its own address,
 * with a real fault to deliver; tag checks are as before. True if it was in a slot.
 * In a loop: to where the code left it (*finished), else to the same place of the loop itself.
 * A sequence of MOPS that has moved to another kind of core is begun again by the kernel: *finished, at its prologue.
 * *info, NULL if there is none, has the address of the instruction where the signal is one that gives it (GCSSTR and LDRAA fault so).
 * *monitor is what the slot kept, NULL if nobody asks: a monitor that is not asked for is open. */
bool tagtso_outofline_leave(ucontext_t *uc, siginfo_t *info, bool *finished, struct tagtso_monitor *monitor);

#endif
