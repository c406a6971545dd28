/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* Capture of what has no interface of its own: the sockets of a cgroup (bpf/HOSTNET.md). A socket
 * belongs to the cgroup in which it was made, whoever uses it. Whatever is not understood is
 * refused and counted.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi/overlay.h"
#include "hostnet_maps.bpf.h"

#define REFUSE 0 /* a call: EPERM */
#define PASS   1

#define SOCK_STREAM_      1 /* the C library's header for it cannot be had */
#define IPPROTO_MPTCP_    262
#define AF_INET_          2
#define IP_FREEBIND_      15
#define IP_TRANSPARENT_   19
#define IPV6_TRANSPARENT_ 75
#define IPV6_FREEBIND_    78
#define OPTION_SHOWN      4096 /* bytes; the kernel shows a page */
#define LOOPBACK_DEVICE   1    /* in every network namespace (LOOPBACK_IFINDEX) */

#define EVENT_INTERVAL_NS 50000000ULL /* of one cgroup, on average */
#define EVENT_BURST       20

/* Where the agent's listeners are, on 127.0.0.1 and ::1. Set before loading. */
const volatile __u16 capture_port = 0;

/* Network order; IPv4 mapped. */
union ip {
	__u8 b[16];
	__be32 w[4];
};

struct target {
	union ip ip;
	__be16 port;
	__u16 proto;
};

static __always_inline void ip_set4(union ip *ip, __be32 v4)
{
	ip->w[0] = 0;
	ip->w[1] = 0;
	ip->w[2] = bpf_htonl(0xffff);
	ip->w[3] = v4;
}

static __always_inline bool ip_is4(const union ip *ip)
{
	return (ip->w[0] | ip->w[1]) == 0 && ip->w[2] == bpf_htonl(0xffff);
}

