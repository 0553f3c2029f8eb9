/* SPDX-License-Identifier: MIT */
/* Behaviour of the island encoder: each word of each island is read back by Capstone (by our decoder, which is tested
 * against Capstone 5, and by bit patterns of the architecture where Capstone 4 does not know an instruction) and
 * compared with text that is written here from the form's definition. */
#include <check.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interp/decode.h"
#include "interp/form.h"
#include "interp/opinion.h"

enum { ROUNDS = 150 };
static const struct tagtso_scratch scratch = { .a = 8, .b = 9 };
static struct tagtso_opinion opinion;

static uint64_t random_bits(void)
{
	static uint64_t s = 0x9e3779b97f4a7c15;

	s ^= s << 13;
	s ^= s >> 7;
	return s ^= s << 17;
}

/* ---- the island that is meant, as text ---- */

struct listing {
	char line[TAGTSO_ISLAND_WORDS + 4][2 * TAGTSO_TEXT];
	unsigned n;
	uint64_t pc;
};

__attribute__((format(printf, 2, 3))) static unsigned say(struct listing *l, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(l->line[l->n], sizeof(l->line[0]), format, args);
	va_end(args);
	return l->n++;
}

static const char *x(unsigned r)
{
	static char names[4][8];
	static unsigned next;
	char *name = names[next++ % 4];

	snprintf(name, 8, r == 31 ? "sp" : "x%u", r);
	return name;
}

static bool writes_back(const struct tagtso_memop *op)
{
	return op->addressing >= TAGTSO_ADDR_PRE && op->addressing <= TAGTSO_ADDR_POST_REG;
}

static bool is_atomic(const struct tagtso_memop *op)
{
	return op->cls == TAGTSO_LSE || op->cls == TAGTSO_CAS || op->cls == TAGTSO_CASP;
}

/* An exchange that is not always one, and what has nothing to acquire, is none. */
static bool is_fence(const struct tagtso_memop *op)
{
	const unsigned both = TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE;

	return op->cls == TAGTSO_LSE && (op->flags & both) == both && op->rt != 31;
}

/* The access with base x8 and `offset`: the text of the emitted instruction up to its address, and a new address.
 * Where addressing changes, LDR becomes LDUR, which is the encoding with an unscaled offset. */
static void say_access(struct listing *l, const struct tagtso_memop *emitted, int32_t offset, bool ordered)
{
	bool single = emitted->cls == TAGTSO_LOAD || emitted->cls == TAGTSO_STORE;
	bool fenced = is_atomic(emitted) && (ordered || !is_fence(emitted));
	struct tagtso_memop op = *emitted;
	char text[TAGTSO_TEXT], *address;

	if (ordered && is_atomic(&op))
		op.flags |= TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE;
	ck_assert(tagtso_memop_text(&op, 0, text));
	address = strchr(text, '[');
	if (op.cls == TAGTSO_LOAD_LANE || op.cls == TAGTSO_STORE_LANE)
		address = strchr(address + 1, '[');
	*address = 0;
	if (fenced)
		say(l, "dmb ish");
	else if (ordered && (op.flags & TAGTSO_F_STORE))
		say(l, "dmb ishst");
	if (single && op.addressing != TAGTSO_ADDR_OFFSET)
		say(l, "%.2su%s", text, text + 2);
	else
		say(l, "%s", text);
	if (offset)
		sprintf(strchr(l->line[l->n - 1], 0), "[x8, #%d]", offset);
	else
		strcat(l->line[l->n - 1], "[x8]");
	if (fenced)
		say(l, "dmb ish");
	else if (ordered && !(op.flags & TAGTSO_F_STORE))
		say(l, "dmb ishld");
}

