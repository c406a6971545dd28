/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/owned.h"

#define WAITING_MAX   (16UL << 20) /* bytes that may wait for the disk */
#define BUFFER_FIRST  (64UL << 10)
#define BUFFER_KEEP   (1UL << 20) /* a burst's buffer above this is given back */
#define BATCH_BYTES   (64UL << 10)
#define BATCH_WAIT_MS 10
#define CLOSE_WAIT_MS 2000

struct buffer {
	char *p;
	size_t len, size;
};

/* Where lines go. */
struct target {
	int fd;
	bool is_socket; /* a standard stream that is one, as under systemd */
	bool shared;    /* inherited, so it may block: others use the same open file */
};

struct access_log {
	bool json;
	char *file;
	pthread_t thread;
	_Atomic uint64_t dropped;
	_Atomic uint64_t deadline_ms; /* 0 until the log is closed */

	pthread_mutex_t lock; /* held for a memcpy or a swap, never for a write */
	pthread_cond_t more;
	struct buffer front;
	size_t wake_at; /* bytes in `front` that the writer waits for; SIZE_MAX: for none */
	_Atomic size_t in_flight; /* bytes that the writer has and has not written */
	bool stop, reopen;
	bool ended;     /* the thread has nothing more to do with the log */
	bool abandoned; /* nobody waits for the thread: the log is the thread's to free */

