/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A plan as the netlink messages of nf_tables: the table `inet sluice`, built of libnftnl's
 * objects. Nothing here talks to the kernel, so that all of it can be printed and compared. For
 * redirect_nft.c.
 */
#include <libnftnl/chain.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "redirect/plan.h"

/* Chains and sets are named plainly: they live in a table of our own. */
#define NFT_TABLE          "sluice"
#define NFT_SET_CLUSTER4   "cluster4"
#define NFT_SET_CLUSTER6   "cluster6"
#define NFT_SET_NEIGHBOURS "neighbours"

#define NFT_NEIGHBOUR_TIMEOUT_MS (3600 * 1000ULL)

/* One message of the batch; exactly one of the pointers is set, by `type`. */
struct nft_step {
	uint16_t type;  /* NFT_MSG_* */
	uint16_t flags; /* NLM_F_* */
	struct nftnl_table *table;
	struct nftnl_chain *chain;
	struct nftnl_set *set; /* NEWSET: without its elements; NEWSETELEM: with them */
	struct nftnl_rule *rule;
};

struct nft_steps {
	struct nft_step *v;
	size_t n, room;
};

/* Three transactions: the table where there is none (else the kernel says -EEXIST), the table in
 * place of one that may be there, and no table. -ENOMEM.
 */
int nft_steps_make_new(const struct plan *plan, struct nft_steps *ret);
int nft_steps_make_replacement(const struct plan *plan, struct nft_steps *ret);
int nft_steps_make_removal(struct nft_steps *ret);

void nft_steps_done(struct nft_steps *steps); /* all zero is fine */

/* One line for each object, the same whether it was made here or came from the kernel: without
 * handles, counts and the like. `index` is the rule's place in its chain.
 */
void nft_print_table(struct nftnl_table *table, FILE *out);
void nft_print_chain(struct nftnl_chain *chain, FILE *out);
void nft_print_set(struct nftnl_set *set, FILE *out);
void nft_print_elems(struct nftnl_set *set, FILE *out); /* one line each */
void nft_print_rule(struct nftnl_rule *rule, unsigned index, FILE *out);

/* nft_rule.c: one rule of the plan. -ENOMEM; -EOPNOTSUPP when libnftnl lacks an expression. */
int nft_rule_make(const struct plan *plan, const struct plan_rule *rule, struct nftnl_rule **ret);
