/* SPDX-License-Identifier: MIT */
/* How much of a table has been touched, for the report. */
#ifndef TAGTSO_ALLOC_RESIDENT_H
#define TAGTSO_ALLOC_RESIDENT_H

#include "window.h"

#ifdef __aarch64__
#include "sys.h"
#else
#include <sys/mman.h>
#endif

/* In bytes, of whole pages from `from` on. */
static inline uint64_t tagtso_resident(void *from, uint64_t bytes)
{
	unsigned char resident[256];
	uint64_t pages = 0, step = sizeof(resident) * TAGTSO_PAGE_SIZE;

	for (uint64_t at = 0; at < bytes; at += step) {
		uint64_t n = bytes - at < step ? bytes - at : step;

#ifdef __aarch64__ /* libc's may be the emulator's */
		if (tagtso_sys(__NR_mincore, (char *)from + at, n, resident) != 0)
			continue;
#else
		if (mincore((char *)from + at, n, resident) != 0)
			continue;
#endif
		for (uint64_t i = 0; i < n / TAGTSO_PAGE_SIZE; i++)
			pages += resident[i] & 1;
	}
	return pages * TAGTSO_PAGE_SIZE;
}

#endif
