/* SPDX-License-Identifier: MIT */
/* Finds the real functions behind the interposed ones, and the interposed ones behind the real. */
#include "libc-wrap.h"
#include "next.h"

struct tagtso_libc_entry tagtso_libc[TAGTSO_NFN] = {
#define FUNCTION(ret, name, proto) { #name, (void *)tagtso_w_##name, NULL },
#include "libc-all.def"
#undef FUNCTION
};

/* Open addressing on the real address; entry + 1, 0 = free. Written by tagtso_libc_init() only, before other threads exist. */
enum { TAGTSO_LIBC_BUCKETS = 4096 };
_Static_assert(TAGTSO_NFN * 2 < TAGTSO_LIBC_BUCKETS, "a sparse table keeps probes short");
static uint16_t buckets[TAGTSO_LIBC_BUCKETS];
static _Atomic bool ready;

/* Stands for a function that this glibc does not have. */
static long missing(void)
{
	errno = ENOSYS;
	return -1;
}

/* C23 changed only what 0b in front of a number means: where glibc is older than 2.38, the functions without the prefix do. */
static const char *older_name(const char *name)
{
	static const char prefix[] = "__isoc23_";
	size_t n = sizeof(prefix) - 1;

	for (size_t i = 0; i < n; i++)
		if (name[i] != prefix[i])
			return NULL;
	return name + n;
}

/* objects: NULL where libraries may have been unloaded meanwhile. */
static void *look_up(unsigned index, const struct tagtso_objects *objects)
{
	const char *name = tagtso_libc[index].name;
	void *real = NULL;

	for (; name && !real; name = older_name(name))
		real = objects ? tagtso_next_in(objects, name) : tagtso_next(name);
	return real ? real : (void *)missing;
}

void *tagtso_libc_resolve(unsigned index)
{
	int saved = errno;
	void *real = NULL;

	if (!atomic_load_explicit(&ready, memory_order_acquire))
		real = tagtso_libc_early(index);
	if (!real) {
		real = look_up(index, NULL);
		atomic_store_explicit(&tagtso_libc[index].real, real, memory_order_relaxed);
	}
	errno = saved;
	return real;
}

static unsigned bucket_of(const void *real)
{
	return (unsigned)(((uintptr_t)real >> 2) * UINT64_C(0x9e3779b97f4a7c15) >> 52) % TAGTSO_LIBC_BUCKETS;
}

static void remember(unsigned index, const void *real)
{
	unsigned at = bucket_of(real);

	/* Aliases (open, open64) share an address; the first one stands for all. */
	for (; buckets[at]; at = (at + 1) % TAGTSO_LIBC_BUCKETS)
		if (atomic_load_explicit(&tagtso_libc[buckets[at] - 1].real, memory_order_relaxed) == real)
			return;
	buckets[at] = (uint16_t)(index + 1);
}

void tagtso_libc_init(void)
{
	struct tagtso_objects objects;
	int saved = errno;

	tagtso_objects_read(&objects);
	for (unsigned i = 0; i < TAGTSO_NFN; i++) {
		void *real = look_up(i, &objects);

		atomic_store_explicit(&tagtso_libc[i].real, real, memory_order_relaxed);
		if (real != (void *)missing)
			remember(i, real);
	}
	atomic_store_explicit(&ready, true, memory_order_release);
	errno = saved;
}

void *tagtso_libc_substitute(void *real)
{
	if (!real || !atomic_load_explicit(&ready, memory_order_acquire))
		return real;
	for (unsigned at = bucket_of(real); buckets[at]; at = (at + 1) % TAGTSO_LIBC_BUCKETS) {
		struct tagtso_libc_entry *entry = &tagtso_libc[buckets[at] - 1];

		if (atomic_load_explicit(&entry->real, memory_order_relaxed) == real)
			return entry->wrapper;
	}
	return real;
}
