/* SPDX-License-Identifier: MIT */
/* A guest's own faults, while another of its threads runs: its handler sees the right address and goes on. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

enum { PAGE = 4096, ROUNDS = 20 };

static sigjmp_buf away;
static volatile uintptr_t address;
static volatile int number, faults;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	(void)context;
	number = signo;
	address = (uintptr_t)info->si_addr;
	faults++;
	siglongjmp(away, 1);
}

static volatile bool done;
static void *background(void *arg)
{
	volatile uint64_t *p = malloc(256);

	(void)arg;
	for (uint64_t i = 0; !done; i++) {
		p[i % 32] = i;
		WANT(p[i % 32] == i);
	}
	free((void *)p);
	return NULL;
}

/* True if the access faults once, at that address. */
#define FAULTS_AT(where, access) \
	do { \
		int before_ = faults; \
		if (sigsetjmp(away, 1) == 0) { \
			access; \
			WANT(!"no fault"); \
		} \
		WANT(faults == before_ + 1 && number == SIGSEGV && address == (uintptr_t)(where)); \
	} while (0)

static void *volatile nowhere;

static void null_pointer(void)
{
	for (volatile int i = 0; i < ROUNDS; i++) {
		FAULTS_AT(0, *(volatile int *)nowhere = 1);
		FAULTS_AT(0x40, ((volatile uint64_t *)nowhere)[8]);
		FAULTS_AT(0, __atomic_fetch_add((int *)nowhere, 1, __ATOMIC_SEQ_CST));
	}
	guest_say("a write, a read and an atomic at NULL reach the guest's handler");
}

static void read_only(void)
{
	volatile uint32_t *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	p[3] = 77;
	p[PAGE / 4 + 3] = 78;
	WANT(mprotect((void *)p, PAGE, PROT_READ) == 0);
	for (volatile int i = 0; i < ROUNDS; i++) {
		FAULTS_AT(p + 5, p[5] = 1);
		FAULTS_AT(p + 6, __atomic_fetch_add(&p[6], 1, __ATOMIC_SEQ_CST));
		p[PAGE / 4 + 3]++;
	}
	WANT(p[3] == 77 && p[5] == 0 && p[6] == 0 && p[PAGE / 4 + 3] == 78 + ROUNDS);
	guest_say("a write to a read-only page reaches the guest's handler with its address");
	WANT(mprotect((void *)p, PAGE, PROT_READ | PROT_WRITE) == 0);
	p[5] = 9;
	WANT(p[5] == 9 && p[3] == 77);
	guest_say("the page can be written again when it is writable again");
	WANT(mprotect((void *)p, PAGE, PROT_NONE) == 0);
	FAULTS_AT(p + 1, (void)p[1]);
	WANT(munmap((void *)p, 2 * PAGE) == 0);
	FAULTS_AT(p + 2, p[2] = 1);
	guest_say("pages without access, and unmapped ones, reach the guest's handler with their address");
}

static volatile uint32_t *repaired;
static void repair(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)context;
	address = (uintptr_t)info->si_addr;
	faults++;
	mprotect((void *)(address & ~(uintptr_t)(PAGE - 1)), PAGE, PROT_READ | PROT_WRITE);
}

/* As garbage collectors do it: the handler makes the page writable, and the write is done again. */
static void write_barrier(void)
{
	struct sigaction action = { .sa_sigaction = repair, .sa_flags = SA_SIGINFO };
	int before = faults;

	sigaction(SIGSEGV, &action, NULL);
	repaired = mmap(NULL, 16 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < 16; i++) {
		repaired[i * PAGE / 4 + i] = i;
		WANT(address == (uintptr_t)&repaired[i * PAGE / 4 + i]);
	}
	for (unsigned i = 0; i < 16; i++)
		WANT(repaired[i * PAGE / 4 + i] == i);
	WANT(faults == before + 16);
	guest_say("a handler that makes the page writable lets the write be done");
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	pthread_t thread;

	sigaction(SIGSEGV, &action, NULL);
	pthread_create(&thread, NULL, background, NULL);
	null_pointer();
	read_only();
	write_barrier();
	done = true;
	pthread_join(thread, NULL);
	guest_say("the other thread was not disturbed");
	return guest_status();
}
