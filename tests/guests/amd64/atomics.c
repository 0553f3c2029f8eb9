/* SPDX-License-Identifier: MIT */
/* Locks, semaphores, atomics of every size, and messages by plain moves, with exact results. */
#include <semaphore.h>
#include <unistd.h>

#include "guest.h"

enum { THREADS = 4, TIMES = 4000 };

/* All on the guest heap. */
static struct shared {
	_Atomic uint8_t byte;
	_Atomic uint16_t half;
	_Atomic uint32_t word;
	_Atomic uint64_t quad;
	_Atomic uint64_t cas, swapped, bits;
	uint64_t plain, guarded;
	pthread_mutex_t mutex;
	pthread_cond_t full, empty;
	pthread_rwlock_t rwlock;
	pthread_spinlock_t spin;
	sem_t semaphore;
	uint64_t by_rwlock, by_spin, by_semaphore;
	unsigned queue[8], head, tail;
	uint64_t received;
	__attribute__((aligned(16))) unsigned __int128 wide;
} * s;

static void *add(void *arg)
{
	uint64_t me = (uintptr_t)arg;

	for (unsigned i = 0; i < TIMES; i++) {
		atomic_fetch_add(&s->byte, 1);
		atomic_fetch_sub(&s->half, 1);
		atomic_fetch_add_explicit(&s->word, 3, memory_order_relaxed);
		atomic_fetch_add(&s->quad, 0x100000001);
		uint64_t old = atomic_load(&s->cas);

		while (!atomic_compare_exchange_weak(&s->cas, &old, old + 5))
			continue;
		s->bits ^= (uint64_t)1 << (me * 8 + i % 8);
		atomic_fetch_or(&s->bits, (uint64_t)1 << (32 + me));
		atomic_fetch_and(&s->bits, ~((uint64_t)1 << (48 + me)));
	}
	return NULL;
}

static void atomics(void)
{
	guest_run_threads(THREADS, add);
	WANT(s->byte == (uint8_t)(THREADS * TIMES));
	WANT(s->half == (uint16_t) - (THREADS * TIMES));
	WANT(s->word == 3 * THREADS * TIMES);
	WANT(s->quad == 0x100000001 * THREADS * TIMES);
	WANT(s->cas == 5 * THREADS * TIMES);
	WANT(s->bits == (uint64_t)0xf << 32);
	guest_say("locked instructions of all sizes count exactly");
}

/* LOCK CMPXCHG16B. */
static void *add_wide(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t low = 0, high = 0;
		bool good;

		do {
			uint64_t new_low = low + 1, new_high = high + (new_low == 0) + 7;

			__asm__ volatile("lock cmpxchg16b %1"
			                 : "=@ccz"(good), "+m"(s->wide), "+a"(low), "+d"(high)
			                 : "b"(new_low), "c"(new_high)
			                 : "memory");
		} while (!good);
	}
	return NULL;
}

static void wide(void)
{
	guest_run_threads(THREADS, add_wide);
	WANT((uint64_t)s->wide == THREADS * 1000 && (uint64_t)(s->wide >> 64) == 7 * THREADS * 1000);
	guest_say("LOCK CMPXCHG16B counts exactly");
}

/* Not aligned, within a granule and over two of them. By one thread: box64 0.4.3 does the store in two parts that another thread may get between. */
static char *crooked;
static void *add_crooked(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 500; i++) {
		__asm__ volatile("lock addl $1, (%0)" : : "r"(crooked + 5) : "memory");
		__asm__ volatile("lock addq $1, (%0)" : : "r"(crooked + 17) : "memory");
	}
	return NULL;
}

static void misaligned(void)
{
	uint32_t a;
	uint64_t b;

	crooked = aligned_alloc(64, 128);
	memset(crooked, 0, 128);
	guest_run_threads(1, add_crooked);
	memcpy(&a, crooked + 5, 4);
	memcpy(&b, crooked + 17, 8);
	WANT(a == 500 && b == 500);
	free(crooked);
	guest_say("locked additions to words that are not aligned count exactly");
}

