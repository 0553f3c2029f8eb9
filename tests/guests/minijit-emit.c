/* SPDX-License-Identifier: MIT */
/* The code generator of minijit. What differs by emulator: how a load and a store look, where the guest's registers are, who does LOCK'd operations.
 *
 *   box64   guest registers in x10 to x25; plain accesses with immediate offsets; LOCK'd operations between DMBs, by LSE or by a loop of exclusives
 *   fex     LDAPUR, LDAPR or LDAR and a NOP behind, a NOP and STLUR or STLR; one word for bytes; the stack and vectors plain
 *   qemu    registers in memory; DMB ISHLD before a load, DMB ISH before a store, [Xn, XZR]; LOCK'd operations in C */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minijit-a64.h"
#include "minijit.h"

struct flavour flavour;

static const struct flavour box64 = {
	.emulator = BOX64,
	.host = { 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25 },
	.state = 0,
	.temp = { 1, 2, 3, 4, 5, 6 },
	.live = { 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25 },
	.nlive = 16,
};

/* x0 to x3 are what FEX has for the moment: in a profile of its own they may be the preload's. */
static const struct flavour fex = {
	.emulator = FEX,
	.host = { 4, 7, 5, 6, 10, 11, 12, 13, 14, 15, 16, 17, 8, 19, 29, 9 },
	.vector = 16,
	.state = 28,
	.temp = { 20, 21, 22, 23, 24, 30 },
	.live = { 4, 7, 5, 6, 10, 11, 12, 13, 14, 15, 16, 17, 8, 19, 29, 9 },
	.nlive = 16,
};
static const struct flavour fex_generic = {
	.emulator = FEX,
	.host = { 4, 7, 5, 6, 10, 11, 12, 13, 14, 15, 16, 17, 20, 19, 29, 21 },
	.vector = 16,
	.state = 28,
	.temp = { 0, 1, 2, 3, 22, 23 },
	.live = { 4, 7, 5, 6, 10, 11, 12, 13, 14, 15, 16, 17, 20, 19, 29, 21 },
	.nlive = 16,
};

static const struct flavour qemu = {
	.emulator = QEMU,
	.host = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 },
	.state = 19,
	.temp = { 20, 21, 22, 23, 24, 25 },
	.live = { 20, 21, 22, 23 },
	.nlive = 4,
};

bool flavour_set(const char *name, bool own)
{
	const char *variant = strchr(name, '-');

	if (!strncmp(name, "box64", 5))
		flavour = box64;
	else if (!strncmp(name, "fex", 3))
		flavour = own ? fex : fex_generic;
	else if (!strcmp(name, "qemu"))
		flavour = qemu;
	else
		return false;
	if (!variant)
		return true;
	flavour.llsc = !strcmp(variant, "-llsc");
	flavour.rcpc = !strcmp(variant, "-ldapur") ? LDAPUR : !strcmp(variant, "-ldar") ? LDAR : LDAPR;
	flavour.vector_tso = !strcmp(variant, "-vectors");
	return flavour.llsc == (flavour.emulator == BOX64) &&
	       (flavour.llsc || flavour.rcpc || flavour.vector_tso || !strcmp(variant, "-ldapr"));
}

/* ---- words ---- */

struct phase {
	int8_t twin, cell, sp;
};

struct emitter {
	struct slot *slot;
	const struct program *p;
	unsigned insn;
	uint8_t flags; /* of the words to come */
	struct phase now, next;
	bool at_access; /* now becomes next when the access is done, or else when the result is in its place */
	bool pending;
	unsigned block; /* first exit of this block */
	bool leader[MAX_INSNS];
};

static void put(struct emitter *e, uint32_t word)
{
	struct slot *s = e->slot;

	if (s->used == SLOT_WORDS) {
		fprintf(stderr, "minijit: the program is too long for its code memory\n");
		abort();
	}
	*(volatile uint32_t *)&s->write[s->used] = word;
	s->word[s->used++] = (struct word){ (uint16_t)e->insn, e->flags, e->now.twin, e->now.cell, e->now.sp };
	e->flags &= (uint8_t) ~(WORD_START | WORD_RETURN);
}

/* What the word that was put last has changed. */
static void commit(struct emitter *e)
{
	if (e->pending)
		e->now = e->next;
	e->pending = false;
}

