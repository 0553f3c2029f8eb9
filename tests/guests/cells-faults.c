/* SPDX-License-Identifier: MIT */
/* The program's own faults: its handler sees the address, the code and the instruction that it would see without the preload. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "cells.h"

static struct worker other;

/* What the handler met. The fault is of the thread that looks at it afterwards. */
static volatile struct {
	int count, signo, code;
	uint64_t address, pc, x1;
} seen;
static sigjmp_buf away;
static uint8_t only_executable[PAGE] __attribute__((aligned(PAGE)));
static bool jump;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	seen.count++;
	seen.signo = signo;
	seen.code = info->si_code;
	seen.address = (uint64_t)info->si_addr;
	seen.pc = uc->uc_mcontext.pc;
	seen.x1 = uc->uc_mcontext.regs[1];
	if (jump)
		siglongjmp(away, 1);
	uc->uc_mcontext.pc += 4;
}

static void catch_faults(int flags)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | flags };

	SAME(sigaction(SIGSEGV, &action, NULL), 0, "sigaction");
	SAME(sigaction(SIGBUS, &action, NULL), 0, "sigaction");
}

/* The call makes the site fault at `address`; the handler goes on behind it. */
static void expect_signal(struct code c, volatile void *p, uint64_t address, int signo, int code)
{
	int before = seen.count;

	c.fn(p, 0x5ee, 0);
	SAME(seen.count, before + 1, "the number of faults");
	SAME(seen.signo, signo, "the signal");
	SAME(seen.code, code, "si_code");
	SAME(seen.address, address, "si_addr");
	SAME(seen.pc, c.site, "the pc");
	SAME(seen.x1, 0x5ee, "a register");
}

static void expect_fault(struct code c, volatile void *p, uint64_t address, int code)
{
	expect_signal(c, p, address, SIGSEGV, code);
}

static void in_each_form(void (*fn)(struct code c), const struct snippet *snippet)
{
	static const enum form forms[] = { EMITTED, LOCAL, SHARED_FORM, MIXED };
	static bool is_started;

	catch_faults(0);
	if (!is_started)
		cells_worker_start(&other);
	is_started = true;
	for (unsigned i = 0; i < 4; i++) {
		struct code c = cells_emit(snippet);

		CHECK(cells_train(c, forms[i]), "no form %u", forms[i]);
		fn(c);
	}
}

static void fault_read_only(struct code c)
{
	uint64_t *pages[] = { cells_mine(), cells_others(&other), cells_shared(&other), cells_map(PAGE),
		              cells_map(64 * PAGE) };

	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		uint64_t *p = pages[i];

		SAME(mprotect(p, PAGE, PROT_READ), 0, "mprotect");
		expect_fault(c, p + 3, (uint64_t)(p + 3), SEGV_ACCERR);
		SAME(peek(p + 3), 0, "the memory after a store that faulted");
		SAME(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0, "mprotect");
		c.fn(p + 3, 4, 0);
		SAME(peek(p + 3), 4, "the memory after it was writable again");
	}
}

static void fault_nowhere(struct code c)
{
	uint64_t *p = cells_mine();

	expect_fault(c, NULL, 0, SEGV_MAPERR);
	expect_fault(c, (void *)0x18, 0x18, SEGV_MAPERR);
	munmap(p, PAGE);
	expect_fault(c, p + 5, (uint64_t)(p + 5), SEGV_MAPERR);
}

/* PROT_EXEC alone is whatever it is outside the window: readable, or not. */
static void fault_only_executable(struct code c)
{
	uint64_t *p = cells_map(PAGE);
	int before = seen.count, outside;

	SAME(mprotect(only_executable, PAGE, PROT_EXEC), 0, "mprotect");
	c.fn(only_executable, 0x5ee, 0);
	outside = seen.count - before;
	put(p, 5);
	SAME(mprotect(p, PAGE, PROT_EXEC), 0, "mprotect");
	c.fn(p, 0x5ee, 0);
	SAME(seen.count - before, 2 * outside, "the number of faults");
}

static void fault_no_access(struct code c)
{
	uint64_t *p = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	expect_fault(c, p, (uint64_t)p, SEGV_ACCERR);
	SAME(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE), 0, "mprotect");
	put(p, 3);
	SAME(mprotect(p, 4 * PAGE, PROT_NONE), 0, "mprotect");
	expect_fault(c, p, (uint64_t)p, SEGV_ACCERR);
	SAME(mprotect(p, 4 * PAGE, PROT_READ), 0, "mprotect");
	SAME(get(p), 3, "the memory that was out of reach for a while");
	fault_only_executable(c);
}

