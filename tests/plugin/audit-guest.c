/* SPDX-License-Identifier: MIT */
/* The audit plugin's view of the system: which thread of which process runs on a processor, what it mapped, and what it asks of the kernel. */
#include "audit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	LEAF_BITS = 18,
	PAGE_SHIFT = 12,
	TOPS = 1 << (48 - LEAF_BITS - PAGE_SHIFT),
	MAX_CPUS = 64,
	MAX_THREADS = 1 << 16
};

struct cpu audit_cpus[MAX_CPUS];
GPtrArray *audit_processes;
GMutex audit_lock;

static struct thread *threads[MAX_THREADS]; /* by index; under audit_lock, but an index is given once */
static unsigned thread_count = 1;
static GHashTable *tasks; /* address of a task_struct -> struct thread *; under audit_lock */
static char *label;

static GPtrArray *relaxed; /* labels; written before the machine starts */

void audit_add_relaxed(const char *text)
{
	if (!relaxed)
		relaxed = g_ptr_array_new();
	g_ptr_array_add(relaxed, g_strdup(text));
}

static bool is_relaxed(const char *text)
{
	for (guint i = 0; relaxed && i < relaxed->len; i++)
		if (!strcmp(g_ptr_array_index(relaxed, i), text))
			return true;
	return false;
}

void audit_set_label(const char *text)
{
	g_mutex_lock(&audit_lock);
	g_free(label);
	label = g_strdup(text);
	g_mutex_unlock(&audit_lock);
}

struct thread *audit_thread(unsigned index)
{
	return threads[index];
}

uint64_t audit_register(struct cpu *cpu, struct qemu_plugin_register *r)
{
	uint64_t value = 0;

	g_byte_array_set_size(cpu->buffer, 0);
	if (r && qemu_plugin_read_register(r, cpu->buffer) > 0)
		memcpy(&value, cpu->buffer->data, MIN(cpu->buffer->len, sizeof value));
	return value;
}

/* ---- addresses ------------------------------------------------------------------------------------------------------ */

static void *reserve(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		fprintf(stderr, "tagtso: audit plugin: no address space\n");
		exit(1);
	}
	return p;
}

/* pages: of the memfd, from `index` on, or 0 for none. */
static void set_pages(struct process *p, uint64_t va, uint64_t bytes, uint32_t index)
{
	for (uint64_t end = va + bytes; va < end; va += 1 << PAGE_SHIFT) {
		_Atomic(_Atomic uint32_t *) *top = &p->leaf[va >> (LEAF_BITS + PAGE_SHIFT) & (TOPS - 1)];

		if (!*top) {
			if (!index) { /* nothing is there */
				va |= (UINT64_C(1) << (LEAF_BITS + PAGE_SHIFT)) - (1 << PAGE_SHIFT);
				continue;
			}
			*top = reserve(sizeof(uint32_t) << LEAF_BITS);
		}
		(*top)[va >> PAGE_SHIFT & ((1 << LEAF_BITS) - 1)] = index;
		index += index != 0;
	}
}

enum view audit_where(struct process *p, uint64_t va, uint64_t *offset)
{
	_Atomic uint32_t *leaf;
	uint32_t index;

	va &= (UINT64_C(1) << 56) - 1;
	if (va - p->alias < p->bytes) {
		*offset = va - p->alias;
		return p->alias ? ALIAS : NOWHERE;
	}
	if (va - p->tags < p->bytes) {
		*offset = va - p->tags;
		return p->tags ? TAG_VIEW : NOWHERE;
	}
	leaf = va >> 48 ? NULL : atomic_load_explicit(&p->leaf[va >> (LEAF_BITS + PAGE_SHIFT)], memory_order_relaxed);
	index = leaf ? atomic_load_explicit(&leaf[va >> PAGE_SHIFT & ((1 << LEAF_BITS) - 1)], memory_order_relaxed) : 0;
	*offset = ((uint64_t)index << PAGE_SHIFT) + (va & ((1 << PAGE_SHIFT) - 1));
	return index ? WINDOW : NOWHERE;
}

