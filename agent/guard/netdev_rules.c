/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/netdev_rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <string.h>

#include "base/owned.h"

#define SECOND 1000ULL
#define DAY    (24 * 3600 * SECOND)

#define OPENED_FOR (30 * SECOND) /* a SYN that nobody has answered yet */
#define LIVE_FOR   (5 * DAY)     /* as conntrack has it */
#define HALF_FOR   (60 * SECOND) /* the far end has said all, the pod has not */
#define CLOSED_FOR (5 * SECOND)
#define ASKED_FOR  (10 * SECOND) /* one datagram, one echo request */
#define TALKS_FOR  (60 * SECOND) /* the second datagram and on */

/* The first part of a flow's key: a protocol, or this (RFC 3692's number for experiments). */
#define KIND_CLOSED 253

/* Some are matches, in the order given; some load what the next ones look at; some change a set.
 * Whatever cannot be read, as a port beyond the packet's end, ends the rule like a match that
 * fails.
 */
enum word {
	END,
	MAC_NOT_OWN,
	TAG_C,  /* IEEE 802.1Q; the kernel has taken the tag off, but shows it in the header */
	TAG_S,  /* 802.1ad */
	NOT_V4, /* in a frame that says it is */
	NOT_V6,
	SHORT,   /* header length below the least */
	OPTIONS, /* of IPv4 */
	ROUTING_HEADER,
	WELL_FORMED, /* the kernel could find the transport header */
	NOT_ARP_OF_IPV4,
	ARP_OP, /* request or reply */
	ARP_REQUEST,
	SRC_OWN,
	SRC_NOT_OWN,
	SRC_NONE, /* 0.0.0.0, :: */
	SRC_CLUSTER,
	DST_CLUSTER,
	DST_BROADCAST,
	DST_LINK,       /* fe80::/10 */
	DST_LINK_GROUP, /* ff02::/16 */
	DST_SOLICITED,  /* ff02::1:ff00:0/104 */
	DST_DHCP6,      /* ff02::1:2 */
	FRAGMENT,
	LATER_FRAGMENT, /* not the first one */
	TCP,
	UDP,
	ICMP,      /* of the family */
	TCP_OPENS, /* SYN without ACK */
	TCP_RST,
	TCP_FIN,
	DHCP_PORTS,
	ECHO,
	ECHO_REPLY,
	UNREACHABLE,     /* and "too big", of IPv6 */
	FROM_ROUTER_134, /* router advertisement */
	FROM_ROUTER_137, /* redirect */
	NS,
	NA,
	MLD_OR_RS, /* 131 to 133 */
	MLD2,
	TARGET_OWN, /* of a neighbour solicitation or advertisement */
	TARGET_NOT_OWN,
	ARP_TARGET_OWN,
	KEY_TCP, /* the packet's key, or that of the packet that it quotes */
	KEY_CLOSED,
	KEY_UDP,
	KEY_ECHO,
	KEY_QUOTED_TCP,
	KEY_QUOTED_UDP,
	AS_TCP, /* the key that is loaded, as that of another kind */
	AS_CLOSED,
	IN_FLOWS,
	IN_BRIEF,
	FLOW_OPENED, /* the rule ends where the set is full */
	FLOW_LIVES,
	FLOW_ENDS,
	BRIEF_HALF,
	BRIEF_CLOSED,
	BRIEF_ASKED,
	BRIEF_TALKS,
};

enum family {
	FIRST, /* whatever the frame is */
	V4,
	V6,
	IP, /* a rule for each of the two */
	ARP,
	LAST,
};

enum verdict {
	ACCEPT,
	DROP,
	ACCEPT_DHCP, /* where the pod may ask for an address */
	DROP_MAC,    /* where its link address is known */
};

#define WORDS_MAX 9
#define OTHER     GUARD_PROTO_OTHER

struct netdev_rule {
	enum netdev_chain chain;
	enum family family;
	enum word words[WORDS_MAX];
	enum verdict verdict;
	enum guard_why why; /* of DROP */
	uint8_t proto;
};

