/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What is known of a pod's interfaces and addresses. Any thread; does not log. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

#define HOST_LINK_MAX_ADDRS 32 /* of one pod */
#define HOST_LINK_MAX_LINKS 8  /* Multus and the like give a pod more than one */

/* One that came later is configured after it is there: by a CNI plugin at once, by DHCP within
 * seconds. After the first address there may be another (of the other family), and no more.
 */
#define POD_LINK_OPEN_MS 10000
#define POD_LINK_DONE_MS 500

/* One interface of the pod that leads out of its namespace. */
struct host_link {
	char name[16];          /* in the pod */
	uint32_t ifindex;       /* of its peer in the node's namespace; 0 where it has none there */
	char kind[16];          /* "veth", "ipvlan", "macvlan", ... */
	uint8_t mac[6];         /* in the pod; zero: not known, or of another length */
	uint64_t open_until_ms; /* CLOCK_MONOTONIC; until then its link address and addresses are
				   what is found on it. 0: they are known for good */
};

struct pod_links {
	struct host_link links[HOST_LINK_MAX_LINKS];
	size_t n_links;
	struct addr addrs[HOST_LINK_MAX_ADDRS]; /* of all of them, link-local ones too; port 0 */
	size_t n_addrs;
};

bool pod_links_has_addr(const struct pod_links *links, const struct addr *addr); /* ports ignored */

/* By the end that the pod cannot change, where there is one. */
bool pod_links_has_link(const struct pod_links *links, const struct host_link *link);

bool pod_links_are_open(const struct pod_links *links, uint64_t now_ms);

/* Is there a link, a link address or an address that was not known `before`? */
bool pod_links_are_more(const struct pod_links *links, const struct pod_links *before);

/* What is known once `seen` has been read, `on[i]` being the number of the link that has
 * `seen->addrs[i]`: host_link.h says what is taken over. `ret` is another one than both. -E2BIG.
 */
int pod_links_join(const struct pod_links *known, const struct pod_links *seen, const size_t on[],
		   uint64_t now_ms, struct pod_links *ret);
