/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"

#define CAPTURE(family, match, action)                                  \
	{                                                               \
		PLAN_CHAIN_CAPTURE, family, match, PLAN_ACTION_##action \
	}
#define OUTGOING(family, match, action)                                  \
	{                                                                \
		PLAN_CHAIN_OUTGOING, family, match, PLAN_ACTION_##action \
	}
#define ARRIVING(family, match, action)                                  \
	{                                                                \
		PLAN_CHAIN_ARRIVING, family, match, PLAN_ACTION_##action \
	}
#define INCOMING(family, match, action)                                  \
	{                                                                \
		PLAN_CHAIN_INCOMING, family, match, PLAN_ACTION_##action \
	}
#define FORWARDED(family, match, action)                                  \
	{                                                                 \
		PLAN_CHAIN_FORWARDED, family, match, PLAN_ACTION_##action \
	}
#define LEAVING(family, match, action)                                  \
	{                                                               \
		PLAN_CHAIN_LEAVING, family, match, PLAN_ACTION_##action \
	}
#define ANY PLAN_FAMILY_ANY
#define V4  PLAN_FAMILY_V4
#define V6  PLAN_FAMILY_V6

#define CAPTURED (PLAN_SRC_LOCAL | PLAN_DST_LOOPBACK | PLAN_TCP | PLAN_DPORT_CAPTURE | PLAN_CT_DNAT)

/* The whole policy. SRC_LOCAL stands wherever something new may pass: a raw socket can put any
 * source address into a packet, and the *answer* to a forged one would leave as a reply.
 */
