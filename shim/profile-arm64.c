/* SPDX-License-Identifier: MIT */
/* The table of emulator profiles. */
#include "profile.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include "knobs.h"
#include "next.h"

static struct tagtso_range program; /* the main program's text, by its program headers; written at start-up */

static int find_text(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & PF_X))
			program = (struct tagtso_range){ info->dlpi_addr + p->p_vaddr,
				                         info->dlpi_addr + p->p_vaddr + p->p_memsz };
	}
	return 1; /* the main program comes first */
}

struct tagtso_range tagtso_profile_text(void)
{
	return program;
}

bool tagtso_profile_is_text(uint64_t pc)
{
	return tagtso_in_range(&program, pc);
}

bool tagtso_symbol_range(const char *name, struct tagtso_range *range)
{
	Dl_info info;
	const ElfW(Sym) *symbol = NULL;
	void *at = tagtso_find(name);

	if (!at || !dladdr1(at, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
		return false;
	*range = (struct tagtso_range){ (uint64_t)at, (uint64_t)at + symbol->st_size };
	return symbol->st_size != 0;
}

/* --- box64 --------------------------------------------------------------------------------------------------------
 * All its mmap calls arrive by syscall(): InternalMmap is a tail call, so the caller that we see is InternalMmap's own. The guest's mmap and its
 * raw system call pass through the exported box_mmap. Its ELF loader reserves an image without access and then maps
 * segments MAP_FIXED; guest stacks are MAP_GROWSDOWN; generated code is RWX, anonymous, not fixed. */

static struct tagtso_range box_mmap_range; /* written at start-up */

static bool box64_recognise(void)
{
	return tagtso_symbol_range("box_mmap", &box_mmap_range);
}

static enum tagtso_memory box64_classify(const struct tagtso_mmap *m)
{
	const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
	bool private_anonymous = m->fd == -1 && (m->flags & MAP_ANONYMOUS) && (m->flags & MAP_PRIVATE);

	if (tagtso_in_range(&box_mmap_range, m->caller))
		return TAGTSO_MEMORY_GUEST;
	if (!private_anonymous)
		return (m->flags & MAP_FIXED) && (m->flags & MAP_PRIVATE) ? TAGTSO_MEMORY_GUEST : TAGTSO_MEMORY_HOST;
	if (m->flags & MAP_GROWSDOWN)
		return TAGTSO_MEMORY_STACK;
	if ((m->prot & all) == all)
		return m->flags & MAP_FIXED ? TAGTSO_MEMORY_GUEST : TAGTSO_MEMORY_CODE;
	return m->flags & MAP_FIXED ? TAGTSO_MEMORY_GUEST : TAGTSO_MEMORY_HOST;
}

/* A cache of generated code on disk would save rewritten words; CALLRET would make x30 live across blocks. */
static const char *const box64_environment[][2] = { { "BOX64_DYNACACHE", "0" },
	                                            { "BOX64_DYNAREC_CALLRET", "0" },
	                                            { NULL, NULL } };

/* --- generic ------------------------------------------------------------------------------------------------------
 * A small emulator, or a test program: guest memory is what the main program maps private, anonymous and not executable; generated code is
 * what it maps RWX; x8 and x9 are free at its guest memory instructions. Whether its accesses are ordered the user has to say (TAGTSO_MODE=relax). */

static enum tagtso_memory generic_classify(const struct tagtso_mmap *m)
{
	const int all = PROT_READ | PROT_WRITE | PROT_EXEC;

	if (!tagtso_profile_is_text(m->caller) || !(m->flags & MAP_PRIVATE))
		return TAGTSO_MEMORY_HOST;
	if (m->flags & MAP_GROWSDOWN)
		return TAGTSO_MEMORY_STACK;
	if ((m->prot & all) == all)
		return TAGTSO_MEMORY_CODE;
	return m->prot & PROT_EXEC ? TAGTSO_MEMORY_HOST : TAGTSO_MEMORY_GUEST;
}

static const struct tagtso_profile profiles[] = {
	[TAGTSO_EMULATOR_BOX64] = { .name = "box64",
	                            .recognise = box64_recognise,
	                            .classify = box64_classify,
	                            .scratch = { .a = 8, .b = 9, .c = 29 },
	                            .stretch = 256,
	                            .environment = box64_environment },
	[TAGTSO_EMULATOR_QEMU_USER] = { .name = "qemu-user",
	                                .recognise = tagtso_qemu_recognise,
	                                .classify = tagtso_qemu_classify,
	                                .emits_ordered = true,
	                                .may_relax = true,
	                                .scratch = { 18, 30 },
	                                .stretch = 1,
	                                .attach = tagtso_qemu_attach,
	                                .own_thread = tagtso_qemu_own_thread },
	[TAGTSO_EMULATOR_GENERIC] = { .name = "generic",
	                              .classify = generic_classify,
	                              .may_relax = true,
	                              .scratch = { .a = 8, .b = 9 },
	                              .stretch = 1 },
};

const struct tagtso_profile *tagtso_profile_find(unsigned emulator)
{
	dl_iterate_phdr(find_text, NULL);
	for (unsigned i = TAGTSO_EMULATOR_AUTO + 1; i < sizeof(profiles) / sizeof(profiles[0]); i++) {
		if (emulator == i)
			return profiles[i].recognise && !profiles[i].recognise() ? NULL : &profiles[i];
		if (emulator == TAGTSO_EMULATOR_AUTO && profiles[i].recognise && profiles[i].recognise())
			return &profiles[i];
	}
	return NULL;
}
