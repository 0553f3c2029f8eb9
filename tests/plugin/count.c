/* SPDX-License-Identifier: MIT */
/* QEMU TCG plugin: counts the user-mode instructions of an arm64 machine by class and by whose code they are.
 *
 * qemu-system-aarch64 -plugin count.so,out=FILE[,region=NAME:ELF]...[,hot=N]
 *
 * Every user-mode instruction adds one to one cell [region][class] of its processor's table, inline. Tables are never
 * reset: the guest's mark program (mark.c) says where a labelled run starts and ends, and the run is the difference.
 * FILE is written anew, as JSON, at each end of a run.
 *
 * A region is the executable pages of an ELF file, told by their contents, so that it does not matter where a library
 * is mapped; several files may share a name. What no file holds is "other": generated code, and files not named.
 *
 * hot=N: a run also lists the N blocks of these files that executed the most instructions, as FILE+ADDRESS of their
 * first; tests/plugin/functions adds them up by function. A block that a fault leaves early counts as a whole. */
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classes.h"
#include "mark.h"
#include "regions.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* ---- counting ------------------------------------------------------------------------------------------------------- */

struct counts {
	uint64_t n[MAX_REGIONS][CLASS_COUNT];
};

static struct qemu_plugin_scoreboard *score; /* one struct counts for each processor */

static qemu_plugin_u64 cell(size_t region, int class)
{
	return (qemu_plugin_u64){ score,
		                  offsetof(struct counts, n) + (region * CLASS_COUNT + class) * sizeof(uint64_t) };
}

/* hot=N: a counter for each word of the files, where it is the first of a block. */
static struct qemu_plugin_scoreboard *blocks;
static size_t hot; /* N */

static qemu_plugin_u64 block_cell(size_t slot)
{
	return (qemu_plugin_u64){ blocks, slot * sizeof(uint64_t) };
}

static uint64_t *blocks_now(void)
{
	size_t n = (size_t)page_list->len * WORDS;
	uint64_t *now = g_new(uint64_t, n);

	for (size_t i = 0; i < n; i++)
		now[i] = qemu_plugin_u64_sum(block_cell(i));
	return now;
}

static void snapshot(struct counts *now)
{
	for (size_t r = 0; r < MAX_REGIONS; r++)
		for (int c = 0; c < CLASS_COUNT; c++)
			now->n[r][c] = qemu_plugin_u64_sum(cell(r, c));
}

/* ---- runs: what happens between a start and a stop ------------------------------------------------------------------ */

struct run {
	char *label;
	struct counts counts; /* at the start; after the end, the difference */
	uint64_t *blocks;     /* hot=N: the same */
};

static GMutex lock; /* protects all below; taken by the few marked instructions only */
static GString *label;
static struct run *current;
static GPtrArray *runs;
static const char *out_path;

static void print_counts(FILE *f, const uint64_t *n)
{
	uint64_t total = 0;

	for (int c = 0; c < CLASS_COUNT; c++)
		total += n[c];
	fprintf(f, "{\"total\": %" PRIu64, total);
	for (int c = 0; c < CLASS_COUNT; c++)
		fprintf(f, ", \"%s\": %" PRIu64, class_names[c], n[c]);
	fputc('}', f);
}

static const uint64_t *sorted; /* by what compare_blocks() compares */

static int compare_blocks(const void *a, const void *b)
{
	uint64_t x = sorted[*(const size_t *)a], y = sorted[*(const size_t *)b];

	return (x < y) - (x > y);
}

static void print_hot(FILE *f, const uint64_t *counts)
{
	size_t n = (size_t)page_list->len * WORDS, used = 0;
	g_autofree size_t *order = g_new(size_t, n);

	for (size_t i = 0; i < n; i++)
		if (counts[i])
			order[used++] = i;
	sorted = counts;
	qsort(order, used, sizeof *order, compare_blocks);
	fprintf(f, ",\n  \"hot\": [");
	for (size_t i = 0; i < MIN(used, hot); i++) {
		const struct page_of_file *page = g_ptr_array_index(page_list, order[i] / WORDS);

		fprintf(f, "%s\n   {\"block\": \"%s+0x%" PRIx64 "\", \"instructions\": %" PRIu64 "}", i ? "," : "",
		        page->file, page->address + order[i] % WORDS * 4, counts[order[i]]);
	}
	fputc(']', f);
}

static void print_run(FILE *f, const struct run *run)
{
	uint64_t all[CLASS_COUNT] = { 0 };

	fprintf(f, "{\"label\": \"%s\",\n  \"all\": ", run->label);
	for (size_t r = 0; r < region_count; r++)
		for (int c = 0; c < CLASS_COUNT; c++)
			all[c] += run->counts.n[r][c];
	print_counts(f, all);
	for (size_t r = 0; r < region_count; r++) {
		fprintf(f, ",\n  \"%s\": ", region_names[r]);
		print_counts(f, run->counts.n[r]);
	}
	if (run->blocks)
		print_hot(f, run->blocks);
	fputc('}', f);
}

