/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Sets of addresses, each told by one of several objects. Pure. */
#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"
#include "kube/kube_table.h"

/* Addresses by the object that has them, and all of them as last told. */
struct addr_store {
	struct kube_table rows;
	struct addr *told;
	size_t n_told;
	bool is_told;
};

int addr_store_init(struct addr_store *store);  /* -errno */
void addr_store_done(struct addr_store *store); /* all zero is fine */

/* What `name` has from now on; none is fine. -EINVAL without a name; -ENOMEM: it has none. */
int addr_store_put(struct addr_store *store, const char *name, const struct addr *addrs, size_t n);
void addr_store_remove(struct addr_store *store, const char *name);

/* Writes all of them, sorted, each once, at most the first `max`, to `told`. 1: that is news, 0: it
 * said so before, -ENOMEM.
 */
int addr_store_settle(struct addr_store *store, size_t max);

/* As told before, by the cache. Takes as many as `max`. -ENOMEM. */
int addr_store_restore(struct addr_store *store, const struct addr *addrs, size_t n, size_t max);

/* Sorts by address and port, and takes doubles out; returns how many are left. */
size_t addrs_unique(struct addr *addrs, size_t n);
bool addrs_equal(const struct addr *a, size_t n, const struct addr *b, size_t m);
