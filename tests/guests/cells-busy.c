/* SPDX-License-Identifier: MIT */
/* The row "busy" of the handler's table: accesses while another thread is in the middle of a transition. A child of the test holds that thread by
 * ptrace where it enters its membarrier and runs the others one at a time, from system call to system call: the order of events is the tracer's. */
#include <errno.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cells.h"

#ifndef SEGV_MTESERR
#define SEGV_MTESERR 9
#endif

enum transition { HANDED, GRANULE_SHARED, PAGE_SHARED };
enum role { OWNER, TAKER, THIRD, ROLES };
enum round { LOADS, STORES, SUMS, ROUNDS };
enum {
	OLD = 0x1111,  /* what is in the memory first */
	STEP = 0x2000, /* a thread's value: STEP times its role plus one */
	WORD = 2,      /* what is accessed, from the page's beginning: not its first granule */
	START = 0x7a60, /* gettid with one of these for an argument, which the kernel ignores, is a mark for the tracer */
	END,
	WAITS = 5, /* calls of sched_yield, one after another, that show that a thread waits */
};

static const char *const role_names[ROLES] = { "the old owner", "the thread in transition", "the third thread" };

/* Written before the tracer is made, whose process has a copy of all of it; `result` by the threads, each its own. */
static struct {
	enum transition transition;
	uint64_t *page[ROUNDS];
	struct code code[ROUNDS][ROLES];
	uint64_t result[ROUNDS][ROLES];
	pid_t tid[ROLES];
} scene;
static pthread_barrier_t together;

static uint64_t value_of(enum role role)
{
	return (uint64_t)STEP * (role + 1);
}

/* All on one word; stores on a part of their own in the granule. */
static unsigned offset_of(enum round round, enum role role)
{
	static const unsigned apart[ROLES] = { 0, 6, 8 };

	return round == STORES ? apart[role] : 0;
}

/* What an access makes of the granule's words, and its result. */
static uint64_t model(uint64_t m[2], enum round round, enum role role)
{
	uint64_t old = m[0], value = value_of(role);

	if (round == STORES)
		memcpy((char *)m + offset_of(round, role), &value, 2);
	else if (round == SUMS)
		m[0] += value;
	else if (role == TAKER)
		m[0] = value;
	if (round == SUMS)
		return old;
	return round == LOADS && role != TAKER ? old : value;
}

/* Who goes first when the transition is over. */
static enum role first_after(enum round round)
{
	return round % 2 ? THIRD : OWNER;
}

/* ---- the threads ---- */

static void mark(long which)
{
	register long x8 __asm__("x8") = SYS_gettid;
	register long x0 __asm__("x0") = which;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8) : "memory");
}

static void own_pages(void)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		put(scene.page[i] + WORD, OLD);
		put(scene.page[i] + WORD + 1, OLD);
		SAME(tag_of(scene.page[i]), my_tag(), "the tag of the old owner's page");
	}
}

static void *play(void *arg)
{
	enum role role = *(enum role *)arg;

	scene.tid[role] = (pid_t)syscall(SYS_gettid);
	if (role == OWNER)
		own_pages();
	pthread_barrier_wait(&together);
	pthread_barrier_wait(&together); /* the tracer is made meanwhile */
	for (enum round round = 0; round < ROUNDS; round++) {
		char *at = (char *)(scene.page[round] + WORD) + offset_of(round, role);

		mark(START);
		scene.result[round][role] = scene.code[round][role].fn(at, value_of(role), 0);
		mark(END);
	}
	return NULL;
}

/* ---- the tracer ---- */

/* The threads run on when the tracer ends. */
#define DEMAND(condition, ...) \
	do { \
		if (!(condition)) { \
			FAIL(__VA_ARGS__); \
			_exit(1); \
		} \
	} while (0)

static unsigned traps[ROLES]; /* since START */

static void attach(enum role role)
{
	int status = 0;

	DEMAND(!ptrace(PTRACE_SEIZE, scene.tid[role], NULL, (void *)PTRACE_O_TRACESYSGOOD), "PTRACE_SEIZE: %s",
	       strerror(errno));
	DEMAND(!ptrace(PTRACE_INTERRUPT, scene.tid[role], NULL, NULL), "PTRACE_INTERRUPT: %s", strerror(errno));
	DEMAND(waitpid(scene.tid[role], &status, __WALL) > 0 && WIFSTOPPED(status), "%s does not stop: status %#x",
	       role_names[role], (unsigned)status);
}

