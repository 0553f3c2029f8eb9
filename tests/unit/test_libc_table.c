/* SPDX-License-Identifier: MIT */
/* The tables of interposed functions and system calls: complete, and without contradictions. Builds on any host. */
#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const interposed[] = {
#define FUNCTION(ret, name, proto) #name,
#include "shim/libc-all.def"
#undef FUNCTION
};

static const char *const left[] = {
#define LEFT(reason, ...) #__VA_ARGS__,
#include "shim/libc-left.def"
#undef LEFT
};

#define NAMES(...) #__VA_ARGS__
static const char box64_imports[] =
#include "box64-imports.def"
	;
static const char libc_exports[] =
#include "libc-exports.def"
	;

struct list {
	char **names;
	size_t n;
};

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_names(struct list *list, const char *text)
{
	char *copy = strdup(text), *next = copy;

	for (char *name; (name = strsep(&next, ", \n\t"));) {
		if (!*name)
			continue;
		list->names = realloc(list->names, (list->n + 1) * sizeof(*list->names));
		list->names[list->n++] = name;
	}
}

static struct list list_of(const char *const *texts, size_t n)
{
	struct list list = { NULL, 0 };

	for (size_t i = 0; i < n; i++)
		add_names(&list, texts[i]);
	qsort(list.names, list.n, sizeof(*list.names), compare);
	return list;
}
#define LIST(texts) list_of(texts, sizeof(texts) / sizeof(*(texts)))

static bool has(const struct list *list, const char *name)
{
	return bsearch(&name, list->names, list->n, sizeof(*list->names), compare);
}

static void check_once(const struct list *list, const char *what)
{
	for (size_t i = 1; i < list->n; i++)
		ck_assert_msg(strcmp(list->names[i - 1], list->names[i]), "%s is %s twice", list->names[i], what);
}

START_TEST(a_function_is_listed_once)
{
	struct list in = LIST(interposed), out = LIST(left);

	check_once(&in, "interposed");
	check_once(&out, "left alone");
	for (size_t i = 0; i < in.n; i++)
		ck_assert_msg(!has(&out, in.names[i]), "%s is both interposed and left alone", in.names[i]);
}
END_TEST

static void check_covered(const char *text)
{
	struct list in = LIST(interposed), out = LIST(left), all = list_of(&text, 1);
	unsigned missing = 0;

	for (size_t i = 0; i < all.n; i++) {
		if (has(&in, all.names[i]) || has(&out, all.names[i]))
			continue;
		fprintf(stderr, "neither interposed nor left alone with a reason: %s\n", all.names[i]);
		missing++;
	}
	ck_assert_uint_gt(all.n, 400);
	ck_assert_uint_eq(missing, 0);
}

START_TEST(every_symbol_that_box64_imports_is_decided_about)
{
	check_covered(box64_imports);
}
END_TEST

START_TEST(every_function_that_libc_exports_is_decided_about)
{
	check_covered(libc_exports);
}
END_TEST

START_TEST(only_functions_that_exist_are_interposed)
{
	const char *text = libc_exports;
	struct list in = LIST(interposed), libc = list_of(&text, 1);

	for (size_t i = 0; i < in.n; i++)
		ck_assert_msg(has(&libc, in.names[i]), "libc has no %s", in.names[i]);
}
END_TEST

/* Each of these passes a pointer to the kernel inside libc, waits on an address, or keeps a buffer: a regression would be an EFAULT, a lost
 * wake-up or a stale buffer in some program, far from here. */
