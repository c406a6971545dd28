/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/pump.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/owned.h"

#define ROUNDS         16          /* one turn of one pump, before others get theirs */
#define PIPE_BYTES     (1u << 20)  /* what a pipe is asked to hold; fewer is fine */
#define PIPES_KEPT     32          /* idle ones per worker */
#define BULK_READ      (16u << 10) /* a read of so much is a sign of bulk */
#define BULK_STREAK    3           /* so many in a row: splice from now on */
#define SPLICE_MIN_RUN (64u << 10)
#define BUF_MIN        1024u
#define READ_BEHIND    16384u /* how much is read at once behind unjudged bytes */

/* ---- sockets ---- */

void sock_note(struct loop *loop, struct sock *s, uint32_t events)
{
	if (s->readable && !s->muted && (events & EPOLLIN) && !(events & EPOLLRDHUP) &&
	    watch_change(loop, &s->watch, SOCK_EDGES & ~EPOLLIN) == 0)
		s->muted = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		s->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		s->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		s->hup = true;
}

/* What came in since makes an edge as the watch is changed. */
void sock_drained(struct loop *loop, struct sock *s)
{
	s->readable = false;
	if (s->muted && watch_change(loop, &s->watch, SOCK_EDGES) == 0)
		s->muted = false;
}

/* ---- pipes ---- */

static struct pipe *pipe_borrow(struct pump_env *env)
{
	struct pipe *p = env->pipes;

	if (p) {
		env->pipes = p->next;
		env->n_idle_pipes--;
		return p;
	}
	if (env->n_pipes >= env->max_pipes)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	if (pipe2(p->fds, O_NONBLOCK | O_CLOEXEC) < 0) {
		free(p);
		return NULL;
	}
	fcntl(p->fds[0], F_SETPIPE_SZ, PIPE_BYTES); /* where it is refused, 64 KiB do as well */
	env->n_pipes++;
	return p;
}

static void pipe_close(struct pump_env *env, struct pipe *p)
{
	close(p->fds[0]);
	close(p->fds[1]);
	free(p);
	env->n_pipes--;
}

static void pipe_return(struct pump_env *env, struct pump *p)
{
	struct pipe *pipe = TAKE_PTR(p->pipe);

	if (!pipe)
		return;
	if (pipe->used > 0 || env->n_idle_pipes >= PIPES_KEPT) {
		pipe_close(env, pipe);
		return;
	}
	pipe->next = env->pipes;
	env->pipes = pipe;
	env->n_idle_pipes++;
}

void pump_env_done(struct pump_env *env)
{
	while (env->pipes) {
		struct pipe *p = env->pipes;

		env->pipes = p->next;
		pipe_close(env, p);
	}
	free(env->scratch);
	env->scratch = NULL;
}

/* ---- bytes that wait in memory ---- */

static int reserve(struct pump *p, size_t more)
{
	size_t waiting = p->len - p->off, cap = p->cap ?: BUF_MIN;
	uint8_t *buf;

	if (p->off > 0 && p->len + more > p->cap) {
		memmove(p->buf, p->buf + p->off, waiting);
		p->ok -= p->off;
		p->len -= p->off;
		p->off = 0;
	}
	if (p->len + more <= p->cap)
		return 0;
	while (cap < waiting + more)
		cap *= 2;
	buf = realloc(p->buf, cap);
	if (!buf)
		return -ENOMEM;
	p->buf = buf;
	p->cap = (uint32_t)cap;
	return 0;
}

int pump_put(struct pump *p, const uint8_t *bytes, size_t n, size_t ok)
{
	int r;

	assert(ok == 0 || p->ok == p->len);
	r = reserve(p, n);
	if (r < 0)
		return r;
	memcpy(p->buf + p->len, bytes, n);
	p->ok += (uint32_t)ok;
	p->len += (uint32_t)n;
	return 0;
}

