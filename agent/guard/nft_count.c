/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/nft_count.h"

#include <stdio.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/udata.h>
#include <linux/netfilter/nf_tables.h>
#include <string.h>

#include "base/owned.h"
#include "redirect/nft_netlink.h"

struct counting {
	const char *table;
	void (*each)(void *ctx, const struct nft_counted *rule);
	void *ctx;
};

struct reading {
	struct nft_counted rule;
	bool counts;
};

static int read_expr(struct nftnl_expr *e, void *data)
{
	struct reading *to = data;

	if (strcmp(nftnl_expr_get_str(e, NFTNL_EXPR_NAME), "counter") == 0) {
		to->counts = true;
		to->rule.packets = nftnl_expr_get_u64(e, NFTNL_EXPR_CTR_PACKETS);
		to->rule.bytes = nftnl_expr_get_u64(e, NFTNL_EXPR_CTR_BYTES);
	}
	return 0;
}

static int read_udata(const struct nftnl_udata *attr, void *data)
{
	const char *text = nftnl_udata_get(attr);
	size_t len = nftnl_udata_len(attr);

	/* Not ours to trust: anybody may have put the rule there. */
	if (nftnl_udata_type(attr) == NFTNL_UDATA_RULE_COMMENT && len > 0 && text[len - 1] == '\0')
		*(const char **)data = text;
	return 0;
}

static const char *comment_of(struct nftnl_rule *rule)
{
	const char *comment = "";
	uint32_t len = 0;
	const void *udata = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &len);

	if (udata)
		nftnl_udata_parse(udata, len, read_udata, &comment);
	return comment;
}

static int on_rule(const struct nlmsghdr *h, void *data)
{
	const struct counting *c = data;
	struct nftnl_rule *rule = nftnl_rule_alloc();
	struct reading reading = {0};

	if (!rule)
		return MNL_CB_ERROR;
	if (nftnl_rule_nlmsg_parse(h, rule) == 0 &&
	    strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), c->table) == 0) {
		nftnl_expr_foreach(rule, read_expr, &reading);
		reading.rule.chain = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
		reading.rule.comment = comment_of(rule);
		if (reading.counts)
			c->each(c->ctx, &reading.rule);
	}
	nftnl_rule_free(rule);
	return MNL_CB_OK;
}

int nft_count_rules(uint16_t family, const char *table,
		    void (*each)(void *ctx, const struct nft_counted *rule), void *ctx)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	struct nft_question q = {.family = family, .type = NFT_MSG_GETRULE, .table = table};
	struct counting c = {table, each, ctx};
	int r = nft_socket_open(&nl);

	return r < 0 ? r : nft_ask(nl, &q, on_rule, &c);
}
