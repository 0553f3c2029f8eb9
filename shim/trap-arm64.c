/* SPDX-License-Identifier: MIT */
/* From SIGSEGV to the next instruction: find the site, settle who may access, carry the access out, keep score.
 *
 * Handler code (I6). Hard rules: no libc call, no allocation, no stdio, no thread-local storage (but rank.h, with --enable-debug); raw system calls only, so errno is never
 * touched; asynchronous signals are blocked (signals-arm64.c), so a page lock is never held by an interrupted thread; the interrupted thread may
 * hold any lock of the emulator or of libc. */
#include "trap.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "../alloc/owner.h"
#include "../alloc/sys.h"
#include "../alloc/tags.h"
#include "../alloc/window.h"
#include "../interp/alu.h"
#include "../interp/decode.h"
#include "../interp/exec.h"
#include "../interp/island.h"
#include "../interp/loop.h"
#include "../interp/monitor.h"
#include "../interp/outofline.h"
#include "../interp/patch.h"
#include "../interp/reclaim.h"
#include "../interp/site.h"
#include "knobs.h"
#include "native.h"
#include "rank.h"
#include "say.h"
#include "signals.h"
#include "stats.h"

#pragma GCC poison malloc free calloc realloc printf fprintf snprintf memcpy memset strlen pthread_mutex_lock errno

#ifndef SEGV_MTESERR
#define SEGV_MTESERR 9
#endif

enum {
	PATCHER_TRAPS = 4, /* that a site may take after it asked for another form, before the patcher is waited for */
	PATCHER_PAUSES = 64,
	PATCHER_PAUSE_NS = 50000,
	RUN_GAP = 4,          /* instructions between two accesses of a run: over more, running them is as quick */
	SPAN_LIMIT = 4096,    /* instructions of one LL/SC loop interpreted in one trap */
	FOLLOW_LIMIT = 65536, /* instructions from a load-exclusive to its store-exclusive, one by one */
	TELL = 3,             /* TAGTSO_VERBOSE that tells of each trap: then no site is remembered as known */
	ESR_WNR = 1 << 6,     /* the faulting access was a write */
	ESR_EC_SHIFT = 26,    /* exception class, bits 31:26 */
	ESR_EC_FETCH = 0x20,  /* instruction abort from EL0 */
};

/* A word of our own islands: LDG Xt, [Xn, #imm]. */
#define LDG UINT32_C(0xd9600000)
#define LDG_MASK UINT32_C(0xffe00c00)

/* Arm ARM C4.1, bits 28:25: loads and stores are x1x0, data processing on SIMD&FP registers is x111. */
#define LOADS_STORES UINT32_C(0x08000000)
#define LOADS_STORES_MASK UINT32_C(0x0a000000)
#define SIMD_MASK UINT32_C(0x0e000000)

#define CLREX UINT32_C(0xd5033f5f)

/* Kept out of the way of what every trap does. */
#define RARE __attribute__((noinline, cold))
/* And what every trap does, in one piece: no registers are saved between its parts. */
#define INLINE inline __attribute__((always_inline))

struct tagtso_unknown tagtso_unknown[TAGTSO_UNKNOWN_WORDS];
struct tagtso_hysteresis tagtso_hysteresis;

/* What one trap is about. */
struct trap {
	struct tagtso_frame frame;
	struct tagtso_site *site; /* NULL when the table is full */
	const struct tagtso_memop *op;
	struct tagtso_memop local; /* op, without a site */
	siginfo_t *info;
	uint64_t va;                   /* where it faulted */
	uint32_t index;                /* tagtso_window_index() of va */
	bool generated;                /* the pc is in the emulator's generated code, or in an island */
	uint32_t removals;             /* tagtso_code_removals before that was found */
	uint64_t pc;                   /* of the instruction as emitted */
	struct tagtso_island *island;  /* that the thread was in, or NULL */
	uint64_t island_pc;            /* where in it */
	bool done;                     /* carried out: the registers are those after it */
	bool followed;                 /* on the way from a load-exclusive to its store-exclusive */
	bool single;                   /* a load-exclusive is carried out by itself, not its loop */
	struct tagtso_monitor monitor; /* between single exclusives */
};

/* --- reachability (I3) and the guest's own faults -------------------------------------------------------------------- */

/* What a page must permit one of for an access; whether it may be read if it may only be executed is the processor's affair (FEAT_PAN3). */
enum { TO_WRITE = PROT_WRITE, TO_EXECUTE = PROT_EXEC, TO_READ = PROT_READ | PROT_WRITE | PROT_EXEC };

/* A fault on a window page that the guest may access: a chunk not opened yet, or a copy for fork under way, or a race that is over.
 * True = try the access again. */
