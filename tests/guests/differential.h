/* SPDX-License-Identifier: MIT */
/* What the comparisons have in common: options, random values, reports, and one run and its outcome. Part of differential.c. */
#ifndef TAGTSO_TESTS_DIFFERENTIAL_H
#define TAGTSO_TESTS_DIFFERENTIAL_H

#include "sandbox.h"

enum plant { PLANT_NONE, PLANT_SIGN, PLANT_WRITEBACK, PLANT_ZEROEXT, PLANT_SHIFT, PLANT_SIZE, NPLANTS };

static struct {
	unsigned count;
	uint64_t seed;
	const char *class;
	long only; /* one instance, or -1 */
	enum plant plant;
	bool quiet;
	bool known; /* there is such a class */
} options = { .count = 2000, .only = -1 };

static unsigned failures;
static unsigned faults_seen[3]; /* compared: nothing mapped, not permitted, not aligned */
static unsigned absent;         /* words that this processor does not have */
static unsigned unchecked;      /* words that should have trapped, of a kind that some emulations do not check */

/* ---- random ------------------------------------------------------------------------------------------------------------ */

struct random {
	uint64_t state;
};

static uint64_t next(struct random *random) /* splitmix64 */
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned below(struct random *random, unsigned limit)
{
	return (unsigned)(next(random) % limit);
}

static bool chance(struct random *random, unsigned percent)
{
	return below(random, 100) < percent;
}

static uint64_t hash(const char *text)
{
	uint64_t h = 0xcbf29ce484222325;

	while (*text)
		h = (h ^ (unsigned char)*text++) * 0x100000001b3;
	return h;
}

/* An instance depends on the seed, its class and its number alone, so that it can be replayed alone. */
static struct random random_of(const char *class, unsigned number)
{
	struct random random = { options.seed ^ hash(class) };

	random.state = next(&random) + number;
	next(&random);
	return random;
}

/* Random, but with the values that break arithmetic more often than chance has them. */
static uint64_t value(struct random *random)
{
	static const uint64_t special[] = { 0, 1, ~0ull, 1ull << 63, 1ull << 31, ~0ull >> 1, 0x7fffffff, 0xffffffff };

	return chance(random, 20) ? special[below(random, sizeof(special) / sizeof(special[0]))] : next(random);
}

static void fill_registers(struct random *random, struct registers *registers)
{
	for (unsigned i = 0; i < 31; i++)
		registers->r[i] = value(random);
	registers->r[TAGTSO_SP] = next(random) & 0x0000fffffffffff0;
	registers->r[TAGTSO_PSTATE] = next(random) & PSTATE_NZCV;
	for (unsigned i = 0; i < 32; i++)
		registers->v[i] = (__uint128_t)next(random) << 64 | next(random);
}

/* ---- reporting --------------------------------------------------------------------------------------------------------- */

static void result(bool ok, const char *sentence)
{
	if (options.quiet)
		return;
	printf("%sok - %s\n", ok ? "" : "not ", sentence);
	fflush(stdout);
}

static void failed(const char *class, unsigned number, uint32_t word, const char *how, const char *what)
{
	if (failures++ % 1000 >= 20 || options.quiet)
		return;
	printf("# %s %u, word %08x, %s: %s\n", class, number, word, how, what);
	printf("# replay: differential --class %s --seed %llu --only %u\n", class, (unsigned long long)options.seed,
	       number);
}

static bool wanted(const char *class)
{
	if (options.class && strcmp(options.class, class) != 0)
		return false;
	options.known = true;
	return true;
}

/* ---- memory around the access ------------------------------------------------------------------------------------------ */

enum { WINDOW = 512 };

struct window {
	uint64_t from;
	unsigned bytes;
	unsigned char data[WINDOW];
};

/* Of `bytes` up to the end that may be accessed; tag checks are off, since granules may have various tags. */
static void copy_window(struct window *window, bool to_memory)
{
	if (have_mte)
		__asm__ volatile("msr tco, #1" ::: "memory");
	if (to_memory)
		memcpy((void *)window->from, window->data, window->bytes);
	else
		memcpy(window->data, (void *)window->from, window->bytes);
	if (have_mte)
		__asm__ volatile("msr tco, #0" ::: "memory");
}

/* ---- one instance ------------------------------------------------------------------------------------------------------ */

struct instance {
	const char *class;
	unsigned number;
	uint32_t word;
	struct tagtso_memop op;
	uint64_t address; /* lowest byte accessed, no tag */
	enum tagtso_order order;
	struct registers in;
	struct window before;
};

struct outcome {
	bool faulted;
	struct tagtso_fault fault;
	struct registers out;
	struct window after;
};

static const struct instance *under_test; /* for interpret() */

/* What a wrong interpreter would do, so that the test is seen to notice. */
static struct tagtso_memop planted(struct tagtso_memop op)
{
	if (options.plant == PLANT_SIGN)
		op.flags &= ~TAGTSO_F_SIGNED;
	if (options.plant == PLANT_WRITEBACK && (op.addressing == TAGTSO_ADDR_PRE || op.addressing == TAGTSO_ADDR_POST))
		op.addressing = TAGTSO_ADDR_OFFSET;
	return op;
}

static void plant_zero_extension(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t old)
{
	if (options.plant == PLANT_ZEROEXT && op->cls == TAGTSO_LOAD && op->regwidth == 32 && op->rt != 31)
		frame->x[op->rt] = (uint32_t)frame->x[op->rt] | (old & 0xffffffff00000000);
}

