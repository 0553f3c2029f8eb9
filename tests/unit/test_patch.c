/* SPDX-License-Identifier: MIT */
/* Behaviour of the patcher and of the table of generated code, on code of this program's own. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interp/island.h"
#include "interp/patch.h"
#include "interp/site.h"
#include "interp/stretch.h"
#include "shim/knobs.h"
#include "shim/stats.h"

enum {
	CODE = 65536,
	ISLANDS = 1 << 20,
	LDR_X0_X0 = 0xf9400000,
	STR_X1_X0 = 0xf9000001,
	LDR_X8_X0 = 0xf9400008, /* a scratch register: has no form */
	PRFM = 0xf9800000,
	RET = 0xd65f03c0,
};
static const struct tagtso_scratch scratch = { .a = 8, .b = 9 };
_Atomic bool tagtso_active; /* what the shim has, for the interpreter: here nobody owns anything */
static uint32_t *code;      /* CODE bytes, then ISLANDS bytes of island space */

static void write_code(unsigned at, uint32_t first, uint32_t second)
{
	code[at] = first;
	code[at + 1] = second;
	__builtin___clear_cache((char *)(code + at), (char *)(code + at + 2));
}

static uint64_t pc_of(unsigned at)
{
	return (uintptr_t)(code + at);
}

static uint64_t load_by(unsigned at, const uint64_t *from)
{
	uint64_t (*function)(const uint64_t *) = (uint64_t(*)(const uint64_t *))(uintptr_t)pc_of(at);

	return function(from);
}

static void set_up(void)
{
	code = mmap(NULL, CODE + ISLANDS, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(code, MAP_FAILED);
	ck_assert_int_eq(tagtso_site_init(1 << 14), 0);
	ck_assert_int_eq(tagtso_patch_add_code(pc_of(0), CODE, pc_of(0) + CODE, ISLANDS), 0);
}

static void set_up_and_start(void)
{
	set_up();
	ck_assert_int_eq(tagtso_patch_start(scratch, 1), 0);
}

static void set_up_and_torture(void)
{
	tagtso_knobs.torture = 1;
	set_up_and_start();
}

static void tear_down(void)
{
	tagtso_patch_stop();
	tagtso_patch_remove_code(pc_of(0), CODE);
	munmap(code, CODE + ISLANDS);
}

static struct tagtso_site *site_at(unsigned at, uint32_t word)
{
	struct tagtso_site *site = tagtso_site_get(pc_of(at), word);

	ck_assert_ptr_nonnull(site);
	return site;
}

static void ask(struct tagtso_site *site, enum tagtso_form form)
{
	atomic_store(&site->wanted, form);
	tagtso_patch_request(site);
	tagtso_patch_drain();
}

/* The site that an address in an island stands for. */
static struct tagtso_site *site_of_island(uint64_t pc)
{
	struct tagtso_island *island = tagtso_code_island(pc);
	struct tagtso_instruction at = { 0 };

	if (island)
		at = tagtso_island_instruction(island, pc);
	return at.pc ? tagtso_site_get(at.pc, at.word) : NULL;
}

static bool branches_to_island_of(unsigned at, const struct tagtso_site *site)
{
	uint64_t target = pc_of(at) + ((uint64_t)(code[at] & 0x03ffffff) << 2); /* forward: islands follow the code */

	return code[at] >> 26 == 5 && site_of_island(target) == site && atomic_load(&site->island) == target;
}

/* ---- the table of code ---- */

START_TEST(code_is_known_from_its_first_to_its_last_byte)
{
	ck_assert(tagtso_patch_is_code(pc_of(0)));
	ck_assert(tagtso_patch_is_code(pc_of(0) + CODE - 4));
	ck_assert(!tagtso_patch_is_code(pc_of(0) - 4));
	ck_assert(!tagtso_patch_is_code(pc_of(0) + CODE));
	ck_assert(!tagtso_patch_is_code(0));
	ck_assert(!tagtso_patch_is_code(UINT64_MAX));
}
END_TEST

START_TEST(removed_code_is_unknown_and_its_place_can_be_used_again)
{
	for (unsigned i = 0; i < 5000; i++) {
		ck_assert_int_eq(tagtso_patch_add_code(0x10000000, 0x1000, 0, 0), 0);
		ck_assert(tagtso_patch_is_code(0x10000ffc));
		uint32_t removals = atomic_load(&tagtso_code_removals);

		tagtso_patch_remove_code(0x20000000, 0x1000);
		ck_assert_uint_eq(atomic_load(&tagtso_code_removals), removals);
		tagtso_patch_remove_code(0x10000000, 0x1000);
		ck_assert_uint_ne(atomic_load(&tagtso_code_removals), removals);
		ck_assert(!tagtso_patch_is_code(0x10000ffc));
	}
	ck_assert(tagtso_patch_is_code(pc_of(0)));
}
END_TEST

START_TEST(many_pieces_of_code_are_told_apart_and_too_many_are_refused)
{
	unsigned n = 0;

	while (n < 5000 && !tagtso_patch_add_code(0x10000000 + n * 0x2000ul, 0x1000, 0, 0))
		n++;
	ck_assert_uint_gt(n, 1000);
	ck_assert_uint_lt(n, 5000);
	for (unsigned i = 0; i < n; i++) {
		ck_assert(tagtso_patch_is_code(0x10000000 + i * 0x2000ul));
		ck_assert(!tagtso_patch_is_code(0x10001000 + i * 0x2000ul));
	}
	tagtso_patch_remove_code(0x10000000, n * 0x2000ul);
	ck_assert(!tagtso_patch_is_code(0x10000000));
	ck_assert(tagtso_patch_is_code(pc_of(0)));
}
END_TEST

START_TEST(code_of_no_size_or_that_wraps_is_refused)
{
	ck_assert_int_eq(tagtso_patch_add_code(0x1000, 0, 0, 0), -EINVAL);
	ck_assert_int_eq(tagtso_patch_add_code(UINT64_MAX - 8, 64, 0, 0), -EINVAL);
	ck_assert_int_eq(tagtso_patch_add_code(0x1000, 64, UINT64_MAX - 8, 64), -EINVAL);
}
END_TEST

START_TEST(only_a_pc_in_the_code_of_an_island_leads_to_it)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);
	uint64_t island, end, space = pc_of(0) + CODE;

	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_MIXED);
	island = atomic_load(&site->island);
	ck_assert_uint_eq(island, space + sizeof(struct tagtso_island));
	end = island + 4 * tagtso_code_island(island)->ncode;
	for (uint64_t pc = space - 64; pc < space + 4096; pc++)
		ck_assert_ptr_eq(tagtso_code_island(pc),
		                 pc >= island && pc < end && pc % 4 == 0 ? (void *)(uintptr_t)space : NULL);
	for (uint64_t pc = island; pc < end; pc += 4)
		ck_assert(site_of_island(pc) == site || *(uint32_t *)(uintptr_t)pc >> 26 == 5);
	ck_assert_ptr_null(tagtso_code_island(0));
	ck_assert_ptr_null(tagtso_code_island(pc_of(0)));
	ck_assert_ptr_null(tagtso_code_island(UINT64_MAX - 3));
}
END_TEST

