/* SPDX-License-Identifier: MIT */
/* LD_PRELOAD, for an emulator that hands its own environment to the guest: there a library for arm64 is an error message of the guest's loader. */
#ifndef TAGTSO_SHIM_PRELOADED_H
#define TAGTSO_SHIM_PRELOADED_H

#include "libc-hooks.h"

/* Takes this library out of the environment's LD_PRELOAD. At start-up, while there is one thread. */
void tagtso_preloaded_hide(void);

/* execve or execveat for the guest, with this library in LD_PRELOAD again: what it starts may be the emulator. Async-signal-safe. */
long tagtso_preloaded_exec(tagtso_syscall_way *real, void *context, long nr, long args[6]);

#endif
