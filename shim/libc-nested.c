/* SPDX-License-Identifier: MIT */
/* Arguments with pointers inside, and the libc functions that take them as vectors and message headers. */
#include "libc-nested.h"
#include "libc-wrap.h"
#include "raw.h"

#include <limits.h>
#include <linux/elf.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

struct mapping {
	struct mapping *next;
	size_t size;
};

void tagtso_bounce_end(struct tagtso_bounce *bounce)
{
	for (struct mapping *m = bounce->mappings, *next; m; m = next) {
		next = m->next;
		tagtso_raw(SYS_munmap, (long)m, (long)m->size, 0, 0, 0, 0);
	}
}

void *tagtso_bounce_get(struct tagtso_bounce *bounce, size_t n)
{
	struct mapping *m;
	long at;

	n = (n + 15) & ~(size_t)15;
	if (n <= TAGTSO_BOUNCE_LOCAL - bounce->used) {
		bounce->used += n;
		return bounce->local + bounce->used - n;
	}
	n += sizeof(*m);
	at = tagtso_raw(SYS_mmap, 0, (long)n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at < 0 && at > -4096)
		return NULL;
	m = (struct mapping *)at;
	m->next = bounce->mappings;
	m->size = n;
	bounce->mappings = m;
	return m + 1;
}

const struct iovec *tagtso_nested_iovec(struct tagtso_bounce *bounce, const struct iovec *v, size_t n)
{
	struct iovec *copy;

	if (!v || !n)
		return v;
	v = tagtso_native(v, n <= IOV_MAX ? n * sizeof(*v) : 0);
	if (n > IOV_MAX)
		return v;
	copy = tagtso_bounce_get(bounce, n * sizeof(*v));
	if (!copy)
		return v;
	for (size_t i = 0; i < n; i++) {
		copy[i].iov_len = v[i].iov_len;
		copy[i].iov_base = v[i].iov_len ? tagtso_native(v[i].iov_base, v[i].iov_len) : v[i].iov_base;
	}
	return copy;
}

size_t tagtso_text_size(const char *s, size_t max)
{
	size_t (*length)(const char *, size_t) = tagtso_real(TAGTSO_FN_strnlen);
	uint64_t checks;
	size_t n;

	if (!s)
		return 0;
	checks = tagtso_unchecked_enter();
	n = length(s, max);
	tagtso_unchecked_leave(checks);
	return n < max ? n + 1 : max;
}

static size_t count_strings(char *const *v)
{
	uint64_t checks = tagtso_unchecked_enter();
	size_t n = 0;

	while (v[n])
		n++;
	tagtso_unchecked_leave(checks);
	return n;
}

char *const *tagtso_nested_strings(struct tagtso_bounce *bounce, char *const *v)
{
	char **copy;
	size_t n;

	if (!v)
		return NULL;
	n = count_strings(v);
	v = tagtso_native(v, (n + 1) * sizeof(*v));
	copy = tagtso_bounce_get(bounce, (n + 1) * sizeof(*v));
	if (!copy)
		return v;
	for (size_t i = 0; i < n; i++)
		copy[i] = tagtso_native(v[i], tagtso_text_size(v[i], SIZE_MAX));
	copy[n] = NULL;
	return copy;
}

static void move_message(struct tagtso_bounce *bounce, struct msghdr *copy, const struct msghdr *m)
{
	*copy = *m;
	if (m->msg_namelen)
		copy->msg_name = tagtso_native(m->msg_name, m->msg_namelen);
	if (m->msg_controllen)
		copy->msg_control = tagtso_native(m->msg_control, m->msg_controllen);
	copy->msg_iov = (struct iovec *)tagtso_nested_iovec(bounce, m->msg_iov, m->msg_iovlen);
}

struct msghdr *tagtso_nested_message(struct tagtso_bounce *bounce, const struct msghdr *m)
{
	struct msghdr *copy;

	if (!m)
		return NULL;
	m = tagtso_native(m, sizeof(*m));
	copy = tagtso_bounce_get(bounce, sizeof(*m));
	if (!copy)
		return (struct msghdr *)m;
	move_message(bounce, copy, m);
	return copy;
}

struct mmsghdr *tagtso_nested_messages(struct tagtso_bounce *bounce, const struct mmsghdr *m, size_t n)
{
	struct mmsghdr *copy;

	if (!m || !n)
		return (struct mmsghdr *)m;
	if (n > IOV_MAX) /* UIO_MAXIOV: the kernel looks at no more of them (net/socket.c) */
		n = IOV_MAX;
	m = tagtso_native(m, n * sizeof(*m));
	copy = tagtso_bounce_get(bounce, n * sizeof(*m));
	if (!copy)
		return (struct mmsghdr *)m;
	for (size_t i = 0; i < n; i++) {
		move_message(bounce, &copy[i].msg_hdr, &m[i].msg_hdr);
		copy[i].msg_len = m[i].msg_len;
	}
	return copy;
}