static void changes(struct emitter *e, int twin, int cell, int sp, bool at_access)
{
	e->next = (struct phase){ (int8_t)twin, (int8_t)cell, (int8_t)sp };
	e->at_access = at_access;
	e->pending = true;
}

static bool mapped(void)
{
	return flavour.emulator != QEMU;
}

enum { STATE_R = offsetof(struct state, r), STATE_V = offsetof(struct state, v) };

static void state_access(struct emitter *e, uint32_t op, unsigned reg, size_t offset)
{
	put(e, LOG2(8) | op | (uint32_t)(offset / 8) << 10 | (uint32_t)flavour.state << 5 | reg);
}

/* A register's value: where it is, or in the n-th temporary. */
static unsigned use(struct emitter *e, unsigned guest, unsigned n)
{
	if (mapped())
		return (unsigned)flavour.host[guest];
	state_access(e, LDR_UIMM, flavour.temp[n], STATE_R + 8 * guest);
	return flavour.temp[n];
}

/* Where to put a new value, and that it is there. */
static unsigned target(unsigned guest, unsigned n)
{
	return mapped() ? (unsigned)flavour.host[guest] : flavour.temp[n];
}

static void done(struct emitter *e, unsigned guest, unsigned reg)
{
	if (!mapped())
		state_access(e, STR_UIMM, reg, STATE_R + 8 * guest);
	commit(e);
}

static void move(struct emitter *e, unsigned rd, unsigned rs)
{
	put(e, a64_3(ORR_REG, rd, XZR, rs));
}

static void constant(struct emitter *e, unsigned rd, uint64_t v)
{
	put(e, MOVZ | (uint32_t)(v & 0xffff) << 5 | rd);
	for (unsigned hw = 1; hw < 4; hw++)
		if (v >> 16 * hw & 0xffff)
			put(e, MOVK | hw << 21 | (uint32_t)(v >> 16 * hw & 0xffff) << 5 | rd);
}

static void add_immediate(struct emitter *e, unsigned rd, unsigned rn, int64_t imm)
{
	put(e, a64_imm12(imm < 0 ? SUB_IMM : ADD_IMM, rd, rn, (unsigned)(imm < 0 ? -imm : imm)));
}

/* ---- accesses ---- */

/* Some word that accesses guest memory. */
static void put_access(struct emitter *e, uint32_t word, bool may_fault, bool result)
{
	if (may_fault)
		e->flags |= WORD_MAY_FAULT;
	put(e, word);
	e->flags &= (uint8_t)~WORD_MAY_FAULT;
	if (e->at_access || (result && mapped()))
		commit(e);
}

/* rn + off in a register. */
static unsigned address(struct emitter *e, unsigned rn, int off)
{
	if (!off)
		return rn;
	add_immediate(e, flavour.temp[4], rn, off);
	return flavour.temp[4];
}

struct access {
	unsigned size, rt, rn;
	int off;
	bool load, is_signed, may_fault;
};

static bool fits9(int off)
{
	return off >= -256 && off < 256;
}

static void plain(struct emitter *e, const struct access *a)
{
	uint32_t scaled = a->load ? a->is_signed ? LDRS_UIMM : LDR_UIMM : STR_UIMM;
	uint32_t unscaled = a->load ? a->is_signed ? LDURS : LDUR : STUR;
	uint32_t word;

	if (a->off >= 0 && a->off % (int)a->size == 0)
		word = scaled | (uint32_t)a->off / a->size << 10 | a->rn << 5 | a->rt;
	else if (fits9(a->off))
		word = a64_imm9(unscaled, a->rt, a->rn, a->off);
	else
		word = a64_rt_rn(scaled, a->rt, address(e, a->rn, a->off));
	put_access(e, LOG2(a->size) | word, a->may_fault, a->load);
}

/* FEX: acquire and release, with room for the barrier that its SIGBUS handler may need. */
static void two_slots(struct emitter *e, const struct access *a)
{
	uint32_t word;
	unsigned rn = a->rn;

	if (flavour.rcpc == LDAPUR && fits9(a->off)) {
		word = a64_imm9(a->load ? LDAPUR_ : STLUR_, a->rt, rn, a->off);
	} else {
		rn = address(e, rn, a->off);
		word = a64_rt_rn(!a->load ? STLR_ : flavour.rcpc == LDAR ? LDAR_ : LDAPR_, a->rt, rn);
	}
	if (!a->load && a->size > 1)
		put(e, NOP);
	put_access(e, LOG2(a->size) | word, a->may_fault, a->load);
	if (a->load && a->size > 1)
		put(e, NOP);
	if (a->is_signed)
		put(e, UINT32_C(0x93400000) | (8 * a->size - 1) << 10 | a->rt << 5 | a->rt); /* SBFM: sign-extend */
}

