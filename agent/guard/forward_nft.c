/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/forward_nft.h"

#include <arpa/inet.h>
#include <linux/if_arp.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netlink.h>
#include <string.h>

#include "abi/overlay.h"
#include "base/owned.h"
#include "guard/forward.h"
#include "redirect/nft_make.h"
#include "redirect/plan.h"

/* Destinations are rewritten in prerouting, before any of the forward hook. Within it this chain is
 * early, so that what it refuses is neither copied (TEE in `mangle`), queued, nor offloaded to a
 * flowtable by somebody's chain; an accept ends this chain only. (What a flowtable carries already
 * when its pod is enrolled does not come by here: the guard on the interface is before that.)
 */
#define FORWARD_PRIORITY (NF_IP_PRI_MANGLE - 50)

/* What the node itself sends with a pod's address: IPVS, which takes a pod's packet off the input
 * hook, rewrites its destination and sends it from there, and transparent proxies. And what it says
 * of a pod that does not answer for its link address any more, to whoever a captured connection was
 * meant for: the agent answers in that one's name. And what is meant for ::1, which has no business
 * on a wire. After the rewriting of destinations (-100).
 */
#define OUTPUT_PRIORITY NF_IP_PRI_FILTER

/* Before anything of the node takes what it carries, and after fragments were put together. */
#define PREROUTING_PRIORITY NF_IP_PRI_RAW

#define REPORT_RATE    10 /* a second */
#define REPORT_BURST   20
#define REPORT_SNAPLEN 128
#define REPORT_PREFIX  "forward"

enum forward_chain { PREROUTING, FORWARD, OUTPUT, TUNNEL, FROM_POD, TO_POD, REFUSE, CHAIN_N_ };

static const char *const chain_names[] = {
	"prerouting", "forward", "output", "tunnel", "from-pod", "to-pod", "refuse",
};
_Static_assert(ARRAY_SIZE(chain_names) == CHAIN_N_, "every chain has a name");

enum family { ANY, V4, V6 };

/* Tested from the lowest bit up. All but those of conntrack and TCP need a rule of one family. */
enum forward_match {
	SRC_POD = 1 << 0,
	DST_POD = 1 << 1,
	SRC_CLUSTER = 1 << 2,
	DST_CLUSTER = 1 << 3,
	CT_REPLY = 1 << 4, /* towards who opened the connection */
	CT_LIVE = 1 << 5,  /* established or related: neither new, invalid nor untracked */
	CT_NEW = 1 << 6,
	TCP_NOT_SYN = 1 << 7,
	ND = 1 << 8,       /* ICMPv6 neighbour solicitation or advertisement */
	UNROUTED = 1 << 9, /* hop limit 255: no router has had it, nor has this one */
	DST_LINK = 1 << 10,
	DST_LINK_GROUP = 1 << 11,
	UNREACHABLE = 1 << 12, /* ICMP: the host that is named in it cannot be reached */
	NAMES_CLUSTER = 1 << 13,
	DST_NO_CLUSTER = 1 << 14,
	DST_LOOPBACK = 1 << 15, /* ::1 */
	LEAVES = 1 << 16,       /* by another device than lo */
	MATCH_END_ = 1 << 17,
};

enum forward_action {
	ACCEPT,
	DROP,
	REPORT,
	JUDGE_TUNNEL,
	JUDGE_FROM_POD,
	JUDGE_TO_POD,
	REFUSED,
};

