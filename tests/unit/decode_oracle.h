/* SPDX-License-Identifier: MIT */
/* What a disassembler says about a word against what tagtso_decode() says: for test_decode.c and decode_compare.c.
 *
 * Both sides are written out in the assembler's own syntax ("ldr x0, [x1, w2, sxtw #3]"), with numbers in decimal and a
 * prefetch operation as a number, and must then be the same text. Ours is written from the fields of struct tagtso_memop;
 * from the word itself come only the choices that the fields do not tell, because they make no difference to an access: LDR or
 * LDUR, LDAR or LDLAR, and so on. Theirs is written from the operands of Capstone's detail mode, not from its text.
 */
#ifndef TAGTSO_TESTS_DECODE_ORACLE_H
#define TAGTSO_TESTS_DECODE_ORACLE_H

#include <capstone/capstone.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "interp/decode.h"

/* A line of assembler that grows at its end. */
struct line {
	char text[160];
	size_t length;
};

__attribute__((format(printf, 2, 3))) static inline void put(struct line *line, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	line->length += vsnprintf(line->text + line->length, sizeof(line->text) - line->length, format, arguments);
	va_end(arguments);
	if (line->length >= sizeof(line->text))
		line->length = sizeof(line->text) - 1;
}

static inline bool starts_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* ---- ours ------------------------------------------------------------------------------------------------------ */

static inline unsigned word_bits(const struct tagtso_memop *op, unsigned high, unsigned low)
{
	return op->word >> low & ((2u << (high - low)) - 1);
}

static inline void put_register(struct line *line, unsigned number, unsigned width)
{
	if (number == 31)
		put(line, width == 64 ? "xzr" : "wzr");
	else
		put(line, "%c%u", width == 64 ? 'x' : 'w', number);
}

static inline void put_data(struct line *line, const struct tagtso_memop *op, unsigned number)
{
	if (op->flags & TAGTSO_F_VECTOR)
		put(line, "%c%u", "bhsdq"[op->size], number);
	else
		put_register(line, number, op->regwidth);
}

static inline void put_base(struct line *line, const struct tagtso_memop *op)
{
	if (op->rn == 31)
		put(line, "[sp");
	else
		put(line, "[x%u", op->rn);
}

static inline void put_index(struct line *line, const struct tagtso_memop *op)
{
	static const char *const extends[8] = { [2] = "uxtw", [3] = "lsl", [6] = "sxtw", [7] = "sxtx" };
	bool scaled = word_bits(op, 12, 12); /* a byte's index says "#0" when it is */

	put(line, ", ");
	put_register(line, op->rm, op->extend & 1 ? 64 : 32);
	if (scaled)
		put(line, ", %s #%u]", extends[op->extend], op->shift);
	else if (op->extend == 3)
		put(line, "]");
	else
		put(line, ", %s]", extends[op->extend]);
}

static inline void put_address(struct line *line, const struct tagtso_memop *op)
{
	if (op->addressing == TAGTSO_ADDR_LITERAL) {
		put(line, ", #%d", op->imm);
		return;
	}
	put(line, ", ");
	put_base(line, op);
	switch (op->addressing) {
	case TAGTSO_ADDR_OFFSET:
		if (op->imm)
			put(line, ", #%d", op->imm);
		put(line, "]");
		break;
	case TAGTSO_ADDR_PRE:
		put(line, ", #%d]!", op->imm);
		break;
	case TAGTSO_ADDR_POST:
		put(line, "], #%d", op->imm);
		break;
	case TAGTSO_ADDR_POST_REG:
		put(line, "], ");
		put_register(line, op->rm, 64);
		break;
	case TAGTSO_ADDR_REG:
		put_index(line, op);
		break;
	}
}

static inline const char *size_suffix(const struct tagtso_memop *op)
{
	if (op->flags & TAGTSO_F_VECTOR)
		return "";
	if (op->flags & TAGTSO_F_SIGNED)
		return op->size == 0 ? "sb" : op->size == 1 ? "sh" : "sw";
	return op->size == 0 ? "b" : op->size == 1 ? "h" : "";
}

