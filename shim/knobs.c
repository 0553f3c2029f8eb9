/* SPDX-License-Identifier: MIT */
/* Parses knobs. No allocation and no libc state: it runs before the process's own start-up code. */
#include "knobs.h"

#include <string.h>

#include "say.h"

struct tagtso_knobs tagtso_knobs;

#define PREFIX "TAGTSO_"
enum { PREFIX_LENGTH = sizeof(PREFIX) - 1, LINE = 400, SHOWN = 64 };

/* Why a TEXT knob's value is bad, or NULL. */
typedef const char *check_text(const char *value);

static const char *check_backing(const char *value)
{
	if (!strcmp(value, "memfd") || (!strncmp(value, "tmpfs:/", 7) && value[7]))
		return NULL;
	return "give memfd, or tmpfs: and an absolute path";
}

static const char *check_stats(const char *value)
{
	for (; *value; value++) {
		if (*value != '%')
			continue;
		value++;
		if (*value != 'p' && *value != 'e' && *value != '%')
			return "only %p, %e and %% are known";
	}
	return NULL;
}

#define STRING(x) STRING_(x)
#define STRING_(x) #x
const struct tagtso_knob tagtso_knob_table[] = {
#define ENUM(field, name, def, choices, text) \
	{ name, TAGTSO_KNOB_ENUM, def, choices, 0, 0, text, offsetof(struct tagtso_knobs, field) },
#define UINT(field, name, def, min, max, unit, text) \
	{ name, TAGTSO_KNOB_UINT, STRING(def), unit, min, max, text, offsetof(struct tagtso_knobs, field) },
#define TEXT(field, name, def, form, text) \
	{ name, TAGTSO_KNOB_TEXT, def, form, 0, 0, text, offsetof(struct tagtso_knobs, field) },
#include "knobs.def"
#undef ENUM
#undef UINT
#undef TEXT
};
enum { COUNT = sizeof(tagtso_knob_table) / sizeof(tagtso_knob_table[0]) };
const size_t tagtso_knob_count = COUNT;
_Static_assert(COUNT <= 64, "the parser keeps what it has seen in one word");

/* One per row; NULL where the row is no TEXT. A TEXT knob without its check does not build. */
static check_text *const checks[COUNT] = {
#define ENUM(field, name, def, choices, text) NULL,
#define UINT(field, name, def, min, max, unit, text) NULL,
#define TEXT(field, name, def, form, text) check_##field,
#include "knobs.def"
#undef ENUM
#undef UINT
#undef TEXT
};

/* ---- values --------------------------------------------------------------------------------------------------- */

static void *field_of(struct tagtso_knobs *knobs, const struct tagtso_knob *knob)
{
	return (char *)knobs + knob->offset;
}

/* The index of value in "choice,choice", or -1. */
static int find_choice(const char *choices, const char *value)
{
	size_t length = strlen(value);

	for (int index = 0;; index++) {
		const char *end = strchrnul(choices, ',');

		if ((size_t)(end - choices) == length && !memcmp(choices, value, length))
			return index;
		if (!*end)
			return -1;
		choices = end + 1;
	}
}

enum number { NUMBER_OK, NUMBER_NOT, NUMBER_RANGE };

static enum number parse_number(const char *value, uint32_t min, uint32_t max, uint32_t *result)
{
	uint64_t number = 0;
	bool high = false;

	if (!*value)
		return NUMBER_NOT;
	for (; *value; value++) {
		if (*value < '0' || *value > '9')
			return NUMBER_NOT;
		number = number * 10 + (uint64_t)(*value - '0');
		if (number > UINT32_MAX) {
			high = true;
			number = UINT32_MAX;
		}
	}
	if (high || number < min || number > max)
		return NUMBER_RANGE;
	*result = (uint32_t)number;
	return NUMBER_OK;
}

