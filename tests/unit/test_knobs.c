/* SPDX-License-Identifier: MIT */
/* Behaviour of the knob parser: every row of the table, every way to write a bad value, and a deterministic fuzz run. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shim/knobs.h"

enum { MOST = 16 };

static struct {
	unsigned count;
	char line[MOST][512];
} complaints;

static void note(const char *line, void *arg)
{
	ck_assert_ptr_eq(arg, &complaints);
	if (complaints.count < MOST)
		snprintf(complaints.line[complaints.count], sizeof(complaints.line[0]), "%s", line);
	complaints.count++;
}

static struct tagtso_knobs knobs;

static unsigned parse(const char *const *environment)
{
	unsigned count;

	memset(&complaints, 0, sizeof(complaints));
	memset(&knobs, 0xa5, sizeof(knobs));
	count = tagtso_knobs_parse(&knobs, (char *const *)environment, note, &complaints);
	ck_assert_uint_eq(count, complaints.count);
	return count;
}

#define PARSE(...) parse((const char *const[]){ __VA_ARGS__, NULL })

static void expect_complaint(const char *pair, const char *line)
{
	const char *environment[] = { pair, NULL };

	ck_assert_msg(parse(environment) == 1, "%s: %u complaints", pair, complaints.count);
	ck_assert_str_eq(complaints.line[0], line);
}

static const struct tagtso_knob *row(const char *name)
{
	for (size_t i = 0; i < tagtso_knob_count; i++)
		if (!strcmp(tagtso_knob_table[i].name, name))
			return &tagtso_knob_table[i];
	ck_abort_msg("no knob %s", name);
}

static const char *value_of(const struct tagtso_knob *knob)
{
	static char buffer[64];

	return tagtso_knob_value(&knobs, knob, buffer, sizeof(buffer));
}

/* ---- values --------------------------------------------------------------------------------------------------- */

START_TEST(an_empty_environment_gives_the_defaults)
{
	ck_assert_uint_eq(parse((const char *const[]){ NULL }), 0);
	for (size_t i = 0; i < tagtso_knob_count; i++)
		ck_assert_str_eq(value_of(&tagtso_knob_table[i]), tagtso_knob_table[i].initial);
	ck_assert_uint_eq(tagtso_knobs_parse(&knobs, NULL, NULL, NULL), 0);
	ck_assert_uint_eq(knobs.threshold, 4);
}
END_TEST

START_TEST(other_variables_are_left_alone)
{
	ck_assert_uint_eq(PARSE("PATH=/bin", "TAGTS_MODE=x", "XTAGTSO_MODE=x", "tagtso_mode=x", "TAGTSO=x",
	                        "TAGTSO_MODE", "", "=x"),
	                  0);
	ck_assert_uint_eq(knobs.mode, TAGTSO_MODE_AUTO);
}
END_TEST

START_TEST(every_choice_of_every_enum_is_taken_and_shown_as_written)
{
	char pair[128], choices[128];

	for (size_t i = 0; i < tagtso_knob_count; i++) {
		const struct tagtso_knob *knob = &tagtso_knob_table[i];
		unsigned index = 0;

		if (knob->kind != TAGTSO_KNOB_ENUM)
			continue;
		snprintf(choices, sizeof(choices), "%s", knob->values);
		for (char *choice = strtok(choices, ","); choice; choice = strtok(NULL, ","), index++) {
			snprintf(pair, sizeof(pair), "TAGTSO_%s=%s", knob->name, choice);
			ck_assert_uint_eq(PARSE(pair), 0);
			ck_assert_uint_eq(*(unsigned *)((char *)&knobs + knob->offset), index);
			ck_assert_str_eq(value_of(knob), choice);
		}
	}
}
END_TEST

START_TEST(constants_of_the_header_are_the_order_of_the_choices)
{
	PARSE("TAGTSO_MODE=off", "TAGTSO_EMULATOR=generic", "TAGTSO_NATIVE=share", "TAGTSO_STACKS=1",
	      "TAGTSO_STRICT=1");
	ck_assert_uint_eq(knobs.mode, TAGTSO_MODE_OFF);
	ck_assert_uint_eq(knobs.emulator, TAGTSO_EMULATOR_GENERIC);
	ck_assert_uint_eq(knobs.native, TAGTSO_NATIVE_SHARE);
	ck_assert_uint_eq(knobs.stacks, 1);
	ck_assert_uint_eq(knobs.strict, 1);
	PARSE("TAGTSO_MODE=observe");
	ck_assert_uint_eq(knobs.mode, TAGTSO_MODE_OBSERVE);
}
END_TEST

