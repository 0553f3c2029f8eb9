/* SPDX-License-Identifier: MIT */
/* Allocation tags: who owns a granule (HACKING.md §2), and the instructions that read and write them. Handler code. */
#ifndef TAGTSO_ALLOC_TAGS_H
#define TAGTSO_ALLOC_TAGS_H

#include <stdint.h>

enum {
	TAGTSO_TAG_NONE =
		0, /* as emitted: shared in `relax`; in `enforce` never reachable while two threads run (I3) */
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

/* What shared memory carries: in `enforce` TAGTSO_TAG_SHARED, so that accesses as emitted trap on it; in `relax` 0, so that they, which are ordered, do
 * not. Written once at start-up. Everywhere else TAGTSO_TAG_SHARED stands for shared memory, in both modes: */
__attribute__((visibility("hidden"))) extern unsigned tagtso_shared_tag;

static inline unsigned tagtso_tag_in_memory(unsigned tag)
{
	return tag == TAGTSO_TAG_SHARED ? tagtso_shared_tag : tag;
}
static inline unsigned tagtso_tag_meant(unsigned in_memory)
{
	return in_memory == tagtso_shared_tag ? TAGTSO_TAG_SHARED : in_memory;
}

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

/* Of whole pages, as tagtso_tag_set() of each granule: DC GVA is ordered as stores of the tags are (Arm ARM, "Memory Tagging Extension"). It
 * writes the tags of a block of 64 bytes (other sizes up to 2 KiB are allowed), and may be forbidden (DCZID_EL0.DZP). */
static inline void tagtso_tag_fill(uint64_t p, uint64_t bytes, unsigned tag)
{
	uint64_t tagged = TAGTSO_WITH_TAG(p, tag), end = tagged + bytes, dczid;

	__asm__("mrs %0, dczid_el0" : "=r"(dczid));
	if (dczid & 16) {
		for (; tagged != end; tagged += 32)
			__asm__ volatile(".arch_extension memtag\n\tst2g %0, [%0]" ::"r"(tagged) : "memory");
		return;
	}
	const uint64_t block = UINT64_C(4) << (dczid & 15);

	while (block == 64 && tagged != end) /* as everywhere so far; pages are claimed by the thousand */
		__asm__ volatile(".arch_extension memtag\n\t"
		                 "dc gva, %0\n\tadd %0, %0, #64\n\tdc gva, %0\n\tadd %0, %0, #64\n\t"
		                 "dc gva, %0\n\tadd %0, %0, #64\n\tdc gva, %0\n\tadd %0, %0, #64\n\t"
		                 "dc gva, %0\n\tadd %0, %0, #64\n\tdc gva, %0\n\tadd %0, %0, #64\n\t"
		                 "dc gva, %0\n\tadd %0, %0, #64\n\tdc gva, %0\n\tadd %0, %0, #64"
		                 : "+r"(tagged)::"memory");
	for (; tagged != end; tagged += block)
		__asm__ volatile(".arch_extension memtag\n\tdc gva, %0" ::"r"(tagged) : "memory");
}

/* The tag that all granules of [p, p+bytes) have, or -1 where they differ. `bytes` is a multiple of 128. */
static inline int tagtso_tag_of_all(uint64_t p, uint64_t bytes)
{
	unsigned first = tagtso_tag_get(p);
	uint64_t tag = (uint64_t)first << TAGTSO_TAG_SHIFT, same = 1;
	uint64_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0; /* LDG writes the four bits of the tag alone */

	for (uint64_t end = p + bytes; p != end && same; p += UINT64_C(8) * TAGTSO_GRANULE)
		__asm__ volatile(
			".arch_extension memtag\n\t"
			"ldg %1, [%9]\n\tldg %2, [%9, #16]\n\tldg %3, [%9, #32]\n\tldg %4, [%9, #48]\n\t"
			"ldg %5, [%9, #64]\n\tldg %6, [%9, #80]\n\tldg %7, [%9, #96]\n\tldg %8, [%9, #112]\n\t"
			"cmp %1, %10\n\tccmp %2, %10, #0, eq\n\tccmp %3, %10, #0, eq\n\tccmp %4, %10, #0, eq\n\t"
			"ccmp %5, %10, #0, eq\n\tccmp %6, %10, #0, eq\n\tccmp %7, %10, #0, eq\n\tccmp %8, %10, #0, "
			"eq\n\t"
			"cset %0, eq"
			: "=&r"(same), "+&r"(a), "+&r"(b), "+&r"(c), "+&r"(d), "+&r"(e), "+&r"(f), "+&r"(g), "+&r"(h)
			: "r"(p), "r"(tag)
			: "memory", "cc");
	return same ? (int)first : -1;
}

/* The running thread's own tag, as the hardware will insert it: 0 for a thread without an owner id (IRG inserts what no memory carries then,
 * owner-arm64.c). The include mask of GCR_EL1 is the one truth about who this thread is; it is set by prctl, per thread. */
static inline unsigned tagtso_tag_mine(void)
{
	uint64_t p = 0;

	__asm__ volatile(".arch_extension memtag\n\tirg %0, %0" : "+r"(p));
	return TAGTSO_TAG_OF(p) == TAGTSO_TAG_SHARED ? 0 : TAGTSO_TAG_OF(p);
}

#endif
