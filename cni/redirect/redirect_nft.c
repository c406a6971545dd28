/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/redirector.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "base/owned.h"
#include "redirect/nft_netlink.h"
#include "redirect/nft_table.h"
#include "redirect/nft_transact.h"
#include "redirect/plan.h"

static int apply_new(const struct plan *plan)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = nft_steps_make_new(plan, &steps);
	if (r < 0)
		return r;
	return nft_transact(&steps);
}

static int replace(const struct plan *plan)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = nft_steps_make_replacement(plan, &steps);
	if (r < 0)
		return r;
	return nft_transact(&steps);
}

/* A pod's first rules are what must be quick: after a transaction that deletes, closing the socket
 * waits for an RCU grace period, some milliseconds.
 */
static int apply(const struct plan *plan)
{
	int r = nft_table_exists(NFPROTO_INET, NFT_TABLE);

	if (r < 0)
		return r;
	if (r == 0) {
		r = apply_new(plan);
		if (r != -EEXIST) /* somebody was quicker */
			return r;
	}
	return replace(plan);
}

static int remove_all(void)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = nft_table_exists(NFPROTO_INET, NFT_TABLE);
	if (r <= 0)
		return r;
	r = nft_steps_make_removal(&steps);
	if (r < 0)
		return r;
	return nft_transact(&steps);
}

static int verify(const struct plan *plan)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = nft_steps_make_new(plan, &steps);
	if (r < 0)
		return r;
	return nft_verify(&steps);
}

/* ---- can it be done here at all? ---- */

static int probe(void)
{
	return redirector_try(apply, verify);
}

const struct redirector redirect_nft = {
	.name = "nftables",
	.probe = probe,
	.apply = apply,
	.verify = verify,
	.remove = remove_all,
};

int redirect_nft_print(const struct plan *plan, FILE *out)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = nft_steps_make_replacement(plan, &steps);
	if (r < 0)
		return r;
	for (size_t i = 0; i < steps.n && steps.v[i].table; i++)
		fputs(steps.v[i].type == NFT_MSG_DELTABLE ? "delete table\n" : "add table\n", out);
	nft_print_result(&steps, out);
	return 0;
}
