/* SPDX-License-Identifier: MIT */
/* Compares the interpreter with the processor: each word runs natively on one copy of registers and memory and interpreted on another. */
#include "sandbox.h"

#include <getopt.h>
#include <pthread.h>
#include <time.h>

enum plant { PLANT_NONE, PLANT_SIGN, PLANT_WRITEBACK, PLANT_ZEROEXT };

static struct {
	unsigned count;
	uint64_t seed;
	const char *class;
	long only; /* one instance, or -1 */
	enum plant plant;
	bool quiet;
} options = { .count = 2000, .only = -1 };

static unsigned failures;
static unsigned absent;    /* words that this processor does not have */
static unsigned unchecked; /* words that should have trapped, of a kind that some emulations do not check */

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
	return !options.class || !strcmp(options.class, class);
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

/* ESR_EL1.WnR: for LD<op> that fault, QEMU 10 sets it with tag checks off and not with them on. */
static bool same_fault(const struct instance *it, const struct tagtso_fault *a, const struct tagtso_fault *b)
{
	uint64_t mask = it->op.cls == TAGTSO_LSE ? ~(1ull << 6) : ~0ull;

	return a->signo == b->signo && a->code == b->code && a->address == b->address && !((a->esr ^ b->esr) & mask);
}

static const char *difference(const struct instance *it, const struct outcome *a, const struct outcome *b)
{
	static char text[200];

	if (a->faulted != b->faulted)
		return a->faulted ? "only the native one faulted" : "only the interpreted one faulted";
	if (a->faulted && !same_fault(it, &a->fault, &b->fault)) {
		snprintf(text, sizeof(text),
		         "faults: native %d/%d at %llx esr %llx, interpreted %d/%d at %llx esr %llx", a->fault.signo,
		         a->fault.code, (unsigned long long)a->fault.address, (unsigned long long)a->fault.esr,
		         b->fault.signo, b->fault.code, (unsigned long long)b->fault.address,
		         (unsigned long long)b->fault.esr);
		return text;
	}
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

/* ---- making instances -------------------------------------------------------------------------------------------------- */

static bool random_word(struct random *random, unsigned cls, struct instance *it)
{
	for (unsigned attempt = 0; attempt < 10000; attempt++) {
		const struct tagtso_encoding *row = &tagtso_encodings[below(random, (unsigned)tagtso_nencodings)];

		if (row->cls != cls)
			continue;
		it->word = row->value | ((uint32_t)next(random) & ~row->mask);
		if (!tagtso_decode(it->word, &it->op) || it->op.cls != cls)
			continue;
		if (it->op.addressing == TAGTSO_ADDR_REG && it->op.rm == it->op.rn && it->op.rm != 31)
			continue; /* not every address can be made */
		return true;
	}
	return false;
}

/* An offset register that extends and shifts to something small. Returns that. */
static uint64_t offset_register(struct random *random, const struct tagtso_memop *op, struct registers *in)
{
	int64_t offset = (int64_t)below(random, 1024) - (op->extend == 2 ? 0 : 512);

	if (op->rm == 31)
		return 0;
	in->r[op->rm] = (uint64_t)offset;
	if (op->extend == 2 || op->extend == 6)
		in->r[op->rm] = (uint32_t)offset | next(random) << 32;
	return (uint64_t)offset << op->shift;
}

/* Random upper byte, whose tag is not the memory's. */
static uint64_t top_byte(struct random *random)
{
	uint64_t tag = next(random);

	if ((tag >> 56 & 15) == MEMORY_TAG)
		tag ^= 1ull << 57;
	return chance(random, 50) ? tag & 0xffull << 56 : 0;
}

/* Sets registers (or the literal's offset) so that the access begins at `address`, or near it where SP must be aligned. */
static void aim(struct random *random, const struct sandbox *box, struct instance *it, uint64_t address)
{
	struct tagtso_memop *op = &it->op;
	uint64_t offset = 0, base;

	if (op->cls == TAGTSO_ZERO_BLOCK) {
		it->in.r[op->rt] = address | top_byte(random);
		it->address = address & ~63ull;
		return;
	}
	if (op->addressing == TAGTSO_ADDR_LITERAL) {
		it->word &= ~(0x7ffffu << 5);
		it->word |= (uint32_t)((address - (uint64_t)&box->code[MIDDLE]) / 4 & 0x7ffff) << 5;
		tagtso_decode(it->word, op);
		it->address = address & ~3ull;
		return;
	}
	if (op->addressing == TAGTSO_ADDR_OFFSET || op->addressing == TAGTSO_ADDR_PRE)
		offset = (uint64_t)(int64_t)op->imm;
	else if (op->addressing == TAGTSO_ADDR_REG)
		offset = offset_register(random, op, &it->in);
	base = address - offset;
	if (op->rn == 31)
		base &= ~15ull;
	it->address = base + offset;
	it->in.r[op->rn] = (base & ~0ull >> 8) | top_byte(random);
}

/* Half of the compare-and-swaps shall find what they compare with. */
static void agree(struct random *random, struct instance *it)
{
	const struct tagtso_memop *op = &it->op;
	uint64_t at = it->address - it->before.from;
	unsigned bytes = 1u << op->size;

	if ((op->cls != TAGTSO_CAS && op->cls != TAGTSO_CASP) || chance(random, 50))
		return;
	for (unsigned i = 0; i < op->count && at + (i + 1) * bytes <= it->before.bytes; i++) {
		uint64_t compared = op->rs + i == 31 ? 0 : it->in.r[op->rs + i];

		memcpy(it->before.data + at + i * bytes, &compared, bytes);
	}
}

/* edge 0: in the middle of data; else the access begins before `edge`, the end of writable data, and reaches it. */
static bool make(struct random *random, const struct sandbox *box, unsigned cls, uint64_t edge, struct instance *it)
{
	unsigned bytes, align;
	uint64_t address;

	fill_registers(random, &it->in);
	if (!random_word(random, cls, it))
		return false;
	bytes = tagtso_memop_bytes(&it->op);
	align = it->op.addressing == TAGTSO_ADDR_LITERAL ? 4 : chance(random, 75) ? bytes : 1;
	if (edge)
		address = edge + below(random, 64) - below(random, 64 + bytes);
	else
		address = (uint64_t)box->base + DATA + PAGE + below(random, 2 * PAGE);
	aim(random, box, it, align ? address / align * align : address);
	it->before.from = ((edge ? edge : it->address) - 256) & ~15ull;
	it->before.bytes = edge ? 256 : WINDOW;
	for (unsigned i = 0; i < WINDOW; i++)
		it->before.data[i] = (unsigned char)next(random);
	agree(random, it);
	it->order = chance(random, 50) ? TAGTSO_ORDERED : TAGTSO_PLAIN;
	return true;
}

/* LDAPUR and STLUR: QEMU 10 does not check their tags. */
static bool is_rcpc_unscaled(uint32_t word)
{
	return (word & 0x3f200c00) == 0x19000000;
}

/* Tag checks do not apply: base SP plus an immediate, pc-relative, and nothing that accesses (Arm ARM D10.4.1). */
static bool is_checked(const struct tagtso_memop *op)
{
	return op->rn != 31 && op->addressing != TAGTSO_ADDR_LITERAL && op->cls != TAGTSO_PREFETCH;
}

static void compare(struct sandbox *box, const struct instance *it, const struct outcome *native, const char *how)
{
	struct outcome interpreted;
	const char *what;

	perform(box, it, &interpreted);
	what = box->wrong;
	if (!what && !box->traps && !native->faulted) {
		if (is_rcpc_unscaled(it->word)) {
			unchecked++;
			return;
		}
		what = "it did not trap";
	}
	if (!what && (box->result == TAGTSO_EXEC_TAG || box->result == TAGTSO_EXEC_UNKNOWN))
		what = box->result == TAGTSO_EXEC_TAG ? "TAG for a right tag" : "UNKNOWN";
	if (!what)
		what = difference(it, native, &interpreted);
	if (what)
		failed(it->class, it->number, it->word, how, what);
}

/* The tags of the access's last granule alone do not match: nothing may happen, and then all. */
static void compare_straddling(struct sandbox *box, const struct instance *it)
{
	uint64_t last = (it->address + tagtso_memop_bytes(&it->op) - 1) & ~15ull;
	struct window after = it->before;
	struct tagtso_frame frame = { .x = box->in.r, .v = box->in.v };
	struct tagtso_fault fault;
	enum tagtso_exec got;

	if (last <= it->address || last >= it->before.from + it->before.bytes)
		return;
	copy_window(&after, true);
	set_tags(last, 16, MEMORY_TAG ^ 2);
	box->in = it->in;
	got = tagtso_exec(&it->op, &frame, it->address | data_tag(), it->order, &fault);
	set_tags(last, 16, MEMORY_TAG);
	copy_window(&after, false);
	/* QEMU 10 keeps only five bits of the length for a check. */
	if (got == TAGTSO_EXEC_DONE && tagtso_memop_bytes(&it->op) > 32)
		unchecked++;
	else if (got != TAGTSO_EXEC_TAG)
		failed(it->class, it->number, it->word, "second granule", "not answered TAG");
	else if (fault.address != last && it->op.cls != TAGTSO_ZERO_BLOCK) /* there it may be any of the block */
		failed(it->class, it->number, it->word, "second granule", "reported at another address");
	else if (memcmp(&box->in, &it->in, sizeof(it->in)) || memcmp(&after, &it->before, sizeof(after)))
		failed(it->class, it->number, it->word, "second granule", "something changed");
}

static void one(struct sandbox *box, const struct instance *it)
{
	struct outcome native;

	put_word(box, MIDDLE, it->word);
	perform(box, it, &native);
	if (native.faulted && native.fault.signo == SIGILL) {
		absent++;
		return;
	}
	put_word(box, MIDDLE, BRK_TRAP);
	compare(box, it, &native, "in place of a breakpoint");
	if (have_mte && is_checked(&it->op)) {
		box->mte = true;
		put_word(box, MIDDLE, it->word);
		compare(box, it, &native, "by its tag");
		box->mte = false;
		/* An alignment fault comes before the check. */
		if (!native.faulted)
			compare_straddling(box, it);
	}
}

static bool zero_block_is_64(void)
{
	uint64_t dczid;

	__asm__("mrs %0, dczid_el0" : "=r"(dczid));
	return (dczid & 31) == 4;
}

static void class_runs(unsigned cls, const char *name, unsigned count, bool edges)
{
	static const unsigned ends[] = { NONE, READONLY, HOLE };
	unsigned before = failures, done = 0;
	struct sandbox box;
	char sentence[160];

	sandbox_init(&box);
	for (unsigned i = 0; i < count; i++) {
		struct random random = random_of(name, i);
		struct instance it = { .class = name, .number = i };
		uint64_t edge = edges ? (uint64_t)box.base + ends[i % 3] : 0;

		if ((options.only >= 0 && options.only != i) || !make(&random, &box, cls, edge, &it))
			continue;
		one(&box, &it);
		done++;
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence), "%u %s: %s", done, name,
	         edges ? "faults are those of the processor, and nothing else changes"
	               : "registers, memory, write-back, pc and faults are those of the processor");
	result(failures == before && done, sentence);
	if (!done)
		failures++;
}

