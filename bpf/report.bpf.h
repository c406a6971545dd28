/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Counters and events of refused packets. Nothing here can change a verdict. */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "parse.bpf.h"

#define EVENT_INTERVAL_NS 100000000ULL /* of one pod, on average */
#define EVENT_BURST       20

#ifndef IPPROTO_IGMP
#define IPPROTO_IGMP 2
#endif

static __always_inline __u8 counted_as(const struct packet *p)
{
	if (!p->is_ip)
		return p->proto;
	switch (p->proto) {
	case IPPROTO_ICMP:
	case IPPROTO_IPIP:
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_IPV6:
	case IPPROTO_GRE:
	case IPPROTO_ICMPV6:
	case IPPROTO_SCTP:
		return p->proto;
	}
	return GUARD_PROTO_OTHER;
}

static __always_inline void count(const struct __sk_buff *skb, const struct packet *p,
				  enum guard_why why)
{
	struct guard_count_key key = {.ifindex = skb->ifindex, .proto = counted_as(p), .why = why};
	struct guard_count *c = bpf_map_lookup_elem(&sluice_counts, &key), none = {};

	if (!c) {
		bpf_map_update_elem(&sluice_counts, &key, &none, BPF_NOEXIST);
		c = bpf_map_lookup_elem(&sluice_counts, &key);
		if (!c)
			return;
	}
	c->packets++;
	c->bytes += skb->len;
}

/* Takes one of the pod's events, unless it has had its share. */
static __always_inline bool take_event(struct rate *rate, __u64 now)
{
	__u64 next = rate->next_ns, from = next > now ? next : now;

	return from + EVENT_INTERVAL_NS - now <= EVENT_BURST * EVENT_INTERVAL_NS &&
	       __sync_val_compare_and_swap(&rate->next_ns, next, from + EVENT_INTERVAL_NS) == next;
}

static __always_inline struct rate *rate_of(__u32 ifindex)
{
	struct rate *rate = bpf_map_lookup_elem(&sluice_rates, &ifindex), fresh = {};

	if (rate)
		return rate;
	bpf_map_update_elem(&sluice_rates, &ifindex, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&sluice_rates, &ifindex);
}

/* What every healthy pod sends now and then: an answer to a stranger's stray segment, and that it
 * has joined a group.
 */
static __always_inline bool is_usual(const struct packet *p, enum guard_why why)
{
	if (why != GUARD_WHY_OUTSIDE && why != GUARD_WHY_PROTOCOL)
		return false;
	if (p->proto == IPPROTO_TCP)
		return p->tcp_flags & TCP_RST;
	return !p->v6 && p->proto == IPPROTO_IGMP;
}

static __always_inline void tell(const struct __sk_buff *skb, const struct packet *p,
				 enum guard_why why)
{
	__u64 now = bpf_ktime_get_ns(), suppressed;
	struct rate *rate = rate_of(skb->ifindex);
	struct guard_event *event;

	if (!rate)
		return;
	if (is_usual(p, why) || !take_event(rate, now)) {
		__sync_fetch_and_add(&rate->suppressed, 1);
		return;
	}
	event = bpf_ringbuf_reserve(&sluice_events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&rate->suppressed, 1);
		return;
	}
	suppressed = __sync_lock_test_and_set(&rate->suppressed, 0);
	event->time_ns = now;
	event->ifindex = skb->ifindex;
	event->suppressed = suppressed < 0xffffffff ? suppressed : 0xffffffff;
	__builtin_memcpy(event->src, &p->src, sizeof(event->src));
	__builtin_memcpy(event->dst, &p->dst, sizeof(event->dst));
	event->sport = p->sport;
	event->dport = p->dport;
	event->ethertype = skb->protocol;
	event->proto = p->proto;
	event->why = why;
	event->len = skb->len;
	event->pad = 0;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void report(const struct __sk_buff *skb, const struct packet *p,
				   enum guard_why why)
{
	count(skb, p, why);
	tell(skb, p, why);
}
