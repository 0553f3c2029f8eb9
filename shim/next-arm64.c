/* SPDX-License-Identifier: MIT */
/* Looks up real functions, and gives the emulator ours where it asks a library's own handle for them. */
#include "next.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>

#include "export.h"
#include "libc-hooks.h"

typedef void *dlsym_function(void *, const char *);

static _Atomic(dlsym_function *) real_dlsym; /* written once with one value, by whoever comes first */

static dlsym_function *find_dlsym(void)
{
	dlsym_function *f = atomic_load_explicit(&real_dlsym, memory_order_relaxed);

	if (!f) {
		f = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
		if (!f)
			f = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.17");
		atomic_store_explicit(&real_dlsym, f, memory_order_relaxed);
	}
	return f;
}

void *tagtso_next(const char *name)
{
	dlsym_function *f = find_dlsym();

	return f ? f(RTLD_NEXT, name) : NULL;
}

void *tagtso_find(const char *name)
{
	dlsym_function *f = find_dlsym();

	return f ? f(RTLD_DEFAULT, name) : NULL;
}

/* box64 resolves the guest's libpthread, libm and librt by dlsym on their own handles, which do not see a preloaded library. RTLD_NEXT and
 * RTLD_DEFAULT depend on who calls: those are tail calls, in which the caller stays the caller. */
TAGTSO_EXPORT void *dlsym(void *restrict handle, const char *restrict name)
{
	dlsym_function *f = find_dlsym();

	if (handle == RTLD_NEXT || handle == RTLD_DEFAULT)
		return f(handle, name);
	void *found = f(handle, name);

	return found ? tagtso_libc_substitute(found) : NULL;
}
