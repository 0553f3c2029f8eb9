/* SPDX-License-Identifier: MIT */
/* Ends in the way that its argument names, with a second thread that has run: a number is the exit status. */
#include <signal.h>
#include <unistd.h>

#include "guest.h"

static volatile uint64_t *word;
static int *volatile nowhere;
static void *run(void *arg)
{
	for (;;)
		++*word;
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	const char *way = argc > 1 ? argv[1] : "0";

	word = malloc(64);
	*word = 0;
	pthread_create(&thread, NULL, run, NULL);
	while (*word < 1000)
		continue;
	printf("ending by %s\n", way);
	fflush(stdout);
	if (!strcmp(way, "abort"))
		abort();
	if (!strcmp(way, "term"))
		kill(getpid(), SIGTERM);
	if (!strcmp(way, "segv"))
		*nowhere = 1;
	if (!strcmp(way, "_exit"))
		_exit(9);
	exit(atoi(way));
}
