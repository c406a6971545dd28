/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/nft_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <libnftnl/expr.h>
#include <netinet/in.h>
#include <string.h>

#include "base/owned.h"

#define LO_IFINDEX 1 /* in every namespace, from its birth */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* The first thing that fails is remembered, so that the lines below need not ask. */
struct builder {
	struct nftnl_rule *rule;
	const struct plan *plan;
	enum plan_family family;
	int r;
};

static struct nftnl_expr *add(struct builder *b, const char *name)
{
	struct nftnl_expr *e;

	if (b->r < 0)
		return NULL;
	errno = ENOMEM;
	e = nftnl_expr_alloc(name);
	if (!e) {
		b->r = -errno;
		return NULL;
	}
	nftnl_rule_add_expr(b->rule, e);
	return e;
}

/* ---- loads into register 1, and comparisons with it ---- */

static void load_meta(struct builder *b, uint32_t key)
{
	struct nftnl_expr *e = add(b, "meta");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, NFT_REG_1);
}

static void load_ct(struct builder *b, uint32_t key)
{
	struct nftnl_expr *e = add(b, "ct");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
}

static void load_payload(struct builder *b, uint32_t base, uint32_t offset, uint32_t len)
{
	struct nftnl_expr *e = add(b, "payload");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, len);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
}

static void load_transport(struct builder *b, uint32_t offset, uint32_t len)
{
	load_payload(b, NFT_PAYLOAD_TRANSPORT_HEADER, offset, len);
}

static void load_src(struct builder *b)
{
	bool v4 = b->family == PLAN_FAMILY_V4;

	load_payload(b, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 12 : 8, v4 ? 4 : 16);
}

static void load_dst(struct builder *b)
{
	bool v4 = b->family == PLAN_FAMILY_V4;

	load_payload(b, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 16 : 24, v4 ? 4 : 16);
}

static void load_fib(struct builder *b, uint32_t result, uint32_t flags)
{
	struct nftnl_expr *e = add(b, "fib");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, result);
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, flags);
	nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
}

static void keep_bits(struct builder *b, const void *mask, uint32_t len)
{
	static const uint8_t zero[16];
	struct nftnl_expr *e = add(b, "bitwise");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, len);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask, len);
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, zero, len);
}

static void compare(struct builder *b, enum nft_cmp_ops op, const void *value, uint32_t len)
{
	struct nftnl_expr *e = add(b, "cmp");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, value, len);
}

static void compare_u8(struct builder *b, enum nft_cmp_ops op, uint8_t value)
{
	compare(b, op, &value, sizeof(value));
}

static void compare_u32(struct builder *b, enum nft_cmp_ops op, uint32_t value)
{
	compare(b, op, &value, sizeof(value));
}

static void look_up(struct builder *b, const char *set)
{
	struct nftnl_expr *e = add(b, "lookup");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, 0); /* said back by the kernel */
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set) < 0)
		b->r = -ENOMEM;
}

/* ---- matches ---- */

static void match_interface(struct builder *b, uint32_t key, enum nft_cmp_ops op)
{
	load_meta(b, key);
	compare_u32(b, op, LO_IFINDEX);
}

/* Any of `bits` in a word of conntrack. */
static void match_ct_bits(struct builder *b, uint32_t key, uint32_t bits)
{
	load_ct(b, key);
	keep_bits(b, &bits, sizeof(bits));
	compare_u32(b, NFT_CMP_NEQ, 0);
}

static void match_protocol(struct builder *b, uint8_t protocol)
{
	load_meta(b, NFT_META_L4PROTO);
	compare_u8(b, NFT_CMP_EQ, protocol);
}

static void match_tcp_flags(struct builder *b, uint8_t mask, enum nft_cmp_ops op, uint8_t value)
{
	load_transport(b, 13, 1);
	keep_bits(b, &mask, sizeof(mask));
	compare_u8(b, op, value);
}

static void match_icmp6(struct builder *b, uint8_t from, uint8_t to)
{
	match_protocol(b, IPPROTO_ICMPV6);
	load_transport(b, 0, 1);
	if (from == to) {
		compare_u8(b, NFT_CMP_EQ, from);
		return;
	}
	compare_u8(b, NFT_CMP_GTE, from);
	compare_u8(b, NFT_CMP_LTE, to);
}

