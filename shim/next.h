/* SPDX-License-Identifier: MIT */
/* The real functions behind the ones that we interpose. */
#ifndef TAGTSO_SHIM_NEXT_H
#define TAGTSO_SHIM_NEXT_H

/* Looks up `name` after this library. Not libc's dlsym by name: the emulator may export a dlsym of its own (box64 0.4 does). NULL if there is none. */
void *tagtso_next(const char *name);

/* Looks up `name` in the whole process, the main program first. NULL if there is none. */
void *tagtso_find(const char *name);

typedef void *tagtso_dlsym(void *handle, const char *name);
/* libc's own. */
tagtso_dlsym *tagtso_real_dlsym(void);

#endif
