/* SPDX-License-Identifier: MIT */
/* The second opinion: prints a decoded instruction the way Capstone does, and compares the texts (I5). Not handler
 * code.
 *
 * Text is what a disassembler is used and tested for, and it says everything that matters here: mnemonic (which holds
 * size, sign, order and kind of access), registers with their widths, immediates, addressing. Capstone's structured
 * details say less and are wrong more often. */
#include "opinion.h"

#include <capstone/capstone.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

_Static_assert(sizeof(csh) == sizeof(size_t), "tagtso_opinion.handle holds a csh");

int tagtso_opinion_open(struct tagtso_opinion *opinion)
{
	csh handle;

	if (cs_open(CS_ARCH_ARM64, CS_MODE_ARM, &handle) != CS_ERR_OK)
		return -ENOMEM;
	memset(opinion->agreed, 0, sizeof(opinion->agreed));
	opinion->handle = handle;
	opinion->insn = cs_malloc(handle);
	if (opinion->insn)
		return 0;
	cs_close(&handle);
	return -ENOMEM;
}

void tagtso_opinion_close(struct tagtso_opinion *opinion)
{
	csh handle = opinion->handle;

	cs_free(opinion->insn, 1);
	cs_close(&handle);
}

bool tagtso_opinion_text(struct tagtso_opinion *opinion, uint64_t pc, uint32_t word, char text[TAGTSO_TEXT])
{
	const uint8_t bytes[4] = { (uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (uint8_t)(word >> 24) };
	const uint8_t *code = bytes;
	size_t size = sizeof(bytes);
	cs_insn *insn = opinion->insn;

	if (!cs_disasm_iter(opinion->handle, &code, &size, &pc, insn)) {
		snprintf(text, TAGTSO_TEXT, ".word %#010" PRIx32, word);
		return false;
	}
	snprintf(text, TAGTSO_TEXT, "%.31s%s%.63s", insn->mnemonic, insn->op_str[0] ? " " : "", insn->op_str);
	return true;
}

/* A text being written; cut at its end rather than overflowing, which then compares unequal. */
struct text {
	char *at;
	size_t left;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->at, t->left, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= t->left)
		n = (int)t->left - 1;
	t->at += n;
	t->left -= (size_t)n;
}

/* Capstone prints most numbers from 10 on in hexadecimal. */
static void add_number(struct text *t, int64_t n)
{
	uint64_t size = n < 0 ? -(uint64_t)n : (uint64_t)n;

	add(t, size > 9 ? "#%s0x%" PRIx64 : "#%s%" PRIu64, n < 0 ? "-" : "", size);
}

static void add_x(struct text *t, unsigned r)
{
	if (r == 31)
		add(t, "xzr");
	else
		add(t, "x%u", r);
}

static void add_w(struct text *t, unsigned r)
{
	if (r == 31)
		add(t, "wzr");
	else
		add(t, "w%u", r);
}

/* A register that holds one element of op. */
static void add_data(struct text *t, const struct tagtso_memop *op, unsigned r)
{
	if (op->flags & TAGTSO_F_VECTOR)
		add(t, "%c%u", "bhsdq"[op->size % 5], r);
	else if (op->flags & TAGTSO_F_SIGNED ? op->flags & TAGTSO_F_WIDE : op->size == 3)
		add_x(t, r);
	else
		add_w(t, r);
}

static const char *size_suffix(const struct tagtso_memop *op)
{
	static const char *const plain[] = { "b", "h", "", "", "" }, *const sign[] = { "sb", "sh", "sw", "?", "?" };

	if (op->flags & TAGTSO_F_VECTOR)
		return "";
	return (op->flags & TAGTSO_F_SIGNED ? sign : plain)[op->size % 5];
}

static const char *order_suffix(const struct tagtso_memop *op)
{
	static const char *const orders[] = { "", "a", "l", "al" };

	return orders[!!(op->flags & TAGTSO_F_ACQUIRE) + 2 * !!(op->flags & TAGTSO_F_RELEASE)];
}

/* Which of the single-register encodings the word is: the fields do not tell LDUR from LDR or LDLAR from LDAR, but
 * the name does. */
