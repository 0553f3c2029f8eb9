/* SPDX-License-Identifier: MIT */
/* Start-up: knobs, profile, probe, decide; and the report at the end. Runs as the preload's constructor, before the emulator's main. */
#include <capstone/capstone.h>
#include <errno.h>
#include <linux/prctl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "../alloc/cpu.h"
#include "../alloc/heap.h"
#include "../alloc/owner.h"
#include "../alloc/probe.h"
#include "../alloc/sys.h"
#include "../alloc/window.h"
#include "../interp/outofline.h"
#include "../interp/patch.h"
#include "../interp/reclaim.h"
#include "../interp/site.h"
#include "knobs.h"
#include "libc-hooks.h"
#include "native.h"
#include "profile.h"
#include "report.h"
#include "say.h"
#include "signals.h"
#include "state.h"
#include "stats.h"
#include "trap.h"

#ifndef HWCAP2_MTE
#define HWCAP2_MTE (1 << 18)
#endif

enum { EXIT_STRICT = 125 };

const struct tagtso_profile *tagtso_profile;

static const char *inert_why; /* why the shim does nothing, for the report */
static bool
	bystander; /* no emulator, and none was asked for: a child that got the preload with the environment; it reports nothing */
static const char *mode = "off";
static char program[64];

static void read_program_name(void)
{
	long fd = tagtso_sys(__NR_openat, -100 /* AT_FDCWD */, "/proc/self/comm", 0, 0);
	long n = fd < 0 ? 0 : tagtso_sys(__NR_read, fd, program, sizeof(program) - 1);

	if (fd >= 0)
		tagtso_sys(__NR_close, fd);
	program[n > 0 ? n - 1 : 0] = 0; /* without its newline */
}

static void complain(const char *line, void *arg)
{
	(void)arg;
	tagtso_say("%s", line);
}

/* The program runs as if we were not there; `level` is how verbose one must be to be told. */
static void stay_inert(unsigned level, const char *why, const char *cure)
{
	inert_why = why;
	if (tagtso_knobs.strict && level == 0) {
		tagtso_say("%s: %s", why, cure);
		tagtso_sys(__NR_exit_group, EXIT_STRICT);
	}
	if (tagtso_knobs.verbose >= level)
		tagtso_say("inert: %s: %s", why, cure);
}

/* --- probe --------------------------------------------------------------------------------------------------------- */

static bool probe(void)
{
	if (!(getauxval(AT_HWCAP2) & HWCAP2_MTE)) {
		stay_inert(0, "no memory tagging (MTE) on this processor or kernel",
		           "it needs Armv8.5 MTE and CONFIG_ARM64_MTE; the program runs as it would without the shim");
		return false;
	}
	if (getauxval(AT_PAGESZ) != TAGTSO_PAGE_SIZE) {
		stay_inert(0, "the kernel's page size is not 4096 bytes", "boot a kernel with 4 KiB pages");
		return false;
	}
	if (tagtso_sys(__NR_prctl, PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_NONE, 0, 0, 0) != 0) {
		stay_inert(0, "the kernel refuses tagged addresses (prctl PR_SET_TAGGED_ADDR_CTRL)",
		           "allow it: sysctl abi.tagged_addr_disabled=0");
		return false;
	}
	if (!tagtso_sys_membarrier_init()) {
		stay_inert(0, "no membarrier(PRIVATE_EXPEDITED) in this kernel, or a seccomp filter refuses it",
		           "it needs Linux 4.16 or later with CONFIG_MEMBARRIER");
		return false;
	}
	return true;
}

static void fail(const char *what, int e)
{
	char why[160];

	tagtso_format(why, sizeof(why), "%s failed: error %d (%s)", what, -e, strerrordesc_np(-e));
	stay_inert(0, strdup(why), "see libtagtso(7), START-UP");
}

static bool set_up(void)
{
	const char *what = "";
	int e = tagtso_window_init(tagtso_knobs.backing, tagtso_knobs.window, &what);

	if (!e) {
		what = "reserving a bit for each page (TAGTSO_WINDOW)";
		e = tagtso_probe_init(tagtso_window.pages);
	}
	if (!e) {
		what = "reserving the site table (TAGTSO_SITES)";
		e = tagtso_site_init(tagtso_knobs.sites);
	}
	if (!e) {
		what = "reserving slots for unknown instructions";
		e = tagtso_outofline_init();
	}
	if (!e) {
		/* Before jemalloc registers its own: what is registered last is called first, and its locks come before ours. */
		tagtso_fork_init();
		e = tagtso_heap_init(&what);
	}
	if (!e) {
		what = "installing the SIGSEGV handler";
		e = tagtso_signals_install(tagtso_trap);
	}
	if (e)
		fail(what, e);
	return !e;
}

