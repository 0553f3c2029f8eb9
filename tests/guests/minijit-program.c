/* SPDX-License-Identifier: MIT */
/* The loop language of minijit: random programs, two that are not random, and how they are printed. */
#include <stdio.h>
#include <string.h>

#include "minijit.h"

bool insn_is_branch(const struct insn *i)
{
	return i->op >= G_JCC;
}

/* ---- making one ---- */

static struct insn *add(struct program *p, enum opcode op)
{
	struct insn *i = &p->insn[p->n++];

	memset(i, 0, sizeof(*i));
	i->op = (uint8_t)op;
	return i;
}

static void movi(struct program *p, unsigned rd, uint64_t imm)
{
	struct insn *i = add(p, G_MOVI);

	i->rd = (uint8_t)rd;
	i->imm = imm;
}

static void two(struct program *p, enum opcode op, unsigned rd, unsigned rs)
{
	struct insn *i = add(p, op);

	i->rd = (uint8_t)rd;
	i->rs = (uint8_t)rs;
}

static void with(struct program *p, enum opcode op, unsigned rd, uint64_t imm)
{
	struct insn *i = add(p, op);

	i->rd = (uint8_t)rd;
	i->imm = imm;
}

/* rt: what is loaded or stored. */
static void memory(struct program *p, enum opcode op, unsigned size, unsigned rt, unsigned rb, int off)
{
	struct insn *i = add(p, op);

	i->size = (uint8_t)size;
	i->rd = i->rs = (uint8_t)rt;
	i->rb = (uint8_t)rb;
	i->off = off;
}

static unsigned branch(struct program *p, enum opcode op, unsigned reg)
{
	struct insn *i = add(p, op);

	i->rd = i->rs = (uint8_t)reg;
	return p->n - 1;
}

static void lead(struct program *p, unsigned from, unsigned to)
{
	p->insn[from].imm = to;
}

/* ---- random ones ---- */

struct maker {
	struct program *p;
	uint64_t seed;
	const struct mix *mix;
	unsigned pushed; /* words on the stack, at most */
};

static unsigned below(struct maker *m, unsigned n)
{
	return (unsigned)(random_next(&m->seed) % n);
}

static unsigned data(struct maker *m)
{
	return below(m, 5);
}

static unsigned size_of(struct maker *m)
{
	return 1u << below(m, 4);
}

static void arithmetic(struct maker *m)
{
	static const enum opcode ops[] = { G_ADD, G_SUB, G_XOR, G_AND, G_OR, G_MUL, G_MOV };
	unsigned which = below(m, 10);

	if (which < 7)
		two(m->p, ops[which], data(m), data(m));
	else if (which == 7)
		with(m->p, G_ADDI, data(m), (uint64_t)(int64_t)((int)below(m, 8191) - 4095));
	else if (which == 8)
		with(m->p, G_ROR, data(m), 1 + below(m, 62));
	else
		movi(m->p, data(m), random_next(&m->seed));
}

/* In one place of the thread's own data. Off the natural alignment only where that is asked for. */
static int private_offset(struct maker *m, unsigned size)
{
	unsigned off = below(m, DATA_BYTES - 16);

	if (!m->mix->unaligned || below(m, 3))
		off &= ~(size - 1);
	return (int)off;
}

/* The address comes from data. */
static void indexed(struct maker *m, unsigned size)
{
	two(m->p, G_MOV, R_ADDRESS, data(m));
	with(m->p, G_ANDI, R_ADDRESS, 10);
	if (!m->mix->unaligned) {
		with(m->p, G_ROR, R_ADDRESS, 4); /* to a multiple of 16: the low four bits go up, */
		with(m->p, G_ANDI, R_ADDRESS, 6);
		with(m->p, G_ROR, R_ADDRESS, 60); /* and there are none */
	}
	two(m->p, G_ADD, R_ADDRESS, R_PRIVATE);
	memory(m->p, below(m, 2) ? G_LOAD : G_STORE, size, data(m), R_ADDRESS, (int)(8 * below(m, 8)));
}

