/* SPDX-License-Identifier: MIT */
/* Feeds environments to the parser of the knobs and checks that what it makes of them is within the table's bounds. A libFuzzer target, or a program: inputs.h. */
#include "inputs.h"

#include <stdarg.h>

#include "shim/knobs.h"

#ifndef TAGTSO_FUZZER
static const char *const pieces[] = {
	"TAGTSO_", "MODE",        "=",        "enforce", "\n",      "TAGTSO_THRESHOLD=",
	"0",       "99999999999", "WINDOW",   "BACKING", "tmpfs:/", "STATS",
	"%p",      "%",           "STRICT=1", "TEST_",   "LIB",     "=\n",
	"EMUL",    "TAGTSO_X=",   "box64",    ",",       "STRETCH", "256",
	"257",     "-",           "\n\n",
};
static const size_t piece_count = sizeof(pieces) / sizeof(pieces[0]);
#endif

enum { ENTRIES = 64, LINE = 400 };

static void hold(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "fuzz_knobs: broken: %s\n", what);
	abort();
}

static void complain(const char *line, void *arg)
{
	hold(strlen(line) < LINE && !strchr(line, '\n'), "a complaint is one line");
	++*(unsigned *)arg;
}

static bool is_choice(const char *choices, const char *value)
{
	const char *at = strstr(choices, value);

	return at && (at == choices || at[-1] == ',') && strchr(",", at[strlen(value)]);
}

static void check(const struct tagtso_knobs *knobs, const struct tagtso_knob *knob)
{
	char buffer[32];
	const char *value = tagtso_knob_value(knobs, knob, buffer, sizeof(buffer));

	hold(value, "each knob has a value");
	if (knob->kind == TAGTSO_KNOB_ENUM)
		hold(is_choice(knob->values, value), "a choice is one of those there are");
	if (knob->kind == TAGTSO_KNOB_UINT)
		hold(strtoull(value, NULL, 10) >= knob->min && strtoull(value, NULL, 10) <= knob->max,
		     "a number is within its bounds");
}

/* One entry of the environment per line. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *environment[ENTRIES + 1], *line = text;
	unsigned count = 0, complaints = 0;
	struct tagtso_knobs knobs;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	while (line && count < ENTRIES) {
		environment[count++] = line;
		line = strchr(line, '\n');
		if (line)
			*line++ = '\0';
	}
	environment[count] = NULL;
	memset(&knobs, 0x55, sizeof(knobs));
	hold(tagtso_knobs_parse(&knobs, environment, complain, &complaints) == complaints, "complaints are counted");
	for (size_t i = 0; i < tagtso_knob_count; i++)
		check(&knobs, &tagtso_knob_table[i]);
	free(text);
	return 0;
}
