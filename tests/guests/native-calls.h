/* SPDX-License-Identifier: MIT */
/* Calls of libc and the kernel on memory of a given kind, with what they give written to a log: run once on ordinary memory and once on guest memory,
 * the logs must be equal. */
#ifndef TAGTSO_TESTS_NATIVE_CALLS_H
#define TAGTSO_TESTS_NATIVE_CALLS_H

#include <aio.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <glob.h>
#include <iconv.h>
#include <inttypes.h>
#include <libgen.h>
#include <linux/futex.h>
#include <math.h>
#include <net/if.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <regex.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

enum { AREA_SIZE = 1 << 20, LOG_SIZE = 1 << 16 };

/* Memory that a case takes its buffers from. direct: where this program itself may touch what lies at an address of the area. */
struct area {
	char *base;
	ptrdiff_t direct;
	size_t used;
};

struct log {
	size_t n;
	char text[LOG_SIZE];
};

static struct area *area;
static struct log *log_to;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	log_to->n += (size_t)vsnprintf(log_to->text + log_to->n, LOG_SIZE - log_to->n, format, ap);
	va_end(ap);
	if (log_to->n > LOG_SIZE - 1024)
		abort();
}

/* The value of a call, and errno if it is -1. */
#define N(call) \
	do { \
		long value_ = (long)(call); \
\
		note("%s = %ld%s%s\n", #call, value_, value_ == -1 ? " " : "", \
		     value_ == -1 ? strerrorname_np(errno) : ""); \
	} while (0)
