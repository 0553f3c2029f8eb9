/* SPDX-License-Identifier: MIT */
/* Behaviour of the JSON report: parsed by a strict reader, held to its schema, and written whole or not at all. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "interp/decode.h"
#include "interp/site.h"
#include "shim/json.h"
#include "shim/report.h"
#include "shim/stats.h"

enum { MOST = 600 };

static char directory[64];

static void enter_directory(void)
{
	char *environment[] = { NULL };

	strcpy(directory, "/tmp/tagtso-report.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chdir(directory), 0);
	tagtso_knobs_parse(&tagtso_knobs, environment, NULL, NULL);
}

static void leave_directory(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

static char *read_file(const char *path, size_t *length)
{
	static char text[1 << 18];
	FILE *file = fopen(path, "r");

	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	*length = fread(text, 1, sizeof(text) - 1, file);
	text[*length] = '\0';
	fclose(file);
	return text;
}

/* ---- flattened JSON ------------------------------------------------------------------------------------------- */

struct entry {
	char *path, *text;
	enum tagtso_json kind;
};
struct document {
	unsigned count;
	struct entry entry[MOST];
};

static void record(const char *path, enum tagtso_json kind, const char *text, void *arg)
{
	struct document *document = arg;

	ck_assert_uint_lt(document->count, MOST);
	document->entry[document->count++] = (struct entry){ strdup(path), strdup(text), kind };
}

static struct document *parse_file(const char *path)
{
	struct document *document = calloc(1, sizeof(*document));
	size_t length, where;
	const char *text = read_file(path, &length);

	ck_assert_msg(tagtso_json_read(text, length, record, document, &where), "%s: byte %zu: %.40s", path, where,
	              text + where);
	return document;
}

static const struct entry *find(const struct document *document, const char *path)
{
	for (unsigned i = 0; i < document->count; i++)
		if (!strcmp(document->entry[i].path, path))
			return &document->entry[i];
	return NULL;
}

static const char *get(const struct document *document, const char *path)
{
	const struct entry *entry = find(document, path);

	ck_assert_msg(entry != NULL, "no %s in the report", path);
	return entry->text;
}

/* ---- schema: the part of JSON Schema that ours uses ----------------------------------------------------------- */

/* "counters.traps" -> "properties.counters.properties.traps"; "unknown.0.word" -> "properties.unknown.items.properties.word". */
static void schema_path(const struct document *schema, const char *path, char *out, size_t size)
{
	char parts[PATH_MAX], try[PATH_MAX];

	snprintf(parts, sizeof(parts), "%s", path);
	*out = '\0';
	for (char *part = strtok(parts, "."); part; part = strtok(NULL, ".")) {
		size_t n = strlen(out);

		if (*part >= '0' && *part <= '9') {
			snprintf(out + n, size - n, "%sitems", n ? "." : "");
			continue;
		}
		snprintf(try, sizeof(try), "%s%sproperties.%s", out, n ? "." : "", part);
		if (find(schema, try))
			snprintf(out, size, "%s", try);
		else
			snprintf(out + n, size - n, "%sadditionalProperties", n ? "." : "");
	}
}

static const struct entry *keyword(const struct document *schema, const char *base, const char *word)
{
	char path[PATH_MAX + 32];

	snprintf(path, sizeof(path), "%s%s%s", base, *base ? "." : "", word);
	return find(schema, path);
}

static void check_value(const struct document *schema, const struct entry *value)
{
	static const char *const types[] = { [TAGTSO_JSON_STRING] = "string",
		                             [TAGTSO_JSON_NUMBER] = "integer",
		                             [TAGTSO_JSON_OBJECT] = "object",
		                             [TAGTSO_JSON_ARRAY] = "array",
		                             [TAGTSO_JSON_WORD] = "boolean" };
	char base[PATH_MAX], word[32];
	const struct entry *entry;

	schema_path(schema, value->path, base, sizeof(base));
	entry = keyword(schema, base, "type");
	ck_assert_msg(entry != NULL, "%s is not in the schema", value->path);
	ck_assert_msg(!strcmp(entry->text, types[value->kind]), "%s is %s", value->path, types[value->kind]);
	if ((entry = keyword(schema, base, "minimum")))
		ck_assert_msg(strtoull(value->text, NULL, 10) >= strtoull(entry->text, NULL, 10), "%s", value->path);
	if ((entry = keyword(schema, base, "maximum")))
		ck_assert_msg(strtoull(value->text, NULL, 10) <= strtoull(entry->text, NULL, 10), "%s", value->path);
	if (!keyword(schema, base, "enum"))
		return;
	for (unsigned i = 0;; i++) {
		snprintf(word, sizeof(word), "enum.%u", i);
		entry = keyword(schema, base, word);
		ck_assert_msg(entry != NULL, "%s: '%s' is not in the schema's enum", value->path, value->text);
		if (!strcmp(entry->text, value->text))
			return;
	}
}

