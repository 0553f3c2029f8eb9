/* SPDX-License-Identifier: MIT */
/* The generated code of cells: snippets, the area they are copied to, and bringing a site into a form. None uses x8 or x9 (profile "generic"). */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cells.h"

/* ---- snippets ---- */

#define SNIPPET(name, before, memory, after) \
	extern const uint32_t name##_start[], name##_site[], name##_end[]; \
	__asm__(".pushsection .rodata\n\t.balign 4\n" #name "_start:\n\t" before "\n" #name "_site:\n\t" memory \
	        "\n\t" after "\n\tret\n" #name "_end:\n\t.popsection"); \
	const struct snippet snippet_##name = { name##_start, name##_site, name##_end };

__asm__(".arch_extension sve");

/* x0 = address, x1 = operand; the result in x0. */
SNIPPET(ldr, "", "ldr x0, [x0]", "")
SNIPPET(str, "", "str x1, [x0]", "mov x0, x1")
SNIPPET(ldrb, "", "ldrb w0, [x0]", "")
SNIPPET(strh, "", "strh w1, [x0]", "mov x0, x1")
SNIPPET(ldp, "", "ldp x1, x2, [x0]", "add x0, x1, x2")
SNIPPET(stp, "add x2, x1, #1", "stp x1, x2, [x0]", "mov x0, x1")
SNIPPET(ldr_q, "", "ldr q0, [x0]", "mov x1, v0.d[0]\n\tmov x2, v0.d[1]\n\tadd x0, x1, x2")
SNIPPET(str_q, "add x2, x1, #1\n\tfmov d0, x1\n\tmov v0.d[1], x2", "str q0, [x0]", "mov x0, x1")
SNIPPET(ldr_post, "mov x3, x0", "ldr x2, [x0], #8", "sub x0, x0, x3\n\tadd x0, x0, x2")
SNIPPET(str_pre, "mov x3, x0\n\tadd x0, x0, #16", "str x1, [x0, #-16]!", "sub x0, x0, x3\n\tadd x0, x0, x1")
SNIPPET(ldr_reg, "mov w2, #1", "ldr x0, [x0, w2, uxtw #3]", "")
SNIPPET(ld1_lane, "movi v0.2d, #0", "ld1 {v0.d}[1], [x0]", "mov x0, v0.d[1]")
SNIPPET(ld1r, "", "ld1r {v0.2d}, [x0]", "mov x0, v0.d[1]")
SNIPPET(ldadd, "", "ldaddal x1, x2, [x0]", "mov x0, x2")
SNIPPET(swpa, "", "swpa x1, x2, [x0]", "mov x0, x2")
/* x1 = new; compares with the second argument x2 */
SNIPPET(casal, "", "casal x2, x1, [x0]", "mov x0, x2")
SNIPPET(caspal, "mov x6, x2\n\tadd x7, x2, #1\n\tmov x4, x1\n\tmov x5, x1", "caspal x6, x7, x4, x5, [x0]", "mov x0, x6")
SNIPPET(stlr, "", "stlr x1, [x0]", "mov x0, x1")
SNIPPET(ldapr, "", "ldapr x0, [x0]", "")
SNIPPET(llsc, "", "1:\tldaxr x2, [x0]", "add x3, x2, x1\n\tstlxr w4, x3, [x0]\n\tcbnz w4, 1b\n\tmov x0, x2")

/* Loops: x1 times plus one. */
SNIPPET(add_ldadd, "mov x2, #1\n1:", "ldadd x2, x3, [x0]", "subs x1, x1, #1\n\tb.ne 1b")
SNIPPET(add_cas, "1:", "ldr x3, [x0]",
        "2:\tmov x4, x3\n\tadd x5, x3, #1\n\tcasal x3, x5, [x0]\n\tcmp x3, x4\n\tb.ne 2b\n\tsubs x1, x1, #1\n\tb.ne 1b")
SNIPPET(add_llsc, "1:", "ldaxr x3, [x0]",
        "add x3, x3, #1\n\tstlxr w4, x3, [x0]\n\tcbnz w4, 1b\n\tsubs x1, x1, #1\n\tb.ne 1b")
/* With a load of what others use too between the loops, for which nothing in the code orders it. */
SNIPPET(add_llsc_load, "1:", "ldaxr x3, [x0]",
        "add x3, x3, #1\n\tstlxr w4, x3, [x0]\n\tcbnz w4, 1b\n\tldr x5, [x0, #64]\n\tsubs x1, x1, #1\n\tb.ne 1b")
SNIPPET(add_plain, "1:", "ldr x3, [x0]", "add x3, x3, #1\n\tstr x3, [x0]\n\tsubs x1, x1, #1\n\tb.ne 1b")
/* The same on two words, the second plus seven: a compare-and-swap that stores back what it read when the comparison fails. */
SNIPPET(add_pair,
        "mov x2, #0\n\tmov x3, #0\n"
        "1:\tadd x6, x2, #1\n\tadd x7, x3, #7\n2:",
        "ldaxp x4, x5, [x0]",
        "cmp x4, x2\n\tccmp x5, x3, #0, eq\n\tb.ne 3f\n\tstlxp w10, x6, x7, [x0]\n\tcbnz w10, 2b\n\tb 4f\n"
        "3:\tstlxp w10, x4, x5, [x0]\n\tcbnz w10, 2b\n\tmov x2, x4\n\tmov x3, x5\n\tb 1b\n"
        "4:\tsubs x1, x1, #1\n\tb.ne 1b")
/* rep movsb: from x0 to x1, x2 bytes; the result in x0 is the last one */
SNIPPET(copy, "1:", "ldrb w3, [x0], #1", "strb w3, [x1], #1\n\tsubs x2, x2, #1\n\tb.ne 1b\n\tmov x0, x3")
/* x1 words, each the second argument plus its index */
SNIPPET(fill, "1:", "str x2, [x0], #8", "add x2, x2, #1\n\tsubs x1, x1, #1\n\tb.ne 1b")
SNIPPET(sum, "mov x3, #0\n1:", "ldr x2, [x0], #8", "add x3, x3, x2\n\tsubs x1, x1, #1\n\tb.ne 1b\n\tmov x0, x3")

/* A ring of 64 words at x0 + 256; head at x0, tail at x0 + 128. x1 messages, each the square of its number, all with plain accesses. */
SNIPPET(produce,
        "mov x2, #0\n"
        "1:\tldr x3, [x0, #128]\n\tsub x4, x2, x3\n\tcmp x4, #64\n\tb.lo 2f\n\tyield\n\tb 1b\n"
        "2:\tand x4, x2, #63\n\tadd x4, x0, x4, lsl #3\n\tmul x5, x2, x2",
        "str x5, [x4, #256]", "add x2, x2, #1\n\tstr x2, [x0]\n\tcmp x2, x1\n\tb.ne 1b")
/* Result: the messages that were wrong. */
SNIPPET(consume,
        "mov x2, #0\n\tmov x6, #0\n"
        "1:\tldr x3, [x0]\n\tcmp x3, x2\n\tb.ne 2f\n\tyield\n\tb 1b\n"
        "2:\tand x4, x2, #63\n\tadd x4, x0, x4, lsl #3\n\tmul x5, x2, x2",
        "ldr x7, [x4, #256]",
        "cmp x7, x5\n\tcinc x6, x6, ne\n\tadd x2, x2, #1\n\tstr x2, [x0, #128]\n\tcmp x2, x1\n\tb.ne 1b\n\tmov x0, x6")

/* The two halves of what is written are the same, in each of x1 rounds another value; x0 = bits in which halves of what was read differed. */
SNIPPET(write_twins, "1:\torr x3, x1, x1, lsl #32", "str x3, [x0]", "subs x1, x1, #1\n\tb.ne 1b\n\tmov x0, #0")
SNIPPET(read_twins, "mov x4, #0\n1:", "ldr x2, [x0]",
        "eor x3, x2, x2, ror #32\n\torr x4, x4, x3\n\tsubs x1, x1, #1\n\tb.ne 1b\n\tmov x0, x4")
SNIPPET(write_twins_q, "1:\tdup v0.2d, x1", "str q0, [x0]", "subs x1, x1, #1\n\tb.ne 1b\n\tmov x0, #0")
SNIPPET(read_twins_q, "mov x4, #0\n1:", "ldr q0, [x0]",
        "mov x2, v0.d[0]\n\tmov x3, v0.d[1]\n\teor x3, x3, x2\n\torr x4, x4, x3\n\tsubs x1, x1, #1\n\tb.ne 1b\n\tmov "
        "x0, x4")
/* Instructions that the decoder leaves alone. */
SNIPPET(ld2, "", "ld2 {v0.2d, v1.2d}, [x0]", "mov x1, v0.d[1]\n\tmov x2, v1.d[0]\n\tadd x0, x2, x1, lsl #8")
SNIPPET(st2, "add x2, x1, #1\n\tdup v0.2d, x1\n\tdup v1.2d, x2", "st2 {v0.2d, v1.2d}, [x0]", "mov x0, x1")
SNIPPET(sve_load, "ptrue p0.d, vl2", "ld1d z0.d, p0/z, [x0]", "mov x1, v0.d[0]\n\tmov x2, v0.d[1]\n\tadd x0, x1, x2")
/* Two accesses, for a run. */
SNIPPET(ldr_str, "and x3, x0, #0xfffffffffffff000", "ldr x2, [x3]", "str x1, [x0]\n\tmov x0, x1")
SNIPPET(ldr_ldadd, "and x3, x0, #0xfffffffffffff000", "ldr x2, [x3]", "ldaddal x1, x2, [x0]\n\tmov x0, x2")
SNIPPET(zva, "", "dc zva, x0", "")

/* ---- the code area ---- */

enum { AREA = 256 * 1024 }; /* over 128 KiB: the shim takes it for generated code */

static uint8_t *area;
static size_t used;

static struct code emit_at(uint8_t *at, const struct snippet *s)
{
	size_t words = (size_t)(s->end - s->start);
	struct code c = { .site = (uint32_t *)at + (s->site - s->start), .word = *s->site };

	for (size_t i = 0; i < words; i++)
		((volatile uint32_t *)at)[i] = s->start[i];
	__builtin___clear_cache((char *)at, (char *)at + 4 * words);
	memcpy(&c.fn, &at, sizeof(c.fn));
	return c;
}

struct code cells_emit(const struct snippet *s)
{
	if (!area) {
		area = mmap(NULL, AREA, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(area != MAP_FAILED, "no memory for code: %s", strerror(errno));
	}
	uint8_t *at = area + used;

	used += (4 * (size_t)(s->end - s->start) + 63) & ~(size_t)63;
	return emit_at(at, s);
}

struct code cells_emit_over(struct code old, const struct snippet *s)
{
	uint8_t *at;

	memcpy(&at, &old.fn, sizeof(at));
	return emit_at(at, s);
}

/* A signal frame begins right below the stack pointer with a frame record (the kernel's setup_sigframe): two words planted there are changed if
 * a signal came while fn, which uses no stack, was running. */
__asm__(".text\n"
        ".globl cells_observe\n"
        ".type cells_observe, %function\n"
        "cells_observe:\n"
        "	stp x29, x30, [sp, #-32]!\n"
        "	stp x19, x4, [sp, #16]\n"
        "	mov x29, sp\n"
        "	mov x9, x0\n"
        "	mov x0, x1\n"
        "	mov x1, x2\n"
        "	mov x2, x3\n"
        "	mov x19, #0x5aa5\n"
        "	movk x19, #0xa55a, lsl #48\n"
        "	stp x19, x19, [sp, #-16]\n"
        "	blr x9\n"
        "	ldp x9, x10, [sp, #-16]\n"
        "	cmp x9, x19\n"
        "	ccmp x10, x19, #0, eq\n"
        "	cset w10, ne\n"
        "	ldp x19, x4, [sp, #16]\n"
        "	str w10, [x4]\n"
        "	ldp x29, x30, [sp], #32\n"
        "	ret\n");

/* ---- forms ---- */

static bool train_until_changed(struct code c, uint64_t *p, uint32_t from)
{
	for (unsigned tries = 0; *c.site == from; tries++) {
		if (tries == 2000)
			return false;
		for (unsigned i = 0; i < 4 && *c.site == from; i++)
			c.fn(p, 1, 1);
		cells_sleep_ms(2);
	}
	return true;
}

bool cells_train(struct code c, enum form form)
{
	static struct worker other;
	static uint64_t *mine, *shared;

	if (form == EMITTED)
		return !is_rewritten(c);
	if (!mine)
		cells_worker_start(&other);
	if (!mine || cells_cpu) /* by now another processor may have what was ours */
		mine = cells_mine();
	if (form != LOCAL && !shared)
		shared = cells_shared(&other);
	if (form != SHARED_FORM && !train_until_changed(c, mine, c.word))
		return false;
	if (form == LOCAL || train_until_changed(c, shared, *c.site))
		return true;
	/* moved in the first training, whose memory became shared with it: what is left is the other half */
	return form == MIXED && cells_cpu && train_until_changed(c, cells_mine(), *c.site);
}

/* ---- guest memory ---- */

void *cells_map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED, "mmap: %s", strerror(errno));
	return p;
}

uint64_t *cells_mine(void)
{
	uint64_t *p = cells_map(PAGE);

	put(p, 0);
	if (!cells_cpu)
		SAME(tag_of(p), my_tag(), "the tag of memory that this thread wrote first");
	return p;
}

uint64_t *cells_others(struct worker *other)
{
	uint64_t *p = cells_map(PAGE);

	cells_put_on(other, p, 0);
	if (!cells_cpu)
		SAME(tag_of(p), cells_tag_of_worker(other), "the tag of memory that another thread wrote first");
	return p;
}

uint64_t *cells_shared(struct worker *other)
{
	uint64_t *p = cells_others(other);

	put(p, 0);
	for (unsigned handovers = 0; handovers < 4 && tag_of(p) != SHARED; handovers++) {
		cells_put_on(other, p, 0);
		put(p, 0);
	}
	SAME(tag_of(p), SHARED, "the tag of memory that two threads wrote");
	return p;
}
