/* SPDX-License-Identifier: MIT */
/* LL/SC loops, by themselves and with two threads at one word. Part of differential.c. */
#ifndef TAGTSO_TESTS_DIFFERENTIAL_SPAN_H
#define TAGTSO_TESTS_DIFFERENTIAL_SPAN_H

#include <pthread.h>

#include "differential-integer.h"

/* ---- LL/SC loops --------------------------------------------------------------------------------------------------------- */

/* Code to copy into the sandbox: x2 points to the word, x3 is compared, x5 is the operand. The first load-exclusive traps. */
#define HIDDEN __attribute__((visibility("hidden"))) /* or else found by the GOT, which has no place for local labels */
#define SHAPE(name, text) \
	HIDDEN extern const uint32_t shape_##name[], shape_end_##name[]; \
	__asm__(".pushsection .rodata\n\t.balign 4\n\t.globl shape_" #name ", shape_end_" #name "\nshape_" #name \
	        ":\n" text "\nshape_end_" #name ":\n\t.popsection")

SHAPE(compare_word, "1: ldaxr w1, [x2]; cmp w1, w3; b.ne 2f; stlxr w4, w5, [x2]; cbnz w4, 1b; 2:");
SHAPE(compare_long, "1: ldaxr x1, [x2]; cmp x1, x3; b.ne 2f; stlxr w4, x5, [x2]; cbnz w4, 1b; 2:");
SHAPE(compare_half_clear, "1: ldaxrh w1, [x2]; cmp w1, w3, uxth; b.ne 2f; stlxrh w4, w5, [x2]; cbnz w4, 1b; b 3f;"
                          "2: clrex; 3:");
SHAPE(compare_weak, "ldaxr w1, [x2]; cmp w1, w3; b.ne 1f; stlxr w4, w5, [x2]; cmp w4, #0; 1: cset w6, eq");
SHAPE(add_byte, "1: ldaxrb w1, [x2]; adds w6, w1, w5; uxtb w7, w6; stlxrb w4, w7, [x2]; cbnz w4, 1b; mrs x8, nzcv");
SHAPE(exchange_relaxed, "1: ldxr x1, [x2]; stxr w4, x5, [x2]; cbnz w4, 1b");
SHAPE(store_if_null, "1: ldaxr x6, [x2]; cbnz x6, 2f; stlxr w4, x5, [x2]; cbnz w4, 1b; 2: mov x0, x6");
SHAPE(pair, "1: ldaxp x6, x7, [x2]; cmp x6, x3; ccmp x7, x8, #0, eq; b.ne 2f; stlxp w4, x5, x9, [x2]; cbnz w4, 1b; 2:");
SHAPE(pair_of_words, "1: ldxp w6, w7, [x2]; add w6, w6, w5; eor w7, w7, w3; stxp w4, w6, w7, [x2]; cbnz w4, 1b");
SHAPE(setup_before,
      "1: mov x9, x5; mvn x10, x3; 2: ldaxr x1, [x2]; and x1, x1, x10; bfi x1, x9, #3, #17; stlxr w4, x1, [x2];"
      "cbnz w4, 1b");
SHAPE(unaligned,
      "ldr w1, [x2]; 1: ldaxrb w4, [x2]; sub w4, w4, w1, uxtb; cbnz w4, 2f; add w6, w1, w5; stlxrb w4, w6, [x2];"
      "cbnz w4, 1b; str w6, [x2]; 2:");
SHAPE(barriers, "dmb ish; 1: ldxr w1, [x2]; prfm pstl1strm, [x2]; orr w1, w1, w5; dmb ish; nop; stxr w4, w1, [x2]; "
                "tbnz w4, #0, 1b;"
                "dmb ish");
SHAPE(state_inside,
      "1: ldaxr w1, [x2]; add w6, w1, w5; str w6, [x11]; str x1, [x11, #8]; stlxr w4, w6, [x2]; cbnz w4, 1b");
SHAPE(two_functions, "1: bl 3f; add w6, w0, w5; str x6, [sp, #-16]!; stp x3, x5, [x11]; mov x0, x2; mov x1, x6; bl 4f;"
                     "ldr x7, [sp], #16; cbnz w0, 1b; b 5f; 3: ldaxrb w0, [x2]; ret;"
                     "4: mov x9, x0; stlxrb w0, w1, [x9]; ret; 5:");

SHAPE(calls_inside,
      "1: bl 3f; ldr x6, [x11]; bl 6f; str x6, [x11, #8]; bl 4f; cbnz w0, 1b; b 5f; 3: ldaxr w0, [x2]; ret;"
      "4: mov x9, x2; stlxr w0, w1, [x9]; dmb ish; ret;"
      "6: paciasp; stp x29, x30, [sp, #-16]!; mov x29, sp; bl 7f; ldp x29, x30, [sp], #16; autiasp; ret;"
      "7: bti c; add w1, w0, w6; ldrsb x7, [x11, #3]; ret; 5:");

/* Ordinary accesses that were rewritten: LOCAL's and MIXED's islands (form.h). */
SHAPE(local_inside, "1: ldaxr w1, [x2]; add w6, w1, w5; b 6f; 7: stlxr w4, w6, [x2]; cbnz w4, 1b; b 5f;"
                    "6: irg x9, x11; str w6, [x9, #8]; b 7b; 5:");
SHAPE(mixed_inside, "1: ldaxr w1, [x2]; add w6, w1, w5; b 6f; 7: stlxr w4, w6, [x2]; cbnz w4, 1b; b 5f;"
                    "6: add x9, x11, #8; ldg x9, [x9]; irg x10, x9; eor x10, x10, x9; cbnz x10, 8f; str w6, [x9]; b 7b;"
                    "8: orr x10, x9, #0xf00000000000000; eor x10, x10, x9; cbnz x10, 9f; dmb ishst; str w6, [x9];"
                    "b 7b; 9: str w6, [x11, #8]; b 7b; 5:");
SHAPE(granule_read, "1: ldaxr x1, [x2]; ldr x6, [x2]; ldrb w7, [x2]; stlxr w4, x6, [x2]; cbnz w4, 1b");
SHAPE(other_tag, "1: ldaxr w1, [x2]; add w6, w1, w5; str w6, [x12]; ldr x7, [x12]; stlxr w4, w6, [x2]; cbnz w4, 1b");

static const struct shape {
	const char *name;
	const uint32_t *from, *to;
} shapes[] = {
#define ROW(name) \
	{ \
#name, shape_##name, shape_end_##name \
	}
	ROW(compare_word),  ROW(compare_long),     ROW(compare_half_clear), ROW(compare_weak),
	ROW(add_byte),      ROW(exchange_relaxed), ROW(store_if_null),      ROW(pair),
	ROW(pair_of_words), ROW(setup_before),     ROW(unaligned),          ROW(barriers),
	ROW(state_inside),  ROW(two_functions),    ROW(calls_inside),       ROW(local_inside),
	ROW(mixed_inside),  ROW(granule_read),     ROW(other_tag),
#undef ROW
};
enum { NSHAPES = sizeof(shapes) / sizeof(shapes[0]), SPAN_LIMIT = 256 };

static enum tagtso_order span_order;

static bool is_load_exclusive(uint32_t word)
{
	struct tagtso_memop op;

	return tagtso_decode(word, &op) && (op.cls == TAGTSO_LOAD_EX || op.cls == TAGTSO_LOAD_EX_PAIR);
}

static enum tagtso_exec interpret_span(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	unsigned tag = have_mte ? MEMORY_TAG : 0;
	struct tagtso_memop op;
	struct registers before;

	tagtso_decode(word, &op);
	if (!is_load_exclusive(word)) /* an ordinary access of the shape */
		return tagtso_exec(&op, frame, tagtso_exec_address(&op, frame) | data_tag(), span_order, &box->fault);
	if (box->mte) {
		save(&before, frame);
		if (tagtso_span_exec(&op, frame, tag ^ 4, SPAN_LIMIT, &box->fault) != TAGTSO_EXEC_TAG)
			box->wrong = "a wrong tag was not answered TAG";
		else if (memcmp(before.r, frame->x, sizeof(before.r)))
			box->wrong = "registers changed by a wrong tag";
	}
	return tagtso_span_exec(&op, frame, tag, SPAN_LIMIT, &box->fault);
}

static enum tagtso_exec count_elsewhere(const struct tagtso_memop *op, struct tagtso_frame *frame)
{
	uint32_t words[TAGTSO_LOOP_WORDS];
	unsigned count = tagtso_span_words(op, frame, words, TAGTSO_LOOP_WORDS);

	return tagtso_outofline_enter_loop(frame->uc, words, count) ? TAGTSO_EXEC_DONE : TAGTSO_EXEC_UNKNOWN;
}

static enum tagtso_exec (*span_interpreter)(struct sandbox *box, uint32_t word,
                                            struct tagtso_frame *frame) = interpret_span;

static enum tagtso_exec interpret_count(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	struct tagtso_memop op;

	tagtso_decode(word, &op);
	if (box->moves) /* what the shim does with a loop that is UNKNOWN */
		return count_elsewhere(&op, frame);
	return tagtso_span_exec(&op, frame, have_mte ? MEMORY_TAG : 0, SPAN_LIMIT, &box->fault);
}

/* Puts the words at MIDDLE; unless the tags do it, a breakpoint stands for the first load-exclusive. */
static void put_words(struct sandbox *box, const uint32_t *words, unsigned count, bool interpreted)
{
	bool replaced = !interpreted;

	for (unsigned i = 0; i < count; i++) {
		bool replace = !replaced && is_load_exclusive(words[i]);

		if (replace) {
			box->trapped = words[i];
			replaced = true;
		}
		put_word(box, MIDDLE + i, replace ? (uint32_t)BRK_TRAP : words[i]);
	}
	for (unsigned i = count; i < count + 8; i++)
		put_word(box, MIDDLE + i, BRK_EXIT);
}

static void run_words(struct sandbox *box, const struct instance *it, struct outcome *outcome)
{
	struct window before = it->before;

	copy_window(&before, true);
	box->in = it->in;
	box->interpret = span_interpreter;
	run(box);
	outcome->faulted = box->faulted;
	outcome->fault = box->fault;
	outcome->out = box->out;
	outcome->after = before;
	copy_window(&outcome->after, false);
}

static void compare_words(struct sandbox *box, const struct instance *it, const struct outcome *native, const char *how)
{
	struct outcome interpreted;
	const char *what;

	run_words(box, it, &interpreted);
	what = box->wrong;
	if (!what && !box->traps)
		what = "it did not trap";
	if (!what && box->result != TAGTSO_EXEC_DONE)
		what = box->result == TAGTSO_EXEC_UNKNOWN ? "UNKNOWN" : "TAG or FAULT";
	if (!what)
		what = difference(it, native, &interpreted);
	if (what)
		failed(it->class, it->number, it->word, how, what);
}

/* The word at x2 with the pointer's tag wrong; x11 and SP point to memory that the code may write, with its right tag. */
static void prepare_span(struct random *random, const struct sandbox *box, unsigned align, struct instance *it)
{
	fill_registers(random, &it->in);
	it->address = (uint64_t)box->base + DATA + PAGE + below(random, 64) * 16 + below(random, 16 / align) * align;
	it->before.from = (it->address & ~15ull) - 256;
	it->before.bytes = WINDOW;
	for (unsigned i = 0; i < WINDOW; i++)
		it->before.data[i] = (unsigned char)next(random);
	if (chance(random, 10))
		memset(it->before.data + 256, 0, 16);
	if (chance(random, 60)) { /* what is compared is there */
		memcpy(&it->in.r[3], it->before.data + it->address - it->before.from, 8);
		memcpy(&it->in.r[8], it->before.data + it->address - it->before.from + 8, 8);
	}
	it->in.r[2] = it->address | top_byte(random);
	it->in.r[11] = (it->address & ~15ull) + 64;
	it->in.r[11] |= data_tag();
	it->in.r[12] = (it->address & ~15ull) + 80; /* a tag that does not match */
	it->in.r[TAGTSO_SP] = ((it->address & ~15ull) + 160) | data_tag();
	span_order = chance(random, 50) ? TAGTSO_ORDERED : TAGTSO_PLAIN;
}

static void one_span(struct sandbox *box, struct instance *it, const uint32_t *words, unsigned count)
{
	struct outcome native;

	it->word = words[0];
	put_words(box, words, count, false);
	for (unsigned attempt = 0; attempt < 5; attempt++) {
		run_words(box, it, &native);
		if (native.out.r[4] != 1)
			break;
		/* An interrupt made the store-exclusive fail, and not all shapes try again. */
	}
	put_words(box, words, count, true);
	compare_words(box, it, &native, "in place of a breakpoint");
	if (have_mte) {
		box->mte = true;
		put_words(box, words, count, false);
		compare_words(box, it, &native, "by its tag");
		box->mte = false;
	}
}

static void shaped_spans(void)
{
	unsigned before = failures, count = 0;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	for (unsigned i = 0; i < options.count; i++) {
		const struct shape *shape = &shapes[i % NSHAPES];
		struct random random = random_of("span", i);
		struct instance it = { .class = "span", .number = i };

		if (options.only >= 0 && options.only != i)
			continue;
		prepare_span(&random, &box, strstr(shape->name, "pair") ? 16 : 8, &it);
		one_span(&box, &it, shape->from, (unsigned)(shape->to - shape->from));
		count++;
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence),
	         "%u LL/SC loops of %u shapes: registers, memory and pc are those of the processor", count,
	         (unsigned)NSHAPES);
	result(failures == before, sentence);
}