static bool reach(uint64_t va, int need)
{
	uint32_t index = tagtso_window_index(va);

	if (!index)
		return false;
	struct tagtso_page *page = &tagtso_window.page[index];

	if (!(page->prot & need))
		return false;
	if (tagtso_window_forking()) {
		while (tagtso_window_forking())
			tagtso_sys(__NR_sched_yield);
		return true;
	}
	if (page->flags & TAGTSO_PAGE_REACHED)
		return need != TO_READ || page->prot != PROT_EXEC;
	TAGTSO_COUNT(first_touch);
	return tagtso_window_open(va, tagtso_owner_me());
}

/* A fault in an island is one of the emitted instruction. The LDG of a MIXED form faults at the granule, before the access would at its
 * first byte. */
static void leave_island(const struct tagtso_island *island, siginfo_t *info, ucontext_t *uc)
{
	bool is_ldg = (*(const uint32_t *)uc->uc_mcontext.pc & LDG_MASK) == LDG;

	__asm__ volatile("dmb ish" ::: "memory"); /* in place of the barriers that are not reached now */
	struct tagtso_instruction at = tagtso_island_instruction(island, uc->uc_mcontext.pc);
	struct tagtso_memop op;

	tagtso_island_leave(island, uc->uc_mcontext.regs);
	if (is_ldg && tagtso_decode(at.word, &op)) {
		struct tagtso_frame frame;

		tagtso_frame_init(&frame, uc);
		info->si_addr = (void *)tagtso_exec_address(&op, &frame);
	}
}

/* Passes a fault on to the emulator: at the instruction's own address, with the guest's own pointer. */
static void deliver(int signo, siginfo_t *info, ucontext_t *uc)
{
	uint64_t window = tagtso_window_of_alias((uint64_t)info->si_addr);
	const struct tagtso_island *island = tagtso_code_island(uc->uc_mcontext.pc);

	if (window)
		info->si_addr = (void *)window;
	if (island)
		leave_island(island, info, uc);
	/* Emulators look at what was misaligned, and rewrite it. */
	unsigned exposed = signo == SIGBUS ? tagtso_patch_expose(uc->uc_mcontext.pc) : TAGTSO_EXPOSED_NOTHING;

	tagtso_signals_chain(signo, info, uc);
	tagtso_patch_cover(exposed);
}

static void deliver_fault(struct trap *t, const struct tagtso_fault *fault)
{
	TAGTSO_COUNT(guest_faults);
	t->info->si_signo = fault->signo;
	t->info->si_code = fault->code;
	t->info->si_addr = (void *)fault->address;
	tagtso_frame_init(&t->frame, t->frame.uc);
	if (t->frame.esr && fault->esr)
		*t->frame.esr = fault->esr;
	deliver(fault->signo, t->info, t->frame.uc);
}

/* --- score ----------------------------------------------------------------------------------------------------------- */

/* In relax accesses to shared memory do not trap as they were emitted. */
static enum tagtso_form wanted_relaxed(const struct tagtso_site *site, enum tagtso_form form)
{
	return atomic_load_explicit(&site->local, memory_order_relaxed) < tagtso_hysteresis.local ? form
	                                                                                          : TAGTSO_FORM_RELAXED;
}

static enum tagtso_form wanted_form(const struct tagtso_site *site, enum tagtso_form form)
{
	return tagtso_shared_tag ? tagtso_site_wanted(site, &tagtso_hysteresis) : wanted_relaxed(site, form);
}

static RARE bool fades(struct tagtso_site *site)
{
	return tagtso_site_fades(site, &tagtso_hysteresis, tagtso_sys_now_ms());
}

