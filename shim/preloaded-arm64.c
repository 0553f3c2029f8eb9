/* SPDX-License-Identifier: MIT */
/* Hides the library from the guest's loader and gives it back to the programs that the guest starts. */
#include "preloaded.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "libc-nested.h"
#include "native.h"

#define VARIABLE "LD_PRELOAD="
enum { VARIABLE_LENGTH = sizeof(VARIABLE) - 1, MOST = 131072 /* of one string of an environment (MAX_ARG_STRLEN) */ };

/* As it stood in LD_PRELOAD; "" = it did not. Written once at start-up. */
static char ours[4096];

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* By its file's name: ld.so looked for it in its directories if there is no directory in it. */
static bool is_ours(const char *item, size_t n)
{
	Dl_info info;
	char name[sizeof(ours)];

	if (!n || n >= sizeof(name) || !dladdr(ours, &info) || !info.dli_fname)
		return false;
	memcpy(name, item, n);
	name[n] = 0;
	return !strcmp(base_name(name), base_name(info.dli_fname));
}

/* The list without our item, in place; ours[] gets that. */
static void take_out(char *list)
{
	char *to = list;

	for (char *from = list; *from;) {
		size_t n = strcspn(from, ": ");

		if (!ours[0] && is_ours(from, n)) {
			memcpy(ours, from, n);
			ours[n] = 0;
		} else if (n) {
			if (to != list)
				*to++ = ':';
			memmove(to, from, n);
			to += n;
		}
		from += n;
		while (*from == ':' || *from == ' ')
			from++;
	}
	*to = 0;
}

void tagtso_preloaded_hide(void)
{
	const char *value = getenv("LD_PRELOAD");
	char *list = value ? strdup(value) : NULL;

	if (!list)
		return;
	take_out(list);
	if (!list[0])
		unsetenv("LD_PRELOAD");
	else if (ours[0])
		setenv("LD_PRELOAD", list, 1);
	free(list);
}

/* --- for programs that are started ------------------------------------------------------------------------------------- */

static size_t count(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static bool is_variable(const char *s)
{
	return !strncmp(s, VARIABLE, VARIABLE_LENGTH);
}

/* LD_PRELOAD=ours, and what the guest has there. */
static char *joined(struct tagtso_bounce *bounce, const char *theirs)
{
	size_t own = strlen(ours), n = theirs ? tagtso_text_size(theirs, MOST) : 0;
	char *s = tagtso_bounce_get(bounce, VARIABLE_LENGTH + own + n + 2);

	if (!s)
		return NULL;
	memcpy(s, VARIABLE, VARIABLE_LENGTH);
	memcpy(s + VARIABLE_LENGTH, ours, own + 1);
	if (n) {
		s[VARIABLE_LENGTH + own] = ':';
		memcpy(s + VARIABLE_LENGTH + own + 1, theirs, n);
		s[VARIABLE_LENGTH + own + n] = 0;
	}
	return s;
}

/* A copy of the environment with the variable in it; the environment itself if there is no memory. */
static char *const *with_ours(struct tagtso_bounce *bounce, char *const *environment)
{
	size_t n = count(environment), to = 0;
	char **copy = tagtso_bounce_get(bounce, (n + 2) * sizeof(*copy));
	const char *theirs = NULL;

	if (!copy)
		return environment;
	for (size_t i = 0; i < n; i++) {
		if (is_variable(environment[i]))
			theirs = environment[i] + VARIABLE_LENGTH;
		else
			copy[to++] = environment[i];
	}
	copy[to] = joined(bounce, theirs);
	copy[to + 1] = NULL;
	return copy[to] ? copy : environment;
}

long tagtso_preloaded_exec(tagtso_syscall_way *real, void *context, long nr, long args[6])
{
	long *environment = &args[nr == SYS_execve ? 2 : 3];
	struct tagtso_bounce bounce;
	long result;
	int keep;

	tagtso_bounce_begin(&bounce);
	if (ours[0]) {
		uint64_t tco = tagtso_unchecked_enter(); /* the strings are the guest's */

		*environment = (long)with_ours(&bounce, (char *const *)*environment);
		tagtso_unchecked_leave(tco);
	}
	if (tagtso_is_active())
		result = tagtso_syscall_by(real, context, nr, args);
	else
		result = real(context, nr, args[0], args[1], args[2], args[3], args[4], args[5]);
	keep = errno;
	tagtso_bounce_end(&bounce);
	errno = keep;
	return result;
}
