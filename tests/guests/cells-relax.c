/* SPDX-License-Identifier: MIT */
/* Mode relax: generated code with accesses that are ordered as emitted, by themselves or by a DMB before them, on owned, shared and undecided memory. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "cells.h"

#define RELAX "TAGTSO_MODE=relax "
#define STEADY RELAX "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=256"
#define NEVER STEADY " TAGTSO_THRESHOLD=1000000"

enum { PASSES = 0, NOBODY = 15 }; /* the tag of shared memory; what IRG inserts for a thread without an id */
enum { A = 0x1122334455667788, LOW = 0x0807060504030201 };

/* ---- code ---- */

#define SNIPPET(name, before, memory, after) \
	extern const uint32_t relax_##name##_start[], relax_##name##_site[], relax_##name##_end[]; \
	__asm__(".pushsection .rodata\n\t.balign 4\n\t.arch_extension rcpc\n\t.arch armv8.5-a+memtag\nrelax_" #name \
	        "_start:\n\t" before "\nrelax_" #name "_site:\n\t" memory "\n\t" after "\n\tret\nrelax_" #name \
	        "_end:\n\t.popsection"); \
	static const struct snippet relax_##name = { relax_##name##_start, relax_##name##_site, relax_##name##_end };

/* x0 = address, x1 = operand; the result in x0. */
SNIPPET(ldapr, "", "ldapr x0, [x0]", "")
SNIPPET(ldapur, "sub x2, x0, #8", "ldapur x0, [x2, #8]", "nop")
SNIPPET(ldapursw, "", "ldapursw x0, [x0]", "nop")
SNIPPET(ldar, "", "ldar x0, [x0]", "")
SNIPPET(ldaprb, "", "ldaprb w0, [x0]", "")
SNIPPET(stlr, "", "stlr x1, [x0]", "mov x0, x1")
SNIPPET(stlur, "add x2, x0, #16\n\tnop", "stlur x1, [x2, #-16]", "mov x0, x1")
SNIPPET(stlrh, "", "stlrh w1, [x0]", "mov x0, x1")
SNIPPET(dmb_ldr, "dmb ishld", "ldr x0, [x0]", "")
SNIPPET(dmb_ldr_reg, "mov x2, x0\n\tdmb ishld", "ldr x0, [x2, xzr]", "")
SNIPPET(dmb_str, "dmb ish", "str x1, [x0]", "mov x0, x1")
SNIPPET(dmb_ldp, "dmb ishld", "ldp x1, x2, [x0]", "mov x0, x1")
SNIPPET(dmb_ldr_post, "mov x3, x0\n\tdmb ish", "ldr x2, [x0], #8", "sub x0, x0, x3\n\tadd x0, x0, x2")
SNIPPET(dmbst_strh, "dmb ishst", "strh w1, [x0]", "mov x0, x1")
SNIPPET(str, "", "str x1, [x0]", "mov x0, x1")
SNIPPET(ldadd, "", "ldaddal x1, x2, [x0]", "mov x0, x2")
SNIPPET(casal, "", "casal x2, x1, [x0]", "mov x0, x2")

/* Loops: x1 times plus one. */
SNIPPET(add_ordered, "1:", "ldapr x3, [x0]", "add x3, x3, #1\n\tstlr x3, [x0]\n\tsubs x1, x1, #1\n\tb.ne 1b")
SNIPPET(add_barriers, "1:\tdmb ishld", "ldr x3, [x0]",
        "add x3, x3, #1\n\tdmb ish\n\tstr x3, [x0]\n\tsubs x1, x1, #1\n\tb.ne 1b")
SNIPPET(add_locked, "mov x2, #1\n1:", "ldaddal x2, x3, [x0]", "subs x1, x1, #1\n\tb.ne 1b")
/* A second access behind the same DMB, to which a branch leads past it: x1 = 1 takes that way. */
SNIPPET(jump_in, "cbnz x1, 1f\n\tdmb ishld\n1:", "ldr x0, [x0]", "")