static void say_add(struct listing *l, unsigned rd, unsigned rn, int32_t imm)
{
	if (imm == 0 && (rd == 31 || rn == 31))
		say(l, "mov %s, %s", x(rd), x(rn));
	else if (imm < 0)
		say(l, "sub %s, %s, #%d", x(rd), x(rn), -imm);
	else if (imm < 4096)
		say(l, "add %s, %s, #%d", x(rd), x(rn), imm);
	else {
		say(l, "add %s, %s, #%d, lsl #12", x(rd), x(rn), imm / 4096);
		if (imm % 4096)
			say(l, "add %s, %s, #%d", x(rd), x(rd), imm % 4096);
	}
}

static void say_add_extended(struct listing *l, unsigned rd, const struct tagtso_memop *op, unsigned extend,
                             unsigned shift)
{
	static const char *const names[] = { "", "", "uxtw", "uxtx", "", "", "sxtw", "sxtx" };
	bool sp = rd == 31 || op->rn == 31, plain = extend == 3 && sp;
	char rm[8];

	snprintf(rm, sizeof(rm), op->rm == 31 ? "%czr" : "%c%u", extend & 1 ? 'x' : 'w', op->rm);
	say(l, "add %s, %s, %s", x(rd), x(op->rn), rm);
	/* With SP as an operand, LSL is how UXTX is written. */
	if (!plain)
		sprintf(strchr(l->line[l->n - 1], 0), ", %s", names[extend]);
	else if (shift)
		strcat(l->line[l->n - 1], ", lsl");
	if (shift)
		sprintf(strchr(l->line[l->n - 1], 0), " #%u", shift);
}

static void say_end(struct listing *l, const struct tagtso_memop *op, uint64_t site)
{
	if (op->addressing == TAGTSO_ADDR_POST_REG)
		say_add_extended(l, op->rn, op, 3, 0);
	else if (writes_back(op))
		say_add(l, op->rn, op->rn, op->imm);
	say(l, "b #0x%" PRIx64, site + 4);
}

static int32_t offset_before_access(const struct tagtso_memop *op)
{
	return op->addressing == TAGTSO_ADDR_OFFSET || op->addressing == TAGTSO_ADDR_PRE ? op->imm : 0;
}

static void say_local_or_shared(struct listing *l, const struct tagtso_memop *op, uint64_t site, bool local)
{
	unsigned base = op->rn;

	if (op->addressing == TAGTSO_ADDR_REG) {
		say_add_extended(l, 8, op, op->extend, op->shift);
		base = 8;
	}
	if (local) {
		say(l, "irg x8, %s", x(base));
	} else {
		if (base == 31)
			say_add(l, 8, base, 0);
		say(l, "orr x8, %s, #0xf00000000000000", base == 31 ? "x8" : x(base));
	}
	say_access(l, op, offset_before_access(op), !local);
	say_end(l, op, site);
}

static unsigned say_look(struct listing *l, const struct tagtso_memop *op)
{
	if (op->addressing == TAGTSO_ADDR_REG)
		say_add_extended(l, 8, op, op->extend, op->shift);
	else
		say_add(l, 8, op->rn, offset_before_access(op));
	say(l, "ldg x8, [x8]");
	say(l, "irg x9, x8");
	say(l, "eor x9, x9, x8");
	return say(l, "cbnz");
}

static void say_mixed(struct listing *l, const struct tagtso_memop *op, uint64_t site)
{
	unsigned not_mine, not_shared;

	not_mine = say_look(l, op);
	say_access(l, op, 0, false);
	say_end(l, op, site);
	sprintf(l->line[not_mine], "cbnz x9, #0x%" PRIx64, l->pc + 4 * l->n);
	say(l, "orr x9, x8, #0xf00000000000000");
	say(l, "eor x9, x9, x8");
	not_shared = say(l, "cbnz");
	say_access(l, op, 0, true);
	say_end(l, op, site);
	sprintf(l->line[not_shared], "cbnz x9, #0x%" PRIx64, l->pc + 4 * l->n);
	tagtso_memop_text(op, 0, l->line[l->n++]);
	say(l, "b #0x%" PRIx64, site + 4);
}

/* An access without acquire and release: LDUR and STUR, where the emitted one was ordered. */
static struct tagtso_memop unordered(const struct tagtso_memop *op)
{
	struct tagtso_memop plain = *op;

