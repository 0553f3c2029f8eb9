/* SPDX-License-Identifier: MIT */
/* The decoder: fields of each encoding, the table's shape, words it must decline, and random words against Capstone. */
#include <check.h>
#include <inttypes.h>
#include <time.h>

#include "decode_oracle.h"

/* ---- words made by the assembler -------------------------------------------------------------------------------- */

struct vector {
	uint32_t word;
	const char *text;
	uint8_t cls, bytes, width;
	uint16_t flags;
};

/* The flags as decode_vectors.def writes them. */
enum {
	NONE = 0,
	VECTOR = TAGTSO_F_VECTOR,
	SIGNED = TAGTSO_F_SIGNED,
	WIDE = TAGTSO_F_WIDE,
	ACQUIRE = TAGTSO_F_ACQUIRE,
	RELEASE = TAGTSO_F_RELEASE,
	RCPC = TAGTSO_F_RCPC,
	Q = TAGTSO_F_Q,
	LOAD = TAGTSO_F_LOAD,
	STORE = TAGTSO_F_STORE,
	UNPRIV = TAGTSO_F_UNPRIV,
};

static const struct vector vectors[] = {
#define V(word, text, cls, bytes, width, flags) { word, text, TAGTSO_##cls, bytes, width, flags },
#include "decode_vectors.def"
#undef V
};
enum { NVECTORS = sizeof(vectors) / sizeof(vectors[0]) };

/* For millions of words: ck_assert() tells the parent about each call through a pipe, this only about a failure. */
#define require(condition, ...) \
	do { \
		if (!(condition)) \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

static struct tagtso_memop decoded(uint32_t word)
{
	struct tagtso_memop op;
	bool executable = tagtso_decode(word, &op);

	require(op.word == word, "%08" PRIx32 ": the word is not kept", word);
	require(executable == (op.cls > TAGTSO_UNKNOWN && op.cls < TAGTSO_OUT_OF_LINE),
	        "%08" PRIx32 ": the answer does not fit the class", word);
	return op;
}

START_TEST(test_each_assembled_word_decodes_to_its_instruction)
{
	for (unsigned i = 0; i < NVECTORS; i++) {
		const struct vector *vector = &vectors[i];
		struct tagtso_memop op = decoded(vector->word);
		struct line line;

		describe(&op, &line);
		ck_assert_str_eq(line.text, vector->text);
		ck_assert_msg(op.cls == vector->cls, "%s is %s", vector->text, tagtso_class_name(op.cls));
		ck_assert_msg(tagtso_memop_bytes(&op) == vector->bytes, "%s: %u bytes", vector->text,
		              tagtso_memop_bytes(&op));
		ck_assert_msg(op.regwidth == vector->width, "%s: %u bits", vector->text, op.regwidth);
		ck_assert_msg(op.flags == vector->flags, "%s: flags %#x", vector->text, op.flags);
	}
}
END_TEST

static const struct tagtso_encoding *row_of(uint32_t word)
{
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		if ((word & tagtso_encodings[i].mask) == tagtso_encodings[i].value)
			return &tagtso_encodings[i];
	}
	return NULL;
}

START_TEST(test_each_row_has_an_assembled_word)
{
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		const struct tagtso_encoding *row = &tagtso_encodings[i];
		unsigned hits = 0;

		for (unsigned v = 0; v < NVECTORS; v++)
			hits += row_of(vectors[v].word) == row;
		if (row->cls > TAGTSO_UNKNOWN && row->cls < TAGTSO_OUT_OF_LINE)
			ck_assert_msg(hits > 0, "no word for %s", row->name);
	}
}
END_TEST

START_TEST(test_assembled_words_agree_with_capstone)
{
	csh capstone;
	cs_insn *insn;

	ck_assert_int_eq(cs_open(CS_ARCH_ARM64, CS_MODE_ARM, &capstone), CS_ERR_OK);
	cs_option(capstone, CS_OPT_DETAIL, CS_OPT_ON);
	insn = cs_malloc(capstone);
	for (unsigned v = 0; v < NVECTORS; v++) {
		struct tagtso_memop op = decoded(vectors[v].word);
		struct line ours;
		struct opinion theirs;
		enum difference difference;

		describe(&op, &ours);
		ask_capstone(capstone, insn, op.word, &theirs);
		difference = compare(&op, &ours, &theirs);
		ck_assert_msg(difference == AGREED || explain(difference, ORACLE_CAPSTONE, op.word, &theirs),
		              "%08" PRIx32 ": %s: ours '%s', theirs '%s'", op.word, difference_names[difference],
		              ours.text, theirs.line.text);
	}
	cs_free(insn, 1);
	cs_close(&capstone);
}
END_TEST

