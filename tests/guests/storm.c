/* SPDX-License-Identifier: MIT */
/* A storm of signals: every 50 us a timer interrupts each of eight threads, all of which trap, in generated code that updates shared and own memory a fixed
 * number of times. No update may be lost, no thread may stop, and errno, flags, FP and SIMD state must be what they were.
 *
 * usage: storm [ROUNDS [SEED]]      of each thread. It starts itself again under the preload; knobs come from the environment */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, PAGE = 4096, AREA = 256 * 1024, INTERVAL = 50000, PATIENCE = 200 };

/* What storm_call() loads, and stores what is there afterwards. Offsets are in its code. */
struct registers {
	uint64_t x[12]; /* x0 to x7, then x10 to x13 */
	uint64_t fpcr, fpsr;
	__uint128_t v[32];
};
_Static_assert(offsetof(struct registers, fpcr) == 96 && offsetof(struct registers, v) == 112, "storm_call");

/* Guest memory of one thread. */
struct own {
	uint64_t count, pad[3];
	uint64_t vector[2], pad2[2];
	uint64_t pair[2], pad3[6];
	uint64_t copy, pad4[7];
	uint64_t signals; /* by the handler */
	uint64_t inside;  /* what the loop with SIMD stores here it stores to sum[3] too */
	uint64_t differs; /* bits of it that were not what sum[3] got */
};

/* Guest memory of all: one word on each line for all, then one word for each thread. */
struct shared {
	struct {
		uint64_t word, pad[7];
	} sum[4];
	uint64_t seen, pad[7];
	_Atomic uint64_t signals;
	uint64_t pad2[7];
	uint64_t each[THREADS];
};
enum { SUMS = 4 };

static struct thread {
	pthread_t thread;
	struct own *own;
	timer_t timer;
	unsigned number;
	volatile uint64_t signals; /* this thread's handler */
	_Atomic unsigned done;     /* rounds */
	const char *wrong;
} threads[THREADS];

static struct shared *shared;
static unsigned rounds;
static uint64_t seed;
static pthread_barrier_t together;

/* x0 = shared, x1 = own, x2 = rounds, x3 = 1, x10 = own word of shared memory, d1 = 1, v3 = { 1, 1 }. x8 and x9 are the shim's (profile "generic"). */
#define HIDDEN __attribute__((visibility("hidden"))) /* or else found by the GOT, which has no place for local labels */
HIDDEN extern const uint32_t storm_begin[], storm_end[];
__asm__(".pushsection .rodata\n\t.balign 4\n\t.globl storm_begin, storm_end\nstorm_begin:\n"
        "1:	ldaddal x3, x4, [x0]\n"
        "	add x5, x0, #64\n"
        "2:	ldaxr x4, [x5]\n	add x4, x4, #1\n	stlxr w6, x4, [x5]\n	cbnz w6, 2b\n"
        "	add x5, x0, #128\n"
        "	ldr x4, [x5]\n"
        "3:	mov x6, x4\n	add x7, x4, #1\n	casal x4, x7, [x5]\n	cmp x4, x6\n	b.ne 3b\n"
        "	add x5, x0, #192\n"
        "4:	ldaxr x4, [x5]\n	fmov d0, x4\n	add d0, d0, d1\n	mov x7, x5\n	fmov x4, d0\n"
        "	str d0, [x1, #200]\n	stlxr w6, x4, [x7]\n	cbnz w6, 4b\n"
        "	ldr x6, [x1, #200]\n	eor x6, x6, x4\n	ldr x7, [x1, #208]\n	orr x7, x7, x6\n	str "
        "x7, [x1, #208]\n"
        "	cmp x2, #1\n" /* the flags live until the end */
        "	ldr x4, [x1]\n	add x4, x4, #1\n	str x4, [x1]\n"
        "	ldr q2, [x1, #32]\n	add v2.2d, v2.2d, v3.2d\n	str q2, [x1, #32]\n"
        "	ldp x4, x6, [x1, #64]\n	add x4, x4, #1\n	stp x6, x4, [x1, #64]\n"
        "	ldr x4, [x0, #256]\n	str x4, [x1, #128]\n"
        "	ldr x4, [x10]\n	add x4, x4, #1\n	str x4, [x10]\n"
        "	b.eq 5f\n"
        "	sub x2, x2, #1\n	b 1b\n"
        "5:	ret\n"
        "storm_end:\n\t.popsection");