START_TEST(numbers_are_taken_up_to_both_ends_of_the_range_and_not_beyond)
{
	char pair[128];

	for (size_t i = 0; i < tagtso_knob_count; i++) {
		const struct tagtso_knob *knob = &tagtso_knob_table[i];
		const long long bounds[] = { knob->min, knob->max, (long long)knob->min - 1, (long long)knob->max + 1 };

		if (knob->kind != TAGTSO_KNOB_UINT)
			continue;
		for (unsigned b = 0; b < 4; b++) {
			snprintf(pair, sizeof(pair), "TAGTSO_%s=%lld", knob->name, bounds[b]);
			ck_assert_msg(PARSE(pair) == b / 2, "%s", pair);
			if (b < 2)
				ck_assert_uint_eq(*(uint32_t *)((char *)&knobs + knob->offset), bounds[b]);
			else
				ck_assert_str_eq(value_of(knob), knob->initial);
		}
	}
}
END_TEST

START_TEST(texts_are_kept_not_copied)
{
	char pair[] = "TAGTSO_STATS=/tmp/%e.%p.json";

	ck_assert_uint_eq(PARSE(pair), 0);
	ck_assert_ptr_eq(knobs.stats, pair + strlen("TAGTSO_STATS="));
}
END_TEST

START_TEST(an_empty_text_is_the_default)
{
	ck_assert_uint_eq(PARSE("TAGTSO_STATS=", "TAGTSO_BACKING="), 0);
	ck_assert_str_eq(knobs.stats, "");
	ck_assert_str_eq(knobs.backing, "memfd");
}
END_TEST

START_TEST(backing_is_memfd_or_an_absolute_path)
{
	ck_assert_uint_eq(PARSE("TAGTSO_BACKING=tmpfs:/dev/shm"), 0);
	ck_assert_str_eq(knobs.backing, "tmpfs:/dev/shm");
	for (const char *const *bad =
	             (const char *const[]){ "tmpfs", "tmpfs:", "tmpfs:/", "tmpfs:shm", "memfd:/x", "MEMFD", NULL };
	     *bad; bad++) {
		char pair[64];

		snprintf(pair, sizeof(pair), "TAGTSO_BACKING=%s", *bad);
		ck_assert_msg(PARSE(pair) == 1, "%s", pair);
		ck_assert_str_eq(knobs.backing, "memfd");
	}
}
END_TEST

START_TEST(a_variable_that_comes_twice_counts_once_as_for_getenv)
{
	ck_assert_uint_eq(PARSE("TAGTSO_THRESHOLD=7", "TAGTSO_THRESHOLD=8", "TAGTSO_THRESHOLD=x"), 0);
	ck_assert_uint_eq(knobs.threshold, 7);
}
END_TEST

/* ---- complaints ----------------------------------------------------------------------------------------------- */

START_TEST(what_is_no_number_is_named_with_its_range)
{
	static const char *const bad[] = { "12x", "-1", "+1", "0x10", " 1", "1 ", "1.0", "1e3", "", "\t", "one", NULL };

	expect_complaint("TAGTSO_THRESHOLD=12x", "TAGTSO_THRESHOLD: '12x' is not a number: give 0 to 1000000 traps");
	for (const char *const *value = bad; *value; value++) {
		char pair[64];

		snprintf(pair, sizeof(pair), "TAGTSO_THRESHOLD=%s", *value);
		ck_assert_msg(PARSE(pair) == 1, "%s", pair);
		ck_assert_uint_eq(knobs.threshold, 4);
	}
}
END_TEST

