/* SPDX-License-Identifier: MIT */
/* The table of interposed libc functions: indices, declarations, and the way to the real ones. Included by libc-*.c only. */
#ifndef TAGTSO_SHIM_LIBC_WRAP_H
#define TAGTSO_SHIM_LIBC_WRAP_H

/* Declarations of libc must be those of the symbols without redirection. */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS

#include <aio.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ifaddrs.h>
#include <mqueue.h>
#include <netdb.h>
#include <netinet/ether.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <regex.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <threads.h> /* the directory of this file must not be searched for it: -iquote, not -I */
#include <time.h>
#include <uchar.h>
#include <unistd.h>
#include <utime.h>
#include <utmpx.h>
#include <wchar.h>

#pragma GCC visibility push(hidden)
#include "../alloc/window.h"
#include "knobs.h"
#include "libc-hooks.h"
#include "native.h"

#define TAGTSO_LIKELY(x) __builtin_expect(!!(x), 1)
#define TAGTSO_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* One index for each line of the tables. */

enum tagtso_libc_index {
#define FUNCTION(ret, name, proto) TAGTSO_FN_##name,
#include "libc-all.def"
#undef FUNCTION
	TAGTSO_NFN
};

/* `real` is NULL until looked up; written with the same value by any thread. */
struct tagtso_libc_entry {
	const char *name;
	void *wrapper;
	void *_Atomic real;
};
extern struct tagtso_libc_entry tagtso_libc[TAGTSO_NFN];

void *tagtso_libc_resolve(unsigned index);

static inline void *tagtso_real(unsigned index)
{
	void *real = atomic_load_explicit(&tagtso_libc[index].real, memory_order_relaxed);
	return TAGTSO_LIKELY(real) ? real : tagtso_libc_resolve(index);
}

/* The way of a call while no memory has tags: a tail call in a function without a frame. Everything else is in another function, which finds the
 * real one itself. `direct`: what else may go this way. */
#define TAGTSO_PASS_IF(direct, ret, name, proto, args) \
	ret tagtso_w_##name proto \
	{ \
		ret(*real_) proto = atomic_load_explicit(&tagtso_libc[TAGTSO_FN_##name].real, memory_order_relaxed); \
\
		if (TAGTSO_LIKELY(real_ && ((direct) || !tagtso_is_active()))) \
			return real_ args; \
		return other_##name args; \
	}
#define TAGTSO_PASS(ret, name, proto, args) TAGTSO_PASS_IF(false, ret, name, proto, args)

/* The emulator calls some functions a hundred thousand times for memory of its own: they ask for the pointer first. Where what begins outside of the
 * window reaches into it, native code traps as it does anywhere. */
#define TAGTSO_OUTSIDE(p) (!tagtso_window_index((uint64_t)(p)))

#define TAGTSO_PASS_V(name, proto, args) \
	void tagtso_w_##name proto \
	{ \
		void(*real_) proto = atomic_load_explicit(&tagtso_libc[TAGTSO_FN_##name].real, memory_order_relaxed); \
\
		if (TAGTSO_LIKELY(real_ && !tagtso_is_active())) \
			real_ args; \
		else \
			other_##name args; \
	}

static inline bool tagtso_native_is_share(void)
{
	return TAGTSO_UNLIKELY(tagtso_knobs.native == TAGTSO_NATIVE_SHARE);
}

/* Before the tables are ready (relocation time, early constructors) these take the place of the real ones; NULL for all other functions. */
void *tagtso_libc_early(unsigned index);
size_t tagtso_early_strlen(const char *s);
size_t tagtso_early_wcslen(const wchar_t *s);
#pragma GCC visibility pop

/* Each interposed function has a C name of its own and the symbol as its assembler name: neither the declarations in headers, nor macros, nor the
 * compiler's knowledge of the standard functions can get in the way. */
#define FUNCTION(ret, name, proto) ret tagtso_w_##name proto __asm__(#name) __attribute__((visibility("default")));
#include "libc-all.def"
#undef FUNCTION

#endif