#define PASS(...)      {__VA_ARGS__}, ACCEPT, GUARD_WHY_NONE, 0
#define PASS_DHCP(...) {__VA_ARGS__}, ACCEPT_DHCP, GUARD_WHY_NONE, 0

/* The whole policy. All of FIRST are tried, then those of the frame's family, then LAST; what none
 * settles is dropped in IN, and let through in OUT.
 */
static const struct netdev_rule rules[] = {
	{NETDEV_IN, FIRST, {MAC_NOT_OWN}, DROP_MAC, GUARD_WHY_SPOOFED, GUARD_PROTO_ETHER},
	{NETDEV_IN, FIRST, {TAG_C}, DROP, GUARD_WHY_VLAN, GUARD_PROTO_ETHER},
	{NETDEV_IN, FIRST, {TAG_S}, DROP, GUARD_WHY_VLAN, GUARD_PROTO_ETHER},

	{NETDEV_IN, V4, {NOT_V4}, DROP, GUARD_WHY_MALFORMED, OTHER},
	{NETDEV_IN, V4, {SHORT}, DROP, GUARD_WHY_MALFORMED, OTHER},
	/* All of them: a list of good ones would have to read options as the next router does. */
	{NETDEV_IN, V4, {OPTIONS}, DROP, GUARD_WHY_SOURCE_ROUTE, OTHER},
	{NETDEV_IN, V4, PASS_DHCP(UDP, SRC_NONE, DST_BROADCAST, DHCP_PORTS)},
	{NETDEV_IN, V4, PASS_DHCP(UDP, SRC_OWN, DST_BROADCAST, DHCP_PORTS)},

	{NETDEV_IN, V6, {NOT_V6}, DROP, GUARD_WHY_MALFORMED, OTHER},
	/* Of any kind: one that is used up may stand before one that is not. */
	{NETDEV_IN, V6, {ROUTING_HEADER}, DROP, GUARD_WHY_SOURCE_ROUTE, OTHER},
	{NETDEV_IN, V6, {ICMP, FROM_ROUTER_134}, DROP, GUARD_WHY_SPOOFED, IPPROTO_ICMPV6},
	{NETDEV_IN, V6, {ICMP, FROM_ROUTER_137}, DROP, GUARD_WHY_SPOOFED, IPPROTO_ICMPV6},
	{NETDEV_IN, V6, {ICMP, NA, TARGET_NOT_OWN}, DROP, GUARD_WHY_SPOOFED, IPPROTO_ICMPV6},
	/* Without an address yet: is it taken (RFC 4862), who are you, routers, I listen to... */
	{NETDEV_IN, V6, PASS(SRC_NONE, ICMP, NS, DST_SOLICITED, TARGET_OWN)},
	{NETDEV_IN, V6, PASS(SRC_NONE, ICMP, MLD_OR_RS, DST_LINK_GROUP)},
	{NETDEV_IN, V6, PASS(SRC_NONE, ICMP, MLD2, DST_LINK_GROUP)},
	{NETDEV_IN, V6, PASS_DHCP(UDP, SRC_OWN, DST_DHCP6, DHCP_PORTS)},

	{NETDEV_IN, IP, {SRC_NOT_OWN}, DROP, GUARD_WHY_SPOOFED, OTHER},
	{NETDEV_IN, IP, PASS(DST_CLUSTER, WELL_FORMED)},
	{NETDEV_IN, V6, PASS(ICMP, NS, DST_LINK)},
	{NETDEV_IN, V6, PASS(ICMP, NS, DST_LINK_GROUP)},
	{NETDEV_IN, V6, PASS(ICMP, NA, DST_LINK)},
	{NETDEV_IN, V6, PASS(ICMP, NA, DST_LINK_GROUP)},
	{NETDEV_IN, V6, PASS(ICMP, MLD_OR_RS, DST_LINK_GROUP)},
	{NETDEV_IN, V6, PASS(ICMP, MLD2, DST_LINK_GROUP)},
	/* Only the first one has ports to be known by: answers larger than the MTU do not leave. */
	{NETDEV_IN, IP, {FRAGMENT}, DROP, GUARD_WHY_FRAGMENT, OTHER},

	/* Answers. Nothing that the pod sends makes a flow live longer. */
	{NETDEV_IN, IP, {TCP, TCP_OPENS}, DROP, GUARD_WHY_OUTSIDE, IPPROTO_TCP},
	{NETDEV_IN, IP, PASS(TCP, TCP_RST, KEY_TCP, IN_FLOWS, FLOW_ENDS)},
	{NETDEV_IN, IP,
	 PASS(TCP, TCP_FIN, KEY_TCP, IN_FLOWS, AS_CLOSED, BRIEF_CLOSED, AS_TCP, FLOW_ENDS)},
	{NETDEV_IN, IP, PASS(TCP, TCP_FIN, KEY_TCP, IN_FLOWS, FLOW_ENDS)}, /* `brief` is full */
	{NETDEV_IN, IP, PASS(TCP, KEY_TCP, IN_FLOWS)},
	{NETDEV_IN, IP, PASS(TCP, KEY_CLOSED, IN_BRIEF)},
	{NETDEV_IN, IP, PASS(UDP, KEY_UDP, IN_BRIEF)},
	{NETDEV_IN, IP, PASS(ICMP, ECHO_REPLY, KEY_ECHO, IN_BRIEF)},
	{NETDEV_IN, IP, PASS(ICMP, UNREACHABLE, KEY_QUOTED_UDP, IN_BRIEF)},
	{NETDEV_IN, IP, PASS(ICMP, UNREACHABLE, KEY_QUOTED_TCP, IN_FLOWS)},

	{NETDEV_IN, IP, {TCP}, DROP, GUARD_WHY_OUTSIDE, IPPROTO_TCP},
	{NETDEV_IN, IP, {UDP}, DROP, GUARD_WHY_OUTSIDE, IPPROTO_UDP},
	{NETDEV_IN, V4, {ICMP}, DROP, GUARD_WHY_OUTSIDE, IPPROTO_ICMP},
	{NETDEV_IN, V6, {ICMP}, DROP, GUARD_WHY_OUTSIDE, IPPROTO_ICMPV6},
	{NETDEV_IN, IP, {WELL_FORMED}, DROP, GUARD_WHY_OUTSIDE, OTHER},
	{NETDEV_IN, IP, {END}, DROP, GUARD_WHY_MALFORMED, OTHER},

	{NETDEV_IN, ARP, {NOT_ARP_OF_IPV4}, DROP, GUARD_WHY_MALFORMED, GUARD_PROTO_ARP},
	{NETDEV_IN, ARP, PASS(ARP_OP, SRC_OWN)},
	{NETDEV_IN, ARP, PASS(ARP_REQUEST, SRC_NONE, ARP_TARGET_OWN)}, /* is it taken? (RFC 5227) */
	{NETDEV_IN, ARP, {END}, DROP, GUARD_WHY_SPOOFED, GUARD_PROTO_ARP},

	{NETDEV_IN, LAST, {END}, DROP, GUARD_WHY_ETHERTYPE, GUARD_PROTO_ETHER},

	/* What is opened towards the pod. Packets of no known connection pass and open nothing: the
	 * pod's answers do not. */
	{NETDEV_OUT, IP, PASS(SRC_CLUSTER)},
	{NETDEV_OUT, IP, PASS(LATER_FRAGMENT)},
	{NETDEV_OUT, IP, PASS(TCP, TCP_OPENS, KEY_TCP, FLOW_OPENED)},
	{NETDEV_OUT, IP, {TCP, TCP_OPENS}, DROP, GUARD_WHY_FLOWS_FULL, IPPROTO_TCP},
	{NETDEV_OUT, IP, PASS(TCP, TCP_RST, KEY_TCP, IN_FLOWS, FLOW_ENDS)},
	{NETDEV_OUT, IP,
	 PASS(TCP, TCP_FIN, KEY_TCP, IN_FLOWS, AS_CLOSED, BRIEF_HALF, AS_TCP, FLOW_ENDS)},
	{NETDEV_OUT, IP, PASS(TCP, TCP_FIN, KEY_TCP, IN_FLOWS, FLOW_ENDS)}, /* `brief` is full */
	{NETDEV_OUT, IP, PASS(TCP, KEY_TCP, IN_FLOWS, FLOW_LIVES)},
	{NETDEV_OUT, IP, PASS(TCP, KEY_CLOSED, IN_BRIEF, BRIEF_CLOSED)},
	{NETDEV_OUT, IP, PASS(UDP, KEY_UDP, IN_BRIEF, BRIEF_TALKS)},
	{NETDEV_OUT, IP, PASS(UDP, KEY_UDP, BRIEF_ASKED)},
	{NETDEV_OUT, IP, {UDP}, DROP, GUARD_WHY_FLOWS_FULL, IPPROTO_UDP},
	{NETDEV_OUT, IP, PASS(ICMP, ECHO, KEY_ECHO, BRIEF_ASKED)},
	{NETDEV_OUT, V4, {ICMP, ECHO}, DROP, GUARD_WHY_FLOWS_FULL, IPPROTO_ICMP},
	{NETDEV_OUT, V6, {ICMP, ECHO}, DROP, GUARD_WHY_FLOWS_FULL, IPPROTO_ICMPV6},
};