int pump_put_front(struct pump *p, const uint8_t *bytes, size_t n)
{
	int r = reserve(p, n);

	if (r < 0)
		return r;
	memmove(p->buf + p->off + n, p->buf + p->off, p->len - p->off);
	memcpy(p->buf + p->off, bytes, n);
	p->ok += (uint32_t)n;
	p->len += (uint32_t)n;
	return 0;
}

static void release_buf(struct pump *p)
{
	free(p->buf);
	p->buf = NULL;
	p->off = p->ok = p->len = p->cap = 0;
}

bool pump_is_empty(const struct pump *p)
{
	return p->len == p->off && !p->pipe;
}

void pump_drop(struct pump_env *env, struct pump *p)
{
	release_buf(p);
	pipe_return(env, p);
}

/* How many bytes at the front of `in` may go out: those of the run in hand, then as the judge says.
 */
static size_t clear_bytes(struct pump *p, struct judge *judge, struct span in)
{
	size_t cleared = 0;

	while (cleared < in.len) {
		struct span rest = {in.p + cleared, in.len - cleared};
		size_t n;

		if (p->run > 0) {
			n = p->run < rest.len ? (size_t)p->run : rest.len;
			if (p->run != PUMP_ALL)
				p->run -= n;
		} else {
			if (p->paused)
				break;
			n = judge->look(judge, p, rest);
			if (n == 0 && p->run == 0)
				break;
		}
		cleared += n;
	}
	return cleared;
}

void pump_judge(struct pump *p, struct judge *judge)
{
	if (p->len > p->ok)
		p->ok += (uint32_t)clear_bytes(p, judge,
					       (struct span){p->buf + p->ok, p->len - p->ok});
}

/* ---- out ---- */