struct page *audit_page(struct process *p, uint64_t offset)
{
	_Atomic(struct page *) *at = &p->page[offset >> PAGE_SHIFT];
	struct page *page = atomic_load_explicit(at, memory_order_acquire), *none = NULL;

	if (page)
		return page;
	page = calloc(1, sizeof *page);
	if (!page)
		abort();
	for (unsigned i = 0; i < GRANULES; i++)
		page->granule[i].tag = audit_tag_meant(p, TAG_NONE);
	if (atomic_compare_exchange_strong(at, &none, page))
		return page;
	free(page);
	return none;
}

bool audit_is_code(struct process *p, uint64_t pc)
{
	bool found = false;

	g_mutex_lock(&p->code_lock);
	for (guint i = 0; i < p->code->len && !found; i++) {
		struct span *s = &g_array_index(p->code, struct span, i);

		found = pc >= s->from && pc < s->to;
	}
	g_mutex_unlock(&p->code_lock);
	return found;
}

/* ---- processes ------------------------------------------------------------------------------------------------------ */

static struct process *process_in(uint64_t space)
{
	for (guint i = 0; i < audit_processes->len; i++) {
		struct process *p = g_ptr_array_index(audit_processes, i);

		if (p->space == space && !p->ended)
			return p;
	}
	return NULL;
}

static void end_process(struct process *p)
{
	if (p && !atomic_exchange(&p->ended, true))
		audit_finish(p);
}

/* A process is audited from the moment when it makes the shim's memfd. */
static void begin_process(struct thread *t, uint64_t space, uint64_t fd)
{
	struct process *p = g_new0(struct process, 1);
	struct process *before;

	g_mutex_lock(&audit_lock);
	before = process_in(space); /* killed, and its page table came back */
	g_mutex_unlock(&audit_lock);
	end_process(before);
	*p = (struct process){ .space = space, .fd = fd, .code = g_array_new(FALSE, FALSE, sizeof(struct span)) };
	p->leaf = reserve(TOPS * sizeof *p->leaf);
	p->violations = g_hash_table_new(g_int64_hash, g_int64_equal);
	p->threads = g_ptr_array_new();
	g_mutex_lock(&audit_lock);
	p->label = g_strdup(label ? label : "");
	p->relaxed = is_relaxed(p->label);
	p->number = audit_processes->len;
	g_ptr_array_add(audit_processes, p);
	g_mutex_unlock(&audit_lock);
	for (unsigned i = 0; i < MAX_CPUS; i++) /* look again: this process is audited now */
		if (audit_cpus[i].thread == t)
			audit_cpus[i].thread = NULL;
}

/* ---- threads -------------------------------------------------------------------------------------------------------- */

static struct thread *new_thread(uint64_t task)
{
	struct thread *t = g_new0(struct thread, 1);

	t->task = task;
	t->cpu = -1;
	g_hash_table_insert(tasks, g_memdup2(&task, sizeof task), t);
	return t;
}

/* A thread gets its index when it is first seen in an audited process. */
static void join(struct thread *t, struct process *p)
{
	if (thread_count == MAX_THREADS) {
		fprintf(stderr, "tagtso: audit plugin: more than %d threads: audit a shorter run\n", MAX_THREADS - 1);
		exit(1);
	}
	t->process = p;
	t->index = thread_count++;
	threads[t->index] = t;
	g_ptr_array_add(p->threads, t);
}

static struct thread *find_thread(struct cpu *cpu)
{
	struct thread *t;
	struct process *p;

	g_mutex_lock(&audit_lock);
	if (!tasks)
		tasks = g_hash_table_new(g_int64_hash, g_int64_equal);
	t = g_hash_table_lookup(tasks, &cpu->task);
	p = process_in(cpu->space);
	if (!t || t->exited || (t->process && t->process != p))
		t = new_thread(cpu->task);
	if (p && !t->process)
		join(t, p);
	g_mutex_unlock(&audit_lock);
	return t;
}

