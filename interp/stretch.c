/* SPDX-License-Identifier: MIT */
/* Encodes a stretch. Pure C, builds on any host (I5).
 *
 * The instructions taken over stand in the order in which they were emitted. A scratch register may hold a base with
 * this thread's own tag, from the IRG of one access to the next access by the same base: until the base is written,
 * until the scratch register is needed, or until code is reached on another way that does not bring it. What a loop brings
 * back to its head is known when it has been encoded: then it is encoded again with that at its head, and in front of
 * the head stand the IRGs for what the way from above lacks. A thread's own tag is the same all its life (owner.h).
 *
 * Or a scratch register holds the tag alone, in its place in a pointer: then an access without an offset of its own adds it as
 * its register offset, and needs no IRG: ldr x1, [x10, c]. (The tag is added to bits 59:56 of the guest's address: they are
 * zero, or the emitted access would fail its check. An x86 address with such bits is not canonical.)
 *
 *   entrance ──► irg c, base (for each base held there) ─► b ┐
 *                                                           ▼
 *   emitted: ldr x1, [x10, #8]    irg c, x10;  ldr x1, [c, #8]
 *            add x1, x1, #1       add x1, x1, #1
 *            str x1, [x10, #8]    str x1, [c, #8]
 *            cbnz x1, label       cbnz x1, label             in the stretch, or by way of B behind it
 *            ret                  b (the RET)                what is not taken over stays where it was
 */
#include "stretch.h"

#include <stddef.h>
#include <string.h>

#include "branch.h"
#include "decode.h"

/* What a word is to a stretch. */
enum kind {
	STAYS,   /* is not taken over */
	COPIED,  /* does the same at any address */
	ACCESS,  /* the same, and accesses memory */
	BRANCH,  /* conditional, with a target near by */
	JUMP,    /* B */
	LITERAL, /* load of a literal into a general-purpose register */
};

#define DMB_ISH UINT32_C(0xd5033bbf)
#define AND_TAG UINT32_C(0x92480c00) /* AND X0, X0, #0x0f00000000000000 */
#define GROUP(word) ((word) >> 25 & 15)

static int64_t signed_field(uint32_t word, unsigned low, unsigned width)
{
	return (int64_t)((uint64_t)word << (64 - low - width)) >> (64 - width);
}

/* NOP; DMB; CFINV, XAFLAG, AXFLAG; MRS and MSR of NZCV, FPCR, FPSR. */
static bool is_plain_system(uint32_t word)
{
	uint32_t reg = word & 0xffdfffe0;

	return word == 0xd503201f || (word & 0xfffff0ff) == 0xd50330bf || (word & 0xffffff9f) == 0xd500401f ||
	       reg == 0xd51b4200 || reg == 0xd51b4400 || reg == 0xd51b4420;
}

static enum kind kind_of_access(uint32_t word, struct tagtso_memop *op)
{
	if (!tagtso_decode(word, op))
		return STAYS;
	switch (op->cls) {
	case TAGTSO_LOAD:
		if (op->addressing == TAGTSO_ADDR_LITERAL)
			return (op->flags & TAGTSO_F_VECTOR) || op->rt == 31 ? STAYS : LITERAL;
		return ACCESS;
	case TAGTSO_STORE:
	case TAGTSO_LOAD_PAIR:
	case TAGTSO_STORE_PAIR:
	case TAGTSO_LSE:
	case TAGTSO_CAS:
	case TAGTSO_CASP:
	case TAGTSO_LOAD_LANE:
	case TAGTSO_STORE_LANE:
	case TAGTSO_LOAD_DUP:
	case TAGTSO_LOAD_MULTI:
	case TAGTSO_STORE_MULTI:
		return ACCESS;
	default:
		return STAYS; /* an exclusive's loop is interpreted where it was emitted */
	}
}

