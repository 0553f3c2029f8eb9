/* SPDX-License-Identifier: MIT */
/* Feeds reports to what `tagtso report` reads them with. A libFuzzer target, or a program: inputs.h. */
#include "inputs.h"

#include "shim/json.h"
#include "shim/tagtso.h"

#ifndef TAGTSO_FUZZER
static const char *const pieces[] = {
	"{",
	"}",
	"[",
	"]",
	",",
	":",
	"\"",
	"\\",
	"\\u0041",
	"\\ud83d\\ude00",
	"1",
	"-0.5e+3",
	"true",
	"null",
	" ",
	"\n",
	"\"schema\"",
	": 1",
	"\"traps\"",
	"\"counters\": {",
	"\t",
	"\xc3",
	"\"word\"",
	"sites.",
	"[[",
	"{\"a\":",
	"\"unknown\": [",
	"\"count\"",
	"\"\"",
	"\"disassembly\"",
};
static const size_t piece_count = sizeof(pieces) / sizeof(pieces[0]);
#endif

static void hold(bool condition, const char *what)
{
	if (condition)
		return;
	dprintf(2, "fuzz_report: broken: %s\n", what);
	abort();
}

/* What one reading has said, as a sum. */
struct seen {
	unsigned values;
	uint64_t sum;
};

static void visit(const char *path, enum tagtso_json kind, const char *text, void *arg)
{
	struct seen *seen = arg;

	hold(kind <= TAGTSO_JSON_ARRAY && strlen(path) < 1024 && strlen(text) < 1024, "values are within the limits");
	hold(seen->values || !*path, "the whole comes first");
	seen->values++;
	for (; *path; path++)
		seen->sum = seen->sum * 31 + (unsigned char)*path;
	for (; *text; text++)
		seen->sum = seen->sum * 31 + (unsigned char)*text;
}

static void check(const char *text, size_t size)
{
	struct seen first = { 0 }, second = { 0 };
	size_t where = 0, again = 0;
	bool valid = tagtso_json_read(text, size, visit, &first, &where);

	hold(valid == tagtso_json_read(text, size, visit, &second, &again), "the same again");
	hold(first.values == second.values && first.sum == second.sum, "the same values again");
	hold(valid ? first.values > 0 : where <= size && where == again, "an error is within the text");
}

/* The command's own function reads a file of which it has the name: "-" is standard input. What it prints goes nowhere. */
static void show(const uint8_t *data, size_t size)
{
	static FILE *nowhere;
	FILE *keep[] = { stdin, stdout, stderr };

	if (!nowhere)
		nowhere = fopen("/dev/null", "w");
	stdin = fmemopen((void *)(uintptr_t)data, size, "r");
	if (nowhere && stdin) {
		stdout = stderr = nowhere;
		tagtso_show_report("-");
		fclose(stdin);
	}
	stdin = keep[0];
	stdout = keep[1];
	stderr = keep[2];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size ? size : 1); /* of its own size: reading past it is noticed */

	if (!text)
		return 0;
	memcpy(text, data, size);
	check(text, size);
	free(text);
	if (size)
		show(data, size);
	return 0;
}
