/* SPDX-License-Identifier: MIT */
/* Parts of the `tagtso` command. */
#ifndef TAGTSO_SHIM_TAGTSO_H
#define TAGTSO_SHIM_TAGTSO_H

#include <stdbool.h>

/* Exit statuses, those of env(1) and nohup(1). */
enum { TAGTSO_EXIT_FAILED = 125, TAGTSO_EXIT_CANNOT_RUN = 126, TAGTSO_EXIT_NOT_FOUND = 127 };

/* `tagtso knobs`: the table on standard output. */
void tagtso_show_knobs(bool json);

/* `tagtso report FILE` ("-" = standard input): the report as a table. 0 or an exit status. */
int tagtso_show_report(const char *file);

#endif