/* Fills *op for what is in the space of loads and stores. */
static enum kind kind_of(uint32_t word, struct tagtso_memop *op)
{
	switch (GROUP(word)) {
	case 8:
	case 9:
		return (word & 0x1f000000) == 0x10000000 ? STAYS : COPIED; /* ADR, ADRP */
	case 10:
	case 11:
		if (tagtso_branch_is_conditional(word))
			return BRANCH;
		if (tagtso_form_is_branch(word))
			return JUMP;
		return is_plain_system(word) ? COPIED : STAYS;
	case 4:
	case 6:
	case 12:
	case 14:
		return kind_of_access(word, op);
	case 5:
	case 13:
	case 7:
	case 15:
		return COPIED; /* data processing on registers */
	default:
		return STAYS;
	}
}

enum tagtso_flow tagtso_stretch_flow(uint32_t word, int64_t *distance)
{
	bool jump = tagtso_form_is_branch(word);

	/* BL; BR, BLR, RET and relatives */
	if ((word & 0xfc000000) == 0x94000000 || (word & 0xfe000000) == 0xd6000000)
		return TAGTSO_FLOW_AWAY;
	if (!jump && !tagtso_branch_is_conditional(word))
		return TAGTSO_FLOW_ON;
	*distance = tagtso_branch_distance(word);
	return jump ? TAGTSO_FLOW_JUMP : TAGTSO_FLOW_BRANCH;
}

/* ---- plan ---- */

/* Instructions still to be looked at, in the order in which they were found: each at most once. */
struct queue {
	uint16_t index[TAGTSO_STRETCH_WINDOW];
	unsigned head, tail;
	bool seen[TAGTSO_STRETCH_WINDOW];
};

static void reach(const struct tagtso_stretch *s, struct queue *q, int64_t index)
{
	if (index < 0 || index >= s->n || q->seen[index])
		return;
	q->seen[index] = true;
	q->index[q->tail++] = (uint16_t)index;
}

/* kind_of(), with a memory of loads and stores: neighbours come by the same code, and words repeat. */
static enum kind recall(struct tagtso_stretch *s, unsigned i)
{
	uint32_t word = s->words[i];
	struct tagtso_stretch_memo *memo = &s->memo[(word ^ word >> 10 ^ word >> 21) % TAGTSO_STRETCH_MEMO];

	if ((GROUP(word) & 5) != 4)
		return kind_of(word, NULL);
	if (memo->op.word != word) {
		memo->kind = (uint8_t)kind_of(word, &memo->op);
		memo->op.word = word;
	}
	if (memo->kind == ACCESS)
		s->op[i] = memo->op;
	return memo->kind;
}

/* An access that has a form, but not with these scratch registers, keeps the island that it has. */
static bool take(struct tagtso_stretch *s, struct queue *q, unsigned i, struct tagtso_scratch scratch)
{
	enum kind kind = recall(s, i);

	if (kind == STAYS ||
	    (s->form[i] != TAGTSO_FORM_EMITTED && (kind != ACCESS || !tagtso_form_possible(&s->op[i], scratch))))
		return false;
	s->taken[i] = true;
	s->kind[i] = (uint8_t)kind;
	if (kind == BRANCH || kind == JUMP)
		reach(s, q, i + tagtso_branch_distance(s->words[i]));
	if (kind != JUMP)
		reach(s, q, i + 1);
	return true;
}

static bool is_taken(const struct tagtso_stretch *s, int64_t index)
{
	return index >= 0 && index < s->n && s->taken[index];
}

static int64_t target_of(const struct tagtso_stretch *s, unsigned i)
{
	return i + (s->kind[i] == BRANCH || s->kind[i] == JUMP ? tagtso_branch_distance(s->words[i]) : 0);
}

static bool leads_on(const struct tagtso_stretch *s, const bool *leads, unsigned i)
{
	int64_t target = target_of(s, i);

	return s->form[i] != TAGTSO_FORM_EMITTED || (s->kind[i] != JUMP && is_taken(s, i + 1) && leads[i + 1]) ||
	       (target != i && is_taken(s, target) && leads[target]);
}

/* Which of those taken lead to an access that has a form: to be in the stretch is no use to the others. The second round is for
 * what leads there by way of a loop; who leads there by several may be overlooked. */
static void find_leading(struct tagtso_stretch *s, bool *leads)
{
	memset(leads + s->first, false, s->end - s->first);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = s->end; i-- > s->first;)
			if (s->taken[i] && !leads[i])
				leads[i] = leads_on(s, leads, i);
}

