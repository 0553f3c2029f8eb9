/* SPDX-License-Identifier: MIT */
/* Gives the emulator our functions where it asks a library's own handle for them. */
#include <dlfcn.h>
#include <stddef.h>

#include "export.h"
#include "libc-hooks.h"
#include "next.h"
#include "say.h"

/* See alloc/jemalloc.map. */
extern const char tagtso_version[];
TAGTSO_EXPORT const char tagtso_version[] = PACKAGE_VERSION;

/* box64 resolves the guest's libpthread, libm and librt by dlsym on their own handles, which do not see a preloaded library. RTLD_NEXT and
 * RTLD_DEFAULT depend on who calls: those are tail calls, in which the caller stays the caller. */
TAGTSO_EXPORT void *dlsym(void *restrict handle, const char *restrict name)
{
	tagtso_dlsym *f = tagtso_real_dlsym();

	if (handle == RTLD_NEXT || handle == RTLD_DEFAULT)
		return f(handle, name);
	void *found = f(handle, name);

	TAGTSO_SAY(3, "dlsym: %s", name);

	return found ? tagtso_libc_substitute(found) : NULL;
}