START_TEST(an_island_with_a_broken_header_leads_nowhere)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);
	struct tagtso_island *island;

	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	island = tagtso_code_island(site->island);
	ck_assert_ptr_nonnull(island);
	island->magic ^= 1;
	ck_assert_ptr_null(tagtso_code_island(site->island));
}
END_TEST

/* ---- requests ---- */

START_TEST(a_site_takes_each_form_and_goes_back_to_what_was_emitted)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);
	uint64_t value = 0x123456789abcdef0;

	write_code(0, LDR_X0_X0, RET);
	for (unsigned form = TAGTSO_FORM_LOCAL; form <= TAGTSO_FORM_MIXED; form++) {
		site->local = site->shared = 7;
		ask(site, form);
		ck_assert_uint_eq(site->form, form);
		ck_assert_uint_eq(site->wanted, form);
		ck_assert_uint_eq(site->changes, form - 1);
		ck_assert_uint_eq(site->local + site->shared, 0);
		ck_assert(branches_to_island_of(0, site));
		ck_assert_uint_eq(load_by(0, &value), value);
	}
	ask(site, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(site->island, 0);
	ck_assert_uint_eq(code[0], LDR_X0_X0);
	ck_assert_uint_eq(load_by(0, &value), value);
	ck_assert_uint_eq(TAGTSO_STAT(sites_rewritten), 3);
	ck_assert_uint_eq(TAGTSO_STAT(forms_local), 1);
	ck_assert_uint_eq(TAGTSO_STAT(forms_shared), 1);
	ck_assert_uint_eq(TAGTSO_STAT(forms_mixed), 1);
	ck_assert_uint_eq(TAGTSO_STAT(rewrites_refused), 0);
	ck_assert_uint_eq(TAGTSO_STAT(syncs), 8);
}
END_TEST

START_TEST(a_new_form_takes_a_new_island_and_the_old_one_still_leads_to_the_site)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);
	uint64_t old;

	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	old = site->island;
	ask(site, TAGTSO_FORM_MIXED);
	ck_assert_uint_ne(site->island, old);
	ck_assert_ptr_eq(site_of_island(old), site);
	ck_assert_ptr_eq(site_of_island(site->island), site);
}
END_TEST

START_TEST(code_that_has_changed_is_not_touched)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);

	write_code(0, STR_X1_X0, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(code[0], STR_X1_X0);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(site->wanted, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(TAGTSO_STAT(rewrites_refused), 1);
	/* The site may ask again when the code is back. */
	ck_assert_uint_eq(site->refused, TAGTSO_REFUSED_NOT);
	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	ck_assert(branches_to_island_of(0, site));
}
END_TEST

START_TEST(a_branch_of_the_emulator_is_not_mistaken_for_ours)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0), *other = site_at(4, LDR_X0_X0);

	write_code(0, LDR_X0_X0, RET);
	write_code(4, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	ask(other, TAGTSO_FORM_LOCAL);
	write_code(0, tagtso_form_branch(pc_of(0), other->island), RET);
	ask(site, TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(code[0], tagtso_form_branch(pc_of(0), other->island));
	ck_assert_uint_eq(site->form, TAGTSO_FORM_EMITTED);
	write_code(0, tagtso_form_branch(pc_of(0), pc_of(100)), RET);
	ask(site, TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(code[0], tagtso_form_branch(pc_of(0), pc_of(100)));
}
END_TEST

START_TEST(recycled_code_that_comes_back_is_led_to_its_island_again)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);
	uint64_t island;

	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_SHARED);
	island = site->island;
	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_SHARED);
	ck_assert(branches_to_island_of(0, site));
	ck_assert_uint_eq(site->island, island);
	ck_assert_uint_eq(site->changes, 0);
	/* And nothing is done where nothing is to do. */
	ask(site, TAGTSO_FORM_SHARED);
	ck_assert_uint_eq(TAGTSO_STAT(sites_rewritten), 2);
}
END_TEST

START_TEST(an_instruction_without_a_form_is_refused_for_good)
{
	struct tagtso_site *site = site_at(0, LDR_X8_X0), *prefetch = site_at(4, PRFM);

	write_code(0, LDR_X8_X0, RET);
	write_code(4, PRFM, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	ask(prefetch, TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(site->refused, TAGTSO_REFUSED_FORM);
	ck_assert_uint_ne(prefetch->refused, TAGTSO_REFUSED_NOT);
	ck_assert_uint_eq(site->wanted, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(code[0], LDR_X8_X0);
	ck_assert_uint_eq(code[4], PRFM);
	ck_assert_uint_eq(TAGTSO_STAT(rewrites_refused), 2);
}
END_TEST

START_TEST(a_site_whose_copy_of_the_instruction_was_damaged_is_refused)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);

	write_code(0, LDR_X0_X0, RET);
	site->op.imm = 8;
	ask(site, TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(site->refused, TAGTSO_REFUSED_CAPSTONE);
	ck_assert_uint_eq(code[0], LDR_X0_X0);
}
END_TEST

START_TEST(without_island_space_a_site_stays_as_emitted)
{
	struct tagtso_site *site;

	tagtso_patch_remove_code(pc_of(0), CODE);
	ck_assert_int_eq(tagtso_patch_add_code(pc_of(0), CODE, pc_of(0) + CODE + 8, 384 + 64), 0);
	for (unsigned i = 0; i < 2; i++) {
		write_code(4 * i, LDR_X0_X0, RET);
		site = site_at(4 * i, LDR_X0_X0);
		ask(site, TAGTSO_FORM_LOCAL);
		ck_assert_uint_eq(site->refused, i ? TAGTSO_REFUSED_REACH : TAGTSO_REFUSED_NOT);
		ck_assert_uint_eq(code[4 * i] == LDR_X0_X0, i);
	}
}
END_TEST

START_TEST(code_that_is_not_registered_is_not_touched)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);

	write_code(0, LDR_X0_X0, RET);
	tagtso_patch_remove_code(pc_of(0), CODE);
	ask(site, TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(code[0], LDR_X0_X0);
	ck_assert_uint_eq(site->wanted, TAGTSO_FORM_EMITTED);
}
END_TEST

/* The patcher's thread id by /proc/self/task, or 0. */
static pid_t find_thread(char signals_blocked[32])
{
	char path[300], line[256], name[32];
	struct dirent *entry;
	DIR *tasks = opendir("/proc/self/task");
	pid_t found = 0;

	while (!found && (entry = readdir(tasks))) {
		FILE *status;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		status = fopen(path, "r");
		name[0] = 0;
		while (status && fgets(line, sizeof(line), status)) {
			sscanf(line, "Name: %31s", name);
			if (sscanf(line, "SigBlk: %31s", signals_blocked) == 1 && !strcmp(name, "tagtso-patch"))
				found = atoi(entry->d_name);
		}
		if (status)
			fclose(status);
	}
	closedir(tasks);
	return found;
}

static _Atomic bool hold, held;

static void wait_in_signal(int signo)
{
	(void)signo;
	atomic_store(&held, true);
	while (atomic_load(&hold))
		sched_yield();
	atomic_store(&held, false);
}

/* Until `hold` is false the patcher, wherever it is, stands still. SIGTRAP is one that it does not block. */
static void hold_patcher(void)
{
	char blocked[32];
	pid_t tid;

	ck_assert_ptr_ne(signal(SIGTRAP, wait_in_signal), SIG_ERR);
	while (!(tid = find_thread(blocked)))
		sched_yield(); /* it gives itself its name when it begins */
	while (atomic_load(&held))
		sched_yield();
	atomic_store(&hold, true);
	ck_assert_int_eq(tgkill(getpid(), tid, SIGTRAP), 0);
	while (!atomic_load(&held))
		sched_yield();
}

START_TEST(a_flood_of_requests_is_served_and_what_is_dropped_can_be_asked_for_again)
{
	enum { SITES = 4000 };
	unsigned rounds = 0, done;

	for (unsigned i = 0; i < SITES; i++)
		write_code(2 * i, LDR_X0_X0 + (i % 7 << 5), RET);
	do {
		hold_patcher();
		for (unsigned i = 0; i < SITES; i++) {
			struct tagtso_site *site = site_at(2 * i, LDR_X0_X0 + (i % 7 << 5));

			if (site->form == TAGTSO_FORM_LOCAL || site->wanted != site->form)
				continue;
			atomic_store(&site->wanted, TAGTSO_FORM_LOCAL);
			tagtso_patch_request(site);
		}
		atomic_store(&hold, false);
		tagtso_patch_drain();
		done = 0;
		for (unsigned i = 0; i < SITES; i++)
			done += branches_to_island_of(2 * i, site_at(2 * i, LDR_X0_X0 + (i % 7 << 5)));
	} while (done < SITES && rounds++ < 1000);
	ck_assert_uint_eq(done, SITES);
	ck_assert_uint_eq(TAGTSO_STAT(sites_rewritten), SITES);
	/* Two for each batch of many. */
	ck_assert_uint_lt(TAGTSO_STAT(syncs), SITES);
}
END_TEST

/* ---- running code ---- */

static _Atomic bool over;

/* x0 = [x0], by a site whose form changes all the time. */
static void *run_loads(void *arg)
{
	uint64_t value = (uintptr_t)arg, runs = 0;

	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		if (load_by(0, &value) != value)
			return NULL;
		runs++;
	}
	return (void *)(uintptr_t)(runs + 1);
}