	/* the writer's own */
	struct buffer back;
	struct target target;
	bool torn;   /* the last line in the file is not whole */
	bool broken; /* the last write failed, and that was said */
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool out_of_time(const struct access_log *log)
{
	uint64_t deadline = atomic_load(&log->deadline_ms);

	return deadline != 0 && now_ms() >= deadline;
}

/* ---- the file ---- */

static int standard_stream(const char *file)
{
	if (strcmp(file, "/dev/stdout") == 0)
		return STDOUT_FILENO;
	if (strcmp(file, "/dev/stderr") == 0)
		return STDERR_FILENO;
	return -1;
}

/* A stream that cannot be opened anew is a socket, or belongs to a user that we no longer are. */
static int dup_stream(int stream, struct target *ret)
{
	struct stat st;
	int fd;

	fd = fcntl(stream, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		st.st_mode = 0;
	*ret = (struct target){fd, S_ISSOCK(st.st_mode), true};
	return 0;
}

static int target_open(const char *file, struct target *ret)
{
	int stream = standard_stream(file);
	int flags = O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
	int fd, r;

	fd = stream >= 0 ? open(file, flags) : open(file, flags | O_CREAT, 0640);
	if (fd >= 0) {
		*ret = (struct target){.fd = fd};
		return 0;
	}
	r = -errno;
	return stream >= 0 ? dup_stream(stream, ret) : r;
}

static bool is_same_file(int a, int b)
{
	struct stat one, other;

	return fstat(a, &one) == 0 && fstat(b, &other) == 0 && one.st_dev == other.st_dev &&
	       one.st_ino == other.st_ino;
}

static int replace_target(struct access_log *log)
{
	struct target target;
	int r;

	r = target_open(log->file, &target);
	if (r < 0)
		return r;
	if (!is_same_file(log->target.fd, target.fd))
		log->torn = false;
	close(log->target.fd);
	log->target = target;
	return 0;
}

/* ---- writing: on the log's thread ---- */

static bool wait_writable(const struct access_log *log)
{
	struct pollfd p = {.fd = log->target.fd, .events = POLLOUT};

	for (;;) {
		int n = poll(&p, 1, 100); /* now and then, to see whether the log was closed */

		if (n > 0)
			return true;
		if (out_of_time(log))
			return false;
	}
}

static ssize_t write_some(const struct target *target, const char *p, size_t n)
{
	if (target->is_socket)
		return send(target->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	/* A pipe that polls writable takes this much without blocking (pipe(7)). */
	if (target->shared && n > PIPE_BUF)
		n = PIPE_BUF;
	return write(target->fd, p, n);
}

/* Writes it all, or as much as can be. *ret_written says how much, also on failure; *left, if asked
 * for, is less by what is written already. -errno; -ETIMEDOUT when the log is closed and its time
 * is up.
 */
static int write_all(const struct access_log *log, const char *p, size_t n, size_t *ret_written,
		     _Atomic size_t *left)
{
	const struct target *target = &log->target;
	size_t done = 0;
	int r = 0;

	while (done < n && r == 0) {
		ssize_t got;

		if (out_of_time(log)) {
			r = -ETIMEDOUT;
			break;
		}
		if (target->shared && !target->is_socket && !wait_writable(log)) {
			r = -ETIMEDOUT;
			break;
		}
		got = write_some(target, p + done, n - done);
		if (got >= 0) {
			done += (size_t)got;
			if (left)
				atomic_fetch_sub(left, (size_t)got);
		} else if (errno == EAGAIN)
			r = wait_writable(log) ? 0 : -ETIMEDOUT;
		else if (errno != EINTR)
			r = -errno;
	}
	*ret_written = done;
	return r;
}

static uint64_t count_lines(const char *p, size_t n)
{
	const char *end = p + n;
	uint64_t lines = 0;

	while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
		lines++;
		p++;
	}
	return lines;
}

static void say_broken(struct access_log *log, int r)
{
	if (r == -ETIMEDOUT)
		log_warn(0, "access log '%s' takes no more lines: those that waited are lost",
			 log->file);
	else if (!log->broken)
		log_warn(r, "cannot write to access log '%s', dropping lines until it works again",
			 log->file);
	log->broken = true;
}

static void say_mended(struct access_log *log)
{
	if (log->broken)
		log_info("access log '%s' can be written again", log->file);
	log->broken = false;
}

/* What follows half a line would be lost with it: a torn line is ended first. */
static int end_torn_line(struct access_log *log)
{
	size_t written;
	int r;

	if (!log->torn)
		return 0;
	r = write_all(log, "\n", 1, &written, NULL);
	if (r == 0)
		log->torn = false;
	return r;
}

static void write_back(struct access_log *log)
{
	const struct buffer *b = &log->back;
	size_t written = 0;
	int r = 0;

	if (b->len == 0)
		return;
	if (log->broken)
		replace_target(log); /* perhaps it is gone and can be made again */
	r = end_torn_line(log);
	if (r == 0)
		r = write_all(log, b->p, b->len, &written, &log->in_flight);
	if (r == 0) {
		say_mended(log);
		return;
	}
	if (written > 0)
		log->torn = b->p[written - 1] != '\n';
	atomic_fetch_add(&log->dropped, count_lines(b->p + written, b->len - written));
	say_broken(log, r);
}

/* ---- the thread ---- */

static void wait_more(struct access_log *log, size_t wake_at, const struct timespec *until)
{
	log->wake_at = wake_at;
	if (until)
		pthread_cond_timedwait(&log->more, &log->lock, until);
	else
		pthread_cond_wait(&log->more, &log->lock);
	log->wake_at = SIZE_MAX;
}

/* One wake-up and one write for many lines: after the first, a little time for others. */
static void gather(struct access_log *log)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += BATCH_WAIT_MS * 1000000L;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	if (!log->stop && !log->reopen && log->front.len < BATCH_BYTES)
		wait_more(log, BATCH_BYTES, &until);
}

/* Swaps the buffers. False when the log is closed and nothing is left. */
static bool take_front(struct access_log *log, bool *ret_reopen)
{
	struct buffer empty = log->back;

	empty.len = 0;
	pthread_mutex_lock(&log->lock);
	log->in_flight = 0;
	while (log->front.len == 0 && !log->stop && !log->reopen)
		wait_more(log, 1, NULL);
	if (log->front.len > 0)
		gather(log);
	log->back = log->front;
	log->front = empty;
	log->in_flight = log->back.len;
	*ret_reopen = log->reopen;
	log->reopen = false;
	pthread_mutex_unlock(&log->lock);
	return log->back.len > 0 || *ret_reopen;
}

static void free_log(struct access_log *log)
{
	if (log->target.fd >= 0)
		close(log->target.fd);
	pthread_mutex_destroy(&log->lock);
	pthread_cond_destroy(&log->more);
	free(log->front.p);
	free(log->back.p);
	free(log->file);
	free(log);
}

static void write_batches(struct access_log *log)
{
	bool reopen;

	while (take_front(log, &reopen)) {
		int r = reopen ? replace_target(log) : 0;

		if (r < 0)
			log_warn(r, "cannot reopen access log '%s', keeping the old file",
				 log->file);
		write_back(log);
		if (log->back.size > BUFFER_KEEP) {
			free(log->back.p);
			log->back = (struct buffer){0};
		}
	}
}

static void *run(void *arg)
{
	struct access_log *log = arg;
	bool abandoned;

	write_batches(log);
	pthread_mutex_lock(&log->lock);
	log->ended = true;
	abandoned = log->abandoned;
	pthread_mutex_unlock(&log->lock);
	if (abandoned)
		free_log(log);
	return NULL;
}

/* Signals are for the threads that wait for them, and SIGPIPE is for none. */
static int start_thread(struct access_log *log)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&log->thread, NULL, run, log);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* ---- for everybody ---- */