static void by_register(struct emitter *e, const struct access *a)
{
	unsigned rn = address(e, a->rn, a->off);

	put(e, a->load ? DMB_ISHLD : DMB_ISH);
	put_access(e, LOG2(a->size) | a64_rs(a->load ? a->is_signed ? LDRS_REG : LDR_REG : STR_REG, XZR, a->rt, rn),
	           a->may_fault, a->load);
}

static void access_memory(struct emitter *e, const struct access *a)
{
	if (flavour.emulator == QEMU)
		by_register(e, a);
	else if (flavour.emulator == FEX && a->rn != (unsigned)flavour.host[R_SP])
		two_slots(e, a);
	else
		plain(e, a);
}

static void load(struct emitter *e, unsigned size, unsigned rt, unsigned rn, int off)
{
	access_memory(e, &(struct access){ .size = size, .rt = rt, .rn = rn, .off = off, .load = true });
}

static void store(struct emitter *e, unsigned size, unsigned rt, unsigned rn, int off)
{
	access_memory(e, &(struct access){ .size = size, .rt = rt, .rn = rn, .off = off });
}

static void vector_access(struct emitter *e, bool is_load, unsigned v, unsigned rn, int off)
{
	uint32_t word;

	if (flavour.emulator == QEMU) {
		unsigned at = STATE_V + 16 * v;

		if (!is_load)
			put(e, a64_pair(LDP, flavour.temp[2], flavour.temp[3], flavour.state, (int)at));
		rn = address(e, rn, off);
		put(e, is_load ? DMB_ISHLD : DMB_ISH);
		put_access(e, a64_pair(is_load ? LDP : STP, flavour.temp[2], flavour.temp[3], rn, 0), false, false);
		if (is_load)
			put(e, a64_pair(STP, flavour.temp[2], flavour.temp[3], flavour.state, (int)at));
		return;
	}
	v += flavour.vector;
	if (off >= 0 && off % 16 == 0)
		word = a64_imm12(is_load ? LDR_Q : STR_Q, v, rn, (unsigned)off / 16);
	else if (fits9(off))
		word = a64_imm9(is_load ? LDUR_Q : STUR_Q, v, rn, off);
	else
		word = a64_rt_rn(is_load ? LDR_Q : STR_Q, v, address(e, rn, off));
	if (flavour.vector_tso && !is_load)
		put(e, DMB_ISH);
	put_access(e, word, false, false);
	if (flavour.vector_tso && is_load)
		put(e, DMB_ISHLD);
}

/* ---- instructions ---- */

static uint32_t alu_word(enum opcode op)
{
	static const uint32_t words[] = {
		[G_ADD] = ADD_REG, [G_SUB] = SUB_REG, [G_XOR] = EOR_REG,
		[G_AND] = AND_REG, [G_OR] = ORR_REG,  [G_MUL] = MADD | XZR << 10,
	};

	return words[op];
}

static void emit_alu(struct emitter *e, const struct insn *i)
{
	unsigned rd, rs, to = target(i->rd, 0);

	switch (i->op) {
	case G_MOVI:
		constant(e, to, i->imm);
		break;
	case G_MOV:
		rs = use(e, i->rs, 1);
		move(e, to, rs);
		break;
	case G_ADDI:
		rd = use(e, i->rd, 0);
		add_immediate(e, to, rd, (int64_t)i->imm);
		break;
	case G_ANDI:
		rd = use(e, i->rd, 0);
		put(e, UBFM | (uint32_t)(i->imm - 1) << 10 | rd << 5 | to);
		break;
	case G_ROR:
		rd = use(e, i->rd, 0);
		put(e, EXTR | rd << 16 | (uint32_t)i->imm << 10 | rd << 5 | to);
		break;
	default:
		rd = use(e, i->rd, 0);
		rs = use(e, i->rs, 1);
		put(e, a64_3(alu_word(i->op), to, rd, rs));
	}
	done(e, i->rd, to);
}

