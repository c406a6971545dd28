/* SPDX-License-Identifier: Apache-2.0 */
#include "init/rules.h"

#include <errno.h>
#include <stdlib.h>

#include "base/addr.h"
#include "base/owned.h"
#include "init/value.h"
#include "redirect/redirector.h"

#define BACKENDS_MAX 2

/* What may be tried, in order. */
static size_t backends(const struct init_options *o, const struct redirector *ret[BACKENDS_MAX])
{
	size_t n = 0;

	if (!init_is_set(o, INIT_FORCE_IPTABLES_BINARY))
		ret[n++] = &redirect_nft;
	if (!init_is_on(o, INIT_NATIVE_NFTABLES))
		ret[n++] = &redirect_ipt;
	return n;
}

/* ---- the plan ---- */

static size_t count(const char *list)
{
	char item[VALUE_ITEM_MAX];
	size_t n = 0;

	while (value_cut_item(&list, item))
		n++;
	return n;
}

int rules_plan(const struct init_options *o, struct plan *ret)
{
	const char *list = o->value[INIT_CLUSTER_CIDRS];
	OWNED_MEM struct cidr *nets = calloc(count(list) + 1, sizeof(*nets));
	struct plan_input input = {.cluster_cidrs = nets, .capture_port = PLAN_CAPTURE_PORT};
	char item[VALUE_ITEM_MAX];
	int r;

	if (!nets)
		return log_err(-ENOMEM, "cannot make a plan");
	while (value_cut_item(&list, item)) {
		r = cidr_parse(item, &nets[input.n_cluster_cidrs]);
		if (r < 0)
			return log_err(r, "'%s' is no network", item);
		input.n_cluster_cidrs++;
	}
	r = plan_make(&input, ret);
	if (r == -E2BIG)
		return log_err(0, "--cluster-cidrs: give at most %u networks", PLAN_MAX_RANGES), r;
	return r < 0 ? log_err(r, "cannot make a plan") : 0;
}

int rules_print(const struct init_options *o, FILE *out)
{
	const struct redirector *how[BACKENDS_MAX];
	OWNED(plan_done) struct plan plan = {0};
	int r;

	r = rules_plan(o, &plan);
	if (r < 0)
		return r;
	plan_print(&plan, out);
	backends(o, how);
	if (how[0] == &redirect_nft) {
		fputs("\nnf_tables:\n", out);
		r = redirect_nft_print(&plan, out);
	}
	if (r == 0 && (ferror(out) || fflush(out) != 0))
		r = -EIO;
	return r < 0 ? log_err(r, "cannot print the plan") : 0;
}

/* ---- in force ---- */

/* Probing as an agent does it takes a network namespace, which an init container may not make: here
 * the real thing is the probe.
 */
static int apply_by(const struct redirector *how, const struct plan *plan, bool force)
{
	int r;

	if (!force && how->verify(plan) == 0) {
		log_info("%s: the rules are in place already", how->name);
		return 0;
	}
	r = how->apply(plan);
	if (r < 0)
		return log_warn(r, "%s: cannot put the rules in place", how->name);
	r = how->verify(plan);
	if (r < 0)
		return log_warn(r, "%s: the kernel does not hold the rules that it was given",
				how->name);
	log_info("%s: the rules are in place", how->name);
	return 0;
}

/* Half of what an earlier back end did could be in the way of the one that works. */
static void remove_by(const struct redirector *const *how, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = how[i]->remove();

		if (r < 0)
			log_debug("%s: cannot remove rules: error %d", how[i]->name, -r);
	}
}

int rules_apply(const struct init_options *o, const struct plan *plan)
{
	const struct redirector *how[BACKENDS_MAX];
	size_t n = backends(o, how);
	bool denied = false;
	int r = -EOPNOTSUPP;

	for (size_t i = 0; i < n; i++) {
		r = apply_by(how[i], plan, init_is_on(o, INIT_FORCE_APPLY));
		if (r == 0) {
			remove_by(how, i);
			return 0;
		}
		denied |= r == -EPERM;
	}
	if (denied)
		return log_err(0, "give this container NET_ADMIN and NET_RAW, and run it as root"),
		       r;
	return log_err(0, "no back end works here: --skip-rule-apply leaves it to the agent, which "
			  "may have another"),
	       r;
}

int rules_remove(void)
{
	const struct redirector *const how[] = {&redirect_nft, &redirect_ipt};
	int worst = 0;

	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		int r = how[i]->remove();

		/* A back end that does not work here has left nothing either. */
		if (r < 0 && r != -EOPNOTSUPP && r != -ENOENT)
			worst = log_err(r, "%s: cannot remove the rules", how[i]->name);
	}
	return worst;
}
