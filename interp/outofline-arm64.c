/* SPDX-License-Identifier: MIT */
/* Slots of relocated instructions: the exact execution of what is too rare, or too new, for tagtso_exec(). Handler code (I6). */
#include "outofline.h"

#include <asm/sigcontext.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../alloc/owner.h"
#include "../alloc/sys.h"
#include "../alloc/window.h"
#include "alu.h"

/* Pages in groups of one MB, which LDR (literal) reaches over: the last page of a group has no access. */
enum {
	PLACES = 1020, /* threads that may be out of line at the same time */
	GROUP_PAGES = 256,
	GROUP_PLACES = GROUP_PAGES - 1,
	BYTES = PLACES / GROUP_PLACES * GROUP_PAGES * TAGTSO_PAGE_SIZE,
	WORD = 2, /* where the instruction stands in a slot */
	SLOT_WORDS = WORD + 3,
	PSTATE_TCO = 1 << 25,
};
_Static_assert(PLACES % GROUP_PLACES == 0, "whole groups");

/* Where one thread runs what it has out of line: a page of code, which is a slot (one instruction) or a loop, and what is known of it, which lies elsewhere. No
 * thread writes to a page whose code another one runs: QEMU 10 loses such writes. While one processor translates code of a page, another's write there can
 * leave the page marked as free of translated code for its own later ones (Nicholas Piggin, "accel/tcg: Fix TCG TLB coherency race with physical dirty bit clearing",
 * qemu-devel, 20 February 2024). Two threads that each wrote a MOV and called it, with all the maintenance that the architecture asks for, executed an older one in
 * up to a third of 600,000 rounds when both were in one page, and never when not. */
struct place {
	/* 0 when free; taken by compare-and-swap by the handler of the thread that it serves, freed by that thread's next trap. The rest is that thread's. */
	_Atomic uint32_t owner;
	uint32_t tco; /* PSTATE.TCO before */
	uint32_t
		words; /* of a loop: word k of it is code[k], branches out of it go to the words behind, which trap. 0: a slot */
	uint32_t exits;
	uint64_t pc; /* where the slot's word, or the loop's first one, belongs */
	union {
		struct tagtso_monitor monitor;    /* of a slot */
		uint64_t exit[TAGTSO_LOOP_EXITS]; /* of a loop */
	};
};

static struct place places[PLACES];
static char *code; /* of all places; written by init */
struct tagtso_slots tagtso_slots;

static _Atomic uint32_t *code_of(const struct place *p)
{
	size_t i = (size_t)(p - places);

	return (_Atomic uint32_t *)(code + (i + i / GROUP_PLACES) * TAGTSO_PAGE_SIZE);
}

static struct place *place_at(uint64_t pc)
{
	uint64_t page = (pc - (uint64_t)code) / TAGTSO_PAGE_SIZE;

	return &places[page - page / GROUP_PAGES];
}

int tagtso_outofline_init(void)
{
	const uint64_t group = GROUP_PAGES * TAGTSO_PAGE_SIZE;
	long p =
		tagtso_sys(__NR_mmap, 0, BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (tagtso_sys_failed(p))
		return (int)p;
	for (uint64_t end = group; end <= BYTES; end += group) {
		long r = tagtso_sys(__NR_mprotect, p + end - TAGTSO_PAGE_SIZE, TAGTSO_PAGE_SIZE, PROT_NONE);

		if (r < 0)
			return (int)r;
	}
	code = (char *)p;
	tagtso_slots = (struct tagtso_slots){ (uint64_t)p, BYTES };
	return 0;
}

/* LDR XZR, the group's last page: imm19 at bits 23:5 counts words. */
static uint32_t stop_at(const _Atomic uint32_t *at)
{
	const uint64_t guard = (GROUP_PAGES - 1) * TAGTSO_PAGE_SIZE;
	uint64_t distance = guard - ((uint64_t)at - (uint64_t)code) % (GROUP_PAGES * TAGTSO_PAGE_SIZE);

	return 0x58000000 | (uint32_t)(distance / 4 & 0x7ffff) << 5 | 31;
}

/* Only this thread executes it; another core that it may move to gets there through the kernel's context synchronisation.
 * 16 bytes: no cache line is shorter (CTR_EL0). */
static void make_executable(const void *from, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i += 16)
		__asm__ volatile("dc cvau, %0" ::"r"((const char *)from + i) : "memory");
	__asm__ volatile("dsb ish" ::: "memory");
	for (unsigned i = 0; i < bytes; i += 16)
		__asm__ volatile("ic ivau, %0" ::"r"((const char *)from + i) : "memory");
	__asm__ volatile("dsb ish\n\tisb" ::: "memory");
}

