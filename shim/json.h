/* SPDX-License-Identifier: MIT */
/* Reads JSON strictly (RFC 8259), for the `tagtso` command and the tests; not part of the preload. */
#ifndef TAGTSO_SHIM_JSON_H
#define TAGTSO_SHIM_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum tagtso_json { TAGTSO_JSON_STRING, TAGTSO_JSON_NUMBER, TAGTSO_JSON_WORD, TAGTSO_JSON_OBJECT, TAGTSO_JSON_ARRAY };

/* Called for each value, outer ones first. path: "counters.traps", "unknown.0.word", "" for the whole; text: the string's bytes in UTF-8, the
 * number or word (true, false, null) as written, "" for objects and arrays. */
typedef void tagtso_json_visit(const char *path, enum tagtso_json kind, const char *text, void *arg);

/* True if text[0..length) is one JSON value. Else *where is the offset of the first byte that does not fit.
 * Limits: 16 levels, paths and strings of 1023 bytes, no NUL in strings. */
bool tagtso_json_read(const char *text, size_t length, tagtso_json_visit *visit, void *arg, size_t *where);

#endif