/* The range of those taken. */
static void find_bounds(struct tagtso_stretch *s)
{
	const bool *first = memchr(s->taken, true, s->n), *last = memrchr(s->taken, true, s->n);

	s->first = first ? (unsigned)(first - s->taken) : 0;
	s->end = first ? (unsigned)(last - s->taken) + 1 : 0;
}

static void choose(struct tagtso_stretch *s, unsigned most, struct tagtso_scratch scratch)
{
	struct queue q = { .head = 0 };
	bool leads[TAGTSO_STRETCH_WINDOW];
	unsigned looked = 0, taken = 0;

	for (const bool *at = s->entrance; (at = memchr(at, true, s->n - (size_t)(at - s->entrance))); at++)
		reach(s, &q, at - s->entrance);
	while (q.head < q.tail && looked < most + most / 2)
		looked += take(s, &q, q.index[q.head++], scratch);
	find_bounds(s);
	find_leading(s, leads);
	for (unsigned k = 0; k < q.head; k++) {
		unsigned i = q.index[k];

		s->taken[i] &= leads[i] && taken < most;
		taken += s->taken[i];
	}
	find_bounds(s);
}

/* True if there are loops. */
static bool find_loops(struct tagtso_stretch *s)
{
	bool loops = false;

	for (unsigned i = s->first; i < s->end; i++) {
		unsigned kind = s->taken[i] ? s->kind[i] : STAYS;
		int64_t target = target_of(s, i);

		if ((kind != BRANCH && kind != JUMP) || target > i || !is_taken(s, target))
			continue;
		s->head[target] = loops = true;
	}
	return loops;
}

bool tagtso_stretch_plan(struct tagtso_stretch *s, unsigned most, struct tagtso_scratch scratch)
{
	unsigned accesses = 0;

	memset(s->taken, false, s->n);
	memset(s->head, false, s->n);
	choose(s, most, scratch);
	memset(s->entrance, false, s->first);
	for (unsigned i = s->first; i < s->end; i++) {
		s->entrance[i] &= s->taken[i];
		accesses += s->taken[i] && s->form[i] != TAGTSO_FORM_EMITTED;
	}
	memset(s->entrance + s->end, false, s->n - s->end);
	return accesses && (find_loops(s) || accesses > 1);
}

/* ---- code ---- */

enum {
	HOLDERS = 4, /* one more than there ever are: all are copied as one word */
	THIRD = 2,   /* the one that MIXED and SHARED leave alone; may not be there */
	NOTHING = 255,
	PASSES = 4,   /* before nothing is kept over loops */
	TAG = 32,     /* for a base: the tag alone */
	TAG_USES = 3, /* so many accesses behind could use it: it costs as much as two IRGs */
};

/* The bases that the scratch registers hold. */
struct cache {
	uint8_t base[HOLDERS]; /* NOTHING, TAG, or 0..31 where 31 is SP */
};

/* A branch whose distance is not known yet. */
struct fix {
	unsigned at;
	unsigned from;  /* instruction, counted from words[0] */
	int32_t target; /* instruction, the same */
};

struct encoder {
	struct tagtso_stretch *s;
	struct tagtso_scratch scratch;
	uint64_t pc; /* of code[0] */
	unsigned i;  /* instruction in work */
	bool full;
	unsigned nregs; /* scratch registers that there are */
	uint8_t reg[HOLDERS];
	unsigned age[HOLDERS]; /* when each was last used */
	unsigned clock;
	struct cache cache;
	unsigned pass;
	unsigned plus, most_plus;                   /* accesses that could add the tag: so far in this pass; in all */
	struct cache before[TAGTSO_STRETCH_WINDOW]; /* what entrances have to restore */
	struct cache
		at_head[TAGTSO_STRETCH_WINDOW]; /* what all ways bring to the head of a loop, as this pass has it */
	struct cache at_label
		[TAGTSO_STRETCH_WINDOW];     /* what all branches bring that were met since the label, or before it */
	bool reached[TAGTSO_STRETCH_WINDOW]; /* at_label is set */
	/* Bits by holder: what an instruction uses as it finds it; what it sets; what is used later, or by itself. */
	uint8_t uses[TAGTSO_STRETCH_WINDOW], sets[TAGTSO_STRETCH_WINDOW], live[TAGTSO_STRETCH_WINDOW];
	struct fix fixes[TAGTSO_STRETCH_WINDOW];
	unsigned nfixes;
};

