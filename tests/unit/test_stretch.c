/* SPDX-License-Identifier: MIT */
/* Runs random code as emitted and as a stretch, on a small machine with tags, and compares what both do to registers
 * and memory; wherever a thread could be interrupted in the stretch, leaving it there must come to the same end. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interp/decode.h"
#include "interp/island.h"
#include "interp/stretch.h"

enum {
	MEMORY = 1 << 14,
	MOST_STEPS = 600,
	OWN = 5,
	SHARED = 15,
	OTHER = 3,
	LENGTH = 60,
	BEFORE = 20,
	CODE_DISTANCE = 1 << 20
};
static const struct tagtso_scratch scratches[] = { { .a = 8, .b = 9, .c = 29 }, { .a = 8, .b = 9 } };

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

struct machine {
	unsigned long long r[TAGTSO_NREGS];
	unsigned char v[32][16];
	unsigned char memory[MEMORY];
	unsigned accesses;
};

static struct tagtso_stretch s;
static struct tagtso_island
	*island; /* at a host address; the code as emitted is CODE_DISTANCE further on, and not there */
static unsigned traps, resumed, joined, loops;

/* ---- the machine ---- */

/* What a granule's tag is. */
static unsigned tag_of(uint64_t address)
{
	uint64_t h = (address % MEMORY / 16) * UINT64_C(0x9e3779b97f4a7c15) >> 60;

	return h < 11 ? OWN : h < 14 ? SHARED : OTHER;
}

/* The emulator's own memory, without tags. */
static bool is_literal(uint64_t address)
{
	return address - s.pc < 1 << 16;
}

static bool passes(uint64_t address, unsigned bytes)
{
	unsigned tag = address >> 56 & 15;

	return tag == tag_of(address) && tag == tag_of(address + bytes - 1);
}

static void move(struct machine *m, uint64_t address, void *data, unsigned bytes, bool store)
{
	unsigned char *p = data;

	for (unsigned i = 0; i < bytes; i++) {
		unsigned char *at = &m->memory[(address + i) % MEMORY];

		if (store)
			*at = p[i];
		else
			p[i] = *at;
	}
}

static void move_register(struct machine *m, const struct tagtso_memop *op, unsigned reg, uint64_t address, bool store)
{
	uint64_t value = reg == 31 ? 0 : m->r[reg];
	unsigned bytes = 1u << op->size;

	if (op->flags & TAGTSO_F_VECTOR) {
		if (!store)
			memset(m->v[reg], 0, 16);
		move(m, address, m->v[reg], bytes, store);
		return;
	}
	if (!store)
		value = 0;
	move(m, address, &value, bytes, store);
	if (store || reg == 31)
		return;
	if (op->flags & TAGTSO_F_SIGNED)
		value = (uint64_t)((int64_t)(value << (64 - 8 * bytes)) >> (64 - 8 * bytes));
	m->r[reg] = op->regwidth == 32 ? (uint32_t)value : value;
}

static uint64_t address_of(const struct tagtso_memop *op, const struct machine *m)
{
	uint64_t rm = op->rm == 31 ? 0 : m->r[op->rm];

	switch (op->addressing) {
	case TAGTSO_ADDR_LITERAL:
		return m->r[TAGTSO_PC] + (uint64_t)(int64_t)op->imm;
	case TAGTSO_ADDR_OFFSET:
	case TAGTSO_ADDR_PRE:
		return m->r[op->rn] + (uint64_t)(int64_t)op->imm;
	case TAGTSO_ADDR_REG:
		rm = op->extend == 2 ? (uint32_t)rm : op->extend == 6 ? (uint64_t)(int32_t)rm : rm;
		return m->r[op->rn] + (rm << op->shift);
	default:
		return m->r[op->rn];
	}
}

static void perform(struct machine *m, const struct tagtso_memop *op, uint64_t address)
{
	bool store = op->cls == TAGTSO_STORE || op->cls == TAGTSO_STORE_PAIR;
	uint64_t old = 0, sum;
	unsigned bytes = 1u << op->size;

	m->accesses++;
	if (op->cls == TAGTSO_LSE) {
		move(m, address, &old, bytes, false);
		sum = old + (op->rs == 31 ? 0 : m->r[op->rs]);
		move(m, address, &sum, bytes, true);
		if (op->rt != 31)
			m->r[op->rt] = old;
	} else {
		move_register(m, op, op->rt, address, store);
		if (op->count == 2)
			move_register(m, op, op->rt2, address + bytes, store);
	}
	if (op->addressing == TAGTSO_ADDR_PRE || op->addressing == TAGTSO_ADDR_POST)
		m->r[op->rn] += (uint64_t)(int64_t)op->imm;
	m->r[TAGTSO_PC] += 4;
}

