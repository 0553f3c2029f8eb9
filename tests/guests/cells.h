/* SPDX-License-Identifier: MIT */
/* Parts of cells: an arm64 program that behaves like a small emulator under the preload, and looks at what becomes of its guest memory and of
 * its generated code. */
#ifndef TAGTSO_TESTS_CELLS_H
#define TAGTSO_TESTS_CELLS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGE = 4096, GRANULE = 16, BUSY = 14, SHARED = 15, IDS = 13 };

/* ---- tests ---- */

/* What the report must say after a test. */
struct expect {
	const char *counter;
	char relation; /* '=', '<' or '>': at most, at least */
	uint64_t value;
};

/* One behaviour. It runs in a process of its own, under the preload. */
struct test {
	const char *name;
	const char *sentence;
	void (*run)(void);
	const char *knobs; /* "TAGTSO_NAME=value …", or NULL */
	struct expect expects[3];
};
#define TEST(name, sentence, run, knobs, ...) \
	{ \
		name, sentence, run, knobs, \
		{ \
			__VA_ARGS__ \
		} \
	}
extern const struct test cells_table[], cells_owners[], cells_memory[], cells_faults[], cells_threads[], cells_busy[],
	cells_process[], cells_relax[], cells_cpus[], cells_signals[], cells_probes[];

/* Says what was wrong; the test has failed, and goes on. Any thread. */
void cells_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define FAIL(...) cells_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition, ...) \
	do { \
		if (!(condition)) \
			FAIL(__VA_ARGS__); \
	} while (0)
#define SAME(got, wanted, what) \
	do { \
		uint64_t got_ = (uint64_t)(got), wanted_ = (uint64_t)(wanted); \
		if (got_ != wanted_) \
			FAIL("%s is %#lx, not %#lx", what, (unsigned long)got_, (unsigned long)wanted_); \
	} while (0)

/* ---- generated code ---- */

/* Instructions that are copied into the code area; `site` is the memory instruction that matters. */
struct snippet {
	const uint32_t *start, *site, *end;
};
extern const struct snippet snippet_ldr, snippet_str, snippet_ldrb, snippet_strh, snippet_ldp, snippet_stp,
	snippet_ldr_q, snippet_str_q, snippet_ldr_post, snippet_str_pre, snippet_ldr_reg, snippet_ld1_lane,
	snippet_ld1r, snippet_ldadd, snippet_swpa, snippet_casal, snippet_caspal, snippet_stlr, snippet_ldapr,
	snippet_llsc, snippet_add_ldadd, snippet_add_cas, snippet_add_llsc, snippet_add_llsc_load, snippet_add_pair,
	snippet_add_plain, snippet_produce, snippet_consume, snippet_ld2, snippet_st2, snippet_sve_load,
	snippet_ldr_str, snippet_ldr_ldadd, snippet_zva, snippet_copy, snippet_fill, snippet_sum, snippet_write_twins,
	snippet_read_twins, snippet_write_twins_q, snippet_read_twins_q;

/* A copy of a snippet. Called as fn(pointer, a, b). */
struct code {
	uint64_t (*fn)(volatile void *pointer, uint64_t a, uint64_t b);
	volatile uint32_t *site;
	uint32_t word; /* as emitted */
};
struct code cells_emit(const struct snippet *snippet);
/* Writes another snippet over a copy, as an emulator does that recycles code. */
struct code cells_emit_over(struct code old, const struct snippet *snippet);
static inline bool is_rewritten(struct code c)
{
	return *c.site != c.word;
}

/* Calls fn; *trapped = whether a signal came meanwhile. */
uint64_t cells_observe(uint64_t (*fn)(volatile void *, uint64_t, uint64_t), volatile void *pointer, uint64_t a,
                       uint64_t b, uint32_t *trapped);

enum form { EMITTED, LOCAL, SHARED_FORM, MIXED };
/* Calls the copy on memory of the kind that leads to the form until it is there; false after some seconds. With a second thread alive. */
bool cells_train(struct code c, enum form form);

/* ---- guest memory ---- */

void *cells_map(size_t size); /* private anonymous memory: goes into the window */
/* Pages that already are in a state, on page 0 of a fresh mapping of one page. `other` is the thread that owns what is not ours. */
struct worker;
uint64_t *cells_mine(void);
uint64_t *cells_others(struct worker *other);
uint64_t *cells_shared(struct worker *other); /* with TAGTSO_HANDOVERS=0, or few */

/* The tag in memory. */
static inline unsigned tag_of(const volatile void *p)
{
	uint64_t x = (uint64_t)p;

	__asm__ volatile("ldg %0, [%0]" : "+r"(x) : : "memory");
	return (unsigned)(x >> 56) & 15;
}

/* Where the owner is a CPU (TAGTSO_OWNER=cpu): tags may be others from one moment to the next. */
extern bool cells_cpu;
void cells_cpu_init(void);
unsigned cells_cpu_tag(void);
void cells_cpu_pin(unsigned cpu);             /* the calling thread */
int cells_cpu_mover(int pid, unsigned moves); /* the process that moves the threads of another: its exit status */

/* This thread's own tag, 0 = none. */
static inline unsigned my_tag(void)
{
	uint64_t x = 0;

	if (cells_cpu)
		return cells_cpu_tag();

	__asm__ volatile("irg %0, %0" : "+r"(x));
	return (unsigned)(x >> 56) & 15;
}

/* Reads and writes that no tag stops, and that change none. */
static inline uint64_t peek(const volatile uint64_t *p)
{
	uint64_t v;

	__asm__ volatile("msr tco, #1\n\tldr %0, [%1]\n\tmsr tco, #0" : "=&r"(v) : "r"(p) : "memory");
	return v;
}
static inline void plant(volatile uint64_t *p, uint64_t v)
{
	__asm__ volatile("msr tco, #1\n\tstr %0, [%1]\n\tmsr tco, #0" : : "r"(v), "r"(p) : "memory");
}

/* Checked accesses from the program's own text. */
static inline uint64_t get(const volatile uint64_t *p)
{
	return *p;
}
static inline void put(volatile uint64_t *p, uint64_t v)
{
	*p = v;
}

/* ---- threads ---- */

/* A thread that does one thing after another, each while its owner waits. */
struct worker {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	void (*job)(void *);
	void *arg;
	bool busy, ending;
};
void cells_worker_start(struct worker *w);
void cells_worker_run(struct worker *w, void (*job)(void *), void *arg);
void cells_worker_stop(struct worker *w);
/* One call or access by the worker; NULL = by this thread. */
uint64_t cells_call_on(struct worker *w, struct code c, volatile void *pointer, uint64_t a, uint64_t b);
void cells_put_on(struct worker *w, volatile uint64_t *p, uint64_t v);
uint64_t cells_get_on(struct worker *w, const volatile uint64_t *p);
unsigned cells_tag_of_worker(struct worker *w);

/* Runs fn(arg + n * size) in `count` threads at the same time and waits for all. */
void cells_together(unsigned count, void *(*fn)(void *), void *args, size_t size);
void cells_sleep_ms(unsigned ms);

#endif
