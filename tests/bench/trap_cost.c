/* SPDX-License-Identifier: MIT */
/* What interpreted accesses of each class cost beside a bare SIGSEGV whose handler only steps the pc; tests/bench/trap-cost makes the table.
 *
 *     TAGTSO_EMULATOR=generic TAGTSO_THRESHOLD=1000000 LD_PRELOAD=/usr/lib/libtagtso.so trap_cost time [rounds] | count
 *
 * time: by the system counter, with the kernel's part; median over rounds of the ratio of neighbouring measurements. In an emulated machine only ratios mean
 * anything. count: marks the same loops as runs of the count plugin (tests/plugin/count.c), which knows the instructions. Prints a line of JSON for each row of
 * trap_cost.def. Exit status 0, 77 without MTE or without the shim, 1 if memory is not owned or shared as it should be. */
#include <asm/hwcap.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc/sys.h"
#include "alloc/tags.h"
#include "tests/plugin/marks.h"

#ifndef HWCAP2_MOPS
#define HWCAP2_MOPS (1ul << 43)
#endif
#ifndef HWCAP2_LRCPC3
#define HWCAP2_LRCPC3 (1ul << 46)
#define HWCAP2_LSE128 (1ul << 47)
#endif

enum {
	TRAPS = 500, /* of one measurement */
	FRESH = 256, /* sites of one measurement of first sight */
	STRIDE = 64, /* bytes of code from one site to the next */
	REPEATS = 3, /* of a measurement of instructions: the least counts, since other threads are counted too */
	ROUNDS_MAX = 101,
	WORDS_MAX = 6,
	PAGE = 4096,
	KIB = 1024,
	ARENA = 2048 * KIB,
	AREA = 256 * KIB, /* generated code; island space follows it */
	FRESH_AREA = 2048 * KIB,
};

/* The kernel's struct sigaction: the shim stands in front of libc's. */
struct kernel_action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

typedef void access_function(char *at, char *other, uint64_t size, uint64_t, uint64_t, uint64_t);

enum where { OWN, LAX, STRADDLE, OUT, NEVER };

static const struct row {
	const char *class, *text, *instructions;
	enum where where;
	unsigned long hwcap, hwcap2; /* needed */
	uint32_t words[WORDS_MAX];
} rows[] = {
#define NOTHING 0, 0
#define LRCPC HWCAP_LRCPC, 0
#define ILRCPC HWCAP_ILRCPC, 0
#define SVE HWCAP_SVE, 0
#define MOPS 0, HWCAP2_MOPS
#define LRCPC3 0, HWCAP2_LRCPC3
#define LSE128 0, HWCAP2_LSE128
#define ROW(class, text, instructions, where, needs, ...) { class, text, instructions, where, needs, { __VA_ARGS__ } },
#include "trap_cost.def"
#undef ROW
};
enum { NROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NROWS * 4 * STRIDE <= AREA, "room for the sites");

/* Pages, far enough apart that what is made shared around one of them does not reach another; then code. */
static struct {
	char *owned, *shared; /* guest memory */
	char *unchecked;      /* no tags: nothing traps */
	char *foreign;        /* not guest memory, with a tag that no pointer has */
	char *code;           /* a site for each row and page: another word at a site's address would be another site */
} arena;

/* --- code ------------------------------------------------------------------------------------------------------------ */

static bool have(const struct row *row)
{
	return (getauxval(AT_HWCAP) & row->hwcap) == row->hwcap && (getauxval(AT_HWCAP2) & row->hwcap2) == row->hwcap2;
}

static char *address_in(const struct row *row, char *page)
{
	return page + 128 + (row->where == STRADDLE ? 12 : 0);
}

static void put(const struct row *row, char *code)
{
	uint32_t *out = (uint32_t *)code;

	for (int i = 0; i < WORDS_MAX && row->words[i]; i++)
		*out++ = row->words[i];
	*out++ = 0xd65f03c0; /* ret */
	__builtin___clear_cache(code, (char *)out);
}

static void call(char *code, char *at)
{
	((access_function *)(void *)code)(at, at + 256, 64, 0, 0, 0);
}

static char *site_of(const struct row *row, const char *page)
{
	return arena.code + STRIDE * (4 * (row - rows) + (page - arena.owned) / (64 * KIB));
}

/* One site, TRAPS times. */
static void repeat(const struct row *row, char *page)
{
	char *at = address_in(row, page), *site = site_of(row, page);

	for (int i = 0; i < TRAPS; i++)
		call(site, at);
}

