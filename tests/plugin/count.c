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
#include <elf.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mark.h"

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* ---- classes -------------------------------------------------------------------------------------------------------- */

#define CLASSES(X) \
	X(OTHER, "other")     /* no access to memory that is counted below */ \
	X(LOAD, "load")       /* plain: any size, pairs, SIMD, SVE, exclusive without acquire */ \
	X(STORE, "store")     /* plain */ \
	X(ACQUIRE, "acquire") /* LDAR LDAPR LDAPUR LDLAR LDIAPP LDAXR LDAXP */ \
	X(RELEASE, "release") /* STLR STLUR STLLR STILP STLXR STLXP */ \
	X(ATOMIC, "atomic")   /* LSE: CAS CASP SWP LDADD and the like, whatever their order */ \
	X(DMB_ISHLD, "dmb_ishld") \
	X(DMB_ISHST, "dmb_ishst") \
	X(DMB_ISH, "dmb_ish") \
	X(DMB_OTHER, "dmb_other") /* another domain: LD, ST, SY, ... */ \
	X(DSB, "dsb") \
	X(IRG, "irg") \
	X(LDG, "ldg") \
	X(STG, "stg") /* every instruction that writes tags */ \
	X(SVC, "svc")

enum {
#define X(id, name) CLASS_##id,
	CLASSES(X)
#undef X
		CLASS_COUNT
};

static const char *const class_names[] = {
#define X(id, name) name,
	CLASSES(X)
#undef X
};

/* First match wins. The order matters only where a comment says so. */
static const struct {
	uint32_t mask, value;
	int class;
} encodings[] = {
	{ 0xfffff0ff, 0xd50330bf, CLASS_DMB_OTHER }, /* refined by CRm in classify() */
	{ 0xfffff0ff, 0xd503309f, CLASS_DSB },
	{ 0xffe0001f, 0xd4000001, CLASS_SVC },
	{ 0xffe0fc00, 0x9ac01000, CLASS_IRG },
	{ 0xffe00c00, 0xd9600000, CLASS_LDG },
	{ 0xff200000, 0xd9200000, CLASS_STG }, /* after LDG, which is one of them */
	{ 0xffc00000, 0x69000000, CLASS_STG }, /* STGP: offset, pre-index, post-index */
	{ 0xffc00000, 0x69800000, CLASS_STG },
	{ 0xffc00000, 0x68800000, CLASS_STG },

	{ 0xffc00000, 0xf9800000, CLASS_OTHER }, /* PRFM, four forms */
	{ 0xffe00c00, 0xf8800000, CLASS_OTHER },
	{ 0xffe00c00, 0xf8a00800, CLASS_OTHER },
	{ 0xff000000, 0xd8000000, CLASS_OTHER },

	/* size 001000 o2 L o1 Rs o0 Rt2 Rn Rt: exclusive, ordered, compare and swap */
	{ 0x3fa07c00, 0x08a07c00, CLASS_ATOMIC },  /* CAS */
	{ 0xbfa07c00, 0x08207c00, CLASS_ATOMIC },  /* CASP */
	{ 0x3fc00000, 0x08c00000, CLASS_ACQUIRE }, /* LDAR, LDLAR */
	{ 0x3fc00000, 0x08800000, CLASS_RELEASE }, /* STLR, STLLR */
	{ 0x3fc08000, 0x08408000, CLASS_ACQUIRE }, /* LDAXR, LDAXP */
	{ 0x3fc08000, 0x08008000, CLASS_RELEASE }, /* STLXR, STLXP */
	{ 0x3fc08000, 0x08400000, CLASS_LOAD },    /* LDXR, LDXP */
	{ 0x3fc08000, 0x08000000, CLASS_STORE },   /* STXR, STXP */

	{ 0x3ffffc00, 0x38bfc000, CLASS_ACQUIRE }, /* LDAPR, which sits among the atomics */
	{ 0x3f200c00, 0x38200000, CLASS_ATOMIC },
	{ 0x3be00c00, 0x19000000, CLASS_RELEASE }, /* STLUR, integer and SIMD */
	{ 0x3b200c00, 0x19000000, CLASS_ACQUIRE }, /* LDAPUR, after STLUR */
	{ 0x3fe00c00, 0x19000800, CLASS_RELEASE }, /* STILP */
	{ 0x3fe00c00, 0x19400800, CLASS_ACQUIRE }, /* LDIAPP */
	{ 0x3fe00c00, 0x19800800, CLASS_RELEASE }, /* STLR, pre-index */
	{ 0x3fe00c00, 0x19c00800, CLASS_ACQUIRE }, /* LDAPR, post-index */
	{ 0x3b200c00, 0x19000400, CLASS_STORE },   /* CPY*, SET*: they load as well, and are counted once */

	{ 0x3b000000, 0x18000000, CLASS_LOAD }, /* literal */
	{ 0x3a400000, 0x28400000, CLASS_LOAD }, /* pairs */
	{ 0x3a400000, 0x28000000, CLASS_STORE },
	{ 0xff200400, 0xf8200400, CLASS_LOAD },  /* LDRAA, LDRAB */
	{ 0x3ec00000, 0x38000000, CLASS_STORE }, /* one integer register: only opc 00 stores */
	{ 0x3e000000, 0x38000000, CLASS_LOAD },
	{ 0x3e400000, 0x3c400000, CLASS_LOAD }, /* one SIMD register */
	{ 0x3e400000, 0x3c000000, CLASS_STORE },
	{ 0xbe400000, 0x0c400000, CLASS_LOAD }, /* SIMD structures */
	{ 0xbe400000, 0x0c000000, CLASS_STORE },
	{ 0xfe000000, 0xe4000000, CLASS_STORE }, /* SVE: 111 stores, the other three with bit 31 load */
	{ 0x9e000000, 0x84000000, CLASS_LOAD },
};

