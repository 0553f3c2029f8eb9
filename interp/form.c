/* SPDX-License-Identifier: MIT */
/* Encodes the island of a site: LOCAL, SHARED, MIXED or RELAXED. Pure C, builds on any host (I5).
 *
 * With a, b the scratch registers, EA the effective address, [a..] the emitted access with another base register:
 *
 *   LOCAL                 SHARED                      MIXED
 *     irg a, base           orr a, base, #15<<56        a = EA
 *     access [a..]          barrier before              ldg a, [a]          the granule's tag
 *     write-back            access [a..]                irg b, a            my own tag
 *     b site+4              barrier after               eor b, b, a
 *                           write-back                  cbnz b, 1f
 *                           b site+4                    access [a]          checked again by the hardware (I2)
 *                                                       write-back
 *                                                       b site+4
 *                                                    1: orr b, a, #15<<56
 *                                                       eor b, b, a
 *                                                       cbnz b, 2f
 *                                                       ordered access [a], write-back, b site+4
 *                                                    2: the emitted instruction
 *                                                       b site+4
 *
 *   RELAXED               with an ordered access, or with [dmb] access, as emitted
 *     a = EA
 *     ldg a, [a]          the granule's tag: 0 where memory is shared, or has no tags
 *     irg b, a            my own tag, which is never 0 here
 *     eor b, b, a
 *     cbnz b, 1f
 *     plain access [a]    checked again by the hardware (I2)
 *     write-back
 *     b site+4
 *  1: [dmb]
 *     the emitted instruction
 *     b site+4
 *
 * Where the owner is a CPU (scratch.number), whose number the kernel keeps in the thread's rseq area:
 *
 *   LOCAL                                             MIXED
 *  0: irg a, base                                    0: a = EA
 *     tbz a, #56, 3f      a thread without area         ldg a, [a]
 *     mrs b, tpidr_el0                                  orr b, a, #15<<56
 *     b += area                                         eor b, b, a
 *     adr a, 5f                                         cbnz b, 1f
 *     str a, [b, #8]      rseq_cs                       ordered access [a], write-back, b site+4
 *     ---- restartable                               1: irg b, a
 *     ldr wb, [b, number]                               tbz b, #56, 3f
 *     sub wa, wb, #13                                   ... as LOCAL, with a = EA for base
 *     tbz wa, #31, 3f     a CPU without id
 *     irg a, base         1<<56
 *     add a, a, b, lsl #56
 *     access [a..]
 *     ----
 *     write-back, b site+4
 *  3: the emitted instruction
 *     b site+4
 *     signature
 *     b 0b                where the kernel sends the thread
 *  5: struct rseq_cs
 *
 * A thread that is preempted, moved or interrupted in the sequence, as by its access's own trap, is found at the word behind the signature, with
 * the registers of before. The access is the sequence's last instruction, so that nothing is done twice. The include mask of a
 * thread that has an area of its own is tag 1, of others empty.
 *
 * Ordered = halfst (HACKING.md §6): LDR; DMB ISHLD and DMB ISHST; STR; atomics AL between DMB ISH. An LDAR or
 * STLR keeps its own order besides. A thread
 * without an owner id gets tag 0 from IRG, and LDG gives 0 on memory that has no tags, so MIXED accesses such memory
 * as the emulator emitted it. */
#include "form.h"

#include "decode.h"

/* What the fields of an instruction mean for the form of its class. */
enum {
	USES_RT = 1 << 0,
	USES_RT2 = 1 << 1,
	USES_RS = 1 << 2,
	USES_NEXT = 1 << 3, /* rt + 1 and rs + 1 as well */
	HAS_FORM = 1 << 4,
	IS_ATOMIC = 1 << 5,
};

