/* SPDX-License-Identifier: MIT */
/* The profile of QEMU's user-mode emulation of x86-64 (qemu-x86_64), where it is linked dynamically (Debian's 7.2).
 *
 * It exports its functions, for its plugins: by their names it is recognised, and by their addresses its calls are told apart. A guest address is a host
 * address (guest_base is 0 where the program lies in the usual place).
 *
 * Memory: the guest's mmap and brk, and most of its ELF loader, come by target_mmap, which first asks for a place (mmap_find_vma, without access) and then
 * maps it MAP_FIXED; what the loader has after the end of a file comes MAP_FIXED from elsewhere in its text. The host's protection of guest memory never has
 * PROT_EXEC: code is read to be translated. Generated code is one buffer of 128 MB, mapped without access by tcg_region_init and filled from its start.
 *
 * Generated code: x18 is reserved, as the platform's register, and x30 is the temporary of the code generator, dead at a guest's access that does not use it.
 * Jumps from block to block are B and exchanged in place: no stretches. Atomics and accesses of 16 bytes are helpers, in the text, which is never rewritten.
 *
 * System calls with guest pointers are made by libc, but those that a signal may interrupt by safe_syscall_base, an SVC of QEMU's own: its signal handlers
 * look whether the pc is between safe_syscall_start and safe_syscall_end, so that stays where it is, and the function begins with a branch to ours. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../alloc/sys.h"
#include "../alloc/window.h"
#include "detour.h"
#include "knobs.h"
#include "libc-hooks.h"
#include "native.h"
#include "next.h"
#include "preloaded.h"
#include "profile.h"
#include "say.h"

/* Written once at start-up. */
static struct tagtso_range safe_call, target_mmap, region_init, thread_create;
static const uint64_t *stack_size; /* guest_stack_size: of the first thread */

bool tagtso_qemu_recognise(void)
{
	struct tagtso_range size;

	if (!tagtso_symbol_range("safe_syscall_base", &safe_call) ||
	    !tagtso_symbol_range("target_mmap", &target_mmap) ||
	    !tagtso_symbol_range("tcg_region_init", &region_init) ||
	    !tagtso_symbol_range("qemu_thread_create", &thread_create))
		return false;
	if (tagtso_symbol_range("guest_stack_size", &size))
		stack_size = (const uint64_t *)size.from;
	/* a guest with x86's memory ordering; with vm86 it is one of 32 bits, whose addresses are not the host's */
	return tagtso_find("cpu_x86_load_seg") && !tagtso_find("do_vm86");
}

/* The first thread's stack is one mapping, with a page to guard it. */
static bool is_first_stack(const struct tagtso_mmap *m)
{
	static bool seen; /* the first thread maps it before the guest runs */

	if (seen || !stack_size || !(m->flags & MAP_ANONYMOUS) || m->prot != (PROT_READ | PROT_WRITE) ||
	    m->len != tagtso_page_up(*stack_size) + TAGTSO_PAGE_SIZE)
		return false;
	seen = true;
	return true;
}

enum tagtso_memory tagtso_qemu_classify(const struct tagtso_mmap *m)
{
	if (!tagtso_profile_is_text(m->caller) || !(m->flags & MAP_PRIVATE))
		return TAGTSO_MEMORY_HOST;
	if (tagtso_in_range(&region_init, m->caller))
		return m->flags & MAP_ANONYMOUS ? TAGTSO_MEMORY_CODE : TAGTSO_MEMORY_HOST;
	if (tagtso_in_range(&target_mmap, m->caller))
		return is_first_stack(m) ? TAGTSO_MEMORY_STACK : TAGTSO_MEMORY_GUEST;
	return (m->flags & MAP_FIXED) && m->prot != PROT_NONE ? TAGTSO_MEMORY_GUEST : TAGTSO_MEMORY_HOST;
}

/* The thread that frees what readers have left (RCU). Guest threads are made by another way. */
bool tagtso_qemu_own_thread(uint64_t caller)
{
	return tagtso_in_range(&thread_create, caller);
}

/* --- system calls ---------------------------------------------------------------------------------------------------- */

static struct tagtso_detour safe_syscall_detour; /* written once at start-up */

static long safe_syscall(void *pending, long nr, long a, long b, long c, long d, long e, long f)
{
	tagtso_syscall_way *real = safe_syscall_detour.original;
	long given[6] = { a, b, c, d, e, f };

	if (nr == __NR_execve || nr == __NR_execveat)
		return tagtso_preloaded_exec(real, pending, nr, given);
	if (!tagtso_is_active())
		return real(pending, nr, a, b, c, d, e, f);
	return tagtso_syscall_by(real, pending, nr, given);
}

/* --- start-up --------------------------------------------------------------------------------------------------------- */

/* SVC #imm16, in words of the text that may be data: one more than the known one is worth a line, and no more. */
static void look_for_others(struct tagtso_range text)
{
	for (uint64_t at = text.from; at < text.to; at += sizeof(uint32_t)) {
		if ((*(const uint32_t *)at & UINT32_C(0xffe0001f)) == UINT32_C(0xd4000001) &&
		    !tagtso_in_range(&safe_call, at))
			TAGTSO_SAY(1,
			           "system call at %lx of the emulator's text: not known: it fails (EFAULT) on owned "
			           "memory",
			           (unsigned long)at);
	}
}

/* The function is what it was: its moves of arguments, then the part that its signal handlers know, with one SVC as its last word. */
static bool is_safe_syscall(void)
{
	uint64_t start = (uint64_t)tagtso_find("safe_syscall_start"), end = (uint64_t)tagtso_find("safe_syscall_end");

	return tagtso_in_range(&safe_call, start) && tagtso_in_range(&safe_call, end) && start > safe_call.from &&
	       end > start && *(const uint32_t *)(end - sizeof(uint32_t)) == UINT32_C(0xd4000001);
}

int tagtso_qemu_attach(const char **what)
{
	safe_syscall_detour = (struct tagtso_detour){ .function = safe_call.from, .wrapper = safe_syscall };
	*what = "QEMU's safe_syscall_base is not as it is known";
	if (!is_safe_syscall())
		return -ENOEXEC;
	int e = tagtso_detour_install(&safe_syscall_detour, what);

	if (e)
		return e;
	tagtso_preloaded_hide();
	if (tagtso_knobs.verbose)
		look_for_others(tagtso_profile_text());
	return 0;
}
