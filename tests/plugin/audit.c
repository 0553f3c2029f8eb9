/* SPDX-License-Identifier: MIT */
/* QEMU TCG plugin: watches the guest memory accesses of processes under libtagtso.so, and checks I1, I2 and I3 from outside.
 *
 * qemu-system-aarch64 -plugin audit.so,out=FILE[,region=NAME:ELF]...[,routines=NAME:FROM:TO]...[,phase=N][,relax=LABEL]...
 *
 * FILE is written when the machine ends, as JSON: one object for each process that made a memfd named "tagtso", with the label of the mark program's run
 * (mark.c) in which it began. region as in count.c. routines: addresses in the file NAME (as its symbols have them) of the shim's tagtso_access_* routines.
 * phase: accesses of a phase of the oracle (1000000). relax: processes of this label are in mode relax.
 *
 * WHERE IT KNOWS IT FROM. Nothing is asked of the shim's tables.
 * - Threads: the kernel's task_struct, from its writes of SP_EL0; address spaces: its writes of TTBR0_EL1. A thread ends by exit().
 * - Memory: the page of the memfd behind an address, from mmap, munmap and fallocate as the kernel answered them. So window and alias are one. The physical
 *   address that QEMU used is compared with it at the first access to each page by each mapping ("physical_wrong").
 * - Tags: STG, ST2G, STZG, STZ2G and DC GVA as they are executed, before they are; and the tag in the pointer of each access, which the hardware has compared
 *   with the tag in memory ("tag_unexpected": they differ). Owner: the thread whose last prctl(PR_SET_TAGGED_ADDR_CTRL) included that tag alone.
 *   Where the owners are CPUs (TAGTSO_OWNER=cpu): the CPU that the access is made on, by the number that the kernel has written to the thread's rseq area,
 *   whatever the pointer's tag says: a tag that is older than a switch makes it an access by another.
 * - Barriers: DMB ISH, SY and DSB of the thread, DMB ISHLD and ISHST; and those of the kernel on the processor where it runs, which is how a membarrier
 *   arrives. A switch to another thread is one.
 *
 * WHAT IT CHECKS, of accesses by generated code, islands, slots and the interpreter's routines, once two threads have an owner id:
 * - an access by a thread that does not own the granule is ordered: a load has DMB ISHLD or more before the thread's next access to guest memory; a store
 *   has DMB ISHST or more after its last store to guest memory, or is a release; an atomic operation has full barriers between it and the accesses
 *   before and after. An atomic operation that compares has them on owned memory too. An acquire alone is not enough (HACKING.md §6, P2).
 * - no access is made under tag busy or, while two threads run, under none;
 * - an access to a granule that another thread accessed plainly comes after a change of the tag, and a full barrier of that thread after the change;
 *   where CPUs are the owners, under the tag of one: after the other thread's switch;
 * - a tag that lets somebody in is written after that barrier;
 * - a new owner's access comes after a full barrier of its own, after the first tag write of the transition.
 * In mode relax shared memory has tag 0, and a non-owner's access is ordered as the emulator emits it: a load may have acquire instead, or a DMB ISHLD since the
 * thread's last load; an atomic operation may be AL, or a loop of exclusives. Accesses of code that QEMU does not check (LDAPUR, STLUR) are judged like all.
 * These are the rules of HACKING.md §6, checked in the order in which the machine executed; it need not go wrong to be told.
 *
 * Events of two processors are told in an order that can differ from the true one by what lies between an access and its callback. Those by which
 * a thread could be wronged are left out: an access of the owner of before counts as made before the transition until a barrier is seen on its processor.
 *
 * WHAT IT CANNOT SEE. Whether a CPU's second membarrier came (HACKING.md §6): any barrier of its own will do here. Outcomes: TCG is no weaker than its host. The kernel's accesses; DC ZVA; instruction fetches; a process killed by a signal keeps its
 * record until its page table is used again. Native code (the emulator, libraries, the rest of the shim) reaches guest memory by the alias or with
 * checks off, as it does without the shim (HACKING.md §6, 8): counted, not judged ("native_foreign": memory that another thread owned).
 *
 * Traps: tag check faults, by when they came, so that those of the second half of a run, by accesses, can be told from those of its warm-up.
 *
 * Oracle: of the loads and stores to granules that one thread alone touched in a phase, how many were executed plainly. */