START_TEST(threads_that_run_a_site_get_the_right_values_while_its_form_changes)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);
	pthread_t threads[2];
	void *result;

	write_code(0, LDR_X0_X0, RET);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, run_loads, (void *)(i + 0x1234567800));
	for (unsigned i = 1; i < 2000; i++)
		ask(site, i % TAGTSO_NFORMS);
	atomic_store(&over, true);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], &result);
		ck_assert_ptr_nonnull(result);
	}
	ck_assert_uint_eq(TAGTSO_STAT(rewrites_refused), 0);
}
END_TEST

START_TEST(a_word_that_the_emulator_writes_meanwhile_stays)
{
	for (unsigned i = 0; i < 500; i++) {
		struct tagtso_site *site = site_at(2 * i, LDR_X0_X0);

		write_code(2 * i, LDR_X0_X0, RET);
		atomic_store(&site->wanted, TAGTSO_FORM_LOCAL);
		tagtso_patch_request(site);
		for (unsigned delay = i % 50; delay; delay--)
			sched_yield();
		__atomic_store_n(&code[2 * i], STR_X1_X0, __ATOMIC_RELAXED);
		tagtso_patch_drain();
		ck_assert_uint_eq(code[2 * i], STR_X1_X0);
		/* A trap of the new word is another site's; the old site learns of its end when it asks. */
		ask(site, TAGTSO_FORM_MIXED);
		ck_assert_uint_eq(code[2 * i], STR_X1_X0);
		ck_assert_uint_eq(site->form, TAGTSO_FORM_EMITTED);
	}
}
END_TEST

/* ---- words that the emulator's handler looks at ---- */

static void ask_all(unsigned n, enum tagtso_form form)
{
	for (unsigned i = 0; i < n; i++)
		ask(site_at(i, LDR_X0_X0), form);
}

static unsigned count_emitted(unsigned n)
{
	unsigned emitted = 0;

	for (unsigned i = 0; i < n; i++)
		emitted += code[i] == LDR_X0_X0;
	return emitted;
}

static void write_loads(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		write_code(i, LDR_X0_X0, RET);
}

START_TEST(words_that_a_handler_looks_at_are_as_emitted_and_stay_so)
{
	enum { WORDS = 100, AT = 50, AROUND = 33 };
	unsigned outer, inner;

	write_loads(WORDS);
	ask_all(WORDS, TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(count_emitted(WORDS), 0);
	outer = tagtso_patch_expose(pc_of(AT));
	ck_assert_uint_eq(count_emitted(WORDS), AROUND);
	ask_all(WORDS, TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(count_emitted(WORDS), AROUND);
	ck_assert_uint_eq(site_at(AT, LDR_X0_X0)->form, TAGTSO_FORM_EMITTED);
	inner = tagtso_patch_expose(pc_of(AT)); /* a handler on top of the other */
	tagtso_patch_cover(inner);
	ask_all(WORDS, TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(count_emitted(WORDS), AROUND);
	tagtso_patch_cover(outer);
	ask_all(WORDS, TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(count_emitted(WORDS), 0);
	ck_assert_int_eq(tagtso_patch_restore(pc_of(0)), 17);
	ck_assert_int_eq(tagtso_patch_restore(pc_of(0)), 0);
}
END_TEST

START_TEST(more_handlers_than_there_are_places_for_keep_all_words)
{
	enum { HANDLERS = 70, FAR = 1000 };
	unsigned exposed[HANDLERS];

	write_code(FAR, LDR_X0_X0, RET);
	for (unsigned i = 0; i < HANDLERS; i++)
		exposed[i] = tagtso_patch_expose(pc_of(0));
	ask(site_at(FAR, LDR_X0_X0), TAGTSO_FORM_LOCAL);
	ck_assert_uint_eq(code[FAR], LDR_X0_X0);
	for (unsigned i = 0; i < HANDLERS; i++)
		tagtso_patch_cover(exposed[i]);
	ask(site_at(FAR, LDR_X0_X0), TAGTSO_FORM_LOCAL);
	ck_assert(branches_to_island_of(FAR, site_at(FAR, LDR_X0_X0)));
	tagtso_patch_cover(tagtso_patch_expose(pc_of(0) - 4)); /* no code */
	ask(site_at(FAR, LDR_X0_X0), TAGTSO_FORM_MIXED);
	ck_assert(branches_to_island_of(FAR, site_at(FAR, LDR_X0_X0)));
}
END_TEST

/* Handlers of two threads, as often as they can. */
static void *look_again_and_again(void *arg)
{
	uintptr_t wrong = 0;

	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		unsigned exposed = tagtso_patch_expose(pc_of(*(unsigned *)arg));

		for (unsigned i = 0; i < 50; i++)
			wrong += count_emitted(3) != 3;
		tagtso_patch_cover(exposed);
		for (unsigned i = 0; i < 50; i++)
			sched_yield();
	}
	return (void *)wrong;
}

START_TEST(no_handler_sees_a_branch_while_sites_are_rewritten_all_the_time)
{
	pthread_t threads[2];
	unsigned at[2] = { 0, 2 }, branches = 0;
	void *wrong;

	write_loads(3);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, look_again_and_again, &at[i]);
	for (unsigned i = 0; i < 3000; i++) {
		ask(site_at(i % 3, LDR_X0_X0), TAGTSO_FORM_LOCAL + i % 3);
		branches += code[i % 3] != LDR_X0_X0;
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], &wrong);
		ck_assert_ptr_null(wrong);
	}
	ck_assert_uint_gt(branches, 30);
}
END_TEST

