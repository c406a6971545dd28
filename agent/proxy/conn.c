/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/owned.h"
#include "proxy/http_relay.h"
#include "proxy/refusal.h"

#define IDLE_CHECK_MS  30000      /* how often a quiet connection is looked at */
#define LINGER_MS      1000       /* how long a refused client may take to read why */
#define LINGER_BYTES   (1u << 20) /* and how much it may still send */
#define STEPS          4          /* turns of both pumps before other connections get theirs */
#define KEEPALIVE_IDLE 60         /* seconds; both sides, once a connection has been quiet */
#define KEEPALIVE_STEP 10
#define KEEPALIVE_MAX  6

static void on_down(struct watch *watch, uint32_t events)
{
	struct conn *c = CONTAINER_OF(watch, struct conn, down.watch);

	sock_note(c->worker->loop, &c->down, events);
	conn_step(c);
}

static void on_up(struct watch *watch, uint32_t events)
{
	struct conn *c = CONTAINER_OF(watch, struct conn, up.watch);

	sock_note(c->worker->loop, &c->up, events);
	if (c->state == CONN_CONNECT)
		conn_on_up_event(c, events);
	else
		conn_step(c);
}

static void conn_free(struct conn *c)
{
	http_relay_free(c->http);
	snapshot_unref(c->snapshot);
	gateways_unref(c->gateways);
	flow_done(&c->flow);
	free(c);
}

static void on_again(struct later *l)
{
	struct conn *c = CONTAINER_OF(l, struct conn, again);

	if (c->state == CONN_CLOSED)
		conn_free(c);
	else
		conn_step(c);
}

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void reset_and_close(int fd)
{
	struct linger now = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

static void sock_close(struct sock *s, bool reset)
{
	if (reset && s->watch.fd >= 0) {
		reset_and_close(s->watch.fd);
		s->watch.fd = -1;
	}
	watch_close(&s->watch);
}

static void link_conn(struct conn *c)
{
	struct worker *w = c->worker;

	c->next = w->conns;
	c->link = &w->conns;
	if (c->next)
		c->next->link = &c->next;
	w->conns = c;
}

static void unlink_conn(struct conn *c)
{
	if (c->worker->sweep == c)
		c->worker->sweep = c->next;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
}

static void flow_begin(struct flow *f, struct worker *w, const struct addr *remote,
		       struct identity *source, const struct addr *dst)
{
	worker_request_id(w, f->request_id);
	f->start_us = now_us();
	f->start_ms = loop_now_ms(w->loop);
	f->remote = *remote;
	f->source = identity_ref(source);
	if (dst)
		f->dst = *dst;
}

static void give_places_back(struct worker *w, struct identity *source)
{
	atomic_fetch_sub_explicit(&w->shared->connections, 1, memory_order_relaxed);
	if (source)
		atomic_fetch_sub_explicit(&source->connections, 1, memory_order_relaxed);
}

static void on_timer(struct timer *t);

int conn_start(struct worker *w, int fd, const struct addr *remote, struct identity *source,
	       const struct addr *dst)
{
	struct conn *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		r = -ENOMEM;
		goto fail;
	}
	c->worker = w;
	c->down.watch = (struct watch){.fd = fd, .on_event = on_down};
	c->up.watch = (struct watch){.fd = -1, .on_event = on_up};
	c->out.from = c->in.to = &c->down;
	c->out.to = c->in.from = &c->up;
	c->timer.on_expire = on_timer;
	c->again.run = on_again;
	c->state = source ? CONN_SNIFF : CONN_HEADER;
	c->counted_pod = source;
	r = watch_add(w->loop, &c->down.watch, SOCK_EDGES);
	if (r < 0)
		goto fail;

	flow_begin(&c->flow, w, remote, source, dst);
	link_conn(c);
	timer_start(w->loop, &c->timer, w->snapshot->config->limits.hello_timeout_ms);
	if (c->state == CONN_SNIFF)
		conn_sniff(c); /* where the address decides, the server may speak first */
	return 0;
fail:
	give_places_back(w, source);
	conn_refuse_early(w, fd, remote, source, dst, REASON_LIMIT_EXCEEDED, "out of memory");
	free(c);
	return r;
}

void conn_refuse_early(struct worker *w, int fd, const struct addr *remote, struct identity *source,
		       const struct addr *dst, enum reason reason, const char *detail)
{
	struct flow f = {0};

	flow_begin(&f, w, remote, source, dst);
	f.reason = reason;
	flow_denied(&f, &w->shared->observers);
	flow_log(&f, &w->shared->observers, &(struct flow_line){.detail = detail}, false, reason);
	flow_done(&f);
	reset_and_close(fd);
}

static void bring_counters(struct conn *c)
{
	c->flow.received = c->out.bytes;
	c->flow.sent = c->in.bytes;
}

