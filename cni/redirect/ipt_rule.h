/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One rule of a plan in the words of iptables, in the order in which iptables-save says them. Pure.
 */
#include <stdio.h>

#include "redirect/plan.h"

/* A rule may need several lines, one for each type of ICMPv6. */
#define IPT_TYPES_MAX 4
#define IPT_MORE_MAX  384

struct ipt_rule {
	const char *src, *dst; /* networks, NULL: any */
	const char *in, *out;  /* "lo", "! lo" with its option, or NULL */
	const char *proto;
	uint8_t types[IPT_TYPES_MAX]; /* of ICMPv6: any of them */
	size_t n_types;
	bool src_cluster, dst_cluster;
	char more[IPT_MORE_MAX]; /* extensions, each with a blank in front */
	int r;                   /* 0, or -EINVAL: iptables cannot say it */
};

/* What the rule asks, as one of `family` (not PLAN_FAMILY_ANY). The cluster's networks, where it
 * asks for them, are left to the caller. -EINVAL: iptables cannot ask all of that in one rule.
 */
int ipt_rule_make(const struct plan *plan, const struct plan_rule *rule, enum plan_family family,
		  struct ipt_rule *ret);

/* Writes "-A CHAIN ..." lines that end in `action`. `net` takes the place of the cluster's
 * networks; NULL: none is asked for.
 */
void ipt_rule_print(const struct ipt_rule *rule, const char *chain, const struct cidr *net,
		    const char *action, FILE *out);

#define IPT_ACTION_MAX 160

/* " -j ...". Returns buf. */
const char *ipt_action(const struct plan *plan, enum plan_action action, enum plan_family family,
		       char buf[static IPT_ACTION_MAX]);