/* One instruction of ordinary code. `checked`: tags are compared; false = a tag check fault, with nothing changed. */
static bool step(struct machine *m, uint32_t word, bool checked)
{
	struct tagtso_memop op;
	unsigned rd = word & 31, rn = word >> 5 & 31;

	if (tagtso_decode(word, &op)) {
		uint64_t address = address_of(&op, m);

		if (checked && op.addressing != TAGTSO_ADDR_LITERAL &&
		    !(op.addressing == TAGTSO_ADDR_OFFSET && op.rn == 31) && !is_literal(address) &&
		    !passes(address, tagtso_memop_bytes(&op)))
			return false;
		perform(m, &op, address);
		return true;
	}
	if ((word & 0xffe0fc00) == 0x9ac01000) /* IRG */
		m->r[rd] = (m->r[rn] & ~(UINT64_C(15) << 56)) | (uint64_t)OWN << 56;
	else if ((word & 0xffe00c00) == 0xd9600000) /* LDG */
		m->r[rd] = (m->r[rd] & ~(UINT64_C(15) << 56)) | (uint64_t)tag_of(m->r[rn]) << 56;
	else if ((word & 0xfffff0ff) != 0xd50330bf) { /* DMB */
		ck_assert_msg(tagtso_alu_step(word, m->r), "%08" PRIx32, word);
		return true;
	}
	m->r[TAGTSO_PC] += 4;
	return true;
}

static uint32_t code_at(uint64_t pc)
{
	return pc >= s.pc && pc < s.pc + 4 * (uint64_t)s.n ? s.words[(pc - s.pc) / 4] : 0;
}

/* Until the code goes where there is none. False if it does not. */
static bool run_emitted(struct machine *m, unsigned steps)
{
	for (; steps && code_at(m->r[TAGTSO_PC]); steps--)
		step(m, code_at(m->r[TAGTSO_PC]), false);
	return !code_at(m->r[TAGTSO_PC]);
}

static bool in_island(uint64_t pc)
{
	return pc >= (uintptr_t)island->code && pc < (uintptr_t)(island->code + island->ncode);
}

/* The handler's part: the instruction as emitted, unchecked. */
static void interpret(struct machine *m)
{
	uint64_t at = m->r[TAGTSO_PC], go_on;
	struct tagtso_instruction in = tagtso_island_instruction(island, at);

	struct tagtso_memop op;
	uint64_t address;

	traps++;
	ck_assert_uint_ne(in.pc, 0);
	ck_assert(tagtso_decode(*(uint32_t *)(uintptr_t)at, &op));
	address = address_of(&op, m);
	m->r[TAGTSO_PC] = in.pc;
	ck_assert_uint_eq(in.word, code_at(in.pc));
	/* only the tag may have been wrong */
	ck_assert(tagtso_decode(in.word, &op));
	ck_assert_uint_eq(address << 8, address_of(&op, m) << 8);
	step(m, in.word, false);
	go_on = tagtso_island_resume(island, at);
	if (go_on) {
		m->r[TAGTSO_PC] = go_on;
		resumed++;
	}
}

/* From an entrance until the code goes where there is none, or for so many words. */
static bool run_stretch(struct machine *m, unsigned words, unsigned stop)
{
	unsigned done = 0;

	for (; words && (in_island(m->r[TAGTSO_PC]) || code_at(m->r[TAGTSO_PC])); words--) {
		uint64_t pc = m->r[TAGTSO_PC];
		unsigned index = (unsigned)((pc - s.pc) / 4);

		if (in_island(pc)) {
			if (done++ == stop) {
				tagtso_island_leave(island, m->r);
				return run_emitted(m, MOST_STEPS);
			}
			if (!step(m, *(uint32_t *)(uintptr_t)pc, true))
				interpret(m);
		} else if (s.entrance[index]) {
			m->r[TAGTSO_PC] = (uintptr_t)(island->code + s.enter[index]);
		} else {
			step(m, code_at(pc), false);
		}
	}
	return words;
}

/* ---- code ---- */

