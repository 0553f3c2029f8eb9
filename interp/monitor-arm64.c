/* SPDX-License-Identifier: MIT */
/* Carries out the exclusives of an LL/SC loop one by one. Handler code: no libc, no locks, no TLS (I6). */
#include "monitor.h"

#include "../alloc/tags.h"
#include "alu.h"

enum { GRANULE = 16 };

static uint64_t granule_of(uint64_t address)
{
	return address & ~(uint64_t)(GRANULE - 1);
}

/* ---- bytes of a granule ---------------------------------------------------------------------------------------------------- */

static uint64_t mask_of(unsigned bytes)
{
	return bytes < 8 ? (UINT64_C(1) << 8 * bytes) - 1 : ~UINT64_C(0);
}

/* Up to eight bytes that do not straddle the halves. */
static uint64_t extract(const uint64_t value[2], uint64_t address, unsigned bytes)
{
	return value[address / 8 & 1] >> 8 * (address & 7) & mask_of(bytes);
}

static void insert(uint64_t value[2], uint64_t address, unsigned bytes, uint64_t part)
{
	unsigned shift = 8 * (unsigned)(address & 7);
	uint64_t *half = &value[address / 8 & 1];

	*half = (*half & ~(mask_of(bytes) << shift)) | (part & mask_of(bytes)) << shift;
}

static uint64_t get(const struct tagtso_frame *frame, unsigned n)
{
	return n == 31 ? 0 : frame->x[n];
}

static void set(struct tagtso_frame *frame, unsigned n, uint64_t value)
{
	if (n != 31)
		frame->x[n] = value;
}

/* ---- the exclusives -------------------------------------------------------------------------------------------------------- */

/* One access to the granule, with regs[0] to [3]; a fault is reported where `op` would have had it. */
static enum tagtso_exec access_whole(unsigned cls, uint64_t address, unsigned tag, unsigned long long *regs,
                                     struct tagtso_fault *fault)
{
	const struct tagtso_memop whole = {
		.cls = cls,
		.size = 3,
		.count = 2,
		.rs = 0,
		.rt = cls == TAGTSO_LOAD_PAIR ? 0 : 2,
		.rt2 = 1,
	};
	struct tagtso_frame frame = { .x = regs };
	enum tagtso_exec result =
		tagtso_exec(&whole, &frame, TAGTSO_WITH_TAG(granule_of(address), tag), TAGTSO_PLAIN, fault);

	if (result == TAGTSO_EXEC_FAULT)
		fault->address = address;
	return result;
}

enum tagtso_exec tagtso_monitor_load(struct tagtso_monitor *monitor, const struct tagtso_memop *op,
                                     struct tagtso_frame *frame, unsigned tag, struct tagtso_fault *fault)
{
	uint64_t address = tagtso_exec_address(op, frame);
	unsigned bytes = (unsigned)op->count << op->size, each = 1u << op->size;
	unsigned long long regs[TAGTSO_NREGS];
	enum tagtso_exec result;

	if (address & (bytes - 1))
		return TAGTSO_EXEC_UNKNOWN;
	/* A LOCK'd operation is a full fence, also when it goes no further than to here. */
	__asm__ volatile("dmb ish" ::: "memory");
	result = access_whole(TAGTSO_LOAD_PAIR, address, tag, regs, fault);
	__asm__ volatile("dmb ish" ::: "memory");
	if (result != TAGTSO_EXEC_DONE)
		return result;
	monitor->held = true;
	monitor->granule = granule_of(address);
	monitor->value[0] = regs[0];
	monitor->value[1] = regs[1];
	set(frame, op->rt, extract(monitor->value, address, each));
	if (op->count == 2)
		set(frame, op->rt2, extract(monitor->value, address + each, each));
	frame->x[TAGTSO_PC] += 4;
	return TAGTSO_EXEC_DONE;
}