static void note_trap(enum role role)
{
	siginfo_t info = { .si_signo = 0 };

	ptrace(PTRACE_GETSIGINFO, scene.tid[role], NULL, &info);
	traps[role] += info.si_signo == SIGSEGV && info.si_code == SEGV_MTESERR;
}

struct call {
	uint64_t number, argument;
};

/* Lets a thread run until it enters a system call. Signals reach it. */
static struct call next_call(enum role role)
{
	struct __ptrace_syscall_info info;
	pid_t tid = scene.tid[role];
	long signo = 0;
	int status = 0;

	for (;;) {
		DEMAND(!ptrace(PTRACE_SYSCALL, tid, NULL, (void *)signo), "PTRACE_SYSCALL: %s", strerror(errno));
		DEMAND(waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status), "%s does not stop: status %#x",
		       role_names[role], (unsigned)status);
		signo = 0;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			DEMAND(ptrace(PTRACE_GET_SYSCALL_INFO, tid, (void *)sizeof(info), &info) > 0,
			       "PTRACE_GET_SYSCALL_INFO: %s", strerror(errno));
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
				return (struct call){ info.entry.nr, info.entry.args[0] };
		} else if (!(status >> 16)) { /* else PTRACE_EVENT_STOP */
			signo = WSTOPSIG(status);
			note_trap(role);
		}
	}
}

static bool is(struct call call, uint64_t number, uint64_t argument)
{
	return call.number == number && call.argument == argument;
}

static void run_to(enum role role, uint64_t number, uint64_t argument)
{
	struct call call = next_call(role);

	while (!is(call, number, argument)) {
		DEMAND(!is(call, SYS_gettid, END), "%s was done without system call %lu(%lu)", role_names[role],
		       (unsigned long)number, (unsigned long)argument);
		call = next_call(role);
	}
}

/* The access has trapped, and does not come to an end however often the thread runs. */
static void expect_waiting(enum role role)
{
	for (unsigned yields = 0; yields < WAITS;) {
		struct call call = next_call(role);

		DEMAND(!is(call, SYS_gettid, END), "%s did not wait", role_names[role]);
		DEMAND(call.number != SYS_membarrier, "%s began a transition meanwhile", role_names[role]);
		yields += call.number == SYS_sched_yield;
	}
	DEMAND(traps[role] == 1, "%s waits after %u traps", role_names[role], traps[role]);
}

static void expect_memory(const uint64_t *page, const uint64_t m[2])
{
	for (unsigned i = 0; i < 2; i++) {
		errno = 0;
		uint64_t is = (uint64_t)ptrace(PTRACE_PEEKDATA, scene.tid[TAKER], page + WORD + i, NULL);

		DEMAND(!errno && is == m[i], "word %u is %#lx, not %#lx: %s", i, (unsigned long)is, (unsigned long)m[i],
		       strerror(errno));
	}
}

static void read_tags(uint64_t *page, uint8_t tags[PAGE / GRANULE])
{
	struct iovec iov = { .iov_base = tags, .iov_len = PAGE / GRANULE };

	DEMAND(!ptrace(PTRACE_PEEKMTETAGS, scene.tid[TAKER], page, &iov) && iov.iov_len == PAGE / GRANULE,
	       "PTRACE_PEEKMTETAGS: %s", strerror(errno));
}

static void expect_busy(uint64_t *page)
{
	uint8_t tags[PAGE / GRANULE];

	read_tags(page, tags);
	for (unsigned i = 0; i < PAGE / GRANULE; i++) {
		bool busy = scene.transition != GRANULE_SHARED || i == WORD * 8 / GRANULE;

		DEMAND((tags[i] == BUSY) == busy, "the tag of granule %u is %u in the transition", i, tags[i]);
	}
}