const char *tagtso_knob_value(const struct tagtso_knobs *knobs, const struct tagtso_knob *knob, char *buffer,
                              size_t size)
{
	const void *field = (const char *)knobs + knob->offset;
	const char *choice = knob->values;
	size_t length;

	if (knob->kind == TAGTSO_KNOB_TEXT)
		return *(const char *const *)field;
	if (knob->kind == TAGTSO_KNOB_UINT) {
		tagtso_format(buffer, size, "%u", *(const uint32_t *)field);
		return buffer;
	}
	for (unsigned skip = *(const unsigned *)field; skip; skip--)
		choice = strchr(choice, ',') + 1;
	length = (size_t)(strchrnul(choice, ',') - choice);
	if (length > size - 1)
		length = size - 1;
	memcpy(buffer, choice, length);
	buffer[length] = '\0';
	return buffer;
}

/* ---- complaints ----------------------------------------------------------------------------------------------- */

struct complaints {
	tagtso_knobs_complain *complain;
	void *arg;
	unsigned count;
};

__attribute__((format(printf, 2, 3))) static void complain(struct complaints *to, const char *format, ...)
{
	char line[LINE];
	va_list arguments;

	va_start(arguments, format);
	tagtso_vformat(line, sizeof(line), format, arguments);
	va_end(arguments);
	to->count++;
	if (to->complain)
		to->complain(line, to->arg);
}

/* A value as it may be shown in one line on a terminal: printable and not too long. */
static const char *shown(const char *value, size_t length, char buffer[SHOWN])
{
	size_t n = 0;

	for (; n < length && n < SHOWN - 4; n++)
		buffer[n] = (char)(value[n] >= ' ' && value[n] <= '~' ? value[n] : '?');
	if (n < length) {
		memcpy(buffer + n, "...", 3);
		n += 3;
	}
	buffer[n] = '\0';
	return buffer;
}