/* The words before: where the kernel sends CPYM, SETM (one word back) and CPYE, SETE (two) when the core does not go on with what another one
 * began (linux/arch/arm64/include/asm/traps.h, arm64_mops_reset_regs). */
static void write_slot(_Atomic uint32_t *slot, uint32_t word)
{
	const uint32_t dmb_ish = 0xd5033bbf;

	for (unsigned i = 0; i < WORD; i++)
		atomic_store_explicit(&slot[i], stop_at(&slot[i]), memory_order_relaxed);
	atomic_store_explicit(&slot[WORD], word, memory_order_relaxed);
	atomic_store_explicit(&slot[WORD + 1], dmb_ish, memory_order_relaxed);
	atomic_store_explicit(&slot[WORD + 2], stop_at(&slot[WORD + 2]), memory_order_relaxed);
	make_executable(slot, SLOT_WORDS * 4);
}

/* The first one from the thread's own on that is free. One that it left by longjmp it takes again, so that places cannot run out in one thread; if it had gone
 * further because its own was taken, that one is left behind until another thread of this number is in need. */
static struct place *take(void)
{
	uint32_t self = (uint32_t)tagtso_sys(__NR_gettid);

	for (unsigned i = 0; code && i < PLACES; i++) {
		struct place *p = &places[(self + i) % PLACES];
		uint32_t old = 0;

		if (atomic_compare_exchange_strong_explicit(&p->owner, &old, self, memory_order_acquire,
		                                            memory_order_relaxed) ||
		    old == self)
			return p;
	}
	return NULL;
}

static void give_back(struct place *p)
{
	atomic_store_explicit(&p->owner, 0, memory_order_release);
}

static void go(ucontext_t *uc, const _Atomic uint32_t *to, bool checked)
{
	if (!checked)
		uc->uc_mcontext.pstate |= PSTATE_TCO;
	uc->uc_mcontext.pc = (uint64_t)to;
	/* All that the thread has done before: here, since the words in front of a slot's are spoken for. */
	__asm__ volatile("dmb ish" ::: "memory");
}

static void keep(struct place *p, const ucontext_t *uc, unsigned words)
{
	p->pc = uc->uc_mcontext.pc;
	p->tco = uc->uc_mcontext.pstate & PSTATE_TCO;
	p->words = words;
}

bool tagtso_outofline_enter(ucontext_t *uc, uint32_t word, bool checked, const struct tagtso_monitor *monitor)
{
	struct place *p = take();

	if (!p)
		return false;
	keep(p, uc, 0);
	p->monitor = *monitor;
	write_slot(code_of(p), word);
	go(uc, code_of(p) + WORD, checked);
	return true;
}

/* Where a direct branch has its offset in words, as the lowest bit and the width of the field; width 0: no such branch. */
static unsigned offset_field(uint32_t word, unsigned *low)
{
	*low = 5;
	if ((word & 0xff000000) == 0x54000000 || (word & 0x7e000000) == 0x34000000)
		return 19; /* B.cond, CBZ, CBNZ */
	if ((word & 0x7e000000) == 0x36000000)
		return 14; /* TBZ, TBNZ */
	*low = 0;
	return (word & 0xfc000000) == 0x14000000 ? 26 : 0;
}

/* Word `at` of the loop; a branch that leaves it goes to the next exit. False if there is none left. */
static bool copy_word(struct place *p, const uint32_t *words, unsigned at)
{
	uint32_t word = words[at], mask;
	unsigned low, width = offset_field(word, &low);

	if (width) {
		int32_t offset = (int32_t)(word << (32 - low - width)) >> (32 - width);

		if (at + (uint32_t)offset >= p->words) {
			if (p->exits == TAGTSO_LOOP_EXITS)
				return false;
			mask = ((1u << width) - 1) << low;
			word = (word & ~mask) | (p->words + p->exits - at) << low;
			p->exit[p->exits++] = p->pc + 4 * (uint64_t)(at + (int64_t)offset);
		}
	}
	atomic_store_explicit(&code_of(p)[at], word, memory_order_relaxed);
	return true;
}

static bool write_loop(struct place *p, const uint32_t *words)
{
	_Atomic uint32_t *loop = code_of(p);

	p->exits = 1;
	p->exit[0] = p->pc + 4 * (uint64_t)p->words; /* past its end */
	for (unsigned i = 0; i < p->words; i++) {
		if (!copy_word(p, words, i))
			return false;
	}
	for (unsigned i = p->words; i < p->words + p->exits; i++)
		atomic_store_explicit(&loop[i], stop_at(&loop[i]), memory_order_relaxed);
	make_executable(loop, (p->words + p->exits) * 4);
	return true;
}

