/* SPDX-License-Identifier: MIT */
/* Runs words of arm64 code with registers and memory of our choice, natively or with chosen words interpreted, and brings the result back. */
#ifndef TAGTSO_TESTS_SANDBOX_H
#define TAGTSO_TESTS_SANDBOX_H

#include <asm/hwcap.h>
#include <asm/sigcontext.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "interp/alu.h"
#include "interp/decode.h"
#include "interp/exec.h"
#include "interp/outofline.h"

#ifndef SEGV_MTESERR
#define SEGV_MTESERR 9
#endif
#ifndef HWCAP2_MTE
#define HWCAP2_MTE (1 << 18)
#endif
#ifndef PROT_MTE
#define PROT_MTE 0x20
#endif

#define PSTATE_TCO (1ull << 25)
#define PSTATE_NZCV (15ull << 28)

enum {
	PAGE = 4096,
	CODE_WORDS = PAGE / 4,
	START = CODE_WORDS / 2 - 1, /* a word of our own */
	MIDDLE = CODE_WORDS / 2,    /* the word under test: branches reach both ways from here */
	MEMORY_TAG = 5,             /* of all data in a machine with MTE; pointers under test carry another */
	NOP = 0xd503201f,
	SUPPRESS_CHECKS = 0xd503419f | 1 << 8, /* MSR TCO, #1 */
	BRK_ENTER = 0xd4200000 | 0xe0 << 5,
	BRK_EXIT = 0xd4200000 | 0xe1 << 5,
	BRK_TRAP = 0xd4200000 | 0xe2 << 5, /* stands for a word that is to be interpreted */
};

/* Offsets in the sandbox. Past each end of writable data lies another kind of page. */
enum {
	CODE = 0,
	DATA = 2 * PAGE,
	NONE = 6 * PAGE,
	DATA2 = 7 * PAGE,
	READONLY = 8 * PAGE,
	DATA3 = 9 * PAGE,
	HOLE = 10 * PAGE,
	SANDBOX = 11 * PAGE
};

struct registers {
	unsigned long long r[TAGTSO_NREGS];
	__uint128_t v[32];
};

/* SVE's registers, as long as the processor's may be. */
struct vectors {
	unsigned bytes; /* of one vector */
	unsigned char z[32][256], p[16][32], ffr[32];
};

/* SME's array, of the longest streaming vectors. */
struct array {
	unsigned bytes; /* of one row, and how many rows */
	unsigned char row[256][256];
};

/* What the run in progress on this thread is. */
struct sandbox {
	char *base;
	uint32_t *code;
	struct registers in, out;
	struct vectors *vectors_in, *vectors_out; /* NULL: the run begins with whatever lies above bit 128 */
	struct array *array_in, *array_out;       /* both or none: the run is in streaming mode, with the array */
	bool moves;                               /* interpret() lets the loop run elsewhere */
	bool mte;                                 /* the words trap by themselves, by their tags */
	uint32_t trapped;                         /* the word that BRK_TRAP stands for */
	unsigned traps;                           /* interpreted so far */
	unsigned slots;                           /* left, of those that were entered */
	bool faulted;                             /* the run ended in a fault, natively or in the interpreter */
	struct tagtso_fault fault;
	enum tagtso_exec result;
	const char *wrong; /* what the handler found wrong */
	/* Called for each trapped word; what it returns goes to result, and anything but DONE ends the run. */
	enum tagtso_exec (*interpret)(struct sandbox *box, uint32_t word, struct tagtso_frame *frame);
	struct registers host;
};

static __thread struct sandbox *current;
static bool have_mte;

static void save(struct registers *to, const struct tagtso_frame *frame)
{
	memcpy(to->r, frame->x, sizeof(to->r));
	memcpy(to->v, frame->v, sizeof(to->v));
}

static void restore(const struct tagtso_frame *frame, const struct registers *from)
{
	struct sve_context *sve = frame->sve;

	memcpy(frame->x, from->r, sizeof(from->r));
	memcpy(frame->v, from->v, sizeof(from->v));
	/* QEMU's user-mode emulation takes vectors from here, the kernel from the record above. */
	for (unsigned i = 0; sve && i < 32; i++)
		memcpy((char *)sve + SVE_SIG_ZREG_OFFSET(sve_vq_from_vl(sve->vl), i), &from->v[i], 16);
}

static void *z_in_frame(struct sve_context *sve, unsigned n)
{
	return (char *)sve + SVE_SIG_ZREG_OFFSET(sve_vq_from_vl(sve->vl), n);
}

/* P15 is followed by FFR. */
static void *p_in_frame(struct sve_context *sve, unsigned n)
{
	return (char *)sve + SVE_SIG_PREG_OFFSET(sve_vq_from_vl(sve->vl), n);
}

