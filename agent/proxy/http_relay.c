/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/http_relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/owned.h"
#include "proxy/refusal.h"
#include "sniff/http_head.h"

#define MAX_EXCHANGES 32 /* pipelined requests without an answer; more wait in the socket */
#define PATH_LOGGED   1024
#define TEXT_LOGGED   256

/* Where one side stands between two messages. */
enum side {
	SIDE_HEAD,
	SIDE_LENGTH, /* the pump's run is what is left of the body */
	SIDE_CHUNKED,
	SIDE_CLOSE,   /* until the stream ends */
	SIDE_UPGRADE, /* requests: whether the upstream takes the upgrade is not known yet */
	SIDE_OPAQUE,  /* after 101 */
};

/* A request that has been let through and its response, until that is complete. */
struct exchange {
	struct exchange *next;
	int64_t start_us;
	uint64_t start_ms, received, sent;
	int response_code; /* 0 until the final head has been seen */
	bool is_head, upgrade;
	const char *protocol;
	struct span method, path, authority, user_agent; /* in text */
	uint8_t text[];
};

struct http_relay {
	struct conn *conn;
	struct judge requests, responses;
	struct exchange *first, **last;
	unsigned n;
	enum side request_side, response_side;
	struct http_chunked request_chunks, response_chunks;
	/* What ends the relay, once the responses before it have been delivered. */
	struct {
		enum reason reason; /* NONE: nothing waits */
		int status;
		struct exchange *of; /* for its line; may be NULL */
		const char *detail;
	} refusal;
	const char *fatal; /* no answer is possible any more: reset */
};

/* ---- exchanges ---- */

static struct span keep(uint8_t **at, struct span from, size_t max)
{
	struct span kept = {*at, from.len < max ? from.len : max};

	if (kept.len > 0)
		memcpy(*at, from.p, kept.len);
	*at += kept.len;
	return kept;
}

static struct exchange *exchange_new(const struct http_relay *h, const struct http_request *req)
{
	struct exchange *e = malloc(sizeof(*e) + PATH_LOGGED + 3 * TEXT_LOGGED);
	struct timespec t;
	struct exchange *tight;
	size_t used;
	uint8_t *at;

	if (!e)
		return NULL;
	clock_gettime(CLOCK_REALTIME, &t);
	*e = (struct exchange){
		.start_us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000,
		.start_ms = loop_now_ms(h->conn->worker->loop),
		.is_head = req->is_head,
		.upgrade = req->upgrade_websocket,
		.protocol = req->minor ? "HTTP/1.1" : "HTTP/1.0",
	};
	at = e->text;
	e->method = keep(&at, req->method, TEXT_LOGGED);
	e->path = keep(&at, req->target, PATH_LOGGED);
	e->authority = keep(&at, req->raw_host, TEXT_LOGGED);
	e->user_agent = keep(&at, req->user_agent, TEXT_LOGGED);
	used = (size_t)(at - e->text);

	/* Most heads are short; the spans move along. */
	tight = realloc(e, sizeof(*e) + used);
	if (!tight)
		return e;
	e = tight;
	e->method.p = e->text;
	e->path.p = e->method.p + e->method.len;
	e->authority.p = e->path.p + e->path.len;
	e->user_agent.p = e->authority.p + e->authority.len;
	return e;
}

static void log_exchange(struct http_relay *h, const struct exchange *e, int code, bool allow,
			 enum reason reason, const char *detail)
{
	struct conn *c = h->conn;
	const struct observers *to = &c->worker->shared->observers;

	c->flow.logged = true;
	flow_log(&c->flow, to,
		 &(struct flow_line){
			 .method = e->method,
			 .path = e->path,
			 .authority = e->authority,
			 .user_agent = e->user_agent,
			 .protocol = e->protocol,
			 .response_code = code,
			 .received = e->received,
			 .sent = e->sent,
			 .start_us = e->start_us,
			 .duration_ms = loop_now_ms(c->worker->loop) - e->start_ms,
			 .detail = detail,
		 },
		 allow, reason);
	flow_count_request(&c->flow, to, code, response_flags_of(reason));
}

static void push(struct http_relay *h, struct exchange *e)
{
	*h->last = e;
	h->last = &e->next;
	h->n++;
}

