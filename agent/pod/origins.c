/* SPDX-License-Identifier: Apache-2.0 */
#include "pod/origins.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/owned.h"
#include "guard/hostnet.h"

/* Sorted by key, so that a look-up is a binary search: a node has some hundred pods. */
struct entry {
	uint8_t key[16]; /* an address; or a cgroup's id behind CGROUP_MARK */
	struct identity *id;
};

/* 1:6367::/32 is no unicast that anybody has: 2000::/3 is (RFC 4291, 2.4). */
static const uint8_t cgroup_mark[8] = {0, 1, 'c', 'g', 'r', 'o', 'u', 'p'};

struct origins {
	pthread_rwlock_t lock;
	uint16_t capture_port;
	struct hostnet *hostnet;
	struct entry *v;
	size_t n;
};

int origins_new(struct origins **ret, uint16_t capture_port)
{
	struct origins *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	pthread_rwlock_init(&o->lock, NULL);
	o->capture_port = capture_port;
	*ret = o;
	return 0;
}

static void free_entries(struct entry *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		identity_unref(v[i].id);
	free(v);
}

void origins_free(struct origins *o)
{
	if (!o)
		return;
	free_entries(o->v, o->n);
	pthread_rwlock_destroy(&o->lock);
	free(o);
}

void origins_use_hostnet(struct origins *o, struct hostnet *hostnet)
{
	o->hostnet = hostnet;
}

static int compare(const void *a, const void *b)
{
	return memcmp(((const struct entry *)a)->key, ((const struct entry *)b)->key, 16);
}

static void key_of_cgroup(uint64_t cgroup, uint8_t ret[static 16])
{
	memcpy(ret, cgroup_mark, sizeof(cgroup_mark));
	memcpy(ret + sizeof(cgroup_mark), &cgroup, sizeof(cgroup));
}

static struct entry *find(const struct origins *o, const uint8_t key[static 16])
{
	struct entry want;

	memcpy(want.key, key, 16);
	return o->n ? bsearch(&want, o->v, o->n, sizeof(want), compare) : NULL;
}

static bool is_anothers(const struct origins *o, const uint8_t key[static 16],
			const struct identity *id)
{
	const struct entry *e = find(o, key);

	return e && e->id != id;
}

/* The others' entries, and a reference to their identities each. */
static size_t copy_others(const struct origins *o, const struct identity *id, struct entry *ret)
{
	size_t m = 0;

	for (size_t i = 0; i < o->n; i++) {
		if (o->v[i].id == id)
			continue;
		ret[m] = o->v[i];
		identity_ref(ret[m++].id);
	}
	return m;
}

/* These keys and no other are `id`'s from now on, or nothing has changed. Only this thread writes:
 * reading needs no lock here.
 */
static int set(struct origins *o, const uint8_t (*keys)[16], size_t n, struct identity *id)
{
	struct entry *v, *old = o->v;
	size_t m, n_old = o->n;

	for (size_t i = 0; i < n; i++) {
		if (is_anothers(o, keys[i], id))
			return -EADDRINUSE;
	}
	v = calloc(o->n + n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	m = copy_others(o, id, v);
	for (size_t i = 0; i < n; i++) {
		memcpy(v[m].key, keys[i], 16);
		v[m++].id = identity_ref(id);
	}
	qsort(v, m, sizeof(*v), compare);
	pthread_rwlock_wrlock(&o->lock);
	o->v = v;
	o->n = m;
	pthread_rwlock_unlock(&o->lock);
	free_entries(old, n_old);
	return 0;
}

int origins_set(struct origins *o, const struct addr *addrs, size_t n, struct identity *id)
{
	OWNED_MEM uint8_t(*keys)[16] = calloc(n + 1, sizeof(*keys));
	size_t m = 0;

	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		/* Every pod may have the same; they lead nowhere. */
		if (!addr_is_link_local(&addrs[i]))
			memcpy(keys[m++], addrs[i].ip, 16);
	}
	return set(o, (const uint8_t(*)[16])keys, m, id);
}

int origins_set_cgroup(struct origins *o, uint64_t cgroup, struct identity *id)
{
	uint8_t key[1][16];

	key_of_cgroup(cgroup, key[0]);
	return set(o, (const uint8_t(*)[16])key, 1, id);
}

void origins_remove(struct origins *o, const struct identity *id)
{
	size_t m = 0;

	pthread_rwlock_wrlock(&o->lock);
	for (size_t i = 0; i < o->n; i++) {
		if (o->v[i].id == id)
			identity_unref(o->v[i].id);
		else
			o->v[m++] = o->v[i];
	}
	o->n = m;
	pthread_rwlock_unlock(&o->lock);
}

static int identity_of(struct origins *o, const uint8_t key[static 16], struct identity **ret)
{
	const struct entry *e;

	pthread_rwlock_rdlock(&o->lock);
	e = find(o, key);
	if (e)
		*ret = identity_ref(e->id);
	pthread_rwlock_unlock(&o->lock);
	return e ? 0 : -ENOENT;
}

/* To the listener's own address: captured by cgroup, or somebody of the node who knows the port. */
static int find_cgroup(struct origins *o, int fd, const struct addr *peer,
		       struct identity **ret_source, struct addr *ret_dst)
{
	struct addr dst;
	uint8_t key[16];
	uint64_t cgroup;
	int r;

	if (!o->hostnet)
		return -ENOENT;
	r = hostnet_origin(o->hostnet, fd, peer, &cgroup, &dst);
	if (r < 0)
		return r;
	key_of_cgroup(cgroup, key);
	r = identity_of(o, key, ret_source);
	if (r == 0)
		*ret_dst = dst;
	return r;
}

static bool is_loopback(const struct addr *a)
{
	static const uint8_t v6[16] = {[15] = 1};

	return addr_is_v4(a) ? a->ip[12] == 127 : memcmp(a->ip, v6, sizeof(v6)) == 0;
}

int origins_find(void *ctx, int fd, const struct addr *peer, struct identity **ret_source,
		 struct addr *ret_dst)
{
	struct origins *o = ctx;
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct addr dst;
	int r;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return -errno;
	r = addr_from_sockaddr(&sa, &dst);
	if (r < 0)
		return r;
	if (is_loopback(&dst))
		return find_cgroup(o, fd, peer, ret_source, ret_dst);
	r = identity_of(o, peer->ip, ret_source);
	if (r == 0)
		*ret_dst = dst;
	return r;
}