static void emit_compare(struct emitter *e, const struct insn *i)
{
	unsigned a = use(e, i->rd, 0), b = use(e, i->rs, 1);

	if (mapped()) {
		put(e, a64_3(SUBS_REG, XZR, a, b));
		return;
	}
	state_access(e, STR_UIMM, a, offsetof(struct state, compared.a));
	state_access(e, STR_UIMM, b, offsetof(struct state, compared.b));
}

static void emit_access(struct emitter *e, const struct insn *i)
{
	bool may_fault = i->op == G_FLOAD || i->op == G_FSTORE, is_load = i->op != G_STORE && i->op != G_FSTORE;
	struct access a = {
		.size = i->size, .off = i->off, .load = is_load, .is_signed = i->op == G_LOADS, .may_fault = may_fault
	};

	a.rn = use(e, may_fault ? R_ADDRESS : i->rb, 0);
	a.rt = is_load ? target(i->rd, 1) : use(e, i->rs, 1);
	if (may_fault) {
		for (unsigned n = 0; n < flavour.nlive; n += 2)
			put(e, a64_pair(STP, flavour.live[n], flavour.live[n + 1], flavour.state,
			                (int)(offsetof(struct state, snapshot) + 8 * n)));
	}
	access_memory(e, &a);
	if (is_load)
		done(e, i->rd, a.rt);
}

static void emit_vector(struct emitter *e, const struct insn *i)
{
	unsigned vd = i->rd + flavour.vector, vs = i->rs + flavour.vector, t0 = flavour.temp[0], t1 = flavour.temp[1];

	switch (i->op) {
	case G_VLOAD:
	case G_VSTORE:
		vector_access(e, i->op == G_VLOAD, i->rd, use(e, i->rb, 0), i->off);
		break;
	case G_VADD:
		if (mapped()) {
			put(e, a64_3(ADD_2D, vd, vd, vs));
			break;
		}
		for (unsigned n = 0; n < 2; n++) {
			state_access(e, LDR_UIMM, t0, STATE_V + 16 * i->rd + 8 * n);
			state_access(e, LDR_UIMM, t1, STATE_V + 16 * i->rs + 8 * n);
			put(e, a64_3(ADD_REG, t0, t0, t1));
			/* vd and vs may be the same */
			state_access(e, STR_UIMM, t0, STATE_V + 16 * i->rd + 8 * n);
		}
		break;
	case G_VDUP:
		if (mapped()) {
			put(e, DUP_2D | (uint32_t)flavour.host[i->rs] << 5 | vd);
			break;
		}
		use(e, i->rs, 0);
		put(e, a64_pair(STP, t0, t0, flavour.state, (int)(STATE_V + 16 * i->rd)));
		break;
	default:
		if (mapped()) {
			put(e, UMOV_D | vs << 5 | (uint32_t)flavour.host[i->rd]);
			break;
		}
		state_access(e, LDR_UIMM, t0, STATE_V + 16 * i->rs);
		done(e, i->rd, t0);
	}
}

/* R_SP changes by the access, or after it; then R_MIRROR follows. */
static void mirror(struct emitter *e, int by)
{
	unsigned r = use(e, R_MIRROR, 0);

	changes(e, 0, 0, 0, false);
	add_immediate(e, target(R_MIRROR, 0), r, by);
	done(e, R_MIRROR, target(R_MIRROR, 0));
}

static void push_unmapped(struct emitter *e, unsigned by, unsigned low, unsigned high)
{
	unsigned sp = use(e, R_SP, 0), t = flavour.temp[4];

	add_immediate(e, t, sp, -(int)by);
	put(e, DMB_ISH);
	put_access(e, by == 8 ? LOG2(8) | a64_rs(STR_REG, XZR, low, t) : a64_pair(STP, low, high, t, 0), false, false);
	done(e, R_SP, t);
}

static void emit_push(struct emitter *e, unsigned by, unsigned low, unsigned high)
{
	changes(e, 0, 0, -(int)by, false);
	if (mapped()) {
		unsigned sp = (unsigned)flavour.host[R_SP];

		put(e, by == 8 ? a64_imm9(LOG2(8) | STR_PRE, low, sp, -8) : a64_pair(STP_PRE, low, high, sp, -16));
		commit(e);
	} else {
		push_unmapped(e, by, low, high);
	}
	mirror(e, -(int)by);
}

