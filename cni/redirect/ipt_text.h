/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A plan as text for iptables-restore and ip6tables-restore: chains of our own in the tables
 * filter, mangle and nat, each jumped to by the first rule of a built-in chain. Pure: what is in
 * force is given as iptables-save printed it. For redirect_ipt.c.
 *
 * Whatever may pass goes back to the built-in chain, so that rules of others behind the jump have
 * their say; what is refused is refused in front of them.
 */
#include <stdbool.h>
#include <stdio.h>

#include "redirect/plan.h"

enum ipt_family {
	IPT_V4,
	IPT_V6,
	IPT_FAMILY_N_,
};

/* Each table changes at once, one after the other: what refuses comes first and goes last. */
enum ipt_table_id {
	IPT_FILTER,
	IPT_MANGLE,
	IPT_NAT,
	IPT_TABLE_N_,
};

/* Chains of ours begin so, nobody else's do. Names end at 28 characters (XT_FUNCTION_MAXNAMELEN).
 */
#define IPT_PREFIX "SLUICE-"

const char *ipt_table_str(enum ipt_table_id table);

/* ipt_text.c: the whole of what is to be there, as iptables-save says it. malloc'ed. -ENOMEM;
 * -EINVAL: the plan has a rule that iptables cannot say.
 */
int ipt_text_make(const struct plan *plan, enum ipt_family family, char **ret);

/* ---- what is there: ipt_listing.c ---- */

/* A line of iptables-save in a table of ours. */
struct ipt_line {
	enum ipt_table_id table;
	bool is_rule;  /* else a chain */
	bool is_first; /* rule of its chain */
	bool is_jump;  /* from a chain of somebody else's to one of ours */
	char *chain;   /* points into the listing's text, as `spec` does */
	char *spec; /* of a rule: all behind the chain; of a chain: policy, "-" unless built in */
};

struct ipt_listing {
	char *text;
	struct ipt_line *v;
	size_t n, room;
	bool is_strange; /* holds what iptables-save would not say by itself: do not believe it */
	size_t n_rules[IPT_TABLE_N_], n_chains[IPT_TABLE_N_]; /* whoever's they are */
	size_t n_builtin[IPT_TABLE_N_];                       /* of the chains */
	bool has_table[IPT_TABLE_N_];
};

/* Reads text of iptables-save or ipt_text_make(). -ENOMEM. */
int ipt_listing_parse(const char *text, struct ipt_listing *ret);
void ipt_listing_done(struct ipt_listing *listing); /* all zero is fine */

bool ipt_is_ours(const char *chain);

/* Is there anything of ours? */
bool ipt_listing_has_ours(const struct ipt_listing *listing);

/* 0: of ours there is in `have` what `want` has, no more and no less, each jump the first rule of a
 * built-in chain. -ESTALE, -ENOMEM. Says at debug level where they differ.
 */
int ipt_listing_compare(const struct ipt_listing *want, const struct ipt_listing *have);

/* ---- what to say: ipt_change.c; for `iptables-restore --noflush`, malloc'ed, -ENOMEM ---- */

/* Makes of `have` what `want` says, whatever of ours is in it, and leaves the rest alone. */
int ipt_change_to(const struct ipt_listing *want, const struct ipt_listing *have, char **ret);

/* Takes away all that is ours. "" when there is nothing. */
int ipt_change_to_nothing(const struct ipt_listing *have, char **ret);