static struct thread *look(struct cpu *cpu)
{
	unsigned number = (unsigned)(cpu - audit_cpus);

	if (cpu->thread)
		return cpu->thread;
	if (!cpu->task || !cpu->space)
		return NULL;
	cpu->thread = find_thread(cpu);
	cpu->thread->cpu_known = false;
	if (cpu->thread->cpu != (int)number) { /* the switch was a full barrier (HACKING.md §6, 2) */
		if (cpu->thread->process)
			atomic_store(&cpu->thread->barrier, audit_tick());
		atomic_store(&cpu->thread->cpu, (int)number);
	}
	return cpu->thread;
}

struct thread *audit_current(struct cpu *cpu)
{
	struct thread *t = look(cpu);

	return t && t->process && !atomic_load_explicit(&t->process->ended, memory_order_relaxed) ? t : NULL;
}

void audit_switched(struct cpu *cpu, uint64_t task)
{
	if (task >> 52 != 0xfff || task == cpu->task) /* SP_EL0 is also where the kernel puts back the user's SP */
		return;
	if (cpu->thread)
		atomic_store(&cpu->thread->cpu, -1);
	cpu->task = task;
	cpu->thread = NULL;
}

void audit_space(struct cpu *cpu, uint64_t ttbr0)
{
	ttbr0 &= (UINT64_C(1) << 48) - 2;
	if (ttbr0 == cpu->space)
		return;
	if (cpu->thread) /* execve */
		atomic_store(&cpu->thread->cpu, -1);
	cpu->space = ttbr0;
	cpu->thread = NULL;
}

/* ---- owner ids ------------------------------------------------------------------------------------------------------ */

unsigned audit_id(const struct thread *t)
{
	return t->process && t->process->cpus && t->id ? t->cpu_id : t->id;
}

/* The kernel writes it when the thread comes back to user mode after a switch: mm_cid, which the machine's kernel has. */
void audit_look_at_cpu(struct thread *t)
{
	enum { MM_CID = 24 };
	uint32_t number = TAG_LAST_OWNER;

	if (!t->process->cpus || t->cpu_known)
		return;
	g_autoptr(GByteArray) bytes = g_byte_array_new();

	if (t->area && qemu_plugin_read_memory_vaddr(t->area + MM_CID, bytes, sizeof number))
		memcpy(&number, bytes->data, sizeof number);
	t->cpu_id = (uint8_t)(number < TAG_LAST_OWNER ? number + 1 : 0);
	t->cpu_known = true;
}

/* ---- system calls --------------------------------------------------------------------------------------------------- */

enum {
	NR_fallocate = 47,
	NR_exit = 93,
	NR_exit_group = 94,
	NR_prctl = 167,
	NR_munmap = 215,
	NR_mremap = 216,
	NR_mmap = 222,
	NR_memfd_create = 279,
	NR_membarrier = 283,
	NR_rseq = 293,
	SET_TAGGED_ADDR_CTRL = 55,
	TAG_SHIFT = 3,
	PROT_MTE_BIT = 0x20,
	PUNCH_HOLE = 2,
	PRIVATE_EXPEDITED = 8,
};
static const uint64_t BIG = UINT64_C(1) << 30; /* the views of the whole memfd */

static bool names_the_window(uint64_t address)
{
	g_autoptr(GByteArray) text = g_byte_array_new();

	return qemu_plugin_read_memory_vaddr(address & ((UINT64_C(1) << 56) - 1), text, 7) &&
	       memcmp(text->data, "tagtso", 7) == 0;
}

static void set_owner_id(struct thread *t, uint64_t control)
{
	unsigned include = control >> TAG_SHIFT & 0xffff;
	unsigned id = __builtin_popcount(include) == 1 ? (unsigned)__builtin_ctz(include) : 0;

	if (id > TAG_LAST_OWNER)
		id = 0;
	if (id && !t->id)
		atomic_fetch_add(&t->process->leased, 1);
	t->id = (uint8_t)id;
}

