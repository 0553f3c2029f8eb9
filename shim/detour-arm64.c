/* SPDX-License-Identifier: MIT */
/* One word of the emulator's text becomes a branch to a page near it: from there to the wrapper, and, for the way back, the word that stood there
 * and a branch to the second one.
 *
 *    function:    B enter        enter:   LDR x16, wrapper; BR x16
 *    function+4:  ...            leave:   the first word; B function+4
 *                                wrapper: .quad
 *
 * x16 is free at the entry of a function (AAPCS64 6.1.1): linkers' own branch islands use it. */
#include "detour.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#include "../alloc/sys.h"
#include "../alloc/window.h"
#include "../interp/form.h"
#include "../interp/opinion.h"
#include "say.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

enum {
	STEP = 1 << 20,          /* between the places that are tried for the page */
	FAR = 120 << 20,         /* from the function at most: a branch reaches 128 MB */
	LDR_X16_16 = 0x58000090, /* LDR x16, [pc, #16] */
	BR_X16 = 0xd61f0200,
};

/* An instruction that does the same elsewhere, and that functions begin with that only pass arguments on.
 *
 *    31              24 23 22 21 20      16 15     10 9    5 4    0
 *   +------------------+-----+--+----------+---------+------+------+
 *   | 1 0 1 0 1 0 1 0  | 0 0 | 0|    Rm    | 000000  |11111 |  Rd  |  MOV xd, xm
 *   +------------------+-----+--+----------+---------+------+------+ */
#define MOV UINT32_C(0xaa0003e0)
#define MOV_MASK UINT32_C(0xffe0ffe0)

struct stub {
	uint32_t enter[2], leave[2];
	uint64_t wrapper;
};
_Static_assert(offsetof(struct stub, wrapper) == 16, "what LDR_X16_16 loads");

/* Two decoders have to agree (I5). */
static bool may_move(uint32_t word, uint64_t pc)
{
	static struct tagtso_opinion opinion; /* too large for the stack */
	char ours[TAGTSO_TEXT], theirs[TAGTSO_TEXT];
	unsigned rd = word & 31, rm = word >> 16 & 31;

	if ((word & MOV_MASK) != MOV || rd == 31 || rm == 31 || rd == 16 || rm == 16 || tagtso_opinion_open(&opinion))
		return false;
	tagtso_format(ours, sizeof(ours), "mov x%u, x%u", rd, rm);
	bool same = tagtso_opinion_text(&opinion, pc, word, theirs) && tagtso_text_equal(ours, theirs);

	tagtso_opinion_close(&opinion);
	return same;
}

static struct stub *near_page(uint64_t function)
{
	uint64_t page = function & ~(uint64_t)(TAGTSO_PAGE_SIZE - 1);

	for (uint64_t off = STEP; off < FAR && off < page; off += STEP) {
		long p = tagtso_sys(__NR_mmap, page - off, TAGTSO_PAGE_SIZE, PROT_READ | PROT_WRITE,
		                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (!tagtso_sys_failed(p) && (uint64_t)p == page - off)
			return (struct stub *)p;
		if (!tagtso_sys_failed(p)) /* kernels before 4.17 take the address for a hint */
			tagtso_sys(__NR_munmap, p, TAGTSO_PAGE_SIZE);
	}
	return NULL;
}

static void clean(const void *from, size_t size)
{
	__builtin___clear_cache((char *)(uintptr_t)from, (char *)(uintptr_t)from + size);
}

static long write_stub(struct stub *stub, const struct tagtso_detour *detour)
{
	uint64_t leave = (uintptr_t)&stub->leave[1];

	stub->enter[0] = LDR_X16_16;
	stub->enter[1] = BR_X16;
	stub->leave[0] = *(const uint32_t *)(uintptr_t)detour->function;
	stub->leave[1] = tagtso_form_branch(leave, detour->function + 4);
	stub->wrapper = (uintptr_t)detour->wrapper;
	clean(stub, sizeof(*stub));
	return stub->leave[1] ? tagtso_sys(__NR_mprotect, stub, TAGTSO_PAGE_SIZE, PROT_READ | PROT_EXEC) : -ERANGE;
}

/* The page is writable for the one store, and not executable then: nothing else runs. */
static long write_branch(uint64_t function, uint32_t branch)
{
	uint64_t page = function & ~(uint64_t)(TAGTSO_PAGE_SIZE - 1);
	long e = tagtso_sys(__NR_mprotect, page, TAGTSO_PAGE_SIZE, PROT_READ | PROT_WRITE);

	if (e)
		return e;
	atomic_store((_Atomic uint32_t *)(uintptr_t)function, branch);
	e = tagtso_sys(__NR_mprotect, page, TAGTSO_PAGE_SIZE, PROT_READ | PROT_EXEC);
	if (e) /* it was executable, and the emulator is not without it */
		tagtso_die("mprotect: error %d: the emulator's text at %lx cannot be made executable again", (int)-e,
		           (unsigned long)page);
	clean((const void *)(uintptr_t)function, sizeof(uint32_t));
	return 0;
}

int tagtso_detour_install(struct tagtso_detour *detour, const char **what)
{
	uint32_t branch;

	*what = "a function of the emulator begins with an instruction that cannot be moved";
	if (!may_move(*(const uint32_t *)(uintptr_t)detour->function, detour->function))
		return -ENOEXEC;
	*what = "there is no free page near the emulator's text";
	struct stub *stub = near_page(detour->function);

	if (!stub)
		return -ENOMEM;
	*what = "writing a page near the emulator's text";
	long e = write_stub(stub, detour);

	branch = tagtso_form_branch(detour->function, (uintptr_t)stub->enter);
	if (!e && !branch)
		e = -ERANGE;
	*what = "making the emulator's text writable";
	if (!e) {
		detour->original = stub->leave;
		e = write_branch(detour->function, branch);
	}
	if (e)
		tagtso_sys(__NR_munmap, stub, TAGTSO_PAGE_SIZE);
	return (int)e;
}