static void message_back(struct msghdr *m, const struct msghdr *copy)
{
	m->msg_namelen = copy->msg_namelen;
	m->msg_controllen = copy->msg_controllen;
	m->msg_flags = copy->msg_flags;
}

void tagtso_nested_message_back(struct msghdr *m, const struct msghdr *copy)
{
	if (m)
		message_back(tagtso_native(m, sizeof(*m)), copy);
}

void tagtso_nested_messages_back(struct mmsghdr *m, const struct mmsghdr *copy, size_t n)
{
	if (!m || !n)
		return;
	m = tagtso_native(m, n * sizeof(*m));
	for (size_t i = 0; i < n; i++) {
		message_back(&m[i].msg_hdr, &copy[i].msg_hdr);
		m[i].msg_len = copy[i].msg_len;
	}
}

const sigset_t *tagtso_nested_mask(const sigset_t *mask, sigset_t *copy)
{
	if (!mask)
		return NULL;
	*copy = *(const sigset_t *)tagtso_native(mask, sizeof(*mask));
	copy->__val[0] &= TAGTSO_NEVER_MASKED;
	return copy;
}

void *tagtso_nested_ioctl(struct tagtso_ioctl *state, unsigned long request, void *arg)
{
	size_t size = _IOC_DIR(request) != _IOC_NONE ? _IOC_SIZE(request) : 0;

	state->slot = NULL;
	arg = tagtso_native(arg, size);
	if (request == SIOCGIFCONF && arg) {
		struct ifconf *list = arg;

		state->slot = (void **)&list->ifc_buf;
		size = list->ifc_len > 0 ? (size_t)list->ifc_len : 0;
	} else if (request == SIOCETHTOOL && arg) {
		state->slot = (void **)&((struct ifreq *)arg)->ifr_data;
		size = 0;
	}
	if (state->slot) {
		state->pointer = *state->slot;
		*state->slot = tagtso_native(state->pointer, size);
	}
	return arg;
}

int tagtso_w_ioctl(int fd, unsigned long request, void *arg)
{
	__typeof__(&tagtso_w_ioctl) real = tagtso_real(TAGTSO_FN_ioctl);
	struct tagtso_ioctl state;
	int result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, request, arg);
	result = real(fd, request, tagtso_nested_ioctl(&state, request, arg));
	tagtso_nested_ioctl_back(&state);
	return result;
}

/* A function of a vector: fd, v, n and what follows. */
#define VECTOR(name, type, ntype, more, ...) \
	ssize_t tagtso_w_##name(type id, const struct iovec *v, ntype n more) \
	{ \
		__typeof__(&tagtso_w_##name) real = tagtso_real(TAGTSO_FN_##name); \
		struct tagtso_bounce bounce; \
		ssize_t result; \
\
		if (TAGTSO_LIKELY(!tagtso_is_active())) \
			return real(id, v, n __VA_ARGS__); \
		tagtso_bounce_begin(&bounce); \
		if (n > 0) \
			v = tagtso_nested_iovec(&bounce, v, (size_t)n); \
		result = real(id, v, n __VA_ARGS__); \
		tagtso_bounce_end(&bounce); \
		return result; \
	}
#define NOTHING
#define AT , off_t at
#define AT_FLAGS , off_t at, int flags
#define FLAGS , unsigned flags
VECTOR(readv, int, int, NOTHING)
VECTOR(writev, int, int, NOTHING)
VECTOR(preadv, int, int, AT, , at)
VECTOR(preadv64, int, int, AT, , at)
VECTOR(pwritev, int, int, AT, , at)
VECTOR(pwritev64, int, int, AT, , at)
VECTOR(preadv2, int, int, AT_FLAGS, , at, flags)
VECTOR(preadv64v2, int, int, AT_FLAGS, , at, flags)
VECTOR(pwritev2, int, int, AT_FLAGS, , at, flags)
VECTOR(pwritev64v2, int, int, AT_FLAGS, , at, flags)
VECTOR(vmsplice, int, size_t, FLAGS, , flags)

/* Ranges of addresses, of this process or another: only the vector itself moves. */
ssize_t tagtso_w_process_madvise(int fd, const struct iovec *v, size_t n, int advice, unsigned flags)
{
	__typeof__(&tagtso_w_process_madvise) real = tagtso_real(TAGTSO_FN_process_madvise);

	if (TAGTSO_UNLIKELY(tagtso_is_active()) && n && n <= IOV_MAX)
		v = tagtso_native(v, n * sizeof(*v));
	return real(fd, v, n, advice, flags);
}

/* The remote vector's addresses are another process's: only the vector itself moves. The kernel reaches remote memory by its own mapping. */
#define REMOTE , const struct iovec *remote, unsigned long m, unsigned long flags
VECTOR(process_vm_readv, pid_t, unsigned long, REMOTE, , m ? tagtso_native(remote, m * sizeof(*remote)) : remote, m,
       flags)
VECTOR(process_vm_writev, pid_t, unsigned long, REMOTE, , m ? tagtso_native(remote, m * sizeof(*remote)) : remote, m,
       flags)

ssize_t tagtso_w_recvmsg(int fd, struct msghdr *m, int flags)
{
	__typeof__(&tagtso_w_recvmsg) real = tagtso_real(TAGTSO_FN_recvmsg);
	struct tagtso_bounce bounce;
	struct msghdr *copy;
	ssize_t result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, m, flags);
	tagtso_bounce_begin(&bounce);
	copy = tagtso_nested_message(&bounce, m);
	result = real(fd, copy, flags);
	if (result >= 0)
		tagtso_nested_message_back(m, copy);
	tagtso_bounce_end(&bounce);
	return result;
}

