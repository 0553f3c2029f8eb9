/* SPDX-License-Identifier: MIT */
/* Formatted text and lines. What is printed to a stream or descriptor is made in host memory with checks off, and written from there: libc may write a
 * long string argument by a system call straight from where it lies, and a stream may call back into the guest. */
#include "libc-wrap.h"

#define REAL(name) __typeof__(&tagtso_w_##name) real = tagtso_real(TAGTSO_FN_##name)

/* The call of a v...() function with the arguments of the variable one around it. */
#define FORWARD(last, call) \
	do { \
		va_list ap; \
		int result_; \
\
		va_start(ap, last); \
		result_ = call; \
		va_end(ap); \
		return result_; \
	} while (0)

/* A call with checks off while memory has tags. */
#define CHECKS_OFF(call) \
	do { \
		uint64_t checks_; \
		int result_; \
\
		if (TAGTSO_LIKELY(!tagtso_is_active())) \
			return call; \
		checks_ = tagtso_unchecked_enter(); \
		result_ = call; \
		tagtso_unchecked_leave(checks_); \
		return result_; \
	} while (0)

/* ---- into memory ---- */

static void touch(const void *p, size_t n)
{
	if (tagtso_native_is_share() && p && n && n <= SIZE_MAX / 2)
		tagtso_native_touch(p, n);
}

int tagtso_w_vsprintf(char *d, const char *f, va_list ap)
{
	REAL(vsprintf);
	CHECKS_OFF(real(d, f, ap));
}

int tagtso_w__IO_vsprintf(char *d, const char *f, va_list ap)
{
	return tagtso_w_vsprintf(d, f, ap);
}

int tagtso_w_sprintf(char *d, const char *f, ...)
{
	FORWARD(f, tagtso_w_vsprintf(d, f, ap));
}

int tagtso_w__IO_sprintf(char *d, const char *f, ...)
{
	FORWARD(f, tagtso_w_vsprintf(d, f, ap));
}

int tagtso_w_vsnprintf(char *d, size_t n, const char *f, va_list ap)
{
	REAL(vsnprintf);
	touch(d, n);
	CHECKS_OFF(real(d, n, f, ap));
}

int tagtso_w___vsnprintf(char *d, size_t n, const char *f, va_list ap)
{
	return tagtso_w_vsnprintf(d, n, f, ap);
}

int tagtso_w_snprintf(char *d, size_t n, const char *f, ...)
{
	FORWARD(f, tagtso_w_vsnprintf(d, n, f, ap));
}

int tagtso_w___vsprintf_chk(char *d, int flag, size_t room, const char *f, va_list ap)
{
	REAL(__vsprintf_chk);
	CHECKS_OFF(real(d, flag, room, f, ap));
}

int tagtso_w___sprintf_chk(char *d, int flag, size_t room, const char *f, ...)
{
	FORWARD(f, tagtso_w___vsprintf_chk(d, flag, room, f, ap));
}

int tagtso_w___vsnprintf_chk(char *d, size_t n, int flag, size_t room, const char *f, va_list ap)
{
	REAL(__vsnprintf_chk);
	touch(d, n);
	CHECKS_OFF(real(d, n, flag, room, f, ap));
}

int tagtso_w___snprintf_chk(char *d, size_t n, int flag, size_t room, const char *f, ...)
{
	FORWARD(f, tagtso_w___vsnprintf_chk(d, n, flag, room, f, ap));
}

int tagtso_w_vswprintf(wchar_t *d, size_t n, const wchar_t *f, va_list ap)
{
	REAL(vswprintf);
	touch(d, n * sizeof(*d));
	CHECKS_OFF(real(d, n, f, ap));
}

int tagtso_w_swprintf(wchar_t *d, size_t n, const wchar_t *f, ...)
{
	FORWARD(f, tagtso_w_vswprintf(d, n, f, ap));
}

int tagtso_w___vswprintf_chk(wchar_t *d, size_t n, int flag, size_t room, const wchar_t *f, va_list ap)
{
	REAL(__vswprintf_chk);
	touch(d, n * sizeof(*d));
	CHECKS_OFF(real(d, n, flag, room, f, ap));
}

int tagtso_w___swprintf_chk(wchar_t *d, size_t n, int flag, size_t room, const wchar_t *f, ...)
{
	FORWARD(f, tagtso_w___vswprintf_chk(d, n, flag, room, f, ap));
}

/* ---- by way of host memory ---- */

/* flag < 0: the plain function; else the checking one with that flag. */
struct format {
	const char *f;
	int flag;
};

struct text {
	char *at;   /* local, or from malloc */
	int length; /* < 0: failed, errno says why */
	char local[1024];
};