/* ---- fields that the assembler's text does not show ---------------------------------------------------------------- */

START_TEST(test_register_fields_that_an_instruction_lacks_are_31)
{
	struct tagtso_memop op = decoded(0xf9400420); /* ldr x0, [x1, #8] */

	ck_assert_uint_eq(op.rt2, 31);
	ck_assert_uint_eq(op.rm, 31);
	ck_assert_uint_eq(op.rs, 31);
	op = decoded(0x58000080); /* ldr x0, #16 */
	ck_assert_uint_eq(op.rn, 31);
	op = decoded(0xd503201f); /* nop */
	ck_assert_uint_eq(op.rt & op.rt2 & op.rn & op.rm & op.rs, 31);
}
END_TEST

START_TEST(test_addressing_of_each_form_is_told_apart)
{
	static const struct {
		uint32_t word;
		uint8_t addressing;
		int32_t imm;
	} forms[] = {
		{ 0xf9400420, TAGTSO_ADDR_OFFSET, 8 },   /* ldr x0, [x1, #8] */
		{ 0xf85f8020, TAGTSO_ADDR_OFFSET, -8 },  /* ldur x0, [x1, #-8] */
		{ 0xf85f8c20, TAGTSO_ADDR_PRE, -8 },     /* ldr x0, [x1, #-8]! */
		{ 0xf8408420, TAGTSO_ADDR_POST, 8 },     /* ldr x0, [x1], #8 */
		{ 0xf8627820, TAGTSO_ADDR_REG, 0 },      /* ldr x0, [x1, x2, lsl #3] */
		{ 0x58000080, TAGTSO_ADDR_LITERAL, 16 }, /* ldr x0, #16 */
		{ 0xc8dffc20, TAGTSO_ADDR_OFFSET, 0 },   /* ldar x0, [x1] */
		{ 0xa8c10041, TAGTSO_ADDR_POST, 16 },    /* ldp x1, x0, [x2], #16 */
		{ 0xa9bf0041, TAGTSO_ADDR_PRE, -16 },    /* stp x1, x0, [x2, #-16]! */
		{ 0x0dc39000, TAGTSO_ADDR_POST_REG, 0 }, /* ld1 {v0.s}[1], [x0], x3 */
		{ 0x0ddf9000, TAGTSO_ADDR_POST, 4 },     /* ld1 {v0.s}[1], [x0], #4 */
		{ 0x4cdf6000, TAGTSO_ADDR_POST, 48 },    /* ld1 {v0.16b-v2.16b}, [x0], #48 */
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tagtso_memop op = decoded(forms[i].word);

		ck_assert_msg(op.addressing == forms[i].addressing && op.imm == forms[i].imm, "%08" PRIx32, op.word);
	}
}
END_TEST

START_TEST(test_an_index_is_shifted_by_the_size_or_not_at_all)
{
	struct tagtso_memop op = decoded(0xf862d820); /* ldr x0, [x1, w2, sxtw #3] */

	ck_assert_uint_eq(op.rm, 2);
	ck_assert_uint_eq(op.extend, 6);
	ck_assert_uint_eq(op.shift, 3);
	op = decoded(0xf862c820); /* ldr x0, [x1, w2, sxtw] */
	ck_assert_uint_eq(op.shift, 0);
	op = decoded(0x3ce27820); /* ldr q0, [x1, x2, lsl #4] */
	ck_assert_uint_eq(op.extend, 3);
	ck_assert_uint_eq(op.shift, 4);
	op = decoded(0x38627820); /* ldrb w0, [x1, x2, lsl #0] */
	ck_assert_uint_eq(op.shift, 0);
}
END_TEST

START_TEST(test_a_pair_counts_two_elements_and_a_lane_one)
{
	struct tagtso_memop op = decoded(0xad400440); /* ldp q0, q1, [x2] */

	ck_assert_uint_eq(op.count, 2);
	ck_assert_uint_eq(op.size, 4);
	op = decoded(0x4860fc82); /* caspal x0, x1, x2, x3, [x4] */
	ck_assert_uint_eq(op.count, 2);
	ck_assert_uint_eq(op.size, 3);
	op = decoded(0x4ddf5800); /* ld1 {v0.h}[7], [x0], #2 */
	ck_assert_uint_eq(op.count, 1);
	ck_assert_uint_eq(op.size, 1);
	ck_assert_uint_eq(op.index, 7);
}
END_TEST

