/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/nft_table.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netlink.h>
#include <libnftnl/expr.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

/* Types of set keys as nft(8) counts them (its datatype.h): only so that it can list them. */
#define TYPE_IPADDR  7
#define TYPE_IP6ADDR 8

#define NEIGHBOURS_MAX 1024

/* ---- the steps ---- */

static int push(struct nft_steps *steps, struct nft_step step)
{
	if (steps->n == steps->room) {
		size_t room = steps->room ? steps->room * 2 : 64;
		struct nft_step *v = reallocarray(steps->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		steps->v = v;
		steps->room = room;
	}
	steps->v[steps->n++] = step;
	return 0;
}

static int push_table(struct nft_steps *steps, uint16_t type, uint16_t flags)
{
	struct nftnl_table *t = nftnl_table_alloc();
	int r = -ENOMEM;

	if (!t)
		return r;
	nftnl_table_set_u32(t, NFTNL_TABLE_FAMILY, NFPROTO_INET);
	nftnl_table_set_u32(t, NFTNL_TABLE_FLAGS, 0);
	if (nftnl_table_set_str(t, NFTNL_TABLE_NAME, NFT_TABLE) == 0)
		r = push(steps, (struct nft_step){.type = type, .flags = flags, .table = t});
	if (r < 0)
		nftnl_table_free(t);
	return r;
}

static int push_chain(struct nft_steps *steps, enum plan_chain chain)
{
	static const struct {
		const char *type;
		uint32_t hook;
		int32_t priority;
		uint32_t policy;
	} specs[] = {
		[PLAN_CHAIN_CAPTURE] = {"nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST, NF_ACCEPT},
		[PLAN_CHAIN_OUTGOING] = {"filter", NF_INET_LOCAL_OUT, NF_IP_PRI_FILTER, NF_DROP},
		[PLAN_CHAIN_ARRIVING] = {"filter", NF_INET_PRE_ROUTING, NF_IP_PRI_FILTER,
					 NF_ACCEPT},
		[PLAN_CHAIN_INCOMING] = {"filter", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER, NF_ACCEPT},
		[PLAN_CHAIN_FORWARDED] = {"filter", NF_INET_FORWARD, NF_IP_PRI_FILTER, NF_DROP},
		[PLAN_CHAIN_LEAVING] = {"filter", NF_INET_POST_ROUTING, NF_IP_PRI_FILTER,
					NF_ACCEPT},
	};
	_Static_assert(ARRAY_SIZE(specs) == PLAN_CHAIN_N_, "every chain has its place");
	struct nftnl_chain *c = nftnl_chain_alloc();
	int r = -ENOMEM;

	if (!c)
		return r;
	nftnl_chain_set_u32(c, NFTNL_CHAIN_FAMILY, NFPROTO_INET);
	nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, specs[chain].hook);
	nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, specs[chain].priority);
	nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, specs[chain].policy);
	if (nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, NFT_TABLE) == 0 &&
	    nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, plan_chain_str(chain)) == 0 &&
	    nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, specs[chain].type) == 0)
		r = push(steps, (struct nft_step){.type = NFT_MSG_NEWCHAIN,
						  .flags = NLM_F_CREATE,
						  .chain = c});
	if (r < 0)
		nftnl_chain_free(c);
	return r;
}

static struct nftnl_set *set_new(const char *name)
{
	struct nftnl_set *s = nftnl_set_alloc();

	if (!s)
		return NULL;
	nftnl_set_set_u32(s, NFTNL_SET_FAMILY, NFPROTO_INET);
	if (nftnl_set_set_str(s, NFTNL_SET_TABLE, NFT_TABLE) < 0 ||
	    nftnl_set_set_str(s, NFTNL_SET_NAME, name) < 0) {
		nftnl_set_free(s);
		return NULL;
	}
	return s;
}

static int push_set(struct nft_steps *steps, uint16_t type, struct nftnl_set *set)
{
	int r = push(steps, (struct nft_step){.type = type, .flags = NLM_F_CREATE, .set = set});

	if (r < 0)
		nftnl_set_free(set);
	return r;
}

static int add_elem(struct nftnl_set *s, const uint8_t *key, uint32_t len, uint32_t flags)
{
	struct nftnl_set_elem *e = nftnl_set_elem_alloc();

	if (!e)
		return -ENOMEM;
	if (nftnl_set_elem_set(e, NFTNL_SET_ELEM_KEY, key, len) < 0) {
		nftnl_set_elem_free(e);
		return -ENOMEM;
	}
	if (flags)
		nftnl_set_elem_set_u32(e, NFTNL_SET_ELEM_FLAGS, flags);
	nftnl_set_elem_add(s, e);
	return 0;
}

