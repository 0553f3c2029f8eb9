/* SPDX-License-Identifier: MIT */
/* Several threads on the same memory: exact counts, messages by plain accesses, transitions under way, and signals meanwhile. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

#include "cells.h"

/* ---- exact counts ---- */

struct adder {
	struct code code;
	uint64_t *p, times;
};

static void *add(void *arg)
{
	struct adder *a = arg;

	a->code.fn(a->p, a->times, 0);
	return NULL;
}

/* All on one word, thread i with the i-th of the snippets. */
static void hammer(unsigned threads, unsigned times, const struct snippet *a, const struct snippet *b,
                   const struct snippet *c)
{
	const struct snippet *snippets[] = { a, b, c };
	struct code codes[3];
	struct adder adders[16];
	uint64_t *p = cells_map(PAGE);

	for (unsigned i = 0; i < 3; i++)
		codes[i] = cells_emit(snippets[i]);
	for (unsigned i = 0; i < threads; i++)
		adders[i] = (struct adder){ codes[i % 3], p, times };
	cells_together(threads, add, adders, sizeof(adders[0]));
	SAME(peek(p), (uint64_t)threads * times, "the sum");
}

static void hammer_ldadd(void)
{
	for (unsigned threads = 2; threads <= 8; threads *= 2)
		hammer(threads, 20000, &snippet_add_ldadd, &snippet_add_ldadd, &snippet_add_ldadd);
}

static void hammer_cas(void)
{
	for (unsigned threads = 2; threads <= 8; threads *= 2)
		hammer(threads, 5000, &snippet_add_cas, &snippet_add_cas, &snippet_add_cas);
}

static void hammer_llsc(void)
{
	for (unsigned threads = 2; threads <= 8; threads *= 2)
		hammer(threads, 1000, &snippet_add_llsc_load, &snippet_add_llsc, &snippet_add_llsc_load);
}

static void hammer_all(void)
{
	for (unsigned threads = 3; threads <= 8; threads += 2)
		hammer(threads, 1000, &snippet_add_llsc, &snippet_add_cas, &snippet_add_ldadd);
}

static void hammer_pair(void)
{
	struct code code = cells_emit(&snippet_add_pair);
	struct adder adders[4];
	uint64_t *p = cells_map(PAGE);

	for (unsigned i = 0; i < 4; i++)
		adders[i] = (struct adder){ code, p, 500 };
	cells_together(4, add, adders, sizeof(adders[0]));
	SAME(peek(p), 2000, "the sum in the first word");
	SAME(peek(p + 1), 14000, "the sum in the second word");
}

/* Each on its own word, but of one granule, one page, or one page each: plain adding is exact, and granules are in transition all the time. */
static void neighbours(unsigned distance)
{
	struct code code = cells_emit(&snippet_add_plain);
	struct adder adders[8];
	unsigned threads = distance == 1 ? 2 : 8;
	uint64_t *p = cells_map(8 * PAGE);

	for (unsigned i = 0; i < threads; i++)
		adders[i] = (struct adder){ code, p + i * distance, 3000 };
	cells_together(threads, add, adders, sizeof(adders[0]));
	for (unsigned i = 0; i < threads; i++)
		SAME(peek(p + i * distance), 3000, "a thread's own word");
}

static void busy_granule(void)
{
	neighbours(1);
}

static void busy_page(void)
{
	neighbours(2);
}

static void own_pages(void)
{
	neighbours(PAGE / 8);
}

/* ---- single-copy atomicity ---- */

/* One side is generated code that stores, or loads, values of two halves that are the same. The other is this program's own, unchecked and many times as fast, so that
 * it meets what the first does in two parts. It has LDP and STP, since Q registers are loaded and stored in two parts: interpreted they are not, in islands they are
 * as emitted. */
enum {
	TWINS = 4000,
	TWINS_SECONDS = 4
}; /* at least so many, and so long: on a busy machine both sides run at the same time now and then only */

struct twins {
	uint64_t *p, differ;
	bool wide, stores;
	atomic_bool done;
};

static uint64_t halves(const uint64_t *p, bool wide)
{
	uint64_t low, high;

	if (wide)
		__asm__ volatile("ldp %0, %1, [%2]" : "=&r"(low), "=&r"(high) : "r"(p) : "memory");
	else
		__asm__ volatile("ldr %0, [%2]\n\tror %1, %0, #32" : "=&r"(low), "=r"(high) : "r"(p) : "memory");
	return low ^ high;
}

