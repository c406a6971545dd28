/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How a registry lies in memory: what build.c writes and registry.c reads, and nobody else.
 *
 * All conflicts are settled when it is built, so that a key, a port and a namespace have one
 * answer.
 */
#include <stdatomic.h>
#include <stdint.h>

#include "registry/index.h"
#include "registry/registry.h"

struct registry {
	atomic_uint refs;
	uint64_t generation;
	struct index names;          /* "example.com", and ".example.com" for "*.example.com" */
	struct index nets;           /* struct cidr, as bytes */
	struct index namespaces;     /* what export_to may be matched with; no grants */
	uint64_t wildcard_depths[4]; /* bit n: a wildcard of n labels is registered */
	uint8_t prefix_bits[129];    /* lengths of registered networks, the longest first */
	size_t n_prefix_bits;
	struct service *services;
	size_t n_services;
	struct endpoint *endpoints;
	struct cidr *addresses;
	const char **export_to; /* each service's part is sorted */
	char *text;             /* names of entries, hosts of endpoints */
};

/* A registry that is built in part or whole. NULL is fine. */
void registry_free(struct registry *reg);
