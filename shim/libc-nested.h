/* SPDX-License-Identifier: MIT */
/* Arguments with pointers inside: copies of vectors, message headers and argument lists whose pointers are moved to the alias. */
#ifndef TAGTSO_SHIM_LIBC_NESTED_H
#define TAGTSO_SHIM_LIBC_NESTED_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { TAGTSO_BOUNCE_LOCAL = 2048 };

/* Room for the copies of one call: on the stack, larger ones in mappings of their own (malloc would enter the emulator's, and these functions run
 * in signal handlers too). Belongs to one call of one thread. */
struct tagtso_bounce {
	void *mappings; /* list: next, size */
	size_t used;    /* of local */
	_Alignas(16) unsigned char local[TAGTSO_BOUNCE_LOCAL];
};

static inline void tagtso_bounce_begin(struct tagtso_bounce *bounce)
{
	bounce->mappings = NULL;
	bounce->used = 0;
}
void tagtso_bounce_end(struct tagtso_bounce *bounce);
/* n bytes aligned to 16, NULL if there is no memory. */
void *tagtso_bounce_get(struct tagtso_bounce *bounce, size_t n);

/* Bytes of a string with its end, or `max` if it is longer; 0 for NULL. tagtso_native() takes an unknown size for a page or two only. */
size_t tagtso_text_size(const char *s, size_t max);

/* All of these return what to pass on; where they cannot copy (no memory, more elements than the kernel accepts) that is the argument itself, moved
 * to the alias. NULL stays NULL. */
const struct iovec *tagtso_nested_iovec(struct tagtso_bounce *bounce, const struct iovec *v, size_t n);
char *const *tagtso_nested_strings(struct tagtso_bounce *bounce, char *const *v);
struct msghdr *tagtso_nested_message(struct tagtso_bounce *bounce, const struct msghdr *m);
struct mmsghdr *tagtso_nested_messages(struct tagtso_bounce *bounce, const struct mmsghdr *m, size_t n);
/* After a call that receives: the fields that the kernel writes, from the copy to the original. */
void tagtso_nested_message_back(struct msghdr *m, const struct msghdr *copy);
void tagtso_nested_messages_back(struct mmsghdr *m, const struct mmsghdr *copy, size_t n);
/* The argument of an ioctl. Where the request has a pointer inside that programs commonly use (lists of network interfaces, ethtool), it is exchanged
 * in place until tagtso_nested_ioctl_back(). Others with pointers inside are not known here. */
struct tagtso_ioctl {
	void **slot, *pointer; /* slot = NULL: nothing was exchanged */
};
void *tagtso_nested_ioctl(struct tagtso_ioctl *state, unsigned long request, void *arg);
static inline void tagtso_nested_ioctl_back(const struct tagtso_ioctl *state)
{
	if (state->slot)
		*state->slot = state->pointer;
}
/* A signal mask to wait with: never holds SIGSEGV or SIGBUS, since a tag check fault of a handler that runs meanwhile would end the process. */
#define TAGTSO_NEVER_MASKED (~(UINT64_C(1) << (SIGSEGV - 1) | UINT64_C(1) << (SIGBUS - 1)))
const sigset_t *tagtso_nested_mask(const sigset_t *mask, sigset_t *copy);

#endif