static const uint8_t classes[TAGTSO_NCLASSES] = {
	[TAGTSO_LOAD] = HAS_FORM | USES_RT,
	[TAGTSO_STORE] = HAS_FORM | USES_RT,
	[TAGTSO_LOAD_PAIR] = HAS_FORM | USES_RT | USES_RT2,
	[TAGTSO_STORE_PAIR] = HAS_FORM | USES_RT | USES_RT2,
	[TAGTSO_LSE] = HAS_FORM | IS_ATOMIC | USES_RT | USES_RS,
	[TAGTSO_CAS] = HAS_FORM | IS_ATOMIC | USES_RT | USES_RS,
	[TAGTSO_CASP] = HAS_FORM | IS_ATOMIC | USES_RT | USES_RS | USES_NEXT,
	[TAGTSO_LOAD_LANE] = HAS_FORM,
	[TAGTSO_STORE_LANE] = HAS_FORM,
	[TAGTSO_LOAD_DUP] = HAS_FORM,
	[TAGTSO_LOAD_MULTI] = HAS_FORM,
	[TAGTSO_STORE_MULTI] = HAS_FORM,
};

/* Where an encoding keeps what has to change when its base register does. `rm` and immediates stand in `disp`;
 * clearing it makes the offset zero. Replacing the bits `mode` by `offset` turns pre- and post-index into the
 * addressing without write-back. `acquire` and `release` make an atomic AL.
 *
 *    31 30 29   27 26 25 24 23 22 21 20        16 15 14    12 11 10 9      5 4      0
 *   +-----+-------+--+-----+-----+--+------------+-----------+-----+--------+--------+
 *   |size | 1 1 1 | V| 0 1 | opc |            imm12                |   Rn   |   Rt   |  scaled
 *   |size | 1 1 1 | V| 0 0 | opc | 0|        imm9            |mode |   Rn   |   Rt   |  00 unscaled 01 post 10 LDTR 11 pre
 *   |size | 1 1 1 | V| 0 0 | opc | 1|     Rm     |option | S |1  0 |   Rn   |   Rt   |  register offset
 *   |size | 1 1 1 | 0| 0 0 | A  R| 1|     Rs     |o3| opc    |0  0 |   Rn   |   Rt   |  LSE, SWP, LDAPR
 *   |size | 0 1 1 | 0| 0 1 | opc | 0|        imm9            |0  0 |   Rn   |   Rt   |  LDAPUR, STLUR
 *   | opc | 1 0 1 | V| 0| mode | L|     imm7     |    Rt2          |   Rn   |   Rt   |  pairs: 00 LDNP 01 post 10 offset 11 pre
 *   |size | 0 0 1   0  0  0|o2  A|o1|     Rs     | R|    Rt2       |   Rn   |   Rt   |  ordered, CAS, CASP
 *   | 0 Q | 0 0 1   1  0| l  P  L|R |     Rm     |opcode | S  size |   Rn   |   Vt   |  structures: P post-index
 *   +-----+-------+--+-----+-----+--+------------+-----------+-----+--------+--------+
 */
static const struct encoding {
	uint32_t mask, value, disp, mode, offset, acquire, release;
} encodings[] = {
	{ .mask = 0x3b000000, .value = 0x39000000, .disp = 0x003ffc00 },
	{ .mask = 0x3b200400, .value = 0x38000000, .disp = 0x001ff000 },
	{ .mask = 0x3b200400, .value = 0x38000400, .disp = 0x001ff000, .mode = 0x00000c00 },
	{ .mask = 0x3b200c00, .value = 0x38200800, .disp = 0x003ffc00 },
	{ .mask = 0x3f200c00, .value = 0x38200000, .acquire = 1 << 23, .release = 1 << 22 },
	{ .mask = 0x3f200c00, .value = 0x19000000, .disp = 0x001ff000 },
	{ .mask = 0x3b000000, .value = 0x29000000, .disp = 0x003f8000, .mode = 0x00800000 },
	{ .mask = 0x3b000000, .value = 0x28000000, .disp = 0x003f8000, .mode = 0x01800000, .offset = 0x01000000 },
	{ .mask = 0x3f000000, .value = 0x08000000, .acquire = 1 << 22, .release = 1 << 15 },
	{ .mask = 0xbe000000, .value = 0x0c000000, .mode = 0x009f0000 },
};

