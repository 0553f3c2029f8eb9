/* SPDX-License-Identifier: MIT */
/* Hooks of thread creation and of process end; waking the shim before a second thread runs. */
#include "threads.h"

#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>
#include <threads.h>

#include "../alloc/heap.h"
#include "../alloc/owner.h"
#include "../alloc/sys.h"
#include "../alloc/tags.h"
#include "../alloc/window.h"
#include "../interp/patch.h"
#include "../interp/reclaim.h"
#include "caller.h"
#include "export.h"
#include "native.h"
#include "next.h"
#include "say.h"
#include "state.h"
#include "stats.h"

_Atomic bool tagtso_active;

static int (*real_pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
static int (*real_clone)(int (*)(void *), void *, int, void *, ...);

/* Guest threads that have not ended: when the last one ends, the worker must end too, or the process never would. */
static _Atomic int live = 1;
static pthread_key_t end_key; /* its destructor runs when a guest thread ends */

static void thread_end(void *arg)
{
	(void)arg;
	if (atomic_fetch_sub(&live, 1) == 1)
		tagtso_patch_stop();
}

void tagtso_threads_init(void)
{
	real_pthread_create = tagtso_next("pthread_create");
	real_clone = tagtso_next("clone");
	pthread_key_create(&end_key, thread_end);
}

/* --- waking ------------------------------------------------------------------------------------------------------ */

/* An access on the thread's own CPU is a restartable sequence, whose end it is: a stretch cannot have two. */
static int start_patcher(void)
{
	unsigned stretch = tagtso_knobs.stretch ? (unsigned)tagtso_knobs.stretch : tagtso_profile->stretch;
	struct tagtso_scratch scratch = tagtso_profile->scratch;

	if (!tagtso_shared_tag) /* the forms of relax are islands of their own */
		stretch = 1;
	if (tagtso_cpu.owns) {
		scratch.number = (uint8_t)tagtso_cpu.number;
		scratch.area = tagtso_cpu.area;
		stretch = 1;
	}
	return tagtso_patch_start(scratch, stretch);
}

/* One thread exists, and it is here. Tag checks go on first: until memory has tags, every pointer passes. */
void tagtso_wake(void)
{
	if (tagtso_is_inert() || tagtso_is_active())
		return;
	tagtso_sigmask mask = tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC);
	unsigned me = tagtso_owner_lease();

	atomic_store(&tagtso_active, true);
	tagtso_window_wake(me ? me : TAGTSO_TAG_BUSY); /* a CPU without an id: nobody's, until somebody touches it */
	TAGTSO_COUNT(wakeups);
	int e = start_patcher();

	if (e)
		tagtso_say("no thread for rewriting sites: error %d: accesses are interpreted, which is slow", -e);
	pthread_setspecific(end_key, &live);
	tagtso_sys_sigmask(mask);
	TAGTSO_SAY(1, "awake: a second thread starts; %lu bytes of guest memory in the window",
	           (unsigned long)TAGTSO_STAT(window_bytes));
}

/* Its creator may have blocked everything by a way that no hook sees. */
static void unblock(void)
{
	tagtso_sigmask set = TAGTSO_SIGBIT(SIGSEGV) | TAGTSO_SIGBIT(SIGBUS);

	tagtso_sys(__NR_rt_sigprocmask, SIG_UNBLOCK, &set, NULL, sizeof(set));
}

void tagtso_thread_begin(void)
{
	unblock();
	TAGTSO_COUNT(threads);
	tagtso_owner_lease();
}

static void own_thread_begin(void)
{
	unblock();
	tagtso_owner_none();
}

void tagtso_sleep_in_child(void)
{
	atomic_store(&tagtso_active, false);
	tagtso_owner_dormant();
	tagtso_patch_after_fork();
	atomic_store(&live, 1);
}

/* --- thread creation --------------------------------------------------------------------------------------------- */

