/* SPDX-License-Identifier: MIT */
/* Calls libc and the kernel with pointers to guest memory that belongs to another thread, under the preload (profile generic), and compares with what
 * the same calls give on ordinary memory.
 *
 *     native            every case, with TAGTSO_NATIVE=alias and =share; prints "ok - ..." or "not ok - ..." for each
 *     native -x [NAME]  in this process, which has the preload already
 *
 * TAGTSO_LIB = the library (/usr/lib/libtagtso.so). Exit status 0, 1 after a failure, 77 if memory does not get tags (no MTE, or an inert shim). */
#include "native-calls.h"

/* Keeps the process at two threads, and makes all of the area its own, again and again. */
struct owner {
	struct area *area;
	sem_t go, done;
};

static void *own(void *arg)
{
	struct owner *o = arg;

	for (;;) {
		sem_wait(&o->go);
		for (size_t i = 0; i < AREA_SIZE; i += 4096) /* memory changes hands by the page */
			((volatile char *)o->area->base)[i]++;
		sem_post(&o->done);
	}
	return NULL;
}

static void give_away(struct owner *o)
{
	sem_post(&o->go);
	sem_wait(&o->done);
}

static unsigned tag_of(const void *p)
{
	uint64_t tagged = (uint64_t)p;

	__asm__ volatile(".arch_extension memtag\n\tldg %0, [%0]" : "+r"(tagged)::"memory");
	return tagged >> 56 & 15;
}

/* The first difference, as comments. */
static void explain(const struct log *expected, const struct log *found)
{
	const char *e = expected->text, *f = found->text;

	while (*e || *f) {
		const char *en = strchrnul(e, '\n'), *fn = strchrnul(f, '\n');

		if (en - e != fn - f || memcmp(e, f, (size_t)(en - e))) {
			printf("# expected: %.*s\n# found:    %.*s\n", (int)(en - e), e, (int)(fn - f), f);
			return;
		}
		e = en + (*en != 0);
		f = fn + (*fn != 0);
	}
}

static int run_here(const char *only)
{
	static _Alignas(4096) char ordinary[AREA_SIZE];
	static struct log expected, found;
	struct area host = { .base = ordinary };
	struct area guest = { .base = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		                           0) };
	const char *way = getenv("TAGTSO_NATIVE");
	static struct owner owner;
	pthread_t thread;
	int bad = 0;

	owner.area = &guest;
	sem_init(&owner.go, 0, 0);
	sem_init(&owner.done, 0, 0);
	if (guest.base == MAP_FAILED || pthread_create(&thread, NULL, own, &owner))
		return 1;
	give_away(&owner);
	if (!tag_of(guest.base)) {
		printf("# guest memory has no tags\n");
		return 77;
	}
	for (unsigned i = 0; i < NATIVE_CASES; i++) {
		if (only && strcmp(only, native_cases[i].name))
			continue;
		run_case(i, &host, &expected);
		give_away(&owner);
		run_case(i, &guest, &found);
		bool same = expected.n == found.n && !memcmp(expected.text, found.text, found.n);

		printf("%s - %s (%s)\n", same ? "ok" : "not ok", native_cases[i].name, way ? way : "alias");
		if (!same)
			explain(&expected, &found);
		fflush(stdout);
		bad += !same;
	}
	return bad != 0;
}

static int run_preloaded(const char *way)
{
	const char *library = getenv("TAGTSO_LIB");
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		setenv("TAGTSO_EMULATOR", "generic", 1);
		setenv("TAGTSO_STRICT", "1", 1);
		setenv("TAGTSO_NATIVE", way, 1);
		setenv("LD_PRELOAD", library ? library : "/usr/lib/libtagtso.so", 1);
		execl("/proc/self/exe", "native", "-x", (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && (WEXITSTATUS(status) <= 1 || WEXITSTATUS(status) == 77))
		return WEXITSTATUS(status);
	printf("not ok - the process ends as it should (%s): status %#x\n", way, (unsigned)status);
	return 1;
}

int main(int argc, char **argv)
{
	int alias, share;

	if (argc > 1)
		return run_here(argc > 2 ? argv[2] : NULL);
	alias = run_preloaded("alias");
	share = run_preloaded("share");
	return alias == 77 && share == 77 ? 77 : alias || share;
}