static const struct encoding *find_encoding(uint32_t word)
{
	for (unsigned i = 0; i < sizeof(encodings) / sizeof(*encodings); i++)
		if ((word & encodings[i].mask) == encodings[i].value)
			return &encodings[i];
	return NULL;
}

#define RD(r) ((uint32_t)(r))
#define RN(r) ((uint32_t)(r) << 5)
#define RM(r) ((uint32_t)(r) << 16)

enum {
	DMB_ISHLD = 0xd50339bf,
	DMB_ISHST = 0xd5033abf,
	DMB_ISH = 0xd5033bbf,
};

enum { PATHS = 3 }; /* most ways through an island */

/* The island while it is being written. */
struct island {
	uint32_t barrier; /* RELAXED: the DMB that stands before the instruction, 0 = none */
	const struct tagtso_memop *op;
	const struct encoding *enc;
	uint32_t *out;
	unsigned n;
	uint64_t site, pc; /* of the instruction replaced; of out[0] */
	uint8_t a, b;
	uint8_t number; /* as in struct tagtso_scratch */
	int32_t area;
	bool inside;           /* the code goes on behind the last word */
	unsigned nbacks;       /* then: words that will branch there */
	unsigned backs[PATHS]; /* their places */
};

static void put(struct island *is, uint32_t word)
{
	is->out[is->n++] = word;
}

static bool has_writeback(const struct tagtso_memop *op)
{
	return op->addressing == TAGTSO_ADDR_PRE || op->addressing == TAGTSO_ADDR_POST ||
	       op->addressing == TAGTSO_ADDR_POST_REG;
}

/* rd = rn + imm; register 31 is SP. */
static void put_add(struct island *is, unsigned rd, unsigned rn, int32_t imm)
{
	uint32_t base = imm < 0 ? 0xd1000000 : 0x91000000; /* SUB, ADD (immediate) */
	uint32_t size = (uint32_t)(imm < 0 ? -imm : imm), high = size >> 12, low = size & 0xfff;

	if (high) {
		put(is, base | 1 << 22 | high << 10 | RN(rn) | RD(rd));
		rn = rd;
	}
	if (low || !high)
		put(is, base | low << 10 | RN(rn) | RD(rd));
}

/* rd = rn + (extended rm << shift); rd, rn 31 is SP, rm 31 is XZR. */
static void put_add_reg(struct island *is, unsigned rd, unsigned rn, unsigned rm, unsigned extend, unsigned shift)
{
	put(is, 0x8b200000 | RM(rm) | extend << 13 | shift << 10 | RN(rn) | RD(rd));
}

uint32_t tagtso_form_irg(unsigned rd, unsigned rn)
{
	return 0x9ac01000 | RM(31) | RN(rn) | RD(rd);
}

/* rd = rn | 15 << 56: the tag of shared memory. Register 31 as rn would be XZR, not SP. */
static void put_orr_shared(struct island *is, unsigned rd, unsigned rn)
{
	if (rn == 31) {
		put_add(is, rd, rn, 0);
		rn = rd;
	}
	put(is, 0xb2480c00 | RN(rn) | RD(rd));
}

/* CBNZ rt, to a place further on that patch_cbnz() fills in. */
static unsigned put_cbnz(struct island *is, unsigned rt)
{
	put(is, 0xb5000000 | RD(rt));
	return is->n - 1;
}

static void patch_cbnz(struct island *is, unsigned at)
{
	is->out[at] |= (is->n - at) << 5;
}

static void put_back(struct island *is)
{
	if (is->inside)
		is->backs[is->nbacks++] = is->n;
	put(is, tagtso_form_branch(is->pc + 4 * is->n, is->site + 4));
}