static int classify(uint32_t word)
{
	for (size_t i = 0; i < G_N_ELEMENTS(encodings); i++) {
		if ((word & encodings[i].mask) != encodings[i].value)
			continue;
		if (encodings[i].class != CLASS_DMB_OTHER)
			return encodings[i].class;
		switch (word >> 8 & 15) {
		case 9:
			return CLASS_DMB_ISHLD;
		case 10:
			return CLASS_DMB_ISHST;
		case 11:
			return CLASS_DMB_ISH;
		default:
			return CLASS_DMB_OTHER;
		}
	}
	return CLASS_OTHER;
}

/* ---- regions -------------------------------------------------------------------------------------------------------- */

enum { PAGE = 4096, MAX_REGIONS = 16 };

static const char *region_names[MAX_REGIONS] = { "other" };
static size_t region_count = 1;
static GHashTable *pages; /* hash of a page's contents -> struct page; written before the machine starts */

struct page {
	size_t region;
	const char *file;
	uint64_t address; /* as the file's symbols have it */
	size_t slot;      /* of its first word among the counters of hot=N */
};
static GPtrArray *page_list; /* by slot / WORDS */
enum { WORDS = PAGE / 4 };

static uint64_t page_hash(const void *page)
{
	const uint64_t *word = page;
	uint64_t h = 0;

	for (size_t i = 0; i < PAGE / sizeof *word; i++)
		h = (h ^ word[i]) * 0x9e3779b97f4a7c15, h ^= h >> 29;
	return h;
}

static const struct page *page_of(const void *code)
{
	static const struct page other;
	const void *page = (const void *)((uintptr_t)code & ~(uintptr_t)(PAGE - 1));
	const struct page *found;
	uint64_t hash;

	if (!code || g_hash_table_size(pages) == 0)
		return &other;
	hash = page_hash(page);
	found = g_hash_table_lookup(pages, &hash);
	return found ? found : &other;
}

static size_t region_named(const char *name)
{
	for (size_t i = 0; i < region_count; i++)
		if (strcmp(region_names[i], name) == 0)
			return i;
	if (region_count == MAX_REGIONS)
		return 0;
	region_names[region_count] = g_strdup(name);
	return region_count++;
}

static void add_pages(size_t region, const char *name, const char *file, size_t size, const Elf64_Phdr *segment)
{
	size_t from = segment->p_offset, to = segment->p_offset + segment->p_filesz;

	for (size_t at = from & ~(size_t)(PAGE - 1); at < to && at < size; at += PAGE) {
		char contents[PAGE] = { 0 };
		struct page *page = g_new(struct page, 1);
		uint64_t hash;

		memcpy(contents, file + at, MIN((size_t)PAGE, size - at));
		hash = page_hash(contents);
		*page = (struct page){ region, name, segment->p_vaddr - segment->p_offset + at,
			               (size_t)page_list->len * WORDS };
		g_ptr_array_add(page_list, page);
		g_hash_table_insert(pages, g_memdup2(&hash, sizeof hash), page);
	}
}

/* NAME:ELF */
static bool add_region(const char *spec)
{
	const char *path = strchr(spec, ':');
	g_autofree char *name = NULL, *file = NULL;
	char *base;
	const Elf64_Ehdr *elf;
	const Elf64_Phdr *segment;
	size_t size, region;

	if (!path || path == spec)
		return false;
	name = g_strndup(spec, path - spec);
	if (!g_file_get_contents(path + 1, &file, &size, NULL) || size < sizeof *elf ||
	    memcmp(file, ELFMAG, SELFMAG) != 0)
		return false;
	elf = (const Elf64_Ehdr *)file;
	if (elf->e_phoff + elf->e_phnum * sizeof *segment > size)
		return false;
	segment = (const Elf64_Phdr *)(file + elf->e_phoff);
	region = region_named(name);
	base = g_path_get_basename(path + 1); /* kept: pages name it */
	for (int i = 0; i < elf->e_phnum; i++)
		if (segment[i].p_type == PT_LOAD && segment[i].p_flags & PF_X)
			add_pages(region, base, file, size, &segment[i]);
	return true;
}

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
		const struct page *page = g_ptr_array_index(page_list, order[i] / WORDS);

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
	const struct page *of = NULL;

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
