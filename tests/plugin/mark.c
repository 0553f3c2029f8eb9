/* SPDX-License-Identifier: MIT */
/* Runs a command as one labelled run of the count plugin (count.c). On a machine without the plugin it only runs it.
 *
 * mark LABEL COMMAND...     the run is the command's life
 * mark start LABEL          the run goes on until the next stop or start
 * mark stop */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"

/* One MOVZ and one RET for each letter. */
__asm__(".text\n"
        "letters:\n"
        "	.set letter, 0\n"
        "	.rept 256\n"
        "	movz xzr, #0x7b00 + letter\n"
        "	ret\n"
        "	.set letter, letter + 1\n"
        "	.endr\n");

extern const uint32_t letters[256][2] __attribute__((visibility("hidden")));

static void start(const char *label)
{
	for (const char *c = label; *c; c++)
		((void (*)(void))(uintptr_t)letters[(unsigned char)*c])();
	__asm__ volatile(".inst %0" ::"i"(MARK_WORD(MARK_START)) : "memory");
}

static void stop(void)
{
	__asm__ volatile(".inst %0" ::"i"(MARK_WORD(MARK_STOP)) : "memory");
}

static int run(const char *label, char **command)
{
	int status;
	pid_t child;

	start(label);
	child = vfork();
	if (child == 0) {
		execvp(command[0], command);
		_exit(errno == ENOENT ? 127 : 126);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("mark");
		return 125;
	}
	stop();
	if (WIFSIGNALED(status))
		return 128 + WTERMSIG(status);
	return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "stop") == 0)
		stop();
	else if (argc == 3 && strcmp(argv[1], "start") == 0)
		start(argv[2]);
	else if (argc >= 3)
		return run(argv[1], argv + 2);
	else
		return fputs("usage: mark LABEL COMMAND... | mark start LABEL | mark stop\n", stderr), 125;
	return 0;
}
