/* SPDX-License-Identifier: MIT */
/* Interprets an LL/SC loop as one unit: emulating its load-exclusive alone would livelock. Handler code: no libc, no locks, no TLS. */
#include "exec.h"

#include "../alloc/owner.h"
#include "../alloc/tags.h"
#include "alu.h"
#include "decode.h"
#include "form.h"
#include "island.h"
#include "outofline.h"

/*
 * The interpreted state is a copy of the integer registers, and goes back into the frame only at a commit. Leaving at any pc is
 * right, for it is what an interrupt there does: the exclusive monitor is lost, and a store-exclusive that follows fails.
 * So a commit never has to be explained, only progress has: it is made when a store-exclusive has succeeded, or has
 * failed because another thread's succeeded, or when the code has left the loop without one.
 *
 * Where the code leaves the loop is known from the words: the loop reaches from the load-exclusive to the first store-exclusive
 * after it and the branch on its status. If an unconditional branch comes first (load and store stand in two functions: box64's
 * native_lock_read_*, native_lock_write_*), the path itself is followed until the store-exclusive or the limit, and that
 * needs ordinary accesses on the way (a stack frame): those are done in place, as the code would have done them.
 */

enum { SCAN_WORDS = 64 };

struct span {
	struct tagtso_frame frame; /* a view of r, so that tagtso_exec() works on the copy */
	unsigned long long r[TAGTSO_NREGS];
	uint32_t word;        /* the load-exclusive */
	uint64_t first, last; /* pc of the load-exclusive and of the store-exclusive; last = 0: not known */
	uint64_t address;     /* of the load-exclusive, without a tag */
	uint64_t tag;         /* in bits 59:56, for both exclusives */
	uint64_t loaded[2];   /* what the load-exclusive read */
	unsigned bytes;       /* how much it read: 1..16 */
	bool held;            /* the monitor: a load-exclusive was done and no store-exclusive since */
	bool wrote;           /* an ordinary store was done on the way: going back to the start would not be exact */
	struct tagtso_fault *fault;
};

enum step {
	STEP_ON,      /* interpreted: go on at r's pc */
	STEP_COMMIT,  /* the span ends at r's pc */
	STEP_TAG,     /* the exclusive's granule has another tag */
	STEP_FAULT,   /* the exclusive faulted */
	STEP_UNKNOWN, /* not interpreted */
};

static uint64_t get(const struct span *span, unsigned n)
{
	return n == 31 ? 0 : span->r[n];
}

static void set(struct span *span, unsigned n, uint64_t value)
{
	if (n != 31)
		span->r[n] = value;
}

/* An access of our own, not of the interrupted code, with registers of its own: regs[0] and [1], [2] and [3]. */
static enum tagtso_exec own_access(unsigned cls, unsigned size, unsigned flags, uint64_t pointer,
                                   unsigned long long regs[TAGTSO_NREGS], struct tagtso_fault *fault)
{
	const struct tagtso_memop op = {
		.cls = cls,
		.size = size,
		.flags = flags,
		.count = 1,
		.rs = 0,
		.rt = cls == TAGTSO_LOAD ? 0 : 2,
		.rt2 = 1,
	};
	struct tagtso_frame frame = { .x = regs };

	return tagtso_exec(&op, &frame, pointer, TAGTSO_PLAIN, fault);
}

bool tagtso_exec_fetch(uint64_t pc, uint32_t *word)
{
	unsigned long long regs[TAGTSO_NREGS];
	struct tagtso_fault fault;

	if (own_access(TAGTSO_LOAD, 2, 0, pc, regs, &fault) != TAGTSO_EXEC_DONE)
		return false;
	*word = (uint32_t)regs[0];
	return true;
}

static unsigned log2_of(unsigned bytes)
{
	return (unsigned)__builtin_ctz(bytes);
}

/* ---- the exclusives ---------------------------------------------------------------------------------------------------- */

static enum step exclusive_failed(enum tagtso_exec why)
{
	return why == TAGTSO_EXEC_TAG ? STEP_TAG : why == TAGTSO_EXEC_FAULT ? STEP_FAULT : STEP_UNKNOWN;
}