/* LDXR size, some integer instructions, STXR, CBNZ back. */
static unsigned random_span(struct random *random, uint32_t words[16], unsigned *align)
{
	unsigned size = below(random, 4), n = below(random, 10), at = 1, status, data;
	uint32_t acquire = chance(random, 50) ? 1u << 15 : 0;

	*align = 1u << size;
	words[0] = 0x085f7c40 | size << 30 | acquire | (3 + below(random, 29));
	while (at <= n) {
		uint32_t word = integer_word(random, false);

		if ((word & 31) != 2)
			words[at++] = word;
	}
	do {
		status = 3 + below(random, 28);
		data = 3 + below(random, 29);
	} while (status == data);
	words[at++] = 0x08007c40 | size << 30 | acquire | status << 16 | data;
	words[at] = 0x35000000 | (uint32_t)(-(int32_t)at & 0x7ffff) << 5 | status;
	return at + 1;
}

static void random_spans(void)
{
	unsigned before = failures, count = 0;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	for (unsigned i = 0; i < options.count; i++) {
		struct random random = random_of("random-span", i);
		struct instance it = { .class = "random-span", .number = i };
		uint32_t words[16];
		unsigned align, length;

		if (options.only >= 0 && options.only != i)
			continue;
		length = random_span(&random, words, &align);
		prepare_span(&random, &box, align, &it);
		one_span(&box, &it, words, length);
		count++;
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence), "%u LL/SC loops around random integer instructions: the same", count);
	result(failures == before, sentence);
}

