/* SPDX-License-Identifier: MIT */
/* The patcher: one thread that gives sites the forms that handlers ask for, in batches (I5).
 *
 * tagtso_patch_request() is handler code (I6); everything else runs in the patcher's thread or in hooks.
 *
 * A batch: the islands of all its sites are written and their caches cleaned; membarrier(SYNC_CORE), after which no
 * core can hold stale instructions of these islands; the words at the sites are exchanged by compare-and-swap; caches
 * again; membarrier(SYNC_CORE), after which every thread runs the new words. Until then a thread may run either word
 * of a site: both are right at every moment.
 *
 * When requests pause, the islands of neighbouring sites are joined to stretches (stretch.h). A stretch repeats words
 * that are not ours to watch: the emulator may free the block and write another one there. What holds it up is the
 * site's own word: while that is a branch that we have written, the block is still the one for which we wrote it, since
 * an emulator writes all words of a block before it runs it. So the site branches to an island of its own first; then
 * the words around are read, the stretch is made, and they are read again; and then the word is exchanged, if it is
 * still that branch. What the emulator's profile must promise is that the words of a block do not change in place. */
#include "patch.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/prctl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "alloc/sys.h"
#include "code.h"
#include "decode.h"
#include "exec.h"
#include "island.h"
#include "loop.h"
#include "opinion.h"
#include "reclaim.h"
#include "shim/next.h"
#include "shim/rank.h"
#include "shim/say.h"
#include "shim/stats.h"
#include "stretch.h"

enum { BOX = 512, TRIES = 16, BATCH = 64, STACK = 256 * 1024, PAUSE_MS = 10, LONG_PAUSE_MS = 1280 };

enum state { STOPPED, STARTING, RUNNING, STOPPING };

/* Requests: an unordered box, so that one compare-and-swap puts a request in and nobody waits for an interrupted
 * sender. */
static _Atomic(struct tagtso_site *) box[BOX]; /* handlers: NULL to site; the patcher: back to NULL */
static _Atomic uint64_t taken[BOX / 64];       /* where to look: set after a request was put in */
static _Atomic uint32_t bell;    /* futex: 1 = look into the box; handlers set it, the patcher clears it */
static _Atomic uint32_t pending; /* requests put into the box and not yet served */
static _Atomic uint32_t state;   /* enum state; start and stop, which the shim does not call at the same time */

static pthread_t thread;                   /* start and stop */
static struct tagtso_scratch scratch_regs; /* written by start, before the thread exists */
static unsigned stretch_most;              /* written by start */
static uint64_t (*idle_work)(void);        /* written by set_idle, before the thread exists */
static struct tagtso_opinion opinion;      /* the patcher's; opened by start */
static struct tagtso_site *alone[BOX];     /* sites with islands of their own, to be joined; the patcher's */
static _Atomic uint32_t nalone;            /* the patcher's; read by drain */

/* Island space; the patcher's. */
static uint64_t quiet_pc;      /* in the code whose segment waits for threads to leave it (reclaim), 0 = none */
static bool wants_room;        /* some range is short of it */
static uint64_t next_look;     /* when to look after it, in ms */
static unsigned pause_between; /* such looks, in ms: longer while nothing comes of them */

/* One request on its way through a batch. */
struct job {
	struct tagtso_site *site;
	struct tagtso_code *code; /* held, or NULL */
	uint64_t pc;              /* of the word that is exchanged: the site's, or that of the DMB before it */
	uint32_t barrier;         /* that DMB, 0 = none */
	bool arming;              /* the DMB, or the load-exclusive, becomes a branch to itself first */
	uint32_t *word;           /* at pc */
	uint32_t old, new;        /* what stood there; what shall */
	uint64_t island;          /* 0 for EMITTED */
	uint8_t form;
	uint8_t refused; /* enum tagtso_refusal */
	bool move;       /* the site keeps its form, and gets an island elsewhere */
};

/* ---- requests: handler code ---- */

static void ring(void)
{
	/* Release: the site is in the box before the patcher is told to look. */
	if (!atomic_exchange_explicit(&bell, 1, memory_order_acq_rel))
		tagtso_sys(__NR_futex, &bell, FUTEX_WAKE_PRIVATE, 1, 0);
}

static void give_up(struct tagtso_site *site)
{
	atomic_store_explicit(&site->wanted, atomic_load_explicit(&site->form, memory_order_relaxed),
	                      memory_order_relaxed);
}

static bool put_into_box(struct tagtso_site *site)
{
	uintptr_t first = (uintptr_t)site / sizeof(*site);

	for (unsigned i = 0; i < TRIES; i++) {
		struct tagtso_site *empty = NULL;
		unsigned at = (unsigned)(first + i) % BOX;

		if (atomic_compare_exchange_strong_explicit(&box[at], &empty, site, memory_order_acq_rel,
		                                            memory_order_relaxed)) {
			atomic_fetch_or_explicit(&taken[at / 64], UINT64_C(1) << at % 64, memory_order_release);
			return true;
		}
		if (empty == site) { /* it is in there already: that request will see what is wanted now */
			atomic_fetch_sub_explicit(&pending, 1, memory_order_relaxed);
			return true;
		}
	}
	return false;
}

void tagtso_patch_request(struct tagtso_site *site)
{
	if (atomic_load_explicit(&state, memory_order_acquire) != RUNNING) {
		give_up(site);
		return;
	}
	atomic_fetch_add_explicit(&pending, 1, memory_order_relaxed);
	if (put_into_box(site)) {
		ring();
		return;
	}
	atomic_fetch_sub_explicit(&pending, 1, memory_order_relaxed);
	give_up(site);
}

/* ---- caches and cores ---- */

/* Makes [start, start+size) visible to instruction fetch of all cores that synchronise afterwards (Arm ARM,
 * "Concurrent modification and execution of instructions" and the cache maintenance sequence there). */
static void clean(uintptr_t start, size_t size)
{
	uint64_t ctr;
	size_t dline, iline;

	__asm__("mrs %0, ctr_el0" : "=r"(ctr));
	dline = (size_t)4 << (ctr >> 16 & 15);
	iline = (size_t)4 << (ctr & 15);
	for (uintptr_t p = start & ~(dline - 1); p < start + size; p += dline)
		__asm__ volatile("dc cvau, %0" : : "r"(p) : "memory");
	__asm__ volatile("dsb ish" : : : "memory");
	for (uintptr_t p = start & ~(iline - 1); p < start + size; p += iline)
		__asm__ volatile("ic ivau, %0" : : "r"(p) : "memory");
	__asm__ volatile("dsb ish\n\tisb" : : : "memory");
}

/* A context synchronisation on every core that runs a thread of the process. */
static bool sync_cores(void)
{
	TAGTSO_COUNT(syncs);
	return tagtso_sys(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) == 0;
}

/* Compare-and-swap of a word of code: 1, 0 if another word was there, -1 if the page may not be written. An emulator may change that at any time,
 * so it is tried, and the handler makes a fault an answer (tagtso_patch_recovery). */