START_TEST(a_number_that_overflows_is_out_of_range)
{
	expect_complaint("TAGTSO_THRESHOLD=4294967300",
	                 "TAGTSO_THRESHOLD: '4294967300' is out of range: give 0 to 1000000 traps");
	expect_complaint("TAGTSO_THRESHOLD=18446744073709551620",
	                 "TAGTSO_THRESHOLD: '18446744073709551620' is out of range: give 0 to 1000000 traps");
	expect_complaint("TAGTSO_CONFLICTS=0", "TAGTSO_CONFLICTS: '0' is out of range: give 1 to 256 granules");
}
END_TEST

START_TEST(a_bad_choice_is_named_with_the_good_ones)
{
	expect_complaint("TAGTSO_MODE=fast",
	                 "TAGTSO_MODE: 'fast' is not a choice: give one of auto, enforce, relax, observe, off");
	expect_complaint("TAGTSO_MODE=",
	                 "TAGTSO_MODE: '' is not a choice: give one of auto, enforce, relax, observe, off");
	expect_complaint("TAGTSO_MODE=auto,relax",
	                 "TAGTSO_MODE: 'auto,relax' is not a choice: give one of auto, enforce, relax, observe, off");
	expect_complaint("TAGTSO_STRICT=yes", "TAGTSO_STRICT: 'yes' is not a choice: give one of 0, 1");
}
END_TEST

START_TEST(an_unknown_name_is_told_the_nearest_one)
{
	expect_complaint("TAGTSO_TRESHOLD=1",
	                 "TAGTSO_TRESHOLD: no such knob: did you mean TAGTSO_THRESHOLD? ('tagtso knobs' lists them)");
	expect_complaint("TAGTSO_STAT=1",
	                 "TAGTSO_STAT: no such knob: did you mean TAGTSO_STATS? ('tagtso knobs' lists them)");
	expect_complaint("TAGTSO_BICYCLE=1", "TAGTSO_BICYCLE: no such knob ('tagtso knobs' lists them)");
	expect_complaint("TAGTSO_=1", "TAGTSO_: no such knob ('tagtso knobs' lists them)");
	expect_complaint("TAGTSO_mode=off", "TAGTSO_mode: no such knob ('tagtso knobs' lists them)");
}
END_TEST

START_TEST(names_of_the_projects_own_scripts_are_no_knobs_and_no_complaint)
{
	ck_assert_uint_eq(PARSE("TAGTSO_CACHE=/x", "TAGTSO_TEST_SRCDIR=/x", "TAGTSO_TEST_=1"), 0);
	ck_assert_uint_eq(PARSE("TAGTSO_LIB=/x", "TAGTSO_TESTS=/x", "TAGTSO_TREE=/x"), 0);
	ck_assert_uint_eq(PARSE("TAGTSO_CACHES=/x", "TAGTSO_TEST=/x"), 2);
	for (size_t i = 0; i < tagtso_knob_count; i++) {
		for (const char *const *name = (const char *const[]){ "CACHE", "LIB", "TESTS", "TREE", NULL }; *name;
		     name++)
			ck_assert_str_ne(tagtso_knob_table[i].name, *name);
		ck_assert_int_ne(strncmp(tagtso_knob_table[i].name, "TEST_", 5), 0);
	}
}
END_TEST

START_TEST(a_complaint_is_one_printable_line_of_bounded_length)
{
	static char pair[5000] = "TAGTSO_MODE=\n\033[31m\x80";

	memset(pair + strlen(pair), 'x', sizeof(pair) - strlen(pair) - 1);
	ck_assert_uint_eq(PARSE(pair), 1);
	ck_assert_uint_lt(strlen(complaints.line[0]), 200);
	for (const char *c = complaints.line[0]; *c; c++)
		ck_assert(*c >= ' ' && *c <= '~');
	ck_assert_ptr_nonnull(strstr(complaints.line[0], "..."));
}
END_TEST

START_TEST(every_bad_variable_is_complained_about)
{
	ck_assert_uint_eq(
		PARSE("TAGTSO_MODE=x", "TAGTSO_WINDOW=0", "TAGTSO_STATS=%x", "TAGTSO_FOO=1", "TAGTSO_FLIPS=3"), 4);
	ck_assert_str_eq(complaints.line[2], "TAGTSO_STATS: '%x' cannot be used: only %p, %e and %% are known");
	ck_assert_uint_eq(knobs.flips, 3);
}
END_TEST

