/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The table `netdev sluice-node` as messages of nf_tables, for guard_netdev.c. Shared by all pods
 * are the sets of the cluster's networks; each pod has its own chains and sets, named after the
 * index of its interface: in-N and out-N (what it sends, what is sent to it), own4-N and own6-N
 * (its addresses), flows-N and brief-N (what was opened towards it). Nothing here talks to the
 * kernel.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"
#include "guard/guard.h"
#include "redirect/nft_make.h"

#define NETDEV_TABLE    "sluice-node"
#define NETDEV_NAME_MAX 24 /* of a pod's chain or set, with the NUL */

struct netdev_pod {
	uint32_t ifindex;
	const char *device; /* its name at present */
	bool dhcp;
	uint8_t mac[6]; /* all that its frames may come from; zero: any */
	bool egress;    /* the kernel has that hook; else nothing can be answered */
	unsigned flows; /* TCP connections towards it that there is always room for */
	const struct addr *addrs;
	size_t n_addrs;
};

struct nft_make netdev_begin(struct nft_steps *steps);

/* The table and its shared sets; whatever these held is replaced. */
void netdev_make_base(struct nft_make *m, const struct plan *plan);
/* The same as it is afterwards, for nft_verify_part(). */
void netdev_want_base(struct nft_make *m, const struct plan *plan);

/* The pod's sets, which may be there (flows stay, addresses are replaced), and its chains, which
 * may not.
 */
void netdev_make_pod(struct nft_make *m, const struct netdev_pod *pod);
void netdev_want_pod(struct nft_make *m, const struct netdev_pod *pod);

/* The index in the name of a pod's chain or set; 0 for other names. */
uint32_t netdev_ifindex(const char *name);

/* What the comment of a rule says that it counts. False: it is none of these rules. */
bool netdev_read_comment(const char *comment, struct guard_count_key *ret);

/* All of it, as it is when it is in force. For tests. */
int netdev_print(const struct plan *plan, const struct netdev_pod *pod, FILE *out);
