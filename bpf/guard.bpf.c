/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* The guard on the host end of a pod's interface, and the steer (bpf/README.md). Whatever is not
 * understood is refused and counted.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi/guard.h"
#include "flows.bpf.h"
#include "maps.bpf.h"
#include "parse.bpf.h"
#include "reply.bpf.h"
#include "report.bpf.h"
#include "steer.bpf.h"

#define ARP_REQUEST  1
#define DHCP4_CLIENT bpf_htons(68)
#define DHCP4_SERVER bpf_htons(67)
#define DHCP6_CLIENT bpf_htons(546)
#define DHCP6_SERVER bpf_htons(547)

/* Both as clsact filter and as tcx link: what passes goes on to the other programs there. */
#define PASS TC_ACT_UNSPEC

static __always_inline bool is_own(__u32 ifindex, const union ip *ip)
{
	struct guard_own own = {.ifindex = ifindex};

	__builtin_memcpy(own.addr, ip, sizeof(own.addr));
	return bpf_map_lookup_elem(&sluice_own, &own);
}

static __always_inline bool is_inside(const union ip *ip, bool v6)
{
	struct guard_net6 net6 = {.prefixlen = 128};
	struct guard_net4 net4 = {.prefixlen = 32};
	__u32 *value;

	if (v6) {
		__builtin_memcpy(net6.addr, ip, sizeof(net6.addr));
		value = bpf_map_lookup_elem(&sluice_net6, &net6);
	} else {
		__builtin_memcpy(net4.addr, &ip->w[3], sizeof(net4.addr));
		value = bpf_map_lookup_elem(&sluice_net4, &net4);
	}
	return value && *value == GUARD_CLUSTER_INSIDE;
}

/* A bridge learns from every frame whose link address is where. */
static __always_inline bool is_from_pod(struct __sk_buff *skb, const struct guard_pod *pod)
{
	__u16 mac[3], from[3];

	__builtin_memcpy(mac, pod->pod_mac, sizeof(mac));
	if ((mac[0] | mac[1] | mac[2]) == 0)
		return true;
	return bpf_skb_load_bytes(skb, ETH_ALEN, from, sizeof(from)) == 0 &&
	       ((mac[0] ^ from[0]) | (mac[1] ^ from[1]) | (mac[2] ^ from[2])) == 0;
}

/* ---- ARP ---- */

/* RFC 826, for Ethernet and IPv4; linux/if_arp.h cannot be had without the C library. */
struct arp4 {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
};

static __always_inline enum guard_why judge_arp(struct __sk_buff *skb, struct packet *p)
{
	struct arp4 arp;
	__be32 sender, target;

	p->proto = GUARD_PROTO_ARP;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0 ||
	    arp.hardware != bpf_htons(1) || arp.protocol != bpf_htons(ETH_P_IP) ||
	    arp.hardware_len != ETH_ALEN || arp.protocol_len != 4)
		return GUARD_WHY_MALFORMED;
	__builtin_memcpy(&sender, arp.sender, 4);
	__builtin_memcpy(&target, arp.target, 4);
	ip_from4(&p->src, sender);
	ip_from4(&p->dst, target);
	/* A probe: nobody learns from it, but who is about to take that address gives it up (RFC
	 * 5227, 2.1.1). */
	if (sender == 0 && arp.operation == bpf_htons(ARP_REQUEST))
		return is_own(skb->ifindex, &p->dst) ? GUARD_WHY_NONE : GUARD_WHY_SPOOFED;
	return is_own(skb->ifindex, &p->src) ? GUARD_WHY_NONE : GUARD_WHY_SPOOFED;
}

/* ---- where it comes from ---- */

/* No TCP, no fragment: a client without an address asks for one. */
static __always_inline bool is_dhcp4(const struct guard_pod *pod, const struct packet *p)
{
	return pod->flags & GUARD_POD_DHCP && p->proto == IPPROTO_UDP && p->frag == FRAG_NONE &&
	       p->sport == DHCP4_CLIENT && p->dport == DHCP4_SERVER;
}