/* An interval is its first key and, marked as an end, the first key behind it. */
static int add_range(struct nftnl_set *s, const struct plan_range *range, uint32_t len)
{
	const uint8_t *from = range->from + 16 - len;
	uint8_t end[16];
	int r;

	r = add_elem(s, from, len, 0);
	if (r < 0)
		return r;
	memcpy(end, range->to + 16 - len, len);
	for (uint32_t i = len; i-- > 0;) {
		if (++end[i] != 0)
			return add_elem(s, end, len, NFT_SET_ELEM_INTERVAL_END);
	}
	return 0; /* it reaches to the last address: nothing is behind it */
}

static int push_elems(struct nft_steps *steps, const char *name, const struct plan_range *ranges,
		      size_t n, uint32_t len)
{
	struct nftnl_set *s;
	int r;

	if (n == 0)
		return 0;
	s = set_new(name);
	if (!s)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		r = add_range(s, &ranges[i], len);
		if (r < 0) {
			nftnl_set_free(s);
			return r;
		}
	}
	return push_set(steps, NFT_MSG_NEWSETELEM, s);
}

static int push_cluster(struct nft_steps *steps, const char *name, const struct plan_range *ranges,
			size_t n, uint32_t type, uint32_t len)
{
	struct nftnl_set *s = set_new(name);
	int r;

	if (!s)
		return -ENOMEM;
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, NFT_SET_INTERVAL);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, type);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, len);
	nftnl_set_set_u32(s, NFTNL_SET_ID, (uint32_t)steps->n + 1);
	r = push_set(steps, NFT_MSG_NEWSET, s);
	if (r < 0)
		return r;
	return push_elems(steps, name, ranges, n, len);
}

static int push_neighbours(struct nft_steps *steps)
{
	struct nftnl_set *s = set_new(NFT_SET_NEIGHBOURS);

	if (!s)
		return -ENOMEM;
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, NFT_SET_EVAL | NFT_SET_TIMEOUT);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, TYPE_IP6ADDR);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, 16);
	nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, NEIGHBOURS_MAX);
	nftnl_set_set_u64(s, NFTNL_SET_TIMEOUT, NFT_NEIGHBOUR_TIMEOUT_MS);
	nftnl_set_set_u32(s, NFTNL_SET_ID, (uint32_t)steps->n + 1);
	return push_set(steps, NFT_MSG_NEWSET, s);
}

static int push_rule(struct nft_steps *steps, const struct plan *plan, const struct plan_rule *rule)
{
	struct nftnl_rule *made;
	int r;

	r = nft_rule_make(plan, rule, &made);
	if (r < 0)
		return r;
	r = push(steps, (struct nft_step){.type = NFT_MSG_NEWRULE,
					  .flags = NLM_F_CREATE | NLM_F_APPEND,
					  .rule = made});
	if (r < 0)
		nftnl_rule_free(made);
	return r;
}