/* ---- where things are in a packet ---- */

struct place {
	uint16_t ethertype;
	uint32_t src, dst, len; /* of addresses in the network header */
	uint8_t icmp;
	uint8_t echo, echo_reply, unreachable_from, unreachable_to;
	/* In the header that an ICMP error quotes, 8 bytes behind its own beginning. */
	uint32_t quoted_proto, quoted_ports;
};

static const struct place places[] = {
	[V4] = {ETH_P_IP, 12, 16, 4, IPPROTO_ICMP, 8, 0, 3, 3, 8 + 9, 8 + 20},
	[V6] = {ETH_P_IPV6, 8, 24, 16, IPPROTO_ICMPV6, 128, 129, 1, 2, 8 + 6, 8 + 40},
	[ARP] = {.ethertype = ETH_P_ARP, .src = 14, .len = 4},
};

struct rule_make {
	struct nft_make *m;
	const struct netdev_names *names;
	const struct netdev_pod *pod;
	const struct place *at;
	enum family family; /* FIRST, V4, V6, ARP, LAST */
	enum netdev_chain chain;
};

static void load_network(struct nft_make *m, uint32_t offset, uint32_t len)
{
	nft_load_payload(m, NFT_PAYLOAD_NETWORK_HEADER, offset, len, 0);
}

