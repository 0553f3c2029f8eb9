/* SPDX-License-Identifier: MIT */
/* Starting programs: argument lists and environments are copied with every string moved to the alias. */
#include "libc-nested.h"
#include "libc-wrap.h"

#include <alloca.h>

/* Only libc's own functions of a list read `environ`: its strings may be guest memory too (putenv), so the list is always given. */
int tagtso_w_execve(const char *path, char *const *argv, char *const *envp)
{
	__typeof__(&tagtso_w_execve) real = tagtso_real(TAGTSO_FN_execve);
	struct tagtso_bounce bounce;
	int result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(path, argv, envp);
	tagtso_bounce_begin(&bounce);
	argv = tagtso_nested_strings(&bounce, argv);
	envp = tagtso_nested_strings(&bounce, envp);
	result = real(tagtso_native(path, 0), argv, envp);
	tagtso_bounce_end(&bounce);
	return result;
}

int tagtso_w_execv(const char *path, char *const *argv)
{
	return tagtso_w_execve(path, argv, environ);
}

int tagtso_w_execvpe(const char *path, char *const *argv, char *const *envp)
{
	__typeof__(&tagtso_w_execvpe) real = tagtso_real(TAGTSO_FN_execvpe);
	struct tagtso_bounce bounce;
	int result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(path, argv, envp);
	tagtso_bounce_begin(&bounce);
	argv = tagtso_nested_strings(&bounce, argv);
	envp = tagtso_nested_strings(&bounce, envp);
	result = real(tagtso_native(path, 0), argv, envp);
	tagtso_bounce_end(&bounce);
	return result;
}

int tagtso_w_execvp(const char *path, char *const *argv)
{
	return tagtso_w_execvpe(path, argv, environ);
}

int tagtso_w_fexecve(int fd, char *const *argv, char *const *envp)
{
	__typeof__(&tagtso_w_fexecve) real = tagtso_real(TAGTSO_FN_fexecve);
	struct tagtso_bounce bounce;
	int result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, argv, envp);
	tagtso_bounce_begin(&bounce);
	argv = tagtso_nested_strings(&bounce, argv);
	envp = tagtso_nested_strings(&bounce, envp);
	result = real(fd, argv, envp);
	tagtso_bounce_end(&bounce);
	return result;
}

int tagtso_w_execveat(int dir, const char *path, char *const *argv, char *const *envp, int flags)
{
	__typeof__(&tagtso_w_execveat) real = tagtso_real(TAGTSO_FN_execveat);
	struct tagtso_bounce bounce;
	int result;

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(dir, path, argv, envp, flags);
	tagtso_bounce_begin(&bounce);
	argv = tagtso_nested_strings(&bounce, argv);
	envp = tagtso_nested_strings(&bounce, envp);
	result = real(dir, tagtso_native(path, 0), argv, envp, flags);
	tagtso_bounce_end(&bounce);
	return result;
}

/* Arguments of an execl function, the NULL that ends them included. */
static size_t count_arguments(const char *arg, va_list ap)
{
	size_t n = 1;

	for (; arg; arg = va_arg(ap, const char *))
		n++;
	return n;
}

/* As libc does, the list is made on the stack: the functions are async-signal-safe. */
#define GATHER(argv, arg, ap) \
	do { \
		va_list count_; \
		size_t n_; \
\
		va_start(ap, arg); \
		va_copy(count_, ap); \
		n_ = count_arguments(arg, count_); \
		va_end(count_); \
		argv = alloca(n_ * sizeof(*argv)); \
		argv[0] = (char *)arg; \
		for (size_t i_ = 1; i_ < n_; i_++) \
			argv[i_] = va_arg(ap, char *); \
	} while (0)

int tagtso_w_execl(const char *path, const char *arg, ...)
{
	char **argv;
	va_list ap;

	GATHER(argv, arg, ap);
	va_end(ap);
	return tagtso_w_execve(path, argv, environ);
}

int tagtso_w_execlp(const char *path, const char *arg, ...)
{
	char **argv;
	va_list ap;

	GATHER(argv, arg, ap);
	va_end(ap);
	return tagtso_w_execvpe(path, argv, environ);
}

int tagtso_w_execle(const char *path, const char *arg, ...)
{
	char *const *envp;
	char **argv;
	va_list ap;

	GATHER(argv, arg, ap);
	if (!arg) /* then nothing was taken from the list, and the environment is its first */
		argv[0] = NULL;
	envp = va_arg(ap, char *const *);
	va_end(ap);
	return tagtso_w_execve(path, argv, envp);
}

/* The new process runs in our memory with all signals blocked until it calls exec, and so does the caller for a moment: an access that traps
 * would end it. Everything moves, the opaque objects too. */
#define SPAWN(name, id) \
	int tagtso_w_##name(id *pid, const char *path, const posix_spawn_file_actions_t *f, \
	                    const posix_spawnattr_t *a, char *const *argv, char *const *envp) \
	{ \
		__typeof__(&tagtso_w_##name) real = tagtso_real(TAGTSO_FN_##name); \
		struct tagtso_bounce bounce; \
		int result; \
\
		if (TAGTSO_LIKELY(!tagtso_is_active())) \
			return real(pid, path, f, a, argv, envp); \
		tagtso_bounce_begin(&bounce); \
		argv = tagtso_nested_strings(&bounce, argv); \
		envp = tagtso_nested_strings(&bounce, envp); \
		result = real(tagtso_native(pid, sizeof(*pid)), tagtso_native(path, 0), tagtso_native(f, sizeof(*f)), \
		              tagtso_native(a, sizeof(*a)), argv, envp); \
		tagtso_bounce_end(&bounce); \
		return result; \
	}
SPAWN(posix_spawn, pid_t)
SPAWN(posix_spawnp, pid_t)
SPAWN(pidfd_spawn, int)
SPAWN(pidfd_spawnp, int)
