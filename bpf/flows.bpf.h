/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The table of what was opened towards a pod from outside the cluster. Each flow has two buckets it
 * may be in; a bucket is worked on under its own lock, one at a time. flow_open() and
 * flow_arrived() are for packets to the pod, flow_answers() for packets from it, which can neither
 * make an entry nor keep one alive but that of a TCP connection that both sides have opened.
 *
 *         SYN in         its ACK of the pod's SYN        a FIN            RST, FINs of both
 *   FREE ---------> HALF ----------------------> OPEN ----------> FIN ---------------------->
 * CLOSING ^                                                                           |
 *                    +---------------------------------- SYN in ---------------------------------+
 *
 * A new flow takes the place of: nothing; what is closing; what has expired; the oldest datagram or
 * half-open connection. Never that of an open connection: then it is refused. A forged SYN can
 * therefore only push out what has not answered yet, and a datagram's flow is back with the next
 * datagram.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps.bpf.h"
#include "parse.bpf.h"

#define FLOW_SECONDS(n) ((__u32)((n)*1000000000ULL >> 20))
#define FRAG_AGE        FLOW_SECONDS(2)

/* Another CPU may have written a later time while this one waited for the lock. */
#define FLOW_SKEW FLOW_SECONDS(1)

#define FLOW_ANSWERED 1 /* HALF: `expect` is known */
#define FLOW_FIN_IN   2
#define FLOW_FIN_OUT  4

/* How far from what is expected a number may be: data that the pod has sent ahead of the first
 * acknowledgment, and what a window of the remote's may hold.
 */
#define FLOW_ACK_SPAN (1U << 16)
#define FLOW_SEQ_SPAN (1U << 24)

/* By enum guard_flow_state; a power of two of them. How long a flow lives without a packet that
 * renews it: any of an open connection, and what comes in of everything else.
 */
static const __u32 flow_ages[8] SEC(".rodata") = {
	[GUARD_FLOW_DATAGRAM] = FLOW_SECONDS(60),   [GUARD_FLOW_HALF] = FLOW_SECONDS(10),
	[GUARD_FLOW_OPEN] = FLOW_SECONDS(3 * 3600), /* the kernel's keep-alive starts after 2 h */
	[GUARD_FLOW_FIN] = FLOW_SECONDS(600),       [GUARD_FLOW_CLOSING] = FLOW_SECONDS(60),
};

/* Whose place is taken, the lower the sooner: by state, alive and expired. Within a class, that of
 * the one that has been quiet for longest.
 */
#define CLASS_FREE    0
#define CLASS_CLOSING 1
#define CLASS_EXPIRED 2
#define CLASS_SOFT    3
#define CLASS_NEVER   4

static const __u8 flow_classes[8][2] SEC(".rodata") = {
	[GUARD_FLOW_FREE] = {CLASS_FREE, CLASS_FREE},
	[GUARD_FLOW_DATAGRAM] = {CLASS_SOFT, CLASS_EXPIRED},
	[GUARD_FLOW_HALF] = {CLASS_SOFT, CLASS_EXPIRED},
	[GUARD_FLOW_OPEN] = {CLASS_NEVER, CLASS_EXPIRED},
	[GUARD_FLOW_FIN] = {CLASS_NEVER, CLASS_EXPIRED},
	[GUARD_FLOW_CLOSING] = {CLASS_CLOSING, CLASS_CLOSING},
};

/* Hides a value's origin from the compiler, which would make branches of the arithmetic below: the
 * verifier goes through every way of taking 8 of them.
 */
#define HIDE(x) asm volatile("" : "+r"(x))

#define ND_PORT bpf_htons(135) /* rport of neighbour discovery: no echo has one */

struct flow_id {
	union ip remote;
	__be16 rport, lport;
	__u32 proto;
};

struct flow_places {
	struct guard_flow_key at[2];
};

static __always_inline __u32 flow_now(void)
{
	return (__u32)(bpf_ktime_get_ns() >> 20);
}