static void accesses(void)
{
	for (unsigned cls = TAGTSO_LOAD; cls < TAGTSO_NCLASSES; cls++) {
		char edges[64];

		if (cls >= TAGTSO_LOAD_EX && cls <= TAGTSO_STORE_EX_PAIR)
			continue;
		if (cls == TAGTSO_ZERO_BLOCK && !zero_block_is_64()) {
			if (wanted(tagtso_class_name(cls)))
				printf("# zero-block: not here: this processor's blocks are not 64 bytes\n");
			continue;
		}
		if (wanted(tagtso_class_name(cls)))
			class_runs(cls, tagtso_class_name(cls), options.count, false);
		snprintf(edges, sizeof(edges), "%s-at-edge", tagtso_class_name(cls));
		if (cls != TAGTSO_PREFETCH && wanted(edges))
			class_runs(cls, edges, options.count / 4, true);
	}
}

/* ---- integer instructions and branches ---------------------------------------------------------------------------------- */

static enum tagtso_exec interpret_integer(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	(void)box;
	return tagtso_alu_step(word, frame->x) ? TAGTSO_EXEC_DONE : TAGTSO_EXEC_UNKNOWN;
}

/* Shortens a branch, so that it stays on the page, where every other word is BRK_EXIT. */
static uint32_t shorten(struct random *random, uint32_t word)
{
	uint32_t near = below(random, CODE_WORDS - 2) + 1 - MIDDLE;

	if (near + 1 < 2) /* to itself or to START: a loop without end */
		near = 1;
	if ((word & 0x7c000000) == 0x14000000)
		return (word & ~0x3ffffffu) | (near & 0x3ffffff);
	if ((word & 0x7e000000) == 0x36000000)
		return (word & ~(0x3fffu << 5)) | (near & 0x3fff) << 5;
	if ((word & 0x7e000000) == 0x34000000 || (word & 0xfe000000) == 0x54000000)
		return (word & ~(0x7ffffu << 5)) | (near & 0x7ffff) << 5;
	return word;
}