static struct exchange *pop(struct http_relay *h)
{
	struct exchange *e = h->first;

	h->first = e->next;
	if (!h->first)
		h->last = &h->first;
	h->n--;
	return e;
}

/* The response in hand is complete. */
static void finish_exchange(struct http_relay *h)
{
	OWNED_MEM struct exchange *e = pop(h);
	struct pump *out = &h->conn->out;

	h->response_side = SIDE_HEAD;
	log_exchange(h, e, e->response_code, true, h->conn->flow.reason, NULL);
	if (h->request_side == SIDE_UPGRADE) /* it was answered with something else than 101 */
		h->request_side = SIDE_HEAD;
	if (out->paused && h->refusal.reason == REASON_NONE) {
		out->paused = false;
		loop_later(h->conn->worker->loop, &h->conn->again);
	}
}

/* ---- requests ---- */

static size_t stop(struct http_relay *h, enum reason reason, int status, struct exchange *of,
		   const char *detail)
{
	h->refusal.reason = reason;
	h->refusal.status = status;
	h->refusal.of = of;
	h->refusal.detail = detail;
	h->conn->out.paused = true;
	return 0;
}

static bool same_host(const struct conn *c, const struct http_request *req)
{
	return strcmp(c->flow.name ?: "", req->host) == 0;
}

/* Another host than the one this connection was let through for: is it one that may be reached at
 * all? */
static size_t stop_other_host(struct http_relay *h, const struct http_request *req,
			      struct exchange *e)
{
	const struct conn *c = h->conn;
	const struct snapshot *s = c->worker->snapshot;
	struct query q = {
		.dst = &c->flow.dst,
		.ns = c->flow.source->ns,
		.spoken = SPOKEN_HTTP,
		.name = span_of(req->host),
	};
	struct verdict v;

	decide(s->registry, s->config->outbound_mode, &q, &v);
	if (v.allow)
		return stop(h, REASON_NO_ROUTE, 421, e, "another host on one connection");
	return stop(h, v.reason, 403, e, NULL);
}

static void begin_request_body(struct http_relay *h, struct pump *p, const struct http_request *req,
			       struct exchange *e)
{
	switch (req->body) {
	case HTTP_BODY_LENGTH:
		p->run = req->content_length;
		e->received += req->content_length;
		break;
	case HTTP_BODY_CHUNKED:
		h->request_chunks = (struct http_chunked){0};
		h->request_side = SIDE_CHUNKED;
		break;
	case HTTP_BODY_NONE:
	case HTTP_BODY_UNTIL_CLOSE:
		if (req->upgrade_websocket)
			h->request_side = SIDE_UPGRADE;
		break;
	}
}

static size_t look_at_request(struct http_relay *h, struct pump *p, struct span in)
{
	struct conn *c = h->conn;
	struct http_request req = {0};
	enum sniff found;
	struct exchange *e;

	if (h->n >= MAX_EXCHANGES) {
		p->paused = true;
		return 0;
	}
	found = http_request_read(in, c->worker->snapshot->config->limits.hello_bytes, &req);
	if (found == SNIFF_NEED_MORE)
		return 0;
	e = exchange_new(h, &req);
	if (!e)
		return stop(h, REASON_LIMIT_EXCEEDED, 503, NULL, "out of memory");
	if (found == SNIFF_NOT || found == SNIFF_BAD || req.upgrade_h2c)
		return stop(h, req.is_connect ? REASON_POLICY_DENIED : REASON_MALFORMED_HELLO,
			    req.status ?: 400, e, req.why ?: "not HTTP/1");
	if (!same_host(c, &req))
		return stop_other_host(h, &req, e);

	e->received = req.head_len;
	push(h, e);
	begin_request_body(h, p, &req, e);
	return req.head_len;
}

static struct exchange *newest(struct http_relay *h)
{
	return h->n ? CONTAINER_OF(h->last, struct exchange, next) : NULL;
}

