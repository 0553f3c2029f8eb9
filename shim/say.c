/* SPDX-License-Identifier: MIT */
/* One-line messages on standard error and the formatter behind them. Handler code (I6): no libc, no lock, no allocation. */
#include "say.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "raw.h"

enum { LINE = 512 };

struct output {
	char *at, *end; /* end: room for the terminator stays */
};

static void put(struct output *out, char c)
{
	if (out->at < out->end)
		*out->at++ = c;
}

static void put_text(struct output *out, const char *text)
{
	for (text = text ? text : "(null)"; *text; text++)
		put(out, *text);
}

static void put_number(struct output *out, uint64_t value, unsigned base, unsigned width, char fill)
{
	char digits[20];
	unsigned n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	for (; width > n; width--)
		put(out, fill);
	while (n)
		put(out, digits[--n]);
}

static void put_signed(struct output *out, int64_t value)
{
	if (value < 0)
		put(out, '-');
	put_number(out, value < 0 ? -(uint64_t)value : (uint64_t)value, 10, 0, ' ');
}

struct spec {
	unsigned width;
	char fill;
	bool wide; /* l or z */
	char kind;
};

static const char *read_spec(const char *format, struct spec *spec)
{
	*spec = (struct spec){ .fill = ' ' };
	if (*format == '0')
		spec->fill = *format++;
	while (*format >= '0' && *format <= '9')
		spec->width = spec->width * 10 + (unsigned)(*format++ - '0');
	while (*format == 'l' || *format == 'z') {
		spec->wide = true;
		format++;
	}
	spec->kind = *format;
	return *format ? format + 1 : format;
}

size_t tagtso_vformat(char *buffer, size_t size, const char *format, va_list arguments)
{
	struct output out = { buffer, size ? buffer + size - 1 : buffer };
	struct spec spec;

	while (*format) {
		if (*format != '%') {
			put(&out, *format++);
			continue;
		}
		format = read_spec(format + 1, &spec);
		switch (spec.kind) {
		case 's':
			put_text(&out, va_arg(arguments, const char *));
			break;
		case 'c':
			put(&out, (char)va_arg(arguments, int));
			break;
		case 'd':
			put_signed(&out, spec.wide ? va_arg(arguments, long) : va_arg(arguments, int));
			break;
		case 'u':
		case 'x':
			put_number(&out, spec.wide ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned),
			           spec.kind == 'x' ? 16 : 10, spec.width, spec.fill);
			break;
		case 'p':
			put_text(&out, "0x");
			put_number(&out, (uintptr_t)va_arg(arguments, void *), 16, 0, ' ');
			break;
		default:
			put(&out, '%');
			break;
		}
	}
	if (size)
		*out.at = '\0';
	return (size_t)(out.at - buffer);
}

size_t tagtso_format(char *buffer, size_t size, const char *format, ...)
{
	va_list arguments;
	size_t length;

	va_start(arguments, format);
	length = tagtso_vformat(buffer, size, format, arguments);
	va_end(arguments);
	return length;
}

static void say(const char *format, va_list arguments)
{
	char line
		[LINE]; /* no initialiser: it would be a call of memset, which is one of the functions that we interpose */
	size_t length = tagtso_format(line, sizeof(line), "tagtso: ");

	length += tagtso_vformat(line + length, sizeof(line) - length - 1, format, arguments);

	line[length++] = '\n';
	tagtso_raw(SYS_write, STDERR_FILENO, (long)line, (long)length, 0, 0, 0);
}

void tagtso_say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
}

void tagtso_die(const char *format, ...)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} fatal = { 0 };
	uint64_t only_abort = 1ull << (SIGABRT - 1);
	va_list arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
	/* The kernel's own struct sigaction: all zero is SIG_DFL on every architecture, whatever the field order. */
	tagtso_raw(SYS_rt_sigaction, SIGABRT, (long)&fatal, 0, sizeof(fatal.mask), 0, 0);
	tagtso_raw(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&only_abort, 0, sizeof(only_abort), 0, 0);
	tagtso_raw(SYS_tgkill, tagtso_raw(SYS_getpid, 0, 0, 0, 0, 0, 0), tagtso_raw(SYS_gettid, 0, 0, 0, 0, 0, 0),
	           SIGABRT, 0, 0, 0);
	for (;;)
		tagtso_raw(SYS_exit_group, 128 + SIGABRT, 0, 0, 0, 0, 0);
}
