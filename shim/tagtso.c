/* SPDX-License-Identifier: MIT */
/* tagtso(1): runs a command with the library preloaded and knobs set; shows knobs and reports. */
#include "tagtso.h"

#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "knobs.h"

static const char usage[] =
	"usage: tagtso [options] [--] command [argument...]\n"
	"       tagtso knobs [--json]\n"
	"       tagtso report FILE\n"
	"\n"
	"  -m MODE          TAGTSO_MODE: auto, enforce, relax, observe, off\n"
	"  -s FILE          TAGTSO_STATS: JSON report at exit; - = standard error, %p = process id, %e = program\n"
	"  -v               TAGTSO_VERBOSE: say more; up to three times\n"
	"      --strict     TAGTSO_STRICT=1: fail with status 125 instead of running without the library\n"
	"  -o NAME=VALUE    any knob; see tagtso knobs\n"
	"  -l LIBRARY       libtagtso.so to preload instead of the installed one\n"
	"  -h, --help       this text\n"
	"  -V, --version    version\n"
	"\n"
	"The exit status is the command's; 125 if tagtso itself fails, 126 if the command cannot be run, 127 if it is "
	"not found.\n";

enum { OPTION_STRICT = 256 };
static const struct option options[] = {
	{ "strict", no_argument, NULL, OPTION_STRICT },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};

__attribute__((format(printf, 2, 3))) static _Noreturn void fail(int status, const char *format, ...)
{
	va_list arguments;

	fputs("tagtso: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(status);
}

static _Noreturn void finish(int status)
{
	if (fflush(stdout) || ferror(stdout))
		fail(TAGTSO_EXIT_FAILED, "standard output: %s", strerror(errno));
	exit(status);
}

/* ---- knobs ---------------------------------------------------------------------------------------------------- */

static void complain(const char *line, void *arg)
{
	(void)arg;
	fail(TAGTSO_EXIT_FAILED, "%s", line);
}

/* Puts TAGTSO_NAME=VALUE into the environment, if that is a good value of a knob. */
static void set_knob(const char *name, const char *value)
{
	char *pair, *environment[2] = { NULL, NULL };
	struct tagtso_knobs unused;

	if (asprintf(&pair, "TAGTSO_%s=%s", name, value) < 0)
		fail(TAGTSO_EXIT_FAILED, "%s", strerror(errno));
	environment[0] = pair;
	tagtso_knobs_parse(&unused, environment, complain, NULL);
	*strchr(pair, '=') = '\0';
	if (setenv(pair, value, 1))
		fail(TAGTSO_EXIT_FAILED, "%s: %s", pair, strerror(errno));
	free(pair);
}

/* "threshold=9", "THRESHOLD=9" and "TAGTSO_THRESHOLD=9" are the same. */
static void set_pair(char *pair)
{
	char *equals = strchr(pair, '=');

	if (!equals)
		fail(TAGTSO_EXIT_FAILED, "-o %s: no value: give NAME=VALUE", pair);
	*equals = '\0';
	for (char *c = pair; *c; c++)
		*c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
	if (!strncmp(pair, "TAGTSO_", 7))
		pair += 7;
	set_knob(pair, equals + 1);
}

static void set_verbose(unsigned level)
{
	char digits[16];

	snprintf(digits, sizeof(digits), "%u", level > 3 ? 3 : level);
	set_knob("VERBOSE", digits);
}

/* ---- the library ---------------------------------------------------------------------------------------------- */

#ifdef __aarch64__
/* The directory that holds this program, or "". */
static const char *own_directory(void)
{
	static char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (length <= 0)
		return "";
	path[length] = '\0';
	return dirname(path);
}

/* The library: as given, of the build that this program is in, beside its directory, or where it was configured to go. */
static char *find_library(const char *given)
{
	const char *here = own_directory();
	const struct {
		const char *from, *to;
	} places[] = { { here, ".libs" }, { here, "../lib" }, { LIBDIR, "." } };
	char path[PATH_MAX + 32], *found;

	if (given) {
		found = realpath(given, NULL);
		if (!found)
			fail(TAGTSO_EXIT_FAILED, "%s: %s: give the path of libtagtso.so", given, strerror(errno));
		return found;
	}
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s/libtagtso.so", places[i].from, places[i].to);
		found = realpath(path, NULL);
		if (found && !access(found, R_OK))
			return found;
		free(found);
	}
	fail(TAGTSO_EXIT_FAILED, "libtagtso.so: not found in %s: install it there or name it by -l", LIBDIR);
}

