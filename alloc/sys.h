/* SPDX-License-Identifier: MIT */
/* Raw system calls: no errno, no cancellation, no interposed function in between. Safe in the handler; result is -errno on failure. */
#ifndef TAGTSO_ALLOC_SYS_H
#define TAGTSO_ALLOC_SYS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../shim/rank.h"

#ifndef __aarch64__
#error "raw system calls are written for aarch64; portable code must not include alloc/sys.h"
#endif

static inline long tagtso_sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
	return x0;
}

/* A result that is -errno; for calls that return addresses too. */
static inline bool tagtso_sys_failed(long result)
{
	return result < 0 && result > -4096;
}

#define TAGTSO_SYS_PICK(a, b, c, d, e, f, g, name, ...) name
#define tagtso_sys(...) \
	TAGTSO_SYS_PICK(__VA_ARGS__, tagtso_sys6_, tagtso_sys5_, tagtso_sys4_, tagtso_sys3_, tagtso_sys2_, \
	                tagtso_sys1_, tagtso_sys0_, ) \
	(__VA_ARGS__)
#define tagtso_sys0_(n) tagtso_sys6(n, 0, 0, 0, 0, 0, 0)
#define tagtso_sys1_(n, a) tagtso_sys6(n, (long)(a), 0, 0, 0, 0, 0)
#define tagtso_sys2_(n, a, b) tagtso_sys6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define tagtso_sys3_(n, a, b, c) tagtso_sys6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define tagtso_sys4_(n, a, b, c, d) tagtso_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define tagtso_sys5_(n, a, b, c, d, e) tagtso_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define tagtso_sys6_(n, a, b, c, d, e, f) \
	tagtso_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* The kernel's signal set: one 64-bit word, bit s-1 for signal s. */
typedef uint64_t tagtso_sigmask;
#define TAGTSO_SIGBIT(s) ((tagtso_sigmask)1 << ((s)-1))

/* Sets the thread's mask to `set`, gives the old one. */
tagtso_sigmask tagtso_sys_sigmask(tagtso_sigmask set);
/* All signals that can arrive from outside: everything but SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT, SIGSYS. A blocked synchronous
 * signal would kill the process. */
#define TAGTSO_SIGMASK_ASYNC (~(tagtso_sigmask)(TAGTSO_SIGMASK_SYNC))
#define TAGTSO_SIGMASK_SYNC \
	(TAGTSO_SIGBIT(SIGSEGV) | TAGTSO_SIGBIT(SIGBUS) | TAGTSO_SIGBIT(SIGILL) | TAGTSO_SIGBIT(SIGTRAP) | \
	 TAGTSO_SIGBIT(SIGFPE) | TAGTSO_SIGBIT(SIGABRT) | TAGTSO_SIGBIT(SIGSYS))

/* The system counter, in ms; never 0. */
static inline uint32_t tagtso_sys_now_ms(void)
{
	uint64_t count, frequency;

	__asm__ volatile("mrs %0, cntvct_el0\n\tmrs %1, cntfrq_el0" : "=r"(count), "=r"(frequency));
	return (uint32_t)(count / (frequency / 1000)) | 1;
}

/* One memory barrier in every running thread of the process between call and return (I2). Registered at start-up. */
void tagtso_sys_membarrier(void);
/* Registers for it and proves that it works; false = the shim must stay inert. */
bool tagtso_sys_membarrier_init(void);

/* A spin lock for our own short critical sections. The holder runs with asynchronous signals blocked, so that no handler of the same thread can
 * want it; waiters yield. */
struct tagtso_lock {
	_Atomic uint32_t held;
	enum tagtso_rank rank;
};
void tagtso_lock(struct tagtso_lock *lock);
void tagtso_unlock(struct tagtso_lock *lock);

/* Anonymous private memory from the kernel, zeroed, not reserved; NULL on failure. For tables that are used in few places: in small pages, where the
 * kernel would make 2 MiB of each place. */
static inline void *tagtso_sys_reserve(uint64_t bytes)
{
	long p = tagtso_sys(__NR_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	                    -1, 0);

	if (tagtso_sys_failed(p))
		return (void *)0;
	/* A kernel without huge pages refuses, and does not need it. */
	tagtso_sys(__NR_madvise, p, bytes, MADV_NOHUGEPAGE);
	return (void *)p;
}

#endif