static void read_only_store(void)
{
	in_each_form(fault_read_only, &snippet_str);
}

static void read_only_atomic(void)
{
	in_each_form(fault_read_only, &snippet_ldadd);
}

static void nowhere(void)
{
	in_each_form(fault_nowhere, &snippet_str);
	in_each_form(fault_nowhere, &snippet_ldr);
}

static void no_access(void)
{
	in_each_form(fault_no_access, &snippet_ldr);
}

/* Memory that the program may read and write, reached or not yet, and jumps to. */
static void executed(void)
{
	catch_faults(0);
	jump = true;
	cells_worker_start(&other);
	uint64_t *pages[] = { cells_mine(), cells_others(&other), cells_map(64 * PAGE) };

	for (volatile unsigned i = 0; i < 3; i++) {
		if (sigsetjmp(away, 1) == 0)
			((void (*)(uint64_t, uint64_t))(uint64_t)pages[i])(0, 0x5ee);
		SAME(seen.count, i + 1, "the number of faults");
		SAME(seen.signo, SIGSEGV, "the signal");
		SAME(seen.code, SEGV_ACCERR, "si_code");
		SAME(seen.address, pages[i], "si_addr");
		SAME(seen.pc, pages[i], "the pc");
	}
}

/* The second half of an access over two pages: that page may not be written, not be accessed, or is not there. Nothing of the first half may be done. */
static void fault_behind(struct code c)
{
	static const struct {
		int prot, code;
	} kinds[] = { { PROT_READ, SEGV_ACCERR }, { PROT_NONE, SEGV_ACCERR }, { -1, SEGV_MAPERR } };

	for (unsigned i = 0; i < 9; i++) {
		uint64_t *p = cells_map(2 * PAGE), *last = p + PAGE / 8 - 1;
		int prot = kinds[i % 3].prot;

		if (i / 3 == 0)
			put(last, 0x1234);
		else if (i / 3 == 1)
			cells_put_on(&other, last, 0x1234);
		uint64_t before = peek(last);

		SAME(prot < 0 ? munmap(last + 1, PAGE) : mprotect(last + 1, PAGE, prot), 0, "munmap or mprotect");
		expect_fault(c, (uint8_t *)last + 4, (uint64_t)(last + 1), kinds[i % 3].code);
		SAME(peek(last), before, "the half that could be written, after the fault");
		if (prot < 0)
			continue;
		SAME(mprotect(last + 1, PAGE, PROT_READ | PROT_WRITE), 0, "mprotect");
		c.fn((uint8_t *)last + 4, 0x1122334455667788, 0);
		SAME(peek(last) >> 32, 0x55667788, "the lower half once it can be written");
		SAME((uint32_t)peek(last + 1), 0x11223344, "the upper half once it can be written");
	}
}

static void straddling_store(void)
{
	in_each_form(fault_behind, &snippet_str);
}

/* Outside the window, where the preload has no hand in it, the processor says what is due; over two granules, which no core lets pass. */
static void fault_not_aligned(struct code c)
{
	static uint64_t outside[4];
	uint64_t *pages[] = { cells_mine(), cells_others(&other), cells_shared(&other), cells_map(64 * PAGE), outside };

	for (unsigned i = 5; i-- > 0;) {
		uint8_t *p = (uint8_t *)pages[i] + 12;
		uint64_t before[] = { peek(pages[i] + 1), peek(pages[i] + 2) };

		expect_signal(c, p, (uint64_t)p, SIGBUS, BUS_ADRALN);
		SAME(peek(pages[i] + 1), before[0], "the memory before the boundary");
		SAME(peek(pages[i] + 2), before[1], "the memory behind it");
	}
}

static void not_aligned(void)
{
	in_each_form(fault_not_aligned, &snippet_ldadd);
	in_each_form(fault_not_aligned, &snippet_casal);
	in_each_form(fault_not_aligned, &snippet_stlr);
	in_each_form(fault_not_aligned, &snippet_ldapr);
}