/* NULL if nothing of the frame differs from what the run began with. */
static const char *changed(const struct sandbox *box, const struct tagtso_frame *frame)
{
	if (memcmp(frame->x, box->in.r, TAGTSO_PC * 8) || frame->x[TAGTSO_PC] != (uint64_t)&box->code[MIDDLE] ||
	    (frame->x[TAGTSO_PSTATE] ^ box->in.r[TAGTSO_PSTATE]) & PSTATE_NZCV)
		return "registers changed without the access";
	return memcmp(frame->v, box->in.v, sizeof(box->in.v)) ? "vectors changed without the access" : NULL;
}

/* First with pointers that cannot match: everything must stay; then with the right one. */
static enum tagtso_exec interpret(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	const struct instance *it = under_test;
	struct tagtso_memop op = planted(it->op);
	uint64_t address = tagtso_exec_address(&it->op, frame);
	uint64_t old = op.rt < 31 ? frame->x[op.rt] : 0;
	enum tagtso_exec got;

	if (word != it->word)
		box->wrong = "another word trapped";
	if (address != it->address)
		box->wrong = "tagtso_exec_address differs";
	if (box->mte && op.cls != TAGTSO_PREFETCH) {
		got = tagtso_exec(&op, frame, address | (data_tag() ^ 1ull << 58), it->order, &box->fault);
		if (got != TAGTSO_EXEC_TAG)
			box->wrong = "a wrong tag was not answered TAG";
		else if (changed(box, frame))
			box->wrong = changed(box, frame);
		else if (box->fault.address < address || box->fault.address >= address + tagtso_memop_bytes(&op))
			box->wrong = "a wrong tag was reported at another address";
		memset(&box->fault, 0, sizeof(box->fault));
	}
	got = tagtso_exec(&op, frame, address | data_tag(), it->order, &box->fault);
	if (got == TAGTSO_EXEC_DONE)
		plant_zero_extension(&op, frame, old);
	else if (changed(box, frame))
		box->wrong = changed(box, frame);
	return got;
}

static void perform(struct sandbox *box, const struct instance *it, struct outcome *outcome)
{
	struct window before = it->before;

	under_test = it;
	copy_window(&before, true);
	box->in = it->in;
	box->trapped = it->word;
	box->interpret = interpret;
	run(box);
	outcome->faulted = box->faulted;
	outcome->fault = box->fault;
	outcome->out = box->out;
	outcome->after = before;
	copy_window(&outcome->after, false);
}

static const char *difference_of_registers(const struct registers *a, const struct registers *b)
{
	static char text[160];

	for (unsigned i = 0; i < TAGTSO_NREGS; i++) {
		uint64_t mask = i == TAGTSO_PSTATE ? PSTATE_NZCV : ~0ull;

		if ((a->r[i] ^ b->r[i]) & mask) {
			snprintf(text, sizeof(text), "r%u: native %016llx, interpreted %016llx", i, a->r[i], b->r[i]);
			return text;
		}
	}
	for (unsigned i = 0; i < 32; i++) {
		if (a->v[i] != b->v[i]) {
			snprintf(text, sizeof(text), "v%u: native %016llx%016llx, interpreted %016llx%016llx", i,
			         (unsigned long long)(a->v[i] >> 64), (unsigned long long)a->v[i],
			         (unsigned long long)(b->v[i] >> 64), (unsigned long long)b->v[i]);
			return text;
		}
	}
	return NULL;
}

static void count_fault(const struct tagtso_fault *fault)
{
	if (fault->signo == SIGSEGV && (fault->code == SEGV_MAPERR || fault->code == SEGV_ACCERR))
		faults_seen[fault->code == SEGV_ACCERR]++;
	else if (fault->signo == SIGBUS && fault->code == BUS_ADRALN)
		faults_seen[2]++;
}

/* ESR_EL1.WnR: for LD<op> that fault, QEMU 10 sets it with tag checks off and not with them on. */
static bool same_fault(const struct instance *it, const struct tagtso_fault *a, const struct tagtso_fault *b)
{
	uint64_t mask = it->op.cls == TAGTSO_LSE ? ~(1ull << 6) : ~0ull;

	return a->signo == b->signo && a->code == b->code && a->address == b->address && !((a->esr ^ b->esr) & mask);
}

static const char *difference_of_faults(const struct tagtso_fault *a, const struct tagtso_fault *b)
{
	static char text[200];

	snprintf(text, sizeof(text), "faults: native %d/%d at %llx esr %llx, interpreted %d/%d at %llx esr %llx",
	         a->signo, a->code, (unsigned long long)a->address, (unsigned long long)a->esr, b->signo, b->code,
	         (unsigned long long)b->address, (unsigned long long)b->esr);
	return text;
}

static const char *difference(const struct instance *it, const struct outcome *a, const struct outcome *b)
{
	static char text[200];

	if (a->faulted != b->faulted)
		return a->faulted ? "only the native one faulted" : "only the interpreted one faulted";
	if (a->faulted)
		count_fault(&a->fault);
	if (a->faulted && !same_fault(it, &a->fault, &b->fault))
		return difference_of_faults(&a->fault, &b->fault);
	for (unsigned i = 0; i < a->after.bytes; i++) {
		/* What a store that faults leaves of its part in good memory is not defined: nothing is good. */
		if (a->after.data[i] != b->after.data[i] && !(a->faulted && b->after.data[i] == it->before.data[i])) {
			snprintf(text, sizeof(text), "memory at %llx: native %02x, interpreted %02x",
			         (unsigned long long)a->after.from + i, a->after.data[i], b->after.data[i]);
			return text;
		}
	}
	/* What a load that faults leaves in its destination is not defined either; interpret() has seen that all is as it was. */
	return a->faulted ? NULL : difference_of_registers(&a->out, &b->out);
}

#endif
