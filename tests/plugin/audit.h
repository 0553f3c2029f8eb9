/* SPDX-License-Identifier: MIT */
/* What the parts of the audit plugin share (audit.c says what it checks). */
#ifndef TAGTSO_TESTS_AUDIT_H
#define TAGTSO_TESTS_AUDIT_H

#include <glib.h>
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "../../interp/memop.h"

enum { TAG_NONE = 0, TAG_LAST_OWNER = 13, TAG_BUSY = 14, TAG_SHARED = 15, GRANULE = 16, GRANULES = 256 };

/* One instruction as it was translated; kept for good. */
struct insn {
	uint64_t pc; /* where it was translated: another process may execute the translation at another page */
	uint32_t word;
	uint8_t class; /* CLASS_* */
	bool compares; /* CAS, CASP, store-exclusive: stores only if the comparison holds */
	bool excludes; /* store-exclusive */
	bool routine;  /* one of the shim's tagtso_access_* */
	bool unnamed;  /* in no file: generated code, if its process mapped it so */
	const char *region, *file;
	uint64_t address; /* in the file */
	struct tagtso_memop op;
	_Atomic unsigned code_of; /* number + 1 of the last process in whose generated code it was found */
};

/* ---- order of events ------------------------------------------------------------------------------------------------ */

/* Counts the full barriers and the changes of tags of the audited processes. */
extern _Atomic uint32_t audit_clock;
uint32_t audit_tick(void);

/* ---- who and where (audit-guest.c) ---------------------------------------------------------------------------------- */

enum {
#define COUNT(name, text) STAT_##name,
#include "audit.def"
#undef COUNT
	STAT_COUNT
};

struct granule {
	uint8_t tag, was; /* now, and before the last change */
	uint8_t plain_tag;
	uint16_t plain_by; /* thread of the last plain access; 0: none since the page was empty */
	uint16_t whole_by; /* the only thread that touched it in the whole run, MANY, or 0 */
	uint32_t plain_at; /* clock of that access */
	uint32_t began;    /* clock of the first tag write of the last transition */
	uint32_t phase;
	uint16_t phase_by;
	uint16_t busy_by; /* who made it busy */
	uint32_t phase_all, phase_plain, whole_all, whole_plain;
};
enum { MANY = 0xffff };
#define UNDER_WAY UINT32_MAX

struct page {
	atomic_flag lock;
	uint8_t seen; /* views whose physical address was compared */
	uint64_t physical;
	struct granule granule[GRANULES];
};

enum view { NOWHERE, WINDOW, ALIAS, TAG_VIEW };

struct oracle {
	uint64_t accesses, plain, granules, shared_granules;
};

enum { SLICES = 4096 };

struct process {
	unsigned number;
	char *label;
	bool relaxed; /* mode relax: tag 0 is that of shared memory, which is TAG_SHARED here too; accesses are ordered as emitted */
	uint64_t space; /* TTBR0_EL1 */
	uint64_t fd;    /* of the memfd */
	_Atomic bool ended;
	_Atomic bool cpus;       /* owners are CPUs */
	_Atomic unsigned leased; /* threads that have had an owner id */
	uint64_t bytes;          /* of the memfd's big views */
	_Atomic uint64_t alias, tags;
	_Atomic(_Atomic uint32_t *) *leaf; /* address bits 47:30 -> 29:12 -> page of the memfd */
	_Atomic(struct page *) *page;      /* by page of the memfd */
	_Atomic uint64_t accesses;
	_Atomic uint64_t traps[SLICES]; /* by accesses before them: audit_slice() each; the last has all the rest */
	GArray *code;                   /* struct span: what it mapped writable and executable */
	GMutex code_lock;
	struct oracle whole, phases; /* filled when it ends */
	GHashTable *violations;      /* by what is the same in them */
	uint64_t kinds[16];          /* by enum violation */
	GPtrArray *threads;
};
struct span {
	uint64_t from, to;
};

enum { CALLS = 4, PARTS = 6 }; /* granules that one instruction accesses: 64 bytes */