static void private_access(struct maker *m)
{
	unsigned size = size_of(m), which = below(m, 12);

	if (which < 4)
		memory(m->p, G_LOAD, size, data(m), R_PRIVATE, private_offset(m, size));
	else if (which < 8)
		memory(m->p, G_STORE, size, data(m), R_PRIVATE, private_offset(m, size));
	else if (which == 8 && size < 8)
		memory(m->p, G_LOADS, size, data(m), R_PRIVATE, private_offset(m, size));
	else
		indexed(m, size);
}

static void vectors(struct maker *m)
{
	unsigned v = below(m, VECTORS);

	switch (below(m, 5)) {
	case 0:
		memory(m->p, G_VLOAD, 16, v, R_PRIVATE, private_offset(m, 16));
		break;
	case 1:
		memory(m->p, G_VSTORE, 16, v, R_PRIVATE, private_offset(m, 16));
		break;
	case 2:
		two(m->p, G_VADD, v, below(m, VECTORS));
		break;
	case 3:
		two(m->p, G_VDUP, v, data(m));
		break;
	default:
		two(m->p, G_VGET, data(m), v);
	}
}

/* The thread's own words, in granules that another thread uses too. */
static void lane(struct maker *m)
{
	unsigned size = size_of(m);
	int off = (int)(LANE_STRIDE * below(m, LANE_WORDS) + below(m, 8 / size) * size);

	memory(m->p, below(m, 2) ? G_LOAD : G_STORE, size, data(m), R_LANE, off);
}

static void constant(struct maker *m)
{
	unsigned size = size_of(m);

	memory(m->p, G_LOAD, size, data(m), R_CONSTANT, (int)(below(m, PAGE / 16) * size));
}

static void locked_private(struct maker *m)
{
	static const enum opcode ops[] = { G_XADD, G_LADD, G_XCHG, G_CMPXCHG };
	enum opcode op = ops[below(m, 4)];
	unsigned size = size_of(m), rs = 1 + below(m, 4);

	memory(m->p, op, size, rs, R_PRIVATE, (int)(below(m, DATA_BYTES / size) * size));
	if (op == G_CMPXCHG)
		m->p->insn[m->p->n - 1].rd = (uint8_t)(1 + rs % 4);
}

/* All threads add to it; what was there before is forgotten. */
static void locked_shared(struct maker *m)
{
	unsigned rs = 1 + below(m, 3), again;
	int cell = (int)(16 * below(m, ATOMIC_CELLS));

	switch (below(m, 3)) {
	case 0:
		memory(m->p, G_LADD, 8, rs, R_ATOMICS, cell);
		break;
	case 1:
		memory(m->p, G_XADD, 8, rs, R_ATOMICS, cell);
		movi(m->p, rs, random_next(&m->seed));
		break;
	default:
		/* r0 = old; until it works: rs = r0 + n, CMPXCHG */
		memory(m->p, G_LOAD, 8, R_COMPARE, R_ATOMICS, cell);
		again = m->p->n;
		two(m->p, G_MOV, rs, R_COMPARE);
		with(m->p, G_ADDI, rs, 1 + below(m, 100));
		memory(m->p, G_CMPXCHG, 8, rs, R_ATOMICS, cell);
		m->p->insn[m->p->n - 1].rd = 4;
		with(m->p, G_ADDI, 4, (uint64_t)-1);
		lead(m->p, branch(m->p, G_JNZ, 4), again);
		movi(m->p, R_COMPARE, random_next(&m->seed));
		movi(m->p, rs, random_next(&m->seed));
	}
}

