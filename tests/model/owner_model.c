/* SPDX-License-Identifier: MIT */
/* All interleavings of the owner table's state machine: three threads, two granules of one page, the steps of alloc/owner-arm64.c one by one.
 *
 * usage: owner_model [--plant MISTAKE] [-v]        without --plant: the tree's own protocol, and that each mistake is found
 *
 * Memory is sequentially consistent here; what its order adds is tests/litmus. A step is what is one event for the others: a tag read, a tag
 * written, a lock taken, the membarrier's arrival in one thread. In every state reached:
 *
 *   rights    no two threads hold plain rights to a granule without a barrier between: a thread that accesses plainly has passed the
 *             barrier of the transition that gave it the granule, and the last plain owner has passed it after its last plain access
 *   tags      a granule that nobody is changing has a settled tag: undecided, an owner's, shared
 *   leases    no two living threads have one id
 *   progress  every state can reach the end of all threads (no deadlock, no lost wake-up)
 *
 * Each thread runs a script of accesses, each of which claims, is handed over, revokes or waits, as it finds the tag; a thread may end, and another
 * take its id. A script's accesses are by the tag check of the hardware, then the access: the barrier can come between two instructions, not between
 * a check and its access. An access out of line is made after the page was shared for good, and is not checked. The prober makes what is shared
 * undecided again, as often as a setting says, at any time. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 3, GRANULES = 2, IDS = 3, STEPS = 3 };
enum { NONE = 0, BUSY = 14, SHARED = 15 };
enum { OUT = 16 };
/* Whether taking an id changes its word even if the thread id in it stays the same, by a number beside it. Without it (0), a setting below shows
 * what comes of a thread id that comes back. */
enum { TAKES_CHANGE = 1 };

/* Mistakes that can be planted. */
enum mistake {
	RIGHT,
	NO_BUSY,          /* the new tag at once, then the barrier */
	NO_BARRIER,       /* no membarrier */
	BARRIER_FIRST,    /* membarrier, then busy and the new tag */
	ACCESS_UNCHECKED, /* looks at the tag, then accesses without the hardware's check */
	NO_LOCK,          /* transitions without the page's lock */
	KEEP_LOCK,        /* hand_over() forgets to unlock */
	LIVE_LEASE,       /* takes the id of a thread that has not ended */
	LEASE_BY_STORE,   /* takes a free id by a store, not by compare-and-swap */
	OPEN_EARLY,       /* first touch: reachable before the tags are written */
	PROBE_UNLOCKED,   /* the prober does not take the page's lock */
	PROBE_KEPT,       /* the prober probes what is shared for good */
	SHARE_UNKEPT,     /* what is accessed out of line is shared, but not for good */
	MISTAKES
};
static const char *const mistakes[] = {
	"right",      "no-busy",        "no-barrier", "barrier-first",  "access-unchecked", "no-lock",     "keep-lock",
	"live-lease", "lease-by-store", "open-early", "probe-unlocked", "probe-kept",       "share-unkept"
};
_Static_assert(sizeof(mistakes) / sizeof(*mistakes) == MISTAKES, "one name each");

/* Where a thread is: the next thing that it does. */
enum at {
	UNBORN,     /* not started yet */
	LEASE_LOOK, /* take_id: looks for a free id, or one whose holder has ended */
	LEASE_TAKE, /* compare-and-swap */
	FETCH,      /* next access of the script */
	TOUCH,      /* the page is not reachable: tagtso_window_open */
	OPEN_LOCK,
	OPEN_TAG, /* one granule a step */
	OPEN_REACH,
	CHECK,  /* the hardware's check and the access, one instruction; or a trap */
	SETTLE, /* tagtso_owner_settle reads the tag */
	RESOLVE_LOCK,
	RESOLVE_READ, /* and decides: claim, hand_over, revoke */
	CLAIM_TAG,
	CLAIM_BARRIER,
	CHANGE_BUSY, /* hand_over, revoke_granule, revoke_page */
	CHANGE_BARRIER,
	CHANGE_NEW,
	UNLOCK,
	ACCESS,      /* after settle, with the tag that it answered; checked again */
	OUT_OF_LINE, /* the access, unchecked */
	ENDED,
};

