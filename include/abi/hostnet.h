/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What bpf/hostnet.bpf.c and agent/guard/hostnet*.c tell each other by maps and the ring buffer.
 * Only
 * __uN and __beN fields, sizes pinned below: a change here is a change of contract between two
 * programs that may be of different ages, and needs another HOSTNET_ABI. IPv4 addresses are in
 * their mapped form (::ffff:a.b.c.d) wherever a field has 16 bytes.
 */
#include <linux/types.h>

#define HOSTNET_ABI 1 /* part of the pins' path */

#define HOSTNET_MAX_CGROUPS 64   /* captured at a time */
#define HOSTNET_MAX_LIVE    2048 /* captured connections of one of them at a time */

/* One captured cgroup; kept with its attachments, so that a program knows whose it runs for by
 * where it is attached. All zero until user space has filled it in: nothing leaves meanwhile.
 */
struct hostnet_cgroup {
	__u64 id;         /* inode of its folder; 0: not ready */
	__u64 serial;     /* random; what was counted under another one is not counted here */
	__u64 next_ns;    /* events: when the allowance is whole again, CLOCK_MONOTONIC */
	__u64 suppressed; /* refusals without an event since the last one */
	__u32 live;       /* captured connections, from SYN to CLOSE */
	__u32 pad;
};

/* A captured connection as its listener sees it, by its peer. */
struct hostnet_key {
	__u64 netns; /* cookie */
	__u8 ip[16];
	__u16 port; /* host order */
	__u8 pad[6];
};

#define HOSTNET_CLOSED (1U << 0) /* in good order, by the client: the listener has its FIN */

struct hostnet_origin {
	__u64 cgroup;
	__u8 dst[16]; /* that was dialled */
	__be16 dport;
	__u8 flags; /* HOSTNET_CLOSED */
	__u8 pad[5];
};

/* A captured socket, kept with it from connect() on. */
#define HOSTNET_V4      (1U << 0) /* it goes to 127.0.0.1, whatever the socket's family */
#define HOSTNET_COUNTED (1U << 1) /* in `live` */
#define HOSTNET_KEYED   (1U << 2) /* its origin was written */

struct hostnet_socket {
	struct hostnet_key key;       /* its netns at first, all of it when KEYED */
	struct hostnet_origin origin; /* origin.cgroup is the innermost captured one */
	__u64 serial;                 /* of that cgroup, when COUNTED */
	__u32 flags;                  /* HOSTNET_V4, ... */
	__u32 pad;
};

/* Why something was refused. */
enum hostnet_why {
	HOSTNET_WHY_NONE,      /* it was not */
	HOSTNET_WHY_OUTSIDE,   /* to an address outside the cluster networks, in a way not captured;
				* into the nodes' overlay network; from an address not the node's
				*/
	HOSTNET_WHY_LISTENER,  /* to the agent's listener itself */
	HOSTNET_WHY_FULL,      /* HOSTNET_MAX_LIVE, or no memory */
	HOSTNET_WHY_MALFORMED, /* cannot be understood; IP options, IPv6 extension headers */
	HOSTNET_WHY_N_,
};

/* Counters: refused calls and packets. `proto` is an IP protocol number, HOSTNET_PROTO_OTHER for
 * those the table does not tell apart.
 */
#define HOSTNET_PROTO_OTHER 255 /* none of 1 6 17 58 132 */

struct hostnet_count_key {
	__u64 cgroup;
	__u8 proto;
	__u8 why; /* enum hostnet_why */
	__u8 pad[6];
};

/* One refusal, in the ring buffer; at most some a second of each cgroup. */
struct hostnet_report {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cgroup;
	__u8 dst[16];
	__be16 dport; /* 0 where there is none */
	__u8 proto;
	__u8 why; /* enum hostnet_why */
	__u32 suppressed;
};

_Static_assert(sizeof(struct hostnet_cgroup) == 40, "shared with BPF");
_Static_assert(sizeof(struct hostnet_key) == 32, "shared with BPF");
_Static_assert(sizeof(struct hostnet_origin) == 32, "shared with BPF");
_Static_assert(sizeof(struct hostnet_socket) == 80, "shared with BPF");
_Static_assert(sizeof(struct hostnet_count_key) == 16, "shared with BPF");
_Static_assert(sizeof(struct hostnet_report) == 40, "shared with BPF");