/* 16 bytes need not be read at once: the compare-and-swap compares them at once, as LDXP needs its STXP (Arm ARM B2.2.1). */
static enum tagtso_exec read_exclusive(struct span *span, bool acquire)
{
	unsigned long long regs[TAGTSO_NREGS];
	uint64_t pointer = span->address | span->tag;
	enum tagtso_exec result;

	if (span->bytes < 16) {
		result = own_access(TAGTSO_LOAD, log2_of(span->bytes), acquire ? TAGTSO_F_ACQUIRE : 0, pointer, regs,
		                    span->fault);
		span->loaded[0] = regs[0];
		return result;
	}
	const struct tagtso_memop pair = { .cls = TAGTSO_LOAD_PAIR, .size = 3, .count = 2, .rt = 0, .rt2 = 1 };
	struct tagtso_frame frame = { .x = regs };

	result = tagtso_exec(&pair, &frame, pointer, acquire ? TAGTSO_ORDERED : TAGTSO_PLAIN, span->fault);
	span->loaded[0] = regs[0];
	span->loaded[1] = regs[1];
	return result;
}

static enum step load_exclusive(struct span *span, const struct tagtso_memop *op)
{
	uint64_t address = tagtso_exec_address(op, &span->frame);
	unsigned bytes = (unsigned)op->count << op->size;
	enum tagtso_exec result;

	if (span->bytes && address >> 4 != span->address >> 4)
		return STEP_COMMIT; /* the next loop */
	if (address & (bytes - 1))
		return STEP_UNKNOWN;
	span->address = address;
	span->bytes = bytes;
	result = read_exclusive(span, op->flags & TAGTSO_F_ACQUIRE);
	if (result != TAGTSO_EXEC_DONE)
		return exclusive_failed(result);
	if (op->count == 1) {
		set(span, op->rt, span->loaded[0]);
	} else if (op->size == 2) {
		set(span, op->rt, (uint32_t)span->loaded[0]);
		set(span, op->rt2, span->loaded[0] >> 32);
	} else {
		set(span, op->rt, span->loaded[0]);
		set(span, op->rt2, span->loaded[1]);
	}
	span->held = true;
	span->r[TAGTSO_PC] += 4;
	return STEP_ON;
}

/* Success is the pair's "the value is still the loaded one": a value that went away and came back does not count. */
static enum tagtso_exec swap(struct span *span, const struct tagtso_memop *op, bool *same)
{
	bool pair = span->bytes == 16;
	unsigned long long regs[TAGTSO_NREGS]; /* no initialiser: it would be a call of memset */
	enum tagtso_exec result;

	regs[0] = span->loaded[0];
	regs[1] = span->loaded[1];
	regs[2] = get(span, op->rt);
	if (pair)
		regs[3] = get(span, op->rt2);
	else if (op->count == 2)
		regs[2] = (uint32_t)regs[2] | get(span, op->rt2) << 32;
	result = own_access(pair ? TAGTSO_CASP : TAGTSO_CAS, pair ? 3 : log2_of(span->bytes), 0,
	                    span->address | span->tag, regs, span->fault);
	*same = regs[0] == span->loaded[0] && (!pair || regs[1] == span->loaded[1]);
	return result;
}

/* CBZ, CBNZ, TBZ or TBNZ on the register that holds the status. */
static bool tests_register(uint32_t word, unsigned n)
{
	return (word & 0x7c000000) == 0x34000000 && (word & 31) == n;
}

static enum step succeeded(struct span *span, unsigned status)
{
	uint32_t word;

	if (tagtso_exec_fetch(span->r[TAGTSO_PC], &word) && tests_register(word, status))
		tagtso_alu_step(word, span->r);
	return STEP_COMMIT;
}

static enum step store_exclusive(struct span *span, const struct tagtso_memop *op)
{
	enum tagtso_exec result;
	bool same = false;