static bool have_flagm(void)
{
	return getauxval(AT_HWCAP) & HWCAP_FLAGM;
}

/* RMIF, SETF8, SETF16, CFINV */
static bool needs_flagm(uint32_t word)
{
	return (word & 0xffe07c10) == 0xba000400 || (word & 0xffffbc1f) == 0x3a00080d ||
	       (word & 0xfffff0ff) == 0xd500401f;
}

/* Words of the integer and branch groups that the interpreter says it knows. Unallocated ones among them show as native faults. */
static uint32_t integer_word(struct random *random, bool branches)
{
	static const uint32_t systems[] = { 0xd503201f, 0xd53b4200, 0xd51b4200, 0xd500401f,
		                            0xd61f0000, 0xd63f0000, 0xd65f0000 };
	static const uint32_t groups[] = { 0x10000000, 0x0a000000, 0x14000000 };
	uint32_t word;

	for (;;) {
		unsigned long long r[TAGTSO_NREGS] = { 0 };
		unsigned group = below(random, branches ? 3 : 2);

		if (group == 2 && chance(random, 20)) {
			word = systems[below(random, 7)];
			word |= (word & 0xff000000) == 0xd6000000 ? below(random, 31) << 5
			        : word & 0x200000                 ? below(random, 32)
			                                          : 0;
			if (word == 0xd503201f + 31)
				word = 0xd503201f;
		} else {
			word = groups[group] | ((uint32_t)next(random) & ~(group == 1 ? 0x0e000000u : 0x1c000000u));
			if (group == 1 && chance(random, 50)) /* the crowded corner */
				word = (word & 0xe11fffff) | 0x1a000000 | (below(random, 4) * 2) << 21;
			if (group == 1 && (word & 0x5fe00000) == 0x5ac00000 && chance(random, 80))
				word &= ~0x1fe000u;
			if (group == 1 && (word & 0x1fe00000) == 0x1a000000 && chance(random, 50))
				word &= ~0xfc00u;
			word = shorten(random, word);
		}
		if (tagtso_alu_step(word, r) && (have_flagm() || !needs_flagm(word)))
			return word;
	}
}

static void integers(void)
{
	unsigned before = failures, count = options.count * 10;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	box.interpret = interpret_integer;
	for (unsigned i = 0; i < count; i++) {
		struct random random = random_of("integer", i);
		struct registers native;
		const char *what;
		uint32_t word;

		if (options.only >= 0 && options.only != i)
			continue;
		word = integer_word(&random, true);
		fill_registers(&random, &box.in);
		if ((word & 0xfe000000) == 0xd6000000) /* BR, BLR, RET stay on the page */
			box.in.r[word >> 5 & 31] = (uint64_t)&box.code[below(&random, START)];
		if (chance(&random, 20) && (word & 0x1e000000) == 0x0a000000)
			box.in.r[word >> 16 & 31] = box.in.r[word >> 5 & 31]; /* equal operands */
		put_word(&box, MIDDLE, word);
		run(&box);
		if (box.faulted) {
			failed("integer", i, word, "natively", "faulted, but the interpreter says that it knows it");
			continue;
		}
		native = box.out;
		put_word(&box, MIDDLE, BRK_TRAP);
		box.trapped = word;
		run(&box);
		what = difference_of_registers(&native, &box.out);
		if (what)
			failed("integer", i, word, "in place of a breakpoint", what);
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence),
	         "%u integer instructions and branches: registers, flags and pc are those of the processor", count);
	result(failures == before, sentence);
}

/* ---- LL/SC loops --------------------------------------------------------------------------------------------------------- */

