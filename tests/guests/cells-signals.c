/* SPDX-License-Identifier: MIT */
/* Signals that come at any time: the program's handler sees a point of its own generated code, with the registers of that point, wherever the thread
 * was; and may return, jump away, or change what it returns to. */
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "cells.h"

enum { WORDS = 2048, PERIOD_NS = 70000, SIGNALS = 400, STACK = 128 * 1024 };

/* The loop of snippet_sum over ones, from the site on:
 *   0  ldr x2, [x0], #8      consumed = (x0 - base) / 8
 *   1  add x3, x3, x2
 *   2  subs x1, x1, #1
 *   3  b.ne 0
 *   4  mov x0, x3
 *   5  ret */
enum { LDR, ADD, SUBS, BRANCH, MOV };

static struct {
	uint64_t base, site; /* of what runs now */
	volatile unsigned seen, in_loop, wrong;
	volatile uint64_t pc, x0, x1, x2, x3; /* where it was wrong first */
} world;
static sigjmp_buf away;
static volatile enum { RETURN, JUMP, END_LOOP } what;
static volatile uint64_t ended_at; /* words that were consumed when the handler ended the loop */
static uint8_t alternate[STACK];
static volatile unsigned off_stack; /* handlers that ran elsewhere */

static bool is_point_of_loop(const mcontext_t *m, unsigned at, uint64_t consumed)
{
	uint64_t sum = m->regs[3], left = m->regs[1];

	switch (at) {
	case LDR:
		return sum == consumed && left == WORDS - consumed;
	case ADD:
		return sum == consumed - 1 && left == WORDS - consumed + 1 && m->regs[2] == 1;
	case SUBS:
		return sum == consumed && left == WORDS - consumed + 1 && m->regs[2] == 1;
	case BRANCH:
	case MOV:
		return sum == consumed && left == WORDS - consumed;
	default:
		return true;
	}
}

static void look(const mcontext_t *m)
{
	uint64_t at = (m->pc - world.site) / 4, consumed = (m->regs[0] - world.base) / 8;

	world.seen++;
	if (m->pc < world.site || at > BRANCH)
		return;
	world.in_loop++;
	if (is_point_of_loop(m, (unsigned)at, consumed) || world.wrong++)
		return;
	world.pc = m->pc;
	world.x0 = m->regs[0];
	world.x1 = m->regs[1];
	world.x2 = m->regs[2];
	world.x3 = m->regs[3];
}

static void on_timer(int signo, siginfo_t *info, void *context)
{
	mcontext_t *m = &((ucontext_t *)context)->uc_mcontext;
	uint8_t here;

	(void)signo;
	(void)info;
	off_stack += (uint64_t)&here - (uint64_t)alternate >= STACK;
	if (!ended_at) /* from then on the registers are what the handler made of them */
		look(m);
	if (m->pc != world.site)
		return;
	if (what == JUMP)
		siglongjmp(away, 1);
	if (what == END_LOOP && !ended_at) {
		ended_at = WORDS - m->regs[1] + 1; /* and one more, with which the loop ends */
		m->regs[1] = 1;
	}
}

static timer_t start_timer(int flags)
{
	struct sigaction action = { .sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART | flags };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	struct itimerspec period = { { 0, PERIOD_NS }, { 0, PERIOD_NS } };
	stack_t stack = { .ss_sp = alternate, .ss_size = STACK };
	timer_t timer = 0;

	event._sigev_un._tid = (int)syscall(SYS_gettid);
	SAME(sigaltstack(&stack, NULL), 0, "sigaltstack");
	SAME(sigaction(SIGUSR1, &action, NULL), 0, "sigaction");
	SAME(timer_create(CLOCK_MONOTONIC, &event, &timer), 0, "timer_create");
	SAME(timer_settime(timer, 0, &period, NULL), 0, "timer_settime");
	return timer;
}