#include "audit.h"

#include <stdlib.h>
#include <string.h>

#include "../../interp/decode.h"
#include "classes.h"
#include "mark.h"
#include "regions.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static const char *out_path;
static GArray *routines; /* of struct routines */
struct routines {
	char *file;
	uint64_t from, to;
};

/* ---- words ---------------------------------------------------------------------------------------------------------- */

static bool is_cas(uint32_t word)
{
	return (word & 0x3fa07c00) == 0x08a07c00 || (word & 0xbfa07c00) == 0x08207c00;
}

static bool is_store_exclusive(uint32_t word)
{
	return (word & 0x3fc00000) == 0x08000000 && !is_cas(word);
}

static bool is_dc_gva(uint32_t word)
{
	return (word & 0xffffffe0) == 0xd50b7460 || (word & 0xffffffe0) == 0xd50b7480;
}

#define MSR_SP_EL0 0xd5184100u
#define MSR_TTBR0_EL1 0xd5182000u

/* ---- instructions --------------------------------------------------------------------------------------------------- */

static GMutex insns_lock;
static GHashTable *insns; /* pc and word and page -> struct insn *, under insns_lock */

static bool is_routine(const char *file, uint64_t address)
{
	for (guint i = 0; i < routines->len; i++) {
		const struct routines *r = &g_array_index(routines, struct routines, i);

		if (strcmp(r->file, file) == 0 && address >= r->from && address < r->to)
			return true;
	}
	return false;
}

static struct insn *insn_at(uint64_t pc, uint32_t word, const struct page_of_file *of)
{
	char key[64];
	struct insn *insn;

	g_snprintf(key, sizeof key, "%" PRIx64 " %x %p", pc, word, (const void *)of);
	g_mutex_lock(&insns_lock);
	insn = g_hash_table_lookup(insns, key);
	if (!insn) {
		uint64_t address = of->address + pc % PAGE;

		insn = g_new0(struct insn, 1);
		*insn = (struct insn){
			.pc = pc,
			.word = word,
			.class = (uint8_t)classify(word),
			.compares = is_cas(word) || is_store_exclusive(word),
			.excludes = is_store_exclusive(word),
			.unnamed = !of->file,
			.region = region_names[of->region],
			.file = of->file,
			.address = address,
			.routine = of->file && is_routine(of->file, address),
		};
		tagtso_decode(word, &insn->op);
		g_hash_table_insert(insns, g_strdup(key), insn);
	}
	g_mutex_unlock(&insns_lock);
	return insn;
}

/* ---- user code ------------------------------------------------------------------------------------------------------ */

/* As the load and store instructions make it, with the tag of the base register. */
static uint64_t address(struct cpu *cpu, const struct tagtso_memop *op)
{
	uint64_t at = audit_register(cpu, cpu->x[op->rn]), index;

	if (op->addressing == TAGTSO_ADDR_OFFSET || op->addressing == TAGTSO_ADDR_PRE)
		at += (uint64_t)(int64_t)op->imm;
	if (op->addressing == TAGTSO_ADDR_REG && op->rm != 31) {
		index = audit_register(cpu, cpu->x[op->rm]);
		if (op->extend == 2)
			index = (uint32_t)index;
		else if (op->extend == 6)
			index = (uint64_t)(int32_t)index;
		at += index << op->shift;
	}
	return op->cls == TAGTSO_ZERO_BLOCK ? at & -UINT64_C(64) : at;
}

static _Atomic uint32_t load_info; /* what QEMU says of a user-mode load, to ask for physical addresses with */

