/* SPDX-License-Identifier: MIT */
/* Interprets the integer instructions and branches between accesses. Handler code, builds on any host. */
#include "alu.h"

#include <stddef.h>

/*
 * Arm ARM C4.1: bits 28:25 choose the group
 *
 *    31 30 29 28    25 24                    0
 *   |        | op0   |                        |     100x  data processing, immediate
 *                                                   101x  branches, hints, system
 *                                                   x101  data processing, register
 */

typedef unsigned long long regs[TAGTSO_NREGS];

enum { N = 1 << 3, Z = 1 << 2, C = 1 << 1, V = 1 << 0 };

static unsigned field(uint32_t word, unsigned low, unsigned width)
{
	return (word >> low) & ((1u << width) - 1);
}

static int64_t signed_field(uint32_t word, unsigned low, unsigned width)
{
	return (int64_t)((uint64_t)word << (64 - low - width)) >> (64 - width);
}

static uint64_t ones(unsigned count)
{
	return count >= 64 ? ~0ull : (1ull << count) - 1;
}

/* Register 31 is zero here; where it is SP, callers index r themselves. */
static uint64_t get(const unsigned long long *r, unsigned n)
{
	return n == 31 ? 0 : r[n];
}

static void set(unsigned long long *r, unsigned n, bool sf, uint64_t value)
{
	if (n != 31)
		r[n] = sf ? value : (uint32_t)value;
}

static unsigned get_flags(const unsigned long long *r)
{
	return (r[TAGTSO_PSTATE] >> 28) & 15;
}

static void set_flags(unsigned long long *r, unsigned nzcv)
{
	r[TAGTSO_PSTATE] = (r[TAGTSO_PSTATE] & ~(15ull << 28)) | (uint64_t)nzcv << 28;
}

static bool holds(unsigned nzcv, unsigned condition)
{
	bool n = nzcv & N, z = nzcv & Z, c = nzcv & C, v = nzcv & V, result;

	switch (condition >> 1) {
	case 0:
		result = z;
		break;
	case 1:
		result = c;
		break;
	case 2:
		result = n;
		break;
	case 3:
		result = v;
		break;
	case 4:
		result = c && !z;
		break;
	case 5:
		result = n == v;
		break;
	case 6:
		result = n == v && !z;
		break;
	default:
		return true; /* AL and NV are both always */
	}
	return result != (condition & 1);
}

static unsigned flags_of(uint64_t value, bool sf)
{
	return (value >> (sf ? 63 : 31) & 1 ? N : 0) | (value == 0 ? Z : 0);
}

/* AddWithCarry(); a, b and the result are zero-extended when sf is clear. */
static uint64_t add(uint64_t a, uint64_t b, bool carry, bool sf, unsigned *nzcv)
{
	uint64_t mask = ones(sf ? 64 : 32), sum;
	unsigned top = sf ? 63 : 31;
	bool out;

	a &= mask;
	b &= mask;
	sum = (a + b + carry) & mask;
	out = carry ? sum <= a : sum < a;
	*nzcv = flags_of(sum, sf) | (out ? C : 0) | ((~(a ^ b) & (a ^ sum)) >> top & 1 ? V : 0);
	return sum;
}

static uint64_t rotate(uint64_t value, unsigned by, unsigned width)
{
	value &= ones(width);
	by %= width;
	return by ? (value >> by | value << (width - by)) & ones(width) : value;
}

/* type: LSL, LSR, ASR, ROR; by < width. */
static uint64_t shift(uint64_t value, unsigned type, unsigned by, bool sf)
{
	switch (type) {
	case 0:
		return sf ? value << by : (uint32_t)((uint32_t)value << by);
	case 1:
		return sf ? value >> by : (uint32_t)value >> by;
	case 2:
		return sf ? (uint64_t)((int64_t)value >> by) : (uint32_t)((int32_t)value >> by);
	default:
		return rotate(value, by, sf ? 64 : 32);
	}
}

/* ExtendReg() without its shift: UXTB, UXTH, UXTW, UXTX, SXTB, ... */
static uint64_t extend(uint64_t value, unsigned option)
{
	switch (option) {
	case 0:
		return (uint8_t)value;
	case 1:
		return (uint16_t)value;
	case 2:
		return (uint32_t)value;
	case 4:
		return (uint64_t)(int8_t)value;
	case 5:
		return (uint64_t)(int16_t)value;
	case 6:
		return (uint64_t)(int32_t)value;
	default:
		return value;
	}
}

