/* SPDX-License-Identifier: MIT */
/* The guest's heap: jemalloc arenas whose extents are cut from the window, one per owner, so that threads do not share pages. */
#ifndef TAGTSO_ALLOC_HEAP_H
#define TAGTSO_ALLOC_HEAP_H

#include <stdbool.h>
#include <stddef.h>

/* 0, or -errno with *what = the step that failed. */
int tagtso_heap_init(const char **what);

/* The guest's malloc family; memory is zeroed where `zero` says so. NULL when there is none left. align: 0 or a power of two. */
void *tagtso_heap_alloc(size_t size, size_t align, bool zero);
void *tagtso_heap_realloc(void *pointer, size_t size);
void tagtso_heap_free(void *pointer);
size_t tagtso_heap_usable(const void *pointer);
/* True if the pointer is from tagtso_heap_alloc. */
bool tagtso_heap_owns(const void *pointer);

/* Memory of our own, outside the window; never through the emulator's malloc. Not for the handler. */
void *tagtso_heap_private_alloc(size_t size);
void tagtso_heap_private_free(void *pointer);

#endif