static void match_dst_net(struct builder *b, const char *net)
{
	uint8_t mask[16] = {0};
	uint32_t len = b->family == PLAN_FAMILY_V4 ? 4 : 16, skip = 16 - len;
	struct cidr c;

	if (cidr_parse(net, &c) < 0) {
		b->r = b->r ?: -EINVAL;
		return;
	}
	for (unsigned i = 0; i < c.bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
	load_dst(b);
	if (c.bits < 128)
		keep_bits(b, mask + skip, len);
	compare(b, NFT_CMP_EQ, c.ip + skip, len);
}

static void match_cluster(struct builder *b)
{
	look_up(b, b->family == PLAN_FAMILY_V4 ? NFT_SET_CLUSTER4 : NFT_SET_CLUSTER6);
}

static void match_src_type(struct builder *b, enum nft_cmp_ops op)
{
	load_fib(b, NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_SADDR);
	compare_u32(b, op, RTN_LOCAL);
}

/* The interface that leads to the source, 0 unless it is the one that the packet came by. */
static void match_src_astray(struct builder *b)
{
	load_fib(b, NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF);
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
		return match_ct_bits(b, NFT_CT_STATE,
				     NF_CT_STATE_BIT(IP_CT_ESTABLISHED) |
					     NF_CT_STATE_BIT(IP_CT_RELATED));
	case PLAN_CT_REPLY:
		load_ct(b, NFT_CT_DIRECTION);
		return compare_u8(b, NFT_CMP_EQ, IP_CT_DIR_REPLY);
	case PLAN_CT_NEW:
		return match_ct_bits(b, NFT_CT_STATE, NF_CT_STATE_BIT(IP_CT_NEW));
	case PLAN_CT_DNAT:
		return match_ct_bits(b, NFT_CT_STATUS, IPS_DST_NAT);
	case PLAN_TCP:
		return match_protocol(b, IPPROTO_TCP);
	case PLAN_TCP_RST:
		return match_tcp_flags(b, TCP_RST, NFT_CMP_NEQ, 0);
	case PLAN_TCP_NOT_SYN:
		return match_tcp_flags(b, TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK, NFT_CMP_NEQ,
				       TCP_SYN);
	case PLAN_DPORT_CAPTURE:
		load_transport(b, 2, sizeof(port));
		return compare(b, NFT_CMP_EQ, &port, sizeof(port));
	case PLAN_ND:
		return match_icmp6(b, 135, 136);
	case PLAN_MLD_OR_RS:
		return match_icmp6(b, 131, 133);
	case PLAN_MLD2:
		return match_icmp6(b, 143, 143);
	case PLAN_HOPLIMIT_255:
		load_payload(b, NFT_PAYLOAD_NETWORK_HEADER, 7, 1);
		return compare_u8(b, NFT_CMP_EQ, 255);
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
		return look_up(b, NFT_SET_NEIGHBOURS);
	case PLAN_SRC_LOCAL:
		return match_src_type(b, NFT_CMP_EQ);
	case PLAN_SRC_NOT_LOCAL:
		return match_src_type(b, NFT_CMP_NEQ);
	case PLAN_SRC_ASTRAY:
		return match_src_astray(b);
	case PLAN_QUIC:
		match_protocol(b, IPPROTO_UDP);
		load_transport(b, 2, sizeof(https));
		return compare(b, NFT_CMP_EQ, &https, sizeof(https));
	case PLAN_DST_ROUTED:
		load_fib(b, NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR);
		return compare_u32(b, NFT_CMP_EQ, RTN_UNICAST);
	case PLAN_MATCH_END_:
		break;
	}
	b->r = b->r ?: -EINVAL;
}

static void match_family(struct builder *b)
{
	if (b->family == PLAN_FAMILY_ANY)
		return;
	load_meta(b, NFT_META_NFPROTO);
	compare_u8(b, NFT_CMP_EQ, b->family == PLAN_FAMILY_V4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
}

/* ---- actions ---- */

static void verdict(struct builder *b, uint32_t code)
{
	struct nftnl_expr *e = add(b, "immediate");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, code);
}