/* Removes the code and brings it back: NULL if it was written to meanwhile. */
static void *remove_and_add(void *arg)
{
	static uint8_t copy[CODE];

	while (!atomic_load(&over)) {
		tagtso_patch_remove_code(pc_of(0), CODE);
		memcpy(copy, code, CODE);
		usleep(100);
		if (memcmp(copy, code, CODE))
			return NULL;
		tagtso_patch_add_code(pc_of(0), CODE, pc_of(0) + CODE, ISLANDS);
		usleep(random() % 1000);
	}
	return arg;
}

START_TEST(code_is_not_written_once_it_has_been_removed)
{
	pthread_t hook;
	void *result;

	for (unsigned i = 0; i < 4000; i++)
		write_code(2 * i, LDR_X0_X0, RET);
	pthread_create(&hook, NULL, remove_and_add, code);
	for (unsigned i = 0; i < 4000; i++)
		ask(site_at(2 * i, LDR_X0_X0), TAGTSO_FORM_LOCAL);
	atomic_store(&over, true);
	pthread_join(hook, &result);
	ck_assert_ptr_eq(result, code);
	ck_assert_uint_gt(TAGTSO_STAT(sites_rewritten), 0);
}
END_TEST

/* ---- life of the thread ---- */

/* A thread that has been joined may be seen a moment longer. */
static bool thread_ends(void)
{
	char blocked[32];

	for (unsigned i = 0; i < 1000; i++) {
		if (!find_thread(blocked))
			return true;
		usleep(1000);
	}
	return false;
}

START_TEST(the_thread_blocks_what_comes_from_outside_and_ends_when_stopped)
{
	char blocked[32] = "";
	struct tagtso_site *site = site_at(0, LDR_X0_X0);

	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	ck_assert(find_thread(blocked));
	/* SIGUSR1, SIGALRM, SIGTERM; but not SIGSEGV, SIGTRAP, nor libc's own 32 and 33. */
	ck_assert_uint_eq(strtoull(blocked, NULL, 16) & 0x180006610, 0x6200);
	tagtso_patch_stop();
	ck_assert(thread_ends());
	/* Nobody serves now. */
	atomic_store(&site->wanted, TAGTSO_FORM_SHARED);
	tagtso_patch_request(site);
	ck_assert_uint_eq(site->wanted, TAGTSO_FORM_LOCAL);
	ck_assert_int_eq(tagtso_patch_start(scratch, 1), 0);
	ask(site, TAGTSO_FORM_SHARED);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_SHARED);
}
END_TEST

START_TEST(starting_twice_is_starting_once)
{
	ck_assert_int_eq(tagtso_patch_start(scratch, 1), 0);
	tagtso_patch_stop();
	tagtso_patch_stop();
	ck_assert(thread_ends());
}
END_TEST

