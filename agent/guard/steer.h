/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the node's network namespace needs so that steered packets are delivered to the agent's
 * listener: a routing rule for the mark, and a table in which every address is local (as the
 * kernel's Documentation/networking/tproxy.rst has it). IPv4 and IPv6. Acts on the calling thread's
 * namespace; control thread; does not log.
 */
#include <stdbool.h>
#include <stdint.h>

struct steer_config {
	uint32_t mark;     /* the rule's mask is the mark itself */
	uint32_t table;    /* 1 to 2^32-1, not 253 to 255 */
	uint32_t priority; /* of the rule */
};

/* 1: something was missing and has been put there. 0: all was there. -EEXIST: table, priority or
 * mark are in use by somebody else, -errno.
 */
int steer_apply(const struct steer_config *config);

/* 0: all there. -ESTALE. -errno. */
int steer_verify(const struct steer_config *config);

/* 0 also when there was nothing. Never touches what is not ours. */
int steer_remove(const struct steer_config *config);

/* Transparent, non-blocking listeners on 127.0.0.1:port and [::1]:port; fds[1] is -1 without IPv6.
 * They belong to the caller. -errno.
 */
int steer_listen(uint16_t port, int ret_fds[2]);
