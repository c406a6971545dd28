/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What to try for a checked destination, and in which order. Pure. */
#include "gateway/dial.h"

#define TARGET_MAX_HOPS 16 /* endpoints of one service that one dial considers */

/* A name to be resolved or an address to be dialled. Borrowed from the target. */
struct hop {
	const char *host; /* NULL: `addr` itself */
	struct addr addr; /* the port counts in either case */
	bool endpoint;    /* an address that somebody registered as an endpoint */
};

/* Writes at least one hop and returns how many. `draw` is any random number: endpoints start at one
 * drawn by weight, the others follow in their order. -EINVAL when the target names nothing that may
 * be dialled.
 */
int target_plan(const struct dial_target *target, uint64_t draw, struct hop ret[TARGET_MAX_HOPS]);
