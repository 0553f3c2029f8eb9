/* SPDX-License-Identifier: MIT */
/* A bounded lock-free queue of many producers and consumers, by sequence numbers in its cells: on x86 plain moves carry the messages.
 *
 * usage: queue [SEED [MESSAGES]]      MESSAGES: of each producer (20000) */
#include "guest.h"

enum { PRODUCERS = 3, CONSUMERS = 3, CELLS = 256 };

struct message {
	uint32_t producer, number;
	uint64_t noise, check;
};

struct cell {
	_Atomic uint64_t turn;
	struct message message;
};

static struct queue {
	_Alignas(64) _Atomic uint64_t in;
	_Alignas(64) _Atomic uint64_t out;
	_Alignas(64) struct cell cell[CELLS];
} * queue;

static uint64_t seed = 1;
static uint32_t messages = 20000;
static _Atomic uint64_t left, sent, received, full, empty;
static _Atomic uint8_t *seen; /* by producer and number */

static bool put(const struct message *m)
{
	uint64_t at = atomic_load_explicit(&queue->in, memory_order_relaxed);

	for (;;) {
		struct cell *c = &queue->cell[at % CELLS];
		int64_t ahead = (int64_t)(atomic_load_explicit(&c->turn, memory_order_acquire) - at);

		if (ahead < 0)
			return false;
		if (ahead > 0)
			at = atomic_load_explicit(&queue->in, memory_order_relaxed);
		else if (atomic_compare_exchange_weak_explicit(&queue->in, &at, at + 1, memory_order_relaxed,
		                                               memory_order_relaxed)) {
			c->message = *m;
			atomic_store_explicit(&c->turn, at + 1, memory_order_release);
			return true;
		}
	}
}

static bool take(struct message *m)
{
	uint64_t at = atomic_load_explicit(&queue->out, memory_order_relaxed);

	for (;;) {
		struct cell *c = &queue->cell[at % CELLS];
		int64_t ahead = (int64_t)(atomic_load_explicit(&c->turn, memory_order_acquire) - (at + 1));

		if (ahead < 0)
			return false;
		if (ahead > 0)
			at = atomic_load_explicit(&queue->out, memory_order_relaxed);
		else if (atomic_compare_exchange_weak_explicit(&queue->out, &at, at + 1, memory_order_relaxed,
		                                               memory_order_relaxed)) {
			*m = c->message;
			atomic_store_explicit(&c->turn, at + CELLS, memory_order_release);
			return true;
		}
	}
}

static void produce(uint32_t me)
{
	uint64_t random = guest_seed(seed, me), sum = 0, waits = 0;

	for (uint32_t n = 0; n < messages; n++) {
		struct message m = { .producer = me, .number = n, .noise = guest_random(&random) };

		m.check = m.noise ^ ~(uint64_t)n ^ (uint64_t)me << 32;
		sum += m.noise;
		for (; !put(&m); waits++)
			guest_pause(waits);
	}
	sent += sum;
	full += waits;
}

static void consume(void)
{
	uint32_t last[PRODUCERS];
	uint64_t sum = 0, waits = 0;
	struct message m;

	memset(last, 0xff, sizeof last);
	while (left) {
		if (!take(&m)) {
			guest_pause(waits++);
			continue;
		}
		left--;
		WANT(m.producer < PRODUCERS && m.number < messages);
		if (m.producer >= PRODUCERS || m.number >= messages)
			continue;
		WANT(m.check == (m.noise ^ ~(uint64_t)m.number ^ (uint64_t)m.producer << 32));
		WANT((int32_t)m.number > (int32_t)last[m.producer]);
		WANT(atomic_fetch_add(&seen[m.producer * messages + m.number], 1) == 0);
		last[m.producer] = m.number;
		sum += m.noise;
	}
	received += sum;
	empty += waits;
}

static void *run(void *arg)
{
	uintptr_t me = (uintptr_t)arg;

	if (me < PRODUCERS)
		produce((uint32_t)me);
	else
		consume();
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		messages = (uint32_t)strtoul(argv[2], NULL, 0);
	left = (uint64_t)PRODUCERS * messages;
	queue = aligned_alloc(64, sizeof *queue);
	memset(queue, 0, sizeof *queue);
	for (uint64_t i = 0; i < CELLS; i++)
		queue->cell[i].turn = i;
	seen = calloc(PRODUCERS, messages);
	guest_run_threads(PRODUCERS + CONSUMERS, run);
	WANT(sent == received);
	for (uint32_t i = 0; i < PRODUCERS * messages; i++)
		WANT(seen[i] == 1);
	printf("queue: seed %lu: %lu messages, sum %016lx; found full %lu times, empty %lu times\n", seed,
	       (uint64_t)PRODUCERS * messages, (uint64_t)received, (uint64_t)full, (uint64_t)empty);
	guest_say("each message of a lock-free queue arrives once, whole and in order");
	return guest_status();
}