/* "auto,relax" -> "auto, relax" */
static const char *spaced(const char *choices, char *buffer, size_t size)
{
	size_t n = 0;

	for (; *choices && n < size - 2; choices++) {
		buffer[n++] = *choices;
		if (*choices == ',')
			buffer[n++] = ' ';
	}
	buffer[n] = '\0';
	return buffer;
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Edits (insert, delete, replace) between two names; names longer than any knob are as far as can be. */
static unsigned distance(const char *a, size_t a_length, const char *b)
{
	enum { MOST = 24 };
	unsigned row[MOST + 1], diagonal, above;
	size_t b_length = strlen(b);

	if (a_length > MOST || b_length > MOST)
		return MOST;
	for (unsigned j = 0; j <= b_length; j++)
		row[j] = j;
	for (unsigned i = 0; i < a_length; i++) {
		diagonal = row[0];
		row[0] = i + 1;
		for (unsigned j = 0; j < b_length; j++) {
			above = row[j + 1];
			row[j + 1] = least(diagonal + (a[i] != b[j]), 1 + least(above, row[j]));
			diagonal = above;
		}
	}
	return row[b_length];
}

static void complain_unknown(struct complaints *to, const char *name, size_t length)
{
	const struct tagtso_knob *nearest = NULL;
	unsigned best = 3; /* further away is no typing error */
	char text[SHOWN];

	for (size_t i = 0; i < COUNT; i++) {
		unsigned d = distance(name, length, tagtso_knob_table[i].name);

		if (d < best && d < length) {
			best = d;
			nearest = &tagtso_knob_table[i];
		}
	}
	shown(name, length, text);
	if (nearest)
		complain(to, PREFIX "%s: no such knob: did you mean " PREFIX "%s? ('tagtso knobs' lists them)", text,
		         nearest->name);
	else
		complain(to, PREFIX "%s: no such knob ('tagtso knobs' lists them)", text);
}

/* ---- the environment ------------------------------------------------------------------------------------------ */

static void set_enum(struct complaints *to, struct tagtso_knobs *knobs, const struct tagtso_knob *knob,
                     const char *value)
{
	int choice = find_choice(knob->values, value);
	char text[SHOWN], choices[SHOWN * 2];

	if (choice >= 0)
		*(unsigned *)field_of(knobs, knob) = (unsigned)choice;
	else
		complain(to, PREFIX "%s: '%s' is not a choice: give one of %s", knob->name,
		         shown(value, strlen(value), text), spaced(knob->values, choices, sizeof(choices)));
}

static void set_uint(struct complaints *to, struct tagtso_knobs *knobs, const struct tagtso_knob *knob,
                     const char *value)
{
	enum number number = parse_number(value, knob->min, knob->max, field_of(knobs, knob));
	char text[SHOWN];

	if (number != NUMBER_OK)
		complain(to, PREFIX "%s: '%s' is %s: give %u to %u %s", knob->name, shown(value, strlen(value), text),
		         number == NUMBER_NOT ? "not a number" : "out of range", knob->min, knob->max, knob->values);
}

static void set_text(struct complaints *to, struct tagtso_knobs *knobs, const struct tagtso_knob *knob,
                     const char *value)
{
	const char *why = checks[knob - tagtso_knob_table](value);
	char text[SHOWN];

	if (!*value)
		return; /* empty is the default */
	if (!why)
		*(const char **)field_of(knobs, knob) = value;
	else
		complain(to, PREFIX "%s: '%s' cannot be used: %s", knob->name, shown(value, strlen(value), text), why);
}

static void set(struct complaints *to, struct tagtso_knobs *knobs, const struct tagtso_knob *knob, const char *value)
{
	switch (knob->kind) {
	case TAGTSO_KNOB_ENUM:
		set_enum(to, knobs, knob, value);
		break;
	case TAGTSO_KNOB_UINT:
		set_uint(to, knobs, knob, value);
		break;
	case TAGTSO_KNOB_TEXT:
		set_text(to, knobs, knob, value);
		break;
	}
}

static void set_defaults(struct tagtso_knobs *knobs)
{
	for (size_t i = 0; i < COUNT; i++) {
		const struct tagtso_knob *knob = &tagtso_knob_table[i];

		switch (knob->kind) {
		case TAGTSO_KNOB_ENUM:
			*(unsigned *)field_of(knobs, knob) = (unsigned)find_choice(knob->values, knob->initial);
			break;
		case TAGTSO_KNOB_UINT:
			parse_number(knob->initial, knob->min, knob->max, field_of(knobs, knob));
			break;
		case TAGTSO_KNOB_TEXT:
			*(const char **)field_of(knobs, knob) = knob->initial;
			break;
		}
	}
}

static const struct tagtso_knob *find_knob(const char *name, size_t length)
{
	for (size_t i = 0; i < COUNT; i++)
		if (strlen(tagtso_knob_table[i].name) == length && !memcmp(tagtso_knob_table[i].name, name, length))
			return &tagtso_knob_table[i];
	return NULL;
}

/* Names that the project's own scripts put into the environment. */
static bool is_reserved(const char *name, size_t length)
{
	static const char *const names[] = { "CACHE", "LIB", "TESTS", "TREE" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == length && !memcmp(names[i], name, length))
			return true;
	return length >= 5 && !memcmp(name, "TEST_", 5);
}

unsigned tagtso_knobs_parse(struct tagtso_knobs *knobs, char *const *environment, tagtso_knobs_complain *complain_fn,
                            void *arg)
{
	struct complaints to = { complain_fn, arg, 0 };
	uint64_t seen = 0; /* a name that comes twice: the first one counts, as for getenv */

	set_defaults(knobs);
	for (; environment && *environment; environment++) {
		const char *name = *environment + PREFIX_LENGTH, *equals;
		const struct tagtso_knob *knob;

		if (strncmp(*environment, PREFIX, PREFIX_LENGTH) || !(equals = strchr(name, '=')))
			continue;
		knob = find_knob(name, (size_t)(equals - name));
		if (!knob && !is_reserved(name, (size_t)(equals - name)))
			complain_unknown(&to, name, (size_t)(equals - name));
		if (!knob || seen & 1ull << (knob - tagtso_knob_table))
			continue;
		seen |= 1ull << (knob - tagtso_knob_table);
		set(&to, knobs, knob, equals + 1);
	}
	return to.count;
}