static inline const char *order_suffix(const struct tagtso_memop *op)
{
	static const char *const orders[4] = { "", "a", "l", "al" };

	return orders[!!(op->flags & TAGTSO_F_ACQUIRE) + 2 * !!(op->flags & TAGTSO_F_RELEASE)];
}

static inline const char *single_stem(const struct tagtso_memop *op)
{
	bool register_space = word_bits(op, 29, 28) == 3, unsigned_offset = word_bits(op, 24, 24);

	if (op->flags & TAGTSO_F_RCPC)
		return register_space ? "apr" : "apur";
	if (op->flags & TAGTSO_F_ACQUIRE)
		return word_bits(op, 15, 15) ? "ar" : "lar";
	if (op->flags & TAGTSO_F_RELEASE)
		return word_bits(op, 29, 28) == 1 ? "lur" : word_bits(op, 15, 15) ? "lr" : "llr";
	if (op->flags & TAGTSO_F_UNPRIV)
		return "tr";
	return register_space && !unsigned_offset && op->addressing == TAGTSO_ADDR_OFFSET ? "ur" : "r";
}

static inline void put_single(struct line *line, const struct tagtso_memop *op)
{
	put(line, "%s%s%s ", op->flags & TAGTSO_F_LOAD ? "ld" : "st", single_stem(op), size_suffix(op));
	put_data(line, op, op->rt);
	put_address(line, op);
}

static inline void put_pair(struct line *line, const struct tagtso_memop *op)
{
	bool non_temporal = word_bits(op, 24, 23) == 0;

	put(line, "%s%s%s ", op->flags & TAGTSO_F_LOAD ? "ld" : "st", non_temporal ? "np" : "p", size_suffix(op));
	put_data(line, op, op->rt);
	put(line, ", ");
	put_data(line, op, op->rt2);
	put_address(line, op);
}

static inline void put_atomic(struct line *line, const struct tagtso_memop *op)
{
	static const char *const names[] = { "add", "clr", "eor", "set", "smax", "smin", "umax", "umin" };
	bool no_result = op->lse != TAGTSO_LSE_SWP && op->rt == 31 && !(op->flags & TAGTSO_F_ACQUIRE);

	if (op->lse == TAGTSO_LSE_SWP)
		put(line, "swp%s%s ", order_suffix(op), size_suffix(op));
	else
		put(line, "%s%s%s%s ", no_result ? "st" : "ld", names[op->lse], order_suffix(op), size_suffix(op));
	put_register(line, op->rs, op->regwidth);
	if (!no_result) {
		put(line, ", ");
		put_register(line, op->rt, op->regwidth);
	}
	put_address(line, op);
}

static inline void put_cas(struct line *line, const struct tagtso_memop *op)
{
	bool pair = op->cls == TAGTSO_CASP;

	put(line, "cas%s%s%s ", pair ? "p" : "", order_suffix(op), pair ? "" : size_suffix(op));
	for (unsigned i = 0; i < op->count; i++) {
		put_register(line, op->rs + i, op->regwidth);
		put(line, ", ");
	}
	put_register(line, op->rt, op->regwidth);
	if (pair) {
		put(line, ", ");
		put_register(line, op->rt + 1, op->regwidth);
	}
	put_address(line, op);
}

static inline void put_exclusive(struct line *line, const struct tagtso_memop *op)
{
	bool load = op->flags & TAGTSO_F_LOAD, pair = op->count == 2;

	put(line, "%s%sx%s%s ", load ? "ld" : "st", order_suffix(op), pair ? "p" : "r", pair ? "" : size_suffix(op));
	if (!load) {
		put_register(line, op->rs, 32);
		put(line, ", ");
	}
	put_register(line, op->rt, op->regwidth);
	if (pair) {
		put(line, ", ");
		put_register(line, op->rt2, op->regwidth);
	}
	put_address(line, op);
}

