/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "redirect/ipt_kernel.h"
#include "redirect/nft_netlink.h"
#include "redirect/nft_transact.h"

struct look {
	struct ipt_kernel *kernel;
	FILE *content; /* NULL: not wanted */
	enum ipt_family family;
	enum ipt_table_id table; /* in hand */
	uint32_t flags[IPT_TABLE_N_];
	bool has[IPT_TABLE_N_];
	int generation; /* of the rules, its lower half; -1: none seen */
	size_t size;    /* of messages, bytes */
};

static uint16_t nfproto(enum ipt_family family)
{
	return family == IPT_V4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
}

/* ---- content ---- */

static void put_attr(FILE *content, const struct nlattr *attr)
{
	fwrite(attr, attr->nla_len, 1, content);
}

/* An expression is its name and the rest: what a counter has counted is left out. */
static void put_expr(FILE *content, const struct nlattr *expr)
{
	const struct nlattr *attr;
	bool counts = false;

	mnl_attr_for_each_nested(attr, expr)
	{
		if (mnl_attr_get_type(attr) == NFTA_EXPR_NAME)
			counts = strcmp(mnl_attr_get_str(attr), "counter") == 0;
	}
	mnl_attr_for_each_nested(attr, expr)
	{
		if (!counts || mnl_attr_get_type(attr) == NFTA_EXPR_NAME)
			put_attr(content, attr);
	}
}

/* The attributes of a message but for those of types in `without`. `content` NULL: not wanted. */
static void put_message(FILE *content, const struct nlmsghdr *h, uint32_t without)
{
	const struct nlattr *attr, *expr;
	uint16_t type = NFNL_MSG_TYPE(h->nlmsg_type);

	if (!content)
		return;
	fwrite(&type, sizeof(type), 1, content);
	mnl_attr_for_each(attr, h, sizeof(struct nfgenmsg))
	{
		unsigned a = mnl_attr_get_type(attr);

		if (a < 32 && without & 1U << a)
			continue;
		if (type != NFT_MSG_NEWRULE || a != NFTA_RULE_EXPRESSIONS) {
			put_attr(content, attr);
			continue;
		}
		mnl_attr_for_each_nested(expr, attr) put_expr(content, expr);
	}
}

/* ---- asking ---- */

/* Dumps are of one state of the rules as long as all carry the same generation. False with errno.
 */
static bool goes_on(struct look *look, const struct nlmsghdr *h)
{
	const struct nfgenmsg *g = mnl_nlmsg_get_payload(h);
	int generation = ntohs(g->res_id);

	if (look->generation < 0)
		look->generation = generation;
	look->size += h->nlmsg_len;
	if (look->generation == generation && look->size <= IPT_CONTENT_MAX)
		return true;
	errno = look->generation == generation ? EFBIG : EINTR;
	return false;
}

static const char *name_of(const struct nlmsghdr *h, uint16_t type)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, h, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == type &&
		    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0)
			return mnl_attr_get_str(attr);
	}
	return "";
}

static uint32_t flags_of(const struct nlmsghdr *h)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, h, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == NFTA_TABLE_FLAGS &&
		    mnl_attr_validate(attr, MNL_TYPE_U32) == 0)
			return ntohl(mnl_attr_get_u32(attr));
	}
	return 0;
}

static int on_table(const struct nlmsghdr *h, void *data)
{
	enum ipt_table_id t = ipt_table_find(name_of(h, NFTA_TABLE_NAME));
	struct look *look = data;

	if (!goes_on(look, h))
		return MNL_CB_ERROR;
	if (t == IPT_TABLE_N_)
		return MNL_CB_OK;
	look->has[t] = true;
	look->flags[t] = flags_of(h);
	put_message(look->content, h, 1U << NFTA_TABLE_USE | 1U << NFTA_TABLE_HANDLE);
	return MNL_CB_OK;
}

/* Kernels differ in whether they leave out those of other tables. */
static int on_chain(const struct nlmsghdr *h, void *data)
{
	struct look *look = data;

	if (!goes_on(look, h))
		return MNL_CB_ERROR;
	if (ipt_table_find(name_of(h, NFTA_CHAIN_TABLE)) != look->table)
		return MNL_CB_OK;
	look->kernel->ours |= ipt_is_ours(name_of(h, NFTA_CHAIN_NAME));
	put_message(look->content, h,
		    1U << NFTA_CHAIN_HANDLE | 1U << NFTA_CHAIN_USE | 1U << NFTA_CHAIN_COUNTERS);
	return MNL_CB_OK;
}

static int on_rule(const struct nlmsghdr *h, void *data)
{
	struct look *look = data;

	if (!goes_on(look, h))
		return MNL_CB_ERROR;
	look->kernel->n[look->family][look->table]++;
	put_message(look->content, h, 1U << NFTA_RULE_HANDLE | 1U << NFTA_RULE_POSITION);
	return MNL_CB_OK;
}

static int ask(struct mnl_socket *nl, struct look *look, uint16_t type, mnl_cb_t on_object)
{
	struct nft_question q = {nfproto(look->family), type, NULL, NULL};
	int r;

	if (type != NFT_MSG_GETTABLE)
		q.table = ipt_table_str(look->table);
	r = nft_ask(nl, &q, on_object, look);
	/* What nfnetlink says of a subsystem that is not there. */
	return r == -EINVAL ? -EOPNOTSUPP : r;
}

