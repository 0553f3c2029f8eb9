/* SPDX-License-Identifier: MIT */
/* fork, vfork and exec in the middle of everything. */
#include <errno.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cells.h"

extern char **environ;

enum { WORDS = PAGE / 8, PAGES = 40 };

static struct worker other;

/* The child's verdict: how many words were not as they should be. */
static unsigned result_of(pid_t pid)
{
	int status = 0;

	SAME(waitpid(pid, &status, 0), pid, "waitpid");
	CHECK(WIFEXITED(status), "the child ended by signal %d", WTERMSIG(status));
	return (unsigned)WEXITSTATUS(status);
}

static void fill(uint64_t *p, uint64_t from)
{
	for (unsigned i = 0; i < PAGES; i++) {
		if (i % 2)
			cells_put_on(&other, p + i * WORDS + i, from + i);
		else
			put(p + i * WORDS + i, from + i);
	}
}

static unsigned differences(const uint64_t *p, uint64_t from)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		n += get(p + i * WORDS + i) != from + i;
	return n;
}

static void *add_one(void *arg)
{
	uint64_t *p = arg;

	for (unsigned i = 0; i < 1000; i++)
		__atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* In the child: what it got, what it writes, and threads of its own. */
static _Noreturn void child(uint64_t *p, int go)
{
	unsigned wrong = differences(p, 100);
	char byte;

	for (unsigned i = 0; i < PAGES; i++)
		put(p + i * WORDS + i, 500 + i);
	if (read(go, &byte, 1) != 1)
		wrong++;
	wrong += differences(p, 500);
	put(p, 0);
	cells_together(3, add_one, p, 0);
	wrong += get(p) != 3000;
	_exit(wrong ? 1 : 0);
}

static void forked(pid_t (*fork_it)(void))
{
	uint64_t *p = cells_map(PAGES * PAGE);
	struct code load = cells_emit(&snippet_ldr);
	int go[2];

	cells_worker_start(&other);
	CHECK(cells_train(load, LOCAL), "no LOCAL form");
	for (unsigned round = 0; round < 5; round++) {
		fill(p, 100);
		SAME(pipe(go), 0, "pipe");
		pid_t pid = fork_it();

		if (pid == 0)
			child(p, go[0]);
		CHECK(pid > 0, "fork: %s", strerror(errno));
		SAME(differences(p, 100), 0, "words changed by the child");
		fill(p, 900);
		SAME(write(go[1], "x", 1), 1, "write");
		SAME(result_of(pid), 0, "words that were wrong in the child");
		SAME(differences(p, 900), 0, "words changed by the child later");
		SAME(load.fn(p, 0, 0), 900, "what a rewritten site reads in the parent");
		close(go[0]);
		close(go[1]);
	}
}

static pid_t raw_fork(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void libc_forked(void)
{
	forked(fork);
}

static void raw_forked(void)
{
	forked(raw_fork);
}

/* While other threads write: each word that the child sees is one that was there, and never goes back. */
static volatile bool stop;
static void *count_up(void *arg)
{
	uint64_t *p = arg;

	for (uint64_t i = 1; !stop; i++) {
		put(p, i);
		put(p + 2 * WORDS, i); /* never before the first */
	}
	return NULL;
}

static void forked_while_writing(void)
{
	uint64_t *p = cells_map(4 * PAGE);
	pthread_t thread;

	pthread_create(&thread, NULL, count_up, p);
	for (unsigned round = 0; round < 20; round++) {
		cells_sleep_ms(5);
		uint64_t before = get(p + 2 * WORDS);
		pid_t pid = fork();

		if (pid == 0) {
			uint64_t first = get(p), second = get(p + 2 * WORDS);

			cells_sleep_ms(10);
			_exit((first < second) | (second < before) << 1 | (get(p) != first) << 2);
		}
		SAME(result_of(pid), 0, "bits of what the child found wrong");
	}
	stop = true;
	pthread_join(thread, NULL);
}

/* Fork of a fork of a fork, each with a second thread. */
static void forked_deep(void)
{
	uint64_t *p = cells_map(PAGE);
	unsigned depth = 0;

	cells_worker_start(&other);
	put(p, 0);
	for (;;) {
		pid_t pid = fork();

		if (pid) {
			unsigned r = result_of(pid);

			CHECK(r == 0 && get(p) == depth, "depth %u: the child says %u, the word is %lu", depth, r,
			      (unsigned long)get(p));
			if (depth)
				_exit(r != 0 || get(p) != depth);
			return;
		}
		put(p, ++depth);
		cells_together(2, add_one, p + 8, 0);
		if (get(p + 8) != 2000ul * depth)
			_exit(2);
		if (depth == 4)
			_exit(0);
	}
}

/* ---- exec ---- */

static void check_output(int from)
{
	char text[64] = "";
	ssize_t n = 0, r;

	while (n < 60 && (r = read(from, text + n, 60 - (size_t)n)) > 0)
		n += r;
	SAME(strcmp(text, "said by a child\n"), 0, "what the child printed");
}

static void run_child(pid_t (*start)(char *const *argv, int out))
{
	cells_worker_start(&other);
	char *words = (char *)cells_others(&other);
	char *argv[] = { strcpy(words, "cells"), strcpy(words + 100, "-e"), strcpy(words + 200, "said by a child"),
		         NULL };

	for (unsigned round = 0; round < 3; round++) {
		int ends[2];

		SAME(pipe(ends), 0, "pipe");
		pid_t pid = start(argv, ends[1]);

		CHECK(pid > 0, "no child: %s", strerror(errno));
		close(ends[1]);
		check_output(ends[0]);
		SAME(result_of(pid), 0, "the child's status");
		close(ends[0]);
		cells_put_on(&other, (uint64_t *)(void *)(words + 1024), round);
		SAME(get((uint64_t *)(void *)(words + 1024)), round, "the parent's memory afterwards");
	}
}

static pid_t by_fork(char *const *argv, int out)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	dup2(out, STDOUT_FILENO);
	execv("/proc/self/exe", argv);
	_exit(9);
}

static pid_t by_vfork(char *const *argv, int out)
{
	pid_t pid = vfork();

	if (pid)
		return pid;
	dup2(out, STDOUT_FILENO);
	execve("/proc/self/exe", argv, environ);
	_exit(9);
}

static pid_t by_spawn(char *const *argv, int out)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	int e = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);

	posix_spawn_file_actions_destroy(&actions);
	return e ? -e : pid;
}

