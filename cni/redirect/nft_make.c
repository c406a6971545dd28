/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/nft_make.h"

#include <errno.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"
#include "base/owned.h"

static void free_object(struct nft_step *step)
{
	if (step->table)
		nftnl_table_free(step->table);
	if (step->chain)
		nftnl_chain_free(step->chain);
	if (step->set)
		nftnl_set_free(step->set);
	if (step->rule)
		nftnl_rule_free(step->rule);
}

/* Takes the step's object, which may be half made: then m->r says so, and it is freed. */
static void push(struct nft_make *m, struct nft_step step)
{
	struct nft_steps *steps = m->steps;

	if (m->r == 0 && steps->n == steps->room) {
		size_t room = steps->room ? steps->room * 2 : 64;
		struct nft_step *v = reallocarray(steps->v, room, sizeof(*v));

		if (v) {
			steps->v = v;
			steps->room = room;
		} else {
			m->r = -ENOMEM;
		}
	}
	if (m->r < 0)
		free_object(&step);
	else
		steps->v[steps->n++] = step;
}

static void note(struct nft_make *m, int set)
{
	if (set < 0 && m->r == 0)
		m->r = -ENOMEM;
}

void nft_make_table(struct nft_make *m, uint16_t type, uint16_t flags)
{
	struct nftnl_table *t = m->r == 0 ? nftnl_table_alloc() : NULL;

	if (!t)
		return note(m, -1);
	nftnl_table_set_u32(t, NFTNL_TABLE_FAMILY, m->family);
	nftnl_table_set_u32(t, NFTNL_TABLE_FLAGS, 0);
	note(m, nftnl_table_set_str(t, NFTNL_TABLE_NAME, m->table));
	push(m, (struct nft_step){.type = type, .flags = flags, .table = t});
}

/* ---- chains ---- */

static struct nftnl_chain *chain_new(struct nft_make *m, const char *name)
{
	struct nftnl_chain *c = m->r == 0 ? nftnl_chain_alloc() : NULL;

	if (!c) {
		note(m, -1);
		return NULL;
	}
	nftnl_chain_set_u32(c, NFTNL_CHAIN_FAMILY, m->family);
	note(m, nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, m->table));
	note(m, nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name));
	return c;
}

void nft_make_base_chain(struct nft_make *m, const struct nft_make_chain *chain)
{
	struct nftnl_chain *c = chain_new(m, chain->name);

	if (!c)
		return;
	nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, chain->hook);
	nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, chain->priority);
	nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, chain->policy);
	note(m, nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter"));
	if (chain->device)
		note(m, nftnl_chain_set_str(c, NFTNL_CHAIN_DEV, chain->device));
	push(m, (struct nft_step){.type = NFT_MSG_NEWCHAIN, .flags = NLM_F_CREATE, .chain = c});
}

void nft_make_plain_chain(struct nft_make *m, const char *name)
{
	struct nftnl_chain *c = chain_new(m, name);

	if (c)
		push(m, (struct nft_step){
				.type = NFT_MSG_NEWCHAIN, .flags = NLM_F_CREATE, .chain = c});
}

void nft_delete_chain(struct nft_make *m, const char *name)
{
	struct nftnl_chain *c = chain_new(m, name);

	if (c)
		push(m, (struct nft_step){.type = NFT_MSG_DELCHAIN, .chain = c});
}

/* ---- sets ---- */

static struct nftnl_set *set_new(struct nft_make *m, const char *name)
{
	struct nftnl_set *s = m->r == 0 ? nftnl_set_alloc() : NULL;

	if (!s) {
		note(m, -1);
		return NULL;
	}
	nftnl_set_set_u32(s, NFTNL_SET_FAMILY, m->family);
	note(m, nftnl_set_set_str(s, NFTNL_SET_TABLE, m->table));
	note(m, nftnl_set_set_str(s, NFTNL_SET_NAME, name));
	return s;
}

void nft_make_set(struct nft_make *m, const struct nft_make_set *set)
{
	struct nftnl_set *s = set_new(m, set->name);

	if (!s)
		return;
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, set->flags);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, set->key_type);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, set->key_len);
	if (set->size)
		nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, set->size);
	nftnl_set_set_u32(s, NFTNL_SET_ID, (uint32_t)m->steps->n + 1);
	push(m, (struct nft_step){.type = NFT_MSG_NEWSET, .flags = NLM_F_CREATE, .set = s});
}

void nft_delete_set(struct nft_make *m, const char *name)
{
	struct nftnl_set *s = set_new(m, name);

	if (s)
		push(m, (struct nft_step){.type = NFT_MSG_DELSET, .set = s});
}

void nft_flush_set(struct nft_make *m, const char *name)
{
	struct nftnl_set *s = set_new(m, name);

	if (s)
		push(m, (struct nft_step){.type = NFT_MSG_DELSETELEM, .set = s});
}

static void add_elem(struct nft_make *m, struct nftnl_set *s, const uint8_t *key, uint32_t len,
		     uint32_t flags)
{
	struct nftnl_set_elem *e = nftnl_set_elem_alloc();

	if (!e)
		return note(m, -1);
	note(m, nftnl_set_elem_set(e, NFTNL_SET_ELEM_KEY, key, len));
	if (flags)
		nftnl_set_elem_set_u32(e, NFTNL_SET_ELEM_FLAGS, flags);
	nftnl_set_elem_add(s, e);
}