	if (span->held) {
		if (tagtso_exec_address(op, &span->frame) != span->address ||
		    (unsigned)op->count << op->size != span->bytes)
			return STEP_UNKNOWN;
		result = swap(span, op, &same);
		if (result != TAGTSO_EXEC_DONE)
			return exclusive_failed(result);
	}
	span->held = false;
	set(span, op->rs, !same);
	span->r[TAGTSO_PC] += 4;
	return same ? succeeded(span, op->rs) : STEP_ON;
}

/* ---- everything else ----------------------------------------------------------------------------------------------------- */

static bool overlap(uint64_t a, uint64_t bytes, uint64_t b, uint64_t more)
{
	return a < b + more && b < a + bytes;
}

/* With the tag in bits 59:56; shared memory is accessed in order (I1). */
static enum tagtso_exec access_with(struct span *span, const struct tagtso_memop *op, uint64_t address, uint64_t top)
{
	enum tagtso_order order =
		tagtso_tag_meant(TAGTSO_TAG_OF(top)) == TAGTSO_TAG_SHARED ? TAGTSO_ORDERED : TAGTSO_PLAIN;
	struct tagtso_fault fault;

	return tagtso_exec(op, &span->frame, address | top, order, &fault);
}

/* An ordinary access, with its own pointer and the tag that it has (an island may have put it there), or else with one that the memory may have. Outside the
 * window any tag will do. If it cannot be done here it is done by itself, after which the store-exclusive fails and the loop begins again. */
static enum step other_access(struct span *span, const struct tagtso_memop *op)
{
	uint64_t address = tagtso_exec_address(op, &span->frame), bytes = tagtso_memop_bytes(op), top = 0;
	bool same = overlap(address, bytes, span->address & ~15ull, 16);
	enum tagtso_exec result;

	if (op->flags & TAGTSO_F_VECTOR ||
	    (op->flags & TAGTSO_F_STORE && overlap(address, bytes, span->address, span->bytes)))
		return STEP_UNKNOWN;
	if (op->addressing != TAGTSO_ADDR_LITERAL)
		top = span->r[op->rn] & 0xffull << 56;
	result = access_with(span, op, address, same ? span->tag : top);
	if (result == TAGTSO_EXEC_TAG)
		result = access_with(span, op, address, (uint64_t)tagtso_owner_me() << TAGTSO_TAG_SHIFT);
	if (result == TAGTSO_EXEC_TAG)
		result = access_with(span, op, address, (uint64_t)tagtso_shared_tag << TAGTSO_TAG_SHIFT);
	if (result == TAGTSO_EXEC_UNKNOWN || (result == TAGTSO_EXEC_TAG && (address ^ (address + bytes - 1)) >> 4))
		return STEP_UNKNOWN;
	if (result != TAGTSO_EXEC_DONE)
		return STEP_COMMIT;
	span->wrote |= (op->flags & TAGTSO_F_STORE) != 0;
	return STEP_ON;
}

/* IRG Xd, Xn and LDG Xt, [Xn, #imm]: an ordinary access that was rewritten is a branch into an island, whose code has these. */
static bool tag_instruction(struct span *span, uint32_t word)
{
	unsigned rd = word & 31, rn = word >> 5 & 31;
	int64_t imm = (int64_t)((uint64_t)word << 43) >> 55;
	struct tagtso_fault fault;
	uint64_t value;

	if ((word & 0xfffffc00) == 0x9adf1000) { /* Xm = XZR */
		__asm__("irg %0, %1" : "=r"(value) : "r"((uint64_t)span->r[rn]));
		span->r[rd] = value;
	} else if ((word & 0xffe00c00) == 0xd9600000) {
		if (tagtso_exec_ldg(span->r[rn] + (uint64_t)imm * 16, &value, &fault) != TAGTSO_EXEC_DONE)
			return false;
		if (rd != 31)
			span->r[rd] = (span->r[rd] & ~(15ull << 56)) | (value & 15ull << 56);
	} else {
		return false;
	}
	span->r[TAGTSO_PC] += 4;
	return true;
}