	if ((op->cls != TAGTSO_LOAD && op->cls != TAGTSO_STORE) || !(op->flags & (TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE)))
		return plain;
	plain.flags &= (uint16_t) ~(TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE | TAGTSO_F_RCPC);
	plain.addressing = TAGTSO_ADDR_POST; /* say_access() writes LDR as LDUR then */
	return plain;
}

static void say_relaxed(struct listing *l, const struct tagtso_memop *op, uint32_t barrier, uint64_t site)
{
	struct tagtso_memop plain = unordered(op);
	unsigned not_mine;

	not_mine = say_look(l, op);
	say_access(l, &plain, 0, false);
	say_end(l, op, site);
	sprintf(l->line[not_mine], "cbnz x9, #0x%" PRIx64, l->pc + 4 * l->n);
	if (barrier)
		say(l, barrier == 0xd50339bf ? "dmb ishld" : barrier == 0xd5033abf ? "dmb ishst" : "dmb ish");
	tagtso_memop_text(op, 0, l->line[l->n++]);
	say(l, "b #0x%" PRIx64, site + 4);
}

/* ---- the same where a CPU is the owner ---- */

static const struct tagtso_scratch on_cpu[] = {
	{ .a = 8, .b = 9, .number = 24, .area = -0x2a0 },
	{ .a = 8, .b = 9, .number = 4, .area = 0x12340 },
};

/* Lines of a listing that are filled in when it is known where they lead. */
struct marks {
	unsigned tbz[2], adr, start, done;
};

static void say_sequence(struct listing *l, struct marks *m, const struct tagtso_memop *op, uint64_t site,
                         const struct tagtso_scratch *s, bool mixed)
{
	bool fences = is_atomic(op) && !is_fence(op);
	bool sum = op->addressing == TAGTSO_ADDR_REG;

	say(l, "mrs x9, tpidr_el0");
	say_add(l, 9, 9, s->area);
	m->adr = say(l, "adr");
	say(l, "str x8, [x9, #8]");
	m->start = say(l, "ldr w9, [x9, #%d]", s->number);
	say(l, "sub w8, w9, #13");
	m->tbz[1] = say(l, "tbz");
	if (sum)
		say_add_extended(l, 8, op, op->extend, op->shift);
	else if (mixed)
		say_add(l, 8, op->rn, offset_before_access(op));
	say(l, "irg x8, %s", x(sum || mixed ? 8 : op->rn));
	say(l, "add x8, x8, x9, lsl #56");
	say_access(l, op, mixed ? 0 : offset_before_access(op), false);
	m->done = l->n - (fences ? 1 : 0);
	say_end(l, op, site);
}

/* Up to the signature and the branch behind it. */
static void say_rest(struct listing *l, const struct marks *m, const struct tagtso_memop *op, uint64_t site, bool mixed)
{
	uint64_t here = l->pc + 4 * l->n;

	sprintf(l->line[m->tbz[0]], "tbz x%d, #56, #0x%" PRIx64, mixed ? 9 : 8, here);
	sprintf(l->line[m->tbz[1]], "tbz w8, #31, #0x%" PRIx64, here);
	tagtso_memop_text(op, 0, l->line[l->n++]);
	say(l, "b #0x%" PRIx64, site + 4);
	say(l, "brk #0x45e0");
	say(l, "b #0x%" PRIx64, l->pc);
	here = l->pc + 4 * l->n;
	sprintf(l->line[m->adr], "adr x8, #0x%" PRIx64, (here + 31) & ~(uint64_t)31);
}