START_TEST(test_ld1r_tells_the_width_of_its_destination_twice)
{
	struct tagtso_memop op = decoded(0x4d40c800); /* ld1r {v0.4s}, [x0] */

	ck_assert_uint_eq(op.rt2, 1);
	ck_assert(op.flags & TAGTSO_F_Q);
	op = decoded(0x0d40c800); /* ld1r {v0.2s}, [x0] */
	ck_assert_uint_eq(op.rt2, 0);
	ck_assert(!(op.flags & TAGTSO_F_Q));
}
END_TEST

START_TEST(test_an_atomic_without_result_is_the_load_form_with_xzr)
{
	struct tagtso_memop op = decoded(0xf820005f); /* stadd x0, [x2] */

	ck_assert_uint_eq(op.cls, TAGTSO_LSE);
	ck_assert_uint_eq(op.lse, TAGTSO_LSE_ADD);
	ck_assert_uint_eq(op.rt, 31);
	ck_assert_uint_eq(op.rs, 0);
	op = decoded(0xf8e08041); /* swpal x0, x1, [x2] */
	ck_assert_uint_eq(op.lse, TAGTSO_LSE_SWP);
}
END_TEST

START_TEST(test_dc_zva_names_its_address_in_rn_too)
{
	struct tagtso_memop op = decoded(0xd50b7423); /* dc zva, x3 */

	ck_assert_uint_eq(op.rt, 3);
	ck_assert_uint_eq(op.rn, 3);
	ck_assert_uint_eq(tagtso_memop_bytes(&op), 64);
}
END_TEST

/* ---- words to decline ---------------------------------------------------------------------------------------------- */

struct plain_word {
	uint32_t word;
	const char *text;
};

/* Memory accesses that are executed out of line; assembled by LLVM 19. */
static const struct plain_word out_of_line[] = {
	{ 0x4c408000, "ld2 {v0.16b, v1.16b}, [x0]" },
	{ 0x4c9f8800, "st2 {v0.4s, v1.4s}, [x0], #32" },
	{ 0x0d402c00, "ld3 {v0.b, v1.b, v2.b}[3], [x0]" },
	{ 0x4da1a400, "st4 {v0.d, v1.d, v2.d, v3.d}[1], [x0], x1" },
	{ 0x4d60e800, "ld4r {v0.4s, v1.4s, v2.4s, v3.4s}, [x0]" },
	{ 0x4d60c800, "ld2r {v0.4s, v1.4s}, [x0]" },
	{ 0xf83fd020, "ld64b x0, [x1]" },
	{ 0xf83f9020, "st64b x0, [x1]" },
	{ 0xf822b020, "st64bv x2, x0, [x1]" },
	{ 0xf8201420, "ldraa x0, [x1, #8]" },
	{ 0xf8fffc20, "ldrab x0, [x1, #-8]!" },
	{ 0xd9c00820, "ldapr x0, [x1], #8" },
	{ 0xd9800820, "stlr x0, [x1, #-8]!" },
	{ 0xd9410840, "ldiapp x0, x1, [x2], #16" },
	{ 0xd9010840, "stilp x0, x1, [x2, #-16]!" },
	{ 0x4d418420, "ldap1 {v0.d}[1], [x1]" },
	{ 0x0d018420, "stl1 {v0.d}[0], [x1]" },
	{ 0x1dc10820, "ldapur q0, [x1, #16]" },
	{ 0xdd000820, "stlur d0, [x1]" },
	{ 0x19218040, "swpp x0, x1, [x2]" },
	{ 0x19e11040, "ldclrpal x0, x1, [x2]" },
	{ 0x19200841, "rcwcas x0, x1, [x2]" },
	{ 0x3820a041, "rcwswp x0, x1, [x2]" },
	{ 0x38209020, "rcwclr x0, x0, [x1]" },
	{ 0x19010440, "cpyfp [x0]!, [x1]!, x2!" },
	{ 0x19c20420, "setp [x0]!, x1!, x2" },
	{ 0xd91f0c20, "gcsstr x0, [x1]" },
	{ 0xd50b7700, "gcspushm x0" },
	{ 0xf8a14858, "rprfm #0, x1, [x2]" },
	{ 0xa400a000, "ld1b {z0.b}, p0/z, [x0]" },
	{ 0xe581a000, "st1d {z0.d}, p0, [x0, z1.d]" },
	{ 0x85804000, "ldr z0, [x0]" },
	{ 0xe5800000, "str p0, [x0]" },
	{ 0x85c00000, "prfb pldl1keep, p0, [x0]" },
	{ 0xe01f0000, "ld1b {za0h.b[w12, 0]}, p0/z, [x0]" },
	{ 0xe1200000, "str za[w12, 0], [x0]" },
	{ 0xa0400000, "ld1b {z0.b, z1.b}, pn8/z, [x0]" },
};

