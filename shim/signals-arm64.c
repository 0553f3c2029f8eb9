/* SPDX-License-Identifier: MIT */
/* Keeps our SIGSEGV and SIGBUS handler in front of the emulator's, and those two signals out of every mask. The emulator's handlers of all other signals see
 * the interrupted thread in its own code, never in code of ours: an emulator finds the guest's registers by that (I4). */
#include "signals.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "../alloc/sys.h"
#include "../interp/island.h"
#include "../interp/outofline.h"
#include "../interp/reclaim.h"
#include "export.h"
#include "native.h"
#include "next.h"
#include "say.h"
#include "stats.h"

#define DEFAULT ((tagtso_signal_handler *)(void *)SIG_DFL)
#define IGNORE ((tagtso_signal_handler *)(void *)SIG_IGN)

/* The kernel's struct sigaction on arm64. */
struct kernel_sigaction {
	tagtso_signal_handler *handler;
	unsigned long flags;
	void (*restorer)(void);
	tagtso_sigmask mask;
};

enum { SIGNALS = 64 };

/* What the emulator asked for, by signal; for others than SIGSEGV and SIGBUS, the last handler that it set, which is in force while the kernel has
 * relay() for that signal. Written under `lock` by sigaction(); handlers read a copy by sequence number. */
static struct kernel_sigaction theirs[SIGNALS + 1];
static _Atomic uint32_t sequence; /* odd while theirs[] is being written */
static struct tagtso_lock lock = { .rank = TAGTSO_RANK_SIGNALS };
static tagtso_signal_handler *ours; /* NULL while inert; written once at start-up */

static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static int (*real_pthread_sigmask)(int, const sigset_t *, sigset_t *);
static int (*real_sigprocmask)(int, const sigset_t *, sigset_t *);
static int (*real_sigsuspend)(const sigset_t *);

void tagtso_signals_init(void)
{
	real_sigaction = tagtso_next("sigaction");
	real_pthread_sigmask = tagtso_next("pthread_sigmask");
	real_sigprocmask = tagtso_next("sigprocmask");
	real_sigsuspend = tagtso_next("sigsuspend");
}

static bool is_ours(int signo)
{
	return ours && (signo == SIGSEGV || signo == SIGBUS);
}

static struct kernel_sigaction *their(int signo)
{
	return &theirs[signo];
}

/* Our own registration: asynchronous signals wait, so that page locks are never held by an interrupted thread; SIGSEGV and SIGBUS do not
 * (a fault inside an interpreted access). On the alternate stack if the emulator wants it there. */
static long install(int signo)
{
	unsigned long keep = their(signo)->handler != DEFAULT ? their(signo)->flags & SA_ONSTACK : 0;
	struct kernel_sigaction act = {
		.handler = ours,
		.flags = SA_SIGINFO | SA_NODEFER | SA_RESTART | keep,
		.mask = TAGTSO_SIGMASK_ASYNC,
	};

	return tagtso_sys(__NR_rt_sigaction, signo, &act, NULL, sizeof(tagtso_sigmask));
}

int tagtso_signals_install(tagtso_signal_handler *handler)
{
	static const int signals[] = { SIGSEGV, SIGBUS };

	ours = handler;
	for (int i = 0; i < 2; i++) {
		long r = tagtso_sys(__NR_rt_sigaction, signals[i], NULL, their(signals[i]), sizeof(tagtso_sigmask));

		if (!r)
			r = install(signals[i]);
		if (r)
			return (int)r;
	}
	return 0;
}

static long swap_theirs(int signo, const struct kernel_sigaction *act, struct kernel_sigaction *old)
{
	tagtso_sigmask mask = tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC);
	long r = 0;

	tagtso_lock(&lock);
	if (old)
		*old = *their(signo);
	if (act) {
		atomic_fetch_add(&sequence, 1);
		*their(signo) = *act;
		atomic_fetch_add(&sequence, 1);
		r = install(signo);
	}
	tagtso_unlock(&lock);
	tagtso_sys_sigmask(mask);
	return r;
}

static struct kernel_sigaction read_theirs(int signo)
{
	struct kernel_sigaction copy;
	uint32_t before;

	do {
		before = atomic_load_explicit(&sequence, memory_order_acquire);
		copy = *their(signo);
		atomic_thread_fence(memory_order_acquire);
	} while ((before & 1) || before != atomic_load_explicit(&sequence, memory_order_relaxed));
	return copy;
}

