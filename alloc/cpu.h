/* SPDX-License-Identifier: MIT */
/* Policy `cpu`: the owner of memory is the CPU that a thread runs on, as the kernel says in the thread's rseq area (HACKING.md §6). Handler code. */
#ifndef TAGTSO_ALLOC_CPU_H
#define TAGTSO_ALLOC_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "tags.h"

/* Written once, before there is a second thread. */
struct tagtso_cpu {
	bool owns;       /* the policy is in force */
	int32_t area;    /* of struct rseq, from the thread pointer: libc's, which has registered it */
	uint32_t number; /* place in it of the number that counts: mm_cid, or cpu_id where the kernel has no mm_cid */
	uint32_t bytes;  /* that were registered */
};
__attribute__((visibility("hidden"))) extern struct tagtso_cpu tagtso_cpu;

/* Finds the rseq area and puts the policy in force. NULL, or what is missing. */
const char *tagtso_cpu_init(void);
/* Whether the kernel keeps the area of the calling thread: one that shares its creator's thread pointer has none of its own. Async-signal-safe. */
bool tagtso_cpu_registered(void);

static inline uint64_t tagtso_cpu_area(void)
{
	uint64_t thread;

	__asm__("mrs %0, tpidr_el0" : "=r"(thread));
	return thread + (uint64_t)(int64_t)tagtso_cpu.area;
}

/* The owner id of the CPU that the thread was on when this was called; 0: that CPU has none. */
static inline unsigned tagtso_cpu_id(void)
{
	uint32_t number = __atomic_load_n((const uint32_t *)(tagtso_cpu_area() + tagtso_cpu.number), __ATOMIC_RELAXED);

	return number < TAGTSO_TAG_LAST ? number + TAGTSO_TAG_FIRST : 0;
}

#endif