/* Code to copy into the sandbox: x2 points to the word, x3 is compared, x5 is the operand. The first load-exclusive traps. */
#define HIDDEN __attribute__((visibility("hidden"))) /* or else found by the GOT, which has no place for local labels */
#define SHAPE(name, text) \
	HIDDEN extern const uint32_t shape_##name[], shape_end_##name[]; \
	__asm__(".pushsection .rodata\n\t.balign 4\n\t.globl shape_" #name ", shape_end_" #name "\nshape_" #name \
	        ":\n" text "\nshape_end_" #name ":\n\t.popsection")

SHAPE(compare_word, "1: ldaxr w1, [x2]; cmp w1, w3; b.ne 2f; stlxr w4, w5, [x2]; cbnz w4, 1b; 2:");
SHAPE(compare_long, "1: ldaxr x1, [x2]; cmp x1, x3; b.ne 2f; stlxr w4, x5, [x2]; cbnz w4, 1b; 2:");
SHAPE(compare_half_clear, "1: ldaxrh w1, [x2]; cmp w1, w3, uxth; b.ne 2f; stlxrh w4, w5, [x2]; cbnz w4, 1b; b 3f;"
                          "2: clrex; 3:");
SHAPE(compare_weak, "ldaxr w1, [x2]; cmp w1, w3; b.ne 1f; stlxr w4, w5, [x2]; cmp w4, #0; 1: cset w6, eq");
SHAPE(add_byte, "1: ldaxrb w1, [x2]; adds w6, w1, w5; uxtb w7, w6; stlxrb w4, w7, [x2]; cbnz w4, 1b; mrs x8, nzcv");
SHAPE(exchange_relaxed, "1: ldxr x1, [x2]; stxr w4, x5, [x2]; cbnz w4, 1b");
SHAPE(store_if_null, "1: ldaxr x6, [x2]; cbnz x6, 2f; stlxr w4, x5, [x2]; cbnz w4, 1b; 2: mov x0, x6");
SHAPE(pair, "1: ldaxp x6, x7, [x2]; cmp x6, x3; ccmp x7, x8, #0, eq; b.ne 2f; stlxp w4, x5, x9, [x2]; cbnz w4, 1b; 2:");
SHAPE(pair_of_words, "1: ldxp w6, w7, [x2]; add w6, w6, w5; eor w7, w7, w3; stxp w4, w6, w7, [x2]; cbnz w4, 1b");
SHAPE(setup_before,
      "1: mov x9, x5; mvn x10, x3; 2: ldaxr x1, [x2]; and x1, x1, x10; bfi x1, x9, #3, #17; stlxr w4, x1, [x2];"
      "cbnz w4, 1b");
SHAPE(unaligned,
      "ldr w1, [x2]; 1: ldaxrb w4, [x2]; sub w4, w4, w1, uxtb; cbnz w4, 2f; add w6, w1, w5; stlxrb w4, w6, [x2];"
      "cbnz w4, 1b; str w6, [x2]; 2:");
SHAPE(barriers, "dmb ish; 1: ldxr w1, [x2]; prfm pstl1strm, [x2]; orr w1, w1, w5; dmb ish; nop; stxr w4, w1, [x2]; "
                "tbnz w4, #0, 1b;"
                "dmb ish");
SHAPE(state_inside,
      "1: ldaxr w1, [x2]; add w6, w1, w5; str w6, [x11]; str x1, [x11, #8]; stlxr w4, w6, [x2]; cbnz w4, 1b");
SHAPE(two_functions, "1: bl 3f; add w6, w0, w5; str x6, [sp, #-16]!; stp x3, x5, [x11]; mov x0, x2; mov x1, x6; bl 4f;"
                     "ldr x7, [sp], #16; cbnz w0, 1b; b 5f; 3: ldaxrb w0, [x2]; ret;"
                     "4: mov x9, x0; stlxrb w0, w1, [x9]; ret; 5:");

SHAPE(calls_inside,
      "1: bl 3f; ldr x6, [x11]; bl 6f; str x6, [x11, #8]; bl 4f; cbnz w0, 1b; b 5f; 3: ldaxr w0, [x2]; ret;"
      "4: mov x9, x2; stlxr w0, w1, [x9]; dmb ish; ret;"
      "6: paciasp; stp x29, x30, [sp, #-16]!; mov x29, sp; bl 7f; ldp x29, x30, [sp], #16; autiasp; ret;"
      "7: bti c; add w1, w0, w6; ldrsb x7, [x11, #3]; ret; 5:");

static const struct shape {
	const char *name;
	const uint32_t *from, *to;
} shapes[] = {
#define ROW(name) \
	{ \
#name, shape_##name, shape_end_##name \
	}
	ROW(compare_word),  ROW(compare_long),     ROW(compare_half_clear), ROW(compare_weak),
	ROW(add_byte),      ROW(exchange_relaxed), ROW(store_if_null),      ROW(pair),
	ROW(pair_of_words), ROW(setup_before),     ROW(unaligned),          ROW(barriers),
	ROW(state_inside),  ROW(two_functions),    ROW(calls_inside),
#undef ROW
};
enum { NSHAPES = sizeof(shapes) / sizeof(shapes[0]), SPAN_LIMIT = 256 };

static enum tagtso_order span_order;

static bool is_load_exclusive(uint32_t word)
{
	struct tagtso_memop op;

	return tagtso_decode(word, &op) && (op.cls == TAGTSO_LOAD_EX || op.cls == TAGTSO_LOAD_EX_PAIR);
}

static enum tagtso_exec interpret_span(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	unsigned tag = have_mte ? MEMORY_TAG : 0;
	struct tagtso_memop op;
	struct registers before;

	tagtso_decode(word, &op);
	if (!is_load_exclusive(word)) /* an ordinary access of the shape */
		return tagtso_exec(&op, frame, tagtso_exec_address(&op, frame) | data_tag(), span_order, &box->fault);
	if (box->mte) {
		save(&before, frame);
		if (tagtso_span_exec(&op, frame, tag ^ 4, span_order, SPAN_LIMIT, &box->fault) != TAGTSO_EXEC_TAG)
			box->wrong = "a wrong tag was not answered TAG";
		else if (memcmp(before.r, frame->x, sizeof(before.r)))
			box->wrong = "registers changed by a wrong tag";
	}
	return tagtso_span_exec(&op, frame, tag, span_order, SPAN_LIMIT, &box->fault);
}

static enum tagtso_exec interpret_count(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	struct tagtso_memop op;

	tagtso_decode(word, &op);
	return tagtso_span_exec(&op, frame, have_mte ? MEMORY_TAG : 0, TAGTSO_ORDERED, SPAN_LIMIT, &box->fault);
}

/* Puts the words at MIDDLE; unless the tags do it, a breakpoint stands for the first load-exclusive. */
static void put_words(struct sandbox *box, const uint32_t *words, unsigned count, bool interpreted)
{
	bool replaced = !interpreted;

	for (unsigned i = 0; i < count; i++) {
		bool replace = !replaced && is_load_exclusive(words[i]);

		if (replace) {
			box->trapped = words[i];
			replaced = true;
		}
		put_word(box, MIDDLE + i, replace ? (uint32_t)BRK_TRAP : words[i]);
	}
	for (unsigned i = count; i < count + 8; i++)
		put_word(box, MIDDLE + i, BRK_EXIT);
}

static void run_words(struct sandbox *box, const struct instance *it, struct outcome *outcome)
{
	struct window before = it->before;

	copy_window(&before, true);
	box->in = it->in;
	box->interpret = interpret_span;
	run(box);
	outcome->faulted = box->faulted;
	outcome->fault = box->fault;
	outcome->out = box->out;
	outcome->after = before;
	copy_window(&outcome->after, false);
}

static void compare_words(struct sandbox *box, const struct instance *it, const struct outcome *native, const char *how)
{
	struct outcome interpreted;
	const char *what;

	run_words(box, it, &interpreted);
	what = box->wrong;
	if (!what && !box->traps)
		what = "it did not trap";
	if (!what && box->result != TAGTSO_EXEC_DONE)
		what = box->result == TAGTSO_EXEC_UNKNOWN ? "UNKNOWN" : "TAG or FAULT";
	if (!what)
		what = difference(it, native, &interpreted);
	if (what)
		failed(it->class, it->number, it->word, how, what);
}

/* The word at x2 with the pointer's tag wrong; x11 and SP point to memory that the code may write, with its right tag. */
static void prepare_span(struct random *random, const struct sandbox *box, unsigned align, struct instance *it)
{
	fill_registers(random, &it->in);
	it->address = (uint64_t)box->base + DATA + PAGE + below(random, 64) * 16 + below(random, 16 / align) * align;
	it->before.from = (it->address & ~15ull) - 256;
	it->before.bytes = WINDOW;
	for (unsigned i = 0; i < WINDOW; i++)
		it->before.data[i] = (unsigned char)next(random);
	if (chance(random, 10))
		memset(it->before.data + 256, 0, 16);
	if (chance(random, 60)) { /* what is compared is there */
		memcpy(&it->in.r[3], it->before.data + it->address - it->before.from, 8);
		memcpy(&it->in.r[8], it->before.data + it->address - it->before.from + 8, 8);
	}
	it->in.r[2] = it->address | top_byte(random);
	it->in.r[11] = (it->address & ~15ull) + 64;
	it->in.r[11] |= data_tag();
	it->in.r[TAGTSO_SP] = ((it->address & ~15ull) + 160) | data_tag();
	span_order = chance(random, 50) ? TAGTSO_ORDERED : TAGTSO_PLAIN;
}

static void one_span(struct sandbox *box, struct instance *it, const uint32_t *words, unsigned count)
{
	struct outcome native;

	it->word = words[0];
	put_words(box, words, count, false);
	for (unsigned attempt = 0; attempt < 5; attempt++) {
		run_words(box, it, &native);
		if (native.out.r[4] != 1)
			break;
		/* An interrupt made the store-exclusive fail, and not all shapes try again. */
	}
	put_words(box, words, count, true);
	compare_words(box, it, &native, "in place of a breakpoint");
	if (have_mte) {
		box->mte = true;
		put_words(box, words, count, false);
		compare_words(box, it, &native, "by its tag");
		box->mte = false;
	}
}

static void shaped_spans(void)
{
	unsigned before = failures, count = 0;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	for (unsigned i = 0; i < options.count; i++) {
		const struct shape *shape = &shapes[i % NSHAPES];
		struct random random = random_of("span", i);
		struct instance it = { .class = "span", .number = i };

		if (options.only >= 0 && options.only != i)
			continue;
		prepare_span(&random, &box, strstr(shape->name, "pair") ? 16 : 8, &it);
		one_span(&box, &it, shape->from, (unsigned)(shape->to - shape->from));
		count++;
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence),
	         "%u LL/SC loops of %u shapes: registers, memory and pc are those of the processor", count,
	         (unsigned)NSHAPES);
	result(failures == before, sentence);
}