static void stack(struct maker *m)
{
	switch (below(m, 4)) {
	case 0:
		branch(m->p, G_PUSH, data(m));
		m->pushed++;
		break;
	case 1:
		two(m->p, G_PUSH2, data(m), data(m));
		m->pushed += 2;
		break;
	case 2:
		if (m->pushed) {
			branch(m->p, G_POP, data(m));
			m->pushed--;
		}
		break;
	default:
		if (m->pushed > 1) {
			unsigned rd = data(m);

			two(m->p, G_POP2, rd, (rd + 1) % 5);
			m->pushed -= 2;
		}
	}
}

/* A pointer from memory, which in some rounds of the loop is one that must not be used. */
static void may_fault(struct maker *m)
{
	unsigned size = size_of(m);

	two(m->p, G_MOV, R_ADDRESS, R_OUTER);
	with(m->p, G_ANDI, R_ADDRESS, 3);
	with(m->p, G_ROR, R_ADDRESS, 61);
	two(m->p, G_ADD, R_ADDRESS, R_PRIVATE);
	memory(m->p, G_LOAD, 8, R_ADDRESS, R_ADDRESS, POINTERS);
	memory(m->p, below(m, 2) ? G_FLOAD : G_FSTORE, size, data(m), R_ADDRESS, (int)(below(m, 64 / size) * size));
}

static void piece(struct maker *m);

/* Flags that live over accesses, and a branch that not every round takes. */
static void condition(struct maker *m)
{
	unsigned jump;

	two(m->p, G_CMP, data(m), data(m));
	private_access(m);
	lane(m);
	jump = branch(m->p, G_JCC, 0);
	m->p->insn[jump].imm = 0;
	m->p->insn[jump].size = (uint8_t)below(m, 14);
	for (unsigned n = 1 + below(m, 2); n; n--)
		arithmetic(m);
	private_access(m);
	lead(m->p, jump, m->p->n);
}

static void inner_loop(struct maker *m)
{
	unsigned again;

	movi(m->p, R_INNER, 2 + below(m, 6));
	again = m->p->n;
	two(m->p, G_MOV, R_ADDRESS, R_INNER);
	with(m->p, G_ROR, R_ADDRESS, 60);
	two(m->p, G_ADD, R_ADDRESS, R_PRIVATE);
	memory(m->p, G_LOAD, 8, 1, R_ADDRESS, (int)(8 * below(m, 8)));
	two(m->p, G_ADD, 2, 1);
	memory(m->p, G_STORE, 8, 2, R_ADDRESS, (int)(8 * below(m, 8)));
	lead(m->p, branch(m->p, G_DJNZ, R_INNER), again);
}

static void await(struct maker *m)
{
	unsigned rd = data(m);

	if (below(m, 2)) {
		with(m->p, G_AWAIT, rd, random_next(&m->seed));
	} else {
		with(m->p, G_AWAITR, rd, random_next(&m->seed));
	}
}

static void piece(struct maker *m)
{
	unsigned which = below(m, 100);

	if (which < 15)
		arithmetic(m);
	else if (which < 37)
		private_access(m);
	else if (which < 45)
		vectors(m);
	else if (which < 57)
		lane(m);
	else if (which < 62)
		constant(m);
	else if (which < 67)
		locked_private(m);
	else if (which < 72)
		locked_shared(m);
	else if (which < 80)
		stack(m);
	else if (which < 83)
		with(m->p, G_FENCE, 0, below(m, 3));
	else if (which < 88)
		add(m->p, below(m, 2) ? G_TWIN : G_TWINX);
	else if (which < 90)
		add(m->p, G_SELF);
	else if (which < 93)
		condition(m);
	else if (which < 95)
		inner_loop(m);
	else if (m->mix->faults)
		may_fault(m);
}

static void pieces(struct maker *m, unsigned n)
{
	while (n-- && m->p->n < MAX_INSNS / 2)
		piece(m);
	while (m->pushed) {
		branch(m->p, G_POP, data(m));
		m->pushed--;
	}
}

