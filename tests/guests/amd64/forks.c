/* SPDX-License-Identifier: MIT */
/* fork in a guest with several threads: the data of the moment, and isolation in both directions. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

enum { BLOCKS = 64, SIZE = 3000, ROUNDS = 5 };

static char *block[BLOCKS];
static uint64_t *mapped;
static int global = 1;

static void fill(int c)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		memset(block[i], c + (int)i % 16, SIZE);
	mapped[100] = (uint64_t)c;
	global = c;
}

static bool is_filled(int c)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		for (unsigned k = 0; k < SIZE; k++)
			if (block[i][k] != c + (int)i % 16)
				return false;
	return mapped[100] == (uint64_t)c && global == c;
}

static volatile bool done;
static void *allocate(void *arg)
{
	(void)arg;
	while (!done) {
		char *p = malloc(500);

		memset(p, 5, 500);
		WANT(p[499] == 5);
		free(p);
	}
	return NULL;
}

static void *in_child(void *arg)
{
	char *p = malloc(10000);

	memset(p, (int)(uintptr_t)arg, 10000);
	WANT(p[9999] == (int)(uintptr_t)arg);
	free(p);
	return NULL;
}

static int child(int go)
{
	char byte;
	int wrong = !is_filled('A');

	fill('C');
	wrong |= (read(go, &byte, 1) != 1) << 1;
	wrong |= !is_filled('C') << 2;
	guest_run_threads(3, in_child);
	wrong |= (atomic_load(&guest_wrong) != 0) << 3;
	return wrong;
}

static int status_of(pid_t pid)
{
	int status = -1;

	WANT(waitpid(pid, &status, 0) == pid);
	return status;
}

static void isolated(void)
{
	for (int round = 0; round < ROUNDS; round++) {
		int go[2];

		fill('A');
		WANT(pipe(go) == 0);
		pid_t pid = fork();

		if (pid == 0)
			_exit(child(go[0]));
		WANT(pid > 0 && is_filled('A'));
		fill('P');
		WANT(write(go[1], "x", 1) == 1);
		WANT(status_of(pid) == 0);
		WANT(is_filled('P'));
		close(go[0]);
		close(go[1]);
	}
	guest_say("a child of fork has the parent's data, and neither sees the other's writes");
}

static void executed(void)
{
	char *word = strdup("exit 7");
	pid_t pid = fork();

	if (pid == 0) {
		char *argv[] = { strdup("sh"), strdup("-c"), word, NULL };

		execv(strdup("/bin/sh"), argv);
		_exit(1);
	}
	WANT(status_of(pid) == 7 << 8);
	pid = vfork();
	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", "exit 8", (char *)NULL);
		_exit(1);
	}
	WANT(status_of(pid) == 8 << 8);
	free(word);
	guest_say("fork and vfork with exec give the child's status");
}

static void piped(void)
{
	char *line = malloc(100), *command = strdup("echo three words here | wc -w");
	FILE *f = popen(command, "r");

	WANT(f && fgets(line, 100, f) && atoi(line) == 3);
	WANT(f && pclose(f) == 0);
	WANT(system(strcpy(command, "exit 3")) == 3 << 8);
	free(line);
	free(command);
	guest_say("popen and system work with strings in guest memory");
}

int main(void)
{
	pthread_t threads[2];

	for (unsigned i = 0; i < BLOCKS; i++)
		block[i] = malloc(SIZE);
	mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, allocate, NULL);
	isolated();
	executed();
	piped();
	done = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	return guest_status();
}
