/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* A frame's headers as values. Nothing here decides about a packet but whether it can be
 * understood: each function gives GUARD_WHY_NONE or what is wrong with it. Bytes are read by
 * bpf_skb_load_bytes(), which also finds those that are not in the linear part.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi/guard.h"

#define EXT_HEADERS_MAX 8  /* IPv6; RFC 8200, 4.1 knows six, one of them twice */
#define OPTIONS_MAX     12 /* IPv4; 40 bytes of padding would be as many, but nobody sends that */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP4_ECHO_REPLY  0
#define ICMP4_UNREACHABLE 3
#define ICMP4_QUENCH      4
#define ICMP4_REDIRECT    5
#define ICMP4_ECHO        8
#define ICMP4_EXCEEDED    11
#define ICMP4_PARAMETER   12
#define ICMP6_ECHO        128 /* below: errors */
#define ICMP6_ECHO_REPLY  129
#define ICMP6_MLD_REPORT  131
#define ICMP6_MLD_DONE    132
#define ICMP6_ND_RS       133
#define ICMP6_ND_RA       134
#define ICMP6_ND_NS       135
#define ICMP6_ND_NA       136
#define ICMP6_ND_REDIRECT 137
#define ICMP6_MLD2_REPORT 143

union ip {
	__u8 b[16]; /* IPv4 in its mapped form */
	__be32 w[4];
	__u64 d[2];
};

enum frag_part {
	FRAG_NONE,
	FRAG_FIRST, /* has the header of what is carried */
	FRAG_LATER,
};

struct packet {
	union ip src, dst;
	__u32 l4;  /* offset in the frame of what the IP packet carries */
	__u32 end; /* offset behind the IP packet; what follows is padding */
	__u32 frag_id;
	__u32 seq, ack; /* TCP */
	__be16 sport, dport;
	__be16 echo_id; /* ICMP */
	__u8 v6;
	__u8 proto;
	__u8 frag; /* enum frag_part */
	__u8 ttl;
	__u8 tcp_flags;
	__u8 icmp_type, icmp_code;
	__u8 tcp_head; /* bytes */
	__u8 is_ip;
	__u8 pad;
	__u32 into; /* goes on as if it had come in by this interface; 0: where it is */
};

static __always_inline void ip_from4(union ip *ip, __be32 addr)
{
	ip->d[0] = 0;
	ip->w[2] = bpf_htonl(0xffff);
	ip->w[3] = addr;
}