START_TEST(the_child_of_a_fork_can_start_its_own)
{
	struct tagtso_site *site = site_at(0, LDR_X0_X0);
	uint64_t value = 42;
	int status;
	pid_t child;

	write_code(0, LDR_X0_X0, RET);
	ask(site, TAGTSO_FORM_LOCAL);
	child = fork();
	if (!child) {
		bool good;

		atomic_store(&site->wanted, TAGTSO_FORM_MIXED); /* asked for before the fork, never served */
		tagtso_patch_after_fork();
		good = site->wanted == TAGTSO_FORM_LOCAL && !tagtso_patch_start(scratch, 1);
		ask(site, TAGTSO_FORM_MIXED);
		good &= branches_to_island_of(0, site) && site->form == TAGTSO_FORM_MIXED && load_by(0, &value) == 42;
		_exit(good ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_LOCAL);
	ck_assert(branches_to_island_of(0, site));
}
END_TEST

/* ---- stretches ---- */

enum {
	LDR_X2_X0 = 0xf9400002,
	LDR_X3_X0_8 = 0xf9400403,
	LDR_X3_X0_16 = 0xf9400803,
	LDR_X3_X0_POST = 0xf8408403, /* ldr x3, [x0], #8 */
	ADD_X0_X2_X3 = 0x8b030040,
	SUB_X0_X2_X3 = 0xcb030040,
	ADD_X2_X2_X3 = 0x8b030042,
	ADD_X4_X2_X3 = 0x8b030044,
	MOV_X2_0 = 0xd2800002,
	MOV_X3_0 = 0xd2800003,
	MOV_X0_X2 = 0xaa0203e0,
	MOV_X0_X4 = 0xaa0403e0,
	SUB_X1_1 = 0xd1000421,
	CBNZ_X1 = 0xb5000001,
};

static void set_up_with_stretches(void)
{
	set_up();
	ck_assert_int_eq(tagtso_patch_start(scratch, TAGTSO_STRETCH_MOST), 0);
}

static void write_block(const uint32_t *words, unsigned n)
{
	memcpy(code, words, n * sizeof(*words));
	__builtin___clear_cache((char *)code, (char *)(code + n));
}

static uint32_t back_to(unsigned from, unsigned to)
{
	return CBNZ_X1 | ((to - from) & 0x7ffff) << 5;
}

static uint64_t run_block(const uint64_t *data, uint64_t n)
{
	uint64_t (*function)(const uint64_t *, uint64_t) = (uint64_t(*)(const uint64_t *, uint64_t))(uintptr_t)pc_of(0);

	return function(data, n);
}

/* The stretch that a word leads to, or NULL. */
static struct tagtso_island *stretch_of(unsigned at)
{
	uint64_t target = pc_of(at) + ((uint64_t)(code[at] & 0x03ffffff) << 2);
	struct tagtso_island *island = code[at] >> 26 == 5 ? tagtso_code_island(target) : NULL;

	return island && island->norig > 1 ? island : NULL;
}

START_TEST(neighbouring_sites_are_joined)
{
	static const uint32_t block[] = { LDR_X2_X0, LDR_X3_X0_8, ADD_X0_X2_X3, RET };
	const uint64_t data[] = { 1000, 234 };

	write_block(block, 4);
	ask(site_at(0, LDR_X2_X0), TAGTSO_FORM_LOCAL);
	ck_assert_ptr_null(stretch_of(0));
	ask(site_at(1, LDR_X3_X0_8), TAGTSO_FORM_LOCAL);
	ck_assert_ptr_null(stretch_of(0)); /* the second does not lead to the first */
	ck_assert_uint_eq(run_block(data, 0), 1234);
	ask(site_at(0, LDR_X2_X0), TAGTSO_FORM_SHARED);
	ck_assert_ptr_nonnull(stretch_of(0));
	ck_assert_ptr_eq(stretch_of(0), stretch_of(1));
	ck_assert_uint_eq(run_block(data, 0), 1234);
	ask(site_at(1, LDR_X3_X0_8), TAGTSO_FORM_MIXED);
	ck_assert_ptr_nonnull(stretch_of(0));
	ck_assert_ptr_eq(stretch_of(0), stretch_of(1));
	ck_assert_uint_eq(run_block(data, 0), 1234);
	ck_assert_uint_eq(code[2], ADD_X0_X2_X3);
	ck_assert_uint_eq(code[3], RET);
	ck_assert_uint_eq(TAGTSO_STAT(stretches), 2);
}
END_TEST

START_TEST(a_loop_moves_into_the_island)
{
	const uint32_t block[] = { MOV_X2_0, LDR_X3_X0_POST, ADD_X2_X2_X3, SUB_X1_1, back_to(4, 1), MOV_X0_X2, RET };
	uint64_t data[100], sum = 0;
	struct tagtso_island *island;

	for (unsigned i = 0; i < 100; i++)
		sum += data[i] = i * i;
	write_block(block, 7);
	ask(site_at(1, LDR_X3_X0_POST), TAGTSO_FORM_LOCAL);
	island = stretch_of(1);
	ck_assert_ptr_nonnull(island);
	ck_assert_uint_eq(run_block(data, 100), sum);
	/* from the second time on the loop does not pass by its place in the emitted code */
	code[2] = 0;
	__builtin___clear_cache((char *)(code + 2), (char *)(code + 3));
	ck_assert_uint_eq(run_block(data, 100), sum);
}
END_TEST

/* ---- LL/SC loops ---- */

enum {
	LDXR_X2_X0 = 0xc85f7c02,
	ADD_X2_X2_X1 = 0x8b010042,
	ADD_X9_X2_X1 = 0x8b010049, /* a scratch register */
	STXR_W3_X2_X0 = 0xc8037c02,
	CBNZ_W3 = 0x35000003,
};

static uint32_t cbnz_w3(int distance)
{
	return CBNZ_W3 | (uint32_t)(distance & 0x7ffff) << 5;
}

/* *x0 += x1 */
static uint64_t add_by_loop(uint64_t *word, uint64_t n)
{
	return run_block(word, n);
}

/* The site's first island has the load-exclusive alone; the handler says that the code was run by way of it. */
static void arm(unsigned at, struct tagtso_site *site)
{
	ask(site, TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(code[at] >> 26, 5);
	ck_assert_ptr_null(stretch_of(at));
	ask(site, TAGTSO_FORM_MIXED); /* by a thread that trapped elsewhere */
	ck_assert_ptr_null(stretch_of(at));
	atomic_store(&site->ready, tagtso_site_armed(pc_of(at) + ((uint64_t)(code[at] & 0x03ffffff) << 2)));
}

static void give_loop(unsigned at, struct tagtso_site *site)
{
	arm(at, site);
	ask(site, TAGTSO_FORM_MIXED);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_MIXED);
	ck_assert(branches_to_island_of(at, site));
	ck_assert_ptr_nonnull(stretch_of(at));
}

START_TEST(a_loop_of_exclusives_runs_in_the_island)
{
	const uint32_t block[] = { LDXR_X2_X0, ADD_X2_X2_X1, STXR_W3_X2_X0, cbnz_w3(-3), MOV_X0_X2, RET };
	struct tagtso_site *site = site_at(0, LDXR_X2_X0);
	uint64_t word = 5;

	write_block(block, 6);
	arm(0, site);
	ck_assert_uint_eq(add_by_loop(&word, 3), 8);
	ask(site, TAGTSO_FORM_MIXED);
	ck_assert(branches_to_island_of(0, site));
	ck_assert_ptr_nonnull(stretch_of(0));
	ck_assert_uint_eq(stretch_of(0)->norig, 4);
	for (unsigned i = 1; i <= 100; i++)
		ck_assert_uint_eq(add_by_loop(&word, 3), 8 + 3 * i);
	ask(site, TAGTSO_FORM_EMITTED);
	ck_assert_uint_eq(code[0], LDXR_X2_X0);
	ck_assert_uint_eq(add_by_loop(&word, 3), 8 + 303);
}
END_TEST

START_TEST(a_recycled_loop_is_run_before_its_words_are_believed)
{
	const uint32_t block[] = { LDXR_X2_X0, ADD_X2_X2_X1, STXR_W3_X2_X0, cbnz_w3(-3), MOV_X0_X2, RET };
	struct tagtso_site *site = site_at(0, LDXR_X2_X0);
	uint64_t word = 5;

	write_block(block, 6);
	give_loop(0, site);
	ck_assert_uint_eq(add_by_loop(&word, 3), 8);
	/* its first word is there, the others are still those of before */
	write_code(0, LDXR_X2_X0, ADD_X2_X2_X1);
	ck_assert_uint_eq(site->form, TAGTSO_FORM_MIXED);
	arm(0, site);
	write_code(1, 0x91000442, STXR_W3_X2_X0); /* add x2, x2, #1 */
	ck_assert_uint_eq(add_by_loop(&word, 3), 9);
	ask(site, TAGTSO_FORM_MIXED);
	ck_assert_ptr_nonnull(stretch_of(0));
	ck_assert_uint_eq(add_by_loop(&word, 3), 10);
}
END_TEST

START_TEST(a_loop_of_exclusives_that_cannot_move_stays)
{
	const uint32_t uses_scratch[] = { LDXR_X2_X0, ADD_X9_X2_X1, STXR_W3_X2_X0, cbnz_w3(-3), RET };
	const uint32_t accesses[] = { LDXR_X2_X0, LDR_X3_X0_8, STXR_W3_X2_X0, cbnz_w3(-3), RET };
	const uint32_t endless[] = { LDXR_X2_X0, RET, RET, RET, RET };
	const uint32_t *const blocks[] = { uses_scratch, accesses, endless };

	for (unsigned i = 0; i < 3; i++) {
		struct tagtso_site *site = site_at(8 * i, LDXR_X2_X0);

		memcpy(code + 8 * i, blocks[i], 5 * sizeof(uint32_t));
		arm(8 * i, site);
		ask(site, TAGTSO_FORM_MIXED);
		ck_assert_uint_eq(site->refused, TAGTSO_REFUSED_FORM);
		ck_assert_uint_eq(site->form, TAGTSO_FORM_EMITTED);
		ck_assert_ptr_null(stretch_of(8 * i));
	}
}
END_TEST

static void *run_additions(void *arg)
{
	for (unsigned i = 0; i < 20000; i++)
		add_by_loop(arg, 1);
	return NULL;
}

START_TEST(threads_that_add_by_a_loop_lose_nothing_while_its_form_changes)
{
	const uint32_t block[] = { LDXR_X2_X0, ADD_X2_X2_X1, STXR_W3_X2_X0, cbnz_w3(-3), MOV_X0_X2, RET };
	struct tagtso_site *site = site_at(0, LDXR_X2_X0);
	pthread_t threads[2];
	uint64_t word = 0;

	write_block(block, 6);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, run_additions, &word);
	for (unsigned i = 0; i < 200; i++) {
		give_loop(0, site);
		ask(site, TAGTSO_FORM_EMITTED);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(word, 40000);
	ck_assert_uint_eq(TAGTSO_STAT(rewrites_refused), 0);
}
END_TEST

START_TEST(an_old_stretch_is_retired_when_there_is_a_new_one)
{
	static const uint32_t block[] = { LDR_X2_X0, LDR_X3_X0_8, ADD_X0_X2_X3, RET };
	struct tagtso_island *old;

	write_block(block, 4);
	ask(site_at(1, LDR_X3_X0_8), TAGTSO_FORM_LOCAL);
	ask(site_at(0, LDR_X2_X0), TAGTSO_FORM_LOCAL);
	old = stretch_of(0);
	ck_assert_ptr_nonnull(old);
	ck_assert_uint_ne(tagtso_island_resume(old, (uintptr_t)old->code), 0);
	ask(site_at(1, LDR_X3_X0_8), TAGTSO_FORM_SHARED);
	ck_assert_ptr_nonnull(stretch_of(0));
	ck_assert_ptr_ne(stretch_of(0), old);
	ck_assert_uint_eq(tagtso_island_resume(old, (uintptr_t)old->code), 0);
}
END_TEST

START_TEST(recycled_code_does_not_run_in_the_stretch_of_what_was_there)
{
	static const uint32_t before[] = { LDR_X2_X0, LDR_X3_X0_8, ADD_X0_X2_X3, RET };
	static const uint32_t after[] = { LDR_X2_X0, LDR_X3_X0_16, SUB_X0_X2_X3, RET };
	const uint64_t data[] = { 1000, 234, 1 };

	write_block(before, 4);
	ask(site_at(1, LDR_X3_X0_8), TAGTSO_FORM_LOCAL);
	ask(site_at(0, LDR_X2_X0), TAGTSO_FORM_LOCAL);
	ck_assert_ptr_nonnull(stretch_of(0));
	write_block(after, 4);
	/* as when it traps where it was emitted: it has its form, and asks for the branch to it */
	tagtso_patch_request(site_at(0, LDR_X2_X0));
	tagtso_patch_drain();
	ck_assert_uint_eq(code[0] >> 26, 5);
	ck_assert_uint_eq(run_block(data, 0), 999);
	ask(site_at(1, LDR_X3_X0_16), TAGTSO_FORM_LOCAL);
	ask(site_at(0, LDR_X2_X0), TAGTSO_FORM_MIXED);
	ck_assert_ptr_nonnull(stretch_of(0));
	ck_assert_uint_eq(run_block(data, 0), 999);
}
END_TEST

START_TEST(blocks_that_are_written_again_and_again_keep_their_meaning)
{
	uint32_t block[] = { LDR_X2_X0, 0, ADD_X4_X2_X3, SUB_X1_1, back_to(4, 0), MOV_X0_X4, RET };
	const uint64_t value = 1 << 20;
	unsigned joined = 0;

	for (unsigned generation = 0; generation < 3000; generation++) {
		struct tagtso_site *site = site_at(0, LDR_X2_X0);

		block[1] = MOV_X3_0 | generation << 5;
		write_block(block, 7);
		atomic_store(&site->wanted, TAGTSO_FORM_LOCAL);
		tagtso_patch_request(site);
		for (unsigned i = generation % 200; i; i--) {
			ck_assert_uint_eq(run_block(&value, 3), value + generation);
			sched_yield();
		}
		if (generation % 10 == 0)
			tagtso_patch_drain();
		joined += stretch_of(0) != NULL;
		ck_assert_uint_eq(run_block(&value, 3), value + generation);
	}
	ck_assert_uint_gt(joined, 100);
}
END_TEST

static const uint64_t pair[] = { 1000, 234 };

static void *run_blocks(void *arg)
{
	while (!atomic_load_explicit(&over, memory_order_relaxed))
		if (run_block(pair, 0) != 1234)
			return NULL;
	return arg;
}

START_TEST(threads_that_run_joined_sites_get_the_right_values_while_forms_change)
{
	static const uint32_t block[] = { LDR_X2_X0, LDR_X3_X0_8, ADD_X0_X2_X3, RET };
	pthread_t threads[2];
	void *result;

	write_block(block, 4);
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, run_blocks, &over);
	for (unsigned i = 1; i < 400; i++) {
		ask(site_at(0, LDR_X2_X0), i % TAGTSO_NFORMS);
		ask(site_at(1, LDR_X3_X0_8), i / 2 % TAGTSO_NFORMS);
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], &result);
		ck_assert_ptr_nonnull(result);
	}
	ck_assert_uint_gt(TAGTSO_STAT(stretches), 50);
	ck_assert_uint_eq(TAGTSO_STAT(rewrites_refused), 0);
}
END_TEST