struct thread {
	uint8_t at, id, step; /* owner id, 0 = none; accesses done */
	uint8_t pick;         /* id that is being taken; granule at hand in a loop */
	uint8_t old;          /* holder seen there */
	uint8_t tag;          /* settle's answer, or the new tag of a transition */
	uint8_t from;         /* tags that change, by granule bits */
	uint8_t waits;        /* threads that the running membarrier has yet to reach */
	uint8_t wrote;        /* granules accessed plainly since this thread's last barrier */
};

struct state {
	struct thread t[THREADS];
	uint8_t tag[GRANULES];
	uint8_t lock;    /* holder + 1 */
	uint8_t reached; /* the window mapping of the page is reachable */
	uint8_t shared;  /* every granule is shared */
	uint8_t kept;    /* for good */
	uint8_t probes;  /* that the prober has yet to make */
	uint8_t prober;  /* 0: waits; else next granule + 1 */
	uint8_t handovers, conflicts;
	uint8_t holder[IDS]; /* kernel thread id: tid() */
	uint8_t times[IDS];  /* of each id: how often it was taken, where TAKES_CHANGE */
};

/* What is explored: scripts, limits, first state of the page. */
struct setting {
	const char *name;
	uint8_t script[THREADS][STEPS]; /* granule + 1, 0 = end; + OUT: out of line */
	uint8_t handovers, conflicts, ids, first_tag, probes;
	bool fresh, wake; /* not reachable yet; thread 0 owns all, the others come later */
	bool reuse;       /* thread 2 starts when thread 0 has ended, and has its kernel thread id */
};

static const struct setting settings[] = {
	{ .name = "claim, hand-over, revoke",
	  .script = { { 1, 2 }, { 2, 1 }, { 1 } },
	  .handovers = 1,
	  .conflicts = 4,
	  .ids = 3,
	  .first_tag = BUSY },
	{ .name = "revoke by page",
	  .script = { { 1, 2 }, { 2, 1 }, { 2 } },
	  .handovers = 0,
	  .conflicts = 2,
	  .ids = 3,
	  .first_tag = BUSY },
	{ .name = "first touch",
	  .script = { { 1, 2 }, { 1 }, { 2 } },
	  .handovers = 1,
	  .conflicts = 2,
	  .ids = 3,
	  .first_tag = NONE,
	  .fresh = true },
	{ .name = "two ids for three threads: lease reuse, or none",
	  .script = { { 1, 2 }, { 2, 1 }, { 1 } },
	  .handovers = 1,
	  .conflicts = 4,
	  .ids = 2,
	  .first_tag = BUSY },
	{ .name = "wake-up",
	  .script = { { 1, 2 }, { 1, 2 }, { 2 } },
	  .handovers = 2,
	  .conflicts = 4,
	  .ids = 3,
	  .first_tag = BUSY,
	  .wake = true },
	{ .name = "one id for three threads",
	  .script = { { 1, 1 }, { 1, 2 }, { 2 } },
	  .handovers = 2,
	  .conflicts = 4,
	  .ids = 1,
	  .first_tag = BUSY },
	{ .name = "a kernel thread id that comes back",
	  .script = { { 1 }, { 1, 2 }, { 1, 2 } },
	  .handovers = 1,
	  .conflicts = 4,
	  .ids = 1,
	  .first_tag = BUSY,
	  .reuse = true },
	{ .name = "probes",
	  .script = { { 1, 2 }, { 2, 1 }, { 1 } },
	  .handovers = 0,
	  .conflicts = 1,
	  .ids = 3,
	  .first_tag = SHARED,
	  .probes = 2 },
	{ .name = "probes of owned and shared granules",
	  .script = { { 1, 1 }, { 1, 2 }, { 2 } },
	  .handovers = 1,
	  .conflicts = 4,
	  .ids = 2,
	  .first_tag = BUSY,
	  .probes = 1 },
	{ .name = "probes and accesses out of line",
	  .script = { { 1, 1 }, { 1 + OUT, 1 }, { 1 } },
	  .handovers = 0,
	  .conflicts = 1,
	  .ids = 3,
	  .first_tag = BUSY,
	  .probes = 2 },
	{ .name = "first touch with one id",
	  .script = { { 1, 2 }, { 1 }, { 2 } },
	  .handovers = 1,
	  .conflicts = 4,
	  .ids = 1,
	  .first_tag = NONE,
	  .fresh = true },
};

