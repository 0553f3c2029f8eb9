/* SPDX-License-Identifier: MIT */
/* The interposed functions and system calls with a stand-in for the window: memory that must be reached by its alias, or with checks off. Where the
 * machine has MTE and tags shared memory the stand-in has tags that no pointer carries; elsewhere it is made unreachable for the cases that use the
 * alias alone. */
#include <check.h>
#include <dlfcn.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

#include "../guests/native-calls.h"
#include "alloc/owner.h"
#include "alloc/window.h"
#include "shim/knobs.h"
#include "shim/libc-hooks.h"
#include "shim/native.h"
#include "shim/next.h"
#include "shim/profile.h"
#include "shim/state.h"

#ifndef PROT_MTE
#define PROT_MTE 0x20
#endif
enum { MTE = 1 << 18, TAG = 5, TAGGED_ENABLE_SYNC = 3 }; /* HWCAP2_MTE; PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC */

struct tagtso_knobs tagtso_knobs;
_Atomic bool tagtso_active;
const struct tagtso_profile *tagtso_profile;
struct tagtso_window tagtso_window;
static char *window, *alias;
static bool tags, hook_answers;
static _Atomic unsigned moves, touches, wakes;

void *tagtso_native(const volatile void *pointer, size_t size)
{
	char *p = (char *)pointer;

	(void)size;
	if (p < window || p >= window + AREA_SIZE)
		return p;
	moves++;
	return p - window + alias;
}

void *tagtso_native_back(const void *pointer)
{
	char *p = (char *)pointer;

	return p < alias || p >= alias + AREA_SIZE ? p : p - alias + window;
}

void tagtso_native_touch(const volatile void *pointer, size_t size)
{
	char *p = (char *)pointer;

	if (size && p >= window && p < window + AREA_SIZE)
		touches++;
}

void tagtso_wake(void)
{
	wakes++;
}

void tagtso_owner_none(void) {}

bool tagtso_syscall_hook(long nr, const long args[6], uintptr_t ra, long *result)
{
	(void)args;
	(void)ra;
	if (!hook_answers || nr != SYS_mprotect)
		return false;
	*result = -ENOTNAM;
	return true;
}

static void tag_memory(char *p, size_t n)
{
	for (char *end = p + n; p < end; p += 16) {
		char *tagged = (char *)((uintptr_t)p | (uintptr_t)TAG << 56);

		__asm__ volatile(".arch_extension memtag\n\tstg %0, [%0]" ::"r"(tagged) : "memory");
	}
}

/* Whether a tag survives in memory that is shared: not under user-mode emulation, which has them in anonymous memory only. */
static bool have_tags(void)
{
	char *tagged = window;

	if (!(getauxval(AT_HWCAP2) & MTE) || mprotect(window, AREA_SIZE, PROT_READ | PROT_WRITE | PROT_MTE) ||
	    prctl(PR_SET_TAGGED_ADDR_CTRL, TAGGED_ENABLE_SYNC, 0, 0, 0))
		return false;
	tag_memory(window, AREA_SIZE);
	__asm__ volatile(".arch_extension memtag\n\tldg %0, [%0]" : "+r"(tagged)::"memory");
	return (uintptr_t)tagged >> 56 == TAG;
}

/* The index of pages, which some functions look into by themselves. */
static void make_index(void)
{
	static _Atomic(_Atomic uint32_t *) leaves[1 << (TAGTSO_VA_BITS - TAGTSO_LEAF_BITS - TAGTSO_PAGE_SHIFT)];

	tagtso_window.leaf = leaves;
	for (uint64_t page = 0; page < AREA_SIZE / TAGTSO_PAGE_SIZE; page++) {
		uint64_t number = ((uint64_t)window >> TAGTSO_PAGE_SHIFT) + page;
		_Atomic(_Atomic uint32_t *) *leaf = &leaves[number >> TAGTSO_LEAF_BITS];

		if (!*leaf)
			*leaf = calloc(1 << TAGTSO_LEAF_BITS, sizeof(uint32_t));
		(*leaf)[number % (1 << TAGTSO_LEAF_BITS)] = (uint32_t)page + 1;
	}
}