/* ---- places used again ---- */

enum { SMALL = 64 * 1024, STEP = 4096, SITES = 16, LDR_X0_X0_IMM = 0xf9400000 };

/* Island space of 16 pages: some thousand islands. */
static void set_up_small(unsigned stretch)
{
	code = mmap(NULL, CODE + ISLANDS, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(code, MAP_FAILED);
	ck_assert_int_eq(tagtso_site_init(1 << 20), 0);
	ck_assert_int_eq(tagtso_patch_add_code(pc_of(0), CODE, pc_of(0) + CODE, SMALL), 0);
	ck_assert_int_eq(tagtso_patch_start(scratch, stretch), 0);
}

static void set_up_small_space(void)
{
	set_up_small(1);
}

static void set_up_small_space_with_stretches(void)
{
	set_up_small(TAGTSO_STRETCH_MOST);
}

static uint64_t numbers[512];

/* Each generation has 256 bytes of code to itself, and leaves them when some others have come; 200 later the place is taken
 * again, for other words: the table of sites knows some hundred words for each place. */
static unsigned block_of(unsigned generation)
{
	return generation % 200 * 64;
}

static unsigned offset_of(unsigned generation, unsigned i)
{
	return (generation / 200 * 7 + i) % 55;
}

static uint32_t word_of(unsigned generation, unsigned i)
{
	return LDR_X0_X0_IMM | offset_of(generation, i) << 10;
}

static void die_out(unsigned generation)
{
	for (unsigned i = 0; i < SITES; i++)
		write_code(block_of(generation) + 2 * i, RET, RET);
}

/* One generation of blocks: written, run, rewritten. How many were. */
static unsigned live_one_generation(unsigned generation)
{
	unsigned rewritten = 0, first = block_of(generation);

	for (unsigned i = 0; i < SITES; i++)
		write_code(first + 2 * i, word_of(generation, i), RET);
	for (unsigned i = 0; i < SITES; i++) {
		struct tagtso_site *site = site_at(first + 2 * i, word_of(generation, i));

		if (site->form == TAGTSO_FORM_EMITTED)
			atomic_store(&site->wanted, 1 + generation % 3);
		tagtso_patch_request(site);
	}
	tagtso_patch_drain();
	for (unsigned i = 0; i < SITES; i++) {
		unsigned at = first + 2 * i;
		struct tagtso_site *site = site_at(at, word_of(generation, i));

		rewritten += branches_to_island_of(at, site);
		ck_assert(code[at] == word_of(generation, i) || branches_to_island_of(at, site));
		ck_assert_uint_eq(code[at + 1], RET);
		ck_assert_uint_eq(site->local + site->shared, 0);
		ck_assert_uint_eq(load_by(at, numbers), offset_of(generation, i));
	}
	if (generation >= 8)
		die_out(generation - 8);
	return rewritten;
}

/* Waits where space has run out, as threads do now and then: who is never seen waiting keeps it from being free again. */
static void rest(void)
{
	static uint64_t full;

	if (TAGTSO_STAT(islands_full) != full)
		usleep(20000);
	full = TAGTSO_STAT(islands_full);
}

enum { STABLE = 14000 };

/* Code that stays: its islands move. */
static void write_stable_code(void)
{
	for (unsigned i = 0; i < 512; i++)
		numbers[i] = i;
	for (unsigned i = 0; i < SITES; i++) {
		write_code(STABLE + 2 * i, LDR_X0_X0_IMM | i << 10, RET);
		ask(site_at(STABLE + 2 * i, LDR_X0_X0_IMM | i << 10), TAGTSO_FORM_LOCAL);
	}
}

/* Waits now and then, as threads do. */
static void *run_and_wait(void *arg)
{
	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		for (unsigned i = 0; i < 2000; i++)
			if (load_by(STABLE + 2 * (i % SITES), numbers) != i % SITES)
				return NULL;
		usleep(500);
	}
	return arg;
}