static INLINE void score(struct trap *t, enum tagtso_order order)
{
	struct tagtso_site *site = t->site;

	if (order == TAGTSO_PLAIN)
		TAGTSO_COUNT(interpreted_plain);
	else
		TAGTSO_COUNT(interpreted_ordered);
	if (!site)
		return;
	_Atomic uint32_t *counter = order == TAGTSO_PLAIN ? &site->local : &site->shared;
	uint32_t before = atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
	uint8_t form = atomic_load_explicit(&site->form, memory_order_relaxed);

	/* As most sites are when they trap. What accesses of the other kind have asked for is their affair. */
	if (form == TAGTSO_FORM_EMITTED &&
	    before + 1 < (order == TAGTSO_PLAIN ? tagtso_hysteresis.local : tagtso_hysteresis.shared))
		return;
	if (!tagtso_knobs.threshold || t->followed)
		return;
	if (!t->generated && !tagtso_shared_tag)
		tagtso_owner_give_up(t->va); /* native code is not rewritten; what is shared it may access as it is */
	if (!t->generated || atomic_load_explicit(&site->refused, memory_order_relaxed))
		return;
	/* Release: pairs with prepare_loop(): before this thread came there the block was written. */
	if (t->island && form == TAGTSO_FORM_EMITTED && tagtso_loop_begins_with(t->op))
		atomic_store_explicit(&site->ready, tagtso_site_armed((uintptr_t)t->island->code),
		                      memory_order_release);
	uint8_t want = wanted_form(site, form);
	/* It has its form, but trapped where it was emitted: code that was recycled came back as it was. */
	bool lost = form != TAGTSO_FORM_EMITTED && want == form && !t->island;

	/* wanted != form means that a request is under way; only one handler makes it */
	if (lost)
		tagtso_patch_request(site);
	else if (want != form && !fades(site) &&
	         atomic_compare_exchange_strong_explicit(&site->wanted, &form, want, memory_order_relaxed,
	                                                 memory_order_relaxed))
		tagtso_patch_request(site);
}

/* --- instructions that the interpreter does not carry out ------------------------------------------------------------ */

static void note_unknown(uint32_t word)
{
	TAGTSO_COUNT(unknown);
	for (int i = 0; i < TAGTSO_UNKNOWN_WORDS; i++) {
		uint32_t old = 0;

		if (atomic_compare_exchange_strong_explicit(&tagtso_unknown[i].word, &old, word, memory_order_relaxed,
		                                            memory_order_relaxed) ||
		    old == word) {
			atomic_fetch_add_explicit(&tagtso_unknown[i].count, 1, memory_order_relaxed);
			return;
		}
	}
}

/* I1: never guess. The pages that it may access become shared for good, then the word itself runs between full barriers. */
static void unknown(struct trap *t, uint64_t va)
{
	uint32_t word = t->op->word;

	note_unknown(word);
	tagtso_outofline_share(t->op, &t->frame, va);
	if (!tagtso_outofline_enter(t->frame.uc, word, false, &t->monitor))
		tagtso_die("instruction %08x at %lx: no slot left to execute it out of line: please report it", word,
		           (unsigned long)t->frame.uc->uc_mcontext.pc);
}

/* --- the site -------------------------------------------------------------------------------------------------------- */

/* General registers are the signal frame's own; the records behind them cost time to find. */
static void find_records(struct trap *t)
{
	if ((t->op->cls > TAGTSO_CASP || t->op->flags & TAGTSO_F_VECTOR) && !t->frame.v)
		tagtso_frame_init(&t->frame, t->frame.uc);
}

/* The instruction at t->pc. */
static void use_site(struct trap *t, uint32_t word)
{
	t->site = tagtso_site_get(t->pc, word);
	if (!t->site)
		tagtso_decode(word, &t->local);
	t->op = t->site ? &t->site->op : &t->local;
	find_records(t);
	if (t->site && !atomic_load_explicit(&t->site->since, memory_order_relaxed))
		atomic_store_explicit(&t->site->since, tagtso_sys_now_ms(), memory_order_relaxed);
	if (!t->site || !t->generated || t->island || tagtso_knobs.verbose >= TELL)
		return;
	atomic_store_explicit(&t->site->seen, t->removals, memory_order_relaxed);
	tagtso_site_remember(t->site);
}

/* Most traps are of sites that are known, in code that is still there: then the pc is neither in an island nor in code of our own. */
static INLINE bool recall_site(struct trap *t)
{
	/* Acquire: pairs with the release of whoever removes code, after which the site's pc may be anything. */
	uint32_t removals = atomic_load_explicit(&tagtso_code_removals, memory_order_acquire);
	uint64_t pc = t->frame.x[TAGTSO_PC];
	struct tagtso_site *site = tagtso_site_recall(pc, *(const volatile uint32_t *)pc);

	if (!site || atomic_load_explicit(&site->seen, memory_order_relaxed) != removals)
		return false;
	t->removals = removals;
	t->pc = pc;
	t->generated = true;
	t->island = NULL;
	t->site = site;
	t->op = &site->op;
	find_records(t);
	return true;
}

/* A trap in an island is a trap of the emitted instruction: registers but the scratch ones are still those of before it (form.h). False if
 * the instruction that trapped has been replaced since: a branch accesses no memory. */
