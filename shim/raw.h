/* SPDX-License-Identifier: MIT */
/* Raw system calls in files that also build on hosts other than aarch64; the kernel's answer, a negative errno on failure. */
#ifndef TAGTSO_SHIM_RAW_H
#define TAGTSO_SHIM_RAW_H

#ifdef __aarch64__

#include "../alloc/sys.h"

static inline long tagtso_raw(long number, long a, long b, long c, long d, long e, long f)
{
	return tagtso_sys6(number, a, b, c, d, e, f);
}

#else /* nothing is interposed there: libc's own will do */

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline long tagtso_raw(long number, long a, long b, long c, long d, long e, long f)
{
	int keep = errno;
	long result = syscall(number, a, b, c, d, e, f);

	if (result == -1)
		result = -errno;
	errno = keep;
	return result;
}

#endif

#endif