/* Shapes that end otherwise than DONE, with nothing changed. */
SHAPE(granule_write, "1: ldaxr x1, [x2]; str x6, [x2]; stlxr w4, x6, [x2]; cbnz w4, 1b");
SHAPE(other_word, "add x6, x2, #8; 1: ldaxr w1, [x2]; stlxr w4, w1, [x6]; cbnz w4, 1b");
SHAPE(vector_inside, "1: ldaxr x1, [x2]; fmov d0, x1; stlxr w4, x1, [x2]; cbnz w4, 1b");
SHAPE(other_size, "1: ldaxr x1, [x2]; stlxr w4, w1, [x2]; cbnz w4, 1b");

static void span_ends(struct sandbox *box, const char *sentence, const uint32_t *from, const uint32_t *to,
                      uint64_t address, enum tagtso_exec expected)
{
	struct random random = random_of("span-end", 0);
	struct instance it = { .class = "span-end", .word = *from };
	unsigned before = failures;
	struct outcome outcome;

	prepare_span(&random, box, 16, &it);
	if (address) {
		it.in.r[2] = address;
		it.before.bytes = 0;
	}
	put_words(box, from, (unsigned)(to - from), true);
	run_words(box, &it, &outcome);
	if (!box->traps || box->result != expected)
		failed(it.class, 0, it.word, sentence, "ended otherwise");
	else if (memcmp(&outcome.after.data, &it.before.data, it.before.bytes))
		failed(it.class, 0, it.word, sentence, "memory changed");
	else if (memcmp(&it.in.r[7], &outcome.out.r[7], 24 * 8))
		failed(it.class, 0, it.word, sentence, "registers changed");
	else if (expected == TAGTSO_EXEC_FAULT &&
	         (outcome.fault.address != address || outcome.fault.code != SEGV_ACCERR))
		failed(it.class, 0, it.word, sentence, "another fault");
	result(failures == before, sentence);
}