static void emit_pop(struct emitter *e, unsigned by, unsigned low, unsigned high)
{
	changes(e, 0, 0, (int)by, false);
	if (mapped()) {
		unsigned sp = (unsigned)flavour.host[R_SP];

		put(e, by == 8 ? a64_imm9(LOG2(8) | LDR_POST, low, sp, 8) : a64_pair(LDP_POST, low, high, sp, 16));
		commit(e);
	} else {
		unsigned sp = use(e, R_SP, 0), t = flavour.temp[4];

		put(e, DMB_ISHLD);
		put(e, by == 8 ? LOG2(8) | a64_rs(LDR_REG, XZR, low, sp) : a64_pair(LDP, low, high, sp, 0));
		add_immediate(e, t, sp, (int)by);
		done(e, R_SP, t);
	}
	mirror(e, (int)by);
}

static void emit_stack(struct emitter *e, const struct insn *i)
{
	unsigned low, high;

	switch (i->op) {
	case G_PUSH:
		emit_push(e, 8, use(e, i->rs, 2), XZR);
		break;
	case G_PUSH2:
		low = use(e, i->rs, 2);
		high = use(e, i->rd, 3);
		emit_push(e, 16, low, high);
		break;
	default:
		low = target(i->rd, 2);
		high = target(i->rs, 3);
		emit_pop(e, i->op == G_POP ? 8 : 16, low, high);
		done(e, i->rd, low);
		if (i->op == G_POP2)
			done(e, i->rs, high);
	}
}

/* ---- LOCK'd operations ---- */

static void fence_lock(struct emitter *e)
{
	if (flavour.emulator == BOX64)
		put(e, DMB_ISH);
}

static void masked(struct emitter *e, unsigned rd, unsigned rn, unsigned size)
{
	put(e, UBFM | (8 * size - 1) << 10 | rn << 5 | rd);
}

/* old = what was at [at] */
static void compare_and_swap(struct emitter *e, unsigned size, unsigned old, unsigned value, unsigned at)
{
	unsigned wanted = flavour.temp[3], status = flavour.temp[5];

	if (!flavour.llsc) {
		move(e, old, (unsigned)flavour.host[R_COMPARE]);
		put_access(e, LOG2(size) | a64_rs(CASAL, old, value, at), false, false);
		return;
	}
	masked(e, wanted, (unsigned)flavour.host[R_COMPARE], size);
	put(e, LOG2(size) | a64_rt_rn(LDAXR, old, at));
	put(e, a64_3(SUBS_REG, XZR, old, wanted));
	put(e, a64_bcond(1, 3)); /* NE */
	put(e, LOG2(size) | a64_rs(STLXR, status, value, at));
	put(e, a64_cbnz(status, -4) & ~(UINT32_C(1) << 31));
}

/* By an instruction. Returns where the old value is. */
static unsigned locked_inline(struct emitter *e, enum opcode op, unsigned size, unsigned value, unsigned at)
{
	unsigned old = flavour.temp[2];

	fence_lock(e);
	if (op == G_CMPXCHG)
		compare_and_swap(e, size, old, value, at);
	else if (op == G_XADD)
		put_access(e, LOG2(size) | a64_rs(LDADDAL, value, old, at), false, false);
	else if (op == G_LADD) /* STADDL, as box64 has it where the flags are dead; FEX has a register there */
		put_access(e,
		           LOG2(size) | a64_rs(flavour.emulator == BOX64 ? LDADDL : LDADDAL, value,
		                               flavour.emulator == BOX64 ? XZR : old, at),
		           false, false);
	else
		put_access(e, LOG2(size) | a64_rs(SWPAL, value, old, at), false, false);
	fence_lock(e);
	return old;
}

static uint64_t helper(uint64_t what, uint64_t va, uint64_t value, uint64_t compare)
{
	uint64_t here = (uint64_t)__builtin_extract_return_addr(__builtin_return_address(0));
	struct slot *slot = atomic_load_explicit(&self->running, memory_order_relaxed);
	long n = emit_word_at(slot, here);

	if (n < 0 || !(slot->word[n].flags & WORD_RETURN))
		wrong("a helper is called from %#llx, where there is no call", (unsigned long long)here);
	return locked_operation((unsigned)what & 255, (unsigned)(what >> 8), (void *)(uintptr_t)va, value, compare);
}

