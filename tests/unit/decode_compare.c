/* SPDX-License-Identifier: MIT */
/* Compares tagtso_decode() with a disassembler over all words, or over one word of every N: decode_compare --help. */
#include <dlfcn.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>

#include "decode_oracle.h"

/* ---- theirs: LLVM, if a shared library of it is there. Capstone 4 (Debian 12) knows no LSE; LLVM knows all. --------- */

/* From llvm-c/Disassembler.h, which has been stable since LLVM 3. */
struct llvm {
	void *disassembler;
	size_t (*disassemble)(void *disassembler, uint8_t *bytes, uint64_t size, uint64_t pc, char *text, size_t room);
};

static void *llvm_symbol(void *library, const char *name)
{
	void *symbol = dlsym(library, name);

	if (!symbol) {
		fprintf(stderr, "decode_compare: no %s in the LLVM library\n", name);
		exit(2);
	}
	return symbol;
}

static void llvm_open(struct llvm *llvm, const char *path)
{
	static const char *const initialisers[] = { "LLVMInitializeAArch64TargetInfo", "LLVMInitializeAArch64TargetMC",
		                                    "LLVMInitializeAArch64Disassembler" };
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	void *(*create)(const char *, const char *, const char *, void *, int, void *, void *);

	if (!library) {
		fprintf(stderr, "decode_compare: %s\n", dlerror());
		exit(2);
	}
	for (size_t i = 0; i < sizeof(initialisers) / sizeof(initialisers[0]); i++)
		((void (*)(void))llvm_symbol(library, initialisers[i]))();
	create = (void *(*)(const char *, const char *, const char *, void *, int, void *, void *))llvm_symbol(
		library, "LLVMCreateDisasmCPUFeatures");
	llvm->disassemble = (size_t(*)(void *, uint8_t *, uint64_t, uint64_t, char *, size_t))llvm_symbol(
		library, "LLVMDisasmInstruction");
	llvm->disassembler = create("aarch64", "generic", "+all", NULL, 0, NULL, NULL);
	if (!llvm->disassembler) {
		fprintf(stderr, "decode_compare: LLVM has no AArch64\n");
		exit(2);
	}
}

/* "pldl1keep" is #0: kind, level, policy. */
static int prefetch_number(const char *name)
{
	static const char *const kinds[] = { "pld", "pli", "pst" };
	static const char *const levels[] = { "l1", "l2", "l3", "slc" };
	static const char *const policies[] = { "keep", "strm" };
	char candidate[16];

	for (int i = 0; i < 24; i++) {
		int length = snprintf(candidate, sizeof(candidate), "%s%s%s", kinds[i / 8], levels[i / 2 % 4],
		                      policies[i % 2]);

		if (!strncmp(name, candidate, length) && name[length] == ',')
			return i;
	}
	return -1;
}

/* LLVM's text in our form: no comment, no leading or repeated blanks, none inside braces, prefetch operations as numbers. */
static void normalise(const char *text, struct line *line)
{
	line->length = 0;
	text += strspn(text, " \t");
	for (; *text && !starts_with(text, " //"); text++) {
		char previous = line->length ? line->text[line->length - 1] : ' ';

		if (*text == '\t' || *text == ' ') {
			if (previous != ' ' && previous != '{' && text[1] != '}')
				put(line, " ");
		} else if (previous == ' ' && starts_with(line->text, "prf") && prefetch_number(text) >= 0) {
			put(line, "#%d", prefetch_number(text));
			text += strcspn(text, ",") - 1;
		} else {
			put(line, "%c", *text);
		}
	}
}

static void ask_llvm(struct llvm *llvm, uint32_t word, struct opinion *opinion)
{
	uint8_t bytes[4] = { word, word >> 8, word >> 16, word >> 24 };
	char text[160];
	const char *lines;

	*opinion = (struct opinion){ .valid = llvm->disassemble(llvm->disassembler, bytes, 4, 0, text, sizeof(text)) ==
		                              4 };
	if (!opinion->valid)
		return;
	opinion->exact = true;
	normalise(text, &opinion->line);
	lines = opinion->line.text;
	opinion->memory = memory_mnemonic(lines) || strstr(lines, "[x") || strstr(lines, "[sp") || strstr(lines, "[z");
}

/* ---- differences, counted by what they have in common ---------------------------------------------------------- */

struct difference_group {
	enum difference difference;
	const char *ours;   /* name of our row, or of our class */
	char theirs[24];    /* their mnemonic */
	const char *reason; /* NULL = unexplained */
	uint64_t count;
	uint32_t word; /* the first one */
	struct line our_line, their_line;
};

static struct difference_group groups[4096];
static size_t ngroups;

static const char *our_name(const struct tagtso_memop *op)
{
	if (op->cls == TAGTSO_OTHER)
		return "other";
	for (size_t i = 0; i < tagtso_nencodings; i++) {
		if ((op->word & tagtso_encodings[i].mask) == tagtso_encodings[i].value)
			return tagtso_encodings[i].name;
	}
	return "unknown";
}