static void make_window(void)
{
	int fd = memfd_create("window", 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, AREA_SIZE), 0);
	window = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	alias = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert(window != MAP_FAILED && alias != MAP_FAILED);
	make_index();
	tagtso_libc_init();
	tags = have_tags();
	if (getenv("CK_VERBOSITY"))
		fprintf(stderr, "window: %s\n", tags ? "tagged" : "unreachable");
}

static struct log expected, found;
static _Alignas(4096) char ordinary[AREA_SIZE];

static void compare_logs(const char *name)
{
	if (expected.n == found.n && !memcmp(expected.text, found.text, found.n))
		return;
	for (char *e = expected.text, *f = found.text, *en, *fn; *e || *f; e = en, f = fn) {
		en = strchrnul(e, '\n');
		fn = strchrnul(f, '\n');
		if (en - e != fn - f || memcmp(e, f, (size_t)(en - e)))
			ck_abort_msg("%s: expected: %.*s; found: %.*s", name, (int)(en - e), e, (int)(fn - f), f);
		en += *en != 0;
		fn += *fn != 0;
	}
}

static void check_case(int i)
{
	struct area host = { .base = ordinary }, guest = { .base = window, .direct = alias - window };
	bool hide = !tags && !native_cases[i].flags;

	if (tags && native_cases[i].flags & TRAPS)
		return; /* nobody interprets here */
	tagtso_active = false;
	run_case((unsigned)i, &host, &expected);
	tagtso_active = true;
	if (hide)
		mprotect(window, AREA_SIZE, PROT_NONE);
	run_case((unsigned)i, &guest, &found);
	tagtso_active = false;
	compare_logs(native_cases[i].name);
}

START_TEST(calls_give_the_same_on_guest_memory_as_on_ordinary_memory)
{
	check_case(_i);
}
END_TEST

START_TEST(calls_give_the_same_when_memory_is_made_shared_first)
{
	tagtso_knobs.native = TAGTSO_NATIVE_SHARE;
	check_case(_i);
}
END_TEST

START_TEST(known_sizes_are_made_shared_in_share_mode_only)
{
	char *a = window, *b = window + 4096;

	tagtso_active = true;
	memcpy(a, b, 100);
	ck_assert_uint_eq(touches, 0);
	tagtso_knobs.native = TAGTSO_NATIVE_SHARE;
	memcpy(a, b, 100);
	ck_assert_uint_eq(touches, 2);
	ck_assert_uint_eq(strlen(a), 0);
	ck_assert_uint_eq(touches, 3);
}
END_TEST

START_TEST(pointers_stay_while_no_memory_has_tags)
{
	char b[8];
	int fd = open("/dev/zero", O_RDONLY);

	ck_assert_int_eq(read(fd, b, 8), 8);
	ck_assert_int_eq(syscall(SYS_read, fd, window, 8L), tags ? -1 : 8);
	ck_assert_uint_eq(moves, 0);
}
END_TEST

START_TEST(a_stream_keeps_the_alias_of_its_buffer_from_the_first)
{
	FILE *f = fopen("/dev/null", "w");

	ck_assert_int_eq(setvbuf(f, window, _IOFBF, 4096), 0);
	ck_assert_uint_eq(moves, 1);
	fputs("kept", f);
	ck_assert_mem_eq(alias, "kept", 4);
	fclose(f);
}
END_TEST

START_TEST(checks_are_on_again_after_an_unchecked_call)
{
	uint64_t tco;

	tagtso_active = true;
	memcpy(window, window + 64, 64);
	__asm__ volatile(".arch_extension memtag\n\tmrs %0, tco" : "=r"(tco));
	ck_assert_uint_eq(tco, 0);
}
END_TEST

START_TEST(errno_is_what_the_function_left)
{
	tagtso_active = true;
	errno = 0;
	ck_assert_int_eq(open(strcpy(alias, "/no/such/file") - alias + window, O_RDONLY), -1);
	ck_assert_int_eq(errno, ENOENT);
	errno = 42;
	(void)!strlen(alias);
	ck_assert_int_eq(errno, 42);
	strtol(strcpy(alias, "99999999999999999999"), NULL, 10);
	ck_assert_int_eq(errno, ERANGE);
}
END_TEST

START_TEST(an_offered_system_call_is_answered_by_the_hook)
{
	hook_answers = true;
	ck_assert_int_eq(syscall(SYS_mprotect, 0L, 0L, 0L), -1);
	ck_assert_int_eq(errno, ENOTNAM);
	hook_answers = false;
	ck_assert_int_eq(syscall(SYS_mprotect, 0L, 0L, 0L), 0);
}
END_TEST

