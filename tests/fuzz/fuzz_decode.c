/* SPDX-License-Identifier: MIT */
/* Feeds words to the decoder and checks what must hold for any of them.
 *
 * With TAGTSO_FUZZER defined it is a libFuzzer target (clang -fsanitize=fuzzer,address,undefined); without, a program that runs
 * a fixed number of pseudo-random inputs: fuzz_decode [COUNT].
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interp/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Not assert(): the check must stay in builds with NDEBUG. */
static void hold(bool condition, uint32_t word, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "fuzz_decode: %08x: broken: %s\n", (unsigned)word, what);
	abort();
}

static void check_registers(uint32_t word, const struct tagtso_memop *op)
{
	hold(op->rt < 32 && op->rt2 < 32 && op->rn < 32 && op->rm < 32 && op->rs < 32, word, "registers are below 32");
	hold(op->count >= 1 && op->count <= 4, word, "one to four elements");
	if (op->cls == TAGTSO_CASP)
		hold(op->rt + 1 < 32 && op->rs + 1 < 32, word, "CASP registers have successors");
	if (op->cls == TAGTSO_ZERO_BLOCK)
		hold(op->rn == op->rt && op->rt != 31, word, "DC ZVA has an address register");
}

static void check_sizes(uint32_t word, const struct tagtso_memop *op)
{
	bool vector = op->flags & TAGTSO_F_VECTOR;
	unsigned bytes = tagtso_memop_bytes(op);

	hold(bytes <= 64, word, "at most 64 bytes");
	hold((bytes == 0) == (op->cls == TAGTSO_PREFETCH), word, "only a prefetch accesses nothing");
	hold(op->size <= (vector ? 4 : 3), word, "an element fits its register");
	hold(op->lse <= TAGTSO_LSE_SWP, word, "a known atomic operation");
	hold(op->index < 16, word, "a lane is inside its vector");
	if (op->cls == TAGTSO_LOAD_LANE || op->cls == TAGTSO_STORE_LANE)
		hold((op->index + 1) << op->size <= 16, word, "a lane is inside its vector");
	hold(op->regwidth == (vector || op->cls == TAGTSO_PREFETCH ? 0
	                      : op->regwidth == 32                 ? 32
	                                                           : 64),
	     word, "a known width");
}

static void check_address(uint32_t word, const struct tagtso_memop *op)
{
	hold(op->addressing <= TAGTSO_ADDR_LITERAL, word, "a known addressing form");
	hold(op->imm >= -(1 << 20) && op->imm < 1 << 20, word, "an offset within 1 MB");
	if (op->addressing == TAGTSO_ADDR_REG) {
		hold(op->extend & 2, word, "an index is extended from 32 or 64 bits");
		hold(op->shift == 0 || op->shift == op->size, word, "an index is shifted by the size or not at all");
	} else {
		hold(op->extend == 0 && op->shift == 0, word, "extension and shift belong to an index");
	}
	hold((op->rm == 31) || op->addressing == TAGTSO_ADDR_REG || op->addressing == TAGTSO_ADDR_POST_REG, word,
	     "an index register belongs to an address with one");
}

static void check_flags(uint32_t word, const struct tagtso_memop *op)
{
	bool accesses = op->flags & (TAGTSO_F_LOAD | TAGTSO_F_STORE);

	hold(accesses == (op->cls != TAGTSO_PREFETCH), word, "an access loads or stores");
	if (op->flags & TAGTSO_F_SIGNED)
		hold((op->flags & TAGTSO_F_LOAD) && !(op->flags & TAGTSO_F_VECTOR) && op->size < 3, word,
		     "only narrow loads into general-purpose registers are sign-extended");
	if (op->flags & TAGTSO_F_WIDE)
		hold((op->flags & TAGTSO_F_SIGNED) && op->regwidth == 64, word,
		     "sign extension to 64 bits needs 64 bits");
	if (op->flags & TAGTSO_F_RCPC)
		hold(op->flags & TAGTSO_F_ACQUIRE, word, "RCpc is a kind of acquire");
}

static void check_reach(uint32_t word, const struct tagtso_memop *op)
{
	hold(op->rt < 32 && op->rn < 32 && op->rm < 32 && op->rs < 32, word, "registers are below 32");
	hold(op->addressing >= TAGTSO_REACH_NEAR && op->addressing <= TAGTSO_REACH_FILL, word, "a known reach");
	hold(tagtso_memop_bytes(op) == 0 && !op->regwidth, word, "no bytes are known beforehand");
	if (op->addressing == TAGTSO_REACH_OFFSETS || op->addressing == TAGTSO_REACH_VECTOR)
		hold((op->size == 2 || op->size == 3) && op->rs < 8 && op->shift < 4, word,
		     "elements of 32 or 64 bits");
	hold(op->imm >= 0 && op->imm < 256, word, "a small offset");
}

/* Whatever was in *op before, the outcome is the same to the last byte: sites compare and copy it. */
static void check_word(uint32_t word)
{
	struct tagtso_memop op, again;
	bool executable, executable_again;

	memset(&op, 0x55, sizeof(op));
	memset(&again, 0xaa, sizeof(again));
	executable = tagtso_decode(word, &op);
	executable_again = tagtso_decode(word, &again);
	hold(executable == executable_again && !memcmp(&op, &again, sizeof(op)), word, "a pure function of the word");
	hold(op.word == word, word, "the word is kept");
	hold(op.cls < TAGTSO_NCLASSES, word, "a known class");
	hold(executable == (op.cls > TAGTSO_UNKNOWN && op.cls < TAGTSO_OUT_OF_LINE), word,
	     "the answer says whether the class is executable");
	if (op.cls == TAGTSO_OUT_OF_LINE) {
		check_reach(word, &op);
	} else if (!executable) {
		hold(tagtso_memop_bytes(&op) == 0 && !op.flags, word, "nothing is said of what is not executed");
	} else {
		check_registers(word, &op);
		check_sizes(word, &op);
		check_address(word, &op);
		check_flags(word, &op);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (; size >= sizeof(uint32_t); data += sizeof(uint32_t), size -= sizeof(uint32_t)) {
		uint32_t word;

		memcpy(&word, data, sizeof(word));
		check_word(word);
		/* Mutation seldom finds the quarter of all words that is loads and stores. */
		check_word((word & ~UINT32_C(0x0a000000)) | 0x08000000);
	}
	return 0;
}

#ifndef TAGTSO_FUZZER
int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 0) : 4000000;
	uint64_t state = 0x9e3779b97f4a7c15;

	for (unsigned long i = 0; i < count; i++) {
		uint32_t word;

		/* splitmix64's step and finaliser */
		uint64_t z = state += 0x9e3779b97f4a7c15;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
		z = (z ^ z >> 27) * 0x94d049bb133111eb;
		word = z >> 32;
		LLVMFuzzerTestOneInput((const uint8_t *)&word, sizeof(word));
	}
	printf("fuzz_decode: %lu words\n", count);
	return 0;
}
#endif