/* Memory tags: never checked. */
static const struct plain_word tags[] = {
	{ 0xd9600020, "ldg x0, [x1]" },        { 0xd9201c20, "stg x0, [x1, #16]!" },
	{ 0xd9e01420, "stz2g x0, [x1], #16" }, { 0x69008440, "stgp x0, x1, [x2, #16]" },
	{ 0xd50b7460, "dc gva, x0" },          { 0xd50b7480, "dc gzva, x0" },
};

/* Unallocated, or CONSTRAINED UNPREDICTABLE, one bit or field away from an encoding of the table. */
static const struct plain_word invalid[] = {
	{ 0xd9e00020, "ldgm x0, [x1]" },
	{ 0xd50b743f, "dc zva, xzr" },
	{ 0xf8008421, "str x1, [x1], #8" },
	{ 0xf8408c21, "ldr x1, [x1, #8]!" },
	{ 0x38801421, "ldrsb x1, [x1], #1" },
	{ 0xa8c10821, "ldp x1, x2, [x1], #16" },
	{ 0xa8c10422, "ldp x2, x1, [x1], #16" },
	{ 0xa9bf0821, "stp x1, x2, [x1, #-16]!" },
	{ 0x69c10422, "ldpsw x2, x1, [x1, #8]!" },
	{ 0xa9400441, "ldp x1, x1, [x2]" },
	{ 0xa8400441, "ldnp x1, x1, [x2]" },
	{ 0x6d400441, "ldp d1, d1, [x2]" },
	{ 0xad400441, "ldp q1, q1, [x2]" },
	{ 0xc87f0441, "ldxp x1, x1, [x2]" },
	{ 0xc8017c41, "stxr w1, x1, [x2]" },
	{ 0xc8017c22, "stxr w1, x2, [x1]" },
	{ 0xc81f7c5f, "stxr wzr, xzr, [x2]" },
	{ 0xc8210462, "stxp w1, x2, x1, [x3]" },
	{ 0xc8210861, "stxp w1, x1, x2, [x3]" },
	{ 0xe9400820, "ldp with opc = 11" },
	{ 0xe9000820, "stp with opc = 11" },
	{ 0xed400820, "ldp of vectors with opc = 11" },
	{ 0x68400820, "ldpsw, non-temporal" },
	{ 0xf8620820, "ldr with option = 000" },
	{ 0xf8622820, "ldr with option = 001" },
	{ 0xf8628820, "ldr with option = 100" },
	{ 0xf862a820, "ldr with option = 101" },
	{ 0x3c622820, "ldr b0 with option = 001" },
	{ 0xb9c00000, "size 10, opc 11: ldrsw to 32 bits" },
	{ 0xf9c00000, "size 11, opc 11" },
	{ 0xf8800400, "size 11, opc 10, post-index: prfm with write-back" },
	{ 0xf8800c00, "size 11, opc 10, pre-index" },
	{ 0xf8800800, "size 11, opc 10, unprivileged" },
	{ 0x7d800000, "size 01, opc 10 of vectors" },
	{ 0xfdc00000, "size 11, opc 11 of vectors" },
	{ 0x3c000800, "unprivileged access of a vector" },
	{ 0x48217c82, "casp x1, ..: odd rs" },
	{ 0x48207c83, ".., x3, ..: odd rt" },
	{ 0x48207882, "casp with Rt2 = 11110" },
	{ 0xc8a07841, "cas with Rt2 = 11110" },
	{ 0xc85e7c20, "ldxr with Rs = 11110" },
	{ 0xc85f7820, "ldxr with Rt2 = 11110" },
	{ 0xc8037820, "stxr with Rt2 = 11110" },
	{ 0xc87e0820, "ldxp with Rs = 11110" },
	{ 0xc8defc20, "ldar with Rs = 11110" },
	{ 0xc89ff820, "stlr with Rt2 = 11110" },
	{ 0xf8bec020, "ldapr with Rs = 11110" },
	{ 0xf8ffc020, "ldapr with R = 1" },
	{ 0xf83fc020, "ldapr with A = 0" },
	{ 0x0d404400, "ld1 of an H lane with size = 01" },
	{ 0x0d408800, "ld1 of an S lane with size = 10" },
	{ 0x0d409400, "ld1 of a D lane with S = 1" },
	{ 0x0d40d000, "ld1r with S = 1" },
	{ 0x0d00c000, "st1r" },
	{ 0x0d410000, "ld1 of a lane, Rm not 0 without post-index" },
	{ 0x0c417000, "ld1, Rm not 0 without post-index" },
	{ 0x8c407000, "ld1 with bit 31" },
	{ 0x8d400000, "ld1 of a lane with bit 31" },
	{ 0x0c607000, "ld1 with bit 21" },
	{ 0x0c401000, "ld1 with opcode = 0001" },
	{ 0xdc000000, "ldr literal of vectors with opc = 11" },
	{ 0x99c00000, "ldapursw to 32 bits" },
	{ 0xd9800000, "ldapur with size 11, opc 10" },
	{ 0x3c200000, "ldadd of vectors" },
	{ 0x09000000, "size 00, bit 24 of the exclusives" },
	{ 0x38200400, "bits 21, 11:10 = 1 01" },
};

