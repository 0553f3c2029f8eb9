/* SPDX-License-Identifier: MIT */
/* Functions that libc carries out in threads of its own: asynchronous I/O, and notifications by a thread (SIGEV_THREAD). */
#include "../alloc/owner.h"
#include "libc-nested.h"
#include "libc-wrap.h"
#include "raw.h"
#include "state.h"

#include <sys/syscall.h>

/* What a guest asked to be called with. As long-lived as the notification, of which nobody says when it is the last: never freed. */
struct notification {
	void (*fn)(union sigval);
	union sigval value;
};

/* The thread is libc's, made by one that was made by a guest thread, whose IRG mask it has: two threads would be one owner. It runs without an
 * owner: all that it does is ordered. */
static void notify(union sigval value)
{
	const struct notification *n = value.sival_ptr;
	uint64_t set = ~TAGTSO_NEVER_MASKED;

	tagtso_raw(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&set, 0, sizeof(set), 0, 0);
	if (!tagtso_is_inert())
		tagtso_owner_none();
	n->fn(n->value);
}

/* The event to pass on: the caller's own, or a copy that calls the guest by way of notify(). A second thread will run guest code: the shim wakes. */
static struct sigevent *move_event(struct sigevent *e, struct sigevent *copy)
{
	struct notification *n;

	if (!e)
		return NULL;
	e = tagtso_native(e, sizeof(*e));
	if (e->sigev_notify != SIGEV_THREAD || tagtso_is_inert())
		return e;
	n = malloc(sizeof(*n));
	if (!n)
		return e;
	tagtso_wake();
	*n = (struct notification){ e->sigev_notify_function, e->sigev_value };
	*copy = *e;
	copy->sigev_notify_function = notify;
	copy->sigev_value.sival_ptr = n;
	copy->sigev_notify_attributes = tagtso_native(e->sigev_notify_attributes, sizeof(pthread_attr_t));
	return copy;
}

int tagtso_w_timer_create(clockid_t clock, struct sigevent *e, timer_t *timer)
{
	__typeof__(&tagtso_w_timer_create) real = tagtso_real(TAGTSO_FN_timer_create);
	struct sigevent copy;

	e = move_event(e, &copy);
	return real(clock, e, tagtso_native(timer, sizeof(*timer)));
}

int tagtso_w_mq_notify(mqd_t q, const struct sigevent *e)
{
	__typeof__(&tagtso_w_mq_notify) real = tagtso_real(TAGTSO_FN_mq_notify);
	struct sigevent copy;

	return real(q, move_event((struct sigevent *)e, &copy));
}

/* ---- asynchronous I/O ----
 * A helper thread of libc, with all signals blocked, reads and writes the request and has the kernel read and write the buffer, at any later time:
 * both must be reached by the alias, also if no memory has tags yet. The request's buffer address is exchanged in place until aio_return(). */

static struct aiocb *move_request(struct aiocb *cb)
{
	struct sigevent copy, *e;

	if (!cb)
		return NULL;
	cb = tagtso_native(cb, sizeof(*cb));
	if (cb->aio_nbytes)
		cb->aio_buf = tagtso_native(cb->aio_buf, cb->aio_nbytes);
	e = move_event(&cb->aio_sigevent, &copy);
	if (e == &copy)
		cb->aio_sigevent = copy;
	return cb;
}

static int submit(unsigned index, struct aiocb *cb)
{
	int (*real)(struct aiocb *) = tagtso_real(index);

	return real(move_request(cb));
}

int tagtso_w_aio_read(struct aiocb *cb)
{
	return submit(TAGTSO_FN_aio_read, cb);
}

int tagtso_w_aio_read64(struct aiocb *cb)
{
	return submit(TAGTSO_FN_aio_read64, cb);
}

int tagtso_w_aio_write(struct aiocb *cb)
{
	return submit(TAGTSO_FN_aio_write, cb);
}

int tagtso_w_aio_write64(struct aiocb *cb)
{
	return submit(TAGTSO_FN_aio_write64, cb);
}

static ssize_t finish(unsigned index, struct aiocb *cb)
{
	ssize_t (*real)(struct aiocb *) = tagtso_real(index);
	ssize_t result;

	cb = tagtso_native(cb, sizeof(*cb));
	result = real(cb);
	if (cb->aio_buf)
		cb->aio_buf = tagtso_native_back((const void *)cb->aio_buf);
	return result;
}

ssize_t tagtso_w_aio_return(struct aiocb *cb)
{
	return finish(TAGTSO_FN_aio_return, cb);
}

ssize_t tagtso_w_aio_return64(struct aiocb *cb)
{
	return finish(TAGTSO_FN_aio_return64, cb);
}

/* A list of requests, of which some may be NULL, to wait for (submitted already) or to submit. */
static struct aiocb **move_list(struct tagtso_bounce *bounce, struct aiocb *const *v, int n,
                                struct aiocb *(*move)(struct aiocb *))
{
	struct aiocb **copy;

	if (!v || n <= 0)
		return (struct aiocb **)v;
	v = tagtso_native(v, (size_t)n * sizeof(*v));
	copy = tagtso_bounce_get(bounce, (size_t)n * sizeof(*v));
	if (!copy)
		return (struct aiocb **)v;
	for (int i = 0; i < n; i++)
		copy[i] = move(v[i]);
	return copy;
}

static struct aiocb *move_submitted(struct aiocb *cb)
{
	return tagtso_native(cb, sizeof(*cb));
}

static struct aiocb *move_listed(struct aiocb *cb)
{
	return cb && ((struct aiocb *)tagtso_native(cb, sizeof(*cb)))->aio_lio_opcode != LIO_NOP ? move_request(cb)
	                                                                                         : move_submitted(cb);
}

static int suspend(unsigned index, const struct aiocb *const *v, int n, const struct timespec *t)
{
	int (*real)(struct aiocb **, int, const struct timespec *) = tagtso_real(index);
	struct tagtso_bounce bounce;
	int result;

	tagtso_bounce_begin(&bounce);
	result = real(move_list(&bounce, (struct aiocb *const *)v, n, move_submitted), n, tagtso_native(t, sizeof(*t)));
	tagtso_bounce_end(&bounce);
	return result;
}

int tagtso_w_aio_suspend(const struct aiocb *const *v, int n, const struct timespec *t)
{
	return suspend(TAGTSO_FN_aio_suspend, v, n, t);
}

int tagtso_w_aio_suspend64(const struct aiocb *const *v, int n, const struct timespec *t)
{
	return suspend(TAGTSO_FN_aio_suspend64, v, n, t);
}

static int submit_list(unsigned index, int mode, struct aiocb *const *v, int n, struct sigevent *e)
{
	int (*real)(int, struct aiocb **, int, struct sigevent *) = tagtso_real(index);
	struct tagtso_bounce bounce;
	struct sigevent copy;
	int result;

	tagtso_bounce_begin(&bounce);
	result = real(mode, move_list(&bounce, v, n, move_listed), n, move_event(e, &copy));
	tagtso_bounce_end(&bounce);
	return result;
}

int tagtso_w_lio_listio(int mode, struct aiocb *const *v, int n, struct sigevent *e)
{
	return submit_list(TAGTSO_FN_lio_listio, mode, v, n, e);
}

int tagtso_w_lio_listio64(int mode, struct aiocb *const *v, int n, struct sigevent *e)
{
	return submit_list(TAGTSO_FN_lio_listio64, mode, v, n, e);
}