/* --- signals that are not ours --------------------------------------------------------------------------------------- */

static void leave_own_code(ucontext_t *uc, siginfo_t *info)
{
	struct tagtso_island *island = tagtso_code_island(uc->uc_mcontext.pc);
	bool finished;

	if (island)
		tagtso_island_leave(island, uc->uc_mcontext.regs);
	else
		tagtso_outofline_leave(uc, info, &finished, NULL);
	/* in place of the barriers that are not reached now */
	__asm__ volatile("dmb ish" ::: "memory");
}

static void relay(int signo, siginfo_t *info, void *context)
{
	struct kernel_sigaction act = read_theirs(signo);
	bool counted = tagtso_reclaim_enter_handler(((ucontext_t *)context)->uc_mcontext.pc);

	leave_own_code(context, info);
	act.handler(signo, info, context); /* one that takes only the number ignores the rest */
	tagtso_reclaim_leave_handler(counted);
}

static bool is_relayed(int signo)
{
	return ours && signo > 0 && signo <= SIGNALS && signo != SIGKILL && signo != SIGSTOP;
}

static long kernel_action(int signo, const struct kernel_sigaction *act, struct kernel_sigaction *old)
{
	return tagtso_sys(__NR_rt_sigaction, signo, act, old, sizeof(tagtso_sigmask));
}

/* No handler may run with SIGSEGV blocked: the kernel would kill the process at a tag mismatch. */
static long set_relay(int signo, const struct kernel_sigaction *act)
{
	struct kernel_sigaction in = *act;

	in.mask &= ~(TAGTSO_SIGBIT(SIGSEGV) | TAGTSO_SIGBIT(SIGBUS));
	if (act->handler != DEFAULT && act->handler != IGNORE) {
		atomic_fetch_add(&sequence, 1);
		*their(signo) = *act;
		atomic_fetch_add(&sequence, 1);
		in.handler = relay;
		in.flags |= SA_SIGINFO;
	}
	return kernel_action(signo, &in, NULL);
}

static long swap_relayed(int signo, const struct kernel_sigaction *act, struct kernel_sigaction *old)
{
	tagtso_sigmask mask = tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC);

	tagtso_lock(&lock);
	long r = kernel_action(signo, NULL, old);

	if (!r && old->handler == relay)
		*old = *their(signo);
	if (!r && act)
		r = set_relay(signo, act);
	tagtso_unlock(&lock);
	tagtso_sys_sigmask(mask);
	return r;
}

/* --- ours --------------------------------------------------------------------------------------------------------------- */

/* The default action: the kernel's own, at the same instruction, with the same core file. */
static void default_action(int signo, const siginfo_t *info)
{
	struct kernel_sigaction dfl = { .handler = DEFAULT };

	tagtso_sys(__NR_rt_sigaction, signo, &dfl, NULL, sizeof(tagtso_sigmask));
	if (info->si_code <= 0) /* sent by a process: nothing will be executed again */
		tagtso_sys(__NR_tgkill, tagtso_sys(__NR_getpid), tagtso_sys(__NR_gettid), signo);
}

void tagtso_signals_chain(int signo, siginfo_t *info, ucontext_t *uc)
{
	struct kernel_sigaction act = read_theirs(signo);
	tagtso_sigmask mask;

	TAGTSO_COUNT(chained);
	if (act.handler == IGNORE && info->si_code <= 0)
		return;
	if (act.handler == DEFAULT || act.handler == IGNORE) {
		default_action(signo, info);
		return;
	}
	memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	mask |= act.mask | (act.flags & SA_NODEFER ? 0 : TAGTSO_SIGBIT(signo));
	tagtso_sys_sigmask(mask & ~(TAGTSO_SIGBIT(SIGSEGV) | TAGTSO_SIGBIT(SIGBUS)));
	if (act.flags & SA_RESETHAND) {
		struct kernel_sigaction dfl = { .handler = DEFAULT };

		swap_theirs(signo, &dfl, NULL);
	}
	bool counted = tagtso_reclaim_enter_handler(uc->uc_mcontext.pc);

	act.handler(signo, info, uc); /* one that takes only the number ignores the rest */
	tagtso_reclaim_leave_handler(counted);
	tagtso_sys_sigmask(TAGTSO_SIGMASK_ASYNC);
}

/* --- what the emulator calls ------------------------------------------------------------------------------------- */