static void say_cpu(struct listing *l, struct marks *m, const struct tagtso_memop *op, uint64_t site,
                    const struct tagtso_scratch *s, bool mixed)
{
	unsigned not_shared;

	if (mixed) {
		if (op->addressing == TAGTSO_ADDR_REG)
			say_add_extended(l, 8, op, op->extend, op->shift);
		else
			say_add(l, 8, op->rn, offset_before_access(op));
		say(l, "ldg x8, [x8]");
		say(l, "orr x9, x8, #0xf00000000000000");
		say(l, "eor x9, x9, x8");
		not_shared = say(l, "cbnz");
		say_access(l, op, 0, true);
		say_end(l, op, site);
		sprintf(l->line[not_shared], "cbnz x9, #0x%" PRIx64, l->pc + 4 * l->n);
	}
	say(l, mixed ? "irg x9, x8" : "irg x8, %s", x(op->rn));
	m->tbz[0] = say(l, "tbz");
	say_sequence(l, m, op, site, s, mixed);
	say_rest(l, m, op, site, mixed);
}

/* ---- what the words say ---- */

static void describe(uint32_t word, uint64_t pc, char text[TAGTSO_TEXT])
{
	struct tagtso_memop op;

	if (tagtso_opinion_text(&opinion, pc, word, text))
		return;
	/* IRG <Xd|SP>, <Xn|SP>{, <Xm>}:  1001 1010 110m mmmm 0001 00nn nnnd dddd
	 * LDG <Xt>, [<Xn|SP>, #simm]:    1101 1001 011i iiii iiii 00nn nnnt tttt */
	if ((word & 0xfffffc00) == 0x9adf1000)
		snprintf(text, TAGTSO_TEXT, "irg %s, %s", x(word & 31), x(word >> 5 & 31));
	else if ((word & 0xfffffc00) == 0xd9600000)
		snprintf(text, TAGTSO_TEXT, "ldg %s, [%s]", x(word & 31), x(word >> 5 & 31));
	else if (tagtso_decode(word, &op))
		tagtso_memop_text(&op, pc, text);
}

/* Capstone prints LDR of a zero offset either way. */
static void check_island_of_pair(const struct tagtso_memop *op, uint32_t barrier, enum tagtso_form form, uint64_t site,
                                 uint64_t island)
{
	uint32_t out[TAGTSO_ISLAND_WORDS];
	unsigned n = tagtso_form_encode_pair(op, barrier, form, scratch, site, island, out);
	struct listing l = { .n = 0, .pc = island };
	char text[TAGTSO_TEXT];

	ck_assert_msg(n, "%08x has no form %d", op->word, form);
	if (form == TAGTSO_FORM_RELAXED)
		say_relaxed(&l, op, barrier, site);
	else if (form == TAGTSO_FORM_MIXED)
		say_mixed(&l, op, site);
	else
		say_local_or_shared(&l, op, site, form == TAGTSO_FORM_LOCAL);
	for (unsigned i = 0; i < n && i < l.n; i++) {
		describe(out[i], island + 4 * i, text);
		ck_assert_msg(tagtso_text_equal(text, l.line[i]),
		              "site %08x form %d word %u: is '%s' (%08x), meant '%s'", op->word, form, i, text, out[i],
		              l.line[i]);
	}
	ck_assert_uint_eq(n, l.n);
}

static void check_island(const struct tagtso_memop *op, enum tagtso_form form, uint64_t site, uint64_t island)
{
	check_island_of_pair(op, 0, form, site, island);
}

static void check_words(const uint32_t *out, unsigned n, const struct listing *l, const struct tagtso_memop *op)
{
	char text[TAGTSO_TEXT];

	ck_assert_uint_ge(n, l->n);
	for (unsigned i = 0; i < l->n; i++) {
		describe(out[i], l->pc + 4 * i, text);
		ck_assert_msg(tagtso_text_equal(text, l->line[i]), "site %08x word %u: is '%s' (%08x), meant '%s'",
		              op->word, i, text, out[i], l->line[i]);
	}
}

