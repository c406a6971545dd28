/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/peers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct peers {
	atomic_uint refs;
	size_t n;
	struct addr addrs[]; /* ascending by address */
};

static int compare(const void *a, const void *b)
{
	return memcmp(((const struct addr *)a)->ip, ((const struct addr *)b)->ip, 16);
}

int peers_new(struct peers **ret, const struct addr *addrs, size_t n)
{
	struct peers *p = calloc(1, sizeof(*p) + n * sizeof(*addrs));

	if (!p)
		return -ENOMEM;
	atomic_init(&p->refs, 1);
	p->n = n;
	if (n > 0)
		memcpy(p->addrs, addrs, n * sizeof(*addrs));
	qsort(p->addrs, n, sizeof(*p->addrs), compare);
	*ret = p;
	return 0;
}

struct peers *peers_ref(struct peers *peers)
{
	if (peers)
		atomic_fetch_add_explicit(&peers->refs, 1, memory_order_relaxed);
	return peers;
}

void peers_unref(struct peers *peers)
{
	if (peers && atomic_fetch_sub_explicit(&peers->refs, 1, memory_order_acq_rel) == 1)
		free(peers);
}

bool peers_may(const struct peers *peers, const struct addr *addr)
{
	return !peers || bsearch(addr, peers->addrs, peers->n, sizeof(*addr), compare);
}