/* Registered for instructions whose tags nobody checks: with this callback QEMU 10 takes memory for a device's, and checks none. */
static void learn_info(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *data)
{
	(void)va, (void)data;
	if (audit_current(&audit_cpus[vcpu])) /* not early code of the kernel, at low addresses too */
		load_info = info;
}

static void compare_physical(struct thread *t, uint64_t va, enum view view, uint64_t offset)
{
	struct qemu_plugin_hwaddr *physical;

	if (!load_info || audit_page(t->process, offset)->seen & 1u << view)
		return;
	physical = qemu_plugin_get_hwaddr(load_info, va);
	if (physical)
		audit_physical(t, offset, view, qemu_plugin_hwaddr_phys_addr(physical));
}

/* The guest's own access: by generated code, an island, a slot, or the interpreter. */
static bool is_guest_access(struct thread *t, const struct insn *insn)
{
	struct insn *cached = (struct insn *)insn;

	if (insn->routine || !insn->unnamed)
		return insn->routine;
	if (atomic_load_explicit(&insn->code_of, memory_order_relaxed) == t->process->number + 1)
		return true;
	if (!audit_is_code(t->process, insn->pc))
		return false;
	atomic_store_explicit(&cached->code_of, t->process->number + 1, memory_order_relaxed);
	return true;
}

/* What the processor was about to do has been done: an access, or a tag write. */
static void confirm(struct cpu *cpu)
{
	const struct insn *insn = cpu->about;
	struct thread *t = insn ? audit_current(cpu) : NULL;
	uint64_t offset;
	enum view view;

	cpu->about = NULL;
	if (cpu->tagged) {
		audit_tagged(cpu->tagged_by, cpu->tagged_at, cpu->tagged);
		cpu->tagged = 0;
	}
	view = t ? audit_where(t->process, cpu->va, &offset) : NOWHERE;
	if (view == NOWHERE)
		return;
	compare_physical(t, cpu->va, view, offset);
	if (is_guest_access(t, insn))
		audit_access(t, insn, cpu->va, view, offset);
	else
		audit_native(t, insn, offset);
}

/* The running thread, if its process is audited now. */
static struct thread *next_event(struct cpu *cpu)
{
	struct thread *t;

	confirm(cpu);
	t = audit_current(cpu);
	if (t && atomic_load_explicit(&t->in_kernel, memory_order_relaxed))
		atomic_store(&t->in_kernel, false);
	return t && audit_is_active(t->process) ? t : NULL;
}

static void accesses(unsigned vcpu, void *data)
{
	struct cpu *cpu = &audit_cpus[vcpu];
	const struct insn *insn = data;
	struct thread *t = next_event(cpu);

	if (!t)
		return;
	audit_look_at_cpu(t);
	cpu->va = address(cpu, &insn->op);
	cpu->about = insn;
}

static void not_decoded(unsigned vcpu, void *data)
{
	const struct insn *insn = data;
	struct thread *t = next_event(&audit_cpus[vcpu]);

	if (t && insn->unnamed)
		t->stats[STAT_not_decoded]++;
}

static void user_barrier(unsigned vcpu, void *data)
{
	const struct insn *insn = data;
	struct thread *t = next_event(&audit_cpus[vcpu]);
	unsigned crm = insn->word >> 8 & 15; /* types: 1 loads, 2 stores, 3 all */
	bool dsb = insn->class == CLASS_DSB, all = dsb || (crm & 3) == 3;

	if (!t)
		return;
	t->stats[dsb || (crm & 12) != 8 ? STAT_dmb_other
	         : all                  ? STAT_dmb_ish
	         : crm & 1              ? STAT_dmb_ishld
	                                : STAT_dmb_ishst]++;
	audit_barrier(t, all || (crm & 3) == 1, all || (crm & 3) == 2);
	if (all)
		atomic_store(&t->barrier, audit_tick());
}