/* PATCH_GENERATIONS=10000: the soak. */
START_TEST(generations_of_blocks_live_in_little_island_space)
{
	const char *asked = getenv("PATCH_GENERATIONS");
	const unsigned generations = asked ? (unsigned)atoi(asked) : 500;
	pthread_t threads[2];
	unsigned rewritten = 0;
	void *result;

	write_stable_code();
	for (unsigned i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, run_and_wait, &over);
	for (unsigned i = 0; i < generations; i++) {
		rewritten += live_one_generation(i);
		rest();
	}
	atomic_store(&over, true);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(threads[i], &result);
		ck_assert_ptr_nonnull(result);
	}
	printf("# %u of %u rewritten, %lu bytes of islands in %u, %lu put off, %lu reclaims\n", rewritten,
	       generations * SITES, TAGTSO_STAT(island_bytes), SMALL, TAGTSO_STAT(islands_full), TAGTSO_STAT(reclaims));
	ck_assert_uint_gt(TAGTSO_STAT(island_bytes), generations * SITES / 4 * 64);
	ck_assert_uint_gt(TAGTSO_STAT(reclaimed_bytes) + SMALL, TAGTSO_STAT(island_bytes));
	/* Far more than the space has room for at a time; how many of all is a matter of how soon threads are seen. */
	ck_assert_uint_gt(rewritten * 128u, 2 * SMALL);
	for (unsigned i = CODE + SMALL; i < CODE + ISLANDS; i += STEP)
		ck_assert_uint_eq(code[i / 4], 0);
}
END_TEST

/* New islands, until there are no more of the old ones. True if a segment became free. */
static bool fill_islands(unsigned from, unsigned to)
{
	uint64_t before = TAGTSO_STAT(reclaims);

	for (unsigned i = from; i < to && TAGTSO_STAT(reclaims) == before; i++) {
		live_one_generation(i);
		rest();
	}
	return TAGTSO_STAT(reclaims) != before;
}

/* The loop reads the first, and writes it to the second. */
static _Atomic uint64_t rounds[2];

/* In a loop that has moved into an island, without a system call and without a trap. */
static void *go_round(void *arg)
{
	uint64_t (*loop)(_Atomic uint64_t *) =
		(uint64_t(*)(_Atomic uint64_t *))(uintptr_t)pc_of((unsigned)(uintptr_t)arg);

	return (void *)(uintptr_t)loop(rounds);
}

START_TEST(the_place_of_an_island_in_which_a_thread_goes_round_is_not_used_again)
{
	enum { AT = STABLE, STR_X2_X0_8 = 0xf9000402, CBNZ_BACK = 0xb5ffffc2, MOV_X0_7 = 0xd28000e0 };
	const uint32_t loop[] = { LDR_X2_X0, STR_X2_X0_8, CBNZ_BACK, MOV_X0_7, RET };
	pthread_t thread;
	void *result;

	for (unsigned i = 0; i < 512; i++)
		numbers[i] = i;
	memcpy(code + AT, loop, sizeof(loop));
	__builtin___clear_cache((char *)(code + AT), (char *)(code + AT + 5));
	ask(site_at(AT, LDR_X2_X0), TAGTSO_FORM_LOCAL);
	ck_assert_ptr_nonnull(stretch_of(AT));
	struct tagtso_island *island = stretch_of(AT);

	atomic_store(&rounds[0], 1);
	pthread_create(&thread, NULL, go_round, (void *)(uintptr_t)AT);
	while (!atomic_load(&rounds[1]))
		usleep(1000);
	/* the block is recycled: nothing leads to the island any more, and the thread is still in it */
	write_code(AT, RET, RET);
	for (unsigned generation = 0; generation < 80; generation++) {
		live_one_generation(generation);
		rest();
	}
	ck_assert_uint_eq(TAGTSO_STAT(reclaims), 0);
	ck_assert_uint_gt(TAGTSO_STAT(islands_full), 0);
	ck_assert_uint_eq(island->magic, TAGTSO_ISLAND_MAGIC);
	ck_assert_uint_eq(island->pc, pc_of(AT));
	atomic_store(&rounds[0], 0);
	pthread_join(thread, &result);
	ck_assert_ptr_eq(result, (void *)7);
	ck_assert(fill_islands(80, 4000));
}
END_TEST

START_TEST(sites_that_are_still_in_use_keep_their_forms_when_their_islands_move)
{
	enum { KEPT = 64 };
	uint64_t islands[KEPT];
	unsigned moved = 0, kept = 0;

	for (unsigned i = 0; i < 512; i++)
		numbers[i] = i;
	/* some in each segment, between others that die out */
	for (unsigned i = 0; i < KEPT; i++) {
		struct tagtso_site *site = site_at(STABLE + 2 * i, LDR_X0_X0);

		live_one_generation(i);
		write_code(STABLE + 2 * i, LDR_X0_X0, RET);
		for (unsigned tries = 0; tries < 500 && code[STABLE + 2 * i] == LDR_X0_X0; tries++) {
			ask(site, 1 + i % 3);
			rest();
		}
		ck_assert(branches_to_island_of(STABLE + 2 * i, site));
		islands[i] = site->island;
	}
	for (unsigned generation = KEPT; generation < 2000 && moved < KEPT / 2; generation++) {
		live_one_generation(generation);
		rest();
		moved = 0;
		for (unsigned i = 0; i < KEPT; i++)
			moved += site_at(STABLE + 2 * i, LDR_X0_X0)->island != islands[i];
	}
	ck_assert_uint_ge(moved, KEPT / 2);
	/* One for which there was no room elsewhere has its own word back. */
	for (unsigned i = 0; i < KEPT; i++) {
		struct tagtso_site *site = site_at(STABLE + 2 * i, LDR_X0_X0);
		bool keeps = branches_to_island_of(STABLE + 2 * i, site);

		kept += keeps;
		ck_assert(keeps || code[STABLE + 2 * i] == LDR_X0_X0);
		ck_assert_uint_eq(site->form, keeps ? 1 + i % 3 : TAGTSO_FORM_EMITTED);
		ck_assert_uint_eq(site->changes, 0);
		ck_assert_uint_eq(load_by(STABLE + 2 * i, numbers + i), i);
	}
	ck_assert_uint_ge(kept, KEPT / 2);
}
END_TEST