static void load_transport(struct nft_make *m, uint32_t offset, uint32_t len)
{
	nft_load_payload(m, NFT_PAYLOAD_TRANSPORT_HEADER, offset, len, 0);
}

/* ---- matches ---- */

static void match_ethertype(struct nft_make *m, uint16_t type)
{
	nft_load_payload(m, NFT_PAYLOAD_LL_HEADER, 12, 2, 0);
	nft_compare_be16(m, NFT_CMP_EQ, type);
}

/* Of the first byte of the network header. */
static void match_first_byte(struct nft_make *m, uint8_t mask, uint32_t op, uint8_t value)
{
	load_network(m, 0, 1);
	nft_mask(m, &mask, 1);
	nft_compare_u8(m, op, value);
}

static void match_protocol(struct nft_make *m, uint8_t protocol)
{
	nft_load_meta(m, NFT_META_L4PROTO);
	nft_compare_u8(m, NFT_CMP_EQ, protocol);
}

static void match_tcp_flags(struct nft_make *m, uint8_t mask, uint8_t value)
{
	load_transport(m, 13, 1);
	nft_mask(m, &mask, 1);
	nft_compare_u8(m, NFT_CMP_EQ, value);
}

static void match_icmp(struct nft_make *m, uint8_t from, uint8_t to)
{
	load_transport(m, 0, 1);
	if (from == to)
		return nft_compare_u8(m, NFT_CMP_EQ, from);
	nft_compare_u8(m, NFT_CMP_GTE, from);
	nft_compare_u8(m, NFT_CMP_LTE, to);
}

