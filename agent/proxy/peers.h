/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who may speak to a gateway's port: the cluster's nodes' addresses. Immutable, any thread. */
#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"

struct peers;

/* Copies the addresses; their ports do not matter. One reference, for the caller. -ENOMEM. */
int peers_new(struct peers **ret, const struct addr *addrs, size_t n);
struct peers *peers_ref(struct peers *peers); /* NULL is fine, and gives NULL */
void peers_unref(struct peers *peers);        /* NULL is fine; any thread */

/* NULL peers: nobody asks, and everybody may. */
bool peers_may(const struct peers *peers, const struct addr *addr);
