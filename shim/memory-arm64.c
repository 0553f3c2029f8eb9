/* SPDX-License-Identifier: MIT */
/* Hooks of mmap, munmap, mprotect, mremap and madvise, as libc functions and through syscall(). */
#include "memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "../alloc/sys.h"
#include "../alloc/window.h"
#include "../interp/patch.h"
#include "caller.h"
#include "export.h"
#include "knobs.h"
#include "libc-hooks.h"
#include "say.h"
#include "signals.h"
#include "state.h"
#include "stats.h"
#include "threads.h"

enum {
	CODE_MIN = 128 * 1024, /* smaller RWX mappings are call bridges, not translated code */
	REACH = 128 << 20,     /* of a branch */
};

static long kernel_mmap(const struct tagtso_mmap *m, uint64_t len)
{
	return tagtso_sys(__NR_mmap, m->addr, len, m->prot, m->flags, m->fd, m->off);
}

/* Where the islands of generated code are: bytes before it, and behind it. Right behind it they are in reach of every site of a small mapping. A large one is
 * filled from its start, whose sites reach half of what a branch can before it; what lies in the other half reaches less and less of that. */
static void place_islands(uint64_t len, uint64_t *before, uint64_t *behind)
{
	*before = *behind = 0;
	if (!tagtso_knobs.threshold)
		return; /* it is still known as the guest's code: whose malloc calls are whose */
	uint64_t islands = tagtso_page_up(len * tagtso_knobs.islands / 100); /* address space until it is used */

	if (len + islands <= REACH)
		*behind = islands;
	else
		*before = REACH / 2;
}

/* Generated code gets island space beside it, in the same mapping, so that sites are in reach of a branch. Islands are executable from the start; an emulator
 * may make its code so later. */
static long map_code(const struct tagtso_mmap *m)
{
	const int all = PROT_READ | PROT_WRITE | PROT_EXEC;
	uint64_t len = tagtso_page_up(m->len), before, behind;

	if (m->len < CODE_MIN)
		return kernel_mmap(m, m->len);
	place_islands(len, &before, &behind);
	long r = kernel_mmap(m, before + len + behind);

	if (tagtso_sys_failed(r))
		return kernel_mmap(m, m->len);
	uint64_t code = (uint64_t)r + before, islands = before ? (uint64_t)r : code + len;
	int e = (m->prot & all) == all ? 0 : (int)tagtso_sys(__NR_mprotect, islands, before + behind, all);

	if (!e)
		e = tagtso_patch_add_code(code, len, islands, before + behind);
	if (e)
		TAGTSO_SAY(1, "generated code at %lx: not registered: error %d: it stays as emitted",
		           (unsigned long)code, -e);
	return (long)code;
}

/* Regular files only: a private mapping of a device is whatever the device says it is. */
static bool copyable(const struct tagtso_mmap *m)
{
	struct stat st;

	if (m->fd < 0 || tagtso_sys(__NR_fstat, m->fd, &st) != 0)
		return false;
	return S_ISREG(st.st_mode);
}

/* Executable guest memory stays outside: it is code that the emulator reads byte by byte to translate it. Memory without access is
 * a reservation, and counts as guest memory that will be committed; file mappings that are only read need no ordering. */
static bool belongs_in_window(const struct tagtso_mmap *m)
{
	if (!(m->flags & MAP_PRIVATE) || (m->prot & PROT_EXEC))
		return false;
	if ((m->flags & MAP_ANONYMOUS) || m->fd < 0)
		return true;
	return (m->prot & PROT_WRITE) && copyable(m);
}

static long map_guest(const struct tagtso_mmap *m)
{
	bool file = !(m->flags & MAP_ANONYMOUS);
	long r = tagtso_window_map(m->addr, m->len, m->prot, m->flags, file ? m->fd : -1, m->off, false);

	if (r != -ENOSPC)
		return r;
	TAGTSO_ADD(uncovered_bytes, tagtso_page_up(m->len));
	return kernel_mmap(m, m->len);
}

