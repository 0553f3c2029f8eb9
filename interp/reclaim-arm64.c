/* SPDX-License-Identifier: MIT */
/* The grace period of islands: it ends when each thread that was there at its beginning has been seen outside of them.
 *
 * A thread may stand in an island for any time: it is preempted there, or a signal frame leads back there. It gets in by
 * a word of the emulator's code, or by our handler, which lets it go on in the island that it was in. So islands to which
 * no word leads, on any core, are empty for good once each thread has been seen once neither in them nor in our handler,
 * and with no frame of a signal handler that was entered in one. The emulator's handlers are no such frames: relay() and
 * deliver() take the thread out of the island first. What is left is our own handler, in whose text the thread then is,
 * or in the kernel's sigreturn, and libc's two signals, which are blocked while their handlers run. Where a handler of the
 * emulator's is called on top of ours (two signals at once: the second frame says that the first handler is about to
 * begin), the grace period begins again when that is over.
 *
 * Seen is:
 * - a thread that does not run, at the pc that /proc/self/task/TID/syscall tells. The kernel takes it between two looks
 *   at the thread's count of context switches, so that it is the truth about one moment; the signal mask that goes with it we
 *   take in the same way. A thread in clone may be waiting for a child that runs in its memory, and says nothing;
 * - a thread that comes to our handler from outside (tagtso_reclaim_see);
 * - a thread that is no more. Those that began later began outside.
 * A thread that runs and never waits or traps is not seen, and the place is not used again before it does. */
#include "reclaim.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc/sys.h"
#include "shim/say.h"

enum {
	MOST = 1024,         /* threads; with more, nothing is reclaimed */
	LISTING = 64 * 1024, /* bytes of directory entries, 24 to 32 each: all in one call */
	VDSO = 64 * 1024,    /* more than it has */
	TEXT = 4096,         /* /proc/self/task/TID/status is shorter */
};

/* Signals of libc's own. */
#define OF_LIBC (TAGTSO_SIGBIT(32) | TAGTSO_SIGBIT(33))

/* Threads not seen yet, 0 = seen. The patcher fills it before `waiting`; handlers and the patcher clear entries. */
static _Atomic uint32_t awaited[MOST];
static _Atomic uint32_t nawaited; /* the patcher's */
_Atomic bool tagtso_reclaim_waiting;

static struct range {
	uint64_t from, to;
} islands, text, vdso;     /* the patcher's; our own text, and the kernel's, by init */
static bool possible;      /* by init */
static _Atomic bool never; /* hooks set it once */

/* Handlers that were called on top of our own, and how many of them have returned; handlers only. */
static _Atomic uint32_t entered, left;
static uint32_t began_with; /* `entered` when the threads were listed; the patcher's */
static bool listed;         /* the threads of this grace period are; the patcher's */

/* ---- files ---- */

static int open_file(const char *path, int flags)
{
	return (int)tagtso_sys(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | flags, 0);
}

/* The file as a string; false if it cannot be read. */
static bool read_task(uint32_t tid, const char *name, char buffer[TEXT])
{
	char path[64];
	long n;

	tagtso_format(path, sizeof(path), "/proc/self/task/%u/%s", tid, name);
	int fd = open_file(path, 0);

	if (fd < 0)
		return false;
	n = tagtso_sys(__NR_read, fd, buffer, TEXT - 1);
	tagtso_sys(__NR_close, fd);
	buffer[n > 0 ? n : 0] = 0;
	return n > 0;
}

/* Not: cannot be opened now. */
static bool is_gone(uint32_t tid)
{
	char path[64];

	tagtso_format(path, sizeof(path), "/proc/self/task/%u", tid);
	return tagtso_sys(__NR_faccessat, AT_FDCWD, path, F_OK) == -ENOENT;
}

static uint64_t number(const char *s, unsigned base)
{
	uint64_t n = 0;

	for (;; s++) {
		unsigned digit = *s >= '0' && *s <= '9' ? (unsigned)(*s - '0') : 99;

		if (*s >= 'a' && *s <= 'f')
			digit = (unsigned)(*s - 'a') + 10;
		if (digit >= base)
			return n;
		n = n * base + digit;
	}
}