/* Calls code with the registers, and brings them back. */
void storm_call(const void *code, struct registers *registers);
__asm__(".text\n.globl storm_call\n.type storm_call, %function\nstorm_call:\n"
        "	stp x29, x30, [sp, #-96]!\n	mov x29, sp\n	stp x19, x20, [sp, #16]\n"
        "	stp d8, d9, [sp, #32]\n	stp d10, d11, [sp, #48]\n	stp d12, d13, [sp, #64]\n	stp d14, d15, "
        "[sp, #80]\n"
        "	mov x19, x1\n	mov x20, x0\n"
        "	mrs x9, fpcr\n	str x9, [sp, #-16]!\n"
        "	ldp x8, x9, [x19, #96]\n	msr fpcr, x8\n	msr fpsr, x9\n"
        "	add x8, x19, #112\n"
        "	.irp n, 0, 4, 8, 12, 16, 20, 24, 28\n	bl storm_load_\\n\n	.endr\n"
        "	ldp x10, x11, [x19, #64]\n	ldp x12, x13, [x19, #80]\n"
        "	ldp x0, x1, [x19]\n	ldp x2, x3, [x19, #16]\n	ldp x4, x5, [x19, #32]\n	ldp x6, x7, "
        "[x19, #48]\n"
        "	blr x20\n"
        "	stp x0, x1, [x19]\n	stp x2, x3, [x19, #16]\n	stp x4, x5, [x19, #32]\n	stp x6, x7, "
        "[x19, #48]\n"
        "	stp x10, x11, [x19, #64]\n	stp x12, x13, [x19, #80]\n"
        "	mrs x8, fpcr\n	mrs x9, fpsr\n	stp x8, x9, [x19, #96]\n"
        "	add x8, x19, #112\n"
        "	.irp n, 0, 4, 8, 12, 16, 20, 24, 28\n	bl storm_store_\\n\n	.endr\n"
        "	ldr x9, [sp], #16\n	msr fpcr, x9\n"
        "	ldp d8, d9, [sp, #32]\n	ldp d10, d11, [sp, #48]\n	ldp d12, d13, [sp, #64]\n	ldp d14, d15, "
        "[sp, #80]\n"
        "	ldp x19, x20, [sp, #16]\n	ldp x29, x30, [sp], #96\n	ret\n"
        ".macro four n, a, b, c, d\n"
        "storm_load_\\n:	ld1 {v\\a\\().16b-v\\d\\().16b}, [x8], #64\n	ret\n"
        "storm_store_\\n:	st1 {v\\a\\().16b-v\\d\\().16b}, [x8], #64\n	ret\n"
        ".endm\n"
        "	four 0, 0, 1, 2, 3\n	four 4, 4, 5, 6, 7\n	four 8, 8, 9, 10, 11\n	four 12, 12, 13, 14, 15\n"
        "	four 16, 16, 17, 18, 19\n	four 20, 20, 21, 22, 23\n	four 24, 24, 25, 26, 27\n	four "
        "28, 28, 29, 30, 31\n");

