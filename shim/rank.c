/* SPDX-License-Identifier: MIT */
/* What --enable-debug knows of the locks that a thread holds. Handler code (I6): a few words of the thread's own, and tagtso_die. */
#include "rank.h"

#include "say.h"

#ifdef TAGTSO_DEBUG

static const char *const names[TAGTSO_NRANKS] = {
	[TAGTSO_RANK_HEAP] = "heap",       [TAGTSO_RANK_REGION] = "region", [TAGTSO_RANK_PAGE] = "page",
	[TAGTSO_RANK_SIGNALS] = "signals", [TAGTSO_RANK_CODE] = "code",
};

/* Initial-exec: a handler must not be the first to allocate it. Where a handler interrupts the few instructions that write it, it gives back what
 * it takes, so that they find what they left. */
static __thread __attribute__((tls_model("initial-exec"))) struct {
	uint32_t count[TAGTSO_NRANKS];
	uint64_t last; /* the highest number taken of the pages that are held */
} held;

void tagtso_rank_wait(enum tagtso_rank rank, uint64_t number)
{
	for (unsigned other = (unsigned)rank + 1; other < TAGTSO_NRANKS; other++) {
		if (held.count[other])
			tagtso_die("lock rank: waits for %s %lu and holds %s, which comes after it: please report it",
			           names[rank], (unsigned long)number, names[other]);
	}
	if (!held.count[rank])
		return;
	if (rank != TAGTSO_RANK_PAGE)
		tagtso_die("lock rank: waits for %s and holds one already: please report it", names[rank]);
	if (number <= held.last)
		tagtso_die("lock rank: waits for page %lu and holds page %lu, which comes after it: please report it",
		           (unsigned long)number, (unsigned long)held.last);
}

void tagtso_rank_took(enum tagtso_rank rank, uint64_t number)
{
	held.count[rank]++;
	if (rank == TAGTSO_RANK_PAGE && (held.count[rank] == 1 || number > held.last))
		held.last = number;
}

void tagtso_rank_gave(enum tagtso_rank rank)
{
	if (!held.count[rank])
		tagtso_die("lock rank: gives back %s and holds none: please report it", names[rank]);
	held.count[rank]--;
}

uint64_t tagtso_rank_held(void)
{
	uint64_t all = 0;

	for (unsigned rank = 0; rank < TAGTSO_NRANKS; rank++)
		all |= (uint64_t)(held.count[rank] < 255 ? held.count[rank] : 255) << 8 * rank;
	return all;
}

void tagtso_rank_same(uint64_t before, const char *file, int line)
{
	uint64_t now = tagtso_rank_held();

	if (now != before)
		tagtso_die("lock rank: %s:%d: holds %lx, held %lx before (from the right: heap, region, page, signals, "
		           "code): please report it",
		           file, line, (unsigned long)now, (unsigned long)before);
}

void tagtso_rank_alone(const char *file, int line)
{
	for (unsigned rank = 0; rank < TAGTSO_NRANKS; rank++) {
		if (held.count[rank])
			tagtso_die("lock rank: %s:%d: waits for another thread and holds %s: please report it", file,
			           line, names[rank]);
	}
}

#endif