/* Loopback, or unspecified, which connect() and sendmsg() take for it. */
static __always_inline bool ip_is_this_host(const union ip *ip)
{
	if (ip_is4(ip))
		return ip->w[3] == 0 || (ip->w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return (ip->w[0] | ip->w[1] | ip->w[2]) == 0 && (ip->w[3] & ~bpf_htonl(1)) == 0;
}

/* To one host, and not just on this link: what the agent could dial in its stead. */
static __always_inline bool ip_is_capturable(const union ip *ip)
{
	if (ip_is4(ip))
		return (ip->w[3] & bpf_htonl(0xf0000000)) != bpf_htonl(0xe0000000) &&
		       ip->w[3] != 0xffffffff;
	return ip->b[0] != 0xff && (ip->w[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000);
}

static __always_inline bool ip_is_inside(const union ip *ip)
{
	struct guard_net6 net6 = {.prefixlen = 128};
	struct guard_net4 net4 = {.prefixlen = 32};
	__u32 *value;

	if (ip_is4(ip)) {
		__builtin_memcpy(net4.addr, &ip->w[3], sizeof(net4.addr));
		value = bpf_map_lookup_elem(&sluice_host4, &net4);
	} else {
		__builtin_memcpy(net6.addr, ip, sizeof(net6.addr));
		value = bpf_map_lookup_elem(&sluice_host6, &net6);
	}
	return value && *value == GUARD_CLUSTER_INSIDE;
}

/* ---- refusing ---- */

static __always_inline __u8 counted_as(__u16 proto)
{
	switch (proto) {
	case IPPROTO_ICMP:
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ICMPV6:
	case IPPROTO_SCTP:
		return proto;
	}
	return HOSTNET_PROTO_OTHER;
}

static __always_inline void count(__u64 cgroup, __u16 proto, enum hostnet_why why)
{
	struct hostnet_count_key key = {.cgroup = cgroup, .proto = counted_as(proto), .why = why};
	__u64 *n = bpf_map_lookup_elem(&sluice_refused, &key), none = 0;

	if (!n) {
		bpf_map_update_elem(&sluice_refused, &key, &none, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&sluice_refused, &key);
	}
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* Takes one of the cgroup's events, unless it has had its share. */
static __always_inline bool take_event(struct hostnet_cgroup *cg, __u64 now)
{
	__u64 next = cg->next_ns, from = next > now ? next : now;

	return from + EVENT_INTERVAL_NS - now <= EVENT_BURST * EVENT_INTERVAL_NS &&
	       __sync_val_compare_and_swap(&cg->next_ns, next, from + EVENT_INTERVAL_NS) == next;
}

static __always_inline void tell(struct hostnet_cgroup *cg, const struct target *t,
				 enum hostnet_why why)
{
	__u64 now = bpf_ktime_get_ns(), suppressed;
	struct hostnet_report *report = NULL;

	if (take_event(cg, now))
		report = bpf_ringbuf_reserve(&sluice_reports, sizeof(*report), 0);
	if (!report) {
		__sync_fetch_and_add(&cg->suppressed, 1);
		return;
	}
	suppressed = __sync_lock_test_and_set(&cg->suppressed, 0);
	report->time_ns = now;
	report->cgroup = cg->id;
	__builtin_memcpy(report->dst, &t->ip, sizeof(report->dst));
	report->dport = t->port;
	report->proto = t->proto > 255 ? HOSTNET_PROTO_OTHER : t->proto;
	report->why = why;
	report->suppressed = suppressed < 0xffffffff ? suppressed : 0xffffffff;
	bpf_ringbuf_submit(report, 0);
}

static __always_inline int refuse(struct hostnet_cgroup *cg, const struct target *t,
				  enum hostnet_why why)
{
	count(cg->id, t->proto, why);
	tell(cg, t, why);
	return REFUSE;
}

/* ---- connect, sendmsg ---- */

/* The node would unpack it, and send on what is within; on loopback as well. */
static __always_inline bool is_overlay(const struct target *t)
{
	if (t->proto != IPPROTO_UDP)
		return t->proto == IPPROTO_IPIP || t->proto == IPPROTO_IPV6 ||
		       t->proto == IPPROTO_GRE;
	switch (bpf_ntohs(t->port)) {
	case OVERLAY_PORT_VXLAN:
	case OVERLAY_PORT_VXLAN_LINUX:
	case OVERLAY_PORT_GENEVE:
	case OVERLAY_PORT_WEAVE:
	case OVERLAY_PORT_FLANNEL:
		return true;
	}
	return false;
}

/* Pass, or refuse: for what is never captured. */
static __always_inline int judge_datagram(struct hostnet_cgroup *cg, const struct target *t)
{
	if (is_overlay(t))
		return refuse(cg, t, HOSTNET_WHY_OUTSIDE);
	if (ip_is_this_host(&t->ip) || ip_is_inside(&t->ip))
		return PASS;
	return refuse(cg, t, HOSTNET_WHY_OUTSIDE);
}

/* A captured cgroup within a captured one has its programs run first, and has just captured it. */
static __always_inline bool is_captured_within(const struct hostnet_cgroup *cg, struct bpf_sock *sk)
{
	struct hostnet_socket *s = bpf_sk_storage_get(&sluice_captured, sk, NULL, 0);

	return s && s->origin.cgroup != cg->id;
}

static __always_inline bool remember(struct bpf_sock_addr *ctx, const struct hostnet_cgroup *cg,
				     struct bpf_sock *sk, const struct target *t)
{
	struct hostnet_socket *s =
		bpf_sk_storage_get(&sluice_captured, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!s)
		return false;
	s->key.netns = bpf_get_netns_cookie(ctx);
	s->origin.cgroup = cg->id;
	__builtin_memcpy(s->origin.dst, &t->ip, sizeof(s->origin.dst));
	s->origin.dport = t->port;
	s->flags &= ~(HOSTNET_V4 | HOSTNET_KEYED);
	if (ip_is4(&t->ip))
		s->flags |= HOSTNET_V4;
	return true;
}

/* *ret_capture: its destination is to be the agent's listener. */
static __always_inline int judge_connect(struct bpf_sock_addr *ctx, struct hostnet_cgroup *cg,
					 const struct target *t, bool *ret_capture)
{
	bool this_host = ip_is_this_host(&t->ip);
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return refuse(cg, t, HOSTNET_WHY_MALFORMED);
	if (ctx->type != SOCK_STREAM_ || (t->proto != IPPROTO_TCP && t->proto != IPPROTO_MPTCP_))
		return judge_datagram(cg, t);
	if (this_host && t->port == bpf_htons(capture_port))
		return is_captured_within(cg, sk) ? PASS : refuse(cg, t, HOSTNET_WHY_LISTENER);
	bpf_sk_storage_delete(&sluice_captured, sk); /* of a former connection */
	if (this_host || ip_is_inside(&t->ip))
		return PASS;
	if (!cg->id || !ip_is_capturable(&t->ip))
		return refuse(cg, t, HOSTNET_WHY_OUTSIDE);
	if (cg->live >= HOSTNET_MAX_LIVE || !remember(ctx, cg, sk, t))
		return refuse(cg, t, HOSTNET_WHY_FULL);
	*ret_capture = true;
	return PASS;
}

static __always_inline void target_of4(const struct bpf_sock_addr *ctx, struct target *ret)
{
	ip_set4(&ret->ip, ctx->user_ip4);
	ret->port = ctx->user_port;
	ret->proto = ctx->protocol;
}

static __always_inline void target_of6(const struct bpf_sock_addr *ctx, struct target *ret)
{
	ret->ip.w[0] = ctx->user_ip6[0];
	ret->ip.w[1] = ctx->user_ip6[1];
	ret->ip.w[2] = ctx->user_ip6[2];
	ret->ip.w[3] = ctx->user_ip6[3];
	ret->port = ctx->user_port;
	ret->proto = ctx->protocol;
}

static __always_inline void write6(struct bpf_sock_addr *ctx, const union ip *ip, __be16 port)
{
	ctx->user_ip6[0] = ip->w[0];
	ctx->user_ip6[1] = ip->w[1];
	ctx->user_ip6[2] = ip->w[2];
	ctx->user_ip6[3] = ip->w[3];
	ctx->user_port = port;
}

SEC("cgroup/connect4")
int sluice_connect4(struct bpf_sock_addr *ctx)
{
	struct hostnet_cgroup *cg = bpf_get_local_storage(&sluice_cgroups, 0);
	bool capture = false;
	struct target t;
	int verdict;

	target_of4(ctx, &t);
	verdict = judge_connect(ctx, cg, &t, &capture);
	if (capture) {
		ctx->user_ip4 = bpf_htonl(0x7f000001);
		ctx->user_port = bpf_htons(capture_port);
	}
	return verdict;
}

SEC("cgroup/connect6")
int sluice_connect6(struct bpf_sock_addr *ctx)
{
	struct hostnet_cgroup *cg = bpf_get_local_storage(&sluice_cgroups, 0);
	union ip listener = {.w = {[3] = bpf_htonl(1)}};
	bool capture = false;
	struct target t;
	int verdict;

	target_of6(ctx, &t);
	verdict = judge_connect(ctx, cg, &t, &capture);
	if (ip_is4(&t.ip))
		ip_set4(&listener, bpf_htonl(0x7f000001));
	if (capture)
		write6(ctx, &listener, bpf_htons(capture_port));
	return verdict;
}

SEC("cgroup/sendmsg4")
int sluice_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct target t;

	target_of4(ctx, &t);
	return judge_datagram(bpf_get_local_storage(&sluice_cgroups, 0), &t);
}

SEC("cgroup/sendmsg6")
int sluice_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct target t;

	target_of6(ctx, &t);
	return judge_datagram(bpf_get_local_storage(&sluice_cgroups, 0), &t);
}

/* ---- setsockopt ---- */

/* A socket that may have an address that is not the node's. IPv4 does not route what it sends
 * (ip_route_output_key_hash_rcu()), IPv6 does: to a pod as if from outside, whose answers may then
 * leave; and to a listener of the node, which would be connected with the outside.
 */
static __always_inline bool is_foreign_bind(const struct bpf_sockopt *ctx)
{
	if (ctx->level == IPPROTO_IP)
		return ctx->optname == IP_FREEBIND_ || ctx->optname == IP_TRANSPARENT_;
	return ctx->level == IPPROTO_IPV6 &&
	       (ctx->optname == IPV6_FREEBIND_ || ctx->optname == IPV6_TRANSPARENT_);
}

/* Any family but IPv4: some have an IPv6 socket within (SMC). */
SEC("cgroup/setsockopt")
int sluice_setsockopt(struct bpf_sockopt *ctx)
{
	struct hostnet_cgroup *cg = bpf_get_local_storage(&sluice_cgroups, 0);
	struct bpf_sock *sk = ctx->sk;

	if (sk && sk->family != AF_INET_ && is_foreign_bind(ctx)) {
		count(cg->id, sk->protocol, HOSTNET_WHY_OUTSIDE);
		return REFUSE;
	}
	/* What we were not shown as a whole is to be taken from the caller, not from us. */
	if (ctx->optlen > OPTION_SHOWN)
		ctx->optlen = 0;
	return PASS;
}

/* ---- getpeername ---- */

/* The captured socket, when what it is about to say is the listener's address. */
static __always_inline struct hostnet_socket *captured(struct bpf_sock_addr *ctx,
						       const struct target *t)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk || t->port != bpf_htons(capture_port) || !ip_is_this_host(&t->ip))
		return NULL;
	return bpf_sk_storage_get(&sluice_captured, sk, NULL, 0);
}

