/* SPDX-License-Identifier: MIT */
/* A small emulator of our own. Threads run programs of its loop language in generated code like that of box64, FEX or QEMU, and again in C; registers
 * and memory must be the same. Each program is written over the one before, while other threads run theirs.
 *
 * usage: minijit [--OPTION=VALUE…]
 *
 *   --flavour=     box64, box64-llsc, fex, fex-ldapur, fex-ldar, fex-vectors, qemu
 *   --threads=     1 to 8 (2)
 *   --generations= programs of each thread (20)
 *   --iterations=  of a program's loop (24)
 *   --seed=        of everything
 *   --program=     random; small: some random accesses of private memory; private: always the same ones; each: one of each kind; ring: messages from even threads to odd ones
 *   --common=      every so-many-th program is run by all threads, from one copy of its code (4, 0 = none)
 *   --signals=     a signal to each thread so many microseconds after the one before (0 = none)
 *   --memory=      of the code: rwx; dual: written by another mapping; flip: mprotect between writing and running
 *   --remap=       code is unmapped and mapped again for every so-many-th program (0 = never)
 *   --step         one thread gets signals at any of its instructions, islands included, from a process that traces it
 *   --unaligned, --faults, --onstack, --jumps, --relink (a thread that relinks blocks while they run), --own-registers (all of the
 *   emulator's, x8 and x9 too), --print (the programs)
 *
 * With the preload: LD_PRELOAD, TAGTSO_EMULATOR and other knobs as for any emulator. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "minijit.h"

struct options options = { .flavour = "box64",
	                   .program = "random",
	                   .threads = 2,
	                   .generations = 20,
	                   .iterations = 24,
	                   .common = 4,
	                   .seed = 1 };

static struct thread threads[MAX_THREADS];
static struct slot slots[MAX_THREADS + 1]; /* the last is for programs that all threads run */
static struct program common_program;
static pthread_barrier_t together;
static _Atomic unsigned running;
static _Atomic uint64_t findings, emitted_words, emitted_blocks, relinks, remaps, moved;

/* ---- saying what is wrong ---- */

void wrong(const char *format, ...)
{
	char line[320];
	va_list arguments;
	int n;

	if (atomic_fetch_add(&findings, 1) >= 12)
		return;
	va_start(arguments, format);
	n = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	if (n < 0 || n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDOUT_FILENO, "# ", 2) != 2 || write(STDOUT_FILENO, line, (size_t)n) != n)
		_exit(125);
}

static void *checked(void *p)
{
	if (p == MAP_FAILED || !p) {
		perror("minijit: memory");
		exit(125);
	}
	return p;
}

/* ---- guest memory ---- */

static void fill(uint8_t *p, uint64_t seed)
{
	for (unsigned i = 0; i < PAGE; i += 8) {
		uint64_t v = random_next(&seed);

		memcpy(p + i, &v, 8);
	}
}