static const struct setting *setting;
static enum mistake plant;
static const char *wrong; /* what was violated, NULL = nothing */
static bool verbose;

/* --- the set of states, and the edges back for progress -------------------------------------------------------------- */

static struct state *states;
static uint32_t *slots, nstates, max_states, nslots;
static uint32_t *edges, nedges, max_edges; /* pairs: from, to */

static uint64_t hash(const struct state *s)
{
	const uint8_t *p = (const uint8_t *)s;
	uint64_t h = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < sizeof(*s); i++)
		h = (h ^ p[i]) * UINT64_C(1099511628211);
	return h ^ h >> 29;
}

static void *grow(void *p, size_t bytes)
{
	p = realloc(p, bytes);
	if (!p) {
		fputs("owner_model: out of memory\n", stderr);
		exit(125);
	}
	return p;
}

static void rehash(void)
{
	nslots = nslots ? 2 * nslots : 1 << 16;
	slots = grow(slots, nslots * sizeof(*slots));
	memset(slots, 0xff, nslots * sizeof(*slots));
	for (uint32_t i = 0; i < nstates; i++) {
		uint32_t at = (uint32_t)hash(&states[i]) & (nslots - 1);

		while (slots[at] != UINT32_MAX)
			at = (at + 1) & (nslots - 1);
		slots[at] = i;
	}
}

static uint32_t intern(const struct state *s)
{
	if (2 * (nstates + 1) > nslots)
		rehash();
	uint32_t at = (uint32_t)hash(s) & (nslots - 1);

	for (; slots[at] != UINT32_MAX; at = (at + 1) & (nslots - 1)) {
		if (!memcmp(&states[slots[at]], s, sizeof(*s)))
			return slots[at];
	}
	if (nstates == max_states) {
		max_states = max_states ? 2 * max_states : 1 << 14;
		states = grow(states, max_states * sizeof(*states));
	}
	states[nstates] = *s;
	slots[at] = nstates;
	return nstates++;
}

static uint32_t current; /* the state whose successors are made */

static void successor(const struct state *s)
{
	uint32_t to = intern(s);

	if (nedges == max_edges) {
		max_edges = max_edges ? 2 * max_edges : 1 << 16;
		edges = grow(edges, 2 * (size_t)max_edges * sizeof(*edges));
	}
	edges[2 * (size_t)nedges] = current;
	edges[2 * (size_t)nedges++ + 1] = to;
}

static void violated(const char *what)
{
	if (!wrong)
		wrong = what;
}

/* --- accesses --------------------------------------------------------------------------------------------------------- */

static unsigned granule(const struct state *s, unsigned t)
{
	return (setting->script[t][s->t[t].step] & (OUT - 1)) - 1u;
}

static bool is_out_of_line(const struct state *s, unsigned t)
{
	return setting->script[t][s->t[t].step] & OUT;
}

static bool has_more(const struct thread *me, unsigned t)
{
	return me->step < STEPS && setting->script[t][me->step];
}

/* A plain access: nobody else may have one that no barrier of its own has followed. */
static void access_plainly(struct state *s, unsigned t, unsigned g)
{
	for (unsigned u = 0; u < THREADS; u++) {
		if (u != t && s->t[u].wrote >> g & 1)
			violated("rights: two threads access a granule plainly, and no barrier is between");
	}
	s->t[t].wrote |= (uint8_t)(1 << g);
}

/* An ordered access while an owner's plain ones are not over. */
static void access_ordered(const struct state *s, unsigned t, unsigned g)
{
	for (unsigned u = 0; u < THREADS; u++) {
		if (u != t && s->t[u].wrote >> g & 1)
			violated("rights: an ordered access before the barrier of the last owner");
	}
}

static void done(struct state *s, unsigned t)
{
	s->t[t].step++;
	s->t[t].at = has_more(&s->t[t], t) ? CHECK : FETCH;
	s->t[t].tag = 0;
}

static void perform(struct state *s, unsigned t, unsigned tag)
{
	unsigned g = granule(s, t);

	if (tag == SHARED)
		access_ordered(s, t, g);
	else
		access_plainly(s, t, g);
	done(s, t);
}

static void end_thread(struct state *s, unsigned t)
{
	struct thread *me = &s->t[t];

	*me = (struct thread){ .at = ENDED,
		               .id = me->id,
		               .step = me->step }; /* do_exit passes a full barrier: wrote = 0 */
}

