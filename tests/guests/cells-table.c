/* SPDX-License-Identifier: MIT */
/* The handler's table: what the granule is (mine, another's, shared, undecided) by the form of the site, for each kind of instruction. */
#include <string.h>

#include "cells.h"

enum state { MINE, OTHERS, IS_SHARED, UNDECIDED };
enum { A = 0x1122334455667788, LOW = 0x0807060504030201, HIGH = 0x1817161514131211 };

/* An instruction, and what it must do: the result, and m[] as the two words of memory afterwards. */
struct kind {
	const char *name;
	const struct snippet *snippet;
	uint64_t (*model)(uint64_t m[2]);
	bool fixed; /* has no other form than EMITTED */
};

static uint64_t model_ldr(uint64_t m[2])
{
	return m[0];
}
static uint64_t model_str(uint64_t m[2])
{
	return m[0] = A;
}
static uint64_t model_ldrb(uint64_t m[2])
{
	return m[0] & 0xff;
}
static uint64_t model_strh(uint64_t m[2])
{
	m[0] = (m[0] & ~(uint64_t)0xffff) | (A & 0xffff);
	return A;
}
static uint64_t model_sum(uint64_t m[2])
{
	return m[0] + m[1];
}
static uint64_t model_stp(uint64_t m[2])
{
	m[1] = (uint64_t)A + 1;
	return m[0] = A;
}
static uint64_t model_post(uint64_t m[2])
{
	return m[0] + 8;
}
static uint64_t model_high(uint64_t m[2])
{
	return m[1];
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
/* The comparison succeeds: it is with LOW, which is there. */
static uint64_t model_casp(uint64_t m[2])
{
	uint64_t old = m[0];

	if (m[1] == m[0] + 1)
		m[0] = m[1] = A;
	return old;
}

static const struct kind kinds[] = {
	{ "LDR", &snippet_ldr, model_ldr, false },
	{ "STR", &snippet_str, model_str, false },
	{ "LDRB", &snippet_ldrb, model_ldrb, false },
	{ "STRH", &snippet_strh, model_strh, false },
	{ "LDP", &snippet_ldp, model_sum, false },
	{ "STP", &snippet_stp, model_stp, false },
	{ "LDR Q", &snippet_ldr_q, model_sum, false },
	{ "STR Q", &snippet_str_q, model_stp, false },
	{ "LDR post-index", &snippet_ldr_post, model_post, false },
	{ "STR pre-index", &snippet_str_pre, model_str, false },
	{ "LDR register", &snippet_ldr_reg, model_high, false },
	{ "LD1 lane", &snippet_ld1_lane, model_ldr, false },
	{ "LD1R", &snippet_ld1r, model_ldr, false },
	{ "LDADDAL", &snippet_ldadd, model_add, false },
	{ "SWPA", &snippet_swpa, model_swap, false },
	{ "CASAL", &snippet_casal, model_swap, false },
	{ "CASPAL", &snippet_caspal, model_casp, false },
	{ "STLR", &snippet_stlr, model_str, false },
	{ "LDAPR", &snippet_ldapr, model_ldr, false },
	{ "LDAXR, STLXR", &snippet_llsc, model_add, true },
};

static struct worker other;

static uint64_t *memory_in(enum state state)
{
	uint64_t *p;

	switch (state) {
	case MINE:
		return cells_mine();
	case OTHERS:
		return cells_others(&other);
	case IS_SHARED:
		return cells_shared(&other);
	default:
		p = cells_map(PAGE);
		SAME(tag_of(p), BUSY, "the tag of memory that nobody touched");
		return p;
	}
}

static bool must_trap(enum state state, enum form form)
{
	if (form == LOCAL)
		return state != MINE;
	if (form == SHARED_FORM)
		return state != IS_SHARED;
	if (form == MIXED)
		return state != MINE && state != IS_SHARED;
	return true;
}

static void check_access(const struct kind *k, struct code c, uint64_t *p, bool trap, unsigned tag)
{
	uint64_t m[2] = { LOW, k->snippet == &snippet_caspal ? (uint64_t)LOW + 1 : (uint64_t)HIGH }, want;
	uint32_t trapped;

	plant(p, m[0]);
	plant(p + 1, m[1]);
	uint64_t got = cells_observe(c.fn, p, A, LOW, &trapped);

	want = k->model(m);
	SAME(got, want, k->name);
	SAME(peek(p), m[0], k->name);
	SAME(peek(p + 1), m[1], k->name);
	if (cells_cpu)
		return;
	CHECK(trapped == trap, "%s: %s", k->name, trap ? "no trap" : "a trap");
	SAME(tag_of(p), tag, k->name);
}

static void cell(enum state state, enum form form)
{
	cells_worker_start(&other);
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const struct kind *k = &kinds[i];
		struct code c = cells_emit(k->snippet);

		if (form != EMITTED && k->fixed)
			continue;
		if (!cells_train(c, form)) {
			FAIL("%s: the site does not come into its form", k->name);
			continue;
		}
		uint32_t word = *c.site;
		uint64_t *p = memory_in(state);

		check_access(k, c, p, must_trap(state, form), state == MINE || state == UNDECIDED ? my_tag() : SHARED);
		if (!cells_cpu)
			SAME(*c.site, word, "the word at the site");
		CHECK(form == EMITTED || word >> 26 == 5, "%s: the word at the rewritten site is no B: %08x", k->name,
		      word);
	}
}

#define CELL(state, form) \
	static void cell_##state##_##form(void) \
	{ \
		cell(state, form); \
	}
