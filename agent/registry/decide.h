/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The verdict on one connection or request, by the decision order of the design: (1) opaque port
 * with a registered address, (2) SNI, (3) Host, (4) address, else deny. Pure.
 */
#include "registry/registry.h"

enum outbound_mode {
	OUTBOUND_REGISTRY_ONLY,
	OUTBOUND_ALLOW_ANY,
};

/* What the client was seen to say first. */
enum spoken {
	SPOKEN_NOTHING, /* not looked at, or the client waits for the server */
	SPOKEN_TLS,
	SPOKEN_HTTP,
	SPOKEN_OTHER,
};

struct query {
	const struct addr *dst; /* where the client meant to go */
	const char *ns;         /* of the source pod; "" when unknown */
	enum spoken spoken;
	struct span name; /* normalised SNI or Host; empty when there was none (or an IP literal) */
};

struct verdict {
	bool allow;
	enum reason reason; /* NONE, or why not; NOT_REGISTERED when allowed by ALLOW_ANY */
	const struct service *service; /* NULL when denied or allowed by ALLOW_ANY */
	bool by_name; /* the name decided, not the address: the gateway must be told it */
};

/* Step 1, before a byte is read: true when `dst` is decided by address alone (allowed: opaque
 * protocol and registered address). False: read on and call decide().
 */
bool decide_early(const struct registry *reg, const struct addr *dst, const char *ns,
		  struct verdict *ret);

/* Steps 2 to 4. A client that names a host is judged by that name alone; without one, by address.
 * The port's protocol must fit what is spoken: TLS goes to no HTTP port, HTTP to no TLS port, all
 * else to opaque ports and those without a protocol only (PROTOCOL_MISMATCH, in either mode).
 * ALLOW_ANY allows all else that is refused, with reason NOT_REGISTERED and no service.
 */
void decide(const struct registry *reg, enum outbound_mode mode, const struct query *q,
	    struct verdict *ret);

/* The verdict on a name that an agent of ours has checked already (PROXY header): by that name
 * alone, whatever is spoken, since that was looked at where it was captured.
 */
void decide_told(const struct registry *reg, enum outbound_mode mode, const struct query *q,
		 struct verdict *ret);