/* DecodeBitMasks() for logical immediates; false for the reserved ones. */
static bool bitmask(unsigned n, unsigned imms, unsigned immr, uint64_t *mask)
{
	unsigned pattern = n << 6 | (~imms & 63), size = 64, s;
	uint64_t element;

	if (pattern < 2)
		return false;
	while (!(pattern & size))
		size >>= 1;
	s = imms & (size - 1);
	if (s == size - 1)
		return false;
	element = rotate(ones(s + 1), immr, size);
	for (; size < 64; size *= 2)
		element |= element << size;
	*mask = element;
	return true;
}

static void next(unsigned long long *r)
{
	r[TAGTSO_PC] += 4;
}

/* ---- data processing, immediate ------------------------------------------------------------------------------------ */

static bool pc_relative(uint32_t word, unsigned long long *r)
{
	int64_t imm = signed_field(word, 5, 19) * 4 + field(word, 29, 2);

	if (word >> 31)
		set(r, field(word, 0, 5), true, (r[TAGTSO_PC] & ~0xfffull) + (uint64_t)(imm * 4096));
	else
		set(r, field(word, 0, 5), true, r[TAGTSO_PC] + (uint64_t)imm);
	return true;
}

/* The common end of all ADD and SUB: sp says that register 31 as destination is SP, if flags are not set. */
static void add_sub(uint32_t word, unsigned long long *r, uint64_t a, uint64_t b, bool sp)
{
	bool sf = word >> 31, sub = field(word, 30, 1), s = field(word, 29, 1);
	unsigned rd = field(word, 0, 5), nzcv;
	uint64_t result = add(a, sub ? ~b : b, sub, sf, &nzcv);

	if (s)
		set_flags(r, nzcv);
	if (rd == 31 && sp && !s)
		r[TAGTSO_SP] = result;
	else
		set(r, rd, sf, result);
}

static bool add_sub_immediate(uint32_t word, unsigned long long *r)
{
	uint64_t imm = (uint64_t)field(word, 10, 12) << (field(word, 22, 1) ? 12 : 0);

	add_sub(word, r, r[field(word, 5, 5)], imm, true); /* 31 = SP by position */
	return true;
}

/* The common end of all logical operations. */
static void logical(uint32_t word, unsigned long long *r, uint64_t a, uint64_t b, bool sp)
{
	bool sf = word >> 31;
	unsigned opc = field(word, 29, 2), rd = field(word, 0, 5);
	uint64_t result = opc == 1 ? a | b : opc == 2 ? a ^ b : a & b;

	if (!sf)
		result = (uint32_t)result;
	if (opc == 3)
		set_flags(r, flags_of(result, sf));
	if (rd == 31 && sp && opc != 3)
		r[TAGTSO_SP] = result;
	else
		set(r, rd, sf, result);
}

static bool logical_immediate(uint32_t word, unsigned long long *r)
{
	uint64_t mask;

	if (!(word >> 31) && field(word, 22, 1))
		return false;
	if (!bitmask(field(word, 22, 1), field(word, 10, 6), field(word, 16, 6), &mask))
		return false;
	logical(word, r, get(r, field(word, 5, 5)), mask, true);
	return true;
}

static bool move_wide(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	unsigned opc = field(word, 29, 2), by = field(word, 21, 2) * 16, rd = field(word, 0, 5);
	uint64_t imm = (uint64_t)field(word, 5, 16) << by;

	if (opc == 1 || (!sf && by > 16))
		return false;
	if (opc == 3)
		imm |= get(r, rd) & ~(0xffffull << by);
	set(r, rd, sf, opc == 0 ? ~imm : imm);
	return true;
}

static bool bitfield(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	unsigned opc = field(word, 29, 2), immr = field(word, 16, 6), imms = field(word, 10, 6), rd = field(word, 0, 5);
	unsigned width = sf ? 64 : 32, length, at = 0;
	uint64_t value = get(r, field(word, 5, 5)), result;

	if (opc == 3 || field(word, 22, 1) != sf || (!sf && (immr | imms) > 31))
		return false;
	if (imms >= immr) {
		length = imms - immr + 1;
		value >>= immr;
	} else {
		length = imms + 1;
		at = width - immr;
	}
	value &= ones(length);
	result = value << at;
	if (opc == 0 && value >> (length - 1) & 1)
		result |= ~(ones(length) << at) & ~ones(at);
	if (opc == 1)
		result |= get(r, rd) & ~(ones(length) << at);
	set(r, rd, sf, result);
	return true;
}

