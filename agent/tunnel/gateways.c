/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel/gateways.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

int gateways_new(struct gateways **ret, size_t n)
{
	struct gateways *gws = calloc(1, sizeof(*gws) + n * sizeof(gws->list[0]));

	if (!gws)
		return -ENOMEM;
	atomic_init(&gws->refs, 1);
	gws->n = n;
	*ret = gws;
	return 0;
}

static bool was_healthy(const struct gateways *old, const struct addr *addr)
{
	for (size_t i = 0; old && i < old->n; i++) {
		for (size_t j = 0; j < old->list[i].n_endpoints; j++) {
			if (addr_equal(&old->list[i].endpoints[j].addr, addr))
				return atomic_load(&old->list[i].endpoints[j].healthy);
		}
	}
	return true;
}

int gateways_set(struct gateways *gws, size_t i, const char *name, const struct addr *endpoints,
		 size_t n_endpoints, const struct gateways *old)
{
	struct gateway *gw = &gws->list[i];

	gw->name = strdup(name);
	gw->endpoints = calloc(n_endpoints ?: 1, sizeof(gw->endpoints[0]));
	if (!gw->name || !gw->endpoints)
		return -ENOMEM; /* what is there goes with gateways_unref() */
	gw->n_endpoints = n_endpoints;
	for (size_t j = 0; j < n_endpoints; j++) {
		gw->endpoints[j].addr = endpoints[j];
		atomic_init(&gw->endpoints[j].healthy, was_healthy(old, &endpoints[j]));
	}
	return 0;
}

struct gateways *gateways_ref(struct gateways *gws)
{
	atomic_fetch_add_explicit(&gws->refs, 1, memory_order_relaxed);
	return gws;
}

void gateways_unref(struct gateways *gws)
{
	if (!gws || atomic_fetch_sub_explicit(&gws->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < gws->n; i++) {
		free((char *)gws->list[i].name);
		free(gws->list[i].endpoints);
	}
	free(gws);
}

size_t gateway_n_healthy(const struct gateway *gw)
{
	size_t n = 0;

	for (size_t i = 0; i < gw->n_endpoints; i++)
		n += atomic_load_explicit(&gw->endpoints[i].healthy, memory_order_relaxed);
	return n;
}

unsigned gateway_turn(struct gateway *gw)
{
	return atomic_fetch_add_explicit(&gw->next, 1, memory_order_relaxed);
}

struct gateway_endpoint *gateway_pick(struct gateway *gw, unsigned turn, uint64_t *tried)
{
	size_t n = gw->n_endpoints < GATEWAY_MAX_TRIED ? gw->n_endpoints : GATEWAY_MAX_TRIED;

	for (int healthy = 1; healthy >= 0; healthy--) {
		for (size_t i = 0; i < n; i++) {
			size_t at = (turn + i) % n;
			struct gateway_endpoint *e = &gw->endpoints[at];

			if (*tried >> at & 1 ||
			    atomic_load_explicit(&e->healthy, memory_order_relaxed) != healthy)
				continue;
			*tried |= 1ULL << at;
			return e;
		}
	}
	return NULL;
}