static inline void put_structure(struct line *line, const struct tagtso_memop *op)
{
	static const char *const arrangements[2][4] = { { "8b", "4h", "2s", "1d" }, { "16b", "8h", "4s", "2d" } };
	bool lane = op->cls == TAGTSO_LOAD_LANE || op->cls == TAGTSO_STORE_LANE;

	put(line, "%s1%s {", op->flags & TAGTSO_F_LOAD ? "ld" : "st", op->cls == TAGTSO_LOAD_DUP ? "r" : "");
	for (unsigned i = 0; i < op->count; i++) {
		put(line, "%sv%u.", i ? ", " : "", (op->rt + i) % 32);
		if (lane)
			put(line, "%c", "bhsd"[op->size]);
		else
			put(line, "%s", arrangements[!!(op->flags & TAGTSO_F_Q)][op->size]);
	}
	put(line, "}");
	if (lane)
		put(line, "[%u]", op->index);
	put_address(line, op);
}

static inline void put_prefetch(struct line *line, const struct tagtso_memop *op)
{
	bool unscaled = word_bits(op, 29, 28) == 3 && !word_bits(op, 24, 24) && op->addressing == TAGTSO_ADDR_OFFSET;

	put(line, "%s #%u", unscaled ? "prfum" : "prfm", op->rt);
	put_address(line, op);
}

/* OUT_OF_LINE: only what the fields say, which is the memory operand. */
static inline void put_reach(struct line *line, const struct tagtso_memop *op)
{
	static const char *const extends[8] = { [2] = ", uxtw", [3] = ", lsl", [6] = ", sxtw" };

	switch (op->addressing) {
	case TAGTSO_REACH_OFFSETS:
		put_base(line, op);
		put(line, ", z%u.%c", op->rm, "bhsd"[op->size]);
		if (op->extend != 3 || op->shift)
			put(line, "%s", extends[op->extend]);
		if (op->shift)
			put(line, " #%u", op->shift);
		put(line, "]");
		break;
	case TAGTSO_REACH_VECTOR:
	case TAGTSO_REACH_QUADWORDS:
		put(line, "[z%u.%c", op->rn, "bhsd"[op->size]);
		if (op->rm != 31)
			put(line, ", x%u", op->rm);
		if (op->imm)
			put(line, ", #%d", op->imm);
		put(line, "]");
		break;
	case TAGTSO_REACH_COPY:
		put(line, " [x%u]!, [x%u]!, ", op->rt, op->rs);
		put_register(line, op->rn, 64);
		put(line, "!");
		break;
	case TAGTSO_REACH_FILL:
		put(line, " [x%u]!, ", op->rt);
		put_register(line, op->rn, 64);
		put(line, "!, ");
		break;
	}
}

/* The instruction that the fields of op describe, as assembler text; empty for OTHER, UNKNOWN and TAG. */
static inline void describe(const struct tagtso_memop *op, struct line *line)
{
	line->length = 0;
	line->text[0] = '\0';
	switch (op->cls) {
	case TAGTSO_LOAD:
	case TAGTSO_STORE:
		put_single(line, op);
		break;
	case TAGTSO_LOAD_PAIR:
	case TAGTSO_STORE_PAIR:
		put_pair(line, op);
		break;
	case TAGTSO_LSE:
		put_atomic(line, op);
		break;
	case TAGTSO_CAS:
	case TAGTSO_CASP:
		put_cas(line, op);
		break;
	case TAGTSO_LOAD_EX:
	case TAGTSO_STORE_EX:
	case TAGTSO_LOAD_EX_PAIR:
	case TAGTSO_STORE_EX_PAIR:
		put_exclusive(line, op);
		break;
	case TAGTSO_LOAD_LANE:
	case TAGTSO_STORE_LANE:
	case TAGTSO_LOAD_DUP:
	case TAGTSO_LOAD_MULTI:
	case TAGTSO_STORE_MULTI:
		put_structure(line, op);
		break;
	case TAGTSO_PREFETCH:
		put_prefetch(line, op);
		break;
	case TAGTSO_ZERO_BLOCK:
		put(line, "dc zva, ");
		put_register(line, op->rn, 64);
		break;
	case TAGTSO_OUT_OF_LINE:
		put_reach(line, op);
		break;
	}
}

/* ---- theirs: Capstone ------------------------------------------------------------------------------------------ */

