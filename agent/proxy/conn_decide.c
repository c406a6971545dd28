/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "proxy/conn.h"
#include "proxy/http_relay.h"
#include "sniff/host.h"
#include "sniff/http_head.h"
#include "sniff/proxy_v2.h"
#include "sniff/tls_hello.h"

#define TLS_HANDSHAKE 22 /* RFC 8446 5.1: the record type of a ClientHello */

/* What the first bytes turned out to be. */
struct opening {
	enum spoken spoken;
	struct span name; /* normalised; empty: none */
	struct flow_line line;
};

/* ---- verdict ---- */

static void verdict_of(struct conn *c, const struct registry *reg, enum outbound_mode mode,
		       struct verdict *ret)
{
	const struct flow *f = &c->flow;
	struct query q = {
		.dst = &f->dst,
		.ns = f->source ? f->source->ns : "",
		.spoken = f->spoken,
		.name = f->name ? span_of(f->name) : (struct span){0},
	};

	/* Not for one that a name let through: an address registered later is no substitute. */
	if (c->early && !f->by_name && decide_early(reg, q.dst, q.ns, ret))
		return;
	if (c->told)
		decide_told(reg, mode, &q, ret);
	else
		decide(reg, mode, &q, ret);
}

/* Keeps what the verdict rests on for as long as the way is being made. */
static int take_verdict(struct conn *c, const struct verdict *v)
{
	c->flow.allow = v->allow;
	c->flow.reason = v->reason;
	c->flow.by_name = v->by_name;
	if (!v->allow)
		return 0;
	c->snapshot = snapshot_ref(c->worker->snapshot);
	c->service = v->service;
	return flow_set_service(&c->flow, v->service);
}

void conn_judge_again(struct conn *c)
{
	const struct snapshot *s = c->worker->snapshot;
	struct verdict v;

	if ((c->state != CONN_CONNECT && c->state != CONN_RELAY) || !c->flow.allow)
		return;
	verdict_of(c, s->registry, s->config->outbound_mode, &v);
	if (v.allow) {
		c->doomed = false;
		return;
	}
	if (c->doomed)
		return;
	if (c->state == CONN_CONNECT || s->config->limits.deregister_grace_ms == 0) {
		conn_abort(c, REASON_DEREGISTERED, reason_str(v.reason));
		return;
	}
	c->doomed = true;
	timer_start(c->worker->loop, &c->timer, s->config->limits.deregister_grace_ms);
}

/* ---- reading ---- */

/* 1: there is more to look at; 0: not yet; -errno: the client is gone (-ECONNRESET for an early
 * end). */
static int read_more(struct conn *c)
{
	struct worker *w = c->worker;
	ssize_t n;
	int r;

	if (!c->down.readable)
		return 0;
	n = recv(c->down.watch.fd, w->env.scratch, PUMP_SCRATCH, 0);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n < 0 && errno == EAGAIN) {
		sock_drained(w->loop, &c->down);
		return 0;
	}
	if (n < 0)
		return -errno;
	if (n == 0) {
		c->out.eof = true;
		return -ECONNRESET;
	}
	if (n < (ssize_t)PUMP_SCRATCH && !c->down.hup)
		sock_drained(w->loop, &c->down);
	c->out.bytes += (uint64_t)n;
	r = pump_put(&c->out, w->env.scratch, (size_t)n, 0);
	return r < 0 ? r : 1;
}

static struct span waiting(const struct conn *c)
{
	return (struct span){c->out.buf + c->out.off, c->out.len - c->out.off};
}

static void client_gone(struct conn *c)
{
	conn_refuse(c, REASON_MALFORMED_HELLO, 0,
		    &(struct flow_line){.detail = c->out.bytes ? "closed within the first message"
							       : "closed before the first byte"});
}

/* ---- the gateway's end of the tunnel ---- */

static void header_bad(struct conn *c, const char *why)
{
	atomic_fetch_add_explicit(&c->worker->shared->header_refused, 1, memory_order_relaxed);
	conn_refuse(c, REASON_TUNNEL_REFUSED, 0, &(struct flow_line){.detail = why});
}

