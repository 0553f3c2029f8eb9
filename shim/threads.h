/* SPDX-License-Identifier: MIT */
/* Threads, fork and process end. */
#ifndef TAGTSO_SHIM_THREADS_H
#define TAGTSO_SHIM_THREADS_H

#include <stdbool.h>

/* clone, clone3, exit and exit_group by number; true if handled (*result in the kernel's convention). */
bool tagtso_threads_syscall(long nr, const long args[6], long *result);

/* Around anything that copies the address space: `prepare` in the parent, then `child` in the child, which gets its own copy of guest memory, while
 * `parent` waits for it. */
void tagtso_fork_prepare(void);
void tagtso_fork_parent(void);
void tagtso_fork_child(void);

#endif
