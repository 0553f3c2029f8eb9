/* SPDX-License-Identifier: MIT */
/* fork: the window is shared memory to the kernel, but private to the guest, so the child makes a copy before either side goes on (HACKING.md §7). */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "../alloc/sys.h"
#include "../alloc/window.h"
#include "say.h"
#include "state.h"
#include "stats.h"
#include "threads.h"

/* The child closes its end when it has its copy; its death does the same. Used by the one thread that forks: tagtso_window_fork_protect keeps the others out. */
static int done[2] = { -1, -1 };

void tagtso_fork_prepare(void)
{
	if (tagtso_is_inert())
		return;
	tagtso_window_fork_protect(true);
	if (tagtso_sys(__NR_pipe2, done, O_CLOEXEC) != 0)
		done[0] = done[1] = -1;
}

void tagtso_fork_parent(void)
{
	char byte;

	if (tagtso_is_inert())
		return;
	if (done[0] >= 0) {
		tagtso_sys(__NR_close, done[1]);
		while (tagtso_sys(__NR_read, done[0], &byte, 1) == -EINTR)
			continue;
		tagtso_sys(__NR_close, done[0]);
	}
	tagtso_window_fork_protect(false);
	TAGTSO_COUNT(forks);
}

static void forget_parents_counters(void)
{
	for (int i = 0; i < TAGTSO_NSTATS; i++) {
		if (i != TAGTSO_STAT_window_bytes && i != TAGTSO_STAT_window_peak && i != TAGTSO_STAT_heap_bytes)
			atomic_store_explicit(&tagtso_stats[i], 0, memory_order_relaxed);
	}
}

void tagtso_fork_child(void)
{
	if (tagtso_is_inert())
		return;
	/* No pipe: the parent does not wait, and its memory could change under the copy: a child with a wrong memory must not run. */
	if (done[0] < 0)
		tagtso_die("fork: no file descriptor for the pipe that the copy of guest memory needs: raise the limit "
		           "(ulimit -n)");
	tagtso_sleep_in_child();
	int e = tagtso_window_fork_child();

	if (e)
		tagtso_die("fork: a memfd for the child's guest memory: error %d: free memory or file descriptors", -e);
	tagtso_sys(__NR_close, done[0]);
	tagtso_sys(__NR_close, done[1]);
	forget_parents_counters();
}

void tagtso_fork_init(void)
{
	pthread_atfork(tagtso_fork_prepare, tagtso_fork_parent, tagtso_fork_child);
}