static int format_once(char *d, size_t n, struct format f, va_list ap)
{
	va_list again;
	int length;

	va_copy(again, ap);
	length = f.flag < 0 ? tagtso_w_vsnprintf(d, n, f.f, again)
	                    : tagtso_w___vsnprintf_chk(d, n, f.flag, SIZE_MAX, f.f, again);
	va_end(again);
	return length;
}

static void format_text(struct text *text, struct format f, va_list ap)
{
	int keep = errno; /* %m prints it, in both passes */

	text->at = text->local;
	text->length = format_once(text->local, sizeof(text->local), f, ap);
	if (text->length < (int)sizeof(text->local))
		return;
	text->at = malloc((size_t)text->length + 1);
	if (!text->at) {
		text->at = text->local;
		text->length = -1;
		return;
	}
	errno = keep;
	text->length = format_once(text->at, (size_t)text->length + 1, f, ap);
}

static void free_text(struct text *text)
{
	int keep = errno;

	if (text->at != text->local)
		free(text->at);
	errno = keep;
}

/* Cancellation may end the thread inside fwrite or write: what was allocated must not be lost with it. */
#define TEXT __attribute__((cleanup(free_text))) struct text

static int print_to_stream(FILE *to, struct format f, va_list ap)
{
	size_t (*real_fwrite)(const void *, size_t, size_t, FILE *) = tagtso_real(TAGTSO_FN_fwrite);
	TEXT text;

	format_text(&text, f, ap);
	if (text.length > 0 && real_fwrite(text.at, 1, (size_t)text.length, to) != (size_t)text.length)
		return -1;
	return text.length;
}

static int print_to_descriptor(int fd, struct format f, va_list ap)
{
	ssize_t (*real_write)(int, const void *, size_t) = tagtso_real(TAGTSO_FN_write);
	TEXT text;

	format_text(&text, f, ap);
	for (int done = 0; done < text.length;) {
		ssize_t n = real_write(fd, text.at + done, (size_t)(text.length - done));

		if (n < 0)
			return -1;
		done += (int)n;
	}
	return text.length;
}

int tagtso_w_vfprintf(FILE *to, const char *f, va_list ap)
{
	REAL(vfprintf);

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(to, f, ap);
	return print_to_stream(to, (struct format){ f, -1 }, ap);
}

int tagtso_w__IO_vfprintf(FILE *to, const char *f, va_list ap)
{
	return tagtso_w_vfprintf(to, f, ap);
}

int tagtso_w_vprintf(const char *f, va_list ap)
{
	return tagtso_w_vfprintf(stdout, f, ap);
}

int tagtso_w_printf(const char *f, ...)
{
	FORWARD(f, tagtso_w_vfprintf(stdout, f, ap));
}

int tagtso_w__IO_printf(const char *f, ...)
{
	FORWARD(f, tagtso_w_vfprintf(stdout, f, ap));
}

int tagtso_w_fprintf(FILE *to, const char *f, ...)
{
	FORWARD(f, tagtso_w_vfprintf(to, f, ap));
}

int tagtso_w__IO_fprintf(FILE *to, const char *f, ...)
{
	FORWARD(f, tagtso_w_vfprintf(to, f, ap));
}

int tagtso_w___vfprintf_chk(FILE *to, int flag, const char *f, va_list ap)
{
	REAL(__vfprintf_chk);

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(to, flag, f, ap);
	return print_to_stream(to, (struct format){ f, flag }, ap);
}

int tagtso_w___fprintf_chk(FILE *to, int flag, const char *f, ...)
{
	FORWARD(f, tagtso_w___vfprintf_chk(to, flag, f, ap));
}

int tagtso_w___vprintf_chk(int flag, const char *f, va_list ap)
{
	return tagtso_w___vfprintf_chk(stdout, flag, f, ap);
}

int tagtso_w___printf_chk(int flag, const char *f, ...)
{
	FORWARD(f, tagtso_w___vfprintf_chk(stdout, flag, f, ap));
}

int tagtso_w_vdprintf(int fd, const char *f, va_list ap)
{
	REAL(vdprintf);

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, f, ap);
	return print_to_descriptor(fd, (struct format){ f, -1 }, ap);
}

int tagtso_w_dprintf(int fd, const char *f, ...)
{
	FORWARD(f, tagtso_w_vdprintf(fd, f, ap));
}

int tagtso_w___vdprintf_chk(int fd, int flag, const char *f, va_list ap)
{
	REAL(__vdprintf_chk);

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(fd, flag, f, ap);
	return print_to_descriptor(fd, (struct format){ f, flag }, ap);
}

int tagtso_w___dprintf_chk(int fd, int flag, const char *f, ...)
{
	FORWARD(f, tagtso_w___vdprintf_chk(fd, flag, f, ap));
}

/* ---- allocated ---- */

