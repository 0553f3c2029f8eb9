/* SPDX-License-Identifier: MIT */
/* System calls and stdio with all their pointers in guest memory that another thread owns. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

/* Guest heap that the other thread wrote first and last; zeroed. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static void *wanted;
static size_t wanted_size;
static bool done;

static void *owner(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&mutex);
	while (!done) {
		if (wanted_size) {
			volatile char *p = malloc(wanted_size);

			for (size_t i = 0; i < wanted_size; i++)
				p[i] = (char)(i | 1);
			for (size_t i = 0; i < wanted_size; i++)
				p[i] = 0;
			wanted = (void *)p;
			wanted_size = 0;
			pthread_cond_broadcast(&changed);
		}
		pthread_cond_wait(&changed, &mutex);
	}
	pthread_mutex_unlock(&mutex);
	return NULL;
}

static void *theirs(size_t size)
{
	pthread_mutex_lock(&mutex);
	wanted = NULL;
	wanted_size = size;
	pthread_cond_broadcast(&changed);
	while (!wanted)
		pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
	return wanted;
}

static char *text(const char *s)
{
	return strcpy(theirs(strlen(s) + 1), s);
}

static void files(void)
{
	char *name = text("calls.tmp"), *link_name = text("calls.link"), *buffer = theirs(20000);
	struct stat *st = theirs(sizeof(*st));
	struct iovec *v = theirs(3 * sizeof(*v));
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	WANT(fd >= 0);
	memset(buffer, 'b', 20000);
	v[0] = (struct iovec){ text("abc"), 3 };
	v[1] = (struct iovec){ buffer, 10000 };
	v[2] = (struct iovec){ text("xyz"), 3 };
	WANT(writev(fd, v, 3) == 10006);
	WANT(pwrite(fd, text("Q"), 1, 1) == 1);
	WANT(lseek(fd, 0, SEEK_SET) == 0);
	memset(buffer, 0, 20000);
	v[0] = (struct iovec){ buffer, 2 };
	v[1] = (struct iovec){ buffer + 100, 19000 };
	WANT(readv(fd, v, 2) == 10006);
	WANT(buffer[0] == 'a' && buffer[1] == 'Q' && buffer[100] == 'c' && buffer[101] == 'b' &&
	     !memcmp(buffer + 100 + 10001, "xyz", 3));
	WANT(fstat(fd, st) == 0 && st->st_size == 10006);
	memset(st, 0, sizeof(*st));
	WANT(stat(name, st) == 0 && st->st_size == 10006);
	WANT(symlink(name, link_name) == 0);
	WANT(lstat(link_name, st) == 0 && S_ISLNK(st->st_mode));
	WANT(readlink(link_name, memset(buffer, 0, 50), 50) == 9 && !strcmp(buffer, "calls.tmp"));
	WANT(rename(link_name, text("calls.other")) == 0 && unlink(text("calls.other")) == 0);
	WANT(access(name, R_OK) == 0 && unlink(name) == 0 && access(name, R_OK) == -1 && errno == ENOENT);
	close(fd);
	guest_say("files are opened, written, read and examined with pointers into guest memory");
}

static void directories(void)
{
	char *here = getcwd(theirs(4096), 4096), *name = text("calls.dir");

	WANT(here && here[0] == '/');
	WANT(mkdir(name, 0700) == 0 && chdir(name) == 0);
	char *there = getcwd(theirs(4096), 4096);

	WANT(there && strlen(there) == strlen(here) + 10 && !strncmp(there, here, strlen(here)));
	WANT(chdir(text("..")) == 0 && rmdir(name) == 0);
	DIR *d = opendir(text("/proc/self"));
	bool found = false;

	for (struct dirent *e; d && (e = readdir(d));)
		found |= !strcmp(e->d_name, "maps");
	WANT(found && closedir(d) == 0);
	struct utsname *u = theirs(sizeof(*u));

	WANT(uname(u) == 0 && !strcmp(u->sysname, "Linux"));
	guest_say("directories are made, entered, read and removed");
}

static void pipes(void)
{
	int *ends = theirs(2 * sizeof(int));
	struct pollfd *p = theirs(2 * sizeof(*p));
	char *buffer = theirs(100);

	WANT(pipe(ends) == 0);
	p[0] = (struct pollfd){ .fd = ends[0], .events = POLLIN };
	WANT(poll(p, 1, 0) == 0);
	WANT(write(ends[1], text("through"), 8) == 8);
	WANT(poll(p, 1, 1000) == 1 && p[0].revents == POLLIN);
	WANT(read(ends[0], buffer, 100) == 8 && !strcmp(buffer, "through"));
	fd_set *set = theirs(sizeof(*set));
	struct timeval *zero = theirs(sizeof(*zero));

	FD_ZERO(set);
	FD_SET(ends[1], set);
	WANT(select(ends[1] + 1, NULL, set, NULL, zero) == 1 && FD_ISSET(ends[1], set));
	struct epoll_event *e = theirs(4 * sizeof(*e));
	int ep = epoll_create1(0);

	e[0] = (struct epoll_event){ .events = EPOLLOUT, .data.u64 = 1731 };
	WANT(epoll_ctl(ep, EPOLL_CTL_ADD, ends[1], e) == 0);
	memset(e, 0, 4 * sizeof(*e));
	WANT(epoll_wait(ep, e, 4, 1000) == 1 && e[0].data.u64 == 1731);
	close(ep);
	close(ends[0]);
	close(ends[1]);
	guest_say("pipe, poll, select and epoll take and fill guest memory");
}

static void sockets(void)
{
	int *pair = theirs(2 * sizeof(int)), *fd_sent;
	struct msghdr *m = theirs(sizeof(*m));
	struct iovec *v = theirs(2 * sizeof(*v));
	char *control = theirs(64), *buffer = theirs(100);

	WANT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	v[0] = (struct iovec){ text("one "), 4 };
	v[1] = (struct iovec){ text("two"), 4 };
	*m = (struct msghdr){
		.msg_iov = v, .msg_iovlen = 2, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int))
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(m);

	*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(c), &pair[0], sizeof(int));
	WANT(sendmsg(pair[0], m, 0) == 8);
	v[0] = (struct iovec){ buffer, 100 };
	*m = (struct msghdr){
		.msg_iov = v, .msg_iovlen = 1, .msg_control = memset(control, 0, 64), .msg_controllen = 64
	};
	WANT(recvmsg(pair[1], m, 0) == 8 && !strcmp(buffer, "one two"));
	c = CMSG_FIRSTHDR(m);
	WANT(c && c->cmsg_type == SCM_RIGHTS);
	fd_sent = c ? (int *)(void *)CMSG_DATA(c) : pair;
	WANT(send(*fd_sent, text("again"), 6, 0) == 6 && recv(pair[1], buffer, 100, 0) == 6 &&
	     !strcmp(buffer, "again"));
	struct sockaddr_un *a = theirs(sizeof(*a));
	socklen_t *len = theirs(sizeof(*len));
	int *value = theirs(sizeof(*value));

	*len = sizeof(*a);
	WANT(getsockname(pair[0], (struct sockaddr *)a, len) == 0 && a->sun_family == AF_UNIX);
	*len = sizeof(*value);
	WANT(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, value, len) == 0 && *value == SOCK_STREAM);
	close(*fd_sent);
	close(pair[0]);
	close(pair[1]);
	guest_say("messages with vectors and control data go through a socket");
}

static void *wake_later(void *arg)
{
	struct timespec *t = malloc(sizeof(*t));

	*t = (struct timespec){ 0, 20000000 };
	nanosleep(t, NULL);
	__atomic_store_n((int *)arg, 1, __ATOMIC_SEQ_CST);
	WANT(syscall(SYS_futex, arg, FUTEX_WAKE, 1, NULL, NULL, 0) >= 0);
	free(t);
	return NULL;
}

static void futexes(void)
{
	for (int private = 0; private < 2; private ++) {
		int *word = theirs(sizeof(int)), flag = private ? FUTEX_PRIVATE_FLAG : 0;
		struct timespec *t = theirs(sizeof(*t));
		pthread_t thread;

		*t = (struct timespec){ 0, 5000000 };
		WANT(syscall(SYS_futex, word, FUTEX_WAIT | flag, 0, t, NULL, 0) == -1 && errno == ETIMEDOUT);
		WANT(syscall(SYS_futex, word, FUTEX_WAIT | flag, 5, NULL, NULL, 0) == -1 && errno == EAGAIN);
		if (private)
			continue;
		pthread_create(&thread, NULL, wake_later, word);
		t->tv_sec = 10;
		while (!__atomic_load_n(word, __ATOMIC_SEQ_CST))
			WANT(syscall(SYS_futex, word, FUTEX_WAIT, 0, t, NULL, 0) == 0 || errno == EAGAIN);
		pthread_join(thread, NULL);
	}
	guest_say("futex words and time-outs in guest memory work by system call number");
}

static void times(void)
{
	struct timespec *a = theirs(sizeof(*a)), *b = theirs(sizeof(*b));
	struct timeval *v = theirs(sizeof(*v));

	WANT(clock_gettime(CLOCK_MONOTONIC, a) == 0 && (a->tv_sec || a->tv_nsec));
	*b = (struct timespec){ 0, 3000000 };
	WANT(nanosleep(b, NULL) == 0);
	WANT(clock_gettime(CLOCK_MONOTONIC, b) == 0 &&
	     (b->tv_sec - a->tv_sec) * 1000000000 + b->tv_nsec - a->tv_nsec >= 3000000);
	WANT(gettimeofday(v, NULL) == 0 && v->tv_sec > 1600000000);
	WANT(syscall(SYS_clock_gettime, CLOCK_REALTIME, memset(a, 0, sizeof(*a))) == 0 && a->tv_sec > 1600000000);
	time_t *t = theirs(sizeof(*t));

	WANT(time(t) == *t && *t > 1600000000);
	struct tm *tm = gmtime_r(t, theirs(sizeof(*tm)));

	WANT(tm && tm->tm_year > 120);
	char *s = theirs(100);

	WANT(strftime(s, 100, "%Y", tm) == 4 && atoi(s) == tm->tm_year + 1900);
	guest_say("clocks and time-outs are read from and written to guest memory");
}

static void stdio(void)
{
	char *name = text("calls.txt"), *line = theirs(200);
	FILE *f = fopen(name, text("w+"));

	WANT(f != NULL);
	WANT(fprintf(f, text("%s %d %5.2f\n"), text("words"), 42, 3.14159) == 15);
	WANT(fputs(text("second line\n"), f) >= 0);
	for (int i = 0; i < 2000; i++)
		WANT(fwrite(text("0123456789"), 1, 10, f) == 10);
	rewind(f);
	WANT(fgets(line, 200, f) && !strcmp(line, "words 42  3.14\n"));
	WANT(fscanf(f, text("%s %99s"), line, line + 100) == 2 && !strcmp(line, "second") &&
	     !strcmp(line + 100, "line"));
	char *big = theirs(30000);

	WANT(fread(big, 1, 30000, f) == 20001 && !memcmp(big + 1, "0123456789", 10) &&
	     !memcmp(big + 19991, "0123456789", 10));
	WANT(fclose(f) == 0);
	f = fopen(name, "r");
	char **more = theirs(sizeof(*more));
	size_t *size = theirs(sizeof(*size));

	WANT(f && getline(more, size, f) == 15 && !strcmp(*more, "words 42  3.14\n"));
	free(*more);
	fclose(f);
	unlink(name);
	int *n = theirs(sizeof(*n));

	WANT(sscanf(text("17 31"), text("%d %d"), n, theirs(sizeof(int))) == 2 && *n == 17);
	guest_say("stdio reads and writes guest memory");
}

static void signals(void)
{
	sigset_t *set = theirs(sizeof(*set)), *old = theirs(sizeof(*old));
	struct sigaction *action = theirs(sizeof(*action));

	sigemptyset(set);
	sigaddset(set, SIGUSR2);
	WANT(sigprocmask(SIG_BLOCK, set, old) == 0 && sigismember(old, SIGUSR2) == 0);
	WANT(sigprocmask(SIG_SETMASK, NULL, memset(old, 0, sizeof(*old))) == 0 && sigismember(old, SIGUSR2) == 1);
	raise(SIGUSR2);
	siginfo_t *info = theirs(sizeof(*info));
	struct timespec *t = theirs(sizeof(*t));

	t->tv_sec = 1;
	WANT(sigtimedwait(set, info, t) == SIGUSR2 && info->si_signo == SIGUSR2);
	WANT(sigaction(SIGUSR2, NULL, action) == 0 && action->sa_handler == SIG_DFL);
	action->sa_handler = SIG_IGN;
	WANT(sigaction(SIGUSR2, action, NULL) == 0);
	guest_say("signal sets and actions are passed in guest memory");
}

static void faults(void)
{
	void *volatile wild = (void *)(uintptr_t)16;
	int ends[2];

	WANT(pipe(ends) == 0);
	WANT(write(ends[1], wild, 8) == -1 && errno == EFAULT);
	WANT(syscall(SYS_write, ends[1], wild, 8) == -1 && errno == EFAULT);
	guest_say("wild pointers still give EFAULT");
}

int main(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, owner, NULL);
	files();
	directories();
	pipes();
	sockets();
	futexes();
	times();
	stdio();
	signals();
	faults();
	pthread_mutex_lock(&mutex);
	done = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	return guest_status();
}
