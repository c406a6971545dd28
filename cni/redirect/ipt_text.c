/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "redirect/ipt_nets.h"
#include "redirect/ipt_rule.h"

/* Up to so many networks without holes each has a rule in its place. Others have a chain of their
 * own; of more, each is a rule in a chain for its neighbourhood, so that 4,096 of them cost a
 * packet some 80 comparisons.
 */
#define FLAT_MAX 32

#define CHAIN_MAX 29 /* with the NUL: XT_EXTENSION_MAXNAMELEN */

const char *ipt_table_str(enum ipt_table_id table)
{
	static const char *const names[] = {
		[IPT_FILTER] = "filter", [IPT_MANGLE] = "mangle", [IPT_NAT] = "nat"};
	_Static_assert(ARRAY_SIZE(names) == IPT_TABLE_N_, "every table has a name");

	return names[table];
}

/* Where a chain of the plan has its place, in the priorities of nf_tables: mangle is at -150, nat
 * at -100, filter at 0. xt_rpfilter wants mangle or raw; in raw there is no connection yet. REJECT
 * wants filter.
 */
static const struct place {
	enum ipt_table_id table;
	const char *builtin, *name;
	bool drops; /* what no rule has settled */
} places[] = {
	[PLAN_CHAIN_CAPTURE] = {IPT_NAT, "OUTPUT", "CAPTURE", false},
	[PLAN_CHAIN_OUTGOING] = {IPT_FILTER, "OUTPUT", "OUTGOING", true},
	[PLAN_CHAIN_ARRIVING] = {IPT_MANGLE, "PREROUTING", "ARRIVING", false},
	[PLAN_CHAIN_INCOMING] = {IPT_FILTER, "INPUT", "INCOMING", false},
	[PLAN_CHAIN_FORWARDED] = {IPT_FILTER, "FORWARD", "FORWARDED", true},
	[PLAN_CHAIN_LEAVING] = {IPT_MANGLE, "POSTROUTING", "LEAVING", false},
};
_Static_assert(ARRAY_SIZE(places) == PLAN_CHAIN_N_, "every chain has its place");

/* Chains are declared in front of the rules of their table, and made up while those are written. */
struct writer {
	const struct plan *plan;
	enum plan_family family;
	struct ipt_nets nets;  /* the cluster's */
	FILE *chains, *rules;  /* of the table in hand */
	const char *name;      /* of the plan's chain in hand */
	char chain[CHAIN_MAX]; /* the part of it that is being written */
	unsigned part;
};

__attribute__((format(printf, 3, 4))) static void
add_chain(struct writer *w, char name[static CHAIN_MAX], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(name, CHAIN_MAX, format, args);
	va_end(args);
	fprintf(w->chains, ":%s - [0:0]\n", name);
}

/* ---- the cluster's networks ---- */

static void print_go(struct writer *w, const struct ipt_rule *rule, const char *chain,
		     const struct cidr *net, const char *to)
{
	char go[CHAIN_MAX + 8];

	snprintf(go, sizeof(go), " -g %s", to);
	ipt_rule_print(rule, chain, net, go, w->rules);
}

static void print_group(struct writer *w, const struct ipt_rule *net_rule,
			const struct ipt_group *group, const char *chain, const char *rest)
{
	for (size_t i = 0; i < group->n; i++)
		ipt_rule_print(net_rule, chain, &w->nets.v[group->first + i], " -j RETURN",
			       w->rules);
	fprintf(w->rules, "-A %s -g %s\n", chain, rest);
}

static int print_groups(struct writer *w, const struct ipt_rule *net_rule, const char *list,
			const char *rest)
{
	OWNED_MEM struct ipt_group *groups = NULL;
	int n = ipt_nets_group(&w->nets, FLAT_MAX, &groups);
	char chain[CHAIN_MAX];

	if (n < 0)
		return n;
	if (n == 1) {
		print_group(w, net_rule, &groups[0], list, rest);
		return 0;
	}
	for (int i = 0; i < n; i++) {
		add_chain(w, chain, IPT_PREFIX "%s-%u-NET-%d", w->name, w->part, i + 1);
		print_go(w, net_rule, list, &groups[i].cover, chain);
		print_group(w, net_rule, &groups[i], chain, rest);
	}
	fprintf(w->rules, "-A %s -g %s\n", list, rest);
	return 0;
}

/* All ways go on by -g, never by -j: RETURN then leads out of all of them, to where the built-in
 * chain had jumped to the first. What is in no network goes on with the rest of the chain.
 */
