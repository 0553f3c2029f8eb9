/* SPDX-License-Identifier: MIT */
/* Carries out one decoded access on the registers of an interrupted thread. Handler code: no libc, no locks, no TLS. */
#include "exec.h"

#include <asm/sigcontext.h>
#include <signal.h>
#include <stddef.h>

#include "../alloc/cpu.h"
#include "alu.h"

#define HIDDEN __attribute__((visibility("hidden")))

#ifndef SEGV_MTESERR
#define SEGV_MTESERR 9
#endif

/* frame->x is indexed up to pstate (alu.h). */
_Static_assert(offsetof(mcontext_t, sp) == offsetof(mcontext_t, regs) + 8 * TAGTSO_SP, "sp follows x30");
_Static_assert(offsetof(mcontext_t, pc) == offsetof(mcontext_t, regs) + 8 * TAGTSO_PC, "pc follows sp");
_Static_assert(offsetof(mcontext_t, pstate) == offsetof(mcontext_t, regs) + 8 * TAGTSO_PSTATE, "pstate follows pc");

/* ---- the access routines (exec-access-arm64.S) ----------------------------------------------------------------------- */

typedef uint64_t routine(uint64_t pointer, void *first, void *second, struct tagtso_fault *fault);

HIDDEN extern const char tagtso_access_failed[];

#define DECLARE(name) HIDDEN extern routine tagtso_access_##name
#define A(name) tagtso_access_##name

DECLARE(ldrb), A(ldrh), A(ldrw), A(ldrx), A(ldrsbw), A(ldrshw), A(ldrsbx), A(ldrshx), A(ldrswx);
DECLARE(ldarb), A(ldarh), A(ldarw), A(ldarx);
DECLARE(ldaprb), A(ldaprh), A(ldaprw), A(ldaprx), A(ldaprsbw), A(ldaprshw), A(ldaprsbx), A(ldaprshx), A(ldaprswx);
DECLARE(ldr_b), A(ldr_h), A(ldr_s), A(ldr_d), A(ldr_q), A(lane_b), A(lane_h), A(lane_s), A(lane_d);
DECLARE(ldpw), A(ldpx), A(ldpsw), A(ldp_s), A(ldp_d), A(ldp_q);
DECLARE(strb), A(strh), A(strw), A(strx), A(stlrb), A(stlrh), A(stlrw), A(stlrx), A(str_q);
DECLARE(stpw), A(stpx), A(stp_q);
DECLARE(casb), A(cash), A(casw), A(casx), A(caspw), A(caspx);
DECLARE(ld1_d1), A(ld1_d2), A(ld1_d3), A(ld1_d4), A(ld1_q1), A(ld1_q2), A(ld1_q3), A(ld1_q4);
DECLARE(st1_d1), A(st1_d2), A(st1_d3), A(st1_d4), A(st1_q1), A(st1_q2), A(st1_q3), A(st1_q4);
DECLARE(zva), A(ldg);
#define LSE(name) DECLARE(name##_b), A(name##_h), A(name##_w), A(name##_x)
LSE(ldadd);
LSE(ldclr);
LSE(ldeor);
LSE(ldset);
LSE(ldsmax);
LSE(ldsmin);
LSE(ldumax);
LSE(ldumin);
LSE(swp);
#undef LSE

/* The twins of exec-access-arm64.S: on one CPU only. */
typedef uint64_t twin(uint64_t pointer, void *first, void *second, struct tagtso_fault *fault, uint64_t area,
                      uint64_t number);

static __attribute__((noinline)) uint64_t access_on_cpu(routine *access, uint64_t pointer, void *first, void *second,
                                                        struct tagtso_fault *fault)
{
	uint64_t area = tagtso_cpu_area();
	twin *t = (twin *)((uint64_t)access + (uint64_t)(int64_t)((const int32_t *)(uint64_t)access)[-1]);

