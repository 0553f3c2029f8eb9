/* SPDX-License-Identifier: MIT */
/* Signals that come at any time disturb nothing. Handlers run on alternate stacks: on the thread's own, box64 0.4.3 lets them overwrite what is there. */
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "guest.h"

enum { WORDS = 4096, ROUNDS = 400, ALARMS = 300, PERIOD_US = 3000 }; /* longer than an emulated machine takes for one alarm */

static volatile sig_atomic_t alarms;

static void on_signal(int signo)
{
	volatile char room[2000];

	(void)signo;
	memset((char *)room, 0x5a, sizeof(room));
	alarms++;
}

static void use_alternate_stack(void)
{
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };

	WANT(sigaltstack(&stack, NULL) == 0);
}

/* Pushes, pops and heap accesses, with everything on the stack checked. */
static __attribute__((noinline)) uint64_t work(uint64_t *heap, unsigned depth)
{
	volatile uint64_t local[16];

	for (unsigned i = 0; i < 16; i++)
		local[i] = depth * 16 + i;
	for (unsigned i = 0; i < 64; i++)
		heap[(depth * 64 + i) % WORDS] += i;
	uint64_t sum = depth ? work(heap, depth - 1) : 0;

	for (unsigned i = 0; i < 16; i++)
		WANT(local[i] == depth * 16 + i);
	return sum + local[3];
}

static void block_alarms(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(how, &set, NULL);
}

static void *worker(void *arg)
{
	uint64_t *heap = calloc(WORDS, sizeof(*heap)), total = 0, round;

	(void)arg;
	use_alternate_stack();
	block_alarms(SIG_UNBLOCK);
	for (round = 0; round < ROUNDS || alarms < ALARMS; round++)
		WANT(work(heap, 40) == 41 * 3 + 16 * 40 * 41 / 2);
	for (unsigned i = 0; i < WORDS; i++)
		total += heap[i];
	WANT(total == round * 41 * (63 * 64 / 2));
	free(heap);
	return NULL;
}

static void timer(void)
{
	struct itimerval every = { { 0, PERIOD_US }, { 0, PERIOD_US } }, off = { { 0, 0 }, { 0, 0 } };

	block_alarms(SIG_BLOCK); /* the workers take them */
	setitimer(ITIMER_REAL, &every, NULL);
	guest_run_threads(3, worker);
	setitimer(ITIMER_REAL, &off, NULL);
	block_alarms(SIG_UNBLOCK);
	guest_say("a timer's signals leave threads and their stacks alone");
}

static volatile bool ready, done;
static void *spin(void *arg)
{
	volatile uint64_t *p = malloc(4096);

	(void)arg;
	use_alternate_stack();
	for (unsigned i = 0; i < 512; i++)
		p[i] = 0;
	ready = true;
	for (uint64_t i = 1; !done; i++) {
		p[i % 512] += 1;
		WANT(p[i % 512] <= i / 512 + 1 && p[i % 512] >= i / 512);
	}
	free((void *)p);
	return NULL;
}

/* As a garbage collector stops the world: a thread's handler waits until it is told to go on. Not before the thread has its alternate stack: box64 0.4.3
 * gives a thread that a signal meets at its very start a stack for the handler, and unmaps it at its next step, with signals still coming. */
static volatile sig_atomic_t stopped, go_on;
static void stop(int signo)
{
	(void)signo;
	stopped = 1;
	while (!go_on)
		__builtin_ia32_pause();
	go_on = 0;
}

static void stop_the_world(void)
{
	struct sigaction action = { .sa_handler = stop, .sa_flags = SA_ONSTACK };
	pthread_t thread;

	sigaction(SIGUSR1, &action, NULL);
	pthread_create(&thread, NULL, spin, NULL);
	while (!ready)
		usleep(100);
	for (unsigned i = 0; i < 100; i++) {
		stopped = 0;
		WANT(pthread_kill(thread, SIGUSR1) == 0);
		while (!stopped)
			usleep(100);
		go_on = 1;
		while (go_on)
			usleep(100);
	}
	done = true;
	pthread_join(thread, NULL);
	guest_say("a thread can be stopped anywhere by a signal and goes on");
}

static sigjmp_buf away;
static void jump(int signo)
{
	(void)signo;
	siglongjmp(away, 1);
}

static void jump_out(void)
{
	struct sigaction action = { .sa_handler = jump, .sa_flags = SA_ONSTACK };
	volatile uint64_t *p = calloc(512, 8);
	volatile unsigned landed = 0;

	sigaction(SIGALRM, &action, NULL);
	while (landed < 50) {
		struct itimerval once = { { 0, 0 }, { 0, 700 } };

		if (sigsetjmp(away, 1)) {
			landed++;
			continue;
		}
		setitimer(ITIMER_REAL, &once, NULL);
		for (uint64_t i = 0;; i++)
			p[i % 512] = i;
	}
	free((void *)p);
	guest_say("a handler may leave by siglongjmp, from anywhere");
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESTART };

	use_alternate_stack();
	sigaction(SIGALRM, &action, NULL);
	timer();
	stop_the_world();
	jump_out();
	return guest_status();
}