/* LDXR size, some integer instructions, STXR, CBNZ back. */
static unsigned random_span(struct random *random, uint32_t words[16], unsigned *align)
{
	unsigned size = below(random, 4), n = below(random, 10), at = 1, status, data;
	uint32_t acquire = chance(random, 50) ? 1u << 15 : 0;

	*align = 1u << size;
	words[0] = 0x085f7c40 | size << 30 | acquire | (3 + below(random, 29));
	while (at <= n) {
		uint32_t word = integer_word(random, false);

		if ((word & 31) != 2)
			words[at++] = word;
	}
	do {
		status = 3 + below(random, 28);
		data = 3 + below(random, 29);
	} while (status == data);
	words[at++] = 0x08007c40 | size << 30 | acquire | status << 16 | data;
	words[at] = 0x35000000 | (uint32_t)(-(int32_t)at & 0x7ffff) << 5 | status;
	return at + 1;
}

static void random_spans(void)
{
	unsigned before = failures, count = 0;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	for (unsigned i = 0; i < options.count; i++) {
		struct random random = random_of("random-span", i);
		struct instance it = { .class = "random-span", .number = i };
		uint32_t words[16];
		unsigned align, length;

		if (options.only >= 0 && options.only != i)
			continue;
		length = random_span(&random, words, &align);
		prepare_span(&random, &box, align, &it);
		one_span(&box, &it, words, length);
		count++;
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence), "%u LL/SC loops around random integer instructions: the same", count);
	result(failures == before, sentence);
}

