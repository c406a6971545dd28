/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"

#define BATCH   512
#define OWN_MAX 256 /* stale addresses of one interface that are looked for at a time */

/* ---- whole tables ---- */

/* Calls `each` for every entry of a hash table, as they are read: entries may go meanwhile. A call
 * for each BATCH, which matters in tables of thousands (Linux 5.6). -errno.
 */
static int each_entry(int fd, size_t key_size, size_t value_size,
		      void (*each)(void *ctx, const void *key, const void *value), void *ctx)
{
	OWNED_MEM char *keys = malloc(BATCH * key_size), *values = malloc(BATCH * value_size);
	__u32 at, n;
	int r = 0;

	if (!keys || !values)
		return -ENOMEM;
	for (bool first = true; r == 0; first = false) {
		n = BATCH;
		r = bpf_map_lookup_batch(fd, first ? NULL : &at, &at, keys, values, &n, NULL);
		if (r < 0 && r != -ENOENT) /* ENOENT: these were the last */
			break;
		for (size_t i = 0; i < n; i++)
			each(ctx, keys + i * key_size, values + i * value_size);
	}
	return r == -ENOENT ? 0 : r;
}

/* ---- own addresses ---- */

static struct guard_own own_key(uint32_t ifindex, const struct addr *a)
{
	struct guard_own key = {.ifindex = ifindex};

	memcpy(key.addr, a->ip, 16);
	return key;
}

static bool is_wanted(const struct guard_pod_at *pod, const struct guard_own *key)
{
	for (size_t i = 0; i < pod->n_addrs; i++) {
		if (memcmp(pod->addrs[i].ip, key->addr, 16) == 0)
			return true;
	}
	return false;
}

struct stale {
	const struct guard_pod_at *pod;
	struct guard_own keys[OWN_MAX];
	size_t n;
};

static void note_stale(void *ctx, const void *key, const void *value)
{
	struct stale *stale = ctx;
	struct guard_own own;

	(void)value;
	memcpy(&own, key, sizeof(own));
	if (own.ifindex == stale->pod->ifindex && !is_wanted(stale->pod, &own) &&
	    stale->n < OWN_MAX)
		stale->keys[stale->n++] = own;
}

static int find_stale(const struct guard_maps *maps, struct stale *stale)
{
	stale->n = 0;
	return each_entry(maps->own, sizeof(struct guard_own), maps->own_value, note_stale, stale);
}

static int drop_stale(const struct guard_maps *maps, const struct guard_pod_at *pod)
{
	struct stale stale = {.pod = pod};
	int r;

	do {
		r = find_stale(maps, &stale);
		for (size_t i = 0; r == 0 && i < stale.n; i++) {
			r = bpf_map_delete_elem(maps->own, &stale.keys[i]);
			if (r == -ENOENT)
				r = 0;
		}
	} while (r == 0 && stale.n == OWN_MAX);
	return r;
}

static int add_own(const struct guard_maps *maps, const struct guard_pod_at *pod)
{
	char value[16] = {1};
	int r = 0;

	for (size_t i = 0; r == 0 && i < pod->n_addrs; i++) {
		struct guard_own key = own_key(pod->ifindex, &pod->addrs[i]);

		r = bpf_map_update_elem(maps->own, &key, value, BPF_ANY);
	}
	return r;
}

/* ---- pods ---- */

static int full(int r, const char *what, unsigned max, char error[static GUARD_ERROR_MAX])
{
	/* A hash table that is full says E2BIG. */
	if (r == -E2BIG || r == -ENOSPC)
		return guard_fail(-ENOSPC, error,
				  "the guard's table of %s is full (%u pods are what it can do)",
				  what, max);
	return guard_fail(r, error, "cannot write the guard's table of %s: %s", what,
			  strerrordesc_np(-r));
}

int guard_entries_set(const struct guard_maps *maps, const struct guard_pod_at *pod,
		      const struct guard_pod *value, char error[static GUARD_ERROR_MAX])
{
	int r;

	r = add_own(maps, pod);
	if (r < 0)
		return full(r, "addresses", GUARD_MAX_PODS, error);
	r = bpf_map_update_elem(maps->pods, &pod->ifindex, value, BPF_ANY);
	if (r < 0)
		return full(r, "pods", GUARD_MAX_PODS, error);
	r = drop_stale(maps, pod);
	return r < 0 ? guard_fail(r, error, "cannot take old addresses away: %s",
				  strerrordesc_np(-r))
		     : 0;
}

bool guard_entries_are_there(const struct guard_maps *maps, uint32_t ifindex)
{
	struct guard_pod value;

	return bpf_map_lookup_elem(maps->pods, &ifindex, &value) == 0;
}

int guard_entries_check(const struct guard_maps *maps, const struct guard_pod_at *pod,
			const struct guard_pod *want)
{
	struct guard_pod have;
	struct stale stale = {.pod = pod};
	char value[16];
	int r;

	r = bpf_map_lookup_elem(maps->pods, &pod->ifindex, &have);
	if (r == 0 && memcmp(want, &have, sizeof(have)) != 0)
		return -ESTALE;
	for (size_t i = 0; r == 0 && i < pod->n_addrs; i++) {
		struct guard_own key = own_key(pod->ifindex, &pod->addrs[i]);

		r = bpf_map_lookup_elem(maps->own, &key, value);
	}
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	r = find_stale(maps, &stale);
	return r < 0 ? r : stale.n ? -ESTALE : 0;
}

