/* SPDX-License-Identifier: MIT */
/* What one interpreted access costs beside a bare SIGSEGV whose handler only steps the pc: the same instruction, the same kind of fault, one run.
 *
 *     TAGTSO_EMULATOR=generic TAGTSO_THRESHOLD=0 LD_PRELOAD=/usr/lib/libtagtso.so trap_cost [rounds]
 *
 * Prints a table of ratios, median over rounds, and the same as JSON on the last line. Time is the system counter's: in an emulated machine
 * only the ratios mean anything. Exit status 0, 77 without MTE or without the shim. */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc/sys.h"

enum { TRAPS = 2000, CODE_BYTES = 256 * 1024, ROUNDS_MAX = 101 };

/* The kernel's struct sigaction: the shim stands in front of libc's. */
struct kernel_action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

typedef void access_function(void *address, uint64_t *value);

static const struct {
	const char *name;
	uint32_t word; /* the access: address in x0, data in x2/v0 */
} accesses[] = {
	{ "8-byte load", 0xf9400002 },    /* ldr x2, [x0] */
	{ "8-byte store", 0xf9000002 },   /* str x2, [x0] */
	{ "16-byte vector", 0x3dc00000 }, /* ldr q0, [x0] */
	{ "pair store", 0xa9000c02 },     /* stp x2, x3, [x0] */
	{ "atomic add", 0xf8e20003 },     /* ldaddal x2, x3, [x0] */
};
enum { ACCESSES = sizeof(accesses) / sizeof(accesses[0]) };

static uint64_t ticks(void)
{
	uint64_t t;

	__asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(t)::"memory");
	return t;
}

static void step(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	((ucontext_t *)context)->uc_mcontext.pc += 4;
}

static uint64_t measure(access_function *run, void *at)
{
	uint64_t value = 0, begin = ticks();

	for (int i = 0; i < TRAPS; i++)
		run(at, &value);
	return ticks() - begin;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void *nothing(void *arg)
{
	return arg;
}

/* ratio of `rounds` rounds of interpreted to bare traps, alternating. */
static double ratio(access_function *run, void *owned, void *foreign, int rounds)
{
	struct kernel_action shim, bare = { .handler = step, .flags = SA_SIGINFO | SA_NODEFER };
	double ratios[ROUNDS_MAX];

	for (int r = 0; r < rounds; r++) {
		uint64_t interpreted = measure(run, owned), stepped;

		tagtso_sys(__NR_rt_sigaction, SIGSEGV, &bare, &shim, 8);
		stepped = measure(run, foreign);
		tagtso_sys(__NR_rt_sigaction, SIGSEGV, &shim, NULL, 8);
		ratios[r] = (double)interpreted / (double)stepped;
	}
	qsort(ratios, (size_t)rounds, sizeof(ratios[0]), by_value);
	return ratios[rounds / 2];
}

/* Not guest memory: mapped by the kernel directly, with a tag that no pointer has. */
static void *foreign_page(void)
{
	long p = tagtso_sys(__NR_mmap, 0, 4096, PROT_READ | PROT_WRITE | 0x20 /* PROT_MTE */,
	                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t tagged = (uint64_t)p | UINT64_C(5) << 56;

	if (p < 0 && p > -4096)
		return NULL;
	for (int i = 0; i < 256; i++, tagged += 16)
		__asm__ volatile(".arch_extension memtag\n\tstg %0, [%0]" ::"r"(tagged) : "memory");
	return (void *)p;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 21;
	pthread_t thread;
	uint32_t *code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *owned = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *foreign = foreign_page();

	if (code == MAP_FAILED || owned == MAP_FAILED || !foreign || rounds < 1 || rounds > ROUNDS_MAX ||
	    !getenv("LD_PRELOAD")) {
		fprintf(stderr,
		        "usage: TAGTSO_EMULATOR=generic TAGTSO_THRESHOLD=0 LD_PRELOAD=libtagtso.so %s [rounds, odd, up "
		        "to %d], with MTE\n",
		        argv[0], ROUNDS_MAX);
		return 77;
	}
	memset(owned, 1, 4096);
	pthread_create(&thread, NULL, nothing, NULL); /* wakes the shim: what is resident is this thread's */
	pthread_join(thread, NULL);
	printf("%-16s %s\n", "access", "interpreted : bare SIGSEGV");
	char json[512] = "", *at = json;

	for (int i = 0; i < ACCESSES; i++) {
		uint32_t *function = code + 16 * i;

		function[0] = accesses[i].word;
		function[1] = 0xd65f03c0; /* ret */
		__builtin___clear_cache((char *)function, (char *)(function + 2));
		double r = ratio((access_function *)(void *)function, owned, foreign, rounds);

		printf("%-16s %.2f\n", accesses[i].name, r);
		at += sprintf(at, "%s\"%s\":%.3f", i ? "," : "", accesses[i].name, r);
	}
	printf("{\"traps\":%d,\"rounds\":%d,\"ratio\":{%s}}\n", TRAPS, rounds, json);
	return 0;
}