#define WORDS(name) shape_##name, shape_end_##name

static void spans_that_end(void)
{
	struct sandbox box;

	sandbox_init(&box);
	span_ends(&box, "a loop that writes the word in between is UNKNOWN", WORDS(granule_write), 0,
	          TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop that stores to another word is UNKNOWN", WORDS(other_word), 0, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop that stores another size is UNKNOWN", WORDS(other_size), 0, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop with SIMD inside is UNKNOWN", WORDS(vector_inside), 0, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop on a read-only page is the store's fault", WORDS(exchange_relaxed),
	          (uint64_t)box.base + READONLY + 64, TAGTSO_EXEC_FAULT);
	span_ends(&box, "a loop that stores elsewhere and then to a read-only page is the store's fault",
	          WORDS(state_inside), (uint64_t)box.base + READONLY + 64, TAGTSO_EXEC_FAULT);
	span_ends(&box, "a loop that is not aligned is UNKNOWN", WORDS(exchange_relaxed),
	          (uint64_t)box.base + DATA + 65, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop on no page at all is the load's fault", WORDS(exchange_relaxed),
	          (uint64_t)box.base + NONE + 64, TAGTSO_EXEC_FAULT);
	sandbox_free(&box);
}

/* ---- loops that run elsewhere --------------------------------------------------------------------------------------------- */