/* Inside other code the last path falls through, and the others branch to where it ends. */
static void join_paths(struct island *is)
{
	is->n--;
	for (unsigned i = 0; i + 1 < is->nbacks; i++)
		is->out[is->backs[i]] = tagtso_form_branch(4 * (uint64_t)is->backs[i], 4 * (uint64_t)is->n);
}

/* The emitted access with base a, without write-back: `bare` when a is the effective address, else with the emitted
 * offset. */
static uint32_t access_word(const struct island *is, bool bare)
{
	uint32_t word = (is->op->word & ~RN(31)) | RN(is->a);

	if (has_writeback(is->op))
		word = (word & ~is->enc->mode) | is->enc->offset;
	return bare ? word & ~is->enc->disp : word;
}

/* Acquire and release gone, in the place of access_word(is, true). The fields of LDAPUR and STLUR are those of LDUR and STUR:
 *
 *    31 30 29       24 23 22 21 20          12 11 10 9      5 4      0
 *   +-----+-----------+-----+--+--------------+-----+--------+--------+
 *   |size | 0 1 1 0 0 1 opc | 0|     imm9     | 0 0 |   Rn   |   Rt   |  LDAPUR, STLUR: opc 01 load, 10 and 11 with sign, 00 store
 *   |size | 1 1 1 0 0 0 opc | 0|     imm9     | 0 0 |   Rn   |   Rt   |  LDUR, STUR
 *   |size | 0 0 1 0 0 0| 1 L  0  1 1 1 1 1  o0 1 1 1 1 1 Rn  |   Rt   |  LDAR, LDLAR, STLR, STLLR: L = load
 *   |size | 1 1 1 0 0 0  1 0  1  1 1 1 1 1  1 1 0 0 0 0  Rn  |   Rt   |  LDAPR
 *   +-----+-----------+-----+--+--------------+-----+--------+--------+
 */
static uint32_t plain_word(const struct island *is)
{
	const struct tagtso_memop *op = is->op;
	uint32_t word = access_word(is, true), opc = (word >> 22) & 3;

	if ((op->cls != TAGTSO_LOAD && op->cls != TAGTSO_STORE) || !(op->flags & (TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE)))
		return word;
	if ((word & 0x3f200c00) != 0x19000000)
		opc = op->cls == TAGTSO_LOAD;
	return (word & 0xc00003ff) | 0x38000000 | opc << 22;
}

/* Acquire comes with a result alone: STADDL, LDADDAL of XZR and their like let later loads go before them (Arm ARM C6.2, LDADD). */
static bool acquires_and_releases(const struct tagtso_memop *op)
{
	return (op->flags & TAGTSO_F_ACQUIRE) && (op->flags & TAGTSO_F_RELEASE) && op->rt != 31;
}

bool tagtso_form_fences(const struct tagtso_memop *op)
{
	return op->cls == TAGTSO_CAS || op->cls == TAGTSO_CASP || (op->cls == TAGTSO_LSE && !acquires_and_releases(op));
}

/* A comparison that fails stores nothing, so that no release orders what came before; not all other atomics are AL. x86's LOCK'd operations are
 * fences all the same, on owned memory too. */
static void put_plain(struct island *is, bool bare)
{
	bool fences = tagtso_form_fences(is->op);

	if (fences)
		put(is, DMB_ISH);
	put(is, access_word(is, bare));
	if (fences)
		put(is, DMB_ISH);
}

static void put_ordered(struct island *is, bool bare)
{
	uint32_t word = access_word(is, bare);

	if (classes[is->op->cls] & IS_ATOMIC) {
		put(is, DMB_ISH);
		put(is, word | is->enc->acquire | is->enc->release);
		put(is, DMB_ISH);
	} else if (is->op->flags & TAGTSO_F_STORE) {
		put(is, DMB_ISHST);
		put(is, word);
	} else {
		put(is, word);
		put(is, DMB_ISHLD);
	}
}

