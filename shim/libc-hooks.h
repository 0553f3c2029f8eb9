/* SPDX-License-Identifier: MIT */
/* What the interposed libc functions offer to, and expect from, the rest of the shim (HACKING.md §7). */
#ifndef TAGTSO_SHIM_LIBC_HOOKS_H
#define TAGTSO_SHIM_LIBC_HOOKS_H

#include <stdbool.h>
#include <stdint.h>

/* Looks up every real function. Called once by the shim's constructor; functions called earlier look theirs up on demand. */
void tagtso_libc_init(void);

/* The interposed function that stands for `real`, a function of libc or libm, or `real` itself if there is none. For dlsym() on a library's handle,
 * which does not see preloaded libraries: box64 resolves the guest's libpthread, libm and librt that way. Lock-free after
 * tagtso_libc_init(). */
void *tagtso_libc_substitute(void *real);

/* Offered each call of syscall() whose number is marked OFFERED in syscalls.def (memory, threads, signals, exec): true if it was carried out (or
 * refused), with the kernel's result (-errno) in *result. `ra` is the address that the caller of syscall() returns to. Defined by the memory hooks. */
bool tagtso_syscall_hook(long nr, const long args[6], uintptr_t ra, long *result);

/* A system call by a function of the emulator's own, which takes `context` besides: with guest pointers moved to the alias as syscalls.def says, and what
 * comes back in copies put in its place. `real` gives -1 and errno, which is kept. Numbers that start processes or threads or change mappings are not for it. */
typedef long tagtso_syscall_way(void *context, long nr, long a, long b, long c, long d, long e, long f);
long tagtso_syscall_by(tagtso_syscall_way *real, void *context, long nr, const long given[6]);

#endif