/* ---- one thread ---- */

static bool is_in(const struct range *range, uint64_t pc)
{
	return pc >= range->from && pc < range->to;
}

/* "NR A B C D E F SP PC", "-1 SP PC", or "running". */
static bool is_outside(const char *line)
{
	const char *last = strrchr(line, ' ');
	uint64_t pc, call;

	if (!last || strncmp(last, " 0x", 3))
		return false;
	pc = number(last + 3, 16);
	call = number(line, 10); /* 0 for -1 */
	if (call == __NR_clone || call == __NR_clone3 || call == __NR_rt_sigreturn)
		return false;
	return !is_in(&islands, pc) && !is_in(&text, pc) && !is_in(&vdso, pc);
}

struct status {
	uint64_t blocked, voluntary, forced;
};

static bool find(const char *status, const char *name, unsigned base, uint64_t *value)
{
	const char *at = strstr(status, name);

	if (at)
		*value = number(at + strlen(name), base);
	return at;
}

static bool read_status(uint32_t tid, char buffer[TEXT], struct status *s)
{
	return read_task(tid, "status", buffer) && find(buffer, "\nSigBlk:\t", 16, &s->blocked) &&
	       find(buffer, "\nvoluntary_ctxt_switches:\t", 10, &s->voluntary) &&
	       find(buffer, "\nnonvoluntary_ctxt_switches:\t", 10, &s->forced);
}

/* The counts go up when the thread stops. Where they are the same before and after a look at a thread that did not run, it
 * has stood still from before the first to the look, and the mask that was read in between is that of the look. (In one
 * reading of `status` the mask comes before the counts.) */
static bool stands_outside(uint32_t tid)
{
	static char buffer[TEXT]; /* the patcher's */
	struct status before, then, after;

	if (!read_task(tid, "syscall", buffer) || !is_outside(buffer)) /* most are told by this alone */
		return false;
	if (!read_status(tid, buffer, &before) || !read_status(tid, buffer, &then) || (then.blocked & OF_LIBC))
		return false;
	if (!read_task(tid, "syscall", buffer) || !is_outside(buffer))
		return false;
	return read_status(tid, buffer, &after) && before.voluntary == after.voluntary && before.forced == after.forced;
}

/* ---- all threads ---- */

/* The directory says by its links how many threads there are. */
static uint64_t count_threads(int directory)
{
	struct stat st;

	return tagtso_sys(__NR_fstat, directory, &st) == 0 && st.st_nlink > 2 ? st.st_nlink - 2 : 0;
}

