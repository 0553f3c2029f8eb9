/* SPDX-License-Identifier: MIT */
/* Gives the emulator our functions where it asks a library's own handle for them. */
#include <dlfcn.h>
#include <stddef.h>

#include "export.h"
#include "libc-hooks.h"
#include "next.h"

/* See alloc/jemalloc.map. */
extern const char tagtso_version[];
TAGTSO_EXPORT const char tagtso_version[] = PACKAGE_VERSION;

/* Hooks that are not in the tables of libc-all.def, in C's own types: only their addresses matter here. */
/* clang-format off */
#define HOOKS(HOOK) \
	HOOK(sigaction) \
	HOOK(signal) \
	HOOK(pthread_sigmask) \
	HOOK(sigprocmask) \
	HOOK(sigsuspend) \
	HOOK(pthread_create) \
	HOOK(thrd_create) \
	HOOK(clone) \
	HOOK(mprotect) \
	HOOK(madvise) \
	HOOK(mremap) \
	HOOK(_exit) \
	HOOK(_Exit)
/* clang-format on */

#define DECLARE(name) extern char hook_##name[] __asm__(#name) __attribute__((visibility("default")));
HOOKS(DECLARE)

static void *substitute_hook(void *found)
{
#define ENTRY(name) { #name, NULL },
	static struct {
		const char *name;
		void *real;
	} reals[] = { HOOKS(ENTRY) }; /* real: written with one value by any thread */
#define ADDRESS(name) hook_##name,
	void *const ours[] = { HOOKS(ADDRESS) };

	for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) {
		if (!reals[i].real)
			reals[i].real = tagtso_next(reals[i].name);
		if (found == reals[i].real)
			return ours[i];
	}
	return found;
}

/* box64 resolves the guest's libpthread, libm and librt by dlsym on their own handles, which do not see a preloaded library. RTLD_NEXT and
 * RTLD_DEFAULT depend on who calls: those are tail calls, in which the caller stays the caller. */
TAGTSO_EXPORT void *dlsym(void *restrict handle, const char *restrict name)
{
	tagtso_dlsym *f = tagtso_real_dlsym();

	if (handle == RTLD_NEXT || handle == RTLD_DEFAULT)
		return f(handle, name);
	void *found = f(handle, name);

	return found ? substitute_hook(tagtso_libc_substitute(found)) : NULL;
}