START_TEST(functions_that_reach_the_kernel_are_moved_to_the_alias)
{
	static const char *const moved_text[] = {
#define UNCHECKED(ret, name, ...)
#define UNCHECKED_OFTEN(ret, name, ...)
#define UNCHECKED_V(name, ...)
#define ALIAS(ret, name, ...) #name,
#define ALIAS_OFTEN(ret, name, ...) #name,
#define ALIAS_V(name, ...) #name,
#define ALIAS_BACK(ret, name, ...) #name,
#define KEPT(ret, name, ...) #name,
#define KEPT_V(name, ...) #name,
#define MANUAL(ret, name, proto) #name,
#include "shim/libc-alias.def"
#include "shim/libc-manual.def"
#include "shim/libc-thread.def"
	};
	static const char *const must[] = { "read write open open64 openat stat lstat fstat access readlink readlinkat "
		                            "realpath getcwd mkdir rename unlink chmod "
		                            "poll select epoll_wait epoll_ctl pipe ioctl fcntl fcntl64 recvmsg sendmsg "
		                            "readv writev fread fwrite fputs puts setvbuf "
		                            "clock_gettime nanosleep gettimeofday execve posix_spawn posix_spawnp "
		                            "pthread_mutex_lock pthread_mutex_unlock "
		                            "pthread_cond_wait pthread_cond_signal pthread_once sem_wait sem_post "
		                            "pthread_barrier_wait pthread_rwlock_wrlock "
		                            "getaddrinfo opendir fopen fopen64 freopen popen system dlopen printf "
		                            "fprintf vfprintf syscall waitpid uname sysinfo" };
	struct list moved = LIST(moved_text), wanted = LIST(must);

	for (size_t i = 0; i < wanted.n; i++)
		ck_assert_msg(has(&moved, wanted.names[i]), "%s", wanted.names[i]);
}
END_TEST

START_TEST(nothing_that_calls_back_runs_unchecked)
{
	static const char *const unchecked_text[] = {
#undef UNCHECKED
#undef UNCHECKED_OFTEN
#undef UNCHECKED_V
#define UNCHECKED(ret, name, ...) #name,
#define UNCHECKED_OFTEN(ret, name, ...) #name,
#define UNCHECKED_V(name, ...) #name,
#include "shim/libc-unchecked.def"
	};
	static const char *const never[] = { "qsort qsort_r bsearch lfind lsearch tsearch tfind tdelete twalk tdestroy "
		                             "scandir ftw nftw glob pthread_once call_once "
		                             "fopencookie fwrite fread fflush printf fprintf vfprintf obstack_vprintf "
		                             "dl_iterate_phdr read write sem_wait" };
	struct list unchecked = LIST(unchecked_text), forbidden = LIST(never);

	for (size_t i = 0; i < forbidden.n; i++)
		ck_assert_msg(!has(&unchecked, forbidden.names[i]), "%s", forbidden.names[i]);
}
END_TEST

START_TEST(every_system_call_of_arm64_is_listed_in_order)
{
	static const int numbers[] = {
#define SYS(number, name, ...) number,
#define OFFERED(number, name, ...) number,
#define NONE(number, name) number,
#include "shim/syscalls.def"
	};
	size_t n = sizeof(numbers) / sizeof(*numbers);

	/* asm-generic/unistd.h: 244..259 belong to architectures, 295..423 to 32-bit ones */
	for (size_t i = 1; i < n; i++)
		ck_assert_msg(numbers[i] == numbers[i - 1] + 1 || (numbers[i - 1] == 243 && numbers[i] == 260) ||
		                      (numbers[i - 1] == 294 && numbers[i] == 424),
		              "%d follows %d", numbers[i], numbers[i - 1]);
	ck_assert_int_eq(numbers[0], 0);
	ck_assert_int_ge(numbers[n - 1], 462);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("libc table");
	TCase *tc = tcase_create("tables");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, a_function_is_listed_once);
	tcase_add_test(tc, every_symbol_that_box64_imports_is_decided_about);
	tcase_add_test(tc, every_function_that_libc_exports_is_decided_about);
	tcase_add_test(tc, only_functions_that_exist_are_interposed);
	tcase_add_test(tc, functions_that_reach_the_kernel_are_moved_to_the_alias);
	tcase_add_test(tc, nothing_that_calls_back_runs_unchecked);
	tcase_add_test(tc, every_system_call_of_arm64_is_listed_in_order);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
