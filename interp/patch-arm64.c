/* SPDX-License-Identifier: MIT */
/* The patcher: one thread that gives sites the forms that handlers ask for, in batches (I5).
 *
 * tagtso_patch_request() is handler code (I6); everything else runs in the patcher's thread or in hooks.
 *
 * A batch: the islands of all its sites are written and their caches cleaned; membarrier(SYNC_CORE), after which no
 * core can hold stale instructions of these islands; the words at the sites are exchanged by compare-and-swap; caches
 * again; membarrier(SYNC_CORE), after which every thread runs the new words. Until then a thread may run either word
 * of a site: both are right at every moment. */
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
#include "opinion.h"
#include "shim/next.h"
#include "shim/say.h"
#include "shim/stats.h"

enum { BOX = 512, TRIES = 16, BATCH = 64, STACK = 256 * 1024 };

enum state { STOPPED, STARTING, RUNNING, STOPPING };

/* Requests: an unordered box, so that one compare-and-swap puts a request in and nobody waits for an interrupted
 * sender. */
static _Atomic(struct tagtso_site *) box[BOX]; /* handlers: NULL to site; the patcher: back to NULL */
static _Atomic uint32_t bell;    /* futex: 1 = look into the box; handlers set it, the patcher clears it */
static _Atomic uint32_t pending; /* requests put into the box and not yet served */
static _Atomic uint32_t state;   /* enum state; start and stop, which the shim does not call at the same time */

static pthread_t thread;                   /* start and stop */
static struct tagtso_scratch scratch_regs; /* written by start, before the thread exists */
static struct tagtso_opinion opinion;      /* the patcher's; opened by start */

/* One request on its way through a batch. */
struct job {
	struct tagtso_site *site;
	struct tagtso_code *code; /* held, or NULL */
	uint32_t *word;           /* at the site's pc */
	uint32_t old, new;        /* what stood there; what shall */
	uint64_t island;          /* 0 for EMITTED */
	uint8_t form;
	uint8_t refused; /* enum tagtso_refusal */
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

