/* SPDX-License-Identifier: MIT */
/* Words that are executed out of line: all registers, memory and faults, and whether their reach is what they access. Part of differential.c. */
#ifndef TAGTSO_TESTS_DIFFERENTIAL_OUTOFLINE_H
#define TAGTSO_TESTS_DIFFERENTIAL_OUTOFLINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "differential.h"

/* What the shim has, for outofline-arm64.c: nobody owns anything here. */
extern _Atomic bool tagtso_active;
_Atomic bool tagtso_active;

enum { DATA_BYTES = NONE - DATA };

/* A word, or the three of a memory copy, and the state that it begins with. */
struct slot_instance {
	const char *class;
	unsigned number;
	uint32_t words[3];
	unsigned nwords;
	struct tagtso_memop op; /* of the first */
	struct registers in;
	struct vectors vectors;
	struct array *array; /* NULL, or SME's */
	bool breaks;         /* traps by a breakpoint, not by its tag */
	unsigned char data[DATA_BYTES];
};

enum { EDGE = 256 };

struct slot_outcome {
	bool faulted;
	struct tagtso_fault fault;
	struct registers out;
	struct vectors vectors;
	struct array array;
	unsigned char data[DATA_BYTES];
	unsigned char edges[2][EDGE]; /* what may be written before what may not */
};

static bool have_sve(void)
{
	return getauxval(AT_HWCAP) & HWCAP_SVE;
}

static bool have_sme(void)
{
	return getauxval(AT_HWCAP2) & HWCAP2_SME;
}

/* ---- kinds of words ---------------------------------------------------------------------------------------------------- */

static bool is_structure(const struct tagtso_memop *op)
{
	return (op->word & 0xbe000000) == 0x0c000000;
}

static bool is_authenticated(const struct tagtso_memop *op)
{
	return (op->word & 0xff200400) == 0xf8200400;
}

static bool is_copy(const struct tagtso_memop *op)
{
	return op->addressing >= TAGTSO_REACH_COPY;
}

static bool is_gather(const struct tagtso_memop *op)
{
	return op->addressing >= TAGTSO_REACH_OFFSETS && op->addressing <= TAGTSO_REACH_QUADWORDS;
}

/* LDNF1 is left out: a wrong tag does not make it trap, but ends what it loads. */
static bool is_contiguous(const struct tagtso_memop *op)
{
	return (op->word & 0x9e000000) == 0x84000000 && op->flags && !is_gather(op) &&
	       (op->word & 0xfe10e000) != 0xa410a000;
}

static bool is_sme(const struct tagtso_memop *op)
{
	return (op->word & 0xfe000000) == 0xe0000000 && op->flags;
}

static bool is_rare(const struct tagtso_memop *op)
{
	return !is_structure(op) && !is_authenticated(op) && !is_copy(op) && op->flags &&
	       (op->word & 0x0a000000) == 0x08000000;
}

static const struct slot_class {
	const char *name;
	bool (*holds)(const struct tagtso_memop *op);
	bool sve, sme; /* sme: in streaming mode, with the array */
	bool breaks;   /* traps by breakpoints */
} slot_classes[] = {
	{ "structure", is_structure, false, false, false },
	{ "authenticated", is_authenticated, false, false, false },
	{ "copy", is_copy, false, false, false },
	{ "sve", is_contiguous, true, false, false },
	{ "gather", is_gather, true, false, false },
	{ "sme", is_sme, false, true, true },
	{ "rare", is_rare, false, false, true },
};

static bool is_here(const struct slot_class *class)
{
	return (!class->sve || have_sve()) && (!class->sme || have_sme());
}

/* ---- making instances -------------------------------------------------------------------------------------------------- */

/* Offsets count in vectors, and nothing may leave the sandbox: all of LDR's and STR's, and what is an index or an immediate of others. */
static uint32_t without_offset(uint32_t word)
{
	return (word & 0x9fc0a000) == 0x85800000 ? word & ~(0x3fu << 16 | 7u << 10) : word & ~(0xfu << 16);
}