SHAPE(float_inside,
      "1: ldaxr x1, [x2]; fmov d0, x1; fadd d0, d0, d1; fmov x6, d0; stlxr w4, x6, [x2]; cbnz w4, 1b; mov x7, x1");
SHAPE(vector_leaves,
      "1: ldaxr x1, [x2]; fmov d0, x1; cmp x1, x3; b.ne 2f; tbnz x1, #5, 3f; stlxr w4, x5, [x2]; cbnz w4, 1b;"
      "mov x6, #1; b 4f; 3: clrex; mov x6, #2; b 4f; 2: clrex; mov x6, #3; 4:");
SHAPE(vector_pair,
      "1: ldxp x6, x7, [x2]; fmov d3, x6; mov v3.d[1], x7; add v3.2d, v3.2d, v4.2d; fmov x6, d3; mov x7, v3.d[1];"
      "prfm pstl1keep, [x2]; stxp w4, x6, x7, [x2]; tbnz w4, #0, 1b");
SHAPE(setup_and_vector,
      "mov x9, x5; 2: fmov d7, x9; ldaxrh w1, [x2]; dup v0.4h, w1; add v0.4h, v0.4h, v7.4h; umov w6, v0.h[1];"
      "stlxrh w4, w6, [x2]; cbnz w4, 2b");

static const struct shape moving_shapes[] = {
#define ROW(name) \
	{ \
#name, shape_##name, shape_end_##name \
	}
	ROW(float_inside),
	ROW(vector_leaves),
	ROW(vector_pair),
	ROW(setup_and_vector),
#undef ROW
};
enum { NMOVING = sizeof(moving_shapes) / sizeof(moving_shapes[0]) };

static enum tagtso_exec interpret_moved(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	uint32_t words[TAGTSO_LOOP_WORDS];
	enum tagtso_exec got = interpret_span(box, word, frame);
	struct tagtso_memop op;
	unsigned count;

	tagtso_decode(word, &op);
	if (got != TAGTSO_EXEC_UNKNOWN) {
		box->wrong = "not UNKNOWN";
		return got;
	}
	count = tagtso_span_words(&op, frame, words, TAGTSO_LOOP_WORDS);
	if (!count)
		box->wrong = "no words to move";
	else if (!tagtso_outofline_enter_loop(frame->uc, words, count))
		box->wrong = "no slot for a loop";
	return box->wrong ? got : TAGTSO_EXEC_DONE;
}

