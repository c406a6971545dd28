/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "abi/hostnet.h"
#include "base/owned.h"
#include "guard/hostnet_own.h"

#define BATCH 512

int hostnet_tables_begin(const struct hostnet_maps *maps, uint64_t id, bool fresh)
{
	struct hostnet_cgroup cg;
	int r = bpf_map_lookup_elem(maps->cgroups, &id, &cg);

	if (r < 0)
		return r;
	if (!fresh && cg.id == id)
		return 0;
	/* The kernel keeps it until the cgroup goes, and connections of a former capture may still
	 * end: the serial tells them from ours. */
	cg = (struct hostnet_cgroup){.id = id};
	if (getrandom(&cg.serial, sizeof(cg.serial), 0) != sizeof(cg.serial))
		return -errno;
	return bpf_map_update_elem(maps->cgroups, &id, &cg, BPF_ANY);
}

int hostnet_tables_check(const struct hostnet_maps *maps, uint64_t id)
{
	struct hostnet_cgroup cg;
	int r = bpf_map_lookup_elem(maps->cgroups, &id, &cg);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	return cg.id == id ? 0 : -ESTALE;
}

/* ---- origins ---- */

struct batch {
	struct hostnet_key keys[BATCH];
	struct hostnet_origin values[BATCH];
};

/* Deletes those of the cgroup; with 0, those that are HOSTNET_CLOSED. */
static void drop_origins(const struct hostnet_maps *maps, uint64_t cgroup)
{
	OWNED_MEM struct batch *b = malloc(sizeof(*b));
	__u32 at, n;
	int r = 0;

	for (bool first = true; b && r == 0; first = false) {
		n = BATCH;
		r = bpf_map_lookup_batch(maps->origins, first ? NULL : &at, &at, b->keys, b->values,
					 &n, NULL);
		if (r < 0 && r != -ENOENT) /* ENOENT: these were the last */
			return;
		for (__u32 i = 0; i < n; i++) {
			const struct hostnet_origin *o = &b->values[i];

			if (cgroup ? o->cgroup == cgroup : o->flags & HOSTNET_CLOSED)
				bpf_map_delete_elem(maps->origins, &b->keys[i]);
		}
	}
}

void hostnet_tables_sweep(const struct hostnet_maps *maps)
{
	drop_origins(maps, 0);
}

void hostnet_tables_forget(const struct hostnet_maps *maps, uint64_t id)
{
	static const uint8_t protos[] = {IPPROTO_ICMP,   IPPROTO_TCP,  IPPROTO_UDP,
					 IPPROTO_ICMPV6, IPPROTO_SCTP, HOSTNET_PROTO_OTHER};

	drop_origins(maps, id);
	for (size_t i = 0; i < ARRAY_SIZE(protos); i++) {
		for (uint8_t why = 0; why < HOSTNET_WHY_N_; why++) {
			struct hostnet_count_key key = {
				.cgroup = id, .proto = protos[i], .why = why};

			bpf_map_delete_elem(maps->refused, &key);
		}
	}
}