/* libc registers the area of each thread. The shim, where CPUs are the owners, makes a call that asks to unregister it and cannot succeed, which tells it
 * whether there is one. */
static void set_area(struct thread *t, const uint64_t a[6])
{
	enum { UNREGISTER = 1 };

	if (!(a[2] & UNREGISTER)) {
		t->area = a[0];
		t->cpu_known = false; /* a new thread has accessed memory before */
	} else if (t->process) {
		t->process->cpus = true;
	}
}

static void end_thread(struct thread *t)
{
	atomic_store(&t->exited, true);
}

static bool is_wanted(const struct thread *t, uint64_t nr, const uint64_t a[6])
{
	if (nr == NR_memfd_create)
		return names_the_window(a[0]);
	return t->process && (nr == NR_mmap || nr == NR_munmap || nr == NR_mremap ||
	                      (nr == NR_fallocate && a[0] == t->process->fd && a[1] & PUNCH_HOLE));
}

/* Before the kernel has it. */
void audit_syscall(struct cpu *cpu, uint64_t place)
{
	struct thread *t = look(cpu);
	struct call call = { .pending = true, .place = place };

	if (!t)
		return;
	call.nr = audit_register(cpu, cpu->x[8]);
	for (unsigned i = 0; i < 6; i++)
		call.a[i] = audit_register(cpu, cpu->x[i]);
	if (t->process && call.nr == NR_prctl && call.a[0] == SET_TAGGED_ADDR_CTRL)
		set_owner_id(t, call.a[1]);
	else if (t->process && call.nr == NR_membarrier && call.a[0] == PRIVATE_EXPEDITED)
		t->stats[STAT_membarriers]++;
	else if (call.nr == NR_rseq)
		set_area(t, call.a);
	else if (call.nr == NR_exit)
		end_thread(t);
	else if (call.nr == NR_exit_group)
		end_process(t->process);
	else if (is_wanted(t, call.nr, call.a))
		t->call[t->calls++ % CALLS] = call;
}

static void mapped(struct process *p, const uint64_t a[6], uint64_t va)
{
	bool ours = a[4] == p->fd && !(a[3] & MAP_ANONYMOUS);

	if (ours && a[1] >= BIG) {
		p->bytes = a[1];
		if (!p->page)
			p->page = reserve((a[1] >> PAGE_SHIFT) * sizeof *p->page);
		*(a[2] & PROT_MTE_BIT ? &p->tags : &p->alias) = va;
		return;
	}
	set_pages(p, va, a[1], ours ? (uint32_t)(a[5] >> PAGE_SHIFT) : 0);
	if (!ours && (a[2] & (PROT_WRITE | PROT_EXEC)) == (PROT_WRITE | PROT_EXEC)) {
		struct span span = { va, va + a[1] };

		g_mutex_lock(&p->code_lock);
		g_array_append_val(p->code, span);
		g_mutex_unlock(&p->code_lock);
	}
}

static void done(struct cpu *cpu, struct thread *t, const struct call *call, uint64_t result)
{
	struct process *p = t->process;

	if (result > -UINT64_C(4096))
		return;
	switch (call->nr) {
	case NR_memfd_create:
		begin_process(t, cpu->space, result);
		break;
	case NR_mmap:
		mapped(p, call->a, result);
		break;
	case NR_munmap:
		set_pages(p, call->a[0], call->a[1], 0);
		break;
	case NR_mremap:
		set_pages(p, call->a[0], call->a[1], 0);
		break;
	case NR_fallocate:
		t->stats[STAT_punches]++;
		audit_punch(p, call->a[2], call->a[3]);
		break;
	}
}

/* At the instruction after a system call. A handler of a signal may have run between. */
void audit_returned(struct cpu *cpu, uint64_t place)
{
	struct thread *t = look(cpu);

	for (unsigned i = 0; t && i < CALLS; i++) {
		if (t->call[i].pending && t->call[i].place == place) {
			struct call call = t->call[i];

			t->call[i].pending = false;
			done(cpu, t, &call, audit_register(cpu, cpu->x[0]));
			return;
		}
	}
}