static void put_as(struct encoder *e, uint32_t word, unsigned map)
{
	if (e->s->ncode == TAGTSO_STRETCH_WORDS) {
		e->full = true;
		return;
	}
	e->s->map[e->s->ncode] = (uint16_t)map;
	e->s->code[e->s->ncode++] = word;
}

static void put(struct encoder *e, uint32_t word)
{
	put_as(e, word, e->i - e->s->first);
}

static void put_done(struct encoder *e, uint32_t word)
{
	put_as(e, word, (e->i - e->s->first) | TAGTSO_MAP_DONE);
}

/* B to the emitted instruction at index, which may lie outside the window. */
static void put_exit(struct encoder *e, int64_t index)
{
	uint32_t word = tagtso_form_branch(e->pc + 4 * e->s->ncode, e->s->pc + (uint64_t)(4 * index));

	e->full |= !word;
	put_as(e, word, TAGTSO_MAP_EXIT | TAGTSO_MAP_NONE);
}

static void forget_all(struct cache *cache)
{
	memset(cache->base, NOTHING, sizeof(cache->base));
}

/* General-purpose register r is written: what it held, and what was made from it, is no longer so. */
static void forget(struct encoder *e, unsigned r)
{
	for (unsigned k = 0; k < e->nregs; k++)
		if (e->cache.base[k] == r || e->reg[k] == r)
			e->cache.base[k] = NOTHING;
}

/* Holder k gets base with the thread's own tag, or the tag alone. */
static void put_holder(struct encoder *e, unsigned k, unsigned base)
{
	unsigned reg = e->reg[k];

	put(e, tagtso_form_irg(reg, base == TAG ? reg : base));
	if (base == TAG)
		put(e, AND_TAG | reg << 5 | reg);
}

static void set_holder(struct encoder *e, unsigned k, unsigned base)
{
	e->cache.base[k] = (uint8_t)base;
	e->sets[e->i] |= (uint8_t)(1u << k);
}

/* HOLDERS if there is none. */
static unsigned find_holder(const struct encoder *e, unsigned base)
{
	for (unsigned k = 0; k < e->nregs; k++)
		if (e->cache.base[k] == base)
			return k;
	return HOLDERS;
}

/* A scratch register to be overwritten: an empty one, else the one that was not used for the longest time. */
static unsigned choose_holder(struct encoder *e)
{
	const uint8_t *base = e->cache.base;
	unsigned best = 0;

	for (unsigned k = 1; k < e->nregs; k++)
		if (base[best] != NOTHING && (base[k] == NOTHING || e->age[k] < e->age[best]))
			best = k;
	set_holder(e, best, NOTHING);
	return best;
}

/* The register that holds base with the thread's own tag. */
static unsigned tagged(struct encoder *e, unsigned base)
{
	unsigned k = find_holder(e, base);

	if (k < HOLDERS) {
		if (!(e->sets[e->i] >> k & 1))
			e->uses[e->i] |= (uint8_t)(1u << k);
	} else {
		k = base == TAG ? THIRD : choose_holder(e);
		put_holder(e, k, base);
		set_holder(e, k, base);
	}
	e->age[k] = ++e->clock;
	return e->reg[k];
}

/* True if the access can add the tag itself. */
static bool may_plus(const struct tagtso_stretch *s, unsigned i)
{
	return s->kind[i] == ACCESS && s->form[i] == TAGTSO_FORM_LOCAL && tagtso_form_access_plus(&s->op[i], 0);
}

/* And it is there already, or for so many that it pays. */
static bool is_plus_due(struct encoder *e, const struct tagtso_memop *op)
{
	if (e->nregs <= THIRD || !may_plus(e->s, e->i))
		return false;
	e->plus++;
	return find_holder(e, op->rn) == HOLDERS &&
	       (find_holder(e, TAG) < HOLDERS || e->most_plus - e->plus >= TAG_USES);
}

