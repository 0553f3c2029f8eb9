/* SPDX-License-Identifier: MIT */
/* Slots of relocated instructions: the exact execution of what is too rare, or too new, for the decoder. Handler code (I6). */
#include "outofline.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../alloc/sys.h"

enum {
	SLOTS = 1024,
	CODE_WORDS = 4,
	PSTATE_TCO = 1 << 25,
};

/* One slot. `owner` is 0 when free; taken by compare-and-swap by the handler of the thread that it serves, freed by that thread's next trap. */
struct slot {
	_Atomic uint32_t code[CODE_WORDS];
	_Atomic uint32_t owner; /* kernel thread id */
	uint32_t tco;           /* PSTATE.TCO before */
	uint64_t pc;            /* where the word belongs */
	uint32_t pad[8];
};
_Static_assert(sizeof(struct slot) == 64, "a cache line of its own: slots are code");

static struct slot *slots; /* SLOTS of them, then a page without access */

int tagtso_outofline_init(void)
{
	uint64_t bytes = SLOTS * sizeof(struct slot);
	long p = tagtso_sys(__NR_mmap, 0, bytes + 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
	                    -1, 0);

	if (tagtso_sys_failed(p))
		return (int)p;
	long r = tagtso_sys(__NR_mprotect, p + (long)bytes, 4096, PROT_NONE);

	if (r < 0)
		return (int)r;
	slots = (struct slot *)p;
	return 0;
}

static void write_code(struct slot *s, uint32_t word)
{
	uint64_t guard = (uint64_t)(slots + SLOTS), at = (uint64_t)&s->code[3];
	const uint32_t dmb_ish = 0xd5033bbf;
	/* LDR XZR, guard: imm19 at bits 23:5 counts words */
	uint32_t stop = 0x58000000 | (uint32_t)((guard - at) / 4 & 0x7ffff) << 5 | 31;

	atomic_store_explicit(&s->code[0], dmb_ish, memory_order_relaxed);
	atomic_store_explicit(&s->code[1], word, memory_order_relaxed);
	atomic_store_explicit(&s->code[2], dmb_ish, memory_order_relaxed);
	atomic_store_explicit(&s->code[3], stop, memory_order_relaxed);
	/* Only this thread executes it; another core that it may move to gets there through the kernel's context synchronisation. */
	__asm__ volatile("dc cvau, %0\n\tdsb ish\n\tic ivau, %0\n\tdsb ish\n\tisb" ::"r"(s) : "memory");
}

/* A thread that left a slot by longjmp takes its old one again, so that slots cannot run out in one thread. */
static struct slot *take(uint32_t self)
{
	for (int i = 0; i < SLOTS; i++) {
		if (atomic_load_explicit(&slots[i].owner, memory_order_relaxed) == self)
			return &slots[i];
	}
	for (int i = 0; i < SLOTS; i++) {
		uint32_t none = 0;

		if (atomic_compare_exchange_strong_explicit(&slots[i].owner, &none, self, memory_order_acquire,
		                                            memory_order_relaxed))
			return &slots[i];
	}
	return NULL;
}

bool tagtso_outofline_enter(ucontext_t *uc, uint32_t word)
{
	struct slot *s = slots ? take((uint32_t)tagtso_sys(__NR_gettid)) : NULL;

	if (!s)
		return false;
	s->pc = uc->uc_mcontext.pc;
	s->tco = uc->uc_mcontext.pstate & PSTATE_TCO;
	write_code(s, word);
	uc->uc_mcontext.pstate |= PSTATE_TCO;
	uc->uc_mcontext.pc = (uint64_t)s->code;
	return true;
}

bool tagtso_outofline_leave(ucontext_t *uc, bool *finished)
{
	uint64_t pc = uc->uc_mcontext.pc;

	if (!slots || pc < (uint64_t)slots || pc >= (uint64_t)(slots + SLOTS))
		return false;
	struct slot *s = (struct slot *)(pc & ~(uint64_t)(sizeof(struct slot) - 1));

	*finished = pc > (uint64_t)&s->code[1];
	uc->uc_mcontext.pc = s->pc + (*finished ? 4 : 0);
	uc->uc_mcontext.pstate = (uc->uc_mcontext.pstate & ~(uint64_t)PSTATE_TCO) | s->tco;
	atomic_store_explicit(&s->owner, 0, memory_order_release);
	return true;
}