static uint64_t pattern(unsigned thread, unsigned n)
{
	uint64_t z = seed + thread * 1000 + n * 0x9e3779b97f4a7c15; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* ---- the timer ------------------------------------------------------------------------------------------------------------- */

/* Once, INTERVAL from now. A timer that repeats by itself would leave no time between two of its signals on a machine that takes longer for one. By
 * the system call itself: errno is under test. */
static void arm(timer_t timer)
{
	const struct itimerspec once = { .it_value.tv_nsec = INTERVAL };
	register long x8 __asm__("x8") = SYS_timer_settime;
	register long x0 __asm__("x0") = (long)timer;
	register long x1 __asm__("x1") = 0;
	register long x2 __asm__("x2") = (long)&once;
	register long x3 __asm__("x3") = 0;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
}

/* The emulator's handler: traps too, and leaves other values everywhere. */
static void on_signal(int signo, siginfo_t *info, void *context)
{
	struct thread *t = info->si_value.sival_ptr;

	(void)signo;
	(void)context;
	t->signals++;
	t->own->signals++;
	atomic_fetch_add(&shared->signals, 1);
	__asm__ volatile("movi v0.16b, #255\n\tmovi v1.16b, #255\n\tmovi v2.16b, #255\n\tmovi v3.16b, #255\n\t"
	                 "movi v17.16b, #255\n\tmsr fpsr, xzr\n\tmsr fpcr, xzr\n\tmsr nzcv, xzr"
	                 :
	                 :
	                 : "v0", "v1", "v2", "v3", "v17", "cc");
	arm(t->timer);
}

static bool start_timer(struct thread *t)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1, .sigev_value.sival_ptr = t };

	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &t->timer))
		return false;
	arm(t->timer);
	return true;
}

static void stop_timer(struct thread *t)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	timer_delete(t->timer); /* what is pending ends with the thread */
}

/* ---- a thread ---------------------------------------------------------------------------------------------------------------- */

static void prepare(const struct thread *t, struct registers *r)
{
	memset(r, 0, sizeof(*r));
	for (unsigned i = 0; i < 12; i++)
		r->x[i] = pattern(t->number, i);
	for (unsigned i = 0; i < 32; i++)
		r->v[i] = (__uint128_t)pattern(t->number, 100 + i) << 64 | pattern(t->number, 200 + i);
	r->x[0] = (uint64_t)shared;
	r->x[1] = (uint64_t)t->own;
	r->x[3] = 1;
	r->x[8] = (uint64_t)&shared->each[t->number];
	r->v[1] = 1;
	r->v[3] = (__uint128_t)1 << 64 | 1;
	r->fpcr = (uint64_t)(t->number & 3) << 22;           /* RMode */
	r->fpsr = UINT64_C(1) << 27 | (1u << t->number % 5); /* QC, and one of IOC, DZC, OFC, UFC, IXC */
}

/* NULL, or what the code had no reason to change and is not as it was. */
static const char *difference(const struct registers *before, const struct registers *after)
{
	static const unsigned kept[] = { 0, 1, 3, 8, 9, 10, 11 };

	for (unsigned i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		if (before->x[kept[i]] != after->x[kept[i]])
			return "an integer register";
	}
	if (after->x[2] != 1)
		return "the number of rounds";
	for (unsigned i = 0; i < 32; i++) {
		if (i != 0 && i != 2 && before->v[i] != after->v[i])
			return "a vector register";
	}
	if (before->fpcr != after->fpcr)
		return "FPCR";
	return before->fpsr != after->fpsr ? "FPSR" : NULL;
}

enum { BATCH = 50 };

static const void *code;

static void *run(void *argument)
{
	struct thread *t = argument;
	struct registers before, after;
	const int number = 4000 + (int)t->number;

	prepare(t, &before);
	pthread_barrier_wait(&together);
	if (!start_timer(t)) {
		t->wrong = "no timer";
		return NULL;
	}
	errno = number;
	for (unsigned done = 0; done < rounds && !t->wrong; done += BATCH) {
		before.x[2] = BATCH;
		after = before;
		storm_call(code, &after);
		t->wrong = errno == number ? difference(&before, &after) : "errno";
		atomic_fetch_add(&t->done, BATCH);
	}
	stop_timer(t);
	return NULL;
}

/* ---- all of it -------------------------------------------------------------------------------------------------------------- */

static unsigned failures;

static void result(bool ok, const char *sentence)
{
	printf("%sok - %s\n", ok ? "" : "not ", sentence);
	failures += !ok;
}

static void *map(size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("storm: mmap");
		exit(125);
	}
	return p;
}

static void emit(void)
{
	uint32_t *area = map(AREA, PROT_READ | PROT_WRITE | PROT_EXEC);
	size_t words = (size_t)(storm_end - storm_begin);

	memcpy(area, storm_begin, words * 4);
	__builtin___clear_cache((char *)area, (char *)(area + words));
	code = area;
}