	return t(pointer, first, second, fault, area, area + tagtso_cpu.number);
}

/* I2, where the owner is a CPU: that the thread is on it, and the access, are one. */
static inline uint64_t perform(routine *access, uint64_t pointer, void *first, void *second, struct tagtso_fault *fault)
{
	if (tagtso_cpu.owns && TAGTSO_TAG_OF(pointer) - TAGTSO_TAG_FIRST < TAGTSO_TAG_LAST)
		return access_on_cpu(access, pointer, first, second, fault);
	return access(pointer, first, second, fault);
}

/* [flags][size of the element]; a hole is an instruction that does not exist, and is answered UNKNOWN. */
enum {
	V = TAGTSO_F_VECTOR,
	TO_32 = TAGTSO_F_SIGNED,
	TO_64 = TAGTSO_F_SIGNED | TAGTSO_F_WIDE,
	ACQ = TAGTSO_F_ACQUIRE,
	RCPC = TAGTSO_F_ACQUIRE | TAGTSO_F_RCPC,
	LOADS = V | TO_64 | RCPC,
};
static routine *const loads[LOADS + 1][8] = {
	[0] = { A(ldrb), A(ldrh), A(ldrw), A(ldrx) },
	[TO_32] = { A(ldrsbw), A(ldrshw) },
	[TO_64] = { A(ldrsbx), A(ldrshx), A(ldrswx) },
	[ACQ] = { A(ldarb), A(ldarh), A(ldarw), A(ldarx) },
	[RCPC] = { A(ldaprb), A(ldaprh), A(ldaprw), A(ldaprx) },
	[RCPC | TO_32] = { A(ldaprsbw), A(ldaprshw) },
	[RCPC | TO_64] = { A(ldaprsbx), A(ldaprshx), A(ldaprswx) },
	[V] = { A(ldr_b), A(ldr_h), A(ldr_s), A(ldr_d), A(ldr_q) },
};
static routine *const lane_loads[] = { A(lane_b), A(lane_h), A(lane_s), A(lane_d), NULL };
static routine *const stores[][5] = {
	/* [release]; the integer ones store vectors and lanes of these sizes too */
	{ A(strb), A(strh), A(strw), A(strx), A(str_q) },
	{ A(stlrb), A(stlrh), A(stlrw), A(stlrx), NULL },
};
static routine *const pair_loads[][5] = {
	/* [vector] */
	{ NULL, NULL, A(ldpw), A(ldpx), NULL },
	{ NULL, NULL, A(ldp_s), A(ldp_d), A(ldp_q) },
};
static routine *const pair_stores[] = { NULL, NULL, A(stpw), A(stpx), A(stp_q) };
static routine *const cas[] = { A(casb), A(cash), A(casw), A(casx), NULL };
static routine *const casp[] = { NULL, NULL, A(caspw), A(caspx), NULL };
#define LSE(name) \
	{ \
		A(name##_b), A(name##_h), A(name##_w), A(name##_x), NULL \
	}
static routine *const lse[][5] = {
	/* [enum tagtso_lse] */
	LSE(ldadd), LSE(ldclr), LSE(ldeor), LSE(ldset), LSE(ldsmax), LSE(ldsmin), LSE(ldumax), LSE(ldumin), LSE(swp),
};
#undef LSE
static routine *const multi_loads[][4] = {
	/* [128-bit vectors][count - 1] */
	{ A(ld1_d1), A(ld1_d2), A(ld1_d3), A(ld1_d4) },
	{ A(ld1_q1), A(ld1_q2), A(ld1_q3), A(ld1_q4) },
};
static routine *const multi_stores[][4] = {
	{ A(st1_d1), A(st1_d2), A(st1_d3), A(st1_d4) },
	{ A(st1_q1), A(st1_q2), A(st1_q3), A(st1_q4) },
};

void tagtso_exec_fixup(ucontext_t *nested, const siginfo_t *info)
{
	struct tagtso_fault *fault = (struct tagtso_fault *)nested->uc_mcontext.regs[3];
	struct tagtso_frame frame;

	tagtso_frame_init(&frame, nested);
	fault->signo = info->si_signo;
	fault->code = info->si_code;
	fault->address = (uint64_t)info->si_addr << 8 >> 8;
	fault->esr = frame.esr ? *frame.esr : 0;
	nested->uc_mcontext.pc = (uint64_t)tagtso_access_failed;
}

/* ---- the signal frame ------------------------------------------------------------------------------------------------ */

/* A frame without the payload belongs to a thread whose Z registers are not live: the kernel zeroes the rest of V itself. */
static void *sve_with_payload(struct sve_context *sve)
{
	return sve->vl && sve->head.size >= SVE_SIG_CONTEXT_SIZE(sve_vq_from_vl(sve->vl)) ? sve : NULL;
}

/* The kernel ends the records by a null one, and continues them elsewhere where an extra_context says. */
void tagtso_frame_init(struct tagtso_frame *frame, ucontext_t *uc)
{
	mcontext_t *mc = &uc->uc_mcontext;
	char *at = (char *)mc->__reserved, *next;

	*frame = (struct tagtso_frame){ .uc = uc, .x = mc->regs };
	for (; ((struct _aarch64_ctx *)at)->size; at = next) {
		next = at + ((struct _aarch64_ctx *)at)->size;
		switch (((struct _aarch64_ctx *)at)->magic) {
		case FPSIMD_MAGIC:
			frame->v = ((struct fpsimd_context *)at)->vregs;
			break;
		case ESR_MAGIC:
			frame->esr = (uint64_t *)&((struct esr_context *)at)->esr;
			break;
		case SVE_MAGIC:
			frame->sve = sve_with_payload((struct sve_context *)at);
			break;
		case EXTRA_MAGIC:
			next = (char *)((struct extra_context *)at)->datap;
			break;
		}
	}
}

/* A SIMD&FP write zeroes its Z register from bit 128 on. Bits 127:0 the kernel takes from fpsimd_context when the frame is restored
 * (linux/Documentation/arch/arm64/sve.rst, section 6), QEMU's user-mode emulation from this record: both get them. */
static void settle_z(const struct tagtso_frame *frame, unsigned n)
{
	struct sve_context *sve = frame->sve;
	unsigned vq;
	__uint128_t *z;

	if (!sve)
		return;
	vq = sve_vq_from_vl(sve->vl);
	z = (__uint128_t *)((char *)sve + SVE_SIG_ZREG_OFFSET(vq, n));
	z[0] = frame->v[n];
	for (unsigned i = 1; i < vq; i++)
		*(volatile __uint128_t *)&z[i] = 0; /* volatile: not a call of memset */
}

/* ---- addresses --------------------------------------------------------------------------------------------------------- */

static uint64_t get(const struct tagtso_frame *frame, unsigned n)
{
	return n == 31 ? 0 : frame->x[n];
}

static uint64_t offset_register(const struct tagtso_memop *op, const struct tagtso_frame *frame)
{
	uint64_t value = get(frame, op->rm);

	if (op->extend == 2)
		value = (uint32_t)value;
	else if (op->extend == 6)
		value = (uint64_t)(int32_t)value;
	return value << op->shift;
}

uint64_t tagtso_exec_rare_address(const struct tagtso_memop *op, const struct tagtso_frame *frame)
{
	uint64_t address;

	if (op->cls == TAGTSO_ZERO_BLOCK) {
		address = get(frame, op->rt) & ~63ull;
	} else if (op->addressing == TAGTSO_ADDR_LITERAL) {
		address = frame->x[TAGTSO_PC] + (uint64_t)(int64_t)op->imm;
	} else {
		address = frame->x[op->rn]; /* 31 = SP by position */
		if (op->addressing == TAGTSO_ADDR_OFFSET || op->addressing == TAGTSO_ADDR_PRE)
			address += (uint64_t)(int64_t)op->imm;
		else if (op->addressing == TAGTSO_ADDR_REG)
			address += offset_register(op, frame);
	}
	return address << 8 >> 8;
}

static inline void write_back(const struct tagtso_memop *op, const struct tagtso_frame *frame)
{
	if (op->addressing == TAGTSO_ADDR_PRE || op->addressing == TAGTSO_ADDR_POST)
		frame->x[op->rn] += (uint64_t)(int64_t)op->imm;
	else if (op->addressing == TAGTSO_ADDR_POST_REG)
		frame->x[op->rn] += get(frame, op->rm);
}

static inline enum tagtso_exec finish(const struct tagtso_memop *op, const struct tagtso_frame *frame)
{
	if (op->addressing != TAGTSO_ADDR_OFFSET)
		write_back(op, frame);
	frame->x[TAGTSO_PC] += 4;
	return TAGTSO_EXEC_DONE;
}

static enum tagtso_exec failed(const struct tagtso_fault *fault)
{
	return fault->signo == SIGSEGV && fault->code == SEGV_MTESERR ? TAGTSO_EXEC_TAG : TAGTSO_EXEC_FAULT;
}

/* ---- ordering: halfst, which is x86-TSO exactly (tests/litmus) ----------------------------------------------------------- */

/* Load, then everything after it: later loads and stores stay behind an x86 load. */
static inline void after_load(enum tagtso_order order)
{
	if (order == TAGTSO_ORDERED)
		__asm__ volatile("dmb ishld" ::: "memory");
}

/* Earlier stores, then this one. Earlier loads are held back by their own barrier. STLR keeps its order to a later LDAR. */
static inline void before_store(enum tagtso_order order)
{
	if (order == TAGTSO_ORDERED)
		__asm__ volatile("dmb ishst" ::: "memory");
}

/* LOCK'd operations are full fences: hence barriers on both sides of the AL form. Those that compare need them on owned memory too: when the
 * comparison fails nothing is stored, and the release that orders what came before is not there. */
static inline void around_atomic(enum tagtso_order order, bool compares)
{
	if (order == TAGTSO_ORDERED || compares)
		__asm__ volatile("dmb ish" ::: "memory");
}

/* ---- classes ----------------------------------------------------------------------------------------------------------- */

/* What the routines read and write for register n: the frame's own, or `zero` for XZR. */
static void *image(const struct tagtso_memop *op, const struct tagtso_frame *frame, unsigned n, uint64_t *zero)
{
	if (op->flags & TAGTSO_F_VECTOR)
		return &frame->v[n];
	return n == 31 ? zero : (uint64_t *)&frame->x[n];
}

static void settle_if_vector(const struct tagtso_memop *op, const struct tagtso_frame *frame, unsigned n)
{
	if (op->flags & TAGTSO_F_VECTOR)
		settle_z(frame, n);
}

static enum tagtso_exec load(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                             enum tagtso_order order, struct tagtso_fault *fault)
{
	routine *access = loads[op->flags & LOADS][op->size];
	uint64_t zero;

	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	if (perform(access, pointer, image(op, frame, op->rt, &zero), NULL, fault))
		return failed(fault);
	after_load(order);
	settle_if_vector(op, frame, op->rt);
	return finish(op, frame);
}

static enum tagtso_exec store(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                              enum tagtso_order order, struct tagtso_fault *fault)
{
	routine *access = stores[(op->flags & TAGTSO_F_RELEASE) != 0][op->size];
	uint64_t zero = 0;

	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	before_store(order);
	if (perform(access, pointer, image(op, frame, op->rt, &zero), NULL, fault))
		return failed(fault);
	return finish(op, frame);
}

static enum tagtso_exec load_pair(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                  enum tagtso_order order, struct tagtso_fault *fault)
{
	routine *access = pair_loads[(op->flags & TAGTSO_F_VECTOR) != 0][op->size];
	uint64_t zero;

	if (op->flags & TAGTSO_F_SIGNED)
		access = A(ldpsw);
	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	if (perform(access, pointer, image(op, frame, op->rt, &zero), image(op, frame, op->rt2, &zero), fault))
		return failed(fault);
	after_load(order);
	settle_if_vector(op, frame, op->rt);
	settle_if_vector(op, frame, op->rt2);
	return finish(op, frame);
}

static enum tagtso_exec store_pair(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                   enum tagtso_order order, struct tagtso_fault *fault)
{
	routine *access = pair_stores[op->size];
	uint64_t zero = 0;

	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	before_store(order);
	if (perform(access, pointer, image(op, frame, op->rt, &zero), image(op, frame, op->rt2, &zero), fault))
		return failed(fault);
	return finish(op, frame);
}

static enum tagtso_exec atomic(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                               enum tagtso_order order, struct tagtso_fault *fault)
{
	bool compares = op->cls == TAGTSO_CAS;
	routine *access = compares ? cas[op->size] : lse[op->lse][op->size];
	uint64_t operand = 0, result = 0;

	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	around_atomic(order, compares);
	if (perform(access, pointer, image(op, frame, op->rs, &operand), image(op, frame, op->rt, &result), fault))
		return failed(fault);
	around_atomic(order, compares);
	return finish(op, frame);
}

/* Copies, since rs + 1 may be 31. */
static enum tagtso_exec compare_pair(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                     enum tagtso_order order, struct tagtso_fault *fault)
{
	routine *access = casp[op->size];
	uint64_t compared[2], new[2];

	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	for (unsigned i = 0; i < 2; i++) {
		compared[i] = get(frame, op->rs + i);
		new[i] = get(frame, op->rt + i);
	}
	around_atomic(order, true);
	if (perform(access, pointer, compared, new, fault))
		return failed(fault);
	around_atomic(order, true);
	for (unsigned i = 0; i < 2; i++) {
		if (op->rs + i != 31)
			frame->x[op->rs + i] = compared[i];
	}
	return finish(op, frame);
}

static void *lane(const struct tagtso_memop *op, const struct tagtso_frame *frame)
{
	return (char *)&frame->v[op->rt] + ((unsigned)op->index << op->size);
}

static enum tagtso_exec load_lane(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                  enum tagtso_order order, struct tagtso_fault *fault)
{
	routine *access = lane_loads[op->size];

	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	if (perform(access, pointer, lane(op, frame), NULL, fault))
		return failed(fault);
	after_load(order);
	settle_z(frame, op->rt);
	return finish(op, frame);
}

static enum tagtso_exec store_lane(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                   enum tagtso_order order, struct tagtso_fault *fault)
{
	before_store(order);
	if (perform(stores[0][op->size], pointer, lane(op, frame), NULL, fault))
		return failed(fault);
	return finish(op, frame);
}

static enum tagtso_exec load_duplicate(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                       enum tagtso_order order, struct tagtso_fault *fault)
{
	routine *access = loads[0][op->size];
	uint64_t value;

	if (!access)
		return TAGTSO_EXEC_UNKNOWN;
	if (perform(access, pointer, &value, NULL, fault))
		return failed(fault);
	after_load(order);
	for (unsigned bits = 8u << op->size; bits < 64; bits *= 2)
		value |= value << bits;
	frame->v[op->rt] = value;
	if (op->flags & TAGTSO_F_Q)
		frame->v[op->rt] |= (__uint128_t)value << 64;
	settle_z(frame, op->rt);
	return finish(op, frame);
}

static enum tagtso_exec load_multiple(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                      enum tagtso_order order, struct tagtso_fault *fault)
{
	__uint128_t v[4];

	if (op->count - 1u > 3)
		return TAGTSO_EXEC_UNKNOWN;
	if (perform(multi_loads[(op->flags & TAGTSO_F_Q) != 0][op->count - 1], pointer, v, NULL, fault))
		return failed(fault);
	after_load(order);
	for (unsigned i = 0; i < op->count; i++) {
		frame->v[(op->rt + i) % 32] = v[i];
		settle_z(frame, (op->rt + i) % 32);
	}
	return finish(op, frame);
}

static enum tagtso_exec store_multiple(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                       enum tagtso_order order, struct tagtso_fault *fault)
{
	__uint128_t v[4];

	if (op->count - 1u > 3)
		return TAGTSO_EXEC_UNKNOWN;
	for (unsigned i = 0; i < 4; i++)
		v[i] = frame->v[(op->rt + i) % 32];
	before_store(order);
	if (perform(multi_stores[(op->flags & TAGTSO_F_Q) != 0][op->count - 1], pointer, v, NULL, fault))
		return failed(fault);
	return finish(op, frame);
}

/* Whoever settled the granules looked at 64 bytes: DCZID_EL0 must say 4 (log2 of the words), and not that DC ZVA is prohibited. */
static enum tagtso_exec zero_block(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                   enum tagtso_order order, struct tagtso_fault *fault)
{
	uint64_t dczid;

	__asm__("mrs %0, dczid_el0" : "=r"(dczid));
	if ((dczid & 31) != 4)
		return TAGTSO_EXEC_UNKNOWN;
	before_store(order);
	pointer |= get(frame, op->rt) & 63; /* what a fault reports is the register's address, not the block's */
	if (perform(A(zva), pointer, NULL, NULL, fault))
		return failed(fault);
	frame->x[TAGTSO_PC] += 4;
	return TAGTSO_EXEC_DONE;
}

enum tagtso_exec tagtso_exec_ldg(uint64_t pointer, uint64_t *tagged, struct tagtso_fault *fault)
{
	return A(ldg)(pointer, tagged, NULL, fault) ? TAGTSO_EXEC_FAULT : TAGTSO_EXEC_DONE;
}

enum tagtso_exec tagtso_exec(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                             enum tagtso_order order, struct tagtso_fault *fault)
{
	/* No routine orders a vector or a pair by itself (LRCPC3). */
	if (op->flags & TAGTSO_F_VECTOR && (!frame->v || op->flags & (TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE)))
		return TAGTSO_EXEC_UNKNOWN;
	if (op->cls == TAGTSO_LOAD)
		return load(op, frame, pointer, order, fault);
	if (op->cls == TAGTSO_STORE)
		return store(op, frame, pointer, order, fault);
	switch (op->cls) {
	case TAGTSO_LOAD_PAIR:
		return load_pair(op, frame, pointer, order, fault);
	case TAGTSO_STORE_PAIR:
		return store_pair(op, frame, pointer, order, fault);
	case TAGTSO_LSE:
	case TAGTSO_CAS:
		return atomic(op, frame, pointer, order, fault);
	case TAGTSO_CASP:
		return compare_pair(op, frame, pointer, order, fault);
	case TAGTSO_LOAD_LANE:
		return load_lane(op, frame, pointer, order, fault);
	case TAGTSO_STORE_LANE:
		return store_lane(op, frame, pointer, order, fault);
	case TAGTSO_LOAD_DUP:
		return load_duplicate(op, frame, pointer, order, fault);
	case TAGTSO_LOAD_MULTI:
		return load_multiple(op, frame, pointer, order, fault);
	case TAGTSO_STORE_MULTI:
		return store_multiple(op, frame, pointer, order, fault);
	case TAGTSO_ZERO_BLOCK:
		return zero_block(op, frame, pointer, order, fault);
	case TAGTSO_PREFETCH:
		frame->x[TAGTSO_PC] += 4;
		return TAGTSO_EXEC_DONE;
	default:
		return TAGTSO_EXEC_UNKNOWN;
	}
}