/* Every member that the schema requires of this object. */
static void check_required(const struct document *schema, const struct document *report, const struct entry *object)
{
	char base[PATH_MAX], word[32], path[PATH_MAX];
	const struct entry *entry;

	schema_path(schema, object->path, base, sizeof(base));
	for (unsigned i = 0;; i++) {
		snprintf(word, sizeof(word), "required.%u", i);
		entry = keyword(schema, base, word);
		if (!entry)
			return;
		snprintf(path, sizeof(path), "%s%s%s", object->path, *object->path ? "." : "", entry->text);
		ck_assert_msg(find(report, path) != NULL, "%s is required", path);
	}
}

static struct document *read_schema(void)
{
	const char *top = getenv("TAGTSO_TEST_SRCDIR");
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/man/tagtso-report.schema.json", top ? top : ".");
	if (access(path, R_OK))
		snprintf(path, sizeof(path), "%s", DATADIR "/tagtso/tagtso-report.schema.json");
	return parse_file(path);
}

static void check_schema(const struct document *report)
{
	const struct document *schema = read_schema();

	for (unsigned i = 0; i < report->count; i++) {
		check_value(schema, &report->entry[i]);
		if (report->entry[i].kind == TAGTSO_JSON_OBJECT)
			check_required(schema, report, &report->entry[i]);
	}
}

/* ---- content -------------------------------------------------------------------------------------------------- */

static struct tagtso_report_extra extra(void)
{
	return (struct tagtso_report_extra){ .program = "box64",
		                             .mode = "enforce",
		                             .owner = "cpu",
		                             .ordering = "halfst",
		                             .emulator = "box64",
		                             .state = "active",
		                             .why = "" };
}

static struct document *write_and_read(const struct tagtso_report_extra *what)
{
	ck_assert_int_eq(tagtso_report_write("report.json", what), 0);
	return parse_file("report.json");
}

START_TEST(an_empty_report_is_json_and_fits_the_schema)
{
	struct tagtso_report_extra nothing = {
		.mode = "off", .ordering = "halfst", .emulator = "none", .state = "inert"
	};
	struct document *report = write_and_read(&nothing);

	check_schema(report);
	ck_assert_str_eq(get(report, "schema"), "1");
	ck_assert_str_eq(get(report, "tagtso"), PACKAGE_VERSION);
	ck_assert_uint_eq(strtoul(get(report, "pid"), NULL, 10), (unsigned long)getpid());
	ck_assert_str_eq(get(report, "why"), "");
	ck_assert_str_eq(get(report, "ordering"), "halfst");
}
END_TEST