static bool find_instruction(struct trap *t, ucontext_t *uc, uint32_t *word)
{
	t->removals = atomic_load_explicit(&tagtso_code_removals, memory_order_acquire); /* as in recall_site() */
	t->pc = t->island_pc = uc->uc_mcontext.pc;
	t->generated = tagtso_patch_is_code(t->pc);
	t->island = t->generated ? NULL : tagtso_code_island(t->pc);
	if (t->island) {
		struct tagtso_instruction at = tagtso_island_instruction(t->island, t->island_pc);

		TAGTSO_COUNT(traps_island);
		__asm__ volatile(
			"dmb ish" ::
				: "memory"); /* what a RELAXED form has left out, if that is not to be any more */
		t->generated = true;
		uc->uc_mcontext.pc = t->pc = at.pc;
		*word = at.word;
	} else {
		tagtso_reclaim_see(*(const tagtso_sigmask *)(const void *)&uc->uc_sigmask);
		*word = *(const volatile uint32_t *)t->pc;
	}
	return !tagtso_form_is_branch(*word);
}

static bool find_site(struct trap *t, ucontext_t *uc)
{
	uint32_t word;

	if (!find_instruction(t, uc, &word))
		return false;
	if (!t->generated)
		TAGTSO_COUNT(traps_native);
	use_site(t, word);
	return true;
}

/* --- the access ------------------------------------------------------------------------------------------------------ */

enum outcome { SERVED, AGAIN, GIVEN_UP };

static bool is_simple_access(unsigned cls)
{
	return cls >= TAGTSO_LOAD && cls <= TAGTSO_CASP;
}

static bool is_load_exclusive(unsigned cls)
{
	return cls == TAGTSO_LOAD_EX || cls == TAGTSO_LOAD_EX_PAIR;
}

static bool is_store_exclusive(unsigned cls)
{
	return cls == TAGTSO_STORE_EX || cls == TAGTSO_STORE_EX_PAIR;
}

static bool is_exclusive(unsigned cls)
{
	return is_load_exclusive(cls) || is_store_exclusive(cls);
}

/* False if the instruction has got an island of its own since, in another form: in a loop it would trap here each time. */
static bool is_still_here(const struct trap *t)
{
	uint32_t word = *(const volatile uint32_t *)t->pc;

	return !tagtso_form_is_branch(word) || tagtso_code_island(tagtso_form_target(t->pc, word)) == t->island;
}

/* In an island the next instruction may be there too. All registers are as the island's code expects them: the
 * interpreter writes those that the instruction writes, and no scratch register is among them (form.h). After an exclusive, which stands for more than itself, the
 * thread is in the emitted code. */
static INLINE void go_on(struct trap *t)
{
	uint64_t pc =
		t->island && !is_exclusive(t->op->cls) && t->frame.uc->uc_mcontext.pc == t->pc + 4 && is_still_here(t)
			? tagtso_island_resume(t->island, t->island_pc)
			: 0;

	if (pc)
		t->frame.uc->uc_mcontext.pc = pc;
}

static RARE enum outcome failed(struct trap *t, enum tagtso_exec r, const struct tagtso_fault *fault)
{
	/* an exclusive load stands for its whole loop, which stores: there the syndrome decides */
	bool write = (t->op->flags & TAGTSO_F_STORE) || (r == TAGTSO_EXEC_FAULT && (fault->esr & ESR_WNR));

	switch (r) {
	case TAGTSO_EXEC_TAG:
		TAGTSO_COUNT(retries);
		return AGAIN;
	case TAGTSO_EXEC_FAULT:
		if (fault->signo == SIGSEGV && reach(fault->address, write ? TO_WRITE : TO_READ))
			return AGAIN;
		deliver_fault(t, fault);
		return SERVED;
	default:
		return GIVEN_UP;
	}
}

static INLINE enum outcome finish(struct trap *t, enum tagtso_exec r, enum tagtso_order order,
                                  const struct tagtso_fault *fault)
{
	if (r != TAGTSO_EXEC_DONE)
		return failed(t, r, fault);
	t->done = true;
	score(t, order);
	go_on(t);
	return SERVED;
}

/* Within one granule: the pointer carries the tag that was found, and the hardware checks it again at the access itself (I2). */
static INLINE enum outcome access_tagged(struct trap *t, const struct tagtso_memop *op, uint64_t va, unsigned tag)
{
	enum tagtso_order order = tag == TAGTSO_TAG_SHARED ? TAGTSO_ORDERED : TAGTSO_PLAIN;
	struct tagtso_fault fault;
	enum tagtso_exec r = tagtso_exec(op, &t->frame, TAGTSO_WITH_TAG(va, tagtso_tag_in_memory(tag)), order, &fault);

	return finish(t, r, order, &fault);
}

static bool writes_monitored(const struct trap *t, uint64_t va)
{
	return t->op->flags & TAGTSO_F_STORE && t->monitor.held && (va ^ t->monitor.granule) < TAGTSO_GRANULE;
}