static void redirect_to(struct builder *b, uint16_t port)
{
	__be16 be_port = htons(port);
	struct nftnl_expr *e = add(b, "immediate");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
	nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, &be_port, sizeof(be_port));

	e = add(b, "redir");
	if (!e)
		return;
	/* The second register and the flag are what the kernel says when asked afterwards. */
	nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MIN, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_REG_PROTO_MAX, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_REDIR_FLAGS, NF_NAT_RANGE_PROTO_SPECIFIED);
}

static void reject(struct builder *b, uint32_t type, uint8_t code)
{
	struct nftnl_expr *e;

	add(b, "counter");
	e = add(b, "reject");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_REJECT_TYPE, type);
	nftnl_expr_set_u8(e, NFTNL_EXPR_REJECT_CODE, code);
}

static void learn(struct builder *b)
{
	struct nftnl_expr *e;

	load_src(b);
	e = add(b, "dynset");
	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_SREG_KEY, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
	nftnl_expr_set_u64(e, NFTNL_EXPR_DYNSET_TIMEOUT, NFT_NEIGHBOUR_TIMEOUT_MS);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_DYNSET_SET_NAME, NFT_SET_NEIGHBOURS) < 0)
		b->r = -ENOMEM;
}

/* Over the limit the rule ends there, and the next one is tried as after the report. */
static void report(struct builder *b, const char *prefix)
{
	struct nftnl_expr *e = add(b, "limit");

	if (!e)
		return;
	nftnl_expr_set_u64(e, NFTNL_EXPR_LIMIT_RATE, PLAN_REPORT_RATE);
	nftnl_expr_set_u64(e, NFTNL_EXPR_LIMIT_UNIT, 1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_BURST, PLAN_REPORT_BURST);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_FLAGS, 0);

	e = add(b, "log");
	if (!e)
		return;
	nftnl_expr_set_u16(e, NFTNL_EXPR_LOG_GROUP, PLAN_NFLOG_GROUP);
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOG_SNAPLEN, PLAN_REPORT_SNAPLEN);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOG_PREFIX, prefix) < 0)
		b->r = -ENOMEM;
}

static void add_action(struct builder *b, enum plan_action action)
{
	switch (action) {
	case PLAN_ACTION_ACCEPT:
		return verdict(b, NF_ACCEPT);
	case PLAN_ACTION_REDIRECT:
		return redirect_to(b, b->plan->capture_port);
	case PLAN_ACTION_RESET:
		return reject(b, NFT_REJECT_TCP_RST, 0);
	case PLAN_ACTION_PROHIBIT:
		return reject(b, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	case PLAN_ACTION_DROP:
		add(b, "counter");
		return verdict(b, NF_DROP);
	case PLAN_ACTION_LEARN:
		return learn(b);
	case PLAN_ACTION_REPORT_REFUSED:
		return report(b, PLAN_PREFIX_REFUSED);
	case PLAN_ACTION_REPORT_BYPASS:
		return report(b, PLAN_PREFIX_BYPASS);
	case PLAN_ACTION_N_:
		break;
	}
	b->r = b->r ?: -EINVAL;
}

int nft_rule_make(const struct plan *plan, const struct plan_rule *rule, struct nftnl_rule **ret)
{
	struct builder b = {.plan = plan, .family = rule->family};

	b.rule = nftnl_rule_alloc();
	if (!b.rule)
		return -ENOMEM;
	nftnl_rule_set_u32(b.rule, NFTNL_RULE_FAMILY, NFPROTO_INET);
	if (nftnl_rule_set_str(b.rule, NFTNL_RULE_TABLE, NFT_TABLE) < 0 ||
	    nftnl_rule_set_str(b.rule, NFTNL_RULE_CHAIN, plan_chain_str(rule->chain)) < 0)
		b.r = -ENOMEM;

	match_family(&b);
	for (uint32_t m = 1; m < PLAN_MATCH_END_; m <<= 1) {
		if (rule->match & m)
			add_match(&b, (enum plan_match)m);
	}
	add_action(&b, rule->action);

	if (b.r < 0) {
		nftnl_rule_free(b.rule);
		return b.r;
	}
	*ret = b.rule;
	return 0;
}
