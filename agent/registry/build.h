/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A registry in the making: what build.c and settle.c share, and nobody else. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "registry/layout.h"
#include "registry/registry.h"

/* Of anything that is counted: far beyond memory, and no sum of them wraps. */
#define PARTS_MAX (1U << 30)

/* One TCP port of one ServiceEntry: what the services of all its hosts have in common. Older
 * entries have smaller positions.
 */
struct slot {
	const struct service_entry *in;
	struct service as; /* all but the host */
	uint32_t service;  /* the entry's first host on this port, once it is placed */
	bool addressed;    /* some address leads here */
};

/* One slot's wish to be the answer for one key, a name or a network. */
struct claim {
	struct span key;
	uint32_t slot;
	uint32_t service; /* once it is placed */
	uint16_t port;
	bool first_host; /* of its entry */
	bool live;       /* has a grant */
	bool lost;       /* to an older one, in part or whole; said once */
};

struct claims {
	struct claim *v;
	size_t n;
};

struct builder {
	struct registry *reg;
	const struct service_entry **entries; /* the oldest first */
	size_t n_entries;
	struct slot *slots;
	size_t n_slots;
	struct claims names, nets;
	struct grant *grants; /* of the key in hand */
	size_t n_grants, max_grants;
	/* Where there is room in the registry's arrays. */
	struct endpoint *endpoint;
	struct cidr *address;
	const char **export_to;
	char *text;
	registry_warn_fn *warn;
	void *ctx;
};

/* What exportTo holds when it is nobody; known by its address. */
extern const char build_nobody[];

/* Formats a line for the caller's warn(). For want of memory it is not said. */
void build_warn(const struct builder *b, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Copies n bytes to the registry's text and ends them with a NUL. Never fails: make_room() counted.
 */
const char *build_text(struct builder *b, const char *text, size_t n);

/* Sorts the claims and makes the index of them: one answer for each key, port and namespace, the
 * oldest. A grant's `service` is the position of its claim. -ENOMEM, -E2BIG.
 */
int build_index(struct builder *b, struct index *ix, struct claims *claims);
