/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/netdev_nft.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "guard/netdev_rules.h"
#include "redirect/nft_netlink.h"
#include "redirect/plan.h"

/* Before every other chain of the hook: a flowtable, for one, forwards packets from there. */
#define PRIORITY (-500)

/* The room of a connection that has left `flows` is free only when the kernel next collects what is
 * dead, once a second: at 2,000 short ones a second as many again are on their way out.
 */
#define ROOM_PER_FLOW 2
/* In `brief` are the last packets of closed connections, UDP and echoes, each for some seconds. */
#define BRIEF_PER_FLOW 8

struct nft_make netdev_begin(struct nft_steps *steps)
{
	return (struct nft_make){.steps = steps, .family = NFPROTO_NETDEV, .table = NETDEV_TABLE};
}

/* ---- what pods share ---- */

void netdev_want_base(struct nft_make *m, const struct plan *plan)
{
	nft_make_table(m, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	nft_make_cluster_sets(m);
	nft_put_cluster(m, plan);
}

void netdev_make_base(struct nft_make *m, const struct plan *plan)
{
	nft_make_table(m, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	nft_make_cluster_sets(m);
	nft_flush_set(m, NFT_SET_CLUSTER4);
	nft_flush_set(m, NFT_SET_CLUSTER6);
	nft_put_cluster(m, plan);
}

/* ---- a pod ---- */

static void name(char buf[static NETDEV_NAME_MAX], const char *what, uint32_t ifindex)
{
	snprintf(buf, NETDEV_NAME_MAX, "%s-%u", what, ifindex);
}

uint32_t netdev_ifindex(const char *object)
{
	const char *dash = strrchr(object, '-');
	unsigned long n;
	char *end;

	if (!dash || dash[1] < '1' || dash[1] > '9')
		return 0;
	n = strtoul(dash + 1, &end, 10);
	return *end || n > UINT32_MAX ? 0 : (uint32_t)n;
}

static void make_flows(struct nft_make *m, const char *set, unsigned size)
{
	nft_make_set(m, &(struct nft_make_set){.name = set,
					       .flags = NFT_SET_EVAL | NFT_SET_TIMEOUT,
					       .key_type = NETDEV_KEY_TYPE,
					       .key_len = NETDEV_KEY_LEN,
					       .size = size});
}

static void make_own(struct nft_make *m, const struct netdev_names *names,
		     const struct netdev_pod *pod, bool flush)
{
	nft_make_set(m, &(struct nft_make_set){
				.name = names->own4, .key_type = NFT_KEY_IPV4, .key_len = 4});
	nft_make_set(m, &(struct nft_make_set){
				.name = names->own6, .key_type = NFT_KEY_IPV6, .key_len = 16});
	if (flush) {
		nft_flush_set(m, names->own4);
		nft_flush_set(m, names->own6);
	}
	nft_put_addrs4(m, NFT_MSG_NEWSETELEM, names->own4, pod->addrs, pod->n_addrs);
	nft_put_addrs6(m, NFT_MSG_NEWSETELEM, names->own6, pod->addrs, pod->n_addrs);
}

static void make_chains(struct nft_make *m, const struct netdev_names *names,
			const struct netdev_pod *pod)
{
	nft_make_base_chain(m, &(struct nft_make_chain){.name = names->in,
							.device = pod->device,
							.hook = NF_NETDEV_INGRESS,
							.priority = PRIORITY,
							.policy = NF_DROP});
	netdev_make_rules(m, NETDEV_IN, names, pod);
	if (!pod->egress)
		return;
	nft_make_base_chain(m, &(struct nft_make_chain){.name = names->out,
							.device = pod->device,
							.hook = NF_NETDEV_EGRESS,
							.priority = PRIORITY,
							.policy = NF_ACCEPT});
	netdev_make_rules(m, NETDEV_OUT, names, pod);
}

static void make_pod(struct nft_make *m, const struct netdev_pod *pod, bool flush)
{
	struct netdev_names names;

	name(names.in, "in", pod->ifindex);
	name(names.out, "out", pod->ifindex);
	name(names.own4, "own4", pod->ifindex);
	name(names.own6, "own6", pod->ifindex);
	name(names.flows, "flows", pod->ifindex);
	name(names.brief, "brief", pod->ifindex);
	make_own(m, &names, pod, flush);
	make_flows(m, names.flows, pod->flows * ROOM_PER_FLOW);
	make_flows(m, names.brief, pod->flows * BRIEF_PER_FLOW);
	make_chains(m, &names, pod);
}

void netdev_make_pod(struct nft_make *m, const struct netdev_pod *pod)
{
	make_pod(m, pod, true);
}

void netdev_want_pod(struct nft_make *m, const struct netdev_pod *pod)
{
	make_pod(m, pod, false);
}

int netdev_print(const struct plan *plan, const struct netdev_pod *pod, FILE *out)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = netdev_begin(&steps);

	netdev_want_base(&m, plan);
	netdev_want_pod(&m, pod);
	if (m.r == 0)
		nft_print_result(&steps, out);
	return m.r;
}