static uint64_t model_load(uint64_t m[2])
{
	return m[0];
}
static uint64_t model_signed(uint64_t m[2])
{
	return (uint64_t)(int64_t)(int32_t)m[0];
}
static uint64_t model_byte(uint64_t m[2])
{
	return m[0] & 0xff;
}
static uint64_t model_store(uint64_t m[2])
{
	return m[0] = A;
}
static uint64_t model_half(uint64_t m[2])
{
	m[0] = (m[0] & ~(uint64_t)0xffff) | (A & 0xffff);
	return A;
}
static uint64_t model_post(uint64_t m[2])
{
	return m[0] + 8;
}
static uint64_t model_add(uint64_t m[2])
{
	uint64_t old = m[0];

	m[0] += A;
	return old;
}
static uint64_t model_swap(uint64_t m[2])
{
	uint64_t old = m[0];

	m[0] = A;
	return old;
}

static const struct kind {
	const char *name;
	const struct snippet *snippet;
	uint64_t (*model)(uint64_t m[2]);
	bool pair; /* the DMB before it is what becomes a branch */
} kinds[] = {
	{ "LDAPR", &relax_ldapr, model_load, false },
	{ "LDAPUR", &relax_ldapur, model_load, false },
	{ "LDAPURSW", &relax_ldapursw, model_signed, false },
	{ "LDAR", &relax_ldar, model_load, false },
	{ "LDAPRB", &relax_ldaprb, model_byte, false },
	{ "STLR", &relax_stlr, model_store, false },
	{ "STLUR", &relax_stlur, model_store, false },
	{ "STLRH", &relax_stlrh, model_half, false },
	{ "DMB; LDR", &relax_dmb_ldr, model_load, true },
	{ "DMB; LDR register", &relax_dmb_ldr_reg, model_load, true },
	{ "DMB; STR", &relax_dmb_str, model_store, true },
	{ "DMB; LDP", &relax_dmb_ldp, model_load, true },
	{ "DMB; LDR post-index", &relax_dmb_ldr_post, model_post, true },
	{ "DMB ISHST; STRH", &relax_dmbst_strh, model_half, true },
	{ "STR", &relax_str, model_store, false },
	{ "LDADDAL", &relax_ldadd, model_add, false },
	{ "CASAL", &relax_casal, model_swap, false },
};

/* ---- memory and forms ---- */

enum state { MINE, OTHERS, IS_SHARED, UNDECIDED };
static struct worker other;

/* By generated code: what native code comes to again and again becomes shared. */
static struct code put_there(void)
{
	static struct code c;

	if (!c.fn)
		c = cells_emit(&relax_str);
	return c;
}

static uint64_t *my_memory(void)
{
	uint64_t *p = cells_map(PAGE);

	put_there().fn(p, 0, 0);
	SAME(tag_of(p), my_tag(), "the tag of memory that this thread wrote first");
	return p;
}

static uint64_t *others_memory(void)
{
	uint64_t *p = cells_map(PAGE);

	cells_call_on(&other, put_there(), p, 0, 0);
	SAME(tag_of(p), cells_tag_of_worker(&other), "the tag of memory that another thread wrote first");
	return p;
}

static uint64_t *shared_memory(void)
{
	uint64_t *p = others_memory();

	put_there().fn(p, 0, 0);
	SAME(tag_of(p), PASSES, "the tag of memory that two threads wrote");
	return p;
}

static uint64_t *memory_in(enum state state)
{
	switch (state) {
	case MINE:
		return my_memory();
	case OTHERS:
		return others_memory();
	case IS_SHARED:
		return shared_memory();
	default:
		return cells_map(PAGE);
	}
}

/* QEMU (10.0) accesses memory by LDAPUR and STLUR without looking at tags. */
static bool is_checked(const struct kind *k)
{
	static int unscaled = -1;
	const struct code c = cells_emit(&relax_ldapur);
	uint32_t trapped;

	if (unscaled < 0) {
		cells_observe(c.fn, others_memory(), 0, 0, &trapped);
		unscaled = trapped != 0;
	}
	return unscaled || (*k->snippet->site & 0x3f200c00) != 0x19000000;
}