static void match_arp_of_ipv4(struct nft_make *m)
{
	/* Ethernet, IPv4, 6 and 4 bytes long. */
	static const uint8_t header[] = {0, 1, 8, 0, 6, 4};

	load_network(m, 0, sizeof(header));
	nft_compare(m, NFT_CMP_NEQ, header, sizeof(header));
}

static void match_arp_op(struct nft_make *m, uint16_t last)
{
	load_network(m, 6, 2);
	nft_compare_be16(m, NFT_CMP_GTE, 1);
	nft_compare_be16(m, NFT_CMP_LTE, last);
}

static void match_src(const struct rule_make *to, uint32_t flags)
{
	load_network(to->m, to->at->src, to->at->len);
	nft_look_up(to->m, to->at->len == 4 ? to->names->own4 : to->names->own6, flags);
}

static void match_no_src(const struct rule_make *to)
{
	static const uint8_t none[16];

	load_network(to->m, to->at->src, to->at->len);
	nft_compare(to->m, NFT_CMP_EQ, none, to->at->len);
}

static void match_cluster(const struct rule_make *to, uint32_t offset)
{
	load_network(to->m, offset, to->at->len);
	nft_look_up(to->m, to->at->len == 4 ? NFT_SET_CLUSTER4 : NFT_SET_CLUSTER6, 0);
}

/* The destination is in this network, whose host bits are zero. */
static void match_dst(const struct rule_make *to, const char *net)
{
	uint32_t len = to->at->len, skip = 16 - len;
	uint8_t mask[16] = {0};
	struct cidr c;

	if (cidr_parse(net, &c) < 0) {
		to->m->r = to->m->r ?: -EINVAL;
		return;
	}
	for (unsigned i = 0; i < c.bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
	load_network(to->m, to->at->dst, len);
	if (c.bits < 128)
		nft_mask(to->m, mask + skip, len);
	nft_compare(to->m, NFT_CMP_EQ, c.ip + skip, len);
}

static void match_present(struct nft_make *m, uint8_t header)
{
	nft_load_exthdr_present(m, header);
	nft_compare_u8(m, NFT_CMP_EQ, 1);
}

/* Both pieces of a number behind the same mask: more fragments, offset. */
static void match_fragment(const struct rule_make *to, uint16_t v4_mask, bool any_v6)
{
	uint16_t be_mask = htons(to->family == V4 ? v4_mask : 0xfff8);

	if (to->family == V6 && any_v6)
		return match_present(to->m, IPPROTO_FRAGMENT);
	if (to->family == V4)
		load_network(to->m, 6, 2);
	else
		nft_load_exthdr(to->m, IPPROTO_FRAGMENT, 2, 2);
	nft_mask(to->m, &be_mask, sizeof(be_mask));
	nft_compare_be16(to->m, NFT_CMP_NEQ, 0);
}

static void match_dhcp_ports(const struct rule_make *to)
{
	uint16_t client = to->family == V4 ? 68 : 546;

	load_transport(to->m, 0, 2);
	nft_compare_be16(to->m, NFT_CMP_EQ, client);
	load_transport(to->m, 2, 2);
	nft_compare_be16(to->m, NFT_CMP_EQ, client == 68 ? 67 : 547);
}

/* ---- flows: keys from word 0 on ---- */

static void load_kind(struct nft_make *m, uint8_t kind)
{
	nft_load_value(m, &kind, 1, 0);
}

static void load_addr(const struct rule_make *to, uint32_t offset, unsigned word)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (to->family == V4)
		nft_load_value(to->m, mapped, sizeof(mapped), word);
	nft_load_payload(to->m, NFT_PAYLOAD_NETWORK_HEADER, offset, to->at->len,
			 to->family == V4 ? word + 3 : word);
}