/* No memory accesses. */
static const struct plain_word others[] = {
	{ 0x00000000, "udf #0" },
	{ 0xffffffff, "unallocated" },
	{ 0xd503201f, "nop" },
	{ 0xd5033bbf, "dmb ish" },
	{ 0xd5033f5f, "clrex" },
	{ 0xd503203f, "yield" },
	{ 0xd50b7a20, "dc cvac, x0" },
	{ 0xd50b7520, "ic ivau, x0" },
	{ 0xb0000000, "adrp x0, #4096" },
	{ 0x8b020020, "add x0, x1, x2" },
	{ 0x14000002, "b #8" },
	{ 0xd61f0020, "br x1" },
	{ 0xd63f0200, "blr x16" },
	{ 0xd65f03c0, "ret" },
	{ 0xd4000001, "svc #0" },
	{ 0xd53bd040, "mrs x0, tpidr_el0" },
	{ 0x9adf1020, "irg x0, x1" },
	{ 0x91810420, "addg x0, x1, #16, #1" },
	{ 0x9ac20020, "subp x0, x1, x2" },
	{ 0x1e622820, "fadd d0, d1, d2" },
	{ 0x4e181c20, "mov v0.d[1], x1" },
	{ 0x6f00e400, "movi v0.2d, #0" },
	{ 0x4e020020, "tbl v0.16b, {v1.16b}, v2.16b" },
	{ 0x04e20020, "add z0.d, z1.d, z2.d" },
	{ 0x04e2a020, "adr z0.d, [z1.d, z2.d]" },
	{ 0x52800000, "mov w0, #0" },
	{ 0x9e670000, "fmov d0, x0" },
	{ 0x80800000, "fmopa za0.s, p0/m, p0/m, z0.s, z0.s" },
	{ 0xa0800000, "smopa za0.s, p0/m, p0/m, z0.b, z0.b" },
	{ 0xc0800000, "mov za0h.s[w12, 0], p0/m, z0.s" },
};

static void assert_class(const struct plain_word *words, size_t count, unsigned cls)
{
	for (size_t i = 0; i < count; i++) {
		struct tagtso_memop op = decoded(words[i].word);

		ck_assert_msg(op.cls == cls, "%08" PRIx32 " (%s) is %s", op.word, words[i].text,
		              tagtso_class_name(op.cls));
		ck_assert_uint_eq(tagtso_memop_bytes(&op), 0);
		if (cls != TAGTSO_OUT_OF_LINE)
			ck_assert_uint_eq(op.flags, 0);
	}
}

START_TEST(test_rare_memory_accesses_are_executed_out_of_line)
{
	assert_class(out_of_line, sizeof(out_of_line) / sizeof(out_of_line[0]), TAGTSO_OUT_OF_LINE);
}
END_TEST

START_TEST(test_memory_tags_are_a_class_of_their_own)
{
	assert_class(tags, sizeof(tags) / sizeof(tags[0]), TAGTSO_TAG);
}
END_TEST