static __always_inline bool ip_equal(const union ip *a, const union ip *b)
{
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

static __always_inline bool ip_is_mapped(const union ip *ip)
{
	return ip->d[0] == 0 && ip->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool ip_is_zero(const union ip *ip)
{
	return (ip->d[0] | ip->d[1]) == 0;
}

/* Multicast; for IPv4 also the limited broadcast, reserved addresses, and 0.0.0.0/8. */
static __always_inline bool ip_is_group(const union ip *ip, bool v6)
{
	return v6 ? ip->b[0] == 0xff : ip->b[12] >= 224 || ip->b[12] == 0;
}

static __always_inline bool ip_is_link_group(const union ip *ip) /* ff02::/16 */
{
	return ip->b[0] == 0xff && ip->b[1] == 0x02;
}

static __always_inline bool ip_is_link(const union ip *ip) /* fe80::/10 */
{
	return ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
}

/* With segmentation left to the device, a packet may be longer than its header can say: then it
 * says 0 (BIG TCP).
 */
static __always_inline __u32 said_length(const struct __sk_buff *skb, __be16 field, __u32 room)
{
	__u32 len = bpf_ntohs(field);

	return len == 0 && skb->gso_size ? room : len;
}

static __always_inline enum guard_why parse_ip4(struct __sk_buff *skb, struct packet *p)
{
	__u32 room = skb->len - ETH_HLEN, len, head, off;
	struct iphdr ip;

	p->is_ip = 1;
	p->proto = GUARD_PROTO_OTHER;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return GUARD_WHY_MALFORMED;
	ip_from4(&p->src, ip.saddr);
	ip_from4(&p->dst, ip.daddr);
	p->proto = ip.protocol;
	p->ttl = ip.ttl;

	head = ip.ihl * 4;
	len = said_length(skb, ip.tot_len, room);
	if (ip.version != 4 || head < sizeof(ip) || len < head || len > room)
		return GUARD_WHY_MALFORMED;
	p->l4 = ETH_HLEN + head;
	p->end = ETH_HLEN + len;

	off = bpf_ntohs(ip.frag_off);
	if (off & 0x1fff)
		p->frag = FRAG_LATER;
	else if (off & 0x2000)
		p->frag = FRAG_FIRST;
	p->frag_id = ip.id;
	return GUARD_WHY_NONE;
}

/* The options of an IPv4 header. */
static __always_inline enum guard_why parse_options(struct __sk_buff *skb, const struct packet *p)
{
	__u32 off = ETH_HLEN + sizeof(struct iphdr);
	__u8 option[2];

	for (int i = 0; i < OPTIONS_MAX; i++) {
		if (off >= p->l4)
			return GUARD_WHY_NONE;
		if (bpf_skb_load_bytes(skb, off, option, 1) < 0)
			return GUARD_WHY_MALFORMED;
		if (option[0] == IPOPT_END)
			return GUARD_WHY_NONE;
		if (option[0] == IPOPT_NOOP) {
			off++;
			continue;
		}
		if (option[0] == IPOPT_LSRR || option[0] == IPOPT_SSRR)
			return GUARD_WHY_SOURCE_ROUTE;
		if (bpf_skb_load_bytes(skb, off, option, 2) < 0 || option[1] < 2)
			return GUARD_WHY_MALFORMED;
		off += option[1];
	}
	return off >= p->l4 ? GUARD_WHY_NONE : GUARD_WHY_MALFORMED;
}

struct ext_header {
	__u8 next;
	__u8 len;
	__be16 frag_off; /* of a fragment header; of a routing header, the low byte is what is left
			  */
	__be32 frag_id;
};

/* One extension header. The caller goes on while `*next` is one. */
static __always_inline enum guard_why parse_ext(struct __sk_buff *skb, struct packet *p, __u8 *next)
{
	struct ext_header ext;

	if (p->l4 + sizeof(ext) > p->end || bpf_skb_load_bytes(skb, p->l4, &ext, sizeof(ext)) < 0)
		return GUARD_WHY_MALFORMED;

	if (*next == IPPROTO_FRAGMENT) {
		if (p->frag != FRAG_NONE)
			return GUARD_WHY_MALFORMED;
		p->frag = ext.frag_off & bpf_htons(0xfff8) ? FRAG_LATER : FRAG_FIRST;
		p->frag_id = ext.frag_id;
		p->l4 += sizeof(ext);
	} else {
		if (*next == IPPROTO_ROUTING && bpf_ntohs(ext.frag_off) & 0xff)
			return GUARD_WHY_SOURCE_ROUTE;
		p->l4 += *next == IPPROTO_AH ? (ext.len + 2) * 4 : (ext.len + 1) * 8;
	}
	*next = ext.next;
	return p->l4 <= p->end ? GUARD_WHY_NONE : GUARD_WHY_MALFORMED;
}

static __always_inline bool is_ext(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING ||
	       next == IPPROTO_FRAGMENT || next == IPPROTO_AH;
}

/* A first fragment without all of its headers is malformed, too (RFC 7112). */
static __always_inline enum guard_why parse_ip6(struct __sk_buff *skb, struct packet *p)
{
	__u32 room = skb->len - ETH_HLEN - sizeof(struct ipv6hdr), len;
	enum guard_why why = GUARD_WHY_NONE;
	struct ipv6hdr ip;
	__u8 next;

	p->v6 = 1;
	p->is_ip = 1;
	p->proto = GUARD_PROTO_OTHER;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0)
		return GUARD_WHY_MALFORMED;
	__builtin_memcpy(&p->src, &ip.saddr, sizeof(p->src));
	__builtin_memcpy(&p->dst, &ip.daddr, sizeof(p->dst));
	p->ttl = ip.hop_limit;
	next = ip.nexthdr;

	len = said_length(skb, ip.payload_len, room);
	/* On the wire the mapped form is nobody's address (RFC 4291, 2.5.5.2); here it would pass
	 * for that of an IPv4 packet. */
	if (ip.version != 6 || len > room || ip_is_mapped(&p->src) || ip_is_mapped(&p->dst))
		return GUARD_WHY_MALFORMED;
	p->l4 = ETH_HLEN + sizeof(ip);
	p->end = p->l4 + len;

	for (int i = 0; i < EXT_HEADERS_MAX; i++) {
		if (!is_ext(next) || p->frag == FRAG_LATER)
			break;
		why = parse_ext(skb, p, &next);
		if (why != GUARD_WHY_NONE)
			return why;
	}
	p->proto = next;
	return is_ext(next) && p->frag != FRAG_LATER ? GUARD_WHY_MALFORMED : GUARD_WHY_NONE;
}

static __always_inline enum guard_why parse_tcp(struct __sk_buff *skb, struct packet *p)
{
	struct tcphdr tcp;

	if (p->l4 + sizeof(tcp) > p->end || bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)) < 0)
		return GUARD_WHY_MALFORMED;
	p->sport = tcp.source;
	p->dport = tcp.dest;
	p->seq = bpf_ntohl(tcp.seq);
	p->ack = bpf_ntohl(tcp.ack_seq);
	p->tcp_flags = ((__u8 *)&tcp)[13];
	p->tcp_head = tcp.doff * 4;
	if (p->tcp_head < sizeof(tcp) || p->l4 + p->tcp_head > p->end)
		return GUARD_WHY_MALFORMED;
	return GUARD_WHY_NONE;
}

