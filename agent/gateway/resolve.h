/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names to addresses by c-ares on a loop, with a cache. One per worker, for its thread only: no
 * lock, and cancelling is a plain call.
 */
#include <netinet/in.h>
#include <stddef.h>

#include "base/addr.h"
#include "net/loop.h"

#define RESOLVE_MAX_ADDRS 16 /* per family; what a server sends beyond is ignored */

struct resolver;

/* No servers: the system's (/etc/resolv.conf). Port of each address is the server's port. -errno.
 */
int resolver_new(struct resolver **ret, struct loop *loop, const struct addr *servers, size_t n);
void resolver_free(struct resolver *resolver); /* lookups in flight are cancelled, not answered */

/* Embed one per question and family (AF_INET or AF_INET6). */
struct lookup {
	/* Never called from within lookup_start(). 0 and at least one address, or -ENOENT (no such
	 * name or no address of that family), -ETIMEDOUT, -ECONNREFUSED, -EIO (server trouble).
	 * The addresses have port 0 and live during the call.
	 */
	void (*done)(struct lookup *l, int r, const struct addr *addrs, size_t n);
	struct resolver *resolver;   /* NULL when idle */
	struct lookup *next, **link; /* private */
	struct later later;          /* private */
	void *entry;                 /* private */
	int r;                       /* private */
};

/* Asks for `name` (NUL-terminated, normalised). Questions for one name in flight share one query.
 * TTLs are kept within 1 s and 5 min, negative answers for at most 5 s; the cache is bounded.
 * -errno.
 */
int lookup_start(struct resolver *resolver, struct lookup *l, const char *name, int family);
void lookup_cancel(struct lookup *l); /* done() will not be called; fine on an idle one */