/* The end, whatever came before: everything but the memory is given back now. */
static void conn_close(struct conn *c, bool reset)
{
	struct worker *w = c->worker;

	bring_counters(c);
	flow_closed(&c->flow, &w->shared->observers);
	conn_connect_cancel(c);
	if (c->up.watch.fd >= 0 && w->dialer)
		dial_release(w->dialer, &c->flow.upstream_local);
	sock_close(&c->down, reset);
	sock_close(&c->up, reset);
	pump_drop(&w->env, &c->out);
	pump_drop(&w->env, &c->in);
	timer_stop(w->loop, &c->timer);
	unlink_conn(c);
	give_places_back(w, c->counted_pod ? c->flow.source : NULL);
	c->state = CONN_CLOSED;
	loop_later(w->loop, &c->again);
}

/* One line per connection, unless its requests have had theirs; but an end that is our doing is
 * always said.
 */
static void log_end(struct conn *c, enum reason reason, const char *detail)
{
	bool allow = c->flow.allow && reason != REASON_DEREGISTERED;

	bring_counters(c);
	if (c->http && http_relay_end(c->http, reason, detail))
		return;
	if (c->flow.logged && reason != REASON_DEREGISTERED)
		return;
	c->flow.logged = true;
	flow_log(&c->flow, &c->worker->shared->observers,
		 &(struct flow_line){
			 .received = c->flow.received,
			 .sent = c->flow.sent,
			 .duration_ms = loop_now_ms(c->worker->loop) - c->flow.start_ms,
			 .detail = detail,
		 },
		 allow, reason ?: c->flow.reason);
}

void conn_abort(struct conn *c, enum reason reason, const char *detail)
{
	if (c->state == CONN_CLOSED)
		return;
	if (reason != REASON_NONE)
		c->flow.reason = reason;
	if (reason == REASON_DEREGISTERED)
		flow_denied(&c->flow, &c->worker->shared->observers);
	log_end(c, reason, detail);
	conn_close(c, true);
}

void conn_end_quietly(struct conn *c)
{
	conn_close(c, false);
}

/* ---- refusing ---- */

static void finish_refusal(struct conn *c)
{
	if (c->out.eof || c->out.bytes > LINGER_BYTES)
		conn_close(c, !c->out.eof);
}

/* A reset would overtake the answer, so the client is given time to read it and to close. */
static void step_refuse(struct conn *c)
{
	struct worker *w = c->worker;
	struct pump *p = &c->in; /* nobody feeds it any more: what waits in it is the refusal */
	int error;

	if (!p->shut) {
		enum pump_result r = pump_step(&w->env, p, NULL, &error);

		if (r != PUMP_DONE && r != PUMP_BLOCKED) {
			conn_close(c, true);
			return;
		}
	}
	for (int i = 0; i < STEPS && c->down.readable && !c->out.eof; i++) {
		ssize_t n = recv(c->down.watch.fd, w->env.scratch, PUMP_SCRATCH, 0);

		if (n > 0) {
			c->out.bytes += (uint64_t)n;
		} else if (n == 0) {
			c->out.eof = true;
		} else if (errno == EAGAIN) {
			sock_drained(w->loop, &c->down);
		} else if (errno != EINTR) {
			conn_close(c, true);
			return;
		}
	}
	finish_refusal(c);
	if (c->state == CONN_REFUSE && c->down.readable)
		loop_later(w->loop, &c->again);
}

void conn_refuse(struct conn *c, enum reason reason, int status, const struct flow_line *line)
{
	struct worker *w = c->worker;
	uint8_t answer[REFUSAL_MAX];
	size_t n;

	c->flow.reason = reason;
	if (line) {
		struct flow_line full = *line;

		bring_counters(c);
		full.received = c->flow.received;
		full.duration_ms = loop_now_ms(w->loop) - c->flow.start_ms;
		if (c->flow.spoken == SPOKEN_HTTP && !full.response_code)
			full.response_code = status ?: http_status_of(reason);
		c->flow.logged = true;
		flow_log(&c->flow, &w->shared->observers, &full, false, reason);
	}
	flow_denied(&c->flow, &w->shared->observers);

	conn_connect_cancel(c);
	if (c->up.watch.fd >= 0 && w->dialer)
		dial_release(w->dialer, &c->flow.upstream_local);
	sock_close(&c->up, true);
	pump_drop(&w->env, &c->out);
	pump_drop(&w->env, &c->in);

	n = refusal_write(c->flow.spoken, reason, status, c->flow.name ?: "", answer);
	if (n == 0 || pump_put(&c->in, answer, n, n) < 0) {
		conn_close(c, true);
		return;
	}
	c->state = CONN_REFUSE;
	c->in.eof = true;
	c->in.paused = false;
	timer_start(w->loop, &c->timer, LINGER_MS);
	loop_later(w->loop, &c->again); /* not from within whoever called */
}

/* ---- relaying ---- */

static void set_keepalive(int fd)
{
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){KEEPALIVE_IDLE}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &(int){KEEPALIVE_STEP}, sizeof(int));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &(int){KEEPALIVE_MAX}, sizeof(int));
}

