/* SPDX-License-Identifier: MIT */
/* Carries out one decoded access on the registers of an interrupted thread. Handler code (I4, I6). */
#ifndef TAGTSO_INTERP_EXEC_H
#define TAGTSO_INTERP_EXEC_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#include "alu.h"
#include "memop.h"

/* The interrupted thread's registers, as views into its signal frame. */
struct tagtso_frame {
	ucontext_t *uc;
	unsigned long long *x; /* x0..x30, then sp, pc, pstate (alu.h has the indices) */
	__uint128_t *v;        /* v0..v31, NULL if the frame has no fpsimd_context */
	void *sve;     /* sve_context with a payload, or NULL: a SIMD&FP write must zero the rest of its Z register */
	uint64_t *esr; /* esr_context's value, or NULL */
};

/* halfst mapping of x86-TSO (HACKING.md §6: LDR; DMB ISHLD and DMB ISHST; STR; atomics AL between DMB ISH). */
enum tagtso_order { TAGTSO_PLAIN, TAGTSO_ORDERED };

enum tagtso_exec {
	TAGTSO_EXEC_DONE,    /* carried out: registers, write-back and pc are those after the instruction */
	TAGTSO_EXEC_TAG,     /* a granule's tag was not the pointer's: nothing has changed, decide again */
	TAGTSO_EXEC_FAULT,   /* a real fault: nothing has changed, *fault says what to deliver */
	TAGTSO_EXEC_UNKNOWN, /* no execution for this class or span: nothing has changed */
};

/* What the kernel said about a fault inside an interpreted access. */
struct tagtso_fault {
	int signo;        /* SIGSEGV or SIGBUS */
	int code;         /* si_code */
	uint64_t address; /* si_addr without a tag */
	uint64_t esr;     /* ESR_EL1 of the fault, 0 if not reported */
};

void tagtso_frame_init(struct tagtso_frame *frame, ucontext_t *uc);
/* Without the records of the signal frame, to go over which costs as much as a load: no v, sve and esr. */
static inline void tagtso_frame_init_general(struct tagtso_frame *frame, ucontext_t *uc)
{
	*frame = (struct tagtso_frame){ .uc = uc, .x = uc->uc_mcontext.regs };
}

/* The address that op accesses, top byte cleared (bits 63:56 zero), before write-back. */
uint64_t tagtso_exec_rare_address(const struct tagtso_memop *op, const struct tagtso_frame *frame);
static inline uint64_t tagtso_exec_address(const struct tagtso_memop *op, const struct tagtso_frame *frame)
{
	/* 31 = SP by position */
	if (op->addressing <= TAGTSO_ADDR_PRE && op->cls != TAGTSO_ZERO_BLOCK)
		return (frame->x[op->rn] + (uint64_t)(int64_t)op->imm) << 8 >> 8;
	return tagtso_exec_rare_address(op, frame);
}

/* Carries op out at `pointer` = the address with the tag to be checked in bits 59:56. Under policy `cpu` an owner's tag says besides, also where nothing
 * checks it, that the access is to be made on that CPU: on another it answers TAG. PSTATE.TCO must be clear for the
 * check to happen; the caller may set it when it holds the locks of every page touched. Register values are read
 * from and written to the frame; the base register keeps its own top byte on write-back. Single-copy atomicity is that of the
 * instruction: an N-byte element is one N-byte access, a 16-byte vector one 16-byte access, LDP/STP one LDP/STP.
 * Classes LOAD_EX, STORE_EX and their pairs are not for this function (tagtso_span_exec). */
enum tagtso_exec tagtso_exec(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                             enum tagtso_order order, struct tagtso_fault *fault);

/* LDG: *tagged = pointer with the tag of its granule. DONE or FAULT. */
enum tagtso_exec tagtso_exec_ldg(uint64_t pointer, uint64_t *tagged, struct tagtso_fault *fault);

/* An LL/SC loop (LDXR ... STXR ... CBNZ) whose LDXR is op, at the frame's pc, as one unit: the load, the instructions between, and the
 * store-exclusive as a compare-and-swap (AL) with the loaded value; iterates until the code leaves the loop or
 * `limit` instructions have been interpreted (then pc is where an interrupt could have come: DONE, the loop traps again).
 * tag = bits 59:56 for the pointers. Ordinary accesses inside (spills, the emulator's own state) are done in place, and again when the loop runs
 * again: with the tag that they bring, else with the thread's own, else as on shared memory; one that all refuse ends
 * the span before it (DONE), so that it traps by itself. UNKNOWN if an exclusive is not matched by one of its kind, if such an access writes
 * what was loaded or has two granules that differ, or if an instruction is not known.
 * op may also be the STXR: its LDXR passed before the tag changed. It fails (status 1, DONE), so that its loop runs again. */
enum tagtso_exec tagtso_span_exec(const struct tagtso_memop *op, struct tagtso_frame *frame, unsigned tag,
                                  unsigned limit, struct tagtso_fault *fault);

/* For a loop that was UNKNOWN: its words, from op at the frame's pc to the last store-exclusive and the branch behind it, if they can run anywhere and only
 * the exclusives, all with op's base, access memory. Returns how many, 0 if not so. */
unsigned tagtso_span_words(const struct tagtso_memop *op, const struct tagtso_frame *frame, uint32_t *words,
                           unsigned room);

/* Code is read like data: its next page may not be there. */
bool tagtso_exec_fetch(uint64_t pc, uint32_t *word);

/* True if `pc` is inside the code that accesses guest memory on behalf of tagtso_exec. Then tagtso_exec_fixup() makes the nested
 * signal frame return into the recovery path, which makes tagtso_exec answer TAG (SEGV_MTESERR) or FAULT. */
__attribute__((visibility("hidden"))) extern const char tagtso_access_begin[], tagtso_access_end[];
static inline bool tagtso_exec_owns(uint64_t pc)
{
	return pc - (uint64_t)tagtso_access_begin < (uint64_t)(tagtso_access_end - tagtso_access_begin);
}
void tagtso_exec_fixup(ucontext_t *nested, const siginfo_t *info);

#endif
