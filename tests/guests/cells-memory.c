/* SPDX-License-Identifier: MIT */
/* Mapping, unmapping, moving, protecting and emptying guest memory while threads own it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cells.h"

enum { MIB = 1 << 20, WORDS = PAGE / 8 };

static struct worker other;

static const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

/* ---- first touch ---- */

struct toucher {
	uint64_t *p;
	unsigned n, of;
};

static void *touch_pages(void *arg)
{
	struct toucher *t = arg;

	for (unsigned page = t->n; page < 64 * MIB / PAGE; page += 16 + t->of) {
		uint64_t *p = t->p + page * WORDS;

		SAME(get(p + 1), 0, "a word of fresh memory");
		CHECK(tag_of(p) != 0, "memory of two threads without a tag");
		put(p + 2 * t->n, page);
		SAME(get(p + 2 * t->n), page, "what was written to fresh memory");
	}
	return NULL;
}

static void big_mapping(void)
{
	uint64_t *before = cells_map(64 * MIB);

	put(before + 5 * WORDS, 77);
	cells_worker_start(&other);
	for (unsigned round = 0; round < 2; round++) {
		struct toucher t[4];

		for (unsigned n = 0; n < 4; n++)
			t[n] = (struct toucher){ round ? before : cells_map(64 * MIB), n, 4 };
		if (!round)
			t[3].p = t[2].p = t[1].p;
		cells_together(4, touch_pages, t, sizeof(t[0]));
	}
	SAME(get(before + 5 * WORDS), 77, "what was there before the second thread");
}

/* Accesses whose first bytes are on a page that was touched and whose last are on one that was not: chunks open at 256 KiB. */
static void half_fresh(void)
{
	struct code load = cells_emit(&snippet_ldr), store = cells_emit(&snippet_str);

	cells_worker_start(&other);
	for (unsigned n = 1; n < 16; n++) {
		char *edge = (char *)cells_map(8 * MIB) + n * 256 * 1024;

		cells_put_on(&other, (uint64_t *)(edge - 8), 0);
		if (n % 2)
			SAME(load.fn(edge - 3, 0, 0), 0, "fresh memory across the edge");
		store.fn(edge - 5, 0x1122334455667788, 0);
		SAME(load.fn(edge - 5, 0, 0), 0x1122334455667788, "what was written across the edge");
	}
}

/* ---- emptied and unmapped ---- */

static void dontneed(void)
{
	uint64_t *p = cells_map(64 * PAGE);

	cells_worker_start(&other);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 64; i++) {
			if (i % 3)
				put(p + i * WORDS, 9);
			if (i % 2)
				cells_put_on(&other, p + i * WORDS + 1, 9);
		}
		SAME(madvise(p + WORDS, 62 * PAGE, MADV_DONTNEED), 0, "madvise");
		for (unsigned i = 1; i < 63; i++) {
			SAME(i % 2 ? get(p + i * WORDS) : cells_get_on(&other, p + i * WORDS), 0,
			     "a word after MADV_DONTNEED");
			CHECK(tag_of(p + i * WORDS) != 0, "page %u has no tag after MADV_DONTNEED", i);
		}
		SAME(get(p + 63 * WORDS + 1), 9, "a word behind the range");
		SAME(get(p + 1 * WORDS + 1), 0, "the first page's other word");
	}
}

static void unmap_and_map(void)
{
	uint64_t *p = cells_map(8 * PAGE);

	cells_worker_start(&other);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 8; i++) {
			SAME(get(p + i * WORDS), 0, "a word of fresh memory");
			cells_put_on(&other, p + i * WORDS + i, round);
		}
		SAME(munmap(p, 8 * PAGE), 0, "munmap");
		void *again = mmap(p, 8 * PAGE, PROT_READ | PROT_WRITE, anonymous | MAP_FIXED_NOREPLACE, -1, 0);

		SAME(again, p, "the address of a mapping at a place that was unmapped");
	}
}

