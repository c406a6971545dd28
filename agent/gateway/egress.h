/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The addresses that connections leave from, and how a socket is made for them. Counters are for
 * any thread, all else for one.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

/* Embedded. All zero is valid: the kernel chooses. */
struct egress {
	struct addr *ips;
	atomic_uint *in_use; /* sockets, per address */
	size_t n;
	size_t n_of[2];   /* per family: [0] IPv4, [1] IPv6 */
	uint64_t turn[2]; /* whose it is next */
};

/* Copies the addresses. `seed`: where the round robin starts. -ENOMEM. */
int egress_init(struct egress *egress, const struct addr *ips, size_t n, uint64_t seed);
void egress_done(struct egress *egress);

/* False when connections of that family would have to leave by an address that is not ours. */
bool egress_can(const struct egress *egress, bool v6);

/* Starts connecting from the next address of dst's family, or from another one when that is missing
 * or has no port left. The caller owns *ret_fd (non-blocking, close-on-exec). -errno.
 */
int egress_connect(struct egress *egress, const struct addr *dst, int *ret_fd);

/* Once connected: sets what a long-lived socket needs and says what its own address is. -errno. */
int egress_settle(int fd, struct addr *ret_src);

/* A connected socket that is kept counts from take to drop. */
void egress_take(struct egress *egress, const struct addr *src);
void egress_drop(struct egress *egress, const struct addr *src);