static bool is_scratch(unsigned r)
{
	return r == 8 || r == 9 || r == 29;
}

static bool uses_scratch(const struct tagtso_memop *op)
{
	return is_scratch(op->rn) || (!(op->flags & TAGTSO_F_VECTOR) && (is_scratch(op->rt) || is_scratch(op->rt2))) ||
	       is_scratch(op->rm) || is_scratch(op->rs);
}

static uint32_t random_access(void)
{
	for (;;) {
		const struct tagtso_encoding *e = &tagtso_encodings[random_bits() % tagtso_nencodings];
		uint32_t word = ((uint32_t)random_bits() & ~e->mask) | e->value;
		struct tagtso_memop op;

		/* few bases, so that they are met again, or loaded */
		if (random_bits() % 4)
			word = (word & ~UINT32_C(0x3e0)) | (10 + (uint32_t)random_bits() % 3) << 5;
		if (random_bits() % 2)
			word = (word & ~UINT32_C(0x1f)) | (10 + (uint32_t)random_bits() % 3);
		if (!tagtso_decode(word, &op) || uses_scratch(&op) || op.addressing == TAGTSO_ADDR_LITERAL)
			continue;
		if (op.cls == TAGTSO_LOAD || op.cls == TAGTSO_STORE || op.cls == TAGTSO_LOAD_PAIR ||
		    op.cls == TAGTSO_STORE_PAIR || op.cls == TAGTSO_LSE)
			return word;
	}
}

static unsigned random_register(void)
{
	unsigned r;

	do
		r = random_bits() % 2 ? 10 + (unsigned)(random_bits() % 3) : (unsigned)(random_bits() % 31);
	while (is_scratch(r));
	return r;
}

static uint32_t random_branch(unsigned i)
{
	int32_t to = (int32_t)(random_bits() % (LENGTH + 10)) - (int32_t)i - 5;
	uint32_t r = random_register();

	switch (random_bits() % 5) {
	case 0:
		return 0x14000000 | ((uint32_t)to & 0x03ffffff);
	case 1:
		return 0x54000000 | ((uint32_t)to & 0x7ffff) << 5 | (uint32_t)(random_bits() % 14);
	case 2:
		return 0xb4000000 | ((uint32_t)to & 0x7ffff) << 5 | r;
	case 3:
		return 0xb5000000 | ((uint32_t)to & 0x7ffff) << 5 | r;
	default:
		return 0x36000000 | (uint32_t)(random_bits() % 2) << 24 | (uint32_t)(random_bits() % 32) << 19 |
		       ((uint32_t)to & 0x3fff) << 5 | r;
	}
}

static uint32_t random_word(unsigned i)
{
	uint32_t d = random_register(), n = random_register(), m = random_register();
	static const uint32_t literals[] = { 0x18000000, 0x58000000, 0x98000000 };

	switch (random_bits() % 12) {
	case 0:
		return 0x91000000 | (uint32_t)(random_bits() % 64) << 10 | n << 5 | d; /* ADD */
	case 1:
		return 0xf1000000 | (uint32_t)(random_bits() % 64) << 10 | n << 5 | d; /* SUBS */
	case 2:
		return 0x8b000000 | m << 16 | n << 5 | d; /* ADD */
	case 3:
		return 0xd2800000 | (uint32_t)(random_bits() % 65536) << 5 | d; /* MOVZ */
	case 4:
	case 5:
		return random_branch(i);
	case 6: /* of words that are not executed: behind the code */
		return literals[random_bits() % 3] | (uint32_t)(LENGTH + 2 - i + random_bits() % 8) / 2 * 2 << 5 | d;
	default:
		return random_access();
	}
}

/* BEFORE words of nothing, then code; the emulator's literals lie behind. */
static void make_code(void)
{
	memset(&s, 0, sizeof(s));
	s.pc = (uintptr_t)island + CODE_DISTANCE;
	s.n = BEFORE + LENGTH;
	for (unsigned i = 0; i < LENGTH; i++) {
		struct tagtso_memop op;
		unsigned at = BEFORE + i;

		s.words[at] = random_word(i);
		if (tagtso_decode(s.words[at], &op) && random_bits() % 8 && tagtso_form_possible(&op, scratches[0]))
			s.form[at] = random_bits() % 3 ? TAGTSO_FORM_LOCAL : random_bits() % 4;
		s.entrance[at] = s.form[at] && random_bits() % 4 == 0;
	}
}