/* struct rseq_cs: version, flags, start, length, where the kernel goes: the word behind the signature. */
static void check_descriptor(const uint32_t *out, unsigned n, const struct listing *l, const struct marks *m)
{
	uint64_t values[4];

	ck_assert_uint_eq((l->pc + 4 * (n - 8)) % 32, 0);
	ck_assert_uint_lt(n - 8 - l->n, 8);
	memcpy(values, out + n - 8, sizeof(values));
	ck_assert_uint_eq(values[0], 0);
	ck_assert_uint_eq(values[1], l->pc + 4 * m->start);
	ck_assert_uint_eq(values[2], 4 * (m->done - m->start));
	ck_assert_uint_eq(values[3], l->pc + 4 * (l->n - 1));
}

static void check_cpu_island(const struct tagtso_memop *op, enum tagtso_form form, uint64_t site, uint64_t island)
{
	for (unsigned i = 0; i < sizeof(on_cpu) / sizeof(on_cpu[0]); i++) {
		uint32_t out[TAGTSO_ISLAND_WORDS];
		unsigned n = tagtso_form_encode(op, form, on_cpu[i], site, island, out);
		struct listing l = { .n = 0, .pc = island };
		struct marks m;

		ck_assert_msg(n && n <= TAGTSO_ISLAND_WORDS, "%08x: %u words", op->word, n);
		say_cpu(&l, &m, op, site, &on_cpu[i], form == TAGTSO_FORM_MIXED);
		check_words(out, n, &l, op);
		check_descriptor(out, n, &l, &m);
	}
}

/* ---- which instructions have forms ---- */

static bool may_have_forms(const struct tagtso_memop *op)
{
	/* Not checked by the hardware: they never trap. */
	if (op->addressing == TAGTSO_ADDR_LITERAL || (op->addressing == TAGTSO_ADDR_OFFSET && op->rn == 31))
		return false;
	switch (op->cls) {
	case TAGTSO_LOAD:
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
		return true;
	default:
		return false;
	}
}

/* True if `r` occurs as a general-purpose register in the text of op. */
static bool mentions(const struct tagtso_memop *op, unsigned r)
{
	char text[TAGTSO_TEXT], name[8];
	size_t length;

	tagtso_memop_text(op, 0, text);
	for (const char *kind = "wx"; *kind; kind++) {
		length = (size_t)snprintf(name, sizeof(name), "%c%u", *kind, r);
		for (const char *at = text; (at = strstr(at, name)); at++)
			if ((at[length] < '0' || at[length] > '9') && (at == text || strchr(" [", at[-1])))
				return true;
	}
	return false;
}

/* A load pair into its own base cannot be interpreted again after a trap half way. */
static bool is_pair_into_base(const struct tagtso_memop *op)
{
	return op->cls == TAGTSO_LOAD_PAIR && !(op->flags & TAGTSO_F_VECTOR) && op->rn != 31 &&
	       (op->rt == op->rn || op->rt2 == op->rn);
}

static uint64_t near(uint64_t site)
{
	int64_t distance = (int64_t)(random_bits() % (250u << 20)) - (125 << 20);

	return (site + (uint64_t)distance) & ~(uint64_t)3;
}

START_TEST(every_island_says_what_its_form_means)
{
	unsigned checked = 0;

	for (size_t i = 0; i < tagtso_nencodings; i++) {
		for (unsigned round = 0; round < ROUNDS; round++) {
			uint32_t word =
				((uint32_t)random_bits() & ~tagtso_encodings[i].mask) | tagtso_encodings[i].value;
			uint64_t site = (random_bits() & 0x7fffffffffff) | 1 << 28;
			struct tagtso_memop op;

			site &= ~(uint64_t)3;
			if (!tagtso_decode(word, &op) || !may_have_forms(&op) || mentions(&op, 8) || mentions(&op, 9) ||
			    is_pair_into_base(&op))
				continue;
			check_island(&op, TAGTSO_FORM_LOCAL, site, near(site));
			check_island(&op, TAGTSO_FORM_SHARED, site, near(site));
			check_island(&op, TAGTSO_FORM_MIXED, site, near(site));
			check_island(&op, TAGTSO_FORM_RELAXED, site, near(site));
			for (unsigned k = 0; k < 4; k++) {
				static const uint32_t barriers[] = { 0xd50339bf, 0xd5033abf, 0xd5033bbf, 0xd503201f };

				if (tagtso_form_is_barrier_for(barriers[k], &op))
					check_island_of_pair(&op, barriers[k], TAGTSO_FORM_RELAXED, site, near(site));
			}
			if (round % 8 == 0) { /* each in two ways, and long */
				check_cpu_island(&op, TAGTSO_FORM_LOCAL, site, near(site));
				check_cpu_island(&op, TAGTSO_FORM_MIXED, site, near(site));
			}
			checked++;
		}
	}
	ck_assert_uint_gt(checked, 100 * ROUNDS);
}
END_TEST

