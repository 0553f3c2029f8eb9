/* SPDX-License-Identifier: MIT */
/* syscall(), and what emulators have in its place: the emulator's and the guest's raw system calls, with guest pointers moved to the alias as syscalls.def says. */
#include "caller.h"
#include "libc-nested.h"
#include "libc-wrap.h"
#include "state.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

enum kind {
	KIND_VALUE,
	KIND_MEM,    /* number = bytes */
	KIND_ARRAY,  /* arg = count, number = bytes of one */
	KIND_LENGTH, /* arg = pointer to the length */
	KIND_STRING,
	KIND_UNKNOWN,
	KIND_IOVEC, /* arg = count */
	KIND_STRINGS,
	KIND_MESSAGE,
	KIND_MESSAGES, /* arg = count */
	KIND_MASK,
	KIND_MASK6,
	KIND_FDS,
	KIND_IOCTL,
	KIND_FUTEX4,
	KIND_FUTEX5,
	KIND_FUTEXES,
	KIND_IOCBS,
	KIND_EVENTS, /* arg = count */
	KIND_PTRACE,
	KIND_PRCTL,
	KIND_PAGES,  /* arg = bytes: one byte for each page */
	KIND_BITS,   /* arg = number of bits, in words */
	KIND_MSGBUF, /* arg = bytes after the type */
};

struct argument {
	uint8_t kind;
	uint8_t arg;
	uint16_t number;
};

struct call {
	struct argument arg[6];
	bool known;
	bool offered;
};

#define V \
	{ \
		KIND_VALUE, 0, 0 \
	}
#define MEM(size) \
	{ \
		KIND_MEM, 0, size \
	}
#define KEEP(size) \
	{ \
		KIND_MEM, 0, size \
	}
#define BUF(n) \
	{ \
		KIND_ARRAY, n, 1 \
	}
#define ARR(n, size) \
	{ \
		KIND_ARRAY, n, size \
	}
#define LEN(n) \
	{ \
		KIND_LENGTH, n, 0 \
	}
#define STR \
	{ \
		KIND_STRING, 0, 0 \
	}
#define PTR \
	{ \
		KIND_UNKNOWN, 0, 0 \
	}
#define IOV(n) \
	{ \
		KIND_IOVEC, n, 0 \
	}
#define ARGV \
	{ \
		KIND_STRINGS, 0, 0 \
	}
#define MSG \
	{ \
		KIND_MESSAGE, 0, 0 \
	}
#define MMSG(n) \
	{ \
		KIND_MESSAGES, n, 0 \
	}
#define MASK \
	{ \
		KIND_MASK, 0, 0 \
	}
#define MASK6 \
	{ \
		KIND_MASK6, 0, 0 \
	}
#define FDS \
	{ \
		KIND_FDS, 0, 0 \
	}
#define IOCTL \
	{ \
		KIND_IOCTL, 1, 0 \
	}
#define FUTEX4 \
	{ \
		KIND_FUTEX4, 1, 0 \
	}
#define FUTEX5 \
	{ \
		KIND_FUTEX5, 1, 0 \
	}
#define FUTEXV(n) \
	{ \
		KIND_FUTEXES, n, 0 \
	}
#define FUTEX2 \
	{ \
		KIND_FUTEXES, 0, 2 \
	}
#define IOCBS \
	{ \
		KIND_IOCBS, 1, 0 \
	}
#define EVENTS(n) \
	{ \
		KIND_EVENTS, n, sizeof(struct io_event) \
	}
#define DATA \
	{ \
		KIND_PTRACE, 0, 0 \
	}
#define PRCTL \
	{ \
		KIND_PRCTL, 0, 0 \
	}
#define PAGES(n) \
	{ \
		KIND_PAGES, n, 0 \
	}
#define BITS(n) \
	{ \
		KIND_BITS, n, 0 \
	}
#define MSGBUF(n) \
	{ \
		KIND_MSGBUF, n, 0 \
	}