static bool slot_word(struct random *random, const struct slot_class *class, struct slot_instance *it)
{
	for (unsigned attempt = 0; attempt < 100000; attempt++) {
		const struct tagtso_encoding *row = &tagtso_encodings[below(random, (unsigned)tagtso_nencodings)];
		uint32_t word = row->value | ((uint32_t)next(random) & ~row->mask);

		if (row->cls != TAGTSO_OUT_OF_LINE)
			continue;
		if (class->sve)
			word = (without_offset(word) & ~row->mask) | row->value;
		tagtso_decode(word, &it->op);
		if (it->op.cls != TAGTSO_OUT_OF_LINE || !class->holds(&it->op))
			continue;
		/* Vectors of 32-bit addresses reach nothing here. */
		if (it->op.addressing == TAGTSO_REACH_VECTOR && it->op.size == 2 && chance(random, 90))
			continue;
		it->words[0] = word;
		it->nwords = 1;
		return true;
	}
	return false;
}

static void fill_vectors(struct random *random, struct slot_instance *it)
{
	struct vectors *v = &it->vectors;

	for (unsigned i = 0; i < 32; i++) {
		for (unsigned n = 0; n < sizeof(v->z[i]); n += 8) {
			uint64_t r = next(random);

			memcpy(v->z[i] + n, &r, 8);
		}
	}
	for (unsigned i = 0; i < 16; i++) {
		bool full = chance(random, 50);

		for (unsigned n = 0; n < sizeof(v->p[i]); n++)
			v->p[i][n] = full ? 0xff : (unsigned char)next(random);
	}
	memset(v->ffr, 0xff, sizeof(v->ffr));
}

static void fill_array(struct random *random, struct array *array)
{
	for (unsigned i = 0; i < sizeof(array->row); i += 8) {
		uint64_t r = next(random);

		memcpy(&array->row[0][0] + i, &r, 8);
	}
}

static void set_element(const struct tagtso_memop *op, unsigned char *vector, unsigned n, uint64_t value)
{
	memcpy(vector + ((size_t)n << op->size), &value, (size_t)1 << op->size);
}

/* Addresses, or offsets, of which most lead to data. */
static void aim_elements(struct random *random, struct slot_instance *it, uint64_t address)
{
	const struct tagtso_memop *op = &it->op;
	unsigned elements = 256u >> op->size;

	if (op->addressing == TAGTSO_REACH_OFFSETS) {
		for (unsigned n = 0; n < elements; n++) {
			uint64_t offset =
				(uint64_t)below(random, 1024 >> op->shift) - (op->extend == 2 ? 0 : 512u >> op->shift);

			/* what is above 32 bits must not matter */
			if (op->extend != 3 && op->size == 3)
				offset = (uint32_t)offset | next(random) << 32;
			set_element(op, it->vectors.z[op->rm], n, offset);
		}
		return;
	}
	if (op->rm != 31)
		it->in.r[op->rm] = below(random, 512);
	for (unsigned n = 0; n < elements; n++)
		set_element(op, it->vectors.z[op->rn], n, address + below(random, 1024));
}

/* The prologue's word makes the others: bits 23:22 of a copy, 15:14 of a fill. */
static void aim_copy(struct random *random, const struct sandbox *box, struct slot_instance *it, uint64_t address)
{
	unsigned rd = below(random, 31), rs = (rd + 1 + below(random, 15)) % 31,
		 rn = (rd + 16 + below(random, 15)) % 31;
	bool fill = it->op.addressing == TAGTSO_REACH_FILL;
	uint64_t size = below(random, chance(random, 50) ? 64 : 3000), source;

	it->words[0] = (it->words[0] & ~(fill ? 0x1fc3ffu : 0xdf03ffu)) | rs << 16 | rn << 5 | rd;
	for (unsigned i = 1; i < 3; i++)
		it->words[i] = it->words[0] + i * (fill ? 1u << 14 : 1u << 22);
	it->nwords = 3;
	tagtso_decode(it->words[0], &it->op);
	source = chance(random, 40) ? address + below(random, 600) - 300
	                            : (uint64_t)box->base + DATA + below(random, PAGE);
	if (chance(random, 10)) /* ends in memory that is not there */
		address = (uint64_t)box->base + NONE - size / 2;
	it->in.r[rd] = address;
	it->in.r[rn] = size;
	if (!fill)
		it->in.r[rs] = source;
}

