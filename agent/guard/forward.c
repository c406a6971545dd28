/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/forward.h"

#include <errno.h>
#include <linux/netfilter.h>

#include "base/netns.h"
#include "base/owned.h"
#include "guard/forward_nft.h"
#include "guard/nft_count.h"
#include "redirect/nft_netlink.h"
#include "redirect/nft_transact.h"

#define COUNT_TRIES 5 /* while others change rules */

static int apply_new(const struct plan *plan, const struct addr *pods, size_t n)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = forward_make_new(plan, pods, n, &steps);
	return r < 0 ? r : nft_transact(&steps);
}

static int replace(const struct plan *plan, const struct addr *pods, size_t n)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = forward_make_replacement(plan, pods, n, &steps);
	return r < 0 ? r : nft_transact(&steps);
}

int forward_apply(const struct plan *plan, const struct addr *pods, size_t n)
{
	int r = nft_table_exists(NFPROTO_INET, FORWARD_TABLE);

	if (r < 0)
		return r;
	if (r == 0) {
		r = apply_new(plan, pods, n);
		if (r != -EEXIST) /* somebody was quicker */
			return r;
	}
	return replace(plan, pods, n);
}

/* Kept open, because closing one after elements were deleted waits for an RCU grace period: 14 ms
 * instead of 15 us, with the control thread. Of the namespace that it was opened in, by the control
 * thread alone.
 */
static struct {
	struct mnl_socket *nl;
	dev_t dev;
	ino_t ino;
} kept;

static void let_go(void)
{
	nft_socket_close(&kept.nl);
	kept.nl = NULL;
}

static int keep_socket(void)
{
	OWNED_FD int ns = netns_open("/proc/thread-self/ns/net");
	dev_t dev;
	ino_t ino;
	int r = ns < 0 ? ns : netns_identify(ns, &dev, &ino);

	if (r < 0)
		return r;
	if (kept.nl && kept.dev == dev && kept.ino == ino)
		return 0;
	let_go();
	kept.dev = dev;
	kept.ino = ino;
	return nft_socket_open(&kept.nl);
}

static int change(struct nft_steps *steps)
{
	int r;

	if (steps->n == 0)
		return 0;
	r = keep_socket();
	if (r < 0)
		return r;
	r = nft_transact_on(kept.nl, steps);
	if (r < 0)
		let_go(); /* answers may be left in it */
	return r;
}

int forward_add(const struct addr *pods, size_t n)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = forward_make_more(pods, n, &steps);
	return r < 0 ? r : change(&steps);
}

int forward_remove(const struct addr *pods, size_t n)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = forward_make_fewer(pods, n, &steps);
	return r < 0 ? r : change(&steps);
}

int forward_verify(const struct plan *plan, const struct addr *pods, size_t n)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = forward_make_new(plan, pods, n, &steps);
	return r < 0 ? r : nft_verify(&steps);
}

static void sum(void *ctx, const struct nft_counted *rule)
{
	struct nft_counted *total = ctx;

	total->packets += rule->packets;
	total->bytes += rule->bytes;
}

int forward_counts(uint64_t *ret_packets, uint64_t *ret_bytes)
{
	struct nft_counted total;
	int r = nft_table_exists(NFPROTO_INET, FORWARD_TABLE);

	if (r == 0)
		r = -ENOENT;
	for (int i = 0; r > 0 || (r == -EINTR && i < COUNT_TRIES); i++) {
		total = (struct nft_counted){0};
		r = nft_count_rules(NFPROTO_INET, FORWARD_TABLE, sum, &total);
	}
	if (r < 0)
		return r;
	*ret_packets = total.packets;
	*ret_bytes = total.bytes;
	return 0;
}

int forward_uninstall(void)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	let_go();
	r = nft_table_exists(NFPROTO_INET, FORWARD_TABLE);
	if (r <= 0)
		return r;
	r = forward_make_removal(&steps);
	return r < 0 ? r : nft_transact(&steps);
}

int forward_print(const struct plan *plan, const struct addr *pods, size_t n, FILE *out)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = forward_make_replacement(plan, pods, n, &steps);
	if (r < 0)
		return r;
	nft_print_result(&steps, out);
	return 0;
}