long tagtso_memory_mmap(const struct tagtso_mmap *m)
{
	enum tagtso_memory kind = tagtso_profile->classify(m);
	uint64_t len = tagtso_page_up(m->len);

	if (m->flags & MAP_FIXED) {
		tagtso_patch_remove_code(m->addr, len);
		if (kind != TAGTSO_MEMORY_GUEST || !belongs_in_window(m))
			tagtso_window_release(m->addr, len);
	}
	if (kind == TAGTSO_MEMORY_CODE)
		return map_code(m);
	if (kind == TAGTSO_MEMORY_STACK) {
		struct tagtso_mmap stack = *m;

		stack.flags &= ~MAP_GROWSDOWN; /* the whole size is mapped at once; a memfd mapping cannot grow */
		if (tagtso_knobs.stacks)
			return map_guest(&stack);
		TAGTSO_ADD(stack_bytes, len);
	} else if (kind == TAGTSO_MEMORY_GUEST && belongs_in_window(m)) {
		return map_guest(m);
	} else if (kind == TAGTSO_MEMORY_GUEST && (m->prot & PROT_WRITE) && (m->flags & MAP_PRIVATE)) {
		TAGTSO_ADD(uncovered_bytes, len);
	}
	return kernel_mmap(m, m->len);
}

long tagtso_memory_munmap(uint64_t addr, uint64_t len)
{
	tagtso_patch_remove_code(addr, tagtso_page_up(len));
	tagtso_window_release(addr, len);
	return tagtso_sys(__NR_munmap, addr, len);
}

long tagtso_memory_mprotect(uint64_t addr, uint64_t len, int prot)
{
	if ((addr & (TAGTSO_PAGE_SIZE - 1)) || (prot & (PROT_GROWSDOWN | PROT_GROWSUP)) ||
	    !tagtso_window_any(addr, len))
		return tagtso_sys(__NR_mprotect, addr, len, prot);
	return tagtso_window_protect(addr, len, prot);
}

long tagtso_memory_mremap(uint64_t old, uint64_t old_len, uint64_t len, int flags, uint64_t addr)
{
	if (!tagtso_window_any(old, old_len ? old_len : 1)) {
		if (flags & MREMAP_FIXED)
			tagtso_window_release(addr, len);
		return tagtso_sys(__NR_mremap, old, old_len, len, flags, addr);
	}
	return tagtso_window_remap(old, old_len, len, flags, addr);
}

static bool drops_contents(int advice)
{
	return advice == MADV_DONTNEED || advice == MADV_REMOVE || advice == 24 /* MADV_DONTNEED_LOCKED */;
}

/* The window is shared memory to the kernel, for which MADV_DONTNEED keeps the contents and MADV_FREE is an error: give the guest what it would see of
 * its private memory. */
long tagtso_memory_madvise(uint64_t addr, uint64_t len, int advice)
{
	if (!tagtso_window_any(addr, len))
		return tagtso_sys(__NR_madvise, addr, len, advice);
	if (advice == MADV_FREE)
		return 0; /* the kernel may free it, or not */
	if (!drops_contents(advice)) {
		long r = tagtso_sys(__NR_madvise, addr, len, advice);

		return r == -EINVAL ? 0 : r; /* advice that shared memory does not take */
	}
	tagtso_window_zero(addr, len);
	/* parts that are not in the window */
	for (uint64_t va = addr; va < addr + len; va += TAGTSO_PAGE_SIZE) {
		if (!tagtso_window_index(va))
			tagtso_sys(__NR_madvise, va, TAGTSO_PAGE_SIZE, advice);
	}
	return 0;
}

/* --- what the emulator calls ------------------------------------------------------------------------------------- */

static int libc_result(long r)
{
	if (tagtso_sys_failed(r)) {
		errno = (int)-r;
		return -1;
	}
	return (int)r;
}