/* Applications see the address they dialled. */
SEC("cgroup/getpeername4")
int sluice_peername4(struct bpf_sock_addr *ctx)
{
	struct hostnet_socket *s;
	struct target t;
	union ip dst;

	target_of4(ctx, &t);
	s = captured(ctx, &t);
	if (s) {
		__builtin_memcpy(&dst, s->origin.dst, sizeof(dst));
		ctx->user_ip4 = dst.w[3];
		ctx->user_port = s->origin.dport;
	}
	return PASS;
}

SEC("cgroup/getpeername6")
int sluice_peername6(struct bpf_sock_addr *ctx)
{
	struct hostnet_socket *s;
	struct target t;
	union ip dst;

	target_of6(ctx, &t);
	s = captured(ctx, &t);
	if (s) {
		__builtin_memcpy(&dst, s->origin.dst, sizeof(dst));
		write6(ctx, &dst, s->origin.dport);
	}
	return PASS;
}

/* ---- connections ---- */

/* Is it the listener that it goes to: programs of others, too, may have changed where. */
static __always_inline bool goes_to_listener(const struct bpf_sock_ops *ops,
					     const struct hostnet_socket *s)
{
	if (bpf_ntohl(ops->remote_port) != capture_port)
		return false;
	if (s->flags & HOSTNET_V4)
		return ops->remote_ip4 == bpf_htonl(0x7f000001);
	return (ops->remote_ip6[0] | ops->remote_ip6[1] | ops->remote_ip6[2]) == 0 &&
	       ops->remote_ip6[3] == bpf_htonl(1);
}

