/* SPDX-License-Identifier: MIT */
/* A thread pool with work stealing: each worker pushes and takes at one end of its own deque, the others steal at the other (Chase and Lev;
 * orders as in Le, Pop, Cohen and Nardelli, 2013). Tasks come from malloc in one thread and are freed in another.
 *
 * usage: pool [SEED [LEAVES]]      LEAVES: of the tree of tasks, with 64 numbers each (3000) */
#include "guest.h"

enum { WORKERS = 4, SLOTS = 4096, NUMBERS = 64 };

struct task {
	uint32_t from, to;   /* leaves */
	struct task *parent; /* NULL: the root */
	_Atomic uint64_t sum;
	_Atomic int missing; /* children */
};

struct deque {
	_Alignas(64) _Atomic int64_t top;
	_Alignas(64) _Atomic int64_t bottom;
	_Alignas(64) struct task *_Atomic slot[SLOTS];
};

static struct deque *deques;
static uint64_t seed = 1, *numbers, result;
static uint32_t leaves = 3000;
static _Atomic bool finished;
static _Atomic uint64_t executed, stolen, lost;

static void push(struct deque *d, struct task *t)
{
	int64_t b = atomic_load_explicit(&d->bottom, memory_order_relaxed);

	WANT(b - atomic_load_explicit(&d->top, memory_order_acquire) < SLOTS);
	atomic_store_explicit(&d->slot[b % SLOTS], t, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	atomic_store_explicit(&d->bottom, b + 1, memory_order_relaxed);
}

static struct task *take(struct deque *d)
{
	int64_t b = atomic_load_explicit(&d->bottom, memory_order_relaxed) - 1, t;
	struct task *task = NULL;

	atomic_store_explicit(&d->bottom, b, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	t = atomic_load_explicit(&d->top, memory_order_relaxed);
	if (t <= b)
		task = atomic_load_explicit(&d->slot[b % SLOTS], memory_order_relaxed);
	if (t == b &&
	    !atomic_compare_exchange_strong_explicit(&d->top, &t, t + 1, memory_order_seq_cst, memory_order_relaxed))
		task = NULL;
	if (t >= b)
		atomic_store_explicit(&d->bottom, b + 1, memory_order_relaxed);
	return task;
}

static struct task *steal(struct deque *d)
{
	int64_t t = atomic_load_explicit(&d->top, memory_order_acquire), b;
	struct task *task;

	atomic_thread_fence(memory_order_seq_cst);
	b = atomic_load_explicit(&d->bottom, memory_order_acquire);
	if (t >= b)
		return NULL;
	task = atomic_load_explicit(&d->slot[t % SLOTS], memory_order_relaxed);
	if (atomic_compare_exchange_strong_explicit(&d->top, &t, t + 1, memory_order_seq_cst, memory_order_relaxed))
		return task;
	atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
	return NULL;
}

static struct task *new_task(uint32_t from, uint32_t to, struct task *parent)
{
	struct task *t = malloc(sizeof *t);

	*t = (struct task){ .from = from, .to = to, .parent = parent };
	return t;
}

/* The last child to end ends its parent. */
static void end(struct task *t)
{
	while (t) {
		struct task *parent = t->parent;
		uint64_t sum = atomic_load_explicit(&t->sum, memory_order_relaxed);

		free(t);
		if (!parent) {
			result = sum;
			atomic_store_explicit(&finished, true, memory_order_release);
			return;
		}
		atomic_fetch_add_explicit(&parent->sum, sum, memory_order_relaxed);
		if (atomic_fetch_sub_explicit(&parent->missing, 1, memory_order_acq_rel) != 1)
			return;
		t = parent;
	}
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	return x * 0x9e3779b97f4a7c15;
}

static uint64_t leaf_sum(uint32_t leaf)
{
	uint64_t *copy = malloc(NUMBERS * sizeof *copy), sum = 0;

	for (unsigned i = 0; i < NUMBERS; i++)
		copy[i] = mix(numbers[(size_t)leaf * NUMBERS + i]);
	for (unsigned i = 0; i < NUMBERS; i++)
		sum += copy[i] ^ copy[(i + 7) % NUMBERS] >> 1;
	free(copy);
	return sum;
}

static void execute(struct deque *mine, struct task *t)
{
	uint32_t half = t->from + (t->to - t->from) / 2;
	struct task *a, *b;

	if (t->to - t->from == 1) {
		atomic_store_explicit(&t->sum, leaf_sum(t->from), memory_order_relaxed);
		end(t);
		return;
	}
	a = new_task(t->from, half, t);
	b = new_task(half, t->to, t);
	atomic_store_explicit(&t->missing, 2, memory_order_relaxed);
	push(mine, a);
	push(mine, b);
}

static void *work(void *arg)
{
	uintptr_t me = (uintptr_t)arg;
	uint64_t random = guest_seed(seed, me), count = 0, thefts = 0, waits = 0;

	while (!atomic_load_explicit(&finished, memory_order_acquire)) {
		struct task *t = take(&deques[me]);

		if (!t) {
			t = steal(&deques[guest_random(&random) % WORKERS]);
			thefts += t != NULL;
		}
		if (!t) {
			guest_pause(waits++);
			continue;
		}
		count++;
		execute(&deques[me], t);
	}
	executed += count;
	stolen += thefts;
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t wanted = 0;

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	if (argc > 2)
		leaves = (uint32_t)strtoul(argv[2], NULL, 0);
	numbers = malloc((size_t)leaves * NUMBERS * sizeof *numbers);
	for (uint64_t i = 0, random = guest_seed(seed, 99); i < (uint64_t)leaves * NUMBERS; i++)
		numbers[i] = guest_random(&random);
	for (uint32_t i = 0; i < leaves; i++)
		wanted += leaf_sum(i);
	deques = aligned_alloc(64, WORKERS * sizeof *deques);
	memset(deques, 0, WORKERS * sizeof *deques);
	push(&deques[0], new_task(0, leaves, NULL));
	guest_run_threads(WORKERS, work);
	WANT(result == wanted);
	WANT(executed == 2 * (uint64_t)leaves - 1);
	printf("pool: seed %lu: %lu tasks, %lu stolen, %lu thefts lost, sum %016lx\n", seed, (uint64_t)executed,
	       (uint64_t)stolen, (uint64_t)lost, result);
	guest_say("a pool with work stealing executes each task once, with the right sum");
	return guest_status();
}
