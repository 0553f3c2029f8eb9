/* SPDX-License-Identifier: MIT */
/* A table of records under sequence locks: readers take nothing, and look again if a writer was there. On x86 all of a reader is plain moves.
 *
 * usage: table [SEED [UPDATES]]      UPDATES: of each writer (15000) */
#include "guest.h"

enum { WRITERS = 2, READERS = 3, RECORDS = 64, WORDS = 6 };

/* A record's words follow from its version: word i is version * (2 i + 3) + index. */
struct record {
	_Atomic uint32_t sequence;
	_Atomic uint64_t version;
	_Atomic uint64_t word[WORDS];
};

static struct record *table;
static uint64_t seed = 1;
static uint32_t updates = 15000;
static _Atomic unsigned writing = WRITERS;
static _Atomic uint64_t reads, again, done;

static void update(struct record *r, uint64_t index)
{
	uint32_t sequence = atomic_load_explicit(&r->sequence, memory_order_relaxed);
	uint64_t version, waits = 0;

	while (sequence & 1 || !atomic_compare_exchange_weak_explicit(&r->sequence, &sequence, sequence + 1,
	                                                              memory_order_acquire, memory_order_relaxed)) {
		guest_pause(waits++);
		sequence = atomic_load_explicit(&r->sequence, memory_order_relaxed);
	}
	atomic_thread_fence(memory_order_release);
	version = atomic_load_explicit(&r->version, memory_order_relaxed) + 1;
	atomic_store_explicit(&r->version, version, memory_order_relaxed);
	for (unsigned i = 0; i < WORDS; i++)
		atomic_store_explicit(&r->word[i], version * (2 * i + 3) + index, memory_order_relaxed);
	atomic_store_explicit(&r->sequence, sequence + 2, memory_order_release);
}

/* Returns the version. */
static uint64_t look(struct record *r, uint64_t index, uint64_t *retries)
{
	uint64_t version, word[WORDS];
	uint32_t before, after;

	for (;; guest_pause((*retries)++)) {
		before = atomic_load_explicit(&r->sequence, memory_order_acquire);
		version = atomic_load_explicit(&r->version, memory_order_relaxed);
		for (unsigned i = 0; i < WORDS; i++)
			word[i] = atomic_load_explicit(&r->word[i], memory_order_relaxed);
		atomic_thread_fence(memory_order_acquire);
		after = atomic_load_explicit(&r->sequence, memory_order_relaxed);
		if (before == after && !(before & 1))
			break;
	}
	for (unsigned i = 0; i < WORDS; i++)
		WANT(word[i] == version * (2 * i + 3) + index);
	WANT(version == before / 2);
	return version;
}

static void *run(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	uint64_t random = guest_seed(seed, me), seen[RECORDS] = { 0 }, mine = 0, retries = 0;

	if (me < WRITERS) {
		for (uint32_t n = 0; n < updates; n++) {
			uint64_t i = guest_random(&random) % RECORDS;

			update(&table[i], i);
		}
		done += updates;
		writing--;
		return NULL;
	}
	do {
		uint64_t i = guest_random(&random) % RECORDS, version = look(&table[i], i, &retries);

		WANT(version >= seen[i]); /* it never goes back */
		seen[i] = version;
		mine++;
	} while (writing);
	reads += mine;
	again += retries;
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t versions = 0, none = 0;

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		updates = (uint32_t)strtoul(argv[2], NULL, 0);
	table = calloc(RECORDS, sizeof *table);
	for (uint64_t i = 0; i < RECORDS; i++)
		for (unsigned w = 0; w < WORDS; w++)
			table[i].word[w] = i;
	guest_run_threads(WRITERS + READERS, run);
	for (uint64_t i = 0; i < RECORDS; i++)
		versions += look(&table[i], i, &none);
	WANT(versions == done && done == (uint64_t)WRITERS * updates);
	WANT(reads >= READERS);
	printf("table: seed %lu: %lu updates, %lu reads, %lu of them again\n", seed, versions, (uint64_t)reads,
	       (uint64_t)again);
	guest_say("readers of a table under sequence locks see whole records, and no update is lost");
	return guest_status();
}