static sigset_t unmasked(const sigset_t *set)
{
	sigset_t s = *set;

	sigdelset(&s, SIGSEGV);
	sigdelset(&s, SIGBUS);
	return s;
}

static sigset_t *kernel_pointer(sigset_t *set)
{
	return tagtso_is_active() ? tagtso_native(set, sizeof(tagtso_sigmask)) : set;
}

static long swap(int signo, const struct kernel_sigaction *act, struct kernel_sigaction *old)
{
	return is_ours(signo) ? swap_theirs(signo, act, old) : swap_relayed(signo, act, old);
}

static int swap_libc(int signo, const struct sigaction *act, struct sigaction *old)
{
	struct kernel_sigaction in = { 0 }, out = { 0 };

	if (act) {
		in.handler = act->sa_sigaction;
		in.flags = (unsigned long)act->sa_flags;
		memcpy(&in.mask, &act->sa_mask, sizeof(in.mask));
	}
	long r = swap(signo, act ? &in : NULL, &out);

	if (old) {
		memset(old, 0, sizeof(*old));
		old->sa_sigaction = out.handler;
		old->sa_flags = (int)out.flags;
		memcpy(&old->sa_mask, &out.mask, sizeof(out.mask));
	}
	if (r)
		errno = (int)-r;
	return r ? -1 : 0;
}

/* libc refuses its own two signals, and what is no signal. */
TAGTSO_EXPORT int sigaction(int signo, const struct sigaction *act, struct sigaction *old)
{
	if (is_relayed(signo) && signo != 32 && signo != 33)
		return swap_libc(signo, act, old);
	if (!real_sigaction)
		tagtso_signals_init();
	return real_sigaction(signo, act, old);
}

TAGTSO_EXPORT sighandler_t signal(int signo, sighandler_t handler)
{
	struct sigaction act, old;

	memset(&act, 0, sizeof(act));
	act.sa_handler = handler;
	act.sa_flags = SA_RESTART;
	return sigaction(signo, &act, &old) ? SIG_ERR : old.sa_handler;
}

TAGTSO_EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	if (!real_pthread_sigmask)
		tagtso_signals_init();
	old = kernel_pointer(old);
	if (!ours || !set)
		return real_pthread_sigmask(how, set, old);
	sigset_t safe = how == SIG_UNBLOCK ? *set : unmasked(set);

	return real_pthread_sigmask(how, &safe, old);
}

TAGTSO_EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	if (!real_sigprocmask)
		tagtso_signals_init();
	old = kernel_pointer(old);
	if (!ours || !set)
		return real_sigprocmask(how, set, old);
	sigset_t safe = how == SIG_UNBLOCK ? *set : unmasked(set);

	return real_sigprocmask(how, &safe, old);
}

TAGTSO_EXPORT int sigsuspend(const sigset_t *set)
{
	if (!real_sigsuspend)
		tagtso_signals_init();
	if (!ours)
		return real_sigsuspend(set);
	sigset_t safe = unmasked(set);

	return real_sigsuspend(&safe);
}

static bool syscall_sigaction(const long args[6], long *result)
{
	const struct kernel_sigaction *act = (const struct kernel_sigaction *)args[1];
	struct kernel_sigaction in, old;
	int signo = (int)args[0];

	if (!is_relayed(signo) || args[3] != sizeof(tagtso_sigmask))
		return false;
	if (act)
		in = *act; /* guest memory may trap: not while the lock is held */
	*result = swap(signo, act ? &in : NULL, &old);
	if (!*result && args[2])
		*(struct kernel_sigaction *)args[2] = old;
	return true;
}

static bool syscall_sigprocmask(const long args[6], long *result)
{
	tagtso_sigmask set;

	if (!ours || !args[1] || args[0] == SIG_UNBLOCK || args[3] != sizeof(set))
		return false;
	set = *(const tagtso_sigmask *)args[1] & ~(TAGTSO_SIGBIT(SIGSEGV) | TAGTSO_SIGBIT(SIGBUS));
	tagtso_sigmask old;

	*result = tagtso_sys(__NR_rt_sigprocmask, args[0], &set, &old, sizeof(set));
	if (!*result && args[2])
		*(tagtso_sigmask *)args[2] = old;
	return true;
}

bool tagtso_signals_syscall(long nr, const long args[6], long *result)
{
	if (nr == __NR_rt_sigaction)
		return syscall_sigaction(args, result);
	if (nr == __NR_rt_sigprocmask)
		return syscall_sigprocmask(args, result);
	return false;
}
