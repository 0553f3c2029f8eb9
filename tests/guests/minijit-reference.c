/* SPDX-License-Identifier: MIT */
/* The reference of minijit: what a program does, in C, on copies of the guest's memory that have nothing to do with generated code. Several threads
 * may run it on the same copies; LOCK'd operations are atomic, and aligned words are single. */
#include <string.h>

#include "minijit.h"

struct region regions[REGIONS];

/* Where the copy of guest memory is; NULL if the access faults. */
static void *copy_of(uint64_t va, unsigned size, bool write)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		const struct region *r = &regions[i];

		if (r->va && va >= r->va && va + size <= r->va + PAGE)
			return r->kind == ORDINARY || (r->kind == READ_ONLY && !write) ? r->shadow + (va - r->va)
			                                                               : NULL;
	}
	return NULL;
}

static uint64_t mask(unsigned size)
{
	return size == 8 ? ~UINT64_C(0) : (UINT64_C(1) << 8 * size) - 1;
}

static uint64_t load(const void *p, unsigned size)
{
	uint64_t v = 0;

	if (size == 8 && (uintptr_t)p % 8 == 0)
		return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE);
	memcpy(&v, p, size);
	return v;
}

static void store(void *p, unsigned size, uint64_t v)
{
	if (size == 8 && (uintptr_t)p % 8 == 0)
		__atomic_store_n((uint64_t *)p, v, __ATOMIC_RELEASE);
	else
		memcpy(p, &v, size);
}

static uint64_t sign_extended(uint64_t v, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return (uint64_t)((int64_t)(v << shift) >> shift);
}

static uint64_t rotated(uint64_t v, unsigned by)
{
	return by % 64 ? v >> by % 64 | v << (64 - by % 64) : v;
}

/* What does not access memory. */
static bool arithmetic(const struct insn *i, struct state *s)
{
	uint64_t *rd = &s->r[i->rd % REGS], rs = s->r[i->rs % REGS];

	switch (i->op) {
	case G_MOVI:
	case G_AWAIT:
	case G_AWAITR:
		*rd = i->imm;
		return true;
	case G_MOV:
		*rd = rs;
		return true;
	case G_ADD:
		*rd += rs;
		return true;
	case G_SUB:
		*rd -= rs;
		return true;
	case G_XOR:
		*rd ^= rs;
		return true;
	case G_AND:
		*rd &= rs;
		return true;
	case G_OR:
		*rd |= rs;
		return true;
	case G_MUL:
		*rd *= rs;
		return true;
	case G_ADDI:
		*rd += i->imm;
		return true;
	case G_ANDI:
		*rd &= (UINT64_C(1) << i->imm) - 1;
		return true;
	case G_ROR:
		*rd = rotated(*rd, (unsigned)i->imm);
		return true;
	case G_CMP:
		s->compared = (struct flags){ *rd, rs };
		return true;
	case G_FENCE:
	case G_SELF:
		return true;
	default:
		return false;
	}
}

static bool vector(const struct insn *i, struct state *s)
{
	uint64_t *vd = s->v[i->rd % VECTORS];
	const uint64_t *vs = s->v[i->rs % VECTORS];

	switch (i->op) {
	case G_VADD:
		vd[0] += vs[0];
		vd[1] += vs[1];
		return true;
	case G_VDUP:
		vd[0] = vd[1] = s->r[i->rs];
		return true;
	case G_VGET:
		s->r[i->rd] = vs[0];
		return true;
	case G_VLOAD:
		memcpy(vd, copy_of(s->r[i->rb] + (uint64_t)(int64_t)i->off, 16, false), 16);
		return true;
	case G_VSTORE:
		memcpy(copy_of(s->r[i->rb] + (uint64_t)(int64_t)i->off, 16, true), vs, 16);
		return true;
	default:
		return false;
	}
}