static size_t look_at_request_chunks(struct http_relay *h, struct pump *p, struct span in)
{
	struct exchange *e = newest(h); /* NULL when it has been answered already */
	size_t used = 0;

	switch (http_chunked_read(&h->request_chunks, in, &used)) {
	case CHUNKED_MORE:
		break;
	case CHUNKED_DATA:
		p->run = h->request_chunks.left;
		h->request_chunks.left = 0;
		if (e)
			e->received += p->run;
		break;
	case CHUNKED_END:
		h->request_side = SIDE_HEAD;
		break;
	case CHUNKED_BAD:
		h->fatal = "malformed chunk in a request";
		p->paused = true;
		return 0;
	}
	if (e)
		e->received += used;
	return used;
}

static size_t on_request_bytes(struct judge *j, struct pump *p, struct span in)
{
	struct http_relay *h = CONTAINER_OF(j, struct http_relay, requests);

	switch (h->request_side) {
	case SIDE_HEAD:
		return look_at_request(h, p, in);
	case SIDE_CHUNKED:
		return look_at_request_chunks(h, p, in);
	case SIDE_UPGRADE:
		p->paused = true; /* until the upstream has said yes or no */
		return 0;
	case SIDE_LENGTH:
	case SIDE_CLOSE:
	case SIDE_OPAQUE:
		break;
	}
	p->run = PUMP_ALL;
	return 0;
}

/* ---- responses ---- */

static size_t bad_response(struct http_relay *h, struct pump *p, const char *why)
{
	struct exchange *e = pop(h);

	p->paused = true;
	if (e->sent > 0) {
		h->fatal = why;
		free(e);
		return 0;
	}
	return stop(h, REASON_UPSTREAM_FAILED, 503, e, why);
}

static void begin_response_body(struct http_relay *h, struct pump *p,
				const struct http_response *res)
{
	switch (res->body) {
	case HTTP_BODY_NONE:
		finish_exchange(h);
		return;
	case HTTP_BODY_LENGTH:
		p->run = res->content_length;
		h->first->sent += res->content_length;
		h->response_side = SIDE_LENGTH;
		if (p->run == 0)
			finish_exchange(h);
		return;
	case HTTP_BODY_CHUNKED:
		h->response_chunks = (struct http_chunked){0};
		h->response_side = SIDE_CHUNKED;
		return;
	case HTTP_BODY_UNTIL_CLOSE:
		p->run = PUMP_ALL;
		h->response_side = SIDE_CLOSE;
		return;
	}
}

/* 101: from here on nobody reads along. */
static void go_opaque(struct http_relay *h, struct pump *in)
{
	struct pump *out = &h->conn->out;

	h->request_side = h->response_side = SIDE_OPAQUE;
	in->run = out->run = PUMP_ALL;
	out->paused = false;
	loop_later(h->conn->worker->loop, &h->conn->again);
}

static size_t look_at_response(struct http_relay *h, struct pump *p, struct span in)
{
	size_t max = h->conn->worker->snapshot->config->limits.hello_bytes;
	struct http_response res = {0};
	struct exchange *e = h->first;
	enum sniff found;

	if (!e) {
		/* Nobody asked: a server's last word, such as 408, before it closes. */
		h->response_side = SIDE_CLOSE;
		p->run = PUMP_ALL;
		h->conn->out.paused = true;
		return 0;
	}
	found = http_response_read(in, max, e->is_head, &res);
	if (found == SNIFF_NEED_MORE)
		return 0;
	if (found != SNIFF_FOUND)
		return bad_response(h, p, res.why ?: "malformed response");

	e->sent += res.head_len;
	if (res.status == 101) {
		if (!e->upgrade)
			return bad_response(h, p, "101 to a request that asked for no upgrade");
		e->response_code = 101;
		go_opaque(h, p);
		return res.head_len;
	}
	if (res.status < 200)
		return res.head_len;
	e->response_code = res.status;
	begin_response_body(h, p, &res);
	return res.head_len;
}

static size_t look_at_response_chunks(struct http_relay *h, struct pump *p, struct span in)
{
	struct exchange *e = h->first;
	size_t used = 0;

	switch (http_chunked_read(&h->response_chunks, in, &used)) {
	case CHUNKED_MORE:
		e->sent += used;
		break;
	case CHUNKED_DATA:
		p->run = h->response_chunks.left;
		h->response_chunks.left = 0;
		e->sent += used + p->run;
		break;
	case CHUNKED_END:
		e->sent += used;
		finish_exchange(h);
		break;
	case CHUNKED_BAD:
		h->fatal = "malformed chunk in a response";
		p->paused = true;
		return 0;
	}
	return used;
}