static volatile uint32_t *rewritten_word(const struct kind *k, struct code c)
{
	return c.site - k->pair;
}

/* A pair takes two steps, with a trap between them. */
static bool train(const struct kind *k, struct code c)
{
	volatile uint32_t *word = rewritten_word(k, c);
	uint32_t trapped = 1, first = *word;
	static uint64_t *mine;

	if (!mine)
		mine = my_memory();
	for (unsigned tries = 0; *word == first || trapped; tries++) {
		if (tries == 2000)
			return false;
		cells_observe(c.fn, mine, 1, 1, &trapped);
		cells_sleep_ms(2);
	}
	return *word >> 26 == 5;
}

static void check_access(const struct kind *k, struct code c, uint64_t *p, bool trap, unsigned tag)
{
	uint64_t m[2] = { LOW, A }, want, got;
	uint32_t trapped;

	plant(p, m[0]);
	plant(p + 1, m[1]);
	got = cells_observe(c.fn, p, A, LOW, &trapped);
	want = k->model(m);
	SAME(got, want, k->name);
	SAME(peek(p), m[0], k->name);
	SAME(peek(p + 1), m[1], k->name);
	CHECK(trapped == trap, "%s: %s", k->name, trap ? "no trap" : "a trap");
	SAME(tag_of(p), tag, k->name);
}

static void cell(enum state state, bool relaxed)
{
	cells_worker_start(&other);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const struct kind *k = &kinds[i];
		struct code c = cells_emit(k->snippet);
		bool mine = state == MINE || state == UNDECIDED;

		if (!is_checked(k))
			continue;
		if (relaxed && !train(k, c)) {
			FAIL("%s: the site does not come into its form", k->name);
			continue;
		}
		uint32_t word = *rewritten_word(k, c);

		check_access(k, c, memory_in(state), state != IS_SHARED && !(relaxed && state == MINE),
		             mine ? my_tag() : PASSES);
		SAME(*rewritten_word(k, c), word, k->name);
		CHECK(relaxed || !is_rewritten(c), "%s: rewritten", k->name);
	}
}

#define CELL(state, name, relaxed) \
	static void cell_##state##_##name(void) \
	{ \
		cell(state, relaxed); \
	}
CELL(MINE, emitted, false)
CELL(MINE, relaxed, true)
CELL(OTHERS, emitted, false)
CELL(OTHERS, relaxed, true)
CELL(IS_SHARED, emitted, false)
CELL(IS_SHARED, relaxed, true)
CELL(UNDECIDED, emitted, false)
CELL(UNDECIDED, relaxed, true)

/* ---- memory that has no tags ---- */

/* The accesses there are as emitted: only the way shows it, which the thread cannot see; that they are right and trap no more, it can. */
static void outside(void)
{
	uint64_t *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
	cells_worker_start(&other);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct code c = cells_emit(kinds[i].snippet);

		if (!is_checked(&kinds[i]))
			continue;
		CHECK(train(&kinds[i], c), "%s: the site does not come into its form", kinds[i].name);
		check_access(&kinds[i], c, p, false, 0);
	}
}

/* ---- threads ---- */

enum { THREADS = 8, ROUNDS = 20000 };

static struct code loops[2];
static uint64_t *sum;
static _Atomic unsigned turn;

static void *add_in_turn(void *arg)
{
	unsigned me = *(unsigned *)arg;

	for (unsigned round = 0; round < 40; round++) {
		while (atomic_load(&turn) != round * THREADS + me)
			cells_sleep_ms(0);
		loops[round % 2].fn(sum, 500, 0);
		atomic_fetch_add(&turn, 1);
	}
	return NULL;
}

/* One thread at a time owns the word; the next has it handed over, until it is shared. */
static void in_turn(void)
{
	unsigned numbers[THREADS];

	sum = cells_map(PAGE);
	loops[0] = cells_emit(&relax_add_ordered);
	loops[1] = cells_emit(&relax_add_barriers);
	for (unsigned i = 0; i < THREADS; i++)
		numbers[i] = i;
	cells_together(THREADS, add_in_turn, numbers, sizeof(numbers[0]));
	SAME(peek(sum), 40 * THREADS * 500, "the sum");
}