static void *lock(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < TIMES; i++) {
		pthread_mutex_lock(&s->mutex);
		s->guarded++;
		pthread_mutex_unlock(&s->mutex);
		pthread_spin_lock(&s->spin);
		s->by_spin++;
		pthread_spin_unlock(&s->spin);
		pthread_rwlock_wrlock(&s->rwlock);
		s->by_rwlock++;
		pthread_rwlock_unlock(&s->rwlock);
		sem_wait(&s->semaphore);
		s->by_semaphore++;
		sem_post(&s->semaphore);
	}
	return NULL;
}

static void locks(void)
{
	guest_run_threads(THREADS, lock);
	WANT(s->guarded == THREADS * TIMES && s->by_spin == THREADS * TIMES);
	WANT(s->by_rwlock == THREADS * TIMES && s->by_semaphore == THREADS * TIMES);
	guest_say("mutexes, spin locks, read-write locks and semaphores guard plain additions");
}

static void *queue_user(void *arg)
{
	bool sends = (uintptr_t)arg % 2;

	for (unsigned i = 1; i <= TIMES; i++) {
		pthread_mutex_lock(&s->mutex);
		while (sends ? s->head - s->tail == 8 : s->head == s->tail)
			pthread_cond_wait(sends ? &s->empty : &s->full, &s->mutex);
		if (sends)
			s->queue[s->head++ % 8] = i;
		else
			s->received += s->queue[s->tail++ % 8];
		pthread_cond_signal(sends ? &s->full : &s->empty);
		pthread_mutex_unlock(&s->mutex);
	}
	return NULL;
}

static void conditions(void)
{
	guest_run_threads(4, queue_user);
	WANT(s->received == 2ul * TIMES * (TIMES + 1) / 2 && s->head == s->tail);
	guest_say("condition variables pass every message once");
}

/* Ring with plain moves: right on x86 without any fence. */
static struct ring {
	volatile uint64_t head __attribute__((aligned(64))), tail __attribute__((aligned(64)));
	volatile uint64_t slot[64][2];
} * ring;
enum { MESSAGES = 60000 };

static void *ring_user(void *arg)
{
	if ((uintptr_t)arg) {
		for (uint64_t i = 0; i < MESSAGES; i++) {
			while (i - ring->tail == 64)
				__builtin_ia32_pause();
			ring->slot[i % 64][0] = i * 3;
			ring->slot[i % 64][1] = ~i;
			ring->head = i + 1;
		}
		return NULL;
	}
	for (uint64_t i = 0; i < MESSAGES; i++) {
		while (ring->head == i)
			__builtin_ia32_pause();
		WANT(ring->slot[i % 64][0] == i * 3 && ring->slot[i % 64][1] == ~i);
		ring->tail = i + 1;
	}
	return NULL;
}

static void messages(void)
{
	ring = aligned_alloc(64, sizeof(*ring));
	memset(ring, 0, sizeof(*ring));
	guest_run_threads(2, ring_user);
	guest_say("messages by plain moves arrive in order");
}

/* Peterson's lock, with the one fence that x86 needs. */
static struct peterson {
	volatile int wants[2], turn;
	uint64_t count;
} * peterson;

static void *peterson_user(void *arg)
{
	int me = (int)(uintptr_t)arg;

	for (unsigned i = 0; i < TIMES; i++) {
		peterson->wants[me] = 1;
		peterson->turn = !me;
		__asm__ volatile("mfence" : : : "memory");
		while (peterson->wants[!me] && peterson->turn == !me)
			__builtin_ia32_pause();
		peterson->count++;
		__asm__ volatile("" : : : "memory");
		peterson->wants[me] = 0;
	}
	return NULL;
}

static void fences(void)
{
	peterson = calloc(1, sizeof(*peterson));
	guest_run_threads(2, peterson_user);
	WANT(peterson->count == 2 * TIMES);
	guest_say("Peterson's lock with MFENCE excludes");
}

int main(void)
{
	s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->full, NULL);
	pthread_cond_init(&s->empty, NULL);
	pthread_rwlock_init(&s->rwlock, NULL);
	pthread_spin_init(&s->spin, PTHREAD_PROCESS_PRIVATE);
	sem_init(&s->semaphore, 0, 1);
	atomics();
	wide();
	misaligned();
	locks();
	conditions();
	messages();
	fences();
	return guest_status();
}