static void fork_exec(void)
{
	run_child(by_fork);
}

static void vfork_exec(void)
{
	run_child(by_vfork);
}

static void spawned(void)
{
	run_child(by_spawn);
}

static void shell(void)
{
	cells_worker_start(&other);
	char *command = (char *)cells_others(&other);

	strcpy(command, "test \"$(echo one two | tr ' ' '\\n' | wc -l)\" = 2");
	SAME(system(command), 0, "the status of a shell with a pipe");
	FILE *f = popen(strcpy(command, "echo said by a child"), "r");

	CHECK(f && fgets(command, 100, f), "popen: %s", strerror(errno));
	SAME(strcmp(command, "said by a child\n"), 0, "what was read from popen");
	SAME(f ? pclose(f) : -1, 0, "pclose");
}

/* Over a program with threads. */
static void exec_over(void)
{
	cells_worker_start(&other);
	char *words = (char *)cells_others(&other);
	char *argv[] = { strcpy(words, "true"), NULL };

	execv("/bin/true", argv);
	FAIL("execv: %s", strerror(errno));
}

const struct test cells_process[] = {
	TEST("fork", "a child of fork has the data of the moment, and neither sees the other's writes", libc_forked,
	     NULL, { "forks", '=', 5 }),
	TEST("raw-fork", "a child of clone() used as fork is isolated too", raw_forked, NULL, { "forks", '=', 5 }),
	TEST("fork-writing", "a child of fork sees a moment of what other threads write", forked_while_writing, NULL),
	TEST("fork-deep", "children of children with threads of their own are right", forked_deep, NULL),
	TEST("fork-exec", "fork and exec with words in guest memory", fork_exec, NULL),
	TEST("vfork-exec", "vfork and exec with words in guest memory", vfork_exec, NULL),
	TEST("spawn", "posix_spawn with words in guest memory", spawned, NULL),
	TEST("shell", "system and popen with the command in guest memory", shell, NULL),
	TEST("exec", "exec replaces a program that has threads", exec_over, NULL),
	TEST(NULL, NULL, NULL, NULL),
};
