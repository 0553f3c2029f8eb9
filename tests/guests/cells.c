/* SPDX-License-Identifier: MIT */
/* Provokes every cell of the handler's table, and what goes with it (memory, threads, faults, fork), by generated code of its own under the preload,
 * and observes values, tags, words at sites and counters.
 *
 * usage: cells [NAME…]      runs the tests named, or all, each in a process of its own with the preload
 *        cells -x NAME      runs one in this process: for a debugger
 *        cells -l           lists names and sentences
 * TAGTSO_LIB names the preload; TAGTSO_TEST_PATTERN selects by sentence. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cells.h"

enum { SECONDS = 100, REPORT = 65536 };

static const struct test *const groups[] = { cells_table,   cells_owners,  cells_memory,  cells_faults,
	                                     cells_threads, cells_busy,    cells_process, cells_relax,
	                                     cells_cpus,    cells_signals, cells_probes,  NULL };

/* ---- in the test's process ---- */

static atomic_uint failures;

void cells_fail(const char *file, int line, const char *format, ...)
{
	char text[400];
	va_list arguments;
	int n = snprintf(text, sizeof(text), "%s:%d: ", strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line);

	va_start(arguments, format);
	n += vsnprintf(text + n, sizeof(text) - (size_t)n, format, arguments);
	va_end(arguments);
	if (n > (int)sizeof(text) - 2)
		n = (int)sizeof(text) - 2;
	text[n++] = '\n';
	if (atomic_fetch_add(&failures, 1) < 12 && write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(3);
}

void cells_sleep_ms(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	if (cells_cpu)
		cells_cpu_pin(1);
	pthread_mutex_lock(&w->mutex);
	for (;;) {
		while (!w->busy && !w->ending)
			pthread_cond_wait(&w->changed, &w->mutex);
		if (!w->busy)
			break;
		w->job(w->arg);
		w->busy = false;
		pthread_cond_broadcast(&w->changed);
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

void cells_worker_start(struct worker *w)
{
	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->changed, NULL);
	if (cells_cpu) /* two owners only if they are on two processors */
		cells_cpu_pin(0);
	int e = pthread_create(&w->thread, NULL, worker_main, w);

	CHECK(!e, "pthread_create: %s", strerror(e));
}

void cells_worker_run(struct worker *w, void (*job)(void *), void *arg)
{
	pthread_mutex_lock(&w->mutex);
	w->job = job;
	w->arg = arg;
	w->busy = true;
	pthread_cond_broadcast(&w->changed);
	while (w->busy)
		pthread_cond_wait(&w->changed, &w->mutex);
	pthread_mutex_unlock(&w->mutex);
}

void cells_worker_stop(struct worker *w)
{
	pthread_mutex_lock(&w->mutex);
	w->ending = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->mutex);
	pthread_join(w->thread, NULL);
}

struct call {
	struct code code;
	volatile void *pointer;
	uint64_t a, b, result;
};

static void do_call(void *arg)
{
	struct call *c = arg;

	c->result = c->code.fn(c->pointer, c->a, c->b);
}

uint64_t cells_call_on(struct worker *w, struct code code, volatile void *pointer, uint64_t a, uint64_t b)
{
	struct call c = { code, pointer, a, b, 0 };

	if (w)
		cells_worker_run(w, do_call, &c);
	else
		do_call(&c);
	return c.result;
}

static void do_put(void *arg)
{
	struct call *c = arg;

	put(c->pointer, c->a);
}

void cells_put_on(struct worker *w, volatile uint64_t *p, uint64_t v)
{
	struct call c = { .pointer = p, .a = v };

	cells_worker_run(w, do_put, &c);
}

static void do_get(void *arg)
{
	struct call *c = arg;

	c->result = get(c->pointer);
}

uint64_t cells_get_on(struct worker *w, const volatile uint64_t *p)
{
	struct call c = { .pointer = (volatile void *)p };

	cells_worker_run(w, do_get, &c);
	return c.result;
}

static void do_tag(void *arg)
{
	*(unsigned *)arg = my_tag();
}

unsigned cells_tag_of_worker(struct worker *w)
{
	unsigned tag = 0;

	cells_worker_run(w, do_tag, &tag);
	return tag;
}

void cells_together(unsigned count, void *(*fn)(void *), void *args, size_t size)
{
	pthread_t threads[64];

	for (unsigned i = 0; i < count; i++) {
		int e = pthread_create(&threads[i], NULL, fn, (char *)args + i * size);

		CHECK(!e, "pthread_create: %s", strerror(e));
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

/* ---- running one ---- */

static const struct test *find(const char *name)
{
	for (const struct test *const *group = groups; *group; group++)
		for (const struct test *t = *group; t->name; t++)
			if (!strcmp(t->name, name))
				return t;
	fprintf(stderr, "cells: %s: no such test: cells -l lists them\n", name);
	exit(2);
}

static int run_here(const char *name)
{
	cells_cpu_init();
	find(name)->run();
	return atomic_load(&failures) ? 1 : 0;
}

static const char *library(void)
{
	const char *lib = getenv("TAGTSO_LIB");

	return lib ? lib : "/usr/lib/libtagtso.so";
}

/* Replaces the process by the test's. */
static void become(const struct test *t, const char *reports)
{
	char knobs[256], stats[300];

	snprintf(stats, sizeof(stats), "%s/%%p", reports);
	setenv("TAGTSO_STATS", stats, 1);
	setenv("TAGTSO_EMULATOR", "generic", 1);
	setenv("TAGTSO_STRICT", "1", 1);
	setenv("TAGTSO_PROBES", "0", 1); /* or shared memory would not stay it while a test looks */
	setenv("LD_PRELOAD", library(), 1);
	snprintf(knobs, sizeof(knobs), "%s", t->knobs ? t->knobs : "");
	for (char *knob = strtok(knobs, " "); knob; knob = strtok(NULL, " "))
		putenv(knob);
	execl("/proc/self/exe", "cells", "-x", t->name, (char *)NULL);
	_exit(127);
}

/* The wait status; -1 after too long a time. */
static int wait_for(pid_t pid)
{
	struct pollfd end = { .fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	int status = -1;

	if (poll(&end, 1, SECONDS * 1000) == 1) {
		waitpid(pid, &status, 0);
	} else {
		kill(-pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	close(end.fd);
	return status;
}

/* A knob may have a counter's name, and stands before all counters. */
static bool met(const struct expect *e, const char *report)
{
	const char *counters = strstr(report, "\"counters\":");
	char key[64];

	snprintf(key, sizeof(key), "\"%s\":", e->counter);
	const char *at = counters ? strstr(counters, key) : NULL;
	uint64_t is = at ? strtoull(at + strlen(key), NULL, 10) : 0;

	if (at && (e->relation == '=' ? is == e->value : e->relation == '<' ? is <= e->value : is >= e->value))
		return true;
	fprintf(stderr, "the report's counter %s is %lu, not %c %lu\n", e->counter, (unsigned long)is, e->relation,
	        (unsigned long)e->value);
	return false;
}

static bool check_report(const struct test *t, const char *path)
{
	static char report[REPORT];
	bool good = true;
	FILE *f = fopen(path, "r");

	if (!t->expects[0].counter)
		return true;
	size_t n = f ? fread(report, 1, sizeof(report) - 1, f) : 0;

	report[n] = 0;
	if (f)
		fclose(f);
	for (unsigned i = 0; i < 3 && t->expects[i].counter; i++)
		good = met(&t->expects[i], report) && good;
	return good;
}

static void say_how(const struct test *t, int status)
{
	if (status == -1)
		fprintf(stderr, "not done after %d s\n", SECONDS);
	else if (WIFSIGNALED(status))
		fprintf(stderr, "ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) > 1)
		fprintf(stderr, "ended with status %d\n", WEXITSTATUS(status));
	printf("# gdb -ex 'handle SIGSEGV nostop noprint pass' -ex 'set exec-wrapper env LD_PRELOAD=%s "
	       "TAGTSO_EMULATOR=generic TAGTSO_PROBES=0 %s' -ex run"
	       " --args cells -x %s\n",
	       library(), t->knobs ? t->knobs : "", t->name);
}

static bool run_test(const struct test *t, const char *reports)
{
	char path[300];

	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		setpgid(0, 0);
		become(t, reports);
	}
	setpgid(pid, pid);
	int status = wait_for(pid);

	snprintf(path, sizeof(path), "%s/%d", reports, (int)pid);
	bool good = status == 0 && check_report(t, path);

	if (!good)
		say_how(t, status);
	printf("%s - %s\n", good ? "ok" : "not ok", t->sentence);
	return good;
}

/* ---- the program ---- */

static void list(void)
{
	for (const struct test *const *group = groups; *group; group++)
		for (const struct test *t = *group; t->name; t++)
			printf("%-24s %s\n", t->name, t->sentence);
}

static bool run_all(const char *reports)
{
	const char *pattern = getenv("TAGTSO_TEST_PATTERN");
	bool any = false, good = true;

	if (!pattern)
		pattern = "";
	for (const struct test *const *group = groups; *group; group++) {
		for (const struct test *t = *group; t->name; t++) {
			if (!strstr(t->sentence, pattern))
				continue;
			any = true;
			good = run_test(t, reports) && good;
		}
	}
	return any && good;
}

int main(int argc, char **argv)
{
	char reports[] = "/tmp/cells.XXXXXX";
	bool good = true;

	if (argc == 3 && !strcmp(argv[1], "-x"))
		return run_here(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "-m")) /* what tests execute too */
		return cells_cpu_mover(atoi(argv[2]), (unsigned)atoi(argv[3]));
	if (argc == 3 && !strcmp(argv[1], "-e")) /* what tests execute: says its argument */
		return puts(argv[2]) < 0;
	if (argc == 2 && !strcmp(argv[1], "-l"))
		return list(), 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	dup2(STDOUT_FILENO, STDERR_FILENO); /* what was wrong stands before what failed */
	if (!mkdtemp(reports))
		return perror(reports), 2;
	if (argc == 1)
		good = run_all(reports);
	for (int i = 1; i < argc; i++)
		good = run_test(find(argv[i]), reports) && good;
	return good ? 0 : 1;
}