static __always_inline __u64 flow_seed(void)
{
	__u32 zero = 0;
	__u64 *seed = bpf_map_lookup_elem(&sluice_seed, &zero);
	__u64 fresh;

	if (!seed)
		return 0;
	if (*seed == 0) {
		fresh = (__u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32() | 1;
		__sync_val_compare_and_swap(seed, 0, fresh);
	}
	return *seed;
}

static __always_inline void flow_place(__u32 ifindex, __u32 buckets, const struct flow_id *id,
				       struct flow_places *ret)
{
	const __u64 odd = 0x9e3779b97f4a7c15; /* 2^64 by the golden ratio */
	__u64 h = flow_seed();

	h = (h ^ id->remote.d[0]) * odd;
	h ^= h >> 32;
	h = (h ^ id->remote.d[1]) * odd;
	h ^= h >> 29;
	h = (h ^ ((__u64)id->proto << 32 | (__u32)id->rport << 16 | id->lport)) * odd;
	h ^= h >> 32;
	h *= odd;
	if (buckets == 0 || buckets > GUARD_MAX_BUCKETS)
		buckets = 1; /* not what was agreed; by 0 there would be no bound at all */
	ret->at[0].ifindex = ret->at[1].ifindex = ifindex;
	ret->at[0].bucket = (__u32)(h >> 32) % buckets;
	ret->at[1].bucket = (__u32)h % buckets;
}

/* Never less than nothing, for the price of one FLOW_SKEW more. */
static __always_inline __u32 flow_age(__u32 seen, __u32 now)
{
	return now - seen + FLOW_SKEW;
}

/* ---- under a bucket's lock: no helper may be called ---- */

/* 1 or 0. */
static __always_inline __u64 flow_expired(const struct guard_flow *f, __u32 now)
{
	__u64 left = (__u64)flow_ages[f->state & 7] + FLOW_SKEW - flow_age(f->seen, now);

	HIDE(left);
	return left >> 63;
}

/* 0: it is this one. */
static __always_inline __u64 flow_differs(const struct guard_flow *f, const struct flow_id *id)
{
	const union ip *remote = (const union ip *)f->remote;

	return (remote->d[0] ^ id->remote.d[0]) | (remote->d[1] ^ id->remote.d[1]) |
	       (f->rport ^ id->rport) | (f->lport ^ id->lport) | (f->proto ^ id->proto);
}

/* Which way of the bucket; GUARD_FLOW_WAYS: none. */
static __always_inline __u32 flow_find(const struct bucket *b, const struct flow_id *id)
{
	__u64 found = 0, way = GUARD_FLOW_WAYS;

	for (__u32 i = 0; i < GUARD_FLOW_WAYS; i++) {
		__u64 x = flow_differs(&b->ways[i], id), is;

		x |= -x;
		HIDE(x);
		is = (x >> 63 ^ 1) & (found ^ 1);
		found |= is;
		way -= is * (GUARD_FLOW_WAYS - i);
	}
	return way;
}

#define VICTIM_CLASS 35 /* shift */

/* Of the place that would be taken: its class, then the inverse of its age, then, in 3 bits, which
 * way it is.
 */
static __always_inline __u64 flow_victim(const struct bucket *b, __u32 now)
{
	__u64 best = ~0ULL >> 1;

	for (__u32 i = 0; i < GUARD_FLOW_WAYS; i++) {
		const struct guard_flow *f = &b->ways[i];
		__u64 class = flow_classes[f->state & 7][flow_expired(f, now) & 1], rank;
		__s64 less;

		rank = class << VICTIM_CLASS | (__u64)(__u32)~flow_age(f->seen, now) << 3 | i;
		less = rank - best;
		less &= less >> 63;
		HIDE(less);
		best += less;
	}
	return best;
}

static __always_inline void flow_close(struct guard_flow *f, __u32 now)
{
	f->state = GUARD_FLOW_CLOSING;
	f->seen = now;
}

static __always_inline void flow_fin(struct guard_flow *f, __u8 side, __u32 now)
{
	f->flags |= side;
	f->state = GUARD_FLOW_FIN;
	if ((f->flags & (FLOW_FIN_IN | FLOW_FIN_OUT)) == (FLOW_FIN_IN | FLOW_FIN_OUT))
		flow_close(f, now);
}

/* The pod has sent something on it. */
static __always_inline void flow_sent(struct guard_flow *f, const struct packet *p, __u32 now)
{
	if (f->state == GUARD_FLOW_HALF) {
		/* Whatever it sends is at or behind its SYN: the remote will acknowledge that. */
		f->expect = p->seq + (p->tcp_flags & TCP_SYN ? 1 : 0);
		f->flags |= FLOW_ANSWERED;
		if (p->tcp_flags & TCP_RST)
			flow_close(f, now);
	} else if (f->state == GUARD_FLOW_OPEN || f->state == GUARD_FLOW_FIN) {
		f->seen = now;
		if (p->tcp_flags & TCP_ACK)
			f->expect = p->ack;
		if (p->tcp_flags & TCP_RST)
			flow_close(f, now);
		else if (p->tcp_flags & TCP_FIN)
			flow_fin(f, FLOW_FIN_OUT, now);
	}
}

/* The remote has. A RST or FIN counts where it can be the remote's own: whoever forges one has to
 * guess, and gains no more than that the entry may be replaced. A SYN-ACK is never the remote's,
 * and a RST renews nothing: the pod can have either from the agent, or from sluice_from_pod.
 */
static __always_inline void flow_heard(struct guard_flow *f, const struct packet *p, __u32 now)
{
	bool live = f->state == GUARD_FLOW_OPEN || f->state == GUARD_FLOW_FIN;

	if (p->tcp_flags & TCP_SYN)
		return;
	if (live && p->seq - f->expect >= FLOW_SEQ_SPAN) {
		f->seen = now;
		return;
	}
	if (p->tcp_flags & TCP_RST) {
		if (f->state != GUARD_FLOW_CLOSING)
			flow_close(f, now);
		return;
	}
	f->seen = now;
	if (f->state == GUARD_FLOW_HALF && p->tcp_flags & TCP_ACK && f->flags & FLOW_ANSWERED &&
	    p->ack - f->expect < FLOW_ACK_SPAN) {
		f->state = GUARD_FLOW_OPEN;
		f->flags = 0;
		f->expect = p->seq;
		live = true;
	}
	if (live && p->tcp_flags & TCP_FIN)
		flow_fin(f, FLOW_FIN_IN, now);
}

/* Another first packet of the same flow. A SYN for an open connection is not its end: that would
 * come from the pod.
 */
static __always_inline void flow_again(struct guard_flow *f, bool tcp, __u32 now)
{
	if (!tcp) {
		f->seen = now;
	} else if (f->state == GUARD_FLOW_HALF) {
		f->seen = now;
	} else if (f->state == GUARD_FLOW_CLOSING || flow_expired(f, now)) {
		f->state = GUARD_FLOW_HALF;
		f->flags = 0;
		f->seen = now;
	}
}

static __always_inline void flow_write(struct guard_flow *f, const struct flow_id *id, __u32 now)
{
	__builtin_memcpy(f->remote, &id->remote, sizeof(f->remote));
	f->rport = id->rport;
	f->lport = id->lport;
	f->proto = id->proto;
	f->state = id->proto == IPPROTO_TCP ? GUARD_FLOW_HALF : GUARD_FLOW_DATAGRAM;
	f->flags = 0;
	f->seen = now;
	f->expect = 0;
}

/* ---- taking the lock ---- */

/* Whether the bucket has the flow; renews it if so. *ret_victim is of the place it could take. */
static __always_inline bool flow_renew(const struct guard_flow_key *key, const struct flow_id *id,
				       __u32 now, __u64 *ret_victim)
{
	struct bucket *b = bpf_map_lookup_elem(&sluice_flows, key);
	__u32 way;

	*ret_victim = 0;
	if (!b)
		return false;
	bpf_spin_lock(&b->lock);
	way = flow_find(b, id);
	if (way < GUARD_FLOW_WAYS)
		flow_again(&b->ways[way], id->proto == IPPROTO_TCP, now);
	else
		*ret_victim = flow_victim(b, now);
	bpf_spin_unlock(&b->lock);
	return way < GUARD_FLOW_WAYS;
}

static __always_inline bool flow_insert(const struct guard_flow_key *key, const struct flow_id *id,
					__u32 now)
{
	static const char empty[sizeof(struct bucket)];
	struct bucket *b = bpf_map_lookup_elem(&sluice_flows, key);
	__u64 victim;

	if (!b) {
		bpf_map_update_elem(&sluice_flows, key, empty, BPF_NOEXIST);
		b = bpf_map_lookup_elem(&sluice_flows, key);
		if (!b)
			return false;
	}
	bpf_spin_lock(&b->lock);
	victim = flow_victim(b, now);
	if (victim >> VICTIM_CLASS < CLASS_NEVER)
		flow_write(&b->ways[victim & 7], id, now);
	bpf_spin_unlock(&b->lock);
	return victim >> VICTIM_CLASS < CLASS_NEVER;
}

/* A packet that may open a flow towards the pod. False: there is no room. */
static __always_inline bool flow_open(__u32 ifindex, __u32 buckets, const struct flow_id *id)
{
	struct flow_places places;
	__u64 victim0, victim1;
	__u32 now = flow_now();

	flow_place(ifindex, buckets, id, &places);
	if (flow_renew(&places.at[0], id, now, &victim0) ||
	    flow_renew(&places.at[1], id, now, &victim1))
		return true;
	return flow_insert(victim0 <= victim1 ? &places.at[0] : &places.at[1], id, now);
}

/* Whether the bucket has the flow, and it is alive. `p` moves it on; NULL leaves it as it is. */
static __always_inline bool flow_touch(const struct guard_flow_key *key, const struct flow_id *id,
				       const struct packet *p, bool sent, __u32 now)
{
	struct bucket *b = bpf_map_lookup_elem(&sluice_flows, key);
	bool alive = false;
	__u32 way;

	if (!b)
		return false;
	bpf_spin_lock(&b->lock);
	way = flow_find(b, id);
	if (way < GUARD_FLOW_WAYS) {
		struct guard_flow *f = &b->ways[way];

		alive = !flow_expired(f, now);
		if (alive && p && sent)
			flow_sent(f, p, now);
		else if (alive && p)
			flow_heard(f, p, now);
	}
	bpf_spin_unlock(&b->lock);
	return alive;
}

/* A TCP segment to the pod that opens nothing. */
static __always_inline void flow_arrived(__u32 ifindex, __u32 buckets, const struct flow_id *id,
					 const struct packet *p)
{
	__u32 now = flow_now();
	struct flow_places places;

	flow_place(ifindex, buckets, id, &places);
	if (!flow_touch(&places.at[0], id, p, false, now))
		flow_touch(&places.at[1], id, p, false, now);
}

/* Whether what the pod sends belongs to a live flow. `p` is NULL when it only quotes it. */
static __always_inline bool flow_answers(__u32 ifindex, __u32 buckets, const struct flow_id *id,
					 const struct packet *p)
{
	__u32 now = flow_now();
	struct flow_places places;

	flow_place(ifindex, buckets, id, &places);
	return flow_touch(&places.at[0], id, p, true, now) ||
	       flow_touch(&places.at[1], id, p, true, now);
}

/* ---- fragments of answers ---- */

static __always_inline struct frag_key frag_key_of(__u32 ifindex, const struct packet *p)
{
	__u32 h = p->frag_id ^ p->dst.w[3] ^ p->proto;

	h *= 0x9e3779b1;
	return (struct frag_key){.ifindex = ifindex, .slot = h >> 16 & (FRAGS_OF_POD - 1)};
}

/* A first fragment has passed. When there is no memory for it, the others will not. */
static __always_inline void frag_remember(__u32 ifindex, const struct packet *p)
{
	struct frag_key key = frag_key_of(ifindex, p);
	struct frag frag = {.id = p->frag_id, .proto = p->proto, .seen = flow_now()};

	__builtin_memcpy(frag.remote, &p->dst, sizeof(frag.remote));
	bpf_map_update_elem(&sluice_frags, &key, &frag, BPF_ANY);
}

static __always_inline bool frag_is_known(__u32 ifindex, const struct packet *p)
{
	struct frag_key key = frag_key_of(ifindex, p);
	struct frag *frag = bpf_map_lookup_elem(&sluice_frags, &key);

	return frag && frag->id == p->frag_id && frag->proto == p->proto &&
	       ip_equal((const union ip *)frag->remote, &p->dst) &&
	       flow_age(frag->seen, flow_now()) <= FRAG_AGE + FLOW_SKEW;
}