enum { NCALLS = 512 };
static const struct call calls[NCALLS] = {
#define SYS(number, name, ...) [number] = { .arg = { __VA_ARGS__ }, .known = true },
#define OFFERED(number, name, ...) [number] = { .arg = { __VA_ARGS__ }, .known = true, .offered = true },
#define NONE(number, name) [number] = { .known = true },
#include "syscalls.def"
#undef SYS
#undef OFFERED
#undef NONE
};

/* A number that is newer than the table: whatever points into the window moves. */
static const struct call unknown = { .arg = { PTR, PTR, PTR, PTR, PTR, PTR } };

_Static_assert(SYS_read == 63 && SYS_futex == 98 && SYS_clone == 220, "the table has the numbers of arm64");
_Static_assert(sizeof(struct stat) == 128 && sizeof(struct statfs) == 120 && sizeof(struct epoll_event) == 16,
               "sizes in the table");
_Static_assert(sizeof(struct rusage) == 144 && sizeof(struct sysinfo) == 112 && sizeof(struct timex) == 208,
               "sizes in the table");
_Static_assert(sizeof(struct sigevent) == 64 && sizeof(struct iocb) == 64 && sizeof(siginfo_t) == 128,
               "sizes in the table");
_Static_assert(sizeof(struct mq_attr) == 64 && sizeof(struct sembuf) == 6 && sizeof(struct pollfd) == 8,
               "sizes in the table");

typedef long syscall_function(long, long, long, long, long, long, long);

static long move(long value, size_t size)
{
	return (long)tagtso_native((void *)value, size);
}

/* Nothing is accessed where there is nothing: a size of 0 would mean "unknown". */
static long move_some(long value, size_t size)
{
	return size ? move(value, size) : value;
}

static bool futex_has_timeout(int op)
{
	switch (op & FUTEX_CMD_MASK) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
	case FUTEX_LOCK_PI:
	case FUTEX_LOCK_PI2:
	case FUTEX_WAIT_REQUEUE_PI:
		return true;
	default: /* a second count stands there, or nothing */
		return false;
	}
}

static bool futex_has_second(int op)
{
	switch (op & FUTEX_CMD_MASK) {
	case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE:
	case FUTEX_WAKE_OP:
	case FUTEX_WAIT_REQUEUE_PI:
	case FUTEX_CMP_REQUEUE_PI:
		return true;
	default:
		return false;
	}
}

/* struct futex_waitv of <linux/futex.h>, which older headers lack */
struct futex_wait {
	uint64_t value;
	uint64_t address;
	uint32_t flags, reserved;
};

static long move_futexes(struct tagtso_bounce *bounce, long value, unsigned long n)
{
	struct futex_wait *v = (struct futex_wait *)value, *copy;

	if (!v || !n || n > 128) /* FUTEX_WAITV_MAX */
		return value;
	v = tagtso_native(v, n * sizeof(*v));
	copy = tagtso_bounce_get(bounce, n * sizeof(*v));
	if (!copy)
		return (long)v;
	for (unsigned long i = 0; i < n; i++) {
		copy[i] = v[i];
		copy[i].address = (uint64_t)tagtso_native((void *)v[i].address, 4);
	}
	return (long)copy;
}

/* pselect6: a pointer to { mask, size }. */
static long move_mask6(struct tagtso_bounce *bounce, long value)
{
	struct mask_and_size {
		const sigset_t *mask;
		size_t size;
	} * copy;
	uint64_t *mask;

	if (!value)
		return 0;
	copy = tagtso_bounce_get(bounce, sizeof(*copy));
	mask = tagtso_bounce_get(bounce, sizeof(*mask));
	if (!copy || !mask)
		return move(value, sizeof(*copy));
	*copy = *(struct mask_and_size *)move(value, sizeof(*copy));
	if (copy->mask && copy->size == sizeof(*mask)) {
		*mask = *(uint64_t *)tagtso_native(copy->mask, sizeof(*mask)) & TAGTSO_NEVER_MASKED;
		copy->mask = (const sigset_t *)mask;
	}
	return (long)copy;
}