/* With the zero modifier and the key of the word. */
static uint64_t authenticated(const struct tagtso_memop *op, uint64_t address)
{
	if (op->word & 1 << 23)
		__asm__(".arch_extension pauth\n\tpacdzb %0" : "+r"(address));
	else
		__asm__(".arch_extension pauth\n\tpacdza %0" : "+r"(address));
	return address;
}

static void aim_slot(struct random *random, const struct sandbox *box, struct slot_instance *it)
{
	const struct tagtso_memop *op = &it->op;
	uint64_t address = (uint64_t)box->base + DATA + PAGE + below(random, 2 * PAGE);
	int64_t offset = (int64_t)((uint64_t)(it->words[0] >> 12 & 0x1ff) << 55) >> 55;

	if (chance(random, 50))
		address &= ~63ull;
	/* Over the end of what may be written, of what may be read, of all. Those of SME begin there: QEMU 10 ends with a failed assertion when one comes to a page
	 * that is not there by elements that are not active (sme_ld1 in target/arm/tcg/sme_helper.c). */
	if (chance(random, 10))
		address = (uint64_t)box->base +
		          (chance(random, 50)   ? NONE
		           : chance(random, 50) ? READONLY
		                                : HOLE) -
		          (it->array ? 0 : below(random, 128));
	if (is_copy(op)) {
		aim_copy(random, box, it, address);
	} else if (is_authenticated(op)) {
		offset = (it->words[0] & 1 << 22 ? offset - 512 : offset + (offset < 0 ? 512 : 0)) * 8;
		it->in.r[op->rn] = authenticated(op, address - (uint64_t)offset);
	} else {
		it->in.r[it->words[0] >> 16 & 31] = below(random, 64); /* an index, if it has one */
		it->in.r[op->rn] = op->rn == 31 ? address & ~15ull : address | top_byte(random);
	}
	if (is_gather(op))
		aim_elements(random, it, address);
}

static bool make_slot(struct random *random, const struct sandbox *box, const struct slot_class *class,
                      struct slot_instance *it)
{
	fill_registers(random, &it->in);
	fill_vectors(random, it);
	if (it->array)
		fill_array(random, it->array);
	if (!slot_word(random, class, it))
		return false;
	aim_slot(random, box, it);
	for (unsigned i = 0; i < 32; i++)
		memcpy(&it->in.v[i], it->vectors.z[i], 16);
	for (unsigned i = 0; i < DATA_BYTES; i += 8) {
		uint64_t r = next(random);

		memcpy(it->data + i, &r, 8);
	}
	return true;
}

/* ---- one instance ------------------------------------------------------------------------------------------------------ */

static enum tagtso_exec into_slot(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	const struct tagtso_monitor none = { .held = false };
	struct tagtso_memop op;

	if (tagtso_decode(word, &op) || op.cls != TAGTSO_OUT_OF_LINE)
		box->wrong = "another word trapped";
	else if (!tagtso_outofline_enter(frame->uc, word, false, &none))
		box->wrong = "no slot";
	return box->wrong ? TAGTSO_EXEC_UNKNOWN : TAGTSO_EXEC_DONE;
}

/* Tag checks are off: in memory that may be written, granules have various tags. */
static void copy_unchecked(void *to, const void *from, size_t bytes)
{
	if (have_mte)
		__asm__ volatile("msr tco, #1" ::: "memory");
	memcpy(to, from, bytes);
	if (have_mte)
		__asm__ volatile("msr tco, #0" ::: "memory");
}

static void copy_data(void *to, const void *from)
{
	copy_unchecked(to, from, DATA_BYTES);
}

static char *edge(const struct sandbox *box, unsigned i)
{
	return box->base + (i ? HOLE : READONLY) - EDGE;
}

/* What only user-mode emulation has gets there by breakpoints. SME: Linux 6.12 does not offer it, and QEMU 10's user-mode emulation checks no tags for LD1 and
 * ST1 of SVE and SME (target/arm/tcg/sve_helper.c looks for the page's flags in what has none). The rare ones: QEMU 11 has them, and checks the tags of some. */
static void perform_slot(struct sandbox *box, const struct slot_instance *it, bool trapping,
                         struct slot_outcome *outcome)
{
	static struct vectors in;