/* A pointer into the area, as an offset. */
#define NP(call) \
	do { \
		void *value_ = (void *)(call); \
\
		note("%s = %ld\n", #call, value_ ? (long)((char *)value_ - area->base) : -1L); \
	} while (0)
#define D(p) ((__typeof__(p))((char *)(p) + area->direct))
/* What lies in memory. */
#define NS(s) note("%s: %s\n", #s, D(s))
#define NB(p, n) note_bytes(#p, D(p), n)

static void note_bytes(const char *name, const void *p, size_t n)
{
	note("%s:", name);
	for (size_t i = 0; i < n; i++)
		note(" %02x", ((const unsigned char *)p)[i]);
	note("\n");
}

static void *get(size_t n)
{
	char *p = area->base + area->used;

	area->used += (n + 31) & ~(size_t)15;
	if (area->used > AREA_SIZE)
		abort();
	for (size_t i = 0; i < n; i++)
		D(p)[i] = 0;
	return p;
}
#define NEW(type) ((type *)get(sizeof(type)))

static void *put(const void *from, size_t n)
{
	char *p = get(n);

	for (size_t i = 0; i < n; i++)
		((volatile char *)D(p))[i] = ((const char *)from)[i];
	return p;
}
#define S(text) ((char *)put(text, sizeof(text)))
#define W(text) ((wchar_t *)put(text, sizeof(text)))

/* ---- in user space only ---- */

static void copies_and_compares_memory(void)
{
	char *a = S("the quick brown fox jumps over the lazy dog"), *b = get(64), *c = get(5000), *d = get(5000);

	NP(memcpy(b, a, 44));
	NS(b);
	NP(memmove(b + 4, b, 20));
	NS(b);
	NP(mempcpy(b, a, 10));
	N(memcmp(a, b, 10));
	N(memcmp(a, b, 44) != 0);
	NP(memchr(a, 'q', 44));
	NP(memrchr(a, 'o', 44));
	NP(rawmemchr(a, 'z'));
	NP(memmem(a, 44, S("lazy"), 4));
	NP(memccpy(b, a, 'k', 44));
	NP(memset(c, 'x', 4999));
	NP(memcpy(d, c, 5000));
	N(memcmp(c, d, 5000));
	N(strlen(d));
	bcopy(a, b, 8);
	bzero(b + 2, 2);
	explicit_bzero(b + 6, 2);
	swab(a, b + 8, 8);
	NB(b, 16);
	NP(memfrob(b, 16));
	NB(b, 16);
}

static void handles_strings(void)
{
	char *a = S("guest/memory/string"), *b = get(64), *c = get(64), *in = S("one,two;;three");
	char **next = NEW(char *);

	N(strlen(a));
	N(strnlen(a, 7));
	NP(strcpy(b, a));
	NP(stpcpy(c, a));
	NP(strncpy(c, S("short"), 20));
	NP(stpncpy(c, a, 9));
	NP(strcat(b, S("+more")));
	NP(strncat(b, S("+evenmore"), 5));
	NS(b);
	N(strcmp(a, b) < 0);
	N(strncmp(a, b, 19));
	N(strcasecmp(a, S("GUEST/MEMORY/STRING")));
	N(strncasecmp(a, S("GUEST!"), 5));
	N(strcoll(a, b) < 0);
	N(strverscmp(S("a9"), S("a10")) < 0);
	N(strxfrm(c, a, 64));
	NP(strchr(a, '/'));
	NP(strrchr(a, '/'));
	NP(strchrnul(a, '#'));
	NP(strstr(a, S("mem")));
	NP(strcasestr(a, S("MEM")));
	NP(strpbrk(a, S("xyz/")));
	N(strspn(a, S("guest")));
	N(strcspn(a, S("/")));
	NP(strtok_r(in, S(",;"), next));
	NP(strtok_r(NULL, S(",;"), next));
	NP(strtok_r(NULL, S(",;"), next));
	NP(strtok(S("x y"), S(" ")));
	NP(strtok(NULL, S(" ")));
	*D(next) = S("k=v");
	NP(strsep(next, S("=")));
	NP(basename(a));
	NP(dirname(a));
	N(fnmatch(S("gu*st"), a, 0));
	N(strerror_r(ENOENT, c, 64) != NULL);
}

static void handles_wide_strings(void)
{
	wchar_t *a = W(L"wide string"), *b = get(256);
	char *narrow = get(64);
	mbstate_t *state = NEW(mbstate_t);
	const char **from = NEW(const char *);

	N(wcslen(a));
	NP(wcscpy(b, a));
	NP(wcscat(b, W(L" longer")));
	N(wcscmp(a, b) < 0);
	N(wcsncmp(a, b, 11));
	NP(wcschr(a, L's'));
	NP(wcsrchr(a, L'i'));
	NP(wcsstr(a, W(L"str")));
	NP(wmemset(b + 20, L'y', 4));
	NP(wmemcpy(b, a, 12));
	N(wmemcmp(a, b, 12));
	N(wcstombs(narrow, a, 64));
	NS(narrow);
	N(mbstowcs(b, narrow, 64));
	*D(from) = narrow;
	N(mbsrtowcs(b, from, 64, state));
	N(mbrtowc(b, narrow, 4, state));
	N(wcrtomb(narrow, L'Q', state));
	N(wcstol(W(L"-77 rest"), NULL, 10));
	N(swprintf(b, 64, W(L"%ls-%d"), a, 5));
	NB(b, 64);
}

static void reads_numbers(void)
{
	char **end = NEW(char *);
	char *s = S("  -1234xyz"), *word = get(32);
	int *i = NEW(int);
	double *d = NEW(double);
	long *l = NEW(long);

	N(atoi(s));
	N(atol(s));
	N(strtol(s, end, 10));
	NP(*D(end));
	N(strtoul(S("ffee"), end, 16));
	N(strtoll(S("777"), NULL, 8));
	N(strtod(S("2.5e3"), end));
	N(strtof(S("0.5"), NULL) * 10);
	N(strtold(S("1e2"), NULL));
	N(strtoimax(S("99"), NULL, 10));
	N(sscanf(S("17 3.5 hello 9"), S("%d %lf %31s %ld"), i, d, word, l));
	note("%d %g %s %ld\n", *D(i), *D(d), D(word), *D(l));
	N(frexp(8.0, i));
	N(modf(2.25, d) * 100);
	note("%d %g\n", *D(i), *D(d));
}

static void formats_into_memory(void)
{
	char *b = get(256), *s = S("text from guest memory");
	char **out = NEW(char *);
	char *big = get(9000);

	memset(D(big), 'b', 8999);
	N(snprintf(b, 20, S("%s %d"), s, 42));
	NS(b);
	N(sprintf(b, S("<%-30s|%5.2f|%x>"), s, 1.5, 255));
	NS(b);
	N(asprintf(out, S("%s/%s"), s, big));
	N(strlen(*D(out)));
	free(*D(out));
	N(asprintf(out, S("%s"), s));
	note("%s\n", *D(out));
	free(*D(out));
}

static int order_ints(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Left alone: what traps in libc is interpreted. */
static void sorts_with_a_callback(void)
{
	static const int numbers[] = { 5, 3, 9, 1, 7, 7, 0, -4, 12, 2 };
	int *v = put(numbers, sizeof(numbers)), *key = put(&numbers[2], sizeof(int));

	qsort(v, 10, sizeof(int), order_ints);
	NB(v, sizeof(numbers));
	NP(bsearch(key, v, 10, sizeof(int), order_ints));
}

static void converts_time_and_addresses(void)
{
	time_t *t = NEW(time_t);
	struct tm *tm = NEW(struct tm);
	char *b = get(64), *address = get(16);

	*D(t) = 86400 * 365;
	NP(gmtime_r(t, tm));
	N(strftime(b, 64, S("%Y-%m-%d %H:%M:%S"), tm));
	NS(b);
	NP(asctime_r(tm, b));
	NS(b);
	N(timegm(tm));
	N(strptime(S("2001-02-03"), S("%Y-%m-%d"), tm) != NULL);
	N(mktime(tm) != -1);
	NP(localtime_r(t, tm));
	NP(ctime_r(t, b));
	N(inet_pton(AF_INET6, S("fe80::1"), address));
	NB(address, 16);
	NP(inet_ntop(AF_INET6, address, b, 64));
	NS(b);
	N(inet_addr(S("10.0.0.1")));
}

static void converts_characters(void)
{
	iconv_t cd = iconv_open(S("UTF-16LE"), S("UTF-8"));
	char *in = S("abc"), *out = get(64);
	char **in_at = put(&in, sizeof(in)), **out_at = put(&out, sizeof(out));
	size_t *n = NEW(size_t), *room = NEW(size_t);

	*D(n) = 3;
	*D(room) = 64;
	if (cd == (iconv_t)-1) { /* the converter is not installed */
		note("none\n");
		return;
	}
	N(iconv(cd, in_at, n, out_at, room));
	NP(*D(in_at));
	NP(*D(out_at));
	NB(out, 8);
	iconv_close(cd);
}

static void matches_patterns(void)
{
	regex_t *re = NEW(regex_t);
	regmatch_t *m = get(3 * sizeof(*m));
	char *b = get(64);

	N(regcomp(re, S("([a-z]+)=([0-9]+)"), REG_EXTENDED));
	N(regexec(re, S("  name=1234;"), 3, m, 0));
	NB(m, 3 * sizeof(*m));
	N(regexec(re, S("nothing"), 3, m, 0));
	N(regerror(REG_EBRACK, re, b, 64) > 0);
	regfree(re);
}

/* ---- files ---- */

static void works_on_files(void)
{
	char *dir = S("/tmp/native-XXXXXX"), *b = get(6000), *c = get(6000), *real = get(4096), *cwd = get(4096);
	struct stat *s = NEW(struct stat);
	struct statvfs *v = NEW(struct statvfs);
	struct timespec *times = get(2 * sizeof(*times));
	int fd, fd2;

	NP(mkdtemp(dir));
	N(chdir(dir));
	N(getcwd(cwd, 4096) == cwd);
	N(strcmp(cwd, dir));
	N((fd = open(S("file"), O_RDWR | O_CREAT, 0600)) >= 0);
	memset(D(b), 'f', 6000);
	N(write(fd, b, 6000));
	N(pwrite(fd, S("PATCH"), 5, 100));
	N(lseek(fd, 90, SEEK_SET));
	N(read(fd, c, 30));
	NB(c, 30);
	N(pread(fd, c, 6000, 0));
	N(fstat(fd, s));
	note("%ld %o\n", (long)D(s)->st_size, D(s)->st_mode);
	N(stat(S("file"), s));
	N(lstat(S("nothing"), s));
	N(fstatat(AT_FDCWD, S("file"), s, 0));
	note("%ld\n", (long)D(s)->st_size);
	N(access(S("file"), R_OK));
	N(faccessat(AT_FDCWD, S("nothing"), R_OK, 0));
	N(chmod(S("file"), 0644));
	N(truncate(S("file"), 10));
	N(link(S("file"), S("file2")));
	N(symlink(S("file"), S("soft")));
	N(readlink(S("soft"), c, 100));
	NB(c, 4);
	N(realpath(S("soft"), real) == real);
	N(strcmp(D(real) + strlen(D(cwd)), "/file"));
	N(rename(S("file2"), S("file3")));
	N(unlink(S("file3")));
	N(mkdir(S("sub"), 0700));
	N((fd2 = openat(AT_FDCWD, S("sub/x"), O_CREAT | O_WRONLY, 0600)) >= 0);
	close(fd2);
	N(unlink(S("sub/x")));
	N(rmdir(S("sub")));
	D(times)[0].tv_sec = 1000;
	D(times)[1].tv_sec = 2000;
	N(utimensat(AT_FDCWD, S("file"), times, 0));
	N(stat(S("file"), s));
	note("%ld\n", (long)D(s)->st_mtime);
	N(statvfs(S("."), v));
	N(D(v)->f_bsize > 0);
	strcpy(D(c), "tmpXXXXXX");
	N((fd2 = mkstemp(c)) >= 0);
	N(strlen(c));
	close(fd2);
	N(unlink(c));
	N(fcntl(fd, F_SETLK, put(&(struct flock){ .l_type = F_WRLCK, .l_len = 5 }, sizeof(struct flock))));
	N(remove(S("soft")));
	close(fd);
	N(unlink(S("file")));
	N(chdir(S("/")));
	N(rmdir(dir));
}

static int count_entries;
static int visit(const char *path, const struct stat *s, int type)
{
	(void)path;
	(void)s;
	(void)type;
	count_entries++;
	return 0;
}

static int keep_ab(const struct dirent *e)
{
	return e->d_name[0] == 'a' || e->d_name[0] == 'b';
}

static void works_on_directories(void)
{
	char *dir = S("/tmp/native-XXXXXX"), *name = get(64);
	struct dirent **list;
	glob_t g = { 0 };
	DIR *d;
	int n;

	NP(mkdtemp(dir));
	for (const char *f = "abc"; *f; f++) {
		snprintf(D(name), 64, "%s/%c", D(dir), *f);
		close(open(name, O_CREAT | O_WRONLY, 0600));
	}
	N((d = opendir(dir)) != NULL);
	for (n = 0; readdir(d);)
		n++;
	closedir(d);
	N(n);
	n = scandir(dir, &list, keep_ab, alphasort);
	N(n);
	while (n > 0)
		free(list[--n]);
	free(list);
	snprintf(D(name), 64, "%s/[ab]", D(dir));
	N(glob(name, 0, NULL, &g));
	N(g.gl_pathc);
	globfree(&g);
	count_entries = 0;
	N(ftw(dir, visit, 4));
	N(count_entries);
	for (const char *f = "abc"; *f; f++) {
		snprintf(D(name), 64, "%s/%c", D(dir), *f);
		N(unlink(name));
	}
	N(rmdir(dir));
}

static void works_on_vectors(void)
{
	struct iovec *v = get(3 * sizeof(*v));
	int *p = NEW(int);
	char *a = get(64), *b = get(64);
	int fd;

	N(pipe(p));
	D(v)[0] = (struct iovec){ S("first "), 6 };
	D(v)[1] = (struct iovec){ (void *)"host ", 5 };
	D(v)[2] = (struct iovec){ S("last"), 4 };
	N(writev(D(p)[1], v, 3));
	D(v)[0] = (struct iovec){ a, 4 };
	D(v)[1] = (struct iovec){ b, 60 };
	N(readv(D(p)[0], v, 2));
	NS(a);
	NS(b);
	N((fd = memfd_create(S("vectors"), 0)) >= 0);
	N(pwritev(fd, v, 2, 3));
	N(preadv(fd, v, 2, 0));
	close(fd);
	close(D(p)[0]);
	close(D(p)[1]);
}

static void talks_over_sockets(void)
{
	int *s = get(2 * sizeof(int)), *value = NEW(int);
	char *b = get(64), *control = get(CMSG_SPACE(sizeof(int)));
	socklen_t *n = NEW(socklen_t);
	struct msghdr *m = NEW(struct msghdr);
	struct iovec *v = NEW(struct iovec);
	struct mmsghdr *mm = get(2 * sizeof(*mm));
	struct sockaddr_in *in = NEW(struct sockaddr_in), *from = NEW(struct sockaddr_in);
	struct ifconf *list = NEW(struct ifconf);
	char *names = get(640);
	struct cmsghdr *c;
	int fd, fd2;

	N(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	N(send(D(s)[0], S("datagram"), 8, 0));
	N(recv(D(s)[1], b, 64, 0));
	NS(b);
	*D(n) = sizeof(int);
	N(getsockopt(D(s)[0], SOL_SOCKET, SO_TYPE, value, n));
	N(*D(value));
	*D(value) = 1;
	N(setsockopt(D(s)[0], SOL_SOCKET, SO_PASSCRED, value, sizeof(int)));
	*D(value) = 0;
	N(setsockopt(D(s)[0], SOL_SOCKET, SO_PASSCRED, value, sizeof(int)));
	*D(v) = (struct iovec){ S("with a descriptor"), 17 };
	*D(m) = (struct msghdr){
		.msg_iov = v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int))
	};
	c = (struct cmsghdr *)D(control);
	*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	*(int *)CMSG_DATA(c) = D(s)[0];
	N(sendmsg(D(s)[0], m, 0));
	memset(D(control), 0, CMSG_SPACE(sizeof(int)));
	*D(v) = (struct iovec){ b, 64 };
	N(recvmsg(D(s)[1], m, 0));
	NS(b);
	N(D(m)->msg_controllen == CMSG_SPACE(sizeof(int)));
	N(c->cmsg_type == SCM_RIGHTS);
	close(*(int *)CMSG_DATA(c));
	for (int i = 0; i < 2; i++) {
		struct iovec *one = NEW(struct iovec);

		*D(one) = (struct iovec){ S("many"), 4 - (size_t)i };
		D(mm)[i].msg_hdr = (struct msghdr){ .msg_iov = one, .msg_iovlen = 1 };
	}
	N(sendmmsg(D(s)[0], mm, 2, 0));
	N(D(mm)[1].msg_len);
	N(recvmmsg(D(s)[1], mm, 2, 0, NULL));
	N(D(mm)[0].msg_len);
	N((fd = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
	*D(in) = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	N(bind(fd, (struct sockaddr *)in, sizeof(*in)));
	*D(n) = sizeof(*in);
	N(getsockname(fd, (struct sockaddr *)in, n));
	N(D(in)->sin_port != 0);
	D(list)->ifc_buf = names;
	D(list)->ifc_len = 640;
	N(ioctl(fd, SIOCGIFCONF, list));
	N(strcmp(((struct ifreq *)D(names))->ifr_name, "lo"));
	NP(D(list)->ifc_buf);
	N(syscall(SYS_ioctl, fd, SIOCGIFCONF, list));
	NP(D(list)->ifc_buf);
	N((fd2 = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
	N(sendto(fd2, S("udp"), 3, 0, (struct sockaddr *)in, sizeof(*in)));
	*D(n) = sizeof(*from);
	N(recvfrom(fd, b, 64, 0, (struct sockaddr *)from, n));
	N(*D(n));
	N(D(from)->sin_family);
	close(fd);
	close(fd2);
	close(D(s)[0]);
	close(D(s)[1]);
}

static void waits_for_descriptors(void)
{
	int *p = get(2 * sizeof(int)), *waiting = NEW(int);
	struct pollfd *f = get(2 * sizeof(*f));
	struct timespec *t = NEW(struct timespec);
	struct timeval *tv = NEW(struct timeval);
	struct epoll_event *e = get(4 * sizeof(*e));
	fd_set *r = NEW(fd_set);
	sigset_t *mask = NEW(sigset_t);
	int ep;

	N(pipe2(p, O_CLOEXEC));
	N(write(D(p)[1], S("!!"), 2));
	D(f)[0] = (struct pollfd){ .fd = D(p)[0], .events = POLLIN };
	D(f)[1] = (struct pollfd){ .fd = D(p)[1], .events = POLLOUT };
	N(poll(f, 2, 0));
	N(D(f)[0].revents);
	D(t)->tv_nsec = 1000;
	sigfillset(mask);
	N(ppoll(f, 2, t, mask));
	N(D(f)[1].revents);
	FD_SET(D(p)[0], D(r));
	D(tv)->tv_usec = 1000;
	N(select(D(p)[0] + 1, r, NULL, NULL, tv));
	N(FD_ISSET(D(p)[0], D(r)) != 0);
	N(pselect(D(p)[0] + 1, r, NULL, NULL, t, mask));
	N((ep = epoll_create1(0)) >= 0);
	D(e)->events = EPOLLIN;
	D(e)->data.u64 = 0x1234567812345678;
	N(epoll_ctl(ep, EPOLL_CTL_ADD, D(p)[0], e));
	memset(D(e), 0, sizeof(*e));
	N(epoll_wait(ep, e, 4, 0));
	N(D(e)->data.u64);
	N(epoll_pwait(ep, e, 4, 0, mask));
	N(ioctl(D(p)[0], FIONREAD, waiting));
	N(*D(waiting));
	close(ep);
	close(D(p)[0]);
	close(D(p)[1]);
}

/* ---- streams ---- */

static void writes_and_reads_streams(void)
{
	char *path = S("/tmp/native-XXXXXX"), *big = get(70000), *back = get(70000), *line = get(128), *wide;
	char **lines = NEW(char *);
	size_t *room = NEW(size_t);
	fpos_t *at = NEW(fpos_t);
	FILE *f;
	int fd;

	N((fd = mkstemp(path)) >= 0);
	for (int k = 0; k < 70000; k++)
		D(big)[k] = (char)('a' + k % 23);
	N((f = fdopen(fd, S("w+"))) != NULL);
	N(fwrite(big, 1, 70000, f));
	N(fputs(S("\na line from fputs\n"), f) >= 0);
	D(big)[20000] = 0;
	N(fprintf(f, S("%s|%d|%s\n"), S("formatted"), 7, big));
	N(fputs(big, f) >= 0);
	N(fflush(f));
	N(dprintf(fileno(f), S("<%s>"), big));
	rewind(f);
	D(big)[20000] = (char)('a' + 20000 % 23);
	N(fread(back, 1, 70000, f));
	N(memcmp(big, back, 70000));
	N(fgetpos(f, at));
	NP(fgets(line, 128, f));
	NP(fgets(line, 128, f));
	NS(line);
	N(fsetpos(f, at));
	N(getline(lines, room, f));
	N(getline(lines, room, f));
	note("%s", *D(lines));
	N(getdelim(lines, room, '|', f));
	N(fread(back, 1, 70000, f));
	N(feof(f) != 0);
	free(*D(lines));
	N(fclose(f));
	N((f = fopen(path, S("r"))) != NULL);
	N(setvbuf(f, get(1024), _IOFBF, 1024));
	N(fread(back, 100, 300, f));
	N(memcmp(big, back, 20000));
	N((f = freopen(path, S("w"), f)) != NULL);
	N(setvbuf(f, NULL, _IONBF, 0));
	D(big)[9000] = 0;
	N(fprintf(f, S("%s"), big));
	N(fclose(f));
	N((f = fopen(path, S("r"))) != NULL);
	N(fread(back, 1, 70000, f));
	N(memcmp(big, back, 9000));
	N(fclose(f));
	N(unlink(path));
	N((f = fmemopen(line, 128, S("w"))) != NULL);
	N(fprintf(f, S("%s"), S("into memory")));
	N(fclose(f));
	NS(line);
	N((f = open_memstream(lines, room)) != NULL);
	N(fputs(S("growing"), f) >= 0);
	N(fclose(f));
	note("%s %zu\n", *D(lines), *D(room));
	free(*D(lines));
	N((f = popen(S("echo from a pipe"), S("r"))) != NULL);
	NP(fgets(line, 128, f));
	NS(line);
	N(pclose(f));
	N((wide = strdup(S("copy"))) != NULL);
	note("%s\n", wide);
	free(wide);
}

/* Left alone, since a stream may call back. */
static void reads_numbers_from_a_stream(void)
{
	int *i = NEW(int);
	char *word = get(32);
	FILE *f = tmpfile();

	N(fputs(S("12 words"), f) >= 0);
	rewind(f);
	N(fscanf(f, S("%d %20s"), i, word));
	note("%d %s\n", *D(i), D(word));
	N(fclose(f));
}

/* ---- processes ---- */

static void starts_programs(void)
{
	char **argv = get(4 * sizeof(char *)), **envp = get(2 * sizeof(char *));
	pid_t *pid = NEW(pid_t), child;
	int *status = NEW(int), *p = get(2 * sizeof(int));
	posix_spawn_file_actions_t *f = NEW(posix_spawn_file_actions_t);
	posix_spawnattr_t *a = NEW(posix_spawnattr_t);
	struct rusage *r = NEW(struct rusage);
	siginfo_t *info = NEW(siginfo_t);
	char *b = get(64);

	D(argv)[0] = S("sh");
	D(argv)[1] = S("-c");
	D(argv)[2] = S("echo $WORD; exit 7");
	D(envp)[0] = S("WORD=environment");
	N(pipe(p));
	N(posix_spawn_file_actions_init(f));
	N(posix_spawn_file_actions_adddup2(f, D(p)[1], 1));
	N(posix_spawnattr_init(a));
	N(posix_spawn(pid, S("/bin/sh"), f, a, argv, envp));
	N(waitpid(*D(pid), status, 0) == *D(pid));
	N(WEXITSTATUS(*D(status)));
	N(read(D(p)[0], b, 64));
	NS(b);
	N(posix_spawn_file_actions_destroy(f));
	N(posix_spawnattr_destroy(a));
	N(posix_spawnp(pid, S("true"), NULL, NULL, argv, envp));
	N(wait4(*D(pid), status, 0, r) == *D(pid));
	N(system(S("exit 5")));
	fflush(NULL);
	child = fork();
	if (!child) {
		dup2(D(p)[1], 1);
		execve(S("/bin/sh"), argv, envp);
		_exit(99);
	}
	N(waitid(P_PID, (id_t)child, info, WEXITED));
	N(D(info)->si_status);
	N(read(D(p)[0], b, 64));
	child = fork();
	if (!child) {
		execlp(S("sh"), S("sh"), S("-c"), S("exit 3"), (char *)NULL);
		_exit(99);
	}
	N(waitpid(child, status, 0) == child);
	N(WEXITSTATUS(*D(status)));
	close(D(p)[0]);
	close(D(p)[1]);
}

static void asks_the_system(void)
{
	struct utsname *u = NEW(struct utsname), host;
	struct sysinfo *s = NEW(struct sysinfo);
	struct rlimit *l = NEW(struct rlimit);
	struct timespec *t = NEW(struct timespec);
	struct timeval *tv = NEW(struct timeval);
	struct rusage *r = NEW(struct rusage);
	struct tms *tms = NEW(struct tms);
	struct itimerspec *timer = NEW(struct itimerspec);
	cpu_set_t *cpus = NEW(cpu_set_t);
	char *b = get(256);
	struct addrinfo *hints = NEW(struct addrinfo), **list = NEW(struct addrinfo *);
	gid_t *groups = get(64 * sizeof(gid_t));
	int fd;

	uname(&host);
	N(uname(u));
	N(strcmp(D(u)->release, host.release));
	N(sysinfo(s));
	N(D(s)->totalram > 0);
	N(getrlimit(RLIMIT_NOFILE, l));
	N(D(l)->rlim_cur > 0);
	N(prlimit(0, RLIMIT_NOFILE, NULL, l));
	N(clock_gettime(CLOCK_MONOTONIC, t));
	N(clock_getres(CLOCK_MONOTONIC, t));
	*D(t) = (struct timespec){ .tv_nsec = 1000 };
	N(nanosleep(t, t));
	N(clock_nanosleep(CLOCK_MONOTONIC, 0, t, NULL));
	N(gettimeofday(tv, NULL));
	N(D(tv)->tv_sec > 0);
	N(time(&t->tv_sec) > 0);
	N(getrusage(RUSAGE_SELF, r));
	N(times(tms) != -1);
	N((fd = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0);
	D(timer)->it_value.tv_nsec = 1000;
	N(timerfd_settime(fd, 0, timer, NULL));
	N(read(fd, b, 8));
	N(timerfd_gettime(fd, timer));
	close(fd);
	N(sched_getaffinity(0, sizeof(*cpus), cpus));
	N(CPU_COUNT(D(cpus)) > 0);
	N(getrandom(b, 256, 0));
	N(gethostname(b, 256));
	N(getgroups(64, groups) >= 0);
	N(getpwnam(S("root")) != NULL);
	*D(hints) = (struct addrinfo){ .ai_flags = AI_NUMERICHOST, .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
	N(getaddrinfo(S("127.0.0.1"), S("80"), hints, list));
	N(getnameinfo((*D(list))->ai_addr, (*D(list))->ai_addrlen, b, 256, NULL, 0, NI_NUMERICHOST));
	NS(b);
	freeaddrinfo(*D(list));
	N(setenv(S("TAGGED"), S("value"), 1));
	note("%s\n", getenv(S("TAGGED")));
	N(unsetenv(S("TAGGED")));
}

/* ---- raw system calls ---- */

static void makes_raw_system_calls(void)
{
	char *b = get(64);
	int *p = get(2 * sizeof(int)), *word = NEW(int);
	struct iovec *v = NEW(struct iovec);
	struct timespec *t = NEW(struct timespec);
	struct stat *s = NEW(struct stat);
	struct msghdr *m = NEW(struct msghdr);
	struct {
		sigset_t *mask;
		size_t size;
	} *mask6 = get(16);
	fd_set *r = NEW(fd_set);
	long fd;

	N(syscall(SYS_pipe2, p, 0));
	N(syscall(SYS_write, D(p)[1], S("raw call"), 8L));
	*D(v) = (struct iovec){ b, 3 };
	N(syscall(SYS_readv, D(p)[0], v, 1L));
	N(syscall(SYS_read, D(p)[0], b + 3, 20L));
	NS(b);
	N((fd = syscall(SYS_openat, AT_FDCWD, S("/"), O_RDONLY | O_DIRECTORY, 0)) >= 0);
	N(syscall(SYS_fstat, fd, s));
	N(S_ISDIR(D(s)->st_mode));
	close((int)fd);
	N(syscall(SYS_openat, AT_FDCWD, S("/nothing/there"), O_RDONLY, 0));
	N(syscall(SYS_clock_gettime, CLOCK_REALTIME, t));
	N(D(t)->tv_sec > 0);
	*D(t) = (struct timespec){ .tv_nsec = 1000 };
	N(syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 1, t, NULL, 0));
	N(syscall(SYS_futex, word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, t, NULL, 0));
	N(syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0));
	FD_SET(D(p)[1], D(r));
	*D(t) = (struct timespec){ 0, 0 };
	D(mask6)->mask = get(8);
	D(mask6)->size = 8;
	N(syscall(SYS_pselect6, (long)D(p)[1] + 1, NULL, r, NULL, t, mask6));
	close(D(p)[0]);
	close(D(p)[1]);
	N(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, p));
	*D(v) = (struct iovec){ S("message"), 7 };
	*D(m) = (struct msghdr){ .msg_iov = v, .msg_iovlen = 1 };
	N(syscall(SYS_sendmsg, D(p)[0], m, 0));
	*D(v) = (struct iovec){ b, 64 };
	N(syscall(SYS_recvmsg, D(p)[1], m, 0));
	close(D(p)[0]);
	close(D(p)[1]);
	N(syscall(SYS_getpid) == getpid());
	N(syscall(100000, b));
}

/* ---- threads ---- */

struct shared {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	pthread_rwlock_t rwlock;
	pthread_barrier_t barrier;
	pthread_spinlock_t spin;
	pthread_once_t once;
	sem_t ping, pong;
	long count, turn;
};

static int once_calls;
static void run_once(void)
{
	once_calls++;
}

static void exchange(struct shared *s, long me)
{
	pthread_once(&s->once, run_once);
	for (int i = 0; i < 200; i++) {
		pthread_mutex_lock(&s->mutex);
		while (D(s)->turn != me)
			pthread_cond_wait(&s->cond, &s->mutex);
		D(s)->turn = !me;
		D(s)->count++;
		pthread_cond_signal(&s->cond);
		pthread_mutex_unlock(&s->mutex);
		pthread_spin_lock(&s->spin);
		D(s)->count++;
		pthread_spin_unlock(&s->spin);
		pthread_rwlock_wrlock(&s->rwlock);
		pthread_rwlock_unlock(&s->rwlock);
		pthread_rwlock_rdlock(&s->rwlock);
		pthread_rwlock_unlock(&s->rwlock);
		sem_post(me ? &s->ping : &s->pong);
		sem_wait(me ? &s->pong : &s->ping);
		pthread_barrier_wait(&s->barrier);
	}
}

static void *other_thread(void *s)
{
	exchange(s, 1);
	return (void *)77;
}

static void synchronises_threads(void)
{
	struct shared *s = NEW(struct shared);
	struct timespec *t = NEW(struct timespec);
	void **result = NEW(void *);
	pthread_mutexattr_t *a = NEW(pthread_mutexattr_t);
	int *type = NEW(int);
	pthread_t thread;

	N(pthread_mutexattr_init(a));
	N(pthread_mutexattr_settype(a, PTHREAD_MUTEX_ERRORCHECK));
	N(pthread_mutexattr_gettype(a, type));
	N(*D(type));
	N(pthread_mutex_init(&s->mutex, a));
	N(pthread_cond_init(&s->cond, NULL));
	N(pthread_rwlock_init(&s->rwlock, NULL));
	N(pthread_barrier_init(&s->barrier, NULL, 2));
	N(pthread_spin_init(&s->spin, 0));
	N(sem_init(&s->ping, 0, 0));
	N(sem_init(&s->pong, 0, 0));
	once_calls = 0;
	N(pthread_create(&thread, NULL, other_thread, s));
	exchange(s, 0);
	N(pthread_join(thread, result));
	N(*D(result));
	N(D(s)->count >= 400); /* the spin lock and the mutex both count */
	N(once_calls);
	N(pthread_mutex_lock(&s->mutex));
	N(pthread_mutex_lock(&s->mutex));                  /* EDEADLK */
	N(pthread_cond_timedwait(&s->cond, &s->mutex, t)); /* ETIMEDOUT */
	N(pthread_mutex_unlock(&s->mutex));
	N(pthread_mutex_unlock(&s->mutex)); /* EPERM */
	N(sem_trywait(&s->ping));
	N(sem_timedwait(&s->ping, t));
	N(sem_getvalue(&s->ping, type));
	N(pthread_barrier_destroy(&s->barrier));
	N(pthread_mutex_destroy(&s->mutex));
	N(pthread_getname_np(pthread_self(), get(32), 32));
}

static sem_t notified;
static void on_notification(union sigval value)
{
	if (value.sival_int == 1234)
		sem_post(&notified);
}

static void lets_libc_work_in_its_own_threads(void)
{
	struct aiocb *cb = NEW(struct aiocb), **list = get(2 * sizeof(*list));
	struct sigevent *e = NEW(struct sigevent);
	struct itimerspec *t = NEW(struct itimerspec);
	timer_t *timer = NEW(timer_t);
	char *b = S("asynchronous"), *c = get(32);
	int fd;

	N((fd = memfd_create(S("aio"), 0)) >= 0);
	D(cb)->aio_fildes = fd;
	D(cb)->aio_buf = b;
	D(cb)->aio_nbytes = 12;
	D(cb)->aio_sigevent.sigev_notify = SIGEV_NONE;
	D(list)[0] = cb;
	N(aio_write(cb));
	N(aio_suspend((const struct aiocb *const *)list, 2, NULL));
	N(aio_error(cb));
	N(aio_return(cb));
	NP((void *)D(cb)->aio_buf);
	D(cb)->aio_buf = c;
	D(cb)->aio_lio_opcode = LIO_READ;
	N(lio_listio(LIO_WAIT, list, 1, NULL));
	N(aio_return(cb));
	NS(c);
	N(aio_cancel(fd, NULL));
	close(fd);
	sem_init(&notified, 0, 0);
	D(e)->sigev_notify = SIGEV_THREAD;
	D(e)->sigev_notify_function = on_notification;
	D(e)->sigev_value.sival_int = 1234;
	D(t)->it_value.tv_nsec = 1000;
	N(timer_create(CLOCK_MONOTONIC, e, timer));
	N(timer_settime(*D(timer), 0, t, NULL));
	N(sem_wait(&notified));
	N(timer_gettime(*D(timer), t));
	N(timer_delete(*D(timer)));
}

enum { USER_SPACE = 1, TRAPS = 2 };
static const struct {
	const char *name;
	void (*run)(void);
	int flags; /* USER_SPACE: reads guest pointers as they are; TRAPS: with checks on, so a handler must interpret */
} native_cases[] = {
#define CASE(name, flags) \
	{ \
#name, name, flags \
	}
	CASE(copies_and_compares_memory, USER_SPACE),
	CASE(handles_strings, USER_SPACE),
	CASE(handles_wide_strings, USER_SPACE),
	CASE(reads_numbers, USER_SPACE),
	CASE(formats_into_memory, USER_SPACE),
	CASE(sorts_with_a_callback, USER_SPACE | TRAPS),
	CASE(converts_time_and_addresses, USER_SPACE),
	CASE(converts_characters, USER_SPACE),
	CASE(matches_patterns, USER_SPACE),
	CASE(works_on_files, USER_SPACE),
	CASE(works_on_directories, 0),
	CASE(works_on_vectors, 0),
	CASE(talks_over_sockets, USER_SPACE),
	CASE(waits_for_descriptors, USER_SPACE),
	CASE(writes_and_reads_streams, USER_SPACE),
	CASE(reads_numbers_from_a_stream, USER_SPACE | TRAPS),
	CASE(starts_programs, USER_SPACE),
	CASE(asks_the_system, USER_SPACE),
	CASE(makes_raw_system_calls, 0),
	CASE(synchronises_threads, USER_SPACE),
	CASE(lets_libc_work_in_its_own_threads, USER_SPACE),
#undef CASE
};
enum { NATIVE_CASES = sizeof(native_cases) / sizeof(native_cases[0]) };

static void run_case(unsigned i, struct area *on, struct log *to)
{
	area = on;
	area->used = 0;
	log_to = to;
	log_to->n = 0;
	native_cases[i].run();
}

#endif