static unsigned locked_helper(struct emitter *e, enum opcode op, unsigned size, unsigned value, unsigned at)
{
	use(e, R_COMPARE, 3);
	masked(e, 3, flavour.temp[3], size);
	move(e, 2, value);
	move(e, 1, at);
	constant(e, 0, (uint64_t)op | size << 8);
	constant(e, 16, (uint64_t)(uintptr_t)helper);
	put(e, BLR | 16 << 5);
	e->flags |= WORD_RETURN;
	if (e->at_access)
		commit(e);
	move(e, flavour.temp[2], 0);
	return flavour.temp[2];
}

static unsigned locked(struct emitter *e, enum opcode op, unsigned size, unsigned value, unsigned at)
{
	return mapped() ? locked_inline(e, op, size, value, at) : locked_helper(e, op, size, value, at);
}

static void emit_locked(struct emitter *e, const struct insn *i)
{
	unsigned value = use(e, i->rs, 1), base = use(e, i->rb, 0), old, t = flavour.temp[3], r;

	add_immediate(e, flavour.temp[4], base, i->off);
	old = locked(e, i->op, i->size, value, flavour.temp[4]);
	if (i->op == G_LADD)
		return;
	if (i->op != G_CMPXCHG) {
		masked(e, target(i->rs, 1), old, i->size);
		done(e, i->rs, target(i->rs, 1));
		return;
	}
	/* 1 if old is what was wanted, without flags: CLZ of 0 is 64 */
	r = use(e, R_COMPARE, 0);
	masked(e, t, r, i->size);
	masked(e, old, old, i->size);
	put(e, a64_3(EOR_REG, t, t, old));
	put(e, CLZ | t << 5 | t);
	put(e, UBFM | 6 << 16 | 63 << 10 | t << 5 | t);
	move(e, target(R_COMPARE, 0), old);
	done(e, R_COMPARE, target(R_COMPARE, 0));
	move(e, target(i->rd, 1), t);
	done(e, i->rd, target(i->rd, 1));
}

/* ---- what the handlers look at ---- */

static void emit_twin(struct emitter *e, bool atomic)
{
	unsigned twin = use(e, R_TWIN, 0), base, t = flavour.temp[2];

	changes(e, 1, 0, 0, false);
	add_immediate(e, target(R_TWIN, 0), twin, 1);
	done(e, R_TWIN, target(R_TWIN, 0));
	twin = use(e, R_TWIN, 0);
	base = use(e, R_PRIVATE, 1);
	if (atomic) {
		put(e, a64_imm12(ADD_IMM, flavour.temp[4], base, CELL_TWIN));
		constant(e, flavour.temp[1], 1);
		changes(e, 1, 1, 0, true);
		t = locked(e, G_XADD, 8, flavour.temp[1], flavour.temp[4]);
		changes(e, 0, 0, 0, false);
		add_immediate(e, target(R_TWIN2, 0), t, 1);
	} else {
		changes(e, 1, 1, 0, true);
		store(e, 8, twin, base, CELL_TWIN);
		changes(e, 0, 0, 0, false);
		load(e, 8, target(R_TWIN2, 0), base, CELL_TWIN);
	}
	done(e, R_TWIN2, target(R_TWIN2, 0));
}

static void emit_self(struct emitter *e)
{
	unsigned t0 = flavour.temp[0], t1 = flavour.temp[1];
	uint64_t here = (uint64_t)(uintptr_t)&e->slot->code[e->slot->used];

	put(e, ADR | t0);
	constant(e, t1, here);
	put(e, a64_3(EOR_REG, t0, t0, t1));
	state_access(e, LDR_UIMM, t1, offsetof(struct state, wrong_pc));
	put(e, a64_3(ORR_REG, t1, t1, t0));
	state_access(e, STR_UIMM, t1, offsetof(struct state, wrong_pc));
}

static void emit_await(struct emitter *e, const struct insn *i)
{
	bool by_register = i->op == G_AWAITR;
	unsigned to = target(i->rd, 0), begin;

	if (by_register) {
		constant(e, to, 0);
		done(e, i->rd, to);
	}
	e->flags |= by_register ? WORD_AWAITR : WORD_AWAIT;
	begin = e->slot->used;
	load(e, 8, flavour.temp[5], use(e, R_PRIVATE, 1), CELL_AWAIT);
	if (by_register)
		to = use(e, i->rd, 0);
	put(e, by_register ? a64_cbz(to, (int)begin - (int)e->slot->used) : a64_b((int)begin - (int)e->slot->used));
	e->flags &= (uint8_t) ~(WORD_AWAITR | WORD_AWAIT);
	to = target(i->rd, 0);
	constant(e, to, i->imm);
	done(e, i->rd, to);
}