/* Capstone 4 and 5 number arrangements differently and say a lane's size in different fields. */
static inline const char *arrangement(const cs_arm64_op *operand)
{
	switch (operand->vas) {
	case ARM64_VAS_8B:
		return "8b";
	case ARM64_VAS_16B:
		return "16b";
	case ARM64_VAS_4H:
		return "4h";
	case ARM64_VAS_8H:
		return "8h";
	case ARM64_VAS_2S:
		return "2s";
	case ARM64_VAS_4S:
		return "4s";
	case ARM64_VAS_1D:
		return "1d";
	case ARM64_VAS_2D:
		return "2d";
#if CS_API_MAJOR >= 5
	case ARM64_VAS_1B:
		return "b";
	case ARM64_VAS_1H:
		return "h";
	case ARM64_VAS_1S:
		return "s";
#endif
	default:
		break;
	}
#if CS_API_MAJOR < 5
	switch (operand->vess) {
	case ARM64_VESS_B:
		return "b";
	case ARM64_VESS_H:
		return "h";
	case ARM64_VESS_S:
		return "s";
	case ARM64_VESS_D:
		return "d";
	default:
		break;
	}
#endif
	return NULL;
}

/* Capstone 5 calls x29 and x30 by their roles. */
static inline const char *capstone_register(csh handle, unsigned number)
{
	const char *name = cs_reg_name(handle, number);

	return !strcmp(name, "fp") ? "x29" : !strcmp(name, "lr") ? "x30" : name;
}

static inline void put_capstone_memory(struct line *line, csh handle, const cs_arm64_op *operand, bool pre)
{
	static const char *const extends[] = {
		[ARM64_EXT_UXTW] = "uxtw", [ARM64_EXT_SXTW] = "sxtw", [ARM64_EXT_SXTX] = "sxtx"
	};
	bool scaled = operand->shift.type == ARM64_SFT_LSL;

	put(line, "[%s", capstone_register(handle, operand->mem.base));
	if (operand->mem.index != ARM64_REG_INVALID) {
		put(line, ", %s", capstone_register(handle, operand->mem.index));
		if (operand->ext != ARM64_EXT_INVALID)
			put(line, ", %s", extends[operand->ext]);
		else if (scaled)
			put(line, ", lsl");
		if (scaled)
			put(line, " #%u", operand->shift.value);
	} else if (operand->mem.disp || pre) {
		put(line, ", #%d", operand->mem.disp);
	}
	put(line, pre ? "]!" : "]");
}

/* A vector of a list: "{v1.4s, v2.4s}", "{v1.s}[3]". */
static inline void put_capstone_vector(struct line *line, csh handle, const cs_arm64 *detail, unsigned i)
{
	const cs_arm64_op *operand = &detail->operands[i];
	bool first = i == 0, last = detail->operands[i + 1].type != ARM64_OP_REG;
	const char *suffix = arrangement(operand);

	/* Capstone 5 says "1d" for a lane too. */
	if (operand->vector_index >= 0 && suffix && !strcmp(suffix, "1d"))
		suffix = "d";
	put(line, "%s%s.%s%s", first ? "{" : "", capstone_register(handle, operand->reg), suffix, last ? "}" : "");
	if (last && operand->vector_index >= 0)
		put(line, "[%d]", operand->vector_index);
}

static inline bool post_index(const cs_arm64 *detail)
{
#if CS_API_MAJOR >= 5
	return detail->post_index;
#else
	return detail->writeback && detail->operands[detail->op_count - 1].type != ARM64_OP_MEM;
#endif
}

static inline void put_capstone_operand(struct line *line, csh handle, const cs_insn *insn, unsigned i)
{
	const cs_arm64 *detail = &insn->detail->arm64;
	const cs_arm64_op *operand = &detail->operands[i];

	switch ((int)operand->type) {
	case ARM64_OP_REG:
		if (arrangement(operand))
			put_capstone_vector(line, handle, detail, i);
		else
			put(line, "%s", capstone_register(handle, operand->reg));
		break;
	case ARM64_OP_IMM:
		put(line, "#%lld", (long long)operand->imm);
		break;
	case ARM64_OP_MEM:
		put_capstone_memory(line, handle, operand, detail->writeback && !post_index(detail));
		break;
	case ARM64_OP_PREFETCH:
		put(line, "#%d", (int)operand->prefetch - 1);
		break;
	case ARM64_OP_SYS: /* numbered differently by version; the text begins with it */
		put(line, "%.*s", (int)strcspn(insn->op_str, ","), insn->op_str);
		break;
	default:
		put(line, "?");
		break;
	}
}