static void write_out(void)
{
	g_autofree char *new_path = g_strconcat(out_path, ".new", NULL);
	FILE *f = fopen(new_path, "w");

	if (!f) {
		fprintf(stderr, "tagtso: count plugin: %s: cannot be written\n", new_path);
		return;
	}
	fprintf(f, "{\"schema\": 1, \"runs\": [");
	for (guint i = 0; i < runs->len; i++) {
		fputs(i ? ",\n " : "\n ", f);
		print_run(f, g_ptr_array_index(runs, i));
	}
	fputs("\n]}\n", f);
	if (fclose(f) != 0 || rename(new_path, out_path) != 0)
		fprintf(stderr, "tagtso: count plugin: %s: cannot be written\n", out_path);
}

static void stop(void)
{
	struct counts now;

	if (!current)
		return;
	snapshot(&now);
	for (size_t r = 0; r < MAX_REGIONS; r++)
		for (int c = 0; c < CLASS_COUNT; c++)
			current->counts.n[r][c] = now.n[r][c] - current->counts.n[r][c];
	if (hot) {
		g_autofree uint64_t *end = blocks_now();

		for (size_t i = 0; i < (size_t)page_list->len * WORDS; i++)
			current->blocks[i] = end[i] - current->blocks[i];
	}
	g_ptr_array_add(runs, current);
	current = NULL;
	write_out();
}

static void start(void)
{
	stop();
	current = g_new0(struct run, 1);
	current->label = g_strdup(label->str);
	g_string_truncate(label, 0);
	if (hot)
		current->blocks = blocks_now();
	snapshot(&current->counts);
}

/* Labels stand in JSON as they are, so what JSON would want escaped is left out. */
static void add_to_label(int c)
{
	if (c >= ' ' && c < 127 && c != '"' && c != '\\')
		g_string_append_c(label, (char)c);
}

static void marked(unsigned int cpu, void *data)
{
	unsigned int mark = GPOINTER_TO_UINT(data);

	(void)cpu;
	g_mutex_lock(&lock);
	if (mark == MARK_START)
		start();
	else if (mark == MARK_STOP)
		stop();
	else
		add_to_label(mark & 255);
	g_mutex_unlock(&lock);
}

/* ---- translation ---------------------------------------------------------------------------------------------------- */

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	uint64_t page = UINT64_MAX;
	const struct page_of_file *of = NULL;

	(void)id;
	if (qemu_plugin_tb_vaddr(tb) >> 48) /* the kernel's half of the address space */
		return;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t at = qemu_plugin_insn_vaddr(insn);
		uint32_t word;

		if (qemu_plugin_insn_data(insn, &word, sizeof word) != sizeof word)
			continue;
		if (at / PAGE != page) {
			page = at / PAGE;
			of = page_of(qemu_plugin_insn_haddr(insn));
		}
		if (hot && i == 0 && of->file)
			qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64,
			                                                  block_cell(of->slot + at % PAGE / 4),
			                                                  qemu_plugin_tb_n_insns(tb));
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64,
		                                                    cell(of->region, classify(word)), 1);
		if (IS_MARK(word))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, QEMU_PLUGIN_CB_NO_REGS,
			                                       GUINT_TO_POINTER(MARK_OF(word)));
	}
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
	(void)id, (void)data;
	g_mutex_lock(&lock);
	stop();
	g_mutex_unlock(&lock);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	if (strcmp(info->target_name, "aarch64") != 0) {
		fprintf(stderr, "tagtso: count plugin: target is %s: only aarch64 is known\n", info->target_name);
		return -1;
	}
	pages = g_hash_table_new(g_int64_hash, g_int64_equal);
	page_list = g_ptr_array_new();
	for (int i = 0; i < argc; i++) {
		if (g_str_has_prefix(argv[i], "out=")) {
			out_path = g_strdup(argv[i] + strlen("out="));
		} else if (g_str_has_prefix(argv[i], "hot=")) {
			hot = strtoul(argv[i] + strlen("hot="), NULL, 10);
		} else if (!g_str_has_prefix(argv[i], "region=") || !add_region(argv[i] + strlen("region="))) {
			fprintf(stderr,
			        "tagtso: count plugin: %s: not understood: give out=FILE, region=NAME:ELF, hot=N\n",
			        argv[i]);
			return -1;
		}
	}
	if (!out_path) {
		fprintf(stderr, "tagtso: count plugin: no file for the counts: give out=FILE\n");
		return -1;
	}
	score = qemu_plugin_scoreboard_new(sizeof(struct counts));
	hot = page_list->len ? hot : 0;
	if (hot)
		blocks = qemu_plugin_scoreboard_new((size_t)page_list->len * PAGE * 2);
	label = g_string_new(NULL);
	runs = g_ptr_array_new();
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
