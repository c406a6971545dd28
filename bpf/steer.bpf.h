/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Giving a pod's TCP packet to the agent: the kernel delivers it to the socket assigned here, if it
 * is routed to the node itself, which is what the mark is for. Where that rule is missing nothing
 * leaves: ip_forward() and ip6_forward() drop packets that have a socket, and those at the end of
 * their time to live.
 *
 * A bridge port is harder: setup_pre_routing() takes the socket from the packet where the bridge
 * calls iptables (net.bridge.bridge-nf-call-iptables, which Kubernetes asks for). Packets of a
 * connection find their socket again without help. Those for the listener, which has another
 * address, go around the bridge: into its own interface, as if it had passed them up. The others
 * pass through it, so that it learns where the pod is.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "parse.bpf.h"

const volatile __u32 steer_mark = 0;
const volatile __u16 capture_port = 0;

/* An address that packets from outside may be for, as the kernel sees it (ip_route_input_slow(),
 * ip6_rcv_core()), and that is not the link's own.
 */
static __always_inline bool is_steerable(const struct packet *p)
{
	if (ip_is_group(&p->dst, p->v6))
		return false;
	if (!p->v6)
		return p->dst.b[12] != 127;
	return !ip_is_link(&p->dst) && (p->dst.d[0] | p->dst.w[2]) != 0; /* ::/96: ::, ::1 */
}

static __always_inline struct bpf_sock *find_socket(struct __sk_buff *skb, const struct packet *p,
						    const union ip *dst, __be16 dport)
{
	struct bpf_sock_tuple tuple = {};

	if (p->v6) {
		__builtin_memcpy(tuple.ipv6.saddr, &p->src, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, dst, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = p->sport;
		tuple.ipv6.dport = dport;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	tuple.ipv4.saddr = p->src.w[3];
	tuple.ipv4.daddr = dst->w[3];
	tuple.ipv4.sport = p->sport;
	tuple.ipv4.dport = dport;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

static __always_inline bool is_agents(struct bpf_sock *sk)
{
	return bpf_sk_storage_get(&sluice_sockets, sk, NULL, 0);
}

/* Whether the socket that has exactly these addresses takes the packet. It may be one of the node's
 * own, where the pod dials the node, or had done so before it was enrolled: that is not the
 * agent's. A connection that is being opened, or is over, has no socket to tell by: the first is
 * the agent's, since no SYN to the outside gets to anybody else, and the second only answers.
 */
static __always_inline bool is_connection(struct bpf_sock *sk)
{
	__u32 state = sk->state;

	if (state == BPF_TCP_LISTEN)
		return false;
	return state == BPF_TCP_NEW_SYN_RECV || state == BPF_TCP_TIME_WAIT || is_agents(sk);
}

/* A SYN for a connection that is over goes to whoever listens on the port that was dialled
 * (tcp_v6_rcv(), TCP_TW_SYN). Nobody should; IPv6 would let anybody answer with an address that is
 * not the node's. Without one, the pod is told, and dials again a second later. There is no other
 * way to get rid of what is over: while it is there, the agent's listener cannot take the SYN.
 */
static __always_inline bool is_somebodys_port(struct __sk_buff *skb, const struct packet *p)
{
	struct packet any = {.src = p->src, .v6 = p->v6};
	struct bpf_sock *sk;
	bool listens;

	if (!p->v6)
		return false;
	sk = find_socket(skb, &any, &p->dst, p->dport); /* from port 0: no connection has it */
	if (!sk)
		return false;
	listens = sk->state == BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return listens;
}

static __always_inline int address_to(struct __sk_buff *skb, const __u8 to[ETH_ALEN])
{
	__u16 mac[3], now[3];

	__builtin_memcpy(mac, to, sizeof(mac));
	if ((mac[0] | mac[1] | mac[2]) == 0 || bpf_skb_load_bytes(skb, 0, now, sizeof(now)) < 0)
		return -1;
	if (((mac[0] ^ now[0]) | (mac[1] ^ now[1]) | (mac[2] ^ now[2])) == 0)
		return 0;
	return bpf_skb_store_bytes(skb, 0, mac, sizeof(mac), 0);
}

/* No further than here; local delivery does not look at it. */
static __always_inline int end_ttl(struct __sk_buff *skb, const struct packet *p)
{
	__u32 off = ETH_HLEN + (p->v6 ? __builtin_offsetof(struct ipv6hdr, hop_limit)
				      : __builtin_offsetof(struct iphdr, ttl));
	__be16 was = bpf_htons(p->ttl << 8 | p->proto), is = bpf_htons(1 << 8 | p->proto);
	__u8 one = 1;

	if (p->ttl == one)
		return 0;
	if (!p->v6 && bpf_l3_csum_replace(skb, ETH_HLEN + __builtin_offsetof(struct iphdr, check),
					  was, is, sizeof(is)) < 0)
		return -1;
	return bpf_skb_store_bytes(skb, off, &one, sizeof(one), 0);
}

/* So that the packet goes up to the node's IP, and nowhere else. */
static __always_inline int keep_here(struct __sk_buff *skb, const struct guard_pod *pod,
				     struct packet *p, bool listener)
{
	if (pod->upper == 0)
		return -1;
	if (pod->upper != skb->ifindex) {
		p->into = listener ? pod->upper : 0;
		if (address_to(skb, listener ? pod->upper_mac : pod->mac) < 0 ||
		    end_ttl(skb, p) < 0)
			return -1;
	}
	/* A bridge says so only of frames to its own address, not to those of its ports. */
	return skb->pkt_type == PACKET_HOST ? 0 : bpf_skb_change_type(skb, PACKET_HOST);
}

/* Takes the reference. */
static __always_inline enum guard_why hand_over(struct __sk_buff *skb, const struct guard_pod *pod,
						struct packet *p, struct bpf_sock *sk,
						bool listener)
{
	int r = keep_here(skb, pod, p, listener);

	if (r == 0)
		r = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (r < 0)
		return GUARD_WHY_NO_LISTENER;
	skb->mark = steer_mark;
	return GUARD_WHY_NONE;
}

/* GUARD_WHY_NONE: it is the agent's. GUARD_WHY_NO_LISTENER: there is no agent. */
static __always_inline enum guard_why steer(struct __sk_buff *skb, const struct guard_pod *pod,
					    struct packet *p)
{
	union ip local = {};
	struct bpf_sock *sk;
	bool is_over;

	if (steer_mark == 0)
		return GUARD_WHY_NO_LISTENER;
	sk = find_socket(skb, p, &p->dst, p->dport);
	if (sk) {
		if (is_connection(sk)) {
			is_over = sk->state == BPF_TCP_TIME_WAIT;
			if (!is_over || !is_syn(p) || !is_somebodys_port(skb, p))
				return hand_over(skb, pod, p, sk, false);
			bpf_sk_release(sk);
			return GUARD_WHY_NO_LISTENER;
		}
		bpf_sk_release(sk);
	}
	/* Also for what opens nothing: the last step of a handshake by SYN cookie, and old
	 * connections, which the kernel resets. */
	if (p->v6)
		local.w[3] = bpf_htonl(1);
	else
		ip_from4(&local, bpf_htonl(0x7f000001));
	sk = find_socket(skb, p, &local, bpf_htons(capture_port));
	if (!sk)
		return GUARD_WHY_NO_LISTENER;
	if (sk->state == BPF_TCP_LISTEN && is_agents(sk))
		return hand_over(skb, pod, p, sk, true);
	bpf_sk_release(sk);
	return GUARD_WHY_NO_LISTENER;
}
