/* SPDX-License-Identifier: Apache-2.0 */
#include "kube/http.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/owned.h"

/* A socket of libcurl. It closes the descriptor, we only watch it. */
struct http_socket {
	struct watch watch;
	struct later later; /* frees it */
	struct http *http;
	struct http_socket *next, **link;
};

struct http {
	struct loop *loop;
	CURLM *multi;
	struct timer timer;
	struct http_socket *sockets;
	struct http_transfer *ready, **ready_end;
};

/* ---- what has happened ---- */

void http_wake(struct http *http, struct http_transfer *t)
{
	if (t->is_ready)
		return;
	t->is_ready = true;
	t->next_ready = NULL;
	*http->ready_end = t;
	http->ready_end = &t->next_ready;
}

static void ready_remove(struct http *http, struct http_transfer *t)
{
	struct http_transfer **link = &http->ready;

	if (!t->is_ready)
		return;
	while (*link != t)
		link = &(*link)->next_ready;
	*link = t->next_ready;
	if (!t->next_ready)
		http->ready_end = link;
	t->is_ready = false;
}

static void collect_ended(struct http *http)
{
	struct CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(http->multi, &left))) {
		struct http_transfer *t = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		t->ended = true;
		t->code = msg->data.result;
		http_wake(http, t);
	}
}

static void advance(struct http *http, curl_socket_t fd, int events)
{
	int running;

	curl_multi_socket_action(http->multi, fd, events, &running);
	collect_ended(http);
	while (http->ready) {
		struct http_transfer *t = http->ready;

		ready_remove(http, t);
		t->on_ready(t);
	}
}

/* ---- libcurl on the loop ---- */

static void on_timer(struct timer *timer)
{
	advance(CONTAINER_OF(timer, struct http, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout_changed(CURLM *multi, long timeout_ms, void *ctx)
{
	struct http *http = ctx;

	(void)multi;
	if (timeout_ms < 0)
		timer_stop(http->loop, &http->timer);
	else
		timer_start(http->loop, &http->timer, (uint64_t)timeout_ms);
	return 0;
}

static void on_socket(struct watch *w, uint32_t events)
{
	struct http_socket *s = CONTAINER_OF(w, struct http_socket, watch);
	int what = (events & EPOLLIN ? CURL_CSELECT_IN : 0) |
		   (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		   (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

	advance(s->http, w->fd, what);
}

static void free_socket(struct later *later)
{
	free(CONTAINER_OF(later, struct http_socket, later));
}

/* libcurl closes the descriptor right after this, which also ends the watch. */
static void socket_gone(struct http_socket *s)
{
	struct loop *loop = s->http->loop;

	watch_remove(loop, &s->watch);
	s->watch.fd = -1;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->later.run = free_socket;
	loop_later(loop, &s->later);
}

/* When this fails nobody reads, and the transfer runs into its timeout. */
static void socket_watch(struct http *http, curl_socket_t fd, uint32_t events)
{
	OWNED_MEM struct http_socket *s = calloc(1, sizeof(*s));

	if (!s)
		return;
	s->watch = (struct watch){.fd = fd, .on_event = on_socket};
	s->http = http;
	if (watch_add(http->loop, &s->watch, events) < 0)
		return;
	curl_multi_assign(http->multi, fd, s);
	s->next = http->sockets;
	s->link = &http->sockets;
	if (s->next)
		s->next->link = &s->next;
	http->sockets = TAKE_PTR(s);
}

static int on_socket_changed(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket)
{
	static const uint32_t events[] = {
		[CURL_POLL_IN] = EPOLLIN,
		[CURL_POLL_OUT] = EPOLLOUT,
		[CURL_POLL_INOUT] = EPOLLIN | EPOLLOUT,
		[CURL_POLL_REMOVE] = 0,
	};
	struct http_socket *s = socket;
	struct http *http = ctx;

	(void)easy;
	if (what == CURL_POLL_REMOVE && s)
		socket_gone(s);
	else if (what != CURL_POLL_REMOVE && s)
		watch_change(http->loop, &s->watch, events[what]);
	else if (what != CURL_POLL_REMOVE)
		socket_watch(http, fd, events[what]);
	return 0;
}

/* ---- transfers ---- */

int http_start(struct http *http, struct http_transfer *t)
{
	t->ended = false;
	curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
	t->started = true;
	if (curl_multi_add_handle(http->multi, t->easy) == CURLM_OK)
		return 0;
	t->started = false;
	curl_easy_cleanup(TAKE_PTR(t->easy));
	return -EIO;
}

void http_stop(struct http *http, struct http_transfer *t)
{
	ready_remove(http, t);
	if (t->started)
		curl_multi_remove_handle(http->multi, t->easy);
	t->started = false;
	curl_easy_cleanup(TAKE_PTR(t->easy));
}

/* ---- all of it ---- */

static void start_libcurl(void)
{
	curl_global_init(CURL_GLOBAL_ALL);
}

int http_new(struct http **ret, struct loop *loop)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct http *http = calloc(1, sizeof(*http));

	if (!http)
		return -ENOMEM;
	pthread_once(&once, start_libcurl);
	http->loop = loop;
	http->timer.on_expire = on_timer;
	http->ready_end = &http->ready;
	http->multi = curl_multi_init();
	if (!http->multi) {
		free(http);
		return -EIO;
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket_changed);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timeout_changed);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	*ret = http;
	return 0;
}

void http_free(struct http *http)
{
	if (!http)
		return;
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, NULL);
	curl_multi_cleanup(http->multi);
	while (http->sockets)
		socket_gone(http->sockets);
	timer_stop(http->loop, &http->timer);
	free(http);
}