static enum tagtso_exec exec_monitored(struct trap *t, uint64_t va, unsigned tag, enum tagtso_order order,
                                       struct tagtso_fault *fault)
{
	if (is_store_exclusive(t->op->cls))
		return tagtso_monitor_store(&t->monitor, t->op, &t->frame, tag, fault);
	if (!is_load_exclusive(t->op->cls))
		return tagtso_monitor_write(&t->monitor, t->op, &t->frame, TAGTSO_WITH_TAG(va, tag), order, fault);
	if (t->single)
		return tagtso_monitor_load(&t->monitor, t->op, &t->frame, tag, fault);
	TAGTSO_COUNT(interpreted_spans);
	return tagtso_span_exec(t->op, &t->frame, tag, SPAN_LIMIT, fault);
}

static enum outcome access_monitored(struct trap *t, uint64_t va, unsigned tag)
{
	enum tagtso_order order = tag == TAGTSO_TAG_SHARED ? TAGTSO_ORDERED : TAGTSO_PLAIN;
	struct tagtso_fault fault;
	enum tagtso_exec r = exec_monitored(t, va, tagtso_tag_in_memory(tag), order, &fault);

	return finish(t, r, order, &fault);
}

static enum outcome access_granule(struct trap *t, uint64_t va, unsigned me)
{
	unsigned tag = tagtso_owner_settle(va, me), cls = t->op->cls;

	if (!tag)
		return SERVED; /* unmapped meanwhile: executing it again tells the truth */
	if (is_exclusive(cls) || writes_monitored(t, va))
		return access_monitored(t, va, tag);
	return access_tagged(t, t->op, va, tag);
}

/* What the window granules of the range are, now: all mine; mine or shared; or not all settled. A page that is not reachable has no say: the access
 * faults there, and is made again or delivered. */
enum settled { UNSETTLED, SETTLED, ALL_MINE };

static enum settled look(uint64_t va, uint64_t len, unsigned me)
{
	enum settled all = ALL_MINE;

	for (uint64_t g = va & ~(uint64_t)(TAGTSO_GRANULE - 1); g < va + len; g += TAGTSO_GRANULE) {
		uint32_t index = tagtso_window_index(g);
		unsigned tag = tagtso_owner_tag(g);

		if (!index || !(tagtso_window.page[index].flags & TAGTSO_PAGE_REACHED) || (me && tag == me))
			continue;
		if (tag != TAGTSO_TAG_SHARED)
			return UNSETTLED;
		all = SETTLED;
	}
	return all;
}

/* Across granules: all are settled before any part is done (replaying a half-done store is not TSO), and stay so, because the locks of both
 * pages are held over the access, which is unchecked. */
static RARE enum outcome access_straddling(struct trap *t, uint64_t va, uint64_t len, unsigned me)
{
	struct tagtso_fault fault;

	for (uint64_t g = va & ~(uint64_t)(TAGTSO_GRANULE - 1); g < va + len; g += TAGTSO_GRANULE) {
		uint32_t index = tagtso_window_index(g);

		if (index && (tagtso_window.page[index].flags & TAGTSO_PAGE_REACHED))
			tagtso_owner_settle(g, me);
	}
	if (!tagtso_owner_lock(va, len))
		return tagtso_window_any(va, len) ? AGAIN : SERVED;
	enum settled all = look(va, len, me);
	enum tagtso_order order = all == ALL_MINE ? TAGTSO_PLAIN : TAGTSO_ORDERED;

	if (all == UNSETTLED) {
		tagtso_owner_unlock(va, len);
		return AGAIN;
	}
	uint64_t tco = tagtso_unchecked_enter();
	/* Nothing checks the tag; it says which owner the access is for (exec.h). */
	enum tagtso_exec r =
		tagtso_exec(t->op, &t->frame, all == ALL_MINE ? TAGTSO_WITH_TAG(va, me) : va, order, &fault);

	tagtso_unchecked_leave(tco);
	tagtso_owner_unlock(va, len);
	return finish(t, r, order, &fault);
}

static bool straddles(uint64_t va, unsigned len)
{
	return va % TAGTSO_GRANULE + len > TAGTSO_GRANULE;
}

static enum outcome access_until_done(struct trap *t)
{
	unsigned len = tagtso_memop_bytes(t->op);
	uint64_t va = tagtso_exec_address(t->op, &t->frame);
	enum outcome o;

	do {
		unsigned me = tagtso_owner_me(); /* each time: the thread may be on another CPU now */

		o = straddles(va, len) ? access_straddling(t, va, len, me) : access_granule(t, va, me);
	} while (o == AGAIN);
	return o;
}

