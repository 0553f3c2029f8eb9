/* SPDX-License-Identifier: MIT */
/* Return addresses as plain addresses. */
#ifndef TAGTSO_SHIM_CALLER_H
#define TAGTSO_SHIM_CALLER_H

#include <stdint.h>

/* Takes a pointer authentication code off, if there is one: XPACLRI works on x30 alone, and is a hint where there is no PAC. */
static inline uint64_t tagtso_plain_address(uint64_t ra)
{
	register uint64_t x30 __asm__("x30") = ra;

	__asm__("hint #7" : "+r"(x30));
	return x30;
}

#endif