/* --- one step of one thread ------------------------------------------------------------------------------------------ */

static uint8_t tid(unsigned t)
{
	return setting->reuse && t == 2 ? 1 : (uint8_t)(t + 1);
}

static bool gone(const struct state *s, uint8_t id)
{
	for (unsigned t = 0; t < THREADS; t++) {
		if (tid(t) == id && s->t[t].at != UNBORN && s->t[t].at != ENDED)
			return false;
	}
	return true;
}

static bool shared_id(const struct state *s, unsigned t)
{
	for (unsigned u = 0; u < THREADS; u++) {
		if (u != t && s->t[u].id == s->t[t].id && s->t[u].at != ENDED)
			return true;
	}
	return false;
}

/* take_id; `holder` of an ended thread counts as free. */
static void lease_look(struct state s, unsigned t)
{
	for (unsigned id = 0; id < setting->ids; id++) {
		if (s.holder[id] != tid(t))
			continue;
		/* a thread id that came back: taken as it stands */
		s.t[t].id = (uint8_t)(id + 1);
		s.t[t].at = FETCH;
		s.times[id] += TAKES_CHANGE;
		if (shared_id(&s, t))
			violated("leases: two living threads have one id");
		successor(&s);
		return;
	}
	for (unsigned id = 0; id < setting->ids; id++) {
		uint8_t old = s.holder[id];

		if (old && !gone(&s, old) && plant != LIVE_LEASE)
			continue;
		s.t[t].pick = (uint8_t)(id + 1);
		s.t[t].old = old;
		s.t[t].tag = s.times[id];
		s.t[t].at = LEASE_TAKE;
		successor(&s);
		return;
	}
	s.t[t].at = FETCH;
	successor(&s); /* tagtso_owner_none */
}

static void lease_take(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];
	unsigned id = me->pick - 1u;

	if ((s.holder[id] == me->old && s.times[id] == me->tag) || plant == LEASE_BY_STORE) {
		s.holder[id] = tid(t);
		s.times[id] += TAKES_CHANGE;
		me->id = me->pick;
		me->at = FETCH;
		me->wrote = 0; /* dmb ish */
		if (shared_id(&s, t))
			violated("leases: two living threads have one id");
	} else {
		me->at = LEASE_LOOK;
	}
	me->pick = me->old = me->tag = 0;
	successor(&s);
}

static bool take_lock(struct state *s, unsigned t, enum at next)
{
	if (s->lock && plant != NO_LOCK)
		return false;
	if (plant != NO_LOCK)
		s->lock = (uint8_t)(t + 1);
	s->t[t].at = next;
	return true;
}

/* tagtso_window_open: tags, then the mapping. */
static void open_page(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];

	if (me->at == OPEN_LOCK) {
		if (!take_lock(&s, t, OPEN_TAG))
			return;
		me->pick = 0;
		if (s.reached) /* another thread opened it meanwhile: look again */
			me->at = UNLOCK;
		else if (plant == OPEN_EARLY)
			s.reached = 1;
	} else if (me->at == OPEN_TAG) {
		s.tag[me->pick] = me->id ? me->id : SHARED;
		if (++me->pick == GRANULES)
			me->at = OPEN_REACH;
	} else {
		me->wrote = 0; /* dmb ish */
		me->pick = 0;
		s.reached = 1;
		if (!me->id)
			s.shared = 1;
		me->at = UNLOCK;
	}
	successor(&s);
}

/* What the hardware does with an access by the thread's own pointer, which carries its id: passes, or traps. */
static void check(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];
	unsigned tag = s.tag[granule(&s, t)];

	if (is_out_of_line(&s, t) && s.reached) {
		me->at = s.kept ? OUT_OF_LINE : RESOLVE_LOCK;
	} else if (!s.reached) {
		me->at = OPEN_LOCK;
	} else if ((me->id && tag == me->id) || tag == SHARED || tag == NONE) {
		/* the site inserts the id, or the shared tag; a granule without a tag passes for a pointer as emitted */
		perform(&s, t, tag);
	} else {
		me->at = SETTLE;
	}
	successor(&s);
}