static void *add_locked(void *arg)
{
	loops[0].fn(sum, ROUNDS, 0);
	return arg;
}

static void locked(void)
{
	char args[THREADS];

	sum = cells_map(PAGE);
	loops[0] = cells_emit(&relax_add_locked);
	cells_together(THREADS, add_locked, args, 1);
	SAME(peek(sum), (uint64_t)THREADS * ROUNDS, "the sum");
}

static void *own_words(void *arg)
{
	uint64_t *p = *(uint64_t **)arg;

	for (unsigned i = 0; i < 40; i++)
		loops[i % 2].fn(p, 500, 0);
	return NULL;
}

static void private(void)
{
	uint64_t *words[THREADS];

	loops[0] = cells_emit(&relax_add_ordered);
	loops[1] = cells_emit(&relax_add_barriers);
	for (unsigned i = 0; i < THREADS; i++)
		words[i] = cells_map(PAGE);
	cells_together(THREADS, own_words, words, sizeof(words[0]));
	for (unsigned i = 0; i < THREADS; i++)
		SAME(peek(words[i]), 40 * 500, "a thread's own sum");
}

/* ---- threads without an id ---- */

static _Atomic unsigned without, seen_wrong, waiting;

static void *hold_an_id(void *arg)
{
	uint64_t *p = *(uint64_t **)arg;

	if (my_tag() == NOBODY)
		atomic_fetch_add(&without, 1);
	else if (my_tag() < 1 || my_tag() > IDS)
		atomic_fetch_add(&seen_wrong, 1);
	atomic_fetch_add(&waiting, 1);
	while (atomic_load(&waiting) < 20)
		cells_sleep_ms(1);
	loops[0].fn(p, ROUNDS, 0);
	return NULL;
}

static void many(void)
{
	uint64_t *p[20];

	loops[0] = cells_emit(&relax_add_locked);
	p[0] = cells_map(PAGE);
	for (unsigned i = 1; i < 20; i++)
		p[i] = p[0];
	cells_together(20, hold_an_id, p, sizeof(p[0]));
	SAME(peek(p[0]), 20 * (uint64_t)ROUNDS, "the sum");
	CHECK(atomic_load(&without) >= 7, "%u threads of 20 without an id", atomic_load(&without));
	SAME(atomic_load(&seen_wrong), 0, "threads with a tag that is none");
}

/* ---- code that changes ---- */

static void recycled(void)
{
	const struct kind *pair = &kinds[8], *after = &kinds[13];
	uint64_t *mine;

	cells_worker_start(&other);
	mine = my_memory();
	for (unsigned i = 0; i < 30; i++) {
		struct code c = cells_emit(pair->snippet);

		/* at any moment on the way to the form, and behind it */
		for (unsigned n = 0; n < i; n++)
			c.fn(mine, 1, 1);
		if (i % 3 == 0)
			cells_sleep_ms(3);
		c = cells_emit_over(c, after->snippet);
		check_access(after, c, mine, true, my_tag());
		for (unsigned n = 0; n < 10; n++) {
			plant(mine, 0);
			c.fn(mine, A, 0);
			SAME(peek(mine), A & 0xffff, "what the new code stored");
			cells_sleep_ms(1);
		}
	}
}

static void jumped_into(void)
{
	struct code c = cells_emit(&relax_jump_in);
	const struct kind k = { "the way past the DMB", &relax_jump_in, model_load, true };
	uint64_t *mine;

	cells_worker_start(&other);
	mine = my_memory();
	for (unsigned i = 0; i < 200 && c.site[-1] >> 26 != 5; i++) {
		plant(mine, i);
		SAME(c.fn(mine, i % 2, 0), i, k.name);
		cells_sleep_ms(1);
	}
	for (unsigned i = 0; i < 50; i++) {
		plant(mine, i);
		SAME(c.fn(mine, i % 2, 0), i, k.name);
	}
}

/* ---- SIGBUS ---- */

static struct code crossing;
static volatile unsigned buses;