static __always_inline bool is_dhcp6(const struct guard_pod *pod, const struct packet *p)
{
	return pod->flags & GUARD_POD_DHCP && p->proto == IPPROTO_UDP && p->frag == FRAG_NONE &&
	       p->sport == DHCP6_CLIENT && p->dport == DHCP6_SERVER && ip_is_link(&p->src) &&
	       ip_is_link_group(&p->dst);
}

static __always_inline bool is_mld(const struct packet *p)
{
	return p->icmp_type == ICMP6_MLD_REPORT || p->icmp_type == ICMP6_MLD_DONE ||
	       p->icmp_type == ICMP6_MLD2_REPORT;
}

/* A node that has no address yet: duplicate address detection, solicitation of routers, MLD. */
static __always_inline bool is_address_less(const struct packet *p)
{
	return p->proto == IPPROTO_ICMPV6 && p->frag == FRAG_NONE && ip_is_link_group(&p->dst) &&
	       (p->icmp_type == ICMP6_ND_NS || p->icmp_type == ICMP6_ND_RS || is_mld(p));
}

static __always_inline enum guard_why judge_source(__u32 ifindex, const struct guard_pod *pod,
						   const struct packet *p, bool *ret_dhcp)
{
	if (p->v6 ? is_dhcp6(pod, p) : is_dhcp4(pod, p)) {
		if (p->v6)
			*ret_dhcp = true;
		else if (p->src.w[3] == 0)
			*ret_dhcp = p->dst.w[3] == 0xffffffff || is_inside(&p->dst, false);
		if (*ret_dhcp)
			return GUARD_WHY_NONE;
	}
	if (is_own(ifindex, &p->src))
		return GUARD_WHY_NONE;
	if (p->v6 && ip_is_zero(&p->src) && is_address_less(p))
		return GUARD_WHY_NONE;
	return GUARD_WHY_SPOOFED;
}

/* ---- neighbour discovery ---- */

/* Nobody has an address that another one asks for from `::`, or advertises (RFC 4862, 5.4.3). */
static __always_inline enum guard_why judge_target(struct __sk_buff *skb, const struct packet *p)
{
	union ip target;

	if (p->l4 + 8 + sizeof(target) > p->end ||
	    bpf_skb_load_bytes(skb, p->l4 + 8, &target, sizeof(target)) < 0)
		return GUARD_WHY_MALFORMED;
	return is_own(skb->ifindex, &target) ? GUARD_WHY_NONE : GUARD_WHY_SPOOFED;
}

/* *ret_local: needed on the link, and stays there. Otherwise the destination decides, as always. */
static __always_inline enum guard_why judge_nd(struct __sk_buff *skb, const struct packet *p,
					       bool *ret_local)
{
	enum guard_why why = GUARD_WHY_NONE;

	if (p->icmp_type == ICMP6_ND_RA || p->icmp_type == ICMP6_ND_REDIRECT)
		return GUARD_WHY_SPOOFED; /* it is no router */
	if (is_mld(p)) {
		*ret_local = p->frag == FRAG_NONE && ip_is_link_group(&p->dst);
		return GUARD_WHY_NONE;
	}
	if (p->icmp_type < ICMP6_ND_RS || p->icmp_type > ICMP6_ND_NA)
		return GUARD_WHY_NONE;
	if (p->frag != FRAG_NONE)
		return GUARD_WHY_FRAGMENT; /* RFC 6980 */
	if (p->ttl != 255 || p->icmp_code != 0)
		return GUARD_WHY_MALFORMED; /* RFC 4861, 7.1 */
	if (p->icmp_type == ICMP6_ND_NA || (p->icmp_type == ICMP6_ND_NS && ip_is_zero(&p->src)))
		why = judge_target(skb, p);
	*ret_local = ip_is_link(&p->dst) || ip_is_link_group(&p->dst);
	return why;
}