static void store_twins(uint64_t *p, bool wide, uint64_t value)
{
	if (wide)
		__asm__ volatile("stp %0, %0, [%1]" : : "r"(value), "r"(p) : "memory");
	else
		__asm__ volatile("str %0, [%1]" : : "r"(value << 32 | (uint32_t)value), "r"(p) : "memory");
}

static void *other_side(void *arg)
{
	struct twins *t = arg;

	__asm__ volatile("msr tco, #1" ::: "memory");
	for (uint64_t i = 1; !atomic_load_explicit(&t->done, memory_order_relaxed); i++) {
		if (t->stores)
			store_twins(t->p, t->wide, i);
		else
			t->differ |= halves(t->p, t->wide);
	}
	__asm__ volatile("msr tco, #0" ::: "memory");
	return NULL;
}

static void no_halves(uint64_t *p, const struct snippet *snippet, bool wide, bool stores, const char *what)
{
	struct twins t = { .p = p, .wide = wide, .stores = stores };
	struct code code = cells_emit(snippet);
	uint64_t differ = 0;
	time_t end = time(NULL) + TWINS_SECONDS;
	pthread_t thread;

	plant(p, 0);
	plant(p + 1, 0);
	pthread_create(&thread, NULL, other_side, &t);
	do
		differ |= code.fn(p, TWINS, 0);
	while (time(NULL) < end);
	atomic_store(&t.done, true);
	pthread_join(thread, NULL);
	SAME(differ | t.differ, 0, what);
}

static void whole_words(void)
{
	static struct worker other;
	uint64_t *p;

	cells_worker_start(&other);
	p = cells_shared(&other);
	no_halves(p, &snippet_write_twins, false, false, "what differs between the halves of 8 bytes stored");
	no_halves(p, &snippet_read_twins, false, true, "what differs between the halves of 8 bytes loaded");
}

static void whole_vectors(void)
{
	static struct worker other;
	uint64_t *p;

	cells_worker_start(&other);
	p = cells_shared(&other);
	no_halves(p, &snippet_write_twins_q, true, false, "what differs between the halves of 16 bytes stored");
	no_halves(p, &snippet_read_twins_q, true, true, "what differs between the halves of 16 bytes loaded");
}

/* ---- messages ---- */

static void messages(void)
{
	static const unsigned counts[] = { 50, 5000, 50000 };
	struct code produce = cells_emit(&snippet_produce), consume = cells_emit(&snippet_consume);
	struct worker producer;

	cells_worker_start(&producer);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t *ring = cells_map(PAGE);
		struct adder a = { produce, ring, counts[i] };
		pthread_t thread;

		pthread_create(&thread, NULL, add, &a);
		SAME(consume.fn(ring, counts[i], 0), 0, "the number of wrong messages");
		pthread_join(thread, NULL);
	}
	cells_worker_stop(&producer);
}

/* ---- signals ---- */

static uint64_t *in_handler;
static atomic_uint alarms;

static void on_alarm(int signo)
{
	int keep = errno;

	(void)signo;
	atomic_fetch_add(&alarms, 1);
	in_handler[0]++; /* checked accesses of the handler's own */
	in_handler[64 * 8]++;
	errno = keep;
}

static void start_alarms(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } };

	in_handler = cells_map(2 * PAGE);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
}

static void *storm_thread(void *arg)
{
	struct adder *a = arg;

	errno = 1731;
	for (unsigned i = 0; i < 200; i++)
		a->code.fn(a->p + i % 4, 10, 0);
	SAME(errno, 1731, "errno after traps and signals");
	return NULL;
}

static void storm(void)
{
	struct adder adders[4];
	struct code code = cells_emit(&snippet_add_ldadd), llsc = cells_emit(&snippet_add_llsc);
	uint64_t *p = cells_map(PAGE);

	start_alarms();
	for (unsigned i = 0; i < 4; i++)
		adders[i] = (struct adder){ i % 2 ? llsc : code, p, 10 };
	cells_together(4, storm_thread, adders, sizeof(adders[0]));
	struct itimerval off = { 0 };

	setitimer(ITIMER_REAL, &off, NULL);
	SAME(peek(p) + peek(p + 1) + peek(p + 2) + peek(p + 3), 4 * 200 * 10, "the sum");
	CHECK(atomic_load(&alarms) > 5, "only %u alarms came", atomic_load(&alarms));
}