/* ---- branches and blocks ---- */

static void emit_exit(struct emitter *e, unsigned to)
{
	struct slot *s = e->slot;

	if (s->exits == MAX_EXITS)
		abort();
	s->exit[s->exits++] = (struct exit){ .word = s->used, .target = (uint16_t)to };
	put(e, a64_b(0));
}

/* Behind a block: where its exits lead until they are linked. */
static void end_block(struct emitter *e)
{
	struct slot *s = e->slot;

	for (unsigned n = e->block; n < s->exits; n++) {
		s->exit[n].stub = s->used;
		*(volatile uint32_t *)&s->write[s->exit[n].word] = a64_b((int)(s->used - s->exit[n].word));
		put(e, MOVZ | n << 5 | flavour.temp[0]);
		put(e, a64_b((int)s->leave - (int)s->used));
	}
	e->block = s->exits;
}

static void emit_return(struct emitter *e)
{
	unsigned t0 = flavour.temp[2], t1 = flavour.temp[1];

	emit_pop(e, 8, t0, XZR);
	state_access(e, LDR_UIMM, t1, offsetof(struct state, table));
	put(e, a64_3(ADD_REG, t1, t1, t0) | 3 << 10); /* LSL #3 */
	put(e, LOG2(8) | a64_rt_rn(LDR_UIMM, t1, t1));
	put(e, BR | t1 << 5);
}

static void emit_branch(struct emitter *e, const struct insn *i)
{
	unsigned to = (unsigned)i->imm, r;

	switch (i->op) {
	case G_JCC:
		if (!mapped()) {
			state_access(e, LDR_UIMM, flavour.temp[0], offsetof(struct state, compared.a));
			state_access(e, LDR_UIMM, flavour.temp[1], offsetof(struct state, compared.b));
			put(e, a64_3(SUBS_REG, XZR, flavour.temp[0], flavour.temp[1]));
		}
		put(e, a64_bcond(i->size, 2));
		emit_exit(e, e->insn + 1);
		break;
	case G_DJNZ:
		r = use(e, i->rd, 0);
		add_immediate(e, r, r, -1);
		done(e, i->rd, r);
		put(e, a64_cbnz(r, 2));
		emit_exit(e, e->insn + 1);
		break;
	case G_JNZ:
		put(e, a64_cbnz(use(e, i->rs, 0), 2));
		emit_exit(e, e->insn + 1);
		break;
	case G_CALL:
		constant(e, flavour.temp[2], e->insn + 1);
		emit_push(e, 8, flavour.temp[2], XZR);
		break;
	case G_RET:
		emit_return(e);
		end_block(e);
		return;
	case G_END:
		put(e, MOVZ | (uint32_t)EXIT_END << 5 | flavour.temp[0]);
		put(e, a64_b((int)e->slot->leave - (int)e->slot->used));
		end_block(e);
		return;
	default:
		break;
	}
	emit_exit(e, to);
	end_block(e);
}

static void emit_fence(struct emitter *e, const struct insn *i)
{
	static const uint32_t fences[] = { DMB_SY, DMB_LD, DMB_ST };

	put(e, i->imm == 0 && flavour.emulator != FEX ? DMB_ISH : fences[i->imm]);
}

static void emit_insn(struct emitter *e, const struct insn *i)
{
	switch (i->op) {
	case G_LOAD:
	case G_LOADS:
	case G_STORE:
	case G_FLOAD:
	case G_FSTORE:
		emit_access(e, i);
		break;
	case G_VLOAD:
	case G_VSTORE:
	case G_VADD:
	case G_VDUP:
	case G_VGET:
		emit_vector(e, i);
		break;
	case G_PUSH:
	case G_POP:
	case G_PUSH2:
	case G_POP2:
		emit_stack(e, i);
		break;
	case G_XADD:
	case G_LADD:
	case G_XCHG:
	case G_CMPXCHG:
		emit_locked(e, i);
		break;
	case G_FENCE:
		emit_fence(e, i);
		break;
	case G_TWIN:
	case G_TWINX:
		emit_twin(e, i->op == G_TWINX);
		break;
	case G_SELF:
		emit_self(e);
		break;
	case G_AWAIT:
	case G_AWAITR:
		emit_await(e, i);
		break;
	case G_CMP:
		emit_compare(e, i);
		break;
	default:
		if (insn_is_branch(i))
			emit_branch(e, i);
		else
			emit_alu(e, i);
	}
}

