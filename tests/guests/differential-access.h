/* SPDX-License-Identifier: MIT */
/* Words of each class that tagtso_exec() carries out: registers, memory, write-back, pc and faults. Part of differential.c. */
#ifndef TAGTSO_TESTS_DIFFERENTIAL_ACCESS_H
#define TAGTSO_TESTS_DIFFERENTIAL_ACCESS_H

#include "differential.h"

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
	for (unsigned cls = TAGTSO_LOAD; cls < TAGTSO_OUT_OF_LINE; cls++) {
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

#endif