/* What no rule settles is accepted in `prerouting`, `forward`, `output`, `tunnel` and `to-pod`. */
static const struct forward_rule {
	enum forward_chain chain;
	enum family family;
	uint32_t match;
	enum forward_action action;
} rules[] = {
	{PREROUTING, V4, SRC_POD, JUDGE_TUNNEL},
	{PREROUTING, V6, SRC_POD, JUDGE_TUNNEL},

	{FORWARD, V4, SRC_POD, JUDGE_FROM_POD},
	{FORWARD, V6, SRC_POD, JUDGE_FROM_POD},
	{FORWARD, V4, DST_POD, JUDGE_TO_POD},
	{FORWARD, V6, DST_POD, JUDGE_TO_POD},

	{OUTPUT, V4, UNREACHABLE | NAMES_CLUSTER | DST_NO_CLUSTER, DROP},
	{OUTPUT, V6, UNREACHABLE | NAMES_CLUSTER | DST_NO_CLUSTER, DROP},
	/* The kernel answers for a closed socket that was bound to an address of the node's by that
	 * address's device, to the agent's listener, too (hostnet). RFC 4291, 2.5.3. */
	{OUTPUT, V6, DST_LOOPBACK | LEAVES, DROP},
	{OUTPUT, V4, SRC_POD, JUDGE_FROM_POD},
	{OUTPUT, V6, SRC_POD, JUDGE_FROM_POD},

	/* Not CT_LIVE alone: that is also what a pod goes on sending on a connection that it opened
	 * before it was enrolled. */
	{FROM_POD, ANY, CT_REPLY | CT_LIVE, ACCEPT},
	{FROM_POD, V4, DST_CLUSTER, ACCEPT},
	{FROM_POD, V6, DST_CLUSTER, ACCEPT},
	/* Bridged packets come by here where br_netfilter is on, and IPv6 needs these on the link.
	 * A router's copy has a lower hop limit. */
	{FROM_POD, V6, ND | UNROUTED | DST_LINK, ACCEPT},
	{FROM_POD, V6, ND | UNROUTED | DST_LINK_GROUP, ACCEPT},
	{FROM_POD, ANY, 0, REFUSED},

	{TO_POD, V4, SRC_CLUSTER, ACCEPT},
	{TO_POD, V6, SRC_CLUSTER, ACCEPT},
	/* A connection that the pod opened before there was connection tracking: the outside would
	 * be taken for the side that opened it, and what the pod goes on sending for a reply. */
	{TO_POD, ANY, TCP_NOT_SYN | CT_NEW, DROP},

	{REFUSE, ANY, 0, REPORT},
	{REFUSE, ANY, 0, DROP},
};

/* What a node's overlay network unpacks comes out of it as if another node had sent it, from
 * whatever source is written inside. No pod has a part in that, wherever the outer packet goes.
 */
static const struct tunnel {
	uint8_t protocol;
	uint16_t dport; /* 0: any, or none */
} tunnels[] = {
	{IPPROTO_UDP, OVERLAY_PORT_VXLAN},
	{IPPROTO_UDP, OVERLAY_PORT_VXLAN_LINUX},
	{IPPROTO_UDP, OVERLAY_PORT_GENEVE},
	{IPPROTO_UDP, OVERLAY_PORT_WEAVE},
	{IPPROTO_UDP, OVERLAY_PORT_FLANNEL},
	{IPPROTO_IPIP, 0},
	{IPPROTO_IPV6, 0},
	{IPPROTO_GRE, 0},
};

/* ---- one rule ---- */

struct place {
	uint32_t src, dst, len; /* of addresses in the network header */
	const char *pods, *cluster;
	uint8_t nfproto, icmp;
	uint8_t unreachable[2]; /* type and code (RFC 792, RFC 4443 3.1) */
};

static const struct place places[] = {
	[V4] = {12, 16, 4, "pods4", "cluster4", NFPROTO_IPV4, IPPROTO_ICMP, {3, 1}},
	[V6] = {8, 24, 16, "pods6", "cluster6", NFPROTO_IPV6, IPPROTO_ICMPV6, {1, 3}},
};

#define ICMP_HEADER 8 /* then the packet that it is about */

static void match_addr(struct nft_make *m, uint32_t offset, uint32_t len, const char *set)
{
	nft_load_payload(m, NFT_PAYLOAD_NETWORK_HEADER, offset, len, 0);
	nft_look_up(m, set, 0);
}

/* Those bits of the destination's first two bytes. */
static void match_dst6(struct nft_make *m, const uint8_t mask[2], const uint8_t want[2])
{
	nft_load_payload(m, NFT_PAYLOAD_NETWORK_HEADER, 24, 2, 0);
	nft_mask(m, mask, 2);
	nft_compare(m, NFT_CMP_EQ, want, 2);
}

static void match_protocol(struct nft_make *m, uint8_t protocol)
{
	nft_load_meta(m, NFT_META_L4PROTO);
	nft_compare_u8(m, NFT_CMP_EQ, protocol);
}

static void match_not_syn(struct nft_make *m)
{
	static const uint8_t fin_syn_rst_ack = 0x17, syn = 0x02;

	match_protocol(m, IPPROTO_TCP);
	nft_load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, 0);
	nft_mask(m, &fin_syn_rst_ack, 1);
	nft_compare_u8(m, NFT_CMP_NEQ, syn);
}

static void match_nd(struct nft_make *m)
{
	match_protocol(m, IPPROTO_ICMPV6);
	nft_load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0);
	nft_compare_u8(m, NFT_CMP_GTE, 135);
	nft_compare_u8(m, NFT_CMP_LTE, 136);
}

static void match_unreachable(struct nft_make *m, const struct place *at)
{
	match_protocol(m, at->icmp);
	nft_load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, 0);
	nft_compare(m, NFT_CMP_EQ, at->unreachable, 2);
}