#define LOCKED(bits) \
	static uint64_t locked##bits(unsigned op, uint##bits##_t *p, uint64_t value, uint64_t compare) \
	{ \
		uint##bits##_t old = (uint##bits##_t)compare; \
\
		if (op == G_XCHG) \
			return __atomic_exchange_n(p, (uint##bits##_t)value, __ATOMIC_SEQ_CST); \
		if (op != G_CMPXCHG) \
			return __atomic_fetch_add(p, (uint##bits##_t)value, __ATOMIC_SEQ_CST); \
		__atomic_compare_exchange_n(p, &old, (uint##bits##_t)value, false, __ATOMIC_SEQ_CST, \
		                            __ATOMIC_SEQ_CST); \
		return old; \
	}
LOCKED(8)
LOCKED(16)
LOCKED(32)
LOCKED(64)

uint64_t locked_operation(unsigned op, unsigned size, void *p, uint64_t value, uint64_t compare)
{
	switch (size) {
	case 1:
		return locked8(op, p, value, compare);
	case 2:
		return locked16(op, p, value, compare);
	case 4:
		return locked32(op, p, value, compare);
	default:
		return locked64(op, p, value, compare);
	}
}

static bool locked(const struct insn *i, struct state *s)
{
	uint64_t old, compare = s->r[R_COMPARE] & mask(i->size);
	void *p;

	if (i->op < G_XADD || i->op > G_CMPXCHG)
		return false;
	p = copy_of(s->r[i->rb] + (uint64_t)(int64_t)i->off, i->size, true);
	old = locked_operation(i->op, i->size, p, s->r[i->rs], compare);
	if (i->op == G_CMPXCHG) {
		s->r[R_COMPARE] = old;
		s->r[i->rd] = old == compare;
	} else if (i->op != G_LADD) {
		s->r[i->rs] = old;
	}
	return true;
}

static void push(struct state *s, uint64_t v)
{
	s->r[R_MIRROR] = s->r[R_SP] -= 8;
	store(copy_of(s->r[R_SP], 8, true), 8, v);
}

static uint64_t pop(struct state *s)
{
	uint64_t v = load(copy_of(s->r[R_SP], 8, false), 8);

	s->r[R_MIRROR] = s->r[R_SP] += 8;
	return v;
}

static bool stack(const struct insn *i, struct state *s)
{
	switch (i->op) {
	case G_PUSH2:
		push(s, s->r[i->rd]);
		/* fall through */
	case G_PUSH:
		push(s, s->r[i->rs]);
		return true;
	case G_POP:
		s->r[i->rd] = pop(s);
		return true;
	case G_POP2:
		s->r[i->rd] = pop(s);
		s->r[i->rs] = pop(s);
		return true;
	default:
		return false;
	}
}

static void access_memory(const struct insn *i, struct state *s, uint64_t *faults)
{
	bool write = i->op == G_STORE || i->op == G_FSTORE, may_fault = i->op == G_FLOAD || i->op == G_FSTORE;
	uint64_t va = s->r[may_fault ? R_ADDRESS : i->rb] + (uint64_t)(int64_t)i->off;
	void *p = copy_of(va, i->size, write);

	if (!p && may_fault) {
		++*faults;
		if (!write)
			s->r[i->rd] = fault_value(va);
	} else if (write) {
		store(p, i->size, s->r[i->rs]);
	} else {
		s->r[i->rd] = load(p, i->size);
		if (i->op == G_LOADS)
			s->r[i->rd] = sign_extended(s->r[i->rd], i->size);
	}
}

static void twin(struct state *s)
{
	void *p = copy_of(s->r[R_PRIVATE] + CELL_TWIN, 8, true);

	s->r[R_TWIN]++;
	store(p, 8, load(p, 8) + 1);
	s->r[R_TWIN2] = load(p, 8);
}

/* The A64 condition after SUBS a, b. */
static bool holds(unsigned condition, const struct flags *f)
{
	uint64_t d = f->a - f->b;
	bool n = d >> 63, z = !d, c = f->a >= f->b, v = ((f->a ^ f->b) & (f->a ^ d)) >> 63;
	bool r = condition >> 1 == 0   ? z
	         : condition >> 1 == 1 ? c
	         : condition >> 1 == 2 ? n
	         : condition >> 1 == 3 ? v
	         : condition >> 1 == 4 ? c && !z
	         : condition >> 1 == 5 ? n == v
	                               : n == v && !z;

	return condition & 1 ? !r : r;
}

/* Where it goes on. */
static unsigned branch(const struct insn *i, unsigned pc, struct state *s)
{
	switch (i->op) {
	case G_JCC:
		return holds(i->size, &s->compared) ? (unsigned)i->imm : pc + 1;
	case G_JNZ:
		return s->r[i->rs] ? (unsigned)i->imm : pc + 1;
	case G_DJNZ:
		return --s->r[i->rd] ? (unsigned)i->imm : pc + 1;
	case G_CALL:
		push(s, pc + 1);
		return (unsigned)i->imm;
	case G_RET:
		return (unsigned)pop(s);
	default:
		return (unsigned)i->imm;
	}
}

void reference_run(const struct program *p, struct state *s, uint64_t *faults)
{
	unsigned pc = 0;

	while (p->insn[pc].op != G_END) {
		const struct insn *i = &p->insn[pc];

		if (insn_is_branch(i)) {
			pc = branch(i, pc, s);
			continue;
		}
		pc++;
		if (i->op == G_TWIN || i->op == G_TWINX)
			twin(s);
		else if (!arithmetic(i, s) && !vector(i, s) && !locked(i, s) && !stack(i, s))
			access_memory(i, s, faults);
	}
}
