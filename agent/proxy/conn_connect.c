/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "proxy/conn.h"
#include "sniff/http_head.h"
#include "sniff/proxy_v2.h"

#define ATTEMPT_MS 500 /* one gateway endpoint; then the next is tried */

/* No way was found. The request that asked for it still waits in the pump, and belongs in the line.
 */
static void failed(struct conn *c, enum reason reason, const char *detail)
{
	size_t max = c->worker->snapshot->config->limits.hello_bytes;
	struct span in = {c->out.buf + c->out.ok, c->out.len - c->out.ok};
	struct flow_line line = {.detail = detail};
	struct http_request req = {0};

	if (c->http && http_request_read(in, max, &req) == SNIFF_FOUND) {
		line.method = req.method;
		line.path = req.target;
		line.authority = req.raw_host;
		line.user_agent = req.user_agent;
	}
	conn_refuse(c, reason, 0, &line);
}

static void connected(struct conn *c)
{
	snapshot_unref(TAKE_PTR(c->snapshot));
	c->service = NULL;
	c->up.writable = true;
	conn_relay(c);
}

/* ---- gateway: to the destination ---- */

static void on_dialled(struct dial *d, int fd, enum reason reason, int r, const struct addr *dst,
		       const struct addr *src)
{
	struct conn *c = CONTAINER_OF(d, struct conn, dial);
	const char *detail = NULL;

	c->flow.upstream = *dst;
	c->flow.upstream_local = *src;
	if (fd < 0) {
		if (r < 0)
			detail = strerrordesc_np(-r);
		failed(c, reason, detail);
		return;
	}
	c->up.watch.fd = fd;
	r = watch_change(c->worker->loop, &c->up.watch,
			 SOCK_EDGES); /* keep_watch: no new registration */
	if (r < 0)
		failed(c, REASON_UPSTREAM_FAILED, strerrordesc_np(-r));
	else
		connected(c);
}

/* A tunnel, ours or another gateway's, which nobody registered: who may dial anything (ALLOW_ANY)
 * could go out and come in again as whoever the header says.
 */
static bool is_tunnel(const struct conn *c)
{
	const struct config *config = c->snapshot->config;

	for (size_t i = 0; i < config->tunnel.n_listen; i++) {
		if (config->tunnel.listen[i].port == c->flow.dst.port)
			return true;
	}
	return false;
}

static void connect_gateway(struct conn *c)
{
	struct dial_target target = {
		.service = c->service,
		.name = c->flow.by_name ? c->flow.name : "",
		.dst = &c->flow.dst,
	};
	int r;

	if (!c->service && is_tunnel(c)) {
		failed(c, REASON_PRIVATE_DESTINATION, "a tunnel's port that is not registered");
		return;
	}
	timer_stop(c->worker->loop, &c->timer); /* the dialer keeps the time */
	c->dial.done = on_dialled;
	c->dial.keep_watch = true;
	r = dial_start(c->worker->dialer, &c->dial, &target);
	if (r < 0)
		failed(c, REASON_UPSTREAM_FAILED, strerrordesc_np(-r));
}

/* ---- node: to a gateway ---- */

static struct gateway *gateway_of(const struct conn *c)
{
	return c->snapshot->gateways->n > 0 ? &c->snapshot->gateways->list[0] : NULL;
}

static int header_of(const struct conn *c, uint8_t buf[static PROXY_V2_MAX])
{
	const struct flow *f = &c->flow;
	struct proxy_v2 header = {
		.has_addrs = true,
		.src = f->remote,
		.dst = f->dst,
		.unique_id_len = REQUEST_ID_BYTES,
		.has_crc = true,
	};

	if (f->by_name)
		snprintf(header.authority, sizeof(header.authority), "%s", f->name);
	snprintf(header.principal, sizeof(header.principal), "%s", f->source->principal);
	snprintf(header.pod, sizeof(header.pod), "%s/%s", f->source->ns, f->source->pod);
	memcpy(header.unique_id, f->request_id, REQUEST_ID_BYTES);
	return proxy_v2_write(&header, buf);
}

/* Header and first message leave in one segment. */
static void tunnel_opened(struct conn *c)
{
	uint8_t header[PROXY_V2_MAX];
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int n = header_of(c, header);

	if (n < 0 || pump_put_front(&c->out, header, (size_t)n) < 0) {
		failed(c, REASON_LIMIT_EXCEEDED, "cannot write the PROXY header");
		return;
	}
	if (getsockname(c->up.watch.fd, (struct sockaddr *)&sa, &len) == 0)
		addr_from_sockaddr(&sa, &c->flow.upstream_local);
	connected(c);
}

static int try_endpoint(struct conn *c, const struct gateway_endpoint *e)
{
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(&e->addr, &sa);
	int r;

	c->up.watch.fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->up.watch.fd < 0)
		return -errno;
	setsockopt(c->up.watch.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	if (connect(c->up.watch.fd, (struct sockaddr *)&sa, len) < 0 && errno != EINPROGRESS)
		r = -errno;
	else
		r = watch_add(c->worker->loop, &c->up.watch, SOCK_EDGES);
	if (r < 0)
		watch_close(&c->up.watch);
	return r;
}

/* Tries endpoint after endpoint; nothing has been sent to any of them before one is connected. */
static void next_endpoint(struct conn *c)
{
	struct gateway *gw = gateway_of(c);
	struct gateway_endpoint *e;

	while (gw && (e = gateway_pick(gw, c->turn, &c->tried))) {
		c->flow.upstream = e->addr;
		c->trying = e;
		if (try_endpoint(c, e) == 0) {
			timer_start(c->worker->loop, &c->timer, ATTEMPT_MS);
			return;
		}
		atomic_store_explicit(&e->healthy, false, memory_order_relaxed);
	}
	memset(&c->flow.upstream, 0, sizeof(c->flow.upstream));
	failed(c, REASON_GATEWAY_UNAVAILABLE, "no gateway endpoint answers");
}

static void endpoint_failed(struct conn *c)
{
	atomic_store_explicit(&c->trying->healthy, false, memory_order_relaxed);
	watch_close(&c->up.watch);
	c->up = (struct sock){.watch = c->up.watch};
	next_endpoint(c);
}

void conn_on_up_event(struct conn *c, uint32_t events)
{
	if (events & (EPOLLERR | EPOLLHUP))
		endpoint_failed(c);
	else if (events & EPOLLOUT)
		tunnel_opened(c);
}

void conn_connect_expired(struct conn *c)
{
	endpoint_failed(c);
}

/* ---- both ---- */

void conn_connect(struct conn *c)
{
	struct gateway *gw;

	c->state = CONN_CONNECT;
	if (c->worker->shared->role == ROLE_GATEWAY) {
		connect_gateway(c);
		return;
	}
	gw = gateway_of(c);
	if (gw) {
		c->turn = gateway_turn(gw);
		c->flow.gateway = gw->name;
		c->gateways = gateways_ref(c->snapshot->gateways);
	}
	next_endpoint(c);
}

void conn_connect_cancel(struct conn *c)
{
	dial_cancel(&c->dial);
	snapshot_unref(TAKE_PTR(c->snapshot));
	c->service = NULL;
}
