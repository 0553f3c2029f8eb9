/* SPDX-License-Identifier: MIT */
/* Allocation tags: who owns a granule (HACKING.md §2), and the instructions that read and write them. Handler code. */
#ifndef TAGTSO_ALLOC_TAGS_H
#define TAGTSO_ALLOC_TAGS_H

#include <stdint.h>

enum {
	TAGTSO_TAG_NONE = 0,  /* as emitted; in `enforce` never reachable while two threads run (I3) */
	TAGTSO_TAG_FIRST = 1, /* owner ids */
	TAGTSO_TAG_LAST = 13,
	TAGTSO_TAG_BUSY = 14, /* in transition, or undecided: no pointer carries it */
	TAGTSO_TAG_SHARED = 15,
	TAGTSO_GRANULE = 16,
};

#define TAGTSO_TAG_SHIFT 56
#define TAGTSO_UNTAG(p) ((uint64_t)(p) & ~(UINT64_C(0xff) << TAGTSO_TAG_SHIFT))
#define TAGTSO_WITH_TAG(p, tag) (TAGTSO_UNTAG(p) | (uint64_t)(tag) << TAGTSO_TAG_SHIFT)
#define TAGTSO_TAG_OF(p) ((unsigned)((uint64_t)(p) >> TAGTSO_TAG_SHIFT) & 15)

/* The tag of the granule at `p`, which must be mapped with PROT_MTE. */
static inline unsigned tagtso_tag_get(uint64_t p)
{
	__asm__ volatile(".arch_extension memtag\n\tldg %0, [%0]" : "+r"(p)::"memory");
	return TAGTSO_TAG_OF(p);
}

/* An ordinary, unordered store of the tag: a DMB or membarrier orders it (HACKING.md §6). */
static inline void tagtso_tag_set(uint64_t p, unsigned tag)
{
	uint64_t tagged = TAGTSO_WITH_TAG(p, tag);

	__asm__ volatile(".arch_extension memtag\n\tstg %0, [%0]" ::"r"(tagged) : "memory");
}

/* `bytes` is a multiple of 32, p 16-byte aligned. */
static inline void tagtso_tag_fill(uint64_t p, uint64_t bytes, unsigned tag)
{
	uint64_t tagged = TAGTSO_WITH_TAG(p, tag);

	for (uint64_t end = tagged + bytes; tagged != end; tagged += 32)
		__asm__ volatile(".arch_extension memtag\n\tst2g %0, [%0]" ::"r"(tagged) : "memory");
}

/* The running thread's own tag, as the hardware will insert it: 0 for a thread without an owner id. The include mask of
 * GCR_EL1 is the one truth about who this thread is; it is set by prctl, per thread. */
static inline unsigned tagtso_tag_mine(void)
{
	uint64_t p = 0;

	__asm__ volatile(".arch_extension memtag\n\tirg %0, %0" : "+r"(p));
	return TAGTSO_TAG_OF(p);
}

#endif
