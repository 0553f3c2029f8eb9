/* SPDX-License-Identifier: MIT */
/* Instructions that are executed out of line, and LL/SC loops, in a process under the preload: values are right, and all memory that they access is shared (I1). */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef HWCAP2_MOPS
#define HWCAP2_MOPS (1ul << 43)
#endif
#ifndef HWCAP_SVE
#define HWCAP_SVE (1ul << 22)
#endif

enum { PAGE = 4096, WORDS = PAGE / 8, SHARED = 15, PAGES = 8 };

static unsigned failures;

static void result(bool ok, const char *sentence)
{
	printf("%sok - %s\n", ok ? "" : "not ", sentence);
	failures += !ok;
}

/* The tag in memory. */
static unsigned tag_of(const volatile void *p)
{
	uint64_t x = (uint64_t)p;

	__asm__ volatile("ldg %0, [%0]" : "+r"(x) : : "memory");
	return (unsigned)(x >> 56) & 15;
}

static bool all_shared(const uint64_t *p, unsigned pages)
{
	bool all = true;

	for (unsigned i = 0; i < pages; i++)
		all &= tag_of(p + i * WORDS) == SHARED && tag_of(p + i * WORDS + WORDS - 2) == SHARED;
	return all;
}

static uint64_t *map(unsigned pages)
{
	uint64_t *p = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("differential_shim: mmap");
		exit(125);
	}
	return p;
}

/* ---- a thread that writes first ---------------------------------------------------------------------------------------- */

/* Protected by the barrier: main writes before it, the other thread reads behind it, and back. */
static struct {
	pthread_barrier_t barrier;
	uint64_t *words;
	unsigned pages;
} other;

static void *writes(void *argument)
{
	for (;;) {
		pthread_barrier_wait(&other.barrier);
		if (!other.words)
			return argument;
		for (unsigned i = 0; i < other.pages * WORDS; i++)
			((volatile uint64_t *)other.words)[i] = i + 1;
		pthread_barrier_wait(&other.barrier);
	}
}

/* Memory of the other thread, each word its number plus one. */
static uint64_t *others(unsigned pages)
{
	other.words = map(pages);
	other.pages = pages;
	pthread_barrier_wait(&other.barrier);
	pthread_barrier_wait(&other.barrier);
	return other.words;
}

/* ---- out of line -------------------------------------------------------------------------------------------------------- */

static void structures(void)
{
	uint64_t *p = others(2), sums[4];
	const uint64_t *at = p + WORDS - 3; /* eight words over the end of a page */

	__asm__ volatile("ld4 {v0.2d-v3.2d}, [%1]\n\tstp d0, d1, [%0]\n\tstp d2, d3, [%0, #16]"
	                 :
	                 : "r"(sums), "r"(at)
	                 : "v0", "v1", "v2", "v3", "memory");
	result(sums[0] == WORDS - 2 && sums[3] == WORDS + 1 && all_shared(p, 2),
	       "LD4 over two pages of another thread");
}

/* CPYP, CPYM, CPYE [x0]!, [x1]!, x2!: not every assembler has them. Returns what is left. */
static uint64_t copy(void *to, const void *from, uint64_t bytes)
{
	register uint64_t x0 __asm__("x0") = (uint64_t)to, x1 __asm__("x1") = (uint64_t)from, x2 __asm__("x2") = bytes;

	__asm__ volatile(".inst 0x1d010440, 0x1d410440, 0x1d810440" : "+r"(x0), "+r"(x1), "+r"(x2) : : "memory", "cc");
	return x0 == (uint64_t)to + bytes ? x2 : ~0ull;
}

/* SETP, SETM, SETE [x0]!, x2!, x3 */
static uint64_t set(void *to, uint64_t bytes, unsigned char value)
{
	register uint64_t x0 __asm__("x0") = (uint64_t)to, x2 __asm__("x2") = bytes, x3 __asm__("x3") = value;

	__asm__ volatile(".inst 0x19c30440, 0x19c34440, 0x19c38440" : "+r"(x0), "+r"(x2) : "r"(x3) : "memory", "cc");
	return x2;
}

static void copies(void)
{
	const uint64_t bytes = (PAGES - 1) * PAGE, filled = ~0ull / 255 * 0x5a;
	uint64_t *from = others(PAGES), *to = others(PAGES), *apart = others(1), *last = from + bytes / 8;
	bool right;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_MOPS)) {
		printf("# CPYP: not here\n");
		return;
	}
	right = copy(to + 1, from + 3, bytes) == 0 && to[0] == 1 && !memcmp(to + 1, from + 3, bytes);
	result(right && all_shared(from, PAGES - 1) && all_shared(to, PAGES - 1),
	       "a memory copy over many pages of another thread");
	result(tag_of(apart) != SHARED, "memory that it does not reach keeps its owner");
	right = set(from + 1, bytes, 0x5a) == 0 && from[0] == 1 && from[1] == filled && *last == filled;
	result(right && last[1] == bytes / 8 + 2, "a memory set over many pages of another thread");
}

