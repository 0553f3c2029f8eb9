/* SPDX-License-Identifier: MIT */
/* Writes the JSON report, through a small buffer and raw system calls: it runs at the end of somebody else's process. */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "interp/decode.h"
#include "interp/site.h"
#include "raw.h"
#include "say.h"
#include "stats.h"

enum { BUFFER = 4096, NUMBER = 24, DEEPEST = 4 };

struct writer {
	int fd;
	int error; /* first failure, -errno; nothing is written after it */
	size_t used;
	unsigned depth;
	bool filled[DEEPEST + 1]; /* by depth: something was written at this level */
	char buffer[BUFFER];
};

/* ---- bytes ---------------------------------------------------------------------------------------------------- */

static void flush(struct writer *w)
{
	for (size_t done = 0; done < w->used && !w->error;) {
		long n = tagtso_raw(SYS_write, w->fd, (long)(w->buffer + done), (long)(w->used - done), 0, 0, 0);

		if (n > 0)
			done += (size_t)n;
		else if (n != -EINTR)
			w->error = n ? (int)n : -EIO;
	}
	w->used = 0;
}

static void put(struct writer *w, char c)
{
	if (w->used == BUFFER)
		flush(w);
	w->buffer[w->used++] = c;
}

static void put_text(struct writer *w, const char *text)
{
	while (*text)
		put(w, *text++);
}

