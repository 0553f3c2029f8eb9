/* SPDX-License-Identifier: MIT */
/* The guest's malloc. box64 gives the guest its own exported malloc, which jumps on to __libc_calloc with the guest's return address still in place: a call
 * that returns into generated code is the guest's, all others are the emulator's and libc's. */
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../alloc/heap.h"
#include "../interp/patch.h"
#include "caller.h"
#include "export.h"
#include "next.h"
#include "profile.h"
#include "state.h"

enum { NEAR_STACK = 1 << 16 }; /* the caller's frame record lies this close above ours, or it is none */

struct frame_record {
	struct frame_record *next;
	uint64_t return_address;
};

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void *(*real_memalign)(size_t, size_t);
static void (*real_free)(void *);

static void find_real(void)
{
	real_calloc = tagtso_next("__libc_calloc");
	real_realloc = tagtso_next("__libc_realloc");
	real_memalign = tagtso_next("__libc_memalign");
	real_free = tagtso_next("__libc_free");
	real_malloc = tagtso_next("__libc_malloc");
}

/* Directly, or through one function of the emulator's that is no tail call (posix_memalign, realloc). What libc allocates for itself in a function
 * that the guest called (streams, directories) goes through the emulator's malloc too, but is handed to the kernel by libc: it stays outside. */
static bool from_guest(const struct frame_record *frame)
{
	if (tagtso_is_inert())
		return false;
	uint64_t ra = tagtso_plain_address(frame->return_address);

	if (tagtso_patch_is_code(ra))
		return true;
	if (!tagtso_profile_is_text(ra))
		return false;
	const struct frame_record *up = frame->next;

	if ((uint64_t)up <= (uint64_t)frame || (uint64_t)up - (uint64_t)frame > NEAR_STACK || ((uint64_t)up & 7))
		return false;
	return tagtso_patch_is_code(tagtso_plain_address(up->return_address));
}

#define FROM_GUEST() from_guest(__builtin_frame_address(0))

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *pointer);

TAGTSO_EXPORT void *__libc_malloc(size_t size)
{
	if (FROM_GUEST())
		return tagtso_heap_alloc(size, 0, false);
	if (!real_malloc)
		find_real();
	return real_malloc(size);
}

TAGTSO_EXPORT void *__libc_calloc(size_t n, size_t size)
{
	if (FROM_GUEST()) {
		size_t bytes;

		if (__builtin_mul_overflow(n, size, &bytes)) {
			errno = ENOMEM;
			return NULL;
		}
		return tagtso_heap_alloc(bytes, 0, true);
	}
	if (!real_calloc)
		find_real();
	return real_calloc(n, size);
}

TAGTSO_EXPORT void *__libc_realloc(void *pointer, size_t size)
{
	if (pointer && tagtso_heap_owns(pointer)) {
		if (size)
			return tagtso_heap_realloc(pointer, size);
		tagtso_heap_free(pointer);
		return NULL;
	}
	if (!pointer && FROM_GUEST())
		return tagtso_heap_alloc(size, 0, false);
	if (!real_realloc)
		find_real();
	return real_realloc(pointer, size);
}

TAGTSO_EXPORT void *__libc_memalign(size_t align, size_t size)
{
	if (FROM_GUEST()) {
		if (align & (align - 1)) {
			errno = EINVAL;
			return NULL;
		}
		return tagtso_heap_alloc(size, align, false);
	}
	if (!real_memalign)
		find_real();
	return real_memalign(align, size);
}

TAGTSO_EXPORT void __libc_free(void *pointer)
{
	if (pointer && tagtso_heap_owns(pointer)) {
		tagtso_heap_free(pointer);
		return;
	}
	if (!real_free)
		find_real();
	real_free(pointer);
}

/* box64 looks it up behind itself: the guest's own malloc_usable_size jumps here. */
TAGTSO_EXPORT size_t malloc_usable_size(void *pointer)
{
	static size_t (*real)(void *);

	if (pointer && tagtso_heap_owns(pointer))
		return tagtso_heap_usable(pointer);
	if (!real)
		real = tagtso_next("malloc_usable_size");
	return real(pointer);
}