static void put_writeback(struct island *is)
{
	const struct tagtso_memop *op = is->op;

	if (op->addressing == TAGTSO_ADDR_POST_REG)
		put_add_reg(is, op->rn, op->rn, op->rm, 3, 0);
	else if (has_writeback(op))
		put_add(is, op->rn, op->rn, op->imm);
}

static bool keeps_offset(const struct tagtso_memop *op)
{
	return op->addressing == TAGTSO_ADDR_OFFSET || op->addressing == TAGTSO_ADDR_PRE;
}

/* The register that holds the base for the access: rn, or a after a = EA where there is no offset that the access
 * could keep. Adding first and tagging then matters where rn is the index and rm the pointer: a sum of a tagged
 * negative number carries into the tag. */
static unsigned put_base(struct island *is, bool *bare)
{
	const struct tagtso_memop *op = is->op;

	*bare = !keeps_offset(op);
	if (op->addressing != TAGTSO_ADDR_REG)
		return op->rn;
	put_add_reg(is, is->a, op->rn, op->rm, op->extend, op->shift);
	return is->a;
}

static void put_local(struct island *is)
{
	bool bare;
	unsigned base = put_base(is, &bare);

	put(is, tagtso_form_irg(is->a, base));
	put_plain(is, bare);
	put_writeback(is);
	put_back(is);
}

static void put_shared(struct island *is)
{
	bool bare;
	unsigned base = put_base(is, &bare);

	put_orr_shared(is, is->a, base);
	put_ordered(is, bare);
	put_writeback(is);
	put_back(is);
}

static void put_address(struct island *is)
{
	const struct tagtso_memop *op = is->op;

	if (op->addressing == TAGTSO_ADDR_REG)
		put_add_reg(is, is->a, op->rn, op->rm, op->extend, op->shift);
	else
		put_add(is, is->a, op->rn, keeps_offset(op) ? op->imm : 0);
}

/* a = EA with the granule's tag; on from here if that is this thread's own. */
static unsigned put_look(struct island *is)
{
	put_address(is);
	put(is, 0xd9600000 | RN(is->a) | RD(is->a)); /* LDG a, [a] */
	put(is, tagtso_form_irg(is->b, is->a));
	put(is, 0xca000000 | RM(is->a) | RN(is->b) | RD(is->b)); /* EOR b, b, a */
	return put_cbnz(is, is->b);
}

static void put_mixed(struct island *is)
{
	unsigned not_mine, not_shared;

	not_mine = put_look(is);
	put_plain(is, true);
	put_writeback(is);
	put_back(is);

	patch_cbnz(is, not_mine);
	put_orr_shared(is, is->b, is->a);
	put(is, 0xca000000 | RM(is->a) | RN(is->b) | RD(is->b));
	not_shared = put_cbnz(is, is->b);
	put_ordered(is, true);
	put_writeback(is);
	put_back(is);

	patch_cbnz(is, not_shared);
	put(is, is->op->word);
	put_back(is);
}

static void put_relaxed(struct island *is)
{
	unsigned not_mine;

	not_mine = put_look(is);
	if (tagtso_form_fences(is->op))
		put_plain(is, true);
	else
		put(is, plain_word(is));
	put_writeback(is);
	put_back(is);

	patch_cbnz(is, not_mine);
	if (is->barrier)
		put(is, is->barrier);
	put(is, is->op->word);
	put_back(is);
}

/* ---- the owner is a CPU ---- */

enum { RSEQ_CS = 8, FLAG_BIT = 56, SIGN_BIT = 31, DESCRIPTOR_BYTES = 32 };

/* TBZ rt, #bit, to a place further on that patch_tbz() fills in. */
static unsigned put_tbz(struct island *is, unsigned rt, unsigned bit)
{
	put(is, 0x36000000 | (uint32_t)bit >> 5 << 31 | (bit & 31) << 19 | RD(rt));
	return is->n - 1;
}

