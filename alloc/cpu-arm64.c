/* SPDX-License-Identifier: MIT */
/* Finds the rseq area that libc has registered for each thread. Nothing is registered here: a thread has one area. */
#include "cpu.h"

#include <errno.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/rseq.h>

#include "sys.h"

#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#endif

/* include/uapi/linux/rseq.h since Linux 6.3; struct rseq of older headers ends before. */
enum { CPU_ID = 4, MM_CID = 24, MM_CID_END = 28, FIRST_BYTES = 32, UNREGISTER = 1 };

struct tagtso_cpu tagtso_cpu;

/* The kernel compares pointer, length and signature, in this order, and only then unregisters: with a wrong signature it never does, and says EPERM
 * where the rest is right (kernel/rseq.c). */
static bool is_registered(uint32_t bytes)
{
	return tagtso_sys(__NR_rseq, tagtso_cpu_area(), bytes, UNREGISTER, ~(uint32_t)RSEQ_SIG) == -EPERM;
}

bool tagtso_cpu_registered(void)
{
	return is_registered(tagtso_cpu.bytes);
}

const char *tagtso_cpu_init(void)
{
	/* 32 bytes is what the first kernels ask for; where the kernel has more fields libc registers more. */
	uint32_t features = (uint32_t)getauxval(AT_RSEQ_FEATURE_SIZE), more = (features + 31) / 32 * 32;

	if (!__rseq_size || __rseq_offset != (int32_t)__rseq_offset)
		return "libc has registered no rseq area (glibc.pthread.rseq=0, or a kernel without rseq)";
	tagtso_cpu.area = (int32_t)__rseq_offset;
	/* An old libc says 32 whatever the kernel knows of. */
	tagtso_cpu.number = features >= MM_CID_END && __rseq_size >= MM_CID_END ? MM_CID : CPU_ID;
	tagtso_cpu.bytes = is_registered(FIRST_BYTES) ? FIRST_BYTES : more;
	if (!tagtso_cpu_registered())
		return "the kernel does not keep the rseq area that libc names";
	tagtso_cpu.owns = true;
	return NULL;
}
