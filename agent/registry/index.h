/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From a byte string to its grants: who may use that key on which port, and as which service. A
 * hash table under a secret key, with open addressing. Filled by one thread, then only read, by any
 * number.
 *
 * In a large table each place that must be looked at is a cache miss, so that there are two: the
 * slot, and the record, which has all that belongs to one key in one piece.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"
#include "registry/siphash.h"

#define NS_ALL    0U               /* everybody; also whom no entry mentions */
#define NS_LISTED (UINT32_MAX - 1) /* those in the service's export_to; the port's only grant */
#define NS_NOBODY UINT32_MAX

struct grant {
	uint32_t ns;      /* id in the index of namespaces, or NS_* */
	uint32_t service; /* position in the registry's services */
	uint16_t port;
};

/* Behind the grants come a star, the key and a NUL: a wildcard's key is ".example.com", and its
 * host is there, too.
 */
struct record {
	uint32_t n_grants;
	uint32_t len;          /* of the key */
	struct grant grants[]; /* by port, then ns */
};

struct index_slot {
	uint32_t tag; /* low half of the hash */
	uint32_t id;  /* of the record; 0 when free */
};

/* All zero but the seed is a valid empty index. */
struct index {
	struct siphash_key seed;
	struct index_slot *slots; /* n_slots of them, a power of two */
	uint32_t n_slots;
	uint32_t n;      /* keys */
	uint32_t *words; /* the records; an id is where one begins */
	size_t n_words, max_words;
};

/* NULL when `key` is not there. */
const struct record *index_find(const struct index *ix, struct span key);

/* Copies a key that is not there yet, and its grants. Records may move. -ENOMEM, -E2BIG. */
int index_add(struct index *ix, struct span key, const struct grant *grants, size_t n_grants);

/* Goes through all records in the order of adding: the first after NULL; NULL after the last. */
struct record *index_next(const struct index *ix, const struct record *r);

/* Never 0. */
uint32_t index_id(const struct index *ix, const struct record *r);

void index_done(struct index *ix);

/* Ends with a NUL and has a star before it. */
static inline const char *record_key(const struct record *r)
{
	return (const char *)&r->grants[r->n_grants] + 1;
}