/* ---- flows ---- */

#define ICMP_HEAD 8

/* Where the packet that an ICMP error quotes has its ports: it came to the pod from where the error
 * goes. 0: it did not, or cannot be understood.
 */
static __always_inline __u32 quoted4(struct __sk_buff *skb, const struct packet *p, __u8 *ret_proto)
{
	__u32 off = p->l4 + ICMP_HEAD;
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0 || ip.saddr != p->dst.w[3] ||
	    ip.frag_off & bpf_htons(0x1fff) || ip.ihl < 5)
		return 0;
	*ret_proto = ip.protocol;
	return off + ip.ihl * 4;
}

static __always_inline __u32 quoted6(struct __sk_buff *skb, const struct packet *p, __u8 *ret_proto)
{
	__u32 off = p->l4 + ICMP_HEAD;
	struct ipv6hdr ip;
	union ip src;

	if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0)
		return 0;
	__builtin_memcpy(&src, &ip.saddr, sizeof(src));
	*ret_proto = ip.nexthdr;
	return ip_equal(&src, &p->dst) ? off + sizeof(ip) : 0;
}

static __always_inline bool id_of_quoted(struct __sk_buff *skb, const struct packet *p,
					 struct flow_id *ret)
{
	__u8 proto = 0;
	__be16 head[4];
	__u32 off;

	if (p->frag != FRAG_NONE)
		return false;
	off = p->v6 ? quoted6(skb, p, &proto) : quoted4(skb, p, &proto);
	if (off == 0 || bpf_skb_load_bytes(skb, off, head, sizeof(head)) < 0)
		return false;
	ret->proto = proto;
	if (proto == (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		ret->lport = head[2];
		return true;
	}
	ret->rport = head[0];
	ret->lport = head[1];
	return true;
}

/* What any host may have to say about a packet; redirects are a router's. */
static __always_inline bool is_icmp_report(const struct packet *p)
{
	if (p->v6)
		return p->icmp_type >= 1 && p->icmp_type <= 4;
	return p->icmp_type == ICMP4_UNREACHABLE || p->icmp_type == ICMP4_EXCEEDED ||
	       p->icmp_type == ICMP4_PARAMETER;
}

static __always_inline bool is_nd(const struct packet *p)
{
	return p->v6 && p->proto == IPPROTO_ICMPV6 &&
	       (p->icmp_type == ICMP6_ND_NS || p->icmp_type == ICMP6_ND_NA);
}

/* The flow that a packet of the pod could be an answer of. *ret_quotes: it only speaks about it. */
static __always_inline bool id_of_answer(struct __sk_buff *skb, const struct packet *p,
					 struct flow_id *ret, bool *ret_quotes)
{
	ret->remote = p->dst;
	ret->proto = p->proto;
	if (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP) {
		ret->rport = p->dport;
		ret->lport = p->sport;
		return p->proto == IPPROTO_UDP || !is_syn(p);
	}
	if (!is_icmp(p))
		return false;
	if (is_nd(p)) {
		ret->rport = ND_PORT;
		return true;
	}
	if (p->icmp_type == (p->v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY)) {
		ret->lport = p->echo_id;
		return true;
	}
	*ret_quotes = true;
	return is_icmp_report(p) && id_of_quoted(skb, p, ret);
}

static __always_inline bool is_answer(struct __sk_buff *skb, const struct guard_pod *pod,
				      const struct packet *p)
{
	struct flow_id id = {};
	bool quotes = false;

	if (p->frag == FRAG_LATER)
		return p->proto != IPPROTO_TCP && frag_is_known(skb->ifindex, p);
	if (p->frag == FRAG_FIRST && p->proto == IPPROTO_TCP)
		return false;
	if (!id_of_answer(skb, p, &id, &quotes) ||
	    !flow_answers(skb->ifindex, pod->buckets, &id, quotes ? NULL : p))
		return false;
	if (p->frag == FRAG_FIRST)
		frag_remember(skb->ifindex, p);
	return true;
}

/* ---- what a pod sends ---- */

/* To the outside, and no answer. */
static __always_inline enum guard_why judge_outbound(struct __sk_buff *skb,
						     const struct guard_pod *pod, struct packet *p)
{
	bool tcp = p->proto == IPPROTO_TCP;

	if (p->frag == FRAG_LATER || (tcp && p->frag != FRAG_NONE))
		return GUARD_WHY_FRAGMENT;
	if (!(pod->flags & GUARD_POD_STEER))
		return GUARD_WHY_OUTSIDE;
	if (!tcp)
		return GUARD_WHY_PROTOCOL;
	return is_steerable(p) ? steer(skb, pod, p) : GUARD_WHY_OUTSIDE;
}

static __always_inline enum guard_why judge_ip(struct __sk_buff *skb, const struct guard_pod *pod,
					       struct packet *p)
{
	enum guard_why why = GUARD_WHY_NONE;
	bool local = false;

