/* SPDX-License-Identifier: MIT */
/* A guest's own mappings, while several of its threads use them. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

enum { PAGE = 4096 };

static volatile unsigned char *area;
enum { AREA = 64 << 20, TOUCHES = 3000 };

static void *touch(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint32_t x = me + 1;

	for (unsigned i = 0; i < TOUCHES; i++) {
		x = x * 1664525 + 1013904223;
		volatile unsigned char *p = area + (x >> 6) % (AREA / 16) * 16 + me;

		WANT(*p == 0 || *p == me + 1);
		*p = (unsigned char)(me + 1);
	}
	return NULL;
}

static void big(void)
{
	area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	WANT(area != MAP_FAILED);
	guest_run_threads(4, touch);
	WANT(madvise((void *)area, AREA, MADV_DONTNEED) == 0);
	for (unsigned i = 0; i < AREA; i += PAGE * 5)
		WANT(area[i] == 0);
	guest_run_threads(4, touch);
	WANT(munmap((void *)area, AREA) == 0);
	guest_say("several threads touch fresh memory in any order, also after MADV_DONTNEED");
}

static void *map_often(void *arg)
{
	for (unsigned i = 0; i < 200; i++) {
		size_t size = (i % 30 + 1) * PAGE;
		unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		WANT(p != MAP_FAILED && p[0] == 0 && p[size - 1] == 0);
		memset(p, (int)(uintptr_t)arg + 1, size);
		unsigned char *q = mremap(p, size, 2 * size, MREMAP_MAYMOVE);

		WANT(q != MAP_FAILED && q[0] == (uintptr_t)arg + 1 && q[size - 1] == q[0] && q[2 * size - 1] == 0);
		WANT(munmap(q, 2 * size) == 0);
	}
	return NULL;
}

static void often(void)
{
	guest_run_threads(4, map_often);
	guest_say("several threads map, grow and unmap memory");
}

static void *nothing(void *arg)
{
	return arg;
}

static void files(void)
{
	int fd = open("memory.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
	char page[PAGE];

	memset(page, 'f', PAGE);
	WANT(write(fd, page, PAGE) == PAGE && write(fd, "end", 3) == 3);
	char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	char *r = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	char *s = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	WANT(p[0] == 'f' && !strcmp(p + PAGE, "end") && r[PAGE] == 'e' && s[5] == 'f');
	p[0] = 'p';
	s[5] = 's';
	guest_run_threads(1, nothing);
	WANT(pread(fd, page, 8, 0) == 8 && page[0] == 'f' && page[5] == 's');
	WANT(munmap(p, 2 * PAGE) == 0 && munmap(r, 2 * PAGE) == 0 && munmap(s, PAGE) == 0);
	close(fd);
	unlink("memory.tmp");
	guest_say("private mappings of files are copies, shared ones are the file");
}

int main(void)
{
	big();
	often();
	files();
	return guest_status();
}