static bool orders(uint32_t barrier, uint32_t word)
{
	struct tagtso_memop op;

	tagtso_decode(word, &op);
	return tagtso_form_is_barrier_for(barrier, &op);
}

START_TEST(a_barrier_is_taken_for_one_of_an_access_that_it_orders_and_that_is_not_ordered_by_itself)
{
	const uint32_t ish = 0xd5033bbf, ishld = 0xd50339bf, ishst = 0xd5033abf, nop = 0xd503201f, sy = 0xd5033fbf;
	const uint32_t ldr = 0xf9400041, str = 0xf9000041, ldapr = 0xf8bfc041, stlr = 0xc89ffc41, ldadd = 0xf8200041;

	ck_assert(orders(ishld, ldr) && orders(ish, ldr) && !orders(ishst, ldr));
	ck_assert(orders(ishst, str) && orders(ish, str) && !orders(ishld, str));
	ck_assert(!orders(nop, ldr) && !orders(sy, ldr) && !orders(nop, str));
	ck_assert(!orders(ishld, ldapr) && !orders(ish, stlr) && !orders(ish, ldadd));
}
END_TEST

static unsigned encode(uint32_t word, enum tagtso_form form)
{
	uint32_t out[TAGTSO_ISLAND_WORDS];
	struct tagtso_memop op;

	tagtso_decode(word, &op);
	return tagtso_form_encode(&op, form, scratch, 0x10000000, 0x10010000, out);
}

START_TEST(an_instruction_that_uses_a_scratch_register_has_no_form)
{
	unsigned checked = 0;

	for (size_t i = 0; i < tagtso_nencodings; i++) {
		for (unsigned round = 0; round < ROUNDS; round++) {
			uint32_t word =
				((uint32_t)random_bits() & ~tagtso_encodings[i].mask) | tagtso_encodings[i].value;
			struct tagtso_memop op;

			if (!tagtso_decode(word, &op) || !may_have_forms(&op) ||
			    (!mentions(&op, 8) && !mentions(&op, 9)))
				continue;
			for (unsigned form = 0; form < TAGTSO_NFORMS; form++)
				ck_assert_msg(!encode(word, form), "%08x", word);
			checked++;
		}
	}
	ck_assert_uint_gt(checked, ROUNDS);
}
END_TEST

START_TEST(a_tag_in_a_register_is_added_where_there_is_no_offset)
{
	enum { TAG = 29 };
	unsigned made = 0, refused = 0;

	for (size_t i = 0; i < tagtso_nencodings; i++) {
		for (unsigned round = 0; round < ROUNDS; round++) {
			uint32_t word =
				((uint32_t)random_bits() & ~tagtso_encodings[i].mask) | tagtso_encodings[i].value;
			struct tagtso_memop op, plus;
			bool simple;

			if (random_bits() % 2) /* the offset, where it stands in most */
				word &= ~UINT32_C(0x003ff000);
			if (!tagtso_decode(word, &op) || !may_have_forms(&op))
				continue;
			word = tagtso_form_access_plus(&op, TAG);
			simple =
				(op.cls == TAGTSO_LOAD || op.cls == TAGTSO_STORE) &&
				((op.addressing == TAGTSO_ADDR_OFFSET && !op.imm) || op.addressing == TAGTSO_ADDR_POST);
			ck_assert_msg(!word || simple, "%08x", op.word);
			refused += !word;
			if (!word)
				continue;
			ck_assert_msg(tagtso_decode(word, &plus), "%08x", word);
			ck_assert_msg(plus.cls == op.cls && plus.flags == op.flags && plus.size == op.size &&
			                      plus.regwidth == op.regwidth && plus.rt == op.rt && plus.rn == op.rn,
			              "%08x for %08x", word, op.word);
			ck_assert_msg(plus.addressing == TAGTSO_ADDR_REG && plus.rm == TAG && plus.extend == 3 &&
			                      !plus.shift,
			              "%08x for %08x", word, op.word);
			made++;
		}
	}
	ck_assert_uint_gt(made, 10 * ROUNDS);
	ck_assert_uint_gt(refused, 10 * ROUNDS);
}
END_TEST