static void patch_tbz(struct island *is, unsigned at)
{
	is->out[at] |= (is->n - at) << 5;
}

/* ADR rd, to a place further on. */
static void patch_adr(struct island *is, unsigned at)
{
	uint32_t distance = 4 * (is->n - at);

	is->out[at] |= (distance & 3) << 29 | distance >> 2 << 5;
}

/* Words of the sequence that others refer to. */
struct sequence {
	unsigned adr, start, done;
	unsigned emitted[2]; /* branches to the emitted instruction */
};

/* From the look at the number on it is restartable, to the access, which is its end: the tag in the pointer is that of the CPU that makes it (I2). */
static void put_sequence(struct island *is, struct sequence *q, bool effective)
{
	bool bare = true;
	unsigned base = is->a;

	put(is, 0xd53bd040 | RD(is->b)); /* MRS b, TPIDR_EL0 */
	put_add(is, is->b, is->b, is->area);
	q->adr = is->n;
	put(is, 0x10000000 | RD(is->a));                                 /* ADR */
	put(is, 0xf9000000 | RSEQ_CS / 8 << 10 | RN(is->b) | RD(is->a)); /* STR a, [b, #8] */
	q->start = is->n;
	put(is, 0xb9400000 | is->number / 4u << 10 | RN(is->b) | RD(is->b)); /* LDR wb, [b, number] */
	put(is, 0x51000000 | 13 << 10 | RN(is->b) | RD(is->a));              /* SUB wa, wb, #13 */
	q->emitted[1] = put_tbz(is, is->a, SIGN_BIT);
	if (effective)
		put_address(is);
	else
		base = put_base(is, &bare);
	put(is, tagtso_form_irg(is->a, base));
	put(is, 0x8b000000 | RM(is->b) | FLAG_BIT << 10 | RN(is->a) | RD(is->a)); /* ADD a, a, b, LSL #56 */
	if (tagtso_form_fences(is->op))
		put(is, DMB_ISH);
	put(is, access_word(is, bare));
	q->done = is->n;
	if (tagtso_form_fences(is->op))
		put(is, DMB_ISH);
	put_writeback(is);
	put_back(is);
}

static void put_address_of(struct island *is, unsigned at)
{
	uint64_t pc = is->pc + 4 * at;

	put(is, (uint32_t)pc);
	put(is, (uint32_t)(pc >> 32));
}

/* What the sequence needs behind it. struct rseq_cs is version, flags, start, length, where to go (include/uapi/linux/rseq.h), aligned to its size. */
static void put_sequence_end(struct island *is, const struct sequence *q)
{
	unsigned restart;

	patch_tbz(is, q->emitted[0]);
	patch_tbz(is, q->emitted[1]);
	put(is, is->op->word);
	put_back(is);
	put(is, TAGTSO_FORM_SIGNATURE);
	restart = is->n;
	put(is, tagtso_form_branch(4 * (uint64_t)is->n, 0));
	while ((is->pc + 4 * is->n) % DESCRIPTOR_BYTES)
		put(is, 0);
	patch_adr(is, q->adr);
	put(is, 0);
	put(is, 0);
	put_address_of(is, q->start);
	put(is, 4 * (q->done - q->start));
	put(is, 0);
	put_address_of(is, restart);
}

static void put_local_cpu(struct island *is)
{
	struct sequence q;

	put(is, tagtso_form_irg(is->a, is->op->rn));
	q.emitted[0] = put_tbz(is, is->a, FLAG_BIT);
	put_sequence(is, &q, false);
	put_sequence_end(is, &q);
}

