/* SPDX-License-Identifier: MIT */
/* Reads JSON strictly (RFC 8259), for the `tagtso` command and the tests; not part of the preload. */
#include "json.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { DEEPEST = 16, LONGEST = 1024 };

struct reader {
	const char *at, *end;
	tagtso_json_visit *visit;
	void *arg;
	unsigned depth;
	size_t path_length;
	char path[LONGEST];
	char text[LONGEST];
};

static bool read_value(struct reader *r);

static void skip_space(struct reader *r)
{
	while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
		r->at++;
}

static bool take(struct reader *r, char c)
{
	if (r->at == r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

static bool is_digit(const struct reader *r)
{
	return r->at < r->end && *r->at >= '0' && *r->at <= '9';
}

/* ---- strings -------------------------------------------------------------------------------------------------- */

static bool add(char *text, size_t *n, unsigned char byte)
{
	if (*n + 1 >= LONGEST || !byte)
		return false;
	text[(*n)++] = (char)byte;
	return true;
}

static bool add_code(char *text, size_t *n, uint32_t code)
{
	if (code < 0x80)
		return add(text, n, (unsigned char)code);
	if (code < 0x800)
		return add(text, n, (unsigned char)(0xc0 | code >> 6)) && add(text, n, 0x80 | (code & 0x3f));
	if (code < 0x10000)
		return add(text, n, (unsigned char)(0xe0 | code >> 12)) && add(text, n, 0x80 | (code >> 6 & 0x3f)) &&
		       add(text, n, 0x80 | (code & 0x3f));
	return add(text, n, (unsigned char)(0xf0 | code >> 18)) && add(text, n, 0x80 | (code >> 12 & 0x3f)) &&
	       add(text, n, 0x80 | (code >> 6 & 0x3f)) && add(text, n, 0x80 | (code & 0x3f));
}

static bool read_hex(struct reader *r, uint32_t *code)
{
	*code = 0;
	for (int i = 0; i < 4; i++, r->at++) {
		const char *digits = "0123456789abcdef0123456789ABCDEF", *digit;

		if (r->at == r->end || !*r->at || !(digit = strchr(digits, *r->at)))
			return false;
		*code = *code << 4 | (uint32_t)((digit - digits) & 15);
	}
	return true;
}

static bool read_unicode(struct reader *r, size_t *n)
{
	uint32_t code, low;

	if (!read_hex(r, &code))
		return false;
	if (code >= 0xdc00 && code <= 0xdfff)
		return false; /* the second half of a pair, alone */
	if (code >= 0xd800 && code <= 0xdbff) {
		if (!take(r, '\\') || !take(r, 'u') || !read_hex(r, &low) || low < 0xdc00 || low > 0xdfff)
			return false;
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	}
	return add_code(r->text, n, code);
}

static bool read_escape(struct reader *r, size_t *n)
{
	static const char names[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
	const char *name;

	if (take(r, 'u'))
		return read_unicode(r, n);
	if (r->at == r->end || !*r->at || !(name = strchr(names, *r->at)))
		return false;
	r->at++;
	return add(r->text, n, (unsigned char)bytes[name - names]);
}

/* Bytes of a UTF-8 sequence that follow its first one; 0 if no sequence of two or more bytes begins so. */
static unsigned bytes_after(unsigned char first)
{
	if (first >= 0xf0)
		return first < 0xf5 ? 3 : 0;
	if (first >= 0xe0)
		return 2;
	return first >= 0xc2 ? 1 : 0;
}

/* One UTF-8 sequence of two bytes or more, in its shortest form, no surrogate. */
static bool read_utf8(struct reader *r, size_t *n)
{
	unsigned char first = (unsigned char)*r->at;
	unsigned more = bytes_after(first);
	uint32_t code = first & (0x3fu >> more), least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;

	if (!more || (size_t)(r->end - r->at) <= more)
		return false;
	for (unsigned i = 1; i <= more; i++) {
		if (((unsigned char)r->at[i] & 0xc0) != 0x80)
			return false;
		code = code << 6 | ((unsigned char)r->at[i] & 0x3f);
	}
	if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return false;
	r->at += more + 1;
	return add_code(r->text, n, code);
}

/* Into r->text. */
static bool read_string(struct reader *r)
{
	size_t n = 0;

	if (!take(r, '"'))
		return false;
	while (r->at < r->end && *r->at != '"') {
		unsigned char c = (unsigned char)*r->at;
		bool good;

		if (c < ' ')
			return false;
		if (c == '\\') {
			r->at++;
			good = read_escape(r, &n);
		} else if (c < 0x80) {
			r->at++;
			good = add(r->text, &n, c);
		} else {
			good = read_utf8(r, &n);
		}
		if (!good)
			return false;
	}
	r->text[n] = '\0';
	return take(r, '"');
}

/* ---- other values --------------------------------------------------------------------------------------------- */

static bool read_digits(struct reader *r)
{
	if (!is_digit(r))
		return false;
	while (is_digit(r))
		r->at++;
	return true;
}

static bool read_number(struct reader *r)
{
	const char *from = r->at;
	size_t length;

	take(r, '-');
	if (!take(r, '0') && !read_digits(r))
		return false;
	if (take(r, '.') && !read_digits(r))
		return false;
	if (take(r, 'e') || take(r, 'E')) {
		if (!take(r, '+'))
			take(r, '-');
		if (!read_digits(r))
			return false;
	}
	length = (size_t)(r->at - from);
	if (length >= LONGEST)
		return false;
	memcpy(r->text, from, length);
	r->text[length] = '\0';
	return true;
}

static bool read_word(struct reader *r, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(r->end - r->at) < length || memcmp(r->at, word, length))
		return false;
	r->at += length;
	strcpy(r->text, word);
	return true;
}

/* A member of the value at r->path: extends the path for the time of reading it. */
static bool read_member(struct reader *r, const char *name)
{
	size_t keep = r->path_length;
	int n = snprintf(r->path + keep, LONGEST - keep, "%s%s", keep ? "." : "", name);
	bool good;

	if (n < 0 || (size_t)n >= LONGEST - keep)
		return false;
	r->path_length += (size_t)n;
	skip_space(r);
	good = read_value(r);
	r->path_length = keep;
	r->path[keep] = '\0';
	skip_space(r);
	return good;
}

static bool read_object(struct reader *r)
{
	char name[LONGEST];

	r->at++;
	skip_space(r);
	if (take(r, '}'))
		return true;
	do {
		skip_space(r);
		if (!read_string(r))
			return false;
		strcpy(name, r->text);
		skip_space(r);
		if (!take(r, ':') || !read_member(r, name))
			return false;
	} while (take(r, ','));
	return take(r, '}');
}

static bool read_array(struct reader *r)
{
	char index[24];

	r->at++;
	skip_space(r);
	if (take(r, ']'))
		return true;
	for (unsigned i = 0; !i || take(r, ','); i++) {
		snprintf(index, sizeof(index), "%u", i);
		if (!read_member(r, index))
			return false;
	}
	return take(r, ']');
}

static bool read_nested(struct reader *r)
{
	bool object = *r->at == '{', good;

	if (r->depth == DEEPEST)
		return false;
	r->visit(r->path, object ? TAGTSO_JSON_OBJECT : TAGTSO_JSON_ARRAY, "", r->arg);
	r->depth++;
	good = object ? read_object(r) : read_array(r);
	r->depth--;
	return good;
}

static bool read_value(struct reader *r)
{
	enum tagtso_json kind;
	bool good;

	if (r->at == r->end)
		return false;
	if (*r->at == '{' || *r->at == '[')
		return read_nested(r);
	if (*r->at == '"') {
		kind = TAGTSO_JSON_STRING;
		good = read_string(r);
	} else if (*r->at == '-' || is_digit(r)) {
		kind = TAGTSO_JSON_NUMBER;
		good = read_number(r);
	} else {
		kind = TAGTSO_JSON_WORD;
		good = read_word(r, "true") || read_word(r, "false") || read_word(r, "null");
	}
	if (good)
		r->visit(r->path, kind, r->text, r->arg);
	return good;
}

bool tagtso_json_read(const char *text, size_t length, tagtso_json_visit *visit, void *arg, size_t *where)
{
	struct reader r = { .at = text, .end = text + length, .visit = visit, .arg = arg };
	bool good;

	skip_space(&r);
	good = read_value(&r);
	skip_space(&r);
	*where = (size_t)(r.at - text);
	return good && r.at == r.end;
}