/* STG, ST2G, STZG, STZ2G: 11011001 opc 1 imm9 op2 Rn Rt; op2: 1 post-index, 2 offset, 3 pre-index. DC GVA, DC GZVA: Rt. */
static void tag_written(unsigned vcpu, void *data)
{
	const struct insn *insn = data;
	struct cpu *cpu = &audit_cpus[vcpu];
	struct thread *t;
	uint32_t word = insn->word;
	uint64_t va, tag, offset, bytes = GRANULE;

	confirm(cpu);
	t = audit_current(cpu);
	if (!t)
		return;
	if (is_dc_gva(word)) {
		bytes = 64; /* DCZID_EL0 of QEMU's processors in system emulation */
		tag = va = audit_register(cpu, cpu->x[word & 31]);
		va &= -bytes;
	} else {
		tag = audit_register(cpu, cpu->x[word & 31]);
		va = audit_register(cpu, cpu->x[word >> 5 & 31]);
		if (word >> 10 & 2)
			va += (uint64_t)(((int64_t)word << 43 >> 55) * GRANULE);
		if (word >> 23 & 1)
			bytes = 2 * (uint64_t)GRANULE;
	}
	if (audit_where(t->process, va, &offset) == NOWHERE)
		return;
	audit_tag(t, insn, va, offset, bytes, tag >> 56 & 15);
	cpu->tagged = bytes;
	cpu->tagged_at = offset;
	cpu->tagged_by = t;
}

static void called(unsigned vcpu, void *data)
{
	confirm(&audit_cpus[vcpu]);
	audit_syscall(&audit_cpus[vcpu], (((const struct insn *)data)->pc + 4) % PAGE);
}

static void returned(unsigned vcpu, void *data)
{
	confirm(&audit_cpus[vcpu]);
	audit_returned(&audit_cpus[vcpu], ((const struct insn *)data)->pc % PAGE);
}

static GMutex mark_lock;
static GString *mark_letters; /* under mark_lock */

static void marked(unsigned vcpu, void *data)
{
	unsigned mark = GPOINTER_TO_UINT(data), c = mark & 255;

	(void)vcpu;
	g_mutex_lock(&mark_lock);
	if (mark == MARK_START || mark == MARK_STOP) {
		audit_set_label(mark_letters->str);
		g_string_truncate(mark_letters, 0);
	} else if (c >= ' ' && c < 127 && c != '"' && c != '\\') {
		g_string_append_c(mark_letters, (char)c);
	}
	g_mutex_unlock(&mark_lock);
}

/* Literals and SP plus an immediate, whose tags the architecture does not check: the emulator's own stack and constants. */
static bool is_unchecked(const struct insn *insn)
{
	return insn->op.cls > TAGTSO_UNKNOWN && (insn->op.addressing == TAGTSO_ADDR_LITERAL ||
	                                         (insn->op.addressing == TAGTSO_ADDR_OFFSET && insn->op.rn == 31));
}

static void user_insn(struct qemu_plugin_insn *q, struct insn *insn)
{
	uint32_t word = insn->word;

	if (IS_MARK(word)) {
		qemu_plugin_register_vcpu_insn_exec_cb(q, marked, QEMU_PLUGIN_CB_NO_REGS,
		                                       GUINT_TO_POINTER(MARK_OF(word)));
	} else if (insn->class == CLASS_SVC) {
		qemu_plugin_register_vcpu_insn_exec_cb(q, called, QEMU_PLUGIN_CB_R_REGS, insn);
	} else if (insn->class == CLASS_STG || is_dc_gva(word)) {
		qemu_plugin_register_vcpu_insn_exec_cb(q, tag_written, QEMU_PLUGIN_CB_R_REGS, insn);
	} else if (insn->class >= CLASS_DMB_ISHLD && insn->class <= CLASS_DSB) {
		qemu_plugin_register_vcpu_insn_exec_cb(q, user_barrier, QEMU_PLUGIN_CB_NO_REGS, insn);
	} else if (is_unchecked(insn)) {
		if (!load_info && insn->class == CLASS_LOAD)
			qemu_plugin_register_vcpu_mem_cb(q, learn_info, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_R,
			                                 NULL);
	} else if (tagtso_memop_bytes(&insn->op)) {
		qemu_plugin_register_vcpu_insn_exec_cb(q, accesses, QEMU_PLUGIN_CB_R_REGS, insn);
	} else if (insn->op.cls != TAGTSO_OTHER && insn->op.cls != TAGTSO_PREFETCH && insn->op.cls != TAGTSO_TAG) {
		qemu_plugin_register_vcpu_insn_exec_cb(q, not_decoded, QEMU_PLUGIN_CB_NO_REGS, insn);
	}
}