/* No longer first sight. */
static void prepare(const struct row *row, char *page)
{
	put(row, site_of(row, page));
	repeat(row, page);
}

/* FRESH sites, once each. */
static void visit(const struct row *row, char *code, char *page)
{
	char *at = address_in(row, page);

	for (int i = 0; i < FRESH; i++)
		call(code + STRIDE * i, at);
}

static char *fresh_code(const struct row *row)
{
	static char *next, *end;

	if (end - next < FRESH * STRIDE) {
		next = mmap(NULL, FRESH_AREA, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (next == MAP_FAILED)
			exit(1);
		end = next + FRESH_AREA;
	}
	char *code = next;

	for (; next < code + FRESH * STRIDE; next += STRIDE)
		put(row, next);
	return code;
}

/* The handler of a bare SIGSEGV. */
static void step(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	((ucontext_t *)context)->uc_mcontext.pc += 4;
}

/* The bare handler in the shim's place, and back. */
static void swap_handlers(bool bare)
{
	static struct kernel_action shim;
	const struct kernel_action stepping = { .handler = step, .flags = SA_SIGINFO | SA_NODEFER };

	tagtso_sys(__NR_rt_sigaction, SIGSEGV, bare ? &stepping : &shim, bare ? &shim : NULL, 8);
}

/* The pages that a row is measured on; NULL: not on owned memory. */
static char *plain_page(const struct row *row)
{
	return row->where == OUT ? NULL : arena.owned;
}

/* --- time ------------------------------------------------------------------------------------------------------------ */

static uint64_t ticks(void)
{
	uint64_t t;

	__asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(t)::"memory");
	return t;
}

static double time_of(const struct row *row, char *page)
{
	prepare(row, page);
	uint64_t begin = ticks();

	repeat(row, page);
	return (double)(ticks() - begin);
}

/* The first row's load on foreign memory. */
static double time_of_bare(void)
{
	swap_handlers(true);
	double t = time_of(&rows[0], arena.foreign);

	swap_handlers(false);
	return t;
}

/* First sight of sites : the same sites again. */
static double time_of_fresh(const struct row *row, char *page)
{
	char *code = fresh_code(row);
	uint64_t begin = ticks(), middle;

	visit(row, code, page);
	middle = ticks();
	visit(row, code, page);
	return (double)(middle - begin) / (double)(ticks() - middle);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *of, int n)
{
	qsort(of, (size_t)n, sizeof(*of), by_value);
	return of[n / 2];
}

static void print_row(const struct row *row, const char *rest)
{
	static const char *const where[] = { "own", "lax", "own", "out", "never" };

	printf("{\"row\":%d,\"class\":\"%s\",\"text\":\"%s\",\"instructions\":\"%s\",\"where\":\"%s\"%s}\n",
	       (int)(row - rows), row->class, row->text, row->instructions, where[row->where], rest);
}

static void time_row(const struct row *row, int rounds)
{
	double plain[ROUNDS_MAX], ordered[ROUNDS_MAX], first[ROUNDS_MAX];
	char *owned = plain_page(row), rest[128] = "", *at = rest;

	for (int r = 0; r < rounds; r++) {
		double bare = time_of_bare();

		if (owned)
			plain[r] = time_of(row, owned) / bare;
		ordered[r] = time_of(row, arena.shared) / bare;
		first[r] = time_of_fresh(row, owned ? owned : arena.shared);
	}
	if (owned)
		at += sprintf(at, ",\"plain\":%.3f", median(plain, rounds));
	sprintf(at, ",\"ordered\":%.3f,\"first\":%.3f", median(ordered, rounds), median(first, rounds));
	print_row(row, rest);
}

/* --- instructions ---------------------------------------------------------------------------------------------------- */

static void mark_row(const struct row *row, const char *what)
{
	char label[32];

	sprintf(label, "%d %s", (int)(row - rows), what);
	mark_start(label);
}

static void count(const struct row *row, const char *what, char *page)
{
	prepare(row, page);
	mark_row(row, what);
	repeat(row, page);
	mark_stop();
}

/* The same calls three times: at first sight of their sites, again, and where nothing traps. */
static void count_fresh(const struct row *row, char *page)
{
	char *code = fresh_code(row);

	mark_row(row, "first");
	visit(row, code, page);
	mark_row(row, "again");
	visit(row, code, page);
	mark_row(row, "unseen");
	visit(row, code, arena.unchecked);
	mark_stop();
}