bool tagtso_outofline_enter_loop(ucontext_t *uc, const uint32_t *words, unsigned count)
{
	struct place *p = count && count <= TAGTSO_LOOP_WORDS ? take() : NULL;

	if (!p)
		return false;
	keep(p, uc, count);
	if (!write_loop(p, words)) {
		give_back(p);
		return false;
	}
	go(uc, code_of(p), false);
	return true;
}

static void restore_checks(ucontext_t *uc, uint32_t tco)
{
	uc->uc_mcontext.pstate = (uc->uc_mcontext.pstate & ~(uint64_t)PSTATE_TCO) | tco;
}

/* Anywhere in the loop the registers are those of the emulator's own code there: an interrupt only costs the exclusive monitor. */
static bool leave_loop(const struct place *p, ucontext_t *uc)
{
	uint64_t at = (uc->uc_mcontext.pc - (uint64_t)code_of(p)) / 4;
	bool finished = at >= p->words;

	uc->uc_mcontext.pc = finished ? p->exit[at - p->words] : p->pc + 4 * at;
	/* The loop, and everything after it (the handler's caller goes on behind this). */
	__asm__ volatile("dmb ish" ::: "memory");
	return finished;
}

static bool leave_slot(const struct place *p, ucontext_t *uc)
{
	int64_t words = (int64_t)(uc->uc_mcontext.pc - (uint64_t)(code_of(p) + WORD)) / 4;

	uc->uc_mcontext.pc = p->pc + 4 * (uint64_t)(words > 0 ? 1 : words);
	return words != 0;
}

static bool has_address(const siginfo_t *info)
{
	int signo = info->si_signo;

	return info->si_code > 0 &&
	       (signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGTRAP || signo == SIGFPE);
}

bool tagtso_outofline_leave(ucontext_t *uc, siginfo_t *info, bool *finished, struct tagtso_monitor *monitor)
{
	uint64_t pc = uc->uc_mcontext.pc;

	if (!tagtso_outofline_holds(pc))
		return false;
	struct place *p = place_at(pc);

	*finished = p->words ? leave_loop(p, uc) : leave_slot(p, uc);
	restore_checks(uc, p->tco);
	if (info && has_address(info) && (uint64_t)info->si_addr == pc)
		info->si_addr = (void *)uc->uc_mcontext.pc;
	if (monitor && p->words)
		monitor->held = false;
	else if (monitor)
		*monitor = p->monitor;
	give_back(p);
	return true;
}

bool tagtso_outofline_may_move(uint32_t word)
{
	switch (word >> 24) {
	case 0x14 ... 0x17: /* B */
	case 0x94 ... 0x97: /* BL */
	case 0x34 ... 0x37: /* CBZ, CBNZ, TBZ, TBNZ */
	case 0xb4 ... 0xb7:
	case 0x54:          /* B.cond */
	case 0xd4:          /* exceptions */
	case 0xd6 ... 0xd7: /* branches to registers */
		return false;
	case 0xd5: /* hints, barriers; NZCV, FPCR, FPSR; reading other registers */
		return (word & 0xfffff000) == 0xd5032000 || (word & 0xfffff000) == 0xd5033000 ||
		       (word & 0xfffffec0) == 0xd51b4400 || (word & 0xffffffe0) == 0xd51b4200 ||
		       (word & 0xfff00000) == 0xd5300000;
	default:
		return (word & 0x1f000000) != 0x10000000 && (word & 0x3b000000) != 0x18000000; /* ADR, ADRP, literals */
	}
}

/* ---- which memory ------------------------------------------------------------------------------------------------------- */

enum { NEAR = 4096, ELEMENT = 16 };

struct reach {
	const struct tagtso_memop *op;
	const struct tagtso_frame *frame;
	void (*range)(uint64_t va, uint64_t len, void *argument);
	void *argument;
};

static uint64_t get(const struct reach *r, unsigned n)
{
	return n == 31 ? 0 : r->frame->x[n];
}

static void found(const struct reach *r, uint64_t from, uint64_t len)
{
	const uint64_t all = UINT64_C(1) << TAGTSO_VA_BITS;

	from = from << 8 >> 8;
	if (from < all && len)
		r->range(from, len < all - from ? len : all - from, r->argument);
}