/* ---- to and from the emulator ---- */

static void registers(struct emitter *e, bool in)
{
	for (unsigned n = 0; mapped() && n < VECTORS; n++)
		put(e, a64_imm12(in ? LDR_Q : STR_Q, flavour.vector + n, flavour.state, STATE_V / 16 + n));
	for (unsigned n = 0; mapped() && n < REGS; n++)
		state_access(e, in ? LDR_UIMM : STR_UIMM, (unsigned)flavour.host[n], STATE_R + 8 * n);
}

/* x0 = state, x1 = where to go. */
static void emit_entrance(struct emitter *e)
{
	struct slot *s = e->slot;

	s->enter = s->used;
	put(e, a64_pair(STP_PRE, 29, 30, SP, -96));
	for (unsigned n = 0; n < 5; n++)
		put(e, a64_pair(STP, 19 + 2 * n, 20 + 2 * n, SP, (int)(16 + 16 * n)));
	if (flavour.state)
		move(e, flavour.state, 0);
	move(e, 3, 1);
	state_access(e, LDR_UIMM, 2, offsetof(struct state, nzcv));
	put(e, MSR_NZCV | 2);
	registers(e, true);
	put(e, BR | 3 << 5);
	s->leave = s->used;
	state_access(e, STR_UIMM, flavour.temp[0], offsetof(struct state, exit));
	put(e, MRS_NZCV | flavour.temp[1]);
	state_access(e, STR_UIMM, flavour.temp[1], offsetof(struct state, nzcv));
	registers(e, false);
	for (unsigned n = 0; n < 5; n++)
		put(e, a64_pair(LDP, 19 + 2 * n, 20 + 2 * n, SP, (int)(16 + 16 * n)));
	put(e, a64_pair(LDP_POST, 29, 30, SP, 96));
	put(e, RET);
}

static void clean(struct slot *s, unsigned from, unsigned to)
{
	__builtin___clear_cache((char *)&s->write[from], (char *)&s->write[to]);
	if (s->code != s->write)
		__builtin___clear_cache((char *)&s->code[from], (char *)&s->code[to]);
}

static void find_leaders(struct emitter *e)
{
	const struct program *p = e->p;

	for (unsigned n = 0; n < p->n; n++) {
		if (!insn_is_branch(&p->insn[n]))
			continue;
		if (n + 1 < p->n)
			e->leader[n + 1] = true;
		if (p->insn[n].op != G_RET && p->insn[n].op != G_END)
			e->leader[p->insn[n].imm] = true;
	}
}

void emit_program(struct slot *slot, const struct program *p)
{
	struct emitter e = { .slot = slot, .p = p };

	slot->used = slot->exits = 0;
	emit_entrance(&e);
	find_leaders(&e);
	for (unsigned n = 0; n < p->n; n++) {
		if (n && e.leader[n] && !insn_is_branch(&p->insn[n - 1])) {
			emit_exit(&e, n);
			end_block(&e);
		}
		e.insn = n;
		e.flags = WORD_GUEST | WORD_START;
		slot->at[n] = slot->used;
		slot->table[n] = &slot->code[slot->used];
		emit_insn(&e, &p->insn[n]);
	}
	clean(slot, 0, slot->used);
}

void emit_enter(const struct slot *slot, struct state *state, const void *target_code)
{
	void (*enter)(struct state *, const void *);
	const void *at = &slot->code[slot->enter];

	state->table = slot->table;
	memcpy(&enter, &at, sizeof(enter));
	enter(state, target_code);
}

void emit_link(struct slot *slot, unsigned number, bool linked)
{
	struct exit *x = &slot->exit[number];
	uint32_t to = linked ? slot->at[x->target] : x->stub;

	/* B to B: the one that another thread finds is the old one or the new one, and both are right. */
	__atomic_store_n(&slot->write[x->word], a64_b((int)to - (int)x->word), __ATOMIC_RELEASE);
	clean(slot, x->word, x->word + 1);
}

long emit_word_at(const struct slot *slot, uint64_t pc)
{
	uint64_t offset = slot ? pc - (uint64_t)(uintptr_t)slot->code : ~UINT64_C(0);

	return offset < 4 * (uint64_t)slot->used && offset % 4 == 0 ? (long)(offset / 4) : -1;
}