static volatile uint64_t *ones(struct worker *other, enum form form)
{
	volatile uint64_t *p = cells_map(WORDS * 8);

	for (unsigned i = 0; i < WORDS; i++)
		put(p + i, 1);
	if (form == LOCAL)
		return p;
	for (unsigned i = 0; i < WORDS; i++)
		cells_put_on(other, p + i, 1);
	return p;
}

/* Until so many signals have come in the loop. The loop is trained by then. */
static void run_loop(struct code c, volatile uint64_t *p, void (*once)(struct code, volatile uint64_t *), int flags)
{
	timer_t timer;
	time_t start = time(NULL);

	world.base = (uint64_t)p;
	world.site = (uint64_t)c.site;
	world.in_loop = 0;
	off_stack = 0;
	timer = start_timer(flags);
	while (world.in_loop < SIGNALS && time(NULL) < start + 20)
		once(c, p);
	timer_delete(timer);
	SAME(world.wrong, 0, "signals at which the registers were not those of the pc");
	if (world.wrong)
		FAIL("first: pc +%ld, x0 +%lu, x1 %lu, x2 %lu, x3 %lu", (long)(world.pc - world.site) / 4,
		     (unsigned long)(world.x0 - world.base) / 8, (unsigned long)world.x1, (unsigned long)world.x2,
		     (unsigned long)world.x3);
	CHECK(world.in_loop >= SIGNALS / 4, "only %u signals came in the loop", world.in_loop);
}

static void sum_once(struct code c, volatile uint64_t *p)
{
	SAME(c.fn(p, WORDS, 0), WORDS, "the sum");
}

static void in_each_form(void (*once)(struct code, volatile uint64_t *), int flags)
{
	static const enum form forms[] = { LOCAL, SHARED_FORM, MIXED };
	struct worker other;

	cells_worker_start(&other);
	for (unsigned i = 0; i < 3; i++) {
		struct code c = cells_emit(&snippet_sum);
		volatile uint64_t *p = ones(&other, forms[i]);

		if (forms[i] == MIXED)
			cells_train(c, MIXED);
		for (unsigned tries = 0; tries < 2000 && !is_rewritten(c); tries++) {
			c.fn(p, WORDS, 0);
			cells_sleep_ms(1);
		}
		CHECK(is_rewritten(c), "no form %u", forms[i]);
		cells_sleep_ms(50); /* with stretches: joined */
		run_loop(c, p, once, flags);
	}
}

static void seen_in_own_code(void)
{
	in_each_form(sum_once, 0);
}

static void on_alternate_stack(void)
{
	in_each_form(sum_once, SA_ONSTACK);
	SAME(off_stack, 0, "handlers that did not run on the alternate stack");
}

/* Away from the site itself, which a thread in its island comes back to. */
static void jump_once(struct code c, volatile uint64_t *p)
{
	what = JUMP;
	if (sigsetjmp(away, 1) == 0)
		SAME(c.fn(p, WORDS, 0), WORDS, "the sum");
}

static void jumps_away(void)
{
	in_each_form(jump_once, 0);
	what = RETURN;
}

static void edit_once(struct code c, volatile uint64_t *p)
{
	ended_at = 0;
	what = END_LOOP;
	uint64_t sum = c.fn(p, WORDS, 0);

	what = RETURN;
	SAME(sum, ended_at ? ended_at : WORDS, "the sum when the handler ended the loop");
}

static void edits_context(void)
{
	in_each_form(edit_once, 0);
}

const struct test cells_signals[] = {
	TEST("signal-seen", "a signal's handler sees the pc and the registers of a point in the program's own code",
	     seen_in_own_code, "TAGTSO_HANDOVERS=0"),
	TEST("signal-stack", "it runs on the alternate stack if it is to", on_alternate_stack, "TAGTSO_HANDOVERS=0"),
	TEST("signal-jump", "it may leave by siglongjmp", jumps_away, "TAGTSO_HANDOVERS=0"),
	TEST("signal-edit", "what it changes in the context is what the code goes on with", edits_context,
	     "TAGTSO_HANDOVERS=0"),
	TEST(NULL, NULL, NULL, NULL),
};