/* The kernel's mask is one word. */
static long move_mask(struct tagtso_bounce *bounce, long value)
{
	uint64_t *copy;

	if (!value)
		return 0;
	copy = tagtso_bounce_get(bounce, sizeof(*copy));
	if (!copy)
		return move(value, sizeof(*copy));
	*copy = *(uint64_t *)move(value, sizeof(*copy)) & TAGTSO_NEVER_MASKED;
	return (long)copy;
}

/* Requests are known to the kernel by their address, so they cannot be copied: the address of the buffer is exchanged in place for the time of
 * the call, which reads the request. */
struct request_list {
	struct iocb **moved;
	uint64_t *buffers; /* what was there */
	long n;
};

static uint64_t request_buffer(struct tagtso_bounce *bounce, const struct iocb *cb)
{
	switch (cb->aio_lio_opcode) {
	case IOCB_CMD_PREAD:
	case IOCB_CMD_PWRITE:
		return cb->aio_nbytes ? (uint64_t)tagtso_native((void *)cb->aio_buf, cb->aio_nbytes) : cb->aio_buf;
	case IOCB_CMD_PREADV:
	case IOCB_CMD_PWRITEV:
		return (uint64_t)tagtso_nested_iovec(bounce, (const struct iovec *)cb->aio_buf, cb->aio_nbytes);
	default:
		return cb->aio_buf;
	}
}

static long move_requests(struct tagtso_bounce *bounce, struct request_list *list, long value, long n)
{
	struct iocb *const *v = (struct iocb *const *)value;

	if (!v || n <= 0 || n > 65536)
		return value;
	v = tagtso_native(v, (size_t)n * sizeof(*v));
	list->moved = tagtso_bounce_get(bounce, (size_t)n * sizeof(*list->moved));
	list->buffers = tagtso_bounce_get(bounce, (size_t)n * sizeof(*list->buffers));
	if (!list->moved || !list->buffers)
		return (long)v;
	for (; list->n < n; list->n++) {
		struct iocb *cb = tagtso_native(v[list->n], sizeof(*cb));

		list->moved[list->n] = cb;
		if (!cb)
			break;
		list->buffers[list->n] = cb->aio_buf;
		cb->aio_buf = request_buffer(bounce, cb);
	}
	return (long)list->moved;
}

static void requests_back(const struct request_list *list)
{
	for (long i = 0; i < list->n; i++)
		list->moved[i]->aio_buf = list->buffers[i];
}

static void events_back(struct io_event *events, long n)
{
	for (long i = 0; i < n; i++)
		events[i].obj = (uint64_t)tagtso_native_back((void *)events[i].obj);
}

static long move_ptrace(struct tagtso_bounce *bounce, long request, long value)
{
	switch (request) {
	case PTRACE_PEEKTEXT:
	case PTRACE_PEEKDATA:
	case PTRACE_PEEKUSER:
	case PTRACE_GETSIGINFO:
	case PTRACE_SETSIGINFO:
	case PTRACE_GETSIGMASK:
	case PTRACE_SETSIGMASK:
	case PTRACE_GETEVENTMSG:
	case PTRACE_PEEKSIGINFO:
	case PTRACE_GET_SYSCALL_INFO:
		return move(value, 0);
	case PTRACE_GETREGSET:
	case PTRACE_SETREGSET:
		return (long)tagtso_nested_iovec(bounce, (const struct iovec *)value, 1);
	default: /* a value */
		return value;
	}
}

/* The options of prctl whose second (index 1) or third argument points to memory. */
static long move_prctl(long option, int index, long value)
{
	switch (option) {
	case PR_SET_NAME:
	case PR_GET_NAME:
		return index == 1 ? move(value, 16) : value;
	case PR_GET_PDEATHSIG:
	case PR_GET_UNALIGN:
	case PR_GET_FPEMU:
	case PR_GET_FPEXC:
	case PR_GET_TSC:
	case PR_GET_ENDIAN:
	case PR_GET_CHILD_SUBREAPER:
		return index == 1 ? move(value, 4) : value;
	case PR_GET_TID_ADDRESS:
		return index == 1 ? move(value, 8) : value;
	case PR_SET_SECCOMP:
		return index == 2 ? move(value, 0) : value;
	default:
		return value;
	}
}