static const struct plan_rule rules[] = {
	CAPTURE(ANY, PLAN_OUT_LO, ACCEPT), /* the pod's own addresses */
	CAPTURE(V4, PLAN_DST_CLUSTER, ACCEPT),
	CAPTURE(V6, PLAN_DST_CLUSTER, ACCEPT),
	CAPTURE(ANY, PLAN_SRC_LOCAL | PLAN_TCP, REDIRECT),

	OUTGOING(ANY, PLAN_CT_LIVE | PLAN_CT_REPLY, ACCEPT),
	OUTGOING(ANY, PLAN_OUT_LO | PLAN_SRC_LOCAL, ACCEPT),
	/* Our own resets answer with the address that was refused; those for packets that conntrack
	 * finds invalid belong to no connection. A reset never opens one. */
	OUTGOING(ANY, PLAN_OUT_LO | PLAN_TCP | PLAN_TCP_RST, ACCEPT),
	/* Just redirected: the hook still sees the interface of the first routing decision. */
	OUTGOING(V4, CAPTURED, ACCEPT),
	OUTGOING(V6, CAPTURED, ACCEPT),
	OUTGOING(V4, PLAN_SRC_LOCAL | PLAN_DST_CLUSTER, ACCEPT),
	OUTGOING(V6, PLAN_SRC_LOCAL | PLAN_DST_CLUSTER, ACCEPT),
	/* What IPv6 needs on the link. To a global address only where that one has proved to be on
	 * the link: a router would pass the packet on. */
	OUTGOING(V6, PLAN_ND | PLAN_DST_LINK, ACCEPT),
	OUTGOING(V6, PLAN_ND | PLAN_DST_LINK_GROUP, ACCEPT),
	OUTGOING(V6, PLAN_ND | PLAN_DST_NEIGHBOUR, ACCEPT),
	OUTGOING(V6, PLAN_MLD_OR_RS | PLAN_DST_LINK_GROUP, ACCEPT),
	OUTGOING(V6, PLAN_MLD2 | PLAN_DST_LINK_GROUP, ACCEPT),
	/* In silence, because a reset or an ICMP error, with what it quotes, would go to the forged
	 * address. */
	OUTGOING(ANY, PLAN_SRC_NOT_LOCAL, REPORT_BYPASS),
	OUTGOING(ANY, PLAN_SRC_NOT_LOCAL, DROP),
	/* The kernel's own answer to a stranger's stray packet: nothing that the pod tried. */
	OUTGOING(ANY, PLAN_TCP | PLAN_TCP_RST, DROP),
	OUTGOING(ANY, PLAN_TCP, REPORT_BYPASS),
	OUTGOING(ANY, PLAN_TCP, RESET),
	/* By itself for its counter, and so that it is reported whatever else is tried. */
	OUTGOING(ANY, PLAN_QUIC, REPORT_REFUSED),
	OUTGOING(ANY, PLAN_QUIC, PROHIBIT),
	OUTGOING(ANY, 0, REPORT_REFUSED),
	OUTGOING(ANY, 0, PROHIBIT),

	/* The same for what is forged by a packet socket on lo, and by a nested container or VM. */
	ARRIVING(ANY, PLAN_CT_LIVE, ACCEPT),
	ARRIVING(ANY, PLAN_IN_LO | PLAN_CT_NEW | PLAN_SRC_NOT_LOCAL, REPORT_BYPASS),
	ARRIVING(ANY, PLAN_IN_LO | PLAN_CT_NEW | PLAN_SRC_NOT_LOCAL, DROP),
	/* What strangers send to the pod is not of its doing; what is on its way out through it is.
	 */
	ARRIVING(ANY, PLAN_SRC_ASTRAY | PLAN_DST_ROUTED, REPORT_BYPASS),
	ARRIVING(ANY, PLAN_SRC_ASTRAY, DROP),

	/* The listener is for this pod only, whatever route_localnet says. */
	INCOMING(V4, PLAN_IN_NOT_LO | PLAN_DST_LOOPBACK, DROP),
	INCOMING(V6, PLAN_IN_NOT_LO | PLAN_DST_LOOPBACK, DROP),
	INCOMING(V6, PLAN_IN_NOT_LO | PLAN_ND | PLAN_HOPLIMIT_255, LEARN),
	INCOMING(V4, PLAN_SRC_CLUSTER, ACCEPT),
	INCOMING(V6, PLAN_SRC_CLUSTER, ACCEPT),
	/* A connection older than the rules: conntrack would take the outside for the side that
	 * opened it, and everything the pod goes on sending for a reply. */
	INCOMING(ANY, PLAN_IN_NOT_LO | PLAN_TCP | PLAN_TCP_NOT_SYN | PLAN_CT_NEW, DROP),

	FORWARDED(ANY, PLAN_CT_LIVE | PLAN_CT_REPLY, ACCEPT),
	FORWARDED(V4, PLAN_DST_CLUSTER, ACCEPT),
	FORWARDED(V6, PLAN_DST_CLUSTER, ACCEPT),
	FORWARDED(ANY, PLAN_TCP | PLAN_TCP_NOT_SYN | PLAN_CT_NEW, REPORT_BYPASS),
	FORWARDED(ANY, PLAN_TCP | PLAN_TCP_NOT_SYN | PLAN_CT_NEW, RESET),
	/* A port of the pod that is passed to a nested container or VM. */
	FORWARDED(ANY, PLAN_CT_DNAT, ACCEPT),
	FORWARDED(ANY, 0, REPORT_BYPASS),
	FORWARDED(ANY, PLAN_TCP, RESET),
	FORWARDED(ANY, 0, PROHIBIT),

	/* A socket bound to an interface keeps it when its packet is redirected: that packet would
	 * go out with a loopback address on it. */
	LEAVING(V4, PLAN_OUT_NOT_LO | PLAN_DST_LOOPBACK, REPORT_BYPASS),
	LEAVING(V4, PLAN_OUT_NOT_LO | PLAN_DST_LOOPBACK, DROP),
	LEAVING(V6, PLAN_OUT_NOT_LO | PLAN_DST_LOOPBACK, REPORT_BYPASS),
	LEAVING(V6, PLAN_OUT_NOT_LO | PLAN_DST_LOOPBACK, DROP),
};

