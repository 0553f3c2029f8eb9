/* SPDX-License-Identifier: MIT */
/* Policy cpu (TAGTSO_OWNER=cpu): threads that another process moves between processors all the time, more of them than there are owner ids, and threads
 * without an rseq area of their own. */
#include <dirent.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cells.h"

#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#endif

bool cells_cpu;

void cells_cpu_init(void)
{
	const char *owner = getenv("TAGTSO_OWNER");

	cells_cpu = owner && !strcmp(owner, "cpu");
}

/* The kernel's number of the processor, as the library takes it: mm_cid where there is one, else cpu_id. */
unsigned cells_cpu_tag(void)
{
	bool cid = __rseq_size >= 28 && getauxval(AT_RSEQ_FEATURE_SIZE) >= 28;
	const char *area = (const char *)__builtin_thread_pointer() + __rseq_offset;
	uint32_t number = *(const volatile uint32_t *)(area + (cid ? 24 : 4));

	return number < IDS ? number + 1 : 0;
}

void cells_cpu_pin(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	syscall(SYS_sched_setaffinity, 0, sizeof(set), &set); /* on a machine with one processor it stays where it is */
}

/* ---- the mover: a process of its own ---- */

enum { TASKS = 256, REFRESH = 64 };

static unsigned list_threads(int pid, pid_t *out)
{
	char path[64];
	unsigned n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *dir = opendir(path);

	for (struct dirent *e; dir && n < TASKS && (e = readdir(dir));)
		if (e->d_name[0] != '.')
			out[n++] = (pid_t)strtol(e->d_name, NULL, 10);
	if (dir)
		closedir(dir);
	return n;
}

int cells_cpu_mover(int pid, unsigned moves)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = 0, done = 0;
	pid_t tid[TASKS];

	setpriority(PRIO_PROCESS, 0, -20); /* where it is allowed: else it takes longer */
	srandom(17);
	for (unsigned i = 0; i < 8 * moves && done < moves; i++) {
		cpu_set_t set;

		if (i % REFRESH == 0)
			threads = list_threads(pid, tid);
		if (!threads)
			break;
		CPU_ZERO(&set);
		CPU_SET((unsigned long)(random() % cpus), &set);
		done += !sched_setaffinity(tid[random() % threads], sizeof(set), &set);
	}
	return done == moves ? 0 : 1;
}

/* ---- threads that are moved ---- */

enum { THREADS = 24, STEPS = 40 };

struct moved {
	struct code plain, ldadd, cas, llsc;
	uint64_t *own;    /* a page for itself */
	uint64_t *near;   /* a granule for itself, in a page with others */
	uint64_t *common; /* three words of all, in three granules */
	uint64_t *handed; /* a word that goes round: whoever has it adds to it plainly */
	uint64_t rounds, turns;
};
static struct moved moved[THREADS];
static _Atomic bool moving;
static _Atomic unsigned holder; /* in the program's own memory: whose turn it is */

/* Crosses two granules, and two pages at the end. */
static uint64_t *astride(uint64_t *own, unsigned k)
{
	return (uint64_t *)((char *)own + (k % 2 ? PAGE - 4 : 1020));
}

static void take_turn(struct moved *m)
{
	unsigned self = (unsigned)(m - moved);

	if (atomic_load(&holder) != self)
		return;
	m->plain.fn(m->handed, STEPS, 0);
	m->turns++;
	atomic_store(&holder, (self + 1) % THREADS);
}

static void *be_moved(void *arg)
{
	struct moved *m = arg;

	do {
		m->plain.fn(m->own, STEPS, 0);
		m->plain.fn(m->near, STEPS, 0);
		m->plain.fn(astride(m->own, 0), STEPS, 0);
		m->plain.fn(astride(m->own, 1), STEPS, 0);
		m->ldadd.fn(m->common, STEPS, 0);
		m->cas.fn(m->common + 2, STEPS, 0);
		m->llsc.fn(m->common + 4, STEPS, 0);
		take_turn(m);
		m->rounds++;
	} while (atomic_load(&moving));
	return NULL;
}

static pid_t start_mover(unsigned moves)
{
	char pid[16], count[16], *arguments[] = { (char *)"cells", (char *)"-m", pid, count, NULL }, *none[] = { NULL };
	pid_t child = 0;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(count, sizeof(count), "%u", moves);
	CHECK(!posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, none), "no mover");
	return child;
}

static void *wait_for_mover(void *arg)
{
	int status = -1;

	waitpid(*(pid_t *)arg, &status, 0);
	atomic_store(&moving, false);
	CHECK(status == 0, "the mover: status %#x", (unsigned)status);
	return NULL;
}

static void check_counts(void)
{
	uint64_t all = 0, turns = 0;

	for (unsigned n = 0; n < THREADS; n++) {
		struct moved *m = &moved[n];
		uint64_t value;

		SAME(peek(m->own), m->rounds * STEPS, "a thread's own word");
		SAME(peek(m->near), m->rounds * STEPS, "a thread's word in a page with others");
		for (unsigned k = 0; k < 2; k++) {
			value = peek(astride(m->own, k));
			SAME(value, m->rounds * STEPS, "a word in two granules");
		}
		all += m->rounds;
		turns += m->turns;
	}
	for (unsigned k = 0; k < 3; k++)
		SAME(peek(moved[0].common + 2 * k), all * STEPS, "a word of all");
	SAME(peek(moved[0].handed), turns * STEPS, "the word that goes round");
}