static void init_locks(struct access_log *log)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&log->more, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&log->lock, NULL);
}

int access_log_open(struct access_log **ret, const char *file, bool json)
{
	struct access_log *log = calloc(1, sizeof(*log));
	int r;

	if (!log)
		return -ENOMEM;
	init_locks(log);
	log->json = json;
	log->wake_at = SIZE_MAX;
	log->target.fd = -1;
	log->file = strdup(file);
	r = log->file ? target_open(file, &log->target) : -ENOMEM;
	if (r == 0)
		r = start_thread(log);
	if (r < 0) {
		free_log(log);
		return r;
	}
	*ret = log;
	return 0;
}

static bool make_room(struct buffer *b, size_t n)
{
	size_t size = b->size > 0 ? b->size : BUFFER_FIRST;
	char *p;

	while (size < b->len + n)
		size *= 2;
	if (size == b->size)
		return true;
	p = realloc(b->p, size);
	if (!p)
		return false;
	b->p = p;
	b->size = size;
	return true;
}

static bool append(struct access_log *log, const char *line, size_t n)
{
	struct buffer *front = &log->front;

	if (front->len + log->in_flight + n > WAITING_MAX || !make_room(front, n))
		return false;
	memcpy(front->p + front->len, line, n);
	front->len += n;
	if (front->len >= log->wake_at) {
		log->wake_at = SIZE_MAX; /* once is enough */
		pthread_cond_signal(&log->more);
	}
	return true;
}

void access_log_write(struct access_log *log, const struct access_record *record)
{
	char line[ACCESS_LINE_MAX];
	size_t n = access_record_format(record, log->json, line);
	bool kept;

	pthread_mutex_lock(&log->lock);
	kept = append(log, line, n);
	pthread_mutex_unlock(&log->lock);
	if (!kept)
		atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
}

void access_log_reopen(struct access_log *log)
{
	pthread_mutex_lock(&log->lock);
	log->reopen = true;
	pthread_cond_signal(&log->more);
	pthread_mutex_unlock(&log->lock);
}

uint64_t access_log_dropped(const struct access_log *log)
{
	return atomic_load_explicit(&log->dropped, memory_order_relaxed);
}

/* False when the disk hangs: then the thread keeps the log and frees it, should it ever return. */
static bool join_in_time(struct access_log *log)
{
	struct timespec until;
	bool ended;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += CLOSE_WAIT_MS / 1000 + 1;
	if (pthread_clockjoin_np(log->thread, NULL, CLOCK_MONOTONIC, &until) == 0)
		return true;

	pthread_mutex_lock(&log->lock);
	ended = log->ended;
	log->abandoned = !ended;
	if (!ended)
		pthread_detach(log->thread);
	pthread_mutex_unlock(&log->lock);
	if (ended)
		pthread_join(log->thread, NULL);
	return ended;
}

void access_log_close(struct access_log *log)
{
	if (!log)
		return;
	pthread_mutex_lock(&log->lock);
	log->stop = true;
	atomic_store(&log->deadline_ms, now_ms() + CLOSE_WAIT_MS);
	pthread_cond_signal(&log->more);
	pthread_mutex_unlock(&log->lock);

	if (join_in_time(log))
		free_log(log);
}
