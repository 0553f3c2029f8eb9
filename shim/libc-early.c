/* SPDX-License-Identifier: MIT */
/* Plain loops that stand for memory and string functions until the real ones are looked up: ld.so may call them while it works. */
#include "libc-wrap.h"

/* Keeps the compiler from turning a loop into a call of the function that it stands for. */
#define OPAQUE() __asm__ volatile("" ::: "memory")

size_t tagtso_early_strlen(const char *s)
{
	size_t n = 0;

	for (; s[n]; n++)
		OPAQUE();
	return n;
}

size_t tagtso_early_wcslen(const wchar_t *s)
{
	size_t n = 0;

	for (; s[n]; n++)
		OPAQUE();
	return n;
}

static void *early_memmove(void *d, const void *s, size_t n)
{
	unsigned char *to = d;
	const unsigned char *from = s;

	if ((uintptr_t)to - (uintptr_t)from >= n) {
		for (size_t i = 0; i < n; i++) {
			to[i] = from[i];
			OPAQUE();
		}
	} else {
		while (n--) {
			to[n] = from[n];
			OPAQUE();
		}
	}
	return d;
}

static void *early_memset(void *d, int c, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		((unsigned char *)d)[i] = (unsigned char)c;
		OPAQUE();
	}
	return d;
}

static int early_memcmp(const void *a, const void *b, size_t n)
{
	const unsigned char *p = a, *q = b;

	for (; n; n--, p++, q++) {
		if (*p != *q)
			return *p - *q;
		OPAQUE();
	}
	return 0;
}

static void *early_memchr(const void *s, int c, size_t n)
{
	const unsigned char *p = s;

	for (; n; n--, p++) {
		if (*p == (unsigned char)c)
			return (void *)p;
		OPAQUE();
	}
	return NULL;
}

static int early_strncmp(const char *a, const char *b, size_t n)
{
	for (; n && *a && *a == *b; n--, a++, b++)
		OPAQUE();
	return n ? (unsigned char)*a - (unsigned char)*b : 0;
}

static int early_strcmp(const char *a, const char *b)
{
	return early_strncmp(a, b, SIZE_MAX);
}

static size_t early_strnlen(const char *s, size_t n)
{
	const char *end = early_memchr(s, 0, n);

	return end ? (size_t)(end - s) : n;
}

static char *early_strchr(const char *s, int c)
{
	return early_memchr(s, c, tagtso_early_strlen(s) + 1);
}

static char *early_strrchr(const char *s, int c)
{
	for (size_t n = tagtso_early_strlen(s) + 1; n--;) {
		if (s[n] == (char)c)
			return (char *)s + n;
		OPAQUE();
	}
	return NULL;
}

static char *early_strcpy(char *d, const char *s)
{
	return early_memmove(d, s, tagtso_early_strlen(s) + 1);
}

static char *early_stpcpy(char *d, const char *s)
{
	size_t n = tagtso_early_strlen(s);

	early_memmove(d, s, n + 1);
	return d + n;
}

static char *early_strcat(char *d, const char *s)
{
	early_strcpy(d + tagtso_early_strlen(d), s);
	return d;
}

static char *early_getenv(const char *name)
{
	size_t n = tagtso_early_strlen(name);

	for (char **e = environ; e && *e; e++)
		if (!early_strncmp(*e, name, n) && (*e)[n] == '=')
			return *e + n + 1;
	return NULL;
}

/* A chain of comparisons, not a table: a table of addresses would itself wait for relocation. */
void *tagtso_libc_early(unsigned index)
{
#define EARLY(name, fn) \
	if (index == TAGTSO_FN_##name) \
	return (void *)early_##fn
	EARLY(memcpy, memmove);
	EARLY(memmove, memmove);
	EARLY(memset, memset);
	EARLY(memcmp, memcmp);
	EARLY(bcmp, memcmp);
	EARLY(memchr, memchr);
	EARLY(strcmp, strcmp);
	EARLY(strncmp, strncmp);
	EARLY(strnlen, strnlen);
	EARLY(strchr, strchr);
	EARLY(strrchr, strrchr);
	EARLY(strcpy, strcpy);
	EARLY(stpcpy, stpcpy);
	EARLY(strcat, strcat);
	EARLY(getenv, getenv);
#undef EARLY
	return index == TAGTSO_FN_strlen ? (void *)tagtso_early_strlen : NULL;
}