struct thread {
	unsigned index; /* 0: of no audited process */
	uint64_t task;  /* struct task_struct * */
	struct process *process;
	_Atomic uint32_t barrier; /* clock of its last full barrier */
	_Atomic int cpu;          /* -1: not running */
	_Atomic uint8_t id;       /* its owner id, 0: none; where CPUs are the owners: whether it may have one */
	_Atomic uint8_t cpu_id;   /* then: that of its CPU, as it was when last looked at */
	bool cpu_known;           /* it has not been switched since */
	uint64_t area;            /* struct rseq that the kernel keeps for it */
	_Atomic bool exited;
	_Atomic bool in_kernel; /* entered, and no instruction of its own seen since */
	/* program order, by the thread itself: accesses to guest memory since the last barrier that would order them */
	bool loaded, stored, accessed;
	bool loaded_before, stored_before, accessed_before; /* the same, as the instruction at hand found it */
	struct pending {
		const struct insn *insn; /* whose accesses wait for a barrier */
		unsigned parts;
		bool full; /* only a full barrier orders it; else a load barrier does */
		struct part {
			struct page *page;
			struct granule *granule;
			uint64_t va;
			bool due; /* must be ordered */
			bool own; /* by the owner */
		} part[PARTS];
	} pending;
	struct call {
		bool pending;
		uint64_t place, nr, a[6]; /* place: in its page, of the instruction that follows */
	} call[CALLS];
	unsigned calls;
	uint64_t stats[STAT_COUNT];
};

struct cpu {
	uint64_t task, space;
	struct thread *thread; /* NULL: look again */
	GArray *registers;
	struct qemu_plugin_register *x[32]; /* 31: SP */
	struct qemu_plugin_register *elr, *esr;
	GByteArray *buffer;
	/* The access that the processor is about to make: the callback comes before it, and it may fault. */
	const struct insn *about;
	uint64_t va;
	/* The tags that it is about to write: bytes of the memfd, 0: none. */
	uint64_t tagged, tagged_at;
	struct thread *tagged_by;
};

extern struct cpu audit_cpus[];
struct thread *audit_thread(unsigned index);
/* The owner id that counts for a thread's accesses. */
unsigned audit_id(const struct thread *t);
/* Before an access of the running thread: asks which CPU it is on. */
void audit_look_at_cpu(struct thread *t);
/* The running thread of an audited process, or NULL. */
struct thread *audit_current(struct cpu *cpu);
uint64_t audit_register(struct cpu *cpu, struct qemu_plugin_register *r);
enum view audit_where(struct process *p, uint64_t va, uint64_t *offset);
bool audit_is_code(struct process *p, uint64_t pc);
struct page *audit_page(struct process *p, uint64_t offset);
static inline uint8_t audit_tag_meant(const struct process *p, unsigned tag)
{
	return (uint8_t)(p->relaxed && tag == TAG_NONE ? TAG_SHARED : tag);
}

void audit_switched(struct cpu *cpu, uint64_t task);
void audit_space(struct cpu *cpu, uint64_t ttbr0);
void audit_syscall(struct cpu *cpu, uint64_t place);
void audit_returned(struct cpu *cpu, uint64_t place);
void audit_set_label(const char *label);
void audit_add_relaxed(const char *label); /* processes of this label are in mode relax */
extern GPtrArray *audit_processes;         /* of struct process *, under audit_lock */
extern GMutex audit_lock;

/* ---- the rules (audit-rules.c) -------------------------------------------------------------------------------------- */

enum violation {
#define RULE(id, name, text) VIOLATION_##id,
#include "audit.def"
#undef RULE
	VIOLATION_COUNT
};

/* One that was seen, and how often the like of it. */
struct seen {
	enum violation kind;
	const struct insn *insn;
	uint64_t va, count;
	unsigned thread, id, tag, was, other, other_id;
	uint32_t clock, began, plain_at, barrier, other_barrier;
};

extern uint64_t audit_phase;                   /* accesses */
bool audit_is_active(const struct process *p); /* two threads have had an owner id */
void audit_access(struct thread *t, const struct insn *insn, uint64_t va, enum view view, uint64_t offset);
/* A tag check fault; accesses that are one slice of the run. */
void audit_trapped(struct process *p);
uint64_t audit_slice(void);
/* By the emulator's own code, libraries, or the rest of the shim. */
void audit_native(struct thread *t, const struct insn *insn, uint64_t offset);
/* A barrier of the thread's own code: whether it orders loads, stores, or all. */
void audit_barrier(struct thread *t, bool loads, bool stores);
void audit_tag(struct thread *t, const struct insn *insn, uint64_t va, uint64_t offset, uint64_t bytes, unsigned tag);
/* They are in memory. */
void audit_tagged(struct thread *t, uint64_t offset, uint64_t bytes);
/* The pages are empty again, and have no tags. */
void audit_punch(struct process *p, uint64_t offset, uint64_t bytes);
void audit_finish(struct process *p); /* no page is used any more */
void audit_physical(struct thread *t, uint64_t offset, enum view view, uint64_t physical);

/* ---- the report (audit-report.c) ------------------------------------------------------------------------------------ */

void audit_write(const char *path);

#endif