static inline void describe_capstone(csh handle, const cs_insn *insn, struct line *line)
{
	unsigned count = insn->detail->arm64.op_count;
	const char *immediate = strrchr(insn->op_str, '#');

	line->length = 0;
	put(line, "%s", insn->mnemonic);
	/* Capstone 5 leaves the prefetch operation out of the operands; it is a hint that changes no access. */
	if (CS_API_MAJOR >= 5 && starts_with(insn->mnemonic, "prf") &&
	    insn->detail->arm64.operands[0].type != ARM64_OP_PREFETCH)
		put(line, " #%u%s", insn->bytes[0] & 31, count ? "," : "");
	for (unsigned i = 0; i < count; i++) {
		put(line, i ? ", " : " ");
		put_capstone_operand(line, handle, insn, i);
	}
	/* ... and the immediate of a post-indexed structure, which only its text has, at the end. */
	if (CS_API_MAJOR >= 5 && immediate && post_index(&insn->detail->arm64) &&
	    insn->detail->arm64.operands[count - 1].type == ARM64_OP_MEM)
		put(line, ", #%ld", strtol(immediate + 1, NULL, 0));
}

/* ---- the comparison --------------------------------------------------------------------------------------------- */

/* What a disassembler says of one word. */
struct opinion {
	bool valid;       /* it is an instruction */
	bool memory;      /* it accesses memory */
	bool exact;       /* SVE's and MOPS's operands are as the assembler has them */
	struct line line; /* mnemonic and operands */
};

/* Loads, stores and atomics by name; what has a memory operand without such a name is found by its operand. */
static inline bool memory_mnemonic(const char *text)
{
	return starts_with(text, "ld") || starts_with(text, "st") || starts_with(text, "cas") ||
	       starts_with(text, "swp") || starts_with(text, "prf") || starts_with(text, "dc zva") ||
	       starts_with(text, "dc gva") || starts_with(text, "dc gzva") || starts_with(text, "gcs") ||
	       starts_with(text, "cpy") || (starts_with(text, "set") && strchr("pmeg", text[3])) ||
	       starts_with(text, "rcw") || starts_with(text, "rprfm");
}

static inline void ask_capstone(csh handle, cs_insn *insn, uint32_t word, struct opinion *opinion)
{
	const uint8_t bytes[4] = { word, word >> 8, word >> 16, word >> 24 };
	const uint8_t *code = bytes;
	size_t size = sizeof(bytes);
	uint64_t address = 0;

	*opinion = (struct opinion){ .valid = cs_disasm_iter(handle, &code, &size, &address, insn) };
	if (!opinion->valid)
		return;
	describe_capstone(handle, insn, &opinion->line);
	opinion->memory = memory_mnemonic(opinion->line.text);
	for (unsigned i = 0; i < insn->detail->arm64.op_count; i++)
		opinion->memory |= insn->detail->arm64.operands[i].type == ARM64_OP_MEM;
}

enum oracle { ORACLE_CAPSTONE4 = 1, ORACLE_CAPSTONE5 = 2, ORACLE_LLVM = 4, ORACLE_ALL = 7 };
enum { ORACLE_CAPSTONE = CS_API_MAJOR >= 5 ? ORACLE_CAPSTONE5 : ORACLE_CAPSTONE4 };

/* The ways in which the two sides can differ. */
enum difference {
	AGREED,
	THEY_REJECT,  /* we would execute what they say is no instruction */
	OTHER_FIELDS, /* both know it, and read it differently */
	WE_DECLINE,   /* we say UNKNOWN, they say it is an instruction */
	WE_MISS,      /* we say OTHER, they say it accesses memory */
	NDIFFERENCES
};

static const char *const difference_names[NDIFFERENCES] = { "agreed", "they reject", "other fields", "we decline",
	                                                    "we miss" };