static void arm_idle_check(struct conn *c)
{
	uint64_t idle = c->worker->snapshot->config->limits.idle_timeout_ms;
	uint64_t quiet = loop_now_ms(c->worker->loop) - c->active_ms;
	uint64_t left = quiet < idle ? idle - quiet : 1;

	timer_start(c->worker->loop, &c->timer, left < IDLE_CHECK_MS ? left : IDLE_CHECK_MS);
}

static void check_idle(struct conn *c)
{
	uint64_t idle = c->worker->snapshot->config->limits.idle_timeout_ms;

	bring_counters(c);
	flow_count(&c->flow);
	if (c->doomed) {
		conn_abort(c, REASON_DEREGISTERED, "the host is no longer registered");
		return;
	}
	if (loop_now_ms(c->worker->loop) - c->active_ms >= idle) {
		log_end(c, REASON_NONE, "idle_timeout");
		conn_close(c, false);
		return;
	}
	if (!c->keepalive_on) { /* not earlier: most connections end before they need it */
		c->keepalive_on = true;
		set_keepalive(c->down.watch.fd);
		set_keepalive(c->up.watch.fd);
	}
	arm_idle_check(c);
}

static void on_timer(struct timer *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, timer);

	switch (c->state) {
	case CONN_HEADER:
	case CONN_SNIFF:
		conn_sniff_expired(c);
		break;
	case CONN_CONNECT:
		conn_connect_expired(c);
		break;
	case CONN_RELAY:
		check_idle(c);
		break;
	case CONN_REFUSE:
		conn_close(c, true);
		break;
	case CONN_CLOSED:
		break;
	}
}

void conn_relay(struct conn *c)
{
	c->state = CONN_RELAY;
	c->active_ms = loop_now_ms(c->worker->loop);
	if (!c->http) {
		c->out.run = c->in.run = PUMP_ALL;
		c->out.ok = c->out.len;
	}
	flow_opened(&c->flow, &c->worker->shared->observers);
	arm_idle_check(c);
	if (c->http) /* the first request lies there, not yet cleared */
		pump_judge(&c->out, http_relay_requests(c->http));
	conn_step(c);
}

/* A side failed. What the other one sent before that has been delivered, or follows now. */
static void relay_failed(struct conn *c, bool upstream)
{
	bool unanswered = c->in.bytes == 0;

	if (!upstream) {
		conn_abort(c, REASON_NONE, "downstream_reset");
		return;
	}
	if (c->http && http_relay_can_answer(c->http)) {
		enum reason reason =
			c->worker->dialer ? REASON_UPSTREAM_FAILED : REASON_TUNNEL_REFUSED;

		http_relay_end(c->http, reason, "upstream_reset");
		conn_refuse(c, reason, 0, NULL);
		return;
	}
	conn_abort(c, unanswered && !c->worker->dialer ? REASON_TUNNEL_REFUSED : REASON_NONE,
		   "upstream_reset");
}

/* True while it makes sense to go on at once. */
static bool step_relay_once(struct conn *c)
{
	struct pump_env *env = &c->worker->env;
	struct judge *requests = c->http ? http_relay_requests(c->http) : NULL;
	struct judge *responses = c->http ? http_relay_responses(c->http) : NULL;
	enum pump_result out, in;
	int error = 0;

	out = pump_step(env, &c->out, requests, &error);
	if (out == PUMP_FROM_FAILED) {
		relay_failed(c, false);
		return false;
	}
	if (out == PUMP_TO_FAILED) {
		/* What the upstream said before it went is still to be delivered. */
		c->aborted = true;
		c->out.shut = true;
		c->up.readable = true;
	}
	in = pump_step(env, &c->in, responses, &error);
	if (in == PUMP_FROM_FAILED || (in == PUMP_DONE && c->aborted)) {
		relay_failed(c, true);
		return false;
	}
	if (in == PUMP_TO_FAILED) {
		relay_failed(c, false);
		return false;
	}
	if (c->http && http_relay_after(c->http))
		return false;
	if (c->out.shut && in == PUMP_DONE) {
		log_end(c, REASON_NONE, NULL);
		conn_close(c, false);
		return false;
	}
	return out == PUMP_AGAIN || in == PUMP_AGAIN;
}

static void step_relay(struct conn *c)
{
	c->active_ms = loop_now_ms(c->worker->loop);
	if (step_relay_once(c))
		loop_later(c->worker->loop, &c->again);
}

void conn_step(struct conn *c)
{
	switch (c->state) {
	case CONN_HEADER:
		conn_read_header(c);
		break;
	case CONN_SNIFF:
		conn_sniff(c);
		break;
	case CONN_CONNECT:
		break; /* nothing more is read before it is known where to */
	case CONN_RELAY:
		step_relay(c);
		break;
	case CONN_REFUSE:
		step_refuse(c);
		break;
	case CONN_CLOSED:
		break;
	}
}