/* Where a wrong field would leave a page unshared (I1). */
START_TEST(test_gathers_and_copies_say_which_memory_they_reach)
{
	static const struct {
		uint32_t word;
		uint8_t addressing, size, rn, rm, rs, extend, shift, index;
		int32_t imm;
	} forms[] = {
		{ 0xe581a000, TAGTSO_REACH_OFFSETS, 3, 0, 1, 0, 3, 0, 0, 0 }, /* st1d {z0.d}, p0, [x0, z1.d] */
		{ 0xe5a2a820, TAGTSO_REACH_OFFSETS, 3, 1, 2, 2, 3, 3, 0, 0 }, /* st1d {z0.d}, p2, [x1, z2.d, lsl #3] */
		{ 0xe5638c20, TAGTSO_REACH_OFFSETS, 2, 1, 3, 3, 2, 2, 0, 0 }, /* st1w {z0.s}, p3, [x1, z3.s, uxtw #2] */
		{ 0x85635420, TAGTSO_REACH_OFFSETS, 2, 1, 3, 5, 6, 2, 0,
		  0 }, /* ld1w {z0.s}, p5/z, [x1, z3.s, sxtw #2] */
		{ 0xc4037c20, TAGTSO_REACH_OFFSETS, 3, 1, 3, 7, 2, 0, 0,
		  0 }, /* ldff1b {z0.d}, p7/z, [x1, z3.d, uxtw] */
		{ 0xc5a1dc20, TAGTSO_REACH_VECTOR, 3, 1, 31, 7, 0, 0, 0, 8 },    /* ld1d {z0.d}, p7/z, [z1.d, #8] */
		{ 0xc582dc20, TAGTSO_REACH_VECTOR, 3, 1, 2, 7, 0, 0, 0, 0 },     /* ldnt1d {z0.d}, p7/z, [z1.d, x2] */
		{ 0xc402bc20, TAGTSO_REACH_QUADWORDS, 3, 1, 2, 31, 0, 0, 0, 0 }, /* ld1q {z0.q}, p7/z, [z1.d, x2] */
		{ 0x19010440, TAGTSO_REACH_COPY, 0, 2, 31, 1, 0, 0, 0, 0 },      /* cpyfp [x0]!, [x1]!, x2! */
		{ 0x1d810440, TAGTSO_REACH_COPY, 1, 2, 31, 1, 0, 0, 1, 0 },      /* cpye [x0]!, [x1]!, x2! */
		{ 0x19c24420, TAGTSO_REACH_FILL, 1, 1, 31, 31, 0, 0, 1, 0 },     /* setm [x0]!, x1!, x2 */
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tagtso_memop op = decoded(forms[i].word);

		ck_assert_msg(op.cls == TAGTSO_OUT_OF_LINE && op.addressing == forms[i].addressing &&
		                      op.size == forms[i].size && op.rn == forms[i].rn && op.rm == forms[i].rm &&
		                      op.rs == forms[i].rs && op.extend == forms[i].extend &&
		                      op.shift == forms[i].shift && op.index == forms[i].index &&
		                      op.imm == forms[i].imm,
		              "%08" PRIx32, op.word);
	}
}
END_TEST

START_TEST(test_unallocated_and_unpredictable_encodings_are_unknown)
{
	assert_class(invalid, sizeof(invalid) / sizeof(invalid[0]), TAGTSO_UNKNOWN);
}
END_TEST

START_TEST(test_instructions_without_memory_access_are_other)
{
	assert_class(others, sizeof(others) / sizeof(others[0]), TAGTSO_OTHER);
}
END_TEST