struct start {
	void *(*pthread)(void *);
	int (*clone)(void *); /* of clone and thrd_create */
	void *arg;
};

static struct start take_start(void *p)
{
	struct start s = *(struct start *)p;

	tagtso_heap_private_free(p);
	return s;
}

/* The new thread has its creator's IRG mask: it must have its own before it runs guest code, or two threads would be one owner. */
static void *begin_pthread(void *p)
{
	struct start s = take_start(p);

	tagtso_thread_begin();
	pthread_setspecific(end_key, &live);
	return s.pthread(s.arg);
}

/* A thread that never runs guest code: no reason to wake. Its accesses are checked all the same, and it owns nothing (I1). */
static void *begin_own(void *p)
{
	struct start s = take_start(p);

	own_thread_begin();
	return s.pthread(s.arg);
}

static bool is_own(uint64_t caller)
{
	return tagtso_profile->own_thread && tagtso_profile->own_thread(tagtso_plain_address(caller));
}

static int create_own(pthread_t *thread, const pthread_attr_t *attributes, struct start *s)
{
	int e = real_pthread_create(thread, attributes, begin_own, s);

	if (e)
		tagtso_heap_private_free(s);
	return e;
}

TAGTSO_EXPORT int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                                 void *(*fn)(void *), void *restrict arg)
{
	if (!real_pthread_create)
		tagtso_threads_init();
	if (tagtso_is_inert())
		return real_pthread_create(thread, attributes, fn, arg);
	struct start *s = tagtso_heap_private_alloc(sizeof(*s));

	if (!s)
		return EAGAIN;
	*s = (struct start){ .pthread = fn, .arg = arg };
	if (is_own((uint64_t)__builtin_return_address(0)))
		return create_own(thread, attributes, s);
	tagtso_wake();
	atomic_fetch_add(&live, 1);
	/* libc writes *thread, and reads the attributes, partly with all signals blocked: a tag mismatch there would be the end */
	int e = real_pthread_create(tagtso_native(thread, sizeof(*thread)),
	                            tagtso_native(attributes, sizeof(*attributes)), begin_pthread, s);

	if (e) {
		atomic_fetch_sub(&live, 1);
		tagtso_heap_private_free(s);
	}
	return e;
}

static int (*real_thrd_create)(thrd_t *, thrd_start_t, void *);

static int begin_thrd(void *p)
{
	struct start s = take_start(p);

	tagtso_thread_begin();
	pthread_setspecific(end_key, &live);
	return s.clone(s.arg);
}

/* libc's own thrd_create calls its own pthread_create, past the hook above. */
TAGTSO_EXPORT int thrd_create(thrd_t *thread, thrd_start_t fn, void *arg)
{
	if (!real_thrd_create)
		real_thrd_create = tagtso_next("thrd_create");
	if (tagtso_is_inert())
		return real_thrd_create(thread, fn, arg);
	struct start *s = tagtso_heap_private_alloc(sizeof(*s));

	if (!s)
		return thrd_nomem;
	tagtso_wake();
	*s = (struct start){ .clone = fn, .arg = arg };
	atomic_fetch_add(&live, 1);
	int e = real_thrd_create(tagtso_native(thread, sizeof(*thread)), begin_thrd, s);

	if (e != thrd_success) {
		atomic_fetch_sub(&live, 1);
		tagtso_heap_private_free(s);
	}
	return e;
}

static int begin_clone(void *p)
{
	struct start s = take_start(p);

	tagtso_thread_begin();
	return s.clone(s.arg);
}

static int begin_fork(void *p)
{
	struct start *s = p; /* on the parent's stack, of which this is a copy */

	tagtso_fork_child();
	return s->clone(s->arg);
}