START_TEST(space_full_of_islands_in_use_is_left_alone)
{
	unsigned full = 0, at = 0;

	for (unsigned i = 0; i < 512; i++)
		numbers[i] = i;
	for (; at < CODE / 8 && full < 40; at++) {
		write_code(2 * at, LDR_X0_X0, RET);
		ask(site_at(2 * at, LDR_X0_X0), TAGTSO_FORM_MIXED);
		full += code[2 * at] == LDR_X0_X0;
	}
	ck_assert_uint_eq(full, 40);
	usleep(100000);
	ck_assert_uint_eq(TAGTSO_STAT(reclaims), 0);
	ck_assert_uint_ge(TAGTSO_STAT(islands_full), 40);
	for (unsigned i = 0; i < at; i++)
		ck_assert_uint_eq(load_by(2 * i, numbers + i % 512), i % 512);
	/* most of the code goes, and what had no place gets one */
	for (unsigned i = 0; i < at - 40; i++)
		write_code(2 * i, RET, RET);
	for (unsigned tries = 0; tries < 300 && code[2 * (at - 1)] == LDR_X0_X0; tries++) {
		usleep(20000);
		ask(site_at(2 * (at - 1), LDR_X0_X0), TAGTSO_FORM_MIXED);
	}
	ck_assert_uint_ne(code[2 * (at - 1)], LDR_X0_X0);
	ck_assert_uint_eq(load_by(2 * (at - 1), numbers + 5), 5);
}
END_TEST

START_TEST(code_may_go_while_its_islands_wait_for_threads)
{
	for (unsigned i = 0; i < 512; i++)
		numbers[i] = i;
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 0; i < 10; i++)
			live_one_generation(round * 10 + i);
		tagtso_patch_remove_code(pc_of(0), CODE);
		usleep(random() % 3000);
		memset(code, 0, CODE + SMALL);
		__builtin___clear_cache((char *)code, (char *)code + CODE + SMALL);
		ck_assert_int_eq(tagtso_patch_add_code(pc_of(0), CODE, pc_of(0) + CODE, SMALL), 0);
	}
	ck_assert(fill_islands(400, 4000));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("patch");
	TCase *table = tcase_create("code"), *tc = tcase_create("patch"), *stretches = tcase_create("stretches");
	TCase *generations = tcase_create("generations"), *torture = tcase_create("torture"),
	      *space = tcase_create("space"), *space_with_stretches = tcase_create("space with stretches");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, table);
	tcase_add_checked_fixture(table, set_up, NULL);
	tcase_add_test(table, code_is_known_from_its_first_to_its_last_byte);
	tcase_add_test(table, removed_code_is_unknown_and_its_place_can_be_used_again);
	tcase_add_test(table, many_pieces_of_code_are_told_apart_and_too_many_are_refused);
	tcase_add_test(table, code_of_no_size_or_that_wraps_is_refused);
	suite_add_tcase(suite, tc);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, set_up_and_start, tear_down);
	tcase_add_test(tc, only_a_pc_in_the_code_of_an_island_leads_to_it);
	tcase_add_test(tc, an_island_with_a_broken_header_leads_nowhere);
	tcase_add_test(tc, a_site_takes_each_form_and_goes_back_to_what_was_emitted);
	tcase_add_test(tc, a_new_form_takes_a_new_island_and_the_old_one_still_leads_to_the_site);
	tcase_add_test(tc, code_that_has_changed_is_not_touched);
	tcase_add_test(tc, a_branch_of_the_emulator_is_not_mistaken_for_ours);
	tcase_add_test(tc, recycled_code_that_comes_back_is_led_to_its_island_again);
	tcase_add_test(tc, an_instruction_without_a_form_is_refused_for_good);
	tcase_add_test(tc, a_loop_of_exclusives_runs_in_the_island);
	tcase_add_test(tc, a_recycled_loop_is_run_before_its_words_are_believed);
	tcase_add_test(tc, a_loop_of_exclusives_that_cannot_move_stays);
	tcase_add_test(tc, threads_that_add_by_a_loop_lose_nothing_while_its_form_changes);
	tcase_add_test(tc, a_site_whose_copy_of_the_instruction_was_damaged_is_refused);
	tcase_add_test(tc, without_island_space_a_site_stays_as_emitted);
	tcase_add_test(tc, code_that_is_not_registered_is_not_touched);
	tcase_add_test(tc, a_flood_of_requests_is_served_and_what_is_dropped_can_be_asked_for_again);
	tcase_add_test(tc, threads_that_run_a_site_get_the_right_values_while_its_form_changes);
	tcase_add_test(tc, a_word_that_the_emulator_writes_meanwhile_stays);
	tcase_add_test(tc, words_that_a_handler_looks_at_are_as_emitted_and_stay_so);
	tcase_add_test(tc, more_handlers_than_there_are_places_for_keep_all_words);
	tcase_add_test(tc, no_handler_sees_a_branch_while_sites_are_rewritten_all_the_time);
	tcase_add_test(tc, code_is_not_written_once_it_has_been_removed);
	tcase_add_test(tc, the_thread_blocks_what_comes_from_outside_and_ends_when_stopped);
	tcase_add_test(tc, starting_twice_is_starting_once);
	tcase_add_test(tc, the_child_of_a_fork_can_start_its_own);
	suite_add_tcase(suite, torture);
	tcase_set_timeout(torture, 120);
	tcase_add_checked_fixture(torture, set_up_and_torture, tear_down);
	tcase_add_test(torture, no_handler_sees_a_branch_while_sites_are_rewritten_all_the_time);
	suite_add_tcase(suite, stretches);
	tcase_set_timeout(stretches, 120);
	tcase_add_checked_fixture(stretches, set_up_with_stretches, tear_down);
	tcase_add_test(stretches, neighbouring_sites_are_joined);
	tcase_add_test(stretches, a_loop_moves_into_the_island);
	tcase_add_test(stretches, an_old_stretch_is_retired_when_there_is_a_new_one);
	tcase_add_test(stretches, recycled_code_does_not_run_in_the_stretch_of_what_was_there);
	tcase_add_test(stretches, blocks_that_are_written_again_and_again_keep_their_meaning);
	tcase_add_test(stretches, threads_that_run_joined_sites_get_the_right_values_while_forms_change);
	suite_add_tcase(suite, generations);
	tcase_set_timeout(generations, 600);
	tcase_add_checked_fixture(generations, set_up_small_space, tear_down);
	tcase_add_test(generations, generations_of_blocks_live_in_little_island_space);
	suite_add_tcase(suite, space);
	tcase_set_timeout(space, 300);
	tcase_add_checked_fixture(space, set_up_small_space, tear_down);
	tcase_add_test(space, sites_that_are_still_in_use_keep_their_forms_when_their_islands_move);
	tcase_add_test(space, space_full_of_islands_in_use_is_left_alone);
	tcase_add_test(space, code_may_go_while_its_islands_wait_for_threads);
	suite_add_tcase(suite, space_with_stretches);
	tcase_set_timeout(space_with_stretches, 300);
	tcase_add_checked_fixture(space_with_stretches, set_up_small_space_with_stretches, tear_down);
	tcase_add_test(space_with_stretches, the_place_of_an_island_in_which_a_thread_goes_round_is_not_used_again);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed > 0;
}
