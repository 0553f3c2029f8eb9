/* SPDX-License-Identifier: MIT */
/* Looks up real functions. */
#include "next.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
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

/* --- many names at start-up ------------------------------------------------------------------------------------------ */

/* ld.so changes the addresses in an object's dynamic section from the file's to those in memory, except in sections that it may not write. */
static const void *address_of(const struct dl_phdr_info *info, const ElfW(Dyn) * d)
{
	return (const void *)(d->d_un.d_ptr < info->dlpi_addr ? info->dlpi_addr + d->d_un.d_ptr : d->d_un.d_ptr);
}

static struct tagtso_object read_object(const struct dl_phdr_info *info)
{
	struct tagtso_object o = { .base = info->dlpi_addr };
	const ElfW(Dyn) *d = NULL;

	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			d = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (; d && d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_SYMTAB)
			o.symbols = address_of(info, d);
		else if (d->d_tag == DT_STRTAB)
			o.strings = address_of(info, d);
		else if (d->d_tag == DT_VERSYM)
			o.versions = address_of(info, d);
		else if (d->d_tag == DT_GNU_HASH)
			o.hash = address_of(info, d);
	}
	return o;
}

static bool holds(const struct dl_phdr_info *info, const void *at)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (ElfW(Addr))at - info->dlpi_addr - p->p_vaddr < p->p_memsz)
			return true;
	}
	return false;
}

struct collection {
	struct tagtso_objects *objects;
	bool found_us;
};

static int collect(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct collection *c = arg;
	struct tagtso_objects *all = c->objects;

	(void)size;
	if (!c->found_us) {
		c->found_us = holds(info, &real_dlsym);
		return 0;
	}
	all->object[all->n] = read_object(info);
	/* What comes after one that cannot be searched is not the next. */
	if (!all->object[all->n].hash || !all->object[all->n].symbols || !all->object[all->n].strings)
		return 1;
	return ++all->n == TAGTSO_OBJECTS;
}

void tagtso_objects_read(struct tagtso_objects *objects)
{
	struct collection c = { .objects = objects };

	objects->n = 0;
	dl_iterate_phdr(collect, &c);
}

static uint32_t gnu_hash(const char *name)
{
	uint32_t h = 5381;

	for (; *name; name++)
		h = h * 33 + (unsigned char)*name;
	return h;
}

/* strcmp is one of the functions that are being looked up. */
static bool is_same(const char *a, const char *b)
{
	for (; *a && *a == *b; a++)
		b++;
	return *a == *b;
}

/* dlsym gives the default version of a name; bit 15 marks the others. 0 and 1 stand for no version. */
static bool is_default_version(const struct tagtso_object *o, uint32_t i)
{
	return !o->versions || (o->versions[i] & 0x7fff) < 2 || !(o->versions[i] & 0x8000);
}

/* Linear chains of hashes, sorted by bucket; the last one of a chain has bit 0 set, which is no part of the hash. */
static const ElfW(Sym) * find_symbol(const struct tagtso_object *o, const char *name, uint32_t h)
{
	uint32_t buckets = o->hash[0], first = o->hash[1], blooms = o->hash[2], shift = o->hash[3];
	const uint64_t *bloom = (const void *)(o->hash + 4);
	const uint32_t *bucket = (const void *)(bloom + blooms), *chain = bucket + buckets;
	uint64_t both = UINT64_C(1) << h % 64 | UINT64_C(1) << (h >> shift) % 64;

	if ((bloom[h / 64 % blooms] & both) != both)
		return NULL;
	for (uint32_t i = bucket[h % buckets]; i >= first; i++) {
		uint32_t theirs = chain[i - first];

		if ((theirs | 1) == (h | 1) && is_default_version(o, i) &&
		    is_same(o->strings + o->symbols[i].st_name, name))
			return &o->symbols[i];
		if (theirs & 1)
			break;
	}
	return NULL;
}

void *tagtso_next_in(const struct tagtso_objects *objects, const char *name)
{
	uint32_t h = gnu_hash(name);

	for (unsigned i = 0; i < objects->n; i++) {
		const ElfW(Sym) *symbol = find_symbol(&objects->object[i], name, h);

		if (!symbol)
			continue;
		if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && symbol->st_shndx != SHN_UNDEF)
			return (void *)(objects->object[i].base + symbol->st_value);
		break; /* STT_GNU_IFUNC: the processor's own variant of it, chosen by ld.so */
	}
	return tagtso_next(name);
}