static bool extract(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	unsigned by = field(word, 10, 6), width = sf ? 64 : 32;
	uint64_t low = get(r, field(word, 16, 5)), high = get(r, field(word, 5, 5));

	if (field(word, 29, 2) || field(word, 21, 1) || field(word, 22, 1) != sf || by >= width)
		return false;
	low = (low & ones(width)) >> by;
	set(r, field(word, 0, 5), sf, by ? low | high << (width - by) : low);
	return true;
}

static bool immediate(uint32_t word, unsigned long long *r)
{
	switch (field(word, 23, 3)) {
	case 0:
	case 1:
		return pc_relative(word, r);
	case 2:
		return add_sub_immediate(word, r);
	case 4:
		return logical_immediate(word, r);
	case 5:
		return move_wide(word, r);
	case 6:
		return bitfield(word, r);
	case 7:
		return extract(word, r);
	default:
		return false; /* ADDG, SUBG; CSSC's minimum and maximum */
	}
}

/* ---- data processing, register ------------------------------------------------------------------------------------- */

static bool logical_shifted(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	unsigned by = field(word, 10, 6);
	uint64_t b;

	if (!sf && by > 31)
		return false;
	b = shift(get(r, field(word, 16, 5)), field(word, 22, 2), by, sf);
	logical(word, r, get(r, field(word, 5, 5)), field(word, 21, 1) ? ~b : b, false);
	return true;
}

static bool add_sub_shifted(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	unsigned by = field(word, 10, 6), type = field(word, 22, 2);

	if (type == 3 || (!sf && by > 31))
		return false;
	add_sub(word, r, get(r, field(word, 5, 5)), shift(get(r, field(word, 16, 5)), type, by, sf), false);
	return true;
}

static bool add_sub_extended(uint32_t word, unsigned long long *r)
{
	unsigned by = field(word, 10, 3);

	if (field(word, 22, 2) || by > 4)
		return false;
	add_sub(word, r, r[field(word, 5, 5)], extend(get(r, field(word, 16, 5)), field(word, 13, 3)) << by, true);
	return true;
}

static bool add_sub_carry(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	uint64_t b = get(r, field(word, 16, 5)), result;
	unsigned nzcv;

	result = add(get(r, field(word, 5, 5)), field(word, 30, 1) ? ~b : b, get_flags(r) & C, sf, &nzcv);
	if (field(word, 29, 1))
		set_flags(r, nzcv);
	set(r, field(word, 0, 5), sf, result);
	return true;
}

/* RMIF, SETF8, SETF16 (FEAT_FlagM) */
static bool flag_manipulation(uint32_t word, unsigned long long *r)
{
	uint64_t value = get(r, field(word, 5, 5));

	if ((word & 0xffe07c10) == 0xba000400) {
		unsigned mask = field(word, 0, 4), got = (unsigned)rotate(value, field(word, 15, 6), 64) & mask;

		set_flags(r, (get_flags(r) & ~mask) | got);
		return true;
	}
	if ((word & 0xffffbc1f) == 0x3a00080d) {
		unsigned top = field(word, 14, 1) ? 15 : 7;
		unsigned n = value >> top & 1, v = (value >> (top + 1) & 1) ^ n;

		set_flags(r, (get_flags(r) & C) | (n ? N : 0) | (v ? V : 0) | (value & ones(top + 1) ? 0 : Z));
		return true;
	}
	return false;
}

static bool compare(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	uint64_t b = field(word, 16, 5);
	unsigned nzcv = field(word, 0, 4);

	if (!field(word, 29, 1) || field(word, 10, 1) || field(word, 4, 1))
		return false;
	if (!field(word, 11, 1))
		b = get(r, (unsigned)b);
	if (holds(get_flags(r), field(word, 12, 4)))
		add(get(r, field(word, 5, 5)), field(word, 30, 1) ? ~b : b, field(word, 30, 1), sf, &nzcv);
	set_flags(r, nzcv);
	return true;
}