static size_t to_words(long bits)
{
	return bits > 0 ? ((size_t)bits + 63) / 64 * 8 : 0;
}

static size_t array_size(long count, size_t size)
{
	size_t bytes;

	return __builtin_mul_overflow((size_t)count, size, &bytes) ? SIZE_MAX / 2 : bytes;
}

/* Everything that one call needs besides its arguments. */
struct moved {
	struct tagtso_bounce bounce;
	struct request_list requests;
	struct tagtso_ioctl ioctl;
};

static long move_simple(const struct argument *arg, int index, const long given[6])
{
	long value = given[index], other = given[arg->arg];

	switch (arg->kind) {
	case KIND_MEM:
		return move(value, arg->number);
	case KIND_ARRAY:
	case KIND_EVENTS:
		return other > 0 || arg->number == 1 ? move_some(value, array_size(other, arg->number)) : value;
	case KIND_LENGTH:
		return value && other ? move_some(value, *(const uint32_t *)move(other, 4)) : value;
	case KIND_STRING:
	case KIND_UNKNOWN:
		return move(value, 0);
	case KIND_FDS:
		return move_some(value, to_words((int)given[0]));
	case KIND_FUTEX4:
		return futex_has_timeout((int)other) ? move(value, sizeof(struct timespec)) : value;
	case KIND_FUTEX5:
		return futex_has_second((int)other) ? move(value, 4) : value;
	case KIND_PRCTL:
		return move_prctl(given[0], index, value);
	case KIND_PAGES:
		return move_some(value, ((size_t)other + 4095) / 4096);
	case KIND_BITS:
		return move_some(value, to_words(other));
	case KIND_MSGBUF:
		return move(value, (size_t)other + sizeof(long));
	default:
		return value;
	}
}

static long move_argument(struct moved *m, const struct argument *arg, int index, const long given[6])
{
	long value = given[index], other = given[arg->arg];

	switch (arg->kind) {
	case KIND_IOVEC:
		return (long)tagtso_nested_iovec(&m->bounce, (const struct iovec *)value, (size_t)other);
	case KIND_STRINGS:
		return (long)tagtso_nested_strings(&m->bounce, (char *const *)value);
	case KIND_MESSAGE:
		return (long)tagtso_nested_message(&m->bounce, (const struct msghdr *)value);
	case KIND_MESSAGES:
		return (long)tagtso_nested_messages(&m->bounce, (const struct mmsghdr *)value, (unsigned)other);
	case KIND_MASK:
		return move_mask(&m->bounce, value);
	case KIND_MASK6:
		return move_mask6(&m->bounce, value);
	case KIND_FUTEXES:
		return move_futexes(&m->bounce, value, arg->number ? arg->number : (unsigned)other);
	case KIND_IOCBS:
		return move_requests(&m->bounce, &m->requests, value, other);
	case KIND_IOCTL:
		return (long)tagtso_nested_ioctl(&m->ioctl, (unsigned long)other, (void *)value);
	case KIND_PTRACE:
		return move_ptrace(&m->bounce, given[0], value);
	default:
		return move_simple(arg, index, given);
	}
}

/* After the call: what the kernel wrote into copies goes to the originals. */
static void move_back(const struct call *call, const struct moved *m, const long given[6], const long passed[6],
                      long result)
{
	for (int i = 0; i < 6; i++) {
		switch (call->arg[i].kind) {
		case KIND_MESSAGE:
			if (result >= 0)
				tagtso_nested_message_back((struct msghdr *)given[i], (struct msghdr *)passed[i]);
			break;
		case KIND_MESSAGES:
			if (result > 0)
				tagtso_nested_messages_back((struct mmsghdr *)given[i], (struct mmsghdr *)passed[i],
				                            (size_t)result);
			break;
		case KIND_IOCBS:
			requests_back(&m->requests);
			break;
		case KIND_IOCTL:
			tagtso_nested_ioctl_back(&m->ioctl);
			break;
		case KIND_EVENTS:
			events_back((struct io_event *)passed[i], result);
			break;
		case KIND_PTRACE:
			if ((given[0] == PTRACE_GETREGSET || given[0] == PTRACE_SETREGSET) && given[i])
				((struct iovec *)move(given[i], sizeof(struct iovec)))->iov_len =
					((struct iovec *)passed[i])->iov_len;
			break;
		default:
			break;
		}
	}
}

