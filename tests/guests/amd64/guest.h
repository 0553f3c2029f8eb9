/* SPDX-License-Identifier: MIT */
/* What the amd64 test programs share: they print "ok - SENTENCE" or "not ok - SENTENCE" for each thing that they saw. */
#ifndef TAGTSO_TESTS_GUEST_H
#define TAGTSO_TESTS_GUEST_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint guest_wrong; /* since the last sentence */
static bool guest_failed;

/* Counts what is not as it should be; the first ones are shown. Any thread. */
#define WANT(condition) \
	do { \
		if (!(condition) && atomic_fetch_add(&guest_wrong, 1) < 8) \
			fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
	} while (0)

static inline void guest_say(const char *sentence)
{
	bool good = atomic_exchange(&guest_wrong, 0) == 0;

	guest_failed |= !good;
	printf("%s - %s\n", good ? "ok" : "not ok", sentence);
	fflush(stdout);
}

static inline int guest_status(void)
{
	return guest_failed;
}

static inline void guest_run_threads(unsigned count, void *(*fn)(void *))
{
	pthread_t threads[64];

	for (uintptr_t i = 0; i < count; i++)
		WANT(pthread_create(&threads[i], NULL, fn, (void *)i) == 0);
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

/* The same numbers for the same seed (splitmix64), different ones for each thread. */
static inline uint64_t guest_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static inline uint64_t guest_seed(uint64_t seed, uint64_t thread)
{
	uint64_t state = seed + (thread << 32);

	return guest_random(&state);
}

/* Between two looks at something that another thread will change. The machine has fewer processors than there are threads. */
static inline void guest_pause(uint64_t waits)
{
	if (waits % 16 == 15)
		sched_yield();
	else
		__builtin_ia32_pause();
}

#endif