static bool select(uint32_t word, unsigned long long *r)
{
	uint64_t value;

	if (field(word, 29, 1) || field(word, 11, 1))
		return false;
	if (holds(get_flags(r), field(word, 12, 4))) {
		value = get(r, field(word, 5, 5));
	} else {
		value = get(r, field(word, 16, 5));
		if (field(word, 30, 1))
			value = ~value;
		value += field(word, 10, 1);
	}
	set(r, field(word, 0, 5), word >> 31, value);
	return true;
}

static uint64_t multiply_high(uint64_t a, uint64_t b, bool is_signed)
{
	if (is_signed)
		return (uint64_t)(((__int128)(int64_t)a * (int64_t)b) >> 64);
	return (uint64_t)(((unsigned __int128)a * b) >> 64);
}

static bool three_sources(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31, sub = field(word, 15, 1);
	unsigned op = field(word, 21, 3);
	uint64_t a = get(r, field(word, 5, 5)), b = get(r, field(word, 16, 5)), c = get(r, field(word, 10, 5));

	if (field(word, 29, 2) || (op && !sf))
		return false;
	switch (op) {
	case 0:
		break;
	case 1:
		a = extend(a, 6), b = extend(b, 6);
		break;
	case 5:
		a = extend(a, 2), b = extend(b, 2);
		break;
	case 2:
	case 6:
		if (sub || field(word, 10, 5) != 31)
			return false;
		set(r, field(word, 0, 5), true, multiply_high(a, b, op == 2));
		return true;
	default:
		return false;
	}
	set(r, field(word, 0, 5), sf, sub ? c - a * b : c + a * b);
	return true;
}

/* Division by zero gives zero, and the one overflow the dividend (Arm ARM, SDIV). */
static uint64_t divide(uint64_t a, uint64_t b, bool is_signed, bool sf)
{
	if (!sf) {
		a = is_signed ? extend(a, 6) : (uint32_t)a;
		b = is_signed ? extend(b, 6) : (uint32_t)b;
	}
	if (b == 0)
		return 0;
	if (!is_signed)
		return a / b;
	return b == ~0ull ? -a : (uint64_t)((int64_t)a / (int64_t)b);
}

static bool two_sources(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	unsigned op = field(word, 10, 6);
	uint64_t a = get(r, field(word, 5, 5)), b = get(r, field(word, 16, 5));

	if (field(word, 29, 1))
		return false;
	if (op == 2 || op == 3)
		a = divide(a, b, op == 3, sf);
	else if (op >= 8 && op <= 11)
		a = shift(a, op & 3, (unsigned)b & (sf ? 63 : 31), sf);
	else
		return false;
	set(r, field(word, 0, 5), sf, a);
	return true;
}

static uint64_t swap_bytes(uint64_t value)
{
	return __builtin_bswap64(value);
}

static uint64_t reverse_bits(uint64_t value)
{
	static const uint64_t masks[] = { 0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f };

	for (unsigned i = 0; i < 3; i++)
		value = (value >> (1u << i) & masks[i]) | (value & masks[i]) << (1u << i);
	return swap_bytes(value);
}

static uint64_t leading_zeros(uint64_t value)
{
	return value ? (uint64_t)__builtin_clzll(value) : 64;
}

static bool one_source(uint32_t word, unsigned long long *r)
{
	bool sf = word >> 31;
	unsigned unused = sf ? 0 : 32;
	uint64_t a = get(r, field(word, 5, 5)), low = swap_bytes(a);

	if (field(word, 29, 1) || field(word, 16, 5))
		return false;
	if (!sf)
		a = (uint32_t)a;
	switch (field(word, 10, 6)) {
	case 0:
		a = reverse_bits(a) >> unused;
		break;
	case 1:
		a = (a >> 8 & 0x00ff00ff00ff00ff) | (a & 0x00ff00ff00ff00ff) << 8;
		break;
	case 2:
		a = sf ? low << 32 | low >> 32 : low >> 32;
		break;
	case 3:
		if (!sf)
			return false;
		a = low;
		break;
	case 4:
		a = leading_zeros(a) - unused;
		break;
	case 5:
		a = sf ? a : extend(a, 6);
		a = leading_zeros(a ^ (uint64_t)((int64_t)a >> 1)) - 1 - unused;
		break;
	default:
		return false;
	}
	set(r, field(word, 0, 5), sf, a);
	return true;
}