/* A thread that another one interrupts all the time with pthread_kill. */
static void *interrupted(void *arg)
{
	struct adder *a = arg;

	a->code.fn(a->p, 20000, 0);
	return NULL;
}

static void interrupt(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct adder a = { cells_emit(&snippet_add_llsc), cells_map(PAGE), 0 };
	pthread_t thread;

	in_handler = cells_map(2 * PAGE);
	sigaction(SIGUSR1, &action, NULL);
	pthread_create(&thread, NULL, interrupted, &a);
	for (unsigned i = 0; i < 200; i++) {
		put(a.p + 8, i);
		pthread_kill(thread, SIGUSR1);
		cells_sleep_ms(1);
	}
	pthread_join(thread, NULL);
	SAME(peek(a.p), 20000, "the sum");
}

/* What a signal's handler sees of the interrupted loop must be the loop as it was emitted: its pc, and registers that belong to that pc. */
enum { WORDS = PAGE / 8 };
static struct {
	struct code loop;
	uint64_t base;
	atomic_uint seen, outside, wrong;
} interrupted_loop;

static void look_at_loop(int signo, siginfo_t *info, void *context)
{
	const unsigned long long *x = ((ucontext_t *)context)->uc_mcontext.regs;
	uint64_t pc = ((ucontext_t *)context)->uc_mcontext.pc, site = (uint64_t)interrupted_loop.loop.site;
	uint64_t done = interrupted_loop.base + 8 * (WORDS - x[1]);

	(void)signo, (void)info;
	if (pc >= site && pc < site + 16) {
		atomic_fetch_add(&interrupted_loop.seen, 1);
		/* LDR x2, [x0], #8; ADD; SUBS x1; B.NE */
		if (x[0] != done + (pc == site + 4 || pc == site + 8 ? 8 : 0))
			atomic_fetch_add(&interrupted_loop.wrong, 1);
	} else if (pc >= site + 128 * 1024 && pc < site + 1024 * 1024) {
		atomic_fetch_add(&interrupted_loop.outside, 1);
	}
}

static void signal_pc(void)
{
	struct sigaction action = { .sa_sigaction = look_at_loop, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct itimerval every = { { 0, 1000 }, { 0, 1000 } }, off = { 0 };
	static struct worker other;

	cells_worker_start(&other);
	sigaction(SIGALRM, &action, NULL);
	for (enum form form = EMITTED; form <= MIXED; form++) {
		uint64_t *p = form == SHARED_FORM ? cells_shared(&other) : cells_mine();

		interrupted_loop.loop = cells_emit(&snippet_sum);
		interrupted_loop.base = (uint64_t)p;
		CHECK(cells_train(interrupted_loop.loop, form), "no form %u", form);
		for (unsigned i = 0; i < WORDS; i++)
			plant(p + i, i);
		atomic_store(&interrupted_loop.seen, 0);
		setitimer(ITIMER_REAL, &every, NULL);
		for (unsigned i = 0; i < 20000 && atomic_load(&interrupted_loop.seen) < 50; i++)
			SAME(interrupted_loop.loop.fn(p, WORDS, 0), WORDS * (WORDS - 1) / 2, "the sum");
		setitimer(ITIMER_REAL, &off, NULL);
		CHECK(atomic_load(&interrupted_loop.seen), "form %u: no signal came in the loop", form);
		SAME(atomic_load(&interrupted_loop.outside), 0,
		     "times that a handler saw code that the program did not write");
		SAME(atomic_load(&interrupted_loop.wrong), 0, "times that registers did not belong to the pc");
	}
}

/* ---- the end of threads ---- */

static void *ends_by_exit(void *arg)
{
	put(arg, get(arg) + 1);
	pthread_exit(arg);
}

static void *ends_by_cancel(void *arg)
{
	put(arg, get(arg) + 1);
	cells_sleep_ms(60000);
	return NULL;
}

static void ended(void)
{
	uint64_t *p = cells_map(PAGE);
	pthread_t thread;
	void *result;

	for (unsigned i = 0; i < 30; i++) {
		pthread_create(&thread, NULL, i % 2 ? ends_by_exit : ends_by_cancel, p);
		if (i % 2 == 0) {
			while (peek(p) != i + 1)
				cells_sleep_ms(1);
			pthread_cancel(thread);
		}
		pthread_join(thread, &result);
		CHECK(result == (i % 2 ? (void *)p : PTHREAD_CANCELED), "pthread_join gives another result");
	}
	SAME(get(p), 30, "the sum");
}

static void *last_thread(void *arg)
{
	put(arg, 1);
	cells_sleep_ms(100);
	return NULL;
}

/* The process ends when its last thread does, with status 0, although the first is gone. */
static void main_ends_first(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, last_thread, cells_map(PAGE));
	pthread_exit(NULL);
}

