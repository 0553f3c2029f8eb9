/* SPDX-License-Identifier: MIT */
/* Runs random memory instructions as emitted and as islands (LOCAL, SHARED, MIXED) on memory with each kind of tag,
 * and compares all registers and memory. The reference is the emitted instruction with tag checks off. Where an
 * island must trap, its registers must be untouched.
 *
 * islands [instances per encoding] [seed]
 *
 * Exit status 0, 1 after a difference (which is printed), 77 without MTE. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>

#include "interp/decode.h"
#include "interp/form.h"
#include "interp/opinion.h"

#ifndef HWCAP2_MTE
#define HWCAP2_MTE (1 << 18)
#endif
#ifndef SEGV_MTESERR
#define SEGV_MTESERR 9
#endif

/* Offsets are known to enter() and leave(). */
struct context {
	uint64_t x[31];    /* 0: x0..x30, of which x8 and x9 mean nothing */
	uint64_t sp;       /* 248 */
	uint64_t nzcv;     /* 256 */
	uint64_t tco;      /* 264: tag checks off while the code runs */
	uint64_t pc;       /* 272: where to begin */
	uint64_t host_sp;  /* 280 */
	__uint128_t v[32]; /* 288 */
};
_Static_assert(offsetof(struct context, sp) == 248 && offsetof(struct context, host_sp) == 280, "see enter()");
_Static_assert(offsetof(struct context, v) == 288, "see enter()");

struct context *running;

/* Puts the context's registers in place and goes to its pc. */
void enter(struct context *context);
/* Where the code under test ends: takes the registers back and returns from enter(). */
void leave(void);

__asm__(".arch armv8.5-a+memtag\n"
        ".text\n"
        ".p2align 2\n"
        ".global enter\n.global leave\n"
        ".type enter, %function\n"
        "enter:\n"
        "	sub sp, sp, #160\n"
        "	stp x19, x20, [sp, #0]\n"
        "	stp x21, x22, [sp, #16]\n"
        "	stp x23, x24, [sp, #32]\n"
        "	stp x25, x26, [sp, #48]\n"
        "	stp x27, x28, [sp, #64]\n"
        "	stp x29, x30, [sp, #80]\n"
        "	stp d8, d9, [sp, #96]\n"
        "	stp d10, d11, [sp, #112]\n"
        "	stp d12, d13, [sp, #128]\n"
        "	stp d14, d15, [sp, #144]\n"
        "	mov x9, sp\n"
        "	str x9, [x0, #280]\n"
        "	add x9, x0, #288\n"
        "	ldp q0, q1, [x9, #0]\n"
        "	ldp q2, q3, [x9, #32]\n"
        "	ldp q4, q5, [x9, #64]\n"
        "	ldp q6, q7, [x9, #96]\n"
        "	ldp q8, q9, [x9, #128]\n"
        "	ldp q10, q11, [x9, #160]\n"
        "	ldp q12, q13, [x9, #192]\n"
        "	ldp q14, q15, [x9, #224]\n"
        "	ldp q16, q17, [x9, #256]\n"
        "	ldp q18, q19, [x9, #288]\n"
        "	ldp q20, q21, [x9, #320]\n"
        "	ldp q22, q23, [x9, #352]\n"
        "	ldp q24, q25, [x9, #384]\n"
        "	ldp q26, q27, [x9, #416]\n"
        "	ldp q28, q29, [x9, #448]\n"
        "	ldp q30, q31, [x9, #480]\n"
        "	ldr x9, [x0, #256]\n"
        "	msr nzcv, x9\n"
        "	ldr x9, [x0, #248]\n"
        "	ldr x8, [x0, #272]\n"
        "	ldp x2, x3, [x0, #16]\n"
        "	ldp x4, x5, [x0, #32]\n"
        "	ldp x6, x7, [x0, #48]\n"
        "	ldp x10, x11, [x0, #80]\n"
        "	ldp x12, x13, [x0, #96]\n"
        "	ldp x14, x15, [x0, #112]\n"
        "	ldp x16, x17, [x0, #128]\n"
        "	ldp x18, x19, [x0, #144]\n"
        "	ldp x20, x21, [x0, #160]\n"
        "	ldp x22, x23, [x0, #176]\n"
        "	ldp x24, x25, [x0, #192]\n"
        "	ldp x26, x27, [x0, #208]\n"
        "	ldp x28, x29, [x0, #224]\n"
        "	ldr x30, [x0, #240]\n"
        "	mov sp, x9\n"
        "	ldr x9, [x0, #264]\n"
        "	ldp x0, x1, [x0]\n"
        "	msr tco, x9\n"
        "	br x8\n"
        ".type leave, %function\n"
        "leave:\n"
        "	msr tco, #1\n"
        "	adrp x8, running\n"
        "	ldr x8, [x8, :lo12:running]\n"
        "	stp x0, x1, [x8]\n"
        "	stp x2, x3, [x8, #16]\n"
        "	stp x4, x5, [x8, #32]\n"
        "	stp x6, x7, [x8, #48]\n"
        "	stp x10, x11, [x8, #80]\n"
        "	stp x12, x13, [x8, #96]\n"
        "	stp x14, x15, [x8, #112]\n"
        "	stp x16, x17, [x8, #128]\n"
        "	stp x18, x19, [x8, #144]\n"
        "	stp x20, x21, [x8, #160]\n"
        "	stp x22, x23, [x8, #176]\n"
        "	stp x24, x25, [x8, #192]\n"
        "	stp x26, x27, [x8, #208]\n"
        "	stp x28, x29, [x8, #224]\n"
        "	str x30, [x8, #240]\n"
        "	mov x9, sp\n"
        "	str x9, [x8, #248]\n"
        "	mrs x9, nzcv\n"
        "	str x9, [x8, #256]\n"
        "	add x9, x8, #288\n"
        "	stp q0, q1, [x9, #0]\n"
        "	stp q2, q3, [x9, #32]\n"
        "	stp q4, q5, [x9, #64]\n"
        "	stp q6, q7, [x9, #96]\n"
        "	stp q8, q9, [x9, #128]\n"
        "	stp q10, q11, [x9, #160]\n"
        "	stp q12, q13, [x9, #192]\n"
        "	stp q14, q15, [x9, #224]\n"
        "	stp q16, q17, [x9, #256]\n"
        "	stp q18, q19, [x9, #288]\n"
        "	stp q20, q21, [x9, #320]\n"
        "	stp q22, q23, [x9, #352]\n"
        "	stp q24, q25, [x9, #384]\n"
        "	stp q26, q27, [x9, #416]\n"
        "	stp q28, q29, [x9, #448]\n"
        "	stp q30, q31, [x9, #480]\n"
        "	ldr x9, [x8, #280]\n"
        "	mov sp, x9\n"
        "	ldp x19, x20, [sp, #0]\n"
        "	ldp x21, x22, [sp, #16]\n"
        "	ldp x23, x24, [sp, #32]\n"
        "	ldp x25, x26, [sp, #48]\n"
        "	ldp x27, x28, [sp, #64]\n"
        "	ldp x29, x30, [sp, #80]\n"
        "	ldp d8, d9, [sp, #96]\n"
        "	ldp d10, d11, [sp, #112]\n"
        "	ldp d12, d13, [sp, #128]\n"
        "	ldp d14, d15, [sp, #144]\n"
        "	add sp, sp, #160\n"
        "	ret\n");