static void make_machine(struct machine *m)
{
	memset(m, 0, sizeof(*m));
	for (unsigned i = 0; i < 32; i++)
		m->r[i] = random_bits() & 0xffffffffff;
	for (unsigned i = 0; i < MEMORY; i++)
		m->memory[i] = (unsigned char)random_bits();
	m->r[TAGTSO_PC] = s.pc + 4 * BEFORE;
	m->r[TAGTSO_PSTATE] = random_bits() & 0xf0000000;
}

static bool make_stretch(struct tagtso_scratch scratch, unsigned most)
{
	if (!tagtso_stretch_plan(&s, most, scratch))
		return false;
	ck_assert(tagtso_stretch_encode(&s, scratch, (uintptr_t)island->code));
	*island = (struct tagtso_island){ .magic = TAGTSO_ISLAND_MAGIC,
		                          .pc = s.pc + 4 * (uint64_t)s.first,
		                          .ncode = (uint16_t)s.ncode,
		                          .norig = (uint16_t)(s.end - s.first),
		                          .retired = random_bits() % 4 == 0 };
	memcpy(island->code, s.code, 4 * s.ncode);
	for (unsigned i = s.first; i < s.end; i++)
		tagtso_island_orig(island)[i - s.first] = s.taken[i] ? s.words[i] : 0;
	memcpy(tagtso_island_map(island), s.map, 2 * s.ncode);
	return true;
}

/* ---- comparison ---- */

static void compare(const struct machine *is, const struct machine *meant, uint64_t from, unsigned stop)
{
	for (unsigned i = 0; i < TAGTSO_NREGS; i++)
		if (!is_scratch(i))
			ck_assert_msg(is->r[i] == meant->r[i],
			              "seed %#" PRIx64 ", left after %u: register %u is %#llx, meant %#llx", from, stop,
			              i, is->r[i], meant->r[i]);
	ck_assert_msg(!memcmp(is->memory, meant->memory, MEMORY), "seed %#" PRIx64 ", left after %u: memory", from,
	              stop);
	ck_assert_msg(!memcmp(is->v, meant->v, sizeof(is->v)), "seed %#" PRIx64 ", left after %u: vectors", from, stop);
	ck_assert_msg(is->accesses == meant->accesses, "seed %#" PRIx64 ", left after %u: %u accesses, meant %u", from,
	              stop, is->accesses, meant->accesses);
}

static void check_program(struct tagtso_scratch scratch)
{
	static struct machine before, meant, m;
	uint64_t from = seed;

	make_code();
	if (!make_stretch(scratch, 1 + (unsigned)(random_bits() % TAGTSO_STRETCH_MOST)))
		return;
	make_machine(&before);
	meant = before;
	if (!run_emitted(&meant, MOST_STEPS))
		return;
	joined++;
	for (unsigned i = s.first; i < s.end; i++)
		loops += s.taken[i] && s.head[i];
	m = before;
	ck_assert_msg(run_stretch(&m, 20 * MOST_STEPS, UINT32_MAX), "seed %#" PRIx64 ": no end", from);
	compare(&m, &meant, from, UINT32_MAX);
	for (unsigned stop = 0; stop < 40; stop++) {
		m = before;
		ck_assert_msg(run_stretch(&m, 20 * MOST_STEPS, stop), "seed %#" PRIx64 ": no end", from);
		compare(&m, &meant, from, stop);
	}
}

static void begin(void)
{
	unsigned bytes = tagtso_island_bytes(TAGTSO_STRETCH_WORDS, TAGTSO_STRETCH_WINDOW);

	island = aligned_alloc(TAGTSO_ISLAND_UNIT, bytes);
	ck_assert_ptr_nonnull(island);
}

static void end(void)
{
	free(island);
}

START_TEST(a_stretch_does_what_the_emitted_code_does_and_can_be_left_anywhere)
{
	for (unsigned i = 0; i < 8000; i++)
		check_program(scratches[i % 2]);
	printf("stretch: %u programs, %u loops, %u traps, %u went on in the stretch\n", joined, loops, traps, resumed);
	ck_assert_uint_gt(joined, 500);
	ck_assert_uint_gt(loops, 500);
	ck_assert_uint_gt(resumed, 500);
	ck_assert_uint_gt(traps, resumed);
}
END_TEST

static bool is_irg(uint32_t word)
{
	return (word & 0xffe0fc00) == 0x9ac01000;
}