/* A loop that is not interpreted as a unit runs as it is, where nothing else traps. If it cannot, its exclusives are carried out one by
 * one, and what stands between them too (follow), so that progress is made. */
static enum outcome unknown_span(struct trap *t)
{
	uint32_t words[TAGTSO_LOOP_WORDS];
	unsigned count = tagtso_span_words(t->op, &t->frame, words, TAGTSO_LOOP_WORDS);
	enum outcome o;

	if (count) {
		tagtso_outofline_share(t->op, &t->frame, t->va);
		if (tagtso_outofline_enter_loop(t->frame.uc, words, count)) {
			note_unknown(t->op->word);
			return SERVED;
		}
	}
	t->single = true;
	t->monitor.left = FOLLOW_LIMIT;
	o = access_until_done(t);
	if (o == SERVED)
		note_unknown(t->op->word);
	return o;
}

static void carry_out(struct trap *t)
{
	enum outcome o = GIVEN_UP;

	if (t->op->cls > TAGTSO_UNKNOWN && tagtso_memop_bytes(t->op))
		o = access_until_done(t);
	if (o == GIVEN_UP && is_load_exclusive(t->op->cls))
		o = unknown_span(t);
	if (o == GIVEN_UP)
		unknown(t, t->va);
}

/* --- exclusives one by one -------------------------------------------------------------------------------------------
 * Returning to the code between them would be the end of the processor's monitor and of ours: a store-exclusive without a monitor fails before its
 * tag is looked at, so it would not trap. Each instruction is carried out here or, in a slot, elsewhere, until the store-exclusive is. */

/* The instruction at pc; in place of an island, to whose first word a branch may lead, the emitted one. */
static bool next_word(struct trap *t, uint32_t *word)
{
	unsigned long long *pc = &t->frame.x[TAGTSO_PC];
	struct tagtso_island *island = tagtso_code_island(*pc);
	struct tagtso_instruction at;

	if (!island)
		return tagtso_exec_fetch(*pc, word);
	at = tagtso_island_instruction(island, *pc);
	*pc = at.pc;
	*word = at.word;
	return true;
}

/* In a slot, with its tags checked: unless it has to do with memory it is as good there as here. */
static bool follow_elsewhere(struct trap *t, uint32_t word)
{
	if (word != CLREX && tagtso_outofline_may_move(word))
		tagtso_outofline_enter(t->frame.uc, word, true, &t->monitor);
	return false;
}

/* One access that is decoded. Outside the window its pointer says all. */
static bool follow_access(struct trap *t, uint32_t word)
{
	struct tagtso_fault fault;
	enum tagtso_exec r;

	if (is_load_exclusive(t->local.cls))
		return false; /* another loop */
	t->va = tagtso_exec_address(&t->local, &t->frame);
	t->index = tagtso_window_index(t->va);
	if (!t->index) {
		r = tagtso_exec(&t->local, &t->frame, t->va, TAGTSO_PLAIN, &fault);
		return r == TAGTSO_EXEC_UNKNOWN ? follow_elsewhere(t, word) : r == TAGTSO_EXEC_DONE;
	}
	t->pc = t->frame.x[TAGTSO_PC];
	t->island = NULL;
	use_site(t, word);
	t->done = false;
	carry_out(t);
	return t->done;
}

/* True when the next instruction is due; false when the thread goes on by itself, perhaps in a slot. What neither happens here nor may move ends
 * it: an exception, after which no store-exclusive succeeds anyway, and branches that are authenticated. */
static bool follow_one(struct trap *t)
{
	uint32_t word;

	if (!next_word(t, &word))
		return false;
	if (tagtso_alu_step(word, t->frame.x))
		return true;
	return tagtso_decode(word, &t->local) ? follow_access(t, word) : follow_elsewhere(t, word);
}

static void follow(struct trap *t)
{
	t->followed = true; /* it traps here only because of that: no reason to rewrite it */
	while (t->monitor.held && t->monitor.left) {
		t->monitor.left--;
		if (!follow_one(t))
			return;
	}
}

/* From a slot between exclusives: to the next instruction; or the slot's own was stopped by its tag. */
static void follow_from_slot(struct trap *t, bool finished)
{
	uint32_t word;

	tagtso_frame_init(&t->frame, t->frame.uc);
	if (finished) {
		follow(t);
		return;
	}
	if (!next_word(t, &word))
		return;
	tagtso_decode(word, &t->local);
	t->op = &t->local;
	unknown(t, t->va);
}

/* --- every trap ------------------------------------------------------------------------------------------------------ */

static RARE void interpret_any(struct trap *t)
{
	t->single = t->monitor.held = false;
	carry_out(t);
	if (t->monitor.held)
		follow(t);
}