enum {
	OWN = 5,
	OTHER = 3,
	BUSY = 14,
	SHARED = 15,
	DATA = 8192, /* bytes of test memory; accesses are near its middle */
	CODE = 4096,
};
static const struct tagtso_scratch scratch = { .a = 8, .b = 9 };

static uint8_t *tagged, *untagged; /* the test memory, with and without PROT_MTE */
static uint32_t *code;             /* the site; the island is half a page further on */
#define ISLAND (code + CODE / 8)

/* What the last run met. Written by the handler, which interrupts only the code under test. */
static volatile sig_atomic_t trap_signal, trap_code;
static volatile uint64_t trap_pc;

static unsigned long runs, traps, skipped;

static uint64_t random_bits(void)
{
	static uint64_t s = 0x2545f4914f6cdd1d;

	s ^= s << 13;
	s ^= s >> 7;
	return s ^= s << 17;
}

static void on_trap(int signo, siginfo_t *info, void *arg)
{
	ucontext_t *uc = arg;

	trap_signal = signo;
	trap_code = info->si_code;
	trap_pc = uc->uc_mcontext.pc;
	uc->uc_mcontext.pc = (uintptr_t)leave;
}

static void catch_traps(void)
{
	static uint8_t stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigaltstack(&alternate, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGILL, &action, NULL);
}

static void set_own_tag(unsigned include)
{
	if (prctl(PR_SET_TAGGED_ADDR_CTRL,
	          PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC | (unsigned long)include << PR_MTE_TAG_SHIFT, 0, 0, 0))
		perror("islands: prctl"), exit(1);
}

