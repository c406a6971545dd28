/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* All that a worker needs to know from the control side: immutable, swapped whole. */
#include <stdatomic.h>

#include "config.h"
#include "registry/registry.h"
#include "proxy/peers.h"
#include "tunnel/gateways.h"

struct snapshot {
	atomic_uint refs;
	const struct config *config;
	struct registry *registry;
	struct gateways *gateways; /* empty list for a Gateway */
	struct peers *peers;       /* of a Gateway's port; NULL: anybody */
};

/* Takes a reference to each part. One reference, for the caller. -ENOMEM. */
int snapshot_new(struct snapshot **ret, const struct config *config, struct registry *registry,
		 struct gateways *gateways, struct peers *peers);
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s); /* NULL is fine; any thread */