static void count_row(const struct row *row)
{
	for (int i = 0; i < REPEATS; i++) {
		if (plain_page(row))
			count(row, "plain", arena.owned);
		count(row, "ordered", arena.shared);
		count(row, "none", arena.unchecked);
	}
	count_fresh(row, plain_page(row) ? arena.owned : arena.shared);
	print_row(row, "");
}

static void count_bare(void)
{
	swap_handlers(true);
	count(&rows[0], "bare", arena.foreign);
	swap_handlers(false);
	printf("{\"traps\":%d,\"fresh\":%d}\n", TRAPS, FRESH);
}

/* --- memory ---------------------------------------------------------------------------------------------------------- */

static bool raw_map(char *at, size_t bytes, int prot)
{
	return tagtso_sys(__NR_mmap, at, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (long)at;
}

static bool guest_map(char *at, size_t bytes, int prot)
{
	return mmap(at, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at;
}

static bool make_arena(void)
{
	long p = tagtso_sys(__NR_mmap, 0, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (tagtso_sys_failed(p))
		return false;
	arena.owned = (char *)p;
	arena.shared = arena.owned + 64 * KIB;
	arena.unchecked = arena.owned + 128 * KIB;
	arena.foreign = arena.owned + 192 * KIB;
	arena.code = arena.owned + 512 * KIB;
	if (!guest_map(arena.owned, PAGE, PROT_READ | PROT_WRITE) ||
	    !guest_map(arena.shared, PAGE, PROT_READ | PROT_WRITE) ||
	    !guest_map(arena.code, AREA, PROT_READ | PROT_WRITE | PROT_EXEC) ||
	    !raw_map(arena.unchecked, PAGE, PROT_READ | PROT_WRITE) ||
	    !raw_map(arena.foreign, PAGE, PROT_READ | PROT_WRITE | 0x20 /* PROT_MTE */))
		return false;
	for (int i = 0; i < PAGE; i += TAGTSO_GRANULE)
		tagtso_tag_set((uint64_t)arena.foreign + (uint64_t)i, 5);
	memset(arena.owned, 0, PAGE);
	memset(arena.shared, 0, PAGE);
	return true;
}

static void *write_page(void *page)
{
	for (int i = 0; i < PAGE; i += TAGTSO_GRANULE)
		*((volatile char *)page + i) = 0;
	return page;
}

static bool has_tag(const char *page, unsigned tag)
{
	for (int i = 0; i < PAGE; i += TAGTSO_GRANULE)
		if (tagtso_tag_get((uint64_t)page + (uint64_t)i) != tag)
			return false;
	return true;
}

/* Starting a thread wakes the shim: what is resident is the first thread's. Then threads take turns at one page. */
static bool share_page(void)
{
	pthread_t thread;

	for (int i = 0; i < 10; i++) {
		if (pthread_create(&thread, NULL, write_page, arena.shared) || pthread_join(thread, NULL))
			return false;
		write_page(arena.shared);
	}
	return tagtso_tag_mine() && has_tag(arena.owned, tagtso_tag_mine()) && has_tag(arena.shared, TAGTSO_TAG_SHARED);
}

int main(int argc, char **argv)
{
	bool timed = argc > 1 && !strcmp(argv[1], "time"), counted = argc > 1 && !strcmp(argv[1], "count");
	int rounds = argc > 2 ? atoi(argv[2]) : 11;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_MTE) || !getenv("LD_PRELOAD") || timed == counted || rounds < 1 ||
	    rounds > ROUNDS_MAX) {
		fprintf(stderr,
		        "usage: TAGTSO_EMULATOR=generic TAGTSO_THRESHOLD=1000000 LD_PRELOAD=libtagtso.so %s time "
		        "[rounds, up "
		        "to %d] | count: with MTE\n",
		        argv[0], ROUNDS_MAX);
		return 77;
	}
	if (!make_arena() || !share_page()) {
		fprintf(stderr, "trap_cost: one page is not owned, or the other is not shared\n");
		return 1;
	}
	fresh_code(&rows[0]); /* from here on nothing is mapped while something is counted, */
	setvbuf(stdout, NULL, _IOFBF, (size_t)64 * KIB); /* and nobody who reads the output works meanwhile */
	if (counted)
		count_bare();
	for (int i = 0; i < NROWS; i++) {
		if (!have(&rows[i]))
			print_row(&rows[i], ",\"absent\":true");
		else if (timed)
			time_row(&rows[i], rounds);
		else
			count_row(&rows[i]);
	}
	return 0;
}