START_TEST(classes_without_forms_are_refused)
{
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		struct tagtso_memop op;

		tagtso_decode(tagtso_encodings[i].value, &op);
		if (may_have_forms(&op))
			continue;
		for (unsigned form = 0; form < TAGTSO_NFORMS; form++)
			ck_assert_msg(!encode(op.word, form), "%08x", op.word);
	}
	ck_assert_uint_eq(encode(0xd503201f, TAGTSO_FORM_LOCAL), 0); /* NOP */
	ck_assert_uint_eq(encode(0xffffffff, TAGTSO_FORM_LOCAL), 0);
}
END_TEST

START_TEST(where_a_CPU_is_the_owner_there_is_no_form_inside_other_code)
{
	uint32_t out[TAGTSO_ISLAND_WORDS];
	struct tagtso_memop op;

	tagtso_decode(0xf9400020, &op);
	ck_assert_uint_ne(tagtso_form_inside(&op, TAGTSO_FORM_MIXED, scratch, out), 0);
	ck_assert_uint_eq(tagtso_form_inside(&op, TAGTSO_FORM_MIXED, on_cpu[0], out), 0);
}
END_TEST

START_TEST(the_emitted_form_has_no_island)
{
	ck_assert_uint_eq(encode(0xf9400020, TAGTSO_FORM_EMITTED), 0);
	ck_assert_uint_ne(encode(0xf9400020, TAGTSO_FORM_LOCAL), 0);
}
END_TEST

START_TEST(a_pair_loaded_into_its_own_base_is_refused)
{
	ck_assert_uint_eq(encode(0xa9400421, TAGTSO_FORM_LOCAL),
	                  0); /* ldp x1, x1.. as ldp x1, x1 is undefined: rt = rn = 1, rt2 = 1 */
	ck_assert_uint_eq(encode(0xa9400821, TAGTSO_FORM_LOCAL), 0); /* ldp x1, x2, [x1] */
	ck_assert_uint_eq(encode(0xa9400422, TAGTSO_FORM_LOCAL), 0); /* ldp x2, x1, [x1] */
	ck_assert_uint_ne(encode(0xad400422, TAGTSO_FORM_LOCAL), 0); /* ldp q2, q1, [x1] */
	ck_assert_uint_ne(encode(0xa9000422, TAGTSO_FORM_LOCAL), 0); /* stp x2, x1, [x1] */
	ck_assert_uint_ne(encode(0xf9400021, TAGTSO_FORM_LOCAL), 0); /* ldr x1, [x1] */
}
END_TEST

START_TEST(an_access_that_the_hardware_does_not_check_is_refused)
{
	ck_assert_uint_eq(encode(0xf94003e0, TAGTSO_FORM_LOCAL), 0); /* ldr x0, [sp] */
	ck_assert_uint_eq(encode(0xa94007e0, TAGTSO_FORM_LOCAL), 0); /* ldp x0, x1, [sp] */
	ck_assert_uint_eq(encode(0xf82103e0, TAGTSO_FORM_LOCAL), 0); /* ldadd x1, x0, [sp] */
	ck_assert_uint_ne(encode(0xf84087e0, TAGTSO_FORM_LOCAL), 0); /* ldr x0, [sp], #8 */
	ck_assert_uint_ne(encode(0xf8616be0, TAGTSO_FORM_LOCAL), 0); /* ldr x0, [sp, x1] */
}
END_TEST

