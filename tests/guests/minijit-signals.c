/* SPDX-License-Identifier: MIT */
/* The handlers of minijit, which look at where they find a thread as an emulator's do: by the pc they know the guest instruction, and by that where its registers
 * are. A pc in no code of ours, or registers that are not what the word at the pc says, are what the preload must never show.
 *
 *   timer    goes on; or advances the pc, changes a register, or jumps out (siglongjmp) where the code waits for that
 *   faults   of accesses that may fault: gives the register a value and goes on behind the access
 *   SIGBUS   of an acquire or release over 16 bytes: writes what FEX writes */
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "minijit-a64.h"
#include "minijit.h"

__thread struct thread *self;

/* Text of the program and its libraries, as it is at start-up. */
static struct {
	uint64_t from, to;
} texts[64];
static unsigned ntexts;

static int find_texts(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (int i = 0; i < info->dlpi_phnum && ntexts < 64; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
			texts[ntexts].from = info->dlpi_addr + p->p_vaddr;
			texts[ntexts++].to = info->dlpi_addr + p->p_vaddr + p->p_memsz;
		}
	}
	return 0;
}

static bool is_text(uint64_t pc)
{
	for (unsigned i = 0; i < ntexts; i++)
		if (pc >= texts[i].from && pc < texts[i].to)
			return true;
	return false;
}

/* ---- what a handler sees ---- */

struct seen {
	mcontext_t *m;
	struct slot *slot;
	long n; /* number of the word at the pc, or -1 */
	const struct word *word;
};

static struct seen look(void *context)
{
	struct seen s = { .m = &((ucontext_t *)context)->uc_mcontext, .n = -1 };

	s.slot = atomic_load_explicit(&self->running, memory_order_relaxed);
	if (s.slot)
		s.n = emit_word_at(s.slot, s.m->pc);
	s.word = s.n < 0 ? NULL : &s.slot->word[s.n];
	return s;
}

static uint64_t guest_register(const struct seen *s, unsigned guest)
{
	int host = flavour.host[guest];

	return host < 0 ? self->state.r[guest] : s->m->regs[host];
}

static void set_guest_register(const struct seen *s, unsigned guest, uint64_t v)
{
	int host = flavour.host[guest];

	if (host < 0)
		self->state.r[guest] = v;
	else
		s->m->regs[host] = v;
}

static void check(const struct seen *s, const char *what, uint64_t got, uint64_t wanted)
{
	if (got != wanted)
		wrong("%s is %#llx, not %#llx, at word %ld (guest instruction %u), thread %u", what,
		      (unsigned long long)got, (unsigned long long)wanted, s->n, s->word->insn, self->number);
}

/* The registers are those of the emulator's code just before the word at the pc. */
static void check_registers(const struct seen *s)
{
	static const char *const bases[] = { "the base of private memory", "the base of lanes", "the base of atomics",
		                             "the base of constants" };
	uint64_t twin2 = guest_register(s, R_TWIN2);
	const struct word *w = s->word;

	for (unsigned i = 0; i < 4; i++)
		check(s, bases[i], guest_register(s, R_PRIVATE + i), self->base[i]);
	check(s, "the stack pointer less its mirror", guest_register(s, R_SP) - guest_register(s, R_MIRROR),
	      (uint64_t)(int64_t)w->sp);
	check(s, "a register less its twin", guest_register(s, R_TWIN) - twin2, (uint64_t)(int64_t)w->twin);
	check(s, "a register's copy in memory less the register",
	      *(volatile uint64_t *)(uintptr_t)(self->base[0] + CELL_TWIN) - twin2, (uint64_t)(int64_t)w->cell);
}

/* ---- timer ---- */

/* Once: a timer that repeats by itself would leave no time between two of its signals where one takes longer than that. */
static void arm(const struct thread *t)
{
	const struct itimerspec once = { .it_value.tv_nsec = t->interval };

	syscall(SYS_timer_settime, t->timer, 0, &once, NULL);
}

static const struct fpsimd_context *find_vectors(const mcontext_t *m)
{
	const uint8_t *at = m->__reserved;

	for (;;) {
		struct _aarch64_ctx head;

		memcpy(&head, at, sizeof(head));
		if (head.magic == FPSIMD_MAGIC)
			return (const struct fpsimd_context *)(const void *)at;
		if (!head.magic)
			return NULL;
		at += head.size;
	}
}

