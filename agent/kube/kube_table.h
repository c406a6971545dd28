/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Objects by namespace and name. Whoever may make objects chooses the names, so the hash has a
 * secret of its own. Items are embedded in what is kept; the table owns none of them. Pure but for
 * its random numbers. One thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry/siphash.h"

/* A namespace is a label of 63 bytes, a name at most 253. */
#define KUBE_KEY_MAX 320

/* "namespace\0name\0", as one text. */
struct kube_key {
	char text[KUBE_KEY_MAX];
	uint32_t len; /* with both NULs */
};

struct kube_item {
	struct kube_item *next; /* of the same bucket */
	const char *key;        /* borrowed, as struct kube_key has it */
	uint64_t hash;
	uint32_t key_len;
};

struct kube_table {
	struct kube_item **buckets;
	size_t room; /* a power of two */
	size_t n;
	struct siphash_key secret;
};

/* -ENAMETOOLONG, also for an empty name. `ns` is "" for kinds without namespaces. */
int kube_key(const char *ns, const char *name, struct kube_key *ret);

const char *kube_item_ns(const struct kube_item *item);
const char *kube_item_name(const struct kube_item *item);

/* -ENOMEM, -EIO without random numbers. */
int kube_table_init(struct kube_table *table);
void kube_table_done(struct kube_table *table); /* its items are the caller's. All zero is fine */

struct kube_item *kube_table_find(const struct kube_table *table, const struct kube_key *key);

/* Takes `item` in, whose key (set, and not there yet) stays where it is. Grows where it can. */
void kube_table_add(struct kube_table *table, struct kube_item *item);
void kube_table_remove(struct kube_table *table, struct kube_item *item);

/* Goes through all items: NULL for the first, NULL at the end. The one in hand may be removed when
 * the next has been asked for.
 */
struct kube_item *kube_table_next(const struct kube_table *table, const struct kube_item *item);