/* Never cluster, even within a cluster network: credentials for the cloud are given out there. */
static const char *const metadata[] = {
	"169.254.169.254", /* AWS, Azure, GCP, Oracle, OpenStack, ... */
	"100.100.100.200", /* Alibaba */
	"fd00:ec2::254",   /* AWS */
	"fd20:ce::254",    /* GCP */
};

/* ---- ranges: big-endian numbers of 16 bytes ---- */

static int compare(const uint8_t a[16], const uint8_t b[16])
{
	return memcmp(a, b, 16);
}

static int compare_range(const void *a, const void *b)
{
	return compare(((const struct plan_range *)a)->from, ((const struct plan_range *)b)->from);
}

/* False when there is no next one. */
static bool increment(uint8_t ip[16])
{
	for (int i = 15; i >= 0; i--) {
		if (++ip[i] != 0)
			return true;
	}
	return false;
}

static void decrement(uint8_t ip[16])
{
	for (int i = 15; i >= 0; i--) {
		if (ip[i]-- != 0)
			return;
	}
}

static struct plan_range range_of(const struct cidr *net)
{
	struct plan_range r;

	memcpy(r.from, net->ip, 16);
	memcpy(r.to, net->ip, 16);
	for (unsigned i = net->bits; i < 128; i++)
		r.to[i / 8] |= (uint8_t)(0x80 >> i % 8);
	return r;
}

/* Sorts, and makes one of those that overlap or touch. Returns how many are left. */
static size_t merge(struct plan_range *v, size_t n)
{
	size_t last = 0;

	if (n == 0)
		return 0;
	qsort(v, n, sizeof(*v), compare_range);
	for (size_t i = 1; i < n; i++) {
		uint8_t next[16];

		memcpy(next, v[last].to, 16);
		if (!increment(next) || compare(v[i].from, next) <= 0) {
			if (compare(v[i].to, v[last].to) > 0)
				memcpy(v[last].to, v[i].to, 16);
		} else {
			v[++last] = v[i];
		}
	}
	return last + 1;
}

/* Cuts one address out. There is room for one range more. Returns how many there are now. */
static size_t cut(struct plan_range *v, size_t n, const uint8_t ip[16])
{
	struct plan_range above;
	size_t i = 0;

	while (i < n && compare(v[i].to, ip) < 0)
		i++;
	if (i == n || compare(v[i].from, ip) > 0)
		return n;

	above = v[i];
	memcpy(above.from, ip, 16);
	if (compare(v[i].to, ip) > 0 && increment(above.from)) {
		memmove(&v[i + 1], &v[i], (n - i) * sizeof(*v));
		v[i + 1] = above;
		n++;
	}
	if (compare(v[i].from, ip) == 0) { /* nothing is left below */
		memmove(&v[i], &v[i + 1], (n - i - 1) * sizeof(*v));
		return n - 1;
	}
	memcpy(v[i].to, ip, 16);
	decrement(v[i].to);
	return n;
}

static int make_ranges(const struct plan_input *input, bool v4, struct plan_range **ret,
		       size_t *ret_n)
{
	OWNED_MEM struct plan_range *v = NULL;
	size_t n = 0;

	v = calloc(input->n_cluster_cidrs + ARRAY_SIZE(metadata), sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < input->n_cluster_cidrs; i++) {
		if (cidr_is_v4(&input->cluster_cidrs[i]) == v4)
			v[n++] = range_of(&input->cluster_cidrs[i]);
	}
	n = merge(v, n);

	for (size_t i = 0; i < ARRAY_SIZE(metadata); i++) {
		struct addr a;

		/* An IPv6 network such as ::/0 holds the mapped form of IPv4 too, but is not it. */
		if (addr_parse_ip(metadata[i], &a) == 0 && addr_is_v4(&a) == v4)
			n = cut(v, n, a.ip);
	}
	*ret = TAKE_PTR(v);
	*ret_n = n;
	return 0;
}

