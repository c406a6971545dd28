/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names to addresses by c-ares on a loop, with a cache. DNS only: no search domains, no hosts file.
 * One per worker, for its thread only: no lock, and cancelling is a plain call.
 */
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "net/loop.h"

#define RESOLVE_MAX_ADDRS     16    /* per family; what a server sends beyond is ignored */
#define RESOLVE_MAX_CACHED    10000 /* questions whose answers are kept; the least used goes first */
#define RESOLVE_MAX_IN_FLIGHT 4096  /* questions that servers have not answered yet */

struct resolver;
struct answer;

/* No servers: the system's (/etc/resolv.conf, read once). Port of each address is the server's
 * port. -errno.
 */
int resolver_new(struct resolver **ret, struct loop *loop, const struct addr *servers, size_t n);

/* Lookups in flight are cancelled, not answered. Not from within done(). NULL is fine. */
void resolver_free(struct resolver *resolver);

/* Embed one per question and family (AF_INET or AF_INET6). */
struct lookup {
	/* Never called from within lookup_start(). 0 and at least one address, or -ENOENT (no such
	 * name or no address of that family), -ETIMEDOUT, -ECONNREFUSED (no server there, or none
	 * that would answer: SERVFAIL, REFUSED), -EIO (nonsense). The addresses have port 0 and
	 * live during the call. By then the lookup is idle: it may be started again or freed.
	 */
	void (*done)(struct lookup *l, int r, const struct addr *addrs, size_t n);
	struct resolver *resolver;   /* NULL when idle */
	struct lookup *next, **link; /* private */
	struct answer *answer;       /* private */
};

/* Asks for `name` (NUL-terminated, normalised, absolute). Questions for one name in flight share
 * one query. -EAGAIN when too many are in flight, -EINVAL for what is no name, -ENOMEM.
 */
int lookup_start(struct resolver *resolver, struct lookup *l, const char *name, int family);

/* done() will not be called, and the lookup may be freed at once; also from within another's
 * done(). Fine on an idle one.
 */
void lookup_cancel(struct lookup *l);

/* How long an answer is kept: TTLs within 1 s and 5 min, negative answers (-ENOENT) 5 s, failures
 * 1 s, so that a storm of connections does not become one of questions. Pure.
 */
uint64_t resolve_keep_ms(int r, int64_t ttl_s);
