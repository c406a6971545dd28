/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "guard/guard_ebpf.h"
#include "guard/prefix.h"
#include "redirect/plan.h"

#define NETS_MAX                                                                        \
	65536 /* more than a table holds: a list that grows while it is read has an end \
	       */

/* Keys as the kernel has them: the length, then the address, of 4 or 16 bytes. */
union key {
	struct guard_net4 v4;
	struct guard_net6 v6;
};

static union key key_of(const struct cidr *net, bool v4)
{
	union key key = {0};

	if (v4) {
		key.v4.prefixlen = net->bits - 96;
		memcpy(key.v4.addr, net->ip + 12, 4);
	} else {
		key.v6.prefixlen = net->bits;
		memcpy(key.v6.addr, net->ip, 16);
	}
	return key;
}

static struct cidr cidr_of(const union key *key, bool v4)
{
	struct cidr net = {.ip = {[10] = 0xff, [11] = 0xff}};

	if (v4) {
		net.bits = (uint8_t)(key->v4.prefixlen + 96);
		memcpy(net.ip + 12, key->v4.addr, 4);
	} else {
		net.bits = (uint8_t)key->v6.prefixlen;
		memcpy(net.ip, key->v6.addr, 16);
	}
	return net;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct cidr));
}

static bool holds(const struct cidr *sorted, size_t n, const struct cidr *net)
{
	return n > 0 && bsearch(net, sorted, n, sizeof(*net), compare);
}

static int list_nets(int fd, bool v4, struct cidr **ret, size_t *ret_n)
{
	OWNED_MEM struct cidr *v = NULL;
	union key key, next;
	size_t n = 0, room = 0;
	int r;

	for (r = bpf_map_get_next_key(fd, NULL, &next); r == 0 && n < NETS_MAX;
	     r = bpf_map_get_next_key(fd, &key, &next)) {
		if (n == room) {
			struct cidr *more = realloc(v, (2 * room + 64) * sizeof(*v));

			if (!more)
				return -ENOMEM;
			v = more;
			room = 2 * room + 64;
		}
		key = next;
		v[n++] = cidr_of(&key, v4);
	}
	if (r < 0 && r != -ENOENT)
		return r;
	*ret = TAKE_PTR(v);
	*ret_n = n;
	return 0;
}

static bool is_inside(int fd, const union key *key)
{
	__u32 value;

	return bpf_map_lookup_elem(fd, key, &value) == 0 && value == GUARD_CLUSTER_INSIDE;
}

/* Longest prefix first is what a lookup does, so `key` itself must be known to be there. */
static int add_missing(int fd, bool v4, const struct cidr *want, size_t n_want,
		       const struct cidr *have, size_t n_have)
{
	const __u32 inside = GUARD_CLUSTER_INSIDE;

	for (size_t i = 0; i < n_want; i++) {
		union key key = key_of(&want[i], v4);
		int r;

		if (holds(have, n_have, &want[i]) && is_inside(fd, &key))
			continue;
		r = bpf_map_update_elem(fd, &key, &inside, BPF_ANY);
		if (r < 0)
			return r;
	}
	return 0;
}

static int drop_others(int fd, bool v4, const struct cidr *want, size_t n_want,
		       const struct cidr *have, size_t n_have)
{
	for (size_t i = 0; i < n_have; i++) {
		union key key = key_of(&have[i], v4);
		int r = holds(want, n_want, &have[i]) ? 0 : bpf_map_delete_elem(fd, &key);

		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

static int set_nets(int fd, bool v4, const struct plan_range *ranges, size_t n)
{
	OWNED_MEM struct cidr *want = NULL, *have = NULL;
	size_t n_want = 0, n_have = 0;
	int r;

	r = prefix_list(ranges, n, &want, &n_want);
	if (r == 0)
		r = list_nets(fd, v4, &have, &n_have);
	if (r < 0)
		return r;
	if (n_want > 0)
		qsort(want, n_want, sizeof(*want), compare);
	if (n_have > 0)
		qsort(have, n_have, sizeof(*have), compare);
	r = add_missing(fd, v4, want, n_want, have, n_have);
	if (r == 0)
		r = drop_others(fd, v4, want, n_want, have, n_have);
	return r;
}

int guard_nets_set(const struct guard_maps *maps, const struct plan *plan)
{
	int r = set_nets(maps->net4, true, plan->v4, plan->n_v4);

	return r < 0 ? r : set_nets(maps->net6, false, plan->v6, plan->n_v6);
}