static void load_addrs(const struct rule_make *to)
{
	bool in = to->chain == NETDEV_IN;

	load_addr(to, in ? to->at->dst : to->at->src, 1);
	load_addr(to, in ? to->at->src : to->at->dst, 5);
}

static void load_key(const struct rule_make *to, uint8_t kind)
{
	bool in = to->chain == NETDEV_IN;

	load_kind(to->m, kind);
	load_addrs(to);
	nft_load_payload(to->m, NFT_PAYLOAD_TRANSPORT_HEADER, in ? 2 : 0, 2, 9);
	nft_load_payload(to->m, NFT_PAYLOAD_TRANSPORT_HEADER, in ? 0 : 2, 2, 10);
}

/* By the identifier, which both directions have. */
static void load_echo_key(const struct rule_make *to)
{
	static const uint8_t none[2];

	load_kind(to->m, to->at->icmp);
	load_addrs(to);
	nft_load_payload(to->m, NFT_PAYLOAD_TRANSPORT_HEADER, 4, 2, 9);
	nft_load_value(to->m, none, sizeof(none), 10);
}

/* Of the packet that came in and is quoted: its source is where the error has to go. */
static void load_quoted_key(const struct rule_make *to, uint8_t protocol)
{
	if (to->family == V4) { /* no options, or the ports would be elsewhere */
		load_transport(to->m, 8, 1);
		nft_compare_u8(to->m, NFT_CMP_EQ, 0x45);
	}
	load_transport(to->m, to->at->quoted_proto, 1);
	nft_compare_u8(to->m, NFT_CMP_EQ, protocol);
	load_kind(to->m, protocol);
	load_addrs(to);
	nft_load_payload(to->m, NFT_PAYLOAD_TRANSPORT_HEADER, to->at->quoted_ports, 2, 9);
	nft_load_payload(to->m, NFT_PAYLOAD_TRANSPORT_HEADER, to->at->quoted_ports + 2, 2, 10);
}

static void keep(struct nft_make *m, const char *set, uint64_t for_ms)
{
	nft_change_set(m, NFT_DYNSET_OP_UPDATE, set, for_ms);
}