static const char *single_name(const struct tagtso_memop *op)
{
	bool load = op->cls == TAGTSO_LOAD, limited = !(op->word & 1 << 15);
	bool rcpc_offset = (op->word & 0x3f000000) == 0x19000000;

	if (op->flags & TAGTSO_F_RCPC)
		return rcpc_offset ? "ldapur" : "ldapr";
	if (op->flags & TAGTSO_F_RELEASE)
		return rcpc_offset ? "stlur" : limited ? "stllr" : "stlr";
	if (op->flags & TAGTSO_F_ACQUIRE)
		return limited ? "ldlar" : "ldar";
	if (op->flags & TAGTSO_F_UNPRIV)
		return load ? "ldtr" : "sttr";
	if (op->addressing == TAGTSO_ADDR_OFFSET && !(op->word & 1 << 24))
		return load ? "ldur" : "stur";
	return load ? "ldr" : "str";
}

static void add_base(struct text *t, unsigned rn)
{
	if (rn == 31)
		add(t, "[sp");
	else
		add(t, "[x%u", rn);
}

/* The extension of a register offset; LSL #0 is printed where the encoding says that there is a shift. */
static void add_offset_register(struct text *t, const struct tagtso_memop *op)
{
	static const char *const names[] = { "?", "?", "uxtw", "lsl", "?", "?", "sxtw", "sxtx" };
	bool shifted = op->word & 1 << 12;

	add(t, ", ");
	if (op->extend & 1)
		add_x(t, op->rm);
	else
		add_w(t, op->rm);
	if (op->extend != 3 || shifted)
		add(t, ", %s", names[op->extend & 7]);
	if (shifted)
		add(t, " #%u", op->shift);
	add(t, "]");
}

static void add_address(struct text *t, const struct tagtso_memop *op, uint64_t pc)
{
	if (op->addressing == TAGTSO_ADDR_LITERAL) {
		add_number(t, (int64_t)(pc + (uint64_t)op->imm));
		return;
	}
	add_base(t, op->rn);
	if (op->addressing == TAGTSO_ADDR_REG) {
		add_offset_register(t, op);
	} else if (op->addressing == TAGTSO_ADDR_POST_REG) {
		add(t, "], ");
		add_x(t, op->rm);
	} else if (op->addressing == TAGTSO_ADDR_POST) {
		add(t, "], ");
		add_number(t, op->imm);
	} else {
		if (op->imm || op->addressing == TAGTSO_ADDR_PRE) {
			add(t, ", ");
			add_number(t, op->imm);
		}
		add(t, op->addressing == TAGTSO_ADDR_PRE ? "]!" : "]");
	}
}

static void add_single(struct text *t, const struct tagtso_memop *op)
{
	add(t, "%s%s ", single_name(op), size_suffix(op));
	add_data(t, op, op->rt);
	add(t, ", ");
}

static void add_pair(struct text *t, const struct tagtso_memop *op)
{
	bool no_allocate = !(op->word & 0x01800000);

	add(t, "%s%s%s ", op->cls == TAGTSO_LOAD_PAIR ? "ld" : "st", no_allocate ? "np" : "p",
	    op->flags & TAGTSO_F_SIGNED ? "sw" : "");
	add_data(t, op, op->rt);
	add(t, ", ");
	add_data(t, op, op->rt2);
	add(t, ", ");
}

static void add_exclusive(struct text *t, const struct tagtso_memop *op)
{
	bool load = op->cls == TAGTSO_LOAD_EX || op->cls == TAGTSO_LOAD_EX_PAIR;
	bool pair = op->cls == TAGTSO_LOAD_EX_PAIR || op->cls == TAGTSO_STORE_EX_PAIR;

	add(t, "%s%s%s%s ", load ? "ld" : "st", order_suffix(op), pair ? "xp" : "xr", pair ? "" : size_suffix(op));
	if (!load) {
		add_w(t, op->rs);
		add(t, ", ");
	}
	add_data(t, op, op->rt);
	add(t, ", ");
	if (pair) {
		add_data(t, op, op->rt2);
		add(t, ", ");
	}
}