/* What most traps are: in one granule, which has its owner, of the page that faulted. */
static INLINE bool interpret_settled(struct trap *t)
{
	const struct tagtso_memop *op = t->op;

	if (!is_simple_access(op->cls))
		return false;
	uint64_t va = tagtso_exec_address(op, &t->frame);

	if (straddles(va, tagtso_memop_bytes(op)) || (va ^ t->va) / TAGTSO_PAGE_SIZE)
		return false;
	unsigned tag = tagtso_owner_settled(t->index, va, tagtso_owner_me());

	return tag && access_tagged(t, op, va, tag) == SERVED;
}

static INLINE void interpret(struct trap *t)
{
	if (!interpret_settled(t))
		interpret_any(t);
}

/* --- runs --------------------------------------------------------------------------------------------------------------
 * What follows an interpreted instruction may be interpreted in the same trap: a trap costs more than tens of instructions. Only the
 * emulator's own code, only instructions that are known, and only accesses to the window, which would trap too. */

static bool is_simd(uint32_t word)
{
	return (word & SIMD_MASK) == SIMD_MASK;
}

/* The access at pc, if it is one for a run. */
static bool find_next_access(struct trap *t, uint32_t word)
{
	uint64_t pc = t->frame.uc->uc_mcontext.pc;

	if ((word & LOADS_STORES_MASK) != LOADS_STORES)
		return false;
	struct tagtso_site *site = tagtso_site_recall(pc, word);
	const struct tagtso_memop *op = site ? &site->op : &t->local;

	if (!site)
		tagtso_decode(word, &t->local);

	if (!is_simple_access(op->cls) || op->addressing == TAGTSO_ADDR_LITERAL)
		return false;
	t->va = tagtso_exec_address(op, &t->frame);
	t->index = tagtso_window_index(t->va);
	if (!t->index)
		return false;
	t->pc = pc;
	t->island = NULL;
	t->site = site;
	t->op = op;
	if (site)
		find_records(t);
	else
		use_site(t, word);
	return true;
}

/* Goes over instructions that access no memory. True if one comes that is for the run. */
static bool step_to_access(struct trap *t, unsigned *left)
{
	unsigned long long *r = t->frame.x;
	uint64_t page = t->pc / TAGTSO_PAGE_SIZE; /* generated, so all of its page is */

	for (unsigned gap = 0; gap < RUN_GAP && *left; gap++) {
		uint64_t here = r[TAGTSO_PC] / TAGTSO_PAGE_SIZE;
		uint32_t word;

		if (here != page && !tagtso_patch_is_code(r[TAGTSO_PC]))
			return false;
		page = here;
		word = *(const volatile uint32_t *)r[TAGTSO_PC];
		if (is_simd(word))
			return false;
		--*left;
		if (tagtso_alu_step(word, r))
			continue;
		return find_next_access(t, word);
	}
	return false;
}

static RARE void run(struct trap *t)
{
	unsigned left = (unsigned)tagtso_knobs.run;

	while (t->done && step_to_access(t, &left)) {
		TAGTSO_COUNT(run_accesses);
		t->done = false;
		interpret(t);
	}
}

/* A site that will be rewritten after a few traps is left to that: what a run saves there is less than it costs. Most often a look at the next word is
 * enough to know that there is no run. */
static INLINE bool is_for_run(const struct trap *t)
{
	uint64_t pc = t->frame.x[TAGTSO_PC];

	if (t->site && tagtso_knobs.threshold && !atomic_load_explicit(&t->site->refused, memory_order_relaxed))
		return false;
	if (!t->done || t->island || !t->generated || !tagtso_knobs.run)
		return false;
	return (pc ^ t->pc) / TAGTSO_PAGE_SIZE || !is_simd(*(const volatile uint32_t *)pc);
}

static RARE void sleep_for_patcher(const struct tagtso_site *site)
{
	static const struct timespec pause = { .tv_nsec = PATCHER_PAUSE_NS };
	uint32_t traps = atomic_load_explicit(&site->local, memory_order_relaxed) +
	                 atomic_load_explicit(&site->shared, memory_order_relaxed) - (uint32_t)tagtso_knobs.threshold;

	if (traps - PATCHER_TRAPS < PATCHER_PAUSES)
		tagtso_sys(__NR_nanosleep, &pause, NULL);
}

/* The patcher is a thread that mostly sleeps. Where it does not get a core soon, waiting for it costs less than the traps that its sites take
 * meanwhile; and where it never comes, some tens of waits have been all. */
static INLINE void wait_for_patcher(const struct tagtso_site *site)
{
	if (site && atomic_load_explicit(&site->wanted, memory_order_relaxed) !=
	                    atomic_load_explicit(&site->form, memory_order_relaxed))
		sleep_for_patcher(site);
}