TAGTSO_EXPORT int mprotect(void *addr, size_t len, int prot)
{
	if (tagtso_is_inert())
		return libc_result(tagtso_sys(__NR_mprotect, addr, len, prot));
	return libc_result(tagtso_memory_mprotect((uint64_t)addr, len, prot));
}

TAGTSO_EXPORT int madvise(void *addr, size_t len, int advice)
{
	if (tagtso_is_inert())
		return libc_result(tagtso_sys(__NR_madvise, addr, len, advice));
	return libc_result(tagtso_memory_madvise((uint64_t)addr, len, advice));
}

TAGTSO_EXPORT void *mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
	uint64_t addr = 0;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_list arguments;

		va_start(arguments, flags);
		addr = (uint64_t)va_arg(arguments, void *);
		va_end(arguments);
	}
	long r = tagtso_is_inert() ? tagtso_sys(__NR_mremap, old, old_len, len, flags, addr)
	                           : tagtso_memory_mremap((uint64_t)old, old_len, len, flags, addr);

	if (tagtso_sys_failed(r)) {
		errno = (int)-r;
		return MAP_FAILED;
	}
	return (void *)r;
}

static void *hook_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off, void *ra)
{
	struct tagtso_mmap m = { (uint64_t)addr, len, prot, flags, fd, off, tagtso_plain_address((uint64_t)ra) };
	long r;

	if (tagtso_is_inert() || !len || (m.flags & MAP_FIXED && m.addr & (TAGTSO_PAGE_SIZE - 1)))
		r = kernel_mmap(&m, len);
	else
		r = tagtso_memory_mmap(&m);
	if (tagtso_sys_failed(r)) {
		errno = (int)-r;
		return MAP_FAILED;
	}
	return (void *)r;
}

/* Not reached in an emulator that exports mmap and munmap itself (box64): its calls arrive by syscall(). */
TAGTSO_EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return hook_mmap(addr, len, prot, flags, fd, off, __builtin_return_address(0));
}

TAGTSO_EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return hook_mmap(addr, len, prot, flags, fd, off, __builtin_return_address(0));
}

TAGTSO_EXPORT int munmap(void *addr, size_t len)
{
	if (tagtso_is_inert())
		return libc_result(tagtso_sys(__NR_munmap, addr, len));
	return libc_result(tagtso_memory_munmap((uint64_t)addr, len));
}

static bool memory_syscall(long nr, const long a[6], uintptr_t ra, long *result)
{
	switch (nr) {
	case __NR_mmap: {
		struct tagtso_mmap m = { (uint64_t)a[0], (uint64_t)a[1], (int)a[2], (int)a[3], (int)a[4], a[5], ra };

		if (!m.len || (m.flags & MAP_FIXED && m.addr & (TAGTSO_PAGE_SIZE - 1)))
			return false;
		*result = tagtso_memory_mmap(&m);
		return true;
	}
	case __NR_munmap:
		*result = tagtso_memory_munmap((uint64_t)a[0], (uint64_t)a[1]);
		return true;
	case __NR_mprotect:
		*result = tagtso_memory_mprotect((uint64_t)a[0], (uint64_t)a[1], (int)a[2]);
		return true;
	case __NR_mremap:
		*result =
			tagtso_memory_mremap((uint64_t)a[0], (uint64_t)a[1], (uint64_t)a[2], (int)a[3], (uint64_t)a[4]);
		return true;
	case __NR_madvise:
		*result = tagtso_memory_madvise((uint64_t)a[0], (uint64_t)a[1], (int)a[2]);
		return true;
	default:
		return false;
	}
}

bool tagtso_syscall_hook(long nr, const long args[6], uintptr_t ra, long *result)
{
	if (tagtso_is_inert())
		return false;
	return memory_syscall(nr, args, ra, result) || tagtso_signals_syscall(nr, args, result) ||
	       tagtso_threads_syscall(nr, args, result);
}