static void begin(struct moved *m, const struct call *call, const long given[6], long passed[6])
{
	tagtso_bounce_begin(&m->bounce);
	m->requests.n = 0;
	for (int i = 0; i < 6; i++)
		passed[i] = move_argument(m, &call->arg[i], i, given);
}

static void end(struct moved *m, const struct call *call, const long given[6], const long passed[6], long result)
{
	int keep = errno;

	move_back(call, m, given, passed, result);
	tagtso_bounce_end(&m->bounce);
	errno = keep;
}

static long __attribute__((noinline))
call_moved(syscall_function *real, const struct call *call, long nr, const long given[6])
{
	long passed[6], result;
	struct moved m;

	begin(&m, call, given, passed);
	result = real(nr, passed[0], passed[1], passed[2], passed[3], passed[4], passed[5]);
	end(&m, call, given, passed, result);
	return result;
}

static const struct call *find_call(long nr)
{
	return (unsigned long)nr < NCALLS && calls[nr].known ? &calls[nr] : &unknown;
}

long tagtso_syscall_by(tagtso_syscall_way *real, void *context, long nr, const long given[6])
{
	const struct call *call = find_call(nr);
	long passed[6], result;
	struct moved m;

	begin(&m, call, given, passed);
	result = real(context, nr, passed[0], passed[1], passed[2], passed[3], passed[4], passed[5]);
	end(&m, call, given, passed, result);
	return result;
}

struct answer {
	long result;
	bool done;
};

/* By value, and never inline: the address of an argument list in the frame of syscall() would rule out its tail calls. */
static struct answer __attribute__((noinline))
offer(long nr, long a, long b, long c, long d, long e, long f, uintptr_t ra)
{
	struct answer answer = { 0, false };
	const long args[6] = { a, b, c, d, e, f };

	answer.done = tagtso_syscall_hook(nr, args, ra, &answer.result);
	if (answer.done && answer.result < 0 && answer.result > -4096) {
		errno = (int)-answer.result;
		answer.result = -1;
	}
	return answer;
}

static long __attribute__((noinline))
call_listed(syscall_function *real, const struct call *call, long nr, long a, long b, long c, long d, long e, long f)
{
	return call_moved(real, call, nr, (const long[6]){ a, b, c, d, e, f });
}

static bool keeps_pointer(long nr)
{
	return nr == SYS_set_tid_address || nr == SYS_set_robust_list || nr == SYS_rseq;
}

/* A call that starts a process or thread may come back on another stack, or twice on this one: it must be a tail call of libc's. */
long tagtso_w_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	syscall_function *real = tagtso_real(TAGTSO_FN_syscall);
	const struct call *call = find_call(nr);

	if (call->offered) {
		struct answer answer =
			offer(nr, a, b, c, d, e, f, tagtso_plain_address((uint64_t)__builtin_return_address(0)));

		if (answer.done)
			return answer.result;
		if (nr == SYS_clone) {
			if (tagtso_is_active()) {
				c = move(c, 4);
				e = move(e, 4);
			}
			return real(nr, a, b, c, d, e, f);
		}
		if (nr == SYS_clone3)
			return real(nr, tagtso_is_active() ? move(a, (size_t)b) : a, b, c, d, e, f);
		/* Its requests and buffers lie in memory that the kernel reads later, past us. Programs go without it. */
		if (nr == SYS_io_uring_setup && !tagtso_is_inert()) {
			errno = ENOSYS;
			return -1;
		}
	}
	if (TAGTSO_LIKELY(!tagtso_is_active() && !keeps_pointer(nr)))
		return real(nr, a, b, c, d, e, f);
	return call_listed(real, call, nr, a, b, c, d, e, f);
}