static void settle(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];
	unsigned tag = s.tag[granule(&s, t)];

	if (tag == SHARED || (me->id && tag == me->id)) {
		me->tag = (uint8_t)tag;
		me->at = ACCESS;
	} else {
		me->tag = (uint8_t)tag;
		me->at = RESOLVE_LOCK;
	}
	successor(&s);
}

static uint8_t granules_with(const struct state *s, unsigned tag)
{
	uint8_t set = 0;

	for (unsigned g = 0; g < GRANULES; g++)
		set |= (uint8_t)((s->tag[g] == tag) << g);
	return set;
}

/* tagtso_owner_share, with the page locked: the page is for good what it becomes now. */
static void keep_shared(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];

	me->from = (1 << GRANULES) - 1;
	for (unsigned k = 0; k < GRANULES; k++) {
		if (s.tag[k] == SHARED)
			me->from &= (uint8_t) ~(1 << k);
	}
	s.kept = plant != SHARE_UNKEPT;
	s.shared = 1;
	me->tag = SHARED;
	me->at = me->from ? CHANGE_BUSY : UNLOCK;
	successor(&s);
}

/* resolve, with the page locked: which transition, and of which granules. */
static void resolve(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];
	unsigned g = granule(&s, t), tag = s.tag[g];

	me->pick = 0;
	if (is_out_of_line(&s, t)) {
		keep_shared(s, t);
		return;
	}
	if (tag == SHARED || (me->id && tag == me->id)) {
		me->at = UNLOCK;
		me->tag = 0;
	} else if (me->id && (tag == BUSY || tag == NONE)) {
		me->from = granules_with(&s, BUSY) | granules_with(&s, NONE);
		me->tag = me->id;
		me->at = CLAIM_TAG;
	} else if (me->id && s.handovers < setting->handovers) {
		me->from = granules_with(&s, tag) | granules_with(&s, BUSY) | granules_with(&s, NONE);
		me->tag = me->id;
		me->at = plant == BARRIER_FIRST || plant == NO_BUSY ? CHANGE_BARRIER : CHANGE_BUSY;
		s.handovers++;
	} else {
		me->from = (uint8_t)(1 << g);
		s.conflicts = (uint8_t)(s.conflicts +
		                        (s.conflicts < setting->conflicts)); /* no further: the states stay few */
		if (s.conflicts >= setting->conflicts) {
			me->from = (1 << GRANULES) - 1;
			for (unsigned k = 0; k < GRANULES; k++) {
				if (s.tag[k] == SHARED)
					me->from &= (uint8_t) ~(1 << k);
			}
			s.shared = 1;
		}
		me->tag = SHARED;
		me->at = plant == BARRIER_FIRST || plant == NO_BUSY ? CHANGE_BARRIER : CHANGE_BUSY;
	}
	if (plant == NO_BUSY && me->at == CHANGE_BARRIER)
		me->at = CHANGE_NEW; /* and the barrier after it */
	successor(&s);
}

/* Writes `tag` to the next granule of the set; true when it was the last. */
static bool write_next(struct state *s, struct thread *me, unsigned tag)
{
	while (!(me->from >> me->pick & 1))
		me->pick++;
	s->tag[me->pick++] = (uint8_t)tag;
	if (me->from >> me->pick)
		return false;
	me->pick = 0;
	return true;
}

/* hand_over() claims what is undecided, and makes the rest busy. */
static unsigned before_barrier(const struct state *s, const struct thread *me)
{
	unsigned k = me->pick;

	while (!(me->from >> k & 1))
		k++;
	return me->tag != SHARED && (s->tag[k] == BUSY || s->tag[k] == NONE) ? me->tag : BUSY;
}

static void start_barrier(struct thread *me, unsigned t)
{
	me->waits = plant == NO_BARRIER ? 0 : (uint8_t)(((1 << THREADS) - 1) & ~(1 << t));
	if (plant != NO_BARRIER)
		me->wrote = 0;
}

/* A thread's script goes on at any point while the call runs; it ends when it has reached every other thread. */
static void barrier(const struct state *from, unsigned t, enum at next)
{
	for (unsigned u = 0; u < THREADS; u++) {
		struct state s = *from;

		if (!(s.t[t].waits >> u & 1))
			continue;
		s.t[t].waits &= (uint8_t) ~(1 << u);
		s.t[u].wrote = 0;
		if (!s.t[t].waits)
			s.t[t].at = (uint8_t)next;
		successor(&s);
	}
	if (!from->t[t].waits) {
		struct state s = *from;

		s.t[t].at = (uint8_t)next;
		successor(&s);
	}
}

