/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The gateways a node can reach, and which of their endpoints answer. The list is immutable and
 * shared by reference; health is one atomic per endpoint, written by the prober (control thread)
 * and by whoever fails to connect, read by workers.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

struct gateway_endpoint {
	struct addr addr;
	atomic_bool healthy; /* true until shown otherwise: a node that starts must not refuse */
};

struct gateway {
	const char *name; /* never NULL */
	struct gateway_endpoint *endpoints;
	size_t n_endpoints;
	atomic_uint next; /* round robin */
};

struct gateways {
	atomic_uint refs;
	size_t n;
	struct gateway list[];
};

/* An empty list of `n` gateways to be filled by gateways_set(). One reference. -ENOMEM. */
int gateways_new(struct gateways **ret, size_t n);

/* Copies; `old` (may be NULL) lends the health of endpoints with the same address. -ENOMEM. */
int gateways_set(struct gateways *gws, size_t i, const char *name, const struct addr *endpoints,
		 size_t n_endpoints, const struct gateways *old);

struct gateways *gateways_ref(struct gateways *gws);
void gateways_unref(struct gateways *gws); /* NULL is fine; any thread */

size_t gateway_n_healthy(const struct gateway *gw);

/* Where a new connection starts: rises by one each time, over all threads. */
unsigned gateway_turn(struct gateway *gw);

#define GATEWAY_MAX_TRIED \
	64 /* endpoints that one connection tries; the next connection starts elsewhere */

/* The next endpoint for a connection whose turn is `turn` and that has tried those in *tried (a bit
 * each, 0 at the start; the chosen one is added): the healthy ones first, round robin, then the
 * others, since a stale mark must not keep a live gateway out. NULL when all were tried.
 */
struct gateway_endpoint *gateway_pick(struct gateway *gw, unsigned turn, uint64_t *tried);