static void tag_memory(uint8_t *memory, size_t size, unsigned tag)
{
	for (size_t i = 0; i < size; i += 16)
		__asm__ volatile("stg %0, [%1]"
		                 :
		                 : "r"((uintptr_t)memory | (uintptr_t)tag << 56), "r"(memory + i)
		                 : "memory");
}

static void make_memory(void)
{
	const int rwx = PROT_READ | PROT_WRITE | PROT_EXEC, anonymous = MAP_PRIVATE | MAP_ANONYMOUS;

	tagged = mmap(NULL, DATA, PROT_READ | PROT_WRITE | PROT_MTE, anonymous, -1, 0);
	untagged = mmap(NULL, DATA, PROT_READ | PROT_WRITE, anonymous, -1, 0);
	code = mmap(NULL, CODE, rwx, anonymous, -1, 0);
	if (tagged == MAP_FAILED || untagged == MAP_FAILED || code == MAP_FAILED)
		perror("islands: mmap"), exit(1);
}

/* The site, and after it the way out: LDR x8, 1f; BR x8; 1: leave. */
static void write_site(uint32_t word)
{
	uint64_t out = (uintptr_t)leave;

	code[0] = word;
	code[1] = 0x58000048;
	code[2] = 0xd61f0100;
	memcpy(code + 3, &out, sizeof(out));
	__builtin___clear_cache((char *)code, (char *)(code + 5));
}

/* ---- one instruction with registers and memory to run it on ---- */

struct instance {
	struct tagtso_memop op;
	struct context before;
	uint8_t *memory;
	uint8_t content[DATA];
	uint64_t address; /* of the access */
};

static uint64_t *base_of(struct instance *t)
{
	return t->op.rn == 31 ? &t->before.sp : &t->before.x[t->op.rn];
}

static uint64_t offset_of(const struct instance *t)
{
	const struct tagtso_memop *op = &t->op;
	uint64_t rm = op->rm == 31 ? 0 : t->before.x[op->rm];

	switch (op->addressing) {
	case TAGTSO_ADDR_OFFSET:
	case TAGTSO_ADDR_PRE:
		return (uint64_t)(int64_t)op->imm;
	case TAGTSO_ADDR_REG:
		rm = op->extend == 2 ? (uint32_t)rm : op->extend == 6 ? (uint64_t)(int32_t)rm : rm;
		return rm << op->shift;
	default:
		return 0;
	}
}

static bool is_atomic(const struct tagtso_memop *op)
{
	return op->cls == TAGTSO_LSE || op->cls == TAGTSO_CAS || op->cls == TAGTSO_CASP;
}

/* Where the access shall be: aligned for atomics and ordered accesses; for others anywhere, also across granules and
 * pages. */
static uint64_t choose_address(const struct instance *t)
{
	uint64_t address = (uintptr_t)t->memory + DATA / 2 - 128 + random_bits() % 256;

	if (is_atomic(&t->op) || (t->op.flags & (TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE)))
		address &= -(uint64_t)tagtso_memop_bytes(&t->op);
	/* The stack pointer must be aligned where it is a base. */
	if (t->op.rn == 31)
		address = ((address - offset_of(t)) & ~(uint64_t)15) + offset_of(t);
	return address;
}

/* A comparison that succeeds, half of the time. */
static void match_compare(struct instance *t)
{
	unsigned bytes = 1u << t->op.size;

	if ((t->op.cls != TAGTSO_CAS && t->op.cls != TAGTSO_CASP) || random_bits() % 2)
		return;
	for (unsigned i = 0; i < t->op.count; i++) {
		unsigned r = t->op.rs + i;

		if (r != 31 && r != t->op.rn)
			memcpy(&t->before.x[r], t->content + (t->address - (uintptr_t)t->memory) + i * bytes, bytes);
	}
}

static void make_instance(struct instance *t, const struct tagtso_memop *op, uint8_t *memory)
{
	t->op = *op;
	t->memory = memory;
	for (unsigned i = 0; i < sizeof(t->before) / 8; i++)
		((uint64_t *)&t->before)[i] = random_bits();
	for (unsigned i = 0; i < DATA / 8; i++)
		((uint64_t *)t->content)[i] = random_bits();
	t->before.sp &= 0x7ffffffffff0;
	t->before.nzcv = random_bits() & 0xf0000000;
	if (random_bits() % 2 && op->rm != 31)
		t->before.x[op->rm] = random_bits() % 8192 - 4096;
	t->address = choose_address(t);
	*base_of(t) = t->address - offset_of(t);
	match_compare(t);
}

/* ---- running it ---- */

struct result {
	struct context after;
	uint8_t content[DATA];
};