static void moved_spans(void)
{
	unsigned before = failures, count = 0;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	for (unsigned i = 0; i < options.count; i++) {
		const struct shape *shape = &moving_shapes[i % NMOVING];
		struct random random = random_of("moved-span", i);
		struct instance it = { .class = "moved-span", .number = i };

		if (options.only >= 0 && options.only != i)
			continue;
		prepare_span(&random, &box, strstr(shape->name, "pair") ? 16 : 8, &it);
		span_interpreter = interpret_moved;
		one_span(&box, &it, shape->from, (unsigned)(shape->to - shape->from));
		span_interpreter = interpret_span;
		count++;
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence), "%u LL/SC loops that are not interpreted, run elsewhere: the same", count);
	result(failures == before, sentence);
}

/* A store-exclusive that trapped by itself. */
static void lone_store(void)
{
	struct registers registers = { .r = { 7, 7, 7, 7 } };
	struct tagtso_frame frame = { .x = registers.r };
	struct tagtso_memop op;
	struct tagtso_fault fault;

	tagtso_decode(0xc803fc40, &op); /* stlxr w3, x0, [x2] */
	result(tagtso_span_exec(&op, &frame, 0, SPAN_LIMIT, &fault) == TAGTSO_EXEC_DONE && registers.r[3] == 1 &&
	               registers.r[0] == 7 && registers.r[TAGTSO_PC] == 4,
	       "a store-exclusive that trapped without its load fails with status 1");
}

/* ---- exclusives one by one ------------------------------------------------------------------------------------------------ */

enum {
	LDAXR = 0xc85ffc41,         /* ldaxr x1, [x2] */
	STLXR = 0xc804fc45,         /* stlxr w4, x5, [x2] */
	STLXR_WORD_AT = 0x8804fcc5, /* stlxr w4, w5, [x6] */
	STRB_AT = 0x390000c7,       /* strb w7, [x6] */
	STRB_POST = 0x380014c7,     /* strb w7, [x6], #1 */
};

struct alone {
	struct registers registers;
	struct tagtso_frame frame;
	struct tagtso_monitor monitor;
	_Alignas(16) uint64_t memory[4];
};

static enum tagtso_exec carry_out(struct alone *a, uint32_t word)
{
	struct tagtso_fault fault;
	struct tagtso_memop op;

	tagtso_decode(word, &op);
	if (op.cls == TAGTSO_LOAD_EX)
		return tagtso_monitor_load(&a->monitor, &op, &a->frame, 0, &fault);
	if (op.cls == TAGTSO_STORE_EX)
		return tagtso_monitor_store(&a->monitor, &op, &a->frame, 0, &fault);
	return tagtso_monitor_write(&a->monitor, &op, &a->frame, tagtso_exec_address(&op, &a->frame), TAGTSO_ORDERED,
	                            &fault);
}

/* After a load-exclusive of memory[0]. */
static void load_alone(struct alone *a, uint64_t other)
{
	*a = (struct alone){ .memory = { 0x1111, 0x2222, 0x3333, 0x4444 } };
	a->frame.x = a->registers.r;
	a->registers.r[2] = (uint64_t)a->memory;
	a->registers.r[5] = 0x5555;
	a->registers.r[6] = other;
	a->registers.r[7] = 0x77;
	if (carry_out(a, LDAXR) != TAGTSO_EXEC_DONE || a->registers.r[1] != 0x1111 || a->registers.r[TAGTSO_PC] != 4) {
		failed("monitor", 0, LDAXR, "one by one", "wrong load");
		failures++;
	}
}

static void store_alone(struct alone *a, uint32_t word, unsigned status, uint64_t after, const char *sentence)
{
	enum tagtso_exec got = carry_out(a, word);

	result(got == TAGTSO_EXEC_DONE && a->registers.r[4] == status && a->memory[0] == after && !a->monitor.held,
	       sentence);
	failures += got != TAGTSO_EXEC_DONE || a->registers.r[4] != status || a->memory[0] != after;
}

