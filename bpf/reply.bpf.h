/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* A refused packet becomes the answer to itself, so that applications fail at once: a TCP reset, or
 * ICMP "administratively prohibited", from the address that was dialled, back out of the interface
 * it came in by. Each function gives the program's verdict: TC_ACT_REDIRECT, or TC_ACT_SHOT when no
 * answer can be made.
 *
 * A packet of the pod's kernel usually has its checksum left to the device: then its checksum field
 * holds the sum of the pseudo header, and the device is to sum up from there (CHECKSUM_PARTIAL). No
 * helper takes that back, so a reset is laid out to be right in that case, too. An ICMP error then
 * counts as checked where it is received; should somebody have turned checksum offload off on the
 * node's end of the interface, its quotation is changed afterwards, and the pod drops it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "parse.bpf.h"

#define REPLY_TTL         64
#define REPLY_QUOTE_MAX   128 /* bytes of the refused packet in an ICMP error; a multiple of 4 */
#define IP4_DONT_FRAGMENT 0x4000

#define ICMP4_PROHIBITED 13 /* code of type 3: by a filter */
#define ICMP6_PROHIBITED 1  /* code of type 1 */

/* Both families alike: the prefix of the mapped form adds 0xffff, and 0xffff is nothing to a sum
 * in one's complement.
 */
struct pseudo {
	union ip src, dst;
	__be32 len;
	__be32 proto;
};

struct icmp_head {
	__u8 type, code;
	__u16 check;
	__be32 rest;
};

struct error4 {
	struct iphdr ip;
	struct icmp_head icmp;
};

struct error6 {
	struct ipv6hdr ip;
	struct icmp_head icmp;
};

static __always_inline __u16 fold(__s64 sum)
{
	__u32 s = (__u32)sum;

	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return s;
}

/* Of what `p` is answered with: from its destination. */
static __always_inline __s64 pseudo_sum(const struct packet *p, __u8 proto, __u32 len)
{
	struct pseudo pseudo = {
		.src = p->dst, .dst = p->src, .len = bpf_htonl(len), .proto = bpf_htonl(proto)};

	return bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
}

/* Neither multicast nor broadcast, as frame and as packet. */
static __always_inline bool is_for_one(struct __sk_buff *skb, const struct packet *p)
{
	__u8 first;

	return !ip_is_group(&p->dst, p->v6) && bpf_skb_load_bytes(skb, 0, &first, 1) == 0 &&
	       !(first & 1);
}

static __always_inline int swap_macs(struct __sk_buff *skb)
{
	__u8 macs[2 * ETH_ALEN], swapped[2 * ETH_ALEN];

	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) < 0)
		return -1;
	__builtin_memcpy(swapped, macs + ETH_ALEN, ETH_ALEN);
	__builtin_memcpy(swapped + ETH_ALEN, macs, ETH_ALEN);
	return bpf_skb_store_bytes(skb, 0, swapped, sizeof(swapped), 0);
}

static __always_inline int store_ip4(struct __sk_buff *skb, const struct packet *p, __u32 len)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tot_len = bpf_htons(sizeof(ip) + len),
		.frag_off = bpf_htons(IP4_DONT_FRAGMENT),
		.ttl = REPLY_TTL,
		.protocol = p->proto,
		.saddr = p->dst.w[3],
		.daddr = p->src.w[3],
	};

	ip.check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

