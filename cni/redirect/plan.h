/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What has to be true in a pod's network namespace, as a list of rules that back ends translate.
 * Pure: the same input gives the same plan, in the same order.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"

#define PLAN_CAPTURE_PORT 15001
#define PLAN_MAX_RANGES   4096

/* Where reports go: an NFLOG group of the pod's network namespace. */
#define PLAN_NFLOG_GROUP    15001
#define PLAN_REPORT_RATE    20 /* a second, each rule for itself */
#define PLAN_REPORT_BURST   50
#define PLAN_REPORT_SNAPLEN 128 /* bytes of the packet */
#define PLAN_PREFIX_REFUSED "refused"
#define PLAN_PREFIX_BYPASS  "bypass"

struct plan_input {
	const struct cidr *cluster_cidrs; /* borrowed for the call of plan_make() */
	size_t n_cluster_cidrs;
	uint16_t capture_port; /* PLAN_CAPTURE_PORT */
};

enum plan_chain {
	PLAN_CHAIN_CAPTURE,   /* nat: what the pod sends, first packet of a connection */
	PLAN_CHAIN_OUTGOING,  /* filter: what the pod sends */
	PLAN_CHAIN_ARRIVING,  /* filter: whatever comes in, before it is routed */
	PLAN_CHAIN_INCOMING,  /* filter: what comes in for the pod */
	PLAN_CHAIN_FORWARDED, /* filter: what passes through, from nested containers and VMs */
	PLAN_CHAIN_LEAVING,   /* filter: after the last routing decision */
	PLAN_CHAIN_N_,
};

enum plan_family {
	PLAN_FAMILY_ANY,
	PLAN_FAMILY_V4,
	PLAN_FAMILY_V6,
	PLAN_FAMILY_N_,
};

/* What a rule asks of a packet: all of its bits, tested from the lowest bit up. Those marked (f)
 * need a rule of one family.
 */
enum plan_match {
	PLAN_IN_LO = 1 << 0,
	PLAN_IN_NOT_LO = 1 << 1,
	PLAN_OUT_LO = 1 << 2, /* as first routed, but for PLAN_CHAIN_LEAVING */
	PLAN_OUT_NOT_LO = 1 << 3,
	PLAN_CT_LIVE = 1 << 4,  /* conntrack: established or related */
	PLAN_CT_REPLY = 1 << 5, /* conntrack: towards who opened the connection */
	PLAN_CT_NEW = 1 << 6,
	PLAN_CT_DNAT = 1 << 7, /* conntrack: its destination was rewritten here */
	PLAN_TCP = 1 << 8,
	PLAN_TCP_RST = 1 << 9,
	PLAN_TCP_NOT_SYN = 1 << 10, /* not the packet that opens a connection */
	PLAN_DPORT_CAPTURE = 1 << 11,
	PLAN_ND = 1 << 12,             /* (f) ICMPv6 neighbour solicitation or advertisement */
	PLAN_MLD_OR_RS = 1 << 13,      /* (f) ICMPv6 131, 132 (MLD), 133 (router solicitation) */
	PLAN_MLD2 = 1 << 14,           /* (f) ICMPv6 143 */
	PLAN_HOPLIMIT_255 = 1 << 15,   /* (f) no router has passed it on */
	PLAN_SRC_CLUSTER = 1 << 16,    /* (f) */
	PLAN_DST_CLUSTER = 1 << 17,    /* (f) */
	PLAN_DST_LOOPBACK = 1 << 18,   /* (f) 127.0.0.0/8, ::1 */
	PLAN_DST_LINK = 1 << 19,       /* (f) fe80::/10 */
	PLAN_DST_LINK_GROUP = 1 << 20, /* (f) ff02::/16 */
	PLAN_DST_NEIGHBOUR = 1 << 21,  /* (f) learnt by PLAN_ACTION_LEARN within the last hour */
	PLAN_SRC_LOCAL = 1 << 22,      /* one of the pod's own addresses */
	PLAN_SRC_NOT_LOCAL = 1 << 23,
	PLAN_SRC_ASTRAY = 1 << 24, /* ARRIVING: the way to the source is by another interface */
	PLAN_QUIC = 1 << 25,       /* UDP to port 443 */
	PLAN_DST_ROUTED = 1 << 26, /* ARRIVING: for elsewhere, neither the pod nor a group */
	PLAN_MATCH_END_ = 1 << 27,
};

enum plan_action {
	PLAN_ACTION_ACCEPT,
	PLAN_ACTION_REDIRECT, /* to the capture port on 127.0.0.1 or ::1 */
	PLAN_ACTION_RESET,    /* refuse with a TCP reset, counted */
	PLAN_ACTION_PROHIBIT, /* refuse with ICMP "administratively prohibited", counted */
	PLAN_ACTION_DROP,     /* refuse in silence, counted */
	PLAN_ACTION_LEARN,    /* remember the source as a neighbour, and go on */
	/* Report by NFLOG, no more than PLAN_REPORT_RATE a second, and go on in any case: the
	 * verdict is the next rule's. With PLAN_PREFIX_REFUSED and PLAN_PREFIX_BYPASS.
	 */
	PLAN_ACTION_REPORT_REFUSED, /* a protocol that does not leave */
	PLAN_ACTION_REPORT_BYPASS,  /* what had gone around the redirection */
	PLAN_ACTION_N_,
};

struct plan_rule {
	enum plan_chain chain;
	enum plan_family family;
	uint32_t match; /* PLAN_* bits of enum plan_match */
	enum plan_action action;
};

/* First and last address, both inside; IPv4 in its mapped form, as everywhere. */
struct plan_range {
	uint8_t from[16], to[16];
};

/* Rules are tried in order within a chain; what none of them settles is dropped in OUTGOING and
 * FORWARDED, and accepted in the others.
 */
struct plan {
	uint16_t capture_port;
	const struct plan_rule *rules; /* static; chain by chain */
	size_t n_rules;
	/* The cluster's networks without the clouds' metadata addresses: ascending, no two touch.
	 */
	struct plan_range *v4, *v6;
	size_t n_v4, n_v6;
};

/* Allocates; plan_done() frees. -ENOMEM; -E2BIG beyond PLAN_MAX_RANGES networks. */
int plan_make(const struct plan_input *input, struct plan *ret);
void plan_done(struct plan *plan); /* all zero is fine */

const char *plan_chain_str(enum plan_chain chain);

/* One line per range and rule, for tests and people. */
void plan_print(const struct plan *plan, FILE *out);