static void exclusives_alone(void)
{
	struct alone a;

	load_alone(&a, 0);
	store_alone(&a, STLXR, 0, 0x5555, "a store-exclusive succeeds while nothing has changed");
	store_alone(&a, STLXR, 1, 0x5555, "a second one fails");
	load_alone(&a, 0);
	a.memory[0] = 0x9999;
	store_alone(&a, STLXR, 1, 0x9999, "a store-exclusive fails when the word has changed");
	load_alone(&a, 0);
	a.memory[1] = 0x9999;
	store_alone(&a, STLXR, 1, 0x1111, "a store-exclusive fails when the granule has changed");
	load_alone(&a, (uint64_t)a.memory + 4);
	store_alone(&a, STLXR_WORD_AT, 0, 0x555500001111, "a store-exclusive to a part of what was loaded succeeds");
	load_alone(&a, (uint64_t)&a.memory[2]);
	store_alone(&a, STLXR_WORD_AT, 1, 0x1111, "a store-exclusive to another granule fails");
	load_alone(&a, (uint64_t)a.memory + 1);
	carry_out(&a, STRB_AT);
	store_alone(&a, STLXR, 0, 0x5555, "a store-exclusive succeeds after a store of its own thread");
	load_alone(&a, (uint64_t)a.memory + 1);
	carry_out(&a, STRB_POST);
	result(a.registers.r[6] == (uint64_t)a.memory + 2 && a.memory[0] == 0x7711 && a.registers.r[TAGTSO_PC] == 8 &&
	               a.registers.r[0] == 0 && a.registers.r[7] == 0x77,
	       "that store does what it does without a monitor");
	load_alone(&a, (uint64_t)a.memory + 1);
	a.memory[0] = 0x9911;
	carry_out(&a, STRB_AT);
	store_alone(&a, STLXR, 1, 0x7711, "a store-exclusive fails after a store that overwrote another thread's");
}

/* ---- two threads, one word ------------------------------------------------------------------------------------------------ */

SHAPE(count_word, "1: ldaxr w1, [x2]; add w1, w1, #1; stlxr w3, w1, [x2]; cbnz w3, 1b; sub x4, x4, #1; cbnz x4, 1b");
SHAPE(count_pair,
      "1: ldaxp x5, x6, [x2]; add x5, x5, #1; stlxp w3, x5, x6, [x2]; cbnz w3, 1b; sub x4, x4, #1; cbnz x4, 1b");
SHAPE(count_function,
      "1: bl 3f; add w6, w0, #1; str x6, [x11]; mov w1, w6; bl 4f; cbnz w0, 1b; sub x4, x4, #1; cbnz x4, 1b; b 5f;"
      "3: ldaxr w0, [x2]; ret; 4: mov x9, x2; stlxr w0, w1, [x9]; ret; 5:");

/* gcc's __aarch64_ldadd4_acq_rel, box64's LOCK INC with its flags, QEMU's compare-and-swap of 16 bytes, and one with SIMD inside */
SHAPE(count_helper,
      "1: mov w0, #1; bl 3f; sub x4, x4, #1; cbnz x4, 1b; b 5f;"
      "3: mov w16, w0; 4: ldxr w0, [x2]; add w17, w0, w16; stlxr w15, w17, [x2]; cbnz w15, 4b; dmb ish; ret; 5:");
SHAPE(count_flags, "1: ldaxr w1, [x2]; adds w5, w1, #1; stlxr w3, w5, [x2]; cbnz w3, 1b; mrs x6, nzcv; orr x7, x7, x6;"
                   "sub x4, x4, #1; cbnz x4, 1b");
SHAPE(count_compare,
      "1: ldp x5, x6, [x11]; 2: add x9, x5, #1; mov x10, x6; 3: ldaxp x7, x8, [x2]; cmp x7, x5; ccmp x8, x6, #0, eq;"
      "b.ne 4f; stlxp w3, x9, x10, [x2]; cbnz w3, 3b; b 6f; 4: stlxp w3, x7, x8, [x2]; cbnz w3, 3b;"
      "mov x5, x7; mov x6, x8; b 2b; 6: stp x9, x10, [x11]; sub x4, x4, #1; cbnz x4, 1b");
SHAPE(count_vector,
      "mov x12, #1; fmov d1, x12; 1: ldaxr x1, [x2]; fmov d0, x1; add d0, d0, d1; fmov x6, d0; stlxr w3, x6, [x2];"
      "cbnz w3, 1b; sub x4, x4, #1; cbnz x4, 1b");

enum { TOTAL = 1000000 };

struct contention {
	struct sandbox box;
	uint64_t address;
	unsigned interpreted; /* increments by the code that traps */
	bool pair;
	volatile bool failed;
};

