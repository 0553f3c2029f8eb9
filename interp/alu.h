/* SPDX-License-Identifier: MIT */
/* Interprets the integer instructions and branches between accesses. Pure C, no libc, no state: safe in a signal handler. */
#ifndef TAGTSO_INTERP_ALU_H
#define TAGTSO_INTERP_ALU_H

#include <stdbool.h>
#include <stdint.h>

/* A thread's integer state, in the kernel's order (struct sigcontext): x0..x30, sp, pc, pstate. */
enum { TAGTSO_SP = 31, TAGTSO_PC = 32, TAGTSO_PSTATE = 33, TAGTSO_NREGS = 34 };

/* Carries out one data-processing, branch or hint instruction on r, pc and NZCV included. False, with r unchanged, for all
 * others: memory, barriers, system, SIMD&FP, pointer authentication, unallocated. */
bool tagtso_alu_step(uint32_t word, unsigned long long r[TAGTSO_NREGS]);

#endif