/* Shapes that end otherwise than DONE, with nothing changed. */
SHAPE(granule_read, "1: ldaxr x1, [x2]; ldr x6, [x2]; stlxr w4, x6, [x2]; cbnz w4, 1b");
SHAPE(other_word, "add x6, x2, #8; 1: ldaxr w1, [x2]; stlxr w4, w1, [x6]; cbnz w4, 1b");
SHAPE(vector_inside, "1: ldaxr x1, [x2]; fmov d0, x1; stlxr w4, x1, [x2]; cbnz w4, 1b");
SHAPE(other_size, "1: ldaxr x1, [x2]; stlxr w4, w1, [x2]; cbnz w4, 1b");

static void span_ends(struct sandbox *box, const char *sentence, const uint32_t *from, const uint32_t *to,
                      uint64_t address, enum tagtso_exec expected)
{
	struct random random = random_of("span-end", 0);
	struct instance it = { .class = "span-end", .word = *from };
	unsigned before = failures;
	struct outcome outcome;

	prepare_span(&random, box, 16, &it);
	if (address) {
		it.in.r[2] = address;
		it.before.bytes = 0;
	}
	put_words(box, from, (unsigned)(to - from), true);
	run_words(box, &it, &outcome);
	if (!box->traps || box->result != expected)
		failed(it.class, 0, it.word, sentence, "ended otherwise");
	else if (memcmp(&outcome.after.data, &it.before.data, it.before.bytes))
		failed(it.class, 0, it.word, sentence, "memory changed");
	else if (memcmp(&it.in.r[7], &outcome.out.r[7], 24 * 8))
		failed(it.class, 0, it.word, sentence, "registers changed");
	else if (expected == TAGTSO_EXEC_FAULT &&
	         (outcome.fault.address != address || outcome.fault.code != SEGV_ACCERR))
		failed(it.class, 0, it.word, sentence, "another fault");
	result(failures == before, sentence);
}

#define WORDS(name) shape_##name, shape_end_##name

static void spans_that_end(void)
{
	struct sandbox box;

	sandbox_init(&box);
	span_ends(&box, "a loop that reads the granule in between is UNKNOWN", WORDS(granule_read), 0,
	          TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop that stores to another word is UNKNOWN", WORDS(other_word), 0, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop that stores another size is UNKNOWN", WORDS(other_size), 0, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop with SIMD inside is UNKNOWN", WORDS(vector_inside), 0, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop on a read-only page is the store's fault", WORDS(exchange_relaxed),
	          (uint64_t)box.base + READONLY + 64, TAGTSO_EXEC_FAULT);
	span_ends(&box, "a loop that stores elsewhere and then to a read-only page is the store's fault",
	          WORDS(state_inside), (uint64_t)box.base + READONLY + 64, TAGTSO_EXEC_FAULT);
	span_ends(&box, "a loop that is not aligned is UNKNOWN", WORDS(exchange_relaxed),
	          (uint64_t)box.base + DATA + 65, TAGTSO_EXEC_UNKNOWN);
	span_ends(&box, "a loop on no page at all is the load's fault", WORDS(exchange_relaxed),
	          (uint64_t)box.base + NONE + 64, TAGTSO_EXEC_FAULT);
	sandbox_free(&box);
}

/* A store-exclusive that trapped by itself. */
static void lone_store(void)
{
	struct registers registers = { .r = { 7, 7, 7, 7 } };
	struct tagtso_frame frame = { .x = registers.r };
	struct tagtso_memop op;
	struct tagtso_fault fault;

	tagtso_decode(0xc803fc40, &op); /* stlxr w3, x0, [x2] */
	result(tagtso_span_exec(&op, &frame, 0, TAGTSO_ORDERED, SPAN_LIMIT, &fault) == TAGTSO_EXEC_DONE &&
	               registers.r[3] == 1 && registers.r[0] == 7 && registers.r[TAGTSO_PC] == 4,
	       "a store-exclusive that trapped without its load fails with status 1");
}

/* ---- two threads, one word ------------------------------------------------------------------------------------------------ */

SHAPE(count_word, "1: ldaxr w1, [x2]; add w1, w1, #1; stlxr w3, w1, [x2]; cbnz w3, 1b; sub x4, x4, #1; cbnz x4, 1b");
SHAPE(count_pair,
      "1: ldaxp x5, x6, [x2]; add x5, x5, #1; stlxp w3, x5, x6, [x2]; cbnz w3, 1b; sub x4, x4, #1; cbnz x4, 1b");
SHAPE(count_function,
      "1: bl 3f; add w6, w0, #1; str x6, [x11]; mov w1, w6; bl 4f; cbnz w0, 1b; sub x4, x4, #1; cbnz x4, 1b; b 5f;"
      "3: ldaxr w0, [x2]; ret; 4: mov x9, x2; stlxr w0, w1, [x9]; ret; 5:");