/* Bytes of the well-formed UTF-8 sequence at s (Unicode, table 3-7), 0 if it is none. */
static unsigned utf8(const unsigned char *s)
{
	unsigned char low = 0x80, high = 0xbf;
	unsigned length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (length < 2)
		return length;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (unsigned i = 2; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

/* Names and environment strings are bytes; JSON is Unicode: what is no UTF-8 becomes U+FFFD. */
static void put_string(struct writer *w, const char *string)
{
	const unsigned char *s = (const unsigned char *)(string ? string : "");
	char escape[8];

	put(w, '"');
	while (*s) {
		unsigned length = utf8(s);

		if (*s == '"' || *s == '\\') {
			put(w, '\\');
			put(w, (char)*s++);
		} else if (*s < ' ' || *s == 0x7f) {
			tagtso_format(escape, sizeof(escape), "\\u%04x", *s++);
			put_text(w, escape);
		} else if (!length) {
			put_text(w, "\\ufffd");
			s++;
		} else {
			while (length--)
				put(w, (char)*s++);
		}
	}
	put(w, '"');
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

static void next(struct writer *w)
{
	if (w->filled[w->depth])
		put(w, ',');
	w->filled[w->depth] = true;
	put(w, '\n');
	for (unsigned i = 0; i < w->depth; i++)
		put(w, '\t');
}

static void key(struct writer *w, const char *name)
{
	next(w);
	put_string(w, name);
	put_text(w, ": ");
}

static void open_level(struct writer *w, char bracket)
{
	put(w, bracket);
	TAGTSO_ASSERT(w->depth < DEEPEST);
	w->filled[++w->depth] = false;
}

static void close_level(struct writer *w, char bracket)
{
	bool filled = w->filled[w->depth--];

	if (filled) {
		put(w, '\n');
		for (unsigned i = 0; i < w->depth; i++)
			put(w, '\t');
	}
	put(w, bracket);
}

static void number(struct writer *w, const char *name, uint64_t value)
{
	char digits[NUMBER];

	key(w, name);
	tagtso_format(digits, sizeof(digits), "%lu", (unsigned long)value);
	put_text(w, digits);
}

static void string(struct writer *w, const char *name, const char *value)
{
	key(w, name);
	put_string(w, value);
}

/* ---- content -------------------------------------------------------------------------------------------------- */

static void write_knobs(struct writer *w, const struct tagtso_knobs *knobs)
{
	char name[32], digits[NUMBER];

	key(w, "knobs");
	open_level(w, '{');
	for (const struct tagtso_knob *knob = tagtso_knob_table; knob < tagtso_knob_table + tagtso_knob_count; knob++) {
		const char *value = tagtso_knob_value(knobs, knob, digits, sizeof(digits));
		size_t i;

		for (i = 0; knob->name[i] && i < sizeof(name) - 1; i++)
			name[i] = (char)(knob->name[i] >= 'A' && knob->name[i] <= 'Z' ? knob->name[i] - 'A' + 'a'
			                                                              : knob->name[i]);
		name[i] = '\0';
		key(w, name);
		if (knob->kind == TAGTSO_KNOB_UINT)
			put_text(w, value);
		else
			put_string(w, value);
	}
	close_level(w, '}');
}

static void write_counters(struct writer *w)
{
	key(w, "counters");
	open_level(w, '{');
#define STAT(name, unit, text) number(w, #name, TAGTSO_STAT(name));
#include "stats.def"
#undef STAT
	close_level(w, '}');
}

struct census {
	uint64_t by_form[TAGTSO_NFORMS], by_class[TAGTSO_NCLASSES], refused;
};

static void take(struct tagtso_site *site, void *arg)
{
	struct census *census = arg;
	unsigned form = atomic_load_explicit(&site->form, memory_order_relaxed);

	census->by_form[form < TAGTSO_NFORMS ? form : TAGTSO_FORM_EMITTED]++;
	census->by_class[site->op.cls < TAGTSO_NCLASSES ? site->op.cls : TAGTSO_UNKNOWN]++;
	census->refused += atomic_load_explicit(&site->refused, memory_order_relaxed) != 0;
}

static void write_sites(struct writer *w)
{
	static const char *const forms[] = { "emitted", "local", "shared", "mixed", "relaxed" };
	struct census census = { 0 };

	_Static_assert(sizeof(forms) / sizeof(forms[0]) == TAGTSO_NFORMS, "every form has a name");
	tagtso_site_each(take, &census);
	key(w, "sites");
	open_level(w, '{');
	number(w, "seen", tagtso_site_count());
	number(w, "refused", census.refused);
	key(w, "by_form");
	open_level(w, '{');
	for (unsigned i = 0; i < TAGTSO_NFORMS; i++)
		number(w, forms[i], census.by_form[i]);
	close_level(w, '}');
	key(w, "by_class");
	open_level(w, '{');
	for (unsigned i = 0; i < TAGTSO_NCLASSES; i++)
		if (census.by_class[i])
			number(w, tagtso_class_name(i), census.by_class[i]);
	close_level(w, '}');
	close_level(w, '}');
}

static void write_unknown(struct writer *w, const struct tagtso_report_extra *extra)
{
	char word[NUMBER];

	key(w, "unknown");
	open_level(w, '[');
	for (size_t i = 0; i < extra->unknowns; i++) {
		next(w);
		open_level(w, '{');
		tagtso_format(word, sizeof(word), "%08x", extra->unknown[i].word);
		string(w, "word", word);
		string(w, "disassembly", extra->unknown[i].disassembly);
		number(w, "count", extra->unknown[i].count);
		close_level(w, '}');
	}
	close_level(w, ']');
}

static void write_report(struct writer *w, const struct tagtso_report_extra *extra, int pid)
{
	open_level(w, '{');
	number(w, "schema", TAGTSO_REPORT_SCHEMA);
	string(w, "tagtso", PACKAGE_VERSION);
	number(w, "pid", (uint64_t)pid);
	string(w, "program", extra->program);
	string(w, "mode", extra->mode);
	string(w, "owner", extra->owner);
	string(w, "emulator", extra->emulator);
	string(w, "state", extra->state);
	string(w, "why", extra->why);
	string(w, "ordering", extra->ordering);
	write_knobs(w, extra->knobs ? extra->knobs : &tagtso_knobs);
	write_counters(w);
	write_sites(w);
	write_unknown(w, extra);
	key(w, "memory");
	open_level(w, '{');
	number(w, "site_table_bytes", extra->site_bytes);
	number(w, "page_table_bytes", extra->page_bytes);
	close_level(w, '}');
	close_level(w, '}');
	put(w, '\n');
	flush(w);
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

int tagtso_report_path(char *path, size_t size, const char *pattern, const char *program, int pid)
{
	size_t n = 0;

	for (; *pattern; pattern++) {
		if (n + 1 >= size)
			return -ENAMETOOLONG;
		if (*pattern != '%') {
			path[n++] = *pattern;
			continue;
		}
		pattern++;
		if (*pattern == 'p') {
			n += tagtso_format(path + n, size - n, "%d", pid);
		} else if (*pattern == 'e') {
			size_t from = n;

			n += tagtso_format(path + n, size - n, "%s", program ? program : "");
			for (; from < n; from++)
				if (path[from] == '/')
					path[from] = '_';
		} else if (*pattern) {
			path[n++] = *pattern;
		} else {
			pattern--; /* a lone % at the end: dropped */
		}
	}
	path[n] = '\0';
	return n + 1 < size ? 0 : -ENAMETOOLONG;
}

/* Renaming over a device, a pipe or a link would replace it. */
static bool is_special(const char *path)
{
	struct stat st;

	return !tagtso_raw(SYS_newfstatat, AT_FDCWD, (long)path, (long)&st, AT_SYMLINK_NOFOLLOW, 0, 0) &&
	       !S_ISREG(st.st_mode);
}

static int write_file(const char *path, bool direct, const struct tagtso_report_extra *extra, int pid)
{
	struct writer w = { .fd = -1 };
	int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | (direct ? 0 : O_EXCL);

	w.fd = (int)tagtso_raw(SYS_openat, AT_FDCWD, (long)path, flags, 0666, 0, 0);
	if (w.fd < 0)
		return w.fd;
	write_report(&w, extra, pid);
	tagtso_raw(SYS_close, w.fd, 0, 0, 0, 0, 0);
	return w.error;
}

static int write_renamed(const char *path, const struct tagtso_report_extra *extra, int pid)
{
	char temporary[PATH_MAX];
	int error;

	if (tagtso_format(temporary, sizeof(temporary), "%s.%d.tmp", path, pid) == sizeof(temporary) - 1)
		return -ENAMETOOLONG;
	tagtso_raw(SYS_unlinkat, AT_FDCWD, (long)temporary, 0, 0, 0, 0);
	error = write_file(temporary, false, extra, pid);
	if (!error)
		error = (int)tagtso_raw(SYS_renameat2, AT_FDCWD, (long)temporary, AT_FDCWD, (long)path, 0, 0);
	if (error)
		tagtso_raw(SYS_unlinkat, AT_FDCWD, (long)temporary, 0, 0, 0, 0);
	return error;
}

static int write_stderr(const struct tagtso_report_extra *extra, int pid)
{
	struct writer w = { .fd = 2 };

	write_report(&w, extra, pid);
	return w.error;
}

int tagtso_report_write(const char *pattern, const struct tagtso_report_extra *extra)
{
	int pid = (int)tagtso_raw(SYS_getpid, 0, 0, 0, 0, 0, 0), error;
	char path[PATH_MAX];

	if (!*pattern)
		return 0;
	if (pattern[0] == '-' && !pattern[1])
		return write_stderr(extra, pid);
	error = tagtso_report_path(path, sizeof(path), pattern, extra->program, pid);
	if (error)
		return error;
	return is_special(path) ? write_file(path, true, extra, pid) : write_renamed(path, extra, pid);
}