int plan_make(const struct plan_input *input, struct plan *ret)
{
	OWNED(plan_done)
	struct plan plan = {
		.capture_port = input->capture_port,
		.rules = rules,
		.n_rules = ARRAY_SIZE(rules),
	};
	int r;

	if (input->n_cluster_cidrs > PLAN_MAX_RANGES)
		return -E2BIG;
	r = make_ranges(input, true, &plan.v4, &plan.n_v4);
	if (r < 0)
		return r;
	r = make_ranges(input, false, &plan.v6, &plan.n_v6);
	if (r < 0)
		return r;
	*ret = plan;
	plan = (struct plan){0};
	return 0;
}

void plan_done(struct plan *plan)
{
	free(plan->v4);
	free(plan->v6);
	*plan = (struct plan){0};
}

/* ---- text ---- */

const char *plan_chain_str(enum plan_chain chain)
{
	static const char *const names[] = {
		[PLAN_CHAIN_CAPTURE] = "capture",     [PLAN_CHAIN_OUTGOING] = "outgoing",
		[PLAN_CHAIN_ARRIVING] = "arriving",   [PLAN_CHAIN_INCOMING] = "incoming",
		[PLAN_CHAIN_FORWARDED] = "forwarded", [PLAN_CHAIN_LEAVING] = "leaving",
	};
	_Static_assert(ARRAY_SIZE(names) == PLAN_CHAIN_N_, "every chain has a name");

	return names[chain];
}

static const char *const match_names[] = {
	"in-lo",          "in-not-lo",     "out-lo",      "out-not-lo",    "ct-live",
	"ct-reply",       "ct-new",        "ct-dnat",     "tcp",           "tcp-rst",
	"tcp-not-syn",    "dport-capture", "nd",          "mld-or-rs",     "mld2",
	"hoplimit-255",   "src-cluster",   "dst-cluster", "dst-loopback",  "dst-link",
	"dst-link-group", "dst-neighbour", "src-local",   "src-not-local", "src-astray",
	"quic",           "dst-routed",
};
_Static_assert(1 << ARRAY_SIZE(match_names) == PLAN_MATCH_END_, "every match has a name");

static void print_range(const char *set, const struct plan_range *range, FILE *out)
{
	struct addr from = {0}, to = {0};
	char a[ADDR_TEXT], b[ADDR_TEXT];

	memcpy(from.ip, range->from, 16);
	memcpy(to.ip, range->to, 16);
	fprintf(out, "%s %s-%s\n", set, addr_print_ip(&from, a), addr_print_ip(&to, b));
}

void plan_print(const struct plan *plan, FILE *out)
{
	static const char *const families[] = {"", " v4", " v6"};
	static const char *const actions[] = {
		"accept", "redirect", "reset",          "prohibit",
		"drop",   "learn",    "report refused", "report bypass",
	};
	_Static_assert(ARRAY_SIZE(families) == PLAN_FAMILY_N_, "every family has a name");
	_Static_assert(ARRAY_SIZE(actions) == PLAN_ACTION_N_, "every action has a name");

	fprintf(out, "port %u\n", plan->capture_port);
	for (size_t i = 0; i < plan->n_v4; i++)
		print_range("cluster4", &plan->v4[i], out);
	for (size_t i = 0; i < plan->n_v6; i++)
		print_range("cluster6", &plan->v6[i], out);
	for (size_t i = 0; i < plan->n_rules; i++) {
		const struct plan_rule *rule = &plan->rules[i];

		fprintf(out, "%s%s", plan_chain_str(rule->chain), families[rule->family]);
		for (size_t m = 0; m < ARRAY_SIZE(match_names); m++) {
			if (rule->match & 1U << m)
				fprintf(out, " %s", match_names[m]);
		}
		fprintf(out, ": %s\n", actions[rule->action]);
	}
}