/* As the destination of the packet that could not be sent. */
static void match_named(struct nft_make *m, const struct place *at)
{
	nft_load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, ICMP_HEADER + at->dst, at->len, 0);
	nft_look_up(m, at->cluster, 0);
}

static void match_leaves(struct nft_make *m)
{
	static const uint16_t loopback = ARPHRD_LOOPBACK;

	nft_load_meta(m, NFT_META_OIFTYPE);
	nft_compare(m, NFT_CMP_NEQ, &loopback, sizeof(loopback));
}

static void add_match(struct nft_make *m, const struct place *at, enum forward_match match)
{
	static const uint8_t link_mask[] = {0xff, 0xc0}, link[] = {0xfe, 0x80};
	static const uint8_t group_mask[] = {0xff, 0xff}, group[] = {0xff, 0x02};

	switch (match) {
	case SRC_POD:
		return match_addr(m, at->src, at->len, at->pods);
	case DST_POD:
		return match_addr(m, at->dst, at->len, at->pods);
	case SRC_CLUSTER:
		return match_addr(m, at->src, at->len, at->cluster);
	case DST_CLUSTER:
		return match_addr(m, at->dst, at->len, at->cluster);
	case CT_REPLY:
		nft_load_ct(m, NFT_CT_DIRECTION);
		return nft_compare_u8(m, NFT_CMP_EQ, IP_CT_DIR_REPLY);
	case CT_LIVE:
		return nft_match_ct_bits(m, NFT_CT_STATE,
					 NF_CT_STATE_BIT(IP_CT_ESTABLISHED) |
						 NF_CT_STATE_BIT(IP_CT_RELATED));
	case CT_NEW:
		return nft_match_ct_bits(m, NFT_CT_STATE, NF_CT_STATE_BIT(IP_CT_NEW));
	case TCP_NOT_SYN:
		return match_not_syn(m);
	case ND:
		return match_nd(m);
	case UNROUTED:
		nft_load_payload(m, NFT_PAYLOAD_NETWORK_HEADER, 7, 1, 0);
		return nft_compare_u8(m, NFT_CMP_EQ, 255);
	case DST_LINK:
		return match_dst6(m, link_mask, link);
	case DST_LINK_GROUP:
		return match_dst6(m, group_mask, group);
	case UNREACHABLE:
		return match_unreachable(m, at);
	case NAMES_CLUSTER:
		return match_named(m, at);
	case DST_NO_CLUSTER:
		nft_load_payload(m, NFT_PAYLOAD_NETWORK_HEADER, at->dst, at->len, 0);
		return nft_look_up(m, at->cluster, NFT_LOOKUP_F_INV);
	case DST_LOOPBACK:
		nft_load_payload(m, NFT_PAYLOAD_NETWORK_HEADER, at->dst, at->len, 0);
		return nft_compare(m, NFT_CMP_EQ, &in6addr_loopback, at->len);
	case LEAVES:
		return match_leaves(m);
	case MATCH_END_:
		break;
	}
}

static void add_action(struct nft_make *m, enum forward_action action)
{
	switch (action) {
	case ACCEPT:
		return nft_verdict(m, NF_ACCEPT);
	case DROP:
		nft_count(m);
		return nft_verdict(m, NF_DROP);
	case REPORT: /* over the limit the rule ends there, and the next one is tried */
		nft_limit(m, REPORT_RATE, REPORT_BURST);
		return nft_report(m, FORWARD_NFLOG_GROUP, REPORT_SNAPLEN, REPORT_PREFIX);
	case JUDGE_TUNNEL:
		return nft_go_to(m, chain_names[TUNNEL]);
	case REFUSED:
		return nft_go_to(m, chain_names[REFUSE]);
	case JUDGE_FROM_POD:
		return nft_go_to(m, chain_names[FROM_POD]);
	case JUDGE_TO_POD:
		return nft_go_to(m, chain_names[TO_POD]);
	}
}

static void make_rule(struct nft_make *m, const struct forward_rule *rule)
{
	const struct place *at = &places[rule->family];

	nft_rule_begin(m, chain_names[rule->chain]);
	if (rule->family != ANY) {
		nft_load_meta(m, NFT_META_NFPROTO);
		nft_compare_u8(m, NFT_CMP_EQ, at->nfproto);
	}
	for (uint32_t bit = 1; bit < MATCH_END_; bit <<= 1) {
		if (rule->match & bit)
			add_match(m, at, (enum forward_match)bit);
	}
	add_action(m, rule->action);
	nft_rule_end(m, NULL);
}