/* Not shared, so it is tried as LOCAL: if it is not this CPU's, the hardware says so. */
static void put_mixed_cpu(struct island *is)
{
	unsigned not_shared;
	struct sequence q;

	put_address(is);
	put(is, 0xd9600000 | RN(is->a) | RD(is->a)); /* LDG a, [a] */
	put_orr_shared(is, is->b, is->a);
	put(is, 0xca000000 | RM(is->a) | RN(is->b) | RD(is->b)); /* EOR b, b, a */
	not_shared = put_cbnz(is, is->b);
	put_ordered(is, true);
	put_writeback(is);
	put_back(is);

	patch_cbnz(is, not_shared);
	put(is, tagtso_form_irg(is->b, is->a));
	q.emitted[0] = put_tbz(is, is->b, FLAG_BIT);
	put_sequence(is, &q, true);
	put_sequence_end(is, &q);
}

/* True if the instruction reads or writes general-purpose register r (other than SP and XZR). */
static bool uses(const struct tagtso_memop *op, unsigned r)
{
	unsigned use = op->flags & TAGTSO_F_VECTOR ? 0 : classes[op->cls];

	if (op->rn == r || ((use & USES_RT) && op->rt == r) || ((use & USES_RT2) && op->rt2 == r) ||
	    ((use & USES_RS) && op->rs == r))
		return true;
	if ((use & USES_NEXT) && (op->rt + 1u == r || op->rs + 1u == r))
		return true;
	return (op->addressing == TAGTSO_ADDR_REG || op->addressing == TAGTSO_ADDR_POST_REG) && op->rm == r;
}

/* True if the hardware checks no tag (literals, and SP plus an immediate without write-back): never
 * traps, needs no form. */
static bool is_unchecked(const struct tagtso_memop *op)
{
	return op->addressing == TAGTSO_ADDR_LITERAL || (op->addressing == TAGTSO_ADDR_OFFSET && op->rn == 31);
}

/* True if the data registers are such that a trap half way would lose the base. With write-back that is not a defined
 * instruction; a pair may have loaded one register when the other half faults, and only an instruction's own base
 * register is restored then. */
static bool loses_base(const struct tagtso_memop *op)
{
	if ((op->flags & TAGTSO_F_VECTOR) || op->rn == 31)
		return false;
	if (op->cls == TAGTSO_LOAD_PAIR)
		return op->rt == op->rn || op->rt2 == op->rn;
	return has_writeback(op) && (op->rt == op->rn || ((classes[op->cls] & USES_RT2) && op->rt2 == op->rn));
}

/* B reaches 128 MB either way; the island's last word may be almost a slot away from its first. */
static bool in_reach(uint64_t site, uint64_t island)
{
	uint64_t end = island + 4 * TAGTSO_ISLAND_WORDS;

	return tagtso_form_branch(site, island) && tagtso_form_branch(island, site + 4) &&
	       tagtso_form_branch(end, site + 4);
}

uint32_t tagtso_form_branch(uint64_t from, uint64_t to)
{
	int64_t distance = (int64_t)(to - from);

	if (distance % 4 || distance < -(1 << 27) || distance >= 1 << 27)
		return 0;
	return 0x14000000 | ((uint32_t)(distance / 4) & 0x03ffffff);
}

/* Fills in what depends on the instruction alone. False if it has no form. */
static bool begin(struct island *is, const struct tagtso_memop *op, struct tagtso_scratch scratch)
{
	is->op = op;
	is->a = scratch.a;
	is->b = scratch.b;
	is->number = scratch.number;
	is->area = scratch.area;
	if (op->cls >= TAGTSO_NCLASSES || !(classes[op->cls] & HAS_FORM) || is_unchecked(op))
		return false;
	if (is->a > 30 || is->b > 30 || is->a == is->b || uses(op, is->a) || uses(op, is->b) || loses_base(op))
		return false;
	is->enc = find_encoding(op->word);
	return is->enc;
}

static void put_form(struct island *is, enum tagtso_form form)
{
	if (form == TAGTSO_FORM_LOCAL)
		is->number ? put_local_cpu(is) : put_local(is);
	else if (form == TAGTSO_FORM_SHARED)
		put_shared(is);
	else if (form == TAGTSO_FORM_MIXED)
		is->number ? put_mixed_cpu(is) : put_mixed(is);
	else if (form == TAGTSO_FORM_RELAXED)
		put_relaxed(is);
}