START_TEST(test_registers_may_repeat_where_nothing_forbids_it)
{
	ck_assert_uint_eq(decoded(0xf9400021).cls, TAGTSO_LOAD);            /* ldr x1, [x1] */
	ck_assert_uint_eq(decoded(0xf8008421 | 31 << 5).cls, TAGTSO_STORE); /* str x1, [sp], #8 */
	ck_assert_uint_eq(decoded(0xf80087ff).cls, TAGTSO_STORE);           /* str xzr, [sp], #8 */
	ck_assert_uint_eq(decoded(0xf8400821).cls, TAGTSO_LOAD);            /* ldtr x1, [x1] */
	ck_assert_uint_eq(decoded(0x3cc10421).cls, TAGTSO_LOAD);            /* ldr q1, [x1], #16 */
	ck_assert_uint_eq(decoded(0xacc10821).cls, TAGTSO_LOAD_PAIR);       /* ldp q1, q2, [x1], #32 */
	ck_assert_uint_eq(decoded(0xa9400821).cls, TAGTSO_LOAD_PAIR);       /* ldp x1, x2, [x1] */
	ck_assert_uint_eq(decoded(0xa9000441).cls, TAGTSO_STORE_PAIR);      /* stp x1, x1, [x2] */
	ck_assert_uint_eq(decoded(0xc85f7c21).cls, TAGTSO_LOAD_EX);         /* ldxr x1, [x1] */
	ck_assert_uint_eq(decoded(0xc81f7fe1).cls, TAGTSO_STORE_EX);        /* stxr wzr, x1, [sp] */
	ck_assert_uint_eq(decoded(0xf8210021).cls, TAGTSO_LSE);             /* ldadd x1, x1, [x1] */
	ck_assert_uint_eq(decoded(0x0dc19021).cls, TAGTSO_LOAD_LANE);       /* ld1 {v1.s}[1], [x1], x1 */
}
END_TEST

/* ---- the table ------------------------------------------------------------------------------------------------------ */

START_TEST(test_rows_do_not_overlap)
{
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		const struct tagtso_encoding *a = &tagtso_encodings[i];

		ck_assert_msg(!(a->value & ~a->mask), "%s: value outside its mask", a->name);
		for (size_t j = 0; j < i; j++) {
			const struct tagtso_encoding *b = &tagtso_encodings[j];

			ck_assert_msg((a->value ^ b->value) & a->mask & b->mask, "%s and %s overlap", a->name, b->name);
		}
	}
}
END_TEST

START_TEST(test_class_names_are_distinct)
{
	for (unsigned a = 0; a < TAGTSO_NCLASSES; a++) {
		ck_assert_ptr_nonnull(tagtso_class_name(a));
		for (unsigned b = 0; b < a; b++)
			ck_assert_str_ne(tagtso_class_name(a), tagtso_class_name(b));
	}
	ck_assert_str_eq(tagtso_class_name(TAGTSO_NCLASSES), "invalid");
}
END_TEST

/* ---- random words --------------------------------------------------------------------------------------------------- */

static uint64_t seed; /* written once, before the tests fork */

/* xorshift64*: any generator will do that a seed repeats. */
static uint32_t random_word(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1d >> 32;
}

enum { WORDS_PER_ROW = 5000, LOAD_STORE_WORDS = 1000000, ANY_WORDS = 300000 };

START_TEST(test_grouping_sends_each_word_to_its_row)
{
	uint64_t state = seed;

	for (size_t i = 0; i < tagtso_nencodings; i++) {
		const struct tagtso_encoding *row = &tagtso_encodings[i];
		unsigned hits = 0;

		for (unsigned n = 0; n < WORDS_PER_ROW; n++) {
			struct tagtso_memop op = decoded(row->value | (random_word(&state) & ~row->mask));

			require(op.cls == row->cls || op.cls == TAGTSO_UNKNOWN, "%08" PRIx32 ": %s", op.word,
			        row->name);
			hits += op.cls == row->cls;
		}
		ck_assert_msg(hits > WORDS_PER_ROW / 2, "%s: only %u words", row->name, hits);
	}
}
END_TEST

START_TEST(test_words_without_a_row_are_unknown_in_the_loads_and_stores_and_other_elsewhere)
{
	uint64_t state = seed;

	for (unsigned n = 0; n < LOAD_STORE_WORDS; n++) {
		uint32_t word = random_word(&state);
		bool load_store = (word >> 25 & 5) == 4, sve = (word & 0x9e000000) == 0x84000000,
		     sme = (word & 0xfe000000) == 0xe0000000 || (word & 0xfe800000) == 0xa0000000;

		require(row_of(word) || decoded(word).cls == (load_store || sve || sme ? TAGTSO_UNKNOWN : TAGTSO_OTHER),
		        "%08" PRIx32, word);
	}
}
END_TEST

struct tally {
	uint64_t agreed, explained;
};

