/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/target.h"

#include <errno.h>

static int plan_name(const char *name, uint16_t port, struct hop *ret)
{
	*ret = (struct hop){.host = name, .addr.port = port};
	return 1;
}

static int plan_addr(const struct addr *a, uint16_t port, struct hop *ret)
{
	*ret = (struct hop){.addr = *a};
	ret->addr.port = port;
	return 1;
}

static size_t draw_endpoint(const struct service *s, uint64_t draw)
{
	uint64_t sum = 0;
	size_t i = 0;

	for (size_t k = 0; k < s->n_endpoints; k++)
		sum += s->endpoints[k].weight;
	if (sum == 0)
		return 0;
	draw %= sum;
	while (draw >= s->endpoints[i].weight)
		draw -= s->endpoints[i++].weight;
	return i;
}

static int plan_endpoints(const struct service *s, uint64_t draw, struct hop *ret)
{
	size_t first, n = s->n_endpoints;

	if (n == 0)
		return -EINVAL;
	first = draw_endpoint(s, draw);
	if (n > TARGET_MAX_HOPS)
		n = TARGET_MAX_HOPS;
	for (size_t i = 0; i < n; i++) {
		const struct endpoint *e = &s->endpoints[(first + i) % s->n_endpoints];

		ret[i] = (struct hop){.host = e->host, .addr = e->addr, .endpoint = !e->host};
	}
	return (int)n;
}

/* The client chose this address, so it must be one that the entry names. */
static bool is_registered(const struct service *s, const struct addr *a)
{
	for (size_t i = 0; i < s->n_addresses; i++)
		if (cidr_contains(&s->addresses[i], a))
			return true;
	return false;
}

static int plan_none(const struct dial_target *t, uint16_t port, struct hop *ret)
{
	if (t->name[0])
		return plan_name(t->name, port, ret);
	if (!is_registered(t->service, t->dst))
		return -EINVAL;
	return plan_addr(t->dst, port, ret);
}

static int plan_dns(const struct dial_target *t, uint16_t port, uint64_t draw, struct hop *ret)
{
	const struct service *s = t->service;

	if (s->n_endpoints > 0)
		return plan_endpoints(s, draw, ret);
	if (t->name[0])
		return plan_name(t->name, port, ret);
	if (s->host[0] == '*') /* decided by address, and which of the names nobody said */
		return -EINVAL;
	return plan_name(s->host, port, ret);
}

int target_plan(const struct dial_target *t, uint64_t draw, struct hop ret[TARGET_MAX_HOPS])
{
	const struct service *s = t->service;
	uint16_t port = s && s->target_port ? s->target_port : t->dst->port;

	if (!s)
		return t->name[0] ? plan_name(t->name, port, ret) : plan_addr(t->dst, port, ret);
	switch (s->resolution) {
	case RESOLUTION_NONE:
		return plan_none(t, port, ret);
	case RESOLUTION_STATIC:
		return plan_endpoints(s, draw, ret);
	case RESOLUTION_DNS:
	case RESOLUTION_DNS_ROUND_ROBIN:
	case RESOLUTION_DYNAMIC_DNS:
		return plan_dns(t, port, draw, ret);
	case RESOLUTION_N_:
		break;
	}
	return -EINVAL;
}