static void restore_vectors(struct sve_context *sve, const struct vectors *from)
{
	for (unsigned i = 0; i < 32; i++)
		memcpy(z_in_frame(sve, i), from->z[i], sve->vl);
	for (unsigned i = 0; i < 17; i++)
		memcpy(p_in_frame(sve, i), i < 16 ? from->p[i] : from->ffr, sve->vl / 8);
}

static void save_vectors(struct vectors *to, struct sve_context *sve)
{
	to->bytes = sve->vl;
	for (unsigned i = 0; i < 32; i++)
		memcpy(to->z[i], z_in_frame(sve, i), sve->vl);
	for (unsigned i = 0; i < 17; i++)
		memcpy(i < 16 ? to->p[i] : to->ffr, p_in_frame(sve, i), sve->vl / 8);
}

/* NULL: the array is off. The kernel continues the records elsewhere where an extra_context says. */
static struct za_context *array_in_frame(const struct tagtso_frame *frame)
{
	struct _aarch64_ctx *at = (struct _aarch64_ctx *)frame->uc->uc_mcontext.__reserved, *next;

	for (; at->size; at = next) {
		next = (struct _aarch64_ctx *)((char *)at + at->size);
		if (at->magic == ZA_MAGIC && at->size > ZA_SIG_REGS_OFFSET)
			return (struct za_context *)at;
		if (at->magic == EXTRA_MAGIC)
			next = (struct _aarch64_ctx *)((struct extra_context *)at)->datap;
	}
	return NULL;
}

static void *row_in_frame(struct za_context *za, unsigned n)
{
	return (char *)za + ZA_SIG_ZAV_OFFSET(sve_vq_from_vl(za->vl), n);
}

static void save_array(struct sandbox *box, const struct tagtso_frame *frame)
{
	struct za_context *za = array_in_frame(frame);

	box->array_out->bytes = za ? za->vl : 0;
	for (unsigned i = 0; i < box->array_out->bytes; i++)
		memcpy(box->array_out->row[i], row_in_frame(za, i), za->vl);
}

static void restore_array(const struct tagtso_frame *frame, const struct array *from)
{
	struct za_context *za = array_in_frame(frame);

	for (unsigned i = 0; za && i < za->vl; i++)
		memcpy(row_in_frame(za, i), from->row[i], za->vl);
}

static void leave(struct sandbox *box, const struct tagtso_frame *frame)
{
	save(&box->out, frame);
	if (box->vectors_out && frame->sve)
		save_vectors(box->vectors_out, frame->sve);
	if (box->array_out)
		save_array(box, frame);
	restore(frame, &box->host);
}

static void enter(struct sandbox *box, const struct tagtso_frame *frame)
{
	save(&box->host, frame);
	box->host.r[TAGTSO_PC] += 4;
	restore(frame, &box->in);
	if (box->vectors_in && frame->sve)
		restore_vectors(frame->sve, box->vectors_in);
	if (box->array_in)
		restore_array(frame, box->array_in);
}

static void trap(struct sandbox *box, uint32_t word, struct tagtso_frame *frame)
{
	box->traps++;
	box->result = box->interpret(box, word, frame);
	if (box->result == TAGTSO_EXEC_DONE)
		return;
	box->faulted = box->result == TAGTSO_EXEC_FAULT;
	leave(box, frame);
}

static void native_fault(struct sandbox *box, const siginfo_t *info, const struct tagtso_frame *frame)
{
	box->faulted = true;
	box->fault = (struct tagtso_fault){ info->si_signo, info->si_code, (uint64_t)info->si_addr << 8 >> 8,
		                            frame->esr ? *frame->esr : 0 };
	leave(box, frame);
}

/* The kernel turns checks on at a handler's entry and restores them at its end; QEMU's user-mode emulation does neither. */
static void checks_on(void)
{
	if (have_mte)
		__asm__ volatile("msr tco, #0" ::: "memory");
}

static void checks_as(uint64_t pstate)
{
	if (have_mte)
		__asm__ volatile("msr tco, %0" ::"r"(pstate & PSTATE_TCO) : "memory");
}

static void on_signal(int number, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint64_t pc = uc->uc_mcontext.pc;
	struct sandbox *box = current;
	struct tagtso_frame frame;
	bool finished;
	uint32_t word;

	checks_on();
	if (tagtso_exec_owns(pc)) {
		tagtso_exec_fixup(uc, info);
		return;
	}
	if (!box) {
		signal(number, SIG_DFL);
		return;
	}
	tagtso_frame_init(&frame, uc);
	if (tagtso_outofline_leave(uc, info, &finished, NULL)) {
		box->slots += finished;
		if (!finished)
			native_fault(box, info, &frame);
		checks_as(frame.x[TAGTSO_PSTATE]);
		return;
	}
	memcpy(&word, (void *)pc, sizeof(word));
	if (number == SIGTRAP && word == (uint32_t)BRK_ENTER)
		enter(box, &frame);
	else if (number == SIGTRAP && word == (uint32_t)BRK_EXIT)
		leave(box, &frame);
	else if (number == SIGTRAP && word == (uint32_t)BRK_TRAP)
		trap(box, box->trapped, &frame);
	else if (pc - (uint64_t)box->code >= PAGE)
		signal(number, SIG_DFL);
	else if (number == SIGSEGV && info->si_code == SEGV_MTESERR && box->mte)
		trap(box, word, &frame);
	else
		native_fault(box, info, &frame);
	checks_as(frame.x[TAGTSO_PSTATE]);
}

