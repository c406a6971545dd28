/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The table `inet sluice-node` as messages of nf_tables, for forward.c. Nothing here talks to the
 * kernel. Any thread; does not log.
 */
#include <stddef.h>

#include "base/addr.h"
#include "redirect/nft_table.h"

#define FORWARD_TABLE "sluice-node"

/* Transactions: the table where there is none, in place of one that may be there, and no table. All
 * give -ENOMEM, and -EOPNOTSUPP when libnftnl lacks an expression.
 */
int forward_make_new(const struct plan *plan, const struct addr *pods, size_t n,
		     struct nft_steps *ret);
int forward_make_replacement(const struct plan *plan, const struct addr *pods, size_t n,
			     struct nft_steps *ret);
int forward_make_removal(struct nft_steps *ret);

/* Pods that are there already, or gone already, are no failure. No steps when `n` is 0. */
int forward_make_more(const struct addr *pods, size_t n, struct nft_steps *ret);
int forward_make_fewer(const struct addr *pods, size_t n, struct nft_steps *ret);