static bool registers(uint32_t word, unsigned long long *r)
{
	if (field(word, 24, 5) == 0x0a)
		return logical_shifted(word, r);
	if (field(word, 24, 5) == 0x0b)
		return field(word, 21, 1) ? add_sub_extended(word, r) : add_sub_shifted(word, r);
	if (field(word, 24, 5) == 0x1b)
		return three_sources(word, r);
	switch (field(word, 21, 8)) {
	case 0xd0:
		return field(word, 10, 6) ? flag_manipulation(word, r) : add_sub_carry(word, r);
	case 0xd2:
		return compare(word, r);
	case 0xd4:
		return select(word, r);
	case 0xd6:
		return field(word, 30, 1) ? one_source(word, r) : two_sources(word, r);
	default:
		return false;
	}
}

/* ---- branches and the harmless part of the system instructions ------------------------------------------------------ */

static bool branch(uint32_t word, unsigned long long *r, bool taken, unsigned low, unsigned width)
{
	r[TAGTSO_PC] += taken ? (uint64_t)(signed_field(word, low, width) * 4) : 4;
	return true;
}

static bool branch_register(uint32_t word, unsigned long long *r)
{
	uint64_t target = get(r, field(word, 5, 5));

	if ((word & 0xff9ffc1f) != 0xd61f0000 || field(word, 21, 2) == 3)
		return false;
	if (field(word, 21, 2) == 1)
		r[30] = r[TAGTSO_PC] + 4;
	r[TAGTSO_PC] = target;
	return true;
}

/* Hints that do nothing a program can see: NOP, YIELD, WFE, WFI, SEV, SEVL, DGH, ESB, PSB, TSB, CSDB, BTI. Others sign pointers. */
static bool hint(unsigned number)
{
	return number <= 6 || (number >= 16 && number <= 20) || (number >= 32 && number <= 38 && !(number & 1));
}

static bool system(uint32_t word, unsigned long long *r)
{
	unsigned rt = field(word, 0, 5);

	if ((word & 0xfffff01f) == 0xd503201f) {
		if (!hint(field(word, 5, 7)))
			return false;
	} else if ((word & 0xffffffe0) == 0xd53b4200) { /* MRS Xt, NZCV */
		set(r, rt, true, (uint64_t)get_flags(r) << 28);
	} else if ((word & 0xffffffe0) == 0xd51b4200) { /* MSR NZCV, Xt */
		set_flags(r, (unsigned)(get(r, rt) >> 28) & 15);
	} else if ((word & 0xfffff0ff) == 0xd500401f) { /* CFINV */
		set_flags(r, get_flags(r) ^ C);
	} else {
		return false;
	}
	next(r);
	return true;
}

/* These set pc themselves. */
static bool branches(uint32_t word, unsigned long long *r)
{
	uint64_t rt = get(r, field(word, 0, 5));
	bool not_zero = field(word, 24, 1);

	switch (word >> 29) {
	case 0:
	case 4: /* B, BL */
		if (word >> 31)
			r[30] = r[TAGTSO_PC] + 4;
		return branch(word, r, true, 0, 26);
	case 1:
	case 5:
		if (!field(word, 25, 1)) /* CBZ, CBNZ */
			return branch(word, r, ((word >> 31 ? rt : (uint32_t)rt) != 0) == not_zero, 5, 19);
		/* TBZ, TBNZ */
		return branch(word, r, (rt >> (field(word, 19, 5) | word >> 31 << 5) & 1) == not_zero, 5, 14);
	case 2: /* B.cond */
		if (field(word, 24, 2) || field(word, 4, 1))
			return false;
		return branch(word, r, holds(get_flags(r), field(word, 0, 4)), 5, 19);
	case 6:
		return field(word, 25, 1) ? branch_register(word, r) : system(word, r);
	default:
		return false;
	}
}

bool tagtso_alu_step(uint32_t word, regs r)
{
	unsigned group = field(word, 25, 4);
	bool known = false;

	if (group == 10 || group == 11)
		return branches(word, r);
	if (group == 8 || group == 9)
		known = immediate(word, r);
	else if (group == 5 || group == 13)
		known = registers(word, r);
	if (known)
		next(r);
	return known;
}