/* 0: nothing cleared is left; -EAGAIN: `to` is full; other -errno: it failed. */
static int flush_buf(struct pump *p)
{
	while (p->off < p->ok) {
		ssize_t n;

		if (!p->to->writable)
			return -EAGAIN;
		n = send(p->to->watch.fd, p->buf + p->off, p->ok - p->off, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			p->to->writable = false;
		else if (n < 0 && errno != EINTR)
			return -errno;
		else if (n > 0)
			p->off += (uint32_t)n;
	}
	if (p->off == p->len)
		release_buf(p);
	return 0;
}

static int flush_pipe(struct pump_env *env, struct pump *p)
{
	while (p->pipe && p->pipe->used > 0) {
		ssize_t n;

		if (!p->to->writable)
			return -EAGAIN;
		n = splice(p->pipe->fds[0], NULL, p->to->watch.fd, NULL, p->pipe->used,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (n < 0 && errno == EAGAIN)
			p->to->writable = false;
		else if (n < 0 && errno != EINTR)
			return -errno;
		else if (n > 0)
			p->pipe->used -= (uint32_t)n;
	}
	pipe_return(env, p);
	return 0;
}

/* ---- in ---- */

static bool wants_splice(const struct pump *p)
{
	return p->streak >= BULK_STREAK && p->run >= SPLICE_MIN_RUN && p->len == p->off;
}

/* 1: bytes or the end came; 0: nothing more for now; -errno. */
static int took(struct pump_env *env, struct pump *p, ssize_t n, size_t wanted,
		bool drained_by_short_read)
{
	if (n < 0) {
		int r = -errno;

		if (r == -EINTR)
			return 1;
		if (r != -EAGAIN)
			return r;
		sock_drained(env->loop, p->from);
		return 0;
	}
	if (n == 0) {
		p->eof = true;
		return 1;
	}
	p->bytes += (uint64_t)n;
	/* A short read has emptied the queue (epoll(7)), unless a FIN or an error is behind it. */
	if (drained_by_short_read && (size_t)n < wanted && !p->from->hup)
		sock_drained(env->loop, p->from);
	return 1;
}

static int fill_pipe(struct pump_env *env, struct pump *p)
{
	size_t want = p->run < PIPE_BYTES ? (size_t)p->run : PIPE_BYTES;
	ssize_t n;
	int r;

	if (!p->pipe)
		p->pipe = pipe_borrow(env);
	if (!p->pipe) {
		p->streak = 0; /* too many pipes in use: copying works too */
		return 1;
	}
	n = splice(p->from->watch.fd, NULL, p->pipe->fds[1], NULL, want,
		   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	r = took(env, p, n, want, false);
	if (n > 0) {
		p->pipe->used += (uint32_t)n;
		if (p->run != PUMP_ALL)
			p->run -= (uint64_t)n;
		if (n < BULK_READ)
			p->streak--;
		else if (p->streak < BULK_STREAK + 4)
			p->streak++;
	}
	return r;
}

/* Bytes go out straight from the scratch buffer; only what the other side does not take is kept. */
static int fill_scratch(struct pump_env *env, struct pump *p, struct judge *judge)
{
	size_t cleared, sent = 0;
	ssize_t n, m;
	int r;

	n = recv(p->from->watch.fd, env->scratch, PUMP_SCRATCH, 0);
	r = took(env, p, n, PUMP_SCRATCH, true);
	if (n <= 0)
		return r;

	if (n < BULK_READ)
		p->streak = 0;
	else if (p->streak < BULK_STREAK + 4)
		p->streak++;

	cleared = clear_bytes(p, judge, (struct span){env->scratch, (size_t)n});
	if (cleared > 0 && p->to->writable) {
		m = send(p->to->watch.fd, env->scratch, cleared, MSG_NOSIGNAL);
		if (m < 0 && errno != EAGAIN && errno != EINTR)
			return -EPIPE; /* told apart from errors of `from` by the caller */
		if (m < 0 || (size_t)m < cleared)
			p->to->writable = m < 0 && errno == EINTR;
		sent = m > 0 ? (size_t)m : 0;
	}
	if (sent < (size_t)n)
		return pump_put(p, env->scratch + sent, (size_t)n - sent, cleared - sent) ?: r;
	return r;
}

/* Unjudged bytes wait (the head of a message that came in pieces): more is read behind them. */
static int fill_behind(struct pump_env *env, struct pump *p, struct judge *judge)
{
	ssize_t n;
	int r;

	r = reserve(p, READ_BEHIND);
	if (r < 0)
		return r;
	n = recv(p->from->watch.fd, p->buf + p->len, READ_BEHIND, 0);
	r = took(env, p, n, READ_BEHIND, true);
	if (n > 0) {
		p->len += (uint32_t)n;
		pump_judge(p, judge);
	}
	return r;
}

static int fill(struct pump_env *env, struct pump *p, struct judge *judge)
{
	if (p->len > p->off)
		return fill_behind(env, p, judge);
	if (wants_splice(p))
		return fill_pipe(env, p);
	return fill_scratch(env, p, judge);
}

enum pump_result pump_step(struct pump_env *env, struct pump *p, struct judge *judge,
			   int *ret_errno)
{
	if (p->shut)
		return PUMP_DONE;
	for (int i = 0; i < ROUNDS; i++) {
		int r = flush_buf(p);

		if (r == 0)
			r = flush_pipe(env, p);
		if (r == -EAGAIN)
			return PUMP_BLOCKED;
		if (r < 0) {
			*ret_errno = -r;
			return PUMP_TO_FAILED;
		}
		if (p->eof) {
			if (p->paused)
				return PUMP_BLOCKED;
			release_buf(p); /* half a head that nobody will ever complete */
			if (shutdown(p->to->watch.fd, SHUT_WR) < 0 && errno != ENOTCONN) {
				*ret_errno = errno;
				return PUMP_TO_FAILED;
			}
			p->shut = true;
			return PUMP_DONE;
		}
		if (p->paused || !p->from->readable)
			return PUMP_BLOCKED;

		r = fill(env, p, judge);
		if (r == -EPIPE) {
			*ret_errno = EPIPE;
			return PUMP_TO_FAILED;
		}
		if (r < 0) {
			*ret_errno = -r;
			return PUMP_FROM_FAILED;
		}
	}
	return PUMP_AGAIN;
}