static int look_at_family(struct mnl_socket *nl, struct look *look)
{
	int r = ask(nl, look, NFT_MSG_GETTABLE, on_table);

	for (enum ipt_table_id t = 0; t < IPT_TABLE_N_ && r == 0; t++) {
		if (!look->has[t])
			continue;
		look->table = t;
		look->kernel->any[look->family] = true;
		look->kernel->asleep |= look->flags[t] & NFT_TABLE_F_DORMANT;
		r = ask(nl, look, NFT_MSG_GETCHAIN, on_chain);
		if (r == 0)
			r = ask(nl, look, NFT_MSG_GETRULE, on_rule);
	}
	return r;
}

int ipt_kernel_look_nft(struct ipt_kernel *ret, FILE *content)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	int r = nft_socket_open(&nl);

	if (r == -EPROTONOSUPPORT)
		return -EOPNOTSUPP;
	for (enum ipt_family f = 0; f < IPT_FAMILY_N_ && r == 0; f++) {
		struct look look = {
			.kernel = ret, .content = content, .family = f, .generation = -1};

		r = look_at_family(nl, &look);
	}
	return r;
}

/* ---- waking ---- */

static int wake_table(enum ipt_family family, enum ipt_table_id table, uint32_t flags)
{
	struct nft_step step = {.type = NFT_MSG_NEWTABLE, .table = nftnl_table_alloc()};
	struct nft_steps steps = {.v = &step, .n = 1};
	int r = -ENOMEM;

	if (!step.table)
		return -ENOMEM;
	nftnl_table_set_u32(step.table, NFTNL_TABLE_FAMILY, nfproto(family));
	nftnl_table_set_u32(step.table, NFTNL_TABLE_FLAGS, flags & ~(uint32_t)NFT_TABLE_F_DORMANT);
	if (nftnl_table_set_str(step.table, NFTNL_TABLE_NAME, ipt_table_str(table)) == 0)
		r = nft_transact(&steps);
	nftnl_table_free(step.table);
	return r;
}

int ipt_kernel_wake(void)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	int r = nft_socket_open(&nl);

	for (enum ipt_family f = 0; f < IPT_FAMILY_N_ && r == 0; f++) {
		struct look look = {.family = f, .generation = -1};

		r = ask(nl, &look, NFT_MSG_GETTABLE, on_table);
		for (enum ipt_table_id t = 0; t < IPT_TABLE_N_ && r == 0; t++) {
			if (look.has[t] && look.flags[t] & NFT_TABLE_F_DORMANT)
				r = wake_table(f, t, look.flags[t]);
		}
	}
	return r;
}

/* ---- tidying ---- */

/* Deletes one table and its chains, if the kernel finds nothing in them (NLM_F_NONREC). */
struct tidying {
	struct nft_steps steps;
	enum ipt_table_id table;
	bool is_empty; /* as far as chains tell: built-in ones that accept */
};

static int push(struct nft_steps *steps, struct nft_step step)
{
	struct nft_step *v = reallocarray(steps->v, steps->n + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	steps->v = v;
	step.flags = NLM_F_NONREC;
	steps->v[steps->n++] = step;
	return 0;
}

static int on_chain_to_go(const struct nlmsghdr *h, void *data)
{
	struct nft_step step = {.type = NFT_MSG_DELCHAIN, .chain = nftnl_chain_alloc()};
	struct tidying *t = data;

	if (!step.chain)
		return MNL_CB_ERROR;
	if (nftnl_chain_nlmsg_parse(h, step.chain) < 0 ||
	    ipt_table_find(nftnl_chain_get_str(step.chain, NFTNL_CHAIN_TABLE)) != t->table) {
		nftnl_chain_free(step.chain);
		return MNL_CB_OK;
	}
	t->is_empty &= nftnl_chain_is_set(step.chain, NFTNL_CHAIN_POLICY) &&
		       nftnl_chain_get_u32(step.chain, NFTNL_CHAIN_POLICY) == NF_ACCEPT;
	nftnl_chain_unset(step.chain, NFTNL_CHAIN_HANDLE);
	if (push(&t->steps, step) == 0)
		return MNL_CB_OK;
	nftnl_chain_free(step.chain);
	return MNL_CB_ERROR;
}

static int add_table_to_go(struct tidying *t, enum ipt_family family)
{
	struct nft_step step = {.type = NFT_MSG_DELTABLE, .table = nftnl_table_alloc()};

	if (!step.table)
		return -ENOMEM;
	nftnl_table_set_u32(step.table, NFTNL_TABLE_FAMILY, nfproto(family));
	if (nftnl_table_set_str(step.table, NFTNL_TABLE_NAME, ipt_table_str(t->table)) == 0 &&
	    push(&t->steps, step) == 0)
		return 0;
	nftnl_table_free(step.table);
	return -ENOMEM;
}

static int tidy_table(struct mnl_socket *nl, enum ipt_family family, enum ipt_table_id table)
{
	struct nft_question q = {nfproto(family), NFT_MSG_GETCHAIN, ipt_table_str(table), NULL};
	struct tidying t = {.table = table, .is_empty = true};
	int r = nft_ask(nl, &q, on_chain_to_go, &t);

	if (r == 0 && t.is_empty)
		r = add_table_to_go(&t, family);
	if (r == 0 && t.is_empty)
		r = nft_transact_on(nl, &t.steps);
	nft_steps_done(&t.steps);
	/* Somebody put something in, or it was. */
	return r == -EBUSY || r == -ENOENT ? 0 : r;
}

int ipt_kernel_tidy(const struct ipt_kernel *seen)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	int r = nft_socket_open(&nl);

	for (enum ipt_family f = 0; f < IPT_FAMILY_N_ && r == 0; f++) {
		for (enum ipt_table_id t = 0; t < IPT_TABLE_N_ && r == 0; t++) {
			if (seen->any[f] && seen->n[f][t] == 0)
				r = tidy_table(nl, f, t);
		}
	}
	return r;
}