static void start(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigaction(SIGUSR1, &action, NULL);
	pthread_barrier_init(&together, NULL, THREADS);
	emit();
	shared = map(PAGE, PROT_READ | PROT_WRITE);
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i].number = i;
		threads[i].own = map(PAGE, PROT_READ | PROT_WRITE);
		threads[i].own->pair[1] = 7;
	}
	for (unsigned i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i].thread, NULL, run, &threads[i]))
			exit(125);
	}
}

static unsigned rounds_done(void)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < THREADS; i++)
		sum += atomic_load(&threads[i].done);
	return sum;
}

/* False when a thread does not come to its end: when none of them got on for PATIENCE seconds. A machine that is busy with other things takes its time. */
static bool join(void)
{
	unsigned ended = 0, before = 0;
	struct timespec until;

	while (ended < THREADS) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += PATIENCE;
		if (!pthread_timedjoin_np(threads[ended].thread, NULL, &until))
			ended++;
		else if (rounds_done() == before)
			return false;
		before = rounds_done();
	}
	return true;
}

static bool right(const struct thread *t)
{
	const struct own *o = t->own;
	bool ok = o->count == rounds && o->vector[0] == rounds && o->vector[1] == rounds &&
	          o->pair[0] + o->pair[1] == rounds + 7 && !o->differs && shared->each[t->number] == rounds;

	if (!ok)
		printf("# thread %u: %llu, %llu, %llu, %llu, %llu and bits %llx\n", t->number,
		       (unsigned long long)o->count, (unsigned long long)o->vector[0], (unsigned long long)o->vector[1],
		       (unsigned long long)(o->pair[0] + o->pair[1]), (unsigned long long)shared->each[t->number],
		       (unsigned long long)o->differs);
	return ok;
}

static int inside(void)
{
	bool sums = true, own = true, signals = true, state = true;
	uint64_t came = 0;

	start();
	if (!join()) {
		result(false, "all threads come to their end");
		_exit(1);
	}
	for (unsigned i = 0; i < SUMS; i++) {
		if (shared->sum[i].word != (uint64_t)THREADS * rounds)
			printf("# sum %u: %llu\n", i, (unsigned long long)shared->sum[i].word);
		sums &= shared->sum[i].word == (uint64_t)THREADS * rounds;
	}
	for (unsigned i = 0; i < THREADS; i++) {
		came += threads[i].signals;
		own &= right(&threads[i]);
		signals &= threads[i].own->signals == threads[i].signals;
		if (threads[i].wrong)
			printf("# thread %u: %s\n", i, threads[i].wrong);
		state &= !threads[i].wrong;
	}
	printf("# seed %llu, %u threads of %u rounds, %llu signals\n", (unsigned long long)seed, THREADS, rounds,
	       (unsigned long long)came);
	result(true, "all threads come to their end");
	result(sums, "no update of shared words is lost: LDADD, CAS, LL/SC, LL/SC with SIMD and a store inside");
	result(own, "no plain update is lost, on own memory and on shared memory");
	result(signals && shared->signals == came, "nor one of the signal handler's");
	result(state, "errno, flags, integer, FP and SIMD registers, FPCR and FPSR are what they were");
	result(came >= THREADS * 10, "there was a storm");
	return failures > 0;
}

int main(int argc, char **argv)
{
	const char *count = argc > 1 ? argv[1] : "2000", *library = getenv("TAGTSO_LIB");
	char seeds[24];

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(seeds, sizeof(seeds), "%llu", argc > 2 ? strtoull(argv[2], NULL, 0) : (unsigned long long)time(NULL));
	seed = strtoull(seeds, NULL, 0);
	rounds = ((unsigned)strtoul(count, NULL, 0) + BATCH - 1) / BATCH * BATCH;
	if (getenv("TAGTSO_EMULATOR"))
		return inside();
	setenv("TAGTSO_EMULATOR", "generic", 1);
	setenv("TAGTSO_STRICT", "1", 1);
	setenv("LD_PRELOAD", library ? library : "/usr/lib/libtagtso.so", 1);
	execl("/proc/self/exe", "storm", count, seeds, (char *)NULL);
	perror("storm: exec");
	return 125;
}