static int print_list(struct writer *w, const struct ipt_rule *rule)
{
	struct ipt_rule net_rule = {.src_cluster = rule->src_cluster,
				    .dst_cluster = rule->dst_cluster};
	char list[CHAIN_MAX], rest[CHAIN_MAX];
	int r;

	add_chain(w, list, IPT_PREFIX "%s-%u-NETS", w->name, w->part);
	add_chain(w, rest, IPT_PREFIX "%s-%u", w->name, w->part + 1);
	print_go(w, rule, w->chain, NULL, list);
	fprintf(w->rules, "-A %s -g %s\n", w->chain, rest);
	for (size_t i = 0; i < w->nets.n_holes; i++)
		print_go(w, &net_rule, list, &w->nets.holes[i], rest);
	r = print_groups(w, &net_rule, list, rest);
	memcpy(w->chain, rest, sizeof(w->chain));
	w->part++;
	return r;
}

static int print_cluster_rule(struct writer *w, const struct ipt_rule *rule,
			      enum plan_action plan_action, const char *action)
{
	if (w->nets.n > FLAT_MAX || w->nets.n_holes > 0)
		return plan_action == PLAN_ACTION_ACCEPT ? print_list(w, rule) : -EINVAL;
	for (size_t i = 0; i < w->nets.n; i++)
		ipt_rule_print(rule, w->chain, &w->nets.v[i], action, w->rules);
	return 0;
}

/* ---- chains and tables ---- */

static int print_rule(struct writer *w, const struct plan_rule *rule)
{
	char buf[IPT_ACTION_MAX];
	const char *action = ipt_action(w->plan, rule->action, w->family, buf);
	struct ipt_rule made;
	int r;

	if (rule->family != PLAN_FAMILY_ANY && rule->family != w->family)
		return 0;
	r = ipt_rule_make(w->plan, rule, w->family, &made);
	if (r < 0 || !action)
		return -EINVAL;
	if (made.src_cluster || made.dst_cluster)
		return print_cluster_rule(w, &made, rule->action, action);
	ipt_rule_print(&made, w->chain, NULL, action, w->rules);
	return 0;
}

static int print_chain(struct writer *w, enum plan_chain chain)
{
	const struct place *place = &places[chain];
	int r = 0;

	w->name = place->name;
	w->part = 1;
	add_chain(w, w->chain, IPT_PREFIX "%s", place->name);
	fprintf(w->rules, "-A %s -j %s\n", place->builtin, w->chain);
	for (size_t i = 0; i < w->plan->n_rules && r == 0; i++) {
		if (w->plan->rules[i].chain == chain)
			r = print_rule(w, &w->plan->rules[i]);
	}
	if (place->drops)
		fprintf(w->rules, "-A %s -j DROP\n", w->chain);
	return r;
}

static int print_table(struct writer *w, enum ipt_table_id table, FILE *out)
{
	OWNED_MEM char *chains = NULL, *rules = NULL;
	size_t n_chains, n_rules;
	int r = 0;

	w->chains = open_memstream(&chains, &n_chains);
	w->rules = open_memstream(&rules, &n_rules);
	for (enum plan_chain c = 0; w->chains && w->rules && c < PLAN_CHAIN_N_ && r == 0; c++) {
		if (places[c].table == table)
			r = print_chain(w, c);
	}
	if (!w->chains || fclose(w->chains) != 0)
		r = -ENOMEM;
	if (!w->rules || fclose(w->rules) != 0)
		r = -ENOMEM;
	if (r == 0)
		fprintf(out, "*%s\n%s%sCOMMIT\n", ipt_table_str(table), chains, rules);
	return r;
}

int ipt_text_make(const struct plan *plan, enum ipt_family family, char **ret)
{
	struct writer w = {.plan = plan,
			   .family = family == IPT_V4 ? PLAN_FAMILY_V4 : PLAN_FAMILY_V6};
	OWNED_MEM char *text = NULL;
	size_t size;
	FILE *out;
	int r;

	if (family == IPT_V4)
		r = ipt_nets_make(plan->v4, plan->n_v4, &w.nets);
	else
		r = ipt_nets_make(plan->v6, plan->n_v6, &w.nets);
	if (r < 0)
		return r;
	out = open_memstream(&text, &size);
	for (enum ipt_table_id t = 0; out && t < IPT_TABLE_N_ && r == 0; t++)
		r = print_table(&w, t, out);
	ipt_nets_done(&w.nets);
	if (!out || fclose(out) != 0)
		return -ENOMEM;
	if (r < 0)
		return r;
	*ret = TAKE_PTR(text);
	return 0;
}