ssize_t tagtso_w_sendmsg(int fd, const struct msghdr *m, int flags)
{
	__typeof__(&tagtso_w_sendmsg) real = tagtso_real(TAGTSO_FN_sendmsg);
	struct tagtso_bounce bounce;
	ssize_t result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, m, flags);
	tagtso_bounce_begin(&bounce);
	result = real(fd, tagtso_nested_message(&bounce, m), flags);
	tagtso_bounce_end(&bounce);
	return result;
}

int tagtso_w_recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *t)
{
	__typeof__(&tagtso_w_recvmmsg) real = tagtso_real(TAGTSO_FN_recvmmsg);
	struct tagtso_bounce bounce;
	struct mmsghdr *copy;
	int result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, m, n, flags, t);
	tagtso_bounce_begin(&bounce);
	copy = tagtso_nested_messages(&bounce, m, n);
	result = real(fd, copy, n, flags, tagtso_native(t, sizeof(*t)));
	if (result > 0)
		tagtso_nested_messages_back(m, copy, (size_t)result);
	tagtso_bounce_end(&bounce);
	return result;
}

int tagtso_w_sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags)
{
	__typeof__(&tagtso_w_sendmmsg) real = tagtso_real(TAGTSO_FN_sendmmsg);
	struct tagtso_bounce bounce;
	struct mmsghdr *copy;
	int result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, m, n, flags);
	tagtso_bounce_begin(&bounce);
	copy = tagtso_nested_messages(&bounce, m, n);
	result = real(fd, copy, n, flags);
	if (result > 0)
		tagtso_nested_messages_back(m, copy, (size_t)result);
	tagtso_bounce_end(&bounce);
	return result;
}

/* *result is the caller's entry, not the alias of it. */
static int read_entry(int (*real)(DIR *, struct dirent *, struct dirent **), DIR *dir, struct dirent *entry,
                      struct dirent **result)
{
	struct dirent *found = NULL;
	int error = real(dir, tagtso_native(entry, sizeof(*entry)), &found);

	*(struct dirent **)tagtso_native(result, sizeof(*result)) = found ? entry : NULL;
	return error;
}

int tagtso_w_readdir_r(DIR *dir, struct dirent *entry, struct dirent **result)
{
	__typeof__(&tagtso_w_readdir_r) real = tagtso_real(TAGTSO_FN_readdir_r);

	return TAGTSO_LIKELY(!tagtso_is_active()) ? real(dir, entry, result) : read_entry(real, dir, entry, result);
}

int tagtso_w_readdir64_r(DIR *dir, struct dirent *entry, struct dirent **result)
{
	__typeof__(&tagtso_w_readdir64_r) real = tagtso_real(TAGTSO_FN_readdir64_r);

	return TAGTSO_LIKELY(!tagtso_is_active()) ? real(dir, entry, result) : read_entry(real, dir, entry, result);
}

/* Requests whose data is our memory; in all others it is a value. The address is the other process's. */
static bool ptrace_data_is_pointer(int request)
{
	switch (request) {
	case PTRACE_GETSIGINFO:
	case PTRACE_SETSIGINFO:
	case PTRACE_GETSIGMASK:
	case PTRACE_SETSIGMASK:
	case PTRACE_GETEVENTMSG:
	case PTRACE_PEEKSIGINFO:
	case PTRACE_GET_SYSCALL_INFO:
		return true;
	default:
		return false;
	}
}

long tagtso_w_ptrace(int request, pid_t pid, void *address, void *data)
{
	__typeof__(&tagtso_w_ptrace) real = tagtso_real(TAGTSO_FN_ptrace);
	struct tagtso_bounce bounce;
	struct iovec *copy, *v;
	long result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(request, pid, address, data);
	if (request == PTRACE_PEEKSIGINFO)
		address = tagtso_native(address, sizeof(struct __ptrace_peeksiginfo_args));
	if (ptrace_data_is_pointer(request))
		return real(request, pid, address, tagtso_native(data, 0));
	if ((request != PTRACE_GETREGSET && request != PTRACE_SETREGSET) || !data)
		return real(request, pid, address, data);
	tagtso_bounce_begin(&bounce);
	v = tagtso_native(data, sizeof(*v));
	copy = (struct iovec *)tagtso_nested_iovec(&bounce, v, 1);
	result = real(request, pid, address, copy);
	v->iov_len = copy->iov_len;
	tagtso_bounce_end(&bounce);
	return result;
}