void program_random(struct program *p, uint64_t seed, const struct mix *mix)
{
	struct maker m = { .p = p, .seed = seed, .mix = mix };
	unsigned main_part, again, call[3], routine[2];

	p->n = 0;
	main_part = branch(p, G_JMP, 0);
	for (unsigned i = 0; i < 2; i++) {
		routine[i] = p->n;
		pieces(&m, 3 + below(&m, 6));
		add(p, G_RET);
	}
	lead(p, main_part, p->n);
	for (unsigned i = 0; i < 5; i++)
		movi(p, i, random_next(&m.seed));
	movi(p, R_OUTER, mix->iterations);
	again = p->n;
	for (unsigned i = 0; i < 3; i++) {
		pieces(&m, 5 + below(&m, 12));
		call[i] = branch(p, G_CALL, 0);
		lead(p, call[i], routine[below(&m, 2)]);
	}
	add(p, G_TWIN);
	add(p, G_TWINX);
	lead(p, branch(p, G_DJNZ, R_OUTER), again);
	if (mix->await)
		await(&m);
	add(p, G_END);
}

/* ---- others ---- */

void program_private(struct program *p, unsigned iterations)
{
	unsigned again;

	p->n = 0;
	for (unsigned i = 0; i < 5; i++)
		movi(p, i, i * 0x0123456789abcdef);
	movi(p, R_OUTER, iterations);
	again = p->n;
	for (int i = 0; i < 4; i++) {
		memory(p, G_LOAD, 8, 1, R_PRIVATE, 64 * i);
		memory(p, G_LOAD, 4, 2, R_PRIVATE, 64 * i + 8);
		two(p, G_ADD, 2, 1);
		memory(p, G_STORE, 8, 2, R_PRIVATE, 64 * i + 16);
		memory(p, G_STORE, 2, 1, R_PRIVATE, 64 * i + 24);
		branch(p, G_PUSH, 2);
		branch(p, G_POP, 3);
		two(p, G_XOR, 1, 3);
		memory(p, G_STORE, 8, 1, R_PRIVATE, 64 * i);
	}
	add(p, G_TWIN);
	lead(p, branch(p, G_DJNZ, R_OUTER), again);
	add(p, G_END);
}

/* r1 = number of the message, r2 = slot, r3 = value, r4 = what the other has reached. R_ADDRESS = the pair's ring. */
static unsigned ring_wait(struct program *p, bool receiver)
{
	unsigned again = p->n, out;

	memory(p, G_LOAD, 8, 4, R_ADDRESS, receiver ? RING_HEAD : RING_TAIL);
	two(p, G_SUB, 4, 1);
	if (!receiver)
		with(p, G_ADDI, 4, RING_COUNT);
	out = branch(p, G_JNZ, 4);
	lead(p, branch(p, G_JMP, 0), again);
	lead(p, out, p->n);
	return again;
}

void program_each(struct program *p, unsigned iterations)
{
	unsigned again;

	p->n = 0;
	for (unsigned i = 0; i < 5; i++)
		movi(p, i, i * 0x0123456789abcdef);
	movi(p, R_OUTER, iterations);
	again = p->n;
	add(p, G_TWIN);
	branch(p, G_PUSH, 2);
	two(p, G_PUSH2, 1, 3);
	two(p, G_POP2, 3, 1);
	branch(p, G_POP, 2);
	add(p, G_TWINX);
	memory(p, G_VLOAD, 16, 1, R_PRIVATE, 32);
	memory(p, G_VSTORE, 16, 1, R_PRIVATE, 48);
	memory(p, G_LOAD, 1, 1, R_PRIVATE, 65);
	memory(p, G_CMPXCHG, 4, 2, R_PRIVATE, 80);
	p->insn[p->n - 1].rd = 3;
	lead(p, branch(p, G_DJNZ, R_OUTER), again);
	add(p, G_END);
}