static int print_allocated(char **d, struct format f, va_list ap)
{
	struct text text;
	char *result = NULL;

	format_text(&text, f, ap);
	if (text.length >= 0 && text.at != text.local) {
		result = text.at;
	} else if (text.length >= 0) {
		result = malloc((size_t)text.length + 1);
		if (result)
			memcpy(result, text.local, (size_t)text.length + 1);
		else
			text.length = -1;
	} else {
		free_text(&text);
	}
	*(char **)tagtso_native(d, sizeof(*d)) = result;
	return text.length;
}

int tagtso_w_vasprintf(char **d, const char *f, va_list ap)
{
	REAL(vasprintf);

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(d, f, ap);
	return print_allocated(d, (struct format){ f, -1 }, ap);
}

int tagtso_w_asprintf(char **d, const char *f, ...)
{
	FORWARD(f, tagtso_w_vasprintf(d, f, ap));
}

int tagtso_w___asprintf(char **d, const char *f, ...)
{
	FORWARD(f, tagtso_w_vasprintf(d, f, ap));
}

int tagtso_w___vasprintf_chk(char **d, int flag, const char *f, va_list ap)
{
	REAL(__vasprintf_chk);

	if (TAGTSO_LIKELY(!tagtso_is_active()))
		return real(d, flag, f, ap);
	return print_allocated(d, (struct format){ f, flag }, ap);
}

int tagtso_w___asprintf_chk(char **d, int flag, const char *f, ...)
{
	FORWARD(f, tagtso_w___vasprintf_chk(d, flag, f, ap));
}

/* ---- out of memory ---- */

#define SCAN(name, character) \
	int tagtso_w_##name(const character *s, const character *f, va_list ap) \
	{ \
		REAL(name); \
		CHECKS_OFF(real(s, f, ap)); \
	}
#define SCAN_VARIABLE(name, character, v) \
	int tagtso_w_##name(const character *s, const character *f, ...) \
	{ \
		FORWARD(f, tagtso_w_##v(s, f, ap)); \
	}
SCAN(vsscanf, char)
SCAN(__vsscanf, char)
SCAN(__isoc99_vsscanf, char)
SCAN(vswscanf, wchar_t)
SCAN(__isoc99_vswscanf, wchar_t)
SCAN_VARIABLE(sscanf, char, vsscanf)
SCAN_VARIABLE(_IO_sscanf, char, vsscanf)
SCAN_VARIABLE(__isoc99_sscanf, char, __isoc99_vsscanf)
SCAN_VARIABLE(swscanf, wchar_t, vswscanf)
SCAN_VARIABLE(__isoc99_swscanf, wchar_t, __isoc99_vswscanf)
SCAN(__isoc23_vsscanf, char)
SCAN(__isoc23_vswscanf, wchar_t)
SCAN_VARIABLE(__isoc23_sscanf, char, __isoc23_vsscanf)
SCAN_VARIABLE(__isoc23_swscanf, wchar_t, __isoc23_vswscanf)

/* ---- lines ---- */

/* The caller's buffer can be reallocated, so it cannot be handed over as its alias: the line is read into one of our own. If it fits the
 * caller's, it is copied there, else ours takes its place, as if it had been reallocated. */
static ssize_t give_line(char **line, size_t *n, char *ours, size_t room, ssize_t length)
{
	char **line_alias = tagtso_native(line, sizeof(*line));
	size_t *n_alias = tagtso_native(n, sizeof(*n));
	char *theirs = *line_alias;
	int keep = errno;

	if (length < 0 || (theirs && *n_alias > (size_t)length)) {
		if (length >= 0)
			memcpy(tagtso_native(theirs, (size_t)length + 1), ours, (size_t)length + 1);
		free(ours);
	} else {
		*line_alias = ours;
		*n_alias = room;
		free(theirs);
	}
	errno = keep;
	return length;
}

static void free_line(char **line)
{
	free(*line);
}

static ssize_t read_line(ssize_t (*real)(char **, size_t *, int, FILE *), char **line, size_t *n, int delimiter,
                         FILE *f)
{
	__attribute__((cleanup(free_line))) char *ours = NULL; /* the thread may be cancelled while it reads */
	size_t room = 0;
	ssize_t length = real(&ours, &room, delimiter, f);
	char *give = ours;

	ours = NULL;
	return give_line(line, n, give, room, length);
}

ssize_t tagtso_w_getdelim(char **line, size_t *n, int delimiter, FILE *f)
{
	REAL(getdelim);

	if (TAGTSO_LIKELY(!tagtso_is_active()) || !line || !n)
		return real(line, n, delimiter, f);
	return read_line(real, line, n, delimiter, f);
}

ssize_t tagtso_w___getdelim(char **line, size_t *n, int delimiter, FILE *f)
{
	return tagtso_w_getdelim(line, n, delimiter, f);
}

ssize_t tagtso_w_getline(char **line, size_t *n, FILE *f)
{
	return tagtso_w_getdelim(line, n, '\n', f);
}
