/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Hears from the kernel what happens in one network namespace: rules that change, packets that
 * rules refused. One per enrolled pod with rules inside, and one for the node's own namespace. On
 * one loop; every function is for its thread. Does not log above debug level.
 *
 * Whoever is root in a pod can cause as much of it as he likes, so the work is bounded: each hook
 * is called at once when it was quiet before, changes at most 20 times a second, refusals some 150
 * times. Changes are late then, never lost; refusals beyond that are lost.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "net/loop.h"

struct sentinel;

/* What a rule reported by NFLOG; borrowed for the call. A pod's own root can have anything reported
 * to the group, so it is a claim about that pod and about nobody else.
 */
struct refused_packet {
	struct addr src, dst; /* ports 0 where there are none */
	uint8_t proto;        /* IP protocol number */
	const char *prefix;   /* of the rule: what kind of refusal it was; "" when none */
};

struct sentinel_hooks {
	void *ctx;
	/* Something in nf_tables changed, by somebody's transaction or our own; many changes may be
	 * one call, and a transaction some: the kernel tells of it by several messages. Also called
	 * when notifications were lost. Of iptables-legacy the kernel tells nothing. NULL: not
	 * asked for.
	 */
	void (*on_rules_changed)(void *ctx);
	/* NULL: not asked for. */
	void (*on_refused)(void *ctx, const struct refused_packet *packet);
	/* Links or addresses of the namespace came, went or changed. NULL: not asked for. */
	void (*on_links_changed)(void *ctx);
};

/* Opens its netlink sockets inside the namespace (a descriptor each that is asked for); they keep
 * it alive. `nflog_group`: where the rules report. Copies `hooks`. -errno.
 *
 * That somebody in the namespace listens to the group already is no error: whoever could keep a pod
 * from being enrolled like that could as well keep it from being watched. Then there is all the
 * rest, sentinel_hears_refusals() says no, and it is tried again every two seconds.
 */
int sentinel_new(struct sentinel **ret, struct loop *loop, int netns_fd, uint16_t nflog_group,
		 const struct sentinel_hooks *hooks);
void sentinel_free(struct sentinel *sentinel); /* safe within a hook; NULL is fine */

/* False: not asked for, or somebody else has the group. */
bool sentinel_hears_refusals(const struct sentinel *sentinel);
