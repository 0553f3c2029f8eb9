/* SPDX-License-Identifier: MIT */
/* The JSON report of a process, described in man/tagtso-report.5 and held to man/tagtso-report.schema.json. */
#ifndef TAGTSO_SHIM_REPORT_H
#define TAGTSO_SHIM_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "knobs.h"

enum { TAGTSO_REPORT_SCHEMA = 1 };

/* An instruction that trapped and that the decoder does not know. */
struct tagtso_report_unknown {
	uint32_t word;
	uint64_t count;          /* times that it trapped */
	const char *disassembly; /* Capstone's text, or NULL */
};

/* What the report says beyond counters and sites, which it reads itself. NULL strings are written as "". */
struct tagtso_report_extra {
	const struct tagtso_knobs *knobs; /* NULL: tagtso_knobs */
	const char *program;              /* base name, also for %e */
	const char *mode;                 /* in force: "enforce", "observe", "off", ... */
	const char *ordering;             /* "halfst", "emitted": how accesses to shared memory are ordered */
	const char *owner;                /* "thread", "cpu": what owns memory */
	const char *emulator;             /* profile in force, "none" */
	const char *state;                /* "active", "dormant", "inert" */
	const char *why;                  /* of dormant and inert: the reason, else "" */
	const struct tagtso_report_unknown *unknown;
	size_t unknowns;
	uint64_t site_bytes; /* site table and index, in use */
	uint64_t page_bytes; /* page metadata and index, in use */
};

/* Writes the report to the file that pattern names (%p = process id, %e = program, %% = %), all of it or nothing: under another name
 * first, then renamed. Devices and pipes are written directly; "-" is standard error. 0 or -errno. No allocation, no libc state:
 * it may be called at any time, also from a process that is breaking down, but not from two threads at once. */
int tagtso_report_write(const char *pattern, const struct tagtso_report_extra *extra);

/* pattern with its % sequences replaced, into path. 0 or -ENAMETOOLONG. Slashes in the program's name become '_'. */
int tagtso_report_path(char *path, size_t size, const char *pattern, const char *program, int pid);

#endif
