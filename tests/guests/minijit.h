/* SPDX-License-Identifier: MIT */
/* Parts of minijit: a small emulator of our own. Its guest is a little machine of x86's kind (TSO, unaligned accesses, LOCK'd operations, push and pop);
 * its generated code is like that of one of the emulators that the preload is for. */
#ifndef TAGTSO_TESTS_MINIJIT_H
#define TAGTSO_TESTS_MINIJIT_H

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { PAGE = 4096, MAX_THREADS = 8, REGS = 16, VECTORS = 4 };

/* ---- the guest -------------------------------------------------------------------------------------------------- */

/* Registers with a purpose; r0 to r4 are data. */
enum {
	R_COMPARE = 0, /* CMPXCHG's */
	R_ADDRESS = 5, /* computed addresses */
	R_TWIN = 6,    /* equal to R_TWIN2, and to the cell CELL_TWIN, between any two instructions */
	R_TWIN2 = 7,
	R_PRIVATE = 8, /* bases, which never change */
	R_LANE = 9,
	R_ATOMICS = 10,
	R_CONSTANT = 11,
	R_SP = 12,
	R_OUTER = 13, /* loop counters */
	R_INNER = 14,
	R_MIRROR = 15, /* equal to R_SP between any two instructions */
};

/* The thread's private page. */
enum {
	DATA_BYTES = 2048,
	CELL_TWIN = 2048,
	CELL_AWAIT = 2080,
	POINTERS = 2304, /* POINTERS_COUNT addresses for the accesses that may fault */
	POINTERS_COUNT = 8,
	STACK_TOP = 4096,
	STACK_BYTES = 1024,
};

/* The page that all threads share. */
enum {
	ATOMICS = 0, /* ATOMIC_CELLS words that all threads add to, 16 bytes apart: two to a pair of granules */
	ATOMIC_CELLS = 8,
	LANES = 1024, /* words that belong to the threads in turn, so that each granule has two users */
	LANE_STRIDE = 8 * MAX_THREADS,
	LANE_WORDS = 16,
	RING = 3072, /* head, tail, slots: of one pair of threads each, PAIR_BYTES apart */
	PAIR_BYTES = 256,
	RING_HEAD = 0,
	RING_TAIL = 64,
	RING_SLOTS = 128,
	RING_COUNT = 16,
};

enum opcode {
	G_MOVI, /* rd = imm */
	G_MOV,  /* rd = rs */
	G_ADD,  /* rd += rs, and so on */
	G_SUB,
	G_XOR,
	G_AND,
	G_OR,
	G_MUL,
	G_ADDI,  /* rd += imm, |imm| < 4096 */
	G_ANDI,  /* rd &= 2^imm - 1 */
	G_ROR,   /* rd rotated by imm */
	G_LOAD,  /* rd = [rb + off], zero-extended from `size` bytes */
	G_LOADS, /* sign-extended, size 1 to 4 */
	G_STORE, /* [rb + off] = rs */
	G_VLOAD, /* 16 bytes */
	G_VSTORE,
	G_VADD, /* vd += vs, two words */
	G_VDUP, /* both words of vd = rs */
	G_VGET, /* rd = first word of vs */
	G_PUSH, /* rs, and R_MIRROR follows */
	G_POP,
	G_PUSH2,   /* rs at the lower address, rd */
	G_POP2,    /* rd from the lower address, rs */
	G_XADD,    /* rs = old, [rb + off] += rs; LOCK'd like the next three */
	G_LADD,    /* [rb + off] += rs */
	G_XCHG,    /* rs with [rb + off] */
	G_CMPXCHG, /* R_COMPARE with [rb + off]: rs to memory if equal; R_COMPARE = old; rd = whether it was equal */
	G_FENCE,   /* imm: 0 = MFENCE, 1 = LFENCE, 2 = SFENCE */
	G_TWIN,    /* R_TWIN += 1; store it to CELL_TWIN; load R_TWIN2 from there */
	G_TWINX,   /* the same by XADD */
	G_SELF,    /* the code compares its own pc with where it was emitted */
	G_AWAIT,   /* loads CELL_AWAIT again and again until a signal's handler advances the pc over it; rd = imm */
	G_AWAITR,  /* the same until a handler changes rd, which is 0 before; rd = imm then */
	G_FLOAD,   /* rd = [R_ADDRESS + off], which may fault: then rd = fault_value() */
	G_FSTORE,  /* [R_ADDRESS + off] = rs, which may fault: then nothing is stored */
	G_CMP,     /* flags of rd - rs; they live until the next G_JCC, over loads and stores */
	G_JCC,     /* size: an A64 condition code */
	G_JMP,
	G_JNZ,  /* rs */
	G_DJNZ, /* --rd */
	G_CALL, /* pushes the number of the next instruction */
	G_RET,
	G_END,
	G_OPCODES
};

