/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From a checked destination to a connected socket, by the gateway's own means only: resolves the
 * name itself, refuses private ranges, binds to an egress address. One `dialer` per worker, for its
 * thread only but where said.
 */
#include "base/addr.h"
#include "base/reason.h"
#include "net/loop.h"
#include "registry/decide.h"

struct dialer;

struct dialer_config {
	const struct addr *resolvers; /* none: the system's */
	size_t n_resolvers;
	const struct addr *source_ips; /* none: the kernel chooses */
	size_t n_source_ips;
	const struct cidr *cluster_cidrs; /* refused, like private ranges */
	size_t n_cluster_cidrs;
	const struct cidr *allowed_private_cidrs;
	size_t n_allowed_private_cidrs;
	uint64_t connect_timeout_ms; /* for all of it */
};

/* Copies the config. -errno. */
int dialer_new(struct dialer **ret, struct loop *loop, const struct dialer_config *config);

/* Dials in progress are cancelled. Not from within done(); before loop_free(). NULL is fine. */
void dialer_free(struct dialer *dialer);

/* What is to be reached; everything is borrowed for the call of dial_start() only. */
struct dial_target {
	const struct service *service; /* NULL: ALLOW_ANY */
	const char *name;              /* the checked name, "" when decided by address */
	const struct addr *dst; /* what the client meant; its port is dialled where the service
				 * gives no target port */
};

/* Embed one per connection to be made. */
struct dial {
	/* Never called from within dial_start(). fd >= 0: connected, non-blocking, close-on-exec,
	 * TCP_NODELAY, for the callee to own. fd < 0: reason is RESOLVE_FAILED,
	 * PRIVATE_DESTINATION or UPSTREAM_FAILED, and `r` the -errno of the last attempt. `dst` and
	 * `src` are the addresses of the connection (zero where there is none; on failure `dst` is
	 * the last one tried). The dial is idle by then.
	 */
	void (*done)(struct dial *d, int fd, enum reason reason, int r, const struct addr *dst,
		     const struct addr *src);
	void *priv; /* NULL when idle */
	/* Saves two system calls: the fd comes still registered with the loop, and done() has to
	 * close it or to put its own watch on it by watch_change() (not watch_add) before it
	 * returns. False: the fd comes unwatched.
	 */
	bool keep_watch;
};

/* By name: A and AAAA are asked at once; addresses are tried alternating families with 250 ms
 * between attempts (RFC 8305), the next at once when one fails. STATIC: endpoints by weight, the
 * next when one fails or lets us wait. By address with resolution NONE: `dst` itself. -EINVAL for a
 * target that no decision can have led to (such as an address that the service does not register),
 * -ENOMEM.
 */
int dial_start(struct dialer *dialer, struct dial *d, const struct dial_target *target);

/* done() will not be called, and the dial may be freed at once. Fine on an idle one. */
void dial_cancel(struct dial *d);

/* Ports in use per source address, since the process started counting; `i` indexes source_ips.
 * Any thread. The owner of a dialled socket calls dial_release(src) when it closes it.
 */
void dial_release(struct dialer *dialer, const struct addr *src);
unsigned dialer_ports_in_use(const struct dialer *dialer, size_t i);

/* True for what a gateway does not dial unasked: loopback, link-local (metadata), private, ULA,
 * carrier NAT, multicast, broadcast, unspecified, documentation-free reserved ranges, NAT64 and
 * 6to4 and Teredo forms of all these. Pure.
 */
bool dial_is_private(const struct addr *a);
