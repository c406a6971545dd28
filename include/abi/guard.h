/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What bpf/guard.bpf.c and agent/guard/ tell each other by maps and the ring buffer. Only __uN and
 * __beN fields, sizes pinned below: a change here is a change of contract between two programs that
 * may be of different ages, and needs another GUARD_ABI. IPv4 addresses are in their mapped form
 * (::ffff:a.b.c.d) wherever a field has 16 bytes.
 */
#include <linux/types.h>

#define GUARD_ABI 2 /* part of the pins' path */

#define GUARD_MAX_PODS    1024
#define GUARD_FLOW_WAYS   8   /* in a bucket */
#define GUARD_MAX_BUCKETS 512 /* of one pod; GUARD_FLOW_WAYS inbound flows each */

/* One enrolled pod, by the index of its interface's host end. What is not here has no way out. */
#define GUARD_POD_STEER (1U << 0) /* give outbound TCP to the agent's listener; else drop it */
#define GUARD_POD_DHCP  (1U << 1) /* the pod may ask for an address (RFC 2131, RFC 8415) */

struct guard_pod {
	__u32 flags;   /* GUARD_POD_* */
	__u32 buckets; /* 1 to GUARD_MAX_BUCKETS: bound of the pod's part of the flow table */
	/* STEER: the interface through which the node's own addresses are reached, and the link
	 * addresses (IFLA_ADDRESS) of the pod's host end and of that one. `upper` is the bridge
	 * where the host end is a port of one, else the host end itself. What is steered is
	 * addressed to these, wherever the pod addressed its frame, so that no bridge passes it on.
	 * A wrong address, or none: nothing is steered.
	 */
	__u32 upper;
	__u8 mac[6];
	__u8 upper_mac[6];
	/* Where the host end is a port of a bridge, the link address that the pod's frames have to
	 * come from, or the bridge would look for another's here. Zero: any.
	 */
	__u8 pod_mac[6];
	__u8 pad[2];
};

/* Value of sluice_sockets for each listener of the agent's that pods are steered to, by its file
 * descriptor; connections inherit it from the listener. No other socket is ever given a packet.
 */
#define GUARD_SOCKET_AGENT 1U

/* One of a pod's own addresses: nothing else may be a source. */
struct guard_own {
	__u32 ifindex;
	__u8 addr[16];
};

/* Keys of the cluster networks, longest prefix first; value: __u32, GUARD_CLUSTER_*. */
struct guard_net4 {
	__u32 prefixlen;
	__u8 addr[4];
};

struct guard_net6 {
	__u32 prefixlen;
	__u8 addr[16];
};

#define GUARD_CLUSTER_OUTSIDE 0 /* cut out of a larger one */
#define GUARD_CLUSTER_INSIDE  1

/* Connections and exchanges that were opened towards the pod from outside the cluster. A value of
 * the table is 8 bytes that are the kernel's own, and GUARD_FLOW_WAYS of struct guard_flow.
 */
struct guard_flow_key {
	__u32 ifindex;
	__u32 bucket;
};

enum guard_flow_state {
	GUARD_FLOW_FREE,
	GUARD_FLOW_DATAGRAM, /* UDP, ICMP echo, neighbour solicitation */
	GUARD_FLOW_HALF,     /* TCP, its opener has not acknowledged the pod's SYN */
	GUARD_FLOW_OPEN,     /* TCP, it has: nobody's forgery */
	GUARD_FLOW_FIN,      /* TCP, one side has closed */
	GUARD_FLOW_CLOSING,  /* TCP, reset, or both have */
	GUARD_FLOW_N_,
};

struct guard_flow {
	__u8 remote[16];
	__be16 rport; /* of ICMP: 0; of neighbour discovery: 135 */
	__be16 lport; /* of ICMP: the identifier */
	__u8 proto;
	__u8 state; /* enum guard_flow_state */
	__u8 flags; /* the kernel half's own */
	__u8 pad;
	__u32 seen;   /* units of 2^20 ns, CLOCK_MONOTONIC */
	__u32 expect; /* HALF: acknowledgment, then: sequence number that the remote goes on with */
};

/* Why a packet was refused. */
enum guard_why {
	GUARD_WHY_NONE,        /* it was not */
	GUARD_WHY_UNKNOWN_POD, /* no entry for the interface */
	GUARD_WHY_MALFORMED,   /* truncated, lengths that contradict each other */
	GUARD_WHY_ETHERTYPE,   /* neither IPv4, IPv6 nor ARP */
	GUARD_WHY_VLAN,        /* tagged */
	GUARD_WHY_SPOOFED, /* the source (of frame, ARP and ND too) is none of the pod's addresses
			    */
	GUARD_WHY_SOURCE_ROUTE, /* IPv4 LSRR, SSRR; IPv6 routing header with segments left */
	GUARD_WHY_FRAGMENT,     /* a fragment to the outside that belongs to nothing known */
	GUARD_WHY_OUTSIDE,      /* to an address outside the cluster networks */
	GUARD_WHY_PROTOCOL,     /* STEER: not TCP, refused with ICMP; else as OUTSIDE */
	GUARD_WHY_NO_LISTENER,  /* STEER: the agent's listener is not there; refused with RST */
	GUARD_WHY_FLOWS_FULL,   /* towards the pod: no room for another inbound flow */
	GUARD_WHY_N_,
};

/* Counters: packets and bytes refused, by pod, protocol and reason. `proto` is an IP protocol
 * number, but for GUARD_PROTO_* and those the table does not tell apart (GUARD_PROTO_OTHER).
 */
#define GUARD_PROTO_ARP   252
#define GUARD_PROTO_ETHER 253
#define GUARD_PROTO_OTHER 255 /* IP, none of 1 4 6 17 41 47 58 132 */

struct guard_count_key {
	__u32 ifindex;
	__u8 proto;
	__u8 why; /* enum guard_why */
	__u8 pad[2];
};

struct guard_count {
	__u64 packets;
	__u64 bytes;
};

/* One refused packet, in the ring buffer; at most some a second of each pod. */
struct guard_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 ifindex;
	__u32 suppressed; /* refused packets of this pod without an event since its last one */
	__u8 src[16];
	__u8 dst[16];
	__be16 sport; /* 0 where there is none */
	__be16 dport;
	__be16 ethertype;
	__u8 proto; /* IP protocol number or GUARD_PROTO_ARP, GUARD_PROTO_ETHER */
	__u8 why;   /* enum guard_why */
	__u32 len;
	__u32 pad;
};

_Static_assert(sizeof(struct guard_pod) == 32, "shared with BPF");
_Static_assert(sizeof(struct guard_own) == 20, "shared with BPF");
_Static_assert(sizeof(struct guard_net4) == 8, "shared with BPF");
_Static_assert(sizeof(struct guard_net6) == 20, "shared with BPF");
_Static_assert(sizeof(struct guard_flow_key) == 8, "shared with BPF");
_Static_assert(sizeof(struct guard_flow) == 32, "shared with BPF");
_Static_assert(sizeof(struct guard_count_key) == 8, "shared with BPF");
_Static_assert(sizeof(struct guard_count) == 16, "shared with BPF");
_Static_assert(sizeof(struct guard_event) == 64, "shared with BPF");