static void add_word(const struct rule_make *to, enum word word)
{
	static const uint8_t nothing;
	const struct place *at = to->at;
	struct nft_make *m = to->m;

	switch (word) {
	case END:
		return;
	case MAC_NOT_OWN:
		nft_load_payload(m, NFT_PAYLOAD_LL_HEADER, ETH_ALEN, ETH_ALEN, 0);
		return nft_compare(m, NFT_CMP_NEQ, to->pod->mac, ETH_ALEN);
	case TAG_C:
		return match_ethertype(m, ETH_P_8021Q);
	case TAG_S:
		return match_ethertype(m, ETH_P_8021AD);
	case NOT_V4:
		return match_first_byte(m, 0xf0, NFT_CMP_NEQ, 0x40);
	case NOT_V6:
		return match_first_byte(m, 0xf0, NFT_CMP_NEQ, 0x60);
	case SHORT:
		return match_first_byte(m, 0x0f, NFT_CMP_LT, 5);
	case OPTIONS:
		return match_first_byte(m, 0x0f, NFT_CMP_GT, 5);
	case ROUTING_HEADER:
		return match_present(m, IPPROTO_ROUTING);
	case WELL_FORMED: /* true of any number, where there is one */
		nft_load_meta(m, NFT_META_L4PROTO);
		return nft_compare(m, NFT_CMP_GTE, &nothing, 1);
	case NOT_ARP_OF_IPV4:
		return match_arp_of_ipv4(m);
	case ARP_OP:
		return match_arp_op(m, 2);
	case ARP_REQUEST:
		return match_arp_op(m, 1);
	case SRC_OWN:
		return match_src(to, 0);
	case SRC_NOT_OWN:
		return match_src(to, NFT_LOOKUP_F_INV);
	case SRC_NONE:
		return match_no_src(to);
	case SRC_CLUSTER:
		return match_cluster(to, at->src);
	case DST_CLUSTER:
		return match_cluster(to, at->dst);
	case DST_BROADCAST:
		return match_dst(to, "255.255.255.255");
	case DST_LINK:
		return match_dst(to, "fe80::/10");
	case DST_LINK_GROUP:
		return match_dst(to, "ff02::/16");
	case DST_SOLICITED:
		return match_dst(to, "ff02::1:ff00:0/104");
	case DST_DHCP6:
		return match_dst(to, "ff02::1:2");
	case FRAGMENT:
		return match_fragment(to, 0x3fff, true);
	case LATER_FRAGMENT:
		return match_fragment(to, 0x1fff, false);
	case TCP:
		return match_protocol(m, IPPROTO_TCP);
	case UDP:
		return match_protocol(m, IPPROTO_UDP);
	case ICMP:
		return match_protocol(m, at->icmp);
	case TCP_OPENS:
		return match_tcp_flags(m, 0x12, 0x02);
	case TCP_RST:
		return match_tcp_flags(m, 0x04, 0x04);
	case TCP_FIN:
		return match_tcp_flags(m, 0x01, 0x01);
	case DHCP_PORTS:
		return match_dhcp_ports(to);
	case ECHO:
		return match_icmp(m, at->echo, at->echo);
	case ECHO_REPLY:
		return match_icmp(m, at->echo_reply, at->echo_reply);
	case UNREACHABLE:
		return match_icmp(m, at->unreachable_from, at->unreachable_to);
	case FROM_ROUTER_134:
		return match_icmp(m, 134, 134);
	case FROM_ROUTER_137:
		return match_icmp(m, 137, 137);
	case NS:
		return match_icmp(m, 135, 135);
	case NA:
		return match_icmp(m, 136, 136);
	case MLD_OR_RS:
		return match_icmp(m, 131, 133);
	case MLD2:
		return match_icmp(m, 143, 143);
	case TARGET_OWN:
		load_transport(m, 8, 16);
		return nft_look_up(m, to->names->own6, 0);
	case TARGET_NOT_OWN:
		load_transport(m, 8, 16);
		return nft_look_up(m, to->names->own6, NFT_LOOKUP_F_INV);
	case ARP_TARGET_OWN:
		load_network(m, 24, 4);
		return nft_look_up(m, to->names->own4, 0);
	case KEY_TCP:
		return load_key(to, IPPROTO_TCP);
	case KEY_CLOSED:
		return load_key(to, KIND_CLOSED);
	case KEY_UDP:
		return load_key(to, IPPROTO_UDP);
	case KEY_ECHO:
		return load_echo_key(to);
	case KEY_QUOTED_TCP:
		return load_quoted_key(to, IPPROTO_TCP);
	case KEY_QUOTED_UDP:
		return load_quoted_key(to, IPPROTO_UDP);
	case AS_TCP:
		return load_kind(m, IPPROTO_TCP);
	case AS_CLOSED:
		return load_kind(m, KIND_CLOSED);
	case IN_FLOWS:
		return nft_look_up(m, to->names->flows, 0);
	case IN_BRIEF:
		return nft_look_up(m, to->names->brief, 0);
	case FLOW_OPENED:
		return keep(m, to->names->flows, OPENED_FOR);
	case FLOW_LIVES:
		return keep(m, to->names->flows, LIVE_FOR);
	case FLOW_ENDS:
		return nft_change_set(m, NFT_DYNSET_OP_DELETE, to->names->flows, 0);
	case BRIEF_HALF:
		return keep(m, to->names->brief, HALF_FOR);
	case BRIEF_CLOSED:
		return keep(m, to->names->brief, CLOSED_FOR);
	case BRIEF_ASKED:
		return keep(m, to->names->brief, ASKED_FOR);
	case BRIEF_TALKS:
		return keep(m, to->names->brief, TALKS_FOR);
	}
}

