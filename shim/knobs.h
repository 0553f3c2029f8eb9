/* SPDX-License-Identifier: MIT */
/* Knobs: environment variables TAGTSO_<NAME>, from the table in knobs.def. */
#ifndef TAGTSO_SHIM_KNOBS_H
#define TAGTSO_SHIM_KNOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TAGTSO_MODE_AUTO, TAGTSO_MODE_ENFORCE, TAGTSO_MODE_RELAX, TAGTSO_MODE_OBSERVE, TAGTSO_MODE_OFF };
enum { TAGTSO_EMULATOR_AUTO, TAGTSO_EMULATOR_BOX64, TAGTSO_EMULATOR_QEMU_USER, TAGTSO_EMULATOR_GENERIC };
enum { TAGTSO_OWNER_THREAD, TAGTSO_OWNER_CPU };
enum { TAGTSO_NATIVE_ALIAS, TAGTSO_NATIVE_SHARE };

/* ENUM fields hold the index of the choice. Written once at start-up, before any other thread exists. */
struct tagtso_knobs {
#define ENUM(field, name, def, choices, text) unsigned field;
#define UINT(field, name, def, min, max, unit, text) uint32_t field;
#define TEXT(field, name, def, form, text) const char *field;
#include "knobs.def"
#undef ENUM
#undef UINT
#undef TEXT
};
__attribute__((visibility("hidden"))) extern struct tagtso_knobs tagtso_knobs;

/* One row of knobs.def, for what prints or documents knobs. */
struct tagtso_knob {
	const char *name; /* without TAGTSO_ */
	enum { TAGTSO_KNOB_ENUM, TAGTSO_KNOB_UINT, TAGTSO_KNOB_TEXT } kind;
	const char *initial; /* default, as one would write it */
	const char *values;  /* ENUM: "choice,choice"; TEXT: form; UINT: the unit */
	uint32_t min, max;   /* UINT */
	const char *text;
	size_t offset; /* of the field in struct tagtso_knobs */
};
extern const struct tagtso_knob tagtso_knob_table[];
extern const size_t tagtso_knob_count;

/* What *knobs says for a row, as one would write it; buffer serves numbers. */
const char *tagtso_knob_value(const struct tagtso_knobs *knobs, const struct tagtso_knob *knob, char *buffer,
                              size_t size);

/* Receives one line, without prefix or newline, for each bad or unknown knob. */
typedef void tagtso_knobs_complain(const char *line, void *arg);

/* Sets *knobs to the defaults, then to what the environment (NULL-terminated "NAME=value" list) says; a bad value keeps the default and is
 * complained about, and so is every unknown TAGTSO_* name except those that
 * the project's scripts use (TAGTSO_CACHE, TAGTSO_LIB, TAGTSO_TESTS, TAGTSO_TREE, TAGTSO_TEST_*). Returns the number of complaints. The environment's strings are kept, not copied. */
unsigned tagtso_knobs_parse(struct tagtso_knobs *knobs, char *const *environment, tagtso_knobs_complain *complain,
                            void *arg);

#endif