/* An interval is its first key and, marked as an end, the first key behind it; there is none behind
 * the last address.
 */
static void add_range(struct nft_make *m, struct nftnl_set *s, const struct plan_range *range,
		      uint32_t len)
{
	uint8_t end[16];

	add_elem(m, s, range->from + 16 - len, len, 0);
	memcpy(end, range->to + 16 - len, len);
	for (uint32_t i = len; i-- > 0;) {
		if (++end[i] != 0)
			return add_elem(m, s, end, len, NFT_SET_ELEM_INTERVAL_END);
	}
}

static void put_ranges(struct nft_make *m, const char *set, const struct plan_range *ranges,
		       size_t n, uint32_t len)
{
	struct nftnl_set *s = n ? set_new(m, set) : NULL;

	if (!s)
		return;
	for (size_t i = 0; i < n && m->r == 0; i++)
		add_range(m, s, &ranges[i], len);
	push(m, (struct nft_step){.type = NFT_MSG_NEWSETELEM, .flags = NLM_F_CREATE, .set = s});
}

void nft_make_cluster_sets(struct nft_make *m)
{
	nft_make_set(m, &(struct nft_make_set){.name = NFT_SET_CLUSTER4,
					       .flags = NFT_SET_INTERVAL,
					       .key_type = NFT_KEY_IPV4,
					       .key_len = 4});
	nft_make_set(m, &(struct nft_make_set){.name = NFT_SET_CLUSTER6,
					       .flags = NFT_SET_INTERVAL,
					       .key_type = NFT_KEY_IPV6,
					       .key_len = 16});
}

void nft_put_cluster(struct nft_make *m, const struct plan *plan)
{
	put_ranges(m, NFT_SET_CLUSTER4, plan->v4, plan->n_v4, 4);
	put_ranges(m, NFT_SET_CLUSTER6, plan->v6, plan->n_v6, 16);
}

static int compare_addrs(const void *a, const void *b)
{
	return memcmp(((const struct addr *)a)->ip, ((const struct addr *)b)->ip, 16);
}

/* Each once: nft_verify() would look for the others. */
static void add_addrs(struct nft_make *m, struct nftnl_set *s, struct addr *sorted, size_t n,
		      uint32_t len)
{
	qsort(sorted, n, sizeof(*sorted), compare_addrs);
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || !addr_ip_equal(&sorted[i], &sorted[i - 1]))
			add_elem(m, s, sorted[i].ip + 16 - len, len, 0);
	}
}

static void put_addrs(struct nft_make *m, uint16_t type, const char *set, const struct addr *addrs,
		      size_t n, bool v4)
{
	OWNED_MEM struct addr *of_family = calloc(n + 1, sizeof(*of_family));
	uint16_t flags = type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0;
	struct nftnl_set *s = NULL;
	size_t found = 0;

	if (!of_family)
		return note(m, -1);
	for (size_t i = 0; i < n; i++) {
		if (addr_is_v4(&addrs[i]) == v4)
			of_family[found++] = addrs[i];
	}
	if (found > 0)
		s = set_new(m, set);
	if (!s)
		return;
	add_addrs(m, s, of_family, found, v4 ? 4 : 16);
	push(m, (struct nft_step){.type = type, .flags = flags, .set = s});
}

void nft_put_addrs4(struct nft_make *m, uint16_t type, const char *set, const struct addr *addrs,
		    size_t n)
{
	put_addrs(m, type, set, addrs, n, true);
}

void nft_put_addrs6(struct nft_make *m, uint16_t type, const char *set, const struct addr *addrs,
		    size_t n)
{
	put_addrs(m, type, set, addrs, n, false);
}

/* ---- rules ---- */

void nft_rule_begin(struct nft_make *m, const char *chain)
{
	m->rule = m->r == 0 ? nftnl_rule_alloc() : NULL;
	if (!m->rule)
		return note(m, -1);
	nftnl_rule_set_u32(m->rule, NFTNL_RULE_FAMILY, m->family);
	note(m, nftnl_rule_set_str(m->rule, NFTNL_RULE_TABLE, m->table));
	note(m, nftnl_rule_set_str(m->rule, NFTNL_RULE_CHAIN, chain));
}

static void put_comment(struct nft_make *m, const char *comment)
{
	struct nftnl_udata_buf *b = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);

	if (!b)
		return note(m, -1);
	if (nftnl_udata_put_strz(b, NFTNL_UDATA_RULE_COMMENT, comment))
		note(m, nftnl_rule_set_data(m->rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(b),
					    nftnl_udata_buf_len(b)));
	nftnl_udata_buf_free(b);
}

void nft_rule_end(struct nft_make *m, const char *comment)
{
	if (!m->rule)
		return;
	if (comment)
		put_comment(m, comment);
	push(m, (struct nft_step){.type = NFT_MSG_NEWRULE,
				  .flags = NLM_F_CREATE | NLM_F_APPEND,
				  .rule = TAKE_PTR(m->rule)});
}