static void record(enum difference difference, const struct tagtso_memop *op, const struct line *ours,
                   const struct opinion *theirs, const char *reason)
{
	char mnemonic[24] = "";
	const char *name = our_name(op);
	size_t i;

	if (theirs->valid)
		snprintf(mnemonic, sizeof(mnemonic), "%.*s", (int)strcspn(theirs->line.text, " "), theirs->line.text);
	for (i = 0; i < ngroups; i++) {
		if (groups[i].difference == difference && groups[i].ours == name && groups[i].reason == reason &&
		    !strcmp(groups[i].theirs, mnemonic))
			break;
	}
	if (i == sizeof(groups) / sizeof(groups[0])) {
		fprintf(stderr, "decode_compare: too many kinds of difference\n");
		exit(1);
	}
	if (i == ngroups) {
		groups[i] = (struct difference_group){ .difference = difference,
			                               .ours = name,
			                               .reason = reason,
			                               .word = op->word,
			                               .our_line = *ours,
			                               .their_line = theirs->line };
		memcpy(groups[i].theirs, mnemonic, sizeof(mnemonic));
		ngroups++;
	}
	groups[i].count++;
}

static uint64_t print_groups(bool explained)
{
	uint64_t total = 0;

	for (size_t i = 0; i < ngroups; i++) {
		const struct difference_group *group = &groups[i];

		if (!!group->reason != explained)
			continue;
		total += group->count;
		printf("%s: %" PRIu64 " x %s / %s, first %08" PRIx32 ": ours '%s', theirs '%s'%s%s\n",
		       difference_names[group->difference], group->count, group->ours,
		       group->theirs[0] ? group->theirs : "invalid", group->word, group->our_line.text,
		       group->their_line.text, explained ? "; " : "", explained ? group->reason : "");
	}
	return total;
}

/* ---- the run ---------------------------------------------------------------------------------------------------- */

struct run {
	uint64_t stride, seed, first, last;
	bool all, verbose;
	const char *llvm; /* path of the library, NULL = Capstone */
};

/* Spreads its argument's bits (the finaliser of MurmurHash3), to pick one word out of each stride. */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 33) * 0xff51afd7ed558ccd;
	x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53;
	return x ^ x >> 33;
}

static uint64_t compare_words(const struct run *run)
{
	struct llvm llvm = { 0 };
	csh capstone;
	cs_insn *insn;
	uint64_t compared = 0;
	unsigned oracle = run->llvm ? ORACLE_LLVM : ORACLE_CAPSTONE;

	if (run->llvm)
		llvm_open(&llvm, run->llvm);
	if (cs_open(CS_ARCH_ARM64, CS_MODE_ARM, &capstone) != CS_ERR_OK)
		exit(2);
	cs_option(capstone, CS_OPT_DETAIL, CS_OPT_ON);
	insn = cs_malloc(capstone);
	for (uint64_t start = run->first; start <= run->last; start += run->stride) {
		uint32_t word = start + mix(start ^ run->seed) % run->stride;
		struct tagtso_memop op;
		struct line ours;
		struct opinion theirs;
		enum difference difference;

		if (!run->all && (word & 0x0a000000) != 0x08000000)
			continue;
		tagtso_decode(word, &op);
		describe(&op, &ours);
		if (run->llvm)
			ask_llvm(&llvm, word, &theirs);
		else
			ask_capstone(capstone, insn, word, &theirs);
		compared++;
		difference = compare(&op, &ours, &theirs);
		if (difference != AGREED) {
			const struct exception *exception = explain(difference, oracle, word, &theirs);

			record(difference, &op, &ours, &theirs, exception ? exception->reason : NULL);
		}
	}
	cs_free(insn, 1);
	cs_close(&capstone);
	return compared;
}

static const char usage[] =
	"Usage: decode_compare [OPTION]...\n"
	"Decodes words with tagtso_decode() and with Capstone, or LLVM, and prints the differences\n"
	"that have no explanation, grouped, with the first word of each group.\n"
	"  --stride N      one word out of every N (default 1: each one)\n"
	"  --seed S        which one of the N (default 0)\n"
	"  --first WORD, --last WORD\n"
	"                  between these (default 0 to 0xffffffff)\n"
	"  --all           not only the loads-and-stores space\n"
	"  --llvm LIBRARY  with LLVM's shared library, for example libLLVM.so.19.1\n"
	"  --verbose       print the explained differences too\n"
	"Exit status: 0 = all explained, 1 = not, 2 = cannot compare.\n";

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (!*text || *end) {
		fprintf(stderr, "decode_compare: not a number: %s\n", text);
		exit(2);
	}
	return value;
}

static void parse(int argc, char **argv, struct run *run)
{
	static const struct option options[] = {
		{ "stride", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "first", required_argument, NULL, 'f' },
		{ "last", required_argument, NULL, 'l' },
		{ "llvm", required_argument, NULL, 'L' },
		{ "all", no_argument, NULL, 'a' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	*run = (struct run){ .stride = 1, .last = UINT32_MAX };
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'n':
			run->stride = number(optarg);
			break;
		case 's':
			run->seed = number(optarg);
			break;
		case 'f':
			run->first = number(optarg);
			break;
		case 'l':
			run->last = number(optarg);
			break;
		case 'L':
			run->llvm = optarg;
			break;
		case 'a':
			run->all = true;
			break;
		case 'v':
			run->verbose = true;
			break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			exit(option == 'h' ? 0 : 2);
		}
	}
	if (!run->stride || run->last > UINT32_MAX || optind != argc) {
		fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct run run;
	uint64_t compared, explained, wrong;

	parse(argc, argv, &run);
	compared = compare_words(&run);
	wrong = print_groups(false);
	if (run.verbose)
		print_groups(true);
	explained = 0;
	for (size_t i = 0; i < ngroups; i++)
		explained += groups[i].reason ? groups[i].count : 0;
	printf("%" PRIu64 " words compared, %" PRIu64 " differ and are explained, %" PRIu64 " differ and are not\n",
	       compared, explained, wrong);
	return wrong != 0;
}
