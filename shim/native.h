/* SPDX-License-Identifier: MIT */
/* How native code and the kernel reach guest memory (HACKING.md §7): helpers of the interposed functions. */
#ifndef TAGTSO_SHIM_NATIVE_H
#define TAGTSO_SHIM_NATIVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False while the shim is inert or dormant: no granule has a tag, so interposed functions call the real ones with what they got.
 * Written when the shim wakes (before a second thread exists) and in the child of fork. */
__attribute__((visibility("hidden"))) extern _Atomic bool tagtso_active;
static inline bool tagtso_is_active(void)
{
	return atomic_load_explicit(&tagtso_active, memory_order_relaxed);
}

/* The pointer to hand to the kernel, or to code that hands it to the kernel, for `size` bytes at `pointer`: the alias of window memory,
 * anything else (NULL included) unchanged. size 0 = unknown (a C string): up to the end of the mapping. With TAGTSO_NATIVE=share the memory becomes
 * shared first. If [pointer, pointer+size) is not one piece in the alias, the memory becomes shared and the window pointer with the shared tag
 * is returned (the kernel accepts that too). Keeps errno. Async-signal-safe. Counts syscalls_laundered. */
void *tagtso_native(const volatile void *pointer, size_t size);

/* What tagtso_native() returned (or a pointer derived from it, such as a return value) back to the guest's own pointer. */
void *tagtso_native_back(const void *pointer);

/* TAGTSO_NATIVE=share: makes [pointer, pointer+size) shared before native code that runs unchecked touches it. Does nothing in `alias`. */
void tagtso_native_touch(const volatile void *pointer, size_t size);

/* Around a call of a native function that touches guest memory but makes no system call with its pointers: tag checks are off for this thread
 * (PSTATE.TCO; the kernel keeps it per thread and clears it in signal handlers). Returns the state to restore. Nests. */
static inline uint64_t tagtso_unchecked_enter(void)
{
#ifdef __aarch64__
	uint64_t old;
	__asm__ volatile(".arch_extension memtag\n\tmrs %0, tco\n\tmsr tco, #1" : "=r"(old)::"memory");
	return old;
#else
	return 0;
#endif
}
static inline void tagtso_unchecked_leave(uint64_t old)
{
#ifdef __aarch64__
	__asm__ volatile(".arch_extension memtag\n\tmsr tco, %0" ::"r"(old) : "memory");
#else
	(void)old;
#endif
}

#endif