/* A probe is answered by an orderly end. */
static void answer_probe(struct conn *c)
{
	c->flow.logged = true;
	c->out.eof = c->in.eof = true;
	conn_end_quietly(c);
}

static int source_of(const struct proxy_v2 *header, struct identity **ret)
{
	const char *slash = strchr(header->pod, '/');
	char ns[sizeof(header->pod)] = "";

	if (slash)
		memcpy(ns, header->pod, (size_t)(slash - header->pod));
	return identity_new(ret, ns, slash ? slash + 1 : header->pod, NULL, header->principal);
}

static int take_header(struct conn *c, const struct proxy_v2 *header)
{
	struct flow *f = &c->flow;
	int r;

	r = source_of(header, &f->source);
	if (r == 0 && header->authority[0])
		r = flow_set_name(f, span_of(header->authority));
	if (r < 0)
		return r;
	if (header->unique_id_len == REQUEST_ID_BYTES)
		memcpy(f->request_id, header->unique_id, REQUEST_ID_BYTES);
	f->remote = header->src;
	f->dst = header->dst;
	c->told = header->authority[0];
	c->out.off += (uint32_t)header->len;
	c->out.ok = c->out.off;
	c->out.bytes -= header->len;
	return 0;
}

/* What a payload looks like that an agent has found a name in; for the answer and the log only. */
static enum spoken guess(uint8_t first)
{
	if (first == TLS_HANDSHAKE)
		return SPOKEN_TLS;
	return (first >= 'A' && first <= 'Z') || (first >= 'a' && first <= 'z') ? SPOKEN_HTTP
										: SPOKEN_OTHER;
}

/* The agent has decided by name: that name is judged again, whatever the payload is. */
static void decide_by_header(struct conn *c)
{
	const struct snapshot *s = c->worker->snapshot;
	struct verdict v;

	verdict_of(c, s->registry, s->config->outbound_mode, &v);
	if (v.service && protocol_is_http(v.service->protocol))
		c->flow.spoken = SPOKEN_HTTP;
	else if (v.service && protocol_is_tls(v.service->protocol))
		c->flow.spoken = SPOKEN_TLS;
	else if (c->out.len > c->out.off)
		c->flow.spoken = guess(c->out.buf[c->out.off]);
	if (take_verdict(c, &v) < 0)
		conn_abort(c, REASON_LIMIT_EXCEEDED, "out of memory");
	else if (!v.allow)
		conn_refuse(c, v.reason, 0, &(struct flow_line){0});
	else
		conn_connect(c);
}

void conn_read_header(struct conn *c)
{
	struct proxy_v2 header;
	int r = read_more(c);

	if (r < 0) {
		if (c->out.bytes == 0) /* somebody tried the port */
			answer_probe(c);
		else
			header_bad(c, "closed within the PROXY header");
		return;
	}
	if (r == 0)
		return;

	switch (proxy_v2_read(waiting(c), &header)) {
	case SNIFF_NEED_MORE:
		if (c->down.readable)
			loop_later(c->worker->loop, &c->again);
		return;
	case SNIFF_FOUND:
		break;
	case SNIFF_NO_NAME:
	case SNIFF_NOT:
	case SNIFF_BAD:
		header_bad(c, header.why ?: "no PROXY header");
		return;
	}
	if (header.local) {
		answer_probe(c);
		return;
	}
	if (!header.has_addrs) {
		header_bad(c, "PROXY header without addresses");
		return;
	}
	if (take_header(c, &header) < 0) {
		conn_abort(c, REASON_LIMIT_EXCEEDED, "out of memory");
		return;
	}
	if (c->told) {
		decide_by_header(c);
		return;
	}
	c->state = CONN_SNIFF;
	conn_sniff(c);
}

/* ---- sniffing ---- */

