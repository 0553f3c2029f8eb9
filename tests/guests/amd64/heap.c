/* SPDX-License-Identifier: MIT */
/* malloc, calloc, realloc, memalign and free from several threads, each block with a pattern of its own; blocks change hands. */
#include <malloc.h>

#include "guest.h"

enum { THREADS = 5, SLOTS = 200, STEPS = 6000 };

static _Atomic(unsigned char *) shared_slot[32];

static uint32_t next_random(uint32_t *state)
{
	return *state = *state * 1664525 + 1013904223;
}

static size_t random_size(uint32_t *state)
{
	uint32_t r = next_random(state) >> 8;

	if (r % 100 == 0)
		return 100000 + r % 400000;
	return r % 10 == 0 ? r % 20000 : r % 300;
}

/* The first 8 bytes hold the size, the rest its low byte. */
static void stamp(unsigned char *p, size_t size)
{
	if (size < 8)
		return;
	memcpy(p, &size, 8);
	memset(p + 8, (int)(size & 0xff), size - 8);
}

static bool stamped(const unsigned char *p, size_t size)
{
	size_t is;

	if (size < 8)
		return true;
	memcpy(&is, p, 8);
	if (is != size)
		return false;
	for (size_t i = 8; i < size; i++)
		if (p[i] != (size & 0xff))
			return false;
	return true;
}

static unsigned char *allocate(uint32_t *state, size_t size)
{
	unsigned char *p;
	void *q = NULL;

	switch (next_random(state) >> 16 & 7) {
	case 0:
		p = calloc(1, size);
		for (size_t i = 0; i < size; i++)
			WANT(p[i] == 0);
		return p;
	case 1:
		WANT(posix_memalign(&q, 256, size) == 0 && ((uintptr_t)q & 255) == 0);
		return q;
	case 2:
		p = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
		WANT(((uintptr_t)p & 4095) == 0);
		return p;
	default:
		p = malloc(size);
		WANT(p && ((uintptr_t)p & 15) == 0 && malloc_usable_size(p) >= size);
		return p;
	}
}

static void swap_with_others(uint32_t *state)
{
	size_t size = 16 + (next_random(state) >> 8) % 2000;
	unsigned char *p = malloc(size), *old;

	stamp(p, size);
	old = atomic_exchange(&shared_slot[next_random(state) >> 16 & 31], p);
	if (old) {
		memcpy(&size, old, 8);
		WANT(stamped(old, size));
		free(old);
	}
}

static void *churn(void *arg)
{
	uint32_t state = (uint32_t)(uintptr_t)arg * 7919 + 1;
	unsigned char **slot = calloc(SLOTS, sizeof(*slot));
	size_t *size = calloc(SLOTS, sizeof(*size));

	for (unsigned step = 0; step < STEPS; step++) {
		unsigned i = (next_random(&state) >> 8) % SLOTS;

		if (!slot[i]) {
			size[i] = random_size(&state);
			slot[i] = allocate(&state, size[i]);
		} else if (next_random(&state) >> 16 & 1) {
			size_t grown = random_size(&state), keep = grown < size[i] ? grown : size[i];

			WANT(stamped(slot[i], size[i]));
			unsigned char last = keep > 8 ? slot[i][keep - 1] : 0;

			slot[i] = realloc(slot[i], grown ? grown : 1);
			WANT(keep <= 8 || slot[i][keep - 1] == last);
			size[i] = grown;
		} else {
			WANT(stamped(slot[i], size[i]));
			free(slot[i]);
			slot[i] = NULL;
			continue;
		}
		stamp(slot[i], size[i]);
		if (step % 4 == 0)
			swap_with_others(&state);
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		WANT(!slot[i] || stamped(slot[i], size[i]));
		free(slot[i]);
	}
	free(slot);
	free(size);
	return NULL;
}

int main(void)
{
	guest_run_threads(THREADS, churn);
	guest_say("blocks keep their contents while several threads allocate, resize and free");
	guest_run_threads(20, churn);
	guest_say("the same with more threads than there are owner ids");
	for (unsigned i = 0; i < 32; i++)
		free(atomic_load(&shared_slot[i]));
	WANT(malloc((size_t)1 << 62) == NULL && errno == ENOMEM);
	WANT(realloc(NULL, 0) != (void *)1);
	char *text = strdup("a string that libc allocated"), *made = NULL;

	WANT(asprintf(&made, "%s, and another", text) == 41 && strlen(made) == 41);
	free(text);
	free(made);
	free(NULL);
	guest_say("libc's own allocations can be freed, and absurd sizes are refused");
	return guest_status();
}