static void change(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];

	switch (me->at) {
	case CLAIM_TAG:
		if (write_next(&s, me, me->tag)) {
			me->at = CLAIM_BARRIER;
			start_barrier(me, t);
		}
		successor(&s);
		break;
	case CLAIM_BARRIER:
		barrier(&s, t, UNLOCK);
		break;
	case CHANGE_BUSY:
		if (write_next(&s, me, before_barrier(&s, me))) {
			me->at = plant == BARRIER_FIRST ? CHANGE_NEW : CHANGE_BARRIER;
			start_barrier(me, t);
			if (plant == BARRIER_FIRST)
				me->waits = 0;
		}
		successor(&s);
		break;
	case CHANGE_BARRIER:
		if (plant == BARRIER_FIRST && !me->waits) {
			start_barrier(me, t);
			successor(&s);
		} else {
			barrier(&s, t, plant == BARRIER_FIRST ? CHANGE_BUSY : plant == NO_BUSY ? UNLOCK : CHANGE_NEW);
		}
		break;
	default: /* CHANGE_NEW */
		if (write_next(&s, me, me->tag)) {
			me->at = plant == NO_BUSY ? CHANGE_BARRIER : UNLOCK;
			if (plant == NO_BUSY)
				start_barrier(me, t);
		}
		successor(&s);
	}
}

static void unlock(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];

	if (plant != KEEP_LOCK || me->tag != me->id || !me->id)
		s.lock = 0;
	me->at = s.reached && !is_out_of_line(&s, t) ? SETTLE : is_out_of_line(&s, t) && s.shared ? OUT_OF_LINE : CHECK;
	me->from = me->pick = me->tag = 0;
	successor(&s);
}

/* Unchecked, between full barriers. */
static void access_out_of_line(struct state s, unsigned t)
{
	access_ordered(&s, t, granule(&s, t));
	done(&s, t);
	successor(&s);
}

/* The access of the interpreter, by a pointer with the tag that settle answered: a changed tag traps again. */
static void access_again(struct state s, unsigned t)
{
	struct thread *me = &s.t[t];

	if (s.tag[granule(&s, t)] == me->tag || plant == ACCESS_UNCHECKED)
		perform(&s, t, me->tag);
	else
		me->at = SETTLE;
	successor(&s);
}

static void step(const struct state *from, unsigned t)
{
	struct state s = *from;
	struct thread *me = &s.t[t];

	switch (me->at) {
	case UNBORN:
		if (setting->reuse && t == 2 && s.t[0].at != ENDED)
			return;
		me->at = LEASE_LOOK;
		successor(&s);
		break;
	case LEASE_LOOK:
		lease_look(s, t);
		break;
	case LEASE_TAKE:
		lease_take(s, t);
		break;
	case FETCH:
		if (has_more(me, t))
			me->at = CHECK;
		else
			end_thread(&s, t);
		successor(&s);
		break;
	case CHECK:
		check(s, t);
		break;
	case OPEN_LOCK:
	case OPEN_TAG:
	case OPEN_REACH:
		open_page(s, t);
		break;
	case SETTLE:
		settle(s, t);
		break;
	case RESOLVE_LOCK:
		if (take_lock(&s, t, RESOLVE_READ))
			successor(&s);
		break;
	case RESOLVE_READ:
		resolve(s, t);
		break;
	case UNLOCK:
		unlock(s, t);
		break;
	case ACCESS:
		access_again(s, t);
		break;
	case OUT_OF_LINE:
		access_out_of_line(s, t);
		break;
	case ENDED:
		break;
	default:
		change(s, t);
	}
}

/* tagtso_owner_probe, one granule a step. */
static void probe(const struct state *from)
{
	struct state s = *from;

	if (!s.prober) {
		if (!s.probes || !s.reached || (s.kept && plant != PROBE_KEPT) || (s.lock && plant != PROBE_UNLOCKED))
			return;
		if (plant != PROBE_UNLOCKED)
			s.lock = THREADS + 1;
		s.probes--;
		s.prober = 1;
	} else {
		unsigned g = s.prober - 1u;

		if (s.tag[g] == SHARED)
			s.tag[g] = BUSY;
		s.shared = 0;
		s.prober++;
		if (s.prober > GRANULES) {
			s.prober = 0;
			if (s.lock == THREADS + 1)
				s.lock = 0;
		}
	}
	successor(&s);
}