/* The first 8 bytes of UDP or ICMP, which is as much of them as anybody needs here. */
static __always_inline enum guard_why parse_short(struct __sk_buff *skb, struct packet *p)
{
	__u8 head[8];

	if (p->l4 + sizeof(head) > p->end || bpf_skb_load_bytes(skb, p->l4, head, sizeof(head)) < 0)
		return GUARD_WHY_MALFORMED;
	if (p->proto == IPPROTO_UDP) {
		__builtin_memcpy(&p->sport, head, 2);
		__builtin_memcpy(&p->dport, head + 2, 2);
	} else {
		p->icmp_type = head[0];
		p->icmp_code = head[1];
		__builtin_memcpy(&p->echo_id, head + 4, 2);
	}
	return GUARD_WHY_NONE;
}

static __always_inline bool is_icmp(const struct packet *p)
{
	return p->proto == (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

static __always_inline enum guard_why parse_l4(struct __sk_buff *skb, struct packet *p)
{
	if (p->frag == FRAG_LATER)
		return GUARD_WHY_NONE;
	if (p->proto == IPPROTO_TCP)
		return parse_tcp(skb, p);
	if (p->proto == IPPROTO_UDP || is_icmp(p))
		return parse_short(skb, p);
	return GUARD_WHY_NONE;
}

/* Errors are never answered with errors (RFC 1122, 3.2.2; RFC 4443, 2.4 e). */
static __always_inline bool is_icmp_error(const struct packet *p)
{
	if (!is_icmp(p))
		return false;
	if (p->v6)
		return p->icmp_type < ICMP6_ECHO;
	return p->icmp_type == ICMP4_UNREACHABLE || p->icmp_type == ICMP4_QUENCH ||
	       p->icmp_type == ICMP4_REDIRECT || p->icmp_type == ICMP4_EXCEEDED ||
	       p->icmp_type == ICMP4_PARAMETER;
}

/* Opens a connection, or is meant to. */
static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}