static void make_region(struct region *r, enum kind kind, uint64_t seed)
{
	void *p = checked(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	r->va = (uint64_t)(uintptr_t)p;
	r->kind = kind;
	r->shadow = checked(malloc(PAGE));
	fill(r->shadow, seed);
	memcpy(p, r->shadow, PAGE);
	if (kind == READ_ONLY || kind == UNMAPPED)
		mprotect(p, PAGE, kind == READ_ONLY ? PROT_READ : PROT_NONE);
}

/* Where nothing is mapped, and nothing will be: an address that neither the kernel nor libc picks. */
static void make_hole(struct region *r, unsigned thread)
{
	r->va = UINT64_C(0x123400000000) + thread * UINT64_C(0x10000);
	r->kind = UNMAPPED;
}

static void make_beyond(struct region *r)
{
	int fd = memfd_create("minijit", 0);

	r->va = (uint64_t)(uintptr_t)checked(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	r->kind = BEYOND_FILE;
	close(fd);
}

/* Some good ones, one to each kind of bad page. */
static void make_pointers(unsigned thread)
{
	struct region *own = region_of(thread, 0);
	uint64_t table[POINTERS_COUNT];

	for (unsigned i = 0; i < POINTERS_COUNT; i++)
		table[i] = i < 5 ? own->va + 128 * i : region_of(thread, i - 4)->va;
	memcpy(own->shadow + POINTERS, table, sizeof(table));
	memcpy((void *)(uintptr_t)(own->va + POINTERS), table, sizeof(table));
}

static void make_memory(void)
{
	make_region(&regions[REGION_SHARED], ORDINARY, options.seed);
	make_region(&regions[REGION_CONSTANT], ORDINARY, options.seed + 1);
	memset(regions[REGION_SHARED].shadow + RING, 0, PAGE - RING);
	memset((void *)(uintptr_t)(regions[REGION_SHARED].va + RING), 0, PAGE - RING);
	for (unsigned i = 0; i < options.threads; i++) {
		make_region(region_of(i, 0), ORDINARY, options.seed + 2 + i);
		if (i % 2)
			make_region(region_of(i, 1), UNMAPPED, 0);
		else
			make_hole(region_of(i, 1), i);
		make_region(region_of(i, 2), READ_ONLY, options.seed + 100 + i);
		make_beyond(region_of(i, 3));
		make_pointers(i);
	}
}

static bool same(const char *what, const struct thread *t, unsigned generation, uint64_t va, const uint8_t *shadow,
                 unsigned bytes)
{
	const uint8_t *p = (const uint8_t *)(uintptr_t)va;

	if (!memcmp(p, shadow, bytes))
		return true;
	for (unsigned i = 0; i < bytes; i++) {
		if (p[i] == shadow[i])
			continue;
		wrong("%s of thread %u differ at byte %u in generation %u: %02x, not %02x", what, t->number, i,
		      generation, p[i], shadow[i]);
		break;
	}
	return false;
}

/* ---- code memory ---- */

static void map_slot(struct slot *s, void *hint)
{
	const int rwx = PROT_READ | PROT_WRITE | PROT_EXEC;
	int fd;

	if (options.memory != DUAL) {
		s->code = checked(mmap(hint, SLOT_BYTES, rwx, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		s->write = s->code;
		return;
	}
	fd = memfd_create("minijit-code", 0);
	if (fd < 0 || ftruncate(fd, SLOT_BYTES))
		checked(NULL);
	s->code = checked(mmap(hint, SLOT_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0));
	s->write = checked(mmap(NULL, SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
}

static void unmap_slot(struct slot *s)
{
	munmap(s->code, SLOT_BYTES);
	if (s->write != s->code)
		munmap(s->write, SLOT_BYTES);
}

static void protect_slot(const struct slot *s, int prot)
{
	if (options.memory == FLIP && mprotect(s->code, SLOT_BYTES, prot))
		checked(NULL);
}

/* No thread is in the slot's code. */
static void make_code(struct slot *s, const struct program *p, bool remap)
{
	pthread_mutex_lock(&s->mutex);
	if (remap) {
		void *before = s->code;

		unmap_slot(s);
		map_slot(s, before);
		atomic_fetch_add(&remaps, 1);
		atomic_fetch_add(&moved, s->code != before);
	}
	protect_slot(s, PROT_READ | PROT_WRITE);
	emit_program(s, p);
	for (unsigned i = 0; options.memory == FLIP && i < s->exits; i++)
		emit_link(s, i, true);
	protect_slot(s, PROT_READ | PROT_EXEC);
	s->ready = options.memory != FLIP;
	atomic_fetch_add(&emitted_words, s->used);
	atomic_fetch_add(&emitted_blocks, s->exits);
	pthread_mutex_unlock(&s->mutex);
}

static void stop_links(struct slot *s)
{
	pthread_mutex_lock(&s->mutex);
	s->ready = false;
	pthread_mutex_unlock(&s->mutex);
}

/* While blocks run: links and unlinks them. */
static void relink(uint64_t *seed)
{
	struct slot *s = &slots[random_next(seed) % (MAX_THREADS + 1)];

	pthread_mutex_lock(&s->mutex);
	for (unsigned i = 0; s->ready && i < 8; i++) {
		emit_link(s, (unsigned)(random_next(seed) % s->exits), random_next(seed) % 2);
		atomic_fetch_add(&relinks, 1);
	}
	pthread_mutex_unlock(&s->mutex);
}

/* ---- running ---- */

/* The code for an exit's target; next time the way there is direct. */
static const void *follow(struct slot *s, unsigned number)
{
	const void *to = s->table[s->exit[number].target];

	if (options.memory == FLIP)
		return to;
	pthread_mutex_lock(&s->mutex);
	emit_link(s, number, true);
	pthread_mutex_unlock(&s->mutex);
	return to;
}

static void execute(struct thread *t, struct slot *s)
{
	t->resume = s->table[0];
	sigsetjmp(t->again, 1); /* a handler comes back here, having changed `resume` */
	atomic_store_explicit(&t->running, s, memory_order_relaxed);
	step_inside(s, true);
	emit_enter(s, &t->state, t->resume);
	while (t->state.exit != EXIT_END) {
		t->resume = follow(s, (unsigned)t->state.exit);
		emit_enter(s, &t->state, t->resume);
	}
	step_inside(s, false);
	atomic_store_explicit(&t->running, NULL, memory_order_relaxed);
}

static void prepare(struct thread *t, uint64_t seed)
{
	struct region *own = region_of(t->number, 0);
	uint64_t *r = t->state.r, twin;

	memset(&t->state, 0, sizeof(t->state));
	for (unsigned i = 0; i < R_ADDRESS; i++)
		r[i] = random_next(&seed);
	for (unsigned i = 0; i < 2 * VECTORS; i++)
		t->state.v[i / 2][i % 2] = random_next(&seed);
	memcpy(&twin, own->shadow + CELL_TWIN, 8);
	r[R_TWIN] = r[R_TWIN2] = twin;
	r[R_PRIVATE] = own->va;
	r[R_LANE] = regions[REGION_SHARED].va + LANES + 8 * t->number;
	r[R_ATOMICS] = regions[REGION_SHARED].va + ATOMICS;
	r[R_CONSTANT] = regions[REGION_CONSTANT].va;
	r[R_SP] = r[R_MIRROR] = own->va + STACK_TOP;
	memcpy(t->base, &r[R_PRIVATE], sizeof(t->base));
}

static void compare(struct thread *t, const struct state *wanted, unsigned generation)
{
	const struct region *own = region_of(t->number, 0), *shared = &regions[REGION_SHARED];
	uint64_t lanes[LANE_WORDS];

	for (unsigned i = 0; i < REGS; i++)
		if (t->state.r[i] != wanted->r[i])
			wrong("r%u of thread %u is %#llx, not %#llx, in generation %u", i, t->number,
			      (unsigned long long)t->state.r[i], (unsigned long long)wanted->r[i], generation);
	for (unsigned i = 0; i < 2 * VECTORS; i++)
		if (t->state.v[i / 2][i % 2] != wanted->v[i / 2][i % 2])
			wrong("v%u of thread %u is not what it should be in generation %u", i / 2, t->number,
			      generation);
	if (t->state.wrong_pc)
		wrong("code of thread %u is not where it thinks, in generation %u: %#llx", t->number, generation,
		      (unsigned long long)t->state.wrong_pc);
	same("private bytes", t, generation, own->va, own->shadow, PAGE);
	for (unsigned i = 0; i < LANE_WORDS; i++)
		lanes[i] = *(volatile uint64_t *)(uintptr_t)(t->base[1] + LANE_STRIDE * i);
	for (unsigned i = 0; i < LANE_WORDS; i++)
		same("words in shared granules", t, generation, (uint64_t)(uintptr_t)&lanes[i],
		     shared->shadow + LANES + 8 * t->number + LANE_STRIDE * i, 8);
}

static uint64_t seed_for(unsigned thread, unsigned generation)
{
	uint64_t seed = options.seed * 0x10001 + thread * UINT64_C(0x100000000) + generation;

	return random_next(&seed);
}

static void make_program(struct program *p, uint64_t seed, unsigned thread)
{
	struct mix mix = { .unaligned = options.unaligned,
		           .faults = options.faults,
		           .await = options.interval != 0,
		           .iterations = options.iterations };

	if (!strcmp(options.program, "ring"))
		program_ring(p, options.iterations, thread % 2);
	else if (!strcmp(options.program, "private"))
		program_private(p, options.iterations);
	else if (!strcmp(options.program, "each"))
		program_each(p, options.iterations);
	else if (!strcmp(options.program, "small"))
		program_small(p, seed, options.iterations);
	else
		program_random(p, seed, &mix);
	if (options.print)
		program_print(p);
}

static void run_and_compare(struct thread *t, struct slot *s, unsigned generation)
{
	struct state wanted;

	prepare(t, seed_for(t->number + 100, generation));
	wanted = t->state;
	execute(t, s);
	reference_run(&t->program, &wanted, &t->reference_faults);
	compare(t, &wanted, generation);
}

/* Both threads of a pair are in the same generation. */
static void run_ring(struct thread *t, struct slot *s, unsigned generation)
{
	uint64_t ring = regions[REGION_SHARED].va + RING + PAIR_BYTES * (t->number / 2);

	prepare(t, 0);
	t->state.r[0] = ring;
	if (t->number % 2 == 0) {
		*(volatile uint64_t *)(uintptr_t)(ring + RING_HEAD) = 0;
		*(volatile uint64_t *)(uintptr_t)(ring + RING_TAIL) = 0;
	}
	pthread_barrier_wait(&together);
	execute(t, s);
	if (t->state.r[0] || t->state.r[1] != options.iterations)
		wrong("thread %u: %llu messages, wrong bits %#llx, in generation %u", t->number,
		      (unsigned long long)t->state.r[1], (unsigned long long)t->state.r[0], generation);
	pthread_barrier_wait(&together);
}

static void run_own(struct thread *t, unsigned generation)
{
	make_program(&t->program, seed_for(t->number, generation), t->number);
	stop_links(t->own);
	make_code(t->own, &t->program, options.remap && generation && generation % options.remap == 0);
	if (!strcmp(options.program, "ring"))
		run_ring(t, t->own, generation);
	else
		run_and_compare(t, t->own, generation);
}

static void run_common(struct thread *t, unsigned generation)
{
	struct slot *s = &slots[MAX_THREADS];

	if (pthread_barrier_wait(&together) == PTHREAD_BARRIER_SERIAL_THREAD) {
		make_program(&common_program, seed_for(50, generation), 0);
		stop_links(s);
		make_code(s, &common_program, false);
	}
	pthread_barrier_wait(&together);
	t->program = common_program;
	run_and_compare(t, s, generation);
}

static void *run(void *argument)
{
	struct thread *t = argument;
	bool may_be_common = options.common && options.threads > 1 && !strcmp(options.program, "random");

	signals_thread(t, options.interval);
	if (options.step)
		step_thread();
	for (unsigned g = 0; g < options.generations; g++) {
		if (may_be_common && g % options.common == options.common - 1)
			run_common(t, g);
		else
			run_own(t, g);
	}
	signals_thread_end(t);
	atomic_fetch_sub(&running, 1);
	return NULL;
}

/* ---- options ---- */

static _Noreturn void usage(const char *what)
{
	fprintf(stderr, "minijit: %s: see the top of minijit.c\n", what);
	exit(125);
}

static unsigned number(const char *text, unsigned most)
{
	char *end;
	unsigned long v = strtoul(text, &end, 0);

	if (*end || end == text || v > most)
		usage(text);
	return (unsigned)v;
}

static enum memory memory_by_name(const char *name)
{
	static const char *const names[] = { [RWX] = "rwx", [DUAL] = "dual", [FLIP] = "flip" };

	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(name, names[i]))
			return (enum memory)i;
	usage(name);
}

static void parse(int argc, char **argv)
{
	static const struct option table[] = {
		{ "flavour", 1, NULL, 'f' },
		{ "threads", 1, NULL, 't' },
		{ "generations", 1, NULL, 'g' },
		{ "iterations", 1, NULL, 'i' },
		{ "seed", 1, NULL, 's' },
		{ "program", 1, NULL, 'p' },
		{ "common", 1, NULL, 'c' },
		{ "signals", 1, NULL, 'S' },
		{ "memory", 1, NULL, 'm' },
		{ "remap", 1, NULL, 'r' },
		{ "unaligned", 0, NULL, 'u' },
		{ "faults", 0, NULL, 'F' },
		{ "onstack", 0, NULL, 'o' },
		{ "jumps", 0, NULL, 'j' },
		{ "relink", 0, NULL, 'l' },
		{ "own-registers", 0, NULL, 'R' },
		{ "print", 0, NULL, 'P' },
		{ "step", 0, NULL, 'T' },
		{ NULL, 0, NULL, 0 },
	};
	struct options *o = &options;
	int c;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->flavour = optarg;
			break;
		case 't':
			o->threads = number(optarg, MAX_THREADS);
			break;
		case 'g':
			o->generations = number(optarg, 1000000);
			break;
		case 'i':
			o->iterations = number(optarg, 100000000);
			break;
		case 's':
			o->seed = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			o->program = optarg;
			break;
		case 'c':
			o->common = number(optarg, 1000000);
			break;
		case 'S':
			o->interval = number(optarg, 900000);
			break;
		case 'm':
			o->memory = memory_by_name(optarg);
			break;
		case 'r':
			o->remap = number(optarg, 1000000);
			break;
		case 'u':
			o->unaligned = true;
			break;
		case 'F':
			o->faults = true;
			break;
		case 'o':
			o->onstack = true;
			break;
		case 'j':
			o->jumps = true;
			break;
		case 'l':
			o->relink = true;
			break;
		case 'R':
			o->own_registers = true;
			break;
		case 'P':
			o->print = true;
			break;
		case 'T':
			o->step = true;
			break;
		default:
			usage("unknown option");
		}
	}
	if (optind != argc || !o->threads || !o->iterations)
		usage("a count of nothing, or something that is no option");
	if (!flavour_set(o->flavour, o->own_registers))
		usage(o->flavour);
	/* a step ends the processor's exclusive monitor: a loop of exclusives would go on for ever */
	if (o->step && (o->threads != 1 || o->interval || o->jumps || flavour.llsc))
		usage("step by step: one thread, no other signals, no exclusives");
	/* what FEX's handler writes it writes into code that runs */
	if (o->unaligned && o->memory == FLIP && flavour.emulator == FEX)
		usage("fex writes into its code");
	if (!strcmp(o->program, "ring") && o->threads % 2)
		usage("ring needs pairs of threads");
}

/* ---- all of it ---- */

static void start(void)
{
	pthread_barrier_init(&together, NULL, options.threads);
	for (unsigned i = 0; i <= MAX_THREADS; i++) {
		pthread_mutex_init(&slots[i].mutex, NULL);
		if (i < options.threads || i == MAX_THREADS)
			map_slot(&slots[i], NULL);
	}
	atomic_store(&running, options.threads);
	for (unsigned i = 0; i < options.threads; i++) {
		threads[i].number = i;
		threads[i].seed = options.seed + i;
		threads[i].own = &slots[i];
		if (pthread_create(&threads[i].thread, NULL, run, &threads[i]))
			checked(NULL);
	}
}

static struct counts total(uint64_t *reference_faults)
{
	struct counts sum = { 0 };

	*reference_faults = 0;
	for (unsigned i = 0; i < options.threads; i++) {
		const struct counts *c = &threads[i].counts;

		sum.signals += c->signals;
		sum.inside += c->inside;
		sum.skipped += c->skipped;
		sum.changed += c->changed;
		sum.jumps += c->jumps;
		sum.faults += c->faults;
		sum.backpatched += c->backpatched;
		sum.repeated += c->repeated;
		*reference_faults += threads[i].reference_faults;
	}
	return sum;
}

static void report(const struct counts *c)
{
	printf("# minijit: %s, %s, %u threads of %u generations, seed %llu\n", options.flavour, options.program,
	       options.threads, options.generations, (unsigned long long)options.seed);
	printf("# words %llu, exits %llu, relinks %llu, remaps %llu, of these moved %llu\n",
	       (unsigned long long)emitted_words, (unsigned long long)emitted_blocks, (unsigned long long)relinks,
	       (unsigned long long)remaps, (unsigned long long)moved);
	printf("# signals %llu, in generated code %llu, pc advanced %llu, register changed %llu, jumped out %llu\n",
	       (unsigned long long)c->signals, (unsigned long long)c->inside, (unsigned long long)c->skipped,
	       (unsigned long long)c->changed, (unsigned long long)c->jumps);
	printf("# faults %llu, backpatched %llu, of these already done %llu\n", (unsigned long long)c->faults,
	       (unsigned long long)c->backpatched, (unsigned long long)c->repeated);
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	uint64_t seed, faults;
	struct counts counts;

	setvbuf(stdout, NULL, _IOLBF, 0);
	parse(argc, argv);
	if (options.step)
		step_prepare();
	signals_install(options.onstack);
	make_memory();
	seed = options.seed;
	start();
	while (options.relink && atomic_load(&running)) {
		relink(&seed);
		nanosleep(&pause, NULL);
	}
	for (unsigned i = 0; i < options.threads; i++)
		pthread_join(threads[i].thread, NULL);
	if (strcmp(options.program, "ring"))
		same("shared bytes", &threads[0], options.generations, regions[REGION_SHARED].va,
		     regions[REGION_SHARED].shadow, RING);
	counts = total(&faults);
	report(&counts);
	step_report();
	if (counts.faults != faults)
		wrong("%llu faults, not %llu", (unsigned long long)counts.faults, (unsigned long long)faults);
	if (options.interval && counts.inside < options.threads)
		wrong("only %llu signals came in generated code", (unsigned long long)counts.inside);
	printf("%s - results, registers at signals and faults are those of the reference\n",
	       findings ? "not ok" : "ok");
	if (findings)
		printf("# %llu findings\n", (unsigned long long)findings);
	return findings ? 1 : 0;
}
