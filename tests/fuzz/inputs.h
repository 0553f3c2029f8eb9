/* SPDX-License-Identifier: MIT */
/* The main() of a fuzzing target without libFuzzer: each file that is named, or else a fixed number of pseudo-random inputs made of the target's `pieces`. */
#ifndef TAGTSO_TESTS_FUZZ_INPUTS_H
#define TAGTSO_TESTS_FUZZ_INPUTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef TAGTSO_FUZZER
static const char *const pieces[];
static const size_t piece_count;

enum { INPUT = 4096, INPUTS = 20000 };

static int run_file(const char *name)
{
	static uint8_t data[1 << 20];
	FILE *file = fopen(name, "rb");
	size_t size;

	if (!file) {
		perror(name);
		return 1;
	}
	size = fread(data, 1, sizeof(data), file);
	fclose(file);
	return LLVMFuzzerTestOneInput(data, size);
}

static uint64_t next(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void run_pieces(uint64_t seed)
{
	unsigned count = (unsigned)(next(&seed) % 64);
	uint8_t data[INPUT];
	size_t size = 0;

	for (unsigned i = 0; i < count; i++) {
		const char *piece = pieces[next(&seed) % piece_count];

		for (; *piece && size < INPUT; piece++)
			data[size++] = (uint8_t)(next(&seed) % 200 ? *piece : (int)next(&seed));
	}
	LLVMFuzzerTestOneInput(data, size);
}

int main(int argc, char **argv)
{
	int status = 0;

	for (int i = 1; i < argc; i++)
		status |= run_file(argv[i]);
	for (unsigned i = 0; argc == 1 && i < INPUTS; i++)
		run_pieces(i);
	return status;
}
#endif

#endif