static void put_word(struct sandbox *box, unsigned at, uint32_t word)
{
	box->code[at] = word;
	__builtin___clear_cache((char *)&box->code[at], (char *)&box->code[at + 1]);
}

/* Runs the code from MIDDLE to BRK_EXIT or a fault; fills out. In a run that shall not trap by tags, checks are off. */
static void run(struct sandbox *box)
{
	put_word(box, START, have_mte && !box->mte ? SUPPRESS_CHECKS : NOP);
	box->in.r[TAGTSO_PC] = (uint64_t)&box->code[START];
	box->in.r[TAGTSO_PSTATE] &= PSTATE_NZCV;
	box->traps = box->slots = 0;
	box->faulted = false;
	box->result = TAGTSO_EXEC_DONE;
	box->wrong = NULL;
	memset(&box->fault, 0, sizeof(box->fault));
	current = box;
	if (box->array_in)
		__asm__ volatile(".arch_extension sme\n\tsmstart\n\tbrk #0xe0\n\tsmstop" ::
		                         : "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10",
		                           "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21",
		                           "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
	else if (box->vectors_in) /* an instruction of SVE, so that its registers are in the signal frame */
		__asm__ volatile(".arch_extension sve\n\tptrue p0.b\n\tbrk #0xe0" ::: "memory");
	else
		__asm__ volatile("brk #0xe0" ::: "memory");
	current = NULL;
	checks_on();
	/* As if it had begun there. */
	box->in.r[TAGTSO_PC] = (uint64_t)&box->code[MIDDLE];
}

/* The tag for data's pointers: the one that the memory carries. */
static uint64_t data_tag(void)
{
	return have_mte ? (uint64_t)MEMORY_TAG << 56 : 0;
}

static void *data_pointer(uint64_t address)
{
	return (void *)(address | data_tag());
}

static void set_tags(uint64_t address, uint64_t bytes, unsigned tag)
{
	if (!have_mte)
		return;
	for (uint64_t p = address & ~15ull; p < address + bytes; p += 16)
		__asm__ volatile("stg %0, [%0]" ::"r"(p | (uint64_t)tag << 56) : "memory");
}

static void sandbox_init(struct sandbox *box)
{
	char *base = mmap(NULL, SANDBOX, PROT_READ | PROT_WRITE | (have_mte ? PROT_MTE : 0),
	                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED || mprotect(base, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC)) {
		perror("differential: mmap");
		exit(125);
	}
	memset(box, 0, sizeof(*box));
	box->base = base;
	box->code = (uint32_t *)base;
	for (unsigned i = 0; i < CODE_WORDS; i++)
		box->code[i] = BRK_EXIT;
	__builtin___clear_cache(base, base + PAGE);
	memset(base + READONLY, 0xaa, PAGE);
	set_tags((uint64_t)base + DATA, HOLE - DATA, MEMORY_TAG);
	if (mprotect(base + NONE, PAGE, PROT_NONE) || mprotect(base + READONLY, PAGE, PROT_READ) ||
	    munmap(base + HOLE, PAGE)) {
		perror("differential: mprotect");
		exit(125);
	}
}

static void sandbox_free(struct sandbox *box)
{
	munmap(box->base, SANDBOX);
}

/* Each thread that runs code needs this: the code's stack pointer is anything. */
static void own_signal_stack(void)
{
	stack_t stack = { .ss_size = 1 << 19 };

	stack.ss_sp = malloc(stack.ss_size);
	if (!stack.ss_sp || sigaltstack(&stack, NULL)) {
		perror("differential: sigaltstack");
		exit(125);
	}
}

static void process_init(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

	have_mte = getauxval(AT_HWCAP2) & HWCAP2_MTE;
	/* Synchronous checks; IRG inserts the memory's tag, as if it were this thread's. */
	if (have_mte && prctl(PR_SET_TAGGED_ADDR_CTRL, 1ul | 1ul << 1 | 1ul << MEMORY_TAG << 3, 0, 0, 0))
		have_mte = false;
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGILL, &action, NULL);
	sigaction(SIGTRAP, &action, NULL);
	own_signal_stack();
}

#endif
