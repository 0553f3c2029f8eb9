/* SPDX-License-Identifier: MIT */
/* Eight threads that share memory in changing ways, by plain moves wherever x86 allows it: what the auditor looks at (tests/audit/run).
 *
 * usage: stress [SEED [ROUNDS]]      ROUNDS: of each thread (1500) */
#include <sys/mman.h>

#include "guest.h"

enum { THREADS = 8, BOXES = 24, CELLS = 48, RING = 32, PAGES = 4, PAGE = 4096 };

static uint64_t seed = 1;
static uint32_t rounds = 1500;

/* Buffers that are filled here and emptied there: whoever finds one in a box owns it. */
struct parcel {
	uint32_t bytes;
	uint8_t first, data[];
};
static struct parcel *_Atomic *box;
static uint8_t *_Atomic *gift; /* pages that nobody has touched, from one thread for another */
static _Atomic uint64_t posted, opened;

/* Words under spin locks that plain moves release; both cross granules. */
struct cell {
	volatile uint32_t locked;
	uint8_t pad[8];
	uint64_t count, more, twice;
} __attribute__((packed, aligned(64)));
static struct cell *cell;
static _Atomic uint64_t added;

/* From each thread to its neighbour, by plain moves. */
static struct ring {
	volatile uint64_t head __attribute__((aligned(64))), tail __attribute__((aligned(64)));
	volatile uint64_t slot[RING][2];
} * ring;

static _Atomic uint64_t *shared; /* LOCK'd by all */

struct self {
	uint64_t me, random, checked, counted;
	uint8_t *pages;    /* its own, by mmap */
	uint64_t *numbers; /* its own, from malloc */
	uint64_t sent, got;
	_Atomic uint64_t own;
};

static void post(struct self *s)
{
	uint32_t bytes = (uint32_t)(guest_random(&s->random) % 3000 + 1);
	struct parcel *p = malloc(sizeof *p + bytes), *old;

	p->bytes = bytes;
	p->first = (uint8_t)guest_random(&s->random);
	for (uint32_t i = 0; i < bytes; i++)
		p->data[i] = (uint8_t)(p->first + 3 * i);
	old = atomic_exchange(&box[guest_random(&s->random) % BOXES], p);
	posted++;
	if (!old)
		return;
	for (uint32_t i = 0; i < old->bytes; i++)
		WANT(old->data[i] == (uint8_t)(old->first + 3 * i));
	opened++;
	free(old);
}

static void count(struct self *s)
{
	struct cell *c = &cell[guest_random(&s->random) % CELLS];
	uint64_t waits = 0;

	while (__sync_lock_test_and_set(&c->locked, 1))
		while (c->locked)
			guest_pause(waits++);
	WANT(c->twice == 2 * c->count);
	c->count++;
	c->twice += 2;
	__asm__ volatile("" ::: "memory");
	c->locked = 0;
	s->counted++;
}

static void send(struct self *s)
{
	struct ring *to = &ring[s->me];

	if (to->head - to->tail == RING)
		return;
	to->slot[to->head % RING][0] = s->sent * 5;
	to->slot[to->head % RING][1] = ~s->sent;
	to->head = ++s->sent;
}

static void get(struct self *s)
{
	struct ring *from = &ring[(s->me + 1) % THREADS];

	while (from->head != s->got) {
		WANT(from->slot[s->got % RING][0] == s->got * 5 && from->slot[s->got % RING][1] == ~s->got);
		from->tail = ++s->got;
	}
}

/* Memory of its own: bytes, words that cross granules, copies, and pages that are given back and come again empty. */
static void own_pages(struct self *s)
{
	uint64_t at = guest_random(&s->random) % (PAGES * PAGE - 64), word;

	memcpy(&word, s->pages + at, 8);
	word += s->random;
	memcpy(s->pages + at, &word, 8);
	memcpy(s->pages + (at + 5000) % (PAGES * PAGE - 64), s->pages + at, 48);
	if (guest_random(&s->random) % 64 == 0) {
		WANT(madvise(s->pages, PAGE, MADV_DONTNEED) == 0);
		for (unsigned i = 0; i < PAGE; i += 256)
			WANT(s->pages[i] == 0);
	}
	if (guest_random(&s->random) % 128 == 0) {
		WANT(munmap(s->pages, PAGES * PAGE) == 0);
		s->pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		WANT(s->pages[guest_random(&s->random) % (PAGES * PAGE)] == 0);
	}
}

/* Pages that the one maps and the other is the first to use. */
static void give_pages(struct self *s)
{
	uint8_t *fresh, *old;

	if (guest_random(&s->random) % 16 != 0)
		return;
	fresh = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	old = atomic_exchange(&gift[guest_random(&s->random) % THREADS], fresh);
	if (!old)
		return;
	for (unsigned i = 0; i < 2 * PAGE; i += 512) {
		WANT(old[i] == 0);
		old[i] = (uint8_t)(i / 512 + s->me);
	}
	for (unsigned i = 0; i < 2 * PAGE; i += 512)
		WANT(old[i] == (uint8_t)(i / 512 + s->me));
	WANT(munmap(old, 2 * PAGE) == 0);
}

static void own_numbers(struct self *s)
{
	uint64_t old = 0;

	for (unsigned i = 0; i < 64; i++)
		s->numbers[i] += i;
	WANT(s->numbers[63] == 63 * ++s->checked);
	while (!atomic_compare_exchange_weak(&s->own, &old, old + 2))
		continue;
	atomic_fetch_add(&shared[guest_random(&s->random) % 8], 1);
}

static void *run(void *arg)
{
	struct self *s = calloc(1, sizeof *s);

	s->me = (uintptr_t)arg;
	s->random = guest_seed(seed, s->me);
	s->pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s->numbers = calloc(64, sizeof *s->numbers);
	for (uint32_t n = 0; n < rounds; n++) {
		void (*const ways[])(struct self *) = { post,      count,       send,  get,
			                                own_pages, own_numbers, count, give_pages };

		ways[guest_random(&s->random) % 8](s);
		if (n % 256 == 255)
			sched_yield();
	}
	added += s->counted;
	WANT(s->own == 2 * s->checked);
	atomic_fetch_add(&shared[8], s->checked);
	munmap(s->pages, PAGES * PAGE);
	free(s->numbers);
	free(s);
	return NULL;
}

static void make(void)
{
	box = calloc(BOXES, sizeof *box);
	gift = calloc(THREADS, sizeof *gift);
	cell = aligned_alloc(64, CELLS * sizeof *cell);
	memset(cell, 0, CELLS * sizeof *cell);
	ring = aligned_alloc(64, THREADS * sizeof *ring);
	memset(ring, 0, THREADS * sizeof *ring);
	shared = calloc(9, sizeof *shared);
}

static void check(void)
{
	uint64_t counted = 0, in_boxes = 0, locked = 0;

	for (unsigned i = 0; i < CELLS; i++)
		counted += cell[i].count;
	for (unsigned i = 0; i < BOXES; i++)
		in_boxes += box[i] != NULL;
	for (unsigned i = 0; i < 8; i++)
		locked += shared[i];
	WANT(counted == added);
	WANT(posted == opened + in_boxes);
	WANT(locked == shared[8]);
	printf("stress: seed %lu: %lu parcels, %lu additions under locks, %lu locked additions\n", seed,
	       (uint64_t)posted, counted, locked);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		rounds = (uint32_t)strtoul(argv[2], NULL, 0);
	make();
	guest_run_threads(THREADS, run);
	check();
	guest_say("memory shared in changing ways keeps what was written");
	return guest_status();
}