/* The registers that an access writes. SP is written by nothing but write-back and data processing. */
static void forget_written(struct encoder *e, const struct tagtso_memop *op)
{
	bool general = !(op->flags & TAGTSO_F_VECTOR);

	if (op->addressing == TAGTSO_ADDR_PRE || op->addressing == TAGTSO_ADDR_POST ||
	    op->addressing == TAGTSO_ADDR_POST_REG)
		forget(e, op->rn);
	if (general && (op->cls == TAGTSO_LOAD || op->cls == TAGTSO_LOAD_PAIR || op->cls == TAGTSO_LSE) && op->rt != 31)
		forget(e, op->rt);
	if (general && op->cls == TAGTSO_LOAD_PAIR && op->rt2 != 31)
		forget(e, op->rt2);
	if ((op->cls == TAGTSO_CAS || op->cls == TAGTSO_CASP) && op->rs != 31)
		forget(e, op->rs);
	if (op->cls == TAGTSO_CASP)
		forget(e, op->rs + 1u);
}

static void put_local(struct encoder *e, const struct tagtso_memop *op)
{
	uint32_t writeback[2];
	unsigned n = tagtso_form_writeback(op, writeback);
	bool fences = tagtso_form_fences(op);

	if (fences)
		put(e, DMB_ISH);
	if (op->addressing == TAGTSO_ADDR_REG) {
		unsigned reg = e->reg[choose_holder(e)];

		put(e, tagtso_form_sum(op, reg));
		put(e, tagtso_form_irg(reg, reg));
		put(e, tagtso_form_access(op, reg));
	} else if (is_plus_due(e, op)) {
		put(e, tagtso_form_access_plus(op, tagged(e, TAG)));
	} else {
		put(e, tagtso_form_access(op, tagged(e, op->rn)));
	}
	if (fences)
		put_done(e, DMB_ISH);
	for (unsigned k = 0; k < n; k++)
		put_done(e, writeback[k]);
}

static void put_inside(struct encoder *e, const struct tagtso_memop *op, enum tagtso_form form)
{
	uint32_t words[TAGTSO_ISLAND_WORDS];
	unsigned n = tagtso_form_inside(op, form, e->scratch, words);
	bool done = false;

	forget(e, e->scratch.a);
	forget(e, e->scratch.b);
	for (unsigned k = 0; k < n; k++) {
		if (done)
			put_done(e, words[k]);
		else
			put(e, words[k]);
		done = (done || tagtso_form_is_access(words[k], e->scratch)) && !tagtso_form_is_branch(words[k]);
	}
}

static void put_access(struct encoder *e)
{
	enum tagtso_form form = e->s->form[e->i];
	const struct tagtso_memop *op = &e->s->op[e->i];

	if (form == TAGTSO_FORM_LOCAL)
		put_local(e, op);
	else if (form == TAGTSO_FORM_EMITTED)
		put(e, op->word);
	else
		put_inside(e, op, form);
	forget_written(e, op);
}

/* LDR Xt, literal: ADRP Xt; LDR Xt, [Xt, #low]; with an ADD where the literal is not aligned. It reads the emulator's own constant, in the place where it is. */
static void put_literal(struct encoder *e)
{
	uint32_t word = e->s->words[e->i], rt = word & 31, opc = word >> 30;
	/* LDR Wt, LDR Xt, LDRSW Xt; unsigned offset, scaled by 4, 8, 4 */
	static const uint32_t loads[] = { 0xb9400000, 0xf9400000, 0xb9800000 };
	uint64_t pc = e->pc + 4 * e->s->ncode,
		 address = e->s->pc + 4 * (uint64_t)e->i + (uint64_t)(4 * signed_field(word, 5, 19));
	int64_t pages = (int64_t)(address >> 12) - (int64_t)(pc >> 12);
	uint32_t low = address & 4095, scale = opc == 1 ? 8 : 4;

	if (pages < -(1 << 20) || pages >= 1 << 20 || opc > 2) {
		e->full = true;
		return;
	}
	put(e, 0x90000000 | ((uint32_t)pages & 3) << 29 | ((uint32_t)(pages >> 2) & 0x7ffff) << 5 | rt);
	if (low % scale) {
		put(e, 0x91000000 | low << 10 | rt << 5 | rt);
		low = 0;
	}
	put(e, loads[opc] | low / scale << 10 | rt << 5 | rt);
	forget(e, rt);
}