/* Element `n` of the vector, zero-extended. */
static uint64_t element(const struct reach *r, unsigned vector, unsigned n)
{
	const struct sve_context *sve = r->frame->sve;
	const char *z = (const char *)sve + SVE_SIG_ZREG_OFFSET(sve_vq_from_vl(sve->vl), vector);

	return r->op->size == 2 ? ((const uint32_t *)z)[n] : ((const uint64_t *)z)[n];
}

/* A predicate has a bit per byte of the vector; an element's first one counts. */
static bool is_active(const struct reach *r, unsigned n)
{
	const struct sve_context *sve = r->frame->sve;
	const uint8_t *p = (const uint8_t *)sve + SVE_SIG_PREG_OFFSET(sve_vq_from_vl(sve->vl), r->op->rs);
	unsigned bit = n << r->op->size;

	return r->op->addressing == TAGTSO_REACH_QUADWORDS || (p[bit / 8] >> bit % 8 & 1);
}

static uint64_t element_address(const struct reach *r, unsigned n)
{
	const struct tagtso_memop *op = r->op;
	uint64_t value;

	if (op->addressing != TAGTSO_REACH_OFFSETS)
		return element(r, op->rn, n) + (uint64_t)(int64_t)op->imm + get(r, op->rm);
	value = element(r, op->rm, n);
	if (op->extend == 2)
		value = (uint32_t)value;
	else if (op->extend == 6)
		value = (uint64_t)(int32_t)value;
	return r->frame->x[op->rn] + (value << op->shift); /* 31 = SP by position */
}

/* Without a payload in the frame no vector is live: all predicates are false. */
static void reach_elements(const struct reach *r)
{
	const struct sve_context *sve = r->frame->sve;

	for (unsigned n = 0; sve && n < (unsigned)sve->vl >> r->op->size; n++) {
		if (is_active(r, n))
			found(r, element_address(r, n), ELEMENT);
	}
}

/* What is left of a copy or a fill at `at` (Arm ARM, C6.2, CPYP and SETP). PSTATE.C after the prologue: 1 = option B, whose size counts down; the copy
 * goes down in memory when N is set. Option A (and every prologue): the size says how far it is from `at` to the end. */
static void reach_run(const struct reach *r, uint64_t at, bool may_go_down)
{
	uint64_t pstate = r->frame->x[TAGTSO_PSTATE], size = get(r, r->op->rn);
	bool begun = r->op->index, option_b = begun && (pstate >> 29 & 1), down = may_go_down && (pstate >> 31 & 1);

	if (begun && option_b ? down : begun && (int64_t)size < 0)
		found(r, option_b ? at - size : at + size, option_b ? size : -size);
	else
		found(r, at, size);
}

void tagtso_outofline_reach(const struct tagtso_memop *op, const struct tagtso_frame *frame, uint64_t fault,
                            void (*range)(uint64_t va, uint64_t len, void *argument), void *argument)
{
	struct reach r = { op, frame, range, argument };

	if (op->cls != TAGTSO_OUT_OF_LINE || op->addressing == TAGTSO_REACH_NEAR) {
		found(&r, fault > NEAR ? fault - NEAR : 0, 2 * NEAR);
		return;
	}
	found(&r, fault, 1);
	switch (op->addressing) {
	case TAGTSO_REACH_OFFSETS:
	case TAGTSO_REACH_VECTOR:
	case TAGTSO_REACH_QUADWORDS:
		reach_elements(&r);
		break;
	case TAGTSO_REACH_COPY:
		reach_run(&r, get(&r, op->rt), true);
		reach_run(&r, get(&r, op->rs), true);
		break;
	case TAGTSO_REACH_FILL:
		reach_run(&r, get(&r, op->rt), false);
		break;
	}
}

/* By the leaves of the window's index: a copy of a size that no memory has must not take an hour before it faults. */
static void share(uint64_t va, uint64_t len, void *argument)
{
	const unsigned leaf_shift = TAGTSO_LEAF_BITS + TAGTSO_PAGE_SHIFT;
	uint64_t end = va + len, next;

	(void)argument;
	for (; va < end; va = next) {
		next = ((va >> leaf_shift) + 1) << leaf_shift;
		if (next > end)
			next = end;
		if (atomic_load_explicit(&tagtso_window.leaf[va >> leaf_shift], memory_order_relaxed))
			tagtso_owner_share(va, next - va);
	}
}

void tagtso_outofline_share(const struct tagtso_memop *op, const struct tagtso_frame *frame, uint64_t fault)
{
	tagtso_outofline_reach(op, frame, fault, share, NULL);
}