static void set_checks_off(bool off)
{
	if (off)
		__asm__ volatile("msr tco, #1" : : : "memory");
	else
		__asm__ volatile("msr tco, #0" : : : "memory");
}

static void run(const struct instance *t, const uint32_t *at, bool checked, struct result *r)
{
	memcpy(t->memory, t->content, DATA);
	r->after = t->before;
	r->after.tco = checked ? 0 : 1 << 25;
	r->after.pc = (uintptr_t)at;
	trap_signal = 0;
	running = &r->after;
	enter(&r->after);
	memcpy(r->content, t->memory, DATA);
	runs++;
}

/* ---- what must come out ---- */

static const char *const form_names[] = { "emitted", "LOCAL", "SHARED", "MIXED" };

static void fail(const struct instance *t, unsigned form, const char *memory, const char *what, unsigned index,
                 uint64_t is, uint64_t meant)
{
	char text[TAGTSO_TEXT];

	tagtso_memop_text(&t->op, 0, text);
	printf("islands: %s on %s memory: %s (%08x) at %#" PRIx64 ": %s %u is %#" PRIx64 ", meant %#" PRIx64 "\n",
	       form_names[form], memory, text, t->op.word, t->address, what, index, is, meant);
	exit(1);
}

static void compare(const struct instance *t, unsigned form, const char *memory, const struct context *is,
                    const struct context *meant)
{
	for (unsigned i = 0; i < 31; i++)
		if (i != scratch.a && i != scratch.b && is->x[i] != meant->x[i])
			fail(t, form, memory, "x", i, is->x[i], meant->x[i]);
	if (is->sp != meant->sp)
		fail(t, form, memory, "sp", 0, is->sp, meant->sp);
	if (is->nzcv != meant->nzcv)
		fail(t, form, memory, "nzcv", 0, is->nzcv, meant->nzcv);
	for (unsigned i = 0; i < 32; i++)
		if (is->v[i] != meant->v[i])
			fail(t, form, memory, "v", i, (uint64_t)is->v[i], (uint64_t)meant->v[i]);
}

static void compare_memory(const struct instance *t, unsigned form, const char *memory, const uint8_t *is,
                           const uint8_t *meant)
{
	for (unsigned i = 0; i < DATA; i++)
		if (is[i] != meant[i])
			fail(t, form, memory, "byte", i, is[i], meant[i]);
}

/* Memory of one kind, and which forms pass on it (bit 1 << form). */
struct kind {
	const char *name;
	bool mte;
	uint8_t own;       /* the thread's own tag, 0 = none */
	uint8_t low, high; /* tags of the granules below and from the middle of the access on */
	uint8_t passes;
};
#define ALL (1 << TAGTSO_FORM_LOCAL | 1 << TAGTSO_FORM_SHARED | 1 << TAGTSO_FORM_MIXED)
static const struct kind kinds[] = {
	{ "own", true, OWN, OWN, OWN, 1 << TAGTSO_FORM_LOCAL | 1 << TAGTSO_FORM_MIXED },
	{ "shared", true, OWN, SHARED, SHARED, 1 << TAGTSO_FORM_SHARED | 1 << TAGTSO_FORM_MIXED },
	{ "another's", true, OWN, OTHER, OTHER, 0 },
	{ "busy", true, OWN, BUSY, BUSY, 0 },
	{ "as-emitted", true, OWN, 0, 0, 1 << TAGTSO_FORM_MIXED },
	{ "ordinary", false, OWN, 0, 0, ALL },
	{ "another's (no id)", true, 0, OTHER, OTHER, 0 },
	{ "shared (no id)", true, 0, SHARED, SHARED, 1 << TAGTSO_FORM_SHARED | 1 << TAGTSO_FORM_MIXED },
	{ "ordinary (no id)", false, 0, 0, 0, ALL },
	{ "own and another's", true, OWN, OWN, OTHER, 0 },
	{ "own and shared", true, OWN, OWN, SHARED, 0 },
	{ "shared and own", true, OWN, SHARED, OWN, 0 },
	{ "busy and shared", true, OWN, BUSY, SHARED, 0 },
};

static bool is_multi(const struct tagtso_memop *op)
{
	return op->cls == TAGTSO_LOAD_MULTI || op->cls == TAGTSO_STORE_MULTI;
}