START_TEST(bad_scratch_registers_are_refused)
{
	static const struct tagtso_scratch bad[] = {
		{ .a = 8, .b = 8 }, { .a = 31, .b = 9 }, { .a = 8, .b = 31 }, { .a = 40, .b = 9 }
	};
	uint32_t out[TAGTSO_ISLAND_WORDS];
	struct tagtso_memop op;

	tagtso_decode(0xf9400020, &op);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_uint_eq(tagtso_form_encode(&op, TAGTSO_FORM_MIXED, bad[i], 0x1000, 0x2000, out), 0);
}
END_TEST

START_TEST(an_island_out_of_reach_is_refused)
{
	static const int64_t limit = 1 << 27;
	uint32_t out[TAGTSO_ISLAND_WORDS];
	const uint64_t site = 0x7f0000000000;
	struct tagtso_memop op;

	tagtso_decode(0xf9400020, &op);
	ck_assert_uint_eq(tagtso_form_encode(&op, TAGTSO_FORM_MIXED, scratch, site, site + limit, out), 0);
	ck_assert_uint_eq(tagtso_form_encode(&op, TAGTSO_FORM_MIXED, scratch, site, site + limit - 64, out), 0);
	ck_assert_uint_ne(tagtso_form_encode(&op, TAGTSO_FORM_MIXED, scratch, site, site + limit - 192, out), 0);
	ck_assert_uint_eq(tagtso_form_encode(&op, TAGTSO_FORM_MIXED, scratch, site, site - limit, out), 0);
	ck_assert_uint_ne(tagtso_form_encode(&op, TAGTSO_FORM_MIXED, scratch, site, site - limit + 192, out), 0);
}
END_TEST

START_TEST(branches_reach_128_mb_either_way_and_no_further)
{
	const uint64_t from = 0x7f0000000000;

	ck_assert_uint_eq(tagtso_form_branch(from, from + 4), 0x14000001);
	ck_assert_uint_eq(tagtso_form_branch(from, from - 4), 0x17ffffff);
	ck_assert_uint_eq(tagtso_form_branch(from, from + (1 << 27) - 4), 0x15ffffff);
	ck_assert_uint_eq(tagtso_form_branch(from, from + (1 << 27)), 0);
	ck_assert_uint_eq(tagtso_form_branch(from, from - (1 << 27)), 0x16000000);
	ck_assert_uint_eq(tagtso_form_branch(from, from - (1 << 27) - 4), 0);
	ck_assert_uint_eq(tagtso_form_branch(from, from + 2), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("form");
	TCase *tc = tcase_create("form");
	SRunner *runner = srunner_create(suite);
	int failed;

	if (tagtso_opinion_open(&opinion))
		return 99;
	suite_add_tcase(suite, tc);
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, every_island_says_what_its_form_means);
	tcase_add_test(tc, a_barrier_is_taken_for_one_of_an_access_that_it_orders_and_that_is_not_ordered_by_itself);
	tcase_add_test(tc, an_instruction_that_uses_a_scratch_register_has_no_form);
	tcase_add_test(tc, a_tag_in_a_register_is_added_where_there_is_no_offset);
	tcase_add_test(tc, classes_without_forms_are_refused);
	tcase_add_test(tc, where_a_CPU_is_the_owner_there_is_no_form_inside_other_code);
	tcase_add_test(tc, the_emitted_form_has_no_island);
	tcase_add_test(tc, a_pair_loaded_into_its_own_base_is_refused);
	tcase_add_test(tc, an_access_that_the_hardware_does_not_check_is_refused);
	tcase_add_test(tc, bad_scratch_registers_are_refused);
	tcase_add_test(tc, an_island_out_of_reach_is_refused);
	tcase_add_test(tc, branches_reach_128_mb_either_way_and_no_further);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	tagtso_opinion_close(&opinion);
	return failed > 0;
}