	if (!p->v6 && p->l4 > ETH_HLEN + sizeof(struct iphdr))
		why = parse_options(skb, p);
	if (why != GUARD_WHY_NONE)
		return why;

	/* What goes to the cluster need not be understood further; what it takes to judge a source
	 * without an address does. */
	if (is_icmp(p) || p->proto == IPPROTO_UDP)
		why = parse_l4(skb, p);
	if (why != GUARD_WHY_NONE)
		return why;
	why = judge_source(skb->ifindex, pod, p, &local);
	if (why != GUARD_WHY_NONE || local)
		return why;
	if (p->v6 && is_icmp(p) && p->frag != FRAG_LATER)
		why = judge_nd(skb, p, &local);
	if (why != GUARD_WHY_NONE || local)
		return why;
	if (is_inside(&p->dst, p->v6))
		return GUARD_WHY_NONE;

	if (p->proto == IPPROTO_TCP && p->frag == FRAG_NONE)
		why = parse_l4(skb, p);
	if (why != GUARD_WHY_NONE)
		return why;
	if (is_answer(skb, pod, p))
		return GUARD_WHY_NONE;
	return judge_outbound(skb, pod, p);
}

static __always_inline enum guard_why judge(struct __sk_buff *skb, const struct guard_pod *pod,
					    struct packet *p)
{
	enum guard_why why;

	if (!pod)
		return GUARD_WHY_UNKNOWN_POD;
	if (!is_from_pod(skb, pod))
		return GUARD_WHY_SPOOFED;
	if (skb->vlan_present)
		return GUARD_WHY_VLAN;
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_ARP:
		return judge_arp(skb, p);
	case ETH_P_IP:
		why = parse_ip4(skb, p);
		break;
	case ETH_P_IPV6:
		why = parse_ip6(skb, p);
		break;
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		return GUARD_WHY_VLAN;
	default:
		return GUARD_WHY_ETHERTYPE;
	}
	return why == GUARD_WHY_NONE ? judge_ip(skb, pod, p) : why;
}

/* Verdict for a refused packet. */
static __always_inline int refuse(struct __sk_buff *skb, const struct guard_pod *pod,
				  const struct packet *p, enum guard_why why)
{
	report(skb, p, why);
	if (!pod || !(pod->flags & GUARD_POD_STEER) || !is_for_one(skb, p))
		return TC_ACT_SHOT;
	if (why != GUARD_WHY_OUTSIDE && why != GUARD_WHY_PROTOCOL && why != GUARD_WHY_NO_LISTENER)
		return TC_ACT_SHOT;
	return p->proto == IPPROTO_TCP ? reply_reset(skb, p) : reply_prohibited(skb, p);
}

