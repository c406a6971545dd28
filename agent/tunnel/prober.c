/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/prober.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "sniff/proxy_v2.h"

#define PROBE_INTERVAL_MS 1000
#define PROBE_TIMEOUT_MS  900

struct probe {
	struct prober *prober;
	const struct gateway *gateway;
	struct gateway_endpoint *endpoint;
	struct watch watch;
	struct timer timer; /* while idle: the next start; while asking: the patience with it */
	bool sent;
};

struct prober {
	struct loop *loop;
	struct gateways *gws;
	struct probe *probes;
	size_t n;
	struct later reap; /* probes of a former list are freed after the batch */
	struct probe *old;
};

static void probe_end(struct probe *p, bool healthy, int r)
{
	char text[ADDR_TEXT];

	watch_close(&p->watch);
	timer_start(p->prober->loop, &p->timer, PROBE_INTERVAL_MS);
	if (atomic_exchange(&p->endpoint->healthy, healthy) == healthy)
		return;
	addr_print(&p->endpoint->addr, text);
	if (healthy)
		log_info("gateway '%s': endpoint %s answers", p->gateway->name, text);
	else
		log_warn(r, "gateway '%s': endpoint %s does not answer", p->gateway->name, text);
}

static int send_local(struct probe *p)
{
	static const struct proxy_v2 local = {.local = true};
	uint8_t header[PROXY_V2_MAX];
	int n = proxy_v2_write(&local, header);

	if (n < 0)
		return n;
	if (send(p->watch.fd, header, (size_t)n, MSG_NOSIGNAL) != n ||
	    shutdown(p->watch.fd, SHUT_WR) < 0)
		return -errno;
	p->sent = true;
	return 0;
}

static void on_event(struct watch *w, uint32_t events)
{
	struct probe *p = CONTAINER_OF(w, struct probe, watch);
	char answer[256];
	ssize_t n;
	int r;

	if (!p->sent) {
		int error = 0;
		socklen_t len = sizeof(error);

		if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
			return;
		getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &len);
		r = error ? -error : send_local(p);
		if (r == 0)
			r = watch_change(p->prober->loop, w, EPOLLIN | EPOLLRDHUP);
		/* Anew: if we had no turn until now, it has not had one either. */
		if (r == 0)
			timer_start(p->prober->loop, &p->timer, PROBE_TIMEOUT_MS);
		if (r < 0)
			probe_end(p, false, r);
		return;
	}
	n = recv(w->fd, answer, sizeof(answer), 0);
	if (n == 0)
		probe_end(p, true, 0);
	else if (n < 0 && errno != EAGAIN)
		probe_end(p, false, -errno);
}

static void probe_start(struct probe *p)
{
	struct sockaddr_storage sa;
	socklen_t len = addr_to_sockaddr(&p->endpoint->addr, &sa);
	int r;

	p->sent = false;
	p->watch.fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->watch.fd < 0) {
		probe_end(p, false, -errno);
		return;
	}
	if (connect(p->watch.fd, (struct sockaddr *)&sa, len) < 0 && errno != EINPROGRESS)
		r = -errno;
	else
		r = watch_add(p->prober->loop, &p->watch, EPOLLOUT);
	if (r < 0)
		probe_end(p, false, r);
	else
		timer_start(p->prober->loop, &p->timer, PROBE_TIMEOUT_MS);
}

static void on_expire(struct timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, timer);

	if (p->watch.fd >= 0)
		probe_end(p, false, -ETIMEDOUT);
	else
		probe_start(p);
}

static void reap(struct later *l)
{
	struct prober *prober = CONTAINER_OF(l, struct prober, reap);

	free(prober->old);
	prober->old = NULL;
}

int prober_new(struct prober **ret, struct loop *loop)
{
	struct prober *prober = calloc(1, sizeof(*prober));

	if (!prober)
		return -ENOMEM;
	prober->loop = loop;
	prober->reap.run = reap;
	*ret = prober;
	return 0;
}

static void stop_all(struct prober *prober)
{
	for (size_t i = 0; i < prober->n; i++) {
		watch_close(&prober->probes[i].watch);
		timer_stop(prober->loop, &prober->probes[i].timer);
	}
	prober->n = 0;
	gateways_unref(prober->gws);
	prober->gws = NULL;
}

int prober_set(struct prober *prober, struct gateways *gws)
{
	struct probe *probes;
	size_t n = 0;

	for (size_t i = 0; i < gws->n; i++)
		n += gws->list[i].n_endpoints;
	probes = calloc(n ?: 1, sizeof(*probes));
	if (!probes)
		return -ENOMEM;

	stop_all(prober);
	free(prober->old); /* idle since an earlier batch, or never watched */
	prober->old = prober->probes;
	loop_later(prober->loop, &prober->reap);
	prober->probes = probes;
	prober->gws = gateways_ref(gws);
	for (size_t i = 0; i < gws->n; i++) {
		for (size_t j = 0; j < gws->list[i].n_endpoints; j++) {
			struct probe *p = &probes[prober->n++];

			p->prober = prober;
			p->gateway = &gws->list[i];
			p->endpoint = &gws->list[i].endpoints[j];
			p->watch = (struct watch){.fd = -1, .on_event = on_event};
			p->timer.on_expire = on_expire;
			probe_start(p);
		}
	}
	return 0;
}

void prober_free(struct prober *prober)
{
	if (!prober)
		return;
	stop_all(prober);
	free(prober->probes);
	free(prober->old);
	free(prober);
}