static void forget_flows(const struct guard_maps *maps, uint32_t ifindex, unsigned buckets)
{
	for (uint32_t i = 0; i < buckets && i < GUARD_MAX_BUCKETS; i++) {
		struct guard_flow_key key = {.ifindex = ifindex, .bucket = i};

		bpf_map_delete_elem(maps->flows, &key);
	}
}

static void forget_counts(const struct guard_maps *maps, uint32_t ifindex)
{
	static const uint8_t protos[] = {
		IPPROTO_ICMP,    IPPROTO_IPIP,      IPPROTO_TCP,       IPPROTO_UDP,
		IPPROTO_IPV6,    IPPROTO_GRE,       IPPROTO_ICMPV6,    IPPROTO_SCTP,
		GUARD_PROTO_ARP, GUARD_PROTO_ETHER, GUARD_PROTO_OTHER,
	};

	for (size_t i = 0; i < ARRAY_SIZE(protos); i++) {
		for (uint8_t why = 0; why < GUARD_WHY_N_; why++) {
			struct guard_count_key key = {
				.ifindex = ifindex, .proto = protos[i], .why = why};

			bpf_map_delete_elem(maps->counts, &key);
		}
	}
}

/* The least recently used of these make room by themselves, but another pod may come first. */
static void forget_passing(const struct guard_maps *maps, uint32_t ifindex)
{
	for (uint32_t i = 0; i < maps->n_frags; i++) {
		uint32_t key[2] = {ifindex, i};

		bpf_map_delete_elem(maps->frags, key);
	}
	bpf_map_delete_elem(maps->rates, &ifindex);
}

/* The pod first: what has no entry gets no new flows by itself. */
void guard_entries_purge(const struct guard_maps *maps, uint32_t ifindex)
{
	struct guard_pod_at nothing = {.ifindex = ifindex};
	struct guard_pod pod = {.buckets = GUARD_MAX_BUCKETS};

	bpf_map_lookup_elem(maps->pods, &ifindex, &pod);
	bpf_map_delete_elem(maps->pods, &ifindex);
	drop_stale(maps, &nothing);
	forget_flows(maps, ifindex, pod.buckets);
	forget_passing(maps, ifindex);
	forget_counts(maps, ifindex);
}

void guard_entries_begin(const struct guard_maps *maps, uint32_t ifindex)
{
	if (guard_entries_are_there(maps, ifindex))
		guard_entries_purge(maps, ifindex);
	else
		forget_passing(maps, ifindex);
}

struct sweep {
	const struct guard_maps *maps;
	struct guard_flow_key *keys;
	size_t n, room;
};

static void note_orphan(void *ctx, const void *key, const void *value)
{
	struct sweep *sweep = ctx;
	struct guard_flow_key k;

	(void)value;
	memcpy(&k, key, sizeof(k));
	if (sweep->n < sweep->room && !guard_entries_are_there(sweep->maps, k.ifindex))
		sweep->keys[sweep->n++] = k;
}

int guard_entries_sweep(const struct guard_maps *maps)
{
	OWNED_MEM struct guard_flow_key *keys = calloc(GUARD_MAX_BUCKETS, sizeof(*keys));
	struct sweep sweep = {.maps = maps, .keys = keys, .room = GUARD_MAX_BUCKETS};
	int r;

	if (!keys)
		return -ENOMEM;
	do {
		sweep.n = 0;
		r = each_entry(maps->flows, sizeof(*keys), maps->flow_value, note_orphan, &sweep);
		for (size_t i = 0; i < sweep.n; i++)
			bpf_map_delete_elem(maps->flows, &keys[i]);
	} while (r == 0 && sweep.n == sweep.room);
	return r;
}

/* ---- lists ---- */

struct ifindexes {
	uint32_t *v;
	size_t n;
};

static void note_ifindex(void *ctx, const void *key, const void *value)
{
	struct ifindexes *list = ctx;

	(void)value;
	if (list->n < GUARD_MAX_PODS)
		memcpy(&list->v[list->n++], key, sizeof(uint32_t));
}

int guard_entries_each(int pods_fd, void (*each)(void *ctx, uint32_t ifindex), void *ctx)
{
	OWNED_MEM uint32_t *v = calloc(GUARD_MAX_PODS, sizeof(*v));
	struct ifindexes list = {.v = v};
	int r;

	if (!v)
		return -ENOMEM;
	r = each_entry(pods_fd, sizeof(uint32_t), sizeof(struct guard_pod), note_ifindex, &list);
	for (size_t i = 0; r == 0 && i < list.n; i++)
		each(ctx, v[i]);
	return r;
}

struct summing {
	void (*each)(void *ctx, const struct guard_count_key *key, const struct guard_count *count);
	void *ctx;
	size_t cpus;
};

static void sum_up(void *ctx, const void *key, const void *value)
{
	const struct summing *s = ctx;
	struct guard_count total = {0}, part;
	struct guard_count_key k;

	for (size_t i = 0; i < s->cpus; i++) {
		memcpy(&part, (const char *)value + i * sizeof(part), sizeof(part));
		total.packets += part.packets;
		total.bytes += part.bytes;
	}
	memcpy(&k, key, sizeof(k));
	if (total.packets > 0)
		s->each(s->ctx, &k, &total);
}

int guard_entries_counts(const struct guard_maps *maps,
			 void (*each)(void *ctx, const struct guard_count_key *key,
				      const struct guard_count *count),
			 void *ctx)
{
	int cpus = libbpf_num_possible_cpus();
	struct summing s = {each, ctx, (size_t)cpus};

	if (cpus < 0)
		return cpus;
	return each_entry(maps->counts, sizeof(struct guard_count_key),
			  s.cpus * sizeof(struct guard_count), sum_up, &s);
}