struct insn {
	uint8_t op, size, rd, rs, rb;
	int32_t off;
	uint64_t imm; /* or the number of the instruction that a branch leads to */
};

enum { MAX_INSNS = 512 };
struct program {
	struct insn insn[MAX_INSNS];
	unsigned n;
};

/* What random programs are made of. */
struct mix {
	bool unaligned, faults, await;
	unsigned iterations;
};
void program_random(struct program *p, uint64_t seed, const struct mix *mix);
/* Loads, stores, push and pop on private memory alone. */
void program_private(struct program *p, unsigned iterations);
/* One of each kind of access to private memory, those first that handlers can check most of. */
void program_each(struct program *p, unsigned iterations);
/* A few random accesses of private memory, in a loop. */
void program_small(struct program *p, uint64_t seed, unsigned iterations);
/* Even threads send words to their odd neighbours through a ring; `receiver`: the neighbour's part. Result in r0. */
void program_ring(struct program *p, unsigned messages, bool receiver);
void program_print(const struct program *p);
bool insn_is_branch(const struct insn *i);

static inline uint64_t random_next(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* What a load gives that faulted at va. */
static inline uint64_t fault_value(uint64_t va)
{
	return va * 0x9e3779b97f4a7c15 ^ 0xfa;
}

struct flags {
	uint64_t a, b; /* of the last G_CMP */
};

/* Registers of the guest. Generated code knows the offsets (emit.c); host memory. */
struct state {
	uint64_t r[REGS];
	uint64_t v[VECTORS][2];
	uint64_t nzcv;
	struct flags compared;   /* where the flags are kept as what was compared */
	uint64_t exit;           /* why the code was left: number of an exit, or EXIT_END */
	void *const *table;      /* where the code of each guest instruction is, for G_RET */
	uint64_t wrong_pc;       /* bits by which the code's pc differed from where it was emitted */
	uint64_t snapshot[REGS]; /* host registers just before an access that may fault, in the order of flavour.live */
};

/* ---- guest memory, and the reference's copy of it ------------------------------------------------------------------ */

enum kind { ORDINARY, UNMAPPED, READ_ONLY, BEYOND_FILE };
struct region {
	uint64_t va;
	uint8_t *shadow;
	enum kind kind;
};
/* The shared page and the constants, then four for each thread. */
enum { REGION_SHARED, REGION_CONSTANT, REGION_OWN, REGIONS = REGION_OWN + 4 * MAX_THREADS };
extern struct region regions[REGIONS];

/* One of the four LOCK'd operations, by the processor's own; returns the old value. The flavour qemu calls it for guest memory. */
uint64_t locked_operation(unsigned op, unsigned size, void *p, uint64_t value, uint64_t compare);
/* Runs the program to its end on the copies. Counts accesses that would fault. */
void reference_run(const struct program *p, struct state *s, uint64_t *faults);

/* ---- generated code --------------------------------------------------------------------------------------------- */

/* What is to be known of one word of generated code, just before it is executed. */
struct word {
	uint16_t insn; /* of the guest */
	uint8_t flags;
	int8_t twin, cell, sp; /* R_TWIN - R_TWIN2, CELL_TWIN - R_TWIN2, R_SP - R_MIRROR */
};
enum {
	WORD_GUEST = 1, /* in the code of a guest instruction: the registers are what it says */
	WORD_START = 2, /* its first word */
	WORD_MAY_FAULT = 4,
	WORD_AWAIT = 8, /* in the loop of G_AWAIT */
	WORD_AWAITR = 16,
	WORD_RETURN = 32, /* a helper returns to it */
};

enum { SLOT_BYTES = 128 * 1024, SLOT_WORDS = SLOT_BYTES / 4, MAX_EXITS = 1024 };
#define EXIT_END UINT64_C(0xffff)

/* Where a block leaves to another one that it may not know yet. */
struct exit {
	uint32_t word;   /* its branch: index */
	uint32_t stub;   /* what it leads to until it is linked */
	uint16_t target; /* guest instruction */
};

/* A piece of code memory that holds one program's blocks at a time. */
struct slot {
	uint32_t *code;  /* where it runs */
	uint32_t *write; /* where it is written: the same, or another mapping of the same memory */
	unsigned used;
	struct word word[SLOT_WORDS];
	uint32_t enter, leave;
	uint32_t at[MAX_INSNS]; /* index of the code of each guest instruction */
	void *table[MAX_INSNS];
	struct exit exit[MAX_EXITS];
	unsigned exits;
	pthread_mutex_t mutex; /* exits, and the writer of code against who links */
	bool ready;            /* under the mutex: holds a program whose exits may be linked */
};

enum emulator { BOX64, FEX, QEMU };
enum rcpc { LDAPR, LDAPUR, LDAR }; /* what FEX's loads are */
struct flavour {
	enum emulator emulator;
	enum rcpc rcpc;
	bool llsc;          /* CMPXCHG as a loop of exclusives (box64 0.4.3), or CASAL (0.3.4) */
	bool vector_tso;    /* FEX's barriers with vectors */
	int8_t host[REGS];  /* where a guest register is kept; -1: in the state */
	uint8_t vector;     /* the first of VECTORS registers in a row */
	uint8_t state;      /* the register that points to the state */
	uint8_t temp[6];    /* for the translation of one instruction */
	uint8_t live[REGS]; /* what must be at a fault as it was in the snapshot */
	unsigned nlive;     /* even */
};
extern struct flavour flavour;
/* By name; `own`: registers as the emulator has them, or else x8 and x9 left free, as the profile `generic` wants it. */
bool flavour_set(const char *name, bool own);

/* Writes all blocks of the program into the slot, from its beginning. What jumps from block to block leads to the emulator first. */
void emit_program(struct slot *slot, const struct program *p);
/* Runs code until it leaves by an exit. */
void emit_enter(const struct slot *slot, struct state *state, const void *target);
/* Makes an exit lead to its target, or to the emulator again. Other threads may be running it. */
void emit_link(struct slot *slot, unsigned exit, bool linked);
/* Number of the word at pc; -1 if it is none of the slot's. */
long emit_word_at(const struct slot *slot, uint64_t pc);

/* ---- threads and signals ------------------------------------------------------------------------------------------ */

struct counts {
	uint64_t signals, inside, skipped, changed, jumps, faults, backpatched, repeated;
};

enum { ALTSTACK_BYTES = 64 * 1024 };
struct thread {
	pthread_t thread;
	unsigned number;
	uint64_t seed; /* for choices that change no result */
	struct state state;
	uint64_t base[4]; /* what R_PRIVATE to R_CONSTANT always are */
	struct slot *own;
	struct program program;
	_Atomic(struct slot *) running; /* whose code it is in, or NULL; its own handlers read it */
	sigjmp_buf again;
	const void *resume; /* where a handler that jumps out wants to go on */
	timer_t timer;
	unsigned interval;    /* ns, 0 = no timer */
	struct counts counts; /* written by its own handlers */
	uint64_t reference_faults;
	uint8_t altstack[ALTSTACK_BYTES];
};
extern __thread struct thread *self;

/* Handlers for everything; `onstack`: on an alternate stack for each thread. */
void signals_install(bool onstack);
void signals_thread(struct thread *t, unsigned interval_us);
void signals_thread_end(struct thread *t);

/* --step: before anything else; at the start of the thread that is followed; around generated code; at the end. */
void step_prepare(void);
void step_thread(void);
void step_inside(const struct slot *slot, bool inside);
void step_report(void);

/* Says what is wrong; from handlers too. The first few are printed, all are counted. */
void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Where the guest of this thread finds its memory. */
static inline struct region *region_of(unsigned thread, unsigned n)
{
	return &regions[REGION_OWN + 4 * thread + n];
}

extern struct options {
	const char *flavour, *program;
	unsigned threads, generations, interval, iterations, remap, common;
	enum memory { RWX, DUAL, FLIP } memory;
	uint64_t seed;
	bool onstack, unaligned, faults, jumps, print, own_registers, relink, step;
} options;

#endif