/* ---- the kernel ----------------------------------------------------------------------------------------------------- */

static void kernel_barrier(unsigned vcpu, void *data)
{
	struct thread *t = audit_cpus[vcpu].thread;

	(void)data;
	if (!t || !t->process)
		return;
	t->stats[STAT_kernel_barriers]++;
	atomic_store(&t->barrier, audit_tick());
}

/* The kernel is entered from user mode: by the access itself, if it faulted. */
static void entered(struct cpu *cpu)
{
	enum { DATA_ABORT = 0x24, TAG_CHECK = 0x11 }; /* ESR_EL1.EC, from a lower exception level, and DFSC */
	uint64_t esr;

	if (cpu->about && (audit_register(cpu, cpu->elr) ^ cpu->about->pc) % PAGE == 0) {
		esr = audit_register(cpu, cpu->esr);
		if ((esr >> 26 & 63) == DATA_ABORT) {
			if ((esr & 63) == TAG_CHECK && cpu->thread && cpu->thread->process)
				audit_trapped(cpu->thread->process);
			cpu->about = NULL;
		}
	}
	confirm(cpu);
	if (cpu->thread)
		atomic_store(&cpu->thread->in_kernel, true);
}

/* SP_EL0 is the current task in the kernel, which sets it when it is entered and when it switches. */
static void task_written(unsigned vcpu, void *data)
{
	struct cpu *cpu = &audit_cpus[vcpu];

	entered(cpu);
	audit_switched(cpu, audit_register(cpu, cpu->x[GPOINTER_TO_UINT(data)]));
}

static void space_written(unsigned vcpu, void *data)
{
	audit_space(&audit_cpus[vcpu], audit_register(&audit_cpus[vcpu], audit_cpus[vcpu].x[GPOINTER_TO_UINT(data)]));
}

static void kernel_insn(struct qemu_plugin_insn *q, uint32_t word)
{
	int class = classify(word);
	void *rt = GUINT_TO_POINTER(word & 31);

	if (class == CLASS_DSB || (class >= CLASS_DMB_ISHLD && class <= CLASS_DMB_OTHER && (word >> 8 & 3) == 3))
		qemu_plugin_register_vcpu_insn_exec_cb(q, kernel_barrier, QEMU_PLUGIN_CB_NO_REGS, NULL);
	else if ((word & ~31u) == MSR_SP_EL0)
		qemu_plugin_register_vcpu_insn_exec_cb(q, task_written, QEMU_PLUGIN_CB_R_REGS, rt);
	else if ((word & ~31u) == MSR_TTBR0_EL1)
		qemu_plugin_register_vcpu_insn_exec_cb(q, space_written, QEMU_PLUGIN_CB_R_REGS, rt);
}

/* ---- translation ---------------------------------------------------------------------------------------------------- */

/* Whether the instruction before may be SVC: what is on the page before is not looked at. */
static bool may_follow_svc(struct qemu_plugin_insn *insn)
{
	const uint32_t *here = qemu_plugin_insn_haddr(insn);

	return here && (qemu_plugin_insn_vaddr(insn) % PAGE == 0 || here[-1] == 0xd4000001);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	bool kernel = qemu_plugin_tb_vaddr(tb) >> 48;
	const struct page_of_file *of = NULL;
	uint64_t page = UINT64_MAX;

	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *q = qemu_plugin_tb_get_insn(tb, i);
		uint64_t pc = qemu_plugin_insn_vaddr(q);
		struct insn *insn;
		uint32_t word;

		if (qemu_plugin_insn_data(q, &word, sizeof word) != sizeof word)
			continue;
		if (kernel) {
			kernel_insn(q, word);
			continue;
		}
		if (pc / PAGE != page) {
			page = pc / PAGE;
			of = page_of(qemu_plugin_insn_haddr(q));
		}
		insn = insn_at(pc, word, of);
		if (i == 0 && may_follow_svc(q))
			qemu_plugin_register_vcpu_tb_exec_cb(tb, returned, QEMU_PLUGIN_CB_R_REGS, insn);
		user_insn(q, insn);
	}
}

