/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The policy of the guard by nf_tables, as the rules of a pod's two chains. For netdev_nft.c. */
#include <stdbool.h>

#include "guard/netdev_nft.h"

enum netdev_chain {
	NETDEV_IN,  /* what the pod sends */
	NETDEV_OUT, /* what is sent to it */
};

/* Of one pod's chains and sets. */
struct netdev_names {
	char in[NETDEV_NAME_MAX], out[NETDEV_NAME_MAX];
	char own4[NETDEV_NAME_MAX], own6[NETDEV_NAME_MAX];
	char flows[NETDEV_NAME_MAX]; /* TCP connections */
	char brief[NETDEV_NAME_MAX]; /* the last of closed ones, UDP, echoes */
};

/* Keys of the last two: what it is, the far address, the pod's, the far port, the pod's. IPv4 in
 * its mapped form; each part fills words of 4 bytes.
 */
#define NETDEV_KEY_LEN 44
#define NETDEV_KEY_TYPE                                                                           \
	NFT_KEY_CONCAT(NFT_KEY_CONCAT(NFT_KEY_CONCAT(NFT_KEY_CONCAT(NFT_KEY_PROTO, NFT_KEY_IPV6), \
						     NFT_KEY_IPV6),                               \
				      NFT_KEY_PORT),                                              \
		       NFT_KEY_PORT)

void netdev_make_rules(struct nft_make *m, enum netdev_chain chain,
		       const struct netdev_names *names, const struct netdev_pod *pod);
