/* SPDX-License-Identifier: MIT */
/* Whose code a page is, for the plugins: told by its contents, from the ELF files that the plugin's arguments name.
 * What no file holds is region 0, "other". */
#ifndef TAGTSO_TESTS_REGIONS_H
#define TAGTSO_TESTS_REGIONS_H

#include <elf.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { PAGE = 4096, MAX_REGIONS = 16 };

static const char *region_names[MAX_REGIONS] = { "other" };
static size_t region_count = 1;
static GHashTable *pages; /* hash of a page's contents -> struct page_of_file; written before the machine starts */

struct page_of_file {
	size_t region;
	const char *file;
	uint64_t address; /* as the file's symbols have it */
	size_t slot;      /* of its first word among the counters of hot=N */
};
static GPtrArray *page_list; /* by slot / WORDS */
enum { WORDS = PAGE / 4 };

static uint64_t page_hash(const void *page)
{
	const uint64_t *word = page;
	uint64_t h = 0;

	for (size_t i = 0; i < PAGE / sizeof *word; i++)
		h = (h ^ word[i]) * 0x9e3779b97f4a7c15, h ^= h >> 29;
	return h;
}

static const struct page_of_file *page_of(const void *code)
{
	static const struct page_of_file other;
	const void *page = (const void *)((uintptr_t)code & ~(uintptr_t)(PAGE - 1));
	const struct page_of_file *found;
	uint64_t hash;

	if (!code || g_hash_table_size(pages) == 0)
		return &other;
	hash = page_hash(page);
	found = g_hash_table_lookup(pages, &hash);
	return found ? found : &other;
}

static size_t region_named(const char *name)
{
	for (size_t i = 0; i < region_count; i++)
		if (strcmp(region_names[i], name) == 0)
			return i;
	if (region_count == MAX_REGIONS)
		return 0;
	region_names[region_count] = g_strdup(name);
	return region_count++;
}

static void add_pages(size_t region, const char *name, const char *file, size_t size, const Elf64_Phdr *segment)
{
	size_t from = segment->p_offset, to = segment->p_offset + segment->p_filesz;

	for (size_t at = from & ~(size_t)(PAGE - 1); at < to && at < size; at += PAGE) {
		char contents[PAGE] = { 0 };
		struct page_of_file *page = g_new(struct page_of_file, 1);
		uint64_t hash;

		memcpy(contents, file + at, MIN((size_t)PAGE, size - at));
		hash = page_hash(contents);
		*page = (struct page_of_file){ region, name, segment->p_vaddr - segment->p_offset + at,
			                       (size_t)page_list->len * WORDS };
		g_ptr_array_add(page_list, page);
		g_hash_table_insert(pages, g_memdup2(&hash, sizeof hash), page);
	}
}

/* NAME:ELF */
static bool add_region(const char *spec)
{
	const char *path = strchr(spec, ':');
	g_autofree char *name = NULL, *file = NULL;
	char *base;
	const Elf64_Ehdr *elf;
	const Elf64_Phdr *segment;
	size_t size, region;

	if (!path || path == spec)
		return false;
	name = g_strndup(spec, path - spec);
	if (!g_file_get_contents(path + 1, &file, &size, NULL) || size < sizeof *elf ||
	    memcmp(file, ELFMAG, SELFMAG) != 0)
		return false;
	elf = (const Elf64_Ehdr *)file;
	if (elf->e_phoff + elf->e_phnum * sizeof *segment > size)
		return false;
	segment = (const Elf64_Phdr *)(file + elf->e_phoff);
	region = region_named(name);
	base = g_path_get_basename(path + 1); /* kept: pages name it */
	for (int i = 0; i < elf->e_phnum; i++)
		if (segment[i].p_type == PT_LOAD && segment[i].p_flags & PF_X)
			add_pages(region, base, file, size, &segment[i]);
	return true;
}

#endif