static inline unsigned field(uint32_t word, unsigned high, unsigned low)
{
	return word >> low & ((2u << (high - low)) - 1);
}

/* Exclusives and ordered accesses: a should-be-one register field is not all ones. */
static inline bool should_be_one(uint32_t word)
{
	bool load = field(word, 22, 22), pair = field(word, 21, 21), ordered = field(word, 23, 23);

	return (!pair && field(word, 14, 10) != 31) || ((load || ordered) && field(word, 20, 16) != 31);
}

/* Store-exclusives: Rs is also Rt, Rt2 or the base. */
static inline bool status_is_operand(uint32_t word)
{
	unsigned rs = field(word, 20, 16), rn = field(word, 9, 5);

	return rs == field(word, 4, 0) || (field(word, 21, 21) && rs == field(word, 14, 10)) || (rs == rn && rn != 31);
}

static inline bool data_is_base(uint32_t word)
{
	return field(word, 4, 0) == field(word, 9, 5) && field(word, 9, 5) != 31;
}

static inline bool always(uint32_t word)
{
	(void)word;
	return true;
}

/* A difference that is right as it is: for the words with (word & mask) == value that `applies` to, and with this start of their text. */
struct exception {
	enum difference difference;
	unsigned oracles;
	uint32_t mask, value;
	bool (*applies)(uint32_t word);
	const char *text; /* "" = any */
	const char *reason;
};

/* Where the two do not agree, with the chapter of the Arm ARM (DDI 0487) that decides. */
static const struct exception exceptions[] = {
	/* CONSTRAINED UNPREDICTABLE: a disassembler shows what was meant, but we must not carry it out. */
	{ WE_DECLINE, ORACLE_ALL, 0x3f200000, 0x08000000, should_be_one, "",
	  "should-be-one Rs or Rt2 is not all ones (C4.1; K1.2)" },
	{ WE_DECLINE, ORACLE_ALL, 0xbfe00000, 0x88600000, should_be_one, "ld",
	  "should-be-one Rs is not all ones (C4.1; K1.2)" },
	{ WE_DECLINE, ORACLE_ALL, 0x3fc00000, 0x08000000, status_is_operand, "st",
	  "status register is data or base (K1.2; C6.2, STXR)" },
	{ WE_DECLINE, ORACLE_ALL, 0x3f200400, 0x38000400, data_is_base, "st",
	  "writes back over its own data (K1.2; C6.2, STR)" },
	{ WE_DECLINE, ORACLE_ALL, 0x3fa00400, 0x38800400, data_is_base, "ldrs",
	  "writes back over its own data (K1.2; C6.2, LDRSB)" },
	{ WE_DECLINE, ORACLE_ALL, 0xffffffff, 0xd50b743f, always, "dc zva",
	  "DC ZVA, XZR can only fault (C5.3, DC ZVA)" },

	{ WE_DECLINE, ORACLE_ALL, 0xfffffc00, 0xd9200000, always, "stzgm", "UNDEFINED at EL0 (C6.2, STZGM)" },
	{ WE_DECLINE, ORACLE_ALL, 0xfffffc00, 0xd9a00000, always, "stgm", "UNDEFINED at EL0 (C6.2, STGM)" },
	{ WE_DECLINE, ORACLE_ALL, 0xfffffc00, 0xd9e00000, always, "ldgm", "UNDEFINED at EL0 (C6.2, LDGM)" },
	{ OTHER_FIELDS, ORACLE_ALL, 0xffdfff00, 0xd50b7700, always, "sys",
	  "not known as guarded control stack (C6.2, GCSPUSHM)" },
	{ OTHER_FIELDS, ORACLE_ALL, 0xffe04c18, 0xf8a04818, always, "prfm",
	  "older than RPRFM (C6.2, RPRFM: Rt = 11xxx)" },
	{ OTHER_FIELDS, ORACLE_ALL, 0xffffff00, 0xd50b7400, always, "sys", "not known as DC GVA, DC GZVA (C5.3)" },

	/* Where the disassembler is wrong, or older than the instruction. */
	{ THEY_REJECT, ORACLE_ALL, 0x3f600c00, 0x38400800, data_is_base, "",
	  "LDTR has no write-back: LLVM, and Capstone with it, takes it for a pre-index form (C6.2, LDTR)" },
	{ THEY_REJECT, ORACLE_CAPSTONE4, 0x3fa07c00, 0x08a07c00, always, "",
	  "Capstone 4 does not know LSE: CAS (C6.2, CAS)" },
	{ THEY_REJECT, ORACLE_CAPSTONE4, 0xbfa17c01, 0x08207c00, always, "",
	  "Capstone 4 does not know LSE: CASP (C6.2, CASP)" },
	{ THEY_REJECT, ORACLE_CAPSTONE4, 0x3f208c00, 0x38200000, always, "",
	  "Capstone 4 does not know LSE: LD<op> (C6.2, LDADD)" },
	{ THEY_REJECT, ORACLE_CAPSTONE4, 0x3f20fc00, 0x38208000, always, "",
	  "Capstone 4 does not know LSE: SWP (C6.2, SWP)" },
	{ THEY_REJECT, ORACLE_CAPSTONE4, 0x3fbffc00, 0x089f7c00, always, "",
	  "Capstone 4 does not know LOR: LDLAR, STLLR (C6.2, LDLAR)" },
	{ THEY_REJECT, ORACLE_CAPSTONE4, 0x3ffffc00, 0x38bfc000, always, "",
	  "Capstone 4 does not know RCPC: LDAPR (C6.2, LDAPR)" },
	{ THEY_REJECT, ORACLE_CAPSTONE4, 0x3f200c00, 0x19000000, always, "",
	  "Capstone 4 does not know RCPC2: LDAPUR, STLUR (C6.2, LDAPUR)" },
	{ WE_MISS, ORACLE_ALL, 0xff20f000, 0x0420a000, always, "adr",
	  "SVE ADR computes an address and accesses nothing (C8.2, ADR)" },
};