enum { TOTAL = 1000000 };

struct contention {
	struct sandbox box;
	uint64_t address;
	unsigned interpreted; /* increments by the code that traps */
	bool pair;
	volatile bool failed;
};

static void *counts_by_trap(void *argument)
{
	struct contention *c = argument;

	own_signal_stack();
	c->box.interpret = interpret_count;
	c->box.in.r[2] = c->address;
	c->box.in.r[4] = c->interpreted;
	c->box.in.r[11] = (c->address + 256) | data_tag();
	run(&c->box);
	c->failed = c->box.faulted || c->box.result != TAGTSO_EXEC_DONE || c->box.in.r[4] == c->box.out.r[4];
	return NULL;
}

static void count_natively(const struct contention *c)
{
	uint64_t p = c->address | data_tag(), a, b;
	unsigned status;

	do {
		if (c->pair)
			__asm__ volatile("ldaxp %0, %1, [%3]; add %1, %1, #1; stlxp %w2, %0, %1, [%3]"
			                 : "=&r"(a), "=&r"(b), "=&r"(status)
			                 : "r"(p)
			                 : "memory");
		else
			__asm__ volatile("ldaxr %w0, [%2]; add %w0, %w0, #1; stlxr %w1, %w0, [%2]"
			                 : "=&r"(a), "=&r"(status)
			                 : "r"(p)
			                 : "memory");
	} while (status);
}

static void contend(const char *sentence, const uint32_t *from, const uint32_t *to, unsigned interpreted, bool pair,
                    bool mte)
{
	struct contention c = { .interpreted = interpreted, .pair = pair };
	unsigned native = TOTAL - interpreted;
	char line[200];
	uint64_t got[2];
	pthread_t thread;
	bool ok;

	sandbox_init(&c.box);
	c.box.mte = mte;
	c.address = (uint64_t)c.box.base + DATA + 64;
	put_words(&c.box, from, (unsigned)(to - from), !mte);
	memset(data_pointer(c.address), 0, 16);
	if (pthread_create(&thread, NULL, counts_by_trap, &c)) {
		result(false, "a second thread");
		failures++;
		return;
	}
	for (unsigned i = 0; i < native; i++) {
		/* Both shall be at it to the end. */
		while ((uint64_t)i * interpreted > ((uint64_t) * (volatile unsigned *)&c.box.traps + 100) * native &&
		       !c.failed)
			__asm__ volatile("yield");
		count_natively(&c);
	}
	pthread_join(thread, NULL);
	memcpy(got, data_pointer(c.address), 16);
	snprintf(line, sizeof(line), "%u increments by trap (%s) and %u natively %s", interpreted,
	         mte ? "tags" : "breakpoint", native, sentence);
	/* The pair's halves are counted apart: each thread must notice the half that it does not change. */
	ok = !c.failed && (pair ? got[0] == interpreted && got[1] == native : got[0] == TOTAL && got[1] == 0);
	result(ok, line);
	if (!ok) {
		failures++;
		printf("# counted %llu and %llu, traps %u, result %d, fault %d/%d at %llx\n",
		       (unsigned long long)got[0], (unsigned long long)got[1], c.box.traps, c.box.result,
		       c.box.fault.signo, c.box.fault.code, (unsigned long long)c.box.fault.address);
	}
	sandbox_free(&c.box);
}

static void contentions(void)
{
	unsigned by_trap = options.count >= 2000 ? TOTAL / 10 : TOTAL / 50;

	contend("on one word lose none", WORDS(count_word), by_trap, false, have_mte);
	contend("on one pair lose none", WORDS(count_pair), by_trap / 8, true, have_mte);
	contend("through two functions lose none", WORDS(count_function), by_trap / 8, false, have_mte);
	if (have_mte)
		contend("on one word lose none", WORDS(count_word), by_trap / 8, false, false);
}

/* ---- SVE ------------------------------------------------------------------------------------------------------------------ */

/* Z registers are live and full when the word between them traps; then z3 to z6 are stored. */
__asm__(".arch_extension sve");
SHAPE(vectors, "dup z3.b, #0x55; dup z4.b, #0x55; dup z5.b, #0x55; dup z6.b, #0x55; nop;"
               "str z3, [x5]; str z4, [x5, #1, mul vl]; str z5, [x5, #2, mul vl]; str z6, [x5, #3, mul vl]");
enum { VECTORS_HOLE = 4 };

static const struct vector_word {
	uint32_t word;
	const char *text;
} vector_words[] = {
	{ 0x3d400043, "ldr b3, [x2]" },
	{ 0xfd400043, "ldr d3, [x2]" },
	{ 0x3dc00043, "ldr q3, [x2]" },
	{ 0xad401043, "ldp q3, q4, [x2]" },
	{ 0x2d401043, "ldp s3, s4, [x2]" },
	{ 0x4d40c843, "ld1r {v3.4s}, [x2]" },
	{ 0x0d40c443, "ld1r {v3.4h}, [x2]" },
	{ 0x4d408043, "ld1 {v3.s}[2], [x2]" },
	{ 0x4c402c43, "ld1 {v3.2d-v6.2d}, [x2]" },
	{ 0x0c40a043, "ld1 {v3.8b,v4.8b}, [x2]" },
};