/* What the pod sends: ingress of its interface's host end. Fails closed: whatever goes wrong, the
 * packet is refused and counted.
 */
SEC("tc")
int sluice_from_pod(struct __sk_buff *skb)
{
	struct packet p = {.proto = GUARD_PROTO_ETHER};
	struct guard_pod *pod;
	__u32 ifindex = skb->ifindex;
	enum guard_why why;

	pod = bpf_map_lookup_elem(&sluice_pods, &ifindex);
	why = judge(skb, pod, &p);
	if (why != GUARD_WHY_NONE)
		return refuse(skb, pod, &p, why);
	return p.into ? bpf_redirect(p.into, BPF_F_INGRESS) : PASS;
}

/* ---- what comes for a pod ---- */

/* The flow that a packet opens; false when it opens none. */
static __always_inline bool id_of_opener(const struct packet *p, struct flow_id *ret)
{
	ret->remote = p->src;
	ret->proto = p->proto;
	ret->rport = p->sport;
	ret->lport = p->dport;
	if (p->proto == IPPROTO_UDP)
		return true;
	if (p->proto == IPPROTO_TCP)
		return is_syn(p);
	if (!is_icmp(p))
		return false;
	/* No router has passed it on, so that whoever asks is on the link, and the answer ends
	 * there; a link-local address may be answered anyhow. */
	if (p->v6 && p->icmp_type == ICMP6_ND_NS) {
		ret->rport = ND_PORT;
		return p->ttl == 255 && !ip_is_zero(&p->src) && !ip_is_link(&p->src);
	}
	ret->lport = p->echo_id;
	return p->icmp_type == (p->v6 ? ICMP6_ECHO : ICMP4_ECHO);
}

/* A bridge sends to every port what it does not know the port of. What another pod was sent gives
 * this one nothing to answer.
 */
static __always_inline bool is_for_pod(__u32 ifindex, const struct packet *p)
{
	return ip_is_group(&p->dst, p->v6) || is_own(ifindex, &p->dst);
}

static __always_inline enum guard_why judge_inbound(struct __sk_buff *skb,
						    const struct guard_pod *pod, struct packet *p)
{
	enum guard_why why = GUARD_WHY_MALFORMED;
	struct flow_id id = {};

	if (skb->protocol == bpf_htons(ETH_P_IP))
		why = parse_ip4(skb, p);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		why = parse_ip6(skb, p);
	if (why != GUARD_WHY_NONE || p->frag == FRAG_LATER || is_inside(&p->src, p->v6) ||
	    !is_for_pod(skb->ifindex, p) || parse_l4(skb, p) != GUARD_WHY_NONE)
		return GUARD_WHY_NONE;

	if (id_of_opener(p, &id))
		return flow_open(skb->ifindex, pod->buckets, &id) ? GUARD_WHY_NONE
								  : GUARD_WHY_FLOWS_FULL;
	if (p->proto == IPPROTO_TCP)
		flow_arrived(skb->ifindex, pod->buckets, &id, p);
	return GUARD_WHY_NONE;
}

/* From a connection that was steered to the agent: it speaks for the outside, and opens nothing. */
static __always_inline bool is_of_agent(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	return sk && is_agents(sk);
}

/* What goes to the pod: egress of its interface's host end. Remembers what is opened from outside
 * the cluster; refuses only a new flow for which there is no room, since it could not be answered.
 */
SEC("tc")
int sluice_to_pod(struct __sk_buff *skb)
{
	struct packet p = {.proto = GUARD_PROTO_ETHER};
	struct guard_pod *pod;
	__u32 ifindex = skb->ifindex;
	enum guard_why why;

	pod = bpf_map_lookup_elem(&sluice_pods, &ifindex);
	if (!pod || skb->vlan_present || is_of_agent(skb))
		return PASS;
	why = judge_inbound(skb, pod, &p);
	if (why == GUARD_WHY_NONE)
		return PASS;
	report(skb, &p, why);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
