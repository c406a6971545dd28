/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the kernel itself says of iptables in the network namespace of the calling thread, without a
 * process: is there anything of ours, has anything changed, and is iptables-save to be believed.
 * Any thread; does not log above debug level.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "redirect/ipt_text.h"

/* iptables is two programs that know nothing of each other. The kernel asks the rules of both. */
enum ipt_variant {
	IPT_NFT,    /* as rules of nf_tables */
	IPT_LEGACY, /* of ip_tables and ip6_tables */
	IPT_VARIANT_N_,
};

const char *ipt_variant_str(enum ipt_variant variant);

struct ipt_kernel {
	bool ours;               /* there are chains of ours */
	bool asleep;             /* tables of nf_tables may be switched off (NFT_TABLE_F_DORMANT) */
	bool any[IPT_FAMILY_N_]; /* there are tables of ours or of others */
	/* Rules by nf_tables' count; entries by legacy iptables', see ipt_kernel_agrees(). */
	size_t n[IPT_FAMILY_N_][IPT_TABLE_N_];
	/* All of the tables in the kernel's own form, without handles and counters: the same bytes
	 * are the same rules. malloc'ed.
	 */
	char *content;
	size_t size;
};

/* Whoever is root in a pod can add as much as he likes. 4,096 networks take 3.4 MB. */
#define IPT_CONTENT_MAX (8U << 20) /* of a family, bytes */

/* -EOPNOTSUPP: this kernel does not have it at all. -EPERM. -EINTR, -EAGAIN: it changed meanwhile.
 * -EFBIG: it is too much to look at.
 */
int ipt_kernel_look(enum ipt_variant variant, struct ipt_kernel *ret);
void ipt_kernel_done(struct ipt_kernel *kernel); /* all zero is fine */

/* Is the listing of one family as long as what the kernel holds? The name in a rule of somebody
 * else's, printed as it is, might look like lines of ours.
 */
bool ipt_kernel_agrees(const struct ipt_kernel *kernel, enum ipt_variant variant,
		       enum ipt_family family, const struct ipt_listing *listing);

/* Switches the tables of iptables that are asleep on. */
int ipt_kernel_wake(void);

/* iptables of nf_tables makes tables when it is used first, and never takes them away: those that
 * `seen` says are empty go, unless somebody has a use for them. Those of legacy iptables are there
 * for as long as the network namespace.
 */
int ipt_kernel_tidy(const struct ipt_kernel *seen);

/* Whoever may use IPv6 can find a way to switch it on: is it in this kernel? */
bool ipt_kernel_has_v6(void);

/* Is the loopback interface (index 1) called "lo", by which rules know it? */
bool ipt_kernel_lo_is_lo(void);

/* ---- for ipt_kernel.c: fill `ret`, but for the content, which goes to `content` ---- */

int ipt_kernel_look_nft(struct ipt_kernel *ret, FILE *content);    /* ipt_kernel_nft.c */
int ipt_kernel_look_legacy(struct ipt_kernel *ret, FILE *content); /* ipt_kernel_legacy.c */
enum ipt_table_id ipt_table_find(const char *name);                /* IPT_TABLE_N_: no other */