static RARE void tell(const struct trap *t)
{
	tagtso_say("trap: pc %lx word %08x form %u address %lx tag %u me %u", (unsigned long)t->pc, t->op->word,
	           t->site ? atomic_load_explicit(&t->site->form, memory_order_relaxed) : 0u, (unsigned long)t->va,
	           tagtso_owner_tag(t->va), tagtso_owner_me());
}

static INLINE void serve(struct trap *t)
{
	TAGTSO_COUNT(traps);
	interpret(t);
	if (is_for_run(t))
		run(t);
	wait_for_patcher(t->site);
}

/* Of what faulted in the thread itself: reach()'s `need`. */
static int needed(ucontext_t *uc)
{
	struct tagtso_frame frame;

	tagtso_frame_init(&frame, uc);
	if (frame.esr && *frame.esr >> ESR_EC_SHIFT == ESR_EC_FETCH)
		return TO_EXECUTE;
	return frame.esr && (*frame.esr & ESR_WNR) ? TO_WRITE : TO_READ;
}

/* The slot of an instruction executed out of line: back to where it belongs. A fault of its own is the guest's: made again, it might be stopped
 * by another part's tag each time, and never come to be delivered. */
static void out_of_line(struct trap *t, int signo)
{
	bool finished;

	if (!tagtso_outofline_leave(t->frame.uc, t->info, &finished, &t->monitor))
		return;
	if (t->monitor.held && (finished || t->index))
		follow_from_slot(t, finished);
	else if (!finished && !(signo == SIGSEGV && reach(t->va, needed(t->frame.uc))))
		deliver(signo, t->info, t->frame.uc);
}

/* An acquire, a release or an atomic that had to be aligned, and was not. Emulators serve that by the words at the pc (FEX writes a barrier and a plain
 * access over them: its ArchHelpers/Arm64.cpp), so they must be its own again. From an island, or where words were ours, the thread goes back to fault
 * at what is there now: true. */
static RARE bool unaligned(ucontext_t *uc, siginfo_t *info)
{
	struct tagtso_island *island = tagtso_code_island(uc->uc_mcontext.pc);

	if (island)
		leave_island(island, info, uc);

	int restored = tagtso_patch_restore(uc->uc_mcontext.pc);

	return restored > 0 || (restored == 0 && island);
}

/* Faults of our own code, and those that are not ours. */
static void other_fault(struct trap *t, int signo)
{
	siginfo_t *info = t->info;
	ucontext_t *uc = t->frame.uc;

	if (tagtso_exec_owns(uc->uc_mcontext.pc))
		tagtso_exec_fixup(uc, info);
	else if (tagtso_patch_recovery(uc->uc_mcontext.pc))
		uc->uc_mcontext.pc = tagtso_patch_recovery(uc->uc_mcontext.pc);
	else if (tagtso_is_active() && tagtso_outofline_holds(uc->uc_mcontext.pc))
		out_of_line(t, signo);
	else if (tagtso_is_active() && signo == SIGBUS && info->si_code == BUS_ADRALN && unaligned(uc, info))
		return; /* to the emitted word */
	else if (!tagtso_is_active() || signo != SIGSEGV ||
	         (info->si_code != SEGV_ACCERR && info->si_code != SEGV_MAPERR) || !reach(t->va, needed(uc)))
		deliver(signo, info, uc);
}

static RARE bool find_any(struct trap *t, int signo)
{
	uint64_t pc = t->frame.x[TAGTSO_PC];

	if (!t->index || tagtso_exec_owns(pc) || tagtso_outofline_holds(pc)) {
		other_fault(t, signo);
		return false;
	}
	if (find_site(t, t->frame.uc)) {
		if (tagtso_knobs.verbose >= TELL)
			tell(t);
		return true;
	}
	TAGTSO_COUNT(traps);
	TAGTSO_COUNT(retries);
	return false;
}

void tagtso_trap(int signo, siginfo_t *info, void *context)
{
	bool mismatch = signo == SIGSEGV && info->si_code == SEGV_MTESERR && tagtso_is_active();
	uint64_t held = TAGTSO_RANK_HELD();
	struct trap t;

	t.va = TAGTSO_UNTAG(info->si_addr);
	t.index = mismatch ? tagtso_window_index(t.va) : 0;
	t.done = t.followed = false;
	t.info = info;
	tagtso_frame_init_general(&t.frame, context);
	if ((t.index && recall_site(&t)) || find_any(&t, signo))
		serve(&t);
	TAGTSO_RANK_SAME(held);
}