/* --- what holds in every state ----------------------------------------------------------------------------------------- */

static bool all_ended(const struct state *s)
{
	return s->t[0].at == ENDED && s->t[1].at == ENDED && s->t[2].at == ENDED;
}

static void examine(const struct state *s)
{
	for (unsigned g = 0; g < GRANULES; g++) {
		if (s->reached && !s->lock && plant != NO_LOCK && s->tag[g] == BUSY && setting->first_tag != BUSY &&
		    !setting->probes)
			violated("tags: busy, and nobody is changing it");
		if (s->reached && s->tag[g] == NONE)
			violated("tags: reachable memory without a tag");
	}
}

/* Every state reaches the end of all threads: marks backwards from the ends until nothing changes. */
static void examine_progress(void)
{
	uint8_t *good = grow(NULL, nstates);
	bool more = true;

	for (uint32_t i = 0; i < nstates; i++)
		good[i] = all_ended(&states[i]);
	while (more) {
		more = false;
		for (uint32_t e = nedges; e-- > 0;) {
			uint32_t from = edges[2 * (size_t)e], to = edges[2 * (size_t)e + 1];

			if (good[to] && !good[from])
				good[from] = more = true;
		}
	}
	for (uint32_t i = 0; i < nstates; i++) {
		if (!good[i])
			violated("progress: a state from which not all threads can come to their end");
	}
	free(good);
}

static void explore(const struct setting *of, enum mistake mistake)
{
	struct state s;

	setting = of;
	plant = mistake;
	wrong = NULL;
	nstates = nedges = 0;
	nslots = nslots / 2;
	rehash();
	memset(&s, 0, sizeof(s));
	s.reached = !of->fresh;
	s.probes = of->probes;
	for (unsigned g = 0; g < GRANULES; g++)
		s.tag[g] = of->wake ? 1 : of->first_tag;
	if (of->wake) {
		s.t[0].id = s.holder[0] = 1;
		s.t[0].at = FETCH;
	}
	intern(&s);
	for (current = 0; current < nstates && !wrong; current++) {
		struct state from = states[current];

		examine(&from);
		for (unsigned t = 0; t < THREADS; t++)
			step(&from, t);
		probe(&from);
	}
	if (!wrong)
		examine_progress();
	if (verbose || mistake == RIGHT)
		printf("# %s, %s: %u states, %u steps: %s\n", mistakes[mistake], of->name, nstates, nedges,
		       wrong ? wrong : "right");
}

static const unsigned nsettings = sizeof(settings) / sizeof(*settings);

/* The first setting that shows the mistake, and what it shows. */
static bool finds(enum mistake mistake)
{
	for (unsigned k = 0; k < nsettings; k++) {
		if (settings[k].reuse)
			continue;
		explore(&settings[k], mistake);
		if (wrong) {
			printf("ok - the mistake %s is found: %s (%s)\n", mistakes[mistake], wrong, settings[k].name);
			return true;
		}
	}
	printf("not ok - the mistake %s is found\n", mistakes[mistake]);
	return false;
}

int main(int argc, char **argv)
{
	bool right = true;

	_Static_assert(_Alignof(struct state) == 1, "no padding: states are compared as bytes");
	for (int i = 1; i < argc; i++) {
		verbose |= !strcmp(argv[i], "-v");
		for (enum mistake m = RIGHT; i + 1 < argc && !strcmp(argv[i], "--plant") && m < MISTAKES; m++) {
			if (!strcmp(argv[i + 1], mistakes[m]))
				return finds(m) ? 1 : 0;
		}
	}
	for (unsigned k = 0; k < nsettings; k++) {
		explore(&settings[k], RIGHT);
		printf("%s - owners, %s: rights, tags, leases and progress in all %u states%s%s\n",
		       wrong ? "not ok" : "ok", settings[k].name, nstates, wrong ? ": " : "", wrong ? wrong : "");
		right = right && !wrong;
	}
	for (enum mistake m = RIGHT + 1; m < MISTAKES; m++)
		right &= finds(m);
	return right ? 0 : 1;
}