/* The load of a loop is the first to fault, at its own pc. */
static void exclusive_not_aligned(void)
{
	struct code loop = cells_emit(&snippet_llsc);

	catch_faults(0);
	jump = true;
	cells_worker_start(&other);
	uint64_t *pages[] = { cells_mine(), cells_others(&other), cells_shared(&other), cells_map(64 * PAGE) };

	for (volatile unsigned i = 0; i < 4; i++) {
		uint8_t *p = (uint8_t *)pages[i] + 12; /* over two granules, as above */

		if (sigsetjmp(away, 1) == 0)
			loop.fn(p, 1, 0);
		SAME(seen.count, i + 1, "the number of faults");
		SAME(seen.signo, SIGBUS, "the signal");
		SAME(seen.code, BUS_ADRALN, "si_code");
		SAME(seen.address, (uint64_t)p, "si_addr");
		SAME(seen.pc, loop.site, "the pc");
		SAME(seen.x1, 1, "a register");
	}
}

/* The second of two accesses is interpreted without having trapped: its fault is met in the handler. */
static void fault_in_run(void)
{
	static const int prots[] = { PROT_READ, PROT_NONE, -1 };
	struct code store = cells_emit(&snippet_ldr_str), atomic = cells_emit(&snippet_ldr_ldadd);

	catch_faults(0);
	cells_worker_start(&other);
	store.site++;
	atomic.site++;
	for (unsigned i = 0; i < 6; i++) {
		uint64_t *p = cells_map(2 * PAGE), *last = p + PAGE / 8 - 1;
		int prot = prots[i % 3];

		if (i < 3)
			put(last, 0x1234);
		else
			cells_put_on(&other, last, 0x1234);
		put(last + 1, 0x5678);
		SAME(prot < 0 ? munmap(last + 1, PAGE) : mprotect(last + 1, PAGE, prot), 0, "munmap or mprotect");
		expect_fault(store, (uint8_t *)last + 4, (uint64_t)(last + 1), prot < 0 ? SEGV_MAPERR : SEGV_ACCERR);
		SAME(peek(last), 0x1234, "the half that could be written, after the fault");
		expect_signal(atomic, (uint8_t *)p + 12, (uint64_t)p + 12, SIGBUS, BUS_ADRALN);
		SAME(peek(p + 1), 0, "the memory of an atomic that is not aligned");
	}
}

/* An exclusive loop is one unit for the preload, so the pc is in the loop; the rest is as without. */
static void read_only_exclusive(void)
{
	struct code loop = cells_emit(&snippet_llsc);

	catch_faults(0);
	jump = true;
	cells_worker_start(&other);
	uint64_t *pages[] = { cells_mine(), cells_others(&other), cells_shared(&other), cells_map(64 * PAGE), NULL };

	for (volatile unsigned i = 0; i < 5; i++) {
		uint64_t *p = pages[i];

		SAME(p ? mprotect(p, PAGE, PROT_READ) : 0, 0, "mprotect");
		if (sigsetjmp(away, 1) == 0)
			loop.fn(p, 1, 0);
		SAME(seen.count, i + 1, "the number of faults");
		SAME(seen.code, p ? SEGV_ACCERR : SEGV_MAPERR, "si_code");
		SAME(seen.address, p, "si_addr");
		CHECK(seen.pc >= (uint64_t)loop.site && seen.pc < (uint64_t)(loop.site + 4),
		      "the pc is not in the loop");
		SAME(p ? mprotect(p, PAGE, PROT_READ | PROT_WRITE) : 0, 0, "mprotect");
		SAME(p ? loop.fn(p, 5, 0) : 0, 0, "what the loop read once it could write");
		SAME(p ? peek(p) : 5, 5, "what it wrote");
	}
}

/* Out of the handler by siglongjmp, as emulators and guests do: nothing of ours may be left held. */
static void jump_out(void)
{
	struct code store = cells_emit(&snippet_str), atomic = cells_emit(&snippet_ldadd);
	volatile unsigned landed = 0;

	catch_faults(0);
	jump = true;
	cells_worker_start(&other);
	uint64_t *p = cells_others(&other), *q = cells_mine();

	mprotect(p, PAGE, PROT_READ);
	for (volatile unsigned i = 0; i < 500; i++) {
		if (sigsetjmp(away, 1) == 0)
			(i % 2 ? store : atomic).fn(i % 3 ? p : NULL, i, 0);
		else
			landed++;
		put(q, i);
	}
	SAME(landed, 500, "landings");
	mprotect(p, PAGE, PROT_READ | PROT_WRITE);
	cells_put_on(&other, p, 1);
	cells_put_on(&other, q, 2);
	SAME(get(p) + get(q), 3, "the sum afterwards");
}