/* False = inert, and said why. */
static bool choose_owner(bool relax)
{
	const char *missing = NULL;

	/* The kernel reads the descriptor of a restartable sequence some time after the thread has left it: islands have them. */
	if (tagtso_knobs.owner == TAGTSO_OWNER_CPU)
		tagtso_reclaim_never();
	if (tagtso_knobs.owner == TAGTSO_OWNER_CPU)
		missing = relax ? "mode relax has threads for owners only" : tagtso_cpu_init();
	if (missing && tagtso_knobs.strict)
		stay_inert(0, missing, "use TAGTSO_OWNER=thread");
	else if (missing)
		tagtso_say("TAGTSO_OWNER=cpu: %s: memory is owned by threads instead", missing);
	return !inert_why;
}

/* Which mode is in force for this profile; NULL = inert, and said why. */
static const char *choose_mode(const struct tagtso_profile *profile)
{
	switch (tagtso_knobs.mode) {
	case TAGTSO_MODE_ENFORCE: /* accesses that are ordered already are so once more */
		return "enforce";
	case TAGTSO_MODE_RELAX:
		if (profile->may_relax)
			return "relax";
		stay_inert(0, "TAGTSO_MODE=relax is for emulators that emit ordered accesses; this one does not",
		           "use TAGTSO_MODE=enforce or auto");
		return NULL;
	case TAGTSO_MODE_OBSERVE:
		tagtso_knobs.threshold = 0;
		return "observe";
	default:
		return profile->emits_ordered ? "relax" : "enforce";
	}
}

/* Relax: shared memory has the tag with which accesses as emitted pass, and they are what orders it. */
static void set_tags(bool relax)
{
	tagtso_shared_tag = relax ? TAGTSO_TAG_NONE : TAGTSO_TAG_SHARED;
	tagtso_owner_limits.twice = relax;
	tagtso_patch_relaxes = relax;
}

static const char *ordering(void)
{
	return tagtso_shared_tag ? "halfst" : "emitted";
}

/* Before anything is installed. What it changes in the emulator's text stays, and does nothing as long as nothing is active. */
static bool attach(const struct tagtso_profile *profile)
{
	const char *what = "";
	int e = profile->attach ? profile->attach(&what) : 0;

	if (e)
		fail(what, e);
	return !e;
}

/* What owns memory, in words. */
static const char *owner(void)
{
	return tagtso_cpu.owns ? "cpu" : "thread";
}

static void set_environment(const struct tagtso_profile *profile)
{
	for (const char *const(*e)[2] = profile->environment; e && (*e)[0]; e++)
		setenv((*e)[0], (*e)[1], 1);
}

static void decide(void)
{
	const struct tagtso_profile *profile;

	if (tagtso_knobs.mode == TAGTSO_MODE_OFF) {
		stay_inert(bystander ? 2 : 1, "TAGTSO_MODE=off", "as asked");
		return;
	}
	profile = tagtso_profile_find(tagtso_knobs.emulator);
	if (!profile) {
		stay_inert(bystander ? 2 : 0, "not a known emulator", "TAGTSO_EMULATOR names the profiles");
		return;
	}
	mode = choose_mode(profile);
	bool relax = mode &&
	             (!strcmp(mode, "relax") || (tagtso_knobs.mode == TAGTSO_MODE_OBSERVE && profile->emits_ordered));

	if (!mode || !probe() || !choose_owner(relax) || !attach(profile) || !set_up()) {
		mode = "off";
		return;
	}
	set_tags(relax);
	tagtso_owner_limits.handovers = tagtso_knobs.handovers;
	tagtso_owner_limits.conflicts = tagtso_knobs.conflicts;
	tagtso_owner_limits.batch = tagtso_knobs.batch;
	tagtso_owner_limits.forget = tagtso_knobs.forget;
	tagtso_hysteresis = (struct tagtso_hysteresis){
		.local = tagtso_knobs.local ? tagtso_knobs.local : tagtso_knobs.threshold,
		.shared = tagtso_knobs.shared ? tagtso_knobs.shared : tagtso_knobs.threshold,
		.flips = tagtso_knobs.flips,
		.decay = tagtso_knobs.decay,
	};
	/* That a claim after a probe is sound is shown for halfst, and where a thread is the owner. */
	tagtso_probe_limits.pages = tagtso_owner_limits.twice || tagtso_cpu.owns ? 0 : (unsigned)tagtso_knobs.probes;
	tagtso_probe_limits.after = tagtso_knobs.patience;
	tagtso_patch_set_idle(tagtso_probe_run);
	set_environment(profile);
	tagtso_profile = profile;
	TAGTSO_SAY(1, "%s in mode %s: owners are %ss, ordering %s, threshold %u, dormant until a second thread starts",
	           profile->name, mode, owner(), ordering(), tagtso_knobs.threshold);
}