/* LD<op> is printed as ST<op> where it returns nothing and does not acquire. */
static void add_lse(struct text *t, const struct tagtso_memop *op)
{
	static const char *const names[] = { "add", "clr", "eor", "set", "smax", "smin", "umax", "umin" };
	bool swap = op->lse == TAGTSO_LSE_SWP;
	bool store = !swap && op->rt == 31 && !(op->flags & TAGTSO_F_ACQUIRE);

	add(t, "%s%s%s%s ",
	    swap    ? "swp"
	    : store ? "st"
	            : "ld",
	    swap ? "" : names[op->lse & 7], order_suffix(op), size_suffix(op));
	add_data(t, op, op->rs);
	add(t, ", ");
	if (!store) {
		add_data(t, op, op->rt);
		add(t, ", ");
	}
}

static void add_cas(struct text *t, const struct tagtso_memop *op)
{
	bool pair = op->cls == TAGTSO_CASP;

	add(t, "cas%s%s%s ", pair ? "p" : "", order_suffix(op), pair ? "" : size_suffix(op));
	for (unsigned i = 0; i < 4; i++) {
		if (!pair && i % 2)
			continue;
		add_data(t, op, (i < 2 ? op->rs : op->rt) + i % 2u);
		add(t, ", ");
	}
}

static void add_lane(struct text *t, const struct tagtso_memop *op)
{
	add(t, "%s1 {v%u.%c}[%u], ", op->cls == TAGTSO_LOAD_LANE ? "ld" : "st", op->rt, "bhsd"[op->size & 3],
	    op -> index);
}

/* LD1R, and LD1, ST1 of whole vectors: {v0.16b, v1.16b}. */
static void add_vectors(struct text *t, const struct tagtso_memop *op)
{
	const char *name = op->cls == TAGTSO_LOAD_DUP ? "ld1r" : op->cls == TAGTSO_LOAD_MULTI ? "ld1" : "st1";
	unsigned count = op->cls == TAGTSO_LOAD_DUP ? 1 : op->count;
	unsigned lanes = (op->flags & TAGTSO_F_Q ? 16u : 8u) >> (op->size & 3);

	add(t, "%s {", name);
	for (unsigned i = 0; i < count; i++)
		add(t, "%sv%u.%u%c", i ? ", " : "", (op->rt + i) % 32, lanes, "bhsd"[op->size & 3]);
	add(t, "}, ");
}

bool tagtso_memop_text(const struct tagtso_memop *op, uint64_t pc, char text[TAGTSO_TEXT])
{
	typedef void print(struct text * t, const struct tagtso_memop *op);
	static print *const prints[TAGTSO_NCLASSES] = {
		[TAGTSO_LOAD] = add_single,
		[TAGTSO_STORE] = add_single,
		[TAGTSO_LOAD_PAIR] = add_pair,
		[TAGTSO_STORE_PAIR] = add_pair,
		[TAGTSO_LSE] = add_lse,
		[TAGTSO_CAS] = add_cas,
		[TAGTSO_CASP] = add_cas,
		[TAGTSO_LOAD_EX] = add_exclusive,
		[TAGTSO_STORE_EX] = add_exclusive,
		[TAGTSO_LOAD_EX_PAIR] = add_exclusive,
		[TAGTSO_STORE_EX_PAIR] = add_exclusive,
		[TAGTSO_LOAD_LANE] = add_lane,
		[TAGTSO_STORE_LANE] = add_lane,
		[TAGTSO_LOAD_DUP] = add_vectors,
		[TAGTSO_LOAD_MULTI] = add_vectors,
		[TAGTSO_STORE_MULTI] = add_vectors,
	};
	struct text t = { text, TAGTSO_TEXT };

	if (op->cls == TAGTSO_ZERO_BLOCK) {
		add(&t, "dc zva, ");
		add_x(&t, op->rt);
		return true;
	}
	if (op->cls >= TAGTSO_NCLASSES || !prints[op->cls])
		return false;
	prints[op->cls](&t, op);
	add_address(&t, op, pc);
	return true;
}

static bool starts_number(const char *s)
{
	return (*s >= '0' && *s <= '9') || (s[0] == '-' && s[1] >= '0' && s[1] <= '9');
}