/* Fewer where it takes too long. */
static unsigned chosen_moves(unsigned moves)
{
	const char *chosen = getenv("TAGTSO_TEST_MOVES");

	return chosen ? (unsigned)atoi(chosen) : moves;
}

static void move_all(unsigned moves)
{
	uint64_t *pages = cells_map((2 * THREADS + 3) * PAGE);
	struct moved first = {
		.plain = cells_emit(&snippet_add_plain),
		.ldadd = cells_emit(&snippet_add_ldadd),
		.cas = cells_emit(&snippet_add_cas),
		.llsc = cells_emit(&snippet_add_llsc),
		.common = pages,
		.handed = pages + PAGE / 8,
	};
	pthread_t waiter;

	for (unsigned n = 0; n < THREADS; n++) {
		moved[n] = first;
		moved[n].near = pages + 2 * PAGE / 8 + 2 * (n + 1);
		moved[n].own = pages + (3 + 2 * n) * PAGE / 8;
	}
	atomic_store(&moving, true);
	pid_t mover = start_mover(chosen_moves(moves));
	int e = pthread_create(&waiter, NULL, wait_for_mover, &mover);

	CHECK(!e, "pthread_create: %s", strerror(e));
	cells_together(THREADS, be_moved, moved, sizeof(moved[0]));
	pthread_join(waiter, NULL);
	check_counts();
}

static void moved_rewritten(void)
{
	move_all(4000);
}

static void moved_interpreted(void)
{
	move_all(2000);
}

/* ---- one processor ---- */

static void loop_on_own(void)
{
	struct code code = cells_emit(&snippet_add_plain);
	struct worker other;

	cells_worker_start(&other);
	uint64_t *p = cells_map(PAGE);

	for (unsigned i = 0; i < 20; i++)
		code.fn(p, 10000, 0);
	SAME(peek(p), 200000, "the sum");
}

/* Messages by plain accesses, where both threads are on one processor, and so are one owner. */
static void *produce(void *arg)
{
	struct moved *m = arg;

	cells_cpu_pin(0);
	m->plain.fn(m->own, 20000, 0);
	return NULL;
}

static void one_processor(void)
{
	struct code consume = cells_emit(&snippet_consume);
	struct moved m = { .plain = cells_emit(&snippet_produce), .own = cells_map(PAGE) };
	pthread_t thread;

	cells_cpu_pin(0);
	pthread_create(&thread, NULL, produce, &m);
	SAME(consume.fn(m.own, 20000, 0), 0, "messages that were wrong");
	pthread_join(thread, NULL);
}

/* ---- a thread without an area ---- */

static _Atomic uint32_t cloned_done;
static uint64_t *cloned_page;
static struct code cloned_code;

_Noreturn static void cloned_main(void)
{
	/* no libc here: the thread has its creator's thread pointer */
	for (unsigned i = 0; i < 20; i++)
		cloned_code.fn(cloned_page, 7, 0);
	atomic_store(&cloned_done, 1);
	for (;;)
		__asm__ volatile("mov x8, #93\n\tmov x0, #0\n\tsvc #0" ::: "x0", "x8", "memory"); /* exit */
}

static int cloned(void *arg)
{
	(void)arg;
	cloned_main();
}

static void thread_without_area(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	struct worker other;

	cloned_code = cells_emit(&snippet_add_plain);
	cells_worker_start(&other);
	CHECK(cells_train(cloned_code, LOCAL), "no LOCAL form");
	cloned_page = cells_map(PAGE);
	int tid = clone(cloned, stack + sizeof(stack),
	                CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL);

	CHECK(tid > 0, "clone: %s", strerror(errno));
	for (unsigned ms = 0; ms < 20000 && !atomic_load(&cloned_done); ms++)
		cells_sleep_ms(1);
	SAME(peek(cloned_page), 140, "the sum");
	SAME(tag_of(cloned_page), SHARED, "the tag of memory that a thread without an rseq area touched first");
}

#define CPU "TAGTSO_OWNER=cpu"

const struct test cells_cpus[] = {
	TEST("cpu-moved", "24 threads moved between processors 4000 times lose no update in rewritten sites",
	     moved_rewritten, CPU, { "forms_local", '>', 1 }, { "interpreted_ordered", '>', 100 },
	     { "leases", '=', 0 }),
	TEST("cpu-moved-handovers", "nor while memory goes from owner to owner", moved_interpreted,
	     CPU " TAGTSO_HANDOVERS=255", { "handovers", '>', 100 }, { "forms_local", '>', 1 }),
	TEST("cpu-moved-interpreted", "nor where each access is interpreted", moved_interpreted,
	     CPU " TAGTSO_THRESHOLD=0 TAGTSO_HANDOVERS=255", { "sites_rewritten", '=', 0 },
	     { "interpreted_plain", '>', 1000 }),
	TEST("cpu-own", "a loop on memory of the processor that it runs on traps a few times", loop_on_own, CPU,
	     { "traps", '<', 2000 }, { "forms_local", '>', 2 }),
	TEST("cpu-messages", "messages by plain moves arrive whole between two threads of one processor", one_processor,
	     CPU, { "traps", '<', 20000 }),
	TEST("cpu-no-area", "a thread without an rseq area of its own owns nothing", thread_without_area, CPU,
	     { "leases_refused", '=', 1 }),
	TEST(NULL, NULL, NULL, NULL),
};