	copy_data(box->base + DATA, it->data);
	for (unsigned i = 0; i < 2; i++)
		copy_unchecked(edge(box, i), it->data, EDGE);
	in = it->vectors;
	box->vectors_in = have_sve() ? &in : NULL;
	box->vectors_out = have_sve() ? &outcome->vectors : NULL;
	box->array_in = it->array;
	box->array_out = it->array ? &outcome->array : NULL;
	box->in = it->in;
	box->mte = trapping && !it->breaks;
	box->interpret = into_slot;
	for (unsigned i = 0; i < 4; i++)
		put_word(box, MIDDLE + i, i < it->nwords ? it->words[i] : (uint32_t)BRK_EXIT);
	if (trapping && it->breaks) {
		box->trapped = it->words[0];
		put_word(box, MIDDLE, BRK_TRAP);
	}
	run(box);
	box->mte = false;
	box->vectors_in = box->vectors_out = NULL;
	box->array_in = box->array_out = NULL;
	outcome->faulted = box->faulted;
	outcome->fault = box->fault;
	outcome->out = box->out;
	copy_data(outcome->data, box->base + DATA);
	for (unsigned i = 0; i < 2; i++)
		copy_unchecked(outcome->edges[i], edge(box, i), EDGE);
}

static const char *difference_of_vectors(const struct vectors *a, const struct vectors *b)
{
	static char text[80];

	for (unsigned i = 0; have_sve() && i < 32; i++) {
		snprintf(text, sizeof(text), "z%u or p%u differs", i, i);
		if (memcmp(a->z[i], b->z[i], a->bytes) || (i < 16 && memcmp(a->p[i], b->p[i], a->bytes / 8)))
			return text;
	}
	return have_sve() && memcmp(a->ffr, b->ffr, a->bytes / 8) ? "FFR differs" : NULL;
}

static const char *difference_of_arrays(const struct array *a, const struct array *b)
{
	static char text[80];

	if (!a->bytes || a->bytes != b->bytes)
		return "the array is off, or of another size";
	for (unsigned i = 0; i < a->bytes; i++) {
		snprintf(text, sizeof(text), "row %u of ZA differs", i);
		if (memcmp(a->row[i], b->row[i], a->bytes))
			return text;
	}
	return NULL;
}

/* Also after a fault everything is the processor's own, such as how far a copy had come; only vectors half loaded are not defined. */
static const char *difference_of_slots(const struct slot_instance *it, struct slot_outcome *a,
                                       const struct slot_outcome *b)
{
	if (a->faulted != b->faulted)
		return a->faulted ? "only the native one faulted" : "only the one out of line faulted";
	if (a->faulted)
		count_fault(&a->fault);
	if (a->faulted && memcmp(&a->fault, &b->fault, sizeof(a->fault)))
		return difference_of_faults(&a->fault, &b->fault);
	if (memcmp(a->data, b->data, DATA_BYTES) || memcmp(a->edges, b->edges, sizeof(a->edges)))
		return "memory differs";
	if (a->faulted && is_rare(&it->op)) { /* nor is what a load leaves */
		a->out.r[it->words[0] & 31] = b->out.r[it->words[0] & 31];
		a->out.r[it->words[0] >> 16 & 31] = b->out.r[it->words[0] >> 16 & 31];
	}
	if (a->faulted && !is_copy(&it->op)) {
		memcpy(a->out.v, b->out.v, sizeof(a->out.v));
		a->vectors = b->vectors;
		a->array = b->array;
	}
	const char *what = difference_of_registers(&a->out, &b->out);

	if (!what)
		what = difference_of_vectors(&a->vectors, &b->vectors);
	return what || !it->array ? what : difference_of_arrays(&a->array, &b->array);
}

/* ---- reach ------------------------------------------------------------------------------------------------------------- */

static void tag_range(uint64_t va, uint64_t len, void *argument)
{
	const struct sandbox *box = argument;
	uint64_t from = (uint64_t)box->base + DATA, to = (uint64_t)box->base + NONE;

	if (va + len <= from || va >= to)
		return;
	from = va > from ? va : from;
	to = va + len < to ? va + len : to;
	set_tags(from, to - from, MEMORY_TAG);
}

static enum tagtso_exec outside_reach(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	(void)word, (void)frame;
	box->wrong = "it accesses more than its reach";
	return TAGTSO_EXEC_UNKNOWN;
}