bool tagtso_text_equal(const char *a, const char *b)
{
	for (;;) {
		if (starts_number(a) && starts_number(b)) {
			char *end_a, *end_b;

			if (strtoull(a, &end_a, 0) != strtoull(b, &end_b, 0))
				return false;
			a = end_a;
			b = end_b;
		} else if (*a != *b) {
			return false;
		} else if (!*a++) {
			return true;
		} else {
			b++;
		}
	}
}

static bool ask(struct tagtso_opinion *opinion, const struct tagtso_memop *op, uint64_t pc)
{
	char ours[TAGTSO_TEXT], theirs[TAGTSO_TEXT];

	return tagtso_memop_text(op, pc, ours) && tagtso_opinion_text(opinion, pc, op->word, theirs) &&
	       tagtso_text_equal(ours, theirs);
}

/* --- what was asked before ---
 *
 * Capstone takes 35,000 instructions to print LDR X0, [X1]: it looks for an alias by comparing the name with all that it knows. Generated code repeats few
 * instructions with ever other registers, so one word speaks for all that differ from it in the numbers of registers alone. Nothing but
 * 31 is special about a register number in these encodings, and 31 stays what it is. */

/* Fields of the numbers in the word that speaks for others: each bit differs between Rt and Rn, so that a decoder that confused
 * them, or took a field from another place, would be found out. */
enum { SPEAKER_RT = 0x0a, SPEAKER_RN = 0x15, SPEAKER_RM = 0x06 };

static uint32_t renumber(uint32_t word, unsigned lsb, uint32_t number)
{
	return (word >> lsb & 31) == 31 ? word : (word & ~(UINT32_C(31) << lsb)) | number << lsb;
}

/* Writing back makes rn = rt unpredictable, and pairs rt = rt2; Capstone 4 thinks so of LDTR too. Such words, and rare ones, speak for
 * themselves. */
static bool is_simple(const struct tagtso_memop *op)
{
	return (op->cls == TAGTSO_LOAD || op->cls == TAGTSO_STORE) && !(op->flags & TAGTSO_F_UNPRIV) &&
	       (op->addressing == TAGTSO_ADDR_OFFSET || op->addressing == TAGTSO_ADDR_REG);
}

/* What the decoder says of the word that speaks for op's; false if that is not op with other registers. */
static bool find_speaker(const struct tagtso_memop *op, struct tagtso_memop *speaker)
{
	bool simple = is_simple(op), rm = simple && op->addressing == TAGTSO_ADDR_REG;
	struct tagtso_memop again;
	uint32_t word = op->word;

	if (simple)
		word = renumber(renumber(word, 0, SPEAKER_RT), 5, SPEAKER_RN);
	if (rm)
		word = renumber(word, 16, SPEAKER_RM);
	if (!tagtso_decode(word, speaker))
		return false;
	again = *speaker;
	again.word = op->word;
	if (simple) {
		again.rt = op->word & 31;
		again.rn = op->word >> 5 & 31;
	}
	if (rm)
		again.rm = op->word >> 16 & 31;
	return !memcmp(&again, op, sizeof(again));
}

bool tagtso_opinion_is_barrier(struct tagtso_opinion *opinion, uint32_t word, uint64_t pc)
{
	char text[TAGTSO_TEXT];

	return tagtso_opinion_text(opinion, pc, word, text) &&
	       (!strcmp(text, "dmb ish") || !strcmp(text, "dmb ishld") || !strcmp(text, "dmb ishst"));
}

bool tagtso_opinion_agrees(struct tagtso_opinion *opinion, const struct tagtso_memop *op, uint64_t pc)
{
	struct tagtso_memop speaker;
	uint32_t *known;

	if (op->addressing == TAGTSO_ADDR_LITERAL) /* says another thing at another pc */
		return ask(opinion, op, pc);
	if (!find_speaker(op, &speaker))
		return false;
	known = &opinion->agreed[speaker.word * UINT32_C(0x9e3779b1) >> (32 - TAGTSO_AGREED_LOG2)];
	if (*known == speaker.word)
		return true;
	if (!ask(opinion, &speaker, pc))
		return false;
	*known = speaker.word;
	return true;
}