void program_small(struct program *p, uint64_t seed, unsigned iterations)
{
	struct mix mix = { .iterations = iterations };
	struct maker m = { .p = p, .seed = seed, .mix = &mix };
	unsigned again;

	p->n = 0;
	for (unsigned i = 0; i < 5; i++)
		movi(p, i, random_next(&m.seed));
	movi(p, R_OUTER, iterations);
	again = p->n;
	for (unsigned i = 0; i < 2; i++) {
		private_access(&m);
		arithmetic(&m);
	}
	lead(p, branch(p, G_DJNZ, R_OUTER), again);
	add(p, G_END);
}

void program_ring(struct program *p, unsigned messages, bool receiver)
{
	unsigned again;

	p->n = 0;
	two(p, G_MOV, R_ADDRESS, 0); /* the caller's */
	movi(p, 0, 0);
	movi(p, 1, 0);
	movi(p, R_OUTER, messages);
	again = p->n;
	ring_wait(p, receiver);
	two(p, G_MOV, 2, 1);
	with(p, G_ANDI, 2, 4); /* RING_COUNT - 1 */
	with(p, G_ROR, 2, 61);
	two(p, G_ADD, 2, R_ADDRESS);
	two(p, G_MOV, 3, 1);
	two(p, G_MUL, 3, 1);
	if (receiver) {
		memory(p, G_LOAD, 8, 4, 2, RING_SLOTS);
		two(p, G_XOR, 4, 3);
		two(p, G_OR, 0, 4); /* bits that were wrong */
	} else {
		memory(p, G_STORE, 8, 3, 2, RING_SLOTS);
	}
	with(p, G_ADDI, 1, 1);
	memory(p, G_STORE, 8, 1, R_ADDRESS, receiver ? RING_TAIL : RING_HEAD);
	lead(p, branch(p, G_DJNZ, R_OUTER), again);
	movi(p, 4, 0);
	add(p, G_END);
}

/* ---- in words ---- */

static const char *const names[G_OPCODES] = {
	[G_MOVI] = "movi",     [G_MOV] = "mov",     [G_ADD] = "add",         [G_SUB] = "sub",
	[G_XOR] = "xor",       [G_AND] = "and",     [G_OR] = "or",           [G_MUL] = "mul",
	[G_ADDI] = "addi",     [G_ANDI] = "andi",   [G_ROR] = "ror",         [G_LOAD] = "load",
	[G_LOADS] = "loads",   [G_STORE] = "store", [G_VLOAD] = "vload",     [G_VSTORE] = "vstore",
	[G_VADD] = "vadd",     [G_VDUP] = "vdup",   [G_VGET] = "vget",       [G_PUSH] = "push",
	[G_POP] = "pop",       [G_PUSH2] = "push2", [G_POP2] = "pop2",       [G_XADD] = "xadd",
	[G_LADD] = "ladd",     [G_XCHG] = "xchg",   [G_CMPXCHG] = "cmpxchg", [G_FENCE] = "fence",
	[G_TWIN] = "twin",     [G_TWINX] = "twinx", [G_SELF] = "self",       [G_AWAIT] = "await",
	[G_AWAITR] = "awaitr", [G_FLOAD] = "fload", [G_FSTORE] = "fstore",   [G_CMP] = "cmp",
	[G_JCC] = "jcc",       [G_JMP] = "jmp",     [G_JNZ] = "jnz",         [G_DJNZ] = "djnz",
	[G_CALL] = "call",     [G_RET] = "ret",     [G_END] = "end",
};

void program_print(const struct program *p)
{
	for (unsigned n = 0; n < p->n; n++) {
		const struct insn *i = &p->insn[n];

		printf("# %3u: %-8s", n, names[i->op]);
		if (i->size && i->op != G_JCC)
			printf(" %u r%u/r%u, [r%u%+d]", i->size, i->rd, i->rs, i->rb, i->off);
		else
			printf(" r%u, r%u, %#llx", i->rd, i->rs, (unsigned long long)i->imm);
		printf("\n");
	}
}