static void make_tunnel_rule(struct nft_make *m, const struct tunnel *tunnel)
{
	nft_rule_begin(m, chain_names[TUNNEL]);
	match_protocol(m, tunnel->protocol);
	if (tunnel->dport) {
		nft_load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, 0);
		nft_compare_be16(m, NFT_CMP_EQ, tunnel->dport);
	}
	add_action(m, REFUSED);
	nft_rule_end(m, NULL);
}

/* ---- the table ---- */

static void make_sets(struct nft_make *m, const struct plan *plan, const struct addr *pods,
		      size_t n)
{
	nft_make_set(
		m, &(struct nft_make_set){.name = "pods4", .key_type = NFT_KEY_IPV4, .key_len = 4});
	nft_put_addrs4(m, NFT_MSG_NEWSETELEM, "pods4", pods, n);
	nft_make_set(m, &(struct nft_make_set){
				.name = "pods6", .key_type = NFT_KEY_IPV6, .key_len = 16});
	nft_put_addrs6(m, NFT_MSG_NEWSETELEM, "pods6", pods, n);
	nft_make_cluster_sets(m);
	nft_put_cluster(m, plan);
}

static void make_contents(struct nft_make *m, const struct plan *plan, const struct addr *pods,
			  size_t n)
{
	make_sets(m, plan, pods, n);
	/* What is gone to, before what goes. */
	nft_make_plain_chain(m, chain_names[REFUSE]);
	nft_make_plain_chain(m, chain_names[TUNNEL]);
	nft_make_plain_chain(m, chain_names[FROM_POD]);
	nft_make_plain_chain(m, chain_names[TO_POD]);
	nft_make_base_chain(m, &(struct nft_make_chain){.name = chain_names[PREROUTING],
							.hook = NF_INET_PRE_ROUTING,
							.priority = PREROUTING_PRIORITY,
							.policy = NF_ACCEPT});
	nft_make_base_chain(m, &(struct nft_make_chain){.name = chain_names[FORWARD],
							.hook = NF_INET_FORWARD,
							.priority = FORWARD_PRIORITY,
							.policy = NF_ACCEPT});
	nft_make_base_chain(m, &(struct nft_make_chain){.name = chain_names[OUTPUT],
							.hook = NF_INET_LOCAL_OUT,
							.priority = OUTPUT_PRIORITY,
							.policy = NF_ACCEPT});
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		make_rule(m, &rules[i]);
	for (size_t i = 0; i < ARRAY_SIZE(tunnels); i++)
		make_tunnel_rule(m, &tunnels[i]);
}

static struct nft_make begin(struct nft_steps *steps)
{
	return (struct nft_make){.steps = steps, .family = NFPROTO_INET, .table = FORWARD_TABLE};
}

static int end(const struct nft_make *m, struct nft_steps *ret)
{
	if (m->r < 0)
		return m->r;
	*ret = *m->steps;
	*m->steps = (struct nft_steps){0};
	return 0;
}

int forward_make_new(const struct plan *plan, const struct addr *pods, size_t n,
		     struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = begin(&steps);

	nft_make_table(&m, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
	make_contents(&m, plan, pods, n);
	return end(&m, ret);
}

int forward_make_replacement(const struct plan *plan, const struct addr *pods, size_t n,
			     struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = begin(&steps);

	/* Deleting what may not be there fails, so it is made first. */
	nft_make_table(&m, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	nft_make_table(&m, NFT_MSG_DELTABLE, 0);
	nft_make_table(&m, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	make_contents(&m, plan, pods, n);
	return end(&m, ret);
}

int forward_make_removal(struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = begin(&steps);

	nft_make_table(&m, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	nft_make_table(&m, NFT_MSG_DELTABLE, 0);
	return end(&m, ret);
}

static void put_pods(struct nft_make *m, uint16_t type, const struct addr *pods, size_t n)
{
	nft_put_addrs4(m, type, "pods4", pods, n);
	nft_put_addrs6(m, type, "pods6", pods, n);
}

int forward_make_more(const struct addr *pods, size_t n, struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = begin(&steps);

	put_pods(&m, NFT_MSG_NEWSETELEM, pods, n);
	return end(&m, ret);
}

int forward_make_fewer(const struct addr *pods, size_t n, struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	struct nft_make m = begin(&steps);

	/* One that is not there cannot be deleted, and would take the others with it. */
	put_pods(&m, NFT_MSG_NEWSETELEM, pods, n);
	put_pods(&m, NFT_MSG_DELSETELEM, pods, n);
	return end(&m, ret);
}
