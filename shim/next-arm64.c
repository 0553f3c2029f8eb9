/* SPDX-License-Identifier: MIT */
/* Looks up real functions. */
#include "next.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>

static _Atomic(tagtso_dlsym *) real_dlsym; /* written once with one value, by whoever comes first */

tagtso_dlsym *tagtso_real_dlsym(void)
{
	tagtso_dlsym *f = atomic_load_explicit(&real_dlsym, memory_order_relaxed);

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
	tagtso_dlsym *f = tagtso_real_dlsym();

	return f ? f(RTLD_NEXT, name) : NULL;
}

void *tagtso_find(const char *name)
{
	tagtso_dlsym *f = tagtso_real_dlsym();

	return f ? f(RTLD_DEFAULT, name) : NULL;
}
