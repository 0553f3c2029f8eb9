/* SPDX-License-Identifier: MIT */
/* Compares the interpreter with the processor: each word runs natively on one copy of registers and memory and interpreted on another. */
#include <getopt.h>
#include <time.h>

#include "differential-access.h"
#include "differential-integer.h"
#include "differential-outofline.h"
#include "differential-span.h"
#include "differential-vector.h"

/* ---- the program --------------------------------------------------------------------------------------------------------- */

/* cls: of accesses, or out of line: then slots says which. */
static void noticed(enum plant plant, unsigned cls, const char *slots, const char *sentence)
{
	unsigned before = failures;
	bool caught;

	options.plant = plant;
	options.quiet = true;
	if (cls == TAGTSO_OUT_OF_LINE)
		slot_runs(slot_class(slots), 300);
	else
		class_runs(cls, tagtso_class_name(cls), 500, false);
	caught = failures > before;
	failures = before + !caught;
	options.plant = PLANT_NONE;
	options.quiet = false;
	result(caught, sentence);
}

static void plants(void)
{
	noticed(PLANT_SIGN, TAGTSO_LOAD, NULL, "a planted missing sign extension is caught");
	noticed(PLANT_WRITEBACK, TAGTSO_STORE_PAIR, NULL, "a planted missing write-back is caught");
	noticed(PLANT_ZEROEXT, TAGTSO_LOAD, NULL, "a planted missing zero extension is caught");
	if (!have_mte)
		return;
	noticed(PLANT_SIZE, TAGTSO_OUT_OF_LINE, "copy", "a planted wrong reach of a memory copy is caught");
	if (have_sve())
		noticed(PLANT_SHIFT, TAGTSO_OUT_OF_LINE, "gather", "a planted wrong reach of a gather is caught");
}

/* The classes with -at-edge, and those out of line, have met each kind; a SIGBUS is an atomic or ordered access that is not aligned. */
static void all_kinds_of_faults(void)
{
	char sentence[160];

	snprintf(sentence, sizeof(sentence),
	         "faults were the same with nothing mapped (%u), not permitted (%u) and not aligned (%u)",
	         faults_seen[0], faults_seen[1], faults_seen[2]);
	result(faults_seen[0] && faults_seen[1] && faults_seen[2], sentence);
	failures += !(faults_seen[0] && faults_seen[1] && faults_seen[2]);
}

static void usage(void)
{
	fprintf(stderr,
	        "usage: differential [--count N] [--seed S] [--class NAME] [--only INSTANCE] [--plant "
	        "sign|writeback|zeroext|shift|size]\n"
	        "NAME: a class of accesses (load, store-pair, ...; with -at-edge: faults), integer, span, "
	        "random-span, moved-span, span-end,\n"
	        "      contention, sve-live, pages, plant, structure, authenticated, copy, sve, gather, sme, rare\n");
	exit(2);
}

static enum plant plant_of(const char *name)
{
	static const char *const names[] = { "none", "sign", "writeback", "zeroext", "shift", "size" };

	for (unsigned i = 0; i < NPLANTS; i++) {
		if (!strcmp(name, names[i]))
			return i;
	}
	usage();
	return PLANT_NONE;
}

static void arguments(int argc, char **argv)
{
	static const struct option table[] = {
		{ "count", required_argument, NULL, 'c' }, { "seed", required_argument, NULL, 's' },
		{ "class", required_argument, NULL, 'k' }, { "only", required_argument, NULL, 'o' },
		{ "plant", required_argument, NULL, 'p' }, { NULL, 0, NULL, 0 },
	};
	int option;

	options.seed = (uint64_t)time(NULL);
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (option) {
		case 'c':
			options.count = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'k':
			options.class = optarg;
			break;
		case 'o':
			options.only = strtol(optarg, NULL, 0);
			break;
		case 'p':
			options.plant = plant_of(optarg);
			break;
		default:
			usage();
		}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *class;
		void (*test)(void);
	} tests[] = {
		{ "integer", integers },          { "span", shaped_spans },       { "random-span", random_spans },
		{ "moved-span", moved_spans },    { "span-end", spans_that_end }, { "span-end", lone_store },
		{ "span-end", exclusives_alone }, { "contention", contentions },  { "sve-live", vectors },
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	arguments(argc, argv);
	process_init();
	if (tagtso_outofline_init())
		return 125;
	printf("# seed %llu; %s\n", (unsigned long long)options.seed,
	       have_mte ? "with MTE: words trap by breakpoints and by their tags"
	                : "no MTE: words trap by breakpoints only");
	accesses();
	out_of_line();
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (wanted(tests[i].class))
			tests[i].test();
	}
	if (!options.class)
		all_kinds_of_faults();
	else if (!options.known)
		usage();
	if (options.plant == PLANT_NONE && wanted("plant"))
		plants();
	if (absent)
		printf("# %u words were left out: this processor does not have them\n", absent);
	if (unchecked)
		printf("# %u LDAPUR, STLUR or LD1, ST1 of over 32 bytes did not trap: an emulation that does not check "
		       "them\n",
		       unchecked);
	printf("# %u failures\n", failures);
	return failures > 0;
}