/* CLREX, DSB, DMB, ISB; the options of the barriers only make them weaker. */
static bool monitor_or_barrier(struct span *span, uint32_t word)
{
	if ((word & 0xfffff01f) != 0xd503301f)
		return false;
	switch (word >> 5 & 7) {
	case 2:
		span->held = false;
		break;
	case 4:
		__asm__ volatile("dsb sy" ::: "memory");
		break;
	case 5:
		__asm__ volatile("dmb sy" ::: "memory");
		break;
	case 6:
		__asm__ volatile("isb" ::: "memory");
		break;
	default:
		return false;
	}
	span->r[TAGTSO_PC] += 4;
	return true;
}

/* A function's entry and exit: signs or authenticates x30 with SP, by the hint that does it to x17 with x16 (both are NOPs together). */
static bool pointer_authentication(struct span *span, uint32_t word)
{
	register uint64_t x17 __asm__("x17") = span->r[30];
	register uint64_t x16 __asm__("x16") = span->r[TAGTSO_SP];

	switch (word) {
	case 0xd503233f: /* PACIASP */
		__asm__ volatile("hint #8" : "+r"(x17) : "r"(x16));
		break;
	case 0xd503237f: /* PACIBSP */
		__asm__ volatile("hint #10" : "+r"(x17) : "r"(x16));
		break;
	case 0xd50323bf: /* AUTIASP */
		__asm__ volatile("hint #12" : "+r"(x17) : "r"(x16));
		break;
	case 0xd50323ff: /* AUTIBSP */
		__asm__ volatile("hint #14" : "+r"(x17) : "r"(x16));
		break;
	default:
		return false;
	}
	span->r[30] = x17;
	span->r[TAGTSO_PC] += 4;
	return true;
}

static enum step memory(struct span *span, uint32_t word)
{
	struct tagtso_memop op;

	if (!tagtso_decode(word, &op))
		return monitor_or_barrier(span, word) || pointer_authentication(span, word) ||
		                       tag_instruction(span, word)
		               ? STEP_ON
		               : STEP_UNKNOWN;
	switch (op.cls) {
	case TAGTSO_LOAD_EX:
	case TAGTSO_LOAD_EX_PAIR:
		return load_exclusive(span, &op);
	case TAGTSO_STORE_EX:
	case TAGTSO_STORE_EX_PAIR:
		return store_exclusive(span, &op);
	case TAGTSO_PREFETCH:
		return tagtso_exec(&op, &span->frame, 0, TAGTSO_PLAIN, span->fault) == TAGTSO_EXEC_DONE ? STEP_ON
		                                                                                        : STEP_UNKNOWN;
	default:
		return span->held ? other_access(span, &op) : STEP_COMMIT;
	}
}

/* True once pc has left the loop, if it is known where that is. Code just before it may set up the next round. */
static bool outside(const struct span *span)
{
	uint64_t pc = span->r[TAGTSO_PC], before = span->held ? 0 : 64;

	return span->last && (pc < span->first - before || pc > span->last + 4);
}

/* Where the word is a branch to the island of the instruction at pc: that instruction. A restartable sequence cannot be interpreted. */
static uint32_t emitted(uint64_t pc, uint32_t word)
{
	uint64_t target = tagtso_cpu.owns ? tagtso_form_target(pc, word) : 0;
	struct tagtso_island *island = target ? tagtso_code_island(target) : NULL;
	struct tagtso_instruction at = { 0 };

	if (island)
		at = tagtso_island_instruction(island, target);
	return island && at.pc == pc ? at.word : word;
}

static enum step step(struct span *span)
{
	enum step result;
	uint32_t word;

	/* At its own pc the loop's first word is the one that trapped, whatever has been written there since. */
	if (span->r[TAGTSO_PC] == span->first)
		result = memory(span, span->word);
	else if (!tagtso_exec_fetch(span->r[TAGTSO_PC], &word))
		result = STEP_UNKNOWN;
	else if (tagtso_alu_step(word = emitted(span->r[TAGTSO_PC], word), span->r))
		result = STEP_ON;
	else
		result = memory(span, word);
	if (result == STEP_ON && outside(span))
		return STEP_COMMIT;
	if (result == STEP_UNKNOWN && !span->held && span->bytes)
		return STEP_COMMIT; /* no store-exclusive can depend on what came before */
	return result;
}

