/* SPDX-License-Identifier: MIT */
/* What `tagtso knobs` and `tagtso report` print. */
#include "tagtso.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "knobs.h"
#include "report.h"

/* ---- knobs ---------------------------------------------------------------------------------------------------- */

/* The values that a knob takes, for people: "auto, relax" or "0 to 255 times". */
static const char *values_of(const struct tagtso_knob *knob, char *buffer, size_t size)
{
	size_t n = 0;

	if (knob->kind == TAGTSO_KNOB_UINT) {
		snprintf(buffer, size, "%u to %u %s", knob->min, knob->max, knob->values);
		return buffer;
	}
	for (const char *c = knob->values; *c && n < size - 2; c++) {
		buffer[n++] = *c;
		if (*c == ',')
			buffer[n++] = ' ';
	}
	buffer[n] = '\0';
	return buffer;
}

static void show_knob(const struct tagtso_knobs *now, const struct tagtso_knob *knob)
{
	char values[128], number[32];
	const char *value = tagtso_knob_value(now, knob, number, sizeof(number));
	bool set = strcmp(value, knob->initial) != 0;

	printf("TAGTSO_%-10s %-8s %s%s%s\n", knob->name, *knob->initial ? knob->initial : "(none)",
	       values_of(knob, values, sizeof(values)), set ? "; now " : "", set ? value : "");
	printf("%26s %s\n", "", knob->text);
}

/* JSON strings of the table hold nothing that needs an escape but these two. */
static void put_json(const char *key, const char *text, const char *end)
{
	printf("\"%s\": \"", key);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	printf("\"%s", end);
}

static void show_knob_json(const struct tagtso_knob *knob)
{
	static const char *const kinds[] = {
		[TAGTSO_KNOB_ENUM] = "enum", [TAGTSO_KNOB_UINT] = "uint", [TAGTSO_KNOB_TEXT] = "text"
	};

	printf("\t{ \"name\": \"TAGTSO_%s\", ", knob->name);
	put_json("kind", kinds[knob->kind], ", ");
	if (knob->kind == TAGTSO_KNOB_UINT) {
		printf("\"default\": %s, \"min\": %u, \"max\": %u, ", knob->initial, knob->min, knob->max);
		put_json("unit", knob->values, ", ");
	} else {
		put_json("default", knob->initial, ", ");
		put_json(knob->kind == TAGTSO_KNOB_ENUM ? "choices" : "form", knob->values, ", ");
	}
	put_json("text", knob->text, " }");
}

void tagtso_show_knobs(bool json)
{
	struct tagtso_knobs now;

	tagtso_knobs_parse(&now, environ, NULL, NULL);
	if (json)
		printf("[\n");
	else
		printf("%-17s %-8s %s\n", "knob", "default", "values");
	for (size_t i = 0; i < tagtso_knob_count; i++) {
		if (!json) {
			show_knob(&now, &tagtso_knob_table[i]);
			continue;
		}
		show_knob_json(&tagtso_knob_table[i]);
		printf("%s\n", i + 1 < tagtso_knob_count ? "," : "");
	}
	if (json)
		printf("]\n");
}

/* ---- reports -------------------------------------------------------------------------------------------------- */

static const struct counter {
	const char *name, *unit, *text;
} counters[] = {
#define STAT(name, unit, text) { #name, unit, text },
#include "stats.def"
#undef STAT
};

static const struct counter *find_counter(const char *name)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		if (!strcmp(counters[i].name, name))
			return &counters[i];
	return NULL;
}

struct view {
	bool print;      /* second pass: the whole file is known to be good */
	unsigned schema; /* 0: none seen */
	char word[32];   /* of the unknown instruction being read */
	char text[128];
};

/* What stands after "prefix." in path, or NULL. */
static const char *under(const char *path, const char *prefix)
{
	size_t length = strlen(prefix);

	return !strncmp(path, prefix, length) && path[length] == '.' ? path + length + 1 : NULL;
}

/* 10581 -> "10,581" */
static const char *grouped(const char *number, char *buffer, size_t size)
{
	size_t length = strlen(number), n = 0;

	if (length * 2 > size)
		return number;
	for (size_t i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			buffer[n++] = ',';
		buffer[n++] = number[i];
	}
	buffer[n] = '\0';
	return buffer;
}

static void print_counter(const char *name, const char *value)
{
	const struct counter *counter = find_counter(name);
	char number[64];

	printf("%18s  %-20s %-12s  %s\n", grouped(value, number, sizeof(number)), name, counter ? counter->unit : "",
	       counter ? counter->text : "not known to this version of the command");
}

static void print_unknown(struct view *view, const char *path, const char *text)
{
	const char *field = strrchr(path, '.') + 1;

	if (!strcmp(field, "word"))
		snprintf(view->word, sizeof(view->word), "%s", text);
	else if (!strcmp(field, "disassembly"))
		snprintf(view->text, sizeof(view->text), "%s", text);
	else if (!strcmp(field, "count"))
		printf("%18s  unknown instruction %s  %s\n", text, view->word, view->text);
}

static void print_scalar(const char *path, enum tagtso_json kind, const char *text, void *arg)
{
	struct view *view = arg;
	const char *name;
	char number[64];

	if (!strcmp(path, "schema"))
		view->schema = (unsigned)strtoul(text, NULL, 10);
	if (!view->print || kind == TAGTSO_JSON_OBJECT || kind == TAGTSO_JSON_ARRAY)
		return;
	if ((name = under(path, "counters")))
		print_counter(name, text);
	else if (under(path, "unknown"))
		print_unknown(view, path, text);
	else if ((name = under(path, "sites")) || (name = under(path, "memory")))
		printf("%18s  %s\n", grouped(text, number, sizeof(number)), path);
	else if ((name = under(path, "knobs")))
		printf("knob %s: %s\n", name, text);
	else if (*text && strcmp(path, "schema"))
		printf("%s: %s\n", path, text);
}

static char *read_all(FILE *file, size_t *length)
{
	size_t room = 1 << 16;
	char *text = malloc(room);

	for (*length = 0; text; room *= 2, text = realloc(text, room)) {
		*length += fread(text + *length, 1, room - *length, file);
		if (*length < room)
			break;
	}
	return text;
}

static int show_text(const char *file, const char *text, size_t length)
{
	struct view view = { 0 };
	size_t where;

	if (!tagtso_json_read(text, length, print_scalar, &view, &where)) {
		fprintf(stderr, "tagtso: %s: byte %zu: not JSON: give a file that TAGTSO_STATS named\n", file, where);
		return TAGTSO_EXIT_FAILED;
	}
	if (view.schema != TAGTSO_REPORT_SCHEMA) {
		fprintf(stderr, "tagtso: %s: schema %u: this command reads schema %d\n", file, view.schema,
		        TAGTSO_REPORT_SCHEMA);
		return TAGTSO_EXIT_FAILED;
	}
	view.print = true;
	tagtso_json_read(text, length, print_scalar, &view, &where);
	return 0;
}

int tagtso_show_report(const char *file)
{
	FILE *from = strcmp(file, "-") ? fopen(file, "re") : stdin;
	size_t length = 0;
	char *text = from ? read_all(from, &length) : NULL;
	int status = TAGTSO_EXIT_FAILED;

	if (!text || ferror(from))
		fprintf(stderr, "tagtso: %s: cannot be read: %s\n", file, strerror(errno));
	else
		status = show_text(file, text, length);
	free(text);
	if (from && from != stdin)
		fclose(from);
	return status;
}