static void be_silent(const char *line, void *arg)
{
	(void)line;
	(void)arg;
}

/* The emulator has said already what is wrong with the knobs, and its child is not to end for it. */
static void read_knobs(void)
{
	tagtso_knobs_parse(&tagtso_knobs, environ, be_silent, NULL);
	bystander = tagtso_knobs.emulator == TAGTSO_EMULATOR_AUTO && !tagtso_profile_find(TAGTSO_EMULATOR_AUTO) &&
	            !getenv("TAGTSO_EMULATOR");
	if (!bystander && tagtso_knobs_parse(&tagtso_knobs, environ, complain, NULL) && tagtso_knobs.strict)
		tagtso_sys(__NR_exit_group, EXIT_STRICT);
}

__attribute__((constructor(101))) static void start(void)
{
	read_program_name();
	tagtso_libc_init();
	tagtso_signals_init();
	tagtso_threads_init();
	read_knobs();
	decide();
}

/* --- the report ---------------------------------------------------------------------------------------------------- */

enum { TEXT_SIZE = 64 };

static char unknown_text[TAGTSO_UNKNOWN_WORDS][TEXT_SIZE];

/* Capstone allocates: only where the process ends in an orderly way and something is to be said. */
static void disassemble(struct tagtso_report_unknown *unknown, size_t n)
{
	csh handle;

	if (!n || cs_open(CS_ARCH_ARM64, CS_MODE_ARM, &handle) != CS_ERR_OK)
		return;
	for (size_t i = 0; i < n; i++) {
		cs_insn *insn;

		if (cs_disasm(handle, (const uint8_t *)&unknown[i].word, 4, 0, 1, &insn) != 1)
			continue;
		tagtso_format(unknown_text[i], TEXT_SIZE, "%s %s", insn->mnemonic, insn->op_str);
		unknown[i].disassembly = unknown_text[i];
		cs_free(insn, 1);
	}
	cs_close(&handle);
}

static size_t collect_unknown(struct tagtso_report_unknown *out)
{
	size_t n = 0;

	for (; n < TAGTSO_UNKNOWN_WORDS && atomic_load(&tagtso_unknown[n].word); n++)
		out[n] = (struct tagtso_report_unknown){ atomic_load(&tagtso_unknown[n].word),
			                                 atomic_load(&tagtso_unknown[n].count), NULL };
	return n;
}

static void report(bool orderly)
{
	struct tagtso_report_unknown unknown[TAGTSO_UNKNOWN_WORDS];
	struct tagtso_report_extra extra = {
		.knobs = &tagtso_knobs,
		.program = program,
		.mode = mode,
		.ordering = ordering(),
		.owner = owner(),
		.emulator = tagtso_profile ? tagtso_profile->name : "none",
		.state = tagtso_is_inert()      ? "inert"
		         : TAGTSO_STAT(wakeups) ? "active"
		                                : "dormant",
		.why = tagtso_is_inert()      ? inert_why
		       : TAGTSO_STAT(wakeups) ? ""
		                              : "the program had one thread",
		.unknown = unknown,
		.unknowns = collect_unknown(unknown),
		.site_bytes = tagtso_is_inert() ? 0 : tagtso_site_bytes(),
		.page_bytes = tagtso_is_inert() ? 0 : tagtso_window_metadata(),
	};

	atomic_store(&tagtso_stats[TAGTSO_STAT_sites_seen], tagtso_is_inert() ? 0 : tagtso_site_count());
	if (orderly)
		disassemble(unknown, extra.unknowns);
	int e = tagtso_report_write(tagtso_knobs.stats, &extra);

	if (e)
		tagtso_say("TAGTSO_STATS: '%s': cannot be written: error %d (%s): check the path", tagtso_knobs.stats,
		           -e, strerrordesc_np(-e));
}

static _Atomic int finished; /* process id that has written its report: a child of fork has its own */

static void finish_once(bool orderly)
{
	int pid = (int)tagtso_sys(__NR_getpid);

	if (bystander || !tagtso_knobs.stats || !tagtso_knobs.stats[0] || atomic_exchange(&finished, pid) == pid)
		return;
	report(orderly);
}

void tagtso_finish(void)
{
	finish_once(false);
}

__attribute__((destructor)) static void finish_orderly(void)
{
	finish_once(true);
}