		if (atomic_compare_exchange_strong_explicit(&box[(first + i) % BOX], &empty, site, memory_order_acq_rel,
		                                            memory_order_relaxed))
			return true;
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

/* ---- one site ---- */

static uint32_t load_word(uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* The island that a word at pc branches to, if it is one of this site. */
static uint64_t island_of(const struct tagtso_site *site, uint64_t pc, uint32_t word)
{
	int64_t offset = (int64_t)((uint64_t)word << 38) >> 36;
	uint64_t target = pc + (uint64_t)offset;

	if (word >> 26 != 5 || tagtso_patch_island_site(target) != site)
		return 0;
	return target;
}

/* Both decoders, again, now: what is to be written stands for this instruction and no other. */
static bool decoders_agree(const struct tagtso_site *site, uint64_t pc)
{
	struct tagtso_memop op;

	return tagtso_decode(site->op.word, &op) && !memcmp(&op, &site->op, sizeof(op)) &&
	       tagtso_opinion_agrees(&opinion, &site->op, pc);
}

static enum tagtso_refusal write_island(struct job *job, uint64_t pc)
{
	struct tagtso_island *slot = tagtso_code_slot(job->code);
	uint32_t words[TAGTSO_ISLAND_WORDS];
	unsigned n;

	if (!slot || !tagtso_form_branch(pc, (uintptr_t)slot->code))
		return TAGTSO_REFUSED_REACH;
	n = tagtso_form_encode(&job->site->op, job->form, scratch_regs, pc, (uintptr_t)slot->code, words);
	if (!n)
		return TAGTSO_REFUSED_FORM;
	memcpy(slot->code, words, n * sizeof(*words));
	slot->site = job->site;
	slot->magic = TAGTSO_ISLAND_MAGIC;
	clean((uintptr_t)slot, sizeof(*slot));
	tagtso_code_take(job->code);
	job->island = (uintptr_t)slot->code;
	return TAGTSO_REFUSED_NOT;
}

/* The island that the site has already, if it is still there and of the form asked for: code that was recycled came
 * back as it was. */
static bool find_island(struct job *job)
{
	uint64_t island = atomic_load_explicit(&job->site->island, memory_order_relaxed);

	if (job->form != atomic_load_explicit(&job->site->form, memory_order_relaxed) ||
	    tagtso_patch_island_site(island) != job->site)
		return false;
	job->island = island;
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
	job->word = (uint32_t *)(uintptr_t)pc;
	job->old = load_word(job->word);
	job->new = site->op.word;
	if (job->old != site->op.word && !island_of(site, pc, job->old))
		return TAGTSO_REFUSED_STALE;
	if (job->form == TAGTSO_FORM_EMITTED)
		return TAGTSO_REFUSED_NOT;
	if (!decoders_agree(site, pc))
		return TAGTSO_REFUSED_CAPSTONE;
	if (!find_island(job) && (refused = write_island(job, pc)))
		return refused;
	job->new = tagtso_form_branch(pc, job->island);
	return job->new ? TAGTSO_REFUSED_NOT : TAGTSO_REFUSED_REACH;
}

/* The emulator may have written another word meanwhile: then it stays. */
static void exchange_word(struct job *job)
{
	uint32_t expected = job->old;

	if (__atomic_compare_exchange_n(job->word, &expected, job->new, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		clean((uintptr_t)job->word, sizeof(*job->word));
	else
		job->refused = TAGTSO_REFUSED_STALE;
}

/* ---- outcome ---- */

static void say_job(const struct job *job, uint8_t from)
{
	static const char *const forms[TAGTSO_NFORMS] = { "emitted", "local", "shared", "mixed" };
	static const char *const reasons[] = { "", ": no such form", ": decoders disagree",
		                               ": no island space in reach", ": code has changed" };
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
	else
		TAGTSO_COUNT(forms_mixed);
}

static void set_form(struct tagtso_site *site, uint8_t form, uint64_t island)
{
	atomic_store_explicit(&site->island, island, memory_order_relaxed);
	atomic_store_explicit(&site->local, 0, memory_order_relaxed);
	atomic_store_explicit(&site->shared, 0, memory_order_relaxed);
	/* Release: a handler that sees the form sees the score begun anew. */
	atomic_store_explicit(&site->form, form, memory_order_release);
	atomic_store_explicit(&site->wanted, form, memory_order_release);
}

static void refuse(struct job *job)
{
	struct tagtso_site *site = job->site;

	TAGTSO_COUNT(rewrites_refused);
	if (job->refused == TAGTSO_REFUSED_STALE) {
		/* The code is gone, and the form with it. If it comes back, it begins as emitted. */
		set_form(site, TAGTSO_FORM_EMITTED, 0);
		return;
	}
	atomic_store_explicit(&site->refused, job->refused, memory_order_relaxed);
	give_up(site);
}

static void finish(struct job *job)
{
	struct tagtso_site *site = job->site;
	uint8_t from = atomic_load_explicit(&site->form, memory_order_relaxed);
	uint8_t changes = atomic_load_explicit(&site->changes, memory_order_relaxed);

	if (job->refused || job->old != job->new)
		say_job(job, from);
	if (job->refused) {
		refuse(job);
	} else {
		if (job->old != job->new)
			count_rewrite(job->form);
		if (from != job->form && changes < UINT8_MAX)
			atomic_store_explicit(&site->changes, changes + 1, memory_order_relaxed);
		set_form(site, job->form, job->island);
	}
	if (job->code)
		tagtso_code_release(job->code);
}

/* ---- batches ---- */

static bool is_in(const struct job *jobs, unsigned n, const struct tagtso_site *site)
{
	for (unsigned i = 0; i < n; i++)
		if (jobs[i].site == site)
			return true;
	return false;
}

/* Takes up to BATCH requests out of the box. A request that is made again while its site is in a batch waits for the
 * next. */
static unsigned gather(struct job *jobs)
{
	unsigned n = 0;

	for (unsigned i = 0; i < BOX && n < BATCH; i++) {
		struct tagtso_site *site = atomic_load_explicit(&box[i], memory_order_acquire);

		if (!site || is_in(jobs, n, site))
			continue;
		atomic_store_explicit(&box[i], NULL, memory_order_release);
		jobs[n++] = (struct job){ .site = site };
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
	synced = !prepared || sync_cores();
	for (unsigned i = 0; i < n; i++) {
		if (!synced && !jobs[i].refused)
			jobs[i].refused = TAGTSO_REFUSED_STALE;
		if (jobs[i].refused || jobs[i].old == jobs[i].new)
			continue;
		exchange_word(&jobs[i]);
		exchanged = true;
	}
	if (exchanged)
		sync_cores();
	for (unsigned i = 0; i < n; i++)
		finish(&jobs[i]);
	atomic_fetch_sub_explicit(&pending, n, memory_order_release);
}

static void become_worker(void)
{
	/* No owner's tag: IRG gives 0 here. Fails where there is no MTE, where it does not matter. */
	tagtso_sys(__NR_prctl, PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC, 0, 0, 0);
	tagtso_sys(__NR_prctl, PR_SET_NAME, "tagtso-patch", 0, 0, 0);
}

static void *work(void *arg)
{
	struct job jobs[BATCH];
	unsigned n;

	(void)arg;
	become_worker();
	while (atomic_load_explicit(&state, memory_order_acquire) != STOPPING) {
		/* Acquire: pairs with ring(). The bell is cleared first and the box looked at afterwards, so nothing
		 * is overlooked. */
		if (!atomic_exchange_explicit(&bell, 0, memory_order_acq_rel))
			tagtso_sys(__NR_futex, &bell, FUTEX_WAIT_PRIVATE, 0, 0);
		while ((n = gather(jobs)))
			serve(jobs, n);
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

int tagtso_patch_start(struct tagtso_scratch scratch)
{
	uint32_t expected = STOPPED;
	long error;

	if (!atomic_compare_exchange_strong(&state, &expected, STARTING))
		return 0;
	scratch_regs = scratch;
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
	atomic_store(&pending, 0);
	atomic_store(&bell, 0);
	tagtso_site_each(forget, NULL);
}

void tagtso_patch_stop(void)
{
	int (*join)(pthread_t, void **) = tagtso_next("pthread_join");
	uint32_t expected = RUNNING;

	if (!join || !atomic_compare_exchange_strong(&state, &expected, STOPPING))
		return;
	ring();
	join(thread, NULL);
	tagtso_opinion_close(&opinion);
	empty_box();
	atomic_store_explicit(&state, STOPPED, memory_order_release);
}

void tagtso_patch_after_fork(void)
{
	/* The opinion's memory is left alone: its owner may have been in the middle of using it. */
	tagtso_code_after_fork();
	empty_box();
	atomic_store_explicit(&state, STOPPED, memory_order_release);
}

void tagtso_patch_drain(void)
{
	while (atomic_load_explicit(&pending, memory_order_acquire) && atomic_load(&state) == RUNNING)
		tagtso_sys(__NR_sched_yield);
}
