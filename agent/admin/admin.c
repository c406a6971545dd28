/* SPDX-License-Identifier: Apache-2.0 */
#include "admin/admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "admin/listen.h"
#include "admin/params.h"
#include "base/owned.h"
#include "sniff/http_head.h"

#define MAX_CONNS   64 /* per listener */
#define MAX_REQUEST 8192
#define MAX_ACCEPTS 16 /* per event, so that others get their turn */
#define STEP_MS     10000
#define RETRY_MS    1000 /* after descriptors ran out */
#define HEAD_MAX    512
#define TEXT_TYPE   "text/plain; charset=utf-8"

enum conn_state {
	CONN_READING,  /* the request's head */
	CONN_HANDLING, /* a handler has the request */
	CONN_WRITING,
	CONN_LINGERING, /* all is written; a close with bytes unread would destroy it (RST) */
};

struct conn {
	struct watch watch;
	struct timer timer; /* of the step in hand */
	struct later later; /* frees it */
	struct listener *listener;
	struct conn *next, **link; /* in the listener's list, oldest first */
	enum conn_state state;
	struct admin_request *request; /* while HANDLING */
	bool is_head;
	char head[HEAD_MAX];
	char *body;
	size_t head_len, body_len, sent;
	size_t in_len;
	uint8_t in[MAX_REQUEST];
};

struct listener {
	struct watch watch;
	struct timer retry;
	struct later later; /* frees it */
	struct listener *next;
	struct loop *loop;
	const struct admin_route *routes;
	void *ctx;
	char *path; /* unix only */
	dev_t dev;
	ino_t ino;
	struct conn *conns, **conns_end;
	size_t n_conns;
};

struct admin {
	struct loop *loop;
	struct listener *listeners;
};

/* Lives from dispatch to reply, whatever becomes of the connection. */
struct admin_request {
	struct conn *conn; /* NULL once the client is gone or was answered by us */
	struct params params;
	char query[]; /* where they point */
};

/* ---- connections ---- */

static void conn_release(struct later *l)
{
	struct conn *c = CONTAINER_OF(l, struct conn, later);

	free(c->body);
	free(c);
}

/* A close alone does not end events while a child that was forked meanwhile, and has not yet come
 * to its exec, holds the same socket: epoll would go on naming freed memory.
 */
static void stop_watching(struct loop *loop, struct watch *w)
{
	watch_remove(loop, w);
	watch_close(w);
}

/* From now on nothing happens to it any more; freed after the batch. */
static void conn_close(struct conn *c)
{
	struct listener *l = c->listener;

	if (c->watch.fd < 0)
		return;
	stop_watching(l->loop, &c->watch);
	timer_stop(l->loop, &c->timer);
	if (c->request)
		c->request->conn = NULL;
	c->request = NULL;

	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	else
		l->conns_end = c->link;
	l->n_conns--;
	loop_later(l->loop, &c->later);
}

/* A level-triggered watch without interest: only ERR and HUP are told. */
static void conn_enter(struct conn *c, enum conn_state state)
{
	static const uint32_t wanted[] = {
		[CONN_READING] = EPOLLIN,
		[CONN_HANDLING] = 0,
		[CONN_WRITING] = EPOLLOUT,
		[CONN_LINGERING] = EPOLLIN,
	};

	c->state = state;
	timer_start(c->listener->loop, &c->timer, STEP_MS);
	if (watch_change(c->listener->loop, &c->watch, wanted[state]) < 0)
		conn_close(c);
}

/* The client has seen all when it closes; what it sends until then is thrown away. */
static void conn_linger(struct conn *c)
{
	uint8_t sink[4096];

	for (int i = 0; i < 16; i++) {
		ssize_t n = recv(c->watch.fd, sink, sizeof(sink), 0);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n == 0 || (n < 0 && errno != EINTR)) {
			conn_close(c);
			return;
		}
	}
}

