/* SPDX-License-Identifier: MIT */
/* Signals at every word. An emulated processor takes interrupts between translated blocks only, so that a timer's signals hardly ever come in the middle of an
 * island. Here another process follows the thread step by step (ptrace) while it is in generated code and gives it a signal at a chosen instruction.
 *
 * The other process is made by the system call itself: the preload, which would make it an emulator of its own, does not know of it. */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "minijit.h"

/* What the two processes say to each other. */
static struct share {
	_Atomic int tid;                     /* of the thread to follow; 0 before it is there */
	_Atomic int attached;                /* 1: it may go on, -1: it cannot be followed */
	_Atomic int inside;                  /* the thread is about to be in generated code */
	_Atomic uint64_t code, islands, end; /* islands come behind the code */
	uint64_t steps, injected, in_islands;
} * share;

static long raw(long nr, long a, long b)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = 0;
	register long x3 __asm__("x3") = 0;
	register long x4 __asm__("x4") = 0;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}

static void nap(void)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	nanosleep(&pause, NULL);
}

/* ---- the process that follows ---- */

static uint64_t register_of(int tid, bool pc)
{
	struct user_regs_struct r = { 0 };
	struct iovec v = { &r, sizeof(r) };

	ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &v);
	return pc ? r.pc : r.regs[8];
}

struct follower {
	int tid;
	unsigned handlers; /* that the thread is in: then it runs to their rt_sigreturn */
	bool entry;        /* the next stop at a system call is at its beginning */
	uint64_t seed;
};

/* At an instruction: the signal that it gets. */
static int at_step(struct follower *f)
{
	uint64_t pc = register_of(f->tid, true);
	bool in_island = pc >= share->islands && pc < share->end;

	share->steps++;
	/* A step takes long enough in an emulated machine: most signals are for islands. Not too many: each before the access begins the island again. */
	if (pc < share->code || pc >= share->end || random_next(&f->seed) % (in_island ? 8 : 32))
		return 0;
	share->injected++;
	share->in_islands += in_island;
	return SIGUSR1;
}

/* A stop; returns the signal to go on with. */
static int at_stop(struct follower *f, int status)
{
	int signo = WSTOPSIG(status), give = 0;

	if (status >> 16)
		return 0; /* of PTRACE_INTERRUPT */
	if (signo == (SIGTRAP | 0x80)) {
		if (f->entry && f->handlers && register_of(f->tid, false) == SYS_rt_sigreturn)
			f->handlers--;
		f->entry = !f->entry;
		return 0;
	}
	give = signo == SIGTRAP ? at_step(f) : signo;
	f->handlers += give != 0;
	return give;
}

static void follow(struct follower *f)
{
	int status, give = 0;

	while (waitpid(f->tid, &status, __WALL) == f->tid && WIFSTOPPED(status)) {
		give = at_stop(f, status);
		/* from the entry of a system call to its end there is nothing to step over */
		bool step = !f->handlers && atomic_load(&share->inside);

		if (step)
			f->entry = true;
		if (ptrace(step ? PTRACE_SINGLESTEP : PTRACE_SYSCALL, f->tid, NULL, (void *)(intptr_t)give))
			break;
	}
}

static _Noreturn void follower(void)
{
	struct follower f = { .entry = true, .seed = options.seed };

	while (!(f.tid = atomic_load(&share->tid)))
		nap();
	if (ptrace(PTRACE_SEIZE, f.tid, NULL, (void *)PTRACE_O_TRACESYSGOOD) ||
	    ptrace(PTRACE_INTERRUPT, f.tid, NULL, NULL)) {
		atomic_store(&share->attached, -1);
	} else {
		atomic_store(&share->attached, 1);
		follow(&f);
	}
	raw(SYS_exit_group, 0, 0);
	__builtin_unreachable();
}

/* ---- the one that is followed ---- */

void step_prepare(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(125);
	share = p;
	if (!raw(SYS_clone, SIGCHLD, 0))
		follower();
}

void step_thread(void)
{
	atomic_store(&share->tid, (int)syscall(SYS_gettid));
	while (!atomic_load(&share->attached))
		nap();
	if (atomic_load(&share->attached) < 0)
		wrong("the thread cannot be followed step by step: ptrace is not allowed");
}

void step_inside(const struct slot *slot, bool inside)
{
	if (!share)
		return;
	atomic_store(&share->code, (uint64_t)(uintptr_t)slot->code);
	atomic_store(&share->islands, (uint64_t)(uintptr_t)slot->code + SLOT_BYTES);
	/* as many islands as there may be: four bytes to each of code */
	atomic_store(&share->end, (uint64_t)(uintptr_t)slot->code + 5 * (uint64_t)SLOT_BYTES);
	atomic_store(&share->inside, inside);
	raw(SYS_getppid, 0, 0); /* where it is stopped, and stepped from */
}

void step_report(void)
{
	if (share)
		printf("# steps %llu, signals given %llu, of these in islands %llu\n", (unsigned long long)share->steps,
		       (unsigned long long)share->injected, (unsigned long long)share->in_islands);
}