/* ---- the table ------------------------------------------------------------------------------------------------ */

START_TEST(rows_are_complete_and_their_defaults_are_good_values)
{
	char pair[128];

	for (size_t i = 0; i < tagtso_knob_count; i++) {
		const struct tagtso_knob *knob = &tagtso_knob_table[i];

		ck_assert_uint_gt(strlen(knob->text), 10);
		ck_assert_uint_gt(strlen(knob->values), 0);
		snprintf(pair, sizeof(pair), "TAGTSO_%s=%s", knob->name, knob->initial);
		ck_assert_msg(PARSE(pair) == 0, "%s", pair);
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(knob->name, tagtso_knob_table[j].name);
	}
	ck_assert_ptr_nonnull(row("THRESHOLD"));
}
END_TEST

/* ---- fuzz ----------------------------------------------------------------------------------------------------- */

static uint64_t state = 0x9e3779b97f4a7c15;

static unsigned draw(unsigned below)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(state >> 33) % below;
}

/* Whatever the environment holds, fields stay within the table's limits. */
static void assert_within_limits(void)
{
	char buffer[64];

	for (size_t i = 0; i < tagtso_knob_count; i++) {
		const struct tagtso_knob *knob = &tagtso_knob_table[i];
		const char *value = tagtso_knob_value(&knobs, knob, buffer, sizeof(buffer));

		ck_assert_ptr_nonnull(value);
		if (knob->kind == TAGTSO_KNOB_UINT) {
			ck_assert_uint_ge((unsigned)atol(value), knob->min);
			ck_assert_uint_le((unsigned)atol(value), knob->max);
		}
	}
}

START_TEST(no_environment_puts_a_field_out_of_its_limits)
{
	static const char alphabet[] = "TAGSOMDEHRLNKIVBCW_=0123456789,-:/%pe autoenfrclxb64mds\n\x7f\xff";
	char lines[6][64];
	const char *environment[7] = { 0 };

	for (int run = 0; run < 20000; run++) {
		for (unsigned i = 0; i < 6; i++) {
			unsigned n = 0, length = draw(30);

			if (draw(4))
				n = (unsigned)snprintf(
					lines[i], sizeof(lines[i]), "TAGTSO_%s",
					draw(3) ? tagtso_knob_table[draw((unsigned)tagtso_knob_count)].name : "");
			if (draw(4))
				lines[i][n++] = '=';
			while (length--)
				lines[i][n++] = alphabet[draw(sizeof(alphabet) - 1)];
			lines[i][n] = '\0';
			environment[i] = lines[i];
		}
		parse(environment);
		assert_within_limits();
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("knobs");
	TCase *tcase = tcase_create("knobs");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, an_empty_environment_gives_the_defaults);
	tcase_add_test(tcase, other_variables_are_left_alone);
	tcase_add_test(tcase, every_choice_of_every_enum_is_taken_and_shown_as_written);
	tcase_add_test(tcase, constants_of_the_header_are_the_order_of_the_choices);
	tcase_add_test(tcase, numbers_are_taken_up_to_both_ends_of_the_range_and_not_beyond);
	tcase_add_test(tcase, texts_are_kept_not_copied);
	tcase_add_test(tcase, an_empty_text_is_the_default);
	tcase_add_test(tcase, backing_is_memfd_or_an_absolute_path);
	tcase_add_test(tcase, a_variable_that_comes_twice_counts_once_as_for_getenv);
	tcase_add_test(tcase, what_is_no_number_is_named_with_its_range);
	tcase_add_test(tcase, a_number_that_overflows_is_out_of_range);
	tcase_add_test(tcase, a_bad_choice_is_named_with_the_good_ones);
	tcase_add_test(tcase, an_unknown_name_is_told_the_nearest_one);
	tcase_add_test(tcase, names_of_the_projects_own_scripts_are_no_knobs_and_no_complaint);
	tcase_add_test(tcase, a_complaint_is_one_printable_line_of_bounded_length);
	tcase_add_test(tcase, every_bad_variable_is_complained_about);
	tcase_add_test(tcase, rows_are_complete_and_their_defaults_are_good_values);
	tcase_add_test(tcase, no_environment_puts_a_field_out_of_its_limits);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