/* The guest's registers as they are between two instructions, to where the code is entered with. */
static void jump_out(const struct seen *s)
{
	const struct fpsimd_context *v = find_vectors(s->m);

	self->counts.jumps++;
	if (flavour.emulator != QEMU) {
		for (unsigned i = 0; i < REGS; i++)
			self->state.r[i] = guest_register(s, i);
		for (unsigned i = 0; i < VECTORS; i++)
			memcpy(self->state.v[i], &v->vregs[flavour.vector + i], 16);
	}
	self->state.nzcv = s->m->pstate & UINT64_C(0xf0000000);
	self->resume = (const void *)(uintptr_t)s->m->pc;
	siglongjmp(self->again, 1);
}

static void edit(const struct seen *s)
{
	const struct insn *i;

	if (s->word->flags & WORD_AWAIT) {
		for (long n = s->n; s->slot->word[n].flags & WORD_AWAIT; n++)
			s->m->pc += 4;
		self->counts.skipped++;
	} else if (s->word->flags & WORD_AWAITR) {
		i = &self->program.insn[s->word->insn];
		set_guest_register(s, i->rd, 1);
		self->counts.changed++;
	} else if (options.jumps && (s->word->flags & WORD_START) && random_next(&self->seed) % 2) {
		jump_out(s);
	}
}

static void on_timer(int signo, siginfo_t *info, void *context)
{
	struct seen s = look(context);
	int error = errno;

	(void)signo;
	(void)info;
	self->counts.signals++;
	if (self->interval)
		arm(self);
	if (s.word && (s.word->flags & WORD_GUEST)) {
		self->counts.inside++;
		check_registers(&s);
		edit(&s);
	} else if (!s.word && !is_text(s.m->pc)) {
		wrong("a signal's handler sees pc %#llx, which is not the emulator's, thread %u",
		      (unsigned long long)s.m->pc, self->number);
	}
	errno = error;
}

/* ---- faults ---- */

static void die(const char *what, int signo, const siginfo_t *info, const struct seen *s)
{
	wrong("%s: signal %d, code %d, address %p, pc %#llx, word %ld, thread %u, seed %llu", what, signo,
	      info->si_code, info->si_addr, (unsigned long long)s->m->pc, s->n, self ? self->number : 0,
	      (unsigned long long)options.seed);
	_exit(3);
}

/* What the kernel says of an access to this page. */
static void check_kind(const struct seen *s, int signo, const siginfo_t *info, uint64_t va)
{
	for (unsigned n = 1; n < 4; n++) {
		const struct region *r = region_of(self->number, n);
		int wanted = r->kind == BEYOND_FILE ? SIGBUS : SIGSEGV;
		int code = r->kind == BEYOND_FILE         ? BUS_ADRERR
		           : r->kind == READ_ONLY         ? SEGV_ACCERR
		           : info->si_code == SEGV_ACCERR ? SEGV_ACCERR
		                                          : SEGV_MAPERR;

		if (va < r->va || va >= r->va + PAGE)
			continue;
		check(s, "the signal of a fault", (uint64_t)signo, (uint64_t)wanted);
		check(s, "the code of a fault", (uint64_t)info->si_code, (uint64_t)code);
	}
}

static void serve_fault(const struct seen *s, int signo, const siginfo_t *info)
{
	const struct insn *i = &self->program.insn[s->word->insn];
	uint64_t va = guest_register(s, R_ADDRESS) + (uint64_t)(int64_t)i->off;

	self->counts.faults++;
	check(s, "the address of a fault", (uint64_t)(uintptr_t)info->si_addr, va);
	check_kind(s, signo, info, va);
	for (unsigned n = 0; n < flavour.nlive; n++)
		check(s, "a register at a fault", s->m->regs[flavour.live[n]], self->state.snapshot[n]);
	check_registers(s);
	if (i->op == G_FLOAD && flavour.emulator == QEMU)
		s->m->regs[flavour.temp[1]] = fault_value(va);
	else if (i->op == G_FLOAD)
		set_guest_register(s, i->rd, fault_value(va));
	s->m->pc += 4;
}

/* ---- FEX's handler for what crosses 16 bytes ---- */

static atomic_flag patching = ATOMIC_FLAG_INIT;