/* Addresses get the right tag. */
static void tag_pointers(struct slot_instance *it)
{
	const struct tagtso_memop *op = &it->op;

	if (is_copy(op)) {
		it->in.r[op->rt] = (it->in.r[op->rt] << 8 >> 8) | data_tag();
		if (op->addressing == TAGTSO_REACH_COPY)
			it->in.r[op->rs] = (it->in.r[op->rs] << 8 >> 8) | data_tag();
	} else if (op->addressing == TAGTSO_REACH_OFFSETS) {
		it->in.r[op->rn] = (it->in.r[op->rn] << 8 >> 8) | data_tag();
	} else {
		for (unsigned n = 0; n < 256; n += 8) {
			uint64_t address;

			memcpy(&address, it->vectors.z[op->rn] + n, 8);
			address = (address << 8 >> 8) | data_tag();
			memcpy(it->vectors.z[op->rn] + n, &address, 8);
		}
		memcpy(&it->in.v[op->rn], it->vectors.z[op->rn], 16);
	}
}

/* In a frame such as the kernel makes, for tagtso_outofline_reach(). */
static void frame_of(const struct slot_instance *it, struct tagtso_frame *frame)
{
	static union {
		struct sve_context sve;
		unsigned char bytes[32 * 1024];
	} context;

	*frame = (struct tagtso_frame){ .x = (unsigned long long *)it->in.r };
	if (!have_sve())
		return;
	context.sve.vl = (uint16_t)(prctl(PR_SVE_GET_VL) & PR_SVE_VL_LEN_MASK);
	restore_vectors(&context.sve, &it->vectors);
	frame->sve = &context.sve;
}

/* Everything but the reach of each word has a wrong tag; the words of a copy begin where the one before ended. */
static const char *check_reach(struct sandbox *box, const struct slot_instance *whole)
{
	static struct slot_instance it;
	const char *what = NULL;

	it = *whole;
	tag_pointers(&it);
	for (unsigned i = 0; i < whole->nwords && !what; i++) {
		struct tagtso_frame frame;

		it.words[0] = whole->words[i];
		it.nwords = 1;
		tagtso_decode(it.words[0], &it.op);
		if (options.plant == PLANT_SHIFT)
			it.op.shift = 0;
		if (options.plant == PLANT_SIZE) /* a copy's size after its prologue counts up to 0 */
			it.op.index = 0;
		frame_of(&it, &frame);
		set_tags((uint64_t)box->base + DATA, DATA_BYTES, MEMORY_TAG ^ 2);
		tagtso_outofline_reach(&it.op, &frame, 1 << 16, tag_range, box);
		copy_data(box->base + DATA, it.data);
		box->in = it.in;
		box->vectors_in = have_sve() ? &it.vectors : NULL;
		box->mte = true;
		box->interpret = outside_reach;
		put_word(box, MIDDLE, it.words[0]);
		put_word(box, MIDDLE + 1, BRK_EXIT);
		run(box);
		what = box->wrong;
		it.in = box->out;
		copy_data(it.data, box->base + DATA);
	}
	box->mte = false;
	box->vectors_in = NULL;
	set_tags((uint64_t)box->base + DATA, DATA_BYTES, MEMORY_TAG);
	return what;
}

/* ---- the runs ---------------------------------------------------------------------------------------------------------- */

/* False if this processor does not have the word. */
static bool one_slot(struct sandbox *box, const struct slot_instance *it, unsigned *trapped)
{
	static struct slot_outcome native, slot;
	const char *what;

	perform_slot(box, it, false, &native);
	bool here = !native.faulted || native.fault.signo != SIGILL;

	if (!here && !it->breaks)
		return false;
	perform_slot(box, it, true, &slot);
	if (!here) {
		if (!slot.faulted || memcmp(&native.fault, &slot.fault, sizeof(slot.fault)))
			failed(it->class, it->number, it->words[0], "out of line",
			       difference_of_faults(&native.fault, &slot.fault));
		return false;
	}
	*trapped += box->traps > 0;
	what = box->wrong;
	if (!box->traps && slot.faulted)
		return true; /* the processor's own, before it looked at tags */
	if (!what && box->slots + box->faulted < box->traps)
		what = "a slot was not left";
	if (!what)
		what = difference_of_slots(it, &native, &slot);
	/* A vector of 32-bit addresses reaches no data here. */
	if (!what && !native.faulted &&
	    (is_copy(&it->op) ||
	     (is_gather(&it->op) && (it->op.size == 3 || it->op.addressing == TAGTSO_REACH_OFFSETS))))
		what = check_reach(box, it);
	if (what)
		failed(it->class, it->number, it->words[0], "out of line", what);
	return true;
}