struct entry {
	uint64_t inode, offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

/* In one call the kernel goes through the threads from the oldest to the newest and may break off where one ends: then the
 * number is less than there were. What is as many as there were has all of them. */
static bool list_threads(int directory)
{
	static char buffer[LISTING] __attribute__((aligned(8))); /* the patcher's */
	uint64_t threads = count_threads(directory), seen = 0;
	uint32_t self = (uint32_t)tagtso_sys(__NR_gettid), n = 0;
	long size = tagtso_sys(__NR_getdents64, directory, buffer, LISTING);

	for (long at = 0; at < size; at += ((struct entry *)(buffer + at))->length) {
		uint32_t tid = (uint32_t)number(((struct entry *)(buffer + at))->name, 10);

		if (!tid)
			continue; /* . and .. */
		seen++;
		if (tid == self)
			continue;
		if (n == MOST)
			return false;
		atomic_store_explicit(&awaited[n++], tid, memory_order_relaxed);
	}
	atomic_store_explicit(&nawaited, n, memory_order_relaxed);
	return threads && seen == threads;
}

/* False if a handler runs on top of ours. `left` is read first: it is never more than `entered`, so if they are the same
 * they were so then. */
static bool note_handlers(void)
{
	uint32_t returned = atomic_load(&left);

	began_with = atomic_load(&entered);
	return began_with == returned;
}

static bool list_all(void)
{
	int directory;

	listed = false;
	if (!note_handlers() || (directory = open_file("/proc/self/task", O_DIRECTORY)) < 0)
		return false;
	for (unsigned tries = 0; !listed && tries < 8; tries++) {
		tagtso_sys(__NR_lseek, directory, 0, 0);
		listed = list_threads(directory);
	}
	tagtso_sys(__NR_close, directory);
	return listed;
}

bool tagtso_reclaim_begin(uint64_t from, uint64_t to)
{
	if (!tagtso_reclaim_possible())
		return false;
	islands = (struct range){ from, to };
	list_all(); /* or later */
	/* Release: pairs with tagtso_reclaim_see(). */
	atomic_store_explicit(&tagtso_reclaim_waiting, true, memory_order_release);
	return true;
}

static uint32_t count_awaited(void)
{
	uint32_t n = atomic_load_explicit(&nawaited, memory_order_relaxed), rest = 0;

	for (uint32_t i = 0; i < n; i++) {
		/* Acquire: what the thread did before it was seen is over. */
		uint32_t tid = atomic_load_explicit(&awaited[i], memory_order_acquire);

		if (tid && (stands_outside(tid) || is_gone(tid)))
			atomic_store_explicit(&awaited[i], tid = 0, memory_order_relaxed);
		rest += tid != 0;
	}
	return rest;
}

bool tagtso_reclaim_over(void)
{
	if (!tagtso_reclaim_possible() || (!listed && !list_all()) || count_awaited())
		return false;
	/* Who was seen in a handler on top of ours entered it before: that shows here. */
	if (atomic_load(&entered) != began_with) {
		listed = false;
		return false;
	}
	tagtso_reclaim_cancel();
	return true;
}

void tagtso_reclaim_cancel(void)
{
	atomic_store_explicit(&tagtso_reclaim_waiting, false, memory_order_relaxed);
}

void tagtso_reclaim_see_caller(uint64_t mask)
{
	if (mask & OF_LIBC)
		return;
	uint32_t tid = (uint32_t)tagtso_sys(__NR_gettid);

	for (uint32_t i = 0; i < MOST; i++) {
		uint32_t old = tid;

		if (atomic_load_explicit(&awaited[i], memory_order_relaxed) == tid)
			atomic_compare_exchange_strong_explicit(&awaited[i], &old, 0, memory_order_acq_rel,
			                                        memory_order_relaxed);
	}
}

bool tagtso_reclaim_enter_handler(uint64_t pc)
{
	if (!is_in(&text, pc))
		return false;
	atomic_fetch_add(&entered, 1);
	return true;
}

/* One that is left by longjmp never returns, and nothing is reclaimed any more. */
void tagtso_reclaim_leave_handler(bool counted)
{
	if (counted)
		atomic_fetch_add(&left, 1);
}

/* ---- what there is ---- */

static int find_text(struct dl_phdr_info *info, size_t size, void *own)
{
	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uint64_t from = info->dlpi_addr + p->p_vaddr;

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || (uint64_t)own - from >= p->p_memsz)
			continue;
		text = (struct range){ from, from + p->p_memsz };
		return 1;
	}
	return 0;
}

void tagtso_reclaim_init(void)
{
	static char buffer[TEXT];
	struct status status;
	uint32_t self = (uint32_t)tagtso_sys(__NR_gettid);

	vdso.from = getauxval(AT_SYSINFO_EHDR);
	vdso.to = vdso.from + VDSO;
	dl_iterate_phdr(find_text, (void *)(uintptr_t)tagtso_reclaim_init);
	possible = text.to && read_task(self, "syscall", buffer) && read_status(self, buffer, &status);
}

bool tagtso_reclaim_possible(void)
{
	return possible && !atomic_load_explicit(&never, memory_order_relaxed);
}

void tagtso_reclaim_never(void)
{
	atomic_store_explicit(&never, true, memory_order_relaxed);
}
