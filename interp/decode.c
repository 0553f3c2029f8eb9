/* SPDX-License-Identifier: MIT */
/* The A64 decoder of encodings.def: finds the row of a word, then reads the fields that the row's format names. Handler code. */
#include "decode.h"

/* Which fields a row's words have; each has its function in field_readers[]. */
enum format {
	FORMAT_NONE, /* only in rows that are UNKNOWN or TAG */
	FORMAT_EXCLUSIVE,
	FORMAT_ORDERED,
	FORMAT_CAS,
	FORMAT_LSE,
	FORMAT_MULTI,
	FORMAT_LANE,
	FORMAT_DUP,
	FORMAT_LITERAL,
	FORMAT_PAIR,
	FORMAT_UNSIGNED,
	FORMAT_UNSCALED,
	FORMAT_POST,
	FORMAT_PRE,
	FORMAT_REGISTER,
	FORMAT_ZERO_BLOCK,
	FORMAT_NEAR, /* this and those below: rows that are OUT_OF_LINE */
	FORMAT_SVE_OFFSETS_32,
	FORMAT_SVE_OFFSETS_64,
	FORMAT_SVE_STORE_OFFSETS_32,
	FORMAT_SVE_VECTOR_IMMEDIATE,
	FORMAT_SVE_VECTOR_SCALAR,
	FORMAT_SVE_QUADWORDS,
	FORMAT_COPY,
	FORMAT_FILL,
};

/* Where the size of an element stands: a constant, or bits of the word. */
enum size_rule {
	SIZE_0,
	SIZE_1,
	SIZE_2,
	SIZE_3,
	SIZE_4,
	SIZE_31_30, /* bits 31:30 */
	SIZE_11_10, /* bits 11:10 */
	SIZE_2_30,  /* 2 + bit 30 */
	SIZE_2_31,  /* 2 + bit 31 */
};

/* The groups, in the order of encodings.def. */
enum group {
#define GROUP(name) GROUP_##name,
#define ENCODING(...)
#include "encodings.def"
	NGROUPS
#undef GROUP
#undef ENCODING
};

/* Numbers the rows, so that the compiler knows at which one each group begins: a GROUP takes no number of its own. */
enum row_number {
#define ROW_NUMBER_(n) ROW_##n
#define ROW_NUMBER(n) ROW_NUMBER_(n)
#define GROUP(name) FIRST_##name, BEFORE_##name = FIRST_##name - 1,
#define ENCODING(...) ROW_NUMBER(__COUNTER__),
#include "encodings.def"
	NROWS
#undef GROUP
#undef ENCODING
};

static const uint16_t group_first[NGROUPS + 1] = {
#define GROUP(name) FIRST_##name,
#define ENCODING(...)
#include "encodings.def"
	NROWS
#undef GROUP
#undef ENCODING
};