static bool same_vectors(struct sandbox *box, const struct vector_word *vector, unsigned bytes)
{
	static unsigned char native[4 * 256];
	uint64_t store = (uint64_t)box->base + DATA2;
	struct instance it = { .class = "sve", .word = vector->word };
	bool same = true;

	under_test = &it;
	tagtso_decode(vector->word, &it.op);
	it.address = (uint64_t)box->base + DATA + 64;
	for (unsigned how = 0; how < (have_mte ? 3 : 2); how++) {
		memset(&box->in, 0, sizeof(box->in));
		box->in.r[2] = it.address;
		box->in.r[5] = (uint64_t)data_pointer(store);
		box->interpret = interpret_span; /* its path for ordinary accesses */
		box->trapped = vector->word;
		box->mte = how == 2;
		put_word(box, MIDDLE + VECTORS_HOLE, how == 1 ? (uint32_t)BRK_TRAP : vector->word);
		memset(data_pointer(store), 0, 4 * bytes);
		run(box);
		same &= !box->faulted && box->result == TAGTSO_EXEC_DONE && box->traps == (how > 0);
		if (how > 0) {
			same &= !memcmp(native, data_pointer(store), 4 * bytes);
			continue;
		}
		memcpy(native, data_pointer(store), 4 * bytes);
		/* A write of V zeroes the rest of Z (Arm ARM, V[] assignment), but QEMU 10's of one lane does not. */
		if (it.op.cls == TAGTSO_LOAD_LANE)
			memset(native + 16, 0, bytes - 16);
	}
	box->mte = false;
	return same;
}

static void vectors_of(unsigned wanted_bytes)
{
	unsigned before = failures, bytes = (unsigned)prctl(PR_SVE_SET_VL, wanted_bytes) & PR_SVE_VL_LEN_MASK;
	struct sandbox box;
	char sentence[120];

	sandbox_init(&box);
	put_words(&box, shape_vectors, (unsigned)(shape_end_vectors - shape_vectors), false);
	for (unsigned i = 0; i < 64; i++)
		((char *)data_pointer((uint64_t)box.base + DATA + 64))[i] = (char)(i + 1);
	for (unsigned i = 0; i < sizeof(vector_words) / sizeof(vector_words[0]); i++) {
		if (!same_vectors(&box, &vector_words[i], bytes))
			failed("sve", i, vector_words[i].word, vector_words[i].text, "Z registers differ");
	}
	sandbox_free(&box);
	snprintf(sentence, sizeof(sentence), "SIMD loads zero the rest of live %u-bit Z registers and keep the others",
	         bytes * 8);
	result(failures == before, sentence);
}

static void vectors(void)
{
	if (!(getauxval(AT_HWCAP) & HWCAP_SVE)) {
		printf("# sve: not here: this processor has none\n");
		return;
	}
	vectors_of(64);
	vectors_of(256); /* too long for the frame: extra_context */
	vectors_of(16);
}

/* ---- the program --------------------------------------------------------------------------------------------------------- */

static void noticed(enum plant plant, unsigned cls, const char *sentence)
{
	unsigned before = failures;
	bool caught;

	options.plant = plant;
	options.quiet = true;
	class_runs(cls, tagtso_class_name(cls), 500, false);
	caught = failures > before;
	failures = before + !caught;
	options.plant = PLANT_NONE;
	options.quiet = false;
	result(caught, sentence);
}

static void plants(void)
{
	noticed(PLANT_SIGN, TAGTSO_LOAD, "a planted missing sign extension is caught");
	noticed(PLANT_WRITEBACK, TAGTSO_STORE_PAIR, "a planted missing write-back is caught");
	noticed(PLANT_ZEROEXT, TAGTSO_LOAD, "a planted missing zero extension is caught");
}

static void usage(void)
{
	fprintf(stderr, "usage: differential [--count N] [--seed S] [--class NAME] [--only INSTANCE] [--plant "
	                "sign|writeback|zeroext]\n"
	                "NAME: a class of accesses (load, store-pair, ...; with -at-edge: faults), integer, span, "
	                "random-span, span-end,\n"
	                "      contention, sve, plant\n");
	exit(2);
}

static enum plant plant_of(const char *name)
{
	static const char *const names[] = { "none", "sign", "writeback", "zeroext" };

	for (unsigned i = 0; i < 4; i++) {
		if (!strcmp(name, names[i]))
			return i;
	}
	usage();
	return PLANT_NONE;
}

static void arguments(int argc, char **argv)
{
	static const struct option table[] = {
		{ "count", required_argument, NULL, 'c' }, { "seed", required_argument, NULL, 's' },
		{ "class", required_argument, NULL, 'k' }, { "only", required_argument, NULL, 'o' },
		{ "plant", required_argument, NULL, 'p' }, { NULL, 0, NULL, 0 },
	};
	int option;

	options.seed = (uint64_t)time(NULL);
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (option) {
		case 'c':
			options.count = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'k':
			options.class = optarg;
			break;
		case 'o':
			options.only = strtol(optarg, NULL, 0);
			break;
		case 'p':
			options.plant = plant_of(optarg);
			break;
		default:
			usage();
		}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *class;
		void (*test)(void);
	} tests[] = {
		{ "integer", integers },
		{ "span", shaped_spans },
		{ "random-span", random_spans },
		{ "span-end", spans_that_end },
		{ "span-end", lone_store },
		{ "contention", contentions },
		{ "sve", vectors },
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	arguments(argc, argv);
	process_init();
	printf("# seed %llu; %s\n", (unsigned long long)options.seed,
	       have_mte ? "with MTE: words trap by breakpoints and by their tags"
	                : "no MTE: words trap by breakpoints only");
	accesses();
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (wanted(tests[i].class))
			tests[i].test();
	}
	if (options.plant == PLANT_NONE && wanted("plant"))
		plants();
	if (absent)
		printf("# %u words were left out: this processor does not have them\n", absent);
	if (unchecked)
		printf("# %u LDAPUR, STLUR or LD1, ST1 of over 32 bytes did not trap: an emulation that does not check "
		       "them\n",
		       unchecked);
	printf("# %u failures\n", failures);
	return failures > 0;
}