static ssize_t conn_send(struct conn *c)
{
	size_t of_head = c->sent < c->head_len ? c->sent : c->head_len;
	size_t of_body = c->sent - of_head;
	struct iovec parts[] = {
		{c->head + of_head, c->head_len - of_head},
		{c->body ? c->body + of_body : NULL, c->body_len - of_body},
	};
	struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};

	return sendmsg(c->watch.fd, &msg, MSG_NOSIGNAL);
}

static void conn_write(struct conn *c)
{
	while (c->sent < c->head_len + c->body_len) {
		ssize_t n = conn_send(c);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			conn_close(c);
			return;
		}
		c->sent += (size_t)n;
		timer_start(c->listener->loop, &c->timer, STEP_MS);
	}
	shutdown(c->watch.fd, SHUT_WR);
	conn_enter(c, CONN_LINGERING);
}

static const char *status_text(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 431:
		return "Request Header Fields Too Large";
	case 500:
		return "Internal Server Error";
	case 503:
		return "Service Unavailable";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return status < 400 ? "OK" : "Error";
	}
}

/* Takes `body`. */
static void conn_answer(struct conn *c, int status, const char *content_type, char *body,
			size_t len)
{
	c->body = body;
	c->body_len = c->is_head ? 0 : len;
	c->head_len = (size_t)snprintf(c->head, sizeof(c->head),
				       "HTTP/1.1 %d %s\r\n"
				       "Content-Type: %.100s\r\n"
				       "Content-Length: %zu\r\n"
				       "Cache-Control: no-store\r\n"
				       "%s"
				       "Connection: close\r\n\r\n",
				       status, status_text(status), content_type, len,
				       status == 405 ? "Allow: GET, HEAD\r\n" : "");
	conn_enter(c, CONN_WRITING);
	if (c->watch.fd >= 0)
		conn_write(c);
}

static void conn_answer_text(struct conn *c, int status, const char *text)
{
	char *body = NULL;
	int len;

	len = asprintf(&body, "%s\n", text);
	if (len < 0)
		conn_close(c);
	else
		conn_answer(c, status, TEXT_TYPE, body, (size_t)len);
}

/* ---- requests ---- */

static int request_new(struct admin_request **ret, struct span query)
{
	struct admin_request *request = calloc(1, sizeof(*request) + query.len + 1);

	if (!request)
		return -ENOMEM;
	if (query.len > 0)
		memcpy(request->query, query.p, query.len);
	if (!params_parse(request->query, &request->params)) {
		free(request);
		return -EINVAL;
	}
	*ret = request;
	return 0;
}

const char *admin_param(const struct admin_request *request, const char *name)
{
	return params_find(&request->params, name);
}

void admin_reply(struct admin_request *request, int status, const char *content_type, char *body,
		 size_t len)
{
	struct conn *c = request->conn;

	free(request);
	if (!c) {
		free(body);
		return;
	}
	c->request = NULL;
	conn_answer(c, status, content_type, body, len);
}

void admin_reply_text(struct admin_request *request, int status, const char *text)
{
	char *copy = strdup(text);

	/* Without memory the client still learns the status. */
	admin_reply(request, status, TEXT_TYPE, copy, copy ? strlen(copy) : 0);
}

void admin_reply_json(struct admin_request *request, int status, json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

	json_decref(value);
	if (text)
		admin_reply(request, status, "application/json", text, strlen(text));
	else
		admin_reply_text(request, 500, "out of memory\n");
}

/* ---- from bytes to a handler ---- */

static const struct admin_route *find_route(const struct listener *l, struct span path)
{
	for (const struct admin_route *route = l->routes; route->path; route++) {
		if (span_equal(path, span_of(route->path)))
			return route;
	}
	return NULL;
}

/* "/check?target=x" in its two halves. */
static void split_target(struct span target, struct span *ret_path, struct span *ret_query)
{
	const uint8_t *mark = target.len > 0 ? memchr(target.p, '?', target.len) : NULL;

	*ret_query = (struct span){0};
	if (mark) {
		*ret_query = (struct span){mark + 1, (size_t)(target.p + target.len - mark - 1)};
		target.len = (size_t)(mark - target.p);
	}
	*ret_path = target;
}