static void *counts_by_trap(void *argument)
{
	struct contention *c = argument;

	own_signal_stack();
	c->box.interpret = interpret_count;
	c->box.in.r[2] = c->address;
	c->box.in.r[4] = c->interpreted;
	c->box.in.r[11] = (c->address + 256) | data_tag();
	run(&c->box);
	c->failed = c->box.faulted || c->box.result != TAGTSO_EXEC_DONE || c->box.in.r[4] == c->box.out.r[4];
	return NULL;
}

static void count_natively(const struct contention *c)
{
	uint64_t p = c->address | data_tag(), a, b;
	unsigned status;

	do {
		if (c->pair)
			__asm__ volatile("ldaxp %0, %1, [%3]; add %1, %1, #1; stlxp %w2, %0, %1, [%3]"
			                 : "=&r"(a), "=&r"(b), "=&r"(status)
			                 : "r"(p)
			                 : "memory");
		else
			__asm__ volatile("ldaxr %w0, [%2]; add %w0, %w0, #1; stlxr %w1, %w0, [%2]"
			                 : "=&r"(a), "=&r"(status)
			                 : "r"(p)
			                 : "memory");
	} while (status);
}

static void contend(const char *sentence, const uint32_t *from, const uint32_t *to, unsigned interpreted, bool pair,
                    bool mte)
{
	struct contention c = { .interpreted = interpreted, .pair = pair };
	unsigned native = TOTAL - interpreted;
	char line[200];
	uint64_t got[2];
	pthread_t thread;
	bool ok;

	sandbox_init(&c.box);
	c.box.mte = mte;
	c.box.moves = from == shape_count_vector;
	c.address = (uint64_t)c.box.base + DATA + 64;
	put_words(&c.box, from, (unsigned)(to - from), !mte);
	memset(data_pointer(c.address), 0, 16);
	memset(data_pointer(c.address + 256), 0, 16);
	if (pthread_create(&thread, NULL, counts_by_trap, &c)) {
		result(false, "a second thread");
		failures++;
		return;
	}
	for (unsigned i = 0; i < native; i++) {
		/* Both shall be at it to the end. */
		while ((uint64_t)i * interpreted > ((uint64_t) * (volatile unsigned *)&c.box.traps + 100) * native &&
		       !c.failed)
			__asm__ volatile("yield");
		count_natively(&c);
	}
	pthread_join(thread, NULL);
	memcpy(got, data_pointer(c.address), 16);
	snprintf(line, sizeof(line), "%u increments by trap (%s) and %u natively %s", interpreted,
	         mte ? "tags" : "breakpoint", native, sentence);
	/* The pair's halves are counted apart: each thread must notice the half that it does not change. */
	ok = !c.failed && (pair ? got[0] == interpreted && got[1] == native : got[0] == TOTAL && got[1] == 0);
	result(ok, line);
	if (!ok) {
		failures++;
		printf("# counted %llu and %llu, traps %u, result %d, fault %d/%d at %llx\n",
		       (unsigned long long)got[0], (unsigned long long)got[1], c.box.traps, c.box.result,
		       c.box.fault.signo, c.box.fault.code, (unsigned long long)c.box.fault.address);
	}
	sandbox_free(&c.box);
}

static void contentions(void)
{
	unsigned by_trap = options.count >= 10000 ? TOTAL / 2 : options.count >= 2000 ? TOTAL / 10 : TOTAL / 50;

	contend("on one word lose none", WORDS(count_word), by_trap, false, have_mte);
	contend("on one pair lose none", WORDS(count_pair), by_trap / 8, true, have_mte);
	contend("through two functions lose none", WORDS(count_function), by_trap / 8, false, have_mte);
	contend("by a compiler's helper lose none", WORDS(count_helper), by_trap / 4, false, have_mte);
	contend("with flags lose none", WORDS(count_flags), by_trap / 4, false, have_mte);
	contend("by comparing 16 bytes lose none", WORDS(count_compare), by_trap / 8, true, have_mte);
	if (have_mte)
		contend("with the loop elsewhere lose none", WORDS(count_vector), by_trap / 4, false, true);
	if (have_mte)
		contend("on one word lose none", WORDS(count_word), by_trap / 8, false, false);
}

#endif