static void expect_settled(uint64_t *page)
{
	uint8_t tags[PAGE / GRANULE];

	read_tags(page, tags);
	for (unsigned i = 0; i < PAGE / GRANULE; i++) {
		bool shared = scene.transition == PAGE_SHARED || (scene.transition && i == WORD * 8 / GRANULE);

		DEMAND(tags[i] && tags[i] != BUSY && (tags[i] == SHARED) == shared,
		       "the tag of granule %u is %u after the transition", i, tags[i]);
	}
}

static void trace_round(enum round round)
{
	uint64_t m[2] = { OLD, OLD }, *page = scene.page[round];

	for (enum role role = 0; role < ROLES; role++) {
		run_to(role, SYS_gettid, START);
		traps[role] = 0;
	}
	run_to(TAKER, SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	expect_busy(page);
	expect_waiting(THIRD);
	expect_waiting(OWNER);
	expect_busy(page);
	expect_memory(page, m);
	run_to(TAKER, SYS_gettid, END);
	model(m, round, TAKER);
	expect_settled(page);
	expect_memory(page, m);
	run_to(first_after(round), SYS_gettid, END);
	run_to(OWNER + THIRD - first_after(round), SYS_gettid, END);
}

static _Noreturn void trace(int ready)
{
	for (enum role role = 0; role < ROLES; role++)
		attach(role);
	DEMAND(write(ready, "", 1) == 1, "write: %s", strerror(errno));
	for (enum round round = 0; round < ROUNDS; round++)
		trace_round(round);
	_exit(0);
}

/* ---- the test ---- */

static struct code trained(const struct snippet *snippet, enum form form)
{
	struct code c = cells_emit(snippet);

	CHECK(cells_train(c, form), "the site does not come into its form");
	return c;
}

static void prepare(enum transition transition, enum form form)
{
	static const struct snippet *const snippets[ROUNDS] = { &snippet_ldr, &snippet_strh, &snippet_ldadd };
	static struct worker other; /* while there is one thread, what is mapped becomes that thread's */

	cells_worker_start(&other);
	scene.transition = transition;
	for (enum round round = 0; round < ROUNDS; round++) {
		struct code c = trained(snippets[round], form);

		scene.page[round] = cells_map(2 * PAGE); /* the page that follows is nobody's: no batch */
		for (enum role role = 0; role < ROLES; role++)
			scene.code[round][role] = c;
	}
	scene.code[LOADS][TAKER] = trained(&snippet_str, form);
}

static void check_round(enum round round)
{
	enum role first = first_after(round), order[ROLES] = { TAKER, first, OWNER + THIRD - first };
	uint64_t m[2] = { OLD, OLD }, *p = scene.page[round] + WORD;

	for (unsigned i = 0; i < ROLES; i++) {
		uint64_t result = model(m, round, order[i]);

		SAME(scene.result[round][order[i]], result, role_names[order[i]]);
	}
	SAME(peek(p), m[0], "the first word");
	SAME(peek(p + 1), m[1], "the second word");
	SAME(tag_of(p), SHARED, "the tag after all three");
}

/* Starts the tracer and returns when it has the threads. */
static pid_t start_tracer(void)
{
	int ready[2] = { -1, -1 };
	char byte;

	SAME(pipe(ready), 0, "pipe");
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* fails where no Yama forbids it */
	pid_t pid = fork();

	if (pid == 0)
		trace(ready[1]);
	close(ready[1]);
	CHECK(pid > 0 && read(ready[0], &byte, 1) == 1, "the tracer does not start");
	close(ready[0]);
	return pid;
}

static void transition_meets(enum transition transition, enum form form)
{
	enum role roles[ROLES] = { OWNER, TAKER, THIRD };
	uint32_t words[ROUNDS];
	pthread_t threads[ROLES];
	int status = -1;

	prepare(transition, form);
	for (enum round round = 0; round < ROUNDS; round++)
		words[round] = *scene.code[round][THIRD].site;
	pthread_barrier_init(&together, NULL, ROLES + 1);
	for (enum role role = 0; role < ROLES; role++)
		SAME(pthread_create(&threads[role], NULL, play, &roles[role]), 0, "pthread_create");
	pthread_barrier_wait(&together);
	pid_t tracer = start_tracer();

	pthread_barrier_wait(&together);
	for (enum role role = 0; role < ROLES; role++)
		pthread_join(threads[role], NULL);
	SAME(waitpid(tracer, &status, 0), tracer, "waitpid");
	SAME(status, 0, "the tracer's status");
	for (enum round round = 0; round < ROUNDS; round++) {
		check_round(round);
		SAME(*scene.code[round][THIRD].site, words[round], "the word at the site");
	}
}

#define CELL(transition, form) \
	static void cell_##transition##_##form(void) \
	{ \
		transition_meets(transition, form); \
	}
#define FORMS(transition) \
	CELL(transition, EMITTED) CELL(transition, LOCAL) CELL(transition, SHARED_FORM) CELL(transition, MIXED)
FORMS(HANDED)
FORMS(GRANULE_SHARED)
FORMS(PAGE_SHARED)

#define NEVER " TAGTSO_THRESHOLD=1000000"
#define HAND_OVER "TAGTSO_HANDOVERS=1 TAGTSO_CONFLICTS=256"
#define GRANULES "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=256"
#define PAGES "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=1"
/* Two threads wait in each round. */
#define WAITED \
	{ \
		"busy_waits", '>', 2 * ROUNDS \
	}
#define HANDED_OVER \
	{ \
		"handovers", '>', ROUNDS \
	}
#define WHOLE_PAGES \
	{ \
		"revoked_granules", '>', ROUNDS *PAGE / GRANULE \
	}

const struct test cells_busy[] = {
	TEST("busy-handed-emitted", "an emitted site waits on memory that is busy being handed over",
	     cell_HANDED_EMITTED, HAND_OVER NEVER, WAITED, HANDED_OVER),
	TEST("busy-handed-local", "a LOCAL site waits on memory that is busy being handed over", cell_HANDED_LOCAL,
	     HAND_OVER, WAITED, HANDED_OVER, { "forms_local", '>', ROUNDS }),
	TEST("busy-handed-shared", "a SHARED site waits on memory that is busy being handed over",
	     cell_HANDED_SHARED_FORM, HAND_OVER, WAITED, HANDED_OVER, { "forms_shared", '>', ROUNDS }),
	TEST("busy-handed-mixed", "a MIXED site waits on memory that is busy being handed over", cell_HANDED_MIXED,
	     HAND_OVER, WAITED, HANDED_OVER, { "forms_mixed", '>', ROUNDS }),
	TEST("busy-granule-emitted", "an emitted site waits on a granule that is busy becoming shared",
	     cell_GRANULE_SHARED_EMITTED, GRANULES NEVER, WAITED, { "handovers", '=', 0 }),
	TEST("busy-granule-local", "a LOCAL site waits on a granule that is busy becoming shared",
	     cell_GRANULE_SHARED_LOCAL, GRANULES, WAITED, { "forms_local", '>', ROUNDS }),
	TEST("busy-granule-shared", "a SHARED site waits on a granule that is busy becoming shared",
	     cell_GRANULE_SHARED_SHARED_FORM, GRANULES, WAITED, { "forms_shared", '>', ROUNDS }),
	TEST("busy-granule-mixed", "a MIXED site waits on a granule that is busy becoming shared",
	     cell_GRANULE_SHARED_MIXED, GRANULES, WAITED, { "forms_mixed", '>', ROUNDS }),
	TEST("busy-page-emitted", "an emitted site waits on a page that is busy becoming shared",
	     cell_PAGE_SHARED_EMITTED, PAGES NEVER, WAITED, WHOLE_PAGES),
	TEST("busy-page-local", "a LOCAL site waits on a page that is busy becoming shared", cell_PAGE_SHARED_LOCAL,
	     PAGES, WAITED, WHOLE_PAGES, { "forms_local", '>', ROUNDS }),
	TEST("busy-page-shared", "a SHARED site waits on a page that is busy becoming shared",
	     cell_PAGE_SHARED_SHARED_FORM, PAGES, WAITED, WHOLE_PAGES, { "forms_shared", '>', ROUNDS }),
	TEST("busy-page-mixed", "a MIXED site waits on a page that is busy becoming shared", cell_PAGE_SHARED_MIXED,
	     PAGES, WAITED, WHOLE_PAGES, { "forms_mixed", '>', ROUNDS }),
	TEST(NULL, NULL, NULL, NULL),
};