static int clone_forking(int (*fn)(void *), void *stack, int flags, void *arg, pid_t *ptid, void *tls, pid_t *ctid)
{
	struct start s = { .clone = fn, .arg = arg };

	tagtso_fork_prepare();
	int pid = real_clone(begin_fork, stack, flags, &s, ptid, tls, ctid);
	int keep = errno;

	tagtso_fork_parent();
	errno = keep;
	return pid;
}

/* The child has its creator's rseq area, which the kernel does not keep for it, and must own nothing where a CPU would be the owner: it would not notice that it
 * is on another one. It has its creator's IRG mask. */
static int clone_vforking(int (*fn)(void *), void *stack, int flags, void *arg, pid_t *ptid, void *tls, pid_t *ctid)
{
	bool apart = tagtso_cpu.owns && tagtso_is_active() && (flags & CLONE_VM);

	if (apart)
		tagtso_owner_none();
	int pid = real_clone(fn, stack, flags, arg, ptid, tls, ctid);
	int keep = errno;

	if (apart)
		tagtso_owner_lease();
	errno = keep;
	return pid;
}

TAGTSO_EXPORT int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	va_list arguments;

	if (!real_clone)
		tagtso_threads_init();
	va_start(arguments, arg);
	pid_t *ptid = va_arg(arguments, pid_t *);
	void *tls = va_arg(arguments, void *);
	pid_t *ctid = va_arg(arguments, pid_t *);

	va_end(arguments);
	if (tagtso_is_inert())
		return real_clone(fn, stack, flags, arg, ptid, tls, ctid);
	if (flags & CLONE_VFORK)
		return clone_vforking(fn, stack, flags, arg, ptid, tls, ctid);
	if (!(flags & CLONE_VM))
		return clone_forking(fn, stack, flags, arg, ptid, tls, ctid);
	struct start *s = tagtso_heap_private_alloc(sizeof(*s));

	if (!s) {
		errno = EAGAIN;
		return -1;
	}
	tagtso_wake();
	if (!(flags & CLONE_THREAD))
		tagtso_reclaim_never();
	*s = (struct start){ .clone = fn, .arg = arg };
	return real_clone(begin_clone, stack, flags, s, tagtso_native(ptid, sizeof(*ptid)), tls,
	                  tagtso_native(ctid, sizeof(*ctid)));
}

/* --- by number ---------------------------------------------------------------------------------------------------- */

/* clone() used as fork(): no stack of its own, no shared memory. */
static long raw_fork(const long a[6])
{
	tagtso_fork_prepare();
	long pid = tagtso_sys(__NR_clone, a[0], a[1], a[2], a[3], a[4]);

	if (pid == 0)
		tagtso_fork_child();
	else
		tagtso_fork_parent();
	return pid;
}

bool tagtso_threads_syscall(long nr, const long args[6], long *result)
{
	switch (nr) {
	case __NR_clone3: /* as on a kernel without it: callers then use clone */
		*result = -ENOSYS;
		return true;
	case __NR_clone:
		if (args[0] & CLONE_VFORK) {
			/* as in clone_vforking(), but both come back from here */
			if (tagtso_cpu.owns && tagtso_is_active() && (args[0] & CLONE_VM))
				tagtso_owner_none();
			return false;
		}
		if (args[0] & CLONE_VM) {
			/* A thread that we cannot get hold of before it runs has its creator's IRG mask: neither may own anything. */
			tagtso_wake();
			tagtso_owner_none();
			if (!(args[0] & CLONE_THREAD))
				tagtso_reclaim_never();
			return false;
		}
		if (args[1])
			return false;
		*result = raw_fork(args);
		return true;
	case __NR_exit_group:
		tagtso_finish();
		return false;
	default:
		return false;
	}
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

_Noreturn static void end(int status)
{
	tagtso_finish();
	for (;;)
		tagtso_sys(__NR_exit_group, status);
}

TAGTSO_EXPORT _Noreturn void _exit(int status)
{
	end(status);
}

TAGTSO_EXPORT _Noreturn void _Exit(int status)
{
	end(status);
}