static const struct slot_class *slot_class(const char *name)
{
	const struct slot_class *class = slot_classes;

	while (strcmp(class->name, name))
		class ++;
	return class;
}

/* In stretches, since it is a system call. */
static void set_length(const struct slot_class *class, unsigned stretch)
{
	static const unsigned lengths[] = { 16, 32, 64, 256, 48 }, streaming[] = { 16, 32, 64, 256, 128 };

	if (class->sve)
		prctl(PR_SVE_SET_VL, lengths[stretch % 5]);
	if (class->sme)
		prctl(PR_SME_SET_VL, streaming[stretch % 5]);
}

static void slot_runs(const struct slot_class *class, unsigned count)
{
	static struct slot_instance it;
	static struct array array;
	unsigned before = failures, done = 0, trapped = 0, missing = 0;
	struct sandbox box;
	char sentence[200];

	sandbox_init(&box);
	for (unsigned i = 0; i < count * 16 && done < count && (done || missing < 5000); i++) {
		struct random random = random_of(class->name, i);

		if (options.only >= 0 && options.only != i)
			continue;
		if (i % 64 == 0 || options.only >= 0)
			set_length(class, i / 64);
		it.array = class->sme ? &array : NULL;
		it.breaks = class->breaks;
		it.class = class->name;
		it.number = i;
		if (!make_slot(&random, &box, class, &it) || !one_slot(&box, &it, &trapped))
			missing++;
		else
			done++;
	}
	sandbox_free(&box);
	if (!done) {
		printf("# %s: not here: this processor has none of these\n", class->name);
		return;
	}
	snprintf(sentence, sizeof(sentence),
	         "%u %s out of line, %u of them by traps: all registers, memory and faults are those of the processor",
	         done, class->name, trapped);
	result(failures == before && trapped > done / 4, sentence);
}

/* Each stays where it is until all are there. */
enum { CROWD = 100 };

static struct {
	pthread_barrier_t all;
	_Atomic unsigned next;
	uint64_t page[CROWD];
} crowd;

static void *joins_crowd(void *argument)
{
	const struct tagtso_monitor none = { .held = false };
	static const uint32_t word = NOP;
	bool entered, finished;
	ucontext_t uc = { .uc_mcontext.pc = (uint64_t)&word };
	unsigned number = atomic_fetch_add(&crowd.next, 1);

	if (number % 2)
		entered = tagtso_outofline_enter(&uc, word, false, &none);
	else
		entered = tagtso_outofline_enter_loop(&uc, &word, 1);
	crowd.page[number] = entered ? uc.uc_mcontext.pc / PAGE : 0;
	pthread_barrier_wait(&crowd.all);
	if (entered)
		tagtso_outofline_leave(&uc, NULL, &finished, NULL);
	return argument;
}

/* outofline-arm64.c says why. */
static void pages_of_threads(void)
{
	pthread_t threads[CROWD];
	bool apart = true;

	pthread_barrier_init(&crowd.all, NULL, CROWD);
	for (unsigned i = 0; i < CROWD; i++) {
		if (pthread_create(&threads[i], NULL, joins_crowd, NULL))
			exit(125);
	}
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < CROWD; i++) {
		for (unsigned j = 0; j < i; j++)
			apart &= crowd.page[i] && crowd.page[i] != crowd.page[j];
	}
	failures += !apart;
	result(apart, "threads that are out of line at the same time are in pages of their own");
}

static void out_of_line(void)
{
	if (wanted("pages"))
		pages_of_threads();
	if (!have_mte) {
		printf("# out of line: not here: words get there by their tags\n");
		return;
	}
	for (unsigned i = 0; i < sizeof(slot_classes) / sizeof(slot_classes[0]); i++) {
		if (wanted(slot_classes[i].name) && is_here(&slot_classes[i]))
			slot_runs(&slot_classes[i], options.count);
	}
}

#endif
