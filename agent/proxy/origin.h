/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where an accepted connection of a pod comes from and was meant to go, as the listener that took
 * it knows. Either the listener is one pod's own (rules in the pod redirect there), or all pods
 * share it and somebody else tells them apart.
 */
#include "base/addr.h"
#include "base/identity.h"

struct origin {
	void *ctx;
	/* *ret_source is a reference. -ENOENT: of nobody that is enrolled. Called by workers, at
	 * once; must not block.
	 */
	int (*find)(void *ctx, int fd, const struct addr *peer, struct identity **ret_source,
		    struct addr *ret_dst);
};

#define PROOF_BYTES 16

/* A destination that stands for the agent itself: whoever connects there is told the token, and has
 * proved that what a pod sends out reaches this agent. Of the networks that are kept for benchmarks
 * (RFC 2544, RFC 5180): no host on the internet has them.
 */
struct proof {
	struct addr v4, v6;
	uint8_t token[PROOF_BYTES]; /* random, another in each life of the agent */
};