__attribute__((visibility("hidden"))) int tagtso_patch_exchange(uint32_t *at, uint32_t expected, uint32_t word);
__attribute__((visibility("hidden"))) extern const char tagtso_patch_exchange_access[], tagtso_patch_exchange_failed[];
__asm__(".pushsection .text\n"
        ".hidden tagtso_patch_exchange, tagtso_patch_exchange_access, tagtso_patch_exchange_failed\n"
        ".globl tagtso_patch_exchange, tagtso_patch_exchange_access, tagtso_patch_exchange_failed\n"
        ".type tagtso_patch_exchange, %function\n"
        "tagtso_patch_exchange:\n"
        "	mov w3, w1\n"
        "tagtso_patch_exchange_access:\n"
        "	casal w1, w2, [x0]\n"
        "	cmp w1, w3\n"
        "	cset w0, eq\n"
        "	ret\n"
        "tagtso_patch_exchange_failed:\n"
        "	mov w0, #-1\n"
        "	ret\n"
        ".size tagtso_patch_exchange, . - tagtso_patch_exchange\n"
        ".popsection");

uint64_t tagtso_patch_recovery(uint64_t pc)
{
	return pc == (uintptr_t)tagtso_patch_exchange_access ? (uintptr_t)tagtso_patch_exchange_failed : 0;
}

/* ---- torture ----
 * TAGTSO_TORTURE: what may happen at any time happens at random times, and what may take long takes long. */

enum { TORTURE_SITES = 4, TORTURE_PAUSE_MS = 2, TORTURE_NAP_NS = 200000 };
bool tagtso_patch_relaxes;
static uint64_t torture_state; /* the patcher's; not 0: on; set by start */

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" */
static uint32_t torture_random(uint32_t below)
{
	torture_state ^= torture_state >> 12;
	torture_state ^= torture_state << 25;
	torture_state ^= torture_state >> 27;
	return (uint32_t)(torture_state * UINT64_C(0x2545f4914f6cdd1d) >> 32) % below;
}

/* A point at which other threads may do anything. */
static void torture_point(void)
{
	struct timespec nap = { 0 };

	if (!torture_state || torture_random(4))
		return;
	nap.tv_nsec = torture_random(TORTURE_NAP_NS);
	tagtso_sys(__NR_nanosleep, &nap, NULL);
}

/* ---- one site ---- */