static void dispatch(struct conn *c, const struct http_request *http)
{
	const struct admin_route *route;
	struct admin_request *request;
	struct span path, query;
	int r;

	c->is_head = http->is_head;
	split_target(http->target, &path, &query);
	route = find_route(c->listener, path);
	if (!route) {
		conn_answer_text(c, 404, "no such page");
		return;
	}
	if (!http->is_head && !span_equal(http->method, span_of("GET"))) {
		conn_answer_text(c, 405, "only GET and HEAD are served here");
		return;
	}
	r = request_new(&request, query);
	if (r < 0) {
		conn_answer_text(c, r == -EINVAL ? 400 : 500,
				 r == -EINVAL ? "malformed query" : "out of memory");
		return;
	}
	conn_enter(c, CONN_HANDLING);
	if (c->watch.fd < 0) {
		free(request);
		return;
	}
	request->conn = c;
	c->request = request;
	route->handle(c->listener->ctx, request);
}

static void conn_parse(struct conn *c)
{
	struct http_request http;

	switch (http_request_read((struct span){c->in, c->in_len}, sizeof(c->in), &http)) {
	case SNIFF_FOUND:
	case SNIFF_NO_NAME: /* HTTP/1.0: old probes send no Host */
		dispatch(c, &http);
		return;
	case SNIFF_NEED_MORE:
		if (c->in_len == sizeof(c->in))
			conn_answer_text(c, 431, "the request is too long");
		return;
	case SNIFF_NOT:
		conn_answer_text(c, 400, "this is not HTTP/1");
		return;
	case SNIFF_BAD:
		conn_answer_text(c, http.status, http.why ?: "bad request");
		return;
	}
}

static void conn_read(struct conn *c)
{
	ssize_t n = recv(c->watch.fd, c->in + c->in_len, sizeof(c->in) - c->in_len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	c->in_len += (size_t)n;
	conn_parse(c);
}

static void on_conn(struct watch *w, uint32_t events)
{
	struct conn *c = CONTAINER_OF(w, struct conn, watch);

	switch (c->state) {
	case CONN_READING:
		conn_read(c);
		return;
	case CONN_HANDLING:
		if (events & (EPOLLERR | EPOLLHUP))
			conn_close(c); /* nobody waits for the answer */
		return;
	case CONN_WRITING:
		conn_write(c);
		return;
	case CONN_LINGERING:
		conn_linger(c);
		return;
	}
}

static void on_conn_timer(struct timer *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, timer);

	if (c->state != CONN_HANDLING) {
		conn_close(c);
		return;
	}
	c->request->conn = NULL;
	c->request = NULL;
	conn_answer_text(c, 503, "the agent took too long to answer");
}

/* ---- listeners ---- */

/* The oldest that waits for its client: for a request, or else for the answer to be read. */
static bool make_room(struct listener *l)
{
	struct conn *victim = NULL;

	if (l->n_conns < MAX_CONNS)
		return true;
	for (struct conn *c = l->conns; c; c = c->next) {
		if (c->state == CONN_READING || c->state == CONN_LINGERING) {
			victim = c;
			break;
		}
		if (c->state == CONN_WRITING && !victim)
			victim = c;
	}
	if (!victim)
		return false; /* all wait for us: as many as we mean to work for */
	conn_close(victim);
	return true;
}

/* Takes `fd`. */
static void conn_start(struct listener *l, int fd)
{
	OWNED_FD int owned = fd;
	struct conn *c;

	if (!make_room(l))
		return;
	c = malloc(sizeof(*c));
	if (!c)
		return;
	memset(c, 0, offsetof(struct conn, in));
	c->watch = (struct watch){.fd = TAKE_FD(owned), .on_event = on_conn};
	c->timer.on_expire = on_conn_timer;
	c->later.run = conn_release;
	c->listener = l;
	c->link = l->conns_end;
	*c->link = c;
	l->conns_end = &c->next;
	l->n_conns++;

	timer_start(l->loop, &c->timer, STEP_MS);
	if (watch_add(l->loop, &c->watch, EPOLLIN) < 0)
		conn_close(c);
}