static void map_over(void)
{
	uint64_t *p = cells_map(8 * PAGE);

	cells_worker_start(&other);
	cells_put_on(&other, p + 3 * WORDS, 3);
	put(p, 1);
	put(p + 7 * WORDS, 7);
	SAME(mmap(p + 2 * WORDS, 4 * PAGE, PROT_READ | PROT_WRITE, anonymous | MAP_FIXED, -1, 0), p + 2 * WORDS,
	     "mmap over a mapping");
	SAME(get(p + 3 * WORDS), 0, "a word mapped over");
	SAME(get(p) + get(p + 7 * WORDS), 8, "the words beside");
	SAME(munmap(p + WORDS, 2 * PAGE), 0, "munmap of a part");
	SAME(get(p) + get(p + 7 * WORDS), 8, "the words beside what was unmapped");
}

static void reservation(void)
{
	uint64_t *p = mmap(NULL, 256 * MIB, PROT_NONE, anonymous | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
	cells_worker_start(&other);
	for (unsigned i = 0; i < 32; i++) {
		uint64_t *at = p + (size_t)i * MIB;

		SAME(mprotect(at, 2 * PAGE, PROT_READ | PROT_WRITE), 0, "mprotect of a part of a reservation");
		put(at, i);
		cells_put_on(&other, at + WORDS, i);
	}
	for (unsigned i = 0; i < 32; i++)
		SAME(get(p + (size_t)i * MIB) + cells_get_on(&other, p + (size_t)i * MIB + WORDS), 2 * i,
		     "what a reservation holds");
}

/* ---- moved ---- */

static void moved(void)
{
	uint64_t *p = cells_map(4 * PAGE);

	cells_worker_start(&other);
	for (unsigned i = 0; i < 4 * WORDS; i++)
		put(p + i, i);
	cells_put_on(&other, p + WORDS, 4242);
	p = mremap(p, 4 * PAGE, 40 * PAGE, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED, "mremap: %s", strerror(errno));
	for (unsigned i = 0; i < 4 * WORDS; i++)
		SAME(get(p + i), i == WORDS ? 4242 : i, "a word after growing");
	SAME(get(p + 39 * WORDS), 0, "a new word");
	cells_put_on(&other, p + 39 * WORDS, 1);
	p = mremap(p, 40 * PAGE, 2 * PAGE, 0);
	CHECK(p != MAP_FAILED, "mremap: %s", strerror(errno));
	SAME(cells_get_on(&other, p + WORDS), 4242, "a word after shrinking");
	SAME(get(p + 2 * WORDS - 1), 2 * WORDS - 1, "the last word after shrinking");

	uint64_t *to = cells_map(4 * PAGE);

	p = mremap(p, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	SAME(p, to, "mremap to a fixed place");
	SAME(get(p + 1) + cells_get_on(&other, p + WORDS), 4243, "two words after a move");
}

/* ---- protected ---- */

static void reprotected(void)
{
	struct code load = cells_emit(&snippet_ldr);
	uint64_t *p = cells_map(4 * PAGE);

	cells_worker_start(&other);
	CHECK(cells_train(load, LOCAL), "no LOCAL form");
	put(p, 1);
	cells_put_on(&other, p + WORDS, 2);
	SAME(mprotect(p, 4 * PAGE, PROT_READ), 0, "mprotect to read-only");
	SAME(load.fn(p, 0, 0) + load.fn(p + WORDS, 0, 0) + load.fn(p + 3 * WORDS, 0, 0), 3,
	     "the sum of read-only words");
	SAME(cells_get_on(&other, p) + cells_get_on(&other, p + 2 * WORDS), 1, "the sum that another thread reads");
	SAME(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE), 0, "mprotect to writable");
	put(p + WORDS, 5);
	cells_put_on(&other, p, 6);
	SAME(get(p) + get(p + WORDS), 11, "the sum of what was written afterwards");
}

/* ---- files ---- */

static void private_file(void)
{
	char name[] = "/tmp/cells-file.XXXXXX";
	int fd = mkstemp(name);
	char text[2 * PAGE + 10];

	memset(text, 'x', sizeof(text));
	CHECK(write(fd, text, sizeof(text)) == (ssize_t)sizeof(text), "write: %s", strerror(errno));
	cells_worker_start(&other);
	volatile uint64_t *p = mmap(NULL, sizeof(text), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

	CHECK(p != MAP_FAILED, "mmap of a file: %s", strerror(errno));
	SAME(get(p + WORDS), 0x7878787878787878, "a word of the file");
	SAME(get(p + 2 * WORDS + 2), 0, "a word behind its end");
	cells_put_on(&other, p, 1);
	SAME(get(p), 1, "what was written");
	SAME(pread(fd, text, 1, 0), 1, "pread");
	SAME(text[0], 'x', "the file's first byte");
	volatile uint64_t *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	put(shared, 2);
	SAME(pread(fd, text, 1, 0), 1, "pread");
	SAME(text[0], 2, "the file's first byte, through a shared mapping");
	unlink(name);
}

/* ---- native code and the kernel ---- */

static int by_value(const void *a, const void *b)
{
	return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

static void native_code(void)
{
	cells_worker_start(&other);
	char *p = (char *)cells_others(&other), *q = (char *)cells_mine();
	char text[100];

	for (unsigned i = 0; i < 4 * PAGE / 64; i++)
		cells_put_on(&other, (uint64_t *)(void *)(p + i % 64 * 64), 0);
	strcpy(p, "memory that another thread owns");
	SAME(strlen(p), 31, "strlen");
	memcpy(q, p, 32);
	SAME(memcmp(p, q, 32), 0, "memcmp");
	snprintf(p + 64, 100, "%s: %d", q + 7, 42);
	SAME(strcmp(p + 64, "that another thread owns: 42"), 0, "snprintf into guest memory");
	snprintf(text, sizeof(text), "%s", p + 64);
	SAME(strcmp(text, p + 64), 0, "snprintf out of guest memory");
	for (int i = 0; i < 100; i++)
		((int *)(void *)(p + 512))[i] = i * 37 % 100;
	qsort(p + 512, 100, sizeof(int), by_value);
	SAME(((int *)(void *)(p + 512))[99], 99, "the last of sorted numbers");
	SAME(strtol(strcpy(p + 128, "1731"), NULL, 10), 1731, "strtol of guest memory");
}

static void kernel_calls(void)
{
	int ends[2];
	volatile uint64_t nowhere = 8;

	cells_worker_start(&other);
	char *p = (char *)cells_others(&other), *q = (char *)cells_others(&other);
	struct iovec *v = (struct iovec *)(void *)(q + 256);

	SAME(pipe(ends), 0, "pipe");
	strcpy(p, "through a pipe");
	SAME(write(ends[1], p, 15), 15, "write from another's memory");
	SAME(read(ends[0], q, 100), 15, "read into another's memory");
	SAME(strcmp(p, q), 0, "what came through");
	v[0] = (struct iovec){ p, 7 };
	v[1] = (struct iovec){ p + 7, 8 };
	SAME(writev(ends[1], v, 2), 15, "writev with iovecs in guest memory");
	v[0] = (struct iovec){ q + 100, 3 };
	v[1] = (struct iovec){ q + 103, 20 };
	SAME(readv(ends[0], v, 2), 15, "readv");
	SAME(strcmp(p, q + 100), 0, "what came through");
	SAME(access(strcpy(q, "/proc/self/exe"), R_OK), 0, "access() of a path in guest memory");
	CHECK(getcwd(q, 256) == q, "getcwd: %s", strerror(errno));
	SAME(pipe((int *)(void *)(p + 512)), 0, "pipe() into guest memory");
	SAME(close(*(int *)(void *)(p + 512)), 0, "close of what it made");
	errno = 0;
	SAME(write(ends[1], (void *)nowhere, 1), -1, "write from nowhere");
	SAME(errno, EFAULT, "its error");
}

/* Mapping and unmapping by one thread while others touch memory. */
static volatile bool done;
static void *churn(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 300; i++) {
		size_t size = (i % 40 + 1) * PAGE;
		uint64_t *p = cells_map(size);

		for (size_t w = 0; w < size / 8; w += WORDS)
			put(p + w, w);
		for (size_t w = 0; w < size / 8; w += WORDS)
			SAME(get(p + w), w, "a word of memory that is about to be unmapped");
		if (i % 3 == 0)
			madvise(p, size, MADV_DONTNEED);
		munmap(p, size);
	}
	return NULL;
}

static void *keep_using(void *arg)
{
	uint64_t *p = arg;

	for (uint64_t i = 1; !done; i++) {
		put(p + i % 512 * 2, i);
		SAME(get(p + i % 512 * 2), i, "a word that only one thread uses");
	}
	return NULL;
}

static void churned(void)
{
	pthread_t thread;

	cells_worker_start(&other);
	pthread_create(&thread, NULL, keep_using, cells_map(2 * PAGE));
	cells_together(3, churn, NULL, 0);
	done = true;
	pthread_join(thread, NULL);
}

/* Byte by byte over pages of this thread, of another one, and that nobody touched. */
static void copy_bytes(void)
{
	enum { SIZE = 3 * PAGE };
	static unsigned char bytes[SIZE];
	unsigned char *p = cells_map(2 * SIZE + PAGE);
	struct code copy = cells_emit(&snippet_copy);

	cells_worker_start(&other);
	put((uint64_t *)p, 1);
	cells_put_on(&other, (uint64_t *)(p + PAGE), 1);
	cells_put_on(&other, (uint64_t *)(p + SIZE + PAGE), 1);
	for (unsigned i = 0; i < SIZE; i++)
		bytes[i] = (unsigned char)(i * 7 + i / 256);
	memcpy(p, bytes, SIZE);
	SAME(copy.fn(p, (uintptr_t)p + SIZE + 3, SIZE), bytes[SIZE - 1], "the last byte");
	SAME(memcmp(p + SIZE + 3, bytes, SIZE), 0, "the difference of the copy");
	SAME(is_rewritten(copy), false, "whether the copy loop was rewritten");
}

const struct test cells_memory[] = {
	TEST("copy-stepwise", "a copy loop that is never rewritten traps at each access without runs", copy_bytes,
	     "TAGTSO_THRESHOLD=0 TAGTSO_RUN=0", { "traps", '>', 24576 }, { "run_accesses", '=', 0 }),
	TEST("copy-in-runs", "and in runs twenty times less", copy_bytes,
	     "TAGTSO_THRESHOLD=0 TAGTSO_RUN=64 TAGTSO_HANDOVERS=0", { "run_accesses", '>', 23000 },
	     { "traps", '<', 24576 / 20 }),
	TEST("big-mapping", "big mappings are zero and tagged at the first touch, by any thread", big_mapping, NULL,
	     { "first_touch", '>', 100 }),
	TEST("half-fresh", "an access reaches from touched memory into memory that nobody touched", half_fresh, NULL,
	     { "first_touch", '>', 15 }),
	TEST("dontneed", "MADV_DONTNEED leaves zeros and no memory without a tag", dontneed, NULL),
	TEST("unmap-map", "memory mapped again where memory was unmapped is zero", unmap_and_map, NULL,
	     { "window_bytes", '<', 1 << 20 }),
	TEST("map-over", "MAP_FIXED over a part of a mapping leaves the rest", map_over, NULL),
	TEST("reservation", "memory reserved without access can be opened part by part", reservation, NULL),
	TEST("mremap", "mremap keeps the data when it grows, shrinks and moves memory", moved, NULL),
	TEST("reprotect", "read-only memory can be read by all threads, and written after it is writable again",
	     reprotected, NULL),
	TEST("private-file", "a private mapping of a file is the guest's own copy", private_file, NULL),
	TEST("native", "libc's functions work on memory that any thread owns", native_code, NULL),
	TEST("kernel", "system calls take and fill memory that any thread owns", kernel_calls, NULL),
	TEST("churn", "threads map and unmap while another uses its own memory", churned, NULL),
	TEST(NULL, NULL, NULL, NULL),
};
