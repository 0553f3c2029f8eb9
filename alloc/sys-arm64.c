/* SPDX-License-Identifier: MIT */
/* Raw system calls for the shim, and for the private copy of jemalloc, whose memory calls must not enter the emulator's own mmap. */
#include <errno.h>
#include <linux/membarrier.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

#include "../shim/say.h"
#include "../shim/stats.h"
#include "sys.h"

tagtso_sigmask tagtso_sys_sigmask(tagtso_sigmask set)
{
	tagtso_sigmask old = 0;

	tagtso_sys(__NR_rt_sigprocmask, SIG_SETMASK, &set, &old, sizeof(set));
	return old;
}

void tagtso_sys_membarrier(void)
{
	TAGTSO_COUNT(membarriers);
	long r = tagtso_sys(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);

	if (r != 0)
		tagtso_die(
			"membarrier: refused with error %d after it worked at start-up: a seccomp filter may have been "
			"installed: run this program with TAGTSO_MODE=off",
			(int)-r);
}

bool tagtso_sys_membarrier_init(void)
{
	long cmds = tagtso_sys(__NR_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	long need = MEMBARRIER_CMD_PRIVATE_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE;

	if (cmds < 0 || (cmds & need) != need)
		return false;
	return tagtso_sys(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
	       tagtso_sys(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) == 0 &&
	       tagtso_sys(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void tagtso_lock(struct tagtso_lock *lock)
{
	TAGTSO_RANK_WAIT(lock->rank, 0);
	while (atomic_exchange_explicit(&lock->held, 1, memory_order_acquire))
		tagtso_sys(__NR_sched_yield);
	TAGTSO_RANK_TOOK(lock->rank, 0);
}

void tagtso_unlock(struct tagtso_lock *lock)
{
	TAGTSO_RANK_GAVE(lock->rank);
	atomic_store_explicit(&lock->held, 0, memory_order_release);
}

/* --- the names that alloc/jemalloc-private has in place of libc's ------------------------------------------------- */

void *tagtso_sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int tagtso_sys_munmap(void *addr, size_t len);
int tagtso_sys_madvise(void *addr, size_t len, int advice);
int tagtso_sys_mprotect(void *addr, size_t len, int prot);
void *tagtso_sys_sbrk(intptr_t increment);

static int libc_result(long r)
{
	if (r >= 0)
		return (int)r;
	errno = (int)-r;
	return -1;
}

void *tagtso_sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	long r = tagtso_sys(__NR_mmap, addr, len, prot, flags, fd, off);

	if (tagtso_sys_failed(r)) {
		errno = (int)-r;
		return MAP_FAILED;
	}
	return (void *)r;
}

int tagtso_sys_munmap(void *addr, size_t len)
{
	return libc_result(tagtso_sys(__NR_munmap, addr, len));
}

int tagtso_sys_madvise(void *addr, size_t len, int advice)
{
	return libc_result(tagtso_sys(__NR_madvise, addr, len, advice));
}

int tagtso_sys_mprotect(void *addr, size_t len, int prot)
{
	return libc_result(tagtso_sys(__NR_mprotect, addr, len, prot));
}

/* The process break belongs to the emulator and its guest: the private heap never moves it. */
void *tagtso_sys_sbrk(intptr_t increment)
{
	(void)increment;
	errno = ENOMEM;
	return (void *)-1;
}