static void find_registers(qemu_plugin_id_t id, unsigned vcpu)
{
	struct cpu *cpu = &audit_cpus[vcpu];

	(void)id;
	cpu->buffer = g_byte_array_new();
	cpu->registers = qemu_plugin_get_registers();
	for (guint i = 0; i < cpu->registers->len; i++) {
		qemu_plugin_reg_descriptor *r = &g_array_index(cpu->registers, qemu_plugin_reg_descriptor, i);

		if (strcmp(r->name, "ELR_EL1") == 0)
			cpu->elr = r->handle;
		else if (strcmp(r->name, "ESR_EL1") == 0)
			cpu->esr = r->handle;
		else if (strcmp(r->name, "sp") == 0)
			cpu->x[31] = r->handle;
		else if (r->name[0] == 'x' && g_ascii_isdigit(r->name[1]) && atoi(r->name + 1) < 31)
			cpu->x[atoi(r->name + 1)] = r->handle;
	}
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
	(void)id, (void)data;
	audit_write(out_path);
}

/* NAME:FROM:TO */
static bool add_routines(const char *spec)
{
	char **part = g_strsplit(spec, ":", 3);
	bool good = part[0] && part[1] && part[2];

	if (good) {
		struct routines r = { g_strdup(part[0]), strtoull(part[1], NULL, 16), strtoull(part[2], NULL, 16) };

		g_array_append_val(routines, r);
	}
	g_strfreev(part);
	return good;
}

static bool set_argument(const char *argument)
{
	if (g_str_has_prefix(argument, "out="))
		out_path = g_strdup(argument + strlen("out="));
	else if (g_str_has_prefix(argument, "phase="))
		audit_phase = strtoull(argument + strlen("phase="), NULL, 10);
	else if (g_str_has_prefix(argument, "relax="))
		audit_add_relaxed(argument + strlen("relax="));
	else if (g_str_has_prefix(argument, "routines="))
		return add_routines(argument + strlen("routines="));
	else if (g_str_has_prefix(argument, "region="))
		return add_region(argument + strlen("region="));
	else
		return false;
	return true;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	if (!info->system_emulation || strcmp(info->target_name, "aarch64") != 0) {
		fprintf(stderr, "tagtso: audit plugin: target is %s: only a whole aarch64 machine is known\n",
		        info->target_name);
		return -1;
	}
	pages = g_hash_table_new(g_int64_hash, g_int64_equal);
	page_list = g_ptr_array_new();
	insns = g_hash_table_new(g_str_hash, g_str_equal);
	routines = g_array_new(FALSE, FALSE, sizeof(struct routines));
	audit_processes = g_ptr_array_new();
	mark_letters = g_string_new(NULL);
	for (int i = 0; i < argc; i++) {
		if (set_argument(argv[i]))
			continue;
		fprintf(stderr,
		        "tagtso: audit plugin: %s: not understood: give out=FILE, region=NAME:ELF, "
		        "routines=NAME:FROM:TO, phase=N, relax=LABEL\n",
		        argv[i]);
		return -1;
	}
	if (!out_path || !audit_phase) {
		fprintf(stderr, "tagtso: audit plugin: no file for the report, or phases of no accesses: give out=FILE "
		                "and phase=N\n");
		return -1;
	}
	qemu_plugin_register_vcpu_init_cb(id, find_registers);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