START_TEST(io_uring_is_refused_unless_inert)
{
	static const char profile;

	tagtso_profile = (const void *)&profile;
	ck_assert_int_eq(syscall(SYS_io_uring_setup, 1L, NULL), -1);
	ck_assert_int_eq(errno, ENOSYS);
}
END_TEST

START_TEST(a_notification_by_a_thread_wakes_the_shim)
{
	static const char profile;
	struct sigevent none = { .sigev_notify = SIGEV_NONE },
			thread = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_notification };
	timer_t timer;

	tagtso_profile = (const void *)&profile;
	ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, &none, &timer), 0);
	ck_assert_uint_eq(wakes, 0);
	ck_assert_int_eq(timer_create(CLOCK_MONOTONIC, &thread, &timer), 0);
	ck_assert_uint_eq(wakes, 1);
	ck_assert_ptr_eq(thread.sigev_notify_function, on_notification);
}
END_TEST

START_TEST(names_looked_up_at_start_are_those_that_the_linker_finds)
{
	static const char *const names[] = {
#define FUNCTION(ret, name, proto) #name,
#include "shim/libc-all.def"
#undef FUNCTION
		"no_such_function",  "sin",           "environ", "pthread_cond_wait", "regexec",
		"sched_setaffinity", "__libc_malloc",
	};
	struct tagtso_objects objects;

	tagtso_objects_read(&objects);
	ck_assert_uint_gt(objects.n, 2);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		ck_assert_msg(tagtso_next_in(&objects, names[i]) == tagtso_next(names[i]), "%s", names[i]);
}
END_TEST

START_TEST(a_function_found_by_handle_is_replaced_by_ours)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY), *real = dlsym(libc, "pthread_mutex_lock");

	ck_assert_ptr_ne(real, pthread_mutex_lock);
	ck_assert_ptr_eq(tagtso_libc_substitute(real), pthread_mutex_lock);
	ck_assert_ptr_eq(tagtso_libc_substitute(dlsym(libc, "abs")), dlsym(libc, "abs"));
	ck_assert_ptr_null(tagtso_libc_substitute(NULL));
}
END_TEST

START_TEST(long_vectors_and_lists_do_not_fit_the_stack_and_still_work)
{
	struct iovec *v = (struct iovec *)window, *d = (struct iovec *)alias;
	int fd = memfd_create("long", 0);

	for (int i = 0; i < 1024; i++)
		d[i] = (struct iovec){ window + 65536 + i, 1 };
	memset(alias + 65536, 'v', 1024);
	tagtso_active = true;
	if (!tags)
		mprotect(window, AREA_SIZE, PROT_NONE);
	ck_assert_int_eq(writev(fd, v, 1024), 1024);
	ck_assert_int_eq(writev(fd, v, 1025), -1);
	ck_assert_int_eq(errno, EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("libc native");
	TCase *tc = tcase_create("calls");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, make_window, NULL);
	tcase_add_loop_test(tc, calls_give_the_same_on_guest_memory_as_on_ordinary_memory, 0, NATIVE_CASES);
	tcase_add_loop_test(tc, calls_give_the_same_when_memory_is_made_shared_first, 0, NATIVE_CASES);
	tcase_add_test(tc, known_sizes_are_made_shared_in_share_mode_only);
	tcase_add_test(tc, pointers_stay_while_no_memory_has_tags);
	tcase_add_test(tc, a_stream_keeps_the_alias_of_its_buffer_from_the_first);
	tcase_add_test(tc, checks_are_on_again_after_an_unchecked_call);
	tcase_add_test(tc, errno_is_what_the_function_left);
	tcase_add_test(tc, an_offered_system_call_is_answered_by_the_hook);
	tcase_add_test(tc, io_uring_is_refused_unless_inert);
	tcase_add_test(tc, a_notification_by_a_thread_wakes_the_shim);
	tcase_add_test(tc, names_looked_up_at_start_are_those_that_the_linker_finds);
	tcase_add_test(tc, a_function_found_by_handle_is_replaced_by_ours);
	tcase_add_test(tc, long_vectors_and_lists_do_not_fit_the_stack_and_still_work);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
