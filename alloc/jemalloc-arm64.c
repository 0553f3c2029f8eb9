/* SPDX-License-Identifier: MIT */
/* What the private copy of jemalloc gets in place of libc's functions that are ours, the emulator's, or the user's settings (alloc/jemalloc.am). */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/types.h>

#include "sys.h"

char *tagtso_sys_secure_getenv(const char *name);
ssize_t tagtso_sys_readlink(const char *path, char *buffer, size_t size);
int tagtso_sys_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg);
long tagtso_sys_syscall(long number, ...);

/* MALLOC_CONF and /etc/malloc.conf are for the program's own jemalloc, if it has one. */
char *tagtso_sys_secure_getenv(const char *name)
{
	(void)name;
	return NULL;
}

ssize_t tagtso_sys_readlink(const char *path, char *buffer, size_t size)
{
	(void)path;
	(void)buffer;
	(void)size;
	errno = ENOENT;
	return -1;
}

/* Background threads are off: the guest's process has the threads that the guest started. */
int tagtso_sys_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg)
{
	(void)thread;
	(void)attributes;
	(void)start;
	(void)arg;
	return EAGAIN;
}

/* Opens and reads /proc/sys/vm/overcommit_memory, and writes messages. */
long tagtso_sys_syscall(long number, ...)
{
	long a[6], result;
	va_list arguments;

	va_start(arguments, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(arguments, long);
	va_end(arguments);
	result = tagtso_sys6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (result >= 0 || result < -4095)
		return result;
	errno = (int)-result;
	return -1;
}