/* All is read first, lest the compiler choose between addresses in the context instead of between
 * values, which the verifier refuses.
 */
static __always_inline void source_of(const struct bpf_sock_ops *ops,
				      const struct hostnet_socket *s, union ip *ret)
{
	__be32 v4 = ops->local_ip4;

	ret->w[0] = ops->local_ip6[0];
	ret->w[1] = ops->local_ip6[1];
	ret->w[2] = ops->local_ip6[2];
	ret->w[3] = ops->local_ip6[3];
	asm volatile("" : "+r"(v4) : : "memory");
	if (s->flags & HOSTNET_V4)
		ip_set4(ret, v4);
}

/* SYN is about to be sent. From here on the end of it is seen, whichever comes. */
static __always_inline void begin(struct bpf_sock_ops *ops, struct hostnet_cgroup *cg,
				  struct hostnet_socket *s)
{
	if (s->flags & HOSTNET_COUNTED ||
	    bpf_sock_ops_cb_flags_set(ops,
				      ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG) != 0)
		return;
	s->flags |= HOSTNET_COUNTED;
	s->serial = cg->serial;
	__sync_fetch_and_add(&cg->live, 1);
}

/* SYN-ACK has come and ACK is not sent yet, so the entry is there when accept() returns; and no
 * other connection between the same two can be in the listener's queue alive.
 */