/* One that nobody waits for, at the end of the process. */
static void *runs_forever(void *arg)
{
	for (;;)
		put(arg, get(arg) + 1);
	return NULL;
}

static void exit_while_running(void)
{
	uint64_t *p = cells_map(PAGE);
	pthread_t thread;

	for (unsigned i = 0; i < 3; i++)
		pthread_create(&thread, NULL, runs_forever, p);
	cells_sleep_ms(100);
	CHECK(get(p) > 0, "the threads do not run");
}

const struct test cells_threads[] = {
	TEST("hammer-ldadd", "2 to 8 threads that LDADD one word count exactly", hammer_ldadd, NULL),
	TEST("hammer-cas", "2 to 8 threads that CAS one word count exactly", hammer_cas, NULL),
	TEST("hammer-llsc", "2 to 8 threads with exclusive loops on one word count exactly", hammer_llsc, NULL,
	     { "interpreted_spans", '<', 7000 }, { "forms_mixed", '>', 0 }),
	TEST("hammer-spans", "and with each of them interpreted", hammer_llsc, "TAGTSO_THRESHOLD=0",
	     { "interpreted_spans", '>', 7000 }),
	TEST("hammer-all", "LDADD, CAS and exclusive loops on the same word count exactly", hammer_all, NULL),
	TEST("hammer-pair", "exclusive pairs that are stored back when the comparison fails count exactly", hammer_pair,
	     NULL),
	TEST("hammer-never", "atomics count exactly while no site is rewritten", hammer_all, "TAGTSO_THRESHOLD=0"),
	TEST("whole", "8 bytes are stored and loaded whole, interpreted", whole_words,
	     "TAGTSO_THRESHOLD=0 TAGTSO_RUN=0 TAGTSO_HANDOVERS=0", { "interpreted_ordered", '>', 2 * TWINS }),
	TEST("whole-islands", "and in islands", whole_words, "TAGTSO_HANDOVERS=0", { "sites_rewritten", '>', 1 }),
	TEST("whole-vectors", "16 aligned bytes of a vector are stored and loaded whole, interpreted", whole_vectors,
	     "TAGTSO_THRESHOLD=0 TAGTSO_RUN=0 TAGTSO_HANDOVERS=0", { "interpreted_ordered", '>', 2 * TWINS }),
	TEST("busy-granule", "two threads on one granule that is in transition all the time do not disturb each other",
	     busy_granule, "TAGTSO_HANDOVERS=255 TAGTSO_THRESHOLD=0", { "handovers", '>', 2 }),
	TEST("busy-page", "eight threads on one page that is in transition all the time do not disturb each other",
	     busy_page, "TAGTSO_HANDOVERS=255", { "handovers", '>', 2 }),
	TEST("own-pages", "eight threads on pages of their own stay without transitions", own_pages, NULL,
	     { "revocations", '<', 30 }),
	TEST("messages", "messages by plain stores and loads arrive in order", messages, NULL,
	     { "sites_rewritten", '>', 4 }),
	TEST("storm", "a timer's signals meanwhile change neither values nor errno", storm,
	     "TAGTSO_THRESHOLD=0 TAGTSO_HANDOVERS=255", { "traps", '>', 1000 }),
	TEST("interrupted", "a thread that is interrupted all the time counts exactly", interrupt, NULL),
	TEST("signal-pc", "a signal's handler sees the code as emitted and registers that belong to it", signal_pc,
	     "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=1"),
	TEST("thread-ends", "threads end by pthread_exit and by pthread_cancel", ended, NULL),
	TEST("main-ends-first", "the process ends when its last thread does", main_ends_first, NULL),
	TEST("exit-running", "the process ends although threads are still running", exit_while_running, NULL),
	TEST(NULL, NULL, NULL, NULL),
};