#define FORMS(state) CELL(state, EMITTED) CELL(state, LOCAL) CELL(state, SHARED_FORM) CELL(state, MIXED)
FORMS(MINE)
FORMS(OTHERS)
FORMS(IS_SHARED)
FORMS(UNDECIDED)

/* A site is not to change while it is looked at. */
#define STEADY "TAGTSO_HANDOVERS=0 TAGTSO_CONFLICTS=256"
#define CPU " TAGTSO_OWNER=cpu"
#define NEVER STEADY " TAGTSO_THRESHOLD=1000000"

const struct test cells_table[] = {
	TEST("mine-emitted", "an emitted site on the thread's own memory is served plain by a trap", cell_MINE_EMITTED,
	     NEVER, { "interpreted_plain", '>', 20 }, { "sites_rewritten", '=', 0 }),
	TEST("mine-local", "a LOCAL site on the thread's own memory does not trap", cell_MINE_LOCAL, STEADY,
	     { "forms_local", '>', 19 }, { "forms_mixed", '=', 0 }),
	TEST("mine-shared", "a SHARED site on the thread's own memory is served plain by a trap", cell_MINE_SHARED_FORM,
	     STEADY, { "forms_shared", '>', 19 }, { "traps_island", '>', 19 }),
	TEST("mine-mixed", "a MIXED site on the thread's own memory does not trap", cell_MINE_MIXED, STEADY,
	     { "forms_mixed", '>', 19 }),
	TEST("others-emitted", "an emitted site on another's memory makes it shared and is served ordered",
	     cell_OTHERS_EMITTED, NEVER, { "interpreted_ordered", '>', 20 }, { "revocations", '>', 20 },
	     { "handovers", '=', 0 }),
	TEST("others-local", "a LOCAL site on another's memory makes it shared and is served ordered",
	     cell_OTHERS_LOCAL, STEADY, { "forms_local", '>', 19 }, { "traps_island", '>', 19 }),
	TEST("others-shared", "a SHARED site on another's memory makes it shared and is served ordered",
	     cell_OTHERS_SHARED_FORM, STEADY, { "forms_shared", '>', 19 }, { "traps_island", '>', 19 }),
	TEST("others-mixed", "a MIXED site on another's memory makes it shared and is served ordered",
	     cell_OTHERS_MIXED, STEADY, { "forms_mixed", '>', 19 }, { "traps_island", '>', 19 }),
	TEST("shared-emitted", "an emitted site on shared memory is served ordered by a trap", cell_IS_SHARED_EMITTED,
	     NEVER, { "interpreted_ordered", '>', 20 }, { "sites_rewritten", '=', 0 }),
	TEST("shared-local", "a LOCAL site on shared memory is served ordered by a trap", cell_IS_SHARED_LOCAL, STEADY,
	     { "traps_island", '>', 19 }),
	TEST("shared-shared", "a SHARED site on shared memory does not trap", cell_IS_SHARED_SHARED_FORM, STEADY,
	     { "forms_shared", '>', 19 }, { "forms_mixed", '=', 0 }),
	TEST("shared-mixed", "a MIXED site on shared memory does not trap", cell_IS_SHARED_MIXED, STEADY,
	     { "forms_mixed", '>', 19 }),
	TEST("undecided-emitted", "an emitted site claims undecided memory", cell_UNDECIDED_EMITTED, NEVER,
	     { "claims", '>', 20 }, { "revocations", '=', 0 }),
	TEST("undecided-local", "a LOCAL site claims undecided memory", cell_UNDECIDED_LOCAL, STEADY,
	     { "claims", '>', 20 }),
	TEST("undecided-shared", "a SHARED site claims undecided memory", cell_UNDECIDED_SHARED_FORM, STEADY,
	     { "claims", '>', 20 }),
	TEST("undecided-mixed", "a MIXED site claims undecided memory", cell_UNDECIDED_MIXED, STEADY,
	     { "claims", '>', 20 }),
	/* Where the owner is a CPU: the values alone, since it may be another one at any time. */
	TEST("cpu-mine-emitted", "owner is a CPU: emitted sites on its memory do what they say", cell_MINE_EMITTED,
	     NEVER CPU, { "interpreted_plain", '>', 15 }, { "sites_rewritten", '=', 0 }),
	TEST("cpu-mine-local", "owner is a CPU: LOCAL sites on its memory do what they say", cell_MINE_LOCAL,
	     STEADY CPU, { "forms_local", '>', 19 }),
	TEST("cpu-mine-mixed", "owner is a CPU: MIXED sites on its memory do what they say", cell_MINE_MIXED,
	     STEADY CPU, { "forms_mixed", '>', 19 }),
	TEST("cpu-others-local", "owner is a CPU: LOCAL sites on another's memory do what they say", cell_OTHERS_LOCAL,
	     STEADY CPU, { "forms_local", '>', 19 }),
	TEST("cpu-shared-local", "owner is a CPU: LOCAL sites on shared memory do what they say", cell_IS_SHARED_LOCAL,
	     STEADY CPU, { "forms_local", '>', 19 }),
	TEST("cpu-shared-mixed", "owner is a CPU: MIXED sites on shared memory do what they say", cell_IS_SHARED_MIXED,
	     STEADY CPU, { "forms_mixed", '>', 19 }),
	TEST("cpu-undecided-mixed", "owner is a CPU: MIXED sites on undecided memory do what they say",
	     cell_UNDECIDED_MIXED, STEADY CPU, { "forms_mixed", '>', 19 }),
	TEST(NULL, NULL, NULL, NULL),
};