static __always_inline void establish(struct bpf_sock_ops *ops, struct hostnet_cgroup *cg,
				      struct hostnet_socket *s)
{
	struct target t = {.proto = IPPROTO_TCP};
	union ip src;

	if (!(s->flags & HOSTNET_COUNTED) || !goes_to_listener(ops, s))
		return;
	source_of(ops, s, &src);
	__builtin_memcpy(s->key.ip, &src, sizeof(src));
	s->key.port = ops->local_port;
	s->origin.flags = 0;
	if (bpf_map_update_elem(&sluice_origins, &s->key, &s->origin, BPF_ANY) == 0) {
		s->flags |= HOSTNET_KEYED;
		return;
	}
	/* The agent finds nothing, and closes it. */
	__builtin_memcpy(&t.ip, s->origin.dst, sizeof(t.ip));
	t.port = s->origin.dport;
	refuse(cg, &t, HOSTNET_WHY_FULL);
}

/* The full socket ends; perhaps before the agent has accepted what it sent. In FIN_WAIT2 the other
 * side has acknowledged the FIN: it is alive, and in the queue if it was not accepted.
 */
static __always_inline void end(struct hostnet_cgroup *cg, struct hostnet_socket *s, int former)
{
	struct hostnet_origin *origin;

	if (s->flags & HOSTNET_COUNTED && s->serial == cg->serial && cg->live > 0)
		__sync_fetch_and_add(&cg->live, -1);
	if (s->flags & HOSTNET_KEYED) {
		if (former != BPF_TCP_FIN_WAIT2)
			bpf_map_delete_elem(&sluice_origins, &s->key);
		else if ((origin = bpf_map_lookup_elem(&sluice_origins, &s->key)))
			origin->flags |= HOSTNET_CLOSED;
	}
	s->flags &= ~(HOSTNET_COUNTED | HOSTNET_KEYED);
}

SEC("sockops")
int sluice_sockops(struct bpf_sock_ops *ops)
{
	struct hostnet_cgroup *cg = bpf_get_local_storage(&sluice_cgroups, 0);
	struct bpf_sock *sk = ops->sk;
	struct hostnet_socket *s;

	if (!sk ||
	    (ops->op != BPF_SOCK_OPS_TCP_CONNECT_CB &&
	     ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_STATE_CB))
		return PASS;
	s = bpf_sk_storage_get(&sluice_captured, sk, NULL, 0);
	if (!s || s->origin.cgroup != cg->id)
		return PASS;
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		begin(ops, cg, s);
	else if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		establish(ops, cg, s);
	else if (ops->args[1] == BPF_TCP_CLOSE)
		end(cg, s, ops->args[0]);
	return PASS;
}

/* ---- packets ---- */

struct packet {
	struct target t;
	__u32 l4;
	bool odd; /* has IP options or extension headers, which could send it elsewhere */
};

