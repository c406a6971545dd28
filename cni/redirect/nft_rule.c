/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/nft_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include "redirect/nft_make.h"

#define LO_IFINDEX 1 /* in every namespace, from its birth */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* A rule of the plan, while its expressions are made. */
struct builder {
	struct nft_make make;
	const struct plan *plan;
	enum plan_family family;
};

static void invalid(struct builder *b)
{
	b->make.r = b->make.r ?: -EINVAL;
}

/* ---- loads, and comparisons with them ---- */

static void load_network(struct builder *b, uint32_t offset, uint32_t len)
{
	nft_load_payload(&b->make, NFT_PAYLOAD_NETWORK_HEADER, offset, len, 0);
}

static void load_transport(struct builder *b, uint32_t offset, uint32_t len)
{
	nft_load_payload(&b->make, NFT_PAYLOAD_TRANSPORT_HEADER, offset, len, 0);
}

static void load_src(struct builder *b)
{
	bool v4 = b->family == PLAN_FAMILY_V4;

	load_network(b, v4 ? 12 : 8, v4 ? 4 : 16);
}

static void load_dst(struct builder *b)
{
	bool v4 = b->family == PLAN_FAMILY_V4;

	load_network(b, v4 ? 16 : 24, v4 ? 4 : 16);
}

static void compare_u32(struct builder *b, enum nft_cmp_ops op, uint32_t value)
{
	nft_compare(&b->make, op, &value, sizeof(value));
}

/* ---- matches ---- */

static void match_interface(struct builder *b, uint32_t key, enum nft_cmp_ops op)
{
	nft_load_meta(&b->make, key);
	compare_u32(b, op, LO_IFINDEX);
}

static void match_protocol(struct builder *b, uint8_t protocol)
{
	nft_load_meta(&b->make, NFT_META_L4PROTO);
	nft_compare_u8(&b->make, NFT_CMP_EQ, protocol);
}

static void match_tcp_flags(struct builder *b, uint8_t mask, enum nft_cmp_ops op, uint8_t value)
{
	load_transport(b, 13, 1);
	nft_mask(&b->make, &mask, sizeof(mask));
	nft_compare_u8(&b->make, op, value);
}

static void match_icmp6(struct builder *b, uint8_t from, uint8_t to)
{
	match_protocol(b, IPPROTO_ICMPV6);
	load_transport(b, 0, 1);
	if (from == to) {
		nft_compare_u8(&b->make, NFT_CMP_EQ, from);
		return;
	}
	nft_compare_u8(&b->make, NFT_CMP_GTE, from);
	nft_compare_u8(&b->make, NFT_CMP_LTE, to);
}