static void decided(struct conn *c, const struct opening *o)
{
	const struct snapshot *s = c->worker->snapshot;
	struct verdict v;
	int r = 0;

	c->flow.spoken = o->spoken;
	if (o->name.len)
		r = flow_set_name(&c->flow, o->name);
	if (r == 0) {
		verdict_of(c, s->registry, s->config->outbound_mode, &v);
		r = take_verdict(c, &v);
	}
	if (r == 0 && v.allow && o->spoken == SPOKEN_HTTP)
		r = http_relay_new(&c->http, c);
	if (r < 0)
		conn_abort(c, REASON_LIMIT_EXCEEDED, "out of memory");
	else if (!v.allow)
		conn_refuse(c, v.reason, 0, &o->line);
	else
		conn_connect(c);
}

static void decide_tls(struct conn *c, const struct tls_hello *hello)
{
	struct span raw = span_of(hello->raw_name);

	decided(c, &(struct opening){.spoken = SPOKEN_TLS,
				     .name = span_of(hello->name),
				     .line = {.server_name = raw}});
}

static void decide_http(struct conn *c, enum sniff found, const struct http_request *req)
{
	struct flow_line line = {
		.method = req->method,
		.path = req->target,
		.authority = req->raw_host,
		.user_agent = req->user_agent,
	};

	c->flow.spoken = SPOKEN_HTTP;
	if (found == SNIFF_BAD || req->upgrade_h2c) {
		line.detail = req->why ?: "h2c upgrade";
		conn_refuse(c, req->is_connect ? REASON_POLICY_DENIED : REASON_MALFORMED_HELLO,
			    req->status ?: 400, &line);
		return;
	}
	decided(c,
		&(struct opening){.spoken = SPOKEN_HTTP, .name = span_of(req->host), .line = line});
}

static void wait_or_go_on(struct conn *c)
{
	if (c->down.readable)
		loop_later(c->worker->loop, &c->again);
}

static void look_for_http(struct conn *c, size_t max)
{
	struct http_request req = {0};
	enum sniff found = http_request_read(waiting(c), max, &req);

	switch (found) {
	case SNIFF_NEED_MORE:
		c->flow.spoken = SPOKEN_HTTP; /* for a time-out's answer */
		wait_or_go_on(c);
		return;
	case SNIFF_NOT:
		decided(c, &(struct opening){.spoken = SPOKEN_OTHER});
		return;
	case SNIFF_FOUND:
	case SNIFF_NO_NAME:
	case SNIFF_BAD:
		decide_http(c, found, &req);
		return;
	}
}

static void look(struct conn *c)
{
	size_t max = c->worker->snapshot->config->limits.hello_bytes;
	struct tls_hello hello = {0};

	switch (tls_hello_read(waiting(c), max, &hello)) {
	case SNIFF_NEED_MORE:
		c->flow.spoken = SPOKEN_TLS;
		wait_or_go_on(c);
		return;
	case SNIFF_NOT:
		look_for_http(c, max);
		return;
	case SNIFF_BAD:
		c->flow.spoken = SPOKEN_TLS;
		conn_refuse(c, REASON_MALFORMED_HELLO, 0,
			    &(struct flow_line){.detail = hello.why,
						.server_name = span_of(hello.raw_name)});
		return;
	case SNIFF_FOUND:
	case SNIFF_NO_NAME:
		decide_tls(c, &hello);
		return;
	}
}

void conn_sniff(struct conn *c)
{
	const struct snapshot *s = c->worker->snapshot;
	struct verdict v;
	int r;

	if (!c->early) { /* once, before the first byte */
		c->early = true;
		if (decide_early(s->registry, &c->flow.dst, c->flow.source->ns, &v)) {
			if (take_verdict(c, &v) < 0)
				conn_abort(c, REASON_LIMIT_EXCEEDED, "out of memory");
			else
				conn_connect(c);
			return;
		}
	}
	r = read_more(c);
	if (r < 0)
		client_gone(c);
	else if (r > 0 || c->out.len > c->out.off)
		look(c);
}

void conn_sniff_expired(struct conn *c)
{
	if (c->state == CONN_HEADER) {
		header_bad(c, "no PROXY header in time");
		return;
	}
	conn_refuse(c, REASON_HELLO_TIMEOUT, 0,
		    &(struct flow_line){.detail = c->out.bytes ? "the first message is not complete"
							       : "the client said nothing"});
}