const struct tagtso_encoding tagtso_encodings[] = {
#define F(flag) TAGTSO_F_##flag
#define GROUP(name)
#define ENCODING(mask, value, cls, format, size, flags, name) \
	{ mask, value, flags, TAGTSO_##cls, FORMAT_##format, SIZE_##size, name },
#include "encodings.def"
#undef F
#undef GROUP
#undef ENCODING
};
const size_t tagtso_nencodings = sizeof(tagtso_encodings) / sizeof(tagtso_encodings[0]);
_Static_assert(sizeof(tagtso_encodings) / sizeof(tagtso_encodings[0]) == NROWS, "rows and their numbers agree");

static inline unsigned bits(uint32_t word, unsigned high, unsigned low)
{
	return (word >> low) & ((1u << (high - low + 1)) - 1);
}

/* A signed field: shifted up until its sign is bit 31, and arithmetically down again. */
static inline int32_t signed_bits(uint32_t word, unsigned high, unsigned low)
{
	return (int32_t)(word << (31 - high)) >> (31 - high + low);
}

/* "Loads and stores": op0 (bits 28:25) = x1x0. */
static inline bool is_load_store(uint32_t word)
{
	return (word & 0x0a000000) == 0x08000000;
}

/* Bits 29:28 = 11, bit 24 = 0: told apart by bits 21 and 11:10. */
static enum group register_group(uint32_t word)
{
	static const uint8_t groups[2][4] = {
		{ GROUP_UNSCALED, GROUP_POST, GROUP_UNPRIVILEGED, GROUP_PRE },
		{ GROUP_ATOMIC, GROUP_AUTHENTICATED, GROUP_REGISTER, GROUP_AUTHENTICATED },
	};

	return groups[bits(word, 21, 21)][bits(word, 11, 10)];
}

/* Bits 28:25: 0010 is SVE, 0000 holds SME; bit 31 tells their memory accesses from most of the rest. */
static enum group group_outside(uint32_t word)
{
	switch (word & 0x9e000000) {
	case 0x84000000:
		return GROUP_SVE;
	case 0x80000000:
		return GROUP_SME;
	default:
		return GROUP_OUTSIDE;
	}
}

/* Words of these spaces access memory, if they do anything at all. */
static bool is_memory(uint32_t word)
{
	return is_load_store(word) || (word & 0x9e000000) == 0x84000000 || (word & 0xfe000000) == 0xe0000000 ||
	       (word & 0xfe800000) == 0xa0000000;
}

/* The only group that can hold the word's row: few rows are then compared, not 300. */
static enum group group_of(uint32_t word)
{
	bool vector = bits(word, 26, 26), bit24 = bits(word, 24, 24);

	if (!is_load_store(word))
		return group_outside(word);
	switch (bits(word, 29, 28)) {
	case 0:
		if (vector)
			return GROUP_MULTI + bits(word, 24, 23);
		return bit24 ? GROUP_NONE : GROUP_EXCLUSIVE;
	case 1:
		if (!bit24)
			return GROUP_LITERAL;
		return vector ? GROUP_RCPC_VECTOR : GROUP_RCPC;
	case 2:
		return GROUP_PAIR_NT + bits(word, 24, 23);
	default:
		return bit24 ? GROUP_UNSIGNED : register_group(word);
	}
}
_Static_assert(GROUP_MULTI_POST == GROUP_MULTI + 1 && GROUP_LANE == GROUP_MULTI + 2 &&
                       GROUP_LANE_POST == GROUP_MULTI + 3,
               "structures are grouped by bits 24:23");
_Static_assert(GROUP_PAIR_POST == GROUP_PAIR_NT + 1 && GROUP_PAIR_OFFSET == GROUP_PAIR_NT + 2 &&
                       GROUP_PAIR_PRE == GROUP_PAIR_NT + 3,
               "pairs are grouped by bits 24:23");

static const struct tagtso_encoding *row_of(uint32_t word)
{
	enum group group = group_of(word);

	for (unsigned i = group_first[group]; i < group_first[group + 1]; i++) {
		if ((word & tagtso_encodings[i].mask) == tagtso_encodings[i].value)
			return &tagtso_encodings[i];
	}
	return NULL;
}

static uint8_t element_size(uint32_t word, enum size_rule rule)
{
	switch (rule) {
	case SIZE_31_30:
		return bits(word, 31, 30);
	case SIZE_11_10:
		return bits(word, 11, 10);
	case SIZE_2_30:
		return 2 + bits(word, 30, 30);
	case SIZE_2_31:
		return 2 + bits(word, 31, 31);
	default:
		return rule;
	}
}

static uint16_t direction(unsigned cls)
{
	static const uint16_t directions[TAGTSO_NCLASSES] = {
		[TAGTSO_LOAD] = TAGTSO_F_LOAD,
		[TAGTSO_STORE] = TAGTSO_F_STORE,
		[TAGTSO_LOAD_PAIR] = TAGTSO_F_LOAD,
		[TAGTSO_STORE_PAIR] = TAGTSO_F_STORE,
		[TAGTSO_LSE] = TAGTSO_F_LOAD | TAGTSO_F_STORE,
		[TAGTSO_CAS] = TAGTSO_F_LOAD | TAGTSO_F_STORE,
		[TAGTSO_CASP] = TAGTSO_F_LOAD | TAGTSO_F_STORE,
		[TAGTSO_LOAD_EX] = TAGTSO_F_LOAD,
		[TAGTSO_STORE_EX] = TAGTSO_F_STORE,
		[TAGTSO_LOAD_EX_PAIR] = TAGTSO_F_LOAD,
		[TAGTSO_STORE_EX_PAIR] = TAGTSO_F_STORE,
		[TAGTSO_LOAD_LANE] = TAGTSO_F_LOAD,
		[TAGTSO_STORE_LANE] = TAGTSO_F_STORE,
		[TAGTSO_LOAD_DUP] = TAGTSO_F_LOAD,
		[TAGTSO_LOAD_MULTI] = TAGTSO_F_LOAD,
		[TAGTSO_STORE_MULTI] = TAGTSO_F_STORE,
		[TAGTSO_ZERO_BLOCK] = TAGTSO_F_STORE,
	};

	return directions[cls];
}

static uint8_t register_width(const struct tagtso_memop *op)
{
	if (op->cls == TAGTSO_PREFETCH || op->cls == TAGTSO_OUT_OF_LINE || (op->flags & TAGTSO_F_VECTOR))
		return 0;
	return op->cls == TAGTSO_ZERO_BLOCK || op->size == 3 || (op->flags & TAGTSO_F_WIDE) ? 64 : 32;
}

static void read_exclusive(struct tagtso_memop *op)
{
	bool pair = op->cls == TAGTSO_LOAD_EX_PAIR || op->cls == TAGTSO_STORE_EX_PAIR;

	if (pair) {
		op->count = 2;
		op->rt2 = bits(op->word, 14, 10);
	}
	if (op->cls == TAGTSO_STORE_EX || op->cls == TAGTSO_STORE_EX_PAIR)
		op->rs = bits(op->word, 20, 16);
}

static void read_cas(struct tagtso_memop *op)
{
	op->rs = bits(op->word, 20, 16);
	op->count = op->cls == TAGTSO_CASP ? 2 : 1;
	op->flags |= bits(op->word, 22, 22) ? TAGTSO_F_ACQUIRE : 0;
	op->flags |= bits(op->word, 15, 15) ? TAGTSO_F_RELEASE : 0;
}

static void read_lse(struct tagtso_memop *op)
{
	op->rs = bits(op->word, 20, 16);
	op->lse = bits(op->word, 15, 15) ? TAGTSO_LSE_SWP : TAGTSO_LSE_ADD + bits(op->word, 14, 12);
	op->flags |= bits(op->word, 23, 23) ? TAGTSO_F_ACQUIRE : 0;
	op->flags |= bits(op->word, 22, 22) ? TAGTSO_F_RELEASE : 0;
}

/* Structure loads and stores: bit 23 says post-index, Rm = 11111 then means the number of bytes transferred. */
static void read_post_index(struct tagtso_memop *op)
{
	unsigned rm = bits(op->word, 20, 16);

	if (!bits(op->word, 23, 23))
		return;
	if (rm == 31) {
		op->addressing = TAGTSO_ADDR_POST;
		op->imm = (int32_t)tagtso_memop_bytes(op);
	} else {
		op->addressing = TAGTSO_ADDR_POST_REG;
		op->rm = rm;
	}
}

static void read_multi(struct tagtso_memop *op)
{
	static const uint8_t counts[16] = { [7] = 1, [10] = 2, [6] = 3, [2] = 4 };

	op->count = counts[bits(op->word, 15, 12)];
	op->flags |= bits(op->word, 30, 30) ? TAGTSO_F_Q : 0;
	read_post_index(op);
}

static void read_dup(struct tagtso_memop *op)
{
	op->rt2 = bits(op->word, 30, 30);
	op->flags |= op->rt2 ? TAGTSO_F_Q : 0;
	read_post_index(op);
}

/* Q:S:size is the number of a byte lane; a wider lane's number is its upper part. */
static void read_lane(struct tagtso_memop *op)
{
	op->index = (bits(op->word, 30, 30) << 3 | bits(op->word, 12, 10)) >> op->size;
	read_post_index(op);
}

static void read_pair(struct tagtso_memop *op)
{
	static const uint8_t addressing[4] = { TAGTSO_ADDR_OFFSET, TAGTSO_ADDR_POST, TAGTSO_ADDR_OFFSET,
		                               TAGTSO_ADDR_PRE };

	op->count = 2;
	op->rt2 = bits(op->word, 14, 10);
	op->addressing = addressing[bits(op->word, 24, 23)];
	op->imm = signed_bits(op->word, 21, 15) * (1 << op->size);
}

static void read_literal(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_ADDR_LITERAL;
	op->rn = 31;
	op->imm = signed_bits(op->word, 23, 5) * 4;
}

static void read_unsigned(struct tagtso_memop *op)
{
	op->imm = (int32_t)(bits(op->word, 21, 10) << op->size);
}

static void read_unscaled(struct tagtso_memop *op)
{
	op->imm = signed_bits(op->word, 20, 12);
}

static void read_post(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_ADDR_POST;
	op->imm = signed_bits(op->word, 20, 12);
}

static void read_pre(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_ADDR_PRE;
	op->imm = signed_bits(op->word, 20, 12);
}

static void read_register(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_ADDR_REG;
	op->rm = bits(op->word, 20, 16);
	op->extend = bits(op->word, 15, 13);
	op->shift = bits(op->word, 12, 12) ? op->size : 0;
}

/* rt, rn and a zero offset, which all formats start from, are all there is. */
static void read_nothing(struct tagtso_memop *op)
{
	(void)op;
}

static void read_zero_block(struct tagtso_memop *op)
{
	op->rn = op->rt;
}

static void read_near(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_REACH_NEAR;
}

/* Offsets that bit 21 scales by msz, bits 24:23. */
static void read_offsets(struct tagtso_memop *op, uint8_t extend)
{
	op->addressing = TAGTSO_REACH_OFFSETS;
	op->rs = bits(op->word, 12, 10);
	op->rm = bits(op->word, 20, 16);
	op->extend = extend;
	op->shift = bits(op->word, 21, 21) ? bits(op->word, 24, 23) : 0;
}

static void read_sve_offsets_32(struct tagtso_memop *op)
{
	read_offsets(op, bits(op->word, 22, 22) ? 6 : 2);
}

static void read_sve_store_offsets_32(struct tagtso_memop *op)
{
	read_offsets(op, bits(op->word, 14, 14) ? 6 : 2);
}

static void read_sve_offsets_64(struct tagtso_memop *op)
{
	read_offsets(op, 3);
}

static void read_sve_vector_immediate(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_REACH_VECTOR;
	op->rs = bits(op->word, 12, 10);
	op->imm = (int32_t)(bits(op->word, 20, 16) << bits(op->word, 24, 23));
}

static void read_sve_vector_scalar(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_REACH_VECTOR;
	op->rs = bits(op->word, 12, 10);
	op->rm = bits(op->word, 20, 16);
}

static void read_sve_quadwords(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_REACH_QUADWORDS;
	op->rm = bits(op->word, 20, 16);
}

/* The row's size column says whether the prologue is over. */
static void read_copy(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_REACH_COPY;
	op->rs = bits(op->word, 20, 16);
	op->index = op->size;
}

static void read_fill(struct tagtso_memop *op)
{
	op->addressing = TAGTSO_REACH_FILL;
	op->index = op->size;
}

static void (*const field_readers[])(struct tagtso_memop *op) = {
	[FORMAT_EXCLUSIVE] = read_exclusive,
	[FORMAT_ORDERED] = read_nothing,
	[FORMAT_CAS] = read_cas,
	[FORMAT_LSE] = read_lse,
	[FORMAT_MULTI] = read_multi,
	[FORMAT_LANE] = read_lane,
	[FORMAT_DUP] = read_dup,
	[FORMAT_LITERAL] = read_literal,
	[FORMAT_PAIR] = read_pair,
	[FORMAT_UNSIGNED] = read_unsigned,
	[FORMAT_UNSCALED] = read_unscaled,
	[FORMAT_POST] = read_post,
	[FORMAT_PRE] = read_pre,
	[FORMAT_REGISTER] = read_register,
	[FORMAT_ZERO_BLOCK] = read_zero_block,
	[FORMAT_NEAR] = read_near,
	[FORMAT_SVE_OFFSETS_32] = read_sve_offsets_32,
	[FORMAT_SVE_OFFSETS_64] = read_sve_offsets_64,
	[FORMAT_SVE_STORE_OFFSETS_32] = read_sve_store_offsets_32,
	[FORMAT_SVE_VECTOR_IMMEDIATE] = read_sve_vector_immediate,
	[FORMAT_SVE_VECTOR_SCALAR] = read_sve_vector_scalar,
	[FORMAT_SVE_QUADWORDS] = read_sve_quadwords,
	[FORMAT_COPY] = read_copy,
	[FORMAT_FILL] = read_fill,
};

/* Write-back to a register that the same instruction loads or stores. */
static bool writes_back_over_data(const struct tagtso_memop *op)
{
	bool write_back = op->addressing == TAGTSO_ADDR_PRE || op->addressing == TAGTSO_ADDR_POST;
	bool pair = op->cls == TAGTSO_LOAD_PAIR || op->cls == TAGTSO_STORE_PAIR;

	if (!write_back || (op->flags & TAGTSO_F_VECTOR) || op->rn == 31)
		return false;
	return op->rn == op->rt || (pair && op->rn == op->rt2);
}

/* The status register of a store-exclusive is also its data or its base. */
static bool status_collides(const struct tagtso_memop *op)
{
	return op->rs == op->rt || (op->cls == TAGTSO_STORE_EX_PAIR && op->rs == op->rt2) ||
	       (op->rs == op->rn && op->rn != 31);
}

/* What the architecture calls CONSTRAINED UNPREDICTABLE (DDI 0487, K1.2): cores differ in what these do, so we do not guess (I1).
 * Also DC ZVA with XZR: it can only fault, and rn = 31 would say SP. */
static bool is_unpredictable(const struct tagtso_memop *op)
{
	switch (op->cls) {
	case TAGTSO_LOAD:
	case TAGTSO_STORE:
	case TAGTSO_STORE_PAIR:
		return writes_back_over_data(op);
	case TAGTSO_LOAD_PAIR:
		return op->rt == op->rt2 || writes_back_over_data(op);
	case TAGTSO_LOAD_EX_PAIR:
		return op->rt == op->rt2;
	case TAGTSO_STORE_EX:
	case TAGTSO_STORE_EX_PAIR:
		return status_collides(op);
	case TAGTSO_ZERO_BLOCK:
		return op->rt == 31;
	default:
		return false;
	}
}

static bool not_executable(uint32_t word, struct tagtso_memop *op, enum tagtso_class cls)
{
	*op = (struct tagtso_memop){ .word = word, .cls = cls, .rt = 31, .rt2 = 31, .rn = 31, .rm = 31, .rs = 31 };
	return false;
}

bool tagtso_decode(uint32_t word, struct tagtso_memop *op)
{
	const struct tagtso_encoding *row = row_of(word);

	if (!row)
		return not_executable(word, op, is_memory(word) ? TAGTSO_UNKNOWN : TAGTSO_OTHER);
	if (row->cls == TAGTSO_UNKNOWN || row->cls == TAGTSO_TAG)
		return not_executable(word, op, row->cls);
	*op = (struct tagtso_memop){
		.word = word,
		.cls = row->cls,
		.flags = row->flags | direction(row->cls),
		.size = element_size(word, row->size),
		.count = 1,
		.rt = bits(word, 4, 0),
		.rn = bits(word, 9, 5),
		.rt2 = 31,
		.rm = 31,
		.rs = 31,
	};
	op->regwidth = register_width(op);
	field_readers[row->format](op);
	if (is_unpredictable(op))
		return not_executable(word, op, TAGTSO_UNKNOWN);
	return op->cls != TAGTSO_OUT_OF_LINE;
}

unsigned tagtso_memop_rare_bytes(const struct tagtso_memop *op)
{
	switch (op->cls) {
	case TAGTSO_LOAD_MULTI:
	case TAGTSO_STORE_MULTI:
		return op->count * (op->flags & TAGTSO_F_Q ? 16 : 8);
	case TAGTSO_ZERO_BLOCK:
		return 64;
	default:
		return 0;
	}
}

const char *tagtso_class_name(unsigned cls)
{
	static const char *const names[TAGTSO_NCLASSES] = {
		[TAGTSO_OTHER] = "other",
		[TAGTSO_UNKNOWN] = "unknown",
		[TAGTSO_LOAD] = "load",
		[TAGTSO_STORE] = "store",
		[TAGTSO_LOAD_PAIR] = "load-pair",
		[TAGTSO_STORE_PAIR] = "store-pair",
		[TAGTSO_LSE] = "atomic",
		[TAGTSO_CAS] = "compare-and-swap",
		[TAGTSO_CASP] = "compare-and-swap-pair",
		[TAGTSO_LOAD_EX] = "load-exclusive",
		[TAGTSO_STORE_EX] = "store-exclusive",
		[TAGTSO_LOAD_EX_PAIR] = "load-exclusive-pair",
		[TAGTSO_STORE_EX_PAIR] = "store-exclusive-pair",
		[TAGTSO_LOAD_LANE] = "load-lane",
		[TAGTSO_STORE_LANE] = "store-lane",
		[TAGTSO_LOAD_DUP] = "load-replicate",
		[TAGTSO_LOAD_MULTI] = "load-vectors",
		[TAGTSO_STORE_MULTI] = "store-vectors",
		[TAGTSO_PREFETCH] = "prefetch",
		[TAGTSO_ZERO_BLOCK] = "zero-block",
		[TAGTSO_OUT_OF_LINE] = "out-of-line",
		[TAGTSO_TAG] = "memory-tag",
	};

	return cls < TAGTSO_NCLASSES ? names[cls] : "invalid";
}