bool tagtso_form_is_barrier_for(uint32_t word, const struct tagtso_memop *op)
{
	if (op->flags & (TAGTSO_F_ACQUIRE | TAGTSO_F_RELEASE) ||
	    (classes[op->cls] & (HAS_FORM | IS_ATOMIC)) != HAS_FORM)
		return false;
	return word == DMB_ISH || word == (op->flags & TAGTSO_F_STORE ? DMB_ISHST : DMB_ISHLD);
}

unsigned tagtso_form_encode(const struct tagtso_memop *op, enum tagtso_form form, struct tagtso_scratch scratch,
                            uint64_t site_pc, uint64_t island_pc, uint32_t out[TAGTSO_ISLAND_WORDS])
{
	return tagtso_form_encode_pair(op, 0, form, scratch, site_pc, island_pc, out);
}

unsigned tagtso_form_encode_pair(const struct tagtso_memop *op, uint32_t barrier, enum tagtso_form form,
                                 struct tagtso_scratch scratch, uint64_t site_pc, uint64_t island_pc,
                                 uint32_t out[TAGTSO_ISLAND_WORDS])
{
	struct island is = { .barrier = barrier, .out = out, .site = site_pc, .pc = island_pc };

	if (!begin(&is, op, scratch) || !in_reach(site_pc, island_pc))
		return 0;
	put_form(&is, form);
	return is.n;
}

bool tagtso_form_possible(const struct tagtso_memop *op, struct tagtso_scratch scratch)
{
	struct island is = { 0 };

	return begin(&is, op, scratch) && !(scratch.c && uses(op, scratch.c));
}

unsigned tagtso_form_inside(const struct tagtso_memop *op, enum tagtso_form form, struct tagtso_scratch scratch,
                            uint32_t out[TAGTSO_ISLAND_WORDS])
{
	struct island is = { .out = out, .inside = true };

	if (scratch.number || !begin(&is, op, scratch))
		return 0;
	put_form(&is, form);
	join_paths(&is);
	return is.n;
}

uint32_t tagtso_form_access(const struct tagtso_memop *op, unsigned base)
{
	struct island is = { .op = op, .enc = find_encoding(op->word), .a = (uint8_t)base };

	return access_word(&is, !keeps_offset(op));
}

/* Arm ARM C4.1.94, load/store register: unsigned immediate, unscaled, post-index and register offset have size, V and opc, which say what
 * is accessed, in the same places. */
uint32_t tagtso_form_access_plus(const struct tagtso_memop *op, unsigned tag)
{
	uint32_t word = op->word, same = word & 0xc4c003ff;

	if ((op->cls != TAGTSO_LOAD && op->cls != TAGTSO_STORE) ||
	    ((word & 0x3b3ffc00) != 0x39000000 && /* [Xn, #0] */
	     (word & 0x3b3ffc00) != 0x38000000 && /* the same, unscaled */
	     (word & 0x3b200c00) != 0x38000400))  /* [Xn], #imm */
		return 0;
	return 0x38206800 | same | tag << 16;
}

uint32_t tagtso_form_sum(const struct tagtso_memop *op, unsigned base)
{
	uint32_t word;
	struct island is = { .out = &word };

	put_add_reg(&is, base, op->rn, op->rm, op->extend, op->shift);
	return word;
}

unsigned tagtso_form_writeback(const struct tagtso_memop *op, uint32_t out[2])
{
	struct island is = { .op = op, .out = out };

	put_writeback(&is);
	return is.n;
}

bool tagtso_form_is_access(uint32_t word, struct tagtso_scratch scratch)
{
	struct tagtso_memop op;

	return tagtso_decode(word, &op) && (classes[op.cls] & HAS_FORM) && op.rn != scratch.b;
}