static unsigned irgs(unsigned from, unsigned to)
{
	unsigned n = 0;

	for (unsigned i = from; i < to; i++)
		n += is_irg(s.code[i]);
	return n;
}

static void begin_code(const uint32_t *words, unsigned n)
{
	memset(&s, 0, sizeof(s));
	s.pc = (uintptr_t)island + CODE_DISTANCE;
	s.n = n;
	memcpy(s.words, words, n * sizeof(*words));
}

START_TEST(the_bases_of_a_loop_are_tagged_once)
{
	static const uint32_t words[] = {
		0xf9400142, /* ldr x2, [x10] */
		0xf9400541, /* head: ldr x1, [x10, #8] */
		0xf9000161, /* str x1, [x11] */
		0xf100058c, /* subs x12, x12, #1 */
		0x54ffffa1, /* b.ne head */
		0xf9000962, /* str x2, [x11, #16] */
	};
	enum { N = 6, HEAD = 1, BACK = 4 };

	begin_code(words, N);
	for (unsigned i = 0; i < N; i++)
		s.form[i] = i == 3 || i == 4 ? TAGTSO_FORM_EMITTED : TAGTSO_FORM_LOCAL;
	s.entrance[0] = s.entrance[2] = true;
	ck_assert(make_stretch(scratches[0], N));
	ck_assert_uint_eq(irgs(s.at[0], s.at[HEAD]), 2); /* x10; x11, which the way from above lacks */
	ck_assert_uint_eq(irgs(s.at[HEAD], s.ncode), 2); /* of the entrance within */
	ck_assert_uint_gt(s.enter[2], s.at[BACK]);
	ck_assert_uint_eq(irgs(s.enter[2], s.ncode), 2);
}
END_TEST

START_TEST(the_tag_alone_serves_accesses_without_offset)
{
	static const uint32_t words[] = {
		0xf9400142, /* ldr x2, [x10] */
		0xb9000162, /* str w2, [x11] */
		0xf840858d, /* ldr x13, [x12], #8 */
		0x3dc001a0, /* ldr q0, [x13] */
		0xf94005a2, /* ldr x2, [x13, #8] */
		0xd65f03c0, /* ret */
	};
	enum { N = 6, ACCESSES = 5 };

	begin_code(words, N);
	memset(s.form, TAGTSO_FORM_LOCAL, ACCESSES);
	s.entrance[0] = s.entrance[3] = true;
	ck_assert(make_stretch(scratches[0], N));
	ck_assert_uint_eq(irgs(s.at[0], s.enter[3]), 2); /* the tag; x13, for its offset */
	ck_assert_uint_eq(s.code[s.at[3]], 0x3cfd69a0);  /* ldr q0, [x13, x29] */
	ck_assert_uint_eq(irgs(s.enter[3], s.ncode), 1);
	ck_assert_uint_eq(s.code[s.enter[3] + 1], 0x92480fbd); /* and x29, x29, #0xf00000000000000 */
	ck_assert(make_stretch(scratches[1], N));
	ck_assert_uint_eq(irgs(s.at[0], s.at[4]), 4);
}
END_TEST

START_TEST(what_leads_to_no_access_is_left_where_it_is)
{
	static const uint32_t words[] = {
		0xf9400142, /* ldr x2, [x10] */
		0xb4000062, /* cbz x2, cold */
		0xf9000162, /* str x2, [x11] */
		0xd65f03c0, /* ret */
		0x91000442, /* cold: add x2, x2, #1 */
		0xd65f03c0, /* ret */
	};
	enum { N = 6 };

	begin_code(words, N);
	s.form[0] = s.form[2] = TAGTSO_FORM_LOCAL;
	s.entrance[0] = true;
	ck_assert(make_stretch(scratches[0], N));
	ck_assert(s.taken[0] && s.taken[1] && s.taken[2]);
	ck_assert(!s.taken[3] && !s.taken[4] && !s.taken[5]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stretch");
	TCase *tc = tcase_create("stretch");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tc);
	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, begin, end);
	tcase_add_test(tc, the_bases_of_a_loop_are_tagged_once);
	tcase_add_test(tc, the_tag_alone_serves_accesses_without_offset);
	tcase_add_test(tc, what_leads_to_no_access_is_left_where_it_is);
	tcase_add_test(tc, a_stretch_does_what_the_emitted_code_does_and_can_be_left_anywhere);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