/* As an emulator does whose ordered access was misaligned: looks at its own words, and goes on behind them. */
static void on_bus(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signo;
	(void)info;
	buses++;
	SAME(uc->uc_mcontext.pc, (uint64_t)crossing.site, "the pc at SIGBUS");
	SAME(*crossing.site, crossing.word, "the word that the handler reads");
	uc->uc_mcontext.pc += 4;
	uc->uc_mcontext.regs[0] = 77;
}

static void misaligned(void)
{
	struct sigaction action = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
	const struct kind *k = &kinds[0];
	char *shared;

	cells_worker_start(&other);
	SAME(sigaction(SIGBUS, &action, NULL), 0, "sigaction");
	crossing = cells_emit(k->snippet);
	shared = (char *)shared_memory();
	SAME(crossing.fn(shared + 12, 0, 0), 77, "the result without islands");
	SAME(buses, 1, "signals without islands");
	CHECK(train(k, crossing), "no form");
	SAME(crossing.fn(shared + 12, 0, 0), 77, "the result with one");
	SAME(buses, 2, "signals with an island");
	CHECK(!is_rewritten(crossing), "the word was not restored");
	CHECK(train(k, crossing), "no form again");
}

const struct test cells_relax[] = {
	TEST("relax-mine-emitted", "relax: an emitted site on the thread's own memory is served plain by a trap",
	     cell_MINE_emitted, NEVER, { "interpreted_plain", '>', 14 }, { "sites_rewritten", '=', 0 }),
	TEST("relax-mine-relaxed", "relax: a RELAXED site on the thread's own memory does not trap", cell_MINE_relaxed,
	     STEADY, { "forms_relaxed", '>', 14 }, { "forms_mixed", '=', 0 }),
	TEST("relax-others-emitted", "relax: an emitted site on another's memory makes it shared", cell_OTHERS_emitted,
	     NEVER, { "revocations", '>', 14 }, { "interpreted_ordered", '>', 14 }),
	TEST("relax-others-relaxed", "relax: a RELAXED site on another's memory makes it shared", cell_OTHERS_relaxed,
	     STEADY, { "traps_island", '>', 14 }, { "interpreted_ordered", '>', 14 }),
	TEST("relax-shared-emitted", "relax: an emitted site on shared memory does not trap", cell_IS_SHARED_emitted,
	     NEVER, { "sites_rewritten", '=', 0 }),
	TEST("relax-shared-relaxed", "relax: a RELAXED site on shared memory does not trap", cell_IS_SHARED_relaxed,
	     STEADY, { "forms_relaxed", '>', 14 }),
	TEST("relax-undecided-emitted", "relax: an emitted site claims undecided memory", cell_UNDECIDED_emitted, NEVER,
	     { "claims", '>', 14 }),
	TEST("relax-undecided-relaxed", "relax: a RELAXED site claims undecided memory", cell_UNDECIDED_relaxed, STEADY,
	     { "claims", '>', 14 }),
	TEST("relax-outside", "relax: memory without tags is accessed by RELAXED sites without a trap", outside, STEADY,
	     { "forms_relaxed", '>', 14 }),
	TEST("relax-in-turn", "relax: eight threads that add to a word in turn lose nothing", in_turn, RELAX,
	     { "forms_relaxed", '>', 2 }),
	TEST("relax-locked", "relax: eight threads that add to a word at the same time lose nothing", locked, RELAX),
	TEST("relax-private", "relax: eight threads with a word each hardly trap", private, RELAX,
	     { "forms_relaxed", '>', 2 }, { "traps", '<', 4000 }),
	TEST("relax-many", "relax: threads without an id take no memory for their own", many, RELAX,
	     { "leases_refused", '>', 7 }),
	TEST("relax-recycled", "relax: code that is written over a DMB and its access is what runs", recycled, STEADY),
	TEST("relax-jump", "relax: a branch past the DMB of a pair meets the access as emitted", jumped_into, STEADY),
	TEST("relax-sigbus", "relax: an emulator's SIGBUS handler finds its own words", misaligned, STEADY,
	     { "forms_relaxed", '>', 2 }),
	TEST(NULL, NULL, NULL, NULL),
};
