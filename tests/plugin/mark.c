/* SPDX-License-Identifier: MIT */
/* Runs a command as one labelled run of the count plugin (count.c). On a machine without the plugin it only runs it.
 *
 * mark LABEL COMMAND...     the run is the command's life
 * mark start LABEL          the run goes on until the next stop or start
 * mark stop */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "marks.h"

static int run(const char *label, char **command)
{
	int status;
	pid_t child;

	mark_start(label);
	child = vfork();
	if (child == 0) {
		execvp(command[0], command);
		_exit(errno == ENOENT ? 127 : 126);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("mark");
		return 125;
	}
	mark_stop();
	if (WIFSIGNALED(status))
		return 128 + WTERMSIG(status);
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "stop") == 0)
		mark_stop();
	else if (argc == 3 && strcmp(argv[1], "start") == 0)
		mark_start(argv[2]);
	else if (argc >= 3)
		return run(argv[1], argv + 2);
	else
		return fputs("usage: mark LABEL COMMAND... | mark start LABEL | mark stop\n", stderr), 125;
	return 0;
}
