/* SPDX-License-Identifier: MIT */
/* Pointers for native code and the kernel: the alias, or memory made shared first. */
#include "native.h"

#include <signal.h>

#include "../alloc/owner.h"
#include "../alloc/sys.h"
#include "../alloc/tags.h"
#include "../alloc/window.h"
#include "knobs.h"
#include "stats.h"

/* Transitions hold page locks: no signal handler of this thread may come in between. */
static void share(uint64_t va, uint64_t len)
{
	tagtso_sigmask old = tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC);

	tagtso_owner_share(va, len);
	tagtso_sys_sigmask(old);
}

/* One piece of the alias, from `va` on. A C string (size 0) may go on into the next page, not further than a path name can. */
static bool one_piece(uint64_t va, uint64_t size, uint32_t first)
{
	uint64_t end = size ? va + size : va + TAGTSO_PAGE_SIZE;
	uint32_t k = 1;

	for (uint64_t page = (va & ~(uint64_t)(TAGTSO_PAGE_SIZE - 1)) + TAGTSO_PAGE_SIZE; page < end;
	     page += TAGTSO_PAGE_SIZE, k++) {
		uint32_t index = tagtso_window_index(page);

		if (index != first + k)
			return !size && !index; /* a string that ends with its mapping */
	}
	return true;
}

static __attribute__((noinline)) void *move(uint64_t va, size_t size, uint32_t index)
{
	TAGTSO_COUNT(syscalls_laundered);
	if (!one_piece(va, size, index)) {
		share(va, size ? size : 2 * TAGTSO_PAGE_SIZE);
		return (void *)TAGTSO_WITH_TAG(va, tagtso_tag_in_memory(TAGTSO_TAG_SHARED));
	}
	if (tagtso_knobs.native == TAGTSO_NATIVE_SHARE && tagtso_is_active())
		share(va, size ? size : 1);
	return (void *)tagtso_window_at(tagtso_window.alias, index, va);
}

/* Most pointers are the emulator's own, and leave here without a frame. */
void *tagtso_native(const volatile void *pointer, size_t size)
{
	uint32_t index = tagtso_window_index((uint64_t)pointer);

	return index ? move((uint64_t)pointer, size, index) : (void *)(uintptr_t)pointer;
}

void *tagtso_native_back(const void *pointer)
{
	uint64_t p = TAGTSO_UNTAG(pointer), window = tagtso_window_of_alias(p);

	return (void *)(window ? window : p);
}

void tagtso_native_touch(const volatile void *pointer, size_t size)
{
	if (tagtso_knobs.native == TAGTSO_NATIVE_SHARE && tagtso_is_active() && size)
		share((uint64_t)pointer, size);
}
