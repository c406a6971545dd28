/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Ranges of addresses as networks: iptables knows those by itself, without an extension for each
 * rule. Pure, any thread.
 */
#include <stddef.h>

#include "redirect/plan.h"

#define IPT_HOLES_MAX 8

struct ipt_nets {
	struct cidr *v; /* ascending, no two overlap */
	size_t n;
	struct cidr holes[IPT_HOLES_MAX]; /* single addresses that do not belong to it */
	size_t n_holes;
};

/* The fewest networks that hold just the addresses of `ranges` (as in struct plan). Single
 * addresses that are cut out are holes, if they are few: going around one takes up to 250 networks.
 * -ENOMEM.
 */
int ipt_nets_make(const struct plan_range *ranges, size_t n, struct ipt_nets *ret);
void ipt_nets_done(struct ipt_nets *nets); /* all zero is fine */

/* Some of them, neighbours, and the smallest network that holds all of those and none of others. */
struct ipt_group {
	struct cidr cover;
	size_t first, n;
};

/* Cuts all of `nets`, which are not none, into groups of at most `max`, in order. Returns how many
 * groups; -ENOMEM. The caller frees *ret.
 */
int ipt_nets_group(const struct ipt_nets *nets, size_t max, struct ipt_group **ret);