/* What both ways bring. */
static void meet(struct cache *cache, const struct cache *other)
{
	for (unsigned k = 0; k < HOLDERS; k++)
		if (cache->base[k] != other->base[k])
			cache->base[k] = NOTHING;
}

/* The target is filled in when all instructions have their places. */
static void put_branch(struct encoder *e)
{
	int64_t target = e->i + tagtso_branch_distance(e->s->words[e->i]);

	e->fixes[e->nfixes++] = (struct fix){ .at = e->s->ncode, .from = e->i, .target = (int32_t)target };
	put(e, e->s->words[e->i]);
	if (!is_taken(e->s, target))
		return;
	if (e->reached[target])
		meet(&e->at_label[target], &e->cache);
	else
		e->at_label[target] = e->cache;
	e->reached[target] = true;
}

/* What is known whichever way the code comes from above. */
static void arrive_from_above(struct encoder *e, bool falls)
{
	if (!falls && !e->reached[e->i])
		forget_all(&e->cache);
	else if (!falls)
		e->cache = e->at_label[e->i];
	else if (e->reached[e->i])
		meet(&e->cache, &e->at_label[e->i]);
}

/* The first pass has at the head what comes from above, later ones what came from below. */
static void arrive_at_head(struct encoder *e, bool falls)
{
	struct cache *head = &e->at_head[e->i];

	if (!e->pass) {
		arrive_from_above(e, falls);
		*head = e->cache;
	}
	if (e->reached[e->i])
		meet(head, &e->at_label[e->i]);
	for (unsigned k = 0; falls && k < e->nregs; k++)
		if (head->base[k] != NOTHING && head->base[k] != e->cache.base[k])
			put_holder(e, k, head->base[k]);
	e->cache = *head;
	e->reached[e->i] = false;
}

static void arrive(struct encoder *e)
{
	const struct tagtso_stretch *s = e->s;
	bool falls = is_taken(s, (int64_t)e->i - 1) && s->kind[e->i - 1] != JUMP;

	if (s->head[e->i])
		arrive_at_head(e, falls);
	else
		arrive_from_above(e, falls);
}

/* Behind an instruction that goes on to the next one, which is somewhere else. */
static bool falls_out(const struct tagtso_stretch *s, unsigned i)
{
	return s->kind[i] != JUMP && !is_taken(s, i + 1);
}

static void put_instruction(struct encoder *e)
{
	struct tagtso_stretch *s = e->s;
	uint32_t word = s->words[e->i];
	unsigned kind = s->kind[e->i];
	int64_t target = target_of(s, e->i);

	arrive(e);
	e->before[e->i] = e->cache;
	s->at[e->i] = (uint16_t)s->ncode;
	if (kind == ACCESS)
		put_access(e);
	else if (kind == LITERAL)
		put_literal(e);
	else if (kind == JUMP && !is_taken(s, target))
		put_exit(e, target);
	else if (kind == BRANCH || kind == JUMP)
		put_branch(e);
	else
		put(e, word);
	/* Rd; where the field means something else, too much is forgotten. */
	if (kind == COPIED)
		forget(e, word & 31);
	if (falls_out(s, e->i))
		put_exit(e, e->i + 1);
}

/* Restores what the code expects at this instruction. */
static void put_entrance(struct encoder *e)
{
	const struct cache *before = &e->before[e->i];
	struct tagtso_stretch *s = e->s;

	s->enter[e->i] = (uint16_t)s->ncode;
	for (unsigned k = 0; k < e->nregs; k++)
		if (before->base[k] != NOTHING && e->live[e->i] >> k & 1)
			put_holder(e, k, before->base[k]);
	if (s->enter[e->i] == s->ncode) {
		s->enter[e->i] = s->at[e->i];
		return;
	}
	put(e, tagtso_branch_with_distance(0x14000000, (int64_t)s->at[e->i] - (int64_t)s->ncode));
}

