/* SPDX-License-Identifier: MIT */
/* Signals that come at any time disturb nothing. Any time of the guest's: what box64 0.4.3 cannot bear, with or without a preload, is kept out. Handlers
 * run on alternate stacks, since on the thread's own it lets them overwrite what is there; a thread that begins or ends takes no signal, since box64's
 * handler allocates memory for a thread that it does not know yet or any more, be it in the midst of free(). */
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include "guest.h"

enum { WORDS = 4096, ROUNDS = 400, ALARMS = 300, LONGEST_US = 3000, WARM = 1000 };

static volatile sig_atomic_t alarms;
static atomic_bool due; /* An alarm has come, and the next is to be set. */

static void on_signal(int signo)
{
	volatile char room[2000];

	(void)signo;
	memset((char *)room, 0x5a, sizeof(room));
	alarms++;
	due = true;
}

/* One alarm, 0 = none any more. */
static void alarm_in(unsigned us)
{
	struct itimerval once = { { 0, 0 }, { 0, us } };

	WANT(setitimer(ITIMER_REAL, &once, NULL) == 0);
}

/* One alarm at a time, by a thread that has done some work since the last: a slow machine that takes longer for an alarm than lies between them would do
 * nothing else. */
static void set_alarm(void)
{
	static atomic_uint times;

	alarm_in(100 + atomic_fetch_add(&times, 1) * 377 % LONGEST_US);
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
	for (round = 0; round < ROUNDS || alarms < ALARMS; round++) {
		WANT(work(heap, 40) == 41 * 3 + 16 * 40 * 41 / 2);
		if (atomic_exchange(&due, false))
			set_alarm();
	}
	block_alarms(SIG_BLOCK);
	for (unsigned i = 0; i < WORDS; i++)
		total += heap[i];
	WANT(total == round * 41 * (63 * 64 / 2));
	free(heap);
	return NULL;
}

static void timer(void)
{
	block_alarms(SIG_BLOCK); /* the workers take them */
	set_alarm();
	guest_run_threads(3, worker);
	alarm_in(0);
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
static volatile uint64_t turns; /* of the loop that is left */

/* Only out of a loop that has been translated: box64's own code, which holds locks and is half through with what it does, must not be jumped out of. */
static void jump(int signo)
{
	static unsigned wait_us = 700;

	(void)signo;
	if (turns >= WARM)
		siglongjmp(away, 1);
	wait_us = wait_us < 100000 ? 2 * wait_us : wait_us;
	alarm_in(wait_us);
}

static void jump_out(void)
{
	struct sigaction action = { .sa_handler = jump, .sa_flags = SA_ONSTACK };
	volatile uint64_t *p = calloc(512, 8);
	volatile unsigned landed = 0;

	sigaction(SIGALRM, &action, NULL);
	while (landed < 50) {
		turns = 0;
		if (sigsetjmp(away, 1)) {
			landed++;
			continue;
		}
		alarm_in(700);
		for (;; turns++)
			p[turns % 512] = turns;
	}
	free((void *)p);
	guest_say("a handler may leave by siglongjmp, from anywhere in a loop");
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
