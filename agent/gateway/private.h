/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a gateway does not dial unasked, and what lifts that. dial_is_private() of gateway/dial.h is
 * the same without anything lifted. Pure, any thread.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"

/* Borrowed. */
struct private_rules {
	const struct cidr *cluster; /* refused beside the private ranges */
	size_t n_cluster;
	const struct cidr *allowed; /* egress.allowedPrivateCIDRs: lifts both ... */
	size_t n_allowed;           /* ... but for what is named in private_refused() */
};

/* True when `a` must not be dialled. `registered` are the addresses that somebody registered for
 * the service in question. An address that carries an IPv4 one inside (NAT64, 6to4, Teredo) is
 * judged by both.
 *
 * Loopback, "this host", link-local and the metadata services are lifted only by a network that
 * lies inside the range it lifts: 0.0.0.0/0 does not open them, 169.254.169.254 does. A registered
 * network must lie inside the range in any case, so that registering "everything" registers no
 * private host.
 */
bool private_refused(const struct private_rules *rules, const struct cidr *registered,
		     size_t n_registered, const struct addr *a);
