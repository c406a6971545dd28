/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The addresses of a node. Pure. */
#include <jansson.h>
#include <stddef.h>

#include "base/addr.h"

#define NODE_ADDRS_MAX 32 /* of one node */

/* Its InternalIPs and ExternalIPs, ports 0. Returns how many. */
size_t node_read(const json_t *node, struct addr ret[static NODE_ADDRS_MAX]);