static void match_dst_net(struct builder *b, const char *net)
{
	uint8_t mask[16] = {0};
	uint32_t len = b->family == PLAN_FAMILY_V4 ? 4 : 16, skip = 16 - len;
	struct cidr c;

	if (cidr_parse(net, &c) < 0) {
		return invalid(b);
	}
	for (unsigned i = 0; i < c.bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
	load_dst(b);
	if (c.bits < 128)
		nft_mask(&b->make, mask + skip, len);
	nft_compare(&b->make, NFT_CMP_EQ, c.ip + skip, len);
}

static void match_cluster(struct builder *b)
{
	nft_look_up(&b->make, b->family == PLAN_FAMILY_V4 ? NFT_SET_CLUSTER4 : NFT_SET_CLUSTER6, 0);
}

static void match_src_type(struct builder *b, enum nft_cmp_ops op)
{
	nft_load_fib(&b->make, NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_SADDR);
	compare_u32(b, op, RTN_LOCAL);
}

/* The interface that leads to the source, 0 unless it is the one that the packet came by. */
static void match_src_astray(struct builder *b)
{
	nft_load_fib(&b->make, NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF);
	compare_u32(b, NFT_CMP_EQ, 0);
}

static void add_match(struct builder *b, enum plan_match match)
{
	uint16_t port = htons(b->plan->capture_port), https = htons(443);

	switch (match) {
	case PLAN_IN_LO:
		return match_interface(b, NFT_META_IIF, NFT_CMP_EQ);
	case PLAN_IN_NOT_LO:
		return match_interface(b, NFT_META_IIF, NFT_CMP_NEQ);
	case PLAN_OUT_LO:
		return match_interface(b, NFT_META_OIF, NFT_CMP_EQ);
	case PLAN_OUT_NOT_LO:
		return match_interface(b, NFT_META_OIF, NFT_CMP_NEQ);
	case PLAN_CT_LIVE:
		return nft_match_ct_bits(&b->make, NFT_CT_STATE,
					 NF_CT_STATE_BIT(IP_CT_ESTABLISHED) |
						 NF_CT_STATE_BIT(IP_CT_RELATED));
	case PLAN_CT_REPLY:
		nft_load_ct(&b->make, NFT_CT_DIRECTION);
		return nft_compare_u8(&b->make, NFT_CMP_EQ, IP_CT_DIR_REPLY);
	case PLAN_CT_NEW:
		return nft_match_ct_bits(&b->make, NFT_CT_STATE, NF_CT_STATE_BIT(IP_CT_NEW));
	case PLAN_CT_DNAT:
		return nft_match_ct_bits(&b->make, NFT_CT_STATUS, IPS_DST_NAT);
	case PLAN_TCP:
		return match_protocol(b, IPPROTO_TCP);
	case PLAN_TCP_RST:
		return match_tcp_flags(b, TCP_RST, NFT_CMP_NEQ, 0);
	case PLAN_TCP_NOT_SYN:
		return match_tcp_flags(b, TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK, NFT_CMP_NEQ,
				       TCP_SYN);
	case PLAN_DPORT_CAPTURE:
		load_transport(b, 2, sizeof(port));
		return nft_compare(&b->make, NFT_CMP_EQ, &port, sizeof(port));
	case PLAN_ND:
		return match_icmp6(b, 135, 136);
	case PLAN_MLD_OR_RS:
		return match_icmp6(b, 131, 133);
	case PLAN_MLD2:
		return match_icmp6(b, 143, 143);
	case PLAN_HOPLIMIT_255:
		load_network(b, 7, 1);
		return nft_compare_u8(&b->make, NFT_CMP_EQ, 255);
	case PLAN_SRC_CLUSTER:
		load_src(b);
		return match_cluster(b);
	case PLAN_DST_CLUSTER:
		load_dst(b);
		return match_cluster(b);
	case PLAN_DST_LOOPBACK:
		return match_dst_net(b, b->family == PLAN_FAMILY_V4 ? "127.0.0.0/8" : "::1");
	case PLAN_DST_LINK:
		return match_dst_net(b, "fe80::/10");
	case PLAN_DST_LINK_GROUP:
		return match_dst_net(b, "ff02::/16");
	case PLAN_DST_NEIGHBOUR:
		load_dst(b);
		return nft_look_up(&b->make, NFT_SET_NEIGHBOURS, 0);
	case PLAN_SRC_LOCAL:
		return match_src_type(b, NFT_CMP_EQ);
	case PLAN_SRC_NOT_LOCAL:
		return match_src_type(b, NFT_CMP_NEQ);
	case PLAN_SRC_ASTRAY:
		return match_src_astray(b);
	case PLAN_QUIC:
		match_protocol(b, IPPROTO_UDP);
		load_transport(b, 2, sizeof(https));
		return nft_compare(&b->make, NFT_CMP_EQ, &https, sizeof(https));
	case PLAN_DST_ROUTED:
		nft_load_fib(&b->make, NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR);
		return compare_u32(b, NFT_CMP_EQ, RTN_UNICAST);
	case PLAN_MATCH_END_:
		break;
	}
	invalid(b);
}

static void match_family(struct builder *b)
{
	if (b->family == PLAN_FAMILY_ANY)
		return;
	nft_load_meta(&b->make, NFT_META_NFPROTO);
	nft_compare_u8(&b->make, NFT_CMP_EQ,
		       b->family == PLAN_FAMILY_V4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
}

/* ---- actions ---- */

static void redirect_to(struct builder *b, uint16_t port)
{
	uint16_t be_port = htons(port);

	nft_load_value(&b->make, &be_port, sizeof(be_port), 0);
	nft_redirect(&b->make);
}

static void reject(struct builder *b, uint32_t type, uint8_t code)
{
	nft_count(&b->make);
	nft_reject(&b->make, type, code);
}

static void learn(struct builder *b)
{
	load_src(b);
	nft_change_set(&b->make, NFT_DYNSET_OP_UPDATE, NFT_SET_NEIGHBOURS,
		       NFT_NEIGHBOUR_TIMEOUT_MS);
}

/* Over the limit the rule ends there, and the next one is tried as after the report. */
static void report(struct builder *b, const char *prefix)
{
	nft_limit(&b->make, PLAN_REPORT_RATE, PLAN_REPORT_BURST);
	nft_report(&b->make, PLAN_NFLOG_GROUP, PLAN_REPORT_SNAPLEN, prefix);
}

static void add_action(struct builder *b, enum plan_action action)
{
	switch (action) {
	case PLAN_ACTION_ACCEPT:
		return nft_verdict(&b->make, NF_ACCEPT);
	case PLAN_ACTION_REDIRECT:
		return redirect_to(b, b->plan->capture_port);
	case PLAN_ACTION_RESET:
		return reject(b, NFT_REJECT_TCP_RST, 0);
	case PLAN_ACTION_PROHIBIT:
		return reject(b, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	case PLAN_ACTION_DROP:
		nft_count(&b->make);
		return nft_verdict(&b->make, NF_DROP);
	case PLAN_ACTION_LEARN:
		return learn(b);
	case PLAN_ACTION_REPORT_REFUSED:
		return report(b, PLAN_PREFIX_REFUSED);
	case PLAN_ACTION_REPORT_BYPASS:
		return report(b, PLAN_PREFIX_BYPASS);
	case PLAN_ACTION_N_:
		break;
	}
	invalid(b);
}

int nft_rule_make(const struct plan *plan, const struct plan_rule *rule, struct nftnl_rule **ret)
{
	struct builder b = {.make = {.family = NFPROTO_INET, .table = NFT_TABLE},
			    .plan = plan,
			    .family = rule->family};

	nft_rule_begin(&b.make, plan_chain_str(rule->chain));
	match_family(&b);
	for (uint32_t m = 1; m < PLAN_MATCH_END_; m <<= 1) {
		if (rule->match & m)
			add_match(&b, (enum plan_match)m);
	}
	add_action(&b, rule->action);

	if (b.make.r < 0) {
		if (b.make.rule)
			nftnl_rule_free(b.make.rule);
		return b.make.r;
	}
	*ret = b.make.rule;
	return 0;
}
