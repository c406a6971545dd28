/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Whose a connection is that came to the listener which pods share: of the pod whose address it has
 * (the guard lets no other source through), or of the cgroup that it was captured for. Written by
 * the control thread, read by workers under a lock that is held for one look-up.
 */
#include "base/addr.h"
#include "base/identity.h"

struct hostnet;
struct origins;

int origins_new(struct origins **ret, uint16_t capture_port);
void origins_free(struct origins *origins); /* NULL is fine */

/* Connections to the listener's own address are looked up there (NULL: they are nobody's).
 * Borrowed; before the first look-up.
 */
void origins_use_hostnet(struct origins *origins, struct hostnet *hostnet);

/* These and no others lead to `id`, to which references are taken. An address is given once.
 * -EADDRINUSE when one is another pod's already; -ENOMEM. Nothing is changed after a failure.
 */
int origins_set(struct origins *origins, const struct addr *addrs, size_t n, struct identity *id);
int origins_set_cgroup(struct origins *origins, uint64_t cgroup, struct identity *id);

/* Whatever leads to `id`. */
void origins_remove(struct origins *origins, const struct identity *id);

/* For struct origin of the proxy: `ctx` is the origins. Any thread. */
int origins_find(void *ctx, int fd, const struct addr *peer, struct identity **ret_source,
		 struct addr *ret_dst);