static bool unconditional_branch(uint32_t word)
{
	return (word & 0x7c000000) == 0x14000000 || (word & 0xfe000000) == 0xd6000000;
}

/* How many bytes further on a conditional branch goes (B.cond, CBZ, CBNZ: imm19 at 23:5; TBZ, TBNZ: imm14 at 18:5); 0 for every other word. */
static uint64_t forward_branch(uint32_t word)
{
	int64_t words = 0;

	if ((word & 0xff000000) == 0x54000000 || (word & 0x7e000000) == 0x34000000)
		words = (int32_t)(word << 8) >> 13;
	else if ((word & 0x7e000000) == 0x36000000)
		words = (int32_t)(word << 13) >> 18;
	return words > 0 ? 4 * (uint64_t)words : 0;
}

static bool is_exclusive(const struct tagtso_memop *op, enum tagtso_class one, enum tagtso_class pair)
{
	return op->cls == one || op->cls == pair;
}

/* The pc of the last store-exclusive that belongs to the load-exclusive at `pc`, 0 if the words do not say. There may be one on each way out of a
 * comparison: box64's CMPXCHG16B stores back what it read when the comparison fails. */
static uint64_t find_store(uint64_t pc, const struct tagtso_memop *load)
{
	uint64_t last = 0, target = 0;
	struct tagtso_memop op;
	uint32_t word;

	for (uint64_t at = pc + 4; at < pc + 4 * SCAN_WORDS && tagtso_exec_fetch(at, &word); at += 4) {
		uint64_t forward = forward_branch(word);

		if (unconditional_branch(word) && target <= at)
			break;
		if (forward && at + forward > target)
			target = at + forward;
		if (!tagtso_decode(word, &op))
			continue;
		if (is_exclusive(&op, TAGTSO_LOAD_EX, TAGTSO_LOAD_EX_PAIR))
			break;
		if (is_exclusive(&op, TAGTSO_STORE_EX, TAGTSO_STORE_EX_PAIR) &&
		    (!last || (op.rn == load->rn && op.size == load->size && op.count == load->count)))
			last = at;
	}
	return last;
}

/* ---- a loop to be run elsewhere -------------------------------------------------------------------------------------------- */

static bool conditional_branch(uint32_t word)
{
	return (word & 0xff000000) == 0x54000000 || (word & 0x7c000000) == 0x34000000;
}

/* SIMD&FP words whose result is a general register: FP to integer and FMOV (bits 15:10 = 0), FP to fixed-point (bit 21 = 0), SMOV and UMOV. */
static bool simd_to_general(uint32_t word)
{
	return (word & 0x7f20fc00) == 0x1e200000 || (word & 0x7f200000) == 0x1e000000 ||
	       (word & 0xbfe0ec00) == 0x0e002c00;
}

/* Whether a word without an access may write general register n. What has no result there may be taken for one that has: then its loop is
 * followed, which takes longer. */
static bool may_write(uint32_t word, unsigned n)
{
	bool simd = (word & 0x0e000000) == 0x0e000000;

	return (word & 31) == n && !conditional_branch(word) && (!simd || simd_to_general(word));
}

/* Its status register is never the base: that is not decoded. */
static bool exclusive_keeps(const struct tagtso_memop *op, unsigned n)
{
	return !is_exclusive(op, TAGTSO_LOAD_EX, TAGTSO_LOAD_EX_PAIR) || (op->rt != n && op->rt2 != n);
}

/* A word that does the same anywhere, and accesses memory only where the load-exclusive does: another page would not be shared (I1). */
static bool may_move(uint32_t word, const struct tagtso_memop *load)
{
	struct tagtso_memop op;

	tagtso_decode(word, &op);
	if (op.cls >= TAGTSO_LOAD_EX && op.cls <= TAGTSO_STORE_EX_PAIR)
		return op.rn == load->rn && exclusive_keeps(&op, load->rn);
	if (op.cls != TAGTSO_OTHER)
		return op.cls == TAGTSO_PREFETCH && op.addressing != TAGTSO_ADDR_LITERAL;
	if (tagtso_form_is_branch(word))
		return true;
	return (conditional_branch(word) || tagtso_outofline_may_move(word)) && !may_write(word, load->rn);
}