static size_t on_response_bytes(struct judge *j, struct pump *p, struct span in)
{
	struct http_relay *h = CONTAINER_OF(j, struct http_relay, responses);

	if (h->response_side == SIDE_LENGTH) /* its run is used up */
		finish_exchange(h);
	switch (h->response_side) {
	case SIDE_HEAD:
		return look_at_response(h, p, in);
	case SIDE_CHUNKED:
		return look_at_response_chunks(h, p, in);
	case SIDE_LENGTH:
	case SIDE_CLOSE:
	case SIDE_UPGRADE:
	case SIDE_OPAQUE:
		break;
	}
	p->run = PUMP_ALL;
	return 0;
}

/* ---- the whole ---- */

int http_relay_new(struct http_relay **ret, struct conn *c)
{
	struct http_relay *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->conn = c;
	h->requests.look = on_request_bytes;
	h->responses.look = on_response_bytes;
	h->last = &h->first;
	c->flow.http = true;
	*ret = h;
	return 0;
}

struct judge *http_relay_requests(struct http_relay *h)
{
	return &h->requests;
}

struct judge *http_relay_responses(struct http_relay *h)
{
	return &h->responses;
}

static void refuse_now(struct http_relay *h)
{
	OWNED_MEM struct exchange *e = h->refusal.of;
	struct conn *c = h->conn;

	h->refusal.of = NULL;
	if (e)
		log_exchange(h, e, h->refusal.status, false, h->refusal.reason, h->refusal.detail);
	/* Those after it, which a broken upstream will not answer. */
	http_relay_end(h, h->refusal.reason, h->refusal.detail);
	conn_refuse(c, h->refusal.reason, h->refusal.status, NULL);
}

bool http_relay_after(struct http_relay *h)
{
	struct conn *c = h->conn;
	bool waits;

	if (h->response_side == SIDE_LENGTH && c->in.run == 0)
		finish_exchange(h);
	if (h->response_side == SIDE_CLOSE && c->in.shut && h->n > 0) {
		h->first->sent = c->in.bytes;
		finish_exchange(h);
	}
	if (h->fatal) {
		conn_abort(c, REASON_UPSTREAM_FAILED, h->fatal);
		return true;
	}
	if (h->refusal.reason == REASON_NONE)
		return false;
	if (c->in.shut || c->aborted) { /* nobody will answer those that it waits for */
		conn_abort(c, h->refusal.reason, h->refusal.detail);
		return true;
	}
	waits = h->n > 0 && h->refusal.reason != REASON_UPSTREAM_FAILED;
	if (waits || c->in.off < c->in.ok || c->in.pipe)
		return false;
	refuse_now(h);
	return true;
}

bool http_relay_can_answer(const struct http_relay *h)
{
	return h->n > 0 && h->conn->in.bytes == 0;
}

bool http_relay_end(struct http_relay *h, enum reason reason, const char *detail)
{
	bool answered = reason == REASON_UPSTREAM_FAILED || reason == REASON_TUNNEL_REFUSED;
	bool logged = h->refusal.of || h->n > 0;

	if (h->refusal.of) {
		OWNED_MEM struct exchange *e = h->refusal.of;

		h->refusal.of = NULL;
		log_exchange(h, e, h->refusal.status, false, h->refusal.reason, h->refusal.detail);
	}
	while (h->n > 0) {
		OWNED_MEM struct exchange *e = pop(h);
		int code = e->response_code ?: answered ? http_status_of(reason) : 0;

		if (h->request_side == SIDE_OPAQUE) {
			e->received = h->conn->out.bytes;
			e->sent = h->conn->in.bytes;
		}
		if (reason == REASON_NONE)
			log_exchange(h, e, code, true, h->conn->flow.reason, detail);
		else
			log_exchange(h, e, code, false, reason, detail);
	}
	return logged;
}

void http_relay_free(struct http_relay *h)
{
	if (!h)
		return;
	while (h->n > 0)
		free(pop(h));
	free(h->refusal.of);
	free(h);
}
