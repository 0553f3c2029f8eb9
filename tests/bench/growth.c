/* SPDX-License-Identifier: MIT */
/* What guest memory costs by its size, in a process under the preload; tests/bench/growth makes the table.
 *
 *     TAGTSO_EMULATOR=generic LD_PRELOAD=/usr/lib/libtagtso.so growth MIB
 *
 * Marks runs of the count plugin (tests/plugin/count.c), each of MIB of memory, "MIB what":
 *   wake      a second thread starts while so much is resident
 *   touch     so much is touched for the first time, a word of each page
 *   move      the second thread reads what the first one touched
 *   unmap     that is unmapped
 * Exit status 0, 77 without MTE or without the shim, 1 if memory is not whose it should be. */
#include <asm/hwcap.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "alloc/tags.h"
#include "tests/plugin/marks.h"

enum { PAGE = 4096, MIB = 1 << 20, CODE = 256 * 1024 /* over 128 KiB, so that it is taken for generated code */ };

/* In code that is made at run time: loads, or stores, the word at `at`. */
typedef uint64_t access_function(uint64_t *at, uint64_t value);
static access_function *load, *store;

static char *map(uint64_t bytes, int prot)
{
	char *p = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("growth: mmap");
		exit(1);
	}
	return p;
}

static void emit(void)
{
	static const uint32_t words[] = {
		0xf9400000, 0xd65f03c0, /* ldr x0, [x0]; ret */
		0xf9000001, 0xd65f03c0, /* str x1, [x0]; ret */
	};
	char *code = map(CODE, PROT_READ | PROT_WRITE | PROT_EXEC);

	memcpy(code, words, sizeof(words));
	__builtin___clear_cache(code, code + sizeof(words));
	load = (access_function *)(void *)code;
	store = (access_function *)(void *)(code + 8);
}

static void mark(unsigned mib, const char *what)
{
	char label[32];

	sprintf(label, "%u %s", mib, what);
	mark_start(label);
}

static void touch(char *from, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += PAGE)
		store((uint64_t *)(void *)(from + at), at);
}

/* The second thread: meets the first at the barrier, reads, and meets it again. */
static struct {
	pthread_barrier_t barrier;
	char *from;
	uint64_t bytes;
	bool wrong;
} reader;

static void *read_all(void *argument)
{
	pthread_barrier_wait(&reader.barrier);
	pthread_barrier_wait(&reader.barrier);
	for (uint64_t at = 0; at < reader.bytes; at += PAGE)
		reader.wrong |= load((uint64_t *)(void *)(reader.from + at), 0) != at;
	pthread_barrier_wait(&reader.barrier);
	return argument;
}

static bool tag_is(const char *at, unsigned tag)
{
	return tagtso_tag_get((uint64_t)at) == tag;
}

int main(int argc, char **argv)
{
	unsigned mib = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
	uint64_t bytes = (uint64_t)mib * MIB;
	pthread_t thread;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_MTE) || !getenv("LD_PRELOAD") || mib < 1 || mib > 16384) {
		fprintf(stderr,
		        "usage: TAGTSO_EMULATOR=generic LD_PRELOAD=libtagtso.so %s MIB (1 to 16384): with MTE\n",
		        argv[0]);
		return 77;
	}
	emit();
	pthread_barrier_init(&reader.barrier, NULL, 2);
	char *resident = map(bytes, PROT_READ | PROT_WRITE);

	touch(resident, bytes);
	mark(mib, "wake");
	if (pthread_create(&thread, NULL, read_all, NULL))
		return 1;
	pthread_barrier_wait(&reader.barrier);
	mark_stop();
	reader.from = map(bytes, PROT_READ | PROT_WRITE);
	reader.bytes = bytes;
	mark(mib, "touch");
	touch(reader.from, bytes);
	mark_stop();

	unsigned mine = tagtso_tag_mine();
	bool right = mine && tag_is(resident, mine) && tag_is(resident + bytes - PAGE, mine) &&
	             tag_is(reader.from, mine) && tag_is(reader.from + bytes - PAGE, mine);

	mark(mib, "move");
	pthread_barrier_wait(&reader.barrier);
	pthread_barrier_wait(&reader.barrier);
	mark_stop();
	right &= !reader.wrong && !tag_is(reader.from, mine) && !tag_is(reader.from + bytes - PAGE, mine);
	mark(mib, "unmap");
	right &= !munmap(reader.from, bytes);
	mark_stop();
	pthread_join(thread, NULL);
	if (!right)
		fprintf(stderr, "growth: a value is wrong, or memory is not whose it should be\n");
	return !right;
}