static __always_inline bool parse4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) < 0 || ip.version != 4 || ip.ihl < 5)
		return false;
	ip_set4(&p->t.ip, ip.daddr);
	p->t.proto = ip.protocol;
	p->l4 = ip.ihl * 4;
	p->odd = ip.ihl > 5;
	return true;
}

#define JUMBO_PAYLOAD 0xc2 /* RFC 2675, 2 */

/* Before TCP segments of more than 64 KiB, for devices that cut them up, the kernel puts a length
 * (Linux 5.19, BIG TCP): the one extension header that is no application's.
 */
static __always_inline void skip_length(struct __sk_buff *skb, struct packet *p)
{
	__u8 hop[8]; /* next header, length, and one option */

	if (bpf_skb_load_bytes(skb, p->l4, hop, sizeof(hop)) < 0 || hop[0] != IPPROTO_TCP ||
	    hop[1] != 0 || hop[2] != JUMBO_PAYLOAD)
		return;
	p->t.proto = hop[0];
	p->l4 += sizeof(hop);
}

static __always_inline bool is_extension(__u16 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT ||
	       proto == IPPROTO_DSTOPTS || proto == IPPROTO_MH;
}

static __always_inline bool parse6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) < 0 || ip.version != 6)
		return false;
	__builtin_memcpy(&p->t.ip, &ip.daddr, sizeof(p->t.ip));
	p->t.proto = ip.nexthdr;
	p->l4 = sizeof(ip);
	if (ip.nexthdr == IPPROTO_HOPOPTS)
		skip_length(skb, p);
	p->odd = is_extension(p->t.proto);
	return true;
}

/* A segment of an ordinary TCP socket that opens nothing: an answer, or of a connection from before
 * the capture.
 */
static __always_inline bool is_going_on(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk = skb->sk;
	__u8 flags;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk || sk->type != SOCK_STREAM_ || sk->protocol != IPPROTO_TCP ||
	    p->t.proto != IPPROTO_TCP ||
	    bpf_skb_load_bytes(skb, p->l4 + 13, &flags, sizeof(flags)) < 0)
		return false;
	return (flags & 0x12) != 0x02; /* SYN without ACK */
}

static __always_inline enum hostnet_why judge_packet(struct __sk_buff *skb, struct packet *p)
{
	bool ok = skb->protocol == bpf_htons(ETH_P_IP) ? parse4(skb, p) : parse6(skb, p);

	if (!ok || p->odd)
		return HOSTNET_WHY_MALFORMED;
	if (p->t.proto == IPPROTO_TCP || p->t.proto == IPPROTO_UDP)
		bpf_skb_load_bytes(skb, p->l4 + 2, &p->t.port, sizeof(p->t.port));
	if (is_overlay(&p->t))
		return HOSTNET_WHY_OUTSIDE;
	if (skb->ifindex == LOOPBACK_DEVICE)
		return HOSTNET_WHY_NONE; /* it does not leave */
	/* What was captured, while the kernel routes it otherwise: seen of IPv6, until it looks the
	 * route up anew. */
	if (ip_is_this_host(&p->t.ip))
		return HOSTNET_WHY_OUTSIDE;
	if (ip_is_inside(&p->t.ip) || is_going_on(skb, p))
		return HOSTNET_WHY_NONE;
	return HOSTNET_WHY_OUTSIDE;
}

/* What came around the calls above: raw sockets, other protocols, sockets that were connected
 * before the capture. After the node's NAT, so it is the final destination that counts.
 */
SEC("cgroup_skb/egress")
int sluice_egress(struct __sk_buff *skb)
{
	struct hostnet_cgroup *cg = bpf_get_local_storage(&sluice_cgroups, 0);
	struct packet p = {};
	enum hostnet_why why = judge_packet(skb, &p);

	return why == HOSTNET_WHY_NONE ? PASS : refuse(cg, &p.t, why);
}

char _license[] SEC("license") = "Dual BSD/GPL";