static __always_inline int store_ip6(struct __sk_buff *skb, const struct packet *p, __u32 len)
{
	struct ipv6hdr ip = {
		.version = 6,
		.payload_len = bpf_htons(len),
		.nexthdr = p->proto,
		.hop_limit = REPLY_TTL,
	};

	__builtin_memcpy(&ip.saddr, &p->dst, sizeof(ip.saddr));
	__builtin_memcpy(&ip.daddr, &p->src, sizeof(ip.daddr));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

/* RFC 9293, 3.10.7.1: a segment to a connection that does not exist. */
static __always_inline void make_reset(const struct packet *p, struct tcphdr *rst)
{
	__u32 len = p->end - p->l4 - p->tcp_head;

	rst->source = p->dport;
	rst->dest = p->sport;
	rst->doff = sizeof(*rst) / 4;
	rst->rst = 1;
	if (p->tcp_flags & TCP_ACK) {
		rst->seq = bpf_htonl(p->ack);
	} else {
		rst->ack = 1;
		rst->ack_seq = bpf_htonl(p->seq + len + !!(p->tcp_flags & TCP_SYN) +
					 !!(p->tcp_flags & TCP_FIN));
	}
}

static __always_inline int reply_reset(struct __sk_buff *skb, const struct packet *p)
{
	__u32 head = p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct tcphdr rst = {};
	__u16 check;
	__s64 sum;

	/* Where the checksum goes, when it is the device's, cannot be moved: so no options. */
	if (p->l4 != ETH_HLEN + head || p->tcp_flags & TCP_RST)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, p->l4 + __builtin_offsetof(struct tcphdr, check), &check,
			       sizeof(check)) < 0)
		return TC_ACT_SHOT;
	make_reset(p, &rst);
	sum = pseudo_sum(p, IPPROTO_TCP, sizeof(rst));
	if (check == fold(pseudo_sum(p, IPPROTO_TCP, p->end - p->l4)))
		rst.check = fold(sum); /* the device does the rest */
	else
		rst.check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&rst, sizeof(rst), sum));

	/* Also ends segmentation: skb_gso_reset(). */
	if (bpf_skb_change_tail(skb, ETH_HLEN + head + sizeof(rst), 0) < 0 || swap_macs(skb) < 0)
		return TC_ACT_SHOT;
	if ((p->v6 ? store_ip6(skb, p, sizeof(rst)) : store_ip4(skb, p, sizeof(rst))) < 0)
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + head, &rst, sizeof(rst), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int store_error4(struct __sk_buff *skb, const struct packet *p, __s64 sum,
					__u32 quoted)
{
	struct icmp_head icmp = {.type = ICMP4_UNREACHABLE, .code = ICMP4_PROHIBITED};
	struct packet out = {.src = p->src, .dst = p->dst, .proto = IPPROTO_ICMP};

	icmp.check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&icmp, sizeof(icmp), sum));
	if (store_ip4(skb, &out, sizeof(icmp) + quoted) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &icmp, sizeof(icmp), 0);
}

static __always_inline int store_error6(struct __sk_buff *skb, const struct packet *p, __s64 sum,
					__u32 quoted)
{
	struct icmp_head icmp = {.type = 1, .code = ICMP6_PROHIBITED};
	struct packet out = {.src = p->src, .dst = p->dst, .proto = IPPROTO_ICMPV6};

	sum = bpf_csum_diff(NULL, 0, (__be32 *)&icmp, sizeof(icmp), sum);
	sum = fold(sum) + fold(pseudo_sum(p, IPPROTO_ICMPV6, sizeof(icmp) + quoted));
	icmp.check = ~fold(sum);
	if (store_ip6(skb, &out, sizeof(icmp) + quoted) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &icmp, sizeof(icmp), 0);
}

static __always_inline int reply_prohibited(struct __sk_buff *skb, const struct packet *p)
{
	__u32 head = p->v6 ? sizeof(struct error6) : sizeof(struct error4);
	__u32 quoted = p->end - ETH_HLEN;
	__u8 quote[REPLY_QUOTE_MAX] = {};
	__s64 sum;

	if (p->frag == FRAG_LATER || is_icmp_error(p))
		return TC_ACT_SHOT;
	if (quoted > sizeof(quote))
		quoted = sizeof(quote);
	/* Also ends segmentation, without which no room could be made. */
	if (bpf_skb_change_tail(skb, ETH_HLEN + quoted, 0) < 0 ||
	    bpf_skb_adjust_room(skb, head, BPF_ADJ_ROOM_MAC, 0) < 0 || swap_macs(skb) < 0)
		return TC_ACT_SHOT;

	/* The verifier has to see both bounds in the register that the helper gets. */
	asm volatile("" : "+r"(quoted));
	if (quoted == 0 || quoted > sizeof(quote))
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + head, quote, quoted) < 0)
		return TC_ACT_SHOT;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)quote, sizeof(quote), 0);
	if ((p->v6 ? store_error6(skb, p, sum, quoted) : store_error4(skb, p, sum, quoted)) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}
