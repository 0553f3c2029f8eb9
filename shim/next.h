/* SPDX-License-Identifier: MIT */
/* The real functions behind the ones that we interpose. */
#ifndef TAGTSO_SHIM_NEXT_H
#define TAGTSO_SHIM_NEXT_H

#include <link.h>
#include <stdint.h>

/* Looks up `name` after this library. Not libc's dlsym by name: the emulator may export a dlsym of its own (box64 0.4 does). NULL if there is none. */
void *tagtso_next(const char *name);

/* The same for a thousand names at start-up, where dlsym would take 2,500 instructions for each: the hash tables of the objects that are loaded after this
 * one are read here. Valid while no library is unloaded. */
enum { TAGTSO_OBJECTS = 32 };
struct tagtso_objects {
	unsigned n;
	struct tagtso_object {
		ElfW(Addr) base;
		const ElfW(Sym) * symbols;
		const char *strings;
		const ElfW(Half) * versions;
		const uint32_t *hash; /* DT_GNU_HASH */
	} object[TAGTSO_OBJECTS];
};
void tagtso_objects_read(struct tagtso_objects *objects);
void *tagtso_next_in(const struct tagtso_objects *objects, const char *name);

/* Looks up `name` in the whole process, the main program first. NULL if there is none. */
void *tagtso_find(const char *name);

typedef void *tagtso_dlsym(void *handle, const char *name);
/* libc's own. */
tagtso_dlsym *tagtso_real_dlsym(void);

#endif