__asm__(".arch_extension sve");

/* As many doublewords, one page apart, as a vector holds, at most PAGES: [x0, z0.d, lsl #3] with z0 = 0, WORDS, 2 * WORDS, ... */
static void gathers(void)
{
	uint64_t *p = others(PAGES), *q = others(PAGES), *fresh = map(PAGES), out[32] = { 0 }, count;
	bool right = true, zero = true;

	if (!(getauxval(AT_HWCAP) & HWCAP_SVE)) {
		printf("# SVE: not here\n");
		return;
	}
	__asm__ volatile(
		"index z0.d, #0, %x3\n\tptrue p0.d\n\tcntd %0\n\tmov x9, #8\n\twhilelo p0.d, xzr, x9\n\t"
		"ld1d z1.d, p0/z, [%1, z0.d, lsl #3]\n\tst1d z1.d, p0, [%2]\n\tst1d z1.d, p0, [%4, z0.d, lsl #3]"
		: "=&r"(count)
		: "r"(p), "r"(out), "r"((uint64_t)WORDS), "r"(q + 2)
		: "x9", "memory");
	count = count < PAGES ? count : PAGES;
	for (unsigned i = 0; i < count; i++)
		right &= out[i] == i * WORDS + 1 && q[i * WORDS + 2] == out[i];
	result(count > 1 && right && all_shared(p, (unsigned)count) && all_shared(q, (unsigned)count),
	       "a gather and a scatter over pages of another thread");
	__asm__ volatile("index z0.d, #0, %x2\n\tmov x9, #8\n\twhilelo p0.d, xzr, x9\n\t"
	                 "ld1d z1.d, p0/z, [%0, z0.d, lsl #3]\n\tst1d z1.d, p0, [%1]"
	                 :
	                 : "r"(fresh), "r"(out), "r"((uint64_t)WORDS)
	                 : "x9", "memory");
	for (unsigned i = 0; i < count; i++)
		zero &= !out[i];
	result(zero, "a gather over pages that nobody has touched");
}

/* ---- faults out of line ------------------------------------------------------------------------------------------------- */

static sigjmp_buf away;
static siginfo_t fault;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)context;
	fault = *info;
	siglongjmp(away, 1);
}

/* Whether `access` ends in SIGSEGV at read-only memory; an alarm ends one that goes round for ever. */
static bool faults_at(uint64_t *read_only, void (*access)(uint64_t *to, uint64_t *from), uint64_t *to, uint64_t *from)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, old;
	bool right = false;

	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGSEGV, &action, &old);
	alarm(20);
	if (sigsetjmp(away, 1))
		right = fault.si_signo == SIGSEGV && fault.si_code == SEGV_ACCERR && fault.si_addr == read_only;
	else
		access(to, from);
	alarm(0);
	sigaction(SIGSEGV, &old, NULL);
	return right;
}

static void copy_words(uint64_t *to, uint64_t *from)
{
	copy(to, from, 64);
}

/* To the first words of two pages. */
static void scatter_words(uint64_t *to, uint64_t *from)
{
	__asm__ volatile(
		"index z0.d, #0, %x2\n\tptrue p0.d, vl2\n\tld1d z1.d, p0/z, [%1]\n\tst1d z1.d, p0, [%0, z0.d, lsl #3]"
		:
		: "r"(to), "r"(from), "r"((uint64_t)WORDS)
		: "memory");
}

/* Part of the memory is shared, so that a tag stops the instruction first each time; the other part may not be written. */
static void faults_elsewhere(void)
{
	uint64_t *from = others(1), *to = map(1), *two = others(2), words[2] = { 1, 2 };

	*(volatile uint64_t *)to = 1;
	mprotect(to, PAGE, PROT_READ);
	if (getauxval(AT_HWCAP2) & HWCAP2_MOPS)
		result(faults_at(to, copy_words, to, from), "a memory copy to a read-only page is the program's fault");
	mprotect(two + WORDS, PAGE, PROT_READ);
	if (getauxval(AT_HWCAP) & HWCAP_SVE)
		result(faults_at(two + WORDS, scatter_words, two, words),
		       "a scatter of which one element is read-only is the program's fault");
}

/* ---- LL/SC -------------------------------------------------------------------------------------------------------------- */

struct counting {
	uint64_t *word;
	void (*add)(uint64_t *word);
	unsigned rounds;
};