static void write_code(const struct slot *slot, long n, uint32_t word)
{
	__atomic_store_n(&slot->write[n], word, __ATOMIC_RELEASE);
	__builtin___clear_cache((char *)&slot->write[n], (char *)&slot->write[n + 1]);
	if (slot->code != slot->write)
		__builtin___clear_cache((char *)&slot->code[n], (char *)&slot->code[n + 1]);
}

enum { REGISTERS = 0x3ff, IMM9 = 0x1ff000 };
#define SIZE UINT32_C(0xc0000000)

/* The barrier first, so that each state between is at least as strong. Returns by how much the pc changes, or 1 if the word is none that it knows. */
static int backpatch(const struct slot *slot, long n)
{
	uint32_t word = slot->code[n], fields = word & (SIZE | REGISTERS), immediate = word & IMM9;
	uint32_t op = word & ~(SIZE | REGISTERS), op9 = op & ~(uint32_t)IMM9, xzr = (uint32_t)XZR << 16;

	if (op == LDAPR_ || op == LDAR_ || op9 == LDAPUR_) {
		if (slot->code[n + 1] != NOP && slot->code[n + 1] != DMB_LD)
			return 1;
		write_code(slot, n + 1, DMB_LD);
		write_code(slot, n, fields | (op9 == LDAPUR_ ? LDUR | immediate : LDR_REG | xzr));
		return 0;
	}
	if (op == STLR_ || op9 == STLUR_) {
		if (slot->code[n - 1] != NOP && slot->code[n - 1] != DMB_ISH)
			return 1;
		write_code(slot, n - 1, DMB_ISH);
		write_code(slot, n, fields | (op9 == STLUR_ ? STUR | immediate : STR_REG | xzr));
		return -4;
	}
	self->counts.repeated++; /* by another thread */
	if ((op == (LDR_REG | xzr) || op9 == LDUR) && slot->code[n + 1] == DMB_LD)
		return 0;
	return (op == (STR_REG | xzr) || op9 == STUR) && slot->code[n - 1] == DMB_ISH ? -4 : 1;
}

static void serve_alignment(const struct seen *s, const siginfo_t *info)
{
	int by;

	check_registers(s);
	self->counts.backpatched++;
	while (atomic_flag_test_and_set_explicit(&patching, memory_order_acquire))
		;
	by = backpatch(s->slot, s->n);
	atomic_flag_clear_explicit(&patching, memory_order_release);
	if (by == 1) {
		wrong("SIGBUS at word %ld, which is %08x between %08x and %08x: nothing that FEX's handler knows", s->n,
		      s->slot->code[s->n], s->slot->code[s->n - 1], s->slot->code[s->n + 1]);
		die("an access that is not aligned", SIGBUS, info, s);
	}
	s->m->pc += (uint64_t)(int64_t)by;
}

static void on_fault(int signo, siginfo_t *info, void *context)
{
	int error = errno;

	if (!self)
		_exit(3);
	struct seen s = look(context);

	if (s.word && signo == SIGBUS && info->si_code == BUS_ADRALN && flavour.emulator == FEX)
		serve_alignment(&s, info);
	else if (s.word && (s.word->flags & WORD_MAY_FAULT))
		serve_fault(&s, signo, info);
	else
		die("a fault where there is no reason for one", signo, info, &s);
	errno = error;
}

/* ---- setting up ---- */

void signals_install(bool onstack)
{
	struct sigaction timer = { .sa_sigaction = on_timer,
		                   .sa_flags = SA_SIGINFO | SA_RESTART | (onstack ? SA_ONSTACK : 0) };
	struct sigaction fault = { .sa_sigaction = on_fault,
		                   .sa_flags = SA_SIGINFO | SA_NODEFER | (onstack ? SA_ONSTACK : 0) };

	dl_iterate_phdr(find_texts, NULL);
	sigaction(SIGUSR1, &timer, NULL);
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
}

void signals_thread(struct thread *t, unsigned interval_us)
{
	stack_t stack = { .ss_sp = t->altstack, .ss_size = sizeof(t->altstack) };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };

	self = t;
	sigaltstack(&stack, NULL);
	if (!interval_us)
		return;
	t->interval = 1000 * interval_us;
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &t->timer)) {
		perror("minijit: timer_create");
		_exit(125);
	}
	arm(t);
}

void signals_thread_end(struct thread *t)
{
	sigset_t set;

	if (!t->interval)
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	syscall(SYS_timer_delete, t->timer);
}