static bool is_listed(const char *list, const char *path)
{
	size_t length = strlen(path), n;

	for (; *list; list += n + !!list[n]) {
		n = strcspn(list, ": ");
		if (n == length && !memcmp(list, path, n))
			return true;
	}
	return false;
}

static void preload(const char *given)
{
	const char *before = getenv("LD_PRELOAD");
	char *library = find_library(given), *list = library;

	if (strpbrk(library, ": "))
		fail(TAGTSO_EXIT_FAILED, "%s: LD_PRELOAD cannot name a path with a colon or a space: move the library",
		     library);
	if (before && is_listed(before, library))
		return;
	if (before && *before && asprintf(&list, "%s:%s", library, before) < 0)
		fail(TAGTSO_EXIT_FAILED, "%s", strerror(errno));
	if (setenv("LD_PRELOAD", list, 1))
		fail(TAGTSO_EXIT_FAILED, "LD_PRELOAD: %s", strerror(errno));
}
#else
static void preload(const char *given)
{
	(void)given;
	fail(TAGTSO_EXIT_FAILED, "this is no aarch64 machine: libtagtso.so is for aarch64 Linux with MTE: see "
	                         "tests/vm/run for one in QEMU");
}
#endif

/* ---- commands ------------------------------------------------------------------------------------------------- */

static _Noreturn void run(char **command, const char *library)
{
	preload(library);
	execvp(command[0], command);
	if (errno == ENOENT)
		fail(TAGTSO_EXIT_NOT_FOUND, "%s: command not found", command[0]);
	fail(TAGTSO_EXIT_CANNOT_RUN, "%s: cannot be run: %s", command[0], strerror(errno));
}

static _Noreturn void show_knobs(int count, char **arguments)
{
	if (count > 2 || (count == 2 && strcmp(arguments[1], "--json")))
		fail(TAGTSO_EXIT_FAILED, "knobs: give nothing, or --json; tagtso -- knobs runs a command of that name");
	tagtso_show_knobs(count == 2);
	finish(0);
}

static _Noreturn void show_report(int count, char **arguments)
{
	if (count != 2)
		fail(TAGTSO_EXIT_FAILED,
		     "report: give one file, or - for standard input; tagtso -- report runs a command of that name");
	finish(tagtso_show_report(arguments[1]));
}

int main(int argc, char **argv)
{
	const char *library = NULL;
	unsigned verbose = 0;
	bool separator;
	int option;

	while ((option = getopt_long(argc, argv, "+m:s:vo:l:hV", options, NULL)) != -1) {
		switch (option) {
		case 'm':
			set_knob("MODE", optarg);
			break;
		case 's':
			set_knob("STATS", optarg);
			break;
		case 'v':
			set_verbose(++verbose);
			break;
		case 'o':
			set_pair(optarg);
			break;
		case 'l':
			library = optarg;
			break;
		case OPTION_STRICT:
			set_knob("STRICT", "1");
			break;
		case 'h':
			fputs(usage, stdout);
			finish(0);
		case 'V':
			puts("tagtso " PACKAGE_VERSION);
			finish(0);
		default:
			fail(TAGTSO_EXIT_FAILED, "see tagtso --help");
		}
	}
	separator = optind > 1 && !strcmp(argv[optind - 1], "--");
	argv += optind;
	argc -= optind;
	if (!argc)
		fail(TAGTSO_EXIT_FAILED, "no command given: see tagtso --help");
	if (!separator && !strcmp(argv[0], "knobs"))
		show_knobs(argc, argv);
	if (!separator && !strcmp(argv[0], "report"))
		show_report(argc, argv);
	run(argv, library);
}