static void compare_word(csh capstone, cs_insn *insn, uint32_t word, struct tally *tally)
{
	struct tagtso_memop op = decoded(word);
	struct line ours;
	struct opinion theirs;
	enum difference difference;

	describe(&op, &ours);
	ask_capstone(capstone, insn, word, &theirs);
	difference = compare(&op, &ours, &theirs);
	if (difference == AGREED) {
		tally->agreed++;
		return;
	}
	require(explain(difference, ORACLE_CAPSTONE, word, &theirs),
	        "%08" PRIx32 ": %s: ours '%s', theirs '%s'; again: "
	        "DECODE_SEED=%" PRIu64,
	        word, difference_names[difference], ours.text, theirs.line.text, seed);
	tally->explained++;
}

START_TEST(test_random_words_agree_with_capstone)
{
	struct tally tally = { 0, 0 };
	uint64_t state = seed;
	csh capstone;
	cs_insn *insn;

	ck_assert_int_eq(cs_open(CS_ARCH_ARM64, CS_MODE_ARM, &capstone), CS_ERR_OK);
	cs_option(capstone, CS_OPT_DETAIL, CS_OPT_ON);
	insn = cs_malloc(capstone);
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		for (unsigned n = 0; n < WORDS_PER_ROW; n++)
			compare_word(capstone, insn,
			             tagtso_encodings[i].value | (random_word(&state) & ~tagtso_encodings[i].mask),
			             &tally);
	}
	for (unsigned n = 0; n < LOAD_STORE_WORDS; n++)
		compare_word(capstone, insn, (random_word(&state) & ~0x0a000000) | 0x08000000, &tally);
	for (unsigned n = 0; n < ANY_WORDS; n++)
		compare_word(capstone, insn, random_word(&state), &tally);
	printf("Capstone %d: %" PRIu64 " words agree, %" PRIu64 " differ for a reason in decode_oracle.h\n",
	       CS_API_MAJOR, tally.agreed, tally.explained);
	cs_free(insn, 1);
	cs_close(&capstone);
}
END_TEST

/* ---- the suite ------------------------------------------------------------------------------------------------------ */

static Suite *decode_suite(void)
{
	Suite *suite = suite_create("decode");
	TCase *fields = tcase_create("fields"), *declined = tcase_create("declined"), *table = tcase_create("table"),
	      *sampled = tcase_create("random words");

	tcase_add_test(fields, test_each_assembled_word_decodes_to_its_instruction);
	tcase_add_test(fields, test_each_row_has_an_assembled_word);
	tcase_add_test(fields, test_assembled_words_agree_with_capstone);
	tcase_add_test(fields, test_register_fields_that_an_instruction_lacks_are_31);
	tcase_add_test(fields, test_addressing_of_each_form_is_told_apart);
	tcase_add_test(fields, test_an_index_is_shifted_by_the_size_or_not_at_all);
	tcase_add_test(fields, test_a_pair_counts_two_elements_and_a_lane_one);
	tcase_add_test(fields, test_ld1r_tells_the_width_of_its_destination_twice);
	tcase_add_test(fields, test_an_atomic_without_result_is_the_load_form_with_xzr);
	tcase_add_test(fields, test_dc_zva_names_its_address_in_rn_too);
	tcase_add_test(declined, test_rare_memory_accesses_are_executed_out_of_line);
	tcase_add_test(declined, test_memory_tags_are_a_class_of_their_own);
	tcase_add_test(declined, test_gathers_and_copies_say_which_memory_they_reach);
	tcase_add_test(declined, test_unallocated_and_unpredictable_encodings_are_unknown);
	tcase_add_test(declined, test_instructions_without_memory_access_are_other);
	tcase_add_test(declined, test_registers_may_repeat_where_nothing_forbids_it);
	tcase_add_test(table, test_rows_do_not_overlap);
	tcase_add_test(table, test_class_names_are_distinct);
	tcase_set_timeout(sampled, 300); /* under user-mode emulation */
	tcase_add_test(sampled, test_grouping_sends_each_word_to_its_row);
	tcase_add_test(sampled, test_words_without_a_row_are_unknown_in_the_loads_and_stores_and_other_elsewhere);
	tcase_add_test(sampled, test_random_words_agree_with_capstone);
	suite_add_tcase(suite, fields);
	suite_add_tcase(suite, declined);
	suite_add_tcase(suite, table);
	suite_add_tcase(suite, sampled);
	return suite;
}

int main(void)
{
	const char *chosen = getenv("DECODE_SEED");
	SRunner *runner = srunner_create(decode_suite());
	int failed;

	seed = chosen ? strtoull(chosen, NULL, 0) : (uint64_t)time(NULL);
	if (!seed)
		seed = 1; /* the generator would stay at 0 */
	printf("DECODE_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
