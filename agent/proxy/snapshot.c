/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/snapshot.h"

#include <errno.h>
#include <stdlib.h>

int snapshot_new(struct snapshot **ret, const struct config *config, struct registry *registry,
		 struct gateways *gateways, struct peers *peers)
{
	struct snapshot *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	atomic_init(&s->refs, 1);
	s->config = config_ref(config);
	s->registry = registry_ref(registry);
	s->gateways = gateways_ref(gateways);
	s->peers = peers_ref(peers);
	*ret = s;
	return 0;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void snapshot_unref(struct snapshot *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	config_unref(s->config);
	registry_unref(s->registry);
	gateways_unref(s->gateways);
	peers_unref(s->peers);
	free(s);
}