static bool is_out_of_something(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_accept(struct watch *w, uint32_t events)
{
	struct listener *l = CONTAINER_OF(w, struct listener, watch);

	(void)events;
	for (int i = 0; i < MAX_ACCEPTS; i++) {
		int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			conn_start(l, fd);
		} else if (is_out_of_something(errno)) {
			/* The event stays: without a pause it would keep the loop busy. */
			watch_remove(l->loop, w);
			timer_start(l->loop, &l->retry, RETRY_MS);
			return;
		} else if (errno == EAGAIN) {
			return;
		}
	}
}

static void on_retry(struct timer *t)
{
	struct listener *l = CONTAINER_OF(t, struct listener, retry);

	if (watch_add(l->loop, &l->watch, EPOLLIN) < 0)
		timer_start(l->loop, t, RETRY_MS);
}

static void listener_release(struct later *later)
{
	struct listener *l = CONTAINER_OF(later, struct listener, later);

	free(l->path);
	free(l);
}

/* Takes `fd` and `path` (unix only) when it succeeds. */
static int listener_start(struct admin *admin, int fd, char *path, const struct admin_route *routes,
			  void *ctx)
{
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->watch = (struct watch){.fd = fd, .on_event = on_accept};
	l->retry.on_expire = on_retry;
	l->later.run = listener_release;
	l->loop = admin->loop;
	l->routes = routes;
	l->ctx = ctx;
	l->conns_end = &l->conns;
	r = watch_add(admin->loop, &l->watch, EPOLLIN);
	if (r < 0) {
		free(l);
		return r;
	}
	l->path = path;
	l->next = admin->listeners;
	admin->listeners = l;
	return 0;
}

int admin_listen_tcp(struct admin *admin, const struct addr *addr, const struct admin_route *routes,
		     void *ctx)
{
	OWNED_FD int fd = listen_open_tcp(addr);
	int r;

	if (fd < 0)
		return fd;
	r = listener_start(admin, fd, NULL, routes, ctx);
	if (r < 0)
		return r;
	TAKE_FD(fd);
	return 0;
}

int admin_listen_unix(struct admin *admin, const char *path, const struct admin_route *routes,
		      void *ctx)
{
	OWNED_MEM char *copy = strdup(path);
	OWNED_FD int fd = -1;
	struct stat st = {0};
	int r;

	if (!copy)
		return -ENOMEM;
	fd = listen_open_unix(path);
	if (fd < 0)
		return fd;
	r = lstat(path, &st) < 0 ? -errno : listener_start(admin, fd, copy, routes, ctx);
	if (r < 0) {
		unlink(path);
		return r;
	}
	admin->listeners->dev = st.st_dev;
	admin->listeners->ino = st.st_ino;
	TAKE_PTR(copy);
	TAKE_FD(fd);
	return 0;
}

/* A successor may have put its own socket there meanwhile. */
static void unlink_own(const struct listener *l)
{
	struct stat st;

	if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
}

int admin_new(struct admin **ret, struct loop *loop)
{
	struct admin *admin = calloc(1, sizeof(*admin));

	if (!admin)
		return -ENOMEM;
	admin->loop = loop;
	*ret = admin;
	return 0;
}

void admin_free(struct admin *admin)
{
	if (!admin)
		return;
	while (admin->listeners) {
		struct listener *l = admin->listeners;

		admin->listeners = l->next;
		while (l->conns)
			conn_close(l->conns);
		unlink_own(l);
		timer_stop(l->loop, &l->retry);
		stop_watching(l->loop, &l->watch);
		loop_later(l->loop, &l->later);
	}
	free(admin);
}