static enum tagtso_exec swap(const struct tagtso_memop *op, const struct tagtso_frame *frame, uint64_t address,
                             unsigned tag, const struct tagtso_monitor *monitor, bool *same, struct tagtso_fault *fault)
{
	uint64_t new[2] = { monitor->value[0], monitor->value[1] };
	unsigned long long regs[TAGTSO_NREGS];
	enum tagtso_exec result;

	insert(new, address, 1u << op->size, get(frame, op->rt));
	if (op->count == 2)
		insert(new, address + (1u << op->size), 1u << op->size, get(frame, op->rt2));
	for (unsigned i = 0; i < 2; i++) {
		regs[i] = monitor->value[i];
		regs[2 + i] = new[i];
	}
	result = access_whole(TAGTSO_CASP, address, tag, regs, fault);
	*same = regs[0] == monitor->value[0] && regs[1] == monitor->value[1];
	return result;
}

enum tagtso_exec tagtso_monitor_store(struct tagtso_monitor *monitor, const struct tagtso_memop *op,
                                      struct tagtso_frame *frame, unsigned tag, struct tagtso_fault *fault)
{
	uint64_t address = tagtso_exec_address(op, frame);
	unsigned bytes = (unsigned)op->count << op->size;
	bool same = false;

	if (monitor->held && monitor->granule == granule_of(address) && !(address & (bytes - 1))) {
		enum tagtso_exec result = swap(op, frame, address, tag, monitor, &same, fault);

		if (result != TAGTSO_EXEC_DONE) {
			monitor->held = result == TAGTSO_EXEC_TAG;
			return result;
		}
	}
	monitor->held = false;
	set(frame, op->rs, !same);
	frame->x[TAGTSO_PC] += 4;
	return TAGTSO_EXEC_DONE;
}

/* ---- an ordinary store in between -------------------------------------------------------------------------------------------- */

/* As an exchange, which tells what it overwrites; on copies of the registers, since one of them gets that. */
static enum tagtso_exec exchange(const struct tagtso_memop *op, struct tagtso_frame *frame, uint64_t pointer,
                                 enum tagtso_order order, uint64_t *old, struct tagtso_fault *fault)
{
	unsigned long long regs[TAGTSO_NREGS];
	struct tagtso_frame copy = { .x = regs };
	struct tagtso_memop swp = *op;
	enum tagtso_exec result;

	for (unsigned i = 0; i < TAGTSO_NREGS; i++)
		((volatile unsigned long long *)regs)[i] = frame->x[i]; /* volatile: not a call of memcpy */
	swp.cls = TAGTSO_LSE;
	swp.lse = TAGTSO_LSE_SWP;
	swp.rs = op->rt;
	swp.rt = 0;
	while (swp.rt == op->rt || swp.rt == op->rn)
		swp.rt++;
	result = tagtso_exec(&swp, &copy, pointer, order, fault);
	if (result != TAGTSO_EXEC_DONE)
		return result;
	*old = regs[swp.rt];
	frame->x[op->rn] = regs[op->rn]; /* write-back; 31 is SP, by position too */
	frame->x[TAGTSO_PC] = regs[TAGTSO_PC];
	return TAGTSO_EXEC_DONE;
}

enum tagtso_exec tagtso_monitor_write(struct tagtso_monitor *monitor, const struct tagtso_memop *op,
                                      struct tagtso_frame *frame, uint64_t pointer, enum tagtso_order order,
                                      struct tagtso_fault *fault)
{
	uint64_t address = pointer << 8 >> 8, stored = get(frame, op->rt), old;
	unsigned bytes = 1u << op->size;
	enum tagtso_exec result;

	if (op->cls != TAGTSO_STORE || op->flags & TAGTSO_F_VECTOR || address & (bytes - 1))
		return tagtso_exec(op, frame, pointer, order, fault);
	result = exchange(op, frame, pointer, order, &old, fault);
	if (result == TAGTSO_EXEC_DONE) {
		monitor->held = (old & mask_of(bytes)) == extract(monitor->value, address, bytes);
		insert(monitor->value, address, bytes, stored);
	}
	return result;
}
