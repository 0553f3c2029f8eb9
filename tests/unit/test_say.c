/* SPDX-License-Identifier: MIT */
/* Behaviour of messages and of the formatter that handlers may use. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim/say.h"

/* Formats with ours and with libc's, and compares. */
#define SAME(...) \
	do { \
		char ours[128], theirs[128]; \
		size_t length = tagtso_format(ours, sizeof(ours), __VA_ARGS__); \
		ck_assert_int_eq((int)length, snprintf(theirs, sizeof(theirs), __VA_ARGS__)); \
		ck_assert_str_eq(ours, theirs); \
	} while (0)

START_TEST(numbers_and_texts_look_as_printf_makes_them)
{
	SAME("plain");
	SAME("%s|%s|%c|%%", "a", "", 'x');
	SAME("%d %d %d", 0, INT_MAX, INT_MIN);
	SAME("%ld %ld %ld", 0L, LONG_MAX, LONG_MIN);
	SAME("%u %u", 0u, UINT_MAX);
	SAME("%lu %zu", ULONG_MAX, (size_t)12345);
	SAME("%x %lx %x", 0u, ULONG_MAX, 0xdeadbeefu);
	SAME("%08x %8x %016lx %3u", 0xbeefu, 0xbeefu, 0xfedcba98ul, 7u);
	SAME("%p", (void *)0x1234);
}
END_TEST

START_TEST(output_is_cut_at_the_size_and_terminated)
{
	char buffer[8];

	memset(buffer, 'x', sizeof(buffer));
	ck_assert_uint_eq(tagtso_format(buffer, 5, "%s", "abcdefgh"), 4);
	ck_assert_str_eq(buffer, "abcd");
	ck_assert_int_eq(buffer[5], 'x');
	ck_assert_uint_eq(tagtso_format(buffer, 1, "%lx", 1ul), 0);
	ck_assert_int_eq(buffer[0], '\0');
	ck_assert_uint_eq(tagtso_format(buffer, 0, "abc"), 0);
	ck_assert_int_eq(buffer[5], 'x');
}
END_TEST

/* What fn writes to standard error. */
static const char *captured(void (*fn)(void))
{
	static char text[2048];
	int keep = dup(2), file = open("/tmp", O_RDWR | O_TMPFILE, 0600);
	ssize_t length;

	ck_assert_int_ge(file, 0);
	dup2(file, 2);
	fn();
	dup2(keep, 2);
	close(keep);
	length = pread(file, text, sizeof(text) - 1, 0);
	close(file);
	ck_assert_int_ge((int)length, 0);
	text[length] = '\0';
	return text;
}

static void say_three(void)
{
	errno = ENOENT;
	tagtso_say("%s: %u", "knob", 3u);
	ck_assert_int_eq(errno, ENOENT);
	tagtso_knobs.verbose = 2;
	TAGTSO_SAY(2, "shown");
	TAGTSO_SAY(3, "hidden");
}

START_TEST(a_message_is_one_line_with_the_name_in_front)
{
	ck_assert_str_eq(captured(say_three), "tagtso: knob: 3\ntagtso: shown\n");
}
END_TEST

static void say_much(void)
{
	static char text[3000];

	memset(text, 'y', sizeof(text) - 1);
	tagtso_say("%s", text);
}

START_TEST(a_long_message_is_cut_and_still_one_line)
{
	const char *text = captured(say_much);

	ck_assert_uint_lt(strlen(text), 600);
	ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
}
END_TEST

static void on_abort(int signo)
{
	(void)signo;
	_exit(0);
}

START_TEST(an_impossible_state_ends_the_process_whatever_its_handlers_and_mask)
{
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGABRT, on_abort);
	tagtso_die("as it should");
}
END_TEST

START_TEST(an_assertion_that_holds_costs_nothing_visible)
{
	unsigned evaluated = 0;

	TAGTSO_ASSERT(++evaluated);
	ck_assert_uint_le(evaluated, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("say");
	TCase *tcase = tcase_create("say");
	SRunner *runner;
	int failed;

	tcase_add_test(tcase, numbers_and_texts_look_as_printf_makes_them);
	tcase_add_test(tcase, output_is_cut_at_the_size_and_terminated);
	tcase_add_test(tcase, a_message_is_one_line_with_the_name_in_front);
	tcase_add_test(tcase, a_long_message_is_cut_and_still_one_line);
	tcase_add_test_raise_signal(tcase, an_impossible_state_ends_the_process_whatever_its_handlers_and_mask,
	                            SIGABRT);
	tcase_add_test(tcase, an_assertion_that_holds_costs_nothing_visible);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