/* Deleting what may not be there fails, so it is made first. */
static int push_removal(struct nft_steps *steps)
{
	int r;

	r = push_table(steps, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	if (r < 0)
		return r;
	return push_table(steps, NFT_MSG_DELTABLE, 0);
}

static int push_contents(struct nft_steps *steps, const struct plan *plan)
{
	int r;

	r = push_cluster(steps, NFT_SET_CLUSTER4, plan->v4, plan->n_v4, TYPE_IPADDR, 4);
	if (r < 0)
		return r;
	r = push_cluster(steps, NFT_SET_CLUSTER6, plan->v6, plan->n_v6, TYPE_IP6ADDR, 16);
	if (r < 0)
		return r;
	r = push_neighbours(steps);
	if (r < 0)
		return r;
	for (enum plan_chain c = 0; c < PLAN_CHAIN_N_; c++) {
		r = push_chain(steps, c);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < plan->n_rules; i++) {
		r = push_rule(steps, plan, &plan->rules[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct nft_steps take(struct nft_steps *steps)
{
	struct nft_steps taken = *steps;

	*steps = (struct nft_steps){0};
	return taken;
}

int nft_steps_make_new(const struct plan *plan, struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = push_table(&steps, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
	if (r < 0)
		return r;
	r = push_contents(&steps, plan);
	if (r < 0)
		return r;
	*ret = take(&steps);
	return 0;
}

int nft_steps_make_replacement(const struct plan *plan, struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = push_removal(&steps);
	if (r < 0)
		return r;
	r = push_table(&steps, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	if (r < 0)
		return r;
	r = push_contents(&steps, plan);
	if (r < 0)
		return r;
	*ret = take(&steps);
	return 0;
}

int nft_steps_make_removal(struct nft_steps *ret)
{
	OWNED(nft_steps_done) struct nft_steps steps = {0};
	int r;

	r = push_removal(&steps);
	if (r < 0)
		return r;
	*ret = take(&steps);
	return 0;
}

void nft_steps_done(struct nft_steps *steps)
{
	for (size_t i = 0; i < steps->n; i++) {
		struct nft_step *s = &steps->v[i];

		if (s->table)
			nftnl_table_free(s->table);
		if (s->chain)
			nftnl_chain_free(s->chain);
		if (s->set)
			nftnl_set_free(s->set);
		if (s->rule)
			nftnl_rule_free(s->rule);
	}
	free(steps->v);
	*steps = (struct nft_steps){0};
}

/* ---- text ---- */

void nft_print_table(struct nftnl_table *table, FILE *out)
{
	fprintf(out, "table %s flags %x\n", nftnl_table_get_str(table, NFTNL_TABLE_NAME),
		nftnl_table_get_u32(table, NFTNL_TABLE_FLAGS));
}

void nft_print_chain(struct nftnl_chain *chain, FILE *out)
{
	fprintf(out, "chain %s", nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME));
	if (nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM))
		fprintf(out, " type %s hook %u priority %d policy %s",
			nftnl_chain_get_str(chain, NFTNL_CHAIN_TYPE),
			nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM),
			nftnl_chain_get_s32(chain, NFTNL_CHAIN_PRIO),
			nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) == NF_DROP ? "drop"
										  : "accept");
	fputc('\n', out);
}

void nft_print_set(struct nftnl_set *set, FILE *out)
{
	fprintf(out, "set %s flags %x key %u type %u", nftnl_set_get_str(set, NFTNL_SET_NAME),
		nftnl_set_get_u32(set, NFTNL_SET_FLAGS), nftnl_set_get_u32(set, NFTNL_SET_KEY_LEN),
		nftnl_set_get_u32(set, NFTNL_SET_KEY_TYPE));
	if (nftnl_set_is_set(set, NFTNL_SET_DESC_SIZE))
		fprintf(out, " size %u", nftnl_set_get_u32(set, NFTNL_SET_DESC_SIZE));
	if (nftnl_set_is_set(set, NFTNL_SET_TIMEOUT))
		fprintf(out, " timeout %llu",
			(unsigned long long)nftnl_set_get_u64(set, NFTNL_SET_TIMEOUT));
	fputc('\n', out);
}

struct elem_print {
	const char *set;
	FILE *out;
};

static int print_elem(struct nftnl_set_elem *elem, void *data)
{
	const struct elem_print *p = data;
	uint32_t flags = 0, len = 0;
	const uint8_t *key = nftnl_set_elem_get(elem, NFTNL_SET_ELEM_KEY, &len);

	if (nftnl_set_elem_is_set(elem, NFTNL_SET_ELEM_FLAGS))
		flags = nftnl_set_elem_get_u32(elem, NFTNL_SET_ELEM_FLAGS);
	fprintf(p->out, "element %s ", p->set);
	for (uint32_t i = 0; i < len; i++)
		fprintf(p->out, "%02x", key[i]);
	fprintf(p->out, "%s\n", flags & NFT_SET_ELEM_INTERVAL_END ? " end" : "");
	return 0;
}

void nft_print_elems(struct nftnl_set *set, FILE *out)
{
	struct elem_print p = {nftnl_set_get_str(set, NFTNL_SET_NAME), out};

	nftnl_set_elem_foreach(set, print_elem, &p);
}

static int print_expr(struct nftnl_expr *e, void *data)
{
	const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_NAME);
	FILE *out = data;
	char text[512];

	if (strcmp(name, "counter") == 0) {
		fputs(" [ counter ]", out); /* whatever it has counted */
		return 0;
	}
	nftnl_expr_snprintf(text, sizeof(text), e, NFTNL_OUTPUT_DEFAULT, 0);
	fprintf(out, " [ %s %s]", name, text);
	return 0;
}

void nft_print_rule(struct nftnl_rule *rule, unsigned index, FILE *out)
{
	fprintf(out, "rule %s %02u", nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN), index);
	nftnl_expr_foreach(rule, print_expr, out);
	fputc('\n', out);
}
