/* SPDX-License-Identifier: MIT */
/* The audit plugin's report. */
#include "audit.h"

static const char *const stat_names[] = {
#define COUNT(name, text) #name,
#include "audit.def"
#undef COUNT
};
static const char *const kind_names[] = {
#define RULE(id, name, text) name,
#include "audit.def"
#undef RULE
};

static void write_oracle(FILE *f, const char *name, const struct oracle *o)
{
	fprintf(f,
	        ",\n  \"%s\": {\"private_granules\": %" PRIu64 ", \"shared_granules\": %" PRIu64
	        ", \"private_accesses\": %" PRIu64 ", \"private_plain\": %" PRIu64 "}",
	        name, o->granules, o->shared_granules, o->accesses, o->plain);
}

/* From the slice on in which half of the accesses have been made. */
static void write_traps(FILE *f, struct process *p)
{
	uint64_t all = 0, second = 0, half = (p->accesses / 2 + audit_slice() - 1) / audit_slice();

	for (uint64_t i = 0; i < SLICES; i++) {
		all += p->traps[i];
		if (i >= half)
			second += p->traps[i];
	}
	fprintf(f, ",\n  \"traps\": %" PRIu64 ", \"second_half\": {\"accesses\": %" PRIu64 ", \"traps\": %" PRIu64 "}",
	        all, p->accesses > half * audit_slice() ? p->accesses - half * audit_slice() : 0, second);
}

static void write_seen(FILE *f, const struct seen *s)
{
	const struct insn *i = s->insn;

	fprintf(f,
	        "{\"kind\": \"%s\", \"count\": %" PRIu64 ", \"pc\": \"0x%" PRIx64
	        "\", \"word\": \"%08x\", \"region\": \"%s\", \"in\": \"%s+0x%" PRIx64 "\", \"address\": \"0x%" PRIx64
	        "\", \"thread\": %u, \"id\": %u, \"tag\": %u, \"tag_before\": %u, \"plain_by\": %u, \"plain_by_id\": %u"
	        ", \"clock\": %u, \"transition_began\": %u, \"plain_at\": %u, \"barrier\": %u, "
	        "\"barrier_of_plain_by\": %u}",
	        kind_names[s->kind], s->count, i->pc, i->word, i->region, i->file ? i->file : "",
	        i->file ? i->address : 0, s->va, s->thread, s->id, s->tag, s->was, s->other, s->other_id, s->clock,
	        s->began, s->plain_at, s->barrier, s->other_barrier);
}

static void write_violations(FILE *f, struct process *p)
{
	GHashTableIter iterator;
	void *key, *value;
	const char *comma = "";
	uint64_t total = 0;

	for (unsigned k = 0; k < VIOLATION_COUNT; k++)
		total += p->kinds[k];
	fprintf(f, ",\n  \"violations\": %" PRIu64 ",\n  \"kinds\": {", total);
	for (unsigned k = 0; k < VIOLATION_COUNT; k++)
		fprintf(f, "%s\"%s\": %" PRIu64, k ? ", " : "", kind_names[k], p->kinds[k]);
	fprintf(f, "},\n  \"seen\": [");
	g_hash_table_iter_init(&iterator, p->violations);
	while (g_hash_table_iter_next(&iterator, &key, &value)) {
		fprintf(f, "%s\n   ", comma);
		write_seen(f, value);
		comma = ",";
	}
	fputc(']', f);
}

static void write_process(FILE *f, struct process *p)
{
	uint64_t stats[STAT_COUNT] = { 0 };
	unsigned owners = 0;

	for (guint i = 0; i < p->threads->len; i++) {
		struct thread *t = g_ptr_array_index(p->threads, i);

		owners += t->id != 0;
		for (unsigned s = 0; s < STAT_COUNT; s++)
			stats[s] += t->stats[s];
	}
	fprintf(f,
	        "{\"process\": %u, \"label\": \"%s\", \"threads\": %u, \"owners\": %u, \"accesses\": %" PRIu64
	        ",\n  \"counts\": {",
	        p->number, p->label, p->threads->len, owners, p->accesses);
	for (unsigned s = 0; s < STAT_COUNT; s++)
		fprintf(f, "%s\"%s\": %" PRIu64, s ? ", " : "", stat_names[s], stats[s]);
	fputc('}', f);
	write_traps(f, p);
	write_oracle(f, "whole_run", &p->whole);
	write_oracle(f, "phases", &p->phases);
	write_violations(f, p);
	fputc('}', f);
}

void audit_write(const char *path)
{
	g_autofree char *new_path = g_strconcat(path, ".new", NULL);
	FILE *f = fopen(new_path, "w");

	if (!f) {
		fprintf(stderr, "tagtso: audit plugin: %s: cannot be written\n", new_path);
		return;
	}
	fprintf(f, "{\"schema\": 1, \"phase\": %" PRIu64 ",\n \"processes\": [", audit_phase);
	for (guint i = 0; i < audit_processes->len; i++) {
		struct process *p = g_ptr_array_index(audit_processes, i);

		if (!atomic_exchange(&p->ended, true))
			audit_finish(p);
		fputs(i ? ",\n " : "\n ", f);
		write_process(f, p);
	}
	fputs("\n]}\n", f);
	if (fclose(f) != 0 || rename(new_path, path) != 0)
		fprintf(stderr, "tagtso: audit plugin: %s: cannot be written\n", path);
}