static uint32_t load_word(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* The island that a word at pc branches to, if it does so in order to execute the instruction at pc there. */
static inline struct tagtso_island *island_of_word(uint64_t pc, uint32_t word)
{
	uint64_t target = tagtso_form_target(pc, word);
	struct tagtso_island *island = target ? tagtso_code_island(target) : NULL;

	return island && tagtso_island_instruction(island, target).pc == pc ? island : NULL;
}

static uint32_t emitted_word(const struct tagtso_island *island, uint64_t pc)
{
	return tagtso_island_orig(island)[(pc - island->pc) / 4];
}

/* True if `word` at the site's place is a branch to an island that has this site in it. */
static bool leads_to_island(const struct tagtso_site *site, uint64_t pc, uint32_t word)
{
	const struct tagtso_island *island = island_of_word(pc, word);

	return island && emitted_word(island, pc) == site->op.word;
}

/* Both decoders, again, now: what is to be written stands for this instruction and no other. */
static bool decoders_agree(const struct tagtso_site *site, uint64_t pc)
{
	struct tagtso_memop op;

	return tagtso_decode(site->op.word, &op) && !memcmp(&op, &site->op, sizeof(op)) &&
	       tagtso_opinion_agrees(&opinion, &site->op, pc);
}

static bool in_reach(uint64_t pc, const struct tagtso_island *island, unsigned ncode)
{
	return tagtso_form_branch(pc, (uintptr_t)island->code) &&
	       tagtso_form_branch(pc, (uintptr_t)(island->code + ncode));
}

/* Makes an island of code and what is known of it. NULL when there is no place that the site can branch to. */
static struct tagtso_island *place_island(struct tagtso_code *code, uint64_t pc, unsigned ncode, unsigned norig)
{
	unsigned bytes = tagtso_island_bytes(ncode, norig);
	struct tagtso_island *island = tagtso_code_place(code, bytes);

	if (!island || !in_reach(pc, island, ncode))
		return NULL;
	island->pc = pc;
	island->bytes = bytes;
	island->ncode = (uint16_t)ncode;
	island->norig = (uint16_t)norig;
	atomic_store_explicit(&island->retired, 0, memory_order_relaxed);
	return island;
}

static void finish_island(struct tagtso_code *code, struct tagtso_island *island)
{
	island->magic = TAGTSO_ISLAND_MAGIC;
	clean((uintptr_t)island, island->bytes);
	TAGTSO_ADD(island_bytes, island->bytes);
	tagtso_code_take(code, island->bytes);
	wants_room |= tagtso_code_is_short(code);
}

/* ---- a DMB and the access behind it (mode relax) ----
 * The island takes the place of two words, but one is exchanged, the DMB's, and only that one is guarded: if the block was recycled, another access may
 * stand behind the same DMB, or may be about to be written there. So the DMB becomes a branch to an island with just the DMB, which is right whatever
 * follows; and when the access has trapped again behind that branch, the block has run with it, so that all its words were written before. From then on
 * the branch stands for both: it is exchanged, B to B, if the access is still the site's. */

static bool is_barrier_island(const struct tagtso_island *island)
{
	return island->norig == 1;
}

/* Sets pc, barrier and arming, if there is such a pair. */
static void find_barrier(struct job *job)
{
	const struct tagtso_memop *op = &job->site->op;
	uint64_t pc = job->pc - 4, base, end;
	const struct tagtso_island *island;
	uint32_t word;

	tagtso_code_bounds(job->code, &base, &end);
	if (job->form != TAGTSO_FORM_RELAXED || pc < base || pc >= end)
		return;
	word = load_word((const uint32_t *)(uintptr_t)pc);
	island = island_of_word(pc, word);
	if (island && island->pc == pc)
		word = emitted_word(island, pc);
	if (!tagtso_form_is_barrier_for(word, op) || !tagtso_opinion_is_barrier(&opinion, word, pc) ||
	    load_word((const uint32_t *)(uintptr_t)job->pc) != op->word)
		return;
	job->pc = pc;
	job->barrier = word;
	job->arming = !island;
}

/* Why there is no place: none is free now, or none is near. */
static enum tagtso_refusal no_place(struct job *job, unsigned bytes)
{
	if (tagtso_code_place(job->code, bytes) || !tagtso_code_is_short(job->code))
		return TAGTSO_REFUSED_REACH;
	wants_room = true;
	return TAGTSO_REFUSED_FULL;
}

/* An island that has one word of the emulator's, the one at job->pc, and no more. */
static enum tagtso_refusal write_alone(struct job *job, uint32_t word)
{
	struct tagtso_island *island = place_island(job->code, job->pc, 2, 1);

	if (!island)
		return no_place(job, tagtso_island_bytes(2, 1));
	tagtso_island_write(island, word,
	                    (uint32_t[]){ word, tagtso_form_branch((uintptr_t)(island->code + 1), job->pc + 4) },
	                    scratch_regs);
	finish_island(job->code, island);
	job->island = (uintptr_t)island->code;
	return TAGTSO_REFUSED_NOT;
}

static enum tagtso_refusal write_pair(struct job *job)
{
	struct tagtso_island *island = place_island(job->code, job->pc, TAGTSO_ISLAND_WORDS, 2);
	uint32_t words[TAGTSO_ISLAND_WORDS];
	unsigned n;

	if (!island)
		return no_place(job, tagtso_island_bytes(TAGTSO_ISLAND_WORDS, 2));
	n = tagtso_form_encode_pair(&job->site->op, job->barrier, job->form, scratch_regs, job->pc + 4,
	                            (uintptr_t)island->code, words);
	if (!n)
		return TAGTSO_REFUSED_FORM;
	place_island(job->code, job->pc, n, 2);
	tagtso_island_write_pair(island, job->barrier, job->site->op.word, words, scratch_regs);
	finish_island(job->code, island);
	job->island = (uintptr_t)island->code;
	return TAGTSO_REFUSED_NOT;
}

/* The word at job->pc is the DMB, or branches to an island that has it. */
static enum tagtso_refusal prepare_pair(struct job *job)
{
	const struct tagtso_island *island = island_of_word(job->pc, job->old);
	enum tagtso_refusal refused;

	job->new = job->old;
	if (!job->arming && !island)
		return TAGTSO_REFUSED_STALE; /* another word since it was looked at */
	if (island && !is_barrier_island(island)) {
		job->island = (uintptr_t)island->code;
		return emitted_word(island, job->pc + 4) == job->site->op.word ? TAGTSO_REFUSED_NOT
		                                                               : TAGTSO_REFUSED_STALE;
	}
	if (!decoders_agree(job->site, job->pc + 4))
		return TAGTSO_REFUSED_CAPSTONE;
	refused = job->arming ? write_alone(job, job->barrier) : write_pair(job);
	if (!refused)
		job->new = tagtso_form_branch(job->pc, job->island);
	return refused;
}

/* ---- one site, up to the word itself ---- */

static enum tagtso_refusal write_island(struct job *job, uint64_t pc)
{
	struct tagtso_island *island = place_island(job->code, pc, TAGTSO_ISLAND_WORDS, 1);
	uint32_t words[TAGTSO_ISLAND_WORDS];
	unsigned n;

	if (!island)
		return no_place(job, tagtso_island_bytes(TAGTSO_ISLAND_WORDS, 1));
	n = tagtso_form_encode(&job->site->op, job->form, scratch_regs, pc, (uintptr_t)island->code, words);
	if (!n)
		return TAGTSO_REFUSED_FORM;
	place_island(job->code, pc, n, 1);
	tagtso_island_write(island, job->site->op.word, words, scratch_regs);
	finish_island(job->code, island);
	job->island = (uintptr_t)island->code;
	return TAGTSO_REFUSED_NOT;
}

/* ---- an LL/SC loop ----
 * The island has the words behind the site's too, which nobody guards: a block that was recycled may have the same load-exclusive in the same place, and its other words may
 * be about to be written. So, as with pairs, the site's word becomes a branch to an island with just the load-exclusive, which is right whatever follows. When it has
 * trapped in there, the block has run with that branch, so that all its words were written before; they are read then, and the branch is exchanged, B to B. */

static struct tagtso_loop loop; /* in the making; the patcher's */

/* The words of the loop; 0: not all of them may stand elsewhere, or they are not all there. */
static unsigned read_loop(const struct job *job, uint64_t pc, uint32_t words[TAGTSO_LOOP_WORDS])
{
	unsigned long long r[TAGTSO_NREGS] = { [TAGTSO_PC] = pc };
	const struct tagtso_frame frame = { .x = r };
	unsigned n = tagtso_span_words(&job->site->op, &frame, words, TAGTSO_LOOP_WORDS);
	struct tagtso_memop op;
	uint64_t base, end;

	tagtso_code_bounds(job->code, &base, &end);
	if (pc + 4 * (uint64_t)n > end)
		return 0;
	for (unsigned i = 1; i < n; i++) {
		uint64_t at = pc + 4 * (uint64_t)i, target = tagtso_form_target(at, words[i]);

		if (tagtso_decode(words[i], &op) && op.cls != TAGTSO_PREFETCH &&
		    !tagtso_opinion_agrees(&opinion, &op, at))
			return 0;
		if (target && tagtso_code_island(target)) /* an access that is rewritten: not without its island */
			return 0;
	}
	return n;
}

static enum tagtso_refusal write_loop(struct job *job, uint64_t pc)
{
	bool relaxed = job->form == TAGTSO_FORM_RELAXED;
	uint32_t words[TAGTSO_LOOP_WORDS];
	unsigned n = read_loop(job, pc, words);
	struct tagtso_island *island = n ? place_island(job->code, pc, TAGTSO_LOOP_CODE, n) : NULL;

	if (!n)
		return TAGTSO_REFUSED_FORM;
	if (!island)
		return no_place(job, tagtso_island_bytes(TAGTSO_LOOP_CODE, n));
	if (!tagtso_loop_encode(&loop, words, n, relaxed, scratch_regs, pc, (uintptr_t)island->code))
		return TAGTSO_REFUSED_FORM;
	place_island(job->code, pc, loop.ncode, n);
	memcpy(island->code, loop.code, loop.ncode * sizeof(*loop.code));
	memcpy(tagtso_island_orig(island), words, n * sizeof(*words));
	memcpy(tagtso_island_map(island), loop.map, loop.ncode * sizeof(*loop.map));
	finish_island(job->code, island);
	job->island = (uintptr_t)island->code;
	return TAGTSO_REFUSED_NOT;
}

/* The word at pc is the load-exclusive, or branches to an island that has it. */
static enum tagtso_refusal prepare_loop(struct job *job, uint64_t pc)
{
	const struct tagtso_island *island = island_of_word(pc, job->old);
	bool first = !island || (job->move && island->norig == 1);
	enum tagtso_refusal refused;

	/* Acquire: pairs with the handler's release: the words behind were there when the island was run. */
	job->arming = first || (island->norig == 1 && atomic_load_explicit(&job->site->ready, memory_order_acquire) !=
	                                                      tagtso_site_armed((uintptr_t)island->code));
	job->new = job->old;
	if (job->arming && !first)
		return TAGTSO_REFUSED_NOT;
	refused = first ? write_alone(job, job->site->op.word) : write_loop(job, pc);
	if (first && !refused)
		atomic_store_explicit(&job->site->ready, 1, memory_order_release); /* it has not been run */
	if (!refused)
		job->new = tagtso_form_branch(pc, job->island);
	return refused;
}

/* ---- one site, up to the word itself, again ---- */

/* The island that the site has already for itself, if it is still there and of the form asked for: code that was
 * recycled came back as it was. Nothing is known of the words around it, so a stretch is not used again. */
static bool find_island(struct job *job)
{
	uint64_t pc = atomic_load_explicit(&job->site->pc, memory_order_relaxed);
	struct tagtso_island *island =
		tagtso_code_island(atomic_load_explicit(&job->site->island, memory_order_relaxed));

	if (job->form != atomic_load_explicit(&job->site->form, memory_order_relaxed) || !island || island->pc != pc ||
	    island->norig != 1 || emitted_word(island, pc) != job->site->op.word)
		return false;
	job->island = (uintptr_t)island->code;
	return true;
}

/* Everything up to the word itself. */
static enum tagtso_refusal prepare(struct job *job)
{
	struct tagtso_site *site = job->site;
	uint64_t pc = atomic_load_explicit(&site->pc, memory_order_relaxed);
	enum tagtso_refusal refused;

	job->code = tagtso_code_hold(pc);
	if (!job->code)
		return TAGTSO_REFUSED_STALE;
	job->pc = pc;
	find_barrier(job);
	job->word = (uint32_t *)(uintptr_t)job->pc;
	job->old = load_word(job->word);
	if (job->barrier)
		return prepare_pair(job);
	job->new = site->op.word;
	if (job->old != site->op.word && !leads_to_island(site, pc, job->old))
		return TAGTSO_REFUSED_STALE;
	if (job->form == TAGTSO_FORM_EMITTED)
		return TAGTSO_REFUSED_NOT;
	if (!job->move && job->old != job->new &&
	    job->form == atomic_load_explicit(&site->form, memory_order_relaxed)) {
		job->new = job->old;
		job->island = atomic_load_explicit(&site->island, memory_order_relaxed);
		return TAGTSO_REFUSED_NOT;
	}
	if (!decoders_agree(site, pc))
		return TAGTSO_REFUSED_CAPSTONE;
	if (tagtso_loop_begins_with(&site->op))
		return prepare_loop(job, pc);
	if ((job->move || !find_island(job)) && (refused = write_island(job, pc)))
		return refused;
	job->new = tagtso_form_branch(pc, job->island);
	return job->new ? TAGTSO_REFUSED_NOT : TAGTSO_REFUSED_REACH;
}

/* ---- outcome ---- */

static void say_job(const struct job *job, uint8_t from)
{
	static const char *const forms[TAGTSO_NFORMS] = { "emitted", "local", "shared", "mixed", "relaxed" };
	static const char *const reasons[] = { "",
		                               ": no such form",
		                               ": decoders disagree",
		                               ": no island space in reach",
		                               ": the code may not be written",
		                               ": code has changed",
		                               ": island space is used up",
		                               ": the emulator looks at it" };
	uint64_t pc = atomic_load_explicit(&job->site->pc, memory_order_relaxed);
	char text[TAGTSO_TEXT];

	if (tagtso_knobs.verbose < 2)
		return;
	tagtso_opinion_text(&opinion, pc, job->site->op.word, text);
	tagtso_say("%s: %lx: %s: %s -> %s%s", job->refused ? "rewrite refused" : "rewrite", (unsigned long)pc, text,
	           forms[from % TAGTSO_NFORMS], forms[job->form], reasons[job->refused]);
}

static void count_rewrite(uint8_t form)
{
	if (form == TAGTSO_FORM_EMITTED)
		return;
	TAGTSO_COUNT(sites_rewritten);
	if (form == TAGTSO_FORM_LOCAL)
		TAGTSO_COUNT(forms_local);
	else if (form == TAGTSO_FORM_SHARED)
		TAGTSO_COUNT(forms_shared);
	else if (form == TAGTSO_FORM_RELAXED)
		TAGTSO_COUNT(forms_relaxed);
	else
		TAGTSO_COUNT(forms_mixed);
}

static void set_form(struct tagtso_site *site, uint8_t form, uint64_t island)
{
	atomic_store_explicit(&site->island, island, memory_order_relaxed);
	atomic_store_explicit(&site->local, 0, memory_order_relaxed);
	atomic_store_explicit(&site->shared, 0, memory_order_relaxed);
	atomic_store_explicit(&site->since, tagtso_sys_now_ms(), memory_order_relaxed);
	/* Release: a handler that sees the form sees the score begun anew. */
	atomic_store_explicit(&site->form, form, memory_order_release);
	atomic_store_explicit(&site->wanted, form, memory_order_release);
}

/* ---- words that the emulator's own handler looks at ----
 * Such a handler (of SIGBUS) reads words around the pc and writes others there: it must find its own, and they must stay while it runs. So the thread
 * says where it looks, waits until the patcher is not about to exchange a word there, and puts the emitted words back; and the patcher says which word it
 * is about to exchange, and then looks who is looking. All of it is sequentially consistent: one of the two sees the other. The patcher waits for nothing
 * meanwhile. A handler that is left by longjmp looks forever: nothing is rewritten there any more. */

enum { LOOKERS = 64, AROUND = 64 };         /* threads; bytes on either side of the pc */
static _Atomic uint64_t looked_at[LOOKERS]; /* pc, 0 = nobody; handlers */
static _Atomic uint32_t crowd;              /* threads that found no place there; handlers */
static _Atomic uint64_t exchanging;         /* pc of that word, 0 = none; the patcher's */

static bool is_near(uint64_t a, uint64_t b)
{
	return a - b + AROUND <= 2 * (uint64_t)AROUND;
}

static bool is_looked_at(uint64_t pc)
{
	if (atomic_load(&crowd))
		return true;
	for (unsigned i = 0; i < LOOKERS; i++) {
		uint64_t at = atomic_load(&looked_at[i]);

		if (at && is_near(pc, at))
			return true;
	}
	return false;
}

static bool is_exchanging(uint64_t pc, bool anywhere)
{
	uint64_t at = atomic_load(&exchanging);

	return at && (anywhere || is_near(pc, at));
}

/* Right at every moment, as all that we write there: both words do the same. Another branch may take the place of the one that was
 * read. 1, 0 if it is none of ours, -1 if it cannot be written. */
static int restore_word(uint64_t pc)
{
	uint32_t *at = (uint32_t *)(uintptr_t)pc;
	const struct tagtso_island *island;
	struct tagtso_memop op;
	int done = 0;

	for (uint32_t word = load_word(at); !done && (island = island_of_word(pc, word)); word = load_word(at)) {
		uint32_t emitted = emitted_word(island, pc);
		struct tagtso_site *site = tagtso_decode(emitted, &op) ? tagtso_site_get(pc, emitted) : NULL;

		done = tagtso_patch_exchange(at, word, emitted);
		if (done > 0)
			clean(pc, sizeof(*at));
		if (site)
			set_form(site, TAGTSO_FORM_EMITTED, 0);
	}
	return done;
}

int tagtso_patch_restore(uint64_t pc)
{
	struct tagtso_code *code = tagtso_code_hold(pc);
	uint64_t base, end;
	int n = 0;

	if (!code)
		return 0;
	tagtso_code_bounds(code, &base, &end);
	base = pc - base < AROUND ? base : pc - AROUND;
	end = end - pc < AROUND + 4 ? end : pc + AROUND + 4;
	for (uint64_t at = base; n >= 0 && at < end; at += 4) {
		int done = restore_word(at);

		n = done < 0 ? done : n + done;
	}
	tagtso_code_release(code);
	return n;
}

unsigned tagtso_patch_expose(uint64_t pc)
{
	unsigned n = 0;
	uint64_t nobody = 0;

	if (!tagtso_patch_is_code(pc))
		return TAGTSO_EXPOSED_NOTHING;
	for (; n < LOOKERS && !atomic_compare_exchange_strong(&looked_at[n], &nobody, pc); n++)
		nobody = 0;
	if (n == LOOKERS)
		atomic_fetch_add(&crowd, 1);
	while (is_exchanging(pc, n == LOOKERS))
		tagtso_sys(__NR_sched_yield);
	tagtso_patch_restore(pc);
	return n + 1;
}

void tagtso_patch_cover(unsigned exposed)
{
	if (exposed == TAGTSO_EXPOSED_NOTHING)
		return;
	if (exposed <= LOOKERS)
		atomic_store(&looked_at[exposed - 1], 0);
	else
		atomic_fetch_sub(&crowd, 1);
}

/* The emulator may have written another word meanwhile: then it stays. */
static void exchange_word(struct job *job)
{
	int done = 0;

	atomic_store(&exchanging, job->pc);
	if (is_looked_at(job->pc))
		job->refused = TAGTSO_REFUSED_BUSY;
	torture_point();
	if (!job->refused)
		done = tagtso_patch_exchange(job->word, job->old, job->new);
	atomic_store(&exchanging, 0);
	if (done > 0)
		clean((uintptr_t)job->word, sizeof(*job->word));
	else if (!job->refused)
		job->refused = done ? TAGTSO_REFUSED_WRITE : TAGTSO_REFUSED_STALE;
}

/* Once, and counted from then on. */
static void say_full(const struct job *job)
{
	TAGTSO_COUNT(islands_full);
	if (TAGTSO_STAT(islands_full) == 1)
		TAGTSO_SAY(
			1,
			"island space of the code around %lx is used up: its sites are interpreted until some is free: "
			"raise TAGTSO_ISLANDS",
			(unsigned long)atomic_load_explicit(&job->site->pc, memory_order_relaxed));
}

static void refuse(struct job *job)
{
	struct tagtso_site *site = job->site;

	TAGTSO_COUNT(rewrites_refused);
	if (job->refused == TAGTSO_REFUSED_FULL || job->refused == TAGTSO_REFUSED_BUSY) {
		if (job->refused == TAGTSO_REFUSED_FULL)
			say_full(job);
		/* Not at the next trap already: each request wakes a thread. */
		atomic_store_explicit(&site->local, 0, memory_order_relaxed);
		atomic_store_explicit(&site->shared, 0, memory_order_relaxed);
		give_up(site);
		return;
	}
	if (job->refused == TAGTSO_REFUSED_STALE) {
		/* The code is gone, and the form with it. If it comes back, it begins as emitted. */
		atomic_store_explicit(&site->changes, 0, memory_order_relaxed);
		set_form(site, TAGTSO_FORM_EMITTED, 0);
		return;
	}
	atomic_store_explicit(&site->refused, job->refused, memory_order_relaxed);
	give_up(site);
}

/* If there are too many, this one keeps its own island. */
static void join_later(struct tagtso_site *site)
{
	uint32_t n = atomic_load_explicit(&nalone, memory_order_relaxed);

	if (stretch_most < 2 || n == BOX)
		return;
	alone[n] = site;
	atomic_store_explicit(&nalone, n + 1, memory_order_relaxed);
}

static void finish(struct job *job)
{
	struct tagtso_site *site = job->site;
	uint8_t from = atomic_load_explicit(&site->form, memory_order_relaxed);
	uint8_t changes = atomic_load_explicit(&site->changes, memory_order_relaxed);

	if (job->refused || (job->old != job->new && !job->arming))
		say_job(job, from);
	if (job->refused) {
		refuse(job);
	} else if (job->arming && from != TAGTSO_FORM_EMITTED && tagtso_loop_begins_with(&site->op)) {
		set_form(site, TAGTSO_FORM_EMITTED, 0); /* a recycled loop begins anew */
	} else if (job->arming) {
		give_up(site); /* until it traps again */
	} else {
		if (job->old != job->new)
			count_rewrite(job->form);
		if (from != job->form && from != TAGTSO_FORM_EMITTED && job->form != TAGTSO_FORM_EMITTED &&
		    changes < UINT8_MAX)
			atomic_store_explicit(&site->changes, changes + 1, memory_order_relaxed);
		set_form(site, job->form, job->island);
		if (job->old != job->new && job->form != TAGTSO_FORM_EMITTED)
			join_later(site);
	}
	if (job->code)
		tagtso_code_release(job->code);
}

/* ---- stretches ---- */

/* A stretch in the making. */
static struct {
	struct tagtso_stretch s;
	uint32_t raw[TAGTSO_STRETCH_WINDOW];                 /* the words, as they stand in the code */
	struct tagtso_island *island[TAGTSO_STRETCH_WINDOW]; /* that they branch to, NULL for others */
} joint;

static bool is_stretch(const struct tagtso_island *island)
{
	return island->norig > 1;
}

static bool covers(const struct tagtso_island *island, uint64_t pc)
{
	return pc - island->pc < 4 * (uint64_t)island->norig && emitted_word(island, pc);
}

/* The word at instruction i is the B of an island: what it stands for. The stretch begins where the site of `pc` is, and
 * where the stretches do that have it already. */
static void read_site(unsigned i, struct tagtso_island *island, uint64_t pc)
{
	struct tagtso_stretch *s = &joint.s;
	uint64_t at = s->pc + 4 * (uint64_t)i;
	uint32_t word = emitted_word(island, at);
	struct tagtso_site *site = tagtso_site_get(at, word);

	joint.island[i] = island;
	s->words[i] = word;
	if (site)
		s->form[i] = atomic_load_explicit(&site->form, memory_order_relaxed);
	s->entrance[i] = at == pc || (is_stretch(island) && covers(island, pc));
}

/* Reads the code around pc. Most of its words are no branches, and what is done for them counts. */
static void read_code(struct tagtso_code *code, uint64_t pc)
{
	/* Further away nothing is taken over, but by branches over more than that. */
	const uint64_t half = 4 * (stretch_most < TAGTSO_STRETCH_WINDOW / 2 ? stretch_most : TAGTSO_STRETCH_WINDOW / 2);
	struct tagtso_stretch *s = &joint.s;
	const uint32_t *words;
	uint64_t base, end;
	unsigned n;

	tagtso_code_bounds(code, &base, &end);
	s->pc = pc - base < half ? base : pc - half;
	s->n = n = (unsigned)((end - pc < half ? end : pc + half) - s->pc) / 4;
	words = (const uint32_t *)(uintptr_t)s->pc;
	/* A word that changes meanwhile is noticed when it is compared again (is_unchanged, exchange_entrances). */
	memcpy(joint.raw, words, n * sizeof(*words));
	memcpy(s->words, joint.raw, n * sizeof(*words));
	memset(joint.island, 0, n * sizeof(joint.island[0]));
	memset(s->form, TAGTSO_FORM_EMITTED, n);
	memset(s->entrance, false, n);
	for (unsigned i = 0; i < n; i++) {
		struct tagtso_island *island = island_of_word((uintptr_t)&words[i], joint.raw[i]);

		if (island)
			read_site(i, island, pc);
	}
}

static bool plan(void)
{
	struct tagtso_stretch *s = &joint.s;

	if (!tagtso_stretch_plan(s, stretch_most, scratch_regs))
		return false;
	for (unsigned i = s->first; i < s->end; i++)
		s->entrance[i] = s->taken[i] && joint.island[i];
	return true;
}

/* What stretches leave over is for sites that need an island of their own, where nothing is ever free again. */
static bool leaves_room(struct tagtso_code *code, unsigned bytes)
{
	uint64_t base, end, from, to;

	tagtso_code_bounds(code, &base, &end);
	return tagtso_code_segment(code, 1, &from, &to) || tagtso_code_room(code) >= bytes + (end - base) / 2;
}

/* Its size is known when it has been encoded; then the place may be another one. */
static struct tagtso_island *place_stretch(struct tagtso_code *code, uint64_t pc)
{
	struct tagtso_stretch *s = &joint.s;
	struct tagtso_island *guess = tagtso_code_place(code, 0), *island;

	if (!guess || !tagtso_stretch_encode(s, scratch_regs, (uintptr_t)guess->code) ||
	    !leaves_room(code, tagtso_island_bytes(s->ncode, s->end - s->first)))
		return NULL;
	island = place_island(code, pc, s->ncode, s->end - s->first);
	if (island && island != guess && !tagtso_stretch_encode(s, scratch_regs, (uintptr_t)island->code))
		return NULL;
	return island;
}

static struct tagtso_island *write_stretch(struct tagtso_code *code)
{
	struct tagtso_stretch *s = &joint.s;
	uint64_t pc = s->pc + 4 * (uint64_t)s->first;
	struct tagtso_island *island = place_stretch(code, pc);

	if (!island)
		return NULL;
	memcpy(island->code, s->code, s->ncode * sizeof(*s->code));
	for (unsigned i = s->first; i < s->end; i++)
		tagtso_island_orig(island)[i - s->first] = s->taken[i] ? s->words[i] : 0;
	memcpy(tagtso_island_map(island), s->map, s->ncode * sizeof(*s->map));
	finish_island(code, island);
	return island;
}

static uint32_t *code_word(unsigned i)
{
	return (uint32_t *)(uintptr_t)(joint.s.pc + 4 * (uint64_t)i);
}

static bool is_unchanged(void)
{
	for (unsigned i = joint.s.first; i < joint.s.end; i++)
		if (joint.s.taken[i] && load_word(code_word(i)) != joint.raw[i])
			return false;
	return true;
}

/* Each word is exchanged only if it is still the branch that was there before the words around it were read. */
static void exchange_entrances(const struct tagtso_island *island)
{
	for (unsigned i = joint.s.first; i < joint.s.end; i++) {
		uint32_t word = joint.s.entrance[i] ? tagtso_form_branch((uintptr_t)code_word(i),
		                                                         (uintptr_t)(island->code + joint.s.enter[i]))
		                                    : 0;

		if (!word || tagtso_patch_exchange(code_word(i), joint.raw[i], word) <= 0)
			continue;
		clean((uintptr_t)code_word(i), sizeof(uint32_t));
		/* Release: pairs with tagtso_island_resume(). */
		atomic_store_explicit(&joint.island[i]->retired, 1, memory_order_release);
	}
}

/* True if the code behind a site comes to another island, or back to where it was: most sites are met on no such way,
 * and to read and plan all around them would cost more than all else here. */
static bool is_worth_a_look(struct tagtso_code *code, uint64_t pc)
{
	uint64_t base, end, first, next;

	tagtso_code_bounds(code, &base, &end);
	tagtso_code_islands(code, &first, &next);
	for (uint64_t at = pc + 4; at < end && at - pc < 4 * (uint64_t)stretch_most; at += 4) {
		int64_t distance = 0;
		enum tagtso_flow flow = tagtso_stretch_flow(load_word((uint32_t *)(uintptr_t)at), &distance);
		uint64_t target = at + (uint64_t)(4 * distance);

		if (flow == TAGTSO_FLOW_ON)
			continue;
		if (flow == TAGTSO_FLOW_JUMP && target >= first && target < next)
			return true;
		if (flow != TAGTSO_FLOW_AWAY && target <= pc && pc - target < 4 * (uint64_t)stretch_most)
			return true;
		if (flow != TAGTSO_FLOW_BRANCH)
			return false;
	}
	return false;
}

/* True if a stretch has the site already, as it was emitted. */
static bool is_in_stretch(struct tagtso_code *code, uint64_t pc)
{
	uint64_t base, end, reach = 4 * (uint64_t)stretch_most;

	tagtso_code_bounds(code, &base, &end);
	end = end - pc < reach ? end : pc + reach;
	for (uint64_t at = pc - base < reach ? base : pc - reach; at < end; at += 4) {
		uint32_t word = load_word((const uint32_t *)(uintptr_t)at);
		const struct tagtso_island *island = island_of_word(at, word);

		if (island && is_stretch(island) && covers(island, pc))
			return true;
	}
	return false;
}

static void join_site(struct tagtso_site *site)
{
	uint64_t pc = atomic_load_explicit(&site->pc, memory_order_relaxed);
	struct tagtso_code *code = tagtso_code_hold(pc);
	struct tagtso_island *own, *island;

	if (!code)
		return;
	own = island_of_word(pc, load_word((uint32_t *)(uintptr_t)pc));
	/* It may have been taken into a stretch by a neighbour. */
	if (own && !is_stretch(own) && (is_worth_a_look(code, pc) || is_in_stretch(code, pc))) {
		read_code(code, pc);
		torture_point();
		island = plan() ? write_stretch(code) : NULL;
		torture_point();
		if (island && sync_cores() && is_unchanged()) {
			exchange_entrances(island);
			sync_cores();
			TAGTSO_COUNT(stretches);
		}
	}
	tagtso_code_release(code);
}

static void join_all(void)
{
	uint32_t n = atomic_load_explicit(&nalone, memory_order_relaxed);

	for (uint32_t i = 0; i < n; i++)
		join_site(alone[i]);
	atomic_store_explicit(&nalone, 0, memory_order_release);
}

/* ---- emptying segments ----
 * The sites whose words lead into the segment get islands elsewhere, or have their own word back; then no word leads there.
 * What is left is a matter of the threads that are inside: reclaim.h. One segment of one range at a time. */

enum { WORTH = 4 }; /* one part in so many must be free afterwards, or all the work is for nothing */

static uint32_t *word_at(uint64_t pc)
{
	return (uint32_t *)(uintptr_t)pc;
}

/* True if the code's own word for instruction i leads into the island. */
static bool is_entrance(const struct tagtso_island *island, unsigned i)
{
	uint64_t pc = island->pc + 4 * (uint64_t)i;

	return tagtso_island_orig(island)[i] && island_of_word(pc, load_word(word_at(pc))) == island;
}

static bool is_entered(const struct tagtso_island *island)
{
	for (unsigned i = 0; i < island->norig; i++)
		if (is_entrance(island, i))
			return true;
	return false;
}

/* Calls fn for each island of a segment. */
static void each_island(struct tagtso_code *code, unsigned segment,
                        void (*fn)(struct tagtso_code *code, struct tagtso_island *island))
{
	uint64_t at, end;

	if (!tagtso_code_segment(code, segment, &at, &end))
		return;
	while (at < end) {
		struct tagtso_island *island = (struct tagtso_island *)(uintptr_t)at;

		at += island->bytes;
		fn(code, island);
	}
}

static uint64_t entered_bytes; /* count_entered()'s sum */

static void count_entered(struct tagtso_code *code, struct tagtso_island *island)
{
	(void)code;
	entered_bytes += is_entered(island) ? island->bytes : 0;
}

/* The one with the least that has to be moved, or NONE. */
static unsigned choose_segment(struct tagtso_code *code)
{
	unsigned best = TAGTSO_SEGMENT_NONE, any = torture_state ? torture_random(TAGTSO_SEGMENTS) : 0;
	uint64_t least = UINT64_MAX, from, to;

	if (torture_state && any != tagtso_code_current(code) && tagtso_code_segment(code, any, &from, &to) &&
	    from != to)
		return any;
	for (unsigned i = 0; tagtso_code_segment(code, i, &from, &to); i++) {
		entered_bytes = 0;
		if (i == tagtso_code_current(code) || from == to)
			continue;
		each_island(code, i, count_entered);
		if (entered_bytes < least && entered_bytes <= (to - from) - (to - from) / WORTH) {
			least = entered_bytes;
			best = i;
		}
	}
	return best;
}

static struct {
	struct job jobs[BATCH];
	unsigned n;
} moving;

static void finish_move(struct job *job)
{
	struct tagtso_site *site = job->site;

	if (!job->refused && job->island) {
		atomic_store_explicit(&site->island, job->island, memory_order_relaxed);
		join_later(site);
	}
	if (job->code)
		tagtso_code_release(job->code);
}

static void move_sites(void)
{
	bool synced;

	for (unsigned i = 0; i < moving.n; i++)
		moving.jobs[i].refused = prepare(&moving.jobs[i]);
	torture_point();
	synced = sync_cores();
	for (unsigned i = 0; i < moving.n; i++) {
		if (synced && !moving.jobs[i].refused)
			exchange_word(&moving.jobs[i]);
		finish_move(&moving.jobs[i]);
	}
	moving.n = 0;
}

static void move_site(uint64_t pc, uint32_t word)
{
	struct tagtso_site *site = tagtso_site_get(pc, word);
	uint8_t form = site ? atomic_load_explicit(&site->form, memory_order_relaxed) : TAGTSO_FORM_EMITTED;

	if (form == TAGTSO_FORM_EMITTED)
		return;
	moving.jobs[moving.n++] = (struct job){ .site = site, .form = form, .move = true };
	if (moving.n == BATCH)
		move_sites();
}

static void move_island(struct tagtso_code *code, struct tagtso_island *island)
{
	(void)code;
	/* Release: pairs with tagtso_island_resume(). */
	atomic_store_explicit(&island->retired, 1, memory_order_release);
	for (unsigned i = 0; i < island->norig; i++)
		if (is_entrance(island, i))
			move_site(island->pc + 4 * (uint64_t)i, tagtso_island_orig(island)[i]);
}

/* The word as emitted, where the branch to the island still is. */
static void give_word_back(const struct tagtso_island *island, unsigned i)
{
	uint64_t pc = island->pc + 4 * (uint64_t)i;
	uint32_t word = tagtso_island_orig(island)[i], now = load_word(word_at(pc));
	struct tagtso_site *site = tagtso_site_get(pc, word);

	if (island_of_word(pc, now) != island || tagtso_patch_exchange(word_at(pc), now, word) <= 0)
		return;
	if (site)
		set_form(site, TAGTSO_FORM_EMITTED, 0);
}

/* Also forgets what leads here by other ways than words. */
static void leave_island(struct tagtso_code *code, struct tagtso_island *island)
{
	(void)code;
	for (unsigned i = 0; i < island->norig; i++) {
		uint32_t word = tagtso_island_orig(island)[i];
		uint64_t pc = island->pc + 4 * (uint64_t)i;
		struct tagtso_site *site;

		if (!word)
			continue;
		give_word_back(island, i);
		/* Whoever wrote the word that is there now: no core runs an older one after the next sync_cores(). */
		clean(pc, sizeof(uint32_t));
		site = tagtso_site_get(pc, word);
		if (site && tagtso_code_island(atomic_load_explicit(&site->island, memory_order_relaxed)) == island)
			atomic_store_explicit(&site->island, 0, memory_order_relaxed);
	}
}

/* True if it has begun, or can begin nowhere now. */
static bool empty_one(struct tagtso_code *code)
{
	uint64_t base, end, from, to;
	unsigned segment;

	if (!(tagtso_code_is_short(code) || torture_state) || (segment = choose_segment(code)) == TAGTSO_SEGMENT_NONE)
		return false;
	tagtso_code_begin_emptying(code, segment);
	each_island(code, segment, move_island);
	move_sites();
	torture_point();
	each_island(code, segment, leave_island);
	/* Code that may not be written keeps its words. */
	entered_bytes = 0;
	each_island(code, segment, count_entered);
	tagtso_code_segment(code, segment, &from, &to);
	tagtso_code_bounds(code, &base, &end);
	if (entered_bytes || !sync_cores() || !tagtso_reclaim_begin(from, to)) {
		tagtso_code_cancel_emptying(code);
		return true;
	}
	quiet_pc = base;
	return true;
}

/* The memory goes back too: what runs there from now on is no instruction. */
static void free_segment(void)
{
	struct tagtso_code *code = tagtso_code_hold(quiet_pc);
	uint64_t from, to;

	quiet_pc = 0;
	/* The emulator may have unmapped it, and mapped other code there. */
	if (!code)
		return;
	if (tagtso_code_segment(code, tagtso_code_emptied(code), &from, &to)) {
		tagtso_sys(__NR_madvise, from, (to - from + 4095) & ~UINT64_C(4095), MADV_DONTNEED);
		tagtso_code_end_emptying(code);
		TAGTSO_COUNT(reclaims);
		TAGTSO_ADD(reclaimed_bytes, to - from);
	}
	tagtso_code_release(code);
}

static uint64_t now_ms(void)
{
	struct timespec t = { 0 };

	tagtso_sys(__NR_clock_gettime, CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Now and then, also while requests come without a pause. */
static void reclaim(void)
{
	if ((!quiet_pc && !wants_room) || now_ms() < next_look)
		return;
	if (quiet_pc && tagtso_reclaim_over()) {
		free_segment();
		pause_between = PAUSE_MS;
	}
	if (!quiet_pc && tagtso_reclaim_possible()) {
		wants_room = false;
		tagtso_code_each(empty_one);
		if (!quiet_pc && pause_between < LONG_PAUSE_MS)
			pause_between *= 2;
	}
	next_look = now_ms() + (quiet_pc ? PAUSE_MS : pause_between);
}

/* ---- batches ---- */

static bool is_in(const struct job *jobs, unsigned n, const struct tagtso_site *site)
{
	for (unsigned i = 0; i < n; i++)
		if (jobs[i].site == site)
			return true;
	return false;
}

/* Takes a request out of the box, if there is room for it in the batch. A request that is made again while its site is
 * in the batch waits for the next. */
static bool take_job(struct job *jobs, unsigned *n, unsigned at)
{
	struct tagtso_site *site = atomic_load_explicit(&box[at], memory_order_acquire);

	if (!site)
		return true;
	if (*n == BATCH || is_in(jobs, *n, site))
		return false;
	atomic_store_explicit(&box[at], NULL, memory_order_release);
	jobs[(*n)++] = (struct job){ .site = site };
	return true;
}

/* Up to BATCH requests. */
static unsigned gather(struct job *jobs)
{
	unsigned n = 0;

	for (unsigned i = 0; i < BOX / 64; i++) {
		uint64_t bits = atomic_exchange_explicit(&taken[i], 0, memory_order_acq_rel), left = 0;

		for (; bits; bits &= bits - 1) {
			unsigned at = i * 64 + (unsigned)__builtin_ctzll(bits);

			if (!take_job(jobs, &n, at))
				left |= UINT64_C(1) << at % 64;
		}
		if (left)
			atomic_fetch_or_explicit(&taken[i], left, memory_order_relaxed);
	}
	return n;
}

static void serve(struct job *jobs, unsigned n)
{
	bool prepared = false, synced, exchanged = false;

	for (unsigned i = 0; i < n; i++) {
		/* Read after the box was emptied: a later request for the same site is put in again. */
		jobs[i].form = atomic_load_explicit(&jobs[i].site->wanted, memory_order_acquire) % TAGTSO_NFORMS;
		jobs[i].refused = prepare(&jobs[i]);
		prepared |= !jobs[i].refused && jobs[i].old != jobs[i].new;
	}
	torture_point();
	synced = !prepared || sync_cores();
	torture_point();
	for (unsigned i = 0; i < n; i++) {
		if (!synced && !jobs[i].refused)
			jobs[i].refused = TAGTSO_REFUSED_STALE;
		if (jobs[i].refused || jobs[i].old == jobs[i].new)
			continue;
		exchange_word(&jobs[i]);
		exchanged = true;
	}
	torture_point();
	if (exchanged)
		sync_cores();
	for (unsigned i = 0; i < n; i++)
		finish(&jobs[i]);
	atomic_fetch_sub_explicit(&pending, n, memory_order_release);
}

static uint8_t torture_form(void)
{
	if (!tagtso_patch_relaxes)
		return (uint8_t)torture_random(TAGTSO_FORM_MIXED + 1);
	return torture_random(2) ? TAGTSO_FORM_RELAXED : TAGTSO_FORM_EMITTED;
}

/* Some site gets some form, or its own word back; each is right at any time. */
static void torture_site(struct job *job)
{
	struct tagtso_site *site = tagtso_site_number(1 + torture_random(tagtso_site_count() + 1));
	uint8_t form = site ? atomic_load_explicit(&site->form, memory_order_relaxed) : 0;

	/* In the way in which handlers ask, so that both cannot be under way. */
	if (!site || atomic_load_explicit(&site->refused, memory_order_relaxed) ||
	    !tagtso_patch_is_code(atomic_load_explicit(&site->pc, memory_order_relaxed)) ||
	    !atomic_compare_exchange_strong_explicit(&site->wanted, &form, torture_form(), memory_order_relaxed,
	                                             memory_order_relaxed))
		return;
	*job = (struct job){ .site = site };
	atomic_fetch_add_explicit(&pending, 1, memory_order_relaxed);
	serve(job, 1);
}

static void torture(void)
{
	struct job job;

	for (unsigned n = torture_random(TORTURE_SITES); n; n--)
		torture_site(&job);
	if (!torture_random(2))
		join_all();
	if (!torture_random(4))
		wants_room = true;
	next_look = 0;
}

static void become_worker(void)
{
	/* No owner's tag: IRG gives 0 here. Fails where there is no MTE, where it does not matter. */
	tagtso_sys(__NR_prctl, PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC, 0, 0, 0);
	tagtso_sys(__NR_prctl, PR_SET_NAME, "tagtso-patch", 0, 0, 0);
}

/* True if there is something to do when requests pause. */
static bool needs_pause(void)
{
	return nalone || quiet_pc || wants_room || torture_state;
}

/* Sleeps until the bell rings, or until there is something to do that nobody asks for: what is done when requests pause, and idle_work. */
static void wait_for_bell(void)
{
	const uint64_t pause = UINT64_C(1000000) * (torture_state ? TORTURE_PAUSE_MS : PAUSE_MS), second = 1000000000;
	uint64_t idle = idle_work ? idle_work() : UINT64_MAX, ns = needs_pause() && pause < idle ? pause : idle;
	const struct timespec t = { .tv_sec = (time_t)(ns / second), .tv_nsec = (long)(ns % second) };

	/* Acquire: pairs with ring(). The bell is cleared first and the box looked at afterwards, so nothing is
	 * overlooked. */
	if (atomic_exchange_explicit(&bell, 0, memory_order_acq_rel))
		return;
	if (tagtso_sys(__NR_futex, &bell, FUTEX_WAIT_PRIVATE, 0, ns == UINT64_MAX ? NULL : &t) == -ETIMEDOUT)
		join_all();
}

static void *work(void *arg)
{
	struct job jobs[BATCH];
	unsigned n;

	(void)arg;
	become_worker();
	while (atomic_load_explicit(&state, memory_order_acquire) != STOPPING) {
		wait_for_bell();
		while ((n = gather(jobs)))
			serve(jobs, n);
		if (torture_state)
			torture();
		reclaim();
	}
	return NULL;
}

/* ---- life ---- */

/* The shim interposes pthread_create, for guest threads: this thread is none. */
static int create_thread(void)
{
	int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = tagtso_next("pthread_create");
	/* A thread begins with its creator's mask. libc's own two signals stay open: setuid() in another thread waits
	 * for them. */
	tagtso_sigmask old = tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC & ~(TAGTSO_SIGBIT(32) | TAGTSO_SIGBIT(33)));
	pthread_attr_t attr;
	int error = EAGAIN;

	if (create && !pthread_attr_init(&attr)) {
		pthread_attr_setstacksize(&attr, STACK);
		error = create(&thread, &attr, work, NULL);
		pthread_attr_destroy(&attr);
	}
	tagtso_sys_sigmask(old);
	return -error;
}

void tagtso_patch_set_idle(uint64_t (*fn)(void))
{
	idle_work = fn;
}

int tagtso_patch_start(struct tagtso_scratch scratch, unsigned stretch)
{
	uint32_t expected = STOPPED;
	long error;

	if (!atomic_compare_exchange_strong(&state, &expected, STARTING))
		return 0;
	scratch_regs = scratch;
	stretch_most = stretch;
	pause_between = PAUSE_MS;
	torture_state = tagtso_knobs.torture * UINT64_C(0x9e3779b97f4a7c15);
	tagtso_reclaim_init();
	error = tagtso_sys(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	if (!error)
		error = tagtso_opinion_open(&opinion);
	if (!error && (error = create_thread()))
		tagtso_opinion_close(&opinion);
	atomic_store_explicit(&state, error ? STOPPED : RUNNING, memory_order_release);
	return (int)error;
}

static void forget(struct tagtso_site *site, void *arg)
{
	(void)arg;
	if (atomic_load(&site->wanted) != atomic_load(&site->form))
		give_up(site);
}

/* Nobody serves the requests that are left. */
static void empty_box(void)
{
	for (unsigned i = 0; i < BOX; i++)
		atomic_store(&box[i], NULL);
	for (unsigned i = 0; i < BOX / 64; i++)
		atomic_store(&taken[i], 0);
	atomic_store(&nalone, 0);
	atomic_store(&pending, 0);
	atomic_store(&bell, 0);
	tagtso_site_each(forget, NULL);
}

/* Nobody looks at threads any more: the segment stays full, until it is chosen again. */
static void forget_reclaim(void)
{
	struct tagtso_code *code = quiet_pc ? tagtso_code_hold(quiet_pc) : NULL;

	tagtso_reclaim_cancel();
	quiet_pc = 0;
	moving.n = 0;
	if (!code)
		return;
	tagtso_code_cancel_emptying(code);
	tagtso_code_release(code);
}

void tagtso_patch_stop(void)
{
	int (*join)(pthread_t, void **) = tagtso_next("pthread_join");
	uint32_t expected = RUNNING;

	if (!join || !atomic_compare_exchange_strong(&state, &expected, STOPPING))
		return;
	TAGTSO_RANK_ALONE();
	ring();
	join(thread, NULL);
	tagtso_opinion_close(&opinion);
	empty_box();
	forget_reclaim();
	atomic_store(&exchanging, 0);
	atomic_store_explicit(&state, STOPPED, memory_order_release);
}

void tagtso_patch_after_fork(void)
{
	/* The opinion's memory is left alone: its owner may have been in the middle of using it. */
	tagtso_code_after_fork();
	empty_box();
	forget_reclaim();
	atomic_store(&exchanging, 0);
	atomic_store_explicit(&state, STOPPED, memory_order_release);
}

void tagtso_patch_drain(void)
{
	TAGTSO_RANK_ALONE();
	while ((atomic_load_explicit(&pending, memory_order_acquire) ||
	        atomic_load_explicit(&nalone, memory_order_acquire)) &&
	       atomic_load(&state) == RUNNING)
		tagtso_sys(__NR_sched_yield);
}