static void alternate_stack(void)
{
	static uint8_t stack[256 * 1024];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };

	SAME(sigaltstack(&alternate, NULL), 0, "sigaltstack");
	cells_worker_start(&other);
	catch_faults(SA_ONSTACK);
	struct code store = cells_emit(&snippet_str);
	uint64_t *p = cells_others(&other);

	for (unsigned i = 0; i < 20; i++)
		store.fn(p, i, 0);
	expect_fault(store, (void *)0x20, 0x20, SEGV_MAPERR);
	SAME(peek(p), 19, "the value");
}

/* Every signal blocked, as libc itself does around thread creation: checks must still be served. */
static void all_blocked(void)
{
	sigset_t all, now;
	struct code store = cells_emit(&snippet_str);

	catch_faults(0);
	cells_worker_start(&other);
	uint64_t *p = cells_others(&other);

	sigfillset(&all);
	SAME(pthread_sigmask(SIG_SETMASK, &all, NULL), 0, "pthread_sigmask");
	for (unsigned i = 0; i < 20; i++)
		store.fn(p, i, 0);
	SAME(peek(p), 19, "the value");
	SAME(sigprocmask(SIG_BLOCK, &all, &now), 0, "sigprocmask");
	CHECK(sigismember(&now, SIGTERM) == 1, "SIGTERM is not blocked");
	store.fn(cells_mine(), 1, 0);
}

static void handlers_kept(void)
{
	struct sigaction old;

	catch_faults(SA_NODEFER);
	cells_worker_start(&other);
	SAME(sigaction(SIGSEGV, NULL, &old), 0, "sigaction");
	CHECK(old.sa_sigaction == on_fault, "sigaction gives back another handler");
	CHECK(old.sa_flags & SA_NODEFER, "sigaction gives back other flags");
	CHECK(signal(SIGSEGV, SIG_IGN) == (void (*)(int))(void (*)(void))on_fault, "signal gives back another handler");
	CHECK(signal(SIGSEGV, SIG_DFL) == SIG_IGN, "signal does not give back SIG_IGN");
	put(cells_others(&other), 1); /* served with no handler of the program's own */
	catch_faults(SA_RESETHAND);
	struct code store = cells_emit(&snippet_str);

	expect_fault(store, NULL, 0, SEGV_MAPERR);
	SAME(sigaction(SIGSEGV, NULL, &old), 0, "sigaction");
	CHECK(old.sa_handler == SIG_DFL, "SA_RESETHAND does not reset");
}

const struct test cells_faults[] = {
	TEST("read-only", "a store to a read-only page reaches the program's handler, whatever the owner and the form",
	     read_only_store, "TAGTSO_HANDOVERS=0"),
	TEST("read-only-atomic", "an atomic on a read-only page reaches the program's handler", read_only_atomic,
	     "TAGTSO_HANDOVERS=0"),
	TEST("read-only-exclusive", "an exclusive loop on a read-only page reaches the program's handler",
	     read_only_exclusive, "TAGTSO_HANDOVERS=0"),
	TEST("nowhere", "an access to no memory reaches the program's handler, in each form", nowhere,
	     "TAGTSO_HANDOVERS=0"),
	TEST("no-access", "an access to a page without access reaches the program's handler", no_access,
	     "TAGTSO_HANDOVERS=0"),
	TEST("fault-in-run", "an access that is interpreted before it traps faults as it would, and does nothing",
	     fault_in_run, "TAGTSO_THRESHOLD=0", { "guest_faults", '=', 12 }),
	TEST("executed", "a jump to memory that is not code reaches the program's handler", executed,
	     "TAGTSO_HANDOVERS=0"),
	TEST("straddling-fault",
	     "a fault in the second half of an access has that half's address, and does nothing to the first",
	     straddling_store, "TAGTSO_HANDOVERS=0"),
	TEST("not-aligned", "an atomic or ordered access that is not aligned is the program's SIGBUS", not_aligned,
	     "TAGTSO_HANDOVERS=0"),
	TEST("exclusive-not-aligned", "an exclusive loop that is not aligned is the program's SIGBUS",
	     exclusive_not_aligned, "TAGTSO_HANDOVERS=0"),
	TEST("longjmp", "leaving the program's handler by siglongjmp leaves nothing locked", jump_out, NULL),
	TEST("sigaltstack", "the program's handler and ours run on the alternate stack", alternate_stack, NULL),
	TEST("blocked", "traps are served while the program blocks all signals", all_blocked, NULL),
	TEST("handlers", "the program gets back the handlers that it set", handlers_kept, NULL),
	TEST(NULL, NULL, NULL, NULL),
};
