/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An interface of the calling thread's network namespace, as far as guards need to know it. */
#include <stdint.h>

struct node_link {
	uint8_t mac[6];  /* zero where it has none of that length */
	uint32_t bridge; /* of which it is a port, or 0 */
};

/* -ENODEV, -errno. Does not log. */
int node_link_read(uint32_t ifindex, struct node_link *ret);