static void add_integer(uint64_t *word)
{
	__asm__ volatile("1: ldaxr x9, [%0]\n\tadd x9, x9, #1\n\tstlxr w10, x9, [%0]\n\tcbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "memory");
}

/* gcc's __aarch64_ldadd8_acq_rel */
static void add_helper(uint64_t *word)
{
	__asm__ volatile("1: ldxr x9, [%0]\n\tadd x10, x9, #1\n\tstlxr w11, x10, [%0]\n\tcbnz w11, 1b\n\tdmb ish"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "x11", "memory");
}

/* As LLVM adds to an atomic double. */
static void add_vector(uint64_t *word)
{
	__asm__ volatile(
		"mov x11, #1\n\tfmov d1, x11\n\t1: ldaxr x9, [%0]\n\tfmov d0, x9\n\tadd d0, d0, d1\n\tfmov x9, d0\n\t"
		"stlxr w10, x9, [%0]\n\tcbnz w10, 1b"
		:
		: "r"(word)
		: "x9", "x10", "x11", "v0", "v1", "memory");
}

/* What lies in the word's granule is read in between, and a word elsewhere in the window is written. */
static void add_with_others(uint64_t *word)
{
	__asm__ volatile("1: ldaxr x9, [%0]\n\tldr x11, [%0, #8]\n\tadd x9, x9, #1\n\tstr x9, [%0, #512]\n\tstlxr w10, "
	                 "x9, [%0]\n\t"
	                 "cbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "x11", "memory");
}

/* SIMD inside, and another base register for the store: it can run neither as a unit nor elsewhere. */
static void add_other_base(uint64_t *word)
{
	__asm__ volatile(
		"mov x11, #1\n\tfmov d1, x11\n\t1: ldaxr x9, [%0]\n\tfmov d0, x9\n\tmov x12, %0\n\tadd d0, d0, d1\n\t"
		"fmov x9, d0\n\tstlxr w10, x9, [x12]\n\tcbnz w10, 1b"
		:
		: "r"(word)
		: "x9", "x10", "x11", "x12", "v0", "v1", "memory");
}

/* SIMD and an access of another page inside. */
static void add_vector_store(uint64_t *word)
{
	__asm__ volatile("mov x11, #1\n\tfmov d1, x11\n\t1: ldaxr x9, [%0]\n\tfmov d0, x9\n\tadd d0, d0, d1\n\tstr d0, "
	                 "[%0, #512]\n\t"
	                 "fmov x9, d0\n\tstlxr w10, x9, [%0]\n\tcbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "x11", "v0", "v1", "memory");
}

/* The loaded word's highest byte is written in between, in each round another value. */
static void add_writing(uint64_t *word)
{
	__asm__ volatile("1: ldaxr x9, [%0]\n\tlsr x11, x9, #56\n\tadd x11, x11, #1\n\tstrb w11, [%0, #7]\n\t"
	                 "add x9, x9, #1\n\tbfi x9, x11, #56, #8\n\tstlxr w10, x9, [%0]\n\tcbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "x11", "memory");
}

/* What is in the word's granule is written in between by an instruction that is no exchange, to its other half. */
static void add_beside(uint64_t *word)
{
	__asm__ volatile("fmov d0, xzr\n\t1: ldaxr x9, [%0]\n\tstr d0, [%0, #8]\n\tadd x9, x9, #1\n\t"
	                 "stlxr w10, x9, [%0]\n\tcbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "v0", "memory");
}

/* Loads eight bytes and stores four of them, through another register. */
static void add_half(uint64_t *word)
{
	__asm__ volatile("1: ldaxr x9, [%0]\n\tadd w9, w9, #1\n\tmov x12, %0\n\tstlxr w10, w9, [x12]\n\tcbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "x12", "memory");
}

/* Twice: as a pair, of which one half is counted, with SIMD inside and another base register. */
static void add_pair(uint64_t *word)
{
	__asm__ volatile("1: ldaxp x9, x11, [%0]\n\tfmov d0, x9\n\tmov x12, %0\n\tadd x9, x9, #1\n\t"
	                 "stlxp w10, x9, x11, [x12]\n\tcbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "x11", "x12", "v0", "memory");
}

/* Many instructions in between that a trap does not interpret. */
static void add_slowly(uint64_t *word)
{
	__asm__ volatile("1: ldaxr x9, [%0]\n\tmov x11, #10\n\t2: subs x11, x11, #1\n\tfmov d0, x11\n\tb.ne 2b\n\t"
	                 "add x9, x9, #1\n\tmov x12, %0\n\tstlxr w10, x9, [x12]\n\tcbnz w10, 1b"
	                 :
	                 : "r"(word)
	                 : "x9", "x10", "x11", "x12", "v0", "cc", "memory");
}

/* Inside: an instruction that runs out of line and reads what the loop stores. */
static void add_structure(uint64_t *word)
{
	__asm__ volatile(
		"1: ldaxr x9, [%0]\n\tld2 {v0.2d, v1.2d}, [%0]\n\tadd x9, x9, #1\n\tstlxr w10, x9, [%0]\n\tcbnz w10, 1b"
		:
		: "r"(word)
		: "x9", "x10", "v0", "v1", "memory");
}

/* Goes on to the next page but one until it finds a zero there, inside of one loop with SIMD. */
static void add_walking(uint64_t *word)
{
	__asm__ volatile("1: ldaxr x9, [%0]\n\tfmov d0, x9\n\tadd %0, %0, #8192\n\tcbnz x9, 1b\n\tsub %0, %0, #8192\n\t"
	                 "fmov x9, d0\n\tadd x9, x9, #1\n\tstlxr w10, x9, [%0]\n\tcbnz w10, 1b"
	                 : "+r"(word)
	                 :
	                 : "x9", "x10", "v0", "memory");
}

/* What it finds on its way belongs to the other thread: had it gone there unchecked, the tags would still say so. */
static void walks(void)
{
	uint64_t *p = others(PAGES), *last = p + 6 * WORDS;

	*(volatile uint64_t *)last = 0;
	add_walking(p);
	result(*(volatile uint64_t *)last == 1 && tag_of(p + 2 * WORDS) == SHARED && tag_of(p + 4 * WORDS) == SHARED,
	       "a loop that goes on to other pages of another thread");
}

static void *count(void *argument)
{
	const struct counting *c = argument;

	for (unsigned i = 0; i < c->rounds; i++)
		c->add(c->word);
	return NULL;
}

static const char *only; /* part of the sentence, NULL = all */

static void hammer(const char *sentence, void (*add)(uint64_t *), unsigned rounds)
{
	if (only && !strstr(sentence, only))
		return;
	struct counting c = { others(1), add, rounds };
	pthread_t thread;

	c.word[0] = 0;
	if (pthread_create(&thread, NULL, count, &c))
		exit(125);
	count(&c);
	pthread_join(thread, NULL);
	uint64_t counted = c.word[0] << 8 >> 8; /* add_writing() has its own use for the highest byte */

	if (counted != 2ull * rounds)
		printf("# %llu of %u\n", (unsigned long long)counted, 2 * rounds);
	result(counted == 2ull * rounds, sentence);
}

static int inside(unsigned rounds)
{
	pthread_t thread;

	pthread_barrier_init(&other.barrier, NULL, 2);
	if (pthread_create(&thread, NULL, writes, NULL))
		return 125;
	structures();
	copies();
	gathers();
	faults_elsewhere();
	walks();
	hammer("two threads, one word: no addition is lost", add_integer, rounds);
	hammer("two threads, one word by a compiler's helper: no addition is lost", add_helper, rounds / 4);
	hammer("two threads, one word by a loop with SIMD: no addition is lost", add_vector, rounds / 4);
	hammer("two threads, one word by a loop with other accesses: no addition is lost", add_with_others, rounds / 4);
	hammer("two threads, one word, SIMD inside and another base register: no addition is lost", add_other_base,
	       rounds);
	hammer("two threads, one word, SIMD and a store inside: no addition is lost", add_vector_store, rounds / 4);
	hammer("two threads, one word that is written in between: no addition is lost", add_writing, rounds);
	hammer("two threads, one word beside which is written in between: no addition is lost", add_beside, rounds / 4);
	hammer("two threads, one word loaded whole and stored by half: no addition is lost", add_half, rounds);
	hammer("two threads, one pair, SIMD inside and another base register: no addition is lost", add_pair,
	       rounds / 4);
	hammer("two threads, one word, LD2 inside: no addition is lost", add_structure, rounds / 4);
	hammer("two threads, one word by a long loop: no addition is lost", add_slowly, rounds / 20);
	other.words = NULL;
	pthread_barrier_wait(&other.barrier);
	pthread_join(thread, NULL);
	return failures > 0;
}

/* usage: differential_shim [ROUNDS [PART]]      of each of two threads at one word; of the loops, those whose sentence has PART */
int main(int argc, char **argv)
{
	const char *rounds = argc > 1 ? argv[1] : "20000";
	const char *library = getenv("TAGTSO_LIB");

	setvbuf(stdout, NULL, _IOLBF, 0);
	only = argc > 2 ? argv[2] : NULL;
	if (getenv("TAGTSO_EMULATOR"))
		return inside((unsigned)strtoul(rounds, NULL, 0));
	setenv("TAGTSO_EMULATOR", "generic", 1);
	setenv("TAGTSO_STRICT", "1", 1);
	setenv("TAGTSO_HANDOVERS", "0", 1);
	setenv("LD_PRELOAD", library ? library : "/usr/lib/libtagtso.so", 1);
	execl("/proc/self/exe", "differential_shim", rounds, only, (char *)NULL);
	perror("differential_shim: exec");
	return 125;
}