unsigned tagtso_span_words(const struct tagtso_memop *op, const struct tagtso_frame *frame, uint32_t *words,
                           unsigned room)
{
	uint64_t first = frame->x[TAGTSO_PC], last = find_store(first, op);
	unsigned count = last ? (unsigned)((last - first) / 4) + 1 : 0;

	if (!count || count + 1 > room || !exclusive_keeps(op, op->rn))
		return 0;
	words[0] = op->word;
	for (unsigned i = 1; i < count; i++) {
		if (!tagtso_exec_fetch(first + 4 * i, &words[i]) || !may_move(words[i], op))
			return 0;
	}
	return tagtso_exec_fetch(last + 4, &words[count]) && conditional_branch(words[count]) ? count + 1 : count;
}

/* ---- the loop -------------------------------------------------------------------------------------------------------------- */

static void copy(unsigned long long *to, const unsigned long long *from)
{
	for (unsigned i = 0; i < TAGTSO_NREGS; i++)
		((volatile unsigned long long *)to)[i] = from[i]; /* volatile: not a call of memcpy */
}

static enum tagtso_exec run(struct span *span, unsigned limit)
{
	enum step result = STEP_ON;

	for (unsigned i = 0; i < limit && result == STEP_ON; i++)
		result = step(span);
	switch (result) {
	case STEP_TAG:
		/* After an ordinary store the code goes on from here by itself: its store-exclusive fails, as after an interrupt. */
		return span->wrote ? TAGTSO_EXEC_DONE : TAGTSO_EXEC_TAG;
	case STEP_FAULT: /* not so here: without a monitor it would fail for ever, and never fault */
		return TAGTSO_EXEC_FAULT;
	case STEP_UNKNOWN:
		return TAGTSO_EXEC_UNKNOWN;
	default:
		return TAGTSO_EXEC_DONE;
	}
}

/* A store-exclusive whose load-exclusive passed before the tag changed: the monitor is gone, so it fails, and its loop runs again. */
static enum tagtso_exec fail_store(const struct tagtso_memop *op, const struct tagtso_frame *frame)
{
	if (op->rs != 31)
		frame->x[op->rs] = 1;
	frame->x[TAGTSO_PC] += 4;
	return TAGTSO_EXEC_DONE;
}

enum tagtso_exec tagtso_span_exec(const struct tagtso_memop *op, struct tagtso_frame *frame, unsigned tag,
                                  unsigned limit, struct tagtso_fault *fault)
{
	struct span span;
	enum tagtso_exec result;

	if (op->cls == TAGTSO_STORE_EX || op->cls == TAGTSO_STORE_EX_PAIR)
		return fail_store(op, frame);
	if (op->cls != TAGTSO_LOAD_EX && op->cls != TAGTSO_LOAD_EX_PAIR)
		return TAGTSO_EXEC_UNKNOWN;
	span.frame = (struct tagtso_frame){ .x = span.r };
	copy(span.r, frame->x);
	span.word = op->word;
	span.first = span.r[TAGTSO_PC];
	span.last = find_store(span.first, op);
	span.address = 0;
	span.tag = (uint64_t)(tag & 15) << 56;
	span.loaded[0] = span.loaded[1] = 0;
	span.bytes = 0;
	span.held = span.wrote = false;
	span.fault = fault;
	/* x86's LOCK'd operations are full fences, on owned memory too, also when a compare fails and nothing is stored. */
	__asm__ volatile("dmb ish" ::: "memory");
	result = run(&span, limit);
	__asm__ volatile("dmb ish" ::: "memory");
	if (result == TAGTSO_EXEC_DONE)
		copy(frame->x, span.r);
	return result;
}