START_TEST(every_counter_is_in_the_report_with_its_value)
{
	struct tagtso_report_extra what = extra();
	struct document *report;
	char path[64], value[32];

	for (unsigned i = 0; i < TAGTSO_NSTATS; i++)
		atomic_store(&tagtso_stats[i], (uint64_t)i * 0x100000001 + 7);
	atomic_store(&tagtso_stats[TAGTSO_STAT_traps], UINT64_MAX);
	report = write_and_read(&what);
	check_schema(report);
#define STAT(name, unit, text) \
	snprintf(path, sizeof(path), "counters.%s", #name); \
	snprintf(value, sizeof(value), "%lu", (unsigned long)TAGTSO_STAT(name)); \
	ck_assert_str_eq(get(report, path), value);
#include "shim/stats.def"
#undef STAT
	ck_assert_str_eq(get(report, "counters.traps"), "18446744073709551615");
}
END_TEST

START_TEST(knobs_are_shown_as_they_are_in_force)
{
	char *environment[] = { (char *)"TAGTSO_THRESHOLD=9", (char *)"TAGTSO_MODE=observe",
		                (char *)"TAGTSO_STATS=a\"b", NULL };
	struct tagtso_report_extra what = extra();
	struct document *report;

	ck_assert_uint_eq(tagtso_knobs_parse(&tagtso_knobs, environment, NULL, NULL), 0);
	report = write_and_read(&what);
	check_schema(report);
	ck_assert_str_eq(get(report, "owner"), "cpu");
	ck_assert_str_eq(get(report, "knobs.owner"), "thread");
	ck_assert_str_eq(get(report, "knobs.threshold"), "9");
	ck_assert_int_eq(find(report, "knobs.threshold")->kind, TAGTSO_JSON_NUMBER);
	ck_assert_str_eq(get(report, "knobs.mode"), "observe");
	ck_assert_str_eq(get(report, "knobs.stats"), "a\"b");
	ck_assert_str_eq(get(report, "knobs.strict"), "0");
}
END_TEST

START_TEST(sites_are_counted_by_form_and_by_class)
{
	enum { LDR = 0xf9400020, STR = 0xf9000020, LDP = 0xa9400440 };
	struct tagtso_report_extra what = extra();
	struct document *report;

	ck_assert_int_eq(tagtso_site_init(1024), 0);
	atomic_store(&tagtso_site_get(0x1000, LDR)->form, TAGTSO_FORM_LOCAL);
	atomic_store(&tagtso_site_get(0x1004, LDR)->form, TAGTSO_FORM_MIXED);
	atomic_store(&tagtso_site_get(0x1008, STR)->refused, 2);
	tagtso_site_get(0x100c, LDP);
	what.site_bytes = 4096;
	what.page_bytes = 123;
	report = write_and_read(&what);
	check_schema(report);
	ck_assert_str_eq(get(report, "sites.seen"), "4");
	ck_assert_str_eq(get(report, "sites.refused"), "1");
	ck_assert_str_eq(get(report, "sites.by_form.emitted"), "2");
	ck_assert_str_eq(get(report, "sites.by_form.local"), "1");
	ck_assert_str_eq(get(report, "sites.by_form.shared"), "0");
	ck_assert_str_eq(get(report, "sites.by_form.mixed"), "1");
	ck_assert_str_eq(get(report, "sites.by_class.load"), "2");
	ck_assert_str_eq(get(report, "sites.by_class.store"), "1");
	ck_assert_str_eq(get(report, "sites.by_class.load-pair"), "1");
	ck_assert_str_eq(get(report, "memory.site_table_bytes"), "4096");
	ck_assert_str_eq(get(report, "memory.page_table_bytes"), "123");
}
END_TEST

START_TEST(classes_have_names_that_differ)
{
	for (unsigned i = 0; i < TAGTSO_NCLASSES; i++) {
		ck_assert_ptr_nonnull(tagtso_class_name(i));
		for (unsigned j = 0; j < i; j++)
			ck_assert_str_ne(tagtso_class_name(i), tagtso_class_name(j));
	}
}
END_TEST

START_TEST(unknown_instructions_are_listed_with_their_text)
{
	const struct tagtso_report_unknown unknown[] = { { 0x4c400000, 17, "ld4 {v0.16b, v1.16b}, [x0]" },
		                                         { 1, UINT64_MAX, NULL } };
	struct tagtso_report_extra what = extra();
	struct document *report;

	what.unknown = unknown;
	what.unknowns = 2;
	report = write_and_read(&what);
	check_schema(report);
	ck_assert_str_eq(get(report, "unknown.0.word"), "4c400000");
	ck_assert_str_eq(get(report, "unknown.0.disassembly"), "ld4 {v0.16b, v1.16b}, [x0]");
	ck_assert_str_eq(get(report, "unknown.0.count"), "17");
	ck_assert_str_eq(get(report, "unknown.1.word"), "00000001");
	ck_assert_str_eq(get(report, "unknown.1.disassembly"), "");
	ck_assert_ptr_null(find(report, "unknown.2"));
}
END_TEST

START_TEST(any_bytes_in_a_name_give_good_json)
{
	struct tagtso_report_extra what = extra();
	char name[512], every[256];

	what.program = "a\"\\\n\t\x01\x7f\xc3\xa9\xf0\x9f\x98\x80/";
	ck_assert_str_eq(get(write_and_read(&what), "program"), "a\"\\\n\t\x01\x7f\xc3\xa9\xf0\x9f\x98\x80/");
	what.program = "\xff|\xc3|\xc0\x80|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82";
	ck_assert_ptr_nonnull(strstr(get(write_and_read(&what), "program"), "\xef\xbf\xbd|\xef\xbf\xbd|\xef\xbf\xbd"));
	for (unsigned i = 0; i < 255; i++)
		every[i] = (char)(i + 1);
	every[255] = '\0';
	for (unsigned shift = 0; shift < 250; shift += 13) {
		snprintf(name, sizeof(name), "%s%.*s", every + shift, (int)shift, every);
		what.program = name;
		write_and_read(&what);
	}
}
END_TEST

START_TEST(reports_longer_than_the_buffer_are_whole)
{
	struct tagtso_report_unknown unknown[100];
	struct tagtso_report_extra what = extra();
	struct document *report;

	for (unsigned i = 0; i < 100; i++)
		unknown[i] = (struct tagtso_report_unknown){
			i, i, "an instruction with a text of some length, so that it fills buffers"
		};
	what.unknown = unknown;
	what.unknowns = 100;
	report = write_and_read(&what);
	check_schema(report);
	ck_assert_str_eq(get(report, "unknown.99.count"), "99");
	ck_assert_str_eq(get(report, "memory.page_table_bytes"), "0");
}
END_TEST

START_TEST(another_parser_reads_it_too)
{
	struct tagtso_report_extra what = extra();
	int status;

	what.program = "\xff\"\\\x02";
	ck_assert_int_eq(tagtso_report_write("report.json", &what), 0);
	status = system("if command -v jq >/dev/null; then jq -e .counters.traps report.json >/dev/null; else python3 "
	                "-m json.tool report.json >/dev/null; fi");
	ck_assert_int_eq(status, 0);
}
END_TEST

/* ---- files ---------------------------------------------------------------------------------------------------- */

START_TEST(percent_sequences_name_the_process_and_the_program)
{
	char path[64];

	ck_assert_int_eq(tagtso_report_path(path, sizeof(path), "/x/%e.%p.json", "zstd", 42), 0);
	ck_assert_str_eq(path, "/x/zstd.42.json");
	ck_assert_int_eq(tagtso_report_path(path, sizeof(path), "%e", "../../etc/x", 1), 0);
	ck_assert_str_eq(path, ".._.._etc_x");
	ck_assert_int_eq(tagtso_report_path(path, sizeof(path), "100%%-%e", NULL, 1), 0);
	ck_assert_str_eq(path, "100%-");
	ck_assert_int_eq(tagtso_report_path(path, sizeof(path), "a%", "x", 1), 0);
	ck_assert_str_eq(path, "a");
	ck_assert_int_eq(tagtso_report_path(path, 8, "12345678", "x", 1), -ENAMETOOLONG);
	ck_assert_int_eq(tagtso_report_path(path, 8, "1%e", "12345678", 1), -ENAMETOOLONG);
}
END_TEST

START_TEST(an_old_report_is_replaced_and_no_other_file_is_left)
{
	struct tagtso_report_extra what = extra();

	ck_assert_int_eq(system("echo old >report.json"), 0);
	write_and_read(&what);
	ck_assert_int_eq(system("test \"$(ls -A)\" = report.json"), 0);
}
END_TEST

START_TEST(a_report_that_cannot_be_written_leaves_the_old_one)
{
	struct tagtso_report_extra what = extra();

	ck_assert_int_eq(tagtso_report_write("no/such/directory", &what), -ENOENT);
	ck_assert_int_eq(mkdir("report.d", 0777), 0);
	ck_assert_int_eq(tagtso_report_write("report.d", &what), -EISDIR);
	ck_assert_int_eq(tagtso_report_write("/dev/full", &what), -ENOSPC);
	ck_assert_int_eq(tagtso_report_write("", &what), 0);
	ck_assert_int_eq(system("test \"$(ls -A)\" = report.d"), 0);
}
END_TEST

START_TEST(devices_and_links_are_written_through_not_replaced)
{
	struct tagtso_report_extra what = extra();
	struct stat st;

	ck_assert_int_eq(tagtso_report_write("/dev/null", &what), 0);
	ck_assert_int_eq(stat("/dev/null", &st), 0);
	ck_assert(S_ISCHR(st.st_mode));
	ck_assert_int_eq(symlink("target", "link"), 0);
	ck_assert_int_eq(tagtso_report_write("link", &what), 0);
	ck_assert_int_eq(lstat("link", &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
	parse_file("target");
}
END_TEST

START_TEST(a_dash_is_standard_error)
{
	struct tagtso_report_extra what = extra();
	int keep = dup(2), file = open("stderr", O_WRONLY | O_CREAT, 0666), error;

	dup2(file, 2);
	error = tagtso_report_write("-", &what);
	dup2(keep, 2);
	ck_assert_int_eq(error, 0);
	check_schema(parse_file("stderr"));
}
END_TEST

/* ---- the reader ----------------------------------------------------------------------------------------------- */

static void ignore(const char *path, enum tagtso_json kind, const char *text, void *arg)
{
	(void)path;
	(void)kind;
	(void)text;
	(void)arg;
}

START_TEST(the_reader_is_strict)
{
	static const char *const good[] = { "0",           "-1.5e+3", "\"\\ud83d\\ude00\\n\"",
		                            " [ ] ",       "{}",      "[1,{\"a\":[true,false,null]}]",
		                            "\"\xc3\xa9\"" };
	static const char *const bad[] = { "",
		                           "01",
		                           "+1",
		                           "1.",
		                           ".5",
		                           "1e",
		                           "tru",
		                           "[1,]",
		                           "{\"a\":1,}",
		                           "{a:1}",
		                           "[1 2]",
		                           "\"",
		                           "\"\\x\"",
		                           "\"\\ud83d\"",
		                           "\"\\udc00\"",
		                           "\"\n\"",
		                           "\"\xff\"",
		                           "\"\xc0\x80\"",
		                           "\"\xed\xa0\x80\"",
		                           "1 1",
		                           "{",
		                           "[",
		                           "{\"a\"}",
		                           "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]",
		                           "\"\\u12g4\"",
		                           "\"\\u0000\"",
		                           "'a'",
		                           "NaN" };
	size_t where;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(tagtso_json_read(good[i], strlen(good[i]), ignore, NULL, &where), "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!tagtso_json_read(bad[i], strlen(bad[i]), ignore, NULL, &where), "%s", bad[i]);
}
END_TEST

START_TEST(the_reader_takes_no_prefix_of_a_report)
{
	struct tagtso_report_extra what = extra();
	size_t length, where;
	char *text;

	ck_assert_int_eq(tagtso_report_write("report.json", &what), 0);
	text = read_file("report.json", &length);
	for (size_t cut = 0; cut + 1 < length; cut++)
		ck_assert_msg(!tagtso_json_read(text, cut, ignore, NULL, &where), "%zu of %zu bytes", cut, length);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("report");
	TCase *tcase = tcase_create("report");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, enter_directory, leave_directory);
	tcase_add_test(tcase, an_empty_report_is_json_and_fits_the_schema);
	tcase_add_test(tcase, every_counter_is_in_the_report_with_its_value);
	tcase_add_test(tcase, knobs_are_shown_as_they_are_in_force);
	tcase_add_test(tcase, sites_are_counted_by_form_and_by_class);
	tcase_add_test(tcase, classes_have_names_that_differ);
	tcase_add_test(tcase, unknown_instructions_are_listed_with_their_text);
	tcase_add_test(tcase, any_bytes_in_a_name_give_good_json);
	tcase_add_test(tcase, reports_longer_than_the_buffer_are_whole);
	tcase_add_test(tcase, another_parser_reads_it_too);
	tcase_add_test(tcase, percent_sequences_name_the_process_and_the_program);
	tcase_add_test(tcase, an_old_report_is_replaced_and_no_other_file_is_left);
	tcase_add_test(tcase, a_report_that_cannot_be_written_leaves_the_old_one);
	tcase_add_test(tcase, devices_and_links_are_written_through_not_replaced);
	tcase_add_test(tcase, a_dash_is_standard_error);
	tcase_add_test(tcase, the_reader_is_strict);
	tcase_add_test(tcase, the_reader_takes_no_prefix_of_a_report);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