/* Branches get their distances; those that leave the stretch do it by a B behind it, which reaches further. */
static void fix_branches(struct encoder *e)
{
	for (unsigned k = 0; k < e->nfixes && !e->full; k++) {
		const struct fix *f = &e->fixes[k];
		struct tagtso_stretch *s = e->s;
		unsigned to = is_taken(s, f->target) ? s->at[f->target] : s->ncode;

		s->code[f->at] = tagtso_branch_with_distance(s->code[f->at], (int64_t)to - f->at);
		if (to == s->ncode)
			put_exit(e, f->target);
	}
}

static uint8_t live_behind(const struct encoder *e, unsigned i)
{
	const struct tagtso_stretch *s = e->s;
	int64_t target = target_of(s, i);
	uint8_t live = 0;

	if (s->kind[i] != JUMP && is_taken(s, i + 1))
		live |= e->live[i + 1];
	if (target != i && is_taken(s, target))
		live |= e->live[target];
	return live;
}

/* True if a branch back leads to where more is live than the branch knew of. */
static bool is_more_live(const struct encoder *e)
{
	const struct tagtso_stretch *s = e->s;

	for (unsigned k = 0; k < e->nfixes; k++) {
		const struct fix *f = &e->fixes[k];

		if (is_taken(s, f->target) && e->live[f->target] & ~e->live[f->from])
			return true;
	}
	return false;
}

static void find_live(struct encoder *e)
{
	const struct tagtso_stretch *s = e->s;

	memset(e->live, 0, s->end);
	do {
		for (unsigned i = s->end; i-- > s->first;)
			if (s->taken[i])
				e->live[i] = e->uses[i] | (live_behind(e, i) & ~e->sets[i]);
	} while (is_more_live(e));
}

/* True if every way from below brings what its head has; else the heads get what comes, which is less from pass to pass. */
static bool settle(struct encoder *e)
{
	bool settled = true;

	for (unsigned i = e->s->first; i < e->s->end; i++) {
		struct cache below = e->at_label[i];

		if (!e->s->head[i])
			continue;
		if (e->pass)
			meet(&below, &e->at_head[i]);
		settled &= !memcmp(below.base, e->at_head[i].base, sizeof(below.base));
		e->at_head[i] = below;
	}
	return settled;
}

static void put_instructions(struct encoder *e)
{
	struct tagtso_stretch *s = e->s;

	e->clock = e->nfixes = 0;
	e->plus = 0;
	memset(e->reached, false, s->end);
	memset(e->uses, 0, s->end);
	memset(e->sets, 0, s->end);
	memset(e->age, 0, sizeof(e->age));
	forget_all(&e->cache);
	s->ncode = 0;
	for (e->i = s->first; e->i < s->end && !e->full; e->i++)
		if (s->taken[e->i])
			put_instruction(e);
}

/* With nothing at the heads any code is right. */
static void put_loops(struct encoder *e)
{
	for (e->pass = 0; e->pass < PASSES; e->pass++) {
		put_instructions(e);
		if (e->full || settle(e))
			return;
	}
	for (unsigned i = e->s->first; i < e->s->end; i++)
		forget_all(&e->at_head[i]);
	put_instructions(e);
}

bool tagtso_stretch_encode(struct tagtso_stretch *s, struct tagtso_scratch scratch, uint64_t island_pc)
{
	struct encoder e; /* most of it is written before it is read, and not all of it */

	e.s = s;
	e.scratch = scratch;
	e.pc = island_pc;
	e.full = false;
	e.nregs = scratch.c ? 3 : 2;
	e.reg[0] = scratch.a;
	e.reg[1] = scratch.b;
	e.reg[2] = scratch.c;
	e.most_plus = 0;
	for (unsigned i = s->first; i < s->end; i++)
		e.most_plus += s->taken[i] && may_plus(s, i);
	put_loops(&e);
	find_live(&e);
	fix_branches(&e);
	for (e.i = s->first; e.i < s->end && !e.full; e.i++)
		if (s->entrance[e.i])
			put_entrance(&e);
	return !e.full;
}
