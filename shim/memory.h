/* SPDX-License-Identifier: MIT */
/* The emulator's memory calls: what is the guest's goes into the window (HACKING.md §7). */
#ifndef TAGTSO_SHIM_MEMORY_H
#define TAGTSO_SHIM_MEMORY_H

#include <stdint.h>

#include "profile.h"

/* The system calls, in the kernel's convention (-errno), for any part of the address space. */
long tagtso_memory_mmap(const struct tagtso_mmap *m);
long tagtso_memory_munmap(uint64_t addr, uint64_t len);
long tagtso_memory_mprotect(uint64_t addr, uint64_t len, int prot);
long tagtso_memory_mremap(uint64_t old, uint64_t old_len, uint64_t len, int flags, uint64_t addr);
long tagtso_memory_madvise(uint64_t addr, uint64_t len, int advice);

#endif