/* Tags the test memory. False if the access does not straddle two granules and the kind says that it shall. */
static bool prepare_kind(const struct instance *t, const struct kind *k)
{
	uint64_t last = (t->address + tagtso_memop_bytes(&t->op) - 1) & ~(uint64_t)15;

	/* QEMU 10.0 checks only the first vector's bytes of LD1 and ST1 of several vectors. */
	if (k->low != k->high && (last == (t->address & ~(uint64_t)15) || is_multi(&t->op)))
		return false;
	set_own_tag(k->own ? 1u << k->own : 0);
	if (!k->mte)
		return true;
	tag_memory(t->memory, DATA, k->low);
	if (k->low != k->high)
		tag_memory((uint8_t *)(uintptr_t)last, (size_t)((uintptr_t)t->memory + DATA - last), k->high);
	return true;
}

/* A store that crosses granules may have been done in part on its own granule: the architecture leaves that open. */
static bool may_tear(const struct instance *t, const struct kind *k)
{
	return k->low != k->high && (t->op.flags & TAGTSO_F_STORE);
}

static void check_trap(const struct instance *t, unsigned form, const struct kind *k, unsigned words,
                       const struct result *r)
{
	if (trap_signal != SIGSEGV || trap_code != SEGV_MTESERR)
		fail(t, form, k->name, "signal", 0, (uint64_t)trap_signal << 32 | (uint32_t)trap_code,
		     (uint64_t)SIGSEGV << 32 | SEGV_MTESERR);
	if (trap_pc < (uintptr_t)ISLAND || trap_pc >= (uintptr_t)(ISLAND + words))
		fail(t, form, k->name, "pc", 0, trap_pc, (uintptr_t)ISLAND);
	compare(t, form, k->name, &r->after, &t->before);
	if (!may_tear(t, k))
		compare_memory(t, form, k->name, r->content, t->content);
	traps++;
}

static void check_form(const struct instance *t, unsigned form, const struct kind *k, const struct result *meant)
{
	static struct result r;
	uint32_t words[TAGTSO_ISLAND_WORDS];
	unsigned n = tagtso_form_encode(&t->op, form, scratch, (uintptr_t)code, (uintptr_t)ISLAND, words);

	if (!n)
		fail(t, form, k->name, "words", 0, 0, 1);
	memcpy(ISLAND, words, 4 * n);
	__builtin___clear_cache((char *)ISLAND, (char *)(ISLAND + n));
	/* QEMU 10.0 does not check LDAPUR and STLUR. */
	if (!(k->passes & 1 << form) && (t->op.word & 0x3f000000) == 0x19000000)
		return;
	run(t, ISLAND, true, &r);
	if (!(k->passes & 1 << form)) {
		check_trap(t, form, k, n, &r);
		return;
	}
	if (trap_signal)
		fail(t, form, k->name, "signal", (unsigned)trap_signal, trap_pc, 0);
	compare(t, form, k->name, &r.after, &meant->after);
	compare_memory(t, form, k->name, r.content, meant->content);
}

static void check_instruction(const struct tagtso_memop *op)
{
	static struct instance t;
	static struct result meant;

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		make_instance(&t, op, kinds[i].mte ? tagged : untagged);
		if (!prepare_kind(&t, &kinds[i]))
			continue;
		write_site(op->word);
		run(&t, code, false, &meant);
		if (trap_signal) {
			if (trap_signal != SIGILL)
				fail(&t, 0, kinds[i].name, "signal", (unsigned)trap_signal, trap_pc, 0);
			skipped++;
			return;
		}
		for (unsigned form = TAGTSO_FORM_LOCAL; form < TAGTSO_NFORMS; form++)
			check_form(&t, form, &kinds[i], &meant);
	}
}

/* With the base as index, or as a register that is stored in its own place, no address can be chosen. */
static bool can_run(const struct tagtso_memop *op)
{
	uint32_t out[TAGTSO_ISLAND_WORDS];

	if (!tagtso_form_encode(op, TAGTSO_FORM_LOCAL, scratch, 0x10000, 0x20000, out))
		return false;
	return (op->addressing != TAGTSO_ADDR_REG && op->addressing != TAGTSO_ADDR_POST_REG) || op->rm != op->rn;
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 20,
		      seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_MTE)) {
		puts("islands: skipped: no MTE");
		return 77;
	}
	while (seed--)
		random_bits();
	make_memory();
	catch_traps();
	set_own_tag(1u << OWN);
	set_checks_off(true);
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		for (unsigned long n = 0; n < count; n++) {
			uint32_t word =
				((uint32_t)random_bits() & ~tagtso_encodings[i].mask) | tagtso_encodings[i].value;
			struct tagtso_memop op;

			if (tagtso_decode(word, &op) && can_run(&op))
				check_instruction(&op);
		}
	}
	printf("islands: %lu runs, %lu traps as meant, %lu instructions that this processor does not have\n", runs,
	       traps, skipped);
	return runs ? 0 : 1;
}