static inline const char *row_name(uint32_t word)
{
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		if ((word & tagtso_encodings[i].mask) == tagtso_encodings[i].value)
			return tagtso_encodings[i].name;
	}
	return "";
}

/* Whether the text begins with one of the mnemonics that a row's name lists: "LD1*, LDFF1* (...)", each up to its asterisk. */
static inline bool is_named(const char *text, const char *names)
{
	while (*names && *names != '(') {
		size_t length = strcspn(names, "*, ");

		if (length && !strncasecmp(text, names, length))
			return true;
		names += length + strspn(names + length, "*, ");
		if (starts_with(text, "dc ") && starts_with(names, text + 3)) /* two words */
			return true;
	}
	return false;
}

/* Rows that are not interpreted may be wider than the instructions, but what is one must be what the row says. */
static inline bool same_row(const struct tagtso_memop *op, const struct line *ours, const struct opinion *theirs)
{
	return theirs->memory && is_named(theirs->line.text, row_name(op->word)) &&
	       (!theirs->exact || strstr(theirs->line.text, ours->text));
}

static inline enum difference compare(const struct tagtso_memop *op, const struct line *ours,
                                      const struct opinion *theirs)
{
	if (op->cls == TAGTSO_OTHER)
		return theirs->valid && theirs->memory ? WE_MISS : AGREED;
	if (op->cls == TAGTSO_UNKNOWN)
		return theirs->valid ? WE_DECLINE : AGREED;
	if (op->cls == TAGTSO_OUT_OF_LINE || op->cls == TAGTSO_TAG)
		return !theirs->valid || same_row(op, ours, theirs) ? AGREED : OTHER_FIELDS;
	if (!theirs->valid)
		return THEY_REJECT;
	return strcmp(ours->text, theirs->line.text) ? OTHER_FIELDS : AGREED;
}

/* The exception that covers a difference, or NULL: then somebody is wrong. */
static inline const struct exception *explain(enum difference difference, unsigned oracle, uint32_t word,
                                              const struct opinion *theirs)
{
	for (size_t i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++) {
		const struct exception *exception = &exceptions[i];

		if (exception->difference == difference && (exception->oracles & oracle) &&
		    (word & exception->mask) == exception->value && exception->applies(word) &&
		    starts_with(theirs->line.text, exception->text))
			return exception;
	}
	return NULL;
}

#endif