/* ---- comments: what a rule counts ---- */

static const struct {
	uint8_t proto;
	const char *word;
} proto_words[] = {
	{IPPROTO_ICMP, "icmp"},       {IPPROTO_TCP, "tcp"},     {IPPROTO_UDP, "udp"},
	{IPPROTO_ICMPV6, "icmpv6"},   {GUARD_PROTO_ARP, "arp"}, {GUARD_PROTO_ETHER, "ethernet"},
	{GUARD_PROTO_OTHER, "other"},
};

static void print_comment(const struct netdev_rule *rule, char buf[static 64])
{
	const char *proto = "other";

	for (size_t i = 0; i < ARRAY_SIZE(proto_words); i++) {
		if (proto_words[i].proto == rule->proto)
			proto = proto_words[i].word;
	}
	snprintf(buf, 64, "%s %s", guard_why_str(rule->why), proto);
}

bool netdev_read_comment(const char *comment, struct guard_count_key *ret)
{
	const char *space = strchr(comment, ' ');
	unsigned why = 0;
	size_t i = 0;

	if (!space)
		return false;
	while (why < GUARD_WHY_N_ && (strncmp(comment, guard_why_str(why), space - comment) != 0 ||
				      guard_why_str(why)[space - comment]))
		why++;
	while (i < ARRAY_SIZE(proto_words) && strcmp(space + 1, proto_words[i].word) != 0)
		i++;
	if (why == GUARD_WHY_N_ || i == ARRAY_SIZE(proto_words))
		return false;
	ret->why = (uint8_t)why;
	ret->proto = proto_words[i].proto;
	return true;
}

/* ---- the chains ---- */

static void make_rule(const struct rule_make *to, const struct netdev_rule *rule)
{
	struct nft_make *m = to->m;
	char comment[64];

	nft_rule_begin(m, rule->chain == NETDEV_IN ? to->names->in : to->names->out);
	if (to->family != FIRST && to->family != LAST)
		match_ethertype(m, to->at->ethertype);
	for (size_t i = 0; i < WORDS_MAX && rule->words[i] != END; i++)
		add_word(to, rule->words[i]);
	if (rule->verdict == ACCEPT || rule->verdict == ACCEPT_DHCP) {
		nft_verdict(m, NF_ACCEPT);
		return nft_rule_end(m, NULL);
	}
	nft_count(m);
	nft_verdict(m, NF_DROP);
	print_comment(rule, comment);
	nft_rule_end(m, comment);
}

static bool is_mac_known(const struct netdev_pod *pod)
{
	static const uint8_t none[sizeof(pod->mac)];

	return memcmp(pod->mac, none, sizeof(none)) != 0;
}

static bool is_wanted(const struct netdev_rule *rule, const struct rule_make *to)
{
	if (rule->chain != to->chain || (rule->verdict == ACCEPT_DHCP && !to->pod->dhcp) ||
	    (rule->verdict == DROP_MAC && !is_mac_known(to->pod)))
		return false;
	return rule->family == to->family ||
	       (rule->family == IP && (to->family == V4 || to->family == V6));
}

void netdev_make_rules(struct nft_make *m, enum netdev_chain chain,
		       const struct netdev_names *names, const struct netdev_pod *pod)
{
	static const enum family order[] = {FIRST, V4, V6, ARP, LAST};

	for (size_t f = 0; f < ARRAY_SIZE(order); f++) {
		struct rule_make to = {m,        names,
				       pod,      &places[order[f] == LAST ? FIRST : order[f]],
				       order[f], chain};

		for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
			if (is_wanted(&rules[i], &to))
				make_rule(&to, &rules[i]);
		}
	}
}
